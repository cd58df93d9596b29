# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with declared multipath maps, and what is to be done, from what was seen on the host.

Nothing here acts. Sources: multipath.conf(5) and multipathd(8) of multipath-tools 0.9, and the rules of udev that make
/dev/disk/by-id. A WWID is what multipath knows a LUN by: ID_SERIAL of SCSI disks, ID_WWN of NVMe ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .values import unique

WWID = re.compile(r"[0-9A-Za-z_.:-]+")
ALIAS = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:+=@-]*")
SETTING = re.compile(r"[a-z_]+")
NVME = ("eui.", "nvme.", "uuid.")  # begin WWIDs of NVMe namespaces
WAYS = ("yes", "no", "on", "off", "strict", "greedy", "smart")
CRITERIA = ("devnode", "wwid", "property", "protocol")  # of a rule of a blacklist, beside vendor and product
USUAL_PATHS = 2
MAPPER = "/dev/mapper/"
OWN = "open in multipathd "  # begins the user of a path or a map that is in nobody's way
WANTED = (
    "state",
    "maps",
    "devices",
    "settings",
    "find_multipaths",
    "no_path_retry",
    "blacklist",
    "blacklist_exceptions",
)
SEEN = ("look", "used", "paths")


@dataclass(frozen=True)
class Device:
    """A device of the device mapper: its WWID where it is a map, sectors of it and of its smallest path, its paths."""

    wwid: str
    name: str
    size: int
    least: int
    paths: list[str]


@dataclass(frozen=True)
class Seen:
    """The host, as it was last looked at.

    devices  of the device mapper
    known    WWIDs that multipath takes at the sight of their first path
    disks    (device, WWID) of every disk
    users    device -> who uses it
    paths    of what multipathd shows: [WWID, map, device, state]
    """

    devices: list[Device]
    known: list[str]
    disks: list[tuple[str, str]]
    users: dict[str, list[str]]
    paths: list[list[str]]


def plan(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks and the template of the role take.

    wrong             what is wrong in itself, one line each
    present, absent   the declared maps
    touched           devices whose users have to be known: to be removed, renamed or taken for a map
    refused           what can't be done here and now
    unknown           WWIDs that are to be known
    flushed           names of maps that go
    given_back        their paths, which are disks again
    forgotten         WWIDs that are not to be known any more
    grown             names of maps that are smaller than their paths
    lacking           what the declared maps lack, as multipathd shows it
    """
    host = seen_on(seen)
    gone = flushed(wanted, host)
    removed = [f"{MAPPER}{device.name}" for device in gone]
    return {
        "wrong": wrong(wanted),
        "present": present(wanted),
        "absent": absent(wanted),
        "touched": unique(removed + renamed(wanted, host) + taken(wanted, host)),
        "refused": refused(wanted, host),
        "unknown": unique(wwid(one) for one in present(wanted) if wwid(one) not in host.known),
        "flushed": [device.name for device in gone],
        "given_back": [path for device in gone for path in device.paths],
        "forgotten": forgotten(wanted, host, gone),
        "grown": [one.name for one in host.devices if one.wwid and one.least > one.size and one not in gone],
        "lacking": [line for one in present(wanted) for line in lacks(one, host)],
    }


# What is declared.


def present(wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in wanted["maps"] or () if one.get("state") != "absent"]


def absent(wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in wanted["maps"] or () if one.get("state") == "absent"]


def is_off(wanted: Mapping[str, Any]) -> bool:
    """Whether no map is to be there, whatever is declared."""
    return bool(wanted["state"] == "absent")


def wwid(one: Mapping[str, Any]) -> str:
    return "" if one.get("wwid") is None else str(one["wwid"])


def alias(one: Mapping[str, Any]) -> str:
    """The name below /dev/mapper, or nothing."""
    return "" if one.get("alias") is None else str(one["alias"])


def paths(one: Mapping[str, Any]) -> int:
    """How many paths must be active; 0 for what is no number."""
    given = one.get("paths", USUAL_PATHS)
    return int(given) if re.fullmatch("[0-9]{1,9}", str(given), re.ASCII) else 0


# What was seen.


def seen_on(results: Mapping[str, Any]) -> Seen:
    """Registered results, each empty until there is one:

    look   facts, one a line; the task has their form
    used   kvm.storage.device_info of what the plan touches
    paths  multipathd show paths raw format "%w|%m|%d|%t"
    """
    facts: dict[str, list[list[str]]] = {}
    for line in results["look"].get("stdout_lines") or ():
        word, *fields = line.split("\t")
        facts.setdefault(word, []).append(fields)
    return Seen(
        devices=[
            Device(re.sub("^mpath-", "", uuid) if uuid.startswith("mpath-") else "", name, int(size), int(least), parts)
            for uuid, name, size, least, *parts in facts.get("dm", ())
        ],
        known=[fields[0] for fields in facts.get("wwid", ())],
        disks=[(fields[0], fields[1]) for fields in facts.get("disk", ())],
        users={
            one["path"]: [user for user in one["users"] if not user.startswith(OWN)]
            for one in results["used"].get("devices") or ()
        },
        paths=[line.split("|") for line in results["paths"].get("stdout_lines") or ()],
    )


# What is wrong in itself.


def wrong(wanted: Mapping[str, Any]) -> list[str]:
    found = []
    every = [wwid(one) for one in wanted["maps"] or ()]
    for one in wanted["maps"] or ():
        found += wrong_map(one, every)
    way = wanted["find_multipaths"]
    if not isinstance(way, bool) and way not in WAYS:
        found.append(
            f"host_multipath_find_multipaths: {way} is no way to find maps; take yes, no, strict, greedy or smart"
        )
    found += wrong_names(wanted)
    for device in wanted["devices"] or ():
        found += wrong_device(device, wanted["no_path_retry"])
    for rule in (*(wanted["blacklist"] or ()), *(wanted["blacklist_exceptions"] or ())):
        keys = sorted(rule, key=str)
        if keys != ["product", "vendor"] and not (len(keys) == 1 and keys[0] in CRITERIA):
            found.append(
                f"host_multipath_blacklist: {dict(rule)} is no rule; give one of {', '.join(CRITERIA)}, or "
                "vendor and product"
            )
    for place, settings in given(wanted):
        found += [
            f"{place}: {name} can not be written into multipath.conf; give a word, without quotes"
            for name, value in settings.items()
            if not is_writable(name, value)
        ]
    return unique(found)


def wrong_map(one: Mapping[str, Any], every: list[str]) -> list[str]:
    """What is wrong with a map; every has the WWIDs of all."""
    found, name = [], wwid(one)
    if not name:
        return ["host_multipath_maps: an item lacks its wwid; give what /lib/udev/scsi_id says of the LUN"]
    if not WWID.fullmatch(name):
        found.append(f"{name}: is no WWID; give what /lib/udev/scsi_id --whitelisted --device /dev/sdX says")
    if one.get("state", "present") not in ("present", "absent"):
        found.append(f"{name}: {one['state']} is no state; give present or absent")
    if every.count(name) > 1:
        found.append(f"{name}: is listed twice; give it once")
    if paths(one) < 1:
        found.append(f"{name}: a map has one path at least; correct paths")
    return found


def wrong_names(wanted: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names of maps."""
    found = []
    names = [alias(one) for one in present(wanted) if one.get("alias") is not None]
    taken_by_wwid = [wwid(one) for one in wanted["maps"] or () if one.get("alias") is None]
    for name in unique(names):
        if not ALIAS.fullmatch(name) or name == "control":
            found.append(f"{name}: can not be the name of a map; take letters, digits, and _ . : + = @ -")
        if names.count(name) > 1 or name in taken_by_wwid:
            found.append(f"{name}: is the name of two maps; give each its own")
    return found


def wrong_device(device: Mapping[str, Any], no_path_retry: Any) -> list[str]:
    """What is wrong with what an array needs."""
    found = []
    if not device.get("vendor") or not device.get("product"):
        found.append("host_multipath_devices: an item lacks vendor or product, by which arrays are known; give both")
    if "no_path_retry" in device and str(no_path_retry) != "":
        found.append(
            f"host_multipath_devices: no_path_retry of {device.get('product', 'an array')} would not hold, for "
            "host_multipath_no_path_retry is for every array; make that one empty, or set it for maps"
        )
    return found


def given(wanted: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each place where somebody declared settings, and the settings."""
    found: list[tuple[str, Mapping[str, Any]]] = [("host_multipath_settings", wanted["settings"] or {})]
    found += [(wwid(one), one) for one in wanted["maps"] or ()]
    found += [("host_multipath_devices", device) for device in wanted["devices"] or ()]
    rules = (*(wanted["blacklist"] or ()), *(wanted["blacklist_exceptions"] or ()))
    return found + [("host_multipath_blacklist", rule) for rule in rules]


def is_writable(name: Any, value: Any) -> bool:
    """Whether multipath.conf can have it: there is no escape in it for a quote."""
    return (
        bool(SETTING.fullmatch(str(name)))
        and isinstance(value, (str, int, float))
        and not re.search('["\n]', str(value))
    )


# What is to be done.


def flushed(wanted: Mapping[str, Any], host: Seen) -> list[Device]:
    """The maps that go."""
    gone = [wwid(one) for one in absent(wanted)]
    return [device for device in host.devices if device.wwid and (is_off(wanted) or device.wwid in gone)]


def forgotten(wanted: Mapping[str, Any], host: Seen, gone: Iterable[Device]) -> list[str]:
    """Known WWIDs of maps that go, whether or not they are there."""
    declared = (wanted["maps"] or ()) if is_off(wanted) else absent(wanted)
    every = {device.wwid for device in gone} | {wwid(one) for one in declared}
    return [known for known in unique(host.known) if known in every]


def renamed(wanted: Mapping[str, Any], host: Seen) -> list[str]:
    """Maps that are there by another name than theirs, as devices."""
    if is_off(wanted):
        return []
    return [
        f"{MAPPER}{device.name}"
        for one in present(wanted)
        for device in host.devices
        if alias(one) and device.wwid == wwid(one) and device.name != alias(one)
    ]


def taken(wanted: Mapping[str, Any], host: Seen) -> list[str]:
    """The disks that are taken for a map for the first time: of each LUN all, for only one of them has a link."""
    if is_off(wanted):
        return []
    there = [device.wwid for device in host.devices]
    found = []
    for name in unique(wwid(one) for one in present(wanted)):
        if name not in there:
            link = f"/dev/disk/by-id/{'nvme' if name.startswith(NVME) else 'scsi'}-{name}"
            found += [disk for disk, serial in host.disks if serial == name] or [link]
    return found


def refused(wanted: Mapping[str, Any], host: Seen) -> list[str]:
    """What would take a device from who uses it, and names that others have."""
    found, new, others = [], taken(wanted, host), renamed(wanted, host)
    for device, users in host.users.items():
        change = "taken for a map" if device in new else "renamed" if device in others else "removed"
        if users:
            found.append(f"{device}: is to be {change}, and is {', '.join(users)}; end that first")
    for one in [] if is_off(wanted) else present(wanted):
        for there in host.devices:
            if alias(one) and there.name == alias(one) and there.wwid != wwid(one):
                found.append(
                    f"{alias(one)}: is the name of another device already, {there.wwid or 'which is no map'}; give "
                    f"{wwid(one)} another alias"
                )
    return found


def lacks(one: Mapping[str, Any], host: Seen) -> list[str]:
    """What a declared map lacks, as multipathd shows it."""
    name = alias(one) or wwid(one)
    mine = [path for path in host.paths if path[0] == wwid(one)]
    active = [path for path in mine if path[3] == "active"]
    names = unique(path[1] for path in active)
    if not mine:
        return [
            f"map {name}: no path to {wwid(one)} is here; see that the host is logged in to the array, that the WWID "
            "is right, and that no rule of the blacklist is for it"
        ]
    if len(active) < paths(one):
        states = ", ".join(f"{path[2]} {path[3]}" for path in mine)
        return [
            f"map {name}: {paths(one)} active paths are wanted, and there are: {states}; look after the portals, or "
            "correct paths"
        ]
    if alias(one) and names != [alias(one)]:
        return [
            f"map {name}: has the name {', '.join(names)}; look for another alias of {wwid(one)} in /etc/multipath.conf"
        ]
    return []
