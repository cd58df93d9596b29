# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clones beside what a user would run by hand: qemu-img, cp, and a loop of tasks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.helpers import run
from tests.servers.loops import LoopDevice

from .host import Host
from .measure import Row, more_than, pairs, times_as_fast

MIB = 1 << 20
POOL = "clones"
LINKED = 20


def timed(*argv: str | Path) -> float:
    """The seconds of a command and of the sync of all that it wrote."""
    begin = time.monotonic()
    subprocess.run(list(map(str, argv)), check=True, capture_output=True)
    subprocess.run(["sync", "-f", str(argv[-1])], check=True)
    return time.monotonic() - begin


def ours(host: Host, module: str, **args: Any) -> float:
    """The seconds of a module in this process."""
    begin = time.monotonic()
    result = run(module, {"uri": host.uri, **args}, diff=False)
    seconds = time.monotonic() - begin
    if not result.get("changed"):
        raise RuntimeError(f"{module} changed nothing: {result}")
    return seconds


def remove(host: Host, pool: str, *names: str) -> None:
    for name in names:
        run("volume", {"uri": host.uri, "pool": pool, "name": name, "state": "absent"})


def random_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for _block in range(size // (16 * MIB)):
            file.write(os.urandom(16 * MIB))
    os.chmod(path, 0o600)
    subprocess.run(["sync", "-f", path], check=True)


@contextlib.contextmanager
def mounted(host: Host, name: str, form: str, size: int) -> Iterator[Path]:
    """A file system of its own in a file."""
    folder = host.directory(name)
    folder.mkdir()
    with LoopDevice(host.server.shared.parent / f"{name}.img", size) as device:
        subprocess.run([f"mkfs.{form}", "-q", device.device], check=True)
        subprocess.run(["mount", device.device, folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def full(host: Host, quick: bool) -> Row:
    """A raw disk of random data, copied in the pool of this machine's own file system."""
    size, repeat = (256 * MIB, 3) if quick else (1024 * MIB, 3)
    folder = host.directory(POOL)
    random_file(folder / "base.raw", size)
    source = {"volume": "base.raw", "format": "raw", "mode": "full"}

    def clone() -> float:
        seconds = ours(host, "volume_clone", pool=POOL, name="ours.raw", format="raw", source=source)
        remove(host, POOL, "ours.raw")
        return seconds

    def convert() -> float:
        argv = ("qemu-img", "convert", "-f", "raw", "-O", "raw", folder / "base.raw", folder / "theirs.raw")
        seconds = timed(*argv)
        (folder / "theirs.raw").unlink()
        return seconds

    what = f"full clone of a raw disk of {size // MIB} MiB; qemu-img convert and sync"
    return times_as_fast(what, *pairs(repeat, clone, convert), "at least 0.9")


def reflink(host: Host, quick: bool) -> Row:
    size, repeat = (256 * MIB, 3) if quick else (1024 * MIB, 5)
    with mounted(host, "xfs", "xfs", 3 * size) as folder:
        pool = {"name": "xfs", "path": str(folder / "pool")}
        ours(host, "pool_dir", **pool)
        random_file(folder / "pool/base.raw", size)
        source = {"volume": "base.raw", "format": "raw", "mode": "reflink"}

        def clone() -> float:
            seconds = ours(host, "volume_clone", pool="xfs", name="ours.raw", format="raw", source=source)
            remove(host, "xfs", "ours.raw")
            return seconds

        def copy() -> float:
            target = folder / "pool/theirs.raw"
            seconds = timed("cp", "--reflink=always", folder / "pool/base.raw", target)
            target.unlink()
            return seconds

        clone()  # a first one reads the pool
        found = pairs(repeat, clone, copy)
        run("pool_dir", {"uri": host.uri, "name": "xfs", "state": "absent"})
    return more_than(f"reflink clone of {size // MIB} MiB on xfs; cp --reflink and sync", *found, "at most 0.1")


def linked(host: Host, quick: bool) -> Row:
    """Many disks on one base, by one task and by a task for each."""
    names = [f"web{number:02d}.qcow2" for number in range(LINKED)]
    source = {"volume": "base.qcow2", "format": "qcow2", "mode": "linked"}
    ours(host, "volume", pool=POOL, name="base.qcow2", format="qcow2", capacity="10GiB")
    given = {"uri": host.uri, "pool": POOL, "source": source}
    one = [{"name": "one", "kvm.storage.volume_clone": {**given, "clones": [{"name": name} for name in names]}}]
    many = [{"name": "loop", "kvm.storage.volume_clone": {**given, "name": "{{ item }}"}, "loop": names}]

    def play(tasks: Any) -> float:
        task = host.controller.play(tasks, changed=True).tasks[0]
        remove(host, POOL, *names)
        return sum(task["items"]) if task["items"] else task["seconds"]

    found = pairs(1 if quick else 3, lambda: play(one), lambda: play(many))
    return times_as_fast(f"{LINKED} linked clones in one task; a loop of tasks", *found, "at least 10")


def rows(host: Host, quick: bool) -> list[Row]:
    host.make_pool(POOL)
    try:
        return [full(host, quick), reflink(host, quick), linked(host, quick)]
    finally:
        host.drop_pool(POOL)
