# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole disks: partition tables, and partitions as volumes, under stable and plain names of the disk."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.integration.helpers import Host, switched_off, walk_through_states
from tests.lab.scenarios.conftest import Disks, defined_guest

GONE = {"name": "data", "state": "absent"}


def on(device: str, label: str = "gpt") -> dict[str, Any]:
    return {"name": "data", "device": device, "source_format": label}


def partition(number: int, **options: Any) -> dict[str, Any]:
    return {"pool": "data", "name": f"vdb{number}", "capacity": "10000001", **options}


def gone(number: int) -> dict[str, Any]:
    return {"pool": "data", "name": f"vdb{number}", "state": "absent"}


def table() -> str:
    """The kind of partition table on the disk; empty without one."""
    command = ["blkid", "--probe", "--output", "value", "--match-tag", "PTTYPE", "/dev/vdb"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def numbers() -> list[str]:
    """The partitions that the kernel has."""
    command = ["lsblk", "-nro", "NAME", "/dev/vdb"]
    return sorted(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1:])


@pytest.mark.parametrize(("label", "stable"), [("gpt", True), pytest.param("dos", False, marks=pytest.mark.long)])
def test_life(host: Host, disks: Disks, label: str, stable: bool) -> None:
    pool = on(disks.vdb if stable else "/dev/vdb", label)
    other = on("/dev/vdb" if stable else disks.vdb, label)
    host.converge("pool_disk", ["define", "build", "start"], label, build="if_blank", **pool)
    assert table() == label
    host.unchanged("pool_disk", **other)
    host.refused("pool_disk", "source_conflict", "'data'", **{**other, "name": "second"})
    host.refused("pool_fs", "source_conflict", "'data'", name="fs", path="/srv/fs", device=other["device"])
    host.converge("volume", ["create"], **partition(1))
    host.ok("volume", **partition(2))
    host.refused("volume", "bad_name", "'vdb3'", **partition(9))
    host.refused("volume", "unsupported", "make a larger one", **partition(1, capacity="64MiB"))
    host.converge("volume", ["delete"], **gone(1))
    assert numbers() == host.volumes("data") == ["vdb2"]
    host.refused("volume", "bad_name", "'vdb1'", **partition(3))
    host.converge("volume", ["create"], **partition(1, capacity="16MiB"))
    assert numbers() == host.volumes("data") == ["vdb1", "vdb2"]
    host.converge("pool_disk", ["stop", "delete_storage", "undefine"], "DESTROYS DATA", delete_data=True, **GONE)
    assert table() == ""


@pytest.mark.long
def test_states(host: Host, disks: Disks) -> None:
    pool = on(disks.vdb)
    host.ok("pool_disk", build="if_blank", **pool)
    host.ok("pool_disk", **GONE)
    walk_through_states(host, "pool_disk", pool, born=["define"], up=["start"])


def test_what_is_not_a_disk_for_it(host: Host, disks: Disks) -> None:
    host.refused("pool_disk", "no_source", "/dev/nope", **on("/dev/nope"))
    host.refused("pool_disk", "no_source", "/dev/nope", build="overwrite", **on("/dev/nope"))
    host.failed("pool_disk", "backend_refused", "build: if_blank", **on(disks.vdb))
    subprocess.run(["parted", "-s", "/dev/vdb", "mklabel", "msdos"], check=True)
    for build in ("never", "if_blank"):
        host.failed("pool_disk", "backend_refused", "'gpt'", build=build, **on(disks.vdb))
    assert table() == "dos"


def test_logical_partitions(host: Host, disks: Disks) -> None:
    """They go with the extended partition, and those after one that goes take its name."""
    subprocess.run(
        ["parted", "-s", "/dev/vdb", "mklabel", "msdos", "mkpart", "extended", "1MiB", "400MiB"]
        + ["mkpart", "logical", "2MiB", "100MiB", "mkpart", "logical", "101MiB", "200MiB"],
        check=True,
    )
    host.ok("pool_disk", **on(disks.vdb, "dos"))
    assert host.volumes("data") == ["vdb1", "vdb5", "vdb6"]
    host.refused("volume", "in_use", "vdb5, vdb6", "destroyed with it", "from vdb6 on", **gone(1))
    host.refused("volume", "in_use", "vdb6", "take its number", **gone(5))
    for number in (6, 5, 1):
        host.ok("volume", **gone(number))
    assert numbers() == host.volumes("data") == []


def test_partitions_in_use(host: Host, disks: Disks) -> None:
    host.ok("pool_disk", build="if_blank", **on(disks.vdb))
    for number in (1, 2):
        host.ok("volume", **partition(number, capacity="32MiB"))
    subprocess.run(["mkfs.ext4", "-q", "/dev/vdb1"], check=True)
    subprocess.run(["mount", "/dev/vdb1", "/mnt"], check=True)
    try:
        host.refused("volume", "in_use", "mounted on /mnt", **gone(1))
        host.refused("pool_disk", "in_use", "mounted on /mnt", delete_data=True, **GONE)
        host.ok("pool_disk", state="inactive", **on(disks.vdb))
        host.refused("pool_disk", "in_use", "/dev/vdb1", "mounted on /mnt", delete_data=True, **GONE)
    finally:
        subprocess.run(["umount", "/mnt"], check=True)
    domain = defined_guest(host.uri, "web01", "/dev/vdb2")
    host.refused("pool_disk", "in_use", "'web01'", delete_data=True, **GONE)
    host.ok("pool_disk", **on(disks.vdb))
    with open("/dev/vdb2", "rb"):
        host.refused("volume", "in_use", "'web01'", **gone(2))
        domain.undefine()
        host.refused("volume", "in_use", "open in", **gone(2))
    host.ok("volume", **gone(2))


@pytest.mark.long
def test_without_the_guard_a_mounted_disk_is_lost(host: Host, disks: Disks) -> None:
    host.ok("pool_disk", build="if_blank", **on(disks.vdb))
    host.ok("volume", **partition(1, capacity="32MiB"))
    subprocess.run(["mkfs.ext4", "-q", "/dev/vdb1"], check=True)
    subprocess.run(["mount", "/dev/vdb1", "/mnt"], check=True)
    try:
        with switched_off("pool:Pool.check_storage"):
            host.ok("pool_disk", delete_data=True, **GONE)
        assert table() == ""
    finally:
        subprocess.run(["umount", "/mnt"], check=True)


def test_the_disk_of_a_guest_is_not_built_on(host: Host, disks: Disks) -> None:
    defined_guest(host.uri, "web01", disks.vdb)
    for build in ("if_blank", "overwrite"):
        host.refused("pool_disk", "in_use", "'web01'", build=build, **on("/dev/vdb"))
    assert table() == ""
