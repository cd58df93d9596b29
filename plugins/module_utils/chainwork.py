# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backing chains of volumes that exist: flattened, put on another base, merged into their base."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import chain, fields, guards, images, permissions, reconcile, volume, xmltree
from . import operation as operations
from .backend import Native
from .errors import StepFailed, StorageError
from .operation import Attachment, Operation
from .plan import Plan

DEEP = 16  # overlays; each of them costs a guest memory and every read of what lies below
TIMEOUT_SPEC = {"timeout": {"type": "int", "default": 3600}}
CONTENTS = ("keep", "same", "trust")
SHALLOW, ACTIVE = 1, 4  # virDomainBlockCommitFlags


class ChainWork(Operation):
    """What flatten, rebase and commit have in common: what the volume stands on must be known to the last member."""

    operation = "flatten"

    def read(self) -> dict[str, Any]:
        """Besides what every volume has: form, stands_on ([path], nearest first), recorded, own_data, found."""
        before = super().read()
        before.update(form="", stands_on=[], recorded=None, own_data=False, found=None, base_size=None)
        if not before["exists"] and self.gone_is_done():
            return before
        self.require_there(before)
        if self.backend.parents is not None:
            self.require_local("the backend's command")
            before["stands_on"] = self.backend.parents(self.connection, self.pool_options(), self.volume_name)
            return before
        self.require_local("qemu-img")
        before["form"] = self.format(before)
        self.read_chain(before)
        return before

    def gone_is_done(self) -> bool:
        """Whether a volume that is not there is what was asked for."""
        return False

    def read_chain(self, before: dict[str, Any]) -> None:
        """Every header from the volume down to its base."""
        from . import intake, nodes

        with contextlib.ExitStack() as opened:
            limits = replace(intake.LIMITS, virtual_size=1 << 63, formats=(*intake.IMPORTED, "qed", "qcow"))
            directories = sorted(self.pool_directories())
            self.require_answers(before["path"])
            found = intake.chain(before["path"], directories, before["form"], limits, opened)
            if found.members:
                top = found.members[0]
                before["found"] = top.found
                before["own_data"] = has_own_data(top.descriptor, top.found)
                if top.found.backing is not None:
                    named = top.found.backing.name.replace("\0", "\\0")
                    name = os.path.join(os.path.dirname(before["path"]), named)
                    before["recorded"] = (name, top.found.backing.format)
            own = intake.refusals(top.found, before["form"], replace(limits, backing=True)) if found.members else []
            if found.refusal is not None and (own or self.needs_chain()):
                raise nodes.refused(self.label, found.refusal)
            before["stands_on"] = [member.path for member in found.members[1:]]
            before["base_size"] = found.members[1].found.virtual_size if len(found.members) > 1 else None

    def needs_chain(self) -> bool:
        return True

    def require_answers(self, path: str) -> None:
        """No header of a chain is looked for on a share whose server is gone."""
        silent = guards.silent_shares(self.connection)
        for member in chain.below(path, silent, self.pool_directories()):
            if f"{member}/".startswith(silent):
                raise StorageError(
                    thing=self.label,
                    code="unreachable",
                    reason=f"it stands on {member}, on a share whose server does not answer",
                    way_out="bring the server back",
                )

    def require_qcow2(self, before: dict[str, Any]) -> None:
        if before["form"] != "qcow2":
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"a volume of format {before['form'] or 'raw'} records no backing store",
                way_out="use format: qcow2",
            )

    def require_whole(self, before: dict[str, Any], bitmaps: bool) -> None:
        """Nothing is in the image that a copy of what its guest sees would lose or change."""
        found = before["found"]
        checkpoints = bitmaps and "bitmaps" in found.features
        kept = [
            (found.encrypted, "it is encrypted, and its passphrase is libvirt's", "do it while its guest runs"),
            (found.snapshots, f"it has {found.snapshots} internal snapshots, which would change", "delete those"),
            (checkpoints, "it has bitmaps, which a new image lacks", "delete the checkpoints"),
        ]
        for there, reason, way_out in kept:
            if there:
                raise StorageError(thing=self.label, code="unsupported", reason=reason, way_out=f"{way_out} first")

    def locks(self) -> list[str]:
        """The pools that hold what it stands on, and what it shall stand on, too."""
        wanted = (self.want["backing"] or {}).get("path")
        path = os.path.join(self.directory(), self.volume_name) if self.directory() else ""
        image = images.probe(path) if path and not guards.silent_server(self.connection, self.pool_name) else None
        below = os.path.join(self.directory(), image.backing) if image is not None and image.backing else ""
        names = [f"pool {name!r}" for one in (wanted, below) if one for name in self.pools_at(one)]
        return sorted({*super().locks(), *names})

    def pools_at(self, path: str) -> list[str]:
        """The pools in whose directory a file lies."""
        folder = guards.resolved(self.connection, os.path.dirname(path))
        return [name for target, name in pools_by_directory(self.connection) if target == folder]

    @contextlib.contextmanager
    def node(self) -> Iterator[Any]:
        """The volume with its whole chain, as qemu-img opens it."""
        from . import nodes

        with nodes.readable(self, self.before["form"]) as node:
            yield node

    @contextlib.contextmanager
    def successor(self) -> Iterator[str]:
        """A hidden file; what it holds at the end takes the volume's place, with its permissions.

        Nobody has written the volume meanwhile, and nobody can open it as the name changes hands.
        """
        from . import exclusive, files

        path = self.before["path"]
        was = self.identity()
        with files.hidden(os.path.dirname(path)) as temporary:
            yield temporary
            with exclusive.opened(self.label, path):
                self.require_same(was)
                permissions.apply(temporary, permissions.read(path) or {"mode": "0600"})
                with self.content_kept():
                    files.replace(temporary, path)
        self.connection.unseen(self.pool_name)

    def require_unstated(self, attached: Attachment | None = None) -> None:
        """A definition that writes down what the volume stands on would let QEMU put the old base below the new image.

        libvirt itself changes that of a running guest, when its job ends.
        """
        for domain in self.connection.domains():
            if not domain.isPersistent() or (attached is not None and domain.name() == attached.name):
                continue
            tree = xmltree.parse(domain.XMLDesc(chain.INACTIVE_XML))
            if any(self.is_named(one) and states_base(one) for one in tree.iterfind("devices/disk//source")):
                raise StorageError(
                    thing=self.label,
                    code="in_use",
                    reason=f"the definition of domain {domain.name()!r} writes down what it stands on (backingStore), "
                    "which would be wrong then",
                    way_out=f"remove that by 'virsh edit {domain.name()}', so that libvirt reads it from the header",
                )

    def is_named(self, source: Any) -> bool:
        path = source.get("file") or source.get("dev") or ""
        named = (source.get("pool"), source.get("volume")) == (self.pool_name, self.volume_name)
        return named or (path.startswith("/") and same_path(path, self.before["path"]))

    def image_settings(self, node: Any) -> dict[str, Any]:
        """What the image has for life, in the words of qemu-img create."""
        from . import qemu_img

        data = qemu_img.info(self.label, node).get("format-specific", {}).get("data", {})
        found: dict[str, Any] = {"nocow": "on"} if permissions.is_nocow(self.before["path"]) else {}
        if node.format != "qcow2":
            return found
        found.update(compat=data["compat"], cluster_size=1 << (self.before["found"].cluster_bits or 16))
        if data["compat"] != "0.10":
            found.update({"refcount_bits": data["refcount-bits"], "compression_type": data["compression-type"]})
            found.update({name: "on" for name in ("lazy_refcounts", "extended_l2") if data[name.replace("_", "-")]})
        return found

    def compared(self, step: str, one: Any, other: Any) -> None:
        """A guest sees the same in both."""
        from . import progress, qemu_img

        with progress.told("compare"):
            same = qemu_img.compare(self.label, one, other)
        if not same:
            raise StepFailed(
                thing=self.label,
                step=step,
                code="not_equal",
                reason="a guest would see another content than before; nothing was changed",
                way_out="look at the storage below (dmesg, smartctl), then run this again",
            )

    # through the domain

    def place(self, attached: Attachment) -> Any:
        from .blockjob import Place

        return Place(self.label, attached.domain, attached.target)

    def below_live(self, place: Any) -> str:
        """The path of what the guest's disk stands on, by its live XML; empty for nothing."""
        source = place.disk().find("backingStore/source")
        return (source.get("file") or source.get("dev") or "") if source is not None else ""

    @contextlib.contextmanager
    def told(self, step: str) -> Iterator[Any]:
        """How far a job has come, for who waits for the module."""
        from . import blockjob, progress

        with progress.told(step) as tick:
            yield blockjob.ticking(tick)

    def require_pullable(self, attached: Attachment) -> None:
        from . import blockjob

        blockjob.require_running(self.place(attached))

    def pull(self, attached: Attachment, step: str, base: str) -> None:
        """Let the guest itself read in all that lies between its disk and a base; empty for everything."""
        from . import blockjob

        place, timeout = self.place(attached), self.options["timeout"]

        def start() -> None:
            if base:
                attached.domain.blockRebase(attached.target, base, 0, 0)
            else:
                attached.domain.blockPull(attached.target, 0, 0)

        while not same_path(self.below_live(place), base):
            started = blockjob.begin(place, blockjob.PULL, start)
            with self.told(step) as tell:
                blockjob.wait(place, step, timeout, tell, until_ready=False)
            blockjob.flush(place)
            if started:  # else it was the job of a run before, which may have had another end
                break
        image = images.probe(self.before["path"])
        if not same_path(self.below_live(place), base) or image is None or not same_path(image.backing or "", base):
            raise blockjob.failed(place, step, "the job has ended, and the guest's disk stands on what it stood on")
        self.connection.unseen(self.pool_name)


class Flatten(ChainWork):
    """The volume stands on nothing afterwards."""

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan_flatten(self.label, before, self.options["max_depth"])

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if not plan.steps:
            return
        self.require_unprotected(before)
        attached = self.attachment() if self.native() is None else None
        if attached is not None:
            self.require_pullable(attached)
        elif self.native() is None:
            self.require_unused(before)
            self.require_whole(before, bitmaps=True)
            self.require_room()
        self.require_unstated(attached)

    def require_room(self) -> None:
        """The new file takes its space beside the old one; nothing more is promised to the guest than before."""
        from . import headroom, qemu_img

        with self.node() as node:
            needed = qemu_img.measure(self.label, node, node.format)[0]
        headroom.room(self, 0, needed, headroom.Policy("allow"))

    def native(self) -> Any:
        """The backend's own way, which can be gone while a guest has the volume open."""
        method = self.backend.operations["flatten"]
        return method.call if isinstance(method, Native) else None

    def flatten(self) -> None:
        native = self.native()
        if native is not None:
            native(self.label, self.connection, self.pool_options(), self.volume_name)
            return
        attached = self.attachment()
        if attached is not None:
            self.pull(attached, "flatten", "")
            return
        from . import nodes, progress, qemu_img

        with self.node() as node, self.successor() as temporary:
            whole = nodes.file_node(temporary, node.format)
            settings = self.image_settings(node)
            with progress.told("flatten"):
                qemu_img.convert(self.label, node, whole, create=True, options=settings, step="flatten")
            self.compared("flatten", node, whole)


def plan_flatten(label: str, before: dict[str, Any], max_depth: int | None) -> Plan:
    """Pure: whether the volume stands on more than it may."""
    depth = len(before["stands_on"])
    shown = {"backing": before["stands_on"][0] if depth else "none"}
    if depth <= (max_depth or 0):
        return Plan([], shown, shown, risk="in place")
    made = Plan(["flatten"], shown, {"backing": "none"}, risk="in place")
    if max_depth is not None:
        made.warnings.append(f"{label}: {deep(depth, max_depth)}")
    return made


def deep(depth: int, max_depth: int) -> str:
    return f"it stands on {depth} others, one after the other, more than the {max_depth} of max_depth"


class Rebase(ChainWork):
    """The volume stands on another base afterwards, and its guest sees what it saw."""

    def __init__(self, connection: Any, options: dict[str, Any]) -> None:
        super().__init__(connection, options)
        self.want["backing"] = volume.clean_backing(self.label, self.pool_name, options["backing"])

    def needs_chain(self) -> bool:
        """What a volume stood on may be gone, or of an undeclared format, where the user answers for the new one."""
        return self.options["content"] != "trust"

    def read(self) -> dict[str, Any]:
        before = super().read()
        self.require_qcow2(before)
        self.check_backing()
        return before

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan_rebase(before, self.base_path(), self.want["backing"]["format"], self.options["content"])

    def base_path(self) -> str:
        path = self.backing_path()
        if path is None:
            raise AssertionError(f"{self.label}: its new base was looked for before")
        return path

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if not plan.steps:
            return
        self.require_unprotected(before)
        self.require_quiet_base()
        self.require_unstated(self.attachment())
        depth = 1 + len(chain.below(self.base_path(), folders=self.pool_directories()))
        if depth > DEEP:
            plan.warnings.append(f"{self.label}: it will stand on {depth} others, one after the other; flatten some")
        attached = self.attachment()
        if attached is None:
            self.require_unused(before)
            self.require_whole(before, bitmaps=False)
            return
        inside = [one for one in before["stands_on"] if same_path(one, self.base_path())]
        if self.options["content"] != "keep" or not inside:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by domain {attached.name!r} (running), and the disk of a running guest can only be "
                "put on a base that it stands on already (content: keep)",
                way_out="choose a base of its own chain, or shut the domain down first",
            )
        self.require_pullable(attached)

    def require_quiet_base(self) -> None:
        """What a running guest writes into can't be the base of another disk."""
        path, backing = self.base_path(), self.want["backing"]
        found = chain.uses(self.connection, running_only=True)
        mine = chain.of_volume(found, backing.get("pool", ""), backing.get("volume", ""), path, True)
        writers = [use for use in mine if use.level == 0]
        if writers:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"its new backing store {path} is the disk of {chain.names(writers)}",
                way_out="shut the domain down first",
            )

    def rebase(self) -> None:
        attached, content = self.attachment(), self.options["content"]
        path, form = self.base_path(), self.want["backing"]["format"]
        if attached is not None:
            inside = [one for one in self.before["stands_on"] if same_path(one, path)]
            self.pull(attached, "rebase", inside[0])
        elif content == "keep":
            self.write_difference(path, form)
        else:
            self.rename_base(path, form, compare=content == "same")
        self.connection.unseen(self.pool_name)

    def write_difference(self, path: str, form: str) -> None:
        """In a copy of the volume, which is compared with it before it takes its place."""
        from . import files, nodes, progress, qemu_img, streams

        with self.node() as node, self.successor() as temporary:
            with open(temporary, "r+b") as copy, progress.told("copy", self.before["found"].size) as tick:
                streams.copy(node.held[0], streams.Target(copy.fileno()), streams.Hashing(), tick)
            own = replace(node, protocol={"driver": "file", "filename": temporary}, held=(), path=temporary)
            with progress.told("rebase"):
                qemu_img.rebase(self.label, own, path, form, write=True)
            files.flushed(temporary)
            with contextlib.ExitStack() as opened:
                directories = sorted(self.pool_directories())
                self.compared("rebase", node, nodes.chain(self.label, temporary, "qcow2", directories, opened))

    def rename_base(self, path: str, form: str, compare: bool) -> None:
        """Nothing but the header changes; where it is compared, the guest sees the same through both."""
        from . import nodes, qemu_img

        directories = sorted(self.pool_directories())
        with contextlib.ExitStack() as opened:
            below = nodes.chain(self.label, path, form, directories, opened)
            if compare:
                node = opened.enter_context(self.node())
                self.require_equal(node, replace(node, backing=below))
            alone = nodes.file_node(self.before["path"], "qcow2")
            with self.content_kept() if compare else contextlib.nullcontext():
                qemu_img.rebase(self.label, alone, path, form, write=False)

    def require_equal(self, one: Any, other: Any) -> None:
        from . import qemu_img

        if not qemu_img.compare(self.label, one, other):
            raise StorageError(
                thing=self.label,
                code="not_equal",
                reason="on the new backing store a guest would see another content",
                way_out="use content: keep, which writes the difference into the volume",
            )


def plan_rebase(before: dict[str, Any], path: str, form: str, content: str) -> Plan:
    """Pure: whether another backing store, or another format of it, is recorded than the wanted one."""
    name, recorded = before["recorded"] or ("", None)
    shown = {"backing": f"{name} ({recorded or 'format not recorded'})" if name else "none"}
    if same_path(name, path) and recorded == form:
        return Plan([], shown, shown, risk="in place")
    risk = "in place" if content != "trust" else "TRUSTS THE NEW BACKING STORE, as content: trust asks"
    return Plan(["rebase"], shown, {"backing": f"{path} ({form})"}, risk=risk)


class Commit(ChainWork):
    """What the volume has of its own is in its base afterwards; it stands on it still and is empty, or is gone."""

    merged: tuple[int, ...] | None = None  # the identity of the file whose content its base has

    def gone_is_done(self) -> bool:
        return bool(self.options["delete"])

    def read(self) -> dict[str, Any]:
        before = super().read()
        if not before["exists"]:
            return before
        self.require_qcow2(before)
        if not before["stands_on"]:
            raise StorageError(
                thing=self.label,
                code="no_backing",
                reason="it stands on nothing, so there is nothing that it could be merged into",
                way_out="name the overlay",
            )
        return before

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan_commit(before, self.options["delete"])

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if not plan.steps:
            return
        delete = self.options["delete"]
        self.require_unprotected(before)
        attached = self.attachment()
        if attached is not None and not delete:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by domain {attached.name!r} (running), which goes on with the base once all is "
                "merged; the volume is of no use then",
                way_out="give delete: true, or shut the domain down first",
            )
        if delete:
            self.require_no_snapshots("remove them first (volume_snapshot, state: absent), or leave delete out")
            self.require_no_overlays(before, "rebase or flatten those first, or leave delete out")
            self.check_gone(before, attached)
        if "commit" not in plan.steps:
            return
        self.check_base(before)
        if attached is None:
            self.require_unused(before)
            self.require_whole(before, bitmaps=True)

    def check_gone(self, before: dict[str, Any], attached: Attachment | None) -> None:
        """A domain that is defined with the volume would not start without it; the one that has it open is moved on."""
        users = [use for use in self.users(running_only=False) if attached is None or use.domain != attached.name]
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {chain.names(users)}, and would be gone",
                way_out="leave delete out, or let the domain use the base first",
            )

    def check_base(self, before: dict[str, Any]) -> None:
        """Its base can be written, and nobody else sees what it holds."""
        base, size = before["stands_on"][0], before["found"].virtual_size
        thing = f"{self.label}: its base {base}"
        if permissions.is_protected(base):
            raise StorageError(
                thing=thing, code="immutable", reason="it is immutable", way_out="set immutable: false for it first"
            )
        self.require_no_snapshot(before, base)
        others = [one for one in chain.overlays(self.connection, base) if one != self.name]
        if others:
            raise StorageError(
                thing=thing,
                code="has_overlays",
                reason=f"it is the base of {', '.join(others[:5])} too, whose content would change",
                way_out="flatten or remove those first, or flatten this volume in place of merging it",
            )
        found = chain.uses(self.connection)
        mine = {use.domain for use in self.users(running_only=False)}
        users = [use for use in found if use.path == os.path.realpath(base)]
        pools = self.pools_at(base)
        users += [use for use in found if use.pool in pools and use.volume == os.path.basename(base)]
        others_of = [use for use in users if use.level == 0 or use.domain not in mine]
        if others_of:
            raise StorageError(
                thing=thing,
                code="in_use",
                reason=f"it is used by {chain.names(others_of)}",
                way_out="let that domain use something else first; where an interrupted run has moved it from this "
                "volume to its base, remove the volume (volume, state: absent)",
            )
        if self.attachment() is None and chain.image_locked(base):
            raise StorageError(
                thing=thing,
                code="in_use",
                reason="a QEMU process has it open",
                way_out="end it first; it may run under another libvirt or on another host",
            )
        if size is not None and before["base_size"] is not None and size < before["base_size"]:
            raise StorageError(
                thing=self.label,
                code="would_shrink",
                reason=f"it has {size} bytes, and its base {before['base_size']}, which nobody would see as before",
                way_out="let it grow to the size of its base first",
            )

    def require_no_snapshot(self, before: dict[str, Any], base: str) -> None:
        """A snapshot keeps its content: its own file, or the volume below what a guest has written since."""
        from . import snapshot_files

        below = (snapshot_files.marked(base) or {}).get("role") in (snapshot_files.COPY, snapshot_files.FROZEN)
        above = (snapshot_files.marked(before["path"]) or {}).get("role") == snapshot_files.OVERLAY
        if below or above:
            volume_name, dummy, name = os.path.basename(base if below else before["path"]).rpartition("@")
            raise StorageError(
                thing=f"{self.label}: its base {base}",
                code="has_snapshots",
                reason=f"it is the snapshot {name!r} of {volume_name!r}, whose content would change",
                way_out="remove the snapshot (volume_snapshot, state: absent), which merges the two",
            )

    def commit(self) -> None:
        attached = self.attachment()
        if attached is not None:
            self.commit_live(attached)
            return
        from . import files, nodes, progress, qemu_img

        with self.node() as node:
            with progress.told("commit"):
                qemu_img.commit(self.label, node)
            files.flushed(node.backing.path)
            self.merged = self.identity()
            if self.options["delete"]:
                self.compared("commit", node, node.backing)
            else:
                with self.successor() as temporary:
                    self.compared("commit", node, node.backing)
                    below = nodes.file_node(node.backing.path, node.backing.format)
                    qemu_img.create(self.label, temporary, "qcow2", node.size, self.image_settings(node), below)
        self.base_changed()

    def base_changed(self) -> None:
        for pool in self.pools_at(self.before["stands_on"][0]):
            self.connection.unseen(pool)
            self.connection.show(pool)

    def commit_live(self, attached: Attachment) -> None:
        """The guest goes on with the base once it has all; until then the overlay has all, too."""
        from . import blockjob

        place, base = self.place(attached), self.before["stands_on"][0]

        def start() -> None:
            attached.domain.blockCommit(attached.target, None, None, 0, SHALLOW | ACTIVE)

        blockjob.begin(place, blockjob.ACTIVE_COMMIT, start)
        with self.told("commit") as tell:
            blockjob.wait(place, "commit", self.options["timeout"], tell, until_ready=True)
        blockjob.pivot(place, "commit")
        source = place.disk().find("source")
        now = (source.get("file") or source.get("dev") or "") if source is not None else ""
        if not same_path(now, base):
            raise blockjob.failed(place, "commit", f"the guest's disk is {now or 'unknown'} and not {base}")
        self.connection.forget()
        self.base_changed()

    def delete(self) -> None:
        """What is merged goes, if nobody has it; asked again, since a guest was moved away from it just now."""
        if self.merged is not None:
            self.require_same(self.merged, "it stays, and its base has what it held before")
        users = self.users(running_only=False)
        if users or chain.image_locked(self.before["path"]):
            raise StepFailed(
                thing=self.label,
                step="delete",
                code="in_use",
                reason=f"it is used by {chain.names(users) or 'a QEMU process'} still",
                way_out="let the domain use the base, then remove the volume (volume, state: absent)",
            )
        if self.handle is None:
            self.refresh()
        super().delete()


def plan_commit(before: dict[str, Any], delete: bool) -> Plan:
    """Pure: an overlay without data of its own has been merged already."""
    if not before["exists"]:
        return Plan(risk="in place")
    base = before["stands_on"][0]
    shown = {"state": "present", "backing": base}
    steps = (["commit"] if before["own_data"] else []) + (["delete"] if delete else [])
    after = None if delete else shown
    return Plan(steps, shown, after, risk="CHANGES ITS BASE" if "commit" in steps else "in place")


# chains as data


def described(connection: Any, facts: dict[str, Any], backend: Any, max_depth: int) -> dict[str, Any]:
    """For volume_info: chain (members from the volume down), depth, warnings; only what lies in pools is opened."""
    if backend is not None and backend.parents is not None and connection.local:
        members, warnings = parents_described(connection, facts, backend)
    else:
        members, warnings = files_described(connection, facts)
    depth = len(members) - 1
    if depth > max_depth:
        warnings.append(deep(depth, max_depth))
    return {"chain": members, "depth": depth, "warnings": warnings}


def member_of(path: str, pool: str | None, name: str | None, form: str | None, recorded: str | None) -> dict[str, Any]:
    found = {"path": path, "pool": pool, "volume": name, "format": form, "recorded_format": recorded}
    return {**found, "capacity": None, "allocation": None}


def top_of(facts: dict[str, Any]) -> dict[str, Any]:
    found = member_of(facts["path"], facts["pool"], facts["name"], facts["format"], None)
    return {**found, "capacity": facts["capacity"], "allocation": facts["allocation"]}


def parents_described(connection: Any, facts: dict[str, Any], backend: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The volume and what its backend's own command says that it stands on."""
    members, pool = [top_of(facts)], facts["pool"]
    names = {handle.path(): name for name, handle in connection.volumes(pool).items()}
    options = fields.read(backend.fields, xmltree.parse(connection.pool(pool).XMLDesc(0)))
    try:
        below = backend.parents(connection, options, facts["name"])
    except (StorageError, OSError) as error:
        return members, [f"what it stands on can't be told: {error}"]
    for path in below:
        name = names.get(path.partition("@")[0])
        members.append(member_of(path, pool if name else None, name, facts["format"], None))
    return members, []


def files_described(connection: Any, facts: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The volume and the files below it, as the headers tell; one that is not what is declared is not followed."""
    pools = connection.once("pools by directory", lambda: dict(pools_by_directory(connection)))
    silent = guards.silent_shares(connection)
    members: list[dict[str, Any]] = [top_of(facts)]
    warnings: list[str] = []
    path, form = facts["path"], facts["format"]
    seen = {path}
    if not connection.local or not path.startswith("/"):
        return members, warnings
    while True:
        found = inspected(path, form)
        if found is None:
            warnings.append(f"{path} can't be read")
            return members, warnings
        if len(members) > 1:
            members[-1].update(format=form or found.format, capacity=found.virtual_size, allocation=allocated(path))
        if form is not None and found.format != form and {form, found.format} & CONTAINERS:
            warnings.append(f"{path} is declared {form}, but its header says {found.format}; it is not followed")
            return members, warnings
        if found.backing is None:
            return members, warnings
        below, form = os.path.join(os.path.dirname(path), found.backing.name), found.backing.format
        if form is None:
            warnings.append(f"{path} does not record the format of {below}")
        pool = pools.get(guards.resolved(connection, os.path.dirname(below)))
        stop = why_not_below(below, pool, seen, silent)
        if below not in seen:
            name = os.path.basename(below) if pool is not None else None
            members.append(member_of(below, pool, name, form, form))
        if stop:
            warnings.append(f"{below} {stop}")
            return members, warnings
        seen.add(below)
        path = below


CONTAINERS = {"qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx"}  # formats that are more than the bytes of a disk


def why_not_below(path: str, pool: str | None, seen: set[str], silent: tuple[str, ...]) -> str:
    """Why a member of a chain is not opened; empty for one that is."""
    if path in seen:
        return "stands on itself"
    if pool is None:
        return "lies in no pool of this host, and is not opened"
    if path.startswith(silent):
        return "lies on a share whose server does not answer"
    return "is not opened: the chain is too deep" if len(seen) > guards.DEEPEST_CHAIN else ""


def pools_by_directory(connection: Any) -> list[tuple[str, str]]:
    """Where the directory of each pool leads, and the pool."""
    pools = connection.pools().items()
    targets = [(xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path"), name) for name, pool in pools]
    return [(guards.resolved(connection, target), name) for target, name in targets if target]


def inspected(path: str, form: str | None) -> Any:
    """What the headers of a file or device say; None where it can't be read."""
    from .headers import inspect

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if path.startswith("/dev/") else os.O_NOFOLLOW)
    try:
        descriptor = images.open_image(path, flags)
    except OSError:
        return None
    try:
        return inspect(descriptor, form)
    finally:
        os.close(descriptor)


def allocated(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_blocks * 512
    return None


# what headers and files tell


def has_own_data(descriptor: int, found: Any) -> bool:
    """Whether a qcow2 has any table of clusters of its own: the entries of its L1 table, see docs/interop/qcow2.txt."""
    tables = [table for table in found.tables if table.name == "L1 table"]
    if found.format != "qcow2" or not tables:
        return True
    offset, left = tables[0].offset, tables[0].length
    if offset + left > found.size:
        return True
    while left > 0:
        data = os.pread(descriptor, min(left, 1 << 20), offset)
        if not data:
            return True
        if data.strip(b"\0"):
            return True
        offset, left = offset + len(data), left - len(data)
    return False


def states_base(source: Any) -> bool:
    """Whether a disk, or a member of its chain, is written down together with what it stands on."""
    return source.getparent().find("backingStore/source") is not None


def same_path(one: str, other: str) -> bool:
    """Whether two names are of one file; nothing is only the same as nothing."""
    if not one or not other:
        return one == other
    return os.path.realpath(one) == os.path.realpath(other)


# modules


def flatten_spec() -> dict[str, Any]:
    return {**operations.OPERATION_SPEC, "max_depth": {"type": "int"}, **TIMEOUT_SPEC}


def rebase_spec() -> dict[str, Any]:
    return {
        **operations.OPERATION_SPEC,
        "backing": {**volume.BACKING_SPEC, "required": True},
        "content": {"type": "str", "choices": list(CONTENTS), "default": "keep"},
        **TIMEOUT_SPEC,
    }


def commit_spec() -> dict[str, Any]:
    return {**operations.OPERATION_SPEC, "delete": {"type": "bool", "default": False}, **TIMEOUT_SPEC}


def run_flatten() -> None:
    reconcile.run(flatten_spec(), lambda connection, params: [Flatten(connection, params)])


def run_rebase() -> None:
    reconcile.run(rebase_spec(), lambda connection, params: [Rebase(connection, params)])


def run_commit() -> None:
    reconcile.run(commit_spec(), lambda connection, params: [Commit(connection, params)])
