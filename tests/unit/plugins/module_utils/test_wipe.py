# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wiping: its plan, what is written where, and what a qcow2 is made anew with."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.kvm.storage.plugins.module_utils import exclusive, headroom, wipe
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

MIB = 2**20


def test_algorithms_are_those_of_libvirt_in_its_order():
    libvirt = pytest.importorskip("libvirt", reason="its binding is not there for this Python")
    for number, name in enumerate(wipe.ALGORITHMS):
        assert getattr(libvirt, f"VIR_STORAGE_VOL_WIPE_ALG_{name.upper()}") == number
    assert len(wipe.ALGORITHMS) == libvirt.VIR_STORAGE_VOL_WIPE_ALG_TRIM + 1


@pytest.mark.parametrize(("exists", "steps"), [(True, ["wipe"]), (False, [])])
def test_plan(exists, steps):
    before = {"exists": exists, "options": {"capacity": MIB}, "protected": False, "backing": None, "thin_pool": None}
    found = wipe.plan(before)
    assert found.steps == steps
    assert found.before == found.after
    assert bool(found.risk) is exists


@given(some.lists(some.tuples(some.integers(0, 63), some.integers(1, 16)), max_size=6), some.integers(0, 4095))
def test_zero_reaches_every_byte_and_fills_no_hole(places, odd):
    descriptor = os.memfd_create("disk")
    try:
        size = 80 * 64 * 1024 + odd
        os.ftruncate(descriptor, size)
        for start, length in places:
            os.pwrite(descriptor, b"\xa5" * (length * 4096), start * 64 * 1024)
        if odd:
            os.pwrite(descriptor, b"x", size - 1)
        taken = os.fstat(descriptor).st_blocks
        wipe.zero(descriptor)
        assert os.pread(descriptor, size, 0) == bytes(size)
        assert os.fstat(descriptor).st_size == size
        assert os.fstat(descriptor).st_blocks <= taken
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({"compat": "0.10"}, {"compat": "0.10"}),
        ({"compat": "1.1", "lazy-refcounts": True}, {"compat": "1.1", "lazy_refcounts": "on"}),
        ({"compat": "1.1", "extended-l2": True}, {"compat": "1.1", "extended_l2": "on"}),
        ({"compat": "1.1", "compression-type": "zstd"}, {"compat": "1.1", "compression_type": "zstd"}),
        ({"compat": "1.1", "compression-type": "zlib"}, {"compat": "1.1"}),
        ({"compat": "1.1", "refcount-bits": 64}, {"compat": "1.1", "refcount_bits": 64}),
    ],
)
def test_what_a_qcow2_keeps(data, options):
    found = wipe.kept({"cluster-size": 65536, "format-specific": {"data": data}})
    assert found == {"cluster_size": 65536, "refcount_bits": 16, **options}


@pytest.mark.parametrize(
    ("code", "said", "fails"),
    [(0, "scrub: scrubbing /dev/loop0", False), (0, "warning: /dev/fd/3 is zero length", True), (1, "no", True)],
)
def test_scrub_that_did_nothing(monkeypatch, tmp_path, code, said, fails):
    """It ends well where it finds no size."""
    from ansible_collections.kvm.storage.plugins.module_utils.backends import shared

    answer = SimpleNamespace(returncode=code, stdout=said, stderr="")
    monkeypatch.setattr(shared, "run_native", lambda *argv, **options: answer)
    disk = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT)
    os.ftruncate(disk, 1001)
    try:
        if fails:
            with pytest.raises(StorageError):
                wipe.scrub("volume 'p/v'", disk, "dod")
        else:
            wipe.scrub("volume 'p/v'", disk, "dod")
        assert os.fstat(disk).st_size == 1001
    finally:
        os.close(disk)


def test_a_disk_is_taken_by_one_alone(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x")
    with exclusive.opened("one", str(disk)), pytest.raises(StorageError) as error, exclusive.opened("two", str(disk)):
        pass
    assert error.value.code == "in_use"
    with exclusive.opened("two", str(disk)):
        pass


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_only_a_plain_file_is_taken(tmp_path, kind):
    (tmp_path / "canary").write_bytes(b"x")
    place = tmp_path / "place"
    {"link": lambda: place.symlink_to(tmp_path / "canary"), "directory": place.mkdir, "fifo": lambda: os.mkfifo(place)}[
        kind
    ]()
    with pytest.raises((StorageError, OSError)), exclusive.opened("one", str(place)):
        pass


def test_room_for_holes(tmp_path):
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(8 * MIB)
    assert wipe.holes(str(disk)) == 8 * MIB
    with pytest.raises(StorageError):
        headroom.check("v", wipe.holes(str(disk)), 0, 8 * MIB, MIB, headroom.Policy("allow"))
