# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pairs of measurements, the ratios between them, and the table that they end in."""

from __future__ import annotations

import math
import operator
import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Side = Callable[[], float]
BOUNDS = {"at least": operator.ge, "at most": operator.le}


def pairs(count: int, ours: Side, theirs: Side) -> tuple[list[float], list[float]]:
    """Measure A B A B, so that whatever else the machine does falls on both."""
    found = [(ours(), theirs()) for dummy in range(count)]
    return [pair[0] for pair in found], [pair[1] for pair in found]


def spread(values: Sequence[float], form: str) -> str:
    """The median, and from where to where where there are several."""
    text = format(statistics.median(values), form)
    return text if len(values) == 1 else f"{text} ({min(values):{form}}-{max(values):{form}})"


@dataclass(frozen=True)
class Row:
    """One line of the table; what is not required is only shown."""

    what: str
    ours: str
    theirs: str
    ratio: str
    required: str = ""
    ok: bool = True

    @property
    def verdict(self) -> str:
        return "" if not self.required else "ok" if self.ok else "MISSED"


def bounded(value: float, required: str) -> bool:
    """Whether a value keeps to "at least 20", "at most 1.5" or "0.8 to 1.25"; where nothing is required, it does."""
    if not required:
        return True
    if " to " in required:
        low, high = map(float, required.split(" to "))
        return low <= value <= high
    bound, dummy, limit = required.rpartition(" ")
    return BOUNDS[bound](value, float(limit))


def times_as_fast(what: str, ours: list[float], theirs: list[float], required: str = "") -> Row:
    """How many times as fast ours is, pair by pair."""
    return compared(what, ours, theirs, [b / a for a, b in zip(ours, theirs)], required)


def times_the_cost(what: str, ours: list[float], theirs: list[float], required: str = "") -> Row:
    """How many times as long ours takes, pair by pair."""
    return compared(what, ours, theirs, [a / b for a, b in zip(ours, theirs)], required)


def more_than(what: str, ours: list[float], theirs: list[float], required: str = "") -> Row:
    """How many seconds more ours takes, pair by pair."""
    more = [a - b for a, b in zip(ours, theirs)]
    ok = bounded(statistics.median(more), required)
    return Row(
        what, seconds(ours), seconds(theirs), f"{spread(more, '+.3f')} s", f"{required} s" if required else "", ok
    )


def compared(what: str, ours: list[float], theirs: list[float], ratios: list[float], required: str) -> Row:
    form = ".0f" if statistics.median(ratios) >= 20 else ".2f"
    ok = bounded(statistics.median(ratios), required)
    return Row(what, seconds(ours), seconds(theirs), spread(ratios, form), required, ok)


def seconds(values: list[float]) -> str:
    """Three digits or so: 0.123 s, 12.3 s, 1234 s."""
    digits = max(0, 2 - math.floor(math.log10(statistics.median(values))))
    return spread(values, f".{min(digits, 3)}f") + " s"


def steady(what: str, first: float, second: float, required: str = "") -> Row:
    """Whether a cost per item stays the same from a first stretch to a second, both in seconds an item."""
    ratio = second / first
    return Row(
        what, f"{first:.3f} s an item", f"{second:.3f} s an item", f"{ratio:.2f}", required, bounded(ratio, required)
    )


def line(what: str, sizes: Sequence[int], times: Sequence[float], required: str = "") -> Row:
    """The last of three measurements against the line through the first two."""
    slope = (times[1] - times[0]) / (sizes[1] - sizes[0])
    on_line = times[0] + slope * (sizes[2] - sizes[0])
    ratio = times[2] / on_line
    measured = ", ".join(f"{one:.2f}" for one in times)
    return Row(what, f"{measured} s", f"{on_line:.2f} s", f"{ratio:.2f}", required, bounded(ratio, required))


def table(rows: list[Row]) -> str:
    """All rows below each other, long words broken into lines."""
    widths = (56, 24, 24, 20, 14, 6)
    header = ("ours; theirs", "ours", "theirs", "ratio", "required", "")
    lines = []
    for row in [header, *((row.what, row.ours, row.theirs, row.ratio, row.required, row.verdict) for row in rows)]:
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths)]
        for number in range(max(map(len, cells))):
            parts = (cell[number] if number < len(cell) else "" for cell in cells)
            lines.append("  ".join(f"{part:<{width}}" for part, width in zip(parts, widths)).rstrip())
        if row is header:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)
