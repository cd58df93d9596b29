# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a fleet needs before its layouts and after them: the items of one host, and what differs on all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

FLEET_KEYS = frozenset(("disabled", "only_on", "prepare", "purpose", "shared"))
OUT_OF_USE = {"state": "inactive", "autostart": False}  # of a pool that is disabled; what it holds stays
ISO = "iso"  # what a volume is for that does not say so and has a name that ends so
IMAGES = "images"  # what any other one is for

COLUMNS = ("HOST", "ITEM", "DESIRED", "FOUND", "DRIFT", "FIX")
WIDEST = 48  # characters of what is desired or found
ALIKE = 3  # items that differ alike have a row each up to this many, and one together above it
NOTES = 5  # lines of explanation for one host

# Failures that say nothing of the item itself; any other one is a difference that somebody has looked at.
UNKNOWN_CODES = frozenset(
    ("backend_refused", "busy", "guard_unavailable", "no_connection", "system_refused", "timeout")
)
# Volumes that can be as declared only when what they hold is given up.
LOSS_CODES = frozenset(("cannot_change", "would_shrink"))
# What tells most of something that is to be made or removed, by its kind.
TELLING = {
    "secret": ("usage",),
    "pool": ("path", "source_name", "target_iqn", "device", "devices"),
    "volume": ("format", "capacity"),
}
SPEAKS_FOR_ITSELF = ("state", "permissions")  # values that need no name before them


def for_host(items: Any, host: str, groups: Mapping[str, Iterable[str]]) -> list[Any]:
    """The items that are meant for a host, without the keys that only fleets know."""
    if not isinstance(items, (list, tuple)):
        raise AnsibleFilterError("for_host: a list of items is needed")
    return [without_fleet_keys(item) for item in meant(items, host, groups)]


def meant(items: Iterable[Any], host: str, groups: Mapping[str, Iterable[str]]) -> list[Any]:
    """The items that are meant for a host, as they are."""
    known = {*groups, *(name for members in groups.values() for name in members), host}
    return [item for item in items if is_meant(item, host, groups, known)]


def without_fleet_keys(item: Any) -> Any:
    """An item as the layout takes it."""
    if not isinstance(item, Mapping) or FLEET_KEYS.isdisjoint(item):
        return item
    if item.get("disabled") and "type" not in item:
        raise AnsibleFilterError("for_host: disabled is for pools; take a volume or a secret out by only_on")
    kept = {key: value for key, value in item.items() if key not in FLEET_KEYS}
    return {**kept, **OUT_OF_USE} if item.get("disabled") else kept


def volumes_for_host(volumes: Any, pools: Any, host: str, groups: Mapping[str, Iterable[str]]) -> list[Any]:
    """The volumes that are meant for a host, without those of pools that are out of use there."""
    for items in (volumes, pools):
        if not isinstance(items, (list, tuple)):
            raise AnsibleFilterError("volumes_for_host: a list of volumes and one of pools are needed")
    declared = {item["name"]: item for item in meant(pools, host, groups) if is_named(item)}
    found = []
    for volume in meant(volumes, host, groups):
        pool = declared.get(volume.get("pool"), {}) if isinstance(volume, Mapping) else {}
        check_purpose(volume, pool)
        if not pool.get("disabled"):
            found.append(without_fleet_keys(volume))
    return found


def is_named(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)


def check_purpose(volume: Any, pool: Mapping[str, Any]) -> None:
    """A pool that says what it is for takes nothing else."""
    if "purpose" not in pool:
        return
    allowed = [pool["purpose"]] if isinstance(pool["purpose"], str) else list(pool["purpose"])
    name = str(volume.get("name", ""))
    purpose = volume.get("purpose", ISO if name.lower().endswith(".iso") else IMAGES)
    if purpose not in allowed:
        raise AnsibleFilterError(
            f"volume {pool['name']}/{name} is for {purpose}, and its pool for {', '.join(allowed)}; put it into "
            f"another pool, or add {purpose} to the purpose of this one"
        )


def is_meant(item: Any, host: str, groups: Mapping[str, Iterable[str]], known: set[str]) -> bool:
    """Whether an item is meant for a host. A name that nobody has would drop the item from all hosts in silence."""
    if not isinstance(item, Mapping) or "only_on" not in item:
        return True
    names = [item["only_on"]] if isinstance(item["only_on"], str) else item["only_on"]
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise AnsibleFilterError("for_host: only_on must be the name of a host or group, or a list of such names")
    strangers = sorted(set(names) - known)
    if strangers:
        raise AnsibleFilterError(
            f"for_host: only_on names {', '.join(strangers)}, which the inventory has neither as a host nor as a group"
        )
    return any(name == host or host in groups.get(name, ()) for name in names)


def drift(results: Mapping[str, Any]) -> dict[str, Any]:
    """What differs on a fleet, as a table and as data."""
    if not isinstance(results, Mapping):
        raise AnsibleFilterError("drift: a dictionary of results by host is needed")
    hosts: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    losing = 0
    for host, result in results.items():
        found = Host(host, result)
        hosts[host] = found.status
        losing += found.loses_data
        rows += found.rows()
        notes += found.notes()
    counts = [f"{list(hosts.values()).count(status)} {status}" for status in ("clean", "drifted", "unknown")]
    summary = f"Fleet: {len(hosts)} host{'' if len(hosts) == 1 else 's'}, {', '.join(counts)}, {losing} need data loss"
    blocks = [aligned([COLUMNS, *rows]) if rows else "", "\n".join(notes), summary]
    return {
        "table": "\n\n".join(block for block in blocks if block),
        "summary": summary,
        "hosts": hosts,
        "clean": bool(hosts) and set(hosts.values()) == {"clean"},
    }


class Host:
    """What one host's result says."""

    def __init__(self, name: str, result: Any) -> None:
        self.name = name
        self.result = result if isinstance(result, Mapping) else {}
        items = self.result.get("outcomes")
        self.items: list[Mapping[str, Any]] | None = None
        if isinstance(items, (list, tuple)):
            self.items = [item for item in items if not as_declared(item)]

    @property
    def status(self) -> str:
        if self.items is None or any(is_unknown(item) for item in self.items):
            return "unknown"
        return "drifted" if self.items else "clean"

    @property
    def loses_data(self) -> bool:
        return any(loses_data(item) for item in self.items or ())

    def rows(self) -> list[tuple[str, ...]]:
        if self.items is None:
            return [(self.name, "*", "?", self.why(), "unknown", "-")]
        alike: dict[tuple[Any, ...], list[str]] = {}
        for item in self.items:
            alike.setdefault((item.get("kind"), item.get("pool"), *cells(item)), []).append(printable(item.get("name")))
        rows: list[tuple[str, ...]] = []
        for (kind, _pool, *rest), names in alike.items():
            if len(names) > ALIKE:
                names = [f"{names[0]} and {len(names) - 1} more"]
            rows += [(self.name, f"{kind} {name}", *rest) for name in names]
        return rows

    def why(self) -> str:
        """Why nothing is known of the host, in a word or two."""
        if self.result.get("unreachable"):
            return "unreachable"
        return str(self.result.get("code") or ("failed" if self.result.get("msg") else "no result")).replace("_", " ")

    def notes(self) -> list[str]:
        """The words of what failed."""
        if self.items is None:
            messages = [str(self.result.get("msg", ""))]
        else:
            messages = [str(item["msg"]) for item in self.items if item.get("msg")]
        lines = [printable(line) for message in messages for line in message.splitlines() if line.strip()]
        if len(lines) > NOTES:
            lines[NOTES - 1 :] = [f"and {len(lines) - NOTES + 1} more"]
        return [f"{self.name}: {line}" for line in lines]


def as_declared(item: Mapping[str, Any]) -> bool:
    """Whether nothing differs; an item that waits for a failed one was compared nevertheless."""
    same = item.get("status") == "ok" or (item.get("status") == "skipped" and item.get("change") == "none")
    return same and not item.get("restart_needed")


def is_unknown(item: Mapping[str, Any]) -> bool:
    """Whether nobody could see how the item is."""
    return item.get("status") == "failed" and not item.get("differences") and item.get("code") in UNKNOWN_CODES


def loses_data(item: Mapping[str, Any]) -> bool:
    """Whether the item can be as declared only when data is given up."""
    refused = item.get("kind") == "volume" and item.get("code") in LOSS_CODES
    return refused or str(item.get("risk") or "").startswith("DESTROYS DATA")


def cells(item: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What is desired of an item, what was found, how they differ, and what mends it."""
    differences = item.get("differences") or {}
    failed = item.get("status") == "failed"
    if is_unknown(item):
        return ("?", "?", "unknown", "-")
    if item.get("change") == "create":
        compared = (telling(item, "after"), "-", "missing")
    elif item.get("change") == "delete":
        compared = ("absent", telling(item, "before"), "not wanted")
    elif differences:
        wanted, found = (joined(differences, side) for side in ("after", "before"))
        if wanted == found:  # sizes that differ by less than their readable form shows
            wanted, found = (joined(differences, side, exact=True) for side in ("after", "before"))
        compared = (wanted, found, ", ".join(printable(option) for option in differences))
    elif item.get("status") == "skipped":
        compared = ("?", "?", "not looked at")
    elif failed:
        compared = ("see below", "see below", words(item.get("code")))
    elif item.get("restart_needed"):
        compared = ("as defined", "older settings", "not restarted")
    else:
        compared = ("-", "-", ", ".join(map(words, item.get("actions") or ())))
    return (*compared, fix(item))


def fix(item: Mapping[str, Any]) -> str:
    """What a run would do about an item."""
    if item.get("status") == "failed":
        return "DATA LOSS" if loses_data(item) else "by hand"
    if item.get("status") == "skipped":
        return "blocked"
    if item.get("change") in ("create", "delete"):
        steps = str(item["change"])
    else:
        actions = list(item.get("actions") or ())
        steps = ", ".join(map(words, [*actions, *(["restart"] if item.get("restart_needed") else [])]))
    return f"{steps} (DATA LOSS)" if loses_data(item) else steps


def telling(item: Mapping[str, Any], side: str) -> str:
    """An item in a few words: its type, and where it lies or how large it is."""
    differences = item.get("differences") or {}
    values = [item.get("type")]
    values += [(differences.get(option) or {}).get(side) for option in TELLING.get(str(item.get("kind")), ())]
    return clipped(" ".join(readable(value) for value in values if value)) or "present"


def joined(differences: Mapping[str, Any], side: str, exact: bool = False) -> str:
    """One side of all options that differ."""
    parts = []
    for option, values in differences.items():
        value = printable(values.get(side)) if exact else readable(values.get(side))
        parts.append(value if option in SPEAKS_FOR_ITSELF else f"{option} {value}")
    return clipped(", ".join(parts))


def readable(value: Any) -> str:
    """A value without the bytes that stand in brackets after a size."""
    return "-" if value in (None, "") else re.sub(r"^([0-9.]+ [KMGTPE]?i?B) \([0-9]+\)$", r"\1", printable(value))


def printable(value: Any) -> str:
    """Text that can't break the table: the names of volumes are not ours."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def words(name: Any) -> str:
    return printable(name or "failed").replace("_", " ")


def clipped(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows as lines whose columns stand below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, Any]:
        return {"drift": drift, "for_host": for_host, "volumes_for_host": volumes_for_host}
