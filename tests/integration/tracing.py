# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules run in a process under strace: every file that it and its children open, and how their children end.

One traced process runs many modules, one after the other. What each of them did is known once the process has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.servers import ssh

ROOT = Path(__file__).resolve().parents[2]
OPENS = ("open", "openat", "openat2", "creat")
CALLS = (*OPENS, "mknod", "mknodat", "chmod", "fchmod", "fchmodat", "connect")
MARK = "/proc/self/mark-of-test-"  # a file that is not there; its number begins what one run did

LINE = re.compile(r"^(\d+) +(?:\d+\.\d+ )?(.*)$")
CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?", re.DOTALL)
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
KILLED = re.compile(r"^\+\+\+ killed by (\w+)")


class Call(NamedTuple):
    """A call of the traced process or of a child: its arguments as strace shows them, its result, and its file."""

    pid: int
    name: str
    arguments: str
    result: int
    real: str  # the path of the descriptor that it returned, as the kernel has it

    @property
    def path(self) -> str:
        """The path that was asked for."""
        found = TEXT.search(self.arguments)
        return unescaped(found.group(1)) if found else ""


class Did(NamedTuple):
    """What happened while one module ran."""

    calls: list[Call]
    killed: list[str]  # by which signals children ended

    def opened(self, *paths: str | Path) -> list[Call]:
        """The calls that opened one of the files or tried to, by whatever name."""
        wanted = {str(path) for path in paths}
        opens = [call for call in self.calls if call.name in OPENS]
        return [call for call in opens if {call.path, call.real} & wanted]

    def connected(self) -> list[Call]:
        """The connections that left this host's own sockets, or would have."""
        return [call for call in self.calls if call.name == "connect" and "AF_INET" in call.arguments]


class Answer(NamedTuple):
    """The result of a module; printed is all of it, as it stood."""

    number: int
    result: dict[str, Any]
    printed: str
    seconds: float
    cpu: float  # seconds that it and its children have computed


def unescaped(text: str) -> str:
    """A string as strace writes it, in C's way."""
    return (
        text.encode("latin-1", "replace")
        .decode("unicode_escape")
        .encode("latin-1", "replace")
        .decode("utf-8", "surrogateescape")
    )


class Silence(AssertionError):
    """A module did not end in time."""


class Traced:
    """The traced process, from `with` to its end; did() is for afterwards."""

    def __init__(self, log: Path, umask: int = 0o022) -> None:
        self.log, self.count, self.found = log, 0, {}
        options = ["-f", "--seccomp-bpf", "-y", "-qq", "-s", "4200", "-e", f"trace={','.join(CALLS)}"]
        argv = ["strace", *options, "-e", "signal=none", "-o", str(log), sys.executable, "-c", WORKER]
        paths = [str(ROOT), str(ROOT / ".cache/collections")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [*argv, str(log.parent / "locks"), str(umask), *ssh.command()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.end()
        self.process.stdout.close()
        self.found = read(self.log)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(120)

    def run(self, module: str, args: dict[str, Any], *, check: bool = False, limit: float = 120) -> Answer:
        """Run a module there, within some seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.count += 1
        began, computed = time.monotonic(), self.computed()
        line = json.dumps([self.count, module, args, check])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.end()
            raise Silence(f"{module} has not ended after {limit} s: {args}")
        printed = self.process.stdout.readline().decode()
        if not printed:
            raise AssertionError(f"{module}: the process that ran it has ended: {args}")
        return Answer(self.count, json.loads(printed), printed, time.monotonic() - began, self.computed() - computed)

    def computed(self) -> float:
        """The seconds that the traced process has computed, and those of its children that have ended or are there."""
        ticks = 0
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(entry) != self.process.pid and os.getsid(int(entry)) == self.process.pid:
                    stat = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
                    ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def did(self, number: int) -> Did:
        return self.found.get(number, Did([], []))


# What strace starts: it reads a task a line, and answers with the module's result in a line.
WORKER = r"""
import json, os, sys
from ansible_collections.kvm.storage.plugins.module_utils import connection
from ansible_collections.kvm.storage.plugins.module_utils import handover
from tests.integration import helpers
import libvirt
connection.LOCK_FOLDER = sys.argv[1]
handover.SSH = tuple(sys.argv[3:])
os.umask(int(sys.argv[2]))
libvirt.registerErrorHandler(lambda context, error: None, None)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    number, module, args, check = json.loads(line)
    try:
        os.open(f"/proc/self/mark-of-test-{number}", os.O_RDONLY)
    except OSError:
        pass
    try:
        result = helpers.run(module, args, check=check)
    except BaseException as error:
        result = {"failed": True, "code": "CRASHED", "msg": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(result) + "\n")
    answers.flush()
"""


def read(log: Path) -> dict[int, Did]:
    """The log by the runs; what came before the first mark has the number 0."""
    found: dict[int, Did] = {0: Did([], [])}
    now = found[0]
    for pid, text in whole_lines(log):
        killed = KILLED.match(text)
        if killed:
            now.killed.append(killed.group(1))
        called = CALL.match(text)
        if called is None:
            continue
        call = Call(pid, called.group(1), called.group(2), int(called.group(3)), unescaped(called.group(4) or ""))
        if call.path.startswith(MARK):
            now = found.setdefault(int(call.path[len(MARK) :]), Did([], []))
        else:
            now.calls.append(call)
    return found


def whole_lines(log: Path) -> Iterator[tuple[int, str]]:
    """The lines of a log; a call that another process came between is put together again."""
    parts: dict[int, str] = {}
    with log.open(encoding="latin-1") as file:
        for line in file:
            matched = LINE.match(line.rstrip("\n"))
            if matched is None:
                continue
            pid, text = int(matched.group(1)), matched.group(2)
            if text.endswith("<unfinished ...>"):
                parts[pid] = text.removesuffix("<unfinished ...>").rstrip()
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
            if resumed:
                text = parts.pop(pid, "") + resumed.group(1)
            yield pid, text


def attached(pid: int, log: Path, calls: Sequence[str] = CALLS) -> subprocess.Popen[bytes]:
    """strace on a process that runs already, and on what it starts from now on."""
    argv = ["strace", "-f", "-y", "-s", "4200", "-e", f"trace={','.join(calls)}", "-e", "signal=none", "-o", str(log)]
    process = subprocess.Popen([*argv, "-p", str(pid)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    if b"attached" not in process.stderr.readline():
        process.wait(120)
        raise AssertionError(f"strace can't be attached to process {pid}")
    return process
