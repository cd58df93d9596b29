# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools that several hosts share: whether they really do, and whether it is safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from .fleet import meant

# Two hosts can open a disk of these at once, unless libvirt's lock manager says no. Ceph has locks of its own, and
# disks that QEMU reaches over the network are beyond it.
LOCKED_TYPES = frozenset(("disk", "iscsi", "logical", "mpath", "scsi"))
LOCKED_FILES = ("NFS ", "cifs ", "smb3 ")  # begin the identity of shares whose own locks are not to be trusted
UNPROVEN = "unproven"  # the value of shared where the user vouches for it


def shared_pools(pools: Any, host: str, groups: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """The shared pools of a host that are in use: name -> what shared says."""
    if not isinstance(pools, (list, tuple)):
        raise AnsibleFilterError("shared_pools: a list of pools is needed")
    return {
        item["name"]: item["shared"]
        for item in meant(pools, host, groups)
        if isinstance(item, Mapping) and item.get("shared") and not item.get("disabled") and is_wanted_up(item)
    }


def is_wanted_up(item: Mapping[str, Any]) -> bool:
    return item.get("state", "active") == "active"


def sharing(hosts: Any) -> list[str]:
    """What speaks against trusting the pools that hosts share, one line each; empty when all is well.

    hosts  host name -> {"shared": its shared pools, "found": what pool_info with identity returned there}.
    """
    if not isinstance(hosts, Mapping):
        raise AnsibleFilterError("sharing: a dictionary by host is needed")
    problems: list[str] = []
    told: dict[tuple[str, str], dict[str, list[str]]] = {}
    for host, known in hosts.items():
        if not known:
            continue  # it was not asked
        facts = {pool["name"]: pool for pool in known["found"].get("pools", ())}
        for name, word in known["shared"].items():
            if name not in facts:
                continue  # not made yet, in a prediction
            problems += unlocked(host, facts[name], known["found"].get("lock_manager"))
            if word == UNPROVEN:
                continue
            identity = facts[name].get("identity")
            if identity:
                told.setdefault((name, str(word)), {}).setdefault(identity, []).append(host)
            else:
                why = facts[name].get("identity_unknown")
                problems.append(f"{host}: which storage pool {name!r} stands on can't be told: {why}")
    for (name, _word), identities in told.items():
        if len(identities) > 1:
            seen = "; ".join(f"{', '.join(names)}: {identity}" for identity, names in identities.items())
            problems.append(f"pool {name!r} is declared shared and is not the same storage: {seen}")
    return problems


def unlocked(host: str, fact: Mapping[str, Any], manager: Any) -> list[str]:
    """Whether two hosts could start guests on one disk of a pool."""
    needs = fact.get("type") in LOCKED_TYPES or str(fact.get("identity")).startswith(LOCKED_FILES)
    if manager or not needs:
        return []
    return [
        f"{host}: pool {fact['name']!r} is shared, and no lock manager keeps two hosts from using one disk; "
        "set lock_manager in qemu.conf, to lockd for one, on every host"
    ]


class FilterModule:
    """The filters of shared pools."""

    def filters(self) -> dict[str, Any]:
        return {"shared_pools": shared_pools, "sharing": sharing}
