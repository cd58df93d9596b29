# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the tarball, installs it in an empty folder, and has ansible-doc read every plugin and role in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".venv" / "bin"
NEEDED = {
    "CHANGELOG.rst|changelogs/changelog.yaml",
    "LICENSE",
    "README.md",
    "bindep.txt",
    "meta/execution-environment.yml",
    "meta/runtime.yml",
    "requirements.txt",
    "tests/config.yml",
}
UNWANTED = re.compile(
    r"(^|/)(\.|__pycache__/|.*\.(pyc|tar\.gz)$)|^(Makefile|pyproject\.toml|demo/|extensions/)|^tests/.*/"
)
MOST_BYTES = 20_000_000


def run(*command: str | Path, collections: Path) -> str:
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_LOCALHOST_WARNING": "false"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=collections.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(str(word) for word in command)}\n{done.stdout}")
    return done.stdout


def needs() -> list[str]:
    """The collections that this one is installed with, those that galaxy.yml names and no other."""
    return sorted(yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"])


def in_tree() -> dict[str, set[str]]:
    """What the tree has, by the kind of plugin; private plugins begin with an underscore."""

    def stems(folder: str, pattern: str) -> set[str]:
        return {f"kvm.storage.{path.stem}" for path in (ROOT / folder).glob(pattern)}

    return {
        "module": stems("plugins/modules", "[!_]*.py"),
        "filter": stems("plugins/filter", "[!_]*.yml"),
        "role": {f"kvm.storage.{path.name}" for path in (ROOT / "roles").glob("*") if path.is_dir()},
    }


def main() -> None:
    problems = []
    with tempfile.TemporaryDirectory(prefix="kvm-storage-package-") as scratch:
        collections = Path(scratch, "collections")
        collections.mkdir()
        run(BIN / "ansible-galaxy", "collection", "build", "--output-path", scratch, ROOT, collections=collections)
        [tarball] = Path(scratch).glob("kvm-storage-*.tar.gz")
        if tarball.stat().st_size > MOST_BYTES:
            problems.append(f"{tarball.name} is larger than {MOST_BYTES} bytes")
        with tarfile.open(tarball) as archive:
            packed = {member.name for member in archive if not member.isdir()}
        tracked = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split("\n")
        for name in sorted(packed - set(tracked) - {"FILES.json", "MANIFEST.json"}):
            problems.append(f"packed, but unknown to git: {name} (see build_ignore in galaxy.yml)")
        for name in sorted(filter(UNWANTED.search, packed)):
            problems.append(f"packed, but only for development: {name} (see build_ignore in galaxy.yml)")
        for names in sorted(NEEDED):
            if not packed.intersection(names.split("|")):
                problems.append(f"not packed: {names}")

        needed = [ROOT / ".cache/collections/ansible_collections" / name.replace(".", "/") for name in needs()]
        run(
            *(BIN / "ansible-galaxy", "collection", "install", "--offline", "-p", collections, *needed, tarball),
            collections=collections,
        )
        dump = json.loads(run(BIN / "ansible-doc", "--metadata-dump", "kvm.storage", collections=collections))["all"]
        for kind, wanted in in_tree().items():
            found = set(dump.get(kind, {}))
            for name in sorted(wanted ^ found):
                problems.append(f"{kind} {name}: {'not seen by ansible-doc' if name in wanted else 'not in the tree'}")
    if problems:
        sys.exit("\n".join(problems))
    counts = ", ".join(f"{len(dump.get(kind, {}))} {kind}s" for kind in in_tree())
    print(f"{tarball.name}: {len(packed)} files, {counts}")


if __name__ == "__main__":
    main()
