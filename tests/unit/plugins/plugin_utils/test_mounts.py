# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles host_mounts, host_nfs and host_cifs refuse and do, from what was seen on a host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_mounts import (
    cifs_logins,
    cifs_mounts,
    mounts_plan,
    nfs_mounts,
)

PATH, SRC = "/srv/images", "nas:/export"
NAS, OTHER = {"host": "nas", "port": 2049}, {"host": "nas2", "port": 2049}
BEFORE = ["x-systemd.before=libvirtd.service", "x-systemd.before=virtstoraged.service"]
BEFORE += ["x-systemd.before=virtqemud.service"]
COMMON = ["nodev", "nosuid", "noexec", "_netdev", "nofail", "x-systemd.mount-timeout=60s"]
OPTS = ",".join([*COMMON, "hard", *BEFORE])
SOURCE = "the source holds a backslash, a tab, a new line or #; fstab has no place for it"
OPTION = "an option is empty, or holds a space, a comma or #; give each option as an item of its own"
NO_PATH = (
    "not a path that can be mounted on; name it absolutely, of letters, digits and . _ - only, such as /srv/images"
)
TAKEN = "; give another path, or take that away first"
LIBVIRT = f"/etc/libvirt/storage/images.xml:<path>{PATH}<"
POOL = f"/run/libvirt/storage/images.xml:<path>{PATH}<"
GUEST = f"/run/libvirt/qemu/web.xml:='{PATH}/"


def item(path: str = PATH, **more: Any) -> dict[str, Any]:
    return {"path": path, "src": SRC, "fstype": "nfs", "opts": ["hard"], **more}


def gone(path: str = PATH, **more: Any) -> dict[str, Any]:
    return {"path": path, "state": "absent", **more}


def live(path: str = PATH, src: str = SRC, fstype: str = "nfs4", opts: str = "rw,nosuid,nodev,hard") -> str:
    return f"/proc/self/mounts:{src} {path} {fstype} {opts} 0 0"


def fstab(path: str = PATH, src: str = SRC, fstype: str = "nfs", opts: str = OPTS, end: str = " 0 0") -> str:
    return f"/etc/fstab:{src} {path} {fstype} {opts}{end}"


def unit(path: str = PATH, file: str = "srv-images.mount") -> str:
    return f"/etc/systemd/system/{file}:Where={path}"


def seen(
    *lines: str,
    found: Iterable[str] = (),
    users: Iterable[str] = (),
    led: dict[str, str] | None = None,
    answers: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What was registered; led is directory -> where it is."""
    led = led or {}
    return {
        "seen": {"stdout_lines": list(lines)},
        "found": {"stdout_lines": list(found)},
        "users": {"stdout_lines": list(users)},
        "led": {
            "cmd": ["realpath", "--canonicalize-missing", "--", "/", *led],
            "stdout_lines": ["/", *led.values()],
        },
        "asked": {
            "results": [{"item": one, "state": "started"} for one in answers]
            + [{"item": {"host": "away", "port": 1}, "msg": "Timeout"}]
        },
    }


NOTHING: dict[str, Any] = {"seen": {}, "found": {}, "led": {}, "users": {}, "asked": {}}

# name: (what is declared, what is wrong with it)
WRONG: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "nothing": ([], []),
    "all there is to say": (
        [
            item(aliases=["nas:export"], shown=["hard"], probe=[NAS], guard=False, state="present"),
            gone("/srv/iso"),
            item(
                "/srv/My-Images_2.d", src="nas:/a b/c", opts=["retrans=3", 'context="a:b"', "x-systemd.after=a.service"]
            ),
        ],
        [],
    ),
    "none of what may be left out": ([{**item(), "opts": None, "aliases": None, "probe": None, "guard": None}], []),
    **{
        f"path {path!r}": ([item(path)], [f"{path}: {NO_PATH}"])
        for path in (
            "srv",
            "/",
            "/srv/",
            "/srv//a",
            "/srv/../etc",
            "/srv/.a",
            "/srv/a b",
            "/srv/ä",
            "/srv/a\n",
            "",
            "/-",
        )
    },
    "path with a place that goes": ([gone("/srv/a\n")], [f"/srv/a\n: {NO_PATH}"]),
    "state": ([item(state="absend")], [f"{PATH}: absend is no state; give present or absent"]),
    "twice": ([item(), gone()], [f"{PATH}: declared twice; declare each path once"]),
    "not twice": ([item("/srv/a"), item("/srv/A")], []),
    "around": (
        [item("/srv"), item(), item("/srvx/a")],
        ["/srv: lies around another mount of the list; mount them side by side"],
    ),
    **{
        f"no {key}": (
            [item(**{key: value})],
            [f"{PATH}: has no source or no type; name what to mount, as in fstab"],
        )
        for key, value in {"src": "", "fstype": None}.items()
    },
    **{
        f"source {source!r}": ([item(src=source)], [f"{PATH}: {SOURCE}"])
        for source in (
            "nas:\\a",
            "nas:/a\tb",
            "nas:/a\n",
            "nas:/#a",
            "nas:/a\u00a0b",
            "nas:/a\u2003b",
            "nas:/a\rb",
            "a\0",
        )
    },
    "source with letters of others": ([item(src="nas:/Bilder für Gäste")], []),
    **{
        f"type {kind!r}": (
            [item(fstype=kind)],
            [f"{PATH}: the type is not that of a file system; name it as in fstab, such as nfs"],
        )
        for kind in ("n fs", "nfs\n", "-a")
    },
    "type with a dot": ([item(fstype="fuse.glusterfs")], []),
    **{
        f"option {option!r}": ([item(opts=["hard", option])], [f"{PATH}: {OPTION}"])
        for option in ("", "a b", "a,b", "a#b", "ro\n", "ro\u00a0", "a\0b")
    },
    "options that have no place": (
        [item(opts=["noauto", "ro", "bg"])],
        [f"{PATH}: noauto, bg: not for a mount that comes with the boot and whose absence must be seen; leave it out"],
    ),
    **{
        f"option {option}": (
            [item(opts=[option])],
            [
                f"{PATH}: {option}: not for a mount that comes with the boot and whose absence must be seen; "
                "leave it out"
            ],
        )
        for option in ("remount", "bind", "x-systemd.automount")
    },
}


@pytest.mark.parametrize(("wanted", "lines"), WRONG.values(), ids=WRONG.keys())
def test_wrong(wanted: list[dict[str, Any]], lines: list[str]) -> None:
    assert mounts_plan(wanted, NOTHING)["wrong"] == lines


@pytest.mark.parametrize(
    ("option", "secret"),
    {
        "password=x": True,
        "pass=x": True,
        "passwd=x": False,
        "password2=x": True,
        "passwor=x": False,
        "secret=x": True,
        "PASSWORD=x": True,
        "vers=3,password=x": True,
        " pass=x": True,
        "secretfile=/etc/x": False,
        "credentials=/etc/x": False,
        "nopass=x": False,
    }.items(),
)
def test_secret(option: str, secret: bool) -> None:
    assert mounts_plan([gone(opts=["hard", option])], NOTHING)["secret"] is secret


# name: (what is declared, what was seen, what is refused)
REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    "nothing there": ([item()], seen(), []),
    "mounted and declared": ([item()], seen(live(), fstab()), []),
    "server away": (
        [item(probe=[NAS, OTHER])],
        seen(),
        [f"{PATH}: nas, nas2: no answer within 5 seconds; see that the server is up and reachable"],
    ),
    "one server of two there": ([item(probe=[NAS, OTHER])], seen(answers=[OTHER]), []),
    "same server by another port": (
        [item(probe=[NAS])],
        seen(answers=[{"host": "nas", "port": 111}]),
        [f"{PATH}: nas: no answer within 5 seconds; see that the server is up and reachable"],
    ),
    "server away of what goes": (
        [gone(probe=[NAS])],
        seen(live()),
        [
            f"{PATH}: nas: no answer within 5 seconds; see that the server is up and reachable, or unmount by hand "
            f"(umount --force --lazy {PATH})"
        ],
    ),
    "server away of what is not mounted and goes": ([gone(probe=[NAS])], seen(fstab()), []),
    "mounted from elsewhere": (
        [item()],
        seen(live(src="nas:/a")),
        [f"{PATH}: nas:/a is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "both from elsewhere": (
        [item()],
        seen(live(src="NAS:/a"), fstab(src="nas:/a")),
        [f"{PATH}: NAS:/a, nas:/a is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "mounted and declared from elsewhere": (
        [item()],
        seen(live(src="nas:/a"), fstab(src="nas:/a")),
        [f"{PATH}: nas:/a is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "first line of fstab from elsewhere": (
        [item()],
        seen(fstab(src="/dev/sdb1", fstype="ext4"), fstab()),
        [f"{PATH}: /dev/sdb1 is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "below what is mounted from elsewhere": (
        [item()],
        seen(live(src="/dev/sdb1", fstype="ext4"), live()),
        [f"{PATH}: /dev/sdb1 is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "with an alias": ([item(aliases=["gl1:vms"])], seen(live(src="gl1:/vms")), []),
    "slash at the end": ([item()], seen(live(src=f"{SRC}/")), []),
    "slash at the begin": ([item(src="gl1:vms")], seen(live(src="gl1:/vms")), []),
    "root of a server": ([item(src="nas:/")], seen(live(src="nas:/")), []),
    "source with a space": (
        [item(src="//nas/a b&c")],
        seen(live(src=r"//nas/a\040b\046c"), fstab(src=r"//nas/a\040b&c")),
        [],
    ),
    "source with a # of others": (
        [item()],
        seen(live(src=r"nas:/a\043")),
        [f"{PATH}: nas:/a# is mounted there or declared in fstab, not {SRC}{TAKEN}"],
    ),
    "going by its path": ([gone()], seen(live(), fstab()), []),
    "going by its type": ([gone(fstype="nfs")], seen(live(), fstab()), []),
    "going by its type, CIFS": ([gone(fstype="cifs")], seen(live(fstype="smb3")), []),
    "going by its type, FUSE": ([gone(fstype="glusterfs")], seen(live(fstype="fuse.glusterfs")), []),
    "going, and of another type": (
        [gone(fstype="nfs")],
        seen(live(src="/dev/sdb1", fstype="ext4"), fstab(fstype="ext4")),
        [f"{PATH}: ext4 is mounted there or declared in fstab, not nfs{TAKEN}"],
    ),
    "parent is a link": (
        [item("/var/run/images"), item()],
        seen(led={"/var/run": "/run", "/srv": "/srv"}),
        ["/var/run/images: leads to /run/images; give that path"],
    ),
    "parent is a link to the root": (
        [item("/data/images")],
        seen(led={"/data": "/"}),
        ["/data/images: leads to /images; give that path"],
    ),
    "automount": (
        [item()],
        seen(live(src="systemd-1", fstype="autofs"), live()),
        [f"{PATH}: is mounted as soon as somebody looks at it (autofs); end that first, such as its unit .automount"],
    ),
    "unit": (
        [item()],
        seen(unit(f"{PATH}/"), unit("/srv/other")),
        [
            f"{PATH}: /etc/systemd/system/srv-images.mount is for that path; give another path, or take that unit away "
            "first"
        ],
    ),
    "other settings of a unit": ([item()], seen("/etc/systemd/system/a.mount:Description=What /srv/images is"), []),
    **{
        f"spelled {path} in fstab": (
            [item()],
            seen(fstab(path)),
            [f"{PATH}: fstab has it as {path}; write {PATH} there first"],
        )
        for path in (f"{PATH}/", "/srv//images", r"/srv/\151mages")
    },
    "line of fstab with a word too many": (
        [item()],
        seen(fstab(end=" 0 0 0")),
        [f"{PATH}: its line in fstab has 7 fields, not 4 to 6; mend it there first"],
    ),
    "line of fstab without options": (
        [item()],
        seen(f"/etc/fstab:{SRC} {PATH} nfs"),
        [f"{PATH}: its line in fstab has 3 fields, not 4 to 6; mend it there first"],
    ),
    "line of fstab with what it needs": ([item()], seen(fstab(end="")), []),
    "line of fstab with a comment": ([item()], seen(fstab(end=" 0 0 # of mine")), []),
    "comments": ([item()], seen("/etc/fstab:a# /srv/images is mine"), []),
    "file": ([item()], seen(found=[f"f {PATH}"]), [f"{PATH}: is not a directory; give another path"]),
    "link": ([item()], seen(found=[f"l {PATH}"]), [f"{PATH}: is not a directory; give another path"]),
    "file that goes": ([gone()], seen(fstab(), found=[f"f {PATH}"]), []),
    "empty": ([item()], seen(found=[f"d {PATH}", "f /srv/images2/a"]), []),
    "not empty": (
        [item()],
        seen(found=[f"d {PATH}", f"f {PATH}/a b", f"f {PATH}/c"]),
        [f"{PATH}: holds files, which the mount would hide; move them away ({PATH}/a b)"],
    ),
    "not empty, and goes": ([gone()], seen(fstab(), found=[f"d {PATH}", f"f {PATH}/a"]), []),
    "two mounts of one source that go": (
        [gone()],
        seen(live(), live()),
        [f"{PATH}: 2 mounts lie on one another there; unmount by hand until one is left (umount {PATH})"],
    ),
    "two mounts of one source that stay": ([item()], seen(live(), live(), fstab()), []),
    "a mount below one that goes": (
        [gone()],
        seen(live(), live(f"{PATH}/iso"), live("/srv/images2")),
        [f"{PATH}: {PATH}/iso is mounted below it; unmount that first"],
    ),
    "a mount below one that is mounted anew": (
        [item(restart=True, stale=True)],
        seen(live(), live(rf"{PATH}/a\040b"), fstab()),
        [f"{PATH}: {PATH}/a b is mounted below it; unmount that first"],
    ),
    "a mount below one that stays": ([item()], seen(live(), live(f"{PATH}/iso"), fstab()), []),
    "used, and goes": (
        [gone()],
        seen(live(), users=[LIBVIRT, POOL, POOL, GUEST]),
        [
            f"{PATH}: in use, see /etc/libvirt/storage/images.xml, /run/libvirt/storage/images.xml, "
            "/run/libvirt/qemu/web.xml; undefine these pools and guests, or have them elsewhere"
        ],
    ),
    "used by two whose names differ in case": (
        [gone()],
        seen(live(), users=[LIBVIRT, LIBVIRT.replace("images.xml", "Images.xml")]),
        [
            f"{PATH}: in use, see /etc/libvirt/storage/images.xml, /etc/libvirt/storage/Images.xml; undefine these "
            "pools and guests, or have them elsewhere"
        ],
    ),
    "used and empty, and goes": (
        [gone()],
        seen(found=[f"d {PATH}"], users=[LIBVIRT]),
        [
            f"{PATH}: in use, see /etc/libvirt/storage/images.xml; undefine these pools and guests, or have them "
            "elsewhere"
        ],
    ),
    "used, and mounted anew": (
        [item(restart=True, stale=True)],
        seen(live(), fstab(), users=[LIBVIRT, GUEST]),
        [f"{PATH}: in use, see /run/libvirt/qemu/web.xml; stop these pools and guests"],
    ),
    "used, and would be mounted anew if it had to": ([item(restart=True)], seen(live(), fstab(), users=[GUEST]), []),
    "defined, and mounted anew": ([item(restart=True, stale=True)], seen(live(), fstab(), users=[LIBVIRT]), []),
    "used, and stays": ([item(stale=True)], seen(live(), fstab(), users=[GUEST]), []),
    "another used": ([gone()], seen(live(), users=[LIBVIRT.replace("/srv/images", "/srv/images.d")]), []),
    "another used, of a like name": (
        [gone("/srv/a.b")],
        seen(live("/srv/a.b"), users=["/etc/a.xml:<path>/srv/axb<"]),
        [],
    ),
}


@pytest.mark.parametrize(("wanted", "results", "lines"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(wanted: list[dict[str, Any]], results: dict[str, Any], lines: list[str]) -> None:
    assert mounts_plan(wanted, results)["refused"] == lines


LOOK = ("bare", "parents", "users_of", "asked")
# name: (what is declared, what was seen, what of it is not empty)
LOOKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "mounted": ([item(probe=[NAS])], seen(live(), fstab()), {"asked": [NAS]}),
    "bare": (
        [item("/srv/a"), item("/srv/b"), gone("/mnt/c")],
        seen(),
        {"bare": ["/srv/a", "/srv/b", "/mnt/c"], "parents": ["/srv", "/mnt"]},
    ),
    "servers of several": (
        [
            item("/srv/a", probe=[NAS, OTHER]),
            item("/srv/b", probe=[dict(NAS)]),
            gone("/srv/c", probe=[{"host": "x", "port": 1}]),
        ],
        seen(live("/srv/a"), live("/srv/b")),
        {"asked": [NAS, OTHER], "bare": ["/srv/c"], "parents": ["/srv"]},
    ),
    "server of what goes": (
        [gone(probe=[NAS])],
        seen(live()),
        {"asked": [NAS], "users_of": f"(<path>|=')({PATH})[/<']"},
    ),
    "going": (
        [gone("/srv/a.b"), gone("/srv/c"), gone("/srv/d"), gone("/srv/e")],
        seen(live("/srv/a.b"), fstab("/srv/c"), found=["d /srv/d", "d /srv/e", "f /srv/e/f"]),
        {
            "users_of": "(<path>|=')(/srv/a[.]b|/srv/c|/srv/d)[/<']",
            "bare": ["/srv/c", "/srv/d", "/srv/e"],
            "parents": ["/srv"],
        },
    ),
    "may be mounted anew": ([item(restart=True)], seen(live(), fstab()), {"users_of": f"(<path>|=')({PATH})[/<']"}),
    "may not": ([item(restart="false")], seen(live(), fstab()), {}),
    "not mounted yet": ([item(restart=True)], seen(), {"bare": [PATH], "parents": ["/srv"]}),
}


@pytest.mark.parametrize(("wanted", "results", "parts"), LOOKS.values(), ids=LOOKS.keys())
def test_looks(wanted: list[dict[str, Any]], results: dict[str, Any], parts: dict[str, Any]) -> None:
    done = mounts_plan(wanted, results)
    assert {name: done[name] for name in LOOK if done[name]} == parts


def line(path: str = PATH, opts: str = OPTS, state: str = "mounted", **more: str) -> dict[str, str]:
    return {"path": path, "src": SRC, "fstype": "nfs", "opts": opts, "state": state, **more}


def with_opts(*opts: str) -> str:
    return ",".join([*COMMON, *opts, *BEFORE])


GONE = rf"^\s*[^#\s]\S*\s+{PATH}\s"
ANEW: dict[str, Any] = {"unmounted": [PATH], "made": [PATH], "guarded": [PATH], "declared": [line()]}
ACTS = ("unmounted", "removed", "undeclared", "made", "guarded", "declared", "waiting")
# name: (what is declared, what was seen, what of it is not empty)
PLANS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "nothing": ([], seen(), {}),
    "new": ([item()], seen(), {"made": [PATH], "guarded": [PATH], "declared": [line()]}),
    "new without a guard": ([item(guard="false")], seen(), {"made": [PATH], "declared": [line()]}),
    "as it should be": ([item()], seen(live(), fstab()), {}),
    "as it should be, and others": ([item()], seen(live(), fstab(), live("/srv"), fstab("/srv")), {}),
    "not in fstab": ([item()], seen(live()), {"declared": [line(state="present")]}),
    "not mounted": ([item()], seen(fstab()), {"made": [PATH], "guarded": [PATH], "declared": [line()]}),
    "source spelled otherwise": ([item()], seen(live(), fstab(src=f"{SRC}/")), {"declared": [line(state="present")]}),
    "type spelled otherwise": ([item()], seen(live(), fstab(fstype="nfs4")), {"declared": [line(state="present")]}),
    "two lines, of which the first differs": (
        [item()],
        seen(live(), fstab(opts="x-a"), fstab()),
        {"declared": [line(state="present")], "waiting": [PATH]},
    ),
    "source with a space": ([item(src="//nas/a b&c")], seen(live(), fstab(src=r"//nas/a\040b\046c")), {}),
    "options with what fstab escapes": (
        [item(opts=["hard", r"domain=R&D\x"])],
        seen(live(), fstab(opts=with_opts("hard", r"domain=R\046D\134x"))),
        {},
    ),
    "options for userspace only": (
        [item(opts=["hard", "x-systemd.after=a.service", "comment=b"])],
        seen(live(), fstab()),
        {"declared": [line(state="present", opts=with_opts("hard", "x-systemd.after=a.service", "comment=b"))]},
    ),
    "options for the kernel": (
        [item(opts=["hard", "rsize=4096"])],
        seen(live(), fstab()),
        {"declared": [line(state="present", opts=with_opts("hard", "rsize=4096"))], "waiting": [PATH]},
    ),
    "options in another order": (
        [item()],
        seen(live(), fstab(opts=",".join(reversed(OPTS.split(","))))),
        {"declared": [line(state="present")]},
    ),
    "of two options the later": (
        [
            item(
                opts=[
                    "hard",
                    "soft",
                    "nfsvers=3",
                    "vers=4.1",
                    "ro",
                    "rw",
                    "noatime",
                    "relatime",
                    "exec",
                    "dev",
                    "suid",
                    "softerr",
                ]
            )
        ],
        seen(),
        {
            "made": [PATH],
            "guarded": [PATH],
            "declared": [
                line(
                    opts="dev,suid,exec,_netdev,nofail,x-systemd.mount-timeout=60s,softerr,vers=4.1,rw,relatime,"
                    + ",".join(BEFORE)
                )
            ],
        },
    ),
    "several that systemd takes": (
        [
            item(
                opts=[
                    "hard",
                    "x-systemd.requires=a.service",
                    "x-systemd.requires=b.service",
                    "x-systemd.mount-timeout=5s",
                ]
            )
        ],
        seen(),
        {
            "made": [PATH],
            "guarded": [PATH],
            "declared": [
                line(
                    opts="nodev,nosuid,noexec,_netdev,nofail,x-systemd.mount-timeout=5s,hard,"
                    "x-systemd.requires=a.service,x-systemd.requires=b.service," + ",".join(BEFORE)
                )
            ],
        },
    ),
    "login is another": ([item(stale=True)], seen(live(), fstab()), {"waiting": [PATH]}),
    "login is another, not mounted": (
        [item(stale=True, restart=True)],
        seen(fstab()),
        {"made": [PATH], "guarded": [PATH], "declared": [line()]},
    ),
    "mounted anew": ([item(stale=True, restart=True)], seen(live(), fstab()), ANEW),
    "quoted words": ([item(stale="true", restart="false")], seen(live(), fstab()), {"waiting": [PATH]}),
    "asked to be mounted anew without need": ([item(restart=True)], seen(live(), fstab()), {}),
    "of two upon another the upper counts": (
        [item(shown=["hard"])],
        seen(live(opts="rw,soft"), live(), fstab()),
        {},
    ),
    "goes": (
        [gone()],
        seen(live(), fstab()),
        {"unmounted": [PATH], "removed": [PATH], "undeclared": [GONE]},
    ),
    "goes, mounted by hand": ([gone()], seen(live()), {"unmounted": [PATH], "removed": [PATH]}),
    "goes, in fstab only": ([gone()], seen(fstab()), {"undeclared": [GONE]}),
    "goes, with its mount point": (
        [gone()],
        seen(fstab(), found=[f"d {PATH}"]),
        {"removed": [PATH], "undeclared": [GONE]},
    ),
    "goes, with files in its mount point": (
        [gone()],
        seen(fstab(), found=[f"d {PATH}", f"f {PATH}/a"]),
        {"removed": [PATH], "undeclared": [GONE]},
    ),
    "goes, never mounted": ([gone()], seen(found=[f"d {PATH}"]), {"removed": [PATH]}),
    "gone, with files there": ([gone()], seen(found=[f"d {PATH}", f"f {PATH}/a"]), {}),
    "gone, with a file there": ([gone()], seen(fstab(), found=[f"f {PATH}"]), {"undeclared": [GONE]}),
    "gone": ([gone(restart=True, stale=True)], seen(live("/srv/other")), {}),
}


@pytest.mark.parametrize(("wanted", "results", "parts"), PLANS.values(), ids=PLANS.keys())
def test_plan(wanted: list[dict[str, Any]], results: dict[str, Any], parts: dict[str, Any]) -> None:
    done = mounts_plan(wanted, results)
    assert {name: done[name] for name in ACTS if done[name]} == parts


@pytest.mark.parametrize(
    ("row", "gone_by_it"),
    {
        f"{SRC} {PATH} nfs defaults": True,
        f"  {SRC}\t{PATH}\tnfs defaults 0 0 # mine": True,
        f"# {SRC} {PATH} nfs defaults 0 0": False,
        f"#{SRC} {PATH} nfs defaults 0 0": False,
        f"{SRC} {PATH}2 nfs defaults 0 0": False,
        f"{SRC} {PATH}/a nfs defaults 0 0": False,
        f"{PATH} /mnt none bind 0 0": False,
        "nas:/export /srv.images nfs defaults": False,
    }.items(),
)
def test_lines_that_go(row: str, gone_by_it: bool) -> None:
    (pattern,) = mounts_plan([gone()], seen(fstab()))["undeclared"]
    assert bool(re.search(pattern, row)) is gone_by_it


def test_dots_are_no_patterns() -> None:
    (pattern,) = mounts_plan([gone("/srv/a.b")], seen(fstab("/srv/a.b")))["undeclared"]
    assert not re.search(pattern, f"{SRC} /srv/axb nfs defaults 0 0")


@pytest.mark.parametrize(
    ("option", "shown", "in_force"),
    [
        ("hard", "rw,hard", True),
        ("hard", "rw,soft", False),
        ("softerr", "rw,soft", False),
        ("ro", "ro", True),
        ("rw", "ro", False),
        ("nfsvers=4.1", "vers=4.1", True),
        ("vers=4.1", "vers=4.2", False),
        ("vers=4", "vers=4.2", True),
        ("vers=4", "vers=40", False),
        ("vers=3", "vers=3.1.1", True),
        ("vers=default", "vers=3.1.1", True),
        ("sec=krb5:sys", "sec=sys", True),
        ("sec=krb5", "sec=sys", False),
        ("nodev", "rw,nodev", True),
        ("nodev", "rw", False),
        ("dev", "rw", True),
        ("dev", "rw,nodev", False),
        ("exec", "rw,noexec", False),
        ("suid", "rw,nosuid", False),
        ("noatime", "rw,relatime", False),
        ("relatime", "rw,relatime", True),
        ("strictatime", "rw", True),
        ("strictatime", "rw,noatime", False),
        ("file_mode=0660", "file_mode=0660", True),
        ("file_mode=660", "file_mode=0660", True),
        ("file_mode=0660", "file_mode=0770", False),
        ("dir_mode=0770", "file_mode=0770", False),
        ("seal", "rw,seal", True),
        ("seal", "rw", False),
    ],
)
def test_what_the_kernel_shows(option: str, shown: str, in_force: bool) -> None:
    names = ["hard", "ro", "vers", "sec", "nodev", "nosuid", "noexec", "noatime", "file_mode", "dir_mode", "seal"]
    row = ",".join([shown, *(name for name in names[4:7] if option not in (name, name[2:]))])
    wanted = [item(opts=[option], shown=names)]
    done = mounts_plan(wanted, seen(live(opts=row), fstab(opts=with_opts("hard"))))
    entry = ",".join(done["declared"][0]["opts"].split(",")) if done["declared"] else with_opts("hard")
    assert bool(mounts_plan(wanted, seen(live(opts=row), fstab(opts=entry)))["waiting"]) is not in_force


def test_only_what_is_to_be_shown() -> None:
    assert not mounts_plan([item(shown=["ro"])], seen(live(opts="ro,soft"), fstab()))["waiting"]


# The shares of NFS.


def nfs(path: str = PATH, **more: Any) -> dict[str, Any]:
    return {"path": path, "hosts": [{"name": "nas"}], "source_path": "/export", **more}


NO_SERVER = f"{PATH}: no server is named, or not by a name or an address; give hosts, such as [{{name: nas}}]"
NO_DIRECTORY = f"{PATH}: no directory of the server is named; give source_path, an absolute path"
FLAGS = ["nodev", "nosuid", "noexec", "noatime"]
NFS: dict[str, Any] = {
    "path": PATH,
    "src": "nas:/export",
    "fstype": "nfs",
    "opts": ["vers=4.2", "hard", "noatime"],
    "probe": [{"host": "nas", "port": 2049}],
    "shown": ["vers", "hard", "ro", *FLAGS, "sec"],
    "guard": True,
    "restart": False,
    "state": "present",
}
# name: (share, what is wrong with it, in what its mount differs from the usual)
NFS_SHARES: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "usual": (nfs(), [], {}),
    "address": (
        nfs(hosts=[{"name": "2001:db8::1"}]),
        [],
        {"src": "[2001:db8::1]:/export", "probe": [{"host": "2001:db8::1", "port": 2049}]},
    ),
    "port": (
        nfs(hosts=[{"name": "nas", "port": "2050"}, {"name": "other"}]),
        [],
        {"opts": ["vers=4.2", "hard", "noatime", "port=2050"], "probe": [{"host": "nas", "port": 2050}]},
    ),
    "port not given": (nfs(hosts=[{"name": "nas", "port": None}]), [], {}),
    "version and options": (nfs(version=4.1, options=["ro"]), [], {"opts": ["vers=4.1", "hard", "noatime", "ro"]}),
    "words": (nfs(guard="no", restart="yes"), [], {"guard": False, "restart": True}),
    "quoted words": (nfs(guard="true", restart="false"), [], {}),
    "words not given": (nfs(guard=None, restart=None, state=None, options=None), [], {}),
    "no server": (nfs(hosts=[]), [NO_SERVER], {"src": "", "probe": []}),
    **{
        f"server {name!r}": (
            nfs(hosts=[{"name": name}]),
            [NO_SERVER],
            {"src": f"{name}:/export", "probe": [{"host": name, "port": 2049}]},
        )
        for name in ("-nas", "nas/x", "nas\n", "a b")
    },
    "no directory": (nfs(source_path=None), [NO_DIRECTORY], {"src": ""}),
    "no whole directory": (nfs(source_path="export"), [NO_DIRECTORY], {"src": "nas:export"}),
    "letters of others": (nfs(source_path="/😀"), [], {"src": "nas:/😀"}),
    "absent": (
        {"path": PATH, "state": "absent"},
        [],
        {"src": "", "probe": [], "state": "absent"},
    ),
}


@pytest.mark.parametrize(("share", "lines", "differing"), NFS_SHARES.values(), ids=NFS_SHARES.keys())
def test_nfs(share: dict[str, Any], lines: list[str], differing: dict[str, Any]) -> None:
    assert nfs_mounts([share]) == {"wrong": lines, "mounts": [{**NFS, **differing}]}


# The shares of CIFS.

QEMU = {"owner": "libvirt-qemu", "group": "kvm"}
AUTH = {"username": "vm", "password": "s3cr3t"}
LOGIN = "username=vm\npassword=s3cr3t\n"
FILE = "/etc/cifs-credentials/srv+images"
OWNED = ["uid=libvirt-qemu", "forceuid", "gid=kvm", "forcegid", "file_mode=0660", "dir_mode=0770"]
CIFS: dict[str, Any] = {
    **NFS,
    "src": "//nas/images",
    "fstype": "cifs",
    "opts": ["vers=3.1.1", "hard", "noatime", *OWNED, "guest"],
    "probe": [{"host": "nas", "port": 445}],
    "shown": ["vers", "hard", "ro", *FLAGS, "seal", "file_mode", "dir_mode"],
    "stale": False,
}
SHARED = CIFS["opts"][:9]


def cifs(path: str = PATH, **more: Any) -> dict[str, Any]:
    return {"path": path, "hosts": [{"name": "nas"}], "share": "images", **more}


def owned(*opts: str, **more: str) -> list[str]:
    """The options with others of the file."""
    return [
        f"{one.partition('=')[0]}={more.get(one.partition('=')[0], one.partition('=')[2])}" if "=" in one else one
        for one in SHARED
    ] + list(opts)


NO_CIFS_SERVER = f"{PATH}: no server is named, or not by a name or an IPv4 address; give hosts, such as [{{name: nas}}]"
NO_SHARE = f"{PATH}: no share is named; give share, without the server and without backslashes"
NO_MODE = f'{PATH}: the mode of files is not octal; give permissions such as {{mode: "0660"}}'
NO_LOGIN = f"{PATH}: the login holds a new line, or has an empty user or password; give auth as username and password"
# name: (share, what is wrong with it, in what its mount differs from the usual)
CIFS_SHARES: dict[str, tuple[dict[str, Any], list[str], dict[str, Any]]] = {
    "usual": (cifs(), [], {}),
    "directory in a share": (cifs(share="images/a b"), [], {"src": "//nas/images/a b"}),
    "login": (cifs(auth=AUTH), [], {"opts": [*SHARED, f"credentials={FILE}"], "stale": True}),
    "login of an option": (cifs(options=["cred=/x"]), [], {"opts": [*SHARED, "cred=/x"]}),
    "login of an option, in full": (cifs(options=["credentials=/x"]), [], {"opts": [*SHARED, "credentials=/x"]}),
    "login by Kerberos": (cifs(options=["sec=krb5"]), [], {"opts": [*SHARED, "sec=krb5"]}),
    "sealed, on a port": (
        cifs(seal="yes", hosts=[{"name": "nas", "port": 446}]),
        [],
        {"opts": [*CIFS["opts"], "seal", "port=446"], "probe": [{"host": "nas", "port": 446}]},
    ),
    "not sealed": (cifs(seal="false"), [], {}),
    "version": (cifs(version="3.0"), [], {"opts": ["vers=3.0", *CIFS["opts"][1:]]}),
    "of others": (
        cifs(permissions={"owner": 107, "group": "domain users", "mode": "640"}),
        [],
        {"opts": owned("guest", uid="107", gid="domain users", file_mode="0640", dir_mode="0750")},
    ),
    "for reading and for writing": (
        cifs(permissions={"mode": "0426"}),
        [],
        {"opts": owned("guest", file_mode="0426", dir_mode="0537")},
    ),
    "words": (cifs(guard="false", restart="true"), [], {"guard": False, "restart": True}),
    "no server": (cifs(hosts=None), [NO_CIFS_SERVER], {"src": "", "probe": []}),
    "IPv6": (
        cifs(hosts=[{"name": "::1"}]),
        [NO_CIFS_SERVER],
        {"src": "//::1/images", "probe": [{"host": "::1", "port": 445}]},
    ),
    "no share": (cifs(share=None), [NO_SHARE], {"src": ""}),
    **{
        f"share {name!r}": (cifs(share=name), [NO_SHARE], {"src": f"//nas/{name}"})
        for name in ("/images", "images/", "a\\b", "a//b")
    },
    **{
        f"mode {mode!r}": (
            cifs(permissions={"mode": mode}),
            [NO_MODE],
            {"opts": owned("guest", file_mode=f"0{str(mode)[-3:]}", dir_mode=f"0{directory}")},
        )
        for mode, directory in {
            "1660": "770",
            "689": "789",
            "66": "77",
            432: "533",
            660: "770",
            "660\n": "70\n",
        }.items()
    },
    **{
        f"login with {word}": (
            cifs(auth=auth),
            [NO_LOGIN],
            {"opts": [*SHARED, f"credentials={FILE}"], "stale": True},
        )
        for word, auth in {
            "no user": {**AUTH, "username": ""},
            "no password": {"username": "vm"},
            "two lines": {**AUTH, "password": "a\nb"},
            "a domain of two lines": {**AUTH, "domain": "a\nb"},
            "the end of a line": {**AUTH, "password": "a\n"},
            "a carriage return": {**AUTH, "password": "a\r"},
            "a NUL": {**AUTH, "password": "a\0b"},
        }.items()
    },
    "absent": (
        {"path": PATH, "state": "absent", "auth": AUTH},
        [],
        {"src": "", "probe": [], "state": "absent"},
    ),
}


@pytest.mark.parametrize(("share", "lines", "differing"), CIFS_SHARES.values(), ids=CIFS_SHARES.keys())
def test_cifs(share: dict[str, Any], lines: list[str], differing: dict[str, Any]) -> None:
    done = cifs_mounts([share], QEMU, {})
    assert (done["wrong"], done["mounts"]) == (lines, [{**CIFS, **differing}])
    assert AUTH["password"] not in str(done)


def stat(path: str = PATH, **more: Any) -> dict[str, Any]:
    return {"item": path, "stat": {"exists": True, "mode": "0600", "uid": 0, **more}}


A, B = "/srv/a", "/srv/b"
FILES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]] = {
    "none": ([cifs()], [], {"files": {PATH: FILE}}),
    "new": ([cifs(auth=AUTH)], [{"item": PATH, "stat": {"exists": False}}], {"logins": [PATH], "written": [PATH]}),
    "there": ([cifs(auth=AUTH)], [stat(checksum="RIGHT")], {"logins": [PATH]}),
    **{
        f"there with another {key}": (
            [cifs(auth=AUTH)],
            [stat(**{"checksum": "RIGHT", key: value})],
            {"logins": [PATH], "written": [PATH]},
        )
        for key, value in {"checksum": "0", "mode": "0644", "uid": 1}.items()
    },
    "of what goes": ([{"path": PATH, "state": "absent", "auth": AUTH}], [stat()], {"forgotten": [PATH]}),
    "gone": ([{"path": PATH, "state": "absent"}], [{"item": PATH, "stat": {"exists": False}}], {}),
    "not needed any more": ([cifs()], [stat()], {"forgotten": [PATH]}),
    "named in the options": ([cifs(options=[f"credentials={FILE}"])], [stat()], {}),
    "not looked at": ([cifs()], [{"item": PATH, "skipped": True}], {}),
    "of several": (
        [cifs(A, auth=AUTH), cifs(B, auth=AUTH), cifs(PATH)],
        [stat(A), stat(B, checksum="RIGHT"), stat()],
        {
            "files": {A: "/etc/cifs-credentials/srv+a", B: "/etc/cifs-credentials/srv+b", PATH: FILE},
            "logins": [A, B],
            "written": [A],
            "forgotten": [PATH],
        },
    ),
}


@pytest.mark.parametrize(("shares", "stats", "parts"), FILES.values(), ids=FILES.keys())
def test_files_of_logins(shares: list[dict[str, Any]], stats: list[dict[str, Any]], parts: dict[str, Any]) -> None:
    right = "c58f91d78e2bf4602ed2dbc843c65bb888652fb4"
    for one in stats:
        if one.get("stat", {}).get("checksum") == "RIGHT":
            one["stat"]["checksum"] = right
    done = cifs_mounts(shares, QEMU, {"results": stats})
    usual: dict[str, Any] = {"files": {PATH: FILE}, "logins": [], "written": [], "forgotten": []}
    assert {name: done[name] for name in usual} == {**usual, **parts}
    stale = [one["path"] for one in done["mounts"] if one["stale"]]
    content = [path for path in done["logins"] if right not in str([one for one in stats if one["item"] == path])]
    assert stale == content


@pytest.mark.parametrize(
    ("rights", "arguments"),
    {
        "none": ([None, {}], ["-user", "libvirt-qemu", "-o", "-group", "kvm"]),
        "some": (
            [{"owner": "Bob"}, {"owner": "bob", "group": "domain users"}, {"owner": "Bob"}],
            ["-user", "Bob", "-o", "-user", "bob", "-o", "-group", "kvm", "-o", "-group", "domain users"],
        ),
    }.values(),
    ids=["none", "some"],
)
def test_owners(rights: list[Any], arguments: list[str]) -> None:
    shares = [cifs(f"/srv/{number}", permissions=one) for number, one in enumerate(rights)]
    assert cifs_mounts([*shares, {"path": "/x", "state": "absent"}], QEMU, {})["owners"] == arguments


def test_owners_of_nothing() -> None:
    assert cifs_mounts([{"path": "/x", "state": "absent"}], QEMU, {})["owners"] == []


def test_logins() -> None:
    shares = [
        cifs(A, auth={**AUTH, "domain": "EXAMPLE"}),
        cifs(B, auth={"username": "vm", "password": "päss {{ x }} 😀 \x7f", "domain": ""}),
        cifs(auth=None),
        {"path": "/srv/c", "state": "absent", "auth": AUTH},
    ]
    assert cifs_logins(shares) == {
        A: "username=vm\npassword=s3cr3t\ndomain=EXAMPLE\n",
        B: "username=vm\npassword=päss {{ x }} 😀 \x7f\n",
    }


# Errors.


@pytest.mark.parametrize(
    "work",
    {
        "a word": lambda: cifs_logins("s3cr3t"),
        "words": lambda: cifs_logins(["s3cr3t"]),
        "login": lambda: cifs_logins([cifs(auth="s3cr3t")]),
        "mounts": lambda: cifs_mounts([cifs(auth=["s3cr3t"])], QEMU, {}),
        "words in a mount": lambda: cifs_mounts([cifs(auth=AUTH, seal="s3cr3t")], QEMU, {}),
    }.values(),
)
def test_no_secret_in_an_error(work: Any) -> None:
    with pytest.raises(AnsibleFilterError) as told:
        work()
    assert "s3cr3t" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__context__ is None


def test_names() -> None:
    """Jinja takes plan.keys for the method."""
    assert not set([*mounts_plan([], NOTHING), *cifs_mounts([], QEMU, {}), *nfs_mounts([])]) & set(dir({}))


def test_what_can_not_be_read() -> None:
    with pytest.raises(
        AnsibleFilterError, match="mounts_plan: a dictionary of what was seen is needed, with seen, found"
    ):
        mounts_plan([], {"seen": {}})
    with pytest.raises(AnsibleFilterError, match="nfs_mounts: a list of mounts is needed, each a dictionary"):
        nfs_mounts({"path": PATH})
    with pytest.raises(AnsibleFilterError, match=r"mounts_plan: a value is not what .* says \(TypeError\)"):
        mounts_plan([item(guard="perhaps")], NOTHING)
