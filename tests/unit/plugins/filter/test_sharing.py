# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters of shared pools: which are compared, and what speaks against trusting them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.sharing import shared_pools, sharing

GROUPS = {"all": ["kvm01", "kvm02", "kvm03"], "fast": ["kvm02"]}


def test_pools_in_use_that_say_so_are_shared() -> None:
    pools = [
        {"type": "rbd", "name": "vms", "shared": True},
        {"type": "netfs", "name": "iso", "shared": "site-a"},
        {"type": "netfs", "name": "old", "shared": True, "state": "inactive"},
        {"type": "netfs", "name": "away", "shared": True, "disabled": True},
        {"type": "dir", "name": "own", "shared": False},
        {"type": "rbd", "name": "fast", "shared": True, "only_on": "fast"},
    ]
    assert shared_pools(pools, "kvm01", GROUPS) == {"vms": True, "iso": "site-a"}
    assert shared_pools(pools, "kvm02", GROUPS) == {"vms": True, "iso": "site-a", "fast": True}
    with pytest.raises(AnsibleFilterError, match="a list of pools"):
        shared_pools("vms", "kvm01", GROUPS)


def host(identity: str | None, word: Any = True, manager: str | None = "lockd", **facts: Any) -> dict[str, Any]:
    pool = {"name": "vms", "type": "logical", "identity": identity, "identity_unknown": "it is not active", **facts}
    return {"shared": {"vms": word}, "found": {"pools": [pool], "lock_manager": manager}}


CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the same": ({"a": host("group 1"), "b": host("group 1")}, []),
    "not the same": (
        {"a": host("group 1"), "b": host("group 2"), "c": host("group 1")},
        ["'vms' is declared shared and is not the same storage: a, c: group 1; b: group 2"],
    ),
    "two sites": ({"a": host("group 1", "here"), "b": host("group 2", "there")}, []),
    "vouched for": ({"a": host("group 1", "unproven"), "b": host(None, "unproven")}, []),
    "not told": (
        {"a": host("group 1"), "b": host(None)},
        ["b: which storage pool 'vms' stands on can't be told"],
    ),
    "a host that was not asked": ({"a": host("group 1"), "b": {}}, []),
    "not made yet": ({"a": {"shared": {"vms": True}, "found": {"pools": []}}, "b": host("group 1")}, []),
    "no locks": (
        {"a": host("group 1", manager=None), "b": host("group 1")},
        ["a: pool 'vms' is shared, and no lock"],
    ),
    "no locks, though vouched for": ({"a": host("group 1", "unproven", manager=None)}, ["no lock manager"]),
    "Ceph locks by itself": ({"a": host("Ceph cluster 1", manager=None, type="rbd")}, []),
    "files on NFS": ({"a": host("NFS file system 1:0", manager=None, type="dir")}, ["no lock manager"]),
    "files on CephFS": ({"a": host("ceph file system 1", manager=None, type="dir")}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_what_speaks_against_trust(case: str) -> None:
    hosts, expected = CASES[case]
    found = sharing(hosts)
    assert len(found) == len(expected), found
    assert all(words in line for words, line in zip(expected, found)), found
