# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Things on their way to what is wanted: all decided first, then done in order, each with its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .connection import libvirt, words
from .errors import StepFailed, StorageError
from .plan import Plan, Thing

THREADS = 4  # libvirt ran qemu-img for as many at once 2.2 times as fast as one after the other

# Faults of the world outside fail their item alone (no guest can stop its host's layout), while an
# invalid item stops everything before it begins.
OUTSIDE = frozenset({"unreachable", "not_mounted", "format_mismatch"})


@dataclass
class Outcome:
    """What became of one thing."""

    thing: Thing
    before: dict[str, Any] | None = None
    plan: Plan = field(default_factory=Plan)
    status: str = "ok"  # ok, changed, failed or skipped
    done: list[str] = field(default_factory=list)
    error: StorageError | None = None

    def fail(self, error: StorageError) -> None:
        self.status, self.error = "failed", error


def as_error(thing: Thing, step: str, error: Exception) -> StorageError:
    """Any failure of a step in the collection's form."""
    if isinstance(error, StorageError):
        return error
    code = "system_refused" if isinstance(error, OSError) else "backend_refused"
    return StepFailed(thing=thing.label, step=step, code=code, reason=words(error), way_out=thing.way_out(words(error)))


def failures() -> tuple[type[Exception], ...]:
    """What a step may fail with; anything else is a defect and keeps its traceback."""
    return (StorageError, OSError) + ((libvirt.libvirtError,) if libvirt else ())


def decide(outcome: Outcome) -> None:
    """Read, plan and ask the guards; nothing is changed."""
    thing = outcome.thing
    try:
        outcome.before = thing.read()
        outcome.plan = thing.plan(outcome.before)
        thing.check(outcome.before, outcome.plan)
        outcome.status = "changed" if outcome.plan.steps else "ok"
    except failures() as error:
        outcome.fail(as_error(thing, "read", error))


def carry_out(outcome: Outcome) -> None:
    """The steps of a plan, up to the first that fails."""
    for step in outcome.plan.steps:
        try:
            getattr(outcome.thing, step)()
        except failures() as error:
            outcome.fail(as_error(outcome.thing, step, error))
            outcome.done = outcome.thing.take_back(outcome.done)
            return
        outcome.done.append(step)


def refuse_invalid(outcomes: list[Outcome]) -> None:
    """One invalid item stops everything before anything has changed."""
    for outcome in outcomes:
        if outcome.error is not None and outcome.error.code not in OUTSIDE:
            for other in outcomes:
                if other.status != "failed":
                    other.status = "skipped" if other.plan.steps else "ok"
                    other.plan.steps.clear()
            return


def blocked(outcome: Outcome, by_thing: dict[int, Outcome]) -> Thing | None:
    """The thing that this one needs and that did not come about."""
    for needed in outcome.thing.needs:
        other = by_thing.get(id(needed))
        if other is not None and other.status in ("failed", "skipped"):
            return needed
    return None


def skip_blocked(outcomes: list[Outcome]) -> None:
    """In a prediction, what depends on a failed item is skipped as it will be in the run."""
    by_thing = {id(one.thing): one for one in outcomes}
    for outcome in outcomes:
        if outcome.status != "failed" and blocked(outcome, by_thing):
            outcome.status = "skipped"


def converge(things: list[Thing], act: bool) -> list[Outcome]:
    """Decide about everything, then act in order unless only the prediction is wanted."""
    outcomes = [Outcome(thing) for thing in things]
    for outcome in outcomes:
        decide(outcome)
    refuse_invalid(outcomes)
    if not act or any(one.error is not None and one.error.code not in OUTSIDE for one in outcomes):
        skip_blocked(outcomes)
        return outcomes
    by_thing = {id(one.thing): one for one in outcomes}
    waiting = list(outcomes)
    while waiting:
        batch = next_batch(waiting)
        ready = [one for one in batch if can_go(one, by_thing)]
        if len(ready) > 1:
            from concurrent.futures import ThreadPoolExecutor  # 5 ms that most runs do not need

            with ThreadPoolExecutor(THREADS) as threads:
                list(threads.map(carry_out, ready))
        else:
            for one in ready:
                carry_out(one)
        waiting = waiting[len(batch) :]
    for outcome in outcomes:
        settle(outcome)
    return outcomes


def settle(outcome: Outcome) -> None:
    """What a thing that has changed leaves to the end."""
    if outcome.done:
        try:
            outcome.thing.settle()
        except failures() as error:
            outcome.fail(as_error(outcome.thing, "refresh", error))


def at_once(outcome: Outcome) -> bool:
    """Whether it can be done beside others. What grows locks out whoever has it in a backing chain at that time."""
    return outcome.thing.concurrent and "resize" not in outcome.plan.steps


def next_batch(waiting: list[Outcome]) -> list[Outcome]:
    """The next thing, and with it those after it that can be done at the same time."""
    first = waiting[0]
    if not at_once(first):
        return [first]
    batch: list[Outcome] = []
    members: set[int] = set()
    for outcome in waiting:
        if not at_once(outcome) or any(id(needed) in members for needed in outcome.thing.needs):
            break
        batch.append(outcome)
        members.add(id(outcome.thing))
    return batch


def can_go(outcome: Outcome, by_thing: dict[int, Outcome]) -> bool:
    """Whether the thing's turn has come; it is decided anew where what it needs has changed since."""
    if outcome.status == "failed":
        return False
    if blocked(outcome, by_thing):
        outcome.status = "skipped"
        return False
    if any(id(needed) in by_thing and by_thing[id(needed)].done for needed in outcome.thing.needs):
        decide(outcome)
    return outcome.status != "failed"
