# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_security refuses and does, from what was seen on a host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_security import security_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import labels

VMS, ISO = "/srv/vms", "/srv/vms/iso"
IMAGE, CONTENT = "virt_image_t", "virt_content_t"
ROOTS = {"/": "root_t", "/srv": "var_t"}
NO_PATH = "is no plain absolute path of letters, digits and _.+@%=:,- ; choose another"


def declared(*directories: dict[str, Any], check: bool = False, **booleans: Any) -> dict[str, Any]:
    return {"directories": list(directories), "booleans": booleans, "check_mode": check}


def to_be(path: str = VMS, **more: Any) -> dict[str, Any]:
    return {"path": path, **more}


def gone(path: str = VMS, **more: Any) -> dict[str, Any]:
    return {"path": path, "state": "absent", **more}


def seen(
    there: dict[str, str] | None = None,
    files: Iterable[str] = (),
    real: Iterable[str] = (),
    policy: dict[str, str] | None = None,
    rules: Iterable[str] = (),
    kernel: Iterable[str] = (labels.SELINUX, labels.APPARMOR),
    full: Iterable[str] = (),
    users: Iterable[str] = (),
) -> dict[str, Any]:
    """What was registered; there has directories and their types, policy the types of paths."""
    known = {**ROOTS, **(there or {})}
    stat = [f"{path}\tregular file\t?" for path in (*kernel, *files)]
    stat += [f"{path}\tdirectory\tsystem_u:object_r:{label}:s0" for path, label in known.items()]
    contexts = {
        path: f"system_u:object_r:{label}:s0" if label else "<<none>>" for path, label in (policy or {}).items()
    }
    return {
        "canonical": {"stdout_lines": ["/", *real]},
        "stat": {"stdout_lines": stat},
        "full": {"stdout_lines": list(full)},
        "users": {"stdout_lines": list(users)},
        "policy": {"stdout_lines": [f"{path}\t{context}" for path, context in contexts.items()]},
        "rules": {"stdout_lines": list(rules)},
    }


EMPTY: dict[str, Any] = {name: {} for name in labels.SEEN}

PROBLEMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": (declared(), []),
    "all there is to say": (
        declared(
            to_be(selinux_type=CONTENT, disk_volumes=True, permissions={"mode": "0711"}, state="present"),
            to_be("/mnt/a+b/c.d@e%f=g:h,i-j", filesystem="nfs"),
            gone("/vms", delete_data=True),
            virt_use_nfs=True,
            virt_use_samba=False,
            virt_x="off",
        ),
        [],
    ),
    "what is not given": (declared(to_be(selinux_type=None, filesystem=None, disk_volumes=None, delete_data=None)), []),
    **{
        f"path {path!r}": (declared(to_be(path)), [f"{path}: {NO_PATH}"])
        for path in (
            "srv",
            "/srv/",
            "/",
            "//srv",
            "/srv/a b",
            "/srv/ä",
            "/srv/vms\n",
            "/srv/a*",
            "/srv/(a)",
            '/a"b',
            "",
        )
    },
    "path that goes": (declared(gone("/srv/vms\n")), [f"/srv/vms\n: {NO_PATH}"]),
    **{
        f"type {name!r}": (
            declared(to_be(selinux_type=name)),
            [f"{name}: is no type of SELinux; virt_image_t and virt_content_t are"],
        )
        for name in ("Virt_t", "virt t", "virt_image_t\n", "a:b")
    },
    "type of what goes": (declared(gone(selinux_type="-")), []),
    "type on a server": (declared(to_be(selinux_type="-", filesystem="nfs")), []),
    "state": (declared(to_be(state="absend")), [f"{VMS}: absend is no state; give present or absent"]),
    "file system": (
        declared(to_be(filesystem="ceph")),
        [f"{VMS}: ceph is no file system that guests have disks on; give local, nfs, cifs, glusterfs, fuse"],
    ),
    **{
        f"boolean that is {value!r}": (
            declared(to_be(filesystem="nfs"), virt_use_nfs=value),
            ["virt_use_nfs: is false in host_security_booleans, and a directory needs it; take it out"],
        )
        for value in (False, "false", "no", 0)
    },
    "boolean of what goes": (declared(gone(filesystem="nfs"), virt_use_nfs=False), []),
    "boolean that is none": (
        declared(virt_x="perhaps"),
        ["virt_x: is neither true nor false in host_security_booleans; give one of them"],
    ),
    "removal of what stays": (
        declared(to_be(delete_data=True)),
        [f"{VMS}: delete_data is for what is absent; take it out, or add state: absent"],
    ),
    "no removal": (declared(to_be(delete_data="false")), []),
    "twice": (declared(to_be(), gone()), ["host_security_directories: a path is given twice; give it once"]),
    "not twice": (declared(to_be("/srv/VMs"), to_be()), []),
}


@pytest.mark.parametrize(("wanted", "lines"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_problems(wanted: dict[str, Any], lines: list[str]) -> None:
    assert security_plan(wanted, EMPTY)["problems"] == lines


SYSTEM = "belongs to the system; choose a directory elsewhere, such as one in /srv"
OBSTACLES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "new": (declared(to_be()), seen(real=[VMS]), []),
    "there": (declared(to_be()), seen({VMS: IMAGE}, real=[VMS]), []),
    "link": (declared(to_be()), seen(real=["/data/vms"]), [f"{VMS}: leads to /data/vms; give that path"]),
    "two links that lead to each other's names": (
        declared(to_be("/srv/a"), to_be("/srv/b")),
        seen(real=["/srv/b", "/srv/b"]),
        ["/srv/a: leads to /srv/b; give that path"],
    ),
    "by dots": (
        declared(to_be("/home/../etc/ssh")),
        seen({"/home/../etc": "etc_t"}, real=["/etc/ssh"]),
        ["/home/../etc/ssh: leads to /etc/ssh; give that path", f"/etc/ssh: {SYSTEM}"],
    ),
    **{
        path: (declared(gone(path)), seen(real=[path]), [f"{path}: {SYSTEM}"])
        for path in (
            "/etc",
            "/usr/lib/x",
            "/var/log",
            "/var/tmp/a",
            "/dev/shm",
            "/lib64",
            "/root",
            "/proc/1",
            "/run",
            "/tmp",
        )
    },
    **{
        path: (declared(gone(path)), seen(real=[path]), [])
        for path in ("/etcetera", "/var/lib/libvirt/images", "/var/www", "/home/u/vms", "/usrlocal", "/var/logs")
    },
    **{
        f"wide {path}": (
            declared(gone(path)),
            seen(real=[path]),
            [f"{path}: holds more than images; choose a directory in it"],
        )
        for path in (
            "/srv",
            "/home",
            "/home/u",
            "/var/lib",
            "/var/lib/libvirt",
            "/opt",
            "/mnt",
            "/media",
            "/var",
            "/var/opt",
        )
    },
    "root by a link": (
        declared(gone("/srv/r")),
        seen(real=["/"]),
        ["/srv/r: leads to /; give that path", "/: holds more than images; choose a directory in it"],
    ),
    "file": (
        declared(to_be()),
        seen(files=[VMS], real=[VMS]),
        [f"{VMS}: is there, and no directory; choose another path"],
    ),
    "in a file": (
        declared(to_be("/srv/a/b")),
        seen(files=["/srv/a"], real=["/srv/a/b"]),
        ["/srv/a: is there, and no directory; choose another path"],
    ),
    "in nothing": (
        declared(to_be("/data/a/b"), to_be("/data/a/c")),
        seen(real=["/data/a/b", "/data/a/c"]),
        ["/data/a: no such directory; make it first, or give it before what is in it"],
    ),
    "in what is made": (declared(to_be("/data"), to_be("/data/a")), seen(real=["/data", "/data/a"]), []),
    "in what goes": (
        declared(gone("/data"), to_be("/data/a")),
        seen(real=["/data", "/data/a"]),
        ["/data: no such directory; make it first, or give it before what is in it"],
    ),
    "going in nothing": (declared(gone("/data/a")), seen(real=["/data/a"]), []),
    "labelled for a purpose": (
        declared(to_be()),
        seen({VMS: "mysqld_db_t"}, real=[VMS]),
        [f"{VMS}: is labelled mysqld_db_t, and so has a purpose of its own; choose another directory"],
    ),
    "labelled for a purpose, without SELinux": (
        declared(to_be()),
        seen({VMS: "mysqld_db_t"}, real=[VMS], kernel=[]),
        [],
    ),
    "labelled for that purpose": (
        declared(to_be(selinux_type="mysqld_db_t")),
        seen({VMS: "mysqld_db_t"}, real=[VMS]),
        [],
    ),
    "labelled for a purpose, and goes": (declared(gone()), seen({VMS: "mysqld_db_t"}, real=[VMS]), []),
    "labelled, on a server": (
        declared(to_be(filesystem="nfs")),
        seen({VMS: "mysqld_db_t"}, files=[f"{labels.SELINUX_BOOLEANS}virt_use_nfs"], real=[VMS]),
        [],
    ),
    **{
        f"labelled {label}": (declared(to_be()), seen({VMS: label}, real=[VMS]), [])
        for label in (
            "default_t",
            "file_t",
            "unlabeled_t",
            "mnt_t",
            "usr_t",
            "var_t",
            "var_lib_t",
            "home_root_t",
            "user_home_t",
            "root_t",
            "nfs_t",
            "cifs_t",
            "fusefs_t",
            "svirt_image_t",
            CONTENT,
        )
    },
    "boolean that the policy does not have": (
        declared(to_be(filesystem="cifs"), virt_x=True),
        seen(real=[VMS], files=[f"{labels.SELINUX_BOOLEANS}virt_use_nfs"]),
        [
            "virt_x: the policy of this host has no such boolean; take it out",
            "virt_use_samba: the policy of this host has no such boolean; take it out",
        ],
    ),
    "boolean without SELinux": (declared(virt_x=True), seen(kernel=[]), []),
    "full": (
        declared(gone(delete_data=True)),
        seen({VMS: IMAGE}, real=[VMS], full=[VMS]),
        [f"{VMS}: is not empty, and would be removed; empty it, or take delete_data out"],
    ),
    "open": (
        declared(gone()),
        seen({VMS: IMAGE}, real=[VMS], users=[f"{VMS}/A", f"{VMS}/a", f"{VMS}/a"]),
        [f"{VMS}/{name} is open, and would be labelled anew; stop who uses it" for name in ("A", "a")],
    ),
    "open without SELinux": (declared(gone()), seen(real=[VMS], users=[f"{VMS}/a"], kernel=[]), []),
}


@pytest.mark.parametrize(("wanted", "results", "lines"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_obstacles(wanted: dict[str, Any], results: dict[str, Any], lines: list[str]) -> None:
    assert security_plan(wanted, results)["obstacles"] == lines


def context(path: str = VMS, label: str = IMAGE) -> dict[str, str]:
    return {"target": f"{path}(/.*)?", "setype": label}


def policy(*paths: str, label: str = IMAGE) -> dict[str, str]:
    return {f"{path}{name}": label for path in paths for name in ("", "/volume")}


NESTED = (to_be(ISO, selinux_type=CONTENT), to_be())
LABELS = ("local", "contexts", "contexts_gone", "untyped", "labelled", "returned")
# name: (what is declared, what was seen, what of it is not empty)
PLANS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "new": (declared(to_be()), seen(), {"local": [VMS], "contexts": [context()], "labelled": [VMS]}),
    "new, in check mode": (declared(to_be(), check=True), seen(), {"local": [VMS], "contexts": [context()]}),
    "done": (
        declared(to_be(), check=True),
        seen({VMS: IMAGE}, policy=policy(VMS)),
        {"local": [VMS], "labelled": [VMS]},
    ),
    "labelled otherwise": (
        declared(to_be()),
        seen({VMS: "var_t"}, policy=policy(VMS)),
        {"local": [VMS], "untyped": [VMS], "labelled": [VMS]},
    ),
    "without labels": (
        declared(to_be()),
        {**seen(policy=policy(VMS)), "stat": {"stdout_lines": [f"{VMS}\tdirectory\t?"]}},
        {"local": [VMS], "untyped": [VMS], "labelled": [VMS]},
    ),
    "policy for the directory only": (
        declared(to_be()),
        seen({VMS: IMAGE}, policy={VMS: IMAGE, f"{VMS}/volume": "var_t"}),
        {"local": [VMS], "contexts": [context()], "labelled": [VMS]},
    ),
    "policy for files only": (
        declared(to_be()),
        seen({VMS: IMAGE}, policy={VMS: "var_t", f"{VMS}/volume": IMAGE}),
        {"local": [VMS], "contexts": [context()], "labelled": [VMS]},
    ),
    "no policy": (
        declared(to_be()),
        seen({VMS: IMAGE}, policy={VMS: "", f"{VMS}/volume": ""}),
        {"local": [VMS], "contexts": [context()], "labelled": [VMS]},
    ),
    "characters that mean something": (
        declared(to_be("/srv/a.b+c")),
        seen(),
        {"local": ["/srv/a.b+c"], "contexts": [context(r"/srv/a\.b\+c")], "labelled": ["/srv/a.b+c"]},
    ),
    "one in another, new": (
        declared(*NESTED),
        seen(),
        {
            "local": [ISO, VMS],
            "contexts": [context(), context(ISO, CONTENT)],
            "contexts_gone": [context(ISO, CONTENT)],
            "labelled": [ISO, VMS],
        },
    ),
    "one in another, and the outer is new": (
        declared(*NESTED),
        seen({ISO: CONTENT}, policy={**policy(VMS, label="var_t"), **policy(ISO, label=CONTENT)}),
        {
            "local": [ISO, VMS],
            "contexts": [context(), context(ISO, CONTENT)],
            "contexts_gone": [context(ISO, CONTENT)],
            "labelled": [ISO, VMS],
        },
    ),
    "one in another, which shadows it": (
        declared(*NESTED),
        seen({VMS: IMAGE, ISO: CONTENT}, policy=policy(VMS, ISO)),
        {
            "local": [ISO, VMS],
            "contexts": [context(ISO, CONTENT)],
            "contexts_gone": [context(ISO, CONTENT)],
            "labelled": [ISO, VMS],
        },
    ),
    "one in another, done": (
        declared(*NESTED),
        seen({VMS: IMAGE, ISO: CONTENT}, policy={**policy(VMS), **policy(ISO, label=CONTENT)}),
        {"local": [ISO, VMS], "labelled": [ISO, VMS]},
    ),
    "one in another of its type": (
        declared(to_be(ISO), to_be()),
        seen(),
        {"local": [ISO, VMS], "contexts": [context(), context(ISO)], "labelled": [ISO, VMS]},
    ),
    "one beside another of a like name": (
        declared(to_be("/srv/vms2", selinux_type=CONTENT), to_be()),
        seen(),
        {
            "local": ["/srv/vms2", VMS],
            "contexts": [context("/srv/vms2", CONTENT), context()],
            "labelled": ["/srv/vms2", VMS],
        },
    ),
    "on a server": (declared(to_be(filesystem="nfs")), seen({VMS: "nfs_t"}), {}),
    "goes": (declared(gone()), seen({VMS: IMAGE}), {"contexts_gone": [context()], "returned": [VMS]}),
    "goes, of a type": (declared(gone(selinux_type=CONTENT)), seen(), {"contexts_gone": [context(VMS, CONTENT)]}),
    "goes, on a server": (
        declared(gone(filesystem="nfs")),
        seen({VMS: "nfs_t"}),
        {"contexts_gone": [context()]},
    ),
}


@pytest.mark.parametrize(("wanted", "results", "parts"), PLANS.values(), ids=PLANS.keys())
def test_labels(wanted: dict[str, Any], results: dict[str, Any], parts: dict[str, Any]) -> None:
    done = security_plan(wanted, results)
    assert {name: done[name] for name in LABELS if done[name]} == parts


@pytest.mark.parametrize(
    ("path", "covered"),
    {"/srv/a.b": True, "/srv/a.b/c": True, "/srv/axb": False, "/srv/a.bc": False}.items(),
)
def test_what_a_context_is_for(path: str, covered: bool) -> None:
    (one,) = security_plan(declared(to_be("/srv/a.b")), seen())["contexts"]
    assert bool(re.fullmatch(one["target"], path)) is covered


@pytest.mark.parametrize(
    ("wanted", "there", "directories"),
    [
        (to_be(), {}, [{"path": VMS, "mode": "0711"}]),
        (to_be(), {VMS: IMAGE}, []),
        (to_be(permissions={}), {VMS: IMAGE}, []),
        (to_be(permissions={"owner": "a"}), {}, [{"path": VMS, "mode": "0711", "owner": "a"}]),
        (to_be(permissions={"mode": "0750"}), {}, [{"path": VMS, "mode": "0750"}]),
        (
            to_be(permissions={"mode": None, "owner": "a", "group": "b"}),
            {VMS: IMAGE},
            [{"path": VMS, "owner": "a", "group": "b"}],
        ),
        (gone(permissions={"owner": "a"}), {}, []),
    ],
)
def test_directories(wanted: dict[str, Any], there: dict[str, str], directories: list[dict[str, Any]]) -> None:
    assert security_plan(declared(wanted), seen(there))["made"] == directories


def test_booleans() -> None:
    wanted = declared(
        to_be("/a", filesystem="nfs"),
        to_be("/b", filesystem="cifs"),
        to_be("/c", filesystem="fuse"),
        to_be("/d", filesystem="glusterfs"),
        virt_x="no",
        virt_use_nfs=True,
    )
    done = security_plan(wanted, seen())
    assert done["booleans"] == {
        "virt_x": False,
        "virt_use_nfs": True,
        "virt_use_fusefs": True,
        "virt_use_samba": True,
    }
    assert done["looked_at"] == [
        labels.SELINUX,
        labels.APPARMOR,
        *(
            f"{labels.SELINUX_BOOLEANS}{name}"
            for name in ("virt_x", "virt_use_nfs", "virt_use_fusefs", "virt_use_samba")
        ),
        *("/a", "/b", "/c", "/d"),
        "/",
    ]


@pytest.mark.parametrize("name", labels.BOOLEANS)
def test_boolean_of_a_file_system(name: str) -> None:
    assert security_plan(declared(to_be(filesystem=name)), seen())["booleans"] == {labels.BOOLEANS[name]: True}
    assert security_plan(declared(gone(filesystem=name)), seen())["booleans"] == {}


def test_what_has_to_be_known() -> None:
    done = security_plan(declared(to_be(), to_be("/srv/b"), gone("/vms/c")), seen())
    assert done["looked_at"] == [labels.SELINUX, labels.APPARMOR, VMS, "/srv/b", "/vms/c", "/srv"]
    assert done["paths"] == [VMS, "/srv/b", "/vms/c"]
    assert done["links"] == ["-lname", "/vms/c/*", "-o"]


@pytest.mark.parametrize(
    ("wanted", "there", "paths"),
    [
        (gone(delete_data=True), {VMS: IMAGE}, [VMS]),
        (gone(delete_data=True), {}, []),
        (gone(delete_data="false"), {VMS: IMAGE}, []),
        (gone(), {VMS: IMAGE}, []),
    ],
)
def test_removed(wanted: dict[str, Any], there: dict[str, str], paths: list[str]) -> None:
    assert security_plan(declared(wanted), seen(there))["removed"] == paths


@pytest.mark.parametrize(
    ("kernel", "found"),
    [([], (False, False)), ([labels.SELINUX], (True, False)), ([labels.APPARMOR], (False, True))],
)
def test_what_confines(kernel: list[str], found: tuple[bool, bool]) -> None:
    done = security_plan(declared(), seen(kernel=kernel))
    assert (done["selinux"], done["apparmor"]) == found


# The rules of AppArmor.


def rule(right: str, path: str = "/vms") -> str:
    return f'"{path}/{{,**}}" {right},'


def put(right: str, path: str = "/vms") -> dict[str, str]:
    return {"line": rule(right, path), "state": "present"}


def taken(right: str, path: str = "/vms") -> dict[str, str]:
    return {"line": rule(right, path), "state": "absent"}


HELPER, GUEST = f"{labels.HELPER_RULES}:", f"{labels.GUEST_RULES}:"
# name: (directories, rules that are there, changes for the helper, changes for guests)
RULES: dict[str, tuple[list[dict[str, Any]], list[str], list[dict[str, str]], list[dict[str, str]]]] = {
    "none": ([], [], [], []),
    "new": ([to_be("/vms")], [], [put("r")], []),
    "done": ([to_be("/vms")], [f"{HELPER}  {rule('r')} "], [], []),
    "in the other file": ([to_be("/vms")], [f"{GUEST}{rule('r')}"], [put("r")], []),
    "goes": ([gone("/vms")], [f"{HELPER}{rule('r')}"], [taken("r")], []),
    "gone": ([gone("/vms")], [], [], []),
    "of others": ([to_be("/vms")], [f"{HELPER}{rule('r')}", f"{HELPER}{rule('r', '/other')}"], [], []),
    **{
        f"known {path}": ([to_be(path)], [], [], [])
        for path in ("/srv/a", "/srv", "/mnt/a", "/media/a", "/opt/a/b", "/home/u/a", "/var/lib/libvirt/images/a")
    },
    **{
        f"not known {path}": ([to_be(path)], [], [put("r", path)], [])
        for path in ("/srvs/a", "/home", "/var/lib/libvirt/imagesa", "/var/lib/libvirt/a")
    },
    "volumes": ([to_be(disk_volumes=True)], [], [], [put("rwk", VMS)]),
    "volumes, done": ([to_be(disk_volumes=True)], [f"{GUEST}{rule('rwk', VMS)}"], [], []),
    "volumes that are read": ([to_be(disk_volumes=True, selinux_type=CONTENT)], [], [], [put("rk", VMS)]),
    "volumes that are read now": (
        [to_be(disk_volumes=True, selinux_type=CONTENT)],
        [f"{GUEST}{rule('rwk', VMS)}"],
        [],
        [put("rk", VMS), taken("rwk", VMS)],
    ),
    "volumes no more": ([to_be(disk_volumes="false")], [f"{GUEST}{rule('rwk', VMS)}"], [], [taken("rwk", VMS)]),
    "volumes go": ([gone()], [f"{GUEST}{rule('rk', VMS)}"], [], [taken("rk", VMS)]),
    "volumes go, by name": ([gone(disk_volumes=True)], [f"{GUEST}{rule('rwk', VMS)}"], [], [taken("rwk", VMS)]),
}


@pytest.mark.parametrize(("directories", "there", "helper", "guest"), RULES.values(), ids=RULES.keys())
def test_rules(directories: list[Any], there: list[str], helper: list[Any], guest: list[Any]) -> None:
    done = security_plan(declared(*directories), seen(rules=there))
    assert (done["helper_rules"], done["guest_rules"]) == (helper, guest)


def test_places() -> None:
    """The tasks of the role name them, too."""
    tasks = Path(__file__).parents[4] / "roles/host_security/tasks"
    rules = (tasks / "apparmor.yml").read_text(encoding="utf-8")
    assert rules.count(f" {labels.HELPER_RULES}\n") == rules.count(f" {labels.GUEST_RULES}\n") == 2
    assert labels.SELINUX == "/sys/fs/selinux/enforce"
    assert labels.SELINUX_BOOLEANS == "/sys/fs/selinux/booleans/"
    assert labels.APPARMOR == "/sys/kernel/security/apparmor/profiles"


def test_file_with_a_label() -> None:
    results = seen(real=[VMS])
    results["stat"]["stdout_lines"].append(f"{VMS}\tregular file\ta:b:mysqld_db_t:s0")
    assert security_plan(declared(to_be()), results)["obstacles"] == [
        f"{VMS}: is there, and no directory; choose another path"
    ]


def test_names() -> None:
    """Jinja takes plan.keys for the method."""
    assert not set(security_plan(declared(), EMPTY)) & set(dir({}))


def test_what_can_not_be_read() -> None:
    with pytest.raises(AnsibleFilterError, match="a dictionary is needed with directories, booleans, check_mode"):
        security_plan({}, EMPTY)
    with pytest.raises(
        AnsibleFilterError, match="a dictionary is needed with canonical, stat, full, users, policy, rules"
    ):
        security_plan(declared(), {})
    with pytest.raises(AnsibleFilterError, match="security_plan: what was declared or seen can't be read: 'path'"):
        security_plan(declared({"state": "absent"}), EMPTY)
    with pytest.raises(AnsibleFilterError, match="can't be read: The value 'perhaps' is not a valid boolean"):
        security_plan(declared(to_be(delete_data="perhaps")), EMPTY)
