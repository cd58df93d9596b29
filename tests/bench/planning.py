# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Planning many volumes: a layout in check mode, where none of them is there yet or all are."""

from __future__ import annotations

from typing import Any

from .controller import Tasks
from .host import Host, as_count, volumes
from .measure import Row, bounded, line, pairs, times_the_cost

NEW, THERE = "planned", "there"
LARGEST_MB = "at most 200"


def run(host: Host, quick: bool) -> list[Row]:
    sizes, repeat = ((100, 300, 1000), 1) if quick else ((1000, 3000, 10000), 3)
    large = sizes[-1]
    given = {size: host.controller.write(f"planning{size}.yml", {"volumes": volumes(NEW, size)}) for size in sizes}

    def play(tasks: Tasks, size: int, changed: bool) -> float:
        return host.controller.play(tasks, variables=given[size], check=True, changed=changed).seconds

    listed = host.layout(pools=[host.pool(NEW)], volumes="{{ volumes }}")
    noop = host.noop(pools=[host.pool(NEW)], volumes="{{ volumes }}")
    counted = host.layout(pools=[host.pool(NEW)], volumes=as_count(NEW, large))
    ours, theirs = pairs(repeat, lambda: play(listed, large, True), lambda: play(noop, large, False))
    by_count = [host.controller.play(counted, check=True, changed=True).seconds for dummy in range(repeat)]
    used = [least_used(host, listed, given[size], 1 if quick else 3) for size in sizes]
    memory = used[-1][0]
    what, linear = f"plan {large} new volumes", "" if quick else "0.8 to 1.25"
    through = f"{what}: processor time of the module for {', '.join(map(str, sizes))}; the line through the first two"
    return [
        times_the_cost(f"{what}, listed; a no-op module that receives the same", ours, theirs, "at most 1.5"),
        times_the_cost(f"{what} as one item with count; listed", by_count, ours),
        line(through, sizes, [seconds for dummy, seconds in used], linear),
        Row(f"{what}, listed: most memory", f"{memory:.0f} MB", "", "", LARGEST_MB, bounded(memory, LARGEST_MB)),
        there(host, large, 1 if quick else 2),
    ]


def least_used(host: Host, tasks: Tasks, variables: Any, repeat: int) -> tuple[float, float]:
    """The most memory of several runs, and the least processor time: other work only ever adds to it."""
    used = [host.controller.usage(tasks, variables=variables, check=True, changed=True) for dummy in range(repeat)]
    return max(memory for memory, dummy in used), min(seconds for dummy, seconds in used)


def there(host: Host, count: int, repeat: int) -> Row:
    """The same number of volumes that are there, as copies of one."""
    host.make_pool(THERE)
    try:
        items = volumes(THERE, count)
        host.copy_volume(THERE, [item["name"] for item in items])
        given = host.controller.write("there.yml", {"volumes": items})
        sides = [
            lambda tasks=tasks: host.controller.play(tasks, variables=given, check=True, changed=False).seconds
            for tasks in (
                host.layout(pools=[host.pool(THERE)], volumes="{{ volumes }}"),
                host.noop(pools=[host.pool(THERE)], volumes="{{ volumes }}"),
            )
        ]
        ours, theirs = pairs(repeat, *sides)
    finally:
        host.drop_pool(THERE)
    what = f"plan {count} volumes that are there, listed; a no-op module that receives the same"
    return times_the_cost(what, ours, theirs, "at most 1.5")
