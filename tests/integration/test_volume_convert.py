# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that get another format: every pair, with their content compared by qemu-img itself."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, poison, qemu_img, switched_off
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd

FORMATS = ("raw", "qcow2", "vdi", "vmdk", "vpc")
PAIRS = [(one, other) for one in FORMATS for other in FORMATS if one != other]


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    yield scratch / "images"
    assert [name for name in os.listdir(scratch / "images") if name.startswith(".")] == []


def make(images: Path, name: str, form: str, size: int = 6 * MIB, *options: str) -> bytes:
    """A disk with some data, holes and an end that is no zero; the bytes that a guest sees."""
    content = bytearray(size)
    content[:4096] = os.urandom(4096)
    content[2 * MIB : 2 * MIB + 300_000] = os.urandom(300_000)
    content[-512:] = os.urandom(512)
    raw = images / f"{name}.bytes"
    raw.write_bytes(content)
    command = ["qemu-img", "convert", "-f", "raw", "-O", form, *options, str(raw), str(images / name)]
    subprocess.run(command, check=True)
    raw.unlink()
    (images / name).chmod(0o640)
    return bytes(content)


def content_of(path: Path, form: str) -> bytes:
    """What a guest sees, by qemu-img alone."""
    copy = path.parent.parent / "content"
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", str(path), str(copy)], check=True)
    found = copy.read_bytes()
    copy.unlink()
    return found


def task(form: str, to: str | dict[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "pool": "images",
        "name": "disk",
        "format": form,
        "to": {"format": to} if isinstance(to, str) else to,
        **options,
    }


@pytest.mark.parametrize(("form", "to"), PAIRS)
def test_every_pair(host: Host, images: Path, form: str, to: str) -> None:
    content = make(images, "disk", form)
    host.converge("volume_convert", ["convert"], "format:        ", to, **task(form, to))
    found = content_of(images / "disk", to)
    assert found[: len(content)] == content
    assert not found[len(content) :].strip(b"\0")
    if (form, to) != ("raw", "vpc") or len(found) == len(content):
        assert len(found) - len(content) < 2 * MIB
    assert os.stat(images / "disk").st_mode & 0o777 == 0o640
    host.unchanged("volume_convert", **task(to, to))


@pytest.mark.parametrize("to", FORMATS[1:])
@pytest.mark.parametrize("size", [512, 1000, 65536 + 512, 5 * MIB + 1536])
def test_odd_sizes(host: Host, images: Path, to: str, size: int) -> None:
    content = os.urandom(size)
    (images / "disk").write_bytes(content)
    host.converge("volume_convert", ["convert"], **task("raw", to))
    host.converge("volume_convert", ["convert"], **task(to, "raw"))
    found = (images / "disk").read_bytes()
    assert found[:size] == content
    assert not found[size:].strip(b"\0")
    assert len(found) - size < {"vmdk": 65536}.get(to, 1024)


def test_vhdx_is_a_source(host: Host, images: Path) -> None:
    content = make(images, "disk", "vhdx")
    host.converge("volume_convert", ["convert"], **task("vhdx", "qcow2"))
    assert content_of(images / "disk", "qcow2")[: len(content)] == content


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed(host: Host, images: Path, kind: str) -> None:
    (images / "disk").write_bytes(b"the same again " * 400_000)
    host.converge(
        "volume_convert",
        ["convert"],
        **task("raw", {"format": "qcow2", "compress": True, "compression_type": kind}),
    )
    assert content_of(images / "disk", "qcow2").rstrip(b"\0") == b"the same again " * 400_000
    assert os.stat(images / "disk").st_blocks * 512 < MIB
    assert qemu_img("-f", "qcow2", images / "disk")["format-specific"]["data"]["compression-type"] == kind


def test_what_is_not_given_of_a_qcow2_stays(host: Host, images: Path) -> None:
    make(images, "disk", "qcow2", 6 * MIB, "-o", "compat=1.1,cluster_size=32768,lazy_refcounts=on,refcount_bits=8")
    host.converge(
        "volume_convert", ["convert"], "extended_l2:", **task("qcow2", {"format": "qcow2", "extended_l2": True})
    )
    data = qemu_img("-f", "qcow2", images / "disk")
    assert data["cluster-size"] == 32768
    details = data["format-specific"]["data"]
    assert (details["lazy-refcounts"], details["refcount-bits"], details["extended-l2"]) == (True, 8, True)
    host.converge("volume_convert", ["convert"], **task("qcow2", {"format": "qcow2", "extended_l2": False}))
    host.converge("volume_convert", ["convert"], **task("qcow2", {"format": "qcow2", "compat": "0.10"}))
    assert qemu_img("-f", "qcow2", images / "disk")["format-specific"]["data"]["compat"] == "0.10"


def test_vhd_whose_geometry_is_less_than_its_size(host: Host, images: Path) -> None:
    """By its geometry, as qemu-img itself reads it, the end of the disk would be lost."""
    content = make(images, "disk", "vpc", 6 * MIB, "-o", "force_size=on,subformat=fixed")
    data = bytearray((images / "disk").read_bytes())
    footer = data[-512:]
    footer[28:32] = b"vbox"
    footer[56:60] = struct.pack(">HBB", 180, 4, 17)  # 12240 of its 12288 sectors
    footer[64:68] = b"\0" * 4
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    data[-512:] = footer
    (images / "disk").write_bytes(data)
    assert qemu_img("-f", "vpc", images / "disk")["virtual-size"] < 6 * MIB
    host.converge("volume_convert", ["convert"], **task("vpc", "raw"))
    assert (images / "disk").read_bytes() == content


def test_new_name(host: Host, images: Path) -> None:
    content = make(images, "disk", "raw")
    done = host.converge("volume_convert", ["copy", "drop_source"], **task("raw", "qcow2", new_name="disk.qcow2"))
    assert host.volumes("images") == ["disk.qcow2"]
    assert done["volume_path"] == f"{images}/disk.qcow2"
    assert content_of(images / "disk.qcow2", "qcow2") == content


# What stands against it


def test_guests(host: Host, images: Path) -> None:
    content = make(images, "disk", "raw")
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{images}/disk"), persistent=True)
        host.refused("volume_convert", "in_use", "'web01' (running)", **task("raw", "qcow2", update_domains=True))
        guest.destroy()
        host.refused("volume_convert", "in_use", "'web01'", "update_domains", **task("raw", "qcow2"))
        assert "raw" in guest.XMLDesc(2)
        host.converge("volume_convert", ["switch_domains", "convert"], **task("raw", "qcow2", update_domains=True))
        assert "type='qcow2'" in guest.XMLDesc(2)
        guest.create()
        guest.destroy()
        host.converge("volume_convert", ["convert", "switch_domains"], **task("qcow2", "raw", update_domains=True))
        assert "type='raw'" in guest.XMLDesc(2)
    assert content_of(images / "disk", "raw") == content


def test_guest_that_starts_meanwhile(host: Host, images: Path) -> None:
    """What it writes while the copy is made would be lost with the old file."""
    content = make(images, "disk", "raw")
    real = host_module("qemu_img").compare

    def compare(*args: Any, **options: Any) -> bool:
        equal = bool(real(*args, **options))
        with open(images / "disk", "r+b") as disk:
            disk.write(b"written by a guest")
        return equal

    with mock.patch(f"{UTILS}qemu_img.compare", compare):
        host.failed("volume_convert", "in_use", "meanwhile", **task("raw", "qcow2"))
    assert (images / "disk").read_bytes() == b"written by a guest" + content[18:]


def test_copy_that_is_not_equal(host: Host, images: Path) -> None:
    content = make(images, "disk", "raw")
    real = host_module("qemu_img").convert

    def convert(label: str, source: Any, target: Any, **options: Any) -> None:
        real(label, source, target, **options)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 1M 64k", target.path], check=True, stdout=-3)

    with mock.patch(f"{UTILS}qemu_img.convert", convert):
        host.failed("volume_convert", "not_equal", "nothing was changed", **task("raw", "qcow2"))
    assert (images / "disk").read_bytes() == content


def host_module(name: str) -> Any:
    import importlib

    return importlib.import_module(f"{UTILS}{name}")


def test_what_would_be_lost(host: Host, images: Path) -> None:
    make(images, "disk", "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "before", str(images / "disk")], check=True)
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh(0)
    host.refused("volume_convert", "has_snapshots", "drop_snapshots", **task("qcow2", "raw"))
    overlay = {"pool": "images", "name": "over", "format": "qcow2", "backing": {"volume": "disk", "format": "qcow2"}}
    host.ok("volume", **overlay)
    host.refused("volume_convert", "has_overlays", "images/over", **task("qcow2", "raw", drop_snapshots=True))
    host.refused("volume_convert", "has_backing", "flatten", **{**task("qcow2", "vdi"), "name": "over"})
    content = content_of(images / "over", "qcow2")
    host.converge("volume_convert", ["convert"], **{**task("qcow2", "vdi", flatten=True), "name": "over"})
    assert content_of(images / "over", "vdi")[: len(content)] == content
    host.converge("volume_convert", ["convert"], **task("qcow2", "raw", drop_snapshots=True))


def test_snapshots_that_are_files_beside_it(host: Host, images: Path) -> None:
    """What is reverted to them would be of another format than the domain says by then."""
    make(images, "disk", "qcow2")
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh(0)
    host.ok("volume_snapshot", pool="images", name="disk", format="qcow2", snapshot="one", kind="external")
    wanted = task("qcow2", "raw", flatten=True)
    host.refused("volume_convert", "has_snapshots", "'one'", **wanted)
    host.refused("volume_convert", "has_snapshots", "'one'", **wanted, new_name="other")
    with switched_off("volume:Volume.own_snapshots", []):
        host.ok("volume_convert", **wanted)
    assert images.joinpath("disk@one").exists()


def test_permissions_are_those_of_the_old_file_at_any_umask(host: Host, images: Path) -> None:
    """Nobody else can read the new file, not for a moment: whoever could open it then could read it for ever."""
    make(images, "disk", "raw")
    seen: set[int] = set()
    real = host_module("qemu_img").run

    def run(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        seen.update(os.stat(images / name).st_mode & 0o777 for name in os.listdir(images))
        return found

    old = os.umask(0)
    try:
        with mock.patch(f"{UTILS}qemu_img.run", run):
            host.ok("volume_convert", **task("raw", "qcow2"))
    finally:
        os.umask(old)
    assert seen == {0o600, 0o640}


def test_headers_that_guests_write(host: Host, images: Path, scratch: Path) -> None:
    """A raw disk that begins as a qcow2 passes for converted neither by its header nor by its domain."""
    make(images, "disk", "raw", 8 * MIB)
    poison(images / "disk", scratch / "canary")
    before = (images / "disk").read_bytes()
    host.refused("volume_convert", "backing_file", **task("raw", "qcow2"))
    host.refused("volume_convert", "format_mismatch", **task("raw", "vdi"))
    make(images, "inner", "qcow2")
    with open(images / "disk", "r+b") as disk:
        disk.write((images / "inner").read_bytes())
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk_xml(f"{images}/disk")))
        host.refused("volume_convert", "format_mismatch", **task("raw", "qcow2", update_domains=True))
    assert len(before) == os.stat(images / "disk").st_size


def test_interrupted_between_file_and_definition(host: Host, images: Path) -> None:
    make(images, "disk", "qcow2")
    with connected(host.uri) as connection:
        guest = connection.defineXML(domain_xml("web01", disk_xml(f"{images}/disk", driver="qcow2")))
        with mock.patch(f"{UTILS}domains.redefine", side_effect=OSError("killed")):
            host.failed("volume_convert", "system_refused", **task("qcow2", "raw", update_domains=True))
        with pytest.raises(libvirt.libvirtError):
            guest.create()  # not read as something else: it does not start
        host.converge("volume_convert", ["switch_domains"], **task("qcow2", "raw", update_domains=True))
        guest.create()
        guest.destroy()


@pytest.mark.parametrize("step", ["qemu_img.convert", "qemu_img.compare", "permissions.apply", "files.replace"])
def test_killed_runs_leave_the_old_image(host: Host, images: Path, step: str) -> None:
    content = make(images, "disk", "qcow2")

    class Killed(BaseException):
        pass

    with (
        mock.patch(f"{UTILS}{step}", side_effect=Killed),
        mock.patch(f"{UTILS}files.os.unlink"),  # nobody tidies up after a signal
        mock.patch("os.getpid", return_value=1),
        pytest.raises(Killed),
    ):
        host.run("volume_convert", **task("qcow2", "raw"))
    assert content_of(images / "disk", "qcow2") == content
    assert [name for name in os.listdir(images) if name != "disk"] != []
    host.converge("volume_convert", ["convert"], **task("qcow2", "raw"))
    assert (images / "disk").read_bytes() == content


def test_saved_state_and_passwords_of_a_definition(host: Host, images: Path) -> None:
    make(images, "disk", "raw")
    graphics = "<graphics type='vnc' port='-1' listen='127.0.0.1' passwd='hidden1'/><video><model type='vga'/></video>"
    with connected(host.uri) as connection:
        text = domain_xml("web01", disk_xml(f"{images}/disk")).replace("</devices>", f"{graphics}</devices>")
        guest = connection.defineXML(text)
        guest.create()
        guest.managedSave(0)
        host.refused("volume_convert", "in_use", "saved state", **task("raw", "qcow2", update_domains=True))
        guest.managedSaveRemove(0)
        done = host.converge(
            "volume_convert", ["switch_domains", "convert"], **task("raw", "qcow2", update_domains=True)
        )
        assert "hidden1" in guest.XMLDesc(3)
        assert "hidden1" not in str(done)


def test_options_that_can_not_be_meant(host: Host, images: Path) -> None:
    shutil.copy("/dev/null", images / "disk")
    os.truncate(images / "disk", MIB)
    for to in (
        {"format": "raw", "compress": True},
        {"format": "vdi", "cluster_size": "64KiB"},
        {"format": "qcow2", "compat": "0.10", "compression_type": "zstd"},
        {"format": "qcow2", "cluster_size": "4KiB", "extended_l2": True},
        {"format": "vmdk", "preallocation": "full"},
    ):
        host.refused("volume_convert", "bad_value", **task("raw", to))


def test_headroom(host: Host, scratch: Path, loop_device: Any) -> None:
    device = loop_device(64 << 20).device
    host.ok("pool_fs", name="small", path=f"{scratch}/small", device=device, source_format="ext4", build="if_blank")
    with open(scratch / "small/disk", "wb") as disk:
        disk.write(os.urandom(40 * MIB))
    host.refused("volume_convert", "no_space", **{**task("raw", "qcow2"), "pool": "small"})
