# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bare host: nothing of storage or libvirt is on it, and what roles install is there without a network."""

from __future__ import annotations

import pytest

from tests.lab.scenarios.outside import names, on


@pytest.mark.parametrize("program", ["virsh", "lvm", "zpool", "iscsiadm", "mount.nfs", "multipath"])
def test_nothing_is_there(program: str) -> None:
    assert on("hv1", f"command -v {program}", status=1) == ""


@pytest.mark.long
def test_packages_come_from_within() -> None:
    assert names() == ["hv1"]
    on("hv1", "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y lvm2 open-iscsi >/dev/null")
    assert on("hv1", "lvm version && iscsiadm --version")
    sources = on("hv1", "apt-get indextargets --format '$(URI)' | sort -u")
    assert sources
    assert all(line.startswith("file:") for line in sources.splitlines()), sources


def test_its_kernel_has_zfs() -> None:
    on("hv1", "modprobe zfs")
    assert on("hv1", "cat /sys/module/zfs/version")
