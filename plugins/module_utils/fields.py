# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fields: an option's type, its place in libvirt's XML and its comparison, said once.

Every field can spec() its argument, clean() what a user gave into the form that is compared,
read() and write() it in XML, tell whether two values are the same() by meaning, and show() it.
A value that is not given is None everywhere and is neither compared nor written.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any, Callable

from . import sizes, xmltree
from .errors import bad_value

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def same_path(have: Any, want: Any) -> bool:
    """Paths compare without regard to doubled and trailing slashes."""
    return posixpath.normpath(have) == posixpath.normpath(want)


def same_device(have: Any, want: Any) -> bool:
    """Devices compare by the node that their names lead to: /dev/disk/by-id/x may be /dev/sdb."""
    return same_path(have, want) or os.path.realpath(have) == os.path.realpath(want)


def same_devices(have: Any, want: Any) -> bool:
    """Lists of devices compare as sets of nodes."""
    return sorted(map(os.path.realpath, have)) == sorted(map(os.path.realpath, want))


def same_set(have: Any, want: Any) -> bool:
    """Lists whose order means nothing."""
    return sorted(map(repr, have)) == sorted(map(repr, want))


def text_of(thing: str, option: str, value: Any) -> str:
    """Text that XML can hold and that no tool can take for two lines."""
    value = str(value)
    if UNPRINTABLE.search(value):
        raise bad_value(thing, option, value, "text without control characters")
    return value


def clean_str(thing: str, option: str, value: Any) -> str:
    value = text_of(thing, option, value)
    if not value:
        raise bad_value(thing, option, value, "a value that is not empty")
    return value


def clean_path(thing: str, option: str, value: Any) -> str:
    value = clean_str(thing, option, value)
    if not value.startswith("/") or ".." in value.split("/"):
        raise bad_value(thing, option, value, "an absolute path without '..'")
    return posixpath.normpath("/" + value.lstrip("/"))


def clean_int(thing: str, option: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise bad_value(thing, option, value, "a whole number") from None
    if number < 0 or number >= 2**63:
        raise bad_value(thing, option, value, "a number from 0 to 2^63-1")
    return number


def clean_port(thing: str, option: str, value: Any) -> int:
    number = clean_int(thing, option, value)
    if not 0 < number < 65536:
        raise bad_value(thing, option, value, "a port from 1 to 65535")
    return number


def clean_size(thing: str, option: str, value: Any) -> int:
    try:
        return sizes.parse(value)
    except ValueError as error:
        raise bad_value(thing, option, value, str(error)) from None


def clean_mode(thing: str, option: str, value: Any) -> str:
    """Octal text only: by the time a YAML integer gets here nobody can tell 0644 from 420."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise bad_value(thing, option, value, "octal digits in quotes, from '0000' to '0777'")
    return f"{int(value, 8):04o}"


def clean_host(thing: str, option: str, value: Any) -> str:
    value = clean_str(thing, option, value)
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]%_-]+", value):
        raise bad_value(thing, option, value, "a host name or an IP address")
    return value


# type: (type in the argument_spec, how to clean, XML text to value, value to XML text)
TYPES: dict[str, tuple[str, Callable, Callable, Callable]] = {
    "str": ("str", clean_str, str, str),
    "path": ("path", clean_path, str, str),
    "host": ("str", clean_host, str, str),
    "int": ("int", clean_int, int, str),
    "port": ("int", clean_port, int, str),
    "size": ("str", clean_size, int, str),
    "mode": ("raw", clean_mode, lambda text: f"{int(text, 8):04o}", str),
    "yes_no": ("bool", lambda thing, option, value: bool(value), "yes".__eq__, lambda value: "yes" if value else "no"),
    "present": ("bool", lambda thing, option, value: bool(value), bool, str),
}


class At:
    """An option that stands at one place: At("source/name").

    instead_of names the places that this one excludes (a secret is named by uuid or by usage).
    """

    def __init__(
        self,
        path: str,
        type: str = "str",  # noqa: A002  the word of the argument_spec
        *,
        choices: tuple[str, ...] = (),
        required: bool = False,
        default: Any = None,
        same: Callable[[Any, Any], bool] | None = None,
        instead_of: tuple[str, ...] = (),
    ) -> None:
        self.path, self.type, self.choices, self.required, self.default = path, type, choices, required, default
        self.instead_of = instead_of
        self.same = same or (same_path if type == "path" else lambda have, want: have == want)

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"type": TYPES[self.type][0]}
        if self.choices:
            spec["choices"] = list(self.choices)
        if self.required:
            spec["required"] = True
        if self.default is not None:
            spec["default"] = self.default
        if "/secret/" in self.path:  # the name of a secret is none
            spec["no_log"] = False
        return spec

    def clean(self, thing: str, option: str, value: Any) -> Any:
        return TYPES[self.type][1](thing, option, value)

    def read(self, tree) -> Any:
        if self.type == "present":
            return True if tree.find(self.path) is not None else None
        value = xmltree.get(tree, self.path)
        if value in (None, "") or (self.type == "size" and not value.isdigit()):
            return None
        return TYPES[self.type][2](value)

    def write(self, tree, value: Any) -> None:
        for other in self.instead_of:
            xmltree.remove(tree, other)
        if self.type != "present":
            xmltree.put(tree, self.path, TYPES[self.type][3](value))
        elif value:
            xmltree.make(tree, self.path)
        else:
            xmltree.remove(tree, self.path)
        if self.type == "size":  # what is written is bytes, whatever unit stood there
            xmltree.make(tree, self.path).attrib.pop("unit", None)

    def show(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return sizes.both(value) if self.type == "size" else str(value)


class Group:
    """A dictionary of fields, each with its own place; constants are written with any of them."""

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        constants: dict[str, str] | None = None,
        required: bool = False,
        mutually_exclusive: tuple[tuple[str, ...], ...] = (),
        required_one_of: tuple[tuple[str, ...], ...] = (),
        required_together: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        self.fields, self.constants, self.required = fields, constants or {}, required
        self.rules = {
            "mutually_exclusive": [list(names) for names in mutually_exclusive],
            "required_one_of": [list(names) for names in required_one_of],
            "required_together": [list(names) for names in required_together],
        }

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "type": "dict",
            "options": {name: field.spec() for name, field in self.fields.items()},
        }
        spec.update({rule: names for rule, names in self.rules.items() if names})
        if self.required:
            spec["required"] = True
        return spec

    def clean(self, thing: str, option: str, value: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self.fields[name].clean(thing, f"{option}.{name}", given)
            for name, given in value.items()
            if given is not None
        }

    def read(self, tree) -> dict[str, Any] | None:
        found = {name: field.read(tree) for name, field in self.fields.items()}
        return {name: value for name, value in found.items() if value is not None} or None

    def write(self, tree, value: dict[str, Any]) -> None:
        for name, given in value.items():
            self.fields[name].write(tree, given)
        for path, constant in self.constants.items():
            xmltree.put(tree, path, constant)

    def same(self, have: dict[str, Any] | None, want: dict[str, Any]) -> bool:
        have = have or {}
        return all(name in have and self.fields[name].same(have[name], value) for name, value in want.items())

    def show(self, value: dict[str, Any]) -> str:
        return ", ".join(f"{name} {self.fields[name].show(given)}" for name, given in value.items())


class Each:
    """A list: of dictionaries, one an element (hosts), or of plain values (devices).

    columns maps the keys of a dictionary to fields below the element; a list of plain values
    has the one column whose name is the empty string.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, At],
        *,
        required: bool = False,
        same: Callable[[Any, Any], bool] = same_set,
        at_least: int = 1,
        at_most: int | None = None,
    ) -> None:
        self.path, self.columns, self.required, self.same = path, columns, required, same
        self.at_least, self.at_most = at_least, at_most
        self.plain = "" in columns

    def spec(self) -> dict[str, Any]:
        if self.plain:
            spec: dict[str, Any] = {"type": "list", "elements": self.columns[""].spec()["type"]}
        else:
            options = {name: field.spec() for name, field in self.columns.items()}
            spec = {"type": "list", "elements": "dict", "options": options}
        if self.required:
            spec["required"] = True
        return spec

    def clean(self, thing: str, option: str, value: list) -> list:
        if len(value) < self.at_least:
            raise bad_value(thing, option, value, "at least one")
        if self.at_most is not None and len(value) > self.at_most:
            raise bad_value(thing, option, value, f"at most {self.at_most}: libvirt uses no more here")
        if self.plain:
            return [self.columns[""].clean(thing, option, one) for one in value]
        return [  # in the order of the columns, as they are read: entries are compared and shown with it
            {
                name: column.clean(thing, f"{option}.{name}", one[name])
                for name, column in self.columns.items()
                if one.get(name) is not None
            }
            for one in value
        ]

    def read(self, tree) -> list | None:
        found = []
        for element in xmltree.find_all(tree, self.path):
            one = {name: field.read(element) for name, field in self.columns.items()}
            found.append(one[""] if self.plain else {name: value for name, value in one.items() if value is not None})
        return found or None

    def write(self, tree, value: list) -> None:
        folder, tag = xmltree.parted(self.path)
        xmltree.remove(tree, self.path)
        parent = xmltree.make(tree, folder)
        for one in value:
            element = xmltree.append(parent, tag)
            for name, given in ({"": one} if self.plain else one).items():
                self.columns[name].write(element, given)

    def show(self, value: list) -> str:
        return ", ".join(
            self.columns[""].show(one) if self.plain else ":".join(str(part) for part in one.values()) for one in value
        )


class Pairs:
    """Names and values as elements with two attributes: rbd's configuration options."""

    required = False

    def __init__(self, path: str, key: str = "name", value: str = "value") -> None:
        self.path, self.key, self.value = path, key, value

    def spec(self) -> dict[str, Any]:
        return {"type": "dict"}

    def clean(self, thing: str, option: str, value: dict[str, Any]) -> dict[str, str]:
        return {
            clean_str(thing, f"the name of {option}", name): clean_str(thing, f"{option}.{name}", given)
            for name, given in value.items()
        }

    def read(self, tree) -> dict[str, str] | None:
        elements = xmltree.find_all(tree, self.path)
        return {element.get(self.key): element.get(self.value, "") for element in elements} or None

    def write(self, tree, value: dict[str, str]) -> None:
        folder, tag = xmltree.parted(self.path)
        xmltree.remove(tree, self.path)
        if not value:
            return
        parent = xmltree.make(tree, folder)
        for name, given in value.items():
            element = xmltree.append(parent, tag)
            element.set(self.key, name)
            element.set(self.value, given)

    def same(self, have: dict[str, str] | None, want: dict[str, str]) -> bool:
        return (have or {}) == want

    def show(self, value: dict[str, str]) -> str:
        return ", ".join(f"{name}={given}" for name, given in value.items())


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that were not given, at any depth."""
    return {
        name: given(value) if isinstance(value, dict) else value for name, value in options.items() if value is not None
    }


def clean(thing: str, fields: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The fields among the options, in the form that is compared and written."""
    cleaned = {}
    for name, field in fields.items():
        value = options.get(name)
        if value is not None:
            cleaned[name] = field.clean(thing, name, value)
    return cleaned


def read(fields: dict[str, Any], tree) -> dict[str, Any]:
    """Every field that the XML holds."""
    found = {name: field.read(tree) for name, field in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def write(fields: dict[str, Any], tree, values: dict[str, Any]) -> None:
    """Put values at their places; everything else in the tree stays as it is."""
    for name, value in values.items():
        fields[name].write(tree, value)


def differing(fields: dict[str, Any], have: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """The names of the wanted options that the present ones do not meet."""
    return [name for name, value in want.items() if not met(fields[name], have.get(name), value)]


def met(field: Any, have: Any, want: Any) -> bool:
    if have is None:  # an element that is not there is a false "present", an empty dictionary or an empty list
        return want is False or want in ({}, [])
    return field.same(have, want)


def spec(fields: dict[str, Any]) -> dict[str, Any]:
    """The argument_spec of the fields."""
    return {name: field.spec() for name, field in fields.items()}
