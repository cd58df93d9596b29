# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pool_dir task that has nothing to change."""

from __future__ import annotations

from typing import Any

from .host import Host
from .measure import Row, pairs, times_the_cost

POOL = "one"


def run(host: Host, quick: bool) -> list[Row]:
    repeat = 6 if quick else 30
    arguments = {key: value for key, value in host.pool(POOL).items() if key != "type"}
    ours = {"name": "pool_dir", "kvm.storage.pool_dir": {"uri": host.uri, **arguments}}
    theirs = {"name": "no-op", "ansible.legacy.noop_imports": {"uri": host.uri, **arguments}}
    try:
        host.make_pool(POOL)
        # In one playbook by turns: its start, which costs more than either and the same for both, is left out.
        tasks = host.controller.play([ours, theirs] * repeat, changed=False).tasks
        whole = pairs(1 if quick else 3, lambda: alone(host, ours), lambda: alone(host, theirs))
    finally:
        host.drop_pool(POOL)
    seconds = {name: [task["seconds"] for task in tasks if task["name"] == name] for name in ("pool_dir", "no-op")}
    what = "one unchanged pool_dir task; a no-op module that imports libvirt and lxml"
    return [
        times_the_cost(what, seconds["pool_dir"], seconds["no-op"], "at most 1.25"),
        times_the_cost("a playbook of that one task; one of that no-op", *whole),
    ]


def alone(host: Host, task: dict[str, Any]) -> float:
    return host.controller.play([task], changed=False).seconds
