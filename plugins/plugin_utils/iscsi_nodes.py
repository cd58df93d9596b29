# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins to iSCSI targets: what is wrong with declared ones, and what is to be done, from what was seen on the host.

Nothing here acts. Passwords are in what settings() and records() give back and nowhere else: neither in plan() nor in a
message. Sources: iscsiadm(8) and iscsid.conf of open-iscsi 2.1, names after RFC 7143, 4.2.7.

A key is TARGET/ADDRESS,PORT; a record is of a key, a TPGT (the number of a portal group) and an interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .values import text, unique

IQN = re.compile(
    r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-zA-Z0-9.-]+(:[^\s/]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16}([0-9A-Fa-f]{16})?"
)
PORT = 3260
LONGEST = 255  # characters of a username or a password; AUTH_STR_MAX_LEN of open-iscsi without its NUL
LOCAL = "/etc/iscsi"  # where records are, unless a distribution has them in /var/lib

# Where the timeouts of a target are in its records.
PLACES = {
    "login_timeout": "node.conn[0].timeo.login_timeout",
    "login_retries": "node.session.initial_login_retry_max",
    "replacement_timeout": "node.session.timeo.replacement_timeout",
    "noop_interval": "node.conn[0].timeo.noop_out_interval",
    "noop_timeout": "node.conn[0].timeo.noop_out_timeout",
}
WANTED = ("state", "initiator_iqn", "targets", "discovery_auth", "discovery_mutual_auth", "timeouts", "namesakes")
SEEN = ("look", "resolved", "discovered", "used")

# Exit status of `timeout iscsiadm --mode=discovery`.
NONE_FOUND, TOO_LATE = 21, 124


@dataclass(frozen=True)
class Session:
    """A session of this host by one of its two addresses; sid is its number."""

    sid: str
    key: str
    tpgt: str


@dataclass(frozen=True)
class Answer:
    """What a portal said when it was asked for its targets: "192.0.2.1:3260,1 iqn.2026-01.com.example:a"."""

    portal: str
    status: int
    offers: list[str]
    errors: list[str]


@dataclass(frozen=True)
class Seen:
    """The host, as it was last looked at.

    name       of the initiator, empty where there is none
    base       the folder of the records
    luns       (sid, device)
    files      key,tpgt/interface -> the file of a record
    lines      key,tpgt/interface -> the lines of a record, which may be passwords
    old        keys of records as libvirt makes them
    addresses  name -> address, empty where the host does not know it
    answers    one for each portal that was asked
    users      LUN that would go -> who uses it
    """

    name: str
    base: str
    sessions: list[Session]
    luns: list[tuple[str, str]]
    files: dict[str, str]
    lines: dict[str, list[str]]
    old: list[str]
    addresses: dict[str, str]
    answers: list[Answer]
    users: dict[str, list[str]]


@dataclass(frozen=True)
class Portal:
    """A portal of a target that is to be there. record is its file, or empty; up, whether the host is logged in."""

    target: Mapping[str, Any]
    place: str
    key: str
    startup: str
    several: bool
    up: bool
    tpgt: str
    record: str

    @property
    def iqn(self) -> str:
        return str(self.target["target_iqn"])


@dataclass(frozen=True)
class Going:
    """Sessions and records that are to go: those of a whole target where key is empty."""

    iqn: str
    key: str
    arguments: list[str]

    def has(self, key: str) -> bool:
        return key == self.key if self.key else key.startswith(f"{self.iqn}/")


def plan(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of the role take, without any password.

    wrong            what is wrong in itself, one line each
    names            names of portals that have to be resolved
    asks_otherwise   whether portals would tell other targets once the initiator is set up
    luns_going       LUNs whose users have to be known
    refused          what can't be done here and now
    asked            portals that have to be asked for their targets
    not_offered      what they said that keeps a login from being tried
    portals          {target, portal, startup, up} of each portal that is to be there
    ending           numbers of sessions
    forgotten        records, as arguments of iscsiadm
    base             the folder of the records
    """
    host = seen_on(seen)
    found = portals(wanted, host)
    ended = ending(wanted, host)
    begun = beginning(found)
    return {
        "wrong": wrong(wanted),
        "names": names(wanted),
        "asks_otherwise": asks_otherwise(wanted, host),
        "luns_going": [device for sid, device in host.luns if sid in ended],
        "refused": refused(wanted, host),
        "asked": unique(portal.place for portal in begun),
        "not_offered": not_offered(begun, host, wanted),
        "portals": [{"target": one.iqn, "portal": one.place, "startup": one.startup, "up": one.up} for one in found],
        "ending": ended,
        "forgotten": forgotten(wanted, host),
        "base": host.base,
    }


# What is declared.


def targets(wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(wanted["targets"] or ())


def is_absent(item: Mapping[str, Any]) -> bool:
    return item.get("state") == "absent"


def goes(target: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether all of a target goes."""
    return is_absent(wanted) or is_absent(target)


def port(portal: Mapping[str, Any]) -> str:
    return str(PORT if portal.get("port") is None else portal["port"])


def address(portal: Mapping[str, Any], host: Seen) -> str:
    return host.addresses.get(str(portal["name"]), str(portal["name"]))


def key(target: Mapping[str, Any], portal: Mapping[str, Any], host: Seen) -> str:
    return f"{target['target_iqn']}/{address(portal, host)},{port(portal)}"


def place(portal: Mapping[str, Any], host: Seen) -> str:
    """A portal as iscsiadm takes it."""
    where = address(portal, host)
    return f"[{where}]:{port(portal)}" if ":" in where else f"{where}:{port(portal)}"


def names(wanted: Mapping[str, Any]) -> list[str]:
    """Portals that are given by name; records and sessions go by addresses. Of a target that goes nobody needs them."""
    given = [
        str(one["name"])
        for target in targets(wanted)
        if not goes(target, wanted)
        for one in target.get("portals") or ()
    ]
    return unique(name for name in given if not re.match(r"[0-9.]+$|.*:", name))


# What was seen.


def seen_on(results: Mapping[str, Any]) -> Seen:
    """Registered results, each empty until there is one:

    look        facts, one a line; the task has their form
    resolved    a loop of getent over names()
    discovered  a loop of `iscsiadm --mode=discovery` over the portals that are asked
    used        kvm.storage.device_info of the LUNs that would go
    """
    facts: dict[str, list[list[str]]] = {}
    for line in results["look"].get("stdout_lines") or ():
        word, *fields = line.split("\t", 3 if line.startswith("session\t") else 2)
        facts.setdefault(word, []).append(fields)
    lines: dict[str, list[str]] = {}
    for record, line in facts.get("line", ()):
        lines.setdefault(record, []).append(line)
    known = facts.get("name") or [[""]]
    return Seen(
        name=known[0][0].strip(),
        base=next((one[0] for one in facts.get("base", ())), LOCAL),
        sessions=[Session(*fields) for fields in facts.get("session", ())],
        luns=[(fields[0], fields[1]) for fields in facts.get("lun", ())],
        files={fields[0]: fields[1] for fields in facts.get("record", ())},
        lines=lines,
        old=[fields[0] for fields in facts.get("old", ())],
        addresses={
            one["item"]: next(iter((one.get("stdout") or "").split()), "")
            for one in results["resolved"].get("results") or ()
        },
        answers=[
            Answer(one["item"], one.get("rc", 1), one.get("stdout_lines", []), one.get("stderr_lines", []))
            for one in results["discovered"].get("results") or ()
            if "skipped" not in one
        ],
        users={
            one["path"]: [user for user in one["users"] if not user.startswith("open in multipathd ")]
            for one in results["used"].get("devices") or ()
        },
    )


# What is wrong in itself.


def wrong(wanted: Mapping[str, Any]) -> list[str]:
    found = wrong_name(text(wanted["initiator_iqn"]), wanted["namesakes"])
    every = [str(target["target_iqn"]) for target in targets(wanted)]
    for target in targets(wanted):
        found += wrong_target(target, every, goes(target, wanted))
    found += wrong_login("host_iscsi_discovery_auth", wanted["discovery_auth"], wanted["discovery_mutual_auth"])
    for target in targets(wanted):
        found += wrong_login(str(target["target_iqn"]), target.get("auth"), target.get("mutual_auth"))
    return unique(found)


def wrong_name(name: str, namesakes: Iterable[str]) -> list[str]:
    """What is wrong with the name of the initiator; namesakes are the other hosts that have it."""
    found = []
    if name and not IQN.fullmatch(name):
        found.append(f"{name}: is not the name of an initiator; give one such as iqn.2026-01.com.example:host1")
    if name and namesakes:
        found.append(f"{name}: is the name of {', '.join(namesakes)} too; give each host a name of its own")
    return found


def wrong_target(target: Mapping[str, Any], every: list[str], gone: bool) -> list[str]:
    """What is wrong with a target; every has the names of all."""
    found, name, given = [], str(target["target_iqn"]), list(target.get("portals") or ())
    if not IQN.fullmatch(name):
        found.append(f"{name}: is not the name of a target; give one such as iqn.2026-01.com.example:disks")
    if every.count(name) > 1:
        found.append(f"{name}: is listed twice; make it one item with all its portals")
    if not gone and all(is_absent(portal) for portal in given):
        found.append(f"{name}: no portal is given; say where it is, such as portals: [{{name: 192.0.2.1}}]")
    if len({(portal["name"], port(portal)) for portal in given}) < len(given):
        found.append(f"{name}: has a portal twice; give each once")
    for portal in given:
        number = port(portal)
        if (
            not re.fullmatch("[0-9A-Za-z._:][0-9A-Za-z._:-]*", str(portal["name"]))
            or not re.fullmatch("[0-9]{1,5}", number, re.ASCII)
            or not 0 < int(number) < 65536
        ):
            found.append(
                f"{name}: {portal['name']} port {number} is no portal; give the name or the address of the server, "
                "without brackets, and its port"
            )
    return found


def wrong_login(name: str, auth: Mapping[str, Any] | None, mutual: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the login of a target, or of discovery, and the one in the other direction."""
    found = []
    for login in filter(None, (auth, mutual)):
        words = [text(login.get("username")), text(login.get("password"))]
        if not all(words):
            found.append(f"{name}: a login lacks its username or its password; give both")
        if any(word != word.strip() or len(word.splitlines()) > 1 or len(word) > LONGEST for word in words):
            found.append(
                f"{name}: a login begins or ends with a space, has more than one line or more than {LONGEST} "
                "characters, which iscsiadm can not keep; choose another"
            )
    if mutual and not auth:
        found.append(f"{name}: a mutual login is given without the first one; give both")
    elif mutual and auth and text(mutual.get("password")) == text(auth.get("password")):
        found.append(f"{name}: both logins have the same password, which initiators refuse; give each its own")
    return found


# What is to be there.


def asks_otherwise(wanted: Mapping[str, Any], host: Seen) -> bool:
    return not is_absent(wanted) and (bool(wanted["discovery_auth"]) or is_renamed(wanted, host))


def is_renamed(wanted: Mapping[str, Any], host: Seen) -> bool:
    return text(wanted["initiator_iqn"]) not in ("", host.name)


def portals(wanted: Mapping[str, Any], host: Seen) -> list[Portal]:
    """Each portal of each target that is to be there."""
    found = []
    for target in targets(wanted):
        if goes(target, wanted):
            continue
        given = [one for one in target.get("portals") or () if not is_absent(one)]
        for one in given:
            own, where = key(target, one, host), place(one, host)
            sessions = [session for session in host.sessions if session.key == own]
            records = [file for record, file in host.files.items() if is_of(record, own)]
            found.append(
                Portal(
                    target=target,
                    place=where,
                    key=own,
                    startup=target.get("startup") or "automatic",
                    several=len(given) > 1,
                    up=bool(sessions),
                    tpgt=sessions[0].tpgt if sessions else group(host, where, str(target["target_iqn"])),
                    record=records[0] if records else "",
                )
            )
    return found


def is_of(record: str, own: str) -> bool:
    """Whether a record is of a key and the usual interface."""
    return bool(re.fullmatch(re.escape(own) + ",[0-9]+/default", record))


def group(host: Seen, where: str, iqn: str) -> str:
    """The portal group that was offered there, else that of the target anywhere, else the usual one."""
    offers = [offer for answer in host.answers for offer in answer.offers]
    for begin in (re.escape(where), ".*"):
        for offer in offers:
            match = re.fullmatch(f"{begin},([0-9]+) {re.escape(iqn)}", offer)
            if match:
                return match.group(1)
    return "1"


def beginning(found: Iterable[Portal]) -> list[Portal]:
    """The portals where something is to be begun; nobody else has to answer."""
    return [portal for portal in found if not portal.up and (not portal.record or portal.startup == "automatic")]


def not_offered(begun: Iterable[Portal], host: Seen, wanted: Mapping[str, Any]) -> list[str]:
    """Portals that do not answer, and targets that they do not have for this host."""
    found, initiator = [], text(wanted["initiator_iqn"]) or host.name or "this host"
    for portal in begun:
        for answer in host.answers:
            if answer.portal != portal.place:
                continue
            offered = unique(offer.partition(" ")[2] for offer in answer.offers)
            if answer.status == TOO_LATE:
                found.append(
                    f"{portal.place}: does not answer as an iSCSI portal; check the address, the port and that the "
                    "target runs"
                )
            elif answer.status not in (0, NONE_FOUND):
                errors = unique(re.sub("^iscsiadm: ", "", line) for line in answer.errors)
                found.append(
                    f"{portal.place}: does not tell its targets: {', '.join(errors)}; check the address, the port, and "
                    "host_iscsi_discovery_auth"
                )
            elif portal.iqn not in offered:
                found.append(
                    f"{portal.iqn}: {portal.place} has no such target for {initiator}, it has "
                    f"{', '.join(offered[:5]) or 'none at all'}; correct target_iqn, or let the target admit this "
                    "initiator"
                )
    return unique(found)


# What is written. Passwords are in it.


def settings(wanted: Mapping[str, Any]) -> dict[str, str]:
    """What iscsid.conf says of logins without a record of their own."""
    timeouts = wanted["timeouts"]
    found = {name: text(timeouts[option]) for option, name in PLACES.items()}
    found["discovery.sendtargets.timeo.login_timeout"] = text(timeouts["login_timeout"])
    found["discovery.sendtargets.reopen_max"] = text(timeouts["login_retries"])
    auth, mutual = wanted["discovery_auth"], wanted["discovery_mutual_auth"]
    if auth:
        found["discovery.sendtargets.auth.authmethod"] = "CHAP"
        found.update(login("discovery.sendtargets", "", auth))
    if mutual:
        found.update(login("discovery.sendtargets", "_in", mutual))
    return found


def login(of: str, way: str, words: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a login, empty where there is none."""
    return {f"{of}.auth.{name}{way}": text(words.get(name)) for name in ("username", "password")}


def records(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record of each portal that is to be there.

    differs  whether it is not as it should be
    input    a line with target, portal and file, and its settings, empty where one is not to be there; what else
             iscsiadm has in the record stays
    """
    host, found = seen_on(seen), []
    for portal in portals(wanted, host):
        should = should_be(portal, wanted["timeouts"])
        have = [line for record, lines in host.lines.items() if is_of(record, portal.key) for line in lines]
        present = sorted(line for line in have if " = " in line and line.partition(" = ")[0] in should)
        lines = [f"{name} = {value}" for name, value in should.items()]
        file = portal.record or f"{host.base}/nodes/{portal.key},{portal.tpgt}/default"
        found.append(
            {
                "differs": present != sorted(f"{name} = {value}" for name, value in should.items() if value),
                "input": "\n".join([f"{portal.iqn} {portal.place},{portal.tpgt} {file}", *lines]),
            }
        )
    return found


def should_be(portal: Portal, timeouts: Mapping[str, Any]) -> dict[str, str]:
    """The settings that a record is to have, empty those that it is not to have."""
    target, found = portal.target, {"node.startup": portal.startup}
    usual: dict[str, Any] = {}
    if portal.startup == "automatic":
        usual = {**timeouts, "login_retries": timeouts["automatic_login_retries"]}
        if portal.several:
            usual["replacement_timeout"] = timeouts["multipath_replacement_timeout"]
    for option, name in PLACES.items():
        value = usual.get(option) if target.get(option) is None else target[option]
        if value is not None:
            found[name] = text(value)
    auth, mutual = target.get("auth"), target.get("mutual_auth")
    if auth is not None:
        found["node.session.auth.authmethod"] = "CHAP" if auth else "None"
        found.update(login("node.session", "", auth))
    if mutual is not None or (auth is not None and not auth):
        found.update(login("node.session", "_in", mutual or {}))
    return found


# What is to go.


def going(wanted: Mapping[str, Any], host: Seen) -> list[Going]:
    found = []
    for target in targets(wanted):
        iqn = str(target["target_iqn"])
        if goes(target, wanted):
            found.append(Going(iqn, "", [f"--targetname={iqn}"]))
            continue
        for one in target.get("portals") or ():
            if is_absent(one):
                found.append(
                    Going(iqn, key(target, one, host), [f"--targetname={iqn}", f"--portal={place(one, host)}"])
                )
    return found


def ending(wanted: Mapping[str, Any], host: Seen) -> list[str]:
    """Numbers of sessions that are to end."""
    return unique(session.sid for one in going(wanted, host) for session in host.sessions if one.has(session.key))


def forgotten(wanted: Mapping[str, Any], host: Seen) -> list[list[str]]:
    """Records that are to go, as arguments of iscsiadm."""
    keys = [re.sub(",-?[0-9]+/.*$", "", record) for record in host.files] + host.old
    return [one.arguments for one in going(wanted, host) if any(one.has(own) for own in keys)]


def refused(wanted: Mapping[str, Any], host: Seen) -> list[str]:
    """What would take a LUN from who uses it, and what is known to fail."""
    found = [
        f"{name}: this host does not know its address; give the address, or an entry in /etc/hosts"
        for name, where in host.addresses.items()
        if not where
    ]
    for target in targets(wanted):
        given = [] if goes(target, wanted) else [key(target, one, host) for one in target.get("portals") or ()]
        if not found and len(set(given)) < len(given):  # one by its name and by its address
            found.append(f"{target['target_iqn']}: has a portal twice; give each once")
    if not is_absent(wanted) and host.sessions and is_renamed(wanted, host):
        up = sorted({session.key.partition("/")[0] for session in host.sessions})
        found.append(
            f"{wanted['initiator_iqn']}: this host is logged in to {', '.join(up)} as {host.name}, and targets tell "
            "initiators by their names; log out first (state: absent), or leave the name"
        )
    for device, users in host.users.items():
        sids = [sid for sid, lun in host.luns if lun == device]
        iqn = next((session.key.partition("/")[0] for session in host.sessions if session.sid in sids), "")
        if users:
            found.append(f"{iqn}: its LUN {device} is {', '.join(users)}; end that before this host logs out")
    return found
