# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes of real backends become files: what a guest sees, in any format, and nothing half made."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import importlib
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from ansible_collections.kvm.storage.plugins.module_utils import files
from tests.integration.helpers import MIB, UTILS, Host, connected, poison, switched_off
from tests.integration.inputs.counts import SOAK
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

SIZE = 8 * MIB
DATA = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(3 * MIB // 32))
DISK = bytes(MIB) + DATA
RAW = {"pool": "images", "name": "disk.raw", "format": "raw"}
QCOW2 = {"pool": "images", "name": "disk.qcow2", "format": "qcow2"}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    """A pool of files with the same disk as raw and as qcow2, and a folder for downloads."""
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    (scratch / "out").mkdir()
    source = scratch / "source.raw"
    with open(source, "wb") as file:
        file.write(DISK)
        file.truncate(SIZE)
    for one in (RAW, QCOW2):
        host.ok("volume_upload", **one, src=str(source), remote_src=True, source_format="raw")
    source.unlink()
    yield scratch / "images"


def seen(*argv: str) -> bytes:
    """What a guest sees, without the zeroes at its end; argv are the arguments of qemu-img that name the image."""
    out = Path(f"/var/tmp/download-{os.getpid()}.raw")
    try:
        subprocess.run(["qemu-img", "convert", "-O", "raw", *argv, str(out)], check=True, capture_output=True)
        return out.read_bytes().rstrip(b"\0")
    finally:
        out.unlink(missing_ok=True)


@pytest.mark.parametrize("volume", [RAW, QCOW2], ids=["raw", "qcow2"])
@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"])
def test_into_every_format(host: Host, images: Path, scratch: Path, volume: dict[str, Any], form: str) -> None:
    dest = scratch / "out" / f"copy.{form}"
    done = host.converge("volume_download", ["download"], str(dest), **volume, dest=str(dest), dest_format=form)
    assert seen("-f", form, str(dest)) == DISK
    assert done["checksum"] == f"sha256:{hashlib.sha256(dest.read_bytes()).hexdigest()}"
    again = host.unchanged("volume_download", **volume, dest=str(dest), dest_format=form)
    assert again["checksum"] == done["checksum"]
    assert (dest.stat().st_mode & 0o777, dest.stat().st_blocks * 512 < 5 * MIB) == (0o600, True)
    assert os.listdir(scratch / "out") == [dest.name]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-d", "-c", "-q"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("volume", [RAW, QCOW2], ids=["raw", "qcow2"])
@pytest.mark.parametrize(
    ("kind", "unpack"), [("gz", gzip.decompress), ("bz2", bz2.decompress), ("xz", lzma.decompress), ("zst", zstd)]
)
def test_compressed(host: Host, images: Path, scratch: Path, volume: dict[str, Any], kind: str, unpack: Any) -> None:
    dest = scratch / "out/copy"
    wanted = {**volume, "dest": str(dest), "compression": kind, "permissions": {"mode": "0640"}}
    done = host.converge("volume_download", ["download"], **wanted)
    assert done["checksum"] == f"sha256:{hashlib.sha256(dest.read_bytes()).hexdigest()}"
    plain = scratch / "plain"
    plain.write_bytes(unpack(dest.read_bytes()))
    assert seen("-f", volume["format"], str(plain)) == DISK
    assert dest.stat().st_mode & 0o777 == 0o640


def test_the_disk_of_a_guest_is_not_replaced(host: Host, images: Path, scratch: Path) -> None:
    dest = images / "web.raw"
    host.ok("volume", pool="images", name="web.raw", format="raw", capacity="1MiB")
    with connected(host.uri) as connection:
        start_guest(connection, "web", disk_xml(str(dest)))
    wanted = {**RAW, "dest": str(dest), "replace": True}
    host.refused("volume_download", "in_use", "disk of a guest", **wanted)
    with mock.patch(f"{UTILS}chain.image_locked", return_value=False):
        host.refused("volume_download", "in_use", "disk of a guest", **wanted)
    with mock.patch(f"{UTILS}chain.uses", return_value=[]):
        host.refused("volume_download", "in_use", "disk of a guest", **wanted)


def test_what_is_there_is_kept_or_replaced(host: Host, images: Path, scratch: Path) -> None:
    dest = scratch / "out/copy"
    dest.write_bytes(b"mine")
    wanted = {**RAW, "dest": str(dest)}
    host.refused("volume_download", "would_overwrite", "replace: true", **wanted)
    host.converge("volume_download", ["download"], "another", **wanted, replace=True)
    assert seen("-f", "raw", str(dest)) == DISK
    with open(dest, "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"x")
    host.refused("volume_download", "would_overwrite", **wanted)
    (scratch / f"out/.copy.kvm.storage-{files.this_host()}").write_bytes(b"left by a killed run")
    host.converge("volume_download", ["download"], **wanted, replace=True)
    for place, code in [
        (scratch / "out", "bad_value"),
        (scratch / "none/copy", "bad_value"),
        (scratch / "out/link", "not_a_file"),
    ]:
        (scratch / "out/link").unlink(missing_ok=True)
        (scratch / "out/link").symlink_to(dest)
        host.refused("volume_download", code, **{**wanted, "dest": str(place), "replace": True})
    assert sorted(os.listdir(scratch / "out")) == ["copy", "link"]


def test_an_overlay_comes_whole(host: Host, images: Path, scratch: Path) -> None:
    over = {**QCOW2, "name": "over.qcow2"}
    host.ok("volume", **over, backing={"volume": "disk.qcow2", "format": "qcow2"})
    dest = scratch / "out/copy.qcow2"
    host.converge("volume_download", ["download"], **over, dest=str(dest))
    assert seen("-f", "qcow2", str(dest)) == DISK
    (images / "disk.qcow2").rename(images / "gone.qcow2")
    assert seen("-f", "qcow2", str(dest)) == DISK


def test_guards(host: Host, images: Path, scratch: Path) -> None:
    dest = str(scratch / "out/copy")
    host.refused("volume_download", "format_undeclared", pool="images", name="disk.raw", dest=dest)
    host.refused("volume_download", "format_mismatch", **{**QCOW2, "format": "raw"}, dest=dest)
    host.refused("volume_download", "no_volume", **{**RAW, "name": "none"}, dest=dest)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web", disk_xml(f"{images}/disk.qcow2", driver="qcow2"))
        host.refused("volume_download", "in_use", "'web' (running)", **QCOW2, dest=dest)
        guest.destroy()
    poison(images / "disk.raw", scratch / "canary")
    with mock.patch(f"{UTILS}qemu_img.run", side_effect=AssertionError("a tool was asked")):
        host.refused("volume_download", "format_mismatch", **RAW, dest=dest)
        host.refused("volume_download", "format_undeclared", **{**RAW, "format": "qcow2"}, dest=dest)
    (images / "link.raw").symlink_to("/etc/hostname")
    host.refused("volume_download", "not_a_volume", **{**RAW, "name": "link.raw"}, dest=dest)
    assert os.listdir(scratch / "out") == []


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("compression", ["none", "gz"])
def test_a_guest_that_comes_while_it_is_read(
    host: Host, images: Path, scratch: Path, compression: str, locks: bool
) -> None:
    """QEMU does not open it as long as it is read; where the file system has no locks, what was read is nothing."""
    real = importlib.import_module(f"{UTILS}streams").Target
    wanted = {**RAW, "dest": str(scratch / "out/copy"), "compression": compression}
    with connected(host.uri) as connection:
        guest = connection.defineXML(domain_xml("web", disk_xml(f"{images}/disk.raw")))

        def starting(*given: Any) -> Any:
            if not locks:
                guest.create()
                with open(images / "disk.raw", "r+b") as file:
                    file.write(b"what the guest writes")
                guest.destroy()
                return real(*given)
            with pytest.raises(libvirt.libvirtError, match="lock"):
                guest.create()
            return real(*given)

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch(f"{UTILS}streams.Target", starting))
            if locks:
                host.ok("volume_download", **wanted)
                return
            stack.enter_context(switched_off("exclusive:unwritten"))
            host.failed("volume_download", "in_use", "while it was read", **wanted)
    assert os.listdir(scratch / "out") == []


def test_what_fails_leaves_nothing(host: Host, images: Path, scratch: Path) -> None:
    dest = str(scratch / "out/copy")
    for name in ("streams.copy", "files.publish"):
        with mock.patch(f"{UTILS}{name}", side_effect=OSError(28, "No space left on device")):
            host.failed("volume_download", "system_refused", "No space", **RAW, dest=dest)
    with mock.patch(f"{UTILS}qemu_img.compare", return_value=False):
        host.failed("volume_download", "not_equal", **QCOW2, dest=dest)
    assert os.listdir(scratch / "out") == []


def test_rbd(host: Host, images: Path, scratch: Path, ceph: Ceph) -> None:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    host.ok("volume_upload", pool="vms", name="web01", src=f"{images}/disk.raw", remote_src=True, source_format="raw")
    for form, compression in (("raw", "none"), ("qcow2", "none"), ("raw", "zst")):
        dest = scratch / f"out/{form}.{compression}"
        wanted = {"pool": "vms", "name": "web01", "dest": str(dest), "dest_format": form, "compression": compression}
        host.converge("volume_download", ["download"], **wanted)
        if compression == "none":
            assert seen("-f", form, str(dest)) == DISK
    host.ok("volume", pool="vms", name="web01", state="absent")


def test_lun(host: Host, scratch: Path, iscsi: Target) -> None:
    pool = {"name": "luns", "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool, hosts=[{"name": iscsi.host, "port": iscsi.port}])
    dest = scratch / "lun.qcow2"
    wanted = {"pool": "luns", "name": "unit:0:0:1", "dest": str(dest), "dest_format": "qcow2"}
    host.converge("volume_download", ["download"], **wanted)
    url = f"iscsi://{iscsi.host}:{iscsi.port}/{iscsi.iqn_open}/1"
    assert seen("-f", "qcow2", str(dest)) == seen("-f", "raw", url)


@pytest.mark.skipif(not SOAK, reason="libgfapi takes ten seconds a look; test_matrix.py does it once")
def test_gluster(host: Host, images: Path, scratch: Path, gluster: Gluster) -> None:
    url = f"gluster://{gluster.host}/{gluster.volume}/web02.raw"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", f"{images}/disk.raw", url]
    subprocess.run(command, check=True, capture_output=True)
    host.ok("pool_gluster", name="bricks", hosts=[{"name": gluster.host}], source_name=gluster.volume)
    dest = scratch / "out/copy.raw"
    host.converge("volume_download", ["download"], pool="bricks", name="web02.raw", dest=str(dest))
    assert seen("-f", "raw", str(dest)) == DISK


def test_partition(host: Host, images: Path, scratch: Path, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="gpt", build="if_blank")
    one = f"{disk_node.node.name}1"
    host.ok("volume_upload", pool="data", name=one, src=f"{images}/disk.raw", remote_src=True, source_format="raw")
    dest = scratch / "out/copy.raw"
    host.converge(
        "volume_download", ["download"], pool="data", name=one, dest=str(dest), format="none", dest_format="raw"
    )
    assert dest.read_bytes().rstrip(b"\0") == DISK
    assert dest.stat().st_blocks * 512 < 5 * MIB
