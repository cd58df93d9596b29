# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private libvirtd as root: a hypervisor with nothing on it, beside the machine's own."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from .loops import UDEVADM
from .namespace import Namespace
from .process import Server, ServerError, environment, need, run, wait_for
from .sweep import Process, alive, kill, mounts_below

LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
mdns_adv = 0
host_uuid = "{host}"
log_level = 3
log_outputs = "3:file:{log}"
"""

# Guests run as root without a security driver or device namespace: they see what the test sees,
# and the machine's virtlogd is not asked.
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
stdio_handler = "file"
"""

HOSTS = uuid.UUID("6a1a5a2e-4b3c-5f0e-9d53-3c1d7a0c7e11")


class Libvirtd(Server):
    """libvirtd in namespaces of its own, with all its state below `root`.

    `stop` and `start` are to it what a reboot is to a host: guests and mounts are gone, definitions stay, and what
    has autostart starts. `restart` and `kill` concern the daemon alone; guests live on.
    """

    # How many seconds the daemon has to end when asked to.
    patience = 5.0

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self.sockets = self.root / "sock"
        self.log = self.root / "libvirtd.log"
        self.shared = self.root / "shared"
        self._namespace = Namespace(
            self,
            {
                "/etc/libvirt": self.root / "etc",
                "/var/lib/libvirt": self.root / "lib",
                "/var/cache/libvirt": self.root / "cache",
                "/var/log/libvirt": self.root / "log",
                "/run": self.root / "run",
            },
        )
        self._daemon: Process | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.sockets / 'libvirt-sock'}"

    @property
    def pid(self) -> int | None:
        """The daemon's pid as the machine sees it, None while it is down."""
        return self._daemon.pid if self._daemon and alive(self._daemon) else None

    def start(self) -> Self:
        """Boot the hypervisor; after `kill`, start its daemon again."""
        if self._daemon is None:
            self._boot()
        self._start_daemon()
        return self

    def stop(self) -> None:
        if self.pid is not None:
            self._end_daemon(signal.SIGTERM)
        self._daemon = None
        self._namespace.stopped()
        super().stop()

    def kill(self) -> None:
        """Kill the daemon as a crash would; guests and mounts stay."""
        self._end_daemon(signal.SIGKILL)

    def restart(self) -> None:
        """What `systemctl restart libvirtd` does."""
        self._end_daemon(signal.SIGTERM)
        self._start_daemon()

    def reset(self) -> None:
        """Reboot with nothing defined and `shared` empty; what libvirt knows of QEMU stays, since asking takes long."""
        self.stop()
        for name in ("etc", "lib", "shared"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.start()

    def run(self, *argv: str | Path, timeout: float = 180) -> str:
        """Run a program as if logged in to the hypervisor."""
        return self._namespace.run(*argv, timeout=timeout)

    def virsh(self, *argv: str, timeout: float = 180) -> str:
        return run("virsh", "--quiet", "--connect", self.uri, *argv, timeout=timeout)

    def _boot(self) -> None:
        if os.geteuid():
            raise ServerError("libvirtd: needs mounts and namespaces; run the tests as root")
        need("qemu-system-x86_64")
        self.prepare()
        shutil.rmtree(self.root / "run", ignore_errors=True)  # a boot begins with an empty /run
        for name in ("etc", "sock", "shared", "bin", "run/libvirt"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        self._share()
        self._namespace.start()

    def _write_configuration(self) -> None:
        host = uuid.uuid5(HOSTS, str(self.root))
        conf = LIBVIRTD_CONF.format(sockets=self.sockets, log=self.log, host=host)
        (self.root / "etc/libvirtd.conf").write_text(conf, encoding="utf-8")
        (self.root / "etc/qemu.conf").write_text(QEMU_CONF, encoding="utf-8")
        script = self.root / "bin/udevadm"
        script.write_text(UDEVADM, encoding="utf-8")
        script.chmod(0o755)

    def _share(self) -> None:
        """What the daemon mounts below `shared` is to be seen by all, so it must be a shared mount on both sides."""
        if self.shared not in mounts_below(self.shared):
            run("mount", "--bind", self.shared, self.shared)
        run("mount", "--make-shared", self.shared)

    def _start_daemon(self) -> None:
        if self.pid is not None:
            return
        path = f"{self.root / 'bin'}:{environment()['PATH']}"
        options = "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirtd.pid"
        log = self.root / "libvirtd.out"
        self._daemon = self._namespace.spawn("libvirtd", *options, log=log, env=environment(PATH=path))
        wait_for("libvirtd", self._answers, log=self.log)
        self._meet_guests()

    def _meet_guests(self) -> None:
        """Wait until the daemon has found its guests again: killed before that, its successor takes them for dead."""
        for guest in self.virsh("list", "--name").split():
            with suppress(ServerError):  # it may just have ended
                self.virsh("dommemstat", guest)  # waits for the job under which the daemon reconnects

    def _answers(self) -> bool:
        if self.pid is None:
            raise ServerError(f"ended at once: {(self.root / 'libvirtd.out').read_text(encoding='utf-8').strip()}")
        return (self.sockets / "libvirt-sock").is_socket() and bool(self.virsh("uri", timeout=30))

    def _end_daemon(self, how: signal.Signals) -> None:
        if self._daemon is None:
            return
        try:
            kill([self._daemon], how, self.patience)
        except TimeoutError:
            kill([self._daemon])  # it waits for a storage server that does not answer
