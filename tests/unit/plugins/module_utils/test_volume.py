# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a volume: tables for what it says, and a model of a pool for what it leads to."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import volume as volumes
from ansible_collections.kvm.storage.plugins.module_utils.backend import LIBVIRT, OPERATIONS, Backend
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

FILES = Backend(
    type="dir",
    fields={},
    operations=dict.fromkeys(OPERATIONS, LIBVIRT),
    volume_formats=("raw", "qcow2"),
    default_format="raw",
    makes_directory=True,
)
GIB = 2**30


def want(**options):
    spec = {name: option.get("default") for name, option in volumes.argument_spec().items()}
    return volumes.wanted({**spec, "pool": "p", "name": "v", **options})


CLONE = {"volume": "base", "format": "qcow2", "mode": "full"}


def state(exists=True, *, listed=True, leftover=False, unfinished=False, protected=False, in_use=False, **options):
    options = {"capacity": GIB, "format": "qcow2", "permissions": {"mode": "0600", "owner": "0"}, **options}
    return {
        "exists": exists,
        "listed": listed,
        "leftover": leftover,
        "unfinished": unfinished,
        "snapshots": None,
        "options": options if exists else {},
        "header": "qcow2" if exists else None,
        "backing": None,
        "thin_pool": None,
        "unlisted": False,
        "foreign": "",
        "protected": protected,
        "in_use": in_use,
        "encrypted": False,
        "path": "/srv/p/v" if exists else "",
    }


NOTHING = state(False, listed=False)


@pytest.mark.parametrize(
    ("before", "wanted", "steps"),
    [
        (NOTHING, want(capacity="1GiB"), ["create"]),
        (NOTHING, want(source=CLONE), ["clone"]),
        (state(), want(source=CLONE), []),
        (state(), want(source=CLONE, capacity="2GiB"), ["resize"]),
        (state(unfinished=True), want(source=CLONE), ["clone"]),
        (state(listed=False, unfinished=True), want(source=CLONE), ["refresh", "clone"]),
        (NOTHING, want(capacity="1GiB", immutable=True), ["create", "protect"]),
        (NOTHING, want(capacity="1GiB", immutable=False), ["create"]),
        (state(False), want(capacity="1GiB"), ["refresh", "create"]),  # listed, but gone
        (
            state(False, listed=False, leftover=True),
            want(capacity="1GiB", format="qcow2"),
            ["remove_leftover", "create"],
        ),
        (NOTHING, want(state="absent"), []),
        (state(), want(), []),
        (state(), want(capacity="1GiB"), []),
        (state(), want(capacity="1025MiB"), ["resize"]),
        (state(), want(capacity=GIB + 1), ["resize"]),
        (state(), want(capacity="1023MiB"), []),  # which check() refuses
        (state(listed=False), want(), ["refresh"]),
        (state(listed=False), want(capacity="2GiB"), ["refresh", "resize"]),
        (state(), want(permissions={"mode": "0600"}), []),
        (state(), want(permissions={"mode": "0640"}), ["set_permissions"]),
        (state(), want(permissions={"owner": "107"}), ["set_permissions"]),
        (state(in_use=True), want(permissions={"owner": "107"}), []),  # libvirt's own while a guest runs
        (state(in_use=True), want(permissions={"mode": "0640"}), ["set_permissions"]),
        (state(), want(immutable=True), ["protect"]),
        (state(protected=True), want(immutable=True), []),
        (state(protected=True), want(), []),
        (state(protected=True), want(immutable=False), ["release"]),
        (state(), want(immutable=False), []),
        (
            state(),
            want(capacity="2GiB", permissions={"mode": "0400"}, immutable=True),
            ["resize", "set_permissions", "protect"],
        ),
        (state(), want(state="absent"), ["delete"]),
        (state(listed=False), want(state="absent"), ["refresh", "delete"]),
        (state(protected=True), want(state="absent", immutable=False), ["release", "delete"]),
        (state(protected=True), want(state="absent"), ["delete"]),  # which check() refuses
    ],
)
def test_steps(before, wanted, steps):
    assert volumes.plan(before, wanted, FILES).steps == steps


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        (NOTHING, want(capacity="1GiB"), {"capacity": GIB, "format": "raw", "state": "present"}),
        (
            NOTHING,
            want(capacity="1GiB", format="qcow2", immutable=True),
            {"capacity": GIB, "format": "qcow2", "state": "present", "immutable": True},
        ),
        (
            NOTHING,
            want(capacity="1GiB", thin_pool="t"),
            {"capacity": GIB, "format": "raw", "state": "present", "thin_pool": "t"},
        ),
        (
            NOTHING,
            want(format="qcow2", backing={"volume": "b", "format": "raw"}),
            {"format": "qcow2", "backing": "p/b", "state": "present"},
        ),
        (
            NOTHING,
            want(backing={"path": "/srv//b", "format": "raw"}),
            {"format": "qcow2", "backing": "/srv/b", "state": "present"},
        ),
        (
            state(),
            want(capacity="2GiB"),
            {"capacity": 2 * GIB, "format": "qcow2", "state": "present", "permissions": {"mode": "0600", "owner": "0"}},
        ),
        (
            state(),
            want(permissions={"mode": "0640"}),
            {"capacity": GIB, "format": "qcow2", "state": "present", "permissions": {"mode": "0640", "owner": "0"}},
        ),
        (
            state(in_use=True),
            want(permissions={"owner": "107"}),
            {"capacity": GIB, "format": "qcow2", "state": "present", "permissions": {"mode": "0600", "owner": "0"}},
        ),
        (state(), want(state="absent"), None),
    ],
)
def test_what_it_leads_to(before, wanted, after):
    plan = volumes.plan(before, wanted, FILES)
    found = (
        plan.after if plan.after is None else {name: value for name, value in plan.after.items() if value is not None}
    )
    assert found == after
    assert (plan.before is None) == (not before["exists"])
    if wanted["state"] == "absent":
        assert plan.risk == "DESTROYS DATA, as state: absent asks"


class Model:
    """A directory with one file, and whether libvirt has seen it."""

    def __init__(self, before, wanted):
        self.now, self.want = {**before, "options": dict(before["options"])}, wanted

    def refresh(self):
        self.now["listed"] = self.now["exists"]

    def remove_leftover(self):
        assert self.now["leftover"]
        self.now.update(leftover=False, listed=False)

    def create(self):
        assert not self.now["exists"]
        assert not self.now["leftover"]
        assert not self.now["listed"], "libvirt would say that it exists"
        self.now = state(capacity=self.want["options"].get("capacity", GIB))
        self.now["options"]["permissions"].update(self.want["options"].get("permissions", {}))

    def need(self):
        assert self.now["exists"]
        assert self.now["listed"]

    def resize(self):
        self.need()
        assert self.want["options"]["capacity"] > self.now["options"]["capacity"]
        self.now["options"]["capacity"] = self.want["options"]["capacity"]

    def set_permissions(self):
        self.need()
        self.now["options"]["permissions"] = {
            **self.now["options"]["permissions"],
            **self.want["options"]["permissions"],
        }

    def protect(self):
        self.need()
        assert not self.now["protected"]
        self.now["protected"] = True

    def release(self):
        self.need()
        assert self.now["protected"]
        self.now["protected"] = False

    def delete(self):
        self.need()
        self.now = dict(NOTHING)


def test_from_every_state_to_every_other():
    befores = [
        NOTHING,
        state(False),
        state(False, listed=False, leftover=True),
        state(False, listed=True, leftover=True),
    ]
    befores += [
        state(listed=listed, protected=protected, capacity=capacity)
        for listed, protected, capacity in itertools.product((False, True), (False, True), (GIB // 2, GIB, 2 * GIB))
    ]
    for before, named, capacity, permissions, immutable in itertools.product(
        befores, ("present", "absent"), (None, "1GiB"), (None, {"mode": "0400"}), (None, False, True)
    ):
        wanted = want(state=named, capacity=capacity, permissions=permissions, immutable=immutable, format="qcow2")
        model = Model(before, wanted)
        for step in volumes.plan(before, wanted, FILES).steps:
            getattr(model, step)()
        assert model.now["exists"] == (named == "present")
        if named == "present":
            assert model.now["options"]["capacity"] >= (GIB if capacity else 0)
            assert immutable in (None, model.now["protected"])
        assert volumes.plan(model.now, wanted, FILES).steps == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": 0}, "more than 0"),
        ({"capacity": "1MiB", "allocation": "2MiB"}, "must not exceed capacity"),
        ({"capacity": "1MiB", "allocation": 0, "preallocation": "off"}, "twice"),
        ({"format": "raw", "preallocation": "metadata"}, "for qcow2"),
        ({"format": "raw", "backing": {"volume": "b"}}, "is qcow2"),
        ({"backing": {"volume": "b"}, "preallocation": "full"}, "exclude each other"),
        ({"format": "raw", "compat": "1.1"}, "for qcow2"),
        ({"format": "raw", "cluster_size": "64KiB"}, "for qcow2"),
        ({"format": "qcow2", "compat": "0.10", "lazy_refcounts": True}, "compat: '1.1'"),
        ({"format": "qcow2", "compat": "0.10", "extended_l2": True}, "compat: '1.1'"),
        ({"format": "qcow2", "cluster_size": "100KiB"}, "power of 2"),
        ({"format": "qcow2", "cluster_size": 256}, "power of 2"),
        ({"format": "qcow2", "cluster_size": "4MiB"}, "power of 2"),
        ({"format": "vdi", "encryption": {"secret_usage": "x"}}, "raw and qcow2"),
        ({"immutable": True, "permissions": {"mode": "0644"}}, "write permission"),
        ({"capacity": "1MiB", "thin_pool": "t", "allocation": "1MiB"}, "nothing else"),
        ({"capacity": "1MiB", "thin_pool": "t", "permissions": {"mode": "0600"}}, "nothing else"),
        ({"thin_pool": "t", "backing": {"volume": "b", "format": "raw"}}, "nothing else"),
        ({"capacity": "1MiB", "thin_pool": "t", "preallocation": "full"}, "as it is written"),
        ({"thin_pool": "../t"}, "can't be a name"),
        ({"thin_pool": ""}, "can't be a name"),
        ({"capacity": "10Gi"}, "units"),
        ({"name": "a/b"}, "can't be a name"),
        ({"name": ".."}, "can't be a name"),
        ({"pool": "a\nb"}, "can't be a name"),
        ({"backing": {"volume": "../x", "format": "raw"}}, "can't be a name"),
        ({"backing": {"path": "x", "format": "raw"}}, "absolute path"),
    ],
)
def test_what_can_not_be_meant(options, words):
    with pytest.raises(StorageError) as caught:
        want(**options)
    assert words in str(caught.value)
    assert caught.value.code in ("bad_value", "bad_name")


@pytest.mark.parametrize(
    ("have", "need", "granule", "found"),
    [
        (GIB, GIB, 1, False),
        (GIB, GIB - 1, 1, True),
        (GIB, GIB - 1, 1024, False),
        (GIB, GIB - 1024, 1024, True),
        (4 * 2**20, 1 * 2**20, 4 * 2**20, False),
        (8 * 2**20, 4 * 2**20, 4 * 2**20, True),
        (GIB, 2 * GIB, 1, False),
    ],
)
def test_what_is_smaller_than_rounding_explains_would_shrink(have, need, granule, found):
    assert volumes.shrinks(state(capacity=have), want(capacity=need), granule) is found


def test_an_unknown_capacity_is_not_compared():
    before = state()
    del before["options"]["capacity"]
    assert not volumes.shrinks(before, want(capacity="1MiB"), 1)
    assert volumes.plan(before, want(capacity="1MiB"), FILES).steps == []


class Far:
    local = False


@pytest.mark.parametrize(
    ("backing", "locks"),
    [
        (None, ["pool 'p'"]),
        ({"volume": "base", "format": "qcow2"}, ["pool 'p'", "pool 'p'"]),
        ({"pool": "bases", "volume": "base", "format": "qcow2"}, ["pool 'p'", "pool 'bases'"]),
        ({"path": "/srv/base", "format": "qcow2"}, ["pool 'p'"]),
    ],
)
def test_the_pool_of_a_base_is_locked_with_that_of_its_overlay(backing, locks):
    """Else another controller could remove the base between its guard's look and the overlay's creation."""
    assert volumes.Volume(Far(), want(backing=backing), None).locks() == locks
