# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools on real storage servers: Ceph with cephx, iSCSI with and without CHAP, Gluster both ways."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import Host, change_while_active, connected, walk_through_states, within
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import domain_xml
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.silent import SilentServer, closed_port, free_address

SOON = 60  # seconds, of which the servers' own clients take more before they give up


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def hung(run_root: Path) -> Iterator[Host]:
    """A hypervisor of the test's own: its libvirtd will be stuck on a server for half a minute."""
    server = Libvirtd(run_root / "hung")
    server.patience = 0.1
    with server:
        yield Host(server.uri, server.shared)


# Ceph


@pytest.fixture
def rbd(ceph: Ceph) -> dict[str, Any]:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    auth = {"username": "vms", "secret_usage": "vms-key"}
    ceph.add_user("vms", "rbd")
    return {"name": "vms", "source_name": "rbd", "hosts": monitors, "auth": auth}


def identity(host: Host, name: str) -> str:
    """What storage a pool stands on, as the module tells it."""
    (found,) = host.ok("pool_info", names=[name], identity=True)["pools"]
    assert found["identity"], found["identity_unknown"]
    return str(found["identity"])


def cephx(host: Host, value: str) -> None:
    host.ok("secret", usage="ceph", usage_name="vms-key", value=value)


def test_rbd_states(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(host, ceph.key("client.vms"))
    walk_through_states(host, "pool_rbd", rbd, born=["define"], up=["start"])


def test_rbd_storage_is_told_by_its_cluster(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    """A client that may do no more than use the pool sees it."""
    cephx(host, ceph.key("client.vms"))
    host.ok("pool_rbd", **rbd)
    assert identity(host, "vms") == f"Ceph cluster {ceph.run('ceph', 'fsid').strip()}, pool {rbd['source_name']}"


def test_rbd_key_is_proven_or_comes_back(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    old, unknown = ceph.key("client.vms"), ceph.key()
    cephx(host, old)
    host.ok("pool_rbd", **rbd)
    rotated: dict[str, Any] = {"usage": "ceph", "usage_name": "vms-key", "prove": True}
    failed = host.failed("secret", "not_proven", "'vms'", "the old value is back", **rotated, value=unknown)
    assert failed["actions"] == []
    assert host.ok("pool_info")["pools"][0]["state"] == "active"
    host.unchanged("secret", **rotated, value=old)
    ceph.run("ceph", "auth", "del", "client.vms")
    ceph.add_user("vms", "rbd")
    new = ceph.key("client.vms")
    assert new != old
    host.converge("secret", ["set_value", "prove"], **rotated, value=new)
    assert host.ok("volume", pool="vms", name="after", capacity="1MiB")["changed"]


def test_rbd_changes_while_active(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(host, ceph.key("client.vms"))
    options = {"config_options": {"client_mount_timeout": "5"}, "refresh_allocation": "capacity"}
    change_while_active(host, "pool_rbd", rbd, **options)
    plain = {**rbd, **options, "config_options": {}}
    host.ok("pool_rbd", **plain, restart=True)
    assert "client_mount_timeout" not in host.pool_xml("vms")


def test_rbd_secret_by_uuid_and_from_a_keyring(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    uuid = "2b7e6f3a-6d0b-4a59-9b0a-27b3e8f3c001"
    keyring = {"keyring_file": str(ceph.keyring("client.vms")), "keyring_entity": "client.vms"}
    host.converge("secret", ["define", "set_value"], uuid, usage="ceph", usage_name="vms-key", uuid=uuid, **keyring)
    by_uuid = {**rbd, "auth": {"username": "vms", "secret_uuid": uuid}}
    host.converge("pool_rbd", ["define", "start"], **by_uuid)
    assert host.ok("pool_rbd", **rbd)["actions"] == ["define"], "by usage is another way to name it"


@pytest.fixture
def eraser(ceph: Ceph) -> Iterator[str]:
    """The key of a user who may do all with the pool scratch."""
    ceph.add_pool("scratch")
    yield ceph.key(ceph.add_user("eraser", "scratch"))
    ceph.remove_pool("scratch")


def test_rbd_delete_data_gives_up_the_images(host: Host, rbd: dict[str, Any], ceph: Ceph, eraser: str) -> None:
    host.ok("secret", usage="ceph", usage_name="eraser", value=eraser)
    pool = {**rbd, "source_name": "scratch", "auth": {"username": "eraser", "secret_usage": "eraser"}}
    host.ok("pool_rbd", **pool)
    host.ok("volume", pool="vms", name="one", capacity="8MiB")
    ceph.run("rbd", "create", "--size", "8", "scratch/made-outside")
    gone = {"name": "vms", "state": "absent"}
    host.converge("pool_rbd", ["delete_volumes", "stop", "undefine"], "DESTROYS DATA", delete_data=True, **gone)
    assert ceph.run("rbd", "ls", "scratch").split() == []


def test_rbd_source_twice(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(host, ceph.key("client.vms"))
    host.ok("pool_rbd", **rbd)
    host.refused("pool_rbd", "source_conflict", "'vms'", **{**rbd, "name": "second"})


def test_rbd_secret_that_is_not_there(host: Host, rbd: dict[str, Any]) -> None:
    host.refused("pool_rbd", "no_secret", "'vms-key'", "secret module", **rbd)


QUICK = {"client_mount_timeout": "1", "rados_mon_op_timeout": "1", "rados_osd_op_timeout": "1"}


def test_rbd_wrong_key(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    """Ceph is told to give up soon; libvirt's own words are a file that is not there."""
    cephx(host, ceph.key("client.admin"))
    before = host.state()
    with within(SOON):
        host.failed("pool_rbd", "backend_refused", "client.vms", "did not succeed", config_options=QUICK, **rbd)
    assert host.state() == before, "nothing half made is left"
    cephx(host, ceph.key("client.vms"))
    host.ok("pool_rbd", config_options=QUICK, **rbd)


def test_rbd_wrong_key_with_the_time_that_ceph_takes(hung: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(hung, ceph.key("client.admin"))
    with within(SOON):
        hung.failed("pool_rbd", "timeout", "3 s", "client.vms", "did not succeed", wait_timeout=3, **rbd)


def test_rbd_login_without_auth(host: Host, rbd: dict[str, Any]) -> None:
    del rbd["auth"]
    with within(SOON):
        host.failed("pool_rbd", "backend_refused", "give auth", config_options=QUICK, **rbd)


def test_rbd_pool_that_ceph_does_not_have(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(host, ceph.key("client.vms"))
    with within(SOON):
        host.failed("pool_rbd", "backend_refused", "nothing-here", **{**rbd, "source_name": "nothing-here"})


def test_rbd_dead_monitors(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(host, ceph.key("client.vms"))
    port = closed_port()
    with within(SOON):
        host.refused(
            "pool_rbd", "unreachable", f"127.0.0.1:{port}", **{**rbd, "hosts": [{"name": "127.0.0.1", "port": port}]}
        )
    monitors = [{"name": "127.0.0.1", "port": port}, *rbd["hosts"]]
    host.ok("pool_rbd", **{**rbd, "hosts": monitors})  # one that answers is enough


def test_rbd_silent_monitor(hung: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    cephx(hung, ceph.key("client.vms"))
    with SilentServer() as silent, within(SOON):
        hosts = [{"name": silent.host, "port": silent.port}]
        hung.failed("pool_rbd", "timeout", "2 s", wait_timeout=2, **{**rbd, "hosts": hosts})
        assert silent.connections >= 1


# iSCSI


def iscsi_direct(target: Target, **more: Any) -> dict[str, Any]:
    hosts = [{"name": target.host, "port": target.port}]
    return {"name": "luns", "hosts": hosts, "target_iqn": target.iqn_open, "initiator_iqn": target.initiator, **more}


def with_chap(target: Target) -> dict[str, Any]:
    auth = {"username": target.user, "secret_usage": target.iqn_chap}
    return iscsi_direct(target, target_iqn=target.iqn_chap, auth=auth)


def chap(host: Host, target: Target, value: str) -> None:
    host.ok("secret", usage="iscsi", usage_name=target.iqn_chap, value=value)


@pytest.mark.parametrize("login", [False, True], ids=["open", "chap"])
def test_iscsi_direct_states(host: Host, iscsi: Target, login: bool) -> None:
    chap(host, iscsi, iscsi.password)
    pool = with_chap(iscsi) if login else iscsi_direct(iscsi)
    walk_through_states(host, "pool_iscsi_direct", pool, born=["define"], up=["start"])


def test_iscsi_direct_changes_while_active(host: Host, iscsi: Target) -> None:
    other = "iqn.2026-01.storage.kvm:another-initiator"
    change_while_active(host, "pool_iscsi_direct", iscsi_direct(iscsi), initiator_iqn=other)


def test_iscsi_direct_wrong_chap(host: Host, iscsi: Target) -> None:
    chap(host, iscsi, "not-the-password")
    before = host.state()
    with within(SOON):
        failed = host.failed("pool_iscsi_direct", "backend_refused", "CHAP", repr(iscsi.user), **with_chap(iscsi))
    assert "not-the-password" not in str(failed)
    assert host.state() == before, "nothing half made is left"
    without = {key: value for key, value in with_chap(iscsi).items() if key != "auth"}
    host.failed("pool_iscsi_direct", "backend_refused", "give auth", **without)
    chap(host, iscsi, iscsi.password)
    host.ok("pool_iscsi_direct", **with_chap(iscsi))


def test_iscsi_direct_password_is_proven_or_comes_back(host: Host, iscsi: Target) -> None:
    chap(host, iscsi, iscsi.password)
    host.ok("pool_iscsi_direct", **with_chap(iscsi))
    before = host.state()
    rotated = {"usage": "iscsi", "usage_name": with_chap(iscsi)["auth"]["secret_usage"], "prove": True}
    failed = host.failed("secret", "not_proven", "CHAP", "'luns'", value="not-the-password", **rotated)
    assert "not-the-password" not in str(failed)
    assert host.state() == before
    host.unchanged("secret", value=iscsi.password, **rotated)


def test_iscsi_direct_target_that_is_not_there(host: Host, iscsi: Target) -> None:
    nowhere = iscsi_direct(iscsi, target_iqn="iqn.2026-01.storage.kvm:nowhere")
    host.failed("pool_iscsi_direct", "backend_refused", "there is no target", **nowhere)


def test_iscsi_direct_dead_portal(host: Host, iscsi: Target) -> None:
    port = closed_port()
    with within(SOON):
        dead = iscsi_direct(iscsi, hosts=[{"name": "127.0.0.1", "port": port}])
        host.refused("pool_iscsi_direct", "unreachable", f"127.0.0.1:{port}", **dead)


def test_iscsi_direct_silent_portal(hung: Host, iscsi: Target) -> None:
    with SilentServer() as silent, within(SOON):
        pool = iscsi_direct(iscsi, hosts=[{"name": silent.host, "port": silent.port}])
        hung.failed("pool_iscsi_direct", "timeout", "2 s", wait_timeout=2, **pool)


def test_iscsi_direct_data_is_the_arrays(host: Host, iscsi: Target) -> None:
    host.ok("pool_iscsi_direct", **iscsi_direct(iscsi))
    host.refused("pool_iscsi_direct", "unsupported", "LUNs", name="luns", state="absent", delete_data=True)


# Gluster


def netfs(gluster: Gluster, scratch: Path, **more: Any) -> dict[str, Any]:
    hosts = [{"name": gluster.host}]
    share = {"hosts": hosts, "source_path": gluster.volume, "source_format": "glusterfs"}
    return {"name": "shared", "path": f"{scratch}/mnt", **share, **more}


def test_netfs_states(host: Host, gluster: Gluster, scratch: Path) -> None:
    walk_through_states(host, "pool_netfs", netfs(gluster, scratch), born=["define", "build"], up=["start"])


def test_netfs_storage_is_told_by_its_bricks(host: Host, gluster: Gluster, scratch: Path) -> None:
    host.ok("pool_netfs", **netfs(gluster, scratch))
    place = re.search(r"Brick1: [^:]*:(\S+)", gluster.run("volume", "info", gluster.volume))
    assert place
    assert identity(host, "shared") == f"Gluster volume of {os.uname().nodename}:{place[1]}, inode 1"


def test_netfs_changes_while_active(host: Host, gluster: Gluster, scratch: Path) -> None:
    change_while_active(host, "pool_netfs", netfs(gluster, scratch), mount_options=["log-level=ERROR"])


def test_netfs_dead_and_silent_server(host: Host, hung: Host, gluster: Gluster, scratch: Path) -> None:
    dead = free_address(24007)
    with within(SOON):
        pool = netfs(gluster, scratch, hosts=[{"name": dead}])
        host.refused("pool_netfs", "unreachable", f"{dead}:24007", **pool)
    with SilentServer(dead, 24007), within(SOON):
        pool = netfs(gluster, hung.shared or scratch, hosts=[{"name": dead}])
        hung.failed("pool_netfs", "timeout", "2 s", wait_timeout=2, **pool)


def test_netfs_share_that_is_not_there(host: Host, gluster: Gluster, scratch: Path) -> None:
    pool = netfs(gluster, scratch, source_path="nothing-here")
    host.failed("pool_netfs", "backend_refused", "nothing-here", **pool)


def test_gluster_by_libgfapi(host: Host, gluster: Gluster, scratch: Path) -> None:
    """libgfapi takes ten seconds to connect, so this is all in one."""
    host.ok("pool_netfs", **netfs(gluster, scratch))
    host.ok("volume", pool="shared", name="disk.raw", capacity="1MiB", format="raw")
    host.ok("pool_netfs", name="shared", state="absent")
    pool = {"name": "native", "source_name": gluster.volume, "hosts": [{"name": gluster.host}], "source_path": "/"}
    host.converge("pool_gluster", ["define"], state="inactive", **pool)
    predicted = host.ok("pool_gluster", check=True, **pool)
    done = host.ok("pool_gluster", wait_timeout=120, **pool)
    assert predicted["actions"] == done["actions"] == ["start"]
    host.unchanged("pool_gluster", **pool)
    opens = [mock.patch.object(libvirt.virStoragePool, name) for name in ("create", "refresh")]
    with opens[0] as create, opens[1] as refresh:
        host.refused("volume", "unsupported", "netfs", pool="native", name="new.raw", capacity="1MiB")
    assert not create.called and not refresh.called, "it is not opened once more for that"
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<source protocol='gluster' name='{gluster.volume}/disk.raw'><host name='{gluster.host}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk))
        host.refused("volume", "in_use", "'web01' (defined)", pool="native", name="disk.raw", state="absent")
        connection.lookupByName("web01").undefine()
    host.ok("volume", pool="native", name="disk.raw", state="absent")
    assert host.volumes("native") == []
    host.converge("pool_gluster", ["stop", "undefine"], name="native", state="absent")
