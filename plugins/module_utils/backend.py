# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backend declares: its fields, what libvirt can do for it, and the native ways for the rest.

A backend is data and a few functions in one file of backends/. The engine asks it and never
compares type names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .contents import Unlisted
    from .snapshots import Snapshots

OPERATIONS = (
    *("create", "clone", "resize", "upload", "download", "wipe"),
    *("convert", "snapshot", "flatten", "migrate", "delete", "info"),
)

# How an operation is done: by libvirt, by a native function of the backend, or not at all.
LIBVIRT = "libvirt"


@dataclass(frozen=True)
class Refused:
    """An operation that a backend can't do: why, and what to do instead."""

    reason: str
    instead: str


@dataclass(frozen=True)
class Native:
    """An operation that the backend's own command does; call(connection, pool, volume, ...) on this host."""

    command: str
    call: Callable[..., None] | None = None


@dataclass(frozen=True)
class Protection:
    """How a backend itself keeps a volume from being removed, for O(immutable).

    read(connection, pool options, volume name) tells whether it does; set(..., wanted) starts or ends it.
    """

    read: Callable[[Any, dict[str, Any], str], bool]
    set: Callable[[Any, dict[str, Any], str, bool], None]


@dataclass(frozen=True)
class Landing:
    """How data comes in under a hidden name, which becomes the volume's own when it is whole.

    make(label, connection, pool options, hidden name, capacity) -> the path that the volume has while it is hidden.
    publish(label, connection, pool options, hidden name, name) gives it its name, never that of another.
    discard(label, connection, pool options, hidden name) removes it.
    leftovers(connection, pool options) -> hidden names that other runs left.
    grow(label, connection, pool options, hidden name, capacity) gives it more room.
    zeroed: whether a new volume reads as zeroes all over.
    checked: whether the storage itself has a checksum of every write from this host to the medium, and on the way back.
    """

    command: str
    make: Callable[[str, Any, dict[str, Any], str, int], str]
    publish: Callable[[str, Any, dict[str, Any], str, str], None]
    discard: Callable[[str, Any, dict[str, Any], str], None]
    leftovers: Callable[[Any, dict[str, Any]], list[str]]
    grow: Callable[[str, Any, dict[str, Any], str, int], None]
    zeroed: bool = True
    checked: bool = False


def rounded(granule: int) -> Callable[[dict[str, Any], str | None], int]:
    """The capacity rule of a backend that rounds every volume up to the same granule, in bytes."""
    return lambda pool, form: granule


# What qemu-img rounds a virtual size up to, by format (seen with qemu 7.2): cylinders for vpc, grains for vmdk.
FILE_GRANULES = {"raw": 1, "qcow2": 1024, "qcow": 1024, "qed": 1024, "vdi": 1024, "vmdk": 65536, "vpc": 2 * 1024 * 1024}


def file_granule(pool: dict[str, Any], form: str | None) -> int:
    """What a file of a format is rounded up to, in bytes."""
    return FILE_GRANULES.get(form or "raw", 1024)


@dataclass(frozen=True)
class Backend:
    """All that the engine has to know of a pool type.

    type       libvirt's name, which is the suffix of the module with '-' as '_'.
    fields     option name to its place in the pool's XML.
    volume_formats   formats that a new volume can have; empty where a volume is only bytes.
    operations one of LIBVIRT, Native or Refused for each of OPERATIONS.
    build_choices  the values of O(build) that mean something here, the default first.
    build_flags    build value to the flags of virStoragePoolBuild; a missing one means no build.
    makes_directory  whether the target path is a directory of the host that the pool owns.
    mounts         whether starting the pool mounts a file system on that directory.
    conflicts_by   options by which two pools are the same storage, besides what libvirt itself checks.
    delete_data    what delete_data does: "volumes", "pool" or a Refused.
    servers        (options) -> [(host, port)] that must answer TCP before a start, any one of them.
    preflight      (thing, options, seconds) -> warnings about a start on this host; raises the StorageError of
                   what would make libvirt try for minutes, or fail without a reason.
    detaches       (options) -> [block device] that a stop takes away from this host, whoever uses it.
    leaves         (thing, options): removes what libvirt leaves on this host of a pool that has stopped, or
                   None where that is nothing.
    devices        (options, whether the storage is about to be built) -> [device] that must be there for it, and
                   that nobody uses where it is built.
    destroys       (thing, options) -> ([block device], [name]): what goes with the storage where delete_data is
                   "pool": the devices of its volumes, seen without libvirt, and what is none of its volumes.
    deletes        (thing, options, volume name): raises the StorageError of what the deletion of a volume would
                   take along, or of what forbids it.
    blank          (options) -> True, False or None: whether building would overwrite nothing;
                   None for a backend whose build formats nothing.
    keeps_format   whether a volume's format can be read back; a partition's is given when it is made.
    granule        (options, format) -> bytes that a capacity is rounded up to.
    told           (options) -> the same in the names by which libvirt itself compares them, on this host.
    unlisted       how volumes that libvirt does not list are seen, made, grown and removed, or None.
    sparse         a Refused where a volume with less allocation than capacity is not made, or None.
    name_error     (volume name, names there, options) -> what is wrong with a new name, or "".
    option_error   (options, whether the storage is about to be built) -> what is wrong with options that are
                   right one by one, or "".
    start_hint     (libvirt's words, options) -> the likely cause of a failed start, or "".
    way_out        (the words of a step that failed, options) -> what to do about it, or "".
    network_node   (thing, connection, pool options, the volume's path) -> a context of the Node by which QEMU's tools
                   reach a volume that has no path on this host, or None.
    network_source (pool options, the volume's path) -> how the disk of a domain names such a volume (see Place in
                   domains.py), or None.
    watchers       (connection, pool options, volume name) -> [address] of the clients of any host that have it open,
                   or None where the backend can't tell.
    shrink         how its volumes get smaller where that is none of the engine's own: a Native with call(thing,
                   connection, pool options, volume name, capacity), a Refused, or None for files of this host.
    thick          (pool options, volume name) -> whether what a volume grows by is taken from the pool at once.
    space          (pool options) -> (capacity, available) as the backend's own command shows them, or None.
    wiped_by       the algorithms by which libvirt wipes its volumes where no path leads to them, or None.
    wipes          (thing, connection, pool options, volume name): raises the StorageError of what would keep the data
                   of a wiped volume, or be destroyed with it.
    landing        how data comes in under a hidden name, for volumes that are no files; None where that can't be.
    linked         (label, connection, pool options, source's name, hidden name) -> the path of a clone that stands on
                   its source, by the backend's own command, or None.
    shared         the same of a clone that shares the blocks of its source and stands by itself, or None.
    parents        (connection, pool options, volume name) -> what a volume stands on, nearest first, in the backend's
                   own names; or None where its volumes are files, whose headers tell.
    snapshots      the backend's own snapshots of volumes, or None.
    numbered       whether new volumes get the next number, so that they are made one after the other.
    protection     the backend's own way to keep a volume from being removed, or None.
    identity       (thing, connection, pool options, paths of its volumes) -> what storage an active pool stands on, in
                   words that are the same on all hosts that have it, or None where nothing tells.
    relogin        what makes a running pool log in with its secret: "refresh", "restart", or "" where none does.
    constants      what a new pool has in places that libvirt's schema asks for and a user need not know.
    only_one       whether a host can have but one pool of the type.
    schema_agrees  (options) -> whether libvirt's schema takes what its driver takes.
    """

    type: str
    fields: dict[str, Any]
    operations: dict[str, Any]
    volume_formats: tuple[str, ...] = ()
    default_format: str | None = None
    build_choices: tuple[str, ...] = ("never",)
    build_flags: dict[str, int] = field(default_factory=dict)
    makes_directory: bool = False
    mounts: bool = False
    conflicts_by: tuple[str, ...] = ()
    delete_data: Any = "volumes"
    servers: Callable[[dict[str, Any]], list[tuple[str, int]]] = lambda options: []
    preflight: Callable[[str, dict[str, Any], float], list[str]] = lambda thing, options, seconds: []
    detaches: Callable[[dict[str, Any]], list[str]] = lambda options: []
    leaves: Callable[[str, dict[str, Any]], None] | None = None
    devices: Callable[[dict[str, Any], bool], list[str]] = lambda options, builds: []
    destroys: Callable[[str, dict[str, Any]], tuple[list[str], list[str]]] = lambda thing, options: ([], [])
    deletes: Callable[[str, dict[str, Any], str], None] = lambda thing, options, name: None
    blank: Callable[[dict[str, Any]], bool | None] | None = None
    keeps_format: bool = True
    granule: Callable[[dict[str, Any], str | None], int] = file_granule
    told: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: options
    unlisted: Unlisted | None = None
    sparse: Refused | None = None
    name_error: Callable[[str, list[str], dict[str, Any]], str] = lambda name, there, options: ""
    option_error: Callable[[dict[str, Any], bool], str] = lambda options, builds: ""
    start_hint: Callable[[str, dict[str, Any]], str] = lambda words, options: ""
    way_out: Callable[[str, dict[str, Any]], str] = lambda words, options: ""
    capacity_optional: bool = False
    protection: Protection | None = None
    network_node: Callable[..., Any] | None = None
    network_source: Callable[[dict[str, Any], str], dict[str, Any]] | None = None
    watchers: Callable[[Any, dict[str, Any], str], list[str]] | None = None
    shrink: Any = None
    thick: Callable[[dict[str, Any], str], bool] = lambda options, name: False
    space: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda options: None
    wiped_by: tuple[str, ...] | None = None
    wipes: Callable[[str, Any, dict[str, Any], str], None] = lambda thing, connection, options, name: None
    landing: Landing | None = None
    linked: Callable[[str, Any, dict[str, Any], str, str], str] | None = None
    shared: Callable[[str, Any, dict[str, Any], str, str], str] | None = None
    parents: Callable[[Any, dict[str, Any], str], list[str]] | None = None
    snapshots: Snapshots | None = None
    numbered: bool = False
    relogin: str = ""
    identity: Callable[[str, Any, dict[str, Any], list[str]], str] | None = None
    constants: dict[str, str] = field(default_factory=dict)
    only_one: bool = False
    schema_agrees: Callable[[dict[str, Any]], bool] = lambda options: True

    @property
    def module(self) -> str:
        return "pool_" + self.type.replace("-", "_")
