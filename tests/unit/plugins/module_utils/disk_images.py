# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk images of every format as qemu-img makes them, and what spoils their headers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SECRET = ("--object", "secret,id=sec0,data=not-a-secret")


class Kind(NamedTuple):
    """An image to make, and the code of its refusal when its format is declared; empty for one that may come in."""

    format: str
    options: str = ""
    size: int = 10 * MIB
    refused: str = ""


KINDS = {
    "raw": Kind("raw"),
    "raw-odd": Kind("raw", size=1000),  # QEMU rounds it up to sectors
    "qcow2": Kind("qcow2"),
    "qcow2-v2": Kind("qcow2", "compat=0.10,cluster_size=2M", 8 * TIB),
    "qcow2-small-clusters": Kind("qcow2", "cluster_size=512", GIB),
    "qcow2-all": Kind("qcow2", "extended_l2=on,compression_type=zstd,lazy_refcounts=on,refcount_bits=1", 70 * GIB),
    "qcow2-luks": Kind("qcow2"),
    "qcow2-aes": Kind("qcow2", "encrypt.format=aes,encrypt.key-secret=sec0", refused="encryption"),
    "qcow2-data-file": Kind("qcow2", "data_file={folder}/data.raw", refused="data_file"),
    "qcow2-backing": Kind("qcow2", "backing_file={folder}/raw,backing_fmt=raw", refused="backing_file"),
    "qcow": Kind("qcow", refused="unsupported_format"),
    "qed": Kind("qed", refused="unsupported_format"),
    "qed-backing": Kind("qed", "backing_file={folder}/raw,backing_fmt=raw", refused="unsupported_format"),
    "vdi": Kind("vdi", size=2 * TIB),
    "vdi-static": Kind("vdi", "static=on"),
    "vpc": Kind("vpc"),
    "vpc-large": Kind("vpc", size=TIB),
    "vpc-by-size": Kind("vpc", "force_size=on"),
    "vpc-fixed": Kind("vpc", "subformat=fixed"),
    "vhdx": Kind("vhdx"),
    "vhdx-large": Kind("vhdx", size=32 * TIB),
    "vhdx-fixed": Kind("vhdx", "subformat=fixed"),
    "vmdk": Kind("vmdk"),
    "vmdk-large": Kind("vmdk", size=2 * TIB),
    "vmdk-stream": Kind("vmdk", "subformat=streamOptimized"),
    "vmdk-backing": Kind("vmdk", "backing_file={folder}/vmdk,backing_fmt=vmdk", refused="backing_file"),
    "vmdk-flat": Kind("vmdk", "subformat=monolithicFlat", 5 * GIB, "external_extents"),
    "vmdk-2g-sparse": Kind("vmdk", "subformat=twoGbMaxExtentSparse", 5 * GIB, "external_extents"),
    "vmdk-2g-flat": Kind("vmdk", "subformat=twoGbMaxExtentFlat", 5 * GIB, "external_extents"),
    "luks": Kind("raw"),
    "parallels": Kind("parallels", refused="unsupported_format"),
}
ACCEPTED = [name for name, kind in KINDS.items() if not kind.refused]


def make(folder: Path) -> dict[str, Path]:
    """One image of each kind."""
    made = {}
    for name, kind in KINDS.items():
        made[name] = folder / name
        options = ["-o", kind.options.format(folder=folder)] if kind.options else []
        if name == "vmdk-stream":
            # only a conversion makes one
            (folder / "some").write_bytes(os.urandom(MIB) + bytes(MIB))
            what = ["convert", "-f", "raw", "-O", "vmdk", *options, str(folder / "some"), str(made[name])]
        else:
            secret = SECRET if "sec0" in kind.options else ()
            what = ["create", "-q", *secret, "-f", kind.format, *options, str(made[name]), str(kind.size)]
        subprocess.run(["qemu-img", *what], check=True, stdout=subprocess.DEVNULL)
    encrypt(made["luks"], made["qcow2-luks"])
    end_stream(made["vmdk-stream"])
    return made


def end_stream(image: Path) -> None:
    """Move the header of a stream to its end, as VMware writes it and qemu-img does not."""
    data = bytearray(image.read_bytes())
    footer = bytes(data[:512])
    data[56:64] = b"\xff" * 8
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    image.write_bytes(bytes(data) + marker + footer + bytes(512))


def encrypt(disk: Path, qcow2: Path) -> None:
    """Write a LUKS header without a key: qemu-img takes up to 20 s to make a passphrase costly."""
    slots = b"".join(struct.pack(">II32sII", 0xDEAD, 1, b"", 8 + 512 * slot, 4000) for slot in range(8))
    texts = struct.pack(">32s32s32s", b"aes", b"xts-plain64", b"sha256")
    uuid = b"00000000-0000-4000-8000-000000000001"
    header = struct.pack(">6sH96sII20s32sI40s", b"LUKS\xba\xbe", 1, texts, 4104, 64, b"", b"", 1, uuid) + slots
    with disk.open("r+b") as image:
        image.write(header)
    with qcow2.open("r+b") as image:
        offset = 256 * KIB
        image.seek(32)
        image.write(struct.pack(">I", 2))
        image.seek(112)
        image.write(struct.pack(">IIQQII", 0x0537BE77, 16, offset, 4104 * 512, 0, 0))
        image.seek(offset)
        image.write(header)
        image.truncate(offset + 4104 * 512)


class Told(NamedTuple):
    """What qemu-img said: its exit status, its words, and the virtual size and further files where it said them."""

    status: int
    words: str
    size: int
    others: list[str]


LIMITED = ("prlimit", "--cpu=4", "--as=4294967296", "--core=0")


def ask_qemu(path: str, form: str) -> Told:
    """qemu-img info with the format given, within 4 s of CPU and 4 GiB of addresses."""
    asked = subprocess.run(
        [*LIMITED, "qemu-img", "info", "-U", "--output=json", "-f", form, path],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if asked.returncode:
        return Told(asked.returncode, asked.stderr.decode(errors="replace"), -1, [])
    info = json.loads(asked.stdout)
    specific = info.get("format-specific", {}).get("data", {})
    others = [info.get("backing-filename"), specific.get("data-file")]
    others += [one["filename"] for one in specific.get("extents", []) if one["filename"] != info["filename"]]
    return Told(0, "", info["virtual-size"], [one for one in others if one])


# Spoiling ----------------------------------------------------------------------------------------------------------

INTERESTING = [0, 1, 2, 3, 4, 7, 8, 9, 16, 21, 22, 31, 32, 63, 64, 104, 255, 511, 512, 513, 1023, 4096, 65535, 65536]
INTERESTING += [1 << bit for bit in range(17, 64)] + [(1 << bit) - 1 for bit in (31, 32, 40, 63, 64)]
FORMS = [">Q", "<Q", ">I", "<I", ">H", "<H", ">B"]
MAGICS = [
    (0, b"QFI\xfb\0\0\0\3"),
    (0, b"QFI\xfb\0\0\0\1"),
    (0, b"QED\0"),
    (0, b"KDMV"),
    (0, b"COWD"),
    (0, b"# Disk DescriptorFile\nversion=1\n"),
    (64, b"\x7f\x10\xda\xbe"),
    (0, b"vhdxfile"),
    (0, b"conectix"),
    (-512, b"conectix"),
    (0, b"LUKS\xba\xbe\0\1"),
    (0, b"\x1f\x8b\x08"),
    (32769, b"CD001"),
    (-512, b"koly\0\0\0\4\0\0\2\0"),
]
STRINGS = [
    b"/etc/shadow",
    b'json:{"driver":"file","filename":"/etc/shadow"}',
    b"nbd://127.0.0.1/x",
    b'parentFileNameHint="/etc/shadow"\n',
    b'RW 1 FLAT "/etc/shadow" 0\n',
    b'createType="monolithicFlat"\n',
    b"parentCID=00000000",
    b"\xe2\x79\x2a\xca\0\0\0\3raw",
    b"DATA\0\0\0\x0b/etc/shadow",
]
# Where the headers are: the first bytes, and what VHDX has further in.
HEADERS = [
    (0, 128),
    (0, 128),
    (320, 144),
    (512, 512),
    (0, 4096),
    (64 * KIB, 96),
    (128 * KIB, 96),
    (192 * KIB, 96),
    (256 * KIB, 96),
]
FURTHER = [(64 * KIB, 96), (128 * KIB, 96), (192 * KIB, 96), (256 * KIB, 96)]
FURTHER += [(2 * MIB, 256), (3 * MIB, 256), (3 * MIB + 64 * KIB, 64)]
# Fields that a change elsewhere seldom hits: sizes, features, the log, the parent.
KNOWN = {
    "qcow2": [(24, ">Q"), (72, ">Q"), (20, ">I"), (32, ">I"), (36, ">I"), (56, ">I"), (60, ">I")],
    "vdi": [(368, "<Q"), (384, "<I"), (424, "<I")],
    "vmdk": [(12, "<Q"), (20, "<Q"), (28, "<Q"), (56, "<Q")],
    "vpc": [(540, ">I"), (544, ">I"), (552, ">I")],
    "vhdx": [(64 * KIB + 48, "<I"), (3 * MIB + 64 * KIB + 4, "<I"), (3 * MIB + 64 * KIB + 8, "<Q")],
}
BLOCK = 4 * KIB


class Spoiler:
    """A copy of an image that is spoiled by a seed and mended again, without being copied each time."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.size = path.stat().st_size
        self.known = KNOWN.get(KINDS[path.name].format, [(4, "<I")])
        self.fd, name = tempfile.mkstemp(dir=scratch)
        self.path = Path(name)
        self.blocks = dict(blocks(path))
        self.touched: list[tuple[int, int]] = []
        self.restore(self.blocks)

    def restore(self, numbers: Iterable[int]) -> None:
        os.ftruncate(self.fd, self.size)
        for number in numbers:
            data = self.blocks.get(number, bytes(BLOCK))
            os.pwrite(self.fd, data[: max(self.size - number * BLOCK, 0)], number * BLOCK)

    def mend(self) -> None:
        """The image as it was."""
        lost = os.fstat(self.fd).st_size
        numbers = {number for number in self.blocks if (number + 1) * BLOCK > lost} if lost < self.size else set()
        for offset, count in self.touched:
            numbers.update(range(offset // BLOCK, (offset + count - 1) // BLOCK + 1))
        self.touched = []
        self.restore(numbers)

    def write(self, offset: int, data: bytes) -> None:
        offset = max(offset, 0)
        os.pwrite(self.fd, data, offset)
        self.touched.append((offset, len(data)))

    def spoil(self, chance: random.Random) -> None:
        """One to three changes."""
        for _number in range(chance.choice([1, 1, 1, 2, 3])):
            ways = [self.number] * 3 + [self.field, self.flip, self.magic, self.string, self.cut]
            chance.choice(ways)(chance)

    def place(self, chance: random.Random) -> int:
        """An offset in some header, more often an aligned one."""
        places = [*HEADERS, (self.size - 1536, 1536), *(FURTHER if self.size >= 4 * MIB else [])]
        start, length = chance.choice(places)
        return max(start, 0) + chance.randrange(length) // (align := chance.choice([1, 4, 4, 8])) * align

    def number(self, chance: random.Random, offset: int | None = None, form: str = "") -> None:
        form = form or chance.choice(FORMS)
        value = chance.choice(INTERESTING) if chance.random() < 0.8 else chance.getrandbits(64)
        data = struct.pack(form, value & (1 << 8 * struct.calcsize(form)) - 1)
        self.write(self.place(chance) if offset is None else offset, data)

    def field(self, chance: random.Random) -> None:
        self.number(chance, *chance.choice(self.known))

    def flip(self, chance: random.Random) -> None:
        self.write(self.place(chance), bytes([chance.randrange(256)]))

    def magic(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            offset, word = chance.choice(MAGICS)
            self.write(offset if offset >= 0 else self.size + offset, word)

    def string(self, chance: random.Random) -> None:
        self.write(self.place(chance), chance.choice(STRINGS))

    def cut(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            at = chance.choice([chance.randrange(self.size), chance.randrange(min(self.size, 4096)), self.size - 512])
            os.ftruncate(self.fd, max(at, 0))

    def close(self) -> None:
        os.close(self.fd)
        self.path.unlink()


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file that are not all zeros, by their numbers."""
    with path.open("rb") as image:
        end, offset = os.fstat(image.fileno()).st_size, 0
        with contextlib.suppress(OSError):  # no more data
            while offset < end:
                number = os.lseek(image.fileno(), offset, os.SEEK_DATA) // BLOCK
                data = os.pread(image.fileno(), BLOCK, number * BLOCK)
                if data.strip(b"\0"):
                    yield number, data
                offset = (number + 1) * BLOCK
