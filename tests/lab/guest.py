# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of the lab: a QEMU process with disks of its own, reached by ssh on a loopback address."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.process import Server, ServerError, run, wait_for
from tests.servers.silent import free_port

from .folder import Image, checksum
from .monitor import Monitor

LOOPBACK = "127.0.0.1"
HOURS = os.environ.get("KVM_STORAGE_LAB_HOURS", "8")  # a host that is forgotten ends by itself
DISKS = {"vdb": "2G", "vdc": "2G", "vdd": "2G", "sda": "1G"}  # blank; sda is on a SCSI adapter
SHARED_LUN = "mp.raw"  # one image behind two SCSI adapters: the two paths of a multipath device
QUIET = (
    "rw console=ttyS0 quiet loglevel=4 net.ifnames=0 mitigations=off random.trust_cpu=on nowatchdog no_timer_check "
    "systemd.show_status=no"
)
NO_LAN = "hubport,hubid=1"


@dataclass(frozen=True)
class State:
    """A kind of host: the image it boots, what it asks of the kernel, and what is done before it is frozen.

    `prepare` is sent to the booted host as a shell script, with `files` in its working directory.
    """

    name: str
    image: str = "full"
    kernel: str = "lsm=landlock,yama"
    prepare: str = ""
    files: tuple[Path, ...] = ()
    number: int = 1  # whose identity it has when it is frozen
    memory: int = 2048  # MiB

    def key(self, image: Image, accelerator: str) -> str:
        text = repr((self.image, self.kernel, self.prepare, self.number, self.memory, DISKS, QUIET, accelerator))
        sources = sorted(Path(__file__).parent.glob("guest.py"))
        return checksum(image.key, text, *sources, *self.files)


class Guest(Server):
    """A host; `name` and `number` are its identity: its address on the LAN is 10.77.0.1<number>."""

    def __init__(self, root: Path, image: Image, state: State, accelerator: str, name: str, number: int) -> None:
        super().__init__(root)
        self.image, self.state, self.accelerator = image, state, accelerator
        self.name, self.number = name, number
        self.port = 0
        self.pid = 0

    # from nothing

    def boot(self, lan: str = NO_LAN, timeout: float = 300) -> Self:
        """Start with blank disks and a new identity."""
        self._new_disks()
        self._launch(lan)
        self._wait_for_ssh(timeout)
        self._identify()
        return self

    def _new_disks(self) -> None:
        self.prepare()
        base = self.image.folder / f"{self.state.image}.qcow2"
        self.image.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", self.root / "root.qcow2")
        for name, size in DISKS.items():
            self.image.qemu_img("create", "-q", "-f", "qcow2", self.root / f"{name}.qcow2", size)
        with open(self.root / SHARED_LUN, "wb") as disk:
            disk.truncate(1 << 30)

    # frozen and restored

    def freeze(self, into: Path) -> None:
        """Write memory and disks into a folder; the host ends."""
        with Monitor(self.root / "qmp.sock") as monitor:
            monitor("stop")
            monitor.migrate(self.root / "memory")
            monitor("quit")
        for child in self._children:
            child.wait()
        into.mkdir(parents=True)
        for name in ("root.qcow2", *(f"{disk}.qcow2" for disk in DISKS), SHARED_LUN, "memory", "host_key.pub"):
            (self.root / name).rename(into / name)

    def restore(self, frozen: Path, lan: str = NO_LAN, timeout: float = 60) -> Self:
        """Go on from where a host was frozen, on disks of its own, with an identity of its own."""
        self.prepare()
        for name in ("root", *DISKS):
            base = frozen / f"{name}.qcow2"
            self.image.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", self.root / f"{name}.qcow2")
        run("cp", "--sparse=always", frozen / SHARED_LUN, self.root / SHARED_LUN)
        self._launch(lan, "-incoming", f"file:{frozen / 'memory'}")
        with Monitor(self.root / "qmp.sock") as monitor:
            wait_for(self.name, lambda: monitor("query-status")["status"] != "inmigrate", timeout, self._log)
            monitor("cont")
        self._trust(frozen / "host_key.pub")
        self._wait_for_ssh(timeout)
        self._identify()
        return self

    # the process

    @property
    def _log(self) -> Path:
        return self.root / "qemu.out"

    def _launch(self, lan: str, *more: str) -> None:
        for attempt in range(5):
            self.port = free_port(LOOPBACK)
            for stale in ("qmp.sock", "pid"):
                (self.root / stale).unlink(missing_ok=True)
            self.spawn(*self._command(lan), *more, log=self._log, env={**os.environ, **self.image.environment()})
            try:
                wait_for(self.name, (self.root / "qmp.sock").exists, timeout=20, log=self._log)
                wait_for(self.name, (self.root / "pid").read_text, timeout=20, log=self._log)
                break
            except ServerError:
                taken = "Could not set up host forwarding" in self._log.read_text(encoding="utf-8")
                if not taken or attempt == 4:  # another run took the port first
                    raise ServerError(f"{self.name}: {self._log.read_text(encoding='utf-8').strip()}") from None
        self.pid = int((self.root / "pid").read_text(encoding="ascii"))
        self.journal.process(self.pid, "qemu-system-x86_64")

    def _command(self, lan: str) -> list[str]:
        root, image = self.root, self.image.folder
        drives = [f"file={root}/root.qcow2,if=none,id=root,format=qcow2,cache=unsafe", "virtio-blk-pci,drive=root"]
        for disk in ("vdb", "vdc", "vdd"):
            drives.append(f"file={root}/{disk}.qcow2,if=none,id={disk},format=qcow2,cache=unsafe,discard=unmap")
            drives.append(f"virtio-blk-pci,drive={disk},serial=LAB{disk.upper()}")
        drives.append(f"file={image}/packages.img,if=none,id=packages,format=raw,readonly=on,file.locking=off")
        drives.append("virtio-blk-pci,drive=packages,serial=LABPKGS")
        drives.append(f"file={root}/sda.qcow2,if=none,id=sda,format=qcow2,cache=unsafe,discard=unmap")
        drives.append("scsi-hd,drive=sda,bus=scsi0.0,serial=LABSDA,wwn=0x5000c50015ea71aa")
        for path in (1, 2):  # QEMU would lock the image against its own second path
            drives.append(
                f"file={root}/{SHARED_LUN},if=none,id=mp{path},format=raw,cache=writethrough,file.locking=off"
            )
            drives.append(
                f"scsi-hd,drive=mp{path},bus=scsi{path - 1}.0,scsi-id={10 + path},serial=LABMP,"
                "wwn=0x5000c50015ea71ac,share-rw=on"
            )
        return [
            "timeout", "--signal=KILL", f"{HOURS}h", "setpriv", "--pdeathsig", "KILL", *self.image.qemu(),
            "-name", self.name, "-machine", "pc,usb=off,graphics=off", "-smp", "1", "-m", str(self.state.memory),
            *accelerator_options(self.accelerator),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{root}/console.log",
            "-device", "vmgenid,guid=auto",  # makes the kernel of a restored guest draw new random numbers
            "-qmp", f"unix:{root}/qmp.sock,server=on,wait=off", "-pidfile", f"{root}/pid",
            "-uuid", f"00000000-0000-4000-8000-00000000000{self.state.number}", "-device", "virtio-rng-pci",
            "-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd.img",
            "-append", f"root=/dev/vda {QUIET} {self.state.kernel}",
            "-device", "virtio-scsi-pci,id=scsi0", "-device", "virtio-scsi-pci,id=scsi1",
            *(word for pair in zip(drives[::2], drives[1::2], strict=True)
              for word in ("-drive", pair[0], "-device", pair[1])),
            "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:{LOOPBACK}:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,romfile=",
            "-netdev", f"{lan},id=n1",
            "-device", f"virtio-net-pci,netdev=n1,mac=52:54:00:77:00:1{self.state.number},romfile=",
        ]  # fmt: skip

    # ssh

    def _wait_for_ssh(self, timeout: float) -> None:
        def banner() -> bool:
            with socket.create_connection((LOOPBACK, self.port), timeout=5) as probe:
                probe.settimeout(5)
                return probe.recv(4) == b"SSH-"

        wait_for(f"host {self.name}", banner, timeout, self.root / "console.log")

    def _trust(self, key: Path) -> None:
        text = key.read_text(encoding="utf-8") if key.exists() else ""
        (self.root / "known_hosts").write_text(f"{self.name} {text}" if text else "", encoding="utf-8")

    def _identify(self) -> None:
        """Give the host a name, an address, keys and a clock of its own; nothing of the frozen one stays."""
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            key = Path(folder, "key")
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", key)
            private, public = key.read_text(encoding="utf-8"), key.with_suffix(".pub").read_text(encoding="utf-8")
        first = "yes" if (self.root / "known_hosts").exists() else "accept-new"
        self._write_ssh_config(first)
        self.run(f"lab-identity {self.name} {self.number} {int(time.time())}", text=private, shared=False)
        (self.root / "host_key.pub").write_text(public, encoding="utf-8")
        self._trust(self.root / "host_key.pub")
        self._write_ssh_config("yes")
        wait_for(f"host {self.name}", lambda: self.run("true", shared=False) == "", 60, self.root / "console.log")

    def _write_ssh_config(self, checking: str) -> None:
        (self.root / "ssh_config").write_text(
            f"Host {self.name}\n"
            f"  HostName {LOOPBACK}\n  Port {self.port}\n  User root\n  HostKeyAlias {self.name}\n"
            f"  IdentityFile {self.image.ssh_key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.root}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            f"  StrictHostKeyChecking {checking}\n  LogLevel ERROR\n  ConnectTimeout 60\n"
            f"  ControlPath {self.root}/ctl\n",
            encoding="utf-8",
        )

    def ssh(self, *argv: str, shared: bool = True) -> list[str]:
        """The command line that runs one inside; connections of a host share one session."""
        master = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60") if shared else ("-o", "ControlPath=none")
        return ["ssh", "-F", str(self.root / "ssh_config"), *master, self.name, *argv]

    def run(self, script: str, *, text: str | None = None, timeout: float = 120, shared: bool = True) -> str:
        """Run a shell command inside; what it printed, or an error with its own words."""
        # The master that ssh leaves behind must not keep our pipes open.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            try:
                done = subprocess.run(
                    self.ssh(script, shared=shared), input=text, stdout=subprocess.PIPE, stderr=errors,
                    text=True, errors="replace", timeout=timeout, check=False,
                    stdin=subprocess.DEVNULL if text is None else None,
                )  # fmt: skip
            except subprocess.TimeoutExpired as exc:
                raise ServerError(f"{self.name}: {script}: no answer within {timeout:g} s") from exc
            errors.seek(0)
            words = errors.read().strip()
        if done.returncode:
            raise ServerError(f"{self.name}: {script}: exit status {done.returncode}: {words or done.stdout.strip()}")
        return done.stdout

    def put(self, archive: bytes, folder: str) -> None:
        """Unpack a tar archive inside."""
        command = f"mkdir -p {shlex.quote(folder)} && tar --extract --file=- --no-same-owner -C {shlex.quote(folder)}"
        done = subprocess.run(self.ssh(command), input=archive, capture_output=True, check=False)
        if done.returncode:
            raise ServerError(f"{self.name}: {command}: {done.stderr.decode(errors='replace').strip()}")

    def stop(self) -> None:
        subprocess.run(
            ["ssh", "-F", str(self.root / "ssh_config"), "-O", "exit", self.name], capture_output=True, check=False
        )
        super().stop()


def accelerator_options(name: str) -> list[str]:
    if name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]


def accelerator(image: Image, folder: Path, patience: float = 15) -> str:
    """kvm where a kernel really comes up under it, tcg elsewhere: /dev/kvm may be there and not work.

    The kernel finds no root file system, panics and, by -no-reboot, ends QEMU: that is the sign of life.
    """
    asked = os.environ.get("KVM_STORAGE_LAB_ACCEL", "")
    if asked in ("kvm", "tcg"):
        return asked
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    answer = folder / f"accelerator-{checksum(image.key, boot)}"
    if answer.exists():
        return answer.read_text(encoding="ascii")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        console = Path(scratch, "console")
        command = [
            *image.qemu(), *accelerator_options("kvm"), "-machine", "pc", "-m", "512", "-nodefaults",
            "-display", "none", "-no-reboot", "-serial", f"file:{console}", "-kernel", str(image.folder / "vmlinuz"),
            "-append", "console=ttyS0 panic=-1",
        ]  # fmt: skip
        environment = {**os.environ, **image.environment()}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=patience, check=False)
            alive = done.returncode == 0 and b"Linux version" in console.read_bytes()
        except (subprocess.TimeoutExpired, FileNotFoundError):
            alive = False
    found = "kvm" if alive else "tcg"
    answer.write_text(found, encoding="ascii")
    return found
