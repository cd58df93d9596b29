# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role host_btrfs refuses and does, from what was seen on a host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.storage.plugins.filter.planning_btrfs import btrfs_plan
from ansible_collections.kvm.storage.plugins.plugin_utils import btrfs

B, C, D, X = "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/disk/by-id/dm-uuid-x"
VMS = "/srv/vms"
FS = "file system /srv/vms: "
IMAGES = "subvolume /srv/vms/images: "
LS = "is not there; ls -l /dev/disk/by-id shows those that are"
IN_IT = f"{IMAGES}all that is in it would go with it; give delete_data: true, or do not name it, and it stays as it is"
STAY = ["/etc/libvirt/storage/images.xml"]
TREE = [{"id": 5, "path": "/"}, {"id": 256, "path": "/images"}, {"id": 257, "path": "/images/old"}]
GUEST = "a disk of guest 'web'"
DF = ["btrfs", "filesystem", "df", VMS]
SHOW = ["btrfs", "qgroup", "show", "--raw", "-r", VMS]
ROWS = "Qgroupid  Referenced  Exclusive  Max referenced  Path\n0/5  16384  16384  none  <toplevel>\n"
LIMITED = f"{ROWS}0/256  16384  16384  1073741824  images"


def disk(path: str, *holds: str, **more: Any) -> dict[str, Any]:
    """A device as device_info tells of it."""
    facts = {"path": path, "exists": True, "node": path, "ids": [], "partitions": [], "users": [], "holds": list(holds)}
    facts.update(more)
    facts["blank"] = facts["exists"] and not (holds or facts["users"] or facts["partitions"])
    return facts


def made(*paths: str, uuid: str = "u1", label: str | None = None, tree: list[Any] | None = None) -> dict[str, Any]:
    """A file system as btrfs_info tells of it."""
    return {"uuid": uuid, "label": label, "devices": list(paths), "subvolumes": tree or []}


def mount(target: str = VMS, uuid: str | None = "u1", fstype: str = "btrfs", fsroot: str = "/") -> dict[str, Any]:
    return {"target": target, "uuid": uuid, "fstype": fstype, "fsroot": fsroot}


def seen(
    *disks: dict[str, Any],
    made: tuple[dict[str, Any], ...] | None = (),
    mounts: tuple[dict[str, Any], ...] = (),
    found: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    fstab: tuple[str, ...] = (),
    users: list[str] | None = None,
    told: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Registered results; made=None is a host whose file systems were not looked at yet."""
    return {
        "disks": {"devices": list(disks)},
        "filesystems": {} if made is None else {"filesystems": list(made)},
        "mounts": {"stdout": json.dumps({"filesystems": list(mounts)})},
        "fstab": {"stdout_lines": list(fstab)},
        "found": {"stdout_lines": list(found)},
        "flags": {"stdout_lines": list(flags)},
        "told": {"results": [{"item": words.split(), "stdout": out} for words, out in (told or {}).items()]},
        "users": {"stdout_lines": users or []},
    }


EMPTY: dict[str, Any] = {name: {} for name in btrfs.SEEN}
BLANK = seen(disk(B), disk(C))
HERE = seen(disk(B, "btrfs", users=[f"mounted on {VMS}"]), made=(made(B, tree=TREE),), mounts=(mount(),))
AWAY = seen(disk(B, "btrfs"), made=(made(B, tree=TREE),))
BOTH = seen(disk(B, "btrfs"), disk(C, "btrfs"), made=(made(B), made(C, uuid="u2")))
GONE = {"path": VMS, "state": "absent", "devices": [B], "delete_data": True}


def fs(*devices: str, **more: Any) -> dict[str, Any]:
    return {"path": VMS, "devices": list(devices) or [B], **more}


def images(**more: Any) -> dict[str, Any]:
    return fs(subvolumes=[{"name": "images", **more}])


def planned(*wanted: dict[str, Any], on: dict[str, Any]) -> dict[str, Any]:
    return btrfs.plan(wanted, on)


def what_is_done(plan: dict[str, Any]) -> dict[str, Any]:
    """The parts of a plan that change something."""
    looks = ("problems", "named", "places", "flagged", "reads", "watched", "patterns")
    return {key: value for key, value in plan.items() if value and key not in looks}


# name: (items, the host, what is refused)
PROBLEMS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    **{
        f"path {path!r}": (
            [{"path": path, "label": "l"}],
            EMPTY,
            [
                f"file system {path}: is no path to mount on; give an absolute one, without a slash at its end and "
                "without spaces"
            ],
        )
        for path in ("srv", "/", "/srv/", "//srv", "/srv//a", "/srv/../etc", "/srv/.", "/srv/a b", "/srv\n")
    },
    "path twice": (
        [{"path": VMS, "label": "a"}, {"path": VMS, "label": "b"}],
        EMPTY,
        [f"{FS}is declared twice; declare it once"],
    ),
    "data to be deleted of what stays": (
        [fs(delete_data=True)],
        EMPTY,
        [f"{FS}has delete_data, and is to be present; leave out delete_data, or set state to absent"],
    ),
    "data to be deleted of no device": (
        [{"path": VMS, "state": "absent", "delete_data": True}],
        EMPTY,
        [f"{FS}which devices are to be made blank is not said; name all of them in devices"],
    ),
    "neither device nor label": ([{"path": VMS}], EMPTY, [f"{FS}has neither devices nor a label; give one of them"]),
    **{
        f"label {name}": (
            [fs(label=label)],
            EMPTY,
            [f"{FS}btrfs takes no such label; give a shorter one without a slash"],
        )
        for name, label in {"slash": "a/b", "line": "a\nb", "long": "a" * 256, "long in bytes": "ä" * 128}.items()
    },
    "overwrite of another device": (
        [fs(overwrite=[C])],
        EMPTY,
        [f"device {C}: is to be overwritten, but is no device of file system {VMS}; name it in devices too"],
    ),
    "device twice": ([fs(B, B)], EMPTY, [f"device {B}: is given twice; name it once"]),
    "device of two items": (
        [fs(B), {"path": "/srv/b", "devices": [B], "overwrite": [B]}],
        BLANK,
        [f"device {B}: is given twice; name it once"],
    ),
    "device that is made blank and used": (
        [{"path": "/srv/b", "devices": [B]}, GONE],
        AWAY,
        [f"device {B}: is given twice; name it once"],
    ),
    "device twice by two names": (
        [fs(B, X)],
        seen(disk(B), disk(X, node=B)),
        [f"device {X}: is given twice, also as {B}; name it once"],
    ),
    **{
        f"option {option!r}": (
            [fs(options=options)],
            EMPTY,
            [f"{FS}the option '{option}' can't be given; the role mounts the whole file system, and in its own order"],
        )
        for option, options in {
            "subvol=a": ["subvol=a"],
            "subvolid=5": ["noatime", "subvolid=5"],
            "subvol=b": ["noatime,subvol=b"],
            "subvol=c": "noatime,subvol=c",
            "x-systemd.before=a": ["x-systemd.before=a"],
            "a b": ["a b"],
        }.items()
    },
    **{
        f"{kind} {profile}": (
            [fs(*devices, **{kind: profile})],
            EMPTY,
            [f"{FS}{kind} {profile} needs {needs} devices; name more, or take another"],
        )
        for kind, profile, needs, devices in (
            ("data_profile", "raid1", 2, [B]),
            ("data_profile", "raid10", 2, [B]),
            ("data_profile", "raid5", 2, [B]),
            ("metadata_profile", "raid1c3", 3, [B, C]),
            ("metadata_profile", "raid6", 3, [B, C]),
            ("metadata_profile", "raid1c4", 4, [B, C, D]),
        )
    },
    **{
        f"subvolume {name!r}": (
            [fs(subvolumes=[{"name": name}])],
            EMPTY,
            [f"subvolume {VMS}/{name}: is no path in a file system; give one such as images"],
        )
        for name in ("/a", " a", "a/", "a//b", "..", "a/../b", "./a", "a\tb", "a\n", "")
    },
    "subvolume twice": (
        [fs(subvolumes=[{"name": "images"}, {"name": "images"}])],
        EMPTY,
        [f"{IMAGES}is declared twice; declare it once"],
    ),
    "subvolume to go without a word about its data": (
        [images(state="absent")],
        EMPTY,
        [IN_IT],
    ),
    "a quoted false deletes nothing": (
        [images(state="absent", delete_data="false")],
        EMPTY,
        [IN_IT],
    ),
    "data to be deleted of a subvolume that stays": (
        [images(delete_data=True)],
        EMPTY,
        [f"{IMAGES}has delete_data, and is to be present; leave out delete_data, or set state to absent"],
    ),
    **{
        f"quota {quota}": (
            [images(quota=quota)],
            EMPTY,
            [f"{IMAGES}quota {quota} is no size; give one such as 100GiB, or none"],
        )
        for quota in ("much", "0", "-1", "10XB", "1.0001K")
    },
    "device that is not there": ([fs(B)], seen(disk(B, exists=False)), [f"device {B}: {LS}"]),
    "device that nobody looked at": ([fs(B)], seen(), [f"device {B}: {LS}"]),
    "devices that are not there, by two names": (
        [fs(B, X)],
        seen(disk(B, exists=False), disk(X, node=B, exists=False)),
        [f"device {B}: {LS}", f"device {X}: {LS}"],
    ),
    "device in use by a guest and others": (
        [fs(B)],
        seen(disk(B, users=["swap", GUEST])),
        [f"device {B}: is in use (swap, {GUEST}); give another, or stop what uses it"],
    ),
    "device in use": (
        [fs(B)],
        seen(disk(B, "LVM2_member", users=["held by vg-lv", "swap"])),
        [f"device {B}: is in use (held by vg-lv, swap); give another, or stop what uses it"],
    ),
    "device in use, to be overwritten": (
        [fs(B, overwrite=[B])],
        seen(disk(B, users=[GUEST])),
        [f"device {B}: is in use ({GUEST}); give another, or stop what uses it"],
    ),
    "device that a guest has made its file system on": (
        [fs(B)],
        seen(disk(B, "btrfs", users=[GUEST, "open in qemu-system-x86 (process 7)"]), made=(made(B),)),
        [
            f"device {B}: is in use ({GUEST}, open in qemu-system-x86 (process 7)); give another, or stop what uses it",
        ],
    ),
    "device of a guest, to be made blank": (
        [GONE],
        seen(disk(B, "btrfs", users=[GUEST]), made=(made(B),)),
        [f"device {B}: is in use ({GUEST}); give another, or stop what uses it"],
    ),
    "device that is not blank": (
        [fs(B)],
        seen(disk(B, "gpt", partitions=["/dev/vdb1"])),
        [f"device {B}: is not blank, it holds gpt, /dev/vdb1; give another, or name it in overwrite, and that is lost"],
    ),
    "the same before the file systems are known": (
        [fs(B)],
        seen(disk(B, "ext4"), made=None),
        [f"device {B}: is not blank, it holds ext4; give another, or name it in overwrite, and that is lost"],
    ),
    "a second file system that is mounted": (
        [fs(B, C, overwrite=[C])],
        seen(
            disk(B, "btrfs"),
            disk(C, "btrfs", users=["mounted on /srv/other"]),
            made=(made(B), made(C, uuid="u2")),
        ),
        [f"device {C}: is in use (mounted on /srv/other); give another, or stop what uses it"],
    ),
    "devices of two file systems": (
        [fs(B, C)],
        BOTH,
        [
            f"{FS}its devices belong to 2 file systems (u1, u2); name those of one, and others in overwrite if they "
            "may be lost"
        ],
    ),
    "to go, and another is mounted there": (
        [GONE],
        seen(disk(B, "btrfs"), made=(made(B),), mounts=(mount(uuid="u2"),)),
        [f"{FS}something else is mounted there (btrfs u2); unmount that first, or correct the path"],
    ),
    "to go, and something without a UUID is mounted there": (
        [{"path": VMS, "state": "absent"}],
        seen(mounts=(mount(uuid=None, fstype="tmpfs"),)),
        [f"{FS}something else is mounted there (tmpfs); unmount that first, or correct the path"],
    ),
    "to be made blank, and mounted elsewhere": (
        [GONE],
        seen(disk(B, "btrfs"), made=(made(B),), mounts=(mount(), mount("/mnt", fsroot="/images"))),
        [f"{FS}is also mounted on /mnt; unmount it there first"],
    ),
    "to be made blank, with a device that is not named": (
        [GONE],
        seen(disk(B, "btrfs"), made=(made(B, C),)),
        [f"{FS}is also on {C}; name that device too, or nothing is made blank"],
    ),
    "to be made blank, with other devices than it has": (
        [GONE],
        seen(disk(B), made=(made(C),), mounts=(mount(),)),
        [f"{FS}is also on {C}; name that device too, or nothing is made blank"],
    ),
    "to be made blank, and nobody looked at the device": (
        [GONE],
        seen(made=(made(B),), mounts=(mount(),)),
        [f"{FS}is also on {B}; name that device too, or nothing is made blank"],
    ),
    "label of another one": (
        [fs(B, label="vms")],
        seen(disk(B), made=(made(C, D, label="vms"),)),
        [f"{FS}a file system with the label vms is on {C}, {D}; name its devices, or another label"],
    ),
    "to be labelled as another one": (
        [fs(B, label="vms")],
        seen(disk(B, "btrfs"), made=(made(B, label="old"), made(C, uuid="u2", label="vms"))),
        [f"{FS}a file system with the label vms is on {C}; name its devices, or another label"],
    ),
    "label that is nowhere": (
        [{"path": VMS, "label": "vms"}],
        seen(made=(made(C),)),
        [f"{FS}no file systems have the label vms; give devices"],
    ),
    "label that two have": (
        [{"path": VMS, "label": "vms"}],
        seen(made=(made(B, label="vms"), made(C, uuid="u2", label="vms"))),
        [f"{FS}2 file systems have the label vms; give devices"],
    ),
    "another one is mounted there": (
        [fs(B)],
        seen(disk(B, "btrfs"), made=(made(B),), mounts=(mount(), mount(uuid="u2"))),
        [f"{FS}something else is mounted there (btrfs u2); unmount that first, or give another path"],
    ),
    "something is mounted there, and it is not made yet": (
        [fs(B)],
        seen(disk(B), mounts=(mount(uuid="x", fstype="ext4"),)),
        [f"{FS}something else is mounted there (ext4 x); unmount that first, or give another path"],
    ),
    "something without a UUID is mounted there": (
        [fs(B)],
        seen(disk(B), mounts=(mount(uuid=None, fstype="tmpfs"),)),
        [f"{FS}something else is mounted there (tmpfs); unmount that first, or give another path"],
    ),
    "mounted there by a subvolume": (
        [fs(B)],
        seen(disk(B, "btrfs"), made=(made(B),), mounts=(mount(fsroot="/images"),)),
        [f"{FS}is mounted there by its subvolume /images only; unmount that first, or give another path"],
    ),
    **{
        f"mount point: {line}": (
            [fs(B)],
            seen(disk(B), found=(line,)),
            [f"{FS}is no empty directory, and a mount would hide what is in it; move that away"],
        )
        for line in (f"full d 2 {VMS}", f"full l 2 {VMS}", f"empty f 2 {VMS}")
    },
    "mount point with a directory of the subvolume's name": (
        [images(nocow=True)],
        seen(disk(B), found=(f"full d 2 {VMS}", f"full d 3 {VMS}/images")),
        [f"{FS}is no empty directory, and a mount would hide what is in it; move that away"],
    ),
    "another profile of data": (
        [fs(B, C, data_profile="raid1")],
        seen(
            disk(B),
            disk(C),
            made=(made(B, C),),
            mounts=(mount(),),
            told={" ".join(DF): "Data, single: total=1\nData, RAID1: total=1\nMetadata, DUP: total=1"},
        ),
        [
            f"{FS}its data_profile is single and raid1; leave it out, or convert it by 'btrfs balance start "
            f"-dconvert=raid1 {VMS}'"
        ],
    ),
    "another profile of metadata": (
        [fs(B, metadata_profile="single")],
        {**HERE, "told": {"results": [{"item": DF, "stdout": "Data, RAID1: total=1\nMetadata, DUP: total=1"}]}},
        [
            f"{FS}its metadata_profile is dup; leave it out, or convert it by 'btrfs balance start -mconvert=single "
            f"{VMS}'"
        ],
    ),
    "subvolume with another one in it": (
        [images(state="absent", delete_data=True)],
        HERE,
        [f"{IMAGES}the subvolume /images/old is in it; remove that first"],
    ),
    **{
        f"subvolume that is mounted by {root}": (
            [fs(subvolumes=[{"name": "images/old", "state": "absent", "delete_data": True}])],
            {
                **HERE,
                "mounts": {"stdout": json.dumps({"filesystems": [mount(), mount("/mnt", fsroot=root)]})},
            },
            ["subvolume /srv/vms/images/old: is also mounted on /mnt; unmount it there first"],
        )
        for root in ("/images/old", "/images/old/a")
    },
    "directory where a subvolume is to be": (
        [fs(subvolumes=[{"name": "iso"}])],
        {**HERE, "found": {"stdout_lines": ["empty d 300 /srv/vms/iso"]}},
        ["subvolume /srv/vms/iso: something is there that is no subvolume; move that away"],
    ),
    "files that are not changed in place": (
        [images(nocow=True)],
        {**HERE, "found": {"stdout_lines": ["full d 256 /srv/vms/images"]}},
        [
            f"{IMAGES}has files already, and nocow works for new ones only; make an empty one, and copy them into it "
            "by cp --reflink=never"
        ],
    ),
    "libvirt uses what is to go": (
        [{"path": VMS, "state": "absent"}],
        seen(made=(made(B),), mounts=(mount(),), users=STAY),
        [f"libvirt uses {VMS} ({STAY[0]}); remove the pool, or take the disk from the guest first"],
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_refused(name: str) -> None:
    wanted, host, problems = PROBLEMS[name]
    assert planned(*wanted, on=host)["problems"] == problems


MOUNT = {"path": VMS, "uuid": "u1", "options": btrfs.OPTIONS + btrfs.ORDER}
NEW = {"guard": [VMS], "mount": [{**MOUNT, "uuid": btrfs.NEW}]}
FOUND_EMPTY = {"stdout_lines": ["empty d 256 /srv/vms/images"]}
ON = {"say": f"switch quotas of file system {VMS} on", "argv": ["btrfs", "quota", "enable", VMS]}
SUBVOLUME = {"uuid": "u1", "name": "/images", "path": "/srv/vms/images"}


def limits(size: str, say: str) -> dict[str, Any]:
    argv = ["btrfs", "qgroup", "limit", size, "/srv/vms/images"]
    return {"say": f"limit subvolume /srv/vms/images to {say}", "argv": argv}


def make(*argv: str) -> list[dict[str, Any]]:
    return [{"say": f"make file system {VMS}", "argv": ["mkfs.btrfs", *argv]}]


# name: (item, the host, what is done)
WORK: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a new one": (fs(B, C), BLANK, {**NEW, "make": make(B, C)}),
    "a new one with all there is to say": (
        fs(B, C, label="vms", data_profile="raid1", metadata_profile="raid1", options=["noatime", "compress=zstd"]),
        BLANK,
        {
            "make": make("--label", "vms", "--data", "raid1", "--metadata", "raid1", B, C),
            "guard": [VMS],
            "mount": [
                {
                    "path": VMS,
                    "uuid": btrfs.NEW,
                    "options": [*btrfs.OPTIONS, "noatime", "compress=zstd", *btrfs.ORDER],
                }
            ],
        },
    ),
    "a new one over what was given up": (
        fs(B, C, overwrite=[C]),
        seen(disk(B), disk(C, "ext4")),
        {**NEW, "make": make("--force", B, C)},
    ),
    "a new one on the device behind a link": (
        fs(X),
        seen(disk(X, node="/dev/dm-1")),
        {**NEW, "make": make("/dev/dm-1")},
    ),
    "lists as one string, as Ansible takes them": (
        {"path": VMS, "devices": f"{B}, {C}", "options": "noatime,exec"},
        BLANK,
        {
            "make": make(B, C),
            "guard": [VMS],
            "mount": [{"path": VMS, "uuid": btrfs.NEW, "options": [*btrfs.OPTIONS, "noatime", "exec", *btrfs.ORDER]}],
        },
    ),
    "one that is there and not mounted": (fs(B), AWAY, {"guard": [VMS], "mount": [MOUNT]}),
    "one that is there and mounted": (fs(B), HERE, {"mount": [MOUNT]}),
    "one that is mounted and has files": (
        fs(B),
        {**HERE, "found": {"stdout_lines": [f"full d 256 {VMS}"]}},
        {"mount": [MOUNT]},
    ),
    "an empty mount point": (
        fs(B),
        {**AWAY, "found": {"stdout_lines": [f"empty d 2 {VMS}"]}},
        {"guard": [VMS], "mount": [MOUNT]},
    ),
    "a label that it has, as another one does": (
        fs(B, label="vms"),
        seen(disk(B, "btrfs"), made=(made(C, uuid="u2", label="vms"), made(B, label="vms")), mounts=(mount(),)),
        {"mount": [MOUNT]},
    ),
    "no label, as another one has none": (fs(B), seen(disk(B), made=(made(C, label=""),)), {**NEW, "make": make(B)}),
    "both devices of one, one of them named in overwrite": (
        fs(B, C, overwrite=[C]),
        seen(disk(B, "btrfs"), disk(C, "btrfs"), made=(made(B, C),), mounts=(mount(),)),
        {"mount": [MOUNT]},
    ),
    "a profile of one that is found by its label": (
        {"path": VMS, "label": "vms", "data_profile": "raid1"},
        seen(made=(made(C, D, label="vms"),)),
        {"guard": [VMS], "mount": [MOUNT]},
    ),
    "a profile of one that goes": (
        {"path": VMS, "state": "absent", "devices": [B], "data_profile": "raid1"},
        HERE,
        {"unmount": [{"path": VMS, "mounted": True, "exists": True}]},
    ),
    "a profile that is not known yet": (fs(B, data_profile="single"), HERE, {"mount": [MOUNT]}),
    "an option with a comma too many": (
        fs(B, options=["noatime,"]),
        HERE,
        {"mount": [{**MOUNT, "options": [*btrfs.OPTIONS, "noatime", *btrfs.ORDER]}]},
    ),
    "one that is mounted a second time": (
        fs(B),
        seen(disk(B, "btrfs"), made=(made(B),), mounts=(mount(uuid="u2"), mount())),
        {"mount": [MOUNT]},
    ),
    "one on a device of the device mapper": (
        fs(X),
        seen(
            disk(X, "btrfs", node="/dev/dm-1", ids=["/dev/disk/by-id/dm-name-x"]),
            made=(made("/dev/mapper/x"),),
            mounts=(mount(),),
        ),
        {"mount": [MOUNT]},
    ),
    "one by its label": (
        {"path": VMS, "label": "vms"},
        seen(made=(made(C, label="vms"), made(D, uuid="u2"))),
        {"guard": [VMS], "mount": [MOUNT]},
    ),
    "btrfs is not overwritten where nothing tells which is meant": (
        fs(B, overwrite=[B]),
        AWAY,
        {"guard": [VMS], "mount": [MOUNT]},
    ),
    "btrfs is overwritten where another device tells": (
        fs(B, C, overwrite=[C]),
        BOTH,
        {
            "guard": [VMS],
            "mount": [MOUNT],
            "commands": [
                {"say": f"add {C} to file system {VMS}", "argv": ["btrfs", "device", "add", "--force", C, VMS]},
            ],
        },
    ),
    "one more device": (
        fs(B, C),
        seen(disk(B, "btrfs"), disk(C), made=(made(B),), mounts=(mount(),)),
        {
            "mount": [MOUNT],
            "commands": [{"say": f"add {C} to file system {VMS}", "argv": ["btrfs", "device", "add", C, VMS]}],
        },
    ),
    "a device that is not named any more stays": (
        fs(B),
        seen(disk(B, "btrfs"), made=(made(B, C),), mounts=(mount(),)),
        {"mount": [MOUNT]},
    ),
    "another label": (
        fs(B, label="vms"),
        HERE,
        {
            "mount": [MOUNT],
            "commands": [
                {"say": f"label file system {VMS}", "argv": ["btrfs", "filesystem", "label", VMS, "vms"]},
            ],
        },
    ),
    "the same profile": (
        fs(B, data_profile="single"),
        {**HERE, "told": {"results": [{"item": DF, "stdout": "Data, single: total=1\nMetadata, DUP: total=1"}]}},
        {"mount": [MOUNT]},
    ),
    "subvolumes of a new one": (
        images(nocow=True, quota="1GiB"),
        BLANK,
        {
            **NEW,
            "make": make(B),
            "subvolumes": [{**SUBVOLUME, "uuid": ""}],
            "nocow": ["/srv/vms/images"],
            "commands": [ON, limits("1073741824", "1GiB")],
        },
    ),
    "what is in one that is not mounted is not known": (
        images(nocow=True, quota="1GiB"),
        AWAY,
        {"guard": [VMS], "mount": [MOUNT]},
    ),
    "a new subvolume": (
        fs(subvolumes=[{"name": "iso"}]),
        HERE,
        {"mount": [MOUNT], "subvolumes": [{"uuid": "u1", "name": "/iso", "path": "/srv/vms/iso"}]},
    ),
    "files to be changed in place": (
        images(nocow=True),
        {**HERE, "found": FOUND_EMPTY, "flags": {"stdout_lines": ["---------------------- /srv/vms/images"]}},
        {"mount": [MOUNT], "nocow": ["/srv/vms/images"]},
    ),
    "files that are changed in place": (
        images(nocow=True),
        {
            **HERE,
            "found": {"stdout_lines": ["full d 256 /srv/vms/images"]},
            "flags": {"stdout_lines": ["---------------C------ /srv/vms/images"]},
        },
        {"mount": [MOUNT]},
    ),
    "a quoted false is none": (images(nocow="false"), HERE, {"mount": [MOUNT]}),
    "a limit, quotas being off": (
        images(quota="1GiB"),
        HERE,
        {"mount": [MOUNT], "commands": [ON, limits("1073741824", "1GiB")]},
    ),
    "a limit, quotas being on": (
        images(quota="1GB"),
        {**HERE, "told": {"results": [{"item": SHOW, "stdout": LIMITED}]}},
        {"mount": [MOUNT], "commands": [limits("1000000000", "1GB")]},
    ),
    "the same limit": (
        images(quota="1024M"),
        {**HERE, "told": {"results": [{"item": SHOW, "stdout": LIMITED}]}},
        {"mount": [MOUNT]},
    ),
    "no limit any more": (
        images(quota="none"),
        {**HERE, "told": {"results": [{"item": SHOW, "stdout": LIMITED}]}},
        {"mount": [MOUNT], "commands": [limits("none", "none")]},
    ),
    "no limit, quotas being off": (images(quota="none"), HERE, {"mount": [MOUNT]}),
    "no quotas for a subvolume that goes": (
        fs(subvolumes=[{"name": "images/old", "state": "absent", "delete_data": True, "quota": "1GiB"}]),
        HERE,
        {
            "mount": [MOUNT],
            "gone": [{"uuid": "u1", "name": "/images/old", "path": "/srv/vms/images/old"}],
        },
    ),
    "a subvolume, and one of another file system is mounted by that name": (
        fs(subvolumes=[{"name": "images/old", "state": "absent", "delete_data": True}]),
        {
            **HERE,
            "mounts": {"stdout": json.dumps({"filesystems": [mount(), mount("/mnt", "u2", fsroot="/images/old")]})},
        },
        {
            "mount": [MOUNT],
            "gone": [{"uuid": "u1", "name": "/images/old", "path": "/srv/vms/images/old"}],
        },
    ),
    "a subvolume that is gone": (
        fs(subvolumes=[{"name": "iso", "state": "absent", "delete_data": True}]),
        HERE,
        {"mount": [MOUNT]},
    ),
    "to be unmounted": (
        {"path": VMS, "state": "absent", "devices": [B]},
        HERE,
        {"unmount": [{"path": VMS, "mounted": True, "exists": True}]},
    ),
    "to be unmounted, its data kept by a quoted false": (
        {**GONE, "delete_data": "no"},
        HERE,
        {"unmount": [{"path": VMS, "mounted": True, "exists": True}]},
    ),
    "to be unmounted, its device a guest's": (
        {**GONE, "delete_data": False},
        seen(disk(B, "btrfs", users=[GUEST]), made=(made(B),), mounts=(mount(),)),
        {"unmount": [{"path": VMS, "mounted": True, "exists": True}]},
    ),
    "to be made blank, and another one stays": (
        GONE,
        {**BOTH, "mounts": {"stdout": json.dumps({"filesystems": [mount("/srv/other", "u2")]})}},
        {"blank": [{"say": f"make {B} blank", "argv": ["wipefs", "--all", B]}]},
    ),
    "to be made blank": (
        {**GONE, "devices": [B, C]},
        seen(disk(B, "btrfs"), disk(C, "btrfs"), made=(made(B, C),), mounts=(mount(),)),
        {
            "unmount": [{"path": VMS, "mounted": True, "exists": True}],
            "blank": [
                {"say": f"make {B} blank", "argv": ["wipefs", "--all", B]},
                {"say": f"make {C} blank", "argv": ["wipefs", "--all", C]},
            ],
        },
    ),
    "to be made blank, and begun before": (
        {**GONE, "devices": [B, C]},
        seen(disk(B), disk(C, "btrfs"), made=(made(C),)),
        {"blank": [{"say": f"make {C} blank", "argv": ["wipefs", "--all", C]}]},
    ),
    "only what holds it is made blank": (GONE, seen(disk(B, "ext4"), made=(made(C),)), {}),
    "to be taken out of fstab": (
        {"path": VMS, "state": "absent"},
        seen(fstab=(VMS,), found=(f"empty d 2 {VMS}",)),
        {"unmount": [{"path": VMS, "mounted": False, "exists": True}]},
    ),
    "to be taken out of fstab, the mount point being gone": (
        {"path": VMS, "state": "absent"},
        seen(fstab=(VMS,)),
        {"unmount": [{"path": VMS, "mounted": False, "exists": False}]},
    ),
    "gone already": (GONE, seen(disk(B), mounts=(mount("/run", None, "tmpfs"),)), {}),
    "libvirt's files say nothing where nothing goes": (
        fs(B),
        {**HERE, "users": {"stdout_lines": STAY}},
        {"mount": [MOUNT]},
    ),
}


@pytest.mark.parametrize("name", WORK)
def test_done(name: str) -> None:
    item, host, work = WORK[name]
    plan = planned(item, on=host)
    assert plan["problems"] == []
    assert what_is_done(plan) == work


def test_before_anything_was_looked_at() -> None:
    plan = planned(fs(B, C), {"path": "/srv/b", "devices": [B], "state": "absent"}, on=EMPTY)
    assert (plan["named"], plan["problems"], what_is_done(plan)) == ([B, C], [], {})


def test_btrfs_is_not_refused_before_it_is_known_whose_it_is() -> None:
    host = seen(disk(B, "btrfs", users=[f"mounted on {VMS}"]), made=None)
    plan = planned(fs(B), on=host)
    assert (plan["problems"], what_is_done(plan)) == ([], {})


@pytest.mark.parametrize("order", [1, -1], ids=["the new path first", "the old path first"])
def test_one_that_moves_to_another_path(order: int) -> None:
    items = [{"path": "/srv/new", "devices": [B]}, {**GONE, "delete_data": False}]
    plan = planned(*items[::order], on=HERE)
    assert plan["problems"] == []
    assert what_is_done(plan) == {
        "guard": ["/srv/new"],
        "mount": [{**MOUNT, "path": "/srv/new"}],
        "unmount": [{"path": VMS, "mounted": True, "exists": True}],
    }


def test_what_is_wrong_with_one_keeps_nothing_of_the_other_from_being_told() -> None:
    plan = planned(fs(B, B), {"path": "/srv/b", "devices": [D]}, on=seen(disk(B), disk(D, exists=False)))
    assert plan["problems"] == [f"device {B}: is given twice; name it once", f"device {D}: {LS}"]
    assert what_is_done(plan) == {}


def test_what_is_looked_at() -> None:
    item = fs(data_profile="single", subvolumes=[{"name": "images", "nocow": True, "quota": "1GiB"}, {"name": "iso"}])
    plan = planned(item, on=HERE)
    assert plan["places"] == [VMS, "/srv/vms/images", "/srv/vms/iso"]
    assert plan["flagged"] == ["/srv/vms/images"]
    assert plan["reads"] == [DF, SHOW]
    assert (plan["watched"], plan["patterns"]) == ([], [])
    for wanted, host in ((item, AWAY), (item, BLANK), (fs(), HERE)):
        assert planned(wanted, on=host)["reads"] == []


def test_what_libvirt_is_asked_for() -> None:
    """Each place where its XML has a path: the text of an element, an attribute, and anything below."""
    path = "/srv/a&b"
    plan = planned({"path": path, "state": "absent"}, on=seen(mounts=(mount(path),)))
    assert plan["watched"] == [path]
    for text in ("<path>/srv/a&amp;b</path>", "<source file='/srv/a&amp;b/web.raw'/>", "<source dir='/srv/a&amp;b'/>"):
        assert [pattern for pattern in plan["patterns"] if pattern in text], text
    for text in ("<path>/srv/a&amp;bc</path>", "<path>/data/srv/a&amp;b</path>"):
        assert not [pattern for pattern in plan["patterns"] if pattern in text], text


@pytest.mark.parametrize(
    ("wanted", "on", "message"),
    [
        ({"path": VMS}, EMPTY, "btrfs_plan: a list of file systems is needed, each a dictionary"),
        ([VMS], EMPTY, "btrfs_plan: a list of file systems is needed, each a dictionary"),
        ([], {"disks": {}}, f"btrfs_plan: a dictionary of what was seen is needed, with {', '.join(btrfs.SEEN)}"),
        ([], None, f"btrfs_plan: a dictionary of what was seen is needed, with {', '.join(btrfs.SEEN)}"),
    ],
    ids=["no list", "no items", "less than was seen", "nothing seen"],
)
def test_filter_refuses(wanted: Any, on: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError) as error:
        btrfs_plan(wanted, on)
    assert str(error.value) == message
