# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must be known before something is made or destroyed, and what to say when it can't be known."""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

from .errors import StorageError

NEW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:=-]{0,199}", re.ASCII)
IMPOSSIBLE_NAME = re.compile(r"[/\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]|^\.{0,2}$")

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
