# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Spoiled images by the thousand: the verdict is reached in bounds, and qemu-img agrees with what may come in."""

from __future__ import annotations

import collections
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import headers, intake
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import disk_images
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.disk_images import KINDS, Spoiler

from .counts import SEED, SOAK, tell

PARTS = 8 if SOAK else 1
INPUTS = 12_500 if SOAK else 5_000  # in each part
ASKED = 500 if SOAK else 60
MOST_READS, MOST_SECONDS = 32, 0.25

# Errors of qemu-img for what may come in here, each shown by ONLY_QEMU_REFUSES in the unit tests of headers.py:
# damage in tables, checksums and keys beyond the headers. Nothing else may differ.
EXPLAINED = {
    "vpc": "free_data_block_offset points after the end of file",
    "vhdx": "Invalid argument|No valid VHDX header found",
    "vmdk": "Invalid argument",
    "qcow2": "napshot",  # of the entries of its snapshot table
    "luks in qcow2": "",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return disk_images.make(tmp_path_factory.mktemp("images"))


@pytest.fixture
def spoilers(made: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, Spoiler]]:
    images = {name: Spoiler(path, tmp_path) for name, path in made.items() if not name.startswith("vmdk-2g")}
    yield images
    for image in images.values():
        image.close()


class Reads:
    """os.pread, counted."""

    def __init__(self) -> None:
        self.real, self.calls, self.bytes = os.pread, 0, 0

    def __call__(self, descriptor: int, length: int, offset: int) -> bytes:
        self.calls += 1
        self.bytes += length
        return self.real(descriptor, length, offset)


def judged(image: Spoiler, declared: str | None, reads: Reads) -> tuple[headers.Inspected, list[intake.Refusal]]:
    """The verdict, which takes few reads and little time, and never an exception."""
    reads.calls = reads.bytes = 0
    before = time.process_time()
    found = headers.inspect(image.fd, declared)
    refused = intake.refusals(found, declared)
    assert time.process_time() - before < MOST_SECONDS
    assert reads.calls <= MOST_READS and reads.bytes <= headers.MOST_READ
    for refusal in refused:
        assert refusal.code and refusal.reason.isprintable() and refusal.way_out
    return found, refused


@pytest.mark.parametrize("part", range(PARTS))
def test_spoiled_headers(
    part: int, spoilers: dict[str, Spoiler], monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    chance, reads = random.Random(SEED + part), Reads()
    monkeypatch.setattr(headers.os, "pread", reads)
    verdicts: collections.Counter[str] = collections.Counter()
    accepted = 0
    for number in range(INPUTS):
        name = chance.choice(list(spoilers))
        image, declared = spoilers[name], chance.choice([KINDS[name].format] * 4 + ["raw", None])
        image.spoil(chance)
        found, refused = judged(image, declared, reads)
        verdicts[refused[0].code if refused else "accepted"] += 1
        if not refused and found.format != "raw" and accepted * INPUTS < number * ASKED:
            accepted += 1
            agrees(image, found, f"input {number} of part {part} of seed {SEED}: {name} spoiled at {image.touched}")
        image.mend()
    tell(pytestconfig, f"headers, part {part}: {INPUTS} spoiled, {accepted} asked of qemu-img, {dict(verdicts)}")
    assert accepted >= ASKED * 0.9
    assert set(verdicts) >= CODES


# Every verdict is reached: a mutation that never gets to a check proves nothing of it.
CODES = {"accepted", "backing_file", "bad_header", "bad_table", "data_file", "encryption", "external_extents"}
CODES |= {"format_mismatch", "log", "several_formats", "truncated", "unknown_features", "unsupported_format"}
if SOAK:
    CODES |= {"corrupt", "empty", "too_large"}


def agrees(image: Spoiler, found: headers.Inspected, which: str) -> None:
    """What may come in does not crash qemu-img, has the size it says, and no other file; or it is explained."""
    told = disk_images.ask_qemu(str(image.path), found.format)
    if told.status:
        assert told.status == 1, f"{which}: qemu-img crashed, {told}"
        key = "luks in qcow2" if found.encrypted else found.format
        assert key in EXPLAINED and re.search(EXPLAINED[key], told.words), f"{which}: {told}"
        return
    assert (told.size, told.others) == (found.virtual_size, []), which


def test_a_block_device(loop_device: Callable[..., Any], made: dict[str, Path]) -> None:
    """Its size is told without moving the offset that others may share."""
    device = loop_device(64 << 20)
    for name in ("qcow2", "vpc-fixed"):
        with open(device.device, "r+b", buffering=0) as disk:
            disk.write(bytes(64 << 20))
            data = made[name].read_bytes()
            # the footer of a fixed VHD is looked for where the device ends
            os.pwrite(disk.fileno(), data, (64 << 20) - len(data) if name == "vpc-fixed" else 0)
            os.lseek(disk.fileno(), 512, os.SEEK_SET)
            found = headers.inspect(disk.fileno())
            assert (found.format, found.size) == (KINDS[name].format, 64 << 20)
            assert os.lseek(disk.fileno(), 0, os.SEEK_CUR) == 512
