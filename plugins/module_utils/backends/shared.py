# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What several backends have in common: fields, operations, and how devices and commands of this host are used."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import Any

from ..backend import LIBVIRT, OPERATIONS, Native, Refused
from ..commands import Finished, run
from ..errors import StepFailed, StorageError, bad_value
from ..fields import At, Each, Group, same_devices, same_set

PERMISSIONS = Group(
    {
        "mode": At("target/permissions/mode", "mode"),
        "owner": At("target/permissions/owner"),
        "group": At("target/permissions/group"),
        "label": At("target/permissions/label"),
    }
)

# Formats of which libvirt's storage driver can make a file.
FILE_FORMATS = ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc")

SOURCE_NAME = At("source/name", required=True)
COW = At("features/cow/@state", "yes_no")
VENDOR = {"vendor": At("source/vendor/@name"), "product": At("source/product/@name")}
DEVICES = Each("source/device", {"": At("@path", "path")}, same=same_devices)
MOUNT_OPTIONS = Each("fs:mount_opts/fs:option", {"": At("@name")}, at_least=0)

ONLY_RAW = Refused("its volumes are raw", "move it into a pool of files, with the other format (volume_migrate)")
STANDS_ALONE = Refused("none of its volumes stands on another one", "nothing has to be done")

# Volumes that are files of a host.
FILE_OPERATIONS: dict[str, Any] = {
    **dict.fromkeys(OPERATIONS, LIBVIRT),
    "clone": Native("qemu-img convert, or a reflink"),
    "upload": Native("a copy in process, or qemu-img convert"),
    "download": Native("a copy in process, or qemu-img convert"),
    "resize": Native("truncate, or qemu-img resize"),
    "wipe": Native("zeroes written in process, scrub or fallocate"),
    "convert": Native("qemu-img convert"),
    "snapshot": Native("qemu-img snapshot, an overlay or a reflink"),
    "flatten": Native("qemu-img convert, or a block job of the running guest"),
    "migrate": Native("qemu-img convert, a rename, or a block copy of the running guest"),
}

# Volumes that an array or another machine gives out: libvirt lists them and no more.
ON_THE_ARRAY = Refused("its volumes are LUNs of the array", "do it on the array, then refresh the pool")
LUN_OPERATIONS = {
    "create": ON_THE_ARRAY,
    "clone": ON_THE_ARRAY,
    "resize": ON_THE_ARRAY,
    "delete": ON_THE_ARRAY,
    "upload": Native("a copy in process, or qemu-img convert"),
    "download": Native("a copy in process, or qemu-img convert"),
    "wipe": Native("zeroes written in process, scrub or blkdiscard"),
    "convert": ONLY_RAW,
    "snapshot": ON_THE_ARRAY,
    "flatten": STANDS_ALONE,
    "migrate": Native("qemu-img convert, away from it with keep_source: true"),
    "info": LIBVIRT,
}
KEPT_BY_THE_ARRAY = Refused(
    "delete_data can't be carried out, its volumes are LUNs of the array",
    "delete them there, and leave delete_data out",
)


class Iqn(At):
    """The name of an iSCSI target or initiator, as libvirt's schema takes it."""

    PATTERN = re.compile(r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-zA-Z0-9.-]+(:.+)?", re.ASCII)

    def clean(self, thing: str, option: str, value: Any) -> str:
        value = super().clean(thing, option, value)
        if not self.PATTERN.fullmatch(value):
            raise bad_value(thing, option, value, "an IQN such as iqn.2026-01.com.example:disks")
        return value


def hosts(at_most: int | None = None, usual_port: int | None = None) -> Each:
    """The servers of a pool; at_most is how many of them libvirt really uses.

    usual_port is one that libvirt itself writes down for a server without one, when the pool starts.
    """
    columns = {"name": At("@name", "host", required=True), "port": At("@port", "port")}

    def same(have: Any, want: Any) -> bool:
        one, other = ([{"port": usual_port, **host} for host in some] for some in (have, want))
        return same_set(one, other)

    return Each("source/host", columns, required=True, at_most=at_most, same=same)


def auth(kind: str) -> Group:
    """A login whose password is a libvirt secret; kind is chap or ceph."""
    usage, uuid = "source/auth/secret/@usage", "source/auth/secret/@uuid"
    return Group(
        {
            "username": At("source/auth/@username", required=True),
            "secret_usage": At(usage, instead_of=(uuid,)),
            "secret_uuid": At(uuid, instead_of=(usage,)),
        },
        constants={"source/auth/@type": kind},
        mutually_exclusive=(("secret_usage", "secret_uuid"),),
        required_one_of=(("secret_usage", "secret_uuid"),),
    )


def chap_hint(options: dict[str, Any]) -> str:
    """A login that the target refused."""
    target = options.get("target_iqn")
    if not options.get("auth"):
        return f"target {target} wants a CHAP login: give auth with a secret that holds its password"
    user = options["auth"].get("username")
    return f"target {target} refuses the CHAP login of {user!r}: compare the secret's value with the target's password"


def servers(default_port: int):
    """The addresses that must answer before a start: the pool's hosts at their own or the usual port."""
    return lambda options: [(host["name"], host.get("port", default_port)) for host in options.get("hosts", [])]


def secret_value(thing: str, connection: Any, login: dict[str, Any]) -> bytes:
    """The password of a pool's login, as libvirt keeps it."""
    name = login.get("secret_usage") or login.get("secret_uuid")
    for secret in connection.secrets():
        if name in (secret.usageID(), secret.UUIDString()):
            try:
                return secret.value(0)
            except Exception:  # libvirt keeps the value of a private secret to itself
                break
    raise StorageError(
        thing=thing,
        code="no_secret",
        reason=f"it takes the value of secret {name!r}, which libvirt does not give",
        way_out="make the secret without private, or do without what needs its value",
    )


def resize_by(connection: Any, volume: Any, *argv: str) -> None:
    """Grow a volume by its backend's own command, which only this host's can be."""
    thing = f"volume {volume.storagePoolLookupByVolume().name() + '/' + volume.name()!r}"
    if not connection.local:
        raise StorageError(
            thing=thing,
            code="remote_connection",
            reason=f"{argv[0]} does this, and it has to run on the host of the volume",
            way_out="run the task there, with a local uri",
        )
    step_by(thing, "resize", *argv)


def step_by(thing: str, step: str, *argv: str, keep: Sequence[int] = ()) -> None:
    """A step that the backend's own command takes; keep names descriptors for it."""
    finished = run_native(thing, *argv, keep=keep)
    if finished.returncode != 0:
        words = " ".join((finished.stderr or finished.stdout).split())
        raise StepFailed(thing=thing, step=step, code="backend_refused", reason=words)


def run_native(thing: str, *argv: str, keep: Sequence[int] = ()) -> Finished:
    """A command of the backend's own, which this host may not have."""
    try:
        return run(*argv, keep=keep)
    except FileNotFoundError:
        raise StorageError(
            thing=thing,
            code="missing_command",
            reason=f"{argv[0]} does this, and it is not on this host",
            way_out=f"install the package that has {argv[0]}",
        ) from None


def blank_device(device: str) -> bool | None:
    """Whether libblkid knows nothing that stands on a device; None where it can't be asked.

    It reports a partition's own place in its table too, so only what stands on the device counts.
    """
    try:
        if not stat.S_ISBLK(os.stat(device).st_mode) or not os.access(device, os.R_OK):
            return None
        found = run("blkid", "--probe", "--output", "export", "--match-tag", "TYPE", "--match-tag", "PTTYPE", device)
    except OSError:
        return None
    if found.returncode not in (0, 2, 8):  # found, nothing found, more than one found
        return None
    return found.returncode != 8 and not re.search("^(TYPE|PTTYPE)=", found.stdout, re.MULTILINE)


def blank_devices(devices: list[str]) -> bool | None:
    """Whether all of several devices are blank; what can't be told of one can't be told of all."""
    found = [blank_device(device) for device in devices]
    if False in found:
        return False
    return None if None in found or not found else True
