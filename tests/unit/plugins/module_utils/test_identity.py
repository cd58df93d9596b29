# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tells one storage from another, from files like the kernel's; the lab has real ones."""

from __future__ import annotations

import os

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import block, identity
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

MOUNTS = """\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 25 0:50 / /srv/vms rw shared:2 master:1 - nfs4 storage:/srv/nfs rw,vers=4.2
41 25 0:51 / /srv/gl rw - fuse.glusterfs storage:/vms rw
"""
VOLUMES = """\
NV SERVER   PORT DEV          FSID                              FSC
v4 0a4d000d  801 0:50         c0ffee0000000001:0                no
v4 0a4d000d  801 0:52         c0ffee0000000002:0                no
"""
PATHS = {
    "sda": ("naa.60014055d4f5e6a7", "", "360014055d4f5e6a7"),
    "sdb": ("eui.0025385b71b00a1c", "", "20025385b71b00a1c"),
    "sdc": ("t10.ATA     QEMU HARDDISK", "", "t10.ATA QEMU HARDDISK"),
    "dm-0": ("", "mpath-360014055d4f5e6a7", "360014055d4f5e6a7"),
    "vda": ("", "", ""),
}


@pytest.fixture
def sys(tmp_path, monkeypatch):
    for name, (wwid, uuid, _number) in PATHS.items():
        own = tmp_path / "class/block" / name
        for attribute, text in (("device/wwid", wwid), ("dm/uuid", uuid)):
            if text:
                (own / attribute).parent.mkdir(parents=True, exist_ok=True)
                (own / attribute).write_text(text)
    monkeypatch.setattr(block, "SYS", str(tmp_path))


@pytest.mark.parametrize("name", PATHS)
def test_a_lun_has_one_number_by_whatever_path(sys, name):
    assert identity.number_of(f"/dev/{name}") == PATHS[name][2]


def test_luns_are_told_in_order_and_once(sys):
    told = identity.of_devices("pool 'a'", None, {}, ["/dev/sdb", "/dev/sda", "/dev/dm-0"])
    assert told == "LUNs 20025385b71b00a1c, 360014055d4f5e6a7"


@pytest.mark.parametrize(("paths", "reason"), [([], "no LUN"), (["/dev/sda", "/dev/vda"], "/dev/vda has no WWID")])
def test_luns_without_a_number_prove_nothing(sys, paths, reason):
    with pytest.raises(StorageError, match=reason) as caught:
        identity.of_devices("pool 'a'", None, {}, paths)
    assert caught.value.code == "guard_unavailable"


def test_a_file_system_is_found_by_its_number(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    found = [identity.mounted(os.makedev(*number), str(table)) for number in ((254, 0), (0, 51), (8, 1))]
    assert found == [("ext4", "/dev/vda"), ("fuse.glusterfs", "storage:/vms"), ("", "")]


def test_an_nfs_file_system_is_known_by_the_number_its_server_gives_it(tmp_path, monkeypatch):
    table = tmp_path / "volumes"
    table.write_text(VOLUMES)
    monkeypatch.setattr(identity, "NFS_VOLUMES", str(table))
    assert identity.nfs_volume("pool 'a'", os.makedev(0, 52)) == "c0ffee0000000002:0"
    with pytest.raises(StorageError, match="does not tell its fsid"):
        identity.nfs_volume("pool 'a'", os.makedev(0, 53))


def test_a_file_system_of_a_host_is_no_other_hosts(tmp_path, monkeypatch):
    """Two hosts may have copies of one disk, with the same UUID and the same inodes."""
    told = set()
    for number in ("1", "2"):
        (tmp_path / "machine-id").write_text(number)
        monkeypatch.setattr(identity, "MACHINE_ID", str(tmp_path / "machine-id"))
        told.add(identity.of_directory("pool 'a'", None, {"path": str(tmp_path)}, []))
    assert len(told) == 2


def test_a_directory_that_is_not_there_proves_nothing(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        identity.of_directory("pool 'a'", None, {"path": f"{tmp_path}/none"}, [])
