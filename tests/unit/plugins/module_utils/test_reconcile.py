# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run returns: counts, actions, items and diffs; the same for a prediction."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import reconcile
from ansible_collections.kvm.storage.plugins.module_utils.converge import Outcome
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.plan import Plan, Thing


class Item(Thing):
    kind = "pool"

    def __init__(self, name="vms", type_name="dir"):
        super().__init__()
        self.name, self.type_name = name, type_name

    def facts(self):
        return {"type": self.type_name} if self.type_name else {}


A, B = {"state": "active", "path": "/a"}, {"state": "active", "path": "/b"}
ERROR = StorageError(thing="pool 'vms'", code="in_use", reason="it is used")


def outcome(steps=(), before=None, after=None, status=None, done=None, name="vms", **rest):
    error = ERROR if status == "failed" else None
    plan = Plan(list(steps), before, after, **rest)
    return Outcome(Item(name), {}, plan, status or ("changed" if steps else "ok"), list(done or []), error)


CREATED = outcome(["define", "start"], None, A)
UPDATED = outcome(["define"], A, B)
DELETED = outcome(["stop", "undefine"], A, None)
SAME = outcome([], A, A)
FAILED = outcome(["define", "start"], None, A, "failed", ["define"])
SKIPPED = outcome(["define"], None, A, "skipped")


@pytest.mark.parametrize(
    ("outcomes", "summary"),
    [
        ([SAME], "plan: 0 to create, 0 to update, 0 to delete, 1 unchanged"),
        ([CREATED, UPDATED, DELETED, SAME, SAME], "plan: 1 to create, 1 to update, 1 to delete, 2 unchanged"),
        ([FAILED, SKIPPED, SKIPPED], "plan: 0 to create, 0 to update, 0 to delete, 0 unchanged, 1 failed, 2 skipped"),
        ([outcome([], status="skipped")], "plan: 0 to create, 0 to update, 0 to delete, 0 unchanged, 1 skipped"),
        ([], "plan: 0 to create, 0 to update, 0 to delete, 0 unchanged"),
    ],
)
def test_counted(outcomes, summary):
    counts = reconcile.counted(outcomes)
    assert counts.pop("summary") == summary
    assert sum(counts.values()) == len(outcomes)


@pytest.mark.parametrize(
    ("one", "steps"),
    [
        (CREATED, ["define", "start"]),  # predicted
        (outcome(["define", "start"], None, A, done=["define", "start"]), ["define", "start"]),  # done
        (FAILED, ["define"]),
        (outcome(["define"], None, A, "failed"), []),
        (SKIPPED, []),
        (SAME, []),
    ],
)
def test_took(one, steps):
    assert reconcile.took(one) == steps


def test_one_thing():
    result = reconcile.report([UPDATED], "qemu:///system", False, False, False)
    assert result == {
        "changed": True,
        "actions": ["define"],
        "plan": {**reconcile.counted([UPDATED])},
        "restart_needed": False,
        "type": "dir",
    }
    assert reconcile.report([SAME], "u", False, True, False)["changed"] is False
    assert reconcile.report([SAME], "u", False, True, False)["diff"] == []
    assert "diff" not in reconcile.report([UPDATED], "u", False, False, False)


def test_many_things():
    outcomes = [CREATED, SAME, FAILED, SKIPPED, outcome(["define"], A, B, name="b", restart_needed=True)]
    result = reconcile.report(outcomes, "u", True, False, False)
    assert result["actions"] == ["pool 'vms': define", "pool 'vms': start", "pool 'vms': define", "pool 'b': define"]
    assert result["restart_needed"] is True
    assert [one["status"] for one in result["outcomes"]] == ["changed", "failed", "skipped", "changed"]
    assert result["outcomes"][1] == {
        "kind": "pool",
        "name": "vms",
        "status": "failed",
        "actions": ["define"],
        "type": "dir",
        "msg": "pool 'vms': it is used",
        "code": "in_use",
    }
    assert result["outcomes"][3]["restart_needed"] is True
    assert len(reconcile.report(outcomes, "u", True, False, True)["outcomes"]) == 5


@pytest.mark.parametrize(
    ("one", "before", "after"),
    [
        (CREATED, "", "path:          /a\nstate:         active\n"),
        (UPDATED, "path:          /a\n", "path:          /b\n"),
        (DELETED, "path:          /a\nstate:         active\n", ""),
        (outcome(["make_directory"], A, A), "", "make directory: done\n"),
        (outcome(["define"], {"autostart": None}, {"autostart": True}), "", "autostart:     True\n"),
    ],
)
def test_differences(one, before, after):
    first, last = reconcile.differences([one], "qemu:///system", "plan: x")
    assert (first["before"], first["after"]) == (before, after)
    assert first["before_header"] == "pool vms (dir) on qemu:///system"
    assert first["after_header"] == "pool vms (dir)"
    assert last == {"prepared": "plan: x\n"}


def test_the_risk_is_in_the_header_and_what_did_not_happen_is_in_no_diff():
    risky = outcome(["restart"], A, B, risk="restarts the pool")
    assert reconcile.differences([risky], "u", "s")[0]["after_header"] == "pool vms (dir)  [restarts the pool]"
    assert reconcile.differences([SAME, SKIPPED, outcome(["define"], None, A, "failed")], "u", "s") == []


@pytest.mark.parametrize("error", [OSError(2, "No such file"), ERROR])
def test_refusals_have_a_code(error):
    """The one form, whatever was raised before anything changed."""
    found = {}

    class Module:
        def fail_json(self, **result):
            found.update(result)

    reconcile.refuse(Module(), error)
    assert found["actions"] == []
    assert found["code"] in ("in_use", "backend_refused", "system_refused")
    assert "No such file" in found["msg"] or found["msg"] == "pool 'vms': it is used"


def test_hidden_values_are_hidden_in_every_form():
    class Module:
        no_log_values = set()

    reconcile.hide(Module(), ["a b", ""])
    assert {"a b", "YSBi", "612062", "a%20b"} <= Module.no_log_values
    assert "" not in Module.no_log_values
