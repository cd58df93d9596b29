# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an upload and a download decide, from what was read."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import download, upload

NOTHING = {"exists": False, "listed": False, "leftover": False, "unfinished": False, "differs": False}
THERE = {"exists": True, "listed": True, "options": {"capacity": 1024}, "protected": False, "backing": None}
THERE.update(thin_pool=None, leftover=False, unfinished=False, differs=False)
DESTROYS = "DESTROYS DATA, as replace: true asks"
WANT = {"options": {"capacity": 2048}}


@pytest.mark.parametrize(
    ("before", "replaces", "steps", "risk"),
    [
        (NOTHING, False, ["upload"], ""),
        (NOTHING, True, ["upload"], ""),
        ({**NOTHING, "leftover": True}, False, ["remove_leftover", "upload"], ""),
        ({**NOTHING, "listed": True}, False, ["refresh", "upload"], ""),
        (THERE, False, [], ""),
        (THERE, True, [], ""),
        ({**THERE, "differs": True}, True, ["replace"], DESTROYS),
        ({**THERE, "unfinished": True}, False, ["replace"], ""),
        ({**THERE, "unfinished": True}, True, ["replace"], DESTROYS),
        (
            {**THERE, "listed": False, "differs": True},
            True,
            ["refresh", "replace"],
            DESTROYS,
        ),
    ],
)
def test_plan_of_an_upload(before, replaces, steps, risk):
    made = upload.plan(before, WANT, "raw", "disk.raw", replaces)
    assert (made.steps, made.risk) == (steps, risk)
    assert (made.before is None) == (not before["exists"])
    assert (made.before == made.after) == (steps == [])


@pytest.mark.parametrize(
    ("there", "same", "steps", "risk"),
    [
        (False, False, ["download"], ""),
        (True, False, ["download"], "replaces the file"),
        (True, True, [], ""),
    ],
)
def test_plan_of_a_download(there, same, steps, risk):
    made = download.plan({"there": there, "same": same}, {"dest": "/srv/disk.raw"})
    assert (made.steps, made.risk) == (steps, risk)
    assert (made.before is None) == (not there)
