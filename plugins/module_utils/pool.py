# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools: what is wanted of one, the plan that leads there, and its steps."""

from __future__ import annotations

import contextlib
import copy
import os
from typing import TYPE_CHECKING, Any, Callable

from . import connection as connections
from . import fields, guards, permissions, reconcile, xmltree
from .backend import Backend, Refused
from .errors import StepFailed, StorageError
from .names import MODULE_OWNER, own_uuid
from .plan import Plan, Thing

if TYPE_CHECKING:
    from .contents import Contents

INACTIVE_XML = 1  # VIR_STORAGE_XML_INACTIVE
TAKE_BACK_SECONDS = 3.0
STANDS_ON = ("no_source", "not_mounted")  # the refusals that an earlier task can be expected to see to
VALIDATE = 1  # VIR_STORAGE_POOL_DEFINE_VALIDATE
BUILD_DEFAULT, BUILD_NO_OVERWRITE, BUILD_OVERWRITE = 0, 4, 8  # virStoragePoolBuildFlags
# The flags of virStoragePoolCreate that start a pool and build it likewise.
CREATE_WITH = {BUILD_DEFAULT: 1, BUILD_OVERWRITE: 1 | 2, BUILD_NO_OVERWRITE: 1 | 4}


def argument_spec(backend: Backend) -> dict[str, Any]:
    """The options of one pool of a backend, without those of the connection."""
    spec = {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["active", "inactive", "absent"], "default": "active"},
        "autostart": {"type": "bool"},
        "persistent": {"type": "bool", "default": True},
        "restart": {"type": "bool", "default": False},
        "delete_data": {"type": "bool", "default": False},
        "wait_timeout": {"type": "int", "default": 20},
        "build": {"type": "str", "choices": sorted(backend.build_choices), "default": backend.build_choices[0]},
    }
    if backend.makes_directory:
        spec["require_mountpoint"] = {"type": "bool", "default": False}
    for name, option in fields.spec(backend.fields).items():
        option.pop("required", None)  # needed to make a pool, not to change or remove one
        spec[name] = option
    return spec


def wanted(backend: Backend, options: dict[str, Any], owner: str = MODULE_OWNER) -> dict[str, Any]:
    """What is wanted of a pool, from options that its argument_spec has accepted."""
    name = str(options["name"])
    label = f"pool {name!r}"
    guards.possible_name(label, name)
    want: dict[str, Any] = {key: options.get(key) for key in argument_spec(backend) if key not in backend.fields}
    want["owner"] = owner
    want["options"] = fields.clean(label, backend.fields, fields.given(options))
    if want["wait_timeout"] < 1:
        raise StorageError(
            thing=label,
            code="bad_value",
            reason="wait_timeout must be at least 1 second",
            way_out="give more, or leave it out",
        )
    if not want["persistent"] and want["state"] == "inactive":
        raise StorageError(
            thing=label,
            code="bad_value",
            reason="a transient pool can't be inactive",
            way_out="use state: absent, or persistent: true",
        )
    if not want["persistent"] and want["autostart"]:
        raise StorageError(
            thing=label,
            code="bad_value",
            reason="a transient pool can't be autostarted",
            way_out="use persistent: true",
        )
    if want["delete_data"] and want["state"] != "absent":
        raise StorageError(
            thing=label, code="bad_value", reason="delete_data goes with state: absent", way_out="leave it out"
        )
    if want["delete_data"] and isinstance(backend.delete_data, Refused):
        raise StorageError(
            thing=label, code="unsupported", reason=backend.delete_data.reason, way_out=backend.delete_data.instead
        )
    return want


def wanted_as_it_is(backend: Backend, name: str, wait_timeout: int) -> dict[str, Any]:
    """What is wanted of a pool of which nothing shall change."""
    defaults = {option: spec.get("default") for option, spec in argument_spec(backend).items()}
    return wanted(backend, {**defaults, "name": name, "wait_timeout": wait_timeout})


def plan(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> Plan:
    """The steps from what was read to what is wanted; pure.

    before has exists, active, persistent, autostart, options (the persistent layer), live (the running
    one) and observed: directory (True, False or None where it can't be seen) and blank likewise.
    """
    if want["state"] == "absent":
        return plan_absent(before, want, backend)
    return (plan_change if before["exists"] else plan_new)(before, want, backend)


def plan_absent(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> Plan:
    if not before["exists"]:
        return Plan()
    steps = []
    # a run that was interrupted may have removed the directory already
    emptied = backend.makes_directory and before["observed"]["directory"] is False and not before["active"]
    if want["delete_data"] and backend.delete_data == "volumes" and (backend.mounts or not emptied):
        steps += ["make_directory"] if emptied else []
        steps += [] if before["active"] else ["start"]
        steps += ["delete_volumes", "stop"]
    elif before["active"]:
        steps.append("stop")
    emptied = emptied and not backend.mounts
    if want["delete_data"] and (backend.delete_data == "pool" or backend.makes_directory) and not emptied:
        # a transient pool is gone once it is stopped, and its directory can't be removed through it
        steps += ["delete_storage"] if before["persistent"] else []
    steps += ["undefine"] if before["persistent"] else []
    return Plan(steps, shown(before), None, risk="DESTROYS DATA, as delete_data asks" if want["delete_data"] else "")


def plan_new(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> Plan:
    active = want["state"] == "active"
    if not want["persistent"]:
        steps = ["create"]
    elif want["build"] == "overwrite":
        # built before it is defined: a run that is killed in between leaves no pool that looks built
        steps = ["create", "define"] + ([] if active else ["stop"])
    else:
        steps = ["define"] + build_steps(before, want, backend) + (["start"] if active else [])
    if want["persistent"] and want["autostart"]:
        steps.append("set_autostart")
    built = "build" in steps or ("create" in steps and want["build"] != "never")
    if permissions_hidden(want, backend, steps) or (permissions_left(before, want) and not built):
        steps.append("set_permissions")
    after = {
        "state": want["state"],
        "persistent": want["persistent"],
        "autostart": bool(want["autostart"]),
        **want["options"],
    }
    risk = "DESTROYS DATA on its devices, as build: overwrite asks" if want["build"] == "overwrite" else ""
    return Plan(steps, None, after, risk=risk)


def plan_change(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> Plan:
    if not want["persistent"] and before["persistent"]:
        raise StorageError(
            thing=f"pool {want['name']!r}",
            code="cannot_change",
            reason="it is persistent and can't become transient while it exists",
            way_out="remove it with state: absent first",
        )
    compared = dict(want["options"])
    if before["observed"]["permissions"]:
        compared.pop("permissions", None)  # the file system has them, see permissions_left
    differing = fields.differing(backend.fields, before["options"], compared)
    # libvirt leaves the label out of the running form, and permissions are no matter of a restart
    asked = {name: value for name, value in compared.items() if name != "permissions"}
    live = fields.differing(backend.fields, before["live"], asked) if before["active"] else []
    active = want["state"] == "active"
    steps = []
    if want["persistent"] and (differing or not before["persistent"]):
        steps.append("define")
    if active and not before["active"]:
        steps += [*build_steps(before, want, backend), "start"]
    if not active and before["active"]:
        steps.append("stop")
    restart_needed = bool(active and before["active"] and ({*differing, *live} - {"permissions"}))
    # an active pool whose share or file system somebody has unmounted serves nothing
    lost = active and before["active"] and before["observed"].get("lost", False)
    restarts = lost or (restart_needed and want["restart"])
    if restarts:
        steps += restart_steps(before, want, backend)
        restart_needed = False
    if permissions_hidden(want, backend, steps) or permissions_left(before, want):
        steps.append("set_permissions")
    if want["autostart"] is not None and want["autostart"] != before["autostart"]:
        steps.append("set_autostart")
    present = {**shown(before), **({"state": "active, but not mounted"} if lost else {})}
    after = dict(present, state=want["state"], persistent=want["persistent"], **want["options"])
    if "permissions" in want["options"]:
        after["permissions"] = {**(present.get("permissions") or {}), **want["options"]["permissions"]}
    if want["autostart"] is not None:
        after["autostart"] = want["autostart"]
    risk = "needs a pool restart" if restart_needed else "in place"
    if restarts:
        risk = "restarts the pool"
    return Plan(steps, present, after, restart_needed=restart_needed, risk=risk)


def build_steps(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> list[str]:
    """Whether building is part of getting a pool up, and as what.

    What can't be seen (None) is tried on a new pool, where libvirt refuses to overwrite, and left
    alone on one that exists.
    """
    observed, first = before["observed"], not before["exists"]
    directory_missing = backend.makes_directory and not observed["directory"]
    if backend.blank is None:
        return ["build"] if directory_missing and want["build"] == "if_blank" else []
    if want["build"] == "if_blank" and (observed["blank"] or (first and observed["blank"] is None)):
        return ["build"]
    return ["make_directory"] if directory_missing else []


def restart_steps(before: dict[str, Any], want: dict[str, Any], backend: Backend) -> list[str]:
    """How a pool that runs takes up its change; a new directory can be made only while it stands still."""
    if not want["persistent"]:
        return ["recreate"]
    building = build_steps(before, want, backend)
    return ["stop", *building, "start"] if building else ["restart"]


def permissions_hidden(want: dict[str, Any], backend: Backend, steps: list[str]) -> bool:
    """A file system that is about to be mounted brings a directory with permissions of its own."""
    return backend.mounts and "permissions" in want["options"] and bool({"start", "create"} & set(steps))


def permissions_left(before: dict[str, Any], want: dict[str, Any]) -> bool:
    """Whether the directory that is there has another mode, owner or label than is wanted."""
    there, want_these = before["observed"]["permissions"], want["options"].get("permissions")
    return bool(there and want_these and any(there.get(name) != value for name, value in want_these.items()))


def shown(before: dict[str, Any]) -> dict[str, Any]:
    """A pool as it is, in the words of its options."""
    return {
        "state": "active" if before["active"] else "inactive",
        "persistent": before["persistent"],
        "autostart": before["autostart"],
        **before["options"],
    }


def xml_layer(handle: Any, persistent: bool) -> Any:
    """The tree of one layer; the test driver has only one and refuses the flag."""
    if persistent:
        with contextlib.suppress(connections.libvirt.libvirtError):
            return xmltree.parse(handle.XMLDesc(INACTIVE_XML))
    return xmltree.parse(handle.XMLDesc(0))


def read_pool(connection: Any, name: str, field_table: dict[str, Any]) -> dict[str, Any]:
    """What libvirt says of a pool, in both layers; exists is False for one that is not there."""
    handle = connection.pool(name)
    if handle is None:
        return {"exists": False, "active": False, "persistent": False, "autostart": False, "options": {}, "live": {}}
    active, persistent = bool(handle.isActive()), bool(handle.isPersistent())
    live = xml_layer(handle, False) if active else None
    tree = xml_layer(handle, True) if persistent or live is None else live
    return {
        "exists": True,
        "type": tree.get("type"),
        "uuid": handle.UUIDString(),
        "active": active,
        "persistent": persistent,
        "autostart": bool(handle.autostart()) if persistent else False,
        "options": fields.read(field_table, tree),
        "live": fields.read(field_table, live) if live is not None else {},
        "tree": tree,
    }


class Pool(Thing):
    """One pool on one connection."""

    kind = "pool"

    def __init__(self, connection: Any, backend: Backend, want: dict[str, Any]) -> None:
        super().__init__()
        self.connection, self.backend, self.want, self.name = connection, backend, want, str(want["name"])
        self.before: dict[str, Any] = {}
        self.planned = Plan()
        self.expected = False  # whether an earlier task would have made what it stands on
        if "permissions" in want["options"]:
            want["options"]["permissions"] = permissions.resolved(
                self.label, want["options"]["permissions"], connection.local
            )

    @property
    def handle(self) -> Any:
        """The pool in libvirt, which a step before this one has made."""
        return self.connection.pool(self.name)

    @property
    def path(self) -> str:
        """The target path, wanted or present."""
        return self.want["options"].get("path") or self.before.get("options", {}).get("path") or ""

    def show(self, option: str, value: Any) -> str:
        if option in self.backend.fields:
            return self.backend.fields[option].show(value)
        return str(value).lower()

    def way_out(self, words: str) -> str:
        return self.backend.way_out(words, {**self.before.get("options", {}), **self.want["options"]})

    def facts(self) -> dict[str, Any]:
        return {"type": self.backend.type}

    def read(self) -> dict[str, Any]:
        before = read_pool(self.connection, self.name, self.backend.fields)
        self.before = before
        if before["exists"] and before["type"] != self.backend.type:
            raise StorageError(
                thing=self.label,
                code="type_mismatch",
                reason=f"a pool of type {before['type']} has this name",
                way_out=f"manage it with pool_{before['type'].replace('-', '_')}, or choose another name",
            )
        if before["active"]:
            guards.require_server(self.label, self.connection, self.name)
        observed: dict[str, Any] = {"directory": None, "permissions": None, "blank": None, "lost": False}
        if before["active"]:
            observed["lost"] = bool(guards.lost_mount(self.connection, self.name))
        if self.connection.local and self.backend.makes_directory and self.path:
            observed["directory"] = os.path.isdir(self.path)
            if before["active"] or not self.backend.mounts:
                observed["permissions"] = permissions.read(self.path)
            if observed["permissions"] and "permissions" in before["options"]:
                before["options"]["permissions"] = observed["permissions"]
        if self.backend.blank and self.connection.local and self.want["build"] == "if_blank" and not before["active"]:
            observed["blank"] = self.backend.blank({**before["options"], **self.want["options"]})
        before["observed"] = observed
        return before

    def plan(self, before: dict[str, Any]) -> Plan:
        made = self.planned = plan(before, self.want, self.backend)
        if made.restart_needed:
            made.warnings.append(
                f"{self.label}: the change takes effect when the pool restarts; set restart: true to do it now"
            )
        return made

    # guards

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if self.want["state"] != "absent":
            self.check_wanted(before, plan)
        if {"stop", "restart", "recreate"} & set(plan.steps) and before["active"]:
            self.check_unused(running_only=True)
            self.check_detached(before)
            self.check_closed(self.contents(lenient=True))
        if {"delete_volumes", "delete_storage"} & set(plan.steps):
            self.check_given_up()

    def check_wanted(self, before: dict[str, Any], plan: Plan) -> None:
        options = {**before["options"], **self.want["options"]}
        if not before["exists"]:
            guards.new_name(self.label, self.name)
            self.check_complete(options)
            self.check_supported()
        creates = "create" in plan.steps and self.want["build"] != "never" and before["observed"]["blank"] is not False
        builds = creates or "build" in plan.steps
        error = self.backend.option_error(options, builds)
        if error:
            raise StorageError(thing=self.label, code="bad_value", reason=error)
        host_directory = self.backend.makes_directory and not self.backend.mounts and self.connection.local
        if host_directory and self.want["state"] == "active":
            mounted = self.want["require_mountpoint"]
            self.awaiting(plan, lambda: guards.require_mounted(self.label, options["path"], mounted))
        if {"define", "create", "recreate"} & set(plan.steps):
            if self.backend.makes_directory:
                guards.refuse_system_path(self.label, options["path"], self.connection.local)
            self.check_conflicts(options, plan)
        planned = self.want.get("secrets_planned", frozenset())
        guards.require_secret(self.label, self.connection, self.want["options"].get("auth"), planned)
        if {"start", "create", "restart", "recreate"} & set(plan.steps):
            self.check_servers(options)
            if not (builds and self.backend.blank):  # what is about to be formatted need not be there yet
                self.awaiting(plan, lambda: self.check_start(before, options, plan))
        if builds or ({"start", "create"} & set(plan.steps) and not before["active"]):
            self.awaiting(plan, lambda: self.check_devices(options, builds))

    def awaiting(self, plan: Plan, check: Callable[[], None]) -> None:
        """A guard of what the pool stands on, which says so where an earlier task would have made that."""
        try:
            check()
        except StorageError as error:
            if not self.expected or error.code not in STANDS_ON:
                raise
            plan.warnings.append(f"{self.label}: {error.reason}, so an earlier task is expected to see to that")

    def check_start(self, before: dict[str, Any], options: dict[str, Any], plan: Plan) -> None:
        warnings = self.preflight(options)
        plan.warnings += [] if before["active"] else warnings

    def check_complete(self, options: dict[str, Any]) -> None:
        missing = [name for name, field in self.backend.fields.items() if field.required and name not in options]
        if missing:
            raise StorageError(
                thing=self.label,
                code="missing_option",
                reason=f"it is not there yet, and to make it {', '.join(missing)} must be known",
                way_out=f"give {', '.join(missing)}",
            )

    def check_supported(self) -> None:
        """A libvirt without the backend says so only when the pool is to be defined."""
        try:
            capabilities = xmltree.parse(self.connection.raw.getStoragePoolCapabilities())
        except (AttributeError, connections.libvirt.libvirtError):  # older ones and the test driver can't be asked
            return
        kinds = {kind.get("type"): kind.get("supported") for kind in capabilities.findall("pool")}
        if kinds.get(self.backend.type) == "no":
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"libvirt at {self.connection.uri} has no support for pools of type {self.backend.type}",
                way_out=f"install libvirt-daemon-driver-storage-{self.backend.type}, where the distribution has it",
            )

    def check_conflicts(self, options: dict[str, Any], plan: Plan) -> None:
        for name, other in self.connection.pools().items():
            if name == self.name:
                continue
            tree = xml_layer(other, bool(other.isPersistent()))
            path = xmltree.get(tree, "target/path") or ""
            theirs = fields.read(self.backend.fields, tree) if tree.get("type") == self.backend.type else None
            self.check_conflict(name, path, theirs, options, plan)
            self.check_same_devices(name, tree, options)

    def check_conflict(
        self, name: str, path: str, theirs: dict[str, Any] | None, options: dict[str, Any], plan: Plan
    ) -> None:
        """Refuse one storage under two pools; theirs are the other's options where its type is the same."""
        if theirs is not None and guards.same_storage(self.backend, theirs, options):
            raise StorageError(
                thing=self.label,
                code="source_conflict",
                reason=f"pool {name!r} stands on the same storage",
                way_out="use that pool, or remove it first",
            )
        if not self.backend.makes_directory or not path.startswith("/") or path.startswith("/dev"):
            return
        there, own = (guards.resolved(self.connection, one) for one in (path, options["path"]))
        if fields.same_path(there, own):
            raise StorageError(
                thing=self.label,
                code="path_conflict",
                reason=f"pool {name!r} has the path {path} too",
                way_out="give each pool a directory of its own",
            )
        if guards.nested(there, own):
            plan.warnings.append(
                f"{self.label}: its path {options['path']} and that of pool {name!r}, {path}, are nested"
            )

    def check_same_devices(self, name: str, tree: Any, options: dict[str, Any]) -> None:
        """libvirt compares devices of pools of all types, but only by their names."""
        theirs = [source.get("path") for source in tree.findall("source/device") if source.get("path")]
        for device in self.backend.devices(options, True):
            if any(fields.same_device(device, other) for other in theirs):
                raise StorageError(
                    thing=self.label,
                    code="source_conflict",
                    reason=f"pool {name!r} stands on {device} too",
                    way_out="use that pool, or remove it first",
                )

    def check_servers(self, options: dict[str, Any]) -> None:
        """A server that does not answer TCP keeps libvirt busy for up to two minutes and then blames something else."""
        servers = self.backend.servers(options)
        if not servers or not self.connection.local:
            return
        patience = min(connections.PROBE_SECONDS, self.want["wait_timeout"])
        if not any(connections.answers(host, port, patience) for host, port in servers):
            where = ", ".join(f"{host}:{port}" for host, port in servers)
            raise StorageError(
                thing=self.label,
                code="unreachable",
                reason=f"nothing answers at {where}",
                way_out="check the address, the port and that the server runs",
            )

    @property
    def on_this_host(self) -> bool:
        """Whether the pool's devices and servers are those of this host; libvirt's test driver makes them up."""
        return self.connection.local and self.connection.raw.getType() != "TEST"

    def preflight(self, options: dict[str, Any]) -> list[str]:
        """What the backend itself can tell of a start before it is tried."""
        if not self.on_this_host:
            return []
        patience = min(connections.PROBE_SECONDS, self.want["wait_timeout"])
        return [f"{self.label}: {words}" for words in self.backend.preflight(self.label, options, patience)]

    def check_detached(self, before: dict[str, Any]) -> None:
        """Stopping some pools takes devices away from the host, also from users that libvirt knows nothing of."""
        devices = self.backend.detaches({**before["options"], **before["live"]}) if self.on_this_host else []
        found = guards.device_users(self.label, devices)
        if not found:
            return
        named = {os.path.realpath(one.path()): name for name, one in self.connection.volumes(self.name).items()}
        device, users = next(iter(found.items()))
        what = f"its volume {named[device]!r} ({device})" if device in named else f"its device {device}"
        raise StorageError(
            thing=self.label,
            code="in_use",
            reason=f"{what} is used on this host: {', '.join(users)}",
            way_out="end that use first: stopping the pool takes the device away from the host",
        )

    def check_devices(self, options: dict[str, Any], builds: bool) -> None:
        """What a pool stands on is there, and nobody else's: mkfs and a mount both ruin the disk of a guest."""
        devices = self.backend.devices(options, builds) if self.on_this_host else []
        missing = [device for device in devices if not os.path.exists(device)]
        if missing:
            raise StorageError(
                thing=self.label,
                code="no_source",
                reason=f"there is no {missing[0]} on this host",
                way_out="see 'lsblk' and /dev/disk/by-id",
            )
        if builds or self.backend.mounts:
            self.check_devices_unused(devices, by_host=builds)

    def check_devices_unused(self, devices: list[str], by_host: bool = True) -> None:
        """Neither a domain nor, by_host, anything of this host has devices in use."""
        from . import chain

        real = {os.path.realpath(device): device for device in devices}
        users = [use for use in (chain.uses(self.connection) if real else []) if use.path in real]
        found = {real[users[0].path]: [chain.names(users)]} if users else {}
        if not found and by_host:
            found = guards.device_users(self.label, devices)
        for device, names in found.items():
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"{device} is used: {', '.join(names)}",
                way_out="end that use first, or give another device",
            )

    def check_storage(self) -> None:
        """delete_data takes the whole storage, of an inactive pool too, whose volumes libvirt does not know."""
        if self.backend.delete_data != "pool" or self.connection.uri.startswith("test:"):
            return
        if not self.connection.local:
            raise StorageError(
                thing=self.label,
                code="guard_unavailable",
                reason="it can't be told from here what else its storage holds and who uses it",
                way_out="run the task there, with a local uri",
            )
        devices, others = self.backend.destroys(self.label, self.before["options"])
        if others:
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise StorageError(
                thing=self.label,
                code="not_volumes",
                reason=f"what is none of its volumes would be destroyed too: {', '.join(others[:5])}{more}",
                way_out="remove that first, or leave delete_data out",
            )
        self.check_devices_unused(devices)

    def check_only_volumes(self) -> None:
        """delete_data gives up volumes; a folder, a link or a device among them is something else."""
        if not self.backend.makes_directory or not self.connection.local or not os.path.isdir(self.path):
            return
        if self.backend.mounts and not self.before["active"]:
            return
        with os.scandir(self.path) as entries:
            foreign = sorted(one.name for one in entries if not one.is_file(follow_symlinks=False))
        foreign = [name for name in foreign if name != "lost+found"]
        if foreign:
            raise StorageError(
                thing=self.label,
                code="not_volumes",
                reason=f"{self.path} holds what is no volume: {', '.join(repr(name) for name in foreign[:5])}",
                way_out="move it away, or leave delete_data out",
            )

    def contents(self, lenient: bool) -> Contents | None:
        """All that stands in the storage; None where that is not there, or can't be seen by who is lenient."""
        options = {**self.want["options"], **self.before["options"]}
        try:
            return guards.contents(self.connection, self.backend, self.name, lambda: options)
        except StorageError as error:
            if lenient or error.code == "no_source":
                return None
            raise StorageError(
                thing=self.label,
                code="guard_unavailable",
                reason=f"it can't be told what would be destroyed: {error.reason}",
                way_out=error.way_out,
            ) from None

    def check_all_listed(self) -> None:
        """delete_data gives up the volumes that libvirt lists; the same storage can hold more."""
        from .contents import THIN_POOL

        contents = self.contents(lenient=False)
        entries = contents.entries.values() if contents is not None else ()
        others = [one for one in entries if one.kind == THIN_POOL or one.thin_pool]
        if contents is not None and self.before["active"]:
            there = self.connection.volumes(self.name)
            others += [one for one in contents.unlisted.values() if not one.thin_pool and one.name not in there]
        if others:
            kinds = [(one.name, one.kind or ("a thin volume" if one.thin_pool else "not active")) for one in others[:5]]
            names = ", ".join(f"{name!r} ({kind})" for name, kind in kinds)
            raise StorageError(
                thing=self.label,
                code="not_volumes",
                reason=f"its storage holds what libvirt does not list, and it would be destroyed: {names}",
                way_out="remove that first, or leave delete_data out",
            )
        self.check_closed(contents)

    def check_closed(self, contents: Contents | None) -> None:
        """Nothing of this host has a volume open that is about to be taken away."""
        entries = contents.entries.values() if contents is not None else ()
        used = [one for one in entries if one.is_open and not one.kind]
        for path, users in guards.device_users(self.label, [one.path for one in used]).items():
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"{path} is used on this host: {', '.join(users)}",
                way_out="end that use first",
            )

    def check_given_up(self) -> None:
        """What must hold before all that a pool has is destroyed."""
        from . import chain  # loaded by what takes something away, so that an unchanged pool costs less

        self.check_unused(running_only=False)
        self.check_only_volumes()
        self.check_all_listed()
        self.check_storage()
        files = self.backend.makes_directory and self.connection.local
        volumes = {name: volume.path() for name, volume in sorted(self.connection.volumes(self.name).items())}
        for name, path in volumes.items() if files else ():
            if not os.path.isfile(path):
                continue
            if permissions.is_protected(path):
                raise StorageError(
                    thing=self.label,
                    code="immutable",
                    reason=f"its volume {name!r} is immutable",
                    way_out="set immutable: false on the volume first",
                )
            if chain.image_locked(path):
                raise StorageError(
                    thing=self.label,
                    code="in_use",
                    reason=f"a QEMU process has its volume {name!r} open",
                    way_out="end it first; it may run under another libvirt or on another host",
                )
        own = {os.path.realpath(path) if self.connection.local else path for path in volumes.values()}
        above = [name for name, base in chain.backed(self.connection) if base in own]
        above = [name for name in above if not name.startswith(f"{self.name}/")]
        if above:
            raise StorageError(
                thing=self.label,
                code="has_overlays",
                reason=f"its volumes are the base of {', '.join(above[:5])}",
                way_out="delete those first, or flatten them",
            )

    def check_unused(self, running_only: bool) -> None:
        """Stopping a pool can take a guest's disk away; destroying its data always does."""
        from . import chain

        found = chain.uses(self.connection, running_only)
        contents = self.contents(running_only) if found else None
        volumes = {name: volume.path() for name, volume in self.connection.volumes(self.name).items()}
        directory = self.path if self.backend.makes_directory else ""
        hits = chain.of_pool(found, self.name, directory, volumes, self.connection.local)
        for entry in contents.entries.values() if contents is not None else ():
            for path in entry.paths:
                mine = chain.of_volume(found, self.name, entry.name, path, self.connection.local)
                hits += [use for use in mine if use not in hits]
        if hits:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"its volumes are used by {chain.names(hits)}",
                way_out="shut the domain down first" if running_only else "remove the disks from the domain first",
            )

    # steps

    def tree(self) -> Any:
        """The present XML with the wanted options put in, or a new one."""
        if self.before["exists"]:
            tree = copy.deepcopy(self.before["tree"])
            for output in ("capacity", "allocation", "available"):
                xmltree.remove(tree, output)
        else:
            tree = xmltree.new("pool", type=self.backend.type)
            xmltree.put(tree, "name", self.name)
            xmltree.put(tree, "uuid", own_uuid("pool", self.name, self.want["owner"]))
            for place, value in self.backend.constants.items():
                xmltree.put(tree, place, value)
        options = self.want["options"]
        fields.write(self.backend.fields, tree, self.backend.told(options) if self.on_this_host else options)
        return tree

    def define(self) -> None:
        tree = self.tree()
        flags = VALIDATE if self.backend.schema_agrees(fields.read(self.backend.fields, tree)) else 0
        self.connection.raw.storagePoolDefineXML(xmltree.text(tree), flags)
        self.connection.forget()

    def create_flags(self) -> int:
        """Start and build in one call; a device that holds data already is only started."""
        build = self.backend.build_flags.get(self.want["build"])
        if self.want["build"] == "if_blank" and self.before["observed"]["blank"] is False:
            build = BUILD_DEFAULT if self.backend.makes_directory else None
        return CREATE_WITH[build] if build is not None else 0

    def create(self) -> None:
        flags = self.create_flags()
        self.slow(lambda: self.connection.raw.storagePoolCreateXML(xmltree.text(self.tree()), flags))
        self.set_label()
        self.connection.forget()

    def build(self) -> None:
        self.handle.build(self.backend.build_flags[self.want["build"]])
        self.set_label()

    def make_directory(self) -> None:
        """A build without flags makes the mount point and nothing more."""
        self.handle.build(0)

    def set_label(self) -> None:
        """The label of a new directory, which libvirt takes and does not set; what is mounted later has its own."""
        label = self.want["options"].get("permissions", {}).get("label")
        owned = self.backend.makes_directory and not self.backend.mounts and self.connection.local
        if label is not None and owned and os.path.isdir(self.path):
            permissions.apply(self.path, {"label": label})

    def start(self) -> None:
        self.slow(lambda: self.handle.create(0))
        self.connection.forget(self.name)

    def slow(self, call: Any) -> None:
        """A call that the backend may not return from for minutes, with its likely cause when it fails."""
        options = {**self.before["options"], **self.want["options"]}
        try:
            connections.within(self.want["wait_timeout"], call)
        except TimeoutError:
            hint = self.backend.start_hint("timeout", options)
            raise StorageError(
                thing=self.label,
                code="timeout",
                reason=f"it was not up after {self.want['wait_timeout']} s" + (f": {hint}" if hint else ""),
                way_out="mend the cause, or raise wait_timeout; libvirt itself may go on trying for a while",
            ) from None
        except connections.libvirt.libvirtError as error:
            self.leave(options)
            hint = self.backend.start_hint(connections.words(error), options)
            if not hint:
                raise
            raise StorageError(thing=self.label, code="backend_refused", reason=hint) from error

    def leave(self, options: dict[str, Any]) -> None:
        """Take away what libvirt leaves on the host of a pool that has stopped or has not come up."""
        if self.backend.leaves is None or not self.on_this_host:
            return
        try:
            self.backend.leaves(self.label, options)
        except StorageError as error:  # the pool has stopped all the same
            self.planned.warnings.append(str(error))

    def take_back(self, done: list[str]) -> list[str]:
        """A new pool that does not come up is not left behind; while libvirt is still busy with it, it may be."""
        if self.before["exists"]:
            return self.bring_back(done)
        if "define" not in done:
            return done
        try:
            connections.within(TAKE_BACK_SECONDS, self.handle.undefine)
        except (TimeoutError, connections.libvirt.libvirtError):
            return done
        return [step for step in done if step != "define"]

    def bring_back(self, done: list[str]) -> list[str]:
        """A pool that ran and does not come up in its new form runs on in the old one."""
        handle = self.handle
        if not (self.before["active"] and self.before["persistent"] and handle is not None) or handle.isActive():
            return done
        try:
            self.connection.raw.storagePoolDefineXML(xmltree.text(self.before["tree"]), 0)
            connections.within(self.want["wait_timeout"], lambda: handle.create(0))
        except (TimeoutError, connections.libvirt.libvirtError):
            return done
        self.connection.forget()
        return []

    def stop(self) -> None:
        connections.retrying(self.handle.destroy)
        self.connection.forget()
        self.leave({**self.before["options"], **self.before["live"]})

    def restart(self) -> None:
        self.stop()
        self.start()

    def log_in_again(self) -> None:
        """Let the pool log in to its server, by the value that its secret has now."""
        handle = self.handle
        if not handle.isActive():
            self.start()
        elif self.backend.relogin == "restart":
            self.restart()
        else:
            self.slow(lambda: handle.refresh(0))

    def recreate(self) -> None:
        """A transient pool is gone when it stops, so its new form is created at once."""
        self.stop()
        self.create()

    def set_autostart(self) -> None:
        self.handle.setAutostart(1 if self.want["autostart"] else 0)

    def set_permissions(self) -> None:
        """Set on the file system: libvirt applies them only when it makes the directory."""
        permissions.apply(self.path, self.want["options"]["permissions"])
        if self.handle.isActive():
            connections.retrying(lambda: self.handle.refresh(0))

    def delete_volumes(self) -> None:
        """With another look at what is there: files made outside, and images of a pool that has only just started."""
        connections.retrying(lambda: self.handle.refresh(0))
        self.connection.forget(self.name)
        self.check_given_up()
        for name, volume in sorted(self.connection.volumes(self.name).items()):
            if name == "lost+found":
                continue
            try:
                volume.delete(0)
            except connections.libvirt.libvirtError as error:
                raise StepFailed(
                    thing=f"volume {name!r} of {self.label}",
                    step="delete",
                    code="backend_refused",
                    reason=connections.words(error),
                    way_out=self.way_out(connections.words(error)),
                ) from error
        self.connection.forget(self.name)

    def delete_storage(self) -> None:
        self.handle.delete(0)

    def undefine(self) -> None:
        if not self.before["active"]:
            self.leave(self.before["options"])
        self.handle.undefine()
        self.connection.forget()


def run(backend: Backend) -> None:
    """The main function of a pool module."""
    reconcile.run(
        argument_spec(backend),
        lambda connection, params: [Pool(connection, backend, wanted(backend, params))],
    )
