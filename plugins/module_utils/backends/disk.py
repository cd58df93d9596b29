# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""disk: volumes are partitions of a whole disk."""

from __future__ import annotations

import os
from typing import Any

from ..backend import LIBVIRT, OPERATIONS, Backend, Refused
from ..fields import At, same_device
from .shared import PERMISSIONS, VENDOR, blank_device

LABELS = ("unknown", "dos", "dvh", "gpt", "mac", "bsd", "pc98", "sun", "lvm2")
MIB = 1024 * 1024
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


def start_hint(words: str, options: dict[str, Any]) -> str:
    """parted finds no table, or not the one that is declared."""
    if "requires build" in words or "unrecognised disk label" in words:
        return f"{options.get('device')} has no partition table: build: if_blank makes one where nothing known stands"
    return ""


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
        "resize": Refused("a partition can't grow into the one after it", "make a larger one and copy the data"),
    },
    volume_formats=("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended"),
    default_format="none",
    keeps_format=False,
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    conflicts_by=("device",),
    delete_data="pool",
    blank=lambda options: blank_device(options.get("device", "")),
    granule=granule,
    name_error=name_error,
    start_hint=start_hint,
    constants={"target/path": "/dev"},
)
