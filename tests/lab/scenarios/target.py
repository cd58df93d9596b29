# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iSCSI targets of the kernel (LIO), written straight into configfs: targetcli takes four seconds here, this none."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

TARGET = Path("/sys/kernel/config/target")
ISCSI_PORT = 3260
MIB = 1 << 20
LOOPBACK = (("127.0.0.1", ISCSI_PORT),)


def write(path: Path, value: str | int) -> None:
    """One attribute, without a newline, which would be a part of names and passwords."""
    with open(path, "w", encoding="ascii") as attribute:
        attribute.write(str(value))


def prepared() -> Path:
    """The folder of the iSCSI fabric, which loads its kernel module when it is made."""
    subprocess.run(["modprobe", "-a", "target_core_mod", "target_core_file", "iscsi_target_mod"], check=True)
    fabric = TARGET / "iscsi"
    fabric.mkdir(exist_ok=True)
    return fabric


class Target:
    """One target with its LUNs, on every portal that is given; a user makes it ask for a CHAP login.

    luns are sizes in bytes; lun_files are what stands behind them, LUN 0 first.
    """

    def __init__(
        self,
        root: Path,
        iqn: str,
        luns: Sequence[int] = (64 * MIB,),
        user: str = "",
        password: str = "",
        portals: Sequence[tuple[str, int]] = LOOPBACK,
    ) -> None:
        self.iqn, self.user, self.password, self.portals = iqn, user, password, list(portals)
        self.root = root / iqn.replace(":", "_")
        self.lun_files: list[Path] = []
        self._sizes = list(luns)
        self._folder = TARGET / "iscsi" / iqn
        self._tpg = self._folder / "tpgt_1"

    @property
    def hosts(self) -> list[dict[str, str | int]]:
        """The first portal, as pool modules take it."""
        host, port = self.portals[0]
        return [{"name": host, "port": port}]

    def start(self) -> Self:
        prepared()
        self.root.mkdir(parents=True)
        self._tpg.mkdir(parents=True)
        for size in self._sizes:
            self.add_lun(size)
        for host, port in self.portals:
            (self._tpg / "np" / f"{host}:{port}").mkdir()
        # every initiator may log in and write, and with a user, each by the same name and password
        for name, value in {"generate_node_acls": 1, "cache_dynamic_acls": 1, "demo_mode_write_protect": 0}.items():
            write(self._tpg / "attrib" / name, value)
        write(self._tpg / "attrib/authentication", int(bool(self.user)))
        if self.user:
            write(self._tpg / "auth/userid", self.user)
            write(self._tpg / "auth/password", self.password)
        self.enable(True)
        return self

    def enable(self, on: bool) -> None:
        """Take the target off the network and back: its sessions break, its LUNs stay as they are."""
        write(self._tpg / "enable", int(on))

    def admit_only(self, *initiators: str) -> None:
        """From now on only these initiators may log in, and only they are told of the target."""
        for initiator in initiators:
            acl = self._tpg / "acls" / initiator
            acl.mkdir()
            for number in range(len(self.lun_files)):
                (acl / f"lun_{number}").mkdir()
                (acl / f"lun_{number}" / "lun").symlink_to(self._tpg / "lun" / f"lun_{number}")
        write(self._tpg / "attrib/generate_node_acls", 0)
        write(self._tpg / "attrib/demo_mode_discovery", 0)

    def add_lun(self, size: int = 64 * MIB, serial: str = "") -> Path:
        """Give the target one more LUN, the next by number, with a serial number of its own unless one is given."""
        number = len(self.lun_files)
        image = self.root / f"lun{number}.img"
        with open(image, "wb") as out:
            out.truncate(size)
        store = self._store(number)
        store.mkdir(parents=True)
        with open(store / "control", "w", encoding="ascii") as control:
            control.write(f"fd_dev_name={image},fd_dev_size={size}")
        write(store / "wwn/vpd_unit_serial", serial or f"{zlib.crc32(self.iqn.encode()):08x}{number:08x}")
        write(store / "enable", 1)
        lun = self._tpg / "lun" / f"lun_{number}"
        lun.mkdir()
        (lun / store.name).symlink_to(store)
        self.lun_files.append(image)
        return image

    def _store(self, number: int) -> Path:
        return TARGET / "core" / f"fileio_{zlib.crc32(self.iqn.encode()) % 9000}{number}" / f"lun{number}"

    def stop(self) -> None:
        """Take it all away, in the order that configfs asks for."""
        with contextlib.suppress(OSError):
            self.enable(False)
        for pattern in ("acls/*/lun_*/lun", "lun/lun_*/lun*"):
            for link in self._tpg.glob(pattern):
                if link.is_symlink():
                    link.unlink()
        for pattern in ("acls/*/lun_*", "acls/*", "np/*", "lun/lun_*"):
            for folder in self._tpg.glob(pattern):
                folder.rmdir()
        for folder in (self._tpg, self._folder):
            if folder.exists():
                folder.rmdir()
        for number in range(len(self.lun_files)):
            store = self._store(number)
            store.rmdir()
            store.parent.rmdir()
        shutil.rmtree(self.root, ignore_errors=True)
        self.lun_files.clear()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc: object) -> None:
        self.stop()


@contextlib.contextmanager
def cut_off(address: str, port: int) -> Iterator[None]:
    """Packets to a portal of this guest vanish, as behind a firewall or a dead switch."""
    chain = "{ type filter hook input priority 0; }"
    rule = f"ip daddr {address} tcp dport {port} drop"
    script = f"add table ip cut\nadd chain ip cut input {chain}\nadd rule ip cut input {rule}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "cut"], check=True)


def iscsiadm(*argv: str) -> str:
    """What iscsiadm says; it ends with an error where there is nothing to list."""
    done = subprocess.run(["iscsiadm", *argv], capture_output=True, text=True, check=False)
    return done.stdout


# Sessions that give a silent portal up after seconds rather than two minutes.
HASTY = {
    "node.conn[0].timeo.noop_out_interval": 1,
    "node.conn[0].timeo.noop_out_timeout": 1,
    "node.session.timeo.replacement_timeout": 1,
}


@contextlib.contextmanager
def logged_in(target: Target, *portals: tuple[str, int], hasty: bool = False) -> Iterator[None]:
    """This host logs in by its own doing, at the target's first portal unless others are given."""
    names = [f"{host}:{port}" for host, port in portals or target.portals[:1]]
    settings = [word for name, value in HASTY.items() for word in ("-n", name, "-v", str(value))] if hasty else []
    try:
        for name in names:
            record = ("-m", "node", "-T", target.iqn, "-p", name)
            iscsiadm(*record, "-o", "new")
            if settings:
                subprocess.run(["iscsiadm", *record, "-o", "update", *settings], check=True)
            subprocess.run(["iscsiadm", *record, "-l"], check=True, capture_output=True)
        subprocess.run(["udevadm", "settle"], check=True)
        yield
    finally:
        for name in names:
            iscsiadm("-m", "node", "-T", target.iqn, "-p", name, "-u")
            iscsiadm("-m", "node", "-T", target.iqn, "-p", name, "-o", "delete")
