# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that move: to another name in their pool, or to a pool of another type, with the domains that name them.

The order is always the same: a whole and compared copy gets the new name, the definitions follow, and only then the
source goes. Each point at which a run can be killed is told by what is there, so that the next run goes on from it:

source        target           what the next run does
there         not there        everything
there         there            compares them; if they are equal: switch the definitions, drop the source
not there     there            switch the definitions that still name the source

The copy of a running guest's disk is made by the guest itself (a block copy), which needs the target's final name from
its beginning. It is a file with a second, hidden name until all is done, and a file with two names is a volume to no
module here. The hidden name tells how far the run was: `copying`, `pivoting` when the copy was ready, or `pivoted` when
the guest had gone over to it. It also tells that this file is the copy, once the guest has written to it and it can't
be compared any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from . import chain, convert, fields, guards, headroom, images, nodes, permissions, reconcile, volume, xmltree
from . import operation as operations
from .errors import StorageError
from .operation import Attachment, Operation
from .plan import Plan

MARK, COPYING, PIVOTING, PIVOTED = ".kvm.storage.", "copying", "pivoting", "pivoted"
WHOLE, DOUBTFUL, PART, TAKEN = "whole", "doubtful", "part", "taken"  # what a block copy is that was not called whole
REUSE, TRANSIENT = 2, 4  # virDomainBlockCopyFlags
STAYS, WHICH = "it stays, beside its copy", "see which of the two is wanted, and remove the other one"
LEFT_BEHIND = "remove them first (volume_snapshot, state: absent), or use keep_source: true"
ONLINE_FORMATS = ("raw", "qcow2")  # what a running QEMU writes well


def plan(before: dict[str, Any], keep_source: bool, update_domains: bool = True) -> Plan:
    """Pure. before has exists, place and format (of the source), target_exists, target_listed, target_place,
    target_format, way (rename or copy), finished (a block copy that a killed run has not called whole) and outdated
    (names of domains).
    """
    source, target = before["exists"], before["target_exists"] or before["finished"]
    here = {"pool": before["place"][0], "name": before["place"][1], "format": before["format"]}
    there = {"pool": before["target_place"][0], "name": before["target_place"][1], "format": before["target_format"]}
    steps = ["refresh_target"] if before["target_exists"] and not before["target_listed"] else []
    if source and (not target or before["way"] == "rename"):
        steps.append(before["way"])
    if before["outdated"] and (update_domains or not keep_source):
        steps.append("switch_domains")
        here["domains"], there["domains"] = "as before", ", ".join(before["outdated"])
    if source and not keep_source and before["way"] != "rename":
        steps.append("drop_source")
    if before["finished"]:
        steps.append("finish_copy")
    if not steps:
        here = there
    return Plan(steps, here, there, risk="compared before the source goes" if "drop_source" in steps else "in place")


def judged(state: str, runs: bool, mirrored: bool) -> str:
    """Pure: what a block copy is, by its mark, by whether it is the disk of a running guest, and whether one fills it.

    The copy was ready before it was marked as pivoting. What a definition says proves nothing: somebody may have
    written it before, or a guest without one may have gone over to the copy and written to it.
    """
    if state == PIVOTED or (state == PIVOTING and runs):
        return WHOLE
    if state == PIVOTING and not mirrored:
        return DOUBTFUL
    return TAKEN if runs else PART


def usual_path(wanted: volume.Volume) -> str:
    """The path of a volume of this name that is not there (any more, or yet)."""
    options = wanted.pool_options()
    if wanted.backend.network_source is not None:
        return f"{options['source_name']}/{wanted.volume_name}"
    pool = wanted.connection.pool(wanted.pool_name)
    folder = (xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") if pool is not None else "") or ""
    return os.path.join(folder, wanted.volume_name) if folder else ""


class Migrate(Operation):
    """A volume on its way to another place."""

    operation = "migrate"
    left_behind = LEFT_BEHIND

    def __init__(self, connection: Any, options: dict[str, Any]) -> None:
        declared, given = options["format"], fields.given(options["to"])
        super().__init__(connection, {**options, "format": None if declared == "vhdx" else declared})
        if declared is not None:
            self.want["options"]["format"] = declared
        self.image = convert.clean_image(self.label, options["to"])
        self.rate = self.clean_rate(options["rate"])
        self.policy = headroom.policy_of(self.label, options)
        place = {"pool": given.get("pool", self.pool_name), "name": given.get("name", self.volume_name)}
        if place == {"pool": self.pool_name, "name": self.volume_name}:
            raise StorageError(
                thing=self.label,
                code="bad_value",
                reason="it is at the place where it shall go",
                way_out="give to.pool or to.name; volume_convert changes the format alone",
            )
        names = ("format", "compat", "cluster_size", "lazy_refcounts", "extended_l2")
        image = {name: given[name] for name in names if name in given}
        wanted = volume.wanted({**image, **place, "state": "present", "thin_pool": given.get("thin_pool")})
        wanted["preallocation"] = self.image.get("preallocation")
        self.target = volume.Volume(connection, wanted, None)
        self.compared: tuple[int, ...] = ()  # the source's file when it was compared

    def clean_rate(self, rate: str | None) -> int | None:
        return None if rate is None else volume.FIELDS["capacity"].clean(self.label, "rate", rate) or None

    def locks(self) -> list[str]:
        return sorted({*super().locks(), *self.target.locks()})

    def facts(self) -> dict[str, Any]:
        return self.target.facts()

    def settle(self) -> None:
        super().settle()
        self.target.settle()

    # reading

    def read(self) -> dict[str, Any]:
        """Besides what every volume has: what plan() and check() need of the target, the definitions and the header."""
        from . import domains

        before = super().read()
        self.require_local("qemu-img")
        there = self.target.read()
        if not before["exists"] and not there["exists"]:
            self.require_there(before)
        before["path"] = before["path"] or usual_path(self)
        before.update(found=None, foreign_target=there["foreign"], target_exists=there["exists"])
        before.update(finished=False, doubtful=False, taken_by="", target_listed=there["listed"])
        before["unfinished_copy"] = self.read_mark(before, there)
        before["half_renamed"] = self.is_half_renamed(before, there)
        if before["half_renamed"]:
            image = images.probe(before["path"])
            before.update(foreign="", foreign_target="", target_exists=False, header=image.format if image else None)
            there["foreign"] = ""
        found = domains.defined(self.connection, self.pool_name, self.volume_name, before["path"])
        before["definitions"] = found
        before["outdated"] = sorted(one.name for one in found if one.formats)
        before.update(format="", target_format="", way="copy")
        before["place"] = (self.pool_name, self.volume_name)
        before["target_place"] = (self.target.pool_name, self.target.volume_name)
        if before["exists"]:
            self.require_there(before)
            before["format"] = self.format(before)
            if before["format"] not in convert.SOURCES:  # the type of a partition
                before["format"] = "raw"
            if before["path"].startswith("/"):
                before["found"] = convert.inspected(before["path"], (before["format"],))
            before["way"] = self.way(before)
        before["target_format"] = self.made(before)
        return before

    def made(self, before: dict[str, Any]) -> str:
        """The format of the target."""
        if self.image.get("format"):
            return self.image["format"]
        own = before["format"] or self.want["options"].get("format") or self.format_of_domains() or "raw"
        formats = self.target.backend.volume_formats
        return own if own in formats else self.target.backend.default_format or "raw"

    def way(self, before: dict[str, Any]) -> str:
        """rename where nothing but the name changes and nobody has it open, else copy."""
        same_image = self.image in ({}, {"format": before["format"]})
        own = self.pool_name == self.target.pool_name and self.target.want["thin_pool"] in (None, before["thin_pool"])
        can = bool(self.directory()) or self.backend.landing is not None
        renames = own and can and same_image and not self.options["keep_source"] and not self.options["flatten"]
        return "rename" if renames and (before["half_renamed"] or not self.users(running_only=True)) else "copy"

    def is_half_renamed(self, before: dict[str, Any], there: dict[str, Any]) -> bool:
        """Whether a rename by a second name was killed before the first one went; see files.publish()."""
        path, other = before["path"], there["path"]
        if self.pool_name != self.target.pool_name or not self.is_file(path) or not before["exists"]:
            return False
        return there["exists"] and os.path.samefile(path, other) and os.lstat(path).st_nlink == 2

    # the mark of a block copy

    def mark(self, state: str) -> str:
        return os.path.join(self.target.directory(), f"{MARK}{state}-{self.target.volume_name}")

    def target_path(self) -> str:
        return os.path.join(self.target.directory(), self.target.volume_name)

    def marked(self) -> str:
        """How far a run was that did not end: copying, pivoting, pivoted, or empty where there is none."""
        if not self.target.directory():
            return ""
        return next((state for state in (PIVOTED, PIVOTING, COPYING) if os.path.lexists(self.mark(state))), "")

    def read_mark(self, before: dict[str, Any], there: dict[str, Any]) -> str:
        """Whether the target is a block copy that was not called whole, and as what it counts.

        One that is doubtful counts if it is equal to the source, which check() asks.
        """
        state = self.marked()
        if not state or not there["exists"] or not os.path.samefile(self.mark(state), self.target_path()):
            return state
        before["foreign_target"], before["target_exists"] = "", False
        there["foreign"] = ""
        users = self.target.users(running_only=True)
        disks = [use for use in users if use.level == 0]
        found = judged(state, bool(disks), any(use.level < 0 for use in users))
        before["finished"] = found in (WHOLE, DOUBTFUL)
        before["doubtful"] = found == DOUBTFUL and before["exists"]
        if found == TAKEN:
            before["taken_by"] = chain.names(disks)
        return state

    # deciding

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan(before, self.options["keep_source"], self.options["update_domains"])

    def check(self, before: dict[str, Any], made: Plan) -> None:
        if before["foreign_target"]:
            raise StorageError(
                thing=self.target.label,
                code="not_a_volume",
                reason=f"what stands at its path is {before['foreign_target']}",
                way_out="move it away, or choose another name",
            )
        if before["unfinished_copy"] and not before["exists"] and not before["target_exists"] and not made.steps:
            raise StorageError(
                thing=self.target.label,
                code="unfinished",
                reason=f"it is a copy of {self.label} that was not finished, and its source is gone",
                way_out="look at what is in it; it becomes a volume when its second name is removed, which is "
                f"{self.mark(before['unfinished_copy'])}",
            )
        if before["taken_by"]:
            raise StorageError(
                thing=self.target.label,
                code="unfinished",
                reason=f"it is a copy of {self.label} that was not finished, and the disk of {before['taken_by']}",
                way_out="shut that down, then run this again, which copies anew; what it has written there is lost",
            )
        if not made.steps:
            return
        from . import domains

        self.require_target_format(before)
        if "switch_domains" in made.steps:
            self.require_definitions(before)
            made.warnings += domains.warnings(self.label, before["definitions"])
            domains.place(self.target_or_new())
        if not before["exists"]:
            return
        self.require_no_overlays(before)
        self.require_unprotected(before)
        if {"rename", "drop_source"} & set(made.steps):
            self.require_no_old_image()
        if "drop_source" in made.steps:
            volume.refuse_operation(self.label, self.backend, "delete")
            self.require_no_snapshots(self.left_behind)
        if before["target_exists"] and before["way"] == "rename":
            raise self.taken("it is there already")
        if before["half_renamed"] and before["way"] != "rename":
            raise self.taken(f"it is {self.label} itself, by a second name")
        if before["target_exists"] or before["finished"]:
            self.require_unused(before, running_only=True)
            self.require_another(before)
            if not before["finished"] or before["doubtful"]:
                self.compared = self.identity()
                self.require_equal(before)
        else:
            self.check_target(before, made)

    def require_target_format(self, before: dict[str, Any]) -> None:
        """What is there already is what this task makes."""
        header = self.target.before["header"]
        there = before["target_exists"] and header is not None and self.target.backend.keeps_format
        if there and header != before["target_format"]:
            raise volume.mismatch(self.target.label, before["target_format"], header)

    def require_definitions(self, before: dict[str, Any]) -> None:
        from . import domains

        domains.refuse_unchangeable(self.label, before["definitions"])
        if not self.options["update_domains"]:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {', '.join(repr(name) + ' (defined)' for name in before['outdated'])}",
                way_out="use update_domains: true, or remove the disk from the domain first",
            )

    def target_or_new(self) -> volume.Volume:
        """The target with the path that it has, or will have."""
        before = self.target.before
        if not before["path"]:
            before["path"] = usual_path(self.target)
        return self.target

    def require_equal(self, before: dict[str, Any]) -> None:
        """A target that is there is what this task made of the source, or something else of that name."""
        from . import qemu_img

        with self.source_node() as node, self.made_node(before) as other:
            if qemu_img.compare(self.label, node, other, step="compare"):
                return
        raise self.taken(f"it is there, and its content is another one than that of {self.label}")

    def require_another(self, before: dict[str, Any]) -> None:
        """Two pools may have one directory or image, by a link or by two mounts: its only copy would be dropped."""
        from . import files

        path, there = before["path"], self.target.before["path"]
        if path.startswith("/") and there.startswith("/"):
            same = os.path.samefile(path, there) or files.identity(path)[1:] == files.identity(there)[1:]
        else:
            same = path == there and self.backend is self.target.backend
            same = same and guards.same_storage(self.backend, self.pool_options(), self.target.pool_options())
        if same:
            raise self.taken(f"it is {self.label} itself: both pools stand on the same storage")

    def taken(self, reason: str) -> StorageError:
        return StorageError(
            thing=self.target.label,
            code="exists",
            reason=reason,
            way_out="choose another name, or remove the one of the two that is not needed",
        )

    def check_target(self, before: dict[str, Any], made: Plan) -> None:
        """What stands against a new volume at the target, and against reading the source."""
        capacity = before["options"].get("capacity") or 0
        self.target.want["options"].setdefault("capacity", capacity)
        form = before["target_format"]
        if self.target.directory() or self.target.backend.keeps_format:
            self.target.want["options"]["format"] = form
        else:
            self.target.want["options"].pop("format", None)
        if not self.target.directory():
            from . import transfer

            transfer.landing_of(self.target)
        self.target.check_thin_pool(self.target.before)
        self.target.check_new(self.target.before)
        if before["way"] == "rename":
            self.require_unused(before, running_only=True)
            self.require_names_free(before)
            return
        attached = self.attachment()
        if attached is not None:
            self.check_online(before, attached)
            needed = min(self.allocated(before), capacity)
        else:
            self.require_unused(before, running_only=True)
            needed = self.check_offline(before)
        thin_pool = self.target.want["thin_pool"]
        if not self.target.directory() and self.target.backend.sparse is not None and thin_pool is None:
            needed = capacity
        made.warnings += headroom.room(self.target, capacity, needed, self.policy, thin_pool)

    def allocated(self, before: dict[str, Any]) -> int:
        """The bytes that it takes where it is."""
        if self.is_file(before["path"]):
            return os.stat(before["path"]).st_blocks * 512
        return before["options"].get("allocation") or 0

    def require_names_free(self, before: dict[str, Any]) -> None:
        """Snapshots that a backend knows by their volume's name do not follow it."""
        if self.entry() is not None or self.directory():
            self.require_no_snapshots(self.left_behind)

    def check_offline(self, before: dict[str, Any]) -> int:
        """The bytes that a copy takes at once."""
        if self.as_it_is(before):
            backing = before["found"].backing
            if backing is not None and not backing.name.startswith("/"):
                raise StorageError(
                    thing=self.label,
                    code="has_backing",
                    reason=f"it records its backing store as {backing.name!r}, which leads elsewhere from another pool",
                    way_out="use flatten: true, or rebase it on the absolute path first",
                )
            with self.source_node():
                return os.stat(before["path"]).st_blocks * 512
        convert.require_kept(self.label, before, self.options, "what it becomes")
        with self.source_node() as node:
            return convert.required(self.label, node, {**self.image, "format": before["target_format"]})

    def as_it_is(self, before: dict[str, Any]) -> bool:
        """Whether the file itself is copied, with all that its image has."""
        if not self.directory() or not self.target.directory() or self.options["flatten"]:
            return False
        return before["format"] == before["target_format"] and not set(self.image) - {"format"}

    def check_online(self, before: dict[str, Any], attached: Attachment) -> None:
        if not self.target.directory() or before["target_format"] not in ONLINE_FORMATS:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by domain {attached.name!r} (running), and a running guest's disk is moved into "
                "pools of files only, as raw or qcow2",
                way_out="shut the domain down first",
            )
        from . import blockjob, domains

        if domains.is_sliced(blockjob.Place(self.label, attached.domain, attached.target).disk()):
            raise domains.sliced(self.label, attached.name)  # the rest of the file would not come along
        lost = sorted(name for name, value in self.image.items() if name not in ("format", "cluster_size") and value)
        if lost:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"while its guest runs it gets no {', '.join(lost)}",
                way_out="leave that out, or shut the domain down first",
            )
        convert.require_kept(self.label, before, self.options, "what it becomes")

    # the data path

    @contextlib.contextmanager
    def source_node(self) -> Iterator[nodes.Node]:
        with nodes.readable(self, self.before["format"]) as node:
            yield node

    @contextlib.contextmanager
    def made_node(self, before: dict[str, Any]) -> Iterator[nodes.Node]:
        """The target that is there, read with the same care."""
        if before["doubtful"]:
            yield nodes.file_node(self.target_path(), before["target_format"])
            return
        with nodes.readable(self.target, before["target_format"]) as node:
            yield node

    # steps

    def rename(self) -> None:
        """By the backend's own way, never onto a name that somebody has."""
        from . import files, transfer

        self.connection.forget()
        self.require_unused(self.before, running_only=True)
        if self.before["half_renamed"]:
            os.unlink(self.before["path"])
        elif self.directory():
            files.publish(self.before["path"], self.target_path())
        if self.directory():
            files.flushed(self.directory())
            self.target.before["path"] = self.target_path()
        else:
            way, options = transfer.landing_of(self), self.pool_options()
            way.publish(self.label, self.connection, options, self.volume_name, self.target.volume_name)
        self.came_about()

    def came_about(self) -> None:
        """The target is there, and libvirt has to look for it."""
        for name in sorted({self.pool_name, self.target.pool_name}):
            self.connection.unseen(name)
            self.connection.show(name)
        self.target.read()

    def copy(self) -> None:
        self.connection.forget()
        self.sweep_unfinished()
        attached = self.attachment()
        if attached is not None:
            self.copy_online(attached)
        else:
            self.require_unused(self.before, running_only=True)
            was = self.identity()
            if self.as_it_is(self.before):
                self.copy_file()
            else:
                self.copy_content()
            self.require_still(was)
            self.compared = was
        self.came_about()

    def require_still(self, was: tuple[int, ...]) -> None:
        """A guest that was started meanwhile has made the copy stale; it is taken away again."""
        try:
            self.require_same(was, "the copy was removed")
        except StorageError:
            self.came_about()
            self.target.delete()
            raise

    def permissions_of_source(self) -> dict[str, Any]:
        """Of a file that goes into another file's place: who may read it stays so."""
        found = permissions.read(self.before["path"]) if self.directory() else None
        return {name: found[name] for name in ("mode", "owner", "group")} if found else {}

    def copy_file(self) -> None:
        """The file byte by byte, so that snapshots, bitmaps and what it stands on stay."""
        from . import files, progress, qemu_img, transfer

        path, label = self.before["path"], self.label
        self.target.want["options"]["permissions"] = self.permissions_of_source()
        with self.source_node() as node, files.hidden(self.target.directory()) as temporary:
            held = node.held[0]
            if not transfer.reflink_of(held, temporary):
                blob = nodes.Node({"driver": "file", "filename": f"/dev/fd/{held}"}, "raw", held=(held,), path=path)
                landed = nodes.file_node(temporary, "raw")
                with progress.told("copy"):
                    qemu_img.convert(label, blob, landed, create=True, rate=self.rate)
                    os.truncate(temporary, os.fstat(held).st_size)  # qemu-img counts whole sectors
                with progress.told("compare"):
                    if not qemu_img.compare(label, blob, landed):
                        raise convert.not_equal(label, "copy")
            files.flushed(temporary)
            self.target.give_name(temporary)
            files.flushed(self.target.directory())

    def copy_content(self) -> None:
        """What a guest sees, in the target's own format; it has its name only when it was compared."""
        from . import progress, transfer

        form = self.before["target_format"]
        self.target.want["options"]["permissions"] = self.permissions_of_source()
        with contextlib.ExitStack() as opened:
            node = nodes.sized(self.label, opened.enter_context(self.source_node()))
            size = node.size or 0
            landed = opened.enter_context(transfer.landing(self.target, size, form))
            with progress.told("copy", size):
                self.write(node, landed, form, size)
            with progress.told("compare", size):
                transfer.verify(self.target, node, landed)

    def write(self, node: nodes.Node, landed: nodes.Node, form: str, size: int) -> None:
        from . import qemu_img, transfer

        if not self.target.directory():
            transfer.copy(self.target, node, landed, form, size, rate=self.rate)
            return
        made = convert.settings(self.label, node, {**self.image, "format": form})
        pressed = bool(self.image.get("compress"))
        qemu_img.convert(self.label, node, landed, create=True, options=made, compress=pressed, rate=self.rate)

    def refresh_target(self) -> None:
        """What a killed run has made is shown to libvirt."""
        self.target.refresh()

    def finish_copy(self) -> None:
        """The target is the guest's disk, or equal to the source: it is whole."""
        for state in (PIVOTED, PIVOTING, COPYING):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.mark(state))
        self.came_about()

    def switch_domains(self) -> None:
        """The persistent definitions name the target. What libvirt has changed itself at the pivot is left alone."""
        from . import domains

        self.connection.forget()
        new, form = domains.place(self.target), self.before["target_format"]
        path, local = self.before["path"], self.connection.local
        found = self.before["found"]
        keep_chain = self.before["exists"] and (
            self.before["way"] == "rename" or (self.as_it_is(self.before) or found is None or found.backing is None)
        )

        def change(tree: Any) -> None:
            for disk in domains.disks(tree, self.pool_name, self.volume_name, path, local)[0]:
                domains.put_source(disk, new, form, bool(keep_chain))

        for one in domains.defined(self.connection, self.pool_name, self.volume_name, path):
            if one.formats:
                domains.redefine(self.connection, one, change)

    def drop_source(self) -> None:
        """Only now, and only what nobody names any more."""
        self.connection.forget()
        before = self.before
        if self.handle is None and not before["unlisted"]:
            self.connection.unseen(self.pool_name)
            self.connection.show(self.pool_name)
        self.check_delete(before)
        self.require_same(self.compared, STAYS, WHICH)
        self.delete()
        if self.marked():
            self.finish_copy()

    # of a running guest

    def sweep_unfinished(self) -> None:
        """What a killed block copy has left, unless the guest still works on it."""
        state = self.marked()
        if not state:
            return
        mark, path = self.mark(state), self.target_path()
        attached = self.attachment()
        if attached is not None and self.mirror(attached) == path:
            return
        if os.path.lexists(path) and os.path.samefile(mark, path):
            os.unlink(path)
        os.unlink(mark)

    def mirror(self, attached: Attachment) -> str:
        """The file into which the guest's disk is being copied."""
        from . import blockjob

        source = blockjob.Place(self.label, attached.domain, attached.target).disk().find("mirror/source")
        return (source.get("file") or "") if source is not None else ""

    def copy_online(self, attached: Attachment) -> None:
        """By the guest itself: into a marked file, until both are the same, then the guest goes on with it."""
        from . import blockjob, progress

        place = blockjob.Place(self.label, attached.domain, attached.target)
        path, mark = self.target_path(), self.mark(COPYING)
        if self.mirror(attached) != path:
            self.make_marked(attached, path, mark)
        elif not os.path.lexists(mark) and os.path.lexists(self.mark(PIVOTING)):
            os.rename(self.mark(PIVOTING), mark)
        try:
            blockjob.begin(place, blockjob.COPY, lambda: self.start(attached, path))
            with progress.told("copy", attached.domain.blockInfo(attached.target, 0)[0]) as tick:
                tell = blockjob.ticking(tick)
                blockjob.wait(place, "copy", self.options["timeout"], tell, until_ready=True)
            os.rename(mark, self.mark(PIVOTING))
            blockjob.pivot(place, "copy")
            self.require_live(place, path)
            os.rename(self.mark(PIVOTING), self.mark(PIVOTED))
        except (StorageError, OSError):
            self.give_up(attached, place)
            raise
        if self.options["keep_source"]:
            os.unlink(self.mark(PIVOTED))

    def make_marked(self, attached: Attachment, path: str, mark: str) -> None:
        """An empty image that has two names from its first moment."""
        from . import files, qemu_img

        form, size = self.before["target_format"], attached.domain.blockInfo(attached.target, 0)[0]
        with files.hidden(self.target.directory()) as temporary:
            options = {"compat": "1.1"} if form == "qcow2" else {}
            options.update({name: self.image[name] for name in ("cluster_size",) if name in self.image})
            qemu_img.create(self.label, temporary, form, size, options)
            mode = self.permissions_of_source().get("mode", "0600")
            permissions.apply(temporary, {"mode": mode})
            files.publish(temporary, mark)
        os.link(mark, path)

    def start(self, attached: Attachment, path: str) -> None:
        tree = xmltree.new("disk", type="file")
        xmltree.put(tree, "source/@file", path)
        xmltree.put(tree, "driver/@type", self.before["target_format"])
        limit = {"bandwidth": self.rate} if self.rate else {}
        attached.domain.blockCopy(attached.target, xmltree.text(tree), limit, REUSE | TRANSIENT)

    def require_live(self, place: Any, path: str) -> None:
        """The guest's disk is the target."""
        source = place.disk().find("source")
        if source is None or source.get("file") != path:
            from . import blockjob

            raise blockjob.failed(place, "copy", "the guest has not gone over to the copy")

    def give_up(self, attached: Attachment, place: Any) -> None:
        """The guest goes on as before, and nothing of the copy stays; unless it has gone over to it."""
        from . import blockjob

        with contextlib.suppress(Exception):
            if place.job() is not None:
                blockjob.abort(place)
            source = place.disk().find("source")
            if (source is not None and source.get("file") == self.target_path()) or place.job() is not None:
                return
            self.sweep_unfinished()


# the module


def argument_spec() -> dict[str, Any]:
    place = {name: {"type": "str"} for name in ("host", "uri", "pool", "name", "thin_pool")}
    return {
        **operations.OPERATION_SPEC,
        "to": {
            "type": "dict",
            "required": True,
            "options": {**place, **convert.IMAGE_SPEC},
            "required_one_of": [["host", "pool", "name"]],
            "required_by": {"uri": "host"},
        },
        "keep_source": {"type": "bool", "default": False},
        "update_domains": {"type": "bool", "default": True},
        **convert.GIVEN_UP,
        "rate": {"type": "str"},
        "timeout": {"type": "int", "default": 3600},
        **headroom.OVERCOMMIT_SPEC,
    }


def things(connection: Any, params: dict[str, Any]) -> list[Any]:
    """The move, within this host or to another one."""
    if params["to"]["host"] is None:
        return [Migrate(connection, params)]
    from .handover import Handover

    return [Handover(connection, params)]


def run() -> None:
    """The main function of the volume_migrate module."""
    reconcile.run(argument_spec(), things)
