# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hypervisors on one storage: what a guest of the one uses, the other leaves alone without knowing it.

The tests run on hv1. On hv2 a process runs modules for them, one after the other.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.integration.helpers import Host
from tests.lab.scenarios.served import SHARED_SESSION, STORAGE, facts, on
from tests.servers.guest import disk_xml, start_guest

OTHER = "hv2"
TREE = Path(__file__).resolve().parents[3]
MOUNT = "/srv/lab/shared"
GONE: dict[str, Any] = {"name": "shared", "state": "absent"}
DISK = {"pool": "shared", "name": "disk.raw", "format": "raw"}
QEMU = {"owner": "libvirt-qemu", "group": "libvirt-qemu", "mode": "0600"}

AGENT = """
import json, sys
from unittest import mock
from tests.integration.helpers import UTILS, run
for line in sys.stdin:
    module, args, blinded = json.loads(line)
    with mock.patch(UTILS + "chain.image_locked", return_value=False) if blinded else mock.MagicMock():
        print(json.dumps(run(module, args)), flush=True)
"""


class Other:
    """The other hypervisor: runs modules there, in one process."""

    def __init__(self) -> None:
        here, tree = shlex.quote(str(TREE.parent)), shlex.quote(str(TREE))
        sent = subprocess.Popen(
            ["tar", "-C", TREE, "-c", "plugins", "tests/integration/helpers.py"], stdout=subprocess.PIPE
        )
        unpack = f"mkdir -p {here} && tar -C {tree} -x" if TREE.exists() else ""
        subprocess.run(["ssh", *SHARED_SESSION, OTHER, f"mkdir -p {tree} && {unpack}"], stdin=sent.stdout, check=True)
        assert sent.wait() == 0
        top = shlex.quote(str(TREE.parents[2]))
        command = f"cd {tree} && PYTHONPATH={top}:. LC_ALL=C.UTF-8 python3 -c {shlex.quote(AGENT)}"
        self.process = subprocess.Popen(
            ["ssh", *SHARED_SESSION, OTHER, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def run(self, module: str, blinded: bool = False, **args: Any) -> dict[str, Any]:
        """A module's result there; blinded is without the guard that sees other hosts' guests."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([module, {"uri": "qemu:///system", **args}, blinded]) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ok(self, module: str, **args: Any) -> list[str]:
        result = self.run(module, **args)
        assert not result.get("failed"), result
        actions: list[str] = result["actions"]
        return actions

    def refused(self, module: str, **args: Any) -> None:
        """In use by a QEMU of this host, which hv2's libvirt does not have."""
        result = self.run(module, **args)
        assert result.get("failed"), result
        assert (result["code"], result["changed"]) == ("in_use", False), result
        assert "QEMU" in result["msg"], result


@pytest.fixture(scope="module")
def other() -> Iterator[Other]:
    with Other() as started:
        yield started


@pytest.fixture(autouse=True)
def clean(host: Host, other: Other) -> Iterator[None]:
    on(STORAGE, "rm -rf /srv/nfs/* /srv/nfs-squash/*")
    yield
    other.run("pool_netfs", **GONE)


@pytest.mark.parametrize("export", ["export", "squashed"])
def test_disk_of_another_hosts_guest(host: Host, other: Other, export: str) -> None:
    share = {"hosts": [{"name": STORAGE}], "source_path": facts()["nfs"][export], "source_format": "nfs"}
    pool = {"name": "shared", "path": MOUNT, "wait_timeout": 60, **share}
    disk = {**DISK, "capacity": "8MiB", "permissions": QEMU if export == "squashed" else {"mode": "0600"}}
    host.ok("pool_netfs", **pool)
    host.ok("volume", **disk)
    other.ok("pool_netfs", **pool)
    assert other.ok("volume", **disk) == [], "both declare the same disk"

    guest = start_guest(host.uri, "web01", disk_xml(f"{MOUNT}/{DISK['name']}"))
    owner = os.stat(f"{MOUNT}/{DISK['name']}").st_uid
    other.refused("volume", state="absent", **DISK)
    other.refused("volume", **{**disk, "capacity": "16MiB"})
    other.refused("pool_netfs", delete_data=True, **GONE)
    rooted = {"permissions": {"mode": "0600", "owner": "root"}} if export == "export" else {}
    assert other.ok("volume", **{**disk, **rooted}) == [], "a running guest's disk keeps its owner"
    assert os.stat(f"{MOUNT}/{DISK['name']}").st_uid == owner
    assert guest.isActive()
    assert other.ok("pool_netfs", **GONE) == ["stop", "undefine"], "a mount of its own is hv2's to end"
    other.ok("pool_netfs", **pool)

    guest.destroy()
    assert other.ok("volume", state="absent", **DISK) == ["delete"]
    host.ok("pool_netfs", **GONE)


def test_without_the_guard_the_disk_is_lost(host: Host, other: Other) -> None:
    """libvirt deletes as the owner of the file, which may do so in a directory that is open to all."""
    share = {"hosts": [{"name": STORAGE}], "source_path": facts()["nfs"]["squashed"], "source_format": "nfs"}
    pool = {"name": "shared", "path": MOUNT, "wait_timeout": 60, **share}
    host.ok("pool_netfs", **pool)
    host.ok("volume", capacity="8MiB", permissions=QEMU, **DISK)
    other.ok("pool_netfs", **pool)
    guest = start_guest(host.uri, "web01", disk_xml(f"{MOUNT}/{DISK['name']}"))
    result = other.run("volume", blinded=True, state="absent", **DISK)
    guest.destroy()
    assert result["actions"] == ["delete"], result
    assert on(STORAGE, "ls /srv/nfs-squash") == ""


def test_one_storage_is_told_from_another(host: Host, other: Other) -> None:
    """Both hosts have a pool of each kind under one name; only what both really have is told in the same words."""
    nfs = {"path": MOUNT, "hosts": [{"name": STORAGE}], "source_format": "nfs", "wait_timeout": 60}
    export, squashed = (facts()["nfs"][name] for name in ("export", "squashed"))
    ceph = {"source_name": "vms", "hosts": [{"name": STORAGE}], "auth": {"username": "vms", "secret_usage": "vms"}}
    secret = {
        "usage": "ceph",
        "usage_name": "vms",
        "value": on(STORAGE, "awk '/key/ {print $3}' /etc/kvm-lab/ceph.keyring"),
    }
    luns = {"hosts": [{"name": STORAGE}], "target_iqn": facts()["iscsi"]["open"], "path": "/dev/disk/by-path"}
    cases: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
        "one export": ("pool_netfs", {**nfs, "source_path": export}, {}, True),
        "two exports": ("pool_netfs", {**nfs, "source_path": export}, {"source_path": squashed}, False),
        "a directory of each": ("pool_dir", {"path": "/srv/lab/own"}, {}, False),
        "one target": ("pool_iscsi", luns, {}, True),
        "one cluster": ("pool_rbd", ceph, {}, True),
    }
    for end in (host, other):
        end.ok("secret", **secret)
    for case, (module, pool, differs, same) in cases.items():
        host.ok(module, name="shared", **pool)
        other.ok(module, name="shared", **{**pool, **differs})
        asked: dict[str, Any] = {"names": ["shared"], "identity": True}
        (here,), (there,) = (end.run("pool_info", **asked)["pools"] for end in (host, other))
        assert here["identity"] and there["identity"], (case, here["identity_unknown"], there["identity_unknown"])
        assert (here["identity"] == there["identity"]) is same, (case, here["identity"], there["identity"])
        for end in (host, other):
            end.ok(module, **GONE)


def disk_of(kind: str, path: str) -> str:
    """The disk of a guest that may move: what it writes is on the storage at once, and in no host's memory."""
    if kind == "rbd":
        return (
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='none'/>"
            f"<auth username='vms'><secret type='ceph' usage='vms'/></auth><source protocol='rbd' name='{path}'>"
            f"<host name='{STORAGE}' port='6789'/></source><target dev='vda' bus='virtio'/></disk>"
        )
    return disk_xml(path, kind="file" if kind == "netfs" else "block").replace("type='raw'", "type='raw' cache='none'")


@pytest.mark.parametrize("kind", ["netfs", "iscsi", "rbd"])
def test_a_running_guest_moves_to_the_other_host(host: Host, other: Other, kind: str) -> None:
    """Its disk stays where it is: both hosts have it in a pool that was made by the same task."""
    server = [{"name": STORAGE}]
    login = {"username": "vms", "secret_usage": "vms"}
    key = on(STORAGE, "awk '/key/ {print $3}' /etc/kvm-lab/ceph.keyring").strip()
    pools: dict[str, dict[str, Any]] = {
        "netfs": {"path": MOUNT, "source_path": facts()["nfs"]["export"], "source_format": "nfs", "hosts": server},
        "iscsi": {"path": "/dev/disk/by-path", "target_iqn": facts()["iscsi"]["open"], "hosts": server},
        "rbd": {"source_name": "vms", "hosts": server, "auth": login},
    }
    names = {"netfs": "moving.raw", "iscsi": "", "rbd": "moving"}
    for end in (host, other):
        end.ok("secret", usage="ceph", usage_name="vms", value=key)
        end.ok(f"pool_{kind}", name="shared", wait_timeout=60, **pools[kind])
    name = names[kind] or host.volumes("shared")[0]
    if names[kind]:
        host.ok("volume", pool="shared", name=name, capacity="8MiB", format="raw")
    other.run("volume_info", pool="shared", refresh=True)
    (volume,) = host.ok("volume_info", pool="shared", names=[name])["volumes"]
    guest = start_guest(host.uri, "web01", disk_of(kind, volume["path"]))
    command = ["virsh", "migrate", "--live", "--verbose", "web01", f"qemu+ssh://{OTHER}/system"]
    moved = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    try:
        assert moved.returncode == 0, moved.stderr
        assert on(OTHER, "virsh domstate web01").strip() == "running"
        assert not [domain for domain in guest.connect().listAllDomains() if domain.name() == "web01"]
        (volume,) = other.run("volume_info", pool="shared", names=[name])["volumes"]
        assert volume["users"] == [{"domain": "web01", "running": True}]
        if names[kind]:  # seen from a host that does not have the guest any more
            host.refused("volume", "in_use", pool="shared", name=name, state="absent")
    finally:
        on(OTHER, "virsh destroy web01 || true")
    if names[kind]:
        host.ok("volume", pool="shared", name=name, state="absent")
    for end in (host, other):
        end.ok(f"pool_{kind}", **GONE)
