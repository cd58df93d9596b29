# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""fs: volumes are files on a device's file system, which libvirt mounts for the pool."""

from __future__ import annotations

import os
from typing import Any

from .. import block
from ..backend import Backend
from ..errors import StorageError
from ..fields import At, same_device
from ..identity import of_directory
from .shared import COW, FILE_FORMATS, FILE_OPERATIONS, MOUNT_OPTIONS, PERMISSIONS, VENDOR, blank_device

# Those of libvirt; btrfs is not among them, but auto mounts it.
FORMATS: tuple[str, ...] = ("auto", "ext2", "ext3", "ext4", "ufs", "iso9660", "udf")
FORMATS += ("gfs", "gfs2", "vfat", "hfs+", "xfs", "ocfs2", "vmfs")


def option_error(options: dict[str, Any], builds: bool) -> str:
    """libvirt would look for a mkfs.auto."""
    if not builds or options.get("source_format", "auto") != "auto":
        return ""
    return (
        f"a file system is to be made on {options['device']}; say of which kind by source_format, such as xfs or ext4"
    )


def preflight(thing: str, options: dict[str, Any], seconds: float) -> list[str]:
    """libvirt takes a mount that is there for its own, and mounts over one of something else."""
    device, path = options["device"], os.path.realpath(options["path"])
    number, mounted = block.number_of(device), block.mounts()
    here = [one for one, point in mounted if point == path]
    if here and number not in here:
        raise StorageError(
            thing=thing,
            code="path_conflict",
            reason=f"something else than {device} is mounted on {path}, and would be hidden",
            way_out="unmount it, or give another path",
        )
    if here:
        return [f"{device} is mounted on {path} already; the pool uses that mount and ends it when it stops"]
    others = sorted(point for one, point in mounted if number and one == number)
    return [f"{device} is mounted on {others[0]} too"] if others else []


def start_hint(words: str, options: dict[str, Any]) -> str:
    """What mount means."""
    device, form = options.get("device"), options.get("source_format", "auto")
    if "wrong fs type" in words:
        kind = "" if form == "auto" else f"{form} "
        return f"{device} holds no {kind}file system that this kernel mounts: compare with 'blkid {device}'"
    return ""


BACKEND = Backend(
    type="fs",
    fields={
        "path": At("target/path", "path", required=True),
        "device": At("source/device/@path", "path", required=True, same=same_device),
        "source_format": At("source/format/@type", choices=FORMATS),
        **VENDOR,
        "permissions": PERMISSIONS,
        "cow": COW,
        "mount_options": MOUNT_OPTIONS,
    },
    operations=FILE_OPERATIONS,
    volume_formats=FILE_FORMATS,
    default_format="raw",
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    makes_directory=True,
    mounts=True,
    conflicts_by=("device",),
    blank=lambda options: blank_device(options.get("device", "")),
    devices=lambda options, builds: [options["device"]],
    preflight=preflight,
    option_error=option_error,
    start_hint=start_hint,
    capacity_optional=True,
    identity=of_directory,
)
