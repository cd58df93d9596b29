# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page that says how each backend does each operation, written from what the backends declare.

python -m tests.static.operations writes it; a unit test compares it.
"""

from __future__ import annotations

from pathlib import Path

from ansible_collections.kvm.storage.plugins.module_utils.backend import OPERATIONS, Native, Refused
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry

PAGE = Path(__file__).parents[2] / "docs/guide/11-operations.md"
HEAD = """\
# Operations by backend

How each pool type does each operation on its volumes: by **libvirt**, by a **native** command on the volume's host,
or not at all (**-**). Below is what the commands are, and what is refused, why and what to do instead. A task that asks
for what can't be done ends with the code `unsupported` and the same words, before anything changes.
"""
AFTER_HEAD = """\
Native commands run on the host of the volume, so that they need a local `uri`. `info` is what volume_info reads.
"""


def cell(method: object) -> str:
    return "native" if isinstance(method, Native) else "-" if isinstance(method, Refused) else "libvirt"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(*rows: tuple[str, ...]) -> list[str]:
    return [row(*rows[0]), row(*("---" for _column in rows[0])), *(row(*one) for one in rows[1:]), ""]


def page() -> str:
    backends = [found for found in map(registry.backend, registry.types()) if found is not None]
    cells = [(one.type, *(cell(one.operations[name]) for name in OPERATIONS)) for one in backends]
    native: dict[tuple[str, str], list[str]] = {}
    refused: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in OPERATIONS:
        for one in backends:
            method = one.operations[name]
            if isinstance(method, Native):
                native.setdefault((name, method.command), []).append(one.type)
            elif isinstance(method, Refused):
                refused.setdefault((method.reason, method.instead), {}).setdefault(one.type, []).append(name)
    natives = [(name, command, ", ".join(types)) for (name, command), types in native.items()]
    refusals = [
        ("; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items()), reason, instead)
        for (reason, instead), kinds in refused.items()
    ]
    lines = [HEAD, *table(("", *OPERATIONS), *cells), AFTER_HEAD]
    lines += ["## Native ways", "", *table(("operation", "by", "pools of type"), *natives)]
    lines += ["## What is refused", "", *table(("pools and operations", "why", "instead"), *refusals)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
