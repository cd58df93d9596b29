# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private iSCSI target: tgtd with one target for all and one that asks for a CHAP password."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from .process import Server, environment, need, run, wait_for, write_private
from .silent import free_port

HOST = "127.0.0.1"
MIB = 1 << 20


class Target(Server):
    """tgtd on a port and a control socket of its own; what the LUNs hold stays below `root`."""

    iqn_open = "iqn.2026-01.storage.kvm:open"
    iqn_chap = "iqn.2026-01.storage.kvm:chap"
    initiator = "iqn.2026-01.storage.kvm:initiator"
    user = "labuser"

    def __init__(
        self,
        root: Path | str,
        port: int = 0,
        open_sizes: Sequence[int] = (256 * MIB, 256 * MIB),
        chap_sizes: Sequence[int] = (256 * MIB,),
    ) -> None:
        super().__init__(root)
        self.host = HOST
        self._port = port
        self._sizes = {self.iqn_open: list(open_sizes), self.iqn_chap: list(chap_sizes)}
        self._luns: dict[str, int] = {}
        self.password = secrets.token_hex(8)  # initiators want 12 to 16 characters
        self.password_file = self.root / "password"

    @property
    def port(self) -> int:
        if not self._port:
            self._port = free_port(HOST)
        return self._port

    @property
    def portal(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> Self:
        need("tgtadm")
        self.prepare()
        self._luns.clear()
        write_private(self.password_file, self.password)
        log = self.root / "tgtd.log"
        self.spawn("tgtd", "--foreground", "--iscsi", f"portal={self.portal}", log=log, env=self._environment)
        wait_for("tgtd", lambda: self.tgtadm("--op", "show", "--mode", "sys"), log=log)
        for number, (iqn, sizes) in enumerate(self._sizes.items(), start=1):
            self._iscsi("--op", "new", "--mode", "target", "--tid", str(number), "--targetname", iqn)
            for size in sizes:
                self.add_lun(iqn, size)
        self._ask_for_password()
        for number in (1, 2):
            self._iscsi("--op", "bind", "--mode", "target", "--tid", str(number), "--initiator-address", "ALL")
        return self

    def add_lun(self, iqn: str, size: int = 256 * MIB) -> Path:
        """Give a target one more LUN, the next by number; give back the file behind it."""
        lun = self._luns.get(iqn, 0) + 1
        image = self.root / f"{iqn.rpartition(':')[2]}-{lun}.img"
        with open(image, "ab") as out:
            out.truncate(size)
        address = "--tid", self._tid(iqn), "--lun", str(lun)
        self._iscsi("--op", "new", "--mode", "logicalunit", *address, "--backing-store", str(image))
        self._luns[iqn] = lun
        return image

    def remove_lun(self, iqn: str, lun: int) -> None:
        self._iscsi("--op", "delete", "--mode", "logicalunit", "--tid", self._tid(iqn), "--lun", str(lun))

    def tgtadm(self, *argv: str) -> str:
        return run("tgtadm", *argv, env=self._environment)

    def _iscsi(self, *argv: str) -> str:
        return self.tgtadm("--lld", "iscsi", *argv)

    def _tid(self, iqn: str) -> str:
        return str(list(self._sizes).index(iqn) + 1)

    def _ask_for_password(self) -> None:
        self._iscsi("--op", "new", "--mode", "account", "--user", self.user, "--password", self.password)
        self._iscsi("--op", "bind", "--mode", "account", "--tid", self._tid(self.iqn_chap), "--user", self.user)

    @property
    def _environment(self) -> dict[str, str]:
        return environment(TGT_IPC_SOCKET=str(self.root / "control"))
