# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zfs: volumes are the zvols of a ZFS pool or dataset."""

from __future__ import annotations

from typing import Any

from ..backend import LIBVIRT, OPERATIONS, Backend, Native, rounded
from ..commands import run
from ..connection import libvirt, number
from .shared import DEVICES, PERMISSIONS, SOURCE_NAME, resize_by

NO_SUPPORT = 3  # VIR_ERR_NO_SUPPORT
BLOCK = 16 * 1024  # the volblocksize that OpenZFS gives a zvol; a size is a multiple of it
ZVOLS = "/dev/zvol/"


def blank(options: dict[str, Any]) -> bool | None:
    """Whether no zpool or dataset has the name; zpool itself refuses devices that hold something."""
    try:
        found = run("zfs", "list", "-H", "-o", "name", options["source_name"])
    except (OSError, KeyError):
        return None
    if found.returncode == 0:
        return False
    return True if "does not exist" in found.stderr or "no such pool" in found.stderr else None


def resize(connection: Any, volume: Any, capacity: int) -> None:
    """libvirt can since 11.7; before, ZFS's own command does it."""
    size = -(-capacity // BLOCK) * BLOCK
    try:
        volume.resize(size, 0)
    except libvirt.libvirtError as error:
        if number(error) != NO_SUPPORT:
            raise
        name = volume.path()
        name = name[len(ZVOLS) :] if name.startswith(ZVOLS) else name
        resize_by(connection, volume, "zfs", "set", f"volsize={size}", name)


BACKEND = Backend(
    type="zfs",
    fields={
        "source_name": SOURCE_NAME,
        "devices": DEVICES,
        "permissions": PERMISSIONS,
    },
    operations={
        **dict.fromkeys(OPERATIONS, LIBVIRT),
        "clone": Native("zfs clone"),
        "resize": Native("zfs set volsize", resize),
        "wipe": Native("blkdiscard"),
    },
    volume_formats=("raw",),
    build_choices=("never", "if_blank"),
    build_flags={"if_blank": 0},
    conflicts_by=("source_name",),
    delete_data="pool",
    blank=blank,
    granule=rounded(BLOCK),
    constants={"target/path": "/dev/zvol"},  # libvirt makes it /dev/zvol/NAME, whatever stands there
    # storagepool.rng has one device for zfs where the driver builds a zpool of any number.
    schema_agrees=lambda options: len(options.get("devices", [])) < 2,
)
