# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long modules tell how far they are, and return what a plain run returns: locally, by ssh, and as another user."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inputs.counts import SOAK
from tests.servers.libvirtd import Libvirtd
from tests.servers.silent import free_port

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SELDOM = 2  # seconds between two lines without news
LONGER = (5, 20)  # seconds of a run, the second where the first was too short
ACTION = f"""
from ansible_collections.kvm.storage.plugins.plugin_utils import progress
progress.OFTEN, progress.SELDOM = 1.0, {SELDOM}
class ActionModule(progress.TransferAction):
    pass
"""
BROKEN = """
from ansible_collections.kvm.storage.plugins.plugin_utils import progress
class ActionModule(progress.TransferAction):
    def _execute_module(self, **given):
        if given.get("wrap_async"):
            raise TypeError("not this core")
        return super()._execute_module(**given)
"""
MODULE = """#!/usr/bin/python
from __future__ import annotations
import os, time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kvm.storage.plugins.module_utils import progress
def main():
    spec = {"seconds": {"type": "float", "default": 0}, "end": {"type": "str", "default": "well"}}
    spec.update(seed={"type": "str", "no_log": True}, silent={"type": "bool", "default": False})
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    parts = int(module.params["seconds"] * 10)
    if module.params["silent"]:
        time.sleep(module.params["seconds"])
    else:
        with progress.told("copy", 10 << 20) as tick:
            for part in range(parts):
                time.sleep(0.1)
                tick((10 << 20) // parts)
    module.warn("said once")
    if module.params["end"] == "badly":
        module.fail_json(msg="it failed", code="in_use", actions=["copy"], changed=True)
    if module.params["end"] == "crash":
        raise RuntimeError("a defect")
    if module.params["end"] == "kill":
        os.kill(os.getpid(), 9)
    found = {"nested": {"word": ["ä", 1, None, 2.5, True]}, "seed": module.params["seed"], "uid": os.getuid()}
    module.exit_json(changed=True, actions=["copy"], diff={"before": "a\\n", "after": "b\\n"}, **found)
main()
"""


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This collection, and one with a slow module: with progress, without, and on a core that can't."""
    root = tmp_path_factory.mktemp("collections")
    root.chmod(0o755)
    plugins = root / "ansible_collections/test/slow/plugins"
    for name in ("action", "modules"):
        (plugins / name).mkdir(parents=True)
    for name, action in (("shown", ACTION), ("plain", ""), ("broken", BROKEN)):
        (plugins / "modules" / f"{name}.py").write_text(MODULE)
        if action:
            (plugins / "action" / f"{name}.py").write_text(action)
    (root / "ansible_collections/kvm").mkdir()
    (root / "ansible_collections/kvm/storage").symlink_to(ROOT)
    return root


class Ran:
    """What a playbook printed, and the results of its tasks in order."""

    def __init__(self, folder: Path, finished: subprocess.CompletedProcess[str]) -> None:
        self.output = finished.stdout + finished.stderr
        path = folder / "results.json"
        assert path.exists(), self.output
        self.results = json.loads(path.read_text())
        self.lines = re.findall(r"^\[target\] .*$", self.output, re.MULTILINE)


class Playing:
    """Runs tasks on one host and keeps what they return."""

    def __init__(self, folder: Path, collections: Path, host: dict[str, Any]) -> None:
        self.folder, self.collections, self.host = folder, collections, host

    def command(self, tasks: list[dict[str, Any]]) -> tuple[list[str], dict[str, str]]:
        numbered = [{**task, "register": f"task{n}", "ignore_errors": True} for n, task in enumerate(tasks)]
        shown = ", ".join(f"task{n}" for n in range(len(tasks)))
        keep: dict[str, Any] = {"content": f"{{{{ [{shown}] | to_json }}}}", "dest": str(self.folder / "results.json")}
        keeping = {"ansible.builtin.copy": keep, "delegate_to": "localhost", "become": False, "check_mode": False}
        keeping["vars"] = {"ansible_connection": "local", "ansible_remote_tmp": str(self.folder / "tmp")}
        play = [{"hosts": "all", "gather_facts": False, "tasks": [*numbered, keeping]}]
        (self.folder / "play.json").write_text(json.dumps(play))
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"target": self.host}}}))
        (self.folder / "results.json").unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
        kept |= {"ANSIBLE_COLLECTIONS_PATH": str(self.collections), "ANSIBLE_HOME": str(self.folder / "home")}
        kept |= {"ANSIBLE_NOCOLOR": "true", "ANSIBLE_PIPELINING": str(self.host.get("pipelining", False))}
        return ["ansible-playbook", "-i", "hosts.json", "play.json"], kept

    def __call__(self, *tasks: dict[str, Any], check: bool = False) -> Ran:
        argv, env = self.command(list(tasks))
        argv += ["--check"] if check else []
        done = subprocess.run(argv, cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=600)
        return Ran(self.folder, done)


def passwd(folder: Path) -> Path:
    """The users of this machine, with the home of root, and of another user, in a folder of the test's."""
    homes = {name: folder / f"home-{name}" for name in ("root", "worker")}
    for path in homes.values():
        path.mkdir()
    os.chown(homes["worker"], NOBODY, NOBODY)
    lines = Path("/etc/passwd").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("root:", "worker:", "nobody:"))]
    lines += [f"root:x:0:0::{homes['root']}:/bin/sh", f"worker:*:{NOBODY}:{NOBODY}::{homes['worker']}:/bin/sh"]
    path = folder / "passwd"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def ssh_server(run_root: Path) -> Iterator[dict[str, Any]]:
    """An ssh server on a free port of loopback, whose root has a home and a key of the test's own."""
    if shutil.which("dropbear") is None or os.geteuid() != 0:
        pytest.skip("needs root and dropbear-bin")
    folder = for_all(run_root)
    table = passwd(folder)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    subprocess.run(["dropbearkey", "-t", "ed25519", "-f", folder / "host"], check=True, capture_output=True)
    (folder / "home-root/.ssh").mkdir(mode=0o700)
    shutil.copy(folder / "key.pub", folder / "home-root/.ssh/authorized_keys")
    port = free_port()
    script = f"mount --make-rprivate / && mount --bind {table} /etc/passwd && exec dropbear -F -E -s -m"
    script += f" -p 127.0.0.1:{port} -r {folder / 'host'} -P {folder / 'pid'}"
    with open(folder / "log", "w") as log:
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        server = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while "background" not in (text := (folder / "log").read_text()) and "foreground" not in text:
            assert server.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.05)
        options = f"-o ControlPersist=2s -o UserKnownHostsFile={folder / 'known'} -o StrictHostKeyChecking=accept-new"
        yield {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(folder / "key"),
            "ansible_ssh_common_args": options,
            "ansible_python_interpreter": "/usr/bin/python3",
            "homes": str(folder),
        }
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def for_all(run_root: Path) -> Path:
    """A folder that other users come to as well; pytest's own are closed to them by whatever run begins next."""
    folder = Path(tempfile.mkdtemp(prefix="progress-", dir=run_root))
    folder.chmod(0o755)
    return folder


@pytest.fixture(params=["local", "ssh", "ssh pipelining", "ssh become"] if SOAK else ["local", "ssh become"])
def playing(request: pytest.FixtureRequest, run_root: Path, collections: Path) -> Playing:
    folder = for_all(run_root)
    if request.param == "local":
        host = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        host |= {"ansible_async_dir": str(folder / "jobs"), "ansible_remote_tmp": str(folder / "remote")}
        return Playing(folder, collections, host)
    host = dict(request.getfixturevalue("ssh_server"))
    system = folder / "system"  # where what another user runs lies
    system.mkdir()
    system.chmod(0o1777)
    host |= {"ansible_remote_tmp": str(folder / "remote"), "ansible_system_tmpdirs": [str(system)]}
    if request.param == "ssh pipelining":
        host["pipelining"] = True
    if request.param == "ssh become":
        host |= {"ansible_become": True, "ansible_become_method": "su", "ansible_become_user": "worker"}
    return Playing(folder, collections, host)


def leftovers(playing: Playing, seconds: float = 60) -> list[str]:
    """Files of jobs, of modules and of progress; core's watcher looks every 5 s whether it can remove its own."""
    folders = [playing.folder, *([Path(playing.host["homes"])] if "homes" in playing.host else [])]
    deadline = time.monotonic() + seconds
    while True:
        paths = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
        found = [path for path in paths if re.search(r"/(jobs|\.ansible_async|ansible-tmp-[^/]*)/", path)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs between any two runs."""
    text = json.dumps(result, sort_keys=True)
    text = re.sub(r"test\.slow\.\w+|modules[./]\w+|AnsiballZ_\w+|_[a-z]+_payload_\w+|ansible-tmp-[0-9.-]+", "X", text)
    found: dict[str, Any] = json.loads(re.sub(r"line \d+|_[a-z0-9_]{8}/", "", text))
    return found


def task(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, f"test.slow.{name}": options}


def test_a_run_with_progress_returns_what_a_plain_one_returns(playing: Playing) -> None:
    options = [{"seed": "hush"}, {"end": "badly"}, {"none_such": 1}]
    ran = playing(*[task(name, **one) for one in options for name in ("plain", "shown")])
    for plain, shown in zip(ran.results[::2], ran.results[1::2], strict=True):
        assert comparable(shown) == comparable(plain)
    well, badly, refused = ran.results[1::2]
    assert well["changed"] and well["nested"]["word"] == ["ä", 1, None, 2.5, True]
    assert (badly["failed"], badly["code"]) == (True, "in_use")
    assert "none_such" in refused["msg"]
    assert "hush" not in ran.output
    if "ansible_become_user" in playing.host:
        assert well["uid"] == NOBODY
    assert leftovers(playing) == []


@pytest.mark.parametrize("end", ["crash", "kill"])
def test_a_module_without_a_result_fails(playing: Playing, end: str) -> None:
    ran = playing(task("plain", end=end), task("shown", end=end))
    assert [one["failed"] for one in ran.results] == [True, True]
    if end == "crash":
        assert "a defect" in json.dumps(ran.results[1])
    assert leftovers(playing) == []


def test_lines_come_while_it_works(playing: Playing) -> None:
    for seconds in LONGER:
        ran = playing(task("shown", seconds=seconds))
        assert ran.results[0]["changed"]
        found = [re.search(r"copy\s+(\d+)%  [\d.]+ MiB of 10.0 MiB", line) for line in ran.lines]
        places = [place for place, one in enumerate(found) if one]  # before and behind them it tells nothing
        percents = [int(one[1]) for one in found if one]
        assert percents == sorted(percents), ran.output
        assert places == list(range(places[0], places[-1] + 1)) if places else True, ran.output
        if len(set(percents)) >= 2:
            return
    pytest.fail(ran.output)


def test_a_module_that_tells_nothing_is_not_silent(playing: Playing) -> None:
    for seconds in LONGER:
        ran = playing(task("shown", seconds=seconds, silent=True))
        assert {re.sub(r"\d+", "N", line) for line in ran.lines} <= {"[target] shown: N s"}, ran.output
        said = [int(line.split()[-2]) for line in ran.lines]
        assert all(after >= SELDOM * number for number, after in enumerate(said, start=1)), ran.output
        if len(said) >= 2:
            return
    pytest.fail(ran.output)


def test_it_steps_aside(playing: Playing) -> None:
    """Where somebody else has it in the background, where it is only a prediction, and where nothing may show."""
    ran = playing(
        {**task("shown", seconds=3), "async": 60, "poll": 1},
        {**task("shown", seconds=3), "no_log": True},
    )
    assert ran.lines == []
    assert ran.results[0]["finished"] and ran.results[0]["changed"]
    assert playing(task("shown", seconds=3), check=True).lines == []


def test_a_core_that_can_not_runs_it_plainly(playing: Playing) -> None:
    ran = playing(task("plain"), task("broken"))
    assert comparable(ran.results[0]) == comparable(ran.results[1])


def test_a_task_that_runs_out_of_time_ends_its_module(playing: Playing) -> None:
    command = ["pgrep", "-f", f"python3.*{playing.folder}/.*[0-9]/AnsiballZ_shown"]

    def works() -> list[int]:
        return list(map(int, subprocess.run(command, capture_output=True, check=False).stdout.split()))

    for timeout in (4, 16, 64):
        began, seen = time.monotonic(), False
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(playing, {**task("shown", seconds=600), "timeout": timeout})
            while not running.done():
                seen = seen or bool(works())
                time.sleep(0.1)
        ran = running.result()
        assert ran.results[0]["failed"]
        assert time.monotonic() - began < 180
        told = any("%" in line for line in ran.lines)
        if seen and told:  # else its time was over before it had told of itself
            break
        while working := works():
            for pid in working:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for path in leftovers(playing, 0):
            Path(path).unlink()
    assert seen and told, ran.output
    assert leftovers(playing) == []
    deadline = time.monotonic() + 60  # of core's watcher, which names it too
    while works():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_module_that_is_ended_before_it_has_told_of_itself(playing: Playing) -> None:
    command = ["pgrep", "-f", f"python3.*{playing.folder}/.*[0-9]/AnsiballZ_shown"]

    def works() -> list[int]:
        return list(map(int, subprocess.run(command, capture_output=True, check=False).stdout.split()))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(playing, {**task("shown", seconds=600, silent=True), "timeout": 90})
        while not works() and not running.done():
            time.sleep(0.1)
        time.sleep(5)  # it is followed by now
        for pid in works():  # its wrapper, too, as where a host loses its power
            os.kill(pid, signal.SIGKILL)
        ran = running.result()
    assert "left no result" in ran.results[0]["msg"], ran.output


def test_an_image_of_the_controller(playing: Playing, fresh_hypervisor: Libvirtd, scratch: Path) -> None:
    """Read where it is, or brought over, where it is needed; the volume has its content."""
    if "ansible_become_user" in playing.host:
        pytest.skip("this user may not speak to libvirtd")
    uri, image = fresh_hypervisor.uri, playing.folder / "files/disk.raw"
    image.parent.mkdir()
    with open(image, "wb") as file:
        file.write(os.urandom(1 << 20))
        file.truncate(4 << 20)
    pool = {"kvm.storage.pool_dir": {"uri": uri, "name": "images", "path": f"{scratch}/images"}}
    options = {"uri": uri, "pool": "images", "name": "disk", "src": "disk.raw", "source_format": "raw"}
    one = {"kvm.storage.volume_upload": options}
    other = {"kvm.storage.volume_upload": {**options, "replace": True}}
    missing = {"kvm.storage.volume_upload": {**options, "src": "none.raw"}}
    ran = playing(pool, {**one, "check_mode": True}, one, one, other, missing, {**other, "check_mode": True})
    assert [one.get("changed", False) for one in ran.results] == [True, True, True, False, False, False, False], (
        ran.output
    )
    assert [one["actions"] for one in ran.results[1:5]] == [["upload"], ["upload"], [], []]
    assert "none.raw" in ran.results[5]["msg"]
    assert (scratch / "images/disk").read_bytes() == image.read_bytes()
    with open(image, "r+b") as file:
        file.write(os.urandom(4096))
    ran = playing({**other, "check_mode": True}, other)
    assert [one["actions"] for one in ran.results] == [["replace"], ["replace"]], ran.output
    assert (scratch / "images/disk").read_bytes() == image.read_bytes()
    assert leftovers(playing) == []


@pytest.mark.parametrize("playing", ["ssh"], indirect=True)
def test_an_image_of_the_controller_has_its_name_in_a_list(
    playing: Playing, fresh_hypervisor: Libvirtd, scratch: Path
) -> None:
    """A list of checksums knows it by the name that it has where it comes from."""
    uri, image = fresh_hypervisor.uri, playing.folder / "files/disk.raw"
    image.parent.mkdir()
    image.write_bytes(os.urandom(1 << 20))
    sums = f"{hashlib.sha256(image.read_bytes()).hexdigest()}  disk.raw\n{'0' * 64}  other.raw\n"
    (playing.folder / "sums").mkdir()
    (playing.folder / "sums/SHA256SUMS").write_text(sums)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(playing.folder / "sums"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        listed = f"sha256:http://127.0.0.1:{server.server_port}/SHA256SUMS"
        options = {"uri": uri, "pool": "images", "name": "disk", "src": "disk.raw", "source_format": "raw"}
        options |= {"checksum": listed, "url_networks": ["127.0.0.0/8"]}
        pool = {"kvm.storage.pool_dir": {"uri": uri, "name": "images", "path": f"{scratch}/images"}}
        ran = playing(pool, {"kvm.storage.volume_upload": options})
        server.shutdown()
    assert ran.results[1]["changed"], ran.output
    assert (scratch / "images/disk").read_bytes() == image.read_bytes()
    assert leftovers(playing) == []
