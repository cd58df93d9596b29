# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guards on a real hypervisor: what a guest needs is not taken away, and a guard that can't see refuses.

Each guard is shown three times: it refuses; blinded it refuses too (guard_unavailable); switched off, the very thing
that it protects is lost, so that its test would fail without it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from tests.integration.helpers import Host, connected, make_image, mutable, qemu_img, switched_off
from tests.servers.ceph import Ceph
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd

DISK = {"pool": "images", "name": "disk.raw", "format": "raw"}
GONE = {"pool": "images", "name": "disk.raw", "state": "absent"}
POOL_GONE = {"name": "images", "state": "absent"}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    host.ok("volume", **DISK, capacity="8MiB")
    yield scratch / "images"
    mutable(scratch)


def by_path(images: Path, scratch: Path) -> str:
    return disk_xml(f"{images}/disk.raw")


def by_link(images: Path, scratch: Path) -> str:
    (scratch / "link").symlink_to(images)
    return disk_xml(f"{scratch}/link/disk.raw")


def by_link_to_the_file(images: Path, scratch: Path) -> str:
    (scratch / "link.raw").symlink_to(images / "disk.raw")
    return disk_xml(f"{scratch}/link.raw")


def by_pool_and_volume(images: Path, scratch: Path) -> str:
    return (
        "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>"
        "<source pool='images' volume='disk.raw'/><target dev='vda' bus='virtio'/></disk>"
    )


def by_overlay(images: Path, scratch: Path) -> str:
    """The guest runs on an overlay that lies in no pool at all."""
    overlay = scratch / "overlay.qcow2"
    make_image("qcow2", overlay, "8M", "-b", f"{images}/disk.raw", "-F", "raw")
    return disk_xml(str(overlay), driver="qcow2")


WAYS = [by_path, by_link, by_link_to_the_file, by_pool_and_volume, by_overlay]


@pytest.mark.parametrize("way", WAYS)
def test_running_guest_keeps_its_disk(
    host: Host, images: Path, scratch: Path, way: Callable[[Path, Path], str]
) -> None:
    with connected(host.uri) as connection:
        start_guest(connection, "web01", way(images, scratch))
        used = "'web01' (running)"
        moved = {"name": "images", "path": f"{scratch}/moved"}
        host.refused("pool_dir", "in_use", used, name="images", state="inactive")
        host.refused("pool_dir", "in_use", used, restart=True, **moved)
        host.refused("pool_dir", "in_use", used, **POOL_GONE)
        host.refused("pool_dir", "in_use", used, **POOL_GONE, delete_data=True)
        host.refused("volume", "in_use", used, **GONE)
        host.refused("volume", "in_use", used, **DISK, capacity="16MiB")
        host.unchanged("volume", **DISK, capacity="8MiB")
        assert connection.lookupByName("web01").isActive()


@pytest.mark.parametrize("way", WAYS)
def test_guest_that_is_off_keeps_its_data(
    host: Host, images: Path, scratch: Path, way: Callable[[Path, Path], str]
) -> None:
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", way(images, scratch)))
        used = "'web01' (defined)"
        host.refused("volume", "in_use", used, **GONE)
        host.refused("pool_dir", "in_use", used, **POOL_GONE, delete_data=True)
        host.converge("volume", ["resize"], **DISK, capacity="16MiB")
        host.converge("pool_dir", ["stop"], name="images", state="inactive")
        host.refused("pool_dir", "in_use", used, **POOL_GONE, delete_data=True)
        host.converge("pool_dir", ["undefine"], **POOL_GONE)


def test_definition_of_a_running_guest_counts_too(host: Host, images: Path, scratch: Path) -> None:
    """Its next start needs what it no longer has open."""
    with connected(host.uri) as connection:
        other = make_image("raw", scratch / "other.raw")
        start_guest(connection, "web01", disk_xml(str(other)), persistent=True)
        connection.defineXML(connection.lookupByName("web01").XMLDesc(2).replace(str(other), f"{images}/disk.raw"))
        host.refused("volume", "in_use", "'web01'", **GONE)


@pytest.mark.parametrize("element", ["loader", "nvram", "kernel"])
def test_firmware_and_kernels_are_uses_too(host: Host, images: Path, element: str) -> None:
    os_element = {
        "loader": "<loader readonly='yes' type='pflash'>{0}</loader>",
        "nvram": "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram>{0}</nvram>",
        "kernel": "<kernel>{0}</kernel>",
    }[element].format(f"{images}/disk.raw")
    with connected(host.uri) as connection:
        text = domain_xml("web01").replace("</type></os>", f"</type>{os_element}</os>")
        connection.defineXML(text)
        host.refused("volume", "in_use", "'web01'", **GONE)


# Other tasks are not held up


def test_other_volumes_and_pools_are_free(host: Host, images: Path, scratch: Path) -> None:
    host.ok("pool_dir", name="other", path=f"{scratch}/other")
    host.ok("volume", pool="images", name="disk.raw2", format="raw", capacity="1MiB")
    with connected(host.uri) as connection:
        start_guest(connection, "web01", by_path(images, scratch))
        host.converge("pool_dir", ["stop", "undefine"], name="other", state="absent")
        host.converge("volume", ["delete"], pool="images", name="disk.raw2", state="absent")


# RBD


@pytest.fixture
def rbd(host: Host, ceph: Ceph) -> Iterator[dict[str, Any]]:
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    pool: dict[str, Any] = {"name": "vms", "source_name": "rbd", "hosts": monitors}
    pool["auth"] = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", **pool)
    host.ok("volume", pool="vms", name="guarded", capacity="8MiB")
    yield pool
    with connected(host.uri) as connection:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
    if "guarded" in ceph.run("rbd", "ls", "rbd").split():
        ceph.run("rbd", "rm", "rbd/guarded")


def rbd_disk(ceph: Ceph) -> str:
    name, port = ceph.monitors[0]
    return (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/guarded'><host name='{name}' port='{port}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )


def test_guest_on_rbd(host: Host, rbd: dict[str, Any], ceph: Ceph) -> None:
    used = "'web01' (running)"
    volume = {"pool": "vms", "name": "guarded"}
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", rbd_disk(ceph), persistent=True)
        host.refused("volume", "in_use", used, **volume, state="absent")
        host.refused("volume", "in_use", used, **volume, format="raw", capacity="16MiB")
        host.refused("pool_rbd", "in_use", used, name="vms", state="inactive")
        host.refused("pool_rbd", "in_use", used, name="vms", state="absent", delete_data=True)
        host.refused(
            "secret", "in_use", "pool 'vms'", "domain 'web01'", usage="ceph", usage_name="admin", state="absent"
        )
        guest.destroy()
        host.refused("volume", "in_use", "'web01' (defined)", **volume, state="absent")
        host.refused("pool_rbd", "in_use", "'web01' (defined)", name="vms", state="absent", delete_data=True)
        host.converge("pool_rbd", ["stop"], name="vms", state="inactive")
        host.failed("pool_rbd", "in_use", "'web01' (defined)", name="vms", state="absent", delete_data=True)
        assert "guarded" in ceph.run("rbd", "ls", "rbd").split()
        host.ok("pool_rbd", **rbd)
        with switched_off("volume:Volume.users", []):
            host.ok("volume", **volume, state="absent")
        assert "guarded" not in ceph.run("rbd", "ls", "rbd").split(), "without the guard the image is lost"


# Chains


def chain_of_five(host: Host) -> list[str]:
    names = ["base.qcow2", *(f"overlay{number}.qcow2" for number in range(1, 5))]
    for number, name in enumerate(names):
        backing = {"backing": {"volume": names[number - 1], "format": "qcow2"}} if number else {}
        host.ok("volume", pool="images", name=name, format="qcow2", capacity="8MiB", **backing)
    return names


def test_base_under_a_chain_of_five(host: Host, images: Path) -> None:
    names = chain_of_five(host)
    for below, above in zip(names, names[1:]):
        host.refused("volume", "has_overlays", f"images/{above}", pool="images", name=below, state="absent")
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{images}/{names[-1]}", driver="qcow2"))
        for name in names:
            host.refused("volume", "in_use", "'web01'", pool="images", name=name, state="absent")
        guest.destroy()
        connection.defineXML(domain_xml("web01", disk_xml(f"{images}/{names[-1]}", driver="qcow2")))
        for name in names:
            host.refused("volume", "in_use", "'web01'", pool="images", name=name, state="absent")
        connection.lookupByName("web01").undefine()
    with switched_off("chain:overlays", []):
        host.ok("volume", pool="images", name="base.qcow2", state="absent")
    with pytest.raises(subprocess.CalledProcessError):
        qemu_img("--backing-chain", "-f", "qcow2", images / names[-1])


BASE = {"pool": "images", "name": "base.qcow2", "format": "qcow2"}
UNSEEN: dict[str, dict[str, Any]] = {
    "volume": {"pool": "images", "name": "base.qcow2", "state": "absent"},
    "volume_resize": {**BASE, "capacity": "4MiB", "shrink": "if_unused"},
    "volume_wipe": BASE,
    "volume_convert": {**BASE, "to": {"format": "raw"}},
    "volume_migrate": {**BASE, "to": {"pool": "others"}},
    "volume_upload": {"pool": "images", "name": "base.qcow2", "source_format": "qcow2", "replace": True},
    "volume_commit": {**BASE, "name": "sibling.qcow2"},
    "pool_dir": {**POOL_GONE, "delete_data": True},
}


@pytest.mark.parametrize(
    "name",
    [
        "{images}/base.qcow2",
        "../images/base.qcow2",
        "{link}/base.qcow2",
        'json:{{"file.filename": "{link}/base.qcow2"}}',
    ],
    ids=["absolute", "relative", "by a link", "JSON"],
)
@pytest.mark.parametrize("module", UNSEEN)
def test_overlay_that_libvirt_has_not_seen_yet(host: Host, images: Path, scratch: Path, module: str, name: str) -> None:
    """qemu-img has made it a moment ago, in the directory of another pool."""
    host.ok("pool_dir", name="others", path=f"{scratch}/others")
    (scratch / "link").symlink_to(images)
    host.ok("volume", **BASE, capacity="8MiB")
    args = dict(UNSEEN[module])
    if module == "volume_commit":
        sibling = {"pool": "images", "name": "sibling.qcow2", "format": "qcow2"}
        host.ok("volume", **sibling, backing={"volume": "base.qcow2", "format": "qcow2"})
        subprocess.run(["qemu-io", "-c", "write 0 64k", images / "sibling.qcow2"], check=True, capture_output=True)
    if module == "volume_upload":
        args["src"] = str(make_image("qcow2", scratch / "new.qcow2", "8M"))
        subprocess.run(["qemu-io", "-c", "write 0 64k", args["src"]], check=True, capture_output=True)
    named = name.format(images=images, link=scratch / "link")
    make_image("qcow2", scratch / "others/over", "8M", "-u", "-b", named, "-F", "qcow2")
    host.refused(module, "has_overlays", "others/over", **args)
    with switched_off("chain:by_header", []):
        assert host.ok(module, check=True, **args)["changed"], "without the guard it goes on"


def test_what_a_killed_run_left_is_no_overlay(host: Host, images: Path) -> None:
    """libvirt lists it as it lists any file, until the next run sweeps it."""
    host.ok("volume", **BASE, capacity="8MiB")
    left = make_image("qcow2", images / ".kvm.storage-00000000-1-x", "8M", "-b", f"{images}/base.qcow2", "-F", "qcow2")
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh(0)
    assert left.name in host.volumes("images")
    host.converge("volume", ["delete"], pool="images", name="base.qcow2", state="absent")


def test_directory_that_can_not_be_listed_blinds_the_guard(host: Host, images: Path) -> None:
    real = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(images):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with mock.patch("os.scandir", refuse):
        for check in (True, False):
            host.failed("volume", "guard_unavailable", str(images), **GONE, check=check)
    assert (images / "disk.raw").exists()


# Snapshots that would be left


def snapshots_of(host: Host) -> list[str]:
    return [one["name"] for one in host.ok("volume_snapshot_info", **BASE)["snapshots"]]


@pytest.mark.parametrize("module", ["volume", "layout"])
def test_a_volume_that_is_made_anew_gets_no_snapshots_of_another(host: Host, images: Path, module: str) -> None:
    host.ok("volume", **BASE, capacity="8MiB")
    for name in ("one", "two"):
        host.ok("volume_snapshot", **BASE, snapshot=name, kind="external")
    gone = {"pool": "images", "name": "base.qcow2", "state": "absent"}
    args = {"volume": gone, "layout": {"volumes": [gone]}}[module]
    host.refused(module, "has_snapshots", "'one', 'two'", "volume_snapshot, state: absent", **args)
    with switched_off("volume:Volume.own_snapshots", []):
        host.ok(module, **args)
    host.ok("volume", **BASE, capacity="8MiB")
    assert snapshots_of(host) == ["one", "two"], "without the guard they come back"


def test_snapshots_that_go_with_their_volume(host: Host, images: Path) -> None:
    """Those inside of it, and those that the same layout removes as the volumes that they are, too."""
    host.ok("volume", **BASE, capacity="8MiB")
    host.ok("volume_snapshot", **BASE, snapshot="inside", kind="internal")
    host.ok("volume", pool="images", name="base.qcow2", state="absent")
    host.ok("volume", **BASE, capacity="8MiB")
    host.ok("volume_snapshot", **BASE, snapshot="one", kind="external")
    names = ["base.qcow2@one", "base.qcow2"]
    host.ok("layout", volumes=[{"pool": "images", "name": name, "state": "absent"} for name in names])
    assert sorted(os.listdir(images)) == ["disk.raw"]


def test_removals_of_many_list_their_directory_once(host: Host, images: Path) -> None:
    names = [f"disk{number}.raw" for number in range(20)]
    for name in names:
        host.ok("volume", pool="images", name=name, format="raw", capacity="1MiB")
    real, asked = os.scandir, []

    def counted(path: Any) -> Any:
        asked.append(str(path))
        return real(path)

    gone = [{"pool": "images", "name": name, "state": "absent"} for name in names]
    with mock.patch("os.scandir", counted):
        host.ok("layout", check=True, volumes=gone)
    assert asked.count(str(images)) == 1, asked


def test_overlays_that_can_not_be_read_blind_the_guard(host: Host, images: Path) -> None:
    host.ok("volume", pool="images", name="other.raw", format="raw", capacity="1MiB")
    real = libvirt.virStorageVol.XMLDesc

    def refuse(volume: libvirt.virStorageVol, flags: int = 0) -> str:
        if volume.name() == "other.raw":
            raise libvirt.libvirtError("cannot open volume: Input/output error")
        return str(real(volume, flags))

    with mock.patch.object(libvirt.virStorageVol, "XMLDesc", refuse):
        host.refused("volume", "guard_unavailable", "images/other.raw", **GONE)
        host.refused("pool_dir", "guard_unavailable", "images/other.raw", **POOL_GONE, delete_data=True)


def test_immutable_base(host: Host, images: Path) -> None:
    base = {"pool": "images", "name": "base.qcow2", "format": "qcow2"}
    host.ok("volume", **base, capacity="8MiB", immutable=True)
    backing = {"volume": "base.qcow2", "format": "qcow2"}
    host.ok("volume", pool="images", name="over.qcow2", format="qcow2", capacity="8MiB", backing=backing)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{images}/over.qcow2", driver="qcow2"))
        assert guest.isActive(), "a base without write permission serves its overlays"
        guest.destroy()
    host.ok("volume", pool="images", name="over.qcow2", state="absent")
    host.refused("volume", "immutable", "immutable: false", pool="images", name="base.qcow2", state="absent")
    with switched_off("volume:Volume.check_delete"):
        result = host.failed("volume", "backend_refused", pool="images", name="base.qcow2", state="absent")
    assert (images / "base.qcow2").exists(), f"the attribute holds even without the guard: {result['msg']}"
    with switched_off("permissions:is_protected", False), switched_off("volume:Volume.check_delete"):
        subprocess.run(["chattr", "-i", images / "base.qcow2"], check=True)
        host.ok("volume", pool="images", name="base.qcow2", state="absent")
    assert not (images / "base.qcow2").exists(), "with neither it is lost"


# QEMU of another libvirt


def test_disk_of_another_hypervisor(host: Host, images: Path, run_root: Path) -> None:
    with Libvirtd(run_root / "neighbour") as neighbour:
        start_guest(neighbour.uri, "theirs", disk_xml(f"{images}/disk.raw"))
        host.refused("volume", "in_use", "QEMU process has it open", **GONE)
        host.refused("pool_dir", "in_use", "'disk.raw' open", **POOL_GONE, delete_data=True)
        with switched_off("chain:image_locked", False):
            host.ok("volume", **GONE)
    assert not (images / "disk.raw").exists(), "without the guard it is lost"


def test_disk_of_another_hypervisor_goes_when_its_guest_ends(host: Host, images: Path, run_root: Path) -> None:
    with Libvirtd(run_root / "neighbour") as neighbour, connected(neighbour.uri) as connection:
        guest = start_guest(connection, "theirs", disk_xml(f"{images}/disk.raw"))
        host.refused("volume", "in_use", **GONE)
        guest.destroy()
        host.converge("volume", ["delete"], **GONE)


# Blind guards

NEED_DOMAINS: dict[str, tuple[str, dict[str, Any]]] = {
    "stop": ("pool_dir", {"name": "images", "state": "inactive"}),
    "absent": ("pool_dir", POOL_GONE),
    "delete_data": ("pool_dir", {**POOL_GONE, "delete_data": True}),
    "delete": ("volume", GONE),
    "resize": ("volume", {**DISK, "capacity": "16MiB"}),
    "secret": ("secret", {"usage": "ceph", "usage_name": "somebody", "state": "absent"}),
}


@pytest.mark.parametrize("what", NEED_DOMAINS)
def test_domains_that_can_not_be_listed(host: Host, images: Path, what: str) -> None:
    host.ok("secret", usage="ceph", usage_name="somebody")
    module, args = NEED_DOMAINS[what]

    def refuse(connection: libvirt.virConnect, flags: int = 0) -> list[libvirt.virDomain]:
        raise libvirt.libvirtError("Cannot recv data: Connection reset by peer")

    before = host.state()
    with mock.patch.object(libvirt.virConnect, "listAllDomains", refuse):
        for check in (True, False):
            result = host.run(module, check=check, **args)
            assert (result.get("failed"), result["code"]) == (True, "guard_unavailable"), result
    assert host.state() == before


@pytest.mark.parametrize("what", sorted(set(NEED_DOMAINS) - {"secret"}))
def test_connection_without_domains(host: Host, images: Path, fresh_hypervisor: Libvirtd, what: str) -> None:
    """storage:/// has pools and volumes and neither domains nor secrets."""
    module, args = NEED_DOMAINS[what]
    narrow = Host(fresh_hypervisor.uri.replace("qemu+unix", "storage+unix"))
    before = host.state()
    for check in (True, False):
        result = narrow.run(module, check=check, **args)
        assert (result.get("failed"), result["code"]) == (True, "guard_unavailable"), result
        assert "qemu:///system" in result["msg"]
    assert host.state() == before


def test_connection_without_domains_makes_what_harms_nobody(
    host: Host, scratch: Path, fresh_hypervisor: Libvirtd
) -> None:
    narrow = Host(fresh_hypervisor.uri.replace("qemu+unix", "storage+unix"))
    narrow.ok("pool_dir", name="images", path=f"{scratch}/images", autostart=True)
    narrow.ok("volume", **DISK, capacity="8MiB")
    secret = narrow.run("secret", usage="ceph", usage_name="somebody")
    assert (secret["failed"], secret["code"]) == (True, "unsupported")


# Switched off


def test_without_the_guard_of_pools_the_data_is_lost(host: Host, images: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        start_guest(connection, "web01", by_path(images, scratch))
        with switched_off("pool:Pool.check_unused"):
            host.refused("pool_dir", "in_use", "'disk.raw' open", **POOL_GONE, delete_data=True)  # the lock still tells
        with switched_off("pool:Pool.check_unused"), switched_off("chain:image_locked", False):
            host.ok("pool_dir", **POOL_GONE, delete_data=True)
        assert not images.exists()
        assert connection.lookupByName("web01").isActive(), "on a disk that has no name any more"


def test_without_the_guard_of_pools_a_guest_loses_its_pool(host: Host, images: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        start_guest(connection, "web01", by_pool_and_volume(images, scratch))
        with switched_off("pool:Pool.check_unused"):
            host.ok("pool_dir", name="images", state="inactive")
        assert not connection.storagePoolLookupByName("images").isActive()


def test_without_the_guard_of_volumes_the_disk_is_lost(host: Host, images: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        start_guest(connection, "web01", by_path(images, scratch))
        with switched_off("volume:Volume.users", []):
            host.refused("volume", "in_use", "QEMU process has it open", **GONE)
        with switched_off("volume:Volume.users", []), switched_off("chain:image_locked", False):
            host.ok("volume", **GONE)
        assert not (images / "disk.raw").exists()


def test_without_the_guard_of_volumes_a_running_disk_is_resized(host: Host, images: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        start_guest(connection, "web01", by_path(images, scratch))
        with switched_off("volume:Volume.users", []):
            # of a guest that libvirt here knows nothing of, QEMU's own lock tells
            host.refused("volume", "in_use", "a QEMU process", **DISK, capacity="16MiB")
            with switched_off("chain:image_locked", False):
                host.ok("volume", **DISK, capacity="16MiB")
        assert os.stat(images / "disk.raw").st_size == 16 << 20


def test_without_the_guard_of_secrets_a_pool_loses_its_login(host: Host, rbd: dict[str, Any]) -> None:
    gone = {"usage": "ceph", "usage_name": "admin", "state": "absent"}
    host.refused("secret", "in_use", "pool 'vms'", **gone)
    with switched_off("secret:Secret.check_unneeded"):
        host.ok("secret", **gone)
    host.refused("pool_rbd", "no_secret", "'admin'", **rbd)


def test_without_the_guard_of_conflicts_two_pools_share_a_directory(host: Host, images: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        link = scratch / "link"
        link.symlink_to(images)
        host.refused("pool_dir", "path_conflict", "'images'", name="second", path=str(link))
        with switched_off("pool:Pool.check_conflicts"):
            host.ok("pool_dir", name="second", path=str(link))
        assert connection.storagePoolLookupByName("second").isActive()
