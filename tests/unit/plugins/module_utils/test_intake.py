# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may come in, and chains that are followed by plain paths only."""

from __future__ import annotations

import os
import struct

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import intake
from ansible_collections.kvm.storage.plugins.module_utils.headers import Backing, Fault, Inspected, Table
from ansible_collections.kvm.storage.plugins.module_utils.intake import Limits, refusals
from ansible_collections.kvm.storage.tests.unit.plugins.module_utils.disk_images import GIB, MIB, TIB, ask_qemu


def image(form="qcow2", formats=None, size=MIB, virtual_size=GIB, **others):
    return Inspected(form, (form,) if formats is None else formats, size, virtual_size, **others)


@pytest.mark.parametrize(
    ("found", "declared", "limits", "code"),
    [
        (image(), "qcow2", {}, ""),
        (image(), None, {}, ""),
        (image(), "raw", {}, "format_mismatch"),
        (image(), "qcow2", {"formats": ("raw",)}, "unsupported_format"),
        (image(formats=("qcow2", "vpc")), "qcow2", {}, "several_formats"),
        (image("vpc", ("luks", "vpc"), variant="fixed"), "vpc", {}, ""),
        (image("vpc", ("luks", "vpc"), variant="dynamic"), "vpc", {}, "several_formats"),
        (image("vpc", ("luks", "iso9660", "vpc"), variant="fixed"), "vpc", {}, "several_formats"),
        (image("vpc", ("qcow2", "vpc"), variant="fixed"), "vpc", {}, "several_formats"),
        (image("raw", ("iso9660",)), "raw", {}, ""),
        (image("luks"), "luks", {}, "unsupported_format"),
        (image("luks"), "luks", {"formats": ("luks",)}, ""),
        (image("gz"), None, {}, "compressed"),
        (image("raw", ("gz",)), "raw", {}, ""),
        (image("qed"), "qed", {}, "unsupported_format"),
        (image("qed", backing=Backing("/etc/shadow")), "qed", {"formats": ("qed",)}, "backing_file"),
        (image(backing=Backing("b", "raw")), "qcow2", {}, "backing_file"),
        (image(backing=Backing("b", "raw")), "qcow2", {"backing": True}, ""),
        (image("vmdk", backing=Backing("b")), "vmdk", {"backing": True}, "backing_file"),
        (image(data_file="/etc/shadow"), "qcow2", {"backing": True}, "data_file"),
        (image("vmdk", extents=("/etc/shadow",)), "vmdk", {}, "external_extents"),
        (image(encrypted="aes"), "qcow2", {}, "encryption"),
        (image(encrypted="luks"), "qcow2", {}, ""),
        (image(unknown_features=32), "qcow2", {}, "unknown_features"),
        (image(faults=[Fault("corrupt", "it is")]), "qcow2", {}, "corrupt"),
        (image(notes=[Fault("dirty", "it is")]), "qcow2", {}, ""),
        (image(virtual_size=None), "qcow2", {}, "bad_header"),
        (image(virtual_size=0), "qcow2", {}, "empty"),
        (image(virtual_size=513), "qcow2", {}, "bad_header"),
        (image(virtual_size=64 * TIB), "qcow2", {}, ""),
        (image(virtual_size=64 * TIB + 512), "qcow2", {}, "too_large"),
        (image(virtual_size=2**63 - 512), "qcow2", {}, "too_large"),
        (image(virtual_size=GIB), "qcow2", {"virtual_size": GIB - 512}, "too_large"),
        (image(tables=[Table("L1 table", 0, MIB)]), "qcow2", {}, ""),
        (image(tables=[Table("L1 table", 1, MIB)]), "qcow2", {}, "bad_table"),
        (image(tables=[Table("L1 table", 0, 4096, most=4095)]), "qcow2", {}, "bad_table"),
        (image(tables=[Table("L1 table", 8, 4096, align=512)]), "qcow2", {}, "bad_table"),
        (image(tables=[Table("L1 table", 0, 4096)]), "qcow2", {"table": 4095}, "bad_table"),
    ],
)
def test_refusals(found, declared, limits, code):
    said = refusals(found, declared, Limits(**limits))
    assert [refusal.code for refusal in said] == ([code] if code else [])
    for refusal in said:
        assert refusal.reason and refusal.way_out and ";" not in refusal.reason


def test_every_reason_is_said():
    found = image(backing=Backing("b"), data_file="d", unknown_features=32, virtual_size=0)
    assert [refusal.code for refusal in refusals(found)] == ["backing_file", "data_file", "unknown_features", "empty"]


def test_notes():
    found = image(encrypted="luks", notes=[Fault("dirty", "it was not closed")])
    assert intake.notes(found) == ["it was not closed", "it is encrypted"]
    assert intake.notes(image("raw", ("gz",)), "raw") and not intake.notes(image())


@pytest.mark.parametrize(
    ("name", "shown"),
    [("/srv/a", "'/srv/a'"), ("\udcff\n", r"'\udcff\n'"), ("x" * 2000, f"'{'x' * 120}...'"), ("?", "another file")],
)
def test_a_name_out_of_a_header_is_fit_for_a_message(name, shown):
    assert intake.shown(name) == shown


# Chains ------------------------------------------------------------------------------------------------------------


def overlay(path, backing=b"", form=b"raw", size=MIB):
    """A qcow2 of three clusters of 2 KiB that stands on something."""
    extension = struct.pack(">II", 0xE2792ACA, len(form)) + form.ljust(-(-len(form) // 8) * 8, b"\0") if form else b""
    end = 112 + len(extension) + 8
    head = struct.pack(
        ">4sIQIIQIIQQII", b"QFI\xfb", 3, end if backing else 0, len(backing), 11, size, 0, 2, 4096, 2048, 1, 0
    )
    head += struct.pack(">QQQQII8x", 0, 0, 0, 0, 4, 112)
    path.write_bytes((head + extension + bytes(8) + backing).ljust(6144, b"\0"))
    return path


@pytest.fixture
def pools(tmp_path):
    """Two directories of pools, and a file beside them that nobody may open."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "canary").write_bytes(bytes(4096))
    (tmp_path / "one" / "base").write_bytes(bytes(4096))
    return tmp_path


def followed(pools, top, **others):
    return intake.chain(str(top), [str(pools / "one"), f"{pools / 'two'}/"], "qcow2", **others)


def test_a_chain(pools):
    (pools / "one" / "sub").mkdir()
    overlay(pools / "one" / "sub" / "a", f"{pools}/one/base".encode())
    overlay(pools / "one" / "b", b"sub/a", b"qcow2")
    top = overlay(pools / "two" / "c", f"{pools}/one/./b".encode(), b"qcow2")
    found = followed(pools, top)
    assert found.refusal is None
    assert [os.path.relpath(one.path, pools) for one in found.members] == ["two/c", "one/b", "one/sub/a", "one/base"]
    told = ask_qemu(str(top), "qcow2")
    assert (told.status, told.size, told.others) == (0, found.members[0].found.virtual_size, [f"{pools}/one/./b"])


# What QEMU or libvirt takes for more than a name of a file, and what is none: refused without a look at the disk.
URIS = [
    *(b'json:{"driver":"%s","filename":"CANARY"}' % driver for driver in (b"file", b"raw", b"nbd", b"host_device")),
    b'json:{"file":{"driver":"https","url":"https://127.0.0.1/x"}}',
    b"json:",
    b"file:CANARY",
    b"file://CANARY",
    b"FILE:CANARY",
    b"nbd:127.0.0.1:10809",
    b"nbd:unix:/run/nbd",
    b"nbd://127.0.0.1/x",
    b"nbd+tcp://127.0.0.1/x",
    b"nbd+unix:///x?socket=/run/nbd",
    b"nbds://127.0.0.1/x",
    b"http://127.0.0.1/x",
    b"https://127.0.0.1/x",
    b"ftp://127.0.0.1/x",
    b"ftps://127.0.0.1/x",
    b"tftp://127.0.0.1/x",
    b"ssh://root@127.0.0.1/etc/shadow",
    b"sftp://127.0.0.1/x",
    b"rbd:vms/x",
    b"rbd:vms/x:conf=CANARY",
    b"iscsi://127.0.0.1/iqn.2026-01.com.example:a/0",
    b"iser://127.0.0.1/iqn.2026-01.com.example:a/0",
    b"gluster://127.0.0.1/vol/x",
    b"gluster+unix:///vol/x?socket=/run/x",
    b"gluster+rdma://127.0.0.1/vol/x",
    b"nfs://127.0.0.1/export/x",
    b"sheepdog:x",
    b"sheepdog+unix:///x?socket=/run/x",
    b"vxhs://127.0.0.1:9999/x",
    b"nvme://0000:01:00.0/1",
    b"archipelago:x",
    b"fat:/etc",
    b"fat:rw:/etc",
    b"fat:floppy:/etc",
    b"blkdebug::CANARY",
    b"blkdebug:CANARY:x",
    b"blkverify:CANARY:x",
    b"blkreplay:CANARY",
    b"quorum:CANARY",
    b"null-co://",
    b"null-aio://",
    b"host_device:/dev/sda",
    b"host_cdrom:/dev/sr0",
    b"raw:CANARY",
    b"vvfat:/etc",
    b"fd:3",
    b"/dev/fdset/1",
    b"driver=file,filename=CANARY",
    b"file.filename=CANARY",
    b"filename=CANARY",
    b"/dev/sda",
    b"/dev/zero",
    b"/dev/../dev/sda",
    b"/proc/self/mem",
    b"/proc/1/root/etc/shadow",
    b"/sys/kernel/x",
    b"../canary",
    b"../one/../canary",
    b"POOLS/one/../canary",
    b"sub/../../canary",
    b"base\n",
    b"\x01base",
    b"ba\0se",
    b"nbd://\xff",
]
NAMES = [
    b"/etc/shadow",
    b"//etc/shadow",
    b"CANARY",
    b"POOLS/one",
    b"POOLS/one/",
    b"POOLS/onebase",
    b".",
    b"$(id)/base",
    b"missing",
    b"base/base",
    b"x" * 300,
]


@pytest.mark.parametrize("name", URIS + NAMES, ids=repr)
def test_a_name_that_is_not_followed(pools, monkeypatch, name):
    real, names = os.open, []

    def noted(path, flags, mode=0o777, *, dir_fd=None):
        names.append(os.fsdecode(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    written = name.replace(b"CANARY", bytes(pools / "canary")).replace(b"POOLS", bytes(pools))
    top = overlay(pools / "one" / "top", written)
    monkeypatch.setattr(intake.os, "open", noted)
    found = followed(pools, top)
    assert found.refusal.code in ("bad_backing", "backing_outside")
    assert found.refusal.reason.isprintable() and found.refusal.way_out
    assert len(found.members) == 1
    assert names[:2] == [str(pools / "one"), "top"]
    assert len(names) == 2 or name in NAMES
    if name.startswith((b"/dev/", b"/proc/", b"/sys/")) and b".." not in name:
        assert "a device or the kernel's" in found.refusal.reason
    assert not {"canary", "shadow", "sda", str(pools / "canary"), "..", "/etc"} & set(names)
    assert all("/" not in one or one == str(pools / "one") for one in names)


def test_there_are_enough_of_them():
    assert len(set(URIS)) >= 50


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda one: overlay(one / "top", b"top", b"qcow2"), "chain_loop", "top'"),
        (
            lambda one: (overlay(one / "top", b"a", b"qcow2"), overlay(one / "a", b"./top", b"qcow2")),
            "chain_loop",
            "top'",
        ),
        (lambda one: overlay(one / "top", b"base", b""), "format_undeclared", "'base'"),
        (lambda one: overlay(one / "top", b"base", b"qcow2"), "format_mismatch", "base'"),
        (lambda one: overlay(one / "top", b"base", b"luks"), "format_mismatch", "base'"),
        (lambda one: (overlay(one / "top", b"a", b"raw"), overlay(one / "a", b"base")), "format_mismatch", "a'"),
        (lambda one: (overlay(one / "top", b"a", b"qed"), overlay(one / "a", b"base")), "format_mismatch", "a'"),
        (lambda one: (overlay(one / "top", b"l"), os.symlink("base", one / "l")), "bad_backing", "links"),
        (lambda one: (overlay(one / "top", b"l"), os.symlink("/etc/shadow", one / "l")), "bad_backing", "links"),
        (lambda one: (overlay(one / "top", b"d/base"), os.symlink(".", one / "d")), "bad_backing", "links"),
        # the kernel goes up from where a link leads, so what the text says is not what a tool opens
        (lambda one: (overlay(one / "top", b"d/../base"), os.symlink("/etc", one / "d")), "bad_backing", "goes up"),
        (lambda one: (overlay(one / "top", b"d/../base"), os.mkdir(one / "d")), "bad_backing", "goes up"),
        (lambda one: (overlay(one / "top", b"l"), os.link(one / "base", one / "l")), "bad_backing", "hard links"),
        (lambda one: (overlay(one / "top", b"l"), os.mkfifo(one / "l")), "bad_backing", "plain file"),
        (lambda one: (overlay(one / "top", b"l"), os.mkdir(one / "l")), "bad_backing", "plain file"),
        (lambda one: os.symlink("base", one / "top"), "bad_backing", "links"),
        (lambda one: (overlay(one / "top", b"l"), (one / "l").write_bytes(b"")), "empty", "l'"),
    ],
)
def test_a_chain_that_is_refused(pools, make, code, words):
    make(pools / "one")
    found = followed(pools, pools / "one" / "top")
    assert found.refusal.code == code
    assert words in found.refusal.reason


@pytest.mark.parametrize(("overlays", "code"), [(199, None), (200, "chain_depth"), (250, "chain_depth")])
def test_a_deep_chain(pools, overlays, code):
    """The base is a member, too."""
    overlay(pools / "one" / "0", b"base")
    for number in range(1, overlays):
        overlay(pools / "one" / str(number), str(number - 1).encode(), b"qcow2")
    found = followed(pools, pools / "one" / str(overlays - 1))
    assert (found.refusal and found.refusal.code) == code
    assert len(found.members) == min(overlays + 1, 200)


def test_a_chain_keeps_no_descriptor(pools):
    top = overlay(pools / "one" / "top", b"base")
    before = os.listdir("/proc/self/fd")
    for path in (top, pools / "one" / "missing", pools / "canary"):
        followed(pools, path)
        assert os.listdir("/proc/self/fd") == before


def test_a_small_limit(pools):
    top = overlay(pools / "one" / "top", b"base")
    assert followed(pools, top, limits=Limits(depth=1)).refusal.code == "chain_depth"
    assert followed(pools, top, limits=Limits(virtual_size=512)).refusal.code == "too_large"
