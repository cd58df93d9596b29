# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Block devices from a tree like that of sysfs, and the guard that asks who uses them; the lab has real ones."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import block, guards
from ansible_collections.kvm.storage.plugins.module_utils.backends import iscsi, scsi
from ansible_collections.kvm.storage.plugins.module_utils.errors import StepFailed, StorageError

TARGET, PORTAL = "iqn.2026-01.a:disks", {"name": "192.0.2.1"}
OPTIONS = {"target_iqn": TARGET, "hosts": [PORTAL]}


@pytest.fixture
def sys(tmp_path, monkeypatch):
    """Makes attributes of a sysfs."""
    monkeypatch.setattr(block, "SYS", str(tmp_path))

    def attribute(path, value=""):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    return attribute


def session(sys, number, address="192.0.2.1", initiator="iqn.2026-01.a:host", target=TARGET, devices=("sdb",)):
    sys(f"class/iscsi_session/session{number}/targetname", target)
    sys(f"class/iscsi_session/session{number}/initiatorname", initiator)
    sys(f"class/iscsi_connection/connection{number}:0/persistent_address", address)
    sys(f"class/iscsi_connection/connection{number}:0/persistent_port", "3260")
    for lun, device in enumerate(devices):
        place = f"class/iscsi_session/session{number}/device/target{number}:0:0/{number}:0:0:{lun}/block/{device}/dev"
        sys(place, f"8:{number}{lun}")


# devices


def test_luns_are_in_the_order_of_their_addresses(sys):
    for place in ("3:0:0:10/block/sdc", "3:0:0:2/block/sdb", "3:0:0:1/block/sdaa", "13:0:0:0/block/sdz"):
        sys(f"bus/scsi/devices/{place}/dev", "8:1")
    assert block.luns("host3") == ["/dev/sdaa", "/dev/sdb", "/dev/sdc"]
    assert block.luns("host1") == []


def test_what_stands_on_a_device_and_its_partitions(sys):
    sys("class/block/sdx/dev", "8:16")
    sys("class/block/sdx/sdx1/partition", "1")
    sys("class/block/sdx/sdx1/dev", "8:17")
    sys("class/block/sdx/queue/dev", "9:9")
    sys("class/block/sdx/holders/md7/x")
    sys("class/block/sdx/sdx1/holders/dm-3/x")
    sys("class/block/dm-3/dm/name", "vg-root")
    assert block.numbers("/dev/sdx") == {"8:16", "8:17"}
    assert block.holders("/dev/sdx") == ["md7", "vg-root"]
    assert block.staying_users("/dev/sdx") == ["held by md7", "held by vg-root"]


def test_devices_of_one_number(sys):
    for device, number in {"sda": "naa.1", "sdb": "naa.2", "sdc": "naa.1", "sdd": "", "sde": ""}.items():
        sys(f"class/block/{device}/device/wwid", number)
    assert block.same_number([f"/dev/sd{letter}" for letter in "abcdef"]) == ["/dev/sda", "/dev/sdc"]


def test_mounts_and_swaps(tmp_path, monkeypatch):
    monkeypatch.setattr(block, "number_of", {"/dev/sdb1": "8:17", "/dev/sdc": "8:32"}.get)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "36 35 8:5 / /mnt/my\\040disk rw,relatime shared:1 - ext4 /dev/sda5 rw\n"
        "40 35 0:44 /sub /srv rw - btrfs /dev/sdb1 rw,subvol=/sub\n"
    )
    assert block.mounts(str(mounts)) == [("8:5", "/mnt/my disk"), ("8:17", "/srv")]
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/dev/sdc partition 1 0 -2\n")
    assert block.swaps(str(swaps)) == ["8:32"]


@pytest.mark.parametrize(
    ("staying", "opened", "claimed", "users", "looks"),
    [
        ([], [[]], [False], {}, 1),
        (["mounted on /mnt"], [[]], [True], {"/dev/sdx": ["mounted on /mnt"]}, 1),
        ([], [["open in udev (process 7)"], []], [False], {}, 2),
        ([], [["open in dd (process 8)"]], [False], {"/dev/sdx": ["open in dd (process 8)"]}, 0),
        ([], [[]], [True], {"/dev/sdx": ["something has it for itself"]}, 0),
        ([], [[]], [True, True, False], {}, 2),
    ],
)
def test_who_uses_a_device(monkeypatch, staying, opened, claimed, users, looks):
    """What only passes is looked at again; a look at what stays is enough."""
    looked = []

    def look(devices):
        looked.append(devices)
        return {devices[0]: list(opened[min(len(looked), len(opened)) - 1])}

    answers = iter(claimed)
    monkeypatch.setattr(block, "staying_users", lambda device: list(staying))
    monkeypatch.setattr(block, "openers", look)
    monkeypatch.setattr(block, "claimed", lambda device: next(answers, claimed[-1]))
    assert guards.device_users("pool 'x'", ["/dev/sdx"], 0.5) == users
    assert len(looked) == looks if looks else len(looked) > 1


def test_a_guard_that_can_not_see_refuses(monkeypatch):
    monkeypatch.setattr(block, "claimed", lambda device: None)
    with pytest.raises(StorageError) as refused:
        guards.device_users("pool 'x'", ["/dev/sdx"], 0)
    assert refused.value.code == "guard_unavailable"
    assert guards.device_users("pool 'x'", [], 0) == {}


# iscsi


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ({TARGET: ["192.0.2.1:3260"]}, None, []),
        ({TARGET: []}, None, []),
        (None, None, []),
        ({TARGET: ["192.0.2.9:3260"]}, None, ["is at 192.0.2.9:3260 and not here"]),
        ({"iqn.2026-01.a:other": []}, "no_source", ["iqn.2026-01.a:host; it has iqn.2026-01.a:other"]),
        ({}, "no_source", ["none at all"]),
        ({f"iqn.2026-01.a:{one}": [] for one in range(9)}, "no_source", ["a:4, 4 more"]),
        (TimeoutError(), "unreachable", ["does not answer"]),
    ],
)
def test_what_a_portal_must_offer(sys, monkeypatch, found, code, words):
    def offered(*asked):
        assert asked == ("192.0.2.1", 3260, "iqn.2026-01.a:host", 3)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(iscsi.sendtargets, "initiator_of_host", lambda: "iqn.2026-01.a:host")
    monkeypatch.setattr(iscsi.sendtargets, "offered", offered)
    try:
        said = iscsi.preflight("pool 'x'", OPTIONS, 3)
    except StorageError as error:
        assert error.code == code
        said = [str(error)]
    else:
        assert code is None
    assert len(said) == len(words)
    assert all(word in text for word, text in zip(words, said))


def test_a_session_that_is_there(sys, monkeypatch):
    monkeypatch.setattr(iscsi.sendtargets, "offered", lambda *asked: pytest.fail("nobody need be asked"))
    session(sys, 1)
    session(sys, 2, address="192.0.2.2", devices=("sdc",))
    session(sys, 3, target="iqn.2026-01.a:more", devices=("sdd",))
    (told,) = iscsi.preflight("pool 'x'", OPTIONS, 3)
    assert "logged in" in told
    assert iscsi.detaches(OPTIONS) == ["/dev/sdb"], "the other portal's session goes on"
    elsewhere = {**OPTIONS, "hosts": [{"name": "192.0.2.7"}]}
    with pytest.raises(StorageError) as refused:
        iscsi.preflight("pool 'x'", elsewhere, 3)
    assert (refused.value.code, "192.0.2.1:3260" in str(refused.value)) == ("source_conflict", True)
    assert iscsi.detaches(elsewhere) == ["/dev/sdb", "/dev/sdc"], "what can't be told apart counts"


def iscsiadm(said, done=0):
    """What is run, and an iscsiadm that says this for each kind of record."""
    ran = []

    def run(argv, **dummy):
        ran.append(" ".join(argv[1:]))
        return done if "delete" in argv else 0, said.get(argv[2], ""), "no"

    return ran, run


LOGIN, OWN = {"auth": {"username": "u", "secret_usage": "s"}}, {"initiator_iqn": "iqn.2026-01.a:me"}
NODE = f"-m node -T {TARGET} -p 192.0.2.1:3260"
IFACES = "default tcp,<empty>,<empty>,<empty>,<empty>\nlibvirt-iface-1 tcp,<empty>,<empty>,<empty>,iqn.2026-01.a:me\n"
IFACES += "mine tcp,<empty>,<empty>,<empty>,iqn.2026-01.a:me\n"


@pytest.mark.parametrize(
    ("more", "record", "ran"),
    [
        ({}, "node.startup = manual", []),
        (LOGIN, "node.startup = manual", [NODE, f"{NODE} -o delete"]),
        (LOGIN, "node.startup = automatic", [NODE]),
        (LOGIN, "", [NODE]),
        (OWN, "", ["-m iface", "-m iface -I libvirt-iface-1 -o delete"]),
        ({"initiator_iqn": "iqn.2026-01.a:busy"}, "", []),
        (
            {**LOGIN, "hosts": [{"name": "[2001:db8::1]", "port": 3261}]},
            "",
            [NODE.replace("192.0.2.1:3260", "[2001:db8::1]:3261")],
        ),
    ],
)
def test_what_is_taken_away_after_a_stop(sys, monkeypatch, more, record, ran):
    """A record with the pool's password, and an interface that libvirt made; never what others made or use."""
    session(sys, 1, initiator="iqn.2026-01.a:busy")
    commands, run = iscsiadm({"node": record, "iface": IFACES})
    monkeypatch.setattr("ansible_collections.kvm.storage.plugins.module_utils.commands.runner", run)
    iscsi.leaves("pool 'x'", {**OPTIONS, **more})
    assert commands == ran


@pytest.mark.parametrize(("status", "fails"), [(0, False), (21, False), (15, False), (6, True)])
def test_what_can_not_be_taken_away(sys, monkeypatch, status, fails):
    dummy, run = iscsiadm({"node": "node.startup = manual"}, status)
    monkeypatch.setattr("ansible_collections.kvm.storage.plugins.module_utils.commands.runner", run)
    try:
        iscsi.leaves("pool 'x'", {**OPTIONS, **LOGIN})
    except StepFailed:
        assert fails
    else:
        assert not fails


# scsi


@pytest.fixture
def adapters(sys, tmp_path):
    """Two adapters of one PCI device, and one of Fibre Channel."""
    for name, place in {
        "host2": "0000:00:01.1/ata1/host2",
        "host3": "0000:00:01.1/ata2/host3",
        "host10": "0000:00:07.0/host10",
    }.items():
        real = f"devices/pci0000:00/{place}/scsi_host/{name}"
        sys(f"{real}/unique_id", {"host3": 2}.get(name, 0))
        (tmp_path / "class/scsi_host").mkdir(parents=True, exist_ok=True)
        (tmp_path / "class/scsi_host" / name).symlink_to(tmp_path / real)
    sys("class/fc_host/host10/node_name", "0x20000000c9831b4b")
    sys("class/fc_host/host10/port_name", "0x10000000c9831b4b")
    sys("bus/scsi/devices/10:0:0:0/block/sdx/dev", "8:1")


def address(slot, function, number):
    return {"parent_address": {"bus": "0x00", "slot": slot, "function": function, "unique_id": number}}


@pytest.mark.parametrize(
    ("adapter", "found", "gone"),
    [
        ({"name": "host2"}, "host2", []),
        ({"name": "scsi_host3"}, "host3", []),
        ({"name": "scsi_host1"}, None, []),
        (address("0x01", "0x1", 2), "host3", []),
        (address("1", "1", 0), "host2", []),
        (address("0x01", "0x1", 7), None, []),
        (address("0x1f", "0x1", 0), None, []),
        ({"type": "fc_host", "wwnn": "20000000c9831b4b", "wwpn": "10000000c9831b4b"}, "host10", ["/dev/sdx"]),
        ({"type": "fc_host", "wwnn": "20000000c9831b4b", "wwpn": "10000000c9831b4c"}, None, []),
        ({"name": "host10"}, "host10", []),
    ],
)
def test_which_adapter_is_meant(adapters, adapter, found, gone):
    """Only a virtual Fibre Channel host takes its LUNs along when the pool stops."""
    options = {"adapter": {"type": "scsi_host", **adapter}, "path": "/dev"}
    assert scsi.adapter_of(options) == found
    assert scsi.detaches(options) == gone
    if found is None and options["adapter"]["type"] == "scsi_host":
        with pytest.raises(StorageError, match=r"host2 \(0000:00:01.1, unique_id 0\), host3 .*, host10") as refused:
            scsi.preflight("pool 'x'", options, 3)
        assert refused.value.code == "no_source"
    else:
        assert scsi.preflight("pool 'x'", options, 3) == []


def test_luns_without_a_name(adapters, monkeypatch):
    options = {"adapter": {"type": "scsi_host", "name": "host10"}}
    (told,) = scsi.preflight("pool 'x'", options, 3)
    assert "/dev/sdx of its adapter has no name in /dev/disk/by-path" in told
    assert scsi.start_hint("timeout", options) == told
    assert scsi.preflight("pool 'x'", {**options, "path": "/srv/disks"}, 3) == [], "there libvirt takes /dev/sdx"
    assert "/dev/sdx may have" not in scsi.start_hint("An error occurred, but the cause is unknown", options)
    assert "same WWN" in scsi.start_hint("An error occurred, but the cause is unknown", options)
    assert scsi.start_hint("no such thing", options) == ""


@pytest.mark.parametrize(("number", "agrees"), [(0, False), (1, True), (None, True)])
def test_the_schema_wants_a_number_above_0(number, agrees):
    adapter = {"type": "scsi_host", **(address("1", "1", number) if number is not None else {"name": "host1"})}
    assert scsi.schema_agrees({"adapter": adapter}) is agrees
