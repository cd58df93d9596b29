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
    hosts: dict[str, Any] = {"localhost": {}, "other": {"host_iscsi_initiator_iqn": IQN}}
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
