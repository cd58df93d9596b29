# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disks of domains that are a volume, and another source or format put into their persistent definitions.

Source: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import chain, xmltree
from .errors import StorageError

SECURE, INACTIVE = 1, 2  # virDomainXMLFlags


@dataclass(frozen=True)
class Place:
    """Where a volume lies, as libvirt lists it, and how a domain names it.

    path is a file's or device's, or the name of a network volume. network is what a disk of type network has:
    protocol, name, hosts [(name, port)] and, with a login, username, secret_type and secret_usage or secret_uuid.
    """

    pool: str
    volume: str
    path: str
    network: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The type of a disk that has it."""
        if self.network:
            return "network"
        return "block" if self.path.startswith("/dev/") else "file"


def place(volume: Any) -> Place:
    """The place of a Volume that was read."""
    path = volume.before["path"]
    network: dict[str, Any] = {}
    if not path.startswith("/"):
        if volume.backend.network_source is None:
            raise StorageError(
                thing=volume.label,
                code="unsupported",
                reason=f"no domain can be given a volume of a {volume.backend.type} pool here",
                way_out="use update_domains: false, and change the domain yourself",
            )
        network = volume.backend.network_source(volume.pool_options(), path)
    return Place(volume.pool_name, volume.volume_name, path, network)


def disks(tree: Any, pool: str, volume: str, path: str, local: bool) -> tuple[list[Any], bool]:
    """The disk elements of a domain that are a volume, and whether the domain names it elsewhere too.

    Elsewhere is what no new source of a disk would change: a member of a chain, a kernel, a copy that is under way.
    """
    found = chain.of_volume(chain.uses_in(tree, "", False, local), pool, volume, path, local)
    targets = {use.target for use in found if use.level == 0 and use.target}
    mine = [one for one in tree.iterfind("devices/disk") if xmltree.get(one, "target/@dev") in targets]
    return mine, any(use.level != 0 or not use.target for use in found)


def put_format(disk: Any, form: str) -> None:
    """Let a disk be read as of another format."""
    xmltree.put(disk, "driver/@type", form)


def put_source(disk: Any, new: Place, form: str, keep_chain: bool) -> None:
    """Let a disk that is no slice be another volume; what of its source has a meaning for any source stays.

    keep_chain says that it stands on what it stood on. A disk that was named by pool and volume stays so, where
    libvirt can (it can't for network pools).
    """
    by_pool = disk.get("type") == "volume" and not new.network
    source = xmltree.make(disk, "source")
    kept = {name: source.get(name) for name in ("startupPolicy",) if source.get(name) and not new.network}
    source.attrib.clear()
    for child in list(source):
        if child.tag != "encryption" and (child.tag != "seclabel" or new.network):
            source.remove(child)
    xmltree.remove(disk, "auth")
    disk.set("type", "volume" if by_pool else new.kind)
    if by_pool:
        kept.update(pool=new.pool, volume=new.volume)
    elif new.network:
        put_network(disk, source, new.network)
    else:
        kept["dev" if new.kind == "block" else "file"] = new.path
    for name, value in kept.items():
        source.set(name, value)
    put_format(disk, form)
    if not keep_chain:
        xmltree.remove(disk, "backingStore")


def put_network(disk: Any, source: Any, network: dict[str, Any]) -> None:
    """The protocol, name and servers of a network source, and its login."""
    source.set("protocol", network["protocol"])
    source.set("name", network["name"])
    for name, port in network["hosts"]:
        host = xmltree.append(source, "host")
        host.set("name", name)
        host.set("port", str(port))
    if "username" in network:
        secret = {"type": network["secret_type"]}
        secret.update({key: network[f"secret_{key}"] for key in ("usage", "uuid") if network.get(f"secret_{key}")})
        auth = xmltree.append(source, "auth")
        auth.set("username", network["username"])
        xmltree.append(auth, "secret").attrib.update(secret)


@dataclass(frozen=True)
class Defined:
    """A domain whose persistent definition names a volume: as disks of these formats, in part, or elsewhere too."""

    domain: Any
    name: str
    formats: frozenset[str]
    elsewhere: bool
    sliced: bool = False


def defined(connection: Any, pool: str, volume: str, path: str) -> list[Defined]:
    """Every persistent definition that names a volume; a disk without a format is raw to libvirt."""
    found = []
    for domain in connection.domains():
        if not domain.isPersistent():
            continue
        tree = xmltree.parse(domain.XMLDesc(INACTIVE))
        mine, elsewhere = disks(tree, pool, volume, path, connection.local)
        if mine or elsewhere:
            formats = frozenset(xmltree.get(one, "driver/@type") or "raw" for one in mine)
            found.append(Defined(domain, domain.name(), formats, elsewhere, any(map(is_sliced, mine))))
    return found


def is_sliced(disk: Any) -> bool:
    """Whether a disk is a part of its source: a place in that file, which is of no meaning in another one."""
    return disk.find("source/slices") is not None


def sliced(thing: str, name: str) -> StorageError:
    return StorageError(
        thing=thing,
        code="in_use",
        reason=f"the disk of domain {name!r} is a part of it (slices), and would be something else after that",
        way_out="give that domain a volume of its own first",
    )


def refuse_unchangeable(thing: str, found: list[Defined]) -> None:
    """Definitions that can't follow: what names the volume elsewhere or a part of it, and a saved state of its own."""
    for one in found:
        if one.sliced:
            raise sliced(thing, one.name)
        if one.elsewhere:
            raise StorageError(
                thing=thing,
                code="in_use",
                reason=f"domain {one.name!r} names it in a place other than a disk of its own",
                way_out="change that domain first",
            )
        if one.formats and one.domain.hasManagedSaveImage(0):
            raise StorageError(
                thing=thing,
                code="in_use",
                reason=f"domain {one.name!r} has a saved state, which names it as it is now",
                way_out=f"start and shut it down, or drop that state with 'virsh managedsave-remove {one.name}'",
            )


def warnings(thing: str, found: list[Defined]) -> list[str]:
    """What a changed definition leaves behind."""
    return [
        f"{thing}: domain {one.name!r} has snapshots, whose own definitions still name the volume as it was"
        for one in found
        if one.formats and one.domain.snapshotNum(0)
    ]


def redefine(connection: Any, one: Defined, change: Any) -> None:
    """Edit the persistent definition in place: change(tree) is given all of it.

    It holds the domain's passwords, which a definition without them would drop. It is shown to nobody.
    """
    tree = xmltree.parse(one.domain.XMLDesc(INACTIVE | SECURE))
    change(tree)
    connection.raw.defineXML(xmltree.text(tree))
