# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""libvirt's XML into options and back: nothing is lost, and what is not modelled survives an edit.

documents.py holds XML with all that libvirt's schema knows for a type; tests/contract checks it against the schema.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import fields, secret, volume, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import documents, samples

# What libvirt puts out, and what the engine writes itself.
NOT_OPTIONS = ("name", "uuid", "capacity", "allocation", "available", "usage")
BACKENDS = {type_name: registry.backend(type_name) for type_name in registry.types()}
TABLES = {type_name: backend.fields for type_name, backend in BACKENDS.items()}
TABLES.update(volume=volume.FIELDS, secret=secret.FIELDS)
POOLS = [(type_name, text) for type_name, texts in documents.POOLS.items() for text in texts if type_name in TABLES]


def without(tree, paths):
    for path in paths:
        xmltree.remove(tree, path)
    return tree


@pytest.mark.parametrize(("type_name", "text"), POOLS)
def test_a_pools_xml_comes_back_whole(type_name, text):
    present = without(xmltree.parse(text), NOT_OPTIONS)
    if "path" not in TABLES[type_name]:  # libvirt has a path of its own for the type
        xmltree.remove(present, "target/path")
    again = xmltree.new("pool", type=type_name)
    fields.write(TABLES[type_name], again, fields.read(TABLES[type_name], present))
    assert samples.canonical(again) == samples.canonical(present)


@pytest.mark.parametrize("text", documents.VOLUMES)
def test_a_volumes_xml_comes_back_whole(text):
    present = without(xmltree.parse(text), ("name", "backingStore"))
    again = xmltree.new("volume")
    fields.write(volume.FIELDS, again, fields.read(volume.FIELDS, present))
    assert samples.canonical(again) == samples.canonical(present)


@pytest.mark.parametrize("text", documents.SECRETS)
def test_a_secrets_xml_comes_back_whole(text):
    present = without(xmltree.parse(text), ("uuid", "usage"))
    again = xmltree.new("secret", ephemeral="no", private="no")
    fields.write(secret.FIELDS, again, fields.read(secret.FIELDS, present))
    assert samples.canonical(again) == samples.canonical(present)


@pytest.mark.parametrize("type_name", [name for name in registry.types() if name in documents.POOLS])
def test_the_documents_use_every_field(type_name):
    read: set[str] = set()
    for text in documents.POOLS[type_name]:
        read |= set(fields.read(TABLES[type_name], xmltree.parse(text)))
    assert set(TABLES[type_name]) - read == set()


def test_the_documents_use_every_field_of_a_volume():
    read = [name for text in documents.VOLUMES for name in fields.read(volume.FIELDS, xmltree.parse(text))]
    assert set(volume.FIELDS) == set(read)


def subsets(table):
    """Some fields of a table that can stand together, each with one of its values."""
    names = st.lists(st.sampled_from(sorted(table)), unique=True, min_size=1)
    return st.tuples(names, st.integers(0, 11))


@pytest.mark.parametrize("kind", sorted(TABLES))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_options_come_back(kind, data):
    """Whatever is written is read again, by itself and beside any others."""
    table = TABLES[kind]
    names, turn = data.draw(subsets(table))
    options = {name: samples.pick(table[name], turn) for name in samples.compatible(table, names)}
    wanted = fields.clean(kind, table, options)
    tree = xmltree.parse("<x/>")
    fields.write(table, tree, wanted)
    again = xmltree.parse(xmltree.text(tree))
    found = fields.read(table, again)
    assert fields.differing(table, found, wanted) == []
    assert {name for name, value in wanted.items() if value not in (False, {})} <= set(found)
    rewritten = xmltree.parse("<x/>")
    fields.write(table, rewritten, found)
    assert samples.canonical(rewritten) == samples.canonical(again)


UNKNOWN = (
    '<unknown x="1"><deep>text</deep></unknown><source y="2"><vendor-thing z="3"/></source>'
    '<target><encryption format="x"/><more>1</more></target><features><future state="on"/></features>'
    '<q:opts xmlns:q="urn:q"><q:option name="a"/></q:opts>'
)


@pytest.mark.parametrize("kind", [name for name in sorted(TABLES) if name not in ("volume", "secret")])
def test_an_edit_of_any_field_leaves_what_is_unknown(kind):
    table = TABLES[kind]
    for name, field in table.items():
        for value in samples.values(field):
            tree = xmltree.parse(f"<pool type='{kind}'>{UNKNOWN}</pool>")
            fields.write(table, tree, {name: field.clean(kind, name, value)})
            for path in (
                "unknown/@x",
                "unknown/deep",
                "source/@y",
                "source/vendor-thing/@z",
                "target/encryption/@format",
                "target/more",
                "features/future/@state",
            ):
                assert xmltree.get(tree, path) is not None, f"{name} took {path} away"
            assert tree.find("{urn:q}opts/{urn:q}option").get("name") == "a"


@pytest.mark.parametrize(("type_name", "text"), POOLS)
def test_an_edit_of_one_option_leaves_all_others(type_name, text):
    table = TABLES[type_name]
    present = fields.read(table, xmltree.parse(text))
    for name in present:
        tree = xmltree.parse(text)
        before = samples.canonical(tree)
        fields.write(table, tree, {name: present[name]})
        assert samples.canonical(tree) == before, f"writing {name} as it was changed something"
        for value in samples.values(table[name]):
            fields.write(table, tree, {name: table[name].clean("x", name, value)})
            found = fields.read(table, tree)
            kept = [
                other
                for other in present
                if other != name and not samples.excluded(table[name]) & samples.places(table[other])
            ]
            assert {other: found.get(other) for other in kept} == {other: present[other] for other in kept}


class Seen:
    """A field that notes when it is written and when it reads a value."""

    def __init__(self, field, name, notes):
        self._field, self._name, self._notes = field, name, notes

    def __getattr__(self, attribute):
        return getattr(self._field, attribute)

    def write(self, tree, value):
        self._notes.add(("written", self._name))
        self._field.write(tree, value)

    def read(self, tree):
        value = self._field.read(tree)
        if value is not None:
            self._notes.add(("read", self._name))
        return value


def parts(field):
    """The tables of fields inside a field."""
    return [getattr(field, place) for place in ("fields", "columns") if hasattr(field, place)]


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_every_declared_field_is_written_and_read_by_a_test(kind, monkeypatch):
    """Down to the keys of dictionaries and lists; one that no value reaches is named."""
    notes: set[tuple[str, str]] = set()
    given = {name: samples.values(field) for name, field in TABLES[kind].items()}
    declared = set(given)
    for name, field in TABLES[kind].items():
        for table in parts(field):
            declared |= {f"{name}.{key}" for key in table}
            for key, part in list(table.items()):
                monkeypatch.setitem(table, key, Seen(part, f"{name}.{key}", notes))
    for name, field in TABLES[kind].items():
        for value in given[name]:
            tree = xmltree.parse("<x/>")
            watched = Seen(field, name, notes)
            watched.write(tree, field.clean(kind, name, value))
            watched.read(tree)
    assert {(verb, name) for verb in ("written", "read") for name in declared} - notes == set()
