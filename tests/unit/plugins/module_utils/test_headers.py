# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Headers as qemu-img writes and reads them, and each of their fields spoiled."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import json
import lzma
import os
import random
import re
import struct
import subprocess

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import headers, intake
from ansible_collections.kvm.storage.plugins.module_utils.headers import Backing, inspect
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import disk_images
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.disk_images import (
    KIB,
    KINDS,
    MIB,
    Spoiler,
    ask_qemu,
)

SEED = 20260101
MOST_READS = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return disk_images.make(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def spoilers(made, tmp_path_factory):
    """A copy of each image, made when it is first asked for."""
    folder, copies = tmp_path_factory.mktemp("spoiled"), {}

    def copy(name):
        if name not in copies:
            copies[name] = Spoiler(made[name], folder)
        copies[name].mend()
        return copies[name]

    yield copy
    for one in copies.values():
        one.close()


@contextlib.contextmanager
def opened(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def looked_at(path, declared=None):
    with opened(path) as descriptor:
        return inspect(descriptor, declared)


def codes(found, declared=None):
    return [refusal.code for refusal in intake.refusals(found, declared)]


# What qemu-img makes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_what_qemu_makes(made, name):
    """The format by the header alone, the verdict, and qemu-img's own words on the same file."""
    kind = KINDS[name]
    found = looked_at(made[name], kind.format)
    assert found.format == kind.format
    assert codes(found, kind.format) == ([kind.refused] if kind.refused else [])
    assert looked_at(made[name]).format == ("luks" if name == "luks" else kind.format)
    told = ask_qemu(str(made[name]), kind.format)
    assert told.status == 0
    assert found.virtual_size == (told.size if kind.format != "parallels" else None)
    assert (found.backing or found.data_file or found.extents) if told.others else not found.backing


@pytest.mark.parametrize("name", [name for name in disk_images.ACCEPTED if KINDS[name].format != "raw"])
def test_clusters_and_features(made, name):
    asked = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", KINDS[name].format, made[name]], stdout=subprocess.PIPE, check=True
    )
    info, found = json.loads(asked.stdout), looked_at(made[name])
    if "cluster-size" in info:
        assert 1 << found.cluster_bits == info["cluster-size"]
    data = info.get("format-specific", {}).get("data", {})
    if found.format == "qcow2":
        assert {"0.10": 2, "1.1": 3}[data["compat"]] == found.version
        assert data.get("extended-l2", False) == ("extended_l2" in found.features)
        assert data.get("lazy-refcounts", False) == ("lazy_refcounts" in found.features)
        assert (data["compression-type"] == "zstd") == ("compression_type" in found.features)
        assert bool(data.get("encrypt")) == (found.encrypted == "luks")
    if found.format == "vmdk":
        assert data["create-type"] == found.variant
    assert found.allocated_end <= found.size


@pytest.mark.parametrize(
    ("name", "what", "value"),
    [
        ("qcow2-backing", "backing", "{folder}/raw raw"),
        ("qed-backing", "backing", "{folder}/raw raw"),
        ("vmdk-backing", "backing", "{folder}/vmdk None"),
        ("qcow2-data-file", "data_file", "{folder}/data.raw"),
        ("vmdk-flat", "extents", "vmdk-flat-flat"),
        ("vmdk-2g-sparse", "extents", "vmdk-2g-sparse-s001 vmdk-2g-sparse-s002 vmdk-2g-sparse-s003"),
        ("vmdk-2g-flat", "extents", "vmdk-2g-flat-f001 vmdk-2g-flat-f002 vmdk-2g-flat-f003"),
    ],
)
def test_names_of_other_files(made, name, what, value):
    said = getattr(looked_at(made[name]), what)
    if isinstance(said, Backing):
        said = f"{said.name} {said.format}"
    elif isinstance(said, tuple):
        said = " ".join(said)
    assert said == value.format(folder=made[name].parent)


def test_snapshots_and_bitmaps(made, tmp_path):
    image = tmp_path / "image"
    image.write_bytes(made["qcow2"].read_bytes())
    subprocess.run(["qemu-img", "snapshot", "-c", "one", image], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", image, "b"], check=True)
    found = looked_at(image)
    assert (found.snapshots, found.features, codes(found, "qcow2")) == (1, ("bitmaps",), [])
    assert [note.code for note in found.notes] == ["snapshots"]


# Each field spoiled ------------------------------------------------------------------------------------------------

NAME = b"/etc/shadow"
EXTENSION = ">II16s"
QCOW2 = [
    (0, "4s", b"QFI\xfa", "format_mismatch"),
    (4, ">I", 0, "bad_header"),
    (4, ">I", 1, "format_mismatch"),
    (4, ">I", 4, "bad_header"),
    (4, ">I", 2**32 - 1, "bad_header"),
    (8, ">QI", (200, len(NAME)), "backing_file"),
    (8, ">QI", (2**40, 5), "bad_header"),
    (8, ">QI", (2**63, 5), "bad_header"),
    (8, ">QI", (200, 0), "bad_header"),
    (8, ">QI", (200, 1024), "bad_header"),
    (8, ">QI", (65530, 7), "bad_header"),
    (8, ">QI", (200, 2**32 - 1), "bad_header"),
    *((20, ">I", bits, "bad_header") for bits in (0, 8, 22, 31, 63, 64, 2**32 - 1)),
    (24, ">Q", 0, "empty"),
    (24, ">Q", 64 * disk_images.TIB + 512, "too_large"),
    (24, ">Q", 2**50, "bad_header"),
    (24, ">Q", 10 * MIB + 1, "bad_header"),  # QEMU would drop the last byte
    (24, ">Q", 2**63 - 512, "too_large"),
    (32, ">I", 1, "encryption"),
    (32, ">I", 2, "encryption"),  # crashes qemu-img 7.2
    (32, ">I", 3, "encryption"),
    (36, ">I", 0, "bad_header"),
    (36, ">I", 2**22 + 1, "bad_table"),
    (36, ">I", 2**32 - 1, "bad_table"),
    (40, ">Q", 0, "bad_table"),
    (40, ">Q", 512, "bad_table"),
    (40, ">Q", 2**40, "bad_table"),
    (40, ">Q", 2**63, "bad_table"),
    (48, ">Q", 0, "bad_table"),
    (48, ">Q", 512, "bad_table"),
    (48, ">Q", 2**40, "bad_table"),
    (56, ">I", 0, "bad_header"),
    (56, ">I", 129, "bad_table"),
    (56, ">I", 2**32 - 1, "bad_table"),
    (60, ">I", 1, "bad_table"),
    (60, ">IQ", (1, 2**40), "bad_table"),
    (60, ">IQ", (65537, 65536), "bad_table"),
    (60, ">IQ", (2**32 - 1, 65536), "bad_table"),
    (60, ">IQ", (1, 77), "bad_table"),
    (64, ">Q", 77, "bad_table"),
    (72, ">Q", 1, ""),
    (72, ">Q", 2, "corrupt"),
    (72, ">Q", 4, "data_file"),
    (72, ">Q", 8, "bad_header"),
    (72, ">Q", 32, "unknown_features"),
    (72, ">Q", 2**63, "unknown_features"),
    (80, ">Q", 2**63, ""),
    (88, ">Q", 2**63, ""),
    (96, ">I", 7, "bad_header"),
    (96, ">I", 2**32 - 1, "bad_header"),
    *((100, ">I", length, "bad_header") for length in (0, 72, 103, 105, 65544, 2**31, 2**32 - 1)),
    (104, ">B", 1, "bad_header"),
    (104, ">B", 2, "bad_header"),
    (112, EXTENSION, (headers.DATA_FILE_NAME, 11, NAME), "data_file"),
    (112, EXTENSION, (headers.BACKING_FORMAT, 16, b"x" * 16), "bad_header"),
    (112, EXTENSION, (headers.CRYPTO, 16, b""), "encryption"),
    (112, EXTENSION, (0x12345678, 65536, b""), "bad_header"),
    (112, EXTENSION, (0x12345678, 2**32 - 1, b""), "bad_header"),
    (112, ">II8sII", (headers.BITMAPS, 8, b"", headers.BITMAPS, 8), "bad_header"),
    (88, ">QII8xII24x", (1, 4, 112, headers.BITMAPS, 24), "bad_header"),
]
QCOW2_LUKS = [
    (32, ">I", 0, "encryption"),
    (116, ">I", 8, "encryption"),
    (120, ">Q", 1, "encryption"),
    (120, ">Q", 65536, "encryption"),
    (120, ">Q", 2**63, "bad_table"),
    (128, ">Q", 2**40, "bad_table"),
    (256 * KIB, "4s", b"SKUL", "encryption"),
]
QCOW2_V2 = [(8, ">QI", (300, 5), "backing_file"), (72, ">II", (headers.DATA_FILE_NAME, 4), "data_file")]
VDI = [
    (64, "<I", 0, "format_mismatch"),
    (68, "<I", 0x10002, "bad_header"),
    (76, "<I", 0, "bad_header"),
    (76, "<I", 3, "bad_header"),
    (76, "<I", 4, "backing_file"),
    (340, "<I", 513, "bad_table"),
    (340, "<I", 0xFFFFFE00, "bad_table"),
    (344, "<I", 1, "bad_header"),
    (360, "<I", 4096, "bad_header"),
    (368, "<Q", 0, "empty"),
    (368, "<Q", 2**60, "bad_header"),
    (368, "<Q", 2**64 - 1, "too_large"),
    (376, "<I", 0, "bad_header"),
    (376, "<I", 2**31, "bad_header"),
    (380, "<I", 512, "bad_header"),
    (384, "<I", 0, "bad_header"),
    (384, "<I", 2**32 - 1, "bad_table"),
    (388, "<I", 2**32 - 1, "bad_header"),
    (424, "<I", 1, "backing_file"),
    (440, "16s", b"\1" * 16, "backing_file"),
]
# Of a VHD both footers and both checksums are made to fit, unless the offset is negative.
VPC = [
    (0, "8s", b"connectx", "format_mismatch"),
    (16, ">Q", 2**40, "truncated"),
    (16, ">Q", 2**64 - 1, "truncated"),
    (16, ">Q", 1024, "bad_header"),
    (48, ">QHBB", (2**50, 65535, 16, 255), "too_large"),
    (48, ">QHBB", (3 * disk_images.TIB, 65535, 16, 255), "bad_header"),
    (56, ">HBB", (0, 0, 0), "empty"),
    (56, ">HBB", (65535, 255, 255), "bad_header"),
    (60, ">I", 0, "bad_header"),
    (60, ">I", 2, "bad_header"),
    (60, ">I", 4, "backing_file"),
    (512, "8s", b"cxsparsX", "bad_header"),
    (528, ">Q", 2**40, "bad_table"),
    (528, ">Q", 2**64 - 1, "bad_table"),
    (540, ">I", 0, "bad_header"),
    (540, ">I", 2**32 - 1, "bad_table"),
    (544, ">I", 0, "bad_header"),
    (544, ">I", 3, "bad_header"),
    (544, ">I", 2**31, "bad_header"),
    (552, "16s", b"\1" * 16, "backing_file"),
    (576, "20s", "../base.vhd".encode("utf-16-be"), "backing_file"),
    (1088, ">4sII", (b"W2ru", 512, 40), "backing_file"),
    (-512, "8s", b"connectx", "truncated"),
    (-464, ">Q", 77, "truncated"),
    (-448, ">I", 77, "truncated"),
]
VPC_FIXED = [
    (-456, ">HBB", (1000, 16, 255), "truncated"),
    (-452, ">I", 3, "bad_header"),
    (-448, ">I", 1, "bad_header"),
]
# Of a VHDX both region tables are changed; METADATA is where qemu-img puts them.
HEADER, REGIONS, METADATA = 64 * KIB, 192 * KIB, 3 * MIB
ITEMS = METADATA + 64 * KIB
VHDX = [
    (0, "8s", b"vhdxfilX", "format_mismatch"),
    (HEADER + 48, "<I", 1, "log"),
    (2 * HEADER + 63, "<B", 1, "log"),
    (REGIONS, "4s", b"regX", "bad_header"),
    (-256 * KIB, "4s", b"regX", "bad_header"),
    (-256 * KIB - 32, "<Q", 5 * MIB, "bad_header"),
    (REGIONS + 8, "<I", 0, "bad_header"),
    (REGIONS + 8, "<I", 2**32 - 1, "bad_header"),
    (REGIONS + 8, "<I68x16sQII", (3, b"x" * 16, 4 * MIB, MIB, 1), "unknown_features"),
    (REGIONS + 16, "16s", b"x" * 16, "bad_header"),
    (REGIONS + 48, "16s", headers.BAT, "bad_header"),
    (REGIONS + 32, "<Q", 0, "bad_header"),
    (REGIONS + 32, "<Q", 2 * MIB + 512, "bad_table"),
    (REGIONS + 32, "<Q", 2**50, "bad_table"),
    (REGIONS + 40, "<I", 2**32 - 1, "bad_table"),
    (REGIONS + 64, "<Q", 2**63, "bad_header"),
    (METADATA, "8s", b"metadatX", "bad_header"),
    (METADATA + 10, "<H", 0, "bad_header"),
    (METADATA + 10, "<H", 65535, "bad_header"),
    (METADATA + 32, "16s", headers.PARENT_LOCATOR, "backing_file"),
    (METADATA + 32, "16s", headers.PAGE_83, "bad_header"),
    (METADATA + 32, "16s8xI", (b"x" * 16, 4), "unknown_features"),
    (METADATA + 48, "<I", 2**31, "bad_header"),
    (METADATA + 52, "<I", 2**32 - 1, "bad_header"),
    (ITEMS, "<I", 0, "bad_header"),
    (ITEMS, "<I", 3 * MIB, "bad_header"),
    (ITEMS, "<I", 2**31, "bad_header"),
    (ITEMS + 4, "<I", 2, "backing_file"),
    (ITEMS + 8, "<Q", 0, "empty"),
    (ITEMS + 8, "<Q", 10 * MIB + 1, "bad_header"),
    (ITEMS + 8, "<Q", 2**62, "too_large"),
    (ITEMS + 8, "<Q", 2 * disk_images.TIB, "bad_header"),
    (ITEMS + 32, "<I", 520, "bad_header"),
]
VMDK = [
    (0, "4s", b"KDMX", "format_mismatch"),
    (0, "4s", b"COWD", "external_extents"),
    (4, "<I", 0, "bad_header"),
    (4, "<I", 4, "bad_header"),
    (12, "<Q", 0, "empty"),
    (12, "<Q", 2**50, "too_large"),
    (12, "<Q", 2**36, "bad_table"),
    (12, "<Q", 2**64 - 1, "bad_table"),
    (20, "<Q", 0, "bad_header"),
    (20, "<Q", 3, "bad_header"),
    (20, "<Q", 2**22, "bad_header"),
    (20, "<Q", 2**64 - 1, "bad_header"),
    (28, "<Q", 0, "external_extents"),
    (28, "<Q", 2, "bad_header"),
    (36, "<Q", 2**50, "bad_header"),
    (44, "<I", 0, "bad_header"),
    (44, "<I", 513, "bad_header"),
    (48, "<Q", 2**50, "bad_table"),
    (56, "<Q", 2**50, "bad_table"),
    (56, "<Q", 2**64 - 1, "truncated"),
    (64, "<Q", 2**50, "truncated"),
    (72, "<B", 1, ""),
]
VMDK_STREAM = [
    (-1536, "<QII", (1, 0, 0), "truncated"),
    (-1024, "4s", b"KDMX", "truncated"),
    (-1012, "<Q", 77, "bad_header"),
    (-1024 + 56, "<Q", 2**64 - 1, "bad_header"),
    (-512, "<Q", 1, "truncated"),
]
FIELDS = [
    (kind, *row)
    for kind, rows in (
        ("qcow2", QCOW2),
        ("qcow2-luks", QCOW2_LUKS),
        ("qcow2-v2", QCOW2_V2),
        ("vdi", VDI),
        ("vpc", VPC),
        ("vpc-fixed", VPC_FIXED),
        ("vhdx", VHDX),
        ("vmdk", VMDK),
        ("vmdk-stream", VMDK_STREAM),
    )
    for row in rows
]


def spoil(image, kind, offset, form, value):
    """Write a field; copies and checksums of it are made to fit, so that it is the field that is refused."""
    data = struct.pack(form, *(value if isinstance(value, tuple) else (value,)))
    if kind == "vhdx":
        image.write(abs(offset), data)
        if REGIONS <= offset < METADATA:
            image.write(offset + 64 * KIB, data)
        return
    image.write(offset if offset >= 0 else image.size + offset, data)
    if kind == "vpc" and offset >= 0:
        seal(image, 0, 512, 64)
        seal(image, 512, 1024, 36)
        image.write(image.size - 512, os.pread(image.fd, 512, 0))
    elif kind == "vpc-fixed" and offset < -448:
        seal(image, image.size - 512, 512, 64)


def seal(image, start, length, at):
    """Write the checksum of a VHD's header."""
    data = os.pread(image.fd, length, start)
    total = sum(data[:at]) + sum(data[at + 4 :])
    image.write(start + at, struct.pack(">I", ~total & 0xFFFFFFFF))


@pytest.mark.parametrize(("kind", "offset", "form", "value", "code"), FIELDS)
def test_field(spoilers, kind, offset, form, value, code):
    image = spoilers(kind)
    declared = KINDS[kind].format
    spoil(image, kind, offset, form, value)
    refused = codes(inspect(image.fd, declared), declared)
    assert (code in refused) if code else not refused, refused
    if not refused:
        told = ask_qemu(str(image.path), declared)
        assert (told.status, told.size) == (0, inspect(image.fd).virtual_size)


DESCRIPTORS = [
    (b'createType="monolithicSparse"', b'createType="custom"', "external_extents"),
    (b'createType="monolithicSparse"', b'createType="twoGbMaxExtentSparse"', "external_extents"),
    (b'createType="monolithicSparse"', b"", "external_extents"),
    (b"parentCID=ffffffff", b"parentCID=fffffffe", "backing_file"),
    (b"parentCID=ffffffff", b'parentCID=ffffffff\nparentFileNameHint="/etc/shadow"', "backing_file"),
    (b"parentCID=ffffffff", b"parentCID=ffffffff\n# parentFileNameHint", "backing_file"),
    (b"parentCID=ffffffff", b'parentCID=ffffffff\nPARENTFILENAMEHINT = "nbd://h/x"', "backing_file"),
    (b'SPARSE "vmdk"', b'FLAT "vmdk" 0', "external_extents"),
    (b'SPARSE "vmdk"', b'SPARSE "/etc/shadow"', "external_extents"),
    (b'SPARSE "vmdk"', b'SPARSE "..\\\\other"', "external_extents"),
    (b'SPARSE "vmdk"', b'SPARSE "nbd:h:1"', "external_extents"),
    (b'SPARSE "vmdk"', b'SPARSE "vmdk"\nRW 1 FLAT "/etc/shadow" 0', "external_extents"),
    (b'SPARSE "vmdk"', b'SPARSE "vmdk"\nrdonly\n1 VMFSRDM "sda"', "external_extents"),
    (b"RW 20480 ", b"RX 20480 ", "external_extents"),
    (b"RW 20480 ", b"RDONLY 20480 ", ""),
    (b"version=1", b"version=\0", "bad_header"),
    (b"# Extent", b'createType="monolithicFlat"\n# Extent', "external_extents"),
]


@pytest.mark.parametrize(("shown", "left", "code"), [(3, b"", ""), (6, b"", ""), (3, b"\nx", "bad_header")])
def test_what_qemu_leaves_of_a_longer_descriptor(spoilers, shown, left, code):
    """It writes another CID of fewer digits, a NUL at the end, and not over what stood behind that."""
    image = spoilers("vmdk")
    before = os.pread(image.fd, 20 * 512, 512)
    text = re.sub(rb"(?m)^CID=.*$", b"CID=12345678", before.rstrip(b"\0"))
    shorter = text.replace(b"CID=12345678", b"CID=12345678"[: 4 + shown]) + b"\0"
    image.write(512, (shorter + text[len(shorter) :] + left).ljust(20 * 512, b"\0"))
    assert codes(inspect(image.fd), "vmdk") == ([code] if code else [])


@pytest.mark.parametrize(("old", "new", "code"), DESCRIPTORS)
def test_descriptor_of_vmdk(spoilers, old, new, code):
    image = spoilers("vmdk")
    described = os.pread(image.fd, 20 * 512, 512)
    assert old in described
    image.write(512, described.replace(old, new)[: 20 * 512])
    assert codes(inspect(image.fd), "vmdk") == ([code] if code else [])


@pytest.mark.parametrize(
    "described",
    [
        b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n',
        b'version=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n',
        b'# anything\n \r\nversion=3\r\ncreateType="vmfs"\nRW 1 VMFS "/etc/shadow"\n',
        b'# disk descriptorfile\ncreateType="monolithicFlat"\nRW 1\nFLAT\n"/etc/shadow" 0\n',
    ],
)
def test_descriptor_alone(tmp_path, described):
    image = tmp_path / "image"
    image.write_bytes(described)
    found = looked_at(image)
    assert (found.format, found.extents) == ("vmdk", ("/etc/shadow",))
    assert codes(found, "vmdk") == ["external_extents"]
    assert codes(looked_at(image, "raw"), "raw") == ["format_mismatch"]


@pytest.mark.parametrize("kind", [name for name in disk_images.ACCEPTED if KINDS[name].format != "raw"])
@pytest.mark.parametrize("length", [0, 1, 4, 8, 50, 71, 103, 511, 1000])
def test_cut_short(spoilers, kind, length):
    """No part of an image may come in as one, nor pass for a raw disk."""
    image = spoilers(kind)
    os.ftruncate(image.fd, length)
    form = KINDS[kind].format
    assert codes(inspect(image.fd, form), form)
    if length >= 68 and kind != "vpc-fixed":
        assert codes(inspect(image.fd, "raw"), "raw")


# Several formats, and raw disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", ["first", "second", None])
@pytest.mark.parametrize(
    ("kind", "offset", "word", "second"),
    [
        ("qcow2", -512, b"conectix", "vpc"),
        ("qcow2", 64, b"\x7f\x10\xda\xbe", "vdi"),
        ("qcow2", 32769, b"CD001", "raw"),
        ("qcow2", 34817, b"CD001", "raw"),
        ("qcow2", -512, b"koly\0\0\0\4\0\0\2\0", "dmg"),
        ("vmdk", -512, b"conectix", "vpc"),
        ("vmdk-stream", 32769, b"CD001", "raw"),
        ("vhdx", 64, b"\x7f\x10\xda\xbe", "vdi"),
        ("vdi", 0, b"QFI\xfb\0\0\0\3", "qcow2"),
        ("vdi-static", 0, b"version=1\n", "vmdk"),
        ("vpc-fixed", 0, b"QFI\xfb\0\0\0\3", "qcow2"),
        ("vpc-fixed", 0, b"KDMV", "vmdk"),
        ("vpc", 32769, b"CD001", "raw"),
    ],
)
def test_several_formats(spoilers, kind, offset, word, second, declared):
    image = spoilers(kind)
    image.write(offset if offset >= 0 else image.size + offset, word)
    declared = {"first": KINDS[kind].format, "second": second}.get(declared)
    assert codes(inspect(image.fd, declared), declared) == ["several_formats"]


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (gzip.compress(b"x"), "gz"),
        (bz2.compress(b"x"), "bz2"),
        (bz2.compress(b""), "bz2"),
        (lzma.compress(b"x"), "xz"),
        (b"\x28\xb5\x2f\xfd\x04\x00\x09\x00\x00x", "zst"),
        (b"LUKS\xba\xbe\0\1".ljust(600, b"\0"), "luks"),
    ],
    ids=["gz", "bz2", "bz2 of nothing", "xz", "zst", "luks"],  # some have the time in them
)
def test_content_of_a_raw_disk(tmp_path, spoilers, data, content):
    """A raw disk may hold anything that has no format of its own; undeclared it is not guessed."""
    image = tmp_path / "image"
    image.write_bytes(data.ljust(1024, b"\0"))
    found = looked_at(image, "raw")
    assert (found.format, found.content, found.virtual_size, codes(found, "raw")) == ("raw", content, 1024, [])
    assert intake.notes(found, "raw")
    guessed = looked_at(image)
    assert guessed.compression == (content if content != "luks" else "")
    assert codes(guessed) == ["unsupported_format" if content == "luks" else "compressed"]
    assert codes(looked_at(image, "qcow2"), "qcow2") == ["format_mismatch"]
    fixed = spoilers("vpc-fixed")  # the same disk with a footer
    fixed.write(0, data)
    assert codes(inspect(fixed.fd, "vpc"), "vpc") == []
    assert codes(inspect(fixed.fd, "raw"), "raw") == ["format_mismatch"]


def test_an_iso_image_is_a_raw_disk(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(32768) + b"\1CD001\1".ljust(2048, b"\0"))
    for declared in ("raw", None):
        found = looked_at(image, declared)
        assert (found.format, found.content, codes(found, declared)) == ("raw", "iso9660", [])


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"OOOM\0\0\0\2/etc/shadow", "cow"),
        (b"Bochs Virtual HD Image", "bochs"),
        (headers.CLOOP + b" file=$0", "cloop"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
    ],
)
def test_formats_that_are_not_taken(tmp_path, head, form):
    image = tmp_path / "image"
    image.write_bytes(head.ljust(4096, b"\0"))
    found = looked_at(image)
    assert (found.format, codes(found)[0]) == (form, "unsupported_format")
    assert codes(looked_at(image, "raw"), "raw") == ["format_mismatch"]
    assert (found.backing is not None) == (form == "cow")


# Reading -----------------------------------------------------------------------------------------------------------


class Counted:
    """os.pread, counted."""

    def __init__(self, monkeypatch):
        self.calls, self.bytes, self.real = 0, 0, os.pread
        monkeypatch.setattr(headers.os, "pread", self)

    def __call__(self, descriptor, length, offset):
        self.calls += 1
        self.bytes += length
        return self.real(descriptor, length, offset)


@pytest.mark.parametrize("kind", KINDS)
def test_reads_little_and_moves_nothing(made, monkeypatch, kind):
    with opened(made[kind]) as descriptor:
        os.lseek(descriptor, 77, os.SEEK_SET)
        reads = Counted(monkeypatch)
        inspect(descriptor)
        assert reads.calls <= MOST_READS and 0 < reads.bytes <= headers.MOST_READ
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 77


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/null"):
        assert codes(looked_at(path), None) == ["not_a_file", "empty"] or codes(looked_at(path)) == ["not_a_file"]


def test_what_can_not_be_read(made, monkeypatch):
    def fails(descriptor, length, offset):
        raise OSError(errno.EIO, "Input/output error")

    with opened(made["qcow2"]) as descriptor:
        monkeypatch.setattr(headers.os, "pread", fails)
        assert "unreadable" in codes(inspect(descriptor, "raw"), "raw")


def test_a_budget_for_reading(tmp_path):
    """Whatever the headers ask for, the bytes that are read of one image have an end."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * MIB))
    with opened(image) as descriptor:
        read = headers.Reader(descriptor)
        assert sum(len(read.at(0, 300 * KIB)) for dummy in range(10)) == headers.MOST_READ
        assert read.at(-1, 5) == read.at(2**70, 5) == b""


# Disagreements with qemu-img ---------------------------------------------------------------------------------------

# What may come in here and qemu-img refuses with an error: damage beyond the headers, which does no harm.
ONLY_QEMU_REFUSES = {
    "a block of a VHD lies after its end: block entries are not read here": ("vpc", [(1536, ">I", 2**31)]),
    "a block of a VHDX lies in its header: block entries are not read here": ("vhdx", [(2 * MIB, "<Q", 6 | 1 << 20)]),
    "both headers of a VHDX are void: their CRC-32C is not reckoned here": (
        "vhdx",
        [(64 * KIB, "4s", b"hea?"), (128 * KIB, "4s", b"hea?")],
    ),
    "an internal snapshot of a qcow2 is nonsense: the table is measured, its entries are not read here": (
        "qcow2",
        [(60, ">I", 1), (64, ">Q", 256 * KIB), (256 * KIB + 36, ">I", 2**31)],
    ),
    "the LUKS header in a qcow2 is nonsense: nothing is read of it but its magic": (
        "qcow2-luks",
        [(256 * KIB + 8, "8s", b"nonsense")],
    ),
    "the CID of a VMDK is no number: it is of use to overlays only": ("vmdk", [(548, "1s", b"z")]),
    "the region table of a VHDX has a wrong CRC-32C, which is not reckoned here": (
        "vhdx",
        [(192 * KIB + 4, "<I", 1)],
    ),
}


@pytest.mark.parametrize("why", ONLY_QEMU_REFUSES)
def test_only_qemu_refuses(spoilers, why):
    kind, rows = ONLY_QEMU_REFUSES[why]
    image = spoilers(kind)
    for offset, form, value in rows:
        image.write(offset, struct.pack(form, value))
    assert codes(inspect(image.fd, KINDS[kind].format), KINDS[kind].format) == []
    assert ask_qemu(str(image.path), KINDS[kind].format).status == 1


def test_many_spoiled_headers(made, tmp_path, monkeypatch):
    """A short form, for the oldest Python too, of what tests/integration/inputs does at length."""
    chance, reads = random.Random(SEED), Counted(monkeypatch)
    images = {name: Spoiler(made[name], tmp_path) for name in KINDS if not name.startswith("vmdk-2g")}
    for _number in range(2000):
        name = chance.choice(list(images))
        image, declared = images[name], chance.choice([KINDS[name].format, "raw", "qcow2", None])
        image.spoil(chance)
        reads.calls = reads.bytes = 0
        found = inspect(image.fd, declared)
        for refusal in intake.refusals(found, declared):
            assert refusal.code and refusal.reason.isprintable() and refusal.way_out
        assert reads.calls <= MOST_READS and reads.bytes <= headers.MOST_READ
        image.mend()
    for image in images.values():
        image.close()
