# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moments of work that others do for a module, such as a running guest or another host: by the functions it calls."""

from __future__ import annotations

from typing import Any, ClassVar

from . import kill


class Functions(kill.Watch):
    """Numbers the begin and the end of functions of the collection, and of calls of libvirt and the system."""

    functions: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    within: ClassVar[dict[str, str]] = {}  # calls that have many uses, of which only the one in this function counts

    def __call__(self, frame: Any, event: str, call: Any) -> None:
        if event in ("call", "return"):
            code = frame.f_code
            name, met = code.co_name, code.co_name in self.functions and "/module_utils/" in code.co_filename
            when = "before" if event == "call" else "after"
        else:
            name = getattr(call, "__name__", "")
            met, when = name in self.calls, "before" if event == "c_call" else "after"
            met = met or self.within.get(name) == frame.f_code.co_name
        if met and kill.in_a_step(frame):
            self.note(f"{when}:{name}")


def watching(functions: tuple[str, ...], calls: tuple[str, ...] = (), **within: str) -> type[Functions]:
    members = {"functions": frozenset(functions), "calls": frozenset(calls), "within": within}
    return type("Watching", (Functions,), members)
