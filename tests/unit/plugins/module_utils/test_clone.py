# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way a clone is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import clone
from ansible_collections.kvm.storage.plugins.module_utils.contents import Entry
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

FILES = ("raw", "qcow2")


def backend(kind: str) -> SimpleNamespace:
    files = kind == "dir"
    return SimpleNamespace(
        type=kind,
        volume_formats=FILES if files else ("raw",),
        default_format="raw",
        linked=print if kind in ("rbd", "zfs") else None,
        shared=print if kind == "logical" else None,
    )


def target(kind: str, pool: str = "p", thin_pool: str | None = None, **source: Any) -> Any:
    options = source.pop("options", {})
    want = {
        "source": {"pool": "p", "volume": "base", "mode": "auto", **source},
        "options": options,
        "backing": None,
        "preallocation": source.pop("preallocation", None),
        "thin_pool": thin_pool,
    }
    directory = "/srv/p" if kind == "dir" else ""
    return SimpleNamespace(
        label="volume 'p/v'", pool_name=pool, backend=backend(kind), want=want, directory=lambda: directory
    )


def source(kind: str, thin_pool: str = "", backing: str | None = None, **options: Any) -> Any:
    directory = "/srv/p" if kind == "dir" else ""
    return SimpleNamespace(
        pool_name="p",
        backend=backend(kind),
        before={"backing": backing, "options": options},
        entry=lambda: Entry("base", thin_pool=thin_pool),
        directory=lambda: directory,
    )


@pytest.mark.parametrize(
    ("of", "into", "form", "way"),
    [
        (source("dir"), target("dir"), "qcow2", "reflink or copy"),
        (source("dir"), target("dir", mode="reflink"), "qcow2", "reflink"),
        (source("dir"), target("dir", mode="full"), "qcow2", "copy"),
        (source("dir"), target("dir", mode="linked"), "qcow2", "linked"),
        (source("dir"), target("dir", mode="linked"), "raw", "linked"),
        (source("dir"), target("dir", "other", mode="linked"), "raw", "linked"),
        (source("dir"), target("dir", mode="linked", options={"format": "raw"}), "raw", "unsupported"),
        (source("dir"), target("dir", options={"format": "raw"}), "qcow2", "copy"),
        (source("dir"), target("dir", mode="reflink", options={"format": "raw"}), "qcow2", "unsupported"),
        (source("dir", backing="/srv/p/b"), target("dir"), "qcow2", "copy"),
        (source("dir", cluster_size=65536), target("dir", options={"cluster_size": 65536}), "qcow2", "reflink or copy"),
        (source("dir", cluster_size=65536), target("dir", options={"cluster_size": 4096}), "qcow2", "copy"),
        (source("dir"), target("rbd"), "qcow2", "copy"),
        (source("dir"), target("rbd", "other", mode="linked"), "qcow2", "unsupported"),
        (source("dir"), target("rbd", mode="reflink"), "qcow2", "unsupported"),
        (source("rbd"), target("rbd"), "raw", "copy"),
        (source("rbd"), target("rbd", mode="linked"), "raw", "native linked"),
        (source("rbd"), target("rbd", "other", mode="linked"), "raw", "unsupported"),
        (source("zfs"), target("zfs", mode="linked"), "raw", "native linked"),
        (source("logical", "thin"), target("logical"), "raw", "native shared"),
        (source("logical", "thin"), target("logical", mode="reflink"), "raw", "native shared"),
        (source("logical", "thin"), target("logical", thin_pool="thin"), "raw", "native shared"),
        (source("logical", "thin"), target("logical", thin_pool="other"), "raw", "copy"),
        (source("logical", "thin"), target("logical", "other"), "raw", "copy"),
        (source("logical"), target("logical"), "raw", "copy"),
        (source("logical"), target("logical", mode="reflink"), "raw", "unsupported"),
        (source("logical"), target("logical", mode="linked"), "raw", "unsupported"),
        (source("rbd"), target("dir"), "raw", "copy"),
    ],
)
def test_way(of: Any, into: Any, form: str, way: str) -> None:
    if way != "unsupported":
        assert clone.way_of(into, of, form) == way
        return
    with pytest.raises(StorageError) as failed:
        clone.way_of(into, of, form)
    assert failed.value.code == way
    assert "mode: full" in str(failed.value)
