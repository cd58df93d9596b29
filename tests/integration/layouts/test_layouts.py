# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random layouts on a real libvirt against a model: check mode predicts, the run leads there, a second does nothing.

Then another random layout, with growth, removals and prune, is converged to from there.
"""

from __future__ import annotations

import copy
import os
from itertools import zip_longest
from pathlib import Path
from pprint import pformat
from typing import Any

import libvirt
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.integration.helpers import run
from tests.integration.inputs.counts import SEED, SOAK, tell
from tests.servers.libvirtd import Libvirtd

from .generate import layouts
from .model import Host, read, wipe

PARTS = 10  # of the count, for two workers
LAYOUTS = 2000 if SOAK else 520
PAIR = 2  # layouts in each example


def same_diff(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    for left, right in zip_longest(one, other):
        if left != right:
            pytest.fail(f"predicted {pformat(left)}\nand did {pformat(right)}")


def same_host(there: Host, wanted: Host, why: str) -> None:
    found = there.unlike(wanted)
    if found:
        pytest.fail(f"{why}; what is there and what should be:\n{pformat(found)}")


def nothing(result: dict[str, Any]) -> None:
    assert not result.get("failed"), result["msg"]
    assert (result["changed"], result["actions"]) == (False, []), result


def converge(hypervisor: Libvirtd, layout: dict[str, Any], host: Host, root: Path, conn: libvirt.virConnect) -> Host:
    """Predict, compare, run, compare, run again; give back the host that is there now."""
    given_as = copy.deepcopy(layout)
    arguments = {"uri": hypervisor.uri, **layout, "return_all": True}
    ahead = host.after(layout)

    predicted = run("layout", arguments, check=True)
    assert not predicted.get("failed"), predicted["msg"]
    assert predicted["changed"] == bool(predicted["actions"])
    same_host(read(conn, root), host, "check mode changed the host")

    done = run("layout", arguments)
    assert not done.get("failed"), done["msg"]
    assert done["actions"] == predicted["actions"]
    assert [one["status"] for one in done["outcomes"]] == [one["status"] for one in predicted["outcomes"]]
    assert done["plan"] == predicted["plan"]
    same_diff(predicted.get("diff", []), done.get("diff", []))
    same_host(read(conn, root), ahead, "the run led elsewhere")
    assert done["changed"] == (host != ahead)

    again = run("layout", arguments)
    nothing(again)
    same_host(read(conn, root), ahead, "the second run changed the host")
    assert given_as == layout
    return ahead


def replay(hypervisor: Libvirtd, host: Host, root: Path, conn: libvirt.virConnect) -> None:
    """What layout_info says of the host, layout finds there."""
    told = run("layout_info", {"uri": hypervisor.uri})
    assert not told.get("failed"), told["msg"]
    assert {one["name"] for one in told["layout"]["pools"]} == set(host.pools)
    assert {(one["usage"], one["usage_name"]) for one in told["layout"]["secrets"]} == set(host.secrets)
    active = {one.path for one in host.pools.values() if one.active}
    seen = {path for path in host.files if path.rpartition("/")[0] in active}
    paths = {name: one.path for name, one in host.pools.items()}
    assert {f"{paths[one['pool']]}/{one['name']}" for one in told["layout"]["volumes"]} == seen
    for check in (True, False):
        again = run("layout", {"uri": hypervisor.uri, **told["layout"]}, check=check)
        nothing(again)
    same_host(read(conn, root), host, "the replay changed the host")


@pytest.mark.parametrize("part", range(PARTS))
def test_random_layouts(
    part: int, fresh_hypervisor: Libvirtd, conn: libvirt.virConnect, scratch: Path, pytestconfig: pytest.Config
) -> None:
    count = 0

    @seed(SEED + part)
    @settings(
        max_examples=LAYOUTS // PAIR // PARTS,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink] if os.environ.get("KVM_STORAGE_SHRINK") else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def pair(data: st.DataObject) -> None:
        nonlocal count
        wipe(conn, scratch)
        host = Host()
        for _each in range(PAIR):
            layout = data.draw(layouts(scratch, host))
            host = converge(fresh_hypervisor, layout, host, scratch, conn)
            count += 1
        replay(fresh_hypervisor, host, scratch, conn)

    try:
        pair()
    finally:
        wipe(conn, scratch)
    tell(pytestconfig, f"layouts, part {part}: {count}")
    assert count >= LAYOUTS // PARTS


def test_bases_grow_together_with_their_overlays(
    fresh_hypervisor: Libvirtd, conn: libvirt.virConnect, scratch: Path
) -> None:
    """qemu-img locks the whole chain of what it grows, and overlays that do not name their base here have it open."""
    pool = {"type": "dir", "name": "images", "path": f"{scratch}/images"}
    base = {"pool": "images", "name": "base", "format": "qcow2"}
    overlays = [{"pool": "images", "name": f"web{number}", "format": "qcow2"} for number in range(7)]
    on_base = [{**one, "backing": {"volume": "base", "format": "qcow2"}} for one in overlays]
    layout = {"uri": fresh_hypervisor.uri, "pools": [pool]}
    made = run("layout", {**layout, "volumes": [{**base, "capacity": "1MiB"}, *on_base]})
    assert not made.get("failed"), made["msg"]
    for capacity in ("2MiB", "4MiB", "8MiB"):
        volumes = [{**one, "capacity": capacity} for one in [*overlays[:3], base, *overlays[3:]]]
        grown = run("layout", {**layout, "volumes": volumes})
        assert not grown.get("failed"), grown["msg"]
        assert {one.capacity for one in read(conn, scratch).files.values()} == {int(capacity[0]) << 20}
