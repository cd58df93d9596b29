# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS on its own kernel module: zpools, datasets and zvols."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.helpers import Host, change_while_active, switched_off, walk_through_states
from tests.lab.scenarios.cells import on_devices
from tests.lab.scenarios.conftest import Disks, defined_guest

MIB = 1 << 20
BLOCK = 16 * 1024
GONE = {"name": "data", "state": "absent"}
TANK = {"name": "data", "source_name": "tank"}
VMS = {"name": "data", "source_name": "tank/vms"}


def zfs(*argv: str) -> str:
    return subprocess.run(["zfs", *argv], capture_output=True, text=True, check=True).stdout.strip()


def zpool(*argv: str) -> str:
    return subprocess.run(["zpool", *argv], capture_output=True, text=True, check=True).stdout.strip()


def zpools() -> str:
    command = ["zpool", "list", "-H", "-o", "name"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def settle() -> None:
    subprocess.run(["udevadm", "settle"], check=True)


@pytest.fixture
def tank(disks: Disks) -> Disks:
    """A zpool made by hand."""
    zpool("create", "-f", "tank", disks.vdb)
    return disks


def test_life_of_a_new_zpool(host: Host, disks: Disks) -> None:
    pool = {**TANK, "devices": [disks.vdb, disks.vdc]}
    host.converge("pool_zfs", ["define", "build", "start"], "tank", build="if_blank", **pool)
    zvol = {"pool": "data", "name": "web01", "capacity": "5000000"}
    host.converge("volume", ["create"], "web01", **zvol)
    assert zfs("get", "-Hpo", "value", "volsize", "tank/web01") == str(-(-5000000 // BLOCK) * BLOCK)
    host.converge("volume", ["resize"], **{**zvol, "capacity": "20000001"})
    assert zfs("get", "-Hpo", "value", "volsize", "tank/web01") == str(-(-20000001 // BLOCK) * BLOCK)
    host.refused("volume", "would_shrink", **zvol)
    host.converge("volume", ["delete"], pool="data", name="web01", state="absent")
    host.converge("pool_zfs", ["stop", "delete_storage", "undefine"], "DESTROYS DATA", delete_data=True, **GONE)
    assert zpools() == ""


@pytest.mark.long
def test_states_of_an_existing_zpool(host: Host, tank: Disks) -> None:
    walk_through_states(host, "pool_zfs", TANK, born=["define"], up=["start"])


def test_life_of_a_dataset(host: Host, tank: Disks) -> None:
    host.refused("pool_zfs", "no_source", "'tank/vms'", "'tank'", **VMS)
    host.converge("pool_zfs", ["define", "build", "start"], build="if_blank", **VMS)
    host.ok("volume", pool="data", name="web01", capacity="1MiB")
    assert zfs("list", "-H", "-o", "name", "-t", "volume") == "tank/vms/web01"
    (told,) = host.ok("pool_info", identity=True)["pools"]
    assert told["identity"] == f"zpool {zpool('get', '-Hpo', 'value', 'guid', 'tank')}, dataset vms"
    zfs("create", "-V", "1M", "tank/vms.other")
    host.converge("pool_zfs", ["stop", "delete_storage", "undefine"], delete_data=True, **GONE)
    assert zfs("list", "-H", "-o", "name").split() == ["tank", "tank/vms.other"], "what is beside it stays"


@pytest.mark.long
def test_change_while_active(host: Host, tank: Disks) -> None:
    zfs("create", "tank/vms")
    change_while_active(host, "pool_zfs", TANK, source_name="tank/vms")


@pytest.mark.long
def test_sizes(host: Host, tank: Disks) -> None:
    """Every size is rounded up to a block, and is found again by the next run."""
    host.ok("pool_zfs", **TANK)
    sizes = [1, 16384, 16385, 131073, 1048577, 10000000, 33554431]
    for number, size in enumerate(sizes):
        zvol = {"pool": "data", "name": f"v{number}", "capacity": str(size), "allocation": "0"}
        host.ok("volume", **zvol)
        assert zfs("get", "-Hpo", "value", "volsize", f"tank/v{number}") == str(-(-size // BLOCK) * BLOCK)
        assert host.ok("volume", **zvol)["changed"] is False


def test_a_zpool_that_is_not_there(host: Host, tank: Disks) -> None:
    host.refused("pool_zfs", "no_source", "'missing'", "'tank'", **{**TANK, "source_name": "missing"})
    host.ok("pool_zfs", state="inactive", **TANK)
    zpool("export", "tank")
    host.refused("pool_zfs", "no_source", "'tank'", "none at all", "zpool import", **TANK)
    zpool("import", "tank")
    host.converge("pool_zfs", ["start"], **TANK)
    zfs("create", "-V", "1M", "tank/lone")
    lone = {"name": "lone", "source_name": "tank/lone"}
    host.refused("pool_zfs", "bad_value", "'tank/lone' is a volume", "give tank", **lone)


def test_a_disk_with_something_on_it_is_not_taken(host: Host, disks: Disks) -> None:
    pool = {**TANK, "devices": [disks.vdb, disks.vdc], "build": "if_blank"}
    host.refused("pool_zfs", "no_source", "/dev/nope", **{**pool, "devices": ["/dev/nope"]})
    host.refused("pool_zfs", "bad_value", "give devices", build="if_blank", **TANK)
    # a partition table without a file system: zpool itself would write over it
    subprocess.run(["sgdisk", "-n", "1:0:+64M", disks.node(disks.vdc)], check=True, capture_output=True)
    host.refused("pool_zfs", "no_source", "'tank'", "blank", **pool)
    disks.wipe(disks.vdc)
    defined_guest(host.uri, "web01", disks.vdc)
    host.refused("pool_zfs", "in_use", "'web01'", **pool)
    assert zpools() == ""


def test_what_libvirt_does_not_list_is_not_given_up(host: Host, tank: Disks) -> None:
    host.ok("pool_zfs", **TANK)
    host.ok("volume", pool="data", name="web01", capacity="1MiB")
    with open("/tank/precious", "w", encoding="utf-8") as file:
        file.write("data")
    zfs("create", "tank/home")
    zfs("create", "-V", "1M", "tank/home/deep")
    zfs("snapshot", "tank/web01@before")
    words = ("filesystem tank/home", "volume tank/home/deep", "snapshot tank/web01@before", "files in tank")
    host.refused("pool_zfs", "not_volumes", *words, delete_data=True, **GONE)
    host.ok("pool_zfs", state="inactive", **TANK)
    host.refused("pool_zfs", "not_volumes", *words, delete_data=True, **GONE)
    zfs("destroy", "-r", "tank/home")
    zfs("destroy", "tank/web01@before")
    host.refused("pool_zfs", "not_volumes", "files in tank", delete_data=True, **GONE)
    os.unlink("/tank/precious")
    host.ok("pool_zfs", delete_data=True, **GONE)
    assert zpools() == ""


@pytest.mark.long
def test_without_the_guard_a_file_system_is_lost(host: Host, tank: Disks) -> None:
    zfs("create", "tank/home")
    host.ok("pool_zfs", **TANK)
    with switched_off("pool:Pool.check_storage"):
        host.ok("pool_zfs", delete_data=True, **GONE)
    assert zpools() == ""


def test_zvols_in_use(host: Host, tank: Disks) -> None:
    host.ok("pool_zfs", **TANK)
    for name in ("mounted", "guest", "kept"):
        host.ok("volume", pool="data", name=name, capacity="16MiB")
    settle()
    subprocess.run(["mkfs.ext4", "-q", "/dev/zvol/tank/mounted"], check=True)
    subprocess.run(["mount", "/dev/zvol/tank/mounted", "/mnt"], check=True)
    try:
        absent = {"pool": "data", "state": "absent"}
        host.refused("volume", "in_use", "mounted on /mnt", name="mounted", **absent)
        host.refused("pool_zfs", "in_use", "mounted on /mnt", delete_data=True, **GONE)
    finally:
        subprocess.run(["umount", "/mnt"], check=True)
    zfs("snapshot", "tank/kept@before")
    zfs("clone", "tank/kept@before", "tank/clone")
    host.refused("volume", "has_overlays", "tank/kept@before (cloned as tank/clone)", name="kept", **absent)
    zfs("destroy", "-R", "tank/kept@before")
    domain = defined_guest(host.uri, "web01", "/dev/zvol/tank/guest")
    host.refused("volume", "in_use", "'web01'", name="guest", **absent)
    host.ok("pool_zfs", state="inactive", **TANK)
    host.refused("pool_zfs", "in_use", "'web01'", delete_data=True, **GONE)
    domain.undefine()
    host.ok("pool_zfs", delete_data=True, **GONE)


def test_a_zvol_of_a_dataset_below(host: Host, tank: Disks) -> None:
    """libvirt lists it under its last name, as if it were one of the zpool."""
    zfs("create", "tank/vms")
    zfs("create", "-V", "1M", "tank/vms/web01")
    host.ok("pool_zfs", **TANK)
    assert host.volumes("data") == ["web01"]
    host.refused("volume", "not_a_volume", "tank/web01", pool="data", name="web01", state="absent")


def test_a_full_zpool(host: Host, tank: Disks) -> None:
    host.ok("pool_zfs", **TANK)
    before = host.state()
    host.failed("volume", "backend_refused", "out of space", pool="data", name="big", capacity="5GiB")
    assert host.state() == before


def test_every_operation(host: Host, tank: Disks, tmp_path: Path) -> None:
    host.ok("pool_zfs", **TANK)
    on_devices(host, "zfs", "data", tmp_path)
