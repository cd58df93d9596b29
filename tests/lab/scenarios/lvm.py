# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hypervisor whose volume groups are part of its state, and LVM's own commands as a test needs them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.integration.helpers import Host, connected
from tests.servers.guest import disk_xml, domain_xml, start_guest


class LvmHost(Host):
    """A Host of which LVM tells too: whatever a run must leave alone includes every logical volume."""

    def state(self) -> dict[str, Any]:
        columns = "vg_name,vg_uuid,lv_name,lv_uuid,lv_size,pool_lv,origin,lv_active"
        return {**super().state(), "lvm": told("lvs", "--all", "--options", columns)}

    def all_refused(self, *cases: tuple[str, str, dict[str, Any]], module: str = "volume") -> None:
        """refused() for many at once: each fails with the code and says the word, and all of them leave the host."""
        before = self.state()
        for code, word, args in cases:
            self.failed(module, code, word, **args)
        assert self.state() == before


def told(*argv: str) -> list[str]:
    """The lines of a report."""
    text = said(*argv[:1], "--noheadings", "--units", "b", "--nosuffix", *argv[1:])
    return [" ".join(line.split()) for line in text.split("\n")]


def said(*argv: str) -> str:
    finished = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{argv}: {finished.stderr}"
    return "\n".join(line.strip() for line in finished.stdout.strip().splitlines())


def volumes_of(group: str) -> list[str]:
    """The logical volumes that a group has, hidden ones aside."""
    return sorted(filter(None, told("lvs", "--options", "lv_name", group)))


def size_of(volume: str) -> int:
    return int(told("lvs", "--options", "lv_size", volume)[0])


@contextlib.contextmanager
def made(volume: str, *argv: str) -> Iterator[None]:
    """A logical volume that somebody else has made."""
    group, dummy, name = volume.partition("/")
    last = () if "--snapshot" in argv else ("--wipesignatures", "n", group)
    said("lvcreate", "--yes", "--name", name, *argv, *last)
    try:
        yield
    finally:
        subprocess.run(["lvremove", "--yes", volume], capture_output=True, check=False)


@contextlib.contextmanager
def defined(host: Host, source: str, *, running: bool = False) -> Iterator[None]:
    """A domain with a disk on a device. One that runs stands still: emulated, it would take all time."""
    disk = disk_xml(source, kind="block")
    with connected(host.uri) as connection:
        xml = domain_xml("web01", disk)
        domain = start_guest(connection, "web01", disk) if running else connection.defineXML(xml)
        if running:
            domain.suspend()
        try:
            yield
        finally:
            (domain.destroy if running else domain.undefine)()


@contextlib.contextmanager
def mounted(device: str, point: str = "/mnt") -> Iterator[None]:
    """A file system that the host itself has on a volume."""
    said("mkfs.ext4", "-qF", device)
    said("mount", device, point)
    try:
        yield
    finally:
        said("umount", point)
