# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles host_zfs and zfs_over_iscsi are to do; plugin_utils decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import zpools, zvol_exports


def zpool_plan(pools: Any, **told: Any) -> dict[str, Any]:
    """As in plugin_utils; what can't be read is an error, since nothing may be decided without it."""
    need("zpool_plan", "zpools", pools)
    try:
        return zpools.zpool_plan(pools, **told)
    except KeyError as error:
        raise AnsibleFilterError(f"zpool_plan: {error} is not in what was declared or seen") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise AnsibleFilterError(f"zpool_plan: what was declared or seen can't be read: {error}") from None


def zvol_export_plan(targets: Any, **told: Any) -> dict[str, Any]:
    """The same for targets. No error has a value of theirs in it, since that may be a password."""
    need("zvol_export_plan", "targets", targets)
    try:
        return zvol_exports.zvol_export_plan(targets, **told)
    except KeyError as error:
        raise AnsibleFilterError(f"zvol_export_plan: {error} is not in what was declared or seen") from None
    except (TypeError, ValueError, AttributeError) as error:
        kind = type(error).__name__
        raise AnsibleFilterError(f"zvol_export_plan: what was declared or seen can't be read ({kind})") from None


def need(name: str, what: str, given: Any) -> None:
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, Mapping) for one in given):
        raise AnsibleFilterError(f"{name}: a list of {what} is needed, each a dictionary")


class FilterModule:
    """The filters of the roles."""

    def filters(self) -> dict[str, Any]:
        return {"zpool_plan": zpool_plan, "zvol_export_plan": zvol_export_plan}
