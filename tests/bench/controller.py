# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook as a person runs it: tasks in a playbook, variables in a YAML file, the host is this machine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
INTERPRETER = "/usr/bin/python3"
Tasks = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """One run of a playbook: its seconds from end to end, those of each task and of each item of a loop."""

    seconds: float
    tasks: list[dict[str, Any]]


@dataclass(frozen=True)
class Controller:
    """Where playbooks are written and run; variables are files there, too, written once each."""

    folder: Path
    used: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "used", self.folder / "used")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ansible.cfg").touch()

    def write(self, name: str, content: Any) -> str:
        """A YAML file for playbooks to read, as a person would have written it."""
        path = self.folder / name
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        path.write_text(yaml.dump(content, Dumper=dumper, sort_keys=False), encoding="utf-8")
        return str(path)

    def play(
        self, tasks: Tasks, *, variables: str = "", check: bool = False, changed: bool | None = None,
        interpreter: str = INTERPRETER,
    ) -> Run:  # fmt: skip
        """Run tasks; what they report as changed is verified, since a run that did something else is no measurement."""
        play: dict[str, Any] = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
        if variables:
            play["vars_files"] = [variables]
        playbook = self.write("playbook.yml", [play])
        durations = self.folder / "durations.json"
        command = ["ansible-playbook", *(["--check"] if check else []), "--inventory", "localhost,", playbook]
        begin = time.monotonic()
        done = subprocess.run(
            [*command, "-c", "local", "-e", f"ansible_python_interpreter={interpreter}"],
            env=self.environment(durations), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - begin
        if done.returncode:
            raise RuntimeError(f"the playbook failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        found = json.loads(durations.read_text(encoding="utf-8"))
        for task in found:
            if changed is not None and task["changed"] is not changed:
                raise RuntimeError(f"task {task['name']!r} reports changed={task['changed']}: it does something else")
        return Run(seconds, found)

    def environment(self, durations: Path) -> dict[str, str]:
        """Ansible's defaults, whatever the configuration of this machine says."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {
            **kept,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LIBRARY": str(HERE / "library"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "durations",
            "BENCH_DURATIONS": str(durations),
            "BENCH_USAGE": str(self.used),
        }

    def usage(self, tasks: Tasks, **options: Any) -> tuple[float, float]:
        """The most memory that a module had, in MB, and its processor time, which other work hardly moves."""
        self.used.unlink(missing_ok=True)
        self.play(tasks, interpreter=str(HERE / "usage.py"), **options)
        runs = [line.split() for line in self.used.read_text(encoding="ascii").splitlines()]
        return max((int(memory) * 1024 / 1e6, float(seconds)) for memory, seconds in runs)
