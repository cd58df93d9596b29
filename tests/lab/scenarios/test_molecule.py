# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Molecule's scenarios: hosts are created once, every scenario converges on them, and they are destroyed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.folder import ROOT

SCENARIOS = sorted(path.parent.name for path in (ROOT / "extensions" / "molecule").glob("*/molecule.yml"))
RECAP = re.compile(r"^(hv\d)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=0\s+failed=0", re.MULTILINE)


@pytest.fixture(scope="module")
def molecule(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a run of all scenarios that must succeed."""
    place = Path(os.environ["KVM_STORAGE_LAB_INVENTORY"]).parent / "up"
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "ANSIBLE_HOME": str(tmp_path_factory.mktemp("ansible")),
        "ANSIBLE_NOCOLOR": "1",
        "KVM_STORAGE_LAB_UP": str(place),
        "NO_COLOR": "1",
    }
    command = [str(binaries / "molecule"), "test", "--all", "--shared-state"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-20000:], done.stderr[-5000:])
    assert done.returncode == 0
    assert not place.joinpath("journal").read_text(encoding="utf-8"), "the hosts were destroyed"
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "default"])
def test_scenario(molecule: str, name: str) -> None:
    assert re.search(rf"{name} ➜ verify: (Executed|executed).*Successful|{name}.*verify.*[Ss]uccess", molecule), name


def test_hosts_matched(molecule: str) -> None:
    """Molecule takes a play without hosts for a success."""
    assert "no hosts matched" not in molecule.lower()
    ran = [host for host, ok, _changed in RECAP.findall(molecule) if int(ok)]
    plays = 4 * (len(SCENARIOS) - 1)  # converge, idempotence, verify and cleanup
    assert {host: ran.count(host) for host in ("hv1", "hv2")} == {"hv1": plays, "hv2": plays}


def test_converge_changed_and_idempotence_did_not(molecule: str) -> None:
    changed = [int(changed) > 0 for host, _ok, changed in RECAP.findall(molecule) if host == "hv1"]
    assert changed[:4] == [True, False, False, True], json.dumps(changed)
