# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example of the README and the guides runs, page by page, on a real hypervisor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    page for page in [ROOT / "README.md", *(ROOT / "docs" / "guide").glob("*.md")] if BLOCK.search(page.read_text())
)
LOCAL = {"hosts": "localhost", "connection": "local", "gather_facts": False}


def tasks_of(page: Path, srv: str) -> list[dict]:
    """The tasks of all blocks of a page, with the paths below a directory of the test's own."""
    return [
        task for block in BLOCK.findall(page.read_text()) for task in yaml.safe_load(block.replace("/srv/", f"{srv}/"))
    ]


def test_there_are_examples():
    assert len(PAGES) >= 4, "a page without a block that this test finds is a page whose examples nobody runs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page, fresh_hypervisor, scratch, tmp_path):
    play = {
        **LOCAL,
        "name": page.stem,
        "vars": {"ansible_python_interpreter": "/usr/bin/python3"},
        "module_defaults": {"group/kvm.storage.storage": {"uri": fresh_hypervisor.uri}},
        "tasks": tasks_of(page, str(scratch)),
    }
    book = tmp_path / "examples.yml"
    book.write_text(yaml.safe_dump([play], sort_keys=False))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(book)],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
