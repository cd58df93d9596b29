# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The other end of a move to another host: a program that ssh runs there from its own text, and that needs no other.

It is told over a socket what to do, one JSON object a line: look at a volume of a pool of files; make a hidden file and
lend it to qemu-nbd; give it its name. When the connection ends before that, the file goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from typing import Any

WAIT = 60.0  # seconds until somebody must have connected, and qemu-nbd be ready
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AT_FDCWD, RENAME_NOREPLACE = -100, 1
PR_SET_PDEATHSIG = 1  # prctl(2)
FILES = ("dir", "fs", "netfs", "vstorage")


class Failed(Exception):
    """What went wrong: a word for programs, and one for people."""


def identity(path: str) -> list[int]:
    """What tells a file of a share from another one on any host; opened, so that it is asked anew."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        status = os.fstat(descriptor)
        return [status.st_ino, status.st_size, status.st_mtime_ns]
    finally:
        os.close(descriptor)


class Receiver:
    """One volume of one pool. folder is where the sockets are."""

    def __init__(self, folder: str, uri: str, pool: str, name: str, prefix: str) -> None:
        self.folder, self.uri, self.pool, self.name, self.prefix = folder, uri, pool, name, prefix
        self.hidden, self.lender = "", 0

    def handle(self) -> Any:
        import libvirt  # what this host lacks is said over the socket

        libvirt.registerErrorHandler(lambda context, error: None, None)
        return libvirt.open(self.uri).storagePoolLookupByName(self.pool)

    def directory(self) -> str:
        """The pool's directory, where volumes are files; mounted where the pool mounts it."""
        from xml.etree import ElementTree  # libvirt's own words

        handle = self.handle()
        tree = ElementTree.fromstring(handle.XMLDesc(0))
        kind, path = tree.get("type"), tree.findtext("target/path") or ""
        if kind not in FILES:
            raise Failed("unsupported", f"pool {self.pool!r} there is of type {kind}, and its volumes are no files")
        if not handle.isActive():
            raise Failed("pool_inactive", f"pool {self.pool!r} is inactive there")
        if kind in ("fs", "netfs") and not os.path.ismount(os.path.realpath(path)):
            raise Failed("not_mounted", f"pool {self.pool!r} is active there, but nothing is mounted on {path}")
        return path

    def look(self, given: dict[str, Any]) -> dict[str, Any]:
        directory = self.directory()
        path, status = os.path.join(directory, self.name), os.statvfs(directory)
        plain = not os.path.lexists(path) or (os.path.isfile(path) and not os.path.islink(path))
        return {
            "path": path,
            "exists": os.path.lexists(path),
            "listed": self.name in self.handle().listVolumes(),
            "plain": plain and (not os.path.lexists(path) or os.lstat(path).st_nlink == 1),
            "identity": identity(path),
            "available": status.f_bavail * status.f_frsize,
        }

    def receive(self, given: dict[str, Any]) -> dict[str, Any]:
        """A hidden file of a size, to be written; what killed runs of the same sender left goes first."""
        directory = self.directory()
        for name in os.listdir(directory):
            if name.startswith(self.prefix):
                os.unlink(os.path.join(directory, name))
        descriptor, self.hidden = tempfile.mkstemp(prefix=self.prefix, dir=directory)
        os.ftruncate(descriptor, given["size"])
        os.close(descriptor)
        self.lend(self.hidden, [])
        return {}

    def show(self, given: dict[str, Any]) -> dict[str, Any]:
        """The volume that is there, to be read."""
        self.lend(os.path.join(self.directory(), self.name), ["--read-only"])
        return {}

    def lend(self, path: str, options: list[str]) -> None:
        place = os.path.join(self.folder, "nbd")
        argv = ["qemu-nbd", "--persistent", "--format=raw", f"--socket={place}", *options, "--", path]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        program = shutil.which(argv[0], path=PATH)
        if program is None:
            raise Failed("missing_command", "qemu-nbd is not on that host; install qemu-utils or qemu-img")
        libc, mine = ctypes.CDLL(None), os.getpid()
        self.lender = os.fork()
        if not self.lender:
            try:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # it ends with this process, however that ends
                if os.getppid() != mine:
                    os._exit(127)
                os.execve(program, argv, {"PATH": PATH, "LC_ALL": "C"})
            finally:
                os._exit(127)
        deadline = time.monotonic() + WAIT
        while not os.path.exists(place):
            if os.waitpid(self.lender, os.WNOHANG)[0]:
                self.lender = 0
                raise Failed("backend_refused", "qemu-nbd has ended there at once; somebody may have the file open")
            if time.monotonic() > deadline:
                raise Failed("timeout", f"qemu-nbd is not ready there after {WAIT:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.lender:
            os.kill(self.lender, signal.SIGTERM)
            os.waitpid(self.lender, 0)
            self.lender = 0

    def publish(self, given: dict[str, Any]) -> dict[str, Any]:
        """The hidden file is whole: it gets its mode, its size and its name, which nobody else has."""
        self.stop()
        directory = os.path.dirname(self.hidden)
        path = os.path.join(directory, self.name)
        descriptor = os.open(self.hidden, os.O_RDWR | os.O_NOFOLLOW)
        os.ftruncate(descriptor, given["size"])
        os.fchmod(descriptor, given["mode"])
        os.fsync(descriptor)
        os.close(descriptor)
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        names = (AT_FDCWD, os.fsencode(self.hidden), AT_FDCWD, os.fsencode(path), RENAME_NOREPLACE)
        if rename is None or rename(*names) != 0:
            os.link(self.hidden, path)  # a file system that knows no such rename, or a name that is taken
            os.unlink(self.hidden)
        self.hidden = ""
        descriptor = os.open(directory, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        return self.refresh({})

    def refresh(self, given: dict[str, Any]) -> dict[str, Any]:
        """libvirt looks at the pool."""
        self.handle().refresh(0)
        return {}

    def end(self) -> None:
        self.stop()
        if self.hidden:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.hidden)

    def answer(self, line: str) -> dict[str, Any]:
        given = json.loads(line)
        try:
            if given["do"] not in ("look", "receive", "show", "publish", "refresh"):
                raise Failed("bad_value", f"nothing is called {given['do']!r}")
            return {"ok": getattr(self, given["do"])(given)}
        except Failed as error:
            code, words = error.args
            return {"code": code, "error": words}
        except Exception as error:  # whatever it is, the other side says it
            return {"code": "backend_refused", "error": " ".join(str(error).split()) or type(error).__name__}


def main(folder: str, uri: str, pool: str, name: str, prefix: str) -> None:
    """Wait for one connection, and serve it to its end."""
    os.umask(0o077)
    os.mkdir(folder, 0o700)
    receiver = Receiver(folder, uri, pool, name, prefix)

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(1)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.path.join(folder, "control"))
        listener.listen(1)
        listener.settimeout(WAIT)
        connection = listener.accept()[0]
        connection.settimeout(None)
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            for line in stream:
                stream.write(json.dumps(receiver.answer(line)) + "\n")
                stream.flush()
    finally:
        receiver.end()
        for one in os.listdir(folder):
            os.unlink(os.path.join(folder, one))
        os.rmdir(folder)
