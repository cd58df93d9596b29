# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets: their life on a real libvirtd, and that their values show nowhere.

Known values go down every path, and are then sought in whatever came out, in every form that a tool may print.
Two leaks are Ansible's own and not looked at: ANSIBLE_KEEP_REMOTE_FILES=1, and a loop over the values themselves,
whose label is the item.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest
from ansible.module_utils import basic

from tests.integration.helpers import Host, connected, printed_by
from tests.servers.ceph import Ceph
from tests.servers.iscsi import Target
from tests.servers.libvirtd import LIBVIRTD_CONF, Libvirtd

ROOT = Path(__file__).resolve().parents[2]

CANARIES = {
    "plain": "canary-plain-4f7a1c93",
    "short": "Zq7~x",
    "quotes": "canary'\"`$(id)`\\4f7a1c94",
    "newline": "canary-line-one-4f7a\ncanary-line-two-1c95",
    "percent": "canary%s%d%n{{ 7*7 }}%4f7a1c96",
    "unicode": "canäry-ключ-鍵-4f7a1c97",
    "spaces": " canary in spaces 4f7a1c98 ",
}
LUKS = "canary-luks-4f7a1c99"
CHAP = "canary-chap-4f7a"


def forms(value: str) -> set[str]:
    """A value as text, and as tools encode it; the lines of a longer one by themselves."""
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    found |= {line for line in value.splitlines() if len(line) > 8}
    for text in (value, value.strip()):
        raw = text.encode()
        found |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex(), raw.hex().upper()}
        found |= {urllib.parse.quote(text, safe=""), urllib.parse.quote(text), urllib.parse.quote_plus(text)}
        found.add(base64.b64encode(raw).decode().rstrip("="))
    return found


def shown_in(text: str, values: list[str]) -> list[str]:
    """The forms of the values that a text holds, under whatever line ends."""
    return [form for value in values for form in forms(value) if form in text]


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


def value_of(host: Host, usage: int, name: str) -> bytes:
    with connected(host.uri) as connection:
        return bytes(connection.secretLookupByUsage(usage, name).value())


# Their life


@pytest.mark.parametrize(("usage", "number"), [("iscsi", 3), ("volume", 1), ("tls", 4), ("vtpm", 5)])
def test_life_of_a_secret(host: Host, usage: str, number: int) -> None:
    secret = {"usage": usage, "usage_name": "one"}
    gone = {**secret, "state": "absent"}
    steps = ["define", "set_value"]
    host.lifecycle("secret", steps, ["undefine"], "(set)", undo=gone, value="first-value", **secret)
    host.ok("secret", value="first-value", **secret)
    assert value_of(host, number, "one") == b"first-value"
    host.converge("secret", ["set_value"], "(new value)", value="other-value", **secret)
    encoded = base64.b64encode(bytes(range(256))).decode()
    host.converge("secret", ["set_value"], value_base64=encoded, **secret)
    assert value_of(host, number, "one") == bytes(range(256))
    host.unchanged("secret", **secret)
    host.converge("secret", ["define"], "for the disks", description="for the disks", **secret)
    assert value_of(host, number, "one") == bytes(range(256))
    host.unchanged("secret", value="x", set_value="never", **secret)


@pytest.mark.parametrize("name", CANARIES)
def test_every_value_arrives_as_it_is(host: Host, name: str) -> None:
    host.ok("secret", usage="iscsi", usage_name=name, value=CANARIES[name])
    assert value_of(host, 3, name).decode() == CANARIES[name]
    host.unchanged("secret", usage="iscsi", usage_name=name, value=CANARIES[name])


def test_private_and_ephemeral(host: Host, fresh_hypervisor: Libvirtd) -> None:
    private = {"usage": "iscsi", "usage_name": "private", "private": True}
    host.converge("secret", ["define", "set_value", "make_private"], "private", value="first-value", **private)
    host.unchanged("secret", value="another-value", **private)  # libvirt keeps it to itself, so nobody can tell
    result = host.ok("secret", value="another-value", set_value="always", **private)
    assert result["actions"] == ["set_value"]
    host.refused("secret", "cannot_change", "stays private", **{**private, "private": False})
    ephemeral = {"usage": "iscsi", "usage_name": "ephemeral", "ephemeral": True, "value": "some-value"}
    host.converge("secret", ["define", "set_value"], **ephemeral)
    fresh_hypervisor.restart()
    host.converge("secret", ["define", "set_value"], **ephemeral)


def test_uuid_is_stable_and_not_taken(host: Host) -> None:
    one = host.ok("secret", usage="ceph", usage_name="one")["uuid"]
    host.ok("secret", usage="ceph", usage_name="one", state="absent")
    assert host.ok("secret", usage="ceph", usage_name="one")["uuid"] == one
    host.refused("secret", "uuid_conflict", one, usage="ceph", usage_name="two", uuid=one)
    other = "2b7e6f3a-6d0b-4a59-9b0a-27b3e8f3c001"
    host.refused("secret", "cannot_change", one, usage="ceph", usage_name="one", uuid=other)


# In this process: results, the system's log


def paths(name: str, value: str) -> list[tuple[str, dict[str, Any]]]:
    """Calls that get hold of a value, and most of which fail after that."""
    encoded = base64.b64encode(value.encode()).decode()
    iscsi = {"usage": "iscsi", "usage_name": name}
    other = "2b7e6f3a-6d0b-4a59-9b0a-27b3e8f3c001"
    dead = {"uri": "qemu+unix:///system?socket=/nonexistent"}
    calls: list[dict[str, Any]] = [
        {**iscsi, "value": value},
        {**iscsi, "value_base64": encoded},
        {**iscsi, "value": value, "set_value": "always", "description": "one"},
        {**iscsi, "value": value, "uuid": other},
        {**iscsi, "value": value, "uuid": "no uuid"},
        {**iscsi, "value": value, "value_base64": encoded},
        {**iscsi, "value_base64": value},
        {**iscsi, "value": value, "keyring_entity": "client.x"},
        {**iscsi, "value": value, "nonsense": True},
        {**iscsi, "value": value, "set_value": "perhaps"},
        {**iscsi, "value": value, "private": "perhaps"},
        {**iscsi, "value": {"deep": [value]}},
        {**iscsi, "value": [value]},
        {"usage": "ceph", "usage_name": name, "value": value},
        {"usage": "ceph", "usage_name": name, "value_base64": encoded},
        {"usage": "wrong", "usage_name": name, "value": value},
        {"usage": "iscsi", "usage_name": "bad\nname", "value": value},
        {"usage": "iscsi", "value": value},
        {**iscsi, "value": value, **dead},
    ]
    layouts = [
        {"secrets": [call], **({"uri": call["uri"]} if "uri" in call else {})}
        for call in ({key: part for key, part in one.items() if key != "uri"} for one in calls)
    ]
    layouts.append({"secrets": [calls[0], calls[0]]})
    layouts.append({"secrets": [calls[0]], "pools": [{"type": "dir", "name": "x", "path": "relative"}]})
    layouts.append({"secrets": [calls[0]], "return_all": True, "prune": True, "owner": "tests"})
    return [("secret", one) for one in calls] + [("layout", one) for one in layouts]


@pytest.mark.parametrize("name", CANARIES)
def test_values_are_in_no_result_and_no_invocation(host: Host, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    value = CANARIES[name]
    count = failed = 0
    with mock.patch.object(basic.syslog, "syslog") as log:
        for module, args in paths(name, value):
            for check in (True, False):
                text = printed_by(module, {"uri": host.uri, **args}, check=check)
                result = json.loads(text)
                assert shown_in(text, [value]) == [], (module, sorted(args), text)
                assert shown_in(str(result), [value]) == []
                assert "invocation" in result or result.get("failed")
                count, failed = count + 1, failed + bool(result.get("failed"))
        logged = "\n".join(str(call.args[-1]) for call in log.call_args_list)
    assert "Invoked with" in logged
    assert shown_in(logged, [value]) == []
    assert shown_in("".join(capfd.readouterr()), [value]) == []
    assert (count, failed > 40) == (2 * (19 + 22), True), failed


def test_backend_that_fails_while_it_has_the_value(host: Host) -> None:
    def refuse(secret: libvirt.virSecret, value: bytes, flags: int = 0) -> int:
        raise libvirt.libvirtError(f"cannot store {value.decode()}")  # the worst that a library could say

    for module in ("secret", "layout"):
        for value in CANARIES.values():
            secret = {"usage": "iscsi", "usage_name": "one", "value": value}
            args = secret if module == "secret" else {"secrets": [secret]}
            with mock.patch.object(libvirt.virSecret, "setValue", refuse):
                text = printed_by(module, {"uri": host.uri, **args})
            assert json.loads(text)["failed"] is True
            assert shown_in(text, [value]) == [], text


def test_cephx_key_as_ceph_prints_it(host: Host, ceph: Ceph, fresh_hypervisor: Libvirtd) -> None:
    key = ceph.key()
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    pool: dict[str, Any] = {"name": "vms", "source_name": "rbd", "hosts": monitors}
    pool["auth"] = {"username": "admin", "secret_usage": "admin"}
    text = ""
    for given in ({"value": key}, {"value_base64": key}, {"keyring_file": str(ceph.keyring())}):
        for check in (True, False):
            secret = {"uri": host.uri, "usage": "ceph", "usage_name": "admin", **given}
            text += printed_by("secret", secret, check=check)
            text += printed_by("pool_rbd", {"uri": host.uri, **pool}, check=check)
        assert value_of(host, 2, "admin") == base64.b64decode(key)
        assert json.loads(printed_by("secret", secret))["changed"] is False, given
    assert json.loads(printed_by("pool_rbd", {"uri": host.uri, **pool}))["changed"] is False
    shown = {key, base64.b64decode(key).hex()}
    assert [one for one in shown if one in text] == []
    assert [one for one in shown if one in fresh_hypervisor.log.read_text(errors="replace")] == []


# Through ansible-playbook


PLAYBOOK = r"""
- name: Every path of a secret value
  hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    kvm.storage.secret: {uri: "{{ uri }}"}
    kvm.storage.layout: {uri: "{{ uri }}"}
    kvm.storage.volume: {uri: "{{ uri }}"}
    kvm.storage.pool_dir: {uri: "{{ uri }}"}
    kvm.storage.pool_iscsi_direct: {uri: "{{ uri }}"}
  tasks:
    - name: In a loop, predicted
      kvm.storage.secret: {usage: iscsi, usage_name: "{{ item }}", value: "{{ canaries[item] }}"}
      loop: [quotes, newline, short]
      check_mode: true
      register: predicted
    - name: In a loop
      kvm.storage.secret: {usage: iscsi, usage_name: "{{ item }}", value: "{{ canaries[item] }}", set_value: always}
      loop: "{{ canaries | list }}"
      register: done
    - name: As base64
      kvm.storage.secret: {usage: tls, usage_name: "{{ item }}", value_base64: "{{ canaries[item] | b64encode }}"}
      loop: [unicode, percent]
      register: encoded
    - name: Several at once
      kvm.storage.layout: {secrets: "{{ all }}", return_all: true}
      vars:
        named: "{{ canaries | dict2items(key_name='usage_name', value_name='value') }}"
        all: "{{ named | map('combine', {'usage': 'vtpm'}) }}"
      register: several
    - name: By the role
      ansible.builtin.include_role: {name: kvm.storage.storage}
      vars:
        storage_uri: "{{ uri }}"
        named: "{{ canaries | dict2items(key_name='usage_name', value_name='value') }}"
        storage_secrets: "{{ named | map('combine', {'usage': 'iscsi'}) }}"
    - name: By the role, refused by the engine
      block:
        - name: What is no cephx key
          ansible.builtin.include_role: {name: kvm.storage.storage}
          vars:
            storage_uri: "{{ uri }}"
            storage_secrets: [{usage: ceph, usage_name: x, value: "{{ canaries.quotes }}"}]
      rescue:
        - name: What became of it
          ansible.builtin.debug: {var: storage_result}
    - name: By the role, refused by the arguments
      block:
        - name: An option that there is not, and a usage that there is not
          ansible.builtin.include_role: {name: kvm.storage.storage}
          vars:
            storage_uri: "{{ uri }}"
            storage_secrets: [{usage: wrong, usage_name: x, value: "{{ canaries.newline }}", nonsense: true}]
      rescue:
        - name: What became of that
          ansible.builtin.debug: {var: ansible_failed_result}
    - name: In the background
      kvm.storage.secret: {usage: iscsi, usage_name: background, value: "{{ canaries.plain }}"}
      async: 60
      poll: 1
      register: background
    - name: Refused by the arguments
      kvm.storage.secret: {usage: wrong, usage_name: "{{ item }}", value: "{{ canaries[item] }}"}
      loop: [quotes, newline]
      ignore_errors: true
      register: refused
    - name: Refused by the engine
      kvm.storage.secret: {usage: ceph, usage_name: "{{ item }}", value: "{{ canaries[item] }}"}
      loop: [quotes, newline]
      ignore_errors: true
      register: no_key
    - name: Refused in a layout
      kvm.storage.layout: {secrets: [{usage: ceph, usage_name: x, value: "{{ canaries.plain }}", nonsense: true}]}
      ignore_errors: true
      register: in_layout
    - name: No libvirt
      kvm.storage.secret:
        {uri: "qemu+unix:///system?socket=/nonexistent", usage: iscsi, usage_name: x, value: "{{ canaries.plain }}"}
      ignore_errors: true
      register: dead
    - name: A passphrase
      kvm.storage.secret: {usage: volume, usage_name: luks, value: "{{ luks }}"}
    - name: A pool
      kvm.storage.pool_dir: {name: images, path: "{{ images }}"}
    - name: A volume that is opened with it
      kvm.storage.volume:
        {pool: images, name: disk, format: raw, capacity: 1MiB, encryption: {secret_usage: luks}}
      register: volume
      retries: 5
      until: volume is succeeded
    - name: A password
      kvm.storage.secret: {usage: iscsi, usage_name: "{{ pool.target_iqn }}", value: "{{ chap }}"}
    - name: A login that it does not open
      kvm.storage.pool_iscsi_direct: "{{ pool }}"
      ignore_errors: true
      register: login
    - name: What was registered
      ansible.builtin.debug:
        msg: "{{ [predicted, done, encoded, several, background, refused, no_key, in_layout, dead, volume, login] }}"
"""


class Watch:
    """Every command line of the machine, and the private files of libvirt, while something runs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        self.seen.add(file.read())
                except OSError:
                    continue


@pytest.fixture
def talkative(run_root: Path) -> Iterator[Libvirtd]:
    """A libvirtd that logs all that it does with secrets and storage."""
    louder = LIBVIRTD_CONF.replace("log_level = 3", "log_level = 1").replace('"3:file', '"1:file')
    louder += 'log_filters = "3:object 3:event 3:util.thread 3:rpc 3:qemu 3:cpu 3:util.file 3:util.json"\n'
    with mock.patch("tests.servers.libvirtd.LIBVIRTD_CONF", louder), Libvirtd(run_root / "talkative") as server:
        yield server


def environment(home: Path) -> dict[str, str]:
    """What ansible-playbook gets; all its temporary files lie below one directory."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True)
    collections = os.environ.get("ANSIBLE_COLLECTIONS_PATH") or str(ROOT / ".cache/collections")
    return {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": collections,
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_LOG_PATH": str(home / "ansible.log"),
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_LOCAL_TEMP": str(home / ".ansible/tmp"),
        "ANSIBLE_REMOTE_TEMP": str(home / ".ansible/tmp"),
        "ANSIBLE_ASYNC_DIR": str(home / ".ansible_async"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def playbook(folder: Path, text: str, variables: dict[str, Any]) -> list[str]:
    """The command line of a playbook whose variables nobody else may read."""
    (folder / "play.yml").write_text(text, encoding="utf-8")
    (folder / "vars.json").write_text(json.dumps(variables), encoding="utf-8")
    program = Path(sys.executable).with_name("ansible-playbook")
    return [str(program), "-i", "localhost,", "-vvvv", "--diff", "-e", f"@{folder}/vars.json", f"{folder}/play.yml"]


def text_below(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files)


def test_values_are_nowhere_after_a_playbook(talkative: Libvirtd, iscsi: Target, tmp_path: Path) -> None:
    home, private = tmp_path / "home", tmp_path / "private"
    private.mkdir()
    pool: dict[str, Any] = {
        "name": "luns",
        "hosts": [{"name": iscsi.host, "port": iscsi.port}],
        "target_iqn": iscsi.iqn_chap,
    }
    pool.update(initiator_iqn=iscsi.initiator, auth={"username": iscsi.user, "secret_usage": iscsi.iqn_chap})
    variables = {"uri": talkative.uri, "canaries": CANARIES, "luks": LUKS, "chap": CHAP, "pool": pool}
    variables["images"] = str(talkative.shared / "images")
    values = [*CANARIES.values(), LUKS, CHAP]
    other_temporary = {path: set(path.iterdir()) for path in (Path("/tmp"), Path("/var/tmp"))}
    with Watch() as watch:
        command = playbook(private, PLAYBOOK, variables)
        done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=600, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert re.search(r"failed=0 .*rescued=2 .*ignored=5", output), output[-600:]
    assert "What was registered" in output
    assert shown_in(output, values) == []
    assert shown_in(text_below(home), values) == []
    commands = b"\n".join(watch.seen).decode(errors="replace")
    assert "AnsiballZ_secret" in commands
    made = rf"qemu-img\0create\0.*{re.escape(variables['images'])}/\.kvm\.storage-"
    assert re.search(made, commands), "the making of the LUKS volume was seen"
    assert shown_in(commands, values) == []
    log = talkative.log.read_text(encoding="utf-8", errors="replace")
    assert "virSecretSetValue" in log
    assert shown_in(log, values) == []
    new = [path for folder, before in other_temporary.items() for path in set(folder.iterdir()) - before]
    for path in new:
        with contextlib.suppress(FileNotFoundError):  # others have theirs there, which come and go
            if path.is_file() and path.stat().st_size < 1 << 20:
                assert shown_in(path.read_bytes().decode(errors="replace"), values) == [], path


KILLED = """
- name: A module that waits for its turn
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Wait
      kvm.storage.secret: {uri: "{{ uri }}", usage: iscsi, usage_name: one, value: "{{ value }}"}
"""


@pytest.mark.parametrize("victim", ["module", "playbook"])
def test_values_are_nowhere_after_a_kill(host: Host, tmp_path: Path, victim: str) -> None:
    """Killed while it has the value. Without pipelining it is Ansible that leaves its own file when it is killed."""
    import ansible_collections.kvm.storage.plugins.module_utils.connection as connections

    home, private = tmp_path / "home", tmp_path / "private"
    private.mkdir()
    value = CANARIES["plain"]
    env = {**environment(home), **({"ANSIBLE_PIPELINING": "true"} if victim == "playbook" else {})}
    connection = connections.Connection.open(host.uri)
    with connection.locked(["secret 'one'"], 1):
        command = playbook(private, KILLED, {"uri": host.uri, "value": value})
        started = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        module = waiting_module(started.pid)
        for pid in [module] if victim == "module" else [started.pid, *descendants(started.pid)]:
            os.kill(pid, signal.SIGKILL)
        output = started.communicate(timeout=120)[0]
    connection.close()
    assert started.returncode != 0
    assert shown_in(output, [value]) == []
    assert shown_in(text_below(home), [value]) == []
    with connected(host.uri) as opened:
        assert opened.listAllSecrets() == []


def descendants(ancestor: int) -> list[int]:
    """Every process that another has started, by way of others too."""
    parents: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            after_name = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            parents.setdefault(int(after_name.split()[1]), []).append(int(entry))
    found = parents.get(ancestor, [])
    for pid in found:  # grows while it is gone through
        found += parents.get(pid, [])
    return found


def waiting_module(playbook_pid: int) -> int:
    """The module's process of a playbook, once it has opened its lock."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for pid in descendants(playbook_pid):
            with contextlib.suppress(OSError):
                files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
                if any(file.startswith("/run/kvm.storage/") for file in files):
                    return pid
        time.sleep(0.05)
    raise AssertionError("the module never came to its lock")


def test_search_finds_what_leaks(tmp_path: Path) -> None:
    """That nothing was found means something."""
    value = CANARIES["quotes"]
    for form in forms(value):
        (tmp_path / "leak").write_text(f"before {form} after", encoding="utf-8")
        assert shown_in(text_below(tmp_path), [value])
