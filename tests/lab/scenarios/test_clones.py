# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clones in LVM, LVM thin pools and ZFS, and between them and files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.helpers import Host
from tests.lab.scenarios.conftest import Disks

MIB = 1 << 20
SIZE = 4 * MIB
BASE = {"pool": "images", "volume": "base.qcow2", "format": "qcow2"}
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(SIZE // 32))


def command(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def starts(device: str, size: int) -> bool:
    """Whether a device has the content, and zeroes behind it."""
    command("udevadm", "settle")
    with open(device, "rb") as file:
        found = file.read()
    return found[:SIZE] == DATA and found[SIZE:] == bytes(size - SIZE) and len(found) == size


@pytest.fixture
def images(host: Host, tmp_path: Path) -> Path:
    host.ok("pool_dir", name="images", path=f"{tmp_path}/images")
    (tmp_path / "data").write_bytes(DATA)
    command("qemu-img", "convert", "-O", "qcow2", f"{tmp_path}/data", f"{tmp_path}/images/base.qcow2")
    host.ok("volume_info", pool="images", refresh=True)
    return tmp_path / "images"


@pytest.fixture
def group(host: Host, disks: Disks) -> str:
    """A volume group whose space was written before, as by a guest that is gone."""
    with open(disks.node(disks.vdb), "wb") as device:
        for _block in range(64):
            device.write(b"\xa5" * MIB)
    command("vgcreate", "--yes", "guests", disks.vdb)
    host.ok("pool_logical", name="guests", source_name="guests")
    return "guests"


def test_logical(host: Host, images: Path, group: str) -> None:
    wanted = {"pool": "guests", "name": "web01", "source": {**BASE, "verify": True}, "capacity": "8MiB"}
    host.converge("volume_clone", ["clone"], "images/base.qcow2", **wanted)
    assert starts("/dev/guests/web01", 8 * MIB), "what a guest wrote there before is not shown to another"
    host.converge("volume_clone", ["clone"], pool="guests", name="web02", source={"volume": "web01"})
    assert starts("/dev/guests/web02", 8 * MIB)
    host.refused(
        "volume_clone",
        "unsupported",
        "mode: full",
        pool="guests",
        name="x",
        source={"volume": "web01", "mode": "linked"},
    )
    host.converge(
        "volume_clone",
        ["clone"],
        pool="images",
        name="back.raw",
        format="raw",
        source={"pool": "guests", "volume": "web02"},
    )
    assert (images / "back.raw").read_bytes() == DATA + bytes(4 * MIB)
    assert command("lvs", "--noheadings", "-o", "lv_name", "guests").split() == ["web01", "web02"]


def test_what_a_killed_run_leaves(host: Host, images: Path, group: str) -> None:
    from ansible_collections.kvm.storage.plugins.module_utils import files

    own = f"kvm.storage-{files.this_host()}-1-123"
    for name in (own, "kvm.storage-00000000-1-123"):
        command("lvcreate", "--yes", "-Wn", "-n", name, "-L", "4M", "guests")
    host.ok("volume_clone", pool="guests", name="web01", source=BASE)
    assert command("lvs", "--noheadings", "-o", "lv_name", "guests").split() == ["kvm.storage-00000000-1-123", "web01"]


def test_a_mounted_source(host: Host, images: Path, group: str, tmp_path: Path) -> None:
    host.ok("volume", pool="guests", name="web01", capacity="8MiB")
    command("mkfs.ext4", "-q", "/dev/guests/web01")
    (tmp_path / "mnt").mkdir()
    command("mount", "/dev/guests/web01", f"{tmp_path}/mnt")
    try:
        host.refused("volume_clone", "in_use", pool="guests", name="web02", source={"volume": "web01"})
    finally:
        command("umount", f"{tmp_path}/mnt")


def test_thin(host: Host, images: Path, group: str) -> None:
    command("lvcreate", "--yes", "--type", "thin-pool", "-L", "64M", "-n", "thin", "guests")
    wanted = {"pool": "guests", "name": "base", "source": BASE, "capacity": "8MiB", "thin_pool": "thin"}
    host.converge("volume_clone", ["clone"], **wanted)
    assert starts("/dev/guests/base", 8 * MIB)
    assert float(command("lvs", "--noheadings", "-o", "data_percent", "guests/base")) < 60, "zeroes take no space"
    host.converge("volume_clone", ["clone"], pool="guests", name="web01", source={"volume": "base"}, capacity="12MiB")
    assert command("lvs", "--noheadings", "-o", "origin,pool_lv", "guests/web01").split() == ["base", "thin"]
    assert starts("/dev/guests/web01", 12 * MIB)
    host.ok("volume", pool="guests", name="base", state="absent")
    assert starts("/dev/guests/web01", 12 * MIB), "it stands by itself"


def test_zfs(host: Host, images: Path, disks: Disks) -> None:
    command("zpool", "create", "-f", "tank", disks.vdc)
    host.ok("pool_zfs", name="data", source_name="tank")
    host.converge("volume_clone", ["clone"], pool="data", name="base", source=BASE, capacity="8MiB")
    assert starts("/dev/zvol/tank/base", 8 * MIB)
    source = {"volume": "base", "mode": "linked"}
    host.converge("volume_clone", ["clone"], pool="data", name="web01", source=source, capacity="16MiB")
    assert starts("/dev/zvol/tank/web01", 16 * MIB)
    assert command("zfs", "get", "-Hpo", "value", "origin", "tank/web01").startswith("tank/base@kvm.storage-")
    host.converge("volume_clone", ["clone"], pool="data", name="web02", source={"volume": "web01", "verify": True})
    assert command("zfs", "get", "-Hpo", "value", "origin", "tank/web02") == "-"
    assert starts("/dev/zvol/tank/web02", 16 * MIB)
    host.ok("volume", pool="data", name="web01", state="absent")
    assert command("zfs", "list", "-H", "-t", "snapshot", "-o", "name") == "", "the snapshot goes with its clone"
    assert sorted(os.listdir("/dev/zvol/tank")) == ["base", "web02"]
