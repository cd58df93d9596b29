# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wiping: what a volume holds is overwritten where it lies, and the volume is an empty one of its format afterwards."""

from __future__ import annotations

import os
import stat
from typing import Any

from . import connection as connections
from . import headroom, permissions, reconcile
from .errors import StepFailed, StorageError
from .operation import OPERATION_SPEC, Operation
from .plan import Plan
from .volume import WIPING, shown

# As libvirt numbers them (virStorageVolWipeAlgorithm); scrub(1) has the same names for all but the first and the last.
ALGORITHMS: tuple[str, ...] = (
    *("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random", "trim"),
)
BY_SCRUB = ALGORITHMS[1:-1]
FORMATS = ("raw", "qcow2")  # of files that can be wiped and made anew
EXTENDED = 2 * 512  # bytes that an extended partition has as a device
CHUNK = 1024 * 1024
ZEROES = bytes(CHUNK)


def argument_spec() -> dict[str, Any]:
    return {
        **OPERATION_SPEC,
        "algorithm": {"type": "str", "choices": list(ALGORITHMS), "default": "zero"},
    }


def plan(before: dict[str, Any]) -> Plan:
    """A wipe is always carried out: no look at a volume tells whether what it held can still be found; pure."""
    if not before["exists"]:
        return Plan()
    there = shown(before)
    return Plan(["wipe"], there, there, risk="DESTROYS DATA, as volume_wipe asks")


class Wipe(Operation):
    """One volume whose data shall be gone."""

    operation = "wipe"
    concurrent = False

    def __init__(self, connection: Any, options: dict[str, Any], planned_pool: Any = None) -> None:
        super().__init__(connection, options, planned_pool)
        self.algorithm = options.get("algorithm") or "zero"

    # reading

    def read(self) -> dict[str, Any]:
        before = super().read()
        if before["foreign"] and self.left_behind(before) and os.lstat(before["path"]).st_nlink == 2:
            before["foreign"] = ""  # its second name is that of a wipe that was ended as it began
        return before

    def left(self) -> str:
        """The name that an old image has while it is overwritten."""
        return os.path.join(self.directory(), f"{WIPING}{self.volume_name}")

    def left_behind(self, before: dict[str, Any]) -> bool:
        """Whether the old image of an ended wipe is the very file of the volume."""
        try:
            return self.is_file(before["path"]) and os.path.samestat(os.lstat(self.left()), os.lstat(before["path"]))
        except FileNotFoundError:
            return False

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan(before)

    # deciding

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        self.require_there(before)
        form = self.format(before)
        self.require_unprotected(before)
        self.check_format(before, form)
        self.require_no_overlays(before)
        way_out = "remove the disk from the domain first; a domain that is off would find it empty"
        self.require_unused(before, running_only=False, way_out=way_out)
        self.backend.wipes(self.label, self.connection, self.pool_options(), self.volume_name)
        self.check_device(before["path"])
        self.check_algorithm(before, form)
        if form == "qcow2":
            self.check_image(before)
        if self.is_file(before["path"]) and self.algorithm in BY_SCRUB:
            headroom.room(self, 0, holes(before["path"]), headroom.Policy("allow"))

    def check_format(self, before: dict[str, Any], form: str) -> None:
        """What is wiped is an empty image of its format again, or nothing is done."""
        if self.backend.makes_directory and form not in FORMATS:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"an image of format {form} can't be made anew as it was",
                way_out="convert it to qcow2 or raw first (volume_convert), or remove it and make it anew",
            )
        if before["encrypted"]:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="wiped it would have lost its LUKS header, and with it its encryption",
                way_out="wipe it in its guest, or remove it and make it anew",
            )
        if before["backing"] and form == "qcow2":
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"it is an overlay, and wiped it would show what its base {before['backing']} holds",
                way_out="flatten it first (volume_flatten), or remove it and make it anew",
            )

    def check_device(self, path: str) -> None:
        """The kernel shows two sectors of an extended partition, in which the table of the logical ones begins."""
        if not self.connection.local or not path.startswith("/dev/"):
            return
        from .transfer import size_of

        if size_of(path) <= EXTENDED:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="it is an extended partition, which is the table of the logical ones",
                way_out="wipe those",
            )

    def check_algorithm(self, before: dict[str, Any], form: str) -> None:
        path, local = before["path"], self.connection.local
        by_libvirt = self.backend.wiped_by if not path.startswith("/") else None
        if by_libvirt is not None and self.algorithm not in by_libvirt:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"a {self.backend.type} pool wipes its volumes by {' or '.join(by_libvirt)} only",
                way_out="use one of these; what the storage does below can't be told from here",
            )
        if not path.startswith("/"):
            return
        if not local and (form == "qcow2" or self.algorithm == "trim" or self.handle is None):
            self.require_local("a program on its host")
        if local and self.algorithm in BY_SCRUB:
            require_command(self.label, "scrub", "install scrub, or use algorithm: zero")
        if local and self.algorithm == "trim":
            require_command(self.label, "fallocate" if self.is_file(path) else "blkdiscard", "install util-linux")

    def check_image(self, before: dict[str, Any]) -> None:
        """What the image itself holds besides its disk."""
        if not self.is_file(before["path"]) or self.left_behind(before):
            return
        from . import nodes, qemu_img

        with nodes.readable(self, "qcow2") as node:
            found = qemu_img.info(self.label, node)
        snapshots = [one["name"] for one in found.get("snapshots", [])]
        if snapshots:
            raise StorageError(
                thing=self.label,
                code="has_snapshots",
                reason=f"its internal snapshots {', '.join(repr(one) for one in snapshots[:5])} would be wiped with it",
                way_out="remove them first (volume_snapshot, or 'qemu-img snapshot -d')",
            )

    # steps

    def wipe(self) -> None:
        path = self.before["path"]
        if not path.startswith("/") or not self.connection.local:
            number = ALGORITHMS.index(self.algorithm)
            connections.retrying(lambda: self.handle.wipePattern(number, 0))
        elif self.is_file(path) and self.format(self.before) == "qcow2":
            self.wipe_image(path)
        else:
            self.overwrite(path)

    def wipe_image(self, path: str) -> None:
        """A new empty image takes the place of the old one at once; what the old one held is then overwritten.

        The old image keeps a name until that is done, so that a later run finds what a killed one left.
        """
        from . import exclusive, files, nodes, qemu_img

        left = self.left()
        if self.left_behind(self.before):
            os.unlink(left)  # the wipe was ended before the new image had its place
        elif os.path.lexists(left):
            self.overwrite(left)
            os.unlink(left)
        with nodes.readable(self, "qcow2") as node:
            found = qemu_img.info(self.label, node)
        with files.hidden(self.directory()) as temporary:
            qemu_img.create(self.label, temporary, "qcow2", found["virtual-size"], kept(found))
            permissions.apply(temporary, permissions.read(path) or {})
            with exclusive.opened(self.label, path) as old:  # no guest takes it, or has taken it, from here on
                try:
                    os.link(path, left, follow_symlinks=False)
                except OSError as error:
                    raise self.no_second_name(error) from None
                files.replace(temporary, path)
                self.connection.unseen(self.pool_name)
                self.erase(old)
        os.unlink(left)
        files.flushed(self.directory())

    def no_second_name(self, error: OSError) -> StorageError:
        return StorageError(
            thing=self.label,
            code="unsupported",
            reason=f"its file system gives no file a second name ({error.strerror}), which the old image must have "
            "until it is overwritten",
            way_out="move it to a file system that has hard links first (volume_migrate)",
        )

    def overwrite(self, path: str) -> None:
        """All that a file or device holds, while no guest can take it."""
        from . import exclusive

        with exclusive.opened(self.label, path) as descriptor:
            self.erase(descriptor)

    def erase(self, descriptor: int) -> None:
        """The bytes behind a descriptor that nobody else has."""
        if self.algorithm == "zero":
            zero(descriptor)
        elif self.algorithm == "trim":
            trim(self.label, descriptor)
        else:
            scrub(self.label, descriptor, self.algorithm)
        os.fsync(descriptor)


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """What a qcow2 keeps for life, as qemu-img create takes it; from what qemu-img info tells."""
    data = found.get("format-specific", {}).get("data", {})
    options = {
        "compat": data.get("compat", "1.1"),
        "cluster_size": found["cluster-size"],
        "refcount_bits": data.get("refcount-bits", 16),
    }
    for option, name in (("lazy_refcounts", "lazy-refcounts"), ("extended_l2", "extended-l2")):
        if data.get(name):
            options[option] = "on"
    if data.get("compression-type", "zlib") != "zlib":
        options["compression_type"] = data["compression-type"]
    return options


def require_command(thing: str, command: str, way_out: str) -> None:
    from .commands import ENVIRONMENT

    if not any(os.access(os.path.join(folder, command), os.X_OK) for folder in ENVIRONMENT["PATH"].split(":")):
        raise StorageError(
            thing=thing,
            code="missing_command",
            reason=f"{command} does this, and it is not on this host",
            way_out=way_out,
        )


def holes(path: str) -> int:
    """What a file would take more if all of it were written."""
    status = os.lstat(path)
    return max(status.st_size - status.st_blocks * 512, 0)


def zero(descriptor: int) -> None:
    """Zeroes over all that is not zero yet; a hole of a file stays one, and so does what a thin device never held."""
    from .streams import extents

    file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    for kind, start, count in extents(descriptor, size) if file else [("data", 0, size)]:
        for offset in range(start, start + count, CHUNK) if kind == "data" else ():
            length = min(CHUNK, start + count - offset)
            if file or os.pread(descriptor, length, offset) != ZEROES[:length]:
                write(descriptor, ZEROES[:length], offset)


def write(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done


def trim(thing: str, descriptor: int) -> None:
    """Give all blocks back, by the programs of util-linux."""
    from .backends.shared import step_by

    argv: tuple[str, ...] = ("blkdiscard", "--force")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        size = os.fstat(descriptor).st_size
        argv = ("fallocate", "--punch-hole", "--offset", "0", "--length", str(size))
    step_by(thing, "wipe", *argv, f"/dev/fd/{descriptor}", keep=[descriptor])


def scrub(thing: str, descriptor: int, algorithm: str) -> None:
    """scrub(1) writes a file up to a whole block of its file system, whose size is then set back; it leaves no mark.

    A device is given by its own name: of a link to one scrub finds no size, does nothing and ends well.
    """
    from .backends.shared import run_native

    status, place = os.fstat(descriptor), f"/dev/fd/{descriptor}"
    if stat.S_ISBLK(status.st_mode):
        place = os.path.realpath(place)
    try:
        argv = ("scrub", "--force", "--no-signature", "--pattern", algorithm, place)
        finished = run_native(thing, *argv, keep=[descriptor])
    finally:
        if stat.S_ISREG(status.st_mode):
            os.ftruncate(descriptor, status.st_size)
    if finished.returncode != 0 or "zero length" in finished.stdout + finished.stderr:
        words = " ".join((finished.stderr or finished.stdout).split())
        raise StepFailed(thing=thing, step="wipe", code="backend_refused", reason=words)


def run() -> None:
    """The main function of the module."""
    reconcile.run(argument_spec(), lambda connection, params: [Wipe(connection, params)])
