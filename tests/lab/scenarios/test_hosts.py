# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three hosts at once, restored from what was frozen: each is a host of its own, and a killed run leaves none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.folder import ROOT, place
from tests.lab.scenarios.outside import inventory, names, on
from tests.servers.sweep import Journal, alive, claim

ADDRESSES = {"hv1": "10.77.0.11", "hv2": "10.77.0.12", "storage": "10.77.0.13"}

# What tells one host from another, each by a command of its own.
IDENTITY = {
    "name": "hostname",
    "machine id": "cat /etc/machine-id",
    "host id": "hostid",
    "MAC address": "cat /sys/class/net/eth1/address",
    "initiator": "grep ^InitiatorName /etc/iscsi/initiatorname.iscsi",
    "ssh host key": "ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key",
    "libvirt's host": "virsh --quiet capabilities | grep -m1 '<uuid>'",
}


def test_three_hosts_are_up() -> None:
    assert names() == sorted(ADDRESSES)


# the first question to libvirt takes a minute on three emulated hosts
SLOW = {"libvirt's host": pytest.mark.long}


@pytest.mark.parametrize("what", [pytest.param(what, marks=SLOW.get(what, ())) for what in IDENTITY])
def test_nothing_of_an_identity_is_shared(what: str) -> None:
    found = {name: on(name, IDENTITY[what]) for name in names()}
    assert len(set(found.values())) == len(found), found
    assert all(found.values()), found


def test_their_clocks_are_right() -> None:
    for name in names():
        assert abs(int(on(name, "date +%s")) - time.time()) < 10


def test_they_reach_each_other_and_nobody_else() -> None:
    for name in names():
        for other, address in ADDRESSES.items():
            on(name, f"ping -c1 -W5 -q {address}")
            assert on(name, f"getent ahostsv4 {other} | head -n1").startswith(address)
        assert on(name, "ip route show default") == ""


def test_root_of_one_host_reaches_the_others() -> None:
    assert on("hv1", "ssh storage hostname") == "storage"


def test_a_killed_run_leaves_nothing_behind() -> None:
    """A run is killed while its host is up; the next claims the same place and finds what is left."""
    script = (
        "import sys, time; from tests.lab.hosts import Lab; lab = Lab()\n"
        "hosts = lab.hosts('killed', (('hv3', 'hypervisor'),)).__enter__()\n"
        "print(lab.root, hosts.guests['hv3'].pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    root, pid = run.stdout.readline().split()
    processes = [one for journal in Path(root).glob("**/journal") for one in Journal(journal.parent).processes()]
    assert int(pid) in [one.pid for one in processes]
    assert all(map(alive, processes))
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    claim(place("run")).release()
    assert not any(map(alive, processes))
    assert Path(root).resolve() != inventory().parents[1], "it had a place of its own"
