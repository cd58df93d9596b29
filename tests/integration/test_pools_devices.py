# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools on block devices: file systems that are made and mounted, and disks with a partition table."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, change_while_active, switched_off, walk_through_states
from tests.servers.guest import disk_xml, start_guest
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode, LoopDevice

SIZE = {"ext4": 64 << 20, "xfs": 320 << 20}
GONE = {"name": "data", "state": "absent"}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


def on(device: str, scratch: Path, form: str = "ext4") -> dict[str, Any]:
    return {"name": "data", "path": f"{scratch}/data", "device": device, "source_format": form}


def type_of(device: str | Path) -> str:
    command = ["blkid", "--probe", "--output", "value", "--match-tag", "TYPE", str(device)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def head_of(device: str | Path) -> bytes:
    with open(device, "rb") as disk:
        return disk.read(2 << 20)


# fs


@pytest.mark.parametrize("form", SIZE)
def test_fs_states(host: Host, scratch: Path, loop_device: Any, form: str) -> None:
    device: LoopDevice = loop_device(SIZE[form])
    pool = on(device.device, scratch, form)
    host.converge("pool_fs", ["define", "build", "start"], form, build="if_blank", **pool)
    assert (type_of(device.device), os.path.ismount(pool["path"])) == (form, True)
    host.converge("pool_fs", ["stop", "undefine"], **GONE)
    assert not os.path.ismount(pool["path"])
    Path(pool["path"]).rmdir()
    walk_through_states(host, "pool_fs", pool, born=["define", "make_directory"], up=["start"])


def test_fs_changes_while_active(host: Host, scratch: Path, loop_device: Any) -> None:
    pool = on(loop_device(SIZE["ext4"]).device, scratch)
    host.ok("pool_fs", build="if_blank", **pool)
    change_while_active(host, "pool_fs", pool, mount_options=["noatime"])
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert any(pool["path"] in line and "noatime" in line for line in mounts)


@pytest.mark.parametrize("build", ["never", "if_blank"])
def test_fs_keeps_what_is_there(host: Host, scratch: Path, loop_device: Any, build: str) -> None:
    device: LoopDevice = loop_device(SIZE["ext4"])
    subprocess.run(["mkfs.ext4", "-q", "-L", "precious", device.device], check=True)
    head = head_of(device.device)[:1024]
    host.ok("pool_fs", build=build, **on(device.device, scratch))
    mark = Path(scratch, "data", "precious")
    mark.write_bytes(b"data")
    host.unchanged("pool_fs", build=build, **on(device.device, scratch))
    host.ok("pool_fs", **GONE)
    host.ok("pool_fs", build=build, **on(device.device, scratch))
    assert mark.read_bytes() == b"data"
    assert head_of(device.device)[:1024] == head


@pytest.mark.parametrize("build", ["never", "if_blank"])
def test_fs_of_another_kind_is_not_overwritten(host: Host, scratch: Path, loop_device: Any, build: str) -> None:
    device: LoopDevice = loop_device(SIZE["xfs"])
    subprocess.run(["mkfs.xfs", "-q", device.device], check=True)
    head = head_of(device.device)
    before = host.state()
    result = host.run("pool_fs", build=build, **on(device.device, scratch, "ext4"))
    assert result.get("failed"), result
    assert device.device in result["msg"]
    assert head_of(device.device) == head
    assert {**host.state(), "files": 0} == {**before, "files": 0}


def test_fs_never_makes_no_file_system(host: Host, scratch: Path, loop_device: Any) -> None:
    device: LoopDevice = loop_device(SIZE["ext4"])
    result = host.failed("pool_fs", "backend_refused", device.device, **on(device.device, scratch))
    assert "blkid" in result["msg"]
    assert head_of(device.device) == bytes(2 << 20)


def test_fs_is_overwritten_only_when_that_is_said(host: Host, scratch: Path, loop_device: Any) -> None:
    device: LoopDevice = loop_device(SIZE["xfs"])
    subprocess.run(["mkfs.xfs", "-q", device.device], check=True)
    pool = on(device.device, scratch, "ext4")
    before = head_of(device.device)
    predicted = host.ok("pool_fs", check=True, build="overwrite", **pool)
    assert (predicted["actions"], head_of(device.device) == before) == (["create", "define"], True)
    assert "DESTROYS DATA" in str(predicted["diff"])
    done = host.ok("pool_fs", build="overwrite", **pool)
    assert (done["actions"], type_of(device.device)) == (predicted["actions"], "ext4")
    mark = Path(scratch, "data", "precious")
    mark.write_bytes(b"data")
    host.unchanged("pool_fs", build="overwrite", **pool)
    host.converge("pool_fs", ["stop"], state="inactive", **pool)
    host.converge("pool_fs", ["start"], build="overwrite", **pool)
    assert mark.read_bytes() == b"data", "overwrite is for a pool that is made, not for one that is started"


def test_fs_that_a_guest_uses_is_not_unmounted(host: Host, scratch: Path, loop_device: Any) -> None:
    pool = on(loop_device(SIZE["ext4"]).device, scratch)
    host.ok("pool_fs", build="if_blank", **pool)
    host.ok("volume", pool="data", name="disk.raw", capacity="1MiB", format="raw")
    guest = start_guest(host.uri, "web01", disk_xml(f"{pool['path']}/disk.raw"))
    host.refused("pool_fs", "in_use", "'web01' (running)", state="inactive", **pool)
    host.refused("pool_fs", "in_use", "'web01' (running)", **GONE)
    host.refused("pool_fs", "in_use", "'web01' (running)", delete_data=True, **GONE)
    guest.destroy()
    host.converge("pool_fs", ["stop"], state="inactive", **pool)


def test_fs_delete_data_gives_up_its_volumes(host: Host, scratch: Path, loop_device: Any) -> None:
    device: LoopDevice = loop_device(SIZE["ext4"])
    pool = on(device.device, scratch)
    host.ok("pool_fs", build="if_blank", **pool)
    host.ok("volume", pool="data", name="disk.raw", capacity="1MiB", format="raw")
    steps = ["delete_volumes", "stop", "delete_storage", "undefine"]
    host.converge("pool_fs", steps, "DESTROYS DATA", delete_data=True, **GONE)
    assert type_of(device.device) == "ext4", "the file system itself stays"
    assert not Path(pool["path"]).exists()


def test_fs_device_of_two_pools(host: Host, scratch: Path, loop_device: Any) -> None:
    device: LoopDevice = loop_device(SIZE["ext4"])
    host.ok("pool_fs", build="if_blank", **on(device.device, scratch))
    second = {**on(device.device, scratch), "name": "second", "path": f"{scratch}/second"}
    host.refused("pool_fs", "source_conflict", "'data'", **second)
    link = scratch / "by-id"
    link.symlink_to(device.device)
    host.refused("pool_fs", "source_conflict", "'data'", **{**second, "device": str(link)})
    host.unchanged("pool_fs", **{**on(str(link), scratch)})


def test_fs_mode_of_the_mounted_directory(host: Host, scratch: Path, loop_device: Any) -> None:
    pool = on(loop_device(SIZE["ext4"]).device, scratch)
    host.ok("pool_fs", build="if_blank", permissions={"mode": "0711"}, **pool)
    host.unchanged("pool_fs", permissions={"mode": "0711"}, **pool)
    os.chmod(pool["path"], 0o755)
    host.converge("pool_fs", ["set_permissions"], "mode 0711", permissions={"mode": "0711"}, **pool)
    assert oct(os.stat(pool["path"]).st_mode & 0o777) == "0o711"


def test_fs_full(host: Host, scratch: Path, loop_device: Any) -> None:
    pool = on(loop_device(16 << 20).device, scratch)
    host.ok("pool_fs", build="if_blank", **pool)
    before = host.state()
    big = {"pool": "data", "name": "big.raw", "capacity": "64MiB", "format": "raw", "preallocation": "falloc"}
    host.refused("volume", "no_space", "left", **big)
    with switched_off("headroom:check", []):
        host.failed("volume", "backend_refused", "No space left", **big)
    assert host.state() == before


# disk


def on_disk(disk: DiskNode, label: str = "gpt") -> dict[str, Any]:
    return {"name": "data", "device": str(disk.node), "source_format": label}


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_disk_states(host: Host, disk_node: DiskNode, label: str) -> None:
    pool = on_disk(disk_node, label)
    host.converge("pool_disk", ["define", "build", "start"], label, build="if_blank", **pool)
    host.converge("pool_disk", ["stop", "undefine"], **GONE)
    walk_through_states(host, "pool_disk", pool, born=["define"], up=["start"])


@pytest.mark.parametrize("build", ["never", "if_blank"])
def test_disk_keeps_what_is_there(host: Host, disk_node: DiskNode, build: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(disk_node.node)], check=True)
    head = head_of(disk_node.node)
    before = host.state()
    result = host.run("pool_disk", build=build, **on_disk(disk_node))
    assert result.get("failed"), result
    assert head_of(disk_node.node) == head
    assert host.state() == before


def test_disk_is_overwritten_only_when_that_is_said(host: Host, disk_node: DiskNode) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(disk_node.node)], check=True)
    host.converge("pool_disk", ["create", "define"], "DESTROYS DATA", build="overwrite", **on_disk(disk_node))
    assert type_of(disk_node.node) == ""


def test_disk_delete_data_takes_the_table(host: Host, disk_node: DiskNode) -> None:
    host.ok("pool_disk", build="if_blank", **on_disk(disk_node))
    first = f"{disk_node.node.name}1"
    host.ok("volume", pool="data", name=first, capacity="32MiB")
    guest = start_guest(host.uri, "web01", disk_xml(f"/dev/{first}", kind="block"))
    host.refused("pool_disk", "in_use", "'web01'", delete_data=True, **GONE)
    host.refused("volume", "in_use", "'web01'", pool="data", name=first, state="absent")
    guest.destroy()
    host.ok("pool_disk", delete_data=True, **GONE)
    assert b"EFI PART" not in head_of(disk_node.node)


def test_disk_without_the_guard_is_lost(host: Host, disk_node: DiskNode) -> None:
    host.ok("pool_disk", build="if_blank", **on_disk(disk_node))
    first = f"{disk_node.node.name}1"
    host.ok("volume", pool="data", name=first, capacity="32MiB")
    start_guest(host.uri, "web01", disk_xml(f"/dev/{first}", kind="block"))
    with switched_off("pool:Pool.check_unused"):
        host.run("pool_disk", delete_data=True, **GONE)
    assert b"EFI PART" not in head_of(disk_node.node)
