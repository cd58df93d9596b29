# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The value that every decision ends in, and the contract of the things that are decided about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Plan:
    """What to do, in order, and the state that it leads to.

    steps   names of methods of the thing.
    before, after  the managed options as shown in a diff; None where the thing is not there.
    risk    what the header of the diff says of the change.
    """

    steps: list[str] = field(default_factory=list)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    restart_needed: bool = False
    risk: str = ""
    warnings: list[str] = field(default_factory=list)
    unknown: str = ""


class Thing:
    """A secret, a pool or a volume that is wanted in some state.

    read() looks, plan() decides without looking, check() asks the guards whether the plan may be
    carried out, and each step of the plan is a method.
    """

    kind = ""
    name = ""
    concurrent = False  # whether it can be carried out at the same time as its neighbours

    def __init__(self) -> None:
        self.needs: list[Thing] = []  # what must have come about before

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name!r}"

    def read(self) -> dict[str, Any]:
        raise NotImplementedError

    def plan(self, before: dict[str, Any]) -> Plan:
        raise NotImplementedError

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        """Raise the error that stands against the plan."""

    def take_back(self, done: list[str]) -> list[str]:
        """After a step that failed: undo what would pass for whole; the steps that stay done."""
        return done

    def settle(self) -> None:
        """Once all things are carried out: what need not be done for each of them."""

    def locks(self) -> list[str]:
        """What two runs must not change at once."""
        return [self.label]

    def way_out(self, words: str) -> str:
        """What to do about a step that failed with these words, where the thing knows more than they say."""
        return ""

    def show(self, option: str, value: Any) -> str:
        """A value of an option for people."""
        return str(value)

    def facts(self) -> dict[str, Any]:
        """What the result says of the thing besides its plan."""
        return {}
