# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a secret, and what its value may be."""

from __future__ import annotations

import base64
import itertools

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import fields, names
from ansible_collections.kvm.storage.plugins.module_utils import secret as secrets
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

KEY = base64.b64encode(bytes(28)).decode()
OWN = "7a4c6b52-2f6b-4c2e-9d5e-0f4f6f3b9a11"


def want(**options):
    spec = {name: option.get("default") for name, option in secrets.argument_spec().items()}
    return secrets.wanted({**spec, "usage": "tls", "usage_name": "x", **options})


def state(exists=True, *, missing=False, differs=False, **options):
    if not exists:
        missing, differs = True, True
    options = {"ephemeral": False, "private": False, **options} if exists else {}
    return {"exists": exists, "uuid": OWN, "options": options, "value_missing": missing, "value_differs": differs}


NOTHING = state(False)


@pytest.mark.parametrize(
    ("before", "wanted", "steps"),
    [
        (NOTHING, want(), ["define"]),
        (NOTHING, want(value="v"), ["define", "set_value"]),
        (NOTHING, want(value="v", set_value="never"), ["define", "set_value"]),
        (NOTHING, want(value="v", private=True), ["define", "set_value", "make_private"]),
        (NOTHING, want(private=False, ephemeral=True), ["define"]),
        (NOTHING, want(keyring_file="/k"), ["define", "set_value"]),
        (NOTHING, want(state="absent"), []),
        (state(), want(), []),
        (state(), want(value="v"), []),
        (state(differs=True), want(value="v"), ["set_value"]),
        (state(differs=True), want(value="v", set_value="never"), []),
        (state(differs=True), want(), []),
        (state(), want(value="v", set_value="always"), ["set_value"]),
        (state(differs=None, private=True), want(value="v"), []),
        (state(differs=None, private=True), want(value="v", set_value="always"), ["set_value"]),
        (state(missing=True, differs=True), want(value="v"), ["set_value"]),
        (state(missing=True, differs=True), want(), []),
        (state(), want(description="d"), ["define"]),
        (state(description="d"), want(description="d"), []),
        (state(description="d"), want(), []),
        (state(), want(description="d", private=True, value="v"), ["define", "make_private"]),
        (state(differs=True), want(private=True, value="v"), ["set_value", "make_private"]),
        (state(), want(ephemeral=True), ["define"]),
        (state(private=True), want(private=True), []),
        (state(private=True), want(private=False), ["make_private"]),  # which check() refuses
        (state(), want(state="absent"), ["undefine"]),
        (state(private=True), want(state="absent", value="v"), ["undefine"]),
    ],
)
def test_steps(before, wanted, steps):
    assert secrets.plan(before, wanted).steps == steps


class Model:
    """A secret as libvirt keeps it."""

    def __init__(self, before, wanted):
        self.now, self.want = {**before, "options": dict(before["options"])}, wanted

    def define(self):
        if not self.now["exists"]:
            self.now["options"] = {"ephemeral": False, "private": False}
        self.now["exists"] = True
        self.now["options"].update({name: value for name, value in self.want["options"].items() if name != "private"})

    def set_value(self):
        assert self.now["exists"]
        self.now.update(value_missing=False, value_differs=None if self.now["options"]["private"] else False)

    def make_private(self):
        assert self.now["exists"]
        if self.want["options"]["private"] is False:
            raise RuntimeError("libvirt refuses this, and so does check()")
        self.now["options"]["private"] = True
        self.now["value_differs"] = None

    def undefine(self):
        assert self.now["exists"]
        self.now = state(False)


def test_from_every_state_to_every_other():
    befores = [NOTHING] + [
        state(missing=missing, differs=missing or differs, private=private, **extra)
        for missing, differs, private, extra in itertools.product(
            (False, True), (False, True, None), (False, True), ({}, {"description": "old"})
        )
    ]
    wants = [
        want(state=named, value=value, set_value=how, private=private, description=description)
        for named, value, how, private, description in itertools.product(
            ("present", "absent"), (None, "v"), ("if_changed", "always", "never"), (None, False, True), (None, "new")
        )
    ]
    for before, wanted in itertools.product(befores, wants):
        plan = secrets.plan(before, wanted)
        model = Model(before, wanted)
        try:
            for step in plan.steps:
                getattr(model, step)()
        except RuntimeError:
            assert before["options"]["private"]
            continue
        assert model.now["exists"] == (wanted["state"] == "present")
        assert (
            fields.differing(secrets.FIELDS, model.now["options"], wanted["options"]) == [] or not model.now["exists"]
        )
        if wanted["value"] and wanted["state"] == "present" and wanted["set_value"] != "never":
            assert model.now["value_differs"] is not True
        again = {**wanted, "set_value": "if_changed"} if wanted["set_value"] == "always" else wanted
        assert secrets.plan(model.now, again).steps == []


def test_what_is_shown_never_holds_a_value():
    for before in (NOTHING, state(differs=True), state(missing=True, differs=True)):
        plan = secrets.plan(before, want(value="hush"))
        assert "hush" not in repr(plan)
    assert secrets.plan(state(differs=True), want(value="hush")).after["value"] == "(new value)"
    assert secrets.plan(state(missing=True, differs=True), want(value="hush")).after["value"] == "(set)"
    assert secrets.plan(NOTHING, want()).after["value"] == "(none)"


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({}, None),
        ({"value": "plain"}, b"plain"),
        ({"value": "ümläut"}, "ümläut".encode()),
        ({"value": " kept "}, b" kept "),
        ({"value_base64": "AAEC"}, b"\0\1\2"),
        ({"value_base64": "AA\nEC"}, b"\0\1\2"),
        ({"usage": "ceph", "value": KEY}, bytes(28)),
        ({"usage": "ceph", "value_base64": KEY}, bytes(28)),
        ({"value": "v" * 65536}, b"v" * 65536),
    ],
)
def test_value(options, raw):
    wanted = want(**options)
    assert secrets.value_of("secret 'x'", wanted) == raw


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"value": ""}, "bad_secret_value", "has 0 bytes"),
        ({"value": "hush" * 16385}, "bad_secret_value", "has 65540 bytes"),
        ({"value_base64": "hush!"}, "bad_secret_value", "value_base64 is not base64"),
        ({"value_base64": "hus"}, "bad_secret_value", "value_base64 is not base64"),
        ({"usage": "ceph", "value": "hush"}, "bad_secret_value", "value is not a cephx key"),
        ({"usage": "ceph", "value": "hush!"}, "bad_secret_value", "value is not base64"),
        ({"usage": "ceph", "value_base64": "aHVzaA=="}, "bad_secret_value", "is not a cephx key"),
        ({"uuid": "hush"}, "bad_value", "uuid can't be"),
        ({"usage_name": ""}, "bad_value", "usage_name can't be"),
        ({"usage_name": "a\nb"}, "bad_value", "control characters"),
        ({"description": "a\0b"}, "bad_value", "control characters"),
    ],
)
def test_refused(options, code, words):
    with pytest.raises(StorageError) as caught:
        want(**options)
    assert caught.value.code == code
    assert words in str(caught.value)
    if code == "bad_secret_value":
        assert "hush" not in str(caught.value)


KEYRING = f"""
[client.libvirt]
\tkey = {KEY}
\tcaps mon = "profile rbd"
[client.admin]
\tkey = {base64.b64encode(bytes(range(28))).decode()}
[client.empty]
"""


@pytest.mark.parametrize(
    ("text", "entity", "raw"),
    [
        (KEYRING, "client.libvirt", bytes(28)),
        (KEYRING, "client.admin", bytes(range(28))),
        (f"[client.a]\nkey={KEY}\n", None, bytes(28)),
        (f"[client.a]\n  key = {KEY}\n  auid = 0\n\n", None, bytes(28)),
    ],
)
def test_keyring(tmp_path, text, entity, raw):
    file = tmp_path / "keyring"
    file.write_text(text)
    assert secrets.keyring_value("secret 'x'", str(file), entity) == raw


@pytest.mark.parametrize(
    ("text", "entity", "code", "words"),
    [
        (KEYRING, None, "bad_keyring", "has 2 keys"),
        (KEYRING, "client.x", "bad_keyring", "no key for client.x; it has client.admin, client.libvirt"),
        (KEYRING, "client.empty", "bad_keyring", "no key for client.empty"),
        ("", None, "bad_keyring", "has 0 keys"),
        ("x hush\n", None, "bad_keyring", "is not a Ceph keyring"),
        ("[client.a]\nkey = hush\n", None, "bad_secret_value", "keyring_file is not"),
        (b"\xff\xfe\0", None, "bad_keyring", "can't be read as text"),
        (None, None, "bad_keyring", "No such file"),
    ],
)
def test_keyring_refused(tmp_path, text, entity, code, words):
    file = tmp_path / "keyring"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StorageError) as caught:
        secrets.keyring_value("secret 'x'", str(file), entity)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert "hush" not in str(caught.value).replace(str(file), "")


def test_the_same_secret_has_the_same_uuid_on_every_host():
    """These values are marks on the hosts of users: they must never change."""
    assert names.own_uuid("secret", "ceph/client.libvirt", "layout") == "415d0105-120f-52ab-af64-54689aa3cdb8"
    assert names.own_uuid("pool", "vms", "module") == "f129d46d-efbf-5150-8c2b-fa2344253589"
    distinct = {
        names.own_uuid(kind, name, owner)
        for kind, name, owner in itertools.product(("pool", "secret"), ("a", "b", "a\0b"), ("layout", "module"))
    }
    assert len(distinct) == 12
