# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in a pool's storage as the backend's own commands show it, for what libvirt does not list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

THIN_POOL = "a thin pool"  # a kind of Entry


@dataclass(frozen=True)
class Entry:
    """What stands in a pool's storage, as the backend's own command shows it.

    kind       empty for a volume; else what it is, such as "a thin pool".
    unlisted   whether libvirt does not list it, also after a refresh.
    paths      all paths of it, the usual one first.
    allocation bytes that it takes; None where the command does not tell.
    falls      names of what would be destroyed with it, such as its snapshots.
    is_open    whether something on this host has it open.
    fixed      why its capacity can't be changed; empty where it can.
    trouble    why a thin pool takes no new volume; empty when all is well.
    """

    name: str
    kind: str = ""
    unlisted: bool = False
    paths: tuple[str, ...] = ()
    key: str = ""
    capacity: int = 0
    allocation: int | None = None
    thin_pool: str = ""
    falls: tuple[str, ...] = ()
    is_open: bool = False
    fixed: str = ""
    trouble: str = ""

    @property
    def path(self) -> str:
        return self.paths[0]


@dataclass
class Contents:
    """All that stands in a pool's storage, by name; a capacity is rounded up to the granule."""

    entries: dict[str, Entry]
    granule: int = 1

    @property
    def unlisted(self) -> dict[str, Entry]:
        """The volumes that libvirt does not list."""
        return {name: one for name, one in self.entries.items() if one.unlisted and not one.kind}

    def thin_pools(self) -> dict[str, Entry]:
        return {name: one for name, one in self.entries.items() if one.kind == THIN_POOL}

    def in_thin_pool(self, thin_pool: str) -> dict[str, int]:
        """The capacity of every volume of a thin pool."""
        return {name: one.capacity for name, one in self.entries.items() if one.thin_pool == thin_pool}


@dataclass(frozen=True)
class Unlisted:
    """Volumes that libvirt does not list: the backend's own commands, on this host only.

    look(pool options) tells what is there; it raises the StorageError of what can't be seen, with the code no_source
    where the storage itself is not there. create(label, pool options, name, thin pool, capacity) answers the new one;
    resize(..., name, capacity) and delete(..., name) nothing.
    """

    command: str
    look: Callable[[dict[str, Any]], Contents]
    create: Callable[[str, dict[str, Any], str, str, int], Entry]
    resize: Callable[[str, dict[str, Any], str, int], None]
    delete: Callable[[str, dict[str, Any], str], None]
