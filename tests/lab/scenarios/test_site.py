# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole story: hosts, one of them bare, become hypervisors with local and shared storage by one playbook.

It is the example of docs/example-fleet, run from the built collection beside nothing but what it declares to need. The
tests stand on each other, in this order.
"""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any

import pytest

from tests.lab.scenarios.fleet import DISKS, Fleet, check_storage, check_wrong_disks, lines
from tests.lab.scenarios.outside import names, on
from tests.servers.guest import disk_xml, domain_xml

BARE = "hv1"
HYPERVISORS = ("hv1", "hv2")
FORMS = {"nfs": "file", "san": "block"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def test_check_mode_on_a_bare_host_says_what_it_can_not_predict(fleet: Fleet) -> None:
    assert names() == ["hv1", "hv2", "storage"]
    ran = fleet.play("site", "--check", "--limit", BARE)
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
    assert set(ran.changed) == set(HYPERVISORS)
    assert all(number > 0 for number in ran.changed.values())


def test_again_and_nothing_changes(fleet: Fleet) -> None:
    ran = fleet.play("site")
    assert ran.changed == dict.fromkeys(HYPERVISORS, 0)


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
            ran = fleet.play("storage", "--limit", "hv1", status=2, storage_pools=[], storage_volumes=[volume])
            assert ran.changed["hv1"] == 0
            assert "QEMU" in ran.output or "open at" in ran.output
    finally:
        on("hv2", "virsh destroy web")


def test_nothing_differs(fleet: Fleet) -> None:
    ran = fleet.play("drift")
    assert "2 hosts, 2 clean, 0 drifted, 0 unknown" in ran.output


def test_a_disk_that_is_wrong_is_refused_before_anything_is_written(fleet: Fleet) -> None:
    check_wrong_disks(fleet, BARE)


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
    fleet.play("storage", storage_pools=gone, storage_volumes=[])
    for host in HYPERVISORS:
        assert on(host, "virsh --quiet pool-list --all --name") == ""
        assert on(host, "zpool list -H -o name") == ""
        assert not {"local"} & lines(host, "vgs --noheadings -o vg_name")
        assert on(host, "findmnt --noheadings --list -o TARGET -t btrfs,nfs4,cifs || true") == ""
        assert on(host, "iscsiadm -m session 2>&1 || true") == "iscsiadm: No active sessions."
        assert on(host, "multipath -ll san0") == ""
    again = fleet.play("storage", storage_pools=gone, storage_volumes=[])
    assert again.changed == dict.fromkeys(HYPERVISORS, 0)


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
