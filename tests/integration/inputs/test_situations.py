# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inputs that only the situation makes bad: what is there, what is not, what else is declared."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import guards, headroom
from tests.integration.helpers import connected, poison
from tests.servers.ceph import Ceph
from tests.servers.guest import disk_xml, domain_xml
from tests.servers.iscsi import Target
from tests.servers.silent import SilentServer, closed_port

from .conftest import KEY, Site
from .counts import tell
from .generated import Bad

Situation = Callable[[Site], Bad]

CEPH = [{"name": "127.0.0.1", "port": 6789}]


def pool(site: Site, name: str = "new", **options: Any) -> dict[str, Any]:
    return {"type": "dir", "name": name, "path": f"{site.root}/{name}", **options}


def volume(name: str, **options: Any) -> dict[str, Any]:
    return {"pool": "images", "name": name, **options}


def layout(code: str, words: tuple[str, ...] = (), **items: Any) -> Bad:
    return Bad("layout", items, code, words)


def one(module: str, code: str, words: tuple[str, ...] = (), **args: Any) -> Bad:
    return Bad(module, args, code, words)


def refresh(site: Site) -> None:
    with connected(site.hypervisor.uri) as conn:
        conn.storagePoolLookupByName("images").refresh()


def define_domain(site: Site, disk: str) -> None:
    with connected(site.hypervisor.uri) as conn:
        conn.defineXML(domain_xml("web01", disk))


def of_declarations(site: Site) -> dict[str, Bad]:
    """What the declaration itself contradicts."""
    root = site.root
    base, over = {"volume": "a", "format": "qcow2"}, {"volume": "b", "format": "qcow2"}
    rbd = {"type": "rbd", "source_name": "rbd", "hosts": CEPH}
    size = {"capacity": "1MiB", "format": "qcow2"}
    secret = {"usage": "ceph", "usage_name": "x"}
    return {
        "a pool twice": layout("declared_twice", ("'new'",), pools=[pool(site), pool(site)]),
        "a volume twice": layout("declared_twice", ("'images/a'",), volumes=[volume("a", **size), volume("a", **size)]),
        "a secret twice": layout("declared_twice", ("'x'",), secrets=[secret, secret]),
        "a count that meets a name": layout(
            "declared_twice", ("'images/a2'",), volumes=[volume("a%d", count=3, **size), volume("a2", **size)]
        ),
        "two pools on one path": layout(
            "path_conflict", ("'new'", "'other'"), pools=[pool(site), pool(site, "other", path=f"{root}/new")]
        ),
        "two pools on one path otherwise written": layout(
            "path_conflict", ("'other'",), pools=[pool(site), pool(site, "other", path=f"{root}//new/")]
        ),
        "two pools on one ceph pool": layout(
            "source_conflict", ("'r2'",), pools=[{"name": "r1", **rbd}, {"name": "r2", **rbd}]
        ),
        "a circle of two": layout(
            "bad_backing", ("circle",), volumes=[volume("a", backing=over), volume("b", backing=base)]
        ),
        "a circle of one": layout("bad_backing", ("circle", "'images/a'"), volumes=[volume("a", backing=base)]),
        "a circle of three": layout(
            "bad_backing",
            ("circle",),
            volumes=[
                volume("a", backing=over),
                volume("b", backing={**base, "volume": "c"}),
                volume("c", backing=base),
            ],
        ),
        "a base that is declared absent": layout(
            "bad_backing", ("'images/a'",), volumes=[volume("b", state="absent"), volume("a", backing=over)]
        ),
        "a volume in a pool that is declared absent": layout(
            "pool_inactive",
            ("'images/a'",),
            pools=[{"type": "dir", "name": "images", "state": "absent"}],
            volumes=[volume("a", **size)],
        ),
        "a volume in a pool that is declared inactive": layout(
            "pool_inactive",
            ("'new/a'",),
            pools=[pool(site, state="inactive")],
            volumes=[{"pool": "new", "name": "a", **size}],
        ),
        "a type that is not known": layout("bad_value", ("type", "'btrfs'"), pools=[pool(site, type="btrfs")]),
        "no type": layout("bad_value", ("type",), pools=[{"name": "new", "path": f"{root}/new"}]),
        "no name": layout("bad_value", ("name",), pools=[{"type": "dir", "path": f"{root}/new"}]),
        "no pool of a volume": layout("bad_value", ("pool",), volumes=[{"name": "a", **size}]),
        "a count without a place": layout("bad_value", ("%d",), volumes=[volume("a", count=3, **size)]),
        "a count with two places": layout("bad_value", ("%d",), volumes=[volume("%d-%d", count=3, **size)]),
        "a count below zero": layout("bad_value", ("count",), volumes=[volume("a%d", count=-1, **size)]),
        "a count beyond all": layout("bad_value", ("count",), volumes=[volume("a%d", count=10**12, **size)]),
        "a count in words": layout("bad_value", ("count",), volumes=[volume("a%d", count="three", **size)]),
        "a first below zero": layout("bad_value", ("first",), volumes=[volume("a%d", count=1, first=-1, **size)]),
        "too many digits": layout("bad_value", ("digits",), volumes=[volume("a%0999d", count=1, **size)]),
        "one bad item among good ones": layout(
            "bad_value",
            ("'images/b'",),
            secrets=[secret],
            pools=[pool(site)],
            volumes=[volume("a", **size), volume("b", capacity="x")],
        ),
        "transient and inactive": one(
            "pool_dir", "bad_value", ("transient",), name="new", path=f"{root}/new", persistent=False, state="inactive"
        ),
        "transient and autostarted": one(
            "pool_dir", "bad_value", ("transient",), name="new", path=f"{root}/new", persistent=False, autostart=True
        ),
        "data to delete of what stays": one(
            "pool_dir", "bad_value", ("delete_data",), name="new", path=f"{root}/new", delete_data=True
        ),
        "no time to wait": one(
            "pool_dir", "bad_value", ("wait_timeout",), name="new", path=f"{root}/new", wait_timeout=0
        ),
        "allocation and preallocation": one(
            "volume", "bad_value", ("allocation",), **volume("a", capacity="1M", allocation="1M", preallocation="full")
        ),
        "metadata of a raw volume": one(
            "volume", "bad_value", ("metadata",), **volume("a", capacity="1M", format="raw", preallocation="metadata")
        ),
        "an overlay that is raw": one("volume", "bad_value", ("qcow2",), **volume("a", format="raw", backing=base)),
        "an overlay with all its blocks": one(
            "volume", "bad_value", ("backing",), **volume("a", backing=base, preallocation="full")
        ),
        "clusters of a raw volume": one(
            "volume", "bad_value", ("cluster_size",), **volume("a", capacity="1M", format="raw", cluster_size="64K")
        ),
        "lazy_refcounts of compat 0.10": one(
            "volume", "bad_value", ("compat",), **volume("a", **size, compat="0.10", lazy_refcounts=True)
        ),
        "immutable and writable": one(
            "volume", "bad_value", ("immutable",), **volume("a", **size, immutable=True, permissions={"mode": "0644"})
        ),
        "encrypted and of no format for it": one(
            "volume",
            "bad_value",
            ("encryption",),
            **volume("a", capacity="1M", format="vdi", encryption={"secret_usage": "x"}),
        ),
        "an owner that nobody knows": one(
            "volume", "bad_value", ("'nobody-knows'",), **volume("a", **size, permissions={"owner": "nobody-knows"})
        ),
        "a group that nobody knows": one(
            "pool_dir",
            "bad_value",
            ("'nobody-knows'",),
            name="new",
            path=f"{root}/new",
            permissions={"group": "nobody-knows"},
        ),
        "a backing path that is relative": one(
            "volume", "bad_value", ("backing.path",), **volume("a", backing={"path": "a/b", "format": "raw"})
        ),
        "no host": one("pool_rbd", "bad_value", ("hosts",), name="new", source_name="rbd", hosts=[]),
        "no source": one("pool_rbd", "missing_option", ("source_name",), name="new", hosts=CEPH),
        "no path": one("pool_dir", "missing_option", ("path",), name="new"),
        "no capacity": one("volume", "missing_option", ("capacity",), **volume("a")),
        "an empty description": one("secret", "bad_value", ("description",), **secret, description=""),
        "a name of a secret on two lines": one("secret", "bad_value", ("usage_name",), usage="ceph", usage_name="a\nb"),
    }


def by_specification(site: Site) -> dict[str, Bad]:
    """What Ansible's own validation refuses."""
    auth = {"username": "vms"}
    rbd = {"name": "new", "source_name": "rbd", "hosts": CEPH}
    secret = {"usage": "ceph", "usage_name": "x"}
    luks = {"secret_usage": "x"}
    found = {
        "two values": one("secret", "bad_value", ("value",), **secret, value=KEY, value_base64=KEY),
        "a value and a keyring": one("secret", "bad_value", ("value",), **secret, value=KEY, keyring_file="/x"),
        "an entity of no keyring": one("secret", "bad_value", ("keyring",), **secret, keyring_entity="client.x"),
        "no usage": one("secret", "bad_value", ("usage",), usage_name="x"),
        "no name of the usage": one("secret", "bad_value", ("usage_name",), usage="ceph"),
        "a login without a secret": one("pool_rbd", "bad_value", ("secret_usage",), **rbd, auth=auth),
        "a login with two secrets": one(
            "pool_rbd", "bad_value", ("secret_usage",), **rbd, auth={**auth, "secret_usage": "a", "secret_uuid": "b"}
        ),
        "a login without a user": one("pool_rbd", "bad_value", ("username",), **rbd, auth={"secret_usage": "a"}),
        "a host without a name": one(
            "pool_rbd", "bad_value", ("name",), name="new", source_name="rbd", hosts=[{"port": 1}]
        ),
        "no name": one("pool_dir", "bad_value", ("name",), path=f"{site.root}/new"),
        "no pool": one("volume", "bad_value", ("pool",), name="a"),
        "a backing by path and by volume": one(
            "volume", "bad_value", ("path",), **volume("a", backing={"path": "/x", "volume": "b"})
        ),
        "a backing of nothing": one("volume", "bad_value", ("path",), **volume("a", backing={"format": "raw"})),
        "a backing of vmdk": one(
            "volume", "bad_value", ("format",), **volume("a", backing={"volume": "b", "format": "vmdk"})
        ),
        "a passphrase by both": one(
            "volume", "bad_value", ("secret_usage",), **volume("a", encryption={**luks, "secret_uuid": "b"})
        ),
        "a cipher without its ivgen": one(
            "volume", "bad_value", ("ivgen_name",), **volume("a", encryption={**luks, "cipher_name": "aes"})
        ),
    }
    return {name: Bad(bad.module, bad.args, bad.code, bad.words, by_spec=True) for name, bad in found.items()}


def of_what_is_there(site: Site) -> dict[str, Bad]:
    """What the host contradicts; of_declarations() has no need of it."""
    root, qcow2 = site.root, {"format": "qcow2"}
    over = {"backing": {"volume": "base.qcow2", "format": "qcow2"}}
    return {
        "a pool on the path of another": one(
            "pool_dir", "path_conflict", ("'images'",), name="new", path=f"{root}/images"
        ),
        "a pool on the path of an inactive one": one(
            "pool_dir", "path_conflict", ("'stopped'",), name="new", path=f"{root}/stopped/"
        ),
        "a pool of another type": one(
            "pool_rbd", "type_mismatch", ("'images'", "pool_dir"), name="images", source_name="rbd", hosts=CEPH
        ),
        "a pool that becomes transient": one(
            "pool_dir", "cannot_change", ("transient",), name="images", persistent=False
        ),
        "a volume in a pool that is not there": one(
            "volume", "no_pool", ("'nowhere'",), pool="nowhere", name="a", capacity="1M"
        ),
        "a volume of a layout in no pool": layout(
            "no_pool", ("'nowhere'",), volumes=[{"pool": "nowhere", "name": "a", "capacity": "1M"}]
        ),
        "a volume in an inactive pool": one(
            "volume", "pool_inactive", ("'stopped'",), pool="stopped", name="a", capacity="1M"
        ),
        "a base that is not there": one(
            "volume", "no_backing", ("images/nothing",), **volume("a", backing={"volume": "nothing", **qcow2})
        ),
        "a base in a pool that is not there": one(
            "volume", "no_backing", ("nowhere/b",), **volume("a", backing={"pool": "nowhere", "volume": "b", **qcow2})
        ),
        "a base of undeclared format": one(
            "volume", "format_undeclared", ("backing.format",), **volume("a", backing={"volume": "base.qcow2"})
        ),
        "a base of another format": one(
            "volume", "format_mismatch", ("raw",), **volume("a", backing={"volume": "base.qcow2", "format": "raw"})
        ),
        "a base outside of all pools": one(
            "volume",
            "backing_outside",
            (f"{root}/outside",),
            **volume("a", backing={"path": f"{root}/outside", "format": "raw"}),
        ),
        "a base that is a file of the host": one(
            "volume",
            "backing_outside",
            ("/etc/passwd",),
            **volume("a", backing={"path": "/etc/passwd", "format": "raw"}),
        ),
        "itself as its base": one(
            "volume", "no_backing", ("images/a",), **volume("a", backing={"volume": "a", **qcow2})
        ),
        "another base": one(
            "volume",
            "cannot_change",
            ("backing",),
            **volume("over.qcow2", **qcow2, backing={"volume": "disk.raw", "format": "raw"}),
        ),
        "a base below what stands alone": one(
            "volume",
            "cannot_change",
            ("backing",),
            **volume("base.qcow2", **qcow2, backing={"volume": "disk.raw", "format": "raw"}),
        ),
        "other clusters": one(
            "volume", "cannot_change", ("cluster_size",), **volume("base.qcow2", **qcow2, cluster_size="128KiB")
        ),
        "another compat": one("volume", "cannot_change", ("compat",), **volume("base.qcow2", **qcow2, compat="0.10")),
        "lazy_refcounts afterwards": one(
            "volume", "cannot_change", ("lazy_refcounts",), **volume("base.qcow2", **qcow2, lazy_refcounts=True)
        ),
        "encrypted afterwards": one(
            "volume",
            "cannot_change",
            ("encryption",),
            **volume("base.qcow2", **qcow2, encryption={"secret_usage": "client.vms"}),
        ),
        "growth of what is nowhere declared": one(
            "volume", "format_undeclared", ("format",), **volume("base.qcow2", capacity="16MiB")
        ),
        "a base under its overlay": one(
            "volume", "has_overlays", ("images/over.qcow2",), **volume("base.qcow2", state="absent")
        ),
        "a format that no pool makes": one(
            "volume", "unsupported", ("linux-lvm",), **volume("a", capacity="1M", format="linux-lvm")
        ),
        "a passphrase that is not there": one(
            "volume",
            "no_secret",
            ("'nothing'",),
            **volume("a", capacity="1M", **qcow2, encryption={"secret_usage": "nothing"}),
        ),
        "a login with no secret": one(
            "pool_rbd",
            "no_secret",
            ("'nothing'",),
            name="new",
            source_name="rbd",
            hosts=CEPH,
            auth={"username": "vms", "secret_usage": "nothing"},
        ),
        "another uuid": one(
            "secret",
            "cannot_change",
            ("uuid",),
            usage="ceph",
            usage_name="client.vms",
            uuid="7a4c6b52-2f6b-4c2e-9d5e-0f4f6f3b9a11",
        ),
        "a keyring that is not there": one(
            "secret", "bad_keyring", (f"{root}/none",), usage="ceph", usage_name="x", keyring_file=f"{root}/none"
        ),
        "a keyring that is a directory": one(
            "secret", "bad_keyring", (str(root),), usage="ceph", usage_name="x", keyring_file=str(root)
        ),
        "a keyring of zeroes": one(
            "secret", "bad_keyring", ("disk.raw",), usage="ceph", usage_name="x", keyring_file=f"{root}/images/disk.raw"
        ),
        "the time of an unknown server": one("pool_info", "no_pool", ("'nothing'",), names=["nothing"]),
        "a volume that nobody has": one(
            "volume_info", "no_volume", ("'images/nothing'",), pool="images", names=["nothing"]
        ),
        "volumes of a pool that is inactive": one("volume_info", "pool_inactive", ("'stopped'",), pool="stopped"),
        "grown and not alone": layout(
            "would_shrink",
            ("'images/disk.raw'",),
            volumes=[volume("disk.raw", format="raw", capacity="1M"), volume("new", capacity="1M", **over)],
        ),
    }


TABLES = {"declarations": of_declarations, "specification": by_specification, "the host": of_what_is_there}


@pytest.mark.parametrize("table", TABLES)
def test_table(table: str, site: Site, pytestconfig: pytest.Config) -> None:
    (site.root / "outside").write_bytes(bytes(1 << 20))
    rows = TABLES[table](site)
    for name, bad in rows.items():
        try:
            site.refuses(bad)
        except AssertionError as error:
            pytest.fail(f"{name}: {error}")
    tell(pytestconfig, f"inputs, {table}: {len(rows)}")


# What stands in a pool and is no volume


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def hard_link(path: Path) -> None:
    (path.parent.parent / "outside").write_bytes(b"x" * 4096)
    os.link(path.parent.parent / "outside", path)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def device(path: Path) -> None:
    os.mknod(path, 0o600 | 0o060000, os.makedev(7, 250))


@pytest.mark.parametrize("make", [link, dangling, hard_link, fifo, folder, unix_socket, device])
@pytest.mark.parametrize("seen", [True, False], ids=["refreshed", "not yet seen"])
def test_what_is_no_volume(make: Callable[[Path], None], seen: bool, site: Site) -> None:
    make(site.root / "images/odd")
    if seen:
        refresh(site)
    for options in (
        {"format": "raw", "capacity": "1MiB"},
        {"format": "qcow2", "capacity": "1GiB"},
        {"permissions": {"mode": "0644"}, "capacity": "1MiB"},
        {"immutable": True, "capacity": "1MiB"},
        {"state": "absent"},
    ):
        site.refuses(one("volume", "not_a_volume", ("'images/odd'",), **volume("odd", **options)))
    site.refuses(
        layout("not_a_volume", ("'images/odd'",), volumes=[volume("odd", capacity="1M"), volume("x", capacity="1M")])
    )


# A disk that its guest made into something else


FAN_OPEN, FAN_ACCESS, FAN_NONBLOCK = 0x20, 0x1, 0x2  # linux/fanotify.h


@contextmanager
def watched(path: Path) -> Iterator[Callable[[], set[int]]]:
    """Who opens or reads a file, as pids."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.fanotify_init(FAN_NONBLOCK, os.O_RDONLY)
    mask = ctypes.c_uint64(FAN_OPEN | FAN_ACCESS)
    assert libc.fanotify_mark(descriptor, 1, mask, -100, os.fsencode(path)) == 0, os.strerror(ctypes.get_errno())

    def readers() -> set[int]:
        found = set()
        with suppress(BlockingIOError):
            while data := os.read(descriptor, 4096):
                for at in range(0, len(data), 24):
                    opened, pid = struct.unpack_from("ii", data, at + 16)
                    os.close(opened)
                    found.add(pid)
        return found

    try:
        yield readers
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("seen", [True, False], ids=["refreshed", "not yet seen"])
def test_poisoned_disk(seen: bool, site: Site, tmp_path: Path) -> None:
    """A raw disk with a header that names a host file: each way to it is refused, and nobody opens that file."""
    canary = tmp_path / "canary"
    poison(site.root / "images/disk.raw", canary)
    if seen:
        refresh(site)
    with watched(canary) as readers:
        subprocess.run(["cat", str(canary)], check=True, stdout=subprocess.DEVNULL)
        assert readers(), "the watch sees nothing"
        raw = {"format": "raw"}
        for options in (raw, {**raw, "capacity": "8MiB"}, {**raw, "capacity": "1GiB"}, {**raw, "immutable": True}):
            site.refuses(
                one("volume", "format_mismatch", ("'images/disk.raw'", "raw", "qcow2"), **volume("disk.raw", **options))
            )
        backing = {"volume": "disk.raw", "format": "raw"}
        site.refuses(one("volume", "format_mismatch", ("disk.raw",), **volume("new", backing=backing)))
        site.refuses(
            one("volume", "backing_outside", (str(canary),), **volume("new", backing={**backing, "format": "qcow2"}))
        )
        site.refuses(one("volume", "format_undeclared", (), **volume("new", backing={"volume": "disk.raw"})))
        site.refuses(one("volume", "format_undeclared", (), **volume("disk.raw", capacity="1GiB")))
        for module in ("volume_info", "layout_info", "pool_info"):
            site.host.ok(module)
        told = site.host.ok("layout_info")
        declared = next(item for item in told["layout"]["volumes"] if item["name"] == "disk.raw")
        assert "format" not in declared and "backing" not in declared, "a header became a declaration"
        replayed = site.host.ok("layout", **told["layout"])
        assert not replayed["changed"]
        site.host.ok("volume", **volume("disk.raw", state="absent"))
        # libvirtd looks at what a header names whenever it is asked for the volume, and can't be kept from it
        opened = readers() - {site.hypervisor.pid}
    assert not opened, f"this run is {os.getpid()}, and these opened the file that the header names: {opened}"


def test_image_that_stands_on_a_host_file(site: Site, tmp_path: Path) -> None:
    """Its format is the declared one, and still its header leads out of all pools: nothing is put on it."""
    canary = tmp_path / "canary"
    poison(site.root / "images/disk.raw", canary)
    (site.root / "images/disk.raw").rename(site.root / "images/hostile.qcow2")
    refresh(site)
    hostile = volume("hostile.qcow2", format="qcow2")
    over = volume("new", backing={"volume": "hostile.qcow2", "format": "qcow2"})
    with watched(canary) as readers:
        site.refuses(one("volume", "backing_outside", ("'images/new'", str(canary)), **over))
        site.refuses(layout("backing_outside", ("'images/new'", str(canary)), volumes=[hostile, over]))
        opened = readers() - {site.hypervisor.pid}
    assert not opened


# Users, mounts and space


@pytest.mark.parametrize("way", ["file", "volume"])
def test_volume_of_a_domain(way: str, site: Site) -> None:
    disk = disk_xml(f"{site.root}/images/disk.raw")
    if way == "volume":
        disk = "<disk type='volume'><source pool='images' volume='disk.raw'/><target dev='vda'/></disk>"
    define_domain(site, disk)
    site.refuses(one("volume", "in_use", ("'web01'", "'images/disk.raw'"), **volume("disk.raw", state="absent")))
    site.refuses(one("pool_dir", "in_use", ("'web01'",), name="images", state="absent", delete_data=True))
    site.refuses(
        layout("in_use", ("'web01'",), volumes=[volume("new", capacity="1M"), volume("disk.raw", state="absent")])
    )


def test_immutable_volume(site: Site) -> None:
    site.host.ok("volume", **volume("disk.raw", format="raw", immutable=True))
    site.refuses(one("volume", "immutable", ("immutable: false",), **volume("disk.raw", state="absent")))
    site.refuses(one("volume", "immutable", ("immutable: false",), **volume("disk.raw", format="raw", capacity="1GiB")))
    site.refuses(one("pool_dir", "immutable", ("'images'",), name="images", state="absent", delete_data=True))


def test_secret_that_is_needed(site: Site) -> None:
    with connected(site.hypervisor.uri) as conn:
        conn.storagePoolDefineXML(
            "<pool type='rbd'><name>vms</name><source><name>rbd</name><host name='127.0.0.1' port='1'/>"
            "<auth type='ceph' username='vms'><secret usage='client.vms'/></auth></source></pool>"
        )
    gone = {"usage": "ceph", "usage_name": "client.vms", "state": "absent"}
    site.refuses(one("secret", "in_use", ("'vms'",), **gone))
    site.refuses(layout("in_use", ("'vms'",), secrets=[gone]))


def test_private_secret(site: Site) -> None:
    site.host.ok("secret", usage="tls", usage_name="x", value="a long enough value", private=True)
    site.refuses(one("secret", "cannot_change", ("private",), usage="tls", usage_name="x", private=False))


def test_unmounted_mount_point(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text(
        f"# comment\nUUID=1 {site.root}/stopped ext4 defaults 0 2\n\nbroken\n"
        f"//x/y {site.root}/with\\040space cifs guest 0 0\n"
    )
    monkeypatch.setattr(guards.unmounted, "__defaults__", (str(fstab),))
    site.refuses(one("pool_dir", "not_mounted", (f"{site.root}/stopped",), name="stopped"))
    site.refuses(
        one("pool_dir", "not_mounted", (f"{site.root}/stopped",), name="new", path=f"{site.root}/stopped/deep/er")
    )
    site.refuses(one("pool_dir", "not_mounted", ("with space",), name="new", path=f"{site.root}/with space"))
    site.refuses(
        one(
            "pool_dir",
            "not_mounted",
            (f"{site.root}/new",),
            name="new",
            path=f"{site.root}/new",
            require_mountpoint=True,
        )
    )


@pytest.mark.parametrize(
    "options", [{"preallocation": "falloc"}, {"preallocation": "full"}, {"allocation": "64MiB"}], ids=str
)
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_full_file_system(form: str, options: dict[str, Any], site: Site) -> None:
    """It is refused before it begins; and where the room goes meanwhile, the run takes back what it began."""
    small = site.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", str(small)], check=True)
    try:
        site.host.ok("pool_dir", name="small", path=str(small))
        before = site.state()
        if form == "qcow2" and "allocation" in options:
            options = {"preallocation": "falloc"}
        wanted = {"pool": "small", "name": "big", "format": form, "capacity": "64MiB", **options}
        site.host.refused("volume", "no_space", "'small/big'", **wanted)
        with mock.patch.object(headroom, "check", lambda *dummy: []):
            result = site.host.run("volume", **wanted)
        assert (result.get("failed"), result["code"], result["actions"]) == (True, "backend_refused", []), result
        assert "'small/big'" in result["msg"] and "\n" not in result["msg"]
        assert "No space left" in result["msg"]
        assert site.state() == before
        assert not list(small.iterdir())
        site.host.ok("pool_dir", name="small", state="absent")
    finally:
        subprocess.run(["umount", str(small)], check=True)


# Servers


def rbd_pool(address: tuple[str, int], **options: Any) -> dict[str, Any]:
    hosts = [{"name": address[0], "port": address[1]}]
    return {"type": "rbd", "name": "vms", "source_name": "rbd", "hosts": hosts, "wait_timeout": 3, **options}


def fails(site: Site, code: str, words: tuple[str, ...], **items: Any) -> None:
    """What only the server can tell fails in the run, once, and leaves the host as it was."""
    before = site.state()
    result = site.host.run("layout", **items)
    assert (result.get("failed"), result["code"]) == (True, code), result
    assert "\n" not in result["msg"] and "'vms'" in result["msg"], result["msg"]
    for word in words:
        assert word in result["msg"], result["msg"]
    assert site.state() == before, "something was left"


def test_dead_servers(site: Site) -> None:
    port = closed_port()
    dead = {"type": "iscsi-direct", "name": "vms", "target_iqn": "iqn.2026-01.x:a", "initiator_iqn": "iqn.2026-01.x:b"}
    for item in (rbd_pool(("127.0.0.1", port)), {**dead, "hosts": [{"name": "127.0.0.1", "port": port}]}):
        site.refuses(layout("unreachable", ("'vms'", f"127.0.0.1:{port}"), pools=[item]))


def test_silent_server(site: Site) -> None:
    with SilentServer() as silent:
        before = site.state()
        item = rbd_pool((silent.host, silent.port), wait_timeout=2)
        result = site.host.run("layout", pools=[item])
        assert (result.get("failed"), result["code"]) == (True, "timeout"), result
        assert "'vms'" in result["msg"] and "wait_timeout" in result["msg"]
    site.hypervisor.kill()  # it would try for minutes
    site.hypervisor.start()
    assert {**site.state(), "pools": {}} == {**before, "pools": {}}


def test_wrong_cephx(site: Site, ceph: Ceph) -> None:
    auth = {"username": "vms", "secret_usage": "client.vms"}  # its value is some key, but no user of the cluster
    quick = {"client_mount_timeout": "1", "rados_mon_op_timeout": "1"}
    item = rbd_pool(ceph.monitors[0], auth=auth, config_options=quick, wait_timeout=60)
    fails(site, "backend_refused", ("client.vms", "did not succeed"), pools=[item])


def test_wrong_chap(site: Site, iscsi: Target) -> None:
    site.host.ok("secret", usage="iscsi", usage_name="chap", value="not the password")
    item = {
        "type": "iscsi-direct",
        "name": "vms",
        "hosts": [{"name": iscsi.host, "port": iscsi.port}],
        "target_iqn": iscsi.iqn_chap,
        "initiator_iqn": iscsi.initiator,
        "auth": {"username": iscsi.user, "secret_usage": "chap"},
    }
    fails(site, "backend_refused", ("CHAP",), pools=[item])


def test_no_daemon(site: Site, tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/nothing"
    for module, args in (("layout", {}), ("pool_dir", {"name": "x", "path": f"{site.root}/x"}), ("layout_info", {})):
        site.refuses(Bad(module, {"uri": uri, **args}, "no_connection", (str(tmp_path),)))
    for uri in ("nonsense", "xyz:///system", "qemu+ssh://", "qemu:///system?socket=/nowhere"):
        site.refuses(Bad("layout_info", {"uri": uri}, "no_connection", (uri,)))
