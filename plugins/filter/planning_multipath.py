# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_multipath does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import multipath


def multipath_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    for value, keys in ((wanted, multipath.WANTED), (seen, multipath.SEEN)):
        if not isinstance(value, Mapping) or set(value) != set(keys):
            raise AnsibleFilterError(f"multipath_plan: a dictionary is needed with {', '.join(keys)}")
    return multipath.plan(wanted, seen)


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Any]:
        return {"multipath_plan": multipath_plan}
