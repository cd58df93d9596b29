# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The disks of domains: which of them are a volume, and what becomes of their XML."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import domains, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.domains import Place
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

RBD = {
    "protocol": "rbd",
    "name": "rbd/disk",
    "hosts": [("mon1", 6789), ("mon2", 6790)],
    "username": "libvirt",
    "secret_type": "ceph",
    "secret_usage": "vms",
}
FILE = "<disk type='file'><driver name='qemu' type='qcow2' cache='none'/><source file='/srv/a'{0}>{1}</source>{2}"
FILE += "<target dev='vda' bus='virtio'/><address type='pci'/></disk>"
BLOCK = "<disk type='block'><driver name='qemu' type='raw'/><source dev='/dev/vg/a'/><target dev='vdb'/></disk>"
NAMED = (
    "<disk type='volume'><driver type='raw'/><source pool='images' volume='a' mode='host'/><target dev='vdc'/></disk>"
)
NETWORK = (
    "<disk type='network'><driver type='raw'/><auth username='admin'><secret type='ceph' usage='x'/></auth>"
    "<source protocol='rbd' name='rbd/a'><host name='mon' port='1'/></source><target dev='vdd'/></disk>"
)
IN_NETWORK = (
    "<source protocol='rbd' name='rbd/disk'><host name='mon1' port='6789'/><host name='mon2' port='6790'/>"
    "<auth username='libvirt'><secret type='ceph' usage='vms'/></auth></source>"
)
DRIVER = "<driver name='qemu' type='{}' cache='none'/>"
REST = "<target dev='vda' bus='virtio'/><address type='pci'/></disk>"
SECLABEL = "<seclabel model='dac' relabel='no'/>"

TO_FILE = Place("fast", "disk", "/srv/fast/disk")
TO_BLOCK = Place("vg", "disk", "/dev/vg/disk")
TO_RBD = Place("vms", "disk", "rbd/disk", RBD)


def plain(text: str) -> str:
    from lxml import etree

    return etree.tostring(xmltree.parse(text), method="c14n").decode()


@pytest.mark.parametrize(
    ("disk", "new", "form", "keep", "expected"),
    [
        pytest.param(
            FILE.format("", SECLABEL, ""),
            TO_FILE,
            "qcow2",
            True,
            f"<disk type='file'>{DRIVER.format('qcow2')}<source file='/srv/fast/disk'>{SECLABEL}</source>{REST}",
            id="file",
        ),
        pytest.param(
            FILE.format(" startupPolicy='optional'", "<reservations managed='yes'/>", ""),
            TO_FILE,
            "raw",
            True,
            f"<disk type='file'>{DRIVER.format('raw')}<source file='/srv/fast/disk' startupPolicy='optional'/>{REST}",
            id="only what is meant for any source stays",
        ),
        pytest.param(
            FILE.format("", "", "<backingStore type='file'><format type='raw'/><source file='/b'/></backingStore>"),
            TO_FILE,
            "qcow2",
            False,
            f"<disk type='file'>{DRIVER.format('qcow2')}<source file='/srv/fast/disk'/>{REST}",
            id="flattened",
        ),
        pytest.param(
            FILE.format("", "", "<backingStore/>"),
            TO_BLOCK,
            "raw",
            True,
            f"<disk type='block'>{DRIVER.format('raw')}<source dev='/dev/vg/disk'/><backingStore/>{REST}",
            id="file to block",
        ),
        pytest.param(
            FILE.format(" startupPolicy='optional'", SECLABEL, ""),
            TO_RBD,
            "raw",
            True,
            f"<disk type='network'>{DRIVER.format('raw')}{IN_NETWORK}{REST}",
            id="file to network",
        ),
        pytest.param(
            NAMED,
            TO_FILE,
            "qcow2",
            True,
            "<disk type='volume'><driver type='qcow2'/><source pool='fast' volume='disk'/><target dev='vdc'/></disk>",
            id="by pool and volume",
        ),
        pytest.param(
            NAMED,
            TO_RBD,
            "raw",
            True,
            f"<disk type='network'><driver type='raw'/>{IN_NETWORK}<target dev='vdc'/></disk>",
            id="libvirt opens no volume of an rbd pool",
        ),
        pytest.param(
            NETWORK,
            TO_FILE,
            "qcow2",
            True,
            "<disk type='file'><driver type='qcow2'/><source file='/srv/fast/disk'/><target dev='vdd'/></disk>",
            id="network to file",
        ),
        pytest.param(
            "<disk type='file'><source file='/srv/a'/><target dev='vda'/></disk>",
            TO_FILE,
            "raw",
            True,
            "<disk type='file'><source file='/srv/fast/disk'/><target dev='vda'/><driver type='raw'/></disk>",
            id="no driver before",
        ),
    ],
)
def test_put_source(disk: str, new: Place, form: str, keep: bool, expected: str) -> None:
    tree = xmltree.parse(disk)
    domains.put_source(tree, new, form, keep)
    assert plain(xmltree.text(tree)) == plain(expected)


WHOLE = "<domain><name>web</name><devices>{}</devices></domain>"


@pytest.mark.parametrize(
    ("disk", "path", "found", "elsewhere"),
    [
        pytest.param(FILE.format("", "", ""), "/srv/a", 1, False, id="file"),
        pytest.param(FILE.format("", "", ""), "/srv/b", 0, False, id="another file"),
        pytest.param(BLOCK, "/dev/vg/a", 1, False, id="block"),
        pytest.param(NAMED, "/nowhere", 1, False, id="pool and volume"),
        pytest.param(NETWORK, "rbd/a", 1, False, id="network"),
        pytest.param(
            FILE.format("", "", "") + BLOCK.replace("/dev/vg/a", "/srv/a"), "/srv/a", 2, False, id="two disks"
        ),
        pytest.param(
            FILE.format("", "", "<backingStore type='file'><source file='/srv/base'/></backingStore>"),
            "/srv/base",
            0,
            True,
            id="what a disk stands on",
        ),
        pytest.param(
            FILE.format("", "", "<mirror type='file'><source file='/srv/copy'/></mirror>"),
            "/srv/copy",
            0,
            True,
            id="what a disk is copied into",
        ),
    ],
)
def test_disks(disk: str, path: str, found: int, elsewhere: bool) -> None:
    mine, other = domains.disks(xmltree.parse(WHOLE.format(disk)), "images", "a", path, local=False)
    assert (len(mine), other) == (found, elsewhere)


SLICES = "<slices><slice type='storage' offset='1048576' size='1048576'/></slices>"
CHAIN = "<backingStore type='file'><format type='raw'/><source file='/b'>{}</source></backingStore>"


class Domain:
    """One definition, with or without a saved state."""

    def __init__(self, disk: str, saved: bool) -> None:
        self.text, self.saved = WHOLE.format(disk), saved

    def isPersistent(self) -> bool:  # noqa: N802  libvirt's names
        return True

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        return self.text

    def name(self) -> str:
        return "web"

    def hasManagedSaveImage(self, flags: int) -> bool:  # noqa: N802
        return self.saved


class Connection:
    local = False

    def __init__(self, *domains: Domain) -> None:
        self.domains = lambda: list(domains)


@pytest.mark.parametrize(
    ("disk", "saved", "word"),
    [
        pytest.param(FILE.format("", "", ""), False, "", id="plain"),
        pytest.param(FILE.format("", SLICES, ""), False, "slices", id="a part of the file"),
        pytest.param(BLOCK.replace("/dev/vg/a", "/srv/a").replace("'/><t", f"'>{SLICES}</source><t"), False, "slices"),
        pytest.param(FILE.format("", "", CHAIN.format(SLICES)), False, "", id="a part of what it stands on"),
        pytest.param(FILE.format("", "", "").replace("/srv/a", "/srv/b"), True, "", id="another disk"),
        pytest.param(FILE.format("", "", ""), True, "saved state", id="saved"),
        pytest.param(FILE.format("", "", CHAIN.format("").replace("'/b'", "'/srv/a'")), False, "other than a disk"),
    ],
)
def test_definitions_that_can_not_follow(disk: str, saved: bool, word: str) -> None:
    found = domains.defined(Connection(Domain(disk, saved)), "images", "a", "/srv/a")
    if not word:
        domains.refuse_unchangeable("volume 'images/a'", found)
        return
    with pytest.raises(StorageError, match=word) as caught:
        domains.refuse_unchangeable("volume 'images/a'", found)
    assert caught.value.code == "in_use"
