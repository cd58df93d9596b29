# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU's monitor, as its reference manual describes it: one command, one answer, both JSON."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.process import ServerError


class Monitor:
    """A connection to the monitor of one QEMU."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self._connect(str(path), time.monotonic() + timeout)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self._read()  # the greeting
        self("qmp_capabilities")

    def _connect(self, path: str, deadline: float) -> None:
        """Its socket has a name some time before anybody listens."""
        while True:
            try:
                return self.socket.connect(path)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __call__(self, command: str, **arguments: Any) -> Any:
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while "return" not in (answer := self._read()):
            if "error" in answer:
                raise ServerError(f"QEMU, {command}: {answer['error']['desc']}")
        return answer["return"]

    def _read(self) -> dict[str, Any]:
        line = self.lines.readline()
        if not line:
            raise ServerError("QEMU: its monitor closed; read its log")
        found: dict[str, Any] = json.loads(line)
        return found

    def migrate(self, path: Path, timeout: float = 120) -> None:
        """Write the memory and the devices of a stopped guest to a file."""
        self("migrate-set-parameters", **{"max-bandwidth": 8 << 30})
        self("migrate", uri=f"file:{path}")
        deadline = time.monotonic() + timeout
        while (state := self("query-migrate").get("status")) != "completed":
            if state == "failed" or time.monotonic() > deadline:
                raise ServerError(f"QEMU: its state could not be written to {path}: {state}")
            time.sleep(0.05)

    def close(self) -> None:
        self.lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
