# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Daemons of libvirt, their lock manager and who may talk to them: what is wrong, and what is to be done.

Nothing here acts. Sources: src/util/virconf.c of libvirt for the files in /etc/libvirt, virsh(1), systemctl(1), the
units of libvirt 9.0 to 11.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .values import flag, lines_of, text, unique

SUPPORTED = re.compile("<pool type='([^']+)' supported='yes'")

PARTS = ("virtqemud", "virtstoraged", "virtsecretd", "virtnodedevd", "virtnetworkd", "virtnwfilterd", "virtinterfaced")
# Sockets first: one that is there while its service ends would start it again.
MONOLITH = (*(f"libvirtd{kind}.socket" for kind in ("", "-ro", "-admin", "-tcp", "-tls")), "libvirtd.service")
PART_UNITS = tuple(
    f"{part}{kind}"
    for part in (*PARTS, "virtproxyd")
    for kind in (".socket", "-ro.socket", "-admin.socket", ".service")
)
LOCK_UNITS = {"lockd": "virtlockd.socket", "sanlock": "sanlock.service"}

LOCK_KEYS = (
    ("qemu.conf", "lock_manager"),
    ("qemu-lockd.conf", "file_lockspace_dir"),
    ("qemu-lockd.conf", "lvm_lockspace_dir"),
    ("qemu-lockd.conf", "scsi_lockspace_dir"),
    ("qemu-sanlock.conf", "auto_disk_leases"),
    ("qemu-sanlock.conf", "disk_lease_dir"),
    ("qemu-sanlock.conf", "host_id"),
    ("qemu-sanlock.conf", "user"),
    ("qemu-sanlock.conf", "group"),
)
LAST_NUMBER = 2000  # of a host, by sanlock
VIRSH, QEMU_CONF = "/usr/bin/virsh", "/etc/libvirt/qemu.conf"

WANTED = (
    "types",
    "types_of_system",
    "system",
    "daemons",
    "stay_running",
    "lock_manager",
    "lockd",
    "sanlock",
    "numbers",
    "unlocked_guests",
    "group_members",
    "packages_awaited",
)
SEEN = (
    "settings",
    "there",
    "before",
    "users",
    "group",
    "units",
    "lines_set",
    "keys_unset",
    "stay",
    "leave",
    "unread",
    "after",
)


@dataclass(frozen=True)
class Answer:
    """What libvirt said: guests that run, active pools, those of them that are transient, what pools there can be."""

    guests: list[str]
    pools: list[str]
    transient: list[str]
    types: list[str]


@dataclass(frozen=True)
class Setting:
    """A line of a file in /etc/libvirt; value is as libvirt's own tools write it."""

    file: str
    key: str
    value: str


def plan(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of the role take.

    problems                       what is wrong in itself, one line each
    directories                    that have to be there
    members                        users that have to be known
    locks_change                   whether what concerns locks is not as it should be
    obstacles                      what the host does not allow
    members_in, members_out        users
    units                          to look at
    surplus                        {file, key} of settings that go
    lines                          {file, key, line} of settings that come
    storage_daemon, guest_daemon   their names
    drop_in, drop_in_line          a file for the former's unit, and what it says
    stay, leave                    whether that file comes or goes
    units_to_end                   in their order
    units_to_have                  {name, start} of units that are enabled, and perhaps started
    to_restart                     services
    transient                      active pools that have no other place than the daemon
    pools_after                    active pools after a restart
    forgotten                      pools that were active before
    types_unknown                  types that the daemon does not know after a restart
    """
    before, after = answer(seen["before"]), answer(seen["after"])
    states = units(seen["units"])
    modular = is_modular(wanted, states)
    storage, guest = ("virtstoraged", "virtqemud") if modular else ("libvirtd", "libvirtd")
    drop_in = f"/etc/systemd/system/{storage}.service.d/kvm.storage.conf"
    drop_in_line = f"Environment={storage.upper()}_ARGS="
    stays = f"{drop_in}:{drop_in_line}" in lines_of(seen["settings"])
    stay = flag(wanted["stay_running"])
    named = members(wanted, "present")
    known = group(seen["group"])
    return {
        "problems": problems(wanted),
        "directories": directories(wanted),
        "members": unique(text(one["name"]) for one in wanted["group_members"] or ()),
        "locks_change": locks_change(wanted, seen),
        "obstacles": obstacles(wanted, seen, before, states),
        "members_in": [name for name in named if name not in known],
        "members_out": [name for name in members(wanted, "absent") if name in known and name not in named],
        "units": [*MONOLITH, *LOCK_UNITS.values(), *(PART_UNITS if wanted["system"] == "RedHat" else ())],
        "surplus": [{"file": file, "key": key} for file, key in surplus(wanted, seen)],
        "lines": [
            {"file": one.file, "key": one.key, "line": f"{one.key} = {one.value}"} for one in missing(wanted, seen)
        ],
        "storage_daemon": storage,
        "guest_daemon": guest,
        "drop_in": drop_in,
        "drop_in_line": drop_in_line,
        "stay": stay and not stays,
        "leave": stays and not stay,
        "units_to_end": units_to_end(wanted, states, modular),
        "units_to_have": units_to_have(wanted, states, modular),
        "to_restart": to_restart(wanted, seen, before, storage, guest),
        "transient": before.transient,
        "pools_after": after.pools,
        "forgotten": [pool for pool in before.pools if pool not in (*before.transient, *after.pools)],
        "types_unknown": [name for name in wanted["types"] if name not in after.types],
    }


# What was seen.


def answer(result: Mapping[str, Any]) -> Answer:
    """virsh fills names up with blanks, and its quiet echo does not end the line: "web\\n/vms      \\n//<...>"."""
    told = text(result.get("stdout"))
    parts = [*told.split("/", 3), "", "", ""]
    guests, pools, transient = [[name.strip() for name in part.split("\n") if name.strip()] for part in parts[:3]]
    return Answer(guests, pools, transient, SUPPORTED.findall(told))


def units(result: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What systemctl shows, by unit: paragraphs of NAME=VALUE."""
    found = {}
    for paragraph in text(result.get("stdout")).split("\n\n"):
        state = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if "Id" in state:
            found[state["Id"]] = state
    return found


def active(states: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [name for name, state in states.items() if state.get("ActiveState") == "active"]


def group(result: Mapping[str, Any]) -> list[str]:
    """Members, by a line of getent: libvirt:x:105:alice,bob."""
    fields = text(result.get("stdout")).strip().split(":")
    return [name for name in fields[3].split(",") if name] if len(fields) > 3 else []


def settings(seen: Mapping[str, Any]) -> list[Setting]:
    found = []
    for line in lines_of(seen["settings"]):
        match = re.match(r"/etc/libvirt/([^:]+):\s*(\w+)\s*=\s*(.*)", line)
        if match:
            found.append(Setting(match.group(1), match.group(2), value_of(match.group(3))))
    return found


def value_of(written: str) -> str:
    """A value without what means nothing: a comment, blanks, and the kind of its quotes."""
    match = re.match(r"""("|')(.*?)\1""", written)
    if match:
        return f'"{match.group(2)}"'
    return re.split(r"[\s#]", written, maxsplit=1)[0]


# What is wrong in itself.


def number(value: Any) -> int:
    """Of a host; 0 for what is no number."""
    plain = text(value)
    return int(plain) if not isinstance(value, bool) and re.fullmatch("[0-9]{1,9}", plain, re.ASCII) else 0


def problems(wanted: Mapping[str, Any]) -> list[str]:
    found = []
    manager, lockd, sanlock = wanted["lock_manager"], wanted["lockd"] or {}, wanted["sanlock"] or {}
    bad = [name for name in wanted["types"] if name not in wanted["types_of_system"]]
    own = number(sanlock.get("host_id"))
    if bad:
        found.append(f"libvirt_pool_types: this system has no package for {', '.join(bad)}; take them out")
    if wanted["daemons"] == "modular" and wanted["system"] != "RedHat":
        found.append("libvirt_daemons: modular: Debian and Ubuntu have libvirtd only; take auto")
    if manager == "sanlock" and not 0 < own <= LAST_NUMBER:
        found.append("libvirt_sanlock: host_id must be 1 to 2000; give each host a number of its own")
    elif manager == "sanlock" and own in [number(other) for other in wanted["numbers"]]:
        found.append(f"libvirt_sanlock: host_id {own} is that of another host, too; give each host a number of its own")
    if manager not in ("keep", "lockd") and lockd:
        found.append(f"libvirt_lockd: it says nothing to {manager}; take it out, or let libvirt_lock_manager be lockd")
    if manager not in ("keep", "sanlock") and sanlock:
        found.append(
            f"libvirt_sanlock: it says nothing to {manager}; take it out, or let libvirt_lock_manager be sanlock"
        )
    for variable, given in (("libvirt_lockd", lockd), ("libvirt_sanlock", sanlock)):
        for key, value in given.items():
            if re.search("[\"'\x00-\x1f\x7f]", text(value)):  # libvirt has no escape for them, and would not start
                found.append(f"{variable}: {key} can not be written down; give it without quotes, on one line")
            elif key.endswith("_dir") and value and not text(value).startswith("/"):
                found.append(f"{variable}: {key} is no absolute path; give one such as /srv/locks")
    found += [
        f"libvirt_group_members: {one['name']}: {one['state']} is no state; give present or absent"
        for one in wanted["group_members"] or ()
        if state_of(one) not in ("present", "absent")
    ]
    return found


def state_of(one: Mapping[str, Any]) -> str:
    return text(one.get("state")) or "present"


def members(wanted: Mapping[str, Any], state: str) -> list[str]:
    return unique(text(one["name"]) for one in wanted["group_members"] or () if state_of(one) == state)


# Locks.


def given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the lock manager; what is null is not given."""
    of = {"lockd": wanted["lockd"], "sanlock": wanted["sanlock"]}.get(wanted["lock_manager"])
    return {key: value for key, value in (of or {}).items() if value is not None}


def directories(wanted: Mapping[str, Any]) -> list[str]:
    """Where locks are to be."""
    return unique(text(value) for key, value in given(wanted).items() if key.endswith("_dir") and value)


def lines(wanted: Mapping[str, Any]) -> list[Setting]:
    """What is to be in the files of /etc/libvirt. What is empty is libvirt's default."""
    manager = wanted["lock_manager"]
    if manager not in LOCK_UNITS:
        return []
    file = f"qemu-{manager}.conf"
    found = [Setting("qemu.conf", "lock_manager", f'"{manager}"')]
    if manager == "sanlock":
        found.append(Setting(file, "auto_disk_leases", "1"))
        found.append(Setting(file, "host_id", text(number(given(wanted).get("host_id")))))
    return found + [
        Setting(file, key, f'"{value}"') for key, value in given(wanted).items() if value and key != "host_id"
    ]


def keys(wanted: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which keys the lock manager concerns. Others are left alone."""
    manager = wanted["lock_manager"]
    if manager == "none":
        return list(LOCK_KEYS)
    wide = [(one.file, one.key) for one in lines(wanted)]
    return unique([*wide, *((f"qemu-{manager}.conf", key) for key in given(wanted))])


def values(seen: Mapping[str, Any], file: str, key: str) -> list[str]:
    return [one.value for one in settings(seen) if (one.file, one.key) == (file, key)]


def missing(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> list[Setting]:
    """Of a key that is there twice, not both count: each must say so."""
    return [one for one in lines(wanted) if set(values(seen, one.file, one.key)) != {one.value}]


def surplus(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys that go: also those that are there twice and have to come anew, for only one of their lines would change."""
    wide = {(one.file, one.key): one for one in lines(wanted)}
    lacking = missing(wanted, seen)
    found = []
    for file, key in keys(wanted):
        there = len(values(seen, file, key))
        if there > 1 if wide.get((file, key)) in lacking else there and (file, key) not in wide:
            found.append((file, key))
    return found


def locks_change(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    return bool(missing(wanted, seen) or surplus(wanted, seen))


# What the host does not allow.


def obstacles(
    wanted: Mapping[str, Any], seen: Mapping[str, Any], before: Answer, states: Mapping[str, Mapping[str, str]]
) -> list[str]:
    found = []
    there = [line.rsplit(" ", 1)[-1] for line in lines_of(seen["there"])]
    changes = locks_change(wanted, seen)
    in_the_way = [name for name in before.guests if name not in (wanted["unlocked_guests"] or ())] if changes else []
    lacking = [name for name in directories(wanted) if f"directory {name}" not in lines_of(seen["there"])]
    users = [line.split(":")[0] for line in lines_of(seen["users"])]
    strangers = [name for name in members(wanted, "present") if name not in users]
    if changes and QEMU_CONF in there and VIRSH not in there:  # who can't see the guests does not change their locks
        found.append(
            "libvirt_lock_manager: this host has libvirt, and no virsh to tell which guests run; install that first "
            "(libvirt-clients, libvirt-client)"
        )
    if in_the_way:
        found.append(
            f"libvirt_lock_manager: {', '.join(in_the_way)} run, whose locks belong to the lock manager that is there; "
            "stop or migrate them, or name them in libvirt_unlocked_guests"
        )
    if lacking and not wanted["packages_awaited"]:
        found.append(
            f"{', '.join(lacking)}: no such directory, where locks are to be; mount it first, the same on all hosts"
        )
    if strangers:
        found.append(f"libvirt_group_members: this host has no user {', '.join(strangers)}; make them first")
    if flag(wanted["stay_running"]):
        found += timeouts(wanted, seen, states)
    return found


def timeouts(wanted: Mapping[str, Any], seen: Mapping[str, Any], states: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Files that would end the daemon of the pools. Which it is may not be known yet."""
    either = wanted["system"] == "RedHat" and wanted["daemons"] == "auto" and not states
    mine = "VIRTSTORAGED" if is_modular(wanted, states) else "LIBVIRTD"
    pattern = re.compile(rf"([^:]+):\s*{'(?:LIBVIRTD|VIRTSTORAGED)' if either else mine}_ARGS=.*--timeout")
    matches = [pattern.match(line) for line in lines_of(seen["settings"])]
    return [
        f"{match.group(1)}: sets --timeout, and libvirt_stay_running is true; take it out there"
        for match in matches
        if match
    ]


# Units.


def is_modular(wanted: Mapping[str, Any], states: Mapping[str, Mapping[str, str]]) -> bool:
    if wanted["daemons"] != "auto":
        return bool(wanted["daemons"] == "modular")
    up = active(states)
    return wanted["system"] == "RedHat" and "libvirtd.socket" not in up and "libvirtd.service" not in up


def units_to_end(wanted: Mapping[str, Any], states: Mapping[str, Mapping[str, str]], modular: bool) -> list[str]:
    """Of the daemons of the other kind."""
    if wanted["system"] != "RedHat" or wanted["daemons"] == "auto":
        return []
    up = active(states)
    return [
        name
        for name in (MONOLITH if modular else PART_UNITS)
        if name in up or states.get(name, {}).get("UnitFileState", "").startswith("enabled")
    ]


def units_to_have(
    wanted: Mapping[str, Any], states: Mapping[str, Mapping[str, str]], modular: bool
) -> list[dict[str, Any]]:
    """A socket is left alone where its service runs without it. Services are at boot, for pools with autostart."""
    up = active(states)
    sockets = [f"{part}.socket" for part in PARTS] if modular else ["libvirtd.socket"]
    sockets += [LOCK_UNITS[wanted["lock_manager"]]] if wanted["lock_manager"] in LOCK_UNITS else []
    services = ["virtqemud.service", "virtstoraged.service"] if modular else ["libvirtd.service"]
    start = [name for name in sockets if name not in up and name.replace(".socket", ".service") not in up]
    enable = [name for name in (*services, *sockets) if states.get(name, {}).get("UnitFileState") == "disabled"]
    return [{"name": name, "start": name in start} for name in unique([*enable, *start])]


def to_restart(
    wanted: Mapping[str, Any], seen: Mapping[str, Any], before: Answer, storage: str, guest: str
) -> list[str]:
    """Services that do not know yet what was installed or set; an earlier run may have been cut off before that."""
    unread = text(seen["unread"].get("stdout"))
    found = []
    if any(flag(seen[name].get("changed")) for name in ("lines_set", "keys_unset")) or "/etc/libvirt/" in unread:
        found.append(f"{guest}.service")
    if (
        any(name not in before.types for name in wanted["types"])
        or any(flag(seen[name].get("changed")) for name in ("stay", "leave"))
        or "kvm.storage.conf" in unread
    ):
        found.append(f"{storage}.service")
    return unique(found)
