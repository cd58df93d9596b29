# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mpath: volumes are the multipath devices of the host, all in the one pool of this type."""

from __future__ import annotations

import glob
from typing import Any

from .. import block
from ..backend import Backend, rounded
from ..identity import of_devices
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, PERMISSIONS


def preflight(thing: str, options: dict[str, Any], seconds: float) -> list[str]:
    """A pool without a single map looks like one that is well."""
    if any(block.read(uuid).startswith("mpath-") for uuid in glob.glob(f"{block.SYS}/class/block/dm-*/dm/uuid")):
        return []
    return ["this host has no multipath device, so the pool is empty: see 'multipath -ll' and whether multipathd runs"]


BACKEND = Backend(
    type="mpath",
    fields={"permissions": PERMISSIONS},
    operations=LUN_OPERATIONS,
    delete_data=KEPT_BY_THE_ARRAY,
    preflight=preflight,
    granule=rounded(1),
    constants={"target/path": "/dev/mapper"},  # the only path there is
    only_one=True,
    identity=of_devices,
)
