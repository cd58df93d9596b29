# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""mpath: volumes are the multipath devices of the host, all in the one pool of this type."""

from __future__ import annotations

from ..backend import Backend, rounded
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, PERMISSIONS

BACKEND = Backend(
    type="mpath",
    fields={"permissions": PERMISSIONS},
    operations=LUN_OPERATIONS,
    delete_data=KEPT_BY_THE_ARRAY,
    granule=rounded(1),
    constants={"target/path": "/dev/mapper"},  # the only path there is
    only_one=True,
)
