# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images by their headers, as the specifications of the formats draw them."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import images
from ansible_collections.kvm.storage.plugins.module_utils.images import Image

GIB = 2**30


def qcow2(version=3, capacity=GIB, backing=b"", offset=None, length=None):
    offset = (104 if backing else 0) if offset is None else offset
    length = len(backing) if length is None else length
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, offset, length, 16, capacity)
    return head.ljust(104, b"\0") + backing


def at(offset, data, head=b""):
    return head.ljust(offset, b"\0") + data


def footer(capacity=GIB):
    return at(48, struct.pack(">Q", capacity), b"conectix").ljust(512, b"\0")


@pytest.mark.parametrize(
    ("head", "tail", "size", "image"),
    [
        (qcow2(), b"", 200, Image("qcow2", GIB)),
        (qcow2(2), b"", 200, Image("qcow2", GIB)),
        (qcow2(1), b"", 200, Image("qcow", GIB)),
        (qcow2(backing=b"/srv/base.raw"), b"", 200, Image("qcow2", GIB, "/srv/base.raw")),
        (qcow2(backing=b"/etc/shadow"), b"", 200, Image("qcow2", GIB, "/etc/shadow")),
        (qcow2(backing="/srv/ü".encode()), b"", 200, Image("qcow2", GIB, "/srv/ü")),
        (qcow2(backing=b"/srv/\xff"), b"", 200, Image("qcow2", GIB, "/srv/\ufffd")),
        # a name that lies elsewhere in the file, or is longer than the format allows, is still one
        (qcow2(offset=8000, length=5), b"", 9000, Image("qcow2", GIB, "?")),
        (qcow2(offset=104, length=2000), b"", 9000, Image("qcow2", GIB, "?")),
        (qcow2(offset=2**63, length=5), b"", 9000, Image("qcow2", GIB, "?")),
        (qcow2(backing=b"x" * 1023), b"", 9000, Image("qcow2", GIB, "x" * 1023)),
        # cut short
        (b"QFI\xfb", b"", 4, Image("qcow2", None)),
        (qcow2()[:24], b"", 24, Image("qcow2", None)),
        (at(48, struct.pack("<Q", GIB), b"QED\0"), b"", 4096, Image("qed", GIB)),
        (b"QED\0", b"", 4, Image("qed", None)),
        (at(12, struct.pack("<Q", 2048), b"KDMV"), b"", 4096, Image("vmdk", 2**20)),
        (b"KDMV", b"", 4, Image("vmdk", None)),
        (b"COWD" + bytes(60), b"", 64, Image("vmdk", None)),
        (b"# Disk DescriptorFile\nversion=1\n", b"", 32, Image("vmdk", None)),
        (at(368, struct.pack("<Q", GIB), at(64, struct.pack("<I", 0xBEDA107F))), b"", 4096, Image("vdi", GIB)),
        (at(64, struct.pack("<I", 0xBEDA107F)), b"", 68, Image("vdi", None)),
        (b"vhdxfile" + bytes(100), b"", 108, Image("vhdx", None)),
        (footer(), bytes(512), 4096, Image("vpc", GIB)),  # dynamic: a copy of the footer comes first
        (bytes(4096), footer(), 8192, Image("vpc", GIB)),  # fixed: the footer is all
        (b"conectix", b"", 8, Image("vpc", None)),
        (b"LUKS\xba\xbe\0\1" + bytes(500), b"", 4096, Image("raw", 4096)),
        (b"", b"", 0, Image("raw", 0)),
        (bytes(4096), bytes(512), GIB, Image("raw", GIB)),
        (b"QFI\xfa" + bytes(100), b"", 104, Image("raw", 104)),
        (b"\xebH\x90 boot sector", b"", 512, Image("raw", 512)),
    ],
)
def test_image(head, tail, size, image):
    assert images.image_of(head, tail, size) == image


MAGICS = [b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"vhdxfile", b"conectix", b"# Disk DescriptorFile", b"LUKS\xba\xbe"]


@given(
    st.sampled_from([b"", *MAGICS]),
    st.binary(max_size=600),
    st.sampled_from([b"", b"conectix"]),
    st.binary(max_size=600),
)
def test_no_header_raises(magic, head, end, tail):
    image = images.image_of(magic + head, end + tail, len(head))
    assert image.capacity is None or image.capacity >= 0
    assert image.backing is None or len(image.backing) <= images.LONGEST_BACKING_NAME


@given(st.integers(0, 104), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_qcow2_header_cut_short_is_still_one(end, offset, length):
    """Whoever writes half of it must not make the file pass for raw."""
    image = images.image_of(qcow2(offset=offset, length=length)[: max(end, 4)], b"", 104)
    assert image.format in ("qcow2", "qcow")


def test_probe_and_foreign(tmp_path):
    plain, hard, folder = tmp_path / "plain", tmp_path / "hard", tmp_path / "folder"
    plain.write_bytes(qcow2(backing=b"/srv/base"))
    assert images.probe(str(plain)) == Image("qcow2", GIB, "/srv/base")
    assert images.foreign(str(plain)) == ""
    assert images.foreign(str(tmp_path / "missing")) == ""
    assert images.probe(str(tmp_path / "missing")) is None

    fixed = tmp_path / "fixed"
    fixed.write_bytes(bytes(5000) + footer())
    assert images.probe(str(fixed)) == Image("vpc", GIB)

    (tmp_path / "link").symlink_to(plain)
    assert images.foreign(str(tmp_path / "link")) == "a symbolic link"
    assert images.probe(str(tmp_path / "link")) is None
    folder.mkdir()
    assert images.foreign(str(folder)) == "a directory"
    assert images.probe(str(folder)) is None
    os.mkfifo(tmp_path / "fifo")
    assert images.foreign(str(tmp_path / "fifo")) == "a special file"
    assert images.probe(str(tmp_path / "fifo")) is None  # and does not wait for a writer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert images.foreign(str(tmp_path / "socket")) == "a special file"
    os.link(plain, hard)
    assert images.foreign(str(plain)).startswith("a file with more than one name")
    assert images.foreign("/dev/null") == "a special file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_acting_as_another_user_and_back() -> None:
    """setfsuid(2) is for this thread alone, and what it took away is there again afterwards."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        mine, theirs = Path(folder, "mine"), Path(folder, "theirs")
        for one in (mine, theirs):
            one.write_bytes(b"image")
            one.chmod(0o600)
        os.chown(theirs, 12345, 12345)
        with images.acting_as(12345, 12345):
            assert theirs.read_bytes() == b"image"
            with pytest.raises(PermissionError):
                mine.read_bytes()
        assert mine.read_bytes() == b"image"
