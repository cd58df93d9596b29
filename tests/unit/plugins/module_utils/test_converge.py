# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many things on their way at once: order, failure, what depends on it, and decisions that are taken anew."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import converge as engine
from ansible_collections.kvm.storage.plugins.module_utils.errors import StepFailed, StorageError
from ansible_collections.kvm.storage.plugins.module_utils.plan import Plan, Thing


class Item(Thing):
    """A thing with the steps that it is told to have; log is shared by all."""

    kind = "item"

    def __init__(self, name, log, steps=("make",), needs=(), fails=None, at="make", concurrent=False):
        super().__init__()
        self.name, self.log, self.wanted, self.needs = name, log, list(steps), list(needs)
        self.fails, self.at, self.concurrent = fails, at, concurrent
        self.reads = 0

    def note(self, step):
        self.log.append(f"{self.name}:{step}")
        if self.fails is not None and self.at == step:
            raise self.fails

    def read(self):
        self.reads += 1
        self.note("read")
        return {"reads": self.reads}

    def plan(self, before):
        return Plan(list(self.wanted), None, {"name": self.name})

    def check(self, before, plan):
        self.note("check")

    def make(self):
        self.note("make")

    def start(self):
        self.note("start")


def outside(name="a"):
    return StorageError(thing=f"item '{name}'", code="unreachable", reason="no answer")


def refusal(name="a"):
    return StorageError(thing=f"item '{name}'", code="in_use", reason="it is used")


def statuses(outcomes):
    return {one.thing.name: one.status for one in outcomes}


def steps_of(log):
    return [entry for entry in log if not entry.endswith((":read", ":check"))]


def test_all_is_decided_before_anything_is_done():
    log = []
    outcomes = engine.converge([Item(name, log, ["make", "start"]) for name in "abc"], act=True)
    assert log[:6] == ["a:read", "a:check", "b:read", "b:check", "c:read", "c:check"]
    assert log[6:] == ["a:make", "a:start", "b:make", "b:start", "c:make", "c:start"]
    assert [one.done for one in outcomes] == [["make", "start"]] * 3


def test_a_prediction_does_nothing():
    log = []
    outcomes = engine.converge([Item("a", log), Item("b", log, [])], act=False)
    assert steps_of(log) == []
    assert statuses(outcomes) == {"a": "changed", "b": "ok"}
    assert [one.done for one in outcomes] == [[], []]


@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("at", ["read", "check"])
def test_one_invalid_item_stops_everything(act, at):
    log = []
    items = [Item("a", log), Item("b", log, fails=refusal("b"), at=at), Item("c", log), Item("d", log, [])]
    outcomes = engine.converge(items, act)
    assert steps_of(log) == []
    assert statuses(outcomes) == {"a": "skipped", "b": "failed", "c": "skipped", "d": "ok"}
    assert [one.plan.steps for one in outcomes if one.thing.name in "ac"] == [[], []]


@pytest.mark.parametrize("act", [True, False])
def test_what_the_world_does_fails_its_item_and_those_that_depend_on_it(act):
    log = []
    a = Item("a", log, fails=outside(), at="check")
    b = Item("b", log, needs=[a])
    c = Item("c", log, needs=[b])
    d = Item("d", log)
    outcomes = engine.converge([a, b, c, d], act)
    assert statuses(outcomes) == {"a": "failed", "b": "skipped", "c": "skipped", "d": "changed"}
    assert steps_of(log) == (["d:make"] if act else [])


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (
            StorageError(thing="item 'a'", code="timeout", reason="too late", way_out="wait"),
            "timeout",
            "item 'a': too late; wait",
        ),
        (
            OSError(28, "No space left on device"),
            "system_refused",
            "Cannot start item 'a': [Errno 28] No space left on device",
        ),
        (StepFailed(thing="x", step="y", code="z", reason="w"), "z", "Cannot y x: w"),
    ],
)
def test_a_step_that_fails_stops_its_item_and_those_that_need_it(failure, code, text):
    log = []
    a = Item("a", log, ["make", "start", "make"], fails=failure, at="start")
    b = Item("b", log, needs=[a])
    c = Item("c", log)
    outcomes = engine.converge([a, b, c], act=True)
    assert statuses(outcomes) == {"a": "failed", "b": "skipped", "c": "changed"}
    assert outcomes[0].done == ["make"]
    assert (outcomes[0].error.code, str(outcomes[0].error)) == (code, text)
    assert steps_of(log) == ["a:make", "a:start", "c:make"]


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        engine.converge([Item("a", [], fails=ZeroDivisionError(), at="make")], act=True)
    with pytest.raises(ZeroDivisionError):
        engine.converge([Item(name, [], fails=ZeroDivisionError(), concurrent=True) for name in "ab"], act=True)


def test_what_depends_on_a_change_is_decided_anew():
    log = []
    a, b = Item("a", log), Item("b", log, [])
    c, d = Item("c", log, needs=[a]), Item("d", log, needs=[b])
    engine.converge([a, b, c, d], act=True)
    assert [one.reads for one in (a, b, c, d)] == [1, 1, 2, 1]
    assert (
        log.index("c:make") > max(index for index, entry in enumerate(log) if entry == "c:read") > log.index("a:make")
    )


def test_the_new_decision_counts():
    """What c needs turned out to have made it, too; or the guard now stands against it."""
    log = []
    a = Item("a", log)
    b = Item("b", log, needs=[a])
    b.plan = lambda before: Plan(["make"] if before["reads"] == 1 else [])
    outcomes = engine.converge([a, b], act=True)
    assert statuses(outcomes) == {"a": "changed", "b": "ok"}
    assert steps_of(log) == ["a:make"]

    log.clear()
    a = Item("a", log)
    b = Item("b", log, needs=[a])
    c = Item("c", log, needs=[b])

    def check(before, plan):
        if before["reads"] == 2:
            raise refusal("b")

    b.check = check
    outcomes = engine.converge([a, b, c], act=True)
    assert statuses(outcomes) == {"a": "changed", "b": "failed", "c": "skipped"}
    assert steps_of(log) == ["a:make"]


def test_neighbours_that_may_are_carried_out_at_the_same_time():
    """Each waits for the other: one after the other they would break the barrier."""
    barrier = threading.Barrier(engine.THREADS, timeout=60)

    class Together(Item):
        def make(self):
            barrier.wait()

    items = [Together(f"t{number}", [], concurrent=True) for number in range(engine.THREADS)]
    assert set(statuses(engine.converge(items, act=True)).values()) == {"changed"}


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (lambda log: [Item(name, log) for name in "abc"], [1, 1, 1]),
        (lambda log: [Item(name, log, concurrent=True) for name in "abc"], [3]),
        (lambda log: [Item("a", log), *(Item(name, log, concurrent=True) for name in "bc"), Item("d", log)], [1, 2, 1]),
    ],
)
def test_batches(build, sizes):
    waiting = [engine.Outcome(item) for item in build([])]
    found = []
    while waiting:
        batch = engine.next_batch(waiting)
        found.append(len(batch))
        waiting = waiting[len(batch) :]
    assert found == sizes


def test_an_overlay_waits_for_its_base():
    log = []
    base = Item("base", log, concurrent=True)
    overlay = Item("overlay", log, needs=[base], concurrent=True)
    other = Item("other", log, concurrent=True)
    outcomes = engine.converge([base, overlay, other], act=True)
    assert log.index("base:make") < log.index("overlay:make")
    assert set(statuses(outcomes).values()) == {"changed"}
    assert len(engine.next_batch([engine.Outcome(one) for one in (base, overlay, other)])) == 1


def test_one_of_many_at_once_fails_alone():
    log = []
    items = [Item(f"v{number}", log, concurrent=True) for number in range(8)]
    items[3].fails = OSError(28, "No space left on device")
    found = statuses(engine.converge(items, act=True))
    assert found.pop("v3") == "failed"
    assert set(found.values()) == {"changed"}


def test_what_is_needed_but_not_declared_here_does_not_count():
    log = []
    elsewhere = Item("elsewhere", log, fails=outside(), at="read")
    assert statuses(engine.converge([Item("a", log, needs=[elsewhere])], act=True)) == {"a": "changed"}
