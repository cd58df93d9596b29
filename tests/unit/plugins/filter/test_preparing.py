# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pools ask of their host, as items of the roles that prepare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.preparing import CARRIED, ROLES, prepared

ROOT = Path(__file__).resolve().parents[4]
GROUPS = {"all": ["kvm01", "kvm02"], "fast": ["kvm02"]}
VG = {"type": "logical", "name": "vms", "source_name": "fast", "devices": ["/dev/vdb"]}
THIN = [{"name": "thin", "capacity": "1GiB"}]


def asked(*pools: dict[str, Any], host: str = "kvm01", side: str = "present") -> dict[str, Any]:
    return {key: items for key, items in prepared(list(pools), host, GROUPS)[side].items() if items}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": (VG, {}),
    "a group has its name and devices from the pool": (
        {**VG, "prepare": {"lvm": {"thin_pools": THIN}}},
        {"lvm": [{"name": "fast", "devices": ["/dev/vdb"], "thin_pools": THIN}]},
    ),
    "what the item says counts": (
        {**VG, "prepare": {"lvm": {"name": "slow", "devices": ["/dev/vdc"]}}},
        {"lvm": [{"name": "slow", "devices": ["/dev/vdc"]}]},
    ),
    "nothing to say": ({**VG, "prepare": {"lvm": None}}, {"lvm": [{"name": "fast", "devices": ["/dev/vdb"]}]}),
    "a dataset lies in its zpool": (
        {"type": "zfs", "name": "z", "source_name": "tank/vms", "prepare": {"zfs": {"vdevs": []}}},
        {"zfs": [{"name": "tank", "vdevs": []}]},
    ),
    "a pool of type iscsi logs in by itself": (
        {"type": "iscsi", "name": "l", "target_iqn": "iqn.a", "hosts": [{"name": "s"}], "prepare": {"iscsi": {}}},
        {"iscsi": [{"target_iqn": "iqn.a", "portals": [{"name": "s"}], "startup": "manual"}]},
    ),
    "several for one pool": (
        {"type": "mpath", "name": "m", "prepare": {"iscsi": [{"target_iqn": "a"}, {"target_iqn": "b"}]}},
        {"iscsi": [{"target_iqn": "a"}, {"target_iqn": "b"}]},
    ),
    "the login of Ceph": (
        {"type": "rbd", "name": "r", "source_name": "v", "auth": {"username": "u"}, "prepare": {"ceph": {"fsid": "f"}}},
        {"ceph": [{"user": "u", "pools": ["v"], "fsid": "f"}]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_items(name: str) -> None:
    pool, items = CASES[name]
    assert asked(pool) == items


def test_only_what_is_meant_for_the_host() -> None:
    pool = {**VG, "prepare": {"lvm": {}}, "only_on": "fast"}
    assert asked(pool) == {}
    assert list(asked(pool, host="kvm02")) == ["lvm"]


def test_a_pool_that_goes_takes_along_what_nobody_else_needs() -> None:
    wanted = {"lvm": {"delete_data": True}}
    gone = {**VG, "state": "absent", "prepare": wanted}
    assert asked(gone) == {}
    assert asked(gone, side="absent") == {
        "lvm": [{"name": "fast", "devices": ["/dev/vdb"], "delete_data": True, "state": "absent"}]
    }
    assert asked(gone, {**VG, "name": "other", "prepare": {"lvm": {}}}, side="absent") == {}


def test_one_thing_that_two_pools_ask_for_is_one_item() -> None:
    pool = {**VG, "prepare": {"lvm": {}}}
    assert asked(pool, {**pool, "name": "other"}) == asked(pool)


@pytest.mark.parametrize("carrier", ["iscsi", "multipath"])
def test_what_stands_on_devices_that_are_brought_to_the_host(carrier: str) -> None:
    other = {**VG, "name": "other", "source_name": "local", "prepare": {"lvm": {}}}
    zpool = {"type": "zfs", "name": "z", "source_name": "tank", "prepare": {carrier: {}, "zfs": {"vdevs": [VG]}}}
    gone = {**VG, "name": "gone", "source_name": "old", "state": "absent", "prepare": {carrier: {}, "lvm": {}}}
    pools = [other, zpool, gone, {**VG, "prepare": {carrier: {}, "lvm": None}}]
    found = prepared(pools, "kvm01", GROUPS)
    assert [one["item"]["name"] for one in found["carried"]] == ["tank", "fast"]
    assert [one["devices"] for one in found["carried"]] == [["/dev/vdb"], ["/dev/vdb"]]
    assert found["carried"][1]["item"] in found["present"]["lvm"]
    assert found["devices"] == ["/dev/vdb"]  # of the group that nothing brings to the host


def test_a_device_of_what_goes_need_not_be_there() -> None:
    pool = {**VG, "prepare": {"lvm": {"state": "absent"}}}
    assert prepared([pool], "kvm01", GROUPS)["devices"] == []


def test_types_are_those_of_pools_that_are_to_be_there() -> None:
    pools = [VG, {"type": "rbd", "name": "r"}, {"type": "zfs", "name": "z", "state": "absent"}]
    assert prepared(pools, "kvm01", GROUPS)["types"] == ["logical", "rbd"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("lvm", "prepare must be a dictionary"),
        ({"raid": {}}, "prepare has no raid; it has iscsi, multipath"),
        ({"lvm": "vdb"}, "keys of an item of the role host_lvm"),
        ({"lvm": ["vdb"]}, "keys of an item of the role host_lvm"),
    ],
)
def test_nonsense_is_refused(wanted: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        asked({**VG, "prepare": wanted})


def test_a_list_is_needed() -> None:
    with pytest.raises(AnsibleFilterError, match="a list of pools"):
        prepared({}, "kvm01", GROUPS)


def test_every_role_that_prepares_a_host_can_be_asked_for() -> None:
    roles = {path.name.removeprefix("host_") for path in (ROOT / "roles").glob("host_*")}
    assert set(ROLES) == roles - {"packages", "mounts"}


def test_both_tasks_of_the_role_know_every_key() -> None:
    for name, side in (("prepare", "present"), ("release", "absent")):
        tasks = yaml.safe_load((ROOT / f"roles/storage/tasks/{name}.yml").read_text(encoding="utf-8"))
        tasks = [task for task in tasks if "ansible.builtin.include_role" in task]
        roles = [task["ansible.builtin.include_role"]["name"] for task in tasks]
        ours = [f"kvm.storage.host_{key}" for key in ROLES]
        assert roles == (ours if side == "present" else ours[::-1])
        for task, role in zip(tasks, roles):
            [value] = task["vars"].values()
            key = role.removeprefix("kvm.storage.host_")
            carried = side == "present" and key in CARRIED
            asked = f"storage_prepared.{side}.{key}" + (" | difference(storage_items_later)" if carried else "")
            assert f" {asked} " in value
            assert task["when"] == f"{asked} | length > 0"
