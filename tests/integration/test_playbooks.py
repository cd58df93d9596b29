# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks and the role, run from the installed collection in another directory, and the demo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import libvirt
import pytest
import yaml

from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.libvirtd import Libvirtd
from tests.servers.process import wait_for
from tests.servers.silent import closed_port
from tests.servers.sweep import loop_backing, mounts_below

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / ".cache/collections/ansible_collections"
RECAP = re.compile(r"^(\w+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class Ran(NamedTuple):
    """What a playbook did."""

    status: int
    output: str
    changed: dict[str, int]

    @property
    def table(self) -> list[str]:
        """The lines that a debug task showed."""
        return [json.loads(line.rstrip(",")) for line in self.output.splitlines() if line.startswith(8 * " " + '"')]

    def row(self, *words: str) -> list[str]:
        """The cells of the table's one row that begins with these words."""
        [found] = [line for line in self.table if re.split(r" {2,}", line)[: len(words)] == list(words)]
        return re.split(r" {2,}", found)


Play = Callable[..., Ran]


def program(*argv: str, folder: Path, collections: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    env |= {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_HOME": str(folder), "ANSIBLE_NOCOLOR": "true"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built and installed from its tarball beside what it declares to need, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    collections = folder / "collections"
    declared = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"]
    needed = [str(FETCHED / name.replace(".", "/")) for name in declared]
    for argv in (
        ("build", "--output-path", str(folder), str(ROOT)),
        ("install", "--offline", "-p", str(collections), *needed, str(folder / "kvm-storage-1.0.0.tar.gz")),
    ):
        done = program("ansible-galaxy", "collection", *argv, folder=folder, collections=collections)
        assert done.returncode == 0, done.stdout + done.stderr
    return collections


@pytest.fixture
def play(tmp_path: Path, installed: Path, fresh_hypervisor: Libvirtd, scratch: Path) -> Play:
    """Runs a playbook on kvm01 with some variables; others are added to the inventory by name."""

    def run(name: str, *options: str, hosts: dict[str, dict[str, Any]] | None = None, **variables: Any) -> Ran:
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        every = {"ansible_become": False, "storage_uri": fresh_hypervisor.uri, "folder": str(scratch), **variables}
        group = {"hosts": {"kvm01": local, **(hosts or {})}, "vars": {**local, **every}}
        (tmp_path / "inventory.json").write_text(json.dumps({"all": {"children": {"hypervisors": group}}}))
        command = ["ansible-playbook", f"kvm.storage.{name}", "-i", "inventory.json", *options]
        done = program(*command, folder=tmp_path, collections=installed)
        changed = {host: int(number) for host, number, *_rest in RECAP.findall(done.stdout)}
        return Ran(done.returncode, done.stdout + done.stderr, changed)

    return run


DECLARED: dict[str, Any] = {
    "storage_secrets": [{"usage": "iscsi", "usage_name": "array", "value": "not-a-word", "purpose": "tests"}],
    "storage_pools": [
        {"type": "dir", "name": "images", "path": "{{ folder }}/images", "autostart": True},
        {"type": "dir", "name": "elsewhere", "path": "{{ folder }}/elsewhere", "only_on": ["all"], "shared": False},
    ],
    "storage_volumes": [
        {"pool": "images", "name": "base.qcow2", "format": "qcow2", "capacity": "1GiB"},
        {"pool": "images", "name": "web%d.qcow2", "count": 5, "capacity": "2GiB", "backing": {"volume": "base.qcow2"}},
    ],
}


def state(conn: libvirt.virConnect) -> dict[str, Any]:
    """Everything that a run could have changed."""
    pools = conn.listAllStoragePools()
    paths = [re.findall("<path>(.*)</path>", pool.XMLDesc())[0] for pool in pools]
    return {
        "pools": {pool.name(): (pool.XMLDesc(), pool.isActive(), pool.autostart()) for pool in pools},
        "volumes": {pool.name(): sorted(pool.listVolumes()) for pool in pools if pool.isActive()},
        "secrets": sorted((one.UUIDString(), one.value()) for one in conn.listAllSecrets()),
        "modes": {path: os.stat(path).st_mode for path in paths if os.path.exists(path)},
    }


def test_site_converges_and_then_has_nothing_to_do(play: Play, conn: libvirt.virConnect) -> None:
    first = play("storage", **DECLARED)
    assert (first.status, first.changed) == (0, {"kvm01": 1}), first.output
    made = state(conn)
    webs = [f"web{number}.qcow2" for number in range(1, 6)]
    assert made["volumes"] == {"images": ["base.qcow2", *webs], "elsewhere": []}
    assert [value for _uuid, value in made["secrets"]] == [b"not-a-word"]
    second = play("storage", "--diff", **DECLARED)
    assert (second.status, second.changed) == (0, {"kvm01": 0}), second.output
    assert state(conn) == made


def test_site_in_check_mode_with_diff_shows_and_does_nothing(play: Play, conn: libvirt.virConnect) -> None:
    found = play("storage", "--check", "--diff", **DECLARED)
    assert (found.status, found.changed) == (0, {"kvm01": 1}), found.output
    assert "+capacity:      1.0 GiB (1073741824)" in found.output
    assert "plan: 9 to create, 0 to update, 0 to delete, 0 unchanged" in found.output
    assert "not-a-word" not in found.output
    assert state(conn) == {"pools": {}, "volumes": {}, "secrets": [], "modes": {}}


def test_items_go_to_the_hosts_that_they_name(play: Play, conn: libvirt.virConnect, scratch: Path) -> None:
    pools = [{"type": "dir", "name": name, "path": f"{scratch}/{name}", "only_on": name} for name in ("kvm01", "kvm02")]
    away: dict[str, dict[str, Any]] = {"kvm02": {}}
    assert play("storage", "--limit", "kvm01", hosts=away, storage_pools=pools).changed == {"kvm01": 1}
    assert [pool.name() for pool in conn.listAllStoragePools()] == ["kvm01"]


def test_name_that_no_host_has_is_an_error_before_anything_changes(play: Play, conn: libvirt.virConnect) -> None:
    pools = [*DECLARED["storage_pools"], {"type": "dir", "name": "x", "path": "/srv/x", "only_on": "kvm09"}]
    found = play("storage", storage_pools=pools)
    assert found.status == 2
    assert "only_on names kvm09, which the inventory has neither as a host nor as a group" in found.output
    assert conn.listAllStoragePools() == []


def test_wrong_type_of_a_variable_is_refused_by_the_role(play: Play) -> None:
    found = play("storage", storage_prune="perhaps")
    assert found.status == 2
    assert "Validating arguments" in found.output
    assert "storage_prune" in found.output


def test_prune_removes_what_the_role_made_and_nothing_else(play: Play, conn: libvirt.virConnect, scratch: Path) -> None:
    by_hand = f"<pool type='dir'><name>by-hand</name><target><path>{scratch}/hand</path></target></pool>"
    conn.storagePoolDefineXML(by_hand)
    assert play("storage", **DECLARED).status == 0
    found = play("storage", storage_prune=True, storage_pools=DECLARED["storage_pools"][:1])
    assert (found.status, found.changed) == (0, {"kvm01": 1}), found.output
    assert sorted(pool.name() for pool in conn.listAllStoragePools()) == ["by-hand", "images"]
    assert conn.listAllSecrets() == []
    assert (scratch / "elsewhere").is_dir(), "data stays"


def test_drift_of_a_clean_fleet(play: Play) -> None:
    assert play("storage", **DECLARED).status == 0
    found = play("drift", **DECLARED)
    assert (found.status, found.changed) == (0, {"kvm01": 0}), found.output
    assert found.table == ["Fleet: 1 host, 1 clean, 0 drifted, 0 unknown, 0 need data loss"]


def test_drift_shows_what_differs_and_changes_nothing(play: Play, conn: libvirt.virConnect, scratch: Path) -> None:
    assert play("storage", **DECLARED).status == 0
    images = conn.storagePoolLookupByName("images")
    images.setAutostart(0)
    images.storageVolLookupByName("web3.qcow2").delete()
    conn.storagePoolLookupByName("elsewhere").destroy()
    conn.listAllSecrets()[0].setValue(b"another-word")
    before = state(conn)
    found = play("drift", **DECLARED)
    assert (found.status, found.changed) == (2, {"kvm01": 0}), found.output
    assert found.row("kvm01", "pool images")[2:] == ["autostart true", "autostart false", "autostart", "set autostart"]
    assert found.row("kvm01", "pool elsewhere")[2:] == ["active", "inactive", "state", "start"]
    assert found.row("kvm01", "volume images/web3.qcow2")[2:] == ["qcow2 2.0 GiB", "-", "missing", "create"]
    assert found.row("kvm01", "secret array")[-1] == "set value"
    assert len(found.table) == 7, "what is as declared has no row"
    assert found.table[-1] == "Fleet: 1 host, 0 clean, 1 drifted, 0 unknown, 0 need data loss"
    assert "not-a-word" not in found.output
    assert "another-word" not in found.output
    assert state(conn) == before
    assert play("storage", **DECLARED).changed == {"kvm01": 1}
    assert play("drift", **DECLARED).status == 0


def test_drift_that_only_losing_data_would_mend(play: Play, conn: libvirt.virConnect) -> None:
    assert play("storage", **DECLARED).status == 0
    conn.storagePoolLookupByName("images").storageVolLookupByName("base.qcow2").resize(2 << 30)
    before = state(conn)
    found = play("drift", **DECLARED)
    assert found.status == 2
    assert found.row("kvm01", "volume images/base.qcow2")[-2:] == ["would shrink", "DATA LOSS"]
    assert found.table[-1] == "Fleet: 1 host, 0 clean, 1 drifted, 0 unknown, 1 need data loss"
    assert any("it has 2.0 GiB (2147483648), more than the 1.0 GiB" in line for line in found.table)
    assert len(found.table) == 6, "the overlays are as declared"
    assert state(conn) == before


def test_drift_of_hosts_that_can_not_be_asked(play: Play, tmp_path: Path) -> None:
    assert play("storage", **DECLARED).status == 0
    away = {
        "gone": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": closed_port()},
        "down": {"storage_uri": f"qemu+unix:///system?socket={tmp_path}/nobody"},
        "vague": {"storage_uri": "{{ nobody_knows }}"},
    }
    found = play("drift", hosts=away, **DECLARED)
    assert found.status != 0
    assert found.changed == dict.fromkeys(["kvm01", *away], 0)
    words = {"gone": "unreachable", "down": "no connection", "vague": "failed"}
    for host, word in words.items():
        assert found.row(host)[1:] == ["*", "?", word, "unknown", "-"], found.output
    assert any(line.startswith("vague: ") and "'nobody_knows' is undefined" in line for line in found.table)
    assert found.table[-1] == "Fleet: 4 hosts, 1 clean, 0 drifted, 3 unknown, 0 need data loss"


def test_drift_when_the_first_host_is_the_unreachable_one(play: Play) -> None:
    gone = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": closed_port()}
    found = play("drift", hosts={"kvm01": gone})
    assert found.status != 0
    assert found.row("kvm01")[1:] == ["*", "?", "unreachable", "unknown", "-"], found.output


def test_drift_of_an_invalid_declaration_is_unknown(play: Play) -> None:
    found = play("drift", storage_pools=[{"type": "dir", "name": "a/b", "path": "/srv/x"}])
    assert found.status == 2
    assert found.row("kvm01")[1:] == ["*", "?", "bad name", "unknown", "-"], found.output


def test_playbooks_take_another_target(play: Play) -> None:
    found = play("drift", "-e", "target=kvm02", hosts={"kvm02": {}})
    assert found.status == 0, found.output
    assert list(found.changed) == ["kvm02"]


def running(conn: libvirt.virConnect) -> dict[str, tuple[int, int]]:
    """Which pools run now, and which do after a reboot."""
    return {pool.name(): (pool.isActive(), pool.autostart()) for pool in conn.listAllStoragePools()}


def test_a_host_goes_out_for_maintenance_and_comes_back(play: Play, conn: libvirt.virConnect, scratch: Path) -> None:
    assert play("storage", **DECLARED).status == 0
    before = running(conn)
    assert play("drain", **DECLARED).status != 0, "without a target nobody is taken out"
    assert running(conn) == before
    guest = start_guest(conn, "web", disk_xml(f"{scratch}/images/web1.qcow2", driver="qcow2"))
    used = play("drain", "-e", "target=kvm01", **DECLARED)
    assert used.status == 2 and "used by 'web'" in used.output, used.output
    assert running(conn) == before, "nothing was stopped"
    guest.destroy()
    assert play("drain", "-e", "target=kvm01", **DECLARED).changed == {"kvm01": 1}
    assert running(conn) == {"images": (0, 1), "elsewhere": (0, 0)}
    assert play("drain", "-e", "target=kvm01", **DECLARED).changed == {"kvm01": 0}
    assert play("storage", **DECLARED).changed == {"kvm01": 1}
    assert running(conn) == before


def test_new_values_of_secrets_are_set_by_rotation_alone_and_once(play: Play, conn: libvirt.virConnect) -> None:
    assert play("storage", **DECLARED).status == 0
    new = {**DECLARED, "storage_secrets": [{**DECLARED["storage_secrets"][0], "value": "another-word"}]}
    assert play("rotate_secrets", "--check", **new).changed == {"kvm01": 1}
    assert conn.listAllSecrets()[0].value() == b"not-a-word"
    found = play("rotate_secrets", "--diff", "-vvv", **new)
    assert (found.status, found.changed) == (0, {"kvm01": 1})
    assert "another-word" not in found.output and "not-a-word" not in found.output
    assert conn.listAllSecrets()[0].value() == b"another-word"
    assert play("rotate_secrets", **new).changed == {"kvm01": 0}


def test_a_pool_out_of_use_and_what_pools_are_for(play: Play, conn: libvirt.virConnect) -> None:
    assert play("storage", **DECLARED).status == 0
    before = running(conn)
    images, elsewhere = DECLARED["storage_pools"]
    wrong = {**DECLARED, "storage_pools": [{**images, "purpose": "iso"}, elsewhere]}
    found = play("storage", **wrong)
    assert found.status == 2 and "volume images/base.qcow2 is for images, and its pool for iso" in found.output
    assert running(conn) == before
    away = {**DECLARED, "storage_pools": [{**images, "disabled": True}, elsewhere]}
    assert play("storage", **away).changed == {"kvm01": 1}
    assert not conn.storagePoolLookupByName("images").isActive()
    assert play("storage", **away).changed == {"kvm01": 0}
    assert play("storage", **DECLARED).changed == {"kvm01": 1}
    assert running(conn) == before


def test_batches_end_where_one_is_not_well(play: Play, conn: libvirt.virConnect) -> None:
    """The second host never begins while the first one fails."""
    broken = {"ansible_connection": "local", "storage_pools": [{"type": "dir", "name": "a/b", "path": "/srv/x"}]}
    options = ("-e", "storage_serial=1", "-e", "target=kvm00:kvm01")
    found = play("storage", *options, hosts={"kvm00": broken}, **{**DECLARED, "storage_secrets": []})
    assert found.status == 2 and "kvm01" not in found.changed, found.output
    assert conn.listAllStoragePools() == []
    well = play("storage", *options, hosts={"kvm00": {}}, **{**DECLARED, "storage_secrets": []})
    assert (well.status, well.changed) == (0, {"kvm00": 1, "kvm01": 0}), well.output


def test_what_hosts_share_is_proven_before_a_volume_is_made(
    play: Play, conn: libvirt.virConnect, run_root: Path
) -> None:
    shared = [{"type": "dir", "name": "images", "path": "{{ folder }}/images", "shared": True}]
    given = {"storage_pools": shared, "storage_volumes": DECLARED["storage_volumes"][:1]}
    with Libvirtd(run_root / "second") as other:
        others = {"kvm02": {"storage_uri": other.uri, "folder": str(other.shared)}}
        found = play("storage", hosts=others, **given)
        assert found.status == 2, found.output
        assert "pool 'images' is declared shared and is not the same storage: kvm01: " in found.output
        assert state(conn)["volumes"] == {"images": []}
        assert list(other.shared.glob("images/*")) == []
        vouched = {**given, "storage_pools": [{**shared[0], "shared": "unproven"}]}
        assert play("storage", hosts=others, **vouched).changed == {"kvm01": 1, "kvm02": 1}
    same = play("storage", hosts={"kvm02": {}}, **given)
    assert (same.status, same.changed) == (0, {"kvm01": 0, "kvm02": 0}), same.output


UPDATE = """
- name: Change the disk
  ansible.builtin.command: qemu-io -f qcow2 -c "write -P 2 0 1M" {{ folder }}/images/app.qcow2
  changed_when: true
"""
CHECK = """
- name: Look at the result
  ansible.builtin.assert:
    that: checked
"""


def qemu_io(disk: Path, command: str) -> None:
    """Write a pattern, or fail where another one is read."""
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, disk], capture_output=True, text=True, check=True)
    assert "failed" not in done.stdout, done.stdout


@pytest.mark.parametrize("works", [True, False])
def test_an_update_that_fails_its_check_goes_back(
    play: Play, conn: libvirt.virConnect, scratch: Path, tmp_path: Path, works: bool
) -> None:
    pools, disk = DECLARED["storage_pools"][:1], scratch / "images/app.qcow2"
    volumes = [{"pool": "images", "name": "app.qcow2", "format": "qcow2", "capacity": "1MiB"}]
    assert play("storage", storage_pools=pools, storage_volumes=volumes).status == 0
    qemu_io(disk, "write -P 1 0 1M")
    conn.defineXML(domain_xml("app", disk_xml(str(disk), driver="qcow2")))
    for name, text in (("update", UPDATE), ("check", CHECK)):
        (tmp_path / f"{name}.yml").write_text(text)
    given: dict[str, Any] = {"guarded_domain": "app", "guarded_volumes": [{"pool": "images", "name": "app.qcow2"}]}
    given |= {f"guarded_{name}": f"{tmp_path}/{name}.yml" for name in ("update", "check")}
    found = play("update_guarded", "-e", "target=kvm01", checked=works, **given)
    assert (found.status == 0) is works, found.output
    qemu_io(disk, f"read -P {2 if works else 1} 0 1M")
    assert works or "app are as they were before" in found.output, found.output
    conn.lookupByName("app").undefine()


def test_the_demo_does_what_it_says_and_leaves_nothing(run_root: Path) -> None:
    folder = run_root / "demo"
    command = [sys.executable, str(ROOT / "demo/show.py"), str(folder)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, f"{time.monotonic() - began:.1f} s")
    assert done.returncode == 0
    assert "Fleet: 2 hosts, 0 clean, 1 drifted, 1 unknown, 0 need data loss" in done.stdout
    assert "Fleet: 2 hosts, 2 clean, 0 drifted, 0 unknown, 0 need data loss" in done.stdout
    assert re.search(r"kvm02 +array +iscsi-direct +256.0 MiB", done.stdout)
    assert not folder.exists()
    assert mounts_below(folder) == []
    devices = os.listdir("/sys/block")  # whoever looks at all disks may have one open
    wait_for("the end of its devices", lambda: not [one for one in devices if str(folder) in (loop_backing(one) or "")])
