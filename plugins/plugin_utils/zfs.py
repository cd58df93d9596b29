# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plans for zpools and for exports of zvols have in common: how to read what roles/host_zfs/files/look.py told.

Nothing here looks or acts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.kvm.storage.plugins.module_utils import sizes

UNITS = "/etc/systemd/system"
UNIT_FOLDERS = (UNITS, "/usr/lib/systemd/system", "/lib/systemd/system")
LONGEST_NAME = 255  # of a dataset, ZFS_MAX_DATASET_NAME_LEN without its NUL
NO_COMMAND = 127


class Told(NamedTuple):
    """What a command said."""

    rc: int
    stdout: str
    stderr: str

    @property
    def why(self) -> str:
        return " ".join(self.stderr.split()) or f"it ended with {self.rc}"


class Looked:
    """What look.py told; false before there was a look."""

    def __init__(self, looked: Mapping[str, Any]) -> None:
        self.told: Mapping[str, Any] = looked.get("told") or {}
        self.files: Mapping[str, str] = looked.get("files") or {}
        self.paths: Mapping[str, str] = looked.get("paths") or {}
        self.labels: Mapping[str, Mapping[str, str]] = looked.get("labels") or {}
        self.done = "told" in looked

    def __bool__(self) -> bool:
        return self.done

    def says(self, argv: Sequence[str]) -> Told:
        """A command that was not asked for is like one that is not there."""
        one = self.told.get(" ".join(argv)) or {}
        return Told(one.get("rc", NO_COMMAND), one.get("stdout", ""), one.get("stderr", ""))

    def text(self, path: str) -> str:
        return self.files.get(path, "")

    def in_folder(self, folder: str) -> list[str]:
        """The paths of files in it."""
        return sorted(path for path in self.files if os.path.dirname(path) == folder)

    def unit(self, name: str) -> str:
        """The text of a unit; nothing where there is none or it is masked."""
        if self.paths.get(f"{UNITS}/{name}") == "/dev/null":
            return ""
        return next(filter(None, (self.text(f"{folder}/{name}") for folder in UNIT_FOLDERS)), "")

    def enabled(self, name: str) -> bool:
        """Whether systemd starts a unit at boot. systemctl says so too, but takes its time."""
        return any(
            os.path.basename(path) == name and os.path.dirname(path).endswith(".wants")
            for path in self.paths
            if path.startswith(f"{UNITS}/")
        )


class Decided:
    """What is wrong, and what is to be done."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.steps: list[dict[str, Any]] = []

    def problem(self, thing: str, reason: str, way_out: str) -> None:
        words = f"{thing}: {reason}; {way_out}"
        if words not in self.problems:
            self.problems.append(words)

    def step(self, name: str, *argv: str, stdin: str | None = None) -> None:
        self.steps.append({"name": name, "argv": list(argv), **({} if stdin is None else {"stdin": stdin})})


def asks(units: Iterable[str]) -> dict[str, list[str]]:
    """What look.py has to look at for the sake of units; patterns are good."""
    names = list(units)
    return {
        "files": [f"{folder}/{name}" for name in names for folder in UNIT_FOLDERS],
        "paths": [f"{UNITS}/{folder}{name}" for name in names for folder in ("", "*.wants/")],
    }


def rows(text: str, columns: int) -> list[list[str]]:
    """Lines of `-H`. A value may have tabs and newlines, so the last column takes the rest and other lines are none."""
    return [line.split("\t", columns - 1) for line in text.split("\n") if line.count("\t") >= columns - 1]


def properties(text: str) -> dict[str, dict[str, str]]:
    """By dataset what `zfs get -H -o name,property,value` told; what stands first is no second line of a value."""
    found: dict[str, dict[str, str]] = {}
    for name, key, value in rows(text, 3):
        found.setdefault(name, {}).setdefault(key, value)
    return found


def size_of(text: Any) -> int | None:
    """Bytes of a size with a unit, None for what is none."""
    try:
        return sizes.parse(text)
    except ValueError:
        return None


def bad_name(text: str) -> bool:
    """Whether zfs takes no dataset of this name, such as tank/vms."""
    part = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.:-]+"
    return len(text) > LONGEST_NAME or not re.fullmatch(rf"{part}(?:/{part})*", text)
