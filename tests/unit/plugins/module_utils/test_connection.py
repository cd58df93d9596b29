# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections without libvirt: what is local, waiting, locks and what errors say."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import connection
from ansible_collections.kvm.storage.plugins.module_utils.connection import Connection
from ansible_collections.kvm.storage.plugins.module_utils.errors import StepFailed, StorageError, bad_value


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+unix:///system", True),
        ("qemu+unix:///system?socket=/run/x/libvirt-sock", True),
        ("test:///default", True),
        ("test:///srv/node.xml", True),
        ("storage:///system", True),
        ("lxc:///", True),
        ("qemu://host/system", False),
        ("qemu://localhost/system", False),
        ("qemu+ssh://root@host/system", False),
        ("qemu+ssh:///system", False),
        ("qemu+tls://host/system", False),
        ("qemu+tls:///system", False),
        ("qemu+tcp://127.0.0.1/system", False),
        ("qemu+libssh2://host/system", False),
        ("qemu+ext:///system?command=x", False),
        ("qemu+unix://host/system", False),
    ],
)
def test_is_local(uri, local):
    assert connection.is_local(uri) is local
    assert Connection(None, uri).local is local


class LibvirtError(Exception):
    """As libvirt's own answers."""

    def get_error_message(self):
        return "internal error: \n  it did\tnot work"

    def get_error_code(self):
        return 38


@pytest.mark.parametrize(
    ("error", "words", "number"),
    [
        (LibvirtError(), "internal error: it did not work", 38),
        (OSError(2, "No such file"), "[Errno 2] No such file", 0),
        (ValueError(), "ValueError", 0),
        (ValueError("a\nb"), "a b", 0),
    ],
)
def test_words(error, words, number):
    assert connection.words(error) == words
    assert connection.number(error) == number


def test_within():
    assert connection.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        connection.within(5, lambda: 1 // 0)
    release = threading.Event()
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.within(0.05, release.wait)
    release.set()
    assert time.monotonic() - begin < 30


def test_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert connection.answers("127.0.0.1", port, 60)
        assert connection.answers("[127.0.0.1]", port, 60)
    assert not connection.answers("127.0.0.1", port, 60)
    assert not connection.answers("host..name" + "x" * 70, port, 60)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "lock_folder", lambda: str(tmp_path))
    return tmp_path


def held(uri, names, seconds=0.0):
    """Whether the locks could be taken."""
    try:
        with Connection(None, uri).locked(names, seconds):
            return True
    except StorageError as error:
        assert error.code == "busy"
        assert error.thing in names
        return False


def test_two_runs_take_turns(folder):
    mine = Connection(None, "qemu:///system")
    with mine.locked(["pool 'b'", "pool 'a'", "pool 'a'"], 1):
        assert not held("qemu:///system", ["pool 'a'"])
        assert not held("qemu:///system", ["pool 'c'", "pool 'b'"])
        assert held("qemu:///system", ["pool 'c'"])
        assert held("qemu:///session", ["pool 'a'"])
        assert held("qemu:///system", [])
    assert held("qemu:///system", ["pool 'a'", "pool 'b'"])


def test_a_lock_is_waited_for(folder, monkeypatch):
    mine = Connection(None, "u")
    taken, release = threading.Event(), threading.Event()
    sleep = time.sleep

    def hold():
        with mine.locked(["x"], 1):
            taken.set()
            release.wait(60)

    def waits(seconds):
        release.set()
        sleep(seconds)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    monkeypatch.setattr(connection.time, "sleep", waits)
    assert held("u", ["x"], 60.0)
    assert release.is_set()
    holder.join()


def test_a_lock_is_given_back_when_the_work_fails(folder):
    with pytest.raises(ZeroDivisionError), Connection(None, "u").locked(["x"], 1):
        raise ZeroDivisionError
    assert held("u", ["x"])


def test_a_link_is_not_taken_for_a_lock(folder, tmp_path):
    with Connection(None, "u").locked(["x"], 1):
        (lock,) = folder.glob("*.lock")
    assert not lock.exists()  # nothing is left behind
    lock.symlink_to("/etc/passwd")
    with pytest.raises(OSError), Connection(None, "u").locked(["x"], 1):
        pass


class Raw:
    """A connection that can't list anything."""

    def listAllDomains(self, flags):  # noqa: N802  libvirt's name
        raise LibvirtError


def test_domains_that_can_not_be_seen_are_not_none():
    with pytest.raises(StorageError) as caught:
        Connection(Raw(), "storage:///system").domains()
    assert caught.value.code == "guard_unavailable"
    assert "it did not work" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (StorageError(thing="pool 'a'", reason="it is used", code="in_use"), "pool 'a': it is used", "in_use"),
        (
            StorageError(thing="pool 'a'", reason="it is used", code="in_use", way_out="stop"),
            "pool 'a': it is used; stop",
            "in_use",
        ),
        (
            StepFailed(thing="pool 'a'", step="set_autostart", reason="no", code="x"),
            "Cannot set autostart pool 'a': no",
            "x",
        ),
        (
            StepFailed(thing="pool 'a'", step="start", reason="no", code="x", way_out="y"),
            "Cannot start pool 'a': no; y",
            "x",
        ),
        (
            bad_value("pool 'a'", "path", "x", "an absolute path"),
            "pool 'a': path can't be 'x'; give an absolute path",
            "bad_value",
        ),
    ],
)
def test_errors_have_one_form(error, text, code):
    assert str(error) == text
    assert error.code == code
    assert isinstance(error, StorageError)


def test_a_host_without_a_daemon_is_not_asked(monkeypatch):
    """device_info looks at hosts that are yet to become hypervisors."""
    there = set()
    monkeypatch.setattr(connection.os.path, "exists", lambda path: path in there)
    assert not connection.is_served("qemu:///system")
    assert connection.is_served("qemu+unix:///system?socket=/srv/libvirt-sock")
    there.add("/run/libvirt/virtqemud-sock")
    assert connection.is_served("qemu:///system")
