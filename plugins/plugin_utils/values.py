# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values as variables and registered results have them, read alike by every plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean


def unique(items: Iterable[Any]) -> list[Any]:
    """In their order, and not without regard to case, as Jinja's is."""
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def text(value: Any) -> str:
    return "" if value is None else str(value)


def flag(value: Any, usual: bool = False) -> bool:
    """A bool as Ansible takes one: the string "false", which is no empty one, gives no data up."""
    return usual if value is None else bool(boolean(value))


def words(value: Any) -> list[str]:
    """A list as Ansible takes one: a string is split at its commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value else []
    return [str(one) for one in value or []]


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """What a command printed; nothing where it was skipped."""
    return list(result.get("stdout_lines") or ())
