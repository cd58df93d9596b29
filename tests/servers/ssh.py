# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for the ssh command, where no ssh server can run: its other host is this one.

It forwards sockets as -L does and runs the command in a session of its own: no signal to this end reaches the other.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

HOST = "root@kvm02"  # the one host that it knows


def command(modules: str | Path = "") -> tuple[str, ...]:
    """What stands for ssh and its options; modules is a folder that Python imports from at the other end."""
    return (sys.executable, str(Path(__file__).resolve()), str(modules))


def pump(one: socket.socket, other: socket.socket) -> None:
    """Hand on all that comes, until one end is gone."""
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for end in (one, other):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket, there: str) -> None:
    """Connect whoever comes to the socket of the other end."""
    while True:
        near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
        try:
            far.connect(there)
        except OSError:
            near.close()
            continue
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def main(modules: str, *options: str) -> int:
    host, line = options[-2:]
    if not host.startswith(HOST):
        sys.exit(f"ssh: Could not resolve hostname {host}")
    for name, value in zip(options, options[1:]):
        if name == "-L":
            here, there = value.split(":")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(here)
            listener.listen()
            threading.Thread(target=serve, args=(listener, there), daemon=True).start()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": modules}
    return subprocess.call(["sh", "-c", line], env=environment, start_new_session=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
