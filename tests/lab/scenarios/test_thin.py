# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in LVM thin pools, of which libvirt knows nothing: made, shown, grown, guarded and removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import examples
from tests.integration.helpers import MIB
from tests.lab.scenarios.conftest import URI, Disks, remove_everything
from tests.lab.scenarios.lvm import LvmHost, defined, made, mounted, said, size_of, volumes_of

GROUP = "vg-lab"
POOL = {"name": "guests", "source_name": GROUP}
EMPTY = ["other", "thin"]


@pytest.fixture(scope="module")
def group() -> Iterator[LvmHost]:
    """A volume group with two thin pools, and libvirt's pool over it."""
    host, disks = LvmHost(URI), Disks()
    remove_everything()
    disks.wipe()
    said("vgcreate", GROUP, disks.node(disks.vdb))
    said("lvcreate", "--type", "thin-pool", "--size", "128M", "--name", "thin", GROUP)
    said("lvcreate", "--type", "thin-pool", "--size", "8M", "--name", "other", GROUP)
    said("lvchange", "--errorwhenfull", "y", f"{GROUP}/other")
    host.ok("pool_logical", **POOL)
    yield host
    remove_everything()
    disks.wipe()


@pytest.fixture
def host(group: LvmHost) -> Iterator[LvmHost]:
    """The same for each test, which leaves no volume."""
    yield group
    left = [name for name in volumes_of(GROUP) if name not in EMPTY]
    for name in left:
        said("lvremove", "--yes", f"{GROUP}/{name}")
    assert left == []


def thin(name: str, **more: Any) -> dict[str, Any]:
    return {"pool": "guests", "name": name, "thin_pool": "thin", **more}


def plain(name: str, **more: Any) -> dict[str, Any]:
    return {"pool": "guests", "name": name, **more}


def gone(name: str) -> dict[str, Any]:
    return plain(name, state="absent")


def test_from_birth_to_removal(host: LvmHost) -> None:
    """Sizes are rounded up to extents of 4 MiB; afterwards the volume is known by its name alone."""
    before = host.state()
    host.converge("volume", ["create"], "thin_pool:     thin", **thin("web-01", capacity="5MB", format="raw"))
    assert size_of(f"{GROUP}/web-01") == 8 * MIB
    host.unchanged("volume", **plain("web-01"))
    host.unchanged("volume", **plain("web-01", capacity="8MiB"))
    Path(f"/dev/{GROUP}/web-01").write_bytes(b"x" * MIB)
    shown = host.ok("volume_info", pool="guests")["volumes"]
    assert [(one["name"], one["path"], one["thin_pool"]) for one in shown] == [
        ("web-01", f"/dev/{GROUP}/web-01", "thin")
    ]
    assert (shown[0]["capacity"], shown[0]["users"], shown[0]["type"]) == (8 * MIB, [], "block")
    assert MIB // 2 < shown[0]["allocation"] < 2 * MIB
    facts = host.ok("pool_info", names=["guests"])["pools"][0]
    assert (facts["volumes"], facts["provisioned"]) == (1, 8 * MIB)
    pools = {one["name"]: one for one in facts["thin_pools"]}
    assert (pools["thin"]["capacity"], pools["thin"]["provisioned"]) == (128 * MIB, 8 * MIB)
    host.converge("volume", ["resize"], "capacity:", "9.0 MiB", **plain("web-01", capacity="9437185"))
    assert size_of(f"{GROUP}/web-01") == 12 * MIB
    host.refused("volume", "would_shrink", "12.0 MiB", **thin("web-01", capacity="8MiB"))
    host.converge("volume", ["delete"], **gone("web-01"))
    assert host.state() == before


def test_what_is_there_is_not_made_otherwise(host: LvmHost) -> None:
    host.ok("layout", volumes=[thin("a", capacity="4MiB"), plain("thick", capacity="4MiB")])
    new, other = thin("b", capacity="4MiB"), {"thin_pool": "other"}
    host.refused("volume", "cannot_change", "thin_pool is thin, not other", **{**thin("a", capacity="4MiB"), **other})
    host.all_refused(
        ("cannot_change", "thin_pool is none, not thin", thin("thick", capacity="4MiB")),
        ("cannot_change", "thin_pool is none, not thin", thin("thick", state="absent")),
        ("cannot_change", "thin_pool is thin, not other", {**gone("a"), **other}),
        ("no_source", "'other', 'thin'", {**new, "thin_pool": "nowhere"}),
        ("no_source", "'other', 'thin'", {**new, "thin_pool": "a"}),
        ("no_source", "'other', 'thin'", {**new, "thin_pool": "-f"}),
        ("missing_option", "capacity", thin("b")),
        ("unsupported", "qcow2", {**new, "format": "qcow2"}),
    )
    host.ok("layout", volumes=[gone("a"), gone("thick")])


def test_names(host: LvmHost) -> None:
    """Those of LVM's own parts are refused, and no name is ever more than a name."""
    host.all_refused(
        ("bad_name", "'../x'", thin("../x", capacity="4MiB")),
        ("bad_name", "'a;b'", thin("a;b", capacity="4MiB")),
        ("bad_name", "'-rf'", thin("-rf", capacity="4MiB")),
        ("bad_name", "'a:b'", thin("a:b", capacity="4MiB")),
        ("bad_name", "_tdata", thin("x_tdata", capacity="4MiB")),
        ("bad_name", "'../thin'", {**thin("x", capacity="4MiB"), "thin_pool": "../thin"}),
        ("not_a_volume", "a thin pool", plain("thin", capacity="1GiB")),
        *(("not_a_volume", name, gone(name)) for name in ("thin", "thin_tdata", "thin_tmeta", "lvol0_pmspare")),
    )
    assert host.ok("layout", volumes=[gone(name) for name in ("a;b", "-rf", "$(id)", "@tag")])["actions"] == []
    host.lifecycle("volume", ["create"], ["delete"], undo=gone("A.1+b-_c"), **thin("A.1+b-_c", capacity="4MiB"))


def test_users(host: LvmHost) -> None:
    """By any of its paths, also while it is not active, and users of the host of which libvirt knows nothing."""
    host.ok("volume", **thin("web-01", capacity="16MiB"))
    mapped = f"/dev/mapper/{GROUP.replace('-', '--')}-web--01"
    with defined(host, mapped):
        host.all_refused(("in_use", "'web01' (defined)", gone("web-01")))
        shown = host.ok("volume_info", pool="guests", names=["web-01"])["volumes"]
        assert shown[0]["users"] == [{"domain": "web01", "running": False}]
        said("lvchange", "--activate", "n", f"{GROUP}/web-01")
        host.failed("volume", "in_use", "'web01' (defined)", **gone("web-01"))
        host.unchanged("volume", **thin("web-01", capacity="16MiB"))
        said("lvchange", "--activate", "y", f"{GROUP}/web-01")
    with defined(host, f"/dev/{GROUP}/web-01", running=True):
        word = "'web01' (running)"
        host.all_refused(("in_use", word, gone("web-01")), ("in_use", word, plain("web-01", capacity="20MiB")))
        host.failed("pool_logical", "in_use", word, name="guests", state="inactive")
    with mounted(f"/dev/{GROUP}/web-01"):
        host.failed("volume", "in_use", "mounted on /mnt", **gone("web-01"))
        host.refused("pool_logical", "in_use", "mounted on /mnt", name="guests", state="absent")
    host.ok("volume", **gone("web-01"))


def test_snapshots(host: LvmHost) -> None:
    """One in the thin pool stands by itself; any other would be destroyed with its origin."""
    host.ok("volume", **thin("base", capacity="4MiB"))
    with made(f"{GROUP}/kept", "--snapshot", f"{GROUP}/base"):
        with made(f"{GROUP}/thick-one", "--size", "4M", "--snapshot", f"{GROUP}/base"):
            host.all_refused(
                ("has_overlays", "'thick-one'", gone("base")),
                ("unsupported", "'thick-one'", plain("base", capacity="8MiB")),
            )
        host.converge("volume", ["resize"], **plain("base", capacity="8MiB"))
        host.converge("volume", ["delete"], **gone("base"))
        host.ok("volume", **gone("kept"))
    host.ok("volume", **plain("golden", capacity="4MiB"))
    said("lvchange", "--permission", "r", f"{GROUP}/golden")
    said("lvchange", "--activate", "n", f"{GROUP}/golden")
    with made(f"{GROUP}/clone", "--thinpool", "thin", "--snapshot", f"{GROUP}/golden"):
        host.all_refused(("has_overlays", "'clone'", gone("golden")))
    host.ok("volume", **gone("golden"))


def test_more_is_promised_than_there_is(host: LvmHost) -> None:
    def warned(result: dict[str, Any]) -> list[str]:
        return [one for one in result["warnings"] if "thin pool" in one]

    disks = [thin(f"d{number}", capacity="48MiB") for number in (1, 2, 3, 4)]
    for check in (True, False):
        result = host.ok("layout", check=check, volumes=disks)
        assert len(warned(result)) == 1, result["warnings"]
        assert "'guests/d3'" in warned(result)[0]
        assert "144.0 MiB" in warned(result)[0]
    assert not warned(host.ok("layout", volumes=disks))
    assert len(warned(host.ok("volume", check=True, **plain("d1", capacity="52MiB")))) == 1
    host.ok("layout", volumes=[{**gone(one["name"])} for one in disks])


def test_full(host: LvmHost) -> None:
    host.ok("volume", **{**thin("full", capacity="16MiB"), "thin_pool": "other"})
    with pytest.raises(AssertionError, match="No space left|error writing"):
        said("dd", "if=/dev/zero", f"of=/dev/{GROUP}/full", "bs=1M", "count=16", "oflag=direct")
    host.refused("volume", "backend_refused", "full", **{**thin("b", capacity="4MiB"), "thin_pool": "other"})
    host.ok("volume", **gone("full"))


def test_layout(host: LvmHost) -> None:
    """From a volume group without a pool; what is read back changes nothing."""
    host.ok("pool_logical", name="guests", state="absent")
    declared = {
        "pools": [{"type": "logical", **POOL}],
        "volumes": [
            {"pool": "guests", "name": "web%02d", "count": 3, "capacity": "8MiB", "thin_pool": "thin"},
            plain("db", capacity="8MiB"),
        ],
    }
    actions = ["pool 'guests': define", "pool 'guests': start"]
    names = ["web01", "web02", "web03", "db"]
    host.converge("layout", [*actions, *(f"volume 'guests/{name}': create" for name in names)], **declared)
    said("lvcreate", "--snapshot", "--name", "nightly", f"{GROUP}/web01")
    found = host.ok("layout_info")["layout"]
    assert [(one["name"], one.get("thin_pool")) for one in found["volumes"]] == [
        ("db", None),
        *((name, "thin") for name in ("nightly", "web01", "web02", "web03")),
    ]
    host.unchanged("layout", **found)
    everything = {"name": "guests", "state": "absent", "delete_data": True}
    host.all_refused(("not_volumes", "'thin' (a thin pool)", everything), module="pool_logical")
    left = [*names, "nightly"]
    actions = [f"volume 'guests/{name}': delete" for name in left]
    host.converge("layout", actions, volumes=[gone(name) for name in left])


def test_example(host: LvmHost) -> None:
    """What the module's documentation shows, which nothing but a kernel of its own can run."""
    path = next(one for one in examples.files() if one.stem == "volume")
    told = [task.args for task in examples.tasks(path) if "thin_pool" in task.args]
    assert told
    for args in told:
        host.lifecycle("volume", ["create"], ["delete"], undo=gone(args["name"]), **{**args, "pool": "guests"})
