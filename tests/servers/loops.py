# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices, and a node for them that libvirt's `disk` pools can work with."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from .process import ServerError, run
from .sweep import LOOP_MAJOR, loop_backing, remove_node

# libvirt takes /dev/loop0p1 for a volume that is not the next partition, and so can't delete it. A node whose name
# ends in a letter has partitions that end in a number, as a SCSI disk does. Nobody makes their nodes, though: this
# stands in for `udevadm settle`, after which libvirt expects them, in the PATH of the private daemon only.
UDEVADM = r"""#!/bin/sh
for disk in /dev/labdsk*[a-z]; do
    [ -b "$disk" ] || continue
    loop=loop$((0x$(stat -c %T "$disk")))
    for node in "$disk"[0-9]*; do
        [ -b "$node" ] && [ ! -e "/sys/block/$loop/${loop}p${node#"$disk"}" ] && rm -f "$node"
    done
    for part in "/sys/block/$loop/${loop}p"*; do
        [ -e "$part/dev" ] || continue
        read -r numbers < "$part/dev"
        node=$disk${part##*p}
        [ -b "$disk" ] || break
        [ -b "$node" ] && [ "$((0x$(stat -c %t "$node"))):$((0x$(stat -c %T "$node")))" = "$numbers" ] && continue
        rm -f "$node"
        mknod "$node" b "${numbers%:*}" "${numbers#*:}"
    done
done
[ -x /usr/bin/udevadm ] && exec /usr/bin/udevadm "$@"
exit 0
"""


class LoopDevice:
    """A block device over a sparse file. Below a server's root `sweep` finds it; elsewhere only `detach` removes it."""

    def __init__(self, path: Path | str, size: int = 256 << 20) -> None:
        self.path = Path(path).resolve()
        self.size = size
        self._device: str | None = None

    @property
    def device(self) -> str:
        if self._device is None:
            raise ServerError(f"{self.path}: not attached; call attach() first")
        return self._device

    def attach(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as image:
            if image.tell() < self.size:
                image.truncate(self.size)
        self._device = run("losetup", "--find", "--show", "--partscan", self.path).strip()
        return self

    def detach(self) -> None:
        if self._device is not None and loop_backing(self._device) == str(self.path):
            run("losetup", "--detach", self._device)
        self._device = None

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.detach()


class DiskNode(LoopDevice):
    """A loop device under a name of its own, /dev/labdsk<letters>, whose partitions are named as those of a disk."""

    @property
    def node(self) -> Path:
        return Path(f"/dev/labdsk{letters(self._minor)}")

    @property
    def _minor(self) -> int:
        return os.minor(os.stat(self.device).st_rdev)

    def attach(self) -> Self:
        super().attach()
        remove_node(self.node)  # one that a killed run left; its loop device is ours now
        os.mknod(self.node, stat.S_IFBLK | 0o600, os.makedev(LOOP_MAJOR, self._minor))
        return self

    def detach(self) -> None:
        if self._device is not None:
            remove_node(self.node)
        super().detach()


def letters(number: int) -> str:
    """0 is a, 25 is z, 26 is aa: as the kernel names disks."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


def disk_node(path: Path | str, size: int = 256 << 20) -> DiskNode:
    """An attached disk node over a new file."""
    return DiskNode(path, size).attach()
