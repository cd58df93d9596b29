# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What storage a pool stands on, in words that are the same on every host that has it and on no other."""

from __future__ import annotations

import os
import re
from typing import Any

from . import block
from .commands import run
from .errors import StorageError

NFS_VOLUMES = "/proc/fs/nfsfs/volumes"  # of every mount: version, server, port, device, fsid, cache
MACHINE_ID = "/etc/machine-id"
CLUSTERED = ("gfs2", "ocfs2")  # file systems that several hosts mount from one device
GLUSTER_BRICKS = "glusterfs.pathinfo"  # an extended attribute of every directory
BRICK = re.compile(r"<POSIX\(([^)]*)\):([^:]*):")


def unknown(thing: str, reason: str, way_out: str) -> StorageError:
    return StorageError(thing=thing, code="guard_unavailable", reason=reason, way_out=way_out)


def first_line(thing: str, way_out: str, *argv: str, keep: tuple[int, ...] = ()) -> str:
    """What a command of the backend's own prints."""
    try:
        finished = run(*argv, keep=keep)
    except FileNotFoundError:
        raise unknown(thing, f"{argv[0]} tells which storage it is, and is not on this host", way_out) from None
    words = finished.stdout.strip()
    if finished.returncode != 0 or not words:
        reason = " ".join(finished.stderr.split()) or f"{argv[0]} prints nothing"
        raise unknown(thing, reason, "see that the storage can be reached from this host")
    return words.splitlines()[0].strip()


def lock_manager(settings: str = "/etc/libvirt/qemu.conf") -> str | None:
    """What keeps guests of two hosts from one disk, by the settings of the system's own libvirt; None for nothing."""
    found = re.findall(r'^\s*lock_manager\s*=\s*"([^"]*)"', block.read(settings), re.MULTILINE)
    return found[-1] if found and found[-1] not in ("", "nop") else None


# directories


def of_directory(thing: str, dummy: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The file system of a pool's directory, by what its server says of it, and the directory in it.

    A file system of this host is no other host's, whatever its UUID: the disk it is on may have been copied.
    """
    path = options["path"]
    try:
        status, system = os.stat(path), os.statvfs(path)
    except OSError as error:
        raise unknown(thing, f"{path}: {error.strerror}", "start the pool, or mount what belongs there") from None
    kind, source = mounted(status.st_dev)
    inside = f"inode {status.st_ino}"
    if kind in ("nfs", "nfs4"):
        return f"NFS file system {nfs_volume(thing, status.st_dev)}, {inside}"
    if kind in ("ceph", "cifs", "smb3") and system.f_fsid:
        return f"{kind} file system {system.f_fsid:x}, {inside}"
    if kind == "fuse.glusterfs":
        return f"Gluster volume of {bricks(thing, path)}, {inside}"
    if kind.startswith("fuse."):
        raise unknown(thing, f"nothing tells one file system of type {kind} from another", "say so for this pool")
    if kind in CLUSTERED:
        way_out = "install util-linux"
        uuid = first_line(thing, way_out, "lsblk", "--nodeps", "--noheadings", "--output", "UUID", source)
        return f"{kind} file system {uuid}, {inside}"
    return f"{kind or 'local'} file system of host {block.read(MACHINE_ID) or os.uname().nodename}, {path}"


def mounted(device: int, table: str = "/proc/self/mountinfo") -> tuple[str, str]:
    """The type and the source of the file system with a number, see proc_pid_mountinfo(5)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in block.read(table).splitlines():
        own, dummy, other = (part.split() for part in line.partition(" - "))
        if own[2] == number:
            return other[0], other[1]
    return "", ""


def nfs_volume(thing: str, device: int) -> str:
    """The file system's number at its server (the attribute fsid, RFC 8881 5.8.1.9)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in block.read(NFS_VOLUMES).splitlines():
        columns = line.split()
        if number in columns:
            return columns[columns.index(number) + 1]
    raise unknown(thing, f"{NFS_VOLUMES} does not tell its fsid", "mount it where this kernel can see it")


def bricks(thing: str, path: str) -> str:
    """The bricks of a Gluster volume, which its servers name; a client is not told the volume's UUID."""
    try:
        told = os.getxattr(path, GLUSTER_BRICKS).decode("utf-8", "replace")
    except OSError as error:
        raise unknown(thing, f"{path} does not tell its bricks: {error.strerror}", "mount it by FUSE") from None
    found = sorted({f"{host}:{place}" for place, host in BRICK.findall(told)})
    if not found:
        raise unknown(thing, f"{path} tells of no bricks", "see that its servers answer")
    return ", ".join(found)


# devices


def of_devices(thing: str, dummy: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The numbers that the array has given its LUNs, see sysfs-bus-scsi and multipath(8)."""
    found = {number_of(path) for path in paths}
    if not found or "" in found:
        nameless = [path for path in paths if not number_of(path)]
        reason = f"{', '.join(nameless[:3])} has no WWID" if nameless else "it has no LUN to know it by"
        raise unknown(thing, reason, "start the pool, or let the target give its LUNs numbers")
    return f"LUNs {', '.join(sorted(found))}"


def number_of(path: str) -> str:
    """The WWID of a disk or of a multipath device, in one form for both."""
    name = os.path.basename(os.path.realpath(path))
    own = f"{block.SYS}/class/block/{name}"
    mapped = block.read(f"{own}/dm/uuid")
    if mapped:
        return re.sub(r"^mpath-", "", mapped)
    wwid = " ".join(block.read(f"{own}/device/wwid").split())
    for prefix, digit in (("naa.", "3"), ("eui.", "2")):  # multipath writes naa.6001 as 36001, see scsi_id(8)
        if wwid.startswith(prefix):
            return digit + wwid[len(prefix) :]
    return wwid
