# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dir: volumes are files of a directory, on whatever file system it lies."""

from __future__ import annotations

from ..backend import Backend
from ..fields import At
from ..identity import of_directory
from .shared import COW, FILE_FORMATS, FILE_OPERATIONS, PERMISSIONS, VENDOR

BACKEND = Backend(
    type="dir",
    fields={
        "path": At("target/path", "path", required=True),
        "permissions": PERMISSIONS,
        "cow": COW,
        **VENDOR,
    },
    operations=FILE_OPERATIONS,
    volume_formats=FILE_FORMATS,
    default_format="raw",
    build_choices=("if_blank", "never"),
    build_flags={"if_blank": 0},
    makes_directory=True,
    capacity_optional=True,
    identity=of_directory,
)
