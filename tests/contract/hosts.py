# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts to run modules on: libvirt connections that note every call which changes something.

TestHost is libvirt's test driver, whose state lives in one connection; RealHost is a private libvirtd.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import socket
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from ansible_collections.kvm.storage.plugins.module_utils import xmltree

# All that reads; what is not named here counts as a change.
READS = frozenset(
    ["listAllStoragePools", "listAllDomains", "listAllSecrets", "listAllVolumes", "listAllDevices", "getURI", "getType"]
    + ["getVersion", "getLibVersion", "getHostname", "isAlive", "getCapabilities", "getStoragePoolCapabilities"]
    + [
        "storagePoolLookupByName",
        "storagePoolLookupByUUIDString",
        "storagePoolLookupByVolume",
        "storageVolLookupByName",
    ]
    + ["storageVolLookupByPath", "storageVolLookupByKey", "secretLookupByUsage", "secretLookupByUUIDString"]
    + [
        "findStoragePoolSources",
        "name",
        "UUIDString",
        "usageID",
        "usageType",
        "value",
        "path",
        "key",
        "info",
        "infoFlags",
    ]
    + ["XMLDesc", "isActive", "isPersistent", "autostart", "numOfVolumes", "listVolumes", "lookupByName", "state"]
    + ["hasManagedSaveImage", "listAllSnapshots", "listAllCheckpoints", "ID", "connect", "close"]
)
SCHEMAS = Path("/usr/share/libvirt/schemas")
SCHEMA_OF = {
    "storagePoolDefineXML": "storagepool",
    "storagePoolCreateXML": "storagepool",
    "createXML": "storagevol",
    "secretDefineXML": "secret",
}
# Where libvirt's schema refuses what its driver takes: what is left out of the document before it is checked.
SCHEMA_IS_WRONG = {
    "zfs": ("source/device[position()>1]", "it has one device where the driver makes a zpool of any number")
}
# The Fibre Channel host of the test driver, and the virtual one that it makes when a transient pool starts.
FC_HOST = (
    "<device><name>scsi_host11</name><parent>computer</parent><capability type='scsi_host'><host>11</host>"
    "<unique_id>10</unique_id><capability type='fc_host'><wwnn>2000000034563456</wwnn><wwpn>1000000034563456</wwpn>"
    "<fabric_wwn>2000000043214321</fabric_wwn></capability><capability type='vport_ops'><max_vports>0</max_vports>"
    "<vports>0</vports></capability></capability></device>"
)
VIRTUAL_HOST = (
    "<device><parent>scsi_host11</parent><capability type='scsi_host'><capability type='fc_host'>"
    "<wwnn>20000000c9831b4b</wwnn><wwpn>10000000c9831b4b</wwpn></capability></capability></device>"
)
# libvirt's test driver knows no flags here.
FLAGLESS = frozenset(["build", "storagePoolCreateXML"])


class WriteInCheckMode(BaseException):
    """A prediction was about to change something; no handler of the engine may take it for an error of libvirt."""


class Recorder:
    """A libvirt object that notes calls which change something, and refuses them in a prediction."""

    def __init__(self, thing: Any, host: Host) -> None:
        self._thing, self._host = thing, host

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._thing, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any) -> Any:
            if name not in READS:
                self._host.wrote(name, arguments)
            return self._host.wrapped(self._host.call(self._thing, name, arguments))

        return call


class Host:
    """A raw connection, what was written over it, and the directory that stands for its file system."""

    def __init__(self, raw: Any, scratch: Path) -> None:
        self.raw, self.scratch = raw, scratch
        self.predicting = False
        self.writes: list[str] = []

    @property
    def recorder(self) -> Recorder:
        return Recorder(self.raw, self)

    def wrote(self, name: str, arguments: tuple) -> None:
        self.writes.append(name)
        if self.predicting:
            raise WriteInCheckMode(f"{name} was called in check mode")
        if name in SCHEMA_OF:
            check_schema(SCHEMA_OF[name], arguments[0])

    def call(self, thing: Any, name: str, arguments: tuple) -> Any:
        return None if name == "close" else getattr(thing, name)(*arguments)

    def definition(self, pool: Any) -> str:
        """The persistent XML of a pool."""
        return pool.XMLDesc(libvirt.VIR_STORAGE_XML_INACTIVE if pool.isPersistent() else 0)

    def wrapped(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self.wrapped(one) for one in answer]
        return Recorder(answer, self) if type(answer).__module__ == "libvirt" else answer

    def files(self) -> dict[str, tuple]:
        """Everything below the directory, to be compared."""
        found = {}
        for path in sorted(self.scratch.rglob("*")):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns)
        return found


class Known:
    """A secret that an example takes as given."""

    def __init__(self, name: str) -> None:
        self.usageID = self.UUIDString = lambda: name  # noqa: N815  libvirt's names
        self.usageType = lambda: 0  # noqa: N815


def opened(node: Path) -> libvirt.virConnect:
    """The test driver with the state of a file.

    Debian's lxml and libvirt share one libxml2, and lxml's loader of entities takes the private part of the context
    with which libvirt reads a file for its own: that has ended in a crash. So libxml2's own loader reads the file.
    """
    xml = ctypes.CDLL("libxml2.so.2")
    xml.xmlGetExternalEntityLoader.restype = ctypes.c_void_p
    before = ctypes.c_void_p(xml.xmlGetExternalEntityLoader())
    xml.xmlSetExternalEntityLoader(xml.xmlNoNetExternalEntityLoader)
    try:
        return libvirt.open(f"test://{node}")
    finally:
        xml.xmlSetExternalEntityLoader(before)


class TestHost(Host):
    """libvirt's test driver, helped where it is less than the real one.

    It takes no flags, has no secrets, makes no directories nor the virtual host of a persistent pool, knows no elements
    of other namespaces, and never shows or takes up what was defined while a pool is active.
    """

    __test__ = False  # for pytest: no test in spite of its name

    def __init__(self, scratch: Path, secrets: set[str]) -> None:
        node = scratch.parent / f"{scratch.name}.xml"
        node.write_text(f"<node>{FC_HOST}</node>", encoding="utf-8")
        super().__init__(opened(node), scratch)
        self.secrets = [Known(name) for name in sorted(secrets)]
        self.defined = opened(node)  # the persistent layer of active pools
        self.foreign: dict[tuple[str, bool], list] = {}  # (pool, whether persistent) to elements of other namespaces

    def call(self, thing: Any, name: str, arguments: tuple) -> Any:
        if name == "listAllSecrets":
            return self.secrets
        if name == "XMLDesc" and hasattr(thing, "autostart"):
            return self.definition(thing) if arguments[0] else self.whole(thing, thing.name(), False)
        if name in FLAGLESS:
            arguments = (*arguments[:-1], 0)
        if name == "create" and xmltree.get(xmltree.parse(thing.XMLDesc(0)), "source/adapter/@type") == "fc_host":
            self.raw.nodeDeviceCreateXML(VIRTUAL_HOST, 0)
        answer = super().call(thing, name, arguments)
        if name == "storagePoolDefineXML":
            self.defined.storagePoolDefineXML(*arguments)
            self.note(arguments[0], True)
            if not answer.isActive():
                self.note(arguments[0], False)
        if name == "storagePoolCreateXML":
            self.note(arguments[0], False)
        if name == "destroy" and thing.name() in self.names() and thing.isPersistent():
            self.raw.storagePoolDefineXML(self.definition(thing), 0)
            self.note(self.definition(thing), False)
        if name == "undefine":
            self.defined.storagePoolLookupByName(thing.name()).undefine()
        if name in ("build", "storagePoolCreateXML"):
            pool = answer if name == "storagePoolCreateXML" else thing
            mode = xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/permissions/mode")
            with self.directory(pool) as path:
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(int(mode or "0711", 8))
        if name == "delete":
            with self.directory(thing) as path, contextlib.suppress(FileNotFoundError):
                path.rmdir()
        return answer

    def note(self, text: str, persistent: bool) -> None:
        tree = xmltree.parse(text)
        self.foreign[xmltree.get(tree, "name"), persistent] = [one for one in tree if one.tag.startswith("{")]

    def whole(self, pool: Any, name: str, persistent: bool) -> str:
        tree = xmltree.parse(pool.XMLDesc(0))
        tree.extend(copy.deepcopy(self.foreign.get((name, persistent), [])))
        return xmltree.text(tree)

    def names(self) -> list[str]:
        return [pool.name() for pool in self.raw.listAllStoragePools(0)]

    def definition(self, pool: Any) -> str:
        names = [one.name() for one in self.defined.listAllStoragePools(0)]
        if pool.name() not in names:
            return self.whole(pool, pool.name(), False)
        return self.whole(self.defined.storagePoolLookupByName(pool.name()), pool.name(), True)

    @contextlib.contextmanager
    def directory(self, pool: Any):
        """The directory of a pool, where it is one of the scratch directory."""
        path = Path(xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") or "/")
        if self.scratch in path.parents:
            yield path
        else:
            yield self.scratch / "nothing-of-ours"


class RealHost(Host):
    """A private libvirtd."""


class Listeners:
    """Servers that take connections and nothing more, at addresses of this process's own."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.sockets: dict[tuple[str, int], socket.socket] = {}

    def address(self, name: str) -> str:
        pid = os.getpid()
        return self.names.setdefault(name, f"127.{100 + pid % 100}.{pid // 100 % 256}.{len(self.names) + 1}")

    def listen(self, address: str, port: int) -> None:
        if (address, port) not in self.sockets:
            self.sockets[address, port] = socket.create_server((address, port), backlog=128)

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()


_schemas: dict[str, etree.RelaxNG] = {}


def check_schema(name: str, text: str) -> None:
    """The XML against libvirt's own schema."""
    if name not in _schemas:
        _schemas[name] = etree.RelaxNG(etree.parse(str(SCHEMAS / f"{name}.rng")))
    tree = etree.fromstring(text.encode())
    path, dummy = SCHEMA_IS_WRONG.get(tree.get("type", "") if name == "storagepool" else "", ("", ""))
    for element in tree.xpath(path) if path else []:
        element.getparent().remove(element)
    if not _schemas[name].validate(tree):
        raise AssertionError(f"{_schemas[name].error_log.last_error}:\n{text}")
