# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk of this host that nobody else has open, and that no guest can take while it is worked on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from . import images
from .chain import F_OFD_GETLK, QEMU_LOCK_BYTES, WRITER
from .errors import StorageError

F_OFD_SETLK = 37  # fcntl(2)
NO_WRITER = 201  # the lock of who lets nobody else write
FORM = "hhqqi4x"  # struct flock


@contextlib.contextmanager
def opened(thing: str, path: str) -> Iterator[int]:
    """A descriptor to read and write a file or device by, with the locks that QEMU itself would keep on it.

    See block/file-posix.c: a byte of the first range says what its holder does with an image, one of the second what
    it lets nobody else do. A file system without locks has none. A device is opened for this process alone.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    device = path.startswith("/dev/")
    try:
        descriptor = os.open(path, flags | os.O_EXCL) if device else images.open_image(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise in_use(thing, "something on this host has it open or mounted") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISBLK(mode) if device else stat.S_ISREG(mode)):
            raise StorageError(
                thing=thing,
                code="not_a_volume",
                reason=f"{path} is no {'block device' if device else 'plain file'}",
                way_out="move it away, or choose another name",
            )
        lock(thing, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def lock(thing: str, descriptor: int) -> None:
    """Take both ranges and look who else has a part of them; the locks end with the descriptor."""
    for first in QEMU_LOCK_BYTES:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, F_OFD_SETLK, struct.pack(FORM, fcntl.F_RDLCK, os.SEEK_SET, first, 64, 0))
            asked = struct.pack(FORM, fcntl.F_WRLCK, os.SEEK_SET, first, 64, 0)
            answer = fcntl.fcntl(descriptor, F_OFD_GETLK, asked)
            if struct.unpack(FORM, answer)[0] != fcntl.F_UNLCK:
                raise in_use(thing, "a QEMU process has it open")


def unwritten(thing: str, descriptor: int) -> None:
    """Nobody writes what a descriptor reads, and no QEMU of any host begins to until it is closed."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, F_OFD_SETLK, struct.pack(FORM, fcntl.F_RDLCK, os.SEEK_SET, NO_WRITER, 1, 0))
        asked = struct.pack(FORM, fcntl.F_WRLCK, os.SEEK_SET, WRITER, 1, 0)
        answer = fcntl.fcntl(descriptor, F_OFD_GETLK, asked)
        if struct.unpack(FORM, answer)[0] != fcntl.F_UNLCK:
            raise in_use(thing, "a QEMU process writes it")


def in_use(thing: str, reason: str) -> StorageError:
    return StorageError(thing=thing, code="in_use", reason=reason, way_out="end that use first")
