# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the crash tests of the volume operations are made of: places, moments, tools that are hurt, and a site.

A module runs in a child with a process group of its own, in which its tools run too. The group is killed at a call of
the module, or by a tool's stand-in at a system call of the tool.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from ansible_collections.kvm.storage.plugins.module_utils import commands, files, transfer
from tests.integration.helpers import connected
from tests.servers.ceph import Ceph
from tests.servers.guest import disk_xml, domain_xml
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import DiskNode, LoopDevice
from tests.servers.process import ServerError, run

from . import kill
from .kill import Ended, alive_in, ended, finish, in_child, start, state_of, wait_until

MIB = 1 << 20
ELSEWHERE = "kvm.storage-ffffffff-1-1"  # what another host is still making
ABSENT, MARKED, GAP = "absent", "marked", "gap"
WATCH_SECONDS = "10"  # for which Ceph takes a client that was killed for one that has its images open; 30 as it comes

# What the operations call besides what kill.py knows of.
LIBVIRT = kill.LIBVIRT | {"virDomainDefineXML", "virStorageVolUpload", "virStorageVolWipePattern", "virStreamFinish"}
SYSTEM = kill.SYSTEM | {"fsync", "fdatasync", "pwrite", "write", "writev", "pwritev", "copy_file_range", "sendfile"}
SYSTEM |= {"posix_fallocate", "splice", "mkdir"}


class Moments(kill.Watch):
    """Numbers the moments of a run: just before each call that changes something, and just after a tool was started.

    A tool is so met as it begins and as it has ended.
    """

    tools: Path | None = None

    def __init__(self, calls: Path, at: int | str | None, act: Callable[[], None]) -> None:
        super().__init__(calls, at, act)
        if self.tools is not None:  # in the child alone
            commands.ENVIRONMENT["PATH"] = f"{self.tools}:{commands.ENVIRONMENT['PATH']}"

    def __call__(self, frame: Any, event: str, call: Any) -> None:
        name = getattr(call, "__name__", "")
        started = event == "c_return" and name in ("fork_exec", "_fork_exec")
        if (event == "c_call" or started) and changes(call, frame):
            self.note(f"{'after' if started else 'before'}:{name.lstrip('_')}")


def changes(call: Any, frame: Any) -> bool:
    name, module = getattr(call, "__name__", ""), getattr(call, "__module__", "")
    if module == "libvirtmod":
        return name in LIBVIRT
    if module == "_ctypes":
        return name == "dlopen" and kill.in_a_step(frame)  # what comes next is renameat2()
    if module not in ("posix", "fcntl", "_posixsubprocess"):
        return False
    within = kill.WITHIN.get(name) == frame.f_code.co_name
    return (name in SYSTEM or name == "ioctl" or within) and kill.in_a_step(frame)


def kill_group() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


# tools that are hurt

CALLS = ("pwrite64", "pwritev", "pwritev2", "fallocate", "ftruncate", "fsync", "fdatasync", "sendmsg")

TOOL = """\
#!/bin/sh
# Notes each run of the tool; the one that is armed is hurt at its Nth system call of a kind.
echo "{tool} $*" >> {folder}/runs
number=$(wc -l < {folder}/runs)
if [ -e {folder}/count ]; then
    exec strace -f --seccomp-bpf -qq -o "{folder}/trace.$number" -e trace={calls} {path} "$@"
fi
armed=
[ -e {folder}/armed ] && read -r armed call nth how group < {folder}/armed
[ "$number" = "$armed" ] || exec {path} "$@"
if [ "$call" = lose ]; then
    {path} "$@" || exit
    for file in {hidden}; do dd if=/dev/zero "of=$file" bs=4096 seek=512 count=1 conv=notrunc status=none; done
    : > {folder}/fired
    exit 0
fi
strace -f -qq -o /dev/null -e "trace=$call" -e "inject=$call:$how:when=$nth" {path} "$@"
status=$?
[ "$status" = 137 ] && : > {folder}/fired
[ "$group" = group ] && [ "$status" = 137 ] && kill -9 0
exit "$status"
"""


@dataclass(frozen=True)
class Hurt:
    """The run of a tool, by number, that something happens to at its Nth call of a kind."""

    run: int
    call: str
    nth: int
    how: str = "signal=KILL"


class Tools:
    """Stand-ins for the tools that the modules start."""

    def __init__(self, folder: Path, pools: Path) -> None:
        self.folder = folder
        folder.mkdir()
        hidden = f"{shlex.quote(str(pools))}/*/{files.LEFTOVER}{files.this_host()}-*"
        for tool in ("qemu-img", "rbd"):
            path = shutil.which(tool)
            if path is None:
                continue
            script = folder / tool
            where = shlex.quote(str(folder))
            words = {"tool": tool, "folder": where, "calls": ",".join(CALLS), "path": path, "hidden": hidden}
            script.write_text(TOOL.format(**words), encoding="utf-8")
            script.chmod(0o755)

    def reset(self) -> None:
        for name in ("runs", "armed", "fired", "count"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob("trace.*"):
            path.unlink()

    def arm(self, hurt: Hurt, group: bool) -> None:
        words = (hurt.run, hurt.call, hurt.nth, hurt.how, "group" if group else "alone")
        (self.folder / "armed").write_text(" ".join(map(str, words)) + "\n", encoding="utf-8")

    def fired(self) -> bool:
        return (self.folder / "fired").exists()

    def count(self) -> None:
        """Let the next runs be counted, each by its system calls."""
        (self.folder / "count").touch()

    def counted(self) -> list[Hurt]:
        """For each run and kind of call, the last one that a thread of it makes."""
        found: dict[tuple[int, str], int] = {}
        for path in sorted(self.folder.glob("trace.*")):
            lines = re.findall(r"^(\d+) +(\w+)\(", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
            for one in set(lines):
                key = int(path.suffix[1:]), one[1]
                found[key] = max(found.get(key, 0), lines.count(one))
        return [Hurt(number, call, last) for (number, call), last in sorted(found.items())]

    def conversions(self) -> list[int]:
        """The runs that wrote a file under a hidden name, by number."""
        runs = self.folder / "runs"
        if not runs.exists():
            return []
        made = re.compile(rf"^qemu-img convert .*/{re.escape(files.LEFTOVER)}\S*$")
        return [
            number for number, words in enumerate(runs.read_text(encoding="utf-8").splitlines(), 1) if made.match(words)
        ]


# operations


@dataclass(frozen=True)
class Case:
    """An operation on one kind of pool.

    module   its module, and task the options.
    there    the templates that stand in the pools before, by pool/name; see Site.make_image() for those of Ceph.
    target   pool/name of what is made or changed, and form its format.
    between  what the target may be after an interruption: ABSENT, MARKED, "old" or "new"; "any" is for a content that
             was given up by name.
    holds    the raw template whose content a guest sees in the target in the end, empty for nothing but zeroes.
    steps    how many moments a whole run has at the least.
    again    whether a whole target is done again by the next run, as a wipe is, and what Ceph has rolled back twice.
    needs    the server besides libvirtd.
    domain   whether a domain that is off has the one disk of there.
    compared whether what was written is compared with its source.
    gap      the checksum of what the target holds between its making by libvirt and its mark: GAP, if it is in between.
    soak     whether it is left to the long form.
    part     how much of the work of a tool is met. rbd flatten lets the snapshot go before the image lets go of it, and
             what is killed between the two, at its end, is an image that Ceph can't open any more.
    most     how many points it has in the short form, if it takes long.
    """

    module: str
    task: dict[str, Any]
    there: dict[str, str]
    target: str
    form: str = "qcow2"
    between: tuple[str, ...] = (ABSENT, "new")
    holds: str = "base.raw"
    steps: int = 2
    again: bool = False
    needs: str = ""
    domain: bool = False
    compared: bool = False
    gap: str = ""
    soak: bool = False
    part: float = 1.0
    most: int | None = None


@dataclass(frozen=True)
class Look:
    """What is to be seen: the target, the bytes of everything else, what libvirt lists, and the disk of a domain."""

    target: tuple[Any, ...]
    others: dict[str, str]
    listed: dict[str, list[str]]
    disk: tuple[str, str] | None


def noise(size: int, seed: int) -> bytes:
    """Bytes that are at no place the same."""
    return hashlib.shake_128(f"{seed}".encode()).digest(size)


class Images:
    """The images of a cluster, in this process: the rbd command takes long to start."""

    def __init__(self, ceph: Ceph) -> None:
        import rados
        import rbd

        self.rbd = rbd
        conf = {"keyring": str(ceph.keyring()), "rbd_default_clone_format": "2"}
        self.cluster = rados.Rados(conffile=str(ceph.conf), conf=conf, rados_id="admin")
        self.cluster.connect(timeout=60)
        self.pool = self.cluster.open_ioctx("rbd")

    def close(self) -> None:
        self.pool.close()
        self.cluster.shutdown()

    def names(self) -> list[str]:
        return sorted(self.rbd.RBD().list(self.pool))

    def make(self, name: str, data: bytes) -> None:
        self.rbd.RBD().create(self.pool, name, len(data))
        with self.rbd.Image(self.pool, name) as image:
            image.write(data, 0)

    def make_clone(self, name: str, parent: str, written: bytes) -> None:
        """A clone with something of its own; the snapshot that it stands on goes with it."""
        with self.rbd.Image(self.pool, parent) as image:
            image.create_snap("below")
            self.rbd.RBD().clone(self.pool, parent, "below", self.pool, name)
            image.remove_snap("below")
        self.write(name, written)

    def write(self, name: str, written: bytes) -> None:
        with self.rbd.Image(self.pool, name) as image:
            image.write(written, 2 * MIB)

    def snapshot(self, name: str, snapshot: str) -> None:
        with self.rbd.Image(self.pool, name) as image:
            image.create_snap(snapshot)

    def remove(self, name: str) -> None:
        """Who was killed is taken for alive for a while."""
        with self.rbd.Image(self.pool, name) as image:
            for one in list(image.list_snaps()):
                if one["namespace"] == 0:
                    image.remove_snap(one["name"])
        deadline = time.monotonic() + 60
        while True:
            try:
                self.rbd.RBD().remove(self.pool, name)
                return
            except self.rbd.ImageBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def snapshots(self, name: str) -> list[str]:
        with self.rbd.Image(self.pool, name, read_only=True) as image:
            return [one["name"] for one in image.list_snaps() if one["namespace"] == 0]  # not what the trash keeps

    def watched(self, name: str) -> bool:
        with contextlib.suppress(self.rbd.ImageNotFound), self.rbd.Image(self.pool, name, read_only=True) as image:
            return bool(list(image.watchers_list()))
        return False

    def look(self, name: str) -> tuple[Any, ...]:
        """Size, snapshots, parent and content of an image."""
        with self.rbd.Image(self.pool, name, read_only=True) as image:
            snapshots = tuple(one["name"] for one in image.list_snaps() if one["namespace"] == 0)
            try:
                parent = image.parent_info()[1]
            except self.rbd.ImageNotFound:
                parent = ""
            return (image.size(), snapshots, parent, checksum(image.read(0, image.size())))


def checksum(data: bytes) -> str:
    """Of what a guest sees, wherever its disk ends."""
    return hashlib.sha256(data.rstrip(b"\0")).hexdigest()


class Site:
    """A hypervisor with two pools of files and, where a case needs it, one of images or of partitions."""

    def __init__(self, hypervisor: Libvirtd, root: Path, ceph: Callable[[], Ceph]) -> None:
        self.hypervisor, self.root = hypervisor, root
        self.mounted = root / "mounted"
        self.tools = Tools(root / "tools", self.mounted)
        self.templates = root / "templates"
        self.folders = {name: self.mounted / name for name in ("images", "other")}
        self._ask_for_ceph = ceph
        self.ceph: Ceph | None = None
        self.disk: DiskNode | None = None
        self.luns: Target | None = None
        self._known: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.templates.mkdir()
        self.mounted.mkdir()
        self.loop = LoopDevice(root / "small.img", 80 * MIB).attach()
        run("mkfs.ext4", "-q", "-m", "0", self.loop.device)
        run("mount", self.loop.device, self.mounted)
        for name, folder in self.folders.items():
            self.ok("pool_dir", name=name, path=str(folder))
        make_templates(self.templates, self.folders["images"])

    # modules

    def arguments(self, case: Case) -> dict[str, Any]:
        text = json.dumps(case.task).replace("TEMPLATES", str(self.templates)).replace("PART1", f"{self.part_name}1")
        return {"uri": self.hypervisor.uri, **json.loads(text)}

    def ok(self, module: str, **arguments: Any) -> dict[str, Any]:
        done = in_child(module, {"uri": self.hypervisor.uri, **arguments})
        assert done.result is not None and not done.result.get("failed"), done
        return done.result

    def run(self, case: Case, at: str | None = None, act: Callable[[], None] = kill_group) -> Ended:
        """The module of a case in a child; act happens at a moment of it. Its tools are those of the site."""
        return self.finish(self.start(case, at, act))

    def start(self, case: Case, at: str | None = None, act: Callable[[], None] = kill_group) -> Any:
        profiler = type("Here", (Moments,), {"tools": self.tools.folder})
        return start(case.module, self.arguments(case), at, act, profiler)

    def run_without(self, case: Case, at: str | None, program: str, kill: bool) -> tuple[bool, Ended]:
        """A run in which a daemon of Ceph does not answer from a moment on, for a while or until the run is killed.

        Whether it had begun and was not over when the daemon was to answer again, and how it ended.
        """
        assert self.ceph is not None
        pids = daemons(self.ceph, program)

        def stop() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

        child = self.start(case, at, stop)
        try:
            wait_until(lambda: state_of(pids[0]) == "T" or ended(child[0]))
            time.sleep(0.3)
            met = state_of(pids[0]) == "T" and not ended(child[0])
            if kill:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child[0], signal.SIGKILL)
            go_on()
            return met, self.finish(child)
        finally:
            go_on()

    def run_without_target(self, case: Case, at: str | None) -> tuple[bool, Ended]:
        """A run whose iSCSI target is killed and started again; one that waits for it without end is killed.

        Whether it was not over when the target was killed, and how it ended.
        """
        assert self.luns is not None
        pids = [child.pid for child in self.luns._children]

        def end() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

        child = self.start(case, at, end)
        wait_until(lambda: state_of(pids[0]) in ("Z", "") or ended(child[0]))
        met = not ended(child[0])
        time.sleep(0.2)
        self.luns.stop()
        self.luns.start()
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: ended(child[0]), 20)
        if not ended(child[0]):
            os.killpg(child[0], signal.SIGKILL)
        return met, self.finish(child)

    def finish(self, child: Any) -> Ended:
        pid, answer, calls = child
        found = finish(pid, answer, calls)
        wait_until(lambda: not alive_in(found.session))
        return found

    # the state before

    def put(self, case: Case) -> None:
        """All pools as the case has them before, with what belongs to others."""
        self.hypervisor.start()
        self.tools.reset()
        self.bring_up(case.needs)
        (self.mounted / "ballast").unlink(missing_ok=True)
        for folder in self.folders.values():
            for path in folder.iterdir():
                path.unlink()
            (folder / f".{ELSEWHERE}").write_bytes(noise(4096, 9))
            (folder / "notes.txt").write_text("mine")
        for place, template in case.there.items():
            pool, _slash, name = place.partition("/")
            if pool in self.folders:
                target = self.folders[pool] / name
                subprocess.run(["cp", "--sparse=always", self.templates / template, target], check=True)
                target.chmod(0o600)
        if case.needs == "ceph":
            self.put_images(case)
        if case.needs == "disk":
            self.put_partition(case)
        if case.needs == "iscsi":
            shutil.copy(self.templates / "lun.raw", self.lun)
        with connected(self.hypervisor.uri) as connection:
            for pool in connection.listAllStoragePools():
                retried(pool)
            for domain in connection.listAllDomains():
                domain.undefine()
            if case.domain:
                pool, name = next(iter(case.there)).split("/")
                connection.defineXML(domain_xml("web", disk_xml(str(self.folders[pool] / name), driver="qcow2")))

    def leave(self, size: int) -> None:
        """Take all of the file system's space but so many bytes."""
        found = os.statvfs(self.mounted)
        with open(self.mounted / "ballast", "wb") as file, contextlib.suppress(OSError):  # it may come out a bit less
            os.posix_fallocate(file.fileno(), 0, max(found.f_bavail * found.f_frsize - size, 1))

    def come_back(self, case: Case) -> None:
        """What an operator sees to after a crash: the daemon runs, its pools are up, and dead clients are forgotten."""
        self.hypervisor.start()
        self.tools.reset()
        (self.mounted / "ballast").unlink(missing_ok=True)
        with connected(self.hypervisor.uri) as connection:
            for pool in connection.listAllStoragePools():
                if not pool.isActive():
                    pool.create()
        for place in case.there if case.needs == "ceph" else ():
            if place.startswith("vms/"):
                wait_until(lambda: not self.images.watched(place.partition("/")[2]), 60)  # noqa: B023

    def bring_up(self, needs: str) -> None:
        if needs == "ceph" and self.ceph is None:
            self.ceph = self._ask_for_ceph()
            self.ceph.empty("rbd")
            self.ceph.run("ceph", "tell", "osd.0", "config", "set", "osd_client_watch_timeout", WATCH_SECONDS)
            self.images = Images(self.ceph)
            monitors = [{"name": name, "port": port} for name, port in self.ceph.monitors]
            self.ok("secret", usage="ceph", usage_name="admin", value=self.ceph.key())
            auth = {"username": "admin", "secret_usage": "admin"}
            self.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
        if needs == "disk" and self.disk is None:
            self.disk = DiskNode(self.root / "disk.img", 64 * MIB).attach()
            self.ok("pool_disk", name="parts", device=str(self.disk.node), source_format="gpt", build="if_blank")

        if needs == "iscsi" and self.luns is None:
            self.luns = Target(self.hypervisor.root.parent / "kills-iscsi", 0, (9 * MIB,), ()).start()
            name, portal = {"name": self.luns.host, "port": self.luns.port}, self.luns
            iqns = {"target_iqn": portal.iqn_open, "initiator_iqn": portal.initiator}
            self.ok("pool_iscsi_direct", name="luns", hosts=[name], **iqns)

    @property
    def lun(self) -> Path:
        assert self.luns is not None
        return self.luns.root / "open-1.img"

    @property
    def part_name(self) -> str:
        return self.disk.node.name if self.disk is not None else ""

    def put_images(self, case: Case) -> None:
        """Images that the case changes are made anew; its sources stay, since they are looked at each time."""
        wanted = {place.partition("/")[2]: one for place, one in case.there.items() if place.startswith("vms/")}
        target = case.target.partition("/")[2] if case.target.startswith("vms/") else ""
        there = self.images.names()
        kept = {name for name in wanted if name != target} | {ELSEWHERE}
        for name in sorted(set(there) - kept, reverse=True):
            self.images.remove(name)
        for name, template in {**wanted, ELSEWHERE: "small.raw"}.items():
            if name not in there or name not in kept:
                self.make_image(name, template)

    def make_image(self, name: str, template: str) -> None:
        """A template, or base+clone, or base@one: a clone of it or itself with a snapshot, and then written."""
        written = (self.templates / "small.raw").read_bytes()
        if template == "base+clone":
            self.images.make_clone(name, "base", written)
            return
        self.images.make(name, (self.templates / template.replace("base@one", "base.raw")).read_bytes())
        if template == "base@one":
            self.images.snapshot(name, "one")
            self.images.write(name, written)

    def put_partition(self, case: Case) -> None:
        assert self.disk is not None
        with connected(self.hypervisor.uri) as connection:
            pool = connection.storagePoolLookupByName("parts")
            retried(pool)
        self.remove_part()
        with open(self.disk.path, "r+b") as file:  # what a partition would begin with that nobody has written yet
            file.seek(34 * 512)  # behind the label
            file.write(noise(16 * MIB, 5))

    def remove_part(self) -> None:
        with connected(self.hypervisor.uri) as connection:
            for volume in connection.storagePoolLookupByName("parts").listAllVolumes():
                volume.delete()

    # what is there

    def look(self, case: Case) -> Look:
        others = {}
        for pool, folder in self.folders.items():
            for path in sorted(folder.iterdir()):
                if f"{pool}/{path.name}" != case.target:
                    others[f"{pool}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if case.needs == "ceph":
            for name in self.images.names():
                if f"vms/{name}" != case.target:
                    size, snapshots, *rest = self.images.look(name)
                    kept = [one for one in snapshots if not one.startswith("kvm.storage-")]  # leftovers() sees those
                    others[f"vms/{name}"] = str((size, kept, *rest))
        return Look(self.target(case), others, self.listed(), self.domain_disk())

    def domain_disk(self) -> tuple[str, str] | None:
        """The file and the format that the one domain has as its disk."""
        with connected(self.hypervisor.uri) as connection:
            for domain in connection.listAllDomains():
                disk = ElementTree.fromstring(domain.XMLDesc()).find("devices/disk")
                assert disk is not None
                source, driver = disk.find("source"), disk.find("driver")
                assert source is not None and driver is not None
                return source.get("file", ""), driver.get("type", "")
        return None

    def listed(self) -> dict[str, list[str]]:
        """What libvirt lists, without a refresh."""
        with connected(self.hypervisor.uri) as connection:
            pools = connection.listAllStoragePools()
            return {pool.name(): sorted(one.name() for one in pool.listAllVolumes()) for pool in pools}

    def target(self, case: Case) -> tuple[Any, ...]:
        pool, _slash, name = case.target.partition("/")
        if pool == "vms":
            return self.images.look(name) if name in self.images.names() else (ABSENT,)
        if pool == "parts":
            return self.device(Path(f"/dev/{name.replace('PART', self.part_name)}"))
        if pool == "luns":
            return self.device(self.lun)
        return self.file(self.folders[pool] / name, case.form)

    def file(self, path: Path, form: str) -> tuple[Any, ...]:
        """Size, backing store, snapshots and guest-visible content of an image in a file."""
        if not path.exists():
            return (ABSENT,)
        if form == "any":
            with path.open("rb") as image:
                form = "qcow2" if image.read(4) == b"QFI\xfb" else "raw"
        key = form, hashlib.sha256(path.read_bytes()).hexdigest()
        if key not in self._known:
            self._known[key] = self.read_image(path, form)
        return (oct(path.stat().st_mode), form, *self._known[key])

    def read_image(self, path: Path, form: str) -> tuple[Any, ...]:
        command = ["qemu-img", "info", "-U", "-f", form, "--output=json", str(path)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        out = self.root / "content.raw"
        out.unlink(missing_ok=True)
        command = ["qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), str(out)]
        if told.returncode or subprocess.run(command, capture_output=True, check=False).returncode:
            return ("broken", told.stderr)
        found = json.loads(told.stdout)
        snapshots = tuple(one["name"] for one in found.get("snapshots", []))
        content = checksum(out.read_bytes())
        return (found["virtual-size"], found.get("backing-filename", ""), snapshots, content)

    def device(self, path: Path) -> tuple[Any, ...]:
        if not path.exists():
            return (ABSENT,)
        data = path.read_bytes()
        return (MARKED,) if data.startswith(transfer.MARK) else (len(data), checksum(data))

    def leftovers(self, look: Look) -> list[str]:
        """Hidden names that are this host's, and snapshots under such names."""
        own = files.this_host()
        found = [name for name in look.others if f"kvm.storage-{own}" in name or ".kvm.storage.wiping-" in name]
        for name in look.others:
            if name.startswith("vms/"):
                one = name.partition("/")[2]
                found += [f"{name}@{each}" for each in self.images.snapshots(one) if each.startswith("kvm.storage-")]
        return found

    def close(self) -> None:
        if self.ceph is not None:
            self.images.close()
            self.ceph.run("ceph", "tell", "osd.0", "config", "set", "osd_client_watch_timeout", "30")
        if self.disk is not None:
            with connected(self.hypervisor.uri) as connection:
                connection.storagePoolLookupByName("parts").destroy()
            self.disk.detach()
        if self.luns is not None:
            with connected(self.hypervisor.uri) as connection:
                connection.storagePoolLookupByName("luns").destroy()
            self.luns.stop()
        run("umount", "--lazy", self.mounted)
        self.loop.detach()


def retried(pool: libvirt.virStoragePool) -> None:
    """Refresh a pool; libvirt may be busy with what a killed run had asked for. What it gave up is started again."""
    deadline = time.monotonic() + 20
    while True:
        try:
            pool.refresh() if pool.isActive() else pool.create()
            return
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def make_templates(folder: Path, images: Path) -> None:
    """The disks that cases begin with. What stands on another one records where that will be."""

    def qemu(*argv: Any) -> None:
        run(*map(str, argv))

    raw = folder / "base.raw"
    raw.write_bytes(noise(3 * MIB, 1) + bytes(MIB) + noise(3 * MIB, 2) + bytes(MIB))
    (folder / "small.raw").write_bytes(noise(MIB, 3))
    (folder / "lun.raw").write_bytes(noise(9 * MIB, 4))
    (folder / "base.raw.gz").write_bytes(gzip.compress(raw.read_bytes(), 1))
    (folder / "long.raw").write_bytes(raw.read_bytes() + bytes(8 * MIB))
    qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "base.qcow2")
    qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "long.raw", folder / "long.qcow2")
    options = "backing_fmt=qcow2"
    shutil.copy(folder / "base.qcow2", images / "base.qcow2")
    backing = images / "base.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-o", options, folder / "over.qcow2")
    write = f"write -q -s {folder / 'small.raw'} {2 * MIB} {MIB}"
    qemu("qemu-io", "-f", "qcow2", "-c", write, folder / "over.qcow2")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder / "over.qcow2", folder / "over.raw")
    shutil.copy(folder / "base.qcow2", folder / "kept.qcow2")
    qemu("qemu-img", "snapshot", "-c", "one", folder / "kept.qcow2")
    qemu("qemu-io", "-f", "qcow2", "-c", write, folder / "kept.qcow2")


def daemons(server: Ceph, program: str) -> list[int]:
    """The daemons of a server of the tests, by the directory that only theirs have in their arguments."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if os.path.basename(words[0]) == program and any(str(server.root) in word for word in words):
                found.append(int(entry))
    if not found:
        raise ServerError(f"{program}: not running below {server.root}")
    return found


def sample(chance: Any, what: Iterable[Any], count: int) -> list[Any]:
    every = list(what)
    return every if count >= len(every) else [every[place] for place in sorted(chance.sample(range(len(every)), count))]
