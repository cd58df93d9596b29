# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that become files of the host: in any format, compressed, sparse, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from . import chain, exclusive, fields, files, nodes, permissions, progress, qemu_img, reconcile, streams
from .backends.shared import PERMISSIONS
from .clone import Source
from .errors import StorageError
from .incoming import Incoming, nameless
from .operation import OPERATION_SPEC
from .plan import Plan

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx")
IMAGES = (*FORMATS, "qed", "qcow")
COMPRESSIONS = ("none", "gz", "xz", "bz2", "zst")
CHECKSUM = "sha256"
MODE = "0600"


class Download(Source):
    """A file with the content of a volume. A file that has it already is left alone."""

    operation = "download"

    def __init__(self, connection: Any, params: dict[str, Any]) -> None:
        super().__init__(connection, params)
        self.dest = fields.clean_path(self.label, "dest", params["dest"])
        self.compression = params["compression"]
        self.checksum, self.done = "", False
        self.moved = {"bytes": 0, "seconds": 0.0}
        given = fields.clean(self.label, {"permissions": PERMISSIONS}, {"permissions": params["permissions"] or {}})
        self.permissions = permissions.resolved(self.label, given["permissions"], True)

    def locks(self) -> list[str]:
        return [f"pool {self.pool_name!r}", f"file {self.dest!r}"]

    def facts(self) -> dict[str, Any]:
        found = {**super().facts(), "file": self.dest}
        if self.checksum:
            found["checksum"] = f"{CHECKSUM}:{self.checksum}"
        if self.done:
            size, seconds = self.moved["bytes"], self.moved["seconds"]
            rate = int(size / seconds) if seconds else None
            found["transferred"] = {"bytes": size, "seconds": round(seconds, 3), "rate": rate}
        return found

    def show(self, option: str, value: Any) -> str:
        return str(value)

    def form(self) -> str:
        """The format of the file: as asked for, else that of the volume where it can be."""
        own = self.own()
        return str(self.options.get("dest_format") or (own if own in FORMATS else "raw"))

    # deciding

    def read(self) -> dict[str, Any]:
        before = super().read()
        before.update(there=os.path.lexists(self.dest), same=False)
        if not before["exists"] or before["foreign"] or not self.connection.local:
            return before
        if before["there"] and stat.S_ISREG(os.lstat(self.dest).st_mode) and not self.is_written():
            before["same"] = self.is_same()
        return before

    def is_written(self) -> bool:
        try:
            self.require_still(self.before)
        except StorageError:
            return True
        return False

    def is_same(self) -> bool:
        """Whether a guest would see the same in the file; one that may not be looked into is another."""
        given = {"src": self.dest, "remote_src": True, "source_format": self.form(), "compression": self.compression}
        image = Incoming(self.label, given)
        image.caps = streams.Caps(ratio=1 << 20)  # it may be our own
        try:
            with image.node(self.folder) as there, nodes.readable(self, self.own()) as node:
                sizes = nodes.sized(self.label, there).size, nodes.sized(self.label, node).size
                if self.form() == "raw" and sizes[0] != sizes[1]:
                    return False
                with progress.told("compare"):
                    same = qemu_img.compare(self.label, node, there)
        except StorageError:
            return False
        if same:
            descriptor = os.open(self.dest, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                self.checksum = streams.checksum_of(descriptor, CHECKSUM)
            finally:
                os.close(descriptor)
        return same

    def own(self) -> str:
        """The format of the volume. A device is raw unless somebody declares it otherwise."""
        if self.directory():
            return self.format(self.before)
        declared = self.want["options"].get("format")
        return (declared if declared in IMAGES else self.format_of_domains()) or "raw"

    @property
    def folder(self) -> str:
        return os.path.dirname(self.dest)

    def plan(self, before: dict[str, Any]) -> Plan:
        after = {"dest": self.dest, "compression": self.compression}
        if before["exists"] and not before["foreign"]:
            after["dest_format"] = self.form()
        return plan(before, after)

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        self.require_there(before)
        self.require_local("a copy in process, or qemu-img,")
        self.own()
        if not plan.steps:
            return
        self.check_dest(before)
        self.require_still(before)
        if before["path"].startswith("/"):
            with nodes.readable(self, self.own()):
                pass  # all that it stands on may be read

    def check_dest(self, before: dict[str, Any]) -> None:
        """There is a place for the file, and nothing of another kind or content in it."""
        reason, code, way_out = "", "bad_value", "choose another one"
        if not os.path.isdir(self.folder):
            reason, way_out = f"there is no directory {self.folder}", "make it first"
        elif os.path.isdir(self.dest):
            reason, way_out = f"{self.dest} is a directory", "add the name of the file to dest"
        elif before["there"] and not stat.S_ISREG(os.lstat(self.dest).st_mode):
            reason, code = f"{self.dest} is no plain file", "not_a_file"
        elif before["there"] and not self.options["replace"]:
            reason, code = f"{self.dest} is there and has another content", "would_overwrite"
            way_out = "give replace: true if it can go"
        elif before["there"] and self.is_disk_of_a_guest():
            reason, code = f"{self.dest} is a disk of a guest", "in_use"
        if reason:
            raise StorageError(thing=self.label, code=code, reason=reason, way_out=way_out)

    def is_disk_of_a_guest(self) -> bool:
        """Whether a domain names the file, or a QEMU process of any host has it open."""
        real = os.path.realpath(self.dest)
        return chain.image_locked(self.dest) or any(use.path == real for use in chain.uses(self.connection))

    # the step

    def download(self) -> None:
        self.done = True
        began, was = time.monotonic(), self.identity()
        with nodes.readable(self, self.own()) as node, self.hidden() as temporary:
            for descriptor in node.keep:
                exclusive.unwritten(self.label, descriptor)
            if self.compression == "none":
                self.write(node, temporary)
            else:
                self.write_compressed(node, temporary)
            self.require_unwritten(was)
            permissions.apply(temporary, {"mode": MODE, **self.permissions})
            if self.before["there"]:
                files.replace(temporary, self.dest)
            else:
                files.flushed(temporary)
                files.publish(temporary, self.dest)
                files.flushed(self.folder)
        self.moved["seconds"] = time.monotonic() - began

    @contextlib.contextmanager
    def hidden(self) -> Iterator[str]:
        """A hidden name beside the file's, of which there is but one: the next run removes what a killed one left."""
        path = os.path.join(self.folder, f".{os.path.basename(self.dest)}.kvm.storage-{files.this_host()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def write(self, node: nodes.Node, path: str) -> None:
        """The plain image."""
        source = in_process(node)
        if source is not None and self.form() == "raw":
            with opened(path) as descriptor, streams.Hashing(CHECKSUM) as hashing:
                with progress.told("download", streams.size_of(source)) as tick:
                    size = streams.copy(source, streams.Target(descriptor), hashing, tick)
                self.checksum, self.moved["bytes"] = hashing.finish()[CHECKSUM], size
            return
        self.convert(node, path)
        with opened(path) as descriptor:
            self.moved["bytes"] = streams.size_of(descriptor)
            self.checksum = streams.checksum_of(descriptor, CHECKSUM)

    def convert(self, node: nodes.Node, path: str) -> None:
        """By qemu-img, and what it wrote is compared."""
        form = self.form()
        with progress.told("download"):
            qemu_img.convert(self.label, node, nodes.file_node(path, form), create=True, step="download")
        with progress.told("verify"):
            if not qemu_img.compare(self.label, node, nodes.file_node(path, form)):
                raise StorageError(
                    thing=self.label,
                    code="not_equal",
                    reason="what was written reads back as something else",
                    way_out="look at the storage below (dmesg, smartctl), then run this again",
                )

    def write_compressed(self, node: nodes.Node, path: str) -> None:
        """The image, compressed on its way into the file."""
        with contextlib.ExitStack() as stack:
            source = in_process(node) if self.form() == "raw" else None
            if source is None:
                source = nameless(self.folder)
                stack.callback(os.close, source)
                self.convert(node, f"/proc/{os.getpid()}/fd/{source}")
            hashing = stack.enter_context(streams.Hashing(CHECKSUM))
            target = streams.Target(stack.enter_context(opened(path)))
            tick = stack.enter_context(progress.told("compress", streams.size_of(source)))
            read = streams.ticking(streams.reader(source), tick)
            blocks = streams.compressed(self.label, streams.blocks_of(read), self.compression)
            self.moved["bytes"] = streams.pour(blocks, target, hashing)
            self.checksum = hashing.finish()[CHECKSUM]


def in_process(node: nodes.Node) -> int | None:
    """The descriptor of a raw file or device that stands alone."""
    return node.held[0] if node.format == "raw" and node.backing is None and node.path.startswith("/") else None


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def plan(before: dict[str, Any], after: dict[str, Any]) -> Plan:
    """Whether the file is written; pure. before has there and same: whether it is there, and as it would be."""
    if before["same"]:
        return Plan([], after, after)
    present = {"dest": after["dest"], "content": "another"} if before["there"] else None
    return Plan(
        ["download"], present, {**after, "content": "the volume's"}, risk="replaces the file" if present else ""
    )


def argument_spec() -> dict[str, Any]:
    """The options of a download."""
    return {
        **OPERATION_SPEC,
        "dest": {"type": "path", "required": True},
        "dest_format": {"type": "str", "choices": list(FORMATS)},
        "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "none"},
        "replace": {"type": "bool", "default": False},
        **fields.spec({"permissions": PERMISSIONS}),
    }


def run() -> None:
    """The main function of the volume_download module."""
    reconcile.run(argument_spec(), lambda connection, params: [Download(connection, params)])
