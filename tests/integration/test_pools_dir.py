# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pools of type dir on a real libvirtd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import guards
from tests.integration.helpers import Host, connected, mutable, switched_off
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import LoopDevice

GONE = {"name": "images", "state": "absent"}


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def pool(scratch: Path) -> dict[str, Any]:
    return {"name": "images", "path": str(scratch / "images")}


def test_every_state_after_every_other(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    before = host.state()
    host.converge("pool_dir", ["define", "build"], "state:         inactive", state="inactive", **pool)
    host.converge("pool_dir", ["start"], "state:         active", **pool)
    host.converge("pool_dir", ["stop"], "state:         inactive", state="inactive", **pool)
    host.converge("pool_dir", ["undefine"], **GONE)
    host.converge("pool_dir", ["define", "start"], **pool)
    host.converge("pool_dir", ["stop", "undefine"], **GONE)
    assert (scratch / "images").is_dir(), "what is on disk stays"
    host.unchanged("pool_dir", **GONE)
    (scratch / "images").rmdir()
    assert host.state() == before


def test_made_and_removed_with_its_directory(host: Host, pool: dict[str, Any]) -> None:
    undo = {**GONE, "delete_data": True}
    removal = ["delete_volumes", "stop", "delete_storage", "undefine"]
    host.lifecycle("pool_dir", ["define", "build", "start"], removal, pool["path"], undo=undo, **pool)


def test_autostart_on_and_off(host: Host, pool: dict[str, Any]) -> None:
    host.converge("pool_dir", ["define", "build", "start", "set_autostart"], "autostart", autostart=True, **pool)
    host.unchanged("pool_dir", **pool)  # not given is left alone
    host.converge("pool_dir", ["set_autostart"], "autostart:     false", autostart=False, **pool)
    host.converge("pool_dir", ["set_autostart"], "autostart:     true", autostart=True, **pool)


def test_transient(host: Host, pool: dict[str, Any]) -> None:
    host.converge("pool_dir", ["create"], "persistent:    false", persistent=False, **pool)
    host.converge("pool_dir", ["define"], "persistent:    true", **pool)
    host.refused("pool_dir", "cannot_change", "state: absent", persistent=False, **pool)
    host.converge("pool_dir", ["stop", "undefine"], **GONE)
    host.converge("pool_dir", ["create"], persistent=False, **pool)
    host.converge("pool_dir", ["stop"], **GONE)


def test_change_of_an_active_pool_waits_for_a_restart(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    host.ok("pool_dir", **pool)
    uuid = host.pool_xml("images").partition("<uuid>")[2][:36]
    moved = {"name": "images", "path": str(scratch / "moved")}
    predicted = host.ok("pool_dir", check=True, **moved)
    done = host.ok("pool_dir", **moved)
    assert predicted["actions"] == done["actions"] == ["define"]
    assert predicted["restart_needed"] is done["restart_needed"] is True
    assert "needs a pool restart" in str(done["diff"])
    assert any("restart: true" in warning for warning in done["warnings"]), done["warnings"]
    assert (pool["path"] in host.pool_xml("images"), moved["path"] in host.pool_xml("images", True)) == (True, True)
    again = host.ok("pool_dir", **moved)
    assert (again["changed"], again["restart_needed"]) == (False, True)
    assert host.ok("pool_info")["pools"][0]["restart_needed"] == ["path"]
    Path(moved["path"]).mkdir()
    host.converge("pool_dir", ["restart"], restart=True, **moved)
    assert moved["path"] in host.pool_xml("images")
    assert host.pool_xml("images").partition("<uuid>")[2][:36] == uuid
    assert host.ok("pool_info")["pools"][0]["restart_needed"] == []


def test_restart_moves_a_pool_to_a_directory_that_is_not_there_yet(
    host: Host, pool: dict[str, Any], scratch: Path
) -> None:
    host.ok("pool_dir", **pool)
    moved = {"name": "images", "path": str(scratch / "moved")}
    host.converge("pool_dir", ["define", "stop", "build", "start"], "restarts the pool", restart=True, **moved)
    assert Path(moved["path"]).is_dir()
    host.unchanged("pool_dir", **moved)


def test_transient_pool_is_recreated(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    host.ok("pool_dir", persistent=False, **pool)
    moved: dict[str, Any] = {"name": "images", "path": str(scratch / "moved"), "persistent": False}
    waiting = host.ok("pool_dir", **moved)
    assert (waiting["actions"], waiting["restart_needed"]) == ([], True)
    host.converge("pool_dir", ["recreate"], moved["path"], restart=True, **moved)


def test_build_never_makes_no_directory(host: Host, pool: dict[str, Any]) -> None:
    before = host.state()
    result = host.failed("pool_dir", "backend_refused", "start", pool["path"], build="never", **pool)
    assert (result["changed"], result["actions"]) == (False, [])
    assert host.state() == before, "nothing half made is left"
    host.ok("pool_dir", build="never", state="inactive", **pool)
    host.converge("pool_dir", ["build", "start"], **pool)


def test_what_is_in_the_directory_stays(host: Host, pool: dict[str, Any]) -> None:
    Path(pool["path"]).mkdir()
    (Path(pool["path"]) / "old.raw").write_bytes(b"precious" * 64)
    host.converge("pool_dir", ["define", "start"], **pool)
    host.converge("pool_dir", ["stop", "undefine"], **GONE)
    assert (Path(pool["path"]) / "old.raw").read_bytes() == b"precious" * 64


def test_delete_data_gives_up_volumes_and_nothing_else(host: Host, pool: dict[str, Any]) -> None:
    host.ok("pool_dir", **pool)
    (Path(pool["path"]) / "old.raw").write_bytes(b"x")
    (Path(pool["path"]) / "notes").mkdir()
    host.refused("pool_dir", "not_volumes", "'notes'", delete_data=True, **GONE)
    (Path(pool["path"]) / "notes").rmdir()
    (Path(pool["path"]) / "link.img").symlink_to("/etc/hostname")
    host.refused("pool_dir", "not_volumes", "'link.img'", delete_data=True, **GONE)
    (Path(pool["path"]) / "link.img").unlink()
    host.converge("pool_dir", ["delete_volumes", "stop", "delete_storage", "undefine"], delete_data=True, **GONE)
    assert not Path(pool["path"]).exists()


def test_delete_data_of_an_inactive_pool(host: Host, pool: dict[str, Any]) -> None:
    host.ok("pool_dir", **pool)
    (Path(pool["path"]) / "late.raw").write_bytes(b"x")
    host.ok("pool_dir", state="inactive", **pool)
    steps = ["start", "delete_volumes", "stop", "delete_storage", "undefine"]
    host.converge("pool_dir", steps, delete_data=True, **GONE)
    assert not Path(pool["path"]).exists()


def test_delete_data_spares_what_is_immutable(host: Host, pool: dict[str, Any]) -> None:
    host.ok("pool_dir", **pool)
    host.ok("volume", pool="images", name="aaa.raw", capacity="1MiB", format="raw")
    host.ok("volume", pool="images", name="base.raw", capacity="1MiB", format="raw", immutable=True)
    try:
        host.refused("pool_dir", "immutable", "base.raw", delete_data=True, **GONE)
    finally:
        mutable(Path(pool["path"]))


def test_delete_data_spares_a_base_that_other_pools_stand_on(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    host.ok("pool_dir", **pool)
    host.ok("pool_dir", name="other", path=str(scratch / "other"))
    host.ok("volume", pool="images", name="base.raw", capacity="1MiB", format="raw")
    backing = {"pool": "images", "volume": "base.raw", "format": "raw"}
    host.ok("volume", pool="other", name="overlay.qcow2", capacity="1MiB", format="qcow2", backing=backing)
    host.refused("pool_dir", "has_overlays", "other/overlay.qcow2", delete_data=True, **GONE)


# Permissions


def test_permissions_at_birth(host: Host, pool: dict[str, Any]) -> None:
    wanted = {"mode": "0750", "owner": "nobody", "group": "12"}
    host.converge("pool_dir", ["define", "build", "start"], "mode 0750", permissions=wanted, **pool)
    status = os.stat(pool["path"])
    assert (oct(status.st_mode & 0o7777), status.st_uid, status.st_gid) == ("0o750", 65534, 12)


def test_drift_of_mode_and_owner_is_found_and_repaired(host: Host, pool: dict[str, Any]) -> None:
    wanted = {"mode": "0711", "owner": "0", "group": "0"}
    host.ok("pool_dir", permissions=wanted, **pool)
    for drift in (lambda: os.chmod(pool["path"], 0o755), lambda: os.chown(pool["path"], 65534, 12)):
        drift()
        with connected(host.uri) as connection:
            connection.storagePoolLookupByName("images").refresh()  # libvirt takes the drift into its own XML
        host.converge("pool_dir", ["set_permissions"], "permissions", permissions=wanted, **pool)
        status = os.stat(pool["path"])
        assert (oct(status.st_mode & 0o7777), status.st_uid, status.st_gid) == ("0o711", 0, 0)


def test_drift_in_the_directory_of_an_inactive_pool(host: Host, pool: dict[str, Any]) -> None:
    host.ok("pool_dir", state="inactive", permissions={"mode": "0700"}, **pool)
    os.chmod(pool["path"], 0o777)
    steps = ["set_permissions"]
    host.converge("pool_dir", steps, "mode 0700", state="inactive", permissions={"mode": "0700"}, **pool)
    assert oct(os.stat(pool["path"]).st_mode & 0o7777) == "0o700"


def test_directory_that_is_there_is_brought_to_the_wanted_mode(host: Host, pool: dict[str, Any]) -> None:
    Path(pool["path"]).mkdir(mode=0o755)
    host.converge("pool_dir", ["define", "start", "set_permissions"], permissions={"mode": "0700"}, **pool)
    assert oct(os.stat(pool["path"]).st_mode & 0o7777) == "0o700"


# What is refused


def test_mount_point_that_is_not_mounted(
    host: Host, pool: dict[str, Any], scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text(f"# disks\nUUID=1-2 / ext4 defaults 0 1\nUUID=3-4 {scratch}/images xfs nofail 0 2\n")
    monkeypatch.setattr(guards.unmounted, "__defaults__", (str(fstab),))
    host.refused("pool_dir", "not_mounted", f"mount {scratch}/images", **pool)
    below = {"name": "below", "path": f"{scratch}/images/vms/deep"}
    host.refused("pool_dir", "not_mounted", f"mount {scratch}/images", **below)
    Path(pool["path"]).mkdir()
    host.refused("pool_dir", "not_mounted", f"mount {scratch}/images", **pool)
    with switched_off("guards:require_mounted"):
        host.ok("pool_dir", **pool)  # libvirt itself fills the file system below the mount point
    host.refused("pool_dir", "not_mounted", f"mount {scratch}/images", **pool)
    host.ok("pool_dir", **GONE)


def test_what_an_earlier_task_would_have_mounted(host: Host, pool: dict[str, Any]) -> None:
    """Check mode goes on where that task has only said so; a run does not."""
    before = host.state()
    item = {"type": "dir", **pool, "require_mountpoint": True}
    volume = {"pool": pool["name"], "name": "web.raw", "format": "raw", "capacity": "1MiB"}
    wanted = {"pools": [item], "volumes": [volume]}
    expected = {**wanted, "expected_pools": [pool["name"]]}
    host.refused("layout", "not_mounted", **wanted)
    predicted = host.ok("layout", check=True, **expected)
    assert [one["name"] for one in predicted["outcomes"]] == ["images", "images/web.raw"], predicted
    assert any("so an earlier task is expected to see to that" in one for one in predicted["warnings"]), predicted
    failed = host.run("layout", **expected)
    assert failed["failed"] and failed["code"] == "not_mounted", failed
    assert host.state() == before


def test_require_mountpoint(host: Host, pool: dict[str, Any], loop_device: Any, fresh_hypervisor: Libvirtd) -> None:
    path = Path(pool["path"])
    path.mkdir()
    host.refused("pool_dir", "not_mounted", f"mount {path}", require_mountpoint=True, **pool)
    disk: LoopDevice = loop_device(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk.device], check=True)
    subprocess.run(["mount", disk.device, path], check=True)
    try:
        host.converge("pool_dir", ["define", "start"], require_mountpoint=True, **pool)
        host.converge("pool_dir", ["stop", "undefine"], **GONE)
    finally:
        subprocess.run(["umount", path], check=True)


def test_full_file_system(host: Host, pool: dict[str, Any], loop_device: Any) -> None:
    path = Path(pool["path"])
    path.mkdir()
    disk: LoopDevice = loop_device(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk.device], check=True)
    subprocess.run(["mount", disk.device, path], check=True)
    try:
        host.ok("pool_dir", **pool)
        for form in ({"format": "raw"}, {"format": "qcow2"}, {"format": "raw", "preallocation": "full"}):
            form = {"preallocation": "falloc", **form}
            before = host.state()
            big = {"pool": "images", "name": "big", "capacity": "64MiB", **form}
            host.refused("volume", "no_space", "left", **big)
            with switched_off("headroom:check", []):
                host.failed("volume", "backend_refused", "No space left", **big)
            assert host.state() == before, f"{form}: nothing half made is left"
        host.ok("pool_dir", **GONE)
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/libvirt/x", "/var/lib", "/usr/bin", "/proc/x", "/boot/images"])
def test_directories_of_the_system(host: Host, path: str) -> None:
    host.refused("pool_dir", "system_path", "belongs to the system", name="images", path=path)


def test_link_to_a_directory_of_the_system(host: Host, scratch: Path) -> None:
    (scratch / "innocent").symlink_to("/etc")
    host.refused("pool_dir", "system_path", name="images", path=f"{scratch}/innocent")


def test_two_pools_on_one_directory(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    host.ok("pool_dir", **pool)
    host.refused("pool_dir", "path_conflict", "'images'", name="second", path=f"{scratch}//images/")
    nested = host.ok("pool_dir", name="nested", path=f"{scratch}/images/inner")
    assert any("nested" in warning for warning in nested["warnings"])


def test_name_of_another_type(host: Host, pool: dict[str, Any]) -> None:
    host.ok("pool_dir", **pool)
    host.refused(
        "pool_rbd", "type_mismatch", "pool_dir", name="images", source_name="rbd", hosts=[{"name": "127.0.0.1"}]
    )


def test_uuid_and_unknown_xml_survive_a_change(host: Host, pool: dict[str, Any], scratch: Path) -> None:
    """Made by someone else, with what the collection does not model; an edit in place keeps it."""
    uuid = "0b5c0a51-3f0f-4d3b-9f27-1d5c0e0f6f01"
    text = (
        f"<pool type='dir'><name>images</name><uuid>{uuid}</uuid><features><cow state='no'/></features>"
        f"<target><path>{scratch}/images</path></target></pool>"
    )
    with connected(host.uri) as connection:
        connection.storagePoolDefineXML(text)
    host.converge("pool_dir", ["define"], name="images", path=f"{scratch}/moved", state="inactive")
    assert uuid in host.pool_xml("images")
    assert "<cow state='no'/>" in host.pool_xml("images", True)


def test_pool_of_a_hypervisor_that_was_restarted(host: Host, pool: dict[str, Any], fresh_hypervisor: Libvirtd) -> None:
    host.ok("pool_dir", autostart=True, **pool)
    fresh_hypervisor.restart()
    host.unchanged("pool_dir", autostart=True, **pool)


def test_no_daemon(tmp_path: Path, host: Host) -> None:
    nobody = Host(f"qemu+unix:///system?socket={tmp_path}/none")
    result = nobody.run("pool_dir", name="images", path="/srv/images")
    assert (result["code"], str(tmp_path) in result["msg"]) == ("no_connection", True)
