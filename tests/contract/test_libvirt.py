# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the unit tests assume of libvirt, asked of libvirt itself; and every field of every backend set over it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from ansible_collections.kvm.storage.plugins.module_utils import fields, pool, sizes, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils import documents
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.test_sizes import UNITS
from tests.contract import examples
from tests.contract.hosts import TestHost, check_schema
from tests.contract.run import run
from tests.contract.test_examples import Story, check_pool, secrets_named_in, told

DOCUMENTS = [
    pytest.param(type_name, text, id=f"{type_name}-{number}")
    for type_name, texts in documents.POOLS.items()
    for number, text in enumerate(texts)
]


@pytest.mark.parametrize(("type_name", "text"), DOCUMENTS)
def test_libvirt_takes_the_documents(type_name: str, text: str, test_host: Callable[..., TestHost]) -> None:
    """By its schema and by its parser, which gives back what it understood: the same options."""
    check_schema("storagepool", text)
    host = test_host()
    found = host.recorder.storagePoolDefineXML(text, 1)
    table = registry.backend(type_name).fields
    want, have = (fields.read(table, xmltree.parse(one)) for one in (text, host.definition(found._thing)))
    assert fields.differing(table, have, want) == []


@pytest.mark.parametrize("text", documents.VOLUMES)
def test_the_schema_takes_the_volumes(text: str) -> None:
    check_schema("storagevol", text)


@pytest.mark.parametrize("text", documents.SECRETS)
def test_the_schema_takes_the_secrets(text: str) -> None:
    check_schema("secret", text)


@pytest.mark.parametrize(("type_name", "text"), DOCUMENTS)
def test_a_module_sets_all_that_a_document_has(
    type_name: str, text: str, test_host: Callable[..., TestHost], request: pytest.FixtureRequest
) -> None:
    """Every declared field through argument_spec, plan, XML and schema."""
    backend = registry.backend(type_name)
    options = fields.read(backend.fields, xmltree.parse(text))
    adapter = options.get("adapter", {})
    if "wwnn" in adapter:  # libvirt's default, which it does not always write
        adapter.setdefault("type", "fc_host")
    story = Story.__new__(Story)
    story.backend, story.listeners = backend, request.getfixturevalue("listeners")
    story.host = host = test_host(secrets_named_in(options))
    args = {"name": "x", **story.pool_args(backend, options), "state": "inactive"}
    args.get("permissions", {}).pop("label", None)  # no file system takes it here
    predicted = run(host, backend.module, args, check=True)
    result = run(host, backend.module, args)
    assert "failed" not in result, result["msg"]
    assert told(result) == told(predicted)
    check_pool(host, backend, args)
    assert run(host, backend.module, args)["actions"] == []


@pytest.mark.parametrize("type_name", registry.types())
def test_any_edit_of_a_pool_keeps_it_valid(type_name: str, test_host: Callable[..., TestHost]) -> None:
    """What is read of one document is written into another: what comes in which order must not matter."""
    backend = registry.backend(type_name)
    texts = documents.POOLS.get(type_name, [])
    for before, after in itertools.product(texts, texts):
        options = fields.read(backend.fields, xmltree.parse(after))
        there = fields.read(backend.fields, xmltree.parse(before))
        for name in options:
            if backend.option_error({**there, name: options[name]}, False):
                continue  # what stays does not go with what is given, and the engine says so
            spec = {name: option.get("default") for name, option in pool.argument_spec(backend).items()}
            want = pool.wanted(backend, {**spec, "name": "x", name: options[name]})
            one = pool.Pool(Nowhere(), backend, want)
            one.before = {"exists": True, "tree": xmltree.parse(before), "options": {}}
            check_schema("storagepool", xmltree.text(one.tree()))


class Nowhere:
    """No connection at all."""

    local = False


@pytest.mark.parametrize("unit", UNITS)
def test_units_mean_what_libvirt_means(unit: str, test_host: Callable[..., TestHost]) -> None:
    raw = test_host().raw
    made = raw.storagePoolCreateXML("<pool type='dir'><name>x</name><target><path>/srv/x</path></target></pool>", 0)
    attribute = f" unit='{unit}'" if unit else ""
    text = f"<volume><name>v</name><capacity{attribute}>3</capacity><allocation>0</allocation></volume>"
    assert made.createXML(text, 0).info()[1] == sizes.parse(f"3{unit}")


@pytest.mark.parametrize("unit", ["Z", "Gi", "x", "kbit", "iB", "BB"])
def test_units_that_libvirt_does_not_know(unit: str, test_host: Callable[..., TestHost]) -> None:
    raw = test_host().raw
    made = raw.storagePoolCreateXML("<pool type='dir'><name>x</name><target><path>/srv/x</path></target></pool>", 0)
    with pytest.raises(libvirt.libvirtError, match="unknown suffix"):
        made.createXML(f"<volume><name>v</name><capacity unit='{unit}'>3</capacity></volume>", 0)
    with pytest.raises(ValueError, match="units"):
        sizes.parse(f"3{unit}")


def test_every_field_of_a_backend_is_set_by_a_document_or_an_example() -> None:
    """A field that nothing sets over libvirt is named."""
    untouched: dict[str, set[str]] = {}
    for type_name in registry.types():
        backend = registry.backend(type_name)
        seen: set[str] = set()
        for text in documents.POOLS.get(type_name, []):
            seen |= paths_in(fields.read(backend.fields, xmltree.parse(text)))
        for task in examples.tasks(examples.MODULES / f"{backend.module}.py"):
            seen |= paths_in(task.args)
        untouched[type_name] = paths_of(backend.fields) - seen
    assert {name: paths for name, paths in untouched.items() if paths} == {}


def paths_of(table: dict[str, Any], prefix: str = "") -> set[str]:
    """The names of all fields of a table, those inside others as a.b."""
    found = set()
    for name, field in table.items():
        inner = getattr(field, "fields", None) or {
            key: one for key, one in getattr(field, "columns", {}).items() if key
        }
        found |= paths_of(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return found


def paths_in(value: Any, prefix: str = "") -> set[str]:
    """The same names for options that are given."""
    if isinstance(value, list):
        return set().union(*(paths_in(one, prefix) for one in value)) | {prefix.rstrip(".")}
    if isinstance(value, dict):
        return set().union(*(paths_in(one, f"{prefix}{name}.") for name, one in value.items())) | {prefix.rstrip(".")}
    return {prefix.rstrip(".")}
