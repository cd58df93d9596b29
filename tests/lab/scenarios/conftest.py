# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What scenarios share: a hypervisor with nothing defined, and blank disks, before and after each test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import libvirt
import pytest

from tests.integration.helpers import Host, connected
from tests.servers.guest import disk_xml, domain_xml

URI = "qemu:///system"
BY_ID = "/dev/disk/by-id/virtio-LAB"


@dataclass(frozen=True)
class Disks:
    """The blank disks of a guest by their stable names, and the device nodes behind them."""

    vdb: str = f"{BY_ID}VDB"
    vdc: str = f"{BY_ID}VDC"
    vdd: str = f"{BY_ID}VDD"
    all: tuple[str, ...] = (vdb, vdc, vdd)

    @staticmethod
    def node(disk: str) -> str:
        """The plain name, such as /dev/vdb."""
        return os.path.realpath(disk)

    def wipe(self, *which: str) -> None:
        """Blank again, all of them unless some are given: users ended, mounts, zpools and VGs gone, no signature."""
        wipe(which or self.all)


def said(*argv: str) -> str:
    """What a command says, whatever its end."""
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def remove_everything(uri: str = URI) -> None:
    """No domain, pool or secret is left on a host."""
    with connected(uri) as connection:
        for domain in connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefine()
        for pool in connection.listAllStoragePools():
            with contextlib.suppress(libvirt.libvirtError):
                pool.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                pool.undefine()
        for secret in connection.listAllSecrets():
            secret.undefine()


def wipe(disks: tuple[str, ...]) -> None:
    nodes = [os.path.realpath(disk) for disk in disks]
    below = {node: said("lsblk", "-nrpo", "NAME", node).split() for node in nodes}
    names = {name for some in below.values() for name in some}
    for line in reversed(said("findmnt", "-rno", "SOURCE,TARGET").splitlines()):
        source, dummy, target = line.partition(" ")
        if source.partition("[")[0] in names:
            said("umount", target)
    if os.path.exists("/sys/module/zfs"):
        for line in said("zpool", "list", "-HPLv").splitlines():  # a zpool's own line begins with its name
            if not line.startswith("\t"):
                zpool = line.split("\t")[0]
            elif line.split("\t")[1] in names:
                said("zpool", "destroy", "-f", zpool)
    for line in said("pvs", "--noheadings", "-o", "pv_name,vg_name").splitlines():
        name, *group = line.split()
        if name in names:
            if group:
                said("vgremove", "-ff", "-y", group[0])
            said("pvremove", "-ff", "-y", name)
    for node in nodes:
        for part in sorted(set(below[node]) - {node}):
            said("wipefs", "-aq", part)
        if len(below[node]) > 1 or said("wipefs", "-n", node):
            said("wipefs", "-aq", node)
            said("sgdisk", "--zap-all", node)
            said("partprobe", node)
    said("udevadm", "settle")


def defined_guest(uri: str, name: str, device: str) -> libvirt.virDomain:
    """A domain that has a block device as its disk and does not run."""
    return libvirt.open(uri).defineXML(domain_xml(name, disk_xml(device, kind="block")))


@pytest.fixture
def host() -> Iterator[Host]:
    """The guest's own libvirt, with nothing defined before and after."""
    remove_everything()
    yield Host(URI)
    remove_everything()


@pytest.fixture
def disks(host: Host) -> Iterator[Disks]:
    """The blank disks, wiped before and after."""
    found = Disks()
    found.wipe()
    yield found
    remove_everything(host.uri)
    found.wipe()
