# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the integration tests share: modules run in this process, and the life that everything goes through."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

MODULES = "ansible_collections.kvm.storage.plugins.modules."
UTILS = "ansible_collections.kvm.storage.plugins.module_utils."
MIB = 1 << 20

# What changes by itself: sizes and times of what is there, and libvirt's note that someone edited a file.
SIZES = re.compile(r"\s*<(capacity|allocation|available|physical|freeExtent)\b.*?(</\1>|/>)")


class Failed(AssertionError):
    """A module failed though the test did not expect it."""


def printed_by(module: str, args: dict[str, Any], *, check: bool = False, diff: bool = True) -> str:
    """What a module prints, run to its end in this process as ansible-playbook would on the host."""
    warnings._global_warnings.clear()
    given = {**args, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_no_log": False}
    main = importlib.import_module(MODULES + module).main
    printed = io.StringIO()
    with patch_module_args(given), contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit:
            pass
        else:
            raise Failed(f"{module} ended without a result")
    return printed.getvalue()


def run(module: str, args: dict[str, Any], *, check: bool = False, diff: bool = True) -> dict[str, Any]:
    """The result of a module."""
    result: dict[str, Any] = json.loads(printed_by(module, args, check=check, diff=diff))
    result.pop("invocation", None)
    result["warnings"] = [str(one) for one in result.get("warnings", [])]
    return result


@dataclass
class Host:
    """One hypervisor as tests speak of it: modules run against its URI, and its state as a value to compare."""

    uri: str
    shared: Path | None = None

    def run(self, module: str, **args: Any) -> dict[str, Any]:
        """The result of a module with these options; check=True is check mode."""
        check = args.pop("check", False)
        return run(module, {"uri": self.uri, **args}, check=check)

    def ok(self, module: str, **args: Any) -> dict[str, Any]:
        """The same of a module that must not fail."""
        result = self.run(module, **args)
        if result.get("failed"):
            raise Failed(f"{module}: {result['msg']}")
        return result

    def unchanged(self, module: str, **args: Any) -> dict[str, Any]:
        """A run that has nothing to do, and that says so in check mode too."""
        for check in (True, False):
            result = self.ok(module, check=check, **args)
            assert (result["changed"], result["actions"]) == (False, []), result
            assert not result.get("diff"), result
        return result

    def refused(self, module: str, code: str, *words: str, **args: Any) -> dict[str, Any]:
        """A run that fails with the code, says the words and leaves the host as it was; in check mode too."""
        before = self.state()
        for check in (True, False):
            result = self.run(module, check=check, **args)
            assert result.get("failed"), result
            assert result["code"] == code, result["msg"]
            for word in words:
                assert word in result["msg"], result["msg"]
            assert not result.get("changed"), result
            assert self.state() == before
        return result

    def failed(self, module: str, code: str, *words: str, **args: Any) -> dict[str, Any]:
        """A run that fails on the way; nothing is said of what it left."""
        result = self.run(module, **args)
        assert result.get("failed"), result
        assert result["code"] == code, result["msg"]
        for word in words:
            assert word in result["msg"], result["msg"]
        return result

    def converge(self, module: str, actions: list[str], *shown: str, **args: Any) -> dict[str, Any]:
        """Check mode predicts exactly the actions and changes nothing; the run does them; a second has none."""
        before = self.state()
        predicted = self.ok(module, check=True, **args)
        assert predicted["actions"] == actions, predicted["actions"]
        assert predicted["changed"] is bool(actions)
        assert self.state() == before, "check mode changed the host"
        done = self.ok(module, **args)
        assert done["actions"] == actions, done["actions"]
        assert done["changed"] is bool(actions)
        assert done.get("diff") == predicted.get("diff")
        assert done["plan"] == predicted["plan"]
        text = json.dumps(done.get("diff"), ensure_ascii=False)
        for word in shown:
            assert word in text, text
        if actions:
            assert done["diff"], done
        again = self.ok(module, **args)
        assert (again["changed"], again["actions"]) == (False, []), again
        return done

    def lifecycle(
        self, module: str, actions: list[str], removal: list[str], *shown: str, undo: dict[str, Any], **args: Any
    ) -> dict[str, Any]:
        """converge() to something new and back: after its removal the host is as before."""
        before = self.state()
        done = self.converge(module, actions, *shown, **args)
        self.converge(module, removal, **undo)
        assert self.state() == before
        return done

    def state(self) -> dict[str, Any]:
        """All that a run could change, as a value: definitions, what is active, files with mode and content."""
        with connected(self.uri) as connection:
            found: dict[str, Any] = {
                "pools": {pool.name(): pool_state(pool) for pool in connection.listAllStoragePools()},
                "secrets": sorted(secret.XMLDesc() for secret in connection.listAllSecrets()),
                "domains": {
                    domain.name(): (domain.isActive(), domain.XMLDesc(2)) for domain in connection.listAllDomains()
                },
            }
        if self.shared is not None:
            found["files"] = files_below(self.shared)
        return found

    def volume(self, pool: str, name: str) -> Any:
        """The tree of a volume's XML."""
        from lxml import etree

        with connected(self.uri) as connection:
            return etree.fromstring(connection.storagePoolLookupByName(pool).storageVolLookupByName(name).XMLDesc())

    def pool_xml(self, name: str, inactive: bool = False) -> str:
        with connected(self.uri) as connection:
            return str(connection.storagePoolLookupByName(name).XMLDesc(1 if inactive else 0))

    def volumes(self, pool: str) -> list[str]:
        with connected(self.uri) as connection:
            return sorted(volume.name() for volume in connection.storagePoolLookupByName(pool).listAllVolumes())


@contextlib.contextmanager
def connected(uri: str) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def pool_state(pool: libvirt.virStoragePool) -> tuple[Any, ...]:
    active = bool(pool.isActive())
    volumes = sorted(map(volume_state, pool.listAllVolumes())) if active else []
    texts = [SIZES.sub("", pool.XMLDesc(flags)) for flags in (0, 1)]
    return active, bool(pool.isPersistent()), bool(pool.autostart()) if pool.isPersistent() else None, texts, volumes


def volume_state(volume: libvirt.virStorageVol) -> str:
    try:
        return f"{volume.name()} {volume.info()[:2]}"
    except libvirt.libvirtError:
        return f"{volume.name()} is gone"


def mutable(folder: Path) -> None:
    """Take the immutable attribute from what a test left, so that it can be removed."""
    subprocess.run(["chattr", "-R", "-f", "-i", str(folder)], check=False)


def files_below(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Every name below a folder with its kind, mode and owner, size and, of small files, content."""
    found = {}
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(root, name)
            status = path.lstat()
            content = ""
            if stat.S_ISREG(status.st_mode) and status.st_blocks * 512 <= 4 * MIB:
                content = hashlib.sha256(path.read_bytes()[: 4 * MIB]).hexdigest()
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            key = str(path.relative_to(folder))
            found[key] = (oct(status.st_mode), status.st_uid, status.st_gid, size, content)
    return found


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What takes longer than this is an error of its own."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"took {took:.1f} s"


def switched_off(guard: str, returns: Any = None) -> Any:
    """The collection with one of its guards made a no-op: module:function or module:Class.method."""
    module, name = guard.split(":")
    return mock.patch(f"{UTILS}{module}.{name}", return_value=returns)


def qemu_img(*argv: str | Path) -> Any:
    """What qemu-img says of a file, as data."""
    command = ["qemu-img", "info", "--force-share", "--output=json", *map(str, argv)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def make_image(form: str, path: Path, size: str = "8M", *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", form, *options, str(path), size], check=True)
    return path


def poison(path: Path, canary: Path) -> None:
    """What a guest can do to its raw disk: a qcow2 header that names a file of the host."""
    canary.write_bytes(b"host file" * 1000)
    name = str(canary).encode()
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 104, len(name), 16, 8 * MIB, 0, 1, 131072, 65536, 1, 0, 0)
    with open(path, "r+b") as disk:
        disk.write(header.ljust(104, b"\0") + name)


def walk_through_states(host: Host, module: str, pool: dict[str, Any], *, born: list[str], up: list[str]) -> None:
    """Every state of a pool and every way between two, each by converge(); born makes it, up starts it again."""
    gone = {"name": pool["name"], "state": "absent"}
    before = host.state()
    host.converge(module, born, "state:         inactive", state="inactive", **pool)
    host.converge(module, ["start"], "state:         active", **pool)
    host.converge(module, ["set_autostart"], "autostart:     true", autostart=True, **pool)
    host.converge(module, ["set_autostart"], "autostart:     false", autostart=False, **pool)
    host.converge(module, ["stop"], "state:         inactive", state="inactive", **pool)
    host.converge(module, ["undefine"], **gone)
    host.converge(module, ["define", *up], state="active", **pool)
    host.converge(module, ["stop", "undefine"], **gone)
    host.converge(module, ["create"], "persistent:    false", persistent=False, **pool)
    host.converge(module, ["define"], "persistent:    true", **pool)
    host.converge(module, ["stop", "undefine"], **gone)
    host.unchanged(module, **gone)
    after = host.state()
    assert {**after, "files": None} == {**before, "files": None}


def change_while_active(host: Host, module: str, pool: dict[str, Any], **change: Any) -> None:
    """A change of an active pool is written down, waits, is told, and is carried out when asked to."""
    host.ok(module, **pool)
    changed = {**pool, **change}
    uuid = uuid_of(host, pool["name"])
    predicted = host.ok(module, check=True, **changed)
    done = host.ok(module, **changed)
    assert predicted["actions"] == done["actions"] == ["define"]
    assert predicted["restart_needed"] is done["restart_needed"] is True
    assert "needs a pool restart" in str(done["diff"])
    assert any("restart: true" in warning for warning in done["warnings"]), done["warnings"]
    waiting = host.ok(module, **changed)
    assert (waiting["changed"], waiting["actions"], waiting["restart_needed"]) == (False, [], True)
    facts = host.ok("pool_info", names=[pool["name"]])["pools"][0]
    assert facts["restart_needed"] == sorted(change)
    host.converge(module, ["restart"], restart=True, **changed)
    facts = host.ok("pool_info", names=[pool["name"]])["pools"][0]
    assert (facts["restart_needed"], facts["uuid"]) == ([], uuid)
    assert host.ok(module, **changed)["restart_needed"] is False


def uuid_of(host: Host, pool: str) -> str:
    return host.pool_xml(pool).partition("<uuid>")[2].partition("</uuid>")[0]
