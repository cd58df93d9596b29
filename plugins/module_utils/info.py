# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host has: pools, volumes and secrets as data, and as the variables that a layout takes."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable

from . import chain, fields, guards, identity, images, permissions, reconcile, sizes, xmltree
from . import secret as secrets
from . import volume as volumes
from .backend import Backend
from .backends import registry
from .connection import libvirt, retrying, volume_xml, words
from .contents import Contents, Entry
from .errors import StorageError
from .pool import read_pool, xml_layer

SOURCES = ("iscsi", "gluster", "logical", "netfs")  # backends that can look for their own kind


def sized(found: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Bytes with their readable form beside them."""
    for name in names:
        if found.get(name) is not None:
            found[f"{name}_readable"] = sizes.readable(found[name])
    return found


def chosen(connection: Any, names: list[str] | None) -> dict[str, Any]:
    """The named pools, or all; a name that is not there is an error."""
    there = connection.pools()
    for name in names or []:
        if name not in there:
            raise StorageError(
                thing=f"pool {name!r}", code="no_pool", reason="it is not there", way_out=f"there are {listed(there)}"
            )
    return {name: there[name] for name in sorted(names or there)}


def listed(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"


# pools


def pool_facts(connection: Any, name: str, handle: Any, with_xml: bool) -> dict[str, Any]:
    """One pool: its options, its state, its space, and where its running form is another."""
    type_name = xml_layer(handle, bool(handle.isPersistent())).get("type")
    backend = registry.backend(type_name)
    table = backend.fields if backend else {}
    before = read_pool(connection, name, table)
    active = before["active"]
    found: dict[str, Any] = {
        "name": name,
        "type": type_name,
        "uuid": before["uuid"],
        "state": "active" if active else "inactive",
        "autostart": before["autostart"],
        "persistent": before["persistent"],
        "options": before["options"],
        "restart_needed": sorted(fields.differing(table, before["live"], before["options"])) if active else [],
        "capacity": None,
        "allocation": None,
        "available": None,
        "provisioned": None,
        "overcommit": None,
        "volumes": None,
        "thin_pools": [],
        "unreachable": guards.silent_server(connection, name) or None,
    }
    if active and not found["unreachable"]:
        dummy, found["capacity"], found["allocation"], found["available"] = handle.info()
        entries = [volume.info() for volume in connection.volumes(name).values()]
        contents = contents_of(connection, backend, name, lambda: before["live"])
        unlisted = contents.unlisted if contents is not None else {}
        unlisted = {key: one for key, one in unlisted.items() if key not in connection.volumes(name)}
        found["volumes"] = len(entries) + len(unlisted)
        found["provisioned"] = sum(entry[1] for entry in entries) + sum(one.capacity for one in unlisted.values())
        if contents is not None:
            found["thin_pools"] = [thin_pool_facts(contents, one) for one in contents.thin_pools().values()]
        if found["capacity"]:
            found["overcommit"] = round(found["provisioned"] / found["capacity"], 2)
    if with_xml:
        found["xml"] = handle.XMLDesc(0)
    return sized(found, ("capacity", "allocation", "available", "provisioned"))


def contents_of(connection: Any, backend: Backend | None, pool: str, options: Callable[[], Any]) -> Contents | None:
    """What the backend's own command shows of an active pool; None where it can't be seen from here."""
    try:
        return guards.contents(connection, backend, pool, options) if backend is not None else None
    except StorageError:
        return None


def thin_pool_facts(contents: Contents, entry: Entry) -> dict[str, Any]:
    """A thin pool and what it promises to its volumes."""
    found = {
        "name": entry.name,
        "capacity": entry.capacity,
        "allocation": entry.allocation,
        "provisioned": sum(contents.in_thin_pool(entry.name).values()),
        "trouble": entry.trouble or None,
    }
    return sized(found, ("capacity", "allocation", "provisioned"))


def identity_of(connection: Any, facts: dict[str, Any]) -> dict[str, str | None]:
    """Which storage a pool stands on, for comparing hosts; or why that can't be told."""
    name = facts["name"]
    thing, backend = f"pool {name!r}", registry.backend(facts["type"])
    why = ""
    if not connection.local:
        why = "it is told by files and commands of the host itself, and this connection leads to another"
    elif facts["state"] != "active":
        why = "it is not active"
    elif facts["unreachable"]:
        why = f"nothing answers at {facts['unreachable']}"
    elif backend is None or backend.identity is None:
        why = f"nothing tells one {facts['type']} storage from another"
    else:
        paths = [volume.path() for volume in connection.volumes(name).values()]
        try:
            return {"identity": backend.identity(thing, connection, facts["options"], paths), "identity_unknown": None}
        except StorageError as error:
            why = error.reason
    return {"identity": None, "identity_unknown": why}


def pool_info(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    pools = chosen(connection, params["names"])
    found = [pool_facts(connection, name, handle, params["xml"]) for name, handle in pools.items()]
    if not params["identity"]:
        return {"pools": found}
    for facts in found:
        facts.update(identity_of(connection, facts))
    return {"pools": found, "lock_manager": identity.lock_manager() if connection.local else None}


def pool_info_spec() -> dict[str, Any]:
    return {
        "names": {"type": "list", "elements": "str"},
        "xml": {"type": "bool", "default": False},
        "identity": {"type": "bool", "default": False},
    }


# volumes


def chain_of(connection: Any, path: str, backing: str | None, directories: set[str]) -> list[dict[str, Any]]:
    """The backing chain below a volume as headers tell it, nearest first; what lies in no pool is not opened."""
    found: list[dict[str, Any]] = []
    seen = {path}
    while backing and backing not in seen:
        seen.add(backing)
        inside = os.path.dirname(guards.resolved(connection, backing)) in directories
        inside = inside and not backing.startswith(guards.silent_shares(connection))
        image = images.probe(backing) if inside else None
        found.append({"path": backing, "format": image.format if image else None})
        backing = image.backing if image else None
    return found


def volume_facts(
    connection: Any,
    backend: Backend | None,
    pool: str,
    name: str,
    handle: Any,
    uses: list[chain.Use] | None,
    directories: set[str],
) -> dict[str, Any] | None:
    """One volume; None for what stands in a pool and is none."""
    path = handle.path()
    where = guards.silent_server(connection, pool)
    if where:
        return {"pool": pool, "name": name, "path": path, "unreadable": f"nothing answers at {where}"}
    is_file = connection.local and backend is not None and backend.makes_directory
    if is_file and images.foreign(path):
        return None
    try:
        tree = xmltree.parse(volume_xml(handle))
        kind, capacity, allocation = handle.info()
    except libvirt.libvirtError as error:
        return {"pool": pool, "name": name, "path": path, "unreadable": words(error)}
    options = fields.read(volumes.FIELDS, tree)
    image = images.probe(path) if connection.local and path.startswith("/") else None
    backing = xmltree.get(tree, "backingStore/path")
    found: dict[str, Any] = {
        "pool": pool,
        "name": name,
        "path": path,
        "key": handle.key(),
        "type": tree.get("type"),
        "capacity": capacity,
        "allocation": allocation,
        "format": options.get("format"),
        "format_source": "probed" if backend is None or len(backend.volume_formats) > 1 else "backend",
        "header_format": image.format if image else None,
        "backing_chain": chain_of(connection, path, backing, directories),
        "thin_pool": None,
        "encrypted": bool(xmltree.find_all(tree, "target/encryption")),
        "permissions": permissions.read(path) if is_file else options.get("permissions"),
        "immutable": False,
        "options": {name: value for name, value in options.items() if name not in ("capacity", "allocation", "format")},
    }
    if is_file:
        with contextlib.suppress(OSError):
            found["immutable"] = permissions.is_protected(path)
    if uses is not None:
        tell_users(found, chain.of_volume(uses, pool, name, path, connection.local))
    return sized(found, ("capacity", "allocation"))


def tell_users(found: dict[str, Any], uses: list[chain.Use]) -> None:
    declare_format(found, uses)
    users = sorted({(use.domain, use.running) for use in uses})
    found["users"] = [{"domain": domain, "running": running} for domain, running in users]


def chain_facts(connection: Any, backend: Backend | None, facts: dict[str, Any], max_depth: int) -> dict[str, Any]:
    """The whole chain of a volume, and what is wrong with it."""
    from . import chainwork  # of no use to who does not ask

    found = chainwork.described(connection, facts, backend, max_depth)
    for member in found["chain"]:
        sized(member, ("capacity", "allocation"))
    return found


def entry_facts(connection: Any, pool: str, entry: Entry, uses: list[chain.Use] | None) -> dict[str, Any]:
    """One volume that libvirt does not list."""
    image = images.probe(entry.path)
    found: dict[str, Any] = {
        "pool": pool,
        "name": entry.name,
        "path": entry.path,
        "key": entry.key,
        "type": "block",
        "capacity": entry.capacity,
        "allocation": entry.allocation,
        "format": None,
        "format_source": "backend",
        "header_format": image.format if image else None,
        "backing_chain": [],
        "thin_pool": entry.thin_pool or None,
        "encrypted": False,
        "permissions": None,
        "immutable": False,
        "options": {},
    }
    if uses is not None:
        mine = [use for path in entry.paths for use in chain.of_volume(uses, pool, entry.name, path, connection.local)]
        tell_users(found, mine)
    return sized(found, ("capacity", "allocation"))


def declare_format(found: dict[str, Any], uses: list[chain.Use]) -> None:
    """The driver type of a domain declares a format; a header alone never does."""
    declared = sorted({use.format for use in uses if use.format})
    if found["format_source"] == "probed" and len(declared) == 1:
        found.update(format=declared[0], format_source="domain")


def volume_info(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    pools = chosen(connection, [params["pool"]] if params["pool"] else None)
    uses = chain.uses(connection) if params["users"] else None
    directories = chain.directories(connection) if connection.local else set()
    found: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for pool, handle in pools.items():
        if not handle.isActive():
            if params["pool"]:
                raise StorageError(
                    thing=f"pool {pool!r}",
                    code="pool_inactive",
                    reason="it is inactive, so its volumes are unknown",
                    way_out="start it first",
                )
            continue
        if params["refresh"]:
            guards.require_server(f"pool {pool!r}", connection, pool)
            retrying(lambda: handle.refresh(0))  # noqa: B023  called at once
            connection.forget(pool)
        backend = registry.backend(xmltree.parse(handle.XMLDesc(0)).get("type"))
        there = connection.volumes(pool)
        contents = contents_of(connection, backend, pool, lambda: pool_options(handle, backend))  # noqa: B023
        unlisted = contents.unlisted if contents is not None else {}
        unlisted = {name: one for name, one in unlisted.items() if name not in there}
        for name in params["names"] or []:
            if name not in there and name not in unlisted:
                raise StorageError(
                    thing=f"volume {pool + '/' + name!r}",
                    code="no_volume",
                    reason="it is not there",
                    way_out="leave names out to see every volume of the pool",
                )
        for name in sorted(params["names"] or [*there, *unlisted]):
            if name in unlisted:
                found.append(entry_facts(connection, pool, unlisted[name], uses))
                continue
            facts = volume_facts(connection, backend, pool, name, there[name], uses, directories)
            if params.get("chain_info") and facts is not None and "unreadable" not in facts:
                facts.update(chain_facts(connection, backend, facts, params["max_depth"]))
            (others if facts is None else found).append(facts or {"pool": pool, "name": name})
    overlays: dict[str, list[str]] = {}
    for one in found:
        for member in one.get("backing_chain", [])[:1]:
            overlays.setdefault(member["path"], []).append(f"{one['pool']}/{one['name']}")
    for one in found:
        one["overlays"] = sorted(overlays.get(one["path"], []))
    return {"volumes": found, "not_volumes": others}


def pool_options(handle: Any, backend: Any) -> dict[str, Any]:
    return fields.read(backend.fields, xmltree.parse(handle.XMLDesc(0)))


def volume_info_spec() -> dict[str, Any]:
    return {
        "pool": {"type": "str"},
        "names": {"type": "list", "elements": "str"},
        "users": {"type": "bool", "default": True},
        "refresh": {"type": "bool", "default": False},
        "chain_info": {"type": "bool", "default": False},
        "max_depth": {"type": "int", "default": 16},
    }


# sources


def source_info(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    """What a server or this host offers to a pool; by the same call as virsh find-storage-pool-sources-as."""
    tree = xmltree.new("source")
    if params["host"] is not None:
        xmltree.put(tree, "host/@name", fields.clean_host("source", "host", params["host"]))
        if params["port"] is not None:
            xmltree.put(tree, "host/@port", str(fields.clean_port("source", "port", params["port"])))
    if params["initiator_iqn"] is not None:
        xmltree.put(tree, "initiator/iqn/@name", fields.clean_str("source", "initiator_iqn", params["initiator_iqn"]))
    if params["source_format"] is not None:
        xmltree.put(tree, "format/@type", fields.clean_str("source", "source_format", params["source_format"]))
    try:
        text = connection.raw.findStoragePoolSources(params["type"], xmltree.text(tree), 0)
    except libvirt.libvirtError as error:
        raise StorageError(
            thing=f"sources of type {params['type']}",
            code="backend_refused",
            reason=words(error),
            way_out="check that the server answers and that its client package is on this host",
        ) from None
    backend = registry.backend(params["type"])
    found = []
    for source in xmltree.parse(text).findall("source"):
        tree = xmltree.new("pool")
        tree.append(source)
        found.append(fields.read(backend.fields if backend else {}, tree))
    return {"sources": found}


def source_info_spec() -> dict[str, Any]:
    return {
        "type": {"type": "str", "required": True, "choices": list(SOURCES)},
        "host": {"type": "str"},
        "port": {"type": "int"},
        "initiator_iqn": {"type": "str"},
        "source_format": {"type": "str"},
    }


# the whole host, as variables of a layout


def secret_variables(handle: Any) -> dict[str, Any] | None:
    """A secret without its value: replaying it leaves the value alone."""
    usage = next((name for name, place in secrets.USAGES.items() if place[0] == handle.usageType()), None)
    if usage is None:
        return None
    found = {"usage": usage, "usage_name": handle.usageID(), "uuid": handle.UUIDString()}
    return {**found, **fields.read(secrets.FIELDS, xmltree.parse(handle.XMLDesc(0)))}


def pool_variables(connection: Any, name: str, handle: Any) -> dict[str, Any] | None:
    """A pool as the options that describe it as it is."""
    tree = xml_layer(handle, bool(handle.isPersistent()))
    backend = registry.backend(tree.get("type"))
    if backend is None:
        return None
    before = read_pool(connection, name, backend.fields)
    found = {
        "type": backend.type,
        "name": name,
        "state": "active" if before["active"] else "inactive",
        **before["options"],
    }
    if before["persistent"]:
        found["autostart"] = before["autostart"]
    else:
        found["persistent"] = False
    path = found.get("path")
    seen = connection.local and backend.makes_directory and not guards.silent_server(connection, name)
    if seen and path and "permissions" in found:
        found["permissions"] = permissions.read(path) or found["permissions"]
    return found


def volume_variables(facts: dict[str, Any], by_path: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A volume as declared. A format that only a header tells is left out: that would be laundering it."""
    found: dict[str, Any] = {"pool": facts["pool"], "name": facts["name"], "capacity": facts["capacity"]}
    if facts["format_source"] != "probed" and facts["format"] is not None:
        found["format"] = facts["format"]
    below = facts["backing_chain"][:1]
    if below and facts["format_source"] != "probed" and below[0]["path"] in by_path:
        found["backing"] = dict(zip(("pool", "volume"), by_path[below[0]["path"]]))
    if facts["immutable"]:
        found["immutable"] = True
    if facts["thin_pool"]:
        found["thin_pool"] = facts["thin_pool"]
    return found


def layout_info(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"secrets": [], "pools": [], "volumes": []}
    with contextlib.suppress(StorageError):  # a connection without secrets has none to show
        found["secrets"] = [one for one in map(secret_variables, connection.secrets()) if one is not None]
    for name, handle in sorted(connection.pools().items()):
        one = pool_variables(connection, name, handle)
        if one is not None:
            found["pools"].append(one)
    facts: list[dict[str, Any]] = []
    if params["volumes"]:
        asked = {"pool": None, "names": None, "users": True, "refresh": False}
        facts = [one for one in volume_info(connection, asked)["volumes"] if one.get("capacity")]
        by_path = {one["path"]: (one["pool"], one["name"]) for one in facts}
        found["volumes"] = [volume_variables(one, by_path) for one in facts]
    unsaid = {f"{one['pool']}/{one['name']}": one["format"] for one in facts if one["format_source"] == "probed"}
    return {"layout": found, "undeclared_formats": unsaid}


def layout_info_spec() -> dict[str, Any]:
    return {"volumes": {"type": "bool", "default": True}}


def run(spec: dict[str, Any], gather: Any) -> None:
    """The main function of every info module."""
    reconcile.run_info(spec, gather)
