# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_btrfs does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import btrfs


def btrfs_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(one, Mapping) for one in wanted):
        raise AnsibleFilterError("btrfs_plan: a list of file systems is needed, each a dictionary")
    if not isinstance(seen, Mapping) or set(seen) != set(btrfs.SEEN):
        raise AnsibleFilterError(f"btrfs_plan: a dictionary of what was seen is needed, with {', '.join(btrfs.SEEN)}")
    return btrfs.plan(wanted, seen)


class FilterModule:
    """The filter of the role."""

    def filters(self) -> dict[str, Any]:
        return {"btrfs_plan": btrfs_plan}
