# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each kind of field both ways: cleaned, written, read back, compared and shown."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import fields, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.fields import At, Each, Group, Pairs

HOSTS = Each("source/host", {"name": At("@name", "host", required=True), "port": At("@port", "port")}, required=True)
AUTH = Group(
    {
        "username": At("source/auth/@username", required=True),
        "secret_usage": At("source/auth/secret/@usage", instead_of=("source/auth/secret/@uuid",)),
        "secret_uuid": At("source/auth/secret/@uuid", instead_of=("source/auth/secret/@usage",)),
    },
    constants={"source/auth/@type": "ceph"},
    mutually_exclusive=(("secret_usage", "secret_uuid"),),
)
DEVICES = Each("source/device", {"": At("@path", "path")}, same=fields.same_devices)
OPTIONS = Pairs("rbd:config_opts/rbd:option")


def written(field, value, text="<pool/>"):
    tree = xmltree.parse(text)
    field.write(tree, value)
    return xmltree.text(tree).replace("\n", "").replace("  ", "")


@pytest.mark.parametrize(
    ("field", "given", "clean", "xml"),
    [
        (At("source/name"), "vms", "vms", "<pool><source><name>vms</name></source></pool>"),
        (At("source/name"), 42, "42", "<pool><source><name>42</name></source></pool>"),
        (At("source/name"), '<&">', '<&">', '<pool><source><name>&lt;&amp;"&gt;</name></source></pool>'),
        (At("source/dir/@path", "path"), "//a//b/./c/", "/a/b/c", '<pool><source><dir path="/a/b/c"/></source></pool>'),
        (At("target/path", "path"), "/", "/", "<pool><target><path>/</path></target></pool>"),
        (At("a/@b", "host"), "[2001:db8::1]", "[2001:db8::1]", '<pool><a b="[2001:db8::1]"/></pool>'),
        (At("a/@b", "int"), "7", 7, '<pool><a b="7"/></pool>'),
        (At("a/@b", "port"), 65535, 65535, '<pool><a b="65535"/></pool>'),
        (At("capacity", "size"), "1.5GiB", 1610612736, "<pool><capacity>1610612736</capacity></pool>"),
        (At("m", "mode"), "0711", "0711", "<pool><m>0711</m></pool>"),
        (At("m", "mode"), "711", "0711", "<pool><m>0711</m></pool>"),
        (At("m", "mode"), "0000", "0000", "<pool><m>0000</m></pool>"),
        (At("features/cow/@state", "yes_no"), True, True, '<pool><features><cow state="yes"/></features></pool>'),
        (At("features/cow/@state", "yes_no"), False, False, '<pool><features><cow state="no"/></features></pool>'),
        (At("target/nocow", "present"), True, True, "<pool><target><nocow/></target></pool>"),
        (
            DEVICES,
            ["/dev/sdb", "/dev//sdc"],
            ["/dev/sdb", "/dev/sdc"],
            '<pool><source><device path="/dev/sdb"/><device path="/dev/sdc"/></source></pool>',
        ),
        (
            HOSTS,
            [{"name": "a", "port": None}, {"name": "b", "port": 1}],
            [{"name": "a"}, {"name": "b", "port": 1}],
            '<pool><source><host name="a"/><host name="b" port="1"/></source></pool>',
        ),
        (
            AUTH,
            {"username": "u", "secret_usage": "s", "secret_uuid": None},
            {"username": "u", "secret_usage": "s"},
            '<pool><source><auth username="u" type="ceph"><secret usage="s"/></auth></source></pool>',
        ),
        (
            OPTIONS,
            {"a": 2, "b": "x"},
            {"a": "2", "b": "x"},
            '<pool><rbd:config_opts xmlns:rbd="http://libvirt.org/schemas/storagepool/rbd/1.0">'
            '<rbd:option name="a" value="2"/><rbd:option name="b" value="x"/></rbd:config_opts></pool>',
        ),
    ],
)
def test_both_ways(field, given, clean, xml):
    assert field.clean("pool 'x'", "option", given) == clean
    assert written(field, clean) == xml
    assert field.read(xmltree.parse(xml)) == clean
    assert fields.met(field, field.read(xmltree.parse(xml)), clean)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (At("x"), "", "not empty"),
        (At("x"), "a\nb", "control characters"),
        (At("x"), "a\0", "control characters"),
        (At("x"), "\ud800", "control characters"),
        (At("x", "path"), "a/b", "absolute path"),
        (At("x", "path"), "/a/../etc", "absolute path"),
        (At("x", "path"), "/a/..", "absolute path"),
        (At("x", "host"), "a b", "host name"),
        (At("x", "host"), "$(id)", "host name"),
        (At("x", "host"), "a,b", "host name"),
        (At("x", "int"), "x", "whole number"),
        (At("x", "int"), -1, "2^63-1"),
        (At("x", "int"), 2**63, "2^63-1"),
        (At("x", "port"), 0, "a port"),
        (At("x", "port"), 65536, "a port"),
        (At("x", "size"), "10Gi", "units"),
        (At("x", "mode"), 644, "octal digits in quotes"),
        (At("x", "mode"), 0o644, "octal digits in quotes"),
        (At("x", "mode"), "0888", "octal digits in quotes"),
        (At("x", "mode"), "1777", "octal digits in quotes"),
        (At("x", "mode"), "u=rw", "octal digits in quotes"),
        (At("x", "mode"), "0644\n", "octal digits in quotes"),
        (HOSTS, [], "at least one"),
        (HOSTS, [{"name": "a b"}], "hosts.name"),
        (Each("source/host", HOSTS.columns, at_most=1), [{"name": "a"}, {"name": "b"}], "at most 1"),
        (DEVICES, ["sdb"], "absolute path"),
        (AUTH, {"username": "a\nb"}, "hosts.username"),
        (OPTIONS, {"": "x"}, "not empty"),
        (OPTIONS, {"a": ""}, "not empty"),
        (OPTIONS, {"a\n": "x"}, "control characters"),
    ],
)
def test_refused(field, value, words):
    with pytest.raises(StorageError, match="pool 'x': ") as caught:
        field.clean("pool 'x'", "hosts", value)
    assert words in str(caught.value)
    assert caught.value.code == "bad_value"


@pytest.mark.parametrize(
    ("field", "have", "want", "same"),
    [
        (At("p", "path"), "/a//b/", "/a/b", True),
        (At("p", "path"), "/a/b", "/a/c", False),
        (At("p", "path"), "//a", "/a", False),  # posix keeps two leading slashes apart; clean() never lets them in
        (At("m", "mode"), "0711", "0711", True),
        (At("n"), "a", "A", False),
        (HOSTS, [{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}], True),
        (HOSTS, [{"name": "a", "port": 1}], [{"port": 1, "name": "a"}], True),
        (HOSTS, [{"name": "a", "port": 1}], [{"name": "a"}], False),
        (HOSTS, [{"name": "a"}], [{"name": "a"}, {"name": "a"}], False),
        (DEVICES, ["/dev/a", "/dev/b"], ["/dev/b", "/dev/a"], True),
        (DEVICES, ["/dev/a"], ["/dev/a", "/dev/b"], False),
        (AUTH, {"username": "u", "secret_usage": "s"}, {"secret_usage": "s"}, True),
        (AUTH, {"username": "u", "secret_usage": "s"}, {"secret_uuid": "s"}, False),
        (AUTH, None, {"username": "u"}, False),
        (AUTH, None, {}, True),
        (OPTIONS, {"a": "1"}, {"a": "1"}, True),
        (OPTIONS, {"a": "1", "b": "2"}, {"a": "1"}, False),
        (OPTIONS, None, {}, True),
        (At("n", "present"), None, False, True),
        (At("n", "present"), None, True, False),
        (At("n", "yes_no"), None, False, True),
        (At("n", "yes_no"), True, False, False),
        (At("n", "int"), None, 0, False),
    ],
)
def test_same_by_meaning(field, have, want, same):
    """Order means nothing in lists of servers and devices; what is not there is a false and an empty value."""
    if isinstance(field, Each) and not field.plain:
        want = field.clean("pool 'x'", "option", want)
    assert fields.met(field, have, want) is same


def test_devices_compare_by_the_node_that_a_name_leads_to(tmp_path):
    node, other = tmp_path / "sdb", tmp_path / "sdc"
    alias = tmp_path / "by-id"
    node.touch()
    other.touch()
    alias.symlink_to(node)
    assert fields.same_device(str(node), str(alias))
    assert not fields.same_device(str(other), str(alias))
    assert fields.same_devices([str(other), str(alias)], [str(node), str(other)])
    assert not fields.same_devices([str(other)], [str(alias)])
    os.unlink(node)
    assert not fields.same_device(str(other), str(alias))


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (At("c", "size"), 2**30, "1.0 GiB (1073741824)"),
        (At("c", "yes_no"), True, "true"),
        (At("c"), "x", "x"),
        (HOSTS, [{"name": "a", "port": 1}, {"name": "b"}], "a:1, b"),
        (DEVICES, ["/dev/a", "/dev/b"], "/dev/a, /dev/b"),
        (AUTH, {"username": "u", "secret_usage": "s"}, "username u, secret_usage s"),
        (OPTIONS, {"a": "1", "b": "2"}, "a=1, b=2"),
    ],
)
def test_show(field, value, text):
    assert field.show(value) == text


def test_hosts_show_and_compare_alike_whatever_the_order_of_their_keys():
    """A playbook may give the port before the name; libvirt's XML is read name first."""
    clean = HOSTS.clean("pool 'x'", "hosts", [{"port": 6789, "name": "a"}])
    assert HOSTS.show(clean) == "a:6789"
    assert HOSTS.same(HOSTS.read(xmltree.parse(written(HOSTS, clean))), clean)


@pytest.mark.parametrize(
    ("field", "value", "before", "after"),
    [
        (
            AUTH,
            {"secret_uuid": "u"},
            '<pool><source><auth type="ceph" username="a"><secret usage="s" x="1"/></auth></source></pool>',
            '<pool><source><auth type="ceph" username="a"><secret x="1" uuid="u"/></auth></source></pool>',
        ),
        (
            HOSTS,
            [{"name": "b"}],
            '<pool><source><host name="a" port="1"/><other/></source></pool>',
            '<pool><source><other/><host name="b"/></source></pool>',
        ),
        (
            At("capacity", "size"),
            5,
            '<pool><capacity unit="KiB">7</capacity></pool>',
            "<pool><capacity>5</capacity></pool>",
        ),
        (At("nocow", "present"), False, "<pool><nocow/><other/></pool>", "<pool><other/></pool>"),
        (
            At("cow/@state", "yes_no"),
            False,
            '<pool><cow state="yes" x="1"/></pool>',
            '<pool><cow state="no" x="1"/></pool>',
        ),
        (
            OPTIONS,
            {},
            '<pool xmlns:rbd="http://libvirt.org/schemas/storagepool/rbd/1.0"><rbd:config_opts>'
            '<rbd:option name="a" value="1"/></rbd:config_opts><other/></pool>',
            '<pool xmlns:rbd="http://libvirt.org/schemas/storagepool/rbd/1.0"><rbd:config_opts/><other/></pool>',
        ),
    ],
)
def test_an_edit_leaves_the_rest(field, value, before, after):
    assert written(field, value, before) == after


def test_a_size_in_another_unit_is_not_taken_for_bytes():
    """libvirt writes bytes; a tree with another unit is none that it dumped."""
    assert At("capacity", "size").read(xmltree.parse("<v><capacity unit='bytes'>7</capacity></v>")) == 7
    assert At("capacity", "size").read(xmltree.parse("<v><capacity>unknown</capacity></v>")) is None


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        (At("x", required=True), {"type": "str", "required": True}),
        (At("x", "size"), {"type": "str"}),
        (At("x", "mode"), {"type": "raw"}),
        (At("x", "yes_no", default=True), {"type": "bool", "default": True}),
        (At("x", choices=("a", "b")), {"type": "str", "choices": ["a", "b"]}),
        (DEVICES, {"type": "list", "elements": "path"}),
        (OPTIONS, {"type": "dict"}),
        (
            HOSTS,
            {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "port": {"type": "int"}},
            },
        ),
        (
            AUTH,
            {
                "type": "dict",
                "options": {
                    "username": {"type": "str", "required": True},
                    "secret_usage": {"type": "str", "no_log": False},  # the name of a secret is none
                    "secret_uuid": {"type": "str", "no_log": False},
                },
                "mutually_exclusive": [["secret_usage", "secret_uuid"]],
            },
        ),
    ],
)
def test_argument_spec(field, spec):
    assert field.spec() == spec


def test_not_given_means_left_alone():
    table = {"name": At("name"), "auth": AUTH, "hosts": HOSTS}
    options = {"name": None, "auth": {"username": "u", "secret_usage": None}, "hosts": None, "other": 1}
    assert fields.given(options) == {"auth": {"username": "u"}, "other": 1}
    cleaned = fields.clean("pool 'x'", table, options)
    assert cleaned == {"auth": {"username": "u"}}
    assert fields.differing(table, {"name": "x", "auth": {"username": "u"}}, cleaned) == []
    assert fields.differing(table, {"name": "x"}, cleaned) == ["auth"]


@given(st.text())
def test_any_text_is_refused_or_survives(text):
    """No value that passes can come back as another one."""
    for field in (At("source/name"), At("source/@name"), At("target/path", "path")):
        try:
            clean = field.clean("pool 'x'", "option", text)
        except StorageError:
            continue
        tree = xmltree.parse("<pool/>")
        field.write(tree, clean)
        assert field.read(xmltree.parse(xmltree.text(tree))) == clean


def test_entities_are_not_followed(tmp_path):
    file = tmp_path / "file"
    file.write_text("content of a host file")
    tree = xmltree.parse(f"<!DOCTYPE pool [<!ENTITY x SYSTEM 'file://{file}'>]><pool><name>&x;</name></pool>")
    assert "content" not in xmltree.text(tree)
