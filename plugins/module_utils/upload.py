# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that become volumes: under a hidden name until they are whole and checked, or in place where asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from . import files, headroom, images, nodes, permissions, progress, qemu_img, reconcile, sizes, transfer, volume
from .errors import StorageError
from .headers import inspect
from .incoming import SPEC, Incoming
from .operation import Operation
from .plan import Plan

STAGING = "/var/tmp"
# The options of a volume that an upload can have, besides its pool and name.
OPTIONS = ("capacity", "format", "compat", "cluster_size", "lazy_refcounts", "extended_l2", "nocow", "permissions")


class Upload(Operation):
    """A volume whose content is an image that comes in.

    An existing one is left alone, or with replace compared and, where it differs, overwritten.
    """

    operation = "upload"
    concurrent = False

    def __init__(self, connection: Any, params: dict[str, Any]) -> None:
        volume.Volume.__init__(self, connection, volume.wanted(params), None)
        self.options = params
        self.source = Incoming(self.label, params)
        self.replaces = bool(params["replace"])
        self.done = False

    def locks(self) -> list[str]:
        return [f"pool {self.pool_name!r}"]

    def facts(self) -> dict[str, Any]:
        found = super().facts()
        if self.source.checksum:
            found["checksum"] = self.source.checksum
        if self.done:
            size, seconds = self.source.moved["bytes"], self.source.moved["seconds"]
            found["transferred"] = {"bytes": size, "seconds": round(seconds, 3)}
            found["transferred"]["rate"] = int(size / seconds) if seconds else None
        return found

    def show(self, option: str, value: Any) -> str:
        return str(value) if option == "content" else super().show(option, value)

    # what it will be

    def form(self) -> str:
        """The format of the volume: declared, or the image's where the pool can hold it, else the pool's own."""
        if not self.directory():
            return "raw"
        declared = self.want["options"].get("format")
        if declared is not None:
            return str(declared)
        formats = self.backend.volume_formats
        return self.source.format if self.source.format in formats else self.backend.default_format or "raw"

    def as_it_comes(self) -> bool:
        """Whether the file of the volume is the image itself, byte for byte."""
        want = self.want
        made = [name for name in (*volume.FIXED, "nocow") if name in want["options"]]
        plain = want["preallocation"] in (None, "off")
        return bool(self.directory()) and self.form() == self.source.format and plain and not made

    def staging(self) -> str:
        """Where an image is put that can't be read where it is."""
        return self.options.get("staging_directory") or self.directory() or STAGING

    # deciding

    def read(self) -> dict[str, Any]:
        before = super().read()
        before.update(unfinished=False, differs=False, unknown="")
        if not before["exists"] or before["foreign"]:
            return before
        before["unfinished"] = self.is_unfinished()
        if not self.replaces or before["unfinished"] or self.users(running_only=True):
            before["differs"] = self.replaces
        elif not self.source.here:
            before["differs"] = True  # the controller has it
        else:
            before["differs"] = not self.is_same()
        return before

    def is_unfinished(self) -> bool:
        """Whether a run was killed while it wrote the volume in place."""
        path = self.before["path"]
        if path.startswith("/dev/"):
            return transfer.is_unfinished(self, path)
        if path.startswith("/") or self.backend.landing is not None or not self.replaces:
            return False
        with nodes.network(self) as node:
            return transfer.unfinished(node, self.label)

    def is_same(self) -> bool:
        """Whether a guest would see the image in the volume."""
        header, form = self.before["header"], self.form()
        if header is not None and header != form and self.directory():
            return False  # what its header says is not looked into
        with self.source.node(self.staging()) as source:
            try:
                with nodes.readable(self, form) as there:
                    there = nodes.sized(self.label, there)
                    if source.size is None or there.size is None or there.size < source.size:
                        return False
                    with progress.told("compare"):
                        return qemu_img.compare(self.label, source, there)
            except StorageError:
                return False  # what can't be read is replaced

    def plan(self, before: dict[str, Any]) -> Plan:
        if self.connection.pool(self.pool_name) and not self.directory() and not self.pool_is_up():
            return Plan(unknown="until its pool is active")
        return plan(before, self.want, self.form(), self.source.name, self.replaces)

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if plan.unknown:
            return
        if before["foreign"]:
            self.require_there(before)
        if plan.steps:
            self.check_content(before, plan)

    def check_content(self, before: dict[str, Any], plan: Plan) -> None:
        """The image may come in, the volume may take it, and there is room."""
        volume.refuse_operation(self.label, self.backend, "upload")
        self.require_local("a copy in process, or qemu-img,")
        self.check_thin_pool(before)
        self.source.prepare()
        capacity = self.source.capacity()
        self.check_capacity(capacity)
        if before["exists"]:
            self.check_replaced(before, capacity)
            if self.directory():  # beside the old one until it is whole
                plan.warnings += self.room_for_image(capacity, before["options"].get("capacity") or 0)
        else:
            self.check_made(before, capacity)
            plan.warnings += self.room_for_image(capacity)

    def check_capacity(self, size: int | None) -> None:
        """A volume is at least as large as what comes into it."""
        want = self.want["options"].get("capacity")
        if size is not None and want is not None and want < size:
            raise StorageError(
                thing=self.label,
                code="would_shrink",
                reason=f"the image has {sizes.readable(size)}, more than the {sizes.readable(want)} asked for",
                way_out="ask for at least what the image has, or leave capacity out",
            )

    def check_made(self, before: dict[str, Any], capacity: int | None) -> None:
        """As for any new volume; its capacity is the image's where none is asked for."""
        if not self.directory() and self.backend.landing is None:
            volume.refuse_operation(self.label, self.backend, "create")
        given = self.want["options"]
        self.want["options"] = {"capacity": capacity or 512, **given}
        try:
            self.check_new(before)
        finally:
            self.want["options"] = given

    def room_for_image(self, capacity: int | None, promised_already: int = 0) -> list[str]:
        """Whether its pool has room for it; of an image that is not here yet nothing can be told."""
        if capacity is None:
            return []
        promised = max(capacity, self.want["options"].get("capacity", 0))
        whole = self.want["preallocation"] in ("falloc", "full") or self.thick()
        now = promised if whole else self.source.data()
        more = max(promised - promised_already, 0)
        return headroom.room(self, more, now, self.want["policy"], self.want["thin_pool"])

    def check_replaced(self, before: dict[str, Any], capacity: int | None) -> None:
        """Nobody uses what is overwritten, and there is room for what comes."""
        self.require_there(before)
        self.require_unprotected(before)
        self.require_still_unused()
        self.require_no_overlays(before)
        if before["encrypted"]:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="it is encrypted, and the image would lie there in plain",
                way_out="remove it, and make it anew",
            )
        self.require_no_inner_snapshots()
        room = before["options"].get("capacity")
        need = max(capacity or 0, self.want["options"].get("capacity", 0))
        if not self.directory() and room is not None and need > room:
            raise self.too_small(room, need)

    def require_still_unused(self) -> None:
        """Asked anew: who looked before may have waited for a download or a comparison since."""
        self.connection.forget(self.pool_name)
        self.require_unused(self.before)

    def require_no_inner_snapshots(self) -> None:
        """A file that takes the place of a qcow2 has not its snapshots."""
        path = self.before["path"]
        if not self.is_file(path) or self.before["header"] != "qcow2":
            return
        descriptor = images.open_image(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            count = inspect(descriptor, "qcow2").snapshots
        finally:
            os.close(descriptor)
        if count:
            raise StorageError(
                thing=self.label,
                code="has_snapshots",
                reason=f"its {count} internal snapshots would be lost",
                way_out="remove them first (volume_snapshot)",
            )

    def too_small(self, room: int, need: int) -> StorageError:
        return StorageError(
            thing=self.label,
            code="no_space",
            reason=f"it has {sizes.readable(room)}, and {sizes.readable(need)} are to come into it",
            way_out="let it grow first (volume_resize), or on the array that it comes from",
        )

    # steps

    def upload(self) -> None:
        """A new volume."""
        self.done = True
        if self.as_it_comes():
            self.take_in()
            return
        with self.source.node(self.staging()) as source:
            if not self.directory() and self.backend.landing is None:
                self.make_place(source)
                return
            capacity = max(self.want["options"].get("capacity", 0), source.size or 0)
            self.check_capacity(source.size)
            with transfer.landing(self, capacity, self.form()) as node, progress.told("convert"):
                transfer.copy(self, source, node, self.form(), capacity)
                if not self.is_proven(source):
                    transfer.verify(self, source, node)

    def is_proven(self, source: nodes.Node) -> bool:
        """Whether nothing was converted, and the storage checks by itself that it has what was written."""
        return source.format == "raw" and self.backend.landing is not None and self.backend.landing.checked

    def take_in(self) -> None:
        """The bytes of the image, into a file that becomes the volume when it has been looked at."""
        form = self.form()
        with transfer.landing(self, 0, form) as node:
            descriptor = os.open(node.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.source.pour_into(descriptor)
                size = self.source.inspect(descriptor)
                with nodes.image(self.label, descriptor, form, self.source.limits) as image:
                    self.source.check_tables(image)
            finally:
                os.close(descriptor)
            self.check_capacity(size)
            capacity = self.want["options"].get("capacity", size)
            if capacity > size:
                transfer.grow_file(self, node.path, form, capacity)

    def make_place(self, source: nodes.Node) -> None:
        """Where volumes can't be hidden, such as partitions: one is made, and marked until all of it is there."""
        self.want["options"].setdefault("capacity", source.size)
        transfer.make_in_place(self)
        self.overwrite(source)

    def replace(self) -> None:
        """Other content for a volume that is there."""
        if self.directory():
            self.upload()
            return
        self.done = True
        with self.source.node(self.staging()) as source:
            self.require_still_unused()
            self.overwrite(source)

    def overwrite(self, source: nodes.Node) -> None:
        """In place, marked as unfinished until all of it is there."""
        with self.place() as node:
            node = nodes.sized(self.label, node)
            size, room = source.size or 0, node.size or 0
            if size > room:
                raise self.too_small(room, size)
            with progress.told("write"):
                transfer.overwrite(self.label, source, node, size, room)
                transfer.forget_note(self)
            with progress.told("verify"):
                transfer.verify(self, source, node)

    @contextlib.contextmanager
    def place(self) -> Iterator[nodes.Node]:
        """The volume that is there, to be written."""
        path = self.before["path"]
        if path.startswith("/"):
            yield transfer.device(path)
            return
        with nodes.network(self) as node:
            yield node

    def give_name(self, temporary: str) -> None:
        """Where it takes the place of another file, it has that one's permissions but for those that are given."""
        if not self.before["exists"]:
            super().give_name(temporary)
            return
        path = self.before["path"]
        if images.foreign(path):
            raise guards_error(self.label, path)
        self.require_still_unused()
        there = {name: value for name, value in (permissions.read(path) or {}).items() if name != "label"}
        permissions.apply(temporary, {**there, **self.want["options"].get("permissions", {})})
        files.replace(temporary, path)
        self.connection.unseen(self.pool_name)


def for_volume(target: volume.Volume) -> Upload:
    """The upload that a new volume of the volume module or of a layout begins with."""
    source = target.want["source"]
    given = {name: source.get(name) for name in ("url", "checksum", "compression", "url_networks")}
    found = Upload.__new__(Upload)
    want = {**target.want, "source": None}
    volume.Volume.__init__(found, target.connection, want, target.backend, target.planned_pool)
    found.options = {**given, "src": source.get("path"), "remote_src": True, "source_format": source["format"]}
    found.source = Incoming(found.label, found.options)
    found.replaces = found.done = False
    found.before = target.before
    return found


def guards_error(thing: str, path: str) -> StorageError:
    return StorageError(
        thing=thing, code="not_a_volume", reason=f"{path} has become something else", way_out="run this again"
    )


def plan(before: dict[str, Any], want: dict[str, Any], form: str, name: str, replaces: bool) -> Plan:
    """The steps that bring an image into a volume; pure.

    before is a volume's, with unfinished (a run that wrote it was killed) and differs (from the image).
    """
    if not before["exists"]:
        steps = (["remove_leftover"] if before["leftover"] else []) + (["refresh"] if before["listed"] else [])
        after = {option: want["options"][option] for option in want["options"]}
        return Plan([*steps, "upload"], None, {**after, "state": "present", "format": form, "content": name})
    present = volume.shown(before)
    if not before["unfinished"] and not before["differs"]:
        return Plan(volume.unseen(before), present, present)
    steps = volume.unseen(before)
    if before["unfinished"] and not replaces:
        return Plan([*steps, "replace"], {**present, "content": "unfinished"}, {**present, "content": name})
    risk = "DESTROYS DATA, as replace: true asks"
    return Plan([*steps, "replace"], {**present, "content": "another"}, {**present, "content": name}, risk=risk)


def argument_spec() -> dict[str, Any]:
    """The options of an upload."""
    spec = volume.argument_spec()
    names = ("pool", "name", "preallocation", "thin_pool", *headroom.OVERCOMMIT_SPEC, *OPTIONS)
    return {**{name: spec[name] for name in names}, **SPEC, "replace": {"type": "bool", "default": False}}


def run() -> None:
    """The main function of the volume_upload module."""
    reconcile.run(
        argument_spec(),
        lambda connection, params: [Upload(connection, params)],
        mutually_exclusive=[["src", "url"], ["url", "remote_src"]],
        required_one_of=[["src", "url"]],
        required_together=[["url_username", "url_password"]],
    )
