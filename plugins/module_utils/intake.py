# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images may come in: asked by every way in before any tool reads one."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .guards import DEEPEST_CHAIN
from .headers import COMPRESSED, CONTENTS, SECTOR, Inspected, inspect
from .images import acting_as, open_image

IMPORTED = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx")
FOLLOWED = ("qcow2", "qcow", "qed")  # formats whose backing stores are named by images.probe(), too


@dataclass(frozen=True)
class Limits:
    """What a way in accepts. backing is for the members of a chain, whose names chain() follows."""

    formats: tuple[str, ...] = IMPORTED
    virtual_size: int = 64 << 40
    table: int = 128 << 20  # bytes that a tool reads into its memory at once
    depth: int = DEEPEST_CHAIN
    backing: bool = False


LIMITS = Limits()


class Refusal(NamedTuple):
    """Why an image may not come in, and what to do instead."""

    code: str
    reason: str
    way_out: str


FLATTEN = "flatten it where it comes from (qemu-img convert without -B), and give the result"
MEND = "look at it with qemu-img check where it comes from, or get it anew"
GET_ANEW = "get it anew, and compare its checksum"
ONE_FILE = "make one file of it (qemu-img convert, or vmware-vdiskmanager -t 0)"
WAYS_OUT = {
    "truncated": GET_ANEW,
    "unreadable": "mend the storage that it lies on",
    "not_a_file": "give a file or a block device",
    "corrupt": "repair it with qemu-img check -r all where it comes from",
    "external_extents": ONE_FILE,
    "encryption": "convert it to one without encryption, or with LUKS",
    "log": "open it once for writing in the program that made it, and close it",
}


def refusals(found: Inspected, declared: str | None = None, limits: Limits = LIMITS) -> list[Refusal]:
    """Why an image may not come in; empty for one that may."""
    several = one_format(found)
    if several:
        return several
    wrong = declared_format(found, declared, limits)
    if wrong:
        return wrong
    refused = [Refusal(code, reason, WAYS_OUT.get(code, MEND)) for code, reason in found.faults]
    return refused + other_files(found, limits) + features(found) + sizes(found, limits) + tables(found, limits)


def notes(found: Inspected, declared: str | None = None) -> list[str]:
    """What is only remarkable about an image that may come in."""
    said = [reason for dummy, reason in found.notes]
    if found.encrypted:
        said.append("it is encrypted")
    if declared == "raw" and found.content in COMPRESSED:
        said.append(f"it begins as a file compressed by {found.content}, and is taken as a raw disk")
    return said


def one_format(found: Inspected) -> list[Refusal]:
    """An image is of one format. Only a fixed VHD may begin with what any raw disk may begin with."""
    contents = [name for name in found.formats if name in CONTENTS]
    if len(found.formats) < 2 or (found.variant == "fixed" and set(found.formats) == {"vpc", *contents[:1]}):
        return []
    names = " and ".join(found.formats)
    return [
        Refusal("several_formats", f"it can be read as {names}", "convert it where it comes from, and say from what")
    ]


def declared_format(found: Inspected, declared: str | None, limits: Limits) -> list[Refusal]:
    """What it is must be what it is said to be, and of the formats that may come in."""
    if declared is not None and found.format != declared:
        why = f"its format is {found.format}, not {declared} as declared"
        return [Refusal("format_mismatch", why, f"declare {found.format} if that is meant, else get it anew")]
    if found.compression:
        return [Refusal("compressed", f"it is compressed by {found.compression}", "have it decompressed on the way")]
    if found.format not in limits.formats:
        way_out = "declare raw to take it as it is" if found.format == "luks" else "convert it to raw or qcow2 first"
        return [Refusal("unsupported_format", f"images of format {found.format} are not taken", way_out)]
    return []


def other_files(found: Inspected, limits: Limits) -> list[Refusal]:
    """An image that comes in is whole: nothing of it lies in files that its header names."""
    refused = []
    if found.backing is not None and not (limits.backing and found.format == "qcow2"):
        refused.append(Refusal("backing_file", f"it stands on {shown(found.backing.name)}", FLATTEN))
    if found.data_file is not None:
        refused.append(Refusal("data_file", f"its data lie in {shown(found.data_file)}", FLATTEN))
    if found.extents:
        names = ", ".join(shown(name) for name in found.extents[:3])
        refused.append(Refusal("external_extents", f"it names the extents {names}", ONE_FILE))
    return refused


def of_member(path: str, form: str) -> list[Refusal]:
    """Why a file that is there may not be a member of a chain, but for the name of its own backing store."""
    descriptor = open_image(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = inspect(descriptor, form)
    finally:
        os.close(descriptor)
    if found.format in FOLLOWED:
        found.backing = None  # its name is followed by whoever asks
    return refusals(found, form, replace(LIMITS, virtual_size=1 << 63, formats=(*IMPORTED, "qed", "qcow")))


def features(found: Inspected) -> list[Refusal]:
    """What is not known can't be guarded."""
    refused = []
    if found.unknown_features:
        why = f"it has features that are not known here ({found.unknown_features:#x})"
        refused.append(Refusal("unknown_features", why, "convert it to raw or qcow2 where it comes from"))
    if found.encrypted == "aes":
        why = "its AES encryption is not supported by QEMU any more"
        refused.append(Refusal("encryption", why, WAYS_OUT["encryption"]))
    return refused


def sizes(found: Inspected, limits: Limits) -> list[Refusal]:
    """The virtual size is a disk's."""
    size = found.virtual_size
    if size is None:
        return [] if found.faults else [Refusal("bad_header", "it does not tell its virtual size", MEND)]
    if not size:
        return [Refusal("empty", "it is empty", GET_ANEW)]
    if size > limits.virtual_size:
        why = f"a virtual size of {size} bytes is above the limit of {limits.virtual_size}"
        return [Refusal("too_large", why, "make it smaller where it comes from, or raise the limit")]
    if size % SECTOR:
        why = f"its virtual size of {size} bytes is no whole number of sectors, and QEMU drops the rest"
        return [Refusal("bad_header", why, "resize it to a multiple of 512 where it comes from")]
    return []


def tables(found: Inspected, limits: Limits) -> list[Refusal]:
    """The tables lie in the file and fit into memory."""
    refused = []
    for name, offset, length, most, align, least in found.tables:
        if length > min(most, limits.table):
            refused.append(Refusal("bad_table", f"its {name} of {length} bytes is too large", MEND))
        elif offset % align:
            refused.append(Refusal("bad_table", f"its {name} at {offset} is not aligned", MEND))
        elif length and offset < least:
            refused.append(Refusal("bad_table", f"its {name} would lie in its header", MEND))
        elif offset + length > found.size:
            refused.append(Refusal("bad_table", f"its {name} lies outside the file", GET_ANEW))
    return refused


def shown(name: str) -> str:
    """A name out of a header, fit for a message."""
    if name == "?":
        return "another file"
    return ascii(name if len(name) <= 120 else f"{name[:120]}...")


# Chains ------------------------------------------------------------------------------------------------------------

# As QEMU's path_has_protocol(), and options in place of a name.
PROTOCOL = re.compile(r"[^/]*:|[^/]*=")
SYSTEM = ("/dev/", "/proc/", "/sys/")


class Member(NamedTuple):
    """One image of a chain, and the descriptor that holds it where the caller keeps them."""

    path: str
    found: Inspected
    descriptor: int = -1


class Chain(NamedTuple):
    """The images from the top down, as far as they could be followed, and why not further."""

    members: list[Member]
    refusal: Refusal | None = None


def chain(
    path: str,
    directories: Sequence[str],
    declared: str | None = None,
    limits: Limits = LIMITS,
    keep: contextlib.ExitStack | None = None,
) -> Chain:
    """Follow an image to its base, by plain paths inside the directories only.

    Each header must record the format of what it stands on: else a tool would guess it. Where keep is given the
    members stay open until it is closed, so that whoever reads them reads what was inspected.
    """
    limits = replace(limits, backing=True)
    members: list[Member] = []
    seen: set[tuple[int, int]] = set()
    while True:
        if len(members) >= limits.depth:
            why = f"its chain is deeper than {limits.depth}"
            return Chain(members, Refusal("chain_depth", f"{shown(path)}: {why}", FLATTEN))
        opened = open_within(path, directories)
        if isinstance(opened, Refusal):
            return Chain(members, opened)
        with contextlib.ExitStack() as passing:
            (keep if keep is not None else passing).callback(os.close, opened)
            status = os.fstat(opened)
            if (status.st_dev, status.st_ino) in seen:
                return Chain(members, Refusal("chain_loop", f"{shown(path)} stands on itself", "rebase it"))
            seen.add((status.st_dev, status.st_ino))
            found = inspect(opened, declared)
        members.append(Member(path, found, opened if keep is not None else -1))
        for code, reason, way_out in refusals(found, declared, limits)[:1]:
            return Chain(members, Refusal(code, f"{shown(path)}: {reason}", way_out))
        if found.backing is None:
            return Chain(members)
        if not found.backing.format:
            why = f"{shown(path)} does not record the format of {shown(found.backing.name)}"
            return Chain(members, Refusal("format_undeclared", why, "rebase it with qemu-img rebase -u -F"))
        refused = not_plain(found.backing.name)
        if refused:
            return Chain(members, refused)
        path = posixpath.join(posixpath.dirname(path), found.backing.name)
        declared = found.backing.format


def not_plain(name: str) -> Refusal | None:
    """Why a name is no plain path of a file: it names a protocol, options, a device, or can't be shown."""
    way_out = "rebase it on a file in a pool of this host"
    if not name or re.search(r"[\x00-\x1f\x7f]", name):
        return Refusal("bad_backing", f"{shown(name)} is no name of a file", way_out)
    if PROTOCOL.match(name):
        return Refusal("bad_backing", f"{shown(name)} is not a plain path", way_out)
    if ".." in name.split("/"):
        # where a link is on the way, the kernel goes up from elsewhere than the text says
        return Refusal("bad_backing", f"{shown(name)} goes up by ..", way_out)
    if posixpath.normpath(name).startswith(SYSTEM):
        return Refusal("bad_backing", f"{shown(name)} is a device or the kernel's", way_out)
    return None


def open_within(path: str, directories: Sequence[str]) -> int | Refusal:
    """A descriptor of a plain file below one of the directories, reached without links; or why there is none."""
    way_out = "move it into a pool of this host"
    path = posixpath.normpath(path)
    inside = [folder.rstrip("/") for folder in directories if path.startswith(f"{folder.rstrip('/')}/")]
    if not path.startswith("/") or not inside:
        return Refusal("backing_outside", f"{shown(path)} lies in no pool of this host", way_out)
    folder = max(inside, key=len)
    try:
        descriptor = walk(folder, path[len(folder) + 1 :].split("/"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Refusal("bad_backing", f"{shown(path)} can't be opened without following links ({reason})", way_out)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        what = "has more than one name (hard links)" if stat.S_ISREG(status.st_mode) else "is not a plain file"
        return Refusal("bad_backing", f"{shown(path)} {what}", way_out)
    return descriptor


def walk(folder: str, names: Sequence[str]) -> int:
    """Open a file below a directory step by step, so that no link on the way is followed."""
    base = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.ExitStack() as opened:
        # the directory itself is the administrator's, and may be reached by links
        at = os.open(folder, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
        opened.callback(os.close, at)
        for name in names[:-1]:
            at = os.open(os.fsencode(name), os.O_PATH | os.O_DIRECTORY | base, dir_fd=at)
            opened.callback(os.close, at)
        return open_last(os.fsencode(names[-1]), base, at)


def open_last(name: bytes, flags: int, folder: int) -> int:
    """A descriptor of a file; as its owner where a server takes root for nobody (root_squash)."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        if os.geteuid() != 0:
            raise
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        with acting_as(status.st_uid, status.st_gid):
            return os.open(name, flags, dir_fd=folder)
