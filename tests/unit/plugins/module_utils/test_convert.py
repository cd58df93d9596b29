# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a conversion, and what of an image can't be meant."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import convert
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

RAW = {"format": "raw"}
QCOW2 = {"format": "qcow2", "compat": "1.1", "cluster_size": 65536, "compression_type": "zlib"}


@pytest.mark.parametrize(
    ("present", "image", "outdated", "steps"),
    [
        (RAW, {"format": "qcow2"}, [], ["convert"]),
        (RAW, RAW, [], []),
        (QCOW2, {"format": "qcow2"}, [], []),
        (QCOW2, {"format": "qcow2", "cluster_size": 65536, "lazy_refcounts": False}, [], []),
        (QCOW2, {"format": "qcow2", "cluster_size": 32768}, [], ["convert"]),
        (QCOW2, {"format": "qcow2", "lazy_refcounts": True}, [], ["convert"]),
        ({**QCOW2, "extended_l2": True}, {"format": "qcow2", "extended_l2": False}, [], ["convert"]),
        (QCOW2, {"format": "qcow2", "compression_type": "zstd"}, [], ["convert"]),
        (QCOW2, {"format": "qcow2", "compress": True, "preallocation": "full"}, [], []),
        # while a definition says raw, the file is raw
        (RAW, {"format": "qcow2"}, ["web"], ["switch_domains", "convert"]),
        (QCOW2, RAW, ["web"], ["convert", "switch_domains"]),
        (QCOW2, {"format": "vdi"}, ["web"], ["convert", "switch_domains"]),
        (RAW, RAW, ["web"], ["switch_domains"]),
    ],
)
def test_plan(present: dict[str, Any], image: dict[str, Any], outdated: list[str], steps: list[str]) -> None:
    made = convert.plan({"present": present, "outdated": outdated}, image)
    assert made.steps == steps
    assert (made.before == made.after) == (not steps)


@pytest.mark.parametrize(
    "given",
    [
        {"format": "raw", "compress": True},
        {"format": "vmdk", "cluster_size": "64KiB"},
        {"format": "qcow2", "cluster_size": "3KiB"},
        {"format": "qcow2", "cluster_size": "4MiB"},
        {"format": "qcow2", "cluster_size": "8KiB", "extended_l2": True},
        {"format": "qcow2", "compat": "0.10", "lazy_refcounts": True},
        {"format": "qcow2", "compat": "0.10", "compression_type": "zstd"},
        {"format": "qcow2", "compress": True, "preallocation": "metadata"},
        {"format": "vdi", "preallocation": "falloc"},
        {"format": "raw", "preallocation": "metadata"},
    ],
)
def test_what_can_not_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises(StorageError) as caught:
        convert.clean_image("volume 'a/b'", given)
    assert caught.value.code == "bad_value"
    assert convert.clean_image("volume 'a/b'", {"format": given["format"]}) == {"format": given["format"]}
