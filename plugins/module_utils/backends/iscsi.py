# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iscsi: volumes are the LUNs of an iSCSI target, which libvirt attaches to the host."""

from __future__ import annotations

from typing import Any

from ..backend import Backend, rounded
from ..fields import At
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, PERMISSIONS, VENDOR, Iqn, auth, chap_hint, hosts, servers

ISCSI_PORT = 3260


def start_hint(words: str, options: dict[str, Any]) -> str:
    """What iscsiadm means."""
    if "authorization failure" in words or "failed to authenticate" in words or "exit status 24" in words:
        return chap_hint(options)
    if "No records found" in words or "exit status 21" in words:
        return f"there is no target {options.get('target_iqn')} at this address: compare with the target's own list"
    return ""


BACKEND = Backend(
    type="iscsi",
    fields={
        "path": At("target/path", "path"),
        "hosts": hosts(at_most=1),
        "target_iqn": Iqn("source/device/@path", required=True),
        "initiator_iqn": Iqn("source/initiator/iqn/@name"),
        "auth": auth("chap"),
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations=LUN_OPERATIONS,
    conflicts_by=("target_iqn", "initiator_iqn"),
    delete_data=KEPT_BY_THE_ARRAY,
    servers=servers(ISCSI_PORT),
    granule=rounded(1),
    start_hint=start_hint,
    constants={"target/path": "/dev/disk/by-path"},
)
