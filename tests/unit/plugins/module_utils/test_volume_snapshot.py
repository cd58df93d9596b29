# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots: what is planned, what files tell of them, what backends answer, and guests that are frozen and thawed."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from types import SimpleNamespace

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import commands, qemu_img, snapshot_files, volume_snapshot
from ansible_collections.kvm.storage.plugins.module_utils.backends import logical, rbd, zfs
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.snapshots import INTERNAL, Snapshot, seconds_of

LABEL = "volume 'images/web'"
PARAMS = {"state": "present", "kind": "auto", "snapshot": None, "keep": None, "prefix": None, "size": None}
DAY = 86400


def want(**options):
    return volume_snapshot.wanted(LABEL, {**PARAMS, **options})


def state(*names, **more):
    found = [Snapshot(name, INTERNAL, number * DAY) for number, name in enumerate(names)]
    return {"snapshots": found, "unfinished": [], "same": False, "now": 9 * DAY, **more}


@pytest.mark.parametrize(
    ("before", "options", "steps"),
    [
        (state(), {"snapshot": "a"}, ["snapshot"]),
        (state("a"), {"snapshot": "a"}, []),
        (state("a"), {"snapshot": "a", "state": "absent"}, ["remove_snapshot"]),
        (state("b"), {"snapshot": "a", "state": "absent"}, []),
        (state("a"), {"snapshot": "a", "state": "reverted"}, ["revert"]),
        (state("a", same=True), {"snapshot": "a", "state": "reverted"}, []),
        (state("a", unfinished=["x"]), {"snapshot": "a"}, ["mend"]),
        (state("a", unfinished=["x"]), {"snapshot": "a", "state": "reverted"}, ["mend", "revert"]),
        (state("p1", "p2"), {"prefix": "p", "keep": {"last": 1}}, ["prune"]),
        (state("p1", "p2"), {"prefix": "p", "keep": {"last": 2}}, []),
        (state("q1", "q2", "p1"), {"prefix": "p", "keep": {"last": 1}}, []),
        (state("p1"), {"prefix": "p", "keep": {"last": 1}, "snapshot": "p2"}, ["snapshot", "prune"]),
        (state("p1"), {"prefix": "p", "keep": {"last": 1}, "snapshot": "q"}, ["snapshot"]),
    ],
)
def test_plan(before, options, steps):
    made = volume_snapshot.plan(before, want(**options))
    assert made.steps == steps
    assert (made.before == made.after) == (not set(steps) - {"mend"})


def test_a_plan_tells_what_goes():
    made = volume_snapshot.plan(state("p1", "mine", "p2"), want(prefix="p", keep={"last": 1}))
    assert (made.before, made.after) == ({"snapshots": "mine, p1, p2"}, {"snapshots": "mine, p2"})
    assert "DESTROYS" in made.risk
    assert "DESTROYS" in volume_snapshot.plan(state("a"), want(snapshot="a", state="absent")).risk
    assert "GIVES UP" in volume_snapshot.plan(state("a"), want(snapshot="a", state="reverted")).risk


@pytest.mark.parametrize(
    ("options", "code"),
    [
        *(({"snapshot": name}, "bad_name") for name in ["", "a@b", "a/b", "-a", ".a", "a b", "a\n", "x" * 101, "ü"]),
        ({"snapshot": "kvm.storage-immutable"}, "bad_name"),
        ({"keep": {"last": 0, "daily": None}, "prefix": "p"}, "bad_value"),
        ({"keep": {"last": -1}, "prefix": "p"}, "bad_value"),
        *(({"keep": {"last": 1}, "prefix": one}, "bad_value") for one in ["", "k", "kvm.storage", "kvm.storage-im"]),
        ({"keep": {"last": 1}, "prefix": "p", "state": "absent", "snapshot": "a"}, "bad_value"),
    ],
)
def test_what_can_not_be_meant(options, code):
    with pytest.raises(StorageError) as error:
        want(**options)
    assert error.value.code == code


# qcow2


def qcow2(snapshots, l1=(1, 2, 0), size=1 << 20):
    """The header, the L1 table and the snapshot table of a qcow2; a snapshot is (id, name, L1, size)."""
    tables, entries, at = b"", b"", 4096
    for key, name, entry_l1, entry_size in snapshots:
        place = 1024 + len(tables)
        tables += struct.pack(f">{len(entry_l1)}Q", *entry_l1)
        extra = struct.pack(">QQ", 0, entry_size) if entry_size is not None else b""
        fixed = struct.pack(">QIHHIIQII", place, len(entry_l1), len(key), len(name), 1000, 500000000, 0, 0, len(extra))
        one = fixed + extra + key.encode() + name.encode()
        entries += one.ljust(-(-len(one) // 8) * 8, b"\0")
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, size, 0, len(l1), 512, 0, 0, len(snapshots), at)
    image = head.ljust(512, b"\0") + struct.pack(f">{len(l1)}Q", *l1)
    return (image.ljust(1024, b"\0") + tables).ljust(at, b"\0") + entries


def file_of(tmp_path, data):
    path = tmp_path / "web"
    path.write_bytes(data)
    return str(path)


COPIED = 1 << 63


@pytest.mark.parametrize(
    ("snapshots", "same"),
    [
        ([("1", "a", (1, 2, 0), 1 << 20)], True),
        ([("1", "a", (1 | COPIED, 2), 1 << 20)], True),
        ([("1", "a", (1, 2, 0), None)], True),
        ([("1", "a", (1, 3, 0), 1 << 20)], False),
        ([("1", "a", (1, 2, 0, 4), 1 << 20)], False),
        ([("1", "a", (1, 2, 0), 1 << 21)], False),
        ([("1", "b", (1, 2, 0), 1 << 20)], False),
        ([("7", "bb", (9,), 5), ("1", "a", (1, 2, 0), 1 << 20)], True),
    ],
)
def test_whether_a_qcow2_is_as_its_snapshot(tmp_path, snapshots, same):
    assert snapshot_files.untouched(file_of(tmp_path, qcow2(snapshots)), "a") is same


def test_snapshots_of_a_qcow2(tmp_path):
    path = file_of(tmp_path, qcow2([("1", "first", (1,), 77), ("12", "second one", (2,), None)], size=99))
    found = [one for one, dummy in snapshot_files.table(path).snapshots]
    assert [(one.key, one.name, one.time, one.size) for one in found] == [
        ("1", "first", 1000.5, 77),
        ("12", "second one", 1000.5, 99),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"QFI\xfb",
        bytes(4096),
        qcow2([("1", "a", (1,), 5)])[:4100],
        qcow2([])[:60] + struct.pack(">IQ", 2**32 - 1, 4096) + bytes(8192),
        qcow2([])[:60] + struct.pack(">IQ", 2**32 - 1, 2**63 - 1) + bytes(8192),
    ],
)
def test_a_broken_table_is_read_without_harm(tmp_path, data):
    path = file_of(tmp_path, data)
    try:
        found = snapshot_files.table(path)
    except OSError:
        return
    assert len(found.snapshots) <= snapshot_files.MOST_SNAPSHOTS
    snapshot_files.untouched(path, "a")


# files


def mark(path, **entries):
    os.setxattr(path, snapshot_files.MARK, json.dumps(entries).encode())


def test_files_with_their_mark(tmp_path):
    (tmp_path / "web").write_bytes(b"x")
    for name in ("web@a", "web@b", "web@c", "web@d", "other@a"):
        (tmp_path / name).write_bytes(b"x")
    role = {"role": "copy", "time": 5, "size": 7}
    mark(tmp_path / "web@a", **{"web@a": role})
    mark(tmp_path / "web@b", **{"web@a": role})  # a copy of it
    mark(tmp_path / "web@c", **{"web@c": {"role": "else"}})
    mark(tmp_path / "other@a", **{"other@a": role})
    os.setxattr(tmp_path / "web@d", snapshot_files.MARK, b"no JSON")
    os.symlink(tmp_path / "web@a", tmp_path / "web@e")
    os.link(tmp_path / "web", tmp_path / "web@f")
    mark(tmp_path / "web@f", **{"web@f": {"role": "frozen"}})
    found = snapshot_files.beside(str(tmp_path), "web")
    assert [(one.name, one.kind, one.time, one.size) for one in found] == [("a", "reflink", 5, 7)]
    assert snapshot_files.half_frozen(str(tmp_path), "web") == [str(tmp_path / "web@f")]


# backends


@pytest.fixture
def answers(monkeypatch):
    """What commands say, by words of their line; and the lines that were run."""
    said, ran = {}, []

    def run_command(argv, **options):
        line = " ".join(argv)
        ran.append(line)
        failed = "fails" in said and line.startswith(said["fails"])
        return int(failed), next((said[key] for key in sorted(said, key=len, reverse=True) if key in line), ""), ""

    monkeypatch.setattr(commands, "runner", run_command)
    said["ran"] = ran
    return said


CEPH = {"source_name": "vms", "hosts": [{"name": "mon"}]}


def test_rbd(answers):
    rows = [
        {"name": "kvm.storage-immutable", "size": 5, "protected": "true", "timestamp": ""},
        {"name": "a", "size": 5, "protected": "true", "timestamp": "Sun Nov 22 06:00:00 2026"},
        {"name": "b", "size": 6, "protected": "false", "timestamp": "nonsense"},
    ]
    answers["snap ls"] = json.dumps(rows)
    answers["children"] = json.dumps([{"pool": "vms", "image": "clone"}])
    answers["children --format json vms/web@b"] = "[]"
    found = rbd.snapshots(None, CEPH, "web")
    assert [(one.name, one.size, one.protected, one.children) for one in found] == [
        ("a", 5, True, ("vms/clone",)),
        ("b", 6, False, ()),
    ]
    assert found[0].time == seconds_of("Sun Nov 22 06:00:00 2026")
    assert found[1].time is None
    answers["diff --from-snap a"] = "[]"
    answers["diff --from-snap b"] = '[{"offset":0}]'
    assert rbd.unchanged_since(None, CEPH, "web", "a")
    assert not rbd.unchanged_since(None, CEPH, "web", "b")


def test_zfs(answers):
    answers["list"] = "tank/web@a\t100\t4096\t-\ntank/web@b\t200\t8192\ttank/c,tank/d\n"
    found = zfs.snapshots(None, {"source_name": "tank"}, "web")
    assert [(one.name, one.time, one.size, one.children) for one in found] == [
        ("a", 100.0, 4096, ()),
        ("b", 200.0, 8192, ("tank/c", "tank/d")),
    ]
    zfs.roll_back(LABEL, None, {"source_name": "tank"}, "web", "a", False)
    zfs.roll_back(LABEL, None, {"source_name": "tank"}, "web", "a", True)
    assert answers["ran"][-2:] == ["zfs rollback tank/web@a", "zfs rollback -r tank/web@a"]
    answers["written@a"] = "0\n"
    assert zfs.unchanged_since(None, {"source_name": "tank"}, "web", "a")
    assert answers["ran"][-2] == "zpool sync tank"
    answers["written@a"] = "512\n"
    assert not zfs.unchanged_since(None, {"source_name": "tank"}, "web", "a")


def lvs(*rows):
    columns = logical.SNAPSHOT_COLUMNS.split(",")
    return json.dumps({"report": [{"lv": [dict(zip(columns, row)) for row in rows]}]})


def test_lvm(answers):
    tag = "kvm.storage.snapshot:web:"
    answers["lvs"] = lvs(
        ("web", "", "1", "100", "", "", "", ""),
        ("web.a", f"x,{tag}a", "50", "10", "100", "", "", "0.00"),
        ("web.b", f"{tag}b", "40", "10", "100", "snapshot invalid", "", "100.00"),
        ("web.c", "", "60", "10", "100", "", "", ""),  # somebody else's
        ("copy", f"{tag}a", "60", "10", "100", "", "", ""),  # one that was renamed
        ("web.t", f"{tag}t", "70", "100", "", "unknown", "thin", ""),
    )
    group = {"source_name": "vg"}
    found = logical.snapshots(None, group, "web")
    assert [(one.name, one.size, bool(one.trouble)) for one in found] == [
        ("b", 100, True),
        ("a", 100, False),
        ("t", 100, False),
    ]
    assert logical.unchanged_since(None, group, "web", "a")
    assert not logical.unchanged_since(None, group, "web", "t")
    assert not logical.unchanged_since(None, group, "web", "b")


@pytest.mark.parametrize(
    ("volume", "why"),
    [
        ("web", "its snapshot 'web.b'"),  # LVM has forgotten whose it is, by a revert to web.a
        ("web.a", "its snapshot 'web'"),
        ("db", "its snapshot 'mine'"),
        ("mine", "its origin 'db'"),
        ("web.b", ""),
        ("web.c", ""),
    ],
)
def test_what_keeps_the_data_of_a_volume_of_lvm(answers, volume, why):
    tag = "kvm.storage.snapshot:web:"
    answers["lvs"] = (
        f"  web/web.a/\n  web.a//a/b,{tag}x\n  web.b//c/d,{tag}b\n  db//\n  mine/db/\n  web.c//\n  [x_tdata]//\n"
    )
    if not why:
        logical.wipes(LABEL, None, {"source_name": "vg"}, volume)
        return
    with pytest.raises(StorageError, match=f"{why} would keep its data"):
        logical.wipes(LABEL, None, {"source_name": "vg"}, volume)


def reverted(answers, monkeypatch, thin, *more, others=()):
    """What a revert to web.a runs, the reading aside; the merge ends at the second look."""
    tag = "kvm.storage.snapshot:web:a"
    rows = (("web", "mine,too", "1", "100", "", "", thin, ""), ("web.a", tag, "5", "100", "", "", thin, ""))
    answers["lvs"] = lvs(*rows, *((name, "", "6", "100", "", "", thin, "") for name in more))
    looks = [{}, {}, {"web.a": None}]

    class Seen:
        thin_pool, falls = thin, others

    monkeypatch.setattr(logical, "look", lambda options: logical.Contents({"web": Seen(), **looks.pop()}))
    monkeypatch.setattr(logical, "MERGE_PAUSE", 0)
    try:
        logical.revert(LABEL, None, {"source_name": "vg"}, "web", "a", False)
    finally:
        found = [line for line in answers["ran"] if not line.startswith(("lvs", "udevadm"))]
    return found


def test_a_merge_of_lvm_waits_for_nobody_and_its_snapshot_is_taken_anew(answers, monkeypatch):
    ran = reverted(answers, monkeypatch, "")
    assert [line.split()[0] for line in ran] == ["lvchange", "lvconvert", "lvchange", "lvcreate"]
    assert ran[0] == "lvchange --activate n -- vg/web"
    assert ran[1].endswith("--merge -- vg/web.a")
    assert "--name web.a --addtag kvm.storage.snapshot:web:a" in ran[3]


@pytest.mark.parametrize("left", [(), ("web.kvm.storage-revert", "web.kvm.storage-old")])
def test_a_copy_of_a_thin_snapshot_takes_the_place_of_its_volume(answers, monkeypatch, left):
    """LVM knows the other snapshots of a volume no longer once one was merged into it."""
    new, old = "web.kvm.storage-revert", "web.kvm.storage-old"
    assert reverted(answers, monkeypatch, "thin", *left) == [
        "lvchange --activate n -- vg/web",
        *(f"lvremove --yes -- vg/{one}" for one in left),
        f"lvcreate --snapshot --setactivationskip n --activate n --name {new} --addtag mine --addtag too -- vg/web.a",
        f"lvrename -- vg web {old}",
        f"lvrename -- vg {new} web",
        "lvchange --activate y -- vg/web",
        f"lvremove --yes -- vg/{old}",
    ]


def test_a_revert_of_a_thin_volume_takes_no_snapshot_with_it(answers, monkeypatch):
    with pytest.raises(StorageError, match="'mine' beside its thin pool would be destroyed"):
        reverted(answers, monkeypatch, "thin", others=("mine",))
    assert all(line.startswith("lvs") for line in answers["ran"])


@pytest.mark.parametrize(
    ("thin", "fails", "then"),
    [
        ("", "lvchange --activate n", []),  # something has just opened it
        ("thin", "lvchange --activate n", []),
        ("", "lvconvert", ["lvchange --activate y -- vg/web"]),
        ("thin", "lvcreate", ["lvchange --activate y -- vg/web"]),
        (
            *("thin", "lvrename -- vg web.kvm.storage-revert"),
            ["lvrename -- vg web.kvm.storage-old web", "lvchange --activate y -- vg/web"],
        ),
    ],
)
def test_a_revert_of_lvm_that_fails_leaves_the_volume(answers, monkeypatch, thin, fails, then):
    answers["fails"] = fails
    with pytest.raises(StorageError):
        reverted(answers, monkeypatch, thin)
    ran = [line for line in answers["ran"] if not line.startswith(("lvs", "udevadm"))]
    place = next(number for number, line in enumerate(ran) if line.startswith(fails))
    assert ran[place + 1 :] == then


@pytest.mark.parametrize(
    ("volume", "name", "wrong"), [("web", "a", False), ("web", "a=b", True), ("w" * 100, "a" * 30, True)]
)
def test_names_that_lvm_can_hold(volume, name, wrong):
    assert bool(logical.snapshot_error(volume, name)) is wrong


# damage

FLAG = "ERROR OFLAG_COPIED data cluster: l2_entry=50000 refcount=1\n"
DOUBLE = "ERROR cluster 5 refcount=1 reference=2\n"


@pytest.mark.parametrize(
    ("code", "said", "mended"),
    [
        (0, "No errors were found on the image.\n", False),
        (3, "Leaked cluster 6 refcount=1 reference=0\n", False),
        (63, "", False),  # a format that has no check
        (2, f"{FLAG}{FLAG}\n2 errors were found on the image.\n", True),
        (2, f"{FLAG}Leaked cluster 6 refcount=1 reference=0\n", True),
        (2, f"{DOUBLE}{FLAG}", None),
        (2, DOUBLE, None),
        (2, "2 errors were found on the image.\n", None),
        (1, "qemu-img: Check failed: Invalid argument\n", None),
    ],
)
def test_what_of_a_damaged_qcow2_is_mended(monkeypatch, code, said, mended):
    """A flag that the reference counts contradict, and nothing else: a repair of more would guess."""
    ran = []

    def run_command(argv, **options):
        ran.append("-r" in argv)
        return (0, "", "") if ran[-1] else (code, said, "")

    monkeypatch.setattr(commands, "runner", run_command)
    node = qemu_img.Node({"driver": "file", "filename": "/srv/web"}, "qcow2", path="/srv/web")
    if mended is None:
        with pytest.raises(StorageError):
            qemu_img.mend(LABEL, node)
    else:
        qemu_img.mend(LABEL, node)
    assert ran == ([False, True] if mended else [False])


# an overlay and the volume below it


def overlay_on(tmp_path, **more):
    """A volume last written at 1000, and an overlay whose mark has more; their paths."""
    web, upper = tmp_path / "web", tmp_path / "web@one"
    for path in (web, upper):
        path.write_bytes(b"x")
    os.utime(web, (5, 1000.75))
    mark(upper, **{"web@one": {"role": "overlay", "time": 900, "size": 1, **more}})
    return str(web), str(upper)


@pytest.mark.parametrize(
    ("more", "written"),
    [
        ({"base": 1000}, False),
        ({"base": 999}, True),
        ({"base": 1001}, True),  # an older state of it was brought back
        ({"base": 999, "merging": True}, False),  # by its own removal
        ({}, False),  # of which nothing is known
        ({"base": "1000"}, False),
    ],
)
def test_whether_a_volume_was_written_below_its_overlay(tmp_path, more, written):
    web, upper = overlay_on(tmp_path, **more)
    assert snapshot_files.written_since(upper, web) is written


@pytest.mark.parametrize(("base", "after"), [(1000, 2000), (999, 999)])
def test_what_no_guest_sees_is_no_writing(tmp_path, base, after):
    """But it does not hide what was written before."""
    web, upper = overlay_on(tmp_path, base=base)
    with snapshot_files.content_kept(LABEL, web):
        os.utime(web, (5, 2000))
    assert snapshot_files.marked(upper)["base"] == after
    web, upper = overlay_on(tmp_path)
    with snapshot_files.content_kept(LABEL, web):
        os.utime(web, (5, 2000))
    assert "base" not in snapshot_files.marked(upper)


# guests


class Guest:
    """A domain with an agent that tells what it was asked."""

    def __init__(self, connected=True, fails=False):
        self.asked, self.connected, self.fails = [], connected, fails

    def XMLDesc(self, flags):
        state = "connected" if self.connected else "disconnected"
        target = f"<target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/>"
        return f"<domain><devices><channel>{target}</channel></devices></domain>"

    def name(self):
        return "web01"

    def UUIDString(self):
        return "c7a5fdbd-cdaf-9455-926a-d65c16db1809"

    def fsFreeze(self, points, flags):
        self.asked.append("freeze")
        if self.fails:
            raise volume_snapshot.libvirt.libvirtError("the agent says no")

    def fsThaw(self, points, flags):
        self.asked.append("thaw")


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("<disk><source file='/srv/R&amp;D/web@one'/></disk>", True),
        ("<disk><source file='/srv/R&amp;D/web@one.old'/></disk>", False),
        ("<disk><source file='/srv/other'/></disk><channel name='/srv/R&amp;D/web@one'/>", False),
    ],
)
def test_whether_a_guest_has_a_file(text, has):
    thing = frozen(Guest())
    thing.guest.domain.XMLDesc = lambda flags: f"<domain><devices>{text}</devices></domain>"
    assert thing.uses_of_now("/srv/R&D/web@one") is has


def frozen(guest, **wish):
    """A VolumeSnapshot of which only frozen() is asked."""
    thing = object.__new__(volume_snapshot.VolumeSnapshot)
    thing.guest = None if guest is None else volume_snapshot.Attachment(guest, "web01", "vda")
    thing.connection = SimpleNamespace(uri="test:///default")
    thing.result, thing.wish, thing.name = {"frozen": False}, {"crash_consistent": False, **wish}, "images/web"
    return thing


NEEDS_LIBVIRT = pytest.mark.skipif(
    volume_snapshot.libvirt is None, reason="libvirt's binding is not there for this Python"
)


@NEEDS_LIBVIRT
def test_a_guest_is_thawed_whatever_happens():
    guest = Guest()
    thing = frozen(guest)
    with pytest.raises(RuntimeError), thing.frozen():
        assert guest.asked == ["freeze"]
        raise RuntimeError("the backend fails")
    assert guest.asked == ["freeze", "thaw"]
    assert thing.result["frozen"] is True


@NEEDS_LIBVIRT
@pytest.mark.parametrize(
    ("connected", "fails", "crash_consistent", "asked", "refused"),
    [
        (True, False, False, ["freeze", "thaw"], False),
        (True, True, False, ["freeze", "thaw"], True),
        (True, True, True, ["freeze", "thaw", "thaw"], False),
        (False, False, True, [], False),
    ],
)
def test_what_is_asked_of_an_agent(connected, fails, crash_consistent, asked, refused):
    guest = Guest(connected, fails)
    thing = frozen(guest, crash_consistent=crash_consistent)
    taken = []
    try:
        with thing.frozen():
            taken.append(True)
    except StorageError as error:
        assert error.code == "not_frozen"
    assert bool(taken) is not refused
    assert guest.asked == asked
    assert thing.result["frozen"] is (connected and not fails)


LIBVIRT = """
def open(uri):
    return Guest(uri)
class Guest:
    def __init__(self, *words):
        self.words = words
    def lookupByUUIDString(self, uuid):
        return Guest(*self.words, uuid)
    def fsThaw(self, points, flags):
        __builtins__["open"](__file__ + ".thawed", "w").write(" ".join(self.words))
"""


@NEEDS_LIBVIRT
@pytest.mark.parametrize("killed", [True, False])
def test_a_guest_is_thawed_when_the_run_is_killed(tmp_path, monkeypatch, killed):
    (tmp_path / "libvirt.py").write_text(LIBVIRT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    thawed, ready = tmp_path / "libvirt.py.thawed", tmp_path / "ready"
    child = os.fork()
    if not child:
        os.setsid()
        with frozen(Guest()).frozen():
            ready.touch()
            time.sleep(60 if killed else 0)
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    if killed:
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + (30 if killed else 1)
    while not thawed.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert thawed.exists() is killed  # a run that ends by itself has done it
    if killed:
        assert thawed.read_text() == f"test:///default {Guest().UUIDString()}"


def test_without_an_agent_it_must_be_said():
    for connected, crash_consistent in ((True, False), (False, True)):
        frozen(Guest(connected), crash_consistent=crash_consistent).require_consistent()
    with pytest.raises(StorageError) as error:
        frozen(Guest(False)).require_consistent()
    assert (error.value.code, "crash_consistent: true" in str(error.value)) == ("not_frozen", True)
