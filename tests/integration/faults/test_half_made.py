# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A volume of which libvirt's qemu-img has made only a part: it never passes for whole, and the next run makes it.

libvirt's is the way of volumes with LUKS and of those over the network; here every volume goes it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils.volume import Volume
from tests.integration.helpers import mutable
from tests.integration.inputs.counts import tell
from tests.servers.libvirtd import Libvirtd

from .cases import Case, layout
from .kill import ended, finish, kill_daemon, locks_wanted_by, start, wait_until
from .test_kill_points import Site, survives

# qemu-img is stopped by the largest size that a file may have, in blocks of 512 bytes. Its writes are, as strace shows:
# an empty file, the header without a size, the reference counts, the size, the name of the backing file.
PARTS = {"nothing": None, "an empty file": 0, "a header": 128, "all but the size": 384, "the whole": 10**9}
KINDS = ("alone", "overlay", "metadata")

QEMU_IMG = """\
#!/bin/sh
# The one call that is waited for makes a part of its file, and then stays until it may go.
if [ "$1" = create ] && rm {folder}/armed 2>/dev/null; then
    ulimit -c 0
    if [ -n "{blocks}" ]; then (ulimit -f {blocks}; exec /usr/bin/qemu-img "$@"); fi
    status=$?
    : > {folder}/reached
    while [ ! -e {folder}/go ]; do sleep 0.01; done
    exit $status
fi
exec /usr/bin/qemu-img "$@"
"""


class Slow:
    """qemu-img as this hypervisor's daemon finds it."""

    def __init__(self, hypervisor: Libvirtd, folder: Path, blocks: int | None) -> None:
        self.path, self.folder = hypervisor.root / "bin/qemu-img", folder
        limit = "" if blocks is None else str(blocks)
        self.path.write_text(QEMU_IMG.format(folder=shlex.quote(str(folder)), blocks=limit), encoding="utf-8")
        self.path.chmod(0o755)
        for name in ("reached", "go"):
            (folder / name).unlink(missing_ok=True)
        (folder / "armed").touch()

    def wait(self) -> None:
        wait_until((self.folder / "reached").exists)

    def go(self) -> None:
        (self.folder / "go").touch()

    def remove(self) -> None:
        self.go()
        self.path.unlink()


@pytest.fixture
def site(fresh_hypervisor: Libvirtd, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(Volume, "makes_file", lambda self: False)
    yield Site(fresh_hypervisor, scratch)
    (fresh_hypervisor.root / "bin/qemu-img").unlink(missing_ok=True)
    mutable(scratch)


def case_of(kind: str, root: Path) -> Case:
    pool = {"type": "dir", "name": "images", "path": f"{root}/images"}
    permissions = {"mode": "0600"}  # libvirtd does not live to set it
    base = {"pool": "images", "name": "base.qcow2", "format": "qcow2", "capacity": "1MiB"}
    volume: dict[str, Any] = {"pool": "images", "name": "web.qcow2", "format": "qcow2", "capacity": "4MiB"}
    if kind == "overlay":
        volume["backing"] = {"volume": "base.qcow2", "format": "qcow2"}
    elif kind == "metadata":
        volume["preallocation"] = "metadata"
    before = layout(pools=[pool], volumes=[base])
    return Case(1, layout(pools=[pool], volumes=[base, {**volume, "permissions": permissions}]), before)


def reference(site: Site, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    site.set_up(case)
    bystanders = site.bystanders()
    done = site.run(case.after)
    assert not done.get("failed"), done["msg"]
    wanted = site.read()
    site.set_up(case)
    return wanted, bystanders


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_daemon_is_killed_while_qemu_img_works(
    kind: str, part: str, site: Site, scratch: Path, pytestconfig: pytest.Config
) -> None:
    case = case_of(kind, site.root)
    wanted, bystanders = reference(site, case)
    slow = Slow(site.hypervisor, scratch, PARTS[part])
    child = start("layout", {"uri": site.hypervisor.uri, **case.after})
    slow.wait()
    kill_daemon(site.hypervisor)()
    slow.remove()
    met = finish(*child)
    assert met.result is not None and met.result["code"], met
    survives(site, case, wanted, bystanders, f"{kind}: libvirtd is killed when there is {part}")
    tell(pytestconfig, f"kill points, half made, {kind}, {part}: 1")


@pytest.mark.parametrize("part", ["nothing", "a header", "the whole"])
@pytest.mark.parametrize("kind", KINDS)
def test_module_is_killed_while_qemu_img_works(
    kind: str, part: str, site: Site, scratch: Path, pytestconfig: pytest.Config
) -> None:
    """The next run comes while libvirt is still at work for the one that was killed."""
    case = case_of(kind, site.root)
    wanted, bystanders = reference(site, case)
    slow = Slow(site.hypervisor, scratch, PARTS[part])
    pid, answer, calls = start("layout", {"uri": site.hypervisor.uri, **case.after})
    slow.wait()
    os.kill(pid, signal.SIGKILL)
    finish(pid, answer, calls)
    following = start("layout", {"uri": site.hypervisor.uri, **case.after})
    wait_until(lambda: locks_wanted_by(following[0]) or ended(following[0]))
    with contextlib.suppress(TimeoutError):  # it may wait, or see that there is nothing to do
        wait_until(lambda: ended(following[0]), 0.3)
    slow.remove()
    next_one = finish(*following)
    assert next_one.result is not None
    survives(site, case, wanted, bystanders, f"{kind}: the module is killed when there is {part}")
    if next_one.result.get("failed"):
        pytest.fail(f"the run that met libvirt at work: {next_one.result['msg']}")
    tell(pytestconfig, f"kill points, half made while the next runs, {kind}, {part}: 1")


def test_overlay_without_its_base_is_reported(site: Site) -> None:
    """qemu-img writes the name of the backing file last; before that, an overlay looks as if it stood alone."""
    case = case_of("overlay", site.root)
    reference(site, case)
    assert not site.run(case.after).get("failed")
    overlay = site.root / "images/web.qcow2"
    with overlay.open("r+b") as file:
        file.seek(8)
        file.write(bytes(12))
    before = overlay.read_bytes()
    site.hypervisor.kill()
    site.hypervisor.start()
    for _each in range(2):
        done = site.run(case.after)
        assert (done.get("failed"), done.get("code"), done["changed"]) == (True, "cannot_change", False), done
        assert "'images/web.qcow2'" in done["msg"]
        assert overlay.read_bytes() == before
