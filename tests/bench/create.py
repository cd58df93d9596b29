# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sparse qcow2 volumes and their pool from nothing, by one layout task."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from . import loop
from .controller import INTERPRETER
from .host import Host, volumes
from .measure import Row, pairs, times_as_fast

POOL = "made"
SCRIPT = Path(__file__).parent / "sequential.py"


def run(host: Host, quick: bool) -> list[Row]:
    count, looped, repeat = (100, 4, 1) if quick else (500, 50, 3)
    items = volumes(POOL, count)
    variables = host.controller.write("create.yml", {"volumes": items})
    loops: list[loop.Loop] = []

    def ours() -> float:
        tasks = host.layout(pools=[host.pool(POOL)], volumes="{{ volumes }}")
        seconds = host.controller.play(tasks, variables=variables, changed=True).seconds
        host.drop_pool(POOL)
        return seconds

    def script() -> float:
        begin = time.monotonic()
        subprocess.run([INTERPRETER, SCRIPT, host.uri, POOL, host.directory(POOL), str(count)], check=True)
        seconds = time.monotonic() - begin
        host.drop_pool(POOL)
        return seconds + host.controller.play([{"name": "no-op", "ansible.legacy.noop": {}}]).seconds

    def looping() -> float:
        host.make_pool(POOL)  # not counted for the loop
        loops.append(loop.measured(host, items[:looped], changed=True))
        host.drop_pool(POOL)
        return loops[-1].seconds(count)

    by_script = pairs(repeat, ours, script)
    by_loop = pairs(1 if quick else 2, ours, looping)
    what = f"{count} qcow2 volumes and their pool from nothing"
    at_least_20, linear = ("", "") if quick else ("at least 20", "0.8 to 1.25")
    return [
        times_as_fast(f"{what}; a libvirt-python script and a no-op playbook", *by_script, "at least 0.7"),
        times_as_fast(f"{what}; virt_volume in a loop, extrapolated from {looped}", *by_loop, at_least_20),
        loop.linear(loops, linear),
    ]
