# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private Gluster server with one volume of one brick, on a loopback address of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

from .namespace import Namespace
from .process import Server, need, run, wait_for
from .sweep import unmount

GLUSTERD_VOL = """\
volume management
    type mgmt/glusterd
    option working-directory {root}/lib
    option run-directory {root}/run/gluster
    option transport-type socket
    option transport.socket.bind-address {host}
    option transport.socket.listen-port 24007
    option transport.socket.keepalive-time 10
    option transport.socket.keepalive-interval 2
    option transport.socket.read-fail-log off
    option ping-timeout 0
    option event-threads 1
    option base-port 49152
    option max-port 49200
end-volume
"""


class Gluster(Server):
    """glusterd and a brick. The port is fixed, so each server beside another needs another address in 127.0.0.0/8.

    127.0.0.1 won't do: the command line refuses it as the address of a brick.
    """

    def __init__(self, root: Path | str, host: str = "127.0.0.2", volume: str = "vol") -> None:
        super().__init__(root)
        self.host = host
        self.volume = volume
        self.log = self.root / "glusterd.log"
        # The command line writes to all three, wherever glusterd itself has been told to.
        self._namespace = Namespace(
            self,
            {
                "/run": self.root / "run",
                "/var/lib/glusterd": self.root / "lib",
                "/var/log/glusterfs": self.root / "log",
            },
        )

    def start(self) -> Self:
        """A new volume each time; what the last one held is gone."""
        for program in ("glusterd", "mount.glusterfs"):
            need(program)
        self.prepare()
        for name in ("run", "lib", "log", "bricks"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        (self.root / "run/gluster").mkdir()
        conf = self.root / "glusterd.vol"
        conf.write_text(GLUSTERD_VOL.format(root=self.root, host=self.host), encoding="utf-8")
        self._namespace.start()
        options = "--no-daemon", "-f", conf, "-p", self.root / "glusterd.pid", "-l", self.log, "-L", "INFO"
        self._namespace.spawn("glusterd", *options, log=self.root / "glusterd.out")
        wait_for("glusterd", lambda: self.run("pool", "list"), log=self.log)
        self.add_volume(self.volume)
        return self

    def stop(self) -> None:
        self._namespace.stopped()
        super().stop()

    def run(self, *argv: str, timeout: float = 180) -> str:
        """Run the `gluster` command line."""
        return self._namespace.run("gluster", "--mode=script", *argv, timeout=timeout)

    def empty(self) -> None:
        """Remove every file of the volume, through a mount of its own: what a brick itself loses, Gluster keeps."""
        if {path.name for path in (self.root / "bricks" / self.volume).iterdir()} <= {".glusterfs"}:
            return
        point = self.root / "emptied"
        point.mkdir(exist_ok=True)
        options = f"log-file={self.root}/emptied.log"
        run("mount", "-t", "glusterfs", "-o", options, f"{self.host}:/{self.volume}", point)
        try:
            for path in point.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        finally:
            unmount(point)

    def add_volume(self, name: str) -> None:
        """Make and start a volume."""
        brick = f"{self.host}:{self.root / 'bricks' / name}"
        self.run("volume", "create", name, "transport", "tcp", brick, "force")
        self.run("volume", "set", name, "transport.address-family", "inet")
        self.run("volume", "start", name)
