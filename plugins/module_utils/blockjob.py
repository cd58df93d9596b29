# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block jobs of running guests: started or taken up, waited for, and ended.

A job belongs to its guest and lives on without the run that started it; the next run finds it and waits for it.
Source: virDomainGetBlockJobInfo, virDomainBlockJobAbort in libvirt's reference.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable

from . import xmltree
from .connection import libvirt, words
from .errors import StepFailed, StorageError

PULL, COPY, COMMIT, ACTIVE_COMMIT = 1, 2, 3, 4  # virDomainBlockJobType
NAMES = {PULL: "pull", COPY: "copy", COMMIT: "commit", ACTIVE_COMMIT: "commit"}
PIVOT = 2  # VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
RUNNING = 1  # VIR_DOMAIN_RUNNING
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between two looks

Progress = Callable[[int, int], None]  # so many bytes of so many


def ticking(tick: Callable[[int], None]) -> Progress:
    """The progress of a job for who counts each byte once; a job's bytes may become more, never less."""
    said = 0

    def tell(done: int, end: int) -> None:
        nonlocal said
        tick(max(done - said, 0))
        said = max(done, said)

    return tell


@dataclass(frozen=True)
class Job:
    """A job of a disk: its kind, and how many bytes of how many it has done."""

    kind: int
    done: int
    end: int


@dataclass(frozen=True)
class Place:
    """A disk of a running guest, and what errors call the volume that it is."""

    label: str
    domain: Any
    target: str

    def disk(self) -> Any:
        """The disk's element in the live XML."""
        tree = xmltree.parse(self.domain.XMLDesc(0))
        for disk in tree.iterfind("devices/disk"):
            target = disk.find("target")
            if target is not None and target.get("dev") == self.target:
                return disk
        raise StorageError(
            thing=self.label,
            code="in_use",
            reason=f"domain {self.domain.name()!r} has lost its disk {self.target}",
            way_out="run this again",
        )

    def job(self) -> Job | None:
        """The job of the disk, or None."""
        found = self.domain.blockJobInfo(self.target, 0)
        return Job(found["type"], found["cur"], found["end"]) if found and found.get("type") else None

    def ready(self) -> bool:
        """Whether a copy or an active commit has caught up with the guest, and may be ended either way."""
        mirror = self.disk().find("mirror")
        return mirror is not None and mirror.get("ready") == "yes"


def begin(place: Place, kind: int, start: Callable[[], Any]) -> bool:
    """Start a job, or take up the one of the same kind that a run before has left; whether it was started."""
    running = place.job()
    if running is None:
        start()
        return True
    if running.kind != kind:
        raise StorageError(
            thing=place.label,
            code="busy",
            reason=f"another block job ({NAMES.get(running.kind, running.kind)}) works on it in domain "
            f"{place.domain.name()!r}",
            way_out=f"let it end, or end it with 'virsh blockjob {place.domain.name()} {place.target} --abort'",
        )
    return False


def wait(place: Place, step: str, timeout: float, on_progress: Progress | None = None, *, until_ready: bool) -> None:
    """Wait for the end of a job, or until it is ready to be pivoted.

    A job that takes longer than the timeout (seconds) is ended: the guest goes on with the disk that it has.
    """
    deadline, pause, said = time.monotonic() + timeout, FIRST_PAUSE, -1
    while True:
        job = place.job()
        if job is None:
            if until_ready:
                raise failed(place, step, "its job has ended before it was done; see the log of the domain")
            return
        if until_ready and place.ready():
            return
        if on_progress is not None and job.done != said:
            said = job.done
            on_progress(job.done, job.end)
        if time.monotonic() > deadline and abort(place):
            percent = 100 * job.done // job.end if job.end else 0
            raise StepFailed(
                thing=place.label,
                step=step,
                code="timeout",
                reason=f"its job was ended after {timeout:g} s at {percent} %, and the guest goes on as before",
                way_out="raise timeout, or do it while the guest has less to write",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def abort(place: Place) -> bool:
    """End a job, so that nothing is changed for the guest; False where it has just ended by itself."""
    try:
        place.domain.blockJobAbort(place.target, 0)
    except libvirt.libvirtError:
        if place.job() is not None:
            raise
        return False
    return True


def pivot(place: Place, step: str) -> None:
    """Let the guest go on with what a copy or an active commit has made."""
    try:
        place.domain.blockJobAbort(place.target, PIVOT)
    except libvirt.libvirtError as error:
        raise failed(place, step, words(error)) from None


def require_running(place: Place) -> None:
    """A guest that stands still can't be made to write its tables; see flush()."""
    if place.domain.state(0)[0] != RUNNING:
        raise StorageError(
            thing=place.label,
            code="in_use",
            reason=f"domain {place.domain.name()!r} has it open and is paused",
            way_out="let it run, or shut it down first",
        )


def flush(place: Place) -> None:
    """QEMU writes what it holds of its disks when it stops for a moment, here some 10 ms.

    A pull ends with the tables of the image in QEMU's memory, and its base gone from the header: a QEMU 7.2 that was
    killed then left a disk without what had been pulled in.
    """
    place.domain.suspend()
    place.domain.resume()


def failed(place: Place, step: str, reason: str) -> StepFailed:
    return StepFailed(thing=place.label, step=step, code="backend_refused", reason=reason)
