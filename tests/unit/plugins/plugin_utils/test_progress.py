# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a line is said of a long run, and what."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.plugin_utils import progress
from ansible_collections.kvm.storage.plugins.plugin_utils.progress import Lines

GIB = 1 << 30


def said(looks, total=100 * GIB):
    """[(second, line)] of looks at (second, step, done); step None is a module that tells nothing."""
    lines = Lines("h2", "volume_upload", 0.0)
    found = []
    for second, step, done in looks:
        told = {} if step is None else {"pid": 1, "step": step, "done": done, "total": total}
        line = lines.next(told, float(second))
        if line:
            found.append((second, line))
    return found


def test_each_five_percent():
    looks = [(second, "upload", second * 2 * GIB) for second in range(1, 10)]
    assert [second for second, line in said(looks)] == [3, 6, 9]
    assert said(looks)[0][1] == "[h2] upload   6%  6.0 GiB of 100.0 GiB, 3 s"


def test_each_ten_seconds_with_news():
    assert [second for second, line in said([(second, "upload", second) for second in range(1, 35)])] == [10, 20, 30]


def test_each_minute_without_news():
    assert [second for second, line in said([(second, "upload", 7) for second in range(1, 200)])] == [10, 70, 130, 190]
    assert said([(second, None, 0) for second in range(1, 100)]) == [(60, "[h2] volume_upload: 60 s")]


def test_no_more_than_one_a_second():
    assert [second for second, line in said([(n / 10, "upload", n * GIB) for n in range(1, 100)])] == list(range(1, 10))


def test_a_step_without_a_total():
    looks = [(second, "verify", 0) for second in range(1, 15)]
    assert said(looks, total=None) == [(10, "[h2] verify, 10 s")]


def test_who_tells_is_listened_to():
    """Each module whose steps tell of themselves has an action that shows it."""
    plugins = Path(progress.__file__).resolve().parents[1]
    telling = {one.stem for one in (plugins / "module_utils").glob("*.py") if "progress.told(" in one.read_text()}
    modules = [one.stem for one in (plugins / "modules").glob("volume_*.py")]
    run_by = {name: (plugins / f"modules/{name}.py").read_text() for name in modules}
    long = {name for name in modules if any(f"module_utils.{one} import" in run_by[name] for one in telling)}
    assert {"volume_snapshot", "volume_resize", "volume_migrate"} <= long
    shown = {one.stem for one in (plugins / "action").glob("*.py")}
    assert long - {"volume_snapshot_info"} <= shown


@pytest.mark.parametrize(
    ("pid", "told", "lives", "counts"),
    [
        (None, False, False, False),
        (None, False, True, True),
        (None, True, False, True),  # until its own number can be asked for
        (7, True, True, True),
        (7, True, False, False),  # killed after it had told of itself, which its file outlives
    ],
)
def test_who_is_there(pid, told, lives, counts):
    answer = (
        '{"started": 1, "ansible_job_id": "j"}\n' + ('{"pid": 7}\n' if told else "\n") + ("\nalive" if lives else "")
    )
    look = progress.TransferAction.look
    action = mock.Mock(_low_level_execute_command=mock.Mock(return_value={"stdout": answer}))
    assert look(action, "/jobs/j", "/jobs/p", pid, "ab")[::2] == (False, counts)
