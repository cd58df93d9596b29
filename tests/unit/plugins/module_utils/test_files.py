# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hidden files: gone unless published, never in the place of another, and other hosts' left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import files


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), files.hidden(str(tmp_path)) as temporary:
        assert os.stat(temporary).st_mode & 0o777 == 0o600
        raise ValueError("stop")
    assert os.listdir(tmp_path) == []


def test_what_is_published_stays(tmp_path: Path) -> None:
    with files.hidden(str(tmp_path)) as temporary:
        Path(temporary).write_text("whole", encoding="utf-8")
        files.publish(temporary, str(tmp_path / "disk"))
    assert os.listdir(tmp_path) == ["disk"]


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("there", encoding="utf-8")
    with pytest.raises(FileExistsError), files.hidden(str(tmp_path)) as temporary:
        files.publish(temporary, str(tmp_path / "disk"))
    assert (tmp_path / "disk").read_text(encoding="utf-8") == "there"
    assert os.listdir(tmp_path) == ["disk"]


def test_a_file_system_without_such_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kwargs: object())
    test_nothing_is_replaced(tmp_path)
    files.publish(str(tmp_path / "disk"), str(tmp_path / "renamed"))
    assert os.listdir(tmp_path) == ["renamed"]


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (f"{files.LEFTOVER}{files.this_host()}-1-abc", False),  # of a run of this host
        (f"{files.LEFTOVER}00000000-1-abc", True),  # of another host of the share, which may be at it
        (f"{files.LEFTOVER}", True),
        ("disk", True),
        (".hidden", True),
    ],
)
def test_what_is_swept(tmp_path: Path, name: str, stays: bool) -> None:
    (tmp_path / name).touch()
    with files.hidden(str(tmp_path)):
        assert (tmp_path / name).exists() is stays


def test_identity(tmp_path: Path) -> None:
    """It changes with what is written, and with what takes the file's place; not with who reads it or may read it."""
    path, other = tmp_path / "disk", tmp_path / "other"
    path.write_bytes(b"one")
    os.utime(path, ns=(5, 7))
    was = files.identity(str(path))
    path.read_bytes()
    path.chmod(0o640)
    assert files.identity(str(path)) == was
    path.write_bytes(b"two")
    assert files.identity(str(path)) != was
    other.write_bytes(b"one")
    os.utime(other, ns=(5, 7))
    os.replace(other, path)
    assert files.identity(str(path)) != was


def test_two_at_once_in_one_run(tmp_path: Path) -> None:
    with files.hidden(str(tmp_path)) as one, files.hidden(str(tmp_path)) as other:
        assert one != other
        assert os.path.exists(one)


def test_replace(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("old", encoding="utf-8")
    with files.hidden(str(tmp_path)) as temporary:
        Path(temporary).write_text("new", encoding="utf-8")
        files.replace(temporary, str(tmp_path / "disk"))
    assert (tmp_path / "disk").read_text(encoding="utf-8") == "new"
    assert os.listdir(tmp_path) == ["disk"]
