# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is mounted already when a file system is to be mounted."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import block
from ansible_collections.kvm.storage.plugins.module_utils.backends import fs
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

POOL = {"device": "/dev/sdx", "path": "/srv/data"}


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ([], []),
        ([("8:1", "/")], []),
        ([("8:16", "/srv/data")], ["/dev/sdx is mounted on /srv/data already; the pool uses that mount and ends it"]),
        ([("8:1", "/srv/data"), ("8:16", "/srv/data")], ["/dev/sdx is mounted on /srv/data already"]),
        ([("8:16", "/z"), ("8:16", "/a")], ["/dev/sdx is mounted on /a too"]),
        ([("8:1", "/srv/data")], None),
        ([("", "/srv/data")], None),
    ],
)
def test_preflight(monkeypatch, mounts, words):
    monkeypatch.setattr(block, "number_of", lambda path: "8:16")
    monkeypatch.setattr(block, "mounts", lambda: mounts)
    if words is None:
        with pytest.raises(StorageError) as error:
            fs.preflight("pool", POOL, 1)
        assert error.value.code == "path_conflict"
        return
    told = fs.preflight("pool", POOL, 1)
    assert len(told) == len(words)
    assert all(one.startswith(word) for one, word in zip(told, words))


def test_a_device_that_is_not_there_is_mounted_nowhere(monkeypatch):
    monkeypatch.setattr(block, "number_of", lambda path: "")
    monkeypatch.setattr(block, "mounts", lambda: [("", "/mnt")])
    assert fs.preflight("pool", POOL, 1) == []
