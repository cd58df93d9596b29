# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots a retention keeps: tables of what it means, and what holds for any snapshots and rules."""

from __future__ import annotations

import random
from calendar import timegm
from time import strptime

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import retention

ROUNDS = 500


def at(text):
    """Seconds of a time in UTC; a day alone is its noon."""
    return timegm(strptime(text if " " in text else f"{text} 12:00", "%Y-%m-%d %H:%M"))


def kept(times, **rules):
    """The times that stay, the newest first; each is its own name."""
    return list(retention.kept([(text, at(text)) for text in times], rules))


DAYS = ["2026-01-29", "2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]


@pytest.mark.parametrize(
    ("times", "rules", "stay"),
    [
        (DAYS, {"last": 2}, ["2026-02-02", "2026-02-01"]),
        (DAYS, {"last": 9}, DAYS[::-1]),
        (DAYS, {"daily": 3}, ["2026-02-02", "2026-02-01", "2026-01-31"]),
        (DAYS, {"monthly": 2}, ["2026-02-02", "2026-01-31"]),
        (DAYS, {"monthly": 9}, ["2026-02-02", "2026-01-31"]),
        (DAYS, {"yearly": 1}, ["2026-02-02"]),
        # the week of ISO 8601 begins on Monday, here the 2nd of February
        (DAYS, {"weekly": 2}, ["2026-02-02", "2026-02-01"]),
        # the 1st of January 2027 is in week 53 of 2026, and that is one week with the 31st of December
        (["2026-12-31", "2027-01-01", "2027-01-04"], {"weekly": 9}, ["2027-01-04", "2027-01-01"]),
        (["2026-12-31", "2027-01-01"], {"yearly": 9}, ["2027-01-01", "2026-12-31"]),
        # several a day: the newest of each
        (
            ["2026-01-01 00:00", "2026-01-01 23:59", "2026-01-02 00:00"],
            {"daily": 2},
            ["2026-01-02 00:00", "2026-01-01 23:59"],
        ),
        (
            ["2026-01-01 00:00", "2026-01-01 00:59", "2026-01-01 01:00"],
            {"hourly": 2},
            ["2026-01-01 01:00", "2026-01-01 00:59"],
        ),
        # days without one do not count
        (["2025-06-01", "2025-12-24", "2026-01-31"], {"daily": 2}, ["2026-01-31", "2025-12-24"]),
        # rules add up
        (DAYS, {"last": 1, "monthly": 2}, ["2026-02-02", "2026-01-31"]),
        (DAYS, {"daily": 2, "last": 0}, ["2026-02-02", "2026-02-01"]),
        ([], {"daily": 2}, []),
        (DAYS, {}, []),
    ],
)
def test_what_stays(times, rules, stay):
    assert kept(times, **rules) == stay


def test_the_reasons_are_told():
    found = retention.kept([(day, at(day)) for day in DAYS], {"last": 1, "daily": 2, "monthly": 2, "yearly": 1})
    assert found == {
        "2026-02-02": ["last 1", "daily 2026-02-02", "monthly 2026-02", "yearly 2026"],
        "2026-02-01": ["daily 2026-02-01"],
        "2026-01-31": ["monthly 2026-01"],
    }


def test_what_has_no_time_stays():
    assert retention.kept([("a", None), ("b", 5.0), ("c", 4.0)], {"last": 1}) == {
        "b": ["last 1"],
        "a": [retention.NO_TIME],
    }


def some_snapshots(chance):
    """Times over some years, dense in places, and now and then the same."""
    start = at("2024-01-01") + chance.randrange(10**8)
    steps = [chance.choice([0, 60, 3600, 86400, 40 * 86400]) * chance.random() for dummy in range(chance.randrange(40))]
    return [(f"s{number}", start + sum(steps[:number])) for number in range(len(steps))]


def test_what_holds_for_any():
    chance = random.Random(4)
    for _round in range(ROUNDS):
        snapshots = some_snapshots(chance)
        names = {name for name, time in snapshots}
        times = dict(snapshots)
        rules = {rule: chance.randrange(5) for rule in retention.RULES if chance.random() < 0.5}
        found = retention.kept(snapshots, rules)
        # only what was there, at most as many as the rules say, each with its reasons
        assert set(found) <= names
        assert len(found) <= sum(rules.values())
        assert all(found.values())
        # whatever the order that they are given in
        shuffled = chance.sample(snapshots, len(snapshots))
        assert retention.kept(shuffled, rules) == found
        # again over what was kept, nothing goes: a second run changes nothing
        assert set(retention.kept([one for one in snapshots if one[0] in found], rules)) == set(found)
        # the newest stays under any rule
        if any(rules.values()) and snapshots:
            assert max(times.values()) == max(times[name] for name in found)
        # more of a rule keeps more
        more = {rule: number + 1 for rule, number in rules.items()}
        assert set(found) <= set(retention.kept(snapshots, more))
        # each period that counts has its newest, and no rule counts a period twice
        for rule in retention.PERIODS:
            mine = [name for name, why in found.items() if any(one.startswith(f"{rule} ") for one in why)]
            periods = [retention.period(rule, times[name]) for name in mine]
            assert len(set(periods)) == len(periods) <= rules.get(rule, 0)
            for name, period in zip(mine, periods):
                assert times[name] == max(time for time in times.values() if retention.period(rule, time) == period)
            newest = sorted({retention.period(rule, time) for time in times.values()}, reverse=True)
            assert sorted(periods, reverse=True) == newest[: rules.get(rule, 0)]


def test_time_is_that_of_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")  # 14 hours ahead
    assert retention.period("daily", at("2026-01-01 23:30")) == "2026-01-01"
