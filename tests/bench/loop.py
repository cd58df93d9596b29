# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A loop over community.libvirt.virt_volume: some items are timed, the rest is extrapolated in its favour.

Every item of a loop is a module run of its own, so its cost does not depend on how many there are. That is shown by
the two halves of the items, and the cheaper half is what the items that were not run are charged with.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from .controller import Run, Tasks
from .host import Host
from .measure import Row, steady

XML = """\
<volume>
  <name>{{ item.name }}</name>
  <capacity unit='GiB'>1</capacity>
  <allocation>0</allocation>
  <target><format type='qcow2'/><compat>1.1</compat></target>
</volume>"""


def tasks(host: Host) -> Tasks:
    arguments = {"uri": host.uri, "pool": "{{ item.pool }}", "state": "present", "xml": XML}
    return [{"name": "loop", "community.libvirt.virt_volume": arguments, "loop": "{{ volumes }}"}]


@dataclass(frozen=True)
class Loop:
    run: Run

    @property
    def halves(self) -> tuple[float, float]:
        """Seconds an item, of the first and of the second half."""
        items = self.run.tasks[0]["items"]
        middle = len(items) // 2
        return statistics.median(items[:middle]), statistics.median(items[middle:])

    def seconds(self, count: int) -> float:
        """What so many items would take from end to end."""
        return self.run.seconds + (count - len(self.run.tasks[0]["items"])) * min(self.halves)


def measured(host: Host, items: list[dict[str, Any]], changed: bool) -> Loop:
    variables = host.controller.write("loop.yml", {"volumes": items})
    return Loop(host.controller.play(tasks(host), variables=variables, changed=changed))


def linear(loops: list[Loop], required: str) -> Row:
    """The second half of the items against the first."""
    first, second = (statistics.median(loop.halves[half] for loop in loops) for half in (0, 1))
    count = len(loops[0].run.tasks[0]["items"])
    return steady(f"that loop is linear: its first {count // 2} items; the rest of {count}", first, second, required)
