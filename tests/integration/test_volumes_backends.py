# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes on every backend that has a real server here: made, grown and deleted where that can be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rados
import rbd

from tests.integration.helpers import MIB, Host
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


def files_live(host: Host, pool: str) -> None:
    """A raw file and a qcow2 with an overlay, from nothing to nothing."""
    before = host.state()
    for name, form in (("disk.raw", "raw"), ("base.qcow2", "qcow2")):
        wanted = {"pool": pool, "name": name, "format": form}
        host.converge("volume", ["create"], "capacity", **wanted, capacity="8MiB")
        host.converge("volume", ["resize"], "16.0 MiB", **wanted, capacity="16MiB")
        host.refused("volume", "would_shrink", **wanted, capacity="8MiB")
    overlay = {"pool": pool, "name": "over.qcow2", "format": "qcow2"}
    host.converge("volume", ["create"], **overlay, backing={"volume": "base.qcow2", "format": "qcow2"})
    host.refused("volume", "has_overlays", f"{pool}/over.qcow2", pool=pool, name="base.qcow2", state="absent")
    for name in ("over.qcow2", "base.qcow2", "disk.raw"):
        host.converge("volume", ["delete"], pool=pool, name=name, state="absent")
    assert host.state() == before


@pytest.mark.parametrize(("form", "size"), [("ext4", 128 << 20), ("xfs", 320 << 20)])
def test_fs(host: Host, scratch: Path, loop_device: Any, form: str, size: int) -> None:
    device = loop_device(size).device
    host.ok("pool_fs", name="data", path=f"{scratch}/data", device=device, source_format=form, build="if_blank")
    files_live(host, "data")
    for preallocation in ("falloc", "full"):
        wanted = {"pool": "data", "name": "disk", "format": "qcow2", "preallocation": preallocation}
        host.converge("volume", ["create"], **wanted, capacity="4MiB")
        host.converge("volume", ["delete"], pool="data", name="disk", state="absent")
    host.converge(
        "volume", ["create", "protect"], pool="data", name="base.raw", format="raw", capacity="1MiB", immutable=True
    )
    host.refused("volume", "immutable", pool="data", name="base.raw", state="absent")
    host.converge("volume", ["release", "delete"], pool="data", name="base.raw", state="absent", immutable=False)


def test_netfs(host: Host, scratch: Path, gluster: Gluster) -> None:
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="shared", path=f"{scratch}/mnt", **share)
    files_live(host, "shared")


@pytest.mark.parametrize(("label", "granule"), [("gpt", MIB), ("dos", 8 * MIB)])
def test_disk(host: Host, disk_node: DiskNode, label: str, granule: int) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format=label, build="if_blank")
    before = host.state()
    one, two, nine = (f"{disk_node.node.name}{number}" for number in (1, 2, 9))
    host.refused("volume", "bad_name", f"'{one}'", pool="data", name=nine, capacity="32MiB")
    host.refused("volume", "bad_name", f"'{one}'", pool="data", name="web01", capacity="32MiB")
    for name in (one, two):
        host.converge("volume", ["create"], pool="data", name=name, capacity="32000001")
        there = int(host.volume("data", name).findtext("capacity"))
        assert 32000001 <= there < 32000001 + granule, there
    host.refused("volume", "unsupported", "partition", pool="data", name=one, capacity="64MiB")
    host.refused("volume", "would_shrink", pool="data", name=one, capacity="4MiB")
    for name in (two, one):
        host.converge("volume", ["delete"], pool="data", name=name, state="absent")
    assert host.state() == before


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Host:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    return host


def test_rbd(vms: Host, ceph: Ceph) -> None:
    before = vms.state()
    wanted = {"pool": "vms", "name": "web01"}
    done = vms.converge("volume", ["create"], "capacity", **wanted, capacity="8MiB", format="raw")
    assert done["pool"] == "vms"
    assert json.loads(ceph.run("rbd", "info", "--format", "json", "rbd/web01"))["size"] == 8 * MIB
    vms.unchanged("volume", **wanted, capacity="8MiB")
    vms.converge("volume", ["resize"], "16.0 MiB", **wanted, capacity="16MiB")
    assert json.loads(ceph.run("rbd", "info", "--format", "json", "rbd/web01"))["size"] == 16 * MIB
    vms.refused("volume", "would_shrink", **wanted, capacity="8MiB")
    vms.refused("volume", "unsupported", "raw", pool="vms", name="web02", format="qcow2", capacity="8MiB")
    vms.converge("volume", ["delete"], **wanted, state="absent")
    assert vms.state() == before


def test_rbd_sizes_that_are_no_whole_object(vms: Host, ceph: Ceph) -> None:
    for size in ("10000001", "512", "1"):
        wanted = {"pool": "vms", "name": "odd"}
        vms.converge("volume", ["create"], **wanted, capacity=size)
        vms.converge("volume", ["delete"], **wanted, state="absent")


def test_rbd_image_made_and_removed_outside(vms: Host, ceph: Ceph) -> None:
    """libvirt lists the images of a pool when it is refreshed."""
    ceph.run("rbd", "create", "--size", "8", "rbd/theirs")
    wanted = {"pool": "vms", "name": "theirs", "capacity": "8MiB"}
    vms.ok("volume_info", pool="vms", refresh=True)
    vms.unchanged("volume", **wanted)
    ceph.run("rbd", "rm", "rbd/theirs")
    vms.ok("volume_info", pool="vms", refresh=True)
    vms.unchanged("volume", pool="vms", name="theirs", state="absent")


def test_rbd_image_with_a_snapshot_is_not_half_deleted(vms: Host, ceph: Ceph) -> None:
    wanted = {"pool": "vms", "name": "snapped"}
    vms.ok("volume", **wanted, capacity="8MiB")
    ceph.run("rbd", "snap", "create", "rbd/snapped@one")
    result = vms.run("volume", **wanted, state="absent")
    assert result.get("failed"), result
    assert "snapped" in ceph.run("rbd", "ls", "rbd").split()
    ceph.run("rbd", "snap", "rm", "rbd/snapped@one")
    vms.converge("volume", ["delete"], **wanted, state="absent")


def test_rbd_image_that_is_immutable(vms: Host, ceph: Ceph) -> None:
    """A protected snapshot keeps it, by the rbd command and with the pool's own login."""
    wanted = {"pool": "vms", "name": "base"}
    vms.converge("volume", ["create", "protect"], "immutable", **wanted, capacity="8MiB", immutable=True)
    (snapshot,) = json.loads(ceph.run("rbd", "snap", "ls", "--format", "json", "rbd/base"))
    assert str(snapshot["protected"]).lower() == "true"
    vms.refused("volume", "immutable", "base", **wanted, state="absent")
    ceph.run("rbd", "snap", "unprotect", f"rbd/base@{snapshot['name']}")  # as a killed run would leave it
    vms.converge("volume", ["protect"], **wanted, immutable=True)
    vms.converge("volume", ["release"], **wanted, immutable=False)
    assert json.loads(ceph.run("rbd", "snap", "ls", "--format", "json", "rbd/base")) == []
    vms.converge("volume", ["delete"], **wanted, state="absent")


def test_rbd_image_that_somebody_has_open(vms: Host, ceph: Ceph) -> None:
    """As the guest of another host does: predicted, too, and not only told by Ceph when it is to go."""
    wanted = {"pool": "vms", "name": "open"}
    vms.ok("volume", **wanted, capacity="8MiB")
    login = {"conffile": f"{ceph.root}/ceph.conf", "conf": {"keyring": str(ceph.keyring())}}
    with rados.Rados(**login) as cluster, cluster.open_ioctx("rbd") as pool, rbd.Image(pool, "open"):
        vms.refused("volume", "in_use", "open at", **wanted, state="absent")
    vms.converge("volume", ["delete"], **wanted, state="absent")


def test_iscsi_direct(host: Host, iscsi: Target) -> None:
    hosts = [{"name": iscsi.host, "port": iscsi.port}]
    pool = {"name": "luns", "hosts": hosts, "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool)
    assert "unit:0:0:1" in host.volumes("luns")
    host.unchanged("volume", pool="luns", name="unit:0:0:1")
    host.refused("volume", "unsupported", "LUN", pool="luns", name="unit:0:0:9", capacity="8MiB")
    host.refused("volume", "unsupported", "LUN", pool="luns", name="unit:0:0:1", capacity="512MiB")
    host.refused("volume", "unsupported", "LUN", pool="luns", name="unit:0:0:1", state="absent")
