# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The LAN between hosts: a QEMU process that is nothing but a hub, with a unix socket for each host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from tests.servers.process import Server, wait_for

from .folder import Image
from .guest import HOURS

PORTS = 6


class Lan(Server):
    """A LAN with no address on the machine: what is sent on it reaches the hosts plugged in, and nothing else."""

    def __init__(self, root: Path, image: Image) -> None:
        super().__init__(root)
        self.image = image

    def start(self) -> Self:
        self.prepare()
        for stale in self.root.glob("port*"):
            stale.unlink()
        ports = []
        for number in range(PORTS):
            address = f"addr.type=unix,addr.path={self.root}/port{number}"
            ports += ["-netdev", f"stream,id=s{number},server=on,{address}"]
            ports += ["-netdev", f"hubport,hubid=0,id=h{number},netdev=s{number}"]
        command = ["timeout", "--signal=KILL", f"{HOURS}h", "setpriv", "--pdeathsig", "KILL", *self.image.qemu()]
        command += ["-machine", "none", "-nodefaults", "-display", "none", "-pidfile", f"{self.root}/pid", *ports]
        self.spawn(*command, env={**os.environ, **self.image.environment()})
        wait_for("LAN", (self.root / "pid").read_text, timeout=20, log=self.root / "timeout.out")
        self.journal.process(int((self.root / "pid").read_text(encoding="ascii")), "qemu-system-x86_64")
        return self

    def plug(self, number: int) -> str:
        """The back end of the network card of the host with this number."""
        return f"stream,server=off,addr.type=unix,addr.path={self.root}/port{number}"
