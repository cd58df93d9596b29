# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Families of inputs that are refused, each a strategy: what is given, to which module, and which error it gets."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NEW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:=-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class Bad:
    """An input, the code of its error, and words that the error has: what is wrong with which item."""

    module: str
    args: dict[str, Any]
    code: str
    words: tuple[str, ...] = ()
    never: tuple[str, ...] = ()  # what no output may show
    by_spec: bool = False  # refused by Ansible's own validation, in its form


PYTHON_OR_SHELL = (
    "$(id)",
    "`id`",
    "; rm -rf /",
    "a;b",
    "a b",
    "a|b",
    "a&b",
    "a>b",
    "{{ 7*7 }}",
    "{% raw %}",
    "%s",
    "*",
    "?",
)
QUOTES = ("'", '"', "it's", 'say "x"', "\\", "a\\nb", "<a>", "&amp;", "]]>", "<!DOCTYPE x>", "$HOME", "~", "#", "%00")
PATHS = (
    "/",
    "..",
    ".",
    "../../etc/passwd",
    "a/b",
    "/etc/passwd",
    "a\\b/c",
    "\x00",
    "a\x00b",
    "a\nb",
    "\n",
    "\r",
    "a\tb",
    "\x1b[2J",
)
OPTIONS = ("-rf", "--help", "-", "--", ".hidden", "+x", "@file", ":", "=", "")
ALPHABETS = (
    "é",
    "ключ",
    "名前",
    "١",
    "ａ",
    "\u202e",
    "\u200b",
    "\u00a0",
    "\ud7ff",
    "\ufffe",
    "\U0001f4be",
    "\x7f",
    "\x80",
)
LONG = ("x" * 201, "x" * 300, "x" * 5000, "é" * 200)
HOSTILE = (*PYTHON_OR_SHELL, *QUOTES, *PATHS, *OPTIONS, *ALPHABETS, *LONG)


def names() -> st.SearchStrategy[str]:
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
    nearly = st.builds(
        lambda good, at, bad: good[:at] + bad + good[at:],
        st.from_regex(NEW_NAME, fullmatch=True),
        st.integers(0, 20),
        st.sampled_from([" ", "/", "\n", "'", '"', "$", "\\", "é", "\x00", ",", ";", "(", "~", "\u202e"]),
    )
    return st.one_of(st.sampled_from(HOSTILE), text, nearly).filter(lambda name: not NEW_NAME.fullmatch(name))


@st.composite
def hostile_names(draw: Any, root: Path) -> Bad:
    """No such name is given to anything new; the error shows it as Python writes it, on one line."""
    name = draw(names())
    pool = {"name": name, "path": f"{root}/new"}
    rbd = {"name": name, "source_name": "rbd", "hosts": [{"name": "127.0.0.1", "port": 1}]}
    volume = {"pool": "images", "name": name, "capacity": "1MiB"}
    module, args = draw(
        st.sampled_from(
            [
                ("pool_dir", pool),
                ("pool_rbd", rbd),
                ("pool_logical", {"name": name, "source_name": "vg"}),
                ("volume", volume),
                ("layout", {"pools": [{"type": "dir", **pool}]}),
                ("layout", {"volumes": [volume]}),
                ("layout", {"pools": [{"type": "dir", **pool}], "volumes": [{**volume, "pool": name, "name": "x"}]}),
            ]
        )
    )
    return Bad(module, args, "bad_name", (repr(name)[1:-1][:80],))


@st.composite
def hostile_pools_of_volumes(draw: Any, root: Path) -> Bad:
    """A volume in a pool that can't be."""
    name = draw(names())
    impossible = re.search(r"[/\x00-\x1f\x7f\ufffe\uffff]|^\.{0,2}$", name)
    return Bad("volume", {"pool": name, "name": "x", "capacity": "1MiB"}, "bad_name" if impossible else "no_pool")


def sizes() -> st.SearchStrategy[Any]:
    number = st.integers(0, 10**6).map(str)
    units = ["iB", "X", "GBB", "KiBs", "kb/s", "Ki", "Gi", "bit", "%", "тб", "Ｋ", "Z", "YiB", "ZB", "byt", "e"]
    return st.one_of(
        st.builds("{}{}".format, number, st.sampled_from(units)),
        st.integers(2**63, 2**200).map(str),
        st.builds("{}{}".format, st.integers(8, 10**9), st.sampled_from(["E", "EiB", "eib"])),
        st.builds("{}EB".format, st.integers(10, 10**9)),
        st.integers(-(2**70), -1).map(str),
        st.builds("{}.{}1".format, st.integers(0, 99), st.integers(0, 999)),  # no whole number of bytes
        st.sampled_from(
            ["", " ", "G", "ten", "1e9", "1E+9", "0x10", "1_000", "1,5G", "1 000", "+1", "--1", "1..5G", ".5G", "1.G"]
        ),
        st.sampled_from(
            ["١٢", "１０", "∞", "NaN", "inf", "1\x00", "1G 1G", "$(id)", "{{ 7*7 }}", "9" * 400, "1." + "0" * 50, True]
        ),
        st.lists(st.integers(0, 9), max_size=2),
    )


@st.composite
def impossible_sizes(draw: Any, root: Path) -> Bad:
    option = draw(st.sampled_from(["capacity", "allocation", "cluster_size"]))
    value = draw(sizes())
    volume = {"pool": "images", "name": "new", "format": "qcow2", "capacity": "1GiB", option: value}
    module, args = draw(st.sampled_from([("volume", volume), ("layout", {"volumes": [volume]})]))
    return Bad(module, args, "bad_value", ("'images/new'", option))


@st.composite
def sizes_that_do_not_fit(draw: Any, root: Path) -> Bad:
    """Sizes that are some, but not for this option."""
    volume: dict[str, Any] = {"pool": "images", "name": "new", "format": "qcow2", "capacity": "1GiB"}
    which = draw(st.sampled_from(["cluster", "zero", "allocation"]))
    if which == "cluster":
        power = st.integers(9, 21).map(lambda bits: 1 << bits)
        volume["cluster_size"] = draw(
            st.integers(1, 2**40).filter(lambda size: size & (size - 1) or not 512 <= size <= 2**21)
            | power.map(lambda size: size + 1)
        )
    elif which == "zero":
        volume["capacity"] = draw(st.sampled_from(["0", 0, "0KiB", "0.0G", "0B", "0E"]))
    else:
        volume["capacity"], volume["allocation"] = "1MiB", draw(st.integers(2**20 + 1, 2**63 - 1))
    word = {"cluster": "cluster_size", "zero": "capacity", "allocation": "allocation"}[which]
    return Bad("volume", volume, "bad_value", ("'images/new'", word))


@st.composite
def modes(draw: Any, root: Path) -> Bad:
    """Octal digits in quotes and nothing else: nobody can tell 0644 from 420."""
    good = re.compile(r"0?[0-7]{3}")
    odd = [
        "",
        " ",
        "rw",
        "u=rw",
        "+x",
        "0o644",
        "644 ",
        "\n644",
        "４４４",
        "-644",
        "06444",
        "4755",
        "1777",
        "6",
        "64",
        "0999",
        True,
        4.5,
    ]
    value = draw(
        st.one_of(
            st.integers(-1, 10**6),
            st.sampled_from(odd),
            st.text("0123456789", min_size=1, max_size=6).filter(lambda text: not good.fullmatch(text)),
            st.lists(st.just("0644"), max_size=1),
        )
    )
    permissions = {"mode": value}
    pool = {"name": "new", "path": f"{root}/new", "permissions": permissions}
    volume = {"pool": "images", "name": "new", "capacity": "1MiB", "permissions": permissions}
    module, args, item = draw(
        st.sampled_from(
            [
                ("pool_dir", pool, "'new'"),
                ("volume", volume, "'images/new'"),
                ("layout", {"pools": [{"type": "dir", **pool}]}, "'new'"),
                ("layout", {"volumes": [volume]}, "'images/new'"),
            ]
        )
    )
    return Bad(module, args, "bad_value", (item, "permissions.mode"))


@st.composite
def paths(draw: Any, root: Path) -> Bad:
    inside = st.sampled_from(["a", "b c", "ключ", ".", ""])
    value = draw(
        st.one_of(
            st.sampled_from(
                ["images", "./images", "../images", "a/b", "..", ".", "", " /a", "\n/a", "file:///a", "C:\\images"]
            ),
            st.builds("{}/{}/../{}".format, st.just(str(root)), inside, inside),
            st.builds("{}/x{}y".format, st.just(str(root)), st.sampled_from(list("\x00\n\r\t\x1b\x7f\ufffe"))),
        )
    )
    pool = {"name": "new", "path": value}
    module, args = draw(st.sampled_from([("pool_dir", pool), ("layout", {"pools": [{"type": "dir", **pool}]})]))
    # Ansible itself takes an empty path, and a relative one, as they are
    return Bad(module, args, "bad_value", ("'new'", "path"))


SYSTEM = (
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
)
SYSTEM += (
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
)
SYSTEM += (
    "/var/lib/libvirt",
    "/var/tmp",
    "/etc/libvirt",
    "/etc/x/y",
    "/proc/1",
    "/sys/kernel",
    "/boot/images",
    "/dev/shm/images",
)


@st.composite
def system_paths(draw: Any, root: Path) -> Bad:
    path = draw(st.sampled_from(SYSTEM))
    written = draw(st.sampled_from(["{}", "{}/", "/{}", "{}//", "{}/."])).format(path)
    state = draw(st.sampled_from(["active", "inactive"]))
    pool = {"name": "new", "path": written, "state": state}
    module, args = draw(st.sampled_from([("pool_dir", pool), ("layout", {"pools": [{"type": "dir", **pool}]})]))
    return Bad(module, args, "system_path", ("'new'",))


POOLS: dict[str, dict[str, Any]] = {
    "pool_dir": {"path": "/nowhere/new"},
    "pool_fs": {"path": "/nowhere/new", "device": "/dev/nothing"},
    "pool_netfs": {"path": "/nowhere/new", "hosts": [{"name": "127.0.0.1"}], "source_path": "/x"},
    "pool_logical": {"source_name": "vg"},
    "pool_disk": {"device": "/dev/nothing"},
    "pool_rbd": {"source_name": "rbd", "hosts": [{"name": "127.0.0.1"}]},
    "pool_gluster": {"source_name": "gv", "hosts": [{"name": "127.0.0.1"}]},
    "pool_zfs": {"source_name": "tank"},
    "pool_iscsi_direct": {
        "hosts": [{"name": "127.0.0.1"}],
        "target_iqn": "iqn.2026-01.example:x",
        "initiator_iqn": "iqn.2026-01.example:y",
    },
    "pool_mpath": {},
}


@st.composite
def unknown_options(draw: Any, root: Path) -> Bad:
    """A typing error in an option's name is not passed over."""
    option = draw(
        st.sampled_from(
            ["size", "mode", "Name", "nmae", "pool_name", "autstart", "target", "uuid ", "xml", "state_", "check_mode"]
        )
        | st.from_regex(r"x[a-z_]{3,12}", fullmatch=True)
    )
    value = draw(st.sampled_from([None, True, 1, "x", [], {}, {"a": 1}]))
    module = draw(st.sampled_from([*POOLS, "volume", "secret", "layout", "layout item", "volume_info", "pool_info"]))
    if module == "layout item":
        kind = draw(st.sampled_from(["pools", "volumes", "secrets"]))
        item = {
            "pools": {"type": "dir", "name": "new", "path": f"{root}/new"},
            "volumes": {"pool": "images", "name": "new", "capacity": "1MiB"},
            "secrets": {"usage": "ceph", "usage_name": "new"},
        }[kind]
        return Bad(
            "layout", {kind: [{**item, option: value}]}, "bad_value", (option.strip(),), by_spec=kind == "secrets"
        )
    base = {
        "volume": {"pool": "images", "name": "new", "capacity": "1MiB"},
        "secret": {"usage": "ceph", "usage_name": "new"},
    }.get(module, {"name": "new", **POOLS[module]} if module in POOLS else {})
    return Bad(module, {**base, option: value}, "bad_value", (option.strip(),), by_spec=True)


@st.composite
def wrong_types(draw: Any, root: Path) -> Bad:
    """Values that can't be converted to what an option is."""
    boolean = st.sampled_from(["maybe", "2", 2, "", "truee", "on off", [], {}, "null", -1, 0.5])
    number = st.sampled_from(["ten", "", "1.5", [], {}, "0x1", "１０x", "9" * 30 + "x", "--1"])
    words = st.sampled_from(["activ", "running", "started", "present ", "ACTIVE", "", "1", "{{ x }}", True, 0])
    dictionary = st.sampled_from([1, 1.5, True, ["mode"], "mode", "-", "mode 0644"])
    listed = st.sampled_from([{"name": "a"}, 1.5])
    tables = {
        "pool_dir": {"autostart": boolean, "restart": boolean, "delete_data": boolean, "persistent": boolean}
        | {"state": words, "build": words, "wait_timeout": number, "permissions": dictionary, "lock_timeout": number},
        "pool_rbd": {"hosts": listed, "auth": dictionary, "config_options": dictionary, "state": words},
        "volume": {"immutable": boolean, "state": words, "format": words, "preallocation": words, "backing": dictionary}
        | {"lazy_refcounts": boolean, "permissions": dictionary, "encryption": dictionary, "compat": words},
        "secret": {"private": boolean, "ephemeral": boolean, "usage": words, "state": words, "set_value": words},
        "layout": {"prune": boolean, "pools": st.sampled_from([1.5, {"a": 1}]), "lock_timeout": number},
    }
    module = draw(st.sampled_from(sorted(tables)))
    option = draw(st.sampled_from(sorted(tables[module])))
    value = draw(tables[module][option])
    base = {
        "volume": {"pool": "images", "name": "new", "capacity": "1MiB"},
        "secret": {"usage": "ceph", "usage_name": "new"},
        "layout": {},
    }.get(module, {"name": "new", **POOLS.get(module, {})})
    text = isinstance(value, (str, list)) and option in (
        "permissions",
        "auth",
        "config_options",
        "backing",
        "encryption",
    )
    # of text where a dictionary belongs, Ansible does not say in which option
    return Bad(module, {**base, option: value}, "bad_value", () if text else (option,), by_spec=True)


@st.composite
def servers(draw: Any, root: Path) -> Bad:
    host = st.sampled_from(
        [
            "",
            " ",
            "a b",
            "a/b",
            "a;b",
            "$(id)",
            "a\nb",
            "é.example",
            "<x>",
            "a'b",
            "user@host",
            "a,b",
            "{{ x }}",
            "http://a",
        ]
    )
    port = st.sampled_from([0, -1, 65536, 2**31, 2**63, "0", "-5", "99999"])
    bad = draw(
        st.fixed_dictionaries({"name": host}) | st.fixed_dictionaries({"name": st.just("a.example"), "port": port})
    )
    good = {"name": "127.0.0.1"}
    hosts = draw(st.sampled_from([[bad], [good, bad], [bad, good]]))
    pool = {"name": "new", "source_name": "rbd", "hosts": hosts}
    module, args = draw(st.sampled_from([("pool_rbd", pool), ("layout", {"pools": [{"type": "rbd", **pool}]})]))
    return Bad(module, args, "bad_value", ("'new'", "hosts.port" if "port" in bad else "hosts.name"))


@st.composite
def secret_values(draw: Any, root: Path) -> Bad:
    """Values that can't be meant; the error never repeats them."""
    # what is shorter hides parts of words
    raw = draw(st.binary(min_size=9, max_size=60).filter(lambda data: len(data) != 28))
    not_base64 = draw(st.text("ABCDwxyz0189+/=!?-_ü$", min_size=9, max_size=40).filter(is_not_base64))
    which = draw(st.sampled_from(["length", "length", "text", "text", "text64", "empty", "huge"]))
    usage, option, value = {
        "length": ("ceph", draw(st.sampled_from(["value", "value_base64"])), base64.b64encode(raw).decode()),
        "text": ("ceph", "value", not_base64),
        "text64": (draw(st.sampled_from(["iscsi", "volume", "tls"])), "value_base64", not_base64),
        "empty": (
            draw(st.sampled_from(["iscsi", "volume", "ceph"])),
            draw(st.sampled_from(["value", "value_base64"])),
            "",
        ),
        "huge": ("iscsi", "value", "secret" * 11000),
    }[which]
    item = {"usage": usage, "usage_name": "new", option: value}
    module, args = draw(st.sampled_from([("secret", item), ("layout", {"secrets": [item]})]))
    never = (value[:200],) if len(value) > 8 else ()
    return Bad(module, args, "bad_secret_value", ("'new'",), never)


def is_not_base64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return True
    return False


@st.composite
def uuids(draw: Any, root: Path) -> Bad:
    value = draw(
        st.sampled_from(["x", "0", "7a4c6b52", "7a4c6b52-2f6b-4c2e-9d5e-0f4f6f3b9a1", "{{ uuid }}", "'", "g" * 32, " "])
        | st.text("0123456789abcdefgh-", min_size=1, max_size=31)
    )
    item = {"usage": "ceph", "usage_name": "new", "uuid": value}
    return Bad("secret", item, "bad_value", ("'new'", "uuid"))


@st.composite
def shrinking(draw: Any, root: Path) -> Bad:
    """The volumes that are there have 8 MiB."""
    size = draw(st.integers(1, 8 * 2**20 - 65536))
    form = draw(st.sampled_from(["raw", "qcow2"]))
    volume = {
        "pool": "images",
        "name": {"raw": "disk.raw", "qcow2": "base.qcow2"}[form],
        "capacity": size,
        "format": form,
    }
    module, args = draw(st.sampled_from([("volume", volume), ("layout", {"volumes": [volume]})]))
    return Bad(module, args, "would_shrink", (volume["name"], "8.0 MiB"))


@st.composite
def other_formats(draw: Any, root: Path) -> Bad:
    """What is there is not what is declared."""
    name, there = draw(st.sampled_from([("disk.raw", "raw"), ("base.qcow2", "qcow2"), ("over.qcow2", "qcow2")]))
    declared = draw(
        st.sampled_from(["raw", "qcow2", "qed", "vdi", "vmdk", "vpc", "qcow"]).filter(lambda form: form != there)
    )
    volume = {"pool": "images", "name": name, "format": declared}
    if draw(st.booleans()):
        volume["capacity"] = draw(st.sampled_from(["8MiB", "16MiB", "1KiB"]))
    module, args = draw(st.sampled_from([("volume", volume), ("layout", {"volumes": [volume]})]))
    return Bad(module, args, "format_mismatch", (name, declared, there))


# family: how many in a run, and in a soak
FAMILIES: dict[str, tuple[Any, int, int]] = {
    "hostile names": (hostile_names, 90, 300),
    "hostile names of pools": (hostile_pools_of_volumes, 25, 80),
    "impossible sizes": (impossible_sizes, 60, 220),
    "sizes that do not fit": (sizes_that_do_not_fit, 20, 60),
    "modes": (modes, 40, 140),
    "paths": (paths, 25, 60),
    "system paths": (system_paths, 30, 130),
    "unknown options": (unknown_options, 40, 150),
    "wrong types": (wrong_types, 50, 170),
    "servers": (servers, 30, 80),
    "values of secrets": (secret_values, 40, 130),
    "uuids": (uuids, 10, 40),
    "shrinking": (shrinking, 12, 40),
    "other formats": (other_formats, 12, 40),
}
