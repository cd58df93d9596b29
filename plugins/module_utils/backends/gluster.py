# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""gluster: volumes are files of a Gluster volume, which QEMU itself speaks to; nothing is mounted on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..backend import LIBVIRT, Backend, Native, Refused
from ..fields import At
from .shared import SOURCE_NAME, hosts, servers

GLUSTER_PORT = 24007
BY_MOUNT = Refused(
    "libvirt only lists and deletes what is there", "use a netfs pool of the same volume, with source_format: glusterfs"
)


def start_hint(words: str, options: dict[str, Any]) -> str:
    """libgfapi tells only that it did not get through."""
    if words != "timeout" and "failed to connect to gluster" not in words:
        return ""
    return (
        f"the server answers, but its volume {options.get('source_name')!r} can't be used: "
        f"compare with 'gluster volume status {options.get('source_name')}' there"
    )


@contextlib.contextmanager
def node(thing: str, connection: Any, options: dict[str, Any], path: str) -> Iterator[Any]:
    """A file of the volume (its path is gluster://host/volume/file) as QEMU reaches it; see BlockdevOptionsGluster."""
    from ..nodes import Node  # of no use to who moves no data

    server = [
        {"type": "inet", "host": one["name"].strip("[]"), "port": str(one.get("port", GLUSTER_PORT))}
        for one in options["hosts"]
    ]
    file = path.partition("://")[2].partition("/")[2].partition("/")[2]
    yield Node({"driver": "gluster", "volume": options["source_name"], "path": file, "server": server})


BACKEND = Backend(
    type="gluster",
    fields={
        "source_name": SOURCE_NAME,
        "hosts": hosts(),
        "source_path": At("source/dir/@path", "path"),
    },
    operations={
        "create": BY_MOUNT,
        "clone": BY_MOUNT,
        "resize": BY_MOUNT,
        "delete": LIBVIRT,
        "upload": Native("qemu-img convert"),
        "download": Native("qemu-img convert"),
        "wipe": BY_MOUNT,
        "convert": BY_MOUNT,
        "snapshot": BY_MOUNT,
        "flatten": BY_MOUNT,
        "migrate": BY_MOUNT,
        "info": LIBVIRT,
    },
    conflicts_by=("hosts", "source_name", "source_path"),
    servers=servers(GLUSTER_PORT),
    start_hint=start_hint,
    network_node=node,
)
