# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""volume_wipe on a real hypervisor: what a volume held is gone from where it lay, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, make_image, mutable, poison, qemu_img, switched_off
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

RAW = {"pool": "images", "name": "disk.raw", "format": "raw"}
QCOW2 = {"pool": "images", "name": "disk.qcow2", "format": "qcow2"}
BY_FORMAT = {"raw": RAW, "qcow2": QCOW2}
SECRET = hashlib.sha512(b"what the guest held").digest()
LEFT = ".kvm.storage.wiping-disk.qcow2"
ALGORITHMS = ("zero", "trim", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random")


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    host.ok("volume", **RAW, capacity="8MiB")
    host.ok("volume", **QCOW2, capacity="8MiB")
    for form in BY_FORMAT:
        fill(scratch, scratch / "images" / f"disk.{form}", form)
    yield scratch / "images"
    mutable(scratch)


def fill(scratch: Path, disk: Path, form: str) -> None:
    """The guest's data, in the middle of its disk."""
    (scratch / "pattern").write_bytes(SECRET * 1024)
    argv = ["qemu-io", "-f", form, "-c", f"write -s {scratch}/pattern 3M 2M", str(disk)]
    subprocess.run(argv, check=True, capture_output=True)


def holds(path: Path) -> bool:
    """Whether the data can be found in a file or device."""
    return SECRET in path.read_bytes()


def empty(path: Path, form: str, size: int = 8 * MIB) -> bool:
    """Whether a guest would see nothing but zeroes, and as many of them as before."""
    blank = make_image("raw", path.with_name(f"{path.name}.blank"), str(size))
    try:
        argv = ["qemu-img", "compare", "-q", "-s", "-f", form, "-F", "raw", str(path), str(blank)]
        found = subprocess.run(argv, check=False).returncode
        same = qemu_img("-f", form, path)["virtual-size"] == size
        argv.remove("-s")
        return same and (found == 0 or subprocess.run(argv, check=False).returncode == 0)
    finally:
        blank.unlink()


def wiped(host: Host, **args: Any) -> dict[str, Any]:
    """Predicted, done, and done again: it is an action."""
    before = host.state()
    predicted = host.ok("volume_wipe", check=True, **args)
    assert host.state() == before
    for _number in range(2):
        done = host.ok("volume_wipe", **args)
        assert (done["changed"], done["actions"]) == (True, ["wipe"])
        assert (done["diff"], done["plan"]) == (predicted["diff"], predicted["plan"])
    assert "DESTROYS DATA" in str(done["diff"])
    return done


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files(host: Host, images: Path, form: str, algorithm: str) -> None:
    """The file has what it had besides its data: size, mode, owner, and for a guest its capacity."""
    path = images / f"disk.{form}"
    os.chown(path, 12, 34)
    path.chmod(0o640)
    before = path.stat()
    assert holds(path)
    with open(path, "rb") as old:
        if algorithm == "zero":
            wiped(host, **BY_FORMAT[form])
        host.ok("volume_wipe", **BY_FORMAT[form], algorithm=algorithm)
        assert SECRET not in old.read(), "the old file holds it still"
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert not holds(path)
    if form == "qcow2" or algorithm in ("zero", "trim", "nnsa"):
        assert empty(path, form)
    assert qemu_img("-f", form, path)["virtual-size"] == 8 * MIB
    assert sorted(os.listdir(images)) == ["disk.qcow2", "disk.raw"]
    host.unchanged("volume", **BY_FORMAT[form], capacity="8MiB")


def test_sparse_file_stays_sparse(host: Host, images: Path) -> None:
    host.ok("volume", **{**RAW, "name": "sparse"}, capacity="64GiB")
    host.ok("volume_wipe", **{**RAW, "name": "sparse"})
    assert (images / "sparse").stat().st_blocks == 0
    assert (images / "sparse").stat().st_size == 64 << 30


def test_odd_size(host: Host, images: Path) -> None:
    for algorithm in ("zero", "random"):
        host.ok("volume", **{**RAW, "name": "odd"}, capacity="1000001")
        (images / "odd").write_bytes(SECRET * 15625 + b"x")
        host.ok("volume_wipe", **{**RAW, "name": "odd"}, algorithm=algorithm)
        assert (images / "odd").stat().st_size == 1000001
        assert not holds(images / "odd")


@pytest.mark.parametrize(
    "options",
    [
        {"compat": "0.10"},
        {"cluster_size": "4KiB", "lazy_refcounts": True},
        {"cluster_size": "128KiB", "extended_l2": True},
    ],
)
def test_qcow2_is_what_it_was(host: Host, images: Path, options: dict[str, Any]) -> None:
    disk = {**QCOW2, "name": "own"}
    host.ok("volume", **disk, capacity="8MiB", **options)
    before = qemu_img(images / "own")
    host.ok("volume_wipe", **disk)
    after = qemu_img(images / "own")
    for name in ("virtual-size", "cluster-size", "format-specific"):
        assert after[name] == before[name]
    host.unchanged("volume", **disk, capacity="8MiB", **options)


def test_compression_type_is_kept(host: Host, images: Path) -> None:
    make_image("qcow2", images / "disk.qcow2", "8M", "-o", "compression_type=zstd")
    host.ok("volume_wipe", **QCOW2)
    assert qemu_img(images / "disk.qcow2")["format-specific"]["data"]["compression-type"] == "zstd"


# Interrupted


class Killed(BaseException):
    """Stands for the end of the process: nothing of the engine handles it."""


@pytest.mark.parametrize("step", ["files.replace", "wipe.Wipe.overwrite", "wipe.zero", "files.flushed"])
@pytest.mark.parametrize("algorithm", ["zero", "random"])
def test_next_run_completes(host: Host, images: Path, step: str, algorithm: str) -> None:
    """Ended before the new image has its place, after it, and in the overwriting."""
    kept = images.parent / "kept"
    os.link(images / "disk.qcow2", kept)
    with open(kept, "rb") as old:
        kept.unlink()
        with mock.patch(f"{UTILS}{step}", side_effect=Killed), pytest.raises((Killed, AssertionError)):
            host.run("volume_wipe", **QCOW2, algorithm="zero")
            raise AssertionError("the step was not taken")
        assert host.ok("volume_wipe", check=True, **QCOW2, algorithm=algorithm)["actions"] == ["wipe"]
        host.ok("volume_wipe", **QCOW2, algorithm=algorithm)
        assert SECRET not in old.read()
    assert empty(images / "disk.qcow2", "qcow2")
    assert sorted(os.listdir(images)) == ["disk.qcow2", "disk.raw"]


def test_an_old_image_is_not_forgotten_with_its_volume(host: Host, images: Path) -> None:
    with mock.patch(f"{UTILS}wipe.Wipe.erase", side_effect=Killed), pytest.raises(Killed):
        host.run("volume_wipe", **QCOW2)
    gone = {"pool": "images", "name": "disk.qcow2", "state": "absent"}
    host.refused("volume", "unfinished", "run volume_wipe again", **gone)
    host.ok("volume_wipe", **QCOW2)
    host.converge("volume", ["delete"], **gone)


def test_other_runs_leave_what_is_not_overwritten_yet(host: Host, images: Path) -> None:
    with mock.patch(f"{UTILS}wipe.Wipe.erase", side_effect=Killed), pytest.raises(Killed):
        host.run("volume_wipe", **QCOW2)
    assert holds(images / LEFT)
    host.ok("volume", **{**QCOW2, "name": "other"}, capacity="8MiB", preallocation="full")
    assert holds(images / LEFT)
    host.ok("volume_wipe", **QCOW2)
    assert not (images / LEFT).exists()


# Refused


@pytest.mark.parametrize("form", ["vdi", "vmdk", "vpc", "qed", "qcow"])
def test_formats_that_cannot_be_made_anew(host: Host, images: Path, form: str) -> None:
    disk = {"pool": "images", "name": "other", "format": form}
    host.ok("volume", **disk, capacity="8MiB")
    host.refused("volume_wipe", "unsupported", "volume_convert", **disk)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("running", [True, False])
def test_disk_of_a_guest(host: Host, images: Path, form: str, running: bool) -> None:
    """One that is off would find it empty."""
    xml = disk_xml(f"{images}/disk.{form}", driver=form)
    with connected(host.uri) as connection:
        if running:
            start_guest(connection, "web01", xml)
        else:
            connection.defineXML(domain_xml("web01", xml))
        host.refused("volume_wipe", "in_use", "'web01'", **BY_FORMAT[form])
        host.refused("volume_wipe", "in_use", "'web01'", **BY_FORMAT[form], algorithm="trim")
        assert holds(images / f"disk.{form}")
        if not running:
            with switched_off("operation:Operation.require_unused"):
                host.ok("volume_wipe", **BY_FORMAT[form])  # what the guard is for
            assert not holds(images / f"disk.{form}")


def test_no_guest_can_take_it_meanwhile(host: Host, images: Path) -> None:
    """A raw disk is worked on under its name."""
    refused = []

    def start(descriptor: int) -> None:
        with connected(host.uri) as connection, pytest.raises(libvirt.libvirtError) as error:
            start_guest(connection, "web01", disk_xml(f"{images}/disk.raw"))
        refused.append(str(error.value))

    with mock.patch(f"{UTILS}wipe.zero", side_effect=start):
        host.ok("volume_wipe", **RAW)
    assert "lock" in refused[0], refused
    begun = []

    def start_unguarded(descriptor: int) -> None:
        begun.append(start_guest(host.uri, "web01", disk_xml(f"{images}/disk.raw")).isActive())

    with mock.patch(f"{UTILS}exclusive.lock"), mock.patch(f"{UTILS}wipe.zero", side_effect=start_unguarded):
        host.ok("volume_wipe", **RAW)  # what the lock is for
    assert begun == [1]


def test_chain_of_five(host: Host, images: Path) -> None:
    names = ["disk.qcow2", *(f"over{number}" for number in range(1, 5))]
    for below, name in zip(names, names[1:]):
        host.ok("volume", **{**QCOW2, "name": name}, backing={"volume": below, "format": "qcow2"})
    host.refused("volume_wipe", "has_overlays", "images/over1", **QCOW2)
    for name in names[1:-1]:
        host.refused("volume_wipe", "unsupported", "overlay", **{**QCOW2, "name": name})
    host.refused("volume_wipe", "unsupported", "volume_flatten", **{**QCOW2, "name": names[-1]})
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{images}/over4", driver="qcow2"))
        host.refused("volume_wipe", "has_overlays", **QCOW2)
        guest.destroy()
    assert holds(images / "disk.qcow2")
    with switched_off("operation:Operation.require_no_overlays"):
        host.ok("volume_wipe", **QCOW2)  # what the guard is for
    assert not holds(images / "disk.qcow2")


def test_raw_base(host: Host, images: Path) -> None:
    host.ok("volume", **{**QCOW2, "name": "over"}, backing={"volume": "disk.raw", "format": "raw"})
    host.refused("volume_wipe", "has_overlays", "images/over", **RAW)


def test_internal_snapshots(host: Host, images: Path) -> None:
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(images / "disk.qcow2")], check=True)
    host.refused("volume_wipe", "has_snapshots", "'one'", **QCOW2)
    assert holds(images / "disk.qcow2")


def test_immutable_and_encrypted(host: Host, images: Path) -> None:
    host.ok("volume", **QCOW2, immutable=True)
    host.refused("volume_wipe", "immutable", **QCOW2)
    host.ok("secret", usage="volume", usage_name="luks", value="hunter2")
    disk = {**QCOW2, "name": "luks"}
    host.ok("volume", **disk, capacity="8MiB", encryption={"secret_usage": "luks"})
    host.refused("volume_wipe", "unsupported", "LUKS", **disk)


def test_header_of_a_guest_is_not_followed(host: Host, images: Path, scratch: Path) -> None:
    poison(images / "disk.raw", scratch / "canary")
    host.refused("volume_wipe", "format_mismatch", **RAW)
    (images / "link").symlink_to(scratch / "canary")
    host.refused("volume_wipe", "not_a_volume", **{**RAW, "name": "link"})
    os.link(scratch / "canary", images / "hard")
    host.refused("volume_wipe", "not_a_volume", **{**RAW, "name": "hard"})
    assert (scratch / "canary").read_bytes().startswith(b"host file")


def test_what_is_missing(host: Host, images: Path) -> None:
    host.refused("volume_wipe", "no_volume", pool="images", name="nothing", format="raw")
    host.refused("volume_wipe", "format_undeclared", pool="images", name="disk.raw")
    with mock.patch(f"{UTILS}commands.ENVIRONMENT", {"PATH": "/nowhere"}):
        host.refused("volume_wipe", "missing_command", "install scrub", **RAW, algorithm="dod")


def test_blinded_guards_refuse(host: Host, images: Path) -> None:
    with mock.patch("libvirt.virConnect.listAllDomains", side_effect=libvirt.libvirtError("no domains here")):
        for disk in BY_FORMAT.values():
            host_run = host.run("volume_wipe", **disk)
            assert (host_run.get("failed"), host_run["code"]) == (True, "guard_unavailable"), host_run
    assert all(holds(images / f"disk.{form}") for form in BY_FORMAT)


def test_scrub_needs_room_for_the_holes(host: Host, scratch: Path, loop_device: Any) -> None:
    device = loop_device(64 * MIB).device
    host.ok("pool_fs", name="small", path=f"{scratch}/small", device=device, source_format="ext4", build="if_blank")
    disk = {"pool": "small", "name": "disk", "format": "raw"}
    host.ok("volume", **disk, capacity="256MiB")
    host.refused("volume_wipe", "no_space", **disk, algorithm="dod")
    host.ok("volume_wipe", **disk)


# Other backends


@pytest.fixture
def vms(host: Host, ceph: Ceph) -> Host:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    return host


@pytest.mark.parametrize("algorithm", ["zero", "trim"])
def test_rbd(vms: Host, ceph: Ceph, scratch: Path, algorithm: str) -> None:
    (scratch / "data").write_bytes(SECRET * 65536)
    ceph.run("rbd", "import", str(scratch / "data"), "rbd/web01")
    vms.ok("volume_info", pool="vms", refresh=True)
    disk = {"pool": "vms", "name": "web01"}
    vms.refused("volume_wipe", "unsupported", "zero or trim", **disk, algorithm="dod")
    ceph.run("rbd", "snap", "create", "rbd/web01@one")
    vms.refused("volume_wipe", "has_snapshots", "'one'", **disk, algorithm=algorithm)
    ceph.run("rbd", "snap", "rm", "rbd/web01@one")
    wiped(vms, **disk, algorithm=algorithm)
    ceph.run("rbd", "export", "rbd/web01", str(scratch / "after"))
    assert (scratch / "after").read_bytes() == bytes(len(SECRET) * 65536)
    vms.ok("volume", **disk, state="absent")


def test_rbd_clone(vms: Host, ceph: Ceph) -> None:
    """What it shares with its parent stays there."""
    ceph.run("rbd", "create", "--size", "8", "rbd/golden")
    ceph.run("rbd", "snap", "create", "rbd/golden@one")
    ceph.run("rbd", "snap", "protect", "rbd/golden@one")
    ceph.run("rbd", "clone", "rbd/golden@one", "rbd/child")
    vms.ok("volume_info", pool="vms", refresh=True)
    vms.refused("volume_wipe", "has_snapshots", "parent 'golden'", pool="vms", name="child")
    ceph.run("rbd", "rm", "rbd/child")
    ceph.run("rbd", "snap", "unprotect", "rbd/golden@one")
    ceph.run("rbd", "snap", "rm", "rbd/golden@one")
    ceph.run("rbd", "rm", "rbd/golden")


def test_rbd_under_a_client(vms: Host, ceph: Ceph) -> None:
    """A guest of another host is known by its watch alone."""
    ceph.run("rbd", "create", "--size", "8", "rbd/watched")
    vms.ok("volume_info", pool="vms", refresh=True)
    hosts = "".join(f"<host name='{name}' port='{port}'/>" for name, port in ceph.monitors)
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/watched'>{hosts}</source><target dev='vda' bus='virtio'/></disk>"
    )
    with connected(vms.uri) as connection:
        guest = start_guest(connection, "theirs", disk)
        vms.refused("volume_wipe", "in_use", "'theirs'", pool="vms", name="watched")
        with switched_off("volume:Volume.users", []):
            vms.refused("volume_wipe", "in_use", "open at", pool="vms", name="watched")
        guest.destroy()
    vms.ok("volume_wipe", pool="vms", name="watched")
    ceph.run("rbd", "rm", "rbd/watched")


def test_partition(host: Host, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="dos", build="if_blank")
    name = disk_node.node.name
    one, extended, other = (f"{name}{number}" for number in (1, 2, 3))
    host.ok("volume", pool="data", name=one, capacity="32MiB")
    host.ok("volume", pool="data", name=extended, capacity="128MiB", format="extended")
    host.ok("volume", pool="data", name=other, capacity="32MiB")
    paths = {part: Path(host.volume("data", part).findtext("target/path")) for part in (one, other)}
    for path in paths.values():
        with open(path, "r+b") as device:
            device.write(SECRET * 100)
    host.refused("volume_wipe", "unsupported", "extended", pool="data", name=extended)
    for part in (one, other):
        wiped(host, pool="data", name=part)
        assert not holds(paths[part])
    assert host.volumes("data") == [one, extended, other]
    host.ok("volume_wipe", pool="data", name=one, algorithm="random")
    assert paths[one].read_bytes().strip(b"\0")
    host.ok("volume_wipe", pool="data", name=one, algorithm="trim")
    holder = os.open(paths[one], os.O_RDONLY | os.O_EXCL)  # as a mount has it
    host.refused("volume_wipe", "in_use", "has it for itself", pool="data", name=one)
    with switched_off("volume:Volume.check_device_closed"):  # it is opened for one alone, too
        host.failed("volume_wipe", "in_use", "open or mounted", pool="data", name=one)
    os.close(holder)
    with switched_off("wipe:Wipe.check_device"):
        host.ok("volume_wipe", pool="data", name=extended)  # what the guard is for


def test_lun_over_the_network(host: Host, iscsi: Target, scratch: Path) -> None:
    hosts = [{"name": iscsi.host, "port": iscsi.port}]
    pool = {"name": "luns", "hosts": hosts, "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool)
    (image,) = sorted(iscsi.root.glob("open-1.img"))
    with open(image, "r+b") as lun:
        lun.seek(3 * MIB)
        lun.write(SECRET * 1024)
    disk = {"pool": "luns", "name": "unit:0:0:1"}
    host.refused("volume_wipe", "unsupported", "by zero only", **disk, algorithm="random")
    host.ok("volume_wipe", **disk)
    assert not holds(image)


def test_gluster(host: Host, scratch: Path, gluster: Gluster) -> None:
    """Through its mount, and not without one."""
    share = {"hosts": [{"name": gluster.host}], "source_path": gluster.volume, "source_format": "glusterfs"}
    host.ok("pool_netfs", name="shared", path=f"{scratch}/mnt", **share)
    disk = {"pool": "shared", "name": "wiped.qcow2", "format": "qcow2"}
    host.ok("volume", **disk, capacity="8MiB")
    fill(scratch, scratch / "mnt/wiped.qcow2", "qcow2")
    host.ok("volume_wipe", **disk)
    assert empty(scratch / "mnt/wiped.qcow2", "qcow2")
    host.ok("pool_gluster", name="direct", hosts=[{"name": gluster.host}], source_name=gluster.volume)
    result = host.run("volume_wipe", **{**disk, "pool": "direct"})
    assert (result["code"], "netfs" in result["msg"]) == ("unsupported", True), result
    host.ok("volume", **disk, state="absent")


@pytest.mark.parametrize(("form", "size"), [("ext4", 128 * MIB), ("xfs", 320 * MIB)])
def test_medium_below(host: Host, scratch: Path, loop_device: Any, form: str, size: int) -> None:
    """The very blocks of the device are overwritten, of a preallocated and of a sparse file."""
    loop = loop_device(size)
    host.ok("pool_fs", name="data", path=f"{scratch}/d", device=loop.device, source_format=form, build="if_blank")
    for name, image, options in (
        ("one.raw", "raw", {}),
        ("two.raw", "raw", {"preallocation": "falloc"}),
        ("one.qcow2", "qcow2", {}),
    ):
        disk = {"pool": "data", "name": name, "format": image}
        host.ok("volume", **disk, capacity="8MiB", **options)
        fill(scratch, scratch / "d" / name, image)
    os.sync()
    assert holds(loop.path)
    for name, image in (("one.raw", "raw"), ("two.raw", "raw"), ("one.qcow2", "qcow2")):
        host.ok("volume_wipe", pool="data", name=name, format=image)
    os.sync()
    assert not holds(loop.path)


def test_result_is_plain(host: Host, images: Path) -> None:
    done = host.ok("volume_wipe", **RAW)
    assert json.dumps(done["diff"]).count("DESTROYS DATA") == 1
    assert done["volume_path"] == f"{images}/disk.raw"
