# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters: the items of one host, and the table of what differs on a fleet."""

from __future__ import annotations

import string
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.kvm.storage.plugins.filter.fleet import COLUMNS, drift, for_host, volumes_for_host

GROUPS = {"all": ["kvm01", "kvm02"], "ungrouped": [], "fast": ["kvm02"]}


def item(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "pool", "name": "images", "type": "dir", "status": "changed", "actions": []}
    return {**found, "change": "update", "risk": "in place", "differences": {}, **given}


def volume(number: int, **given: Any) -> dict[str, Any]:
    differences = {"capacity": {"before": None, "after": "1.0 GiB (1073741824)"}}
    what = {"kind": "volume", "name": f"images/web{number:02d}", "pool": "images", "change": "create"}
    return item(**{**what, "differences": differences, **given})


def result(*items: dict[str, Any]) -> dict[str, Any]:
    return {"changed": bool(items), "outcomes": list(items), "plan": {}, "actions": []}


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, by the columns of its heading."""
    lines = drift(results)["table"].partition("\n\n")[0].splitlines()
    starts = [lines[0].index(column) for column in COLUMNS]
    ends = [*starts[1:], None]
    return [[line[start:end].strip() for start, end in zip(starts, ends)] for line in lines[1:]]


# for_host


@pytest.mark.parametrize(
    ("only_on", "hosts"),
    [
        ("kvm01", ["kvm01"]),
        (["kvm01", "kvm02"], ["kvm01", "kvm02"]),
        ("fast", ["kvm02"]),
        (["fast", "kvm01"], ["kvm01", "kvm02"]),
        ("all", ["kvm01", "kvm02"]),
        ("ungrouped", []),
        ([], []),
    ],
)
def test_an_item_is_meant_for_the_hosts_and_groups_that_it_names(only_on: Any, hosts: list[str]) -> None:
    given = [{"name": "images", "only_on": only_on}]
    meant = [host for host in GROUPS["all"] if for_host(given, host, GROUPS)]
    assert meant == hosts


def test_fleet_keys_are_taken_out_and_the_rest_stays_as_it_is() -> None:
    plain = {"name": "one", "path": "/one"}
    given: list[dict[str, Any]] = [
        plain,
        {"name": "two", "only_on": "all", "purpose": "p", "shared": True, "prepare": {"x": 1}},
    ]
    found = for_host(given, "kvm01", GROUPS)
    assert found == [plain, {"name": "two"}]
    assert found[0] is plain
    assert "only_on" in given[1]


def test_what_is_no_item_is_left_to_the_module() -> None:
    assert for_host(["images", None], "kvm01", GROUPS) == ["images", None]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("images", "a list of items is needed"),
        ({"name": "images"}, "a list of items is needed"),
        (None, "a list of items is needed"),
        ([{"only_on": 3}], "only_on must be"),
        ([{"only_on": None}], "only_on must be"),
        ([{"only_on": [3]}], "only_on must be"),
        ([{"only_on": {"fast": 1}}], "only_on must be"),
        ([{"only_on": ["kvm01", "kvm03", "slow"]}], "only_on names kvm03, slow, which"),
    ],
)
def test_what_can_not_be_meant_is_refused(given: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        for_host(given, "kvm01", GROUPS)


def test_no_value_of_an_item_shows_in_an_error() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        for_host([{"value": "pa55word", "only_on": [{"value": "pa55word"}]}], "kvm01", GROUPS)
    assert "pa55word" not in str(error.value)


# drift


def test_a_clean_fleet_is_one_line() -> None:
    found = drift({"kvm01": result(), "kvm02": result(item(status="ok", change="none"))})
    assert found["table"] == "Fleet: 2 hosts, 2 clean, 0 drifted, 0 unknown, 0 need data loss"
    assert found["clean"] is True
    assert found["hosts"] == {"kvm01": "clean", "kvm02": "clean"}


def test_the_whole_table() -> None:
    mode = {"permissions": {"before": "mode 0755", "after": "mode 0711"}}
    fast = {"source_name": {"before": None, "after": "vg0"}, "state": {"before": None, "after": "active"}}
    found = drift(
        {
            "kvm01": result(item(differences=mode, actions=["set_permissions"])),
            "kvm02": result(item(name="fast", type="logical", change="create", differences=fast)),
            "kvm03": result(),
            "kvm04": {"unreachable": True, "msg": "no route"},
        }
    )
    assert found["table"].splitlines() == [
        "HOST   ITEM         DESIRED      FOUND        DRIFT        FIX",
        "kvm01  pool images  mode 0711    mode 0755    permissions  set permissions",
        "kvm02  pool fast    logical vg0  -            missing      create",
        "kvm04  *            ?            unreachable  unknown      -",
        "",
        "kvm04: no route",
        "",
        "Fleet: 4 hosts, 1 clean, 2 drifted, 1 unknown, 0 need data loss",
    ]
    assert found["clean"] is False


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        (
            item(differences={"state": {"before": "inactive", "after": "active"}}, actions=["start"]),
            ["active", "inactive", "state", "start"],
        ),
        (
            item(differences={"autostart": {"before": "false", "after": "true"}}, actions=["set_autostart"]),
            ["autostart true", "autostart false", "autostart", "set autostart"],
        ),
        (
            item(differences={"path": {"before": "/a", "after": "/b"}}, actions=["define"], restart_needed=True),
            ["path /b", "path /a", "path", "define, restart"],
        ),
        (
            item(status="ok", change="none", restart_needed=True),
            ["as defined", "older settings", "not restarted", "restart"],
        ),
        (item(change="none", actions=["make_directory"]), ["-", "-", "make directory", "make directory"]),
        (
            item(change="delete", differences={"path": {"before": "/a", "after": None}}, risk=""),
            ["absent", "dir /a", "not wanted", "delete"],
        ),
        (
            volume(1, change="delete", differences={}, risk="DESTROYS DATA, as state: absent asks"),
            ["absent", "dir", "not wanted", "delete (DATA LOSS)"],
        ),
        (
            volume(1, change="update", differences={"capacity": {"before": "1.0 GiB (1)", "after": "2.0 GiB (2)"}}),
            ["capacity 2.0 GiB", "capacity 1.0 GiB", "capacity", ""],
        ),
        (
            volume(1, change="update", differences={"capacity": {"before": "1.0 GiB (1)", "after": "1.0 GiB (2)"}}),
            ["capacity 1.0 GiB (2)", "capacity 1.0 GiB (1)", "capacity", ""],
        ),
        (
            volume(1, status="failed", change="none", differences={}, code="would_shrink", msg="too small"),
            ["see below", "see below", "would shrink", "DATA LOSS"],
        ),
        (item(status="failed", change=None, code="type_mismatch"), ["see below"] * 2 + ["type mismatch", "by hand"]),
        (item(status="failed", change=None, code="backend_refused"), ["?", "?", "unknown", "-"]),
        (item(status="skipped", change=None), ["?", "?", "not looked at", "blocked"]),
        (item(status="skipped", change="create", type="dir"), ["dir", "-", "missing", "blocked"]),
        (item(kind="secret", change="create", type=None), ["present", "-", "missing", "create"]),
    ],
)
def test_cells_of_an_item(given: dict[str, Any], cells: list[str]) -> None:
    assert rows({"kvm01": result(given)})[0][2:] == cells


def test_what_waits_for_a_failed_item_but_is_as_declared_has_no_row() -> None:
    failed = item(status="failed", change="none", code="in_use", msg="used")
    found = rows({"kvm01": result(failed, volume(1, status="skipped", change="none", differences={}))})
    assert [row[1] for row in found] == ["pool images"]


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (3, ["volume images/web00", "volume images/web01", "volume images/web02"]),
        (4, ["volume images/web00 and 3 more"]),
        (5000, ["volume images/web00 and 4999 more"]),
    ],
)
def test_many_that_differ_alike_share_a_row(count: int, names: list[str]) -> None:
    assert [row[1] for row in rows({"kvm01": result(*map(volume, range(count)))})] == names


def test_volumes_of_other_pools_or_sizes_have_rows_of_their_own() -> None:
    other = {"capacity": {"before": None, "after": "9.0 GiB (9)"}}
    found = rows({"kvm01": result(*map(volume, range(4)), volume(7, pool="fast"), volume(8, differences=other))})
    assert [row[1] for row in found] == ["volume images/web00 and 3 more", "volume images/web07", "volume images/web08"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "no result"),
        (None, "no result"),
        ("text", "no result"),
        ({"skipped": True}, "no result"),
        ({"outcomes": "text"}, "no result"),
        ({"unreachable": True, "msg": "x"}, "unreachable"),
        ({"failed": True, "msg": "x"}, "failed"),
        ({"failed": True, "msg": "x", "code": "no_connection"}, "no connection"),
        ({"changed": False, "msg": "x", "code": "bad_value", "failed": False}, "bad value"),
    ],
)
def test_a_host_of_which_nothing_is_known_is_never_clean(given: Any, found: str) -> None:
    told = drift({"kvm01": given, "kvm02": result()})
    assert rows({"kvm01": given}) == [["kvm01", "*", "?", found, "unknown", "-"]]
    assert told["hosts"] == {"kvm01": "unknown", "kvm02": "clean"}
    assert told["clean"] is False


def test_a_fleet_without_hosts_is_not_clean() -> None:
    assert drift({})["clean"] is False


def test_an_item_that_nobody_could_look_at_makes_its_host_unknown() -> None:
    blind = item(status="failed", change=None, code="guard_unavailable", msg="blind")
    assert drift({"kvm01": result(blind, volume(1))})["hosts"] == {"kvm01": "unknown"}


def test_hosts_that_can_only_be_mended_by_losing_data_are_counted_once() -> None:
    lost = [volume(number, status="failed", change="none", differences={}, code="would_shrink") for number in (1, 2)]
    found = drift({"kvm01": result(*lost), "kvm02": result(volume(3)), "kvm03": result()})
    assert found["summary"] == "Fleet: 3 hosts, 1 clean, 2 drifted, 0 unknown, 1 need data loss"


def test_words_of_failures_are_shown_but_not_without_end() -> None:
    many = "\n".join(f"line {number}" for number in range(20))
    lines = drift({"kvm01": {"failed": True, "msg": many}})["table"].splitlines()
    assert lines[3:8] == [*(f"kvm01: line {number}" for number in range(4)), "kvm01: and 16 more"]


def test_something_else_than_results_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="a dictionary of results"):
        drift([])  # type: ignore[arg-type]


@given(some.text(), some.text(alphabet=string.printable), some.text())
def test_no_text_breaks_the_table(name: str, value: str, message: str) -> None:
    differences = {"path": {"before": value, "after": "/a"}}
    failed = item(name=name, status="failed", differences=differences, code="in_use", msg=message)
    table = drift({"kvm01": result(failed)})["table"]
    heading, row = table.split("\n")[:2]
    assert row[heading.index("DESIRED") :].startswith("path /a ")
    assert all(letter.isprintable() or letter == "\n" for letter in table)
    assert all(line.startswith(("HOST", "kvm01", "Fleet: 1 host, ")) or not line for line in table.split("\n"))


# volumes_for_host

POOLS = [
    {"type": "dir", "name": "images", "path": "/srv/images", "purpose": "images"},
    {"type": "dir", "name": "any", "path": "/srv/any"},
    {"type": "dir", "name": "both", "path": "/srv/both", "purpose": ["images", "iso"]},
    {"type": "dir", "name": "away", "path": "/srv/away", "disabled": True},
    {"type": "dir", "name": "local", "path": "/srv/a", "purpose": "iso", "only_on": "kvm01"},
    {"type": "dir", "name": "local", "path": "/srv/b", "only_on": "kvm02"},
]


@pytest.mark.parametrize(
    ("volume", "refused_on"),
    [
        ({"pool": "images", "name": "a.qcow2"}, ""),
        ({"pool": "images", "name": "debian.ISO"}, "kvm01 kvm02"),
        ({"pool": "images", "name": "debian.iso", "purpose": "images"}, ""),
        ({"pool": "images", "name": "a.qcow2", "purpose": "backup"}, "kvm01 kvm02"),
        ({"pool": "both", "name": "debian.iso"}, ""),
        ({"pool": "any", "name": "a.iso", "purpose": "whatever"}, ""),
        ({"pool": "local", "name": "a.qcow2"}, "kvm01"),
        ({"pool": "not-declared", "name": "a.qcow2"}, ""),
    ],
)
def test_a_pool_takes_what_it_is_for(volume: dict[str, Any], refused_on: str) -> None:
    for host in ("kvm01", "kvm02"):
        if host in refused_on.split():
            with pytest.raises(AnsibleFilterError, match=f"{volume['pool']}/{volume['name']} is for"):
                volumes_for_host([volume], POOLS, host, GROUPS)
        else:
            plain = {key: value for key, value in volume.items() if key != "purpose"}
            assert volumes_for_host([volume], POOLS, host, GROUPS) == [plain]


def test_a_pool_out_of_use_keeps_what_it_holds() -> None:
    """It is inactive, and its volumes are not asked for."""
    (away,) = [item for item in for_host(POOLS, "kvm01", GROUPS) if item["name"] == "away"]
    assert away == {"type": "dir", "name": "away", "path": "/srv/away", "state": "inactive", "autostart": False}
    assert volumes_for_host([{"pool": "away", "name": "a"}], POOLS, "kvm01", GROUPS) == []
    with pytest.raises(AnsibleFilterError, match="disabled is for pools"):
        for_host([{"pool": "images", "name": "a", "disabled": True}], "kvm01", GROUPS)
