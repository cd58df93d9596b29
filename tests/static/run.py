# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the static checks, two at a time: run.py [--quick | NAME...]

The output of each is kept in .cache/static/NAME.log and shown when it fails. The counts go to
.cache/results/static.xml.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent))

import rules

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".cache" / "static"
COLLECTION = "ansible_collections/kvm/storage/"
TREE = f".cache/collections/{COLLECTION}"  # the name under which Python imports the collection
MOST_LINES = 40  # shown of a check that failed


class Check(NamedTuple):
    name: str
    command: list[str]
    quick: bool = True


class Result(NamedTuple):
    name: str
    passed: bool
    seconds: float
    output: str


def shell_files() -> list[str]:
    def is_shell(name: str) -> bool:
        with open(ROOT / name, "rb") as file:
            top = file.readline()
        return name.endswith(".sh") or (top.startswith(b"#!") and top.split()[-1].split(b"/")[-1] in (b"sh", b"bash"))

    return [name for name in rules.files() if is_shell(name)]


def checks() -> list[Check]:
    python = sys.executable
    return [
        Check("ruff", ["ruff", "check", "--quiet", "."]),
        Check("ruff-format", ["ruff", "format", "--check", "--quiet", "--diff", "."]),
        Check("yamllint", ["yamllint", "--strict", "."]),
        Check("shellcheck", ["shellcheck", "--external-sources", *shell_files()]),
        *[Check(name, [python, __file__, "--rule", name]) for name in rules.RULES],
        Check("changelog", ["antsibull-changelog", "lint"]),
        # Modules run on Python 3.9 or newer, of which mypy knows 3.10; servers and lab of the tests on 3.11 or newer.
        # Tests themselves are run rather than typed.
        Check("mypy", ["mypy", *(f"{TREE}plugins/{one}" for one in ("module_utils", "plugin_utils", "filter"))]),
        Check("mypy-servers", ["mypy", "--python-version", "3.11", f"{TREE}tests/servers", f"{TREE}tests/lab"]),
        Check("package", [python, "tests/static/package.py"], quick=False),
        Check("ansible-lint", ["ansible-lint", "--offline", "--strict", "-q", "--nocolor"], quick=False),
        Check(
            "docs-lint",
            ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."],
            quick=False,
        ),
        Check("docs-site", ["docs/docsite/build"], quick=False),
        Check("sanity-newest", ["tests/sanity/run", "newest"], quick=False),
        Check("sanity-oldest", ["tests/sanity/run", "oldest"], quick=False),
    ]


def run(check: Check) -> Result:
    environment = {
        **os.environ,
        "PATH": f"{ROOT}/.venv-lint/bin:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    begin = time.monotonic()
    done = subprocess.run(
        check.command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    result = Result(
        check.name, done.returncode == 0, time.monotonic() - begin, re.sub(rf"\S*{COLLECTION}", "", done.stdout)
    )
    (LOGS / f"{check.name}.log").write_text(result.output, encoding="utf-8")
    print(f"{'ok    ' if result.passed else 'FAILED'}  {result.seconds:6.1f} s  {result.name}", flush=True)
    return result


def findings(result: Result) -> str:
    """What to show of a failure: ansible-test says much more than its findings."""
    lines = result.output.strip().splitlines()
    if result.name.startswith("sanity-"):
        lines = [line for line in lines if line.startswith(("ERROR", "FATAL"))] or lines
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"... and {len(lines) - MOST_LINES} lines more, in .cache/static/{result.name}.log"]
    return "\n".join(lines)


def write_counts(results: list[Result]) -> None:
    """The counts as the XML that pytest writes, so that tests/summary.py reads one form."""
    suite = ElementTree.Element("testsuite", name="static", tests=str(len(results)))
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", classname="static", name=result.name, time=str(result.seconds))
        if not result.passed:
            ElementTree.SubElement(case, "failure", message=f"see .cache/static/{result.name}.log")
    path = ROOT / ".cache" / "results" / "static.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--rule"]:
        problems = list(rules.RULES[arguments[1]]())
        print("\n".join(problems))
        return 1 if problems else 0
    LOGS.mkdir(parents=True, exist_ok=True)
    every = checks()
    if unknown := set(arguments) - {"--quick"} - {check.name for check in every}:
        sys.exit(f"no check named {', '.join(sorted(unknown))}; there are: {', '.join(check.name for check in every)}")
    chosen = [
        check for check in every if not arguments or check.name in arguments or ("--quick" in arguments and check.quick)
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(run, chosen))
    write_counts(results)
    failed = [result for result in results if not result.passed]
    for result in failed:
        print(f"\n=== {result.name} ===\n{findings(result)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
