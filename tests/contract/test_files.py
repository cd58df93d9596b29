# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of the architecture that the files themselves show."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest
import yaml

from tests.contract import examples

ENGINE = examples.ROOT / "plugins/module_utils"
DOCUMENTS = ("DOCUMENTATION", "EXAMPLES", "RETURN")


def code_of(path: Path) -> str:
    """The lines of a module without its documentation, comments and blank lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in DOCUMENTS:
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))


def below_the_documents(path: Path) -> int:
    """How many lines of code a module has below its documentation."""
    last = max(
        node.end_lineno for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Assign)
    )
    lines = path.read_text(encoding="utf-8").splitlines()[last:]
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


def mentions_check_mode(text: str) -> bool:
    return re.search(r"check_mode|\._diff\b", text) is not None


@pytest.mark.parametrize("path", examples.files(), ids=lambda path: path.stem)
def test_a_module_is_a_declaration(path: Path) -> None:
    assert not mentions_check_mode(code_of(path))
    assert "AnsibleModule" not in code_of(path)
    for name in DOCUMENTS:
        assert examples.part(path, name), f"{path.name} has no {name}"
    assert any(task.module == path.stem for task in examples.tasks(path)), "no example of the module itself"


def test_one_file_decides_on_check_mode() -> None:
    mentioning = [
        path.name for path in sorted(ENGINE.rglob("*.py")) if mentions_check_mode(path.read_text(encoding="utf-8"))
    ]
    assert mentioning == ["reconcile.py"]


def test_pool_modules_are_short() -> None:
    counts = {path.stem: below_the_documents(path) for path in examples.files() if path.stem.startswith("pool_")}
    assert statistics.median(counts.values()) <= 15, counts


def test_every_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((examples.ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert sorted(runtime["action_groups"]["storage"]) == [path.stem for path in examples.files()]


def test_plan_functions_look_at_nothing() -> None:
    """A plan is a function of its arguments: it names neither a connection nor the file system."""
    for name in ("pool", "secret", "volume"):
        tree = ast.parse((ENGINE / f"{name}.py").read_text(encoding="utf-8"))
        plans = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("plan")]
        assert plans
        for node in plans:
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            assert not names & {"os", "connections", "connection", "xmltree", "subprocess", "open", "self"}, node.name


def test_steps_are_methods() -> None:
    """Every word that a plan can put among the steps is a method of the thing."""
    for name, class_name in (("pool", "Pool"), ("secret", "Secret"), ("volume", "Volume")):
        tree = ast.parse((ENGINE / f"{name}.py").read_text(encoding="utf-8"))
        found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
        methods = {node.name for node in found.body if isinstance(node, ast.FunctionDef)}
        steps = set()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                for one in ast.walk(node):
                    if isinstance(one, ast.List):
                        steps |= {part.value for part in one.elts if isinstance(part, ast.Constant)}
        plain = {step for step in steps if isinstance(step, str) and step.isidentifier()}
        assert plain & methods, name
        assert {step for step in plain if step in STEPS} <= methods


STEPS = frozenset(
    ["define", "create", "build", "make_directory", "start", "stop", "restart", "recreate", "set_autostart", "resize"]
    + ["set_permissions", "delete_volumes", "delete_storage", "undefine", "set_value", "make_private", "refresh"]
    + ["remove_leftover", "protect", "release", "delete"]
)
