# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with declared exports of zvols, and what is to be done, from what was seen on the storage host.

Nothing here looks or acts, and no secret is part of a plan: roles/zfs_over_iscsi/files/lio.py tells whether a login is
the declared one. Sources: zfsprops(7), rtslib-fb 2.1.75, and drivers/target/iscsi/iscsi_target_configfs.c of Linux.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import zfs
from .values import flag, unique, words

UNITS = ("rtslib-fb-targetctl.service", "target.service")
ORDER = """# of the role kvm.storage.zfs_over_iscsi
[Unit]
Wants=network-online.target
After=network-online.target zfs-mount.service zfs-volume-wait.service zfs-volumes.target
"""
PORT = 3260
ANYWHERE = [{"name": "0.0.0.0"}]
BLOCK = 16 << 10  # a size that is a multiple of it is one of what any release of ZFS takes for a block
MOST_LUNS = 1 << 14
LONGEST_SECRET = 255  # bytes
LONGEST_IQN = 223  # bytes
ZVOLS = "/dev/zvol/"

# The number of a LUN is kept with its zvol, and the last one given with the dataset around it, wherever the zpool goes.
NUMBER = "kvm.storage:lun"
LAST = "kvm.storage:last_lun"

# Only initiators that are declared may see the target.
CLOSED = {
    "generate_node_acls": "0",
    "cache_dynamic_acls": "0",
    "demo_mode_discovery": "0",
    "demo_mode_write_protect": "1",
}

IQN = re.compile(r"iqn\.[0-9]{4}-[01][0-9]\.[^\s/_]+\.[^\s/_]+|(eui|naa)\.[0-9a-f]{16}", re.ASCII)
VERSION = ["zfs", "version"]

Target = dict[str, Any]
Volume = dict[str, Any]
NEW: dict[str, Any] = {"enable": False, "portals": [], "attributes": {}, "luns": [], "acls": {}, "live": []}


def zvol_export_plan(
    targets: Sequence[Mapping[str, Any]],
    *,
    check: bool,
    looked: Mapping[str, Any],
    lio: Mapping[str, Any],
    zvols: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole plan. What was not looked at yet is {}.

    check   whether this is check mode, in which a zpool may be still to be made
    looked  what look.py of the role host_zfs told of `asks`
    lio     what lio.py told
    zvols   what device_info told of `looks`
    """
    return Plan(targets, check, zfs.Looked(looked), lio, zvols).decide()


def address_of(portal: Mapping[str, Any]) -> str:
    """As configfs names it."""
    address = ipaddress.ip_address(str(portal["name"]).strip("[]"))
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{port_of(portal)}"


def port_of(portal: Mapping[str, Any]) -> int:
    return int(portal.get("port") or PORT)


def iqn_of(text: Any) -> str:
    """As LIO has it: the names of iSCSI do not know capitals."""
    return str(text).lower()


def normal(target: Mapping[str, Any]) -> Target:
    """A target with its words as values; each of its volumes has the full name of its zvol."""
    volumes = [
        {
            **one,
            "source_name": str(one["source_name"]),
            "zvol": f"{one['source_name']}/{one['name']}",
            "state": one.get("state") or "present",
            "sparse": None if one.get("sparse") in (None, "") else flag(one["sparse"]),
            "delete_data": flag(one.get("delete_data") or False),
            "despite_sessions": flag(one.get("despite_sessions") or False),
        }
        for one in target.get("volumes") or []
    ]
    return {
        **target,
        "target_iqn": iqn_of(target["target_iqn"]),
        "state": target.get("state") or "present",
        "initiators": unique(iqn_of(name) for name in words(target.get("initiators"))),
        "delete_data": flag(target.get("delete_data") or False),
        "despite_sessions": flag(target.get("despite_sessions") or False),
        "volumes": volumes,
    }


class Plan(zfs.Decided):
    def __init__(
        self,
        targets: Sequence[Mapping[str, Any]],
        check: bool,
        look: zfs.Looked,
        lio: Mapping[str, Any],
        zvols: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.targets = [normal(target) for target in targets]
        self.check_mode, self.look, self.looked_zvols = check, look, zvols
        self.running: Mapping[str, Any] = lio.get("targets") or {}
        self.stores: Sequence[Mapping[str, Any]] = lio.get("stores") or []
        self.lio = lio
        self.actions: list[dict[str, Any]] = []
        self.zvols: list[dict[str, Any]] = []
        self.looks: list[str] = []
        self.properties: dict[str, dict[str, str]] = {}
        self.last: dict[str, int] = {}  # by source: the number that was noted with it last
        self.zfs = look.says(VERSION).rc != zfs.NO_COMMAND

    def action(self, say: str, method: str, *arguments: Any) -> None:
        """By a method of lio.py."""
        self.actions.append({"say": say, "method": method, "arguments": list(arguments)})

    def decide(self) -> dict[str, Any]:
        for target in self.targets:
            self.check(target)
        self.check_all()
        if not self.problems and self.look and self.ask_zfs():
            for target in self.targets:
                if target["state"] == "absent":
                    self.let_go(target)
                else:
                    self.have(target)
            self.check_uses()
            self.keep()
            self.have_boot()
        return {
            "problems": self.problems,
            "asks": self.asks(),
            "portals": self.portals(),
            "looks": unique(self.looks),
            "zvols": self.zvols,
            "actions": self.actions,
            "steps": self.steps,
        }

    def asks(self) -> dict[str, Any]:
        """What look.py is to look at. Names that are wrong are asked nothing."""
        units = zfs.asks(UNITS)
        return {
            "commands": [VERSION, *([self.question()] if self.names() else []), *map(trial, self.going())],
            "files": [*units["files"], *(f"{zfs.UNITS}/{unit}.d/*" for unit in UNITS)],
            "paths": units["paths"],
            "labels": [],
        }

    def names(self) -> list[str]:
        volumes = [one for target in self.targets for one in target["volumes"] if not zfs.bad_name(one["zvol"])]
        return sorted({name for one in volumes for name in (one["zvol"], one["source_name"])})

    def going(self) -> list[str]:
        """The zvols that were given up by name."""
        return [
            one["zvol"]
            for target in self.targets
            for one in target["volumes"]
            if not zfs.bad_name(one["zvol"])
            and (
                (one["state"] == "absent" and one["delete_data"])
                or (target["state"] == "absent" and target["delete_data"])
            )
        ]

    def question(self) -> list[str]:
        """One for all; what users set comes last, so that no value passes for one that ZFS sets."""
        columns = f"type,guid,volsize,volblocksize,volmode,refreservation,available,keystatus,{NUMBER},{LAST}"
        return ["zfs", "get", "-H", "-p", "-o", "name,property,value", columns, *self.names()]

    def portals(self) -> list[str]:
        """Those that lio.py is to try, as configfs names them."""
        found = []
        for target in self.targets:
            for portal in (target.get("portals") or ANYWHERE) if target["state"] == "present" else []:
                with contextlib.suppress(ValueError):  # check() says what is wrong with it
                    found += [address_of(portal)] if 0 < port_of(portal) < 1 << 16 else []
        return unique(found)

    # what is declared

    def check(self, target: Target) -> None:
        iqn = target["target_iqn"]
        thing = f"target {iqn}"
        if not IQN.fullmatch(iqn) or len(iqn) > LONGEST_IQN:
            self.problem(thing, "this is no name of a target", "give one such as iqn.2026-01.com.example:store1")
        for name in target["initiators"]:
            if not IQN.fullmatch(name) or len(name) > LONGEST_IQN:
                self.problem(
                    thing, f"{name!r} is no name of an initiator", "take it from initiatorname.iscsi of that host"
                )
        if target["state"] == "present" and not target["initiators"]:
            self.problem(thing, "no initiator may log in", "name those that may in initiators")
        for portal in target.get("portals") or []:
            try:
                address_of({"name": portal["name"]})
            except ValueError:
                self.problem(
                    thing, f"{portal['name']!r} is no IP address", "give portals by their addresses on this host"
                )
            if not re.fullmatch(r"[0-9]{1,5}", str(portal.get("port") or PORT)) or port_of(portal) >= 1 << 16:
                self.problem(thing, f"{portal['port']!r} is no port", "give one from 1 to 65535")
        auth = target.get("auth")
        if auth and not (auth.get("username") and auth.get("password")):
            self.problem(thing, "auth lacks its username or password", "give both, or {} for no login")
        for key in ("username", "password"):
            value = str((auth or {}).get(key) or "")
            short = len(value.encode()) <= LONGEST_SECRET
            # the kernel unsets what begins with NULL
            if value.startswith("NULL") or not short or value != value.strip() or not value.isprintable():
                self.problem(
                    thing,
                    f"LIO can't take this {key}",
                    "use up to 255 printable characters, not NULL at the begin, no blank at the ends",
                )
        for volume in target["volumes"]:
            self.check_volume(volume)

    def check_volume(self, volume: Volume) -> None:
        thing = f"zvol {volume['zvol']}"
        if zfs.bad_name(volume["zvol"]):
            self.problem(thing, "zfs takes no such name", "use A-Z a-z 0-9 _ . : -")
        for key in ("capacity", "volblocksize"):
            size = zfs.size_of(volume[key]) if volume.get(key) not in (None, "") else 512
            if not size:
                self.problem(thing, f"its {key} {volume[key]!r} is no size", "give one such as 20GiB")
            elif key == "volblocksize" and (size < 512 or size & (size - 1)):
                self.problem(thing, f"its volblocksize {volume[key]} is no power of 2", "give one such as 16KiB")

    def check_all(self) -> None:
        for name, of in (("target", [one["target_iqn"] for one in self.targets]),
                         ("zvol", [one["zvol"] for target in self.targets for one in target["volumes"]])):  # fmt: skip
            for twice in sorted({one for one in of if of.count(one) > 1}):
                self.problem(f"{name} {twice}", "it is declared twice", "declare it once")

    # ZFS

    def ask_zfs(self) -> bool:
        """In check mode a host where ZFS is still to come can't be looked at any further."""
        names = self.names()
        if not self.zfs:
            if names and not self.check_mode:
                self.problem("zfs", "it is not on this host", "run the role host_zfs first")
            return not names
        told = self.look.says(self.question())
        for line in told.stderr.splitlines() if names else []:
            if line.strip() and "does not exist" not in line and not self.check_mode:
                self.problem("zfs", f"it says: {line.strip()}", "see to it first")
        self.properties = zfs.properties(told.stdout)
        return not self.problems

    def have_zvol(self, volume: Volume) -> None:
        """Made or grown by the role before the target is touched; never shrunk."""
        name, source = volume["zvol"], volume["source_name"]
        thing = f"zvol {name}"
        around, found = self.properties.get(source), self.properties.get(name)
        if around is None and not self.check_mode:
            self.problem(thing, f"there is no zpool or dataset {source}", "make it first, by the role host_zfs")
            return
        if around and around["type"] != "filesystem":
            self.problem(thing, f"{source} is a {around['type']}", "give a zpool or a dataset as source_name")
            return
        room = int(around["available"]) if around else None
        if found is None:
            if around and around.get("keystatus") == "unavailable":
                self.problem(thing, f"the key of {source} is not loaded", "zfs load-key -a loads it")
            self.make_zvol(volume, room)
            return
        if found["type"] != "volume":
            self.problem(thing, f"it is a {found['type']}", "choose another name")
            return
        if found.get("volmode") == "none":
            self.problem(thing, "it has no device, for its volmode is none", "set its volmode to dev")
        unlike = {}
        has, block = int(found["volsize"]), int(found["volblocksize"])
        wanted = rounded(volume, block) or has
        if volume.get("volblocksize") and zfs.size_of(volume["volblocksize"]) != block:
            self.problem(thing, f"its volblocksize is {block} and stays so", "declare it as it is")
        if wanted < has:
            self.problem(thing, f"it has {has} bytes, and would shrink to {wanted}", "ask for at least what it has")
        elif wanted > has:
            unlike["volsize"] = str(wanted)
        thick = found["refreservation"] not in ("none", "0", "-")
        if volume["sparse"] is not None and volume["sparse"] == thick:
            unlike["refreservation"] = "none" if volume["sparse"] else "auto"
        if room is not None and wanted - has > room and thick and not volume["sparse"]:
            self.problem(
                thing, f"{source} has room for {room} more bytes, not for {wanted - has}", "make room, or sparse: true"
            )
        if unlike:
            self.zvols.append({"name": name, "properties": unlike, "there": True})

    def make_zvol(self, volume: Volume, room: int | None) -> None:
        name = volume["zvol"]
        block = zfs.size_of(volume["volblocksize"]) or BLOCK if volume.get("volblocksize") else BLOCK
        wanted = rounded(volume, block)
        if not wanted:
            self.problem(
                f"zvol {name}", "it is not there, and how large it is to be is not said", "give capacity, such as 20GiB"
            )
            return
        if room is not None and wanted > room and not volume["sparse"]:
            self.problem(
                f"zvol {name}", f"{volume['source_name']} has room for {room} bytes, not for {wanted}",
                "make room, ask for less, or say sparse: true",
            )  # fmt: skip
        properties = {"volsize": str(wanted), "volmode": "dev"}  # what guests partition is no business of this host
        if volume.get("volblocksize"):
            properties["volblocksize"] = str(block)
        if volume["sparse"]:
            properties["refreservation"] = "none"
        self.zvols.append({"name": name, "properties": properties, "there": room is not None})

    # targets

    def have(self, target: Target) -> None:
        iqn = target["target_iqn"]
        found = self.running.get(iqn)
        if found is None or found["attributes"] is None:  # another has made the target without a group 1
            self.action(f"make target {iqn}", "group", iqn)
            found = {**NEW, "live": found["live"] if found else []}
            target = {**target, "portals": target.get("portals") or ANYWHERE}
        live = found["live"]
        numbers = self.have_luns(iqn, target, found, live)
        self.have_acls(iqn, target, found, live, numbers)
        attributes = dict(CLOSED)
        if target.get("auth") is not None or not found["attributes"]:
            attributes["authentication"] = str(int(bool(target.get("auth"))))
        for name, value in attributes.items():
            if found["attributes"].get(name) != value:
                self.action(f"set {name} of {iqn} to {value}", "set", iqn, name, value)
        self.have_portals(iqn, target, found, live)
        if not found["enable"]:
            self.action(f"enable {iqn}", "enable", iqn)

    def have_luns(self, iqn: str, target: Target, found: Mapping[str, Any], live: Sequence[str]) -> list[int]:
        """The numbers that the initiators are to see. A LUN that is not declared stays as it is."""
        numbers: list[int] = []
        by_path = {self.path_of(lun): int(lun["number"]) for lun in found["luns"]}
        for volume in target["volumes"]:
            if volume["state"] == "absent":
                self.drop(iqn, volume, by_path.pop(f"{ZVOLS}{volume['zvol']}", None), live)
        volumes = [volume for volume in target["volumes"] if volume["state"] == "present"]
        taken = {int(lun["number"]) for lun in found["luns"]}
        given = [self.noted(one["source_name"], LAST) for one in volumes]
        given += [self.noted(one["zvol"], NUMBER) for one in volumes]
        last = max([-1, *taken, *given])
        for volume in volumes:
            name, path = volume["zvol"], f"{ZVOLS}{volume['zvol']}"
            self.have_zvol(volume)
            number = by_path.get(path)
            if number is None:
                number = self.noted(name, NUMBER)
                if number < 0 or number in taken:
                    last += 1
                    number = last
                if number >= MOST_LUNS:
                    self.problem(f"target {iqn}", f"no number is left for {name}", "export it by another target")
                self.action(f"export {name} as LUN {number} of {iqn}", "export", iqn, number, name)
                if name in self.properties and not self.stores_of(path):
                    self.looks.append(path)
                by_path[path] = number
                taken.add(number)
            self.note(volume, number, last)
            numbers.append(number)
        return numbers

    def note(self, volume: Volume, number: int, last: int) -> None:
        """The last number never falls, whichever target has it."""
        name, source = volume["zvol"], volume["source_name"]
        known = self.last.get(source, self.noted(source, LAST))
        if self.noted(name, NUMBER) != number or known < number:
            self.last[source] = max(known, number, last)
            self.action(f"note LUN {number} with {name}", "note", name, source, number, self.last[source])

    def noted(self, name: str, key: str) -> int:
        value = self.properties.get(name, {}).get(key, "-")
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else -1

    def path_of(self, store: Mapping[str, Any]) -> str:
        """The name of the zvol of a backstore, which may have been made by another of its names."""
        nodes: Mapping[str, str] = self.lio.get("nodes") or {}
        others = [path for path, node in nodes.items() if node and node == store["node"]]
        return others[0] if others and store["path"] not in nodes else str(store["path"])

    def stores_of(self, path: str) -> list[Mapping[str, Any]]:
        """The backstores that have a device."""
        return [store for store in self.stores if self.path_of(store) == path]

    def drop(self, iqn: str, volume: Volume, number: int | None, live: Sequence[str]) -> None:
        """A LUN that is taken away by name; its zvol only with delete_data."""
        name = volume["zvol"]
        if number is not None:
            if live and not volume["despite_sessions"]:
                self.problem(
                    f"LUN {number} of {iqn}", f"{', '.join(live)} is logged in and may use {name}",
                    "log out there, or say despite_sessions: true where no guest has it as a disk",
                )  # fmt: skip
            path = next(lun["path"] for lun in self.running[iqn]["luns"] if int(lun["number"]) == number)
            say = f"take LUN {number} ({name}) from {iqn}"
            self.action(say, "drop", iqn, number, path, volume["despite_sessions"])
        if volume["delete_data"]:
            self.destroy(name, {f"iscsi/{iqn}/tpgt_1/lun/lun_{number}"})

    def destroy(self, name: str, leaving: Iterable[str]) -> None:
        """A zvol, whose LUNs that are leaving are taken away before."""
        if self.properties.get(name, {}).get("type") != "volume":
            return
        tried = self.look.says(trial(name))
        if tried.rc:
            self.problem(
                f"zvol {name}", f"ZFS would not destroy it ({tried.why})", "see to its snapshots and clones first"
            )
        for store in self.stores_of(f"{ZVOLS}{name}"):
            others = sorted(set(store["luns"]) - set(leaving))
            if others or not store["luns"]:
                by = ", ".join(others) or f"the backstore {store['name']}, which is no LUN"
                self.problem(f"zvol {name}", f"LIO has it by {by}", "take it from that first, by targetcli")
        self.looks.append(f"{ZVOLS}{name}")  # a guest of this host may have it, or a file system
        self.step(f"destroy zvol {name}", "zfs", "destroy", name)

    def have_acls(
        self, iqn: str, target: Target, found: Mapping[str, Any], live: Sequence[str], numbers: Sequence[int]
    ) -> None:
        """The initiators that are declared and no other, each with all LUNs under their own numbers."""
        auth = target.get("auth")
        wanted = target["initiators"]
        for name in wanted:
            acl = found["acls"].get(name)
            if acl is None:
                self.action(f"let {name} in", "acl", iqn, name)
                if auth is None and found["attributes"].get("authentication") == "1":
                    self.problem(f"target {iqn}", f"it asks for a login, and none is known for {name}", "give auth")
                acl = {"luns": {}, "login": "none"}
            if auth and acl["login"] != "declared":
                self.action(f"set the login of {name}", "login", iqn, name)
            elif auth == {} and acl["login"] != "none":
                self.action(f"take the login of {name} away", "login", iqn, name)
            seen = {int(mapped): int(number) for mapped, number in acl["luns"].items()}
            for number in numbers:
                if number not in seen:
                    self.action(f"show LUN {number} to {name}", "show", iqn, name, number)
                elif seen[number] != number:
                    self.problem(
                        f"target {iqn}", f"{name} sees its LUN {seen[number]} as LUN {number}, which is another",
                        "unmap that by targetcli first",
                    )  # fmt: skip
        for name in sorted(set(found["acls"]) - set(wanted)):
            if name in live:
                self.problem(f"target {iqn}", f"{name} is no longer declared, and is logged in", "log out there first")
            self.action(f"let {name} in no more", "shut_out", iqn, name)

    def have_portals(self, iqn: str, target: Target, found: Mapping[str, Any], live: Sequence[str]) -> None:
        if not target.get("portals"):
            return
        wanted = unique(address_of(portal) for portal in target["portals"])
        leaving = sorted(set(found["portals"]) - set(wanted))
        freed = {portal.rpartition(":")[2] for portal in leaving}
        for portal in leaving:
            if live:
                self.problem(
                    f"target {iqn}", f"portal {portal} is no longer declared, and {', '.join(live)} is logged in",
                    "log out there first",
                )  # fmt: skip
            self.action(f"close portal {portal} of {iqn}", "close", iqn, portal)
        for portal in wanted:
            if portal not in found["portals"]:
                if portal.rpartition(":")[2] not in freed:
                    self.check_portal(iqn, portal)
                self.action(f"open portal {portal} of {iqn}", "portal", iqn, portal)

    def check_portal(self, iqn: str, portal: str) -> None:
        """Whether this host has the address, and nobody listens there, by what lio.py tried."""
        said = (self.lio.get("tried") or {}).get(portal, "")
        host = portal.rpartition(":")[0].strip("[]")
        if said == "EADDRINUSE":
            self.problem(
                f"target {iqn}", f"something listens on {portal} already", "give portals another address or port"
            )
        elif said == "EADDRNOTAVAIL":
            self.problem(f"target {iqn}", f"this host has no address {host}", "give portals by addresses that it has")
        elif said:
            self.problem(f"target {iqn}", f"portal {portal} can't be opened ({said})", "give another one")

    def let_go(self, target: Target) -> None:
        iqn = target["target_iqn"]
        found = self.running.get(iqn)
        if found is not None:
            if found["live"] and not target["despite_sessions"]:
                self.problem(
                    f"target {iqn}",
                    f"{', '.join(found['live'])} is logged in",
                    "log out there, or say despite_sessions: true",
                )
            self.action(f"take target {iqn} away", "take_away", iqn, target["despite_sessions"])
        leaving = [place for store in self.stores for place in store["luns"] if place.startswith(f"iscsi/{iqn}/")]
        for volume in target["volumes"]:
            if volume["zvol"] in self.going():
                self.destroy(volume["zvol"], leaving)

    def check_uses(self) -> None:
        """LIO itself claims what it exports, and does not show itself."""
        for one in self.looked_zvols.get("devices") or []:
            exported = self.stores_of(one["path"])
            users = [user for user in one["users"] if not (exported and user.startswith("claimed by "))]
            if one["path"] in self.looks and users:
                self.problem(one["path"], f"it is in use on this host ({', '.join(users)})", "take it from those first")

    # what the next boot does

    def keep(self) -> None:
        """Compared even where nothing else differs: a run may have ended before it was saved."""
        saved: Mapping[str, Any] = self.lio.get("saved") or {}
        iqns = [target["target_iqn"] for target in self.targets]
        alike: Sequence[str] = saved.get("alike") or []
        if not self.actions and all(iqn in alike for iqn in iqns):
            return
        if saved.get("unreadable"):
            self.problem(
                str(saved["file"]),
                f"it can't be read ({saved['unreadable']}), and what it has would be lost",
                "repair it, or move it away",
            )
        ours = {f"{ZVOLS}{one['zvol']}" for target in self.targets for one in target["volumes"]}
        lost = [f"target {iqn}" for iqn in saved.get("targets") or [] if iqn not in {*self.running, *iqns}]
        lost += [f"backstore of {path}" for path in saved.get("lost") or [] if path not in ours]
        if lost:
            self.problem(
                str(saved["file"]), f"it has {', '.join(lost)}, and LIO has not, so that would be lost",
                "restore it ('targetctl restore'), or save what LIO has by targetcli if it is to go",
            )  # fmt: skip
        self.action("save the configuration", "save")

    def have_boot(self) -> None:
        present = [one for one in self.targets if one["state"] == "present"]
        for unit in UNITS:
            if not any(f"{folder}/{unit}" in self.look.files for folder in zfs.UNIT_FOLDERS[1:]):
                continue
            enabled = self.look.enabled(unit)
            folder = f"{zfs.UNITS}/{unit}.d"
            path = f"{folder}/zfs_over_iscsi.conf"
            there = self.look.in_folder(folder)
            if present:
                if self.look.text(path) != ORDER.strip():
                    self.step(
                        "restore targets after zvols", "install", "-D", "-m", "0644", "/dev/stdin", path, stdin=ORDER
                    )
                    if enabled:
                        self.step("read the units anew", "systemctl", "daemon-reload")
                if not enabled:  # this reads the units anew as well
                    self.step("restore targets at boot", "systemctl", "enable", unit)
            elif path in there and not self.running.keys() - {one["target_iqn"] for one in self.targets}:
                gone = ["-r", folder] if there == [path] else [path]
                self.step("restore targets without regard to zvols", "rm", *gone)
                self.step("read the units anew", "systemctl", "daemon-reload")


def rounded(volume: Volume, block: int) -> int:
    return -(-(zfs.size_of(volume["capacity"]) or 0) // block) * block if volume.get("capacity") else 0


def trial(name: str) -> list[str]:
    """It fails where there are snapshots or clones."""
    return ["zfs", "destroy", "-n", name]
