# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dm-multipath over two portals of one target: the pool, a path that fails and comes back, and who holds what."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, walk_through_states
from tests.lab.scenarios.cells import on_devices
from tests.lab.scenarios.target import MIB, Target, cut_off, logged_in

FIRST, SECOND = ("127.0.0.1", 3260), ("127.0.0.2", 3260)
POOL = {"name": "multipath"}
GONE = {"name": "multipath", "state": "absent"}
CONFIGURATION = Path("/etc/multipath.conf")
SETTINGS = """\
defaults {
    find_multipaths yes
    user_friendly_names no
    polling_interval 1
    max_polling_interval 1
}
overrides {
    no_path_retry fail
}
blacklist {
    devnode "^(vd|sr)"
    wwid "35000c50015ea71.*"
}
"""


def said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def until(true: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait for what daemons notice in their own time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, said("multipath", "-ll")
        time.sleep(0.3)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target on two portals, and LUN 0 filled with a pattern."""
    with Target(tmp_path_factory.mktemp("target"), "iqn.2026-01.lab:paths", portals=(FIRST, SECOND)) as made:
        made.lun_files[0].write_bytes(b"lab" * MIB)
        os.truncate(made.lun_files[0], 64 * MIB)
        yield made


@pytest.fixture(scope="module")
def paths(target: Target) -> Iterator[None]:
    """The host logged in at both portals, and multipathd."""
    before = CONFIGURATION.read_bytes() if CONFIGURATION.exists() else None
    CONFIGURATION.write_text(SETTINGS)
    subprocess.run(["systemctl", "start", "multipathd"], check=True)
    try:
        with logged_in(target, FIRST, SECOND, hasty=True):
            until(lambda: len(maps()) == 1)
            yield
            subprocess.run(["multipath", "-F"], check=False)
    finally:
        subprocess.run(["systemctl", "stop", "multipathd.socket", "multipathd"], check=True, capture_output=True)
        CONFIGURATION.unlink()
        if before is not None:
            CONFIGURATION.write_bytes(before)


def maps() -> list[str]:
    return [line.split()[0] for line in said("dmsetup", "ls", "--target", "multipath").splitlines() if "(" in line]


def states() -> list[str]:
    """What the kernel says of each path."""
    return sorted(said("multipathd", "show", "paths", "raw", "format", "%t").split())


def reads(path: str) -> bytes:
    """The beginning of a device, from the device itself."""
    return subprocess.run(
        ["dd", f"if={path}", "iflag=direct", "bs=64k", "count=1", "status=none"], capture_output=True, check=True
    ).stdout


def volume(host: Host, **more: Any) -> dict[str, Any]:
    (one,) = host.ok("volume_info", pool="multipath", **more)["volumes"]
    return dict(one)


def test_without_any_device(host: Host) -> None:
    """Without multipathd a pool is active, empty and looks well."""
    for check in (True, False):
        told = host.ok("pool_mpath", check=check, **POOL)["warnings"]
        assert any("no multipath device" in words and "multipathd" in words for words in told), told
    assert host.volumes("multipath") == []


def test_states(host: Host, paths: None) -> None:
    walk_through_states(host, "pool_mpath", POOL, born=["define"], up=["start"])


def test_volumes(host: Host, paths: None) -> None:
    assert host.ok("pool_mpath", **POOL)["warnings"] == []
    (name,) = maps()
    found = volume(host)
    assert (found["path"], found["capacity"]) == (f"/dev/mapper/{name}", 64 * MIB)
    host.refused("pool_mpath", "source_conflict", "'multipath'", name="second")
    host.refused("volume", "unsupported", "array", pool="multipath", name="new", capacity="8MiB")
    host.refused("volume", "unsupported", "array", pool="multipath", name=found["name"], capacity="1GiB")
    host.refused("volume", "unsupported", "array", pool="multipath", name=found["name"], state="absent")
    host.refused("pool_mpath", "unsupported", "LUNs", delete_data=True, **GONE)


def test_paths_fail_and_come_back(host: Host, paths: None) -> None:
    """The volume stays, and can be read, by whichever path there is."""
    host.ok("pool_mpath", **POOL)
    there = volume(host)
    for portal in (FIRST, SECOND):
        with cut_off(*portal):
            assert reads(there["path"]).startswith(b"lablab")
            until(lambda: states() == ["active", "failed"])
            assert "failed" in said("multipath", "-ll")
            assert volume(host, refresh=True)["capacity"] == 64 * MIB
            host.unchanged("pool_mpath", **POOL)
            assert reads(there["path"]).startswith(b"lablab")
        until(lambda: states() == ["active", "active"])
    assert volume(host) == there


def test_every_operation(host: Host, paths: None, tmp_path: Path) -> None:
    host.ok("pool_mpath", **POOL)
    on_devices(host, "mpath", "multipath", tmp_path, lun=volume(host)["name"], others="dm-9%d")


def test_iscsi_pool_below_it(host: Host, target: Target, paths: None) -> None:
    """To stop the pool of the LUNs takes a path from its map. The last test: the host fixture does just that."""
    luns = {"name": "luns", "hosts": target.hosts, "target_iqn": target.iqn, "wait_timeout": 60}
    host.ok("pool_iscsi", **luns)
    host.refused("pool_iscsi", "in_use", f"held by {maps()[0]}", name="luns", state="absent")
