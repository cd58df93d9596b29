# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports zvols as LUNs of the kernel's iSCSI target (LIO), as declared.

Run by the role zfs_over_iscsi on the storage host: a JSON document comes in, and one goes out. What is there is read
from configfs, zfs and the saved configuration; only with `act` is anything changed, by rtslib, targetcli's library.

in   targets as declared, check (whether this is check mode), act
out  problems (each "thing: reason; way out"), actions (what differs of the exports, in words),
     zvols (name, properties, there) to make or to grow, steps (name, argv, stdin) to take once all is exported,
     looks (paths of zvols that are to be exported or destroyed, and must be unused)

No secret is part of what goes out.
"""

from __future__ import annotations

import errno
import glob
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

LIO = "/sys/kernel/config/target"
SAVED = ("/etc/rtslib-fb-target/saveconfig.json", "/etc/target/saveconfig.json")  # Debian's family; that of RHEL
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

IQN = re.compile(r"iqn\.[0-9]{4}-[01][0-9]\.[^\s/_]+\.[^\s/_]+|(eui|naa)\.[0-9A-Fa-f]{16}")
NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.:-]{1,200}")
SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([kmgtpe]?)(ib|b)?", re.IGNORECASE)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
        )  # fmt: skip
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\n\0")
    except OSError:
        return ""


def size_of(text: str) -> int:
    """Bytes, with the units of the collection: GiB and G count in 1024, GB in 1000."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    whole, decimals, letter, ending = match.groups(default="")
    base = 1000 if letter and ending.lower() == "b" else 1024
    scale = base ** ("kmgtpe".index(letter.lower()) + 1) if letter else 1
    return int(int(whole + decimals) * scale // 10 ** len(decimals))


def address_of(portal: dict[str, Any]) -> str:
    """As configfs names it."""
    address = ipaddress.ip_address(str(portal["name"]).strip("[]"))
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{portal.get('port') or PORT}"


# ------------------------------------------------------------------------------------------------------ what is there


def serial_of(backstore: str) -> str:
    return read(f"{backstore}/wwn/vpd_unit_serial").partition(":")[2].strip()


def known(path: str) -> str:
    """A name or password; NULL is the kernel's word for none."""
    return "" if read(path) == "NULL" else read(path)


def link_in(folder: str) -> str:
    """Where the one link in a folder of configfs leads."""
    links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    return os.path.realpath(links[0]) if links else ""


def number_of(folder: str) -> int:
    return int(folder.rpartition("_")[2])


def running(iqn: str) -> dict[str, Any] | None:
    """A target as the kernel has it, with its passwords: not for the way out."""
    group = f"{LIO}/iscsi/{iqn}/tpgt_1"
    if not os.path.isdir(group):
        return None
    acls = {}
    for folder in glob.glob(f"{group}/acls/*/"):
        acls[os.path.basename(folder[:-1])] = {
            "luns": {number_of(lun): number_of(link_in(lun)) for lun in glob.glob(f"{folder}lun_*") if link_in(lun)},
            "username": known(f"{folder}auth/userid"),
            "password": known(f"{folder}auth/password"),
        }
    stores = {number_of(lun): link_in(lun) for lun in glob.glob(f"{group}/lun/lun_*")}
    return {
        "enable": read(f"{group}/enable") == "1",
        "portals": {os.path.basename(path) for path in glob.glob(f"{group}/np/*")},
        "attributes": {name: read(f"{group}/attrib/{name}") for name in [*CLOSED, "authentication"]},
        "luns": {
            number: (os.path.basename(store), read(f"{store}/udev_path"), serial_of(store))
            for number, store in stores.items()
        },
        "acls": acls,
    }


def saved(iqn: str, whole: dict[str, Any]) -> dict[str, Any] | None:
    """A target as the next boot would make it, in the same form."""
    groups = [group for target in whole.get("targets", []) if target["wwn"] == iqn for group in target["tpgs"]]
    groups = [group for group in groups if group["tag"] == 1]
    if not groups:
        return None
    (group,) = groups
    stores = {f"/backstores/{one['plugin']}/{one['name']}": one for one in whole.get("storage_objects", [])}
    luns = {lun["index"]: stores.get(lun["storage_object"], {}) for lun in group["luns"]}
    return {
        "enable": group["enable"],
        "portals": {f"{one['ip_address']}:{one['port']}" for one in group["portals"]},
        "attributes": {name: str(group["attributes"].get(name)) for name in [*CLOSED, "authentication"]},
        "luns": {number: (one.get("name"), one.get("dev"), one.get("wwn")) for number, one in luns.items()},
        "acls": {
            one["node_wwn"]: {
                "luns": {lun["index"]: lun["tpg_lun"] for lun in one["mapped_luns"]},
                "username": one.get("chap_userid") or "",
                "password": one.get("chap_password") or "",
            }
            for one in group["node_acls"]
        },
    }


def sessions(iqn: str) -> list[str]:
    """The initiators that are logged in."""
    group = f"{LIO}/iscsi/{iqn}/tpgt_1"
    declared = [path.split("/")[-2] for path in glob.glob(f"{group}/acls/*/info") if not idle(read(path))]
    return sorted({*declared, *read(f"{group}/dynamic_sessions").replace("\0", "\n").split()})


def idle(info: str) -> bool:
    return not info or info.startswith("No active")


def store_of(path: str) -> str:
    """The name of the backstore that has a device."""
    stores = [folder for folder in glob.glob(f"{LIO}/core/iblock_*/*") if read(f"{folder}/udev_path") == path]
    return os.path.basename(stores[0]) if stores else ""


# ------------------------------------------------------------------------------------------------------ deciding


class Export:
    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.check_mode = bool(given["check"])
        self.problems: list[str] = []
        self.actions: list[tuple[str, str, tuple[Any, ...]]] = []
        self.zvols: list[dict[str, Any]] = []
        self.looks: list[str] = []
        self.steps: list[dict[str, Any]] = []
        self.file = next((path for path in SAVED if os.path.isdir(os.path.dirname(path))), "")
        self.properties: dict[str, dict[str, str]] = {}
        self.zfs = run("zfs", "version").returncode != 127

    def problem(self, thing: str, reason: str, way_out: str) -> None:
        self.problems.append(f"{thing}: {reason}; {way_out}")

    def step(self, name: str, *argv: str, stdin: str | None = None) -> None:
        self.steps.append({"name": name, "argv": argv, **({} if stdin is None else {"stdin": stdin})})

    def action(self, words: str, method: str, *arguments: Any) -> None:
        """By a method of Lio."""
        self.actions.append((words, method, arguments))

    def decide(self) -> dict[str, Any]:
        targets = self.given["targets"]
        for target in targets:
            self.check(target)
        self.check_all(targets)
        if not self.problems and self.ask_zfs(targets):
            for target in targets:
                if (target.get("state") or "present") == "absent":
                    self.let_go(target)
                else:
                    self.have(target)
            self.keep(targets)
            self.have_boot(targets)
        done = [words for words, _method, _arguments in self.actions]
        if self.given["act"] and not self.problems:
            self.act()
        return {
            "problems": self.problems,
            "actions": done,
            "zvols": self.zvols,
            "looks": self.looks,
            "steps": self.steps,
        }

    # what is declared

    @staticmethod
    def named(target: dict[str, Any], state: str | None = None) -> list[dict[str, Any]]:
        """Its volumes, each with the full name of its zvol."""
        volumes = [
            {**one, "zvol": f"{one['source_name']}/{one['name']}", "state": one.get("state") or "present"}
            for one in target.get("volumes") or []
        ]
        return [one for one in volumes if state in (None, one["state"])]

    def check(self, target: dict[str, Any]) -> None:
        iqn = str(target["target_iqn"])
        thing = f"target {iqn}"
        if not IQN.fullmatch(iqn):
            self.problem(thing, "this is no name of a target", "give one such as iqn.2026-01.com.example:store1")
        for name in target.get("initiators") or []:
            if not IQN.fullmatch(str(name)):
                self.problem(
                    thing, f"{name!r} is no name of an initiator", "take it from initiatorname.iscsi of that host"
                )
        if (target.get("state") or "present") == "present" and not target.get("initiators"):
            self.problem(thing, "no initiator may log in", "name those that may in initiators")
        for portal in target.get("portals") or []:
            try:
                address_of(portal)
            except ValueError:
                self.problem(
                    thing, f"{portal['name']!r} is no IP address", "give portals by their addresses on this host"
                )
        auth = target.get("auth")
        if auth and not (auth.get("username") and auth.get("password")):
            self.problem(thing, "auth lacks its username or password", "give both, or {} for no login")
        for key in ("username", "password"):
            value = (auth or {}).get(key) or ""
            if value == "NULL" or len(value) > 255 or value != value.strip() or not value.isprintable():
                self.problem(
                    thing,
                    f"LIO can't take this {key}",
                    "use up to 255 printable characters, not NULL, no blank at the ends",
                )
        for volume in self.named(target):
            self.check_volume(volume)

    def check_volume(self, volume: dict[str, Any]) -> None:
        thing = f"zvol {volume['zvol']}"
        if not all(NAME.fullmatch(part) for part in str(volume["zvol"]).split("/")):
            self.problem(thing, "zfs takes no such name", "use A-Z a-z 0-9 _ . : -")
        for key in ("capacity", "volblocksize"):
            try:
                size = size_of(str(volume[key])) if volume.get(key) else 512
            except ValueError:
                self.problem(thing, f"its {key} {volume[key]!r} is no size", "give one such as 20GiB")
                continue
            if key == "volblocksize" and (size < 512 or size & (size - 1)):
                self.problem(thing, f"its volblocksize {volume[key]} is no power of 2", "give one such as 16KiB")

    def check_all(self, targets: list[dict[str, Any]]) -> None:
        for name, of in (("target", [str(one["target_iqn"]) for one in targets]),
                         ("zvol", [one["zvol"] for target in targets for one in self.named(target)])):  # fmt: skip
            for twice in sorted({one for one in of if of.count(one) > 1}):
                self.problem(f"{name} {twice}", "it is declared twice", "declare it once")

    # ZFS

    def ask_zfs(self, targets: list[dict[str, Any]]) -> bool:
        """One question for all. In check mode a host where ZFS is still to come can't be looked at any further."""
        volumes = [one for target in targets for one in self.named(target)]
        names = sorted({name for one in volumes for name in (one["zvol"], one["source_name"])})
        if not self.zfs:
            if volumes and not self.check_mode:
                self.problem("zfs", "it is not on this host", "run the role host_zfs first")
            return not volumes
        columns = f"type,guid,volsize,volblocksize,refreservation,available,{NUMBER},{LAST}"
        told = run("zfs", "get", "-H", "-p", "-o", "name,property,value", columns, *names).stdout if names else ""
        for line in told.splitlines():
            name, key, value = line.split("\t")
            self.properties.setdefault(name, {})[key] = value
        return True

    def have_zvol(self, volume: dict[str, Any]) -> None:
        """Made or grown by the role before the target is touched; never shrunk."""
        name, source = volume["zvol"], str(volume["source_name"])
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
            self.make_zvol(volume, room)
            return
        if found["type"] != "volume":
            self.problem(thing, f"it is a {found['type']}", "choose another name")
            return
        unlike = {}
        has, block = int(found["volsize"]), int(found["volblocksize"])
        wanted = self.rounded(volume, block) or has
        if volume.get("volblocksize") and size_of(str(volume["volblocksize"])) != block:
            self.problem(thing, f"its volblocksize is {block} and stays so", "declare it as it is")
        if wanted < has:
            self.problem(thing, f"it has {has} bytes, and would shrink to {wanted}", "ask for at least what it has")
        elif wanted > has:
            unlike["volsize"] = str(wanted)
        thick = found["refreservation"] not in ("none", "0", "-")
        if volume.get("sparse") is not None and bool(volume["sparse"]) == thick:
            unlike["refreservation"] = "none" if volume["sparse"] else "auto"
        if room is not None and wanted - has > room and thick and not volume.get("sparse"):
            self.problem(
                thing, f"{source} has room for {room} more bytes, not for {wanted - has}", "make room, or sparse: true"
            )
        if unlike:
            self.zvols.append({"name": name, "properties": unlike, "there": True})

    def make_zvol(self, volume: dict[str, Any], room: int | None) -> None:
        name = volume["zvol"]
        block = size_of(str(volume["volblocksize"])) if volume.get("volblocksize") else BLOCK
        wanted = self.rounded(volume, block)
        if not wanted:
            self.problem(
                f"zvol {name}", "it is not there, and how large it is to be is not said", "give capacity, such as 20GiB"
            )
            return
        if room is not None and wanted > room and not volume.get("sparse"):
            self.problem(
                f"zvol {name}", f"{volume['source_name']} has room for {room} bytes, not for {wanted}",
                "make room, ask for less, or say sparse: true",
            )  # fmt: skip
        properties = {"volsize": str(wanted), "volmode": "dev"}  # what guests partition is no business of this host
        if volume.get("volblocksize"):
            properties["volblocksize"] = str(block)
        if volume.get("sparse"):
            properties["refreservation"] = "none"
        self.zvols.append({"name": name, "properties": properties, "there": room is not None})

    @staticmethod
    def rounded(volume: dict[str, Any], block: int) -> int:
        return -(-size_of(str(volume["capacity"])) // block) * block if volume.get("capacity") else 0

    # targets

    def have(self, target: dict[str, Any]) -> None:
        iqn = str(target["target_iqn"])
        found = running(iqn)
        if found is None:
            self.action(f"make target {iqn}", "group", iqn)
            found = {"enable": False, "portals": set(), "attributes": {}, "luns": {}, "acls": {}}
            target = {**target, "portals": target.get("portals") or ANYWHERE}
        live = sessions(iqn)
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

    def have_luns(self, iqn: str, target: dict[str, Any], found: dict[str, Any], live: list[str]) -> list[int]:
        """The numbers that the initiators are to see. A LUN that is not declared stays as it is."""
        numbers: list[int] = []
        by_path = {path: number for number, (_name, path, _serial) in found["luns"].items()}
        for volume in self.named(target, "absent"):
            self.drop(iqn, volume, by_path.pop(f"/dev/zvol/{volume['zvol']}", None), live)
        volumes = self.named(target, "present")
        taken = set(found["luns"])
        given = [self.noted(str(one["source_name"]), LAST) for one in volumes]
        given += [self.noted(one["zvol"], NUMBER) for one in volumes]
        last = max([-1, *taken, *given])
        for volume in volumes:
            name, path = volume["zvol"], f"/dev/zvol/{volume['zvol']}"
            self.have_zvol(volume)
            number = by_path.get(path)
            if number is None:
                number = self.noted(name, NUMBER)
                if number < 0 or number in taken:
                    last += 1
                    number = last
                if number >= MOST_LUNS:
                    self.problem(f"target {iqn}", f"no number is left for {name}", "export it by another target")
                self.action(f"export {name} as LUN {number} of {iqn}", "export", iqn, number, name, self.guid(name))
                if os.path.exists(path) and not store_of(path):
                    self.looks.append(path)
                by_path[path] = number
                taken.add(number)
            if self.noted(name, NUMBER) != number or self.noted(str(volume["source_name"]), LAST) < number:
                self.action(f"note LUN {number} with {name}", "note", name, volume["source_name"], number, last)
            numbers.append(number)
        return numbers

    def noted(self, name: str, key: str) -> int:
        value = self.properties.get(name, {}).get(key, "-")
        return int(value) if value.isdigit() else -1

    def guid(self, name: str) -> int:
        """0 for one that is still to be made."""
        return int(self.properties.get(name, {}).get("guid", 0))

    def drop(self, iqn: str, volume: dict[str, Any], number: int | None, live: list[str]) -> None:
        """A LUN that is taken away by name; its zvol only with delete_data."""
        name = volume["zvol"]
        if number is not None:
            if live and not volume.get("despite_sessions"):
                self.problem(
                    f"LUN {number} of {iqn}", f"{', '.join(live)} is logged in and may use {name}",
                    "log out there, or say despite_sessions: true where no guest has it as a disk",
                )  # fmt: skip
            self.action(f"take LUN {number} ({name}) from {iqn}", "drop", iqn, number)
        if volume.get("delete_data"):
            self.destroy(name)

    def destroy(self, name: str) -> None:
        if self.properties.get(name, {}).get("type") != "volume":
            return
        done = run("zfs", "destroy", "-n", name)
        if done.returncode:
            said = " ".join(done.stderr.split())
            self.problem(f"zvol {name}", f"ZFS would not destroy it ({said})", "see to its snapshots and clones first")
        if not store_of(f"/dev/zvol/{name}"):  # a guest of this host may have it, or a file system
            self.looks.append(f"/dev/zvol/{name}")
        self.step(f"destroy zvol {name}", "zfs", "destroy", name)

    def have_acls(
        self, iqn: str, target: dict[str, Any], found: dict[str, Any], live: list[str], numbers: list[int]
    ) -> None:
        """The initiators that are declared and no other, each with all LUNs under their own numbers."""
        auth = target.get("auth")
        wanted = [str(name) for name in target["initiators"]]
        for name in wanted:
            acl = found["acls"].get(name)
            if acl is None:
                self.action(f"let {name} in", "acl", iqn, name)
                if auth is None and found["attributes"].get("authentication") == "1":
                    self.problem(f"target {iqn}", f"it asks for a login, and none is known for {name}", "give auth")
                acl = {"luns": {}, "username": "", "password": ""}
            if auth and (acl["username"], acl["password"]) != (auth["username"], auth["password"]):
                self.action(f"set the login of {name}", "login", iqn, name, auth["username"], auth["password"])
            elif auth == {} and acl["username"]:
                self.action(f"take the login of {name} away", "login", iqn, name, "", "")
            for number in numbers:
                if number not in acl["luns"]:
                    self.action(f"show LUN {number} to {name}", "show", iqn, name, number)
        for name in sorted(set(found["acls"]) - set(wanted)):
            if name in live:
                self.problem(f"target {iqn}", f"{name} is no longer declared, and is logged in", "log out there first")
            self.action(f"let {name} in no more", "shut_out", iqn, name)

    def have_portals(self, iqn: str, target: dict[str, Any], found: dict[str, Any], live: list[str]) -> None:
        if not target.get("portals"):
            return
        wanted = [address_of(portal) for portal in target["portals"]]
        others = {os.path.basename(path) for path in glob.glob(f"{LIO}/iscsi/*/tpgt_*/np/*")}
        leaving = sorted(found["portals"] - set(wanted))
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
                if portal not in others and portal.rpartition(":")[2] not in freed:
                    self.check_portal(iqn, portal)
                self.action(f"open portal {portal} of {iqn}", "portal", iqn, portal)

    def check_portal(self, iqn: str, portal: str) -> None:
        """Whether this host has the address, and nobody listens there. LIO itself gives several targets one portal."""
        host, dummy, port = portal.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, int(port)))
                probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                self.problem(
                    f"target {iqn}", f"something listens on {portal} already", "give portals another address or port"
                )
            elif error.errno == errno.EADDRNOTAVAIL:
                self.problem(
                    f"target {iqn}", f"this host has no address {host}", "give portals by addresses that it has"
                )
            else:
                self.problem(f"target {iqn}", f"portal {portal} can't be opened ({error.strerror})", "give another one")

    def let_go(self, target: dict[str, Any]) -> None:
        iqn = str(target["target_iqn"])
        found, live = running(iqn), sessions(iqn)
        if found is not None:
            if live and not target.get("despite_sessions"):
                self.problem(
                    f"target {iqn}", f"{', '.join(live)} is logged in", "log out there, or say despite_sessions: true"
                )
            self.action(f"take target {iqn} away", "take_away", iqn)
        for volume in self.named(target):
            if target.get("delete_data") or (volume["state"] == "absent" and volume.get("delete_data")):
                self.destroy(volume["zvol"])

    # what the next boot does

    def keep(self, targets: list[dict[str, Any]]) -> None:
        """Compared even where nothing else differs: a run may have ended before it was saved."""
        try:
            whole = json.loads(read(self.file) or "{}")
        except ValueError:
            whole = {}
        iqns = [str(target["target_iqn"]) for target in targets]
        if self.actions or any(running(iqn) != saved(iqn, whole) for iqn in iqns):
            self.action("save the configuration", "save")

    def have_boot(self, targets: list[dict[str, Any]]) -> None:
        present = [one for one in targets if (one.get("state") or "present") == "present"]
        for unit in UNITS:
            if not any(
                os.path.exists(f"{folder}/{unit}") for folder in ("/usr/lib/systemd/system", "/lib/systemd/system")
            ):
                continue
            enabled = bool(glob.glob(f"/etc/systemd/system/*.wants/{unit}"))
            folder = f"/etc/systemd/system/{unit}.d"
            path = f"{folder}/zfs_over_iscsi.conf"
            if present:
                if read(path) != ORDER.strip():
                    self.step(
                        "restore targets after zvols", "install", "-D", "-m", "0644", "/dev/stdin", path, stdin=ORDER
                    )
                    if enabled:
                        self.step("read the units anew", "systemctl", "daemon-reload")
                if not enabled:  # this reads the units anew as well
                    self.step("restore targets at boot", "systemctl", "enable", unit)
            elif os.path.exists(path) and self.last_one(targets):
                gone = ["-r", folder] if os.listdir(folder) == [os.path.basename(path)] else [path]
                self.step("restore targets without regard to zvols", "rm", *gone)
                self.step("read the units anew", "systemctl", "daemon-reload")

    @staticmethod
    def last_one(targets: list[dict[str, Any]]) -> bool:
        there = {path.split("/")[-2] for path in glob.glob(f"{LIO}/iscsi/*/tpgt_1")}
        return not there - {str(target["target_iqn"]) for target in targets}

    # acting

    def act(self) -> None:
        lio: Lio | None = None
        for words, method, arguments in self.actions:
            try:
                lio = lio or Lio(self.file)
                getattr(lio, method)(*arguments)
            except Exception as error:  # what rtslib raises has no common class in all its releases
                self.problem("LIO", f"cannot {words}: {error}", "what was done until then is kept; run this again")
                return


class Lio:
    """What is done with rtslib. Without a password in any message: rtslib gets it as a value of an attribute."""

    def __init__(self, file: str) -> None:
        try:
            import rtslib_fb as rtslib
        except ImportError:
            import rtslib
        self.rtslib: Any = rtslib
        self.root = rtslib.RTSRoot()
        self.file = file

    def target(self, iqn: str) -> Any:
        return self.rtslib.Target(self.rtslib.FabricModule("iscsi"), iqn)

    def group(self, iqn: str) -> Any:
        return self.rtslib.TPG(self.target(iqn), 1)

    def acl(self, iqn: str, initiator: str) -> Any:
        return self.rtslib.NodeACL(self.group(iqn), initiator)

    def portal(self, iqn: str, portal: str) -> Any:
        host, dummy, port = portal.rpartition(":")
        return self.rtslib.NetworkPortal(self.group(iqn), host, int(port))

    def shut_out(self, iqn: str, initiator: str) -> None:
        self.acl(iqn, initiator).delete()

    def close(self, iqn: str, portal: str) -> None:
        self.portal(iqn, portal).delete()

    def set(self, iqn: str, name: str, value: str) -> None:
        self.group(iqn).set_attribute(name, value)

    def enable(self, iqn: str) -> None:
        self.group(iqn).enable = True

    def login(self, iqn: str, initiator: str, username: str, password: str) -> None:
        acl = self.acl(iqn, initiator)
        acl.chap_userid, acl.chap_password = username, password

    def show(self, iqn: str, initiator: str, number: int) -> None:
        self.rtslib.MappedLUN(self.acl(iqn, initiator), number, number)

    def export(self, iqn: str, number: int, zvol: str, guid: int) -> None:
        """The serial, of which the WWN is made, is the GUID of the zvol: one made anew is another disk."""
        path = f"/dev/zvol/{zvol}"
        run("udevadm", "settle", f"--exit-if-exists={path}", "--timeout=30")
        store = store_of(path)
        if store:
            backstore = self.rtslib.BlockStorageObject(store)
        else:
            backstore = self.rtslib.BlockStorageObject(zvol.replace("/", "+"), dev=path, wwn=f"{guid:016x}")
            backstore.set_attribute("emulate_tpu", 1)  # what guests discard is given back
        self.rtslib.LUN(self.group(iqn), number, backstore)

    def drop(self, iqn: str, number: int) -> None:
        lun = self.rtslib.LUN(self.group(iqn), number)
        backstore = lun.storage_object
        lun.delete()  # and from every initiator
        self.let_go(backstore)

    def take_away(self, iqn: str) -> None:
        target = self.target(iqn)
        backstores = [lun.storage_object for group in target.tpgs for lun in group.luns]
        target.delete()
        for backstore in backstores:
            self.let_go(backstore)

    @staticmethod
    def let_go(backstore: Any) -> None:
        """A zvol that no target has any more."""
        if str(backstore.udev_path).startswith("/dev/zvol/") and not list(backstore.attached_luns):
            backstore.delete()
            run("udevadm", "settle", "--timeout=30")  # which looks at a device that was let go, and keeps it busy

    @staticmethod
    def note(zvol: str, source: str, number: int, last: int) -> None:
        for name, key, value in ((zvol, NUMBER, number), (source, LAST, max(number, last))):
            done = run("zfs", "set", f"{key}={value}", name)
            if done.returncode:
                raise RuntimeError(done.stderr.strip())

    def save(self) -> None:
        self.root.save_to_file(self.file or None)


if __name__ == "__main__":
    # the role sends this program with its input, so the input may have been read already
    json.dump(Export(globals().get("given") or json.load(sys.stdin)).decide(), sys.stdout)
