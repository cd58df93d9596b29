# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile images at every way in: what they name is never opened, and nothing crashes, runs on or is changed.

The modules run in a process under strace, which sees their children too. A mark on the file that the images name sees
who else opens it; of these libvirtd alone is left out, which looks at headers whenever it lists a pool.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import libvirt
import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands, qemu_img
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.disk_images import LIMITED, blocks
from tests.integration.helpers import Host, connected, within
from tests.integration.tracing import ROOT, Answer, Did, Silence, Traced
from tests.servers import ssh
from tests.servers.libvirtd import Libvirtd

from .counts import SEED, SOAK, tell
from .hostile import CANARY, MIB, Hostile, every, spread
from .test_situations import watched

NAME = "hostile"  # of the volume under test
LIMIT = 20  # seconds that a run may compute
HANGS = 120  # seconds after which it counts as one without an end, however busy the machine is
SHARE = 14  # of the images that each way meets besides the essential ones in a run that is no soak
FLOOR = 300

# What the names in the headers lead to, whatever this host makes of them.
FORBIDDEN = ["/etc/shadow", "/etc", "/dev/zero", "/dev/sda", "/dev/sr0", "/proc/self/mem", "/proc/1/root/etc/shadow"]
FORBIDDEN += ["/sys/kernel/x", "/run/nbd", "/run/x", "/dev/fdset/1"]


class Way(NamedTuple):
    """A way in: a module and its options for an image.

    forms    the formats of which a good image is taken; of None every one.
    follows  whether it opens the image at all: one that leads out is refused then.
    """

    module: str
    options: Callable[[Hostile, Path], dict[str, Any]]
    forms: tuple[str, ...] | None = None
    follows: bool = True


def clone(mode: str, **more: Any) -> Callable[[Hostile, Path], dict[str, Any]]:
    def options(image: Hostile, _path: Path) -> dict[str, Any]:
        source = {"pool": "given", "volume": NAME, "format": image.form, "mode": mode}
        return {"pool": "made", "name": "made", "source": source, **more}

    return options


def itself(**more: Any) -> Callable[[Hostile, Path], dict[str, Any]]:
    """An operation on the volume that the image is."""
    return lambda image, _path: {"pool": "given", "name": NAME, "format": image.form, **more}


def backing(image: Hostile, _path: Path) -> dict[str, Any]:
    below = {"pool": "given", "volume": NAME, "format": image.form}
    return {"pool": "made", "name": "made", "format": "qcow2", "capacity": "2MiB", "backing": below}


def backing_path(image: Hostile, path: Path) -> dict[str, Any]:
    below = {"path": str(path), "format": image.form}
    return {"pool": "made", "name": "made", "format": "qcow2", "capacity": "2MiB", "backing": below}


def layout(image: Hostile, path: Path) -> dict[str, Any]:
    there = {"pool": "given", "name": NAME, "format": image.form}
    over = backing(image, path) if image.form in STANDING else clone("auto")(image, path)
    return {
        "volumes": [there, {**over, "name": "over"}, {**clone("full", format="qcow2")(image, path), "name": "copy"}]
    }


def converted(image: Hostile) -> dict[str, Any]:
    return itself(to={"format": "raw" if image.form == "qcow2" else "qcow2"})(image, Path())


def upload(**more: Any) -> Callable[[Hostile, Path], dict[str, Any]]:
    return lambda image, path: {
        "pool": "made",
        "name": "made",
        "src": str(path),
        "remote_src": True,
        "source_format": image.form,
        **more,
    }


def download(**more: Any) -> Callable[[Hostile, Path], dict[str, Any]]:
    return lambda image, path: itself(dest=str(path.parents[1] / "made/made"), **more)(image, path)


BASE = {"pool": "bases", "volume": "base.qcow2", "format": "qcow2"}
STANDING = ("raw", "qcow2", "qcow", "qed")
QCOW2, GROWING = ("qcow2",), ("raw", "qcow2", "qed")
IMPORTED = ("raw", "qcow2", "vmdk", "vdi", "vpc")
WAYS = {
    "clone full": Way("volume_clone", clone("full")),
    "clone full, raw": Way("volume_clone", clone("full", format="raw", capacity="4MiB")),
    "clone auto": Way("volume_clone", clone("auto")),
    "clone reflink": Way("volume_clone", clone("reflink"), ()),  # where this machine's file system can
    "clone linked": Way("volume_clone", clone("linked"), STANDING),
    "backing": Way("volume", backing, STANDING),
    "backing by path": Way("volume", backing_path, STANDING),
    "resize": Way("volume", itself(capacity="16MiB"), GROWING),
    "volume_resize": Way("volume_resize", itself(capacity="16MiB"), GROWING),
    "shrink": Way("volume_resize", itself(capacity="64KiB", shrink="discard"), ("raw", "qcow2")),
    "shrink what is unused": Way("volume_resize", itself(capacity="512KiB", shrink="if_unused"), ()),
    "layout": Way("layout", layout),
    "flatten": Way("volume_flatten", itself()),
    "rebase": Way("volume_rebase", itself(backing=BASE), QCOW2),
    "rebase, trusted": Way("volume_rebase", itself(backing=BASE, content="trust"), QCOW2, follows=False),
    "commit": Way("volume_commit", itself(), ()),
    "snapshot": Way("volume_snapshot", itself(snapshot="one"), QCOW2),
    "external snapshot": Way("volume_snapshot", itself(snapshot="one", kind="external"), QCOW2, follows=False),
    "revert": Way("volume_snapshot", itself(snapshot="one", state="reverted"), ()),
    "delete a snapshot": Way("volume_snapshot", itself(snapshot="one", state="absent"), None, follows=False),
    "wipe": Way("volume_wipe", itself(), ("raw",), follows=False),
    "convert": Way("volume_convert", lambda image, _path: converted(image), IMPORTED),
    "convert to raw": Way("volume_convert", itself(to={"format": "raw"}, new_name="made.raw"), IMPORTED[1:]),
    "migrate": Way("volume_migrate", itself(to={"pool": "made"}), IMPORTED),
    "migrate to raw": Way("volume_migrate", itself(to={"pool": "made", "format": "raw"}), IMPORTED),
    "rename": Way("volume_migrate", itself(to={"name": "other"}), None, follows=False),
    "info": Way("volume_info", lambda _image, _path: {"pool": "given"}, None, follows=False),
    "layout_info": Way("layout_info", lambda _image, _path: {}, None, follows=False),
    "delete": Way("volume", itself(state="absent"), None, follows=False),
    "permissions": Way("volume", itself(permissions={"mode": "0640"}), None, follows=False),
    "migrate to another host": Way("volume_migrate", itself(to={"host": ssh.HOST, "pool": "made"}), IMPORTED),
    "download": Way("volume_download", download(dest_format="raw"), IMPORTED),
    "download as it is": Way("volume_download", download(), IMPORTED),
    "upload": Way("volume_upload", upload(format="qcow2"), IMPORTED),
    "upload as it is": Way("volume_upload", upload(), ()),
}
THERE = {name: way for name, way in WAYS.items() if (ROOT / f"plugins/modules/{way.module}.py").is_file()}
# These read all that a guest sees, which of a vast image takes as long as of a vast disk.
WHOLE = (
    "clone full",
    "clone full, raw",
    "clone auto",
    "layout",
    "rebase",
    "convert",
    "convert to raw",
    "migrate to raw",
    "migrate to another host",
    "download",
    "download as it is",
)
# Without a domain that says otherwise, a volume that has the wanted format already is taken for one that was converted.
TAKEN = [("convert", "a guest wrote a whole qcow2")]
PARTS = len(THERE) if SOAK else 4


class Site:
    """Three pools: of the image under test, of what is made of it, and of bases."""

    def __init__(self, hypervisor: Libvirtd, root: Path, log: Path) -> None:
        self.hypervisor, self.root, self.log = hypervisor, root, log
        self.given, self.made, self.canary = root / "given", root / "made", root / "canary"
        self.store = log.parent / "images"
        self.store.mkdir()
        self.canary.write_bytes(CANARY * 4096)
        host = Host(hypervisor.uri)
        for name in ("given", "made", "bases"):
            host.ok("pool_dir", name=name, path=str(root / name))
        host.ok("volume", pool="bases", name="base.qcow2", format="qcow2", capacity="1MiB")
        self.forbidden = [str(self.canary), *FORBIDDEN]
        self.unlistable: dict[str, str] = {}

    def images(self) -> list[Hostile]:
        return every(self.store, self.given, self.canary)

    def put(self, connection: libvirt.virConnect, image: Hostile) -> Path:
        """The image in its pool, and nothing else anywhere.

        Some headers make libvirt fail to list the pool, which is stopped then: these lie there unseen.
        """
        self.clear()
        given, made = (connection.storagePoolLookupByName(name) for name in ("given", "made"))
        for pool in (given, made):
            pool.refresh() if pool.isActive() else pool.create()
        path = image.place(self.given, NAME)
        try:
            if image.name not in self.unlistable:
                given.refresh()
        except libvirt.libvirtError as error:
            self.unlistable[image.name] = str(error)
            return self.put(connection, image)
        return path

    def clear(self) -> None:
        for folder in (self.given, self.made):
            for entry in os.scandir(folder):
                subprocess.run(["chattr", "-f", "-i", entry.path], check=False) if entry.name != NAME else None
                os.unlink(entry.path)

    def options(self, way: str, image: Hostile, path: Path) -> dict[str, Any]:
        """The options of a run; this hypervisor is the other host too."""
        found = {"uri": self.hypervisor.uri, **WAYS[way].options(image, path)}
        if "host" in found.get("to", {}):
            found["to"] = {**found["to"], "uri": self.hypervisor.uri}
        return found

    def state(self) -> dict[str, Any]:
        """Every file of the pools, and the canary: size, mode, times."""
        found = {}
        for folder in (self.given, self.made, self.root / "bases"):
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                found[entry.path] = (status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns)
        return found

    def leaked(self) -> list[str]:
        """The files of the pools that have the canary's content."""
        found = []
        for folder in (self.given, self.made):
            files = [entry.path for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
            found += [path for path in files if holds(Path(path), CANARY)]
        return found


def holds(path: Path, words: bytes) -> bool:
    """Whether a file has some words in any of its blocks with data."""
    return any(words in data for _number, data in blocks(path))


def guest_sees(path: Path) -> bool:
    """Whether a guest would see the canary in what was made; only asked of what the module took for harmless."""
    head = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=2", f"if={path}", f"of={path}.seen"]
    shown = subprocess.run([*LIMITED, *head], capture_output=True, check=False)
    try:
        return shown.returncode == 0 and holds(Path(f"{path}.seen"), CANARY)
    finally:
        Path(f"{path}.seen").unlink(missing_ok=True)


@pytest.fixture
def site(fresh_hypervisor: Libvirtd, scratch: Path, tmp_path: Path) -> Iterator[Site]:
    made = Site(fresh_hypervisor, scratch, tmp_path / "log")
    yield made
    made.clear()


class Case(NamedTuple):
    """What is tried: an image at a way in."""

    way: str
    image: Hostile
    answer: Answer

    def __str__(self) -> str:
        return f"{self.way}: {self.image.name} ({self.image.form})"


def objections(case: Case, before: dict[str, Any], site: Site) -> Iterator[str]:
    """What is wrong with how a run ended."""
    result, way, image = case.answer.result, WAYS[case.way], case.image
    message = str(result.get("msg", ""))
    if result.get("failed"):
        if not result.get("code") or result["code"] == "CRASHED":
            yield f"no clear error: {message}"
        if "Traceback" in case.answer.printed or "exception" in result:
            yield f"a traceback: {message}"
        unseen = image.name in site.unlistable and not way.follows  # no pool can be listed afterwards
        if site.state() != before and not unseen and way.module != "layout":
            yield f"failed, and something has changed: {message}"
    elif image.leads and way.follows and (case.way, image.name) not in TAKEN:
        yield f"an image that leads out was taken: {result.get('actions')}"
    if image.harmless and result.get("failed") and (way.forms is None or image.form in way.forms):
        yield f"a good image is refused: {message}"
    if case.answer.cpu > LIMIT:
        yield f"it took {case.answer.cpu:.0f} s of computing"
    if CANARY.decode().strip() in case.answer.printed or site.leaked():
        yield f"what the host's file holds is in {site.leaked() or 'the result'}"
    target = site.made / "made"
    if not result.get("failed") and way.module == "volume" and target.exists() and guest_sees(target):
        yield "a guest sees what the host's file holds"


def found_by_trace(did: Did, site: Site) -> Iterator[str]:
    opened = [call for call in did.opened(*site.forbidden) if call.name]
    if opened:
        yield f"opened {opened[0].path} as {opened[0].real or 'nothing'}"
    if did.connected():
        yield f"spoke to a server: {did.connected()[0].arguments}"
    if did.killed:
        yield f"a process was ended by {', '.join(did.killed)}"


def tried(ways: list[str], images: list[Hostile], chance: random.Random) -> Iterator[tuple[str, Hostile]]:
    """What one test tries: in a soak each image at each way, else the essential ones and some others."""
    for way in ways:
        for image in images if SOAK else spread(images, SHARE, chance.randrange):
            if not (image.vast and way in WHOLE):
                yield way, image


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_images(part: int, site: Site, pytestconfig: pytest.Config) -> None:
    images, chance = site.images(), random.Random(SEED + part)
    assert len(images) >= FLOOR
    cases: list[Case] = []
    wrong: list[str] = []
    ended: Counter[str] = Counter()
    names = sorted(THERE)[part::PARTS]
    with connected(site.hypervisor.uri) as connection, watched(site.canary) as readers, Traced(site.log) as traced:
        for way, image in tried(names, images, chance):
            path = site.put(connection, image)
            before = site.state()
            args = site.options(way, image, path)
            try:
                answer = traced.run(WAYS[way].module, args, limit=HANGS)
            except Silence as error:
                wrong.append(f"{way}: {image.name}: {error}")
                break
            case = Case(way, image, answer)
            cases.append(case)
            ended[str(answer.result.get("code", "done"))] += 1
            wrong += [f"{case}: {words}" for words in objections(case, before, site)]
            others = readers() - {site.hypervisor.pid}
            if others:
                wrong.append(f"{case}: opened by {others}")
    for case in cases:
        wrong += [f"{case}: {words}" for words in found_by_trace(traced.did(case.answer.number), site)]
    slowest = max(cases, key=lambda case: case.answer.seconds)
    tell(
        pytestconfig,
        f"hostile images, part {part}: {len(cases)} of {len(images)} images at {len(names)} ways, "
        f"{len(site.unlistable)} stop their pool, slowest {slowest.answer.seconds:.1f} s ({slowest}), {dict(ended)}",
    )
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:60])


def test_the_proof_sees_what_is_opened(site: Site, tmp_path: Path) -> None:
    """Else no image could make it fail: what a task names outright is opened, and seen by both means."""
    shown = {"pool": "made", "name": "made", "source_format": "raw", "format": "raw", "src": str(site.canary)}
    with watched(site.canary) as readers, Traced(tmp_path / "trace") as traced:
        answer = traced.run("volume_upload", {"uri": site.hypervisor.uri, "remote_src": True, **shown})
        assert not answer.result.get("failed"), answer.result
        assert traced.computed() > 0
        assert readers() - {site.hypervisor.pid} and site.leaked() == [str(site.made / "made")]
    assert list(found_by_trace(traced.did(1), site)) and traced.did(1).opened(site.canary)


# Tools that run away -----------------------------------------------------------------------------------------------

RUNAWAYS = {
    "cpu": ("exec python3 -c 'for _ in range(300_000_000): pass'", "signal"),
    "memory": ("exec python3 -c 'x = [bytearray(1 << 24) for _ in range(256)]'", "MemoryError"),
    "crash": ("kill -SEGV $$", "signal 11"),
    "words": ("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 1", "xxx..."),
}


@pytest.mark.parametrize("kind", RUNAWAYS)
def test_a_tool_that_runs_away(kind: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that qemu-img can't cope with is an error in bounds, and leaves nothing behind."""
    script, words = RUNAWAYS[kind]
    tool = tmp_path / "bin/qemu-img"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    image = next(one for one in site.images() if one.name == "good qcow2")
    with connected(site.hypervisor.uri) as connection:
        path = site.put(connection, image)
    before = site.state()
    monkeypatch.setattr(qemu_img, "MOST_DATA", 256 * MIB)
    monkeypatch.setattr(qemu_img, "LEAST_CPU", 1)
    path_of_tools = f"{tool.parent}:{commands.ENVIRONMENT['PATH']}"
    monkeypatch.setattr(commands, "ENVIRONMENT", {**commands.ENVIRONMENT, "PATH": path_of_tools})
    with within(HANGS):
        result = Host(site.hypervisor.uri).run("volume_clone", **clone("full")(image, path))
    assert result.get("failed") and result["code"] == "backend_refused", result
    assert words in result["msg"] and len(result["msg"]) < 2000
    assert site.state() == before


# A file that is swapped --------------------------------------------------------------------------------------------

SWAPPED = ("clone full", "clone auto", "convert", "migrate to raw", "upload", "volume_resize", "resize", "snapshot")


@pytest.mark.parametrize("way", [way for way in SWAPPED if way in THERE])
def test_a_file_that_is_swapped(way: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its header and the start of a tool another file gets its name: the tool never sees that."""
    images = {one.name: one for one in site.images()}
    with connected(site.hypervisor.uri) as connection:
        path = site.put(connection, images["good qcow2"])
    other = images["data file: bit True, raw False, name True"].place(site.made, "other")
    real, swapped = commands.run, []

    def swap(*argv: str, **options: Any) -> commands.Finished:
        if argv[0] == "qemu-img" and not swapped:
            os.replace(other, path)
            swapped.append(argv)
        return real(*argv, **options)

    monkeypatch.setattr(commands, "run", swap)
    with watched(site.canary) as readers:
        result = Host(site.hypervisor.uri).run(WAYS[way].module, **site.options(way, images["good qcow2"], path))
        opened = readers() - {site.hypervisor.pid}
    assert swapped, "no tool was started"
    assert not opened and not site.leaked() and CANARY.decode().strip() not in str(result)
