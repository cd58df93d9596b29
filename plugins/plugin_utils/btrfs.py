# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with declared btrfs file systems, and what is to be done, from what was seen on the host.

Nothing here acts. A step is {say: words for people, argv: a command}. Sources: btrfs(5), mkfs.btrfs(8),
btrfs-device(8), btrfs-filesystem(8), btrfs-qgroup(8) and chattr(1), of btrfs-progs 6.2 and e2fsprogs 1.47.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from ansible_collections.kvm.storage.plugins.module_utils import sizes

from .values import flag, text, unique, words

# The boot goes on without a file system whose disk is gone, and what starts guests and pools waits for the mount.
# Images need no device nodes, no setuid and no execution. Of options that exclude each other the later wins.
OPTIONS = ["subvol=/", "nofail", "nodev", "nosuid", "noexec"]
ORDER = [f"x-systemd.before={unit}.service" for unit in ("libvirtd", "virtstoraged", "virtqemud")]

# How many devices a profile needs, from mkfs.btrfs(8).
PROFILES = {
    "single": 1,
    "dup": 1,
    "raid0": 1,
    "raid1": 2,
    "raid1c3": 3,
    "raid1c4": 4,
    "raid10": 2,
    "raid5": 2,
    "raid6": 3,
}
KINDS = {"data_profile": "Data", "metadata_profile": "Metadata"}  # as `btrfs filesystem df` calls them

SEEN = ("disks", "filesystems", "mounts", "fstab", "found", "flags", "told", "users")  # what seen_on() takes
LONGEST_LABEL = 255  # bytes; BTRFS_LABEL_SIZE without its NUL
NEW = "that-of-the-new-file-system"  # its UUID, as long as only check mode makes it
GUEST = re.compile(r"a disk of |open in qemu")  # users of a disk that its own file system does not explain


@dataclass(frozen=True)
class Subvolume:
    """A declared subvolume. quota is as given, None where it is not."""

    name: str
    path: str
    nocow: bool
    quota: str | None
    absent: bool
    delete_data: bool

    def __str__(self) -> str:
        return f"subvolume {self.path}"


@dataclass(frozen=True)
class FileSystem:
    """A declared file system. profiles has data_profile and metadata_profile, where they are given."""

    path: str
    devices: list[str]
    overwrite: list[str]
    label: str
    profiles: dict[str, str]
    options: list[str]
    subvolumes: list[Subvolume]
    absent: bool
    delete_data: bool

    def __str__(self) -> str:
        return f"file system {self.path}"


@dataclass(frozen=True)
class Found:
    """What is at a path, a link not followed."""

    empty: bool
    directory: bool


@dataclass(frozen=True)
class Seen:
    """The host, as it was last looked at.

    looked       whether the file systems were looked at yet; without btrfs-progs they can't be
    filesystems  {uuid, label, devices: [path], subvolumes: [{id, path: /images}]}; subvolumes of mounted ones only
    disks        by the path that was given: what device_info says of it
    members      by the same path: the one of filesystems that it is part of
    mounted      {target, fstype, uuid, fsroot}, in the order of mounting
    fstab        the mount points in it
    found, flags by path; flags as lsattr shows them
    told         by the words of the command: its output
    users        files of libvirt that name what is to go
    """

    looked: bool
    filesystems: list[Mapping[str, Any]]
    disks: dict[str, Mapping[str, Any]]
    members: dict[str, Mapping[str, Any]]
    mounted: list[Mapping[str, Any]]
    fstab: list[str]
    found: dict[str, Found]
    flags: dict[str, str]
    told: dict[str, str]
    users: list[str]

    def at(self, path: str) -> Mapping[str, Any]:
        """What is mounted on a path: of several the last one, which is the one that is seen."""
        return next((one for one in reversed(self.mounted) if one["target"] == path), {})


@dataclass
class Plan:
    """What the tasks of the role take.

    named                    every path of a disk that is named anywhere
    problems                 lines for people; with any of them nothing is done
    places, flagged, reads   paths and commands to look at before more can be said
    watched, patterns        paths that are to go, and what names them in XML of libvirt
    make, commands, blank    steps
    guard, nocow             directories
    mount                    {path, uuid, options}
    subvolumes, gone         {uuid, name, path}
    unmount                  {path, mounted, exists}
    """

    named: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    flagged: list[str] = field(default_factory=list)
    reads: list[list[str]] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    make: list[dict[str, Any]] = field(default_factory=list)
    guard: list[str] = field(default_factory=list)
    mount: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    subvolumes: list[dict[str, str]] = field(default_factory=list)
    nocow: list[str] = field(default_factory=list)
    gone: list[dict[str, str]] = field(default_factory=list)
    unmount: list[dict[str, Any]] = field(default_factory=list)
    blank: list[dict[str, Any]] = field(default_factory=list)


def plan(wanted: Iterable[Mapping[str, Any]], seen: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for the items of host_btrfs_filesystems, from registered results by the names that seen_on() takes.

    Before the file systems were looked at, it tells what is wrong without them.
    """
    host, done = seen_on(seen), Plan()
    items = [declared(item) for item in wanted]
    done.named = unique(path for fs in items for path in fs.devices)
    done.problems += same_disk(host)
    for number, fs in enumerate(items):
        parts, add, wrong = devices(fs, host)
        wrong = wrong_in_itself(fs, items[:number]) + wrong
        done.problems += wrong
        if not host.looked or wrong:
            continue  # nothing more can be said of it
        uuids = unique(one["uuid"] for one in parts)
        if len(uuids) > 1:
            done.problems.append(
                f"{fs}: its devices belong to {len(uuids)} file systems ({', '.join(uuids)}); name those of one, and "
                "others in overwrite if they may be lost"
            )
        elif fs.absent:
            take_away(done, fs, host, parts)
        else:
            have(done, fs, host, parts, add)
    done.problems += used(done, host)
    done.problems, done.places = unique(done.problems), unique(done.places)
    done.patterns = patterns(done.watched)
    return asdict(done)


# What is declared.


def declared(item: Mapping[str, Any]) -> FileSystem:
    """An item of host_btrfs_filesystems; the argument spec of a role checks types, and converts nothing."""
    path, absent = str(item["path"]), item.get("state") == "absent"
    return FileSystem(
        path=path,
        devices=words(item.get("devices")),
        overwrite=words(item.get("overwrite")),
        label=text(item.get("label")),
        profiles={kind: str(item[kind]) for kind in KINDS if text(item.get(kind))},
        options=[part for option in words(item.get("options")) for part in option.split(",") if part],
        subvolumes=[] if absent else [subvolume(path, one) for one in item.get("subvolumes") or []],
        absent=absent,
        delete_data=flag(item.get("delete_data")),
    )


def subvolume(path: str, item: Mapping[str, Any]) -> Subvolume:
    """A subvolume of the file system that is mounted on path."""
    name = str(item["name"])
    return Subvolume(
        name=name,
        path=f"{path}/{name}",
        nocow=flag(item.get("nocow")),
        quota=None if item.get("quota") is None else str(item["quota"]),
        absent=item.get("state") == "absent",
        delete_data=flag(item.get("delete_data")),
    )


def limit(quota: str) -> str:
    """Bytes of a quota, as `btrfs qgroup` shows them, or none; empty for what is no size."""
    if quota == "none":
        return quota
    try:
        size = sizes.parse(quota)
    except ValueError:
        return ""
    return str(size) if size else ""


# What was seen.


def seen_on(results: Mapping[str, Any]) -> Seen:
    """Registered results, each empty until there is one:

    disks        kvm.storage.device_info
    filesystems  community.general.btrfs_info
    mounts       findmnt --json --output TARGET,FSTYPE,UUID,FSROOT
    fstab        findmnt --fstab --output TARGET
    found        find -printf 'empty %y %i %p' or 'full %y %i %p'
    flags        lsattr -d
    told         a loop over the reads of the plan
    users        grep for the watched of the plan
    """
    known = results["filesystems"].get("filesystems")
    table = json.loads(results["mounts"].get("stdout") or '{"filesystems": []}')
    found = [line.split(" ", 3) for line in lines(results["found"])]
    flags = [line.partition(" ") for line in lines(results["flags"])]
    disks = {disk["path"]: disk for disk in results["disks"].get("devices") or []}
    return Seen(
        looked=known is not None,
        filesystems=known or [],
        disks=disks,
        members={
            path: one for path, disk in disks.items() for one in known or [] if set(names(disk)) & set(one["devices"])
        },
        mounted=table["filesystems"],
        fstab=lines(results["fstab"]),
        found={path: Found(word == "empty", kind == "d") for word, kind, _inode, path in found},
        flags={path: letters for letters, _space, path in flags},
        told={" ".join(one["item"]): one.get("stdout", "") for one in results["told"].get("results") or []},
        users=lines(results["users"]),
    )


def lines(result: Mapping[str, Any]) -> list[str]:
    return list(result.get("stdout_lines") or [])


def names(disk: Mapping[str, Any]) -> list[str]:
    """The names under which btrfs may show a disk: it has those of the device mapper in another folder."""
    return [disk["node"], *(re.sub("^/dev/disk/by-id/dm-name-", "/dev/mapper/", name) for name in disk["ids"])]


# What is wrong before the file systems were looked at.


def same_disk(host: Seen) -> list[str]:
    """Disks that are named in two ways."""
    found: list[str] = []
    paths: dict[str, str] = {}
    for path, disk in host.disks.items():
        if disk["exists"] and disk["node"] in paths:
            found.append(f"device {path}: is given twice, also as {paths[disk['node']]}; name it once")
        paths[disk["node"]] = path
    return found


def wrong_in_itself(fs: FileSystem, before: Sequence[FileSystem]) -> list[str]:
    """What is wrong whatever the host has; before are the items before this one."""
    found = []
    if not re.match("/[^/]", fs.path) or re.search(r"//|/$|/[.]{1,2}(/|$)|\s", fs.path):
        found.append(
            f"{fs}: is no path to mount on; give an absolute one, without a slash at its end and without spaces"
        )
    if fs.path in [one.path for one in before]:
        found.append(f"{fs}: is declared twice; declare it once")
    if fs.delete_data and not fs.absent:
        found.append(f"{fs}: has delete_data, and is to be present; leave out delete_data, or set state to absent")
    if fs.delete_data and not fs.devices:
        found.append(f"{fs}: which devices are to be made blank is not said; name all of them in devices")
    if not fs.devices and not fs.label and not fs.absent:
        found.append(f"{fs}: has neither devices nor a label; give one of them")
    if re.search(r"[/\n]", fs.label) or len(fs.label.encode()) > LONGEST_LABEL:
        found.append(f"{fs}: btrfs takes no such label; give a shorter one without a slash")
    for path in unique(fs.overwrite):
        if path not in fs.devices:
            found.append(f"device {path}: is to be overwritten, but is no device of {fs}; name it in devices too")
    taken = [path for one in before if claims(one) for path in one.devices] if claims(fs) else []
    for path in fs.devices:
        if fs.devices.count(path) > 1 or path in taken:
            found.append(f"device {path}: is given twice; name it once")
    for option in fs.options:
        if re.match(r"(subvol|subvolid|x-systemd[.]before)=|.*\s", option):
            found.append(
                f"{fs}: the option '{option}' can't be given; the role mounts the whole file system, and in its own "
                "order"
            )
    for kind, profile in fs.profiles.items():
        needs = PROFILES.get(profile, 1)
        if fs.devices and not fs.absent and needs > len(fs.devices):
            found.append(f"{fs}: {kind} {profile} needs {needs} devices; name more, or take another")
    for one in fs.subvolumes:
        found += wrong_subvolume(one, [other.name for other in fs.subvolumes])
    return found


def claims(fs: FileSystem) -> bool:
    """Whether its devices are written to, so that no other item can have them; one may be mounted elsewhere instead."""
    return fs.delete_data or not fs.absent


def wrong_subvolume(one: Subvolume, every: Sequence[str]) -> list[str]:
    """What is wrong with a subvolume in itself; every has the names of all of its file system."""
    found = []
    if not re.match(r"[^/\s]", one.name) or re.search(r"//|/$|(^|/)[.]{1,2}(/|$)|[\n\t]", one.name):
        found.append(f"{one}: is no path in a file system; give one such as images")
    if every.count(one.name) > 1:
        found.append(f"{one}: is declared twice; declare it once")
    if one.absent and not one.delete_data:
        found.append(
            f"{one}: all that is in it would go with it; give delete_data: true, or do not name it, and it stays as it "
            "is"
        )
    if one.delete_data and not one.absent:
        found.append(f"{one}: has delete_data, and is to be present; leave out delete_data, or set state to absent")
    if one.quota is not None and not limit(one.quota):
        found.append(f"{one}: quota {one.quota} is no size; give one such as 100GiB, or none")
    return found


def devices(fs: FileSystem, host: Seen) -> tuple[list[Mapping[str, Any]], list[str], list[str]]:
    """The file systems that are on its devices, one for each such device; those to be added; and what is wrong."""
    parts: list[Mapping[str, Any]] = []
    add: list[str] = []
    wrong: list[str] = []
    sure = [host.members[path]["uuid"] for path in fs.devices if path in host.members and path not in fs.overwrite]
    for path in fs.devices if host.looked or host.disks else ():
        disk, member = host.disks.get(path), host.members.get(path)
        guests = [user for user in disk["users"] if GUEST.match(user)] if disk else []
        if member and guests and claims(fs):  # what a guest has made on its disk is not this host's
            wrong.append(in_use(path, guests))
        elif fs.absent:
            parts += [member] if member else []
        elif disk is None or not disk["exists"]:
            wrong.append(f"device {path}: is not there; ls -l /dev/disk/by-id shows those that are")
        elif member and (not sure or member["uuid"] in sure):
            parts.append(member)  # one is overwritten only where another device says which one is meant
        elif not host.looked and disk["holds"] == ["btrfs"]:
            continue  # whose it is is not known yet
        elif disk["users"]:
            wrong.append(in_use(path, disk["users"]))
        elif disk["blank"] or path in fs.overwrite:
            add.append(path)
        else:
            wrong.append(
                f"device {path}: is not blank, it holds {', '.join([*disk['holds'], *disk['partitions']])}; give "
                "another, or name it in overwrite, and that is lost"
            )
    return parts, add, wrong


def in_use(path: str, users: Sequence[str]) -> str:
    return f"device {path}: is in use ({', '.join(users)}); give another, or stop what uses it"


# What is to be absent.


def take_away(done: Plan, fs: FileSystem, host: Seen, parts: Sequence[Mapping[str, Any]]) -> None:
    """Unmount it, and make its devices blank where that is asked for. parts are of one file system."""
    here = host.at(fs.path)
    uuid = parts[0]["uuid"] if parts else here.get("uuid")
    done.places.append(fs.path)
    if here and (here["fstype"] != "btrfs" or here["uuid"] != uuid):
        done.problems.append(f"{fs}: {something_else(here)}; unmount that first, or correct the path")
    if fs.delete_data:
        done.problems += [
            f"{fs}: is also mounted on {one['target']}; unmount it there first"
            for one in host.mounted
            if uuid and one["uuid"] == uuid and one["target"] != fs.path
        ]
        own = {name for path in fs.devices if path in host.disks for name in names(host.disks[path])}
        strange = [
            name for one in host.filesystems if one["uuid"] == uuid for name in one["devices"] if name not in own
        ]
        if strange:
            done.problems.append(
                f"{fs}: is also on {', '.join(strange)}; name that device too, or nothing is made blank"
            )
    if here or fs.path in host.fstab:
        done.unmount.append(
            {"path": fs.path, "mounted": bool(here), "exists": bool(here) or fs.path in host.found},
        )
        done.watched.append(fs.path)
    if fs.delete_data:
        done.blank += [
            step(f"make {path} blank", "wipefs", "--all", host.disks[path]["node"])
            for path in fs.devices
            if path in host.members
        ]


def something_else(here: Mapping[str, Any]) -> str:
    return f"something else is mounted there ({' '.join(filter(None, (here['fstype'], here['uuid'])))})"


def used(done: Plan, host: Seen) -> list[str]:
    """What libvirt knows of paths that are to go."""
    return [
        f"libvirt uses {' or '.join(done.watched)} ({file}); remove the pool, or take the disk from the guest first"
        for file in (host.users if done.watched else ())
    ]


def patterns(watched: Iterable[str]) -> list[str]:
    """How XML of libvirt has a path or what is below it: as text or as an attribute, with its own escapes."""
    return [
        f"{begin}{escape(path, {chr(39): '&apos;', chr(34): '&quot;'})}{end}"
        for begin in (">", "'")
        for path in watched
        for end in ("<", "/", "'")
    ]


# What is to be present.


def have(done: Plan, fs: FileSystem, host: Seen, parts: Sequence[Mapping[str, Any]], add: Sequence[str]) -> None:
    """Make it where it is not there, add devices, mount it, and see to what is in it."""
    labelled = [one for one in host.filesystems if fs.label and one["label"] == fs.label]
    if not fs.devices and len(labelled) != 1:
        number = len(labelled) or "no"
        done.problems.append(f"{fs}: {number} file systems have the label {fs.label}; give devices")
        return
    there = parts[0] if parts else {} if fs.devices else labelled[0]
    if labelled and there.get("label") != fs.label:
        done.problems.append(
            f"{fs}: a file system with the label {fs.label} is on {', '.join(labelled[0]['devices'])}; name its "
            "devices, or another label"
        )
        return
    here = host.at(fs.path)
    done.places.append(fs.path)
    done.problems += wrong_place(fs, host, here, there)
    done.make += [] if there else [make(fs, host, add)]
    done.guard += [] if here else [fs.path]
    done.mount.append({"path": fs.path, "uuid": there.get("uuid", NEW), "options": OPTIONS + fs.options + ORDER})
    if there and add:
        done.commands.append(
            step(f"add {', '.join(add)} to {fs}", "btrfs", "device", "add", *onto(host, add), fs.path),
        )
    if there and fs.label and there["label"] != fs.label:
        done.commands.append(step(f"label {fs}", "btrfs", "filesystem", "label", fs.path, fs.label))
    if here:
        profiles(done, fs, host)
    if here or not there:  # what is in a file system that is not mounted is not known
        limits = quotas(done, fs, host, bool(here))
        for one in fs.subvolumes:
            if one.absent:
                remove(done, one, host, there)
            else:
                keep(done, one, host, there, bool(here))
                limit_it(done, one, limits, own(one, there))


def wrong_place(fs: FileSystem, host: Seen, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """What is wrong with its mount point."""
    if here and (here["fstype"] != "btrfs" or here["uuid"] != there.get("uuid")):
        return [f"{fs}: {something_else(here)}; unmount that first, or give another path"]
    if here and here["fsroot"] != "/":
        return [
            f"{fs}: is mounted there by its subvolume {here['fsroot']} only; unmount that first, or give another path"
        ]
    place = host.found.get(fs.path)
    if not here and place and not (place.empty and place.directory):
        return [f"{fs}: is no empty directory, and a mount would hide what is in it; move that away"]
    return []


def make(fs: FileSystem, host: Seen, add: Sequence[str]) -> dict[str, Any]:
    argv = ["--label", fs.label] if fs.label else []
    for kind, profile in fs.profiles.items():
        argv += [f"--{KINDS[kind].lower()}", profile]
    return step(f"make {fs}", "mkfs.btrfs", *argv, *onto(host, add))


def onto(host: Seen, add: Sequence[str]) -> list[str]:
    """The arguments that name devices to be taken, and say so where one of them holds something."""
    disks = [host.disks[path] for path in add]
    force = [] if all(disk["blank"] for disk in disks) else ["--force"]
    return force + [disk["node"] for disk in disks]


def profiles(done: Plan, fs: FileSystem, host: Seen) -> None:
    """Refuse other profiles than it has: to convert them may take days, and is somebody's decision."""
    df = ["btrfs", "filesystem", "df", fs.path]
    done.reads += [df] if fs.profiles else []
    for kind, profile in fs.profiles.items():
        word = KINDS[kind]
        has = unique(found.lower() for found in re.findall(f"{word}, ([^:]+):", host.told.get(" ".join(df), "")))
        if has and has != [profile]:
            done.problems.append(
                f"{fs}: its {kind} is {' and '.join(has)}; leave it out, or convert it by 'btrfs balance start "
                f"-{word[0].lower()}convert={profile} {fs.path}'"
            )


def quotas(done: Plan, fs: FileSystem, host: Seen, mounted: bool) -> str:
    """Have quotas on where a limit needs them; what `btrfs qgroup show` says."""
    wanted = [one.quota for one in fs.subvolumes if one.quota is not None and not one.absent]
    show = ["btrfs", "qgroup", "show", "--raw", "-r", fs.path]
    limits = host.told.get(" ".join(show), "")
    done.reads += [show] if mounted and wanted else []
    if set(wanted) - {"none"} and not re.search(r"(?m)^0/5\s", limits):
        done.commands.append(step(f"switch quotas of {fs} on", "btrfs", "quota", "enable", fs.path))
    return limits


# Subvolumes.


def own(one: Subvolume, there: Mapping[str, Any]) -> Mapping[str, Any]:
    """The subvolume of that name which the file system has, or nothing."""
    return next((have for have in there.get("subvolumes") or () if have["path"] == f"/{one.name}"), {})


def remove(done: Plan, one: Subvolume, host: Seen, there: Mapping[str, Any]) -> None:
    """Remove a subvolume, if nothing else would go with it or is in its way."""
    done.places.append(one.path)
    if not own(one, there):
        return
    root = f"/{one.name}"
    done.gone.append({"uuid": there["uuid"], "name": root, "path": one.path})
    done.watched.append(one.path)
    for other in there["subvolumes"]:
        if other["path"].startswith(f"{root}/"):
            done.problems.append(f"{one}: the subvolume {other['path']} is in it; remove that first")
    for mount in host.mounted:
        if mount["uuid"] == there["uuid"] and f"{mount['fsroot']}/".startswith(f"{root}/"):
            done.problems.append(f"{one}: is also mounted on {mount['target']}; unmount it there first")


def keep(done: Plan, one: Subvolume, host: Seen, there: Mapping[str, Any], mounted: bool) -> None:
    """Have a subvolume, its files changed in place where that is asked for."""
    exists, place = bool(own(one, there)), host.found.get(one.path)
    done.places.append(one.path)
    if mounted and place and not exists:
        done.problems.append(f"{one}: something is there that is no subvolume; move that away")
    if not exists:
        done.subvolumes.append({"uuid": there.get("uuid", ""), "name": f"/{one.name}", "path": one.path})
    if one.nocow:
        done.flagged.append(one.path)
    if one.nocow and "C" not in host.flags.get(one.path, ""):
        done.nocow.append(one.path)
        if exists and place and not place.empty:
            done.problems.append(
                f"{one}: has files already, and nocow works for new ones only; make an empty one, and copy them into "
                "it by cp --reflink=never"
            )


def limit_it(done: Plan, one: Subvolume, limits: str, present: Mapping[str, Any]) -> None:
    """Limit a subvolume; limits has rows such as "0/256  16384  16384  107374182400  images"."""
    if one.quota is None:
        return
    row = re.search(rf"(?m)^0/{present['id']}\s+\d+\s+\d+\s+(\w+)", limits) if present else None
    if (row.group(1) if row else "none") != limit(one.quota):
        done.commands.append(
            step(f"limit {one} to {one.quota}", "btrfs", "qgroup", "limit", limit(one.quota), one.path),
        )


def step(say: str, *argv: str) -> dict[str, Any]:
    return {"say": say, "argv": list(argv)}
