# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image that comes in: a file of this host or of a web server, perhaps compressed, held open and checked."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import block, exclusive, fetch, files, headroom, intake, nodes, progress, qemu_img, sizes, streams
from .errors import StepFailed, StorageError, bad_value
from .headers import inspect

COMPRESSIONS = ("auto", "none", "gz", "xz", "bz2", "zst")
MOST_ATTEMPTS = 3  # at a download that can't be continued where it broke
LARGEST = "64TiB"

SPEC: dict[str, Any] = {
    "src": {"type": "path"},
    "remote_src": {"type": "bool", "default": False},
    "url": {"type": "str"},
    "checksum": {"type": "str"},
    "compression": {"type": "str", "choices": list(COMPRESSIONS), "default": "auto"},
    "source_format": {"type": "str", "choices": list(intake.IMPORTED), "required": True},
    "max_size": {"type": "str", "default": LARGEST},
    "staging_directory": {"type": "path"},
    **fetch.SPEC,
}


class Incoming:
    """Where an image comes from, by the options of SPEC.

    moved has the bytes and seconds that were spent on it, checksum what was computed on the way.
    """

    def __init__(self, thing: str, params: dict[str, Any]) -> None:
        self.thing, self.params = thing, params
        self.path, self.url = params.get("src"), params.get("url")
        self.format = params["source_format"]
        self.rules = fetch.options(params, thing)
        self.most = self.size_of("max_size", params.get("max_size") or LARGEST)
        self.caps = streams.Caps(size=self.most)
        self.limits = replace(intake.LIMITS, virtual_size=self.most)
        self.name = fetch.file_name(self.url) if self.url else os.path.basename(self.path or "")
        self.here = bool(self.url) or bool(params.get("remote_src"))
        self.moved = {"bytes": 0, "seconds": 0.0}
        self.checksum = ""
        self.wanted: tuple[str, str] | None = None
        self.descriptor: int | None = None
        self.staged: int | None = None
        check_checksum(thing, params.get("checksum"))
        if self.url:
            self.check_url(self.url)

    def size_of(self, option: str, value: str) -> int:
        try:
            return sizes.parse(value)
        except ValueError as error:
            raise bad_value(self.thing, option, value, str(error)) from error

    def check_url(self, url: str) -> None:
        """What can be said of an address before anybody is asked."""
        parts = fetch.check_url(self.thing, url)
        checksum = self.params.get("checksum") or ""
        if parts.scheme == "http" and self.rules.verify and (not checksum or ":http:" in checksum):
            raise StorageError(
                thing=self.thing,
                code="no_checksum",
                reason="nothing would tell what http gives from what somebody on the way makes of it",
                way_out="give the checksum itself, or an https address for it or for the image",
            )

    # what it is

    def open(self) -> int | None:
        """The file itself; None for what a server has, or what is not on this host."""
        if self.url or not self.here:
            return None
        if self.descriptor is None:
            path = self.path or ""
            try:
                self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError as error:
                way_out = "look at src" if error.errno != errno.ENOENT else "give src as it is on this host"
                raise self.refused("no_source", f"{path} can't be read ({error.strerror})", way_out) from error
            mode = os.fstat(self.descriptor).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
                raise self.refused("not_a_file", f"{path} is no plain file", "give a file or a block device")
        return self.descriptor

    def compression(self) -> str | None:
        """How it is compressed, as said or as it begins; None where it is not here yet."""
        given = self.params.get("compression") or "auto"
        if given != "auto":
            return str(given)
        descriptor = self.open()
        return streams.compression_of(os.pread(descriptor, 16, 0)) if descriptor is not None else None

    def plain(self) -> int | None:
        """The file where it is an image as it stands, so that a tool could read it."""
        return self.open() if self.compression() == "none" else None

    def capacity(self) -> int | None:
        """What a guest will see of it, where that can be told already; an image that may not come in is refused."""
        descriptor = self.plain() if self.staged is None else self.staged
        return self.inspect(descriptor) if descriptor is not None else None

    def data(self) -> int:
        """The bytes that it takes where it is, as far as it can be told already."""
        descriptor = self.plain() if self.staged is None else self.staged
        return os.fstat(descriptor).st_blocks * 512 if descriptor is not None else 0

    def inspect(self, descriptor: int) -> int:
        """The virtual size of an image that may come in."""
        found = inspect(descriptor, self.format)
        for refusal in intake.refusals(found, self.format, self.limits)[:1]:
            raise nodes.refused(self.thing, refusal)
        return found.virtual_size or 0

    def prepare(self) -> None:
        """Look up the checksum that it must have."""
        text = self.params.get("checksum")
        if text and self.wanted is None:
            self.wanted = fetch.checksum(self.thing, text, self.name, self.rules, self.url or "")

    # its bytes

    def pour_into(self, descriptor: int) -> int:
        """All of it, decompressed, into a new file, whose size is the answer; the checksum is of the bytes as given."""
        self.prepare()
        began, attempts = time.monotonic(), 0
        while attempts < MOST_ATTEMPTS:
            attempts += 1
            os.ftruncate(descriptor, 0)
            try:
                size = self.pour(streams.Target(descriptor))
            except fetch.Restart:
                continue
            self.moved["seconds"] += time.monotonic() - began
            return size
        reason = f"{fetch.shown(self.url or '')} broke off {MOST_ATTEMPTS} times, and does not give parts of a file"
        raise self.refused("fetch_failed", reason, "look at the server, or bring the file here and give src")

    def pour(self, target: streams.Target) -> int:
        if self.staged is not None:  # what was compared, and no second look at a server that may have changed
            with streams.Hashing() as none, progress.told("upload", streams.size_of(self.staged)) as tick:
                return streams.copy(self.staged, target, none, tick)
        names = [self.wanted[0]] if self.wanted else []
        with streams.Hashing(*names) as hashing:
            descriptor = self.plain()
            if descriptor is not None:
                exclusive.unwritten(self.thing, descriptor)
                before = state(descriptor)
                with progress.told("upload", streams.size_of(descriptor)) as tick:
                    size = streams.copy(descriptor, target, hashing, tick)
                self.moved["bytes"] += size
                self.require_unchanged(descriptor, before)
            else:
                with self.stream() as given, progress.told("upload", given[1]) as tick:
                    read = streams.hashed(streams.ticking(given[0], self.counted(tick)), hashing)
                    size = self.unpack(read, target, given[1])
            self.compare(hashing.finish())
        return size

    def counted(self, tick: streams.Tick) -> streams.Tick:
        def count(size: int) -> None:
            self.moved["bytes"] += size
            tick(size)

        return count

    def unpack(self, read: streams.Read, target: streams.Target, total: int | None) -> int:
        """Decompress on the way; what follows the end of the image belongs to the checksum, too."""
        kind = self.compression()
        if kind is None:
            head = b""
            while len(head) < 16:
                more = read(16 - len(head))
                if not more:
                    break
                head += more
            kind, read = streams.compression_of(head), streams.after(head, read)
        if total is not None and (kind != "none" or self.format != "raw"):  # which may be all zeros
            self.require_room(target.descriptor, total)
        blocks = streams.decompressed(self.thing, read, kind, self.caps)
        return streams.pour(blocks, target)

    def require_room(self, descriptor: int, total: int) -> None:
        """There is room for so many bytes where a file lies, and for more where they are compressed."""
        there = os.fstatvfs(descriptor)
        free, where = there.f_bavail * there.f_frsize, "the file system that it comes to"
        headroom.check(self.thing, total, 0, None, free, headroom.Policy("allow"), where)

    @contextlib.contextmanager
    def stream(self) -> Iterator[tuple[streams.Read, int | None]]:
        """The bytes as they are given, and their number."""
        descriptor = self.open()
        if descriptor is not None:
            yield streams.reader(descriptor), streams.size_of(descriptor)
            return
        if not self.url:
            reason = f"{self.path} was to be brought from the controller, and was not"
            raise self.refused(
                "no_source", reason, "run this as the task kvm.storage.volume_upload, or give remote_src"
            )
        rules = fetch.Rules(**{**vars(self.rules), "size": self.most})
        with fetch.Download(self.thing, self.url, rules) as download:
            if not download.framed and not self.wanted:
                reason = f"{fetch.shown(self.url)} does not tell its size, so that a part would pass for the whole"
                raise self.refused("no_checksum", reason, "give checksum")
            yield download.read, download.total

    def compare(self, digests: dict[str, str]) -> None:
        """Refuse what is not what was asked for."""
        for name, digest in digests.items():
            self.checksum = f"{name}:{digest}"
        if self.wanted and digests[self.wanted[0]] != self.wanted[1]:
            reason = f"its {self.wanted[0]} is {digests[self.wanted[0]]}, not {self.wanted[1]}"
            raise self.refused("checksum_mismatch", reason, "get it anew, or look up its checksum; nothing was changed")

    @contextlib.contextmanager
    def node(self, directory: str) -> Iterator[nodes.Node]:
        """The image for a tool: the file itself, or a copy without a name; its checksum was compared."""
        descriptor = self.staged
        if descriptor is None:
            descriptor = self.plain()
            if descriptor is not None:
                self.verify_file(descriptor)
            else:
                descriptor = nameless(directory)
                self.pour_into(descriptor)
                self.staged = descriptor
        before = state(descriptor)
        with nodes.image(self.thing, descriptor, self.format, self.limits) as node:
            self.check_tables(node)
            yield nodes.sized(self.thing, node)
        self.require_unchanged(descriptor, before)

    def require_unchanged(self, descriptor: int, before: tuple[int, ...]) -> None:
        """What was read is one state of the file, and no mixture."""
        if state(descriptor) != before:
            raise self.refused("changed", f"{self.path} was changed while it was read", "end that, and run this again")

    def check_tables(self, node: nodes.Node) -> None:
        """All that its tables lead to is there: what is cut off would read as zeroes."""
        if node.format == "raw":
            return
        try:
            qemu_img.check(self.thing, node)
        except StepFailed as error:
            raise self.refused("corrupt", f"its tables are damaged ({error.reason})", "get it anew") from error

    def verify_file(self, descriptor: int) -> None:
        """Compare the checksum of a file that is read where it is."""
        self.prepare()
        size = streams.size_of(descriptor)
        self.moved["bytes"] = size
        if self.wanted and not self.checksum:
            with progress.told("verify", size) as tick:
                self.compare({self.wanted[0]: streams.checksum_of(descriptor, self.wanted[0], tick=tick)})

    def refused(self, code: str, reason: str, way_out: str) -> StorageError:
        return StorageError(thing=self.thing, code=code, reason=reason, way_out=way_out)


def state(descriptor: int) -> tuple[int, ...]:
    """What is another one when somebody has written a file or device."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode):
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return block.written(descriptor)


def nameless(directory: str) -> int:
    """A file that nobody else can open, and that is gone with this process."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    own = f"{files.LEFTOVER}{files.this_host()}-{os.getpid()}-"
    descriptor, path = tempfile.mkstemp(prefix=own, dir=directory)
    os.unlink(path)
    return descriptor


def check_checksum(thing: str, text: str | None) -> None:
    """The form of a checksum; a list is looked up later."""
    if text and not re.match(r"(sha256|sha384|sha512):(https?:|[0-9A-Fa-f]+$)", text):
        raise StorageError(
            thing=thing,
            code="bad_value",
            reason=f"checksum can't be {text!r}",
            way_out="give sha256: and 64 hexadecimal digits, or sha256: and the address of a list of checksums",
        )
