# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks as QEMU's tools open them: each node with its format named, and files by descriptors that are held.

A node is described in full, so that a tool follows no header: what it stands on is said too, or said to be nothing.
Sources: qemu-img(1), QEMU's block drivers (BlockdevOptions in qapi/block-core.json).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import intake
from .errors import StorageError
from .headers import inspect

ONE_FILE = ("vmdk", "vdi", "vpc", "vhdx")  # formats whose nodes have no backing store here


@dataclass(frozen=True)
class Login:
    """A password that a node needs: a descriptor of a file without a name, and the name that the node knows it by."""

    name: str
    descriptor: int


@dataclass(frozen=True)
class Node:
    """A disk as a tool of QEMU opens it.

    protocol   the options of the driver that reaches its bytes, such as {"driver": "file", "filename": ...}.
    format     the format of these bytes; never guessed.
    backing    the node below, or None for none.
    held       descriptors that the tool must be given.
    logins     passwords that the tool must be given.
    size       bytes that a guest sees, where they are known.
    path       its path on this host, or empty.
    """

    protocol: dict[str, Any]
    format: str = "raw"
    backing: Node | None = None
    held: tuple[int, ...] = ()
    logins: tuple[Login, ...] = ()
    size: int | None = None
    path: str = ""

    def options(self) -> dict[str, Any]:
        """The whole of it in the form of BlockdevOptions."""
        found: dict[str, Any] = {"driver": self.format, "file": self.protocol}
        if self.format in ("qcow2", "qcow", "qed"):
            found["backing"] = self.backing.options() if self.backing is not None else None
        if self.format == "vpc":
            found["force_size_calc"] = "current_size"  # the footer's size: the geometry's may be less
        return found

    @property
    def name(self) -> str:
        """The one argument by which a tool opens it."""
        return "json:" + json.dumps(self.options())

    @property
    def keep(self) -> tuple[int, ...]:
        """Every descriptor of the chain that the tool is given."""
        below = self.backing.keep if self.backing is not None else ()
        return (*self.held, *(login.descriptor for login in self.logins), *below)

    @property
    def objects(self) -> tuple[str, ...]:
        """The arguments that hand over its passwords."""
        own = [f"secret,id={one.name},file=/dev/fd/{one.descriptor}" for one in self.logins]
        return tuple(part for one in own for part in ("--object", one))

    def part(self, offset: int, size: int | None = None) -> Node:
        """A part of what a guest sees of it, as a raw disk of its own; size None is all of the rest."""
        found: dict[str, Any] = {"driver": "raw", "offset": offset, "file": self.options()}
        found.update({} if size is None else {"size": size})
        return Node(found, held=self.keep, logins=self.logins, size=size)

    @property
    def depth(self) -> int:
        """How many nodes it stands on."""
        return 0 if self.backing is None else 1 + self.backing.depth


@dataclass(frozen=True)
class Encrypted(Node):
    """A disk with LUKS, raw or qcow2, opened by the one password that it is given."""

    def options(self) -> dict[str, Any]:
        secret = self.logins[0].name
        if self.format == "raw":
            return {"driver": "luks", "file": self.protocol, "key-secret": secret}
        return {**super().options(), "encrypt": {"format": "luks", "key-secret": secret}}


def file_node(path: str, form: str, driver: str = "file", **rest: Any) -> Node:
    """A file or device by its path, for what this process alone has a name of or writes into."""
    return Node({"driver": driver, "filename": path}, form, path=path, **rest)


def refused(thing: str, refusal: intake.Refusal) -> StorageError:
    return StorageError(thing=thing, code=refusal.code, reason=refusal.reason, way_out=refusal.way_out)


@contextlib.contextmanager
def readable(volume: Any, form: str) -> Iterator[Node]:
    """A volume that exists, of its declared format, to be read by a tool: every header of its chain has been inspected.

    volume is a Volume that was read; raises the StorageError of an image that nobody may open.
    """
    path = volume.before["path"]
    if not path.startswith("/"):
        with network(volume) as node:
            yield node
        return
    if path.startswith("/dev/"):
        with device(volume.label, path, form) as node:
            yield node
        return
    directories = sorted(volume.pool_directories())
    with contextlib.ExitStack() as opened:
        yield chain(volume.label, path, form, directories, opened)


@contextlib.contextmanager
def network(volume: Any) -> Iterator[Node]:
    """A volume that QEMU itself speaks to by the network, with its pool's login; raw, whatever it begins with."""
    if volume.backend.network_node is None:
        raise StorageError(
            thing=volume.label,
            code="unsupported",
            reason=f"QEMU's tools have no way to a volume of a {volume.backend.type} pool",
            way_out="use a pool that mounts or attaches it",
        )
    with volume.backend.network_node(
        volume.label, volume.connection, volume.pool_options(), volume.before["path"]
    ) as node:
        yield node


@contextlib.contextmanager
def device(thing: str, path: str, form: str) -> Iterator[Node]:
    """A block device of this host: raw, and not begun as an image of another format."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
            raise StorageError(
                thing=thing, code="not_a_volume", reason=f"{path} is no block device", way_out="choose another one"
            )
        found = inspect(descriptor, form)
        for refusal in intake.refusals(found, form, replace(intake.LIMITS, virtual_size=1 << 63))[:1]:
            raise refused(thing, refusal)
        yield Node(
            {"driver": "host_device", "filename": f"/dev/fd/{descriptor}"},
            form,
            held=(descriptor,),
            size=found.virtual_size,
            path=path,
        )
    finally:
        os.close(descriptor)


def chain(thing: str, path: str, form: str, directories: list[str], opened: contextlib.ExitStack) -> Node:
    """A file and all that it stands on, each member held open, so that nobody can put another file in its place."""
    limits = replace(intake.LIMITS, virtual_size=1 << 63, formats=(*intake.IMPORTED, "qed", "qcow"))
    found = intake.chain(path, directories, form, limits, opened)
    if found.refusal is not None:
        raise refused(thing, found.refusal)
    node: Node | None = None
    for member in reversed(found.members):
        node = Node(
            {"driver": "file", "filename": f"/dev/fd/{member.descriptor}"},
            member.found.format,
            backing=node,
            held=(member.descriptor,),
            size=told_size(member.found.virtual_size, member.found.format),
            path=member.path,
        )
    if node is None:
        raise AssertionError(f"{thing}: a chain has its first member")
    return node


@contextlib.contextmanager
def image(thing: str, descriptor: int, form: str, limits: intake.Limits = intake.LIMITS) -> Iterator[Node]:
    """An image that comes in from outside, by a descriptor that the caller holds; whole, or refused."""
    found = inspect(descriptor, form)
    for refusal in intake.refusals(found, form, limits)[:1]:
        raise refused(thing, refusal)
    own = os.dup(descriptor)
    try:
        size = told_size(found.virtual_size, form)
        yield Node({"driver": "file", "filename": f"/dev/fd/{own}"}, form, held=(own,), size=size)
    finally:
        os.close(own)


def told_size(size: int | None, form: str) -> int | None:
    """The size that a header tells; of a VHD only QEMU tells the one that is used here."""
    return None if form == "vpc" else size


def sized(thing: str, node: Node) -> Node:
    """The node with the size that a guest sees: asked of QEMU where no header told it."""
    if node.size is not None:
        return node
    from . import qemu_img

    return replace(node, size=qemu_img.info(thing, node)["virtual-size"])


@contextlib.contextmanager
def password(name: str, value: bytes) -> Iterator[Login]:
    """A password in a file that has no name and ends with this process."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, value)
        yield Login(f"{name}{descriptor}", descriptor)  # source and target may each have one
    finally:
        os.close(descriptor)
