# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moves to another host whose one end is killed: a whole volume is on one of the two, and the next run completes."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import files
from tests.integration.helpers import MIB, UTILS, Host, connected
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.servers import ssh
from tests.servers.libvirtd import Libvirtd

from .kill import Ended, alive_in, finish, numbered, start, wait_until
from .kills import kill_group, sample
from .moments import watching

SOME = 1000 if SOAK else 1  # moments of each end besides those on which most depends
SENDER = watching(("ask", "convert", "compare", "drop_source", "delete"), ("virStorageVolDelete",), flush="ask")
# Where the volume has its name there and not yet gone here, and where neither end is sure of the other: when the other
# end has been told to publish it, has answered, and when the one here is gone.
OF_SENDER = ("after:convert:1", "after:flush:2", "after:ask:2", "after:virStorageVolDelete:1")
# Made and empty, whole, named, and published without an answer.
OF_RECEIVER = ("after:receive:1", "after:publish.fsync:1", "before:publish.open:2", "after:publish:1")

# What the other host's Python begins with: it notes each moment of receiver.py, a call by the function that makes it,
# and is killed at one of them. How often it asks whether a process has ended is chance.
RECEIVER = """\
import os, signal, sys
folder, me = os.path.dirname(__file__), os.getpid()
moments = os.path.join(folder, "moments")
with open(os.path.join(folder, "at")) as file:
    at, _colon, nth = file.read().rpartition(":")
FUNCTIONS = {"look", "receive", "lend", "stop", "publish", "refresh", "end"}
CALLS = {"ftruncate", "open", "fchmod", "fsync", "unlink", "fork", "kill", "waitpid"}
def watch(frame, event, call):
    if frame.f_code.co_filename != "<string>" or os.getpid() != me:
        return
    function = frame.f_code.co_name
    if (event, function) == ("call", "main"):
        with open(os.path.join(folder, "folders"), "a") as file:
            file.write(frame.f_locals["folder"] + "\\n")
    if event in ("call", "return"):
        name = function if function in FUNCTIONS else ""
    else:
        name = f"{function}.{call.__name__}" if call.__name__ in CALLS else ""
    if name and name != "lend.waitpid":
        moment = ("before:" if event.endswith("call") else "after:") + name
        with open(moments, "a+") as file:
            file.write(f"{moment}\\n")
            file.seek(0)
            if moment == at and file.read().split().count(moment) == int(nth):
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

    def put_back(self, at: str = "") -> None:
        """The volume is here; the other end is killed at this moment of it, if any."""
        for folder in (self.here.parent, self.gone_to.parent):
            for path in folder.iterdir():
                path.unlink()
        self.here.write_bytes(self.content)
        self.here.chmod(0o640)
        (self.there / "at").write_text(at)
        (self.there / "moments").unlink(missing_ok=True)
        with connected(self.host.uri) as connection:
            for pool in connection.listAllStoragePools():
                pool.refresh(0)

    def run(self, at: str | None = None) -> Ended:
        """In a child, which is killed with its tools at this moment."""
        return finish(*start("volume_migrate", {"uri": self.host.uri, **self.task}, at, kill_group, SENDER))

    def moments(self) -> list[str]:
        """Those of the other end."""
        return numbered((self.there / "moments").read_text(encoding="utf-8").split())

    def folders(self) -> list[str]:
        """Those that the other end has made, in which it has its sockets, and removes as it ends."""
        return (self.there / "folders").read_text(encoding="utf-8").split()

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
        (self.there / "at").write_text("")
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
    with mock.patch(f"{UTILS}handover.SSH", ssh.command(tmp_path / "there")):
        made = Ends(host, scratch, tmp_path / "there")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what killed ones leave goes with it
        yield made
    for folder in made.folders():
        shutil.rmtree(folder, ignore_errors=True)


def chosen(moments: list[str], critical: tuple[str, ...], end: str) -> list[str]:
    """The critical ones, and some more by chance."""
    assert set(critical) <= set(moments), moments
    rest = [one for one in moments if one not in critical]
    return [*critical, *sample(random.Random(f"{SEED} {end}"), rest, SOME)]


def test_this_end_is_killed(ends: Ends, pytestconfig: pytest.Config) -> None:
    ends.put_back()
    whole = ends.run()
    assert whole.result is not None
    assert whole.result["changed"], whole.result
    ends.complete("a whole run")
    moments = chosen(numbered(whole.calls), OF_SENDER, "sender")
    for moment in moments:
        when = f"killed at {moment}"
        ends.put_back()
        ended = ends.run(moment)
        assert ended.result is None, when
        wait_until(lambda: not alive_in(ended.session) and not ends.lenders())  # noqa: B023  waited for at once
        wait_until(lambda: not any(map(os.path.exists, ends.folders())))  # the other end ends by itself
        assert ends.hidden() == [], when
        ends.complete(when)
    tell(pytestconfig, f"kill points, handover, sender: {len(moments)} of {len(whole.calls)}")


def test_it_is_killed_in_the_middle_of_the_copy(ends: Ends) -> None:
    ends.put_back()
    child = start("volume_migrate", {"uri": ends.host.uri, **ends.task, "rate": "64KiB"})
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
    met = 0
    for moment in chosen(moments, OF_RECEIVER, "receiver"):
        when = f"the other end was killed at {moment}"
        ends.put_back(moment)
        began = time.monotonic()
        result = ends.host.run("volume_migrate", **ends.task)
        assert time.monotonic() - began < 120, when
        assert result.get("failed") or moment not in OF_RECEIVER, when
        met += ends.moments()[-1] == moment
        assert not result.get("failed") or result["code"] in ("unreachable", "backend_refused"), (when, result["msg"])
        assert all(name.startswith(f"{files.LEFTOVER}{files.this_host()}-") for name in ends.hidden()), when
        wait_until(lambda: not ends.lenders())
        ends.complete(when)
    assert met >= len(OF_RECEIVER)
    tell(pytestconfig, f"kill points, handover, receiver: {met} of {len(moments)}")
