# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts of a KVM host: what is wrong with declared ones, and what is to be done, from what was seen on the host.

Nothing here acts. Passwords are in what logins() gives back and nowhere else: neither in a plan nor in a message.
Sources: fstab(5), systemd.mount(5), mount.cifs(8), nfs(5), and ansible.posix.mount, which writes fstab.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .values import flag, lines_of, text, unique

PATH = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# fstab has an escape for a space; Python, and so what writes fstab, takes every other blank for the end of a field.
NO_SOURCE = re.compile(r"[\\#\x00-\x1f\x7f]|(?! )\s")
NO_OPTION = re.compile(r"[\s,#\x00-\x1f\x7f]")
SECRET = re.compile(r"(^|[\s,])(pass(word2?)?|secret)=", re.IGNORECASE)

# What every share gets. The boot goes on without one whose server is away (nofail), and what starts pools and guests
# waits for the mount, but no longer than its timeout. Images need no device nodes, no setuid and no execution.
COMMON = ("nodev", "nosuid", "noexec", "_netdev", "nofail", "x-systemd.mount-timeout=60s")
ORDER = tuple(f"x-systemd.before={name}.service" for name in ("libvirtd", "virtstoraged", "virtqemud"))
# Not with a mount that comes with the boot and whose absence must be seen, and what must not stand in fstab.
IMPOSSIBLE = ("noauto", "bg", "remount", "bind", "x-systemd.automount")
# Options that only userspace reads need no restart.
FOR_USERSPACE = re.compile(r"x-|_netdev$|nofail$|comment=")
# Of these, systemd takes several.
REPEATED = re.compile(r"x-systemd\.(before|after|requires|requires-mounts-for|wants-mounts-for|wanted-by|required-by)=")
# Options that exclude each other have one name.
NAMES = (
    (re.compile("soft(err)?"), "hard"),
    (re.compile("nfsvers"), "vers"),
    (re.compile("rw"), "ro"),
    (re.compile("(rel|strict)?atime"), "noatime"),
    (re.compile("(dev|suid|exec)"), r"no\1"),
)
FLAGS = ("nodev", "nosuid", "noexec", "noatime")  # of which the kernel shows nothing but themselves
OWN_TYPES = {"nfs4": "nfs", "smb3": "cifs"}  # type as the kernel shows it: as it is declared

SEEN = ("seen", "found", "led", "users", "asked")
FIELDS = range(4, 7)  # that a line of fstab has

NFS_PORT, CIFS_PORT = 2049, 445
LOGINS = "/etc/cifs-credentials"
LOGIN = re.compile(r"username=[^\n\r\0]+\npassword=[^\n\r\0]+\n(domain=[^\n\r\0]+\n)?")
MODE = re.compile("0?[0-7]{3}")


@dataclass(frozen=True)
class Mount:
    """An item of host_mounts_list with all of its keys."""

    path: str
    src: str
    aliases: list[str]
    fstype: str
    opts: list[str]
    probe: list[Mapping[str, Any]]
    shown: list[str]
    guard: bool
    restart: bool
    stale: bool
    state: str

    @property
    def gone(self) -> bool:
        return self.state == "absent"

    def holds(self, path: str) -> bool:
        return path.startswith(f"{self.path}/")


@dataclass(frozen=True)
class Row:
    """A line of fstab or of /proc/self/mounts without its escapes; written is the path as it stands there."""

    src: str
    path: str
    fstype: str
    opts: list[str]
    written: str
    fields: int


@dataclass(frozen=True)
class Seen:
    """The host, as it was last looked at.

    live      lines of /proc/self/mounts by path; of several on one path the last is on top
    declared  lines of fstab by path
    units     path -> the file of a unit that mounts it
    kinds     path -> d, f, l, ... of bare mount points, and of what is in them
    led       directory -> where it is, if that is elsewhere
    users     (file of libvirt, path in it)
    answers   servers that took a connection
    """

    live: dict[str, list[Row]]
    declared: dict[str, list[Row]]
    units: dict[str, str]
    kinds: dict[str, str]
    led: dict[str, str]
    users: list[str]
    answers: list[Mapping[str, Any]]


def plan(wanted: Iterable[Mapping[str, Any]], results: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of the role take.

    secret      whether an option holds a secret
    wrong       what is wrong in itself, one line each
    bare        mount points without a mount that something will be done to
    parents     the directories that they are in
    users_of    a pattern of what libvirt writes of paths that may be unmounted or removed, empty when there are none
    asked       servers
    refused     what can't be done here and now
    unmounted   paths that something is mounted on
    removed     mount points
    undeclared  patterns of lines of fstab
    made        mount points
    guarded     mount points that are made immutable
    declared    {path, src, fstype, opts, state}, as ansible.posix.mount takes them
    waiting     paths whose mounts go on otherwise than they are declared
    """
    every = [mount(one) for one in wanted]
    host = seen_on(results)
    present = [one for one in every if not one.gone]
    fresh = [one for one in present if is_fresh(one, host)]
    bare = [one.path for one in every if one.path not in host.live]
    users = given_up(every, host)
    return {
        "secret": any(SECRET.search(option) for one in every for option in one.opts),
        "wrong": unique(line for one in every for line in wrong(one, every)),
        "bare": unique(bare),
        "parents": unique(posixpath.dirname(path) for path in bare),
        "users_of": f"(<path>|=')({'|'.join(path.replace('.', '[.]') for path in users)})[/<']" if users else "",
        "asked": asked(every, host),
        "refused": unique(line for one in every for line in refused(one, every, host)),
        "unmounted": [one.path for one in every if is_unmounted(one, host)],
        "removed": [one.path for one in every if is_removed(one, host)],
        "undeclared": [
            rf"^\s*[^#\s]\S*\s+{re.escape(one.path)}\s" for one in every if one.gone and one.path in host.declared
        ],
        "made": [one.path for one in fresh],
        "guarded": [one.path for one in fresh if one.guard],
        "declared": [
            {
                "path": one.path,
                "src": one.src,
                "fstype": one.fstype,
                "opts": ",".join(options(one)),
                "state": "mounted" if one in fresh else "present",
            }
            for one in present
            if one in fresh or differs(one, host)
        ],
        "waiting": [one.path for one in present if needs_restart(one, host) and not one.restart],
    }


# What is declared.


def mount(one: Mapping[str, Any]) -> Mount:
    return Mount(
        path=text(one["path"]),
        src=text(one.get("src")),
        aliases=[text(alias) for alias in one.get("aliases") or ()],
        fstype=text(one.get("fstype")),
        opts=[text(option) for option in one.get("opts") or ()],
        probe=[{"host": server["host"], "port": server["port"]} for server in one.get("probe") or ()],
        shown=[text(name) for name in one.get("shown") or ()],
        guard=flag(one.get("guard"), True),
        restart=flag(one.get("restart"), False),
        stale=flag(one.get("stale"), False),
        state=text(one.get("state")) or "present",
    )


def name_of(option: str) -> str:
    if REPEATED.match(option):
        return option
    name = option.partition("=")[0]
    for pattern, known in NAMES:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(known)
    return name


def named(one: Mount) -> dict[str, str]:
    """The options of a mount by their names; of two with one name the later wins."""
    return {name_of(option): option for option in (*COMMON, *one.opts, *ORDER)}


def options(one: Mount) -> list[str]:
    return list(named(one).values())


def for_kernel(given: Iterable[str]) -> list[str]:
    return sorted(option for option in given if not FOR_USERSPACE.match(option))


# What was seen.


def seen_on(results: Mapping[str, Any]) -> Seen:
    """Registered results, each empty until there is one:

    seen    grep for lines of /proc/self/mounts, fstab and units
    found   find of bare mount points and what is in them: "d /srv/images"
    led     realpath of / and of the directories that they are in
    users   grep for paths in what libvirt keeps
    asked   a loop of wait_for over servers
    """
    live: dict[str, list[Row]] = {}
    declared: dict[str, list[Row]] = {}
    units: dict[str, str] = {}
    for line in lines_of(results["seen"]):
        file, dummy, content = line.partition(":")
        if file == "/proc/self/mounts":
            keep(live, content.split())
        elif file == "/etc/fstab":
            keep(declared, content.split("#")[0].split())  # as ansible.posix.mount does
        elif content.startswith("Where"):
            units.setdefault(plain(content.partition("=")[2].strip()), file)
    pairs = [line.partition(" ") for line in lines_of(results["found"])]
    led = results["led"]
    asked_for = [one for one in (led.get("cmd") or ())[4:] if one.startswith("/")]
    return Seen(
        live=live,
        declared=declared,
        units=units,
        kinds={path: kind for kind, dummy, path in pairs},
        led={one: real for one, real in zip(asked_for, lines_of(led)[1:]) if one != real},
        users=lines_of(results["users"]),
        answers=[
            {"host": one["item"]["host"], "port": one["item"]["port"]}
            for one in results["asked"].get("results") or ()
            if "state" in one
        ],
    )


def keep(rows: dict[str, list[Row]], fields: list[str]) -> None:
    if len(fields) < 2:  # the rest is a comment
        return
    src, path, fstype, opts = [unescaped(field) for field in (*fields, "", "")[:4]]
    rows.setdefault(plain(path), []).append(Row(src, plain(path), fstype, opts.split(","), fields[1], len(fields)))


def unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def plain(path: str) -> str:
    """Without slashes that mean nothing; systemd and mount go by that."""
    return re.sub("/+", "/", path).rstrip("/") or "/"


def top(one: Mount, host: Seen) -> Row | None:
    return host.live[one.path][-1] if one.path in host.live else None


# What is wrong in itself.


def wrong(one: Mount, every: list[Mount]) -> list[str]:
    found = []
    impossible = [option for option in one.opts if option in IMPOSSIBLE]
    if not PATH.fullmatch(one.path):
        found.append(
            "not a path that can be mounted on; name it absolutely, of letters, digits and . _ - only, such as "
            "/srv/images"
        )
    if one.state not in ("present", "absent"):
        found.append(f"{one.state} is no state; give present or absent")
    if [other.path for other in every].count(one.path) > 1:
        found.append("declared twice; declare each path once")
    if any(one.holds(other.path) for other in every):
        found.append("lies around another mount of the list; mount them side by side")
    if not one.gone and "" in (one.src, one.fstype):
        found.append("has no source or no type; name what to mount, as in fstab")
    if NO_SOURCE.search(one.src):
        found.append("the source holds a backslash, a tab, a new line or #; fstab has no place for it")
    if one.fstype and not TYPE.fullmatch(one.fstype):
        found.append("the type is not that of a file system; name it as in fstab, such as nfs")
    if any(not option or NO_OPTION.search(option) for option in one.opts):
        found.append("an option is empty, or holds a space, a comma or #; give each option as an item of its own")
    if impossible:
        found.append(
            f"{', '.join(impossible)}: not for a mount that comes with the boot and whose absence must be seen; "
            "leave it out"
        )
    return [f"{one.path}: {reason}" for reason in found]


# What can't be done here and now.


def refused(one: Mount, every: list[Mount], host: Seen) -> list[str]:
    found = []
    servers, others = asked(every, host), other_sources(one, host)
    rows = host.live.get(one.path, [])
    entries = host.declared.get(one.path, [])
    parent = posixpath.dirname(one.path)
    if any(server in servers for server in one.probe) and not any(server in host.answers for server in one.probe):
        by_hand = f", or unmount by hand (umount --force --lazy {one.path})" if one.gone else ""
        found.append(
            f"{', '.join(text(server['host']) for server in one.probe)}: no answer within 5 seconds; see that the "
            f"server is up and reachable{by_hand}"
        )
    if parent in host.led:
        real = host.led[parent].rstrip("/")
        found.append(f"leads to {real}/{posixpath.basename(one.path)}; give that path")
    if others:
        found.append(
            f"{', '.join(others)} is mounted there or declared in fstab, not {one.src}; give another path, or take "
            "that away first"
        )
    found += [
        f"{kind} is mounted there or declared in fstab, not {one.fstype}; give another path, or take that away first"
        for kind in other_types(one, host)
    ]
    if any(row.fstype == "autofs" for row in rows):
        found.append("is mounted as soon as somebody looks at it (autofs); end that first, such as its unit .automount")
    if one.path in host.units:
        found.append(f"{host.units[one.path]} is for that path; give another path, or take that unit away first")
    found += [
        f"fstab has it as {row.written}; write {one.path} there first" for row in entries if row.written != one.path
    ]
    found += [
        f"its line in fstab has {row.fields} fields, not {FIELDS[0]} to {FIELDS[-1]}; mend it there first"
        for row in entries
        if row.fields not in FIELDS
    ]
    if not one.gone and host.kinds.get(one.path, "d") != "d":
        found.append("is not a directory; give another path")
    if not one.gone and children(one, host):
        found.append(f"holds files, which the mount would hide; move them away ({children(one, host)[0]})")
    if is_unmounted(one, host):
        if len(rows) > 1:
            found.append(
                f"{len(rows)} mounts lie on one another there; unmount by hand until one is left (umount {one.path})"
            )
        below = [path for path in host.live if one.holds(path)]
        if below:
            found.append(f"{', '.join(below)} is mounted below it; unmount that first")
    users = users_of(one, host)
    if users and (one.gone or is_restarted(one, host)):
        way_out = (
            "undefine these pools and guests, or have them elsewhere" if one.gone else "stop these pools and guests"
        )
        found.append(f"in use, see {', '.join(users)}; {way_out}")
    return [f"{one.path}: {reason}" for reason in found]


def asked(every: Iterable[Mount], host: Seen) -> list[Mapping[str, Any]]:
    """Servers of what is, or will be, mounted."""
    return unique(server for one in every if not one.gone or one.path in host.live for server in one.probe)


def seen_of(one: Mount, host: Seen) -> list[Row]:
    """What is mounted on its path, and what fstab has for it."""
    return [row for row in host.live.get(one.path, []) if row.fstype != "autofs"] + host.declared.get(one.path, [])


def other_sources(one: Mount, host: Seen) -> list[str]:
    """Sources are the same when they differ in a slash only. One that has none is not compared."""
    own = [slashless(source) for source in (one.src, *one.aliases)]
    return unique(row.src for row in seen_of(one, host) if one.src and slashless(row.src) not in own)


def other_types(one: Mount, host: Seen) -> list[str]:
    """Of what goes without a source being given, its type must tell that it is what is meant."""
    if one.src or not one.fstype:
        return []
    return unique(row.fstype for row in seen_of(one, host) if kind(row.fstype) != kind(one.fstype))


def kind(fstype: str) -> str:
    short = fstype[len("fuse.") :] if fstype.startswith("fuse.") else fstype
    return OWN_TYPES.get(short, short)


def slashless(source: str) -> str:
    return re.sub("(?<=.)/+$|(?<=:)/(?=[^/])", "", source)


def children(one: Mount, host: Seen) -> list[str]:
    return [path for path in host.kinds if one.holds(path)]


def users_of(one: Mount, host: Seen) -> list[str]:
    """Files in which libvirt keeps who uses it: of a restart, those of what runs."""
    mine = re.compile(rf"(<path>|='){re.escape(one.path)}[/<']$")
    where = "/" if one.gone else "/run/"
    return unique(line.partition(":")[0] for line in host.users if line.startswith(where) and mine.search(line))


# What is to be done.


def differs(one: Mount, host: Seen) -> bool:
    """Whether fstab has it otherwise, or not at all."""
    entries = host.declared.get(one.path, [])
    should = (one.src, one.fstype, options(one))
    return not entries or any((row.src, row.fstype, row.opts) != should for row in entries)


def needs_restart(one: Mount, host: Seen) -> bool:
    """Whether what is mounted is otherwise than declared. What the kernel shows counts, else what fstab had."""
    row = top(one, host)
    if row is None or one.gone:
        return False
    known = named(one)
    was = [for_kernel(entry.opts) for entry in host.declared.get(one.path, [])]
    return (
        one.stale
        or any(not is_shown(known[name], row.opts) for name in one.shown if name in known)
        or any(given != for_kernel(known.values()) for given in was)
    )


def is_shown(option: str, shown: list[str]) -> bool:
    """Whether an option is in force by what the kernel shows."""
    name, value = name_of(option), option.partition("=")[2]
    if name in FLAGS:
        return (name in shown) == (option == name)
    if name == "vers":  # 4 is what the server has of 4.0, 4.1 and 4.2
        return value == "default" or any(one == f"vers={value}" or one.startswith(f"vers={value}.") for one in shown)
    if name == "sec":  # one of several
        return any(f"sec={one}" in shown for one in value.split(":"))
    if name.endswith("_mode"):
        return any(f"{name}={zeros}{value.lstrip('0')}" in shown for zeros in ("", "0", "00"))
    return option in shown


def is_restarted(one: Mount, host: Seen) -> bool:
    return one.restart and needs_restart(one, host)


def is_fresh(one: Mount, host: Seen) -> bool:
    """Whether it will be mounted."""
    return one.path not in host.live or is_restarted(one, host)


def is_unmounted(one: Mount, host: Seen) -> bool:
    return one.path in host.live and (one.gone or is_restarted(one, host))


def is_removed(one: Mount, host: Seen) -> bool:
    """Also a bare one that is empty: its mount may have failed after it was made and guarded."""
    if not one.gone or one.path in host.live:
        return one.gone
    known = one.path in host.declared or not children(one, host)
    return known and host.kinds.get(one.path) == "d"


def given_up(every: Iterable[Mount], host: Seen) -> list[str]:
    """Paths that are unmounted or removed, or are if they need a restart."""
    return unique(
        one.path
        for one in every
        if (one.gone and (one.path in host.declared or is_removed(one, host)))
        or (not one.gone and one.restart and one.path in host.live)
    )


# Shares in the words of host_mounts. Images want a client that waits for its server (hard); a guest would see errors
# else. What the kernel shows of them is compared.

SHOWN = ["vers", "hard", "ro", *FLAGS]


def is_absent(share: Mapping[str, Any]) -> bool:
    return share.get("state") == "absent"


def server_of(share: Mapping[str, Any], usual: int) -> tuple[str, int]:
    """The first server and its port."""
    server: Mapping[str, Any] = next(iter(share.get("hosts") or ()), {})
    return text(server.get("name")), int(usual if server.get("port") is None else server["port"])


def share_of(share: Mapping[str, Any], src: str, fstype: str, opts: list[str], port: int) -> dict[str, Any]:
    name = server_of(share, port)[0]
    return {
        "path": text(share["path"]),
        "src": src,
        "fstype": fstype,
        "opts": [*opts, *(text(option) for option in share.get("options") or ())],
        "probe": [{"host": name, "port": server_of(share, port)[1]}] if name else [],
        "guard": flag(share.get("guard"), True),
        "restart": flag(share.get("restart"), False),
        "state": text(share.get("state")) or "present",
    }


def nfs(shares: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is wrong with shares of NFS, one line each, and the mounts."""
    mounts, found = [], []
    for share in shares:
        name, port = server_of(share, NFS_PORT)
        directory = text(share.get("source_path"))
        if not is_absent(share) and not re.fullmatch("[A-Za-z0-9_:][A-Za-z0-9_.:-]*", name):
            found.append(
                f"{share['path']}: no server is named, or not by a name or an address; give hosts, such as "
                "[{name: nas}]"
            )
        if not is_absent(share) and not directory.startswith("/"):
            found.append(f"{share['path']}: no directory of the server is named; give source_path, an absolute path")
        opts = [f"vers={text(share.get('version')) or '4.2'}", "hard", "noatime"]
        opts += [f"port={port}"] if port != NFS_PORT else []
        place = f"[{name}]" if ":" in name else name
        src = f"{place}:{directory}" if name and directory else ""
        mounts.append({**share_of(share, src, "nfs", opts, NFS_PORT), "shown": [*SHOWN, "sec"]})
    return {"wrong": unique(found), "mounts": mounts}


def cifs(shares: Iterable[Mapping[str, Any]], qemu: Mapping[str, str], stat: Mapping[str, Any]) -> dict[str, Any]:
    """What is wrong with shares of CIFS, the mounts, and what becomes of the files of their logins. No login is in it.

    qemu    owner and group of QEMU
    stat    a registered loop of stat over the files
    """
    shares = list(shares)
    files = {one["item"]: one["stat"] for one in stat.get("results") or () if "stat" in one}
    known = logins(shares)
    mounts = []
    for share in shares:
        name, port = server_of(share, CIFS_PORT)
        path, place = text(share["path"]), text(share.get("share"))
        rights = share.get("permissions") or {}
        mode = f"0{text(rights.get('mode') or '0660')[-3:]}"
        more = [text(option) for option in share.get("options") or ()]
        login = known.get(path, "")
        opts = [
            f"vers={text(share.get('version')) or '3.1.1'}",
            "hard",
            "noatime",
            f"uid={text(rights.get('owner')) or qemu['owner']}",
            "forceuid",
            f"gid={text(rights.get('group')) or qemu['group']}",
            "forcegid",
            f"file_mode={mode}",
            f"dir_mode={mode.translate(str.maketrans('642', '753'))}",  # who reads or writes can enter
        ]
        if login:
            opts.append(f"credentials={login_file(path)}")
        elif not any(option.startswith(("sec=", "credentials=", "cred=")) for option in more):
            opts.append("guest")
        opts += ["seal"] if flag(share.get("seal"), False) else []
        opts += [f"port={port}"] if port != CIFS_PORT else []
        src = f"//{name}/{place}" if name and place else ""
        mounts.append(
            {
                **share_of(share, src, "cifs", opts, CIFS_PORT),
                "shown": [*SHOWN, "seal", "file_mode", "dir_mode"],
                "stale": bool(login) and files.get(path, {}).get("checksum", "") != checksum(login),
            }
        )
    present = [share for share in shares if not is_absent(share)]
    return {
        "wrong": unique(line for share in shares for line in wrong_cifs(share, known)),
        "owners": owners(present, qemu),
        "mounts": mounts,
        "files": {path: login_file(path) for path in unique(text(share["path"]) for share in shares)},
        "logins": list(known),
        "written": [path for path, login in known.items() if login_differs(files.get(path, {}), login)],
        "forgotten": [path for path in unseen_logins(shares, known) if files.get(path, {}).get("exists")],
    }


def unseen_logins(shares: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> list[str]:
    """Paths whose file of a login nobody needs: also those that have none any more."""
    used = {text(option).partition("=")[2] for share in shares for option in share.get("options") or ()}
    paths = unique(text(share["path"]) for share in shares)
    return [path for path in paths if path not in known and login_file(path) not in used]


def owners(shares: Iterable[Mapping[str, Any]], qemu: Mapping[str, str]) -> list[str]:
    """Users and groups that must be known to the host, as arguments of find."""
    rights = [share.get("permissions") or {} for share in shares]
    found: list[str] = []
    for key in ("owner", "group"):
        for name in unique(text(one.get(key)) or qemu[key] for one in rights):
            found += ["-o", "-user" if key == "owner" else "-group", name]
    return found[1:]


def wrong_cifs(share: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    found, path = [], text(share["path"])
    mode = (share.get("permissions") or {}).get("mode") or "0660"
    if not is_absent(share) and not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.-]*", server_of(share, CIFS_PORT)[0]):
        found.append("no server is named, or not by a name or an IPv4 address; give hosts, such as [{name: nas}]")
    if not is_absent(share) and not re.fullmatch(r"[^/\\]+(/[^/\\]+)*", text(share.get("share"))):
        found.append("no share is named; give share, without the server and without backslashes")
    if path in known and not LOGIN.fullmatch(known[path]):
        found.append("the login holds a new line, or has an empty user or password; give auth as username and password")
    if not isinstance(mode, str) or not MODE.fullmatch(mode):  # a number was octal, or was not: nobody knows any more
        found.append('the mode of files is not octal; give permissions such as {mode: "0660"}')
    return [f"{path}: {reason}" for reason in found]


def login_file(path: str) -> str:
    """/srv/images has srv+images; no path has a plus."""
    return f"{LOGINS}/{path[1:].replace('/', '+')}"


def logins(shares: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The logins by path, in the form that mount.cifs reads."""
    found = {}
    for share in shares:
        auth = share.get("auth")
        if auth and not is_absent(share):
            lines = [f"username={text(auth.get('username'))}", f"password={text(auth.get('password'))}"]
            lines += [f"domain={text(auth['domain'])}"] if auth.get("domain") else []
            found[text(share["path"])] = "\n".join([*lines, ""])
    return found


def checksum(login: str) -> str:
    """As the module stat has it. What can't be encoded must not be an error, which would show the login."""
    return hashlib.sha1(login.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def login_differs(file: Mapping[str, Any], login: str) -> bool:
    return file.get("checksum", "") != checksum(login) or file.get("mode") != "0600" or file.get("uid") != 0
