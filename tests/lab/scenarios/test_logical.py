# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LVM volume groups as pools: what building makes of devices, and what a removal would take with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import MIB, walk_through_states
from tests.lab.scenarios.cells import on_devices
from tests.lab.scenarios.conftest import URI, Disks, remove_everything
from tests.lab.scenarios.lvm import LvmHost, defined, made, mounted, said, size_of, told, volumes_of

GROUP = "vg-lab"
POOL = {"name": "guests", "source_name": GROUP}
GONE = {"name": "guests", "state": "absent"}


@pytest.fixture
def blank(disks: Disks) -> tuple[LvmHost, Disks]:
    """A host without any volume group."""
    return LvmHost(URI), disks


@pytest.fixture(scope="module")
def group() -> Iterator[LvmHost]:
    """A volume group with libvirt's pool over it."""
    host, disks = LvmHost(URI), Disks()
    remove_everything()
    disks.wipe()
    said("vgcreate", GROUP, disks.node(disks.vdb))
    host.ok("pool_logical", **POOL)
    yield host
    remove_everything()
    disks.wipe()


def volume(name: str, **more: Any) -> dict[str, Any]:
    return {"pool": "guests", "name": name, **more}


def gone(name: str) -> dict[str, Any]:
    return volume(name, state="absent")


# pools


def test_states_of_a_new_group(blank: tuple[LvmHost, Disks]) -> None:
    """The volume group is made once and stays, also when its devices are given by other names."""
    host, disks = blank
    pool = {**POOL, "devices": [disks.vdb, disks.vdc], "build": "if_blank"}
    host.failed("pool_logical", "backend_refused", GROUP, **POOL)  # without a group
    assert host.state()["pools"] == {}, "a pool that did not come up stays"
    host.ok("pool_logical", **pool)
    assert sorted(told("pvs", "--options", "pv_name,vg_name")) == [f"{disks.node(d)} {GROUP}" for d in disks.all[:2]]
    host.unchanged("pool_logical", **{**pool, "devices": ["/dev/vdb", "/dev/vdc"]})
    host.unchanged("pool_logical", **{**pool, "build": "overwrite"})
    host.ok("pool_logical", **GONE)
    said("lvcreate", "--yes", "--size", "4M", "--name", "kept", GROUP)
    said("vgchange", "--activate", "n", GROUP)  # as a stop leaves it
    walk_through_states(host, "pool_logical", pool, born=["define"], up=["start"])
    assert volumes_of(GROUP) == ["kept"]
    host.ok("pool_logical", **POOL)
    host.refused("pool_logical", "source_conflict", "'guests'", **{**POOL, "name": "second"})
    host.ok("pool_logical", **GONE, delete_data=True)
    assert told("vgs", "--options", "vg_name") == [""]


def test_what_is_on_a_device_is_kept(blank: tuple[LvmHost, Disks]) -> None:
    host, disks = blank
    pool = {**POOL, "devices": [disks.vdb, disks.vdc]}
    said("mkfs.ext4", "-qF", disks.vdc)
    for build in ("if_blank", "never"):
        host.failed("pool_logical", "backend_refused", GROUP, **pool, build=build)
        assert (host.state()["pools"], said("blkid", "-o", "value", "-s", "TYPE", disks.vdc)) == ({}, "ext4")
    host.converge("pool_logical", ["create", "define"], "state:         active", **pool, build="overwrite")
    assert len(told("pvs", "--options", "pv_name")) == 2
    host.converge("pool_logical", ["stop", "delete_storage", "undefine"], **GONE, delete_data=True)
    assert told("pvs", "--options", "pv_name") == [""]


# volumes


def test_from_birth_to_removal(group: LvmHost) -> None:
    """Sizes are rounded up to extents of 4 MiB, and need not be whole sectors."""
    before = group.state()
    group.converge("volume", ["create"], "capacity:", **volume("web-01", capacity="5000001", format="raw"))
    assert size_of(f"{GROUP}/web-01") == 8 * MIB
    (found,) = group.ok("pool_info", identity=True)["pools"]
    assert found["identity"] == f"volume group {said('vgs', '--noheadings', '-o', 'vg_uuid', GROUP)}"
    group.converge("volume", ["resize"], "capacity:", **volume("web-01", capacity="9000001"))
    assert size_of(f"{GROUP}/web-01") == 12 * MIB
    base = {"volume": "web-01", "format": "raw"}
    group.all_refused(
        ("would_shrink", "12.0 MiB", volume("web-01", capacity="8MiB")),
        ("unsupported", "lost once it is full", volume("b", capacity="8MiB", allocation="4MiB")),
        ("unsupported", "lost once it is full", volume("b", capacity="8MiB", preallocation="off")),
        ("unsupported", "no overlays", volume("b", capacity="8MiB", backing=base)),
        ("bad_name", "LVM", volume("b_tdata", capacity="8MiB")),
    )
    group.converge("volume", ["delete"], **gone("web-01"))
    assert group.state() == before


def test_made_outside(group: LvmHost) -> None:
    """libvirt has not seen it yet, or never lists it since it is not active."""
    with made(f"{GROUP}/outside", "--size", "8M"):
        group.converge("volume", ["refresh"], **volume("outside", capacity="8MiB"))
        group.converge("volume", ["delete"], **gone("outside"))
    with made(f"{GROUP}/outside", "--size", "8M"):
        said("lvchange", "--activate", "n", f"{GROUP}/outside")
        group.unchanged("volume", **volume("outside", capacity="8MiB"))
        shown = group.ok("volume_info", pool="guests", names=["outside"])["volumes"][0]
        assert (shown["capacity"], shown["thin_pool"]) == (8 * MIB, None)
        group.converge("volume", ["delete"], **gone("outside"))


def test_an_origin_and_its_snapshots(group: LvmHost) -> None:
    """libvirt by itself destroys them together."""
    group.ok("volume", **volume("base", capacity="8MiB"))
    with made(f"{GROUP}/nightly", "--size", "4M", "--snapshot", f"{GROUP}/base"):
        group.refused("volume", "has_overlays", "'nightly'", **gone("base"))
        group.ok("volume_info", pool="guests", refresh=True)
        group.all_refused(
            ("has_overlays", "nightly", gone("base")),
            ("unsupported", "'nightly'", volume("base", capacity="12MiB")),
            ("unsupported", "snapshot", volume("nightly", capacity="12MiB")),
        )
        found = group.ok("layout_info")["layout"]
        group.unchanged("layout", **found)
        actions = ["volume 'guests/nightly': delete", "volume 'guests/base': delete"]
        group.converge("layout", actions, volumes=[gone("base"), gone("nightly")])


def test_users(group: LvmHost) -> None:
    """Domains by any path, and the host itself; nothing that is used is taken away."""
    group.ok("volume", **volume("web-01", capacity="16MiB"))
    mapped = f"/dev/mapper/{GROUP.replace('-', '--')}-web--01"
    with defined(group, mapped):
        group.refused("volume", "in_use", "'web01' (defined)", **gone("web-01"))
        group.failed("pool_logical", "in_use", "'web01' (defined)", **GONE, delete_data=True)
        group.ok("pool_logical", state="inactive", name="guests")
        group.refused("pool_logical", "in_use", "'web01' (defined)", **GONE, delete_data=True)
        group.ok("pool_logical", **POOL)
    with defined(group, mapped, running=True):
        word = "'web01' (running)"
        group.all_refused(("in_use", word, gone("web-01")), ("in_use", word, volume("web-01", capacity="20MiB")))
        group.failed("pool_logical", "in_use", word, **GONE)
    with mounted(f"/dev/{GROUP}/web-01"):
        group.failed("volume", "in_use", "mounted on /mnt", **gone("web-01"))
        stop, destroy = {"state": "inactive", "name": "guests"}, {**GONE, "delete_data": True}
        cases = [("in_use", "mounted on /mnt", args) for args in (stop, destroy)]
        group.all_refused(*cases, module="pool_logical")
    group.ok("volume", **gone("web-01"))


def test_a_group_that_has_gone(group: LvmHost) -> None:
    """The last test of the module, which takes it away."""
    said("vgchange", "--activate", "n", GROUP)
    said("vgremove", "--yes", GROUP)
    group.refused("volume", "no_source", GROUP, "vgs", **volume("new", capacity="8MiB"))
    group.unchanged("volume", **gone("new"))
    assert group.ok("volume_info", pool="guests")["volumes"] == []


def test_every_operation(blank: tuple[LvmHost, Disks], tmp_path: Path) -> None:
    host, disks = blank
    said("vgcreate", GROUP, disks.node(disks.vdb))
    host.ok("pool_logical", **POOL)
    on_devices(host, "logical", "guests", tmp_path)
