# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mount and a PID namespace for a daemon: it sees its own /run and /etc, and all it starts dies with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .process import Server, ServerError, need, run, wait_for
from .sweep import Process

# PID 1 of the namespace must reap: libvirt takes a zombie for a guest that won't die.
INIT = "sleep infinity & wait $!"

# Starts a program in the background and prints its pid; $0 is the log.
BACKGROUND = 'setsid "$@" </dev/null >>"$0" 2>&1 & echo $!'


def status(pid: int, field: str) -> list[str]:
    """The values of one line in /proc/PID/status; none when the process is over."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return next((line.split()[1:] for line in text.splitlines() if line.startswith(f"{field}:")), [])


def child_of(pid: int) -> int | None:
    """The first child of a process."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return next((found for found in pids if status(found, "PPid") == [str(pid)]), None)


def mount_of(path: Path) -> Path:
    """The mount point that a path lies on."""
    while not os.path.ismount(path):
        path = path.parent
    return path


class Namespace:
    """The namespaces of one server; `binds` says which directory of the machine is replaced by which of ours."""

    def __init__(self, server: Server, binds: Mapping[str, Path]) -> None:
        hidden = next((target for target in binds if Path(target) in server.root.parents), None)
        if hidden is not None:
            raise ServerError(f"{server.root}: lies below {hidden}, which the server does not see; take another root")
        self.server = server
        self.binds = binds
        self._holder: int | None = None

    def start(self) -> None:
        for target, source in self.binds.items():
            source.mkdir(parents=True, exist_ok=True)
            if not Path(target).is_dir():
                raise ServerError(f"{target}: no such directory; its package is not installed completely")
        holder = self.server.spawn(
            "unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "--mount-proc",
            "/bin/sh", "-c", self._script(), log=self.server.root / "namespace.out",
        )  # fmt: skip
        self._holder = holder
        wait_for("namespace", self._ready.is_file, log=self.server.root / "namespace.out")
        init = child_of(holder)
        if init is None:
            raise ServerError(f"namespace: ended at once; read {self.server.root / 'namespace.out'}")
        # A dead init is the proof that all in its namespace is gone, so a sweep waits for it.
        self.server.journal.process(init, "namespace")

    def command(self, *argv: str | Path) -> list[str]:
        """The command line that runs a program inside."""
        if self._holder is None:
            raise ServerError("namespace: not started; call start() of its server first")
        where = f"/proc/{self._holder}/ns"
        inside = f"--mount={where}/mnt", f"--pid={where}/pid_for_children"
        return ["nsenter", *inside, need(str(argv[0])), *map(str, argv[1:])]

    def spawn(self, program: str, *argv: str | Path, log: Path, env: Mapping[str, str] | None = None) -> Process:
        """Start a program inside, as a child of PID 1 there; give back the process as the machine sees it.

        As a child of nsenter it would be reaped from outside only, for which the end of the namespace had to wait.
        """
        inside = run(*self.command("/bin/sh", "-c", BACKGROUND, log, need(program), *argv), env=env)
        pid = self._outside(int(inside))
        process = self.server.journal.process(pid, program) if pid else None
        if process is None:
            raise ServerError(f"{program}: ended at once; read {log}")
        return process

    def _outside(self, inside: int) -> int | None:
        """The number outside of all namespaces of a process in this one."""
        ours = os.stat(f"/proc/{self._holder}/ns/pid_for_children").st_ino
        for entry in os.listdir("/proc"):
            if entry.isdigit() and status(int(entry), "NSpid")[-1:] == [str(inside)]:
                with suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/pid").st_ino == ours:
                        return int(entry)
        return None

    def run(self, *argv: str | Path, timeout: float = 180) -> str:
        return run(*self.command(*argv), timeout=timeout)

    def stopped(self) -> None:
        self._holder = None

    @property
    def _ready(self) -> Path:
        return self.server.root / "namespace.ready"

    def _script(self) -> str:
        self._ready.unlink(missing_ok=True)
        lines = ["set -e"]
        # Only the mounts we cover become private: what is mounted elsewhere must still reach the machine.
        covered = {mount_of(Path(target)) for target in self.binds}
        covered |= {mount_of(target.parent) for target in covered}
        lines += [f"mount --make-private {shlex.quote(str(mount))}" for mount in sorted(covered)]
        # With cgroups in sight libvirtd would put guests into the machine's, and kill those it can't find there again.
        lines += ["mount --make-rprivate /sys", "! mountpoint -q /sys/fs/cgroup || umount --lazy /sys/fs/cgroup"]
        lines += [f"mount --bind {shlex.quote(str(source))} {target}" for target, source in self.binds.items()]
        lines += [f": > {shlex.quote(str(self._ready))}", INIT]
        return "\n".join(lines)
