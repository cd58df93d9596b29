# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a resize, and up to where a disk is claimed by what stands on it: tables."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.kvm.storage.plugins.module_utils import claims
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.resize import Goal, goal_of, plan

MIB, GIB = 2**20, 2**30
THING = "volume 'p/v'"


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("40GiB", Goal(40 * GIB)),
        (" 40G ", Goal(40 * GIB)),
        ("+10GiB", Goal(10 * GIB, True)),
        ("- 10GiB", Goal(-10 * GIB, True)),
        ("10000001", Goal(10000001)),
    ],
)
def test_goal(text, goal):
    assert goal_of(THING, text) == goal


@pytest.mark.parametrize("text", ["", "+", "-", "0", "+0", "++1G", "1G+", "one", "1.5B", "99999999999999999999"])
def test_no_goal(text):
    with pytest.raises(StorageError) as error:
        goal_of(THING, text)
    assert error.value.code == "bad_value"


def before(capacity=GIB, guest="", seen=0):
    return {"exists": True, "options": {"capacity": capacity}, "guest": guest, "seen": seen}


@pytest.mark.parametrize(
    ("there", "goal", "granule", "steps", "after"),
    [
        (before(), Goal(GIB), 1, [], GIB),
        (before(), Goal(2 * GIB), 1, ["grow"], 2 * GIB),
        (before(), Goal(GIB, True), 1, ["grow"], 2 * GIB),
        (before(), Goal(GIB + 1), 4 * MIB, ["grow"], GIB + 4 * MIB),
        (before(), Goal(GIB - 1), 1, ["shrink"], GIB - 1),
        (before(), Goal(-MIB, True), 1, ["shrink"], GIB - MIB),
        # what is rounded up was reached
        (before(), Goal(GIB - 1), 4 * MIB, [], GIB),
        (before(), Goal(GIB - 4 * MIB + 1), 4 * MIB, [], GIB),
        (before(), Goal(GIB - 4 * MIB), 4 * MIB, ["shrink"], GIB - 4 * MIB),
        # guests
        (before(guest="disk", seen=GIB), Goal(2 * GIB), 1, ["grow_in_guest"], 2 * GIB),
        (before(guest="device", seen=GIB), Goal(2 * GIB), 1, ["grow", "tell_guest"], 2 * GIB),
        (before(guest="device", seen=GIB), Goal(GIB), 1, [], GIB),
        (before(guest="device", seen=GIB // 2), Goal(GIB), 1, ["tell_guest"], GIB),
        (before(guest="disk", seen=GIB), Goal(MIB), 1, ["shrink"], MIB),  # check() refuses it
        ({"exists": False, "options": {}, "guest": "", "seen": 0}, Goal(GIB), 1, [], None),
        ({"exists": True, "options": {}, "guest": "", "seen": 0}, Goal(GIB), 1, [], None),
    ],
)
def test_plan(there, goal, granule, steps, after):
    found = plan(there, goal, granule)
    assert found.steps == steps
    assert (found.after or {}).get("capacity") == after
    assert ("DISCARD" in found.risk) is (steps == ["shrink"])


@given(some.integers(1, 2**50), some.integers(1, 2**50), some.sampled_from([1, 512, 1024, 4 * MIB]))
def test_second_run_has_nothing_to_do(have, want, granule):
    have = -(-have // granule) * granule
    first = plan(before(have), Goal(want), granule)
    then = plan(before(first.after["capacity"]), Goal(want), granule)
    assert then.steps == []
    assert first.after["capacity"] >= want
    assert first.after["capacity"] < want + granule


# Claims


def made(tmp_path, *commands, size=64 * MIB):
    """The head of a disk that real tools have made."""
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(size)
    for name, *words in commands:
        tool = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if tool is None:
            pytest.skip(f"{name} is not here")
        argv = [str(disk) if one == "{}" else one for one in (words if "{}" in words else [*words, "{}"])]
        subprocess.run([tool, *argv], check=True, capture_output=True)
    return disk.read_bytes()[: claims.HEAD]


def parted(*words):
    return ["parted", "--script", "{}", *words]


@pytest.mark.parametrize(
    ("commands", "end"),
    [
        ([], []),
        ([parted("mklabel", "gpt", "mkpart", "a", "1MiB", "8MiB")], [("a GPT", 64 * MIB)]),
        ([parted("mklabel", "msdos")], [("a partition table", 512)]),
        ([parted("mklabel", "msdos", "mkpart", "primary", "1MiB", "9MiB")], [("a partition table", 9 * MIB)]),
        (
            [parted("mklabel", "msdos", "mkpart", "extended", "1MiB", "60MiB", "mkpart", "logical", "2MiB", "3MiB")],
            [("a partition table", 60 * MIB)],
        ),
        ([["mkfs.ext4", "-q", "-F"]], [("an ext file system", 64 * MIB)]),
        ([["mkfs.ext4", "-q", "-F", "-O", "^64bit", "-b", "1024", "{}", "16M"]], [("an ext file system", 16 * MIB)]),
        ([["mkfs.ext2", "-q", "-F", "{}", "16M"]], [("an ext file system", 16 * MIB)]),
        ([["mkswap"]], [("swap", 64 * MIB)]),
    ],
)
def test_what_tools_make(tmp_path, commands, end):
    found = claims.of(made(tmp_path, *commands))
    assert (None if found is None else [(one.what, one.end) for one in found]) == end


def test_xfs(tmp_path):
    (found,) = claims.of(made(tmp_path, ["mkfs.xfs", "-q", "-f"], size=320 * MIB))
    assert found.end == 320 * MIB


def head(*parts):
    found = bytearray(claims.HEAD)
    for offset, data in parts:
        found[offset : offset + len(data)] = data
    return bytes(found)


def test_lvm_physical_volume():
    """As pvcreate(8) makes it; that needs a device."""
    label = b"LABELONE" + struct.pack("<QII", 1, 0, 32) + b"LVM2 001" + b"u" * 32 + struct.pack("<Q", 7 * GIB)
    assert claims.of(head((512, label))) == [claims.Claim("an LVM physical volume", 7 * GIB)]


@pytest.mark.parametrize(
    "parts",
    [
        [(0, b"something else")],
        [(510, b"\x55\xaa"), (446, b"\x13" * 64)],  # no flags of a partition
        [(510, b"\x55\xaa"), (450, b"\xee")],  # what protects a GPT that is not there
        [(510, b"\x55\xaa"), (0, b"\xeb\x58\x90"), (82, b"FAT32   ")],
        [(510, b"\x55\xaa"), (0, b"\xeb\x52\x90NTFS    ")],
        [(510, b"\x55\xaa"), (0, b"\xeb\x63\x90")],
        [(0x10040, b"_BHRfS_M")],
        [(0, b"LUKS\xba\xbe")],
    ],
)
def test_what_is_not_known_is_not_safe(parts):
    assert claims.of(head(*parts)) is None


def test_several_claims_are_all_told():
    """A boot loader's table before a file system of the whole disk."""
    table = struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 2048)
    ext = [(1024 + 56, struct.pack("<H", 0xEF53)), (1024 + 4, struct.pack("<I", 4096)), (1024 + 0x18, b"\2\0\0\0")]
    found = claims.of(head((446, table), (510, b"\x55\xaa"), *ext))
    assert sorted(one.end for one in found) == [2 * MIB, 16 * MIB]


@given(some.binary(max_size=2048), some.integers(0, 5000))
def test_no_head_is_too_strange(data, offset):
    found = claims.of(bytes(offset) + data)
    assert found is None or all(one.end >= 0 for one in found)
