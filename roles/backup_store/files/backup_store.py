# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup repositories of this host, as the role kvm.storage.backup_store declares them.

  backup-store due NAME          what its timer does: prune, and a check where one is due
  backup-store check NAME        check the repository, and read a portion of its data
  backup-store prune NAME        remove what the retention does not keep
  backup-store prove NAME        a small blob in, listed, restored, compared, and removed again
  backup-store run NAME WORD...  restic or borg with these words, on this repository

The role itself uses init, rekey, configure and look.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

CONF = "/etc/backup-store"
STATE = "/var/lib/backup-store"
UNITS = "/etc/systemd/system"
SHARED = (
    "/usr/local/sbin/backup-store",
    f"{UNITS}/backup-store@.service",
    f"{UNITS}/backup-store@.timer",
    CONF,
    STATE,
)
OWN = {  # what lies in a repository of each tool, and nothing else
    "restic": re.compile(r"config|data|index|keys|locks|snapshots"),
    "borg": re.compile(r"README|config|data|nonce|transactions|lock\.(exclusive|roster)|(hints|index|integrity)\.\d+"),
}
LOCKS = {"restic": "locks/*", "borg": "lock.exclusive"}
KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
PERIODS = {"weekly": 7, "monthly": 30}
PORTIONS = {"restic": ("5%", r"all|\d+(\.\d+)?%|\d+[KMGT]|\d+/\d+"), "borg": ("600s", r"all|\d+s")}
BLOB = 1 << 20
LOOK_SECONDS = 300
# archives are SERIES-DATE; each series is pruned by itself
SERIES = re.compile(r"(.+?)([-_.@])\d{4}-\d\d-\d\d")
DATE = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


class Failure(Exception):
    """What is wrong, in words for people."""


class Unseen(Failure):
    """The tool is not here, so nothing can be said."""


def size(text: Any) -> int:
    """Bytes of 10GiB, 10G, 10GB or 10737418240, as libvirt reads them."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:([kmgtp])(i?b)?|b|bytes)?\s*", str(text).lower())
    if not match:
        raise ValueError(text)
    power = " kmgtp".index(match.group(2) or " ")
    return int(match.group(1)) * (1000 if match.group(3) == "b" else 1024) ** power


def least(text: str, whole: int) -> int:
    """Bytes of a threshold: 10%, or a size."""
    return int(whole * float(text[:-1]) / 100) if text.endswith("%") else size(text)


def mount_of(path: str) -> str:
    """The mount point below which a path lies, or will lie."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def there(path: str) -> str:
    """A path, or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def free(path: str) -> tuple[int, int]:
    """Bytes that are free where a path lies, and how many there are."""
    space = os.statvfs(there(path))
    return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str) -> None:
    """A file of root's alone, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), encoding="utf-8", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(file.name, path)


class Repository:
    """One repository. password is None where the tool reads the file of it."""

    def __init__(self, conf: dict[str, Any], password: str | None = None, base: str = "") -> None:
        self.conf, self.password = conf, password
        self.name, self.tool, self.path = conf["name"], conf["tool"], conf["path"]
        self.local = not conf["host"]
        self.base = base or f"{STATE}/{self.name}"
        self.password_file = f"{CONF}/{self.name}.password"
        self.known_hosts = f"{CONF}/{self.name}.known_hosts"
        self.pin_file = f"{CONF}/{self.name}.id"

    def with_password(self, password: str) -> Repository:
        other = Repository(self.conf, password, self.base)
        other.known_hosts = self.known_hosts
        return other

    # talking to the tools

    def ssh(self) -> list[str]:
        conf = self.conf
        options = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4"]
        if conf["host_key"]:
            options += [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes"]
        if conf["private_key_file"]:
            options += [f"IdentityFile={conf['private_key_file']}", "IdentitiesOnly=yes"]
        return [word for option in options for word in ("-o", option)]

    def location(self) -> str:
        if self.local:
            return self.path
        conf = self.conf
        if self.tool == "borg":
            return f"ssh://{conf['user']}@{conf['host']}:{conf['port']}{self.path}"
        return f"sftp:{conf['user']}@{conf['host']}:{self.path}"

    def environment(self) -> dict[str, str]:
        found = {**os.environ, "LC_ALL": "C.UTF-8"}
        found = {key: value for key, value in found.items() if not key.startswith(("RESTIC_", "BORG_"))}
        found.setdefault("HOME", "/root")
        if self.tool == "restic":
            found.update(RESTIC_REPOSITORY=self.location(), RESTIC_CACHE_DIR=f"{self.base}/cache")
            key, value = "RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE"
        else:
            found.update(BORG_REPO=self.location(), BORG_BASE_DIR=self.base, BORG_RSH=shlex.join(["ssh", *self.ssh()]))
            key, value = "BORG_PASSPHRASE", "BORG_PASSCOMMAND"
        if self.password is not None:
            found[key] = self.password
        else:
            found[value] = f"cat {self.password_file}" if self.tool == "borg" else self.password_file
        return found

    def argv(self, *words: str) -> list[str]:
        if self.tool == "borg" or self.local:
            return [self.tool, *words]
        conf = self.conf
        way = ["ssh", *self.ssh(), "-p", str(conf["port"]), f"{conf['user']}@{conf['host']}", "-s", "sftp"]
        return [self.tool, "--option", f"sftp.command={shlex.join(way)}", *words]

    def call(self, *words: str, data: bytes | None = None, seconds: int | None = None, **more: str) -> bytes:
        """What the tool prints; more are variables of its environment."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        try:
            done = subprocess.run(
                self.argv(*words),
                env={**self.environment(), **more},
                capture_output=True,
                timeout=seconds,
                check=False,
                **given,
            )
        except FileNotFoundError:
            raise Unseen(f"there is no {self.tool} on this host") from None
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.tool} {words[0]} has not ended after {seconds} s") from None
        if done.returncode:
            raise Failure(
                self.words(done.stderr.decode(errors="replace")) or f"{self.tool} ended with {done.returncode}"
            )
        return done.stdout

    def show(self, *words: str) -> None:
        """Run the tool, which says itself what it does."""
        sys.stdout.flush()
        done = subprocess.run(self.argv(*words), env=self.environment(), stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise Failure(f"{self.tool} {words[0]} ended with {done.returncode}")

    def words(self, text: str) -> str:
        """The end of what a tool said, on one line."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines and lines[0].startswith("{"):
            logged = [json.loads(line) for line in lines if line.startswith("{")]
            told = [(one.get("levelname"), one.get("message", "")) for one in logged]
            lines = [text for level, text in told if level in ("ERROR", "CRITICAL") or text.startswith("Remote: ")]
            lines = [line.splitlines()[0] for line in lines if line.strip()]
        return ": ".join(lines[-3:])

    # what there is

    def open(self) -> str:
        """The identity of the repository, which only its password tells."""
        if self.tool == "restic":
            # asks for no lock and leaves no cache
            found = self.call("--no-lock", "--no-cache", "cat", "config", seconds=LOOK_SECONDS)
            return json.loads(found)["id"]
        found = self.call("--log-json", "list", "--json", "--bypass-lock", "--last", "1", seconds=LOOK_SECONDS)
        whole = json.loads(found)
        if whole.get("encryption", {}).get("mode") == "none":
            raise Failure("the repository is not encrypted")
        return whole["repository"]["id"]

    def entries(self) -> list[str]:
        """What lies in the folder, here or on the server."""
        if self.local:
            with contextlib.suppress(FileNotFoundError):
                return sorted(os.listdir(self.path))
            return []
        conf = self.conf
        way = ["sftp", *self.ssh(), "-P", str(conf["port"]), "-b", "-", f"{conf['user']}@{conf['host']}"]
        done = subprocess.run(
            way, input=f"ls -1a {self.path}\n", capture_output=True, text=True, timeout=LOOK_SECONDS, check=False
        )
        if done.returncode and "not found" not in done.stderr:
            raise Failure(self.words(done.stderr))
        lines = [line.strip() for line in done.stdout.splitlines() if not line.startswith("sftp>")]
        return sorted({os.path.basename(line) for line in lines} - {"", ".", ".."})

    def holds(self) -> str:
        """Of which tool a local folder holds a repository; empty where it holds nothing, and other for the rest."""
        entries = self.entries()
        if not entries:
            return ""
        with contextlib.suppress(OSError):
            if not os.path.isfile(f"{self.path}/config"):
                return "other"
            with open(f"{self.path}/config", "rb") as file:
                if file.read(12) == b"[repository]":
                    return "borg"
            if {"data", "keys", "snapshots"} <= set(entries):
                return "restic"
        return "other"

    def settings(self) -> dict[str, Any]:
        """append_only and quota of a local borg repository."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(f"{self.path}/config", encoding="utf-8")
        return {
            "append_only": parser.getboolean("repository", "append_only", fallback=False),
            "quota": size(parser.get("repository", "storage_quota", fallback="0")),
        }

    def unlike(self) -> dict[str, Any]:
        """Which settings are declared and not so."""
        if self.tool != "borg" or not self.local:
            return {}
        now = self.settings()
        wanted = {"append_only": self.conf["append_only"], "quota": self.conf["quota"]}
        return {key: value for key, value in wanted.items() if value is not None and value != now[key]}

    def pinned(self) -> dict[str, Any]:
        """The identity and the mount of the repository as it was made; making is true while it is not whole."""
        text = read(self.pin_file)
        return json.loads(text) if text else {}

    def guard(self) -> None:
        """The file system below the repository is the one on which it was made."""
        if not self.local or not self.conf["mount_required"]:
            return
        mount, meant = mount_of(self.path), self.pinned().get("mount")
        if mount == "/":
            raise Failure(f"{self.path} is on the root file system; mount the one that it is meant for")
        if meant and mount != meant:
            raise Failure(
                f"{self.path} is on the file system at {mount}; mount the one at {meant}, on which it was made"
            )

    def space(self) -> None:
        if self.local and self.conf["min_free"]:
            left, whole = free(self.path)
            if left < least(self.conf["min_free"], whole):
                raise Failure(
                    f"{self.path} has {left >> 20} of {whole >> 20} MiB free, less than {self.conf['min_free']}; "
                    "make room, or give a lower min_free"
                )

    # what is done

    @contextlib.contextmanager
    def turn(self) -> Any:
        """One at a time."""
        os.makedirs(self.base, mode=0o700, exist_ok=True)
        with open(f"{self.base}/lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def init(self) -> None:
        """Make it where it is not there, and keep its identity."""
        pin = self.pinned()
        if pin.get("id"):
            return
        mount = mount_of(self.path) if self.local else ""
        new = bool(pin.get("making"))
        try:
            self.open()
        except Failure as failure:
            if self.local and self.entries():
                if not new:
                    raise
                self.clear()  # of a run that was interrupted
            elif not self.local and not missing(str(failure)) and "is not a valid repository" not in str(failure):
                raise
            new = True
            write(self.pin_file, json.dumps({"making": True}))
            self.make()
        if new:
            self.prove(whole=True)
        write(self.pin_file, json.dumps({"id": self.open(), "mount": mount}) + "\n")

    def make(self) -> None:
        if self.tool == "restic":
            self.call("init")
            return
        words = ["--append-only"] if self.conf["append_only"] else []
        words += ["--storage-quota", str(self.conf["quota"])] if self.conf["quota"] else []
        self.call("init", "--encryption", "repokey-blake2", "--make-parent-dirs", *words)

    def clear(self) -> None:
        for name in self.entries():
            if not OWN[self.tool].fullmatch(name):
                raise Failure(f"{self.path} also holds {name}, which is not {self.tool}'s; move it away")
        for name in self.entries():
            full = f"{self.path}/{name}"
            shutil.rmtree(full) if os.path.isdir(full) else os.unlink(full)

    def prove(self, whole: bool = False) -> None:
        """A blob makes its way in and out; whole also frees what it took."""
        blob, mark = os.urandom(BLOB), f"backup-store-proof-{os.getpid()}-{int(time.time())}"
        store, find, back, forget = getattr(self, f"proof_{self.tool}")(mark)
        self.call(*store, data=blob)
        try:
            listed = self.call(*find).decode(errors="replace")
            if mark not in listed:
                raise Failure("what was stored is not listed")
            if self.call(*back) != blob:
                raise Failure("what came back is not what was stored")
        finally:
            for words in forget(whole):
                self.call(*words)

    def proof_restic(self, mark: str) -> Any:
        own = ("--host", mark)

        def forget(whole: bool) -> list[list[str]]:
            found = json.loads(self.call("snapshots", "--json", *own))
            return [["forget", *(["--prune"] if whole else []), one["id"]] for one in found]

        store = ["backup", *own, "--stdin", "--stdin-filename", "proof"]
        return store, ["snapshots", *own], ["dump", *own, "latest", "/proof"], forget

    def proof_borg(self, mark: str) -> Any:
        def forget(whole: bool) -> list[list[str]]:
            return [["delete", f"::{mark}"], *([["compact"]] if whole and not self.conf["append_only"] else [])]

        return ["create", f"::{mark}", "-"], ["list", "--short"], ["extract", "--stdout", f"::{mark}", "stdin"], forget

    def rekey(self, new: str) -> None:
        """The new password opens the repository before the old one ceases to; then it is the one in the file."""
        fresh = self.with_password(new)
        old = True
        try:
            self.open()
        except Failure:
            old = False
        try:
            fresh.open()
        except Failure:
            if not old:
                raise
            getattr(self, f"add_{self.tool}")(fresh)
            old = old and self.tool == "restic"  # borg's own has made room for it
        if old and self.tool == "restic":
            keys = [key["id"] for key in json.loads(self.call("key", "list", "--json")) if key["current"]]
            fresh.call("key", "remove", *keys)
        write(self.password_file, new + "\n")

    def add_restic(self, fresh: Repository) -> None:
        with tempfile.NamedTemporaryFile("w", dir=CONF, encoding="utf-8") as file:
            file.write(str(fresh.password) + "\n")
            file.flush()
            self.call("key", "add", "--new-password-file", file.name)
        fresh.open()

    def add_borg(self, fresh: Repository) -> None:
        """borg has one password only: its key is kept aside under the old one until the new one is proven."""
        with tempfile.TemporaryDirectory(dir=CONF) as place:
            self.call("key", "export", "::", f"{place}/key")
            self.call("key", "change-passphrase", BORG_NEW_PASSPHRASE=str(fresh.password))
            try:
                fresh.open()
            except Failure:
                self.call("key", "import", "::", f"{place}/key")
                raise

    def configure(self) -> None:
        for key, value in self.unlike().items():
            word = str(int(value))
            self.call("config", self.path, {"append_only": "append_only", "quota": "storage_quota"}[key], word)

    def check(self) -> None:
        portion = self.conf["check_data"]
        if self.tool == "restic":
            self.show("unlock")  # of those who died
            self.show("check", "--read-data" if portion == "all" else f"--read-data-subset={portion}")
        elif portion == "all":
            self.show("check", "--verify-data")
        else:
            self.show("check", "--repository-only", f"--max-duration={portion[:-1]}")
            self.show("check", "--archives-only")
        with open(f"{self.base}/checked", "w", encoding="utf-8"):
            pass
        self.space()

    def prune(self) -> None:
        keep = [f"--keep-{key}={self.conf['retention'][key]}" for key in KEEP if self.conf["retention"].get(key)]
        if not keep:
            raise Failure("no retention is declared, so nothing is removed")
        if self.tool == "restic":
            self.show("unlock")
            self.show("forget", "--prune", *keep)
            return
        names = [one["name"] for one in json.loads(self.call("list", "--json"))["archives"]]
        found = [(name, SERIES.match(name)) for name in names]
        for name in [name for name, match in found if not match or re.search(r"[*?\[\]{}\\]", match.group(1))]:
            print(f"kept, for it is not called SERIES-DATE: {name}")
        every = {match.group(1) + match.group(2) for _name, match in found if match}
        for series in sorted(one for one in every if not re.search(r"[*?\[\]{}\\]", one)):
            self.show("prune", "--list", "--glob-archives", f"{series}{DATE}*", *keep)
        self.show("compact")

    def due(self) -> None:
        """One that fails does not keep the other from being done."""
        failures = []
        if self.conf["retention"]:
            try:
                self.prune()
            except Failure as failure:
                failures.append(f"prune: {failure}")
        if self.check_is_due():
            try:
                self.check()
            except Failure as failure:
                failures.append(f"check: {failure}")
        else:
            self.space()
        if failures:
            raise Failure("; ".join(failures))

    def check_is_due(self) -> bool:
        days = PERIODS.get(self.conf["check"])
        if days is None:
            return False
        try:
            return time.time() - os.path.getmtime(f"{self.base}/checked") > (days - 0.5) * 86400
        except FileNotFoundError:
            return True


def missing(words: str) -> bool:
    """Whether a tool says that there is no repository."""
    return "Is there a repository at the following location" in words or "does not exist" in words


def wrong(words: str) -> bool:
    """Whether a tool says that the password is not the one."""
    return "wrong password" in words or ("passphrase" in words and "incorrect" in words)


# what the role asks before it acts


def declared(item: dict[str, Any]) -> dict[str, Any]:
    """An item with everything that it does not say."""
    hosts, auth = item.get("hosts") or [], item.get("auth") or {}
    host = hosts[0] if hosts else {}
    tool = item.get("tool") or "restic"
    return {
        "name": item["name"],
        "tool": tool,
        "path": "/" + str(item.get("path") or "").strip("/"),
        "host": host.get("name") or "",
        "port": int(host.get("port") or 22),
        "host_key": (host.get("host_key") or "").strip(),
        "user": auth.get("username") or "root",
        "private_key_file": auth.get("private_key_file") or "",
        "retention": {key: int(value) for key, value in (item.get("retention") or {}).items() if value},
        "check": item.get("check") or "weekly",
        "check_data": str(item.get("check_data") or PORTIONS[tool][0]),
        "append_only": item.get("append_only"),
        "quota": None if item.get("quota") is None else size(item["quota"]),
        "min_free": str(item.get("min_free") or ""),
        "mount_required": bool(item.get("mount_required")),
    }


def faults(item: dict[str, Any]) -> list[str]:
    """What is wrong with an item, whatever the host is like."""
    found = []
    tool, path, hosts = item.get("tool") or "restic", str(item.get("path") or ""), item.get("hosts") or []
    gone = item.get("state") == "absent"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", item["name"]):
        found.append("name: letters, digits, '-', '_' and '.' only, for it names a unit; choose another")
    if not gone or path:
        normal = re.fullmatch(r"(/[A-Za-z0-9._+=@-]+)+/?", path) and not re.search(r"/\.\.?(/|$)", path)
        if not normal:
            found.append(f"path {path!r}: absolute, without '..' and spaces; give such a path")
    if item.get("delete_data") and not gone:
        found.append("delete_data: removes the repository, and state is not absent; say one of the two")
    if item.get("delete_data") and not path:
        found.append("delete_data: removes the repository at path, and there is none; say the path")
    if gone:
        return found
    password = item.get("password") or ""
    if not password or password != password.strip() or "\n" in password:
        found.append("password: none, or with spaces around it or a line break in it; give one from a vault")
    if len(hosts) > 1:
        found.append("hosts: a repository is on one host; give one, or none for a folder of this host")
    for host in hosts[:1]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:_-]*", str(host.get("name") or "")):
            found.append(f"hosts: {host.get('name')!r} is no name of a host; give its name or address")
        if host.get("host_key") and not re.fullmatch(
            r"[a-z0-9@.-]+ [A-Za-z0-9+/=]+( .*)?", str(host["host_key"]).strip()
        ):
            found.append("hosts: host_key is not as in ssh_host_*.pub: TYPE KEY; give such a line")
    user = str((item.get("auth") or {}).get("username") or "root")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
        found.append(f"auth: {user!r} is no name of a user; give another")
    if tool == "restic" and item.get("append_only"):
        found.append(
            "append_only: restic can't keep a folder from losing data; use borg, or a server that refuses to delete"
        )
    if tool == "restic" and item.get("quota") is not None:
        found.append("quota: restic has none; use borg, a quota of the file system, or min_free")
    if item.get("append_only") and item.get("retention"):
        found.append(
            "retention: with append_only nothing would be freed; prune on the server, or leave one of the two out"
        )
    if hosts and (item.get("min_free") or item.get("mount_required")):
        found.append("min_free, mount_required: can't be seen on another host; leave them out, and watch the server")
    if not re.fullmatch(PORTIONS[tool][1], str(item.get("check_data") or PORTIONS[tool][0])):
        found.append(
            f"check_data {item['check_data']!r}: "
            + ("a share such as 5%, a size such as 10G, or all" if tool == "restic" else "seconds such as 600s, or all")
            + "; give one of them"
        )
    for key in ("quota", "min_free"):
        value = item.get(key)
        try:
            if value is not None:
                least(str(value), 1) if key == "min_free" else size(value)
        except ValueError:
            found.append(f"{key} {value!r}: not a size such as 100GiB" + (" or 10%" if key == "min_free" else ""))
    return found


def clashes(items: list[dict[str, Any]]) -> list[str]:
    """What two items may not share."""
    found, names, places = [], set(), {}
    for item in items:
        name = item["name"]
        if name in names:
            found.append(f"repository {name}: declared twice; give each a name of its own")
        names.add(name)
        host = ((item.get("hosts") or [{}])[0] or {}).get("name") or ""
        path = str(item.get("path") or "").rstrip("/")
        for (other_host, other), owner in places.items():
            if (
                path
                and host == other_host
                and (path + "/").startswith(other + "/") | (other + "/").startswith(path + "/")
            ):
                found.append(
                    f"repository {name}: {path} is also that of {owner}, or one lies in the other; give it another"
                )
        if path:
            places[host, path] = name
    return found


def state(repository: Repository) -> tuple[str, str]:
    """none, opens or closed; with the identity of one that opens, and the words of the tool about one that does not."""
    unfinished, what = (
        bool(repository.pinned().get("making")),
        f"{repository.path} of {repository.conf['host'] or 'this host'}",
    )
    if repository.local:
        holds = repository.holds()
        if not holds:
            return "none", ""
        if holds != repository.tool and not unfinished:
            what += " is not empty and no repository" if holds == "other" else f" holds a repository of {holds}"
            raise Failure(f"{what}; give an empty folder, or one that holds a repository of {repository.tool}")
    try:
        return "opens", repository.open()
    except Unseen:
        raise
    except Failure as failure:
        words = str(failure)
    if wrong(words) and not unfinished:
        return "closed", words
    if unfinished:
        return "none", ""
    unlike = "is not a valid repository" in words  # borg of a folder on another host, which may be empty
    if not missing(words) and not unlike:
        raise Failure(f"{what}: {words}; see to that first")
    if not repository.local and (unlike or repository.tool == "restic") and repository.entries():
        raise Failure(f"{what} is not empty and no repository; give an empty folder")
    return "none", ""


def look_at_present(repository: Repository, wanted: str) -> dict[str, Any]:
    """What is to be done for one that is declared, or why nothing may be."""
    path, pin = repository.path, repository.pinned()
    stored = read(repository.password_file)
    old = None if stored is None or stored.rstrip("\n") == wanted else repository.with_password(stored.rstrip("\n"))
    repository.guard()
    how, identity = state(repository)
    if how == "none":
        if pin.get("id"):
            made_at = json.loads(read(f"{CONF}/{repository.name}.json") or "{}").get("path", path)
            raise Failure(
                f"{path}: the repository that was made at {made_at} is gone; bring it back (is its file system "
                "mounted?), or take it out of use with state: absent first"
            )
        repository.space()
    if how == "closed":
        words = identity
        how, identity = state(old) if old else ("closed", "")
        if how != "opens":
            raise Failure(f"{path}: it does not open: {words}; give the password that it was made with")
    if pin.get("id") and identity != pin["id"]:
        raise Failure(
            f"{path}: another repository than the one that was made there; bring that back, or take it out of use with "
            "state: absent first"
        )
    return {
        "name": repository.name,
        "init": not pin.get("id"),
        "rekey": old is not None and how == "opens",
        "configure": how == "opens" and bool(repository.unlike()),
        "stored": stored is not None and old is None,
    }


def look_at_absent(item: dict[str, Any]) -> dict[str, Any]:
    """What is to be removed."""
    name = item["name"]
    text = read(f"{CONF}/{name}.json")
    conf = json.loads(text) if text else declared({**item, "name": name})
    path = "/" + str(item.get("path") or "").strip("/")
    if text and path not in ("/", conf["path"]):
        raise Failure(f"it was made at {conf['path']}; give that path, or none")
    ours = [f"{CONF}/{name}.{kind}" for kind in ("json", "password", "known_hosts", "id")]
    ours += [f"{STATE}/{name}", f"/var/lib/systemd/timers/stamp-backup-store@{name}.timer"]
    data = doomed(Repository(conf), item) if item.get("delete_data") else []
    return {"name": name, "remove": [*data, *[one for one in ours if os.path.lexists(one)]]}


def doomed(repository: Repository, item: dict[str, Any]) -> list[str]:
    """The data of a repository, which must be one."""
    path, tool = repository.path, repository.tool
    if not repository.local:
        raise Failure(
            f"delete_data: {path} is on {repository.conf['host']}; remove it there, and leave delete_data out"
        )
    if path == "/":
        raise Failure(
            "delete_data: nothing is known of it on this host; say its tool and path, or leave delete_data out"
        )
    entries = repository.entries()
    if not entries:
        return [path] if os.path.isdir(path) and not os.path.ismount(path) else []
    if repository.holds() != tool:
        raise Failure(f"delete_data: {path} holds no repository of {tool}; see what it is, and leave delete_data out")
    if glob.glob(f"{path}/{LOCKS[tool]}"):
        raise Failure(
            f"delete_data: {path} is locked by somebody who uses it, or died; see 'backup-store run NAME list' first"
        )
    own = [name for name in entries if OWN[tool].fullmatch(name)]
    whole = len(own) == len(entries) and not os.path.ismount(path)
    return [path] if whole else [f"{path}/{name}" for name in own]


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """What there is to do for all items; changes nothing, and says no password."""
    items = asked["repositories"]
    result: dict[str, Any] = {"problems": [], "unseen": False, "found": [], "remove": [], "timers": [], "conf": []}
    problems = result["problems"]
    for item in items:
        problems += [f"repository {item['name']}: {fault}" for fault in faults(item)]
    problems += clashes(items)
    if problems:
        return result
    present = [item for item in items if item.get("state") != "absent"]
    for item in items:
        try:
            if item in present:
                conf = declared(item)
                result["conf"].append(conf)
                with tempfile.TemporaryDirectory() as base:
                    repository = Repository(conf, item["password"], base)
                    if conf["host_key"]:
                        repository.known_hosts = f"{base}/known_hosts"
                        write(repository.known_hosts, known_host(conf))
                    result["found"].append(look_at_present(repository, item["password"]))
            else:
                result["remove"] += look_at_absent(item)["remove"]
        except Unseen:
            result["unseen"] = True
        except (Failure, OSError, ValueError, subprocess.TimeoutExpired) as failure:
            problems.append(f"repository {item['name']}: {failure}")
    gone = {f"{CONF}/{item['name']}.json" for item in items if item not in present}
    if not present and not set(glob.glob(f"{CONF}/*.json")) - gone:
        result["remove"] += [one for one in SHARED if os.path.lexists(one)]
    result["timers"] = timers(items)
    return result


def known_host(conf: dict[str, Any]) -> str:
    name = conf["host"] if conf["port"] == 22 else f"[{conf['host']}]:{conf['port']}"
    return f"{name} {' '.join(conf['host_key'].split()[:2])}\n"


def timers(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The units that are not as they have to be."""
    found = []
    for item in items:
        wanted = item.get("state") != "absent" and bool(
            declared(item)["retention"] or declared(item)["check"] != "never"
        )
        unit = f"backup-store@{item['name']}.timer"
        enabled = os.path.lexists(f"{UNITS}/timers.target.wants/{unit}")
        if wanted != (enabled and active(unit)) or (not wanted and (enabled or active(unit))):
            found.append({"name": unit, "on": wanted})
        service = f"backup-store@{item['name']}.service"
        if item.get("state") == "absent" and active(service):
            found.append({"name": service, "on": False})
    return found


def active(unit: str) -> bool:
    return subprocess.run(["systemctl", "--quiet", "is-active", unit], check=False).returncode == 0


def main(words: list[str]) -> int:
    if words == ["look"]:
        print(json.dumps(look(json.load(sys.stdin))))
        return 0
    if len(words) < 2 or words[0] not in ("init", "rekey", "configure", "prove", "check", "prune", "due", "run"):
        print(__doc__, file=sys.stderr)
        return 2
    command, name = words[:2]
    text = read(f"{CONF}/{name}.json")
    if text is None:
        known = sorted(os.path.basename(one)[:-5] for one in glob.glob(f"{CONF}/*.json"))
        print(f"backup-store: no repository {name}; there is {', '.join(known) or 'none'}", file=sys.stderr)
        return 2
    repository = Repository(json.loads(text))
    try:
        repository.guard()
        if command == "run":
            argv = repository.argv(*words[2:])
            os.execvpe(argv[0], argv, repository.environment())
        with repository.turn():
            if command == "rekey":
                repository.rekey(sys.stdin.read().rstrip("\n"))
            else:
                getattr(repository, command)()
    except (Failure, OSError) as failure:
        print(f"backup-store: {name}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
