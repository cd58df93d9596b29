# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to do on a host for its Ceph clusters. Reads only: JSON on standard input and output.

In:  clusters  the items of host_ceph_clusters
     seconds   that a login may take
     admin     what admin hosts said: users {"CLUSTER.ENTITY": {"key": ..., "caps": {...}} or null} and namespaces
               {"CLUSTER/POOL": [...]}; null as long as none was asked
Out: problems, texts; ask, what admin hosts have to be asked first; unseen, whether Ceph's libraries are missing; and
     what the tasks of the role act on. Keys are in keys and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import glob
import grp
import json
import os
import pwd
import re
import socket
import sys
from typing import Any

ETC = "/etc/ceph"
MARK = "# Written by the role kvm.storage.host_ceph."
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
SHARED = ("fsid", "hosts", "options")  # of the cluster, so the same in all of its items
SINGLE = ("key", "data_pool", "secret_usage", "permissions", "caps", "create_user", "admin_host")  # of the user
LISTS = ("pools", "namespaces", "filesystems", "overwrite")


class Problem(Exception):
    """Why the host is left as it is."""


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def merged(items: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """One item for each cluster and user: several pools may each bring their own."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    problems = []
    for item in items:
        name, user = str(item.get("name") or "ceph"), str(item.get("user") or "")
        one = found.setdefault(
            (name, user), {"name": name, "user": user, "state": "absent", **{key: [] for key in LISTS}}
        )
        gone = item.get("state") == "absent"
        one["state"] = one["state"] if gone else "present"
        for key in SHARED + SINGLE:
            value = item.get(key)
            if value in (None, "", [], {}):
                continue
            if one.setdefault(key, value) != value:
                problems.append(f"cluster {name}, user {user}: two items have two values of {key}; give one")
        for key in LISTS:
            for value in item.get(key) or []:
                part = {**value, "state": "absent"} if gone and key == "filesystems" else value
                if part not in one[key]:
                    one[key].append(part)
    return list(found.values()), problems


def same_cluster(users: list[dict[str, Any]]) -> list[str]:
    """Users of one cluster have one cluster."""
    problems = []
    known: dict[str, dict[str, Any]] = {}
    for user in users:
        cluster = known.setdefault(user["name"], {})
        for key in SHARED:
            if key in user and cluster.setdefault(key, user[key]) != user[key]:
                problems.append(f"cluster {user['name']}: two items have two values of {key}; give one")
    for user in users:
        user.update({key: value for key, value in known[user["name"]].items() if key not in user})
    return problems


def cephx(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 28
    except (binascii.Error, ValueError):
        return False


def faults(user: dict[str, Any]) -> list[str]:
    """What is wrong with an item, whatever the host is like."""
    found = []
    if not CLUSTER.fullmatch(user["name"]):
        found.append("name: letters, digits, '-' and '_' only, for it names files; choose another")
    if not NAME.fullmatch(user["user"]) or user["user"].startswith("client."):
        found.append(f"user {user['user']!r}: the name behind 'client.', such as vms; give it")
    if user["user"] == "admin":
        found.append("user admin: may do everything with the cluster; make one that may use its pools only")
    for one in user["filesystems"]:
        if not one.get("path"):
            found.append("filesystems: one has no path; say where it is mounted")
    if user["state"] == "absent":
        return found
    if "fsid" in user and not UUID.fullmatch(str(user["fsid"])):
        found.append("fsid: not a UUID; give what 'ceph fsid' prints")
    if not user.get("hosts"):
        found.append("hosts: there are no monitors; give some, as [{name, port}]")
    for host in user.get("hosts") or []:
        if not HOST.fullmatch(str(host.get("name") or "")):
            found.append(f"hosts: {host.get('name')!r} is no name of a host; give its name or address")
    if "key" in user and not cephx(str(user["key"])):
        found.append("key: not a cephx key; give it as 'ceph auth get-key client.NAME' prints it")
    for pool in [*user["pools"], *([user["data_pool"]] if "data_pool" in user else [])]:
        if not NAME.fullmatch(str(pool)):
            found.append(f"pools: {pool!r} is no name of a pool; give another")
    for one in user["namespaces"]:
        if not NAME.fullmatch(str(one.get("pool") or "")) or not NAME.fullmatch(str(one.get("name") or "")):
            found.append(f"namespaces: {one!r} is not {{pool, name}}; give both")
    for one in user["filesystems"]:
        if one.get("filesystem") and not NAME.fullmatch(str(one["filesystem"])):
            found.append(f"filesystems: {one['filesystem']!r} is no name of a file system; give another")
        if not re.fullmatch(r"/[A-Za-z0-9._/+=@-]*", str(one.get("source_path") or "/")):
            found.append(f"filesystems: {one['source_path']!r} is not an absolute path of plain letters; give another")
    for key, value in (user.get("options") or {}).items():
        if not re.fullmatch(r"[a-z][a-z0-9_ ]*", str(key)) or "\n" in str(value):
            found.append(f"options: {key!r} is no option of ceph.conf; give its name, such as rbd_cache")
    mode = str((user.get("permissions") or {}).get("mode") or "0600")
    if not re.fullmatch(r"0?[46][04]0", mode):
        found.append(f"permissions: mode {mode} lets others read or write the key; give 0600 or 0640")
    for kind, known in (("owner", pwd.getpwnam), ("group", grp.getgrnam)):
        name = str((user.get("permissions") or {}).get(kind) or "root")
        try:
            known(name)
        except KeyError:
            found.append(f"permissions: this host has no {kind} {name}; name another, or make it first")
    return found


def caps(user: dict[str, Any]) -> dict[str, str]:
    """The least that a user needs."""
    if user.get("caps"):
        return {key: value for key, value in sorted(user["caps"].items()) if value}
    pools = [str(pool) for pool in user["pools"]]
    images = [f"profile rbd pool={pool}" for pool in pools]
    for one in user["namespaces"]:
        if one["pool"] not in pools and one.get("state") != "absent":
            images.append(f"profile rbd pool={one['pool']} namespace={one['name']}")
    if user.get("data_pool") and user["data_pool"] not in pools:
        images.append(f"profile rbd pool={user['data_pool']}")
    mounts = [one for one in user["filesystems"] if one.get("state") != "absent"]
    names = list(dict.fromkeys(one.get("filesystem") or "" for one in mounts))
    tree = [part(one) for one in mounts]
    found = {
        "mon": [
            *(["profile rbd"] if images else []),
            *["allow r" + (f" fsname={name}" if name else "") for name in names],
        ],
        "osd": [*images, *["allow rw tag cephfs data=" + (name or "*") for name in names]],
        "mgr": images,
        "mds": list(dict.fromkeys(tree)),
    }
    return {key: ", ".join(value) for key, value in sorted(found.items()) if value}


def part(mount: dict[str, Any]) -> str:
    """What the metadata server lets a user do, as 'ceph fs authorize' says it."""
    name, path = mount.get("filesystem"), "/" + str(mount.get("source_path") or "/").strip("/")
    return "allow rw" + (f" fsname={name}" if name else "") + (f" path={path}" if path != "/" else "")


def grants(text: str) -> set[str]:
    return {" ".join(one.split()) for one in text.split(",")}


def same_caps(one: dict[str, str], other: dict[str, str]) -> bool:
    return {key: grants(value) for key, value in one.items()} == {key: grants(value) for key, value in other.items()}


def address(host: dict[str, Any], port: int | None = None) -> str:
    name, port = str(host["name"]), host.get("port") or port
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{port}" if port else name


def stored_key(text: str | None, entity: str) -> str:
    """The key of a user in a keyring file."""
    section = ""
    for line in (text or "").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif section == entity and re.match(r"key\s*=", line):
            return line.partition("=")[2].strip()
    return ""


def log_in(user: dict[str, Any], key: str, seconds: int) -> dict[str, Any]:
    """Prove a key, which is in the memory of this process only, by using what it is for."""
    import rados
    import rbd

    conf = {"mon_host": ",".join(address(host) for host in user["hosts"]), "key": key, "keyring": "", "log_file": ""}
    conf.update(client_mount_timeout=str(seconds), rados_mon_op_timeout=str(seconds), rados_osd_op_timeout=str(seconds))
    images, place = rbd.RBD(), conf["mon_host"]
    try:
        with rados.Rados(rados_id=user["user"], conffile=None, conf=conf) as cluster:
            fsid = cluster.get_fsid()
            found: dict[str, Any] = {"fsid": fsid, "namespaces": {}}
            if user.get("fsid", fsid) != fsid:
                raise Problem(f"{place} is the cluster {fsid}, not {user['fsid']}; give its monitors, or its fsid")
            if "data_pool" in user:
                place = f"pool {user['data_pool']}"
                cluster.open_ioctx(user["data_pool"]).close()
            whole = user["pools"]
            asked = [(str(pool), "") for pool in whole]
            asked += [(one["pool"], one["name"]) for one in user["namespaces"] if one["pool"] not in whole]
            for pool, namespace in asked:
                place = f"pool {pool}" + (f", namespace {namespace}" if namespace else "")
                with cluster.open_ioctx(pool) as ioctx:
                    ioctx.set_namespace(namespace)
                    images.list(ioctx)
            for pool in {one["pool"] for one in user["namespaces"] if one["pool"] in whole}:
                place = f"the namespaces of pool {pool}"
                with cluster.open_ioctx(pool) as ioctx:
                    found["namespaces"][pool] = {}
                    for name in images.namespace_list(ioctx):
                        ioctx.set_namespace(name)
                        found["namespaces"][pool][name] = len(images.list(ioctx))
                        ioctx.set_namespace("")
            return found
    except (rados.Error, rbd.Error, OSError) as error:
        raise Problem(words(error, user, place, seconds)) from None


def answers(host: dict[str, Any]) -> bool:
    """Whether a monitor takes connections."""
    for port in [host["port"]] if host.get("port") else [3300, 6789]:
        try:
            socket.create_connection((host["name"], port), timeout=2).close()
            return True
        except OSError:
            continue
    return False


def words(error: Exception, user: dict[str, Any], place: str, seconds: int) -> str:
    text, name = str(error), type(error).__name__
    late = name == "TimedOut" or "timed out" in text.lower()
    if late and not any(answers(host) for host in user["hosts"]):
        return f"{place} does not answer within {seconds} s; see that it is up and reachable"
    if late or name in ("PermissionError", "PermissionDeniedError"):
        return f"{place} does not let it in: {text}; give its present key, and see to its caps"
    if name == "ObjectNotFound":
        return f"{place}: there is none: {text}; make it on the cluster, or name another"
    return f"{place}: {text}; see 'ceph -s' on the cluster"


class User:
    """What there is to do for one user of a cluster."""

    def __init__(self, user: dict[str, Any], asked: dict[str, Any], result: dict[str, Any]) -> None:
        self.user, self.asked, self.result = user, asked, result
        self.name, self.entity = user["name"], f"client.{user['user']}"
        self.label = f"cluster {self.name}, {self.entity}"
        self.keyring = f"{ETC}/{self.name}.{self.entity}.keyring"
        self.secret_file = f"{ETC}/{self.name}.{self.entity}.secret"
        self.mounts = [one for one in user["filesystems"] if one.get("state") != "absent"]
        self.kernel = [one for one in self.mounts if one.get("client") != "fuse"]
        self.admin_host = user.get("admin_host") or asked["admin_host"]

    def look(self) -> None:
        if self.user["state"] == "absent":
            self.result["remove"] += [path for path in (self.keyring, self.secret_file) if os.path.lexists(path)]
            if self.user.get("secret_usage"):
                self.result["secrets_gone"].append(self.user["secret_usage"])
            self.result["mounts"] += [self.mount(one, False) for one in self.user["filesystems"]]
            return
        self.result["needs"] += ["base", *(["images"] if self.user["pools"] or self.user["namespaces"] else [])]
        self.result["needs"] += ["mounts" if one in self.kernel else "fuse" for one in self.mounts]
        present = stored_key(read(self.keyring), self.entity)
        key = self.key(present)
        found: dict[str, Any] = {"namespaces": {}}
        if key:
            try:
                found = log_in(self.user, key, self.asked["seconds"])
            except ImportError:
                self.result["unseen"] = True
                return
        handle = f"{self.name}.{self.entity}"
        self.result["keys"][handle] = key or str(self.user.get("key") or "")
        permissions = self.user.get("permissions") or {}
        self.result["keyrings"].append(
            {
                "id": handle,
                "entity": self.entity,
                "path": self.keyring,
                "secret_file": self.secret_file if self.kernel else "",
                "owner": permissions.get("owner") or "root",
                "group": permissions.get("group") or "root",
                "mode": str(permissions.get("mode") or "0600"),
            }
        )
        if not self.kernel and os.path.lexists(self.secret_file):
            self.result["remove"].append(self.secret_file)
        if self.user.get("secret_usage"):
            self.result["secrets"].append(
                {"id": handle, "usage_name": self.user["secret_usage"], "entity": self.entity}
            )
        self.namespaces(found["namespaces"])
        stale = bool(present) and present != key
        self.result["mounts"] += [self.mount(one, stale) for one in self.user["filesystems"]]

    def key(self, present: str) -> str:
        """The key that is declared, that the cluster has, or that is here; empty where its user is yet to be made."""
        key, known, pending = str(self.user.get("key") or ""), None, False
        if self.user.get("create_user"):
            known = self.asked["admin"]["users"].get(f"{self.name}.{self.entity}")
            pending = self.make(known)
        if known and key and key != known["key"]:
            raise Problem(
                "the cluster has another key for it than is declared; change it there with 'ceph auth import', or "
                "leave key out to take that of the cluster"
            )
        key = key or (known or {}).get("key", "") or ("" if self.user.get("create_user") else present)
        if not key and not self.user.get("create_user"):
            raise Problem(f"key: none is declared, and there is no {self.keyring}; give it, or create_user: true")
        return "" if pending else key  # before the admin host has done its part nothing can be proven

    def make(self, known: dict[str, Any] | None) -> bool:
        """What the admin host has to do, and whether that is anything."""
        wanted = caps(self.user)
        if not wanted:
            raise Problem("create_user: it would have nothing to use; give pools, namespaces, filesystems or caps")
        words = [word for service, cap in wanted.items() for word in (service, cap)]
        if known is None:
            self.result["make"].append(
                {
                    "host": self.admin_host,
                    "entity": self.entity,
                    "caps": words,
                    "id": f"{self.name}.{self.entity}",
                    "keyed": bool(self.user.get("key")),
                    "pools": sorted({*self.user["pools"], *[one["pool"] for one in self.user["namespaces"]]}),
                    "filesystems": [one["filesystem"] for one in self.mounts if one.get("filesystem")],
                }
            )
        elif not same_caps(wanted, known["caps"]):
            if self.entity not in self.user["overwrite"]:
                have = ", ".join(f"{service} '{cap}'" for service, cap in sorted(known["caps"].items()))
                need = ", ".join(f"{service} '{cap}'" for service, cap in wanted.items())
                raise Problem(
                    f"the cluster lets it do {have or 'nothing'}, and declared is {need}; declare its caps, or allow "
                    f"the change with overwrite: [{self.entity}]"
                )
            self.result["caps"].append({"host": self.admin_host, "entity": self.entity, "caps": words})
        else:
            return False
        return True

    def namespaces(self, seen: dict[str, dict[str, int | None]]) -> None:
        """Which are to be made or removed, and who may do so."""
        for one in self.user["namespaces"]:
            pool, name, gone = one["pool"], one["name"], one.get("state") == "absent"
            own = pool in self.user["pools"]
            listed = seen.get(pool) if own else self.listed(pool)
            if listed is None:
                if gone:
                    raise Problem(
                        f"namespace {pool}/{name}: it may not see the namespaces of the pool; remove it by hand"
                    )
                continue  # of someone else's making, and proven by a login into it, if by anything
            if gone == (name not in listed):
                continue
            if gone and listed[name]:
                raise Problem(f"namespace {pool}/{name}: holds {listed[name]} images; remove them first")
            login = ["--cluster", self.name, "--id", self.user["user"]] if own else []
            self.result["namespaces"].append(
                {
                    "host": "" if own else self.admin_host,
                    "words": [*login, "namespace", "remove" if gone else "create", "--pool", pool, "--namespace", name],
                }
            )

    def listed(self, pool: str) -> dict[str, int | None] | None:
        names = (self.asked["admin"] or {}).get("namespaces", {}).get(f"{self.name}/{pool}")
        return None if names is None else dict.fromkeys(names)

    def mount(self, one: dict[str, Any], stale: bool) -> dict[str, Any]:
        """An item of the role host_mounts."""
        user, hosts = self.user, self.user.get("hosts") or []
        tree = "/" + str(one.get("source_path") or "/").strip("/")
        probe = [
            {"host": host["name"], "port": int(port)}
            for host in hosts
            for port in ([host["port"]] if host.get("port") else [6789, 3300])
        ]
        if one.get("state") == "absent":
            return {"path": one["path"], "probe": probe, "state": "absent"}
        common = {"path": one["path"], "probe": probe, "stale": stale, "restart": bool(one.get("restart"))}
        given = [str(option) for option in one.get("options") or []]
        if one.get("client") == "fuse":
            options = [f"ceph.id={user['user']}", f"ceph.conf={ETC}/{self.name}.conf"]
            options += [f"ceph.client_fs={one['filesystem']}"] if one.get("filesystem") else []
            options += [f"ceph.client_mountpoint={tree}"] if tree != "/" else []
            return {**common, "src": "none", "aliases": ["ceph-fuse"], "fstype": "fuse.ceph", "opts": options + given}
        options = [f"name={user['user']}", f"secretfile={self.secret_file}"]
        options += [f"fs={one['filesystem']}"] if one.get("filesystem") else []
        options += ["ms_mode=prefer-crc"] if all(host.get("port") == 3300 for host in hosts) else []
        sources = [",".join(address(host, 6789) for host in every) + f":{tree}" for every in (hosts, resolved(hosts))]
        return {**common, "src": sources[0], "aliases": sources[1:], "fstype": "ceph", "opts": options + given}


def resolved(hosts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The monitors by their addresses, which is how the kernel shows them."""
    found = []
    for host in hosts:
        try:
            name = socket.getaddrinfo(host["name"], None, type=socket.SOCK_STREAM)[0][4][0]
        except OSError:
            name = host["name"]
        found.append({**host, "name": name})
    return found


def conf_of(name: str, users: list[dict[str, Any]]) -> dict[str, Any]:
    first = users[0]
    return {
        "name": name,
        "path": f"{ETC}/{name}.conf",
        "fsid": first.get("fsid", ""),
        "mon_host": ",".join(address(host) for host in first["hosts"]),
        "options": first.get("options") or {},
        "users": [
            {"entity": f"client.{user['user']}", "data_pool": user.get("data_pool", "")}
            for user in sorted(users, key=lambda user: user["user"])
        ],
    }


def look_at_conf(name: str, users: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """The file of a cluster, which is left alone where it is not the role's own."""
    path = f"{ETC}/{name}.conf"
    text, present = read(path), [user for user in users if user["state"] != "absent"]
    own = text is None or text.startswith(MARK)
    if not present:
        keyrings = set(glob.glob(f"{ETC}/{name}.client.*.keyring")) - set(result["remove"])
        if text is not None and own and not keyrings:
            result["remove"].append(path)
        return
    if not own and not any(path in user["overwrite"] for user in present):
        result["problems"].append(
            f"cluster {name}: {path} is there, and not of this role; allow its change with overwrite: [{path}], or "
            "give the cluster another name, which is that of its file"
        )
    result["confs"].append({**conf_of(name, present), "foreign": not own})


def to_ask(user: dict[str, Any], admin_host: str) -> dict[str, list[dict[str, str]]]:
    """What only an admin host knows of a user, and of the pools of which it may use namespaces only."""
    name, host = user["name"], user.get("admin_host") or admin_host
    if not host:
        raise Problem("create_user: no host does it; name one that has an admin's keyring in host_ceph_admin_host")
    entity = f"client.{user['user']}"
    pools = sorted({one["pool"] for one in user["namespaces"]} - set(user["pools"]))
    return {
        "users": [{"host": host, "id": f"{name}.{entity}", "entity": entity}],
        "pools": [{"host": host, "id": f"{name}/{pool}", "pool": pool} for pool in pools],
    }


def look(asked: dict[str, Any]) -> dict[str, Any]:
    lists = (
        "problems",
        "confs",
        "keyrings",
        "secrets",
        "secrets_gone",
        "namespaces",
        "mounts",
        "make",
        "caps",
        "remove",
    )
    result: dict[str, Any] = {"unseen": False, "keys": {}, "needs": [], **{name: [] for name in lists}}
    result["ask"] = {"users": [], "pools": []}
    users, problems = merged(asked["clusters"])
    problems += same_cluster(users)
    for user in users:
        problems += [f"cluster {user['name']}, user {user['user']}: {fault}" for fault in faults(user)]
    if problems:
        return {**result, "problems": list(dict.fromkeys(problems))}
    for user in users:
        try:
            if user.get("create_user") and user["state"] != "absent":
                for kind, questions in to_ask(user, asked["admin_host"]).items():
                    result["ask"][kind] += questions
        except Problem as problem:
            result["problems"].append(f"cluster {user['name']}, client.{user['user']}: {problem}")
    if result["problems"] or (result["ask"]["users"] and asked["admin"] is None):
        return result
    for user in users:
        one = User(user, asked, result)
        try:
            one.look()
        except Problem as problem:
            result["problems"].append(f"{one.label}: {problem}")
    for name in dict.fromkeys(user["name"] for user in users):
        look_at_conf(name, [user for user in users if user["name"] == name], result)
    return result


if __name__ == "__main__":
    print(json.dumps(look(json.load(sys.stdin))))
