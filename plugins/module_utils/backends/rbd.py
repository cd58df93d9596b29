# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""rbd: volumes are RADOS block device images of a Ceph pool."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from ..backend import LIBVIRT, Backend, Landing, Native, Protection, rounded
from ..commands import Finished, run
from ..errors import StorageError
from ..fields import At, Pairs
from ..guards import DEEPEST_CHAIN
from ..identity import first_line
from ..snapshots import NATIVE, Snapshot, Snapshots, seconds_of
from .shared import ONLY_RAW, SOURCE_NAME, auth, hosts, secret_value, servers

MONITOR_PORT = 6789
OWN = "kvm.storage-"  # begins the names of snapshots that are no user's
SNAPSHOT = "kvm.storage-immutable"  # an image with a protected snapshot can't be removed


def start_hint(words: str, options: dict) -> str:
    """libvirt says 'No such file or directory' when the login failed; the monitors were seen to answer."""
    if words != "timeout" and "failed to connect to the RADOS monitor" not in words:
        return ""
    user = (options.get("auth") or {}).get("username")
    if user is None:
        return "the monitors answer, but not to a client without auth: give auth with a secret that holds a cephx key"
    return (
        f"the monitors answer, but the login of client.{user} did not succeed: "
        f"compare the secret's value with 'ceph auth get-key client.{user}', "
        f"and its caps with pool {options.get('source_name')!r}"
    )


def address(host: dict[str, Any]) -> str:
    return f"{host['name']}:{host.get('port', MONITOR_PORT)}"


def key_of(thing: str, connection: Any, login: dict[str, Any]) -> bytes:
    """The cephx key of a pool's login, as libvirt keeps it."""
    return base64.b64encode(secret_value(thing, connection, login))


@contextlib.contextmanager
def login_arguments(thing: str, connection: Any, options: dict[str, Any]) -> Iterator[tuple[list[str], list[int]]]:
    """The arguments that log in as the pool does; the key is in a file that has no name and ends with the process."""
    arguments = ["--conf", "/dev/null", "--mon_host", ",".join(map(address, options["hosts"]))]
    login = options.get("auth")
    if not login:
        yield arguments, []
        return
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, key_of(thing, connection, login))
        yield [*arguments, "--id", login["username"], "--keyfile", f"/dev/fd/{descriptor}"], [descriptor]
    finally:
        os.close(descriptor)


def rbd(connection: Any, options: dict[str, Any], image: str, *command: str) -> Finished:
    """The rbd command on an image of a pool, with the pool's own login."""
    thing = f"image {options['source_name']}/{image}"
    with login_arguments(thing, connection, options) as (login, descriptors):
        finished = run("rbd", *login, *command, keep=descriptors)
    if finished.returncode != 0:
        raise StorageError(
            thing=thing, code="backend_refused", reason=" ".join(finished.stderr.split()) or "rbd failed"
        )
    return finished


def has_snapshot(connection: Any, options: dict[str, Any], image: str) -> bool | None:
    """Whether our snapshot is protected; None where there is none."""
    listed = rbd(connection, options, image, "snap", "ls", "--format", "json", f"{options['source_name']}/{image}")
    for one in json.loads(listed.stdout):
        if one["name"] == SNAPSHOT:
            return str(one.get("protected")).lower() == "true"
    return None


def is_protected(connection: Any, options: dict[str, Any], image: str) -> bool:
    return has_snapshot(connection, options, image) is True


def protect(connection: Any, options: dict[str, Any], image: str, wanted: bool) -> None:
    """Make and protect the snapshot, or end that; whatever a killed run has left is taken up."""
    place = f"{options['source_name']}/{image}@{SNAPSHOT}"
    protected = has_snapshot(connection, options, image)
    if wanted:
        steps = (["create"] if protected is None else []) + ([] if protected else ["protect"])
    else:
        steps = (["unprotect"] if protected else []) + ([] if protected is None else ["rm"])
    for step in steps:
        rbd(connection, options, image, "snap", step, place)


def shrink(label: str, connection: Any, options: dict[str, Any], image: str, capacity: int) -> None:
    """libvirt takes no flag here, and without one it makes no image smaller."""
    place = f"{options['source_name']}/{image}"
    rbd(connection, options, image, "resize", "--allow-shrink", "--no-progress", "--size", f"{capacity}B", place)


def wipes(thing: str, connection: Any, options: dict[str, Any], image: str) -> None:
    """A snapshot keeps what was there before, and the parent of a clone what they share."""
    if not connection.local:
        raise StorageError(
            thing=thing,
            code="guard_unavailable",
            reason="which snapshots it has is told by the rbd command, on the host of the pool",
            way_out="run the task there, with a local uri",
        )
    place = f"{options['source_name']}/{image}"
    try:
        listed = rbd(connection, options, image, "snap", "ls", "--format", "json", place)
        about = json.loads(rbd(connection, options, image, "info", "--format", "json", place).stdout)
    except FileNotFoundError:
        raise StorageError(
            thing=thing,
            code="guard_unavailable",
            reason="which snapshots it has is told by the rbd command, and that is not on this host",
            way_out="install ceph-common",
        ) from None
    kept = [f"snapshot {one['name']!r}" for one in json.loads(listed.stdout)]
    kept += [f"its parent {about['parent']['image']!r}"] if about.get("parent") else []
    if kept:
        raise StorageError(
            thing=thing,
            code="has_snapshots",
            reason=f"{', '.join(kept[:5])} would keep its data",
            way_out="remove its snapshots with 'rbd snap rm', or let a clone go from its parent with 'rbd flatten'",
        )


# the data path


@contextlib.contextmanager
def node(thing: str, connection: Any, options: dict[str, Any], path: str) -> Iterator[Any]:
    """An image of the pool (its path is pool/image) as QEMU reaches it; see BlockdevOptionsRbd."""
    from ..nodes import Node, password  # of no use to who moves no data

    login = options.get("auth")
    servers = [
        {"host": one["name"].strip("[]"), "port": str(one.get("port", MONITOR_PORT))} for one in options["hosts"]
    ]
    image = path.partition("/")[2]
    protocol: dict[str, Any] = {"driver": "rbd", "pool": options["source_name"], "image": image, "server": servers}
    protocol.update({"conf": "/dev/null", "auth-client-required": ["cephx" if login else "none"]})
    if not login:
        yield Node(protocol)
        return
    with password("cephx", secret_value(thing, connection, login)) as secret:
        yield Node({**protocol, "user": login["username"], "key-secret": secret.name}, logins=(secret,))


def network_source(options: dict[str, Any], path: str) -> dict[str, Any]:
    """An image (its path is pool/image) as the disk of a domain names it."""
    servers = [(one["name"].strip("[]"), one.get("port", MONITOR_PORT)) for one in options["hosts"]]
    found: dict[str, Any] = {"protocol": "rbd", "name": path, "hosts": servers}
    return {**found, "secret_type": "ceph", **options["auth"]} if options.get("auth") else found


def watchers(connection: Any, options: dict[str, Any], image: str) -> list[str]:
    """The clients of any host that have an image open."""
    found = rbd(connection, options, image, "status", "--format", "json", f"{options['source_name']}/{image}")
    return sorted({one["address"].rpartition("/")[0] for one in json.loads(found.stdout).get("watchers", [])})


def make(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> str:
    place = f"{options['source_name']}/{hidden}"
    rbd(connection, options, hidden, "create", "--size", f"{capacity}B", place)
    return place


def publish(label: str, connection: Any, options: dict[str, Any], hidden: str, name: str) -> None:
    pool = options["source_name"]
    rbd(connection, options, name, "rename", f"{pool}/{hidden}", f"{pool}/{name}")


def discard(label: str, connection: Any, options: dict[str, Any], hidden: str) -> None:
    rbd(connection, options, hidden, "rm", "--no-progress", f"{options['source_name']}/{hidden}")


def grow(label: str, connection: Any, options: dict[str, Any], hidden: str, capacity: int) -> None:
    rbd(
        connection,
        options,
        hidden,
        "resize",
        "--no-progress",
        "--size",
        f"{capacity}B",
        f"{options['source_name']}/{hidden}",
    )


def images(connection: Any, options: dict[str, Any]) -> list[str]:
    """The images of the pool."""
    pool = options["source_name"]
    return json.loads(rbd(connection, options, "", "ls", "--format", "json", pool).stdout)


def linked(label: str, connection: Any, options: dict[str, Any], source: str, hidden: str) -> str:
    """A clone of the second format, whose snapshot needs no protection and goes when its last clone goes."""
    pool, place = options["source_name"], f"{options['source_name']}/{source}"
    this_host, this_run = ("-".join([*hidden.split("-")[:parts], ""]) for parts in (2, 3))
    for one in json.loads(rbd(connection, options, source, "snap", "ls", "--format", "json", place).stdout):
        if one["name"].startswith(this_host) and not one["name"].startswith(this_run):  # a killed run left it
            rbd(connection, options, source, "snap", "rm", "--no-progress", f"{place}@{one['name']}")
    snapshot = f"{place}@{hidden}"
    rbd(connection, options, source, "snap", "create", "--no-progress", snapshot)
    try:
        rbd(connection, options, source, "clone", "--rbd-default-clone-format", "2", snapshot, f"{pool}/{hidden}")
    finally:
        rbd(connection, options, source, "snap", "rm", "--no-progress", snapshot)
    return f"{pool}/{hidden}"


def parents(connection: Any, options: dict[str, Any], image: str) -> list[str]:
    """The snapshots that an image stands on, nearest first, as pool/image@snapshot."""
    found: list[str] = []
    place = f"{options['source_name']}/{image}"
    while len(found) < DEEPEST_CHAIN:
        told = json.loads(rbd(connection, options, image, "info", "--format", "json", place).stdout).get("parent")
        if not told:
            break
        space = f"{told['pool_namespace']}/" if told.get("pool_namespace") else ""
        place = f"{told['pool']}/{space}{told['image']}"
        found.append(f"{place}@{told['snapshot']}")
        if told.get("trash"):  # its base was removed, and lives on unseen until its last clone goes
            break
    return found


def flatten(label: str, connection: Any, options: dict[str, Any], image: str) -> None:
    """Copy what an image has of its parent; a guest may have it open, and a killed run can be done again.

    A client that was killed may have noted in the object map what it had not written yet. rbd flatten leaves out what
    stands there, and the image would have zeroes in its place; object-map rebuild lets such notes stand. A map that
    was just enabled counts as invalid, and is not asked.
    """
    place = f"{options['source_name']}/{image}"
    about = json.loads(rbd(connection, options, image, "info", "--format", "json", place).stdout)
    maps = [one for one in ("object-map", "fast-diff") if one in about.get("features", [])]
    for change in ("disable", "enable") if maps else ():
        rbd(connection, options, image, "feature", change, place, *maps)
    rbd(connection, options, image, "flatten", "--no-progress", place)
    if maps:
        rbd(connection, options, image, "object-map", "rebuild", "--no-progress", place)
    if parents(connection, options, image):
        raise StorageError(
            thing=label,
            code="backend_refused",
            reason="it is flat, but its snapshots stand on its parent still",
            way_out="remove its snapshots, or give it the feature deep-flatten before they are made",
        )


# snapshots


def snapshots(connection: Any, options: dict[str, Any], image: str) -> list[Snapshot]:
    """Those of an image, oldest first, without what the collection itself has for other ends."""
    place = f"{options['source_name']}/{image}"
    listed = json.loads(rbd(connection, options, image, "snap", "ls", "--format", "json", place).stdout)
    listed = [one for one in listed if not one["name"].startswith(OWN)]
    cloned = bool(listed) and children(connection, options, image, place) != ()
    return [
        Snapshot(
            one["name"],
            NATIVE,
            seconds_of(one["timestamp"]),
            int(one["size"]),
            children(connection, options, image, f"{place}@{one['name']}") if cloned else (),
            protected=str(one.get("protected")).lower() == "true",
        )
        for one in listed
    ]


def children(connection: Any, options: dict[str, Any], image: str, place: str) -> tuple[str, ...]:
    """The clones of an image or of one of its snapshots."""
    found = json.loads(rbd(connection, options, image, "children", "--format", "json", place).stdout)
    return tuple(f"{one['pool']}/{one['image']}" for one in found)


def snapshot_command(*command: str) -> Any:
    """A command on one snapshot of an image."""

    def run_it(label: str, connection: Any, options: dict[str, Any], image: str, name: str, *dummy: Any) -> None:
        rbd(connection, options, image, "snap", *command, f"{options['source_name']}/{image}@{name}")

    return run_it


def unchanged_since(connection: Any, options: dict[str, Any], image: str, name: str) -> bool:
    """Whether nothing was written since a snapshot."""
    place = f"{options['source_name']}/{image}"
    found = rbd(connection, options, image, "diff", "--from-snap", name, "--format", "json", place)
    return json.loads(found.stdout) == []


def identity(thing: str, connection: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The cluster's fsid and the pool in it."""
    with login_arguments(thing, connection, options) as (login, descriptors):
        fsid = first_line(thing, "install ceph-common", "ceph", *login, "fsid", keep=tuple(descriptors))
    return f"Ceph cluster {fsid}, pool {options['source_name']}"


BACKEND = Backend(
    type="rbd",
    fields={
        "source_name": SOURCE_NAME,
        "hosts": hosts(),
        "auth": auth("ceph"),
        "refresh_allocation": At("refresh/volume/@allocation", choices=("default", "capacity")),
        "config_options": Pairs("rbd:config_opts/rbd:option"),
    },
    operations={
        "create": LIBVIRT,
        "clone": Native("rbd clone"),
        "resize": LIBVIRT,
        "delete": LIBVIRT,
        "upload": Native("qemu-img convert"),
        "download": Native("qemu-img convert"),
        "wipe": LIBVIRT,
        "convert": ONLY_RAW,
        "snapshot": Native("rbd snap"),
        "flatten": Native("rbd flatten", flatten),
        "migrate": Native("qemu-img convert, or rbd rename"),
        "info": LIBVIRT,
    },
    volume_formats=("raw",),
    default_format="raw",
    shrink=Native("rbd resize --allow-shrink", shrink),
    wiped_by=("zero", "trim"),
    wipes=wipes,
    conflicts_by=("source_name", "hosts"),
    servers=servers(MONITOR_PORT),
    granule=rounded(1),
    start_hint=start_hint,
    protection=Protection(is_protected, protect),
    network_node=node,
    network_source=network_source,
    watchers=watchers,
    parents=parents,
    # messages have a CRC (ms_crc_data), and so has what BlueStore keeps (bluestore_csum_type)
    landing=Landing("rbd create and rename", make, publish, discard, images, grow, checked=True),
    linked=linked,
    snapshots=Snapshots(
        "rbd snap",
        snapshots,
        create=snapshot_command("create", "--no-progress"),
        delete=snapshot_command("rm", "--no-progress"),
        revert=snapshot_command("rollback", "--no-progress"),
        same=unchanged_since,
    ),
    relogin="refresh",
    identity=identity,
)
