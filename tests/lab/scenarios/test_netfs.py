# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools on NFS and CIFS shares of another host: how they are mounted, what servers refuse, servers that are gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, change_while_active, switched_off, walk_through_states, within
from tests.lab.scenarios.cells import on_files
from tests.lab.scenarios.served import STORAGE, facts, login, on

MOUNT = Path("/srv/lab/share")
GONE = {"name": "share", "state": "absent"}
LOST = "10.77.0.99"  # an address whose packets nobody takes
NOBODY = "52:54:00:77:00:99"
UP: dict[str, Any] = {"wait_timeout": 60}  # the first mount of a host loads modules and starts services


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    """The server's shares are empty and nothing is mounted, before and after."""
    sweep()
    yield
    sweep()


def sweep() -> None:
    for point in (MOUNT, Path("/srv/lab/cifs")):
        while os.path.ismount(point):
            subprocess.run(["umount", "-f", "-l", point], check=True)
        shutil.rmtree(point, ignore_errors=True)
    on(STORAGE, "rm -rf /srv/nfs/* /srv/nfs-squash/* /srv/cifs/* /srv/cifs-public/*")


def nfs(**more: Any) -> dict[str, Any]:
    share = {"hosts": [{"name": STORAGE}], "source_path": facts()["nfs"]["export"], "source_format": "nfs"}
    return {"name": "share", "path": str(MOUNT), **share, **more}


def mount_options() -> str:
    """The options that the kernel shows for the share."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        source, point, dummy, options = line.split()[:4]
        if point == str(MOUNT):
            return f"{source} {options}"
    return ""


# mounting


def test_states(host: Host) -> None:
    walk_through_states(host, "pool_netfs", nfs(**UP), born=["define", "build"], up=["start"])


def test_versions_and_options(host: Host) -> None:
    """Left alone, both sides agree on the newest version they have."""
    host.ok("pool_netfs", **nfs(source_format="auto", **UP))
    assert ",vers=4.2," in mount_options()
    change_while_active(
        host, "pool_netfs", nfs(source_format="auto"), protocol_version="4.1", mount_options=["nconnect=2", "noatime"]
    )
    shown = mount_options()
    assert all(word in shown for word in (",vers=4.1,", ",nconnect=2,", ",noatime,", "nosuid", "noexec")), shown


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"source_path": "/srv/nowhere"}, ["/srv/nowhere of storage", "exports"]),
    ({"source_path": "/srv/nfs-other"}, ["/srv/nfs-other of storage", "not for this host", "exports"]),
    ({"protocol_version": "3"}, ["does not speak NFS 3", "protocol_version"]),
    ({"protocol_version": "4.7"}, ["protocol_version 4.7", "no such"]),
    ({"mount_options": ["nosuchoption"]}, ["nosuchoption", "mount_options"]),
]


def test_what_a_server_refuses(host: Host) -> None:
    """At once, with the reason, and with nothing half made."""
    before = host.state()
    for option, words in REFUSED:
        with within(60):
            host.failed("pool_netfs", "backend_refused", *words, **nfs(**{**UP, **option}))
    assert host.state() == before
    assert not mount_options()


@contextlib.contextmanager
def packets_lost(address: str) -> Iterator[None]:
    """What this host sends to an address goes to a card that nobody has: no answer, and no refusal."""
    lan = subprocess.run(["ip", "-oneline", "route", "get", address], capture_output=True, text=True, check=True)
    card = lan.stdout.split(" dev ")[1].split()[0]
    neighbour = ["ip", "neighbour", "replace", address, "lladdr", NOBODY, "dev", card, "nud", "permanent"]
    subprocess.run(neighbour, check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "neighbour", "delete", address, "dev", card], check=True)


def test_server_that_is_not_there(host: Host) -> None:
    with within(60):
        host.refused("pool_netfs", "unreachable", "127.0.0.1:2049", **nfs(hosts=[{"name": "127.0.0.1"}]))
    with packets_lost(LOST), within(60):
        host.refused("pool_netfs", "unreachable", f"{LOST}:2049", **nfs(hosts=[{"name": LOST}]))


# a server that is gone while its share is mounted


def test_server_that_is_gone(host: Host, tmp_path: Path) -> None:
    """libvirt and everybody else would wait for it, without an end; the collection says so and touches nothing."""
    disk = {"pool": "share", "name": "disk.qcow2", "format": "qcow2", "capacity": "8MiB"}
    local = {"pool": "local", "name": "disk.raw", "format": "raw", "capacity": "1MiB"}
    host.ok("pool_netfs", **nfs(**UP))
    host.ok("volume", **disk)
    host.ok("pool_dir", name="local", path=str(tmp_path))
    host.ok("volume", **local)
    on(STORAGE, "systemctl stop nfs-server")
    try:
        where = f"{STORAGE}:2049"
        words = (where, f"'umount -f -l {MOUNT}'")
        with within(300):
            for args in (nfs(), nfs(state="inactive"), GONE, {**GONE, "delete_data": True}):
                told(host, "pool_netfs", "unreachable", *words, **args)
            told(host, "volume", "unreachable", *words, **disk)
            told(host, "volume", "unreachable", *words, **{**disk, "state": "absent"})
            both = {"pools": [{"type": "netfs", **nfs()}], "volumes": [disk, {**local, "name": "new.raw"}]}
            done = host.run("layout", **both)
            assert (done["code"], done["actions"]) == ("unreachable", ["volume 'local/new.raw': create"]), done
            pools = {one["name"]: one for one in host.ok("pool_info")["pools"]}
            assert (pools["share"]["unreachable"], pools["share"]["capacity"]) == (where, None)
            assert pools["local"]["unreachable"] is None and pools["local"]["capacity"]
            listed = {one["name"]: one for one in host.ok("volume_info")["volumes"]}
            assert where in listed["disk.qcow2"]["unreadable"]
            assert listed["disk.raw"]["capacity"] == 1 << 20
            told(host, "volume", "guard_unavailable", *words, **{**local, "state": "absent"})
            assert (tmp_path / "disk.raw").exists()
        giving_up = give_up_the_mount()
        told(host, "volume", "not_mounted", str(MOUNT), **disk)
        told(host, "volume", "not_mounted", str(MOUNT), **{**disk, "name": "new.raw", "format": "raw"})
        assert not list(MOUNT.iterdir()), "nothing is written below a mount point that has lost its mount"
        told(host, "pool_netfs", "unreachable", where, **nfs())
    finally:
        on(STORAGE, "systemctl start nfs-server")
    giving_up.wait(timeout=300)
    host.converge("pool_netfs", ["restart"], "not mounted", **nfs(**UP))
    host.unchanged("volume", **disk)


def give_up_the_mount() -> subprocess.Popen[bytes]:
    """The mount is gone at once; the command itself may wait for the server all the same."""
    giving_up = subprocess.Popen(["umount", "-f", "-l", MOUNT])
    with within(60):
        while mount_options():
            time.sleep(0.1)
    return giving_up


def told(host: Host, module: str, code: str, *words: str, **args: Any) -> None:
    """A refusal within seconds; the host's state can't be asked for meanwhile."""
    with within(60):
        host.failed(module, code, *words, **args)


def test_server_whose_packets_are_lost(host: Host) -> None:
    host.ok("pool_netfs", **nfs(**UP))
    address = facts()["address"]
    with packets_lost(address):
        told(host, "pool_netfs", "unreachable", f"{STORAGE}:2049", **nfs())
        told(host, "pool_netfs", "unreachable", f"{STORAGE}:2049", **GONE)
    with within(120):
        host.unchanged("pool_netfs", **nfs())


# volumes


def test_volumes(host: Host) -> None:
    host.ok("pool_netfs", **nfs(**UP))
    before = host.state()
    for form in ("raw", "qcow2"):
        disk = {"pool": "share", "name": f"disk.{form}", "format": form}
        host.converge("volume", ["create"], capacity="8MiB", **disk)
        host.converge("volume", ["resize"], capacity="16MiB", **disk)
        host.refused("volume", "would_shrink", capacity="8MiB", **disk)
    host.converge("volume", ["protect"], immutable=True, **disk)
    host.refused("volume", "immutable", state="absent", **disk)
    host.converge("volume", ["release", "delete"], state="absent", immutable=False, **disk)
    host.converge("volume", ["delete"], pool="share", name="disk.raw", state="absent")
    assert host.state() == before
    host.ok("volume", pool="share", name="disk.raw", format="raw", capacity="1MiB")
    on(STORAGE, "touch /srv/nfs/made-outside")
    steps = ["delete_volumes", "stop", "delete_storage", "undefine"]
    host.converge("pool_netfs", steps, "DESTROYS DATA", delete_data=True, **GONE)
    assert not MOUNT.exists(), "the mount point is given up too"
    assert on(STORAGE, "ls /srv/nfs") == ""


def test_share_that_is_read_only(host: Host) -> None:
    host.ok("pool_netfs", **nfs(source_path=facts()["nfs"]["read_only"], **UP))
    disk = {"pool": "share", "name": "disk.raw", "format": "raw", "capacity": "1MiB"}
    host.failed("volume", "backend_refused", "Read-only", "for writing", **disk)
    host.failed("pool_netfs", "backend_refused", "'readme'", "Read-only", delete_data=True, **GONE)
    assert "readme" in on(STORAGE, "ls /srv/nfs-ro")


QEMU = {"owner": "libvirt-qemu", "group": "libvirt-qemu", "mode": "0600"}


def test_server_that_takes_root_for_nobody(host: Host) -> None:
    host.ok("pool_netfs", **nfs(source_path=facts()["nfs"]["squashed"], **UP))
    disk = {"pool": "share", "name": "disk.raw", "format": "raw"}
    host.failed("volume", "backend_refused", "root_squash", "owner", capacity="8MiB", **disk)
    host.converge("volume", ["create"], capacity="8MiB", permissions=QEMU, **disk)
    host.failed("volume", "backend_refused", "root_squash", capacity="16MiB", **disk)
    with opened_by_qemu(MOUNT / "disk.raw"):
        host.refused("volume", "in_use", "QEMU process", state="absent", **disk)
        host.refused("pool_netfs", "in_use", "'disk.raw'", delete_data=True, **GONE)
        with switched_off("chain:image_locked", False):
            done = host.ok("volume", state="absent", **disk)
        assert done["actions"] == ["delete"], "without the guard, libvirt deletes as the owner"
    host.ok("volume", capacity="8MiB", permissions=QEMU, **disk)
    host.converge("volume", ["delete"], state="absent", **disk)
    image = {"pool": "share", "name": "disk.qcow2", "format": "qcow2"}
    host.converge("volume", ["create"], capacity="8MiB", permissions=QEMU, **image)
    assert sorted(os.listdir(MOUNT)) == ["disk.qcow2"], "nothing hidden is left by the try before"
    host.converge("volume", ["delete"], state="absent", **image)


@contextlib.contextmanager
def opened_by_qemu(image: Path) -> Iterator[None]:
    """A QEMU program has an image open as the user that guests run as, and locks it; libvirt knows nothing of it."""
    user = ["setpriv", "--reuid", "libvirt-qemu", "--regid", "libvirt-qemu", "--clear-groups"]
    command = [*user, "qemu-io", "-f", "raw", str(image)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout
        holder.stdin.write("length\n")
        holder.stdin.flush()
        assert "MiB" in holder.stdout.readline()
        yield
        holder.stdin.close()


# CIFS


def cifs(share: str) -> dict[str, Any]:
    return nfs(source_path=facts()["cifs"][share], source_format="cifs", **UP)


def test_cifs_share_for_guests(host: Host) -> None:
    host.converge("pool_netfs", ["define", "build", "start"], "cifs", **cifs("public"))
    disk = {"pool": "share", "name": "disk.qcow2", "format": "qcow2"}
    host.converge("volume", ["create"], capacity="8MiB", **disk)
    host.converge("volume", ["resize"], capacity="16MiB", **disk)
    host.converge("volume", ["delete"], state="absent", **disk)
    host.converge("pool_netfs", ["stop", "undefine"], **GONE)


def test_cifs_share_with_a_login(host: Host, tmp_path: Path) -> None:
    """libvirt has no login for CIFS: the host mounts such a share, and a dir pool stands on it."""
    host.failed("pool_netfs", "backend_refused", "storage", "guest", "pool_dir", **cifs("share"))
    point = Path("/srv/lab/cifs")
    point.mkdir(parents=True, exist_ok=True)
    pool = {"name": "images", "path": str(point), "require_mountpoint": True}
    host.refused("pool_dir", "not_mounted", str(point), **pool)
    credentials = tmp_path / "credentials"
    credentials.touch(mode=0o600)
    credentials.write_text("".join(f"{name}={value}\n" for name, value in login("cifs").items()), encoding="utf-8")
    source = f"//{STORAGE}/{facts()['cifs']['share']}"
    subprocess.run(["mount", "-t", "cifs", "-o", f"credentials={credentials}", source, point], check=True)
    host.converge("pool_dir", ["define", "start"], **pool)
    disk = {"pool": "images", "name": "disk.qcow2", "format": "qcow2"}
    host.converge("volume", ["create"], capacity="8MiB", **disk)
    host.converge("volume", ["delete"], state="absent", **disk)
    host.converge("pool_dir", ["stop", "undefine"], name="images", state="absent")
    subprocess.run(["umount", point], check=True)


def test_every_operation(host: Host, tmp_path: Path) -> None:
    host.ok("pool_netfs", **nfs(**UP))
    on_files(host, "netfs", "share", MOUNT, tmp_path)
    host.ok("pool_netfs", **GONE)
