# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles whose plan a filter makes: it is reached from their variables, as Ansible itself resolves them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
BTRFS: dict[str, Any] = {
    "host_btrfs_filesystems": [{"path": "/srv/vms", "devices": ["/dev/vdb", "/dev/vdc"]}],
    "host_btrfs_disks": {
        "devices": [
            {"path": "/dev/vdb", "exists": False, "node": "/dev/vdb", "ids": [], "users": []},
        ]
    },
    "host_btrfs_seen": {},
    "host_btrfs_mounts": {},
    "host_btrfs_fstab": {},
    "host_btrfs_found": {},
    "host_btrfs_flags": {},
    "host_btrfs_told": {"changed": False, "results": [], "skipped": True},
    "host_btrfs_users": {},
}
IQN = "iqn.2026-01.com.example:disks"
ISCSI: dict[str, Any] = {
    "host_iscsi_initiator_iqn": IQN,
    "host_iscsi_targets": [
        {"target_iqn": IQN, "portals": [{"name": "192.0.2.1"}], "auth": {"username": "host", "password": "secret"}}
    ],
    "host_iscsi_look": {"stdout_lines": [f"session\t4\t{IQN}/192.0.2.1,3260\t1"]},
}
MULTIPATH: dict[str, Any] = {
    "host_multipath_maps": [{"wwid": "36001405aaaa", "alias": "vms"}],
    "host_multipath_paths": {"stdout_lines": ["36001405aaaa|vms|sdb|active", "36001405aaaa|vms|sdc|failed"]},
}
MOUNTS: dict[str, Any] = {
    "host_mounts_list": [{"path": "/srv/nas", "src": "nas:/a", "fstype": "nfs", "opts": ["hard"], "guard": "false"}],
    "host_mounts_seen": {"stdout_lines": ["/etc/fstab:nas:/b /srv/nas nfs defaults 0 0"]},
}
NAS = {"path": "/srv/nas", "hosts": [{"name": "nas"}]}
CIFS: dict[str, Any] = {
    "host_cifs_mounts": [{**NAS, "share": "a", "auth": {"username": "vm", "password": "secret"}}],
    "host_cifs_qemu": {"owner": "qemu", "group": "kvm"},
    "host_cifs_seen": {
        "results": [
            {
                "item": "/srv/nas",
                "stat": {
                    "exists": True,
                    "checksum": "3825283b7e209302b3d5573bc12edef0399b62e0",
                    "mode": "0644",
                    "uid": 0,
                },
            }
        ]
    },
}
SECURITY: dict[str, Any] = {
    "host_security_directories": [{"path": "/vms", "selinux_type": "virt_content_t", "delete_data": "false"}],
    "host_security_stat": {"stdout_lines": ["/sys/fs/selinux/enforce\tregular file\t?", "/\tdirectory\ta:b:root_t:s0"]},
    "host_security_canonical": {"stdout_lines": ["/", "/data"]},
}
LIBVIRT: dict[str, Any] = {
    "libvirt_system": "Debian",
    "libvirt_pool_types": ["rbd", "iscsi_direct", "vstorage"],
    "libvirt_lock_manager": "sanlock",
    "libvirt_sanlock": {"host_id": 7, "user": ""},
    "libvirt_settings": {
        "stdout_lines": ['/etc/libvirt/qemu.conf:lock_manager = "sanlock"', "/etc/libvirt/qemu-sanlock.conf:user = 'a'"]
    },
    "libvirt_before": {"stdout": "web\n/vms       \n//<pool type='rbd' supported='yes'/>", "rc": 0},
}
# role: (variables, expressions, what they are)
ROLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "host_btrfs": (
        BTRFS,
        {
            "host_btrfs_plan.named": ["/dev/vdb", "/dev/vdc"],
            "host_btrfs_plan.problems": [
                "device /dev/vdb: is not there; ls -l /dev/disk/by-id shows those that are",
                "device /dev/vdc: is not there; ls -l /dev/disk/by-id shows those that are",
            ],
        },
    ),
    "host_iscsi": (
        ISCSI,
        {
            "host_iscsi_plan.wrong": [],
            "host_iscsi_wrong": [f"{IQN}: is the name of other too; give each host a name of its own"],
            "host_iscsi_plan.portals": [
                {"target": IQN, "portal": "192.0.2.1:3260", "startup": "automatic", "up": True},
            ],
            "host_iscsi_written.settings['node.session.initial_login_retry_max']": "1",
            "host_iscsi_written.records[0].differs": True,
            "'secret' in host_iscsi_written.records[0].input": True,
        },
    ),
    "host_mounts": (
        MOUNTS,
        {
            "host_mounts_plan.wrong": [],
            "host_mounts_plan.made": ["/srv/nas"],
            "host_mounts_plan.guarded": [],
            "host_mounts_plan.refused": [
                "/srv/nas: nas:/b is mounted there or declared in fstab, not nas:/a; give another path, or take that "
                "away first"
            ],
            # the shell's classes are in it, and nothing of YAML
            "host_mounts_line is search('^[\\^].*[)]$')": True,
        },
    ),
    "host_nfs": (
        {"host_nfs_mounts": [{**NAS, "source_path": "/a"}]},
        {"host_nfs_plan.wrong": [], "host_nfs_plan.mounts[0].src": "nas:/a"},
    ),
    "host_cifs": (
        CIFS,
        {
            "host_cifs_plan.wrong": [],
            "host_cifs_plan.written": ["/srv/nas"],
            "host_cifs_plan.owners": ["-user", "qemu", "-o", "-group", "kvm"],
            "host_cifs_logins": {"/srv/nas": "username=vm\npassword=secret\n"},
            "'secret' in host_cifs_plan | string": False,
            # its checksum is that of the module stat, and its mode is not
            "host_cifs_plan.mounts[0].stale": False,
        },
    ),
    "host_security": (
        SECURITY,
        {
            "host_security_plan.problems": [],
            "host_security_plan.obstacles": ["/vms: leads to /data; give that path"],
            "host_security_plan.contexts": [{"target": "/vms(/.*)?", "setype": "virt_content_t"}],
            "host_security_plan.labelled": ["/vms"],
        },
    ),
    "libvirt": (
        LIBVIRT,
        {
            "libvirt_plan.problems": [
                "libvirt_pool_types: this system has no package for vstorage; take them out",
                "libvirt_sanlock: host_id 7 is that of another host, too; give each host a number of its own",
            ],
            "libvirt_plan.obstacles": [
                "libvirt_lock_manager: web run, whose locks belong to the lock manager that is there; stop or migrate "
                "them, or name them in libvirt_unlocked_guests"
            ],
            "libvirt_plan.to_restart": ["libvirtd.service"],
            "libvirt_plan.lines | map(attribute='line')": ["auto_disk_leases = 1", "host_id = 7"],
            "libvirt_plan.surplus": [{"file": "qemu-sanlock.conf", "key": "user"}],
            "libvirt_plan.stay": True,
            # three slashes between four answers
            "libvirt_question.split('; echo /; ') | length": 4,
        },
    ),
    "host_multipath": (
        MULTIPATH,
        {
            "host_multipath_plan.wrong": [],
            "host_multipath_plan.unknown": ["36001405aaaa"],
            "host_multipath_plan.lacking": [
                "map vms: 2 active paths are wanted, and there are: sdb active, sdc failed; look after the portals, or "
                "correct paths"
            ],
        },
    ),
}


@pytest.mark.parametrize("role", ROLES)
def test_plan(role: str, tmp_path: Path) -> None:
    variables, wanted = ROLES[role]
    found = tmp_path / "found.json"
    words = ", ".join(wanted)
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / "roles" / role / file / "main.yml") for file in ("defaults", "vars")],
        "tasks": [
            {
                "vars": variables,
                "run_once": True,
                "ansible.builtin.copy": {"content": "{{ [" + words + "] | to_json }}", "dest": str(found)},
            }
        ],
    }
    inventory = tmp_path / "hosts.yml"
    hosts: dict[str, Any] = {
        "localhost": {},
        "other": {"host_iscsi_initiator_iqn": IQN, "libvirt_sanlock": {"host_id": 7}},
    }
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    file = tmp_path / "play.yml"
    file.write_text(json.dumps([play]), encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "-c", "local", file],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert json.loads(found.read_text(encoding="utf-8")) == list(wanted.values())
