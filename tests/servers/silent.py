# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TCP ports: free ones, closed ones, and a server that never says a word."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from .process import ServerError

# Below the range that the kernel takes for outgoing connections, so that none of those gets in the way.
PORTS = range(20000, 32000)

# Bound but not listening: who connects is refused, and nobody else gets the port while this process lives.
_closed: list[socket.socket] = []

# What was given out, whether or not somebody listens on it by now: see _hold().
_held: dict[tuple[str, int], socket.socket] = {}


def free_port(host: str = "127.0.0.1", count: int = 1) -> int:
    """The first of `count` adjacent ports that nobody listens on, and that nobody else gets from here."""
    for _attempt in range(200):
        first = random.choice(PORTS[: -count or None])
        if _hold(host, range(first, first + count)):
            return first
    raise ServerError(f"{host}: no {count} free ports from {PORTS.start} to {PORTS.stop}; end what holds them")


def free_address(port: int) -> str:
    """A loopback address for a port that can't be chosen, as free_port() gives a port; never 127.0.0.1."""
    hosts = [f"127.0.0.{last}" for last in range(2, 250)]
    found = next((host for host in random.sample(hosts, len(hosts)) if _hold(host, [port])), None)
    if found is None:
        raise ServerError(f"port {port}: taken on all loopback addresses, or on 0.0.0.0; end what holds it")
    return found


def closed_port(host: str = "127.0.0.1") -> int:
    """A port that refuses connections for as long as this process lives."""
    holder = socket.socket()
    holder.bind((host, free_port(host)))
    _closed.append(holder)
    return int(holder.getsockname()[1])


def _hold(host: str, ports: Iterable[int]) -> bool:
    """Take ports that are free before their server does, or none of them.

    A name in the abstract namespace of sockets is taken by one of all processes that could listen on the port, as long
    as that one lives.
    """
    taken: dict[tuple[str, int], socket.socket] = {}
    for port in ports:
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0kvm.storage-tests/{host}:{port}")
        except OSError:
            name.close()
            break
        taken[host, port] = name
        if not _is_free(host, port):
            break
    else:
        _held.update(taken)
        return True
    for name in taken.values():
        name.close()
    return False


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As daemons do: a connection that has just ended does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class SilentServer:
    """Takes connections and whatever is sent, and never answers: a server that hangs."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self._wanted = port
        self._listener: socket.socket | None = None
        self._taken: list[socket.socket] = []

    @property
    def port(self) -> int:
        if self._listener is None:
            raise ServerError("silent server: not started; call start() first")
        return int(self._listener.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many clients have come so far."""
        return len(self._taken)

    def start(self) -> Self:
        self._listener = socket.create_server((self.host, self._wanted or free_port(self.host)))
        threading.Thread(target=self._take, args=(self._listener,), daemon=True).start()
        return self

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                self._taken.append(listener.accept()[0])
            except OSError:
                return  # stopped

    def stop(self) -> None:
        if self._listener is not None:
            # Closing alone would leave the thread in accept(), and the port open.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._taken:
            connection.close()
        self._taken.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
