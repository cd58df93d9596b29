# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""AppArmor, as Debian and Ubuntu run it: guests on pools of the collection start, each in a profile of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import libvirt
import pytest

from tests.integration.helpers import Host
from tests.servers.guest import disk_xml, start_guest


def confinement_of_guests() -> list[str]:
    """The profile and mode of every running QEMU."""
    found = subprocess.run(["pgrep", "-f", "qemu-system-x86_64 -name"], capture_output=True, text=True, check=False)
    return [Path(f"/proc/{pid}/attr/current").read_text().strip() for pid in found.stdout.split()]


def test_the_host_confines() -> None:
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    connection = libvirt.open("qemu:///system")
    assert "<model>apparmor</model>" in connection.getCapabilities()
    connection.close()


@pytest.mark.parametrize("folder", [pytest.param("/var/lib/libvirt/images", marks=pytest.mark.long), "/srv/vms"])
def test_a_guest_on_a_chain_in_a_pool_is_confined(host: Host, folder: str) -> None:
    """libvirt writes the profile from the domain; the whole chain below the disk must be in it."""
    host.converge("pool_dir", ["define", "start"] if Path(folder).is_dir() else ["define", "build", "start"], folder,
                  name="images", path=folder)  # fmt: skip
    base = {"pool": "images", "name": "base.qcow2", "format": "qcow2", "capacity": "16MiB"}
    web = {
        "pool": "images",
        "name": "web.qcow2",
        "format": "qcow2",
        "backing": {"volume": "base.qcow2", "format": "qcow2"},
    }
    host.converge("volume", ["create"], **base)
    host.converge("volume", ["create"], **web)
    connection = libvirt.open(host.uri)
    domain = start_guest(connection, "web", disk_xml(f"{folder}/web.qcow2", driver="qcow2"))
    try:
        assert confinement_of_guests() == [f"libvirt-{domain.UUIDString()} (enforce)"]
        files = Path(f"/etc/apparmor.d/libvirt/libvirt-{domain.UUIDString()}.files").read_text()
        assert re.search(rf'"{folder}/web.qcow2" rwk', files)
        assert re.search(rf'"{folder}/base.qcow2" rk', files)
        host.refused("volume", "in_use", "web", pool="images", name="web.qcow2", state="absent")
    finally:
        domain.destroy()
        connection.close()
    host.converge("volume", ["delete"], **{**web, "state": "absent"})
    host.converge("volume", ["delete"], **{**base, "state": "absent"})
    host.converge("pool_dir", ["stop", "undefine"], name="images", state="absent")


def test_a_guest_on_a_logical_volume_is_confined(host: Host, disks) -> None:
    host.ok("pool_logical", name="fast", source_name="fast", devices=[disks.vdb], build="if_blank")
    host.ok("volume", pool="fast", name="db", capacity="64MiB")
    connection = libvirt.open(host.uri)
    domain = start_guest(connection, "db", disk_xml("/dev/fast/db", kind="block"))
    try:
        assert confinement_of_guests() == [f"libvirt-{domain.UUIDString()} (enforce)"]
        host.refused("pool_logical", "in_use", "db", name="fast", state="inactive")
    finally:
        domain.destroy()
        connection.close()
    host.ok("pool_logical", name="fast", state="absent", delete_data=True)
