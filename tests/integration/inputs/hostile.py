# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile images: each field of each header, names that lead out, what is cut off, and what a guest wrote.

Every image is a file that is made once, and put into a pool where a way in shall meet it.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import disk_images
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.test_intake import NAMES, URIS, overlay

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = MIB  # of every disk, where its size is not what is wrong
GRAIN = 64 * KIB
CANARY = b"canary: no tool may ever read this file of the host\n"


@dataclass(frozen=True)
class Hostile:
    """An image, the format that the task declares for it, and what is known of it beforehand.

    leads     its header names another file or a server, or lies about its format: refused wherever a tool opens it.
    harmless  it is as good as any, and every way takes it: else a test of refusals alone could not fail.
    vast      it is whole, and of a size that no tool reads to its end in a test: a way in from outside refuses it.
    beside    the files that its chain is made of, which lie in the same pool.
    """

    name: str
    form: str
    path: Path
    leads: bool = False
    harmless: bool = False
    vast: bool = False
    beside: tuple[Path, ...] = ()

    def place(self, folder: Path, name: str) -> Path:
        """Put a copy of it into a pool, with what lies beside it."""
        for other in self.beside:
            if other.is_symlink():
                os.symlink(os.readlink(other), folder / other.name)
            else:
                copy(other, folder / other.name)
        copy(self.path, folder / name)
        return folder / name


def copy(source: Path, target: Path) -> None:
    """A copy that is as sparse as its source, and readable by root alone."""
    with source.open("rb") as given, open(target, "wb", opener=private) as made:
        for number, data in disk_images.blocks(source):
            made.seek(number * disk_images.BLOCK)
            made.write(data)
        made.truncate(os.fstat(given.fileno()).st_size)


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Maker:
    """Makes the images of one run in a folder; pool is the directory that they will lie in."""

    def __init__(self, folder: Path, pool: Path, canary: Path) -> None:
        self.folder, self.pool, self.canary = folder, pool, canary
        self.images: list[Hostile] = []
        self.bases: dict[str, Path] = {}

    def all(self) -> list[Hostile]:
        self.make_bases()
        for family in (
            good,
            fields,
            names,
            data_files,
            extents,
            parents,
            polyglots,
            sizes,
            damage,
            cuts,
            chains,
            guests,
        ):
            family(self)
        return self.images

    def make_bases(self) -> None:
        """A small image of each kind, with data in its first and in its last grain."""
        raw = self.folder / "base-raw"
        raw.write_bytes(os.urandom(GRAIN) + bytes(SIZE - 2 * GRAIN) + os.urandom(GRAIN))
        self.bases["raw"] = raw
        for kind, (form, options) in BASES.items():
            made = self.bases[kind] = self.folder / f"base-{kind}"
            chosen = ["-o", options] if options else []
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, *chosen, str(raw), str(made)], check=True)
        self.bases["luks"], for_qcow2 = self.folder / "base-luks", self.folder / "base-qcow2-luks"
        (self.bases["luks"]).write_bytes(bytes(4 * MIB))
        shutil.copy(self.bases["qcow2"], for_qcow2)
        disk_images.encrypt(self.bases["luks"], for_qcow2)

    def put(self, name: str, form: str, data: bytes, *, leads: bool = False, beside: tuple[Path, ...] = ()) -> Path:
        """An image of these bytes."""
        path = self.folder / f"image-{len(self.images)}"
        path.write_bytes(data)
        self.images.append(Hostile(name, form, path, leads=leads, beside=beside))
        return path

    def change(self, name: str, kind: str, *changes: tuple[int, bytes], leads: bool = False, form: str = "") -> None:
        """A base with some bytes changed; offsets below 0 count from its end."""
        path = self.folder / f"image-{len(self.images)}"
        copy(self.bases[kind], path)
        with path.open("r+b") as image:
            for offset, data in changes:
                image.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
                image.write(data)
        self.images.append(Hostile(name, form or FORM_OF[kind], path, leads=leads))


BASES = {
    "qcow2": ("qcow2", "cluster_size=4k"),
    "qcow2-v2": ("qcow2", "compat=0.10,cluster_size=4k"),
    "qed": ("qed", "cluster_size=4k"),
    "qcow": ("qcow", ""),
    "vmdk": ("vmdk", ""),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vdi": ("vdi", ""),
    "vpc": ("vpc", "force_size=on"),
    "vpc-fixed": ("vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", ""),
}
FORM_OF = {"raw": "raw", "luks": "raw", **{kind: form for kind, (form, _options) in BASES.items()}}
GOOD = ("raw", "qcow2", "qcow2-v2", "vmdk", "vmdk-stream", "vdi", "vpc")


def good(maker: Maker) -> None:
    """The controls."""
    for kind in GOOD:
        maker.images.append(Hostile(f"good {kind}", FORM_OF[kind], maker.bases[kind], harmless=True))
    for kind in ("luks", "qed", "qcow", "vpc-fixed", "vhdx"):
        maker.images.append(Hostile(f"plain {kind}", FORM_OF[kind], maker.bases[kind]))


# Each field of each header -----------------------------------------------------------------------------------------

# Where it begins, and its fields: the offset of each and its form. "both" halves are 0 and all ones; see VALUES.
FIELDS: dict[str, tuple[int, str]] = {
    "qcow2": (0, "4I 8Q 16I 20I 24Q 32I 36I 40Q 48Q 56I 60I 64Q 72Q 80Q 88Q 96I 100I 104B"),
    "qcow2-v2": (0, "4I 8Q 16I 20I 24Q 32I 36I 40Q 48Q 56I 60I 64Q"),
    "qed": (0, "4i 8i 12i 16q 24q 32q 40q 48q 56i 60i"),
    "qcow": (0, "4I 8Q 16I 20I 24Q 32B 33B 36I 40Q"),
    "vmdk": (0, "4i 8i 12q 20q 28q 36q 44i 48q 56q 64q 72B 73I 77h"),
    "vmdk-stream": (0, "4i 8i 12q 20q 28q 56q 77h"),
    "vdi": (0, "68i 72i 76i 80i 340i 344i 360i 368q 376i 380i 384i 388i 440q"),
    "vpc": (0, "8I 12I 16Q 40Q 48Q 56I 60I 64I 520Q 528Q 536I 540I 544I 548I 576Q 1088Q"),
    "vpc-fixed": (-512, "8I 12I 16Q 40Q 48Q 56I 60I 64I"),
    "vhdx": (64 * KIB, "4i 8q 48q 64h 66h 68i 72q 131072i 131080i 131104q 131112i"),
    "luks": (0, "6H 104I 108I 164I 208I 212I 248I 252I"),
}
LARGEST = {
    "B": 0xFF,
    "H": 0xFFFF,
    "h": 0xFFFF,
    "I": 0xFFFFFFFF,
    "i": 0xFFFFFFFF,
    "Q": (1 << 64) - 1,
    "q": (1 << 64) - 1,
}


def fields(maker: Maker) -> None:
    """Every field is nothing, all ones, or far beyond the file; where a flag could hide, one bit at a time."""
    for kind, (start, described) in FIELDS.items():
        for word in described.split():
            offset, letter = int(word[:-1]), word[-1]
            order = "<" if letter.islower() else ">"
            form = order + letter.upper()
            values = [0, LARGEST[letter], 1 << (struct.calcsize(form) * 8 - 4)]
            if (kind, offset) == ("qcow2", 20):
                values += [8, 22, 31, 63]
            if kind.startswith("qcow2") and offset in (32, 72):
                values += [1, 2, 4]
            for value in dict.fromkeys(values):
                where = start + offset
                maker.change(f"{kind} field {offset} {value:#x}", kind, (where, struct.pack(form, value)))


# Names that lead out -----------------------------------------------------------------------------------------------


def names(maker: Maker) -> None:
    """Backing stores by every form of a URI, in both formats that record one."""
    folder = maker.folder
    for given in [*URIS, *NAMES, b"x" * 1023, "\u2028/canary\u00e9".encode(), b"canary"]:
        name = given.replace(b"CANARY", bytes(maker.canary)).replace(b"POOLS", bytes(maker.pool))
        path = overlay(folder / f"image-{len(maker.images)}", name)
        maker.images.append(Hostile(f"backing {given[:60]!r} of {len(given)}", "qcow2", path, leads=True))
    for form in (b"", b"qcow2", b"nonsense", b"raw\0", b"host_device"):
        path = overlay(folder / f"image-{len(maker.images)}", bytes(maker.canary), form)
        maker.images.append(Hostile(f"backing of format {form!r}", "qcow2", path, leads=True))
    for given in (bytes(maker.canary), b"json:{}", b"nbd://127.0.0.1/x"):
        maker.change(
            f"qed backing {given!r}",
            "qed",
            (16, struct.pack("<Q", 1)),
            (56, struct.pack("<II", 64, len(given)) + given),
            leads=True,
        )
    long = bytes(maker.canary).rjust(1024, b"/")
    maker.change("a name of 1024 bytes", "qcow2", (8, struct.pack(">QI", 1024, 1024)), (1024, long), leads=True)


DATA_FILE, DATA_FILE_NAME = 1 << 2, 0x44415441


def data_files(maker: Maker) -> None:
    """The bit, the name and the bit for raw content, each with and without the others."""
    length = header_length(maker.bases["qcow2"])
    name = bytes(maker.canary)
    extension = struct.pack(">II", DATA_FILE_NAME, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0") + bytes(8)
    for bits in (0, DATA_FILE):
        for raw in (0, 2):  # an autoclear feature
            for named in (False, True):
                if not bits and not named:
                    continue
                changes = [(72, struct.pack(">Q", bits)), (88, struct.pack(">Q", raw))]
                changes += [(length, extension)] if named else []
                words = f"data file: bit {bool(bits)}, raw {bool(raw)}, name {named}"
                maker.change(words, "qcow2", *changes, leads=True)


def header_length(path: Path) -> int:
    with path.open("rb") as image:
        return int(struct.unpack_from(">I", image.read(104), 100)[0])


DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID={parent}
{more}createType="{kind}"

# Extent description
{extent}

#DDB
ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "2"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
"""


def descriptor(kind: str, extent: str, parent: str = "ffffffff", more: str = "") -> bytes:
    return DESCRIPTOR.format(kind=kind, extent=extent, parent=parent, more=more).encode()


def extents(maker: Maker) -> None:
    """VMDK descriptors whose extents are files of the host."""
    for kind, extent in (
        ("monolithicFlat", 'RW 2048 FLAT "{}" 0'),
        ("twoGbMaxExtentFlat", 'RW 2048 FLAT "{}" 0'),
        ("twoGbMaxExtentSparse", 'RW 2048 SPARSE "{}"'),
        ("vmfs", 'RW 2048 VMFS "{}"'),
        ("vmfsSparse", 'RW 2048 VMFSSPARSE "{}"'),
        ("seSparse", 'RW 2048 SESPARSE "{}"'),
        ("fullDevice", 'RW 2048 FLAT "{}" 0'),
        ("monolithicSparse", 'RW 2048 SPARSE "{}"'),
        ("monolithicFlat", 'RW 2048 FLAT "json:{{}}" 0'),
        ("monolithicFlat", 'RW 2048 FLAT "file:{}" 0'),
        ("monolithicFlat", 'RW 2048 FLAT "../canary" 0'),
    ):
        text = descriptor(kind, extent.replace("{}", str(maker.canary)))
        maker.put(f"vmdk descriptor {kind} {extent[:24]}", "vmdk", text, leads=True)
        maker.put(f"{kind} {extent[:24]}, declared raw", "raw", text, leads=True)
    inside = descriptor("monolithicFlat", f'RW 2048 FLAT "{maker.canary}" 0').ljust(20 * 512, b"\0")
    maker.change("vmdk, its descriptor inside", "vmdk", (512, inside), leads=True)


def parents(maker: Maker) -> None:
    """Differencing images of VMware and of Microsoft."""
    hint = f'parentFileNameHint="{maker.canary}"\n'
    inside = descriptor("monolithicSparse", 'RW 2048 SPARSE "image"', "00000001", hint).ljust(20 * 512, b"\0")
    maker.change("vmdk with a parent", "vmdk", (512, inside), leads=True)
    maker.put("a vmdk descriptor with a parent", "vmdk", descriptor("vmfs", "", "00000001", hint), leads=True)
    for kind in ("vpc", "vpc-fixed"):
        foot = FIELDS[kind][0]
        maker.change(f"{kind} that is differencing", kind, (foot + 60, struct.pack(">I", 4)), leads=True)
    name = str(maker.canary).encode("utf-16-le")
    locator = struct.pack(">4sIII4xQ", b"W2ku", 512, len(name), 0, 2048)
    maker.change(
        "vpc with a locator of its parent",
        "vpc",
        (60, struct.pack(">I", 4)),
        (512 + 40, b"\1" * 16),
        (512 + 576, locator),
        leads=True,
    )
    maker.put(
        "uml's cow", "raw", struct.pack(">4sI1024s", b"OOOM", 2, bytes(maker.canary)).ljust(8192, b"\0"), leads=True
    )


def polyglots(maker: Maker) -> None:
    """Two formats in one file."""
    qcow2 = overlay(maker.folder / "poly", bytes(maker.canary)).read_bytes()
    footer = maker.bases["vpc-fixed"].read_bytes()[-512:]
    iso = bytes(32768) + b"\1CD001\1" + bytes(4096)
    flat = descriptor("monolithicFlat", f'RW 2048 FLAT "{maker.canary}" 0')
    for form in ("raw", "qcow2", "vpc", "vmdk"):
        maker.put(f"qcow2 and a VHD's footer, declared {form}", form, qcow2.ljust(MIB, b"\0") + footer, leads=True)
        maker.put(f"qcow2 and an ISO image, declared {form}", form, qcow2 + iso[len(qcow2) :], leads=True)
    maker.put("a vmdk's descriptor and a VHD's footer", "vpc", flat.ljust(MIB, b"\0") + footer, leads=True)
    maker.put("a vmdk's descriptor and an ISO image", "raw", flat + iso[len(flat) :], leads=True)
    whole = maker.bases["qcow2"].read_bytes().ljust(MIB, b"\0")
    for form in ("qcow2", "vpc"):
        maker.put(f"a whole qcow2 and a VHD's footer, declared {form}", form, whole + footer, leads=True)
    maker.put("qcow2 and vdi", "vdi", qcow2[:64] + b"\x7f\x10\xda\xbe" + qcow2[68:], leads=True)
    maker.put("a script that is a cloop", "raw", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop".ljust(8192, b"\0"))
    maker.put("a disk image of Apple", "raw", bytes(MIB - 512) + b"koly\0\0\0\4\0\0\2\0".ljust(512, b"\0"))
    for word in (b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
        maker.put(f"begins with {word!r}", "qcow2", word.ljust(4096, b"\0"))


# Sizes, tables, ends -----------------------------------------------------------------------------------------------


def sizes(maker: Maker) -> None:
    """Virtual sizes that no disk has, with an L1 table that covers them where one can."""
    for size in (0, 511, 513, 1 << 50, (1 << 63) - 512, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        maker.change(f"qcow2 of {size:#x} bytes", "qcow2", (24, struct.pack(">Q", size)))
        maker.change(f"qed of {size:#x} bytes", "qed", (48, struct.pack("<Q", size)))
        maker.change(f"vdi of {size:#x} bytes", "vdi", (368, struct.pack("<Q", size)))
        maker.change(f"vmdk of {size:#x} sectors", "vmdk", (12, struct.pack("<Q", size)))
    huge = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 21, 1 << 50, 0, 2048, 2 << 21, 1 << 21, 1, 0, 0, 0, 0, 0, 4, 104),
    )
    path = maker.folder / "vast"
    path.write_bytes(huge.ljust(4 << 21, b"\0"))
    maker.images.append(Hostile("qcow2 of 1 PiB that is whole", "qcow2", path, vast=True))


L1, REFCOUNTS = 40, 48  # where a qcow2 names these tables


def damage(maker: Maker) -> None:
    """Tables of a qcow2 that lie in each other, beyond the end, or say what can't be."""
    with maker.bases["qcow2"].open("rb") as image:
        head = image.read(104)
        l1, refcounts = (struct.unpack_from(">Q", head, at)[0] for at in (L1, REFCOUNTS))
        image.seek(l1)
        l2 = struct.unpack(">Q", image.read(8))[0] & 0x00FFFFFFFFFFFE00
        image.seek(l2)
        first = struct.unpack(">Q", image.read(8))[0]
        image.seek(refcounts)
        block = struct.unpack(">Q", image.read(8))[0]
    copied = 1 << 63
    for words, at, value in (
        ("the L1 table in the header", L1, 0),
        ("the L1 table is the refcount table", L1, refcounts),
        ("the refcount table is the L1 table", REFCOUNTS, l1),
        ("the refcount table in the header", REFCOUNTS, 0),
        ("the L1 table far outside", L1, 1 << 55),
        ("an L2 table in the header", l1, copied),
        ("an L2 table that is the L1 table", l1, copied | l1),
        ("an L2 table outside", l1, copied | 1 << 50),
        ("an L2 table with reserved bits", l1, copied | l2 | 0x1FF),
        ("data in the header", l2, copied),
        ("data in the L1 table", l2, copied | l1),
        ("data outside", l2, copied | 1 << 54),
        ("data that are not aligned", l2, first | 0x200),
        ("compressed data outside", l2, 1 << 62 | 1 << 50),
        ("compressed data of nothing but rubbish", l2, 1 << 62 | first & 0x00FFFFFFFFFFFE00),
        ("a block of refcounts in the header", refcounts, 0),
        ("a block of refcounts outside", refcounts, 1 << 55),
        ("refcounts of nothing", block, 0),
        ("refcounts of everything", block, (1 << 64) - 1),
    ):
        maker.change(words, "qcow2", (at, struct.pack(">Q", value)))
    snapshots = struct.pack(">IQ", 1, l1)
    maker.change("its snapshots are its L1 table", "qcow2", (60, snapshots))
    maker.change(
        "a snapshot with a name of 64 KiB",
        "qcow2",
        (60, snapshots),
        (l1, struct.pack(">QIHH", 1 << 50, 1, 65535, 65535)),
    )
    maker.change("encrypted by LUKS without its extension", "qcow2", (32, struct.pack(">I", 2)))
    crypto = struct.pack(">IIQQII", 0x0537BE77, 16, 1 << 50, 1 << 20, 0, 0)
    maker.change("encrypted by LUKS outside the file", "qcow2", (32, struct.pack(">I", 2)), (112, crypto))
    many = struct.pack(">II", 0x11111111, 0) * 300
    maker.change("300 extensions", "qcow2", (112, many))
    maker.change("an extension of 4 GiB", "qcow2", (112, struct.pack(">II", 0x11111111, 0xFFFFFFFF)))
    maker.change(
        "bitmaps that are not there",
        "qcow2",
        (88, struct.pack(">Q", 1)),
        (112, struct.pack(">IIIIQQ", 0x23852875, 24, 1, 0, 1 << 40, 1 << 50)),
    )


def cuts(maker: Maker) -> None:
    """Every header ends after each 16 bytes, and once in the middle of its tables."""
    for kind, length in (("qcow2", 112), ("qed", 64), ("vdi", 96), ("vmdk", 80), ("vpc", 64), ("luks", 48)):
        data = maker.bases[kind].read_bytes()
        for end in range(0, length + 1, 16):
            maker.put(f"{kind} that ends at {end}", FORM_OF[kind], data[:end])
    for kind in BASES:
        data = maker.bases[kind].read_bytes()
        maker.put(f"{kind} without its last quarter", FORM_OF[kind], data[: len(data) * 3 // 4])


# Chains ------------------------------------------------------------------------------------------------------------


def chains(maker: Maker) -> None:
    """Chains within the pool that lead round, down without end, and out at their end."""
    folder, pool = maker.folder, bytes(maker.pool)

    def link(name: str, base: bytes, form: bytes = b"qcow2") -> Path:
        return overlay(folder / name, base if base.startswith(b"/") else pool + b"/" + base, form)

    def chain(words: str, form: str, top: Path, *beside: Path) -> None:
        maker.images.append(Hostile(words, form, top, leads=True, beside=beside))

    chain("stands on itself", "qcow2", link("self", b"hostile"))
    chain("two that stand on each other", "qcow2", link("one-of-two", b"two-of-two"), link("two-of-two", b"hostile"))
    deep = [link(f"deep-{number}", b"deep-%d" % (number + 1)) for number in range(200)]
    last = link("deep-200", bytes(maker.canary), b"raw")
    chain("200 overlays on a file of the host", "qcow2", link("deep-top", b"deep-0"), *deep, last)
    chain(
        "one overlay on a file of the host", "qcow2", link("out-top", b"out"), link("out", bytes(maker.canary), b"raw")
    )
    chain(
        "the base has a data file",
        "qcow2",
        link("data-top", b"data"),
        renamed(maker, "data file: bit True, raw False, name True", "data"),
    )
    (folder / "link").symlink_to(maker.canary)
    chain("the base is a link out", "qcow2", link("link-top", b"link", b"raw"), folder / "link")
    flat = folder / "flat"
    flat.write_bytes(descriptor("monolithicFlat", f'RW 2048 FLAT "{maker.canary}" 0'))
    chain("the base has extents", "qcow2", link("flat-top", b"flat", b"vmdk"), flat)
    chain(
        "the base is said to be raw and is none",
        "qcow2",
        link("lie-top", b"lie", b"raw"),
        link("lie", bytes(maker.canary), b"raw"),
    )
    chain(
        "the base's format is not recorded",
        "qcow2",
        link("silent-top", b"silent", b""),
        link("silent", bytes(maker.canary), b""),
    )


def renamed(maker: Maker, words: str, name: str) -> Path:
    """An image that is there already, under the name that a chain has for it."""
    path = maker.folder / name
    copy(next(image.path for image in maker.images if image.name == words), path)
    return path


# What a guest wrote ------------------------------------------------------------------------------------------------


def guests(maker: Maker) -> None:
    """Raw disks, declared raw, whose guests wrote the head of an image that names a file of the host."""
    heads = {
        "a qcow2": overlay(maker.folder / "guest", bytes(maker.canary)).read_bytes(),
        "a qcow2 by json:": overlay(
            maker.folder / "guest-json", b'json:{"driver":"file","filename":"%s"}' % bytes(maker.canary)
        ).read_bytes(),
        "a qcow": struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 48, len(bytes(maker.canary)), 0, SIZE, 12, 9, 0, 0, 4096)
        + bytes(maker.canary),
        "a whole qcow2": maker.bases["qcow2"].read_bytes(),
        "a qed": next(image.path for image in maker.images if image.name.startswith("qed backing")).read_bytes(),
        "a vmdk": descriptor("monolithicFlat", f'RW 2048 FLAT "{maker.canary}" 0'),
        "a data file's qcow2": renamed(maker, "data file: bit True, raw True, name True", "guest-data").read_bytes(),
    }
    for words, head in heads.items():
        maker.put(f"a guest wrote {words}", "raw", head.ljust(SIZE, b"\0"), leads=True)


def every(folder: Path, pool: Path, canary: Path) -> list[Hostile]:
    """All images; the folder is theirs."""
    return Maker(folder, pool, canary).all()


# What every way meets in every run: one image for each guard that keeps a tool from what a header names.
ESSENTIAL = (
    "backing b'CANARY' of 6",
    "backing of format b'qcow2'",
    "backing b'nbd://\\xff' of 7",
    "backing b'base\\n' of 5",
    "data file: bit True, raw False, name True",
    'vmdk descriptor monolithicFlat RW 2048 FLAT "{}" 0',
    "qcow2 and a VHD's footer, declared qcow2",
    "a whole qcow2 and a VHD's footer, declared qcow2",
    "qcow2 field 32 0x2",
    "one overlay on a file of the host",
    "the base has extents",
    "stands on itself",
    "refcounts of nothing",
    "the base is a link out",
    "vmdk with a parent",
    "qcow2 field 40 0xffffffffffffffff",
    "a guest wrote a qcow2",
    "a guest wrote a whole qcow2",
    "a guest wrote a data file's qcow2",
)


def spread(images: list[Hostile], count: int, chance: Callable[[int], int]) -> Iterator[Hostile]:
    """The controls, the essential ones, and so many of the others, of every kind some."""
    others = [image for image in images if not image.harmless and image.name not in ESSENTIAL]
    yield from (image for image in images if image not in others)
    begin, step = chance(len(others)), max(len(others) // count, 1)
    yield from (others[(begin + number * step) % len(others)] for number in range(min(count, len(others))))
