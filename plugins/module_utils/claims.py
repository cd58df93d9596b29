# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Up to where a disk is claimed by what stands on it: partition tables, file systems and LVM tell it themselves.

A guest writes all of this, so it decides nothing but whether the guest's own disk may get smaller.
Sources: the UEFI specification (GPT), the kernel's ext4 and XFS documentation, lvm2's format_text, mkswap(8).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD = 128 * 1024  # holds the beginnings of all that is known here, btrfs among them
SECTOR = 512
TABLE, ENTRY = 446, 16  # where the partitions of an MBR stand
PROTECTIVE = 0xEE
BOOT_SECTORS = ((3, b"NTFS"), (3, b"EXFAT"), (54, b"FAT"), (82, b"FAT32"))
JUMPS = (0xEB, 0xE9)


@dataclass(frozen=True)
class Claim:
    """What claims a disk, and the first byte behind it."""

    what: str
    end: int


def of(head: bytes) -> list[Claim] | None:
    """The claims of what a disk begins with; none for a blank one, None for what is not known here."""
    if not head.strip(b"\0"):
        return []
    found = [*gpt(head), *mbr(head), *ext(head), *xfs(head), *lvm(head), *swap(head)]
    return found or None


def number(data: bytes, form: str, offset: int) -> int:
    """A number at its place; 0 where the data ends before."""
    return struct.unpack_from(form, data, offset)[0] if offset + struct.calcsize(form) <= len(data) else 0


def gpt(head: bytes) -> list[Claim]:
    """A GPT has its second header in the last sector of the disk that it was made for."""
    for sector in (512, 4096):
        if head.startswith(b"EFI PART", sector):
            own, other, dummy, last = struct.unpack_from("<4Q", head, sector + 24)
            return [Claim("a GPT", (max(own, other, last) + 1) * sector)]
    return []


def mbr(head: bytes) -> list[Claim]:
    """The last sector of any partition; a FAT or NTFS boot sector looks alike and tells nothing here."""
    if head[510:512] != b"\x55\xaa" or any(head.startswith(words, at) for at, words in BOOT_SECTORS):
        return []
    entries = [head[at : at + ENTRY] for at in range(TABLE, 510, ENTRY)]
    if any(one[0] not in (0, 0x80) for one in entries):
        return []
    used = [one for one in entries if one[4]]
    if any(one[4] == PROTECTIVE for one in used):
        return []  # what it protects is a GPT, which tells by itself
    if not used and head[0] in JUMPS:
        return []
    ends = [(number(one, "<I", 8) + number(one, "<I", 12)) * SECTOR for one in used]
    return [Claim("a partition table", max(ends, default=SECTOR))]


def ext(head: bytes) -> list[Claim]:
    if number(head, "<H", 1024 + 56) != 0xEF53:
        return []
    wide = number(head, "<I", 1024 + 0x60) & 0x80  # INCOMPAT_64BIT
    blocks = number(head, "<I", 1024 + 4) | (number(head, "<I", 1024 + 0x150) << 32 if wide else 0)
    return [Claim("an ext file system", blocks * (1024 << min(number(head, "<I", 1024 + 0x18), 32)))]


def xfs(head: bytes) -> list[Claim]:
    if not head.startswith(b"XFSB"):
        return []
    return [Claim("an XFS file system", number(head, ">I", 4) * number(head, ">Q", 8))]


def lvm(head: bytes) -> list[Claim]:
    """The label lies in one of the first four sectors and leads to the size of the device."""
    for at in range(0, 4 * SECTOR, SECTOR):
        if head.startswith(b"LABELONE", at) and head.startswith(b"LVM2 001", at + 24):
            return [Claim("an LVM physical volume", number(head, "<Q", at + number(head, "<I", at + 20) + 32))]
    return []


def swap(head: bytes) -> list[Claim]:
    for page in (4096, 65536):
        if head.startswith(b"SWAPSPACE2", page - 10):
            return [Claim("swap", (number(head, "<I", 1028) + 1) * page)]
    return []
