# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SELinux enforcing, as hypervisors of the RHEL family run: labels of pools and volumes, and a confined guest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.integration.helpers import Host
from tests.servers.guest import disk_xml, start_guest

IMAGE = "system_u:object_r:virt_image_t:s0"
CONTENT = "system_u:object_r:virt_content_t:s0"
FOLDER = Path("/srv/vmpool")


def label(path: Path | str) -> str:
    return os.getxattr(path, "security.selinux").rstrip(b"\0").decode()


def denials() -> list[str]:
    """What the policy has denied to libvirt and to the collection; QEMU itself probes for what it can do without."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return re.findall(r'avc:  denied  .*comm="(?:python3|rpc-libvirtd|libvirtd|lv\w+|vg\w+|pv\w+)".*', log)


@pytest.fixture(autouse=True)
def folder() -> Iterator[None]:
    shutil.rmtree(FOLDER, ignore_errors=True)
    yield
    shutil.rmtree(FOLDER, ignore_errors=True)


def test_the_host_enforces() -> None:
    assert Path("/sys/fs/selinux/enforce").read_text() == "1"
    assert "virtd_t" in subprocess.run(["ps", "-eZ"], capture_output=True, text=True, check=True).stdout


def test_a_pool_gets_the_declared_label_and_its_volumes_inherit_it(host: Host) -> None:
    pool = {"name": "images", "path": str(FOLDER), "permissions": {"mode": "0711", "label": IMAGE}}
    host.converge("pool_dir", ["define", "build", "start"], IMAGE, **pool)
    assert label(FOLDER) == IMAGE
    host.converge("volume", ["create"], pool="images", name="web.qcow2", format="qcow2", capacity="16MiB")
    assert label(FOLDER / "web.qcow2") == IMAGE
    subprocess.run(["chcon", CONTENT, FOLDER], check=True)
    host.converge("pool_dir", ["set_permissions"], IMAGE, **pool)


def test_a_volume_gets_the_declared_label_which_libvirt_ignores(host: Host) -> None:
    host.ok("pool_dir", name="images", path=str(FOLDER))
    volume = {"pool": "images", "name": "install.raw", "format": "raw", "capacity": "1MiB"}
    host.converge("volume", ["create"], permissions={"label": CONTENT}, **volume)
    assert label(FOLDER / "install.raw") == CONTENT
    host.converge("volume", ["set_permissions"], permissions={"label": IMAGE}, **volume)
    assert label(FOLDER / "install.raw") == IMAGE


def test_a_label_that_the_policy_does_not_know_is_refused(host: Host) -> None:
    host.ok("pool_dir", name="images", path=str(FOLDER))
    volume = {"pool": "images", "name": "x.raw", "format": "raw", "capacity": "1MiB"}
    permissions = {"label": "system_u:object_r:nonsense_t:s0"}
    host.refused("volume", "bad_value", "nonsense_t", permissions=permissions, **volume)


def test_a_guest_is_confined_and_its_disk_is_its_own_for_that_time(host: Host) -> None:
    """The label of a running guest's disk is libvirt's affair: a declared one waits until the guest ends."""
    host.ok("pool_dir", name="images", path=str(FOLDER), permissions={"label": IMAGE})
    volume = {"pool": "images", "name": "db.qcow2", "format": "qcow2", "capacity": "16MiB"}
    host.ok("volume", **volume)
    connection = libvirt.open(host.uri)
    domain = start_guest(connection, "db", disk_xml(str(FOLDER / "db.qcow2"), driver="qcow2"))
    try:
        assert "svirt_image_t" in label(FOLDER / "db.qcow2")
        [process] = [
            line
            for line in subprocess.run(["ps", "-eZ"], capture_output=True, text=True, check=True).stdout.splitlines()
            if "qemu-system" in line
        ]
        assert ":svirt_" in process
        host.unchanged("volume", permissions={"label": IMAGE}, **volume)
        host.refused("volume", "in_use", "db", pool="images", name="db.qcow2", state="absent")
    finally:
        domain.destroy()
        connection.close()
    host.ok("volume", permissions={"label": IMAGE}, **volume)
    assert label(FOLDER / "db.qcow2") == IMAGE


def test_lvm_under_enforcing(host: Host, disks) -> None:
    pool = {"name": "fast", "source_name": "fast", "devices": [disks.vdb]}
    host.converge("pool_logical", ["define", "build", "start"], build="if_blank", **pool)
    host.converge("volume", ["create"], pool="fast", name="db", capacity="64MiB")
    host.converge("volume", ["resize"], pool="fast", name="db", capacity="96MiB")
    connection = libvirt.open(host.uri)
    domain = start_guest(connection, "db", disk_xml("/dev/fast/db", kind="block"))
    try:
        assert "svirt_image_t" in label(os.path.realpath("/dev/fast/db"))
        host.refused("pool_logical", "in_use", "db", name="fast", state="inactive")
    finally:
        domain.destroy()
        connection.close()
    host.converge("volume", ["delete"], pool="fast", name="db", state="absent")
    host.converge("pool_logical", ["stop", "delete_storage", "undefine"], name="fast", state="absent", delete_data=True)


def test_nothing_was_denied() -> None:
    assert denials() == []
