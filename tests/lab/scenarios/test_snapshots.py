# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of LVM, of its thin pools and of ZFS: taken, reverted to and removed, the content proven each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import MIB, Host, connected
from tests.lab.scenarios.conftest import Disks
from tests.lab.scenarios.lvm import said
from tests.servers.guest import disk_xml, start_guest

KINDS = ("thick", "thin", "zvol")


def kinds(*every_time: str) -> pytest.MarkDecorator:
    """The kinds of volumes that a test takes; those that are not for every run are long."""
    params = [one if one in every_time else pytest.param(one, marks=pytest.mark.long) for one in KINDS]
    return pytest.mark.parametrize("place", params, indirect=True)


@dataclass(frozen=True)
class Place:
    """A volume of 16 MiB of some storage, and what its snapshots are called there."""

    host: Host
    kind: str
    volume: dict[str, Any]
    device: str

    def snapshot(self, name: str, **more: Any) -> dict[str, Any]:
        return self.host.ok("volume_snapshot", **self.volume, snapshot=name, **more)

    def names(self) -> list[str]:
        return [one["name"] for one in self.host.ok("volume_snapshot_info", **self.volume)["snapshots"]]

    def write(self, number: int) -> str:
        with open(self.device, "r+b") as disk:
            for place in (0, number * MIB):
                disk.seek(place)
                disk.write(bytes([number]) * MIB)
            disk.flush()
            os.fsync(disk.fileno())
        return self.content()

    def content(self) -> str:
        subprocess.run(["udevadm", "settle"], check=True)
        subprocess.run(["blockdev", "--flushbufs", self.device], check=True)
        with open(self.device, "rb") as disk:
            return hashlib.file_digest(disk, "sha256").hexdigest()


@pytest.fixture
def place(request: pytest.FixtureRequest, host: Host, disks: Disks) -> Iterator[Place]:
    kind = request.param
    if kind == "zvol":
        said("zpool", "create", "-f", "tank", disks.node(disks.vdb))
        host.ok("pool_zfs", name="data", source_name="tank")
    else:
        said("vgcreate", "vg-lab", disks.node(disks.vdb))
        said("lvcreate", "--type", "thin-pool", "--size", "128M", "--name", "thin", "vg-lab")
        host.ok("pool_logical", name="data", source_name="vg-lab")
    thin = {"thin_pool": "thin"} if kind == "thin" else {}
    volume = {"pool": "data", "name": "web-01"}
    made = host.ok("volume", **volume, capacity="16MiB", **thin)
    subprocess.run(["udevadm", "settle"], check=True)
    yield Place(host, kind, volume, made["volume_path"])


@kinds(*KINDS)
def test_there_and_back(place: Place) -> None:
    first = place.write(1)
    place.host.converge("volume_snapshot", ["snapshot"], "snapshots:     one", **place.volume, snapshot="one")
    assert place.content() == first
    second = place.write(2)
    place.snapshot("two")
    third = place.write(3)
    assert len({first, second, third}) == 3
    found = place.host.ok("volume_snapshot_info", **place.volume)["snapshots"]
    assert [(one["name"], one["kind"], one["size"], one["trouble"]) for one in found] == [
        ("one", "native", 16 * MIB, None),
        ("two", "native", 16 * MIB, None),
    ]
    order = (("two", second), ("one", first)) if place.kind == "zvol" else (("one", first), ("two", second))
    for name, wanted in order:
        more = {}
        if place.kind == "zvol" and name == "one":
            place.host.refused(
                "volume_snapshot", "newer_snapshots", "two", **place.volume, snapshot=name, state="reverted"
            )
            more = {"destroy_newer": True}
        done = place.snapshot(name, state="reverted", **more)
        assert done["actions"] == ["revert"]
        assert place.content() == wanted, name
        if place.kind == "thick":
            place.host.unchanged("volume_snapshot", **place.volume, snapshot=name, state="reverted", **more)
        place.write(4)
    left = place.names()
    assert set(left) == ({"one"} if place.kind == "zvol" else {"one", "two"})
    last = place.content()
    gone, *others = left
    place.host.converge("volume_snapshot", ["remove_snapshot"], **place.volume, snapshot=gone, state="absent")
    for name in others:
        place.snapshot(name, state="absent")
    assert place.content() == last
    place.host.ok("volume", **place.volume, state="absent")


@kinds("zvol")
def test_guards(place: Place) -> None:
    host, one = place.host, {**place.volume, "snapshot": "one"}
    first = place.write(1)
    place.snapshot("one")
    place.write(2)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(place.device, kind="block"))
        guest.suspend()  # in an emulated host it would take all of its time
        host.refused("volume_snapshot", "not_frozen", "crash_consistent", **place.volume, snapshot="two")
        host.refused("volume_snapshot", "in_use", "'web01'", **one, state="reverted")
        assert place.snapshot("two", crash_consistent=True)["frozen"] is False
        guest.destroy()
    place.snapshot("two", state="absent")
    with open(place.device, "rb"):
        host.refused("volume_snapshot", "in_use", "used on this host", **one, state="reverted")
        host.refused("volume_snapshot", "in_use", "crash_consistent", **place.volume, snapshot="three")
    place.snapshot("one", state="reverted")
    assert place.content() == first
    host.refused("volume_snapshot", "unsupported", "native", **place.volume, snapshot="two", kind="internal")
    if place.kind == "zvol":
        host.refused("volume_snapshot", "unsupported", "size", **place.volume, snapshot="two", size="4MiB")


@kinds("thin", "zvol")
def test_what_others_have_taken(place: Place) -> None:
    """Only ZFS has one name for all; LVM's other snapshots are left alone, whatever they are called."""
    host = place.host
    place.write(1)
    if place.kind == "zvol":
        said("zfs", "snapshot", "tank/web-01@one")
        said("zfs", "clone", "tank/web-01@one", "tank/clone")
        found = host.ok("volume_snapshot_info", **place.volume)["snapshots"]
        assert [(one["name"], one["children"]) for one in found] == [("one", ["tank/clone"])]
        host.refused("volume_snapshot", "has_overlays", "tank/clone", **place.volume, snapshot="one", state="absent")
        said("zfs", "destroy", "tank/clone")
        host.converge("volume_snapshot", ["remove_snapshot"], **place.volume, snapshot="one", state="absent")
        return
    room = ("--size", "8M") if place.kind == "thick" else ()
    said("lvcreate", "--yes", "--snapshot", *room, "--name", "web-01.one", "vg-lab/web-01")
    assert place.names() == []
    host.unchanged("volume_snapshot", **place.volume, snapshot="one", state="absent")
    host.failed("volume_snapshot", "backend_refused", "web-01.one", **place.volume, snapshot="one")
    said("lvremove", "--yes", "vg-lab/web-01.one")


@kinds("zvol")
def test_retention(place: Place) -> None:
    for name in ("auto-1", "mine", "auto-2", "auto-3"):
        place.snapshot(name)
    rule = {**place.volume, "prefix": "auto-", "keep": {"last": 2}}
    done = place.host.ok("volume_snapshot", **rule)
    assert sorted(one["name"] for one in [*done["kept"], *done["removed"]]) == ["auto-1", "auto-2", "auto-3"]
    assert len(place.names()) == 3
    assert "mine" in place.names()
    place.host.unchanged("volume_snapshot", **rule)


@pytest.mark.parametrize("place", ["thick"], indirect=True)
def test_a_full_snapshot_is_lost_and_says_so(place: Place) -> None:
    place.write(1)
    place.snapshot("small", size="4MiB")
    with open(place.device, "r+b") as disk:
        disk.write(b"x" * (12 * MIB))
    assert "full" in place.host.ok("volume_snapshot_info", **place.volume)["snapshots"][0]["trouble"]
    place.host.refused("volume_snapshot", "bad_snapshot", "full", **place.volume, snapshot="small", state="reverted")
    place.snapshot("small", state="absent")
    assert Path(place.device).exists()
