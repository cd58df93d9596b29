# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes: a tool is told all of a disk, follows nothing and guesses nothing; and what is written by parts is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands, nodes, qemu_img, transfer
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

MIB = 1 << 20


def run_command(argv: list[str], *, pass_fds: list[int], **dummy: Any) -> tuple[int, str, str]:
    finished = subprocess.run(argv, check=False, capture_output=True, text=True, pass_fds=pass_fds)
    return finished.returncode, finished.stdout, finished.stderr


@pytest.fixture(autouse=True)
def commands_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "runner", run_command)


def pattern(size: int, seed: int = 1) -> bytes:
    return b"".join(hashlib.sha256(f"{seed}:{number}".encode()).digest() for number in range(-(-size // 32)))[:size]


def qemu(*argv: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


@contextlib.contextmanager
def read(path: Path, form: str, folder: Path) -> Iterator[nodes.Node]:
    with contextlib.ExitStack() as opened:
        yield nodes.chain("volume 'p/v'", str(path), form, [str(folder)], opened)


def raw_of(node: nodes.Node, folder: Path) -> bytes:
    out = folder / "out"
    qemu_img.convert("volume 'p/v'", node, nodes.file_node(str(out), "raw"), create=True)
    return out.read_bytes()


def test_a_node_says_what_it_stands_on(tmp_path: Path) -> None:
    base, middle, top = tmp_path / "base", tmp_path / "middle", tmp_path / "top"
    base.write_bytes(pattern(MIB))
    qemu("create", "-f", "qcow2", "-b", base, "-F", "raw", middle, "2M")
    qemu("create", "-f", "qcow2", "-b", middle, "-F", "qcow2", top, "3M")
    with read(top, "qcow2", tmp_path) as node:
        assert (node.depth, node.size) == (2, 3 * MIB)
        told = node.options()
        assert told["backing"]["backing"] == {"driver": "raw", "file": told["backing"]["backing"]["file"]}
        assert str(tmp_path) not in json.dumps(told), "members are told by descriptor, not by name"
        assert raw_of(node, tmp_path) == pattern(MIB) + bytes(2 * MIB)


def test_what_takes_the_place_of_a_member_is_not_read(tmp_path: Path) -> None:
    """Between the inspection and the copy somebody puts another base under the name."""
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(pattern(MIB))
    qemu("create", "-f", "qcow2", "-b", base, "-F", "raw", top)
    with read(top, "qcow2", tmp_path) as node:
        base.unlink()
        base.write_bytes(b"canary" * (MIB // 6))
        assert raw_of(node, tmp_path) == pattern(MIB)


def test_a_header_is_not_followed(tmp_path: Path) -> None:
    """An image whose own node says that it stands on nothing reads as if it did, whatever its header says."""
    canary, top = tmp_path / "canary", tmp_path / "top"
    canary.write_bytes(pattern(MIB))
    qemu("create", "-f", "qcow2", "-b", canary, "-F", "raw", top)
    assert raw_of(nodes.file_node(str(top), "qcow2"), tmp_path) == bytes(MIB)


@pytest.mark.parametrize(("declared", "code"), [("raw", "format_mismatch"), ("vmdk", "format_mismatch"), ("qcow2", "")])
def test_the_declared_format(tmp_path: Path, declared: str, code: str) -> None:
    qemu("create", "-f", "qcow2", tmp_path / "disk", "1M")
    if not code:
        with read(tmp_path / "disk", declared, tmp_path) as node:
            assert node.format == declared
        return
    with pytest.raises(StorageError) as failed, read(tmp_path / "disk", declared, tmp_path):
        pass
    assert failed.value.code == code


def test_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with pytest.raises(StorageError) as failed, nodes.device("volume 'p/v'", str(tmp_path / "disk"), "raw"):
        pass
    assert failed.value.code == "not_a_volume"


def test_a_password_is_in_no_argument() -> None:
    with nodes.password("chap", b"sesame") as login:
        node = nodes.Node({"driver": "iscsi", "password-secret": login.name}, logins=(login,))
        assert "sesame" not in node.name + " ".join(node.objects)
        assert node.keep == (login.descriptor,)
        assert os.pread(login.descriptor, 10, 0) == b"sesame"
        with nodes.password("chap", b"other") as other:
            assert other.name != login.name, "source and target have a login each"
        part = node.part(512, 512)
        assert part.objects == node.objects
        assert set(part.keep) == {login.descriptor}


@pytest.mark.parametrize("size", [512, 4096, MIB - 512, MIB, MIB + 512, 3 * MIB])
@pytest.mark.parametrize("more", [0, 512, 2 * MIB])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_overwrite_writes_all_of_it(tmp_path: Path, size: int, more: int, form: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(pattern(size))
    target.write_bytes(b"x" * (size + more))
    if form != "raw":
        qemu("convert", "-O", form, source, tmp_path / "image")
        source = tmp_path / "image"
    with read(source, form, tmp_path) as node:
        into = nodes.file_node(str(target), "raw", size=size + more)
        transfer.overwrite("volume 'p/v'", node, into, size, size + more)
        assert not transfer.unfinished(into, "volume 'p/v'")
    assert target.read_bytes() == pattern(size) + bytes(more)


def test_what_is_written_in_place_is_marked_until_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(pattern(3 * MIB))
    target.write_bytes(b"x" * (4 * MIB))
    into = nodes.file_node(str(target), "raw", size=4 * MIB)
    real, seen = transfer.place, []

    def place(label: str, data: nodes.Node, node: nodes.Node, offset: int, rate: int | None = None) -> None:
        real(label, data, node, offset, rate)
        seen.append((offset, transfer.unfinished(into, label)))

    monkeypatch.setattr(transfer, "place", place)
    with read(source, "raw", tmp_path) as node:
        transfer.overwrite("volume 'p/v'", node, into, 3 * MIB, 4 * MIB)
    offsets, marked = zip(*seen)
    assert (offsets[0], offsets[-1]) == (0, 0)
    assert set(offsets) > {MIB, 3 * MIB}
    assert marked == (True,) * (len(seen) - 1) + (False,)


def test_compare(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(pattern(MIB))
    qemu("convert", "-O", "qcow2", one, other)
    with read(one, "raw", tmp_path) as first, read(other, "qcow2", tmp_path) as second:
        assert qemu_img.compare("volume 'p/v'", first, second)
    qemu("convert", "-O", "qcow2", "-f", "raw", __file__, other)
    with read(one, "raw", tmp_path) as first, read(other, "qcow2", tmp_path) as second:
        assert not qemu_img.compare("volume 'p/v'", first, second)


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [
        (1, "qemu-img: no\n  room", "qemu-img: no room"),
        (-11, "", "qemu-img was ended by signal 11"),
        (-6, "assertion", "qemu-img was ended by signal 6: assertion"),
        (1, "", "qemu-img ended with 1"),
    ],
)
def test_its_words(code: int, stderr: str, words: str) -> None:
    assert qemu_img.said(commands.Finished(code, "", stderr)) == words


def test_a_host_without_qemu_img(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*dummy: Any, **more: Any) -> tuple[int, str, str]:
        raise FileNotFoundError("qemu-img")

    monkeypatch.setattr(commands, "runner", missing)
    with pytest.raises(StorageError) as failed:
        qemu_img.run("volume 'p/v'", "copy", "convert")
    assert failed.value.code == "missing_command"


def test_a_comma_in_a_value() -> None:
    assert qemu_img.settings({"a": "b,c", "d": 1}) == ["-o", "a=b,,c,d=1"]
