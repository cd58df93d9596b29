# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chains of real volumes: flattened, put on another base, merged, with what a guest sees compared before and after."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import libvirt
import pytest

from ansible_collections.kvm.storage.plugins.module_utils import blockjob
from tests.integration.helpers import UTILS, Host, connected, make_image, mutable, poison, qemu_img, switched_off
from tests.servers.ceph import Ceph
from tests.servers.guest import disk_xml, domain_xml, killed, start_guest
from tests.servers.libvirtd import Libvirtd

NAMES = ["base.qcow2", "one.qcow2", "two.qcow2", "three.qcow2", "four.qcow2"]
TOP = {"pool": "images", "name": NAMES[-1], "format": "qcow2"}
TWO = {"pool": "images", "name": "two.qcow2", "format": "qcow2"}
MIB = 1 << 20


@pytest.fixture
def host(fresh_hypervisor: Libvirtd) -> Host:
    return Host(fresh_hypervisor.uri, fresh_hypervisor.shared)


@pytest.fixture
def images(host: Host, scratch: Path) -> Iterator[Path]:
    host.ok("pool_dir", name="images", path=f"{scratch}/images")
    yield scratch / "images"
    mutable(scratch)


@pytest.fixture
def family(host: Host, images: Path) -> Path:
    """A chain of five, each with a MiB of its own and one that hides a part of what lies below."""
    for number, name in enumerate(NAMES):
        backing = {"backing": {"volume": NAMES[number - 1], "format": "qcow2"}} if number else {}
        host.ok("volume", pool="images", name=name, format="qcow2", capacity="8MiB", **backing)
        write(images / name, number + 1, number * MIB, MIB)
        write(images / name, number + 101, 7 * MIB + number * 65536, 2 * 65536)
    return images


def write(path: Path, pattern: int, offset: int, length: int, form: str = "qcow2") -> None:
    command = ["qemu-io", "-f", form, "-c", f"write -P {pattern} {offset} {length}", str(path)]
    subprocess.run(command, check=True, capture_output=True)


def seen(path: Path, form: str = "qcow2") -> str:
    """The checksum of what a guest would see."""
    raw = path.with_name(f"{path.name}.seen")
    try:
        subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", str(path), str(raw)], check=True)
        return hashlib.sha256(raw.read_bytes()).hexdigest()
    finally:
        raw.unlink(missing_ok=True)


def backing_of(path: Path) -> tuple[str | None, str | None]:
    told = qemu_img("-f", "qcow2", path)
    return told.get("full-backing-filename"), told.get("backing-filename-format")


def unrecorded(path: Path, base: Path) -> None:
    """An overlay as older tools made it: the format of its base is not in its header."""
    make_image("qcow2", path, "8M", "-u", "-b", str(base), "-F", "qcow2")
    data = path.read_bytes()
    at = data.index(struct.pack(">II", 0xE2792ACA, 5))  # the extension that has it becomes one that nobody knows
    path.write_bytes(data[:at] + struct.pack(">II", 0x12345678, 5) + data[at + 8 :])


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".kvm.storage-")]


def defined(name: str, path: Path) -> str:
    return domain_xml(name, disk_xml(str(path), driver="qcow2"))


# flatten


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"compat": "0.10", "cluster_size": "4KiB"},
        {"cluster_size": "128KiB", "extended_l2": True},
        {"lazy_refcounts": True, "permissions": {"mode": "0640", "owner": "1", "group": "2"}},
    ],
)
def test_flatten_keeps_what_the_guest_sees_and_what_the_volume_is(
    host: Host, family: Path, made: dict[str, Any]
) -> None:
    path = family / "top.qcow2"
    volume = {"pool": "images", "name": "top.qcow2", "format": "qcow2"}
    host.ok("volume", **volume, **made, capacity="12MiB", backing={"volume": NAMES[-1], "format": "qcow2"})
    write(path, 99, 9 * MIB, MIB)
    before, told, status = seen(path), qemu_img("-f", "qcow2", path), path.stat()
    done = host.converge("volume_flatten", ["flatten"], f"backing:       {family}/four.qcow2", "none", **volume)
    assert done["warnings"] == []
    assert (seen(path), backing_of(path)) == (before, (None, None))
    after = qemu_img("-f", "qcow2", path)
    for name in ("virtual-size", "cluster-size", "format-specific"):
        assert after[name] == told[name], name
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    assert host.volume("images", "top.qcow2").find("backingStore") is None
    assert hidden(family) == []
    host.unchanged("volume", **volume, **made, capacity="12MiB")
    for name in reversed(NAMES):
        host.ok("volume", pool="images", name=name, state="absent")
    assert seen(path) == before, "it needs nothing of what it stood on"


def test_flatten_in_the_middle_of_a_chain(host: Host, family: Path) -> None:
    before = seen(family / NAMES[-1])
    host.converge("volume_flatten", ["flatten"], **TWO)
    assert seen(family / NAMES[-1]) == before
    assert backing_of(family / "three.qcow2") == (f"{family}/two.qcow2", "qcow2")


def test_flatten_of_an_overlay_of_a_raw_base(host: Host, images: Path, scratch: Path) -> None:
    host.ok("pool_dir", name="bases", path=f"{scratch}/bases")
    host.ok("volume", pool="bases", name="base.raw", format="raw", capacity="5MiB", immutable=True)
    volume = {"pool": "images", "name": "over.qcow2", "format": "qcow2"}
    backing = {"pool": "bases", "volume": "base.raw", "format": "raw"}
    host.ok("volume", **volume, capacity="8MiB", backing=backing)
    write(images / "over.qcow2", 7, 4 * MIB, 2 * MIB)
    before = seen(images / "over.qcow2")
    host.converge("volume_flatten", ["flatten"], **volume)
    assert seen(images / "over.qcow2") == before


def test_flatten_only_what_is_deeper_than_it_may_be(host: Host, family: Path) -> None:
    before = seen(family / NAMES[-1])
    assert host.unchanged("volume_flatten", **TOP, max_depth=4)["warnings"] == []
    predicted = host.ok("volume_flatten", **TOP, max_depth=3, check=True)
    assert any("stands on 4 others" in one for one in predicted["warnings"]), predicted["warnings"]
    host.converge("volume_flatten", ["flatten"], **TOP, max_depth=3)
    assert seen(family / NAMES[-1]) == before


def test_what_stands_alone_is_left(host: Host, family: Path) -> None:
    host.ok("volume", pool="images", name="disk.raw", format="raw", capacity="1MiB")
    host.unchanged("volume_flatten", pool="images", name="disk.raw", format="raw")
    host.unchanged("volume_flatten", pool="images", name="base.qcow2", format="qcow2")


def test_flatten_is_refused_where_something_would_be_lost(host: Host, family: Path, scratch: Path) -> None:
    host.refused("volume_flatten", "no_volume", pool="images", name="none.qcow2", format="qcow2")
    host.refused("volume_flatten", "format_undeclared", pool="images", name=TOP["name"])
    host.refused("volume_flatten", "format_mismatch", **{**TOP, "format": "raw"})
    host.ok("volume", **TWO, immutable=True)
    host.refused("volume_flatten", "immutable", **TWO)
    subprocess.run(["qemu-img", "bitmap", "--add", str(family / "three.qcow2"), "b1"], check=True)
    host.refused("volume_flatten", "unsupported", "bitmaps", pool="images", name="three.qcow2", format="qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "s1", str(family / TOP["name"])], check=True)
    host.refused("volume_flatten", "unsupported", "1 internal snapshots", **TOP)
    outside = make_image("qcow2", scratch / "outside.qcow2", "8M")
    make_image("qcow2", family / "strange.qcow2", "8M", "-b", str(outside), "-F", "qcow2")
    host.refused("volume_flatten", "backing_outside", pool="images", name="strange.qcow2", format="qcow2")
    unrecorded(family / "plain.qcow2", family / "base.qcow2")
    host.refused("volume_flatten", "format_undeclared", pool="images", name="plain.qcow2", format="qcow2")


def test_header_that_a_guest_wrote_is_not_followed(host: Host, images: Path, scratch: Path) -> None:
    host.ok("volume", pool="images", name="disk.raw", format="raw", capacity="8MiB")
    poison(images / "disk.raw", scratch / "canary")
    for module, more in (("volume_flatten", {}), ("volume_commit", {})):
        host.refused(module, "format_mismatch", pool="images", name="disk.raw", format="raw", **more)
    facts = host.ok("volume_info", pool="images", names=["disk.raw"], refresh=True, chain_info=True)["volumes"][0]
    assert [one["path"] for one in facts["chain"]] == [f"{images}/disk.raw", f"{scratch}/canary"]
    assert any("lies in no pool" in one for one in facts["warnings"])
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk_xml(f"{images}/disk.raw")))
    facts = host.ok("volume_info", pool="images", names=["disk.raw"], chain_info=True)["volumes"][0]
    assert [one["path"] for one in facts["chain"]] == [f"{images}/disk.raw"], "its format is declared by then"
    assert any("declared raw, but its header says qcow2" in one for one in facts["warnings"])


def test_copy_that_is_not_the_same_never_takes_the_place(host: Host, family: Path) -> None:
    before = family.joinpath(TOP["name"]).read_bytes()
    with mock.patch(f"{UTILS}qemu_img.compare", return_value=False):
        for module, more in (
            ("volume_flatten", {}),
            ("volume_rebase", {"backing": {"volume": "base.qcow2", "format": "qcow2"}}),
            ("volume_commit", {}),
        ):
            host.failed(module, "not_equal", **TOP, **more)
            assert family.joinpath(TOP["name"]).read_bytes() == before
            assert hidden(family) == []


# guests


def test_flatten_by_the_running_guest(host: Host, family: Path) -> None:
    before = seen(family / TOP["name"])
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"), persistent=True)
        for name in NAMES[:-1]:
            if name != "base.qcow2":
                host.refused("volume_flatten", "in_use", "'web01'", pool="images", name=name, format="qcow2")
        done = host.converge("volume_flatten", ["flatten"], pool="images", name=TOP["name"])
        assert done["changed"], "the format is that of its domain"
        assert guest.isActive()
        assert "<source file='" + str(family / "three.qcow2") not in guest.XMLDesc()
        assert (seen(family / TOP["name"]), backing_of(family / TOP["name"])) == (before, (None, None))
        for name in reversed(NAMES[:-1]):
            host.ok("volume", pool="images", name=name, state="absent")
        killed(guest)
    assert seen(family / TOP["name"]) == before, "and nothing of it is only in the memory of QEMU"


def test_job_of_a_run_before_is_waited_for(host: Host, family: Path) -> None:
    before, in_bytes = seen(family / TOP["name"]), libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"))
        guest.blockPull("vda", 65536, in_bytes)  # which takes a minute
        host.failed("volume_flatten", "timeout", **TOP, timeout=1)
        assert not guest.blockJobInfo("vda")
        assert backing_of(family / TOP["name"])[0] == f"{family}/three.qcow2"
        guest.blockPull("vda", 65536, in_bytes)  # which takes a minute
        looks: list[blockjob.Job | None] = []

        def look(place: blockjob.Place, real: Any = blockjob.Place.job) -> blockjob.Job | None:
            looks.append(real(place))
            if len(looks) == 4:
                guest.blockJobSetSpeed("vda", 1000, 0)
            return looks[-1]

        second = mock.patch.object(libvirt.virDomain, "blockPull", side_effect=AssertionError("a second job"))
        with second, mock.patch.object(blockjob.Place, "job", look):
            host.ok("volume_flatten", **TOP)
        assert len(looks) > 4 and all(looks[:4]) and looks[-1] is None, "there was a job to wait for"
        assert (seen(family / TOP["name"]), backing_of(family / TOP["name"])) == (before, (None, None))


def test_another_job_is_not_disturbed(host: Host, family: Path, scratch: Path) -> None:
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"))
        copy = f"<disk type='file'><driver type='raw'/><source file='{scratch}/copy.raw'/></disk>"
        guest.blockCopy("vda", copy, {"bandwidth": MIB}, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
        host.failed("volume_flatten", "busy", "copy", **TOP)
        host.failed("volume_commit", "busy", "copy", **TOP, delete=True)
        assert guest.blockJobInfo("vda")["type"] == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY


def test_disk_of_another_hypervisor(host: Host, family: Path, run_root: Path) -> None:
    base = {"backing": {"volume": "base.qcow2", "format": "qcow2"}}
    with Libvirtd(run_root / "neighbour") as neighbour:
        start_guest(neighbour.uri, "theirs", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"))
        for name in ("two.qcow2", TOP["name"]):
            volume = {"pool": "images", "name": name, "format": "qcow2"}
            host.refused("volume_flatten", "in_use", "QEMU process", **volume)
            host.refused("volume_rebase", "in_use", "QEMU process", **volume, **base)
            host.refused("volume_commit", "in_use", "QEMU process", **volume)
        with switched_off("chain:image_locked", False):
            host.failed("volume_flatten", "in_use", "QEMU process", **TWO)  # asked once more before it takes the place
        with switched_off("chain:image_locked", False), switched_off("exclusive:lock"):
            host.ok("volume_flatten", **TWO)
    assert backing_of(family / "two.qcow2") == (None, None), "without the guard it is taken from under its guest"


NEED_DOMAINS: dict[str, dict[str, Any]] = {
    "volume_flatten": TOP,
    "volume_rebase": {**TOP, "backing": {"volume": "one.qcow2", "format": "qcow2"}},
    "volume_commit": TOP,
}


@pytest.mark.parametrize("module", NEED_DOMAINS)
def test_domains_that_can_not_be_listed(host: Host, family: Path, module: str) -> None:
    before = host.state()

    def refuse(connection: libvirt.virConnect, flags: int = 0) -> list[libvirt.virDomain]:
        raise libvirt.libvirtError("Cannot recv data: Connection reset by peer")

    with mock.patch.object(libvirt.virConnect, "listAllDomains", refuse):
        for check in (True, False):
            result = host.run(module, check=check, **NEED_DOMAINS[module])
            assert (result.get("failed"), result["code"]) == (True, "guard_unavailable"), result
    assert host.state() == before


@pytest.mark.parametrize("module", NEED_DOMAINS)
def test_without_the_guard_the_chain_of_a_guest_changes(host: Host, family: Path, module: str) -> None:
    """Of a guest that another libvirt runs on an overlay of its own."""
    with connected(host.uri) as connection:
        over = make_image("qcow2", family.parent / "over.qcow2", "8M", "-b", f"{family}/{TOP['name']}", "-F", "qcow2")
        start_guest(connection, "web01", disk_xml(str(over), driver="qcow2"))
        host.refused(module, "in_use", "'web01'", **NEED_DOMAINS[module])
        before = family.joinpath(TOP["name"]).stat().st_ino, backing_of(family / TOP["name"])
        with (
            switched_off("operation:Operation.attachment"),
            switched_off("operation:Operation.require_unused"),
            switched_off("chainwork:Commit.check_base"),
            switched_off("chainwork:ChainWork.require_same"),
            switched_off("exclusive:lock"),
        ):
            if module == "volume_commit":  # QEMU's own lock on the base is the last that holds
                host.failed(module, "backend_refused", "lock", **NEED_DOMAINS[module])
            else:
                host.ok(module, **NEED_DOMAINS[module])
                assert (family.joinpath(TOP["name"]).stat().st_ino, backing_of(family / TOP["name"])) != before


def test_definition_that_writes_down_the_chain(host: Host, family: Path) -> None:
    """QEMU would put the old base below the new image, and its holes would show what lies there."""
    zeroes = ["qemu-io", "-f", "qcow2", "-c", "write -z 0 1M", str(family / TOP["name"])]
    subprocess.run(zeroes, check=True, capture_output=True)
    chain = f"<backingStore type='file'><format type='qcow2'/><source file='{family}/three.qcow2'/></backingStore>"
    disk = disk_xml(str(family / TOP["name"]), driver="qcow2").replace("<target", f"{chain}<target")
    with connected(host.uri) as connection:
        connection.defineXML(domain_xml("web01", disk))
        host.refused("volume_flatten", "in_use", "virsh edit web01", **TOP)
        base = {"volume": "base.qcow2", "format": "qcow2"}
        host.refused("volume_rebase", "in_use", "virsh edit web01", **TOP, backing=base)
        guest = connection.lookupByName("web01")
        guest.create()
        host.converge("volume_flatten", ["flatten"], **TOP)
        assert f"{family}/three.qcow2" not in guest.XMLDesc(2), "libvirt changes that of a running guest"
        guest.destroy()


@pytest.mark.parametrize("module", NEED_DOMAINS)
def test_what_is_written_meanwhile_is_not_lost(host: Host, family: Path, module: str) -> None:
    """A guest that came and went while the copy was compared."""
    import importlib

    real = importlib.import_module(f"{UTILS}qemu_img").compare

    def compare(*given: Any) -> bool:
        same = bool(real(*given))
        write(family / TOP["name"], 200, 5 * MIB, MIB)
        return same

    for delete in [{}, {"delete": True}] if module == "volume_commit" else [{}]:
        with mock.patch(f"{UTILS}qemu_img.compare", compare):
            host.failed(module, "in_use", "meanwhile", **NEED_DOMAINS[module], **delete)
        told = ["qemu-io", "-f", "qcow2", "-c", "read -P 200 5M 1M", str(family / TOP["name"])]
        assert "verification failed" not in subprocess.run(told, check=True, capture_output=True, text=True).stdout
        assert backing_of(family / TOP["name"])[0] == f"{family}/three.qcow2"
        assert hidden(family) == []


def test_flatten_needs_room(host: Host, family: Path) -> None:
    with mock.patch(f"{UTILS}headroom.space", return_value=(64 * MIB, MIB)):
        host.refused("volume_flatten", "no_space", **TOP)


# rebase


def test_rebase_keeps_what_the_guest_sees(host: Host, family: Path) -> None:
    host.ok("volume", pool="images", name="other.raw", format="raw", capacity="10MiB")
    write(family / "other.raw", 55, 0, 6 * MIB, "raw")
    before, above = seen(family / "two.qcow2"), seen(family / TOP["name"])
    for backing in (
        {"volume": "other.raw", "format": "raw"},  # another content, and a larger one
        {"path": f"{family}/base.qcow2", "format": "qcow2"},
        {"volume": "one.qcow2", "format": "qcow2"},
        {"volume": "base.qcow2", "format": "qcow2"},  # inside of its own chain
    ):
        host.converge("volume_rebase", ["rebase"], **TWO, backing=backing)
        path = backing.get("path") or f"{family}/{backing['volume']}"
        assert backing_of(family / "two.qcow2") == (path, backing["format"])
        assert (seen(family / "two.qcow2"), seen(family / TOP["name"])) == (before, above)
        assert hidden(family) == []
    host.converge("volume_flatten", ["flatten"], **TWO)
    host.converge("volume_rebase", ["rebase"], **TWO, backing={"volume": "other.raw", "format": "raw"})
    assert seen(family / "two.qcow2") == before, "also what stood alone"


def test_rebase_of_an_overlay_that_is_larger_than_its_bases(host: Host, family: Path) -> None:
    volume = {"pool": "images", "name": "large.qcow2", "format": "qcow2"}
    host.ok("volume", **volume, capacity="20MiB", backing={"volume": NAMES[-1], "format": "qcow2"})
    write(family / "large.qcow2", 3, 12 * MIB, MIB)
    before = seen(family / "large.qcow2")
    host.converge("volume_rebase", ["rebase"], **volume, backing={"volume": "one.qcow2", "format": "qcow2"})
    assert seen(family / "large.qcow2") == before


def test_rebase_by_name_alone_is_compared(host: Host, family: Path, scratch: Path) -> None:
    host.ok("pool_dir", name="bases", path=f"{scratch}/bases")
    moved = scratch / "bases" / "moved.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(family / "one.qcow2"), str(moved)], check=True)
    before, inode = seen(family / "two.qcow2"), (family / "two.qcow2").stat().st_ino
    other = {"volume": "base.qcow2", "format": "qcow2"}
    result = host.run("volume_rebase", **TWO, backing=other, content="same")
    assert (result.get("failed"), result["code"]) == (True, "not_equal")
    assert backing_of(family / "two.qcow2") == (f"{family}/one.qcow2", "qcow2")
    host.converge("volume_rebase", ["rebase"], **TWO, backing={"path": str(moved), "format": "qcow2"}, content="same")
    assert (seen(family / "two.qcow2"), (family / "two.qcow2").stat().st_ino) == (before, inode)


def test_base_that_was_moved_is_trusted_when_asked_to(host: Host, family: Path, scratch: Path) -> None:
    host.ok("pool_dir", name="bases", path=f"{scratch}/bases")
    before = seen(family / "two.qcow2")
    os.rename(family / "one.qcow2", scratch / "bases" / "one.qcow2")
    host.ok("volume_info", pool="bases", refresh=True)
    backing = {"pool": "bases", "volume": "one.qcow2", "format": "qcow2"}
    host.refused("volume_rebase", "bad_backing", **TWO, backing=backing)
    done = host.converge("volume_rebase", ["rebase"], **TWO, backing=backing, content="trust")
    assert "TRUSTS" in str(done["diff"])
    assert seen(family / "two.qcow2") == before


def test_format_that_was_not_recorded_is_recorded(host: Host, family: Path) -> None:
    unrecorded(family / "plain.qcow2", family / "base.qcow2")
    volume = {"pool": "images", "name": "plain.qcow2", "format": "qcow2"}
    host.ok("volume_info", pool="images", refresh=True)
    facts = host.ok("volume_info", pool="images", names=["plain.qcow2"], chain_info=True)["volumes"][0]
    assert any("does not record the format" in one for one in facts["warnings"])
    backing = {"volume": "base.qcow2", "format": "qcow2"}
    host.refused("volume_rebase", "format_undeclared", **volume, backing=backing)
    host.converge("volume_rebase", ["rebase"], **volume, backing=backing, content="trust")
    assert backing_of(family / "plain.qcow2") == (f"{family}/base.qcow2", "qcow2")


def test_rebase_is_refused(host: Host, family: Path, scratch: Path) -> None:
    base = {"volume": "base.qcow2", "format": "qcow2"}
    outside = make_image("qcow2", scratch / "outside.qcow2", "8M")
    rows: list[tuple[str, dict[str, Any]]] = [
        ("no_backing", {"volume": "none.qcow2", "format": "qcow2"}),
        ("format_undeclared", {"volume": "base.qcow2"}),
        ("format_mismatch", {"volume": "base.qcow2", "format": "raw"}),
        ("backing_outside", {"path": str(outside), "format": "qcow2"}),
        ("bad_backing", {"volume": "three.qcow2", "format": "qcow2"}),  # stands on it
    ]
    for code, backing in rows:
        host.refused("volume_rebase", code, **TWO, backing=backing)
    subprocess.run(["qemu-img", "snapshot", "-c", "s1", str(family / "three.qcow2")], check=True)
    host.refused(
        "volume_rebase", "unsupported", "snapshots", pool="images", name="three.qcow2", format="qcow2", backing=base
    )
    host.ok("volume", **TWO, immutable=True)
    host.refused("volume_rebase", "immutable", **TWO, backing=base)


def test_rebase_by_the_running_guest(host: Host, family: Path) -> None:
    before = seen(family / TOP["name"])
    host.ok("volume", pool="images", name="other.qcow2", format="qcow2", capacity="8MiB")
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"))
        other = {"volume": "other.qcow2", "format": "qcow2"}
        base = {"volume": "base.qcow2", "format": "qcow2"}
        host.refused("volume_rebase", "in_use", "stands on already", **TOP, backing=other)
        guest.suspend()
        host.refused("volume_rebase", "in_use", "is paused", **TOP, backing=base)
        host.refused("volume_flatten", "in_use", "is paused", **TOP)
        guest.resume()
        host.refused("volume_rebase", "in_use", "content: keep", **TOP, backing=base, content="trust")
        host.converge("volume_rebase", ["rebase"], **TOP, backing=base)
        assert guest.isActive()
        assert (seen(family / TOP["name"]), backing_of(family / TOP["name"])[0]) == (before, f"{family}/base.qcow2")
        for name in ("three.qcow2", "two.qcow2", "one.qcow2"):
            host.ok("volume", pool="images", name=name, state="absent")
        killed(guest)
    assert seen(family / TOP["name"]) == before


def test_disk_of_a_running_guest_becomes_no_base(host: Host, family: Path) -> None:
    host.ok("volume", pool="images", name="live.qcow2", format="qcow2", capacity="8MiB")
    with connected(host.uri) as connection:
        start_guest(connection, "web01", disk_xml(f"{family}/live.qcow2", driver="qcow2"))
        live = {"volume": "live.qcow2", "format": "qcow2"}
        host.refused("volume_rebase", "in_use", "'web01'", **TWO, backing=live)
        with switched_off("chainwork:Rebase.require_quiet_base"):
            host.ok("volume_rebase", **TWO, backing=live, content="trust")
    assert backing_of(family / "two.qcow2")[0] == f"{family}/live.qcow2", "without the guard"


# commit


def test_commit_into_the_base(host: Host, family: Path) -> None:
    before, inode = seen(family / TOP["name"]), (family / "three.qcow2").stat().st_ino
    done = host.converge("volume_commit", ["commit"], **TOP)
    assert "CHANGES ITS BASE" in str(done["diff"]) or done["changed"]
    assert seen(family / TOP["name"]) == seen(family / "three.qcow2") == before
    assert backing_of(family / TOP["name"]) == (f"{family}/three.qcow2", "qcow2")
    assert (family / "three.qcow2").stat().st_ino == inode
    assert qemu_img("-f", "qcow2", family / TOP["name"])["actual-size"] < MIB, "it is empty"
    host.converge("volume_commit", ["delete"], **TOP, delete=True)
    assert not (family / TOP["name"]).exists()
    for name in reversed(NAMES[1:-1]):
        volume = {"pool": "images", "name": name, "format": "qcow2"}
        host.converge("volume_commit", ["commit", "delete"], **volume, delete=True)
    assert seen(family / "base.qcow2") == before
    assert host.volumes("images") == ["base.qcow2"]
    assert hidden(family) == []


def test_commit_in_the_middle_of_a_chain(host: Host, family: Path) -> None:
    """Those above see the same, as long as it stays."""
    before = seen(family / TOP["name"])
    host.refused("volume_commit", "has_overlays", "images/three.qcow2", **TWO, delete=True)
    host.converge("volume_commit", ["commit"], **TWO)
    assert seen(family / TOP["name"]) == before


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_smaller_base_grows(host: Host, images: Path, form: str) -> None:
    base = f"base.{form}"
    host.ok("volume", pool="images", name=base, format=form, capacity="4MiB")
    write(images / base, 9, MIB, MIB, form)
    volume = {"pool": "images", "name": "over.qcow2", "format": "qcow2"}
    host.ok("volume", **volume, capacity="8MiB", backing={"volume": base, "format": form})
    write(images / "over.qcow2", 5, 3 * MIB, 2 * MIB)
    before = seen(images / "over.qcow2")
    host.converge("volume_commit", ["commit", "delete"], **volume, delete=True)
    assert seen(images / base, form) == before
    host.unchanged("volume", pool="images", name=base, format=form, capacity="8MiB")


def test_commit_is_refused_where_somebody_else_sees_the_base(host: Host, family: Path, scratch: Path) -> None:
    host.ok("pool_dir", name="others", path=f"{scratch}/others")
    sibling = {"pool": "others", "name": "sibling.qcow2", "format": "qcow2"}
    backing = {"pool": "images", "volume": "three.qcow2", "format": "qcow2"}
    host.ok("volume", **sibling, backing=backing)
    host.refused("volume_commit", "has_overlays", "others/sibling.qcow2", **TOP)
    before = seen(scratch / "others" / "sibling.qcow2")
    with switched_off("chain:overlays", []):
        host.ok("volume_commit", **TOP)
    assert seen(scratch / "others" / "sibling.qcow2") != before, "without the guard another disk is changed"
    host.ok("volume", pool="others", name="sibling.qcow2", state="absent")
    write(family / TOP["name"], 77, 0, MIB)
    with connected(host.uri) as connection:
        connection.defineXML(defined("web01", family / TOP["name"]))
        host.refused("volume_commit", "in_use", "would be gone", **TOP, delete=True)
        connection.lookupByName("web01").undefine()
        connection.defineXML(defined("web02", family / "three.qcow2"))
        host.refused("volume_commit", "in_use", "'web02' (defined)", **TOP)
        connection.lookupByName("web02").undefine()
        outside = make_image("qcow2", scratch / "o.qcow2", "8M", "-b", f"{family}/three.qcow2", "-F", "qcow2")
        start_guest(connection, "web03", disk_xml(str(outside), driver="qcow2"))
        host.refused("volume_commit", "in_use", "'web03' (running)", **TOP)
        connection.lookupByName("web03").destroy()
    host.ok("volume", pool="images", name="three.qcow2", format="qcow2", immutable=True)
    host.refused("volume_commit", "immutable", "three.qcow2", **TOP)
    host.ok("volume", pool="images", name="three.qcow2", format="qcow2", immutable=False)
    host.refused("volume_commit", "no_backing", pool="images", name="base.qcow2", format="qcow2")
    host.unchanged("volume_commit", pool="images", name="gone.qcow2", format="qcow2", delete=True)
    host.refused("volume_commit", "no_volume", pool="images", name="gone.qcow2", format="qcow2")
    small = {"pool": "images", "name": "small.qcow2", "format": "qcow2"}
    host.ok("volume", **small, capacity="4MiB", backing={"volume": TOP["name"], "format": "qcow2"})
    write(family / "small.qcow2", 1, 0, MIB)
    host.refused("volume_commit", "would_shrink", **small)
    host.converge("volume_commit", ["commit"], **TOP)


def test_overlays_that_can_not_be_read_blind_the_guard(host: Host, family: Path) -> None:
    host.ok("volume", pool="images", name="other.raw", format="raw", capacity="1MiB")
    real = libvirt.virStorageVol.XMLDesc

    def refuse(volume: libvirt.virStorageVol, flags: int = 0) -> str:
        if volume.name() == "other.raw":
            raise libvirt.libvirtError("cannot open volume: Input/output error")
        return str(real(volume, flags))

    with mock.patch.object(libvirt.virStorageVol, "XMLDesc", refuse):
        host.refused("volume_commit", "guard_unavailable", "images/other.raw", **TOP)


def test_volume_that_leaves_no_snapshots_behind(host: Host, images: Path) -> None:
    """It goes into its base; a snapshot of it that holds a copy would be that of nobody."""
    host.ok("volume", pool="images", name="base.qcow2", format="qcow2", capacity="8MiB")
    over = {"pool": "images", "name": "over.qcow2", "format": "qcow2"}
    host.ok("volume", **over, backing={"volume": "base.qcow2", "format": "qcow2"})
    copy = images / "over.qcow2@one"
    copy.write_bytes((images / "over.qcow2").read_bytes())
    mark = {"role": "copy", "time": 1, "size": 8 * MIB}
    os.setxattr(copy, "user.kvm.storage.snapshot", json.dumps({copy.name: mark}).encode())
    host.refused("volume_commit", "has_snapshots", "'one'", "leave delete out", **over, delete=True)
    with switched_off("volume:Volume.own_snapshots", []):
        assert host.ok("volume_commit", check=True, **over, delete=True)["actions"] == ["delete"]


def test_commit_by_the_running_guest(host: Host, family: Path) -> None:
    before = seen(family / TOP["name"])
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"), persistent=True)
        host.refused("volume_commit", "in_use", "give delete: true", **TOP)
        host.converge("volume_commit", ["commit", "delete"], **TOP, delete=True)
        assert guest.isActive()
        for flags in (0, 2):
            assert f"<source file='{family}/three.qcow2'" in guest.XMLDesc(flags)
        assert seen(family / "three.qcow2") == before
        assert not (family / TOP["name"]).exists()
        killed(guest)
        assert seen(family / "three.qcow2") == before
        while guest.isActive():
            time.sleep(0.05)
        guest.create()
    assert seen(family / "three.qcow2") == before


def test_commit_that_a_run_before_has_left_is_completed(host: Host, family: Path) -> None:
    before = seen(family / TOP["name"])
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk_xml(f"{family}/{TOP['name']}", driver="qcow2"))
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
        guest.blockCommit("vda", None, None, 0, flags)
        with mock.patch.object(libvirt.virDomain, "blockCommit", side_effect=AssertionError("a second job")):
            host.ok("volume_commit", **TOP, delete=True)
        assert not guest.blockJobInfo("vda")
        assert f"<source file='{family}/three.qcow2'" in guest.XMLDesc()
    assert seen(family / "three.qcow2") == before


# what there is


def test_chains_are_told(host: Host, family: Path) -> None:
    facts = host.ok("volume_info", pool="images", names=[TOP["name"]], chain_info=True)["volumes"][0]
    assert [one["volume"] for one in facts["chain"]] == NAMES[::-1]
    assert (facts["depth"], facts["warnings"]) == (4, [])
    for one in facts["chain"][1:]:
        assert (one["pool"], one["format"], one["recorded_format"]) == ("images", "qcow2", "qcow2")
        assert one["capacity"] == 8 * MIB
        assert one["allocation"] == (family / one["volume"]).stat().st_blocks * 512
    facts = host.ok("volume_info", pool="images", names=[TOP["name"]], chain_info=True, max_depth=3)["volumes"][0]
    assert [one for one in facts["warnings"] if "max_depth" in one]
    assert "chain" not in host.ok("volume_info", pool="images", names=[TOP["name"]])["volumes"][0]
    onto = ["-u", "-b", TOP["name"], "-F", "qcow2"]
    subprocess.run(["qemu-img", "rebase", *onto, str(family / "base.qcow2")], check=True)
    facts = host.ok("volume_info", pool="images", names=[TOP["name"]], chain_info=True)["volumes"][0]
    assert any("stands on itself" in one for one in facts["warnings"])


# RBD


@pytest.fixture
def rbd(host: Host, ceph: Ceph) -> Iterator[str]:
    """The pool vms, with a clone of the second depth and the content that it shall have."""
    host.ok("secret", usage="ceph", usage_name="admin", value=ceph.key())
    monitors = [{"name": name, "port": port} for name, port in ceph.monitors]
    auth = {"username": "admin", "secret_usage": "admin"}
    host.ok("pool_rbd", name="vms", source_name="rbd", hosts=monitors, auth=auth)
    host.ok("volume", pool="vms", name="chain-base", capacity="16MiB")
    below = "chain-base"
    bench = ("bench", "--io-type", "write", "--io-size", "4K", "--io-total")
    for number, name in enumerate(("chain-one", "chain-two")):
        ceph.run("rbd", *bench, f"{number + 1}M", f"rbd/{below}")
        ceph.run("rbd", "snap", "create", f"rbd/{below}@s")
        ceph.run("rbd", "snap", "protect", f"rbd/{below}@s")
        ceph.run("rbd", "clone", f"rbd/{below}@s", f"rbd/{name}")
        below = name
    yield "chain-two"
    with connected(host.uri) as connection:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            domain.destroy()
    for name in ("chain-two", "chain-one", "chain-base"):
        if "s" in ceph.run("rbd", "snap", "ls", f"rbd/{name}").split():
            ceph.run("rbd", "snap", "unprotect", f"rbd/{name}@s")
            ceph.run("rbd", "snap", "rm", f"rbd/{name}@s")
        ceph.run("rbd", "rm", f"rbd/{name}")


def exported(ceph: Ceph, image: str, scratch: Path) -> str:
    path = scratch / "exported"
    ceph.run("rbd", "export", f"rbd/{image}", str(path))
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        path.unlink()


def test_clones_of_rbd(host: Host, rbd: str, ceph: Ceph, scratch: Path) -> None:
    before = exported(ceph, rbd, scratch)
    facts = host.ok("volume_info", pool="vms", names=[rbd], refresh=True, chain_info=True)["volumes"][0]
    assert [one["path"] for one in facts["chain"]] == ["rbd/chain-two", "rbd/chain-one@s", "rbd/chain-base@s"]
    assert [one["volume"] for one in facts["chain"]] == ["chain-two", "chain-one", "chain-base"]
    assert facts["depth"] == 2
    host.unchanged("volume_flatten", pool="vms", name=rbd, max_depth=2)
    host.unchanged("volume_flatten", pool="vms", name="chain-base")
    host.converge("volume_flatten", ["flatten"], "backing:       rbd/chain-one@s", pool="vms", name=rbd)
    assert exported(ceph, rbd, scratch) == before
    assert ceph.run("rbd", "children", "rbd/chain-one@s").split() == []
    host.refused("volume_rebase", "unsupported", pool="vms", name=rbd, backing={"path": "/x", "format": "raw"})
    host.refused("volume_commit", "unsupported", pool="vms", name=rbd)


def test_clone_of_rbd_with_an_object_that_was_only_noted(host: Host, rbd: str, ceph: Ceph, scratch: Path) -> None:
    """What a killed client leaves: the object map has an object that was never written. rbd flatten relies on it."""
    before = exported(ceph, rbd, scratch)
    place = f"rbd/{rbd}"
    ceph.run("rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K", place)
    prefix = json.loads(ceph.run("rbd", "info", "--format", "json", place))["block_name_prefix"]
    ceph.run("rados", "-p", "rbd", "rm", f"{prefix}.{0:016x}")
    assert exported(ceph, rbd, scratch) == before
    host.ok("volume_info", pool="vms", refresh=True)
    host.ok("volume_flatten", pool="vms", name=rbd)
    assert exported(ceph, rbd, scratch) == before
    about = json.loads(ceph.run("rbd", "info", "--format", "json", place))
    assert {"object-map", "fast-diff"} <= set(about["features"])
    assert about["flags"] == []


def test_clone_of_rbd_under_a_running_guest(host: Host, rbd: str, ceph: Ceph, scratch: Path) -> None:
    before = exported(ceph, rbd, scratch)
    name, port = ceph.monitors[0]
    disk = (
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<auth username='admin'><secret type='ceph' usage='admin'/></auth>"
        f"<source protocol='rbd' name='rbd/{rbd}'><host name='{name}' port='{port}'/></source>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    host.ok("volume_info", pool="vms", refresh=True)
    with connected(host.uri) as connection:
        guest = start_guest(connection, "web01", disk)
        host.converge("volume_flatten", ["flatten"], pool="vms", name=rbd)
        assert guest.isActive()
    assert exported(ceph, rbd, scratch) == before
