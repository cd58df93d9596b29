# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""look.py of the role host_zfs: it tells what there is, and how commands ended. test_zpools.py has what is decided."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "roles/host_zfs/files/look.py"
SPEC = importlib.util.spec_from_file_location("host_zfs_look", FILE)
assert SPEC is not None and SPEC.loader is not None
look = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(look)


def test_it_runs_from_its_input() -> None:
    """As the role sends it; a module of the kernel is not loaded by looking."""
    words = "import json, sys; given = json.load(sys.stdin); exec(given.pop('program'))"
    given = {"program": FILE.read_text(encoding="utf-8"), "commands": [["sh", "-c", "echo $ZFS_MODULE_LOADING"]]}
    done = subprocess.run(
        [sys.executable, "-c", words], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    told = {"sh -c echo $ZFS_MODULE_LOADING": {"rc": 0, "stdout": "NO\n", "stderr": ""}}
    assert json.loads(done.stdout) == {"told": told, "files": {}, "paths": {}, "labels": {}}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 3"], {"rc": 3, "stdout": "out\n", "stderr": "err\n"}),
        (["no-such-command"], {"rc": 127, "stdout": ""}),
        (["sleep", "60"], {"rc": 124, "stdout": "", "stderr": "no answer within 0.2 seconds"}),
    ],
)
def test_commands(monkeypatch: pytest.MonkeyPatch, argv: list[str], told: dict[str, Any]) -> None:
    monkeypatch.setattr(look, "PATIENCE", 0.2)
    began = time.monotonic()
    assert {**look.run(*argv), **told} == look.run(*argv)
    assert time.monotonic() - began < 30


def test_files_and_paths(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(" text\n")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    told = look.look({"files": [f"{tmp_path}/*", f"{tmp_path}"], "paths": [f"{tmp_path}/b", f"{tmp_path}/c*"]})
    assert told["files"] == {f"{tmp_path}/a": "text", f"{tmp_path}/b": "text"}
    assert told["paths"] == {f"{tmp_path}/b": f"{tmp_path}/a"}


def test_labels_of_what_commands_name(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "zpool status": "\t  /dev/null  ONLINE\n\t  1  UNAVAIL  was /dev/nope\n",
        "blkid -p -o export /dev/null": "DEVNAME=x\nLABEL=tank\nUUID=1\nTYPE=zfs_member\n",
        "blkid -p -o export /dev/zero": "TYPE=zfs_member\n",
        "blkid -p -o export /dev/full": "TYPE=ext4\nLABEL=tank\n",
    }
    monkeypatch.setattr(look, "run", lambda *argv: {"stdout": said[" ".join(argv)]})
    told = look.look({"commands": [["zpool", "status"]], "labels": ["/dev/zero", "/dev/full"]})
    assert told["paths"] == {"/dev/null": "/dev/null"}
    assert told["labels"] == {"/dev/null": {"name": "tank", "guid": "1"}, "/dev/zero": {"name": "", "guid": ""}}
