# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest whose file systems are frozen is thawed, also when the run that froze them is killed.

A process of its own waits at a pipe. Where that ends without a word, the run has ended too, and the guest is thawed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Callable

THAWED = "thawed"
PROGRAM = f"""
import sys
if sys.stdin.read() != {THAWED!r}:
    import libvirt
    libvirt.open(sys.argv[1]).lookupByUUIDString(sys.argv[2]).fsThaw(None, 0)
"""


@contextlib.contextmanager
def watched(uri: str, uuid: str) -> Iterator[Callable[[], None]]:
    """Around all that a domain is frozen for; the function says that it is thawed."""
    argv = [sys.executable, "-c", PROGRAM, uri, uuid]
    nothing = subprocess.DEVNULL
    # in a session of its own: what is killed as a group does not take it along
    watcher = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, start_new_session=True, text=True
    )
    words: list[str] = []
    try:
        yield lambda: words.append(THAWED)
    finally:
        watcher.communicate("".join(words[:1]))
