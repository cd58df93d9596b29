# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The EXAMPLES and RETURN of every module, read from its file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "plugins/modules"
PREFIX = "kvm.storage."


@dataclass
class Task:
    """One task of EXAMPLES, loops written out; module is empty for what is not of this collection."""

    name: str
    module: str
    args: dict[str, Any]
    register: str = ""
    variables: dict[str, Any] = field(default_factory=dict)


def files() -> list[Path]:
    """The modules that are there, so that a new one needs no new test."""
    return sorted(MODULES.glob("[!_]*.py"))


def part(path: Path, name: str) -> Any:
    """What the YAML of DOCUMENTATION, EXAMPLES or RETURN holds."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    return None


def tasks(path: Path) -> list[Task]:
    return [one for task in part(path, "EXAMPLES") or [] for one in written_out(task)]


def written_out(task: dict[str, Any]) -> Iterator[Task]:
    action = next((key for key in task if "." in key), "")
    module = action[len(PREFIX) :] if action.startswith(PREFIX) else ""
    args = task[action] or {} if module else {}
    for item in task.get("loop", [None]):
        yield Task(task["name"], module, args, task.get("register", ""), {} if item is None else {"item": item})


def rendered(value: Any, variables: dict[str, Any]) -> Any:
    """A value with its templates filled in."""
    if isinstance(value, dict):
        return {key: rendered(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [rendered(one, variables) for one in value]
    if isinstance(value, str) and "{{" in value:
        return NativeEnvironment().from_string(value).render(variables)
    return value
