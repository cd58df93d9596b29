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


# Notes when it is called while another one of it grows a volume, which then takes a while.
QEMU_IMG = """\
#!/bin/sh
[ -e {folder}/growing ] && : > {folder}/met
[ "$1" = resize ] || exec /usr/bin/qemu-img "$@"
: > {folder}/growing
sleep 0.05
/usr/bin/qemu-img "$@"
status=$?
rm {folder}/growing
exit $status
"""


def test_bases_and_their_overlays_in_other_pools_grow_in_turns(
    fresh_hypervisor: Libvirtd, conn: libvirt.virConnect, scratch: Path, tmp_path: Path
) -> None:
    """qemu-img locks the whole chain of what it grows, and overlays that do not name their base here have it open."""
    pools = [{"type": "dir", "name": name, "path": f"{scratch}/{name}"} for name in ("images", "a", "b", "c")]
    base = {"pool": "images", "name": "base", "format": "qcow2"}
    overlays = [{"pool": name, "name": "web", "format": "qcow2"} for name in ("a", "b", "c")]
    backing = {"backing": {"pool": "images", "volume": "base", "format": "qcow2"}}
    layout = {"uri": fresh_hypervisor.uri, "pools": pools}
    made = run(
        "layout", {**layout, "volumes": [{**base, "capacity": "1MiB"}, *({**one, **backing} for one in overlays)]}
    )
    assert not made.get("failed"), made["msg"]
    stand_in = fresh_hypervisor.root / "bin/qemu-img"
    stand_in.write_text(QEMU_IMG.format(folder=tmp_path), encoding="utf-8")
    stand_in.chmod(0o755)
    try:
        grown = [{**one, "capacity": "4MiB"} for one in [overlays[0], base, *overlays[1:]]]
        done = run("layout", {**layout, "volumes": grown})
    finally:
        stand_in.unlink()
    assert not done.get("failed"), done["msg"]
    assert not (tmp_path / "met").exists(), "two at once had one chain open"
    assert {one.capacity for one in read(conn, scratch).files.values()} == {4 << 20}
