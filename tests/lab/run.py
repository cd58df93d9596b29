# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs scenarios, two at a time, each on fresh hosts; their counts go where tests/summary.py looks for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.servers.process import ServerError
from tests.servers.sweep import sweep

from .catalogue import Scenario
from .folder import ROOT
from .hosts import TREE, Guest, Hosts, Lab, tree

RESULTS = ROOT / ".cache" / "results"
LOGS = RESULTS / "lab"
AT_ONCE = int(os.environ.get("KVM_STORAGE_LAB_JOBS", "2"))
# What to look at when a scenario fails; the tree is the same as here.
EVIDENCE = "dmesg | tail -n 40; journalctl --no-pager --lines 80; virsh --quiet pool-list --all; lsblk"


class Outcome(NamedTuple):
    scenario: Scenario
    seconds: float
    passed: int
    failed: int
    skipped: int


class Runner:
    """Runs scenarios; `long` takes the tests that are marked so, too."""

    def __init__(self, lab: Lab, long: bool, options: list[str]) -> None:
        self.lab, self.long, self.options = lab, long, options
        self.tree = tree()
        self.printing = threading.Lock()

    def run(self, scenarios: list[Scenario]) -> list[Outcome]:
        LOGS.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(pool.map(self.one, scenarios))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            sweep(self.lab.root)  # ends the hosts, and with them the threads that wait for these
            raise
        finally:
            pool.shutdown()

    def one(self, scenario: Scenario) -> Outcome:
        began = time.monotonic()
        result = RESULTS / f"lab-{scenario.name}.xml"
        result.unlink(missing_ok=True)
        log = LOGS / f"{scenario.name}.txt"
        hosts = self.lab.hosts(scenario.name, scenario.hosts)
        try:
            with hosts, open(log, "w", encoding="utf-8") as out:
                reason = self._tests(scenario, hosts, out, result)
        except (ServerError, OSError, subprocess.SubprocessError) as exc:
            reason = str(exc)
        outcome = counted(scenario, result, time.monotonic() - began)
        if not result.exists() or (reason and not outcome.failed):
            write_failure(scenario, result, reason or "no test ran")
            outcome = counted(scenario, result, time.monotonic() - began)
        self._tell(outcome, log, reason)
        return outcome

    def _tests(self, scenario: Scenario, hosts: Hosts, out: object, result: Path) -> str:
        """Run the tests of a scenario; the reason why they did not end well, or nothing."""
        marked = [] if self.long else ["-m", "'not long'" if scenario.inside else "not long"]
        options = [*marked, *self.options, scenario.tests]
        first = next(iter(hosts.guests.values()), None)
        if scenario.inside and first:
            first.put(self.tree, TREE)
            command = first.ssh(
                f"cd {TREE} && PYTHONPATH=/opt/kvm:. LC_ALL=C.UTF-8 python3 -m pytest -p no:cacheprovider"
                f" --durations=8 --junit-xml=/tmp/result.xml {' '.join(options)}"
            )
        else:
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junit-xml={result}", *options]
        environment = {**os.environ, "KVM_STORAGE_LAB_INVENTORY": str(hosts.inventory())}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,  # type: ignore[call-overload]
                timeout=scenario.minutes * 60, check=False,
            )  # fmt: skip
            reason = f"pytest ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            reason = f"out of time after {scenario.minutes:g} min"
        if scenario.inside and first:
            fetch(first, "cat /tmp/result.xml", result)
        if reason and first:
            fetch(first, EVIDENCE, LOGS / f"{scenario.name}-host.txt")
        return reason

    def _tell(self, outcome: Outcome, log: Path, reason: str) -> None:
        with self.printing:
            if outcome.failed and log.exists():
                print(log.read_text(encoding="utf-8", errors="replace")[-8000:])
            words = f"{outcome.passed} passed, {outcome.failed} failed"
            words += f", {outcome.skipped} skipped" if outcome.skipped else ""
            print(f"lab: {outcome.scenario.name:<12} {words:<32} {outcome.seconds:>4.0f} s  {reason}", flush=True)


def fetch(guest: Guest, command: str, into: Path) -> None:
    try:
        text = guest.run(command, timeout=60)
    except ServerError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return
    into.write_text(text, encoding="utf-8")


def counted(scenario: Scenario, result: Path, seconds: float) -> Outcome:
    passed = failed = skipped = 0
    for case in ElementTree.parse(result).iter("testcase") if result.exists() else ():
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Outcome(scenario, seconds, passed, failed, skipped)


def write_failure(scenario: Scenario, result: Path, reason: str) -> None:
    """A scenario that did not get as far as its tests counts as one that failed."""
    suite = ElementTree.Element("testsuite", name="lab", tests="1", failures="1")
    case = ElementTree.SubElement(suite, "testcase", classname=scenario.tests, name="scenario")
    ElementTree.SubElement(case, "failure", message=reason)
    ElementTree.ElementTree(suite).write(result, encoding="utf-8", xml_declaration=True)


def report(lab: Lab, outcomes: list[Outcome]) -> str:
    """A page with the results of all scenarios, and of what they ran on."""
    versions = dict(line.split()[:2] for line in (lab.image.folder / "versions.txt").read_text().splitlines() if line)
    packages = ("libvirt-daemon", "linux-image-cloud-amd64", "zfsutils-linux", "lvm2", "multipath-tools", "ceph-common")
    inside = ", ".join(f"{name} {versions[name]}" for name in packages if name in versions)
    machine = f"{os.cpu_count()} cores, {lab.accelerator}"
    lines = [
        "# The lab's last results",
        "",
        f"`make lab-all` of {time.strftime('%Y-%m-%d')}: {machine}; Debian 13 with {inside}.",
        "",
        "| scenario | hosts | passed | failed | seconds |",
        "|---|---|---|---|---|",
    ]
    for one in sorted(outcomes, key=lambda outcome: outcome.scenario.name):
        hosts = ", ".join(kind for dummy, kind in one.scenario.hosts) or "its own"
        lines.append(f"| {one.scenario.name} | {hosts} | {one.passed} | {one.failed} | {one.seconds:.0f} |")
    return "\n".join(lines) + "\n"
