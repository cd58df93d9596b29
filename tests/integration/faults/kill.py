# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module in a process of its own that something happens to right after its Nth call that changes the host.

The calls are seen by Python's profiler: libvirt's, the system's and the start of a program, so that a step that makes
several of them is met in its middle, and the collection itself knows nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import run
from tests.servers.libvirtd import Libvirtd

# Functions of libvirt that change something, and those of the system that the collection changes files with.
LIBVIRT = frozenset(
    ["virStoragePoolDefineXML", "virStoragePoolCreateXML", "virStoragePoolCreate", "virStoragePoolBuild"]
    + ["virStoragePoolDestroy", "virStoragePoolUndefine", "virStoragePoolDelete", "virStoragePoolRefresh"]
    + ["virStoragePoolSetAutostart", "virStorageVolCreateXML", "virStorageVolDelete", "virStorageVolResize"]
    + ["virSecretDefineXML", "virSecretSetValue", "virSecretUndefine"]
)
SYSTEM = frozenset(
    ["link", "unlink", "rename", "replace", "truncate", "ftruncate", "fchown", "fchmod", "chmod", "chown", "setxattr"]
    + ["rmdir", "fork_exec", "_fork_exec"]
)
# These have many uses; only the ones in these functions change something.
WITHIN = {"ioctl": "set_flags", "open": "_mkstemp_inner"}


def changes(call: Any, frame: Any) -> bool:
    name, module = getattr(call, "__name__", ""), getattr(call, "__module__", "")
    if module == "libvirtmod":
        return name in LIBVIRT
    if module not in ("posix", "fcntl", "_posixsubprocess"):
        return False
    return (name in SYSTEM or WITHIN.get(name) == frame.f_code.co_name) and in_a_step(frame)


def in_a_step(frame: Any) -> bool:
    """Whether a step of a plan is at work; what Ansible does around the plan is its own."""
    while frame is not None:
        if frame.f_code.co_name == "carry_out":
            return True
        frame = frame.f_back
    return False


@dataclass
class Ended:
    """How a child ended: its result, or None where it was killed."""

    result: dict[str, Any] | None
    calls: list[str]
    session: int


def numbered(calls: list[str]) -> list[str]:
    """The calls of a run by their names and numbers among their like: a moment that any other run has too."""
    alike: dict[str, int] = {}
    found = []
    for name in calls:
        alike[name] = alike.get(name, 0) + 1
        found.append(f"{name}:{alike[name]}")
    return found


class Watch:
    """The profiler: it counts the calls and acts once, before the first (0) or after the Nth, or the Nth of a name."""

    def __init__(self, calls: Path, at: int | str | None, act: Callable[[], None]) -> None:
        self.log, self.at, self.act, self.count = os.open(calls, os.O_WRONLY | os.O_APPEND), at, act, 0
        self.alike: dict[str, int] = {}
        self.lock = threading.Lock()

    def __call__(self, frame: Any, event: str, call: Any) -> None:
        if event not in ("c_call", "c_return", "c_exception") or not changes(call, frame):
            return
        if event == "c_call":
            if self.at == 0 and self.count == 0:
                self.now()
            return
        self.note(call.__name__)

    def note(self, name: str) -> None:
        with self.lock:
            self.count += 1
            self.alike[name] = self.alike.get(name, 0) + 1
            os.write(self.log, f"{name}\n".encode())
            if self.at in (self.count, f"{name}:{self.alike[name]}"):
                self.now()

    def now(self) -> None:
        self.at = None
        self.act()


def in_child(
    module: str, arguments: dict[str, Any], at: int | str | None = None, act: Callable[[], None] = lambda: None
) -> Ended:
    """Run a module in a child of this process and wait for its end."""
    pid, answer, calls = start(module, arguments, at, act)
    return finish(pid, answer, calls)


def start(
    module: str,
    arguments: dict[str, Any],
    at: int | str | None = None,
    act: Callable[[], None] = lambda: None,
    profiler: Callable[[Path, int | str | None, Callable[[], None]], Any] = Watch,
) -> tuple[int, Path, Path]:
    names = []
    for _each in range(2):
        handle, name = tempfile.mkstemp(prefix="kvm.storage-faults-")
        os.close(handle)
        names.append(Path(name))
    pid = os.fork()
    if pid == 0:  # nothing of the parent may be closed here: its connections are open still
        status = 1
        try:
            os.setsid()
            watch = profiler(names[1], at, act)
            threading.setprofile(watch)
            sys.setprofile(watch)
            result = run(module, arguments)
            sys.setprofile(None)
            names[0].write_text(json.dumps(result), encoding="utf-8")
            status = 0
        except BaseException:
            sys.setprofile(None)
            names[0].write_text(json.dumps({"traceback": traceback.format_exc()}), encoding="utf-8")
        finally:
            os._exit(status)
    return pid, names[0], names[1]


def finish(pid: int, answer: Path, calls: Path, seconds: float = 300) -> Ended:
    """What became of a child; one that does not end is killed and is an error."""
    deadline = time.monotonic() + seconds
    status = None
    while status is None:
        over, number = os.waitpid(pid, os.WNOHANG)
        if over:
            status = number
        elif time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"the module did not end within {seconds:g} s, after {calls.read_text().split()}")
        else:
            time.sleep(0.002)
    text, log = answer.read_text(encoding="utf-8"), calls.read_text(encoding="utf-8").split()
    for path in (answer, calls):
        path.unlink()
    if os.WIFSIGNALED(status):
        return Ended(None, log, pid)
    result = json.loads(text)
    if "traceback" in result:
        pytest.fail(f"the module left a traceback after {log}:\n{result['traceback']}")
    return Ended(result, log, pid)


# what happens


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_daemon(hypervisor: Libvirtd) -> Callable[[], None]:
    """As a crash of libvirtd; the module lives on and sees its connection end."""
    pid = hypervisor.pid

    def act() -> None:
        if pid is None:
            return
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        wait_until(lambda: state_of(pid) in ("Z", ""))

    return act


def cut_connection(hypervisor: Libvirtd) -> Callable[[], None]:
    """The socket to libvirtd is dead in both directions; the daemon lives on."""
    path = str(hypervisor.sockets / "libvirt-sock")
    before = set(sockets_to(path))

    def act() -> None:
        for number in set(sockets_to(path)) - before:
            with socket.socket(fileno=os.dup(number)) as mine:
                mine.shutdown(socket.SHUT_RDWR)

    return act


def sockets_to(path: str) -> list[int]:
    """The descriptors of this process that are connected to a Unix socket."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as one:
                if one.family == socket.AF_UNIX and one.getpeername() == path:
                    found.append(int(entry))
        except OSError:
            continue
    return found


def state_of(pid: int) -> str:
    """The letter of a process's state; empty when it is over."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive_in(session: int) -> list[int]:
    """The processes that a child has started and that live on without it."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(entry)) == session and state_of(int(entry)) not in ("Z", ""):
                found.append(int(entry))
    return found


def ended(pid: int) -> bool:
    """Whether a child is over, which stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def locks_wanted_by(pid: int) -> list[str]:
    """The locks of the collection that a process has open, which it does when it has looked at what is there."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return [link for link in found if link.endswith(".lock")]


def wait_until(ready: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)
