# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of every kind that a plain kernel has, with what a guest would see proven by checksums before and after."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import libvirt_qemu
import pytest

from ansible_collections.kvm.storage.plugins.module_utils import blockjob, commands, connection, volume_snapshot
from ansible_collections.kvm.storage.plugins.module_utils import snapshot_files as by_file
from tests.integration.faults.kill import alive_in, finish, in_child, kill_self, start, wait_until
from tests.integration.helpers import MIB, UTILS, Host, connected, make_image, qemu_img, switched_off
from tests.integration.test_image_permissions import exposed, loose
from tests.integration.tracing import Traced, whole_lines
from tests.servers.ceph import Ceph, CephFS
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd

SIZE = {"ext4": 128 << 20, "xfs": 320 << 20, "btrfs": 256 << 20}
SHARING = ("xfs", "btrfs")


@pytest.fixture(autouse=True)
def lock_folder(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOCK_FOLDER", str(run_root / "locks"))


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def made(host: Host, scratch: Path, loop_device: Any) -> Iterator[Callable[[str], Path]]:
    """Makes the pool `images` on a new file system; answers its directory."""
    mounted: list[Path] = []

    def make(form: str) -> Path:
        device = loop_device(SIZE[form]).device
        subprocess.run([f"mkfs.{form}", "-q", device], check=True)
        folder = scratch / "images"
        folder.mkdir()
        subprocess.run(["mount", device, folder], check=True)
        mounted.append(folder)
        host.ok("pool_dir", name="images", path=str(folder), cow=True)
        return folder

    yield make
    with connected(host.uri) as conn:
        for pool in conn.listAllStoragePools():
            if pool.isActive():
                pool.destroy()
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def images(host: Host, scratch: Path) -> Path:
    """A pool on whatever the tests run on."""
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    return scratch / "images"


DISK = {"qcow2": {"pool": "images", "name": "web", "format": "qcow2"}}
DISK["raw"] = {**DISK["qcow2"], "format": "raw"}


def snapshot(host: Host, name: str, form: str = "qcow2", **more: Any) -> dict[str, Any]:
    return host.ok("volume_snapshot", **DISK[form], snapshot=name, **more)


def listed(host: Host, form: str = "qcow2", **more: Any) -> list[dict[str, Any]]:
    return host.ok("volume_snapshot_info", **{**DISK[form], **more})["snapshots"]


def names(host: Host, form: str = "qcow2", **more: Any) -> list[str]:
    return [one["name"] for one in listed(host, form, **more)]


def write(path: Path | str, form: str, number: int) -> str:
    """What a guest writes: a pattern at places of its own and one that all share; answers the checksum of it all."""
    commands = [f"write -P {number} {number}M 1M", f"write -P {100 + number} 0 64k"]
    argv = [part for one in commands for part in ("-c", one)]
    subprocess.run(["qemu-io", "-f", form, *argv, str(path)], check=True, capture_output=True)
    return content(path, form)


def content(path: Path | str, form: str = "qcow2") -> str:
    """The checksum of what a guest would see."""
    target = f"/var/tmp/kvm.storage-content-{os.getpid()}-{threading.get_ident()}"
    try:
        command = ["qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), target]
        subprocess.run(command, check=True, capture_output=True)
        with open(target, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        Path(target).unlink(missing_ok=True)


def sound(path: Path | str) -> None:
    """The tables of a qcow2 agree with each other, leaked clusters aside."""
    finished = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(path)], check=False)
    assert finished.returncode in (0, 3), finished


# Every kind on every file system

KINDS = [
    *(("qcow2", "internal", form) for form in SIZE),
    *(("qcow2", "external", form) for form in SIZE),
    *(("raw", "reflink", form) for form in SHARING),
    *(("qcow2", "reflink", form) for form in SHARING),
    ("raw", "subvolume", "btrfs"),
]


@pytest.mark.parametrize(("form", "kind", "system"), KINDS)
def test_there_and_back(host: Host, made: Callable[[str], Path], form: str, kind: str, system: str) -> None:
    """Taken twice, reverted to either, and removed; the content is that of its time at each step."""
    folder = made(system)
    if kind == "subvolume":  # the root of a file system is one
        assert os.stat(folder).st_ino == 256
    disk, path = DISK[form], folder / "web"
    host.ok("volume", **disk, capacity="8MiB", permissions={"mode": "0640", "owner": "64055"})
    first = write(path, form, 1)
    how = {**disk, "kind": kind}
    host.converge("volume_snapshot", ["snapshot"], "snapshots:     one", snapshot="one", **how)
    assert content(path, form) == first
    second = write(path, form, 2)
    host.converge("volume_snapshot", ["snapshot"], "one, two", snapshot="two", **how)
    third = write(path, form, 3)
    assert len({first, second, third}) == 3
    assert [(one["name"], one["kind"], one["size"]) for one in listed(host, form)] == [
        ("one", kind, 8 * MIB),
        ("two", kind, 8 * MIB),
    ]
    for wanted, name in ((second, "two"), (first, "one"), (second, "two")):
        predicted = host.ok("volume_snapshot", check=True, snapshot=name, state="reverted", **disk)
        done = snapshot(host, name, form, state="reverted")
        assert predicted["actions"] == done["actions"] == ["revert"]
        assert content(path, form) == wanted
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o640, 64055)
        if form == "qcow2" and kind in ("internal", "external"):
            host.unchanged("volume_snapshot", snapshot=name, state="reverted", **disk)
        write(path, form, 4)
    last = content(path, form)
    host.converge("volume_snapshot", ["remove_snapshot"], snapshot="one", state="absent", **disk)
    assert content(path, form) == last
    snapshot(host, "two", form, state="reverted")
    assert content(path, form) == second
    host.converge("volume_snapshot", ["remove_snapshot"], snapshot="two", state="absent", **disk)
    assert content(path, form) == second
    if form == "qcow2":
        sound(path)
    assert listed(host, form) == []
    assert sorted(os.listdir(folder)) in (["lost+found", "web"], ["web"], [".snapshots", "web"])
    assert os.listdir(folder / ".snapshots") == [] if kind == "subvolume" else True


@pytest.mark.parametrize(
    ("form", "system", "kind"),
    [
        ("qcow2", "ext4", "internal"),
        ("qcow2", "xfs", "internal"),
        ("raw", "xfs", "reflink"),
        ("raw", "btrfs", "reflink"),
    ],
)
def test_auto_takes_what_is_there(host: Host, made: Callable[[str], Path], form: str, system: str, kind: str) -> None:
    made(system)
    host.ok("volume", **DISK[form], capacity="1MiB")
    assert snapshot(host, "one", form)["kind"] == kind
    host.unchanged("volume_snapshot", **DISK[form], snapshot="one")
    host.unchanged("volume_snapshot", **DISK[form], snapshot="one", kind=kind)
    host.refused("volume_snapshot", "cannot_change", f"is {kind}", **DISK[form], snapshot="one", kind="native")


def test_what_can_not_be_is_refused_with_a_way_out(host: Host, made: Callable[[str], Path]) -> None:
    made("ext4")
    raw, qcow2 = {**DISK["raw"], "name": "data"}, DISK["qcow2"]
    host.ok("volume", **raw, capacity="1MiB")
    host.ok("volume", **qcow2, capacity="1MiB")
    for code, word, args in (
        ("unsupported", "convert it to qcow2", {**raw, "snapshot": "one"}),
        ("unsupported", "misread", {**raw, "snapshot": "one", "kind": "external"}),
        ("unsupported", "no room", {**raw, "snapshot": "one", "kind": "internal"}),
        ("unsupported", "share blocks", {**raw, "snapshot": "one", "kind": "reflink"}),
        ("unsupported", "subvolume", {**raw, "snapshot": "one", "kind": "subvolume"}),
        ("unsupported", "not native", {**qcow2, "snapshot": "one", "kind": "native"}),
        ("unsupported", "leave size out", {**qcow2, "snapshot": "one", "size": "1MiB"}),
        ("no_snapshot", "'one'", {**qcow2, "snapshot": "one", "state": "reverted"}),
        ("format_undeclared", "give format", {"pool": "images", "name": "web", "snapshot": "one"}),
        ("no_volume", "not there", {**qcow2, "name": "none", "snapshot": "one"}),
        ("bad_name", "'a/b'", {**qcow2, "snapshot": "a/b"}),
        ("bad_name", "'a@b'", {**qcow2, "snapshot": "a@b"}),
        ("bad_name", "kvm.storage", {**qcow2, "snapshot": "kvm.storage-immutable"}),
        ("bad_value", "keep none", {**qcow2, "prefix": "a", "keep": {"last": 0}}),
        ("bad_value", "prefix", {**qcow2, "prefix": "", "keep": {"last": 1}}),
        ("bad_value", "state", {**qcow2, "prefix": "a", "keep": {"last": 1}, "snapshot": "one", "state": "absent"}),
    ):
        host.refused("volume_snapshot", code, word, **args)
    host.unchanged("volume_snapshot", **qcow2, snapshot="one", state="absent")
    host.unchanged("volume_snapshot", **{**qcow2, "name": "none"}, snapshot="one", state="absent")


def test_a_number_is_a_name_and_not_a_number(host: Host, images: Path) -> None:
    """qemu-img would take the name 1 for the first snapshot, whatever that is called."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    write(images / "web", "qcow2", 1)
    snapshot(host, "2")
    second = write(images / "web", "qcow2", 2)
    snapshot(host, "1")
    write(images / "web", "qcow2", 3)
    snapshot(host, "1", state="reverted")
    assert content(images / "web") == second
    snapshot(host, "1", state="absent")
    assert names(host) == ["2"]


@pytest.mark.parametrize(("kind", "system"), [("internal", "ext4"), ("internal", "xfs"), ("external", "ext4")])
def test_capacity_is_that_of_the_snapshot(host: Host, made: Callable[[str], Path], kind: str, system: str) -> None:
    folder = made(system)
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    first = write(folder / "web", "qcow2", 1)
    snapshot(host, "small", kind=kind)
    host.ok("volume", **DISK["qcow2"], capacity="16MiB")
    assert content(folder / "web") != first
    done = snapshot(host, "small", state="reverted")
    assert (done["capacity_before"], done["capacity_after"]) == (16 * MIB, 8 * MIB)
    assert any("no longer 16.0 MiB" in warning for warning in done["warnings"]), done["warnings"]
    assert content(folder / "web") == first
    assert host.volume("images", "web").findtext("capacity") == str(8 * MIB)
    sound(folder / "web")


def test_an_overlay_keeps_its_base(host: Host, images: Path) -> None:
    """What is done to a qcow2 alone leaves the name of its base in its header."""
    host.ok("volume", pool="images", name="base", format="qcow2", capacity="8MiB")
    base = write(images / "base", "qcow2", 7)
    host.ok("volume", **DISK["qcow2"], backing={"volume": "base", "format": "qcow2"})
    for kind in ("internal", "external"):
        snapshot(host, kind, kind=kind)
        write(images / "web", "qcow2", 1)
        snapshot(host, kind, state="reverted")
        assert content(images / "web") == base
        snapshot(host, kind, state="absent")
        assert qemu_img(images / "web")["full-backing-filename"] == str(images / "base")
    assert content(images / "base") == base


# Network file systems


def test_gluster_mount(host: Host, scratch: Path, gluster: Gluster) -> None:
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="images", path=f"{scratch}/mnt", **share)
    on_a_share(host, scratch / "mnt")


def test_cephfs(host: Host, cephfs: CephFS, scratch: Path) -> None:
    host.ok("pool_dir", name="images", path=str(scratch / "cephfs"))
    on_a_share(host, scratch / "cephfs")


def on_a_share(host: Host, folder: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    host.ok("volume", pool="images", name="raw", format="raw", capacity="1MiB")
    host.refused("volume_snapshot", "unsupported", pool="images", name="raw", format="raw", snapshot="one")
    for kind in ("internal", "external"):
        first = write(folder / "web", "qcow2", 1)
        snapshot(host, kind, kind=kind)
        write(folder / "web", "qcow2", 2)
        snapshot(host, kind, state="reverted")
        assert content(folder / "web") == first
        snapshot(host, kind, state="absent")
        assert content(folder / "web") == first
    for name in ("web", "raw"):
        host.ok("volume", pool="images", name=name, state="absent")


# Ceph


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Iterator[dict[str, Any]]:
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    login = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=login)
    host.ok("volume", pool="vms", name="web", capacity="8MiB")
    yield {"pool": "vms", "name": "web"}
    with connected(host.uri) as conn:
        for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
    for image in ceph.run("rbd", "ls", "rbd").split():
        for line in ceph.run("rbd", "snap", "ls", f"rbd/{image}").splitlines()[1:]:
            if "yes" in line.split():
                ceph.run("rbd", "snap", "unprotect", f"rbd/{image}@{line.split()[1]}")
        ceph.run("rbd", "snap", "purge", "--no-progress", f"rbd/{image}")
        ceph.run("rbd", "rm", "--no-progress", f"rbd/{image}")


def rbd_content(ceph: Ceph, scratch: Path) -> str:
    target = scratch / "exported"
    target.unlink(missing_ok=True)
    ceph.run("rbd", "export", "--no-progress", "rbd/web", target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def rbd_write(ceph: Ceph, scratch: Path, number: int) -> str:
    argv = ("bench", "--no-progress", "--io-type", "write", "--io-size", "64K", "--io-total", f"{number}M")
    ceph.run("rbd", *argv[:1], *argv[2:], "rbd/web")
    return rbd_content(ceph, scratch)


def test_rbd(host: Host, vms: dict[str, Any], ceph: Ceph, scratch: Path) -> None:
    first = rbd_write(ceph, scratch, 1)
    host.ok("volume", **vms, immutable=True)
    host.ok("volume", **vms, immutable=False)
    host.converge("volume_snapshot", ["snapshot"], **vms, snapshot="one")
    host.unchanged("volume_snapshot", **vms, snapshot="one", state="reverted")
    assert rbd_write(ceph, scratch, 3) != first
    host.ok("volume_snapshot", **vms, snapshot="one", state="reverted")
    assert rbd_content(ceph, scratch) == first
    host.ok("volume", **vms, format="raw", capacity="16MiB")
    done = host.ok("volume_snapshot", **vms, snapshot="one", state="reverted")
    assert (done["actions"], done["kind"], done["capacity_after"]) == (["revert"], "native", 8 * MIB)
    assert rbd_content(ceph, scratch) == first
    found = host.ok("volume_snapshot_info", **vms)["snapshots"]
    assert [(one["name"], one["kind"], one["size"], one["children"]) for one in found] == [
        ("one", "native", 8 * MIB, [])
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", found[0]["time"])
    host.refused("volume_snapshot", "unsupported", "native", **vms, snapshot="two", kind="internal")
    host.converge("volume_snapshot", ["remove_snapshot"], **vms, snapshot="one", state="absent")


def test_rbd_snapshots_that_are_not_ours_or_not_free(host: Host, vms: dict[str, Any], ceph: Ceph) -> None:
    host.ok("volume", **vms, immutable=True)
    assert host.ok("volume_snapshot_info", **vms)["snapshots"] == []
    host.ok("volume_snapshot", **vms, snapshot="one")
    ceph.run("rbd", "snap", "protect", "rbd/web@one")
    ceph.run("rbd", "clone", "--rbd-default-clone-format", "1", "rbd/web@one", "rbd/clone")
    found = host.ok("volume_snapshot_info", **vms)["snapshots"]
    assert found[0]["children"] == ["rbd/clone"]
    host.refused("volume_snapshot", "has_overlays", "rbd/clone", **vms, snapshot="one", state="absent")
    ceph.run("rbd", "rm", "--no-progress", "rbd/clone")
    host.refused("volume_snapshot", "has_overlays", "unprotect", **vms, snapshot="one", state="absent")
    ceph.run("rbd", "snap", "unprotect", "rbd/web@one")
    host.converge("volume_snapshot", ["remove_snapshot"], **vms, snapshot="one", state="absent")


def rbd_disk(ceph: Ceph) -> str:
    name, port = ceph.monitors[0]
    return (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/web'><host name='{name}' port='{port}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )


def test_rbd_of_a_running_guest(host: Host, vms: dict[str, Any], ceph: Ceph) -> None:
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", rbd_disk(ceph))
        host.refused("volume_snapshot", "not_frozen", "crash_consistent: true", **vms, snapshot="one")
        done = host.ok("volume_snapshot", **vms, snapshot="one", crash_consistent=True)
        assert (done["frozen"], done["kind"]) == (False, "native")
        ceph.run("rbd", "resize", "--no-progress", "--size", "9M", "rbd/web")  # so that there is something to revert
        host.refused("volume_snapshot", "in_use", "'web01'", **vms, snapshot="one", state="reverted")
        guest.destroy()
    host.ok("volume_snapshot", **vms, snapshot="one", state="absent")


# Running guests


def guest_writes(guest: libvirt.virDomain, command: str) -> None:
    """What a guest's own system would write, done by its QEMU: a guest without a system writes nothing."""
    line = {"command-line": f'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "{command}"'}
    said = libvirt_qemu.qemuMonitorCommand(
        guest, json.dumps({"execute": "human-monitor-command", "arguments": line}), 0
    )
    assert json.loads(said)["return"] == "", said


def test_a_running_guest_goes_on_in_an_overlay(host: Host, images: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    host.ok("volume", pool="images", name="other", format="raw", capacity="1MiB")
    first = write(images / "web", "qcow2", 1)
    disks = disk_xml(f"{images}/web", driver="qcow2") + disk_xml(f"{images}/other", target="vdb")
    one = {**DISK["qcow2"], "snapshot": "one"}
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disks, persistent=True)
        host.refused("volume_snapshot", "not_frozen", "guest agent", **one)
        host.converge("volume_snapshot", ["snapshot"], **one, crash_consistent=True)
        assert f"{images}/web@one" in guest.XMLDesc(0)
        assert f"{images}/web@one" in guest.XMLDesc(2)
        assert "other@" not in guest.XMLDesc(0)
        assert [(entry["name"], entry["kind"]) for entry in listed(host)] == [("one", "external")]
        assert content(images / "web") == first
        host.refused("volume_snapshot", "in_use", "'web01'", **DISK["qcow2"], snapshot="two", crash_consistent=True)
        host.refused("volume_snapshot", "in_use", "'web01'", **DISK["qcow2"], snapshot="two", kind="internal")
        # the guest writes, and goes back to the volume with all of it
        guest_writes(guest, "write -P 9 4M 1M")
        host.converge("volume_snapshot", ["remove_snapshot"], **one, state="absent")
        assert "web@one" not in guest.XMLDesc(0)
        assert not (images / "web@one").exists()
        guest.destroy()
    subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", "-c", "read -P 9 4M 1M", "-c", "read -P 1 1M 1M", images / "web"],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("comes", ["before", "meanwhile"])
def test_a_guest_that_comes_as_a_name_changes_hands(host: Host, images: Path, comes: str) -> None:
    """An external snapshot is removed: what a guest writes from then on is in the volume."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    snapshot(host, "one", kind="external")
    like, replace = by_file.like, by_file.files.replace
    with connected(host.uri) as connection:
        guest = connection.defineXML(domain_xml("web01", disk_xml(f"{images}/web", driver="qcow2")))

        def late(*given: Any, **options: Any) -> None:
            guest.create()
            like(*given, **options)

        def refused(*given: Any) -> None:
            with pytest.raises(libvirt.libvirtError, match="lock"):
                guest.create()
            replace(*given)

        options = {"pool": "images", "name": "web", "format": "qcow2", "snapshot": "one", "state": "absent"}
        if comes == "meanwhile":
            with mock.patch.object(by_file.files, "replace", refused):
                host.ok("volume_snapshot", **options)
            return
        with mock.patch.object(by_file, "like", late):
            host.failed("volume_snapshot", "in_use", "has it open", **options)
        guest_writes(guest, "write -P 7 5M 64k")
        guest.destroy()
    host.ok("volume_snapshot", **options)
    command = ["qemu-io", "-f", "qcow2", "-c", "read -P 7 5M 64k", f"{images}/web"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Pattern verification failed" not in done.stdout
    sound(images / "web")


def test_a_guest_that_has_been_shut_down_reverts(host: Host, images: Path) -> None:
    """The overlay that its definition names begins anew; removed, it goes down into the volume once nobody names it."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    first = write(images / "web", "qcow2", 1)
    one = {**DISK["qcow2"], "snapshot": "one"}
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"), persistent=True)
        host.ok("volume_snapshot", **one, crash_consistent=True)
        guest.destroy()
        write(images / "web@one", "qcow2", 2)
        host.converge("volume_snapshot", ["revert"], **one, state="reverted")
        assert content(images / "web@one") == first
        host.unchanged("volume_snapshot", **one, state="reverted")
        guest.create()
        assert guest.isActive()
        guest.destroy()
        changed = write(images / "web@one", "qcow2", 3)
        host.refused("volume_snapshot", "in_use", "'web01' (defined)", **one, state="absent")
        guest.undefine()
    host.converge("volume_snapshot", ["remove_snapshot"], **one, state="absent")
    assert content(images / "web") == changed
    assert os.listdir(images) == ["web"]


@pytest.mark.parametrize(("state", "kind"), [("absent", "internal"), ("reverted", "internal"), ("present", "internal")])
def test_what_a_running_guest_can_not_bear_is_refused(host: Host, images: Path, state: str, kind: str) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    write(images / "web", "qcow2", 1)
    snapshot(host, "one", kind=kind)
    write(images / "web", "qcow2", 2)
    name = "two" if state == "present" else "one"
    args = {**DISK["qcow2"], "snapshot": name, "state": state, "kind": kind if state == "present" else "auto"}
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        host.refused("volume_snapshot", "in_use", "'web01'", **args)
        with switched_off("volume:Volume.users", []):
            host.refused("volume_snapshot", "in_use", "QEMU process", **args)
        guest.destroy()
    assert host.ok("volume_snapshot", **args)["changed"]


def test_reflink_under_a_running_guest(host: Host, made: Callable[[str], Path]) -> None:
    folder = made("xfs")
    host.ok("volume", **DISK["raw"], capacity="8MiB")
    first = write(folder / "web", "raw", 1)
    snapshot(host, "one", "raw")
    write(folder / "web", "raw", 2)
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{folder}/web"))
        for args in ({"snapshot": "two", "kind": "reflink"}, {"snapshot": "one", "state": "reverted"}):
            host.refused("volume_snapshot", "in_use", "'web01'", **DISK["raw"], **args)
        guest.destroy()
        guest = start_guest(conn, "web02", disk_xml(f"{folder}/web@one"))
        host.refused("volume_snapshot", "in_use", "'web02'", **DISK["raw"], snapshot="one", state="absent")
        guest.destroy()
    snapshot(host, "one", "raw", state="reverted")
    assert content(folder / "web", "raw") == first


# Chains


def chain_of_five(host: Host, images: Path) -> list[str]:
    """Five external snapshots, each with its own content; their checksums."""
    host.ok("volume", **DISK["qcow2"], capacity="16MiB")
    sums = []
    for number in range(1, 6):
        sums.append(write(images / "web", "qcow2", number))
        snapshot(host, f"s{number}", kind="external")
    return sums


def test_chain_of_five(host: Host, images: Path) -> None:
    sums = chain_of_five(host, images)
    assert names(host) == ["s1", "s2", "s3", "s4", "s5"]
    last = write(images / "web", "qcow2", 9)
    assert len(qemu_img("--backing-chain", "-f", "qcow2", images / "web")) == 6
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        for name in ("s1", "s3", "s5"):
            for state in ("absent", "reverted"):
                host.refused("volume_snapshot", "in_use", "'web01'", **DISK["qcow2"], snapshot=name, state=state)
        guest.destroy()
    # one out of the middle, the oldest and the newest: nobody's content changes
    for name in ("s3", "s1", "s5"):
        host.converge("volume_snapshot", ["remove_snapshot"], **DISK["qcow2"], snapshot=name, state="absent")
        assert content(images / "web") == last
    assert names(host) == ["s2", "s4"]
    for number in (4, 2):
        snapshot(host, f"s{number}", state="reverted")
        assert content(images / "web") == sums[number - 1]
    # s4 and the volume now both stand on s2
    host.refused("volume_snapshot", "has_overlays", "images/web@s4", **DISK["qcow2"], snapshot="s2", state="absent")
    snapshot(host, "s4", state="reverted")
    assert content(images / "web") == sums[3]
    snapshot(host, "s2", state="absent")
    snapshot(host, "s4", state="absent")
    assert content(images / "web") == sums[3]
    assert os.listdir(images) == ["web"]


def test_overlays_of_others(host: Host, images: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    write(images / "web", "qcow2", 1)
    snapshot(host, "in", kind="internal")
    host.ok("volume", pool="images", name="over", format="qcow2", backing={"volume": "web", "format": "qcow2"})
    write(images / "web", "qcow2", 2)
    above = content(images / "over")
    reverted = {**DISK["qcow2"], "snapshot": "in", "state": "reverted"}
    host.refused("volume_snapshot", "has_overlays", "images/over", **reverted)
    with switched_off("chain:overlays", []):
        host.ok("volume_snapshot", **reverted)
    assert content(images / "over") != above, "without the guard the overlay reads something else"
    host.ok("volume", pool="images", name="over", state="absent")
    snapshot(host, "in", state="absent")
    snapshot(host, "ex", kind="external")
    host.ok("volume", pool="images", name="over", format="qcow2", backing={"volume": "web@ex", "format": "qcow2"})
    host.refused("volume_snapshot", "has_overlays", "images/over", **DISK["qcow2"], snapshot="ex", state="absent")
    assert listed(host)[0]["children"] == ["images/over", "images/web"]


def test_immutable(host: Host, images: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    snapshot(host, "one")
    write(images / "web", "qcow2", 1)
    host.ok("volume", **DISK["qcow2"], immutable=True)
    for args in ({"state": "reverted"}, {"state": "absent"}, {"snapshot": "two"}):
        host.refused("volume_snapshot", "immutable", **{**DISK["qcow2"], "snapshot": "one", **args})
    host.ok("volume", **DISK["qcow2"], immutable=False)


def test_a_file_without_the_mark_is_no_snapshot(host: Host, made: Callable[[str], Path]) -> None:
    folder = made("xfs")
    host.ok("volume", **DISK["raw"], capacity="1MiB")
    for name in ("web@precious", "web@auto-1"):
        host.ok("volume", pool="images", name=name, format="raw", capacity="1MiB")
    assert listed(host, "raw") == []
    host.unchanged("volume_snapshot", **DISK["raw"], snapshot="precious", state="absent")
    host.unchanged("volume_snapshot", **DISK["raw"], prefix="auto-", keep={"last": 1})
    host.refused("volume_snapshot", "name_taken", "web@precious", **DISK["raw"], snapshot="precious")
    # a copy of a snapshot under another name is none
    snapshot(host, "one", "raw")
    subprocess.run(["cp", "-a", folder / "web@one", folder / "web@two"], check=True)
    assert names(host, "raw") == ["one"]
    assert (folder / "web@precious").exists()


# Snapshots that are no longer what they were


def of_a_guest(host: Host, images: Path) -> tuple[str, str]:
    """The snapshot `one` whose overlay a guest that has ended wrote; the contents of then and now."""
    host.ok("volume", **DISK["qcow2"], capacity="16MiB")
    old = write(images / "web", "qcow2", 1)
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        snapshot(host, "one", crash_consistent=True)
        guest.destroy()
    return old, write(images / "web@one", "qcow2", 2)


def frozen_once(host: Host, images: Path) -> tuple[str, str]:
    """The snapshot `one` that is the file of then, and the volume above it."""
    host.ok("volume", **DISK["qcow2"], capacity="16MiB")
    old = write(images / "web", "qcow2", 1)
    snapshot(host, "one", kind="external")
    return old, write(images / "web", "qcow2", 2)


ONE = {**DISK["qcow2"], "snapshot": "one"}
REVERTED, ABSENT = {**ONE, "state": "reverted"}, {**ONE, "state": "absent"}


@pytest.mark.parametrize("make", [of_a_guest, frozen_once])
def test_one_whose_removal_was_killed_is_not_reverted_to(host: Host, images: Path, make: Any) -> None:
    """Half of what came later is in it."""
    old, new = make(host, images)

    def half(operation: Any, upper: str, base: str, form: str) -> None:
        subprocess.run(["qemu-io", "-f", form, "-c", "write -P 102 0 64k", base], check=True, capture_output=True)
        raise OSError("killed")

    second = switched_off("snapshot_files:written_since", False)  # the other guard that would tell of one of the two
    with mock.patch(f"{UTILS}snapshot_files.merge_down", half), second:
        with switched_off("snapshot_files:begin_merge"):
            host.failed("volume_snapshot", "system_refused", **ABSENT)
            assert content(images / ("web" if make is of_a_guest else "web@one")) != old
            assert host.ok("volume_snapshot", check=True, **REVERTED)["actions"] == ["revert"], "it would be taken"
        host.failed("volume_snapshot", "system_refused", **ABSENT)
    host.refused("volume_snapshot", "bad_snapshot", "removal has begun", **REVERTED)
    assert "removal has begun" in listed(host)[0]["trouble"]
    host.converge("volume_snapshot", ["remove_snapshot"], **ABSENT)
    assert content(images / "web") == new
    assert os.listdir(images) == ["web"]


@pytest.mark.parametrize(("make", "name"), [(of_a_guest, "web@one"), (frozen_once, "web")])
def test_no_snapshot_is_committed_into(host: Host, images: Path, make: Any, name: str) -> None:
    old, dummy = make(host, images)
    args = {**DISK["qcow2"], "name": name}
    host.refused("volume_commit", "has_snapshots", "'one' of 'web'", "state: absent", **args)
    below = images / ("web" if name == "web@one" else "web@one")
    assert content(below) == old
    with switched_off("chainwork:Commit.require_no_snapshot"):
        host.ok("volume_commit", **args)
    assert content(below) != old, "without the guard the snapshot is lost"


def begun_elsewhere(images: Path, by: str) -> None:
    """As it is between the moment when the overlay is there and that in which its guest takes it."""
    path = images / "web@one"
    found = json.loads(os.getxattr(path, by_file.MARK))
    found["web@one"] = {**found["web@one"], by_file.PLANNED: by}
    os.setxattr(path, by_file.MARK, json.dumps(found).encode())


def test_one_that_another_host_was_about_to_take(host: Host, images: Path) -> None:
    """Its guests are not seen from here: it is neither swept nor reverted to."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        snapshot(host, "one", crash_consistent=True)
        guest.destroy()
    begun_elsewhere(images, "00000000")
    assert "another host" in listed(host)[0]["trouble"]
    host.refused("volume_snapshot", "bad_snapshot", "another host", **REVERTED)
    host.unchanged("volume_snapshot", **ONE)
    with switched_off("volume_snapshot:VolumeSnapshot.trouble_of", ""):
        host.unchanged("volume_snapshot", **REVERTED)  # without the guard it counts as reverted to
    host.converge("volume_snapshot", ["remove_snapshot"], **ABSENT)


@pytest.mark.parametrize("comes", ["guest", "data"])
def test_what_is_swept_is_looked_at_again(host: Host, images: Path, comes: str) -> None:
    """A guest may have gone on with it since the run has looked."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    real, path = by_file.thaw_name, images / "web@one"
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        snapshot(host, "one", crash_consistent=True)
        guest.destroy()
        begun_elsewhere(images, by_file.files.this_host())

        def thaw(operation: Any) -> None:
            real(operation)
            if comes == "guest":
                start_guest(conn, "web02", disk_xml(str(path), driver="qcow2"))
            else:
                write(path, "qcow2", 3)

        with mock.patch(f"{UTILS}snapshot_files.thaw_name", thaw):
            assert host.run("volume_snapshot", **{**ONE, "snapshot": "two", "kind": "internal"})["actions"][0] == "mend"
    assert path.exists()


def test_a_volume_that_was_written_below_its_overlay(host: Host, images: Path) -> None:
    """What a guest wrote into the one no longer fits the other: a guest may have run on the volume itself since."""
    host.ok("volume", pool="images", name="below", format="qcow2", capacity="16MiB")
    host.ok("volume", **DISK["qcow2"], backing={"volume": "below", "format": "qcow2"})
    old = write(images / "web", "qcow2", 1)
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        snapshot(host, "one", crash_consistent=True)
        guest.destroy()
    new = write(images / "web@one", "qcow2", 2)
    time.sleep(1.1)  # to the next second
    host.ok("volume_flatten", **DISK["qcow2"])  # what no guest sees is harmless
    assert (content(images / "web"), content(images / "web@one")) == (old, new)
    assert listed(host)[0]["trouble"] is None
    os.chmod(images / "web", 0o640)
    assert listed(host)[0]["trouble"] is None
    was = int((images / "web").stat().st_mtime)
    time.sleep(1.1)
    write(images / "web", "qcow2", 3)
    for args in (REVERTED, ABSENT):
        host.refused("volume_snapshot", "bad_snapshot", "written after it was taken", **args)
    assert "written after it was taken" in listed(host)[0]["trouble"]
    host.ok("volume_snapshot", check=True, **{**ONE, "snapshot": "two", "kind": "internal"})
    with switched_off("snapshot_files:written_since", False):
        assert host.ok("volume_snapshot", check=True, **ABSENT)["actions"] == ["remove_snapshot"]
    subprocess.run(["touch", f"--date=@{was}", images / "web"], check=True)  # the way out for who knows better
    host.converge("volume_snapshot", ["remove_snapshot"], **ABSENT)


@pytest.mark.parametrize("use", ["overlay", "domain", "pool", "QEMU"])
def test_snapshot_of_a_subvolume_in_which_somebody_is(
    host: Host, made: Callable[[str], Path], run_root: Path, use: str
) -> None:
    folder = made("btrfs")
    host.ok("volume", **DISK["raw"], capacity="8MiB")
    snapshot(host, "one", "raw", kind="subvolume")
    inside = folder / ".snapshots/web@one"
    absent = {**DISK["raw"], "snapshot": "one", "state": "absent"}
    with connected(host.uri) as conn, contextlib.ExitStack() as stack:
        if use == "overlay":
            make_image("qcow2", folder / "over", "8M", "-b", ".snapshots/web@one/web", "-F", "raw")
        elif use == "domain":
            conn.defineXML(domain_xml("web01", disk_xml(f"{inside}/web")))
        elif use == "pool":
            xml = f"<pool type='dir'><name>inside</name><target><path>{inside}</path></target></pool>"
            conn.storagePoolDefineXML(xml).create()
            disk = "<disk type='volume'><source pool='inside' volume='web'/><target dev='vda'/></disk>"
            conn.defineXML(domain_xml("web01", disk))
        else:
            neighbour = stack.enter_context(Libvirtd(run_root / "neighbour"))
            disk = disk_xml(f"{inside}/web").replace("<target", "<readonly/><target")
            start_guest(neighbour.uri, "theirs", disk)
        code, word = {"overlay": ("has_overlays", "images/over"), "QEMU": ("in_use", "QEMU process")}.get(
            use, ("in_use", "'web01' (defined)")
        )
        host.refused("volume_snapshot", code, word, **absent)
        with switched_off("volume_snapshot:VolumeSnapshot.require_nobody_inside"):
            assert host.ok("volume_snapshot", check=True, **absent)["actions"] == ["remove_snapshot"]


def test_one_inside_a_volume_whose_copies_stay(host: Host, made: Callable[[str], Path]) -> None:
    """A snapshot of the subvolume has a copy of its own, and keeps no volume from going; a reflink beside it does."""
    made("btrfs")
    host.ok("volume", **DISK["raw"], capacity="1MiB")
    snapshot(host, "sub", "raw", kind="subvolume")
    snapshot(host, "link", "raw", kind="reflink")
    gone = {"pool": "images", "name": "web", "state": "absent"}
    host.refused("volume", "has_snapshots", "'link'", **gone)
    snapshot(host, "link", "raw", state="absent")
    host.converge("volume", ["delete"], **gone)


# Damage


@pytest.mark.parametrize(
    ("damage", "said"), [("flag", None), ("twice", "refcount=1 reference=2"), ("lost", "refcount=0")]
)
def test_tables_that_a_killed_qemu_img_left(host: Host, images: Path, damage: str, said: str | None) -> None:
    """A flag that the reference counts contradict is put right; where two places share a cluster, nothing is done."""
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    before = write(images / "web", "qcow2", 1)
    with open(images / "web", "r+b") as file:
        data = file.read()
        table = int.from_bytes(data[40:48], "big")
        second = int.from_bytes(data[table : table + 8], "big") & 0x00FFFFFFFFFFFE00
        entries = [int.from_bytes(data[at : at + 8], "big") for at in range(second, second + 1024, 8)]
        places = [second + 8 * number for number, one in enumerate(entries) if one]
        if damage == "flag":
            file.seek(places[0])
            file.write((entries[0] & ~(1 << 63)).to_bytes(8, "big"))
        elif damage == "twice":
            file.seek(places[1])
            file.write(data[places[0] : places[0] + 8])
        else:
            refcounts = int.from_bytes(data[48:56], "big")
            block = int.from_bytes(data[refcounts : refcounts + 8], "big")
            file.seek(block + 2 * ((entries[0] & 0x00FFFFFFFFFFFE00) >> 16))
            file.write(bytes(2))
    if said is None:
        assert subprocess.run(["qemu-img", "check", "-q", images / "web"], check=False).returncode == 2
        snapshot(host, "one")
        sound(images / "web")
        assert content(images / "web") == before
        return
    held = (images / "web").read_bytes()
    host.failed("volume_snapshot", "backend_refused", said, **ONE)
    assert (images / "web").read_bytes() == held


# Retention


def test_retention(host: Host, images: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="1MiB")
    for name in ("auto-1", "auto-2", "mine", "auto-3"):
        snapshot(host, name)
    rule = {**DISK["qcow2"], "prefix": "auto-", "keep": {"last": 2}}
    dry = host.ok("volume_snapshot", check=True, **rule)
    assert names(host) == ["auto-1", "auto-2", "mine", "auto-3"]
    done = host.converge("volume_snapshot", ["prune"], "DESTROYS SNAPSHOTS", **rule)
    assert [one["name"] for one in dry["removed"]] == [one["name"] for one in done["removed"]] == ["auto-1"]
    assert [(one["name"], one["reasons"]) for one in done["kept"]] == [("auto-3", ["last 1"]), ("auto-2", ["last 2"])]
    assert names(host) == ["auto-2", "mine", "auto-3"]
    done = host.converge("volume_snapshot", ["snapshot", "prune"], snapshot="auto-4", **rule)
    assert [one["name"] for one in done["removed"]] == ["auto-2"]
    assert names(host) == ["mine", "auto-3", "auto-4"]


def test_retention_of_a_chain(host: Host, images: Path) -> None:
    sums = chain_of_five(host, images)
    host.ok("volume_snapshot", **DISK["qcow2"], prefix="s", keep={"last": 2})
    assert names(host) == ["s4", "s5"]
    assert len(qemu_img("--backing-chain", "-f", "qcow2", images / "web")) == 3
    assert content(images / "web") == sums[4]
    for number in (4, 5):
        snapshot(host, f"s{number}", state="reverted")
        assert content(images / "web") == sums[number - 1]


# Killed runs


KILLED = [
    ("internal", "ext4", "reverted"),
    ("internal", "xfs", "reverted"),
    ("external", "ext4", "reverted"),
    ("external", "ext4", "present"),
    ("external", "ext4", "absent"),
    ("reflink", "xfs", "reverted"),
    ("reflink", "xfs", "present"),
    ("subvolume", "btrfs", "present"),
    ("subvolume", "btrfs", "reverted"),
]


@pytest.mark.parametrize(("kind", "system", "state"), KILLED)
def test_killed_after_each_call(host: Host, made: Callable[[str], Path], kind: str, system: str, state: str) -> None:
    """The volume has the content of before or of after, whole, and the next run goes on to the end."""
    folder, at, ended = made(system), 0, False
    path = folder / "web"
    args = {**DISK["qcow2"], "uri": host.uri, "snapshot": "one", "state": state, "kind": kind}
    points = 0
    while not ended:
        host.ok("volume", **DISK["qcow2"], capacity="8MiB")
        old = new = write(path, "qcow2", 1)
        if state != "present":
            snapshot(host, "one", kind=kind)
            old = write(path, "qcow2", 2)
            new = old if state == "absent" else new
        child = in_child("volume_snapshot", args, at, kill_self)
        wait_until(lambda: not alive_in(child.session))  # noqa: B023  its tools, which live on
        ended = child.result is not None
        points += not ended
        if not host.run("volume_snapshot_info", **DISK["qcow2"])["unfinished"]:
            assert content(path) in (old, new), at
        done = host.ok("volume_snapshot", **{key: args[key] for key in args if key != "uri"})
        assert content(path) == new, at
        sound(path)
        assert not (ended and done["changed"] and kind == "internal"), done
        expected = {"web", "lost+found", ".snapshots"} | ({"web@one"} if state != "absent" else set())
        assert set(os.listdir(folder)) <= expected, at
        assert names(host) == ([] if state == "absent" else ["one"])
        snapshot(host, "one", state="absent")
        assert content(path) == new
        host.ok("volume", pool="images", name="web", state="absent")
        at += 1
    assert points >= 2, points


STOPPED = """\
#!/bin/sh
# The one that is armed stops at its first write, with its image open.
if [ "$1" = snapshot ] && rm {folder}/armed 2>/dev/null; then
    exec strace -f -qq -o {folder}/log -e trace=pwrite64 -e inject=pwrite64:signal=STOP:when=1 {tool} "$@"
fi
exec {tool} "$@"
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace stops qemu-img at a write")
@pytest.mark.parametrize("state", ["present", "reverted", "absent"])
def test_the_tool_of_a_killed_run_still_works(
    host: Host, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """The next run leaves the volume alone, and the one after it goes on to the end; what it removed is gone."""
    script = tmp_path / "qemu-img"
    script.write_text(STOPPED.format(folder=tmp_path, tool=shutil.which("qemu-img")))
    script.chmod(0o755)
    monkeypatch.setitem(commands.ENVIRONMENT, "PATH", f"{tmp_path}:{commands.ENVIRONMENT['PATH']}")
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    new = write(images / "web", "qcow2", 1)
    if state != "present":
        snapshot(host, "one", kind="internal")
        old = write(images / "web", "qcow2", 2)
        new = old if state == "absent" else new
    args = {**DISK["qcow2"], "snapshot": "one", "state": state, "kind": "internal"}
    (tmp_path / "armed").touch()
    child = start("volume_snapshot", {**args, "uri": host.uri})
    wait_until(lambda: "stopped by SIGSTOP" in ((tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""))
    os.kill(child[0], signal.SIGKILL)
    assert finish(*child).result is None
    try:
        assert alive_in(child[0])
        if state == "absent":
            host.unchanged("volume_snapshot", **args)
        else:
            host.refused("volume_snapshot", "in_use", **args)
        while alive_in(child[0]):  # strace counts by thread, of which each stops once
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child[0], signal.SIGCONT)
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child[0], signal.SIGKILL)
    host.ok("volume_snapshot", **args)
    assert content(images / "web") == new
    sound(images / "web")
    assert names(host) == ([] if state == "absent" else ["one"])
    assert os.listdir(images) == ["web"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_killed_while_the_guest_runs(host: Host, images: Path, state: str) -> None:
    """The guest goes on, the snapshot is whole or is not there, and the next run goes on to the end."""
    args = {**DISK["qcow2"], "snapshot": "one", "state": state, "crash_consistent": True}
    at, points, ended = 0, 0, False
    while not ended:
        host.ok("volume", **DISK["qcow2"], capacity="8MiB")
        first = write(images / "web", "qcow2", 1)
        with connected(host.uri) as conn:
            guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"), persistent=at % 2 == 0)
            if state == "absent":
                snapshot(host, "one", crash_consistent=True)
            guest_writes(guest, "write -P 9 4M 1M")
            child = in_child("volume_snapshot", {**args, "uri": host.uri}, at, kill_self)
            wait_until(lambda: not alive_in(child.session))  # noqa: B023  its tools, which live on
            ended = child.result is not None
            points += not ended
            guest_writes(guest, "write -P 8 6M 1M")
            host.ok("volume_snapshot", **args)
            assert names(host) == (["one"] if state == "present" else [])
            assert guest.isActive()
            host.ok("volume_snapshot", **{**args, "state": "absent"})
            guest.destroy()
            if at % 2 == 0:
                guest.undefine()
        assert os.listdir(images) == ["web"]
        assert content(images / "web") != first
        reads = [part for one in ("1 1M 1M", "9 4M 1M", "8 6M 1M") for part in ("-c", f"read -P {one}")]
        done = subprocess.run(["qemu-io", "-r", "-f", "qcow2", *reads, images / "web"], capture_output=True, check=True)
        assert b"verification failed" not in done.stdout
        host.ok("volume", pool="images", name="web", state="absent")
        at += 1
    assert points >= 2, points


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("turn", "state"), [("take", "present"), ("pivot", "absent")])
def test_killed_as_a_guest_changes_over(host: Host, images: Path, turn: str, state: str, when: str) -> None:
    """Right before and right after the guest begins with the overlay, or comes back from it."""
    owner, name = {"take": (volume_snapshot.VolumeSnapshot, "ask_guest"), "pivot": (blockjob, "pivot")}[turn]
    real = getattr(owner, name)

    def die(*args: Any) -> None:
        if when == "after":
            real(*args)
        kill_self()

    args = {**DISK["qcow2"], "snapshot": "one", "state": state, "crash_consistent": True}
    host.ok("volume", **DISK["qcow2"], capacity="8MiB")
    write(images / "web", "qcow2", 1)
    with connected(host.uri) as conn:
        guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
        if state == "absent":
            snapshot(host, "one", crash_consistent=True)
            guest_writes(guest, "write -P 7 2M 1M")
        with mock.patch.object(owner, name, die):
            child = in_child("volume_snapshot", {**args, "uri": host.uri})
        assert child.result is None
        wait_until(lambda: not alive_in(child.session))
        guest_writes(guest, "write -P 9 4M 1M")
        if (turn, when) == ("take", "before"):
            assert names(host) == []
        actions = {("take", "before"): ["mend", "snapshot"], ("take", "after"): []}
        actions |= {("pivot", "before"): ["remove_snapshot"], ("pivot", "after"): ["mend"]}
        assert host.ok("volume_snapshot", **args)["actions"] == actions[turn, when]
        host.ok("volume_snapshot", **{**args, "state": "absent"})
        guest.destroy()
    assert sorted(os.listdir(images)) == ["web"]
    wrote = ["9 4M 1M", *(["7 2M 1M"] if state == "absent" else [])]
    reads = [part for one in wrote for part in ("-c", f"read -P {one}")]
    done = subprocess.run(["qemu-io", "-r", "-f", "qcow2", *reads, images / "web"], capture_output=True, check=True)
    assert b"verification failed" not in done.stdout


CHANGES = ("pwrite64", "pwritev", "pwritev2", "fallocate", "ftruncate", "write", "writev")


def changed_by(log: Path) -> Iterator[tuple[int, bytes]]:
    """What the calls of a log have written, and where."""
    for _pid, text in whole_lines(log):
        name, *_rest = text.partition("(")
        data = b"".join(bytes.fromhex(one.replace("\\x", "")) for one in re.findall(r'"([^"]*)"', text))
        numbers = [int(one) for one in re.findall(r"(?<=, )\d+(?=[,)])", text)]
        if name in ("pwrite64", "pwritev"):
            yield numbers[-1], data
        elif name == "fallocate":
            assert re.search(r"FALLOC_FL_(PUNCH_HOLE|ZERO_RANGE)", text), text
            yield numbers[-2], bytes(numbers[-1])
        else:
            raise AssertionError(f"what this does is not known here: {text}")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows the writes of qemu-img")
def test_revert_in_place_is_one_write(images: Path, tmp_path: Path) -> None:
    """What the revert of a qcow2 where it lies stands on: wherever it is killed, the content is the old or the new."""
    make_image("qcow2", images / "one", "64M")
    new = write(images / "one", "qcow2", 1)
    subprocess.run(["qemu-img", "snapshot", "-c", "s", images / "one"], check=True)
    old = write(images / "one", "qcow2", 2)
    for name in ("two", "three"):
        shutil.copy(images / "one", images / name)
    trace = ["-f", "-qq", "-xx", "-s", str(MIB), "-o", tmp_path / "log", "-P", images / "two"]
    command = ["strace", *trace, "-e", f"trace={','.join(CHANGES)}", "qemu-img", "snapshot", "-a", "s", images / "two"]
    subprocess.run(command, check=True)
    seen = [content(images / "three")]
    for at, data in changed_by(tmp_path / "log"):
        with open(images / "three", "r+b") as file:
            file.seek(at)
            file.write(data[: max(0, (images / "two").stat().st_size - at)])  # a hole may go beyond the end
        seen.append(content(images / "three"))
    assert (images / "three").read_bytes() == (images / "two").read_bytes(), "that was not all"
    assert len(seen) > 4, seen
    assert {old, new} == set(seen)
    assert seen == sorted(seen, key=[old, new].index), "first the one, then the other"


# Permissions


@pytest.mark.parametrize("kind", ["external", "reflink", "subvolume"])
def test_never_readable_by_others(host: Host, made: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    """At umask 000: whatever appears in the pool has no bit for others, not for a moment."""
    folder = made("btrfs")
    host.ok("volume", **DISK["qcow2"], capacity="8MiB", permissions={"mode": "0600"})
    known = {str(folder / "web")}
    with Traced(tmp_path / "log", umask=0) as traced:
        for number in range(2):
            for state in ("present", "reverted"):
                options = {**DISK["qcow2"], "snapshot": f"s{number}", "kind": kind, "state": state}
                done = traced.run("volume_snapshot", {"uri": host.uri, **options}).result
                assert not done.get("failed"), done
                assert done["changed"]
                assert loose(folder) == []
                write(folder / "web", "qcow2", number + 1)
    assert [one for number in range(1, 5) for one in exposed(traced.did(number).calls, known)] == []
    assert any("/.kvm.storage-" in one for one in known), "files were made"


def test_overlay_of_a_running_guest_is_as_private_as_its_disk(host: Host, images: Path) -> None:
    host.ok("volume", **DISK["qcow2"], capacity="8MiB", permissions={"mode": "0600"})
    before = os.umask(0)
    try:
        with connected(host.uri) as conn:
            guest = start_guest(conn, "web01", disk_xml(f"{images}/web", driver="qcow2"))
            snapshot(host, "one", crash_consistent=True)
            guest.destroy()
    finally:
        os.umask(before)
    assert stat.S_IMODE((images / "web@one").stat().st_mode) == 0o600


def test_layout(host: Host, images: Path) -> None:
    """An item says how many snapshots its volume keeps; those of other names are none of its affair."""
    disk = {"pool": "images", "name": "kept.qcow2", "format": "qcow2"}
    item = {**disk, "capacity": "8MiB", "snapshots": {"prefix": "auto-", "keep": {"last": 2}}}
    host.converge("layout", ["volume 'images/kept.qcow2': create"], volumes=[item])
    for name in ("auto-1", "mine", "auto-2", "auto-3", "auto-4"):
        host.ok("volume_snapshot", **disk, snapshot=name)
    host.converge("layout", ["volume 'images/kept.qcow2': keep_snapshots"], "auto-3", volumes=[item])
    found = host.ok("volume_snapshot_info", **disk)["snapshots"]
    assert sorted(one["name"] for one in found) == ["auto-3", "auto-4", "mine"]
    none = {**item, "snapshots": {"prefix": "auto-", "keep": {"last": 0}}}
    host.refused("layout", "bad_value", "would remove them all", volumes=[none])
