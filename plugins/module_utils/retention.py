# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots a retention keeps, and why; it looks at names and times alone.

The rules are those of restic forget and borg prune: each keeps the newest snapshot of as many of its periods as it
says, and a period without a snapshot does not count. Periods are those of UTC, weeks those of ISO 8601.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

# rule: the period that a time lies in, as text; the order is that of the reasons
PERIODS = {"hourly": "%Y-%m-%d %H", "daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m", "yearly": "%Y"}
RULES = ("last", *PERIODS)
NO_RULE = "no rule keeps it"
NO_TIME = "its time is not known"


def period(rule: str, time: float) -> str:
    """The period of a rule that a time lies in."""
    return datetime.fromtimestamp(time, timezone.utc).strftime(PERIODS[rule])


def kept(snapshots: Iterable[tuple[str, float | None]], rules: dict[str, int]) -> dict[str, list[str]]:
    """The names that stay, newest first, each with the reasons; every other one may go.

    snapshots are names with seconds since the epoch. What has no time stays: no rule can speak of it.
    """
    every = list(snapshots)
    timed = sorted(((time, name) for name, time in every if time is not None), reverse=True)
    reasons: dict[str, list[str]] = {name: [] for dummy, name in timed}
    for number, newest in enumerate(timed[: rules.get("last") or 0], 1):
        reasons[newest[1]].append(f"last {number}")
    for rule in PERIODS:
        left, seen = rules.get(rule) or 0, None
        for time, name in timed:
            found = period(rule, time)
            if left and found != seen:
                reasons[name].append(f"{rule} {found}")
                left, seen = left - 1, found
    return {
        **{name: why for name, why in reasons.items() if why},
        **{name: [NO_TIME] for name, at in every if at is None},
    }
