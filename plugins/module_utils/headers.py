# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that the headers of an image say, read from an open descriptor and never followed.

Sources: docs/interop/qcow2.txt, qed_spec.txt and the block drivers of QEMU; the LUKS on-disk format;
the VHD, VHDX, VDI and VMDK specifications; ECMA-119. Nothing here decides: see intake.py.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple

MOST_READ = 1 << 20  # bytes of one image, whatever its headers ask for
HEAD, TAIL = 4096, 1024
SECTOR, KIB, MIB = 512, 1 << 10, 1 << 20
LONGEST_NAME = 1023  # of a backing file, as in docs/interop/qcow2.txt
MOST_EXTENSIONS = 256

GZ, BZ2, XZ, ZST = "gz", "bz2", "xz", "zst"
COMPRESSED = (GZ, BZ2, XZ, ZST)
CONTENTS = ("iso9660", "luks", *COMPRESSED)  # what a raw disk may begin with and still be one


class Fault(NamedTuple):
    """What is wrong, or only remarkable, with a header: a word for programs and one for people."""

    code: str
    reason: str


class Table(NamedTuple):
    """A table that a tool reads whole: where it lies, and what the format itself allows."""

    name: str
    offset: int
    length: int
    most: int = 1 << 63
    align: int = 1
    least: int = 0  # where the header ends


@dataclass(frozen=True)
class Backing:
    """The name of the image below, byte for byte (surrogateescape), and the format that is recorded for it."""

    name: str
    format: str | None = None


@dataclass
class Inspected:
    """What an image says of itself. formats has every format whose magic stands at its place."""

    format: str
    formats: tuple[str, ...]
    size: int  # of the file or the device
    virtual_size: int | None = None
    variant: str = ""  # such as streamOptimized, fixed, differencing
    version: int | None = None
    cluster_bits: int | None = None
    backing: Backing | None = None
    data_file: str | None = None
    extents: tuple[str, ...] = ()  # the other files that it is made of
    encrypted: str = ""  # aes or luks
    snapshots: int = 0
    features: tuple[str, ...] = ()
    unknown_features: int = 0
    tables: list[Table] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)

    @property
    def content(self) -> str:
        """What a raw disk begins with, where that has a name: iso9660, luks, gz, bz2, xz or zst."""
        return next((name for name in self.formats if name in CONTENTS), "")

    @property
    def compression(self) -> str:
        """How the whole is compressed; empty where it is an image."""
        return self.content if self.format == self.content and self.content in COMPRESSED else ""

    @property
    def allocated_end(self) -> int:
        """Where the last table of the header ends."""
        return max((table.offset + table.length for table in self.tables), default=0)

    def bad(self, reason: str, code: str = "bad_header") -> None:
        self.faults.append(Fault(code, reason))

    def note(self, code: str, reason: str) -> None:
        self.notes.append(Fault(code, reason))


class Reader:
    """Reads a descriptor by pread alone, within its size and within MOST_READ bytes in all."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.left, self.fault = descriptor, MOST_READ, ""
        self.size = size_of(descriptor)

    def at(self, offset: int, length: int) -> bytes:
        """The bytes at an offset; fewer where the image or the budget ends."""
        length = min(length, self.size - offset, self.left)
        if offset < 0 or length <= 0:
            return b""
        try:
            data = os.pread(self.descriptor, length, offset)
        except OSError as error:
            self.fault = f"it can't be read at byte {offset} ({error.strerror})"
            return b""
        self.left -= len(data)
        return data


def size_of(descriptor: int) -> int:
    """The size of a file, or of a block device as the kernel shows it; -1 for anything else.

    lseek() would tell a device's, too, but moves the offset of whoever shares the descriptor.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    if not stat.S_ISBLK(status.st_mode):
        return -1
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    with open(f"/sys/dev/block/{number}/size", encoding="ascii") as sectors:
        return int(sectors.read()) * SECTOR


def inspect(descriptor: int, declared: str | None = None) -> Inspected:
    """Read what an image says; where several formats match, the declared one is read."""
    try:
        read = Reader(descriptor)
    except (OSError, ValueError) as error:
        return Inspected("raw", (), 0, faults=[Fault("unreadable", f"its size can't be read ({error})")])
    if read.size < 0:
        return Inspected("raw", (), 0, faults=[Fault("not_a_file", "it is neither a file nor a block device")])
    head = read.at(0, HEAD)
    formats = magics(read, head)
    found = Inspected(chosen(formats, declared), formats, read.size)
    if found.format in PARSERS:
        PARSERS[found.format](found, read, head)
    elif found.format in CONTENTS or found.format == "raw":
        # as QEMU counts it: a last sector that is not whole is one
        found.virtual_size = -(-read.size // SECTOR) * SECTOR
    if found.content == "luks" and found.format == "raw":
        found.encrypted = "luks"
    if read.fault:
        found.bad(read.fault, "unreadable")
    return found


def chosen(formats: tuple[str, ...], declared: str | None) -> str:
    """The format to read an image as: the declared one where it can be meant, else the first that matches."""
    containers = [name for name in formats if name not in CONTENTS]
    if declared in containers or (declared == "raw" and not containers):
        return str(declared)
    contents = [name for name in formats if name != "iso9660"]  # an ISO image is a raw disk
    return next(iter(containers or contents), "raw")


# The magics --------------------------------------------------------------------------------------------------------

CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"
# As QEMU's vmdk_probe() takes it: comments and blank lines, then the version.
VMDK_TEXT = re.compile(rb"# Disk DescriptorFile|(?:#[^\n]*\n| *\r?\n)*version=[123]\r?\n", re.IGNORECASE)
MAGICS: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("qcow", 0, (b"QFI\xfb\0\0\0\1",)),
    ("qcow2", 0, (b"QFI\xfb",)),
    ("qed", 0, (b"QED\0",)),
    ("vmdk", 0, (b"KDMV", b"COWD", b"\xbe\xba\xfe\xca\0\0\0\0")),
    ("vdi", 64, (b"\x7f\x10\xda\xbe",)),
    ("vhdx", 0, (b"vhdxfile",)),
    ("vpc", 0, (b"conectix",)),
    ("parallels", 0, (b"WithoutFreeSpace", b"WithouFreSpacExt")),
    ("bochs", 0, (b"Bochs Virtual HD Image",)),
    ("cloop", 0, (CLOOP,)),
    ("cow", 0, (b"OOOM",)),
    ("luks", 0, (b"LUKS\xba\xbe",)),
    (GZ, 0, (b"\x1f\x8b\x08",)),
    (BZ2, 0, tuple(b"BZh%d%s" % (level, kind) for level in range(1, 10) for kind in (b"1AY&SY", b"\x17rE8P\x90"))),
    (XZ, 0, (b"\xfd7zXZ\0",)),
    (ZST, 0, (b"\x28\xb5\x2f\xfd",)),
)


def magics(read: Reader, head: bytes) -> tuple[str, ...]:
    """Every format whose magic stands at its place: at the start, inside, and at the end."""
    found = [name for name, offset, words in MAGICS if head.startswith(words, offset)]
    if "qcow" in found:
        found.remove("qcow2")
    if VMDK_TEXT.match(head):
        found.append("vmdk")
    if any(read.at(32769 + 2048 * sector, 5) == b"CD001" for sector in range(3)):
        found.append("iso9660")
    tail = read.at(max(read.size - TAIL, 0), TAIL)
    if tail[-SECTOR:][:8] == b"conectix" and len(tail) >= SECTOR and "vpc" not in found:
        found.append("vpc")
    if tail[-SECTOR:][:12] == b"koly\0\0\0\4\0\0\2\0":
        found.append("dmg")
    return tuple(found)


def whole(found: Inspected, data: bytes, length: int, what: str = "header") -> bool:
    """Whether all of a header is there."""
    if len(data) < length:
        found.bad(f"its {what} ends after {len(data)} bytes of {length}", "truncated")
    return len(data) >= length


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# qcow2, qcow, qed --------------------------------------------------------------------------------------------------

INCOMPATIBLE = ("dirty", "corrupt", "data_file", "compression_type", "extended_l2")
DIRTY, CORRUPT, DATA_FILE, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
BITMAPS_VALID = 1  # an autoclear feature
MOST_L1, MOST_REFTABLE, MOST_SNAPSHOTS, MOST_BITMAPS = 32 * MIB, 8 * MIB, 65536, 65535


def qcow2(found: Inspected, read: Reader, head: bytes) -> None:
    """A qcow2 header of version 2 or 3, its extensions and the places of its tables."""
    if not whole(found, head, 72):
        return
    found.version = version = struct.unpack_from(">I", head, 4)[0]
    if version not in (2, 3):
        return found.bad(f"qcow2 has no version {version}")
    if version == 3 and not whole(found, head, 104):
        return None
    backing_offset, backing_length, bits, found.virtual_size, crypt = struct.unpack_from(">QIIQI", head, 8)
    incompatible, compatible, autoclear, order, length = (
        struct.unpack_from(">QQQII", head, 72) if version == 3 else (0, 0, 0, 4, 72)
    )
    qcow2_features(found, incompatible, compatible, autoclear)
    found.cluster_bits = bits
    if not 9 <= bits <= 21:
        return found.bad(f"clusters of 2^{bits} bytes are not between 512 bytes and 2 MiB")
    cluster = 1 << bits
    if order > 6:
        found.bad(f"its refcounts are 2^{order} bits wide, which is more than 64")
    if incompatible & EXTENDED_L2 and bits < 14:
        found.bad("subclusters need clusters of 16 KiB or more")
    qcow2_tables(found, head, cluster)
    if not 72 <= length <= cluster or length % 8 or (version == 3 and length < 104):
        return found.bad(f"a header of {length} bytes can't be")
    qcow2_compression(found, head, length, bool(incompatible & COMPRESSION_TYPE))
    if backing_offset > cluster:
        return found.bad(f"the name of its backing file lies at {backing_offset}, outside the first cluster")
    area = read.at(0, min(cluster, 64 * KIB))
    extensions = qcow2_extensions(found, area, length, backing_offset or cluster)
    if backing_offset:
        name = name_at(found, area, backing_offset, backing_length, cluster)
        found.backing = Backing(name, extensions.get(BACKING_FORMAT))
    if incompatible & DATA_FILE or DATA_FILE_NAME in extensions:
        found.data_file = extensions.get(DATA_FILE_NAME) or "?"
    qcow2_encryption(found, read, crypt, extensions)
    if autoclear & BITMAPS_VALID and BITMAPS in extensions:
        qcow2_bitmaps(found, extensions[BITMAPS], cluster)
    return None


def qcow2_features(found: Inspected, incompatible: int, compatible: int, autoclear: int) -> None:
    """Name the features; those that nobody here knows keep their bits."""
    names = [name for bit, name in enumerate(INCOMPATIBLE) if incompatible >> bit & 1]
    names += ["lazy_refcounts"] * (compatible & 1) + ["bitmaps"] * (autoclear & BITMAPS_VALID)
    found.features = tuple(names)
    found.unknown_features = incompatible & ~(2 ** len(INCOMPATIBLE) - 1)
    if incompatible & CORRUPT:
        found.bad("it is marked as corrupt", "corrupt")
    if incompatible & DIRTY:
        found.note("dirty", "it was not closed, and its refcounts are rebuilt at the next writing")


def qcow2_tables(found: Inspected, head: bytes, cluster: int) -> None:
    """The tables that a header names, and whether the first of them covers the virtual size."""
    l1_entries, l1, reftable, reftable_clusters, found.snapshots, snapshots = struct.unpack_from(">IQQIIQ", head, 36)
    per_entry = cluster * (cluster // (16 if "extended_l2" in found.features else 8))
    if l1_entries * per_entry < (found.virtual_size or 0):
        found.bad(f"{l1_entries} entries of its L1 table do not cover its virtual size")
    if not reftable_clusters:
        found.bad("it has no refcount table")
    found.tables += [
        Table("L1 table", l1, l1_entries * 8, MOST_L1, cluster, cluster),
        Table("refcount table", reftable, reftable_clusters * cluster, MOST_REFTABLE, cluster, cluster),
        # 40 bytes are the least that a snapshot takes
        Table("snapshot table", snapshots, found.snapshots * 40, MOST_SNAPSHOTS * 40, cluster, cluster),
    ]
    if found.snapshots:
        found.note("snapshots", f"it has {found.snapshots} internal snapshots")


def qcow2_compression(found: Inspected, head: bytes, length: int, flag: bool) -> None:
    """The compression type and its feature bit come together."""
    kind = head[104] if length > 104 and len(head) > 104 else 0
    if kind > 1:
        found.bad(f"compression type {kind} is unknown")
    elif bool(kind) != flag:
        found.bad("its compression type and the bit for it contradict each other")


BACKING_FORMAT, DATA_FILE_NAME, CRYPTO, BITMAPS = 0xE2792ACA, 0x44415441, 0x0537BE77, 0x23852875


def qcow2_extensions(found: Inspected, area: bytes, offset: int, end: int) -> dict[int, Any]:
    """The header extensions by their magic: names as text, the others as bytes."""
    extensions: dict[int, Any] = {}
    while offset < end:
        if len(extensions) >= MOST_EXTENSIONS:
            found.bad(f"it has more than {MOST_EXTENSIONS} header extensions")
            return extensions
        if offset + 8 > len(area):
            # what a short file lacks reads as zeros, which end the list
            if len(area) == 64 * KIB:
                found.bad("its header extensions reach beyond 64 KiB")
            return extensions
        magic, length = struct.unpack_from(">II", area, offset)
        offset += 8
        if offset > end or length > end - offset or (magic and offset + length > len(area)):
            found.bad(f"its header extension {magic:#x} of {length} bytes does not fit")
            return extensions
        if not magic:
            return extensions
        data = area[offset : offset + length]
        if magic in extensions:
            found.bad(f"its header extension {magic:#x} is there twice")
            return extensions
        if magic == BACKING_FORMAT and length > 15:
            found.bad("the format of its backing file has more than 15 letters")
        extensions[magic] = text(data.partition(b"\0")[0]) if magic in (BACKING_FORMAT, DATA_FILE_NAME) else data
        offset += -(-length // 8) * 8
    return extensions


def name_at(found: Inspected, area: bytes, offset: int, length: int, end: int) -> str:
    """The name of a backing file; one that can't be read is still reported, as a question mark."""
    name = area[offset : offset + length]
    if not 1 <= length <= min(LONGEST_NAME, end - offset):
        found.bad(f"the name of its backing file can't have {length} bytes at {offset}")
        return "?"
    if len(name) < length:
        found.bad("the name of its backing file is cut short", "truncated")
        return "?"
    return text(name)


def qcow2_encryption(found: Inspected, read: Reader, method: int, extensions: dict[int, Any]) -> None:
    """The method and the header it needs: LUKS without its extension crashes qemu-img 7.2."""
    place = extensions.get(CRYPTO)
    if method > 2:
        return found.bad(f"encryption method {method} is unknown", "encryption")
    if method == 1:
        found.encrypted = "aes"
    if (method == 2) != (place is not None):
        return found.bad("its encryption method and its LUKS header contradict each other", "encryption")
    if place is None:
        return None
    found.encrypted = "luks"
    if len(place) != 16:
        return found.bad("the place of its LUKS header is not told in 16 bytes", "encryption")
    offset, length = struct.unpack(">QQ", place)
    found.tables.append(Table("LUKS header", offset, length, 1 << 32, 1 << (found.cluster_bits or 0)))
    if read.at(offset, 6) != b"LUKS\xba\xbe":
        found.bad("there is no LUKS header where it says", "encryption")
    return None


def qcow2_bitmaps(found: Inspected, data: bytes, cluster: int) -> None:
    """The directory of the persistent bitmaps."""
    if len(data) != 24:
        return found.bad("the place of its bitmaps is not told in 24 bytes")
    count, dummy, length, offset = struct.unpack(">IIQQ", data)
    if not 1 <= count <= MOST_BITMAPS or length < count * 24:
        return found.bad(f"a directory of {length} bytes can't hold {count} bitmaps")
    found.tables.append(Table("bitmap directory", offset, length, MOST_BITMAPS * 1056, cluster))
    return None


def qcow(found: Inspected, read: Reader, head: bytes) -> None:
    """A header of the first qcow."""
    if not whole(found, head, 48):
        return
    offset, length, dummy, found.virtual_size, bits, dummy, dummy, crypt, dummy = struct.unpack_from(
        ">QIIQBBHIQ", head, 8
    )
    found.version, found.cluster_bits = 1, bits
    found.encrypted = "aes" if crypt else ""
    if offset:
        found.backing = Backing(name_at(found, read.at(0, 64 * KIB), offset, length, 64 * KIB))


def qed(found: Inspected, read: Reader, head: bytes) -> None:
    """A QED header, whose first feature bit says that it has a backing file, and whose third that it is raw."""
    if not whole(found, head, 64):
        return
    features, offset, length = *struct.unpack_from("<Q", head, 16), *struct.unpack_from("<II", head, 56)
    found.virtual_size = struct.unpack_from("<Q", head, 48)[0]
    found.unknown_features = features & ~7
    if features & 2:
        found.note("dirty", "it was not closed")
    if features & 1:
        name = name_at(found, read.at(0, 64 * KIB), offset, length, 64 * KIB)
        found.backing = Backing(name, "raw" if features & 4 else None)


# vmdk --------------------------------------------------------------------------------------------------------------

AT_END = 2**64 - 1
DESCRIPTOR_AT, DESCRIPTOR_SECTORS, MOST_DESCRIPTOR = 512, 20, 64 * KIB  # where QEMU looks for the parent's name
CID_DIGITS = 8  # at most, of the number by which a VMDK tells its content
EXTENT = re.compile(
    rb"^[ \t]*(?:RW|RDONLY|NOACCESS)\s+(\d{1,18})\s+([A-Z0-9]{1,20})(?:\s+\"([^\"\n]*)\")?",
    re.MULTILINE | re.IGNORECASE,
)
CREATE_TYPE = re.compile(rb"createType\s*=\s*\"([^\"\n]{0,60})\"", re.IGNORECASE)
# QEMU takes the first mention, in a comment as well
PARENT_HINT = re.compile(rb"parentFileNameHint(?:\s*=\s*\"([^\"\n]{0,1023})\")?", re.IGNORECASE)
PARENT_CID = re.compile(rb"parentCID\s*=\s*([0-9a-f]{1,8})", re.IGNORECASE)
SPARSE_TYPES = ("monolithicsparse", "streamoptimized")


def vmdk(found: Inspected, read: Reader, head: bytes) -> None:
    """A sparse extent with its descriptor inside, or a descriptor that names other files."""
    if head.startswith(b"KDMV"):
        return vmdk_sparse(found, read, head)
    if head.startswith((b"COWD", b"\xbe\xba\xfe\xca")):
        found.variant = "vmfsSparse" if head.startswith(b"COWD") else "seSparse"
        return found.bad("it is an extent of a disk that another file describes", "external_extents")
    described = read.at(0, MOST_DESCRIPTOR)
    if read.size > MOST_DESCRIPTOR:
        found.bad(f"its descriptor has more than {MOST_DESCRIPTOR} bytes")
    extents = vmdk_descriptor(found, described)
    found.extents = tuple(one.name for one in extents if one.name)
    found.virtual_size = sum(one.sectors for one in extents) * SECTOR
    if not found.extents:
        found.bad("it is a descriptor, and no disk", "external_extents")
    return None


def vmdk_sparse(found: Inspected, read: Reader, head: bytes) -> None:
    """The header of a sparse extent; of a stream, the copy at its end wins."""
    if not whole(found, head, SECTOR):
        return
    described_at, described_sectors = struct.unpack_from("<QQ", head, 28)
    vmdk_embedded(found, read, described_at, described_sectors)
    if struct.unpack_from("<Q", head, 56)[0] == AT_END:
        footer = vmdk_footer(found, read)
        if footer is None:
            return
        if footer[:64][:56] != head[:56]:
            found.bad("the header and the footer contradict each other")
        head = footer
    found.version, flags, capacity, grain = struct.unpack_from("<IIQQ", head, 4)
    entries, backup, directory, overhead = struct.unpack_from("<IQQQ", head, 44)
    found.virtual_size = capacity * SECTOR
    if not 1 <= (found.version or 0) <= 3:
        found.bad(f"VMDK has no version {found.version}")
    if not 1 <= entries <= 512 or grain & (grain - 1) or not 1 <= grain <= 0x200000:
        return found.bad(f"{entries} grains of {grain} sectors can't be")
    found.cluster_bits = (grain * SECTOR).bit_length() - 1
    if head[72]:
        found.note("dirty", "it was not closed")
    length = -(-capacity // (entries * grain)) * 4
    found.tables.append(Table("grain directory", directory * SECTOR, length))
    if flags & 2:
        found.tables.append(Table("second grain directory", backup * SECTOR, length))
    if overhead * SECTOR > read.size:
        found.bad(f"its data would begin at {overhead * SECTOR}, after its end", "truncated")
    return None


def vmdk_footer(found: Inspected, read: Reader) -> bytes | None:
    """The copy of the header at the end of a stream."""
    footer = read.at(-(-read.size // SECTOR) * SECTOR - 3 * SECTOR, 3 * SECTOR)
    ends = [struct.unpack_from("<QII", footer.ljust(3 * SECTOR, b"\0"), offset) for offset in (0, 2 * SECTOR)]
    if footer[SECTOR : SECTOR + 4] != b"KDMV" or ends[0][1:] != (0, 3) or ends[1] != (0, 0, 0):
        found.bad("the footer at the end of its stream is missing", "truncated")
        return None
    if struct.unpack_from("<Q", footer, SECTOR + 56)[0] == AT_END:
        found.bad("its footer names another one")
        return None
    return footer[SECTOR : 2 * SECTOR]


def ends_at_nul(text: bytes) -> bool:
    """Whether nothing follows a descriptor's first NUL but what QEMU itself leaves there.

    It writes the text again with another CID, of up to 7 digits less, and not over the last letters of the old one;
    those are the last letters of the new one too.
    """
    kept, dummy, rest = text.rstrip(b"\0").partition(b"\0")
    return not rest or (len(rest) < CID_DIGITS - 1 and kept.endswith(rest))


def vmdk_embedded(found: Inspected, read: Reader, sector: int, sectors: int) -> None:
    """The descriptor in a sparse extent, which must be where every tool looks for it and name nothing else."""
    if sector * SECTOR != DESCRIPTOR_AT or sectors * SECTOR > MOST_DESCRIPTOR:
        what = "external_extents" if not sector else "bad_header"
        found.bad(f"{sectors} sectors of descriptor at sector {sector} are not what a single file has", what)
    described = read.at(DESCRIPTOR_AT, max(min(sectors * SECTOR, MOST_DESCRIPTOR), DESCRIPTOR_SECTORS * SECTOR))
    if not ends_at_nul(described[: sectors * SECTOR]):
        found.bad("its descriptor goes on behind a NUL, where some tools stop reading")
    extents = vmdk_descriptor(found, described)
    if found.variant.lower() not in SPARSE_TYPES:
        found.bad(f"a VMDK of type {found.variant!r} is more than one file", "external_extents")
    itself = len(extents) == 1 and extents[0].kind == "SPARSE" and not re.search(r"[/\\:]", extents[0].name)
    found.extents = () if itself else tuple(one.name or one.kind for one in extents)
    if not extents:
        found.bad("its descriptor does not name itself as the only extent", "external_extents")


class Extent(NamedTuple):
    """A line of a descriptor."""

    sectors: int
    kind: str
    name: str


def vmdk_descriptor(found: Inspected, described: bytes) -> list[Extent]:
    """The extents of a descriptor; its type and its parent."""
    types = {ascii_of(one) for one in CREATE_TYPE.findall(described)}
    found.variant = types.pop() if len(types) == 1 else ""
    hint, parent = PARENT_HINT.search(described), PARENT_CID.search(described)
    if hint:
        found.backing = Backing(text(hint[1] or b"") or "?")
    elif parent and int(parent[1], 16) != 0xFFFFFFFF:
        found.backing = Backing("?")
    lines = EXTENT.finditer(described)
    return [Extent(int(line[1]), ascii_of(line[2]).upper(), text(line[3] or b"")) for line in lines]


def ascii_of(data: bytes) -> str:
    return data.decode("ascii", "replace")


# vdi, vpc ----------------------------------------------------------------------------------------------------------

VDI_VARIANTS = {1: "dynamic", 2: "fixed", 3: "undo", 4: "differencing"}


def vdi(found: Inspected, read: Reader, head: bytes) -> None:
    """A VDI header of version 1.1."""
    if not whole(found, head, SECTOR):
        return
    found.version, dummy, kind = struct.unpack_from("<III", head, 68)
    blocks_at, data_at = struct.unpack_from("<II", head, 340)
    sector, dummy, size, block, extra, blocks, used = struct.unpack_from("<IIQIIII", head, 360)
    found.virtual_size = -(-size // SECTOR) * SECTOR
    found.variant = VDI_VARIANTS.get(kind, "")
    if found.version != 0x10001:
        found.bad(f"version {(found.version or 0) >> 16}.{(found.version or 0) & 0xFFFF} of VDI is unknown")
    if found.variant in ("", "undo"):
        found.bad(f"a VDI of type {kind} is no disk")
    if found.variant == "differencing" or any(head[424:456]):
        found.backing = Backing("?")
    if sector != SECTOR or block != MIB or extra:
        found.bad(f"blocks of {block} bytes and sectors of {sector} are unknown")
    elif size > blocks * block or used > blocks:
        found.bad(f"{used} used blocks of {blocks} do not go with its virtual size")
    else:
        found.cluster_bits = 20
    if data_at % SECTOR:
        found.bad(f"its data would begin at {data_at}, which is no sector")
    if data_at + used * block > read.size:
        found.bad(f"its {used} used blocks of {block} bytes do not fit into it", "truncated")
    found.tables.append(Table("block map", blocks_at, blocks * 4, align=SECTOR))


VPC_VARIANTS = {2: "fixed", 3: "dynamic", 4: "differencing"}
# Who writes the size into the footer rather than into the geometry: the table of QEMU's vpc_open().
SIZE_BY_FOOTER = (b"win ", b"qem2", b"d2v ", b"CTXS", b"tap")
LARGEST_GEOMETRY, MOST_VPC_SECTORS = 65535 * 16 * 255, 0xFF000000


def vpc(found: Inspected, read: Reader, head: bytes) -> None:
    """A VHD footer: a fixed disk has it at its end, any other also at its start."""
    first = head[:SECTOR] if head.startswith(b"conectix") else b""
    last = read.at(read.size - SECTOR, SECTOR) if read.size >= SECTOR else b""
    footer = first or last
    if not whole(found, footer, SECTOR, "footer"):
        return
    kind = struct.unpack_from(">I", footer, 60)[0]
    found.variant = VPC_VARIANTS.get(kind, "")
    found.virtual_size = vpc_size(found, footer)
    if found.virtual_size > MOST_VPC_SECTORS * SECTOR:
        found.bad("its virtual size is above what a VHD can have")
    if not found.variant or (found.variant == "fixed") != (not first):
        found.bad(f"a VHD of type {kind} has its footer elsewhere")
    if first and first != last:
        found.bad("the footer at its end is missing or differs from the copy at its start", "truncated")
    if checksum(footer, 64) != struct.unpack_from(">I", footer, 64)[0]:
        found.bad("the checksum of its footer is wrong")
    if found.variant == "differencing":
        found.backing = Backing("?")
    if first:
        vpc_dynamic(found, read, struct.unpack_from(">Q", footer, 16)[0])
    elif found.virtual_size > read.size - SECTOR:
        found.bad("it is shorter than the disk in it", "truncated")


def vpc_size(found: Inspected, footer: bytes) -> int:
    """The virtual size as QEMU tells it, by the footer's creator: from the size, or from the geometry."""
    size, cylinders, heads, sectors = struct.unpack_from(">QHBB", footer, 48)
    geometry = cylinders * heads * sectors
    if footer[28:32].startswith(SIZE_BY_FOOTER) or geometry == LARGEST_GEOMETRY:
        return size
    if geometry * SECTOR < size:
        found.note("two_sizes", f"its geometry has {geometry * SECTOR} bytes, its footer says {size}: tools differ")
    return geometry * SECTOR


def vpc_dynamic(found: Inspected, read: Reader, offset: int) -> None:
    """The header of a VHD that grows, and what it says of a parent."""
    header = read.at(offset, KIB)
    if not whole(found, header, KIB, "dynamic disk header"):
        return
    if not header.startswith(b"cxsparse"):
        return found.bad(f"there is no dynamic disk header at {offset}")
    if checksum(header, 36) != struct.unpack_from(">I", header, 36)[0]:
        found.bad("the checksum of its dynamic disk header is wrong")
    table, dummy, entries, block = struct.unpack_from(">QIII", header, 16)
    if block < SECTOR or block & (block - 1) or block > 256 * MIB:
        return found.bad(f"blocks of {block} bytes can't be")
    found.cluster_bits = block.bit_length() - 1
    if entries * block < (found.virtual_size or 0):
        found.bad(f"{entries} blocks of {block} bytes do not hold its virtual size")
    found.tables.append(Table("block table", table, entries * 4))
    # the parent's UUID, its name and the places of its locators
    if any(header[40:56]) or any(header[64:768]):
        name = header[64:576].decode("utf-16-be", "replace").partition("\0")[0]
        found.backing = Backing(name.encode("utf-8", "replace").decode("utf-8") or "?")
    return None


def checksum(data: bytes, at: int) -> int:
    """The ones' complement of the sum of a VHD header's bytes without the checksum itself."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


# vhdx --------------------------------------------------------------------------------------------------------------


def guid(words: str) -> bytes:
    """A GUID as Windows stores it: the first three numbers little-endian."""
    parts = words.split("-")
    return b"".join(bytes.fromhex(part)[::-1] for part in parts[:3]) + bytes.fromhex("".join(parts[3:]))


BAT = guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_DISK_SIZE = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
LOGICAL_SECTOR_SIZE = guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR_SIZE = guid("cda348c7-445d-4471-9cc9-e9885251c556")
PAGE_83 = guid("beca12ab-b2e6-4523-93ef-c309e000c746")
PARENT_LOCATOR = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
NEEDED = {FILE_PARAMETERS: 8, VIRTUAL_DISK_SIZE: 8, LOGICAL_SECTOR_SIZE: 4, PHYSICAL_SECTOR_SIZE: 4, PAGE_83: 16}
HAS_PARENT = 2
HEADERS, REGIONS = (64 * KIB, 128 * KIB), (192 * KIB, 256 * KIB)
MOST_ENTRIES = 128  # the format allows 2047, tools write 2 and 6


def vhdx(found: Inspected, read: Reader, head: bytes) -> None:
    """A VHDX by its region table and its metadata."""
    for offset in HEADERS:
        header = read.at(offset, 80)
        if header[:4] == b"head" and any(header[48:64]):
            # its replay changes anything, also what is read below
            found.bad("its log holds writes that were never finished", "log")
            break
    first, second = (vhdx_entries(read.at(offset, 16 + 32 * MOST_ENTRIES), b"regi", 8) for offset in REGIONS)
    if first is None:
        return found.bad("its region table can't be read")
    if second != first:
        found.bad("its two region tables differ")
    regions: dict[bytes, tuple[int, int]] = {}
    for entry in first:
        offset, length, required = struct.unpack_from("<QII", entry, 16)
        if entry[:16] in regions:
            found.bad("a region is there twice")
        if entry[:16] not in (BAT, METADATA) and required & 1:
            found.unknown_features |= 1
        regions.setdefault(entry[:16], (offset, length))
    if BAT not in regions or METADATA not in regions:
        return found.bad("it has no block table or no metadata")
    for (offset, length), name in ((regions[BAT], "block table"), (regions[METADATA], "metadata")):
        found.tables.append(Table(name, offset, length, align=MIB))
        if offset < MIB:
            found.bad(f"its {name} would lie in its header")
    items = vhdx_items(found, read, *regions[METADATA])
    vhdx_metadata(found, items, regions[BAT][1])
    return None


def vhdx_entries(data: bytes, magic: bytes, count_at: int) -> list[bytes] | None:
    """The 32-byte entries of a region or a metadata table; None where it is none."""
    start = 16 if magic == b"regi" else 32
    if not data.startswith(magic) or len(data) < start:
        return None
    count = struct.unpack_from("<H" if start == 32 else "<I", data, count_at)[0]
    if count > MOST_ENTRIES or len(data) < start + 32 * count:
        return None
    return [data[start + 32 * number : start + 32 * number + 32] for number in range(count)]


def vhdx_items(found: Inspected, read: Reader, at: int, region: int) -> dict[bytes, bytes]:
    """The metadata that QEMU asks for, and whether a parent is named."""
    entries = vhdx_entries(read.at(at, 32 + 32 * MOST_ENTRIES), b"metadata", 10)
    if entries is None:
        found.bad("its metadata can't be read")
        return {}
    items: dict[bytes, bytes] = {}
    for entry in entries:
        kind, (offset, length, flags) = entry[:16], struct.unpack_from("<III", entry, 16)
        if kind in items:
            found.bad("an item of its metadata is there twice")
        if kind == PARENT_LOCATOR:
            found.backing = Backing("?")
        elif kind not in NEEDED and flags & 4:
            found.unknown_features |= 2
        if offset + length > region:
            found.bad("an item of its metadata lies outside them")
        elif kind in NEEDED:
            items.setdefault(kind, read.at(at + offset, NEEDED[kind]))
    return items


def vhdx_metadata(found: Inspected, items: dict[bytes, bytes], table: int) -> None:
    """The virtual size, the parent's flag and the block size, whose table must cover the disk."""
    for kind, length in NEEDED.items():
        if len(items.get(kind, b"")) < length:
            return found.bad("its metadata lack what every VHDX has")
    block, flags = struct.unpack("<II", items[FILE_PARAMETERS])
    found.virtual_size = struct.unpack("<Q", items[VIRTUAL_DISK_SIZE])[0]
    sector = struct.unpack("<I", items[LOGICAL_SECTOR_SIZE])[0]
    found.variant = "differencing" if flags & HAS_PARENT else "fixed" if flags & 1 else "dynamic"
    if flags & HAS_PARENT:
        found.backing = Backing("?")
    if not MIB <= block <= 256 * MIB or block & (block - 1) or sector not in (SECTOR, 4096):
        return found.bad(f"blocks of {block} bytes with sectors of {sector} can't be")
    found.cluster_bits = block.bit_length() - 1
    blocks = -(-(found.virtual_size or 0) // block)
    # one entry for a bitmap after each chunk of 2^23 sectors
    if (blocks + blocks // max((sector << 23) // block, 1)) * 8 > table:
        found.bad("its block table does not cover its virtual size")
    if (found.virtual_size or 0) % sector:
        found.bad("its virtual size is no whole number of sectors")
    return None


# luks, and what is named only --------------------------------------------------------------------------------------


def luks(found: Inspected, read: Reader, head: bytes) -> None:
    """A LUKS header; the size of the disk in it is told by version 1 alone."""
    if not whole(found, head, 592):
        return
    found.encrypted, found.version = "luks", struct.unpack_from(">H", head, 6)[0]
    if found.version == 1:
        found.virtual_size = max(read.size - struct.unpack_from(">I", head, 104)[0] * SECTOR, 0)


def cow(found: Inspected, read: Reader, head: bytes) -> None:
    """UML's cow, which libvirt still follows."""
    name = head[8:1032].partition(b"\0")[0]
    found.backing = Backing(text(name)) if name else None


PARSERS: dict[str, Callable[[Inspected, Reader, bytes], None]] = {
    "qcow2": qcow2,
    "qcow": qcow,
    "qed": qed,
    "vmdk": vmdk,
    "vdi": vdi,
    "vpc": vpc,
    "vhdx": vhdx,
    "luks": luks,
    "cow": cow,
}
