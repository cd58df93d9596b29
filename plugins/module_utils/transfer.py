# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data on its way into a volume: under a hidden name until it is whole, or marked where it can't be hidden.

What a killed run leaves is known by its name, which begins with the collection's and holds this host, or by the mark
in its first bytes. It is removed or done again by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from typing import Any, Callable

from . import connection as connections
from . import exclusive, files, nodes, qemu_img, streams, volume
from .errors import StorageError
from .nodes import Node

BLKZEROOUT, BLKGETSIZE64 = 0x127F, 0x80081272  # linux/fs.h
SECTOR = 512
HEAD = 1 << 20  # bytes that are written last where data can't be hidden
GIVEN_UP = 40  # seconds; Ceph gives up a client that says nothing after 30 (osd_client_watch_timeout)
BLOCK = 4096  # bytes that no disk writes in parts
MARK = b"kvm.storage: this disk is not whole yet; the run that writes it was not finished\n"


# under a hidden name


@contextlib.contextmanager
def landing(target: volume.Volume, capacity: int, form: str = "raw") -> Iterator[Node]:
    """The node of a new volume while it is hidden; it becomes the volume when the block ends well, else nothing stays.

    For a pool of files it is an empty file, to be filled by whoever has it (qemu_img.convert with create, or a copy);
    for others a device or image of the capacity that is there already.
    """
    if target.directory():
        with files.hidden(target.directory()) as temporary:
            yield nodes.file_node(temporary, form)
            files.flushed(temporary)
            target.give_name(temporary)
            files.flushed(target.directory())
        return
    with hidden(target) as name:
        path = make_hidden(target, name, capacity)
        with hidden_node(target, path) as node:
            yield node
        publish(target, name)


@contextlib.contextmanager
def hidden(target: volume.Volume) -> Iterator[str]:
    """A hidden name in a pool whose volumes are no files; what has it afterwards is removed."""
    way, options = landing_of(target), target.pool_options()
    own = hidden_name(target)
    begins = f"{files.LEFTOVER.lstrip('.')}{files.this_host()}-"
    for name in way.leftovers(target.connection, options):
        if name.startswith(begins) and not name.startswith(f"{begins}{os.getpid()}-"):
            discard(target, options, name)
    published = False
    try:
        yield own
        published = True
    finally:
        with contextlib.suppress(StorageError):  # the next run removes it
            if not published and own in way.leftovers(target.connection, options):
                discard(target, options, own)


def discard(target: volume.Volume, options: dict[str, Any], name: str) -> None:
    """Remove a hidden volume. A client that was killed counts as its user until the server gives it up."""
    deadline, open_at = time.monotonic() + GIVEN_UP, target.backend.watchers
    again = open_at is not None
    while True:
        try:
            landing_of(target).discard(target.label, target.connection, options, name)
            return
        except StorageError:
            if open_at is None or not again or time.monotonic() > deadline:
                raise
            again = bool(open_at(target.connection, options, name))  # it may have been given up since
        time.sleep(0.5)


def hidden_name(target: volume.Volume) -> str:
    """One that tells the host and the run, in letters that every backend takes."""
    return f"{files.LEFTOVER.lstrip('.')}{files.this_host()}-{os.getpid()}-{abs(hash(target.volume_name)) % 10**8}"


def landing_of(target: volume.Volume) -> Any:
    """The backend's way; a pool whose volumes can't be made under another name first has none."""
    if target.backend.landing is None:
        raise StorageError(
            thing=target.label,
            code="unsupported",
            reason=f"a {target.backend.type} pool makes no volume that data could come into under a hidden name",
            way_out="write into a volume that is there (volume_upload with replace: true)",
        )
    return target.backend.landing


def make_hidden(target: volume.Volume, name: str, capacity: int) -> str:
    """A volume of the capacity under a hidden name, in the thin pool where one is wanted."""
    options = target.pool_options()
    if target.want["thin_pool"] is not None and target.backend.unlisted is not None:
        return target.backend.unlisted.create(target.label, options, name, target.want["thin_pool"], capacity).path
    return landing_of(target).make(target.label, target.connection, options, name, capacity)


def grow_hidden(target: volume.Volume, name: str, capacity: int) -> None:
    """Give a hidden clone more room than its source has."""
    landing_of(target).grow(target.label, target.connection, target.pool_options(), name, capacity)


def grow_file(target: volume.Volume, path: str, form: str, capacity: int) -> None:
    """Give a hidden file the capacity of the volume that it will be."""
    if form == "raw":
        os.truncate(path, capacity)
        return
    qemu_img.resize(target.label, nodes.file_node(path, form), capacity)


def publish(target: volume.Volume, name: str) -> None:
    """Give a hidden volume its name."""
    way, options = landing_of(target), target.pool_options()
    try:
        way.publish(target.label, target.connection, options, name, target.volume_name)
    except StorageError:
        if not is_published(target, name):
            raise
        discard(target, options, name)
    target.connection.unseen(target.pool_name)
    target.before["exists"] = True


def is_published(target: volume.Volume, name: str) -> bool:
    """Whether a run that was killed has given its name to the same content, which libvirt has not seen since."""
    way, options = landing_of(target), target.pool_options()
    if target.backend.network_node is None or target.volume_name not in way.leftovers(target.connection, options):
        return False
    pool = options["source_name"]
    with contextlib.ExitStack() as opened:
        one, other = (
            opened.enter_context(hidden_node(target, f"{pool}/{each}")) for each in (name, target.volume_name)
        )
        return qemu_img.compare(target.label, one, other)


def hidden_node(target: volume.Volume, path: str) -> contextlib.AbstractContextManager[Node]:
    """A volume by the path that its backend gave it, to be written."""
    if path.startswith("/"):
        return contextlib.nullcontext(device(path))
    if target.backend.network_node is None:
        raise AssertionError(f"{target.label}: no way to {path}")
    return target.backend.network_node(target.label, target.connection, target.pool_options(), path)


def device(path: str) -> Node:
    """A block device of this host, to be written."""
    return nodes.file_node(path, "raw", "host_device", size=size_of(path))


def size_of(path: str) -> int:
    """The bytes of a block device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return struct.unpack("Q", fcntl.ioctl(descriptor, BLKGETSIZE64, b"\0" * 8))[0]
    finally:
        os.close(descriptor)


def zero_from(path: str, start: int) -> None:
    """The rest of a device reads as zeroes, by the kernel's own way (BLKZEROOUT, see blkdiscard(8))."""
    start, size = -(-start // 512) * 512, size_of(path)
    if start >= size:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_EXCL)
    try:
        fcntl.ioctl(descriptor, BLKZEROOUT, struct.pack("QQ", start, size - start))
    finally:
        os.close(descriptor)


# whole copies


def copy(target: volume.Volume, source: Node, node: Node, form: str, capacity: int, *, rate: int | None = None) -> None:
    """All that a guest sees of the source, into a landing of the format; zeroes from there to the capacity."""
    label = target.label
    if target.directory():
        options = target.image_options(form)
        if target.want["preallocation"] not in (None, "off"):
            options["preallocation"] = target.want["preallocation"]
        if form == "raw" and is_plain(source) and not options and rate is None:
            copy_plain(label, source, node.path)
        else:
            qemu_img.convert(label, source, node, create=True, options=options, rate=rate)
        if capacity != source.size:
            grow_file(target, node.path, form, capacity)
        return
    # what a thin volume never got reads as zeroes; to write them would take the thin pool's space
    zeroed = landing_of(target).zeroed or target.want["thin_pool"] is not None
    qemu_img.convert(label, source, node, create=False, zeroed=zeroed, rate=rate)
    if not zeroed and node.path.startswith("/") and source.size is not None:
        zero_from(node.path, source.size)


def is_plain(source: Node) -> bool:
    """Whether it is a raw file by one descriptor: its bytes are what a guest sees."""
    here = {f"/dev/fd/{descriptor}" for descriptor in source.held}
    if source.format != "raw" or source.logins or source.protocol["driver"] != "file":
        return False
    return source.protocol["filename"] in here


def copy_plain(label: str, source: Node, path: str) -> None:
    """The kernel copies a raw file sooner than qemu-img, which has the same locks on it meanwhile."""
    [opened] = source.held
    exclusive.unwritten(label, opened)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with streams.Hashing() as none:
            streams.copy(opened, streams.Target(descriptor), none)
    finally:
        os.close(descriptor)


def verify(target: volume.Volume, source: Node, node: Node) -> None:
    """A guest would see the same in both."""
    if not qemu_img.compare(target.label, source, node):
        raise StorageError(
            thing=target.label,
            code="not_equal",
            reason="what was written reads back as something else than its source",
            way_out="look at the storage below (dmesg, smartctl), then run this again",
        )


# into a volume that is there and can't be hidden


def unfinished(node: Node, label: str) -> bool:
    """Whether a run was killed while it wrote a volume in place."""
    return head_of(node, label).startswith(MARK)


def make_in_place(target: volume.Volume) -> None:
    """Make a volume that can't be hidden, such as a partition, and mark it before it passes for whole.

    What a killed run leaves between the two is known by a note, which lies where the locks are.
    """
    note = note_of(target)
    os.close(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        target.create_by_libvirt()
    except BaseException:
        os.unlink(note)
        raise
    target.before["exists"] = True
    node = device(target.before["path"])
    mark(target.label, node)
    os.unlink(note)


def note_of(target: volume.Volume) -> str:
    """The file that says that a volume is being made in place."""
    connection = target.connection
    digest = hashlib.sha256(f"{connection.uri}\0{target.name}".encode()).hexdigest()[:32]
    return os.path.join(connections.lock_folder(), f"{digest}.making")


def forget_note(target: volume.Volume) -> None:
    """The volume is whole."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(note_of(target))


def is_unfinished(target: volume.Volume, path: str) -> bool:
    """Whether a run was killed while it made or wrote a device of this host."""
    return is_marked(path) or os.path.exists(note_of(target))


def is_marked(path: str) -> bool:
    """The same of a block device of this host."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False


def head_of(node: Node, label: str) -> bytes:
    """The first bytes of a raw volume."""
    with memory() as descriptor:
        answer = nodes.file_node(f"/dev/fd/{descriptor}", "raw", held=(descriptor,))
        qemu_img.convert(label, node.part(0, SECTOR), answer, create=True, step="read")
        return os.pread(descriptor, len(MARK), 0)


@contextlib.contextmanager
def memory() -> Iterator[int]:
    """A file without a name, in memory."""
    descriptor = os.memfd_create("kvm.storage")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def overwrite(
    label: str,
    source: Node,
    node: Node,
    size: int,
    room: int,
    rate: int | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Write a volume of so much room in place: a mark first, then all but the first MiB, the first MiB last.

    size is what a guest sees of the source; what is behind it reads as zeroes. ready() is asked before the last write,
    which makes it pass for whole, and raises what stands against that.
    """
    first = min(HEAD, size)
    mark(label, node)
    if size > first:
        place(label, source.part(first, size - first), node, first, rate)
    zeroes(label, node, size, room)
    if ready is not None:
        ready()
    place(label, source.part(0, first), node, 0)


def place(label: str, data: Node, node: Node, offset: int, rate: int | None = None) -> None:
    """Write data at an offset of a raw volume."""
    qemu_img.convert(label, data, node.part(offset, data.size), create=False, rate=rate)


def mark(label: str, node: Node) -> None:
    """From now on the volume passes for nothing: one write says so before any other is made.

    It takes the place of a partition table or the label of a file system or of LVM.
    """
    first = BLOCK if node.size is None else min(node.size, BLOCK)
    with memory() as descriptor:
        os.truncate(descriptor, first)
        os.pwrite(descriptor, MARK, 0)
        protocol = {"driver": "file", "filename": f"/dev/fd/{descriptor}"}
        place(label, Node(protocol, held=(descriptor,), size=first), node, 0)


def zeroes(label: str, node: Node, start: int, end: int) -> None:
    """A part of a raw volume reads as zeroes."""
    if end > start:
        nothing = {"driver": "null-co", "size": end - start, "read-zeroes": True}
        place(label, Node(nothing, size=end - start), node, start)


# a copy by the file system


FICLONE = 0x40049409  # linux/fs.h


def reflink_of(descriptor: int, path: str) -> bool:
    """Let a file share all blocks of another one; False where the file system can't (ioctl_ficlone(2))."""
    other = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.ioctl(other, FICLONE, descriptor)
    except OSError:
        return False
    finally:
        os.close(other)
    return True
