# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_multipath does."""

from __future__ import annotations

from typing import Any

from ansible_collections.kvm.storage.plugins.plugin_utils import multipath
from ansible_collections.kvm.storage.plugins.plugin_utils.filtering import need_keys


def multipath_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    need_keys("multipath_plan", wanted, multipath.WANTED)
    need_keys("multipath_plan", seen, multipath.SEEN)
    return multipath.plan(wanted, seen)


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Any]:
        return {"multipath_plan": multipath_plan}
