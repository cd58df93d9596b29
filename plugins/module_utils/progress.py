# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far a long step has come: a small file that whoever started the module reads meanwhile.

The action plugin names it by the environment, so that the module's options, and its result, know nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from typing import Callable

VARIABLE, FOLDER = "KVM_STORAGE_PROGRESS", "ANSIBLE_ASYNC_DIR"
SECONDS = 1.0  # between two looks


class Report:
    """What is told: bytes done, of a total where it is known (else None), in a step."""

    def __init__(self, path: str, step: str, total: int | None) -> None:
        self.path, self.step, self.total, self.done = path, step, total, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def tick(self, count: int) -> None:
        """So many bytes more."""
        self.done += count

    def work(self) -> None:
        self.write()
        while not self.ended.wait(SECONDS):
            self.write()

    def write(self) -> None:
        """Progress that can't be told is no reason to fail."""
        found = {"pid": os.getpid(), "step": self.step, "done": self.done, "total": self.total}
        temporary = f"{self.path}.tmp"
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                os.write(descriptor, json.dumps(found).encode())
            finally:
                os.close(descriptor)
            os.rename(temporary, self.path)


def path() -> str:
    """Where progress is to be told; empty where nobody asks."""
    name, folder = os.environ.get(VARIABLE, ""), os.environ.get(FOLDER, "")
    if not folder or not re.fullmatch(r"[0-9a-f]{16,64}", name):
        return ""
    return os.path.join(os.path.expanduser(folder), f"kvm.storage-{name}")


@contextlib.contextmanager
def told(step: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Tell of a step while it lasts; the function takes the bytes that were done since it was last called."""
    where = path()
    if not where:
        yield lambda count: None
        return
    report = Report(where, step, total)
    report.thread.start()
    try:
        yield report.tick
    finally:
        report.ended.set()
        report.thread.join()
        for name in (f"{where}.tmp", where):
            with contextlib.suppress(OSError):
                os.unlink(name)
