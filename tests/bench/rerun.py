# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layout that is there already, run again."""

from __future__ import annotations

from . import loop
from .host import Host, as_count, volumes
from .measure import Row, pairs, times_as_fast, times_the_cost

POOLS = [f"there{number}" for number in range(1, 6)]


def run(host: Host, quick: bool) -> list[Row]:
    each, looped, repeat = (40, 4, 1) if quick else (200, 50, 5)
    count = each * len(POOLS)
    items = [item for pool in POOLS for item in volumes(pool, each)]
    pools = [host.pool(pool) for pool in POOLS]
    variables = host.controller.write("rerun.yml", {"pools": pools, "volumes": items})
    arguments = {"pools": "{{ pools }}", "volumes": "{{ volumes }}"}
    loops: list[loop.Loop] = []

    def ours() -> float:
        return host.controller.play(host.layout(**arguments), variables=variables, changed=False).seconds

    def counted() -> float:
        """The same volumes as one item a pool: what is not passed costs nothing."""
        short = [one for pool in POOLS for one in as_count(pool, each)]
        tasks = host.layout(pools=pools, volumes=short)
        return host.controller.play(tasks, changed=False).seconds

    def noop() -> float:
        return host.controller.play(host.noop(**arguments), variables=variables, changed=False).seconds

    def looping() -> float:
        loops.append(loop.measured(host, items[:: count // looped][:looped], changed=False))
        return loops[-1].seconds(count)

    try:
        host.controller.play(host.layout(**arguments), variables=variables, changed=True)
        what = f"unchanged re-run, {len(POOLS)} pools and {count} volumes"
        by_noop = pairs(repeat, ours, noop)
        times = 1 if quick else 2
        by_loop = pairs(times, ours, looping)
        by_loop_counted = pairs(times, counted, looping)
    finally:
        for pool in POOLS:
            host.drop_pool(pool)
    at_least_100, linear = ("", "") if quick else ("at least 100", "0.8 to 1.25")
    return [
        times_the_cost(f"{what}; a no-op module that receives the same", *by_noop, "at most 1.5"),
        times_as_fast(f"{what}, listed; virt_volume in a loop, extrapolated from {looped}", *by_loop),
        times_as_fast(f"{what}, as an item with count a pool; that loop", *by_loop_counted, at_least_100),
        loop.linear(loops, linear),
    ]
