# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role zfs_over_iscsi refuses and does: lio.py on a folder in place of configfs, a table in place of zfs."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_zfs import zvol_export_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import zfs, zvol_exports

ROOT = Path(__file__).parents[4]
SPEC = importlib.util.spec_from_file_location("zfs_over_iscsi_lio", ROOT / "roles/zfs_over_iscsi/files/lio.py")
assert SPEC is not None and SPEC.loader is not None
lio = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = lio
SPEC.loader.exec_module(lio)

IQN, HV1, HV2 = "iqn.2026-01.test.lab:store", "iqn.2026-01.test.lab:hv1", "iqn.2026-01.test.lab:hv2"
MIB = 1 << 20
SAVE = "save the configuration"
AUTH = {"username": "u", "password": "hush"}
UNIT = "/usr/lib/systemd/system/target.service"
DROPIN = f"{zfs.UNITS}/target.service.d/zfs_over_iscsi.conf"
WANTS = f"{zfs.UNITS}/multi-user.target.wants/target.service"


class Host:
    """A storage host: zvols of tank as a table, targets as folders."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.zfs = root, {"tank": {"type": "filesystem", "available": str(1 << 30)}}
        self.files: dict[str, str] = {}
        self.paths: dict[str, str] = {}
        self.says: dict[str, dict[str, Any]] = {}
        self.used: dict[str, list[str]] = {}
        self.check = False
        monkeypatch.setattr(lio, "LIO", str(root))
        monkeypatch.setattr(lio, "SAVED", (str(root / "saveconfig.json"),))

    def answer(self, argv: list[str]) -> dict[str, Any]:
        for begin, said in self.says.items():
            if " ".join(argv).startswith(begin):
                return said
        lines = []
        if argv[:2] == ["zfs", "get"]:
            for name in argv[7:]:
                for key in argv[6].split(",") if name in self.zfs else []:
                    lines.append(f"{name}\t{key}\t{self.zfs[name].get(key, '-')}")
        return {"rc": 0, "stdout": "\n".join(lines), "stderr": ""}

    def zvol(self, name: str, size: int = 64 * MIB, lun: str = "-", **more: str) -> None:
        known = {
            "type": "volume",
            "guid": "255",
            "volsize": str(size),
            "volblocksize": "16384",
            "refreservation": "none",
        }
        self.zfs[f"tank/{name}"] = {**known, zvol_exports.NUMBER: lun, **more}

    def store(self, number: int, name: str, path: str = "") -> Path:
        store = self.root / "core" / f"iblock_{number}" / f"tank+{name}"
        if not store.exists():
            (store / "wwn").mkdir(parents=True)
            (store / "udev_path").write_text(f"{path or f'/dev/zvol/tank/{name}'}\n")
            (store / "wwn/vpd_unit_serial").write_text("T10 VPD Unit Serial Number: 00000000000000ff\n")
        return store

    def target(
        self,
        *luns: str,
        iqn: str = IQN,
        tag: int = 1,
        initiators: tuple[str, ...] = (HV1,),
        live: bool = False,
        login: tuple[str, str] = ("NULL", "NULL"),
        path: str = "",
        fabric: str = "iscsi",
    ) -> Path:
        group = self.root / fabric / iqn / f"tpgt_{tag}"
        for number, name in enumerate(luns):
            (group / "lun" / f"lun_{number}").mkdir(parents=True)
            (group / "lun" / f"lun_{number}" / "alias").symlink_to(self.store(number, name, path))
        for name in initiators:
            acl = group / "acls" / name
            (acl / "auth").mkdir(parents=True)
            (acl / "info").write_text("InitiatorName: x\n" if live else "No active iSCSI Session for x\n")
            for key, value in zip(("userid", "password"), login):
                (acl / "auth" / key).write_text(f"{value}\n")
            for number in range(len(luns)):
                (acl / f"lun_{number}").mkdir()
                (acl / f"lun_{number}" / "alias").symlink_to(group / "lun" / f"lun_{number}")
        (group / "attrib").mkdir(parents=True)
        authentication = str(int(login[0] != "NULL"))
        for name, value in {**zvol_exports.CLOSED, "authentication": authentication}.items():
            (group / "attrib" / name).write_text(value)
        (group / "np" / "0.0.0.0:3260").mkdir(parents=True)
        (group / "enable").write_text("1\n")
        return group

    def saved(self, **more: Any) -> None:
        """What IQN has, with the LUN a."""
        group = {
            "tag": 1,
            "enable": True,
            "portals": [{"ip_address": "0.0.0.0", "port": 3260}],
            "attributes": {**zvol_exports.CLOSED, "authentication": "0"},
            "luns": [{"index": 0, "storage_object": "/backstores/block/tank+a"}],
            "node_acls": [
                {"node_wwn": HV1, "mapped_luns": [{"index": 0, "tpg_lun": 0}], "chap_userid": "", "chap_password": ""}
            ],
        }
        store = {"plugin": "block", "name": "tank+a", "dev": "/dev/zvol/tank/a", "wwn": "00000000000000ff"}
        targets = [{"wwn": IQN, "fabric": "iscsi", "tpgs": [group]}, *more.pop("targets", [])]
        objects = [{**store, **more.pop("store", {})}, *more.pop("objects", [])]
        (self.root / "saveconfig.json").write_text(json.dumps({"storage_objects": objects, "targets": targets}))

    def plan(self, targets: list[dict[str, Any]]) -> dict[str, Any]:
        """As the tasks of the role do it."""
        given: dict[str, Any] = {"check": self.check, "looked": {}, "lio": {}, "zvols": {}}
        first = zvol_export_plan(targets, **given)
        given["looked"] = {
            "told": {" ".join(argv): self.answer(argv) for argv in first["asks"]["commands"]},
            "files": self.files,
            "paths": self.paths,
            "labels": {},
        }
        told = json.dumps(lio.look({"targets": targets, "portals": first["portals"]}))
        assert "hush" not in told
        given["lio"] = json.loads(told)
        looks = zvol_export_plan(targets, **given)["looks"]
        given["zvols"] = {"devices": [{"path": path, "users": self.used.get(path, [])} for path in looks]}
        done = zvol_export_plan(targets, **given)
        assert "hush" not in json.dumps(done)
        return done

    def decide(self, *volumes: dict[str, Any], **more: Any) -> dict[str, Any]:
        named = [{"source_name": "tank", **volume} for volume in volumes]
        return self.plan([{"target_iqn": IQN, "initiators": [HV1], "volumes": named, **more}])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def said(told: dict[str, Any]) -> list[str]:
    assert told["problems"] == []
    return [action["say"] for action in told["actions"]]


def exports(told: dict[str, Any]) -> list[str]:
    return [words for words in said(told) if words.startswith("export")]


def test_a_new_target_is_enabled_when_all_else_is_done(host: Host) -> None:
    told = host.decide({"name": "a", "capacity": "10MB"}, auth=AUTH)
    assert [(one["method"], one["arguments"]) for one in told["actions"]] == [
        ("group", [IQN]),
        ("export", [IQN, 0, "tank/a"]),
        ("note", ["tank/a", "tank", 0, 0]),
        ("acl", [IQN, HV1]),
        ("login", [IQN, HV1]),
        ("show", [IQN, HV1, 0]),
        *(("set", [IQN, name, value]) for name, value in zvol_exports.CLOSED.items()),
        ("set", [IQN, "authentication", "1"]),
        ("portal", [IQN, "0.0.0.0:3260"]),
        ("enable", [IQN]),
        ("save", []),
    ]
    assert told["zvols"] == [
        {
            "name": "tank/a",
            "there": True,
            "properties": {"volsize": str(-(-10_000_000 // 16384) * 16384), "volmode": "dev"},
        }
    ]
    assert told["looks"] == []
    assert all(hasattr(lio.Lio, one["method"]) for one in told["actions"])


def test_numbers(host: Host) -> None:
    """Present ones stay, noted ones come back, and new ones are above all that were ever given."""
    host.target("a")
    host.zvol("a", lun="0")
    host.zvol("back", lun="4")
    host.zfs["tank"][zvol_exports.LAST] = "7"
    told = host.decide(
        {"name": "new1", "capacity": "1M"}, {"name": "back"}, {"name": "a"}, {"name": "new2", "capacity": "1M"}
    )
    assert exports(told) == [
        f"export tank/new1 as LUN 8 of {IQN}",
        f"export tank/back as LUN 4 of {IQN}",
        f"export tank/new2 as LUN 9 of {IQN}",
    ]
    assert [one["arguments"] for one in told["actions"] if one["method"] == "note"] == [
        ["tank/new1", "tank", 8, 8],
        ["tank/new2", "tank", 9, 9],
    ]
    assert told["looks"] == ["/dev/zvol/tank/back"]


def test_the_last_number_does_not_fall_with_another_target(host: Host) -> None:
    """The second target has fewer LUNs than the first, in the same dataset."""
    volume = {"source_name": "tank", "capacity": "1M"}
    other = {"target_iqn": f"{IQN}2", "initiators": [HV1], "volumes": [{**volume, "name": "c"}]}
    first = {"target_iqn": IQN, "initiators": [HV1], "volumes": [{**volume, "name": "a"}, {**volume, "name": "b"}]}
    found = [one["arguments"][3] for one in host.plan([first, other])["actions"] if one["method"] == "note"]
    assert found == [0, 1, 1]


def test_a_noted_number_that_is_taken_is_not_used(host: Host) -> None:
    host.target("a")
    host.zvol("a", lun="0")
    host.zvol("b", lun="0")
    assert exports(host.decide({"name": "a"}, {"name": "b"})) == [f"export tank/b as LUN 1 of {IQN}"]


@pytest.mark.parametrize("noted", ["²", "x", "-1", "1\n2", "9" * 30])
def test_a_note_that_is_no_number(host: Host, noted: str) -> None:
    host.zvol("b", lun=noted)
    assert exports(host.decide({"name": "b"})) == [f"export tank/b as LUN 0 of {IQN}"] or noted == "1\n2"


def test_one_that_is_not_listed_stays(host: Host) -> None:
    host.target("a", "b", live=True)
    host.zvol("a", lun="0")
    host.zvol("b", lun="1")
    assert not [words for words in said(host.decide({"name": "a"})) if "take" in words]


def test_a_lun_that_was_made_by_another_name_of_its_device(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lio, "node_of", lambda path: "/dev/zd0" if path in ("/dev/zd0", "/dev/zvol/tank/a") else "")
    host.target("a", path="/dev/zd0")
    host.zvol("a", lun="0")
    host.zfs["tank"][zvol_exports.LAST] = "0"
    assert said(host.decide({"name": "a"})) == [SAVE]
    gone = host.decide({"name": "a", "state": "absent", "delete_data": True})
    assert gone["actions"][0]["arguments"] == [IQN, 0, "/dev/zd0", False]


def test_capitals_in_names_of_iscsi_mean_nothing(host: Host) -> None:
    host.target("a")
    host.zvol("a", lun="0")
    host.saved()
    host.zfs["tank"][zvol_exports.LAST] = "0"
    assert (
        said(
            host.decide({"name": "a"}, target_iqn=IQN.upper().replace("IQN", "iqn"), initiators=f"{HV1.upper()},{HV1}")
        )
        == []
    )
    twice = host.plan([{"target_iqn": IQN, "initiators": [HV1]}, {"target_iqn": IQN.upper(), "initiators": [HV1]}])
    assert twice["problems"] == [f"target {IQN}: it is declared twice; declare it once"]


A: dict[str, Any] = {"name": "a"}
GONE: dict[str, Any] = {"name": "a", "state": "absent", "delete_data": True}
IN_USE = "log out there, or say despite_sessions: true"
PRINTABLE = "use up to 255 printable characters, not NULL at the begin, no blank at the ends"
SMALL: dict[str, Any] = {"name": "new", "capacity": "1M"}


def live(host: Host) -> None:
    host.target("a", live=True)
    host.zvol("a", lun="0")


def idle(host: Host) -> None:
    host.target("a")
    host.zvol("a", lun="0")


def alone(host: Host) -> None:
    host.zvol("a")


def blind(host: Host) -> None:
    idle(host)
    (host.root / "iscsi" / IQN / "tpgt_1/acls" / HV1 / "info").unlink()


def dynamic(host: Host) -> None:
    idle(host)
    (host.root / "iscsi" / IQN / "tpgt_1/dynamic_sessions").write_text(f"{HV2}\0\0")


def second_group(host: Host) -> None:
    idle(host)
    host.target(tag=2, live=True, initiators=(HV2,))


def elsewhere(host: Host) -> None:
    idle(host)
    host.target("a", iqn="naa.5001405000000001", fabric="loopback", initiators=())


def unattached(host: Host) -> None:
    alone(host)
    host.store(0, "a")


def mapped(host: Host) -> None:
    host.target("a", "b")
    host.zvol("a", lun="0")
    host.zvol("b", lun="1")
    link = host.root / "iscsi" / IQN / "tpgt_1/acls" / HV1 / "lun_0/alias"
    link.unlink()
    link.symlink_to(host.root / "iscsi" / IQN / "tpgt_1/lun/lun_1")


def lost(host: Host) -> None:
    idle(host)
    host.saved(
        targets=[{"wwn": "iqn.2026-01.other:x", "fabric": "iscsi", "tpgs": []}],
        objects=[{"plugin": "block", "name": "x", "dev": "/dev/x"}, {"plugin": "fileio", "name": "y", "dev": "/y"}],
    )


def broken(text: str) -> Any:
    def make(host: Host) -> None:
        idle(host)
        (host.root / "saveconfig.json").write_text(text)

    return make


def snapshots(host: Host) -> None:
    alone(host)
    host.says["zfs destroy"] = {"rc": 1, "stdout": "", "stderr": "cannot destroy 'tank/a':\nhas children\n"}


def used(host: Host) -> None:
    alone(host)
    host.used["/dev/zvol/tank/a"] = ["a disk of guest 'web'", "swap"]


def used_and_exported(host: Host) -> None:
    idle(host)
    host.used["/dev/zvol/tank/a"] = ["a disk of guest 'web'", "claimed by something that does not show itself"]


def changed(**properties: str) -> Any:
    def make(host: Host) -> None:
        idle(host)
        host.zfs["tank/a"].update(properties)

    return make


def around(**properties: str) -> Any:
    def make(host: Host) -> None:
        host.zfs["tank"].update(properties)

    return make


def no_zfs(host: Host) -> None:
    host.says["zfs"] = {"rc": 127, "stdout": "", "stderr": "x"}


def bad_zfs(host: Host) -> None:
    host.says["zfs get"] = {
        "rc": 1,
        "stdout": "",
        "stderr": "cannot open 'tank/a': dataset does not exist\ninternal error\n",
    }


def login(host: Host) -> None:
    host.target("a", login=("u", "other"))
    host.zvol("a", lun="0")


def high(host: Host) -> None:
    host.zfs["tank"][zvol_exports.LAST] = str((1 << 14) - 1)


# name: (the host, volumes, more of the target, what is refused)
REFUSED: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any], list[str]]] = {
    **{
        f"target {iqn!r}": (
            None,
            [],
            {"target_iqn": iqn},
            [f"target {iqn}: this is no name of a target; give one such as iqn.2026-01.com.example:store1"],
        )
        for iqn in (
            "store",
            "iqn.2026-01.com",
            "iqn.2026-01.com.exämple :x",
            "iqn.2026-01.a.b/c",
            f"{IQN}\n",
            "iqn.2026-01.a." + "b" * 220,
        )
    },
    **{
        f"initiator {name!r}": (
            None,
            [],
            {"initiators": [name]},
            [f"target {IQN}: {name!r} is no name of an initiator; take it from initiatorname.iscsi of that host"],
        )
        for name in ("hv1", "iqn.2026-01.a.b c", "../x", "iqn.2026-01.a." + "b" * 220)
    },
    "no initiator": (
        None,
        [],
        {"initiators": []},
        [f"target {IQN}: no initiator may log in; name those that may in initiators"],
    ),
    "no address": (
        None,
        [],
        {"portals": [{"name": "storage"}]},
        [f"target {IQN}: 'storage' is no IP address; give portals by their addresses on this host"],
    ),
    **{
        f"port {port!r}": (
            None,
            [],
            {"portals": [{"name": "127.0.0.1", "port": port}]},
            [f"target {IQN}: {port!r} is no port; give one from 1 to 65535"],
        )
        for port in (65536, 70000, -1, "http")
    },
    "an address of another host": (
        None,
        [],
        {"portals": [{"name": "192.0.2.1"}]},
        [f"target {IQN}: this host has no address 192.0.2.1; give portals by addresses that it has"],
    ),
    "auth without a password": (
        None,
        [],
        {"auth": {"username": "u"}},
        [f"target {IQN}: auth lacks its username or password; give both, or {{}} for no login"],
    ),
    **{
        f"password {number}": (
            None,
            [],
            {"auth": {"username": "u", "password": value}},
            [f"target {IQN}: LIO can't take this password; {PRINTABLE}"],
        )
        for number, value in enumerate(("NULL", "NULLhush", " hush", "hush\n", "hu\tsh", "h" * 256, "ä" * 128))
    },
    "username": (
        None,
        [],
        {"auth": {"username": "NULL", "password": "hush"}},
        [f"target {IQN}: LIO can't take this username; {PRINTABLE}"],
    ),
    **{
        f"zvol {name!r}": (
            None,
            [{"name": name, "capacity": "1M"}],
            {},
            [f"zvol tank/{name}: zfs takes no such name; use A-Z a-z 0-9 _ . : -"],
        )
        for name in ("../x", "a b", "a\n", "a@b", "", "ä", "a" * 251, "a//b")
    },
    **{
        f"{key} {value!r}": (
            None,
            [{"name": "new", **SMALL, key: value}],
            {},
            [f"zvol tank/new: its {key} {value!r} is no size; give one such as 20GiB"],
        )
        for key, value in (
            ("capacity", "many"),
            ("capacity", 0),
            ("capacity", "-1G"),
            ("volblocksize", "x"),
            ("capacity", "٣M"),
        )
    },
    **{
        f"volblocksize {value}": (
            None,
            [{**SMALL, "volblocksize": value}],
            {},
            [f"zvol tank/new: its volblocksize {value} is no power of 2; give one such as 16KiB"],
        )
        for value in ("9K", "256")
    },
    "a zvol twice": (None, [SMALL, SMALL], {}, ["zvol tank/new: it is declared twice; declare it once"]),
    "no zfs": (no_zfs, [SMALL], {}, ["zfs: it is not on this host; run the role host_zfs first"]),
    "zfs fails": (bad_zfs, [SMALL], {}, ["zfs: it says: internal error; see to it first"]),
    "no source": (
        None,
        [{**SMALL, "source_name": "nope"}],
        {},
        ["zvol nope/new: there is no zpool or dataset nope; make it first, by the role host_zfs"],
    ),
    "a source that is a zvol": (
        idle,
        [{**SMALL, "source_name": "tank/a"}],
        {},
        ["zvol tank/a/new: tank/a is a volume; give a zpool or a dataset as source_name"],
    ),
    "no key": (
        around(keystatus="unavailable"),
        [SMALL],
        {},
        ["zvol tank/new: the key of tank is not loaded; zfs load-key -a loads it"],
    ),
    "a dataset of its name": (
        changed(type="filesystem"),
        [A],
        {},
        ["zvol tank/a: it is a filesystem; choose another name"],
    ),
    "no device": (
        changed(volmode="none"),
        [A],
        {},
        ["zvol tank/a: it has no device, for its volmode is none; set its volmode to dev"],
    ),
    "another block": (
        idle,
        [{**A, "volblocksize": "8KiB"}],
        {},
        ["zvol tank/a: its volblocksize is 16384 and stays so; declare it as it is"],
    ),
    "shrink": (
        idle,
        [{**A, "capacity": "1MiB"}],
        {},
        ["zvol tank/a: it has 67108864 bytes, and would shrink to 1048576; ask for at least what it has"],
    ),
    "no room to grow": (
        changed(refreservation="1"),
        [{**A, "capacity": "2GiB"}],
        {},
        ["zvol tank/a: tank has room for 1073741824 more bytes, not for 2080374784; make room, or sparse: true"],
    ),
    "no size": (
        None,
        [{"name": "new"}],
        {},
        ["zvol tank/new: it is not there, and how large it is to be is not said; give capacity, such as 20GiB"],
    ),
    **{
        f"no room, sparse {sparse!r}": (
            None,
            [{"name": "new", "capacity": "2GiB", "sparse": sparse}],
            {},
            [
                "zvol tank/new: tank has room for 1073741824 bytes, not for 2147483648; make room, ask "
                "for less, or say sparse: true"
            ],
        )
        for sparse in (None, False, "false", "no")
    },
    "no number": (high, [SMALL], {}, [f"target {IQN}: no number is left for tank/new; export it by another target"]),
    **{
        f"a LUN of {who}, despite_sessions {value!r}": (
            make,
            [{"name": "a", "state": "absent", "despite_sessions": value}],
            {},
            [f"LUN 0 of {IQN}: {name} is logged in and may use tank/a; {IN_USE} where no guest has it as a disk"],
        )
        for who, make, name in (
            ("a session", live, HV1),
            ("one that can't be seen", blind, HV1),
            ("a dynamic one", dynamic, HV2),
        )
        for value in (None, "false")
    },
    "what ZFS would not destroy": (
        snapshots,
        [GONE],
        {},
        [
            "zvol tank/a: ZFS would not destroy it (cannot destroy 'tank/a': has children); see to its "
            "snapshots and clones first"
        ],
    ),
    "what another target has too": (
        elsewhere,
        [GONE],
        {},
        [
            "zvol tank/a: LIO has it by loopback/naa.5001405000000001/tpgt_1/lun/lun_0; take it from that "
            "first, by targetcli"
        ],
    ),
    "what another target has too, with its target": (
        elsewhere,
        [A],
        {"state": "absent", "delete_data": True},
        [
            "zvol tank/a: LIO has it by loopback/naa.5001405000000001/tpgt_1/lun/lun_0; take it from that "
            "first, by targetcli"
        ],
    ),
    "what is a backstore only": (
        unattached,
        [GONE],
        {},
        ["zvol tank/a: LIO has it by the backstore tank+a, which is no LUN; take it from that first, by targetcli"],
    ),
    "a login that is not known": (
        login,
        [A],
        {"initiators": [HV1, HV2]},
        [f"target {IQN}: it asks for a login, and none is known for {HV2}; give auth"],
    ),
    "another LUN under its number": (
        mapped,
        [A],
        {},
        [f"target {IQN}: {HV1} sees its LUN 1 as LUN 0, which is another; unmap that by targetcli first"],
    ),
    "an initiator that is logged in": (
        live,
        [A],
        {"initiators": [HV2]},
        [f"target {IQN}: {HV1} is no longer declared, and is logged in; log out there first"],
    ),
    "a portal that is used": (
        live,
        [A],
        {"portals": [{"name": "127.0.0.1"}]},
        [f"target {IQN}: portal 0.0.0.0:3260 is no longer declared, and {HV1} is logged in; log out there first"],
    ),
    **{
        f"a target of {who}, despite_sessions {value!r}": (
            make,
            [],
            {"state": "absent", "despite_sessions": value},
            [f"target {IQN}: {name} is logged in; {IN_USE}"],
        )
        for who, make, name in (("a session", live, HV1), ("another group", second_group, HV2))
        for value in (None, "no")
    },
    "a zvol in use that is to be exported": (
        used,
        [A],
        {},
        ["/dev/zvol/tank/a: it is in use on this host (a disk of guest 'web', swap); take it from those first"],
    ),
    "a zvol in use that is to go": (
        used_and_exported,
        [GONE],
        {},
        ["/dev/zvol/tank/a: it is in use on this host (a disk of guest 'web'); take it from those first"],
    ),
    "what was saved and is not there": (
        lost,
        [SMALL],
        {},
        [
            "SAVED: it has target iqn.2026-01.other:x, backstore of /dev/x, and LIO has not, so that "
            "would be lost; restore it "
            "('targetctl restore'), or save what LIO has by targetcli if it is to go"
        ],
    ),
    **{
        f"a saved configuration that is {text!r}": (
            broken(text),
            [SMALL],
            {},
            [f"SAVED: it can't be read ({why}), and what it has would be lost; repair it, or move it away"],
        )
        for text, why in (
            ("{", "it is no JSON"),
            ("", "it is no JSON"),
            ("[]", "it is no configuration of LIO"),
            ('{"targets": [1]}', "it is no configuration of LIO"),
        )
    },
}


@pytest.mark.parametrize(("make", "volumes", "more", "problems"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(host: Host, make: Any, volumes: list[Any], more: dict[str, Any], problems: list[str]) -> None:
    if make:
        make(host)
    found = host.decide(*volumes, **more)["problems"]
    assert found == [problem.replace("SAVED", str(host.root / "saveconfig.json")) for problem in problems]


def test_portals_that_can_not_be_opened(host: Host) -> None:
    target = {"target_iqn": IQN, "initiators": [HV1], "portals": [{"name": "127.0.0.1"}, {"name": "::1", "port": 1}]}
    looked = {"told": {"zfs version": {"rc": 0}}}
    for error, words in {
        "EADDRINUSE": "something listens on 127.0.0.1:3260 already; give portals another address or port",
        "EACCES": "portal 127.0.0.1:3260 can't be opened (EACCES); give another one",
    }.items():
        tried = {"127.0.0.1:3260": error, "[::1]:1": ""}
        told = zvol_export_plan([target], check=False, looked=looked, lio={"tried": tried}, zvols={})
        assert told["problems"] == [f"target {IQN}: {words}"]
        assert told["portals"] == ["127.0.0.1:3260", "[::1]:1"]


ELSEWHERE = {"portal 127.0.0.1:3260 can't be opened (EACCES)", "something listens on 127.0.0.1:3260 already"}


def templates() -> dict[str, str]:
    """The reason and the way out of every problem() in the code, as a pattern."""
    found = {}
    for node in ast.walk(ast.parse(Path(zvol_exports.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "problem":
            texts = []
            for part in node.args[1:]:
                parts = part.values if isinstance(part, ast.JoinedStr) else [part]
                texts.append("".join(re.escape(one.value) if isinstance(one, ast.Constant) else ".*" for one in parts))
            found[f"{node.lineno}: {ast.unparse(node.args[1])[:60]}"] = "; ".join(texts)
    return found


@pytest.mark.parametrize("pattern", templates().values(), ids=templates().keys())
def test_every_refusal_of_the_code_has_a_row(pattern: str) -> None:
    problems = [problem for *_rest, told in REFUSED.values() for problem in told]
    assert any(re.search(pattern, one, re.DOTALL) for one in problems) or any(
        re.search(pattern.partition("; ")[0], one) for one in ELSEWHERE
    )


FIRST = {zvol_exports.LAST: "0"}


def good(host: Host) -> None:
    idle(host)
    host.saved()
    host.zfs["tank"].update(FIRST)


def with_login(host: Host) -> None:
    host.target("a", login=("u", "hush"))
    host.zvol("a", lun="0")
    host.zfs["tank"].update(FIRST)


def grown(host: Host) -> None:
    good(host)
    host.zfs["tank/a"]["refreservation"] = "1"


# name: (the host, volumes, more of the target, actions, zvols, commands)
DONE: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any], list[str], list[dict[str, str]], list[str]]] = {
    "nothing": (good, [A], {}, [], [], []),
    "what was not saved": (idle, [A], {}, ["note LUN 0 with tank/a", SAVE], [], []),
    "a password as it is": (with_login, [A], {"auth": AUTH}, [SAVE], [], []),
    "a password as it is, a number": (
        with_login,
        [A],
        {"auth": {"username": "u", "password": 1}},
        [f"set the login of {HV1}", SAVE],
        [],
        [],
    ),
    "a login that stays": (with_login, [A], {}, [SAVE], [], []),
    "a login that goes": (
        with_login,
        [A],
        {"auth": {}},
        [f"take the login of {HV1} away", f"set authentication of {IQN} to 0", SAVE],
        [],
        [],
    ),
    "a first login": (
        good,
        [A],
        {"auth": AUTH},
        [f"set the login of {HV1}", f"set authentication of {IQN} to 1", SAVE],
        [],
        [],
    ),
    "another initiator": (
        good,
        [A],
        {"initiators": [HV2]},
        [f"let {HV2} in", f"show LUN 0 to {HV2}", f"let {HV1} in no more", SAVE],
        [],
        [],
    ),
    "another portal": (
        good,
        [A],
        {"portals": [{"name": "127.0.0.1", "port": 3260}, {"name": "127.0.0.1"}]},
        [f"close portal 0.0.0.0:3260 of {IQN}", f"open portal 127.0.0.1:3260 of {IQN}", SAVE],
        [],
        [],
    ),
    "a LUN that goes": (
        good,
        [{"name": "a", "state": "absent"}],
        {},
        [f"take LUN 0 (tank/a) from {IQN}", SAVE],
        [],
        [],
    ),
    **{
        f"a LUN that goes with delete_data {value!r}": (
            good,
            [{**GONE, "delete_data": value}],
            {},
            [f"take LUN 0 (tank/a) from {IQN}", SAVE],
            [],
            [],
        )
        for value in ("false", "no", 0)
    },
    "a zvol that goes": (good, [GONE], {}, [f"take LUN 0 (tank/a) from {IQN}", SAVE], [], ["zfs destroy tank/a"]),
    "a zvol that goes while somebody is logged in": (
        live,
        [{**GONE, "despite_sessions": "yes"}],
        {},
        [f"take LUN 0 (tank/a) from {IQN}", SAVE],
        [],
        ["zfs destroy tank/a"],
    ),
    "a zvol that is gone": (good, [{**GONE, "name": "b"}], {}, [], [], []),
    "a target that goes": (good, [A], {"state": "absent"}, [f"take target {IQN} away", SAVE], [], []),
    "a target that goes with its zvols": (
        good,
        [A],
        {"state": "absent", "delete_data": True},
        [f"take target {IQN} away", SAVE],
        [],
        ["zfs destroy tank/a"],
    ),
    "a target that goes with a zvol that was given up": (
        good,
        [GONE],
        {"state": "absent"},
        [f"take target {IQN} away", SAVE],
        [],
        ["zfs destroy tank/a"],
    ),
    "a target that goes with delete_data false": (
        good,
        [A],
        {"state": "absent", "delete_data": "false"},
        [f"take target {IQN} away", SAVE],
        [],
        [],
    ),
    "a target that goes, without initiators": (
        good,
        [A],
        {"state": "absent", "initiators": None},
        [f"take target {IQN} away", SAVE],
        [],
        [],
    ),
    "a target that is gone": (None, [A], {"state": "absent"}, [], [], []),
    "a larger zvol": (good, [{**A, "capacity": "65MiB"}], {}, [], [{"volsize": str(65 * MIB)}], []),
    "a thick zvol": (good, [{**A, "sparse": "false"}], {}, [], [{"refreservation": "auto"}], []),
    "a sparse zvol": (grown, [{**A, "sparse": "true"}], {}, [], [{"refreservation": "none"}], []),
    "a zvol as it is": (grown, [{**A, "sparse": "false", "volblocksize": "16K", "capacity": "64MiB"}], {}, [], [], []),
    "a new sparse zvol": (
        good,
        [A, {"name": "b", "capacity": "2GiB", "sparse": True, "volblocksize": "64K"}],
        {},
        [f"export tank/b as LUN 1 of {IQN}", "note LUN 1 with tank/b", f"show LUN 1 to {HV1}", SAVE],
        [{"volsize": str(2 << 30), "volmode": "dev", "volblocksize": "65536", "refreservation": "none"}],
        [],
    ),
}


@pytest.mark.parametrize(("make", "volumes", "more", "actions", "zvols", "steps"), DONE.values(), ids=DONE.keys())
def test_what_is_done(
    host: Host, make: Any, volumes: list[Any], more: Any, actions: list[str], zvols: list[Any], steps: list[str]
) -> None:
    if make:
        make(host)
    told = host.decide(*volumes, **more)
    assert said(told) == actions
    assert [one["properties"] for one in told["zvols"]] == zvols
    assert [" ".join(step["argv"]) for step in told["steps"]] == steps


def test_what_differs_from_what_was_saved(host: Host) -> None:
    good(host)
    for more in ({"store": {"wwn": "another"}}, {"store": {"name": "x"}}):
        host.saved(**more)
        assert said(host.decide(A)) == [SAVE]


BEFORE = {UNIT: "x"}
INSTALL = f"install -D -m 0644 /dev/stdin {DROPIN}"
RELOAD = "systemctl daemon-reload"
GOES = {"state": "absent"}


@pytest.mark.parametrize(
    ("files", "paths", "more", "steps"),
    [
        (BEFORE, {}, {}, [INSTALL, "systemctl enable target.service"]),
        (BEFORE, {WANTS: UNIT}, {}, [INSTALL, RELOAD]),
        ({**BEFORE, DROPIN: zvol_exports.ORDER.strip()}, {WANTS: UNIT}, {}, []),
        ({**BEFORE, DROPIN: zvol_exports.ORDER.strip()}, {}, {}, ["systemctl enable target.service"]),
        ({}, {}, {}, []),
        ({**BEFORE, DROPIN: "x"}, {WANTS: UNIT}, GOES, [f"rm -r {zfs.UNITS}/target.service.d", RELOAD]),
        ({**BEFORE, DROPIN: "x", f"{DROPIN}2": "x"}, {WANTS: UNIT}, GOES, [f"rm {DROPIN}", RELOAD]),
        (BEFORE, {WANTS: UNIT}, GOES, []),
    ],
)
def test_the_boot(host: Host, files: Any, paths: Any, more: dict[str, Any], steps: list[str]) -> None:
    good(host)
    host.files, host.paths = files, paths
    told = host.decide(A, **more)
    assert [" ".join(step["argv"]) for step in told["steps"]] == steps


def test_the_order_at_boot_stays_for_other_targets(host: Host) -> None:
    good(host)
    host.target(iqn=f"{IQN}2")
    host.files = {**BEFORE, DROPIN: "x"}
    assert host.decide(A, state="absent")["steps"] == []


def test_check_mode_before_there_is_a_zpool(host: Host) -> None:
    host.check, host.zfs = True, {}
    told = host.decide({"name": "a", "capacity": "1M"})
    assert told["problems"] == [] and told["zvols"][0]["there"] is False
    no_zfs(host)
    assert host.decide({"name": "a", "capacity": "1M"})["actions"] == []
    assert host.decide(state="absent")["problems"] == []


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("x", "a list of targets is needed"),
        ([1], "a list of targets is needed"),
        ([{}], "'target_iqn' is not in"),
        ([{"target_iqn": IQN, "auth": "hush"}], "can't be read"),
        ([{"target_iqn": IQN, "delete_data": "hush"}], "can't be read"),
    ],
)
def test_what_can_not_be_read_is_an_error_without_a_password(targets: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words) as error:
        zvol_export_plan(targets, check=False, looked={}, lio={}, zvols={})
    assert "hush" not in str(error.value)


def test_the_documentation_names_every_argument_and_every_key() -> None:
    documents = yaml.safe_load((ROOT / "plugins/filter/zvol_export_plan.yml").read_text(encoding="utf-8"))
    names = set(zvol_exports.zvol_export_plan.__annotations__) - {"targets", "return"}
    assert set(documents["DOCUMENTATION"]["options"]) == names | {"_input"}
    told = zvol_export_plan([], check=False, looked={}, lio={}, zvols={})
    assert list(documents["RETURN"]["_value"]["contains"]) == list(told)


# Acting


class Recorded(lio.Lio):  # type: ignore[misc,name-defined]
    """A Lio whose rtslib notes what it is told."""

    def __init__(self, logins: dict[str, tuple[str, str]]) -> None:
        self.logins, self.told, self.root, self.rtslib = logins, [], self, self

    def save_to_file(self, path: str) -> None:
        Path(path).write_text("{}")

    def BlockStorageObject(self, *args: Any, **more: Any) -> Any:
        self.told.append(("store", *args, more))
        return self

    def set_attribute(self, *args: Any) -> None:
        self.told.append(args)

    def LUN(self, *args: Any) -> Any:
        return self

    def group(self, iqn: str) -> Any:
        return self

    storage_object = property(lambda self: self)
    udev_path = "/dev/zvol/tank/b"


@pytest.fixture
def recorded(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(lio, "Lio", Recorded)
    monkeypatch.setattr(lio, "command", lambda *argv: subprocess.CompletedProcess(argv, 1, "", "gone"))
    return host


def act(method: str, *arguments: Any) -> list[str]:
    target = {"target_iqn": IQN, "auth": AUTH}
    told = lio.act({"targets": [target], "actions": [{"say": "do it", "method": method, "arguments": arguments}]})
    return list(told["problems"])


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("shut_out", (IQN, HV1)),
        ("close", (IQN, "0.0.0.0:3260")),
        ("drop", (IQN, 0, "/dev/zvol/tank/a", False)),
        ("take_away", (IQN, False)),
    ],
)
def test_somebody_has_logged_in_since(recorded: Host, method: str, arguments: tuple[Any, ...]) -> None:
    live(recorded)
    words = f"LIO: cannot do it: {HV1} has logged in by now; what was done until then is kept; run this again"
    assert act(method, *arguments) == [words]


def test_a_lun_that_is_another_by_now(recorded: Host) -> None:
    assert "it is /dev/zvol/tank/b by now" in act("drop", IQN, 0, "/dev/zvol/tank/a", False)[0]


def test_no_lun_without_a_number_of_its_own(recorded: Host) -> None:
    assert "zfs does not tell its GUID (gone)" in act("export", IQN, 0, "tank/a")[0]


def test_the_serial_is_that_of_the_zvol(recorded: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lio, "command", lambda *argv: subprocess.CompletedProcess(argv, 0, "255\n", ""))
    one = Recorded({})
    one.export(IQN, 0, "tank/a")
    assert one.told == [("store", "tank+a", {"dev": "/dev/zvol/tank/a", "wwn": "00000000000000ff"}), ("emulate_tpu", 1)]


def test_no_password_in_an_error(recorded: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> None:
        raise RuntimeError("hush is none")

    monkeypatch.setattr(Recorded, "login", fail)
    assert act("login", IQN, HV1) == [
        "LIO: cannot do it: ******** is none; what was done until then is kept; run this again"
    ]


def test_the_configuration_is_saved_as_a_whole(recorded: Host) -> None:
    file = recorded.root / "saveconfig.json"
    file.write_text("old")
    assert act("save") == []
    assert file.read_text() == "{}" and file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in recorded.root.iterdir()] == ["saveconfig.json"]
