# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mode, owner, group, label and the immutable attribute of files and directories of this host.

Everything goes through a descriptor that follows no link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import struct
from collections.abc import Iterator
from typing import Any

from .errors import StorageError

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
FS_IMMUTABLE_FL, FS_NOCOW_FL = 0x10, 0x00800000
LABEL = "security.selinux"
POLICY = "/sys/fs/selinux/context"  # takes a label that the loaded policy knows, and no other


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of the very file or directory that a path names."""
    from . import images  # loaded by what changes something, so that an unchanged pool costs less

    descriptor = images.open_image(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: str) -> dict[str, Any] | None:
    """What the file system says, in the words of O(permissions); None for what is not there."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    found = {"mode": f"{status.st_mode & 0o777:04o}", "owner": str(status.st_uid), "group": str(status.st_gid)}
    with contextlib.suppress(OSError):
        found["label"] = os.getxattr(path, LABEL, follow_symlinks=False).rstrip(b"\0").decode()
    return found


def apply(path: str, want: dict[str, Any]) -> None:
    """Set what is given; owner before mode, since a change of owner may clear mode bits."""
    with opened(path) as descriptor:
        if "owner" in want or "group" in want:
            os.fchown(descriptor, int(want.get("owner", -1)), int(want.get("group", -1)))
        if "mode" in want:
            os.fchmod(descriptor, int(want["mode"], 8))
        if "label" in want:
            os.setxattr(descriptor, LABEL, want["label"].encode() + b"\0")


def inherited(path: str, directory: str) -> dict[str, str]:
    """The SELinux label of a directory for a new file of the same type in it, whose user is else who made it."""
    own, theirs = ((read(one) or {}).get("label") for one in (path, directory))
    if own is None or theirs is None or own == theirs or own.split(":")[1:] != theirs.split(":")[1:]:
        return {}
    return {"label": theirs}


def resolved(thing: str, want: dict[str, Any], local: bool) -> dict[str, Any]:
    """Owner and group as numbers, which is all that libvirt's XML takes."""
    found = dict(want)
    for option, look_up in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
        value = want.get(option)
        if value is None or value.isdigit():
            continue
        try:
            if not local:
                raise KeyError
            entry = look_up(value)
        except KeyError:
            raise StorageError(
                thing=thing,
                code="bad_value",
                reason=f"permissions.{option} {value!r} is not known on {'this host' if local else 'the other host'}",
                way_out="create it first, or give its number",
            ) from None
        found[option] = str(entry[2])
    if local and "label" in found and not known_label(found["label"]):
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"permissions.label {found['label']!r} is not known to the SELinux policy of this host",
            way_out="give one such as system_u:object_r:virt_image_t:s0",
        )
    return found


def known_label(label: str) -> bool:
    """Whether the SELinux policy in force knows a label; any does where there is none."""
    try:
        descriptor = os.open(POLICY, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        os.write(descriptor, label.encode() + b"\0")
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        os.close(descriptor)
    return True


def flags_of(descriptor: int) -> int | None:
    """The attributes that chattr(1) sets; None where the file system has none."""
    try:
        return struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("i", 0)))[0]
    except OSError:
        return None


def set_flags(descriptor: int, flags: int) -> None:
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("i", flags))


def is_nocow(path: str) -> bool:
    """Whether a file of btrfs is exempt from copy on write."""
    with opened(path) as descriptor:
        return bool((flags_of(descriptor) or 0) & FS_NOCOW_FL)


def is_protected(path: str) -> bool:
    """Whether a file has no write permission and, where there is one, the immutable attribute."""
    if os.lstat(path).st_mode & 0o222:
        return False
    with opened(path) as descriptor:
        flags = flags_of(descriptor)
        return flags is None or bool(flags & FS_IMMUTABLE_FL)


def set_immutable(path: str, immutable: bool) -> None:
    """The immutable attribute, where the file system has it."""
    with opened(path) as descriptor:
        flags = flags_of(descriptor)
        if flags is not None:
            flags = flags | FS_IMMUTABLE_FL if immutable else flags & ~FS_IMMUTABLE_FL
            set_flags(descriptor, flags)
