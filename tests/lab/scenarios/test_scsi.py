# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SCSI adapters of a real machine: a virtio one by name and by address, and adapters that libvirt says little of."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, change_while_active, walk_through_states, within
from tests.lab.scenarios.cells import on_devices
from tests.lab.scenarios.target import MIB, Target, logged_in

GIB = 1 << 30
GONE = {"name": "hba", "state": "absent"}
DISK = "/dev/disk/by-id/wwn-0x5000c50015ea71aa"
CLASS = Path("/sys/class/scsi_host")


def by_name(host: str) -> dict[str, Any]:
    return {"name": "hba", "adapter": {"type": "scsi_host", "name": host}}


def by_address(host: str) -> dict[str, Any]:
    """The same adapter by what stays the same after a reboot."""
    address = re.findall(r"/([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-9a-f])/", os.path.realpath(CLASS / host))[-1]
    parent: dict[str, Any] = dict(zip(("domain", "bus", "slot", "function"), address, strict=True))
    parent["unique_id"] = int((CLASS / host / "unique_id").read_text())
    return {"type": "scsi_host", "parent_address": parent}


@pytest.fixture(scope="module")
def adapter() -> str:
    """The SCSI host of the guest's own SCSI disk."""
    return host_of(Path(os.path.realpath(DISK)).name)


def host_of(device: str) -> str:
    return "host" + os.path.basename(os.path.realpath(f"/sys/class/block/{device}/device")).partition(":")[0]


@pytest.fixture
def debug() -> Iterator[str]:
    """An adapter of scsi_debug with two LUNs, which have no names by path."""
    before = set(CLASS.iterdir())
    subprocess.run(["modprobe", "scsi_debug", "dev_size_mb=16", "num_tgts=1", "max_luns=2"], check=True)
    subprocess.run(["udevadm", "settle"], check=True)
    (made,) = set(CLASS.iterdir()) - before
    yield made.name
    subprocess.run(["udevadm", "settle"], check=True)
    subprocess.run(["modprobe", "-r", "scsi_debug"], check=True)


def test_states(host: Host, adapter: str) -> None:
    walk_through_states(host, "pool_scsi", by_name(adapter), born=["define"], up=["start"])


def test_change_while_active(host: Host, adapter: str) -> None:
    """From the adapter next to it to this one, which is named by its address."""
    other = next(name.name for name in sorted(CLASS.iterdir()) if name.name != adapter)
    change_while_active(host, "pool_scsi", by_name(other), adapter=by_address(adapter))
    assert "parentaddr" in host.pool_xml("hba")
    assert host.volumes("hba")


def test_luns(host: Host, adapter: str) -> None:
    host.ok("pool_scsi", **by_name(adapter))
    disk = next(one for one in host.ok("volume_info", pool="hba")["volumes"] if one["key"] == "35000c50015ea71aa")
    assert disk["capacity"] == GIB
    assert disk["path"].startswith("/dev/disk/by-path/")
    assert os.path.realpath(disk["path"]) == os.path.realpath(DISK)
    name = disk["name"]
    host.refused("volume", "unsupported", "array", pool="hba", name="new", capacity="8MiB")
    host.refused("volume", "unsupported", "array", pool="hba", name=name, capacity="2GiB")
    host.refused("volume", "unsupported", "array", pool="hba", name=name, state="absent")
    host.unchanged("volume", pool="hba", name=name, capacity="1GiB")
    with open(DISK, "rb"):  # the adapter stays, so whoever uses its disks may go on
        host.converge("pool_scsi", ["stop", "undefine"], **GONE)


def test_adapter_that_is_not_there(host: Host, adapter: str) -> None:
    with within(60):
        found = host.refused("pool_scsi", "no_source", adapter, "unique_id", **by_name("host77"))
    assert str(by_address(adapter)["parent_address"]["slot"]) in found["msg"]
    nowhere = {**by_address(adapter)["parent_address"], "slot": "1e"}
    host.refused("pool_scsi", "no_source", name="hba", adapter={"type": "scsi_host", "parent_address": nowhere})


def test_luns_without_a_name(host: Host, debug: str) -> None:
    """libvirt waits 10 s for each, and then the pool is empty; in another directory they do have names."""
    pool = by_name(debug)
    predicted = host.ok("pool_scsi", check=True, **pool)
    assert any("no name in /dev/disk/by-path" in words and "by-id" in words for words in predicted["warnings"])
    with within(60):
        host.failed("pool_scsi", "timeout", "give path: /dev/disk/by-id", wait_timeout=1, **pool)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not active(host, "hba"):
        time.sleep(0.5)
    assert host.volumes("hba") == [], "libvirt has been waiting"
    host.ok("pool_scsi", **GONE)
    with within(60):
        done = host.ok("pool_scsi", path="/dev/disk/by-id", **pool)
    assert (done["warnings"], len(host.volumes("hba"))) == ([], 2)
    host.ok("pool_scsi", **GONE)


def active(host: Host, name: str) -> bool:
    return any(one["state"] == "active" for one in host.ok("pool_info", names=[name])["pools"])


def test_two_luns_with_one_number(host: Host, tmp_path: Path) -> None:
    """libvirt's own words are that the cause is unknown."""
    with Target(tmp_path, "iqn.2026-01.lab:twins", luns=()) as target:
        target.add_lun(16 * MIB, serial="0123456789abcdef")
        target.add_lun(16 * MIB, serial="0123456789abcdef")
        with logged_in(target):
            devices = [Path(os.path.realpath(link)).name for link in Path("/dev/disk/by-path").glob("*lab:twins*")]
            pool = by_name(host_of(devices[0]))
            before = host.state()
            host.failed("pool_scsi", "backend_refused", "same WWN", *devices, **pool)
            assert host.state() == before, "nothing half made is left"


def test_every_operation(host: Host, tmp_path: Path) -> None:
    """On the adapter of a session, whose LUN is small."""
    with Target(tmp_path / "target", "iqn.2026-01.lab:cells", luns=(32 * MIB,)) as target, logged_in(target):
        (device,) = {Path(os.path.realpath(link)).name for link in Path("/dev/disk/by-path").glob("*lab:cells*")}
        host.ok("pool_scsi", **by_name(host_of(device)))
        on_devices(host, "scsi", "hba", tmp_path, lun=host.volumes("hba")[0])
        host.ok("pool_scsi", **GONE)
