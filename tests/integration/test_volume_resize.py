# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""volume_resize on a real hypervisor: what it holds stays as it is, a guest sees it, and nothing is cut off unasked."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import MIB, Host, connected, make_image, mutable, poison, qemu_img, switched_off
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

RAW = {"pool": "images", "name": "disk.raw", "format": "raw"}
QCOW2 = {"pool": "images", "name": "disk.qcow2", "format": "qcow2"}
BY_FORMAT = {"raw": RAW, "qcow2": QCOW2}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    host.ok("volume", **RAW, capacity="8MiB")
    host.ok("volume", **QCOW2, capacity="8MiB")
    yield scratch / "images"
    mutable(scratch)


def write(path: Path | str, form: str, *commands: str) -> None:
    """What a guest writes, by qemu-io."""
    argv = [part for one in commands for part in ("-c", one)]
    subprocess.run(["qemu-io", "-f", form, *argv, str(path)], check=True, capture_output=True)


def content(path: Path, form: str, length: int = 8 * MIB) -> str:
    """The checksum of the first bytes that a guest sees."""
    raw = path.with_name(f"{path.name}.seen")
    try:
        subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", str(path), str(raw)], check=True)
        with open(raw, "rb") as disk:
            return hashlib.sha256(disk.read(length)).hexdigest()
    finally:
        raw.unlink(missing_ok=True)


def size_of(path: Path, form: str) -> int:
    return qemu_img("-f", form, path)["virtual-size"]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_grow_and_shrink(host: Host, images: Path, form: str) -> None:
    """What lies before the smaller end is the same after each step."""
    disk, path = BY_FORMAT[form], images / f"disk.{form}"
    write(path, form, "write -P 7 0 1M", "write -P 9 7M 1M")
    before = content(path, form)
    done = host.converge("volume_resize", ["grow"], "8.0 MiB", "16.0 MiB", **disk, capacity="16MiB")
    assert (done["capacity"], size_of(path, form)) == (16 * MIB, 16 * MIB)
    assert content(path, form) == before
    host.refused("volume_resize", "would_shrink", "if_unused", **disk, capacity="12MiB")
    host.converge("volume_resize", ["shrink"], "MAY DISCARD", **disk, capacity="8MiB", shrink="discard")
    assert size_of(path, form) == 8 * MIB
    assert content(path, form) == before
    host.unchanged("volume", **disk, capacity="8MiB")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_by_a_difference(host: Host, images: Path, form: str) -> None:
    """It is no state: each run adds to what is there."""
    disk, path = BY_FORMAT[form], images / f"disk.{form}"
    for number in (1, 2):
        predicted = host.ok("volume_resize", **disk, capacity="+4MiB", check=True)
        done = host.ok("volume_resize", **disk, capacity="+4MiB")
        assert predicted["diff"] == done["diff"]
        assert (done["actions"], done["capacity"]) == (["grow"], (8 + 4 * number) * MIB)
    host.refused("volume_resize", "would_shrink", **disk, capacity="-4MiB")
    host.refused("volume_resize", "bad_value", **disk, capacity="-16MiB", shrink="discard")
    assert host.ok("volume_resize", **disk, capacity="-4MiB", shrink="if_unused")["actions"] == ["shrink"]
    assert size_of(path, form) == 12 * MIB


@pytest.mark.parametrize("capacity", ["0", "-0", "big", "8.5B", "", "+", "--1M", "9EiB"])
def test_sizes_that_are_none(host: Host, images: Path, capacity: str) -> None:
    host.refused("volume_resize", "bad_value", **RAW, capacity=capacity)


def test_odd_sizes(host: Host, images: Path) -> None:
    host.converge("volume_resize", ["grow"], **RAW, capacity="10000001")
    assert (images / "disk.raw").stat().st_size == 10000001
    host.converge("volume_resize", ["grow"], **QCOW2, capacity="10000001")
    host.converge("volume_resize", ["shrink"], **RAW, capacity="9000001", shrink="if_unused")


# What can't grow


@pytest.mark.parametrize("form", ["vdi", "vmdk", "vpc", "qcow"])
def test_formats_that_qemu_cannot_resize(host: Host, images: Path, form: str) -> None:
    host.ok("volume", pool="images", name="other", format=form, capacity="8MiB")
    host.refused(
        "volume_resize", "unsupported", "volume_convert", pool="images", name="other", format=form, capacity="1G"
    )


def test_old_qcow2_with_snapshots(host: Host, images: Path) -> None:
    old = {**QCOW2, "name": "old"}
    host.ok("volume", **old, capacity="8MiB", compat="0.10")
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(images / "old")], check=True)
    host.refused("volume_resize", "unsupported", "amend", **old, capacity="16MiB")
    subprocess.run(["qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", str(images / "old")], check=True)
    host.converge("volume_resize", ["grow"], **old, capacity="16MiB")
    host.converge("volume_resize", ["shrink"], **old, capacity="8MiB", shrink="discard")


def test_what_is_not_there(host: Host, images: Path) -> None:
    host.refused(
        "volume_resize", "no_volume", "volume_info", pool="images", name="nothing", format="raw", capacity="1M"
    )
    host.refused("volume_resize", "no_pool", pool="nowhere", name="nothing", format="raw", capacity="1M")
    host.refused("volume_resize", "format_undeclared", pool="images", name="disk.raw", capacity="16MiB")


def test_header_of_a_guest_is_not_followed(host: Host, images: Path, scratch: Path) -> None:
    poison(images / "disk.raw", scratch / "canary")
    host.refused("volume_resize", "format_mismatch", **RAW, capacity="64MiB")
    host.refused("volume_resize", "format_mismatch", **RAW, capacity="1MiB", shrink="discard")


def test_base_outside_of_every_pool_is_not_opened(host: Host, images: Path, scratch: Path) -> None:
    """A qcow2 that is declared one, whose header leads to a file of the host."""
    (scratch / "canary").write_bytes(b"host file" * 1000)
    make_image("qcow2", images / "hostile", "8M", "-u", "-b", f"{scratch}/canary", "-F", "raw")
    for capacity, shrink in (("64MiB", "refuse"), ("1MiB", "discard"), ("1MiB", "if_unused")):
        wanted = {**QCOW2, "name": "hostile", "capacity": capacity, "shrink": shrink}
        host.refused("volume_resize", "backing_outside", "canary", **wanted)


# Smaller, when it is known to be unused


def partitioned(path: Path, *commands: str) -> None:
    subprocess.run(["parted", "--script", str(path), *" ".join(commands).split()], check=True)


def blank(path: Path) -> None:
    pass


def data_behind(path: Path) -> None:
    write(path, "raw", "write -P 1 60M 4k")


def gpt(path: Path) -> None:
    partitioned(path, "mklabel gpt mkpart one ext4 1MiB 8MiB")


def dos_within(path: Path) -> None:
    partitioned(path, "mklabel msdos mkpart primary ext4 1MiB 16MiB")


def dos_beyond(path: Path) -> None:
    partitioned(path, "mklabel msdos mkpart primary ext4 1MiB 48MiB")


def ext4_within(path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path), "16M"], check=True)


def ext4_beyond(path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", str(path), "33M"], check=True)


def swap(path: Path) -> None:
    subprocess.run(["mkswap", str(path)], check=True, capture_output=True)


def unknown(path: Path) -> None:
    write(path, "raw", "write -P 200 0 64k")


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize(
    ("made", "why"),
    [
        (blank, ""),
        (dos_within, ""),
        (ext4_within, ""),
        (data_behind, "data at 60.0 MiB"),
        (gpt, "a GPT"),
        (dos_beyond, "a partition table claims its first 48.0 MiB"),
        (ext4_beyond, "an ext file system claims its first 33.0 MiB"),
        (swap, "swap claims"),
        (unknown, "neither"),
    ],
)
def test_shrink_if_unused(host: Host, images: Path, scratch: Path, form: str, made: Any, why: str) -> None:
    path = images / f"disk.{form}"
    host.ok("volume_resize", **BY_FORMAT[form], capacity="64MiB")
    source = make_image("raw", scratch / "source", "64M")
    made(source)
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", form, str(source), str(path)], check=True)
    wanted = {**BY_FORMAT[form], "capacity": "32MiB", "shrink": "if_unused"}
    before = content(path, form, 32 * MIB)
    if why:
        host.refused("volume_resize", "would_shrink", why, "discard", **wanted)
        with switched_off("unused:objection", returns=""):
            host.ok("volume_resize", **wanted)  # what the guard is for
        assert size_of(path, form) == 32 * MIB
    else:
        host.converge("volume_resize", ["shrink"], **wanted)
        assert content(path, form, 32 * MIB) == before


def test_data_of_the_base_counts_too(host: Host, images: Path) -> None:
    """An overlay without data of its own shows what its base has."""
    write(images / "disk.qcow2", "qcow2", "write -P 3 7M 1M")
    over = {**QCOW2, "name": "over", "backing": {"volume": "disk.qcow2", "format": "qcow2"}}
    host.ok("volume", **over)
    wanted = {"pool": "images", "name": "over", "format": "qcow2", "capacity": "4MiB"}
    host.refused("volume_resize", "would_shrink", "data at 7.0 MiB", **wanted, shrink="if_unused")
    host.converge("volume_resize", ["shrink"], **wanted, shrink="discard")


# Guests


def qemu_disk(path: Path, form: str) -> str:
    return disk_xml(str(path), driver=form)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_running_guest_sees_its_disk_grow(host: Host, images: Path, form: str) -> None:
    """Its own domain declares the format."""
    path = images / f"disk.{form}"
    write(path, form, "write -P 5 0 8M")
    before = content(path, form)
    disk = {"pool": "images", "name": path.name}
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", qemu_disk(path, form))
        host.converge("volume_resize", ["grow_in_guest"], "16.0 MiB", **disk, capacity="16MiB")
        assert guest.blockInfo("vda")[0] == 16 * MIB
        host.unchanged("volume_resize", **disk, capacity="16MiB")
        host.refused("volume_resize", "in_use", "'web01'", **disk, capacity="8MiB", shrink="discard")
        host.refused("volume_resize", "would_shrink", **disk, capacity="8MiB")
        assert guest.isActive()
        guest.destroy()
    assert size_of(path, form) == 16 * MIB
    assert content(path, form) == before


def test_guest_with_two_disks_or_another_one(host: Host, images: Path) -> None:
    """The one that is named grows, and no other."""
    with connected(host.uri) as connection:
        disks = qemu_disk(images / "disk.raw", "raw") + disk_xml(str(images / "disk.qcow2"), "vdb", "qcow2")
        guest = start_guest(connection, "web01", disks)
        host.converge("volume_resize", ["grow_in_guest"], **QCOW2, capacity="16MiB")
        assert [guest.blockInfo(name)[0] for name in ("vda", "vdb")] == [8 * MIB, 16 * MIB]


def test_guest_on_an_overlay_keeps_its_base(host: Host, images: Path) -> None:
    over = {**QCOW2, "name": "over", "backing": {"volume": "disk.qcow2", "format": "qcow2"}}
    host.ok("volume", **over)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", qemu_disk(images / "over", "qcow2"))
        host.refused("volume_resize", "in_use", "'web01'", **QCOW2, capacity="16MiB")
        host.unchanged("volume_resize", **QCOW2, capacity="8MiB")
        host.converge("volume_resize", ["grow_in_guest"], pool="images", name="over", capacity="16MiB")
        assert guest.blockInfo("vda")[0] == 16 * MIB


def test_guest_that_is_off(host: Host, images: Path) -> None:
    """Its disk may get smaller, unless its state was saved with the larger one."""
    with connected(host.uri) as connection:
        domain = connection.defineXML(domain_xml("web01", qemu_disk(images / "disk.raw", "raw")))
        host.converge("volume_resize", ["grow"], **RAW, capacity="16MiB")
        host.converge("volume_resize", ["shrink"], **RAW, capacity="12MiB", shrink="if_unused")
        domain.create()
        domain.managedSave()
        host.refused("volume_resize", "in_use", "saved", **RAW, capacity="8MiB", shrink="discard")
        domain.managedSaveRemove()
        host.converge("volume_resize", ["shrink"], **RAW, capacity="8MiB", shrink="discard")


def test_chain_of_five(host: Host, images: Path) -> None:
    """The base and each link may grow, and none that another one stands on gets smaller."""
    names = ["disk.qcow2", *(f"over{number}" for number in range(1, 5))]
    for below, name in zip(names, names[1:]):
        host.ok("volume", **{**QCOW2, "name": name}, backing={"volume": below, "format": "qcow2"})
    before = content(images / "over4", "qcow2")
    for name, above in zip(names, names[1:]):
        wanted = {"pool": "images", "name": name, "format": "qcow2", "shrink": "discard"}
        host.refused("volume_resize", "has_overlays", f"images/{above}", **wanted, capacity="4MiB")
        host.converge("volume_resize", ["grow"], **wanted, capacity="16MiB")
    assert content(images / "over4", "qcow2") == before
    wanted = {"pool": "images", "name": "over4", "format": "qcow2", "shrink": "if_unused"}
    host.converge("volume_resize", ["shrink"], **wanted, capacity="4MiB")
    with switched_off("operation:Operation.require_no_overlays"):
        lost = {**wanted, "name": "over3", "shrink": "discard", "capacity": "4MiB"}
        host.ok("volume_resize", **lost)  # what the guard is for


def test_blinded_guards_refuse(host: Host, images: Path) -> None:
    host.ok("volume_resize", **RAW, capacity="16MiB")
    error = libvirt.libvirtError("no domains here")
    with mock.patch("libvirt.virConnect.listAllDomains", side_effect=error):
        for capacity in ("32MiB", "8MiB"):
            result = host.run("volume_resize", **RAW, capacity=capacity, shrink="discard")
            assert (result.get("failed"), result["code"]) == (True, "guard_unavailable"), result
    assert (images / "disk.raw").stat().st_size == 16 * MIB


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_qemu_of_another_libvirt(host: Host, images: Path, form: str) -> None:
    """Known by its locks alone, and looked for once more when the file is taken."""
    disk, path = BY_FORMAT[form], images / f"disk.{form}"
    with connected(host.uri) as connection, switched_off("volume:Volume.users", []):
        start_guest(connection, "theirs", qemu_disk(path, form))
        host.refused("volume_resize", "in_use", "QEMU", **disk, capacity="16MiB")
        host.refused("volume_resize", "in_use", "QEMU", **disk, capacity="4MiB", shrink="discard")
        with switched_off("chain:image_locked", False):
            code = "in_use" if form == "raw" else "backend_refused"
            host.failed("volume_resize", code, "lock" if form == "qcow2" else "QEMU", **disk, capacity="16MiB")
            assert size_of(path, form) == 8 * MIB
            with switched_off("exclusive:lock"):
                result = host.run("volume_resize", **disk, capacity="4MiB", shrink="discard")
            assert bool(result.get("failed")) is (form == "qcow2")  # of a raw file nothing else is left to tell
    assert size_of(path, form) == (8 if form == "qcow2" else 4) * MIB


def test_immutable(host: Host, images: Path) -> None:
    host.ok("volume", **RAW, immutable=True)
    host.refused("volume_resize", "immutable", **RAW, capacity="16MiB")
    host.refused("volume_resize", "immutable", **RAW, capacity="4MiB", shrink="discard")
    host.unchanged("volume_resize", **RAW, capacity="8MiB")


# Room


def test_overcommit(host: Host, scratch: Path, loop_device: Any) -> None:
    """A file system of 128 MiB, sparse disks above it."""
    device = loop_device(128 * MIB).device
    host.ok("pool_fs", name="small", path=f"{scratch}/small", device=device, source_format="ext4", build="if_blank")
    disk = {"pool": "small", "name": "disk", "format": "qcow2"}
    host.ok("volume", **disk, capacity="64MiB")
    host.refused("volume_resize", "no_space", "pool 'small'", **disk, capacity="256MiB", overcommit="refuse")
    ratio = {"overcommit": "refuse", "overcommit_ratio": 3.0}
    host.refused("volume_resize", "no_space", "3 times", **disk, capacity="1GiB", **ratio)
    host.refused("volume_resize", "bad_value", **disk, capacity="1GiB", overcommit_ratio=0.0)
    assert host.ok("volume_resize", **disk, capacity="192MiB", **ratio)["warnings"] == []
    (warning,) = host.ok("volume_resize", **disk, capacity="256MiB")["warnings"]
    assert "can't write" in warning
    assert host.ok("volume_resize", **disk, capacity="512MiB", overcommit="allow")["warnings"] == []


# Encrypted


def test_encrypted(host: Host, images: Path) -> None:
    """libvirt forgets the secret when the pool is refreshed; by its name qemu-img is given its value."""
    host.ok("secret", usage="volume", usage_name="luks", value="hunter2")
    disk = {**QCOW2, "name": "luks.qcow2"}
    host.ok("volume", **disk, capacity="8MiB", encryption={"secret_usage": "luks"})
    host.ok("volume_info", pool="images", refresh=True)
    host.refused("volume_resize", "unsupported", "encryption", **disk, capacity="16MiB")
    with_secret = {**disk, "encryption": {"secret_usage": "luks"}}
    host.converge("volume_resize", ["grow"], **with_secret, capacity="16MiB")
    host.refused("volume_resize", "would_shrink", "encrypted", **with_secret, capacity="8MiB", shrink="if_unused")
    host.converge("volume_resize", ["shrink"], **with_secret, capacity="8MiB", shrink="discard")
    assert size_of(images / "luks.qcow2", "qcow2") == 8 * MIB


def test_encrypted_raw(host: Host, images: Path) -> None:
    host.ok("secret", usage="volume", usage_name="luks", value="hunter2")
    disk = {**RAW, "name": "luks.raw", "encryption": {"secret_usage": "luks"}}
    host.ok("volume", **disk, capacity="8MiB")
    host.ok("volume_info", pool="images", refresh=True)
    host.converge("volume_resize", ["grow"], **disk, capacity="16MiB")


# Other backends


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Host:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    return host


def rbd_size(ceph: Ceph, image: str) -> int:
    return json.loads(ceph.run("rbd", "info", "--format", "json", f"rbd/{image}"))["size"]


def test_rbd(vms: Host, ceph: Ceph, scratch: Path) -> None:
    disk = {"pool": "vms", "name": "web01"}
    vms.ok("volume", **disk, capacity="8MiB", format="raw")
    (scratch / "data").write_bytes(hashlib.sha512(b"web01").digest() * (8 * MIB // 64))
    ceph.run("rbd", "rm", "rbd/web01")
    ceph.run("rbd", "import", str(scratch / "data"), "rbd/web01")
    vms.converge("volume_resize", ["grow"], **disk, capacity="16MiB")
    assert rbd_size(ceph, "web01") == 16 * MIB
    vms.refused("volume_resize", "would_shrink", **disk, capacity="8MiB")
    vms.refused("volume_resize", "would_shrink", "no file", **disk, capacity="8MiB", shrink="if_unused")
    vms.converge("volume_resize", ["shrink"], **disk, capacity="8MiB", shrink="discard")
    assert rbd_size(ceph, "web01") == 8 * MIB
    ceph.run("rbd", "export", "rbd/web01", str(scratch / "after"))
    assert (scratch / "after").read_bytes() == (scratch / "data").read_bytes()
    vms.converge("volume", ["delete"], **disk, state="absent")


def rbd_disk(ceph: Ceph, image: str) -> str:
    hosts = "".join(f"<host name='{name}' port='{port}'/>" for name, port in ceph.monitors)
    return (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/{image}'>{hosts}</source><target dev='vda' bus='virtio'/></disk>"
    )


def test_rbd_under_a_guest(vms: Host, ceph: Ceph) -> None:
    disk = {"pool": "vms", "name": "web02"}
    vms.ok("volume", **disk, capacity="8MiB", format="raw")
    with connected(vms.uri) as connection:
        guest = start_guest(connection, "web02", rbd_disk(ceph, "web02"))
        vms.converge("volume_resize", ["grow_in_guest"], **disk, capacity="16MiB")
        assert (guest.blockInfo("vda")[0], rbd_size(ceph, "web02")) == (16 * MIB, 16 * MIB)
        vms.refused("volume_resize", "in_use", "'web02'", **disk, capacity="8MiB", shrink="discard")
        guest.destroy()
    vms.ok("volume", **disk, state="absent")


def test_partitions_stay_as_they_are(host: Host, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="gpt", build="if_blank")
    disk = {"pool": "data", "name": f"{disk_node.node.name}1"}
    host.ok("volume", **disk, capacity="32MiB")
    host.refused("volume_resize", "unsupported", "partition", **disk, capacity="64MiB")
    host.refused("volume_resize", "unsupported", "partition", **disk, capacity="8MiB", shrink="discard")


def test_luns_are_the_arrays(host: Host, iscsi: Target) -> None:
    hosts = [{"name": iscsi.host, "port": iscsi.port}]
    pool = {"name": "luns", "hosts": hosts, "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool)
    host.refused("volume_resize", "unsupported", "array", pool="luns", name="unit:0:0:1", capacity="+8MiB")


def test_gluster_by_its_mount(host: Host, scratch: Path, gluster: Gluster) -> None:
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="shared", path=f"{scratch}/mnt", **share)
    disk = {"pool": "shared", "name": "disk.qcow2", "format": "qcow2"}
    host.ok("volume", **disk, capacity="8MiB")
    host.converge("volume_resize", ["grow"], **disk, capacity="16MiB")
    host.converge("volume_resize", ["shrink"], **disk, capacity="8MiB", shrink="if_unused")
    host.ok("pool_gluster", name="direct", hosts=[{"name": gluster.host}], source_name=gluster.volume)
    result = host.run("volume_resize", **{**disk, "pool": "direct"}, capacity="16MiB")
    assert (result["code"], "netfs" in result["msg"]) == ("unsupported", True), result
    host.ok("volume", **disk, state="absent")
