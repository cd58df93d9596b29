# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a volume: the disks of domains, QEMU's own locks and the overlays above a base."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import images, xmltree
from .connection import libvirt, number, volume_xml, words
from .errors import StorageError
from .guards import DEEPEST_CHAIN, mounts_here, require_server, resolved, silent_shares

INACTIVE_XML = 2  # VIR_DOMAIN_XML_INACTIVE
F_OFD_GETLK = 36  # fcntl(2): asks for the locks of any process, this one included
WRITER = 101  # the lock of who writes (BLK_PERM_WRITE)
QEMU_LOCK_BYTES = (100, 200)  # block/file-posix.c: a lock in either range means that QEMU has the image open


@dataclass(frozen=True)
class Use:
    """One place of a domain's XML that names storage: a path, a pool's volume or a network disk."""

    domain: str
    running: bool
    path: str = ""
    pool: str = ""
    volume: str = ""
    network: str = ""  # protocol:name, such as rbd:vms/web01
    format: str = ""  # of the disk's driver; empty where the place is no disk of its own
    target: str = ""  # the disk's name in the guest, such as vda
    level: int = -1  # 0 for the disk itself, 1 for what it stands on, and so on; -1 for any other place


def uses(connection: Any, running_only: bool = False) -> list[Use]:
    """What find_uses() finds; the removal of many volumes asks once."""
    return connection.once(f"uses {running_only}", lambda: find_uses(connection, running_only))


def find_uses(connection: Any, running_only: bool) -> list[Use]:
    """Everything that any domain of the connection names as storage, backing chains included."""
    found: list[Use] = []
    for domain in connection.domains():
        running = bool(domain.isActive())
        if running_only and not running:
            continue
        texts = [domain.XMLDesc(0)]
        if running and domain.isPersistent() and not running_only:
            texts.append(domain.XMLDesc(INACTIVE_XML))
        for text in texts:
            silent = silent_shares(connection) if connection.local else ()
            folders = connection.once("directories", lambda: directories(connection)) if connection.local else ()
            found += uses_in(xmltree.parse(text), domain.name(), running, connection.local, silent, folders)
    return found


def uses_in(
    tree: Any, domain: str, running: bool, local: bool, silent: tuple[str, ...] = (), folders: Collection[str] = ()
) -> list[Use]:
    """The storage that one domain's XML names; what lies on a silent share is not looked at."""
    found = []
    for source in tree.iter("source", "loader", "nvram", "kernel", "initrd"):
        path = source.get("file") or source.get("dev") or source.get("dir") or ""
        if source.tag != "source":
            path = (source.text or "").strip()
        form, (target, level) = format_of(source), place_of(source)
        if path.startswith("/"):
            seen = local and not path.startswith(silent)
            real = os.path.realpath(path) if seen else path
            found.append(Use(domain, running, path=real, format=form, target=target, level=level))
            found += [Use(domain, running, path=base) for base in below(path, silent, folders)] if seen else []
        if source.get("pool") and source.get("volume"):
            named = {"pool": source.get("pool"), "volume": source.get("volume")}
            found.append(Use(domain, running, **named, format=form, target=target, level=level))
        if source.get("protocol") and source.get("name"):
            network = f"{source.get('protocol')}:{source.get('name').lstrip('/')}"
            found.append(Use(domain, running, network=network, format=form, target=target, level=level))
    return found


def place_of(source: Any) -> tuple[str, int]:
    """The disk of the guest that a source belongs to, and how deep below it lies in its chain."""
    level, parent = 0, source.getparent()
    while parent is not None and parent.tag == "backingStore":
        level, parent = level + 1, parent.getparent()
    if parent is None or parent.tag != "disk":
        return "", -1
    target = parent.find("target")
    return (target.get("dev") or "") if target is not None else "", level


def below(path: str, silent: tuple[str, ...] = (), folders: Collection[str] = ()) -> list[str]:
    """The files that a file stands on by its own header: libvirt tells them of running domains only.

    A header may lie. Here that makes a guard refuse too much, never too little. What it names is opened only where it
    lies in one of the folders, those of pools, or beside the file itself; any other file is named and left alone.
    """
    found: list[str] = []
    near = tuple(f"{folder.rstrip('/')}/" for folder in (os.path.dirname(os.path.realpath(path)), *folders))
    while len(found) < DEEPEST_CHAIN:
        real = os.path.realpath(path)
        image = images.probe(real) if real.startswith(near) else None
        if image is None or not image.backing or "\0" in image.backing:
            break
        path = base_of(os.path.dirname(real), image.backing)
        if path.startswith(silent):
            found.append(path)
            break
        if os.path.realpath(path) in found:
            break
        found.append(os.path.realpath(path))
    return found


def base_of(folder: str, name: str) -> str:
    """The path that a header in a folder means by the name of a base, which can be JSON (see qemu-block-drivers(7))."""
    if name.startswith("json:"):
        import json

        with contextlib.suppress(ValueError, RecursionError):
            name = filename_in(json.loads(name[len("json:") :])) or name
    return os.path.join(folder, name.removeprefix("file:"))


def filename_in(options: Any) -> str:
    """The first file name of a block device as QEMU's options describe it; empty for none."""
    for key, value in options.items() if isinstance(options, dict) else ():
        if isinstance(value, str) and key.rpartition(".")[2] == "filename":
            return value
        deeper = filename_in(value)
        if deeper:
            return deeper
    return ""


def format_of(source: Any) -> str:
    """The format that a domain declares for a disk or for a member of its chain."""
    parent = source.getparent()
    if parent is None:
        return ""
    declared = parent.find("driver") if parent.tag == "disk" else parent.find("format")
    return (declared.get("type") or "") if declared is not None else ""


def of_volume(found: list[Use], pool: str, name: str, path: str, local: bool) -> list[Use]:
    """The uses of one volume. A network volume's path is pool/image, as its domain names it."""
    real = os.path.realpath(path) if local and path.startswith("/") else path
    return [
        use
        for use in found
        if (use.pool == pool and use.volume == name)
        or (use.path and use.path == real)
        or (use.network and not path.startswith("/") and network_name(use.network) == image_name(path))
    ]


def declared_directories(connection: Any) -> set[str]:
    """The directories of all pools, as they are declared."""
    targets = (xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") for pool in connection.pools().values())
    return {target for target in targets if target}


def directories(connection: Any) -> set[str]:
    """The directories of all pools, where links lead."""
    return {resolved(connection, target) for target in declared_directories(connection)}


def network_name(network: str) -> str:
    """rbd:vms/web01 is vms/web01."""
    return network.partition(":")[2]


def image_name(path: str) -> str:
    """What a domain calls a network volume: rbd's path as it is, that of gluster://host/vol/disk without the host."""
    dummy, url, rest = path.partition("://")
    return rest.partition("/")[2] if url else path


def of_pool(found: list[Use], pool: str, directory: str, volumes: dict[str, str], local: bool) -> list[Use]:
    """The uses of any volume of a pool: by name, by path below its directory, or by a volume's own path."""
    below = (os.path.realpath(directory) if local else directory).rstrip("/") + "/" if directory else ""
    hits = [use for use in found if use.pool == pool or (below and use.path.startswith(below))]
    for name, path in volumes.items():
        hits += [use for use in of_volume(found, pool, name, path, local) if use not in hits]
    return hits


def names(found: list[Use]) -> str:
    """The domains for an error, each once."""
    running = {use.domain for use in found if use.running}
    every = sorted({use.domain for use in found})
    return ", ".join(f"{name!r} ({'running' if name in running else 'defined'})" for name in every)


def image_locked(path: str) -> bool:
    """Whether some QEMU of any host has a file open, as its locks tell; False for what is not there."""
    return locked_in(path, [(first, 64) for first in QEMU_LOCK_BYTES])


def image_written(path: str) -> bool:
    """The same of a QEMU that may write it; who has it as a backing store only reads it."""
    return locked_in(path, [(WRITER, 1)])


def locked_in(path: str, ranges: list[tuple[int, int]]) -> bool:
    """Whether any process has a lock in one of the ranges (first byte, length) of a file."""
    try:
        descriptor = images.open_image(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        raise StorageError(
            thing=path,
            code="guard_unavailable",
            reason="it can't be told whether a QEMU process has it open: neither root nor its owner may read it here",
            way_out="let the server give root or the owner read permission",
        ) from None
    except OSError:
        return False
    try:
        for first, length in ranges:
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
            try:
                answer = fcntl.fcntl(descriptor, F_OFD_GETLK, wanted)
            except OSError:  # a file system without locks tells nothing
                return False
            if struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK:
                return True
        return False
    finally:
        os.close(descriptor)


def backed(connection: Any) -> list[tuple[str, str]]:
    """What find_backed() finds; the removal of many volumes asks once."""
    return connection.once("backed", lambda: find_backed(connection))


def find_backed(connection: Any) -> list[tuple[str, str]]:
    """Every volume of an active pool that stands on a backing store, as pool/name, and the path of that store.

    libvirt tells what it saw when it last looked; a file that was made or rebased since is known by its header. What
    has a hidden name is no volume, or not yet.
    """
    from .files import LEFTOVER  # of no use to who only reads

    found = []
    for pool in connection.pools():
        require_sight(connection, pool)
        for name, volume in connection.volumes(pool).items():
            backing = None if name.startswith(LEFTOVER) else backing_of(connection, f"{pool}/{name}", volume)
            if backing:
                found.append((f"{pool}/{name}", resolved(connection, backing)))
        folder = folder_of(connection, pool)
        named = by_header(connection, folder) if folder else []
        found += [(f"{pool}/{name}", base) for name, base in named if not name.startswith(LEFTOVER)]
    return list(dict.fromkeys(found))


def folder_of(connection: Any, pool: str) -> str:
    """Where the directory of an active pool leads whose volumes are files of this host; else empty."""
    from .backends import registry  # loads the backends that are asked for

    if not connection.active(pool) or not mounts_here(connection):
        return ""
    tree = xmltree.parse(connection.pool(pool).XMLDesc(0))
    backend = registry.backend(tree.get("type"))
    target = xmltree.get(tree, "target/path") if backend is not None and backend.makes_directory else None
    return os.path.realpath(target) if target else ""


def by_header(connection: Any, folder: str) -> list[tuple[str, str]]:
    """The files of a directory whose header names a base, and where that lies; two pools may be one directory."""
    return connection.once(f"bases named in {folder}", lambda: find_by_header(connection, folder))


def find_by_header(connection: Any, folder: str) -> list[tuple[str, str]]:
    found = []
    for name in plain_files(connection, folder):
        image = images.probe(os.path.join(folder, name))
        if image is not None and image.backing:
            found.append((name, resolved(connection, base_of(folder, image.backing))))
    return found


def plain_files(connection: Any, folder: str) -> list[str]:
    """The names of the plain files of a directory, in order; listed once until something is forgotten."""
    return connection.once(f"files in {folder}", lambda: list_files(folder))


def list_files(folder: str) -> list[str]:
    """As the directory's owner where a server takes root for nobody; one that nobody here may list blinds a guard."""
    try:
        try:
            return names_in(folder)
        except PermissionError:
            if os.geteuid() != 0:
                raise
            status = os.stat(folder)
            with images.acting_as(status.st_uid, status.st_gid):
                return names_in(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise StorageError(
            thing=folder,
            code="guard_unavailable",
            reason="it can't be told what its files stand on: neither root nor its owner may list it here",
            way_out="run this as root, or let the server give its owner the right to list it",
        ) from None


def names_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))


def require_sight(connection: Any, pool: str) -> None:
    """What stands on what can't be told of a share whose server is gone."""
    try:
        require_server(f"pool {pool!r}", connection, pool)
    except StorageError as error:
        raise StorageError(
            thing=error.thing,
            code="guard_unavailable",
            reason=f"it can't be told what its volumes stand on: {error.reason}",
            way_out=error.way_out,
        ) from None


def backing_of(connection: Any, name: str, volume: Any) -> str | None:
    """The path of a volume's backing store; what can't be read may stand on anything."""
    try:
        return xmltree.get(xmltree.parse(volume_xml(volume)), "backingStore/path")
    except libvirt.libvirtError as error:
        if number(error) == libvirt.VIR_ERR_NO_STORAGE_VOL:  # still listed, but gone
            return None
        raise StorageError(
            thing=f"volume {name!r}",
            code="guard_unavailable",
            reason=f"it can't be told what it stands on ({words(error)})",
            way_out="mend or remove it, then run this again",
        ) from None


def overlays(connection: Any, path: str) -> list[str]:
    """The volumes of all active pools whose backing store is the path, as pool/name, in order."""
    real = os.path.realpath(path) if connection.local else path
    return sorted({name for name, base in backed(connection) if base == real})
