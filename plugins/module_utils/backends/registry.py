# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every backend by its type. Imports are literal and late: a module ships and loads only what it uses."""

from __future__ import annotations

from typing import Callable

from ..backend import Backend


def load_dir() -> Backend:
    from .dir import BACKEND

    return BACKEND


def load_disk() -> Backend:
    from .disk import BACKEND

    return BACKEND


def load_fs() -> Backend:
    from .fs import BACKEND

    return BACKEND


def load_gluster() -> Backend:
    from .gluster import BACKEND

    return BACKEND


def load_iscsi() -> Backend:
    from .iscsi import BACKEND

    return BACKEND


def load_iscsi_direct() -> Backend:
    from .iscsi_direct import BACKEND

    return BACKEND


def load_logical() -> Backend:
    from .logical import BACKEND

    return BACKEND


def load_mpath() -> Backend:
    from .mpath import BACKEND

    return BACKEND


def load_netfs() -> Backend:
    from .netfs import BACKEND

    return BACKEND


def load_rbd() -> Backend:
    from .rbd import BACKEND

    return BACKEND


def load_scsi() -> Backend:
    from .scsi import BACKEND

    return BACKEND


def load_vstorage() -> Backend:
    from .vstorage import BACKEND

    return BACKEND


def load_zfs() -> Backend:
    from .zfs import BACKEND

    return BACKEND


LOADERS: dict[str, Callable[[], Backend]] = {
    "dir": load_dir,
    "disk": load_disk,
    "fs": load_fs,
    "gluster": load_gluster,
    "iscsi": load_iscsi,
    "iscsi-direct": load_iscsi_direct,
    "logical": load_logical,
    "mpath": load_mpath,
    "netfs": load_netfs,
    "rbd": load_rbd,
    "scsi": load_scsi,
    "vstorage": load_vstorage,
    "zfs": load_zfs,
}


def types() -> list[str]:
    """The pool types that the collection manages."""
    return sorted(LOADERS)


def backend(type_name: str) -> Backend | None:
    """The backend of a type, or None for one that is not known."""
    load = LOADERS.get(type_name)
    return load() if load else None
