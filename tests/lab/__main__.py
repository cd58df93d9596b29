# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with their own kernel, to run scenarios in or to try things on by hand.

python -m tests.lab image                 build the image and freeze one host of each kind
python -m tests.lab run [SCENARIO ...]    run scenarios (all when none is named) on fresh hosts
python -m tests.lab up [HOST[=KIND] ...]  bring hosts up (hv1, hv2 and storage when none is named) until down
python -m tests.lab shell [HOST]          a shell on one of them; brings them up first
python -m tests.lab status | down
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from tests.servers.process import ServerError
from tests.servers.sweep import Journal, alive, sweep

from .catalogue import FLEET, NUMBERS, SCENARIOS, STATES
from .folder import place
from .hosts import Hosts, Lab
from .run import Runner, report

UP = Path(os.environ.get("KVM_STORAGE_LAB_UP") or place("up")).resolve()


def image(_asked: argparse.Namespace) -> int:
    began = time.monotonic()
    lab = Lab()
    print(f"lab: image {lab.image.key}, {lab.accelerator}, {time.monotonic() - began:.0f} s", flush=True)

    def freeze(name: str) -> str:
        begun = time.monotonic()
        lab.frozen(STATES[name])
        return f"lab: host {name} is frozen, {time.monotonic() - begun:.0f} s"

    try:
        with ThreadPoolExecutor(2) as pool:
            for line in pool.map(freeze, STATES):
                print(line, flush=True)
    finally:
        sweep(lab.root)
        lab.close()
    return 0


def run(asked: argparse.Namespace) -> int:
    unknown = [name for name in asked.names if name not in SCENARIOS]
    if unknown:
        raise ServerError(f"{unknown[0]}: no such scenario; take from {', '.join(SCENARIOS)}")
    lab = Lab()
    try:
        usual = [one for one in SCENARIOS.values() if asked.long or not one.long]
        chosen = [SCENARIOS[name] for name in asked.names] or usual
        outcomes = Runner(lab, asked.long, asked.options.split()).run(chosen)
    finally:
        sweep(lab.root)
        lab.close()
    passed, failed = (sum(getattr(one, name) for one in outcomes) for name in ("passed", "failed"))
    if asked.report and not asked.names:
        asked.report.write_text(report(lab, outcomes), encoding="utf-8")
    print(f"lab: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def hosts_up() -> dict[str, list[str]]:
    """The hosts that `up` left running, with the command that reaches each."""
    found = {}
    for name in NUMBERS:
        journal = Journal(UP / name)
        processes = journal.processes() if journal.path.is_file() else []
        if processes and alive(processes[-1]):
            found[name] = ["ssh", "-F", str(UP / name / "ssh_config"), name]
    return found


def up(asked: argparse.Namespace) -> int:
    if hosts_up():
        raise ServerError("hosts are up already; look at them with status, end them with down")
    wanted = [(name, kind or default(name)) for name, dummy, kind in (text.partition("=") for text in asked.names)]
    for name, kind in wanted:
        if name not in NUMBERS or kind not in STATES:
            raise ServerError(f"{name}={kind}: hosts are {', '.join(NUMBERS)}; their kinds are {', '.join(STATES)}")
    lab = Lab()
    try:
        hosts = Hosts(lab, UP, tuple(wanted) or FLEET)
        hosts.__enter__()
    finally:
        lab.close()
    print(f"inventory: {hosts.inventory()}")
    for name, command in hosts_up().items():
        print(f"{name}: {' '.join(command)}")
    return 0


def default(name: str) -> str:
    return "storage" if name == "storage" else "hypervisor"


def shell(asked: argparse.Namespace) -> int:
    if not hosts_up():
        up(argparse.Namespace(names=[]))
    name = asked.names[0] if asked.names else "hv1"
    command = hosts_up().get(name)
    if command is None:
        raise ServerError(f"{name}: is not up; up are {', '.join(hosts_up())}")
    print("The hosts stay up when the shell ends; end them with: python -m tests.lab down")
    return subprocess.run([*command[:1], "-t", *command[1:]], check=False).returncode


def down(_asked: argparse.Namespace) -> int:
    for line in sweep(UP):
        print(f"ended {line}")
    return 0


def status(_asked: argparse.Namespace) -> int:
    print(json.dumps({name: " ".join(command) for name, command in hosts_up().items()}, indent=2))
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__, formatter_class=form)
    parser.add_argument("command", choices=sorted(COMMANDS))
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios or hosts")
    parser.add_argument("--long", action="store_true", help="run the tests marked long, too")
    parser.add_argument("--report", type=Path, help="a page for the results of all scenarios")
    parser.add_argument("--options", default="", help='options for pytest, such as "-k chap -x"')
    return parser.parse_intermixed_args(argv)


COMMANDS = {"image": image, "run": run, "up": up, "shell": shell, "down": down, "status": status}


def interrupted(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    asked = parse(argv)
    signal.signal(signal.SIGTERM, interrupted)
    if os.geteuid():
        print("Cannot use the lab: it builds file systems of guests; run it as root", file=sys.stderr)
        return 1
    try:
        return COMMANDS[asked.command](asked)
    except (ServerError, OSError) as exc:
        print(f"Cannot {asked.command} the lab: {exc}", file=sys.stderr)
    except KeyboardInterrupt:
        print("lab: interrupted; all hosts of this run were ended", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
