# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in states that no example begins with."""

from __future__ import annotations

import os

import pytest

from tests.contract.hosts import RealHost
from tests.contract.run import run


@pytest.mark.parametrize("refreshed", [True, False], ids=["listed", "unlisted"])
@pytest.mark.parametrize("form", [None, "raw", "qcow2"])
def test_an_empty_file_is_removed_like_any_other(real_host: RealHost, form: str | None, refreshed: bool) -> None:
    """What a killed creation may have left is redone where a volume is wanted, and goes where none is."""
    directory = real_host.scratch / "images"
    made = run(real_host, "pool_dir", {"name": "images", "path": str(directory)})
    assert "failed" not in made, made["msg"]
    (directory / "empty").touch()
    if refreshed:
        real_host.raw.storagePoolLookupByName("images").refresh(0)
    args = {"pool": "images", "name": "empty", "state": "absent", **({"format": form} if form else {})}
    predicted = run(real_host, "volume", args, check=True)
    result = run(real_host, "volume", args)
    assert "failed" not in result, result["msg"]
    assert result["actions"] == predicted["actions"]
    assert result["changed"]
    assert os.listdir(directory) == []
