# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""logical: volumes are the logical volumes of an LVM volume group, those in its thin pools among them.

libvirt lists neither thin volumes nor thin pools nor what is not active, so LVM's own commands show and change them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from typing import Any

from .. import block
from ..backend import LIBVIRT, OPERATIONS, Backend, Landing, Native, Refused
from ..commands import run
from ..contents import THIN_POOL, Contents, Entry, Unlisted
from ..errors import StepFailed, StorageError
from ..fields import At
from ..identity import first_line
from ..snapshots import NATIVE, Snapshot, Snapshots
from .shared import (
    DEVICES,
    ONLY_RAW,
    PERMISSIONS,
    SOURCE_NAME,
    STANDS_ALONE,
    VENDOR,
    blank_devices,
    resize_by,
    run_native,
    step_by,
)

DEFAULT_EXTENT = 4 * 1024 * 1024
LONGEST = 127  # letters of a name of LVM
SECTOR = 512  # LVM takes no size that is not a multiple of it
COLUMNS = (
    "vg_name,vg_uuid,vg_extent_size,lv_name,lv_uuid,lv_size,lv_layout,lv_role,lv_active,lv_device_open,"
    "lv_health_status,pool_lv,origin,origin_size,data_percent,metadata_percent"
)
OLD = ".kvm.storage-old"  # ends the name that a volume has while another one takes its place
HALF = "nothing, since a revert was killed; 'lvrename {} {} {}' brings the volume back"
# What LVM keeps for itself, see lvm(8).
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*", re.ASCII)
RESERVED_BEGINNING = ("snapshot", "pvmove")
RESERVED_PART = re.compile(
    "_(cdata|cmeta|corig|cvol|iorig|mlog|mimage|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|wcorig)"
)


@functools.cache
def extent(group: str) -> int:
    """The extent of a volume group, in bytes: asked once a run; LVM's default where it can't be asked."""
    try:
        found = run("vgs", "--noheadings", "--nosuffix", "--units", "b", "--options", "vg_extent_size", "--", group)
        return int(found.stdout)
    except (OSError, ValueError):
        return DEFAULT_EXTENT


def in_sectors(capacity: int) -> str:
    """A size as LVM takes it, which rounds it up to whole extents by itself."""
    return f"{-(-capacity // SECTOR) * SECTOR}b"


def resize(connection: Any, volume: Any, capacity: int) -> None:
    resize_by(connection, volume, "lvextend", "--size", in_sectors(capacity), "--", volume.path())


# what libvirt does not list


def look(options: dict[str, Any]) -> Contents:
    """Every logical volume of the group, by one command."""
    group = options["source_name"]
    finished = run_native(
        f"volume group {group!r}",
        *("lvs", "--all", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", COLUMNS, "--", group),
    )
    try:
        report = json.loads(finished.stdout)
    except ValueError:
        report = {}
    if finished.returncode != 0:
        raise unseen(group, report, finished.stderr)
    rows = [row for part in report.get("report", []) for row in part.get("lv", []) if row["vg_name"] == group]
    entries = {one.name: one for one in (entry(row, rows) for row in rows)}
    for one in [one for one in entries.values() if one.name.endswith(OLD)]:
        name = one.name[: -len(OLD)]
        half = Entry(name, HALF.format(group, one.name, name), unlisted=True, paths=(f"/dev/{group}/{name}",))
        entries.setdefault(name, half)
    return Contents(entries, int(rows[0]["vg_extent_size"]) if rows else DEFAULT_EXTENT)


def unseen(group: str, report: dict[str, Any], stderr: str) -> StorageError:
    """Why lvs did not tell of a group; with JSON its words are in the report."""
    said = [one["log_message"] for one in report.get("log", []) if one.get("log_type") == "error"]
    words = " ".join("; ".join([*said, *stderr.split("\n")]).split())
    missing = f'Volume group "{group}" not found' in words
    return StorageError(
        thing=f"volume group {group!r}",
        code="no_source" if missing else "backend_refused",
        reason="it is not on this host" if missing else words or "lvs failed",
        way_out="make it, or bring its devices back; 'vgs' lists those that are there" if missing else "",
    )


def entry(row: dict[str, str], rows: list[dict[str, str]]) -> Entry:
    """One line of lvs; LVM writes names of what it hides in brackets."""
    name, own, kind = row["lv_name"].strip("[]"), int(row["lv_size"]), kind_of(row)
    used = row["data_percent"] if row["pool_lv"] or kind else ""
    roles = row["lv_role"].split(",")
    falls = tuple(other["lv_name"] for other in rows if other["origin"] == name and falls_with(other, row))
    return Entry(
        name=name,
        kind=kind,
        unlisted=bool(row["pool_lv"]) or kind != "" or row["lv_active"] == "",
        paths=paths(row, name),
        key=row["lv_uuid"],
        capacity=int(row["origin_size"]) if "thicksnapshot" in roles else own,
        allocation=round(own * float(used) / 100) if used else None if row["pool_lv"] else own,
        thin_pool=row["pool_lv"] if "thin" in row["lv_layout"].split(",") else "",
        falls=falls,
        is_open=row["lv_device_open"] == "open",
        fixed=fixed(roles, falls),
        trouble=trouble(row) if kind == THIN_POOL else "",
    )


def kind_of(row: dict[str, str]) -> str:
    """What is no volume for a guest; empty for what is one."""
    layout = row["lv_layout"].split(",")
    if layout == ["thin", "pool"]:
        return THIN_POOL
    if "pool" in layout:
        return f"a {layout[0]} pool"
    if "public" not in row["lv_role"].split(","):
        return f"a part of LVM's own ({row['lv_role']})"
    return f"a volume of type {layout[0]}, which holds nothing" if layout[0] in ("zero", "error") else ""


def paths(row: dict[str, str], name: str) -> tuple[str, ...]:
    """Every name that udev and LVM give the device, so that a domain is found by any while it is not active."""
    mapped = "-".join(one.replace("-", "--") for one in (row["vg_name"], name))
    number = (row["vg_uuid"] + row["lv_uuid"]).replace("-", "")
    by_id = "/dev/disk/by-id/dm-"
    return (
        f"/dev/{row['vg_name']}/{name}",
        f"/dev/mapper/{mapped}",
        f"{by_id}name-{mapped}",
        f"{by_id}uuid-LVM-{number}",
    )


def falls_with(other: dict[str, str], origin: dict[str, str]) -> bool:
    """Whether a snapshot is destroyed with its origin; one in the same thin pool stands by itself."""
    return not (origin["pool_lv"] and other["pool_lv"] == origin["pool_lv"])


def fixed(roles: list[str], falls: tuple[str, ...]) -> str:
    """Why LVM does not change the size that a guest sees."""
    if "thicksnapshot" in roles:
        return "it is a snapshot, of which LVM lets only the room for changes grow"
    return f"LVM lets no volume grow that has the snapshot {falls[0]!r}" if falls else ""


def trouble(row: dict[str, str]) -> str:
    """Why a thin pool takes no new volume."""
    for column, what in (("data_percent", "its data"), ("metadata_percent", "its metadata")):
        if row[column] and float(row[column]) >= 100:
            return f"{what} is full"
    return row["lv_health_status"].replace("_", " ")


def create(label: str, options: dict[str, Any], name: str, thin_pool: str, capacity: int) -> Entry:
    group = options["source_name"]
    step_by(
        *(label, "create", "lvcreate", "--type", "thin", "--thinpool", thin_pool, "--name", name),
        *("--virtualsize", in_sectors(capacity), "--wipesignatures", "y", "--yes", "--", group),
    )
    return Entry(name, unlisted=True, paths=(f"/dev/{group}/{name}",), capacity=capacity, thin_pool=thin_pool)


def grow(label: str, options: dict[str, Any], name: str, capacity: int) -> None:
    step_by(label, "resize", "lvextend", "--size", in_sectors(capacity), "--", f"{options['source_name']}/{name}")


def shrink(label: str, connection: Any, options: dict[str, Any], name: str, capacity: int) -> None:
    """Newer LVM looks for a file system of its own accord, and is told not to: a guest has put it there."""
    quiet = ("--fs", "ignore") if re.search(r"--fs\b", run_native(label, "lvreduce", "--help").stdout) else ()
    place = f"{options['source_name']}/{name}"
    step_by(label, "shrink", "lvreduce", "--force", "--yes", *quiet, "--size", in_sectors(capacity), "--", place)


def space(options: dict[str, Any]) -> tuple[int, int] | None:
    """The size of the volume group and what is free of it."""
    columns = ("--noheadings", "--nosuffix", "--units", "b", "--options", "vg_size,vg_free")
    found = run("vgs", *columns, "--", options["source_name"])
    size, free = (int(one) for one in found.stdout.split())
    return size, free


def wipes(thing: str, connection: Any, options: dict[str, Any], name: str) -> None:
    """A snapshot keeps what its origin held, and the origin of a thin snapshot what they share.

    After a revert in a thin pool LVM names no origin for the other snapshots, but their tags do.
    """
    group = options["source_name"]
    columns = ("--noheadings", "--separator", "/", "--options", "lv_name,origin,lv_tags")
    finished = run_native(thing, "lvs", "--all", *columns, "--", group)
    if finished.returncode != 0:
        raise StorageError(
            thing=thing,
            code="guard_unavailable",
            reason=f"it can't be told which snapshots it has: {' '.join(finished.stderr.split())}",
            way_out="mend that first",
        )
    rows = [line.split("/", 2) for line in finished.stdout.split()]
    snapshots = [one for one, origin, tags in rows if origin == name or named(one, tags, name)]
    origins = [origin for one, origin, dummy in rows if one == name and origin]
    if snapshots or origins:
        raise StorageError(
            thing=thing,
            code="has_snapshots",
            reason=f"{'its snapshot' if snapshots else 'its origin'} {(snapshots or origins)[0]!r} would keep its data",
            way_out="remove that first",
        )


def delete(label: str, options: dict[str, Any], name: str) -> None:
    step_by(label, "delete", "lvremove", "--yes", "--", f"{options['source_name']}/{name}")


# how data comes in


def land(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> str:
    group = options["source_name"]
    step_by(
        *(label, "create", "lvcreate", "--name", hidden, "--size", in_sectors(capacity)),
        *("--wipesignatures", "y", "--yes", "--", group),
    )
    return f"/dev/{group}/{hidden}"


def grow_landed(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> None:
    grow(label, options, hidden, capacity)


def publish(label: str, connection: Any, options: dict[str, Any], hidden: str, name: str) -> None:
    step_by(label, "publish", "lvrename", "--", options["source_name"], hidden, name)


def discard(label: str, connection: Any, options: dict[str, Any], hidden: str) -> None:
    delete(label, options, hidden)


def volumes(connection: Any, options: dict[str, Any]) -> list[str]:
    """The logical volumes of the group."""
    return list(look(options).entries)


def shared(label: str, connection: Any, options: dict[str, Any], source: str, hidden: str) -> str:
    """A thin volume that shares the blocks of another one of its thin pool, and stands by itself."""
    group = options["source_name"]
    step_by(
        *(label, "clone", "lvcreate", "--snapshot", "--setactivationskip", "n", "--name", hidden),
        *("--", f"{group}/{source}"),
    )
    return f"/dev/{group}/{hidden}"


# snapshots

MARK = "kvm.storage.snapshot"  # begins the tag of a snapshot; its volume and its name follow
SNAPSHOT_COLUMNS = "lv_name,lv_tags,lv_time,lv_size,origin_size,lv_snapshot_invalid,pool_lv,snap_percent"
NEW = ".kvm.storage-revert"  # ends the name of what takes the place of a volume
MERGE_PAUSE = 0.5  # seconds between two looks at a merge
LONGEST_MERGE = 600.0  # seconds
SECONDS = 'report/time_format="%s"'


def reported(group: str) -> list[dict[str, str]]:
    """The logical volumes of a group as their snapshots need them."""
    options = ("--options", SNAPSHOT_COLUMNS, "--config", SECONDS)
    finished = run_native(
        f"volume group {group!r}",
        *("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", *options, "--", group),
    )
    if finished.returncode != 0:
        raise unseen(group, {}, finished.stderr or finished.stdout)
    return [row for part in json.loads(finished.stdout).get("report", []) for row in part.get("lv", [])]


def named(entry: str, tags: str, volume: str) -> str:
    """The name of the snapshot that a logical volume is of a volume; empty where it is none that was taken here."""
    for tag in tags.split(","):
        mark, dummy, rest = tag.partition(":")
        owner, dummy, name = rest.partition(":")
        if mark == MARK and owner == volume and entry == f"{owner}.{name}":
            return name
    return ""


def snapshots(connection: Any, options: dict[str, Any], volume: str) -> list[Snapshot]:
    """Those of a volume that were taken here, oldest first; other snapshots are somebody else's."""
    found = []
    for row in reported(options["source_name"]):
        name = named(row["lv_name"], row["lv_tags"], volume)
        if name:
            lost = row["lv_snapshot_invalid"] in ("snapshot invalid", "1")
            trouble = "it was full, and LVM has given it up" if lost else ""
            size = int(row["lv_size"] if row["pool_lv"] else row["origin_size"] or 0) or None
            found.append(Snapshot(name, NATIVE, float(row["lv_time"]), size, trouble=trouble))
    return sorted(found, key=lambda one: one.time or 0)


def snapshot(label: str, connection: Any, options: dict[str, Any], volume: str, name: str, size: int | None) -> None:
    """In its thin pool, or beside its origin with room for all that changes unless a size says otherwise."""
    group = options["source_name"]
    if look(options).entries[volume].thin_pool:
        room: tuple[str, ...] = ()
    else:
        room = ("--extents", "100%ORIGIN") if size is None else ("--size", in_sectors(size))
    step_by(
        *(label, "snapshot", "lvcreate", "--yes", "--snapshot", *room, "--name", f"{volume}.{name}"),
        *("--addtag", f"{MARK}:{volume}:{name}", "--", f"{group}/{volume}"),
    )


def remove_snapshot(label: str, connection: Any, options: dict[str, Any], volume: str, name: str) -> None:
    step_by(label, "remove_snapshot", "lvremove", "--yes", "--", f"{options['source_name']}/{volume}.{name}")


def revert(label: str, connection: Any, options: dict[str, Any], volume: str, name: str, newer: bool) -> None:
    """While the volume is not active: then nothing has it open, and LVM puts nothing off to an activation to come."""
    group, own = options["source_name"], f"{volume}.{name}"
    rows = {row["lv_name"]: row for row in reported(group)}
    falls = look(options).entries[volume].falls if rows[own]["pool_lv"] else ()
    if falls:
        raise StorageError(
            thing=label,
            code="has_overlays",
            reason=f"the snapshot {falls[0]!r} beside its thin pool would be destroyed",
            way_out="remove that first",
        )
    run("udevadm", "settle", "--timeout=30")
    step_by(label, "revert", "lvchange", "--activate", "n", "--", f"{group}/{volume}")
    try:
        if rows[own]["pool_lv"]:
            put_in_place(label, group, volume, own, rows)
        else:
            step_by(label, "revert", "lvconvert", "--yes", "--merge", "--", f"{group}/{own}")
    finally:
        step_by(label, "revert", "lvchange", "--activate", "y", "--", f"{group}/{volume}")
    if rows[own]["pool_lv"]:
        step_by(label, "revert", "lvremove", "--yes", "--", f"{group}/{volume}{OLD}")
        return
    deadline = time.monotonic() + LONGEST_MERGE
    while own in look(options).entries:
        if time.monotonic() > deadline:
            raise StepFailed(
                thing=label,
                step="revert",
                code="timeout",
                reason=f"after {LONGEST_MERGE:g} s it goes on merging; 'lvs -a' shows it",
                way_out=f"take {name!r} anew once that is done: the merge uses it up",
            )
        time.sleep(MERGE_PAUSE)
    snapshot(label, connection, options, volume, name, int(rows[own]["lv_size"]))  # the merge has used it up


def put_in_place(label: str, group: str, volume: str, own: str, rows: dict[str, dict[str, str]]) -> None:
    """A copy of a thin snapshot takes the name of its volume.

    A merge would end all further ones: LVM forgets of the other snapshots whose they are.
    """
    passing, old = f"{volume}{NEW}", f"{volume}{OLD}"
    for left in (passing, old):  # by a killed run
        if left in rows:
            step_by(label, "revert", "lvremove", "--yes", "--", f"{group}/{left}")
    tags = [word for tag in rows[volume]["lv_tags"].split(",") if tag for word in ("--addtag", tag)]
    step_by(
        *(label, "revert", "lvcreate", "--snapshot", "--setactivationskip", "n", "--activate", "n"),
        *("--name", passing, *tags, "--", f"{group}/{own}"),
    )
    step_by(label, "revert", "lvrename", "--", group, volume, old)
    try:
        step_by(label, "revert", "lvrename", "--", group, passing, volume)
    except StepFailed:
        run("lvrename", "--", group, old, volume)
        raise


def unchanged_since(connection: Any, options: dict[str, Any], volume: str, name: str) -> bool:
    """Whether a snapshot beside its origin has had nothing to keep; of one in a thin pool LVM does not tell."""
    for row in reported(options["source_name"]):
        if row["lv_name"] == f"{volume}.{name}" and not row["pool_lv"] and row["snap_percent"]:
            return float(row["snap_percent"]) == 0
    return False


def snapshot_error(volume: str, name: str) -> str:
    """What LVM would refuse of a new snapshot's name."""
    found = name_error(f"{volume}.{name}", [], {})
    return found or (f"with its volume's it is longer than {LONGEST}" if len(f"{volume}.{name}") > LONGEST else "")


def name_error(name: str, there: list[str], options: dict[str, Any]) -> str:
    """What LVM would refuse of a new name."""
    part = RESERVED_PART.search(name)
    if not NAME.fullmatch(name):
        return f"LVM takes no name such as {name!r}; use letters, digits and _ + . -"
    if name.startswith(RESERVED_BEGINNING) or part:
        return f"LVM keeps names that {f'hold {part[0]}' if part else 'begin so'} for itself; choose another one"
    return ""


def lvm_name(device: str) -> str:
    """The name by which LVM reports a device, whatever link it is given by."""
    real = os.path.realpath(device)
    if real.startswith("/dev/dm-"):
        return f"/dev/mapper/{block.read(f'{block.SYS}/class/block/{os.path.basename(real)}/dm/name')}"
    return real if os.path.exists(real) else device


def told(options: dict[str, Any]) -> dict[str, Any]:
    """libvirt starts no pool that has none of its devices by LVM's own name."""
    return {**options, "devices": [lvm_name(one) for one in options["devices"]]} if "devices" in options else options


def start_hint(words: str, options: dict[str, Any]) -> str:
    """LVM answers in several lines, of which libvirt passes on the exit status."""
    if "vgchange" in words and "unexpected exit status" in words:
        return f"volume group {options.get('source_name')!r} can't be activated: is it on this host? ask 'vgs'"
    return ""


def identity(thing: str, connection: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The volume group's UUID, which a group of the same name on another host has not."""
    command = ("vgs", "--noheadings", "--options", "vg_uuid", "--", options["source_name"])
    return f"volume group {first_line(thing, 'install lvm2', *command)}"


BACKEND = Backend(
    type="logical",
    fields={
        "source_name": SOURCE_NAME,
        "devices": DEVICES,
        "source_format": At("source/format/@type", choices=("unknown", "lvm2")),
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations={
        **dict.fromkeys(OPERATIONS, LIBVIRT),
        "clone": Native("qemu-img convert, or lvcreate --snapshot in a thin pool"),
        "resize": Native("lvextend", resize),
        "upload": Native("a copy in process, or qemu-img convert"),
        "download": Native("a copy in process, or qemu-img convert"),
        "wipe": Native("zeroes written in process, scrub or blkdiscard"),
        "convert": ONLY_RAW,
        "snapshot": Native("lvcreate --snapshot"),
        "flatten": STANDS_ALONE,
        "migrate": Native("qemu-img convert, or lvrename"),
    },
    volume_formats=("raw",),
    build_choices=("never", "if_blank", "overwrite"),
    build_flags={"if_blank": 4, "overwrite": 8},
    conflicts_by=("source_name",),
    landing=Landing("lvcreate and lvrename", land, publish, discard, volumes, grow_landed, zeroed=False),
    shared=shared,
    snapshots=Snapshots(
        *("lvcreate --snapshot", snapshots, snapshot, remove_snapshot, revert, unchanged_since, snapshot_error),
        sized=True,
        listed=True,
    ),
    shrink=Native("lvreduce", shrink),
    thick=lambda options, name: True,
    space=space,
    wipes=wipes,
    delete_data="pool",
    blank=lambda options: blank_devices(options.get("devices", [])),
    granule=lambda pool, form: extent(pool.get("source_name", "")),
    told=told,
    unlisted=Unlisted("lvs", look, create, grow, delete),
    sparse=Refused(
        "what has less allocation than capacity is an LVM snapshot of nothing, and all in it is lost once it is full",
        "leave allocation and preallocation out, or make it in a thin_pool",
    ),
    name_error=name_error,
    start_hint=start_hint,
    constants={"target": ""},  # the path is /dev/VG, whatever stands there
    identity=identity,
)
