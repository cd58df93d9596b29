# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_multipath refuses and does, from what was seen on a host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_multipath import multipath_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import multipath

A, B = "36001405aaaa", "36001405bbbb"
NVME = "eui.0025385b71b00001"
GIVE = "give what /lib/udev/scsi_id --whitelisted --device /dev/sdX says"
RULE = "is no rule; give one of devnode, wwid, property, protocol, or vendor and product"
NO_WORD = "can not be written into multipath.conf; give a word, without quotes"
VENDOR = "host_multipath_devices: an item lacks vendor or product, by which arrays are known; give both"


def declared(*maps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "state": "present",
        "maps": list(maps),
        "devices": [],
        "settings": {},
        "find_multipaths": "yes",
        "no_path_retry": 12,
        "blacklist": [{"protocol": "scsi:ata"}],
        "blacklist_exceptions": [],
        **more,
    }


def lun(wwid: str = A, **more: Any) -> dict[str, Any]:
    return {"wwid": wwid, **more}


def gone(wwid: str = A, **more: Any) -> dict[str, Any]:
    return {"wwid": wwid, "state": "absent", **more}


def dm(wwid: str = A, name: str = "", size: int = 8, least: int = 8, paths: tuple[str, ...] = ("sdb", "sdc")) -> str:
    """The fact of a map."""
    places = [f"/sys/class/block/{path}" for path in paths]
    return "\t".join(["dm", f"mpath-{wwid}", name or wwid, str(size), str(least), *places])


VOLUME = "dm\tLVM-x\tvg-lv\t8\t16\t/sys/class/block/sda2"
KNOWN = (f"wwid\t{A}", f"wwid\t{B}")


def seen(*facts: str, users: dict[str, list[str]] | None = None, paths: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "look": {"stdout_lines": list(facts)},
        "used": {"devices": [{"path": path, "users": words} for path, words in (users or {}).items()]},
        "paths": {"stdout_lines": list(paths)},
    }


EMPTY: dict[str, Any] = {name: {} for name in multipath.SEEN}

# name: (what is declared, what is wrong with it)
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": (declared(), []),
    "no blacklist": (declared(blacklist=[]), []),
    "all there is to say": (
        declared(
            lun(alias="vms", paths="4", state="present", no_path_retry="queue", skip_kpartx=True),
            gone(B),
            devices=[{"vendor": "LIO", "product": ".*", "fast_io_fail_tmo": 5}],
            settings={"user_friendly_names": False},
            blacklist=[{"devnode": "^sda"}, {"wwid": "3.*"}, {"property": "ID"}],
            blacklist_exceptions=[{"product": "a", "vendor": "b"}],
        ),
        [],
    ),
    **{f"WWID {name!r}": (declared(lun(name)), [f"{name}: is no WWID; {GIVE}"]) for name in ("/dev/sdb", "3600 1")},
    "WWID with a line": (declared(lun(f"{A}\n")), [f"{A}\n: is no WWID; {GIVE}", f"{A}\n: wwid {NO_WORD}"]),
    **{
        f"no WWID, {name}": (
            declared(one),
            ["host_multipath_maps: an item lacks its wwid; give what /lib/udev/scsi_id says of the LUN"],
        )
        for name, one in {"not given": {"paths": 2}, "empty": lun("")}.items()
    },
    "WWID twice": (declared(lun(alias="a"), gone()), [f"{A}: is listed twice; give it once"]),
    **{
        f"paths {number!r}": (declared(lun(paths=number)), [f"{A}: a map has one path at least; correct paths"])
        for number in (0, -1, "some")
    },
    "state": (declared(lun(state="absend")), [f"{A}: absend is no state; give present or absent"]),
    "way to find maps": (
        declared(find_multipaths="maybe"),
        ["host_multipath_find_multipaths: maybe is no way to find maps; take yes, no, strict, greedy or smart"],
    ),
    **{
        f"way to find maps {way!r}": (declared(find_multipaths=way), [])
        for way in ("no", "on", "off", True, False, "strict", "greedy", "smart")
    },
    **{
        f"alias {name!r}": (
            declared(lun(alias=name)),
            [f"{name}: can not be the name of a map; take letters, digits, and _ . : + = @ -"],
        )
        for name in ("control", "-a", "a/b", "a b", "")
    },
    "alias twice": (
        declared(lun(alias="vms"), lun(B, alias="vms")),
        ["vms: is the name of two maps; give each its own"],
    ),
    "alias that is a WWID": (declared(lun(alias=B), lun(B)), [f"{B}: is the name of two maps; give each its own"]),
    "alias that is the WWID of a map with one": (declared(lun(alias=B), lun(B, alias="vms")), []),
    "alias of one that goes": (declared(lun(alias="vms"), gone(B, alias="vms")), []),
    "array without a vendor": (declared(devices=[{"product": "a"}]), [VENDOR]),
    "array without a product": (declared(devices=[{"vendor": "a", "product": ""}]), [VENDOR]),
    "array that tries again": (
        declared(devices=[{"vendor": "a", "product": "b", "no_path_retry": 3}]),
        [
            "host_multipath_devices: no_path_retry of b would not hold, for host_multipath_no_path_retry is for every "
            "array; make that one empty, or set it for maps"
        ],
    ),
    "array that tries again, and nothing for all": (
        declared(devices=[{"vendor": "a", "product": "b", "no_path_retry": 3}], no_path_retry=""),
        [],
    ),
    **{
        f"rule {rule}": (declared(**{where: [rule]}), [f"host_multipath_blacklist: {rule} {RULE}"])
        for where in ("blacklist", "blacklist_exceptions")
        for rule in ({"vendor": where}, {"device": where}, {"devnode": where, "wwid": "b"})
    },
    "setting with a quote": (
        declared(settings={"uid_attrs": 'a"b'}),
        [f"host_multipath_settings: uid_attrs {NO_WORD}"],
    ),
    "setting of a map with two lines": (declared(lun(prio="a\nb")), [f"{A}: prio {NO_WORD}"]),
    "setting of an array that is a list": (
        declared(devices=[{"vendor": "a", "product": "b", "prio": ["c"]}]),
        [f"host_multipath_devices: prio {NO_WORD}"],
    ),
    "setting without a value": (declared(lun(prio=None)), [f"{A}: prio {NO_WORD}"]),
    "alias without a value": (declared(lun(alias=None)), [f"{A}: alias {NO_WORD}"]),
    "name of a setting": (declared(settings={"a b": 1}), [f"host_multipath_settings: a b {NO_WORD}"]),
    **{
        f"{where} with a quote": (
            declared(**{where: [{"wwid": f'"{where}'}]}),
            [f"host_multipath_blacklist: wwid {NO_WORD}"],
        )
        for where in ("blacklist", "blacklist_exceptions")
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_in_itself(name: str) -> None:
    wanted, lines = WRONG[name]
    assert multipath_plan(wanted, EMPTY)["wrong"] == lines


OPEN = "open in multipathd (process 9)"
MAP = f"/dev/mapper/{A}"
LINK = f"/dev/disk/by-id/scsi-{A}"

# name: (what is declared, the host, what is refused)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "map in use that goes": (
        declared(gone()),
        seen(dm(), users={MAP: [OPEN, "mounted on /srv", "swap"]}),
        [f"{MAP}: is to be removed, and is mounted on /srv, swap; end that first"],
    ),
    "map in use, and all go": (
        declared(lun(alias="vms"), state="absent"),
        seen(dm(), users={MAP: ["swap"]}),
        [f"{MAP}: is to be removed, and is swap; end that first"],
    ),
    "map in use that gets another name": (
        declared(lun(alias="vms")),
        seen(dm(), users={MAP: ["swap"]}),
        [f"{MAP}: is to be renamed, and is swap; end that first"],
    ),
    "path in use that is to be one of a map": (
        declared(lun()),
        seen(f"disk\t/dev/sdb\t{A}", f"disk\t/dev/sdc\t{A}", users={"/dev/sdb": [], "/dev/sdc": ["held by vg-lv"]}),
        ["/dev/sdc: is to be taken for a map, and is held by vg-lv; end that first"],
    ),
    "only multipathd has it open": (declared(gone()), seen(dm(), users={MAP: [OPEN]}), []),
    "name of another map": (
        declared(lun(alias="vms")),
        seen(dm(B, "vms")),
        [f"vms: is the name of another device already, {B}; give {A} another alias"],
    ),
    "name of something else": (
        declared(lun(alias="vg-lv")),
        seen(VOLUME),
        [f"vg-lv: is the name of another device already, which is no map; give {A} another alias"],
    ),
    "name of another map, and all go": (declared(lun(alias="vms"), state="absent"), seen(dm(B, "vms")), []),
    "name of its own": (declared(lun(alias="vms")), seen(dm(B), dm(A, "vms"), VOLUME), []),
    "no name": (declared(lun()), seen("dm\tLVM-x\t\t8\t8"), []),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    wanted, host, lines = REFUSED[name]
    assert multipath_plan(wanted, host)["refused"] == lines


FLUSHED = {
    "touched": [MAP],
    "flushed": [A],
    "given_back": ["/sys/class/block/sdb", "/sys/class/block/sdc"],
}

# name: (what is declared, the host, what is done)
WORK: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": (declared(), seen(dm(), VOLUME, *KNOWN, f"disk\t/dev/sdb\t{A}"), {}),
    "a new map": (
        declared(lun()),
        seen(f"disk\t/dev/sda\t{B}", f"disk\t/dev/sdb\t{A}", f"disk\t/dev/sdc\t{A}", "folder"),
        {"touched": ["/dev/sdb", "/dev/sdc"], "unknown": [A]},
    ),
    "a new map of which udev says nothing": (declared(lun()), seen(), {"touched": [LINK], "unknown": [A]}),
    **{
        f"a new map of NVMe: {name[:4]}": (
            declared(lun(name)),
            seen(),
            {"touched": [f"/dev/disk/by-id/nvme-{name}"], "unknown": [name]},
        )
        for name in (NVME, "nvme.1b36-1234", "uuid.8d2a")
    },
    "a map that is there": (declared(lun(alias="vms")), seen(dm(B), dm(name="vms"), *KNOWN), {}),
    "a map that is there by another name": (
        declared(lun(alias="vms")),
        seen(dm(), *KNOWN),
        {"touched": [MAP]},
    ),
    "a map that goes": (
        declared(gone(), lun(B)),
        seen(dm(), dm(B), *KNOWN, f"wwid\t{A}"),
        {**FLUSHED, "forgotten": [A]},
    ),
    "a map that is gone and known": (declared(gone()), seen(*KNOWN), {"forgotten": [A]}),
    "all go": (
        declared(lun(alias="vms"), lun(B), lun("3600c"), state="absent"),
        seen(dm(), VOLUME, *KNOWN, "wwid\t3600d"),
        {**FLUSHED, "forgotten": [A, B], "unknown": ["3600c"]},
    ),
    "all go, those that nobody declared too": (
        declared(state="absent"),
        seen(dm(), *KNOWN),
        {**FLUSHED, "forgotten": [A]},
    ),
    "a map that grows": (declared(), seen(dm(least=16), dm(B, least=4), VOLUME), {"grown": [A]}),
    "a map that has grown and goes": (declared(gone()), seen(dm(least=16)), FLUSHED),
}


@pytest.mark.parametrize("name", WORK)
def test_done(name: str) -> None:
    wanted, host, work = WORK[name]
    plan = multipath_plan(wanted, host)
    assert plan["refused"] == []
    looks = ("wrong", "present", "absent", "refused", "lacking")
    assert {key: value for key, value in plan.items() if value and key not in looks} == work


def test_present_and_absent() -> None:
    items = [lun(), gone(B), lun("3600c", state="present")]
    plan = multipath_plan(declared(*items), EMPTY)
    assert (plan["present"], plan["absent"]) == ([items[0], items[2]], [items[1]])


UP = (f"{A}|vms|sdb|active", f"{A}|vms|sdc|active", f"{B}|other|sdd|failed")
NO_PATH = (
    f"map vms: no path to {A} is here; see that the host is logged in to the array, that the WWID is right, and that "
    "no rule of the blacklist is for it"
)

# name: (map, what multipathd shows, what is lacking)
LACKING: dict[str, tuple[dict[str, Any], tuple[str, ...], list[str]]] = {
    "nothing": (lun(alias="vms"), UP, []),
    "nothing, by any name": (lun(), UP, []),
    "nothing, one path being enough": (lun(paths=1), UP[:1], []),
    "all paths": (lun(alias="vms"), UP[2:], [NO_PATH]),
    "all, multipathd being away": (lun(alias="vms"), ("error -1 receiving packet",), [NO_PATH]),
    "one path": (
        lun(),
        (UP[0], f"{A}|vms|sdc|failed"),
        [
            f"map {A}: 2 active paths are wanted, and there are: sdb active, sdc failed; look after the portals, or "
            "correct paths"
        ],
    ),
    "its name": (
        lun(alias="vms"),
        (f"{A}|mpatha|sdb|active", f"{A}|vms|sdc|active"),
        [f"map vms: has the name mpatha, vms; look for another alias of {A} in /etc/multipath.conf"],
    ),
}


@pytest.mark.parametrize("name", LACKING)
def test_lacking(name: str) -> None:
    one, shown, lines = LACKING[name]
    assert multipath_plan(declared(one), seen(paths=shown))["lacking"] == lines


def test_nothing_is_lacking_of_what_goes() -> None:
    assert multipath_plan(declared(gone()), seen())["lacking"] == []


@pytest.mark.parametrize(
    ("wanted", "on", "keys"),
    [([], EMPTY, multipath.WANTED), ({"maps": []}, EMPTY, multipath.WANTED), (declared(), {}, multipath.SEEN)],
    ids=["no dictionary", "less than is declared", "less than was seen"],
)
def test_filter_refuses(wanted: Any, on: Any, keys: tuple[str, ...]) -> None:
    with pytest.raises(AnsibleFilterError) as error:
        multipath_plan(wanted, on)
    assert str(error.value) == f"multipath_plan: a dictionary is needed with {', '.join(keys)}"
