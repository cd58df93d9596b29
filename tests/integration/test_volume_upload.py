# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images become volumes of real backends: what a guest sees is what was in the image, and nothing half made stays."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import importlib
import lzma
import operator
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, make_image, mutable, qemu_img
from tests.integration.inputs.counts import SOAK
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode

SIZE = 8 * MIB
MARK = b"kvm.storage: this disk is not whole yet; the run that writes it was not finished\n"
FORMATS = ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"]


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    """An empty pool of files."""
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    yield scratch / "images"
    mutable(scratch)


def pattern(seed: int, size: int) -> bytes:
    return b"".join(hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(size // 32))


def raw_image(path: Path, seed: int = 1, size: int = SIZE) -> Path:
    """A raw disk with data in its middle."""
    with open(path, "wb") as file:
        file.seek(MIB)
        file.write(pattern(seed, 3 * MIB))
        file.truncate(size)
    return path


def image(folder: Path, form: str, seed: int = 1, size: int = SIZE) -> Path:
    """The same disk in a format."""
    raw = raw_image(folder / f"image-{seed}.raw", seed, size)
    if form == "raw":
        return raw
    path = folder / f"image-{seed}.{form}"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, str(raw), str(path)], check=True)
    return path


def seen(*argv: str) -> bytes:
    """What a guest sees, without the zeroes at its end; argv are the arguments of qemu-img that name the image."""
    out = Path(f"/var/tmp/upload-{os.getpid()}.raw")
    try:
        subprocess.run(["qemu-img", "convert", "-O", "raw", *argv, str(out)], check=True, capture_output=True)
        return out.read_bytes().rstrip(b"\0")
    finally:
        out.unlink(missing_ok=True)


def disk(seed: int = 1) -> bytes:
    return bytes(MIB) + pattern(seed, 3 * MIB)


def upload(name: str, src: Path, form: str, **more: Any) -> dict[str, Any]:
    return {"pool": "images", "name": name, "src": str(src), "remote_src": True, "source_format": form, **more}


def checksum(path: Path, name: str = "sha256") -> str:
    return f"{name}:{hashlib.new(name, path.read_bytes()).hexdigest()}"


# into files


@pytest.mark.parametrize("form", FORMATS)
def test_from_every_format(host: Host, images: Path, scratch: Path, form: str) -> None:
    source = image(scratch, form)
    own = form if form != "vhdx" else "raw"
    host.converge("volume_upload", ["upload"], source.name, **upload("as-it-comes", source, form))
    host.converge("volume_upload", ["upload"], **upload("other", source, form, format="qcow2", cluster_size="4KiB"))
    assert seen("-f", own, str(images / "as-it-comes")) == disk()
    assert seen("-f", "qcow2", str(images / "other")) == disk()
    assert qemu_img("-f", "qcow2", images / "other")["cluster-size"] == 4096
    assert [path.stat().st_mode & 0o777 for path in images.iterdir()] == [0o600, 0o600]
    assert sorted(host.volumes("images")) == ["as-it-comes", "other"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", None)]
)
def test_compressed(host: Host, images: Path, scratch: Path, suffix: str, pack: Any) -> None:
    plain = image(scratch, "qcow2")
    source = scratch / "image.packed"
    if pack is None:
        subprocess.run(["zstd", "-q", str(plain), "-o", str(source)], check=True)
    else:
        source.write_bytes(pack(plain.read_bytes()))
    given = {"checksum": checksum(source, "sha512")}
    done = host.converge("volume_upload", ["upload"], **upload("a.qcow2", source, "qcow2", **given))
    assert (done["checksum"], done["transferred"]["bytes"]) == (given["checksum"], source.stat().st_size)
    host.converge("volume_upload", ["upload"], **upload("a.raw", source, "qcow2", **given, format="raw"))
    assert (images / "a.qcow2").read_bytes() == plain.read_bytes()
    assert seen("-f", "raw", str(images / "a.raw")) == disk()
    host.failed("volume_upload", "format_mismatch", **upload("b.qcow2", source, "qcow2", compression="none"))
    assert sorted(os.listdir(images)) == ["a.qcow2", "a.raw"]


def test_it_is_as_sparse_as_its_source_and_grows(host: Host, images: Path, scratch: Path) -> None:
    source = raw_image(scratch / "large.raw", size=1 << 28)
    permissions = {"mode": "0640"}
    wanted = upload("large.raw", source, "raw", capacity="512MiB", permissions=permissions, checksum=checksum(source))
    host.converge("volume_upload", ["upload"], **wanted)
    found = (images / "large.raw").stat()
    assert (found.st_size, found.st_blocks, found.st_mode & 0o777) == (512 * MIB, source.stat().st_blocks, 0o640)
    assert seen("-f", "raw", str(images / "large.raw")) == disk()
    host.refused("volume_upload", "would_shrink", **upload("small.raw", source, "raw", capacity="1MiB"))


def test_replace(host: Host, images: Path, scratch: Path) -> None:
    one, two = image(scratch, "qcow2", seed=1), image(scratch, "qcow2", seed=2)
    host.ok("volume_upload", **upload("a.qcow2", one, "qcow2", permissions={"mode": "0640"}))
    there = (images / "a.qcow2").stat().st_ino
    host.unchanged("volume_upload", **upload("a.qcow2", two, "qcow2"))
    host.unchanged("volume_upload", **upload("a.qcow2", one, "qcow2", replace=True))
    host.unchanged("volume_upload", **upload("a.qcow2", image(scratch, "raw"), "raw", format="qcow2", replace=True))
    assert (images / "a.qcow2").stat().st_ino == there
    wanted = upload("a.qcow2", two, "qcow2", replace=True)
    host.converge("volume_upload", ["replace"], "another", "DESTROYS DATA", two.name, **wanted)
    assert seen("-f", "qcow2", str(images / "a.qcow2")) == disk(2)
    assert (images / "a.qcow2").stat().st_mode & 0o777 == 0o640
    assert os.listdir(images) == ["a.qcow2"]


def test_who_must_not_be_using_it(host: Host, images: Path, scratch: Path) -> None:
    one, two = image(scratch, "qcow2", seed=1), image(scratch, "qcow2", seed=2)
    wanted = upload("a.qcow2", two, "qcow2", replace=True)
    host.ok("volume_upload", **upload("a.qcow2", one, "qcow2"))
    host.ok("volume", pool="images", name="a.qcow2", format="qcow2", immutable=True)
    host.refused("volume_upload", "immutable", **wanted)
    host.ok("volume", pool="images", name="a.qcow2", format="qcow2", immutable=False)
    over = {"pool": "images", "name": "over.qcow2", "format": "qcow2"}
    host.ok("volume", **over, backing={"volume": "a.qcow2", "format": "qcow2"})
    host.refused("volume_upload", "has_overlays", "over.qcow2", **wanted)
    host.ok("volume", **over, state="absent")
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web", disk_xml(f"{images}/a.qcow2", driver="qcow2"))
        host.refused("volume_upload", "in_use", "'web' (running)", **wanted)
        guest.destroy()
    assert seen("-f", "qcow2", str(images / "a.qcow2")) == disk(1)
    host.converge("volume_upload", ["replace"], **wanted)


# what may not come in


def hostile(folder: Path) -> dict[str, tuple[Path, str, str]]:
    """(image, declared format, code) by name."""
    canary = folder / "canary"
    canary.write_bytes(b"host file" * 1000)
    backed = make_image("qcow2", folder / "backed.qcow2", "8M", "-b", str(canary), "-F", "raw")
    raw = make_image("raw", folder / "disk.raw", "8M")
    with open(raw, "r+b") as file:
        file.write(backed.read_bytes()[:4096])  # what a guest can write
    data = make_image("qcow2", folder / "data.qcow2", "8M", "-o", f"data_file={folder}/data.raw")
    flat = make_image("vmdk", folder / "flat.vmdk", "8M", "-o", "subformat=monolithicFlat")
    huge = make_image("qcow2", folder / "huge.qcow2", "1P")
    packed = folder / "backed.qcow2.gz"
    packed.write_bytes(gzip.compress(backed.read_bytes()))
    return {
        "a backing file": (backed, "qcow2", "backing_file"),
        "declared raw": (backed, "raw", "format_mismatch"),
        "a raw disk with a header": (raw, "qcow2", "backing_file"),
        "a raw disk as declared": (raw, "raw", "format_mismatch"),
        "a data file": (data, "qcow2", "data_file"),
        "extents": (flat, "vmdk", "external_extents"),
        "1 PiB": (huge, "qcow2", "too_large"),
        "a backing file, compressed": (packed, "qcow2", "backing_file"),
    }


def test_hostile_images_are_refused_before_any_tool_reads_them(host: Host, images: Path, tmp_path: Path) -> None:
    with mock.patch(f"{UTILS}qemu_img.run", side_effect=AssertionError("a tool was asked")):
        for path, form, code in hostile(tmp_path).values():
            for wanted in ({}, {"format": "raw"}, {"format": "qcow2", "cluster_size": "4KiB"}):
                host.failed("volume_upload", code, **upload("x", path, form, **wanted))
                assert os.listdir(images) == []


@pytest.mark.parametrize("form", ["qcow2", "vdi", "vmdk", "vhdx"])
def test_half_an_image_is_none(host: Host, images: Path, scratch: Path, form: str) -> None:
    """Its headers are whole; what its tables lead to would read as zeroes."""
    source = image(scratch, form)
    os.truncate(source, source.stat().st_size // 2)
    for wanted in ({}, {"format": "raw"}):
        result = host.run("volume_upload", **upload("x", source, form, **wanted))
        assert result.get("failed") and result["code"] in ("corrupt", "truncated", "backend_refused"), result
        assert os.listdir(images) == []


def test_what_is_not_as_it_should_be_leaves_nothing(host: Host, images: Path, scratch: Path) -> None:
    source = image(scratch, "raw")
    bomb = scratch / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"bomb" * (20 * MIB), 9))
    broken = scratch / "broken.gz"
    broken.write_bytes(gzip.compress(source.read_bytes())[:-1000])
    (scratch / "fifo").unlink(missing_ok=True)
    os.mkfifo(scratch / "fifo")
    wrong = {"checksum": "sha256:" + "0" * 64}
    for path, code, more in [
        (source, "checksum_mismatch", wrong),
        (source, "checksum_mismatch", {**wrong, "format": "qcow2"}),
        (bomb, "decompression_bomb", {}),
        (bomb, "decompression_bomb", {"format": "qcow2"}),
        (broken, "bad_compression", {}),
        (bomb, "too_large", {"max_size": "32MiB"}),
        (source, "bad_compression", {"compression": "xz"}),
    ]:
        host.failed("volume_upload", code, **upload("x", path, "raw", **more))
        assert os.listdir(images) == []
    host.refused("volume_upload", "no_source", **upload("x", scratch / "none", "raw"))
    host.refused("volume_upload", "not_a_file", **upload("x", scratch / "fifo", "raw"))
    host.refused("volume_upload", "bad_value", **upload("x", source, "raw", checksum="md5:00"))
    host.refused("volume_upload", "bad_value", "max_size", **upload("x", source, "raw", max_size="much"))
    host.refused("volume_upload", "no_space", **upload("x", source, "raw", capacity="900TiB", overcommit="refuse"))
    host.refused("volume_upload", "bad_name", **upload("-x", source, "raw"))
    host.refused("volume_upload", "no_pool", **upload("x", source, "raw", pool="none"))


# from a server


@pytest.fixture
def server(scratch: Path) -> Iterator[str]:
    """An http server of the scratch directory, whose connections break after 1 MiB."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = (scratch / self.path.strip("/")).read_bytes()
            begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[begin : begin + MIB])

        def log_message(self, *dummy: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


def test_from_a_server(host: Host, images: Path, scratch: Path, server: str) -> None:
    source = image(scratch, "qcow2")
    other = image(scratch, "qcow2", seed=2)
    sums = scratch / "SHA256SUMS"
    sums.write_text("".join(f"{checksum(path)[7:]}  {path.name}\n" for path in (other, source)))
    wanted = {"pool": "images", "name": "a.qcow2", "source_format": "qcow2", "url_networks": ["127.0.0.0/8"]}
    wanted |= {"url": f"{server}/{source.name}", "checksum": f"sha256:{server}/SHA256SUMS"}
    host.refused("volume_upload", "no_checksum", **wanted)  # who can change the one on its way can change the other
    wanted |= {"validate_certs": False}
    done = host.converge("volume_upload", ["upload"], source.name, **wanted)
    assert done["checksum"] == checksum(source)
    assert (images / "a.qcow2").read_bytes() == source.read_bytes()
    host.converge("volume_upload", ["upload"], **{**wanted, "name": "b.raw", "format": "raw"})
    assert seen("-f", "raw", str(images / "b.raw")) == disk()
    host.unchanged("volume_upload", **{**wanted, "name": "b.raw", "format": "raw", "replace": True})
    host.refused("volume_upload", "internal_address", **{**wanted, "name": "x", "url_networks": []})
    host.refused("volume_upload", "no_checksum", **{**wanted, "name": "x", "checksum": None, "validate_certs": True})
    host.refused("volume_upload", "credentials_in_url", **{**wanted, "name": "x", "url": "http://a:b@127.0.0.1/x"})
    silent = wanted["url"].replace("127.0.0.1", "127.0.0.3")
    host.failed("volume_upload", "fetch_failed", **{**wanted, "name": "x", "url": silent})
    host.failed("volume_upload", "checksum_mismatch", **{**wanted, "name": "x", "checksum": checksum(other)})
    assert sorted(os.listdir(images)) == ["a.qcow2", "b.raw"]


def test_a_server_is_asked_once_for_what_is_compared(host: Host, images: Path, scratch: Path, server: str) -> None:
    """What is written is what was compared, also where the server has another file by then."""
    source = image(scratch, "qcow2")
    host.ok("volume_upload", **upload("a.qcow2", image(scratch, "qcow2", seed=2), "qcow2"))
    given = {"pool": "images", "name": "a.qcow2", "source_format": "qcow2", "url_networks": ["127.0.0.0/8"]}
    given |= {"url": f"{server}/{source.name}", "checksum": checksum(source), "replace": True}
    real, offsets = importlib.import_module(f"{UTILS}fetch").Download.request, []

    def request(self: Any) -> Any:
        offsets.append(self.offset)
        return real(self)

    with mock.patch(f"{UTILS}fetch.Download.request", request):
        done = host.ok("volume_upload", **given)
    assert offsets.count(0) == 1
    assert done["transferred"]["bytes"] == source.stat().st_size
    assert (images / "a.qcow2").read_bytes() == source.read_bytes()


def test_a_guest_that_comes_while_the_image_comes_in(host: Host, images: Path, scratch: Path) -> None:
    """Who uses the volume is asked again before it is overwritten."""
    host.ok("volume_upload", **upload("a.qcow2", image(scratch, "qcow2"), "qcow2"))
    before = (images / "a.qcow2").read_bytes()
    wanted = upload("a.qcow2", image(scratch, "qcow2", seed=2), "qcow2", replace=True)
    for step in ("upload:Upload.is_same", "transfer:grow_file"):
        module, name = step.split(":")
        real = operator.attrgetter(name)(importlib.import_module(UTILS + module))

        def starting(*given: Any, real: Any = real) -> Any:
            found = real(*given)
            with connected(host.uri) as connection:
                start_guest(connection, "web", disk_xml(f"{images}/a.qcow2", driver="qcow2"))
            return found

        with (
            mock.patch(f"{UTILS}{module}.{name}", starting),
            mock.patch(f"{UTILS}chain.image_locked", return_value=False),
        ):
            host.failed("volume_upload", "in_use", "'web'", **wanted, capacity="1GiB")
        with connected(host.uri) as connection:
            connection.lookupByName("web").destroy()
        assert (images / "a.qcow2").read_bytes() == before


def test_a_source_that_somebody_writes(host: Host, images: Path, scratch: Path) -> None:
    """A mixture of two states of a disk is no image."""
    source = image(scratch, "raw")
    wanted = upload("a.raw", source, "raw")
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web", disk_xml(str(source)))
        host.failed("volume_upload", "in_use", "a QEMU process writes it", **wanted)
        guest.destroy()
    real = importlib.import_module(f"{UTILS}streams").copy

    def written(*given: Any) -> Any:
        found = real(*given)
        with open(source, "r+b") as file:
            file.write(b"something else")
        return found

    with mock.patch(f"{UTILS}streams.copy", written):
        host.failed("volume_upload", "changed", "while it was read", **wanted)
    assert os.listdir(images) == []


def test_what_is_replaced_needs_room_beside_it(host: Host, images: Path, scratch: Path, server: str) -> None:
    host.ok("volume_upload", **upload("a.qcow2", image(scratch, "qcow2"), "qcow2"))
    other = image(scratch, "qcow2", seed=2)
    with mock.patch(f"{UTILS}headroom.space", return_value=(1 << 30, 65536)):
        host.refused("volume_upload", "no_space", "at once", **upload("a.qcow2", other, "qcow2", replace=True))
    wanted = {"pool": "images", "name": "a.qcow2", "source_format": "qcow2", "replace": True}
    wanted |= {"url": f"{server}/{other.name}", "url_networks": ["127.0.0.0/8"], "checksum": checksum(other)}
    before = (images / "a.qcow2").read_bytes()
    little = os.statvfs_result((4096, 4096, 1 << 30, 16, 16, 0, 0, 0, 0, 255))
    with mock.patch("os.fstatvfs", return_value=little), mock.patch(f"{UTILS}streams.pour", side_effect=AssertionError):
        host.failed("volume_upload", "no_space", "64.0 KiB left", **wanted)
    assert (images / "a.qcow2").read_bytes() == before


def test_what_would_be_lost_is_not_replaced(host: Host, images: Path, scratch: Path) -> None:
    other = image(scratch, "qcow2", seed=2)
    host.ok("volume_upload", **upload("a.qcow2", image(scratch, "qcow2"), "qcow2"))
    host.ok("volume_snapshot", pool="images", name="a.qcow2", format="qcow2", snapshot="one")
    host.refused("volume_upload", "has_snapshots", **upload("a.qcow2", other, "qcow2", replace=True))
    host.ok("secret", usage="volume", usage_name="key", value="sesame")
    encryption = {"secret_usage": "key"}
    luks = {"pool": "images", "name": "luks.qcow2", "format": "qcow2", "capacity": "8MiB", "encryption": encryption}
    host.ok("volume", **luks)
    for _each in range(2):
        host.refused("volume_upload", "unsupported", "encrypted", **upload("luks.qcow2", other, "qcow2", replace=True))
        host.ok("volume_info", pool="images", refresh=True)


# into other backends


def test_rbd(host: Host, scratch: Path, ceph: Ceph) -> None:
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    login = f"rbd:rbd/web01:conf={ceph.root}/ceph.conf:id=admin:keyring={ceph.keyring()}"
    one, two = image(scratch, "qcow2"), image(scratch, "qcow2", seed=2)
    wanted = {**upload("web01", one, "qcow2"), "pool": "vms"}
    host.converge("volume_upload", ["upload"], **wanted)
    assert seen("-f", "raw", login) == disk()
    packed = scratch / "two.gz"
    packed.write_bytes(gzip.compress(two.read_bytes()))
    host.unchanged("volume_upload", **{**wanted, "replace": True})
    given = {"src": str(packed), "checksum": checksum(packed), "replace": True}
    host.converge("volume_upload", ["replace"], **{**wanted, **given})
    assert seen("-f", "raw", login) == disk(2)
    larger = image(scratch, "raw", seed=3, size=2 * SIZE)
    host.refused("volume_upload", "no_space", **{**upload("web01", larger, "raw", replace=True), "pool": "vms"})
    host.ok("volume", pool="vms", name="web01", state="absent")
    for source, form, reads in ((one, "qcow2", 1), (image(scratch, "raw", seed=4), "raw", 0)):
        with mock.patch(f"{UTILS}transfer.verify") as verify:  # Ceph checks what it is given, but no conversion
            host.ok("volume_upload", **{**upload("web01", source, form), "pool": "vms"})
        assert verify.call_count == reads, form
        assert seen("-f", "raw", login) == disk(4 if form == "raw" else 1)
        host.ok("volume", pool="vms", name="web01", state="absent")
    assert ceph.run("rbd", "ls", "rbd").split() == []


def test_lun(host: Host, scratch: Path, iscsi: Target) -> None:
    with open(iscsi.root / "open-1.img", "r+b") as lun:
        lun.write(bytes(SIZE))
    pool = {"name": "luns", "target_iqn": iscsi.iqn_open, "initiator_iqn": iscsi.initiator}
    host.ok("pool_iscsi_direct", **pool, hosts=[{"name": iscsi.host, "port": iscsi.port}])
    wanted = {**upload("unit:0:0:1", image(scratch, "qcow2"), "qcow2"), "pool": "luns"}
    host.unchanged("volume_upload", **wanted)
    host.converge("volume_upload", ["replace"], "DESTROYS DATA", **{**wanted, "replace": True})
    assert seen("-f", "raw", f"iscsi://{iscsi.host}:{iscsi.port}/{iscsi.iqn_open}/1") == disk()
    host.refused("volume_upload", "unsupported", **{**wanted, "name": "unit:0:0:9"})


@pytest.mark.skipif(not SOAK, reason="libgfapi takes ten seconds a look; test_matrix.py does it once")
def test_gluster(host: Host, scratch: Path, gluster: Gluster) -> None:
    url = f"gluster://{gluster.host}/{gluster.volume}/web01.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw", url, str(SIZE)], check=True, capture_output=True)
    host.ok("pool_gluster", name="bricks", hosts=[{"name": gluster.host}], source_name=gluster.volume)
    wanted = {**upload("web01.raw", image(scratch, "qcow2"), "qcow2", replace=True), "pool": "bricks"}
    host.converge("volume_upload", ["replace"], **wanted)
    assert seen("-f", "raw", url) == disk()
    host.refused("volume_upload", "unsupported", **{**wanted, "name": "web02.raw"})


def test_partition(host: Host, scratch: Path, disk_node: DiskNode) -> None:
    host.ok("pool_disk", name="data", device=str(disk_node.node), source_format="gpt", build="if_blank")
    one, device = f"{disk_node.node.name}1", f"{disk_node.node}1"
    wanted = {**upload(one, image(scratch, "vmdk"), "vmdk", capacity="16MiB"), "pool": "data"}
    host.converge("volume_upload", ["upload"], **wanted)
    assert seen("-f", "raw", device) == disk()
    other = {**wanted, "src": str(image(scratch, "raw", seed=2)), "source_format": "raw"}
    host.unchanged("volume_upload", **other)
    host.converge("volume_upload", ["replace"], **{**other, "replace": True})
    assert seen("-f", "raw", device) == disk(2)
    # a run that was killed while it wrote: known by its mark, and done again
    with open(device, "r+b") as file:
        file.write(MARK)
    host.converge("volume_upload", ["replace"], "unfinished", **wanted)
    assert seen("-f", "raw", device) == disk()
    with open(device, "rb") as opened:
        assert struct.unpack("16s", opened.read(16))[0] == bytes(16)
        subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
        point = scratch / "mnt"
        point.mkdir()
        subprocess.run(["mount", device, point], check=True)
        try:
            host.refused("volume_upload", "in_use", **{**other, "replace": True})
        finally:
            subprocess.run(["umount", point], check=True)


def test_layout(host: Host, images: Path, scratch: Path) -> None:
    """An image is the beginning of a volume, and what the item says besides is kept up afterwards."""
    image = make_image("qcow2", scratch / "image.qcow2", "8M")
    item = {"pool": "images", "name": "web.raw", "format": "raw", "source": {"path": str(image), "format": "qcow2"}}
    done = host.converge("layout", ["volume 'images/web.raw': upload"], "image.qcow2", volumes=[item])
    assert done["plan"]["create"] == 1
    assert (images / "web.raw").stat().st_size == 8 << 20
    grown = {**item, "capacity": "16MiB", "permissions": {"mode": "0640"}}
    wanted = [f"volume 'images/web.raw': {step}" for step in ("resize", "set_permissions")]
    host.converge("layout", wanted, volumes=[grown])
    wrong = {**item, "name": "other.raw", "source": {"path": str(image), "format": "raw"}}
    host.refused("layout", "format_mismatch", volumes=[wrong])
    host.refused("layout", "format_undeclared", volumes=[{**wrong, "source": {"path": str(image)}}])
    outside = {"path": str(make_image("qcow2", scratch / "o.qcow2", "8M", "-b", str(image), "-F", "qcow2"))}
    host.refused("layout", "backing_file", volumes=[{**wrong, "source": {**outside, "format": "qcow2"}}])
