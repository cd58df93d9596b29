# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_zfs decides: the topology that `zpool status` shows against the one that is declared."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "roles/host_zfs/files/decide.py"
SPEC = importlib.util.spec_from_file_location("host_zfs_decide", FILE)
assert SPEC is not None and SPEC.loader is not None
decide = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = decide  # where dataclasses look
SPEC.loader.exec_module(decide)

STATUS = """  pool: tank
 state: ONLINE
  scan: resilvered 1M in 00:00:01 with 0 errors
config:

\tNAME                                 STATE     READ WRITE CKSUM
\ttank                                 ONLINE       0     0     0
\t  mirror-0                           ONLINE       0     0     0
\t    /dev/disk/by-id/A-part1          ONLINE       0     0     0
\t    spare-1                          ONLINE       0     0     0
\t      /dev/disk/by-id/B-part1        ONLINE       0     0     0
\t      /dev/disk/by-id/S-part1        ONLINE       0     0     0
\t  mirror-1                           DEGRADED     0     0     0
\t    1234567890                       UNAVAIL      0     0     0  was /dev/disk/by-id/C-part1
\t    /dev/disk/by-id/D-part1          ONLINE       0     0     0  (resilvering)
\tspecial\t
\t  mirror-2                           ONLINE       0     0     0
\t    /dev/nvme8n1p1                   ONLINE       0     0     0
\t    /dev/nvme9n1p1                   ONLINE       0     0     0
\tlogs\t
\t  /dev/sdy1                          ONLINE       0     0     0
\tcache
\t  /dev/sdz1                          ONLINE       0     0     0
\tspares
\t  /dev/disk/by-id/S-part1            INUSE     currently in use

errors: No known data errors
"""
DECLARED: list[dict[str, Any]] = [
    {"role": "spare", "devices": ["/dev/disk/by-id/S"]},
    {"type": "mirror", "devices": ["/dev/disk/by-id/B", "/dev/disk/by-id/A"]},
    {"type": "mirror", "devices": ["/dev/disk/by-id/C", "/dev/disk/by-id/D"]},
    {"role": "special", "type": "mirror", "devices": ["/dev/nvme8n1", "/dev/nvme9n1"]},
    {"role": "log", "devices": ["/dev/sdy"]},
    {"role": "cache", "devices": ["/dev/sdz"]},
]


def unmatched(declared: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What is declared and not there, and what is there and not declared."""
    there = decide.topology(STATUS)
    missing = []
    for vdev in decide.declared_vdevs(declared):
        found = next((one for one in there if vdev.same(one)), None)
        if found:
            there.remove(found)
        else:
            missing.append(str(vdev))
    return missing, [str(one) for one in there]


def test_the_same_topology() -> None:
    """In any order; with a spare that has stepped in, and a device that is gone."""
    assert unmatched(DECLARED) == ([], [])


@pytest.mark.parametrize(
    ("changed", "missing", "there"),
    [
        ({"type": "mirror", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/X"]}, 1, 1),
        ({"type": "raidz", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 1, 1),
        ({"type": "mirror", "devices": ["/dev/disk/by-id/A"]}, 1, 1),
        ({"role": "log", "type": "mirror", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 1, 1),
        ({"devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 2, 1),
    ],
)
def test_another_topology(changed: dict[str, Any], missing: int, there: int) -> None:
    found = unmatched([DECLARED[0], changed, *DECLARED[2:]])
    assert tuple(map(len, found)) == (missing, there), found


def test_one_more() -> None:
    assert unmatched([*DECLARED, {"role": "cache", "devices": ["/dev/sdx"]}]) == (["cache /dev/sdx"], [])


def test_arguments() -> None:
    """Each role once, for zpool takes log, cache and spare no second time."""
    vdevs = decide.declared_vdevs([*DECLARED, {"role": "cache", "devices": ["/dev/sdx"]}])
    words = decide.arguments(vdevs)
    assert words[:3] == ["mirror", "/dev/disk/by-id/B", "/dev/disk/by-id/A"]
    assert words[-7:] == ["log", "/dev/sdy", "cache", "/dev/sdz", "/dev/sdx", "spare", "/dev/disk/by-id/S"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("compression", True, "on"),
        ("atime", False, "off"),
        ("quota", "1GiB", "1073741824"),
        ("quota", "10GB", "10000000000"),
        ("quota", "none", "0"),
        ("recordsize", "1.5M", "1572864"),
        ("mountpoint", "/srv/a/", "/srv/a"),
        ("mountpoint", "/", "/"),
        ("acltype", "posixacl", "posix"),
        ("comment", "10G", "10G"),
        ("copies", 2, "2"),
    ],
)
def test_values_as_zfs_shows_them(name: str, value: Any, shown: str) -> None:
    assert decide.value_of(name, value) == shown


@pytest.mark.parametrize(
    ("name", "good"),
    [("tank", True), ("mirror1", False), ("raidz", False), ("log", False), ("logs", True), ("1a", False)],
)
def test_names_of_zpools(name: str, good: bool) -> None:
    assert bool(decide.POOL_NAME.fullmatch(name)) is good


@pytest.mark.parametrize(
    ("name", "good"),
    [("vms", True), ("vms/web", True), ("..", False), ("a/../b", False), ("/a", False), ("a//b", False)],
)
def test_names_of_datasets(name: str, good: bool) -> None:
    assert bool(decide.DATASET_NAME.fullmatch(name)) is good


@pytest.mark.parametrize(
    ("vdevs", "alike"),
    [
        ([{"type": "mirror", "devices": ["/dev/a", "/dev/b"]}, {"role": "special", "devices": ["/dev/c"]}], False),
        (
            [{"type": "raidz2", "devices": ["/dev/a", "/dev/b", "/dev/c"]}, {"role": "cache", "devices": ["/dev/d"]}],
            True,
        ),
        (
            [{"type": "raidz", "devices": ["/dev/a", "/dev/b"]}, {"type": "mirror", "devices": ["/dev/c", "/dev/d"]}],
            True,
        ),
        ([{"devices": ["/dev/a", "/dev/b"]}, {"role": "special", "devices": ["/dev/c"]}], True),
    ],
)
def test_the_same_redundancy(vdevs: list[dict[str, Any]], alike: bool) -> None:
    plan = decide.Plan({"pools": [], "arc_max": "", "devices": [], "arc_file": ""})
    assert plan.balanced("tank", decide.declared_vdevs(vdevs)) is alike
    assert (plan.problems == []) is alike
