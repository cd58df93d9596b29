# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values for any field, made from its type alone, so that a new backend's fields are tested without being named."""

from __future__ import annotations

from typing import Any

from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.fields import At, Each, Group, Pairs

# Text with a syntax of its own, for fields that take no other.
SPECIAL = ["iqn.2026-01.com.example:a", "20000000c9831b4b", "0x1f", "4.1", "scsi_host3"]
BY_TYPE: dict[str, list[Any]] = {
    "str": ["plain", "with spaces", "<&\"'>", "ümläut"],
    "path": ["/srv/images", "/dev/disk/by-path/a b"],
    "host": ["storage.example.com", "192.0.2.7", "2001:db8::7"],
    "int": [0, 7],
    "port": [1, 65535],
    "size": ["1GiB", "4096"],
    "mode": ["0711", "0700"],
    "yes_no": [True, False],
    "present": [True, False],
}


def values(field: Any) -> list[Any]:
    """Some values of a field, in the form that a user gives; the ones of a Group and an Each hold all their parts."""
    if isinstance(field, At):
        return list(field.choices) or accepted(field, BY_TYPE[field.type]) or accepted(field, SPECIAL)
    if isinstance(field, Group):
        return [whole for whole in (group(field, turn) for turn in range(6)) if whole]
    if isinstance(field, Each):
        rows = [one(field, turn) for turn in range(4)]
        return [rows[:1], rows[: field.at_most]]
    if isinstance(field, Pairs):
        return [{"client_mount_timeout": "2"}, {"a": "<1>", "b": "2"}]
    raise TypeError(f"no values for {field!r}: add them here")


def accepted(field: At, candidates: list[Any]) -> list[Any]:
    """Those of some values that the field takes."""
    return [value for value in candidates if is_clean(field, value)]


def is_clean(field: Any, value: Any) -> bool:
    try:
        field.clean("sample", "option", value)
    except StorageError:
        return False
    return True


def one(field: Each, turn: int) -> Any:
    """One entry of a list."""
    row = {name: pick(column, turn) for name, column in field.columns.items()}
    return row.get("", row)


def group(field: Group, turn: int) -> dict[str, Any]:
    """A dictionary with every key that may stand beside the others, each alternative in its turn."""
    names, chosen = list(field.fields), set()
    for alternatives in field.rules["mutually_exclusive"]:
        chosen.add(alternatives[turn % len(alternatives)])
        names = [name for name in names if name in chosen or name not in alternatives]
    names.sort(key=lambda name: (not field.fields[name].required, name not in chosen))
    whole: dict[str, Any] = {}
    for name in compatible(field.fields, names):
        longer = {**whole, name: pick(field.fields[name], turn)}
        if is_clean(field, longer):  # a group may take a key beside some values of another only
            whole = longer
    return whole


def pick(field: Any, turn: int) -> Any:
    found = values(field)
    return found[turn % len(found)]


def places(field: Any) -> set[str]:
    """Where in the XML a field stands."""
    if isinstance(field, At):
        return {field.path}
    if isinstance(field, Group):
        return set(field.constants).union(*(places(part) for part in field.fields.values()))
    return {field.path}


def excluded(field: Any) -> set[str]:
    """The places that a field empties when it is written."""
    if isinstance(field, Group):
        return set().union(*(excluded(part) for part in field.fields.values())) - places(field)
    return set(getattr(field, "instead_of", ()))


def compatible(table: dict[str, Any], names: list[str]) -> list[str]:
    """The first of the names, and those after it that can stand beside all before them."""
    kept: list[str] = []
    for name in names:
        if not any(
            excluded(table[name]) & places(table[other]) or excluded(table[other]) & places(table[name])
            for other in kept
        ):
            kept.append(name)
    return kept


def canonical(element: Any) -> tuple:
    """XML by meaning: order, white space, prefixes and elements with nothing in them do not count."""
    children = sorted(filter(None, (canonical(child) for child in element if isinstance(child.tag, str))), key=repr)
    text = (element.text or "").strip()
    if not children and not text and not element.attrib and element.getparent() is not None:
        return ()
    return (element.tag, tuple(sorted(element.attrib.items())), text, tuple(children))
