# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What block devices of this host hold and who uses them, for those who are about to put something on one."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import replace
from typing import Any

from . import block, chain, commands, info, xmltree
from .errors import StorageError

SECTOR = 512  # bytes; sysfs counts in these, whatever the device has
BY_ID = "/dev/disk/by-id"
MAPPER = "/dev/mapper/"


def device_info(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Facts of each device, in the order asked for; connection is None where this host has no libvirt."""
    uses = [placed(connection, use) for use in chain.uses(connection)] if connection is not None else []
    known = ids()
    found = [facts(path, uses, known) for path in params["devices"]]
    openers = block.openers([one["node"] for one in found if one["exists"]])
    for one in found:
        one["users"] += openers.get(one["node"], [])
        one["blank"] = one["exists"] and not one["holds"] and not one["users"] and not one["partitions"]
    return {"devices": found, "guests_seen": connection is not None}


def device_info_spec() -> dict[str, Any]:
    return {"devices": {"type": "list", "elements": "path", "required": True}}


def facts(path: str, uses: list[chain.Use], known: dict[str, list[str]]) -> dict[str, Any]:
    """One device; of one that is not there, that."""
    found: dict[str, Any] = {
        "path": path,
        "exists": bool(block.number_of(path)),
        "node": os.path.realpath(path),
        "size": None,
        "holds": [],
        "partitions": [],
        "users": [],
        "ids": [],
        "blank": False,
    }
    if found["exists"]:
        node = found["node"]
        own, *parts = block.folders(node)
        found["size"] = int(block.read(f"{own}/size") or 0) * SECTOR
        found["holds"] = signatures(path, node)
        found["partitions"] = [f"/dev/{os.path.basename(part)}" for part in parts]
        found["ids"] = known.get(node, [])
        found["users"] = users(node, found["partitions"], uses)
    elif guests_of({path}, uses):
        found["users"] = [f"a disk of {guests_of({path}, uses)}"]  # such as a volume of a group that is not active
    return info.sized(found, ("size",))


def placed(connection: Any, use: chain.Use) -> chain.Use:
    """A guest's disk by its path, where its domain names the pool and the volume."""
    pool = connection.pool(use.pool) if use.pool and not use.path else None
    if pool is None:
        return use
    listed = connection.volumes(use.pool).get(use.volume)
    target = xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") or ""
    return replace(use, path=os.path.realpath(listed.path() if listed is not None else f"{target}/{use.volume}"))


def guests_of(paths: set[str], uses: list[chain.Use]) -> str:
    """The guests that have one of these as a disk, by whichever of its names."""
    wanted = {device_of(path) for path in paths}
    return chain.names([use for use in uses if use.path and device_of(use.path) in wanted])


def device_of(path: str) -> str:
    """Where a path leads; a logical volume that is not active has no device, but two names: VG/LV and mapper/VG-LV."""
    real = os.path.realpath(path)
    parts = re.split(r"(?<!-)-(?!-)", real[len(MAPPER) :]) if real.startswith(MAPPER) else []
    if len(parts) == 2 and not os.path.exists(real):
        return "/dev/" + "/".join(part.replace("--", "-") for part in parts)
    return real


def users(node: str, partitions: list[str], uses: list[chain.Use]) -> list[str]:
    """What has a device or its partitions, in words: mounts, swap, what stands on it, and the disks of guests."""
    guests = guests_of({node, *partitions}, uses)
    found = block.staying_users(node) + ([f"a disk of {guests}"] if guests else [])
    if not found and block.claimed(node):
        found.append("claimed by something that does not show itself, such as a mount in another namespace")
    return found


def signatures(path: str, node: str) -> list[str]:
    """The types of all that wipefs(8) finds on a device, such as LVM2_member, ext4 or gpt."""
    try:
        done = commands.run("wipefs", "--no-act", "--json", "--", node)
    except FileNotFoundError:
        raise StorageError(
            thing=f"device {path}",
            code="missing_command",
            reason="the command wipefs is not on this host",
            way_out="install util-linux",
        ) from None
    if done.returncode:
        raise StorageError(
            thing=f"device {path}",
            code="guard_unavailable",
            reason=f"what it holds can't be read: {done.stderr.strip()}",
            way_out="run as root, and see that the device answers",
        )
    told = json.loads(done.stdout)["signatures"] if done.stdout.strip() else []
    return sorted({one["type"] for one in told})


def ids() -> dict[str, list[str]]:
    """The names below /dev/disk/by-id of each device that has any."""
    found: dict[str, list[str]] = {}
    for link in sorted(glob.glob(f"{BY_ID}/*")):
        found.setdefault(os.path.realpath(link), []).append(link)
    return found
