# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages of the tests, each within its budget, and ends with a table and the line 'N passed, N failed'.

The first stage that fails is the last that runs. What was not done here is listed, with the reason, above the table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".cache" / "results"
LEFT_OUT = ROOT / ".cache" / "left-out"
GRACE = 20  # seconds from the interrupt of a stage to its end


class Stage(NamedTuple):
    name: str
    minutes: float
    targets: tuple[str, ...]  # of the Makefile
    results: tuple[str, ...]  # files in RESULTS, without .xml; '*' stands for any


class Outcome(NamedTuple):
    stage: Stage
    minutes: float
    passed: int
    failed: int


STAGES = (
    Stage("static", 8, ("static",), ("static",)),
    Stage("unit", 10, ("unit", "contract"), ("unit", "unit39", "contract")),
    Stage("integration", 20, ("integration",), ("integration",)),
    Stage("lab image", 15, ("lab-image",), ()),
    Stage("lab", 40, ("lab",), ("lab-*",)),
)


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts the stage, which lets pytest write its counts, and kills what is left of it."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def run(stage: Stage, skipped: dict[str, list[str]]) -> Outcome:
    print(f"\n##### {stage.name}: at most {stage.minutes:g} min\n", flush=True)
    begin = time.monotonic()
    process = subprocess.Popen(["make", "--keep-going", *stage.targets], cwd=ROOT, start_new_session=True)
    succeeded = False
    try:
        succeeded = process.wait(stage.minutes * 60) == 0
    except subprocess.TimeoutExpired:
        print(f"\n{stage.name}: out of time after {stage.minutes:g} min", flush=True)
    finally:
        if process.poll() is None:
            end(process)
    passed = failed = 0
    for file in sorted(file for name in stage.results for file in RESULTS.glob(f"{name}.xml")):
        for case in ElementTree.parse(file).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif (skip := case.find("skipped")) is not None:
                skipped[skip.get("message", "")].append(f"{case.get('classname')}.{case.get('name')}")
            else:
                passed += 1
    if not succeeded and not failed:
        failed = 1  # a stage that did not end well counts, even where no test says so
    return Outcome(stage, (time.monotonic() - begin) / 60, passed, failed)


def main() -> int:
    for file in RESULTS.glob("*.xml"):
        file.unlink()
    for file in LEFT_OUT.glob("*"):
        if not file.name.startswith("setup-"):  # the set-up has just been made
            file.unlink()
    outcomes: list[Outcome] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for stage in STAGES:
        outcomes.append(run(stage, skipped))
        if outcomes[-1].failed:
            break

    left_out = [line for file in sorted(LEFT_OUT.glob("*")) for line in file.read_text(encoding="utf-8").splitlines()]
    left_out += [f"{len(names)} skipped, first {names[0]}: {reason}" for reason, names in sorted(skipped.items())]
    left_out += [f"stage {stage.name}: an earlier stage failed" for stage in STAGES[len(outcomes) :]]
    print("\nLeft out:" if left_out else "\nNothing was left out.")
    for line in left_out:
        print(f"  {line}")
    print(f"\n{'stage':<12}  minutes  passed  failed")
    for outcome in outcomes:
        print(f"{outcome.stage.name:<12}  {outcome.minutes:>7.1f}  {outcome.passed:>6}  {outcome.failed:>6}")
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
