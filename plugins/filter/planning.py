# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_lvm is to do; plugin_utils decides."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import volume_groups


def volume_group_plan(groups: Any, **told: Any) -> dict[str, Any]:
    """As in plugin_utils; what can't be read is an error, since nothing may be decided without it."""
    if not isinstance(groups, (list, tuple)):
        raise AnsibleFilterError("volume_group_plan: a list of volume groups is needed")
    try:
        return volume_groups.volume_group_plan(groups, **told)
    except KeyError as error:
        raise AnsibleFilterError(f"volume_group_plan: {error} is not in what was declared or seen") from None
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"volume_group_plan: what was declared or seen can't be read: {error}") from None


class FilterModule:
    """The filter of the role host_lvm."""

    def filters(self) -> dict[str, Any]:
        return {"volume_group_plan": volume_group_plan}
