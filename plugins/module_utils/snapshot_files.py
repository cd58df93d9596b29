# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of volumes that are files: inside a qcow2, as files beside it, or in a snapshot of its btrfs subvolume.

A file beside it is VOLUME@SNAPSHOT and carries a mark (an extended attribute): no other file is ever taken for one.
Its role tells what it holds:
copy     a reflink of the volume.
frozen   the volume as it was; the volume itself is an overlay on it since.
overlay  what a running guest has written since; the volume itself is as it was.
Sources: docs/interop/qcow2.txt of QEMU, ioctl_ficlone(2), btrfs-subvolume(8), xattr(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import exclusive, files, nodes, permissions, qemu_img
from .backends.shared import run_native, step_by
from .errors import StorageError
from .nodes import Node, file_node
from .snapshots import EXTERNAL, INTERNAL, REFLINK, SUBVOLUME, Snapshot

MARK = "user.kvm.storage.snapshot"
COPY, FROZEN, OVERLAY = "copy", "frozen", "overlay"
PLANNED, LEAVING = "planned", "leaving"  # in the mark of an overlay: no guest may have it yet, or any more
MERGING = "merging"  # in a mark: what an overlay holds has begun to go down into what it stands on
MERGED = "its removal has begun, and it is no longer what it was"
BASE = "base"  # in the mark of an overlay: when the volume below it was last written, in whole seconds
ROLES = {COPY: REFLINK, FROZEN: EXTERNAL, OVERLAY: EXTERNAL}
FOLDER = ".snapshots"  # of a pool's directory, for snapshots of its subvolume
SUBVOLUME_INODE = 256  # of every subvolume's root, see btrfs(5)
FICLONE = 0x40049409  # linux/fs.h
NO_REFLINK = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM)
COPIED = 1 << 63  # of an entry of an L1 table
PAGE = 4096  # bytes that the kernel writes whole or not at all, whoever is killed
MOST_SNAPSHOTS, LONGEST_TABLE = 65536, 32 << 20


# marks


def file_of(volume: str, name: str) -> str:
    return f"{volume}@{name}"


def marks(path: str) -> dict[str, dict[str, Any]]:
    """What a file is marked as, by the name that it has or is about to have."""
    try:
        found = json.loads(os.getxattr(path, MARK, follow_symlinks=False))
    except (OSError, ValueError):
        return {}
    return {key: one for key, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def mark(thing: str, path: str, changes: dict[str, dict[str, Any] | None]) -> None:
    """Add marks, or take those away whose value is None; where the file system has no such attributes, say so."""
    every = {**marks(path), **changes}
    kept = {name: one for name, one in every.items() if one is not None}
    try:
        os.setxattr(path, MARK, json.dumps(kept).encode(), follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise StorageError(
            thing=thing,
            code="unsupported",
            reason="the file system keeps no extended attributes, by which a snapshot's file is known",
            way_out="use a qcow2 volume with kind: internal",
        ) from None


def marked(path: str) -> dict[str, Any] | None:
    """The mark of a plain file under the very name that it has."""
    try:
        plain = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return None
    return marks(path).get(os.path.basename(path)) if plain else None


def new_mark(role: str, size: int | None) -> dict[str, Any]:
    return {"role": role, "time": round(time.time()), "size": size}


def numbers(one: dict[str, Any]) -> tuple[Any, Any]:
    """The time and the size of a mark, where it has them."""
    time_and_size = [one[key] if isinstance(one.get(key), (int, float)) else None for key in ("time", "size")]
    return time_and_size[0], time_and_size[1]


def beside(directory: str, volume: str) -> list[Snapshot]:
    """The snapshots of a volume that are files beside it; a file that still is the volume itself is none."""
    found = []
    for entry in sorted(os.listdir(directory)):
        path = os.path.join(directory, entry)
        one = marked(path) if entry.startswith(f"{volume}@") else None
        if one is None or one.get("role") not in ROLES or same_file(path, os.path.join(directory, volume)):
            continue
        name, role = entry[len(volume) + 1 :], one["role"]
        if "@" in name:  # a snapshot of a snapshot's file
            continue
        trouble = MERGED if one.get(MERGING) else ""
        found.append(Snapshot(name, ROLES[role], *numbers(one), path=path, trouble=trouble, overlay=role == OVERLAY))
    return found


def half_frozen(directory: str, volume: str) -> list[str]:
    """The second names of a volume that a killed run was about to freeze."""
    own = os.path.join(directory, volume)
    return [
        path
        for path in (os.path.join(directory, entry) for entry in os.listdir(directory))
        if os.path.basename(path).startswith(f"{volume}@") and marked(path) and same_file(path, own)
    ]


def same_file(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.lstat(one), os.lstat(other))
    return False


# inside a qcow2


@dataclass(frozen=True)
class Table:
    """What a qcow2 says of itself: the L1 table of its present content, its size, and its snapshots."""

    l1: tuple[int, int]  # its place, and how many entries it has
    size: int
    snapshots: list[tuple[Snapshot, tuple[int, int]]]


def table(path: str) -> Table:
    """The snapshots that the header of a qcow2 names, oldest first."""
    with permissions.opened(path) as descriptor:
        head = os.pread(descriptor, 72, 0)
        if len(head) < 72 or head[:4] != b"QFI\xfb" or head[4:8] == b"\0\0\0\1":
            return Table((0, 0), 0, [])
        size, (entries, l1) = struct.unpack_from(">Q", head, 24)[0], struct.unpack_from(">IQ", head, 36)
        count, offset = struct.unpack_from(">IQ", head, 60)
        found: list[tuple[Snapshot, tuple[int, int]]] = []
        while len(found) < min(count, MOST_SNAPSHOTS):
            one, place, length = entry_at(descriptor, offset, size)
            if one is None:
                break
            found.append((one, place))
            offset += length
        return Table((l1, entries), size, found)


def entry_at(descriptor: int, offset: int, size: int) -> tuple[Snapshot | None, tuple[int, int], int]:
    """One entry of the snapshot table, the place of its L1 table, and its length."""
    fixed = os.pread(descriptor, 40, offset)
    if len(fixed) < 40:
        return None, (0, 0), 0
    l1, entries, id_length, name_length, seconds, nanoseconds = struct.unpack_from(">QIHHII", fixed)
    extra = struct.unpack_from(">I", fixed, 36)[0]
    if extra > PAGE:
        return None, (0, 0), 0
    rest = os.pread(descriptor, extra + id_length + name_length, offset + 40)
    if extra >= 16 and len(rest) >= 16:
        size = struct.unpack_from(">Q", rest, 8)[0]
    key, name = rest[extra : extra + id_length], rest[extra + id_length :]
    found = Snapshot(
        name.decode("utf-8", "replace"),
        INTERNAL,
        seconds + nanoseconds / 1e9,
        size,
        key=key.decode("utf-8", "replace"),
    )
    length = 40 + extra + id_length + name_length
    return found, (l1, entries), -(-length // 8) * 8


def l1_entries(path: str, place: tuple[int, int]) -> list[int]:
    """The entries of an L1 table without the bit that only says who owns a table, and without empty ones at the end."""
    offset, count = place
    with permissions.opened(path) as descriptor:
        data = os.pread(descriptor, min(count * 8, LONGEST_TABLE), offset)
    found = [one & ~COPIED for one in struct.unpack(f">{len(data) // 8}Q", data[: len(data) // 8 * 8])]
    while found and found[-1] == 0:
        found.pop()
    return found


def untouched(path: str, name: str) -> bool:
    """Whether a qcow2 has the very tables of one of its snapshots, and so its content and size."""
    now = table(path)
    for one, place in now.snapshots:
        if one.name == name:
            return one.size == now.size and l1_entries(path, now.l1) == l1_entries(path, place)
    return False


def empty(path: str) -> bool:
    """Whether nothing was written into an overlay."""
    return l1_entries(path, table(path).l1) == []


@contextlib.contextmanager
def alone(operation: Any, form: str) -> Iterator[Node]:
    """A volume without what it stands on, to be written by a tool; its header was inspected."""
    with nodes.readable(operation, form) as node:
        yield replace(node, backing=None, held=node.keep)


def take_internal(operation: Any, name: str) -> None:
    with alone(operation, "qcow2") as node:
        qemu_img.mend(operation.label, node)  # one whose tables are damaged stays as it is
        qemu_img.run(operation.label, "snapshot", "snapshot", "-q", "-c", name, node.name, nodes=(node,))


def remove_internal(operation: Any, name: str) -> None:
    """Its entry goes first and what it alone held afterwards: a killed run leaves space that nobody uses."""
    with alone(operation, "qcow2") as node:
        qemu_img.run(operation.label, "remove_snapshot", "snapshot", "-q", "-d", name, node.name, nodes=(node,))


def revert_internal(operation: Any, name: str) -> None:
    """On a copy that takes the volume's place when it is done.

    A file system without reflinks would have to copy all of it. There it is done in place where one write decides
    between the old content and the new: with the size unchanged and an L1 table of one page.
    """
    path = operation.before["path"]
    now = table(path)
    found, place = next(entry for entry in now.snapshots if entry[0].name == name)
    # qemu-img takes a name for the number of another snapshot, so the number it is
    argv = ("revert", "snapshot", "-q", "-a", found.key)
    at_once = now.size == found.size and place[1] == now.l1[1] and now.l1[1] * 8 <= PAGE
    with files.hidden(os.path.dirname(path)) as temporary, exclusive.opened(operation.label, path):
        shared = cloned(path, temporary)
        if not shared and not at_once:
            copy(path, temporary)
        if shared or not at_once:
            like(operation.label, path, temporary)
            with nodes.readable(operation, "qcow2"):  # its header names nothing that may not be followed
                qemu_img.run(operation.label, *argv, file_node(temporary, "qcow2").name)
            files.replace(temporary, path)
            return
    with alone(operation, "qcow2") as node:
        qemu_img.run(operation.label, *argv, node.name, nodes=(node,))


# files


def cloned(source: str, target: str) -> bool:
    """Let a new file share all blocks of another one; False where the file system can't."""
    with permissions.opened(source) as theirs, open(target, "r+b") as ours:
        copy_nocow(theirs, ours.fileno())
        try:
            fcntl.ioctl(ours.fileno(), FICLONE, theirs)
        except OSError as error:
            if error.errno not in NO_REFLINK:
                raise
            return False
    return True


def copy_nocow(source: int, target: int) -> None:
    """btrfs shares blocks only between files that are both exempt from copy on write, or neither."""
    theirs, own = permissions.flags_of(source), permissions.flags_of(target)
    if theirs is not None and own is not None and (theirs ^ own) & permissions.FS_NOCOW_FL:
        with contextlib.suppress(OSError):
            permissions.set_flags(target, own ^ permissions.FS_NOCOW_FL)


def can_clone(path: str) -> bool:
    """Whether files can share blocks here: tried with a file that never has a name."""
    try:
        descriptor = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        with permissions.opened(path) as source:
            copy_nocow(source, descriptor)
            fcntl.ioctl(descriptor, FICLONE, source)
        return True
    except OSError as error:
        if error.errno not in NO_REFLINK:
            raise
        return False
    finally:
        os.close(descriptor)


def copy(source: str, target: str) -> None:
    """The bytes of a file, holes left out."""
    with permissions.opened(source) as theirs, open(target, "r+b") as file:
        ours, end = file.fileno(), os.fstat(theirs).st_size
        os.ftruncate(ours, end)
        start = 0
        while start < end:
            try:
                start = os.lseek(theirs, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # only a hole is left
                    raise
                return
            stop = os.lseek(theirs, start, os.SEEK_HOLE)
            while start < stop:
                data = os.pread(theirs, min(stop - start, 4 << 20), start)
                if not data:
                    return
                start += os.pwrite(ours, data, start)


def like(thing: str, path: str, temporary: str, marks_too: bool = True) -> None:
    """Give a file that takes a volume's place, or stands beside it, the same owner, mode and label."""
    found = permissions.read(path) or {}
    permissions.apply(temporary, {name: found[name] for name in ("mode", "owner", "group", "label") if name in found})
    own = marks(path).get(os.path.basename(path)) if marks_too else None
    if own is not None:
        mark(thing, temporary, {os.path.basename(path): own})


def take_copy(operation: Any, name: str) -> None:
    path = operation.before["path"]
    target = file_of(path, name)
    with files.hidden(os.path.dirname(path)) as temporary, exclusive.opened(operation.label, path):
        if not cloned(path, temporary):
            raise no_reflink(operation.label)
        mark(operation.label, temporary, {os.path.basename(target): new_mark(COPY, operation.size)})
        like(operation.label, path, temporary, marks_too=False)
        files.flushed(temporary)
        files.publish(temporary, target)
        files.flushed(os.path.dirname(path))


def revert_copy(operation: Any, source: str) -> None:
    """A reflink of what was kept takes the volume's place."""
    path = operation.before["path"]
    with files.hidden(os.path.dirname(path)) as temporary, exclusive.opened(operation.label, path):
        if not cloned(source, temporary):
            raise no_reflink(operation.label)
        like(operation.label, path, temporary)
        files.replace(temporary, path)


def no_reflink(thing: str) -> StorageError:
    return StorageError(
        thing=thing,
        code="unsupported",
        reason="its file system can't share blocks between files",
        way_out="use xfs or btrfs, or a qcow2 volume, whose snapshots are inside of it",
    )


# an overlay and what it stands on


def overlay(operation: Any, temporary: str, base: str, form: str, size: int | None) -> None:
    """A new overlay of the volume's mode and owner in a hidden file, on a base that may not have its name yet."""
    path = operation.before["path"]
    qemu_img.create(operation.label, temporary, "qcow2", size, {"compat": "1.1"}, file_node(base, form))
    like(operation.label, path, temporary, marks_too=False)


def freeze(operation: Any, name: str) -> None:
    """The volume's file gets a second name, and a new overlay on that one the first.

    A run that is killed between the two leaves the volume as it was, with a name too many that half_frozen() finds.
    """
    path = operation.before["path"]
    frozen = file_of(path, name)
    entry = os.path.basename(frozen)
    with files.hidden(os.path.dirname(path)) as temporary, exclusive.opened(operation.label, path):
        overlay(operation, temporary, frozen, "qcow2", operation.size)
        own = marks(path).get(os.path.basename(path))
        if own is not None:
            mark(operation.label, temporary, {os.path.basename(path): own})
        mark(operation.label, path, {entry: new_mark(FROZEN, operation.size)})
        files.flushed(temporary)
        os.link(path, frozen)
        files.replace(temporary, path)


def thaw_name(operation: Any) -> None:
    """Take back what a killed freeze() has begun."""
    path = operation.before["path"]
    directory, name = os.path.split(path)
    if not half_frozen(directory, name):
        return
    with exclusive.opened(operation.label, path):  # another host may be at it, and not have been killed
        for second in half_frozen(directory, name):
            os.unlink(second)
            mark(operation.label, path, {os.path.basename(second): None})


def start_anew(operation: Any, upper: str, base: str, form: str, size: int | None) -> None:
    """An empty overlay takes the place of one: what was written since is given up."""
    with files.hidden(os.path.dirname(upper)) as temporary, exclusive.opened(operation.label, upper):
        overlay(operation, temporary, base, form, size)
        own = marks(upper).get(os.path.basename(upper))
        if own is not None:
            mark(operation.label, temporary, {os.path.basename(upper): own})
        files.replace(temporary, upper)


def last_written(path: str) -> int:
    """In whole seconds: a volume that was brought here from elsewhere may have no more."""
    return int(os.stat(path, follow_symlinks=False).st_mtime)


def written_since(upper: str, base: str) -> bool:
    """Whether the volume below an overlay was written after that was taken, other than by its own merge."""
    found = marked(upper) or {}
    was = found.get(BASE)
    return isinstance(was, int) and not found.get(MERGING) and last_written(base) != was


@contextlib.contextmanager
def content_kept(thing: str, path: str) -> Iterator[None]:
    """A volume's file is written in a way that no guest sees: the overlays on it fit it as before."""
    directory, name = os.path.split(path)
    fitting = [one.path for one in beside(directory, name) if one.overlay and not written_since(one.path, path)]
    yield
    for upper in fitting:
        found = marked(upper) or {}
        if BASE in found:
            mark(thing, upper, {os.path.basename(upper): {**found, BASE: last_written(path)}})


def begin_merge(thing: str, path: str) -> None:
    """Say of a snapshot, before the first write that spoils it, that it can't be reverted to any more."""
    entry = os.path.basename(path)
    mark(thing, path, {entry: {**marks(path)[entry], MERGING: True}})
    files.flushed(path)


def merge_down(operation: Any, upper: str, base: str, form: str) -> None:
    """Write what an overlay holds into its base; the overlay reads the same all the while."""
    directories = sorted(operation.pool_directories())
    with contextlib.ExitStack() as opened:
        node = nodes.chain(operation.label, upper, "qcow2", directories, opened)
        if node.backing is None or not same_file(node.backing.path, base) or node.backing.format != form:
            raise StorageError(
                thing=operation.label,
                code="chain_differs",
                reason=f"{upper} does not stand on {base} as {form}",
                way_out="look at its chain with volume_info",
            )
        qemu_img.run(operation.label, "remove_snapshot", "commit", "-q", "-d", node.name, nodes=(node,))


def absorb(operation: Any, frozen: str, child: str) -> None:
    """Remove a frozen state: its file takes in what its one overlay holds, and then takes that one's place."""
    begin_merge(operation.label, frozen)
    was = files.identity(child)
    merge_down(operation, child, frozen, "qcow2")
    own = marks(child).get(os.path.basename(child))
    if own is not None:
        mark(operation.label, frozen, {os.path.basename(child): own})
    like(operation.label, child, frozen, marks_too=False)
    with untaken(operation.label, child, was), operation.content_kept():
        files.replace(frozen, child)


def remove_merged(operation: Any, upper: str, was: tuple[int, ...]) -> None:
    """An overlay goes whose data have gone down, unless a guest has taken it since."""
    with untaken(operation.label, upper, was):
        os.unlink(upper)


@contextlib.contextmanager
def untaken(thing: str, path: str, was: tuple[int, ...]) -> Iterator[None]:
    """No guest has written a file since files.identity() was asked, and none can take it now."""
    with exclusive.opened(thing, path):
        if files.identity(path) != was:
            raise StorageError(
                thing=thing,
                code="in_use",
                reason=f"somebody wrote to {path} meanwhile; it stays, with all that is in it",
                way_out="shut its guest down, then run this again",
            )
        yield


# a btrfs subvolume


def is_subvolume(path: str) -> bool:
    """Whether a directory is the root of a btrfs subvolume."""
    try:
        if os.lstat(path).st_ino != SUBVOLUME_INODE:
            return False
        return run_native(path, "stat", "--file-system", "--format", "%T", "--", path).stdout.strip() == "btrfs"
    except OSError:
        return False


def in_subvolumes(directory: str, volume: str) -> list[Snapshot]:
    """The snapshots of the pool's subvolume that were taken for a volume."""
    folder, found = os.path.join(directory, FOLDER), []
    if not os.path.isdir(folder) or os.path.islink(folder):
        return []
    for entry in sorted(os.listdir(folder)):
        path = os.path.join(folder, entry, volume)
        one = marks(os.path.join(folder, entry)).get(entry) if entry.startswith(f"{volume}@") else None
        if one is not None and "@" not in entry[len(volume) + 1 :] and os.path.lexists(path):
            found.append(Snapshot(entry[len(volume) + 1 :], SUBVOLUME, *numbers(one), path=path))
    return found


def take_subvolume(operation: Any, name: str) -> None:
    """Under a hidden name, until it is marked and read-only."""
    path = operation.before["path"]
    directory, entry = os.path.dirname(path), os.path.basename(file_of(path, name))
    folder, hidden = os.path.join(directory, FOLDER), f"{files.LEFTOVER}{files.this_host()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    temporary = os.path.join(folder, hidden)
    if os.path.lexists(temporary):  # a killed run left it
        step_by(operation.label, "snapshot", "btrfs", "subvolume", "delete", "--", temporary)
    with exclusive.opened(operation.label, path):
        step_by(operation.label, "snapshot", "btrfs", "subvolume", "snapshot", "--", directory, temporary)
    mark(operation.label, temporary, {entry: new_mark(COPY, operation.size)})
    step_by(operation.label, "snapshot", "btrfs", "property", "set", "-ts", temporary, "ro", "true")
    os.rename(temporary, os.path.join(folder, entry))


def remove_subvolume(operation: Any, path: str) -> None:
    step_by(operation.label, "remove_snapshot", "btrfs", "subvolume", "delete", "--", os.path.dirname(path))
