# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the end of a disk is known to be unused, so that it can be cut off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import claims, nodes, qemu_img, sizes

SECTOR = 512
LAST_BYTES = 64 * 1024  # behind an end, in which blocks may lie that begin before it


@dataclass(frozen=True)
class Window(nodes.Node):
    """Some bytes of what a guest sees of a disk."""

    below: nodes.Node | None = None
    offset: int = 0

    def options(self) -> dict[str, Any]:
        below = self.below.options() if self.below is not None else None
        return {"driver": "raw", "offset": self.offset, "size": self.size, "file": below}


def objection(thing: str, node: nodes.Node, end: int) -> str:
    """Why a disk can't be cut at an end; empty where nothing lies behind it and nothing claims what does."""
    end = end // SECTOR * SECTOR
    found = claims.of(some(thing, node, 0, claims.HEAD))
    for one in found or ():
        if one.end > end:
            return f"{one.what} claims its first {sizes.both(one.end)}"
    for start, length in qemu_img.extents(thing, node, end):
        stop = start + length
        if start < end + LAST_BYTES and not some(thing, node, start, end + LAST_BYTES - start).strip(b"\0"):
            start = end + LAST_BYTES
        if start < stop:
            return f"there is data at {sizes.both(start)}"
    return "" if found is not None else "what stands on it is neither a partition table nor a file system known here"


def some(thing: str, node: nodes.Node, offset: int, length: int) -> bytes:
    """Whole sectors of what a guest sees; what lies behind the end is left out."""
    length = max(min(length, (node.size or 0) - offset), 0) // SECTOR * SECTOR
    if not length:
        return b""
    descriptor = os.memfd_create("content")
    try:
        os.ftruncate(descriptor, length)
        window = Window(protocol=node.protocol, held=node.keep, size=length, below=node, offset=offset)
        target = nodes.file_node(f"/dev/fd/{descriptor}", "raw", held=(descriptor,))
        qemu_img.convert(thing, window, target, create=False, step="read")
        return os.pread(descriptor, length, 0)
    finally:
        os.close(descriptor)
