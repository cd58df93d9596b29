# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work on the disk of a running guest that is killed: the guest runs on with all it had, and the next run completes.

The work is a job of the guest, which goes on without the run that asked for it. In some of the runs the guest is
killed too, as by a host that loses its power.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from tests.integration.helpers import MIB, Host, connected, make_image
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.servers.guest import disk_xml, domain_xml, killed
from tests.servers.libvirtd import Libvirtd

from .kill import Ended, alive_in, finish, numbered, start, wait_until
from .kills import kill_group, noise, sample
from .moments import watching

SOME = 1000 if SOAK else 1  # moments besides those on which most depends
CRASHES = 6 if SOAK else 1  # moments at which the guest is killed too
SIZE = 8 * MIB
FUNCTIONS = ("begin", "wait", "flush", "pivot", "make_marked", "require_live", "base_changed", "switch_domains")
CALLS: tuple[str, ...] = (
    *("virDomainBlockCommit", "virDomainBlockPull", "virDomainBlockRebase", "virDomainBlockCopy"),
    *("virDomainBlockJobAbort", "virDomainSuspend", "virDomainResume", "virDomainDefineXML", "virStorageVolDelete"),
    *("link", "unlink", "rename"),
)
MOMENTS = watching(FUNCTIONS, CALLS)
PAUSED = ("after:virDomainSuspend", "before:virDomainResume")  # for 10 ms, after which somebody has to resume it


@dataclass(frozen=True)
class Case:
    """A module on the disk top.qcow2 of a running guest; where the disk is in the end, and on what it stands.

    pulls says that QEMU keeps the tables of the image in its memory at the end of the job, until somebody lets it
    write them: the run itself does, or whoever runs after it.
    """

    module: str
    critical: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    disk: str = "images/top.qcow2"
    base: str | None = None
    pulls: bool = False


CASES = {
    "flatten": Case("volume_flatten", ("after:virDomainBlockPull", "before:virDomainSuspend"), pulls=True),
    "rebase": Case(
        "volume_rebase",
        ("after:virDomainBlockRebase", "before:virDomainSuspend"),
        {"backing": {"volume": "base.qcow2", "format": "qcow2"}},
        base="base.qcow2",
        pulls=True,
    ),
    "commit": Case(
        "volume_commit",
        ("after:virDomainBlockCommit", "after:virDomainBlockJobAbort"),
        {"delete": True},
        "images/middle.qcow2",
        "base.qcow2",
    ),
    "migrate": Case(
        "volume_migrate",
        ("after:virDomainBlockCopy", "after:rename", "after:virDomainBlockJobAbort"),
        {"to": {"pool": "fast"}, "flatten": True},
        "fast/top.qcow2",
    ),
}


class Running:
    """A guest whose disk is the last of a chain of three."""

    def __init__(self, hypervisor: Libvirtd, folder: Path) -> None:
        self.folder = folder
        self.host = Host(hypervisor.uri, hypervisor.shared)
        for name in ("images", "fast"):
            self.host.ok("pool_dir", name=name, path=f"{folder}/{name}")
        self.kept = folder / "kept"
        self.kept.mkdir()
        below: tuple[str, ...] = ()
        for number, name in enumerate(("base.qcow2", "middle.qcow2", "top.qcow2")):
            path = make_image("qcow2", folder / "images" / name, str(SIZE), *below)
            below = ("-b", str(path), "-F", "qcow2")
            (folder / "noise").write_bytes(noise(2 * MIB, number))
            write = f"write -q -s {folder}/noise {number * MIB} 2M"
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, str(path)], check=True, capture_output=True)
            (self.kept / name).write_bytes(path.read_bytes())
        self.content = self.seen(self.folder / "images/top.qcow2")

    def seen(self, path: Path) -> str:
        raw = str(self.folder / "raw")
        subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), raw], check=True)
        return hashlib.sha256(Path(raw).read_bytes()).hexdigest()

    def put_back(self, connection: libvirt.virConnect) -> None:
        for domain in connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
            domain.undefine()
        for name in ("images", "fast"):
            for path in (self.folder / name).iterdir():
                path.unlink()
        for path in self.kept.iterdir():
            (self.folder / "images" / path.name).write_bytes(path.read_bytes())
        for pool in connection.listAllStoragePools():
            pool.refresh(0)
        disk = disk_xml(f"{self.folder}/images/top.qcow2", driver="qcow2")
        connection.defineXML(domain_xml("web", disk)).create()

    def arguments(self, case: Case) -> dict[str, Any]:
        return {"uri": self.host.uri, "pool": "images", "name": "top.qcow2", "format": "qcow2", **case.options}

    def run(self, case: Case, at: str | None = None, act: Callable[[], None] = kill_group) -> Ended:
        ended = finish(*start(case.module, self.arguments(case), at, act, MOMENTS))
        wait_until(lambda: not alive_in(ended.session))
        return ended

    def crash(self, guest: libvirt.virDomain) -> None:
        killed(guest)
        wait_until(lambda: not guest.isActive())

    def disk(self, guest: libvirt.virDomain) -> Path:
        source = ElementTree.fromstring(guest.XMLDesc(0)).find("devices/disk/source")
        assert source is not None
        return Path(source.get("file", ""))

    def check(self, guest: libvirt.virDomain, when: str) -> None:
        """The guest sees what it saw, and would if it were started anew."""
        wait_until(lambda: self.rests(guest))
        if guest.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            guest.suspend()  # its tables are written
            guest.resume()
        assert self.seen(self.disk(guest)) == self.content, f"{when}: {self.disk(guest)}"
        inactive = ElementTree.fromstring(guest.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).find("devices/disk/source")
        assert inactive is not None
        assert self.seen(Path(inactive.get("file", ""))) == self.content, f"{when}: its definition"

    def rests(self, guest: libvirt.virDomain) -> bool:
        """Whether its job has ended, or waits for its end."""
        mirror = ElementTree.fromstring(guest.XMLDesc(0)).find("devices/disk/mirror")
        return not guest.blockJobInfo("vda") or (mirror is not None and mirror.get("ready") == "yes")

    def complete(self, case: Case, guest: libvirt.virDomain, when: str, crashed: bool = False) -> None:
        done = self.host.run(case.module, **self.arguments(case))
        if crashed and case.module == "volume_migrate" and done.get("code") == "in_use":
            # started on the old disk, as it may be long after it had moved: only comparing both tells, and that waits
            self.crash(guest)
            done = self.host.run(case.module, **self.arguments(case))
            guest.create()
        if done.get("code") == "in_use" and "remove the volume" in done["msg"]:  # it is merged, and nothing tells so
            assert self.disk(guest) == self.folder / case.disk, f"{when}: {done['msg']}"
            done = self.host.ok("volume", pool="images", name="top.qcow2", state="absent")
        assert not done.get("failed"), f"{when}: the next run: {done['msg']}"
        if not done["changed"] or not case.pulls:
            self.check(guest, f"{when}, after the next run")
        assert guest.state()[0] == libvirt.VIR_DOMAIN_RUNNING, f"{when}: the guest does not run"
        disk = self.folder / case.disk
        assert self.disk(guest) == disk, when
        assert not guest.blockJobInfo("vda"), when
        told = subprocess.run(["qemu-img", "info", "-U", str(disk)], check=True, capture_output=True, text=True).stdout
        assert (f"backing file: {self.folder}/images/{case.base}" in told) is bool(case.base), f"{when}: {told}"
        assert ("backing file:" in told) is bool(case.base), f"{when}: {told}"
        left = [name for folder in ("images", "fast") for name in os.listdir(self.folder / folder)]
        assert sorted(left) == sorted(name for name in self.names(case)), f"{when}: {left}"
        again = self.host.run(case.module, **self.arguments(case))
        assert not again.get("failed"), f"{when}: {again['msg']}"
        assert not again["changed"], f"{when}: {again['actions']}"
        self.crash(guest)
        assert self.seen(disk) == self.content, f"{when}: what the guest leaves that is killed"

    def names(self, case: Case) -> list[str]:
        """Besides the disk there are those it stood on."""
        return ["base.qcow2", "middle.qcow2", *({Path(case.disk).name} - {"middle.qcow2"})]


@pytest.fixture
def running(fresh_hypervisor: Libvirtd, scratch: Path) -> Iterator[Running]:
    yield Running(fresh_hypervisor, scratch)


@pytest.mark.parametrize("name", CASES)
def test_killed(running: Running, name: str, pytestconfig: pytest.Config) -> None:
    case, chance = CASES[name], random.Random(f"{SEED} {name}")
    with connected(running.host.uri) as connection:
        running.put_back(connection)
        whole = running.run(case)
        assert whole.result is not None
        assert whole.result.get("changed"), whole.result
        running.complete(case, connection.lookupByName("web"), "a whole run")
        moments = numbered(whole.calls)
        critical = [f"{one}:1" for one in case.critical]
        assert set(critical) <= set(moments), moments
        rest = [one for one in moments if one not in critical and one.rpartition(":")[0] not in PAUSED]
        points = [*critical, *sample(chance, rest, SOME)]
        crashes = [] if case.pulls else sample(chance, points, CRASHES)
        count = 0
        for number, moment in enumerate([*points, *crashes]):
            killed_too = number >= len(points)
            when = f"{name}: killed {'with its guest ' if killed_too else ''}at {moment}"
            # what else there is to do besides the critical depends on how far the job is
            there = met(running, connection, case, moment, when, rests=chance.random() < 0.5, crash=killed_too)
            assert there or moment not in critical, when
            count += there
    tell(pytestconfig, f"kill points, {name} of a running guest: {count} of {len(moments)}")


def met(
    running: Running,
    connection: libvirt.virConnect,
    case: Case,
    moment: str,
    when: str,
    *,
    rests: bool,
    crash: bool = False,
) -> bool:
    """Whether the run came to the moment; rests says that the next one comes when the job is over."""
    running.put_back(connection)
    guest = connection.lookupByName("web")
    there = running.run(case, moment).result is None
    if crash:
        running.crash(guest)
        guest.create()
    if rests:
        running.check(guest, when)
    running.complete(case, guest, when, crash)
    return there
