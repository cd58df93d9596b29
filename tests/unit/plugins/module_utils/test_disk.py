# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Partitions: their numbers, and what goes with one of them."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils.backends import disk
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

DOS = {"sdx1": 2048, "sdx2": disk.EXTENDED_SECTORS, "sdx3": 2048, "sdx5": 2048, "sdx6": 2048, "sdx10": 2048}


@pytest.mark.parametrize(
    ("device", "name", "number"),
    [
        ("/dev/sdx", "sdx1", 1),
        ("/dev/sdx", "sdx12", 12),
        ("/dev/nvme9n9", "nvme9n9p3", 3),
        ("/dev/sdx", "other", 0),
        ("/dev/sdx", "sdx", 0),
    ],
)
def test_number_of(device, name, number):
    assert disk.number_of(device, name) == number


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sdx1", ""),
        ("sdx3", ""),
        ("sdx2", "sdx5, sdx6, sdx10 would be destroyed with it"),
        ("sdx5", "sdx6, sdx10 would take its number"),
        ("sdx6", "sdx10 would take its number"),
        ("sdx10", ""),
    ],
)
def test_deletes(monkeypatch, name, words):
    monkeypatch.setattr(disk, "partitions", lambda device: DOS)
    disk.deletes("volume", {"device": "/dev/sdx", "source_format": "gpt"}, name)
    for options in ({"device": "/dev/sdx"}, {"device": "/dev/sdx", "source_format": "dos"}):
        if not words:
            disk.deletes("volume", options, name)
            continue
        with pytest.raises(StorageError) as error:
            disk.deletes("volume", options, name)
        assert words in str(error.value)
