# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An unprivileged session libvirtd, as a user has on a desktop: no mounts, no devices, files of its own."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Self

from .namespace import Namespace
from .process import PATH, Server, ServerError, need, run, wait_for
from .sweep import Process, alive

LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_level = 3
log_outputs = "3:file:{log}"
"""

QEMU_CONF = 'stdio_handler = "file"\n'


class Session(Server):
    """The session daemon of a user; the user owns everything below `home`."""

    def __init__(self, root: Path | str, user: str = "nobody") -> None:
        super().__init__(root)
        self.user = user
        self.home = self.root / "home"
        self.sockets = self.home / "sock"
        self.log = self.home / "libvirtd.log"
        self._namespace = Namespace(self, {"/run": self.root / "run"})

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self.sockets / 'libvirt-sock'}"

    def start(self) -> Self:
        if os.geteuid():
            raise ServerError("session: root is needed to become another user; run the tests as root")
        need("setpriv")
        self.prepare()
        self._make_home()
        self._namespace.start()
        command = self._as_user("libvirtd", "-f", str(self.home / "libvirtd.conf"))
        daemon = self._namespace.spawn(*command, log=self.root / "libvirtd.out")
        wait_for("libvirtd of the session", lambda: self._answers(daemon), log=self.log)
        return self

    def stop(self) -> None:
        self._namespace.stopped()
        super().stop()

    def run(self, *argv: str | Path, timeout: float = 180) -> str:
        """Run a program as the user."""
        return self._namespace.run(*self._as_user(*map(str, argv)), timeout=timeout)

    def _make_home(self) -> None:
        owner = pwd.getpwnam(self.user)
        for path in (self.home, self.sockets, self.home / "config", self.home / "config/libvirt", self.home / "run"):
            path.mkdir(mode=0o700, exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        conf = LIBVIRTD_CONF.format(sockets=self.sockets, log=self.log)
        (self.home / "libvirtd.conf").write_text(conf, encoding="utf-8")
        (self.home / "config/libvirt/qemu.conf").write_text(QEMU_CONF, encoding="utf-8")

    def _as_user(self, program: str, *argv: str) -> list[str]:
        """A command line with the user's rights and directories, and nothing of root's environment."""
        owner = pwd.getpwnam(self.user)
        become = f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"
        directories = {
            "HOME": self.home,
            "XDG_RUNTIME_DIR": self.home / "run",
            "XDG_CONFIG_HOME": self.home / "config",
            "XDG_CACHE_HOME": self.home / "cache",
            "XDG_DATA_HOME": self.home / "data",
        }
        settings = [f"PATH={PATH}", "LC_ALL=C", *(f"{name}={path}" for name, path in directories.items())]
        return ["setpriv", *become, "env", "-i", *settings, need(program), *argv]

    def _answers(self, daemon: Process) -> bool:
        if not alive(daemon):
            raise ServerError(f"ended at once; read {self.root / 'libvirtd.out'}")
        virsh = "virsh", "--quiet", "--connect", self.uri, "uri"
        return (self.sockets / "libvirt-sock").is_socket() and bool(run(*virsh))
