# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdicts beside those of OpenStack's format inspector, an independent reading of the same formats."""

from __future__ import annotations

import logging
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import headers, intake
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import disk_images
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.disk_images import KINDS, Spoiler

from .counts import SEED, SOAK, tell

inspector = pytest.importorskip("oslo_utils.imageutils.format_inspector", reason="oslo.utils is not installed")

SPOILED = 3_000 if SOAK else 200
NAMES = {"vhd": "vpc", "iso": "raw", "gpt": "raw"}
# The inspector reads an image to its end.
SMALL = ["qcow2", "qcow2-small-clusters", "qcow2-all", "qcow2-luks", "vpc", "vpc-by-size", "vpc-large", "vdi"]
SMALL += ["vmdk", "vmdk-stream", "vhdx"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Spoiler]]:
    folder = tmp_path_factory.mktemp("images")
    images = {name: Spoiler(path, folder) for name, path in disk_images.make(folder).items()}
    logging.disable(logging.CRITICAL)
    yield images
    logging.disable(logging.NOTSET)
    for image in images.values():
        image.close()


@pytest.fixture
def spoilers(copies: dict[str, Spoiler]) -> Iterator[dict[str, Spoiler]]:
    yield copies
    for image in copies.values():
        if image.touched:
            image.mend()


def theirs(image: Spoiler) -> tuple[str, int, str]:
    """The inspector's format, virtual size and objection."""
    size = 0
    try:
        found = inspector.detect_file_format(str(image.path))
        size = found.virtual_size
        found.safety_check()
    except inspector.SafetyCheckFailed as error:
        return NAMES.get(str(found), str(found)), size, " ".join(map(str, error.failures.values()))
    except (inspector.ImageFormatError, AttributeError) as error:
        return "", 0, str(error) or "?"
    return NAMES.get(str(found), str(found)), size, ""


def ours(image: Spoiler, declared: str) -> tuple[headers.Inspected, list[str]]:
    found = headers.inspect(image.fd, declared)
    return found, [refusal.code for refusal in intake.refusals(found, declared)]


AGREED = [name for name in disk_images.ACCEPTED if name not in ("qcow2-all", "vpc-fixed", "luks", "raw")]


@pytest.mark.parametrize("name", AGREED)
def test_both_accept(spoilers: dict[str, Spoiler], name: str) -> None:
    found, refused = ours(spoilers[name], KINDS[name].format)
    assert (found.format, found.virtual_size, "") == theirs(spoilers[name])
    assert not refused


@pytest.mark.parametrize(
    "name", ["qcow2-backing", "qcow2-data-file", "qed", "qed-backing", "vmdk-flat", "vmdk-2g-sparse", "vmdk-2g-flat"]
)
def test_both_refuse(spoilers: dict[str, Spoiler], name: str) -> None:
    assert ours(spoilers[name], KINDS[name].format)[1]
    assert theirs(spoilers[name])[2]


# Every way in which the two differ: an image, how it is spoiled, our codes, and the inspector's format and objection.
DIFFERENT: dict[str, tuple[str, tuple[int, str, Any] | None, list[str], str, str]] = {
    # what it refuses and we accept
    "it does not know extended_l2, which QEMU does since 5.2": ("qcow2-all", None, [], "qcow2", "Unknown QCOW2"),
    "it takes a descriptor for none if a byte of it is not ASCII": ("vmdk", (745, "B", 255), [], "vmdk", "No descr"),
    "it refuses any line of a descriptor that it does not know": (
        "vmdk",
        (541, "1s", b"X"),
        [],
        "vmdk",
        "Invalid VMDK",
    ),
    "it wants nothing behind the end of a stream": ("vmdk-stream", (-24, "B", 1), [], "vmdk", "End-of-stream"),
    "it wants nothing behind the marker of a footer": ("vmdk-stream", (-1100, "B", 1), [], "vmdk", "Footer marker"),
    # what it accepts and we refuse
    "it does not look for a parent of a VMDK": ("vmdk-backing", None, ["backing_file"], "vmdk", ""),
    "it has no objection to AES": ("qcow2-aes", None, ["encryption"], "qcow2", ""),
    "LUKS without its header crashes qemu-img 7.2": ("qcow2", (32, ">I", 2), ["encryption"], "qcow2", ""),
    "it looks at no table": ("qcow2", (40, ">Q", 2**62), ["bad_table"], "qcow2", ""),
    "it looks at no cluster size": ("qcow2", (20, ">I", 31), ["bad_header"], "qcow2", ""),
    "it has no largest size": ("vhdx", (3 << 20 | 65536 + 8, "<Q", 2**50), ["bad_header", "too_large"], "vhdx", ""),
    "it does not know the corrupt bit": ("qcow2", (72, ">Q", 2), ["corrupt"], "qcow2", ""),
    "it looks for no parent of a VHDX": ("vhdx", (3 << 20 | 65536 + 4, "<I", 2), ["backing_file"], "vhdx", ""),
    "it looks for no log of a VHDX": ("vhdx", (65536 + 48, "<I", 1), ["log"], "vhdx", ""),
    "it compares the footers of no VHD": ("vpc", (-448, ">I", 1), ["truncated"], "vpc", ""),
    "it knows no Parallels": ("parallels", None, ["unsupported_format"], "raw", ""),
    # what it calls otherwise
    "it does not look for a footer at the end": ("vpc-fixed", None, [], "raw", ""),
    "LUKS is a format to it, and a raw disk's content to us": ("luks", None, [], "luks", ""),
}


@pytest.mark.parametrize("why", DIFFERENT)
def test_they_differ(spoilers: dict[str, Spoiler], why: str) -> None:
    name, change, codes, form, objection = DIFFERENT[why]
    image = spoilers[name]
    if change:
        offset, layout, value = change
        image.write(offset if offset >= 0 else image.size + offset, struct.pack(layout, value))
    assert ours(image, KINDS[name].format)[1] == codes
    format_there, _size, objected = theirs(image)
    assert (format_there, objected[: len(objection)]) == (form, objection)
    assert bool(objected) == bool(objection)


def sectors(size: int) -> int:
    return -(-size // 512) * 512


def test_a_vdi_is_rounded_up_to_sectors(spoilers: dict[str, Spoiler]) -> None:
    """As QEMU does it; the inspector tells the number in the header."""
    image = spoilers["vdi"]
    image.write(368, struct.pack("<Q", 1000))
    told = disk_images.ask_qemu(str(image.path), "vdi")
    assert (ours(image, "vdi")[0].virtual_size, theirs(image)[1], told.size) == (1024, 1000, 1024)


# those of the first five above
OBJECTIONS = "Unknown QCOW2 features|No descriptor|Invalid VMDK|End-of-stream|Footer marker"


def test_spoiled_headers(spoilers: dict[str, Spoiler], pytestconfig: pytest.Config) -> None:
    """What may come in and the inspector objects to is of a kind named above; the sizes are the same."""
    chance, agreed = random.Random(SEED), 0
    for number in range(SPOILED):
        name = chance.choice(SMALL)
        image = spoilers[name]
        image.spoil(chance)
        found, refused = ours(image, KINDS[name].format)
        if not refused:
            form, size, objected = theirs(image)
            which = f"input {number} of seed {SEED}: {name} spoiled at {image.touched}, {found}: {objected}"
            if objected:
                assert re.match(OBJECTIONS, objected), which
            else:
                assert (form, sectors(size)) == (found.format, found.virtual_size), which
                agreed += 1
        image.mend()
    tell(pytestconfig, f"headers beside oslo.utils: {SPOILED} spoiled, {agreed} accepted by both")
    assert agreed > SPOILED / 5
