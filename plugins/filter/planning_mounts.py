# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles host_mounts, host_nfs and host_cifs do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import mounts
from ansible_collections.kvm.storage.plugins.plugin_utils.filtering import telling_nothing


def mounts_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    if not isinstance(seen, Mapping) or set(seen) != set(mounts.SEEN):
        raise AnsibleFilterError(f"mounts_plan: a dictionary of what was seen is needed, with {', '.join(mounts.SEEN)}")
    return worked_out("mounts_plan", wanted, lambda: mounts.plan(wanted, seen))


def nfs_mounts(shares: Any) -> dict[str, Any]:
    return worked_out("nfs_mounts", shares, lambda: mounts.nfs(shares))


def cifs_mounts(shares: Any, qemu: Any, stat: Any) -> dict[str, Any]:
    """Without any login."""
    return worked_out("cifs_mounts", shares, lambda: mounts.cifs(shares, qemu, stat))


def cifs_logins(shares: Any) -> dict[str, str]:
    """With logins."""
    return worked_out("cifs_logins", shares, lambda: mounts.logins(shares))


def worked_out(name: str, items: Any, work: Callable[[], Any]) -> Any:
    if not isinstance(items, (list, tuple)) or not all(isinstance(one, Mapping) for one in items):
        raise AnsibleFilterError(f"{name}: a list of mounts is needed, each a dictionary")
    return telling_nothing(name, work)


class FilterModule:
    """The filters of the roles."""

    def filters(self) -> dict[str, Any]:
        return {
            "mounts_plan": mounts_plan,
            "nfs_mounts": nfs_mounts,
            "cifs_mounts": cifs_mounts,
            "cifs_logins": cifs_logins,
        }
