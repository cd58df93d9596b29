# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix of operations on backends that need a kernel of their own; see docs/guide/11-operations.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.integration.helpers import Host
from tests.integration.matrix import DATA, Place, checksum, of_device, of_image, run_all


def on_devices(host: Host, kind: str, pool: str, folder: Path, *, lun: str = "", others: str = "unit:0:7:%d") -> None:
    """Every operation in a pool of block devices: on a volume made for it, or on the LUN that is there.

    others  the names of LUNs that are not there.
    """
    name, names = lun or "base", numbered(others if lun else "new%d")
    place = Place(host, kind, pool, name, "raw", lambda one: of_device(place.path(one)), names, folder)
    if not lun:  # a LUN gets its content by the first operation that writes
        source = folder / "data.raw"
        source.write_bytes(DATA)
        wanted = {"src": str(source), "remote_src": True, "source_format": "raw"}
        host.ok("volume_upload", pool=pool, name=name, **wanted)
        assert place.content(name) == checksum(DATA)
    run_all(place)


def on_files(host: Host, kind: str, pool: str, directory: Path, folder: Path, form: str = "qcow2") -> None:
    """Every operation in a pool of files."""
    source = folder / "data.raw"
    source.write_bytes(DATA)
    name, names = f"base.{form}", numbered(f"new%d.{form}")
    wanted = {"src": str(source), "remote_src": True, "source_format": "raw", "format": form}
    host.ok("volume_upload", pool=pool, name=name, **wanted)
    run_all(Place(host, kind, pool, name, form, lambda one: of_image("-f", form, directory / one), names, folder))


def numbered(form: str) -> Iterator[str]:
    return (form % number for number in itertools.count())
