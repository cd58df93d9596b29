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

from ..backend import LIBVIRT, Backend, Native, Protection, rounded
from ..commands import Finished, run
from ..errors import StorageError
from ..fields import At, Pairs
from .shared import SOURCE_NAME, auth, hosts, servers

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
    name = login.get("secret_usage") or login.get("secret_uuid")
    for secret in connection.secrets():
        if name in (secret.usageID(), secret.UUIDString()):
            try:
                return base64.b64encode(secret.value(0))
            except Exception:  # libvirt keeps the value of a private secret to itself
                break
    raise StorageError(
        thing=thing,
        code="no_secret",
        reason=f"the rbd command needs the key of secret {name!r}, which libvirt does not give",
        way_out="leave immutable out, or make the secret without private",
    )


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
    },
    volume_formats=("raw",),
    default_format="raw",
    conflicts_by=("source_name", "hosts"),
    servers=servers(MONITOR_PORT),
    granule=rounded(1),
    start_hint=start_hint,
    protection=Protection(is_protected, protect),
)
