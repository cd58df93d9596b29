# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""netfs: volumes are files on an NFS, CIFS or Gluster share, which libvirt mounts for the pool."""

from __future__ import annotations

from typing import Any

from ..backend import Backend
from ..errors import bad_value
from ..fields import At, same_path
from ..identity import of_directory
from .shared import FILE_FORMATS, FILE_OPERATIONS, MOUNT_OPTIONS, PERMISSIONS, VENDOR, hosts

PORTS = {"nfs": 2049, "auto": 2049, "cifs": 445, "glusterfs": 24007}
PACKAGES = {"nfs": "nfs-common or nfs-utils", "auto": "nfs-common or nfs-utils", "cifs": "cifs-utils"}


def servers(options: dict[str, Any]) -> list[tuple[str, int]]:
    """The server at the port of its protocol."""
    port = PORTS[options.get("source_format", "auto")]
    return [(host["name"], host.get("port", port)) for host in options.get("hosts", [])]


def option_error(options: dict[str, Any], builds: bool) -> str:
    """What libvirt's schema refuses without saying why."""
    form = options.get("source_format", "auto")
    if form in ("auto", "nfs"):
        if not options["source_path"].startswith("/"):
            return f"the directory of an NFS server is an absolute path, and source_path is {options['source_path']!r}"
        if "," in options.get("protocol_version", ""):
            return "protocol_version is one version of NFS, such as '4'; mount_options is for everything else"
    elif "protocol_version" in options:
        return f"protocol_version is for NFS, and source_format is {form}"
    return ""


def start_hint(words: str, options: dict[str, Any]) -> str:
    """What mount and its helpers mean."""
    form = options.get("source_format", "auto")
    server = (options.get("hosts") or [{"name": "the server"}])[0]["name"]
    share = f"{options.get('source_path')} of {server}"
    version = options.get("protocol_version")
    if "requested NFS version or transport protocol is not supported" in words:
        spoken = f"NFS {version}" if version else "NFS as asked for in mount_options"
        return f"{server} answers, but does not speak {spoken}: leave protocol_version out, or give another one"
    if "incorrect mount option" in words:
        given = [*([f"protocol_version {version}"] if version else []), *options.get("mount_options", [])]
        return f"mount.nfs knows no such option or version as {', '.join(given) or 'was given'}: look at mount_options"
    if form == "cifs" and "Permission denied" in words:
        return (
            f"libvirt mounts CIFS as a guest, and {server} lets no guest use {options.get('source_path')}: mount it on "
            "the host with a credentials file, and make a pool of the mount point with pool_dir"
        )
    if "access denied by server" in words or "Permission denied" in words:
        return f"{server} answers, but does not let this host mount {share}: look at its exports and permissions"
    if "need a /sbin/mount." in words or "unknown filesystem type" in words:
        package = PACKAGES.get(form, "glusterfs-client or glusterfs-fuse")
        return f"this host has no helper that mounts {form}: install {package}"
    if "Mounting glusterfs" in words:
        return f"{server} answers, but {share} can't be mounted: compare with 'gluster volume status' there"
    if "Connection refused" in words or "Connection timed out" in words or words == "timeout":
        return f"{server} answers, but does not let {share} be mounted by {form}: is it exported and running?"
    if "No such file or directory" in words or "does not exist" in words:
        return f"there is no {share}" + (", or not for this host: look at its exports" if form != "cifs" else "")
    return ""


def way_out(words: str, options: dict[str, Any]) -> str:
    """libvirt makes and removes the files of a share as their owner, and the server may take root for nobody."""
    server = (options.get("hosts") or [{"name": "the server"}])[0]["name"]
    if "Read-only file system" in words:
        return f"let {server} export {options.get('source_path')} for writing, and look at mount_options"
    # libvirt trips over the file that it could make as root, but not give its owner
    own_trace = "Failed to create file" in words and "File exists" in words
    if own_trace or "Permission denied" in words or "Operation not permitted" in words:
        return (
            f"libvirt works on a share as root or as the owner of the file: let that user write in "
            f"{options.get('source_path')} of {server}, and where it takes root for nobody (root_squash) give volumes "
            "permissions with the owner that may"
        )
    return ""


class SharePath(At):
    """A path of an NFS server is absolute; the share of CIFS and the volume of Gluster may go without the slash."""

    def clean(self, thing: str, option: str, value: Any) -> str:
        value = super().clean(thing, option, value)
        if ".." in value.split("/"):
            raise bad_value(thing, option, value, "a path without '..'")
        return value


BACKEND = Backend(
    type="netfs",
    fields={
        "path": At("target/path", "path", required=True),
        "hosts": hosts(at_most=1),
        "source_path": SharePath("source/dir/@path", required=True, same=same_path),
        "source_format": At("source/format/@type", choices=tuple(PORTS)),
        "protocol_version": At("source/protocol/@ver"),
        **VENDOR,
        "permissions": PERMISSIONS,
        "mount_options": MOUNT_OPTIONS,
    },
    operations=FILE_OPERATIONS,
    volume_formats=FILE_FORMATS,
    default_format="raw",
    build_choices=("if_blank", "never"),
    build_flags={"if_blank": 0},
    makes_directory=True,
    mounts=True,
    conflicts_by=("hosts", "source_path"),
    servers=servers,
    option_error=option_error,
    start_hint=start_hint,
    way_out=way_out,
    capacity_optional=True,
    identity=of_directory,
)
