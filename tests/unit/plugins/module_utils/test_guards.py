# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards: names, paths of the system, mount points, nested and shared storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import guards
from ansible_collections.kvm.storage.plugins.module_utils.backend import Backend
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.fields import At, Each


def code_of(call, *arguments):
    try:
        call(*arguments)
    except StorageError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("name", "possible", "new"),
    [
        ("vms", True, True),
        ("web-01.qcow2", True, True),
        ("_a", True, True),
        ("a+b@c:d=e", True, True),
        ("a" * 200, True, True),
        ("a" * 201, True, False),
        ("Windows 10.raw", True, False),
        ("-rf", True, False),
        (".hidden", True, False),
        ("$(id)", True, False),
        ("{{ 7*7 }}", True, False),
        ("ümläut", True, False),
        ("a;b", True, False),
        ("١", True, False),
        ("a\u2028b", True, False),
        ("...", True, False),
        ("", False, False),
        (".", False, False),
        ("..", False, False),
        ("a/b", False, False),
        ("/", False, False),
        ("a\0", False, False),
        ("a\nb", False, False),
        ("a\n", False, False),
        ("a\tb", False, False),
        ("a\x7f", False, False),
        ("a\ud800", False, False),
        ("a\uffff", False, False),
    ],
)
def test_names(name, possible, new):
    assert code_of(guards.possible_name, "pool", name) == (None if possible else "bad_name")
    assert code_of(guards.new_name, "pool", name) == (None if new else "bad_name")


@given(st.text(max_size=30))
def test_a_new_name_is_a_possible_one_and_one_word_for_any_tool(name):
    if code_of(guards.new_name, "pool", name) is None:
        assert code_of(guards.possible_name, "pool", name) is None
        assert name.split() == [name]
        assert name.isascii()
        assert not name.startswith(("-", "."))
        assert os.path.basename(name) == name


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", "system_path"),
        ("/etc", "system_path"),
        ("/etc/libvirt", "system_path"),
        ("/etc/a/b/c", "system_path"),
        ("/usr", "system_path"),
        ("/usr/bin/x", "system_path"),
        ("/boot/efi", "system_path"),
        ("/proc/self", "system_path"),
        ("/dev/shm", "system_path"),
        ("/var", "system_path"),
        ("/var/lib", "system_path"),
        ("/var/lib/libvirt", "system_path"),
        ("/home", "system_path"),
        ("/srv", "system_path"),
        ("/tmp", "system_path"),
        ("/root", "system_path"),
        ("/var/lib/libvirt/images", None),
        ("/srv/images", None),
        ("/etcetera", None),
        ("/device", None),
        ("/home/a/images", None),
        ("/var/tmp/x", None),
        ("/data", None),
    ],
)
def test_system_paths(path, code):
    assert code_of(guards.refuse_system_path, "pool", path, False) == code
    assert code_of(guards.refuse_system_path, "pool", path, True) == code


def test_a_link_to_the_system_is_the_system(tmp_path):
    link = tmp_path / "images"
    link.symlink_to("/etc")
    assert code_of(guards.refuse_system_path, "pool", str(link), True) == "system_path"
    assert code_of(guards.refuse_system_path, "pool", str(link / "libvirt"), True) == "system_path"
    assert code_of(guards.refuse_system_path, "pool", str(link), False) is None  # another host's link


@pytest.mark.parametrize(
    ("path", "other", "found"),
    [
        ("/srv/a", "/srv", True),
        ("/srv", "/srv/a/b", True),
        ("/srv/a", "/srv/ab", False),
        ("/srv/ab", "/srv/a", False),
        ("/srv/a", "/srv/b", False),
        ("/", "/srv", True),
        ("/srv/a", "/srv/", True),
    ],
)
def test_nested(path, other, found):
    assert guards.nested(path, other) is found


FSTAB = """
# /srv/commented ext4
UUID=1  /               ext4  defaults 0 1
UUID=2  /srv/images/    xfs   defaults 0 2
  # indented comment /srv/no x x
UUID=3  none            swap  sw 0 0
tmpfs   /srv/with\\040space  tmpfs
nas:/x  /mnt/nas        nfs   noauto,_netdev
short   /srv/short
//srv/s /mnt/cifs cifs credentials=/root/c 0 0
"""


def test_fstab():
    points = ["/srv/images", "/srv/with space", "/mnt/nas", "/mnt/cifs"]
    assert guards.mount_points_of(FSTAB) == points
    assert guards.mount_points_of("") == []


@given(st.text())
def test_any_fstab_can_be_read(text):
    assert "/" not in guards.mount_points_of(text)


def test_an_unmounted_mount_point_is_named(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "outer/inner"
    inner.mkdir(parents=True)
    fstab = tmp_path / "fstab"
    fstab.write_text(f"a {outer} xfs\nb {inner} xfs\nc /proc proc\n")
    assert guards.unmounted(str(inner / "x"), str(fstab)) == str(inner)
    assert guards.unmounted(str(outer), str(fstab)) == str(outer)
    assert guards.unmounted(str(tmp_path), str(fstab)) == ""
    assert guards.unmounted(str(tmp_path / "outermost"), str(fstab)) == ""
    assert guards.unmounted("/proc/x", str(fstab)) == ""  # mounted
    assert guards.unmounted(str(outer), str(tmp_path / "missing")) == ""
    assert code_of(guards.require_mounted, "pool", str(tmp_path), True) == "not_mounted"
    assert code_of(guards.require_mounted, "pool", str(tmp_path), False) is None
    assert code_of(guards.require_mounted, "pool", "/proc", True) is None


HOSTS = Each("source/host", {"name": At("@name"), "port": At("@port", "int")})
SHARE = Backend(
    type="netfs",
    fields={"hosts": HOSTS, "source_path": At("source/dir/@path", "path")},
    operations={},
    conflicts_by=("hosts", "source_path"),
)
ALONE = Backend(type="dir", fields={}, operations={})


@pytest.mark.parametrize(
    ("backend", "one", "other", "same"),
    [
        (
            SHARE,
            {"hosts": [{"name": "a"}], "source_path": "/x"},
            {"hosts": [{"name": "a"}], "source_path": "/x/"},
            True,
        ),
        (
            SHARE,
            {"hosts": [{"name": "a"}], "source_path": "/x"},
            {"hosts": [{"name": "b"}], "source_path": "/x"},
            False,
        ),
        (
            SHARE,
            {"hosts": [{"name": "a"}], "source_path": "/x"},
            {"hosts": [{"name": "a"}], "source_path": "/y"},
            False,
        ),
        (
            SHARE,
            {"hosts": [{"name": "a"}, {"name": "b"}], "source_path": "/x"},
            {"hosts": [{"name": "c"}, {"name": "b"}], "source_path": "/x"},
            True,
        ),
        (SHARE, {"hosts": [{"name": "a"}]}, {"hosts": [{"name": "a"}], "source_path": "/x"}, False),
        (SHARE, {"hosts": [{"name": "a"}]}, {"hosts": [{"name": "a"}]}, True),
        (ALONE, {}, {}, False),
    ],
)
def test_same_storage(backend, one, other, same):
    for first, second in ((one, other), (other, one)):
        assert guards.same_storage(backend, first, second) is same


MOUNTS = """\
/dev/vda / ext4 rw 0 0
nas:/export {folder}/share nfs4 rw 0 0
nas:/b {folder}/two\\040words nfs4 rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "found"),
    [("share", True), ("two words", True), ("share/below", False), ("other", False), ("shar", False)],
)
def test_what_is_mounted_is_read_and_not_looked_at(tmp_path: Path, place: str, found: bool) -> None:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS.format(folder=tmp_path), encoding="utf-8")
    assert guards.mounted(str(tmp_path / place), str(table)) is found
