# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_lvm is to do with groups, thin pools and the devices file, by what was seen and what is wanted.

Nothing here looks or acts. What LVM tells is the JSON of `lvm fullreport` and `lvm pvs` with --units=b --nosuffix:
every value is a string, a flag is a word or empty, a device that is missing is named [unknown]; a report without "vg"
is of devices in no group (LVM 2.03.16). All sizes are bytes, extents are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.kvm.storage.plugins.module_utils import sizes

from .values import unique

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
EXTENT = 4 * MIB  # of LVM, unless given
LABEL = MIB  # what LVM keeps at the begin of a device (default_data_alignment)
ODD_EXTENT = 128 * KIB  # an extent that is no power of 2 is a multiple of this (vgcreate)
METADATA = (2 * MIB, 16978542592)  # least and most (DM_THIN_MAX_METADATA_SIZE)
CHUNK = (64 * KIB, GIB)  # least, of which every other is a multiple, and most (DM_THIN_MIN_DATA_BLOCK_SIZE)
SECTOR = 512  # LVM takes no size that is not whole sectors
PERCENT = 20  # of autoextend, unless given
PROFILE = "kvm-storage-autoextend-"
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")
# Source: lib/misc/lvm-string.c, reserved for volumes that LVM makes for itself.
RESERVED = re.compile(
    r"(snapshot|pvmove).*|.*_(cdata|cmeta|corig|cpool|cvol|imeta|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta"
    r"|vdata|vorigin|wcorig).*"
)
NAMES = "LVM takes no such name; use letters, digits and _ + . -"
TWO = "LVM sees two of this name; hide that of the guest, or rename one by its UUID (vgrename)"
GUEST = "a disk of "  # begins what device_info says of a device that a guest has

Step = dict[str, Any]  # {"say": words for people, "argv": a command}
Item = Mapping[str, Any]  # of host_lvm_groups, or of its thin_pools


class Device(NamedTuple):
    """A device that LVM can reach, and the group that it is part of, if any."""

    name: str
    uuid: str
    group: str
    group_uuid: str
    size: int  # of its extents
    used: int
    start: int  # of its first extent
    whole: int  # of the device
    exported: bool
    missing: int  # devices of its group that can't be reached; like exported only from `lvm pvs`


class Volume(NamedTuple):
    """A logical volume that people see."""

    name: str
    layout: frozenset[str]
    size: int
    metadata: int
    active: bool
    opened: bool  # of one that is not active LVM says unknown
    profile: str
    pool: str  # the thin pool that it is in
    chunk: int
    monitor: str


class Group(NamedTuple):
    """A volume group that LVM sees, or one that is still to be made."""

    name: str
    uuid: str
    extent: int
    extents: int
    free: int
    exported: bool
    autoactivation: bool
    missing: int
    devices: tuple[Device, ...]  # those that can be reached
    names: tuple[str, ...]  # of all devices
    volumes: tuple[Volume, ...]

    def active(self) -> bool:
        return any(volume.active for volume in self.volumes)

    def used(self) -> list[Volume]:
        """What something has open, but thin pools, which their own volumes hold."""
        return [volume for volume in self.volumes if volume.opened and "pool" not in volume.layout]


class Seen(NamedTuple):
    """What was seen on the host."""

    looked: bool  # by LVM; what is wrong in itself is told before
    in_force: bool  # LVM has a devices file
    groups: list[Group]
    devices: dict[str, Device]  # that LVM sees, by LVM's name
    hidden: dict[str, Device]  # that only a look past LVM's filter and devices file has shown
    disks: dict[str, Item]  # path as declared -> what device_info says
    members: dict[str, Device]  # the same as devices and hidden by the path that was declared
    strangers: dict[str, Device]


class Wanted(NamedTuple):
    """What is declared beside the groups, and the play."""

    guest_groups: Sequence[str]
    devices_file: str
    host: str
    shares: Mapping[str, Sequence[str]]  # host -> the groups that it shares, in the order of the play
    hosts: Sequence[str]  # of the whole play
    batch: Sequence[str]  # those of them that take part now


@dataclass
class Plan:
    """What is wrong, and what is to be done, in the order of the role's tasks."""

    problems: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    hide: list[Step] = field(default_factory=list)
    build: list[dict[str, str]] = field(default_factory=list)
    switch: bool = False
    adopt: list[Step] = field(default_factory=list)
    wipe: list[str] = field(default_factory=list)
    make: list[dict[str, Any]] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    monitor: bool = False
    commands: list[Step] = field(default_factory=list)
    drop: list[Step] = field(default_factory=list)
    delete: list[Step] = field(default_factory=list)
    last: list[Step] = field(default_factory=list)
    going: list[tuple[str, str]] = field(default_factory=list)  # (group, volume) whose profile goes


def volume_group_plan(
    groups: Sequence[Item],
    *,
    report: Item,
    listed: Item,
    outside: Item,
    disks: Item,
    gone: Item,
    guest_groups: Sequence[str],
    devices_file: str,
    host: str,
    shares: Mapping[str, Sequence[str]],
    hosts: Sequence[str],
    batch: Sequence[str],
) -> dict[str, Any]:
    """The whole plan; report, listed and outside are results of commands, disks and gone of device_info, {} before.

    problems      what is wrong, one line each; nothing else counts while there is one.
    outside       devices to look at past LVM's filter and devices file, for `outside`.
    asks          volumes that are to go, for `gone`.
    hide, adopt, commands, drop, delete, last   steps.
    build         devices of a new devices file, name and uuid; switch: whether it is to be had.
    wipe          devices that were given up by name and hold something.
    make          groups that are made or extended: vg, pvs, extent, options.
    waits         groups that another host of the play makes.
    profiles      name, threshold, percent; stale: names of those that nothing has any more.
    monitor       whether there are thin pools to be watched.
    """
    shared = {name: [str(one) for one in told] for name, told in shares.items()}
    wanted = Wanted([str(one) for one in guest_groups], devices_file, host, shared, hosts, batch)
    plan = Plan()
    seen = read(report, listed, outside, disks, plan)
    plan.switch = seen.looked and devices_file == "present" and not seen.in_force
    hide_guests(plan, seen, wanted)
    build_file(plan, seen, wanted)
    declared: list[Item] = []
    for item in map(named, groups):
        before = len(plan.problems)
        check_group(plan, item, declared, wanted)
        declared.append(item)
        plan_group(plan, item, seen, wanted, before)
    ask_guests(plan, gone)
    return {
        "problems": unique(plan.problems),
        "outside": sorted(set(plan.outside)),
        "asks": plan.asks,
        "hide": plan.hide,
        "build": plan.build,
        "switch": plan.switch,
        "adopt": plan.adopt,
        "wipe": plan.wipe,
        "make": plan.make,
        "waits": plan.waits,
        "profiles": unique(plan.profiles),
        "monitor": plan.monitor,
        "commands": plan.commands,
        "drop": plan.drop,
        "delete": plan.delete,
        "last": plan.last,
        "stale": stale(plan, seen),
    }


def named(item: Item) -> dict[str, Any]:
    """A group or a thin pool whose name is a text, also where YAML made it a number."""
    pools = {"thin_pools": [named(pool) for pool in item["thin_pools"]]} if item.get("thin_pools") else {}
    return {**item, **pools, "name": str(item["name"])}


# Small words


def step(say: str, *argv: str) -> Step:
    return {"say": say, "argv": list(argv)}


def forget(device: str, thing: str = "") -> Step:
    of = f" of {thing}" if thing else ""
    return step(f"take {device}{of} out of the devices file", "lvm", "lvmdevices", "--yes", "--deldev", device)


def number(text: Any) -> int:
    """A number as LVM prints it; empty is what has none."""
    return int(text or 0)


def size_of(value: Any) -> int:
    """Bytes of a size with a unit of libvirt, -1 of what is none."""
    try:
        return sizes.parse(value)
    except ValueError:
        return -1


def up(size: int, unit: int) -> int:
    """How many whole units hold a size."""
    return -(-size // unit)


def has(item: Item, key: str) -> bool:
    """Whether an option is given; the empty text of a variable is not."""
    return item.get(key) not in (None, "")


def paths(item: Item, key: str) -> list[str]:
    return list(item.get(key) or [])


def says(item: Item, key: str) -> bool:
    """Whether a switch is on; the word 'false' of an extra variable is off, too."""
    return has(item, key) and boolean(item[key])


def is_absent(item: Item) -> bool:
    return item.get("state") == "absent"


def group_words(name: str) -> str:
    return f"volume group '{name}'"


def pool_words(group: str, pool: str) -> str:
    return f"thin pool '{group}/{pool}'"


# What was seen


def read(report: Item, listed: Item, outside: Item, disks: Item, plan: Plan) -> Seen:
    """All that was seen; a disk that was declared by two paths is a problem."""
    looked = "stdout" in report
    reports = json.loads(report["stdout"])["report"] if looked else []
    groups = [read_group(one) for one in reports if one.get("vg") and one["vg"][0]["vg_name"]]
    devices = {device.name: device for one in reports for device in read_devices(one)}
    hidden: dict[str, Device] = {}
    if "stdout" in outside:
        hidden = {
            device.name: device for one in json.loads(outside["stdout"])["report"] for device in read_devices(one)
        }
    known: dict[str, Item] = {}
    nodes: dict[str, str] = {}
    members: dict[str, Device] = {}
    strangers: dict[str, Device] = {}
    for disk in disks.get("devices") or []:
        path = disk["path"]
        known[path] = disk
        if not disk["exists"]:
            continue
        if disk["node"] in nodes:
            plan.problems.append(f"device {path}: is given twice, also as {nodes[disk['node']]}; name it once")
        nodes[disk["node"]] = path
        for name in lvm_names(disk):
            if name in devices:
                members[path] = devices[name]
            elif name in hidden:
                strangers[path] = hidden[name]
    in_force = listed.get("rc", 5) == 0
    return Seen(looked, in_force, groups, devices, hidden, known, members, strangers)


def lvm_names(disk: Item) -> Iterator[str]:
    """The names under which LVM may know a disk: the node, or one below /dev/mapper where it is such a device."""
    yield disk["node"]
    for name in disk["ids"]:
        yield re.sub("^/dev/disk/by-id/dm-name-", "/dev/mapper/", name)


def read_devices(report: Item) -> Iterator[Device]:
    """The devices of one report that can be reached."""
    group = report["vg"][0] if report.get("vg") else {}
    for pv in report["pv"]:
        if pv["pv_missing"]:
            continue
        yield Device(
            name=pv["pv_name"],
            uuid=pv["pv_uuid"],
            group=group.get("vg_name", pv.get("vg_name", "")),
            group_uuid=group.get("vg_uuid", pv.get("vg_uuid", "")),
            size=number(pv.get("pv_size")),
            used=number(pv.get("pv_used")),
            start=number(pv.get("pe_start")),
            whole=number(pv.get("dev_size")),
            exported=bool(pv.get("vg_exported")),
            missing=number(pv.get("vg_missing_pv_count")),
        )


def read_group(report: Item) -> Group:
    vg = report["vg"][0]
    first: dict[str, Item] = {}
    for segment in report["seg"]:
        first.setdefault(segment["lv_name"], segment)
    return Group(
        name=vg["vg_name"],
        uuid=vg["vg_uuid"],
        extent=number(vg["vg_extent_size"]),
        extents=number(vg["vg_extent_count"]),
        free=number(vg["vg_free_count"]),
        exported=bool(vg["vg_exported"]),
        autoactivation=bool(vg["vg_autoactivation"]),
        missing=number(vg["vg_missing_pv_count"]),
        devices=tuple(read_devices(report)),
        names=tuple(pv["pv_name"] for pv in report["pv"]),
        volumes=tuple(read_volume(lv, first.get(lv["lv_name"], {})) for lv in report["lv"]),
    )


def read_volume(lv: Item, segment: Item) -> Volume:
    return Volume(
        name=lv["lv_name"],
        layout=frozenset(lv["lv_layout"].split(",")),
        size=number(lv["lv_size"]),
        metadata=number(lv["lv_metadata_size"]),
        active=lv["lv_active"] != "",
        opened=lv["lv_device_open"] == "open",
        profile=lv["lv_profile"],
        pool=lv["pool_lv"],
        chunk=number(segment.get("chunk_size")),
        monitor=segment.get("seg_monitor", ""),
    )


# The devices file


def hide_guests(plan: Plan, seen: Seen, wanted: Wanted) -> None:
    """Groups of guests go out of sight."""
    for group in seen.groups:
        if group.name not in wanted.guest_groups:
            continue
        thing = group_words(group.name)
        if wanted.devices_file != "present" and not seen.in_force:
            plan.problems.append(f"{thing}: is hidden by the devices file only; set host_lvm_devices_file to present")
        plan.problems += [
            f"{thing}: this host uses its volume '{volume.name}', so it is no group of a guest; "
            "take it out of host_lvm_guest_groups, or stop what uses it"
            for volume in group.used()
        ]
        if group.active():  # by its UUID, since the host may have one of the same name
            stop = ("vgchange", "--activate", "n", "--select", f"vg_uuid={group.uuid}")
            plan.hide.append(step(f"stop {thing} of a guest on the host", *stop))
        if seen.in_force:
            plan.hide += [forget(device.name, thing) for device in group.devices]


def build_file(plan: Plan, seen: Seen, wanted: Wanted) -> None:
    """The first devices file has every device that LVM uses, but those of guests."""
    if plan.switch:
        plan.build = [
            {"name": device.name, "uuid": device.uuid}
            for device in seen.devices.values()
            if device.group not in wanted.guest_groups
        ]


# What is wrong in itself


def check_group(plan: Plan, item: Item, before: Sequence[Item], wanted: Wanted) -> None:
    """What is wrong with the declaration of a group, whatever the host has; before are the groups above it."""
    name, absent, given = item["name"], is_absent(item), paths(item, "devices")
    thing, problems = group_words(name), plan.problems
    if not NAME.fullmatch(name) or name in (".", ".."):
        problems.append(f"{thing}: {NAMES}")
    if any(name == one["name"] for one in before):
        problems.append(f"{thing}: is declared twice; declare it once")
    if name in wanted.guest_groups:
        problems.append(f"{thing}: is declared, and a group of a guest too; take it out of one of the lists")
    if says(item, "delete_data") and not absent:
        problems.append(
            f"{thing}: has delete_data, and is to be present; leave out delete_data, or set state to absent"
        )
    problems += [
        f"device {path}: is to be overwritten, but is no device of {thing}; name it in devices too"
        for path in paths(item, "overwrite")
        if path not in given
    ]
    problems += [
        f"device {path}: is to be in {thing} and to be removed; name it in one of the lists"
        for path in paths(item, "remove")
        if path in given
    ]
    taken = [path for one in before if not is_absent(one) and not absent for path in paths(one, "devices")]
    problems += [
        f"device {path}: is given twice; name it once" for path in given if given.count(path) > 1 or path in taken
    ]
    if has(item, "pe_size") and not is_extent(size_of(item["pe_size"])):
        problems.append(f"{thing}: pe_size {item['pe_size']} is no size of an extent; give one such as 4MiB")
    pools = pools_of(item)
    if says(item, "shared") and pools:
        problems.append(
            f"{thing}: is shared, and a thin pool can be active on one host only; put it into a group that is not "
            "shared"
        )
    for pool in pools:
        check_pool(plan, item, pool)


def is_extent(size: int) -> bool:
    """Whether LVM takes it (vgcreate --physicalextentsize)."""
    return size >= KIB and (size & (size - 1) == 0 or size % ODD_EXTENT == 0)


def pools_of(item: Item) -> list[Item]:
    """Its thin pools; those of a group that is to go go with it."""
    return [] if is_absent(item) else list(item.get("thin_pools") or [])


def check_pool(plan: Plan, item: Item, pool: Item) -> None:
    name = pool["name"]
    what, problems = pool_words(item["name"], name), plan.problems
    if not NAME.fullmatch(name) or name in (".", "..") or RESERVED.fullmatch(name):
        problems.append(f"{what}: {NAMES}")
    if [one["name"] for one in pools_of(item)].count(name) > 1:
        problems.append(f"{what}: is declared twice; declare it once")
    if is_absent(pool):
        if not says(pool, "delete_data"):
            problems.append(
                f"{what}: all of its volumes would go with it; give delete_data: true, or do not name it, and it stays "
                "as it is"
            )
        return
    if says(pool, "delete_data"):
        problems.append(f"{what}: has delete_data, and is to be present; leave out delete_data, or set state to absent")
    check_sizes(plan, what, pool)
    if has(pool, "autoextend"):
        profile = profile_of(pool)
        plan.profiles.append(profile)
        if not 50 <= profile["threshold"] <= 100 or profile["percent"] < 1:
            problems.append(
                f"{what}: autoextend is not possible; LVM takes a threshold from 50 to 100 (which switches it off) and "
                "a percent above 0"
            )


def check_sizes(plan: Plan, what: str, pool: Item) -> None:
    capacity, metadata, chunk = (pool.get(key) for key in ("capacity", "metadata_capacity", "chunk_size"))
    if has(pool, "capacity") and not percent_of(capacity) and size_of(capacity) <= 0:
        plan.problems.append(f"{what}: capacity {capacity} is no size; give one such as 100GiB, or 80% of the group")
    if has(pool, "metadata_capacity") and not METADATA[0] <= size_of(metadata) <= METADATA[1]:
        plan.problems.append(f"{what}: metadata_capacity {metadata} is not possible; give 2MiB to 15GiB")
    if has(pool, "chunk_size") and (not CHUNK[0] <= size_of(chunk) <= CHUNK[1] or size_of(chunk) % CHUNK[0]):
        plan.problems.append(f"{what}: chunk_size {chunk} is not possible; give a multiple of 64KiB, at most 1GiB")


def percent_of(capacity: Any) -> int:
    """80 of 80%, 0 of what is no percentage."""
    match = re.fullmatch(r"([1-9][0-9]?|100)%", str(capacity))
    return int(match.group(1)) if match else 0


def profile_of(pool: Item) -> dict[str, Any]:
    autoextend = pool["autoextend"]
    threshold = int(autoextend["threshold"])
    percent = int(autoextend["percent"]) if has(autoextend, "percent") else PERCENT
    return {"name": f"{PROFILE}{threshold}-{percent}", "threshold": threshold, "percent": percent}


# One group


class Place(NamedTuple):
    """The given devices of a group, by what is to become of each."""

    own: list[str]  # part of it
    found: list[str]  # part of it, and hidden
    add: list[str]  # to be taken


def plan_group(plan: Plan, item: Item, seen: Seen, wanted: Wanted, before: int) -> None:
    """A group against what is there; before is the count of problems above it."""
    name = item["name"]
    thing, shared = group_words(name), says(item, "shared")
    alike = [group for group in seen.groups if group.name == name]
    there = alike[0] if alike else None
    leads = not shared or first_host(name, wanted) == wanted.host
    if is_absent(item):
        place = Place([], [], [])
        place_absent(plan, item, seen, there)
    else:
        place = place_devices(plan, item, seen, there)
    if not seen.looked or len(plan.problems) > before:
        return  # nothing more can be said of it
    uuids = {seen.strangers[path].group_uuid for path in place.found} | {group.uuid for group in alike}
    if len(uuids) > 1:
        plan.problems.append(f"{thing}: {TWO}")
    elif is_absent(item):
        if there:
            take_out(plan, item, there, seen, wanted, leads)
    elif there is None and not place.found:
        if not leads:
            plan.waits.append(name)
        elif not place.add:
            plan.problems.append(f"{thing}: is not on this host; give devices to make it of")
        else:
            have(plan, item, None, place, seen, leads)
    elif there and paths(item, "devices") and not place.own and not place.found:
        plan.problems.append(on_others(there))
    elif there and there.missing and not place.found:
        plan.problems.append(missing_words(there))
    elif place.found:
        adopt(plan, item, there, place.found, seen, wanted, leads)
    elif there and there.exported:
        start(plan, item, leads)
    else:
        have(plan, item, there, place, seen, leads)


def first_host(name: str, wanted: Wanted) -> str:
    """Of hosts that share a group, the one that makes and changes it."""
    sharing = [host for host, names in wanted.shares.items() if name in names]
    return sharing[0] if sharing else wanted.host


def on_others(there: Group) -> str:
    return (
        f"{group_words(there.name)}: is on other devices ({', '.join(there.names)}); name one of them, "
        "or give another name"
    )


def out_of_use(name: str, devices: str) -> str:
    return (
        f"{group_words(name)}: was taken out of use, and is still on {devices}; declare it present before its data are "
        "deleted"
    )


def missing_words(there: Group) -> str:
    return (
        f"{group_words(there.name)}: {there.missing} of its devices are missing; bring them back "
        "(vgs --options +vg_missing_pv_count)"
    )


def place_absent(plan: Plan, item: Item, seen: Seen, there: Group | None) -> None:
    """The devices of a group whose data are to go, where LVM does not see it: it may only be out of use."""
    name = item["name"]
    if there or not says(item, "delete_data"):
        return
    for path in paths(item, "devices"):
        disk, stranger = seen.disks.get(path), seen.strangers.get(path)
        if stranger and stranger.group == name:
            plan.problems.append(out_of_use(name, path))
        if seen.looked and disk and "LVM2_member" in disk["holds"]:
            plan.outside.append(disk["node"])


def place_devices(plan: Plan, item: Item, seen: Seen, there: Group | None) -> Place:
    """What is to become of each device that is given, or why it can't be taken."""
    name = item["name"]
    place = Place([], [], [])
    for path in paths(item, "devices"):
        disk = seen.disks.get(path)
        if not disk or not disk["exists"]:
            plan.problems.append(f"device {path}: is not there; ls -l /dev/disk/by-id shows those that are")
            continue
        member, stranger = seen.members.get(path), seen.strangers.get(path)
        if member and member.group == name:
            place.own.append(path)
        elif stranger and stranger.group == name:
            place.found.append(path)
        elif refusal := taken_by(disk, member or stranger, path in paths(item, "overwrite"), seen.looked):
            plan.problems.append(f"device {path}: {refusal}")
        elif disk["blank"] or path in paths(item, "overwrite"):
            place.add.append(path)
        hidden = "LVM2_member" in disk["holds"] and member is None
        if seen.looked and (hidden or (says(item, "shared") and not there) or (there and there.missing)):
            plan.outside.append(disk["node"])
    return place


def taken_by(disk: Item, device: Device | None, overwrite: bool, looked: bool) -> str:
    """Why a device can't be taken into a group that it is no part of; empty where it can, or LVM has to tell."""
    if device and device.group:
        return f"is part of volume group '{device.group}'; take it out of that first"
    if not looked and "LVM2_member" in disk["holds"]:
        return ""
    if disk["users"]:
        return f"is in use ({', '.join(disk['users'])}); give another, or stop what uses it"
    if disk["blank"] or overwrite:
        return ""
    held = ", ".join([*disk["holds"], *disk["partitions"]])
    return f"is not blank, it holds {held}; give another, or name it in overwrite, and that is lost"


def take_out(plan: Plan, item: Item, there: Group, seen: Seen, wanted: Wanted, leads: bool) -> None:
    """A group goes out of use, and its data too where they are given up."""
    name, shared, destroy = item["name"], says(item, "shared"), says(item, "delete_data")
    thing, given = group_words(name), paths(item, "devices")
    names = [device.name for device in there.devices]
    away = [host for host in wanted.hosts if host not in wanted.batch]
    plan.asks += [f"/dev/{name}/{volume.name}" for volume in there.volumes]
    plan.going += [(name, volume.name) for volume in there.volumes]
    if given and not any(path in seen.members and seen.members[path].group == name for path in given):
        plan.problems.append(on_others(there))
    if there.exported and destroy:  # vgremove refuses it, and none of its volumes can be looked at
        plan.problems.append(out_of_use(name, ", ".join(names)))
    if there.missing and not destroy and not shared:  # vgexport refuses it
        plan.problems.append(missing_words(there))
    plan.problems += [f"{thing}: its volume '{one.name}' is in use; stop what uses it" for one in there.used()]
    if destroy and shared and away:
        plan.problems.append(
            f"{thing}: is shared, and {', '.join(away)} may have it and take no part, or no longer; run this with all "
            "hosts at once"
        )
    if there.active():
        plan.drop.append(step(f"stop {thing}", "vgchange", "--activate", "n", name))
    if destroy and leads:
        plan.delete.append(step(f"destroy {thing}", "vgremove", "--force", "--yes", name))
        plan.delete.append(step("make its devices blank", "pvremove", "--yes", *names))
    elif not destroy and not shared and not there.exported:
        plan.delete.append(step(f"export {thing}", "vgexport", name))
    if seen.in_force:
        plan.last += [forget(device) for device in names]


def adopt(
    plan: Plan, item: Item, there: Group | None, found: list[str], seen: Seen, wanted: Wanted, leads: bool
) -> None:
    """A group that is hidden, or a part of it, comes into use."""
    name, first = item["name"], seen.strangers[found[0]]
    thing = group_words(name)
    if wanted.devices_file != "present" and not seen.in_force:
        plan.problems.append(f"{thing}: LVM's filter hides it; let the filter pass {', '.join(found)}")
    elif first.missing and not there:
        plan.problems.append(f"{thing}: some of its devices are missing; name all of them in devices")
    plan.adopt += [
        step(
            f"put {device.name} of {thing} into the devices file", "lvm", "lvmdevices", "--yes", "--adddev", device.name
        )
        for device in seen.hidden.values()
        if device.group_uuid == first.group_uuid and device.name not in seen.devices
    ]
    start(plan, item, first.exported and leads)


def start(plan: Plan, item: Item, exported: bool) -> None:
    """A group is imported where it is exported, and activated unless other hosts have it too."""
    name, thing = item["name"], group_words(item["name"])
    if exported:
        plan.adopt.append(step(f"import {thing}", "vgimport", name))
    if not says(item, "shared"):
        plan.adopt.append(step(f"start {thing}", "vgchange", "--activate", "ay", name))


# A group that is there, or can be made


class Room(NamedTuple):
    """Extents of a group as it will be."""

    extent: int
    extents: int
    free: int


def have(plan: Plan, item: Item, there: Group | None, place: Place, seen: Seen, leads: bool) -> None:
    name = item["name"]
    thing, wanted_extent = group_words(name), size_of(item["pe_size"]) if has(item, "pe_size") else EXTENT
    if there and has(item, "pe_size") and there.extent != wanted_extent:
        plan.problems.append(
            f"{thing}: its extents have {there.extent} bytes, and that can't be changed; leave out pe_size"
        )
    leaving = leaving_of(item, seen)
    room = room_of(there, wanted_extent, [seen.disks[path] for path in place.add], [one for _path, one in leaving])
    if leads:
        make(plan, item, there, place, seen, wanted_extent)
        set_autoactivation(plan, item, there)
    if there:
        remove(plan, item, there, len(place.add), leaving, seen, leads)
    plan_pools(plan, item, there, room)


def grown(there: Group | None) -> list[Device]:
    """Devices with room for more extents, as community.general.lvg finds them."""
    return [one for one in there.devices if one.whole - one.start - one.size > there.extent] if there else []


def leaving_of(item: Item, seen: Seen) -> list[tuple[str, Device]]:
    found = [(path, seen.members[path]) for path in unique(paths(item, "remove")) if path in seen.members]
    return [(path, device) for path, device in found if device.group == item["name"]]


def room_of(there: Group | None, extent: int, add: Sequence[Item], leaving: Sequence[Device]) -> Room:
    """What there will be after devices have come, grown and gone."""
    extent = there.extent if there else extent
    more = sum(max(int(disk["size"]) - LABEL, 0) // extent for disk in add)
    more += sum((one.whole - one.start - one.size) // extent for one in grown(there))
    more -= sum(one.size // extent for one in leaving)
    return Room(extent, (there.extents if there else 0) + more, (there.free if there else 0) + more)


def make(plan: Plan, item: Item, there: Group | None, place: Place, seen: Seen, extent: int) -> None:
    """The group is made or extended, after what was given up on a device is wiped."""
    plan.wipe += [seen.disks[path]["node"] for path in place.add if not seen.disks[path]["blank"]]
    larger = [one.name for one in grown(there)]
    if place.add or larger:
        # The module lets all devices of the group grow, but only where it is told of one.
        options = "--setautoactivation n" if says(item, "shared") else ""
        named = [*place.own, *place.add] or larger
        plan.make.append({"vg": item["name"], "pvs": named, "extent": f"{extent}b", "options": options})


def set_autoactivation(plan: Plan, item: Item, there: Group | None) -> None:
    name, thing = item["name"], group_words(item["name"])
    if not there or not has(item, "shared") or there.autoactivation != says(item, "shared"):
        return
    if says(item, "shared"):
        plan.commands.append(
            step(f"let no host activate {thing} by itself", "vgchange", "--setautoactivation", "n", name)
        )
    else:
        plan.commands.append(
            step(f"let the host activate {thing} by itself", "vgchange", "--setautoactivation", "y", name)
        )


def remove(
    plan: Plan, item: Item, there: Group, added: int, leaving: list[tuple[str, Device]], seen: Seen, leads: bool
) -> None:
    """Devices leave a group, where no volume is on them."""
    name, thing = item["name"], group_words(item["name"])
    for path, device in leaving:
        if device.used:
            plan.problems.append(
                f"device {path}: volumes of {thing} are on it; move them off by 'pvmove {device.name}'"
            )
        elif len(there.names) + added <= len(leaving):
            plan.problems.append(f"device {path}: is the last one of {thing}; set the state of the group to absent")
        if leads:
            plan.commands.append(step(f"take {path} out of {thing}", "vgreduce", name, device.name))
            plan.commands.append(step(f"make {path} blank", "pvremove", "--yes", device.name))
        if seen.in_force:
            plan.last.append(step(f"take {path} out of the devices file", *forget(device.name)["argv"]))


# Thin pools


def plan_pools(plan: Plan, item: Item, there: Group | None, room: Room) -> None:
    volumes = {volume.name: volume for volume in there.volumes} if there else {}
    needed, spare = 0, 0
    for pool in pools_of(item):
        volume = volumes.get(pool["name"])
        if volume and volume.layout != {"thin", "pool"}:
            what = pool_words(item["name"], pool["name"])
            plan.problems.append(f"{what}: a volume of this name is there, which is no thin pool; give another name")
        elif is_absent(pool):
            if volume:
                destroy_pool(plan, item, pool, volumes.values())
        elif volume:
            needed += change_pool(plan, item, pool, volume, room)
        else:
            needed += make_pool(plan, item, pool, room)
            spare = max(spare, up(metadata_of(pool) or METADATA[0], room.extent))
    if not any("pool" in volume.layout for volume in volumes.values()):
        needed += spare  # LVM keeps room for a copy of the largest metadata, from the first pool of a group on
    if needed > room.free:
        plan.problems.append(
            f"{group_words(item['name'])}: its thin pools need {needed} extents of {room.extent} bytes, metadata "
            f"included, and {room.free} are free; make them smaller, or add a device"
        )


def metadata_of(pool: Item) -> int:
    """Bytes of its metadata in whole sectors, 0 where LVM chooses."""
    return up(size_of(pool["metadata_capacity"]), SECTOR) * SECTOR if has(pool, "metadata_capacity") else 0


def extents_wanted(pool: Item, room: Room) -> int:
    """Extents of its data, 0 where nothing is said."""
    if not has(pool, "capacity"):
        return 0
    if percent := percent_of(pool["capacity"]):
        return max(room.extents * percent // 100, 1)
    return up(size_of(pool["capacity"]), room.extent)


def destroy_pool(plan: Plan, item: Item, pool: Item, volumes: Iterable[Volume]) -> None:
    group, name = item["name"], pool["name"]
    what = pool_words(group, name)
    plan.going.append((group, name))
    plan.commands.append(step(f"destroy {what}", "lvremove", "--force", "--yes", f"{group}/{name}"))
    for volume in volumes:
        if volume.pool != name:
            continue
        plan.asks.append(f"/dev/{group}/{volume.name}")
        if volume.opened:
            plan.problems.append(f"{what}: its volume '{volume.name}' is in use; stop what uses it")


def make_pool(plan: Plan, item: Item, pool: Item, room: Room) -> int:
    """A thin pool is made; how many extents that takes, those of the metadata included."""
    group, name, want, metadata = item["name"], pool["name"], extents_wanted(pool, room), metadata_of(pool)
    what = pool_words(group, name)
    plan.monitor = True
    if not want:
        plan.problems.append(f"{what}: is not there, and has no capacity; give one")
    options = ["--poolmetadatasize", f"{metadata}b"] if metadata else []
    if has(pool, "chunk_size"):
        options += ["--chunksize", f"{size_of(pool['chunk_size'])}b"]
    if has(pool, "autoextend"):
        options += ["--metadataprofile", profile_of(pool)["name"]]
    argv = ["lvcreate", "--type", "thin-pool", "--name", name, "--extents", str(want), *options]
    plan.commands.append(step(f"make {what}", *argv, "--monitor", "y", "--yes", group))
    return want + up(metadata or METADATA[0], room.extent)


def change_pool(plan: Plan, item: Item, pool: Item, volume: Volume, room: Room) -> int:
    """A thin pool grows, and never shrinks; how many extents that takes."""
    place = f"{item['name']}/{pool['name']}"
    what, needed = pool_words(item["name"], pool["name"]), 0
    plan.monitor = True
    if has(pool, "chunk_size") and volume.chunk != size_of(pool["chunk_size"]):
        plan.problems.append(
            f"{what}: its chunks have {volume.chunk} bytes, and that can't be changed; leave out chunk_size"
        )
    want, metadata = extents_wanted(pool, room), metadata_of(pool)
    if want > volume.size // room.extent:
        needed += want - volume.size // room.extent
        plan.commands.append(step(f"grow {what}", "lvextend", "--extents", str(want), place))
    if metadata > volume.metadata:
        needed += up(metadata - volume.metadata, room.extent)
        plan.commands.append(
            step(f"grow the metadata of {what}", "lvextend", "--poolmetadatasize", f"{metadata}b", place)
        )
    if has(pool, "autoextend") and volume.profile != profile_of(pool)["name"]:
        plan.going.append((item["name"], volume.name))
        argv = ("lvchange", "--metadataprofile", profile_of(pool)["name"], place)
        plan.commands.append(step(f"set how {what} grows by itself", *argv))
    if volume.monitor == "not monitored" and volume.active:
        plan.commands.append(step(f"have {what} monitored", "lvchange", "--monitor", "y", place))
    return needed


# After all groups


def ask_guests(plan: Plan, gone: Item) -> None:
    """Volumes that are to go, and the guests that have them as disks."""
    for disk in gone.get("devices") or []:
        guests = [user for user in disk["users"] if user.startswith(GUEST)]
        if disk["path"] in plan.asks and guests:
            plan.problems.append(f"volume {disk['path']}: is {', '.join(guests)}; take it from there first")


def stale(plan: Plan, seen: Seen) -> list[str]:
    """Profiles of this role that nothing has any more."""
    wanted = [profile["name"] for profile in plan.profiles]
    pairs = [((group.name, volume.name), volume.profile) for group in seen.groups for volume in group.volumes]
    kept = [profile for place, profile in pairs if place not in plan.going]
    return unique(
        profile
        for _place, profile in pairs
        if profile.startswith(PROFILE) and profile not in kept and profile not in wanted
    )
