# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with declared zpools and the limit of the ARC, and what is to be done, from what was seen on the host.

Nothing here looks or acts. Sources: zpool-status(8), zpool-import(8), zpoolprops(7) and zfsprops(7) of OpenZFS 2.1 to
2.3, and show_import() of its cmd/zpool/zpool_main.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import zfs
from .btrfs import patterns
from .values import flag, unique, words

CACHE = "/etc/zfs/zpool.cache"
HOSTID = "/etc/hostid"
DEBIAN_CRON = "/etc/cron.d/zfsutils-linux"  # scrubs all zpools each month, but those with this property
DEBIAN_SCRUB = "org.debian:periodic-scrub"
MODULE = "/sys/module/zfs"
ARC_LEAST = 64 << 20  # what the module takes for a limit at all
BLOCKS = "/sys/class/block"
KERNEL = "/proc/sys/kernel/osrelease"

# What brings zpools, their file systems and the links of zvols back at boot. Not every package has all of them.
UNITS = (
    "zfs-load-module.service", "zfs-import-cache.service", "zfs-import.target", "zfs-mount.service",
    "zfs-volume-wait.service", "zfs-volumes.target", "zfs-zed.service", "zfs.target",
)  # fmt: skip
TIMERS = ("monthly", "weekly")

# Guests whose disks are zvols would else be started before the links of these are there.
ORDER = "# of the role kvm.storage.host_zfs\n[Unit]\nBefore=libvirtd.service virtqemud.service virtstoraged.service\n"
ORDER_FOLDER = "/etc/systemd/system/zfs-volumes.target.d"
ORDER_FILE = f"{ORDER_FOLDER}/host_zfs.conf"

POOL_NAME = re.compile(r"(?!mirror|raidz|draid|spare)(?!log\Z)[A-Za-z][A-Za-z0-9_.:-]{0,199}")
PROPERTY = re.compile(r"(?!-)[^=,\s\x00-\x1f\x7f]{1,255}")  # zfs takes a list of them, and name=value
HEADINGS = {"special": "special", "dedup": "dedup", "logs": "log", "cache": "cache", "spares": "spare"}
ROLES = ("data", "special", "dedup", "log", "cache", "spare")  # in the order in which zpool is told of them
LEAST = {"": 1, "mirror": 2, "raidz1": 2, "raidz2": 3, "raidz3": 4}  # devices of one vdev
SPARES = ("cache", "spare")  # whose labels do not name the zpool
OPEN = ("ONLINE", "DEGRADED", "AVAIL", "INUSE")  # states of devices that ZFS has open; others may have become another's
STUCK = ("SUSPENDED", "UNAVAIL", "FAULTED")  # states of a zpool in which its commands fail or never end
RESERVED = ("16384", "131072")  # sectors of 512 bytes of the partition 9 that ZFS makes, with sectors of 512 or 4096

# Properties that stay as the dataset was made; what zfs calls by two names; numbers, of which 0 is "none".
BORN_WITH = {"casesensitivity", "encryption", "keyformat", "normalization", "pbkdf2iters", "utf8only"}
ALIASES = {
    ("acltype", "posixacl"): "posix",
    ("acltype", "noacl"): "off",
    ("compression", "gzip-6"): "gzip",
}
SIZES = {"quota", "refquota", "reservation", "refreservation", "recordsize", "special_small_blocks"}
QUOTAS = ("userquota@", "groupquota@", "projectquota@")
LIMITS = {"filesystem_limit", "snapshot_limit"}
UNLIMITED = str(2**64 - 1)  # as `get -p` shows them

LIST = ["zpool", "list", "-H", "-p", "-o", "name,guid,health,readonly"]
STATUS = ["zpool", "status", "-P"]
IMPORT = ["zpool", "import"]
MODINFO = ["modinfo", "zfs"]
DESTROYED = "it would be destroyed"
NOT_THERE: dict[str, Any] = {"exists": False, "users": [], "partitions": [], "holds": [], "blank": False}

Device = Mapping[str, Any]  # as device_info tells of it
Pool = dict[str, Any]  # as merged() makes it
Wanted = dict[str, tuple[dict[str, str], bool]]  # by dataset: its properties, and whether its zpool is there


def zpool_plan(
    pools: Sequence[Mapping[str, Any]],
    *,
    arc_max: Any,
    arc_file: str,
    devices: Mapping[str, Any],
    looked: Mapping[str, Any],
    ready: bool,
    tried: Mapping[str, Any],
    zvols: Mapping[str, Any],
    users: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole plan. What was not looked at yet is {}.

    devices, zvols  what device_info told of `named` and of `zvols`
    looked          what look.py told of `asks`
    ready           whether packages and module are there, so that ZFS must answer
    tried           the results of a loop over `tries`
    users           the result of a search for `patterns` in what libvirt keeps
    """
    seen = Seen(devices, looked)
    return Plan(pools, str(arc_max).strip(), arc_file, seen, ready, tried, zvols, users).decide()


# Values.


def value_of(name: str, value: Any) -> str:
    """A value as `get -p` shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = str(value).strip()
    if name in SIZES or name.startswith(QUOTAS):
        if text == "none":
            return "0"
        size = zfs.size_of(text)
        if size is not None:
            return str(size)
    if name in LIMITS and text == "none":
        return UNLIMITED
    if name == "mountpoint" and text.startswith("/"):
        return text.rstrip("/") or "/"
    return ALIASES.get((name, text), text)


def values_of(properties: Mapping[str, Any]) -> dict[str, str]:
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
    return wanted == "" and found == "-"


# What was seen.


@dataclass
class Vdev:
    """One vdev, declared or found: its devices by name, the keys of each, and the nodes that ZFS has open."""

    role: str
    kind: str
    names: list[str] = field(default_factory=list)
    members: list[set[str]] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    def same(self, other: Vdev) -> bool:
        return (
            (self.role, self.kind, len(self.members)) == (other.role, other.kind, len(other.members))
            and all(any(mine & theirs for theirs in other.members) for mine in self.members)
        )  # fmt: skip

    @property
    def tolerates(self) -> int:
        """How many of its devices may fail; of one that is declared."""
        return len(self.names) - 1 if self.kind == "mirror" else int(self.kind[-1:] or 0)

    def __str__(self) -> str:
        said = [*([self.role] if self.role != "data" else []), *([self.kind, "of"] if self.kind else [])]
        return " ".join([*said, " and ".join(re.sub(r"-part1\Z", "", name) for name in self.names)])


@dataclass(frozen=True)
class Offer:
    """A zpool that could be imported: what zpool says of it on one line, and how many of its devices are there."""

    name: str
    guid: str
    said: str
    devices: int

    @property
    def fine(self) -> bool:
        """Whether importing it needs no force, and loses nothing."""
        return "can be imported" in self.said and "'-f'" not in self.said and "another system" not in self.said


class Seen:
    """The host, as it was last looked at."""

    def __init__(self, devices: Mapping[str, Any], looked: Mapping[str, Any]) -> None:
        self.look = zfs.Looked(looked)
        self.devices: dict[str, Device] = {one["path"]: one for one in devices.get("devices") or []}
        self.module = "missing"
        if MODULE in self.look.paths:
            self.module = "loaded"
        elif self.look.says(MODINFO).rc == 0:
            self.module = "there"
        self.listed = self.look.says(LIST)
        self.answers = self.module == "loaded" and self.listed.rc == 0
        table = zfs.rows(self.listed.stdout, 4) if self.answers else []
        self.pools = {name: {"guid": guid, "health": health, "readonly": ro} for name, guid, health, ro in table}
        self.topologies = {name: self.topology(text) for name, text in self.statuses()}
        self.members = {
            node: name
            for name, vdevs in self.topologies.items()
            for vdev in vdevs
            for own in vdev.nodes
            for node in (own, self.disk_of(own))
        }

    def device(self, path: str) -> Device:
        """As device_info tells of it; its own form of a path may differ from the one that is declared."""
        return self.devices.get(path) or {**NOT_THERE, "path": path, "node": path}

    def node(self, path: str) -> str:
        """Where a path leads; empty for one that leads nowhere."""
        device = self.device(path)
        return str(device["node"]) if device["exists"] else self.look.paths.get(path, "")

    def disk_of(self, node: str) -> str:
        """The disk that ZFS has partitioned for itself, of one of its members: partition 1, and its empty 9."""
        own = f"{BLOCKS}/{os.path.basename(node)}"
        if self.look.text(f"{own}/dm/uuid").startswith("part1-"):
            slaves = [path for path in self.look.paths if os.path.dirname(path) == f"{own}/slaves"]
            return f"/dev/{os.path.basename(slaves[0])}" if slaves else node
        if self.look.text(f"{own}/partition") != "1":
            return node
        disk = os.path.dirname(self.look.paths.get(own, ""))
        places = [path for path, to in self.look.paths.items() if os.path.dirname(to) == disk]
        numbers = {
            self.look.text(f"{path}/partition"): path for path in places if f"{path}/partition" in self.look.files
        }
        size = self.look.text(f"{numbers.get('9')}/size")
        return f"/dev/{os.path.basename(disk)}" if set(numbers) == {"1", "9"} and size in RESERVED else node

    def keys_of(self, path: str, gone: bool = False) -> set[str]:
        """By what a device is known again, whichever of its names is used; for one that is gone, its possible names."""
        node = self.node(path)
        found = {self.disk_of(node)} if node else set()
        if gone or not node:
            found |= {path, re.sub(r"-part1\Z", "", path)}
            if not path.startswith("/dev/disk/"):
                found.add(re.sub(r"(?<=\d)p1\Z", "", re.sub(r"\A(/dev/(?:mapper/)?[a-z]+)1\Z", r"\1", path)))
        return found

    def label_of(self, device: Device) -> tuple[str, str]:
        """Name and GUID of the zpool that a device says it belongs to, both empty where it says nothing."""
        for node in (device["node"], *device["partitions"]):
            if node in self.look.labels:
                return self.look.labels[node]["name"], self.look.labels[node]["guid"]
        return "", ""

    def users_of(self, device: Device) -> list[str]:
        """Who uses a device; a hot spare is not held by the kernel in every release."""
        nodes = [device["node"], *device["partitions"]]
        guids = {known["guid"]: name for name, known in self.pools.items()}
        zpools = [self.members.get(node) or guids.get(self.look.labels.get(node, {}).get("guid", "")) for node in nodes]
        return [*device["users"], *unique(f"a member of zpool {name}" for name in zpools if name)]

    def statuses(self) -> list[tuple[str, str]]:
        """The name of each zpool, and its part of `zpool status`."""
        parts = re.split(r"^ *pool: (.*)$", self.look.says(STATUS).stdout if self.answers else "", flags=re.MULTILINE)
        return list(zip(parts[1::2], parts[2::2]))

    def topology(self, text: str) -> list[Vdev]:
        """The vdevs of `zpool status -P`, whose depth is told by how far a line is indented."""
        found: list[Vdev] = []
        role, inside, began = "data", False, False
        for line in text.splitlines():
            said = line.split()
            if not said:
                continue
            if not inside:
                inside = said[0] == "NAME"
                continue
            if line.startswith("errors:"):
                break
            body = line.lstrip("\t")
            depth = len(body) - len(body.lstrip(" "))
            name, state = said[0], said[1] if len(said) > 1 else ""
            if depth == 0:
                role = HEADINGS.get(name, role) if began else "data"
                began = True
                continue
            if not name.startswith("/") and "was" in said[:-1]:
                name, state = said[said.index("was") + 1], ""
            kind = re.sub(r"-\d+\Z", "", name)
            if depth == 2 and (name.startswith("/") or kind in ("spare", "replacing")):
                found.append(Vdev(role, ""))
                self.add(found[-1], name, state)
            elif depth == 2:
                found.append(Vdev(role, kind))
            elif depth > 4 or found[-1].kind == "":
                self.stand_in(found[-1], name, state)
            else:
                self.add(found[-1], name, state)
        return [vdev for vdev in found if vdev.kind not in ("indirect", "hole")]

    def add(self, vdev: Vdev, name: str, state: str = "") -> None:
        """One device more, or the name of a group of devices of which one stands in for the other."""
        vdev.names.append(name)
        vdev.members.append(set())
        if name.startswith("/"):
            self.stand_in(vdev, name, state)

    def stand_in(self, vdev: Vdev, name: str, state: str) -> None:
        """The last device may also be this one. What is not open may by now be the name of another disk."""
        vdev.members[-1] |= self.keys_of(name, gone=state not in OPEN)
        if state in OPEN and self.node(name):
            vdev.nodes.append(self.node(name))

    def declared(self, items: Iterable[Mapping[str, Any]]) -> list[Vdev]:
        """Devices without a type are a vdev each."""
        found = []
        for item in items:
            role, kind = item.get("role") or "data", item.get("type") or ""
            kind = {"raidz": "raidz1", "stripe": ""}.get(kind, kind)
            group = Vdev(role, kind)
            for path in words(item.get("devices")):
                if kind == "":
                    group = Vdev(role, kind)
                    found.append(group)
                group.names.append(path)
                group.members.append(self.keys_of(path))
            if kind:
                found.append(group)
        return found

    def offers(self) -> list[Offer]:
        """What `zpool import` shows."""
        parts = re.split(r"^\s*pool: (.*)$", self.look.says(IMPORT).stdout, flags=re.MULTILINE)
        return [offer(name, text) for name, text in zip(parts[1::2], parts[2::2])]

    @property
    def offers_known(self) -> bool:
        told = self.look.says(IMPORT)
        return told.rc == 0 or "no pools available" in told.stdout + told.stderr


def offer(name: str, text: str) -> Offer:
    said, _config, config = text.partition("config:")
    guid = re.search(r"^\s*id: (\d+)\s*$", said, re.MULTILINE)
    lines = [line.lstrip("\t") for line in config.splitlines() if line.split()[1:2] and line.split()[1] in OPEN]
    depths = [len(line) - len(line.lstrip(" ")) for line in lines]
    leaves = sum(depth > 0 and depth >= after for depth, after in zip(depths, [*depths[1:], 0]))
    return Offer(name, guid.group(1) if guid else "", " ".join(said.split()), leaves)


# What zpool is told.


def arguments(vdevs: Sequence[Vdev]) -> list[str]:
    """As zpool takes them: each role once, with all its vdevs behind it."""
    told: list[str] = []
    for role in ROLES:
        mine = [vdev for vdev in vdevs if vdev.role == role]
        told += [role] if mine and role != "data" else []
        for vdev in mine:
            told += [*([vdev.kind] if vdev.kind else []), *vdev.names]
    return told


def options(flag: str, values: Mapping[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (flag, f"{name}={value}")]


# Deciding.


class Plan(zfs.Decided):
    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        arc_max: str,
        arc_file: str,
        seen: Seen,
        ready: bool,
        tried: Mapping[str, Any],
        zvols: Mapping[str, Any],
        users: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.items, self.arc_max, self.arc_file, self.seen, self.ready = items, arc_max, arc_file, seen, ready
        self.tried = {" ".join(one["item"]): one for one in tried.get("results") or []}
        self.looked_zvols, self.users = zvols, users
        self.datasets: list[dict[str, Any]] = []
        self.zvols: list[str] = []
        self.fates: dict[str, str] = {}  # of zvols that are to go: in which way
        self.watched: list[str] = []
        self.tries: list[list[str]] = []
        self.arc: dict[str, int] = {}
        self.imports = False
        self.pool_question: list[str] = []
        self.dataset_question: list[str] = []
        self.present: list[tuple[Pool, bool]] = []  # each with whether it is there already

    def decide(self) -> dict[str, Any]:
        pools = self.merged()
        self.check(pools)
        asks = self.asks(pools)
        if not self.problems and self.seen.look:
            self.check_sight(pools)
        if not self.problems and self.seen.look:
            self.limit_arc()
            for pool in pools:
                if pool["state"] == "absent":
                    self.let_go(pool)
            if self.seen.answers and HOSTID not in self.seen.look.paths and self.wants(pools):
                self.step("have a host ID", "zgenhostid")
            for pool in self.wants(pools):
                self.have(pool)
            self.have_datasets()
            self.have_units(pools)
            self.check_users()
        return {
            "problems": self.problems,
            "named": unique(name for pool in pools for name in [*self.names(pool), *pool["overwrite"]]),
            "asks": asks,
            "tries": self.tries,
            "zvols": self.zvols,
            "watched": self.watched,
            "patterns": patterns(self.watched),
            "steps": self.steps,
            "datasets": self.datasets,
            "arc": self.arc,
            "module": self.seen.module,
            "kernel": self.seen.look.text(KERNEL),
            "seen": self.seen.answers,
            "imports": self.imports,
        }

    @staticmethod
    def wants(pools: Iterable[Pool]) -> list[Pool]:
        return [pool for pool in pools if pool["state"] == "present"]

    def names(self, pool: Pool) -> list[str]:
        return [name for vdev in self.seen.declared(pool["vdevs"]) for name in vdev.names]

    def asks(self, pools: Sequence[Pool]) -> dict[str, Any]:
        """What look.py is to look at. Names that are wrong are asked nothing."""
        good = [pool for pool in pools if POOL_NAME.fullmatch(pool["name"])]
        here = [pool["name"] for pool in self.wants(good)]
        going = [pool["name"] for pool in good if pool["state"] == "absent"]
        going += [
            f"{pool['name']}/{name}"
            for pool in self.wants(good)
            for name, dataset in pool["datasets"].items()
            if dataset["state"] == "absent" and not zfs.bad_name(f"{pool['name']}/{name}")
        ]
        commands = [MODINFO, LIST, STATUS, IMPORT]
        self.pool_question, self.dataset_question = self.pool_get(here), self.dataset_get(good)
        commands += [self.pool_question, self.dataset_question] if here else []
        commands += [self.listing(name) for name in going]
        units = zfs.asks(["zfs*"])
        nodes = [
            node for one in self.seen.devices.values() if one["exists"] for node in (one["node"], *one["partitions"])
        ]
        return {
            "commands": commands,
            "labels": nodes,
            "files": [
                *units["files"], f"{ORDER_FOLDER}/*", "/proc/meminfo", KERNEL, "/etc/modprobe.d/*.conf",
                f"{MODULE}/parameters/zfs_arc_m*", f"{BLOCKS}/*/partition", f"{BLOCKS}/*/size", f"{BLOCKS}/*/dm/uuid",
            ],
            "paths": [*units["paths"], MODULE, HOSTID, DEBIAN_CRON, f"{BLOCKS}/*", f"{BLOCKS}/*/slaves/*"],
        }  # fmt: skip

    @staticmethod
    def pool_get(names: Sequence[str]) -> list[str]:
        return ["zpool", "get", "-H", "-p", "-o", "name,property,value", "all", *names]

    def dataset_get(self, pools: Sequence[Pool]) -> list[str]:
        """Of all that is declared; what is not there is told by the rows that are missing."""
        here = self.wants(pools)
        asked = {"type", "keystatus"}
        names = [pool["name"] for pool in here]
        for pool in here:
            asked |= pool["filesystem_properties"].keys()
            asked |= {DEBIAN_SCRUB} if pool["scrub"] else set()
            for name, dataset in pool["datasets"].items():
                full = f"{pool['name']}/{name}"
                names += [] if zfs.bad_name(full) else [full]
                asked |= dataset["properties"].keys()
        good = sorted(name for name in asked if PROPERTY.fullmatch(name))
        return ["zfs", "get", "-H", "-p", "-o", "name,property,value", ",".join(good), *names]

    @staticmethod
    def listing(name: str) -> list[str]:
        return ["zfs", "list", "-H", "-r", "-t", "filesystem,volume", "-o", "type,mounted,name,mountpoint", name]

    # what is declared

    def merged(self) -> list[Pool]:
        """The zpools, one item each: several libvirt pools may ask for what they need of one."""
        found: dict[str, Pool] = {}
        for item in self.items:
            pool = found.setdefault(str(item["name"]), {
                "name": str(item["name"]), "state": item.get("state") or "present", "vdevs": [], "properties": {},
                "filesystem_properties": {}, "datasets": {}, "overwrite": [], "scrub": None, "delete_data": False,
            })  # fmt: skip
            vdevs = list(item.get("vdevs") or [])
            if pool["state"] != (item.get("state") or "present") or (vdevs and pool["vdevs"] not in ([], vdevs)):
                self.unlike(pool["name"], "state or vdevs")
            pool["vdevs"] = pool["vdevs"] or vdevs
            pool["overwrite"] += words(item.get("overwrite"))
            pool["delete_data"] = pool["delete_data"] or flag(item.get("delete_data"))
            if item.get("scrub"):
                self.put(pool, {"scrub": pool["scrub"]} if pool["scrub"] else {}, {"scrub": item["scrub"]})
                pool["scrub"] = item["scrub"]
            for key in ("properties", "filesystem_properties"):
                self.put(pool, pool[key], values_of(item.get(key) or {}))
            for dataset in item.get("datasets") or []:
                name = str(dataset["name"])
                state = dataset.get("state") or "present"
                known = pool["datasets"].setdefault(name, {"state": state, "properties": {}, "delete_data": False})
                known["delete_data"] = known["delete_data"] or flag(dataset.get("delete_data"))
                self.put(pool, {"state": known["state"]}, {"state": state})
                self.put(pool, known["properties"], values_of(dataset.get("properties") or {}))
        return list(found.values())

    def put(self, pool: Pool, known: dict[str, Any], more: Mapping[str, Any]) -> None:
        for name, value in more.items():
            if known.setdefault(name, value) != value:
                self.unlike(pool["name"], name)

    def unlike(self, name: str, what: str) -> None:
        self.problem(f"zpool {name}", f"it is declared twice, with different {what}", "declare it once, or alike")

    def check(self, pools: Sequence[Pool]) -> None:
        """What is wrong whatever zpools the host has."""
        users: dict[str, tuple[str, str]] = {}  # by node: the zpool, and the name of the device
        for pool in pools:
            thing = f"zpool {pool['name']}"
            if not POOL_NAME.fullmatch(pool["name"]):
                self.problem(
                    thing, "zpool takes no such name",
                    "use A-Z a-z 0-9 _ . : -, and begin with a letter, but not with mirror, raidz, draid or spare",
                )  # fmt: skip
            vdevs = self.seen.declared(pool["vdevs"])
            names = [name for vdev in vdevs for name in vdev.names]
            for vdev in vdevs:
                if len(vdev.names) < LEAST[vdev.kind]:
                    self.problem(thing, f"a {vdev.kind} has too few devices", f"give at least {LEAST[vdev.kind]}")
                if vdev.kind and (vdev.role in SPARES or (vdev.role == "log" and vdev.kind != "mirror")):
                    self.problem(thing, f"a {vdev.role} can't be a {vdev.kind}", "leave its type out")
            for name in pool["overwrite"]:
                if name not in names:
                    self.problem(thing, f"{name} is in overwrite, and in no vdev", "name it as in devices")
            for name in names if pool["state"] == "present" else []:
                key = self.seen.disk_of(self.seen.node(name) or name)
                if key in users:
                    self.problem(f"device {name}", f"it is declared for {users[key][0]} already", "declare it once")
                users[key] = (thing, name)
            for key in ("properties", "filesystem_properties"):
                self.check_properties(thing, pool[key])
            for name, dataset in pool["datasets"].items():
                self.check_dataset(f"dataset {pool['name']}/{name}", f"{pool['name']}/{name}", dataset)
                self.check_properties(f"dataset {pool['name']}/{name}", dataset["properties"])
            self.check_inner(pool)
        for key, (thing, name) in users.items():
            for part in self.seen.device(name)["partitions"]:
                if part != key and part in users:
                    self.problem(
                        f"device {users[part][1]}", f"it is a partition of {name}, which is declared for {thing}",
                        "declare one of them",
                    )  # fmt: skip

    def check_properties(self, thing: str, properties: Mapping[str, str]) -> None:
        for name, value in properties.items():
            if not PROPERTY.fullmatch(name) or re.search(r"[\x00-\x1f\x7f]", value):
                self.problem(
                    thing,
                    f"{name!r} can't be set to {value!r}",
                    "give names without = and commas, and values of one line",
                )

    def check_dataset(self, thing: str, full: str, dataset: Mapping[str, Any]) -> None:
        if zfs.bad_name(full):
            self.problem(thing, "zfs takes no such name", "give its name below the zpool, such as vms or vms/web")
        if "volsize" in dataset["properties"]:
            self.problem(thing, "it would be a zvol", "leave volsize out; kvm.storage.volume makes zvols")
        if dataset["state"] == "absent" and not dataset["delete_data"]:
            self.problem(
                thing, "to take it away is to destroy what it holds", "say delete_data: true, or leave it undeclared"
            )

    def check_inner(self, pool: Pool) -> None:
        """What is to stay does not go with what is around it."""
        gone = [name for name, dataset in pool["datasets"].items() if dataset["state"] == "absent"]
        for name, dataset in pool["datasets"].items():
            for outer in gone:
                if dataset["state"] == "present" and name.startswith(f"{outer}/"):
                    self.problem(
                        f"dataset {pool['name']}/{outer}", f"{pool['name']}/{name} is in it, and is to be present",
                        "declare both absent, or both present",
                    )  # fmt: skip

    def check_sight(self, pools: Sequence[Pool]) -> None:
        """Nothing is done to what can't be seen."""
        seen = self.seen
        if (seen.module == "loaded" and seen.listed.rc not in (0, zfs.NO_COMMAND)) or (self.ready and not seen.answers):
            self.problem("ZFS", f"it does not answer on this host ({seen.listed.why})", "see to 'zpool list' first")
        for pool in pools:
            health = seen.pools.get(pool["name"], {}).get("health", "")
            if health in STUCK:
                self.problem(
                    f"zpool {pool['name']}", f"it is {health}, so nothing can be changed in it",
                    "see to its devices ('zpool status'), then 'zpool clear' it",
                )  # fmt: skip
            elif health and pool["name"] not in seen.topologies:
                why = seen.look.says(STATUS).why
                self.problem(f"zpool {pool['name']}", f"what it is made of can't be seen ({why})", "run this again")

    # the ARC

    def limit_arc(self) -> None:
        text = self.arc_max
        if text in ("", "default"):
            return
        thing = "host_zfs_arc_max"
        most = zfs.size_of(text)
        if most is None:
            self.problem(thing, f"{text!r} is no size", "give one such as 4GiB")
            return
        told = re.search(r"^MemTotal:\s+(\d+)", self.seen.look.text("/proc/meminfo"), re.MULTILINE)
        memory = int(told.group(1)) * 1024 if told else 0
        if not ARC_LEAST <= most < memory:
            self.problem(
                thing,
                f"ZFS would ignore {text}",
                f"give at least 64MiB, and less than the {memory >> 20} MiB there are",
            )
        for path in self.seen.look.in_folder("/etc/modprobe.d"):
            sets = re.search(r"^\s*options\s+zfs\s.*zfs_arc_max=", self.seen.look.text(path), re.MULTILINE)
            if sets and path != self.arc_file:
                self.problem(thing, f"{path} sets zfs_arc_max too", "take it out there")
        # ZFS ignores a limit that is not above the least size, which is 1/32 of the memory unless it is set
        least = {"zfs_arc_min": max(most // 2, 32 << 20)} if most <= memory // 16 else {}
        self.arc = {**least, "zfs_arc_max": most}
        for name, value in self.arc.items() if self.seen.module == "loaded" else ():
            path = f"{MODULE}/parameters/{name}"
            if self.seen.look.text(path) != str(value):
                self.step(f"set {name} at once", "tee", path, stdin=str(value))

    # zpools

    def let_go(self, pool: Pool) -> None:
        name = pool["name"]
        self.have_timer(name, "never")
        if name not in self.seen.pools:
            if pool["delete_data"] and self.seen.answers:
                self.clear(name, self.seen.declared(pool["vdevs"]))
            return
        found = self.seen.topologies[name]
        for vdev in self.seen.declared(pool["vdevs"]):
            members = [key for has in found for key in has.members]
            strangers = [one for one, mine in zip(vdev.names, vdev.members) if not any(mine & key for key in members)]
            if strangers:
                self.problem(
                    f"zpool {name}", f"{strangers[0]} is declared, and is no part of the one on this host",
                    "leave vdevs out to mean the one that is there",
                )  # fmt: skip
        if not pool["delete_data"]:
            self.going(name, "its zpool would be exported")
            self.step(f"export zpool {name}", "zpool", "export", name)
            return
        self.going(name, DESTROYED)
        self.step(f"destroy zpool {name}", "zpool", "destroy", name)
        self.wipe(name, [node for vdev in found for node in vdev.nodes if self.owned(name, vdev.role, node)])

    def owned(self, name: str, role: str, node: str) -> bool:
        """Whether a device says itself that it is of this zpool: a hot spare may be that of several."""
        label = self.seen.look.labels.get(node)
        if label is None or any(
            node in vdev.nodes for other, vdevs in self.seen.topologies.items() if other != name for vdev in vdevs
        ):
            return False
        return label["guid"] == self.seen.pools[name]["guid"] or (role in SPARES and not label["guid"])

    def going(self, name: str, fate: str) -> None:
        """Nobody may use what is in a zpool or dataset that is to go."""
        told = self.seen.look.says(self.listing(name))
        if told.rc:
            self.problem(f"dataset {name}", f"what is in it can't be seen ({told.why})", "see to 'zfs list' first")
        for kind, mounted, full, mountpoint in zfs.rows(told.stdout, 4):
            if kind == "volume":
                self.zvols.append(f"/dev/zvol/{full}")
                self.fates[f"/dev/zvol/{full}"] = fate
            elif fate == DESTROYED and mounted == "yes" and len(mountpoint) > 1:
                self.watched.append(mountpoint)

    def clear(self, name: str, vdevs: Sequence[Vdev]) -> None:
        """Another one may have destroyed it, such as libvirt with its pool, and left the labels."""
        devices = [self.seen.device(one) for vdev in vdevs for one in vdev.names]
        whole = [one for one in devices if one["exists"] and not self.seen.users_of(one) and self.wholly(one)]
        mine = [one for one in whole if self.seen.label_of(one)[0] == name]
        if mine and not self.sees_offers(name):
            return
        offered = {one.guid for one in self.seen.offers()}
        if any(self.seen.label_of(one)[1] in offered for one in mine):
            self.problem(
                f"zpool {name}", "it is exported, so it can't be destroyed",
                "import it first ('zpool import'), or leave delete_data out",
            )  # fmt: skip
            return
        self.wipe(name, [node for one in mine for node in [*one["partitions"][:1], one["node"]]])

    def sees_offers(self, name: str) -> bool:
        if not self.seen.offers_known:
            why = self.seen.look.says(IMPORT).why
            self.problem(f"zpool {name}", f"whether it could be imported can't be seen ({why})", "run this again")
        return self.seen.offers_known

    def wholly(self, device: Device) -> bool:
        """Whether a disk has no partitions but those that ZFS makes."""
        return not device["partitions"] or self.seen.disk_of(device["partitions"][0]) == device["node"]

    def wipe(self, name: str, parts: list[str]) -> None:
        """So that its disks are blank again, as they were."""
        nodes = [*parts, *(disk for disk in map(self.seen.disk_of, parts) if disk not in parts)]
        if nodes:
            self.step(f"wipe the labels of zpool {name}", "wipefs", "--all", "--quiet", *nodes)

    def have(self, pool: Pool) -> None:
        name = pool["name"]
        pool["properties"].setdefault("cachefile", CACHE)  # from which the boot imports it
        if pool["scrub"] and DEBIAN_CRON in self.seen.look.paths:
            pool["filesystem_properties"].setdefault(DEBIAN_SCRUB, "disable")  # once is enough
        vdevs = self.seen.declared(pool["vdevs"])
        if name in self.seen.pools:
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
            kept = {key: value for key, value in pool["properties"].items() if key == "cachefile"}
            self.step(f"import zpool {name}", "zpool", "import", *options("-o", kept), guid)
        elif self.usable(name, vdevs, pool["overwrite"]) and self.balanced(name, vdevs) and self.alone(pool, vdevs):
            self.present.append((pool, False))
            told = [
                *self.force(vdevs, pool["overwrite"]),
                *options("-o", pool["properties"]),
                *options("-O", pool["filesystem_properties"]),
                name,
                *arguments(vdevs),
            ]
            self.try_out(f"zpool {name}", "zpool", "create", "-n", *told)
            self.step(f"create zpool {name}", "zpool", "create", *told)
        if pool["scrub"]:
            self.have_timer(name, pool["scrub"])

    def importable(self, name: str, vdevs: Sequence[Vdev]) -> str:
        """The GUID of the zpool of this name to which all the devices belong."""
        names = [one for vdev in vdevs if vdev.role not in SPARES for one in vdev.names]
        devices = [self.seen.device(one) for one in names]
        if not all(one["exists"] and not one["blank"] for one in devices):
            return ""
        labels = {self.seen.label_of(one) for one in devices}
        if len(labels) != 1:
            return ""
        ((label, guid),) = labels
        if label != name or not guid:
            return ""
        if self.seen.answers:
            if not self.sees_offers(name):
                return guid
            mine = [one for one in self.seen.offers() if one.guid == guid]
            if not mine:
                return ""  # it was destroyed
            if not mine[0].fine:
                said = " ".join(re.findall(r"(?:status|action): .*", mine[0].said)) or mine[0].said
                self.problem(f"zpool {name}", f"it can't be imported as it is ({said})", "see to it by hand")
        for device in devices:  # a guest may have a zpool of its own on its disks
            if self.seen.users_of(device):
                users = ", ".join(self.seen.users_of(device))
                self.problem(f"device {device['path']}", f"it is in use ({users})", f"give zpool {name} another one")
        return guid

    def usable(self, name: str, vdevs: Sequence[Vdev], overwrite: Sequence[str]) -> bool:
        before = len(self.problems)
        for path in [one for vdev in vdevs for one in vdev.names]:
            device = self.seen.device(path)
            users = self.seen.users_of(device)
            thing = f"device {path}"
            if not device["exists"]:
                self.problem(
                    thing, f"there is no such block device on this host, and zpool {name} is to be made of it",
                    "ls -l /dev/disk/by-id shows those that are there",
                )  # fmt: skip
            elif users:
                self.problem(thing, f"it is in use ({', '.join(users)})", f"give zpool {name} another one")
            elif not device["blank"] and path not in overwrite:
                label = self.seen.label_of(device)[0]
                holds = [*device["holds"], *([f"a member of zpool {label}"] if label else [])]
                self.problem(
                    thing, f"it is not blank: it holds {', '.join(holds) or 'partitions'}",
                    f"name it in overwrite of zpool {name} to give up what it holds, or name another one",
                )  # fmt: skip
        return len(self.problems) == before

    def balanced(self, name: str, vdevs: Sequence[Vdev]) -> bool:
        """zpool asks for this too, but not when it is forced."""
        if len({vdev.tolerates for vdev in vdevs if vdev.role in ("data", "special", "dedup")}) < 2:
            return True
        self.problem(
            f"zpool {name}", "its vdevs of data, special and dedup survive the loss of different numbers of devices",
            "give them all the same redundancy, for with one of them the whole zpool is lost",
        )  # fmt: skip
        return False

    def alone(self, pool: Pool, vdevs: Sequence[Vdev]) -> bool:
        """Whether no other zpool of its name waits to be imported; one whose devices are all given up does not."""
        if not self.seen.answers:
            return True
        if not self.sees_offers(pool["name"]):
            return False
        given_up = [self.seen.label_of(self.seen.device(one))[1] for one in pool["overwrite"]]
        for other in self.seen.offers():
            if other.name == pool["name"] and given_up.count(other.guid) < max(other.devices, 1):
                self.problem(
                    f"zpool {pool['name']}", f"another one of this name can be imported (id {other.guid})",
                    "import or destroy that, name all its devices in overwrite, or choose another name",
                )  # fmt: skip
                return False
        return True

    def force(self, vdevs: Sequence[Vdev], overwrite: Sequence[str]) -> list[str]:
        """-f, only where a device is given up by name: all others are blank, see usable()."""
        names = [one for vdev in vdevs for one in vdev.names]
        return ["-f"] if any(one in overwrite and not self.seen.device(one)["blank"] for one in names) else []

    def try_out(self, thing: str, *argv: str) -> None:
        """What only ZFS knows, which is asked with -n."""
        if not self.seen.answers:
            return
        self.tries.append(list(argv))
        done = self.tried.get(" ".join(argv), {})
        if done.get("rc"):
            said = " ".join(done.get("stderr", "").replace("invalid vdev specification", "").split())
            self.problem(thing, f"ZFS refuses it ({said})", "declare what it takes")

    def extend(self, pool: Pool, vdevs: Sequence[Vdev]) -> None:
        """The vdevs that are not there yet are added; any other difference is for people to decide on."""
        if not vdevs:
            return
        name = pool["name"]
        undeclared = list(self.seen.topologies[name])
        missing = []
        for vdev in vdevs:
            match = next((one for one in undeclared if vdev.same(one)), None)
            if match:
                undeclared.remove(match)
            else:
                missing.append(vdev)
        if undeclared:
            wants = f"{', '.join(map(str, missing))} is declared, and " if missing else ""
            self.problem(
                f"zpool {name}",
                f"{wants}it has {', '.join(map(str, undeclared))}, which adding vdevs can't change",
                "declare it as it is, or change it by zpool attach, detach, replace or remove",
            )
        elif missing and self.usable(name, missing, pool["overwrite"]) and self.balanced(name, vdevs):
            told = [
                *self.force(missing, pool["overwrite"]),
                *options("-o", {key: value for key, value in pool["properties"].items() if key == "ashift"}),
                name,
                *arguments(missing),
            ]
            self.try_out(f"zpool {name}", "zpool", "add", "-n", *told)
            self.writable(name)
            self.step(f"add {', '.join(map(str, missing))} to zpool {name}", "zpool", "add", *told)

    def writable(self, name: str) -> None:
        if self.seen.pools.get(name, {}).get("readonly") == "on":
            self.problem(f"zpool {name}", "it is imported read-only", "export it, and import it without readonly")

    def set_properties(self, pool: Pool) -> None:
        told = self.seen.look.says(self.pool_question)
        found = zfs.properties(told.stdout).get(pool["name"])
        if found is None:
            self.problem(f"zpool {pool['name']}", f"its properties can't be seen ({told.why})", "run this again")
            return
        for name, value in pool["properties"].items():
            if name not in found and not name.startswith("feature@") and ":" not in name:
                self.problem(f"zpool {pool['name']}", f"this ZFS has no property {name}", "leave it out")
            elif not agrees(name, value, found.get(name, "-")):
                self.writable(pool["name"])
                label = f"set {name}={value} of zpool {pool['name']}"
                self.step(label, "zpool", "set", f"{name}={value}", pool["name"])

    # datasets

    def have_datasets(self) -> None:
        """What differs goes to the module zfs, and what is to go is tried out first."""
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
        found = self.found_datasets([name for name, (_properties, there) in wanted.items() if there] + gone)
        for name, (properties, there) in wanted.items():
            self.have_dataset(name, properties, there, found)
        for name in gone:
            if name in found:
                self.going(name, DESTROYED)
                self.try_out(f"dataset {name}", "zfs", "destroy", "-n", "-r", name)
                self.step(f"destroy dataset {name}", "zfs", "destroy", "-r", name)

    def have_dataset(
        self, name: str, properties: dict[str, str], there: bool, found: Mapping[str, Mapping[str, str]]
    ) -> None:
        known = found.get(name)
        if known is None:
            around = next((found[outer] for outer in outers(name) if outer in found), {})
            if around.get("keystatus") == "unavailable":
                self.problem(
                    f"dataset {name}", "the key of what it is to be in is not loaded", "zfs load-key -a loads it"
                )
            self.datasets.append({"name": name, "properties": properties, "there": there})
        else:
            if known.get("type") != "filesystem":
                self.problem(f"dataset {name}", f"it is a {known.get('type')}", "choose another name")
            unlike = {key: value for key, value in properties.items() if not agrees(key, value, known.get(key, "-"))}
            for key in sorted(unlike.keys() & BORN_WITH):
                self.problem(
                    f"dataset {name}", f"its {key} is {known.get(key, '-')} and stays so", "declare it as it is"
                )
            if not unlike:
                return
            self.datasets.append({"name": name, "properties": unlike, "there": True})
        if there:
            self.writable(name.partition("/")[0])

    def found_datasets(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Of those that are asked about, the properties of those that are there."""
        if not names:
            return {}
        done = self.seen.look.says(self.dataset_question)
        for line in done.stderr.splitlines():
            if "bad property list" in line or "invalid property" in line:
                self.problem("host_zfs_pools", line.strip(), "leave that property out")
                break
            if line.strip() and "does not exist" not in line:
                self.problem("host_zfs_pools", f"zfs says: {line.strip()}", "see to it first")
        return {name: known for name, known in zfs.properties(done.stdout).items() if name in names}

    # who uses what goes

    def check_users(self) -> None:
        """Guests that are not running have their disks too; an export lets those of the disks be."""
        for one in self.looked_zvols.get("devices") or []:
            fate = self.fates.get(one["path"], "")
            used = [user for user in one["users"] if fate == DESTROYED or not user.startswith("a disk of ")]
            if fate and used:
                self.problem(one["path"], f"it is in use ({', '.join(used)}), and {fate}", "take it from those first")
        for file in (self.users.get("stdout_lines") or []) if self.watched else []:
            self.problem(
                f"libvirt uses {' or '.join(self.watched)} ({file})", DESTROYED,
                "remove the pool, or take the disk from the guest first",
            )  # fmt: skip

    # units

    def have_units(self, pools: Sequence[Pool]) -> None:
        if not self.wants(pools):
            self.leave_order(pools)
            return
        look = self.seen.look
        off = [unit for unit in UNITS if "WantedBy=" in look.unit(unit) and not look.enabled(unit)]
        if look.text(ORDER_FILE) != ORDER.strip():
            self.step("start libvirt after zvols", "install", "-D", "-m", "0644", "/dev/stdin", ORDER_FILE, stdin=ORDER)
            if not off:
                self.step("read the units anew", "systemctl", "daemon-reload")
        if off:  # this reads the units anew as well
            self.step("bring zpools back at boot", "systemctl", "enable", *off)

    def leave_order(self, pools: Sequence[Pool]) -> None:
        """With the last zpool goes what was set for the sake of zpools."""
        there = self.seen.look.in_folder(ORDER_FOLDER)
        if pools and ORDER_FILE in there and not self.seen.pools.keys() - {pool["name"] for pool in pools}:
            gone = ["-r", ORDER_FOLDER] if there == [ORDER_FILE] else [ORDER_FILE]
            self.step("start libvirt without regard to zvols", "rm", *gone)
            self.step("read the units anew", "systemctl", "daemon-reload")

    def have_timer(self, name: str, wanted: str) -> None:
        if not self.seen.answers:
            return
        for word in TIMERS:
            timer = f"zfs-scrub-{word}@{name}.timer"
            if word == wanted and not self.seen.look.unit(f"zfs-scrub-{word}@.timer"):
                self.problem(f"zpool {name}", f"the ZFS of this host has no {timer}", "leave scrub out")
            elif word == wanted and not self.seen.look.enabled(timer):
                self.step(f"scrub zpool {name} {word}", "systemctl", "enable", "--now", timer)
            elif word != wanted and self.seen.look.enabled(timer):
                self.step(f"scrub zpool {name} no longer {word}", "systemctl", "disable", "--now", timer)


def outers(name: str) -> list[str]:
    """The datasets around one, the nearest first."""
    parts = name.split("/")
    return ["/".join(parts[:number]) for number in range(len(parts) - 1, 0, -1)]
