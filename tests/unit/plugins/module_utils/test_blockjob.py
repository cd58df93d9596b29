# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block jobs of a guest that answers as it is told to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import blockjob
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

libvirt = pytest.importorskip("libvirt", reason="its binding is not there for this Python")

DISK = "<domain><devices><disk><target dev='vdb'/></disk><disk>{mirror}<target dev='vda'/></disk></devices></domain>"
READY, BUSY = "<mirror ready='yes'/>", "<mirror/>"


class Domain:
    """A guest whose job is the next of a list at each look; the last one stays."""

    def __init__(self, *looks: dict[str, int], mirrors: tuple[str, ...] = ("",), refuses: bool = False) -> None:
        self.looks, self.mirrors, self.refuses = list(looks), list(mirrors), refuses
        self.calls: list[Any] = []

    def name(self) -> str:
        return "web01"

    def blockJobInfo(self, target: str, flags: int) -> dict[str, int]:  # noqa: N802  libvirt's name
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def blockJobAbort(self, target: str, flags: int) -> None:  # noqa: N802  libvirt's name
        self.calls.append(("abort", target, flags))
        if self.refuses:
            raise libvirt.libvirtError("no active block job")

    def XMLDesc(self, flags: int) -> str:  # noqa: N802  libvirt's name
        return DISK.format(mirror=self.mirrors.pop(0) if len(self.mirrors) > 1 else self.mirrors[0])

    def start(self) -> None:
        self.calls.append("start")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockjob, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(blockjob, "LONGEST_PAUSE", 0.002)


def at(done: int, end: int = 10, kind: int = blockjob.PULL) -> dict[str, int]:
    return {"type": kind, "cur": done, "end": end}


def place_of(domain: Domain) -> blockjob.Place:
    return blockjob.Place("volume 'images/a'", domain, "vda")


@pytest.mark.parametrize(
    ("there", "started", "code"),
    [
        ({}, True, None),
        (at(3), False, None),
        (at(3, kind=blockjob.COPY), False, "busy"),
        (at(3, kind=blockjob.ACTIVE_COMMIT), False, "busy"),
        (at(3, kind=99), False, "busy"),
    ],
)
def test_a_job_is_started_or_taken_up(there: dict[str, int], started: bool, code: str | None) -> None:
    domain = Domain(there)
    if code is not None:
        with pytest.raises(StorageError) as caught:
            blockjob.begin(place_of(domain), blockjob.PULL, domain.start)
        assert caught.value.code == code
    else:
        assert blockjob.begin(place_of(domain), blockjob.PULL, domain.start) is started
    assert domain.calls == (["start"] if started else [])


@pytest.mark.parametrize(
    ("domain", "until_ready", "told"),
    [
        (Domain(at(1), at(1), at(5), {}), False, [(1, 10), (5, 10)]),
        (Domain({}), False, []),
        (Domain(at(10), mirrors=(BUSY, BUSY, READY)), True, [(10, 10)]),  # all was copied, the guest wrote anew
    ],
)
def test_the_end_of_a_job_is_waited_for(domain: Domain, until_ready: bool, told: list[tuple[int, int]]) -> None:
    heard: list[tuple[int, int]] = []
    blockjob.wait(place_of(domain), "flatten", 5, lambda *now: heard.append(now), until_ready=until_ready)
    assert (heard, domain.calls) == (told, [])


def test_a_job_that_ends_before_it_is_ready_has_failed() -> None:
    with pytest.raises(StorageError, match="before it was done"):
        blockjob.wait(place_of(Domain(at(1), {}, mirrors=(BUSY,))), "commit", 5, until_ready=True)


def test_a_job_that_takes_too_long_is_ended() -> None:
    domain = Domain(at(1))
    with pytest.raises(StorageError, match="10 %") as caught:
        blockjob.wait(place_of(domain), "flatten", -1, until_ready=False)
    assert caught.value.code == "timeout"
    assert domain.calls == [("abort", "vda", 0)]


def test_a_job_that_ends_by_itself_at_the_last_moment_has_ended() -> None:
    domain = Domain(at(9), {}, refuses=True)
    blockjob.wait(place_of(domain), "flatten", -1, until_ready=False)
    assert domain.calls == [("abort", "vda", 0)]


def test_a_job_that_can_not_be_ended_is_told() -> None:
    with pytest.raises(libvirt.libvirtError):
        blockjob.wait(place_of(Domain(at(1), refuses=True)), "flatten", -1, until_ready=False)


def test_pivot_and_its_refusal() -> None:
    domain = Domain(at(10))
    blockjob.pivot(place_of(domain), "commit")
    assert domain.calls == [("abort", "vda", blockjob.PIVOT)]
    with pytest.raises(StorageError, match="Cannot commit"):
        blockjob.pivot(place_of(Domain(at(10), refuses=True)), "commit")


def test_a_disk_that_has_gone_is_told() -> None:
    with pytest.raises(StorageError, match="has lost its disk vdc"):
        blockjob.Place("volume 'images/a'", Domain({}), "vdc").disk()
