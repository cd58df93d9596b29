# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures: a hypervisor and storage servers of this run's own, started when a test first asks for them.

Every run, and every xdist worker, claims a directory that no other living one uses. What a killed run left in it is
swept on the way.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import libvirt

from tests.servers.ceph import Ceph, CephFS
from tests.servers.gluster import Gluster
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode, LoopDevice
from tests.servers.session import Session
from tests.servers.silent import free_address
from tests.servers.sweep import claim, clear, mounts_below, remove_tree, unmount

BASE = Path(os.environ.get("KVM_STORAGE_SCRATCH") or f"/var/tmp/kvm.storage-tests-{os.getuid()}")
UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)

LoopDeviceFactory = Callable[..., LoopDevice]


def _quiet(_context: object, _error: object) -> None:
    """Errors are raised anyway; libvirt need not print them, too."""


libvirt.registerErrorHandler(_quiet, None)


@pytest.fixture(scope="session")
def run_root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The directory of this run; kept after failures, for its logs, until a later run claims it."""
    mine = claim(BASE)
    yield mine.root
    if request.session.testsfailed:
        print(f"\nLogs of the servers are kept in {mine.root}")
    else:
        clear(mine.root)
    mine.release()


@pytest.fixture(scope="session")
def hypervisor(run_root: Path) -> Iterator[Libvirtd]:
    """A libvirtd as root that nobody else uses. Tests share it: see `fresh_hypervisor`."""
    with Libvirtd(run_root / "libvirtd") as server:
        yield server


@pytest.fixture
def fresh_hypervisor(hypervisor: Libvirtd) -> Iterator[Libvirtd]:
    """The hypervisor with nothing defined and `shared` empty, before and after."""
    _empty(hypervisor)
    yield hypervisor
    _empty(hypervisor)


@pytest.fixture
def conn(request: pytest.FixtureRequest, hypervisor: Libvirtd) -> Iterator[libvirt.virConnect]:
    """A connection of this test's own: an earlier test may have restarted the daemon."""
    _after_emptying(request)
    if hypervisor.pid is None:
        hypervisor.start()
    opened = libvirt.open(hypervisor.uri)
    yield opened
    opened.close()


@pytest.fixture
def scratch(request: pytest.FixtureRequest, hypervisor: Libvirtd) -> Iterator[Path]:
    """An empty directory that the test and the daemon both see, also what the daemon mounts in it."""
    _after_emptying(request)
    path = Path(tempfile.mkdtemp(prefix="scratch-", dir=hypervisor.shared))
    path.chmod(0o755)
    yield path
    _remove_tree(path)


@pytest.fixture(scope="session")
def session_daemon(run_root: Path) -> Iterator[Session]:
    """An unprivileged libvirtd of the user nobody."""
    with Session(run_root / "session") as server:
        yield server


@pytest.fixture(scope="session")
def ceph_cluster(run_root: Path) -> Iterator[Ceph]:
    """A cluster with the pool `rbd`."""
    with Ceph(run_root / "ceph") as server:
        yield server


@pytest.fixture
def ceph(ceph_cluster: Ceph) -> Iterator[Ceph]:
    """The cluster, whose pool has no images before each test."""
    ceph_cluster.empty("rbd")
    yield ceph_cluster


@pytest.fixture
def cephfs(ceph: Ceph, scratch: Path) -> Iterator[CephFS]:
    """The cluster's file system, mounted where the hypervisor sees it."""
    with CephFS(ceph, scratch / "cephfs") as mounted:
        yield mounted


@pytest.fixture(scope="session")
def iscsi(run_root: Path) -> Iterator[Target]:
    """A target for all and one with CHAP."""
    with Target(run_root / "iscsi") as server:
        yield server


@pytest.fixture(scope="session")
def gluster_server(run_root: Path) -> Iterator[Gluster]:
    """A server with one volume."""
    with Gluster(run_root / "gluster", free_address(24007)) as server:
        yield server


@pytest.fixture
def gluster(gluster_server: Gluster) -> Iterator[Gluster]:
    """The server, whose volume has no files before each test."""
    gluster_server.empty()
    yield gluster_server


@pytest.fixture
def loop_device(run_root: Path) -> Iterator[LoopDeviceFactory]:
    """Makes blank loop devices: loop_device(size), 256 MiB when not told otherwise."""
    made: list[LoopDevice] = []

    def make(size: int = 256 << 20) -> LoopDevice:
        made.append(LoopDevice(_new_image(run_root), size))
        return made[-1].attach()

    yield make
    for device in reversed(made):
        _discard(device)


@pytest.fixture
def disk_node(run_root: Path) -> Iterator[DiskNode]:
    """A blank disk of 256 MiB, at `.node`, that pools of type disk can work with."""
    disk = DiskNode(_new_image(run_root)).attach()
    yield disk
    _discard(disk)


def _new_image(run_root: Path) -> Path:
    folder = run_root / "loops"
    folder.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".img", dir=folder)
    os.close(handle)
    return Path(name)


def _discard(device: LoopDevice) -> None:
    device.detach()
    device.path.unlink(missing_ok=True)


def _after_emptying(request: pytest.FixtureRequest) -> None:
    """Fixtures are set up in the order of a test's arguments; the emptying must come first in any order."""
    if "fresh_hypervisor" in request.fixturenames:
        request.getfixturevalue("fresh_hypervisor")


def _empty(hypervisor: Libvirtd) -> None:
    if hypervisor.pid is None:
        hypervisor.start()
    opened = libvirt.open(hypervisor.uri)
    try:
        _remove_definitions(opened)
    except libvirt.libvirtError:
        hypervisor.reset()  # a pool may be stuck on a server that is gone
    finally:
        opened.close()
    for path in hypervisor.shared.iterdir():
        _remove_tree(path)


def _remove_definitions(opened: libvirt.virConnect) -> None:
    for domain in opened.listAllDomains():
        persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if persistent:
            domain.undefineFlags(UNDEFINE)
    for pool in opened.listAllStoragePools():
        persistent = pool.isPersistent()
        if pool.isActive():
            pool.destroy()
        if persistent:
            pool.undefine()
    for secret in opened.listAllSecrets():
        secret.undefine()


def _remove_tree(path: Path) -> None:
    """Delete below a mount that a test forgot would be deletion on its server."""
    for mount in mounts_below(path):
        unmount(mount)
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
