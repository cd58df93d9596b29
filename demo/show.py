# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hypervisors go from nothing to what is declared, drift, and are repaired. Every step is checked as well."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.servers.ceph import Ceph
from tests.servers.iscsi import MIB, Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.loops import LoopDevice
from tests.servers.process import Server, ServerError, environment, run, wait_for, write_private
from tests.servers.sweep import Journal, mounts_below, sweep

HOSTS = ("kvm01", "kvm02")
PRIVILEGED = os.geteuid() == 0
MARK = ".kvm.storage-demo"  # a folder that has it is a demo's own, and is emptied
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RECAP = re.compile(r"^(\w+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)

USER_CONF = """\
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{log}"
"""


class Broken(Exception):
    """A step that did not do what it says."""


class UserLibvirtd(Server):
    """A libvirt daemon of the user who runs the demo: no mounts, no devices, files of its own."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.sockets, self.shared = self.root / "sock", self.root / "shared"
        self.uri = f"qemu+unix:///session?socket={self.sockets / 'libvirt-sock'}"

    def start(self) -> UserLibvirtd:
        self.prepare()
        names = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config"}
        names |= {"XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data"}
        for name in (*names.values(), "sock", "shared"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        conf = self.root / "libvirtd.conf"
        conf.write_text(USER_CONF.format(sockets=self.sockets, log=self.root / "libvirtd.log"), encoding="utf-8")
        env = environment(**{name: str(self.root / folder) for name, folder in names.items()})
        self.spawn("libvirtd", "-f", conf, env=env)
        wait_for("libvirtd", lambda: self.virsh("uri"), log=self.root / "libvirtd.out")
        return self

    def virsh(self, *argv: str) -> str:
        return run("virsh", "--quiet", "--connect", self.uri, *argv)

    def kill(self) -> None:
        sweep(self.root)


class Demo:
    """The servers of one demo and what is done with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = folder / "facts.json"
        make = Libvirtd if PRIVILEGED else UserLibvirtd
        self.hypervisors = {name: make(folder / name) for name in HOSTS}
        self.times: list[tuple[str, float]] = []

    def begin(self) -> None:
        """Start everything at once."""
        known: dict[str, Any] = {}
        with ThreadPoolExecutor(4) as pool:
            started: list[Future[Any]] = [pool.submit(server.start) for server in self.hypervisors.values()]
            started += [pool.submit(job, known) for job in ([self.start_ceph, self.start_iscsi] if PRIVILEGED else [])]
            for job in started:
                job.result()
        for name, server in self.hypervisors.items():
            known[name] = {"uri": server.uri, "folder": str(server.shared), "disk": ""}
            if PRIVILEGED:
                known[name]["disk"] = LoopDevice(self.folder / f"{name}-disk.img", 512 * MIB).attach().device
        if not PRIVILEGED:
            password = self.folder / "password"
            write_private(password, secrets.token_hex(8))
            known["iscsi"] = {"password_file": str(password)}
        self.facts.write_text(json.dumps({"demo": known}, indent=2), encoding="utf-8")
        (self.folder / "ansible.cfg").touch()
        (self.folder / "tmp").mkdir(mode=0o700)

    def start_ceph(self, known: dict[str, Any]) -> None:
        server = Ceph(self.folder / "ceph").start()
        user = server.add_user("vms", "rbd")
        monitors = [{"name": host, "port": port} for host, port in server.monitors]
        known["ceph"] = {"monitors": monitors, "keyring": str(server.keyring(user))}

    def start_iscsi(self, known: dict[str, Any]) -> None:
        server = Target(self.folder / "iscsi").start()
        known["iscsi"] = {
            "hosts": [{"name": server.host, "port": server.port}],
            "target": server.iqn_chap,
            "initiator": server.initiator,
            "user": server.user,
            "password_file": str(server.password_file),
        }

    # what is shown

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered heading, and how long it took."""
        heading = f"{len(self.times) + 1}. {title}"
        print(f"\n\033[1m{heading}\033[0m\n" if sys.stdout.isatty() else f"\n{heading}\n")
        began = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - began))

    def virsh(self, host: str, *argv: str) -> None:
        print(f"$ virsh -c {host} {shlex.join(argv)}")
        for line in self.hypervisors[host].virsh(*argv).splitlines():
            if line.strip() and argv[0].endswith("-list"):
                print(f" {line}")

    def playbook(
        self, name: str, *options: str, keep: Callable[[list[str]], list[str]] = lambda lines: lines
    ) -> Result:
        """Run a playbook and show the command and what it printed, or the part that is kept."""
        declared = "demo/declared.yml" if PRIVILEGED else "demo/declared-without-root.yml"
        command = ["ansible-playbook", name, "-i", "demo/inventory.yml", "-e", f"@{declared}", "-e", f"@{self.facts}"]
        command += options
        print(f"$ {shlex.join(command)}")
        output = ""
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as running:  # fmt: skip
            Journal(self.folder).process(running.pid, name)  # for the next demo, should this one be killed
            try:
                output = running.communicate()[0]
            except BaseException:
                end_group(running)
                raise
        for line in keep([line for line in output.splitlines() if line.strip()]):
            print(f"  {line}".rstrip())
        return Result(running.returncode, output)

    def environment(self) -> dict[str, str]:
        """Nothing of the person's own configuration has a say."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {
            **mine,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "tmp"),
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_RUNTIME_DIR": str(self.folder / "tmp"),
        }

    # what is checked

    def definitions(self) -> str:
        """What the hypervisors have, in virsh's words."""
        lists = ("pool-list", "--all"), ("secret-list",)
        return "".join(server.virsh(*argv) for server in self.hypervisors.values() for argv in lists)

    def volumes(self, host: str, pool: str) -> list[str]:
        return sorted(line.split()[0] for line in self.hypervisors[host].virsh("vol-list", pool).splitlines() if line)


class Result:
    """What a playbook did."""

    def __init__(self, status: int, output: str) -> None:
        self.status, self.output = status, output
        self.changed = {host: int(changed) for host, changed, _unreachable, _failed in RECAP.findall(output)}

    def expect(self, status: int, changed: dict[str, int] | None = None) -> None:
        if self.status != status:
            refuse(f"the exit status is {self.status}, not {status}", self.output)
        if changed is not None and self.changed != changed:
            refuse(f"changed is {self.changed}, not {changed}", self.output)


def end_group(running: subprocess.Popen[str]) -> None:
    """End a program with all that it has started: asked as by Ctrl-C, so that it tidies up, then made to."""
    os.killpg(running.pid, signal.SIGINT)
    try:
        running.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)


def refuse(reason: str, output: str = "") -> NoReturn:
    raise Broken(f"{output}\n\n{reason}".strip())


def check(true: bool, reason: str) -> None:
    if not true:
        refuse(reason)


def recap(lines: list[str]) -> list[str]:
    """The recap, with what failed before it."""
    return [line for line in lines if RECAP.match(line) or line.startswith(("[ERROR]", "fatal"))]


def table(lines: list[str]) -> list[str]:
    """The lines that a playbook shows, out of the JSON that they are shown in."""
    return [json.loads(line.rstrip(",")) for line in lines if line.startswith(8 * " " + '"')]


def some(count: int) -> Callable[[list[str]], list[str]]:
    """The first lines after the headings of the tasks, how many more there are, the plans and the recap."""

    def keep(lines: list[str]) -> list[str]:
        body = [
            line
            for line in lines
            if not line.startswith(("PLAY", "TASK", "ok: ", "changed: ")) and not RECAP.match(line)
        ]
        if len(body) <= count:
            return [*body, *recap(lines)]
        plans = [line for line in body[count:] if line.startswith("plan: ")]
        return [*body[:count], f"... {len(body) - count - len(plans)} more lines ...", *plans, *recap(lines)]

    return keep


def every(changed: int) -> dict[str, int]:
    return dict.fromkeys(HOSTS, changed)


def show(demo: Demo) -> None:
    """The demo itself."""
    declared = ROOT / ("demo/declared.yml" if PRIVILEGED else "demo/declared-without-root.yml")
    with demo.step("Two hypervisors without any storage" + (", a Ceph cluster and a disk array" if PRIVILEGED else "")):
        demo.begin()
        check(not demo.definitions().strip(), "the new hypervisors are not empty")
        for name, server in demo.hypervisors.items():
            print(f"{name}  {server.uri}")
        if not PRIVILEGED:
            print("\nLeft out, because only root can have it: file systems on devices, Ceph, iSCSI, immutable files.")

    with demo.step(f"What they shall have: {declared.relative_to(ROOT)}"):
        lines = declared.read_text(encoding="utf-8").splitlines()
        print("\n".join(lines[lines.index("storage_secrets:") :]))

    with demo.step("What a run would do: check mode with diff, nothing changes"):
        demo.playbook("kvm.storage.storage", "--check", "--diff", "--limit", "kvm01", keep=some(24)).expect(
            0, {"kvm01": 1}
        )
        check(not demo.definitions().strip(), "check mode has changed something")

    with demo.step("From nothing to what is declared"):
        demo.playbook("kvm.storage.storage", keep=recap).expect(0, every(1))
        web = [f"web{number:02d}.qcow2" for number in (1, 2, 3)]
        for host in HOSTS:
            check(
                demo.volumes(host, "images") == ["golden.qcow2", "installer.raw", *web],
                f"{host} has other images than were declared: {demo.volumes(host, 'images')}",
            )
        print()
        for argv in (["pool-list", "--all"], ["vol-list", "images"], ["secret-list"]):
            demo.virsh("kvm02", *argv)

    with demo.step("The second run has nothing to do"):
        demo.playbook("kvm.storage.storage", keep=recap).expect(0, every(0))

    with demo.step("Drift: somebody works on kvm01 by hand, and the daemon of kvm02 is down"):
        images = demo.hypervisors["kvm01"].shared / "images"
        demo.virsh("kvm01", "pool-autostart", "--disable", "images")
        print(f"$ chmod 0777 {images}")
        images.chmod(0o777)
        demo.virsh("kvm01", "vol-delete", "--pool", "images", "web03.qcow2")
        if PRIVILEGED:
            demo.virsh("kvm01", "pool-destroy", "ceph")
        print("$ kill -9 (the libvirtd of kvm02)\n")
        demo.hypervisors["kvm02"].kill()
        found = demo.playbook("kvm.storage.drift", keep=table)
        found.expect(2, every(0))
        wanted = ["pool images", "volume images/web03.qcow2", *(["pool ceph"] if PRIVILEGED else [])]
        missed = [item for item in wanted if not re.search(f"kvm01 +{re.escape(item)} ", found.output)]
        check(not missed, f"the table lacks {', '.join(missed)} of kvm01")
        check("0 clean, 1 drifted, 1 unknown" in found.output, "the table does not tell what is drifted and unknown")
        print(f"\nexit status {found.status}")

    with demo.step("Repair: the daemon starts again, and the same playbook runs once more"):
        demo.hypervisors["kvm02"].start()
        found = demo.playbook("kvm.storage.storage", "--diff", keep=some(40))
        found.expect(0)
        check(found.changed["kvm01"] == 1, "kvm01 was not repaired")
        found = demo.playbook("kvm.storage.drift", keep=table)
        found.expect(0, every(0))
        print(f"\nexit status {found.status}")

    with demo.step("What the fleet has now"):
        demo.playbook("demo/summary.yml", keep=table).expect(0)


def claim(folder: Path) -> int:
    """Make the folder, or take it over from a demo that was killed; its lock ends with this process."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        sys.exit(f"{folder}: holds something else; give another folder: demo/run FOLDER")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        sys.exit(f"{folder}: belongs to someone else; give another folder: demo/run FOLDER")
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{folder}: another demo runs in it; let it finish, or give another folder: demo/run FOLDER")
    (folder / MARK).touch()
    return lock


def empty(folder: Path) -> None:
    """Nothing stays: no process, mount, loop device or file."""
    sweep(folder)
    left = mounts_below(folder)
    if left:
        raise ServerError(f"{left[0]}: still mounted; unmount it by hand, then run the demo again")
    if PRIVILEGED:  # what was declared immutable
        subprocess.run(["chattr", "-R", "-f", "-i", str(folder)], check=False, capture_output=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def ignore_signals() -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()  # the first one counts: what is being started must be there to be stopped
    print("\nInterrupted; a moment, everything is being removed.", file=sys.stderr)
    sys.exit(128 + number)


def main() -> int:
    own = "" if PRIVILEGED else f"-{os.geteuid()}"
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else f"/var/tmp/kvm.storage-demo{own}").absolute()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    claim(folder)
    for each in SIGNALS:
        signal.signal(each, interrupted)
    demo = Demo(folder)
    try:
        empty(folder)
        (folder / MARK).touch()
        Journal(folder).open()
        show(demo)
    except (Broken, ServerError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        ignore_signals()
        empty(folder)
        folder.rmdir()
    print()
    for number, (title, seconds) in enumerate(demo.times, start=1):
        print(f"{seconds:5.1f} s  {number}. {title}")
    print(f"{sum(seconds for _title, seconds in demo.times):5.1f} s  in all. Nothing of it is left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
