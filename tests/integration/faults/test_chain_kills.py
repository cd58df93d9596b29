# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chain work that is killed, with its tools, at any moment: nothing is lost, and the next run completes it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import chain
from tests.integration.helpers import Host, qemu_img
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.servers.libvirtd import Libvirtd

from .kill import alive_in, finish, start, wait_until

MIB = 1 << 20
SIZE = 64 * MIB
MOMENTS = 60 if SOAK else 6  # kills that met a run which had not ended
MOST = 4 * MOMENTS  # tries, of which some come too late: how long a run takes is not known before
FILES = ("base.qcow2", "other.qcow2", "middle.qcow2", "top.qcow2")


@dataclass
class Case:
    """An operation on top.qcow2, and what it stands on and holds once it is done."""

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    gone: bool = False


CASES = {
    "flatten": Case("volume_flatten"),
    "rebase on another base": Case(
        "volume_rebase", {"backing": {"volume": "other.qcow2", "format": "qcow2"}}, base="other.qcow2"
    ),
    "rebase in the chain": Case(
        "volume_rebase", {"backing": {"volume": "base.qcow2", "format": "qcow2"}}, base="base.qcow2"
    ),
    "rebase by name": Case(
        "volume_rebase",
        {"backing": {"volume": "same.qcow2", "format": "qcow2"}, "content": "same"},
        base="same.qcow2",
    ),
    "commit": Case("volume_commit", base="middle.qcow2"),
    "commit and delete": Case("volume_commit", {"delete": True}, gone=True),
}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    yield scratch / "images"


class Family:
    """A chain of three with another base beside it, and a copy of the middle; put back before each run."""

    def __init__(self, host: Host, images: Path) -> None:
        self.host, self.images = host, images
        self.kept = images.parent / "kept"
        self.kept.mkdir()
        self.noise = images.parent / "noise"
        noise = random.Random(SEED)
        for name, below, at in (
            ("base.qcow2", None, 0),
            ("other.qcow2", None, 8 * MIB),
            ("middle.qcow2", "base.qcow2", 20 * MIB),
            ("top.qcow2", "middle.qcow2", 36 * MIB),
        ):
            onto = ["-b", str(images / below), "-F", "qcow2"] if below else []
            path = str(images / name)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *onto, path, str(SIZE)], check=True)
            self.noise.write_bytes(noise.randbytes(24 * MIB))
            write = f"write -q -s {self.noise} {at} 24M"
            subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, path], check=True, capture_output=True)
        self.copy("middle.qcow2", images / "same.qcow2")
        for name in (*FILES, "same.qcow2"):
            self.copy(name, self.kept / name)
        self.content = self.seen("top.qcow2")
        self.put_back()

    def copy(self, name: str, target: Path) -> None:
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", self.images / name, target], check=True)

    def put_back(self) -> None:
        for path in self.images.iterdir():
            path.unlink()
        for path in self.kept.iterdir():
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", path, self.images / path.name], check=True)
        self.host.ok("volume_info", pool="images", refresh=True)

    def seen(self, name: str) -> str:
        raw = self.images.parent / "raw"
        path = str(self.images / name)
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, str(raw)], check=True)
        with open(raw, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def sound(self, name: str) -> None:
        """No table of it is broken; leaked clusters are what a killed QEMU leaves."""
        argv = ["qemu-img", "check", "-q", "-f", "qcow2", str(self.images / name)]
        checked = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert checked.returncode in (0, 3), f"{name}: {checked.stderr}"

    def base(self) -> str | None:
        below = qemu_img("-f", "qcow2", self.images / "top.qcow2").get("full-backing-filename")
        return Path(below).name if below else None

    def locked(self) -> list[str]:
        """What a killed qemu-img, whose last threads are on their way out, has open."""
        return [path.name for path in self.images.iterdir() if chain.image_locked(str(path))]

    def hidden(self) -> list[str]:
        return [name for name in os.listdir(self.images) if name.startswith(".")]


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(host: Host, images: Path, name: str, pytestconfig: pytest.Config) -> None:
    case, family = CASES[name], Family(host, images)
    arguments = {"uri": host.uri, "pool": "images", "name": "top.qcow2", "format": "qcow2", **case.options}
    began = time.monotonic()
    whole = finish(*start(case.module, arguments))
    took = time.monotonic() - began
    assert whole.result is not None
    assert whole.result["changed"], whole.result
    check_done(family, case)
    moments = random.Random(f"{SEED} {name}")
    met, unfinished, tries = 0, 0, 0
    while met < MOMENTS and tries < MOST:
        tries += 1
        family.put_back()
        pid, answer, calls = start(case.module, arguments)
        time.sleep(moments.uniform(0.1, 1.0) * took)
        os.killpg(pid, signal.SIGKILL)
        ended = finish(pid, answer, calls)
        if ended.result is None:
            met += 1
        else:
            took *= 0.8
        wait_until(lambda: not alive_in(pid) and not family.locked())  # noqa: B023  waited for at once
        unfinished += check_unharmed(family, case)
        result = host.ok(case.module, **{key: value for key, value in arguments.items() if key != "uri"})
        assert result["restart_needed"] is False
        check_done(family, case)
    tell(pytestconfig, f"{name}: {met} kills in a run, {tries - met} after it, {unfinished} before it was done")
    assert met == MOMENTS, f"only {met} of {tries} kills met a run"


def check_unharmed(family: Family, case: Case) -> bool:
    """The volume is the old or the new one and never half of it; whether it is the old one."""
    there = (family.images / "top.qcow2").exists()
    assert there or case.gone
    name = "top.qcow2" if there else "middle.qcow2"
    family.sound(name)
    assert family.seen(name) == family.content
    for other in ("base.qcow2", "other.qcow2", "same.qcow2"):
        assert (family.images / other).read_bytes() == (family.kept / other).read_bytes(), f"{other} was touched"
    if case.module != "volume_commit":
        assert (family.images / "middle.qcow2").read_bytes() == (family.kept / "middle.qcow2").read_bytes()
    if not there:
        return False
    base = family.base()
    assert base in ("middle.qcow2", case.base)
    return base != case.base or case.module == "volume_commit"


def check_done(family: Family, case: Case) -> None:
    there = (family.images / "top.qcow2").exists()
    assert there is not case.gone
    if there:
        assert (family.base(), family.seen("top.qcow2")) == (case.base, family.content)
        family.sound("top.qcow2")
    if case.module == "volume_commit":
        family.sound("middle.qcow2")
        assert family.seen("middle.qcow2") == family.content
    assert family.hidden() == []
