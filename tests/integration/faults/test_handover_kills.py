# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves to another host whose one end is killed: a whole volume is on one of the two, and the next run completes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import files
from tests.integration.helpers import MIB, UTILS, Host, connected
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.integration.test_volume_handover import STAND_IN
from tests.servers.libvirtd import Libvirtd

from .kill import Ended, alive_in, finish, start, wait_until
from .kills import kill_group, sample
from .moments import watching

SOME = 1000 if SOAK else 1  # moments of each end besides those on which most depends
SENDER = watching(("ask", "convert", "compare", "drop_source", "delete"), ("flush", "virStorageVolDelete"))
# Where the volume has its name there and not yet gone here, and where neither end is sure of the other.
OF_SENDER = ("after:convert", "after:flush:3", "after:ask:2", "after:virStorageVolDelete")
OF_RECEIVER = ("after:receive", "after:fsync", "before:open:3", "after:publish")

# What the other host's Python begins with: it notes each moment of receiver.py, and is killed at one of them.
RECEIVER = """\
import os, signal, sys
folder, me = os.path.dirname(__file__), os.getpid()
moments = os.path.join(folder, "moments")
with open(os.path.join(folder, "at")) as file:
    at = int(file.read())
FUNCTIONS = {"look", "receive", "lend", "stop", "publish", "refresh", "end"}
CALLS = {"ftruncate", "open", "fchmod", "fsync", "unlink", "fork", "kill", "waitpid"}
def watch(frame, event, call):
    if frame.f_code.co_filename != "<string>" or os.getpid() != me:
        return
    name = frame.f_code.co_name if event in ("call", "return") else call.__name__
    if (event, name) == ("call", "main"):
        with open(os.path.join(folder, "folders"), "a") as file:
            file.write(frame.f_locals["folder"] + "\\n")
    if name in (FUNCTIONS if event in ("call", "return") else CALLS):
        when = "before" if event.endswith("call") else "after"
        with open(moments, "a+") as file:
            file.write(f"{when}:{name}\\n")
            file.seek(0)
            if len(file.readlines()) == at:
                os.kill(me, signal.SIGKILL)
sys.setprofile(watch)
"""


class Ends:
    """This host and the other one, which here have one hypervisor."""

    def __init__(self, host: Host, scratch: Path, there: Path) -> None:
        self.host, self.there = host, there
        self.here, self.gone_to = scratch / "images/disk", scratch / "fast/disk"
        to = {"host": "root@kvm02", "uri": host.uri, "pool": "fast"}
        self.task = {"pool": "images", "name": "disk", "format": "qcow2", "to": to}
        content = scratch / "content"
        content.write_bytes(os.urandom(MIB) + bytes(3 * MIB))
        image = str(scratch / "image")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(content), image], check=True)
        self.content = Path(image).read_bytes()
        self.there.mkdir()
        (self.there / "sitecustomize.py").write_text(RECEIVER, encoding="utf-8")

    def put_back(self, at: int = 0) -> None:
        """The volume is here; the other end is killed at this moment of it, 0 for none."""
        for folder in (self.here.parent, self.gone_to.parent):
            for path in folder.iterdir():
                path.unlink()
        self.here.write_bytes(self.content)
        self.here.chmod(0o640)
        (self.there / "at").write_text(str(at))
        (self.there / "moments").unlink(missing_ok=True)
        with connected(self.host.uri) as connection:
            for pool in connection.listAllStoragePools():
                pool.refresh(0)

    def run(self, at: int | None = None) -> Ended:
        """In a child, which is killed with its tools at this moment."""
        return finish(*start("volume_migrate", {"uri": self.host.uri, **self.task}, at, kill_group, SENDER))

    def moments(self) -> list[str]:
        """Those of the other end."""
        return (self.there / "moments").read_text(encoding="utf-8").split()

    def hidden(self) -> list[str]:
        return [name for folder in (self.here, self.gone_to) for name in os.listdir(folder.parent) if name != "disk"]

    def lenders(self) -> list[int]:
        """The qemu-nbd of the other end."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.path.basename(words[0]) == b"qemu-nbd" and any(bytes(self.gone_to.parent) in one for one in words):
                found.append(int(entry))
        return found

    def check(self, when: str) -> None:
        """What has the volume's name is the volume, and one of them is there."""
        found = [path for path in (self.here, self.gone_to) if path.exists()]
        assert found, f"{when}: the volume is on neither host"
        for path in found:
            assert path.read_bytes() == self.content, f"{when}: {path} is not whole"
            assert path.stat().st_mode & 0o777 == 0o640, f"{when}: {path}"

    def complete(self, when: str) -> None:
        """The next run has the rest done, and the one after it nothing to do."""
        (self.there / "at").write_text("0")
        self.check(when)
        done = self.host.run("volume_migrate", **self.task)
        assert not done.get("failed"), f"{when}: the next run: {done['msg']}"
        self.check(when)
        assert (self.here.exists(), self.gone_to.exists()) == (False, True), when
        assert self.hidden() == [], when
        assert (self.host.volumes("images"), self.host.volumes("fast")) == ([], ["disk"]), when


@pytest.fixture
def ends(fresh_hypervisor: Libvirtd, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    host = Host(fresh_hypervisor.uri, fresh_hypervisor.shared)
    for name in ("images", "fast"):
        host.ok("pool_dir", name=name, path=f"{scratch}/{name}")
    stand_in = tmp_path / "ssh.py"
    stand_in.write_text(STAND_IN, encoding="utf-8")
    with mock.patch(f"{UTILS}handover.SSH", (sys.executable, str(stand_in))):
        made = Ends(host, scratch, tmp_path / "there")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what killed ones leave goes with it
        yield made
    for folder in (made.there / "folders").read_text(encoding="utf-8").split():
        shutil.rmtree(folder, ignore_errors=True)


def chosen(moments: list[str], critical: tuple[str, ...], end: str) -> list[int]:
    """By number: name or name:N, the Nth of that name; and some more, by chance."""
    numbered: dict[str, int] = {}
    seen: dict[str, int] = {}
    for number, name in enumerate(moments, start=1):
        seen[name] = seen.get(name, 0) + 1
        numbered[f"{name}:{seen[name]}"] = number
    found = {numbered[name if name.count(":") == 2 else f"{name}:1"] for name in critical}
    rest = [number for number in range(1, len(moments) + 1) if number not in found]
    return sorted(found | set(sample(random.Random(f"{SEED} {end}"), rest, SOME)))


def test_this_end_is_killed(ends: Ends, pytestconfig: pytest.Config) -> None:
    ends.put_back()
    whole = ends.run()
    assert whole.result is not None
    assert whole.result["changed"], whole.result
    ends.complete("a whole run")
    numbers = chosen(whole.calls, OF_SENDER, "sender")
    for number in numbers:
        when = f"killed at moment {number}, {whole.calls[number - 1]}"
        ends.put_back()
        ended = ends.run(number)
        assert ended.result is None, when
        wait_until(lambda: not alive_in(ended.session) and not ends.lenders())  # noqa: B023  waited for at once
        wait_until(lambda: not ends.hidden())  # the other end takes it away by itself
        ends.complete(when)
    tell(pytestconfig, f"kill points, handover, sender: {len(numbers)} of {len(whole.calls)}")


def test_it_is_killed_in_the_middle_of_the_copy(ends: Ends) -> None:
    ends.put_back()
    child = start("volume_migrate", {"uri": ends.host.uri, **ends.task, "rate": "256KiB"})
    wait_until(lambda: any(os.stat(ends.gone_to.parent / name).st_blocks for name in ends.hidden()))
    os.killpg(child[0], 9)
    assert finish(*child).result is None
    assert not ends.gone_to.exists()
    wait_until(lambda: not ends.hidden() and not ends.lenders())
    ends.complete("in the middle of the copy")


def test_the_other_end_is_killed(ends: Ends, pytestconfig: pytest.Config) -> None:
    ends.put_back()
    assert ends.host.ok("volume_migrate", **ends.task)["changed"]
    moments = ends.moments()
    ends.complete("a whole run")
    numbers = chosen(moments, OF_RECEIVER, "receiver")
    failed = 0
    for number in numbers:
        when = f"the other end was killed at moment {number}, {moments[number - 1]}"
        ends.put_back(number)
        began = time.monotonic()
        result = ends.host.run("volume_migrate", **ends.task)
        assert time.monotonic() - began < 30, when
        failed += bool(result.get("failed"))
        assert not result.get("failed") or result["code"] in ("unreachable", "backend_refused"), (when, result["msg"])
        assert all(name.startswith(f"{files.LEFTOVER}{files.this_host()}-") for name in ends.hidden()), when
        wait_until(lambda: not ends.lenders())
        ends.complete(when)
    assert failed >= len(numbers) // 2
    tell(pytestconfig, f"kill points, handover, receiver: {len(numbers)} of {len(moments)}")
