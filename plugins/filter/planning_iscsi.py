# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_iscsi does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleError, AnsibleFilterError

from ansible_collections.kvm.storage.plugins.plugin_utils import iscsi_nodes


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
    """The result of work, or an error that repeats nothing of the values, which may be passwords."""
    for value, keys in ((wanted, iscsi_nodes.WANTED), (seen, iscsi_nodes.SEEN)):
        if not isinstance(value, Mapping) or set(value) != set(keys):
            raise AnsibleFilterError(f"{name}: a dictionary is needed with {', '.join(keys)}")
    try:
        return work()
    except AnsibleError:
        raise  # a variable that is not defined, by its name
    except Exception as error:
        reason = type(error).__name__
    raise AnsibleFilterError(f"{name}: a value is not what the argument spec of the role host_iscsi says ({reason})")


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Any]:
        return {"iscsi_plan": iscsi_plan, "iscsi_records": iscsi_records}
