# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What zfs answers, and what follows from it for a start, a build and a removal."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands
from ansible_collections.kvm.storage.plugins.module_utils.backends import zfs
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

MISSING = (1, "", "cannot open 'tank': dataset does not exist\n")
BROKEN = (1, "", "The ZFS modules cannot be auto-loaded.\n")
TANK = {"source_name": "tank"}


@pytest.fixture
def answers(monkeypatch):
    """What zfs says to a command that begins with the words of a key."""
    said = {}

    def run_command(argv, **options):
        line = " ".join(argv)
        answer = next((said[key] for key in sorted(said, key=len, reverse=True) if key in line), (0, "", ""))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(commands, "runner", run_command)
    return said


@pytest.mark.parametrize(
    ("answer", "options", "devices_blank", "blank"),
    [
        ((0, "tank\n", ""), {}, True, False),
        (MISSING, {"devices": ["/dev/x"]}, True, True),
        (MISSING, {"devices": ["/dev/x"]}, False, False),
        (MISSING, {"devices": ["/dev/x"]}, None, None),
        (MISSING, {"source_name": "tank/vms", "devices": ["/dev/x"]}, False, True),
        (BROKEN, {"devices": ["/dev/x"]}, True, None),
        (FileNotFoundError("zfs"), {"devices": ["/dev/x"]}, True, None),
    ],
)
def test_blank(answers, monkeypatch, answer, options, devices_blank, blank):
    answers["list"] = answer
    monkeypatch.setattr(zfs, "blank_devices", lambda devices: devices_blank)
    assert zfs.blank({**TANK, **options}) is blank


@pytest.mark.parametrize(
    ("found", "there", "words"),
    [
        ((0, "tank\tfilesystem\n", ""), "", None),
        (BROKEN, "", None),
        (MISSING, "old\nold/vms\n", ["'tank'", "'old', 'old/vms'"]),
        (MISSING, "", ["none at all"]),
        (MISSING, "".join(f"p{n}\n" for n in range(7)), ["'p4' and 2 more"]),
        ((0, "tank/web\tvolume\n", ""), "", ["is a volume"]),
    ],
)
def test_preflight(answers, found, there, words):
    answers.update({"name,type tank": found, "-t filesystem": (0, there, "")})
    if words is None:
        assert zfs.preflight("pool", TANK, 1) == []
        return
    with pytest.raises(StorageError) as error:
        zfs.preflight("pool", TANK, 1)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("lines", "objects", "devices", "others"),
    [
        ("tank\tfilesystem\n", "1\n", [], []),
        ("tank\tfilesystem\ntank/a\tvolume\n", "1\n", ["/dev/zvol/tank/a"], []),
        ("tank\tfilesystem\n", "1\n2\n", [], ["files in tank"]),
        ("tank\tfilesystem\ntank@s\tsnapshot\n", "1\n", [], ["snapshot tank@s"]),
        (
            "tank\tfilesystem\ntank/d\tfilesystem\ntank/d/a\tvolume\n",
            "1\n",
            ["/dev/zvol/tank/d/a"],
            ["filesystem tank/d", "volume tank/d/a"],
        ),
    ],
)
def test_destroys(answers, lines, objects, devices, others):
    answers.update({"-t all": (0, lines, ""), "userspace": (0, objects, "")})
    assert zfs.destroys("pool", TANK) == (devices, others)


@pytest.mark.parametrize("broken", ["-t all", "userspace"])
def test_what_cant_be_seen_is_not_destroyed(answers, broken):
    answers.update({"-t all": (0, "tank\tfilesystem\n", ""), "userspace": (0, "1\n", ""), broken: BROKEN})
    with pytest.raises(StorageError) as error:
        zfs.destroys("pool", TANK)
    assert error.value.code == "guard_unavailable"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((0, "", ""), None, ""),
        ((0, "tank/a@s\t-\n", ""), "has_overlays", "tank/a@s"),
        ((0, "tank/a@s\ttank/b\n", ""), "has_overlays", "tank/a@s (cloned as tank/b)"),
        (MISSING, "not_a_volume", "tank/a"),
        (BROKEN, "guard_unavailable", "auto-loaded"),
    ],
)
def test_deletes(answers, answer, code, words):
    answers["-t snapshot"] = answer
    if code is None:
        zfs.deletes("volume", TANK, "a")
        return
    with pytest.raises(StorageError) as error:
        zfs.deletes("volume", TANK, "a")
    assert (error.value.code, words in str(error.value)) == (code, True)
