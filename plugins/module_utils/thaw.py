# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest whose file systems are frozen is thawed, also when the run that froze them is killed.

A process of its own waits at a pipe. Where that ends without a word, the run has ended too, and the guest is thawed.
"""

from __future__ import annotations

import contextlib
import os
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
    reading, writing = os.pipe()
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, reading, 0), *silent]
    argv = [sys.executable, "-c", PROGRAM, uri, uuid]
    # in a session of its own: what is killed as a group does not take it along
    watcher = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
    os.close(reading)
    words: list[str] = []
    try:
        yield lambda: words.append(THAWED)
    finally:
        with contextlib.suppress(OSError):  # it is gone, and nothing is left to tell it
            os.write(writing, "".join(words[:1]).encode())
        os.close(writing)
        os.waitpid(watcher, 0)
