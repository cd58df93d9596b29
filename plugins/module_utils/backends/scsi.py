# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""scsi: volumes are the LUNs behind a SCSI host adapter, a virtual Fibre Channel one (NPIV) included."""

from __future__ import annotations

import re
from typing import Any

from ..backend import Backend, rounded
from ..errors import bad_value
from ..fields import At, Group
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
    granule=rounded(1),
    constants={"target/path": "/dev/disk/by-path"},
)
