# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host as data, and the ways to run: other interpreters, other users, connections that lead elsewhere."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

import ansible
import pytest

from tests.integration.helpers import MIB, UTILS, Host, connected, poison
from tests.servers.ceph import Ceph
from tests.servers.gluster import Gluster
from tests.servers.guest import disk_xml, domain_xml, start_guest
from tests.servers.iscsi import Target
from tests.servers.libvirtd import Libvirtd
from tests.servers.session import Session

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


def one(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in found if entry["name"] == name)


def test_pool_info(host: Host, scratch: Path) -> None:
    host.ok("pool_dir", name="images", path=f"{scratch}/images", autostart=True, permissions={"mode": "0711"})
    host.ok("pool_dir", name="asleep", path=f"{scratch}/asleep", state="inactive")
    host.ok("volume", pool="images", name="disk.qcow2", format="qcow2", capacity="1GiB")
    before = host.state()
    pools = host.ok("pool_info")["pools"]
    assert [pool["name"] for pool in pools] == ["asleep", "images"]
    images = one(pools, "images")
    assert (images["type"], images["state"], images["autostart"], images["persistent"]) == ("dir", "active", True, True)
    assert images["options"]["path"] == f"{scratch}/images"
    assert (images["volumes"], images["provisioned"], images["provisioned_readable"]) == (1, 1 << 30, "1.0 GiB")
    assert images["capacity"] > images["available"] > 0
    asleep = one(pools, "asleep")
    assert (asleep["state"], asleep["capacity"], asleep["volumes"]) == ("inactive", None, None)
    assert "<pool type='dir'>" in host.ok("pool_info", names=["images"], xml=True)["pools"][0]["xml"]
    told = {pool["name"]: pool for pool in host.ok("pool_info", identity=True)["pools"]}
    machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    assert told["images"]["identity"].endswith(f"file system of host {machine}, {scratch}/images")
    assert (told["asleep"]["identity"], told["asleep"]["identity_unknown"]) == (None, "it is not active")
    missing = host.run("pool_info", names=["other"])
    assert (missing["code"], "'images'" in missing["msg"]) == ("no_pool", True)
    assert host.state() == before


def test_volume_info(host: Host, scratch: Path) -> None:
    images = scratch / "images"
    host.ok("pool_dir", name="images", path=str(images))
    qcow2 = {"pool": "images", "format": "qcow2"}
    host.ok("volume", **qcow2, name="base.qcow2", capacity="8MiB", immutable=True)
    host.ok("volume", **qcow2, name="mid.qcow2", capacity="8MiB", backing={"volume": "base.qcow2", "format": "qcow2"})
    host.ok("volume", **qcow2, name="top.qcow2", capacity="16MiB", backing={"volume": "mid.qcow2", "format": "qcow2"})
    (images / "link").symlink_to("/etc/hostname")
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh()
        start_guest(connection, "web01", disk_xml(f"{images}/top.qcow2", driver="qcow2"))
        connection.defineXML(domain_xml("web02", disk_xml(f"{images}/top.qcow2", driver="qcow2")))
        answer = host.ok("volume_info", pool="images")
    assert answer["not_volumes"] == [{"pool": "images", "name": "link"}]
    top, mid, base = (one(answer["volumes"], name) for name in ("top.qcow2", "mid.qcow2", "base.qcow2"))
    assert [below["path"] for below in top["backing_chain"]] == [f"{images}/mid.qcow2", f"{images}/base.qcow2"]
    assert {below["format"] for below in top["backing_chain"]} == {"qcow2"}
    assert top["users"] == [{"domain": "web01", "running": True}, {"domain": "web02", "running": False}]
    assert {user["domain"] for user in base["users"]} == {"web01", "web02"}
    assert (mid["overlays"], base["overlays"], top["overlays"]) == (["images/top.qcow2"], ["images/mid.qcow2"], [])
    assert (top["capacity"], top["capacity_readable"], top["format"]) == (16 * MIB, "16.0 MiB", "qcow2")
    assert (top["format_source"], base["immutable"], top["immutable"]) == ("domain", True, False)
    assert base["permissions"]["mode"] == "0400"
    host.ok("volume", pool="images", name="base.qcow2", format="qcow2", immutable=False)


def test_layout_info_is_replayed_without_a_change(
    host: Host, scratch: Path, ceph: Ceph, iscsi: Target, loop_device: Any
) -> None:
    """Every kind of pool that has a server here, and a raw disk in which a guest has written a qcow2 header."""
    cluster: dict[str, Any] = {
        "hosts": [{"name": name, "port": port} for name, port in ceph.monitors],
        "source_name": "rbd",
    }
    cluster["auth"] = {"username": "admin", "secret_usage": "admin"}
    portal = {"hosts": [{"name": iscsi.host, "port": iscsi.port}], "initiator_iqn": iscsi.initiator}
    chap = {"username": iscsi.user, "secret_usage": iscsi.iqn_chap}
    ext4 = {"device": loop_device(64 << 20).device, "source_format": "ext4", "build": "if_blank"}
    files = {"pool": "images", "format": "qcow2", "capacity": "8MiB"}
    layout: dict[str, list[dict[str, Any]]] = {
        "secrets": [
            {"usage": "ceph", "usage_name": "admin", "value": ceph.key()},
            {"usage": "iscsi", "usage_name": iscsi.iqn_chap, "value": iscsi.password, "private": True},
        ],
        "pools": [
            {"type": "dir", "name": "images", "path": f"{scratch}/images", "permissions": {"mode": "0711"}},
            {"type": "dir", "name": "asleep", "path": f"{scratch}/asleep", "state": "inactive"},
            {"type": "dir", "name": "passing", "path": f"{scratch}/passing", "persistent": False},
            {"type": "fs", "name": "data", "path": f"{scratch}/data", **ext4},
            {"type": "rbd", "name": "vms", **cluster},
            {"type": "iscsi-direct", "name": "luns", "target_iqn": iscsi.iqn_chap, "auth": chap, **portal},
        ],
        "volumes": [
            {**files, "name": "base.qcow2"},
            {**files, "name": "over.qcow2", "backing": {"volume": "base.qcow2"}},
            {"pool": "images", "name": "poisoned.raw", "format": "raw", "capacity": "8MiB"},
            {"pool": "data", "name": "disk.raw", "format": "raw", "capacity": "1MiB"},
            {"pool": "vms", "name": "web01", "capacity": "8MiB"},
        ],
    }
    first = host.ok("layout", **layout)
    assert first["changed"]
    assert host.ok("layout", **layout)["changed"] is False
    poison(scratch / "images/poisoned.raw", scratch / "canary")
    with connected(host.uri) as connection:
        connection.storagePoolLookupByName("images").refresh()
    answer = host.ok("layout_info")
    text = json.dumps(answer)
    assert str(scratch / "canary") not in text, "what the header names is in no declaration"
    assert "raw" not in {pool.get("format") for pool in answer["layout"]["pools"]}
    poisoned = one(answer["layout"]["volumes"], "poisoned.raw")
    assert {"format", "backing"} & set(poisoned) == set(), poisoned
    assert answer["undeclared_formats"]["images/poisoned.raw"] == "qcow2"
    assert one(answer["layout"]["volumes"], "web01")["format"] == "raw", "the backend declares it"
    before = host.state()
    for check in (True, False):
        again = host.ok("layout", check=check, **answer["layout"])
        assert (again["changed"], again["actions"]) == (False, []), again
    assert host.state() == before
    ceph.run("rbd", "rm", "rbd/web01")


def test_sources_of_gluster(host: Host, gluster: Gluster) -> None:
    found = host.ok("pool_source_info", type="gluster", host=gluster.host)["sources"]
    assert [(source["source_name"], source["hosts"][0]["name"]) for source in found] == [(gluster.volume, gluster.host)]
    shares = host.ok("pool_source_info", type="netfs", host=gluster.host)["sources"]
    found = [(share["source_path"].strip("/"), share["source_format"]) for share in shares]
    assert found == [(gluster.volume, "glusterfs")]


def test_sources_of_iscsi_direct_are_never_asked_for(host: Host, iscsi: Target) -> None:
    """That call kills libvirtd."""
    args = {"host": iscsi.host, "port": iscsi.port, "initiator_iqn": iscsi.initiator}
    result = host.run("pool_source_info", type="iscsi-direct", **args)
    assert result["failed"]
    assert "value of type must be one of" in result["msg"]


# Interpreters


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without libvirt and lxml."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    found = subprocess.run([python, "-c", "import libvirt"], capture_output=True, check=False)
    assert found.returncode != 0
    return python


def test_respawn_under_the_systems_python(host: Host, bare_python: Path, tmp_path: Path) -> None:
    ad_hoc = "localhost", "-i", "localhost,", "-c", "local", "-m", "kvm.storage.pool_info", "-a", f"uri={host.uri}"
    command = [str(Path(sys.executable).with_name("ansible")), *ad_hoc]
    env = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections")}
    env.update(LC_ALL="C.UTF-8", ANSIBLE_PYTHON_INTERPRETER=str(bare_python))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.partition("=>")[2])["pools"] == []


def test_package_is_named_where_no_python_has_the_libraries(host: Host, bare_python: Path) -> None:
    program = """
        import importlib, json, sys
        from ansible.module_utils import basic
        from ansible.module_utils.testing import patch_module_args
        from ansible_collections.kvm.storage.plugins.module_utils import reconcile
        reconcile.SYSTEM_PYTHONS = []
        module = importlib.import_module("ansible_collections.kvm.storage.plugins.modules." + sys.argv[1])
        with patch_module_args(json.loads(sys.argv[2])):
            module.main()
    """
    site = Path(ansible.__file__).parents[1]
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONPATH": f"{ROOT / '.cache/collections'}:{site}"}
    for module, args in (("pool_dir", {"name": "x", "path": "/srv/x"}), ("layout", {}), ("pool_info", {})):
        command = [str(bare_python), "-c", textwrap.dedent(program), module, json.dumps({"uri": host.uri, **args})]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        result = json.loads(done.stdout)
        assert (result["failed"], result["code"]) == (True, "missing_library"), result
        assert "python3-libvirt python3-lxml" in result["msg"]


# Users


class Unprivileged(Host):
    """Modules run as the user of a session daemon, from a copy that this user may read."""

    def __init__(self, session: Session) -> None:
        super().__init__(session.uri, session.home)
        self.session = session
        self.code = session.root / "code"
        shutil.rmtree(self.code, ignore_errors=True)
        shutil.copytree(ROOT / "plugins", self.code / "ansible_collections/kvm/storage/plugins")
        shutil.copytree(Path(ansible.__file__).parent / "module_utils", self.code / "ansible/module_utils")
        shutil.copy(Path(ansible.__file__).with_name("release.py"), self.code / "ansible")
        (self.code / "ansible/__init__.py").write_text("from ansible.release import __version__\n", encoding="utf-8")
        subprocess.run(["chmod", "-R", "a+rX", self.code, session.root], check=True)

    def ask(self, module: str, **args: Any) -> dict[str, Any]:
        program = """
            import importlib, json, sys
            sys.path.insert(0, sys.argv[1])
            from ansible.module_utils.testing import patch_module_args
            module = importlib.import_module("ansible_collections.kvm.storage.plugins.modules." + sys.argv[2])
            with patch_module_args(json.loads(sys.argv[3])):
                try:
                    module.main()
                except SystemExit:
                    pass
        """
        given = json.dumps({"uri": self.uri, **args})
        argv = "/usr/bin/python3", "-c", textwrap.dedent(program), str(self.code), module, given
        result: dict[str, Any] = json.loads(self.session.run(*argv))
        return result


def test_session_of_a_user(session_daemon: Session) -> None:
    user = Unprivileged(session_daemon)
    path = session_daemon.home / "images"
    pool = {"name": "images", "path": str(path), "permissions": {"mode": "0700"}}
    disk = {"pool": "images", "name": "disk.qcow2", "format": "qcow2", "capacity": "8MiB"}
    secret = {"usage": "iscsi", "usage_name": "mine", "value": "my-password"}
    for module, args, steps in (
        ("pool_dir", pool, ["define", "build", "start"]),
        ("volume", disk, ["create"]),
        ("secret", secret, ["define", "set_value"]),
    ):
        assert user.ask(module, **args)["actions"] == steps
        assert user.ask(module, **args)["actions"] == []
    assert ((path / "disk.qcow2").owner(), oct(path.stat().st_mode & 0o777)) == (session_daemon.user, "0o700")
    path.chmod(0o755)
    assert user.ask("pool_dir", **pool)["actions"] == ["set_permissions"]
    refused = user.ask("volume", **disk, immutable=True)
    assert refused["failed"], "a user can't set the attribute"
    assert user.ask("volume", pool="images", name="disk.qcow2", state="absent", immutable=False)["actions"] in (
        ["delete"],
        ["release", "delete"],
    )
    assert user.ask("secret", usage="iscsi", usage_name="mine", state="absent")["actions"] == ["undefine"]
    assert user.ask("pool_dir", name="images", state="absent", delete_data=True)["changed"] is True
    assert not path.exists()


# Connections that lead to another host


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("storage:///system", True),
        ("test:///default", True),
        ("qemu+ssh://root@other/system", False),
        ("qemu+tls://other/system", False),
        ("qemu+tcp:///system", False),
        ("qemu+ssh:///system", False),
        ("qemu://other/system", False),
        ("qemu+unix://other/system", False),
        ("qemu+ext:///system", False),
    ],
)
def test_what_is_local(uri: str, local: bool) -> None:
    module = importlib.import_module(UTILS + "connection")
    assert module.is_local(uri) is local


def test_native_ways_are_refused_on_another_host(host: Host, scratch: Path) -> None:
    """The same daemon, taken for one of another host: its files are not looked at here."""
    with mock.patch(UTILS + "connection.is_local", return_value=False):
        host.converge("pool_dir", ["define", "build", "start"], name="images", path=f"{scratch}/images")
        disk = {"pool": "images", "name": "disk", "format": "raw"}
        host.converge("volume", ["create"], **disk, capacity="8MiB")
        host.converge("volume", ["resize"], **disk, capacity="16MiB")
        host.refused("volume", "cannot_change", "this host", **disk, permissions={"mode": "0640"})
        host.refused("volume", "unsupported", "this host", **disk, immutable=True)
        full = {**disk, "name": "full", "capacity": "1MiB", "preallocation": "full"}
        host.refused("volume", "unsupported", "this host", **full)
        keyring = {"usage": "ceph", "usage_name": "x", "keyring_file": "/etc/hostname"}
        host.refused("secret", "remote_connection", "the host itself", **keyring)
        owner = {"name": "other", "path": f"{scratch}/other", "permissions": {"owner": "nobody"}}
        host.refused("pool_dir", "bad_value", "other host", "its number", **owner)
        host.converge("volume", ["delete"], pool="images", name="disk", state="absent")
        host.converge("pool_dir", ["stop", "undefine"], name="images", state="absent")
