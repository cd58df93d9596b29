# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that move between names and pools, with the domains that have them, and what a killed run leaves."""

from __future__ import annotations

import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, switched_off
from tests.servers.ceph import Ceph
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

SIZE = 8 * MIB
MOVED = ["copy", "drop_source"]
SWITCHED = ["copy", "switch_domains", "drop_source"]


class Killed(BaseException):
    """What ends a run at a step, as a signal would."""


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def pools(host: Host, scratch: Path) -> Iterator[Path]:
    for name in ("images", "fast"):
        host.ok("pool_dir", name=name, path=f"{scratch}/{name}")
    yield scratch
    for name in ("images", "fast"):
        assert [one for one in os.listdir(scratch / name) if one.startswith(".")] == []


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Iterator[Ceph]:
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    yield ceph
    with connected(host.uri) as connection:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
    left = ceph.run("rbd", "ls", "rbd").split()
    for name in left:
        ceph.run("rbd", "rm", "--no-progress", f"rbd/{name}")
    assert not [name for name in left if name.startswith("kvm.storage-")]


def make(host: Host, pools: Path, name: str = "disk", form: str = "qcow2") -> bytes:
    """A volume of the pool images with some content; the bytes that a guest sees."""
    content = bytearray(SIZE)
    content[:4096] = os.urandom(4096)
    content[3 * MIB : 3 * MIB + 200_000] = os.urandom(200_000)
    content[-512:] = os.urandom(512)
    raw = pools / "content"
    raw.write_bytes(content)
    path = str(pools / "images" / name)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, str(raw), path], check=True)
    os.chmod(path, 0o640)
    raw.unlink()
    refresh(host)
    return bytes(content)


def refresh(host: Host) -> None:
    with connected(host.uri) as connection:
        for pool in connection.listAllStoragePools():
            pool.refresh(0)


def content_of(pools: Path, place: str, form: str) -> bytes:
    copy = pools / "content"
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", place, str(copy)], check=True)
    found = copy.read_bytes()
    copy.unlink()
    return found


def task(form: str | None = "qcow2", **options: Any) -> dict[str, Any]:
    to = {"pool": "fast", **options.pop("to", {})}
    return {"pool": "images", "name": "disk", "format": form, "to": to, **options}


def module(name: str) -> Any:
    return importlib.import_module(f"{UTILS}{name}")


def source_xml(host: Host, name: str = "web01", live: bool = False) -> str:
    with connected(host.uri) as connection:
        text = connection.lookupByName(name).XMLDesc(0 if live else 2)
    return text[text.index("<disk") : text.index("</disk>")]


# Rename


def test_rename(host: Host, pools: Path) -> None:
    content = make(host, pools)
    inode = os.stat(pools / "images/disk").st_ino
    done = host.converge(
        "volume_migrate", ["rename"], "name:          renamed", **task(to={"pool": "images", "name": "renamed"})
    )
    assert os.stat(pools / "images/renamed").st_ino == inode
    assert done["volume_path"] == f"{pools}/images/renamed"
    assert host.volumes("images") == ["renamed"]
    assert content_of(pools, f"{pools}/images/renamed", "qcow2") == content


@pytest.mark.parametrize("named", ["path", "volume"])
def test_rename_with_its_domain(host: Host, pools: Path, named: str) -> None:
    make(host, pools)
    disk = disk_xml(f"{pools}/images/disk", driver="qcow2")
    if named == "volume":
        disk = disk.replace("type='file'", "type='volume'").replace('type="file"', "type='volume'")
        disk = disk.replace(f'file="{pools}/images/disk"', "pool='images' volume='disk'")
    renamed = task(to={"pool": "images", "name": "renamed"})
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk))
        host.refused("volume_migrate", "in_use", "update_domains", **renamed, update_domains=False)
        host.converge("volume_migrate", ["rename", "switch_domains"], "web01", **renamed)
        wanted = f"file='{pools}/images/renamed'" if named == "path" else "pool='images' volume='renamed'"
        assert wanted in source_xml(host)
        guest = connection.lookupByName("web01")
        guest.create()
        guest.destroy()


def test_rename_never_takes_the_name_of_another(host: Host, pools: Path) -> None:
    make(host, pools)
    make(host, pools, "other")
    renamed = task(to={"pool": "images", "name": "other"})
    host.refused("volume_migrate", "exists", "there already", **renamed)
    with (
        mock.patch(f"{UTILS}migrate.Migrate.check"),
        mock.patch(f"{UTILS}migrate.plan", lambda before, *rest: module("plan").Plan(["rename"], {}, {"a": 1})),
    ):
        host.failed("volume_migrate", "system_refused", **renamed)
    assert host.volumes("images") == ["disk", "other"]


@pytest.mark.parametrize("killed", [False, True])
def test_rename_where_two_names_are_one_at_a_time(host: Host, pools: Path, killed: bool) -> None:
    """NFS and others know no rename that never replaces: a second name, then the first goes."""
    content = make(host, pools)
    renamed = task(to={"pool": "images", "name": "renamed"})
    with connected(host.uri) as connection, mock.patch("ctypes.CDLL", lambda *given, **options: object()):
        connection.defineXML(domain_xml("web01", disk_xml(f"{pools}/images/disk", driver="qcow2")))
        if killed:
            real = os.unlink

            def dies(path: Any, **options: Any) -> None:
                if path == f"{pools}/images/disk":
                    raise Killed
                real(path, **options)

            with mock.patch(f"{UTILS}files.os.unlink", dies), pytest.raises(Killed):
                host.run("volume_migrate", **renamed)
            assert os.stat(pools / "images/disk").st_nlink == 2
        host.converge("volume_migrate", ["rename", "switch_domains"], **renamed)
        assert f"{pools}/images/renamed" in source_xml(host)
    assert os.listdir(pools / "images") == ["renamed"]
    assert content_of(pools, f"{pools}/images/renamed", "qcow2") == content


def test_rename_on_rbd(host: Host, pools: Path, vms: Ceph) -> None:
    host.ok("volume", pool="vms", name="disk", capacity="8MiB")
    renamed = {"pool": "vms", "name": "disk", "format": "raw", "to": {"name": "renamed"}}
    host.converge("volume_migrate", ["rename"], **renamed)
    assert vms.run("rbd", "ls", "rbd").split() == ["renamed"]


# Between pools


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk"])
def test_dir_to_dir(host: Host, pools: Path, form: str) -> None:
    content = make(host, pools, form=form)
    host.converge("volume_migrate", MOVED, "pool:          fast", **task(form))
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])
    assert content_of(pools, f"{pools}/fast/disk", form) == content
    assert os.stat(pools / "fast/disk").st_mode & 0o777 == 0o640


def test_with_another_format_on_the_way(host: Host, pools: Path) -> None:
    content = make(host, pools)
    host.converge("volume_migrate", MOVED, **task(to={"format": "raw", "name": "disk.img"}))
    assert (pools / "fast/disk.img").read_bytes() == content


@pytest.mark.parametrize(("form", "size"), [("ext4", 64 << 20), ("xfs", 320 << 20)])
def test_dir_to_fs_and_back(host: Host, pools: Path, loop_device: Any, form: str, size: int) -> None:
    device = loop_device(size).device
    host.ok("pool_fs", name="data", path=f"{pools}/data", device=device, source_format=form, build="if_blank")
    content = make(host, pools)
    host.converge("volume_migrate", MOVED, **task(to={"pool": "data"}))
    assert content_of(pools, f"{pools}/data/disk", "qcow2") == content
    back = {"pool": "data", "name": "disk", "format": "qcow2", "to": {"pool": "images"}}
    host.converge("volume_migrate", MOVED, **back)
    assert content_of(pools, f"{pools}/images/disk", "qcow2") == content
    with open(pools / "images/disk", "r+b") as disk:
        disk.truncate(400 << 20)  # a sparse tail fits, data would not
    if form == "ext4":
        with open(pools / "images/large", "wb") as disk:
            disk.write(os.urandom(80 * MIB))
        host.refused("volume_migrate", "no_space", **{**task("raw", to={"pool": "data"}), "name": "large"})


def test_dir_to_rbd_and_back_with_its_domain(host: Host, pools: Path, vms: Ceph) -> None:
    content = make(host, pools)
    there = task(to={"pool": "vms"})
    back = {"pool": "vms", "name": "disk", "to": {"pool": "fast", "format": "qcow2"}}
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk_xml(f"{pools}/images/disk", driver="qcow2")))
        host.converge("volume_migrate", SWITCHED, **there)
        text = source_xml(host)
        assert "type='network'" in text
        assert "protocol='rbd' name='rbd/disk'" in text
        assert "type='raw'" in text
        export = pools / "export"
        vms.run("rbd", "export", "--no-progress", "rbd/disk", str(export))
        assert export.read_bytes() == content
        guest = connection.lookupByName("web01")
        guest.create()
        host.refused("volume_migrate", "in_use", **{**back, "to": {"pool": "vms", "name": "other"}})
        guest.destroy()
        host.converge("volume_migrate", SWITCHED, **back)
        text = source_xml(host)
        assert f"file='{pools}/fast/disk'" in text
        assert "auth" not in text
        assert "type='qcow2'" in text
        guest.create()
        guest.destroy()
    assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content
    assert vms.run("rbd", "ls", "rbd").split() == []


def test_partitions(host: Host, pools: Path, disk_node: DiskNode) -> None:
    """A partition can't be made under another name first; from one everything can move away."""
    node = str(disk_node.node)
    host.ok("pool_disk", name="disks", device=node, source_format="gpt", build="if_blank")
    name = f"{os.path.basename(node)}{'p' if node[-1].isdigit() else ''}1"
    content = make(host, pools, form="raw")
    host.refused("volume_migrate", "unsupported", **task("raw", to={"pool": "disks", "name": name}))
    host.ok("volume", pool="disks", name=name, capacity="8MiB")
    with open(f"/dev/{name}", "r+b") as device:
        device.write(content)
        os.fsync(device.fileno())
    away = {"pool": "disks", "name": name, "format": "none", "to": {"pool": "fast", "name": "moved", "format": "raw"}}
    host.converge("volume_migrate", MOVED, **away)
    assert (pools / "fast/moved").read_bytes()[:SIZE] == content


# What stays, what would be lost


def test_image_stays_as_it_is_between_files(host: Host, pools: Path) -> None:
    """Snapshots inside, and what it stands on."""
    make(host, pools)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", str(pools / "images/disk")], check=True)
    host.refused("volume_migrate", "has_snapshots", **task(to={"format": "raw"}))
    host.converge("volume_migrate", MOVED, **task())
    assert (
        b"before"
        in subprocess.run(
            ["qemu-img", "snapshot", "-l", str(pools / "fast/disk")], capture_output=True, check=True
        ).stdout
    )
    overlay = {"name": "over", "format": "qcow2", "pool": "fast"}
    host.ok("volume", **overlay, backing={"volume": "disk", "format": "qcow2"})
    host.refused("volume_migrate", "has_overlays", "fast/over", **{**task(), "pool": "fast", "to": {"pool": "images"}})
    content = content_of(pools, f"{pools}/fast/over", "qcow2")
    move = {**overlay, "to": {"pool": "images"}}
    host.converge("volume_migrate", MOVED, **move)
    assert (
        b'"backing-filename"'
        in subprocess.run(
            ["qemu-img", "info", "--output=json", str(pools / "images/over")], capture_output=True, check=True
        ).stdout
    )
    assert content_of(pools, f"{pools}/images/over", "qcow2") == content
    move = {"pool": "images", "name": "over", "format": "qcow2", "to": {"pool": "fast", "format": "vdi"}}
    host.refused("volume_migrate", "has_backing", "flatten", **move)
    host.converge("volume_migrate", MOVED, **move, flatten=True)
    assert content_of(pools, f"{pools}/fast/over", "vdi") == content


def test_source_that_is_kept(host: Host, pools: Path) -> None:
    content = make(host, pools)
    host.converge("volume_migrate", ["copy"], **task(keep_source=True))
    for pool in ("images", "fast"):
        assert content_of(pools, f"{pools}/{pool}/disk", "qcow2") == content
    host.converge("volume_migrate", ["drop_source"], **task())


def test_target_that_is_something_else(host: Host, pools: Path) -> None:
    make(host, pools)
    host.ok("volume", pool="fast", name="disk", format="qcow2", capacity="8MiB")
    host.refused("volume_migrate", "exists", "another one", **task())
    host.refused("volume_migrate", "bad_value", **{**task(), "to": {"pool": "images"}})
    host.refused("volume_migrate", "no_volume", **{**task(), "name": "missing", "to": {"name": "renamed"}})


def test_poisoned_raw_disk(host: Host, pools: Path) -> None:
    make(host, pools, form="qcow2")
    host.refused("volume_migrate", "format_mismatch", **task("raw"))


def test_copy_that_is_not_equal(host: Host, pools: Path) -> None:
    content = make(host, pools)
    real = module("qemu_img").convert

    def convert(label: str, source: Any, target: Any, **options: Any) -> None:
        real(label, source, target, **options)
        with open(target.path, "r+b") as disk:
            disk.seek(-4096, os.SEEK_END)
            disk.write(os.urandom(4096))

    with (
        mock.patch(f"{UTILS}qemu_img.convert", convert),
        mock.patch(f"{UTILS}transfer.reflink_of", return_value=False),
    ):
        for to in ({}, {"format": "raw"}):
            host.failed("volume_migrate", "not_equal", **task(to=to))
            assert (host.volumes("images"), host.volumes("fast")) == (["disk"], [])
    assert content_of(pools, f"{pools}/images/disk", "qcow2") == content


def test_guest_that_takes_the_source_meanwhile(host: Host, pools: Path) -> None:
    """It is written after the copy, or named by a domain before it is dropped: it stays."""
    content = make(host, pools)
    real = module("qemu_img").compare
    with connected(host.uri) as connection:

        def compare(*args: Any, **options: Any) -> bool:
            os.utime(pools / "images/disk")
            return bool(real(*args, **options))

        with (
            mock.patch(f"{UTILS}qemu_img.compare", compare),
            mock.patch(f"{UTILS}transfer.reflink_of", return_value=False),
        ):
            host.failed("volume_migrate", "in_use", "the copy was removed", **task())
        assert (host.volumes("images"), host.volumes("fast")) == (["disk"], [])

        def came_about(self: Any) -> None:
            connection.defineXML(domain_xml("web01", disk_xml(f"{pools}/images/disk", driver="qcow2")))

        with mock.patch(f"{UTILS}migrate.Migrate.came_about", came_about):
            host.failed("volume_migrate", "in_use", "'web01'", **task())
        assert content_of(pools, f"{pools}/images/disk", "qcow2") == content
        host.ok("volume_migrate", **task())
        assert f"{pools}/fast/disk" in source_xml(host)


@pytest.mark.parametrize("where", ["partition", "rbd"])
def test_somebody_writes_what_is_no_file(host: Host, pools: Path, request: pytest.FixtureRequest, where: str) -> None:
    """No time of its last change tells of it: who has it open is asked again, or what the kernel counts."""
    content = make(host, pools, form="raw")
    if where == "rbd":
        vms = request.getfixturevalue("vms")
        host.ok("volume_migrate", **task("raw", to={"pool": "vms"}))
        there, name = "vms", "disk"
        login = f"rbd:rbd/disk:conf={vms.root}/ceph.conf:id=admin:keyring={vms.keyring()}"
    else:
        login = f"{request.getfixturevalue('disk_node').node}1"
        there, name = "disks", os.path.basename(login)
        host.ok("pool_disk", name="disks", device=login[:-1], source_format="gpt", build="if_blank")
        host.ok("volume_clone", pool="disks", name=name, source={"pool": "images", "volume": "disk", "format": "raw"})
    real, clients = module("qemu_img").convert, []

    def convert(*given: Any, **options: Any) -> None:
        real(*given, **options)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        clients.append(subprocess.Popen(["qemu-io", "-f", "raw", login], **pipes))
        clients[-1].stdin.write("write -P 7 4M 64k\n")
        clients[-1].stdin.flush()
        clients[-1].stdout.readline()
        if where == "partition":
            clients[-1].communicate("quit\n", timeout=60)

    away = {"pool": there, "name": name, "format": "raw" if where == "rbd" else "none"}
    away |= {"to": {"pool": "fast", "name": "moved", "format": "raw"}}
    try:
        with mock.patch(f"{UTILS}qemu_img.convert", convert), mock.patch(f"{UTILS}qemu_img.compare", return_value=True):
            host.failed("volume_migrate", "in_use", **away)
    finally:
        clients[-1].communicate("quit\n" if where == "rbd" else None, timeout=60)
    assert host.volumes(there) == [name]
    assert not (pools / "fast/moved").exists()
    host.ok("volume_migrate", **away)
    expected = content[: 4 * MIB] + bytes([7]) * 65536 + content[4 * MIB + 65536 :]
    assert (pools / "fast/moved").read_bytes()[:SIZE] == expected


# Interrupted runs

STEPS = ["qemu_img.convert", "qemu_img.compare", "files.publish", "domains.redefine", "volume.Volume.delete"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", ["file", "rbd"])
def test_killed_runs_are_taken_up(
    host: Host, pools: Path, request: pytest.FixtureRequest, step: str, after: bool, way: str
) -> None:
    content = make(host, pools)
    args = task()
    if way == "rbd":
        request.getfixturevalue("vms")
        args = task(to={"pool": "vms"})
        step = step.replace("files.", "transfer.")
    holder, dummy, name = step.rpartition(".")
    owner: Any = module(holder) if "Volume" not in holder else module("volume").Volume
    real = getattr(owner, name)

    def dies(*given: Any, **options: Any) -> Any:
        if after:
            real(*given, **options)
        raise Killed

    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk_xml(f"{pools}/images/disk", driver="qcow2")))
        with (
            mock.patch.object(owner, name, dies),
            mock.patch(f"{UTILS}transfer.reflink_of", return_value=False),
            mock.patch(f"{UTILS}files.os.unlink"),  # nobody tidies up after a signal
            mock.patch("os.getpid", return_value=1),
            pytest.raises(Killed),
        ):
            host.run("volume_migrate", **args)
        for place in ("images", "fast"):
            for one in host.volumes(place):
                if not one.startswith("."):
                    assert content_of(pools, f"{pools}/{place}/{one}", "qcow2") == content
        result = host.ok("volume_migrate", **args)
        assert host.unchanged("volume_migrate", **args)
        assert result["changed"] or after
        guest = connection.lookupByName("web01")
        guest.create()
        guest.destroy()
    assert host.volumes("images") == []
    if way == "file":
        assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content


# Running guests


def running(host: Host, pools: Path, connection: Any, persistent: bool = True, form: str = "qcow2") -> Any:
    return start_guest(connection, "web01", disk_xml(f"{pools}/images/disk", driver=form), persistent=persistent)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("to", ["qcow2", "raw"])
def test_running_guest(host: Host, pools: Path, persistent: bool, to: str) -> None:
    content = make(host, pools)
    with connected(host.uri) as connection:
        guest = running(host, pools, connection, persistent)
        args = task(to={"format": to})
        host.refused("volume_migrate", "in_use", "pools of files", **task(to={"format": "vdi"}))
        host.converge("volume_migrate", SWITCHED if persistent else MOVED, **args)
        assert guest.isActive()
        assert f"{pools}/fast/disk" in source_xml(host, live=True)
        if persistent:
            assert f"{pools}/fast/disk" in source_xml(host)
            assert f"type='{to}'" in source_xml(host)
        guest.destroy()
        if persistent:
            guest.create()
            guest.destroy()
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])
    assert content_of(pools, f"{pools}/fast/disk", to) == content
    assert os.stat(pools / "fast/disk").st_nlink == 1


@pytest.mark.parametrize(
    "dies_at", ["begin", "wait", "pivot", "require_live", "came_about", "switch_domains", "delete", "finish_copy"]
)
@pytest.mark.parametrize("guest_dies", [False, True])
def test_running_guest_and_a_killed_run(host: Host, pools: Path, dies_at: str, guest_dies: bool) -> None:
    """Wherever it was, the copy is no volume until it is whole, and the guest's data are where the next run ends."""
    content = make(host, pools)
    job = module("blockjob")

    def dies(*given: Any, **options: Any) -> Any:
        raise Killed

    patches = {
        "begin": mock.patch.object(job, "begin", dies),
        "wait": mock.patch.object(job, "wait", dies),
        "pivot": mock.patch.object(job, "pivot", dies),
        "require_live": mock.patch(f"{UTILS}migrate.Migrate.require_live", dies),
        "delete": mock.patch(f"{UTILS}volume.Volume.delete", dies),
        **{
            name: mock.patch(f"{UTILS}migrate.Migrate.{name}", dies)
            for name in ("came_about", "switch_domains", "finish_copy")
        },
    }
    with connected(host.uri) as connection:
        guest = running(host, pools, connection)
        with patches[dies_at], pytest.raises(Killed):
            host.run("volume_migrate", **task())
        if guest_dies:
            guest.destroy()
        assert os.stat(pools / "fast/disk").st_nlink == 2
        host.failed("volume", "not_a_volume", "more than one name", pool="fast", name="disk", state="absent")
        host.ok("volume_migrate", **task())
        assert host.unchanged("volume_migrate", **task())
        if guest_dies:
            guest.create()
        assert f"{pools}/fast/disk" in source_xml(host, live=True)
        guest.destroy()
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])
    assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content


@pytest.mark.parametrize("equal", [True, False])
def test_transient_guest_that_ended_at_the_pivot(host: Host, pools: Path, equal: bool) -> None:
    """No domain tells any more which of the two it had: only where they are equal it does not matter."""
    content = make(host, pools)
    with connected(host.uri) as connection:
        guest = running(host, pools, connection, persistent=False)
        with mock.patch(f"{UTILS}migrate.Migrate.require_live", side_effect=Killed), pytest.raises(Killed):
            host.run("volume_migrate", **task())
        guest.destroy()
    if not equal:
        command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 64k", str(pools / "fast/disk")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        host.refused("volume_migrate", "exists", "another", **task())
        assert os.path.exists(pools / "fast/disk")
        for name in (".kvm.storage.pivoting-disk", "disk"):  # what somebody decides who has looked at it
            os.unlink(pools / "fast" / name)
        return
    host.converge("volume_migrate", ["drop_source", "finish_copy"], **task())
    assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content


@pytest.mark.parametrize("runs", [False, True])
def test_half_a_copy_that_a_domain_has_by_now(host: Host, pools: Path, runs: bool) -> None:
    """Somebody defined the domain as it shall be after the move; that does not make the copy whole."""
    content = make(host, pools)
    with connected(host.uri) as connection:
        guest = running(host, pools, connection)
        with mock.patch(f"{UTILS}blockjob.wait", side_effect=Killed), pytest.raises(Killed):
            host.run("volume_migrate", **task(rate="4KiB"))
        guest.destroy()
        guest = connection.defineXML(guest.XMLDesc(2).replace(f"{pools}/images/disk", f"{pools}/fast/disk"))
        if runs:
            guest.create()
            host.refused("volume_migrate", "unfinished", "'web01' (running)", **task())
            guest.destroy()
        assert "copy" in host.ok("volume_migrate", **task())["actions"]
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])
    assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content


def test_transient_guest_that_ended_beside_a_domain(host: Host, pools: Path) -> None:
    """Another domain names the source, which tells nothing of what the guest has written into the copy."""
    make(host, pools)
    with connected(host.uri) as connection:
        guest = running(host, pools, connection, persistent=False)
        with mock.patch(f"{UTILS}migrate.Migrate.require_live", side_effect=Killed), pytest.raises(Killed):
            host.run("volume_migrate", **task())
        guest.destroy()
        command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 64k", str(pools / "fast/disk")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        other = connection.defineXML(domain_xml("web02", disk_xml(f"{pools}/images/disk", driver="qcow2")))
        host.refused("volume_migrate", "exists", "another", **task())
        other.create()
        host.refused("volume_migrate", "in_use", "'web02' (running)", **task())
        other.destroy()
    assert os.path.exists(pools / "fast/disk")
    for name in (".kvm.storage.pivoting-disk", "disk"):  # what somebody decides who has looked at it
        os.unlink(pools / "fast" / name)


def test_running_guest_without_room(host: Host, pools: Path) -> None:
    """What its disk takes is looked at before, as of any other copy."""
    make(host, pools)
    with connected(host.uri) as connection:
        running(host, pools, connection)
        with mock.patch(f"{UTILS}headroom.space", return_value=(1 << 30, 65536)):
            host.refused("volume_migrate", "no_space", "at once", **task())
        assert f"{pools}/images/disk" in source_xml(host, live=True)


def test_running_guest_on_rbd(host: Host, pools: Path, vms: Ceph) -> None:
    content = make(host, pools, form="raw")
    host.ok("volume_migrate", **task("raw", to={"pool": "vms"}))
    name, port = vms.monitors[0]
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/disk'><host name='{name}' port='{port}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    away = {"pool": "vms", "name": "disk", "format": "raw", "to": {"pool": "fast", "format": "qcow2"}}
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk, persistent=True)
        host.refused("volume_migrate", "in_use", "pools of files", **{**away, "to": {"name": "other"}})
        host.converge("volume_migrate", SWITCHED, **away)
        assert f"{pools}/fast/disk" in source_xml(host, live=True)
        guest.destroy()
        guest.create()
        guest.destroy()
    assert content_of(pools, f"{pools}/fast/disk", "qcow2") == content
    assert vms.run("rbd", "ls", "rbd").split() == []


def test_running_guest_that_writes_too_much(host: Host, pools: Path) -> None:
    """It is given up in time, and nothing is left of the copy."""
    make(host, pools, form="raw")
    (pools / "images/disk").write_bytes(os.urandom(8 * SIZE))  # QEMU has some MiB under way before it slows down
    refresh(host)
    with connected(host.uri) as connection:
        running(host, pools, connection, form="raw")
        host.failed("volume_migrate", "timeout", "goes on as before", **task("raw", rate="1KiB", timeout=1))
        assert f"{pools}/images/disk" in source_xml(host, live=True)
        assert host.volumes("fast") == []
        assert os.listdir(pools / "fast") == []


def test_disk_of_two_guests_is_not_moved(host: Host, pools: Path) -> None:
    make(host, pools, form="raw")
    shared = disk_xml(f"{pools}/images/disk").replace("<target", "<shareable/><target")
    with connected(host.uri) as connection:
        for name in ("web01", "web02"):
            start_guest(connection, name, shared)
        host.refused("volume_migrate", "in_use", "web01", "web02", **task("raw"))


def test_base_of_a_running_guest_is_not_moved(host: Host, pools: Path) -> None:
    make(host, pools)
    host.ok(
        "volume",
        pool="fast",
        name="over",
        format="qcow2",
        backing={"pool": "images", "volume": "disk", "format": "qcow2"},
    )
    with connected(host.uri) as connection:
        start_guest(connection, "web01", disk_xml(f"{pools}/fast/over", driver="qcow2"))
        host.refused("volume_migrate", "has_overlays", **task())


# The only copy must not go


def test_two_pools_on_one_directory(host: Host, pools: Path) -> None:
    """A volume that is compared with itself is equal, and is not dropped."""
    make(host, pools)
    (pools / "link").symlink_to(pools / "images")
    with connected(host.uri) as connection:
        xml = f"<pool type='dir'><name>link</name><target><path>{pools}/link</path></target></pool>"
        connection.storagePoolDefineXML(xml).create()
    host.refused("volume_migrate", "exists", "itself", **task(to={"pool": "link"}))
    assert (pools / "images/disk").exists()


@pytest.mark.parametrize("moment", ["in the comparison of a run that is taken up", "before the source is dropped"])
def test_what_is_written_after_the_comparison_is_kept(host: Host, pools: Path, moment: str) -> None:
    make(host, pools, form="raw")
    wanted = task("raw")

    def write() -> None:
        with open(pools / "images/disk", "r+b") as file:
            file.write(b"the newest data")

    if moment.startswith("in"):
        with mock.patch(f"{UTILS}migrate.Migrate.drop_source", side_effect=Killed), pytest.raises(Killed):
            host.run("volume_migrate", **wanted)
        real = module("qemu_img").compare

        def compare(*given: Any, **more: Any) -> Any:
            found = real(*given, **more)
            write()
            return found

        patched = mock.patch(f"{UTILS}qemu_img.compare", compare)
    else:
        came = module("migrate").Migrate.came_about

        def came_about(self: Any) -> None:
            write()
            came(self)

        patched = mock.patch(f"{UTILS}migrate.Migrate.came_about", came_about)
    with patched:
        host.failed("volume_migrate", "in_use", "beside its copy", **wanted)
    assert (pools / "images/disk").read_bytes().startswith(b"the newest data")


@pytest.mark.parametrize("to", [{"pool": "images", "name": "other"}, {"pool": "fast"}], ids=["rename", "move"])
def test_snapshots_in_files_beside_it(host: Host, pools: Path, to: dict[str, Any]) -> None:
    make(host, pools)
    host.ok("volume_snapshot", pool="images", name="disk", format="qcow2", snapshot="one", kind="external")
    host.refused("volume_migrate", "has_snapshots", "'one'", "keep_source: true", **task(to=to))
    with switched_off("volume:Volume.own_snapshots", []):
        host.ok("volume_migrate", **task(to=to))
    assert (pools / "images/disk@one").exists()


def test_a_disk_that_is_a_part_of_the_volume(host: Host, pools: Path) -> None:
    """Of a running guest only that part would be copied, and the rest be dropped with the source."""
    make(host, pools, form="raw")
    slices = "<slices><slice type='storage' offset='1048576' size='1048576'/></slices>"
    disk = disk_xml(f"{pools}/images/disk").replace("/><target", f">{slices}</source><target", 1)
    assert slices in disk
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk))
        host.refused("volume_migrate", "in_use", "slices", **task("raw"))
        connection.lookupByName("web01").undefine()
        start_guest(connection, "web02", disk)
        host.refused("volume_migrate", "in_use", "slices", **task("raw"))
        with switched_off("domains:is_sliced", False):
            host.ok("volume_migrate", **task("raw"))
        assert (pools / "fast/disk").stat().st_size == MIB, "without the guard the rest is lost"


def test_options_that_a_block_copy_does_not_take(host: Host, pools: Path) -> None:
    make(host, pools)
    with connected(host.uri) as connection:
        start_guest(connection, "web01", disk_xml(f"{pools}/images/disk", driver="qcow2"))
    host.refused("volume_migrate", "unsupported", "lazy_refcounts", **task(to={"lazy_refcounts": True}))


def test_a_definition_keeps_its_encryption(host: Host, pools: Path) -> None:
    """Without it, a guest would see what is encrypted."""
    make(host, pools, form="raw")
    secret = "<secret type='passphrase' uuid='2a0a5b1e-0000-4000-8000-000000000001'/>"
    disk = disk_xml(f"{pools}/images/disk").replace(
        "/><target", f"><encryption format='luks'>{secret}</encryption></source><target", 1
    )
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk))
    host.ok("volume_migrate", **task("raw", to={"pool": "images", "name": "renamed"}))
    found = source_xml(host)
    assert f"{pools}/images/renamed" in found
    assert "2a0a5b1e-0000-4000-8000-000000000001" in found
