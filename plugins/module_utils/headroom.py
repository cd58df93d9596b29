# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a pool has room for what is asked of it: now, and when all that it promised to guests is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import sizes
from .errors import StorageError

OVERCOMMIT_SPEC: dict[str, Any] = {
    "overcommit": {"type": "str", "choices": ["warn", "refuse", "allow"], "default": "warn"},
    "overcommit_ratio": {"type": "float", "default": 1.0},
}


@dataclass(frozen=True)
class Policy:
    """What to do when a pool promises more than ratio times what it has: warn, refuse or allow."""

    overcommit: str = "warn"
    ratio: float = 1.0


def policy_of(thing: str, options: dict[str, Any]) -> Policy:
    """The policy of options that OVERCOMMIT_SPEC has accepted."""
    ratio = options.get("overcommit_ratio")
    ratio = 1.0 if ratio is None else ratio
    if not 0 < ratio < float("inf"):
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"overcommit_ratio can't be {ratio}",
            way_out="give how many times its size the pool may promise, such as 1.5",
        )
    return Policy(options.get("overcommit") or "warn", ratio)


def check(
    thing: str,
    needed_now: int,
    promised: int,
    pool_capacity: int | None,
    pool_available: int | None,
    policy: Policy,
    where: str = "its pool",
) -> list[str]:
    """The warnings about a change, in bytes; raises no_space where it can't or shall not be.

    needed_now is taken at once, promised is what all volumes could take after the change. A size that is not known
    (None, or a capacity of 0) is not compared.
    """
    if pool_available is not None and needed_now > pool_available:
        raise StorageError(
            thing=thing,
            code="no_space",
            reason=f"it would take {sizes.readable(needed_now)} at once, and {where} has "
            f"{sizes.readable(max(pool_available, 0))} left",
            way_out="ask for less, or make room",
        )
    if not pool_capacity or policy.overcommit == "allow" or promised <= pool_capacity * policy.ratio:
        return []
    limit = "" if policy.ratio == 1 else f", of which {policy.ratio:g} times that may be promised"
    words = (
        f"with it the volumes of {where} have {sizes.readable(promised)} together, and {where} "
        f"{sizes.readable(pool_capacity)}{limit}"
    )
    if policy.overcommit == "refuse":
        raise StorageError(
            thing=thing,
            code="no_space",
            reason=words,
            way_out="make room, or raise overcommit_ratio",
        )
    return [f"{thing}: {words}; once it is full, their guests can't write"]


def room(volume: Any, more: int, now: int, policy: Policy, thin_pool: str | None = None) -> list[str]:
    """check() of a volume that will promise some bytes more than it does, and take some of them at once.

    What was asked of the same pool before in this run counts too. The pool is looked at once a run.
    """
    connection, pool = volume.connection, volume.pool_name
    if thin_pool:
        contents = volume.contents()
        if contents is None:
            return []
        entry = contents.entries[thin_pool]
        there, where = sum(contents.in_thin_pool(thin_pool).values()), f"thin pool {thin_pool!r}"
        capacity, available = entry.capacity, None
        if entry.allocation is not None:
            available = max(entry.capacity - entry.allocation, 0)
    else:
        if connection.pool(pool) is None or not connection.active(pool):
            return []
        capacity, available = connection.once(f"space of {pool}", lambda: space(volume))
        there, where = connection.once(f"promised in {pool}", lambda: promised(volume)), f"pool {pool!r}"
    asked = connection.once(f"asked of {where} in {pool}", dict)
    asked[volume.volume_name] = (more, now)
    found = check(
        volume.label,
        sum(one for dummy, one in asked.values()),
        there + sum(one for one, dummy in asked.values()),
        capacity,
        available,
        policy,
        where,
    )
    if not found:
        return []
    told = connection.once(f"told of {where} in {pool}", lambda: volume.volume_name)
    return found if told == volume.volume_name else []  # once, with the first that has no room


def space(volume: Any) -> tuple[int | None, int | None]:
    """The capacity of a volume's pool and what is left of it, by whoever knows it without a refresh."""
    directory = volume.directory()
    if directory:
        status = os.statvfs(directory)
        return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    if volume.connection.local:
        try:
            found = volume.backend.space(volume.pool_options())
        except (OSError, ValueError):
            found = None
        if found is not None:
            return found
    dummy, capacity, dummy2, available = volume.connection.pool(volume.pool_name).info()
    return (capacity, available) if capacity else (None, None)


def promised(volume: Any) -> int:
    """What the volumes of the pool that libvirt lists could take; what has just gone takes nothing."""
    from .connection import libvirt

    total = 0
    for handle in volume.connection.volumes(volume.pool_name).values():
        try:
            total += handle.info()[1]
        except libvirt.libvirtError:
            continue
    return total
