# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that move into a pool of another host: from host to host by ssh, and never through the controller.

qemu-img writes to a qemu-nbd of the other host through sockets that ssh forwards; receiver.py, which runs there for as
long, keeps the file under a hidden name. A run that is killed ends the connection, with which the hidden file goes. The
next one begins again. Sources: ssh(1), qemu-nbd(8).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import commands, convert, fields, guards, migrate, nodes, sizes, volume
from .errors import StorageError
from .operation import Operation
from .plan import Plan

DESTINATION = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.@+-]*@)?[A-Za-z0-9_:\[][A-Za-z0-9_.:%\]-]*", re.ASCII)
SSH = ("ssh", "-n", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
FORWARD = ("-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177")
WAIT = 45.0  # seconds until the other end must have answered


class Slow(nodes.Node):
    """A node that is read at no more than so many bytes a second."""

    bytes_a_second = 0

    def options(self) -> dict[str, Any]:
        return {"driver": "throttle", "throttle-group": "limit", "file": super().options()}

    @property
    def objects(self) -> tuple[str, ...]:
        limit = f"throttle-group,id=limit,x-bps-read={self.bytes_a_second}"
        return (*super().objects, "--object", limit)


def limited(node: nodes.Node, rate: int | None) -> nodes.Node:
    """The node, at no more than the rate: what is copied and what is compared go over the same line."""
    if not rate:
        return node
    kind = type("Limited", (Slow,), {"bytes_a_second": rate})
    return kind(node.protocol, node.format, node.backing, node.held, node.logins, node.size, node.path)


@dataclass
class Other:
    """The other end: asked one thing after the other."""

    label: str
    host: str
    folder: str
    stream: Any

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """What it answers; its errors are those of the step."""
        try:
            self.stream.write(json.dumps({"do": what, **given}) + "\n")
            self.stream.flush()
            line = self.stream.readline()
        except OSError as error:
            raise lost(self.label, self.host, str(error)) from None
        if not line:
            raise lost(self.label, self.host, "the connection has ended")
        answer = json.loads(line)
        if "ok" in answer:
            return dict(answer["ok"])
        raise StorageError(
            thing=self.label,
            code=answer["code"],
            reason=f"{self.host} says: {answer['error']}",
            way_out="mend that there, then run this again",
        )

    @property
    def node(self) -> nodes.Node:
        """What it has lent."""
        return nodes.Node({"driver": "nbd", "server": {"type": "unix", "path": f"{self.folder}/nbd"}}, "raw")


def lost(label: str, host: str, words: str) -> StorageError:
    return StorageError(
        thing=label,
        code="unreachable",
        reason=f"{host} can't be used by ssh: {words}",
        way_out=f"see that 'ssh -o BatchMode=yes {host} python3 -c \"import libvirt\"' works on this host",
    )


@contextlib.contextmanager
def other_end(label: str, to: dict[str, Any]) -> Iterator[Other]:
    """receiver.py on the other host, until the block ends."""
    import inspect
    import secrets

    from . import files, receiver

    folder = tempfile.mkdtemp(prefix="kvm.storage-")
    there = f"/tmp/kvm.storage-{secrets.token_hex(16)}"
    prefix = f"{files.LEFTOVER}{files.this_host()}-"
    arguments = (there, to["uri"], to["pool"], to["name"], prefix)
    program = f"{inspect.getsource(receiver)}\nmain(*{arguments!r})\n"
    forwards = [f"{folder}/{name}:{there}/{name}" for name in ("control", "nbd")]
    argv = [*SSH, *FORWARD, "-L", forwards[0], "-L", forwards[1], "--", to["host"]]
    argv.append(f"exec python3 -c {shlex.quote(program)}")
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append(commands.run(*argv))
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        with connected(label, to["host"], folder, ended) as stream:
            yield Other(label, to["host"], folder, stream)
    finally:
        thread.join(WAIT)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def connected(label: str, host: str, folder: str, ended: list[Any]) -> Iterator[Any]:
    """The socket to the other end, which is there a while after ssh has begun."""
    deadline = time.monotonic() + WAIT
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(f"{folder}/control")
            stream = link.makefile("rw", encoding="utf-8")
            stream.write('{"do": "hello"}\n')
            stream.flush()
            if stream.readline():
                break
            stream.close()
        except OSError:
            pass
        link.close()
        if ended:
            words = getattr(ended[0], "stderr", "") or str(ended[0])
            raise lost(label, host, " ".join(words.split())[-300:])
        if time.monotonic() > deadline:
            raise lost(label, host, f"nothing answers after {WAIT:.0f} s")
        time.sleep(0.05)
    with link, stream:
        yield stream


def plan(before: dict[str, Any], keep_source: bool) -> Plan:
    """Pure. before has exists, place and target_place ((host, pool, name)), target_exists, target_listed."""
    here, there = (dict(zip(("host", "pool", "name"), before[key])) for key in ("place", "target_place"))
    steps = ["refresh_target"] if before["target_exists"] and not before["target_listed"] else []
    if before["exists"] and not before["target_exists"]:
        steps.append("hand_over")
    if before["exists"] and not keep_source:
        steps.append("drop_source")
    risk = "compared before the source goes" if steps else ""
    return Plan(steps, here if steps else there, there, risk=risk)


class Handover(Operation):
    """A volume on its way to another host, as it is or as a raw disk."""

    operation = "migrate"

    def __init__(self, connection: Any, options: dict[str, Any]) -> None:
        super().__init__(connection, options)
        given = fields.given(options["to"])
        self.rate = options["rate"] and volume.FIELDS["capacity"].clean(self.label, "rate", options["rate"])
        self.to = {"pool": self.pool_name, "name": self.volume_name, "uri": "qemu:///system", **given}
        self.compared: tuple[int, ...] = ()  # the file when it was compared
        guards.new_name(self.label, self.to["name"])
        guards.possible_name(self.label, self.to["pool"])
        if not DESTINATION.fullmatch(self.to["host"]):
            raise StorageError(
                thing=self.label,
                code="bad_value",
                reason=f"to.host can't be {self.to['host']!r}",
                way_out="give a host as ssh takes it, such as root@kvm02.example.com",
            )
        left = sorted(set(given) - {"host", "uri", "pool", "name", "format"})
        if left or given.get("format") not in (None, "raw", options["format"]):
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="a volume goes to another host as it is, or as a raw disk"
                + (f", and {', '.join(left)} is for neither" if left else ""),
                way_out="convert it there with volume_convert",
            )

    def locks(self) -> list[str]:
        """The other pool, too: what killed runs of this host left there is removed by the next one."""
        return [*super().locks(), f"pool {self.to['pool']!r} of {self.to['host']}"]

    # reading and deciding

    def read(self) -> dict[str, Any]:
        """Besides what every volume has: target_exists and there (what the other host says), form, definitions."""
        from . import domains

        before = super().read()
        self.require_local("qemu-img")
        with other_end(self.label, self.to) as other:
            there = other.ask("look")
        before.update(
            there=there,
            target_exists=there["exists"],
            target_listed=there["listed"],
            found=None,
            form="",
            definitions=[],
        )
        before["place"] = ("this one", self.pool_name, self.volume_name)
        before["target_place"] = (self.to["host"], self.to["pool"], self.to["name"])
        if not before["exists"] and there["exists"]:
            return before
        self.require_there(before)
        before["form"] = self.format(before) if self.backend.keeps_format else "raw"
        if before["path"].startswith("/"):
            before["found"] = convert.inspected(before["path"], (before["form"],))
        found = domains.defined(self.connection, self.pool_name, self.volume_name, before["path"])
        before["definitions"] = found
        return before

    def facts(self) -> dict[str, Any]:
        path = self.before.get("there", {}).get("path")
        return {"pool": self.to["pool"], **({"volume_path": path} if path else {})}

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan(before, self.options["keep_source"])

    def check(self, before: dict[str, Any], made: Plan) -> None:
        if not before["there"]["plain"]:
            raise StorageError(
                thing=self.label,
                code="not_a_volume",
                reason=f"what stands at {before['there']['path']} on {self.to['host']} is no plain file of one name",
                way_out="move it away, or choose another name",
            )
        if not made.steps or not before["exists"]:
            return
        names = [one.name for one in before["definitions"]]
        if names and "drop_source" in made.steps:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {', '.join(repr(name) for name in names)}, and a domain does not follow to "
                "another host",
                way_out="undefine the domain here, or use keep_source: true",
            )
        self.require_unused(before, running_only=True)
        self.require_no_overlays(before)
        if "drop_source" in made.steps:
            self.require_unprotected(before)
            volume.refuse_operation(self.label, self.backend, "delete")
            self.require_no_snapshots(migrate.LEFT_BEHIND)
        convert.require_kept(self.label, before, self.kept_options(before), "what comes there")
        with self.source(before) as node:
            if before["target_exists"]:
                self.compared = self.identity()
                if list(self.compared[1:]) == before["there"]["identity"] != []:
                    raise StorageError(
                        thing=self.label,
                        code="exists",
                        reason=f"{before['there']['path']} on {self.to['host']} is this very file, on one share",
                        way_out="leave it there: that host has it already",
                    )
                self.require_equal(node, before)
            else:
                self.require_room(node, before)

    def kept_options(self, before: dict[str, Any]) -> dict[str, Any]:
        """A file that goes as it is keeps its snapshots; what it stands on is left behind in any case."""
        return {**self.options, "drop_snapshots": self.options["drop_snapshots"] or self.as_it_is(before)}

    def as_it_is(self, before: dict[str, Any]) -> bool:
        """Whether the file itself goes, with all that its image has."""
        same = self.to.get("format", before["form"]) == before["form"]
        return bool(self.directory()) and same and not (before["found"] and before["found"].backing)

    @contextlib.contextmanager
    def source(self, before: dict[str, Any]) -> Iterator[nodes.Node]:
        """What goes over: the bytes of the file, or what a guest sees."""
        with nodes.readable(self, before["form"]) as node:
            if not self.as_it_is(before):
                if self.to.get("format", "raw") != "raw":
                    raise StorageError(
                        thing=self.label,
                        code="unsupported",
                        reason="a new image can't be made on another host",
                        way_out="use to.format: raw, and convert it there",
                    )
                node = nodes.sized(self.label, node)
                yield limited(node, self.rate)
                return
            held, size = node.held[0], os.fstat(node.held[0]).st_size
            protocol = {"driver": "file", "filename": f"/dev/fd/{held}"}
            yield limited(nodes.Node(protocol, "raw", held=(held,), size=size, path=node.path), self.rate)

    def require_room(self, node: nodes.Node, before: dict[str, Any]) -> None:
        from . import qemu_img

        needed, free = qemu_img.measure(self.label, node, "raw")[0], before["there"]["available"]
        if needed > free:
            raise StorageError(
                thing=self.label,
                code="no_space",
                reason=f"it would take {sizes.readable(needed)} at once, and pool {self.to['pool']!r} on "
                f"{self.to['host']} has {sizes.readable(free)} left",
                way_out="make room there",
            )

    def require_equal(self, node: nodes.Node, before: dict[str, Any]) -> None:
        from . import qemu_img

        with other_end(self.label, self.to) as other:
            other.ask("show")
            if qemu_img.compare(self.label, node, other.node):
                return
        raise StorageError(
            thing=self.label,
            code="exists",
            reason=f"{before['there']['path']} is there on {self.to['host']}, with another content",
            way_out="choose another name, or remove the one of the two that is not needed",
        )

    # steps

    def refresh_target(self) -> None:
        """What a killed run has made there is shown to libvirt."""
        with other_end(self.label, self.to) as other:
            other.ask("refresh")

    def hand_over(self) -> None:
        """Copied, compared, and only then given its name there."""
        from . import progress, qemu_img

        before = self.before
        self.connection.forget()
        self.require_unused(before, running_only=True)
        path = before["path"] if self.directory() else ""
        was = self.identity()
        mode = os.stat(path).st_mode & 0o777 if path else 0o600
        with other_end(self.label, self.to) as other:
            with self.source(before) as node:
                size = node.size or 0
                other.ask("receive", size=-(-size // 512) * 512)
                with progress.told("copy", size):
                    qemu_img.convert(self.label, node, other.node, create=False, zeroed=True)
                with progress.told("compare", size):
                    if not qemu_img.compare(self.label, node, other.node):
                        raise convert.not_equal(self.label, "hand_over")
            self.connection.forget()
            self.require_unused(before, running_only=True)
            self.require_same(was)
            other.ask("publish", size=size, mode=mode)
        self.compared = was

    def drop_source(self) -> None:
        self.connection.forget()
        if self.handle is None and not self.before["unlisted"]:
            self.connection.unseen(self.pool_name)
            self.connection.show(self.pool_name)
        self.check_delete(self.before)
        self.require_same(self.compared, migrate.STAYS, migrate.WHICH)
        self.delete()
