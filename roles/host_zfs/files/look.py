# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what commands, files and devices of this host say. It changes nothing, and decides nothing.

Run on the host by the roles host_zfs and zfs_over_iscsi: a JSON document comes in, and one goes out.

in   commands (each an argv, that only reads), files and paths (patterns of names), labels (devices)
out  told (rc, stdout and stderr, by the words of the command), files (text by path), paths (where they lead, by path;
     also of what commands name below /dev), labels (name and GUID of the zpool by device, of those that ZFS labelled)
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

PATIENCE = 120  # seconds; commands hang where the I/O of a zpool is suspended
WAITED = 124  # the rc of timeout(1)
QUIET = {"LC_ALL": "C", "ZFS_MODULE_LOADING": "NO", "ZFS_MODULE_TIMEOUT": "0"}  # a look loads no module


def run(*argv: str) -> dict[str, Any]:
    """A command; one that is not there fails like one that has nothing to tell."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="replace", env={**os.environ, **QUIET, "PATH": path},
        )  # fmt: skip
    except OSError as error:
        return {"rc": 127, "stdout": "", "stderr": str(error)}
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()  # and not waited for: in the kernel it may stay for ever
        return {"rc": WAITED, "stdout": "", "stderr": f"no answer within {PATIENCE} seconds"}
    return {"rc": process.returncode, "stdout": stdout, "stderr": stderr}


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def matching(patterns: Iterable[str]) -> list[str]:
    return sorted({path for pattern in patterns for path in glob.glob(pattern)})


def label(node: str) -> dict[str, str] | None:
    """Name and GUID of the zpool on a device, both empty for a spare or a cache."""
    lines = run("blkid", "-p", "-o", "export", node)["stdout"].split("\n")
    told = dict(line.partition("=")[::2] for line in lines)
    if told.get("TYPE") != "zfs_member":
        return None
    return {"name": told.get("LABEL", ""), "guid": told.get("UUID", "")}


def look(given: dict[str, Any]) -> dict[str, Any]:
    told = {" ".join(argv): run(*argv) for argv in given.get("commands") or []}
    named = {word for one in told.values() for word in re.findall(r"(?<!\S)/dev/\S+", one["stdout"])}
    nodes = {word: os.path.realpath(word) for word in sorted(named) if os.path.exists(word)}
    labels = {node: label(node) for node in sorted({*(given.get("labels") or []), *nodes.values()})}
    files = {path: read(path) for path in matching(given.get("files") or [])}
    return {
        "told": told,
        "files": {path: text for path, text in files.items() if text is not None},
        "paths": {**{path: os.path.realpath(path) for path in matching(given.get("paths") or [])}, **nodes},
        "labels": {node: one for node, one in labels.items() if one is not None},
    }


if __name__ == "__main__":
    # the role sends this program with its input, so the input may have been read already
    json.dump(look(globals().get("given") or json.load(sys.stdin)), sys.stdout)
