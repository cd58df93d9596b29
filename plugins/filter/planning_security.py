# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_security does."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import labels
from ansible_collections.kvm.storage.plugins.plugin_utils.filtering import need_keys


def security_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    need_keys("security_plan", wanted, labels.WANTED)
    need_keys("security_plan", seen, labels.SEEN)
    try:
        return labels.plan(wanted, seen)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"security_plan: what was declared or seen can't be read: {error}") from None


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Any]:
        return {"security_plan": security_plan}
