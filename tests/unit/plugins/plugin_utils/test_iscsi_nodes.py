# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_iscsi refuses, does and writes, from what was seen on a host; and that no password gets out."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError, AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_iscsi import iscsi_plan, iscsi_records
from ansible_collections.kvm.storage.plugins.plugin_utils import iscsi_nodes

IQN = "iqn.2026-01.com.example:disks"
OTHER = "iqn.2026-01.com.example:other"
HOST = "iqn.2026-01.com.example:host1"
SAN = "192.0.2.1"
KEY = f"{IQN}/{SAN},3260"
SECRET, SECOND = "s3cret-of-host", "s3cret-of-target"  # noqa: S105
CHAP = {"username": "host", "password": SECRET}
BACK = {"username": "target", "password": SECOND}
TIMEOUTS = {
    "login_timeout": 5,
    "login_retries": 1,
    "automatic_login_retries": 8,
    "replacement_timeout": 120,
    "multipath_replacement_timeout": 6,
    "noop_interval": 7,
    "noop_timeout": 9,
}
# What a record has that says nothing of its own.
USUAL = {
    "node.startup": "automatic",
    "node.conn[0].timeo.login_timeout": "5",
    "node.session.initial_login_retry_max": "8",
    "node.session.timeo.replacement_timeout": "120",
    "node.conn[0].timeo.noop_out_interval": "7",
    "node.conn[0].timeo.noop_out_timeout": "9",
}
SESSION = f"session\t4\t{KEY}\t1"
LUN = "lun\t4\t/dev/sdb"
RECORD = f"{KEY},1/default"
FILE = f"/etc/iscsi/nodes/{RECORD}"


def declared(*targets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "state": "present",
        "initiator_iqn": "",
        "targets": list(targets),
        "discovery_auth": {},
        "discovery_mutual_auth": {},
        "timeouts": TIMEOUTS,
        "namesakes": [],
        **more,
    }


def target(*portals: Any, **more: Any) -> dict[str, Any]:
    """A target at portals, each a name or an item."""
    items = [portal if isinstance(portal, dict) else {"name": portal} for portal in portals or (SAN,)]
    return {"target_iqn": IQN, "portals": items, **more}


def gone(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": "absent", **more}


def seen(
    *facts: str,
    resolved: dict[str, str] | None = None,
    discovered: tuple[dict[str, Any], ...] = (),
    users: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    return {
        "look": {"stdout_lines": list(facts)},
        "resolved": {"results": [{"item": name, "stdout": out} for name, out in (resolved or {}).items()]},
        "discovered": {"results": list(discovered)},
        "used": {"devices": [{"path": path, "users": words} for path, words in (users or {}).items()]},
    }


def answer(portal: str, *lines: str, rc: int = 0, errors: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"item": portal, "rc": rc, "stdout_lines": list(lines), "stderr_lines": list(errors)}


def record(settings: dict[str, str], of: str = RECORD) -> list[str]:
    """The facts of a record with these settings, and with what iscsiadm has in it besides."""
    lines = ["# BEGIN RECORD 2.1.8", "node.tpgt = 1", *(f"{name} = {value}" for name, value in settings.items())]
    return [f"record\t{of}\t/etc/iscsi/nodes/{of}", *(f"line\t{of}\t{line}" for line in lines)]


EMPTY: dict[str, Any] = {name: {} for name in iscsi_nodes.SEEN}
LACKS = "a login lacks its username or its password; give both"
KEPT = (
    "a login begins or ends with a space, has more than one line or more than 255 characters, which iscsiadm can not "
    "keep; choose another"
)
SAME = "both logins have the same password, which initiators refuse; give each its own"
FIRST = "a mutual login is given without the first one; give both"
DISCOVERY = "host_iscsi_discovery_auth"

# name: (what is declared, what is wrong with it)
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": (declared(), []),
    "a target": (declared(target(auth=CHAP, mutual_auth=BACK)), []),
    "names of all three forms": (
        declared(
            *(
                {**target(), "target_iqn": name}
                for name in (IQN, "eui.0123456789ABCDEF", f"naa.{'1' * 16}", f"naa.{'1' * 32}")
            ),
            initiator_iqn="iqn.2026-12.com.example",
        ),
        [],
    ),
    **{
        f"initiator {name!r}": (
            declared(initiator_iqn=name),
            [f"{name}: is not the name of an initiator; give one such as iqn.2026-01.com.example:host1"],
        )
        for name in ("host1", "iqn.2026-13.com.example:a", f"{HOST} ", f"{HOST}\n", "eui.1", "naa.123")
    },
    "initiator of others": (
        declared(initiator_iqn=HOST, namesakes=["kvm02", "kvm03"]),
        [f"{HOST}: is the name of kvm02, kvm03 too; give each host a name of its own"],
    ),
    "others without a name too": (declared(namesakes=["kvm02"]), []),
    **{
        f"target {name!r}": (
            declared({**target(), "target_iqn": name}),
            [f"{name}: is not the name of a target; give one such as iqn.2026-01.com.example:disks"],
        )
        for name in ("disks", f"{IQN}/a", f"{IQN}\n")
    },
    "target twice": (
        declared(target(), target("192.0.2.2")),
        [f"{IQN}: is listed twice; make it one item with all its portals"],
    ),
    **{
        f"{name} portal": (
            declared({"target_iqn": IQN, "portals": portals}),
            [f"{IQN}: no portal is given; say where it is, such as portals: [{{name: 192.0.2.1}}]"],
        )
        for name, portals in {"no": [], "no known": None, "no remaining": [gone(SAN)]}.items()
    },
    "no portal of a target that goes": (declared({"target_iqn": IQN, "state": "absent"}), []),
    "no portal where all go": (declared({"target_iqn": IQN}, state="absent"), []),
    "portal twice": (
        declared(target(SAN, {"name": SAN, "port": 3260})),
        [f"{IQN}: has a portal twice; give each once"],
    ),
    "two ports": (declared(target(SAN, {"name": SAN, "port": 3261})), []),
    "portals of all forms": (declared(target("san-1.example_a", "2001:db8::1", {"name": "a", "port": "65535"})), []),
    **{
        f"portal {name!r} {port}": (
            declared(target({"name": name, "port": port})),
            [
                f"{IQN}: {name} port {port} is no portal; give the name or the address of the server, without "
                "brackets, and its port"
            ],
        )
        for name, port in (
            ("[2001:db8::1]", 3260),
            ("-n", 3260),
            ("a b", 3260),
            ("a\n", 3260),
            ("", 3260),
            (SAN, 0),
            (SAN, 65536),
            (SAN, -1),
            (SAN, "iscsi"),
        )
    },
    "no username": (declared(target(auth={"password": SECRET})), [f"{IQN}: {LACKS}"]),
    "no password": (declared(target(auth={"username": "host"})), [f"{IQN}: {LACKS}"]),
    "no password of the target": (
        declared(target(auth=CHAP, mutual_auth={"username": "target"})),
        [f"{IQN}: {LACKS}"],
    ),
    "no password for discovery": (declared(discovery_auth={"username": "a"}), [f"{DISCOVERY}: {LACKS}"]),
    **{
        f"password with {name}": (
            declared(target(auth={"username": "host", "password": password})),
            [f"{IQN}: {KEPT}"],
        )
        for name, password in {
            "a space at its end": f"{SECRET} ",
            "a space at its beginning": f" {SECRET}",
            "two lines": f"{SECRET}\nnode.startup = automatic",
            "a carriage return": f"{SECRET}\rx",
            "a line separator": f"{SECRET}\u2028x",
            "256 characters": "x" * 256,
        }.items()
    },
    "password of 255 characters": (declared(target(auth={"username": "host", "password": "x" * 255})), []),
    "password that is a number": (declared(target(auth={"username": 1, "password": 2})), []),
    "username with two lines": (
        declared(discovery_auth={"username": "a\nb", "password": SECRET}),
        [f"{DISCOVERY}: {KEPT}"],
    ),
    "mutual login alone": (declared(target(mutual_auth=BACK)), [f"{IQN}: {FIRST}"]),
    "mutual login, and none": (declared(target(auth={}, mutual_auth=BACK)), [f"{IQN}: {FIRST}"]),
    "mutual login of discovery alone": (declared(discovery_mutual_auth=BACK), [f"{DISCOVERY}: {FIRST}"]),
    "same passwords": (
        declared(target(auth=CHAP, mutual_auth={"username": "target", "password": SECRET})),
        [f"{IQN}: {SAME}"],
    ),
    "same numbers": (
        declared(target(auth={"username": "a", "password": 12}, mutual_auth={"username": "b", "password": "12"})),
        [f"{IQN}: {SAME}"],
    ),
    "same passwords of discovery": (
        declared(discovery_auth=CHAP, discovery_mutual_auth={"username": "target", "password": SECRET}),
        [f"{DISCOVERY}: {SAME}"],
    ),
}


def show(value: Any) -> str:
    return repr(value)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_in_itself(name: str) -> None:
    wanted, lines = WRONG[name]
    plan = iscsi_plan(wanted, EMPTY)
    assert plan["wrong"] == lines
    assert SECRET not in show(plan) and SECOND not in show(plan)


IN_USE = f"{IQN}: its LUN /dev/sdb is mounted on /srv, swap; end that before this host logs out"
TWO_UP = (SESSION, f"session\t5\t{OTHER}/{SAN},3260\t1", f"name\t{OTHER}-host ")

# name: (what is declared, the host, what is refused)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "name without an address": (
        declared(target("san1", "san2")),
        seen(resolved={"san1": "", "san2": "192.0.2.2  STREAM san2\n192.0.2.2  DGRAM\n"}),
        ["san1: this host does not know its address; give the address, or an entry in /etc/hosts"],
    ),
    "portal by its name and by its address": (
        declared(target("san1", SAN)),
        seen(resolved={"san1": f"{SAN}  STREAM san1"}),
        [f"{IQN}: has a portal twice; give each once"],
    ),
    "the same of a target that goes": (
        declared(target("san1", SAN, state="absent")),
        seen(resolved={"san1": f"{SAN}  STREAM san1"}),
        [],
    ),
    "two names without an address": (
        declared(target("san1", "san2")),
        seen(resolved={"san1": "", "san2": ""}),
        [
            "san1: this host does not know its address; give the address, or an entry in /etc/hosts",
            "san2: this host does not know its address; give the address, or an entry in /etc/hosts",
        ],
    ),
    "another name while sessions are up": (
        declared(target(), initiator_iqn=HOST),
        seen(*TWO_UP),
        [
            f"{HOST}: this host is logged in to {IQN}, {OTHER} as {OTHER}-host, and targets tell initiators by their "
            "names; log out first (state: absent), or leave the name"
        ],
    ),
    "the same name while sessions are up": (declared(initiator_iqn=HOST), seen(SESSION, f"name\t{HOST}"), []),
    "another name while none is up": (declared(initiator_iqn=HOST), seen(f"name\t{OTHER}"), []),
    "another name, and all goes": (declared(initiator_iqn=HOST, state="absent"), seen(*TWO_UP), []),
    "LUN in use": (
        declared(target(state="absent")),
        seen(SESSION, LUN, users={"/dev/sdb": ["mounted on /srv", "open in multipathd (process 9)", "swap"]}),
        [IN_USE],
    ),
    "LUN of another target in use": (
        declared(target(), {**target(), "target_iqn": OTHER}, state="absent"),
        seen(*TWO_UP, "lun\t4\t/dev/sdb", "lun\t5\t/dev/sdc", users={"/dev/sdb": [], "/dev/sdc": ["swap"]}),
        [f"{OTHER}: its LUN /dev/sdc is swap; end that before this host logs out"],
    ),
    "LUN that multipathd alone has open": (
        declared(target(state="absent")),
        seen(SESSION, LUN, users={"/dev/sdb": ["open in multipathd (process 9)"]}),
        [],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    wanted, host, lines = REFUSED[name]
    assert iscsi_plan(wanted, host)["refused"] == lines


TOO_LATE = f"{SAN}:3260: does not answer as an iSCSI portal; check the address, the port and that the target runs"
MANY = [f"{SAN}:3260,1 {IQN}{number}" for number in range(7)]

# name: (what is declared, facts, the answer of the portal, what is not offered)
NOT_OFFERED: dict[str, tuple[dict[str, Any], list[str], dict[str, Any], list[str]]] = {
    "offered": (declared(target()), [], answer(f"{SAN}:3260", f"{SAN}:3260,1 {IQN}"), []),
    "offered elsewhere": (declared(target()), [], answer(f"{SAN}:3260", f"198.51.100.1:3260,1 {IQN}"), []),
    "no answer": (declared(target()), [], answer(f"{SAN}:3260", rc=124), [TOO_LATE]),
    "an error": (
        declared(target()),
        [],
        answer(f"{SAN}:3260", rc=4, errors=("iscsiadm: refused", "iscsiadm: refused", "iscsiadm: gave up")),
        [
            f"{SAN}:3260: does not tell its targets: refused, gave up; check the address, the port, and "
            "host_iscsi_discovery_auth"
        ],
    ),
    "nothing at all": (
        declared(target()),
        [f"name\t{HOST}"],
        answer(f"{SAN}:3260", rc=21),
        [
            f"{IQN}: {SAN}:3260 has no such target for {HOST}, it has none at all; correct target_iqn, or let the "
            "target admit this initiator"
        ],
    ),
    "others": (
        declared(target(), initiator_iqn=OTHER),
        [f"name\t{HOST}"],
        answer(f"{SAN}:3260", MANY[0], *MANY),
        [
            f"{IQN}: {SAN}:3260 has no such target for {OTHER}, it has {IQN}0, {IQN}1, {IQN}2, {IQN}3, {IQN}4; correct "
            "target_iqn, or let the target admit this initiator"
        ],
    ),
    "nothing, to nobody": (
        declared(target()),
        [],
        answer(f"{SAN}:3260"),
        [
            f"{IQN}: {SAN}:3260 has no such target for this host, it has none at all; correct target_iqn, or let the "
            "target admit this initiator"
        ],
    ),
    "the answer of another portal": (declared(target()), [], answer("192.0.2.9:3260"), []),
    "up already": (declared(target()), [SESSION], answer(f"{SAN}:3260", rc=124), []),
    "recorded for a pool that logs in": (
        declared(target(startup="manual")),
        record(USUAL),
        answer(f"{SAN}:3260", rc=124),
        [],
    ),
    "not recorded yet for a pool that logs in": (
        declared(target(startup="manual")),
        [],
        answer(f"{SAN}:3260", rc=124),
        [TOO_LATE],
    ),
    "not asked, in check mode": (declared(target()), [], {"item": f"{SAN}:3260", "skipped": True}, []),
}


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_not_offered(name: str) -> None:
    wanted, facts, said, lines = NOT_OFFERED[name]
    plan = iscsi_plan(wanted, seen(*facts, discovered=(said,)))
    assert plan["not_offered"] == lines


def portal(up: bool = False, startup: str = "automatic", place: str = f"{SAN}:3260") -> dict[str, Any]:
    return {"target": IQN, "portal": place, "startup": startup, "up": up}


BY_NAME = seen(resolved={"san1": "2001:db8::1  STREAM san1"})
ENDS = {"ending": ["4"], "luns_going": ["/dev/sdb"]}
THIS_PORTAL = [f"--targetname={IQN}", f"--portal={SAN}:3260"]

# name: (what is declared, the host, what is done)
WORK: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": (declared(), EMPTY, {}),
    "a login": (declared(target()), seen(), {"portals": [portal()], "asked": [f"{SAN}:3260"]}),
    "a login that is up": (declared(target()), seen(SESSION), {"portals": [portal(up=True)]}),
    "a login that is not up any more": (
        declared(target()),
        seen(*record(USUAL)),
        {"portals": [portal()], "asked": [f"{SAN}:3260"]},
    ),
    "a record for a pool": (
        declared(target(startup="manual")),
        seen(),
        {"portals": [portal(startup="manual")], "asked": [f"{SAN}:3260"]},
    ),
    "a record that is there": (
        declared(target(startup="manual")),
        seen(*record(USUAL)),
        {"portals": [portal(startup="manual")]},
    ),
    "a session at another port is another one": (
        declared(target({"name": SAN, "port": 3261})),
        seen(SESSION),
        {"portals": [portal(place=f"{SAN}:3261")], "asked": [f"{SAN}:3261"]},
    ),
    "a portal by its name, at an address of IPv6": (
        declared(target("san1")),
        BY_NAME,
        {"names": ["san1"], "portals": [portal(place="[2001:db8::1]:3260")], "asked": ["[2001:db8::1]:3260"]},
    ),
    "two targets of one portal ask it once": (
        declared(target("san1"), {**target("san1"), "target_iqn": OTHER}),
        seen(resolved={"san1": SAN}),
        {"names": ["san1"], "portals": [portal(), {**portal(), "target": OTHER}], "asked": [f"{SAN}:3260"]},
    ),
    "only addresses are not resolved": (
        declared(target(SAN, "2001:db8::1", "san1", "10.example", state="present")),
        seen(SESSION),
        {
            "names": ["san1", "10.example"],
            "portals": [
                portal(up=True),
                portal(place="[2001:db8::1]:3260"),
                portal(place="san1:3260"),
                portal(place="10.example:3260"),
            ],
            "asked": ["[2001:db8::1]:3260", "san1:3260", "10.example:3260"],
        },
    ),
    "another name": (declared(initiator_iqn=HOST), seen(f"name\t{OTHER}"), {"asks_otherwise": True}),
    "the same name": (declared(initiator_iqn=HOST), seen(f"name\t{HOST} "), {}),
    "a login of discovery": (declared(discovery_auth=CHAP), seen(), {"asks_otherwise": True}),
    "a login of discovery, and all goes": (declared(discovery_auth=CHAP, state="absent"), seen(), {}),
    "a target that goes": (
        declared(target(state="absent")),
        seen(SESSION, f"session\t4\t{IQN}/10.0.0.1,3260\t1", LUN, "lun\t5\t/dev/sdc", *record(USUAL)),
        {**ENDS, "forgotten": [[f"--targetname={IQN}"]]},
    ),
    "a target that goes asks no name": (declared(target("san1", state="absent")), seen(), {}),
    "all goes": (
        declared(target("san1"), {**target(), "target_iqn": OTHER}, state="absent"),
        seen(SESSION, LUN, f"old\t{OTHER}/{SAN},3260"),
        {**ENDS, "forgotten": [[f"--targetname={OTHER}"]]},
    ),
    "a target whose name begins the same stays": (
        declared(target(state="absent")),
        seen(f"session\t4\t{IQN}2/{SAN},3260\t1", *record(USUAL, f"{IQN}2/{SAN},3260,1/default")),
        {},
    ),
    "a portal that goes": (
        declared(target(gone(SAN), "192.0.2.2")),
        seen(SESSION, LUN, f"session\t6\t{IQN}/192.0.2.2,3260\t1", "lun\t6\t/dev/sdd", *record(USUAL)),
        {**ENDS, "portals": [portal(up=True, place="192.0.2.2:3260")], "forgotten": [THIS_PORTAL]},
    ),
    "a portal that goes, recorded by libvirt": (
        declared(target(gone(SAN), "192.0.2.2")),
        seen(f"old\t{KEY}", f"session\t6\t{IQN}/192.0.2.2,3260\t1"),
        {"portals": [portal(up=True, place="192.0.2.2:3260")], "forgotten": [THIS_PORTAL]},
    ),
    "a portal that goes, and one whose port begins the same": (
        declared(target(gone(SAN, port=326), SAN)),
        seen(SESSION, LUN, *record(USUAL)),
        {"portals": [portal(up=True)]},
    ),
    "a portal of IPv6 that goes": (
        declared(target(gone("2001:db8::1"), SAN)),
        seen(SESSION, f"record\t{IQN}/2001:db8::1,3260,1/default\t/x"),
        {
            "portals": [portal(up=True)],
            "forgotten": [[f"--targetname={IQN}", "--portal=[2001:db8::1]:3260"]],
        },
    ),
    "records where some distributions have them": (
        declared(),
        seen("conf", "base\t/var/lib/iscsi"),
        {"base": "/var/lib/iscsi"},
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_done(name: str) -> None:
    wanted, host, work = WORK[name]
    plan = iscsi_plan(wanted, host)
    found = {key: value for key, value in plan.items() if value and key not in ("wrong", "base")}
    assert plan["base"] == work.get("base", "/etc/iscsi")
    assert found == {key: value for key, value in work.items() if key != "base"}


LOGIN = {
    "node.session.auth.authmethod": "CHAP",
    "node.session.auth.username": "host",
    "node.session.auth.password": SECRET,
}
LOGIN_BACK = {"node.session.auth.username_in": "target", "node.session.auth.password_in": SECOND}
NO_LOGIN_BACK = dict.fromkeys(LOGIN_BACK, "")
NO_LOGIN = {**dict.fromkeys(LOGIN, ""), "node.session.auth.authmethod": "None", **NO_LOGIN_BACK}
RETRIES = "node.session.initial_login_retry_max"
REPLACEMENT = "node.session.timeo.replacement_timeout"

# name: (a target, the settings of its record)
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "automatic": (target(), USUAL),
    "manual says nothing else": (target(startup="manual"), {"node.startup": "manual"}),
    "manual with one of its own": (
        target(startup="manual", login_retries=3),
        {"node.startup": "manual", RETRIES: "3"},
    ),
    "automatic with some of its own": (
        target(login_retries=3, replacement_timeout=0),
        {**USUAL, RETRIES: "3", REPLACEMENT: "0"},
    ),
    "two portals": (target(SAN, "192.0.2.2"), {**USUAL, REPLACEMENT: "6"}),
    "two portals, one of which goes": (target(SAN, gone("192.0.2.2")), USUAL),
    "a login": (target(auth=CHAP), {**USUAL, **LOGIN}),
    "both logins": (target(auth=CHAP, mutual_auth=BACK), {**USUAL, **LOGIN, **LOGIN_BACK}),
    "a login, and none back": (target(auth=CHAP, mutual_auth={}), {**USUAL, **LOGIN, **NO_LOGIN_BACK}),
    "no login": (target(auth={}), {**USUAL, **NO_LOGIN}),
    "a password that is a number": (
        target(auth={"username": "host", "password": 12}),
        {**USUAL, **LOGIN, "node.session.auth.password": "12"},
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_record(name: str) -> None:
    wanted, settings = SETTINGS[name]
    first = iscsi_records(declared(wanted), seen())["records"][0]
    assert first["differs"]
    head, *lines = first["input"].split("\n")
    assert head == f"{IQN} {SAN}:3260,1 {FILE}"
    assert dict(line.split(" = ") for line in lines) == settings
    have = record({key: value for key, value in settings.items() if value})
    assert not iscsi_records(declared(wanted), seen(*have))["records"][0]["differs"]


OLD_LOGIN = {**USUAL, **LOGIN, **LOGIN_BACK}
# name: (a target, the record that it has, whether that differs)
DIFFERS: dict[str, tuple[dict[str, Any], dict[str, str], bool]] = {
    "another timeout": (target(), {**USUAL, RETRIES: "4"}, True),
    "a timeout less": (target(), {name: value for name, value in USUAL.items() if name != RETRIES}, True),
    "what is not given is left alone": (target(), OLD_LOGIN, False),
    "another password": (target(auth={**CHAP, "password": "other"}), OLD_LOGIN, True),
    "a login back that is to go": (target(auth=CHAP, mutual_auth={}), OLD_LOGIN, True),
    "a login that is to go": (target(auth={}), OLD_LOGIN, True),
    "a comment with the name of a setting": (target(), {**USUAL, "# node.startup": "manual"}, False),
}


@pytest.mark.parametrize("name", DIFFERS)
def test_differs(name: str) -> None:
    wanted, have, differs = DIFFERS[name]
    assert iscsi_records(declared(wanted), seen(*record(have)))["records"][0]["differs"] is differs


def test_the_record_of_another_portal() -> None:
    have = record(USUAL) + record({**USUAL, RETRIES: "4"}, f"{IQN}/192.0.2.9,3260,1/default")
    assert not iscsi_records(declared(target()), seen(*have))["records"][0]["differs"]


def test_a_line_that_is_no_setting() -> None:
    have = [*record(USUAL), f"line\t{RECORD}\tnode.startup"]
    assert not iscsi_records(declared(target()), seen(*have))["records"][0]["differs"]


def test_a_password_with_a_tab() -> None:
    auth = {"username": "host", "password": "a\tb"}
    have = record({**USUAL, **LOGIN, "node.session.auth.password": "a\tb"})
    assert not iscsi_records(declared(target(auth=auth)), seen(*have))["records"][0]["differs"]


# name: (the host, portal with its group, and file)
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "new": (seen(), f"{SAN}:3260,1 {FILE}"),
    "where some distributions have them": (
        seen("base\t/var/lib/iscsi"),
        f"{SAN}:3260,1 /var/lib/iscsi/nodes/{RECORD}",
    ),
    "the group of its session": (
        seen(f"session\t4\t{KEY}\t7", discovered=(answer("a", f"{SAN}:3260,3 {IQN}"),)),
        f"{SAN}:3260,7 /etc/iscsi/nodes/{KEY},7/default",
    ),
    "the group that is offered there": (
        seen(discovered=(answer("a", f"10.0.0.1:3260,2 {IQN}", f"{SAN}:3260,3 {IQN}", f"{SAN}:3260,4 {IQN}2"),)),
        f"{SAN}:3260,3 /etc/iscsi/nodes/{KEY},3/default",
    ),
    "the group that is offered elsewhere": (
        seen(discovered=(answer("a", f"10.0.0.1:3260,4 {IQN}2", f"10.0.0.1:3260,2 {IQN}"),)),
        f"{SAN}:3260,2 /etc/iscsi/nodes/{KEY},2/default",
    ),
    "the file that is there": (
        seen(f"record\t{KEY},5/default\t/somewhere", f"record\t{KEY},5/eth0\t/other"),
        f"{SAN}:3260,1 /somewhere",
    ),
    "another interface is another record": (seen(f"record\t{KEY},5/eth0\t/other"), f"{SAN}:3260,1 {FILE}"),
}


@pytest.mark.parametrize("name", FILES)
def test_file(name: str) -> None:
    host, where = FILES[name]
    first = iscsi_records(declared(target()), host)["records"][0]
    assert first["input"].split("\n")[0] == f"{IQN} {where}"


def test_no_records_where_all_goes() -> None:
    assert iscsi_records(declared(target(), state="absent"), seen())["records"] == []


DISCOVERY_SETTINGS = {
    "node.conn[0].timeo.login_timeout": "5",
    "node.session.initial_login_retry_max": "1",
    "node.session.timeo.replacement_timeout": "120",
    "node.conn[0].timeo.noop_out_interval": "7",
    "node.conn[0].timeo.noop_out_timeout": "9",
    "discovery.sendtargets.timeo.login_timeout": "5",
    "discovery.sendtargets.reopen_max": "1",
}
OWN_LOGIN = {
    "discovery.sendtargets.auth.authmethod": "CHAP",
    "discovery.sendtargets.auth.username": "host",
    "discovery.sendtargets.auth.password": SECRET,
}
LOGIN_OF_PORTALS = {
    "discovery.sendtargets.auth.username_in": "target",
    "discovery.sendtargets.auth.password_in": SECOND,
}


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ({}, {}),
        ({"discovery_auth": CHAP}, OWN_LOGIN),
        ({"discovery_auth": CHAP, "discovery_mutual_auth": BACK}, {**OWN_LOGIN, **LOGIN_OF_PORTALS}),
    ],
    ids=["no login", "one login", "both logins"],
)
def test_settings(more: dict[str, Any], settings: dict[str, str]) -> None:
    assert iscsi_records(declared(**more), seen())["settings"] == {**DISCOVERY_SETTINGS, **settings}


def test_no_password_is_in_the_plan() -> None:
    wanted = declared(target(auth=CHAP, mutual_auth=BACK), discovery_auth=CHAP, discovery_mutual_auth=BACK)
    host = seen(SESSION, LUN, *record({**USUAL, **LOGIN, **LOGIN_BACK}))
    assert SECRET in show(iscsi_records(wanted, host))
    assert SECRET not in show(iscsi_plan(wanted, host)) and SECOND not in show(iscsi_plan(wanted, host))


# name: (the filter, what is declared)
BROKEN: dict[str, tuple[Any, Any]] = {
    "plan, a login": (iscsi_plan, declared(target(auth=SECRET))),
    "records, a login": (iscsi_records, declared(target(auth=SECRET))),
    "records, a list": (iscsi_records, declared(target(auth=[SECRET]))),
    "plan, a key": (iscsi_plan, declared({SECRET: 1})),
    "records, a target": (iscsi_records, declared(SECRET)),  # type: ignore[arg-type]
    "records, timeouts": (iscsi_records, declared(target(), timeouts={SECRET: 1})),
    "plan, discovery": (iscsi_plan, declared(discovery_auth=SECRET)),
    "records, discovery": (iscsi_records, declared(discovery_auth=SECRET)),
    "plan, keys": (iscsi_plan, {"password": SECRET}),
    "records, no dictionary": (iscsi_records, [SECRET]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_errors_say_nothing_of_values(name: str) -> None:
    work, wanted = BROKEN[name]
    with pytest.raises(AnsibleFilterError) as error:
        work(wanted, seen())
    assert SECRET not in f"{error.value!r} {error.value}"
    assert error.value.__cause__ is None and error.value.__context__ is None
    assert str(error.value).startswith(work.__name__)


def test_errors_of_variables_are_told() -> None:
    class Lazy(dict):
        def __getitem__(self, name: str) -> Any:
            raise AnsibleError("'nowhere' is undefined")

    with pytest.raises(AnsibleError, match="'nowhere' is undefined"):
        iscsi_plan(Lazy(declared()), seen())


def test_what_was_seen_is_needed() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        iscsi_plan(declared(), {"look": {}})
    assert str(error.value) == "iscsi_plan: a dictionary is needed with look, resolved, discovered, used"
