# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images on their way in, beside cp, virsh, a libvirt stream, rbd and qemu-img."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.integration.helpers import run
from tests.servers.ceph import Ceph

from .clones import MIB, ours, random_file, remove, timed
from .host import Host
from .measure import Row, bounded, pairs, times_as_fast, times_the_cost

POOL = "uploads"
BLOCK = 4 * MIB
SPARSE = 16  # MiB of data in the sparse image
MOST_MEMORY = 100  # MB


def upload(host: Host, source: Path, pool: str = POOL, **more: Any) -> float:
    """The seconds of an upload in this process, without the removal."""
    given = {"src": str(source), "remote_src": True, "source_format": "raw", **more}
    seconds = ours(host, "volume_upload", pool=pool, name="ours.raw", **given)
    remove(host, pool, "ours.raw")
    return seconds


def copied(source: Path, target: Path, checksum: bool = False) -> float:
    """cp and sync, and the checksum by sha256sum where that is compared with ours."""
    seconds = timed("cp", source, target)
    begin = time.monotonic()
    if checksum:
        subprocess.run(["sha256sum", target], check=True, capture_output=True)
    seconds += time.monotonic() - begin
    target.unlink()
    return seconds


def by_stream(host: Host, source: Path, size: int) -> float:
    """What a script of a few lines does: a volume, and its data through libvirt."""
    xml = f"<volume><name>theirs.raw</name><capacity>{size}</capacity><allocation>0</allocation></volume>"
    with host.connected() as connection, open(source, "rb") as file:
        volume = connection.storagePoolLookupByName(POOL).createXML(xml)
        begin = time.monotonic()
        stream = connection.newStream()
        volume.upload(stream, 0, size)
        stream.sendAll(lambda stream, count, opened: opened.read(count), file)
        stream.finish()
        subprocess.run(["sync", "-f", source], check=True)
        seconds = time.monotonic() - begin
        volume.delete()
    return seconds


def by_virsh(host: Host, source: Path, size: int) -> float:
    xml = f"<volume><name>theirs.raw</name><capacity>{size}</capacity><allocation>0</allocation></volume>"
    with host.connected() as connection:
        volume = connection.storagePoolLookupByName(POOL).createXML(xml)
        seconds = timed("virsh", "-c", host.uri, "vol-upload", "--pool", POOL, "theirs.raw", source)
        volume.delete()
    return seconds


def files(host: Host, quick: bool) -> list[Row]:
    size, repeat = 1024 * MIB, 3 if quick else 5
    folder = host.server.shared / "images"
    folder.mkdir()
    source, target = folder / "random.raw", host.directory(POOL) / "theirs.raw"
    random_file(source, size)
    digest = f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    what = f"upload of {size // MIB} MiB of random data"
    plain = pairs(repeat, lambda: upload(host, source), lambda: copied(source, target))
    checked = pairs(repeat, lambda: upload(host, source, checksum=digest), lambda: copied(source, target, True))
    rows = [
        times_as_fast(f"{what}; cp and sync", *plain, "at least 0.9"),
        times_as_fast(f"{what}, checksum compared; cp, sync and sha256sum", *checked, "at least 0.9"),
    ]
    for name, theirs in (("virsh vol-upload", by_virsh), ("a libvirt stream", by_stream)):
        found = pairs(repeat, lambda: upload(host, source), lambda: theirs(host, source, size))  # noqa: B023  at once
        rows.append(times_as_fast(f"{what}; {name}", *found, "at least 1"))
    source.unlink()
    return [*rows, *sparse(host, folder, size, repeat)]


def sparse(host: Host, folder: Path, size: int, repeat: int) -> list[Row]:
    """An image of which little is data: the time follows the data, and the volume is as sparse."""
    source, dense = folder / "sparse.raw", folder / "dense.raw"
    random_file(dense, SPARSE * MIB)
    with open(source, "wb") as file:
        file.truncate(size)
        for number in range(SPARSE):
            file.seek(number * (size // SPARSE))
            file.write(os.urandom(MIB))
    subprocess.run(["sync", "-f", source], check=True)
    found = pairs(repeat, lambda: upload(host, source), lambda: upload(host, dense))
    what = f"upload of {size // MIB} MiB with {SPARSE} MiB of data; of these {SPARSE} MiB alone"
    rows = [times_the_cost(what, *found, "at most 1.5")]
    run("volume_upload", {"uri": host.uri, "pool": POOL, "name": "ours.raw", "src": str(source), "remote_src": True,
                          "source_format": "raw"})  # fmt: skip
    taken = (host.directory(POOL) / "ours.raw").stat().st_blocks * 512
    remove(host, POOL, "ours.raw")
    theirs = source.stat().st_blocks * 512
    source.unlink()
    dense.unlink()
    what = "bytes that the volume takes; that the source takes"
    ratio, required = taken / theirs, "at most 1.1"
    shown = (f"{taken / MIB:.0f} MiB", f"{theirs / MIB:.0f} MiB", f"{ratio:.2f}")
    return [*rows, Row(what, *shown, required, bounded(ratio, required))]


def ceph(host: Host, quick: bool) -> list[Row]:
    size, repeat = 1024 * MIB, 3 if quick else 5  # of a smaller one, the start of each rbd command is half
    source = host.server.shared / "random.raw"
    random_file(source, size)
    with Ceph(host.server.shared.parent / "ceph", size=4 << 30) as cluster:
        monitors = [{"name": name, "port": port} for name, port in cluster.monitors]
        run("secret", {"uri": host.uri, "usage": "ceph", "usage_name": "bench", "value": cluster.key()})
        auth = {"username": "admin", "secret_usage": "bench"}
        ours(host, "pool_rbd", name="rbd", source_name="rbd", hosts=monitors, auth=auth)

        def imported() -> float:
            begin = time.monotonic()
            cluster.run("rbd", "import", "--no-progress", source, "rbd/theirs", timeout=600)
            seconds = time.monotonic() - begin
            cluster.run("rbd", "rm", "--no-progress", "rbd/theirs")
            return seconds

        def converted() -> float:
            cluster.run("rbd", "create", "--size", f"{size}B", "rbd/theirs")
            login = f"conf={cluster.root}/ceph.conf:id=admin:keyring={cluster.keyring()}"
            begin = time.monotonic()
            argv = ["convert", "-n", "-f", "raw", "-O", "raw", str(source), f"rbd:rbd/theirs:{login}"]
            subprocess.run(["qemu-img", *argv], check=True)
            seconds = time.monotonic() - begin
            cluster.run("rbd", "rm", "--no-progress", "rbd/theirs")
            return seconds

        rows = []
        upload(host, source, "rbd")  # the server's first writes make room for those that follow
        for name, theirs in (("rbd import", imported), ("qemu-img convert -n", converted)):
            found = pairs(repeat, lambda: upload(host, source, "rbd"), theirs)
            rows.append(times_as_fast(f"upload of {size // MIB} MiB into Ceph; {name}", *found, "at least 0.9"))
        run("pool_rbd", {"uri": host.uri, "name": "rbd", "state": "absent"})
    source.unlink()
    return rows


def memory(host: Host, quick: bool) -> Row:
    """The most memory of the module over images of any size."""
    size = (256 if quick else 2048) * MIB
    source = host.server.shared / "large.raw"
    random_file(source, size)
    with open(source, "rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    given = {"uri": host.uri, "pool": POOL, "name": "ours.raw", "src": str(source), "remote_src": True}
    tasks = [{"name": "upload", "kvm.storage.volume_upload": {**given, "source_format": "raw", "checksum": digest}}]
    used, _seconds = host.controller.usage(tasks, changed=True)
    remove(host, POOL, "ours.raw")
    source.unlink()
    what = f"memory of an upload of {size // MIB} MiB, checksum compared"
    required = f"at most {MOST_MEMORY}"
    return Row(what, f"{used:.0f} MB", "", f"{used:.0f}", f"{required} MB", bounded(used, required))


def memory_of_others(host: Host, quick: bool) -> list[Row]:
    """The same of what decompresses, goes out and is converted; xz has the largest dictionary that is taken."""
    size = (64 if quick else 512) * MIB
    source, packed, dest = (host.server.shared / name for name in ("large.raw", "large.raw.xz", "large.qcow2"))
    random_file(source, size)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 * MIB}]
    with open(source, "rb") as file, lzma.open(packed, "wb", filters=filters) as target:
        shutil.copyfileobj(file, target, MIB)
    given = {"uri": host.uri, "pool": POOL, "name": "ours.raw"}
    upload = {**given, "src": str(packed), "remote_src": True, "source_format": "raw", "compression": "xz"}
    download = {**given, "format": "raw", "dest": str(dest), "dest_format": "qcow2"}
    convert = {**given, "format": "raw", "to": {"format": "qcow2"}}
    found = []
    for name, options in (("upload", upload), ("download", download), ("convert", convert)):
        tasks = [{"name": name, f"kvm.storage.volume_{name}": options}]
        used, _seconds = host.controller.usage(tasks, changed=True)
        what = f"memory of volume_{name} of {size // MIB} MiB" + (" of xz -8" if name == "upload" else "")
        required = f"at most {MOST_MEMORY}"
        found.append(Row(what, f"{used:.0f} MB", "", f"{used:.0f}", f"{required} MB", bounded(used, required)))
    remove(host, POOL, "ours.raw")
    for path in (source, packed, dest):
        path.unlink()
    return found


def rows(host: Host, quick: bool) -> list[Row]:
    host.make_pool(POOL)
    try:
        return [*files(host, quick), memory(host, quick), *memory_of_others(host, quick), *ceph(host, quick)]
    finally:
        host.drop_pool(POOL)
