# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host should have after a layout, worked out without the collection; and what it has, read without it."""

from __future__ import annotations

import copy
import fcntl
import os
import re
import shutil
import struct
from base64 import b64decode
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

GETFLAGS, SETFLAGS, IMMUTABLE = 0x80086601, 0x40086602, 0x10  # linux/fs.h
USAGES = {"volume": 1, "ceph": 2, "iscsi": 3, "tls": 4, "vtpm": 5}  # virSecretUsageType
PREFIXES = "kmgtpe"


def bytes_of(size: str | int) -> int:
    """A size by the table of libvirt's documentation: XB counts in thousands, X and XiB in 1024."""
    number, letter, rest = re.fullmatch(r"([0-9.]+)([A-Za-z]?)(iB|B|)", str(size)).groups()  # type: ignore[union-attr]
    base = 1000 if rest == "B" else 1024
    return int(float(number) * base ** (PREFIXES.index(letter.lower()) + 1 if letter else 0))


def rounded(size: int, granule: int) -> int:
    return -(-size // granule) * granule


@dataclass(frozen=True)
class Secret:
    description: str | None
    ephemeral: bool
    private: bool
    value: bytes | None  # of a private secret nobody can tell


@dataclass(frozen=True)
class Pool:
    path: str
    active: bool
    persistent: bool
    autostart: bool


@dataclass(frozen=True)
class File:
    format: str
    capacity: int
    backing: str | None
    mode: int
    immutable: bool
    cluster: int = 0  # these are of qcow2 alone
    compat: str = ""
    lazy: bool = False


@dataclass(frozen=True)
class Folder:
    mode: int
    owner: int
    group: int


@dataclass
class Host:
    """Secrets by usage and name, pools by name; directories and the files in them by path."""

    secrets: dict[tuple[str, str], Secret] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)

    def unlike(self, other: Host) -> dict[str, Any]:
        """What one host has otherwise than the other, as pairs."""
        found = {}
        for name in ("secrets", "pools", "folders", "files"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key in sorted({*mine, *theirs}):
                if mine.get(key) != theirs.get(key):
                    found[f"{name} {key}"] = (mine.get(key), theirs.get(key))
        return found

    def after(self, layout: dict[str, Any]) -> Host:
        """The host that the layout asks for."""
        host = copy.deepcopy(self)
        for item in layout["secrets"]:
            host.secret(item)
        for item in layout["pools"]:
            if item.get("state") != "absent":
                host.pool(item)
        # a base before its overlays, whatever the order of the declaration
        waiting = [item for item in layout["volumes"] if item.get("state") != "absent"]
        while waiting:
            names = {(item["pool"], item["name"]) for item in waiting}
            ready = [item for item in waiting if base_of(item) not in names]
            for item in ready:
                host.volume(item)
            waiting = [item for item in waiting if item not in ready]
        for item in layout["volumes"]:
            if item.get("state") == "absent":
                host.files.pop(host.place(item["pool"], item["name"]), None)
        for item in layout["pools"]:
            if item.get("state") == "absent":
                host.remove_pool(item)
        if layout["prune"]:
            host.prune(layout)
        return host

    def secret(self, item: dict[str, Any]) -> None:
        key = item["usage"], item["usage_name"]
        if item.get("state") == "absent":
            self.secrets.pop(key, None)
            return
        old = self.secrets.get(key, Secret(None, False, False, None))
        new = replace(old, **{name: item[name] for name in ("description", "ephemeral", "private") if name in item})
        if "value" in item:
            # a cephx key is always written in base64
            plain = b64decode(item["value"]) if item["usage"] == "ceph" else item["value"].encode()
            new = replace(new, value=plain)
        self.secrets[key] = replace(new, value=None) if new.private else new

    def pool(self, item: dict[str, Any]) -> None:
        name, path = item["name"], os.path.normpath(item["path"])
        old = self.pools.get(name, Pool(path, False, False, False))
        active = item.get("state", "active") == "active"
        persistent = item.get("persistent", True)
        self.pools[name] = Pool(path, active, persistent, item.get("autostart", old.autostart))
        if path in self.folders or active or persistent:
            there = self.folders.get(path, Folder(0o711, 0, 0))  # libvirt makes a directory 0711
            asked = item.get("permissions", {})
            self.folders[path] = Folder(
                int(asked["mode"], 8) if "mode" in asked else there.mode,
                int(asked.get("owner", there.owner)),
                int(asked.get("group", there.group)),
            )

    def place(self, pool: str, name: str) -> str:
        return f"{self.pools[pool].path}/{name}" if pool in self.pools else ""

    def volume(self, item: dict[str, Any]) -> None:
        path = self.place(item["pool"], item["name"])
        base = base_of(item)
        below = self.place(*base) if base else None
        old = self.files.get(path)
        form = old.format if old else item.get("format", "qcow2" if base else "raw")
        if "capacity" in item:
            wanted = rounded(bytes_of(item["capacity"]), 1 if form == "raw" else 512)  # qemu-img counts in sectors
        else:
            wanted = old.capacity if old else rounded(self.files[below].capacity, 512)  # type: ignore[index]
        mode = old.mode if old else 0o600  # libvirt makes a file 0600
        immutable = item.get("immutable", old.immutable if old else False)
        if "mode" in item.get("permissions", {}):
            mode = int(item["permissions"]["mode"], 8)
        elif immutable and not (old and old.immutable):
            mode &= 0o555
        elif old and old.immutable and not immutable:
            mode |= 0o200
        if old is not None:
            self.files[path] = replace(old, capacity=max(wanted, old.capacity), mode=mode, immutable=immutable)
            return
        made = File(form, wanted, below, mode, immutable)
        if form == "qcow2":
            cluster = bytes_of(item.get("cluster_size", "64KiB"))
            lazy = item.get("lazy_refcounts", False)
            made = replace(made, cluster=cluster, compat=item.get("compat", "1.1"), lazy=lazy)
        self.files[path] = made

    def remove_pool(self, item: dict[str, Any]) -> None:
        pool = self.pools.pop(item["name"], None)
        if pool is not None and item.get("delete_data"):
            self.files = {path: one for path, one in self.files.items() if os.path.dirname(path) != pool.path}
            if pool.persistent:
                self.folders.pop(pool.path, None)

    def prune(self, layout: dict[str, Any]) -> None:
        """All that layouts made and this one does not name; data and the secrets of LUKS volumes stay."""
        pools = {item["name"] for item in layout["pools"]}
        secrets = {(item["usage"], item["usage_name"]) for item in layout["secrets"]}
        self.pools = {name: one for name, one in self.pools.items() if name in pools}
        self.secrets = {key: one for key, one in self.secrets.items() if key in secrets or key[0] == "volume"}


def base_of(item: dict[str, Any]) -> tuple[str, str] | None:
    backing = item.get("backing")
    return (backing.get("pool", item["pool"]), backing["volume"]) if backing else None


# the host as it is


def read(conn: libvirt.virConnect, root: Path) -> Host:
    host = Host()
    for secret in conn.listAllSecrets(0):
        tree = ElementTree.fromstring(secret.XMLDesc(0))
        usage = next(name for name, number in USAGES.items() if number == secret.usageType())
        private = tree.get("private") == "yes"
        host.secrets[usage, secret.usageID()] = Secret(
            tree.findtext("description"), tree.get("ephemeral") == "yes", private, None if private else value_of(secret)
        )
    for pool in conn.listAllStoragePools(0):
        path = ElementTree.fromstring(pool.XMLDesc(0)).findtext("target/path") or ""
        persistent = bool(pool.isPersistent())
        host.pools[pool.name()] = Pool(
            path, bool(pool.isActive()), persistent, bool(pool.autostart()) if persistent else False
        )
    for folder in (path for path in root.iterdir() if path.is_dir()):
        status = folder.stat()
        host.folders[str(folder)] = Folder(status.st_mode & 0o7777, status.st_uid, status.st_gid)
        for path in folder.iterdir():
            host.files[str(path)] = read_file(path)
    return host


def value_of(secret: libvirt.virSecret) -> bytes | None:
    try:
        return secret.value(0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
        return None


def read_file(path: Path) -> File:
    """A file by its own first bytes, as docs/interop/qcow2.txt has them."""
    with path.open("rb") as file:
        head = file.read(65536)
    mode, size = path.stat().st_mode & 0o7777, path.stat().st_size
    if head[:4] != b"QFI\xfb":
        return File("raw", size, None, mode, bool(flags_of(path) & IMMUTABLE))
    version, offset, length, cluster_bits, capacity = struct.unpack_from(">IQIIQ", head, 4)
    compatible_features = struct.unpack_from(">Q", head, 80)[0] if version == 3 else 0
    backing = head[offset : offset + length].decode() if offset else None
    compat = {2: "0.10", 3: "1.1"}[version]
    immutable, lazy = bool(flags_of(path) & IMMUTABLE), bool(compatible_features & 1)
    return File("qcow2", capacity, backing, mode, immutable, 1 << cluster_bits, compat, lazy)


def flags_of(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, GETFLAGS, struct.pack("i", 0)))[0])
    finally:
        os.close(descriptor)


def release(path: Path) -> None:
    """Take the immutable attribute away, so that the file can go."""
    flags = flags_of(path)
    if flags & IMMUTABLE:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.ioctl(descriptor, SETFLAGS, struct.pack("i", flags & ~IMMUTABLE))
        os.close(descriptor)


def wipe(conn: libvirt.virConnect, root: Path) -> None:
    """Nothing is left of what a layout made."""
    for pool in conn.listAllStoragePools(0):
        persistent = pool.isPersistent()
        if pool.isActive():
            pool.destroy()
        if persistent:
            pool.undefine()
    for secret in conn.listAllSecrets(0):
        secret.undefine()
    for path in root.glob("*/*"):
        if path.is_file() and not path.is_symlink():
            release(path)
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
