# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backend that somebody adds: its file, its module with examples, a line in the registry. No test is written for it.

The tests of this folder run on a copy of the tree that has it, once as it should be and once for each mistake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import examples

HEADER = "from __future__ import annotations\n\n"
# libvirt still knows the type, and nothing can run it any more.
BACKEND = (
    HEADER
    + """
from ..backend import LIBVIRT, OPERATIONS, Backend
from ..fields import At
from .shared import SOURCE_NAME, hosts, servers

BACKEND = Backend(
    type="sheepdog",
    fields={"source_name": SOURCE_NAME, "hosts": hosts()},
    operations=dict.fromkeys(OPERATIONS, LIBVIRT),
    conflicts_by=("source_name",),
    servers=servers(7000),
)
"""
)
MODULE = (
    HEADER
    + '''
DOCUMENTATION = """
module: pool_sheepdog
"""

EXAMPLES = """
- name: Use a Sheepdog cluster
  kvm.storage.pool_sheepdog:
    name: herd
    source_name: herd
    hosts:
      - name: dog1.example.com
        port: 7001
    autostart: true

- name: Stop it
  kvm.storage.pool_sheepdog:
    name: herd
    state: inactive
"""

RETURN = """
actions:
  returned: always
plan:
  returned: success
restart_needed:
  returned: success
type:
  returned: success
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.sheepdog import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
'''
)
LOADER = """

def load_sheepdog() -> Backend:
    from .sheepdog import BACKEND

    return BACKEND


LOADERS["sheepdog"] = load_sheepdog
"""
ENGINE = "plugins/module_utils"
FILES = {
    f"{ENGINE}/backends/sheepdog.py": BACKEND,
    "plugins/modules/pool_sheepdog.py": MODULE,
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree with the new backend in it."""
    root = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".cache")
    for part in ("plugins", "meta", "tests/contract", "tests/unit", "tests/servers", "tests/integration"):
        shutil.copytree(examples.ROOT / part, root / part, ignore=ignored)
    shutil.copy(examples.ROOT / "pyproject.toml", root)
    collection = root / ".cache/collections/ansible_collections/kvm"
    collection.mkdir(parents=True)
    (collection / "storage").symlink_to(root)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    with (root / f"{ENGINE}/backends/registry.py").open("a", encoding="utf-8") as file:
        file.write(LOADER)
    return root


def contract_of(root: Path, chosen: str = "sheepdog") -> subprocess.CompletedProcess:
    """The tests that the new backend gets, in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": str(root / ".cache/collections")}
    environment.pop("PYTEST_XDIST_WORKER", None)
    argv = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen]
    argv += ["tests/contract", "tests/unit/plugins/module_utils/test_roundtrip.py"]
    return subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, check=False)


def test_a_new_backend_has_its_contract_tested(copy: Path) -> None:
    finished = contract_of(copy)
    assert finished.returncode == 0, finished.stdout
    for name, count in (("test_example[", 2), ("test_removal_undoes_it[", 2), ("test_options_come_back[", 1)):
        assert finished.stdout.count(f"{name}") >= count, finished.stdout


@pytest.mark.parametrize(
    ("file", "before", "after", "words"),
    [
        # a field in a place of which libvirt knows nothing
        (
            f"{ENGINE}/backends/sheepdog.py",
            '"source_name": SOURCE_NAME',
            '"source_name": At("source/cluster", required=True)',
            "Extra element cluster|Did not expect element cluster|failed to validate|not valid",
        ),
        # one that libvirt drops, or gives back as something else
        (
            f"{ENGINE}/pool.py",
            'self.handle.setAutostart(1 if self.want["autostart"] else 0)',
            "pass",
            "test_example",
        ),
        # an engine that writes while it predicts
        (
            f"{ENGINE}/reconcile.py",
            "act=not module.check_mode",
            "act=True",
            "was called in check mode",
        ),
        # a result that nobody documented
        ("plugins/modules/pool_sheepdog.py", "type:\n  returned: success\n", "", "test_example"),
        # a field that no test ever sets
        (
            f"{ENGINE}/backends/sheepdog.py",
            '"hosts": hosts()',
            '"hosts": hosts(), "vendor": At("source/vendor/@name")',
            "vendor",
        ),
        # an example that does nothing
        ("plugins/modules/pool_sheepdog.py", "    state: inactive\n", "    state: active\n", "shows nothing"),
    ],
    ids=["place", "step", "check-mode", "return", "untouched-field", "example"],
)
def test_a_mistake_in_it_is_found(copy: Path, file: str, before: str, after: str, words: str) -> None:
    text = (copy / file).read_text(encoding="utf-8")
    assert before in text
    (copy / file).write_text(text.replace(before, after), encoding="utf-8")
    finished = contract_of(copy, "sheepdog or test_every_field")
    assert finished.returncode == 1, finished.stdout
    assert any(word in finished.stdout for word in words.split("|")), finished.stdout
