# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of simulated hosts, each a libvirtd of its own, converged from one controller.

What is compared is processor time: that of ansible-playbook and of the modules, which run on the controller here. The
daemons' own is not in it. The hosts that the tasks of community.libvirt are run on are fewer, since what one of them
costs does not depend on the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers.libvirtd import Libvirtd

from .controller import INTERPRETER, Tasks
from .host import CAPACITY, Host
from .loop import XML
from .measure import Row, times_as_fast
from .sequential import POOL

POOLS, VOLUMES = ("images", "scratch", "iso"), 20
RECAP = re.compile(r"^(h\d+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=0\s+failed=0", re.MULTILINE)
FORKS = 4


@contextlib.contextmanager
def fleet(root: Path, count: int) -> Iterator[list[Libvirtd]]:
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(Libvirtd(root / f"h{number:03d}")) for number in range(count)]


def ours() -> Tasks:
    """One task, whatever is declared."""
    pools = [
        {"type": "dir", "name": name, "path": f"{{{{ folder }}}}/{name}", "autostart": True, "build": "if_blank"}
        for name in POOLS
    ]
    volumes = [{"pool": "images", "name": "v%02d.qcow2", "count": VOLUMES, "capacity": CAPACITY, "format": "qcow2"}]
    layout = {"uri": "{{ uri }}", "pools": pools, "volumes": volumes}
    return [{"name": "layout", "kvm.storage.layout": layout}]


def theirs() -> Tasks:
    """What one writes today: a directory and three states for each pool, and a loop over the volumes."""
    pool = {"uri": "{{ uri }}", "name": "{{ item }}"}
    volumes = [{"name": f"v{number:02d}.qcow2", "pool": "images"} for number in range(VOLUMES)]
    virt_pool = "community.libvirt.virt_pool"
    xml = POOL.format("{{ item }}", "{{ folder }}/{{ item }}")
    volume = {"uri": "{{ uri }}", "pool": "images", "state": "present", "xml": XML}
    return [
        {"name": "directories", "ansible.builtin.shell": "mkdir -p {{ folder }}/{{ item }}", "loop": [*POOLS],
         "args": {"creates": "{{ folder }}/{{ item }}"}},
        {"name": "define", virt_pool: {**pool, "command": "define", "xml": xml}, "loop": [*POOLS]},
        {"name": "start", virt_pool: {**pool, "state": "active"}, "loop": [*POOLS]},
        {"name": "autostart", virt_pool: {**pool, "autostart": True}, "loop": [*POOLS]},
        {"name": "volumes", "community.libvirt.virt_volume": volume, "loop": volumes},
    ]  # fmt: skip


def processor_time(host: Host, servers: list[Libvirtd], tasks: Tasks, changed: bool) -> float:
    """The seconds of processor time for each host, of a run that must change all of them, or none."""
    variables = {"ansible_connection": "local", "ansible_python_interpreter": INTERPRETER}
    hosts = {f"h{number}": {"uri": server.uri, "folder": str(server.shared)} for number, server in enumerate(servers)}
    folder = host.controller.folder
    inventory = folder / "fleet.json"
    inventory.write_text(json.dumps({"all": {"vars": variables, "hosts": hosts}}), encoding="utf-8")
    playbook = host.controller.write("fleet.yml", [{"hosts": "all", "gather_facts": False, "tasks": tasks}])
    environment = host.controller.environment(folder / "unused")
    del environment["ANSIBLE_CALLBACKS_ENABLED"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["ansible-playbook", "-f", str(FORKS), "-i", str(inventory), playbook],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {name: int(number) for name, number in RECAP.findall(done.stdout)}
    if done.returncode or len(found) != len(servers) or {number > 0 for number in found.values()} != {changed}:
        raise RuntimeError(f"the playbook did something else:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used / len(servers)


def run(host: Host, quick: bool) -> list[Row]:
    many, few = (8, 4) if quick else (100, 10)
    root = Path(os.path.dirname(host.server.root)) / "fleet"
    times: dict[tuple[str, bool], float] = {}
    with fleet(root, many) as servers:
        for changed in (True, False):
            times["ours", changed] = processor_time(host, servers, ours(), changed)
        for server in servers[:few]:
            server.reset()
        for changed in (True, False):
            times["theirs", changed] = processor_time(host, servers[:few], theirs(), changed)
    work = f"{len(POOLS)} pools and {VOLUMES} volumes"
    return [
        times_as_fast(
            f"processor time a host, {what} run, {work} on each of {many} hosts; as tasks, on {few}",
            [times["ours", changed]],
            [times["theirs", changed]],
            "" if quick else "at least 10",  # of few hosts, each pays for the start of ansible-playbook
        )
        for what, changed in (("first", True), ("unchanged", False))
    ]
