# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bytes on their way from one place to another in this process: sparse, hashed as they pass, decompressed with caps.

Sources: lseek(2), copy_file_range(2), posix_fadvise(2); RFC 1952; the .xz file format; zstd(1).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import queue
import re
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Callable, NamedTuple

from . import commands
from .errors import StorageError

BLOCK = 1 << 20  # what is read and written at once
CHUNK = 256 << 10  # of a compressed stream
PAGE = 4096  # the smallest hole that is looked for
WINDOW = 32 << 20  # after so much the system is asked to begin to write it to the disk
BUFFERS = 8
ZEROS, ZERO_PAGE = bytes(BLOCK), bytes(PAGE)
MOST_XZ_MEMORY = 40 << 20  # xz -8 needs 33 MiB; with the 65 MiB of xz -9 the module would have more than 100 MB
# Where the kernel can't copy between two descriptors by itself.
NO_OFFLOAD = frozenset(
    [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY, errno.EIO]
)

CHECKSUMS = ("sha256", "sha384", "sha512")
MAGICS = {b"\x1f\x8b": "gz", b"\xfd7zXZ\0": "xz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zst"}
SUFFIXES = {"gz": ".gz", "xz": ".xz", "bz2": ".bz2", "zst": ".zst"}

Blocks = Generator[bytes, None, None]
Read = Callable[[int], bytes]  # up to so many bytes; none at the end
Tick = Callable[[int], None]  # so many more bytes of the source have been dealt with


def silent(count: int) -> None:
    """Progress that nobody wants."""


class Caps(NamedTuple):
    """How large a stream may become: size bytes in all, and ratio bytes that are not zeros for each byte read.

    Zeros are free: they take no space, and the disk of a new guest is made of them.
    """

    size: int = 64 << 40
    ratio: int = 250
    free: int = 64 << 20  # up to here the ratio is not looked at


# Checksums ----------------------------------------------------------------------------------------------------------


class Hashing:
    """Digests of what passes, computed by a thread of their own."""

    def __init__(self, *names: str) -> None:
        self.digests = {name: hashlib.new(name) for name in names}
        self.free: queue.Queue[bytearray] = queue.Queue()
        self.waiting: queue.Queue[Any] = queue.Queue(BUFFERS)
        while self.free.qsize() < (BUFFERS if names else 1):
            self.free.put(bytearray(BLOCK))
        self.thread = threading.Thread(target=self.work, daemon=True) if names else None
        if self.thread is not None:
            self.thread.start()

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, *dummy: object) -> None:
        self.finish()

    def work(self) -> None:
        while True:
            item = self.waiting.get()
            if item is None:
                return
            data, count = item
            for digest in self.digests.values():
                if data is None:
                    update_zeros(digest, count)
                else:
                    digest.update(memoryview(data)[:count])
            if isinstance(data, bytearray):
                self.free.put(data)

    def buffer(self) -> bytearray:
        """A buffer of BLOCK bytes that nobody looks at any more; it comes back by take()."""
        return self.free.get()

    def take(self, buffer: bytearray, count: int) -> None:
        """The first bytes of a buffer that buffer() gave. The caller may go on reading it until it asks for another."""
        if self.thread is None:
            self.free.put(buffer)
        else:
            self.waiting.put((buffer, count))

    def update(self, data: bytes) -> None:
        if self.thread is not None and data:
            self.waiting.put((data, len(data)))

    def zeros(self, count: int) -> None:
        if self.thread is not None and count:
            self.waiting.put((None, count))

    def finish(self) -> dict[str, str]:
        """The digests by name, in hexadecimal digits."""
        if self.thread is not None:
            self.waiting.put(None)
            self.thread.join()
            self.thread = None
        return {name: digest.hexdigest() for name, digest in self.digests.items()}


def update_zeros(digest: Any, count: int) -> None:
    while count > 0:
        part = min(count, BLOCK)
        digest.update(ZEROS if part == BLOCK else ZEROS[:part])
        count -= part


def hashed(read: Read, hashing: Hashing) -> Read:
    """The same stream; all that is read of it is hashed."""

    def reading(count: int) -> bytes:
        data = read(count)
        hashing.update(data)
        return data

    return reading


def checksum_of(descriptor: int, name: str, tick: Tick = silent) -> str:
    """The digest of a file or device; holes are not read."""
    size = size_of(descriptor)
    with Hashing(name) as hashing:
        for kind, offset, length in extents(descriptor, size):
            if kind == "hole":
                hashing.zeros(length)
                tick(length)
                continue
            for piece in read_blocks(descriptor, offset, length, hashing):
                hashing.take(*piece[1:])
                tick(piece[2])
        return hashing.finish()[name]


# Places -------------------------------------------------------------------------------------------------------------


def size_of(descriptor: int) -> int:
    """The size of a file or block device, in bytes."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    return os.lseek(descriptor, 0, os.SEEK_END)


def extents(descriptor: int, size: int) -> Iterator[tuple[str, int, int]]:
    """("data" or "hole", offset, length) of the first bytes, as far as the file system tells."""
    offset = 0
    while offset < size:
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: a hole to the end, if that is where the end still is; else it is not told here, as of devices
            kind = "hole" if error.errno == errno.ENXIO and size_of(descriptor) >= size else "data"
            yield kind, offset, size - offset
            return
        if data > offset:
            yield "hole", offset, min(data, size) - offset
        if data >= size:
            return
        try:
            end = min(os.lseek(descriptor, data, os.SEEK_HOLE), size)
        except OSError:
            end = size
        yield "data", data, end - data
        offset = end


def read_blocks(descriptor: int, offset: int, length: int, hashing: Hashing) -> Iterator[tuple[int, bytearray, int]]:
    """(offset, buffer, count); the buffers go back to hashing by take()."""
    end = offset + length
    while offset < end:
        buffer = hashing.buffer()
        count = os.preadv(descriptor, [memoryview(buffer)[: min(BLOCK, end - offset)]], offset)
        if count == 0:
            raise OSError(errno.EIO, f"it ended {end - offset} bytes too early: something made it smaller meanwhile")
        yield offset, buffer, count
        offset += count


def runs(data: bytes | bytearray, count: int) -> Iterator[tuple[bool, int, int]]:
    """(whether it is zeros, from, to), at whole pages."""
    begin, zero = 0, False
    for at in range(0, count, PAGE):
        end = min(at + PAGE, count)
        now = data.startswith(ZEROS[: end - at] if end - at < PAGE else ZERO_PAGE, at, end)
        if at and now is not zero:
            yield zero, begin, at
            begin = at
        zero = now
    if count:
        yield zero, begin, count


class Target:
    """A new file in which bytes go where they belong: what is not written stays a hole."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.unsent: tuple[int, int] | None = None  # a range that is not on its way to the disk yet

    def write(self, view: memoryview, offset: int) -> None:
        while view:
            count = os.pwrite(self.descriptor, view, offset)
            self.sent(offset, count)
            view, offset = view[count:], offset + count

    def sent(self, offset: int, count: int) -> None:
        """The disk works while the next bytes are read: else all of it waits for the end."""
        begin, end = self.unsent or (offset, offset)
        if offset != end:
            begin = offset
        self.unsent = (begin, offset + count)
        if offset + count - begin >= WINDOW:
            os.posix_fadvise(self.descriptor, begin, offset + count - begin, os.POSIX_FADV_DONTNEED)
            self.unsent = None

    def finish(self, size: int) -> None:
        """It has its size, and all of it is on the disk."""
        os.ftruncate(self.descriptor, size)
        os.fsync(self.descriptor)


def copy(source: int, target: Target, hashing: Hashing, tick: Tick = silent) -> int:
    """Copy a file or device, and bring it to the disk; its size.

    Holes are not written. Without a digest the kernel copies by itself, which shares extents where the file system can.
    """
    size = size_of(source)
    offload = not hashing.digests
    for kind, offset, length in extents(source, size):
        if kind == "hole":
            hashing.zeros(length)
            tick(length)
            continue
        if offload:
            done = copy_by_kernel(source, target, offset, length, tick)
            offset, length = offset + done, length - done
            offload = length == 0
        for at, buffer, count in read_blocks(source, offset, length, hashing):
            hashing.take(buffer, count)
            put(target, buffer, count, at)
            tick(count)
    target.finish(size)
    return size


def copy_by_kernel(source: int, target: Target, offset: int, length: int, tick: Tick) -> int:
    """As many of the bytes as the kernel copies between the two by itself."""
    done = 0
    while done < length:
        part = min(length - done, 16 * BLOCK)
        try:
            count = os.copy_file_range(source, target.descriptor, part, offset + done, offset + done)
        except OSError as error:
            if error.errno not in NO_OFFLOAD:
                raise
            return done
        if count == 0:
            return done
        target.sent(offset + done, count)
        tick(count)
        done += count
    return done


def put(target: Target, data: bytes | bytearray, count: int, offset: int) -> None:
    """Write data without its zeros, which may have been holes."""
    view = memoryview(data)
    for zero, begin, end in runs(data, count):
        if not zero:
            target.write(view[begin:end], offset + begin)


def pour(blocks: Iterable[bytes], target: Target, hashing: Hashing | None = None) -> int:
    """Write a stream whose zeros may have been holes, and bring it to the disk; its size."""
    size = 0
    for block in blocks:
        if hashing is not None:
            hashing.update(block)
        put(target, block, len(block), size)
        size += len(block)
    target.finish(size)
    return size


# Compression --------------------------------------------------------------------------------------------------------


def compression_of(head: bytes) -> str:
    """gz, xz, bz2 or zst by the first bytes; else none."""
    return next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), "none")


def reader(descriptor: int) -> Read:
    """A descriptor from its beginning as a stream, wherever others move its offset to."""
    offset = [0]

    def read(count: int) -> bytes:
        data = os.pread(descriptor, count, offset[0])
        offset[0] += len(data)
        return data

    return read


def ticking(read: Read, tick: Tick) -> Read:
    """The same stream; each read is told."""

    def reading(count: int) -> bytes:
        data = read(count)
        tick(len(data))
        return data

    return reading


def after(head: bytes, read: Read) -> Read:
    """A stream that begins with what was already read of it."""
    waiting = [head]

    def reading(count: int) -> bytes:
        if not waiting[0]:
            return read(count)
        found, waiting[0] = waiting[0][:count], waiting[0][count:]
        return found

    return reading


def blocks_of(read: Read) -> Blocks:
    """A stream in blocks, whole but for the last one."""
    while True:
        parts, missing = [], BLOCK
        while missing:
            data = read(missing)
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        if missing:
            return


def decompressed(thing: str, read: Read, kind: str, caps: Caps) -> Iterator[bytes]:
    """The blocks of a stream in one of the SUFFIXES, or of none; refused as soon as it grows beyond the caps."""
    taken = [0]

    def reading(count: int) -> bytes:
        data = read(count)
        taken[0] += len(data)
        return data

    if kind == "none":
        blocks = blocks_of(reading)
    elif kind == "zst":
        blocks = zstd_blocks(thing, reading)
    else:
        blocks = members(thing, reading, kind)
    return capped(thing, blocks, taken, caps)


def capped(thing: str, blocks: Blocks, taken: list[int], caps: Caps) -> Iterator[bytes]:
    """The same blocks, up to what the caps allow for the bytes that were taken from the source."""
    total = solid = 0
    with contextlib.closing(blocks):  # a command that decompresses ends with it
        for block in blocks:
            total += len(block)
            if not ZEROS.startswith(block):
                solid += len(block)
            if total > caps.size:
                raise StorageError(
                    thing=thing,
                    code="too_large",
                    reason=f"the image is larger than {caps.size} bytes",
                    way_out="raise max_size if that is meant",
                )
            if solid > max(caps.free, caps.ratio * taken[0]):
                raise StorageError(
                    thing=thing,
                    code="decompression_bomb",
                    reason=f"{taken[0]} compressed bytes have become {solid}, more than {caps.ratio} times as many",
                    way_out="decompress it where it comes from if it is what you want",
                )
            yield block


class Inflater:
    """zlib's decompressor of one gzip member in the form of lzma's and bz2's."""

    def __init__(self) -> None:
        import zlib

        self.engine = zlib.decompressobj(31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self.engine.eof

    @property
    def unused_data(self) -> bytes:
        return self.engine.unused_data

    def decompress(self, data: bytes, most: int) -> bytes:
        found = self.engine.decompress(self.engine.unconsumed_tail + data, most)
        self.needs_input = not self.engine.unconsumed_tail
        return found


def member(kind: str) -> Any:
    """A decompressor of one member of a stream."""
    if kind == "gz":
        return Inflater()
    if kind == "bz2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_XZ_MEMORY)


def members(thing: str, read: Read, kind: str) -> Blocks:
    """A stream of one member after the other; zeros between and after them are padding."""
    magic = {name: magic for magic, name in MAGICS.items()}[kind]
    engine, data, inside = None, b"", False
    while True:
        if not data and (engine is None or engine.needs_input):
            data = read(CHUNK)
            if not data:
                if engine is not None or not inside:
                    raise broken(thing, kind, "it ends too early")
                return
        if engine is None:
            data = data.lstrip(b"\0") if inside else data
            while data and len(data) < len(magic) and magic.startswith(data):
                more = read(CHUNK)
                if not more:
                    break
                data += more
            if not data:
                continue
            if not data.startswith(magic):
                raise broken(thing, kind, "something else follows its end" if inside else "it does not begin as one")
            engine, inside = member(kind), True
        try:
            found = engine.decompress(data, BLOCK)
        except Exception as error:  # zlib.error, LZMAError, OSError, ValueError: each library has its own
            if kind == "xz" and "Memory usage limit" in str(error):
                raise hungry(thing) from error
            raise broken(thing, kind, " ".join(str(error).split()) or type(error).__name__) from error
        data = b""
        if found:
            yield found
        if engine.eof:
            data, engine = engine.unused_data, None


def hungry(thing: str) -> StorageError:
    """A dictionary that would be the module's memory."""
    return StorageError(
        thing=thing,
        code="bad_compression",
        reason=f"to decompress it takes more than {MOST_XZ_MEMORY >> 20} MiB of memory, as what 'xz -9' makes does",
        way_out="compress it by 'xz -8' or less, or by zstd",
    )


def broken(thing: str, kind: str, reason: str) -> StorageError:
    return StorageError(
        thing=thing,
        code="bad_compression",
        reason=f"it can't be decompressed as {kind}: {reason}",
        way_out="get it anew and compare its checksum, or say its compression",
    )


def zstd_blocks(thing: str, read: Read) -> Blocks:
    """By Python where it has zstd (3.14), else by the command."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        yield from through(thing, read, "zstd", "-d", "-q", "-f", "--no-sparse", "-M128MB")
        return
    engine, data, inside = zstd.ZstdDecompressor(), b"", False
    while True:
        if not data and engine.needs_input:
            data = read(CHUNK)
            if not data:
                break
            inside = True
        try:
            found = engine.decompress(data, BLOCK)
        except zstd.ZstdError as error:
            raise broken(thing, "zst", str(error)) from error
        data = b""
        if found:
            yield found
        if engine.eof:
            data, engine, inside = engine.unused_data, zstd.ZstdDecompressor(), bool(engine.unused_data)
    if inside:
        raise broken(thing, "zst", "it ends too early")


def compressed(thing: str, blocks: Iterator[bytes], kind: str) -> Iterator[bytes]:
    """A stream compressed on its way."""
    if kind == "zst":
        yield from through(thing, flowing(blocks), "zstd", "-q", "-f", "-T0")
        return
    if kind == "none":
        yield from blocks
        return
    engine = compressor(kind)
    for block in blocks:
        found = engine.compress(block)
        if found:
            yield found
    yield engine.flush()


def compressor(kind: str) -> Any:
    if kind == "gz":
        import zlib

        return zlib.compressobj(6, zlib.DEFLATED, 31)
    if kind == "bz2":
        import bz2

        return bz2.BZ2Compressor()
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=2)  # 6 takes 94 MiB of memory


def flowing(blocks: Iterator[bytes]) -> Read:
    """Blocks as a stream; whoever reads it takes what comes."""
    return lambda count: next(blocks, b"")


def through(thing: str, read: Read, *argv: str) -> Iterator[bytes]:
    """A stream through a command that reads and writes files: a thread runs it, another one feeds it.

    The pipes' inner ends stay open here until it has ended, so that whoever waits at an outer one is woken then.
    """
    failed: list[BaseException] = []
    ended: list[commands.Finished] = []
    inner_in, outer_in = os.pipe()
    outer_out, inner_out = os.pipe()

    def work() -> None:
        names = (f"/dev/fd/{inner_in}", "-o", f"/dev/fd/{inner_out}")
        try:
            ended.append(commands.run(*argv, *names, keep=[inner_in, inner_out]))
        except BaseException as error:
            failed.insert(0, error)
        finally:
            os.close(inner_in)
            os.close(inner_out)

    threads = [threading.Thread(target=feed, args=(read, outer_in, failed), daemon=True)]
    threads.append(threading.Thread(target=work, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield from blocks_of(lambda count: os.read(outer_out, count))
    finally:
        os.close(outer_out)
        for thread in threads:
            thread.join()
    if failed and isinstance(failed[0], FileNotFoundError):
        raise StorageError(
            thing=thing,
            code="missing_command",
            reason=f"there is no command {argv[0]} on this host",
            way_out=f"install the package {argv[0]}, or use another compression",
        ) from failed[0]
    if failed:
        raise failed[0]
    if ended[0].returncode != 0:
        words = re.sub(r"/(dev/fd/\d+|\*stdin\*\\)\s*:?", "", ended[0].stderr)
        raise broken(thing, "zst", " ".join(words.split()) or f"{argv[0]} ended with {ended[0].returncode}")


def feed(read: Read, descriptor: int, failed: list[BaseException]) -> None:
    try:
        while True:
            view = memoryview(read(CHUNK))
            if not view:
                return
            while view:
                view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        return  # the command tells why it ended
    except BaseException as error:
        failed.append(error)
    finally:
        os.close(descriptor)
