# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes with the units of libvirt, which are not those of Ansible's own filters.

Source: virScaleInteger in libvirt's src/util/virutil.c and the volume page of the format reference:
a bare letter or XiB counts in powers of 1024, XB in powers of 1000, case does not matter.
"""

from __future__ import annotations

import re

LARGEST = 2**63 - 1
LETTERS = "kmgtpe"
PATTERN = re.compile(r"\s*(\d{1,40})(?:\.(\d{1,40}))?\s*([A-Za-z]*)\s*", re.ASCII)


def factor(unit: str) -> int | None:
    """Bytes in one of the unit, or None for a unit that libvirt does not know."""
    unit = unit.lower()
    if unit in ("", "b", "byte", "bytes"):
        return 1
    if unit[0] not in LETTERS or unit[1:] not in ("", "b", "ib"):
        return None
    return (1000 if unit[1:] == "b" else 1024) ** (LETTERS.index(unit[0]) + 1)


def parse(text: str | int) -> int:
    """Bytes of a size such as 10GiB, 10G, 10GB or 10737418240; ValueError says what is wrong with it."""
    match = PATTERN.fullmatch(str(text))
    if match is None or isinstance(text, bool):
        raise ValueError("a whole or decimal number with a unit such as 20GiB")
    scale = factor(match.group(3))
    if scale is None:
        raise ValueError("one of libvirt's units: B, or K, M, G, T, P or E alone or followed by iB or B")
    decimals = match.group(2) or ""
    size, rest = divmod(int(match.group(1) + decimals) * scale, 10 ** len(decimals))
    if rest:
        raise ValueError("a size that is a whole number of bytes")
    if size > LARGEST:
        raise ValueError(f"at most {LARGEST} bytes, the largest size that libvirt can hold")
    return size


def readable(size: int) -> str:
    """A size for people, in binary units: 20.0 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if round(value, 1) < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} EiB"


def both(size: int) -> str:
    """Readable and exact, as shown in diffs: 20.0 GiB (21474836480)."""
    return f"{readable(size)} ({size})"
