# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that begin as a clone of another one: by which way, what stands against it, and the way itself."""

from __future__ import annotations

import contextlib
from typing import Any, Callable

from . import chain, files, nodes, qemu_img, reconcile, sizes, transfer, volume
from .errors import StorageError
from .operation import Operation

WAYS = {  # for errors
    "reflink": "a clone that shares blocks and stands by itself",
    "linked": "a clone that stands on its source",
}


class Source(Operation):
    """The volume that a clone is made of."""

    operation = "download"  # what it takes of its backend is that it can be read

    def require_still(self, before: dict[str, Any]) -> None:
        """Nobody writes it. Guests whose disks stand on it read it only, and may run."""
        self.refuse_writers(self.users(running_only=True), before["path"])
        if not self.is_file(before["path"]):
            self.check_device_closed(before["path"])

    def require_unwritten(self, was: tuple[int, ...]) -> None:
        """The same of the time since identity() was asked; other threads keep what they have seen of the host."""
        path = self.before["path"]
        found = chain.find_uses(self.connection, running_only=True)
        self.refuse_writers(chain.of_volume(found, self.pool_name, self.volume_name, path, True), path)
        if was != self.identity():
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason="somebody wrote to it while it was read, and nothing came of that",
                way_out="shut its guest down, then run this again",
            )

    def refuse_writers(self, users: list[chain.Use], path: str) -> None:
        """None of the running guests has it as its own disk, and nobody else has it open to write."""
        writers = [use for use in users if use.level == 0]
        if writers or (self.is_file(path) and chain.image_written(path)):
            who = chain.names(writers) if writers else "a QEMU process, which may run on another host"
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is written by {who}",
                way_out="shut it down first, or clone a snapshot of it",
            )
        if not self.is_file(path):
            self.require_no_watchers()


def source_of(target: volume.Volume) -> Source:
    """The source, read anew."""
    given = target.want["source"]
    source = Source(target.connection, {"pool": given["pool"], "name": given["volume"], "format": given.get("format")})
    source.planned_pool = target.planned_source.planned_pool if target.planned_source is not None else None
    source.read()
    return source


def declared_format(target: volume.Volume, source: Source) -> str:
    """The format of the source: of the task, of the item of the same layout that makes it, of its domains."""
    planned = target.planned_source
    if "format" not in source.want["options"] and planned is not None:
        form = planned.new_format()
        if form is not None and len(planned.backend.volume_formats) > 1:
            source.want["options"]["format"] = form
    return source.format(source.before)


def check(target: volume.Volume) -> tuple[int, int]:
    """What stands against the clone, before anything changes; answers what it takes of its pool."""
    volume.refuse_operation(target.label, target.backend, "clone")
    planned = target.planned_source
    if planned is not None and not planned.before.get("exists"):
        return target.want["options"].get("capacity", 0), 0  # decided anew when it has been made
    source = source_of(target)
    source.require_there(source.before)
    target.require_local("qemu-img")
    form = declared_format(target, source)
    source.require_still(source.before)
    check_capacity(target, source)
    way = way_of(target, source, form)
    if way == "linked" and target.directory():
        target.check_chain(source.before["path"], form)
    return takes(target, source, way)


def takes(target: volume.Volume, source: Source, way: str) -> tuple[int, int]:
    """The bytes that a clone may come to take of its pool, and those that it takes at once."""
    options = source.before["options"]
    capacity = max(target.want["options"].get("capacity", 0), options.get("capacity", 0))
    return capacity, min(options.get("allocation", 0), capacity) if way == "copy" else 0


def check_capacity(target: volume.Volume, source: Source) -> None:
    have, want = source.before["options"].get("capacity"), target.want["options"].get("capacity")
    if want is not None and have is not None and want < have:
        raise StorageError(
            thing=target.label,
            code="would_shrink",
            reason=f"its source has {sizes.readable(have)}, more than the {sizes.readable(want)} asked for",
            way_out="ask for at least what the source has",
        )


def way_of(target: volume.Volume, source: Source, form: str) -> str:
    """copy, reflink, linked, or the backend's own shared or linked clone; asked for, or the best that stands alone."""
    mode, same_pool = target.want["source"]["mode"], source.pool_name == target.pool_name
    backend = target.backend
    if mode == "linked":
        if target.directory() and source.directory():
            if volume.format_of(target.want, backend, form) != "qcow2":
                raise cannot(target, source, mode)
            return "linked"
        if backend.linked is not None and same_pool and target.want["thin_pool"] is None:
            return "native linked"
        raise cannot(target, source, mode)
    if mode in ("auto", "reflink"):
        entry = source.entry() if backend.shared is not None and same_pool else None
        if entry is not None and entry.thin_pool and target.want["thin_pool"] in (None, entry.thin_pool):
            return "native shared"
        if target.directory() and source.directory() and keeps_all(target, source, form):
            return "reflink" if mode == "reflink" else "reflink or copy"
        if mode == "reflink":
            raise cannot(target, source, mode)
    return "copy"


def keeps_all(target: volume.Volume, source: Source, form: str) -> bool:
    """Whether the bytes of the source's file are those of the clone: nothing of its image is to be another."""
    if volume.format_of(target.want, target.backend, form) != form or source.before["backing"]:
        return False
    if target.want["preallocation"] not in (None, "off"):
        return False
    options, there = target.want["options"], source.before["options"]
    return all(options[name] == there.get(name) for name in volume.FIXED if name in options)


def cannot(target: volume.Volume, source: Source, mode: str) -> StorageError:
    return StorageError(
        thing=target.label,
        code="unsupported",
        reason=f"from {source.backend.type} pool {source.pool_name!r} to {target.backend.type} pool "
        f"{target.pool_name!r} there is no {WAYS[mode]}",
        way_out="use mode: full",
    )


def carry_out(target: volume.Volume) -> None:
    """Make the clone; it has its name only when it is whole."""
    source = source_of(target)
    source.require_there(source.before)
    form = declared_format(target, source)
    source.require_still(source.before)
    way = way_of(target, source, form)
    if way == "linked":
        overlay(target, source, form)
    elif way.startswith("native"):
        native(target, source, target.backend.linked if way == "native linked" else target.backend.shared)
    elif not (way.startswith("reflink") and reflink(target, source, form, must=way == "reflink")):
        copy(target, source, form)


def overlay(target: volume.Volume, source: Source, form: str) -> None:
    """A qcow2 that stands on the source."""
    path, directory = source.before["path"], target.directory()
    target.check_chain(path, form)
    capacity = max(target.want["options"].get("capacity", 0), source.before["options"]["capacity"])
    with files.hidden(directory) as temporary:
        base = nodes.file_node(path, form)
        qemu_img.create(target.label, temporary, "qcow2", capacity, target.image_options("qcow2"), base)
        target.give_name(temporary)


def native(target: volume.Volume, source: Source, way: Any) -> None:
    """A clone by the backend's own command, under a hidden name until it has its capacity."""
    options = target.pool_options()
    with transfer.hidden(target) as hidden:
        way(target.label, target.connection, options, source.volume_name, hidden)
        capacity = target.want["options"].get("capacity")
        if capacity is not None and capacity > source.before["options"]["capacity"]:
            transfer.grow_hidden(target, hidden, capacity)
        transfer.publish(target, hidden)


def reflink(target: volume.Volume, source: Source, form: str, must: bool) -> bool:
    """A file that shares the blocks of the source's; False where the file system can't and need not."""
    with nodes.readable(source, form) as node, files.hidden(target.directory()) as temporary:
        if not transfer.reflink_of(node.held[0], temporary):
            if must:
                raise StorageError(
                    thing=target.label,
                    code="unsupported",
                    reason=f"{source.directory()} and {target.directory()} share no blocks: that takes one file system "
                    "such as xfs or btrfs, and on btrfs the same setting of nocow",
                    way_out="use mode: full",
                )
            return False
        capacity = target.want["options"].get("capacity")
        if capacity is not None and capacity > source.before["options"]["capacity"]:
            transfer.grow_file(target, temporary, form, capacity)
        files.flushed(temporary)
        target.give_name(temporary)
    return True


def copy(target: volume.Volume, source: Source, form: str) -> None:
    """Every byte that a guest would see, in the format of the clone."""
    hides = target.directory() or target.backend.landing is not None
    if not hides and not target.before["exists"]:
        # before the source is opened: parted tells the kernel of no new partition beside one that is open
        target.want["options"].setdefault("capacity", source.before["options"]["capacity"])
        transfer.make_in_place(target)
    was = source.identity()
    with contextlib.ExitStack() as opened:
        node = nodes.sized(target.label, opened.enter_context(nodes.readable(source, form)))
        if not hides:
            in_place(target, node, lambda: source.require_unwritten(was))
            return
        made = volume.format_of(target.want, target.backend, form) or "raw"
        capacity = max(target.want["options"].get("capacity", 0), node.size or 0)
        landed = opened.enter_context(transfer.landing(target, capacity, made))
        transfer.copy(target, node, landed, made, capacity)
        if target.want["source"]["verify"]:
            transfer.verify(target, node, landed)
        source.require_unwritten(was)


def in_place(target: volume.Volume, source: nodes.Node, require_unwritten: Callable[[], None]) -> None:
    """Into a volume that can't be hidden, such as a partition: marked as unfinished until all of it is there."""
    node = transfer.device(target.before["path"])
    size, room = source.size or 0, node.size or 0
    if room < size:
        raise StorageError(
            thing=target.label,
            code="would_shrink",
            reason=f"it has {sizes.readable(room)}, and its source {sizes.readable(size)}",
            way_out="remove it, then run this again with a larger capacity",
        )
    transfer.overwrite(target.label, source, node, size, room, ready=require_unwritten)
    transfer.forget_note(target)
    if target.want["source"]["verify"]:
        transfer.verify(target, source, node)


# the module


def argument_spec() -> dict[str, Any]:
    """The options of one clone or of several of one source."""
    spec = volume.argument_spec()
    for name in ("state", "backing", "allocation", "immutable", "encryption", "name", "source", "snapshots"):
        del spec[name]
    each = {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "capacity": {"type": "str"}},
    }
    source = {**volume.CLONE_SPEC, "required": True}
    return {**spec, "name": {"type": "str"}, "clones": each, "source": source}


def wanted(params: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wanted of each clone."""
    given = {name: value for name, value in params.items() if name != "clones"}
    if params["clones"] is None:
        return [volume.wanted(given)]
    names = [one["name"] for one in params["clones"]]
    for name in names:
        if names.count(name) > 1:
            raise StorageError(
                thing=f"volume {params['pool'] + '/' + name!r}",
                code="bad_value",
                reason="it is in clones twice",
                way_out="give each clone a name of its own",
            )
    return [
        volume.wanted({**given, **{key: one[key] for key in one if one[key] is not None}}) for one in params["clones"]
    ]


def run() -> None:
    """The main function of the volume_clone module."""
    reconcile.run(
        argument_spec(),
        lambda connection, params: [volume.Volume(connection, want, None) for want in wanted(params)],
        many=lambda params: params["clones"] is not None,
        mutually_exclusive=[["name", "clones"]],
        required_one_of=[["name", "clones"]],
    )
