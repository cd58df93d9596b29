# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The servers really serve: what the other tests stand on, through libvirt's own API and without the collection."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from tests.servers.ceph import Ceph, CephFS
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import UDEVADM, DiskNode, LoopDevice, letters, loop_backing
from tests.servers.process import Server, ServerError, need, wait_for
from tests.servers.session import Session
from tests.servers.silent import SilentServer, closed_port, free_address, free_port
from tests.servers.sweep import Journal, claim, mounts_below, start_time, sweep

LoopDeviceFactory = Callable[..., LoopDevice]

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def start_pool(conn: libvirt.virConnect, xml: str, build: int | None = None) -> libvirt.virStoragePool:
    pool = conn.storagePoolDefineXML(xml)
    if build is not None:
        pool.build(build)
    pool.create()
    return pool


def make_volume(pool: libvirt.virStoragePool, name: str, capacity: int = 8 * MIB) -> libvirt.virStorageVol:
    xml = f"<volume><name>{name}</name><capacity>{capacity}</capacity><allocation>0</allocation></volume>"
    return pool.createXML(xml)


def make_secret(conn: libvirt.virConnect, kind: str, name: str, value: bytes) -> str:
    """Define a secret; give back its UUID."""
    usage = {"ceph": "name", "iscsi": "target"}[kind]
    xml = f"<secret private='yes'><usage type='{kind}'><{usage}>{name}</{usage}></usage></secret>"
    secret = conn.secretDefineXML(xml)
    secret.setValue(value)
    return str(secret.UUIDString())


def processes_of(root: Path) -> list[str]:
    """Command lines of all processes that know of a root, sought without the journal."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{root}/" in words and entry.parent.name != str(os.getpid()):
            found.append(words)
    return found


# Hypervisors


@pytest.mark.usefixtures("fresh_hypervisor")
def test_dir_pool(conn: libvirt.virConnect, scratch: Path) -> None:
    xml = f"<pool type='dir'><name>files</name><target><path>{scratch}/files</path></target></pool>"
    make_volume(start_pool(conn, xml, build=0), "disk.raw")
    assert (scratch / "files/disk.raw").stat().st_size == 8 * MIB


def test_fs_pool_is_mounted_for_all(
    fresh_hypervisor: Libvirtd, conn: libvirt.virConnect, scratch: Path, loop_device: LoopDeviceFactory
) -> None:
    device = loop_device().device
    xml = (
        f"<pool type='fs'><name>disk</name><source><device path='{device}'/><format type='ext4'/></source>"
        f"<target><path>{scratch}/mnt</path></target></pool>"
    )
    pool = start_pool(conn, xml, build=libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)
    make_volume(pool, "disk.raw")
    assert os.path.ismount(scratch / "mnt")
    assert (scratch / "mnt/disk.raw").stat().st_size == 8 * MIB
    pool.destroy()
    assert not os.path.ismount(scratch / "mnt")


@pytest.mark.parametrize("label", ["gpt", "dos"])
@pytest.mark.usefixtures("fresh_hypervisor")
def test_disk_pool_from_label_to_deletion(conn: libvirt.virConnect, disk_node: DiskNode, label: str) -> None:
    xml = (
        f"<pool type='disk'><name>disk</name><source><device path='{disk_node.node}'/><format type='{label}'/></source>"
        "<target><path>/dev</path></target></pool>"
    )
    pool = start_pool(conn, xml, build=libvirt.VIR_STORAGE_POOL_BUILD_OVERWRITE)
    first, second = (make_volume(pool, f"{disk_node.node.name}{number}", 64 * MIB) for number in (1, 2))
    Path(second.path()).write_bytes(b"data")
    second.delete()
    assert [volume.name() for volume in pool.listAllVolumes()] == [first.name()]
    assert not Path(f"{disk_node.node}2").exists()
    first.delete()
    pool.destroy()
    pool.delete()


def test_guest_holds_its_disk_and_outlives_the_daemon(fresh_hypervisor: Libvirtd, scratch: Path) -> None:
    disk = scratch / "disk.raw"
    disk.write_bytes(bytes(MIB))
    start_guest(fresh_hypervisor.uri, "guest", disk_xml(str(disk)))
    resize = [need("qemu-img"), "resize", "-f", "raw", disk, "2M"]
    refused = subprocess.run(resize, capture_output=True, text=True, check=False)
    assert 'Failed to get "write" lock' in refused.stderr
    fresh_hypervisor.restart()
    fresh_hypervisor.kill()
    assert fresh_hypervisor.pid is None
    fresh_hypervisor.start()
    conn = libvirt.open(fresh_hypervisor.uri)
    guest = conn.lookupByName("guest")
    assert guest.isActive()
    guest.destroy()
    assert conn.listAllDomains() == []
    conn.close()


def test_two_hypervisors_do_not_see_each_other(
    fresh_hypervisor: Libvirtd, conn: libvirt.virConnect, run_root: Path
) -> None:
    xml = "<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>"
    with Libvirtd(run_root / "second") as second:
        other = libvirt.open(second.uri)
        conn.storagePoolDefineXML(xml.format(name="first", path=fresh_hypervisor.shared))
        other.storagePoolDefineXML(xml.format(name="second", path=fresh_hypervisor.shared))
        assert [pool.name() for pool in conn.listAllStoragePools()] == ["first"]
        assert [pool.name() for pool in other.listAllStoragePools()] == ["second"]
        assert host_uuid(conn) != host_uuid(other)
        other.close()


def host_uuid(conn: libvirt.virConnect) -> str:
    return str(conn.getCapabilities()).partition("<uuid>")[2].partition("</uuid>")[0]


def test_reboot_starts_what_has_autostart(run_root: Path, loop_device: LoopDeviceFactory) -> None:
    with Libvirtd(run_root / "rebooted") as server:
        server.run("mkfs.ext4", "-q", device := loop_device().device)
        target = server.shared / "mnt"
        server.virsh("pool-define-as", "disk", "fs", "--source-dev", device, "--target", str(target))
        server.virsh("pool-build", "disk")
        server.virsh("pool-start", "disk")
        server.restart()
        assert os.path.ismount(target)
        server.stop()
        server.start()
        assert not os.path.ismount(target)
        server.virsh("pool-autostart", "disk")
        server.stop()
        server.start()
        assert os.path.ismount(target)


def test_daemon_that_does_not_end_is_killed(run_root: Path) -> None:
    with Libvirtd(run_root / "stuck") as server:
        server.patience = 0.2
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        server.restart()
        assert server.virsh("pool-list", "--all").split() == []


def test_reset_forgets_all(run_root: Path) -> None:
    with Libvirtd(run_root / "reset") as server:
        conn = libvirt.open(server.uri)
        path = server.shared / "files"
        start_pool(conn, f"<pool type='dir'><name>x</name><target><path>{path}</path></target></pool>", build=0)
        conn.close()
        server.reset()
        conn = libvirt.open(server.uri)
        assert conn.listAllStoragePools(0) == []
        assert list(server.shared.iterdir()) == []
        conn.close()


def test_session_runs_as_a_user(session_daemon: Session) -> None:
    conn = libvirt.open(session_daemon.uri)
    path = session_daemon.home / "files"
    pool = start_pool(conn, f"<pool type='dir'><name>f</name><target><path>{path}</path></target></pool>", build=0)
    make_volume(pool, "disk.raw")
    assert (path / "disk.raw").owner() == session_daemon.user
    start_guest(conn, "guest", disk_xml(str(path / "disk.raw"))).destroy()
    pool.destroy()
    conn.close()
    assert "f" in session_daemon.run("virsh", "--connect", session_daemon.uri, "pool-list", "--all")


# Storage servers


@pytest.mark.usefixtures("fresh_hypervisor")
def test_rbd_pool_with_least_privilege(conn: libvirt.virConnect, ceph: Ceph) -> None:
    user = ceph.add_user("vms", "rbd")
    secret = make_secret(conn, "ceph", "vms", base64.b64decode(ceph.key(user)))
    host, port = ceph.monitors[0]
    xml = (
        f"<pool type='rbd'><name>vms</name><source><name>rbd</name><host name='{host}' port='{port}'/>"
        f"<auth type='ceph' username='vms'><secret uuid='{secret}'/></auth></source></pool>"
    )
    pool = start_pool(conn, xml)
    assert pool.info()[1] > 0
    volume = make_volume(pool, "disk")
    assert "disk" in ceph.run("rbd", "ls", "rbd").split()
    volume.delete()
    ceph.add_pool("other")
    with pytest.raises(ServerError, match="Operation not permitted"):
        ceph.run("rbd", "create", "--id", "vms", "--size", "1", "other/disk")
    ceph.remove_pool("other")


@pytest.mark.usefixtures("fresh_hypervisor")
def test_guest_on_rbd_is_a_watcher(conn: libvirt.virConnect, ceph: Ceph) -> None:
    secret = make_secret(conn, "ceph", "admin", base64.b64decode(ceph.key("client.admin")))
    ceph.run("rbd", "create", "--size", "8", "rbd/guest")
    host, port = ceph.monitors[0]
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        f"<auth username='admin'><secret type='ceph' uuid='{secret}'/></auth>"
        f"<source protocol='rbd' name='rbd/guest'><host name='{host}' port='{port}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    guest = start_guest(conn, "guest", disk)
    assert len(json.loads(ceph.run("rbd", "status", "--format", "json", "rbd/guest"))["watchers"]) == 1
    guest.destroy()


@pytest.mark.usefixtures("fresh_hypervisor")
def test_dir_pool_on_cephfs(conn: libvirt.virConnect, cephfs: CephFS) -> None:
    xml = f"<pool type='dir'><name>cephfs</name><target><path>{cephfs.path}</path></target></pool>"
    make_volume(start_pool(conn, xml), "disk.raw")
    assert (cephfs.path / "disk.raw").stat().st_size == 8 * MIB


@pytest.mark.usefixtures("fresh_hypervisor")
def test_iscsi_direct_pool_open(conn: libvirt.virConnect, iscsi: Target) -> None:
    assert luns(start_pool(conn, iscsi_direct(iscsi, iscsi.iqn_open))) == [256 * MIB - 512] * 2


@pytest.mark.usefixtures("fresh_hypervisor")
def test_iscsi_direct_pool_with_chap(conn: libvirt.virConnect, iscsi: Target) -> None:
    secret = make_secret(conn, "iscsi", iscsi.iqn_chap, iscsi.password.encode())
    auth = f"<auth type='chap' username='{iscsi.user}'><secret uuid='{secret}'/></auth>"
    assert luns(start_pool(conn, iscsi_direct(iscsi, iscsi.iqn_chap, auth))) == [256 * MIB - 512]
    conn.secretLookupByUUIDString(secret).setValue(b"wrong-password")
    conn.storagePoolLookupByName("luns").destroy()
    with pytest.raises(libvirt.libvirtError, match="Authentication failure"):
        conn.storagePoolLookupByName("luns").create()


def test_iscsi_lun_comes_and_goes(run_root: Path) -> None:
    with Target(run_root / "small-iscsi", open_sizes=[MIB], chap_sizes=[]) as target:
        image = target.add_lun(target.iqn_open, 2 * MIB)
        assert f"Backing store path: {image}" in target.tgtadm("--lld", "iscsi", "--op", "show", "--mode", "target")
        target.remove_lun(target.iqn_open, 2)
        assert str(image) not in target.tgtadm("--lld", "iscsi", "--op", "show", "--mode", "target")


def iscsi_direct(target: Target, iqn: str, auth: str = "") -> str:
    return (
        f"<pool type='iscsi-direct'><name>luns</name><source><host name='{target.host}' port='{target.port}'/>"
        f"<device path='{iqn}'/><initiator><iqn name='{target.initiator}'/></initiator>{auth}</source></pool>"
    )


def luns(pool: libvirt.virStoragePool) -> list[int]:
    """The capacities but for the controller's, which is 0."""
    return [capacity for volume in pool.listAllVolumes() if (capacity := volume.info()[1])]


@pytest.mark.usefixtures("fresh_hypervisor")
def test_netfs_pool_on_gluster(conn: libvirt.virConnect, gluster: Gluster, scratch: Path) -> None:
    xml = (
        f"<pool type='netfs'><name>shared</name><source><host name='{gluster.host}'/><dir path='{gluster.volume}'/>"
        f"<format type='glusterfs'/></source><target><path>{scratch}/mnt</path></target></pool>"
    )
    pool = start_pool(conn, xml, build=0)
    make_volume(pool, "disk.raw").delete()
    pool.destroy()


@pytest.mark.usefixtures("fresh_hypervisor")
def test_gluster_pool(conn: libvirt.virConnect, gluster: Gluster) -> None:
    xml = (
        f"<pool type='gluster'><name>native</name><source><name>{gluster.volume}</name><host name='{gluster.host}'/>"
        "<dir path='/'/></source></pool>"
    )
    pool = start_pool(conn, xml)
    assert pool.info()[1] > 0
    pool.destroy()


# Ports


def test_silent_server_takes_connections_and_says_nothing() -> None:
    with SilentServer() as server, socket.create_connection((server.host, server.port)) as client:
        client.sendall(b"hello")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        wait_for("the connection", lambda: server.connections == 1)


def test_closed_port_refuses() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()), timeout=60)


def test_free_ports_are_adjacent() -> None:
    first = free_port(count=2)
    for port in (first, first + 1):
        socket.create_server(("127.0.0.1", port)).close()


def test_what_is_free_is_given_out_once() -> None:
    """Also to another process, before anybody listens on it."""
    port, host = free_port(), free_address(24007)
    other = (
        "from unittest import mock; from tests.servers import silent\n"
        f"with mock.patch.object(silent, 'PORTS', range({port}, {port} + 2)):\n"
        "    try: print(silent.free_port())\n"
        "    except silent.ServerError: print('none')\n"
        f"with mock.patch('random.sample', return_value=[{host!r}]):\n"
        "    try: print(silent.free_address(24007))\n"
        "    except silent.ServerError: print('none')\n"
    )
    done = subprocess.run([sys.executable, "-c", other], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["none", "none"]


# What is left behind


KILLED_RUN = """
    import sys, time
    from pathlib import Path
    from tests.servers.guest import disk_xml, start_guest
    from tests.servers.iscsi import Target
    from tests.servers.libvirtd import Libvirtd
    from tests.servers.loops import DiskNode, LoopDevice
    root = Path(sys.argv[1])
    hypervisor = Libvirtd(root / "libvirtd").start()
    Target(root / "iscsi").start()
    node = DiskNode(root / "node.img").attach()
    device = LoopDevice(root / "loop.img").attach().device
    hypervisor.run("mkfs.ext4", "-q", device)
    hypervisor.virsh("pool-define-as", "fs", "fs", "--source-dev", device, "--target", f"{hypervisor.shared}/mnt")
    hypervisor.virsh("pool-build", "fs")
    hypervisor.virsh("pool-start", "fs")
    hypervisor.virsh("vol-create-as", "fs", "disk.raw", "1M")
    start_guest(hypervisor.uri, "guest", disk_xml(f"{hypervisor.shared}/mnt/disk.raw"))
    print(node.node, device, flush=True)
    time.sleep(1000)
"""


def test_sweep_after_a_killed_run(run_root: Path) -> None:
    root = run_root / "killed"
    Journal(root).open()
    command = [sys.executable, "-c", textwrap.dedent(KILLED_RUN), str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        node, device = killed.stdout.readline().split()
        killed.send_signal(signal.SIGKILL)
    assert len(processes_of(root)) >= 3
    assert root / "libvirtd/shared/mnt" in mounts_below(root)
    removed = sweep(root)
    assert processes_of(root) == [], removed
    assert mounts_below(root) == []
    wait_for(device, lambda: loop_backing(device) is None)  # whoever looks at all disks may have it open
    assert not Path(node).exists()
    assert (root / "libvirtd/etc/storage/fs.xml").exists(), "stored data stays"
    assert sweep(root) == []


def test_next_start_removes_what_a_killed_run_left(run_root: Path) -> None:
    first = Libvirtd(run_root / "again").start()
    with Libvirtd(first.root) as second:
        assert first.pid is None
        assert second.pid is not None


def test_sweep_spares_a_pid_that_is_someone_elses_now(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.open()
    with subprocess.Popen(["/bin/sleep", "100"]) as bystander:
        journal.process(bystander.pid, "sleep")
        ours = json.loads(journal.path.read_text(encoding="utf-8"))
        other_start = {**ours, "start": ours["start"] - 1}
        other_boot = {**ours, "boot": "00000000-0000-0000-0000-000000000000"}
        torn = json.dumps(ours)[:20]
        lines = [json.dumps(other_start), json.dumps(other_boot), torn]
        journal.path.write_text("\n".join(lines), encoding="utf-8")
        assert sweep(tmp_path) == []
        assert start_time(bystander.pid) is not None
        bystander.kill()


def test_sweep_leaves_alone_what_is_not_ours(tmp_path: Path) -> None:
    assert sweep(tmp_path) == []
    assert not (tmp_path / "journal").exists()


def test_claims_do_not_collide_and_are_swept(tmp_path: Path) -> None:
    first, second = claim(tmp_path), claim(tmp_path)
    assert first.root != second.root
    server = Server(second.root)
    pid = server.spawn("sleep", "100", log=tmp_path / "log")
    second.release()  # as a kill would
    third = claim(tmp_path)
    assert third.root == second.root
    wait_for("sleep", lambda: start_time(pid) is None)
    for taken in (first, third):
        taken.release()


# Small things


def test_missing_program_is_an_error_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.process.PATH", "/nonexistent")
    with pytest.raises(ServerError, match="tgtd: not installed; apt-get install tgt"):
        need("tgtd")


def test_root_that_can_not_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="longer than 75 characters"):
        Target(tmp_path / ("x" * 80)).start()
    with pytest.raises(ServerError, match="lies below /run"):
        Libvirtd("/run/kvm.storage-refused")


def test_letters_count_as_the_kernel_does() -> None:
    assert [letters(number) for number in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_stand_in_for_udevadm_is_valid_shell() -> None:
    subprocess.run(["/bin/sh", "-n"], input=UDEVADM, text=True, check=True)


def test_command_line_brings_servers_up_and_down(run_root: Path) -> None:
    root = run_root / "by-hand"

    def servers(*argv: str) -> dict[str, dict[str, object]]:
        command = [sys.executable, "-m", "tests.servers", argv[0], str(root), *argv[1:]]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        answer: dict[str, dict[str, object]] = json.loads(done.stdout)
        return answer

    began = time.monotonic()
    facts = servers("up", "libvirtd", "libvirtd:second", "iscsi")
    assert sorted(facts) == ["iscsi", "libvirtd", "second"]
    assert servers("up", "libvirtd")["libvirtd"] == facts["libvirtd"], "what runs is left alone"
    assert all(server["up"] for server in servers("status").values())
    conn = libvirt.open(str(facts["second"]["uri"]))
    conn.close()
    assert Path(str(facts["iscsi"]["password_file"])).stat().st_mode & 0o077 == 0
    servers("down")
    assert servers("status") == {}
    assert processes_of(root) == []
    assert time.monotonic() - began < 120
