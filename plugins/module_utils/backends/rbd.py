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
from .shared import ONLY_RAW, SOURCE_NAME, auth, hosts, secret_value, servers

MONITOR_PORT = 6789
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
    with password("cephx", key_of(thing, connection, login)) as secret:
        yield Node({**protocol, "user": login["username"], "key-secret": secret.name}, logins=(secret,))


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
    pool, snapshot = options["source_name"], f"{options['source_name']}/{source}@{hidden}"
    rbd(connection, options, source, "snap", "create", "--no-progress", snapshot)
    try:
        rbd(connection, options, source, "clone", "--rbd-default-clone-format", "2", snapshot, f"{pool}/{hidden}")
    finally:
        rbd(connection, options, source, "snap", "rm", "--no-progress", snapshot)
    return f"{pool}/{hidden}"


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
        "flatten": Native("rbd flatten"),
        "migrate": Native("qemu-img convert"),
        "info": LIBVIRT,
    },
    volume_formats=("raw",),
    default_format="raw",
    conflicts_by=("source_name", "hosts"),
    servers=servers(MONITOR_PORT),
    granule=rounded(1),
    start_hint=start_hint,
    protection=Protection(is_protected, protect),
    network_node=node,
    watchers=watchers,
    landing=Landing("rbd create and rename", make, publish, discard, images, grow),
    linked=linked,
)
