# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_lvm decides: every refusal, every command, and the order and the place of each."""

from __future__ import annotations

import ast
import base64
import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning import volume_group_plan as filtered
from ansible_collections.kvm.storage.plugins.plugin_utils import volume_groups

ROOT = Path(__file__).resolve().parents[4]
MIB, GIB = 1 << 20, 1 << 30
EXTENT = 4 * MIB
A, B, C, D = (f"/dev/disk/by-id/{letter}" for letter in "ABCD")
NODES = {A: "/dev/sda", B: "/dev/sdb", C: "/dev/sdc", D: "/dev/sdd"}
LVM = ["LVM2_member"]
STEPS = ("hide", "adopt", "commands", "drop", "delete", "last")
LISTS = (*STEPS, "problems", "outside", "asks", "build", "wipe", "make", "waits", "profiles", "stale")
SECOND = {"hv2": ["vms"], "hv1": ["vms"]}  # another host makes and changes the group
PLAY = {"host": "hv1", "shares": {}, "hosts": ["hv1"], "batch": ["hv1"]}

# As `lvm fullreport` of 2.03.16 printed it: a group on two devices, one of which is gone, with a thin pool and a volume
# in it that are not active, and a device in no group.
PRINTED = """
{"report": [
  {"vg": [{"vg_name":"t1", "vg_uuid":"utw8nL-9m4U", "vg_extent_size":"4194304", "vg_extent_count":"98",
           "vg_free_count":"81", "vg_exported":"", "vg_autoactivation":"enabled", "vg_missing_pv_count":"1"}],
   "pv": [{"pv_name":"/dev/loop0", "pv_uuid":"1hVfgj", "pv_size":"205520896", "pv_used":"58720256", "pv_missing":"",
           "pe_start":"1048576", "dev_size":"209715200"},
          {"pv_name":"[unknown]", "pv_uuid":"MFFaVz", "pv_size":"205520896", "pv_used":"0", "pv_missing":"missing",
           "pe_start":"1048576", "dev_size":"0"}],
   "lv": [{"lv_name":"thin", "lv_layout":"thin,pool", "lv_size":"41943040", "lv_metadata_size":"8388608",
           "lv_active":"", "lv_device_open":"unknown", "lv_profile":"kvm-storage-autoextend-75-10", "pool_lv":""},
          {"lv_name":"web", "lv_layout":"thin,sparse", "lv_size":"83886080", "lv_metadata_size":"", "lv_active":"",
           "lv_device_open":"unknown", "lv_profile":"", "pool_lv":"thin"}],
   "pvseg": [{"pvseg_start":"0"}, {"pvseg_start":"10"}],
   "seg": [{"lv_name":"thin", "seg_monitor":"", "chunk_size":"65536"},
           {"lv_name":"web", "seg_monitor":"", "chunk_size":"0"}]},
  {"pv": [{"pv_name":"/dev/loop1", "pv_uuid":"MFFaVz-bQlo", "pv_size":"209715200", "pv_used":"0", "pv_missing":"",
           "pe_start":"1048576", "dev_size":"209715200"}],
   "pvseg": [{"pvseg_start":"0"}]}
]}
"""


def disk(path: str, *holds: str, **given: Any) -> dict[str, Any]:
    """As device_info tells of it; one that holds nothing and that nobody uses is blank."""
    found = {"path": path, "exists": True, "node": NODES.get(path, path), "size": 401 * MIB, "holds": list(holds)}
    found = {**found, "partitions": [], "users": [], "ids": [path], **given}
    return {**found, "blank": found["exists"] and not (found["holds"] or found["users"] or found["partitions"])}


def pv(path: str, **given: Any) -> dict[str, str]:
    """A device of 100 extents, full up to its end."""
    found = {"pv_name": NODES[path], "pv_uuid": f"pv-{path[-1]}", "pv_size": str(100 * EXTENT), "pv_used": "0"}
    return {**found, "pv_missing": "", "pe_start": str(MIB), "dev_size": str(401 * MIB), **given}


GONE = {**pv(D), "pv_name": "[unknown]", "pv_missing": "missing", "dev_size": "0"}


def lv(name: str, **given: str) -> dict[str, str]:
    found = {"lv_name": name, "lv_layout": "linear", "lv_size": str(10 * EXTENT), "lv_metadata_size": ""}
    return {**found, "lv_active": "active", "lv_device_open": "", "lv_profile": "", "pool_lv": "", **given}


def thin(name: str = "thin", **given: str) -> dict[str, str]:
    """A thin pool of 10 extents, which its own volumes hold open."""
    more = {"lv_layout": "thin,pool", "lv_metadata_size": str(8 * MIB), "lv_device_open": "open", **given}
    return lv(name, **more)


def vg(name: str, *pvs: dict[str, str], lvs: Any = (), segs: Any = (), **given: Any) -> dict[str, Any]:
    missing = sum(1 for one in pvs if one["pv_missing"])
    found = {"vg_name": name, "vg_uuid": f"vg-{name}", "vg_extent_size": str(EXTENT), "vg_exported": ""}
    found = {**found, "vg_extent_count": str(100 * len(pvs)), "vg_free_count": str(100 * len(pvs))}
    found = {**found, "vg_autoactivation": "enabled", "vg_missing_pv_count": str(missing), **given}
    return {"vg": [found], "pv": list(pvs), "lv": list(lvs), "pvseg": [], "seg": list(segs)}


def outside(path: str, group: str, **given: str) -> dict[str, str]:
    """As `lvm pvs --devices` tells of it."""
    found = {"pv_name": NODES[path], "pv_uuid": f"pv-{path[-1]}", "pv_missing": "", "vg_name": group}
    return {**found, "vg_uuid": f"vg-{group}", "vg_exported": "", "vg_missing_pv_count": "0", **given}


def plan(
    *groups: dict[str, Any],
    seen: Any = (),
    hidden: Any = None,
    disks: Any = (),
    gone: Any = None,
    guests: Any = (),
    file: str = "present",
    in_force: bool = True,
    **play: Any,
) -> dict[str, Any]:
    """The plan; seen None is before LVM was looked at."""
    looked = seen is not None
    told = {"stdout": json.dumps({"report": [{"pv": list(hidden)}]})} if hidden is not None else {}
    return filtered(
        list(groups),
        report={"stdout": json.dumps({"report": list(seen)}), "rc": 0} if looked else {},
        listed={"rc": 0 if in_force else 5} if looked else {},
        outside=told or {"skipped": True},
        disks={"devices": list(disks)},
        gone={"devices": gone} if gone else {},
        guest_groups=list(guests),
        devices_file=file,
        **{**PLAY, **play},
    )


def commands(found: dict[str, Any], key: str) -> list[str]:
    return [" ".join(step["argv"]) for step in found[key]]


def vms(**given: Any) -> dict[str, Any]:
    return {"name": "vms", "devices": [A], **given}


def pooled(**given: Any) -> dict[str, Any]:
    """The group vms with one thin pool."""
    return vms(thin_pools=[{"name": "thin", "capacity": "40MiB", **given}])


BLANK = {"disks": [disk(A)]}  # and no group
THERE = {"disks": [disk(A, *LVM)], "seen": [vg("vms", pv(A))]}


def there(*lvs: dict[str, str], **given: Any) -> dict[str, Any]:
    """The group vms with these volumes on A."""
    return {**THERE, "seen": [vg("vms", pv(A), lvs=lvs, **given)]}


# What is refused: (groups, what is seen, all of the problems)
REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    "device by two paths": (
        [vms(devices=[A, B])],
        {"disks": [disk(A), disk(B, node="/dev/sda")]},
        [f"device {B}: is given twice, also as {A}; name it once"],
    ),
    "guests without a devices file": (
        [],
        {"seen": [vg("g", pv(A))], "guests": ["g"], "file": "unmanaged", "in_force": False},
        ["volume group 'g': is hidden by the devices file only; set host_lvm_devices_file to present"],
    ),
    "a group of a guest that the host uses": (
        [],
        {"seen": [vg("g", pv(A), lvs=[lv("root", lv_device_open="open"), thin()])], "guests": ["g"]},
        [
            "volume group 'g': this host uses its volume 'root', so it is no group of a guest; take it out of "
            "host_lvm_guest_groups, or stop what uses it"
        ],
    ),
    **{
        f"name of a group {name!r}": (
            [{"name": name}],
            {"seen": None},
            [f"volume group '{name}': LVM takes no such name; use letters, digits and _ + . -"],
        )
        for name in ("-vms", "a b", "a/b", "", ".", "..", "vms\n", "a" * 128)
    },
    "declared twice": (
        [vms(devices=[]), vms(devices=[])],
        THERE,
        ["volume group 'vms': is declared twice; declare it once"],
    ),
    "of the host and of a guest": (
        [vms()],
        {**THERE, "guests": ["vms"]},
        ["volume group 'vms': is declared, and a group of a guest too; take it out of one of the lists"],
    ),
    "present with delete_data": (
        [vms(delete_data=True)],
        THERE,
        ["volume group 'vms': has delete_data, and is to be present; leave out delete_data, or set state to absent"],
    ),
    "overwrite without device": (
        [vms(overwrite=[B])],
        THERE,
        [f"device {B}: is to be overwritten, but is no device of volume group 'vms'; name it in devices too"],
    ),
    "remove and device": (
        [vms(remove=[A])],
        THERE,
        [f"device {A}: is to be in volume group 'vms' and to be removed; name it in one of the lists"],
    ),
    "device twice": ([vms(devices=[A, A])], THERE, [f"device {A}: is given twice; name it once"]),
    "device in two groups": (
        [vms(), {"name": "other", "devices": [A]}],
        BLANK,
        [f"device {A}: is given twice; name it once"],
    ),
    **{
        f"pe_size {size}": (
            [vms(pe_size=size)],
            BLANK,
            [f"volume group 'vms': pe_size {size} is no size of an extent; give one such as 4MiB"],
        )
        for size in ("512", "1000", "96KiB", "4MB", "much", "0", "200KiB")
    },
    "shared with thin pools": (
        [{**pooled(), "shared": True}],
        BLANK,
        [
            "volume group 'vms': is shared, and a thin pool can be active on one host only; put it into a group that is"
            " not shared"
        ],
    ),
    **{
        f"name of a pool {name!r}": (
            [pooled(name=name)],
            BLANK,
            [f"thin pool 'vms/{name}': LVM takes no such name; use letters, digits and _ + . -"],
        )
        for name in ("-x", ".", "..", "snapshot1", "pvmove0", "x_tdata", "x_cvol", "x_imeta", "x_wcorig_y", "x\n")
    },
    "pool twice": (
        [vms(thin_pools=[{"name": "thin", "capacity": "4MiB"}] * 2)],
        BLANK,
        ["thin pool 'vms/thin': is declared twice; declare it once"],
    ),
    "pool absent without delete_data": (
        [pooled(state="absent")],
        there(thin()),
        [
            "thin pool 'vms/thin': all of its volumes would go with it; give delete_data: true, or do not name it, and "
            "it stays as it is"
        ],
    ),
    "pool absent with the word false": (
        [pooled(state="absent", delete_data="false")],
        there(thin()),
        [
            "thin pool 'vms/thin': all of its volumes would go with it; give delete_data: true, or do not name it, and "
            "it stays as it is"
        ],
    ),
    "pool present with delete_data": (
        [pooled(delete_data=True)],
        BLANK,
        ["thin pool 'vms/thin': has delete_data, and is to be present; leave out delete_data, or set state to absent"],
    ),
    **{
        f"capacity {size}": (
            [pooled(capacity=size)],
            BLANK,
            [f"thin pool 'vms/thin': capacity {size} is no size; give one such as 100GiB, or 80% of the group"],
        )
        for size in ("0", "much", "0%", "101%", "-5", "1.5%", "10XB")
    },
    **{
        f"metadata_capacity {size}": (
            [pooled(metadata_capacity=size)],
            BLANK,
            [f"thin pool 'vms/thin': metadata_capacity {size} is not possible; give 2MiB to 15GiB"],
        )
        for size in ("2097151", "16978542593", "much")
    },
    **{
        f"chunk_size {size}": (
            [pooled(chunk_size=size)],
            BLANK,
            [f"thin pool 'vms/thin': chunk_size {size} is not possible; give a multiple of 64KiB, at most 1GiB"],
        )
        for size in ("32KiB", "65KiB", "2GiB", "much")
    },
    **{
        f"autoextend {autoextend}": (
            [pooled(autoextend=autoextend)],
            BLANK,
            [
                "thin pool 'vms/thin': autoextend is not possible; LVM takes a threshold from 50 to 100 (which "
                "switches it off) and a percent above 0"
            ],
        )
        for autoextend in ({"threshold": 49}, {"threshold": 101}, {"threshold": 70, "percent": 0})
    },
    "data to go of a group out of use": (
        [vms(state="absent", delete_data=True)],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "vms")]},
        [
            f"volume group 'vms': was taken out of use, and is still on {A}; declare it present before its data are "
            "deleted"
        ],
    ),
    "data to go of an exported group": (
        [vms(state="absent", delete_data=True)],
        there(vg_exported="exported"),
        [
            "volume group 'vms': was taken out of use, and is still on /dev/sda; declare it present before its data "
            "are deleted"
        ],
    ),
    "device not there": (
        [vms()],
        {"disks": [disk(A, exists=False)]},
        [f"device {A}: is not there; ls -l /dev/disk/by-id shows those that are"],
    ),
    "device not looked at": ([vms()], {}, [f"device {A}: is not there; ls -l /dev/disk/by-id shows those that are"]),
    "device of another group": (
        [vms(overwrite=[A])],
        {"disks": [disk(A, *LVM)], "seen": [vg("other", pv(A))]},
        [f"device {A}: is part of volume group 'other'; take it out of that first"],
    ),
    "device of another group that is hidden": (
        [vms(overwrite=[A])],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "guest")]},
        [f"device {A}: is part of volume group 'guest'; take it out of that first"],
    ),
    "device in use": (
        [vms(overwrite=[A])],
        {"disks": [disk(A, "ext4", users=["mounted on /srv", "swap"])]},
        [f"device {A}: is in use (mounted on /srv, swap); give another, or stop what uses it"],
    ),
    "device in use, before LVM is looked at": (
        [vms(overwrite=[A])],
        {"disks": [disk(A, "ext4", users=["mounted on /srv"])], "seen": None},
        [f"device {A}: is in use (mounted on /srv); give another, or stop what uses it"],
    ),
    "device not blank": (
        [vms()],
        {"disks": [disk(A, "gpt", partitions=["/dev/sda1"])]},
        [f"device {A}: is not blank, it holds gpt, /dev/sda1; give another, or name it in overwrite, and that is lost"],
    ),
    "device not blank, before LVM is looked at": (
        [vms()],
        {"disks": [disk(A, "ext4")], "seen": None},
        [f"device {A}: is not blank, it holds ext4; give another, or name it in overwrite, and that is lost"],
    ),
    "device of LVM in no group": (
        [vms()],
        {"disks": [disk(A, *LVM)], "seen": [{"pv": [pv(A)]}]},
        [f"device {A}: is not blank, it holds LVM2_member; give another, or name it in overwrite, and that is lost"],
    ),
    "two groups of the name": (
        [vms()],
        {**THERE, "seen": [vg("vms", pv(A)), vg("vms", pv(B), vg_uuid="two")]},
        ["volume group 'vms': LVM sees two of this name; hide that of the guest, or rename one by its UUID (vgrename)"],
    ),
    "two groups of the name, one of them hidden": (
        [vms(devices=[A, B])],
        {**THERE, "disks": [disk(A, *LVM), disk(B, *LVM)], "hidden": [outside(B, "vms", vg_uuid="two")]},
        ["volume group 'vms': LVM sees two of this name; hide that of the guest, or rename one by its UUID (vgrename)"],
    ),
    "two groups of the name to go": (
        [vms(state="absent", delete_data=True)],
        {**THERE, "seen": [vg("vms", pv(A)), vg("vms", pv(B), vg_uuid="two")]},
        ["volume group 'vms': LVM sees two of this name; hide that of the guest, or rename one by its UUID (vgrename)"],
    ),
    "volume in use of a group to go": (
        [vms(state="absent")],
        there(lv("web", lv_device_open="open"), thin()),
        ["volume group 'vms': its volume 'web' is in use; stop what uses it"],
    ),
    "group to go on other devices": (
        [vms(state="absent", delete_data=True, devices=[B])],
        {**THERE, "disks": [disk(B)]},
        ["volume group 'vms': is on other devices (/dev/sda); name one of them, or give another name"],
    ),
    "group to go whose given device is another group's": (
        [vms(state="absent", delete_data=True, devices=[B])],
        {"disks": [disk(B, *LVM)], "seen": [vg("vms", pv(A)), vg("other", pv(B))]},
        ["volume group 'vms': is on other devices (/dev/sda); name one of them, or give another name"],
    ),
    "group to be exported with devices missing": (
        [vms(state="absent")],
        {**THERE, "seen": [vg("vms", pv(A), GONE)]},
        [
            "volume group 'vms': 1 of its devices are missing; bring them back (vgs --options +vg_missing_pv_count)",
        ],
    ),
    "shared group to go without all hosts": (
        [vms(state="absent", delete_data=True, shared=True)],
        {**THERE, "hosts": ["hv1", "hv2", "hv3"], "batch": ["hv1"]},
        [
            "volume group 'vms': is shared, and hv2, hv3 may have it and take no part, or no longer; run this with all "
            "hosts at once"
        ],
    ),
    "group not there": (
        [vms(devices=[])],
        {},
        ["volume group 'vms': is not on this host; give devices to make it of"],
    ),
    "group on other devices": (
        [vms(devices=[B])],
        {**THERE, "disks": [disk(B)]},
        ["volume group 'vms': is on other devices (/dev/sda); name one of them, or give another name"],
    ),
    "group with devices missing": (
        [vms()],
        {**THERE, "seen": [vg("vms", pv(A), GONE)]},
        ["volume group 'vms': 1 of its devices are missing; bring them back (vgs --options +vg_missing_pv_count)"],
    ),
    "hidden by a filter": (
        [vms()],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "vms")], "file": "unmanaged", "in_force": False},
        [f"volume group 'vms': LVM's filter hides it; let the filter pass {A}"],
    ),
    "hidden with devices missing": (
        [vms()],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "vms", vg_missing_pv_count="1")]},
        ["volume group 'vms': some of its devices are missing; name all of them in devices"],
    ),
    "other extents": (
        [vms(pe_size="8MiB")],
        THERE,
        ["volume group 'vms': its extents have 4194304 bytes, and that can't be changed; leave out pe_size"],
    ),
    "device to leave that is used": (
        [vms(remove=[B])],
        {"disks": [disk(A, *LVM), disk(B, *LVM)], "seen": [vg("vms", pv(A), pv(B, pv_used="4194304"))]},
        [f"device {B}: volumes of volume group 'vms' are on it; move them off by 'pvmove /dev/sdb'"],
    ),
    "last device to leave": (
        [vms(devices=[], remove=[A])],
        THERE,
        [f"device {A}: is the last one of volume group 'vms'; set the state of the group to absent"],
    ),
    "all devices to leave": (
        [vms(devices=[], remove=[A, B])],
        {"disks": [disk(A, *LVM), disk(B, *LVM)], "seen": [vg("vms", pv(A), pv(B))]},
        [
            f"device {path}: is the last one of volume group 'vms'; set the state of the group to absent"
            for path in (A, B)
        ],
    ),
    "volume of the name of a pool": (
        [pooled()],
        there(lv("thin")),
        ["thin pool 'vms/thin': a volume of this name is there, which is no thin pool; give another name"],
    ),
    "cache pool of the name of a pool to go": (
        [pooled(state="absent", delete_data=True)],
        there(lv("thin", lv_layout="cache,pool")),
        ["thin pool 'vms/thin': a volume of this name is there, which is no thin pool; give another name"],
    ),
    "volume in use of a pool to go": (
        [pooled(state="absent", delete_data=True)],
        there(thin(), lv("web", pool_lv="thin", lv_device_open="open"), lv("x", lv_device_open="open")),
        ["thin pool 'vms/thin': its volume 'web' is in use; stop what uses it"],
    ),
    "pool without capacity": (
        [vms(thin_pools=[{"name": "thin"}])],
        THERE,
        ["thin pool 'vms/thin': is not there, and has no capacity; give one"],
    ),
    "other chunks": (
        [pooled(chunk_size="128KiB")],
        there(thin(), segs=[{"lv_name": "thin", "seg_monitor": "", "chunk_size": "65536"}]),
        ["thin pool 'vms/thin': its chunks have 65536 bytes, and that can't be changed; leave out chunk_size"],
    ),
    "no room": (
        [pooled(capacity="100%")],
        BLANK,
        [
            "volume group 'vms': its thin pools need 102 extents of 4194304 bytes, metadata included, and 100 are "
            "free; make them smaller, or add a device"
        ],
    ),
    "guest with a volume that is to go": (
        [vms(state="absent", delete_data=True)],
        {
            **there(lv("web")),
            "gone": [{"path": "/dev/vms/web", "users": ["a disk of guest 'web'", "claimed by something"]}],
        },
        ["volume /dev/vms/web: is a disk of guest 'web'; take it from there first"],
    ),
}


@pytest.mark.parametrize(("groups", "world", "problems"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(groups: list[dict[str, Any]], world: dict[str, Any], problems: list[str]) -> None:
    assert plan(*groups, **world)["problems"] == problems


def messages() -> dict[str, str]:
    """Every text of the code with a way out, as a pattern; ast joins what stands on several lines."""
    tree = ast.parse(Path(volume_groups.__file__).read_text(encoding="utf-8"))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    texts = [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Constant)) and node not in said]
    inner = {part for node in texts if isinstance(node, ast.JoinedStr) for part in node.values}
    found = {}
    for node in texts:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        if node not in inner and any(isinstance(word, str) and "; " in word for word in words):
            found[ast.unparse(node)] = "".join(".+" if word is None else re.escape(word) for word in words)
    return found


@pytest.mark.parametrize("pattern", messages().values(), ids=messages().keys())
def test_every_refusal_of_the_code_has_a_row(pattern: str) -> None:
    assert any(re.search(pattern, problem) for _groups, _world, found in REFUSED.values() for problem in found)


# What is done: (groups, what is seen, all lists of the plan that are not empty)
DONE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "nothing": ([vms()], THERE, {}),
    "nothing of a thin pool that is larger": (
        [pooled(capacity="20MiB", metadata_capacity="4MiB")],
        there(thin()),
        {},
    ),
    "nothing before LVM is looked at": ([pooled()], {**BLANK, "seen": None}, {}),
    "LVM has to tell of a device of LVM": ([vms()], {"disks": [disk(A, *LVM, users=["vms-web"])], "seen": None}, {}),
    "a group of a guest with a devices file that is not the role's": (
        [],
        {"seen": [vg("g", pv(A))], "guests": ["g"], "file": "unmanaged"},
        {"hide": ["lvm lvmdevices --yes --deldev /dev/sda"]},
    ),
    "a group that goes, and one that gets its disk": (
        [vms(state="absent"), {"name": "other", "devices": [A]}],
        BLANK,
        {"make": [{"vg": "other", "pvs": [A], "extent": "4194304b", "options": ""}]},
    ),
    "a group that gets the disk of one that goes": (
        [{"name": "other", "devices": [A]}, vms(state="absent")],
        BLANK,
        {"make": [{"vg": "other", "pvs": [A], "extent": "4194304b", "options": ""}]},
    ),
    "two groups that have gone from a disk": ([vms(state="absent"), {**vms(state="absent"), "name": "b"}], BLANK, {}),
    "thin pools of a group that is to go are not looked at": (
        [{**pooled(capacity="much"), "state": "absent"}],
        BLANK,
        {},
    ),
    "another group on the disk of one that is to be destroyed": (
        [vms(state="absent", delete_data=True)],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "other")]},
        {"outside": ["/dev/sda"]},
    ),
    "a group to be destroyed, before LVM is looked at": (
        [vms(state="absent", delete_data=True)],
        {"disks": [disk(A, *LVM)], "seen": None},
        {},
    ),
    "a group to be destroyed with a disk that was not looked at": ([vms(state="absent", delete_data=True)], {}, {}),
    "stop and hide a group of a guest": (
        [],
        {"seen": [vg("g", pv(A), GONE, lvs=[lv("root")])], "guests": ["g"]},
        {"hide": ["vgchange --activate n --select vg_uuid=vg-g", "lvm lvmdevices --yes --deldev /dev/sda"]},
    ),
    "leave a group of a guest that is not active out of the first file": (
        [],
        {
            "seen": [vg("g", pv(A), lvs=[lv("root", lv_active="")]), vg("vms", pv(B), GONE), {"pv": [pv(C)]}],
            "guests": ["g"],
            "in_force": False,
        },
        {"build": [{"name": "/dev/sdb", "uuid": "pv-B"}, {"name": "/dev/sdc", "uuid": "pv-C"}]},
    ),
    "make": (
        [vms(devices=[A, B])],
        {"disks": [disk(A), disk(B)]},
        {"make": [{"vg": "vms", "pvs": [A, B], "extent": "4194304b", "options": ""}]},
    ),
    "make with larger extents": (
        [vms(pe_size="16M")],
        BLANK,
        {"make": [{"vg": "vms", "pvs": [A], "extent": "16777216b", "options": ""}]},
    ),
    "make of a device that was given up": (
        [vms(devices=[A, B], overwrite=[A, B])],
        {"disks": [disk(A, "ext4"), disk(B)]},
        {"wipe": ["/dev/sda"], "make": [{"vg": "vms", "pvs": [A, B], "extent": "4194304b", "options": ""}]},
    ),
    "make of a device of LVM in no group that was given up": (
        [vms(overwrite=[A])],
        {"disks": [disk(A, *LVM)], "seen": [{"pv": [pv(A)]}]},
        {"wipe": ["/dev/sda"], "make": [{"vg": "vms", "pvs": [A], "extent": "4194304b", "options": ""}]},
    ),
    "make a shared one": (
        [vms(shared=True)],
        {**BLANK, "shares": {"hv2": [], "hv1": ["vms"], "hv3": ["vms"]}},
        {
            "outside": ["/dev/sda"],
            "make": [{"vg": "vms", "pvs": [A], "extent": "4194304b", "options": "--setautoactivation n"}],
        },
    ),
    "wait for the host that makes a shared one": (
        [vms(shared="yes", overwrite=[A])],
        {"disks": [disk(A, "ext4")], "shares": SECOND},
        {"outside": ["/dev/sda"], "waits": ["vms"]},
    ),
    "not shared, by a word": (
        [vms(shared="false")],
        {**BLANK, "shares": {"hv2": ["vms"]}},
        {"make": [{"vg": "vms", "pvs": [A], "extent": "4194304b", "options": ""}]},
    ),
    "extend": (
        [vms(devices=[A, B])],
        {**THERE, "disks": [disk(A, *LVM), disk(B)]},
        {"make": [{"vg": "vms", "pvs": [A, B], "extent": "4194304b", "options": ""}]},
    ),
    "extend is for the first host": (
        [vms(devices=[A, B], overwrite=[B], shared=True)],
        {
            "disks": [disk(A, *LVM), disk(B, "ext4")],
            "seen": [vg("vms", pv(A), vg_autoactivation="")],
            "shares": SECOND,
        },
        {},
    ),
    "a disk has grown": (
        [vms()],
        {**THERE, "seen": [vg("vms", pv(A, dev_size=str(410 * MIB)))]},
        {"make": [{"vg": "vms", "pvs": [A], "extent": "4194304b", "options": ""}]},
    ),
    "a disk has grown that is not named": (
        [vms(devices=[])],
        {"seen": [vg("vms", pv(A, dev_size=str(410 * MIB)))]},
        {"make": [{"vg": "vms", "pvs": ["/dev/sda"], "extent": "4194304b", "options": ""}]},
    ),
    "less than an extent more": ([vms()], {**THERE, "seen": [vg("vms", pv(A, dev_size=str(405 * MIB)))]}, {}),
    "share": (
        [vms(shared=True)],
        THERE,
        {"commands": ["vgchange --setautoactivation n vms"]},
    ),
    "share no longer": (
        [vms(shared=False)],
        there(vg_autoactivation=""),
        {"commands": ["vgchange --setautoactivation y vms"]},
    ),
    "nothing is said of sharing": ([vms()], there(vg_autoactivation=""), {}),
    "shared already": ([vms(shared=True)], there(vg_autoactivation=""), {}),
    "the extents that it has": ([vms(pe_size="4M")], THERE, {}),
    "what LVM does not know need not leave it": ([vms(remove=[B])], {**THERE, "disks": [disk(A, *LVM), disk(B)]}, {}),
    "take a device out": (
        [vms(remove=[B, B])],
        {"disks": [disk(A, *LVM), disk(B, *LVM)], "seen": [vg("vms", pv(A), pv(B))]},
        {
            "commands": ["vgreduce vms /dev/sdb", "pvremove --yes /dev/sdb"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sdb"],
        },
    ),
    "take a device out, without a file": (
        [vms(remove=[B])],
        {
            "disks": [disk(A, *LVM), disk(B, *LVM)],
            "seen": [vg("vms", pv(A), pv(B))],
            "in_force": False,
            "file": "unmanaged",
        },
        {"commands": ["vgreduce vms /dev/sdb", "pvremove --yes /dev/sdb"]},
    ),
    "what is not of the group need not leave it": (
        [vms(remove=[B])],
        {"disks": [disk(A, *LVM), disk(B, *LVM)], "seen": [vg("vms", pv(A)), vg("other", pv(B))]},
        {},
    ),
    "put a hidden group into the file": (
        [vms(devices=[A, B])],
        {
            "disks": [disk(A, *LVM), disk(B, *LVM)],
            "hidden": [outside(A, "vms", vg_exported="exported"), outside(B, "vms", vg_exported="exported")],
        },
        {
            "outside": ["/dev/sda", "/dev/sdb"],
            "adopt": [
                "lvm lvmdevices --yes --adddev /dev/sda",
                "lvm lvmdevices --yes --adddev /dev/sdb",
                "vgimport vms",
                "vgchange --activate ay vms",
            ],
        },
    ),
    "put hidden groups into a file that is not the role's, each its own devices": (
        [vms(), {"name": "other", "devices": [B]}],
        {
            "disks": [disk(A, *LVM), disk(B, *LVM)],
            "hidden": [outside(A, "vms"), outside(B, "other")],
            "file": "unmanaged",
        },
        {
            "outside": ["/dev/sda", "/dev/sdb"],
            "adopt": [
                "lvm lvmdevices --yes --adddev /dev/sda",
                "vgchange --activate ay vms",
                "lvm lvmdevices --yes --adddev /dev/sdb",
                "vgchange --activate ay other",
            ],
        },
    ),
    "put a hidden group into the file that is only now made": (
        [vms()],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "vms")], "in_force": False},
        {
            "outside": ["/dev/sda"],
            "adopt": ["lvm lvmdevices --yes --adddev /dev/sda", "vgchange --activate ay vms"],
        },
    ),
    "put a shared one into the file": (
        [vms(shared=True)],
        {"disks": [disk(A, *LVM)], "hidden": [outside(A, "vms", vg_exported="exported")], "shares": SECOND},
        {"outside": ["/dev/sda"], "adopt": ["lvm lvmdevices --yes --adddev /dev/sda"]},
    ),
    "put the missing device into the file": (
        [vms(devices=[A, B])],
        {
            "disks": [disk(A, *LVM), disk(B, *LVM)],
            "seen": [vg("vms", pv(A), GONE)],
            "hidden": [outside(A, "vms"), outside(B, "vms", vg_missing_pv_count="1")],
        },
        {
            "outside": ["/dev/sda", "/dev/sdb"],
            "adopt": ["lvm lvmdevices --yes --adddev /dev/sdb", "vgchange --activate ay vms"],
        },
    ),
    "put the missing device into the file, which is the only one named": (
        [vms(devices=[B])],
        {"disks": [disk(B, *LVM)], "seen": [vg("vms", pv(A), GONE)], "hidden": [outside(B, "vms")]},
        {
            "outside": ["/dev/sdb"],
            "adopt": ["lvm lvmdevices --yes --adddev /dev/sdb", "vgchange --activate ay vms"],
        },
    ),
    "import": (
        [vms()],
        there(vg_exported="exported"),
        {"adopt": ["vgimport vms", "vgchange --activate ay vms"]},
    ),
    "import is for the first host": (
        [vms(shared=True)],
        {**there(vg_exported="exported"), "shares": SECOND},
        {},
    ),
    "export": (
        [vms(state="absent")],
        there(lv("web")),
        {
            "asks": ["/dev/vms/web"],
            "drop": ["vgchange --activate n vms"],
            "delete": ["vgexport vms"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sda"],
        },
    ),
    "export by a word": (
        [vms(state="absent", delete_data="no")],
        {**THERE, "in_force": False, "file": "unmanaged"},
        {"delete": ["vgexport vms"]},
    ),
    "exported already": (
        [vms(state="absent")],
        {**there(vg_exported="exported"), "in_force": False, "file": "unmanaged"},
        {},
    ),
    "a shared one only stops": (
        [vms(state="absent", shared=True)],
        {**there(lv("web")), "in_force": False, "file": "unmanaged"},
        {"asks": ["/dev/vms/web"], "drop": ["vgchange --activate n vms"]},
    ),
    "a shared one only stops, with devices missing and other hosts away": (
        [vms(state="absent", shared=True)],
        {
            **THERE,
            "seen": [vg("vms", pv(A), GONE, lvs=[lv("web")])],
            "in_force": False,
            "file": "unmanaged",
            "hosts": ["hv1", "hv2"],
        },
        {"asks": ["/dev/vms/web"], "drop": ["vgchange --activate n vms"]},
    ),
    "destroy by name alone, with other hosts away": (
        [vms(state="absent", delete_data=True, devices=[])],
        {"seen": [vg("vms", pv(A))], "in_force": False, "file": "unmanaged", "hosts": ["hv1", "hv2"]},
        {"delete": ["vgremove --force --yes vms", "pvremove --yes /dev/sda"]},
    ),
    "destroy": (
        [vms(state="absent", delete_data=True)],
        there(lv("web", lv_active="")),
        {
            "asks": ["/dev/vms/web"],
            "delete": ["vgremove --force --yes vms", "pvremove --yes /dev/sda"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sda"],
        },
    ),
    "destroy one with a device that is broken": (
        [vms(state="absent", delete_data=True)],
        {**THERE, "seen": [vg("vms", pv(A), GONE)]},
        {
            "delete": ["vgremove --force --yes vms", "pvremove --yes /dev/sda"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sda"],
        },
    ),
    "destroy is for the first host": (
        [vms(state="absent", delete_data=True, shared=True)],
        {
            **there(lv("web")),
            "shares": SECOND,
            "hosts": ["hv2", "hv1"],
            "batch": ["hv2", "hv1"],
        },
        {
            "asks": ["/dev/vms/web"],
            "drop": ["vgchange --activate n vms"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sda"],
        },
    ),
    "destroyed already": ([vms(state="absent", delete_data=True)], BLANK, {}),
    "out of use already": ([vms(state="absent")], {"disks": [disk(A, *LVM)]}, {}),
    "look for what is to be destroyed past the filter": (
        [vms(state="absent", delete_data=True)],
        {"disks": [disk(A, *LVM)]},
        {"outside": ["/dev/sda"]},
    ),
    "take a device out for another": (
        [vms(devices=[B, C], remove=[A])],
        {"disks": [disk(A, *LVM), disk(B, *LVM), disk(C)], "seen": [vg("vms", pv(A), pv(B, pv_used="4194304"))]},
        {
            "make": [{"vg": "vms", "pvs": [B, C], "extent": "4194304b", "options": ""}],
            "commands": ["vgreduce vms /dev/sda", "pvremove --yes /dev/sda"],
            "last": ["lvm lvmdevices --yes --deldev /dev/sda"],
        },
    ),
    "make a thin pool": (
        [pooled()],
        THERE,
        {"commands": ["lvcreate --type thin-pool --name thin --extents 10 --monitor y --yes vms"]},
    ),
    "make a thin pool with all options": (
        [
            pooled(
                capacity="40000000",
                metadata_capacity="5MB",
                chunk_size="128K",
                autoextend={"threshold": "75", "percent": 10},
            )
        ],
        THERE,
        {
            "commands": [
                "lvcreate --type thin-pool --name thin --extents 10 --poolmetadatasize 5000192b --chunksize 131072b "
                "--metadataprofile kvm-storage-autoextend-75-10 --monitor y --yes vms"
            ],
            "profiles": [{"name": "kvm-storage-autoextend-75-10", "threshold": 75, "percent": 10}],
        },
    ),
    "a percentage of a group with a disk more": (
        [vms(devices=[A, B], thin_pools=[{"name": "thin", "capacity": "75%"}])],
        {**THERE, "disks": [disk(A, *LVM), disk(B)]},
        {
            "make": [{"vg": "vms", "pvs": [A, B], "extent": "4194304b", "options": ""}],
            "commands": ["lvcreate --type thin-pool --name thin --extents 150 --monitor y --yes vms"],
        },
    ),
    "a percentage of a group with larger extents and a disk more": (
        [vms(devices=[A, B], thin_pools=[{"name": "thin", "capacity": "50%"}])],
        {
            "disks": [disk(A, *LVM), disk(B)],
            "seen": [vg("vms", pv(A), vg_extent_size=str(8 * MIB), vg_extent_count="50", vg_free_count="50")],
        },
        {
            "make": [{"vg": "vms", "pvs": [A, B], "extent": "4194304b", "options": ""}],
            "commands": ["lvcreate --type thin-pool --name thin --extents 50 --monitor y --yes vms"],
        },
    ),
    "a percentage of a group with a disk less": (
        [vms(remove=[B], thin_pools=[{"name": "thin", "capacity": "50%"}])],
        {
            "disks": [disk(A, *LVM), disk(B, *LVM)],
            "seen": [vg("vms", pv(A), pv(B))],
            "in_force": False,
            "file": "unmanaged",
        },
        {
            "commands": [
                "vgreduce vms /dev/sdb",
                "pvremove --yes /dev/sdb",
                "lvcreate --type thin-pool --name thin --extents 50 --monitor y --yes vms",
            ]
        },
    ),
    "a thin pool in the room of a disk that has grown": (
        [pooled(capacity="20MiB")],
        {**THERE, "seen": [vg("vms", pv(A, dev_size=str(430 * MIB)), vg_free_count="0")]},
        {
            "make": [{"vg": "vms", "pvs": [A], "extent": "4194304b", "options": ""}],
            "commands": ["lvcreate --type thin-pool --name thin --extents 5 --monitor y --yes vms"],
        },
    ),
    "let a thin pool and its metadata grow": (
        [pooled(capacity="10GB", metadata_capacity="16MiB")],
        there(thin(), vg_free_count="2377"),  # 2385 extents hold 10 GB; 10 are there, 2 more are for metadata
        {
            "commands": ["lvextend --extents 2385 vms/thin", "lvextend --poolmetadatasize 16777216b vms/thin"],
        },
    ),
    "set and replace how a thin pool grows by itself": (
        [pooled(autoextend={"threshold": 80})],
        there(thin(lv_profile="kvm-storage-autoextend-75-10")),
        {
            "commands": ["lvchange --metadataprofile kvm-storage-autoextend-80-20 vms/thin"],
            "profiles": [{"name": "kvm-storage-autoextend-80-20", "threshold": 80, "percent": 20}],
            "stale": ["kvm-storage-autoextend-75-10"],
        },
    ),
    "keep a profile that another group has": (
        [pooled(autoextend={"threshold": 80})],
        {
            **THERE,
            "seen": [
                vg("vms", pv(A), lvs=[thin(lv_profile="kvm-storage-autoextend-75-10")]),
                vg("other", pv(B), lvs=[thin(lv_profile="kvm-storage-autoextend-75-10")]),
            ],
        },
        {
            "commands": ["lvchange --metadataprofile kvm-storage-autoextend-80-20 vms/thin"],
            "profiles": [{"name": "kvm-storage-autoextend-80-20", "threshold": 80, "percent": 20}],
        },
    ),
    "grows by itself as is wanted": (
        [pooled(autoextend={"threshold": 75, "percent": 10})],
        there(thin(lv_profile="kvm-storage-autoextend-75-10")),
        {"profiles": [{"name": "kvm-storage-autoextend-75-10", "threshold": 75, "percent": 10}]},
    ),
    "the least by which a thin pool grows by itself": (
        [pooled(autoextend={"threshold": 100, "percent": 1})],
        there(thin(lv_profile="kvm-storage-autoextend-100-1")),
        {"profiles": [{"name": "kvm-storage-autoextend-100-1", "threshold": 100, "percent": 1}]},
    ),
    "the soonest at which a thin pool grows by itself": (
        [pooled(autoextend={"threshold": 50})],
        there(thin(lv_profile="kvm-storage-autoextend-50-20")),
        {"profiles": [{"name": "kvm-storage-autoextend-50-20", "threshold": 50, "percent": 20}]},
    ),
    "have a thin pool monitored": (
        [pooled()],
        there(thin(), segs=[{"lv_name": "thin", "seg_monitor": "not monitored", "chunk_size": "65536"}]),
        {"commands": ["lvchange --monitor y vms/thin"]},
    ),
    "a thin pool that is not active is not monitored": (
        [pooled()],
        there(
            thin(lv_active="", lv_device_open="unknown"),
            segs=[{"lv_name": "thin", "seg_monitor": "not monitored", "chunk_size": "65536"}],
        ),
        {},
    ),
    "destroy a thin pool": (
        [pooled(state="absent", delete_data=True)],
        there(thin(lv_profile="kvm-storage-autoextend-75-10"), lv("web", pool_lv="thin"), lv("other")),
        {
            "commands": ["lvremove --force --yes vms/thin"],
            "asks": ["/dev/vms/web"],
            "stale": ["kvm-storage-autoextend-75-10"],
        },
    ),
    "chunks and metadata as they are": (
        [pooled(chunk_size="64K", metadata_capacity="8M")],
        there(thin(), segs=[{"lv_name": "thin", "seg_monitor": "", "chunk_size": "65536"}]),
        {},
    ),
    "keep a profile that another thin pool is to have": (
        [
            vms(
                thin_pools=[
                    {"name": "thin", "state": "absent", "delete_data": True},
                    {"name": "new", "capacity": "4MiB", "autoextend": {"threshold": 75, "percent": 10}},
                ]
            )
        ],
        there(thin(lv_profile="kvm-storage-autoextend-75-10")),
        {
            "commands": [
                "lvremove --force --yes vms/thin",
                "lvcreate --type thin-pool --name new --extents 1 --metadataprofile kvm-storage-autoextend-75-10 "
                "--monitor y --yes vms",
            ],
            "profiles": [{"name": "kvm-storage-autoextend-75-10", "threshold": 75, "percent": 10}],
        },
    ),
    "guests that have no volume that is to go": (
        [vms(state="absent", delete_data=True)],
        {
            **there(lv("web", lv_active="")),
            "in_force": False,
            "file": "unmanaged",
            "gone": [
                {"path": "/dev/vms/web", "users": ["claimed by something"]},
                {"path": "/dev/vms/other", "users": ["a disk of guest 'web'"]},
            ],
        },
        {"asks": ["/dev/vms/web"], "delete": ["vgremove --force --yes vms", "pvremove --yes /dev/sda"]},
    ),
    "destroyed thin pool": ([pooled(state="absent", delete_data=True)], THERE, {}),
    "a profile that is not the role's stays": (
        [pooled(state="absent", delete_data=True)],
        there(thin(lv_profile="own")),
        {"commands": ["lvremove --force --yes vms/thin"]},
    ),
}


@pytest.mark.parametrize(("groups", "world", "expected"), DONE.values(), ids=DONE.keys())
def test_what_is_done(groups: list[dict[str, Any]], world: dict[str, Any], expected: dict[str, Any]) -> None:
    """All of it: a list that a row does not name is empty."""
    declared, told = copy.deepcopy(groups), copy.deepcopy(world)
    found = plan(*groups, **world)
    shown = {key: commands(found, key) if key in STEPS else found[key] for key in LISTS}
    assert {key: value for key, value in shown.items() if value} == expected
    assert (groups, world) == (declared, told), "what was given has been changed"


def test_every_command_of_the_code_has_a_row() -> None:
    code = Path(volume_groups.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'"((?:vg|pv|lv)(?:change|remove|export|import|reduce|create|extend)|lvmdevices)"', code))
    rows = [line for row in DONE.values() for key in STEPS for line in row[2].get(key, ())]
    assert len(named) == 11
    assert [name for name in sorted(named) if not any(name in line.split() for line in rows)] == []


SAID = {
    "stop volume group 'g' of a guest on the host",
    "take /dev/sda of volume group 'g' out of the devices file",
    "put /dev/sda of volume group 'vms' into the devices file",
    "put /dev/sdb of volume group 'vms' into the devices file",
    "put /dev/sdb of volume group 'other' into the devices file",
    "start volume group 'other'",
    "import volume group 'vms'",
    "start volume group 'vms'",
    "let no host activate volume group 'vms' by itself",
    "let the host activate volume group 'vms' by itself",
    f"take {A} out of volume group 'vms'",
    f"take {B} out of volume group 'vms'",
    f"make {A} blank",
    f"make {B} blank",
    f"take {A} out of the devices file",
    f"take {B} out of the devices file",
    "make thin pool 'vms/thin'",
    "grow thin pool 'vms/thin'",
    "grow the metadata of thin pool 'vms/thin'",
    "set how thin pool 'vms/thin' grows by itself",
    "have thin pool 'vms/thin' monitored",
    "destroy thin pool 'vms/thin'",
    "make thin pool 'vms/new'",
    "stop volume group 'vms'",
    "export volume group 'vms'",
    "destroy volume group 'vms'",
    "make its devices blank",
    "take /dev/sda out of the devices file",
}


def test_every_step_says_what_it_does() -> None:
    found = [
        step
        for groups, world, _told in DONE.values()
        for key, steps in plan(*groups, **world).items()
        if key in STEPS
        for step in steps
    ]
    assert {step["say"] for step in found} == SAID
    assert all(isinstance(word, str) and word for step in found for word in step["argv"])


# Sizes


@pytest.mark.parametrize(
    ("capacity", "extents"),
    [
        ("10G", 2560),
        ("10GiB", 2560),
        ("10GB", 2385),  # 10,000,000,000 bytes, up to whole extents
        ("10737418240", 2560),
        (10737418240, 2560),
        ("0.5GiB", 128),
        ("1", 1),
        ("1%", 30),
        ("100%", 3000),
    ],
)
def test_sizes_count_as_those_of_libvirt(capacity: Any, extents: int) -> None:
    world = there(vg_extent_count="3000", vg_free_count="3010")
    found = plan(pooled(capacity=capacity), **world)
    assert found["problems"] == []
    assert commands(found, "commands")[0].split()[6] == str(extents)


def test_a_percentage_of_a_small_group_is_an_extent_at_least() -> None:
    found = plan(pooled(capacity="1%"), **there(vg_extent_count="9", vg_free_count="9"))
    assert "--extents 1 " in commands(found, "commands")[0]


@pytest.mark.parametrize("size", ["1KiB", "64KiB", "128KiB", "384KiB", "4MiB", "6MiB", "1GiB"])
def test_extents_that_lvm_takes(size: str) -> None:
    assert plan(vms(pe_size=size), **BLANK)["problems"] == []


@pytest.mark.parametrize("size", ["2MiB", "15GiB", "16978542592"])
def test_metadata_that_lvm_takes(size: str) -> None:
    world = there(vg_extent_count="99999", vg_free_count="99999")
    assert plan(pooled(metadata_capacity=size), **world)["problems"] == []


@pytest.mark.parametrize(
    ("free", "volumes", "pools", "fits"),
    [
        (
            12,
            [],
            [{"capacity": "40MiB"}],
            True,
        ),  # one for metadata, one for its copy
        (11, [], [{"capacity": "40MiB"}], False),
        (20, [], [{"capacity": "40MiB", "metadata_capacity": "20MiB"}], True),
        (19, [], [{"capacity": "40MiB", "metadata_capacity": "20MiB"}], False),
        (11, [thin("other")], [{"capacity": "40MiB"}], True),  # there is one already
        (10, [thin("other")], [{"capacity": "40MiB"}], False),
        (23, [], [{"capacity": "40MiB"}, {"capacity": "40MiB"}], True),  # one copy for both
        (22, [], [{"capacity": "40MiB"}, {"capacity": "40MiB"}], False),
        (10, [thin("p0")], [{"capacity": "80MiB"}], True),
        (9, [thin("p0")], [{"capacity": "80MiB"}], False),
        (0, [thin("p0")], [{"capacity": "40MiB"}], True),
    ],
)
def test_room_for_thin_pools(free: int, volumes: list[Any], pools: list[dict[str, Any]], fits: bool) -> None:
    item = vms(thin_pools=[{"name": f"p{number}", **pool} for number, pool in enumerate(pools)])
    found = plan(item, **there(*volumes, vg_free_count=str(free)))
    assert (found["problems"] == []) is fits


# What LVM tells


def test_what_lvm_printed_is_read() -> None:
    group = volume_groups.read_group(json.loads(PRINTED)["report"][0])
    assert (group.name, group.extents, group.free, group.missing) == ("t1", 98, 81, 1)
    assert (group.exported, group.autoactivation, group.active()) == (False, True, False)
    assert [(one.name, one.group_uuid, one.used) for one in group.devices] == [("/dev/loop0", "utw8nL-9m4U", 58720256)]
    assert group.names == ("/dev/loop0", "[unknown]")
    pool, web = group.volumes
    assert pool.layout == {"thin", "pool"}
    assert (pool.chunk, pool.metadata, pool.opened, pool.profile) == (
        65536,
        8388608,
        False,
        "kvm-storage-autoextend-75-10",
    )
    assert (web.pool, web.metadata, web.opened) == ("thin", 0, False)


def test_devices_in_no_group_and_no_groups_at_all() -> None:
    printed = {"stdout": PRINTED}
    seen = volume_groups.read(printed, {"rc": 0}, {}, {}, volume_groups.Plan())
    assert [group.name for group in seen.groups] == ["t1"]
    assert {name: device.group for name, device in seen.devices.items()} == {"/dev/loop0": "t1", "/dev/loop1": ""}
    orphan = {"report": [{"vg": [{"vg_name": ""}], "pv": [pv(C)], "pvseg": []}]}  # should LVM name a group of such
    seen = volume_groups.read({"stdout": json.dumps(orphan)}, {"rc": 0}, {}, {}, volume_groups.Plan())
    assert (seen.groups, seen.devices["/dev/sdc"].group) == ([], "")
    none = volume_groups.read({"stdout": '{"report": [\n]}'}, {"rc": 5}, {}, {}, volume_groups.Plan())
    assert (none.groups, none.devices, none.looked, none.in_force) == ([], {}, True, False)


def test_multipath_devices_are_known_below_dev_mapper() -> None:
    path = "/dev/disk/by-id/wwn-0x6"
    world = {
        "disks": [disk(path, *LVM, node="/dev/dm-3", ids=["/dev/disk/by-id/dm-name-mpatha", path])],
        "seen": [vg("vms", {**pv(A), "pv_name": "/dev/mapper/mpatha"})],
    }
    found = plan(vms(devices=[path], state="absent", delete_data=True), **world)
    assert found["problems"] == []
    assert commands(found, "delete")[1] == "pvremove --yes /dev/mapper/mpatha"


def test_names_that_are_numbers_are_texts() -> None:
    group = {"name": 7, "devices": [A], "thin_pools": [{"name": 8, "capacity": "4MiB"}]}
    assert commands(plan(group, **BLANK), "commands")[0].split()[-1] == "7"
    found = plan({"name": 7, "devices": [A], "shared": True}, **BLANK, shares={"hv2": [7]})
    assert found["waits"] == ["7"]


def test_what_is_not_given_may_be_null() -> None:
    nulls = dict.fromkeys(("overwrite", "remove", "pe_size", "shared", "delete_data", "state"))
    pool = {**dict.fromkeys(("metadata_capacity", "chunk_size", "autoextend", "state", "delete_data")), "name": "thin"}
    found = plan(vms(**nulls, thin_pools=[{**pool, "capacity": "4MiB"}]), **BLANK)
    assert found["problems"] == []
    assert len(found["make"]) == len(found["commands"]) == 1
    assert plan({"name": "vms", "devices": None, "thin_pools": None}, **THERE)["problems"] == []


@pytest.mark.parametrize(
    ("file", "in_force", "looked", "switch"),
    [
        ("present", False, True, True),
        ("present", True, True, False),
        ("present", False, False, False),
        ("unmanaged", False, True, False),
        ("absent", False, True, False),
    ],
)
def test_when_the_devices_file_is_switched_on(file: str, in_force: bool, looked: bool, switch: bool) -> None:
    found = plan(seen=[vg("own", pv(A))] if looked else None, file=file, in_force=in_force)
    assert found["switch"] is switch
    assert [one["name"] for one in found["build"]] == (["/dev/sda"] if switch else [])


@pytest.mark.parametrize(
    ("pool", "lvs", "monitor"),
    [
        ({"capacity": "4MiB"}, [], True),
        ({}, [thin()], True),
        ({"state": "absent", "delete_data": True}, [thin()], False),
        (None, [thin()], False),
    ],
)
def test_when_thin_pools_are_watched(pool: Any, lvs: list[Any], monitor: bool) -> None:
    item = vms(thin_pools=[{"name": "thin", **pool}] if pool is not None else [])
    assert plan(item, **there(*lvs))["monitor"] is monitor


@pytest.mark.parametrize(
    ("holds", "seen", "shared", "looked_at"),
    [
        (LVM, [], False, True),
        (LVM, [vg("vms", pv(A))], False, False),
        ([], [], False, False),
        ([], [], True, True),  # another host may have made it since the disks were looked at
        (LVM, [vg("vms", pv(A), GONE)], False, True),
        (LVM, None, False, False),
    ],
)
def test_what_is_looked_at_past_the_filter(holds: list[str], seen: Any, shared: bool, looked_at: bool) -> None:
    found = plan(vms(shared=shared), disks=[disk(A, *holds)], seen=seen)
    assert found["outside"] == (["/dev/sda"] if looked_at else [])


# The filter


@pytest.mark.parametrize(
    ("groups", "given", "words"),
    [
        ("vms", {}, "a list of volume groups is needed"),
        ([{"devices": []}], {}, "'name' is not in what was declared or seen"),
        ([], {"report": {"stdout": "no JSON"}}, "can't be read"),
        ([vms(delete_data="perhaps")], {}, "can't be read"),
        ([], {"report": {"stdout": '{"report": [{"vg": [{"vg_name": "vms"}]}]}'}}, "'seg' is not in"),
    ],
)
def test_what_can_not_be_read_is_an_error(groups: Any, given: dict[str, Any], words: str) -> None:
    told = {**dict.fromkeys(("report", "listed", "outside", "disks", "gone"), {}), **given}
    with pytest.raises(AnsibleFilterError, match=words):
        filtered(groups, guest_groups=[], devices_file="present", **PLAY, **told)


def test_the_documentation_names_every_argument_and_every_key() -> None:
    told = yaml.safe_load((ROOT / "plugins/filter/volume_group_plan.yml").read_text(encoding="utf-8"))
    arguments = volume_groups.volume_group_plan.__kwdefaults__ or {}
    assert arguments == {}
    names = set(volume_groups.volume_group_plan.__annotations__) - {"groups", "return"}
    assert set(told["DOCUMENTATION"]["options"]) == names | {"_input"}
    assert list(told["RETURN"]["_value"]["contains"]) == sorted(plan(), key=list(plan()).index)


PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  vars_files: ["{root}/roles/host_lvm/vars/main.yml"]
  vars:
    host_lvm_devices_file: present
    host_lvm_guest_groups: []
    host_lvm_groups:
      - {{name: vms, devices: [/dev/A, /dev/a], shared: "{{{{ shared }}}}"}}
      - {{name: own, devices: null, remove: [/dev/b], shared: "false"}}
    seen: {seen}
    blank: {{exists: true, size: 420478976, holds: [], partitions: [], users: [], ids: [], blank: true}}
  tasks:
    - ansible.builtin.set_fact:
        host_lvm_told: "{{{{ host_lvm_shared }}}}"
        host_lvm_report: {{stdout: "{{{{ seen }}}}"}}
        host_lvm_listed: {{rc: 0}}
        host_lvm_outside: {{skipped: true}}
        host_lvm_gone: {{}}
        host_lvm_disks:
          devices: "{{{{ [blank | combine({{'path': '/dev/A', 'node': '/dev/A'}}),
            blank | combine({{'path': '/dev/a', 'node': '/dev/a'}})] }}}}"
    - ansible.builtin.debug:
        msg: "FOUND {{{{ inventory_hostname }}}} {{{{ found | to_json | b64encode }}}}"
      vars:
        found:
          named: "{{{{ host_lvm_named }}}}"
          shared: "{{{{ host_lvm_shared }}}}"
          plan: "{{{{ host_lvm_plan }}}}"
"""


def test_the_role_reaches_it(tmp_path: Path) -> None:
    """Hosts that share a group by a word, through Ansible's own templating; two paths differ in case alone."""
    seen = json.dumps(json.dumps({"report": [vg("own", pv(D))]}))
    (tmp_path / "play.yml").write_text(PLAYBOOK.format(root=ROOT, seen=seen), encoding="utf-8")
    (tmp_path / "hosts").write_text("hv1 shared=yes\nhv2 shared=true\nhv3 shared=no\n", encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "HOME": str(tmp_path)}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts", "play.yml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.findall(r"FOUND (\w+) ([\w+/=]+)", done.stdout)
    found = {host: json.loads(base64.b64decode(text)) for host, text in told}
    made = {"vg": "vms", "pvs": ["/dev/A", "/dev/a"], "extent": "4194304b", "options": "--setautoactivation n"}
    assert {host: told["shared"] for host, told in found.items()} == {"hv1": ["vms"], "hv2": ["vms"], "hv3": []}
    assert found["hv1"]["named"] == ["/dev/A", "/dev/a", "/dev/b"]
    assert [found[host]["plan"]["problems"] for host in sorted(found)] == [[], [], []]
    assert found["hv1"]["plan"]["make"] == [made]
    assert (found["hv2"]["plan"]["make"], found["hv2"]["plan"]["waits"]) == ([], ["vms"])
    assert found["hv3"]["plan"]["make"] == [{**made, "options": ""}]
