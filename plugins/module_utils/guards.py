# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known before something is made or destroyed, and what to say when it can't be known."""

from __future__ import annotations

import os
import posixpath
import re
import time
from typing import Any, Callable

from . import connection as connections
from . import fields, xmltree
from .errors import StorageError

NEW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:=-]{0,199}", re.ASCII)
IMPOSSIBLE_NAME = re.compile(r"[/\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]|^\.{0,2}$")

PASSING_SECONDS = 3.0  # how long a device may be open in passing, as in udev
DEEPEST_CHAIN = 200  # overlays; QEMU itself opens every member at each start

# Directories of the system itself: a pool there would list, chown and remove what is not a disk.
SYSTEM_DIRECTORIES = frozenset(
    ["/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/media"]
    + ["/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib"]
    + ["/usr/lib64", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/lib/libvirt", "/var/log", "/var/run"]
    + ["/var/tmp"]
)
SYSTEM_TREES = ("/etc", "/proc", "/sys", "/dev", "/boot", "/usr/bin", "/usr/sbin", "/bin", "/sbin")


def possible_name(thing: str, name: str) -> None:
    """Refuse what no backend can hold and what could be taken for a path."""
    if IMPOSSIBLE_NAME.search(name):
        raise StorageError(
            thing=thing,
            code="bad_name",
            reason=f"{name!r} can't be a name",
            way_out="leave out slashes, control characters and the names '.' and '..'",
        )


def new_name(thing: str, name: str) -> None:
    """The strict rule for what the collection makes; what exists under another name can still be managed."""
    if not NEW_NAME.fullmatch(name):
        raise StorageError(
            thing=thing,
            code="bad_name",
            reason=f"the name {name!r} is not one that the collection gives to something new",
            way_out="use up to 200 of A-Z a-z 0-9 _ . + @ : = - and begin with a letter, a digit or _",
        )


def refuse_system_path(thing: str, path: str, local: bool) -> None:
    """No pool over a directory that belongs to the system."""
    for name in (path, os.path.realpath(path) if local else path):
        if name in SYSTEM_DIRECTORIES or name.startswith(tuple(tree + "/" for tree in SYSTEM_TREES)):
            raise StorageError(
                thing=thing,
                code="system_path",
                reason=f"{path} belongs to the system",
                way_out="give the pool a directory of its own, such as /var/lib/libvirt/images or /srv/images",
            )


def nested(path: str, other: str) -> bool:
    """Whether one directory lies inside the other."""
    return path.startswith(other.rstrip("/") + "/") or other.startswith(path.rstrip("/") + "/")


def mount_points_of(fstab: str) -> list[str]:
    """The mount points that a text in the form of fstab(5) declares, the root aside."""
    rows = [line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#")]
    points = [row[1].replace("\\040", " ") for row in rows if len(row) >= 3 and row[1].startswith("/")]
    return [posixpath.normpath(point) for point in points if posixpath.normpath(point) != "/"]


def unmounted(path: str, fstab_file: str = "/etc/fstab") -> str:
    """The declared mount point that a path needs and that nothing is mounted on; empty when all is well."""
    try:
        with open(fstab_file, encoding="utf-8", errors="replace") as file:
            declared = mount_points_of(file.read())
    except OSError:
        return ""
    needed = [point for point in declared if path == point or path.startswith(point + "/")]
    return next((point for point in sorted(needed, key=len, reverse=True) if not os.path.ismount(point)), "")


def require_mounted(thing: str, path: str, require_mountpoint: bool) -> None:
    """An unmounted mount point looks like an empty pool, and fills the root file system."""
    point = unmounted(path)
    if require_mountpoint and not os.path.ismount(path):
        point = path
    if point:
        raise StorageError(
            thing=thing,
            code="not_mounted",
            reason=f"nothing is mounted on {point}",
            way_out=f"run 'mount {point}' (or start its mount unit), then run this again",
        )


def require_secret(thing: str, connection: Any, login: dict[str, Any] | None, planned: frozenset[str]) -> None:
    """The secret that a login or an encryption names is there, or comes before in the same layout."""
    name = (login or {}).get("secret_usage") or (login or {}).get("secret_uuid")
    if name is None or name in planned:
        return
    if not any(name in (secret.usageID(), secret.UUIDString()) for secret in connection.secrets()):
        raise StorageError(
            thing=thing,
            code="no_secret",
            reason=f"there is no secret {name!r}",
            way_out="define it first with the secret module, or list it in the secrets of the layout",
        )


def mounts_here(connection: Any) -> bool:
    """Whether pools are mounted on this host; libvirt's test driver mounts nothing."""
    return connection.local and connection.raw.getType().upper() != "TEST"


def silent_server(connection: Any, pool: str) -> str:
    """Where the server of a share that a pool has mounted should answer and does not; empty when all is well.

    Whoever looks at such a share waits for as long as the server is gone, and libvirt lists no pool while it does.
    """
    return connection.once(f"server of {pool}", lambda: ask_server(connection, pool))


def ask_server(connection: Any, pool: str) -> str:
    from .backends import registry  # loads the backends that are asked for

    if not mounts_here(connection) or not connection.active(pool):
        return ""
    tree = xmltree.parse(connection.pool(pool).XMLDesc(0))
    backend = registry.backend(tree.get("type"))
    if backend is None or not backend.mounts:
        return ""
    if not mounted(xmltree.get(tree, "target/path") or ""):
        return ""
    servers = backend.servers(fields.read(backend.fields, tree))
    if not servers or any(connections.answers(host, port, connections.PROBE_SECONDS) for host, port in servers):
        return ""
    return ", ".join(f"{host}:{port}" for host, port in servers)


def mounted(path: str, table: str = "/proc/self/mounts") -> bool:
    """Whether the kernel lists something as mounted there; to look at the place itself may take for ever."""
    point = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    escaped = point.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open(table, encoding="utf-8", errors="surrogateescape") as lines:
        return any(line.split(" ")[1] == escaped for line in lines)


def require_server(thing: str, connection: Any, pool: str) -> None:
    """The share of a pool can be looked at."""
    where = silent_server(connection, pool)
    if where:
        path = xmltree.get(xmltree.parse(connection.pool(pool).XMLDesc(0)), "target/path")
        raise StorageError(
            thing=thing,
            code="unreachable",
            reason=f"nothing answers at {where}, and whoever looks at {path} waits for it",
            way_out=f"bring the server back, or give the mount up with 'umount -f -l {path}', then run this again",
        )


def lost_mount(connection: Any, pool: str) -> str:
    """The directory of an active pool on which the pool's share or file system is no longer mounted; else empty."""
    return connection.once(f"mount of {pool}", lambda: find_lost_mount(connection, pool))


def find_lost_mount(connection: Any, pool: str) -> str:
    from .backends import registry

    if not mounts_here(connection) or not connection.active(pool):
        return ""
    tree = xmltree.parse(connection.pool(pool).XMLDesc(0))
    backend = registry.backend(tree.get("type"))
    path = xmltree.get(tree, "target/path") or ""
    if backend is None or not backend.mounts or silent_server(connection, pool):
        return ""
    return "" if os.path.ismount(os.path.realpath(path)) else path


def silent_shares(connection: Any) -> tuple[str, ...]:
    """The mount points of pools whose server does not answer, and what stands below them, as beginnings of paths."""
    return connection.once("silent shares", lambda: find_silent_shares(connection))


def find_silent_shares(connection: Any) -> tuple[str, ...]:
    silent = [pool for name, pool in connection.pools().items() if silent_server(connection, name)]
    paths = (xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") or "" for pool in silent)
    return tuple(path.rstrip("/") + "/" for path in paths)


def resolved(connection: Any, path: str) -> str:
    """Where a path of this host leads; one on a share whose server is silent is taken as it stands."""
    if not connection.local or f"{path}/".startswith(silent_shares(connection)):
        return path
    return os.path.realpath(path)


def device_users(thing: str, devices: list[str], seconds: float = PASSING_SECONDS) -> dict[str, list[str]]:
    """What has block devices or their partitions in use, by device; libvirt knows of its domains only.

    Who merely has one open is looked at again for some seconds: udev reads what has just been written.
    """
    from . import block  # loaded by what takes something away, so that an unchanged pool costs less

    deadline = time.monotonic() + seconds
    while True:
        staying = {device: block.staying_users(device) for device in devices}
        passing = block.openers(devices)
        for device in devices:
            if block.claimed(device) is None:
                raise StorageError(
                    thing=thing,
                    code="guard_unavailable",
                    reason=f"it can't be told whether {device} is used on this host",
                    way_out="run this as root",
                )
            if block.claimed(device) and not staying[device] and not passing[device]:
                passing[device] = ["something has it for itself"]
        found = {device: staying[device] + passing[device] for device in devices}
        used = {device: users for device, users in found.items() if users}
        if not used or any(staying.values()) or time.monotonic() > deadline:
            return used
        time.sleep(0.2)


def contents(connection: Any, backend: Any, pool: str, options: Callable[[], dict[str, Any]]) -> Any:
    """All that stands in a pool's storage, what libvirt does not list included; asked once a run.

    None for a backend that has no such command, and for libvirt's test driver, which makes its storage up.
    """
    if backend.unlisted is None or connection.uri.startswith("test:"):
        return None
    if not connection.local:
        raise StorageError(
            thing=f"pool {pool!r}",
            code="remote_connection",
            reason=f"{backend.unlisted.command} shows what libvirt does not list, and it runs on the pool's host",
            way_out="run the task there, with a local uri",
        )
    found = connection.once(f"contents of {pool}", lambda: contents_or_error(backend.unlisted.look, options()))
    if isinstance(found, StorageError):
        raise found
    return found


def contents_or_error(look: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:
    try:
        return look(options)
    except StorageError as error:
        return error


def shared_values(have: Any, want: Any, same: Any) -> bool:
    """Whether two values of an option name the same storage; of lists, whether any entry is in both."""
    if have is None or want is None:
        return have is want
    if isinstance(have, list):
        return any(one == other for one in have for other in want)
    return same(have, want)


def same_storage(backend: Any, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two pools of a backend stand on the same storage."""
    names = backend.conflicts_by
    if backend.only_one:
        return True
    return bool(names) and all(
        shared_values(one.get(name), other.get(name), backend.fields[name].same) for name in names
    )
