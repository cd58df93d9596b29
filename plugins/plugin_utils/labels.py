# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of disks under SELinux and AppArmor: what is wrong with declared ones, and what is to be done.

Nothing here acts. Sources: semanage-fcontext(8), matchpathcon(8), restorecon(8), apparmor.d(5), and the profiles that
libvirt brings. Of several local file contexts for a path the one that was added last counts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from .values import flag, lines_of, text, unique

PATH = re.compile(r"(/[A-Za-z0-9_.+@%=:,-]+)+")
TYPE = re.compile("[a-z0-9_]+")
# Files of these file systems have no label of their own; a boolean lets guests use them.
BOOLEANS = {"nfs": "virt_use_nfs", "cifs": "virt_use_samba", "glusterfs": "virt_use_fusefs", "fuse": "virt_use_fusefs"}
USUAL_TYPE, READ_ONLY_TYPE = "virt_image_t", "virt_content_t"

# Directories of the system with all that is below them, and others that hold more than images.
SYSTEM = re.compile(
    "/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys|tmp|usr|var/(cache|log|run|spool|tmp))(/.*)?"
)
WIDE = re.compile("/|/(home|home/[^/]+|media|mnt|opt|srv|var|var/(lib|lib/libvirt|local|opt))")
# What a directory may be labelled without having a purpose that a new label would end.
FREE = re.compile(
    "(default|file|unlabeled|mnt|usr|var|var_lib|home_root|user_home|root|nfs|cifs|fusefs)_t|s?virt_[a-z_]+"
)
# What libvirt's profiles of AppArmor let virt-aa-helper read as they are.
PROFILED = re.compile("(/(home/[^/]+|media|mnt|opt|srv)|/var/lib/libvirt/images)(/.*)?")

SELINUX = "/sys/fs/selinux/enforce"
SELINUX_BOOLEANS = "/sys/fs/selinux/booleans/"
APPARMOR = "/sys/kernel/security/apparmor/profiles"
HELPER_RULES = "/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper"
GUEST_RULES = "/etc/apparmor.d/local/abstractions/libvirt-qemu"

WANTED = ("directories", "booleans", "check_mode")
SEEN = ("canonical", "stat", "full", "users", "policy", "rules")


@dataclass(frozen=True)
class Directory:
    """An item of host_security_directories with all of its keys."""

    path: str
    permissions: Mapping[str, Any]
    selinux_type: str
    filesystem: str
    disk_volumes: bool
    state: str
    delete_data: bool

    @property
    def gone(self) -> bool:
        return self.state == "absent"

    @property
    def remote(self) -> bool:
        return self.filesystem != "local"

    @property
    def context(self) -> dict[str, str]:
        """As community.general.sefcontext takes it; no other character of a path means something in a pattern."""
        return {"target": re.sub("([.+])", r"\\\1", self.path) + "(/.*)?", "setype": self.selinux_type}


@dataclass(frozen=True)
class Seen:
    """The host, as it was last looked at.

    kinds     path -> what it is; what is not in it is not there
    labels    directory -> its type of SELinux
    real      where each path leads
    full      directories to be removed that are not empty
    users     open files
    policy    path -> the type that the policy has for it
    rules     (file, line) of AppArmor
    """

    kinds: dict[str, str]
    labels: dict[str, str]
    real: list[str]
    full: list[str]
    users: list[str]
    policy: dict[str, str]
    rules: list[tuple[str, str]]

    @property
    def selinux(self) -> bool:
        return SELINUX in self.kinds

    @property
    def apparmor(self) -> bool:
        return APPARMOR in self.kinds


def plan(wanted: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of the role take.

    problems          what is wrong in itself, one line each
    paths             of all directories
    looked_at         what has to be known
    selinux, apparmor whether they run
    removed           directories that are to be removed
    links             arguments of find, for links to what is in directories that are no longer declared
    obstacles         what the host does not allow
    local             directories whose files have labels of their own
    contexts          file contexts, outer before inner ones
    contexts_gone     file contexts that go: also those of inner directories that are to come after an outer one
    booleans          name -> whether it is on
    made              {path, mode, owner, group}, where each is given
    untyped           directories that are to be labelled
    labelled          directories whose files are to be labelled
    returned          directories that are to be labelled as before
    helper_rules      {line, state} for virt-aa-helper
    guest_rules       {line, state} for all guests
    """
    every = [directory(one) for one in wanted["directories"] or ()]
    host = seen_on(every, results)
    needed = booleans(every, wanted)
    present = [one for one in every if not one.gone]
    local = [one for one in present if not one.remote]
    lacking = missing(local, host)
    again = shadowed(local, lacking)
    contexts = sorted((one for one in local if one in lacking or one in again), key=lambda one: one.path.count("/"))
    return {
        "problems": problems(every, wanted),
        "paths": [one.path for one in every],
        "looked_at": [
            SELINUX,
            APPARMOR,
            *(f"{SELINUX_BOOLEANS}{name}" for name in needed),
            *(one.path for one in every),
            *unique(posixpath.dirname(one.path) for one in present),
        ],
        "selinux": host.selinux,
        "apparmor": host.apparmor,
        "removed": [one.path for one in every if one.gone and one.delete_data and one.path in host.kinds],
        "links": [word for one in every if one.gone for word in ("-lname", f"{one.path}/*", "-o")],
        "obstacles": obstacles(every, needed, host),
        "local": [one.path for one in local],
        "contexts": [one.context for one in contexts],
        "contexts_gone": [one.context for one in (*(one for one in every if one.gone), *again)],
        "booleans": needed,
        "made": [made(one, host) for one in present if one.path not in host.kinds or one.permissions],
        "untyped": untyped(local, host),
        "labelled": [one.path for one in local if not wanted["check_mode"] or one.path in host.kinds],
        "returned": [one.path for one in every if one.gone and not one.remote and one.path in host.kinds],
        "helper_rules": changed_rules(HELPER_RULES, helper_rules(every), host),
        "guest_rules": changed_rules(GUEST_RULES, guest_rules(every), host),
    }


# What is declared.


def directory(one: Mapping[str, Any]) -> Directory:
    return Directory(
        path=text(one["path"]),
        permissions=one.get("permissions") or {},
        selinux_type=text(one.get("selinux_type")) or USUAL_TYPE,
        filesystem=text(one.get("filesystem")) or "local",
        disk_volumes=flag(one.get("disk_volumes")),
        state=text(one.get("state")) or "present",
        delete_data=flag(one.get("delete_data")),
    )


def declared(wanted: Mapping[str, Any]) -> dict[str, bool | None]:
    """The booleans as they are declared; None is what is neither true nor false."""
    found: dict[str, bool | None] = {}
    for name, value in (wanted["booleans"] or {}).items():
        try:
            found[str(name)] = bool(boolean(value))
        except TypeError:
            found[str(name)] = None
    return found


def needs(every: Iterable[Directory]) -> list[str]:
    """The booleans that the file systems need."""
    return sorted({BOOLEANS[one.filesystem] for one in every if not one.gone and one.filesystem in BOOLEANS})


def booleans(every: Iterable[Directory], wanted: Mapping[str, Any]) -> dict[str, bool]:
    return {**{name: bool(value) for name, value in declared(wanted).items()}, **{name: True for name in needs(every)}}


# What was seen.


def seen_on(every: Iterable[Directory], results: Mapping[str, Any]) -> Seen:
    """Registered results, each empty until there is one:

    canonical  realpath of / and of the paths
    stat       of looked_at: path, kind and label, with tabs between them
    full       find of what is to be removed and is not empty
    users      find of open files
    policy     matchpathcon of each path and of a file in it
    rules      grep for rules of AppArmor
    """
    told = [line.split("\t") for line in lines_of(results["stat"])]
    labels = {fields[0]: type_of(fields[2]) for fields in told if len(fields) > 2 and fields[1] == "directory"}
    policy = [line.rsplit(None, 1) for line in lines_of(results["policy"])]
    rules = [line.partition(":") for line in lines_of(results["rules"])]
    return Seen(
        kinds={fields[0]: fields[1] for fields in told if len(fields) > 1},
        labels={path: label for path, label in labels.items() if label},
        real=lines_of(results["canonical"])[1:],
        full=lines_of(results["full"]),
        users=lines_of(results["users"]),
        policy={fields[0]: type_of(fields[1]) for fields in policy if len(fields) > 1},
        rules=[(file, rule.strip()) for file, dummy, rule in rules],
    )


def type_of(label: str) -> str:
    """The type in user:role:type:level; nothing where there is no label."""
    fields = label.split(":")
    return fields[2] if len(fields) > 2 else ""


# What is wrong in itself.


def problems(every: list[Directory], wanted: Mapping[str, Any]) -> list[str]:
    paths, given = [one.path for one in every], declared(wanted)
    found = [
        f"{path}: is no plain absolute path of letters, digits and _.+@%=:,- ; choose another"
        for path in paths
        if not PATH.fullmatch(path)
    ]
    found += [
        f"{one.selinux_type}: is no type of SELinux; virt_image_t and virt_content_t are"
        for one in every
        if not one.gone and not one.remote and not TYPE.fullmatch(one.selinux_type)
    ]
    found += [f"{one.path}: {one.state} is no state; give present or absent" for one in every if not is_state(one)]
    found += [
        f"{one.path}: {one.filesystem} is no file system that guests have disks on; give local, {', '.join(BOOLEANS)}"
        for one in every
        if one.remote and one.filesystem not in BOOLEANS
    ]
    found += [
        f"{name}: is false in host_security_booleans, and a directory needs it; take it out"
        for name in needs(every)
        if given.get(name) is False
    ]
    found += [
        f"{name}: is neither true nor false in host_security_booleans; give one of them"
        for name, value in given.items()
        if value is None
    ]
    found += [
        f"{one.path}: delete_data is for what is absent; take it out, or add state: absent"
        for one in every
        if one.delete_data and not one.gone
    ]
    if len(set(paths)) < len(paths):
        found.append("host_security_directories: a path is given twice; give it once")
    return unique(found)


def is_state(one: Directory) -> bool:
    return one.state in ("present", "absent")


# What the host does not allow.


def obstacles(every: list[Directory], needed: Iterable[str], host: Seen) -> list[str]:
    present = [one for one in every if not one.gone]
    paths = [one.path for one in every]
    parents = unique(posixpath.dirname(one.path) for one in present)
    found = [f"{path}: leads to {real}; give that path" for path, real in zip(paths, host.real) if path != real]
    found += [
        f"{real}: belongs to the system; choose a directory elsewhere, such as one in /srv"
        for real in host.real
        if SYSTEM.fullmatch(real)
    ]
    found += [f"{real}: holds more than images; choose a directory in it" for real in host.real if WIDE.fullmatch(real)]
    found += [
        f"{path}: is there, and no directory; choose another path"
        for path in unique([*paths, *parents])
        if host.kinds.get(path, "directory") != "directory"
    ]
    found += [
        f"{parent}: no such directory; make it first, or give it before what is in it"
        for parent in parents
        if parent not in host.kinds and parent not in [one.path for one in present]
    ]
    if host.selinux:
        found += [
            f"{path}: is labelled {host.labels[path]}, and so has a purpose of its own; choose another directory"
            for path in untyped([one for one in present if not one.remote], host)
            if path in host.labels and not FREE.fullmatch(host.labels[path])
        ]
        found += [
            f"{name}: the policy of this host has no such boolean; take it out"
            for name in needed
            if f"{SELINUX_BOOLEANS}{name}" not in host.kinds
        ]
    found += [f"{path}: is not empty, and would be removed; empty it, or take delete_data out" for path in host.full]
    if host.selinux:
        found += [f"{path} is open, and would be labelled anew; stop who uses it" for path in host.users]
    return unique(found)


# What is to be done.


def made(one: Directory, host: Seen) -> dict[str, Any]:
    """A directory with what is given of it."""
    usual = {} if one.path in host.kinds else {"mode": "0711"}
    given = {key: one.permissions[key] for key in ("mode", "owner", "group") if one.permissions.get(key) is not None}
    return {"path": one.path, **usual, **given}


def untyped(local: Iterable[Directory], host: Seen) -> list[str]:
    """Directories that are there with another label than theirs."""
    return [one.path for one in local if one.path in host.kinds and host.labels.get(one.path) != one.selinux_type]


def missing(local: Iterable[Directory], host: Seen) -> list[Directory]:
    """Directories that need a file context, by what the policy says of them and of a file in them."""
    return [
        one for one in local if {host.policy.get(one.path), host.policy.get(f"{one.path}/volume")} != {one.selinux_type}
    ]


def shadowed(local: list[Directory], lacking: list[Directory]) -> list[Directory]:
    """Directories in others of another type, whose file context has to come after that of the outer one."""
    return [
        inner
        for inner in local
        if any(
            inner.path.startswith(f"{outer.path}/")
            and inner.selinux_type != outer.selinux_type
            and (inner in lacking or outer in lacking)
            for outer in local
        )
    ]


def helper_rules(every: Iterable[Directory]) -> tuple[list[str], list[str]]:
    """The rules that virt-aa-helper is to have, and all that it may have by the role. What it can't read it takes for
    a disk without a base, and the guest may not read the base then."""
    mine = [one for one in every if not PROFILED.fullmatch(one.path)]
    rules = {one.path: f'"{one.path}/{{,**}}" r,' for one in mine}
    return [rules[one.path] for one in mine if not one.gone], list(rules.values())


def guest_rules(every: Iterable[Directory]) -> tuple[list[str], list[str]]:
    """The rules that all guests are to have, and all that they may have by the role: not with another right, either."""
    wanted: list[str] = []
    known: list[str] = []
    for one in every:
        rules = {right: f'"{one.path}/{{,**}}" {right},' for right in ("rk", "rwk")}
        known += rules.values()
        if one.disk_volumes and not one.gone:
            wanted.append(rules["rk" if one.selinux_type == READ_ONLY_TYPE else "rwk"])
    return wanted, known


def changed_rules(file: str, rules: tuple[list[str], list[str]], host: Seen) -> list[dict[str, str]]:
    wanted, known = rules
    there = [rule for name, rule in host.rules if name == file]
    return [{"line": rule, "state": "present"} for rule in wanted if rule not in there] + [
        {"line": rule, "state": "absent"} for rule in unique(known) if rule in there and rule not in wanted
    ]
