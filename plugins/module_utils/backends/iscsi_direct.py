# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iscsi-direct: volumes are LUNs of an iSCSI target, which QEMU itself speaks to; nothing is attached to the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..backend import LIBVIRT, Backend, Native, rounded
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, Iqn, auth, chap_hint, hosts, secret_value, servers

ISCSI_PORT = 3260


def start_hint(words: str, options: dict[str, Any]) -> str:
    """What the target's status numbers mean."""
    if "Authentication failure" in words:
        return chap_hint(options)
    if "Target not found" in words:
        return f"there is no target {options.get('target_iqn')} at this address: compare with the target's own list"
    return ""


@contextlib.contextmanager
def node(thing: str, connection: Any, options: dict[str, Any], path: str) -> Iterator[Any]:
    """A LUN (its path ends with its number) as QEMU reaches it; see BlockdevOptionsIscsi."""
    from ..nodes import Node, password  # of no use to who moves no data

    host = options["hosts"][0]
    protocol: dict[str, Any] = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{host['name']}:{host.get('port', ISCSI_PORT)}",
        "target": options["target_iqn"],
        "lun": int(path.rpartition("-")[2]),
        "initiator-name": options["initiator_iqn"],
    }
    login = options.get("auth")
    if not login:
        yield Node(protocol)
        return
    with password("chap", secret_value(thing, connection, login)) as secret:
        yield Node({**protocol, "user": login["username"], "password-secret": secret.name}, logins=(secret,))


def identity(thing: str, connection: Any, options: dict[str, Any], paths: list[str]) -> str:
    """The target's name, which is one in the world (RFC 7143 4.2.7.1): there is no device to ask for more."""
    return f"iSCSI target {options['target_iqn']}"


BACKEND = Backend(
    type="iscsi-direct",
    fields={
        "hosts": hosts(at_most=1, usual_port=ISCSI_PORT),
        "target_iqn": Iqn("source/device/@path", required=True),
        "initiator_iqn": Iqn("source/initiator/iqn/@name", required=True),
        "auth": auth("chap"),
    },
    operations={
        **LUN_OPERATIONS,
        "upload": Native("qemu-img convert"),
        "download": Native("qemu-img convert"),
        "wipe": LIBVIRT,
    },
    conflicts_by=("hosts", "target_iqn", "initiator_iqn"),
    delete_data=KEPT_BY_THE_ARRAY,
    servers=servers(ISCSI_PORT),
    granule=rounded(1),
    start_hint=start_hint,
    network_node=node,
    wiped_by=("zero",),
    relogin="refresh",
    identity=identity,
)
