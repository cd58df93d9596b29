# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start, stop and look at the servers by hand: python -m tests.servers up|down|status ROOT [SERVER ...]"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .ceph import Ceph
from .gluster import Gluster
from .iscsi import Target
from .libvirtd import Libvirtd
from .process import ServerError
from .silent import free_address
from .sweep import Journal, alive, sweep

Facts = dict[str, Any]


def start_libvirtd(root: Path) -> Facts:
    server = Libvirtd(root).start()
    return {"uri": server.uri, "shared": str(server.shared), "pid": server.pid, "log": str(server.log)}


def start_ceph(root: Path) -> Facts:
    server = Ceph(root).start()
    user = server.add_user("vms", "rbd")
    return {
        "monitors": [{"name": host, "port": port} for host, port in server.monitors],
        "pool": "rbd",
        "user": user.removeprefix("client."),
        "keyring": str(server.keyring(user)),
        "admin_keyring": str(server.keyring()),
        "conf": str(server.conf),
    }


def start_iscsi(root: Path) -> Facts:
    server = Target(root).start()
    return {
        "host": server.host,
        "port": server.port,
        "iqn_open": server.iqn_open,
        "iqn_chap": server.iqn_chap,
        "initiator": server.initiator,
        "user": server.user,
        "password_file": str(server.password_file),
    }


def start_gluster(root: Path) -> Facts:
    server = Gluster(root, free_address(24007)).start()
    return {"host": server.host, "volume": server.volume}


KINDS: dict[str, Callable[[Path], Facts]] = {
    "libvirtd": start_libvirtd,
    "ceph": start_ceph,
    "iscsi": start_iscsi,
    "gluster": start_gluster,
}


def read_facts(root: Path) -> dict[str, Facts]:
    try:
        found: dict[str, Facts] = json.loads((root / "facts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def is_up(root: Path) -> bool:
    """Whether all that a server consists of still runs; of a daemon that was started again, the last one counts."""
    journal = Journal(root)
    processes = journal.processes() if journal.path.is_file() else []
    return bool(processes) and all(map(alive, {process.name: process for process in processes}.values()))


def up(root: Path, servers: list[str]) -> dict[str, Facts]:
    """Start what does not run yet; give back the facts of all that was asked for."""
    Journal(root).open()
    facts = read_facts(root)
    for server in servers:
        name = server.rpartition(":")[2]
        if name not in facts or not is_up(root / name):
            facts[name] = KINDS[server.partition(":")[0]](root / name)
            (root / "facts.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return {server.rpartition(":")[2]: facts[server.rpartition(":")[2]] for server in servers}


def down(root: Path) -> list[str]:
    """Stop all below a root; what they stored stays."""
    removed = sweep(root)
    (root / "facts.json").unlink(missing_ok=True)
    return removed


def status(root: Path) -> dict[str, Facts]:
    return {name: {"up": is_up(root / name), **facts} for name, facts in read_facts(root).items()}


def a_server(text: str) -> str:
    kind, colon, name = text.partition(":")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"{kind}: no such server; take one of {', '.join(KINDS)}")
    if colon and (not name or "/" in name or name.startswith(".")):
        raise argparse.ArgumentTypeError(f"{text}: the name is that of a directory; write {kind}:NAME without slashes")
    return text


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("root", type=Path, help="directory that belongs to these servers alone")
    names = "what to start (all when left out); KIND:NAME for a second one of a kind, such as libvirtd:second"
    parser.add_argument("servers", nargs="*", type=a_server, metavar="SERVER", help=f"{', '.join(KINDS)}: {names}")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    asked = parse(argv)
    root = asked.root.resolve()
    try:
        answer = {
            "up": lambda: up(root, asked.servers or list(KINDS)),
            "down": lambda: down(root),
            "status": lambda: status(root),
        }[asked.command]()
    except (ServerError, OSError) as exc:
        print(f"Cannot bring {asked.command} {root}: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
