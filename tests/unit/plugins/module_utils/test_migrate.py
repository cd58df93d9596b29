# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a move, from wherever a run before was killed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import migrate

BEFORE: dict[str, Any] = {
    "exists": True,
    "place": ("images", "a"),
    "format": "qcow2",
    "target_exists": False,
    "target_listed": True,
    "target_place": ("fast", "a"),
    "target_format": "qcow2",
    "way": "copy",
    "finished": False,
    "outdated": [],
}
THERE, GONE, OURS = {"target_exists": True}, {"exists": False}, {"finished": True}
USED = {"outdated": ["web"]}


@pytest.mark.parametrize(
    ("state", "runs", "mirrored", "found"),
    [
        ("copying", False, False, migrate.PART),  # whatever a definition says by now
        ("copying", False, True, migrate.PART),
        ("copying", True, False, migrate.TAKEN),
        ("pivoting", True, False, migrate.WHOLE),
        ("pivoting", False, True, migrate.PART),
        ("pivoting", False, False, migrate.DOUBTFUL),
        ("pivoted", True, False, migrate.WHOLE),
        ("pivoted", False, False, migrate.WHOLE),
    ],
)
def test_judged(state: str, runs: bool, mirrored: bool, found: str) -> None:
    assert migrate.judged(state, runs, mirrored) == found


@pytest.mark.parametrize(
    ("state", "options", "steps"),
    [
        ({}, {}, ["copy", "drop_source"]),
        (USED, {}, ["copy", "switch_domains", "drop_source"]),
        ({}, {"keep_source": True}, ["copy"]),
        (USED, {"keep_source": True}, ["copy", "switch_domains"]),
        (USED, {"keep_source": True, "update_domains": False}, ["copy"]),
        (USED, {"update_domains": False}, ["copy", "switch_domains", "drop_source"]),  # which check() refuses
        ({"way": "rename"}, {}, ["rename"]),
        ({"way": "rename", **USED}, {}, ["rename", "switch_domains"]),
        ({"way": "rename", **THERE}, {}, ["rename"]),  # which check() refuses
        ({**THERE, **GONE}, {}, []),
        ({**THERE, **GONE, **USED}, {}, ["switch_domains"]),
        (THERE, {}, ["drop_source"]),
        ({**THERE, **USED}, {}, ["switch_domains", "drop_source"]),
        (THERE, {"keep_source": True}, []),
        ({**THERE, "target_listed": False}, {"keep_source": True}, ["refresh_target"]),
        (OURS, {}, ["drop_source", "finish_copy"]),
        ({**OURS, **USED}, {}, ["switch_domains", "drop_source", "finish_copy"]),
        ({**OURS, **GONE}, {}, ["finish_copy"]),
        (OURS, {"keep_source": True}, ["finish_copy"]),
    ],
)
def test_plan(state: dict[str, Any], options: dict[str, Any], steps: list[str]) -> None:
    made = migrate.plan({**BEFORE, **state}, **{"keep_source": False, **options})
    assert made.steps == steps
    if not steps:
        assert made.before == made.after
