# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What chain work decides, as tables; and what it reads from headers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import chainwork
from ansible_collections.kvm.storage.plugins.module_utils.headers import inspect

A, B, C = "/pool/a.qcow2", "/pool/b.qcow2", "/pool/c.raw"


def before(**state: Any) -> dict[str, Any]:
    return {"exists": True, "stands_on": [], "recorded": None, "own_data": True, **state}


@pytest.mark.parametrize(
    ("stands_on", "max_depth", "steps", "warned"),
    [
        ([], None, [], False),
        ([], 0, [], False),
        ([A], None, ["flatten"], False),
        ([A], 0, ["flatten"], True),
        ([A], 1, [], False),
        ([A, B], 1, ["flatten"], True),
        ([A, B], 2, [], False),
    ],
)
def test_flatten(stands_on: list[str], max_depth: int | None, steps: list[str], warned: bool) -> None:
    plan = chainwork.plan_flatten("volume 'v'", before(stands_on=stands_on), max_depth)
    assert (plan.steps, bool(plan.warnings)) == (steps, warned)
    assert plan.before == {"backing": stands_on[0] if stands_on else "none"}
    assert (plan.before == plan.after) is not bool(steps)


@pytest.mark.parametrize(
    ("recorded", "path", "form", "steps"),
    [
        (None, A, "qcow2", ["rebase"]),
        ((A, "qcow2"), A, "qcow2", []),
        (("/pool/../pool/a.qcow2", "qcow2"), A, "qcow2", []),
        ((A, None), A, "qcow2", ["rebase"]),
        ((A, "raw"), A, "qcow2", ["rebase"]),
        ((A, "qcow2"), B, "qcow2", ["rebase"]),
    ],
)
def test_rebase(recorded: Any, path: str, form: str, steps: list[str]) -> None:
    plan = chainwork.plan_rebase(before(recorded=recorded), path, form, "keep")
    assert plan.steps == steps
    assert (plan.before == plan.after) is not bool(steps)


def test_the_risk_of_a_trusted_base_is_said() -> None:
    assert "TRUSTS" in chainwork.plan_rebase(before(), A, "qcow2", "trust").risk
    assert "TRUSTS" not in chainwork.plan_rebase(before(), A, "qcow2", "same").risk


@pytest.mark.parametrize(
    ("exists", "own_data", "delete", "steps", "after"),
    [
        (True, True, False, ["commit"], True),
        (True, True, True, ["commit", "delete"], False),
        (True, False, False, [], True),
        (True, False, True, ["delete"], False),
        (False, False, True, [], False),
    ],
)
def test_commit(exists: bool, own_data: bool, delete: bool, steps: list[str], after: bool) -> None:
    plan = chainwork.plan_commit(before(exists=exists, own_data=own_data, stands_on=[A]), delete)
    assert (plan.steps, plan.after is not None) == (steps, after)
    assert ("CHANGES ITS BASE" in plan.risk) is ("commit" in steps)


@pytest.mark.parametrize(
    ("path", "pool", "seen", "silent", "words"),
    [
        (A, "p", {B}, (), ""),
        (A, None, {B}, (), "lies in no pool"),
        (A, "p", {A}, (), "stands on itself"),
        (A, "p", {B}, ("/pool/",), "does not answer"),
        (A, "p", {str(number) for number in range(500)}, (), "too deep"),
    ],
)
def test_what_of_a_chain_is_not_opened(
    path: str, pool: str | None, seen: set[str], silent: tuple[str, ...], words: str
) -> None:
    why = chainwork.why_not_below(path, pool, seen, silent)
    assert words in why
    assert bool(why) is bool(words)


@pytest.mark.parametrize(("one", "other", "same"), [("", "", True), ("", A, False), (A, "", False), (A, A, True)])
def test_same_path(one: str, other: str, same: bool) -> None:
    assert chainwork.same_path(one, other) is same


@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10", "extended_l2=on", "cluster_size=512"])
def test_data_of_its_own(tmp_path: Path, options: str) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "64M"], check=True)

    def own_data() -> bool:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return chainwork.has_own_data(descriptor, inspect(descriptor, "qcow2"))
        finally:
            os.close(descriptor)

    assert not own_data()
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 63M 512", path], check=True, capture_output=True)
    assert own_data()


def test_data_of_its_own_where_the_table_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    os.truncate(path, 70000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert chainwork.has_own_data(descriptor, inspect(descriptor, "qcow2")), "what can't be read may be data"
    finally:
        os.close(descriptor)
