# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""vstorage: volumes are files of a Virtuozzo Storage cluster, which libvirt mounts for the pool."""

from __future__ import annotations

from ..backend import Backend
from ..fields import At
from ..identity import of_directory
from .shared import FILE_FORMATS, FILE_OPERATIONS, PERMISSIONS, SOURCE_NAME

BACKEND = Backend(
    type="vstorage",
    fields={
        "path": At("target/path", "path", required=True),
        "source_name": SOURCE_NAME,
        "permissions": PERMISSIONS,
    },
    operations=FILE_OPERATIONS,
    volume_formats=FILE_FORMATS,
    default_format="raw",
    build_choices=("if_blank", "never"),
    build_flags={"if_blank": 0},
    makes_directory=True,
    mounts=True,
    conflicts_by=("source_name",),
    capacity_optional=True,
    identity=of_directory,
)
