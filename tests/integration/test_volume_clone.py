# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clones on real backends: what a guest sees in the clone is what it saw in the source, and nothing half made stays."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, make_image, qemu_img
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

SIZE = 8 * MIB
BASE = {"pool": "images", "volume": "base.qcow2", "format": "qcow2"}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    """A pool of files with a qcow2 of which some is written."""
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    host.ok("volume", pool="images", name="base.qcow2", format="qcow2", capacity=str(SIZE))
    fill(scratch / "images/base.qcow2", "qcow2")
    return scratch / "images"


def fill(path: Path | str, form: str, *, size: int = 3 * MIB, seed: int = 1) -> None:
    """Write a pattern that is at no place the same."""
    data = b"".join(hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(size // 32))
    raw = f"{path}.data"
    Path(raw).write_bytes(data)
    try:
        subprocess.run(
            ["qemu-io", "-f", form, "-c", f"write -s {raw} {MIB} {size}", str(path)], check=True, capture_output=True
        )
    finally:
        os.unlink(raw)


def content(*argv: str) -> str:
    """The checksum of what a guest sees; argv are the arguments of qemu-img that name the image."""
    found = subprocess.run(["qemu-img", "convert", "-O", "raw", *argv, "/dev/stdout"], check=False, capture_output=True)
    if found.returncode == 0 and found.stdout:
        return hashlib.sha256(found.stdout.rstrip(b"\0")).hexdigest()
    out = Path(f"/var/tmp/content-{os.getpid()}.raw")
    try:
        subprocess.run(["qemu-img", "convert", "-O", "raw", *argv, str(out)], check=True)
        return hashlib.sha256(out.read_bytes().rstrip(b"\0")).hexdigest()
    finally:
        out.unlink(missing_ok=True)


def of_file(path: Path | str, form: str) -> str:
    return content("-f", form, str(path))


def clone(name: str, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"pool": "images", "name": name, "source": source, **more}


@pytest.mark.parametrize("form", ["raw", "qcow2", "qed", "vdi", "vmdk", "vpc"])
def test_into_every_format(host: Host, images: Path, form: str) -> None:
    wanted = clone(f"copy.{form}", {**BASE, "mode": "full", "verify": True}, format=form)
    undo = {"pool": "images", "name": f"copy.{form}", "state": "absent"}
    before = of_file(images / "base.qcow2", "qcow2")
    host.converge("volume_clone", ["clone"], "images/base.qcow2", **wanted)
    assert qemu_img("-f", form, images / f"copy.{form}")["virtual-size"] >= SIZE
    assert of_file(images / f"copy.{form}", form) == before == of_file(images / "base.qcow2", "qcow2")
    assert (images / f"copy.{form}").stat().st_mode & 0o777 == 0o600
    host.converge("volume", ["delete"], **undo)
    assert sorted(os.listdir(images)) == ["base.qcow2"]


def test_a_raw_file_byte_by_byte(host: Host, images: Path) -> None:
    """Holes stay holes, and a size that is no whole number of sectors stays what it is."""
    with open(images / "odd.raw", "wb") as file:
        file.truncate(64 * MIB + 1)
        file.seek(32 * MIB)
        file.write(os.urandom(MIB))
    host.ok("volume_info", pool="images", refresh=True)
    source = {"volume": "odd.raw", "format": "raw", "mode": "full"}
    host.converge("volume_clone", ["clone"], **clone("copy.raw", source))
    assert (images / "copy.raw").read_bytes() == (images / "odd.raw").read_bytes()
    assert (images / "copy.raw").stat().st_blocks <= (images / "odd.raw").stat().st_blocks


def test_a_raw_file_that_a_guest_opens_after_the_look(host: Host, images: Path) -> None:
    """A mixture of two states of a disk is no clone."""
    host.ok("volume", pool="images", name="disk.raw", format="raw", capacity="8MiB")
    real = importlib.import_module(f"{UTILS}clone").copy
    with connected(host.uri) as connection:

        def late(*args: Any) -> None:
            start_guest(connection, "web", disk_xml(f"{images}/disk.raw"))
            real(*args)

        with mock.patch(f"{UTILS}clone.copy", late):
            source = {"volume": "disk.raw", "format": "raw", "mode": "full"}
            host.failed("volume_clone", "in_use", "a QEMU process writes it", **clone("copy.raw", source))
        connection.lookupByName("web").destroy()
    assert sorted(os.listdir(images)) == ["base.qcow2", "disk.raw"]


def test_more_room_and_other_options(host: Host, images: Path) -> None:
    options = {
        "cluster_size": "4KiB",
        "lazy_refcounts": True,
        "preallocation": "metadata",
        "permissions": {"mode": "0640"},
    }
    host.converge("volume_clone", ["clone"], **clone("big.qcow2", BASE, capacity="32MiB", **options))
    found = qemu_img("-f", "qcow2", images / "big.qcow2")
    assert (found["virtual-size"], found["cluster-size"]) == (32 * MIB, 4096)
    assert found["format-specific"]["data"]["lazy-refcounts"] is True
    assert (images / "big.qcow2").stat().st_mode & 0o777 == 0o640
    assert of_file(images / "big.qcow2", "qcow2") == of_file(images / "base.qcow2", "qcow2")
    host.refused("volume_clone", "would_shrink", "8.0 MiB", **clone("small.qcow2", BASE, capacity="4MiB"))
    host.converge("volume_clone", ["resize"], **clone("big.qcow2", BASE, capacity="40MiB", format="qcow2"))


def test_many_linked_clones_in_one_task(host: Host, images: Path) -> None:
    clones = [{"name": f"web{number}.qcow2", "capacity": f"{16 + number}MiB"} for number in range(5)]
    wanted = {"pool": "images", "source": {**BASE, "mode": "linked"}, "clones": clones}
    host.converge("volume_clone", [f"volume 'images/web{number}.qcow2': clone" for number in range(5)], **wanted)
    for number in range(5):
        found = qemu_img("-f", "qcow2", images / f"web{number}.qcow2")
        assert (found["full-backing-filename"], found["backing-filename-format"]) == (f"{images}/base.qcow2", "qcow2")
        assert found["virtual-size"] == (16 + number) * MIB
        assert of_file(images / f"web{number}.qcow2", "qcow2") == of_file(images / "base.qcow2", "qcow2")
    host.refused("volume", "has_overlays", pool="images", name="base.qcow2", state="absent")
    host.refused("volume_clone", "bad_value", "twice", **{**wanted, "clones": [*clones, clones[0]]})


def test_a_clone_of_an_overlay_stands_alone(host: Host, images: Path) -> None:
    host.ok("volume_clone", **clone("over.qcow2", {**BASE, "mode": "linked"}))
    fill(images / "over.qcow2", "qcow2", size=MIB, seed=2)
    source = {"volume": "over.qcow2", "format": "qcow2"}
    host.converge("volume_clone", ["clone"], **clone("whole.qcow2", source))
    assert "backing-filename" not in qemu_img("-f", "qcow2", images / "whole.qcow2")
    assert of_file(images / "whole.qcow2", "qcow2") == of_file(images / "over.qcow2", "qcow2")
    host.refused("volume_clone", "unsupported", "mode: full", **clone("no.qcow2", {**source, "mode": "reflink"}))


@pytest.mark.parametrize(("form", "size"), [("xfs", 320 * MIB), ("btrfs", 256 * MIB)])
def test_reflink(host: Host, scratch: Path, loop_device: Any, form: str, size: int) -> None:
    mounted = scratch / "mounted"
    mounted.mkdir()
    device = loop_device(size).device
    subprocess.run([f"mkfs.{form}", "-q", str(device)], check=True)
    subprocess.run(["mount", str(device), str(mounted)], check=True)
    try:
        host.ok("pool_dir", name="images", path=str(mounted / "pool"), **({"cow": True} if form == "btrfs" else {}))
        host.ok("volume", pool="images", name="base.raw", format="raw", capacity="64MiB")
        fill(mounted / "pool/base.raw", "raw", size=32 * MIB)
        free = os.statvfs(mounted).f_bavail * os.statvfs(mounted).f_frsize
        source = {"volume": "base.raw", "format": "raw"}
        for name, mode in (("one.raw", "reflink"), ("two.raw", "auto")):
            host.converge("volume_clone", ["clone"], **clone(name, {**source, "mode": mode}, capacity="80MiB"))
            assert (mounted / f"pool/{name}").stat().st_size == 80 * MIB
            assert of_file(mounted / f"pool/{name}", "raw") == of_file(mounted / "pool/base.raw", "raw")
        subprocess.run(["sync", "-f", str(mounted)], check=True)
        assert free - os.statvfs(mounted).f_bavail * os.statvfs(mounted).f_frsize < 16 * MIB, "blocks are not shared"
        host.ok("pool_dir", name="images", state="absent")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_no_reflink_on_ext4(host: Host, images: Path) -> None:
    if subprocess.run(["stat", "-f", "-c", "%T", str(images)], check=True, capture_output=True, text=True).stdout in (
        "xfs\n",
        "btrfs\n",
    ):
        pytest.skip("this machine's own file system can share blocks")
    host.failed("volume_clone", "unsupported", "mode: full", **clone("no.qcow2", {**BASE, "mode": "reflink"}))
    host.converge("volume_clone", ["clone"], **clone("yes.qcow2", {**BASE, "mode": "auto"}))
    assert sorted(os.listdir(images)) == ["base.qcow2", "yes.qcow2"]


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Ceph:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    return ceph


def of_image(ceph: Ceph, image: str) -> str:
    out = ceph.root / "export.raw"
    out.unlink(missing_ok=True)
    ceph.run("rbd", "export", "--no-progress", f"rbd/{image}", out)
    try:
        return hashlib.sha256(out.read_bytes().rstrip(b"\0")).hexdigest()
    finally:
        out.unlink()


def test_rbd(host: Host, images: Path, vms: Ceph) -> None:
    before = host.state()
    host.converge("volume_clone", ["clone"], pool="vms", name="web01", source=BASE, capacity="16MiB")
    assert of_image(vms, "web01") == of_file(images / "base.qcow2", "qcow2")
    source = {"volume": "web01", "mode": "linked"}
    host.converge("volume_clone", ["clone"], pool="vms", name="web02", source=source, capacity="24MiB")
    assert of_image(vms, "web02") == of_image(vms, "web01")
    assert '"parent"' in vms.run("rbd", "info", "--format", "json", "rbd/web02")
    assert '"size":25165824' in vms.run("rbd", "info", "--format", "json", "rbd/web02")
    host.converge("volume_clone", ["clone"], pool="vms", name="web03", source={"volume": "web02", "verify": True})
    assert '"parent"' not in vms.run("rbd", "info", "--format", "json", "rbd/web03")
    back = {"pool": "vms", "volume": "web03"}
    host.converge("volume_clone", ["clone"], **clone("back.qcow2", back, format="qcow2"))
    assert of_file(images / "back.qcow2", "qcow2") == of_file(images / "base.qcow2", "qcow2")
    assert sorted(vms.run("rbd", "ls", "rbd").split()) == ["web01", "web02", "web03"]
    for name in ("web02", "web01", "web03"):
        host.converge("volume", ["delete"], pool="vms", name=name, state="absent")
    host.converge("volume", ["delete"], pool="images", name="back.qcow2", state="absent")
    assert host.state() == before


def test_a_watched_image_is_not_cloned(host: Host, images: Path, vms: Ceph) -> None:
    host.ok("volume", pool="vms", name="web01", capacity="8MiB")
    login = f"rbd:rbd/web01:conf={vms.root}/ceph.conf:id=admin:keyring={vms.keyring()}"
    opened = subprocess.Popen(
        ["qemu-io", "-f", "raw", login], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert opened.stdin is not None
        opened.stdin.write(b"write 0 512\n")
        opened.stdin.flush()
        assert opened.stdout is not None
        opened.stdout.readline()
        host.refused("volume_clone", "in_use", "127.0.0.1", pool="vms", name="web02", source={"volume": "web01"})
    finally:
        opened.communicate(b"quit\n", timeout=60)
    host.converge("volume_clone", ["clone"], pool="vms", name="web02", source={"volume": "web01"})


def test_an_image_that_is_written_while_it_is_cloned(host: Host, images: Path, vms: Ceph) -> None:
    host.ok("volume", pool="vms", name="web01", capacity="8MiB")
    real = importlib.import_module(f"{UTILS}qemu_img").convert
    login = f"rbd:rbd/web01:conf={vms.root}/ceph.conf:id=admin:keyring={vms.keyring()}"
    command = ["qemu-io", "-f", "raw", login]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None

        def convert(*given: Any, **options: Any) -> None:
            real(*given, **options)
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("write 0 512\n")
            client.stdin.flush()
            client.stdout.readline()

        with (
            mock.patch(f"{UTILS}qemu_img.convert", convert),
            mock.patch(f"{UTILS}clone.Source.require_still"),  # it came afterwards
        ):
            host.failed("volume_clone", "in_use", "127.0.0.1", pool="vms", name="web02", source={"volume": "web01"})
        client.communicate("quit\n", timeout=60)
    assert vms.run("rbd", "ls", "rbd").split() == ["web01"]


def test_a_partition_that_is_written_while_it_is_cloned(host: Host, images: Path, disk_node: DiskNode) -> None:
    """Who has opened, written and closed it meanwhile is known by what the kernel counts."""
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="gpt", build="if_blank")
    one = f"{disk_node.node.name}1"
    host.ok("volume_clone", pool="data", name=one, source=BASE, capacity="16MiB")
    real = importlib.import_module(f"{UTILS}qemu_img").convert

    def convert(*given: Any, **options: Any) -> None:
        real(*given, **options)
        with open(f"{disk_node.node}1", "r+b") as device:
            device.write(b"what a guest writes")

    wanted = clone("copy.raw", {"pool": "data", "volume": one}, format="raw")
    with mock.patch(f"{UTILS}qemu_img.convert", convert):
        host.failed("volume_clone", "in_use", "while it was read", **wanted)
    assert "copy.raw" not in os.listdir(images)


def test_from_a_lun(host: Host, images: Path, iscsi: Target) -> None:
    pool = {"name": "luns", "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool, hosts=[{"name": iscsi.host, "port": iscsi.port}])
    source = {"pool": "luns", "volume": "unit:0:0:1", "verify": True}
    host.converge("volume_clone", ["clone"], **clone("lun.qcow2", source, format="qcow2"))
    url = f"iscsi://{iscsi.host}:{iscsi.port}/{iscsi.iqn_open}/1"
    assert of_file(images / "lun.qcow2", "qcow2") == content("-f", "raw", url)
    host.refused(
        "volume_clone", "unsupported", "array", pool="luns", name="unit:0:0:9", source={**BASE, "pool": "images"}
    )


def test_netfs(host: Host, images: Path, scratch: Path, gluster: Gluster) -> None:
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="shared", path=f"{scratch}/mnt", **share)
    host.converge("volume_clone", ["clone"], pool="shared", name="copy.raw", format="raw", source=BASE)
    assert of_file(scratch / "mnt/copy.raw", "raw") == of_file(images / "base.qcow2", "qcow2")


def test_partition(host: Host, images: Path, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="gpt", build="if_blank")
    one = f"{disk_node.node.name}1"
    host.converge("volume_clone", ["clone"], pool="data", name=one, source={**BASE, "verify": True}, capacity="16MiB")
    device = f"{disk_node.node}1"
    assert content("-f", "raw", device) == of_file(images / "base.qcow2", "qcow2")
    # a run that was killed while it wrote: known by its mark, and done again
    with open(device, "r+b") as file:
        file.write(b"kvm.storage: this disk is not whole yet; the run that writes it was not finished\n")
    host.converge("volume_clone", ["clone"], pool="data", name=one, source=BASE)
    assert content("-f", "raw", device) == of_file(images / "base.qcow2", "qcow2")


def test_guards(host: Host, images: Path, scratch: Path) -> None:
    host.refused("volume_clone", "format_undeclared", **clone("x.qcow2", {"volume": "base.qcow2"}))
    host.refused("volume_clone", "format_mismatch", **clone("x.qcow2", {"volume": "base.qcow2", "format": "raw"}))
    host.refused("volume_clone", "no_volume", **clone("x.qcow2", {"volume": "none", "format": "raw"}))
    host.refused("volume_clone", "no_pool", **clone("x.qcow2", {"pool": "none", "volume": "none", "format": "raw"}))
    host.refused("volume_clone", "bad_value", "itself", **clone("base.qcow2", {"volume": "base.qcow2"}))
    host.refused("volume_clone", "bad_name", **clone("../x", BASE))
    make_image("qcow2", scratch / "outside.qcow2")
    make_image("qcow2", images / "leads-out.qcow2", "8M", "-b", str(scratch / "outside.qcow2"), "-F", "qcow2")
    leading = {"volume": "leads-out.qcow2", "format": "qcow2", "mode": "full"}
    host.failed("volume_clone", "backing_outside", **clone("x.qcow2", leading))
    (images / "link.raw").symlink_to("/etc/hostname")
    host.refused("volume_clone", "not_a_volume", **clone("x.qcow2", {"volume": "link.raw", "format": "raw"}))
    assert not (images / "x.qcow2").exists()


def test_a_running_guest(host: Host, images: Path) -> None:
    """Its own disk is not cloned, and what its disk stands on is."""
    host.ok("volume_clone", **clone("web.qcow2", {**BASE, "mode": "linked"}))
    with connected(host.uri) as connection:
        start_guest(connection, "web", disk_xml(f"{images}/web.qcow2", driver="qcow2"))
    running = {"volume": "web.qcow2", "format": "qcow2"}
    for mode in ("auto", "full", "linked"):
        host.refused("volume_clone", "in_use", "'web' (running)", **clone("x.qcow2", {**running, "mode": mode}))
    host.converge("volume_clone", ["clone"], **clone("other.qcow2", {**BASE, "mode": "linked"}))
    host.converge("volume_clone", ["clone"], **clone("copy.qcow2", {**BASE, "mode": "full"}))


def test_layout(host: Host, images: Path, vms: Ceph) -> None:
    """Sources come before their clones, in whatever order they are declared."""
    volumes = [
        {"pool": "vms", "name": "web", "source": {"pool": "images", "volume": "web.qcow2"}},
        {"pool": "images", "name": "web.qcow2", "source": {**BASE, "mode": "linked"}, "capacity": "16MiB"},
    ]
    done = host.converge("layout", ["volume 'images/web.qcow2': clone", "volume 'vms/web': clone"], volumes=volumes)
    assert done["plan"]["create"] == 2
    assert of_image(vms, "web") == of_file(images / "base.qcow2", "qcow2")
    host.refused(
        "layout",
        "bad_backing",
        "circle",
        volumes=[
            {**volumes[0], "name": "a", "source": {"volume": "b"}},
            {**volumes[0], "name": "b", "source": {"volume": "a"}},
        ],
    )
