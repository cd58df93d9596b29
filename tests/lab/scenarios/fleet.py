# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet of docs/example-fleet with this lab's hosts, disks and passwords, and what other tools show of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.lab.folder import ROOT
from tests.lab.scenarios.outside import inventory, on

FETCHED = ROOT / ".cache/collections/ansible_collections"
RECAP = re.compile(r"^(\w+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
BY_ID = "/dev/disk/by-id/virtio-LAB"
DISKS = {"lvm": [f"{BY_ID}VDB"], "zfs": [f"{BY_ID}VDC"], "btrfs": [f"{BY_ID}VDD"]}
FILLED = "/dev/disk/by-id/wwn-0x5000c50015ea71aa"  # a disk that a test puts a file system on
POOLS = {"images", "local", "tank", "btrfs", "nfs", "nfs-by-the-host", "cifs", "san", "ceph"}


class Ran(NamedTuple):
    """What a playbook did."""

    output: str
    changed: dict[str, int]


class Fleet:
    """The example on this lab's hosts, with the collection as Galaxy would install it."""

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

    def play(self, name: str, *options: str, status: int = 0, **variables: Any) -> Ran:
        """Run a playbook of the collection, which ends with the given status; variables are those of every host."""
        more = ["-e", json.dumps(variables)] if variables else []
        began = time.monotonic()
        done = self.run(
            "ansible-playbook", f"kvm.storage.{name}", "-i", str(inventory()), "-i", "fleet", *options, *more
        )
        said = done.stdout + done.stderr
        print(f"{name} {options}: {time.monotonic() - began:.0f} s\n{said[-20000:]}")
        for secret in self.secrets:
            assert secret not in said
        failed = [line[:2000] for line in said.splitlines() if line.startswith(("fatal:", "failed:"))]
        assert done.returncode == status, "\n".join(failed)
        return Ran(said, {host: int(changed) for host, _ok, changed, *_rest in RECAP.findall(said)})


def lines(host: str, command: str) -> set[str]:
    return {line.strip() for line in on(host, command).splitlines() if line.strip()}


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


LOOK = f"lsblk -nro NAME,FSTYPE,SIZE {' '.join(disk for some in DISKS.values() for disk in some)} {FILLED}"


def check_wrong_disks(fleet: Fleet, host: str) -> None:
    """One disk is not there, and one has a file system: each is refused before anything is written."""
    on(host, f"mkfs.ext4 -q -F {FILLED}")
    before = on(host, LOOK)
    for disk, words in ((f"{BY_ID}NONE", "not there"), (FILLED, "ext4")):
        ran = fleet.play("prepare", "--limit", host, status=2, disks={**DISKS, "lvm": [*DISKS["lvm"], disk]})
        assert disk in ran.output and words in ran.output
    assert on(host, LOOK) == before
    on(host, f"wipefs -aq {FILLED}")
