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
    waiting, begun = os.pipe()  # its end closes when the other program begins
    argv = [sys.executable, "-c", PROGRAM, uri, uuid]
    watcher = os.fork()
    if watcher == 0:
        become(argv, reading)
    os.close(reading)
    os.close(begun)
    os.read(waiting, 1)  # until then it would be killed with this group, and the guest stay frozen
    os.close(waiting)
    words: list[str] = []
    try:
        yield lambda: words.append(THAWED)
    finally:
        with contextlib.suppress(OSError):  # it is gone, and nothing is left to tell it
            os.write(writing, "".join(words[:1]).encode())
        os.close(writing)
        os.waitpid(watcher, 0)


def become(argv: list[str], source: int) -> None:
    """Be another program that reads a descriptor and says nothing, in a session of its own.

    What is killed as a group does not take it along. AnsibleModule.run_command would wait for its end.
    """
    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        for target, number in ((source, 0), (silence, 1), (silence, 2)):
            os.dup2(target, number)
        os.execv(argv[0], argv)
    finally:
        os._exit(127)
