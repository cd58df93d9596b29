# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What LVM's own report means, and the commands that are made for it."""

from __future__ import annotations

import json

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands
from ansible_collections.kvm.storage.plugins.module_utils.backends import logical
from ansible_collections.kvm.storage.plugins.module_utils.errors import StepFailed, StorageError

MIB = 2**20
POOL = {"source_name": "vg0"}
BARE = dict.fromkeys(logical.COLUMNS.split(","), "")
BARE.update(vg_name="vg0", vg_uuid="3S2x-CI", vg_extent_size="4194304", lv_uuid="3RZ2-KC", lv_active="active")


def row(name, mib=4, **columns):
    return {**BARE, "lv_name": name, "lv_size": str(mib * MIB), "lv_layout": "linear", "lv_role": "public", **columns}


def thin(name, pool="thin", **columns):
    return row(name, **{"lv_layout": "thin,sparse", "pool_lv": pool, **columns})


def snapshot(name, origin, **columns):
    return row(name, lv_role="public,snapshot,thicksnapshot", origin=origin, origin_size=str(20 * MIB), **columns)


# As LVM 2.03.31 reports them.
ROWS = [
    row("thin", 512, lv_layout="thin,pool", lv_role="private", data_percent="12.50", lv_device_open="open"),
    row("[thin_tdata]", 512, lv_role="private,thin,pool,data", lv_device_open="open"),
    row("[lvol0_pmspare]", lv_role="private,pool,spare", lv_active=""),
    thin("web-01", mib=64, data_percent="25.00", lv_device_open="open"),
    thin("asleep", data_percent="", lv_active=""),
    thin("nightly", origin="web-01", lv_role="public,snapshot,thinsnapshot", data_percent="0.00"),
    row("thick", 20, lv_role="public,origin,thickorigin"),
    snapshot("before-upgrade", "thick"),
    snapshot("of-thin", "web-01"),
    row("golden", lv_role="public,origin,extthinorigin", lv_active=""),
    thin("clone", origin="golden"),
    snapshot("old-sparse", "[old-sparse_vorigin]"),
    row("zero", lv_layout="zero"),
    row("fast", lv_layout="cache,pool", lv_role="private"),
    row("elsewhere", vg_name="vg1"),
]


def answering(monkeypatch, code=0, out="", err=""):
    """Commands that all end so; what is run is noted."""
    ran = []

    def run_command(argv, **options):
        ran.append(argv)
        if isinstance(code, Exception):
            raise code
        return code, out, err

    monkeypatch.setattr(commands, "runner", run_command)
    return ran


def contents(monkeypatch, rows):
    ran = answering(monkeypatch, out=json.dumps({"report": [{"lv": rows}], "log": []}))
    found = logical.look(POOL)
    assert len(ran) == 1
    assert ran[0][-2:] == ["--", "vg0"]
    return found


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("thin", {"kind": "a thin pool", "unlisted": True, "capacity": 512 * MIB, "allocation": 64 * MIB}),
        ("thin_tdata", {"kind": "a part of LVM's own (private,thin,pool,data)", "unlisted": True}),
        ("lvol0_pmspare", {"kind": "a part of LVM's own (private,pool,spare)"}),
        ("web-01", {"kind": "", "unlisted": True, "thin_pool": "thin", "allocation": 16 * MIB, "is_open": True}),
        ("web-01", {"falls": ("of-thin",), "fixed": "LVM lets no volume grow that has the snapshot 'of-thin'"}),
        ("asleep", {"unlisted": True, "thin_pool": "thin", "allocation": None, "fixed": ""}),
        ("nightly", {"unlisted": True, "thin_pool": "thin", "allocation": 0, "falls": ()}),
        ("thick", {"unlisted": False, "thin_pool": "", "falls": ("before-upgrade",), "allocation": 20 * MIB}),
        ("before-upgrade", {"unlisted": False, "capacity": 20 * MIB, "allocation": 4 * MIB, "falls": ()}),
        ("golden", {"unlisted": True, "thin_pool": "", "falls": ("clone",)}),
        ("old-sparse", {"kind": "", "unlisted": False, "capacity": 20 * MIB}),
        ("zero", {"kind": "a volume of type zero, which holds nothing"}),
        ("fast", {"kind": "a cache pool"}),
    ],
)
def test_what_a_line_means(monkeypatch, name, facts):
    found = contents(monkeypatch, ROWS).entries[name]
    assert {fact: getattr(found, fact) for fact in facts} == facts


def test_a_group_as_a_whole(monkeypatch):
    found = contents(monkeypatch, ROWS)
    assert "elsewhere" not in found.entries, "a group that a tag stands for"
    assert found.granule == 4 * MIB
    assert set(found.unlisted) == {"web-01", "asleep", "nightly", "golden", "clone"}
    assert set(found.thin_pools()) == {"thin"}
    assert found.in_thin_pool("thin") == {name: 4 * MIB for name in ("asleep", "nightly", "clone")} | {
        "web-01": 64 * MIB
    }
    assert found.entries["web-01"].paths == (
        "/dev/vg0/web-01",
        "/dev/mapper/vg0-web--01",
        "/dev/disk/by-id/dm-name-vg0-web--01",
        "/dev/disk/by-id/dm-uuid-LVM-3S2xCI3RZ2KC",
    )
    assert contents(monkeypatch, []).entries == {}


def test_a_volume_whose_revert_was_killed_is_told_of(monkeypatch):
    """Nobody makes an empty one of its name."""
    rows = [thin("web.kvm.storage-old", mib=64), thin("db.kvm.storage-old"), thin("db")]
    found = contents(monkeypatch, rows).entries
    assert "'lvrename vg0 web.kvm.storage-old web'" in found["web"].kind
    assert (found["db"].kind, found["web.kvm.storage-old"].kind) == ("", "")


@pytest.mark.parametrize(
    ("columns", "trouble"),
    [
        ({"data_percent": "99.99", "metadata_percent": "12.00"}, ""),
        ({"data_percent": "100.00"}, "its data is full"),
        ({"data_percent": "1.00", "metadata_percent": "100.00"}, "its metadata is full"),
        ({"lv_health_status": "out_of_data"}, "out of data"),
        ({"data_percent": "", "metadata_percent": ""}, ""),
    ],
)
def test_why_a_thin_pool_takes_no_new_volume(monkeypatch, columns, trouble):
    rows = [row("thin", lv_layout="thin,pool", lv_role="private", **columns)]
    assert contents(monkeypatch, rows).entries["thin"].trouble == trouble


def log(*messages):
    return json.dumps({"report": [{"lv": []}], "log": [{"log_type": "error", "log_message": one} for one in messages]})


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            {"code": 5, "out": log('Volume group "vg0" not found', "Cannot process volume group vg0")},
            "no_source",
            "vgs",
        ),
        ({"code": 5, "err": '  Volume group "vg0" not found\n'}, "no_source", "vgs"),
        ({"code": 5, "out": log("/run/lock/lvm/V_vg0: open failed")}, "backend_refused", "V_vg0: open failed"),
        ({"code": 5, "out": "{", "err": "Bad\n luck"}, "backend_refused", "Bad; luck"),
        ({"code": FileNotFoundError()}, "missing_command", "lvs"),
    ],
)
def test_what_can_not_be_seen(monkeypatch, answer, code, words):
    answering(monkeypatch, **answer)
    with pytest.raises(StorageError, match=words) as caught:
        logical.look(POOL)
    assert caught.value.code == code
    assert "'vg0'" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "arguments", "argv"),
    [
        (
            logical.create,
            ("web01", "thin", 5_000_000),
            "lvcreate --type thin --thinpool thin --name web01 --virtualsize 5000192b --wipesignatures y --yes -- vg0",
        ),
        (logical.grow, ("web01", 8 * MIB), "lvextend --size 8388608b -- vg0/web01"),
        (logical.delete, ("-rf",), "lvremove --yes -- vg0/-rf"),
    ],
)
def test_commands(monkeypatch, step, arguments, argv):
    ran = answering(monkeypatch)
    step("volume 'p/v'", POOL, *arguments)
    assert ran == [argv.split()]
    answering(monkeypatch, code=5, err="  in\n  use\n")
    with pytest.raises(StepFailed, match="volume 'p/v': in use") as caught:
        step("volume 'p/v'", POOL, *arguments)
    assert caught.value.code == "backend_refused"


@pytest.mark.parametrize("name", ["web01", "A.1+b-_c", "x_tdat", "1", "my-snapshot", ".hidden", "_x"])
def test_names_that_lvm_takes(name):
    assert logical.name_error(name, [], POOL) == ""


@pytest.mark.parametrize(
    "name", ["a:b", "a=b", "a@b", "-x", "snapshot1", "pvmove0", "x_tdata", "x_tmeta_1", "a_rimage_0", "x_vorigin"]
)
def test_names_that_lvm_refuses(name):
    assert "LVM" in logical.name_error(name, [], POOL)


def test_devices_are_told_by_lvms_own_names(monkeypatch, tmp_path):
    """libvirt compares them with what LVM reports, and starts no pool that has none of them."""
    node, link, gone = tmp_path / "vdb", tmp_path / "by-id", tmp_path / "gone"
    node.touch()
    link.symlink_to(node)
    assert logical.told({"devices": [str(link), str(gone)], "source_name": "vg0"}) == {
        "devices": [str(node), str(gone)],
        "source_name": "vg0",
    }
    assert logical.told(POOL) == POOL
    monkeypatch.setattr(logical.os.path, "realpath", lambda path: "/dev/dm-7")
    monkeypatch.setattr(logical.block, "read", {"/sys/class/block/dm-7/dm/name": "mpatha"}.get)
    assert logical.lvm_name("/dev/disk/by-id/wwn-1") == "/dev/mapper/mpatha"
