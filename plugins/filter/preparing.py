# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host needs before its pools can be: the items of the roles host_*, from the `prepare` of its pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from .fleet import meant

# By the key of `prepare`, which is the name of the role behind host_: what an item of that role has from its pool where
# it does not say so itself. In the order in which storage stands on storage.
ROLES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "iscsi": lambda pool: {
        "target_iqn": pool.get("target_iqn"),
        "portals": pool.get("hosts"),
        "startup": "manual" if pool["type"] == "iscsi" else None,  # that pool logs in by itself
    },
    "multipath": lambda pool: {},
    "lvm": lambda pool: {"name": pool.get("source_name"), "devices": pool.get("devices")},
    "zfs": lambda pool: {"name": str(pool.get("source_name") or "").partition("/")[0]},
    "btrfs": lambda pool: {"path": pool.get("path")},
    "nfs": lambda pool: {"path": pool.get("path"), "hosts": pool.get("hosts"), "source_path": pool.get("source_path")},
    "cifs": lambda pool: {"path": pool.get("path"), "hosts": pool.get("hosts")},
    "ceph": lambda pool: {
        "hosts": pool.get("hosts"),
        "user": (pool.get("auth") or {}).get("username"),
        "secret_usage": (pool.get("auth") or {}).get("secret_usage"),
        "pools": [pool["source_name"]] if pool.get("source_name") else None,
    },
    "gluster": lambda pool: {
        "path": pool.get("path"),
        "hosts": pool.get("hosts"),
        "source_name": pool.get("source_name"),
    },
    "security": lambda pool: {"path": pool.get("path")},
}

CARRIERS = ("iscsi", "multipath")  # what brings devices to a host
CARRIED = ("lvm", "zfs", "btrfs")  # what stands on devices

TELLING = ("target_iqn", "wwid", "name", "path")  # what tells one item of a role from another, whichever it has


def prepared(pools: Any, host: str, groups: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """What the pools of a host ask of it.

    present, absent  key of `prepare` -> items of that role; absent are those of pools with that state.
    devices          those that are named and must be there before anything begins.
    carried          of those that are present: {item, devices} where the same pool brings their devices to the host.
    types            the types of the pools that are not absent, for the storage drivers of libvirt.
    """
    if not isinstance(pools, (list, tuple)):
        raise AnsibleFilterError("prepared: a list of pools is needed")
    found: dict[str, Any] = {side: {key: [] for key in ROLES} for side in ("present", "absent")}
    types, carried, devices = set(), [], []
    for pool in meant(pools, host, groups):
        if not isinstance(pool, Mapping) or "type" not in pool:
            continue  # the layout says what is wrong with it
        gone = pool.get("state") == "absent"
        if not gone:
            types.add(str(pool["type"]))
        for key, item in asked(pool):
            known = {name: value for name, value in ROLES[key](pool).items() if value not in (None, "")}
            side = found["absent" if gone else "present"][key]
            whole = {**known, **item, **({"state": "absent"} if gone else {})}
            if whole not in side:  # several pools may stand on one
                side.append(whole)
            if gone or whole.get("state") == "absent" or key not in CARRIED:
                continue
            if any(carrier in pool["prepare"] for carrier in CARRIERS):
                carried.append({"item": whole, "devices": devices_of(whole)})
            else:
                devices += [one for one in devices_of(whole) if one not in devices]
    for key, items in found["absent"].items():  # what another pool still stands on stays
        kept = [told(item) for item in found["present"][key]]
        found["absent"][key] = [item for item in items if told(item) not in kept]
    return {**found, "devices": devices, "carried": carried, "types": sorted(types)}


def devices_of(item: Mapping[str, Any]) -> list[Any]:
    """The devices that an item of host_lvm, host_btrfs or host_zfs names."""
    return [one for part in (item, *(item.get("vdevs") or [])) for one in part.get("devices") or []]


def told(item: Mapping[str, Any]) -> list[Any]:
    return [item.get(name) for name in TELLING]


def asked(pool: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What one pool asks for, as (key, item); a key may have one item or a list of them."""
    name, wanted = pool.get("name", pool["type"]), pool.get("prepare") or {}
    if not isinstance(wanted, Mapping):
        raise AnsibleFilterError(f"pool {name}: prepare must be a dictionary; its keys are {', '.join(ROLES)}")
    found = []
    for key in sorted(wanted, key=str):
        if key not in ROLES:
            raise AnsibleFilterError(f"pool {name}: prepare has no {key}; it has {', '.join(ROLES)}")
        items = wanted[key] if isinstance(wanted[key], (list, tuple)) else [wanted[key] or {}]
        for item in items:
            if not isinstance(item, Mapping):
                raise AnsibleFilterError(
                    f"pool {name}: prepare.{key} must be a dictionary or a list of them, with the keys of an item of "
                    f"the role host_{key}"
                )
            found.append((key, item))
    return found


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, Any]:
        return {"prepared": prepared}
