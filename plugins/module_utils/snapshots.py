# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot is, and what a backend that has snapshots of its own can do with them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any, Callable

INTERNAL, EXTERNAL, NATIVE, REFLINK, SUBVOLUME = "internal", "external", "native", "reflink", "subvolume"
KINDS = (INTERNAL, EXTERNAL, NATIVE, REFLINK, SUBVOLUME)


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of a volume.

    time       seconds since the epoch, None where nobody wrote it down.
    size       bytes that a guest would see, None where that is not known.
    children   what stands on it and keeps it from being removed.
    path       of the file that holds it, where it is one.
    trouble    why it can't be reverted to; empty when all is well.
    overlay    whether the volume itself holds it, and the file at path what a running guest wrote since.
    protected  whether the backend itself keeps it from being removed.
    key        what an image knows it by besides its name.
    """

    name: str
    kind: str
    time: float | None = None
    size: int | None = None
    children: tuple[str, ...] = ()
    path: str = ""
    trouble: str = ""
    overlay: bool = False
    protected: bool = False
    key: str = ""


@dataclass(frozen=True)
class Snapshots:
    """A backend's own snapshots, by commands of this host.

    look(connection, pool options, volume name) -> [Snapshot], only those that can be meant by a task.
    create(label, connection, pool options, volume name, snapshot name, size), delete(... without size), and
    revert(..., snapshot name, whether the snapshots that came later are given up).
    same(connection, pool options, volume name, snapshot name) -> whether the volume surely has the content of it.
    error(volume name, snapshot name) -> what is wrong with a new name, or "".
    sized      whether a snapshot is given a size, for what changes afterwards.
    drops_newer whether a revert destroys the snapshots that came later.
    listed     whether libvirt lists snapshots among the volumes.
    """

    command: str
    look: Callable[[Any, dict[str, Any], str], list[Snapshot]]
    create: Callable[[str, Any, dict[str, Any], str, str, int | None], None]
    delete: Callable[[str, Any, dict[str, Any], str, str], None]
    revert: Callable[[str, Any, dict[str, Any], str, str, bool], None]
    same: Callable[[Any, dict[str, Any], str, str], bool]
    error: Callable[[str, str], str] = lambda volume, snapshot: ""
    sized: bool = False
    drops_newer: bool = False
    listed: bool = False


def seconds_of(text: str) -> float | None:
    """A time as ctime(3) writes it, in this host's zone; None for anything else."""
    with contextlib.suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(text, "%a %b %d %H:%M:%S %Y"))
    return None
