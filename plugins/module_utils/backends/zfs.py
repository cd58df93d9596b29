# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zfs: volumes are the zvols of a ZFS pool or dataset."""

from __future__ import annotations

from typing import Any

from ..backend import LIBVIRT, OPERATIONS, Backend, Landing, Native, Refused, rounded
from ..commands import run
from ..connection import libvirt, number
from ..errors import StorageError
from ..identity import first_line
from ..snapshots import NATIVE, Snapshot, Snapshots
from .shared import DEVICES, ONLY_RAW, PERMISSIONS, SOURCE_NAME, blank_devices, resize_by, step_by

NO_SUPPORT = 3  # VIR_ERR_NO_SUPPORT
BLOCK = 16 * 1024  # the volblocksize that OpenZFS gives a zvol; a size is a multiple of it
ZVOLS = "/dev/zvol/"


NOT_THERE = ("does not exist", "no such pool")
MOST_NAMES = 5


def ask(*argv: str) -> list[list[str]] | None:
    """The lines that zfs answers with, by column; None for what is not there; OSError where it can't tell."""
    found = run("zfs", *argv)
    if found.returncode != 0:
        if any(sign in found.stderr for sign in NOT_THERE):
            return None
        raise OSError(" ".join(found.stderr.split()))
    return [line.split("\t") for line in found.stdout.splitlines()]


def blank(options: dict[str, Any]) -> bool | None:
    """Whether no zpool or dataset has the name, and nothing known stands on its devices.

    zpool itself refuses a file system on a device, but not a partition table.
    """
    try:
        if ask("list", "-H", "-o", "name", options["source_name"]) is not None:
            return False
    except (OSError, KeyError):
        return None
    return blank_devices(devices(options, True)) if devices(options, True) else True


def devices(options: dict[str, Any], builds: bool) -> list[str]:
    """What a zpool is made of; a dataset is made in a zpool that is there."""
    return options.get("devices", []) if builds and "/" not in options.get("source_name", "") else []


def option_error(options: dict[str, Any], builds: bool) -> str:
    """libvirt would say 'missing source devices'."""
    if not builds or "/" in options["source_name"] or options.get("devices"):
        return ""
    return f"there is no zpool {options['source_name']!r}, and to make it its devices must be known; give devices"


def preflight(thing: str, options: dict[str, Any], seconds: float) -> list[str]:
    """libvirt starts a pool whose zpool or dataset is not there, and shows it running with 0 bytes."""
    name = options["source_name"]
    try:
        found = ask("list", "-H", "-o", "name,type", name)
        there = ask("list", "-H", "-o", "name", "-t", "filesystem") if found is None else None
    except OSError:
        return []  # libvirt itself says that ZFS is not there
    if found is None:
        names = [row[0] for row in there or []]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        listed = ", ".join(repr(one) for one in names[:MOST_NAMES])
        raise StorageError(
            thing=thing,
            code="no_source",
            reason=f"there is no zpool or dataset {name!r} on this host, but {listed or 'none at all'}{more}",
            way_out="import it ('zpool import' lists what can be), or make it by build: if_blank on blank devices",
        )
    if found[0][1] != "filesystem":
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"{name!r} is a {found[0][1]}, and a pool stands on a zpool or a dataset",
            way_out=f"give {name.rpartition('/')[0] or 'its zpool'} as source_name",
        )
    return []


def unseen(thing: str, error: OSError) -> StorageError:
    return StorageError(
        thing=thing,
        code="guard_unavailable",
        reason=f"it can't be told what would be destroyed: {error}",
        way_out="run this where zfs works, as root",
    )


def destroys(thing: str, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Every zvol below the source, and the file systems, snapshots and files that libvirt lists nowhere."""
    source = options["source_name"]
    try:
        found = ask("list", "-H", "-r", "-t", "all", "-o", "name,type", source)
        if found is None:
            return [], []
        run("zpool", "sync", source.partition("/")[0])  # what was just written is not counted yet
        files = ask("userspace", "-H", "-p", "-o", "objused", source) or []
        written = sum(int(row[0]) for row in files) > 1  # the root directory is one
    except FileNotFoundError:
        return [], []  # libvirt could destroy nothing either
    except (OSError, ValueError) as error:
        raise unseen(thing, OSError(error)) from None
    zvols = [name for name, kind in found if kind == "volume"]
    own = {name for name in zvols if name.rpartition("/")[0] == source}
    others = [f"{kind} {name}" for name, kind in found if name not in own and name != source]
    return [ZVOLS + name for name in zvols], [*others, *([f"files in {source}"] if written else [])]


def deletes(thing: str, options: dict[str, Any], name: str) -> None:
    """zfs destroys no zvol that has snapshots, and libvirt lists those of datasets below as if they were its own."""
    zvol = f"{options['source_name']}/{name}"
    try:
        snapshots = ask("list", "-H", "-r", "-t", "snapshot", "-o", "name,clones", zvol)
    except OSError as error:
        raise unseen(thing, error) from None
    if snapshots is None:
        raise StorageError(
            thing=thing,
            code="not_a_volume",
            reason=f"there is no {zvol}: libvirt lists a zvol of a dataset below it under this name",
            way_out="make a pool of that dataset, and remove it there",
        )
    if snapshots:
        named = [f"{one} (cloned as {clones})" if clones.strip("-") else one for one, clones in snapshots[:MOST_NAMES]]
        raise StorageError(
            thing=thing,
            code="has_overlays",
            reason=f"it has the snapshots {', '.join(named)}",
            way_out="destroy them first with 'zfs destroy', after a 'zfs promote' of clones that stay",
        )


def resize(connection: Any, volume: Any, capacity: int) -> None:
    """libvirt can since 11.7; before, ZFS's own command does it."""
    size = -(-capacity // BLOCK) * BLOCK
    try:
        volume.resize(size, 0)
    except libvirt.libvirtError as error:
        if number(error) != NO_SUPPORT:
            raise
        name = volume.path()
        name = name[len(ZVOLS) :] if name.startswith(ZVOLS) else name
        resize_by(connection, volume, "zfs", "set", f"volsize={size}", name)


def shrink(label: str, connection: Any, options: dict[str, Any], name: str, capacity: int) -> None:
    size = -(-capacity // BLOCK) * BLOCK
    step_by(label, "shrink", "zfs", "set", f"volsize={size}", f"{options['source_name']}/{name}")


def thick(options: dict[str, Any], name: str) -> bool:
    """Whether the zpool keeps room for all of a zvol."""
    found = ask("get", "-H", "-p", "-o", "value", "refreservation", f"{options['source_name']}/{name}")
    return found is not None and found[0][0] not in ("none", "0", "-")


def space(options: dict[str, Any]) -> tuple[int, int] | None:
    """What the pool's dataset holds and may still take, with all that is reserved counted as taken."""
    found = ask("get", "-H", "-p", "-o", "value", "used,available", options["source_name"])
    if found is None:
        return None
    used, available = (int(row[0]) for row in found)
    return used + available, available


def wipes(thing: str, connection: Any, options: dict[str, Any], name: str) -> None:
    """A snapshot keeps what was there before, and the origin of a clone what they share."""
    zvol = f"{options['source_name']}/{name}"
    try:
        snapshots = ask("list", "-H", "-r", "-t", "snapshot", "-o", "name", zvol)
        origin = ask("get", "-H", "-o", "value", "origin", zvol)
    except OSError as error:
        raise StorageError(
            thing=thing,
            code="guard_unavailable",
            reason=f"it can't be told which snapshots it has: {error}",
            way_out="run this where zfs works, as root",
        ) from None
    if snapshots is None or origin is None:
        raise StorageError(
            thing=thing,
            code="not_a_volume",
            reason=f"there is no {zvol}: libvirt lists a zvol of a dataset below it under this name",
            way_out="make a pool of that dataset, and wipe it there",
        )
    kept = [row[0] for row in [*snapshots, *origin] if row[0] != "-"]
    if kept:
        raise StorageError(
            thing=thing,
            code="has_snapshots",
            reason=f"{', '.join(kept[:MOST_NAMES])} would keep its data",
            way_out="destroy its snapshots first with 'zfs destroy'; a clone is let go by 'zfs promote'",
        )


# how data comes in


def land(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> str:
    size = -(-capacity // BLOCK) * BLOCK
    name = f"{options['source_name']}/{hidden}"
    step_by(label, "create", "zfs", "create", "-s", "-V", str(size), name)
    return settled(name)


def grow(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> None:
    size = -(-capacity // BLOCK) * BLOCK
    step_by(label, "resize", "zfs", "set", f"volsize={size}", f"{options['source_name']}/{hidden}")


def settled(name: str) -> str:
    """The device of a zvol, which udev makes."""
    run("udevadm", "settle", f"--exit-if-exists={ZVOLS}{name}", "--timeout=30")
    return ZVOLS + name


def publish(label: str, connection: Any, options: dict[str, Any], hidden: str, name: str) -> None:
    source = options["source_name"]
    step_by(label, "publish", "zfs", "rename", f"{source}/{hidden}", f"{source}/{name}")
    settled(f"{source}/{name}")


def discard(label: str, connection: Any, options: dict[str, Any], hidden: str) -> None:
    step_by(label, "discard", "zfs", "destroy", f"{options['source_name']}/{hidden}")


def zvols(connection: Any, options: dict[str, Any]) -> list[str]:
    """The zvols of the pool's own dataset."""
    source = options["source_name"]
    found = ask("list", "-H", "-d", "1", "-t", "volume", "-o", "name", source)
    return [row[0].rpartition("/")[2] for row in found or []]


def linked(label: str, connection: Any, options: dict[str, Any], source: str, hidden: str) -> str:
    """A clone, and the snapshot of its origin that it stands on."""
    pool = options["source_name"]
    snapshot = f"{pool}/{source}@{hidden}"
    step_by(label, "clone", "zfs", "snapshot", snapshot)
    try:
        step_by(label, "clone", "zfs", "clone", snapshot, f"{pool}/{hidden}")
    finally:
        run("zfs", "destroy", "-d", snapshot)  # deferred: it goes when its last clone goes
    return settled(f"{pool}/{hidden}")


# snapshots


def snapshots(connection: Any, options: dict[str, Any], name: str) -> list[Snapshot]:
    """Those of a zvol, oldest first."""
    zvol = f"{options['source_name']}/{name}"
    columns = ("-o", "name,creation,volsize,clones", "-s", "createtxg")
    found = ask("list", "-H", "-p", "-d", "1", "-t", "snapshot", *columns, zvol) or []
    return [
        Snapshot(
            full.partition("@")[2],
            NATIVE,
            float(creation),
            int(volsize) if volsize.isdigit() else None,
            tuple(one for one in clones.split(",") if one.strip("-")),
        )
        for full, creation, volsize, clones in found
    ]


def snapshot(label: str, connection: Any, options: dict[str, Any], name: str, tag: str, size: int | None) -> None:
    step_by(label, "snapshot", "zfs", "snapshot", f"{options['source_name']}/{name}@{tag}")


def remove_snapshot(label: str, connection: Any, options: dict[str, Any], name: str, tag: str) -> None:
    step_by(label, "remove_snapshot", "zfs", "destroy", f"{options['source_name']}/{name}@{tag}")


def roll_back(label: str, connection: Any, options: dict[str, Any], name: str, tag: str, newer: bool) -> None:
    """In one transaction; newer gives up the snapshots that came later."""
    step_by(label, "revert", "zfs", "rollback", *(["-r"] if newer else []), f"{options['source_name']}/{name}@{tag}")


def unchanged_since(connection: Any, options: dict[str, Any], name: str, tag: str) -> bool:
    """Whether nothing was written since a snapshot; what is not written out yet would not be counted."""
    source = options["source_name"]
    run("zpool", "sync", source.partition("/")[0])
    return ask("get", "-H", "-p", "-o", "value", f"written@{tag}", f"{source}/{name}") == [["0"]]


def identity(thing: str, connection: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The zpool's GUID and the dataset in it."""
    pool, dummy, dataset = options["source_name"].partition("/")
    guid = first_line(thing, "install zfsutils-linux", "zpool", "get", "-H", "-o", "value", "guid", pool)
    return f"zpool {guid}{dataset and f', dataset {dataset}'}"


BACKEND = Backend(
    type="zfs",
    fields={
        "source_name": SOURCE_NAME,
        "devices": DEVICES,
        "permissions": PERMISSIONS,
    },
    operations={
        **dict.fromkeys(OPERATIONS, LIBVIRT),
        "clone": Native("zfs clone"),
        "resize": Native("zfs set volsize", resize),
        "upload": Native("a copy in process, or qemu-img convert"),
        "download": Native("a copy in process, or qemu-img convert"),
        "wipe": Native("zeroes written in process, scrub or blkdiscard"),
        "convert": ONLY_RAW,
        "snapshot": Native("zfs snapshot"),
        "flatten": Refused(
            "a clone shares its blocks with the snapshot that it was made of for as long as it lives",
            "make a full clone of it (volume_clone with mode: full), and remove it",
        ),
        "migrate": Native("qemu-img convert, or zfs rename"),
    },
    volume_formats=("raw",),
    build_choices=("never", "if_blank"),
    build_flags={"if_blank": 0},
    conflicts_by=("source_name",),
    delete_data="pool",
    blank=blank,
    devices=devices,
    destroys=destroys,
    deletes=deletes,
    preflight=preflight,
    option_error=option_error,
    granule=rounded(BLOCK),
    shrink=Native("zfs set volsize", shrink),
    thick=thick,
    space=space,
    wipes=wipes,
    landing=Landing("zfs create and rename", land, publish, discard, zvols, grow),
    linked=linked,
    snapshots=Snapshots(
        "zfs snapshot", snapshots, snapshot, remove_snapshot, roll_back, unchanged_since, drops_newer=True
    ),
    constants={"target/path": "/dev/zvol"},  # libvirt makes it /dev/zvol/NAME, whatever stands there
    # storagepool.rng has one device for zfs where the driver builds a zpool of any number.
    schema_agrees=lambda options: len(options.get("devices", [])) < 2,
    identity=identity,
)
