# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find and remove what servers left behind, above all those of a run that was killed.

Processes are on record in `<root>/journal`, each with its start time, since a pid alone may be somebody else's by now.
Mounts, loop devices and their nodes need no record of their own: the kernel says which of them lie below the root,
and can't be out of date about it.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import fcntl
import glob
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

BOOT = Path("/proc/sys/kernel/random/boot_id")
NODES = "/dev/labdsk*"
LOOP_MAJOR = 7
LOOP_CLR_FD = 0x4C01
MNT_DETACH = 2


@dataclass(frozen=True)
class Process:
    """One process on record: the pid, and what tells it from a later one with the same number."""

    pid: int
    start: int
    boot: str
    name: str


class Journal:
    """The record below a root of the processes that were started for it."""

    def __init__(self, root: Path) -> None:
        self.path = root / "journal"

    def open(self) -> None:
        """Make the root and its record; `sweep` works on nothing else."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def process(self, pid: int, name: str) -> Process | None:
        """Put a process on record; None when it is over already."""
        start = start_time(pid)
        if start is None:
            return None
        process = Process(pid, start, boot_id(), name)
        with open(self.path, "a", encoding="utf-8") as out:
            out.write(f"{json.dumps(asdict(process))}\n")
        return process

    def processes(self) -> list[Process]:
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError):  # a kill may have cut the last line short
                found.append(Process(**json.loads(line)))
        return found


def boot_id() -> str:
    return BOOT.read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """The clock tick in which a process began; None when it is over, also while it waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process: Process) -> bool:
    return process.boot == boot_id() and start_time(process.pid) == process.start


def sweep(root: Path | str) -> list[str]:
    """Remove processes, mounts and loop devices of the servers below `root`; say which. Stored data stays.

    A root without a journal is none of ours: nothing is done, whatever lies below it.
    """
    top = Path(root).resolve()
    if not (top / "journal").is_file():
        return []
    journals = [Journal(top), *(Journal(Path(found).parent) for found in _journals_below(top))]
    removed = kill([process for journal in journals for process in journal.processes()])
    removed += _unmount_below(top)
    removed += _detach_below(top)
    for journal in journals:
        journal.path.write_text("", encoding="utf-8")
    return removed


def clear(root: Path) -> None:
    """Sweep a root and delete what its servers stored; it stays, empty, ready for new ones."""
    sweep(root)
    left = mounts_below(root)
    if left:
        raise RuntimeError(f"{left[0]}: still mounted, so {root} is not deleted; unmount it by hand")
    if (root / "journal").is_file():
        remove_tree(root)
    Journal(root).open()


def remove_tree(root: Path) -> None:
    """Delete a tree, files with the immutable attribute too: tests make some, and killed tests leave them."""
    subprocess.run(["chattr", "-R", "-f", "-i", str(root)], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(root)


def kill(processes: list[Process], how: signal.Signals = signal.SIGKILL, timeout: float = 60) -> list[str]:
    """End the processes and wait until they are gone; the pidfd keeps the number from changing hands meanwhile."""
    waiting: dict[int, Process] = {}
    for process in reversed(processes):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ENOENT: a thread has its number by now
            handle = os.pidfd_open(process.pid)
            if alive(process):
                signal.pidfd_send_signal(handle, how)
                waiting[handle] = process
            else:
                os.close(handle)
    killed = [f"process {process.pid} ({process.name})" for process in waiting.values()]
    _wait_until_gone(waiting, time.monotonic() + timeout)
    return killed


def _wait_until_gone(waiting: dict[int, Process], deadline: float) -> None:
    try:
        for handle, process in waiting.items():
            if not select.select([handle], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{process.name}: pid {process.pid} does not end; see /proc/{process.pid}/stack")
    finally:
        for handle in waiting:
            os.close(handle)


def _journals_below(top: Path) -> list[str]:
    # Two levels: a run's root holds servers, and no deeper, since pools below may be large or dead.
    base = glob.escape(str(top))
    return glob.glob(f"{base}/*/journal") + glob.glob(f"{base}/*/*/journal")


def mounts_below(top: Path) -> list[Path]:
    """Mount points at or below a directory, the last mounted first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        # The kernel writes a space, tab, newline or backslash as three octal digits.
        name = line.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
        target = Path(os.fsdecode(name))
        if target == top or top in target.parents:
            found.append(target)
    return found[::-1]


def _unmount_below(top: Path) -> list[str]:
    removed = []
    for target in mounts_below(top):
        unmount(target)
        removed.append(f"mount {target}")
    return removed


def unmount(target: Path) -> None:
    """Unmount; what is still busy goes when its last user does. No program: umount(8) would ask a dead server first."""
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    name = os.fsencode(target)
    if libc.umount2(name, 0) and libc.umount2(name, MNT_DETACH):
        error = ctypes.get_errno()
        raise OSError(error, f"cannot unmount: {os.strerror(error)}", str(target))


def loop_backing(device: str) -> str | None:
    """The file behind /dev/loopN, None when it is free."""
    try:
        text = Path(f"/sys/block/{Path(device).name}/loop/backing_file").read_text(encoding="utf-8")
    except OSError:
        return None
    return text.rstrip("\n").removesuffix(" (deleted)") or None


def _detach_below(top: Path) -> list[str]:
    removed = []
    ours = [name for name in sorted(glob.glob("/dev/loop[0-9]*")) if _is_below(loop_backing(name), top)]
    for node in _nodes():
        # A node whose loop device is free belongs to nobody any more.
        backing = loop_backing(f"loop{os.minor(os.stat(node).st_rdev)}")
        if backing is None or _is_below(backing, top):
            remove_node(node)
            removed.append(f"node {node}")
    for device in ours:
        if "p" in device.removeprefix("/dev/loop"):
            continue  # a partition goes with its device
        with open(device, "rb") as handle, contextlib.suppress(OSError):  # it may have gone with its mount
            fcntl.ioctl(handle, LOOP_CLR_FD)
        removed.append(f"loop device {device}")
    return removed


def _is_below(name: str | None, top: Path) -> bool:
    return name is not None and top in Path(name).parents


def _nodes() -> Iterator[Path]:
    """The nodes that stand for whole loop devices, not those for partitions."""
    for name in sorted(glob.glob(NODES)):
        if not name[-1].isdigit():
            node = Path(name)
            info = node.stat()
            if stat.S_ISBLK(info.st_mode) and os.major(info.st_rdev) == LOOP_MAJOR:
                yield node


def remove_node(node: Path) -> None:
    """Remove a node and those of its partitions."""
    for name in glob.glob(f"{glob.escape(str(node))}[0-9]*"):
        Path(name).unlink(missing_ok=True)
    node.unlink(missing_ok=True)


@dataclass
class Claim:
    """A root that no other living run uses; it is free again as soon as this process is gone, however it ends."""

    root: Path
    slot: int
    lock: IO[str]

    def release(self) -> None:
        self.lock.close()


def claim(base: Path, limit: int = 100) -> Claim:
    """Take the first free slot below `base`, swept; slots that killed runs left are swept on the way."""
    base.mkdir(mode=0o711, parents=True, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.geteuid():
        raise RuntimeError(f"{base}: belongs to someone else, who could mislead us; set KVM_STORAGE_SCRATCH to another")
    base = base.resolve()
    mine: Claim | None = None
    for slot in range(limit):
        if mine is not None and not (base / f"{slot}.lock").exists():
            break
        lock = open(base / f"{slot}.lock", "a", encoding="ascii")  # noqa: SIM115 - the lock lives as long as the file
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        sweep(base / str(slot))
        if mine is None:
            mine = Claim(base / str(slot), slot, lock)
        else:
            lock.close()
    if mine is None:
        raise RuntimeError(f"{base}: all {limit} slots are in use; end some runs, or set KVM_STORAGE_SCRATCH")
    clear(mine.root)
    return mine
