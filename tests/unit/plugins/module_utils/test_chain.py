# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a volume: the XML of domains, paths by meaning, and QEMU's locks."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import chain, images, xmltree
from ansible_collections.kvm.storage.plugins.module_utils.chain import Use
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

DOMAIN = """
<domain type='kvm'><name>web</name>
  <os><kernel>/boot/k</kernel><initrd>/srv/i</initrd><loader>/srv/code.fd</loader><nvram>/srv/vars.fd</nvram></os>
  <devices>
    <disk type='file'><source file='/srv/a.qcow2'/>
      <backingStore type='file'><source file='/srv/base.raw'/></backingStore></disk>
    <disk type='block'><source dev='/dev/vg/lv'/></disk>
    <disk type='dir'><source dir='/srv/dir'/></disk>
    <disk type='volume'><source pool='vms' volume='b'/></disk>
    <disk type='network'><source protocol='rbd' name='vms/c'><host name='mon'/></source></disk>
    <disk type='network'><source protocol='gluster' name='/vol/d'/></disk>
    <disk type='network'><source protocol='nbd'><host name='h'/></source></disk>
    <disk type='file' device='cdrom'/>
    <filesystem type='mount'><source dir='/srv/share'/></filesystem>
    <interface type='network'><source network='default'/></interface>
    <serial type='pty'><source path='/dev/pts/1'/></serial>
  </devices>
</domain>
"""


def uses(local=False):
    return chain.uses_in(xmltree.parse(DOMAIN), "web", True, local)


def test_every_kind_of_source():
    found = uses()
    assert {use.path for use in found if use.path} == {
        "/boot/k",
        "/srv/i",
        "/srv/code.fd",
        "/srv/vars.fd",
        "/srv/a.qcow2",
        "/srv/base.raw",
        "/dev/vg/lv",
        "/srv/dir",
        "/srv/share",
    }
    assert [(use.pool, use.volume) for use in found if use.pool] == [("vms", "b")]
    assert {use.network for use in found if use.network} == {"rbd:vms/c", "gluster:vol/d"}


@pytest.mark.parametrize(
    ("pool", "name", "path", "used"),
    [
        ("dirs", "a.qcow2", "/srv/a.qcow2", True),
        ("dirs", "base.raw", "/srv/base.raw", True),
        ("dirs", "other", "/srv/other", False),
        ("dirs", "a", "/srv/a", False),
        ("vms", "b", "/anywhere/b", True),
        ("vms", "bb", "/anywhere/bb", False),
        ("other", "b", "/anywhere/b", False),
        ("rbd", "c", "vms/c", True),
        ("rbd", "c", "other/c", False),
        ("vg", "lv", "/dev/vg/lv", True),
        ("gluster", "d", "gluster://host/vol/d", False),
    ],
)
def test_of_volume(pool, name, path, used):
    found = chain.of_volume(uses(), pool, name, path, False)
    if pool != "gluster":
        assert bool(found) is used
    assert all(use.domain == "web" for use in found)


@pytest.mark.parametrize(
    ("pool", "directory", "volumes", "used"),
    [
        ("x", "/srv", {}, True),
        ("x", "/srv/", {}, True),
        ("x", "/sr", {}, False),
        ("x", "/srv/sub", {}, False),
        ("vms", "", {}, True),
        ("x", "", {"c": "vms/c"}, True),
        ("x", "", {"c": "vms/d"}, False),
        ("x", "", {"lv": "/dev/vg/lv"}, True),
        ("x", "/opt", {"other": "/opt/other"}, False),
    ],
)
def test_of_pool(pool, directory, volumes, used):
    assert bool(chain.of_pool(uses(), pool, directory, volumes, False)) is used


def test_a_link_leads_to_the_same_file(tmp_path):
    image, link = tmp_path / "image", tmp_path / "link"
    image.touch()
    link.symlink_to(image)
    domain = xmltree.parse(f"<domain><devices><disk><source file='{link}'/></disk></devices></domain>")
    found = chain.uses_in(domain, "web", False, True)
    assert chain.of_volume(found, "p", "image", str(image), True)
    assert chain.of_pool(found, "p", str(tmp_path), {}, True)
    assert not chain.of_volume(chain.uses_in(domain, "web", False, False), "p", "image", str(image), False)


def test_names():
    found = [Use("b", False, path="/x"), Use("a", True, path="/x"), Use("a", True, path="/y")]
    assert chain.names(found) == "'a' (running), 'b' (defined)"


class Domain:
    """A domain whose persistent XML is another than its live one: a disk was hot-plugged, another only defined."""

    def __init__(self, running, live, persistent):
        self.running, self.texts = running, {0: live, chain.INACTIVE_XML: persistent}

    def isActive(self):  # noqa: N802  libvirt's names
        return self.running

    def isPersistent(self):  # noqa: N802
        return True

    def XMLDesc(self, flags):  # noqa: N802
        return self.texts[flags]

    def name(self):
        return "web"


class Connection:
    local = False

    def __init__(self, *domains):
        self.domains = lambda: list(domains)


def disk(path):
    return f"<domain><devices><disk><source file='{path}'/></disk></devices></domain>"


def test_both_layers_of_a_running_domain_count_for_what_destroys():
    running, defined = Domain(1, disk("/live"), disk("/next")), Domain(0, disk("/off"), "")
    connection = Connection(running, defined)
    assert [use.path for use in chain.find_uses(connection, running_only=False)] == ["/live", "/next", "/off"]
    assert [use.path for use in chain.find_uses(connection, running_only=True)] == ["/live"]


def test_qemus_locks_are_seen(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    assert not chain.image_locked(str(image))
    assert not chain.image_locked(str(tmp_path / "missing"))
    for first in (100, 200):  # QEMU's own, see its block/file-posix.c
        for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK):
            descriptor = os.open(image, os.O_RDWR)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, first + 3, 1, 0))
                assert chain.image_locked(str(image))
            finally:
                os.close(descriptor)
    assert not chain.image_locked(str(image))


def test_what_lies_on_a_silent_share_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    probe, follow = images.probe, os.path.realpath
    monkeypatch.setattr(images, "probe", lambda path: looked.append(path) or probe(path))
    monkeypatch.setattr(os.path, "realpath", lambda path: looked.append(path) or follow(path))
    domain = xmltree.parse("<domain><disk><source file='/srv/gone/disk.qcow2'/></disk></domain>")
    found = chain.uses_in(domain, "web", False, True, ("/srv/gone/",))
    assert ([use.path for use in found], looked) == (["/srv/gone/disk.qcow2"], [])


def test_a_file_that_nobody_here_may_read_blinds_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(images, "open_image", refuse)
    with pytest.raises(StorageError, match="neither root nor its owner") as caught:
        chain.image_locked("/srv/share/disk.raw")
    assert caught.value.code == "guard_unavailable"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/srv/base", "/srv/base"),
        ("base", "/pool/base"),
        ("../other/base", "/pool/../other/base"),
        ("file:/srv/base", "/srv/base"),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"/srv/base"}}', "/srv/base"),
        ('json:{"driver":"qcow2","file.filename":"/srv/base"}', "/srv/base"),
        ('json:{"driver":"raw","file":{"driver":"qcow2","file":{"filename":"base"}}}', "/pool/base"),
        ('json:{"driver":"null-co"}', '/pool/json:{"driver":"null-co"}'),
        ("json:[1]", "/pool/json:[1]"),
        ("json:{", "/pool/json:{"),
        ("json:" + "[" * 1000, "/pool/json:" + "[" * 1000),
    ],
)
def test_what_a_header_means_by_the_name_of_its_base(name: str, path: str) -> None:
    assert chain.base_of("/pool", name) == path
