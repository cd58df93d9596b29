# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_iscsi does."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.kvm.storage.plugins.plugin_utils import iscsi_nodes
from ansible_collections.kvm.storage.plugins.plugin_utils.filtering import need_keys, telling_nothing


def iscsi_plan(wanted: Any, seen: Any) -> dict[str, Any]:
    """Without any password."""
    return worked_out("iscsi_plan", wanted, seen, lambda: iscsi_nodes.plan(wanted, seen))


def iscsi_records(wanted: Any, seen: Any) -> dict[str, Any]:
    """With passwords."""
    return worked_out(
        "iscsi_records",
        wanted,
        seen,
        lambda: {"settings": iscsi_nodes.settings(wanted), "records": iscsi_nodes.records(wanted, seen)},
    )


def worked_out(name: str, wanted: Any, seen: Any, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    need_keys(name, wanted, iscsi_nodes.WANTED)
    need_keys(name, seen, iscsi_nodes.SEEN)
    return telling_nothing(name, work)


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Any]:
        return {"iscsi_plan": iscsi_plan, "iscsi_records": iscsi_records}
