# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a pool: tables for what it says, and a model of libvirt for what it leads to."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import fields
from ansible_collections.kvm.storage.plugins.module_utils import pool as pools
from ansible_collections.kvm.storage.plugins.module_utils.backend import LIBVIRT, OPERATIONS, Backend, Refused
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.fields import At, Group

ALL = dict.fromkeys(OPERATIONS, LIBVIRT)
PERMISSIONS = Group({"mode": At("target/permissions/mode", "mode"), "owner": At("target/permissions/owner")})
DIRECTORY = Backend(
    type="dir",
    fields={
        "path": At("target/path", "path", required=True),
        "permissions": PERMISSIONS,
        "cow": At("cow/@s", "yes_no"),
    },
    operations=ALL,
    build_choices=("if_blank", "never"),
    build_flags={"if_blank": 0},
    makes_directory=True,
)
MOUNTED = Backend(
    type="fs",
    fields={
        "path": At("target/path", "path", required=True),
        "device": At("source/device/@path", "path", required=True),
    },
    operations=ALL,
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    makes_directory=True,
    mounts=True,
    blank=lambda options: True,
)
REMOTE = Backend(type="rbd", fields={"source_name": At("source/name", required=True)}, operations=ALL)
GROUP = Backend(
    type="logical",
    fields={"source_name": At("source/name", required=True)},
    operations=ALL,
    build_choices=("never", "if_blank"),
    build_flags={"if_blank": 4},
    blank=lambda options: True,
    delete_data="pool",
)
KEPT = Backend(
    type="mpath", fields={}, operations=ALL, delete_data=Refused("the disks are the array's", "remove them there")
)
A, B = {"path": "/srv/a"}, {"path": "/srv/b"}
DEVICE = {"path": "/srv/a", "device": "/dev/vdb"}


def state(
    options=None, *, active=False, persistent=True, autostart=False, live=None, directory=None, there=None, blank=None
):
    """What read() answers for a pool that is there; without options, for one that is not."""
    exists = options is not None
    return {
        "exists": exists,
        "active": active,
        "persistent": exists and persistent,
        "autostart": autostart,
        "options": dict(options or {}),
        "live": dict((options if live is None else live) or {}) if active else {},
        "observed": {"directory": directory, "permissions": there, "blank": blank},
    }


def want(backend=DIRECTORY, **options):
    spec = {name: option.get("default") for name, option in pools.argument_spec(backend).items()}
    return pools.wanted(backend, {**spec, "name": "x", **options})


NEW = state(directory=False)
UP, DOWN = state(A, active=True, directory=True), state(A, directory=True)
TRANSIENT = state(A, active=True, persistent=False, directory=True)
MODE = {"mode": "0700"}


@pytest.mark.parametrize(
    ("before", "wanted", "steps"),
    [
        # from nothing
        (NEW, want(**A), ["define", "build", "start"]),
        (state(directory=True), want(**A), ["define", "start"]),
        (NEW, want(**A, build="never"), ["define", "start"]),
        (NEW, want(**A, state="inactive"), ["define", "build"]),
        (NEW, want(**A, autostart=True), ["define", "build", "start", "set_autostart"]),
        (NEW, want(**A, autostart=False), ["define", "build", "start"]),
        (NEW, want(**A, persistent=False), ["create"]),
        (NEW, want(**A, permissions=MODE), ["define", "build", "start"]),
        (
            state(directory=True, there={"mode": "0755"}),
            want(**A, permissions=MODE),
            ["define", "start", "set_permissions"],
        ),
        (state(directory=True, there={"mode": "0700"}), want(**A, permissions=MODE), ["define", "start"]),
        (NEW, want(state="absent"), []),
        (NEW, want(state="absent", delete_data=True), []),
        # a pool that is up
        (UP, want(**A), []),
        (UP, want(), []),
        (UP, want(path="/srv//a/"), []),
        (UP, want(**B), ["define"]),
        (UP, want(**B, restart=True), ["define", "restart"]),
        (UP, want(**A, restart=True), []),
        (state(A, active=True, directory=False), want(**B, restart=True), ["define", "stop", "build", "start"]),
        (UP, want(state="inactive"), ["stop"]),
        (UP, want(**B, state="inactive"), ["define", "stop"]),
        (UP, want(state="absent"), ["stop", "undefine"]),
        (UP, want(autostart=True), ["set_autostart"]),
        (UP, want(autostart=False), []),
        (UP, want(**A, cow=False), []),
        (UP, want(**A, cow=True), ["define"]),
        (state(A, active=True, autostart=True), want(autostart=False), ["set_autostart"]),
        (state(A, active=True, autostart=True), want(), []),
        (state(B, active=True, live=A, directory=True), want(**B), []),
        (state(B, active=True, live=A, directory=True), want(**B, restart=True), ["restart"]),
        (
            state(A, active=True, directory=True, there={"mode": "0755", "owner": "0"}),
            want(permissions=MODE),
            ["set_permissions"],
        ),
        (state(A, active=True, directory=True, there={"mode": "0700", "owner": "0"}), want(permissions=MODE), []),
        # a pool that is down
        (DOWN, want(), ["start"]),
        (DOWN, want(state="inactive"), []),
        (DOWN, want(**B), ["define", "start"]),
        (DOWN, want(**B, state="inactive"), ["define"]),
        (DOWN, want(**A, restart=True), ["start"]),
        (DOWN, want(state="absent"), ["undefine"]),
        (state(A, directory=False), want(), ["build", "start"]),
        (state(A, directory=False), want(build="never"), ["start"]),
        (state(A, directory=False), want(state="inactive"), []),
        # a transient pool
        (TRANSIENT, want(**A), ["define"]),
        (TRANSIENT, want(**A, persistent=False), []),
        (TRANSIENT, want(**B, persistent=False), []),
        (TRANSIENT, want(**B, persistent=False, restart=True), ["recreate"]),
        (TRANSIENT, want(state="absent"), ["stop"]),
        # its data
        (UP, want(state="absent", delete_data=True), ["delete_volumes", "stop", "delete_storage", "undefine"]),
        (
            DOWN,
            want(state="absent", delete_data=True),
            ["start", "delete_volumes", "stop", "delete_storage", "undefine"],
        ),
        (TRANSIENT, want(state="absent", delete_data=True), ["delete_volumes", "stop"]),
    ],
)
def test_directory(before, wanted, steps):
    assert pools.plan(before, wanted, DIRECTORY).steps == steps


def mounted(**options):
    return want(MOUNTED, **options)


@pytest.mark.parametrize(
    ("before", "wanted", "steps"),
    [
        (state(directory=False), mounted(**DEVICE), ["define", "make_directory", "start"]),
        (state(directory=True), mounted(**DEVICE), ["define", "start"]),
        (state(directory=False, blank=True), mounted(**DEVICE, build="if_blank"), ["define", "build", "start"]),
        (state(directory=True, blank=True), mounted(**DEVICE, build="if_blank"), ["define", "build", "start"]),
        (
            state(directory=False, blank=False),
            mounted(**DEVICE, build="if_blank"),
            ["define", "make_directory", "start"],
        ),
        # nobody can see the device: libvirt itself refuses to overwrite
        (state(directory=None, blank=None), mounted(**DEVICE, build="if_blank"), ["define", "build", "start"]),
        (state(directory=False), mounted(**DEVICE, build="overwrite"), ["create", "define"]),
        (state(directory=False), mounted(**DEVICE, build="overwrite", state="inactive"), ["create", "define", "stop"]),
        # one that exists is never formatted again
        (state(DEVICE, directory=True), mounted(build="overwrite"), ["start"]),
        (state(DEVICE, active=True, directory=True), mounted(build="overwrite"), []),
        (state(DEVICE, directory=True, blank=None), mounted(build="if_blank"), ["start"]),
        (state(DEVICE, directory=True, blank=False), mounted(build="if_blank"), ["start"]),
        (state(DEVICE, directory=True, blank=True), mounted(build="if_blank"), ["build", "start"]),
        (state(DEVICE, directory=False), mounted(), ["make_directory", "start"]),
    ],
)
def test_device(before, wanted, steps):
    assert pools.plan(before, wanted, MOUNTED).steps == steps


@pytest.mark.parametrize(
    ("backend", "before", "wanted", "steps"),
    [
        (REMOTE, state(), want(REMOTE, source_name="vms"), ["define", "start"]),
        (
            REMOTE,
            state({"source_name": "vms"}),
            want(REMOTE, state="absent", delete_data=True),
            ["start", "delete_volumes", "stop", "undefine"],
        ),
        (GROUP, state(blank=True), want(GROUP, source_name="vg"), ["define", "start"]),
        (GROUP, state(blank=True), want(GROUP, source_name="vg", build="if_blank"), ["define", "build", "start"]),
        (
            GROUP,
            state({"source_name": "vg"}, active=True),
            want(GROUP, state="absent", delete_data=True),
            ["stop", "delete_storage", "undefine"],
        ),
        (
            GROUP,
            state({"source_name": "vg"}),
            want(GROUP, state="absent", delete_data=True),
            ["delete_storage", "undefine"],
        ),
    ],
)
def test_other_backends(backend, before, wanted, steps):
    assert pools.plan(before, wanted, backend).steps == steps


@pytest.mark.parametrize(
    ("before", "wanted", "after", "restart_needed", "risk"),
    [
        (NEW, want(**A), {"state": "active", "persistent": True, "autostart": False, "path": "/srv/a"}, False, ""),
        (UP, want(), {"state": "active", "persistent": True, "autostart": False, "path": "/srv/a"}, False, "in place"),
        (
            UP,
            want(**B),
            {"state": "active", "persistent": True, "autostart": False, "path": "/srv/b"},
            True,
            "needs a pool restart",
        ),
        (
            UP,
            want(**B, restart=True),
            {"state": "active", "persistent": True, "autostart": False, "path": "/srv/b"},
            False,
            "restarts the pool",
        ),
        (
            UP,
            want(**B, state="inactive"),
            {"state": "inactive", "persistent": True, "autostart": False, "path": "/srv/b"},
            False,
            "in place",
        ),
        (
            state(B, active=True, live=A, directory=True),
            want(**B),
            {"state": "active", "persistent": True, "autostart": False, "path": "/srv/b"},
            True,
            "needs a pool restart",
        ),
        (UP, want(state="absent"), None, False, ""),
        (UP, want(state="absent", delete_data=True), None, False, "DESTROYS DATA, as delete_data asks"),
        (
            state(
                {**A, "permissions": {"mode": "0755", "owner": "0"}}, active=True, there={"mode": "0755", "owner": "0"}
            ),
            want(permissions=MODE),
            {
                "state": "active",
                "persistent": True,
                "autostart": False,
                "path": "/srv/a",
                "permissions": {"mode": "0700", "owner": "0"},
            },
            False,
            "in place",
        ),
    ],
)
def test_what_it_leads_to(before, wanted, after, restart_needed, risk):
    plan = pools.plan(before, wanted, DIRECTORY)
    assert (plan.after, plan.restart_needed, plan.risk) == (after, restart_needed, risk)
    assert (plan.before is None) == (not before["exists"])


def test_formatting_says_so():
    plan = pools.plan(state(directory=False), mounted(**DEVICE, build="overwrite"), MOUNTED)
    assert plan.risk == "DESTROYS DATA on its devices, as build: overwrite asks"


def test_a_persistent_pool_never_becomes_transient():
    with pytest.raises(StorageError, match="can't become transient") as caught:
        pools.plan(UP, want(**A, persistent=False), DIRECTORY)
    assert caught.value.code == "cannot_change"


@pytest.mark.parametrize(
    ("backend", "options", "code", "words"),
    [
        (DIRECTORY, {"name": "a/b"}, "bad_name", "'a/b' can't be a name"),
        (DIRECTORY, {"name": ""}, "bad_name", "can't be a name"),
        (DIRECTORY, {"name": "a\nb"}, "bad_name", "can't be a name"),
        (DIRECTORY, {"wait_timeout": 0}, "bad_value", "at least 1 second"),
        (DIRECTORY, {"persistent": False, "state": "inactive"}, "bad_value", "can't be inactive"),
        (DIRECTORY, {"persistent": False, "autostart": True}, "bad_value", "can't be autostarted"),
        (DIRECTORY, {"delete_data": True}, "bad_value", "delete_data goes with state: absent"),
        (DIRECTORY, {"path": "srv"}, "bad_value", "path can't be 'srv'"),
        (DIRECTORY, {"permissions": {"mode": 420}}, "bad_value", "permissions.mode can't be 420"),
        (KEPT, {"state": "absent", "delete_data": True}, "unsupported", "the disks are the array's; remove them there"),
    ],
)
def test_what_can_not_be_meant(backend, options, code, words):
    with pytest.raises(StorageError) as caught:
        want(backend, **options)
    assert caught.value.code == code
    assert words in str(caught.value)


# A model of libvirt's pools: each step with what libvirt asks of it and what it brings about.


class Model:
    """One pool as libvirt keeps it; a step that libvirt would refuse fails the test."""

    def __init__(self, before, wanted, backend):
        self.now = {**before, "options": dict(before["options"]), "live": dict(before["live"])}
        self.observed = dict(before["observed"])
        self.want, self.backend = wanted, backend
        self.written = {**self.now["options"], **wanted["options"]}

    def define(self):
        assert not self.now["exists"] or self.now["active"] or self.now["persistent"]
        self.now.update(exists=True, persistent=True, options=dict(self.written))

    def build(self):
        assert self.now["exists"]
        assert not self.now["active"]
        assert self.want["build"] != "never"
        assert self.backend.blank is None or self.observed["blank"] is not False, "would format what holds data"
        self.observed.update(directory=self.backend.makes_directory or None, blank=False)

    def make_directory(self):
        assert self.now["exists"]
        assert not self.now["active"]
        self.observed["directory"] = True

    def start(self):
        assert self.now["persistent"]
        assert not self.now["active"]
        self.now.update(active=True, live=dict(self.now["options"]))

    def create(self):
        assert not self.now["exists"], "one name twice"
        self.now.update(exists=True, active=True, persistent=False, options=dict(self.written), live=dict(self.written))
        self.observed.update(directory=self.backend.makes_directory or None, blank=False)

    def stop(self):
        assert self.now["active"]
        self.now.update(active=False, live={})
        self.now["exists"] = self.now["persistent"]

    def restart(self):
        self.stop()
        self.start()

    def recreate(self):
        self.stop()
        self.create()

    def set_autostart(self):
        assert self.now["persistent"]
        self.now["autostart"] = self.want["autostart"]

    def set_permissions(self):
        assert self.observed["permissions"] is not None
        self.observed["permissions"] = {**self.observed["permissions"], **self.want["options"]["permissions"]}

    def delete_volumes(self):
        assert self.want["delete_data"]
        assert self.now["active"]

    def delete_storage(self):
        assert self.want["delete_data"]
        assert self.now["exists"]
        assert not self.now["active"]

    def undefine(self):
        assert self.now["persistent"]
        assert not self.now["active"]
        self.now.update(exists=False, persistent=False, options={})

    def after(self):
        return {**self.now, "observed": self.observed}


def every_before(options, other):
    yield state(directory=False, blank=True)
    yield state(directory=True, blank=False)
    yield state(directory=None, blank=None)
    for autostart, directory, held in itertools.product((False, True), (False, True), (options, other)):
        blank = not directory
        there = {"mode": "0755", "owner": "0"} if directory else None
        yield state(held, autostart=autostart, directory=directory, there=there, blank=blank)
        yield state(held, active=True, autostart=autostart, directory=True, there=there, blank=False)
        yield state(held, active=True, autostart=autostart, live=other, directory=True, there=there, blank=False)
    yield state(options, active=True, persistent=False, directory=True)
    yield state(other, active=True, persistent=False, directory=True)


def every_want(backend, options):
    switches = itertools.product(
        ("active", "inactive", "absent"),
        (None, False, True),
        (True, False),
        (False, True),
        backend.build_choices,
        (False, True),
    )
    extras = [{}]
    if "permissions" in backend.fields:
        extras.append({"permissions": {"mode": "0700"}})
    for (named, autostart, persistent, restart, build, delete_data), extra in itertools.product(switches, extras):
        try:
            yield want(
                backend,
                state=named,
                autostart=autostart,
                persistent=persistent,
                restart=restart,
                build=build,
                delete_data=delete_data,
                **options,
                **extra,
            )
        except StorageError:
            continue  # options that exclude each other, tested above


@pytest.mark.parametrize(
    ("backend", "options", "other"),
    [
        (DIRECTORY, A, B),
        (MOUNTED, DEVICE, {**DEVICE, "device": "/dev/vdc"}),
        (REMOTE, {"source_name": "a"}, {"source_name": "b"}),
        (GROUP, {"source_name": "a"}, {"source_name": "b"}),
    ],
    ids=["directory", "mounted", "remote", "group"],
)
def test_from_every_state_to_every_other(backend, options, other):
    """libvirt takes every step, what was wanted has come about, the next run does nothing, and the plan knew it."""
    count = 0
    for before, wanted in itertools.product(every_before(options, other), list(every_want(backend, options))):
        try:
            plan = pools.plan(before, wanted, backend)
        except StorageError as error:
            assert error.code == "cannot_change"
            continue
        model = Model(before, wanted, backend)
        for step in plan.steps:
            getattr(model, step)()
        after = model.after()
        if wanted["state"] == "absent":
            assert not after["exists"]
            assert plan.after is None
        else:
            assert after["exists"]
            assert after["active"] == (wanted["state"] == "active")
            assert after["persistent"] or not wanted["persistent"]
            assert wanted["autostart"] in (None, after["autostart"])
            compared = {name: value for name, value in wanted["options"].items() if name != "permissions"}
            layer = after["options"] if wanted["persistent"] else after["live"]
            if wanted["persistent"] or not plan.restart_needed:
                assert fields.differing(backend.fields, layer, compared) == []
            if after["active"] and not plan.restart_needed:
                assert fields.differing(backend.fields, after["live"], compared) == []
            shown = pools.shown(after)
            predicted = {name: plan.after[name] for name in ("state", "persistent", "autostart")}
            assert predicted == {name: shown[name] for name in predicted}
        again = pools.plan(after, wanted, backend)
        assert again.steps == [], (before, wanted, plan.steps, again.steps)
        assert again.restart_needed == plan.restart_needed
        count += 1
    assert count > 400


@pytest.mark.parametrize(("state", "steps"), [("active", ["restart"]), ("inactive", ["stop"])])
def test_a_mount_that_is_lost_is_made_again(state: str, steps: list[str]) -> None:
    options = {"state": state, "persistent": True, "autostart": None, "restart": False, "build": "never"}
    before = {"exists": True, "active": True, "persistent": True, "autostart": False, "options": DEVICE, "live": DEVICE}
    before["observed"] = {"directory": True, "permissions": None, "blank": False, "lost": True}
    plan = pools.plan(before, {"name": "p", "delete_data": False, "options": dict(DEVICE), **options}, MOUNTED)
    assert plan.steps == steps
    before["observed"]["lost"] = False
    assert pools.plan(before, {"name": "p", "options": dict(DEVICE), **options, "state": "active"}, MOUNTED).steps == []
