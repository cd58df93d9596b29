# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iSCSI by the kernel's initiator against LIO: logins, secrets, dead portals, and LUNs that the host itself uses."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import Host, change_while_active, connected, walk_through_states, within
from tests.lab.scenarios.cells import on_devices
from tests.lab.scenarios.target import MIB, Target, cut_off, iscsiadm, logged_in
from tests.servers.guest import start_guest
from tests.servers.silent import SilentServer, closed_port

FIRST, SECOND = ("127.0.0.1", 3260), ("127.0.0.2", 3260)
USER, PASSWORD, USAGE = "labuser", "labsecret123456", "iscsi/chap"
GONE = {"name": "luns", "state": "absent"}
PARTED = "parted -s {} mklabel msdos mkpart primary 1MiB 9MiB"
RECORDS = (Path("/var/lib/iscsi"), Path("/etc/iscsi"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target that asks for nothing, on two portals."""
    root = tmp_path_factory.mktemp("target")
    with Target(root, "iqn.2026-01.lab:plain", luns=(64 * MIB, 32 * MIB), portals=(FIRST, SECOND)) as target:
        yield target


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target that asks for a CHAP login."""
    with Target(tmp_path_factory.mktemp("target"), "iqn.2026-01.lab:private", user=USER, password=PASSWORD) as target:
        yield target


@pytest.fixture(autouse=True)
def no_session() -> Iterator[None]:
    """No test leaves the host logged in, or a password in a record."""
    yield
    assert iscsiadm("-m", "session") == ""
    assert in_records(PASSWORD) == []


def in_records(word: str) -> list[str]:
    """The files of the initiator that hold a word."""
    files = [path for folder in RECORDS for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if word in path.read_text(errors="replace")]


def pool(target: Target, **more: Any) -> dict[str, Any]:
    return {"name": "luns", "hosts": target.hosts, "target_iqn": target.iqn, "wait_timeout": 60, **more}


def with_chap(target: Target) -> dict[str, Any]:
    return pool(target, auth={"username": USER, "secret_usage": USAGE})


def chap(host: Host, value: str) -> None:
    host.ok("secret", usage="iscsi", usage_name=USAGE, value=value)


def device_of(host: Host, volume: str) -> str:
    """The plain name, such as /dev/sdd, of a volume."""
    facts = host.ok("volume_info", pool="luns", names=[volume], users=False)["volumes"][0]
    return os.path.realpath(facts["path"])


def test_states_with_a_login(host: Host, private: Target) -> None:
    chap(host, PASSWORD)
    walk_through_states(host, "pool_iscsi", with_chap(private), born=["define"], up=["start"])


def test_change_while_active(host: Host, plain: Target) -> None:
    other = "iqn.2026-01.lab:another-initiator"
    change_while_active(host, "pool_iscsi", pool(plain), initiator_iqn=other)
    assert in_records(other)
    host.converge("pool_iscsi", ["stop", "undefine"], **GONE)
    assert in_records(other) == [], "the interface of the initiator's name is left"


def test_luns(host: Host, plain: Target) -> None:
    """LUNs have names that stay and a key, grow on the target only, and a new one is there after a refresh."""
    host.ok("pool_iscsi", **pool(plain))
    found = {one["name"]: one for one in host.ok("volume_info", pool="luns")["volumes"]}
    assert [(name, one["capacity"]) for name, one in found.items()] == [
        ("unit:0:0:0", 64 * MIB),
        ("unit:0:0:1", 32 * MIB),
    ]
    assert found["unit:0:0:1"]["path"].startswith("/dev/disk/by-path/ip-127.0.0.1:3260-iscsi-")
    number = (Path("/sys/class/block") / Path(device_of(host, "unit:0:0:1")).name / "device/wwid").read_text()
    assert found["unit:0:0:1"]["key"] == "3" + number.strip().removeprefix("naa.")
    for name, change in {"new": {}, "unit:0:0:0": {"capacity": "1GiB"}}.items():
        host.refused("volume", "unsupported", "array", pool="luns", name=name, **{"capacity": "8MiB", **change})
    host.refused("volume", "unsupported", "array", pool="luns", name="unit:0:0:0", state="absent")
    plain.add_lun(16 * MIB)
    assert len(host.ok("volume_info", pool="luns")["volumes"]) == 2
    seen = host.ok("volume_info", pool="luns", refresh=True)["volumes"]
    assert [one["capacity"] for one in seen] == [64 * MIB, 32 * MIB, 16 * MIB]
    host.refused("pool_iscsi", "source_conflict", "'luns'", **{**pool(plain), "name": "second"})
    host.refused("pool_iscsi", "unsupported", "LUNs", delete_data=True, **GONE)
    nowhere = {"target_iqn": "iqn.2026-01.lab:nowhere", "restart": True}
    host.refused("pool_iscsi", "no_source", "lab:nowhere", **{**pool(plain), **nowhere})


def test_target_that_is_not_there(host: Host, plain: Target, private: Target) -> None:
    """libvirt by itself takes two minutes for this."""
    nowhere = {"target_iqn": "iqn.2026-01.lab:nowhere"}
    with within(60):
        host.refused("pool_iscsi", "no_source", "lab:nowhere", plain.iqn, private.iqn, **{**pool(plain), **nowhere})
    assert in_records("nowhere") == [], "to ask leaves no trace"


def test_target_for_others(host: Host, plain: Target, tmp_path: Path) -> None:
    """A target is offered to whom it admits; a pool's own initiator is asked for, not the host's."""
    friend = "iqn.2026-01.lab:friend"
    with Target(tmp_path, "iqn.2026-01.lab:others", portals=[("127.0.0.1", 3261)]) as others:
        others.admit_only(friend)
        host.refused("pool_iscsi", "no_source", f"no target {others.iqn}", "admit this initiator", **pool(others))
        predicted = host.ok("pool_iscsi", check=True, initiator_iqn=friend, **pool(others))
        assert (predicted["actions"], predicted["warnings"]) == (["define", "start"], [])
        astray = host.ok("pool_iscsi", check=True, initiator_iqn=friend, **{**pool(others), "hosts": plain.hosts})
        assert any("is at 127.0.0.1:3261" in warning for warning in astray["warnings"])
        assert in_records(friend) == [], "to ask leaves no trace"


def test_dead_portals(host: Host, plain: Target) -> None:
    port = closed_port()
    with within(60):
        dead = pool(plain, hosts=[{"name": "127.0.0.1", "port": port}])
        host.refused("pool_iscsi", "unreachable", f"127.0.0.1:{port}", **dead)
    with cut_off(*FIRST), within(60):
        host.refused("pool_iscsi", "unreachable", "127.0.0.1:3260", **pool(plain, wait_timeout=1))
    with SilentServer() as silent, within(60):
        dumb = pool(plain, hosts=[{"name": silent.host, "port": silent.port}])
        host.refused("pool_iscsi", "unreachable", "does not answer as an iSCSI portal", **{**dumb, "wait_timeout": 1})


def test_wrong_secrets(host: Host, private: Target) -> None:
    before = host.state()
    host.refused("pool_iscsi", "no_secret", USAGE, **with_chap(private))
    host.failed("pool_iscsi", "backend_refused", "give auth", **pool(private))
    assert host.state() == before, "nothing half made is left"
    host.ok("secret", usage="iscsi", usage_name=USAGE)
    host.failed("pool_iscsi", "backend_refused", USAGE, "holds no value", **with_chap(private))
    wrong = "not-the-password"
    chap(host, wrong)
    failed = host.failed("pool_iscsi", "backend_refused", "CHAP", repr(USER), **with_chap(private))
    assert wrong not in str(failed)
    assert in_records(wrong) == []


def users() -> dict[str, Callable[[str], tuple[list[str], list[str], str]]]:
    """How a host may use a LUN: what begins that, what ends it, and the word that tells of it."""
    return {
        "mount": lambda device: (["mount", device, "/mnt"], ["umount", "/mnt"], "mounted on /mnt"),
        "partition": lambda device: (["mount", f"{device}1", "/mnt"], ["umount", "/mnt"], "mounted on /mnt"),
        "swap": lambda device: (["swapon", device], ["swapoff", device], "swap"),
        "dm": lambda device: (
            ["dmsetup", "create", "onlun", "--table", f"0 8192 linear {device} 0"],
            ["dmsetup", "remove", "onlun"],
            "held by onlun",
        ),
    }


def test_luns_in_use_on_the_host(host: Host, plain: Target) -> None:
    """libvirt would log out under a mounted file system."""
    host.ok("pool_iscsi", **pool(plain))
    device = device_of(host, "unit:0:0:1")
    made = {
        "mount": ["mkfs.ext4", "-qF", device],
        "swap": ["mkswap", "-f", device],
        "partition": ["sh", "-c", f"{PARTED.format(device)} && udevadm settle && mkfs.ext4 -qF {device}1"],
    }
    for how, use in users().items():
        subprocess.run(made.get(how, ["true"]), check=True, capture_output=True)
        begin, end, word = use(device)
        subprocess.run(begin, check=True)
        try:
            host.refused("pool_iscsi", "in_use", "'unit:0:0:1'", word, state="inactive", **pool(plain))
            host.refused("pool_iscsi", "in_use", word, **GONE)
        finally:
            subprocess.run(end, check=True)
    elsewhere = ["unshare", "-m", "sh", "-c", f"mkfs.ext4 -qF {device} && mount {device} /mnt && echo && exec sleep 99"]
    with subprocess.Popen(elsewhere, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()  # mounted, and no mount of this process
        host.refused("pool_iscsi", "in_use", "something has it for itself", **GONE)
        other.kill()
    changed = pool(plain, initiator_iqn="iqn.2026-01.lab:another-initiator")
    with open(device, "rb"):
        host.refused("pool_iscsi", "in_use", "open in", f"(process {os.getpid()})", restart=True, **changed)
    disk = f"<disk type='block' device='disk'><source dev='{device}'/><target dev='vda' bus='virtio'/></disk>"
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk)
        host.refused("pool_iscsi", "in_use", "'web01' (running)", **GONE)
        guest.destroy()
    host.converge("pool_iscsi", ["stop", "undefine"], **GONE)


def test_sessions_of_others(host: Host, plain: Target) -> None:
    """A session that is there is used, and told of; through another portal libvirt could never end it again."""
    with logged_in(plain, SECOND):
        host.refused("pool_iscsi", "source_conflict", "127.0.0.2:3260", **pool(plain))
    with logged_in(plain):
        began = host.ok("pool_iscsi", **pool(plain))
        assert any("logged in to" in warning for warning in began["warnings"])
        assert host.unchanged("pool_iscsi", **pool(plain))["warnings"] == []
        host.ok("pool_iscsi", **GONE)
        assert iscsiadm("-m", "session") == "", "as was told"


def test_every_operation(host: Host, plain: Target, tmp_path: Path) -> None:
    host.ok("pool_iscsi", **pool(plain))
    on_devices(host, "iscsi", "luns", tmp_path, lun=host.volumes("luns")[1])
    host.ok("pool_iscsi", **GONE)
