# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""disk: volumes are partitions of a whole disk."""

from __future__ import annotations

import os
from typing import Any

from .. import block
from ..backend import LIBVIRT, OPERATIONS, Backend, Native, Refused
from ..errors import StorageError
from ..fields import At, same_device
from ..identity import of_devices
from ..xmltree import get, parse
from .shared import ONLY_RAW, PERMISSIONS, STANDS_ALONE, VENDOR, blank_device, step_by

LABELS = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
MIB = 1024 * 1024
FIRST_LOGICAL = 5
EXTENDED_SECTORS = 2  # as the kernel shows an extended partition, whatever it has
CYLINDER = 8 * MIB  # 255 heads of 63 sectors are a little less


def granule(pool: dict[str, Any], form: str | None) -> int:
    """Partitions begin and end at whole MiB, in a DOS table at cylinders; libvirt's own default is dos."""
    return CYLINDER if pool.get("source_format", "dos") == "dos" else MIB


def name_error(name: str, there: list[str], options: dict[str, Any]) -> str:
    """libvirt makes the next partition first, and compares its name afterwards."""
    device = os.path.basename(os.path.realpath(options["device"]))
    separator = "p" if device[-1:].isdigit() else ""
    taken = {one[len(device) :].lstrip("p") for one in there if one.startswith(device)}
    number = next(number for number in range(1, len(taken) + 2) if str(number) not in taken)
    expected = f"{device}{separator}{number}"
    if name == expected:
        return ""
    return f"the next volume of this pool is its next partition and has the name {expected!r}, not {name!r}"


def partitions(device: str) -> dict[str, int]:
    """The partitions of a disk that the kernel has, and their sizes in sectors."""
    return {os.path.basename(folder): int(block.read(f"{folder}/size") or 0) for folder in block.folders(device)[1:]}


def number_of(device: str, name: str) -> int:
    """The number of a partition; 0 for a name that is none of this disk."""
    digits = name[len(os.path.basename(os.path.realpath(device))) :].lstrip("p")
    return int(digits) if digits.isdigit() else 0


def deletes(thing: str, options: dict[str, Any], name: str) -> None:
    """In a DOS table logical partitions go with the extended one, and move up when one before them goes."""
    device = options["device"]
    own, there = number_of(device, name), partitions(device)
    if options.get("source_format", "dos") != "dos" or not own:
        return
    numbers = sorted((number_of(device, one), one) for one in there)
    after = [one for number, one in numbers if number > max(own, FIRST_LOGICAL - 1)]
    if not after or (own < FIRST_LOGICAL and there.get(name, 0) > EXTENDED_SECTORS):
        return
    what = "take its number and name" if own >= FIRST_LOGICAL else "be destroyed with it"
    raise StorageError(
        thing=thing,
        code="in_use",
        reason=f"the logical partitions {', '.join(after)} would {what}",
        way_out=f"remove them first, from {after[-1]} on",
    )


def delete(connection: Any, volume: Any) -> None:
    """libvirt looks for a partition's number behind the name of the device that the pool has, also a stable one."""
    pool = volume.storagePoolLookupByVolume()
    device = get(parse(pool.XMLDesc(0)), "source/device/@path") or ""
    node = os.path.realpath(device)
    if os.path.basename(device) == os.path.basename(node) or not connection.local:
        volume.delete(0)
        return
    number = number_of(device, os.path.basename(os.path.realpath(volume.path())))
    thing = f"volume {pool.name() + '/' + volume.name()!r}"
    step_by(thing, "delete", "parted", "--script", node, "rm", str(number))
    pool.refresh(0)


def start_hint(words: str, options: dict[str, Any]) -> str:
    """parted finds no table, or not the one that is declared."""
    if "requires build" in words or "unrecognised disk label" in words:
        return f"{options.get('device')} has no partition table: build: if_blank makes one where nothing known stands"
    return ""


def identity(thing: str, connection: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The disk itself: its partitions have no numbers of their own."""
    return of_devices(thing, connection, options, [options["device"]])


BACKEND = Backend(
    type="disk",
    numbered=True,
    fields={
        "path": At("target/path", "path"),
        "device": At("source/device/@path", "path", required=True, same=same_device),
        "part_separator": At("source/device/@part_separator", "yes_no"),
        "source_format": At("source/format/@type", choices=LABELS),
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations={
        **dict.fromkeys(OPERATIONS, LIBVIRT),
        "delete": Native("parted", delete),
        "clone": Native("qemu-img convert"),
        "upload": Native("a copy in process, or qemu-img convert"),
        "download": Native("a copy in process, or qemu-img convert"),
        "wipe": Native("zeroes written in process, scrub or blkdiscard"),
        "convert": ONLY_RAW,
        "snapshot": Refused("a partition has no snapshots", "use a logical pool (LVM) or a pool of files"),
        "flatten": STANDS_ALONE,
        "migrate": Native("qemu-img convert, away from it"),
        "resize": Refused("a partition can't grow into the one after it", "make a larger one and copy the data"),
    },
    volume_formats=("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended"),
    default_format="none",
    keeps_format=False,
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    conflicts_by=("device",),
    delete_data="pool",
    devices=lambda options, builds: [options["device"]],
    destroys=lambda thing, options: (
        [*(f"/dev/{name}" for name in partitions(options["device"])), options["device"]],
        [],
    ),
    deletes=deletes,
    blank=lambda options: blank_device(options.get("device", "")),
    granule=granule,
    name_error=name_error,
    start_hint=start_hint,
    constants={"target/path": "/dev"},
    identity=identity,
)
