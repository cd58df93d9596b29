# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies are whole and as sparse as what they are of; streams are decompressed with caps, and broken ones refused."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import random
import shutil
import subprocess

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands, streams
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

MIB = 1 << 20
NOISE = random.Random(4).randbytes(MIB + 517)
CAPS = streams.Caps()
KINDS = [
    "gz",
    "xz",
    "bz2",
    pytest.param("zst", marks=pytest.mark.skipif(shutil.which("zstd") is None, reason="there is no zstd here")),
]


def sparse(path, pieces, size):
    """A file with data at offsets, and holes elsewhere."""
    with open(path, "wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return os.open(path, os.O_RDONLY)


def fresh(path):
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)


def packed(data, kind):
    if kind == "zst":
        return subprocess.run(["zstd", "--stdout", "--quiet"], input=data, capture_output=True, check=True).stdout
    return {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}[kind](data)


def reading(data, most=None):
    """A stream that gives its bytes in pieces of at most so many."""
    place = [0]

    def read(count):
        begin = place[0]
        place[0] = min(begin + min(count, most or count), len(data))
        return data[begin : place[0]]

    return read


def unpacked(data, kind, caps=CAPS, most=None):
    return b"".join(streams.decompressed("image", reading(data, most), kind, caps))


ZSTD = ("zstd", "-q", "-f")


def run_command(argv, environ_update, handle_exceptions, pass_fds):
    """AnsibleModule.run_command as far as it is used here."""
    done = subprocess.run(argv, env=environ_update, pass_fds=pass_fds, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def runner(monkeypatch):
    monkeypatch.setattr(commands, "runner", run_command)


PIECES = [
    ([(0, NOISE)], len(NOISE)),
    ([(5 * MIB, NOISE), (40 * MIB, b"x")], 64 * MIB + 512),
    ([(MIB, b"end")], MIB + 3),
    ([], 8 * MIB),
    ([], 0),
]


@pytest.mark.parametrize(("pieces", "size"), PIECES)
@pytest.mark.parametrize("names", [(), ("sha256",), ("sha256", "sha512")])
@pytest.mark.parametrize("offload", [True, False])
def test_a_copy_has_the_content_the_size_and_the_holes(tmp_path, monkeypatch, pieces, size, names, offload):
    if not offload:

        def refusing(*dummy):
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(streams.os, "copy_file_range", refusing)
    source = sparse(tmp_path / "source", pieces, size)
    target = fresh(tmp_path / "target")
    told = []
    with streams.Hashing(*names) as hashing:
        copied = streams.copy(source, streams.Target(target), hashing, told.append)
        digests = hashing.finish()
    content = (tmp_path / "source").read_bytes()
    assert (copied, sum(told)) == (size, size)
    assert (tmp_path / "target").read_bytes() == content
    assert digests == {name: hashlib.new(name, content).hexdigest() for name in names}
    assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks + 8
    assert streams.checksum_of(target, "sha256") == hashlib.sha256(content).hexdigest()


def test_zeros_that_were_written_become_holes(tmp_path):
    source = sparse(tmp_path / "source", [(0, bytes(4 * MIB) + NOISE + bytes(4 * MIB))], 12 * MIB)
    target = fresh(tmp_path / "target")
    size = streams.pour(streams.blocks_of(streams.reader(source)), streams.Target(target))
    assert size == 12 * MIB
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert os.fstat(target).st_blocks * 512 <= len(NOISE) + 2 * streams.PAGE


def test_a_source_that_shrinks_is_an_error(tmp_path):
    source = sparse(tmp_path / "source", [(0, NOISE)], len(NOISE))
    target = streams.Target(fresh(tmp_path / "target"))
    with streams.Hashing("sha256") as hashing, pytest.raises(OSError, match="too early"):
        streams.copy(source, target, hashing, lambda count: os.truncate(tmp_path / "source", count))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [None, 997])
def test_streams_are_decompressed(kind, most):
    content = NOISE + bytes(5 * MIB) + NOISE
    assert unpacked(packed(content, kind), kind, most=most) == content


@pytest.mark.parametrize("kind", KINDS)
def test_streams_of_several_members_are_one(kind):
    assert unpacked(packed(NOISE, kind) + packed(b"and", kind) + packed(NOISE, kind), kind) == NOISE + b"and" + NOISE


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_padding_belongs_to_a_stream(kind):
    assert unpacked(packed(NOISE, kind) + bytes(8) + packed(b"and", kind) + bytes(512), kind) == NOISE + b"and"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], ""),
        (lambda data: data[:-3], ""),
        (lambda data: data[: len(data) // 2] + b"\0" * 64 + data[len(data) // 2 + 64 :], ""),
        (lambda data: data + b"something else", ""),
        (lambda data: b"", ""),
        (lambda data: b"\0" + data, ""),
        (lambda data: NOISE, ""),
    ],
    ids=["half", "without end", "damaged", "more", "empty", "shifted", "other"],
)
def test_broken_streams_are_refused(kind, damage, words):
    """Whatever part of them is missing, changed or foreign: a prefix never passes for the whole."""
    with pytest.raises(StorageError, match=f"decompressed as {kind}") as caught:
        unpacked(damage(packed(NOISE, kind)), kind)
    assert caught.value.code == "bad_compression"


@pytest.mark.parametrize("kind", KINDS)
def test_bombs_are_refused_while_they_unfold(kind):
    caps = streams.Caps(size=1 << 40, ratio=20, free=MIB)
    seen = 0
    with pytest.raises(StorageError) as caught:
        for block in streams.decompressed("image", reading(packed(b"bomb" * (8 * MIB), kind)), kind, caps):
            seen += len(block)
    assert caught.value.code == "decompression_bomb"
    assert seen < 16 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_are_no_bomb_but_have_a_size(kind):
    data = packed(bytes(32 * MIB), kind)
    assert len(unpacked(data, kind, streams.Caps(ratio=2, free=MIB))) == 32 * MIB
    with pytest.raises(StorageError) as caught:
        unpacked(data, kind, streams.Caps(size=16 * MIB))
    assert caught.value.code == "too_large"


def test_a_large_dictionary_is_refused():
    """It would be the module's memory."""
    for size in (64, 256):  # as xz -9 has, and more
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": size * MIB}]
        with pytest.raises(StorageError, match="more than 40 MiB of memory.*xz -8"):
            unpacked(lzma.compress(NOISE, filters=filters), "xz")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 * MIB}]  # as xz -8 has
    assert unpacked(lzma.compress(NOISE, filters=filters), "xz") == NOISE


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_streams_are_compressed(kind):
    data = b"".join(streams.compressed("image", streams.blocks_of(reading(NOISE)), kind))
    assert streams.compression_of(data) == kind
    assert unpacked(data, kind) == NOISE


def test_what_feeds_a_command_and_fails_is_the_error():
    def read(count):
        raise OSError(errno.EIO, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(streams.through("image", read, *ZSTD))


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(StorageError, match="install the package none-such"):
        list(streams.through("image", reading(b""), "none-such"))


def test_a_stream_that_is_given_up_ends_its_command():
    blocks = streams.through("image", os.urandom, *ZSTD)
    next(blocks)
    blocks.close()
    assert subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", "zstd"], check=False).returncode == 1


def test_file_system_that_does_not_tell_of_holes(monkeypatch):
    """All of it is data then."""
    descriptor, seek = os.memfd_create("disk"), os.lseek

    def blind(descriptor, offset, whence):
        if whence == os.SEEK_DATA:
            raise OSError(22, "Invalid argument")
        return seek(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", blind)
    os.ftruncate(descriptor, 5000)
    assert list(streams.extents(descriptor, 5000)) == [("data", 0, 5000)]
    os.close(descriptor)


def test_runs_are_whole_pages():
    data = bytes(8192) + b"x" + bytes(4095) + bytes(100)
    assert list(streams.runs(data, len(data))) == [(True, 0, 8192), (False, 8192, 12288), (True, 12288, 12388)]
