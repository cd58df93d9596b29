# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A private Ceph cluster: one monitor, one manager and one OSD in memory, cephx on, nothing in /etc/ceph."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Self

from .process import Server, ServerError, need, run, wait_for, write_private
from .silent import free_port

HOST = "127.0.0.1"

CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:{host}:{v2},v1:{host}:{v1}]
public_addr = {host}
cluster_addr = {host}
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {root}/$type.$id.keyring
run_dir = {root}/run
log_file = {root}/log/$name.log
pid_file = {root}/run/$name.pid
admin_socket = {root}/run/$name.asok
crash_dir = {root}/log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_data = {root}/mon
osd_data = {root}/osd
mgr_data = {root}/mgr
mds_data = {root}/mds
mon_data_avail_crit = 1
mon_data_avail_warn = 1
osd_objectstore = memstore
memstore_device_bytes = {size}
memstore_page_set = false
osd_memory_target = 939524096
osd_max_pg_log_entries = 10
osd_min_pg_log_entries = 10
osd_heartbeat_grace = 60
osd_class_load_list = *
osd_class_default_list = *
mgr_initial_modules =
mgr_stats_period = 1
mon_mgr_digest_period = 1
osd_mon_report_interval = 1
paxos_propose_interval = 0.1
paxos_min_wait = 0.01

[client]
log_file = /dev/null
admin_socket =
rbd_cache = true
"""

# What each daemon, and the administrator, may do.
CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mds": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "mds.m": {"mon": "allow profile mds", "osd": "allow rwx", "mds": "allow *", "mgr": "allow profile mds"},
}


class Ceph(Server):
    """A cluster whose data is gone with `stop`. The pool `rbd` is there from the start."""

    def __init__(self, root: Path | str, port: int = 0, size: int = 4 << 30) -> None:
        super().__init__(root)
        self.size = size
        self._port = port
        self.conf = self.root / "ceph.conf"

    @property
    def port(self) -> int:
        """The monitor's v1 port, which is the one in a pool's XML; v2 is on the port before it."""
        if not self._port:
            self._port = free_port(HOST, 2) + 1
        return self._port

    @property
    def monitors(self) -> list[tuple[str, int]]:
        return [(HOST, self.port)]

    def start(self) -> Self:
        for program in ("ceph-mon", "ceph-mgr", "ceph-osd"):
            need(program)
        self._clear()
        fsid = str(uuid.uuid4())
        ports = {"v1": self.port, "v2": self.port - 1}
        conf = CONF.format(fsid=fsid, host=HOST, root=self.root, size=self.size, **ports)
        self.conf.write_text(conf, encoding="utf-8")
        self._make_keys()
        self._start_monitor(fsid)
        self._start_osd()
        self.add_pool("rbd")
        wait_for("ceph-mgr", self._has_capacity, log=self.root / "log/mgr.x.log")
        return self

    def run(self, program: str, *argv: str | Path, text: str | None = None, timeout: float = 180) -> str:
        """Run `ceph`, `rbd`, `rados`, ... against this cluster, as its administrator unless told otherwise."""
        return run(program, "--conf", self.conf, *argv, text=text, timeout=timeout)

    def keyring(self, entity: str = "client.admin") -> Path:
        return self.root / f"{entity}.keyring"

    def key(self, entity: str = "client.admin") -> str:
        """The cephx key, in base64 as libvirt's secrets want it."""
        if not self.keyring(entity).exists():
            raise ServerError(f"{entity}: no such user; make it with add_user()")
        return self.run("ceph-authtool", "--print-key", "--name", entity, self.keyring(entity)).strip()

    def add_user(self, name: str, pool: str = "rbd") -> str:
        """Make `client.<name>`, which may use the images of one pool and nothing else; give back its entity."""
        entity = f"client.{name}"
        caps = "mon", "profile rbd", "osd", f"profile rbd pool={pool}", "mgr", f"profile rbd pool={pool}"
        write_private(self.keyring(entity), self.run("ceph", "auth", "get-or-create", entity, *caps))
        return entity

    def add_pool(self, name: str) -> None:
        """Make a pool for RBD images."""
        self.run("ceph", "osd", "pool", "create", name, "8", "8", "replicated")
        self.run("rbd", "pool", "init", name)

    def empty(self, pool: str) -> None:
        """Remove every image of a pool, clones before what they stand on."""
        for _round in range(5):
            for image in json.loads(self.run("rbd", "ls", "--format", "json", pool)):
                try:
                    self.run("rbd", "snap", "purge", "--no-progress", f"{pool}/{image}")
                except ServerError:  # a snapshot that a clone needs, or that is protected
                    self._unprotect(f"{pool}/{image}")
                with contextlib.suppress(ServerError):
                    self.run("rbd", "rm", "--no-progress", f"{pool}/{image}")
            if not json.loads(self.run("rbd", "ls", "--format", "json", pool)):
                return
        raise ServerError(f"pool {pool} does not get empty")

    def _unprotect(self, image: str) -> None:
        for snapshot in json.loads(self.run("rbd", "snap", "ls", "--format", "json", image)):
            with contextlib.suppress(ServerError):
                self.run("rbd", "snap", "unprotect", f"{image}@{snapshot['name']}")

    def remove_pool(self, name: str) -> None:
        self.run("ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")

    def _has_capacity(self) -> bool:
        """Until the manager has heard of the OSD, a pool has 0 bytes."""
        return json.loads(self.run("ceph", "df", "--format", "json"))["stats"]["total_bytes"] > 0

    def _clear(self) -> None:
        """A cluster in memory can't come back: a start makes a new one."""
        self.prepare()
        for name in ("mon", "mgr", "osd", "mds", "run", "log"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        for keyring in self.root.glob("*.keyring"):
            keyring.unlink()

    def _make_keys(self) -> None:
        everyone = ""
        for entity, caps in CAPS.items():
            granted = [word for service, cap in caps.items() for word in ("--cap", service, cap)]
            run("ceph-authtool", "--create-keyring", self.keyring(entity), "--gen-key", "-n", entity, *granted)
            everyone += self.keyring(entity).read_text(encoding="utf-8")
        write_private(self.root / "all.keyring", everyone)

    def _start_monitor(self, fsid: str) -> None:
        where = f"[v2:{HOST}:{self.port - 1},v1:{HOST}:{self.port}]"
        run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", where, self.root / "monmap")
        keys = "--keyring", self.root / "all.keyring"
        self.run("ceph-mon", "--mkfs", "--id", "a", "--monmap", self.root / "monmap", *keys)
        self.start_daemon("ceph-mon", "a", "--keyring", self.keyring("mon."))
        log = self.root / "log/mon.a.log"
        wait_for("ceph-mon", lambda: self.run("ceph", "--connect-timeout", "20", "fsid"), log=log)

    def _start_osd(self) -> None:
        disk = str(uuid.uuid4())
        self.run("ceph", "osd", "new", disk, "0")
        self.start_daemon("ceph-mgr", "x")
        self.run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid", disk)
        self.start_daemon("ceph-osd", "0")
        wait_for("ceph-osd", lambda: "1 up" in self.run("ceph", "osd", "stat"), log=self.root / "log/osd.0.log")

    def start_daemon(self, program: str, identity: str, *argv: str | Path) -> None:
        """Start a daemon in the foreground, so that the pid on record is its own."""
        out = self.root / "log" / f"{program}.out"
        self.spawn(program, "--conf", self.conf, "--foreground", "--id", identity, *argv, log=out)


class CephFS:
    """A file system on a cluster, mounted with ceph-fuse. It goes with its cluster; `stop` takes it alone."""

    def __init__(self, ceph: Ceph, mount_point: Path | str, name: str = "files") -> None:
        self.ceph = ceph
        self.path = Path(mount_point).resolve()
        self.name = name

    def start(self) -> Self:
        for program in ("ceph-mds", "ceph-fuse"):
            need(program)
        if f'"{self.name}"' not in self.ceph.run("ceph", "fs", "ls", "--format", "json"):
            self._make()
        self.path.mkdir(parents=True, exist_ok=True)
        log = self.ceph.root / "log/ceph-fuse.out"
        conf = "--conf", self.ceph.conf
        self.ceph.spawn("ceph-fuse", *conf, "-f", "--id", "admin", "--client-mountpoint", "/", self.path, log=log)
        wait_for("ceph-fuse", lambda: os.path.ismount(self.path), log=log)
        return self

    def _make(self) -> None:
        for pool in ("metadata", "data"):
            self.ceph.run("ceph", "osd", "pool", "create", f"{self.name}_{pool}", "8")
        self.ceph.run("ceph", "fs", "new", self.name, f"{self.name}_metadata", f"{self.name}_data")
        self.ceph.start_daemon("ceph-mds", "m")
        log = self.ceph.root / "log/mds.m.log"
        wait_for("ceph-mds", lambda: "up:active" in self.ceph.run("ceph", "mds", "stat"), log=log)

    def stop(self) -> None:
        """Unmount; ceph-fuse ends with its mount."""
        if os.path.ismount(self.path):
            run("umount", self.path)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()
