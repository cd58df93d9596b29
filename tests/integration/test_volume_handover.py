# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that move to a pool of another host. There is no ssh server here: a stand-in forwards the sockets and runs
the command, as ssh does, on this host, whose hypervisor is both ends.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.contract import examples
from tests.integration.helpers import MIB, UTILS, Host, connected, qemu_img, switched_off
from tests.servers import ssh
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def pools(host: Host, scratch: Path) -> Iterator[Path]:
    for name in ("images", "fast"):
        host.ok("pool_dir", name=name, path=f"{scratch}/{name}")
    tokens: list[str] = []  # each names a folder of the other end

    def token(size: int, real: Any = secrets.token_hex) -> str:
        tokens.append(real(size))
        return tokens[-1]

    with mock.patch(f"{UTILS}handover.SSH", ssh.command()), mock.patch("secrets.token_hex", token):
        yield scratch
    for name in ("images", "fast"):
        assert [one for one in os.listdir(scratch / name) if one.startswith(".")] == []
    assert tokens
    assert not [one for one in tokens if Path(f"/tmp/kvm.storage-{one}").exists()]


def make(host: Host, pools: Path, form: str = "qcow2") -> bytes:
    content = bytearray(8 * MIB)
    content[:4096] = os.urandom(4096)
    content[-512:] = os.urandom(512)
    (pools / "content").write_bytes(content)
    path = str(pools / "images/disk")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, str(pools / "content"), path], check=True)
    os.chmod(path, 0o640)
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh(0)
    return bytes(content)


def task(host: Host, form: str = "qcow2", **options: Any) -> dict[str, Any]:
    to = {"host": "root@kvm02", "uri": host.uri, "pool": "fast", **options.pop("to", {})}
    return {"pool": "images", "name": "disk", "format": form, "to": to, **options}


def test_example(host: Host, pools: Path) -> None:
    """The one of the module's examples that needs another host."""
    found = next(
        one for one in examples.tasks(examples.MODULES / "volume_migrate.py") if "host" in one.args.get("to", {})
    )
    assert found.name == "Give it to another hypervisor"
    there = {**found.args["to"], "uri": host.uri, "pool": "fast"}
    host.ok("volume", pool="images", name=found.args["name"], format="raw", capacity="1MiB")
    host.converge("volume_migrate", ["hand_over", "drop_source"], **{**found.args, "pool": "images", "to": there})


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk"])
def test_as_it_is(host: Host, pools: Path, form: str) -> None:
    make(host, pools, form)
    before = (pools / "images/disk").read_bytes()
    done = host.converge(
        "volume_migrate", ["hand_over", "drop_source"], "host:          root@kvm02", **task(host, form)
    )
    assert done["volume_path"] == f"{pools}/fast/disk"
    assert (pools / "fast/disk").read_bytes() == before
    assert os.stat(pools / "fast/disk").st_mode & 0o777 == 0o640
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])
    if form == "raw":
        assert os.stat(pools / "fast/disk").st_blocks * 512 < MIB


def test_as_a_raw_disk(host: Host, pools: Path) -> None:
    content = make(host, pools)
    host.converge(
        "volume_migrate", ["hand_over"], **task(host, to={"format": "raw", "name": "disk.img"}, keep_source=True)
    )
    assert (pools / "fast/disk.img").read_bytes() == content
    host.refused("volume_migrate", "unsupported", **task(host, to={"format": "vdi", "name": "other"}))


def test_rate(host: Host, pools: Path) -> None:
    """What is copied and what is compared."""
    make(host, pools, "raw")
    (pools / "images/disk").write_bytes(os.urandom(3 * MIB))
    began = time.monotonic()
    host.ok("volume_migrate", **task(host, "raw", rate="2MiB"))
    assert time.monotonic() - began > 1.5


def test_target_that_is_something_else(host: Host, pools: Path) -> None:
    make(host, pools)
    host.ok("volume", pool="fast", name="disk", format="qcow2", capacity="8MiB")
    host.refused("volume_migrate", "exists", "another content", **task(host))


def test_other_end_that_can_not_be_used(host: Host, pools: Path) -> None:
    make(host, pools)
    host.refused("volume_migrate", "unreachable", "Could not resolve", **task(host, to={"host": "kvm03"}))
    host.refused("volume_migrate", "bad_value", **task(host, to={"host": "-oProxyCommand=id"}))
    host.refused("volume_migrate", "backend_refused", "root@kvm02 says", **task(host, to={"pool": "missing"}))
    host.ok("pool_dir", name="fast", state="inactive")
    host.refused("volume_migrate", "pool_inactive", **task(host))
    host.ok("pool_dir", name="fast", state="active")


def test_guests(host: Host, pools: Path) -> None:
    make(host, pools)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{pools}/images/disk", driver="qcow2"), persistent=True)
        host.refused("volume_migrate", "in_use", **task(host, keep_source=True))
        guest.destroy()
        host.refused("volume_migrate", "in_use", "does not follow", **task(host))
        host.converge("volume_migrate", ["hand_over"], **task(host, keep_source=True))
        connection.defineXML(domain_xml("web02"))
    assert qemu_img("-f", "qcow2", pools / "fast/disk")["virtual-size"] == 8 * MIB


@pytest.mark.parametrize("step", ["convert", "compare"])
def test_run_that_ends_on_the_way(host: Host, pools: Path, step: str) -> None:
    """The other end takes its hidden file away when the connection ends."""
    make(host, pools)
    before = (pools / "images/disk").read_bytes()
    seen = []

    def dies(*given: Any, **options: Any) -> Any:
        seen.extend(os.listdir(pools / "fast"))
        raise OSError("killed")

    with mock.patch(f"{UTILS}qemu_img.{step}", dies):
        host.failed("volume_migrate", "system_refused", **task(host))
    assert len(seen) == 1
    assert seen[0].startswith(".kvm.storage-")
    assert os.listdir(pools / "fast") == []
    host.converge("volume_migrate", ["hand_over", "drop_source"], **task(host))
    assert (pools / "fast/disk").read_bytes() == before


def test_killed_between_the_name_and_the_end(host: Host, pools: Path) -> None:
    make(host, pools)
    with mock.patch(f"{UTILS}handover.Handover.drop_source", side_effect=OSError("killed")):
        host.failed("volume_migrate", "system_refused", **task(host))
    host.converge("volume_migrate", ["drop_source"], **task(host))
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])


@pytest.mark.parametrize("source", [True, False])
def test_killed_before_libvirt_there_has_looked(host: Host, pools: Path, source: bool) -> None:
    make(host, pools)
    (pools / "fast/disk").write_bytes((pools / "images/disk").read_bytes())
    if not source:
        host.ok("volume", pool="images", name="disk", state="absent")
    steps = ["refresh_target", "drop_source"] if source else ["refresh_target"]
    host.converge("volume_migrate", steps, **task(host))
    assert (host.volumes("images"), host.volumes("fast")) == ([], ["disk"])


def test_a_share_that_both_hosts_have(host: Host, pools: Path) -> None:
    """The file there is the file here: it is not dropped as a copy."""
    make(host, pools)
    host.refused("volume_migrate", "exists", "this very file", **task(host, to={"pool": "images"}))
    assert (pools / "images/disk").exists()


def test_snapshots_in_files_beside_it(host: Host, pools: Path) -> None:
    make(host, pools)
    host.ok("volume_snapshot", pool="images", name="disk", format="qcow2", snapshot="one", kind="external")
    wanted = task(host, flatten=True, to={"format": "raw"})
    host.refused("volume_migrate", "has_snapshots", "'one'", "keep_source: true", **wanted)
    with switched_off("volume:Volume.own_snapshots", []):
        host.ok("volume_migrate", **wanted)
    assert (pools / "images/disk@one").exists()
