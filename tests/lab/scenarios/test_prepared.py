# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hypervisor and a storage server: every kind of storage of the example by one playbook, and no change by the next.

Each role that prepares hosts for the example runs twice here. test_site.py begins with bare hosts.
"""

from __future__ import annotations

import pytest

from tests.lab.scenarios.fleet import Fleet, check_storage
from tests.lab.scenarios.outside import on

HOST = "hv1"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


def test_everything_is_made(fleet: Fleet) -> None:
    ran = fleet.play("site")
    assert ran.changed[HOST] > 0
    assert check_storage(HOST)
    assert on(HOST, "stat -c %a /etc/ceph/ceph.client.vms.keyring") == "600"


def test_again_and_nothing_changes(fleet: Fleet) -> None:
    ran = fleet.play("site")
    assert ran.changed == {HOST: 0}
