# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in thin pools by a stand-in for LVM's commands, which counts them; the lab runs the real ones.

libvirt is its own test driver under another name: of one that says test: nobody asks LVM.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands
from ansible_collections.kvm.storage.plugins.module_utils.backends import logical
from tests.contract.hosts import TestHost
from tests.contract.run import run
from tests.contract.test_examples import told

MIB = 2**20
EXTENT = 4 * MIB
LOCAL, REMOTE = "qemu:///system", "qemu+ssh://kvm01/system"


class Lvm:
    """One volume group, and the commands that were run on it."""

    def __init__(self) -> None:
        self.group, self.ran = "vg0", []
        self.rows: dict[str, dict[str, str]] = {}
        self.add("thin", 128 * MIB, lv_layout="thin,pool", lv_role="private", data_percent="1.00")
        self.missing = False

    def add(self, name: str, size: int, **columns: str) -> None:
        row = {**dict.fromkeys(logical.COLUMNS.split(","), ""), "vg_name": self.group, "vg_extent_size": str(EXTENT)}
        row.update(lv_name=name, lv_size=str(size), lv_layout="linear", lv_role="public", lv_active="active")
        self.rows[name] = {**row, **columns}

    def use(self, run_command: Any) -> None:
        commands.runner = self.run

    def run(self, argv: list[str], **options: Any) -> tuple[int, str, str]:
        if self.missing:
            raise FileNotFoundError(argv[0])
        self.ran.append(argv[0])
        values = dict(zip(argv[1:], argv[2:]))
        if argv[0] == "lvs":
            assert argv[-1] == self.group
            return 0, json.dumps({"report": [{"lv": list(self.rows.values())}]}), ""
        size = -(-int(values.get("--virtualsize", values.get("--size", "0b"))[:-1]) // EXTENT) * EXTENT
        name = argv[-1].rpartition("/")[2]
        if argv[0] == "lvcreate":
            assert values["--name"] not in self.rows
            pool = values["--thinpool"]
            self.add(values["--name"], size, lv_layout="thin,sparse", pool_lv=pool, data_percent="0.00")
        elif argv[0] == "lvextend":
            assert size > int(self.rows[name]["lv_size"])
            self.rows[name]["lv_size"] = str(size)
        elif argv[0] == "lvremove":
            del self.rows[name]
        elif argv[0] == "vgs":
            return 0, f"  {64 << 20} {32 << 20}\n", ""
        else:
            raise AssertionError(argv)
        return 0, "", ""

    def counted(self) -> list[str]:
        ran, self.ran[:] = list(self.ran), []
        return ran


@pytest.fixture
def lvm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lvm]:
    found = Lvm()
    monkeypatch.setattr(commands, "use", found.use)
    return found


@pytest.fixture
def host(test_host: Callable[..., TestHost], lvm: Lvm) -> TestHost:
    found = test_host()
    ok(found, "pool_logical", name="guests", source_name="vg0")
    return found


def ok(host: TestHost, module: str, check: bool = False, **args: Any) -> dict[str, Any]:
    result = run(host, module, {"uri": LOCAL, **args}, check=check)
    assert "failed" not in result, result["msg"]
    return result


def converge(host: TestHost, lvm: Lvm, actions: list[str], *ran: str, **args: Any) -> None:
    """As predicted, by these commands, and the second run by one look at the most."""
    lvm.counted()
    predicted = ok(host, "volume", True, pool="guests", **args)
    assert predicted["actions"] == actions
    assert lvm.counted() == ["lvs"]
    assert told(ok(host, "volume", pool="guests", **args)) == told(predicted)
    assert lvm.counted() == list(ran)
    again = ok(host, "volume", pool="guests", **args)
    assert (again["changed"], again["actions"]) == (False, [])
    assert lvm.counted() in (["lvs"], [])


def refused(host: TestHost, code: str, *words: str, uri: str = LOCAL, **args: Any) -> None:
    for check in (True, False):
        result = run(host, "volume", {"uri": uri, "pool": "guests", **args}, check=check)
        assert (result.get("code"), result["actions"]) == (code, []), result
        assert all(word in result["msg"] for word in words), result["msg"]


def test_the_life_of_a_volume(host: TestHost, lvm: Lvm) -> None:
    converge(host, lvm, ["create"], "lvs", "lvcreate", name="a", capacity="5MB", thin_pool="thin")
    converge(host, lvm, ["resize"], "lvs", "lvextend", name="a", capacity="10MiB")
    assert lvm.rows["a"]["lv_size"] == str(12 * MIB)
    refused(host, "would_shrink", "12.0 MiB", name="a", capacity="8MiB")
    refused(host, "cannot_change", "thin_pool is thin, not fast", name="a", thin_pool="fast")
    refused(host, "cannot_change", "thin_pool is thin, not fast", name="a", thin_pool="fast", state="absent")
    converge(host, lvm, ["delete"], "lvs", "lvremove", name="a", state="absent")
    assert set(lvm.rows) == {"thin"}


def test_many_cost_one_look(host: TestHost, lvm: Lvm) -> None:
    volumes = [{"pool": "guests", "name": "d%d", "count": 5, "capacity": "8MiB", "thin_pool": "thin"}]
    ok(host, "layout", volumes=volumes)
    assert sorted(lvm.counted()) == ["lvcreate"] * 5 + ["lvs"]
    assert ok(host, "layout", volumes=volumes)["actions"] == []
    assert lvm.counted() == ["lvs"]
    found = ok(host, "layout_info")["layout"]
    assert lvm.counted() == ["lvs"]
    assert [one["thin_pool"] for one in found["volumes"]] == ["thin"] * 5
    assert ok(host, "layout", **found)["actions"] == []
    ok(host, "layout", volumes=[{**volumes[0], "state": "absent"}])
    assert set(lvm.rows) == {"thin"}


def test_what_libvirt_lists_costs_no_look(host: TestHost, lvm: Lvm) -> None:
    ok(host, "volume", pool="guests", name="thick", capacity="8MiB")
    lvm.counted()
    assert ok(host, "volume", pool="guests", name="thick", capacity="8MiB")["actions"] == []
    assert lvm.counted() == []
    refused(host, "cannot_change", "thin_pool is none, not thin", name="thick", thin_pool="thin")
    assert lvm.counted() == []


def test_no_thin_pool(host: TestHost, lvm: Lvm) -> None:
    new = {"name": "a", "capacity": "4MiB"}
    refused(host, "no_source", "'fast'", "there are 'thin'", thin_pool="fast", **new)
    lvm.rows["thin"]["data_percent"] = "100.00"
    refused(host, "backend_refused", "its data is full", thin_pool="thin", **new)
    refused(host, "not_a_volume", "a thin pool", name="thin", state="absent")
    del lvm.rows["thin"]
    refused(host, "no_source", "there is none", thin_pool="thin", **new)
    host.raw.storagePoolCreateXML("<pool type='dir'><name>d</name><target><path>/d</path></target></pool>", 0)
    refused(host, "unsupported", "no thin pools", **{**new, "pool": "d", "thin_pool": "thin"})


def test_nothing_to_ask(host: TestHost, lvm: Lvm, capsys: pytest.CaptureFixture[str]) -> None:
    """Over the network, or without lvm2, what needs no thin pool goes on, and what does says why it can't."""
    new = {"name": "a", "capacity": "4MiB"}
    refused(host, "remote_connection", "with a local uri", thin_pool="thin", uri=REMOTE, **new)
    result = run(host, "volume", {"uri": REMOTE, "pool": "guests", "name": "a", "state": "absent"})
    assert result["actions"] == []
    # where ansible's own controller is loaded in this process, warnings are shown rather than returned
    said = f"{result.get('warnings')}{capsys.readouterr().err}"
    assert "could not be seen" in said, "it can't be told whether it is there"
    lvm.missing = True
    refused(host, "missing_command", "lvs", thin_pool="thin", **new)
    assert ok(host, "volume", pool="guests", **new)["actions"] == ["create"]
    assert ok(host, "volume_info", pool="guests")["volumes"][0]["name"] == "a"
    refused(host, "guard_unavailable", "lvs", "destroyed with it", name="a", state="absent")
    refused(host, "guard_unavailable", "destroyed with it", uri=REMOTE, name="a", state="absent")


@pytest.mark.parametrize(("allocation", "asked"), [("1MiB", {}), (None, {"preallocation": "off"})])
def test_no_sparse_volume_by_a_snapshot(host: TestHost, allocation: str | None, asked: dict[str, Any]) -> None:
    asked = {**asked, **({"allocation": allocation} if allocation else {})}
    refused(host, "unsupported", "lost once it is full", "thin_pool", name="a", capacity="8MiB", **asked)


def test_delete_data_names_what_libvirt_does_not_list(host: TestHost, lvm: Lvm) -> None:
    args = {"uri": LOCAL, "name": "guests", "state": "absent", "delete_data": True}
    for check in (True, False):
        result = run(host, "pool_logical", args, check=check)
        assert (result["code"], "'thin' (a thin pool)" in result["msg"]) == ("not_volumes", True)
    blind = run(host, "pool_logical", {**args, "uri": REMOTE})
    assert blind["code"] == "guard_unavailable"
    del lvm.rows["thin"]
    assert "delete_storage" in run(host, "pool_logical", args)["actions"]
