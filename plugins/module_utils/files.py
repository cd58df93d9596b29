# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are made under a hidden name and get their own when they are whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator

LEFTOVER = ".kvm.storage-"  # begins the name of a file that is not whole yet
AT_FDCWD, RENAME_NOREPLACE = -100, 1  # renameat2(2)


@contextlib.contextmanager
def hidden(directory: str) -> Iterator[str]:
    """A new file of mode 0600 under a hidden name, which is gone afterwards unless it was given another one.

    What a killed run of this host left is removed: the pool is locked, so that no other run of it works there.
    """
    own = f"{LEFTOVER}{this_host()}-{os.getpid()}-"
    sweep(directory, own)
    descriptor, temporary = tempfile.mkstemp(prefix=own, dir=directory)
    os.close(descriptor)
    try:
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@functools.cache
def this_host() -> str:
    """A short word for this host: on a share, what other hosts are still making is theirs."""
    words = os.uname().nodename
    with contextlib.suppress(OSError), open("/etc/machine-id", encoding="ascii") as file:
        words += file.read()
    return hashlib.sha256(words.encode()).hexdigest()[:8]


def sweep(directory: str, own: str) -> None:
    """Remove what other runs of this host left half made."""
    for name in os.listdir(directory):
        if name.startswith(f"{LEFTOVER}{this_host()}-") and not name.startswith(own):
            with contextlib.suppress(FileNotFoundError):  # another thread was there first
                os.unlink(os.path.join(directory, name))


def identity(path: str) -> tuple[int, ...]:
    """What changes when somebody writes a file, or puts another one in its place."""
    status = os.stat(path, follow_symlinks=False)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def flushed(path: str) -> None:
    """All of a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: str, path: str) -> None:
    """Give a file its name, never that of another.

    A run that is killed here leaves a file with two names only where the file system knows no such rename, as NFS.
    """
    import ctypes  # 3 ms that other runs do not need

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename and rename(AT_FDCWD, os.fsencode(temporary), AT_FDCWD, os.fsencode(path), RENAME_NOREPLACE) == 0:
        return
    if rename and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    os.link(temporary, path)
    os.unlink(temporary)


def replace(temporary: str, path: str) -> None:
    """Put a whole file in the place of the one that has the name, at once, also for whoever looks after a power cut."""
    flushed(temporary)
    os.replace(temporary, path)
    flushed(os.path.dirname(path))
