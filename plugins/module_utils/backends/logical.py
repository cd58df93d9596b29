# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""logical: volumes are the logical volumes of an LVM volume group."""

from __future__ import annotations

import functools
from typing import Any

from ..backend import LIBVIRT, OPERATIONS, Backend, Native
from ..commands import run
from ..fields import At
from .shared import DEVICES, PERMISSIONS, SOURCE_NAME, VENDOR, blank_devices, resize_by

DEFAULT_EXTENT = 4 * 1024 * 1024


@functools.cache
def extent(group: str) -> int:
    """The extent of a volume group, in bytes: asked once a run; LVM's default where it can't be asked."""
    try:
        found = run("vgs", "--noheadings", "--nosuffix", "--units", "b", "--options", "vg_extent_size", "--", group)
        return int(found.stdout)
    except (OSError, ValueError):
        return DEFAULT_EXTENT


def resize(connection: Any, volume: Any, capacity: int) -> None:
    """LVM rounds up to whole extents by itself."""
    resize_by(connection, volume, "lvextend", "--size", f"{capacity}b", "--", volume.path())


def start_hint(words: str, options: dict[str, Any]) -> str:
    """LVM answers in several lines, of which libvirt passes on the exit status."""
    if "vgchange" in words and "unexpected exit status" in words:
        return f"volume group {options.get('source_name')!r} can't be activated: is it on this host? ask 'vgs'"
    return ""


BACKEND = Backend(
    type="logical",
    fields={
        "source_name": SOURCE_NAME,
        "devices": DEVICES,
        "source_format": At("source/format/@type", choices=("unknown", "lvm2")),
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations={**dict.fromkeys(OPERATIONS, LIBVIRT), "resize": Native("lvextend", resize)},
    volume_formats=("raw",),
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    conflicts_by=("source_name",),
    delete_data="pool",
    blank=lambda options: blank_devices(options.get("devices", [])),
    granule=lambda pool, form: extent(pool.get("source_name", "")),
    start_hint=start_hint,
    constants={"target": ""},  # the path is /dev/VG, whatever stands there
)
