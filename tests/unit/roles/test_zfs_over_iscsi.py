# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role zfs_over_iscsi decides, from a folder in place of configfs and a table in place of zfs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "roles/zfs_over_iscsi/files/export.py"
SPEC = importlib.util.spec_from_file_location("zfs_over_iscsi_export", FILE)
assert SPEC is not None and SPEC.loader is not None
export = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = export
SPEC.loader.exec_module(export)

IQN, HV1, HV2 = "iqn.2026-01.test.lab:store", "iqn.2026-01.test.lab:hv1", "iqn.2026-01.test.lab:hv2"
MIB = 1 << 20


class Host:
    """A storage host: zvols of tank as a table, one target as a folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.zfs = root, {"tank": {"type": "filesystem", "available": str(1 << 30)}}
        monkeypatch.setattr(export, "LIO", str(root))
        monkeypatch.setattr(export, "SAVED", (str(root / "saveconfig.json"),))
        monkeypatch.setattr(export, "UNITS", ())
        monkeypatch.setattr(export, "run", self.run)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        lines = []
        if argv[:2] == ("zfs", "get"):
            for name in argv[7:]:
                for key in argv[6].split(",") if name in self.zfs else []:
                    lines.append(f"{name}\t{key}\t{self.zfs[name].get(key, '-')}")
        return subprocess.CompletedProcess(argv, 0, "\n".join(lines), "")

    def zvol(self, name: str, size: int = 64 * MIB, lun: str = "-", **more: str) -> None:
        known = {
            "type": "volume",
            "guid": "255",
            "volsize": str(size),
            "volblocksize": "16384",
            "refreservation": "none",
        }
        self.zfs[f"tank/{name}"] = {**known, export.NUMBER: lun, **more}

    def target(self, *luns: str, initiators: tuple[str, ...] = (HV1,), live: bool = False) -> None:
        group = self.root / "iscsi" / IQN / "tpgt_1"
        for number, name in enumerate(luns):
            store = self.root / "core" / f"iblock_{number}" / f"tank+{name}"
            (store / "wwn").mkdir(parents=True)
            (store / "udev_path").write_text(f"/dev/zvol/tank/{name}\n")
            (store / "wwn/vpd_unit_serial").write_text("T10 VPD Unit Serial Number: 00000000000000ff\n")
            (group / "lun" / f"lun_{number}").mkdir(parents=True)
            (group / "lun" / f"lun_{number}" / "alias").symlink_to(store)
        for name in initiators:
            acl = group / "acls" / name
            (acl / "auth").mkdir(parents=True)
            (acl / "info").write_text("InitiatorName: x\n" if live else "No active iSCSI Session for x\n")
            for number in range(len(luns)):
                (acl / f"lun_{number}").mkdir()
                (acl / f"lun_{number}" / "alias").symlink_to(group / "lun" / f"lun_{number}")
        (group / "attrib").mkdir()
        for name, value in {**export.CLOSED, "authentication": "0"}.items():
            (group / "attrib" / name).write_text(value)
        (group / "np" / "0.0.0.0:3260").mkdir(parents=True)
        (group / "enable").write_text("1\n")

    def decide(self, *volumes: dict[str, Any], **more: Any) -> dict[str, Any]:
        named = [{"source_name": "tank", **volume} for volume in volumes]
        target = {"target_iqn": IQN, "initiators": [HV1], "volumes": named, **more}
        return export.Export({"targets": [target], "check": False, "act": False}).decide()  # type: ignore[no-any-return]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def exports(told: dict[str, Any]) -> list[str]:
    assert told["problems"] == []
    return [words for words in told["actions"] if words.startswith("export")]


def test_a_new_target_is_enabled_when_all_else_is_done(host: Host) -> None:
    told = host.decide({"name": "a", "capacity": "10MB"}, auth={"username": "u", "password": "hush"})
    assert told["actions"][0] == f"make target {IQN}"
    assert told["actions"][-2:] == [f"enable {IQN}", "save the configuration"]
    assert told["zvols"][0]["properties"]["volsize"] == str(-(-10_000_000 // 16384) * 16384)
    assert "hush" not in json.dumps(told)


def test_numbers(host: Host) -> None:
    """Present ones stay, noted ones come back, and new ones are above all that were ever given."""
    host.target("a")
    host.zvol("a", lun="0")
    host.zvol("back", lun="4")
    host.zfs["tank"][export.LAST] = "7"
    told = host.decide(
        {"name": "new1", "capacity": "1M"}, {"name": "back"}, {"name": "a"}, {"name": "new2", "capacity": "1M"}
    )
    assert exports(told) == [
        f"export tank/new1 as LUN 8 of {IQN}",
        f"export tank/back as LUN 4 of {IQN}",
        f"export tank/new2 as LUN 9 of {IQN}",
    ]


def test_a_noted_number_that_is_taken_is_not_used(host: Host) -> None:
    host.target("a")
    host.zvol("a", lun="0")
    host.zvol("b", lun="0")
    assert exports(host.decide({"name": "a"}, {"name": "b"})) == [f"export tank/b as LUN 1 of {IQN}"]


def test_one_that_is_not_listed_stays(host: Host) -> None:
    host.target("a", "b", live=True)
    host.zvol("a", lun="0")
    host.zvol("b", lun="1")
    assert not [words for words in host.decide({"name": "a"})["actions"] if "take" in words]


def test_a_live_session_keeps_what_it_may_use(host: Host) -> None:
    host.target("a", live=True)
    host.zvol("a", lun="0")
    gone = {"name": "a", "state": "absent", "delete_data": True}
    assert f"LUN 0 of {IQN}: {HV1} is logged in" in host.decide(gone)["problems"][0]
    assert host.decide({**gone, "despite_sessions": True})["problems"] == []
    assert f"target {IQN}: {HV1} is logged in" in host.decide(state="absent")["problems"][0]
    assert "no longer declared, and is logged in" in host.decide(initiators=[HV2])["problems"][0]
    assert "portal 0.0.0.0:3260 is no longer declared" in host.decide(portals=[{"name": "127.0.0.1"}])["problems"][0]


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"name": "a", "capacity": "1MiB"}, "would shrink"),
        ({"name": "a", "volblocksize": "8KiB"}, "stays so"),
        ({"name": "new"}, "give capacity"),
        ({"name": "new", "capacity": "2GiB"}, "has room for"),
        ({"name": "new", "capacity": "many"}, "is no size"),
        ({"name": "new", "capacity": "1M", "volblocksize": "9K"}, "no power of 2"),
        ({"name": "../x", "capacity": "1M"}, "no such name"),
        ({"name": "new", "capacity": "1M", "source_name": "nope"}, "no zpool or dataset"),
    ],
)
def test_refused_volumes(host: Host, volume: dict[str, Any], words: str) -> None:
    host.zvol("a")
    assert words in " ".join(host.decide(volume)["problems"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"initiators": []}, "no initiator may log in"),
        ({"initiators": ["hv1"]}, "no name of an initiator"),
        ({"target_iqn": "store"}, "no name of a target"),
        ({"portals": [{"name": "storage"}]}, "no IP address"),
        ({"portals": [{"name": "192.0.2.1"}]}, "this host has no address 192.0.2.1"),
        ({"auth": {"username": "u"}}, "lacks its username or password"),
        ({"auth": {"username": "u", "password": "NULL"}}, "can't take this password"),
    ],
)
def test_refused_targets(host: Host, more: dict[str, Any], words: str) -> None:
    assert words in " ".join(host.decide(**more)["problems"])


def test_a_configuration_that_was_not_saved_is_saved(host: Host) -> None:
    host.target("a")
    host.zvol("a", lun="0")
    host.zfs["tank"][export.LAST] = "0"
    assert host.decide({"name": "a"})["actions"] == ["save the configuration"]
    group = {
        "tag": 1, "enable": True, "portals": [{"ip_address": "0.0.0.0", "port": 3260}],
        "attributes": {**export.CLOSED, "authentication": "0"},
        "luns": [{"index": 0, "storage_object": "/backstores/block/tank+a"}],
        "node_acls": [{"node_wwn": HV1, "mapped_luns": [{"index": 0, "tpg_lun": 0}],
                       "chap_userid": "", "chap_password": ""}],
    }  # fmt: skip
    store = {"plugin": "block", "name": "tank+a", "dev": "/dev/zvol/tank/a", "wwn": "00000000000000ff"}
    whole = {"storage_objects": [store], "targets": [{"wwn": IQN, "fabric": "iscsi", "tpgs": [group]}]}
    (host.root / "saveconfig.json").write_text(json.dumps(whole))
    assert host.decide({"name": "a"})["actions"] == []
    store["wwn"] = "another"
    (host.root / "saveconfig.json").write_text(json.dumps(whole))
    assert host.decide({"name": "a"})["actions"] == ["save the configuration"]
