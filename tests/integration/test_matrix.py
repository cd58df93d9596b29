# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix of backends and operations, every cell that a plain kernel can run; see docs/guide/11-operations.md."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host
from tests.integration.matrix import DATA, Place, checksum, of_device, of_image, run_all
from tests.servers.ceph import Ceph, CephFS
from tests.servers.gluster import Gluster
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

MIB = 1 << 20


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def data(scratch: Path) -> Path:
    """What the volumes hold, as a file."""
    path = scratch / "data.raw"
    path.write_bytes(DATA)
    return path


def of_files(host: Host, kind: str, directory: Path, scratch: Path, form: str) -> Place:
    """A pool of files, which is there, gets its volume."""
    name = f"base.{form}"
    made = ["qemu-img", "convert", "-f", "raw", "-O", form, scratch / "data.raw", directory / name]
    subprocess.run(made, check=True)
    (directory / name).chmod(0o600)
    host.ok("volume_info", pool="files", refresh=True)
    names = (f"new{number}.{form}" for number in itertools.count())
    return Place(host, kind, "files", name, form, lambda one: of_image("-f", form, directory / one), names, scratch)


@pytest.fixture
def mounted(scratch: Path, loop_device: Any, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of the type that is the parameter."""
    folder = scratch / "mounted"
    folder.mkdir()
    device = loop_device(400 * MIB).device
    subprocess.run([f"mkfs.{request.param}", "-q", device], check=True)
    subprocess.run(["mount", device, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("mounted", ["ext4", "xfs", "btrfs"], indirect=True)
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_dir(host: Host, mounted: Path, scratch: Path, data: Path, form: str, request: Any) -> None:
    """A raw file has no snapshot on ext4, which shares no blocks."""
    host.ok("pool_dir", name="files", path=f"{mounted}/files")
    place = of_files(host, "dir", mounted / "files", scratch, form)
    try:
        run_all(place)
    except AssertionError as error:
        lines = str(error).splitlines()[1:]
        on_ext4 = "ext4" in request.node.name and form == "raw"
        assert on_ext4 and len(lines) == 1 and lines[0].startswith("snapshot: "), error  # noqa: PT018
        assert "share" in lines[0], error
    host.ok("pool_dir", name="files", state="absent")


def test_fs(host: Host, scratch: Path, data: Path, loop_device: Any) -> None:
    device = loop_device(256 * MIB).device
    host.ok("pool_fs", name="files", path=f"{scratch}/fs", device=device, source_format="ext4", build="if_blank")
    run_all(of_files(host, "fs", scratch / "fs", scratch, "qcow2"))


def test_netfs(host: Host, scratch: Path, data: Path, gluster: Gluster) -> None:
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="files", path=f"{scratch}/mnt", **share)
    run_all(of_files(host, "netfs", scratch / "mnt", scratch, "qcow2"))


def test_cephfs(host: Host, scratch: Path, data: Path, cephfs: CephFS) -> None:
    host.ok("pool_dir", name="files", path=f"{cephfs.path}/files")
    run_all(of_files(host, "dir", cephfs.path / "files", scratch, "qcow2"))


def test_disk(host: Host, scratch: Path, data: Path, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="disk", device=str(disk_node.node), source_format="gpt", build="if_blank")
    name = f"{disk_node.node.name}1"
    host.ok("volume_upload", pool="disk", name=name, src=str(data), remote_src=True, source_format="raw")
    folder = disk_node.node.parent
    names = itertools.repeat(f"{disk_node.node.name}2")  # the next partition, as often as it is removed
    place = Place(host, "disk", "disk", name, "raw", lambda one: of_device(str(folder / one)), names, scratch)
    assert place.content(name) == checksum(DATA)
    run_all(place)


def test_rbd(host: Host, scratch: Path, data: Path, ceph: Ceph) -> None:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    ceph.run("rbd", "import", "--no-progress", data, "rbd/base")
    host.ok("volume_info", pool="vms", refresh=True)
    names = (f"new{number}" for number in itertools.count())
    login = f"conf={ceph.root}/ceph.conf:id=admin:keyring={ceph.keyring()}"
    place = Place(
        host, "rbd", "vms", "base", "raw", lambda one: of_image("-f", "raw", f"rbd:rbd/{one}:{login}"), names, scratch
    )
    run_all(place)


def test_gluster(host: Host, scratch: Path, data: Path, gluster: Gluster) -> None:
    """libgfapi takes ten seconds to close what it opened, whoever has it."""
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="mounted", path=f"{scratch}/mnt", **share)
    host.ok("volume", pool="mounted", name="base.raw", format="raw", capacity=str(len(DATA)))
    host.ok("pool_netfs", name="mounted", state="absent")
    host.ok("pool_gluster", name="vms", source_name=gluster.volume, hosts=[{"name": gluster.host}])
    brick = gluster.root / "bricks" / gluster.volume
    names = (f"new{number}" for number in itertools.count())
    place = Place(
        *(host, "gluster", "vms", "base.raw", "raw", lambda one: of_device(str(brick / one)), names, scratch), slow=True
    )
    run_all(place)


def test_iscsi_direct(host: Host, scratch: Path, data: Path, iscsi: Target) -> None:
    pool = {"name": "luns", "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool, hosts=[{"name": iscsi.host, "port": iscsi.port}])
    url = f"iscsi://{iscsi.host}:{iscsi.port}/{iscsi.iqn_open}/1"
    names = iter([f"unit:0:0:{number}" for number in range(5, 20)])
    place = Place(
        host, "iscsi-direct", "luns", "unit:0:0:1", "raw", lambda one: of_image("-f", "raw", url), names, scratch
    )
    run_all(place)
