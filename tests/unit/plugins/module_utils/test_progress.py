# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module tells how far it is where it was asked to, and nowhere else."""

from __future__ import annotations

import json
import os
import stat
import time

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import progress

NAME = "0123456789abcdef"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, NAME)
    monkeypatch.setenv(progress.FOLDER, str(tmp_path))
    monkeypatch.setattr(progress, "SECONDS", 0.02)
    return tmp_path / f"kvm.storage-{NAME}"


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_told(asked):
    with progress.told("upload", 100) as tick:
        until(asked.exists)
        assert json.loads(asked.read_text()) == {"pid": os.getpid(), "step": "upload", "done": 0, "total": 100}
        tick(30)
        tick(12)
        until(lambda: json.loads(asked.read_text())["done"] == 42)
        assert stat.S_IMODE(asked.stat().st_mode) == 0o600
    assert os.listdir(asked.parent) == []


def test_nothing_stays_after_a_failure(asked):
    with pytest.raises(ZeroDivisionError), progress.told("upload"):
        until(asked.exists)
        raise ZeroDivisionError
    assert os.listdir(asked.parent) == []


def test_a_link_is_not_followed(asked, tmp_path_factory):
    victim = tmp_path_factory.mktemp("other") / "victim"
    victim.write_text("mine")
    asked.with_name(f"{asked.name}.tmp").symlink_to(victim)
    asked.symlink_to(victim)
    with progress.told("upload"):
        until(lambda: not asked.is_symlink() and asked.exists())
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(("name", "folder"), [("", "here"), (NAME, ""), ("../../etc/passwd", "here"), ("x", "here")])
def test_nobody_asks(tmp_path, monkeypatch, name, folder):
    monkeypatch.setenv(progress.VARIABLE, name)
    monkeypatch.setenv(progress.FOLDER, str(tmp_path) if folder else "")
    with progress.told("upload") as tick:
        tick(1)
        assert progress.path() == ""
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_gone_is_no_failure(asked, monkeypatch):
    monkeypatch.setenv(progress.FOLDER, "/none/such")
    with progress.told("upload") as tick:
        tick(1)
