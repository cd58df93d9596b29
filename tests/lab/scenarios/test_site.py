# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole story: hosts, one of them bare, become hypervisors with local and shared storage by one playbook.

It is the example of docs/example-fleet, run from the built collection beside nothing but what it declares to need. The
tests stand on each other, in this order.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.lab.folder import ROOT
from tests.lab.scenarios.outside import inventory, names, on
from tests.servers.guest import disk_xml, domain_xml

FETCHED = ROOT / ".cache/collections/ansible_collections"
RECAP = re.compile(r"^(\w+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
BY_ID = "/dev/disk/by-id/virtio-LAB"
BARE = "hv1"
HYPERVISORS = ("hv1", "hv2")
DISKS = {"lvm": [f"{BY_ID}VDB"], "zfs": [f"{BY_ID}VDC"], "btrfs": [f"{BY_ID}VDD"]}
FILLED = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_LABSDA"  # a disk that a test puts a file system on
FORMS = {"nfs": "file", "san": "block"}
POOLS = {"images", "local", "tank", "btrfs", "nfs", "nfs-by-the-host", "cifs", "san", "ceph"}


class Ran(NamedTuple):
    """What a playbook did."""

    status: int
    output: str
    changed: dict[str, int]


class Fleet:
    """The example with this lab's hosts, disks and passwords, and the collection as Galaxy would install it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fleet/group_vars/hypervisors").mkdir(parents=True)
        example = ROOT / "docs/example-fleet/group_vars/hypervisors.yml"
        self.declared = yaml.safe_load(example.read_text(encoding="utf-8"))
        self.write("group_vars/hypervisors/storage.yml", example.read_text(encoding="utf-8"))
        facts = json.loads(on("storage", "cat /etc/kvm-lab/facts.json"))
        portals = [{"name": name} for name in facts["iscsi"]["portals"]]
        here: dict[str, Any] = {
            "disks": DISKS,
            "thin_capacity": "1GiB",
            "san": {"target_iqn": facts["iscsi"]["open"], "portals": portals, "wwid": f"3{facts['iscsi']['wwns'][0]}"},
            "vault_cifs_password": on("storage", "sed -n s/^password=//p /etc/kvm-lab/cifs"),
            "vault_ceph_key": on("storage", "awk '/key/ {print $3}' /etc/kvm-lab/ceph.keyring"),
        }
        self.secrets = [here["vault_cifs_password"], here["vault_ceph_key"]]
        self.write("group_vars/hypervisors/lab.yml", yaml.safe_dump(here))
        self.write("hosts.yml", "hypervisors: {}\n")
        self.install()

    def write(self, name: str, text: str) -> None:
        path = self.folder / "fleet" / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    def install(self) -> None:
        needed = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"]
        there = [str(FETCHED / name.replace(".", "/")) for name in needed]
        self.run("ansible-galaxy", "collection", "build", "--output-path", ".", str(ROOT), check=True)
        [tarball] = self.folder.glob("kvm-storage-*.tar.gz")
        install = ["collection", "install", "--offline", "-p", "collections", *there, str(tarball)]
        self.run("ansible-galaxy", *install, check=True)

    def run(self, program: str, *argv: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
        env |= {
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        }
        command = [str(Path(sys.executable).with_name(program)), *argv]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def play(self, name: str, *options: str, **variables: Any) -> Ran:
        """Run a playbook of the collection; variables are those of every host."""
        more = ["-e", json.dumps(variables)] if variables else []
        began = time.monotonic()
        done = self.run(
            "ansible-playbook", f"kvm.storage.{name}", "-i", str(inventory()), "-i", "fleet", *options, *more
        )
        said = done.stdout + done.stderr
        print(f"{name} {options}: {time.monotonic() - began:.0f} s\n{said}")
        for secret in self.secrets:
            assert secret not in said
        return Ran(done.returncode, said, {host: int(changed) for host, _ok, changed, *_rest in RECAP.findall(said)})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def lines(host: str, command: str) -> set[str]:
    return {line.strip() for line in on(host, command).splitlines() if line.strip()}


def test_check_mode_on_a_bare_host_says_what_it_can_not_predict(fleet: Fleet) -> None:
    assert names() == ["hv1", "hv2", "storage"]
    ran = fleet.play("site", "--check", "--limit", BARE)
    assert ran.status == 0
    assert ran.changed[BARE] > 0
    assert re.search(r"what stands on .*libvirt.* can't be predicted before it is installed", ran.output)
    assert "secrets, pools and volumes can't be predicted before" in ran.output
    assert on(BARE, "which virsh lvm zpool iscsiadm || true") == ""


def test_from_bare_hosts_to_shared_storage(fleet: Fleet) -> None:
    for host in HYPERVISORS:  # as on a host that was set up with it: the lab gives the address to a running host only
        network = f"[Match]\\nName=eth1\\n[Network]\\nAddress=10.77.0.1{host[-1]}/24\\n"
        on(host, f"printf '{network}' >/etc/systemd/network/20-eth1.network")
        on(host, "systemctl unmask -q systemd-networkd-wait-online; systemctl enable -q systemd-networkd-wait-online")
    ran = fleet.play("site", "--diff")
    assert ran.status == 0
    assert set(ran.changed) == set(HYPERVISORS)
    assert all(number > 0 for number in ran.changed.values())


def test_again_and_nothing_changes(fleet: Fleet) -> None:
    ran = fleet.play("site")
    assert (ran.status, ran.changed) == (0, dict.fromkeys(HYPERVISORS, 0))


def check_storage(host: str) -> bool:
    """What was declared, by the tools of each kind of storage; an assertion fails where it is not there."""
    assert lines(host, "virsh --quiet pool-list --name") >= POOLS
    assert lines(host, "virsh --quiet pool-list --autostart --name") >= POOLS
    assert {"thin local", "db local thin"} <= {
        " ".join(line.split()) for line in lines(host, "lvs --noheadings -o lv_name,vg_name,pool_lv")
    }
    assert on(host, "zpool list -H -o name,health") == "tank\tONLINE"
    assert "tank/vms/mail" in lines(host, "zfs list -H -o name -t volume")
    mounts = dict(
        line.split()[::-1] for line in lines(host, "findmnt --noheadings --list -o SOURCE,TARGET -t btrfs,nfs4,cifs")
    )
    assert mounts["/srv/nfs"] == mounts["/srv/nfs-by-the-host"] == "storage:/srv/nfs"
    assert mounts["/srv/cifs"] == "//storage/images"
    assert "C" in on(host, "lsattr -d /srv/btrfs/vms").split()[0]
    assert on(host, "iscsiadm -m session | grep -c test.lab:open") == "2"
    assert on(host, "multipath -ll san0 | grep -c 'active ready running'") == "2"
    assert "san" in lines(host, "vgs --noheadings -o vg_name")
    assert on(host, "virsh --quiet vol-list images | wc -l") == "4"
    return True


@pytest.mark.parametrize("host", HYPERVISORS)
def test_every_tool_shows_it(fleet: Fleet, host: str) -> None:
    assert check_storage(host)
    assert on(host, "stat -c %a /etc/ceph/ceph.client.vms.keyring") == "600"


def test_labels_where_selinux_is_enforcing(fleet: Fleet) -> None:
    assert on("hv2", "getenforce") == "Enforcing"
    for path in ("/srv/images", "/srv/images/base.qcow2"):
        assert ":virt_image_t:" in on("hv2", f"stat -c %C {path}")


def test_what_one_host_has_made_the_other_has(fleet: Fleet) -> None:
    for pool, volume in (("nfs", "shared.raw"), ("san", "cluster"), ("ceph", "cloud")):
        assert volume in on("hv2", f"virsh --quiet vol-list {pool}"), pool
    on("hv1", "echo from-hv1 | dd of=/srv/nfs/shared.raw conv=notrunc,fsync status=none")
    assert on("hv2", "head -c 8 /srv/nfs/shared.raw") == "from-hv1"


def disk(kind: str, target: str) -> str:
    """A disk on storage that both hosts have; what the guest writes is in no host's memory."""
    plain = "<driver name='qemu' type='raw' cache='none'/>"
    if kind == "rbd":
        login = "<auth username='vms'><secret type='ceph' usage='vms'/></auth>"
        place = "<source protocol='rbd' name='vms/cloud'><host name='storage' port='6789'/></source>"
        return f"<disk type='network' device='disk'>{plain}{login}{place}<target dev='{target}' bus='virtio'/></disk>"
    xml = disk_xml("/srv/nfs/shared.raw" if kind == "nfs" else "/dev/san/cluster", target, kind=FORMS[kind])
    return xml.replace("<driver name='qemu' type='raw'/>", plain)


def test_a_running_guest_moves_over_shared_storage(fleet: Fleet) -> None:
    """By NFS, a LUN with multipath and Ceph at once; and what it has is refused to the host that it came from."""
    disks = "".join(disk(kind, target) for kind, target in (("nfs", "vda"), ("san", "vdb"), ("rbd", "vdc")))
    on("hv1", f"cat >/root/web.xml <<'END'\n{domain_xml('web', disks)}\nEND\nvirsh --quiet create /root/web.xml")
    for host in HYPERVISORS:  # a shared group is active where it is used
        on(host, "lvchange --activate y san/cluster")
    on("hv1", "virsh migrate --live web qemu+ssh://hv2/system", timeout=300)
    try:
        assert on("hv2", "virsh domstate web") == "running"
        assert "web" not in lines("hv1", "virsh --quiet list --all --name")
        gone = [
            {"pool": pool, "name": name, "state": "absent"} for pool, name in (("nfs", "shared.raw"), ("ceph", "cloud"))
        ]
        for volume in gone:
            ran = fleet.play("storage", "--limit", "hv1", storage_pools=[], storage_volumes=[volume])
            assert (ran.status, ran.changed["hv1"]) == (2, 0)
            assert "QEMU" in ran.output or "open at" in ran.output
    finally:
        on("hv2", "virsh destroy web")


def test_nothing_differs(fleet: Fleet) -> None:
    ran = fleet.play("drift")
    assert ran.status == 0
    assert "2 hosts, 2 clean, 0 drifted, 0 unknown" in ran.output


def test_a_disk_that_is_wrong_is_refused_before_anything_is_written(fleet: Fleet) -> None:
    """One disk is not there, and one has a file system."""
    on(BARE, f"mkfs.ext4 -q -F {FILLED}")
    before = on(BARE, "lsblk -nro NAME,FSTYPE,SIZE")
    for disk, words in ((f"{BY_ID}NONE", "not there"), (FILLED, "ext4")):
        ran = fleet.play("prepare", "--limit", BARE, disks={**DISKS, "lvm": [*DISKS["lvm"], disk]})
        assert ran.status == 2
        assert disk in ran.output and words in ran.output
    assert on(BARE, "lsblk -nro NAME,FSTYPE,SIZE") == before
    on(BARE, f"wipefs -aq {FILLED}")


@pytest.mark.parametrize("host", HYPERVISORS)
def test_a_reboot_brings_everything_back(fleet: Fleet, host: str) -> None:
    boot = on(host, "cat /proc/sys/kernel/random/boot_id")
    on(host, "systemctl reboot --no-block")
    until(lambda: on(host, "cat /proc/sys/kernel/random/boot_id") != boot, 300)
    on(host, f"date -s @{int(time.time())} >/dev/null")
    until(lambda: check_storage(host), 180)


def test_the_way_back(fleet: Fleet) -> None:
    """What was made for the pools goes with them, where its data are given up by name."""
    gone = []
    for pool in fleet.declared["storage_pools"]:
        given_up = {key: {**item, "delete_data": True} for key, item in pool.get("prepare", {}).items() if key in DISKS}
        local = {"delete_data": True} if pool["type"] in ("dir", "logical", "zfs") and not pool.get("shared") else {}
        gone.append({**pool, **local, "state": "absent", "prepare": {**pool.get("prepare", {}), **given_up}})
    ran = fleet.play("storage", storage_pools=gone, storage_volumes=[])
    assert ran.status == 0
    for host in HYPERVISORS:
        assert on(host, "virsh --quiet pool-list --all --name") == ""
        assert on(host, "zpool list -H -o name") == ""
        assert not {"local"} & lines(host, "vgs --noheadings -o vg_name")
        assert on(host, "findmnt --noheadings --list -o TARGET -t btrfs,nfs4,cifs || true") == ""
        assert on(host, "iscsiadm -m session 2>&1 || true") == "iscsiadm: No active sessions."
        assert on(host, "multipath -ll san0") == ""
    again = fleet.play("storage", storage_pools=gone, storage_volumes=[])
    assert (again.status, again.changed) == (0, dict.fromkeys(HYPERVISORS, 0))


def until(ready: Any, seconds: float) -> None:
    """Ask until the answer is yes; the last question's own words where it never is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
            assert time.monotonic() < deadline, "it is not so"
        except (AssertionError, subprocess.TimeoutExpired):
            if time.monotonic() > deadline:
                raise
        time.sleep(2)
