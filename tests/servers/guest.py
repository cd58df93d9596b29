# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests without an operating system: real QEMU processes that hold their disks open and locked."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from .process import wait_for
from .sweep import start_time

if TYPE_CHECKING:
    import libvirt

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {disks}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def domain_xml(name: str, disk_xml: str = "") -> str:
    """The XML of a guest with the given `<disk>` elements."""
    return DOMAIN.format(name=escape(name), disks=disk_xml)


def disk_xml(source: str, target: str = "vda", driver: str = "raw", kind: str = "file") -> str:
    """A `<disk>` for a file or a block device; for other sources write the element yourself."""
    attribute = {"file": "file", "block": "dev"}[kind]
    return (
        f"<disk type={quoteattr(kind)} device='disk'><driver name='qemu' type={quoteattr(driver)}/>"
        f"<source {attribute}={quoteattr(source)}/><target dev={quoteattr(target)} bus='virtio'/></disk>"
    )


def start_guest(
    connection: str | libvirt.virConnect, name: str, disk_xml: str, *, persistent: bool = False
) -> libvirt.virDomain:
    """Start a guest; a transient one is gone when it ends, a persistent one stays defined."""
    import libvirt

    opened = libvirt.open(connection) if isinstance(connection, str) else connection
    xml = domain_xml(name, disk_xml)
    if not persistent:
        return opened.createXML(xml, 0)
    domain = opened.defineXML(xml)
    domain.create()
    return domain


def killed(guest: libvirt.virDomain) -> None:
    """As a crash of QEMU: nothing that it holds in its memory is written."""
    pid = guest_pid(guest)
    os.kill(pid, signal.SIGKILL)
    wait_for(f"the end of {guest.name()}", lambda: start_time(pid) is None)


def guest_pid(guest: libvirt.virDomain) -> int:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"guest={guest.name()},debug-threads=on".encode() in words and guest.UUIDString().encode() in words:
            return int(entry)
    raise AssertionError("no QEMU of it")
