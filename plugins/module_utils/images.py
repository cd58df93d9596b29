# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a file says it is: read here, before any tool does, and never followed.

Sources: docs/interop/qcow2.txt, qed_spec.txt and the block drivers of QEMU; the LUKS on-disk format;
the VHD, VHDX, VDI and VMDK specifications. Only the first bytes (and for VHD the last) are read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HEAD, TAIL = 4096, 512
LONGEST_BACKING_NAME = 1023  # as in docs/interop/qcow2.txt


@dataclass(frozen=True)
class Image:
    """A format by its magic, the virtual size in bytes and the name of the backing file, where the header tells.

    options are those of a qcow2 that its header keeps for life.
    """

    format: str
    capacity: int | None = None
    backing: str | None = None
    options: dict[str, Any] = field(default_factory=dict, compare=False)


def foreign(path: str) -> str:
    """Why what stands at a path is not a volume of ours; empty for a plain file, a block device or nothing."""
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    if stat.S_ISLNK(status.st_mode):
        # device nodes of LVM, ZFS and udev are links that the system made
        return "" if path.startswith("/dev/") else "a symbolic link"
    if stat.S_ISREG(status.st_mode):
        return "a file with more than one name (hard links)" if status.st_nlink > 1 else ""
    if stat.S_ISBLK(status.st_mode):
        return "" if path.startswith("/dev/") else "a device node"
    return "a directory" if stat.S_ISDIR(status.st_mode) else "a special file"


def open_image(path: str, flags: int) -> int:
    """A descriptor of a file; as its owner where a server takes root for nobody (root_squash)."""
    try:
        return os.open(path, flags)
    except PermissionError:
        if os.geteuid() != 0:
            raise
        status = os.lstat(path)
        with acting_as(status.st_uid, status.st_gid):
            return os.open(path, flags)


@contextlib.contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Files are opened by this thread as by another user."""
    import ctypes  # 3 ms that other runs do not need

    libc = ctypes.CDLL(None)
    own_group = libc.setfsgid(group)
    own_user = libc.setfsuid(user)
    try:
        yield
    finally:
        libc.setfsuid(own_user)
        libc.setfsgid(own_group)


def probe(path: str) -> Image | None:
    """The image at a path; None where it can't be read or is none of ours."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if path.startswith("/dev/") else os.O_NOFOLLOW)
    try:
        descriptor = open_image(path, flags)
    except OSError:
        return None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            return None
        size = os.lseek(descriptor, 0, os.SEEK_END)
        head = os.pread(descriptor, HEAD, 0)
        tail = os.pread(descriptor, TAIL, size - TAIL) if size >= TAIL else b""
        return image_of(head, tail, size)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def image_of(head: bytes, tail: bytes, size: int) -> Image:
    """The image that some first and last bytes make; raw for what has no known magic."""
    if head[:4] == b"QFI\xfb":
        return qcow_of(head)
    if head[:4] == b"QED\0":
        return qed_of(head)
    if head[:4] == b"OOOM":  # UML's cow, which libvirt still follows
        name = head[8:1032].partition(b"\0")[0].decode("utf-8", "replace")
        return Image("cow", number(head, ">Q", 1036), name or None)
    if head[:4] in (b"KDMV", b"COWD") or head.startswith(b"# Disk DescriptorFile"):
        sectors = number(head, "<Q", 12) if head[:4] == b"KDMV" else None
        return Image("vmdk", sectors * 512 if sectors is not None else None)
    if number(head, "<I", 64) == 0xBEDA107F:
        return Image("vdi", number(head, "<Q", 368))
    if head[:8] == b"vhdxfile":
        return Image("vhdx")
    for footer in (head, tail):
        if footer[:8] == b"conectix":
            return Image("vpc", number(footer, ">Q", 48))
    return Image("raw", size)  # LUKS too: its payload's size is for libvirt to tell


def qed_of(head: bytes) -> Image:
    """A QED header, whose first feature bit says that it has a backing file."""
    backing = None
    if (number(head, "<Q", 16) or 0) & 1:
        backing = name_at(head, number(head, "<I", 56) or 0, number(head, "<I", 60) or 0)
    return Image("qed", number(head, "<Q", 48), backing)


def name_at(head: bytes, offset: int, length: int) -> str:
    """The name of a backing file; one that lies outside the first bytes is still reported, as a question mark."""
    name = head[offset : offset + length] if length <= LONGEST_BACKING_NAME else b""
    return name.decode("utf-8", "replace").replace("\0", "\\0") if len(name) == length else "?"


def qcow_of(head: bytes) -> Image:
    """A qcow or qcow2 header; a name of a backing file that lies outside the first bytes is still reported."""
    version = number(head, ">I", 4)
    offset, length = number(head, ">Q", 8) or 0, number(head, ">I", 16) or 0
    backing = name_at(head, offset, length) if offset else None
    if version == 1:
        return Image("qcow", number(head, ">Q", 24), backing)
    return Image("qcow2", number(head, ">Q", 24), backing, qcow2_options(head, version or 0))


def qcow2_options(head: bytes, version: int) -> dict[str, Any]:
    """The options of a qcow2 header in the words of a volume; a false one is left out, as in libvirt's XML."""
    incompatible, compatible = (number(head, ">Q", offset) or 0 for offset in (72, 80)) if version >= 3 else (0, 0)
    found = {
        "compat": "1.1" if version >= 3 else "0.10",
        "cluster_size": 1 << min(number(head, ">I", 20) or 0, 62),
        "lazy_refcounts": bool(compatible & 1),
        "extended_l2": bool(incompatible & 16),
    }
    return {name: value for name, value in found.items() if value}


def number(data: bytes, form: str, offset: int) -> int | None:
    """A number at an offset; None in a header that ends before it."""
    if len(data) < offset + struct.calcsize(form):
        return None
    return struct.unpack_from(form, data, offset)[0]
