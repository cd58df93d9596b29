# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several controllers at once on one host: they take turns, and together lead where one would have led."""

from __future__ import annotations

import copy
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import connected, mutable, run
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.integration.layouts import model
from tests.servers.libvirtd import Libvirtd

from .cases import KEYS, layout
from .kill import finish, locks_wanted_by, start, wait_until
from .test_kill_points import Site

ROUNDS = 12 if SOAK else 3


@pytest.fixture
def site(fresh_hypervisor: Libvirtd, scratch: Path) -> Iterator[Site]:
    yield Site(fresh_hypervisor, scratch)
    mutable(scratch)


def declared(root: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """Pools with a base and its overlays each, and a secret that all controllers know."""
    pools = [{"type": "dir", "name": name, "path": f"{root}/{name}", "autostart": True} for name in names]
    volumes: list[dict[str, Any]] = []
    for name in names:
        volumes += [
            {
                "pool": name,
                "name": "web1",
                "backing": {"volume": "base", "format": "qcow2"},
                "capacity": "4MiB",
                **changes,
            },
            {"pool": name, "name": "base", "format": "qcow2", "capacity": "1MiB", "immutable": True},
            {"pool": name, "name": "full.raw", "capacity": "1MiB", "preallocation": "full"},
            *({"pool": name, "name": f"disk{number}", "format": "qcow2", "capacity": "1MiB"} for number in range(4)),
        ]
    return layout([{"usage": "ceph", "usage_name": "client.vms", "value": KEYS[0], "private": True}], pools, volumes)


# Layouts that controllers have at the same time: the same one, overlapping ones, and ones that share nothing.
TOGETHER = {
    "two with one layout": [("a", "b"), ("a", "b")],
    "four with one layout": [("a",)] * 4,
    "three that overlap": [("a", "b"), ("b", "c"), ("c", "a")],
    "two that share nothing but a secret": [("a",), ("b",)],
}


@pytest.mark.parametrize("name", TOGETHER)
def test_controllers_at_once(name: str, site: Site, pytestconfig: pytest.Config) -> None:
    uri, layouts = site.hypervisor.uri, [declared(site.root, *names) for names in TOGETHER[name]]
    chance = random.Random(f"{SEED} {name}")
    site.wipe()
    for one in layouts:
        assert not site.run(one).get("failed")
    wanted = site.read()
    for turn in range(ROUNDS):
        site.wipe()
        bystanders = site.bystanders()
        children = []
        for one in layouts:
            children.append(start("layout", {"uri": uri, **copy.deepcopy(one)}))
            time.sleep(chance.choice([0, 0, 0.02, 0.05]))
        for child in children:
            ended = finish(*child)
            assert ended.result is not None
            assert not ended.result.get("failed"), f"{name}, round {turn}: {ended.result['msg']}"
        for one in layouts:
            again = site.run(one)
            assert (again.get("failed"), again["changed"]) == (None, False), again
        there = site.read()
        assert {key: there[key] for key in wanted if there[key] != wanted[key]} == {}
        site.no_remains()
        assert site.bystanders() == bystanders
    site.wipe()
    tell(pytestconfig, f"controllers at once, {name}: {len(layouts) * ROUNDS}")


def test_growth_by_two_that_want_different_sizes(site: Site) -> None:
    """The smaller size comes too late or first; nothing ever shrinks."""
    uri = site.hypervisor.uri
    for first, second in (("8MiB", "16MiB"), ("16MiB", "8MiB")):
        site.wipe()
        assert not site.run(declared(site.root, "a")).get("failed")
        children = [
            start("layout", {"uri": uri, **declared(site.root, "a", capacity=capacity, format="qcow2")})
            for capacity in (first, second)
        ]
        codes = {ended.result.get("code") for ended in (finish(*child) for child in children) if ended.result}
        assert codes <= {None, "would_shrink"}
        with connected(uri) as conn:
            assert model.read(conn, site.root).files[f"{site.root}/a/web1"].capacity == 16 << 20


def test_busy_after_the_time_that_was_given(site: Site) -> None:
    """Who holds the lock is waited for; who does not get it says so, and has changed nothing."""
    site.wipe()
    uri, wanted = site.hypervisor.uri, declared(site.root, "a")
    # stopped where it has changed something for the first time, and so holds the locks
    holder = start("layout", {"uri": uri, **wanted}, 1, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    os.waitid(os.P_PID, holder[0], os.WSTOPPED)
    for module, arguments in (
        ("layout", wanted),
        ("pool_dir", {"name": "a", "path": f"{site.root}/a"}),
        ("secret", {"usage": "ceph", "usage_name": "client.vms"}),
    ):
        refused = run(module, {"uri": uri, **arguments, "lock_timeout": 0})
        assert (refused.get("failed"), refused["code"], refused["actions"]) == (True, "busy", []), refused
        assert "lock_timeout" in refused["msg"]
    assert not run("pool_dir", {"uri": uri, "name": "b", "path": f"{site.root}/b", "lock_timeout": 0}).get("failed")
    os.kill(holder[0], signal.SIGKILL)
    finish(*holder)
    assert not run("layout", {"uri": uri, **wanted, "lock_timeout": 0}).get("failed"), "a dead run holds its locks"


def test_what_was_seen_before_the_lock_is_looked_at_again(site: Site) -> None:
    """One run waits while another makes the very pool that it has not seen yet."""
    site.wipe()
    uri = site.hypervisor.uri
    wanted = layout(pools=[{"type": "dir", "name": "a", "path": f"{site.root}/a"}])
    holder = start("layout", {"uri": uri, **wanted}, 0, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    os.waitid(os.P_PID, holder[0], os.WSTOPPED)
    waiting = start("layout", {"uri": uri, **wanted, "prune": True})
    wait_until(lambda: locks_wanted_by(waiting[0]))
    os.kill(holder[0], signal.SIGCONT)
    first, second = finish(*holder).result, finish(*waiting).result
    assert first and first["changed"] and not first.get("failed"), first
    assert second and not second.get("failed"), second["msg"]
    assert not second["changed"], second
