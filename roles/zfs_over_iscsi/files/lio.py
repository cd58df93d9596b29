# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what the kernel's iSCSI target (LIO) and its saved configuration have, or carries out what was decided.

Run by the role zfs_over_iscsi on the storage host: a JSON document comes in, and one goes out. It reads configfs and
the saved configuration; rtslib, the library of targetcli, is used only to act.

in   targets as declared; portals to try; actions to carry out, or none to look
out  of a look: targets, stores, nodes, tried, saved; else problems and what was done

No secret is part of what goes out: a login is "none", "declared" or "other".
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import socket
import subprocess
import sys
from typing import Any

LIO = "/sys/kernel/config/target"
SAVED = ("/etc/rtslib-fb-target/saveconfig.json", "/etc/target/saveconfig.json")  # Debian's family; that of RHEL
COMPARED = (
    "generate_node_acls", "cache_dynamic_acls", "demo_mode_discovery", "demo_mode_write_protect", "authentication",
)  # fmt: skip
ZVOLS = "/dev/zvol/"


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip("\n\0")
    except OSError:
        return ""


def saved_file() -> str:
    return next((path for path in SAVED if os.path.isdir(os.path.dirname(path))), "")


# What is there. What is known of a target by running() and saved() has its passwords, and is not for the way out.


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
    """A target as the kernel has it."""
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
        "attributes": {name: read(f"{group}/attrib/{name}") for name in COMPARED},
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
    group = groups[0]
    stores = {f"/backstores/{one['plugin']}/{one['name']}": one for one in whole.get("storage_objects", [])}
    luns = {lun["index"]: stores.get(lun["storage_object"], {}) for lun in group["luns"]}
    return {
        "enable": group["enable"],
        "portals": {f"{one['ip_address']}:{one['port']}" for one in group["portals"]},
        "attributes": {name: str(group["attributes"].get(name)) for name in COMPARED},
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
    """The initiators that are logged in, in any group. One of which that can't be seen counts as logged in."""
    acls = glob.glob(f"{LIO}/iscsi/{iqn}/tpgt_*/acls/*")
    found = {os.path.basename(acl) for acl in acls if not read(f"{acl}/info").startswith("No active")}
    for path in glob.glob(f"{LIO}/iscsi/{iqn}/tpgt_*/dynamic_sessions"):
        found |= set(read(path).replace("\0", "\n").split())
    return sorted(found)


def stores() -> list[dict[str, Any]]:
    """The backstores of devices, and where they are LUNs, of whichever kind of target."""
    leads: dict[str, list[str]] = {}
    for folder in glob.glob(f"{LIO}/*/*/tpgt_*/lun/lun_*"):
        leads.setdefault(link_in(folder), []).append(os.path.relpath(folder, LIO))
    found = []
    for folder in sorted(glob.glob(f"{LIO}/core/iblock_*/*")):
        path = read(f"{folder}/udev_path")
        if path:
            luns = sorted(leads.get(os.path.realpath(folder), []))
            found.append({"name": os.path.basename(folder), "path": path, "node": node_of(path), "luns": luns})
    return found


def node_of(path: str) -> str:
    return os.path.realpath(path) if os.path.exists(path) else ""


def try_portal(portal: str) -> str:
    """Whether this host has an address and nobody listens there: empty, or the name of the error."""
    if glob.glob(f"{LIO}/iscsi/*/tpgt_*/np/{glob.escape(portal)}"):
        return ""  # LIO gives several targets one portal
    host, dummy, port = portal.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
            probe.listen()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""


def logins(targets: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """The login of each target that declares one."""
    return {
        str(one["target_iqn"]).lower(): (str(one["auth"].get("username")), str(one["auth"].get("password")))
        for one in targets
        if one.get("auth")
    }


def look(given: dict[str, Any]) -> dict[str, Any]:
    wanted = logins(given["targets"])
    iqns = [str(one["target_iqn"]).lower() for one in given["targets"]]
    zvols = [
        f"{ZVOLS}{one['source_name']}/{one['name']}"
        for target in given["targets"]
        for one in target.get("volumes") or []
    ]
    file = saved_file()
    whole, unreadable = read_saved(file)
    there = {iqn: running(iqn) for iqn in map(os.path.basename, glob.glob(f"{LIO}/iscsi/*")) if is_iqn(iqn)}
    stored = stores()
    now = {one["path"] for one in stored}
    alike = []
    for iqn in iqns:
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # what others wrote may lack anything
            alike += [iqn] if there.get(iqn) == saved(iqn, whole) else []
    return {
        "targets": {iqn: shown(found, wanted.get(iqn), sessions(iqn)) for iqn, found in there.items()},
        "stores": stored,
        "nodes": {path: node_of(path) for path in zvols},
        "tried": {portal: try_portal(portal) for portal in given.get("portals") or []},
        "saved": {
            "file": file,
            "unreadable": unreadable,
            "alike": [] if unreadable else alike,
            "targets": [str(one.get("wwn")) for one in whole.get("targets", []) if one.get("fabric") == "iscsi"],
            "lost": sorted(
                {str(one["dev"]) for one in whole.get("storage_objects", []) if one.get("plugin") == "block"
                 and one.get("dev")} - now
            ),
        },
    }  # fmt: skip


def is_iqn(name: str) -> bool:
    return re.match(r"(iqn|eui|naa)\.", name) is not None  # beside them is discovery_auth


def read_saved(file: str) -> tuple[dict[str, Any], str]:
    """The saved configuration, and why it can't be read. A word of it may be a password, so no error shows any."""
    if not file or not os.path.exists(file):
        return {}, ""
    try:
        with open(file, encoding="utf-8") as source:
            whole = json.load(source)
    except OSError as error:
        return {}, error.strerror or "no access"
    except ValueError:
        return {}, "it is no JSON"
    lists = isinstance(whole, dict) and [whole.get("targets", []), whole.get("storage_objects", [])]
    if not lists or not all(isinstance(one, list) and all(isinstance(part, dict) for part in one) for one in lists):
        return {}, "it is no configuration of LIO"
    return whole, ""


def shown(found: dict[str, Any] | None, login: tuple[str, str] | None, live: list[str]) -> dict[str, Any]:
    """A target for the way out."""
    if found is None:
        return {"attributes": None, "live": live}
    acls = {}
    for name, acl in found["acls"].items():
        has = (acl["username"], acl["password"])
        word = "none" if not acl["username"] else "declared" if has == login else "other"
        acls[name] = {"luns": acl["luns"], "login": word}
    luns = [
        {"number": number, "name": name, "path": path, "node": node_of(path), "serial": serial}
        for number, (name, path, serial) in sorted(found["luns"].items())
    ]
    return {**found, "portals": sorted(found["portals"]), "luns": luns, "acls": acls, "live": live}


# Acting.


class Lio:
    """What is done with rtslib. Without a password in any message: rtslib gets it as a value of an attribute."""

    def __init__(self, logins: dict[str, tuple[str, str]]) -> None:
        try:
            import rtslib_fb as rtslib
        except ImportError:
            import rtslib
        self.rtslib: Any = rtslib
        self.root = rtslib.RTSRoot()
        self.logins = logins

    def target(self, iqn: str) -> Any:
        return self.rtslib.Target(self.rtslib.FabricModule("iscsi"), iqn)

    def group(self, iqn: str) -> Any:
        return self.rtslib.TPG(self.target(iqn), 1)

    def acl(self, iqn: str, initiator: str) -> Any:
        return self.rtslib.NodeACL(self.group(iqn), initiator)

    def portal(self, iqn: str, portal: str) -> Any:
        host, dummy, port = portal.rpartition(":")
        return self.rtslib.NetworkPortal(self.group(iqn), host, int(port))

    @staticmethod
    def unused(iqn: str, initiator: str = "") -> None:
        """Somebody may have logged in since it was decided."""
        live = [name for name in sessions(iqn) if name == initiator or not initiator]
        if live:
            raise RuntimeError(f"{', '.join(live)} has logged in by now")

    def shut_out(self, iqn: str, initiator: str) -> None:
        self.unused(iqn, initiator)
        self.acl(iqn, initiator).delete()

    def close(self, iqn: str, portal: str) -> None:
        self.unused(iqn)
        self.portal(iqn, portal).delete()

    def set(self, iqn: str, name: str, value: str) -> None:
        self.group(iqn).set_attribute(name, value)

    def enable(self, iqn: str) -> None:
        self.group(iqn).enable = True

    def login(self, iqn: str, initiator: str) -> None:
        acl = self.acl(iqn, initiator)
        acl.chap_userid, acl.chap_password = self.logins.get(iqn, ("", ""))

    def show(self, iqn: str, initiator: str, number: int) -> None:
        self.rtslib.MappedLUN(self.acl(iqn, initiator), number, number)

    def export(self, iqn: str, number: int, zvol: str) -> None:
        """The serial, of which the WWN is made, is the GUID of the zvol: one made anew is another disk."""
        path = f"{ZVOLS}{zvol}"
        command("udevadm", "settle", f"--exit-if-exists={path}", "--timeout=30")
        node = node_of(path)
        has = [one["name"] for one in stores() if one["path"] == path or (node and one["node"] == node)]
        if has:
            backstore = self.rtslib.BlockStorageObject(has[0])
        else:
            done = command("zfs", "get", "-H", "-p", "-o", "value", "guid", zvol)
            if not re.fullmatch(r"[1-9][0-9]*", done.stdout.strip()):  # two disks of one WWN would be taken for one
                raise RuntimeError(f"zfs does not tell its GUID ({done.stderr.strip()})")
            wwn = f"{int(done.stdout):016x}"
            backstore = self.rtslib.BlockStorageObject(zvol.replace("/", "+"), dev=path, wwn=wwn)
            backstore.set_attribute("emulate_tpu", 1)  # what guests discard is given back
        self.rtslib.LUN(self.group(iqn), number, backstore)

    def drop(self, iqn: str, number: int, path: str, despite_sessions: bool) -> None:
        if not despite_sessions:
            self.unused(iqn)
        lun = self.rtslib.LUN(self.group(iqn), number)
        backstore = lun.storage_object
        if str(backstore.udev_path) != path:
            raise RuntimeError(f"it is {backstore.udev_path} by now")
        lun.delete()  # and from every initiator
        self.let_go(backstore)

    def take_away(self, iqn: str, despite_sessions: bool) -> None:
        if not despite_sessions:
            self.unused(iqn)
        target = self.target(iqn)
        backstores = [lun.storage_object for group in target.tpgs for lun in group.luns]
        target.delete()
        for backstore in backstores:
            self.let_go(backstore)

    @staticmethod
    def let_go(backstore: Any) -> None:
        """A zvol that no target has any more."""
        if str(backstore.udev_path).startswith(ZVOLS) and not list(backstore.attached_luns):
            backstore.delete()
            command("udevadm", "settle", "--timeout=30")  # which looks at a device that was let go, and keeps it busy

    @staticmethod
    def note(zvol: str, source: str, number: int, last: int) -> None:
        for name, key, value in ((zvol, "kvm.storage:lun", number), (source, "kvm.storage:last_lun", last)):
            done = command("zfs", "set", f"{key}={value}", name)
            if done.returncode:
                raise RuntimeError(done.stderr.strip())

    def save(self) -> None:
        """rtslib copies over the file, so that a crash would leave half of it: it gets a name of its own first."""
        file = saved_file() or SAVED[1]
        self.root.save_to_file(f"{file}.new")
        os.chmod(f"{file}.new", 0o600)
        with open(f"{file}.new", "rb") as whole:
            os.fsync(whole.fileno())
        os.replace(f"{file}.new", file)


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return subprocess.run(
        argv, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C", "PATH": path},
    )  # fmt: skip


def act(given: dict[str, Any]) -> dict[str, Any]:
    """Until something fails; what was not saved is seen by the next look."""
    known_logins = logins(given["targets"])
    lio: Lio | None = None
    done: list[str] = []
    for action in given["actions"]:
        try:
            lio = lio or Lio(known_logins)
            getattr(lio, action["method"])(*action["arguments"])
        except Exception as error:  # what rtslib raises has no common class in all its releases
            said = str(error)
            for password in [login[1] for login in known_logins.values() if login[1]]:
                said = said.replace(password, "********")
            words = f"LIO: cannot {action['say']}: {said}; what was done until then is kept; run this again"
            return {"problems": [words], "done": done}
        done.append(action["say"])
    return {"problems": [], "done": done}


if __name__ == "__main__":
    # the role sends this program with its input, so the input may have been read already
    document = globals().get("given") or json.load(sys.stdin)
    json.dump(act(document) if document.get("actions") else look(document), sys.stdout)
