# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run programs, and the base that all servers share: a root of their own, records of what they start."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from .sweep import Journal, sweep

# Daemons and file system tools live where the PATH of an ordinary user does not look.
PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"

# Debian's package of each program that a server calls.
PACKAGES = {
    "ceph": "ceph-common",
    "ceph-authtool": "ceph-common",
    "ceph-fuse": "ceph-fuse",
    "ceph-mds": "ceph-mds",
    "ceph-mgr": "ceph-mgr",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "gluster": "glusterfs-cli",
    "glusterd": "glusterfs-server",
    "libvirtd": "libvirt-daemon-system",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "monmaptool": "ceph-base",
    "mount.glusterfs": "glusterfs-client",
    "nsenter": "util-linux",
    "parted": "parted",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "rbd": "ceph-common",
    "setpriv": "util-linux",
    "tgtadm": "tgt",
    "tgtd": "tgt",
    "unshare": "util-linux",
    "virsh": "libvirt-clients",
}

# A socket's path may have 107 characters.
LONGEST_ROOT = 75

# The child waits until its pid is on record: a run that is killed in between leaves nothing unrecorded behind.
GATE = 'read -r _ && exec "$@" </dev/null'


class ServerError(RuntimeError):
    """A test server can't be had; the message names it, the reason and the way out."""


def need(program: str) -> str:
    """The program's path, or an error that says which package brings it."""
    found = shutil.which(program, path=PATH)
    if found is None:
        raise ServerError(f"{program}: not installed; apt-get install {PACKAGES.get(program, program)}")
    return found


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PATH": PATH, "LC_ALL": "C", **extra}


def run(*argv: str | Path, env: Mapping[str, str] | None = None, text: str | None = None, timeout: float = 180) -> str:
    """Run a program to its end and give back what it printed; its own words are in the error."""
    command = [need(str(argv[0])), *map(str, argv[1:])]
    try:
        done = subprocess.run(
            command, env=env or environment(), input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise ServerError(f"{' '.join(command)}: no answer within {timeout:g} s; look at the server's log") from exc
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise ServerError(f"{' '.join(command)}: exit status {done.returncode}: {words}")
    return done.stdout


def wait_for(what: str, ready: Callable[[], object], timeout: float = 120, log: Path | None = None) -> None:
    """Ask until `ready` says yes; an answer that is an error counts as no."""
    deadline = time.monotonic() + timeout
    reason = "not ready"
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except (ServerError, OSError) as exc:
            reason = str(exc)
        time.sleep(0.02)
    raise ServerError(f"{what}: {reason} after {timeout:g} s; read {log or 'its log'}")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


class Server:
    """What one server needs: `root` belongs to it alone, and all it starts can be found from there."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()  # the kernel names mounts without symbolic links
        self.journal = Journal(self.root)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> Self:
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the root, and rid it of what an earlier server left running."""
        if len(str(self.root)) > LONGEST_ROOT:
            why = f"longer than {LONGEST_ROOT} characters, which leaves too few for the names of sockets below it"
            raise ServerError(f"{self.root}: {why}; take a shorter one, for tests with KVM_STORAGE_SCRATCH")
        self.journal.open()
        sweep(self.root)

    def stop(self) -> None:
        """Kill what was started and undo its mounts; what it stored stays."""
        sweep(self.root)
        for child in self._children:
            child.wait()
        self._children.clear()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def spawn(self, *argv: str | Path, log: Path | None = None, env: Mapping[str, str] | None = None) -> int:
        """Start a program in the background, on record before it runs; give back its pid."""
        command = ["/bin/sh", "-c", GATE, "sh", need(str(argv[0])), *map(str, argv[1:])]
        with open(log or self.root / f"{Path(argv[0]).name}.out", "ab") as out:
            child = subprocess.Popen(
                command, env=env or environment(), stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )
        self._children.append(child)
        self.journal.process(child.pid, Path(argv[0]).name)
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.close()
        return child.pid
