# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the comparisons that are named, or all, on a private libvirtd; see tests/bench/run."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import libvirt

from tests.servers.libvirtd import Libvirtd
from tests.servers.sweep import claim, clear

from . import clones, create, fleet, one_task, planning, rerun, uploads
from .controller import Controller
from .host import Host
from .measure import Row, table

BASE = Path(os.environ.get("KVM_STORAGE_SCRATCH") or f"/var/tmp/kvm.storage-tests-{os.getuid()}")
COMPARISONS: dict[str, Callable[[Host, bool], list[Row]]] = {
    "one_task": one_task.run,
    "create": create.run,
    "rerun": rerun.run,
    "planning": planning.run,
    "clones": clones.rows,
    "uploads": uploads.rows,
    "fleet": fleet.run,
}


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description="Compare the speed of the collection.")
    parser.add_argument("--quick", action="store_true", help="smaller numbers and fewer pairs")
    parser.add_argument("name", nargs="*", choices=[[], *COMPARISONS], help=", ".join(COMPARISONS))
    arguments = parser.parse_args()
    libvirt.registerErrorHandler(lambda context, error: None, None)
    print(f"{os.cpu_count()} processors, load average {load()}", flush=True)
    rows: list[Row] = []
    begin = time.monotonic()
    mine = claim(BASE)
    try:
        with Libvirtd(mine.root / "libvirtd") as server:
            host = Host(server, Controller(mine.root / "playbooks"))
            host.controller.play([{"name": "warm up", "ansible.legacy.noop_imports": {}}])
            for name in arguments.name or COMPARISONS:
                start = time.monotonic()
                found = COMPARISONS[name](host, arguments.quick)
                rows += found
                print(f"{name}: {time.monotonic() - start:.0f} s, load average {load()}", flush=True)
                for row in found:  # at once, for a run that somebody ends before the table
                    print(f"  {row.ratio or row.ours:<22} {row.verdict:<6} {row.what}", flush=True)
    finally:
        clear(mine.root)
        mine.release()
    print(f"\n{table(rows)}\n")
    print("Medians (min-max); ratios are taken pair by pair. A loop over virt_volume is run for some items and, in its")
    print("favour, extrapolated for the rest: every item is a module run of its own (tests/bench/loop.py).")
    missed = sum(not row.ok for row in rows)
    print(f"{time.monotonic() - begin:.0f} s, load average {load()}; {missed or 'none'} of the requirements missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
