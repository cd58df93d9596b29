# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layouts without libvirt: counts, validation, order, and what is refused before anything is read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import layout, pool, volume
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError


def names_of(item):
    return [one["name"] for one in layout.numbered(item, "volumes[0]")]


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"name": "web"}, ["web"]),
        ({"name": "web%03d"}, ["web%03d"]),
        ({"name": "web%d", "count": 3}, ["web1", "web2", "web3"]),
        ({"name": "web%03d.qcow2", "count": 2}, ["web001.qcow2", "web002.qcow2"]),
        ({"name": "web%02d", "count": 3, "first": 9}, ["web09", "web10", "web11"]),
        ({"name": "w%d", "count": 2, "first": 0}, ["w0", "w1"]),
        ({"name": "w%d", "count": 0}, []),
    ],
)
def test_numbered(item, names):
    assert names_of(item) == names


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "web", "count": 2}, "where the number goes"),
        ({"name": "w%d-%d", "count": 2}, "where the number goes"),
        ({"name": "w%s", "count": 2}, "where the number goes"),
        ({"count": 2}, "where the number goes"),
        ({"name": "w%d", "count": -1}, "must be numbers"),
        ({"name": "w%d", "count": "x"}, "must be numbers"),
        ({"name": "w%d", "count": True}, "must be numbers"),
        ({"name": "w%d", "count": 1.5}, "must be numbers"),
        ({"name": "w%d", "count": None}, "must be numbers"),
        ({"name": "w%d", "count": 10**6 + 1}, "must be numbers"),
        ({"name": "w%d", "count": 1, "first": -1}, "must be numbers"),
        ({"name": "w%09999d", "count": 1}, "too many digits"),
    ],
)
def test_numbered_refused(item, words):
    with pytest.raises(StorageError, match=words):
        layout.numbered(item, "volumes[0]")


def test_all_else_is_the_same_for_each():
    found = layout.numbered({"name": "w%d", "count": 2, "pool": "p", "capacity": "1GiB"}, "volumes[0]")
    assert found == [{"pool": "p", "capacity": "1GiB", "name": f"w{number}"} for number in (1, 2)]


SPECS = {
    "volume": volume.argument_spec(),
    **{name: pool.argument_spec(registry.backend(name)) for name in registry.types()},
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**40),
    st.sampled_from(
        ["", "a", "1GiB", "present", "absent", "active", "qcow2", "raw", "yes", "no", "/srv/x", "~/x", "$HOME/x", "7"]
    ),
    st.sampled_from([[], {}, ["a"], {"mode": "0600"}, {"volume": "b"}, 1.5]),
)


@pytest.mark.parametrize("kind", sorted(SPECS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_short_way_of_validation_leads_where_the_long_one_does(kind, data):
    """What passes without Ansible's validator comes out as if it had gone through it."""
    names = [*SPECS[kind], "unknown"]
    keys = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=5))
    required = [name for name, option in SPECS[kind].items() if option.get("required")]
    keys += [name for name in required if name not in keys and data.draw(st.booleans())]
    item = {key: data.draw(VALUES) for key in keys}
    short, long = layout.Validator(SPECS[kind]), layout.Validator(SPECS[kind])
    long.is_plain = lambda item: False
    outcomes = []
    for validate in (short, long):
        try:
            outcomes.append(validate("x", dict(item)))
        except StorageError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("fs", {"name": "x", "device": "$HOME/disk"}),
        ("dir", {"name": "x", "path": "~/images"}),
        ("dir", {"name": "x", "path": "/srv/images", "state": "active"}),
        ("volume", {"pool": "p", "name": "~/x"}),
    ],
)
def test_paths_are_expanded_as_a_module_expands_them(kind, item):
    validate, expected = layout.Validator(SPECS[kind]), layout.Validator(SPECS[kind])
    expected.is_plain = lambda item: False
    assert validate("x", dict(item)) == expected("x", dict(item))


def test_the_short_way_is_taken_for_a_common_volume():
    validate = layout.Validator(SPECS["volume"])
    assert validate.is_plain({"pool": "p", "name": "v", "capacity": "1GiB", "format": "qcow2", "state": "present"})
    assert not validate.is_plain({"pool": "p", "name": "v", "capacity": 5})
    assert not validate.is_plain({"pool": "p", "name": "v", "format": "vhdx"})
    assert not validate.is_plain({"pool": "p"})


class Handle:
    """A volume as libvirt lists it."""

    def __init__(self, name, backing=""):
        self.name, self.backing = name, backing

    def path(self):
        return f"/srv/p/{self.name}"

    def XMLDesc(self, flags):  # noqa: N802  libvirt's name
        store = f"<backingStore><path>/srv/p/{self.backing}</path></backingStore>" if self.backing else ""
        return f"<volume><name>{self.name}</name>{store}</volume>"


class PoolHandle:
    """A directory pool as libvirt has it."""

    def XMLDesc(self, flags):  # noqa: N802
        return "<pool type='dir'><name>p</name><target><path>/srv/p</path></target></pool>"

    def isActive(self):  # noqa: N802
        return 1

    def isPersistent(self):  # noqa: N802
        return 1

    def UUIDString(self):  # noqa: N802
        return "7a4c6b52-2f6b-4c2e-9d5e-0f4f6f3b9a11"


class Connection:
    """Somebody else's host, with the pool p where a test puts volumes in."""

    local = False

    def __init__(self, *handles):
        self.handles = {handle.name: handle for handle in handles}

    def pools(self):
        return {"p": PoolHandle()} if self.handles else {}

    def pool(self, name):
        return self.pools().get(name)

    def active(self, name):
        return name in self.pools()

    def volumes(self, name):
        return self.handles if name == "p" else {}

    def secrets(self):
        return []

    def once(self, look, make):
        return make()


def build(connection=None, **declared):
    params = {
        "secrets": [],
        "pools": [],
        "volumes": [],
        "owner": "layout",
        "prune": False,
        "expected_pools": [],
        **declared,
    }
    spec = layout.argument_spec()["secrets"]["options"]
    defaults = {name: option.get("default") for name, option in spec.items()}
    params["secrets"] = [{**defaults, **one} for one in params["secrets"]]
    return layout.Layout(connection or Connection(), params).build()


def labels(things):
    return [thing.label for thing in things]


P = {"type": "dir", "name": "p", "path": "/srv/p"}
RBD = {
    "type": "rbd",
    "name": "vms",
    "source_name": "vms",
    "hosts": [{"name": "mon"}],
    "auth": {"username": "libvirt", "secret_usage": "key"},
}
KEY = {"usage": "ceph", "usage_name": "key"}


def vol(name, **rest):
    return {"pool": "p", "name": name, "capacity": "1MiB", **rest}


def over(name, base):
    return {"pool": "p", "name": name, "format": "qcow2", "backing": {"volume": base, "format": "qcow2"}}


def test_secrets_before_pools_before_volumes():
    things = build(secrets=[KEY], pools=[RBD, P], volumes=[vol("v")])
    assert labels(things) == ["secret 'key'", "pool 'vms'", "pool 'p'", "volume 'p/v'"]
    secret, rbd, directory, volume_ = things
    assert (rbd.needs, directory.needs, volume_.needs) == ([secret], [], [directory])


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_base_before_its_overlays(order):
    items = [vol("base", format="qcow2"), over("a", "base"), over("b", "a"), vol("alone")]
    things = build(pools=[P], volumes=[items[number] for number in order])
    found = [thing.volume_name for thing in things if thing.kind == "volume"]
    assert sorted(found) == ["a", "alone", "b", "base"]
    assert found.index("base") < found.index("a") < found.index("b")
    by_name = {thing.name: thing for thing in things}
    assert by_name["p/base"] in by_name["p/a"].needs
    assert by_name["p/a"] in by_name["p/b"].needs


def gone(name):
    return {"pool": "p", "name": name, "state": "absent"}


@pytest.mark.parametrize("order", list(itertools.permutations(["base", "middle", "top"])))
def test_overlays_are_removed_before_their_base(order):
    connection = Connection(Handle("base"), Handle("middle", "base"), Handle("top", "middle"))
    things = build(connection, volumes=[gone(name) for name in order])
    assert [thing.volume_name for thing in things] == ["top", "middle", "base"]
    assert all(thing.want["leaving"] == {"p/base", "p/middle", "p/top"} for thing in things)


@pytest.mark.parametrize("circle", [("a", "b"), ("a", "b", "c"), ("a",)])
def test_headers_that_point_in_a_circle_do_not_keep_it_busy(circle):
    """A guest can write any name into a header of its own."""
    handles = [Handle(name, below) for name, below in zip(circle, [*circle[1:], circle[0]])]
    things = build(Connection(*handles), volumes=[gone(name) for name in circle])
    assert sorted(thing.volume_name for thing in things) == sorted(circle)


def test_what_leaves_leaves_in_the_reverse_order():
    things = build(
        Connection(Handle("v")),
        secrets=[{**KEY, "state": "absent"}],
        pools=[{"type": "dir", "name": "p", "state": "absent"}],
        volumes=[gone("v")],
    )
    assert labels(things) == ["volume 'p/v'", "pool 'p'", "secret 'key'"]


@pytest.mark.parametrize(
    ("declared", "code", "words"),
    [
        ({"pools": [{"type": "dri", "name": "p"}]}, "bad_value", "type can't be 'dri'"),
        ({"pools": [{"name": "p"}]}, "bad_value", "type can't be None"),
        ({"pools": [{**P, "pth": 1}]}, "bad_value", "pools[0] ('p')"),
        ({"pools": [{**P, "state": "up"}]}, "bad_value", "state"),
        ({"pools": [P, P]}, "declared_twice", "pool 'p': it is declared more than once"),
        ({"secrets": [KEY, KEY]}, "declared_twice", "secret 'key'"),
        ({"pools": [P], "volumes": [vol("v"), vol("v")]}, "declared_twice", "volume 'p/v'"),
        ({"pools": [P], "volumes": [vol("v1"), {**vol("v%d"), "count": 2}]}, "declared_twice", "volume 'p/v1'"),
        ({"pools": [P, {**P, "name": "q", "path": "/srv//p/"}]}, "path_conflict", "'p' has the path /srv/p too"),
        ({"pools": [RBD, {**RBD, "name": "again"}]}, "source_conflict", "on the same storage"),
        ({"volumes": [vol("v")]}, "no_pool", "there is no pool 'p'"),
        ({"pools": [{**P, "state": "inactive"}], "volumes": [vol("v")]}, "pool_inactive", "declared inactive"),
        ({"pools": [{**P, "state": "absent"}], "volumes": [vol("v")]}, "pool_inactive", "declared absent"),
        ({"pools": [P], "volumes": [over("a", "b"), over("b", "a")]}, "bad_backing", "circle"),
        ({"pools": [P], "volumes": [over("a", "a")]}, "bad_backing", "circle (p/a)"),
        ({"pools": [P], "volumes": [over("a", "b"), {**gone("b")}]}, "bad_backing", "declared absent"),
        ({"pools": [P], "volumes": [{"pool": "p"}]}, "bad_value", "name"),
        ({"pools": [P], "volumes": [vol("a/b")]}, "bad_name", "'a/b' can't be a name"),
        ({"pools": [{**P, "name": "a\nb"}]}, "bad_name", "can't be a name"),
    ],
)
def test_refused(declared, code, words):
    with pytest.raises(StorageError) as caught:
        build(**declared)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_every_invalid_item_is_named_at_once():
    with pytest.raises(StorageError, match="3 items are invalid") as caught:
        build(pools=[{"type": "x"}, {**P, "path": "p"}], volumes=[vol("v", capacity="1 parsec")])
    text = str(caught.value)
    assert "pools[0]" in text
    assert "absolute path" in text
    assert "parsec" in text


def test_volumes_to_remove_from_a_pool_that_is_not_there_are_gone_already():
    assert build(volumes=[gone("v")]) == []
