# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""scsi: volumes are the LUNs behind a SCSI host adapter, a virtual Fibre Channel one (NPIV) included."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from .. import block
from ..backend import Backend, rounded
from ..errors import StorageError, bad_value
from ..fields import At, Group
from ..identity import of_devices
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, PERMISSIONS, VENDOR

WWN = re.compile(r"[0-9a-fA-F]{16}", re.ASCII)
HEXADECIMAL = re.compile(r"(0[xX])?[0-9a-fA-F]{1,4}", re.ASCII)


class Wwn(At):
    """A world wide name; its letters' case means nothing."""

    def clean(self, thing: str, option: str, value: Any) -> str:
        value = super().clean(thing, option, value)
        if not WWN.fullmatch(value):
            raise bad_value(thing, option, value, "16 hexadecimal digits")
        return value.lower()

    def read(self, tree: Any) -> Any:
        value = super().read(tree)
        return value.lower() if value else value


class PciNumber(At):
    """A part of a PCI address, written in as many digits as libvirt writes."""

    def __init__(self, path: str, digits: int) -> None:
        super().__init__(path)
        self.digits = digits

    def form(self, value: str) -> str:
        return f"0x{int(value, 16):0{self.digits}x}"

    def clean(self, thing: str, option: str, value: Any) -> str:
        value = super().clean(thing, option, value)
        if not HEXADECIMAL.fullmatch(value):
            raise bad_value(thing, option, value, "a hexadecimal number such as 0x1f")
        return self.form(value)

    def read(self, tree: Any) -> Any:
        value = super().read(tree)
        return self.form(value) if value else value


PARENT_ADDRESS = Group(
    {
        "domain": PciNumber("source/adapter/parentaddr/address/@domain", 4),
        "bus": PciNumber("source/adapter/parentaddr/address/@bus", 2),
        "slot": PciNumber("source/adapter/parentaddr/address/@slot", 2),
        "function": PciNumber("source/adapter/parentaddr/address/@function", 1),
        # optional in libvirt's schema, but its driver refuses an address without it
        "unique_id": At("source/adapter/parentaddr/@unique_id", "int", required=True),
    }
)
OF_SCSI_HOST = ("name", "parent_address")
PARENT, PARENT_WWNN = "source/adapter/@parent", "source/adapter/@parent_wwnn"
PARENT_WWPN, PARENT_FABRIC = "source/adapter/@parent_wwpn", "source/adapter/@parent_fabric_wwn"


class Adapter(Group):
    """One of three: a SCSI host by its name, one by its parent's address, a Fibre Channel host by its numbers."""

    @staticmethod
    def form(value: dict[str, Any]) -> str:
        return next((name for name in OF_SCSI_HOST if name in value), "wwnn")

    def clean(self, thing: str, option: str, value: dict[str, Any]) -> dict[str, Any]:
        value = super().clean(thing, option, value)
        if value["type"] == "scsi_host":
            foreign = [name for name in value if name not in ("type", *OF_SCSI_HOST)]
        else:
            foreign = [name for name in value if name in OF_SCSI_HOST]
        if foreign:
            raise bad_value(thing, f"{option}.{foreign[0]}", value[foreign[0]], "it for another type of adapter only")
        return value

    def write(self, tree: Any, value: dict[str, Any]) -> None:
        """Another form replaces what is there; of the same form, what is not given stays."""
        have = self.read(tree) or {}
        if have and self.form(have) != self.form(value):
            for element in tree.findall("source/adapter"):
                element.getparent().remove(element)
        super().write(tree, value)


ADAPTER = Adapter(
    {
        "type": At("source/adapter/@type", choices=("scsi_host", "fc_host"), required=True),
        "name": At("source/adapter/@name"),
        "parent_address": PARENT_ADDRESS,
        "wwnn": Wwn("source/adapter/@wwnn"),
        "wwpn": Wwn("source/adapter/@wwpn"),
        "parent": At(PARENT, instead_of=(PARENT_WWNN, PARENT_WWPN, PARENT_FABRIC)),
        "parent_wwnn": Wwn(PARENT_WWNN, instead_of=(PARENT, PARENT_FABRIC)),
        "parent_wwpn": Wwn(PARENT_WWPN, instead_of=(PARENT, PARENT_FABRIC)),
        "parent_fabric_wwn": Wwn(PARENT_FABRIC, instead_of=(PARENT, PARENT_WWNN, PARENT_WWPN)),
        "managed": At("source/adapter/@managed", "yes_no"),
    },
    required=True,
    required_one_of=(("name", "parent_address", "wwnn"),),
    mutually_exclusive=(("name", "parent_address", "wwnn"), ("parent", "parent_wwnn", "parent_fabric_wwn")),
    required_together=(("wwnn", "wwpn"), ("parent_wwnn", "parent_wwpn")),
)

STABLE, BY_ID = "/dev/disk/by-path", "/dev/disk/by-id"


def adapters() -> dict[str, str]:
    """The SCSI hosts that are there, by name, and the device that each belongs to."""
    found = sorted(glob.glob(f"{block.SYS}/class/scsi_host/host*"), key=lambda path: (len(path), path))
    return {os.path.basename(path): os.path.realpath(path) for path in found}


def whereabouts(path: str) -> str:
    """A SCSI host in the words of parent_address."""
    found = re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", path)
    return f"{found[-1] if found else 'no PCI device'}, unique_id {block.read(f'{path}/unique_id')}"


def adapter_of(options: dict[str, Any]) -> str | None:
    """The SCSI host that an adapter means, such as host3; None where there is none."""
    adapter, there = options.get("adapter") or {}, adapters()
    if "name" in adapter:
        name = adapter["name"].removeprefix("scsi_")
        return name if name in there else None
    if "parent_address" in adapter:
        place = adapter["parent_address"]
        parts = [int(place.get(part, "0"), 16) for part in ("domain", "bus", "slot", "function")]
        address = "/{:04x}:{:02x}:{:02x}.{:x}/".format(*parts)
        number = str(place.get("unique_id"))
        mine = (name for name, path in there.items() if address in path and block.read(f"{path}/unique_id") == number)
        return next(mine, None)
    for name in there:
        place = f"{block.SYS}/class/fc_host/{name}"
        names = [block.read(f"{place}/{attribute}").removeprefix("0x") for attribute in ("node_name", "port_name")]
        if names == [adapter.get("wwnn"), adapter.get("wwpn")]:
            return name
    return None


def luns(options: dict[str, Any]) -> list[str]:
    """The block devices behind the adapter."""
    name = adapter_of(options)
    return block.luns(name) if name else []


def preflight(thing: str, options: dict[str, Any], seconds: float) -> list[str]:
    """The adapter is there; a LUN without a name keeps libvirt waiting, and is then left out."""
    adapter = options.get("adapter") or {}
    if adapter.get("type") == "scsi_host" and adapter_of(options) is None:
        there = ", ".join(f"{name} ({whereabouts(path)})" for name, path in adapters().items()) or "none"
        raise StorageError(
            thing=thing,
            code="no_source",
            reason=f"this host has no such SCSI adapter; there is {there}",
            way_out="correct adapter; parent_address stays the same where a name changes",
        )
    missing = nameless(options)
    if not missing:
        return []
    instead = "/dev, where names may change" if nameless({**options, "path": BY_ID}) else BY_ID
    return [
        f"{', '.join(missing)} of its adapter has no name in {options.get('path', STABLE)}; libvirt waits 10 s "
        f"for each such LUN and then leaves it out: give path: {instead}"
    ]


def nameless(options: dict[str, Any]) -> list[str]:
    """The LUNs that libvirt finds no name for in the path."""
    path = options.get("path", STABLE)
    if not path.startswith("/dev/"):  # there libvirt takes the plain names
        return []
    named = {os.path.realpath(link) for link in glob.glob(f"{path}/*")}
    return [device for device in luns(options) if device not in named]


def schema_agrees(options: dict[str, Any]) -> bool:
    """libvirt's schema wants a unique_id above 0; its driver takes 0, which is what most adapters have."""
    return ((options.get("adapter") or {}).get("parent_address") or {}).get("unique_id") != 0


def detaches(options: dict[str, Any]) -> list[str]:
    """A virtual Fibre Channel host goes with its pool; any other adapter stays."""
    return luns(options) if (options.get("adapter") or {}).get("type") == "fc_host" else []


def twins_hint(words: str, devices: list[str]) -> str:
    """What libvirt does not say when it meets one number twice."""
    if "cause is unknown" not in words:
        return ""
    twins = ", ".join(block.same_number(devices))
    which = twins or "two of its LUNs"
    return f"libvirt gives no reason; {which} may have the same WWN, of which a pool can have one only"


def start_hint(words: str, options: dict[str, Any]) -> str:
    if words == "timeout" and nameless(options):
        return preflight("", options, 0)[0]
    return twins_hint(words, luns(options))


BACKEND = Backend(
    type="scsi",
    fields={
        "path": At("target/path", "path"),
        "adapter": ADAPTER,
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations=LUN_OPERATIONS,
    conflicts_by=("adapter",),
    delete_data=KEPT_BY_THE_ARRAY,
    preflight=preflight,
    detaches=detaches,
    granule=rounded(1),
    start_hint=start_hint,
    schema_agrees=schema_agrees,
    constants={"target/path": STABLE},
    identity=of_devices,
)
