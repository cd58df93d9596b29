# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""volume_resize and volume_wipe where they need a kernel of their own: LVM, its thin pools, ZFS, LUNs of iSCSI."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import MIB, Host, connected, switched_off
from tests.lab.scenarios.conftest import URI, Disks, remove_everything
from tests.lab.scenarios.lvm import LvmHost, defined, made, mounted, said, size_of, told
from tests.lab.scenarios.target import Target

GROUP = "vg-lab"
PATTERN = hashlib.sha512(b"what the guest held").digest()
LENGTH = 2 * MIB


def fill(device: str, offset: int = MIB) -> str:
    """The guest's data, and the checksum of what lies before its end."""
    with open(device, "r+b") as disk:
        disk.seek(offset)
        disk.write(PATTERN * (LENGTH // len(PATTERN)))
        os.fsync(disk.fileno())
    return checksum(device, offset + LENGTH)


def checksum(device: str, length: int) -> str:
    with open(device, "rb") as disk:
        return hashlib.sha256(disk.read(length)).hexdigest()


def holds(device: str) -> bool:
    return PATTERN in Path(device).read_bytes()


@pytest.fixture(scope="module")
def group() -> Iterator[LvmHost]:
    """A volume group of a thin pool and room beside it, libvirt's pool over it, and a volume of each kind."""
    host, disks = LvmHost(URI), Disks()
    remove_everything()
    disks.wipe()
    said("vgcreate", GROUP, disks.node(disks.vdb))
    said("lvcreate", "--type", "thin-pool", "--size", "64M", "--name", "thin", GROUP)
    host.ok("pool_logical", name="guests", source_name=GROUP)
    host.ok("volume", pool="guests", name="thick", capacity="16MiB")
    host.ok("volume", pool="guests", name="slim", capacity="16MiB", thin_pool="thin")
    yield host
    remove_everything()
    disks.wipe()


@pytest.fixture
def lvm(group: LvmHost) -> LvmHost:
    """The same for each test: the volumes have their first size, and the thin one holds nothing."""
    resized = [name for name in ("thick", "slim") if size_of(f"{GROUP}/{name}") != 16 * MIB]
    for name in resized:
        said("lvresize", "--yes", "--force", "--fs", "ignore", "--size", "16M", f"{GROUP}/{name}")
    said("blkdiscard", "--force", f"/dev/{GROUP}/slim")
    if "thick" in resized:
        group.ok("volume_info", pool="guests", refresh=True)
    return group


def disk(name: str, **more: Any) -> dict[str, Any]:
    return {"pool": "guests", "name": name, **more}


@pytest.mark.parametrize("name", ["thick", "slim"])
def test_logical_volumes(lvm: LvmHost, name: str) -> None:
    """What lies before the smaller end is the same after each step, and sizes are whole extents."""
    device = f"/dev/{GROUP}/{name}"
    before = fill(device)
    lvm.converge("volume_resize", ["grow"], **disk(name, capacity="20000001"))
    assert size_of(f"{GROUP}/{name}") == 20 * MIB
    lvm.refused("volume_resize", "would_shrink", "if_unused", **disk(name, capacity="12MiB"))
    lvm.refused("volume_resize", "would_shrink", "no file", **disk(name, capacity="12MiB", shrink="if_unused"))
    said("mkfs.ext4", "-qF", "-E", "offset=8388608", device, "8M")
    lvm.converge("volume_resize", ["shrink"], **disk(name, capacity="8MiB", shrink="discard"))
    assert size_of(f"{GROUP}/{name}") == 8 * MIB
    assert checksum(device, MIB + LENGTH) == before
    lvm.ok("volume_resize", **disk(name, capacity="+4MiB"))
    assert size_of(f"{GROUP}/{name}") == 12 * MIB


def test_file_system_of_a_guest_does_not_stop_lvm(lvm: LvmHost) -> None:
    """Newer lvreduce looks for one by itself; what may go is decided before."""
    said("mkfs.ext4", "-qF", f"/dev/{GROUP}/thick")
    lvm.converge("volume_resize", ["shrink"], **disk("thick", capacity="8MiB", shrink="discard"))


@pytest.mark.parametrize("name", ["slim", pytest.param("thick", marks=pytest.mark.long)])
def test_running_guest_sees_it_grow(lvm: LvmHost, name: str) -> None:
    device = f"/dev/{GROUP}/{name}"
    with defined(lvm, device, running=True), connected(lvm.uri) as connection:
        guest = connection.lookupByName("web01")
        lvm.converge("volume_resize", ["grow", "tell_guest"], **disk(name, capacity="20MiB"))
        assert guest.blockInfo("vda")[0] == 20 * MIB
        said("lvextend", "--size", "24M", f"{GROUP}/{name}")  # as a run that was killed before the guest was told
        lvm.ok("volume_info", pool="guests", refresh=True)
        lvm.converge("volume_resize", ["tell_guest"], **disk(name, capacity="24MiB"))
        assert guest.blockInfo("vda")[0] == 24 * MIB
        lvm.refused("volume_resize", "in_use", "'web01'", **disk(name, capacity="8MiB", shrink="discard"))
        lvm.refused("volume_wipe", "in_use", "'web01'", **disk(name))


def test_room_in_the_group(lvm: LvmHost) -> None:
    lvm.refused("volume_resize", "no_space", "at once", **disk("thick", capacity="1TiB"))
    lvm.refused("volume_resize", "no_space", "thin pool 'thin'", **disk("slim", capacity="1GiB", overcommit="refuse"))
    (warning,) = lvm.ok("volume_resize", **disk("slim", capacity="1GiB"))["warnings"]
    assert "thin pool 'thin'" in warning


def test_snapshots_keep_what_was_there(lvm: LvmHost) -> None:
    with made(f"{GROUP}/before", "--snapshot", "--size", "8M", f"{GROUP}/thick"):
        lvm.refused("volume_resize", "unsupported", "'before'", **disk("thick", capacity="20MiB"))
        lvm.refused("volume_wipe", "has_snapshots", "'before'", **disk("thick"))
    with made(f"{GROUP}/before", "--snapshot", f"{GROUP}/slim"):
        lvm.refused("volume_wipe", "has_snapshots", "'before'", **disk("slim"))
        lvm.refused("volume_wipe", "has_snapshots", "origin 'slim'", **disk("before"))


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("thick", "zero"),
        ("slim", "zero"),
        ("slim", "trim"),
        ("thick", "random"),
        *(pytest.param(*one, marks=pytest.mark.long) for one in (("thick", "trim"), ("slim", "random"))),
    ],
)
def test_wipe_of_logical_volumes(lvm: LvmHost, name: str, algorithm: str) -> None:
    """What is thin stays thin, unless all of it is written."""
    device = f"/dev/{GROUP}/{name}"
    fill(device)
    assert holds(device)
    done = lvm.run("volume_wipe", **disk(name, algorithm=algorithm))
    if algorithm == "trim" and done.get("failed"):
        assert "not supported" in done["msg"]  # the disk below takes no discards
        return
    assert not done.get("failed"), done
    assert name == "thick" and algorithm == "trim" or not holds(device)
    assert size_of(f"{GROUP}/{name}") == 16 * MIB
    if name == "slim" and algorithm != "random":
        assert float(told("lvs", "--options", "data_percent", f"{GROUP}/slim")[0]) < 50
    with mounted(device):
        lvm.refused("volume_wipe", "in_use", **disk(name))


def test_without_the_guard_of_the_host_a_mounted_disk_is_still_not_taken(lvm: LvmHost) -> None:
    """It is opened for one alone."""
    with mounted(f"/dev/{GROUP}/thick"), switched_off("volume:Volume.check_device_closed"):
        lvm.failed("volume_wipe", "in_use", "open or mounted", **disk("thick"))


# ZFS


def zfs(*argv: str) -> str:
    return subprocess.run(["zfs", *argv], capture_output=True, text=True, check=True).stdout.strip()


def test_zvols(host: Host, disks: Disks) -> None:
    subprocess.run(["zpool", "create", "-f", "tank", disks.vdb], capture_output=True, check=True)
    host.ok("pool_zfs", name="data", source_name="tank")
    zvol, device = {"pool": "data", "name": "web01"}, "/dev/zvol/tank/web01"
    host.ok("volume", **zvol, capacity="16MiB")
    subprocess.run(["udevadm", "settle"], check=True)
    before = fill(device)
    host.converge("volume_resize", ["grow"], **zvol, capacity="32MiB")
    host.refused("volume_resize", "no_space", "at once", **zvol, capacity="1TiB")
    host.refused("volume_resize", "would_shrink", "no file", **zvol, capacity="8MiB", shrink="if_unused")
    host.converge("volume_resize", ["shrink"], **zvol, capacity="8MiB", shrink="discard")
    assert zfs("get", "-Hpo", "value", "volsize", "tank/web01") == str(8 * MIB)
    assert checksum(device, MIB + LENGTH) == before
    with defined(host, device, running=True), connected(host.uri) as connection:
        host.converge("volume_resize", ["grow", "tell_guest"], **zvol, capacity="16MiB")
        assert connection.lookupByName("web01").blockInfo("vda")[0] == 16 * MIB
        host.refused("volume_wipe", "in_use", "'web01'", **zvol)
    zfs("snapshot", "tank/web01@one")
    host.refused("volume_wipe", "has_snapshots", "tank/web01@one", **zvol)
    zfs("destroy", "tank/web01@one")
    for algorithm in ("zero", "random", "trim"):
        fill(device)
        assert host.ok("volume_wipe", **zvol, algorithm=algorithm)["actions"] == ["wipe"]
        assert not holds(device)
    assert Path(device).read_bytes() == bytes(16 * MIB)


# LUNs


def test_luns(host: Host, tmp_path: Path) -> None:
    """Their size is the array's affair, and what they hold is the guest's."""
    portals = (("127.0.0.1", 3260),)
    with Target(tmp_path, "iqn.2026-01.lab:wiped", luns=(16 * MIB,), portals=portals) as target:
        host.ok("pool_iscsi", name="luns", hosts=target.hosts, target_iqn=target.iqn, wait_timeout=60)
        (name,) = host.volumes("luns")
        lun = {"pool": "luns", "name": name}
        device = host.ok("volume_info", **{"pool": "luns"}, users=False)["volumes"][0]["path"]
        host.refused("volume_resize", "unsupported", "array", **lun, capacity="+8MiB")
        fill(device)
        host.ok("volume_wipe", **lun)
        os.sync()
        assert not holds(device)
        assert PATTERN not in target.lun_files[0].read_bytes()
        with mounted(device):
            host.refused("volume_wipe", "in_use", **lun)
        host.ok("pool_iscsi", name="luns", state="absent")
