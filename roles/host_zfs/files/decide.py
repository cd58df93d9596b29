# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides what is to be done so that the zpools of this host are as declared. It reads, and changes nothing.

Run by the role host_zfs on the host: a JSON document comes in, and one goes out.

in   pools and arc_max as declared, devices (what device_info told of each), arc_file (of modprobe.d)
out  problems (each "thing: reason; way out"), steps (name, argv, stdin), datasets (name, properties, there),
     zvols that would be destroyed, arc (parameters of the module), module (loaded, there, missing),
     seen (whether ZFS answered), imports (whether a second look is needed once the steps are done)
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

CACHE = "/etc/zfs/zpool.cache"
HOSTID = "/etc/hostid"
DEBIAN_CRON = "/etc/cron.d/zfsutils-linux"  # scrubs all zpools each month, but those with this property
DEBIAN_SCRUB = "org.debian:periodic-scrub"
ARC_LEAST = 64 << 20  # what the module takes for a limit at all

# What brings zpools, their file systems and the links of zvols back at boot. Not every package has all of them.
UNITS = (
    "zfs-load-module.service", "zfs-import-cache.service", "zfs-import.target", "zfs-mount.service",
    "zfs-volume-wait.service", "zfs-volumes.target", "zfs-zed.service", "zfs.target",
)  # fmt: skip
TIMERS = ("monthly", "weekly")

# Guests whose disks are zvols would else be started before the links of these are there.
ORDER = "# of the role kvm.storage.host_zfs\n[Unit]\nBefore=libvirtd.service virtqemud.service virtstoraged.service\n"
ORDER_FILE = "/etc/systemd/system/zfs-volumes.target.d/host_zfs.conf"

POOL_NAME = re.compile(r"(?!mirror|raidz|draid|spare)(?!log\Z)[A-Za-z][A-Za-z0-9_.:-]{0,199}")
DATASET_NAME = re.compile(r"(?!\.{1,2}(/|\Z))[A-Za-z0-9_.:-]+(/(?!\.{1,2}(/|\Z))[A-Za-z0-9_.:-]+)*")
HEADINGS = {"special": "special", "dedup": "dedup", "logs": "log", "cache": "cache", "spares": "spare"}
ROLES = ("data", "special", "dedup", "log", "cache", "spare")  # in the order in which zpool is told of them
LEAST = {"": 1, "mirror": 2, "raidz1": 2, "raidz2": 3, "raidz3": 4}  # devices of one vdev

# Properties that stay as the dataset was made; what zfs calls by two names; numbers, of which 0 is "none".
BORN_WITH = {"casesensitivity", "encryption", "keyformat", "normalization", "pbkdf2iters", "utf8only"}
ALIASES = {
    ("acltype", "posixacl"): "posix",
    ("acltype", "noacl"): "off",
    ("compression", "gzip-6"): "gzip",
}
SIZES = {"quota", "refquota", "reservation", "refreservation", "recordsize", "special_small_blocks"}
SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([kmgtpe]?)(ib|b)?", re.IGNORECASE)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """A command that only reads; one that is not there fails like one that has nothing to tell."""
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
            return file.read().strip()
    except OSError:
        return ""


def unit_file(name: str) -> str:
    """The text of a unit; nothing where there is none or it is masked."""
    found = (
        read(f"{folder}/{name}") for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
    )
    masked = os.path.realpath(f"/etc/systemd/system/{name}") == "/dev/null"
    return "" if masked else next(filter(None, found), "")


def enabled(name: str) -> bool:
    """Whether systemd starts a unit at boot. systemctl says so too, but takes its time."""
    return bool(glob.glob(f"/etc/systemd/system/*.wants/{glob.escape(name)}"))


def table(*argv: str) -> list[list[str]]:
    return [line.split("\t") for line in run(*argv).stdout.splitlines()]


def size_of(text: str) -> int:
    """Bytes, with the units of the collection: GiB and G count in 1024, GB in 1000."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    whole, decimals, letter, ending = match.groups(default="")
    base = 1000 if letter and ending.lower() == "b" else 1024
    scale = base ** ("kmgtpe".index(letter.lower()) + 1) if letter else 1
    return int(int(whole + decimals) * scale // 10 ** len(decimals))


def value_of(name: str, value: Any) -> str:
    """A value as `get -p` shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value).strip()
    if name in SIZES:
        if text == "none":
            return "0"
        if SIZE.fullmatch(text):
            return str(size_of(text))
    if name == "mountpoint" and len(text) > 1:
        return text.rstrip("/")
    return ALIASES.get((name, text), text)


def values_of(properties: dict[str, Any]) -> dict[str, str]:
    return {str(name): value_of(str(name), value) for name, value in properties.items()}


def agrees(name: str, wanted: str, found: str) -> bool:
    if wanted == found:
        return True
    if name == "encryption" and wanted == "on":
        return found not in ("off", "-")
    if name == "xattr":  # which of the two other names `on` stands for has changed with the release
        return wanted == "on" and found in ("sa", "dir")
    if name.startswith("feature@"):
        return wanted == "enabled" and found == "active"
    if name == "cachefile":
        return wanted == CACHE and found == "-"
    return False


# ------------------------------------------------------------------------------------------------------ devices


def disk_of(node: str) -> str:
    """The disk that ZFS has partitioned for itself, of one of its members: partition 1 with an empty 9 beside it."""
    name = os.path.basename(node)
    if read(f"/sys/class/block/{name}/dm/uuid").startswith("part1-"):
        for slave in os.listdir(f"/sys/class/block/{name}/slaves"):
            return f"/dev/{slave}"
    if read(f"/sys/class/block/{name}/partition") != "1":
        return node
    disk = os.path.dirname(os.path.realpath(f"/sys/class/block/{name}"))
    numbers = {read(path) for path in glob.glob(f"{disk}/*/partition")}
    return f"/dev/{os.path.basename(disk)}" if numbers == {"1", "9"} else node


def keys_of(path: str) -> set[str]:
    """By what a device is known again, whichever of its names is used; for one that is gone, its possible names."""
    if os.path.exists(path):
        return {disk_of(os.path.realpath(path))}
    return {path, re.sub(r"-part1\Z", "", path), re.sub(r"(?<=[a-z])1\Z|(?<=\d)p1\Z", "", path)}


def label_of(device: dict[str, Any]) -> tuple[str, str]:
    """Name and GUID of the zpool that a device says it belongs to, both empty where it says nothing."""
    for node in (device["node"], *device["partitions"]):
        told = dict(line.partition("=")[::2] for line in run("blkid", "-p", "-o", "export", node).stdout.splitlines())
        if told.get("TYPE") == "zfs_member":
            return told.get("LABEL", ""), told.get("UUID", "")
    return "", ""


@dataclass
class Vdev:
    """One vdev, declared or found: its devices by name, the keys of each, and their nodes."""

    role: str
    kind: str
    names: list[str] = field(default_factory=list)
    members: list[set[str]] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One device more, or the name of a group of devices of which one stands in for the other."""
        self.names.append(name)
        self.members.append(set())
        if name.startswith("/"):
            self.stand_in(name)

    def stand_in(self, name: str) -> None:
        """The last device may also be this one."""
        self.members[-1] |= keys_of(name)
        if os.path.exists(name):
            self.nodes.append(os.path.realpath(name))

    def same(self, other: Vdev) -> bool:
        return (
            (self.role, self.kind, len(self.members)) == (other.role, other.kind, len(other.members))
            and all(any(mine & theirs for theirs in other.members) for mine in self.members)
        )  # fmt: skip

    def meets(self, other: Vdev) -> bool:
        return any(mine & theirs for mine in self.members for theirs in other.members)

    @property
    def tolerates(self) -> int:
        """How many of its devices may fail."""
        return len(self.names) - 1 if self.kind == "mirror" else int(self.kind[-1:] or 0) if self.kind else 0

    def __str__(self) -> str:
        words = [*([self.role] if self.role != "data" else []), *([self.kind, "of"] if self.kind else [])]
        return " ".join([*words, " and ".join(re.sub(r"-part1\Z", "", name) for name in self.names)])


def declared_vdevs(items: list[dict[str, Any]]) -> list[Vdev]:
    """Devices without a type are a vdev each."""
    found = []
    for item in items:
        role, kind = item.get("role") or "data", item.get("type") or ""
        kind = {"raidz": "raidz1", "stripe": ""}.get(kind, kind)
        group = Vdev(role, kind)
        for path in item.get("devices") or []:
            if kind == "":
                group = Vdev(role, kind)
                found.append(group)
            group.add(path)
        if kind:
            found.append(group)
    return found


def topology(text: str) -> list[Vdev]:
    """The vdevs of `zpool status -P`, whose depth is told by how far a line is indented."""
    found: list[Vdev] = []
    role, inside, began = "data", False, False
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if not inside:
            inside = words[0] == "NAME"
            continue
        if line.startswith("errors:"):
            break
        body = line.lstrip("\t")
        depth = len(body) - len(body.lstrip(" "))
        name = words[0]
        if depth == 0:
            role = HEADINGS.get(name, role) if began else "data"
            began = True
            continue
        if not name.startswith("/") and "was" in words:
            name = words[words.index("was") + 1]
        kind = re.sub(r"-\d+\Z", "", name)
        if depth == 2 and (name.startswith("/") or kind in ("spare", "replacing")):
            found.append(Vdev(role, ""))
            found[-1].add(name)
        elif depth == 2:
            found.append(Vdev(role, kind))
        elif depth > 4 or found[-1].kind == "":
            found[-1].stand_in(name)
        else:
            found[-1].add(name)
    return [vdev for vdev in found if vdev.kind not in ("indirect", "hole")]


def arguments(vdevs: list[Vdev]) -> list[str]:
    """As zpool takes them: each role once, with all its vdevs behind it."""
    words: list[str] = []
    for role in ROLES:
        mine = [vdev for vdev in vdevs if vdev.role == role]
        words += [role] if mine and role != "data" else []
        for vdev in mine:
            words += [*([vdev.kind] if vdev.kind else []), *vdev.names]
    return words


def options(flag: str, values: dict[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (flag, f"{name}={value}")]


# ------------------------------------------------------------------------------------------------------ deciding

Wanted = dict[str, tuple[dict[str, str], bool]]  # by dataset: its properties, and whether its zpool is there


class Plan:
    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.devices = {one["path"]: one for one in given["devices"]}
        self.problems: list[str] = []
        self.steps: list[dict[str, Any]] = []
        self.datasets: list[dict[str, Any]] = []
        self.zvols: list[str] = []
        self.arc: dict[str, int] = {}
        self.imports = False
        self.module = "missing"
        if os.path.isdir("/sys/module/zfs"):
            self.module = "loaded"
        elif run("modinfo", "zfs").returncode == 0:
            self.module = "there"
        listed = run("zpool", "list", "-H", "-o", "name") if self.module == "loaded" else None
        self.seen = listed is not None and listed.returncode == 0
        self.there = set(listed.stdout.split()) if listed else set()
        self.present: list[tuple[dict[str, Any], bool]] = []  # each with whether it is there already

    def problem(self, thing: str, reason: str, way_out: str) -> None:
        self.problems.append(f"{thing}: {reason}; {way_out}")

    def step(self, name: str, *argv: str, stdin: str | None = None) -> None:
        self.steps.append({"name": name, "argv": argv, **({} if stdin is None else {"stdin": stdin})})

    def decide(self) -> dict[str, Any]:
        pools = self.merged()
        self.check(pools)
        if not self.problems:
            self.limit_arc()
            for pool in pools:
                if pool["state"] == "absent":
                    self.let_go(pool)
            if self.seen and not os.path.exists(HOSTID) and self.wants(pools):
                self.step("have a host ID", "zgenhostid")
            for pool in self.wants(pools):
                self.have(pool)
            self.have_datasets()
            self.have_units(pools)
        return {
            "problems": self.problems,
            "steps": self.steps,
            "datasets": self.datasets,
            "zvols": self.zvols,
            "arc": self.arc,
            "module": self.module,
            "seen": self.seen,
            "imports": self.imports,
        }

    @staticmethod
    def wants(pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [pool for pool in pools if pool["state"] == "present"]

    # what is declared

    def merged(self) -> list[dict[str, Any]]:
        """The zpools, one item each: several libvirt pools may ask for what they need of one."""
        found: dict[str, dict[str, Any]] = {}
        for item in self.given["pools"]:
            pool = found.setdefault(str(item["name"]), {
                "name": str(item["name"]), "state": item.get("state") or "present", "vdevs": [], "properties": {},
                "filesystem_properties": {}, "datasets": {}, "overwrite": [], "scrub": None, "delete_data": False,
            })  # fmt: skip
            vdevs = item.get("vdevs") or []
            if pool["state"] != (item.get("state") or "present") or (vdevs and pool["vdevs"] not in ([], vdevs)):
                self.unlike(pool["name"], "state or vdevs")
            pool["vdevs"] = pool["vdevs"] or vdevs
            pool["overwrite"] += item.get("overwrite") or []
            pool["delete_data"] = pool["delete_data"] or bool(item.get("delete_data"))
            if item.get("scrub"):
                self.put(pool, {"scrub": pool["scrub"]} if pool["scrub"] else {}, {"scrub": item["scrub"]})
                pool["scrub"] = item["scrub"]
            for key in ("properties", "filesystem_properties"):
                self.put(pool, pool[key], values_of(item.get(key) or {}))
            for dataset in item.get("datasets") or []:
                name = str(dataset["name"])
                state = dataset.get("state") or "present"
                known = pool["datasets"].setdefault(name, {"state": state, "properties": {}, "delete_data": False})
                known["delete_data"] = known["delete_data"] or bool(dataset.get("delete_data"))
                self.put(pool, {"state": known["state"]}, {"state": state})
                self.put(pool, known["properties"], values_of(dataset.get("properties") or {}))
        return list(found.values())

    def put(self, pool: dict[str, Any], known: dict[str, Any], more: dict[str, Any]) -> None:
        for name, value in more.items():
            if known.setdefault(name, value) != value:
                self.unlike(pool["name"], name)

    def unlike(self, name: str, what: str) -> None:
        self.problem(f"zpool {name}", f"it is declared twice, with different {what}", "declare it once, or alike")

    def check(self, pools: list[dict[str, Any]]) -> None:
        """What is wrong whatever the host is like."""
        users: dict[str, str] = {}
        for pool in pools:
            thing = f"zpool {pool['name']}"
            if not POOL_NAME.fullmatch(pool["name"]):
                self.problem(
                    thing, "zpool takes no such name",
                    "use A-Z a-z 0-9 _ . : -, and begin with a letter, but not with mirror, raidz, draid or spare",
                )  # fmt: skip
            vdevs = declared_vdevs(pool["vdevs"])
            names = [name for vdev in vdevs for name in vdev.names]
            for vdev in vdevs:
                if len(vdev.names) < LEAST[vdev.kind]:
                    self.problem(thing, f"a {vdev.kind} has too few devices", f"give at least {LEAST[vdev.kind]}")
                if vdev.kind and (vdev.role in ("cache", "spare") or (vdev.role == "log" and vdev.kind != "mirror")):
                    self.problem(thing, f"a {vdev.role} can't be a {vdev.kind}", "leave its type out")
            for name in pool["overwrite"]:
                if name not in names:
                    self.problem(thing, f"{name} is in overwrite, and in no vdev", "name it as in devices")
            for name in names if pool["state"] == "present" else []:
                key = disk_of(os.path.realpath(name))
                if key in users:
                    self.problem(f"device {name}", f"it is declared for {users[key]} already", "declare it once")
                users[key] = thing
            for name, dataset in pool["datasets"].items():
                self.check_dataset(f"dataset {pool['name']}/{name}", name, dataset)

    def check_dataset(self, thing: str, name: str, dataset: dict[str, Any]) -> None:
        if not DATASET_NAME.fullmatch(name):
            self.problem(thing, "zfs takes no such name", "give its name below the zpool, such as vms or vms/web")
        if "volsize" in dataset["properties"]:
            self.problem(thing, "it would be a zvol", "leave volsize out; kvm.storage.volume makes zvols")
        if dataset["state"] == "absent" and not dataset["delete_data"]:
            self.problem(
                thing, "to take it away is to destroy what it holds", "say delete_data: true, or leave it undeclared"
            )

    # the ARC

    def limit_arc(self) -> None:
        text = str(self.given["arc_max"]).strip()
        if text in ("", "default"):
            return
        thing = "host_zfs_arc_max"
        try:
            most = size_of(text)
        except ValueError:
            self.problem(thing, f"{text!r} is no size", "give one such as 4GiB")
            return
        memory = int(re.findall(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))[0]) * 1024
        if not ARC_LEAST <= most < memory:
            self.problem(
                thing,
                f"ZFS would ignore {text}",
                f"give at least 64MiB, and less than the {memory >> 20} MiB there are",
            )
        others = set(glob.glob("/etc/modprobe.d/*.conf")) - {self.given["arc_file"]}
        for path in sorted(others):
            if re.search(r"^\s*options\s+zfs\s.*zfs_arc_max=", read(path), re.MULTILINE):
                self.problem(thing, f"{path} sets zfs_arc_max too", "take it out there")
        # ZFS ignores a limit that is not above the least size, which is 1/32 of the memory unless it is set
        least = {"zfs_arc_min": max(most // 2, 32 << 20)} if most <= memory // 16 else {}
        self.arc = {**least, "zfs_arc_max": most}
        for name, value in self.arc.items() if self.module == "loaded" else ():
            path = f"/sys/module/zfs/parameters/{name}"
            if read(path) != str(value):
                self.step(f"set {name} at once", "tee", path, stdin=str(value))

    # zpools

    def let_go(self, pool: dict[str, Any]) -> None:
        name = pool["name"]
        self.have_timer(name, "never")
        if name not in self.there:
            if pool["delete_data"] and self.seen:
                self.clear(name, declared_vdevs(pool["vdevs"]))
            return
        found = topology(run("zpool", "status", "-P", name).stdout)
        for vdev in declared_vdevs(pool["vdevs"]):
            members = [key for has in found for key in has.members]
            strangers = [one for one in vdev.names if not any(keys_of(one) & key for key in members)]
            if strangers:
                self.problem(
                    f"zpool {name}", f"{strangers[0]} is declared, and is no part of the one on this host",
                    "leave vdevs out to mean the one that is there",
                )  # fmt: skip
        if not pool["delete_data"]:
            self.step(f"export zpool {name}", "zpool", "export", name)
            return
        self.zvols += self.zvols_of(name)
        self.step(f"destroy zpool {name}", "zpool", "destroy", name)
        self.wipe(name, [node for vdev in found for node in vdev.nodes])

    def clear(self, name: str, vdevs: list[Vdev]) -> None:
        """Another one may have destroyed it, such as libvirt with its pool, and left the labels."""
        devices = [self.devices[one] for vdev in vdevs for one in vdev.names]
        whole = [one for one in devices if one["exists"] and not one["users"] and self.wholly(one)]
        labels = {one["path"]: label_of(one) for one in whole}
        mine = [one for one in whole if labels[one["path"]][0] == name]
        for guid in sorted({labels[one["path"]][1] for one in mine}):
            if self.offered(guid):
                self.problem(
                    f"zpool {name}", "it is exported, so it can't be destroyed",
                    "import it first ('zpool import'), or leave delete_data out",
                )  # fmt: skip
                return
        self.wipe(name, [node for one in mine for node in [*one["partitions"][:1], one["node"]]])

    @staticmethod
    def wholly(device: dict[str, Any]) -> bool:
        """Whether a disk has no partitions but those that ZFS makes."""
        return not device["partitions"] or disk_of(device["partitions"][0]) == device["node"]

    def wipe(self, name: str, parts: list[str]) -> None:
        """So that its disks are blank again, as they were."""
        nodes = [*parts, *(disk for disk in map(disk_of, parts) if disk not in parts)]
        if nodes:
            self.step(f"wipe the labels of zpool {name}", "wipefs", "--all", "--quiet", *nodes)

    @staticmethod
    def zvols_of(name: str) -> list[str]:
        return [f"/dev/zvol/{row[0]}" for row in table("zfs", "list", "-H", "-r", "-t", "volume", "-o", "name", name)]

    def have(self, pool: dict[str, Any]) -> None:
        name = pool["name"]
        pool["properties"].setdefault("cachefile", CACHE)  # from which the boot imports it
        if pool["scrub"] and (os.path.exists(DEBIAN_CRON)):
            pool["filesystem_properties"].setdefault(DEBIAN_SCRUB, "disable")  # once is enough
        vdevs = declared_vdevs(pool["vdevs"])
        if name in self.there:
            self.present.append((pool, True))
            self.extend(pool, vdevs)
            self.set_properties(pool)
        elif not vdevs:
            self.problem(
                f"zpool {name}", "it is not on this host, and to make it its devices must be known",
                "give vdevs, or import it ('zpool import' lists what can be)",
            )  # fmt: skip
        elif guid := self.importable(name, vdevs):
            self.imports = True
            self.step(f"import zpool {name}", "zpool", "import", *options("-o", self.settable(pool)), guid)
        elif self.usable(name, vdevs, pool["overwrite"]) and self.balanced(name, vdevs):
            self.present.append((pool, False))
            words = [
                *self.force(vdevs, pool["overwrite"]),
                *options("-o", pool["properties"]),
                *options("-O", pool["filesystem_properties"]),
                name,
                *arguments(vdevs),
            ]
            self.try_out(f"zpool {name}", "zpool", "create", "-n", *words)
            self.step(f"create zpool {name}", "zpool", "create", *words)
        if pool["scrub"]:
            self.have_timer(name, pool["scrub"])

    @staticmethod
    def settable(pool: dict[str, Any]) -> dict[str, str]:
        return {name: value for name, value in pool["properties"].items() if name == "cachefile"}

    def importable(self, name: str, vdevs: list[Vdev]) -> str:
        """The GUID of the zpool of this name to which all the devices belong."""
        devices = [self.devices[one] for vdev in vdevs if vdev.role not in ("cache", "spare") for one in vdev.names]
        if not all(one["exists"] and not one["blank"] for one in devices):
            return ""
        labels = {label_of(one) for one in devices}
        if len(labels) != 1:
            return ""
        ((label, guid),) = labels
        if label != name or not guid or not self.seen:
            return guid if label == name else ""
        words = self.offered(guid)
        if not words:
            return ""  # it was destroyed
        if "cannot be imported" in words or "'-f'" in words:
            said = " ".join(re.findall(r"(?:status|action): .*", words)) or words
            self.problem(f"zpool {name}", f"it can't be imported as it is ({said})", "see to it by hand")
        return guid

    @staticmethod
    def offered(guid: str) -> str:
        """What zpool says of one that it could import, on one line."""
        blocks = re.split(r"^\s*pool: ", run("zpool", "import").stdout, flags=re.MULTILINE)
        mine = [block for block in blocks if re.search(rf"^\s*id: {guid}$", block, re.MULTILINE)]
        return " ".join(mine[0].partition("config:")[0].split()) if mine else ""

    def usable(self, name: str, vdevs: list[Vdev], overwrite: list[str]) -> bool:
        before = len(self.problems)
        for path in [one for vdev in vdevs for one in vdev.names]:
            device = self.devices[path]
            thing = f"device {path}"
            if not device["exists"]:
                self.problem(
                    thing, f"there is no such block device on this host, and zpool {name} is to be made of it",
                    "ls -l /dev/disk/by-id shows those that are there",
                )  # fmt: skip
            elif device["users"]:
                self.problem(thing, f"it is in use ({', '.join(device['users'])})", f"give zpool {name} another one")
            elif not device["blank"] and path not in overwrite:
                label = label_of(device)[0]
                holds = [*device["holds"], *([f"a member of zpool {label}"] if label else [])]
                self.problem(
                    thing, f"it is not blank: it holds {', '.join(holds) or 'partitions'}",
                    f"name it in overwrite of zpool {name} to give up what it holds, or name another one",
                )  # fmt: skip
        return len(self.problems) == before

    def balanced(self, name: str, vdevs: list[Vdev]) -> bool:
        """zpool asks for this too, but not when it is forced."""
        if len({vdev.tolerates for vdev in vdevs if vdev.role in ("data", "special", "dedup")}) < 2:
            return True
        self.problem(
            f"zpool {name}", "its vdevs of data, special and dedup survive the loss of different numbers of devices",
            "give them all the same redundancy, for with one of them the whole zpool is lost",
        )  # fmt: skip
        return False

    def force(self, vdevs: list[Vdev], overwrite: list[str]) -> list[str]:
        """-f, only where a device is given up by name: all others are blank, see usable()."""
        names = [one for vdev in vdevs for one in vdev.names]
        return ["-f"] if any(one in overwrite and not self.devices[one]["blank"] for one in names) else []

    def try_out(self, thing: str, *argv: str) -> None:
        if not self.seen:
            return
        done = run(*argv)
        if done.returncode:
            said = " ".join(done.stderr.replace("invalid vdev specification", "").split())
            self.problem(thing, f"ZFS refuses it ({said})", "declare what it takes")

    def extend(self, pool: dict[str, Any], vdevs: list[Vdev]) -> None:
        """The vdevs that are not there yet are added; any other difference is for people to decide on."""
        if not vdevs:
            return
        name = pool["name"]
        undeclared = topology(run("zpool", "status", "-P", name).stdout)
        missing = []
        for vdev in vdevs:
            match = next((one for one in undeclared if vdev.same(one)), None)
            if match:
                undeclared.remove(match)
            else:
                missing.append(vdev)
        if undeclared or any(one.meets(vdev) for vdev in missing for one in undeclared):
            wants = f"{', '.join(map(str, missing))} is declared, and " if missing else ""
            self.problem(
                f"zpool {name}",
                f"{wants}it has {', '.join(map(str, undeclared))}, which adding vdevs can't change",
                "declare it as it is, or change it by zpool attach, detach, replace or remove",
            )
        elif missing and self.usable(name, missing, pool["overwrite"]) and self.balanced(name, vdevs):
            words = [
                *self.force(missing, pool["overwrite"]),
                *options("-o", {key: value for key, value in pool["properties"].items() if key == "ashift"}),
                name,
                *arguments(missing),
            ]
            self.try_out(f"zpool {name}", "zpool", "add", "-n", *words)
            self.step(f"add {', '.join(map(str, missing))} to zpool {name}", "zpool", "add", *words)

    def set_properties(self, pool: dict[str, Any]) -> None:
        rows = table("zpool", "get", "-H", "-p", "-o", "property,value", "all", pool["name"])
        found = {row[0]: row[1] for row in rows}
        for name, value in pool["properties"].items():
            if name not in found and not name.startswith("feature@") and ":" not in name:
                self.problem(f"zpool {pool['name']}", f"this ZFS has no property {name}", "leave it out")
            elif not agrees(name, value, found.get(name, "-")):
                label = f"set {name}={value} of zpool {pool['name']}"
                self.step(label, "zpool", "set", f"{name}={value}", pool["name"])

    # datasets

    def have_datasets(self) -> None:
        """One question for all of them; what differs goes to the module zfs, and what is to go is tried out first."""
        wanted: Wanted = {}
        gone = []
        for pool, there in self.present:
            if there:
                wanted[pool["name"]] = (pool["filesystem_properties"], True)
            for name, dataset in sorted(pool["datasets"].items(), key=lambda one: (one[0].count("/"), one[0])):
                full = f"{pool['name']}/{name}"
                if dataset["state"] == "present":
                    wanted[full] = (dataset["properties"], there)
                elif there:
                    gone.append(full)
        found = self.properties_of(wanted, gone)
        for name, (properties, there) in wanted.items():
            known = found.get(name)
            if known is None:
                self.datasets.append({"name": name, "properties": properties, "there": there})
                continue
            if known["type"] != "filesystem":
                self.problem(f"dataset {name}", f"it is a {known['type']}", "choose another name")
            unlike = {key: value for key, value in properties.items() if not agrees(key, value, known.get(key, "-"))}
            for key in sorted(unlike.keys() & BORN_WITH):
                self.problem(f"dataset {name}", f"its {key} is {known[key]} and stays so", "declare it as it is")
            if unlike:
                self.datasets.append({"name": name, "properties": unlike, "there": True})
        for name in gone:
            if name in found:
                self.zvols += self.zvols_of(name)
                self.try_out(f"dataset {name}", "zfs", "destroy", "-n", "-r", name)
                self.step(f"destroy dataset {name}", "zfs", "destroy", "-r", name)

    def properties_of(self, wanted: Wanted, gone: list[str]) -> dict[str, dict[str, str]]:
        names = [*(name for name, (_properties, there) in wanted.items() if there), *gone]
        if not names:
            return {}
        asked = sorted({"type", *(key for properties, _there in wanted.values() for key in properties)})
        done = run("zfs", "get", "-H", "-p", "-o", "name,property,value", ",".join(asked), *names)
        for line in done.stderr.splitlines():
            if "bad property list" in line or "invalid property" in line:
                self.problem("host_zfs_pools", line.strip(), "leave that property out")
                break
        found: dict[str, dict[str, str]] = {}
        for line in done.stdout.splitlines():
            name, key, value = line.split("\t")
            found.setdefault(name, {})[key] = value
        return found

    # units

    def have_units(self, pools: list[dict[str, Any]]) -> None:
        if not self.wants(pools):
            self.leave_order(pools)
            return
        off = [unit for unit in UNITS if "WantedBy=" in unit_file(unit) and not enabled(unit)]
        if read(ORDER_FILE) != ORDER.strip():
            self.step("start libvirt after zvols", "install", "-D", "-m", "0644", "/dev/stdin", ORDER_FILE, stdin=ORDER)
            if not off:
                self.step("read the units anew", "systemctl", "daemon-reload")
        if off:  # this reads the units anew as well
            self.step("bring zpools back at boot", "systemctl", "enable", *off)

    def leave_order(self, pools: list[dict[str, Any]]) -> None:
        """With the last zpool goes what was set for the sake of zpools."""
        if pools and os.path.exists(ORDER_FILE) and not self.there - {pool["name"] for pool in pools}:
            folder = os.path.dirname(ORDER_FILE)
            gone = ["-r", folder] if os.listdir(folder) == [os.path.basename(ORDER_FILE)] else [ORDER_FILE]
            self.step("start libvirt without regard to zvols", "rm", *gone)
            self.step("read the units anew", "systemctl", "daemon-reload")

    def have_timer(self, name: str, wanted: str) -> None:
        if not self.seen:
            return
        for word in TIMERS:
            timer = f"zfs-scrub-{word}@{name}.timer"
            if word == wanted and not unit_file(f"zfs-scrub-{word}@.timer"):
                self.problem(f"zpool {name}", f"the ZFS of this host has no {timer}", "leave scrub out")
            elif word == wanted and not enabled(timer):
                self.step(f"scrub zpool {name} {word}", "systemctl", "enable", "--now", timer)
            elif word != wanted and enabled(timer):
                self.step(f"scrub zpool {name} no longer {word}", "systemctl", "disable", "--now", timer)


if __name__ == "__main__":
    # the role sends this program with its input, so the input may have been read already
    json.dump(Plan(globals().get("given") or json.load(sys.stdin)).decide(), sys.stdout)
