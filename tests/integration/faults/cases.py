# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is interrupted: from one layout to another, so that together every step of every kind of item is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYS = ("AQBAAAAAAAAAABAAQUFBQUFBQUFBQUFBQUFBQQ==", "AQBAAAAAAAAAABAAQkJCQkJCQkJCQkJCQkJCQg==")


@dataclass(frozen=True)
class Case:
    """before is what the host has, after what is asked of it; outside is done by somebody else in between.

    calls is how many calls that change the host the run makes at the least.
    """

    calls: int
    after: dict[str, Any]
    before: dict[str, Any]
    outside: Callable[[Path], None] = lambda root: None


def layout(secrets: Any = (), pools: Any = (), volumes: Any = (), **rest: Any) -> dict[str, Any]:
    return {"secrets": list(secrets), "pools": list(pools), "volumes": list(volumes), **rest}


def cases(root: Path) -> dict[str, Case]:
    key = {"usage": "ceph", "usage_name": "client.vms"}
    chap = {"usage": "iscsi", "usage_name": "iqn.2026-01.example:disk"}
    pool = {"type": "dir", "name": "images", "path": f"{root}/images"}
    moved = {**pool, "path": f"{root}/moved"}
    gone = {"type": "dir", "name": "images", "state": "absent"}
    transient = {**pool, "persistent": False}

    def volume(name: str, **options: Any) -> dict[str, Any]:
        return {"pool": "images", "name": name, **options}

    three = [
        volume("a.raw", capacity="1MiB"),
        volume("b.qcow2", capacity="1MiB", format="qcow2"),
        volume("c.qcow2", backing={"volume": "b.qcow2", "format": "qcow2"}),
    ]
    fixed = [
        volume("a.raw", capacity="1MiB", immutable=True),
        volume("b.qcow2", capacity="1MiB", format="qcow2", permissions={"mode": "0440"}, immutable=True),
    ]
    full = [
        volume("a.raw", capacity="1000001", preallocation="full", permissions={"mode": "0640", "owner": "64055"}),
        volume("b.qcow2", capacity="1MiB", format="qcow2", preallocation="full", immutable=True),
        volume("c.raw", capacity="1MiB", preallocation="falloc"),
        volume("d.qcow2", capacity="1MiB", format="qcow2", preallocation="metadata"),
    ]

    def empty_leftover(folder: Path) -> None:
        (folder / "images" / "b.qcow2").touch(mode=0o600)

    def unseen_file(folder: Path) -> None:
        (folder / "images" / "a.raw").write_bytes(bytes(4096))

    def other_mode(folder: Path) -> None:
        (folder / "images").mkdir(mode=0o755)

    return {
        "new secrets": Case(
            5,
            layout(
                [{**key, "value": KEYS[0], "private": True, "description": "a key"}, {**chap, "value": "twelve chars"}]
            ),
            layout(),
        ),
        "changed secrets": Case(
            3,
            layout([{**key, "value": KEYS[1], "description": "another"}, {**chap, "private": True}]),
            layout([{**key, "value": KEYS[0], "description": "a key"}, {**chap, "value": "twelve chars"}]),
        ),
        "secrets that go": Case(
            2,
            layout([{**key, "state": "absent"}, {**chap, "state": "absent"}]),
            layout([{**key, "value": KEYS[0]}, {**chap, "value": "twelve chars", "private": True}]),
        ),
        "a new pool": Case(4, layout(pools=[{**pool, "autostart": True, "permissions": {"mode": "0750"}}]), layout()),
        "a new pool on a directory": Case(
            5,
            layout(pools=[{**pool, "permissions": {"mode": "0700", "owner": "64055", "group": "108"}}]),
            layout(),
            other_mode,
        ),
        "a new transient pool": Case(1, layout(pools=[{**transient, "permissions": {"mode": "0700"}}]), layout()),
        "a pool that moves": Case(4, layout(pools=[{**moved, "restart": True}]), layout(pools=[pool], volumes=three)),
        "a transient pool that moves": Case(
            2, layout(pools=[{**moved, "persistent": False, "restart": True}]), layout(pools=[transient])
        ),
        "a pool that is made persistent": Case(
            2, layout(pools=[{**pool, "autostart": True}]), layout(pools=[transient])
        ),
        "a pool that stops": Case(
            2,
            layout(pools=[{**pool, "state": "inactive", "autostart": False}]),
            layout(pools=[{**pool, "autostart": True}], volumes=three),
        ),
        "a pool that starts": Case(
            5,
            layout(pools=[{**pool, "autostart": True, "permissions": {"mode": "0755"}}], volumes=three[:1]),
            layout(pools=[{**pool, "state": "inactive"}]),
        ),
        "a pool that goes": Case(2, layout(pools=[gone]), layout(pools=[{**pool, "autostart": True}], volumes=three)),
        "a pool that goes with its data": Case(
            8, layout(pools=[{**gone, "delete_data": True}]), layout(pools=[pool], volumes=three)
        ),
        "an inactive pool that goes with its data": Case(
            6,
            layout(pools=[{**gone, "delete_data": True}]),
            layout(pools=[{**pool, "state": "inactive"}]),
        ),
        "new volumes": Case(6, layout(pools=[pool], volumes=three), layout()),
        "new volumes with all their blocks": Case(16, layout(pools=[pool], volumes=full), layout(pools=[pool])),
        "new immutable volumes": Case(6, layout(pools=[pool], volumes=fixed), layout(pools=[pool])),
        "an empty file under the name of a volume": Case(
            6, layout(pools=[pool], volumes=three), layout(pools=[pool]), empty_leftover
        ),
        "a file that libvirt has not seen": Case(
            3,
            layout(
                pools=[pool], volumes=[volume("a.raw", capacity="1MiB", format="raw", permissions={"mode": "0640"})]
            ),
            layout(pools=[pool]),
            unseen_file,
        ),
        "volumes that grow": Case(
            8,
            layout(
                pools=[pool],
                volumes=[
                    {**three[0], "format": "raw", "capacity": "4MiB", "permissions": {"mode": "0640"}},
                    {**three[1], "capacity": "4MiB", "permissions": {"mode": "0640", "owner": "64055"}},
                    {**three[2], "format": "qcow2", "capacity": "8MiB", "immutable": True},
                ],
            ),
            layout(pools=[pool], volumes=three),
        ),
        "volumes that are released": Case(
            6,
            layout(
                pools=[pool], volumes=[{**one, "immutable": False, "permissions": {"mode": "0600"}} for one in fixed]
            ),
            layout(pools=[pool], volumes=fixed),
        ),
        "volumes that go": Case(
            3,
            layout(pools=[pool], volumes=[{**one, "state": "absent"} for one in three]),
            layout(pools=[pool], volumes=three),
        ),
        "immutable volumes that go": Case(
            6,
            layout(pools=[pool], volumes=[volume(one["name"], state="absent", immutable=False) for one in fixed]),
            layout(pools=[pool], volumes=fixed),
        ),
        "what is no longer declared": Case(
            4, layout(prune=True), layout([{**key, "value": KEYS[0]}, {**chap, "value": "twelve chars"}], [pool], three)
        ),
    }
