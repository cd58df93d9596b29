# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that libvirt keeps: CHAP and cephx keys, LUKS passphrases, TLS and vTPM keys.

Values go to libvirt through its API and nowhere else: not into XML, arguments, files or results.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import contextlib
import os
import stat
import uuid
from typing import Any

from . import connection as connections
from . import fields, reconcile, xmltree
from .errors import StorageError
from .fields import At
from .names import MODULE_OWNER, own_uuid
from .plan import Plan, Thing

# usage: (virSecretUsageType, the element that holds the name), from libvirt's secret XML page
USAGES = {
    "volume": (1, "usage/volume"),
    "ceph": (2, "usage/name"),
    "iscsi": (3, "usage/target"),
    "tls": (4, "usage/name"),
    "vtpm": (5, "usage/name"),
}
LARGEST_VALUE = 64 * 1024
CEPH_KEY_BYTES = 28  # type, time, length and 16 bytes of key, see Ceph's CryptoKey
VALUE_OPTIONS = ("value", "value_base64", "keyring_file")
PROOF_SECONDS = 30  # that a login with a new value may take

FIELDS = {
    "description": At("description"),
    "ephemeral": At("@ephemeral", "yes_no"),
    "private": At("@private", "yes_no"),
}


def argument_spec() -> dict[str, Any]:
    """The options of one secret; core hides the values that no_log marks."""
    return {
        "usage": {"type": "str", "required": True, "choices": sorted(USAGES)},
        "usage_name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "uuid": {"type": "str"},
        "value": {"type": "str", "no_log": True},
        "value_base64": {"type": "str", "no_log": True},
        "keyring_file": {"type": "path", "no_log": False},
        "keyring_entity": {"type": "str", "no_log": False},
        "set_value": {"type": "str", "choices": ["if_changed", "always", "never"], "default": "if_changed"},
        "prove": {"type": "bool", "default": False},
        **fields.spec(FIELDS),
    }


RULES: dict[str, Any] = {
    "mutually_exclusive": [list(VALUE_OPTIONS)],
    "required_by": {"keyring_entity": ["keyring_file"]},
}


def wanted(options: dict[str, Any], owner: str = MODULE_OWNER) -> dict[str, Any]:
    """What is wanted of a secret; the value is decoded only when it is needed."""
    label = f"secret {options['usage_name']!r}"
    want = {key: options.get(key) for key in argument_spec() if key not in FIELDS}
    want["owner"] = owner
    want["usage_name"] = fields.clean_str(label, "usage_name", options["usage_name"])
    if want["uuid"] is not None:
        want["uuid"] = clean_uuid(label, want["uuid"])
    want["options"] = fields.clean(label, FIELDS, fields.given(options))
    value_of(label, want)  # a value that can't be meant is refused before anything changes
    return want


def clean_uuid(thing: str, value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"uuid can't be {value!r}",
            way_out="give a UUID such as 7a4c6b52-2f6b-4c2e-9d5e-0f4f6f3b9a11, or leave it out",
        ) from None


def bad_secret_value(thing: str, reason: str, way_out: str) -> StorageError:
    """An error about a value that never repeats the value."""
    return StorageError(thing=thing, code="bad_secret_value", reason=reason, way_out=way_out)


def decoded(thing: str, option: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise bad_secret_value(thing, f"{option} is not base64", "encode it, or give plain text as value") from None


def ceph_key(thing: str, option: str, text: str) -> bytes:
    """The bytes of a cephx key, which Ceph itself always writes in base64."""
    raw = decoded(thing, option, text)
    if len(raw) != CEPH_KEY_BYTES:
        raise bad_secret_value(
            thing, f"{option} is not a cephx key", "give it as 'ceph auth get-key client.NAME' prints it"
        )
    return raw


def value_of(thing: str, want: dict[str, Any]) -> bytes | None:
    """The bytes that libvirt shall hold, or None where no value is given."""
    if want["value_base64"] is not None:
        make = ceph_key if want["usage"] == "ceph" else decoded
        raw = make(thing, "value_base64", want["value_base64"])
    elif want["value"] is not None:
        raw = ceph_key(thing, "value", want["value"]) if want["usage"] == "ceph" else want["value"].encode()
    else:
        return None
    if not raw or len(raw) > LARGEST_VALUE:
        raise bad_secret_value(thing, f"its value has {len(raw)} bytes", f"give 1 to {LARGEST_VALUE} bytes")
    return raw


def keyring_value(thing: str, path: str, entity: str | None) -> bytes:
    """The key of an entity in a Ceph keyring file of this host."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a regular file")
            parser.read_string("\n".join(line.strip() for line in file))
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else "it can't be read as text"
        raise StorageError(
            thing=thing, code="bad_keyring", reason=f"keyring_file {path}: {words}", way_out="check the path"
        ) from None
    except configparser.Error:  # its message quotes lines of the file
        raise StorageError(
            thing=thing,
            code="bad_keyring",
            reason=f"keyring_file {path} is not a Ceph keyring",
            way_out="give the file that 'ceph auth get client.NAME -o FILE' writes",
        ) from None
    entities = [section for section in parser.sections() if parser.has_option(section, "key")]
    if entity is None and len(entities) != 1:
        raise StorageError(
            thing=thing,
            code="bad_keyring",
            reason=f"keyring_file {path} has {len(entities)} keys",
            way_out="name one with keyring_entity, such as client.libvirt",
        )
    entity = entity or entities[0]
    if entity not in entities:
        raise StorageError(
            thing=thing,
            code="bad_keyring",
            reason=f"keyring_file {path} has no key for {entity}",
            way_out=f"it has {', '.join(sorted(entities)) or 'none at all'}",
        )
    return ceph_key(thing, "keyring_file", parser.get(entity, "key"))


def plan(before: dict[str, Any], want: dict[str, Any]) -> Plan:
    """The steps from what was read to what is wanted; pure.

    before has exists, options, uuid, users (the active pools that log in with it), and value_differs: True, False, or
    None where libvirt keeps it to itself.
    """
    if want["state"] == "absent":
        return Plan(["undefine"], shown(before, want), None) if before["exists"] else Plan()
    differing = fields.differing(FIELDS, before["options"], want["options"])
    steps = ["define"] if set(differing) - {"private"} or not before["exists"] else []
    if want_value(before, want):
        steps.append("set_value")
        if want["prove"] and before["exists"] and before["users"]:
            steps.append("prove")
    if "private" in differing:
        steps.append("make_private")  # last: of a private secret nobody can tell whether it has its value
    present = shown(before, want) if before["exists"] else None
    after = {**(present or shown(before, want)), **want["options"]}
    if "set_value" in steps:
        after["value"] = "(new value)" if present and present["value"] != "(none)" else "(set)"
    return Plan(steps, present, after, risk="in place" if present else "")


def want_value(before: dict[str, Any], want: dict[str, Any]) -> bool:
    if not any(want[option] is not None for option in VALUE_OPTIONS):
        return False
    if want["set_value"] == "never":
        return not before["exists"]
    return want["set_value"] == "always" or before["value_differs"] is True


def shown(before: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """A secret in the words of its options; of its value only whether there is one."""
    value = "(none)" if not before["exists"] or before["value_missing"] else "(set)"
    return {"usage": want["usage"], "uuid": before["uuid"], "value": value, **before["options"]}


class Secret(Thing):
    """One secret on one connection, known by its usage and name."""

    kind = "secret"

    def __init__(self, connection: Any, want: dict[str, Any]) -> None:
        super().__init__()
        self.connection, self.want, self.name = connection, want, want["usage_name"]
        self.before: dict[str, Any] = {}
        self.old: bytes | None = None  # the value that libvirt had
        self.users: list[Any] = []  # the pools that log in with it
        self.planned = Plan()

    def facts(self) -> dict[str, Any]:
        return {"usage": self.want["usage"], "uuid": self.before.get("uuid")}

    @property
    def handle(self) -> Any:
        return self.connection.secret_by_usage(USAGES[self.want["usage"]][0], self.name)

    def value(self) -> bytes | None:
        if self.want["keyring_file"] is None:
            return value_of(self.label, self.want)
        if not self.connection.local:
            raise StorageError(
                thing=self.label,
                code="remote_connection",
                reason="keyring_file is a file of the host itself, and this connection leads to another",
                way_out="run the task on that host, or give the value",
            )
        return keyring_value(self.label, self.want["keyring_file"], self.want["keyring_entity"])

    def read(self) -> dict[str, Any]:
        handle = self.handle
        wanted_uuid = self.want["uuid"] or own_uuid("secret", f"{self.want['usage']}/{self.name}", self.want["owner"])
        before: dict[str, Any] = {
            "exists": handle is not None,
            "uuid": handle.UUIDString() if handle else wanted_uuid,
            "options": {},
            "value_missing": True,
            "value_differs": True,
            "users": [],
        }
        self.before = before
        if handle is None:
            self.refuse_taken_uuid(wanted_uuid)
        elif self.want["uuid"] and before["uuid"] != self.want["uuid"]:
            raise StorageError(
                thing=self.label,
                code="cannot_change",
                reason=f"it exists with uuid {before['uuid']}",
                way_out="leave uuid out, or remove the secret first",
            )
        else:
            before["tree"] = xmltree.parse(handle.XMLDesc(0))
            before["options"] = fields.read(FIELDS, before["tree"])
            before["value_missing"], before["value_differs"] = self.compare(handle)
            self.users = self.pools_that_log_in() if self.want["prove"] else []
            before["users"] = [pool.name for pool in self.users]
        return before

    def pools_that_log_in(self) -> list[Any]:
        """The active pools whose login is this secret, as things that can be restarted."""
        from .backends import registry  # of no use to who proves nothing
        from .pool import Pool, wanted_as_it_is

        found = []
        for name, handle in self.connection.pools().items():
            text = handle.XMLDesc(0) if handle.isActive() else ""
            if not text or not self.named_in(text, self.before["uuid"]):
                continue
            backend = registry.backend(xmltree.parse(text).get("type"))
            if backend is not None and backend.relogin:
                pool = Pool(self.connection, backend, wanted_as_it_is(backend, name, PROOF_SECONDS))
                pool.read()
                found.append(pool)
        return found

    def refuse_taken_uuid(self, wanted_uuid: str) -> None:
        other = self.connection.secret_by_uuid(wanted_uuid)
        if other is not None and self.want["state"] == "present":
            raise StorageError(
                thing=self.label,
                code="uuid_conflict",
                reason=f"the uuid {wanted_uuid} belongs to the secret {other.usageID()!r}",
                way_out="leave uuid out, or choose another",
            )

    def compare(self, handle: Any) -> tuple[bool, bool | None]:
        """Whether libvirt has no value, and whether it differs; a private one can't be compared."""
        wanted_value = self.value() if self.want["state"] == "present" else None
        try:
            self.old = handle.value(0)
            return False, wanted_value is not None and self.old != wanted_value
        except connections.libvirt.libvirtError as error:
            if connections.number(error) == connections.libvirt.VIR_ERR_NO_SECRET:
                return True, True
            return False, None

    def plan(self, before: dict[str, Any]) -> Plan:
        self.planned = plan(before, self.want)
        return self.planned

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if "set_value" in plan.steps:
            self.value()
        if "prove" in plan.steps:
            self.check_provable()
        if "make_private" in plan.steps:
            self.check_private()
        if "undefine" in plan.steps:
            self.check_unneeded(before["uuid"])

    def check_provable(self) -> None:
        """The old value can come back, and nobody uses a disk of a pool that has to log in anew."""
        if self.old is None:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="it is private, so that its old value could not be brought back if the new one is wrong",
                way_out="set it without prove, and see that its pools start",
            )
        for pool in self.users:
            if pool.backend.relogin == "restart":
                pool.check_unused(running_only=True)

    def check_private(self) -> None:
        if self.want["options"]["private"] is False:
            raise StorageError(
                thing=self.label,
                code="cannot_change",
                reason="a private secret stays private",
                way_out="remove it with state: absent and make it anew",
            )

    def check_unneeded(self, own: str) -> None:
        """A secret is kept while a pool logs in with it or a volume is opened with it."""
        users = [
            f"pool {name!r}" for name, pool in self.connection.pools().items() if self.named_in(pool.XMLDesc(0), own)
        ]
        users += [f"domain {one.name()!r}" for one in self.connection.domains() if self.named_in(one.XMLDesc(0), own)]
        if self.want["usage"] == "volume":
            users += [
                f"volume {pool}/{name}"
                for pool in self.connection.pools()
                for name, volume in self.connection.volumes(pool).items()
                if self.named_in(volume.XMLDesc(0), own)
            ]
        users = [one for one in users if one not in self.want.get("leaving", ())]
        unknown = self.encrypted_by_unknown() if self.want["usage"] == "volume" and not users else []
        if unknown:
            raise StorageError(
                thing=self.label,
                code="guard_unavailable",
                reason=f"libvirt no longer knows which secret opens {', '.join(unknown[:5])}",
                way_out="remove those volumes first, or take the secret away with 'virsh secret-undefine'",
            )
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is needed by {', '.join(users)}",
                way_out="remove those first",
            )

    def encrypted_by_unknown(self) -> list[str]:
        """LUKS volumes without their secret: a refresh of the pool makes libvirt forget which it was."""
        return [
            f"{pool}/{name}"
            for pool in self.connection.pools()
            for name, volume in self.connection.volumes(pool).items()
            for tree in [xmltree.parse(volume.XMLDesc(0))]
            if tree.find("target/encryption") is not None and tree.find("target/encryption/secret") is None
        ]

    def named_in(self, text: str, own: str) -> bool:
        """Whether some XML names this secret."""
        tree = xmltree.parse(text)
        return any(one.get("uuid") == own or one.get("usage") == self.name for one in tree.iter("secret"))

    # steps

    def define(self) -> None:
        self.define_with({name: value for name, value in self.want["options"].items() if name != "private"})

    def make_private(self) -> None:
        self.define_with(self.want["options"])

    def define_with(self, options: dict[str, Any]) -> None:
        tree = self.before.get("tree")
        if tree is None:
            tree = xmltree.new("secret", ephemeral="no", private="no")
            xmltree.put(tree, "uuid", self.before["uuid"])
            xmltree.put(tree, "usage/@type", self.want["usage"])
            xmltree.put(tree, USAGES[self.want["usage"]][1], self.name)
        fields.write(FIELDS, tree, options)
        self.connection.raw.secretDefineXML(xmltree.text(tree), 0)
        self.connection.forget()

    def set_value(self) -> None:
        self.handle.setValue(self.value(), 0)

    def prove(self) -> None:
        """Each pool that runs logs in with the new value."""
        for pool in self.users:
            try:
                pool.log_in_again()
            except (StorageError, TimeoutError, connections.libvirt.libvirtError) as error:
                reason = error.reason if isinstance(error, StorageError) else connections.words(error)
                raise StorageError(
                    thing=self.label,
                    code="not_proven",
                    reason=f"pool {pool.name!r} can't log in with the new value: {reason}",
                    way_out="the old value is back; compare the new one with what the server has",
                ) from None

    def take_back(self, done: list[str]) -> list[str]:
        """A new value that was not proven makes room for the old one, and pools that it kept down come up again."""
        if self.old is None or "prove" not in self.planned.steps or "set_value" not in done:
            return done
        self.handle.setValue(self.old, 0)
        for pool in self.users:
            with contextlib.suppress(StorageError, TimeoutError, connections.libvirt.libvirtError):
                pool.log_in_again()
        return [step for step in done if step != "set_value"]

    def undefine(self) -> None:
        self.handle.undefine()
        self.connection.forget()


def hidden(params: dict[str, Any]) -> list[str]:
    """The values that must not show, for reconcile to hide in their encoded forms too."""
    values = [params[option] for option in ("value", "value_base64") if params.get(option)]
    if params.get("value_base64"):
        with contextlib.suppress(ValueError):  # what is no base64, and bytes that are no text
            values.append(base64.b64decode(params["value_base64"], validate=True).decode())
    return values


def run() -> None:
    """The main function of the secret module."""
    reconcile.run(
        argument_spec(), lambda connection, params: [Secret(connection, wanted(params))], hidden=hidden, **RULES
    )
