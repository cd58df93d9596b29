# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host that all comparisons run on: a private libvirtd, with pools that come and go."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt

from tests.servers.libvirtd import Libvirtd

from .controller import Controller, Tasks
from .sequential import POOL, VOLUME

CAPACITY = "1GiB"


def as_count(pool: str, count: int) -> list[dict[str, Any]]:
    """The same volumes as one item."""
    return [{"pool": pool, "name": "v%05d.qcow2", "count": count, "capacity": CAPACITY, "format": "qcow2"}]


def volumes(pool: str, count: int) -> list[dict[str, Any]]:
    """Sparse qcow2 volumes, one item each."""
    return [
        {"pool": pool, "name": f"v{number:05d}.qcow2", "capacity": CAPACITY, "format": "qcow2"}
        for number in range(1, count + 1)
    ]


class Host:
    def __init__(self, server: Libvirtd, controller: Controller) -> None:
        self.server, self.controller, self.uri = server, controller, server.uri

    def directory(self, pool: str) -> Path:
        return self.server.shared / pool

    def pool(self, name: str) -> dict[str, Any]:
        """A dir pool as an item of a layout."""
        return {"type": "dir", "name": name, "path": str(self.directory(name)), "autostart": True}

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        connection = libvirt.open(self.uri)
        try:
            yield connection
        finally:
            connection.close()

    def make_pool(self, name: str) -> None:
        with self.connected() as connection:
            pool = connection.storagePoolDefineXML(POOL.format(name, self.directory(name)))
            pool.build()
            pool.create()
            pool.setAutostart(1)

    def drop_pool(self, name: str) -> None:
        with self.connected() as connection:
            with contextlib.suppress(libvirt.libvirtError):
                connection.storagePoolLookupByName(name).destroy()
            with contextlib.suppress(libvirt.libvirtError):
                connection.storagePoolLookupByName(name).undefine()
        shutil.rmtree(self.directory(name), ignore_errors=True)

    def copy_volume(self, pool: str, names: list[str]) -> None:
        """Volumes under all these names: the first is made by libvirt, the others are copies of its file."""
        first, *others = (self.directory(pool) / name for name in names)
        with self.connected() as connection:
            handle = connection.storagePoolLookupByName(pool)
            handle.createXML(VOLUME.format(first.name))
            header = first.read_bytes().rstrip(b"\0")
            for path in others:
                path.write_bytes(header)
                os.truncate(path, first.stat().st_size)
            handle.refresh()

    def layout(self, *, pools: Any, volumes: Any) -> Tasks:
        return [{"name": "layout", "kvm.storage.layout": {"uri": self.uri, "pools": pools, "volumes": volumes}}]

    def noop(self, *, pools: Any, volumes: Any) -> Tasks:
        """The same arguments to a module that does nothing."""
        return [{"name": "no-op", "ansible.legacy.noop": {"uri": self.uri, "pools": pools, "volumes": volumes}}]
