# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role libvirt refuses and does, from what was seen on a host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_libvirt import libvirt_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import libvirt_daemons as daemons

LOCKS = "/srv/locks"
DROP_IN = "/etc/systemd/system/libvirtd.service.d/kvm.storage.conf"
DROP_IN_LINE = f"{DROP_IN}:Environment=LIBVIRTD_ARGS="
PART_DROP_IN = "/etc/systemd/system/virtstoraged.service.d/kvm.storage.conf"
SANLOCK = {"lock_manager": "sanlock", "sanlock": {"host_id": 1}}
LOCKD = {"lock_manager": "lockd"}
RED = {"system": "RedHat"}


def wanted(**more: Any) -> dict[str, Any]:
    return {
        "types": [],
        "types_of_system": ["dir", "rbd", "iscsi-direct"],
        "system": "Debian",
        "daemons": "auto",
        "stay_running": False,
        "lock_manager": "keep",
        "lockd": {},
        "sanlock": {},
        "numbers": [],
        "unlocked_guests": [],
        "group_members": [],
        "packages_awaited": False,
        **more,
    }


def said(guests: str = "", pools: str = "", transient: str = "", types: Iterable[str] = ("dir",)) -> dict[str, Any]:
    """What virsh prints: `--quiet echo` does not end the line, and names of pools are filled up."""
    found = "".join(f"<pool type='{name}' supported='yes'>\n</pool>\n" for name in types)
    capabilities = f"<storagepoolCapabilities>\n{found}<pool type='zfs' supported='no'>\n</storagepoolCapabilities>\n"
    stdout = f"{guests}/{pools}/{transient}/{capabilities}"
    return {"stdout": stdout, "rc": 0, "stderr": ""}


def seen(
    settings: Iterable[str] = (),
    there: Iterable[str] = ("regular file /usr/bin/virsh", "regular file /etc/libvirt/qemu.conf"),
    **more: Any,
) -> dict[str, Any]:
    usual: dict[str, Any] = {name: {} for name in daemons.SEEN}
    return {**usual, "settings": {"stdout_lines": list(settings)}, "there": {"stdout_lines": list(there)}, **more}


def states(*units: str) -> dict[str, Any]:
    """What systemctl shows: "libvirtd.socket active enabled"."""
    words = [unit.split() for unit in units]
    return {
        "stdout": "\n\n".join(
            f"Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState={file}" for name, active, file in words
        )
    }


def conf(line: str, file: str = "qemu.conf") -> str:
    return f"/etc/libvirt/{file}:{line}"


NO_NUMBER = "libvirt_sanlock: host_id must be 1 to 2000; give each host a number of its own"
PROBLEMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, []),
    "all there is to say": (
        {
            "types": ["dir", "iscsi-direct"],
            "lock_manager": "lockd",
            "lockd": {"file_lockspace_dir": LOCKS, "lvm_lockspace_dir": "", "scsi_lockspace_dir": None},
            "group_members": [{"name": "alice"}, {"name": "bob", "state": "absent"}, {"name": "carol", "state": None}],
        },
        [],
    ),
    "types": (
        {"types": ["vstorage", "dir", "zfs"]},
        ["libvirt_pool_types: this system has no package for vstorage, zfs; take them out"],
    ),
    "modular": (
        {"daemons": "modular"},
        ["libvirt_daemons: modular: Debian and Ubuntu have libvirtd only; take auto"],
    ),
    "modular, elsewhere": ({"daemons": "modular", **RED}, []),
    **{
        f"number {value!r}": ({"lock_manager": "sanlock", "sanlock": {"host_id": value}}, [NO_NUMBER])
        for value in (0, 2001, -1, True, "one", None, "1 ", 1.5)
    },
    "no number": ({"lock_manager": "sanlock"}, [NO_NUMBER]),
    **{
        f"number {value!r} is good": ({"lock_manager": "sanlock", "sanlock": {"host_id": value}, "numbers": [3]}, [])
        for value in (1, 2000, "7")
    },
    **{
        f"number of {other!r}": (
            {"lock_manager": "sanlock", "sanlock": {"host_id": own}, "numbers": [1, other]},
            ["libvirt_sanlock: host_id 5 is that of another host, too; give each host a number of its own"],
        )
        for own, other in ((5, 5), (5, "5"), ("5", 5))
    },
    **{
        f"lockd with {manager}": (
            {
                **(SANLOCK if manager == "sanlock" else {"lock_manager": manager}),
                "lockd": {"file_lockspace_dir": LOCKS},
            },
            [f"libvirt_lockd: it says nothing to {manager}; take it out, or let libvirt_lock_manager be lockd"],
        )
        for manager in ("none", "sanlock")
    },
    **{
        f"sanlock with {manager}": (
            {"lock_manager": manager, "sanlock": {"host_id": 1}},
            [f"libvirt_sanlock: it says nothing to {manager}; take it out, or let libvirt_lock_manager be sanlock"],
        )
        for manager in ("none", "lockd")
    },
    "both, kept": ({"lockd": {"file_lockspace_dir": LOCKS}, "sanlock": {"host_id": 0}}, []),
    **{
        f"unwritable {value!r}": (
            {**LOCKD, "lockd": {"file_lockspace_dir": value}},
            ["libvirt_lockd: file_lockspace_dir can not be written down; give it without quotes, on one line"],
        )
        for value in ('/srv/a"b', "/srv/a'b", "/srv/a\n")
    },
    "unwritable user": (
        {"lock_manager": "sanlock", "sanlock": {"host_id": 1, "user": 'a"'}},
        ["libvirt_sanlock: user can not be written down; give it without quotes, on one line"],
    ),
    "no absolute path": (
        {"lock_manager": "sanlock", "sanlock": {"host_id": 1, "disk_lease_dir": "locks"}},
        ["libvirt_sanlock: disk_lease_dir is no absolute path; give one such as /srv/locks"],
    ),
    "user that is no path": ({"lock_manager": "sanlock", "sanlock": {"host_id": 1, "user": "sanlock"}}, []),
    "state of a member": (
        {"group_members": [{"name": "bob", "state": "absend"}]},
        ["libvirt_group_members: bob: absend is no state; give present or absent"],
    ),
}


@pytest.mark.parametrize(("more", "lines"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_problems(more: dict[str, Any], lines: list[str]) -> None:
    assert libvirt_plan(wanted(**more), seen())["problems"] == lines


ALICE = {"name": "alice"}
TIMEOUT = "sets --timeout, and libvirt_stay_running is true; take it out there"
IN_THE_WAY = (
    "run, whose locks belong to the lock manager that is there; stop or migrate them, or name them in "
    "libvirt_unlocked_guests"
)
NO_VIRSH = (
    "libvirt_lock_manager: this host has libvirt, and no virsh to tell which guests run; install that first "
    "(libvirt-clients, libvirt-client)"
)
OBSTACLES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "none": ({}, seen(before=said("web\n")), []),
    "guests run": (
        LOCKD,
        seen(before=said("web                 \nWeb\n\n")),
        [f"libvirt_lock_manager: web, Web {IN_THE_WAY}"],
    ),
    "guests run, and settings go": (
        {"lock_manager": "none"},
        seen([conf('lock_manager = "lockd"')], before=said("web\n")),
        [f"libvirt_lock_manager: web {IN_THE_WAY}"],
    ),
    "guests run, and nothing changes": (LOCKD, seen([conf('lock_manager = "lockd"')], before=said("web\n")), []),
    "some guests may run": (
        {**LOCKD, "unlocked_guests": ["web"]},
        seen(before=said("web\ndb\n")),
        [f"libvirt_lock_manager: db {IN_THE_WAY}"],
    ),
    "all guests may run": ({**LOCKD, "unlocked_guests": ["web"]}, seen(before=said("web\n")), []),
    "no virsh": (LOCKD, seen(there=["regular file /etc/libvirt/qemu.conf"]), [NO_VIRSH]),
    "no virsh, and nothing changes": (
        LOCKD,
        seen([conf('lock_manager = "lockd"')], there=["regular file /etc/libvirt/qemu.conf"]),
        [],
    ),
    "no virsh, and no libvirt": (LOCKD, seen(there=[]), []),
    "no directory": (
        {**LOCKD, "lockd": {"file_lockspace_dir": LOCKS, "lvm_lockspace_dir": "/srv/a b", "scsi_lockspace_dir": LOCKS}},
        seen(there=[f"regular file {LOCKS}", "directory /srv/a b"]),
        [f"{LOCKS}: no such directory, where locks are to be; mount it first, the same on all hosts"],
    ),
    "no directories": (
        {**LOCKD, "lockd": {"file_lockspace_dir": LOCKS, "lvm_lockspace_dir": "/srv/b"}},
        seen(),
        [f"{LOCKS}, /srv/b: no such directory, where locks are to be; mount it first, the same on all hosts"],
    ),
    "no directory yet": (
        {**LOCKD, "lockd": {"file_lockspace_dir": LOCKS}, "packages_awaited": True},
        seen(there=[]),
        [],
    ),
    "strangers": (
        {"group_members": [ALICE, {"name": "bob", "state": "absent"}, {"name": "Alice"}, {"name": "carol"}]},
        seen(users={"stdout_lines": ["alice:x:1000:1000::/home/alice:/bin/sh"]}),
        ["libvirt_group_members: this host has no user Alice, carol; make them first"],
    ),
    "timeout": (
        {"stay_running": True},
        seen(['/etc/default/libvirtd:LIBVIRTD_ARGS="--timeout 120"', DROP_IN_LINE]),
        [f"/etc/default/libvirtd: {TIMEOUT}"],
    ),
    "timeout, and may end": (
        {"stay_running": "false"},
        seen(['/etc/default/libvirtd:LIBVIRTD_ARGS="--timeout 120"']),
        [],
    ),
    "other arguments": ({"stay_running": True}, seen(['/etc/default/libvirtd:LIBVIRTD_ARGS="--verbose"']), []),
    **{
        f"timeout of {name}": ({"stay_running": True, **more}, seen(lines, units=shown), found)
        for lines in [
            [
                "/etc/sysconfig/libvirtd:LIBVIRTD_ARGS=--timeout 1",
                "/etc/sysconfig/virtstoraged: VIRTSTORAGED_ARGS=--timeout 1",
            ]
        ]
        for one, part in [([f"/etc/sysconfig/libvirtd: {TIMEOUT}"], [f"/etc/sysconfig/virtstoraged: {TIMEOUT}"])]
        for name, more, shown, found in [
            ("Debian", {}, {}, one),
            ("monolithic", {**RED, "daemons": "monolithic"}, {}, one),
            ("modular", {**RED, "daemons": "modular"}, {}, part),
            ("either", RED, {}, one + part),
            ("what runs", RED, states("libvirtd.service active enabled"), one),
            ("what will run", RED, states("libvirtd.service inactive disabled"), part),
        ]
    },
}


@pytest.mark.parametrize(("more", "results", "lines"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_obstacles(more: dict[str, Any], results: dict[str, Any], lines: list[str]) -> None:
    assert libvirt_plan(wanted(**more), results)["obstacles"] == lines


def line(key: str, value: str, file: str = "qemu.conf") -> dict[str, str]:
    return {"file": file, "key": key, "line": f"{key} = {value}"}


def key(name: str, file: str = "qemu.conf") -> dict[str, str]:
    return {"file": file, "key": name}


LD, SL = "qemu-lockd.conf", "qemu-sanlock.conf"
IS_LOCKD = conf('lock_manager = "lockd"')
TO_LOCKD = line("lock_manager", '"lockd"')
SANLOCK_LINES = [line("lock_manager", '"sanlock"'), line("auto_disk_leases", "1", SL), line("host_id", "1", SL)]
ALL_KEYS = [
    conf("lock_manager=1"),
    *(conf(f"{name} = 1", LD) for name in ("file_lockspace_dir", "lvm_lockspace_dir", "scsi_lockspace_dir")),
    *(conf(f"{name} = 1", SL) for name in ("auto_disk_leases", "disk_lease_dir", "host_id", "user", "group")),
]
# name: (what is declared, what is set, lines that come, keys that go)
LOCK_PLANS: dict[str, tuple[dict[str, Any], list[str], list[dict[str, str]], list[dict[str, str]]]] = {
    "kept": ({"lockd": {"file_lockspace_dir": ""}}, ALL_KEYS, [], []),
    "none": ({"lock_manager": "none"}, [conf('user = "root"')], [], []),
    "none any more": (
        {"lock_manager": "none"},
        ALL_KEYS,
        [],
        [key(name, file) for file, name in daemons.LOCK_KEYS],
    ),
    "lockd": (LOCKD, [], [TO_LOCKD], []),
    "lockd, done": (LOCKD, [IS_LOCKD], [], []),
    **{
        f"lockd, written as {written}": (LOCKD, [conf(written)], [], [])
        for written in ('lock_manager="lockd"', "  lock_manager  =  'lockd'  ", 'lock_manager = "lockd" # of mine')
    },
    **{
        f"lockd, not written as {written}": (LOCKD, [conf(written)], [TO_LOCKD], [])
        for written in (
            'lock_manager = "sanlock"',
            'lock_manager = ""',
            "lock_manager = lockd",
            'lock_managers = "lockd"',
        )
    },
    "lockd in another file": (LOCKD, [conf('lock_manager = "lockd"', LD)], [TO_LOCKD], []),
    "lockd with a directory": (
        {**LOCKD, "lockd": {"file_lockspace_dir": LOCKS}},
        [IS_LOCKD, conf('file_lockspace_dir = "/srv/other"', LD)],
        [line("file_lockspace_dir", f'"{LOCKS}"', LD)],
        [],
    ),
    "lockd without a directory": (
        {**LOCKD, "lockd": {"file_lockspace_dir": "", "lvm_lockspace_dir": None}},
        [IS_LOCKD, conf(f'file_lockspace_dir = "{LOCKS}"', LD), conf(f'lvm_lockspace_dir = "{LOCKS}"', LD)],
        [],
        [key("file_lockspace_dir", LD)],
    ),
    "lockd that says twice the same": (LOCKD, [IS_LOCKD, IS_LOCKD], [], []),
    "lockd after sanlock, which both are there": (
        LOCKD,
        [conf('lock_manager = "sanlock"'), IS_LOCKD],
        [TO_LOCKD],
        [key("lock_manager")],
    ),
    "sanlock": (SANLOCK, [], SANLOCK_LINES, []),
    "sanlock, done": (
        {"lock_manager": "sanlock", "sanlock": {"host_id": "1", "disk_lease_dir": LOCKS, "user": "", "group": "s"}},
        [
            conf('lock_manager = "sanlock"'),
            conf("auto_disk_leases = 1", SL),
            conf("host_id=1", SL),
            conf(f'disk_lease_dir = "{LOCKS}"', SL),
            conf('group = "s"', SL),
        ],
        [],
        [],
    ),
    "sanlock with all": (
        {"lock_manager": "sanlock", "sanlock": {"host_id": 1, "disk_lease_dir": LOCKS, "user": "", "group": "s"}},
        [conf('user = "root"'), conf('user = "sanlock"', SL), conf("host_id = 12", SL)],
        [*SANLOCK_LINES, line("disk_lease_dir", f'"{LOCKS}"', SL), line("group", '"s"', SL)],
        [key("user", SL)],
    ),
    "settings of systemd": (LOCKD, [DROP_IN_LINE, IS_LOCKD], [], []),
}


@pytest.mark.parametrize(("more", "settings", "lines", "keys"), LOCK_PLANS.values(), ids=LOCK_PLANS.keys())
def test_locks(more: dict[str, Any], settings: list[str], lines: list[Any], keys: list[Any]) -> None:
    done = libvirt_plan(wanted(**more), seen(settings))
    assert (done["lines"], done["surplus"], done["locks_change"]) == (lines, keys, bool(lines or keys))


@pytest.mark.parametrize(
    ("more", "paths"),
    [
        (
            {**LOCKD, "lockd": {"file_lockspace_dir": LOCKS, "lvm_lockspace_dir": LOCKS, "scsi_lockspace_dir": ""}},
            [LOCKS],
        ),
        ({"lock_manager": "sanlock", "sanlock": {"host_id": 1, "disk_lease_dir": "/a", "user": "/b"}}, ["/a"]),
        ({"lockd": {"file_lockspace_dir": LOCKS}}, []),
        ({"lock_manager": "none"}, []),
    ],
)
def test_directories(more: dict[str, Any], paths: list[str]) -> None:
    assert libvirt_plan(wanted(**more), seen())["directories"] == paths


# What libvirt tells.

# Of virsh 11.3: --quiet --connect test:///default "list --name; echo /; pool-list --name; echo /; ..."
REAL = "test\n/default-pool        \n//\n"
ANSWERS: dict[str, tuple[str, daemons.Answer]] = {
    "nothing": ("", daemons.Answer([], [], [], [])),
    "real": (REAL, daemons.Answer(["test"], ["default-pool"], [], [])),
    "with lines that are empty": (
        "web                 \ndb\n\n/vms       \n iso\n\n/\n\n/<a>",
        daemons.Answer(["web", "db"], ["vms", "iso"], [], []),
    ),
    "without the end of a line": ("/vms/vms/", daemons.Answer([], ["vms"], ["vms"], [])),
    "capabilities": (
        "///<pool type='dir' supported='yes'>\n<pool type='zfs' supported='no'>\n<pool type='rbd' supported='yes'/>",
        daemons.Answer([], [], [], ["dir", "rbd"]),
    ),
    "names with blanks": ("Windows 10\n/a b  \n//", daemons.Answer(["Windows 10"], ["a b"], [], [])),
    "broken off": ("web\n", daemons.Answer(["web"], [], [], [])),
}


@pytest.mark.parametrize(("stdout", "answer"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answer(stdout: str, answer: daemons.Answer) -> None:
    assert daemons.answer({"stdout": stdout}) == answer


def test_pools_of_a_restart() -> None:
    before = said("web\n", "vms     \nceph    \nleft    \n", "left    \n")
    after = said("web\n", "vms     \nnew     \n", types=["dir"])
    done = libvirt_plan(wanted(types=["dir", "rbd", "zfs"]), seen(before=before, after=after))
    assert done["transient"] == ["left"]
    assert done["pools_after"] == ["vms", "new"]
    assert done["forgotten"] == ["ceph"]
    assert done["types_unknown"] == ["rbd", "zfs"]


# Daemons.

MINE = "libvirtd.socket active enabled", "libvirtd.service inactive enabled"
PARTS_UP = [f"{part}.{kind} active enabled" for part in daemons.PARTS for kind in ("socket", "service")]


@pytest.mark.parametrize(
    ("more", "shown", "storage"),
    [
        ({}, (), "libvirtd"),
        (RED, (), "virtstoraged"),
        (RED, ("libvirtd.socket active enabled",), "libvirtd"),
        (RED, ("libvirtd.service active enabled",), "libvirtd"),
        (RED, ("libvirtd.service inactive enabled", "libvirtd.socket activating enabled"), "virtstoraged"),
        ({**RED, "daemons": "monolithic"}, (), "libvirtd"),
        ({**RED, "daemons": "modular"}, ("libvirtd.service active enabled",), "virtstoraged"),
    ],
)
def test_daemons(more: dict[str, Any], shown: tuple[str, ...], storage: str) -> None:
    done = libvirt_plan(wanted(**more), seen(units=states(*shown)))
    assert done["storage_daemon"] == storage
    assert done["guest_daemon"] == {"libvirtd": "libvirtd", "virtstoraged": "virtqemud"}[storage]
    assert done["drop_in"] == f"/etc/systemd/system/{storage}.service.d/kvm.storage.conf"
    assert done["drop_in_line"] == f"Environment={storage.upper()}_ARGS="


@pytest.mark.parametrize(
    ("stay", "settings", "found"),
    [
        (True, [], (True, False)),
        ("true", [], (True, False)),
        (True, [DROP_IN_LINE], (False, False)),
        (True, [f"{DROP_IN_LINE}--verbose"], (True, False)),
        (True, [f"{PART_DROP_IN}:Environment=VIRTSTORAGED_ARGS="], (True, False)),
        (False, [DROP_IN_LINE], (False, True)),
        ("false", [DROP_IN_LINE], (False, True)),
        (None, [], (False, False)),
    ],
)
def test_staying(stay: Any, settings: list[str], found: tuple[bool, bool]) -> None:
    done = libvirt_plan(wanted(stay_running=stay), seen(settings))
    assert (done["stay"], done["leave"]) == found


def have(*names: str, start: bool = True) -> list[dict[str, Any]]:
    return [{"name": name, "start": start} for name in names]


SOCKETS = [f"{part}.socket" for part in daemons.PARTS]
UNITS: dict[str, tuple[dict[str, Any], tuple[str, ...], list[dict[str, Any]]]] = {
    "nothing runs": ({}, (), have("libvirtd.socket")),
    "as it should be": ({}, MINE, []),
    "not at boot": (
        {},
        ("libvirtd.socket active disabled", "libvirtd.service inactive disabled"),
        have("libvirtd.service", "libvirtd.socket", start=False),
    ),
    "neither": (
        {},
        ("libvirtd.socket inactive disabled", "libvirtd.service inactive enabled"),
        have("libvirtd.socket"),
    ),
    "service without its socket": ({}, ("libvirtd.socket inactive enabled", "libvirtd.service active enabled"), []),
    "static": ({}, ("libvirtd.socket active static", "libvirtd.service inactive static"), []),
    "lockd": (LOCKD, MINE, have("virtlockd.socket")),
    "lockd, done": (LOCKD, (*MINE, "virtlockd.socket active enabled"), []),
    "sanlock": (SANLOCK, (*MINE, "sanlock.service inactive disabled"), have("sanlock.service")),
    "sanlock, done": (SANLOCK, (*MINE, "sanlock.service active enabled"), []),
    "parts": (RED, (), have(*SOCKETS)),
    "parts, done": (RED, tuple(PARTS_UP), []),
    "parts, not at boot": (
        RED,
        ("virtqemud.service active disabled", "virtstoraged.service active disabled", *PARTS_UP[4:]),
        have("virtqemud.service", "virtstoraged.service", start=False),
    ),
}


@pytest.mark.parametrize(("more", "shown", "units"), UNITS.values(), ids=UNITS.keys())
def test_units(more: dict[str, Any], shown: tuple[str, ...], units: list[dict[str, Any]]) -> None:
    done = libvirt_plan(wanted(**more), seen(units=states(*shown)))
    assert done["units_to_have"] == units


LOCK_UNITS = ["virtlockd.socket", "sanlock.service"]


def test_units_to_look_at() -> None:
    assert " ".join(daemons.PARTS) == (
        "virtqemud virtstoraged virtsecretd virtnodedevd virtnetworkd virtnwfilterd virtinterfaced"
    )
    one = ["", "-ro", "-admin", "-tcp", "-tls"]
    mine = [*(f"libvirtd{kind}.socket" for kind in one), "libvirtd.service", *LOCK_UNITS]
    assert libvirt_plan(wanted(), seen())["units"] == mine
    parts = [
        f"{part}{kind}"
        for part in (*daemons.PARTS, "virtproxyd")
        for kind in (".socket", "-ro.socket", "-admin.socket", ".service")
    ]
    assert libvirt_plan(wanted(**RED), seen())["units"] == [*mine, *parts]


@pytest.mark.parametrize(
    ("more", "shown", "ended"),
    [
        (
            {**RED, "daemons": "monolithic"},
            (
                "virtqemud.service active disabled",
                "virtqemud.socket inactive enabled",
                "virtproxyd-ro.socket active static",
            ),
            ["virtqemud.socket", "virtqemud.service", "virtproxyd-ro.socket"],
        ),
        (
            {**RED, "daemons": "modular"},
            (
                "libvirtd.service active enabled",
                "libvirtd-tls.socket inactive enabled-runtime",
                "libvirtd.socket active disabled",
            ),
            ["libvirtd.socket", "libvirtd-tls.socket", "libvirtd.service"],
        ),
        ({**RED, "daemons": "modular"}, ("libvirtd.service inactive disabled", "virtqemud.service active enabled"), []),
        (RED, ("libvirtd.service inactive enabled", "virtqemud.service active enabled"), []),
        ({"daemons": "monolithic"}, ("virtqemud.service active enabled",), []),
    ],
)
def test_units_to_end(more: dict[str, Any], shown: tuple[str, ...], ended: list[str]) -> None:
    """Sockets before what they start."""
    assert libvirt_plan(wanted(**more), seen(units=states(*shown)))["units_to_end"] == ended


QEMUD, STORAGED = "virtqemud.service", "virtstoraged.service"
KNOWN = said(types=["dir", "rbd"])
RESTARTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing changed": ({"types": ["dir"]}, seen(before=KNOWN), []),
    "no answer, and no types": ({}, seen(), []),
    "no answer": ({"types": ["dir"]}, seen(), [STORAGED]),
    "a type is not known": ({"types": ["dir", "zfs"]}, seen(before=KNOWN), [STORAGED]),
    "a setting came": ({}, seen(lines_set={"changed": True}), [QEMUD]),
    "a setting went": ({}, seen(keys_unset={"changed": True}), [QEMUD]),
    "no setting came": ({}, seen(lines_set={"changed": False, "skipped": True}), []),
    "stays": ({}, seen(stay={"changed": True}), [STORAGED]),
    "leaves": ({}, seen(leave={"changed": True}), [STORAGED]),
    "a setting was not read": ({}, seen(unread={"stdout": "/etc/libvirt/qemu.conf"}), [QEMUD]),
    "a file of its unit was not read": ({}, seen(unread={"stdout": PART_DROP_IN}), [STORAGED]),
    "both": ({}, seen(unread={"stdout": f"/etc/libvirt/qemu.conf\n{PART_DROP_IN}"}), [QEMUD, STORAGED]),
}


@pytest.mark.parametrize(("more", "results", "services"), RESTARTS.values(), ids=RESTARTS.keys())
def test_restarts(more: dict[str, Any], results: dict[str, Any], services: list[str]) -> None:
    modular = {**RED, "types_of_system": ["dir", "rbd", "zfs"], **more}
    assert libvirt_plan(wanted(**modular), results)["to_restart"] == services
    assert libvirt_plan(wanted(**more), results)["to_restart"] == (["libvirtd.service"] if services else [])


# Users.

BOB, NO_BOB = {"name": "bob"}, {"name": "bob", "state": "absent"}


@pytest.mark.parametrize(
    ("members", "line", "come", "go"),
    [
        ([], "libvirt:x:105:alice", [], []),
        ([BOB], "libvirt:x:105:", ["bob"], []),
        ([BOB, dict(BOB)], "libvirt:x:105:alice", ["bob"], []),
        ([BOB], "libvirt:x:105:alice,bob", [], []),
        ([{"name": "Bob"}], "libvirt:x:105:alice,bob", ["Bob"], []),
        ([NO_BOB], "libvirt:x:105:alice,bob\n", [], ["bob"]),
        ([NO_BOB], "libvirt:x:105:alice", [], []),
        ([NO_BOB, BOB], "libvirt:x:105:bob", [], []),
        ([{**BOB, "state": "absend"}], "libvirt:x:105:bob", [], []),
        ([BOB], "", ["bob"], []),
    ],
)
def test_members(members: list[dict[str, Any]], line: str, come: list[str], go: list[str]) -> None:
    done = libvirt_plan(wanted(group_members=members), seen(group={"stdout": line}))
    assert (done["members_in"], done["members_out"]) == (come, go)


def test_members_to_look_for() -> None:
    assert libvirt_plan(wanted(group_members=[BOB, ALICE, NO_BOB]), seen())["members"] == ["bob", "alice"]


def test_names() -> None:
    """Jinja takes plan.keys for the method."""
    assert not set(libvirt_plan(wanted(), seen())) & set(dir({}))


def test_what_can_not_be_read() -> None:
    with pytest.raises(AnsibleFilterError, match="libvirt_plan: a dictionary is needed with types, types_of_system"):
        libvirt_plan({}, seen())
    with pytest.raises(AnsibleFilterError, match="libvirt_plan: a dictionary is needed with settings, there, before"):
        libvirt_plan(wanted(), {})
    with pytest.raises(AnsibleFilterError, match="libvirt_plan: what was declared or seen can't be read: 'name'"):
        libvirt_plan(wanted(group_members=[{}]), seen())
    with pytest.raises(AnsibleFilterError, match="can't be read: The value 'perhaps' is not a valid boolean"):
        libvirt_plan(wanted(stay_running="perhaps"), seen())
