# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule's scenarios: hosts are created once, every scenario converges on them, and they are destroyed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.folder import ROOT

SCENARIOS = sorted(
    path.parent.name
    for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml")
    if path.parent.name != "default"
)
FIRST = (
    "storage"  # run each time; those of the roles are in `make lab-all`, and the story in test_site.py runs each role
)
SEQUENCE = ("converge", "idempotence", "verify", "cleanup")
RECAP = re.compile(r"^(hv\d)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=0\s+failed=0", re.MULTILINE)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "ANSIBLE_HOME": str(tmp_path_factory.mktemp("ansible")),
        "ANSIBLE_NOCOLOR": "1",
        "KVM_STORAGE_LAB_UP": str(Path(os.environ["KVM_STORAGE_LAB_INVENTORY"]).parent / "up"),
        "NO_COLOR": "1",
    }


def molecule(environment: dict[str, str], *words: str) -> str:
    """What molecule says; it must succeed."""
    command = [str(Path(sys.executable).with_name("molecule")), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-20000:], done.stderr[-5000:])
    assert done.returncode == 0
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def hosts(environment: dict[str, str]) -> Iterator[None]:
    """The hosts of all scenarios, which are created once."""
    molecule(environment, "create")
    yield
    molecule(environment, "destroy")
    journal = Path(environment["KVM_STORAGE_LAB_UP"], "journal")
    assert not journal.read_text(encoding="utf-8"), "the hosts were destroyed"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == FIRST else [pytest.mark.long]) for name in SCENARIOS]
)
def test_scenario(hosts: None, environment: dict[str, str], name: str) -> None:
    """It converges, has nothing to do then, looks as it should by other tools, and goes without a trace."""
    said = {step: molecule(environment, step, "--scenario-name", name) for step in SEQUENCE}
    for step, text in said.items():
        ran = [host for host, ok, _changed in RECAP.findall(text) if int(ok)]
        assert "hv1" in ran, f"{step}: molecule takes a play without hosts for a success"
        assert "no hosts matched" not in text.lower(), step
        if step == "converge":
            assert any(int(changed) for _host, _ok, changed in RECAP.findall(text))
