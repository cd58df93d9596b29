# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volume operations that end in their middle: nothing is lost, nothing half made has a name, the next run completes."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pprint import pformat
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import connection as connections
from tests.integration.conftest import _empty
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.servers.libvirtd import Libvirtd

from .kill import Ended, kill_daemon, numbered
from .kills import ABSENT, GAP, MARKED, MIB, Case, Hurt, Look, Site, checksum, kill_group, noise, sample

BASE = {"pool": "images", "volume": "base.qcow2", "format": "qcow2"}
ONE = {"images/base.qcow2": "base.qcow2"}
CHAIN = {**ONE, "images/over.qcow2": "over.qcow2"}


def clone(name: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    pool, _slash, name = name.partition("/")
    return {"pool": pool, "name": name, "source": source, **more}


def on(name: str, form: str = "qcow2", **more: Any) -> dict[str, Any]:
    pool, _slash, name = name.partition("/")
    return {"pool": pool, "name": name, "format": form, **more}


CASES = {
    "clone into a qcow2": Case(
        "volume_clone", clone("other/new", {**BASE, "mode": "full", "verify": True}), ONE, "other/new", compared=True
    ),
    "clone into a raw file": Case(
        "volume_clone",
        clone("images/new", BASE, format="raw", capacity="12MiB", permissions={"mode": "0640"}),
        ONE,
        "images/new",
        "raw",
        soak=True,
    ),
    "linked clone": Case("volume_clone", clone("images/new", {**BASE, "mode": "linked"}), ONE, "images/new"),
    "clone into rbd": Case(
        "volume_clone", clone("vms/new", {**BASE, "verify": True}, capacity="12MiB"), ONE, "vms/new", needs="ceph"
    ),
    "clone out of rbd": Case(
        "volume_clone",
        clone("images/new", {"pool": "vms", "volume": "base"}, format="qcow2"),
        {"vms/base": "base.raw"},
        "images/new",
        needs="ceph",
        soak=True,
    ),
    "linked clone in rbd": Case(
        "volume_clone",
        clone("vms/new", {"pool": "vms", "volume": "base", "mode": "linked"}, capacity="12MiB"),
        {"vms/base": "base.raw"},
        "vms/new",
        needs="ceph",
    ),
    "flatten in rbd": Case(
        "volume_flatten",
        {"pool": "vms", "name": "over"},
        {"vms/base": "base.raw", "vms/over": "base+clone"},
        "vms/over",
        between=("old", "new"),
        holds="over.raw",
        needs="ceph",
        part=0.6,
        most=2,
    ),
    "revert in rbd": Case(  # which Ceph does object by object
        "volume_snapshot",
        {"pool": "vms", "name": "kept", "snapshot": "one", "state": "reverted"},
        {"vms/kept": "base@one"},
        "vms/kept",
        between=("any",),
        again=True,
        needs="ceph",
        most=2,
    ),
    "clone into a partition": Case(
        "volume_clone",
        clone("parts/PART1", {**BASE, "verify": True}, capacity="9MiB"),
        ONE,
        "parts/PART1",
        "raw",
        (ABSENT, GAP, MARKED, "new"),
        needs="disk",
        gap=checksum(noise(9 * MIB, 5)),
    ),
    "flatten": Case(
        "volume_flatten",
        on("images/over.qcow2"),
        CHAIN,
        "images/over.qcow2",
        between=("old", "new"),
        holds="over.raw",
        compared=True,
    ),
    "snapshot": Case(
        "volume_snapshot", on("images/base.qcow2", snapshot="two"), ONE, "images/base.qcow2", between=("old", "new")
    ),
    "revert": Case(
        "volume_snapshot",
        on("images/kept.qcow2", snapshot="one", state="reverted"),
        {"images/kept.qcow2": "kept.qcow2"},
        "images/kept.qcow2",
        between=("old", "new"),
    ),
    "upload into a LUN": Case(
        "volume_upload",
        {
            **{"pool": "luns", "name": "unit:0:0:1", "src": "TEMPLATES/base.qcow2", "remote_src": True},
            **{"source_format": "qcow2", "replace": True},
        },
        {},
        "luns/unit:0:0:1",
        "raw",
        ("old", MARKED, "new"),
        needs="iscsi",
    ),
    "clone of a LUN": Case(
        "volume_clone",
        clone("images/new", {"pool": "luns", "volume": "unit:0:0:1"}, format="qcow2"),
        {},
        "images/new",
        holds="lun.raw",
        needs="iscsi",
        soak=True,
    ),
    "shrink a qcow2": Case(
        "volume_resize",
        on("images/long.qcow2", capacity="8MiB", shrink="discard"),
        {"images/long.qcow2": "long.qcow2"},
        "images/long.qcow2",
        between=("old", "new"),
    ),
    "shrink a raw file": Case(
        "volume_resize",
        on("images/long.raw", "raw", capacity="8MiB", shrink="discard"),
        {"images/long.raw": "long.raw"},
        "images/long.raw",
        "raw",
        between=("old", "new"),
        soak=True,
    ),
    "upload as it is": Case(
        "volume_upload",
        on("images/new", src="TEMPLATES/base.qcow2", remote_src=True, source_format="qcow2"),
        {},
        "images/new",
    ),
    "upload a raw image with more room": Case(
        "volume_upload",
        on("images/new", "raw", src="TEMPLATES/base.raw", remote_src=True, source_format="raw", capacity="12MiB"),
        {},
        "images/new",
        "raw",
        soak=True,
    ),
    "upload and convert": Case(
        "volume_upload",
        on(
            "images/new", "raw", src="TEMPLATES/base.raw.gz", remote_src=True, source_format="raw", preallocation="full"
        ),
        {},
        "images/new",
        "raw",
        compared=True,
    ),
    "upload in place of another": Case(
        "volume_upload",
        on("images/long.qcow2", src="TEMPLATES/base.qcow2", remote_src=True, source_format="qcow2", replace=True),
        {"images/long.qcow2": "over.qcow2", **ONE},
        "images/long.qcow2",
        between=("old", "new"),
    ),
    "upload into rbd": Case(
        "volume_upload",
        {"pool": "vms", "name": "new", "src": "TEMPLATES/base.qcow2", "remote_src": True, "source_format": "qcow2"},
        {},
        "vms/new",
        needs="ceph",
    ),
    "convert": Case(
        "volume_convert",
        on("images/base.qcow2", to={"format": "raw"}),
        ONE,
        "images/base.qcow2",
        "any",
        between=("old", "new"),
        compared=True,
    ),
    "convert under a new name": Case(
        "volume_convert",
        on("images/base.qcow2", new_name="new", to={"format": "raw"}),
        ONE,
        "images/new",
        "raw",
        compared=True,
        soak=True,
    ),
    "rename": Case("volume_migrate", on("images/base.qcow2", to={"name": "new"}), ONE, "images/new"),
    "migrate": Case(
        "volume_migrate", on("images/base.qcow2", to={"pool": "other", "name": "new"}), ONE, "other/new", compared=True
    ),
    "migrate with a domain": Case(
        "volume_migrate",
        on("images/base.qcow2", to={"pool": "other", "name": "new", "format": "raw"}),
        ONE,
        "other/new",
        "raw",
        domain=True,
        compared=True,
    ),
    "migrate into rbd": Case(
        "volume_migrate", on("images/base.qcow2", to={"pool": "vms", "name": "new"}), ONE, "vms/new", needs="ceph"
    ),
    "migrate out of rbd": Case(
        "volume_migrate",
        {"pool": "vms", "name": "base", "to": {"pool": "images", "name": "new", "format": "qcow2"}},
        {"vms/base": "base.raw"},
        "images/new",
        needs="ceph",
        soak=True,
    ),
    "wipe a qcow2": Case(
        "volume_wipe", on("images/base.qcow2"), ONE, "images/base.qcow2", between=("old", "new"), holds="", again=True
    ),
    "wipe a raw file": Case(
        "volume_wipe",
        on("images/base.raw", "raw"),
        {"images/base.raw": "base.raw"},
        "images/base.raw",
        "raw",
        between=("any",),
        holds="",
        again=True,
    ),
}


NAMES = [name for name, case in CASES.items() if SOAK or not case.soak]
FLOOR = 240 if SOAK else 60
SOME = 4  # of each way that the seed chooses from
FEW = 5 if SOAK else 4  # critical moments of a case, the last ones
MOST = 15 if SOAK else 3  # points of a case, if fewer are critical
FEWEST = 10 if SOAK else 4  # that are met in a case, at the least; but of these
SHORT = {
    "snapshot": 2,
    "revert": 2,
    "shrink a qcow2": 2,
    "wipe a raw file": 1,
    "upload in place of another": 3,
    "rename": 3,
    "flatten in rbd": 2,
    "revert in rbd": 2,
}
LONG = {"wipe a raw file": 5, "rename": 4, "shrink a raw file": 3}
LEAST = LONG if SOAK else SHORT
NAMING = ("dlopen", "rename", "replace", "link")  # calls that give a whole file its name
CHANGING = ("virDomainDefineXML", "virStorageVolDelete", "unlink", "virStorageVolCreateXML")


@pytest.fixture(scope="module")
def site(hypervisor: Libvirtd, request: pytest.FixtureRequest) -> Iterator[Site]:
    _empty(hypervisor)
    root = hypervisor.shared / "kills"
    root.mkdir(mode=0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(connections, "LOCK_FOLDER", str(hypervisor.root / "locks"))
        made = Site(hypervisor, root, lambda: request.getfixturevalue("ceph_cluster"))
        yield made
        made.close()
    _empty(hypervisor)


@dataclass(frozen=True)
class Point:
    """What happens to a run: at a moment of the module (at), in a tool (hurt), or for want of room (left, in bytes)."""

    way: str
    at: int | None = None
    hurt: Hurt | None = None
    left: int | None = None


@dataclass
class Whole:
    """A run that nothing happens to: what was there before and after, its moments and what its tools called."""

    before: Look
    after: Look
    moments: list[str]
    hurts: list[Hurt]
    conversions: list[int]

    def at(self, *names: str) -> list[int]:
        """The moments of these names, by number."""
        return [number for number, name in enumerate(self.moments, start=1) if name.split(":")[1] in names]

    def name(self, at: int | None) -> str | None:
        """A moment as another run has it: that may make a call more or less."""
        return None if at is None else self.moments[at - 1]


def whole(site: Site, case: Case) -> Whole:
    site.put(case)
    before = site.look(case)
    site.tools.count()
    ended = site.run(case)
    assert ended.result is not None and not ended.result.get("failed"), ended.result
    assert ended.result["changed"], ended.result
    assert len(ended.calls) >= case.steps, ended.calls
    after = site.look(case)
    found = Whole(before, after, numbered(ended.calls), site.tools.counted(), site.tools.conversions())
    held = (site.templates / case.holds).read_bytes() if case.holds else b""
    assert after.target[-1] == checksum(held), after.target
    assert site.leftovers(after) == []
    assert after.target != before.target
    named = found.at(*NAMING)
    if named and case.target.startswith(tuple(site.folders)):
        synced = found.at("fsync", "fdatasync")
        assert not found.conversions or min(synced, default=named[-1]) < named[-1], f"not on the disk: {found.moments}"
    return found


def points(name: str, known: Whole) -> list[Point]:
    """Those on which most depends, and of all others as many as there is time for."""
    case, chance = CASES[name], random.Random(f"{SEED} {name}")
    moments = range(1, len(known.moments) + 1)
    inside = [one for one in known.hurts if one.call != "sendmsg" or one.nth > 2]
    inside = [replace(one, nth=max(1, int(one.nth * case.part))) for one in inside]
    writes = [one for one in inside if one.call in ("pwrite64", "pwritev", "sendmsg")]
    found: list[Point] = []
    if writes:
        most = max(writes, key=lambda one: one.nth)
        middle = replace(most, nth=max(1, most.nth // 2))
        found += [Point("killed in a tool", hurt=middle), Point("a tool is killed", hurt=middle)]
    if case.compared:
        assert known.conversions, f"{name}: nothing is written under a hidden name"
        found.append(Point("a write is lost", hurt=Hurt(known.conversions[0], "lose", 1)))
    critical = {at + more for at in known.at(*NAMING) for more in (0, 1)} | set(known.at(*CHANGING))
    found += [Point("killed", at) for at in sorted(critical & set(moments))[-FEW:]]
    if MARKED in case.between:  # what is written in place goes by several runs of a tool
        found += [Point("killed", at) for at in known.at("fork_exec")[::2]]
    if case.needs == "ceph":  # it has its name, and libvirt has not looked yet
        found += [Point("killed", at) for at in known.at("virStoragePoolRefresh")[-1:]]
    found += server_points(case, known, chance)
    rest = [Point("killed", at) for at in moments]
    for way, how, calls in (
        ("killed in a tool", "signal=KILL", None),
        ("a tool is killed", "signal=KILL", None),
        ("a write fails", "error=EIO", ("pwrite64", "pwritev", "fsync", "fdatasync")),
    ):
        fit = [one for one in inside if calls is None or one.call in calls]
        for _each in range(SOME if fit else 0):
            one = chance.choice(fit)
            rest.append(Point(way, hurt=Hurt(one.run, one.call, chance.randint(1, one.nth), how)))
    rest += [Point("the disk is full", left=left) for left in sample(chance, range(0, 8 * MIB, 64 << 10), SOME)]
    rest += [Point("libvirtd is killed", at) for at in sample(chance, moments, SOME // 2)]
    rest = [one for one in dict.fromkeys(rest) if one not in found]
    found += sample(chance, rest, max(MOST - len(found), 1))
    return found if SOAK else found[: case.most]


def server_points(case: Case, known: Whole, chance: random.Random) -> list[Point]:
    """The server of the data stops, or is killed, while a tool of the module works."""
    working = known.at("fork_exec")[1::2]
    if case.needs == "ceph":
        ways = ["Ceph stops for a while", "Ceph stops, and the module is killed"]
    elif case.needs == "iscsi":
        ways = ["the target is killed"]
    else:
        return []
    return [Point(way, at) for way in ways for at in sample(chance, working, 2 if SOAK else 1)]


def told(point: Point, known: Whole) -> str:
    if point.at is not None:
        return f"{point.way} at moment {point.at} of {len(known.moments)} ({known.moments[point.at - 1]})"
    if point.hurt is not None:
        return f"{point.way}: {point.hurt}"
    return f"{point.way}: {point.left} bytes are left"


def interrupt(site: Site, case: Case, known: Whole, point: Point) -> tuple[bool, Ended]:
    """Whether it was met, and how the run ended."""
    at = known.name(point.at)
    if point.hurt is not None:
        hurt = point.hurt
        while True:
            site.tools.arm(hurt, group=point.way == "killed in a tool")
            ended = site.run(case)
            met = site.tools.fired() or failed(ended)
            if met or hurt.nth == 1:
                return met, ended
            # strace counts by thread, and how many of a tool's calls a thread makes is chance
            hurt = replace(hurt, nth=max(1, hurt.nth // 4))
            site.put(case)
    if point.left is not None:
        site.leave(point.left)
        ended = site.run(case)
        return failed(ended), ended
    if point.way == "libvirtd is killed":
        ended = site.run(case, at, kill_daemon(site.hypervisor))
        return site.hypervisor.pid is None, ended
    if "Ceph" in point.way:
        return site.run_without(case, at, "ceph-osd", kill="killed" in point.way)
    if "target" in point.way:
        return site.run_without_target(case, at)
    ended = site.run(case, at, kill_group)
    return ended.result is None, ended


def failed(ended: Ended) -> bool:
    return bool(ended.result and ended.result.get("failed"))


def survives(site: Site, case: Case, known: Whole, ended: Ended, when: str) -> None:
    site.come_back(case)
    between = site.look(case)
    states = {"old": known.before.target, "new": known.after.target, ABSENT: (ABSENT,), MARKED: (MARKED,)}
    states[GAP] = (*known.after.target[:-1], case.gap)
    if "any" not in case.between and between.target not in [states[one] for one in case.between]:
        pytest.fail(f"{when}: the target is neither whole nor as it was: {between.target}\n{pformat(states)}")
    untouched(site, known, between, when)
    has_its_disk(between, when)
    if "a write is lost" in when:
        assert ended.result and ended.result.get("code") == "not_equal", (when, ended.result)
    if "for a while" in when:
        assert ended.result and not failed(ended), (when, ended.result)
    if ended.result is not None and "libvirtd" not in when and case.module != "volume_wipe":
        left = [
            name for name in site.leftovers(between) if "@" not in name
        ]  # the tool that removes those may be killed
        assert left == [], f"{when}: left by a run that ended by itself"
    done = site.run(case)
    if done.result is None or done.result.get("failed"):
        pytest.fail(f"{when}: the next run fails: {done.result and done.result['msg']}")
    if not done.result["changed"]:
        assert between.target == known.after.target, f"{when}: taken for whole: {between.target}"
    look = site.look(case)
    assert look.target == known.after.target, f"{when}: after the next run"
    untouched(site, known, look, when)
    assert look.disk == known.after.disk, f"{when}: the domain's disk"
    assert site.leftovers(look) == [], f"{when}: left after the next run"
    assert look.others == known.after.others, f"{when}: after the next run"
    assert look.listed == known.after.listed, f"{when}: what libvirt lists"
    if not case.again:
        again = site.run(case)
        assert again.result and not again.result.get("failed") and not again.result["changed"], (when, again.result)


def untouched(site: Site, known: Whole, look: Look, when: str) -> None:
    """Everything else has its bytes; what the operation takes away has only gone when its target is whole."""
    for name, bytes_of in known.before.others.items():
        if look.others.get(name) == bytes_of:
            continue
        if name in known.after.others or name not in known.before.others:
            pytest.fail(f"{when}: {name} is not what it was")
        assert look.target == known.after.target, f"{when}: {name} has gone, and its successor is not whole"
    new = set(look.others) - set(known.before.others) - set(known.after.others) - set(site.leftovers(look))
    assert not new, f"{when}: {new}"


def has_its_disk(look: Look, when: str) -> None:
    """A domain names a disk that is there, in the format that it is in."""
    if look.disk is not None:
        path, form = look.disk
        assert os.path.exists(path), f"{when}: {path}, the domain's disk, is gone"
        with open(path, "rb") as file:
            assert (file.read(4) == b"QFI\xfb") == (form == "qcow2"), f"{when}: {path} is no {form}"


@pytest.mark.parametrize("name", NAMES)
def test_interrupted(name: str, site: Site, pytestconfig: pytest.Config) -> None:
    case = CASES[name]
    known = whole(site, case)
    count = is_taken(site, case, known)
    for point in points(name, known):
        site.put(case)
        met, ended = interrupt(site, case, known, point)
        survives(site, case, known, ended, f"{name}: {told(point, known)}")
        count += met
    tell(pytestconfig, f"kill points, operations, {name}: {count}")
    assert count >= LEAST.get(name, FEWEST), f"{name}: fewer points than before"


def is_taken(site: Site, case: Case, known: Whole) -> int:
    """Somebody else gives a file the target's name just before the run does: it stays, and the run says so."""
    named = known.at(*NAMING)
    pool, _slash, name = case.target.partition("/")
    if not named or ABSENT not in case.between or pool not in site.folders:
        return 0
    path = site.folders[pool] / name
    site.put(case)
    ended = site.run(case, known.name(named[-1]), lambda: void(path.write_bytes(b"theirs")))
    assert failed(ended), ended.result
    assert path.read_bytes() == b"theirs"
    path.unlink()
    look = site.look(case)
    assert site.leftovers(look) == []
    untouched(site, known, look, f"{case.module}: its name was taken")
    return 1


def void(_result: object) -> None:
    """What happens at a moment gives nothing back."""


def test_there_are_enough_of_them() -> None:
    assert sum(LEAST.get(name, FEWEST) for name in NAMES) >= FLOOR
