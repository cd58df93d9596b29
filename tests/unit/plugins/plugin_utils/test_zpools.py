# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_zfs refuses and does, from what was seen on a host."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_zfs import zpool_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import zfs, zpools

ROOT = Path(__file__).parents[4]
A, B, C, D = "/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd"
GUID, OTHER = "111", "222"
ORDER = f"install -D -m 0644 /dev/stdin {zpools.ORDER_FILE}"
RELOAD = "systemctl daemon-reload"
CACHEFILE = f"cachefile={zpools.CACHE}"
SIZE = "zfs_arc_max sets"
MEMORY = 16 << 30


def disk(path: str, *holds: str, **more: Any) -> dict[str, Any]:
    """A device as device_info tells of it."""
    facts = {"path": path, "exists": True, "node": path, "partitions": [], "users": [], "holds": list(holds), **more}
    facts["blank"] = facts["exists"] and not (facts["holds"] or facts["users"] or facts["partitions"])
    return facts


def gone(path: str) -> dict[str, Any]:
    return disk(path, exists=False)


def zfs_disk(path: str, **more: Any) -> dict[str, Any]:
    """One that ZFS has partitioned."""
    return disk(path, "gpt", partitions=[f"{path}1", f"{path}9"], **more)


def told(stdout: str = "", rc: int = 0, stderr: str = "") -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def leaf(name: str, state: str = "ONLINE", depth: int = 2, tail: str = "") -> str:
    return f"\t{' ' * depth}{name}  {state}  0  0  0{tail}\n"


def status(name: str, *lines: str) -> str:
    """A zpool as `zpool status -P` shows it."""
    head = f"  pool: {name}\n state: ONLINE\nconfig:\n\n\tNAME  STATE  READ WRITE CKSUM\n\t{name}  ONLINE  0  0  0\n"
    return f"{head}{''.join(lines)}\nerrors: No known data errors\n"


def offer(name: str, guid: str, *lines: str, said: str = "action: The pool can be imported using its name.") -> str:
    return (
        f"   pool: {name}\n     id: {guid}\n  state: ONLINE\n {said}\n config:\n\n\t{name}  ONLINE\n{''.join(lines)}\n"
    )


MIRROR = (leaf("mirror-0"), leaf(f"{A}1", depth=4), leaf(f"{B}1", depth=4))
TANK = status("tank", *MIRROR)
HEALTHY = f"tank\t{GUID}\tONLINE\toff\n"
PAIR: list[dict[str, Any]] = [{"type": "mirror", "devices": [A, B]}]
HAS = {"cachefile": "-", "autotrim": "off", "comment": "-"}
LABELS = {f"{A}1": {"name": "tank", "guid": GUID}, f"{B}1": {"name": "tank", "guid": GUID}}
MADE = (zfs_disk(A, users=["claimed"]), zfs_disk(B, users=["claimed"]))
AWAY = (zfs_disk(A), zfs_disk(B))


def sysfs(*disks: str, reserved: str = "16384", others: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """What /sys has of disks that ZFS has partitioned."""
    files, paths = {}, {}
    for path in disks:
        name = path[5:]
        paths[f"/sys/class/block/{name}"] = f"/sys/devices/{name}"
        for number in ("1", "9", *others):
            paths[f"/sys/class/block/{name}{number}"] = f"/sys/devices/{name}/{name}{number}"
            files[f"/sys/class/block/{name}{number}/partition"] = number
            files[f"/sys/class/block/{name}{number}/size"] = reserved if number == "9" else "1000000"
            paths[f"{path}{number}"] = f"{path}{number}"
    return {"files": files, "paths": paths}


def world(
    *devices: dict[str, Any],
    pools: str = "",
    status: str = "",
    offers: str | dict[str, Any] = "",
    has: dict[str, str] | None = None,
    datasets: dict[str, dict[str, str]] | None = None,
    within: dict[str, str | dict[str, Any]] | None = None,
    labels: dict[str, dict[str, str]] | None = None,
    files: dict[str, str] | None = None,
    paths: dict[str, str] | None = None,
    sys: dict[str, dict[str, str]] | None = None,
    listed: dict[str, Any] | None = None,
    loaded: bool = True,
    hostid: bool = True,
    ordered: bool = True,
    **more: Any,
) -> dict[str, Any]:
    """A host, with what plan() takes beside: ready, tried, zvols, users, arc_max. `commands` are answers by words."""
    sys = sys or sysfs(A, B)
    known = {
        **(files or {}),
        **sys["files"],
        "/proc/meminfo": f"MemTotal:  {MEMORY >> 10} kB\nMemFree: 1 kB",
        **({zpools.ORDER_FILE: zpools.ORDER.strip()} if ordered else {}),
    }
    places = {
        **sys["paths"],
        **(paths or {}),
        **({zpools.MODULE: zpools.MODULE} if loaded else {}),
        **({zpools.HOSTID: zpools.HOSTID} if hostid else {}),
    }
    return {
        "devices": list(devices),
        "pools": pools,
        "status": status,
        "offers": offers,
        "has": HAS if has is None else has,
        "datasets": datasets or {},
        "within": within or {},
        "labels": labels or {},
        "files": known,
        "paths": places,
        "listed": listed,
        "loaded": loaded,
        **more,
    }


def answers(host: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """What a command says on that host."""
    commands: dict[str, Any] = host.get("commands") or {}
    words = " ".join(argv)
    for begin, said in commands.items():
        if words.startswith(begin):
            return dict(said)
    if not host["loaded"]:
        return told(rc=127)
    if argv == zpools.LIST:
        return host["listed"] or told(host["pools"])
    if argv == zpools.STATUS:
        return told(host["status"])
    if argv == zpools.IMPORT:
        return host["offers"] if isinstance(host["offers"], dict) else told(host["offers"])
    if argv[:2] == ["zpool", "get"]:
        names = [name for name in argv[7:] if f"{name}\t" in host["pools"]]
        return told("".join(f"{name}\t{key}\t{value}\n" for name in names for key, value in host["has"].items()))
    if argv[:2] == ["zfs", "get"]:
        lines = [
            f"{name}\t{key}\t{host['datasets'][name].get(key, '-')}\n"
            for name in argv[7:]
            if name in host["datasets"]
            for key in argv[6].split(",")
        ]
        missing = [
            f"cannot open '{name}': dataset does not exist\n" for name in argv[7:] if name not in host["datasets"]
        ]
        return told("".join(lines), int(bool(missing)), "".join(missing))
    if argv[:2] == ["zfs", "list"]:
        said = host["within"].get(argv[-1], "")
        return said if isinstance(said, dict) else told(said)
    return told(rc=1)


def plan(pools: list[dict[str, Any]], host: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """As the tasks of the role do it: devices first, then look.py, then what that leads to."""
    host = host if host is not None else world(disk(A), disk(B))
    given = {
        "arc_max": host.get("arc_max", ""),
        "arc_file": "/etc/modprobe.d/host_zfs.conf",
        "devices": {},
        "looked": {},
        "ready": host.get("ready", False),
        "tried": {},
        "zvols": {},
        "users": {},
        **more,
    }
    first = zpool_plan(pools, **given)
    named = {one["path"]: one for one in host["devices"]}
    given["devices"] = {"devices": [named.get(path, gone(path)) for path in first["named"]]}
    asks = zpool_plan(pools, **given)["asks"]
    given["looked"] = {
        "told": {" ".join(argv): answers(host, argv) for argv in asks["commands"]},
        "files": host["files"],
        "paths": host["paths"],
        "labels": host["labels"],
    }
    second = zpool_plan(pools, **given)
    rc = host.get("rc", 0)
    given["tried"] = {
        "results": [{"item": argv, "rc": rc, "stderr": "invalid vdev specification\nno\n"} for argv in second["tries"]]
    }
    given["zvols"] = {"devices": [disk(path, users=host.get("used", [])) for path in second["zvols"]]}
    given["users"] = {"stdout_lines": host.get("libvirt", [])}
    return zpool_plan(pools, **given)


def tank(**more: Any) -> dict[str, Any]:
    return {"name": "tank", **more}


def absent(**more: Any) -> dict[str, Any]:
    return tank(state="absent", **more)


def there(*lines: str, **more: Any) -> dict[str, Any]:
    """A host with the zpool tank on A and B."""
    given: dict[str, Any] = {
        "pools": HEALTHY,
        "status": status("tank", *lines) if lines else TANK,
        "labels": LABELS,
        "datasets": {"tank": {"type": "filesystem", "compression": "lz4"}},
        **more,
    }
    devices = given.pop("devices", MADE)
    return world(*devices, **given)


EXPORTED = {"labels": LABELS, "offers": offer("tank", GUID, *MIRROR)}
NAMES = "use A-Z a-z 0-9 _ . : -, and begin with a letter, but not with mirror, raidz, draid or spare"
FS = "filesystem\tyes\ttank\t/srv/tank\n"
VOLUME = "volume\t-\ttank/web\t-\n"
VMS = {"tank": {"type": "filesystem"}, "tank/vms": {"type": "filesystem", "quota": "0", "encryption": "off"}}
NO_SUCH = "zfs takes no such name; give its name below the zpool, such as vms or vms/web"
ONE_LINE = "give names without = and commas, and values of one line"
ANOTHER = (
    "zpool tank: another one of this name can be imported (id 222); import or destroy that, name all its devices in "
    "overwrite, or choose another name"
)

# name: (zpools, the host, what is refused)
REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    **{
        f"name {name!r}": ([{"name": name}], world(loaded=False), [f"zpool {name}: zpool takes no such name; {NAMES}"])
        for name in ("mirror1", "raidz", "draid", "spare2", "log", "1a", "a b", "-f", "tank\n", "tänk", "a/b")
    },
    "declared twice": (
        [tank(vdevs=PAIR), tank(vdevs=[{"devices": [A]}])],
        world(disk(A), disk(B)),
        ["zpool tank: it is declared twice, with different state or vdevs; declare it once, or alike"],
    ),
    "a property twice": (
        [tank(vdevs=PAIR, properties={"autotrim": True}), tank(properties={"autotrim": "off"})],
        world(disk(A), disk(B)),
        ["zpool tank: it is declared twice, with different autotrim; declare it once, or alike"],
    ),
    "a dataset absent and present": (
        [tank(datasets=[{"name": "a", "state": "absent", "delete_data": True}, {"name": "a"}])],
        there(),
        ["zpool tank: it is declared twice, with different state; declare it once, or alike"],
    ),
    "too few": (
        [tank(vdevs=[{"type": "raidz2", "devices": [A, B]}])],
        world(disk(A), disk(B)),
        ["zpool tank: a raidz2 has too few devices; give at least 3"],
    ),
    "a cache that is a mirror": (
        [tank(vdevs=[{"devices": [C]}, {"role": "cache", "type": "mirror", "devices": [A, B]}])],
        world(disk(A), disk(B), disk(C)),
        ["zpool tank: a cache can't be a mirror; leave its type out"],
    ),
    "a log that is a raidz": (
        [tank(vdevs=[{"devices": [C]}, {"role": "log", "type": "raidz", "devices": [A, B]}])],
        world(disk(A), disk(B), disk(C)),
        ["zpool tank: a log can't be a raidz1; leave its type out"],
    ),
    "overwrite of another": (
        [tank(vdevs=PAIR, overwrite=[C])],
        world(disk(A), disk(B)),
        ["zpool tank: /dev/sdc is in overwrite, and in no vdev; name it as in devices"],
    ),
    "the same device twice": (
        [tank(vdevs=[{"devices": [A, A]}])],
        world(disk(A)),
        ["device /dev/sda: it is declared for zpool tank already; declare it once"],
    ),
    "the same disk by two names, in two zpools": (
        [tank(vdevs=[{"devices": [A]}]), {"name": "b", "vdevs": [{"role": "data", "devices": ["/dev/disk/by-id/a"]}]}],
        world(disk(A), disk("/dev/disk/by-id/a", node=A)),
        ["device /dev/disk/by-id/a: it is declared for zpool tank already; declare it once"],
    ),
    "a disk and its partition": (
        [tank(vdevs=[{"devices": [C]}], overwrite=[C]), {"name": "b", "vdevs": [{"devices": ["/dev/sdc3"]}]}],
        world(disk(C, "gpt", partitions=["/dev/sdc3"]), disk("/dev/sdc3")),
        [
            "device /dev/sdc3: it is a partition of /dev/sdc, which is declared for zpool tank; declare one of them",
        ],
    ),
    **{
        f"a property {name!r}={value!r}": (
            [tank(vdevs=PAIR, **{kind: {name: value}})],
            world(disk(A), disk(B)),
            [f"zpool tank: {name!r} can't be set to {value!r}; {ONE_LINE}"],
        )
        for kind, name, value in (
            ("properties", "a=b", "c"),
            ("properties", "-f", "on"),
            ("filesystem_properties", "a,b", "x"),
            ("properties", "comment", "a\nb"),
            ("filesystem_properties", "", "x"),
            ("properties", "a b", "x"),
        )
    },
    "a property of a dataset": (
        [tank(datasets=[{"name": "a", "properties": {"x y": "z"}}])],
        there(),
        [f"dataset tank/a: 'x y' can't be set to 'z'; {ONE_LINE}"],
    ),
    **{
        f"dataset {name!r}": ([tank(datasets=[{"name": name}])], there(), [f"dataset tank/{name}: {NO_SUCH}"])
        for name in ("..", "a/../b", "/a", "a//b", "a@b", "a b", "a\n", "ä", "a" * 251)
    },
    "a zvol among the datasets": (
        [tank(datasets=[{"name": "a", "properties": {"volsize": "1G"}}])],
        there(),
        ["dataset tank/a: it would be a zvol; leave volsize out; kvm.storage.volume makes zvols"],
    ),
    **{
        f"a dataset that goes with delete_data {value!r}": (
            [tank(datasets=[{"name": "vms", "state": "absent", "delete_data": value}])],
            there(datasets=VMS),
            [
                "dataset tank/vms: to take it away is to destroy what it holds; say delete_data: true, or leave it "
                "undeclared"
            ],
        )
        for value in (None, False, "false", "no", "0")
    },
    "a dataset that stays in one that goes": (
        [tank(datasets=[{"name": "vms", "state": "absent", "delete_data": True}, {"name": "vms/web"}])],
        there(datasets=VMS),
        ["dataset tank/vms: tank/vms/web is in it, and is to be present; declare both absent, or both present"],
    ),
    "ZFS does not answer": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), listed=told(rc=124, stderr="no answer within\n120 seconds")),
        ["ZFS: it does not answer on this host (no answer within 120 seconds); see to 'zpool list' first"],
    ),
    "ZFS must answer by now": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), loaded=False, ready=True),
        ["ZFS: it does not answer on this host (it ended with 127); see to 'zpool list' first"],
    ),
    **{
        f"a zpool that is {health}": (
            [tank(vdevs=PAIR)],
            there(pools=f"tank\t{GUID}\t{health}\toff\n"),
            [
                f"zpool tank: it is {health}, so nothing can be changed in it; see to its devices ('zpool status'), "
                "then 'zpool clear' it"
            ],
        )
        for health in zpools.STUCK
    },
    "no topology": (
        [absent()],
        there(status="", commands={"zpool status": told(rc=1, stderr="gone")}),
        ["zpool tank: what it is made of can't be seen (gone); run this again"],
    ),
    "an ARC of no size": ([], world(arc_max="many"), ["host_zfs_arc_max: 'many' is no size; give one such as 4GiB"]),
    "an ARC of fractions": ([], world(arc_max="٣GiB"), ["host_zfs_arc_max: '٣GiB' is no size; give one such as 4GiB"]),
    **{
        f"an ARC of {size}": (
            [],
            world(arc_max=size),
            [
                f"host_zfs_arc_max: ZFS would ignore {size}; give at least 64MiB, and less than the 16384 "
                "MiB there are",
            ],
        )
        for size in ("63MiB", "16GiB")
    },
    "an ARC that another file limits": (
        [],
        world(arc_max="4GiB", files={"/etc/modprobe.d/zfs.conf": "# x\noptions zfs a=1 zfs_arc_max=1"}),
        ["host_zfs_arc_max: /etc/modprobe.d/zfs.conf sets zfs_arc_max too; take it out there"],
    ),
    "a stranger among those that go": (
        [absent(vdevs=[{"devices": [A, C]}], delete_data=True)],
        there(devices=(*MADE, disk(C))),
        [
            "zpool tank: /dev/sdc is declared, and is no part of the one on this host; leave vdevs out to mean the one "
            "that is there"
        ],
    ),
    "what is in one that goes can't be seen": (
        [absent()],
        there(within={"tank": told(rc=1, stderr="no")}),
        ["dataset tank: what is in it can't be seen (no); see to 'zfs list' first"],
    ),
    "an exported one to be destroyed": (
        [absent(delete_data=True, vdevs=PAIR)],
        world(*AWAY, **EXPORTED),
        [
            "zpool tank: it is exported, so it can't be destroyed; import it first ('zpool import'), or "
            "leave delete_data out"
        ],
    ),
    "labels to be wiped, and no import list": (
        [absent(delete_data=True, vdevs=PAIR)],
        world(*AWAY, labels=LABELS, offers=told(rc=124)),
        ["zpool tank: whether it could be imported can't be seen (it ended with 124); run this again"],
    ),
    "not there, and without devices": (
        [tank()],
        world(),
        [
            "zpool tank: it is not on this host, and to make it its devices must be known; give vdevs, or import it "
            "('zpool import' lists what can be)"
        ],
    ),
    **{
        f"an import that {said}": (
            [tank(vdevs=PAIR)],
            world(*AWAY, labels=LABELS, offers=offer("tank", GUID, *MIRROR, said=said)),
            [f"zpool tank: it can't be imported as it is ({said}); see to it by hand"],
        )
        for said in (
            "status: The pool was last accessed by another system. action: The pool can be imported despite missing or "
            "corrupted devices.",
            "action: The pool can be imported using its name or numeric identifier and the '-f' flag.",
            "action: The pool cannot be imported due to damaged devices or data.",
            "action: The pool must be exported from hv2 (hostid=1) before it can be safely imported.",
            "action: Set a unique system hostid with the zgenhostid(8) command.",
            "action: The pool cannot be imported in read-write mode.",
        )
    },
    "an import of what a guest has": (
        [tank(vdevs=PAIR)],
        world(zfs_disk(A, users=["a disk of guest 'web'"]), zfs_disk(B), **EXPORTED),
        ["device /dev/sda: it is in use (a disk of guest 'web'); give zpool tank another one"],
    ),
    "no device": (
        [tank(vdevs=PAIR)],
        world(disk(B)),
        [
            "device /dev/sda: there is no such block device on this host, and zpool tank is to be made of it; ls -l "
            "/dev/disk/by-id shows those that are there"
        ],
    ),
    **{
        f"a device in use {'in overwrite' if overwrite else ''}": (
            [tank(vdevs=PAIR, overwrite=overwrite)],
            world(disk(A, "ext4", users=["mounted on /srv", "swap"]), disk(B)),
            ["device /dev/sda: it is in use (mounted on /srv, swap); give zpool tank another one"],
        )
        for overwrite in ([], [A])
    },
    **{
        f"a hot spare of another zpool, {how}": (
            [{"name": "new", "vdevs": [{"devices": [C]}], "overwrite": [C]}],
            there(
                *MIRROR, "\tspares\n", leaf(f"{C}1", state), sys=sysfs(A, B, C), devices=(zfs_disk(C),), labels=labels
            ),
            ["device /dev/sdc: it is in use (a member of zpool tank); give zpool new another one"],
        )
        for how, state, labels in (
            ("open", "AVAIL", {}),
            ("by its label", "UNAVAIL", {f"{C}1": {"name": "tank", "guid": GUID}}),
        )
    },
    "a device that holds something": (
        [tank(vdevs=PAIR)],
        world(disk(A, "LVM2_member"), disk(B)),
        [
            "device /dev/sda: it is not blank: it holds LVM2_member; name it in overwrite of zpool tank "
            "to give up what "
            "it holds, or name another one"
        ],
    ),
    "a device that has partitions": (
        [tank(vdevs=PAIR, overwrite=f"{B}")],
        world(disk(A, partitions=["/dev/sda5"]), disk(B, "ext4")),
        [
            "device /dev/sda: it is not blank: it holds partitions; name it in overwrite of zpool tank to give up what "
            "it holds, or name another one"
        ],
    ),
    "a device of an exported zpool": (
        [{"name": "new", "vdevs": [{"devices": [A]}]}],
        world(*AWAY, **EXPORTED),
        [
            "device /dev/sda: it is not blank: it holds gpt, a member of zpool tank; name it in overwrite of zpool new "
            "to give up what it holds, or name another one"
        ],
    ),
    **{
        f"redundancy that differs {number}": (
            [tank(vdevs=vdevs)],
            world(disk(A), disk(B), disk(C), disk(D)),
            [
                "zpool tank: its vdevs of data, special and dedup survive the loss of different numbers "
                "of devices; give "
                "them all the same redundancy, for with one of them the whole zpool is lost"
            ],
        )
        for number, vdevs in enumerate(
            (
                [*PAIR, {"role": "special", "devices": [C]}],
                [*PAIR, {"role": "dedup", "devices": [C]}],
                [{"type": "raidz2", "devices": [A, B, C]}, {"devices": [D]}],
            )
        )
    },
    "another of its name waits": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), offers=offer("tank", OTHER, *MIRROR)),
        [ANOTHER],
    ),
    "another of its name waits, and one of its devices is given up": (
        [tank(vdevs=PAIR, overwrite=[A])],
        world(
            zfs_disk(A),
            disk(B),
            labels={f"{A}1": {"name": "tank", "guid": OTHER}},
            offers=offer("tank", OTHER, *MIRROR),
        ),
        [ANOTHER],
    ),
    "another of its name waits, without any device": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), offers=offer("tank", OTHER)),
        [ANOTHER],
    ),
    "what waits can't be seen": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), offers=told(rc=1, stderr="oh")),
        ["zpool tank: whether it could be imported can't be seen (oh); run this again"],
    ),
    "what waits can't be seen, for an import": (
        [tank(vdevs=PAIR)],
        world(*AWAY, labels=LABELS, offers=told(rc=1, stderr="oh")),
        ["zpool tank: whether it could be imported can't be seen (oh); run this again"],
    ),
    "ZFS refuses it": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), rc=1),
        ["zpool tank: ZFS refuses it (no); declare what it takes"],
    ),
    "another type": (
        [tank(vdevs=[{"type": "raidz", "devices": [A, B]}])],
        there(),
        [
            "zpool tank: raidz1 of /dev/sda and /dev/sdb is declared, and it has mirror of /dev/sda1 and "
            "/dev/sdb1, which "
            "adding vdevs can't change; declare it as it is, or change it by zpool attach, detach, replace or remove"
        ],
    ),
    "a vdev that is not declared": (
        [tank(vdevs=PAIR)],
        there(*MIRROR, "\tlogs\n", leaf("/dev/sdc")),
        [
            "zpool tank: it has log /dev/sdc, which adding vdevs can't change; declare it as it is, or change it by "
            "zpool attach, detach, replace or remove"
        ],
    ),
    "a vdev more of a device in use": (
        [tank(vdevs=[*PAIR, {"role": "cache", "devices": [C]}], overwrite=[C])],
        there(devices=(*MADE, disk(C, "ext4", users=["swap"]))),
        ["device /dev/sdc: it is in use (swap); give zpool tank another one"],
    ),
    "a vdev more without redundancy": (
        [tank(vdevs=[*PAIR, {"devices": [C]}], overwrite=[C])],
        there(devices=(*MADE, disk(C, "ext4"))),
        [
            "zpool tank: its vdevs of data, special and dedup survive the loss of different numbers of devices; give "
            "them all the same redundancy, for with one of them the whole zpool is lost"
        ],
    ),
    "read-only, and a vdev more": (
        [tank(vdevs=[*PAIR, {"role": "cache", "devices": [C]}])],
        there(pools=f"tank\t{GUID}\tONLINE\ton\n", devices=(*MADE, disk(C))),
        ["zpool tank: it is imported read-only; export it, and import it without readonly"],
    ),
    "read-only, and a property": (
        [tank(properties={"autotrim": True})],
        there(pools=f"tank\t{GUID}\tONLINE\ton\n"),
        ["zpool tank: it is imported read-only; export it, and import it without readonly"],
    ),
    "read-only, and a dataset": (
        [tank(datasets=[{"name": "new"}])],
        there(pools=f"tank\t{GUID}\tONLINE\ton\n"),
        ["zpool tank: it is imported read-only; export it, and import it without readonly"],
    ),
    "properties that can't be seen": (
        [tank()],
        there(commands={"zpool get": told(rc=1, stderr="x")}),
        ["zpool tank: its properties can't be seen (x); run this again"],
    ),
    "an unknown property": (
        [tank(properties={"autotrin": True})],
        there(),
        ["zpool tank: this ZFS has no property autotrin; leave it out"],
    ),
    "an unknown property of a dataset": (
        [tank(filesystem_properties={"quote": 1})],
        there(commands={"zfs get": told(rc=2, stderr="bad property list: invalid property 'quote'\nusage:\n")}),
        ["host_zfs_pools: bad property list: invalid property 'quote'; leave that property out"],
    ),
    "zfs that fails": (
        [tank()],
        there(commands={"zfs get": told(rc=1, stderr="internal error")}),
        ["host_zfs_pools: zfs says: internal error; see to it first"],
    ),
    "no key": (
        [tank(datasets=[{"name": "a/b"}])],
        there(datasets={"tank": {"type": "filesystem", "keystatus": "unavailable"}}),
        ["dataset tank/a/b: the key of what it is to be in is not loaded; zfs load-key -a loads it"],
    ),
    "a zvol of the name of a dataset": (
        [tank(datasets=[{"name": "vms"}])],
        there(datasets={**VMS, "tank/vms": {"type": "volume"}}),
        ["dataset tank/vms: it is a volume; choose another name"],
    ),
    "encryption of what is there": (
        [tank(datasets=[{"name": "vms", "properties": {"encryption": True}}])],
        there(datasets=VMS),
        ["dataset tank/vms: its encryption is off and stays so; declare it as it is"],
    ),
    "a zvol of a guest in a zpool that is destroyed": (
        [absent(delete_data=True)],
        there(within={"tank": FS + VOLUME}, used=["a disk of guest 'web'"]),
        [
            "/dev/zvol/tank/web: it is in use (a disk of guest 'web'), and it would be destroyed; take it "
            "from those first"
        ],
    ),
    "a zvol that is open in a zpool that is exported": (
        [absent()],
        there(within={"tank": VOLUME}, used=["a disk of guest 'web'", "open in qemu (process 1)"]),
        [
            "/dev/zvol/tank/web: it is in use (open in qemu (process 1)), and its zpool would be "
            "exported; take it from "
            "those first"
        ],
    ),
    "images in a dataset that is destroyed": (
        [tank(datasets=[{"name": "vms", "state": "absent", "delete_data": True}])],
        there(
            datasets=VMS,
            within={"tank/vms": "filesystem\tyes\ttank/vms\t/srv/vms\n"},
            libvirt=["/etc/libvirt/qemu/a.xml"],
        ),
        [
            "libvirt uses /srv/vms (/etc/libvirt/qemu/a.xml): it would be destroyed; remove the pool, or take the disk "
            "from the guest first"
        ],
    ),
    "a dataset that ZFS would not destroy": (
        [tank(datasets=[{"name": "vms", "state": "absent", "delete_data": True}])],
        there(datasets=VMS, rc=1),
        ["dataset tank/vms: ZFS refuses it (no); declare what it takes"],
    ),
    "a scrub without a timer": (
        [tank(scrub="weekly")],
        there(datasets={}),
        ["zpool tank: the ZFS of this host has no zfs-scrub-weekly@tank.timer; leave scrub out"],
    ),
}


@pytest.mark.parametrize(("pools", "host", "problems"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(pools: list[dict[str, Any]], host: dict[str, Any], problems: list[str]) -> None:
    assert plan(pools, host)["problems"] == problems


def templates(code: Any) -> dict[str, str]:
    """The reason and the way out of every problem() in the code, as a pattern."""
    found = {}
    for node in ast.walk(ast.parse(Path(code.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "problem":
            texts = []
            for part in node.args[1:]:
                parts = part.values if isinstance(part, ast.JoinedStr) else [part]
                texts.append("".join(re.escape(one.value) if isinstance(one, ast.Constant) else ".*" for one in parts))
            found[f"{node.lineno}: {ast.unparse(node.args[1])[:60]}"] = "; ".join(texts)
    return found


@pytest.mark.parametrize("pattern", templates(zpools).values(), ids=templates(zpools).keys())
def test_every_refusal_of_the_code_has_a_row(pattern: str) -> None:
    problems = [problem for _pools, _host, told in REFUSED.values() for problem in told]
    assert any(re.search(pattern, problem, re.DOTALL) for problem in problems)


def commands(code: Any) -> list[str]:
    """How every step() in the code begins."""
    found = []
    for node in ast.walk(ast.parse(Path(code.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step":
            begin = [part.value for part in node.args[1:3] if isinstance(part, ast.Constant)]
            found += [" ".join(begin)] if begin else []
    return found


CREATE = f"zpool create -o {CACHEFILE} tank mirror {A} {B}"
TIMER = {f"/lib/systemd/system/zfs-scrub-{word}@.timer": "x" for word in zpools.TIMERS}
WANTS = f"{zfs.UNITS}/timers.target.wants/zfs-scrub-monthly@tank.timer"
SYSFS3 = sysfs(A, B, C)
SPARE = (*MIRROR, "\tspares\n", leaf(f"{C}1", "AVAIL"))
SPARE_LABEL = {**LABELS, f"{C}1": {"name": "", "guid": ""}}

# name: (zpools, the host, the commands, the datasets)
DONE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str], list[dict[str, Any]]]] = {
    "nothing": ([], world(), [], []),
    "nothing of one that is there": ([tank(vdevs=PAIR)], there(), [], []),
    "a mirror": ([tank(vdevs=PAIR)], world(disk(A), disk(B)), [CREATE], []),
    "a mirror where no zpools wait": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), offers=told(rc=1, stderr="no pools available to import")),
        [CREATE],
        [],
    ),
    "a mirror beside one of another name": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), offers=offer("other", OTHER, leaf(C))),
        [CREATE],
        [],
    ),
    "all roles, each named once": (
        [
            tank(
                vdevs=[
                    {"role": "spare", "devices": "/dev/e, /dev/f"},
                    {"type": "raidz", "devices": [A, B]},
                    {"role": "special", "type": "mirror", "devices": ["/dev/g", "/dev/h"]},
                    {"role": "log", "type": "stripe", "devices": [C]},
                    {"role": "cache", "devices": [D]},
                    {"type": "raidz1", "devices": ["/dev/i", "/dev/j"]},
                ],
                properties={"ashift": 12, "autotrim": True},
                filesystem_properties={"atime": False},
                datasets=[{"name": "b/c"}, {"name": "z", "properties": {"quota": "1GB"}}],
            )
        ],
        world(
            *(disk(f"/dev/{name}") for name in ("e", "f", "g", "h", "i", "j", "sda", "sdb", "sdc", "sdd")), sys=sysfs()
        ),
        [
            f"zpool create -o ashift=12 -o autotrim=on -o {CACHEFILE} -O atime=off tank raidz1 {A} {B} "
            "raidz1 /dev/i /dev/j "
            f"special mirror /dev/g /dev/h log {C} cache {D} spare /dev/e /dev/f",
        ],
        [
            {"name": "tank/z", "properties": {"quota": "1000000000"}, "there": False},
            {"name": "tank/b/c", "properties": {}, "there": False},
        ],
    ),
    "before ZFS is there": (
        [tank(vdevs=PAIR)],
        world(disk(A), disk(B), loaded=False, ordered=False, commands={"modinfo": told()}),
        [CREATE, ORDER, RELOAD],
        [],
    ),
    "one device given up": (
        [tank(vdevs=PAIR, overwrite=f"{A},{B}")],
        world(disk(A, "ext4"), disk(B)),
        [CREATE.replace("create", "create -f")],
        [],
    ),
    "overwrite of blank ones forces nothing": (
        [tank(vdevs=PAIR, overwrite=[A])],
        world(disk(A), disk(B)),
        [CREATE],
        [],
    ),
    "all of an exported one of its name given up": (
        [tank(vdevs=[{"devices": [A, B]}], overwrite=[A, B])],
        world(
            *AWAY,
            offers=offer("tank", OTHER, *MIRROR),
            labels={f"{A}1": {"name": "tank", "guid": OTHER}, B: {"name": "tank", "guid": OTHER}},
        ),
        [f"zpool import -o {CACHEFILE} {OTHER}"],
        [],
    ),
    "an exported one of its name given up with all its devices": (
        [tank(vdevs=[{"devices": [A, B, C]}], overwrite=[A, B])],
        world(
            *AWAY,
            disk(C),
            offers=offer("tank", OTHER, *MIRROR),
            labels={f"{A}1": {"name": "tank", "guid": OTHER}, f"{B}1": {"name": "tank", "guid": OTHER}},
        ),
        [f"zpool create -f -o {CACHEFILE} tank {A} {B} {C}"],
        [],
    ),
    "an import": (
        [tank(vdevs=PAIR, properties={"ashift": 12})],
        world(*AWAY, **EXPORTED),
        [f"zpool import -o {CACHEFILE} 111"],
        [],
    ),
    "an import for another host": (
        [tank(vdevs=PAIR, properties={"cachefile": "none"})],
        world(*AWAY, **EXPORTED),
        ["zpool import -o cachefile=none 111"],
        [],
    ),
    "an import without its cache and its spare": (
        [tank(vdevs=[*PAIR, {"role": "cache", "devices": [C]}, {"role": "spare", "devices": [D]}])],
        world(*AWAY, disk(C), gone(D), **EXPORTED),
        [f"zpool import -o {CACHEFILE} 111"],
        [],
    ),
    "an import, before ZFS is there": (
        [tank(vdevs=PAIR)],
        world(*AWAY, labels=LABELS, loaded=False),
        [f"zpool import -o {CACHEFILE} 111"],
        [],
    ),
    "a destroyed one whose devices are given up": (
        [tank(vdevs=PAIR, overwrite=[A, B])],
        world(*AWAY, labels=LABELS),
        [CREATE.replace("create", "create -f")],
        [],
    ),
    "a host ID": ([tank(vdevs=PAIR)], world(disk(A), disk(B), hostid=False), ["zgenhostid", CREATE], []),
    "vdevs more": (
        [tank(vdevs=[*PAIR, {"role": "cache", "devices": [C]}], properties={"ashift": 12})],
        there(devices=(*MADE, disk(C)), has={**HAS, "ashift": "12"}),
        [f"zpool add -o ashift=12 tank cache {C}"],
        [],
    ),
    "a vdev more that is given up": (
        [tank(vdevs=[*PAIR, {"type": "mirror", "devices": [C, D]}], overwrite=[C])],
        there(devices=(*MADE, disk(C, "xfs"), disk(D))),
        [f"zpool add -f tank mirror {C} {D}"],
        [],
    ),
    "properties": (
        [
            tank(
                properties={"autotrim": True, "comment": "", "cachefile": "none", "feature@x": "enabled", "my:own": "1"}
            )
        ],
        there(has={**HAS, "feature@x": "active"}),
        ["zpool set autotrim=on tank", "zpool set cachefile=none tank", "zpool set my:own=1 tank"],
        [],
    ),
    "properties of its root and of datasets": (
        [
            tank(
                filesystem_properties={"compression": "zstd"},
                datasets=[{"name": "vms", "properties": {"quota": "none"}}, {"name": "new"}],
            )
        ],
        there(datasets={**VMS, "tank": {"type": "filesystem", "compression": "lz4"}}),
        [],
        [
            {"name": "tank", "properties": {"compression": "zstd"}, "there": True},
            {"name": "tank/new", "properties": {}, "there": True},
        ],
    ),
    "a value of several lines that another has set": (
        [tank(filesystem_properties={"my:own": "a"})],
        there(commands={"zfs get": told("tank\ttype\tfilesystem\ntank\tmy:own\ta\nb\nc\td\n")}),
        [],
        [{"name": "tank", "properties": {"my:own": "a"}, "there": True}][:0],
    ),
    "an export": (
        [absent()],
        there(within={"tank": FS + VOLUME}, used=["a disk of guest 'web'"]),
        ["zpool export tank", f"rm -r {zpools.ORDER_FOLDER}", RELOAD],
        [],
    ),
    **{
        f"an export with delete_data {value!r}": (
            [absent(delete_data=value)],
            there(ordered=False),
            ["zpool export tank"],
            [],
        )
        for value in ("false", "no", 0, None)
    },
    "an export beside another file and another zpool": (
        [absent(), {"name": "b", "state": "absent"}],
        there(files={f"{zpools.ORDER_FOLDER}/x.conf": "x"}),
        ["zpool export tank", f"rm {zpools.ORDER_FILE}", RELOAD],
        [],
    ),
    "an export of one of two": (
        [absent()],
        there(pools=f"{HEALTHY}b\t3\tONLINE\toff\n"),
        ["zpool export tank"],
        [],
    ),
    "one that is not there goes": ([absent(delete_data=True)], world(ordered=False), [], []),
    "a destruction": (
        [absent(delete_data="true")],
        there(within={"tank": FS}, ordered=False),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1 {A} {B}"],
        [],
    ),
    "a destruction with a spare": (
        [absent(delete_data=True)],
        there(*SPARE, ordered=False, sys=SYSFS3, labels=SPARE_LABEL),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1 {C}1 {A} {B} {C}"],
        [],
    ),
    "a destruction with a spare that is another's too": (
        [absent(delete_data=True)],
        there(
            status=status("tank", *SPARE) + status("b", "\tspares\n", leaf(f"{C}1", "AVAIL")),
            ordered=False,
            sys=SYSFS3,
            labels=SPARE_LABEL,
            pools=f"{HEALTHY}b\t3\tONLINE\toff\n",
        ),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1 {A} {B}"],
        [],
    ),
    **{
        f"a destruction of which a device is {how}": (
            [absent(delete_data=True)],
            there(leaf("mirror-0"), leaf(f"{A}1", depth=4), member, ordered=False, labels=labels),
            ["zpool destroy tank", f"wipefs --all --quiet {A}1 {A}"],
            [],
        )
        for how, member, labels in (
            ("gone, and another has its name", leaf("123", "UNAVAIL", 4, f"  was {B}1"), LABELS),
            ("not open", leaf(f"{B}1", "FAULTED", 4, "  corrupted data"), LABELS),
            ("of another by its label", leaf(f"{B}1", depth=4), {**LABELS, f"{B}1": {"name": "tank", "guid": OTHER}}),
            ("labelled without a zpool", leaf(f"{B}1", depth=4), {**LABELS, f"{B}1": {"name": "", "guid": ""}}),
            ("without a label", leaf(f"{B}1", depth=4), {f"{A}1": LABELS[f"{A}1"]}),
        )
    },
    "a destruction with a spare that has the label of another": (
        [absent(delete_data=True)],
        there(*SPARE, ordered=False, sys=SYSFS3, labels={**LABELS, f"{C}1": {"name": "x", "guid": OTHER}}),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1 {A} {B}"],
        [],
    ),
    "a destruction on a partition beside others": (
        [absent(delete_data=True)],
        there(ordered=False, sys=sysfs(A, B, reserved="2097152")),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1"],
        [],
    ),
    "a destruction with sectors of 4096": (
        [absent(delete_data=True)],
        there(ordered=False, sys=sysfs(A, B, reserved="131072")),
        ["zpool destroy tank", f"wipefs --all --quiet {A}1 {B}1 {A} {B}"],
        [],
    ),
    "labels that another left": (
        [absent(delete_data=True, vdevs=PAIR)],
        world(*AWAY, labels=LABELS, ordered=False, offers=told(rc=1, stderr="no pools available to import")),
        [f"wipefs --all --quiet {A}1 {A} {B}1 {B}"],
        [],
    ),
    "labels of another, of one in use, and on a disk with more": (
        [absent(delete_data=True, vdevs=[{"devices": [A, B, C]}])],
        world(
            zfs_disk(A),
            zfs_disk(B, users=["swap"]),
            disk(C, "gpt", partitions=[f"{C}1", f"{C}2"]),
            ordered=False,
            labels={f"{A}1": {"name": "other", "guid": "3"}, f"{B}1": LABELS[f"{B}1"], f"{C}1": LABELS[f"{A}1"]},
        ),
        [],
        [],
    ),
    "a dataset that goes": (
        [
            tank(
                datasets=[
                    {"name": "vms", "state": "absent", "delete_data": "yes"},
                    {"name": "x", "state": "absent", "delete_data": True},
                ]
            )
        ],
        there(datasets=VMS, libvirt=["a.xml"], within={"tank/vms": "filesystem\tno\ttank/vms\t/srv\n"}),
        ["zfs destroy -r tank/vms"],
        [],
    ),
    "units": (
        [tank()],
        there(
            ordered=False,
            files={
                "/lib/systemd/system/zfs.target": "[Install]\nWantedBy=x",
                "/lib/systemd/system/zfs-mount.service": "WantedBy=x",
                "/lib/systemd/system/zfs-zed.service": "WantedBy=x",
                "/lib/systemd/system/zfs-import.target": "static",
            },
            paths={
                f"{zfs.UNITS}/multi-user.target.wants/zfs-mount.service": "/x",
                f"{zfs.UNITS}/zfs-zed.service": "/dev/null",
            },
        ),
        [ORDER, "systemctl enable zfs.target"],
        [],
    ),
    "another scrub": (
        [tank(scrub="weekly")],
        there(files=TIMER, paths={WANTS: "/x"}),
        ["systemctl disable --now zfs-scrub-monthly@tank.timer", "systemctl enable --now zfs-scrub-weekly@tank.timer"],
        [],
    ),
    "no scrub, and none of Debian": (
        [tank(scrub="never")],
        there(paths={WANTS: "/x", zpools.DEBIAN_CRON: "/x"}),
        ["systemctl disable --now zfs-scrub-monthly@tank.timer"],
        [{"name": "tank", "properties": {zpools.DEBIAN_SCRUB: "disable"}, "there": True}],
    ),
    "an ARC": (
        [],
        world(
            arc_max="4GiB",
            files={
                f"{zpools.MODULE}/parameters/zfs_arc_max": "0",
                "/etc/modprobe.d/host_zfs.conf": "options zfs zfs_arc_max=1",
            },
        ),
        [f"tee {zpools.MODULE}/parameters/zfs_arc_max"],
        [],
    ),
    "a small ARC": (
        [],
        world(arc_max="1GiB", files={f"{zpools.MODULE}/parameters/zfs_arc_max": str(1 << 30)}),
        [f"tee {zpools.MODULE}/parameters/zfs_arc_min"],
        [],
    ),
    "an ARC before ZFS is there": ([], world(arc_max="4GiB", loaded=False), [], []),
    "no limit of the ARC": ([], world(arc_max="default"), [], []),
}


@pytest.mark.parametrize(("pools", "host", "commands", "datasets"), DONE.values(), ids=DONE.keys())
def test_what_is_done(
    pools: list[dict[str, Any]], host: dict[str, Any], commands: list[str], datasets: list[dict[str, Any]]
) -> None:
    found = plan(pools, host)
    assert found["problems"] == []
    done = [" ".join(step["argv"]) for step in found["steps"]]
    assert sorted(done) == sorted(commands)
    assert found["datasets"] == datasets
    assert found["seen"] is host["loaded"]
    assert found["imports"] is any(" import " in words for words in done)
    tries = [re.sub(" -n", "", " ".join(argv)) for argv in found["tries"]]
    taken = [words for words in done if re.match("zpool (create|add)|zfs destroy", words)]
    assert tries == (taken if host["loaded"] else [])


def test_every_command_of_the_code_has_a_row() -> None:
    rows = [line for _pools, _host, lines, _datasets in DONE.values() for line in lines]
    wanted = commands(zpools)
    assert len(wanted) == 17
    assert [one for one in wanted if not any(line.startswith(one) for line in rows)] == []


def test_steps_say_what_they_do() -> None:
    found = [step for pools, host, _lines, _datasets in DONE.values() for step in plan(pools, host)["steps"]]
    assert all(step["name"] and all(isinstance(word, str) and word for word in step["argv"]) for step in found)
    assert {step["stdin"] for step in found if step["argv"][0] == "install"} == {zpools.ORDER}
    assert {step["stdin"] for step in found if step["argv"][0] == "tee"} == {str(4 << 30), str(512 << 20)}
    names = {step["name"] for step in found}
    assert {"create zpool tank", "import zpool tank", "export zpool tank", "destroy zpool tank"} <= names
    assert {"add cache /dev/sdc to zpool tank", "destroy dataset tank/vms", "wipe the labels of zpool tank"} <= names
    assert {"scrub zpool tank weekly", "scrub zpool tank no longer monthly", "set autotrim=on of zpool tank"} <= names


def test_the_order_of_what_goes_and_what_comes() -> None:
    host = there(devices=(*MADE, disk(C)), ordered=False)
    found = plan([{"name": "b", "vdevs": [{"devices": [C]}]}, absent(delete_data=True)], host)
    assert [step["argv"][:2] for step in found["steps"]][:3] == [
        ["zpool", "destroy"],
        ["wipefs", "--all"],
        ["zpool", "create"],
    ]


@pytest.mark.parametrize(
    ("size", "arc"),
    [
        ("1GiB", {"zfs_arc_min": 512 << 20, "zfs_arc_max": 1 << 30}),
        ("64MiB", {"zfs_arc_min": 32 << 20, "zfs_arc_max": 64 << 20}),
        ("1073741825", {"zfs_arc_max": (1 << 30) + 1}),
        ("", {}),
        ("default", {}),
    ],
)
def test_the_limit_of_the_arc(size: str, arc: dict[str, int]) -> None:
    assert plan([], world(arc_max=size))["arc"] in (arc, {**arc})


@pytest.mark.parametrize(
    ("loaded", "modinfo", "module"), [(True, 1, "loaded"), (False, 0, "there"), (False, 1, "missing")]
)
def test_the_module(loaded: bool, modinfo: int, module: str) -> None:
    assert plan([], world(loaded=loaded, commands={"modinfo": told(rc=modinfo)}))["module"] == module


STATUS = status(
    "tank",
    leaf("mirror-0"),
    leaf("/dev/disk/by-id/A-part1", depth=4),
    leaf("spare-1", depth=4),
    leaf("/dev/disk/by-id/B-part1", depth=6),
    leaf("/dev/disk/by-id/S-part1", depth=6),
    leaf("mirror-1", "DEGRADED"),
    leaf("1234567890", "UNAVAIL", 4, "  was /dev/disk/by-id/C-part1"),
    leaf("/dev/disk/by-id/D-part1", depth=4, tail="  (resilvering)"),
    "\tspecial\t\n",
    leaf("mirror-2"),
    leaf("/dev/nvme8n1p1", depth=4),
    leaf("/dev/nvme9n1p1", depth=4),
    "\tlogs\t\n",
    leaf("/dev/sdy1"),
    "\tcache\n",
    leaf("/dev/sdz1"),
    "\tspares\n",
    "\t  /dev/disk/by-id/S-part1  INUSE  currently in use\n",
    leaf("indirect-3"),
)
DECLARED: list[dict[str, Any]] = [
    {"role": "spare", "devices": ["/dev/disk/by-id/S"]},
    {"type": "mirror", "devices": ["/dev/disk/by-id/B", "/dev/disk/by-id/A"]},
    {"type": "mirror", "devices": ["/dev/disk/by-id/C", "/dev/disk/by-id/D"]},
    {"role": "special", "type": "mirror", "devices": ["/dev/nvme8n1", "/dev/nvme9n1"]},
    {"role": "log", "devices": ["/dev/sdy"]},
    {"role": "cache", "devices": ["/dev/sdz"]},
]
EMPTY = zpools.Seen({}, {})


def unmatched(declared: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """What is declared and not there, and what is there and not declared."""
    there = EMPTY.topology(STATUS)
    missing = []
    for vdev in EMPTY.declared(declared):
        found = next((one for one in there if vdev.same(one)), None)
        if found:
            there.remove(found)
        else:
            missing.append(str(vdev))
    return missing, [str(one) for one in there]


def test_the_same_topology() -> None:
    """In any order; with a spare that has stepped in, and a device that is gone."""
    assert unmatched(DECLARED) == ([], [])


@pytest.mark.parametrize(
    ("changed", "missing", "there"),
    [
        ({"type": "mirror", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/X"]}, 1, 1),
        ({"type": "raidz", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 1, 1),
        ({"type": "mirror", "devices": ["/dev/disk/by-id/A"]}, 1, 1),
        ({"role": "log", "type": "mirror", "devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 1, 1),
        ({"devices": ["/dev/disk/by-id/A", "/dev/disk/by-id/B"]}, 2, 1),
    ],
)
def test_another_topology(changed: dict[str, Any], missing: int, there: int) -> None:
    found = unmatched([DECLARED[0], changed, *DECLARED[2:]])
    assert tuple(map(len, found)) == (missing, there), found


def test_one_more() -> None:
    assert unmatched([*DECLARED, {"role": "cache", "devices": ["/dev/sdx"]}]) == (["cache /dev/sdx"], [])


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/dev/disk/by-id/wwn-0xabc1", {"/dev/disk/by-id/wwn-0xabc1"}),
        ("/dev/disk/by-id/x-part1", {"/dev/disk/by-id/x-part1", "/dev/disk/by-id/x"}),
        ("/dev/sdq1", {"/dev/sdq1", "/dev/sdq"}),
        ("/dev/nvme0n1p1", {"/dev/nvme0n1p1", "/dev/nvme0n1"}),
        ("/dev/nvme0n1", {"/dev/nvme0n1"}),
    ],
)
def test_names_of_a_device_that_is_gone(path: str, keys: set[str]) -> None:
    assert EMPTY.keys_of(path) == keys


def test_partitions_of_multipath_maps() -> None:
    looked = {
        "told": {},
        "files": {"/sys/class/block/dm-3/dm/uuid": "part1-mpath-x"},
        "paths": {"/sys/class/block/dm-3/slaves/dm-1": "/x", "/sys/class/block/dm-4/slaves/dm-2": "/x"},
    }
    assert zpools.Seen({}, looked).disk_of("/dev/dm-3") == "/dev/dm-1"
    assert zpools.Seen({}, {**looked, "paths": {}}).disk_of("/dev/dm-3") == "/dev/dm-3"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("compression", True, "on"),
        ("atime", False, "off"),
        ("quota", "1GiB", "1073741824"),
        ("quota", "10GB", "10000000000"),
        ("quota", 1024, "1024"),
        ("quota", "none", "0"),
        ("userquota@joe", "1G", "1073741824"),
        ("groupquota@a", "none", "0"),
        ("snapshot_limit", "none", str(2**64 - 1)),
        ("snapshot_limit", "10", "10"),
        ("recordsize", "1.5M", "1572864"),
        ("refreservation", "auto", "auto"),
        ("mountpoint", "/srv/a/", "/srv/a"),
        ("mountpoint", "/", "/"),
        ("mountpoint", "//", "/"),
        ("mountpoint", "none", "none"),
        ("acltype", "posixacl", "posix"),
        ("acltype", "noacl", "off"),
        ("compression", "gzip-6", "gzip"),
        ("comment", " 10G ", "10G"),
        ("copies", 2, "2"),
    ],
)
def test_values_as_zfs_shows_them(name: str, value: Any, shown: str) -> None:
    assert zpools.value_of(name, value) == shown


@pytest.mark.parametrize(
    ("name", "wanted", "found", "same"),
    [
        ("a", "x", "x", True),
        ("a", "x", "y", False),
        ("encryption", "on", "aes-256-gcm", True),
        ("encryption", "on", "off", False),
        ("encryption", "on", "-", False),
        ("encryption", "off", "aes-256-gcm", False),
        ("xattr", "on", "sa", True),
        ("xattr", "sa", "dir", False),
        ("feature@a", "enabled", "active", True),
        ("feature@a", "enabled", "disabled", False),
        ("cachefile", zpools.CACHE, "-", True),
        ("cachefile", "none", "-", False),
        ("comment", "", "-", True),
        ("comment", "x", "-", False),
    ],
)
def test_values_that_mean_the_same(name: str, wanted: str, found: str, same: bool) -> None:
    assert zpools.agrees(name, wanted, found) is same


def test_what_is_asked_of_the_host() -> None:
    pools = [
        tank(
            vdevs=PAIR,
            scrub="weekly",
            datasets=[{"name": "a", "properties": {"quota": 1}}, {"name": "..", "state": "absent"}],
        ),
        {"name": "b", "state": "absent"},
        {"name": "-x", "state": "absent", "vdevs": [{"devices": ["/dev/A", "/dev/a"]}]},
    ]
    told = zpool_plan(
        pools,
        arc_max="",
        arc_file="",
        devices={"devices": [zfs_disk(A), gone(B)]},
        looked={},
        ready=False,
        tried={},
        zvols={},
        users={},
    )
    assert told["named"] == [A, B, "/dev/A", "/dev/a"]
    assert told["asks"]["labels"] == [A, f"{A}1", f"{A}9"]
    assert told["asks"]["commands"] == [
        zpools.MODINFO,
        zpools.LIST,
        zpools.STATUS,
        zpools.IMPORT,
        ["zpool", "get", "-H", "-p", "-o", "name,property,value", "all", "tank"],
        [
            "zfs",
            "get",
            "-H",
            "-p",
            "-o",
            "name,property,value",
            f"keystatus,{zpools.DEBIAN_SCRUB},quota,type",
            "tank",
            "tank/a",
        ],
        ["zfs", "list", "-H", "-r", "-t", "filesystem,volume", "-o", "type,mounted,name,mountpoint", "b"],
    ]
    assert zpools.DEBIAN_CRON in told["asks"]["paths"] and "/proc/meminfo" in told["asks"]["files"]


@pytest.mark.parametrize(
    ("pools", "given", "words"),
    [
        ("tank", {}, "a list of zpools is needed"),
        (["tank"], {}, "a list of zpools is needed"),
        ([{}], {}, "'name' is not in"),
        ([tank(delete_data="perhaps")], {}, "can't be read"),
        ([tank(vdevs="x")], {}, "can't be read"),
    ],
)
def test_what_can_not_be_read_is_an_error(pools: Any, given: dict[str, Any], words: str) -> None:
    everything = {
        "arc_max": "",
        "arc_file": "",
        "devices": {},
        "looked": {},
        "ready": False,
        "tried": {},
        "zvols": {},
        "users": {},
    }
    with pytest.raises(AnsibleFilterError, match=words):
        zpool_plan(pools, **{**everything, **given})


def test_the_documentation_names_every_argument_and_every_key() -> None:
    documents = yaml.safe_load((ROOT / "plugins/filter/zpool_plan.yml").read_text(encoding="utf-8"))
    names = set(zpools.zpool_plan.__annotations__) - {"pools", "return"}
    assert set(documents["DOCUMENTATION"]["options"]) == names | {"_input"}
    assert list(documents["RETURN"]["_value"]["contains"]) == list(plan([], world()))
