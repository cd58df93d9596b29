# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of hosts that are kept frozen, and the scenarios that run inside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .guest import State

HERE = Path(__file__).resolve().parent

# What the first use of a host would pay for: daemons, modules of the kernel, Python's own.
WARM = """
modprobe -a dm_thin_pool dm_snapshot dm_multipath dm_service_time iscsi_tcp target_core_mod xfs btrfs nfs zfs
systemctl start iscsid
virsh --quiet pool-list --all
python3 -c 'import libvirt, lxml.etree, pytest, ansible.module_utils.basic'
"""

# Debian's policy, unlike that of the RHEL family, lets libvirt make no private /dev for a guest; and guests without
# hardware virtualisation run code that they have just written.
SELINUX = """
echo 'namespaces = [ ]' >> /etc/libvirt/qemu.conf
setsebool virt_use_execmem on
"""

STATES = {
    state.name: state
    for state in (
        State("hypervisor", prepare=WARM),
        State("selinux", kernel="security=selinux enforcing=1", prepare=SELINUX + WARM),
        State("apparmor", kernel="lsm=landlock,yama,apparmor", prepare=f"systemctl start apparmor\n{WARM}"),
        State("bare", image="bare"),
        State(
            "storage",
            number=3,
            memory=3072,
            prepare="bash ./setup",
            files=tuple(sorted(path for path in (HERE / "server").glob("*") if path.is_file())),
        ),
    )
}

# name of a host: its number, which is the last digit of its address on the LAN
NUMBERS = {"hv1": 1, "hv2": 2, "storage": 3, "hv3": 4, "hv4": 5}


@dataclass(frozen=True)
class Scenario:
    """Tests of scenarios/test_NAME.py, which run on the first of its hosts, fresh ones each time.

    inside   whether they run on that host, rather than here with an inventory of the hosts
    minutes  of which it may take no more
    long     whether only `make lab-all` runs it, or who names it
    """

    name: str
    hosts: tuple[tuple[str, str], ...] = (("hv1", "hypervisor"),)  # name and state of each
    minutes: float = 15
    inside: bool = True
    long: bool = False

    @property
    def tests(self) -> str:
        return f"tests/lab/scenarios/test_{self.name}.py"


SERVED = (("hv1", "hypervisor"), ("storage", "storage"))
BARE_FLEET = (("hv1", "bare"), ("hv2", "selinux"), ("storage", "storage"))
FLEET = (("hv1", "hypervisor"), ("hv2", "hypervisor"), ("storage", "storage"))

# Those that take longest come first, so that none of them runs alone at the end.
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("site", BARE_FLEET, 40, inside=False, long=True),
        Scenario("prepared", SERVED, 25, inside=False, long=True),
        Scenario("molecule", (), 60, inside=False),
        Scenario("shared", FLEET, 20),
        Scenario("netfs", SERVED),
        Scenario("server", SERVED),
        Scenario("iscsi"),
        Scenario("logical"),
        Scenario("thin"),
        Scenario("zfs"),
        Scenario("resize_wipe"),
        Scenario("snapshots", minutes=20),
        Scenario("mpath"),
        Scenario("clones"),
        Scenario("disk"),
        Scenario("dir_fs"),
        Scenario("scsi"),
        Scenario("selinux", (("hv1", "selinux"),)),
        Scenario("apparmor", (("hv1", "apparmor"),)),
        Scenario("hosts", FLEET, inside=False),
        Scenario("bare", (("hv1", "bare"),), inside=False),
    )
}
