# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of this repository that no linter knows: one function each, which yields what is wrong."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
HEADER = (
    "Copyright: (c) 2026, kvm.storage contributors",
    "GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "SPDX-License-Identifier: GPL-3.0-or-later",
)
# These carry no comments, or are written by a tool that drops them.
NO_HEADER = re.compile(
    r"(^|/)(LICENSE|CHANGELOG\.rst|changelogs/changelog\.yaml)$|\.(csv|html|json|md|png|svg|txt\.gz|xml)$|\.(qcow2|raw|img|xz)$"
)


def files() -> list[str]:
    """The files of this tree, those that git does not know yet included."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / name).is_file()})


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def headers() -> Iterator[str]:
    """Every file that can carry comments begins with the licence header."""
    for name in files():
        if NO_HEADER.search(name) or (ROOT / name).stat().st_size == 0:
            continue
        top = "\n".join((ROOT / name).read_text(encoding="utf-8", errors="replace").splitlines()[:10])
        if not all(line in top for line in HEADER):
            yield f"{name}: no licence header"


def action_group() -> Iterator[str]:
    """The action group 'storage' names every module, in order."""
    group = load("meta/runtime.yml")["action_groups"]["storage"]
    modules = sorted(path.stem for path in (ROOT / "plugins/modules").glob("[!_]*.py"))
    if group != sorted(group):
        yield "meta/runtime.yml: action group 'storage' is not in alphabetical order"
    for name in sorted(set(group) - set(modules)):
        yield f"meta/runtime.yml: action group 'storage' names {name}, but plugins/modules/{name}.py is not there"
    for name in sorted(set(modules) - set(group)):
        yield f"meta/runtime.yml: action group 'storage' lacks {name}"


def galaxy() -> Iterator[str]:
    """What Galaxy asks of galaxy.yml and of the files beside it."""
    data = load("galaxy.yml")
    if not re.fullmatch(r"[1-9][0-9]*\.[0-9]+\.[0-9]+", data["version"]):
        yield f"galaxy.yml: version {data['version']} is not semantic, or below 1.0.0"
    if len(data["tags"]) > 20 or "storage" not in data["tags"]:
        yield "galaxy.yml: tags must be at most 20, one of them 'storage'"
    for tag in data["tags"]:
        if not re.fullmatch(r"(?!.*__)[a-z][0-9a-z_]*", tag):
            yield f"galaxy.yml: tag {tag!r} is not allowed"
    for name, version in data["dependencies"].items():
        if not version.startswith(">="):
            yield f"galaxy.yml: dependency {name} has no lower bound"
    if not load("meta/runtime.yml")["requires_ansible"].startswith(">="):
        yield "meta/runtime.yml: requires_ansible has no lower bound"
    for name in load("meta/execution-environment.yml")["dependencies"].values():
        if not (ROOT / name).is_file():
            yield f"meta/execution-environment.yml: {name} is not there"
    for name in ("CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "README.md"):
        if not (ROOT / name).is_file():
            yield f"{name} is not there"
    for requirement in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if re.search(r"^[^#]*(<|==|~=)", requirement):
            yield f"requirements.txt: {requirement} is capped"


def roles() -> Iterator[str]:
    """Every role is described for Galaxy, for ansible-doc and for people."""
    for role in sorted((ROOT / "roles").glob("*")):
        for name in ("meta/main.yml", "meta/argument_specs.yml", "README.md"):
            if role.is_dir() and not (role / name).is_file():
                yield f"roles/{role.name}/{name} is not there"


RULES = {"headers": headers, "action-group": action_group, "galaxy": galaxy, "roles": roles}
