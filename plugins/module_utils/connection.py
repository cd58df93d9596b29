# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One libvirt connection: opened, asked, and its errors put into the collection's form.

Look-ups answer None for what is not there and are remembered for the run; forget() drops what
a step made stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable
from urllib.parse import urlsplit

from .errors import StorageError

try:
    import libvirt
except ImportError:  # reconcile respawns or names the package before anything here is called
    libvirt = None

LOCK_FOLDER = "/run/kvm.storage"
PROBE_SECONDS = 3.0
LISTING_SECONDS = 60.0  # libvirt lists pools at once, unless it is stuck in one of them
READERS, AT_ONCE = 3, 50  # threads that read volumes ahead, and how many each takes at a time


def words(error: Exception) -> str:
    """libvirt's own words, on one line, without its prefix."""
    message = error.get_error_message() if hasattr(error, "get_error_message") else str(error)
    return " ".join((message or str(error) or type(error).__name__).split())


def number(error: Exception) -> int:
    """libvirt's error number (virErrorNumber), 0 for any other exception."""
    return error.get_error_code() if hasattr(error, "get_error_code") else 0


def is_local(uri: str) -> bool:
    """Whether the daemon behind a URI runs on this machine, so that files and commands are the same ones."""
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    return not parts.netloc and transport in ("", "unix")


def is_served(uri: str) -> bool:
    """Whether somebody may answer: of the system's own daemon the sockets tell, of any other only asking does."""
    sockets = ("libvirt-sock", "virtqemud-sock")
    return uri != "qemu:///system" or any(os.path.exists(f"/run/libvirt/{name}") for name in sockets)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What the call returns; TimeoutError when it is not back in time.

    libvirt has no way to cancel a storage call: it goes on in the daemon, the thread is left behind.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = call()
        except Exception as error:  # handed to the caller's thread below
            outcome["error"] = error

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        raise TimeoutError
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def retrying(call: Callable[[], Any], seconds: float = 10.0) -> Any:
    """A call that is refused for a while: a volume of the pool is being made, or udev looks at a zvol that was."""
    signs = ("asynchronous jobs running", "still being allocated", "dataset is busy")
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except libvirt.libvirtError as error:
            busy = any(sign in words(error) for sign in signs)
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def answers(host: str, port: int, seconds: float) -> bool:
    """Whether something takes TCP connections there."""
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=seconds):
            return True
    except (OSError, UnicodeError):
        return False


def volume_xml(handle: Any) -> str:
    """The XML of a volume. What its header names need not be text, and a guest may have written it."""
    try:
        return handle.XMLDesc(0)
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "backslashreplace")


def described(handles: dict[str, Any]) -> dict[str, str]:
    """The XML of volumes by name, without those whose error is for who asks next to meet."""
    found = {}
    for name, handle in handles.items():
        with contextlib.suppress(libvirt.libvirtError):
            found[name] = volume_xml(handle)
    return found


def lock_folder() -> str:
    """Where the locks of this user's runs lie; nobody else can write there."""
    folder = LOCK_FOLDER
    if os.geteuid() != 0:
        base = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.cache")
        folder = os.path.join(base, "kvm.storage")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


class Connection:
    """An open libvirt connection and what was learnt over it in this run."""

    def __init__(self, raw: Any, uri: str) -> None:
        self.raw, self.uri, self.local = raw, uri, is_local(uri)
        self._pools: dict[str, Any] | None = None
        self._secrets: list | None = None
        self._volumes: dict[str, dict[str, Any]] = {}
        self._active: dict[str, bool] = {}
        self._expected: dict[str, list[str]] = {}
        self._ahead: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, Any] = {}
        self._unseen: set[str] = set()
        self._showing = threading.Lock()

    @classmethod
    def open(cls, uri: str) -> Connection:
        """Connect, or say which URI did not answer and why."""
        libvirt.registerErrorHandler(lambda context, error: None, None)
        try:
            return cls(libvirt.open(uri), uri)
        except libvirt.libvirtError as error:
            raise StorageError(
                thing=uri,
                code="no_connection",
                reason=words(error),
                way_out="check that libvirtd (or virtstoraged and virtqemud) runs there and that this user may use it",
            ) from None

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.raw.close()

    # look-ups

    def pools(self) -> dict[str, Any]:
        """Every pool by name, active or not."""
        if self._pools is None:
            self._pools = {pool.name(): pool for pool in self.list_pools()}
        return self._pools

    def list_pools(self) -> list:
        try:
            return within(LISTING_SECONDS, lambda: self.raw.listAllStoragePools(0))
        except TimeoutError:
            raise StorageError(
                thing=self.uri,
                code="timeout",
                reason=f"libvirt has not listed its pools after {LISTING_SECONDS:.0f} s: it waits for storage itself, "
                "most likely for a mounted share whose server is gone",
                way_out="bring the server back, or give the mount up with 'umount -f -l', then run this again",
            ) from None

    def pool(self, name: str) -> Any:
        """The pool, or None."""
        return self.pools().get(name)

    def active(self, name: str) -> bool:
        """Whether there is such a pool and it runs."""
        if name not in self._active:
            handle = self.pool(name)
            self._active[name] = handle is not None and bool(handle.isActive())
        return self._active[name]

    def volumes(self, pool: str) -> dict[str, Any]:
        """The volumes of an active pool by name; empty for any other."""
        if pool in self._unseen:
            self.show(pool)
        if pool not in self._volumes:
            found = self.pool(pool).listAllVolumes(0) if self.active(pool) else []
            self._volumes[pool] = {volume.name(): volume for volume in found}
        return self._volumes[pool]

    def unseen(self, pool: str) -> None:
        """Say that a pool has got a file that libvirt has not seen: shown before anybody looks, or when all is done."""
        self._unseen.add(pool)

    def show(self, pool: str) -> None:
        """Let libvirt look at what it has not seen of a pool."""
        with self._showing:
            if pool not in self._unseen:
                return
            handle = self.pool(pool)
            if handle is not None and handle.isActive():
                retrying(lambda: handle.refresh(0))
            self._unseen.discard(pool)
            self.forget(pool)

    def add(self, pool: str, name: str, handle: Any) -> None:
        """Remember a volume that libvirt has made, where its neighbours are known."""
        if pool in self._volumes:
            self._volumes[pool][name] = handle

    def expect(self, pool: str, names: list[str]) -> None:
        """Say which volumes of a pool will be read: the XML of many is fetched by threads, ahead of who reads it."""
        if len(names) > AT_ONCE:
            self._expected[pool] = names

    def volume_xml(self, pool: str, name: str) -> str:
        """The XML of a listed volume. What was fetched ahead is given out once: who looks again sees what is there."""
        if pool in self._expected:
            self._ahead[pool] = self.fetch(pool, self._expected.pop(pool))
        fetched = self._ahead.get(pool, {}).pop(name, None)
        found = fetched.result().get(name) if fetched is not None else None
        return volume_xml(self.volumes(pool)[name]) if found is None else found

    def fetch(self, pool: str, names: list[str]) -> dict[str, Any]:
        """The future that will hold the XML of each listed volume, some at a time."""
        from concurrent.futures import ThreadPoolExecutor  # 5 ms that most runs do not need

        wanted = set(names)
        handles = {name: handle for name, handle in self.volumes(pool).items() if name in wanted}
        listed = [name for name in names if name in handles]
        threads, found = ThreadPoolExecutor(READERS), {}
        for start in range(0, len(listed), AT_ONCE):
            some = listed[start : start + AT_ONCE]
            found.update(dict.fromkeys(some, threads.submit(described, {name: handles[name] for name in some})))
        threads.shutdown(wait=False)
        return found

    def once(self, look: str, make: Callable[[], Any]) -> Any:
        """What a look over the whole host shows, taken once until something is forgotten."""
        if look not in self._looks:
            self._looks[look] = make()
        return self._looks[look]

    def secrets(self) -> list:
        """Every secret that libvirt keeps."""
        if self._secrets is None:
            try:
                self._secrets = list(self.raw.listAllSecrets(0))
            except libvirt.libvirtError as error:
                raise StorageError(
                    thing=self.uri,
                    code="unsupported",
                    reason=f"this connection keeps no secrets ({words(error)})",
                    way_out="use a URI of the whole hypervisor such as qemu:///system",
                ) from None
        return self._secrets

    def secret_by_uuid(self, uuid: str) -> Any:
        return next((secret for secret in self.secrets() if secret.UUIDString() == uuid), None)

    def secret_by_usage(self, usage: int, name: str) -> Any:
        return next((one for one in self.secrets() if one.usageType() == usage and one.usageID() == name), None)

    def domains(self) -> list:
        """Every defined or running domain; a guard that needs them refuses when they can't be seen."""
        try:
            return list(self.raw.listAllDomains(0))
        except Exception as error:
            raise StorageError(
                thing=self.uri,
                code="guard_unavailable",
                reason=f"the domains that may use this storage can't be listed ({words(error)})",
                way_out="use a connection that shows them, such as qemu:///system",
            ) from None

    def forget(self, pool: str | None = None) -> None:
        """Drop what a step made stale: all of it, or the volumes of one pool."""
        self._looks = {}
        if pool is None:
            self._pools, self._secrets, self._volumes, self._active, self._ahead = None, None, {}, {}, {}
        else:
            self._volumes.pop(pool, None)
            self._ahead.pop(pool, None)
            self._active.pop(pool, None)

    # one controller at a time

    @contextlib.contextmanager
    def locked(self, names: list[str], seconds: float) -> Iterator[None]:
        """Hold the locks of the named pools (or other things) on this connection.

        They are flock(2) locks, taken in order of name, and end with the process.
        """
        held: list[tuple[int, str]] = []
        deadline = time.monotonic() + seconds
        try:
            for name in sorted(set(names)):
                digest = hashlib.sha256(f"{self.uri}\0{name}".encode()).hexdigest()[:32]
                path = os.path.join(lock_folder(), f"{digest}.lock")
                held.append((take_lock(path, name, deadline), path))
            yield
        finally:
            for descriptor, path in held:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # while it is held: whoever waits for it sees that it has gone, and makes it anew
                os.close(descriptor)


def take_lock(path: str, name: str, deadline: float) -> int:
    """A descriptor that holds the lock of the file that has the path, also after the holder before removed it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            wait_for_lock(descriptor, name, deadline)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def wait_for_lock(descriptor: int, name: str, deadline: float) -> None:
    """Take the lock, or say after the deadline that another run holds it."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    thing=name,
                    code="busy",
                    reason="another run of this collection works on it",
                    way_out="let it finish, or raise lock_timeout",
                ) from None
            time.sleep(0.05)
