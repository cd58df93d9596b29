# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories and file systems on real disks: what is mounted, by whom, and what is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, switched_off, walk_through_states
from tests.lab.scenarios.conftest import Disks, defined_guest

GONE = {"name": "data", "state": "absent"}
PATH = "/srv/data"


def mkfs(form: str, device: str, *options: str) -> None:
    subprocess.run([f"mkfs.{form}", "-q", *options, device], check=True)


def mount(device: str, path: str) -> None:
    Path(path).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", device, path], check=True)


def mounts(path: str) -> list[str]:
    """The devices that are mounted on a path, the lowest first."""
    command = ["findmnt", "-nro", "SOURCE", "-M", path]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def attributes(path: str) -> str:
    command = ["lsattr", "-d", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


@pytest.fixture
def places(disks: Disks) -> Iterator[Disks]:
    """The disks, with nothing of ours below /srv before and after."""
    clear()
    yield disks
    clear()


def clear() -> None:
    for path in (PATH, "/srv/other"):
        while mounts(path):
            subprocess.run(["umount", path], check=True)
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


def on(device: str, form: str = "ext4") -> dict[str, Any]:
    return {"name": "data", "path": PATH, "device": device, "source_format": form}


@pytest.mark.parametrize("form", [pytest.param("ext4", marks=pytest.mark.long), "xfs"])
def test_life_of_a_file_system(host: Host, places: Disks, form: str) -> None:
    pool = on(places.vdb, form)
    host.converge("pool_fs", ["define", "build", "start"], form, build="if_blank", **pool)
    assert mounts(PATH) == ["/dev/vdb"]
    host.unchanged("pool_fs", **on("/dev/vdb", form))
    image: dict[str, Any] = {"pool": "data", "name": "web01.qcow2", "capacity": "1GiB", "format": "qcow2"}
    host.lifecycle(
        *("volume", ["create"], ["delete"]), undo={"pool": "data", "name": image["name"], "state": "absent"}, **image
    )
    steps = ["delete_volumes", "stop", "delete_storage", "undefine"]
    host.converge("pool_fs", steps, "DESTROYS DATA", delete_data=True, **GONE)
    assert (mounts(PATH), os.path.exists(PATH)) == ([], False)


@pytest.mark.long
def test_states_of_a_file_system(host: Host, places: Disks) -> None:
    mkfs("xfs", places.vdb)
    walk_through_states(host, "pool_fs", on(places.vdb, "auto"), born=["define", "make_directory"], up=["start"])


def test_a_mount_that_is_there(host: Host, places: Disks) -> None:
    mkfs("ext4", places.vdb)
    mkfs("ext4", places.vdc)
    host.ok("pool_fs", state="inactive", **on(places.vdb))
    mount(places.vdb, PATH)
    started = host.ok("pool_fs", **on(places.vdb))
    assert any("uses that mount and ends it when it stops" in one for one in started["warnings"]), started
    host.ok("pool_fs", state="inactive", **on(places.vdb))
    assert mounts(PATH) == []
    mount(places.vdb, "/srv/other")
    started = host.ok("pool_fs", **on(places.vdb))
    assert any("mounted on /srv/other too" in one for one in started["warnings"]), started
    host.ok("pool_fs", state="inactive", **on(places.vdb))
    mount(places.vdc, PATH)
    host.refused("pool_fs", "path_conflict", PATH, "hidden", **on(places.vdb))
    assert mounts(PATH) == ["/dev/vdc"]


def test_a_device_that_is_not_free(host: Host, places: Disks) -> None:
    host.refused("pool_fs", "no_source", "/dev/nope", **on("/dev/nope"))
    host.refused("pool_fs", "no_source", "/dev/nope", build="if_blank", **on("/dev/nope"))
    mkfs("xfs", places.vdb)
    mount(places.vdb, "/srv/other")
    host.refused("pool_fs", "in_use", "mounted on /srv/other", build="overwrite", **on(places.vdb))
    subprocess.run(["umount", "/srv/other"], check=True)
    domain = defined_guest(host.uri, "web01", "/dev/vdb")
    for build in ("never", "overwrite"):
        host.refused("pool_fs", "in_use", "'web01'", build=build, **on(places.vdb, "xfs"))
    domain.undefine()
    with open("/dev/vdc", "rb"):
        host.refused("pool_fs", "in_use", "open in", build="if_blank", **on(places.vdc))
    host.failed("pool_fs", "backend_refused", "blkid", **on(places.vdc))
    assert host.run("pool_fs", **on(places.vdc, "btrfs"))["failed"], "libvirt knows no btrfs"


def test_btrfs(host: Host, places: Disks) -> None:
    """By `auto` as a file system, or mounted by the host as a directory; libvirt's build sets nocow there."""
    mkfs("btrfs", places.vdb)
    host.converge("pool_fs", ["define", "make_directory", "start"], **on(places.vdb, "auto"))
    host.ok("pool_fs", **GONE)
    mount(places.vdb, PATH)
    for name, cow, shown in (("plain", None, True), ("cow", True, False)):
        pool: dict[str, Any] = {"name": name, "path": f"{PATH}/{name}", **({"cow": cow} if cow else {})}
        host.converge("pool_dir", ["define", "build", "start"], **pool)
        assert ("C" in attributes(pool["path"])) is shown
    subprocess.run(["btrfs", "subvolume", "create", f"{PATH}/plain/sub"], check=True, capture_output=True)
    found = host.ok("volume_info", pool="plain", refresh=True)
    assert (found["volumes"], [one["name"] for one in found["not_volumes"]]) == ([], ["sub"])
    host.refused("pool_dir", "not_volumes", "'sub'", name="plain", state="absent", delete_data=True)
    image: dict[str, Any] = {"pool": "plain", "name": "web01.raw", "capacity": "1MiB", "format": "raw"}
    host.lifecycle(
        *("volume", ["create"], ["delete"]), undo={"pool": "plain", "name": "web01.raw", "state": "absent"}, **image
    )


@pytest.mark.parametrize("form", ["ext4", pytest.param("xfs", marks=pytest.mark.long)])
def test_life_of_a_directory(host: Host, places: Disks, form: str) -> None:
    mkfs(form, places.vdb)
    mount(places.vdb, PATH)
    pool = {"name": "data", "path": PATH, "require_mountpoint": True}
    host.converge("pool_dir", ["define", "start"], **pool)
    nested = {"name": "inner", "path": f"{PATH}/inner"}
    warned = host.ok("pool_dir", check=True, **nested)
    assert any("nested" in one for one in warned["warnings"]), warned
    host.ok("volume", pool="data", name="web01.raw", capacity="8MiB", format="raw", preallocation="full")
    host.converge("pool_dir", ["stop"], state="inactive", **pool)
    subprocess.run(["umount", PATH], check=True)
    host.refused("pool_dir", "not_mounted", PATH, **pool)
    mount(places.vdb, PATH)
    host.converge("pool_dir", ["start"], **pool)
    assert "web01.raw" in host.volumes("data")


@pytest.mark.parametrize(
    ("form", "preallocation"),
    [("raw", "full"), *(pytest.param(one, "falloc", marks=pytest.mark.long) for one in ("raw", "qcow2"))],
)
def test_a_full_file_system(host: Host, places: Disks, form: str, preallocation: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", places.vdb, "64M"], check=True)  # the disk is larger
    mount(places.vdb, PATH)
    host.ok("pool_dir", name="data", path=PATH)
    free = os.statvfs(PATH).f_bavail
    before = host.state()
    big = {"pool": "data", "name": f"big.{form}", "capacity": "200MiB", "format": form}
    host.refused("volume", "no_space", "left", preallocation=preallocation, **big)
    with switched_off("headroom:check", []):
        host.failed("volume", "backend_refused", "space", preallocation=preallocation, **big)
    assert (host.state(), os.listdir(PATH)) == (before, ["lost+found"])
    assert os.statvfs(PATH).f_bavail == free
