# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of a volume: taken, removed, reverted to and kept by rule, in the way that its storage has."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Callable

from . import blockjob, chain, fields, progress, reconcile, retention, sizes, thaw, xmltree
from . import snapshot_files as by_file
from .connection import libvirt, words
from .errors import StorageError, bad_value
from .operation import OPERATION_SPEC, Attachment, Operation
from .plan import Plan
from .snapshots import EXTERNAL, INTERNAL, KINDS, NATIVE, REFLINK, SUBVOLUME, Snapshot, Snapshots

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}", re.ASCII)
OWN = "kvm.storage"  # begins no name of a user's
STATES = ("present", "absent", "reverted")
# virDomainSnapshotCreateFlags
NO_METADATA, DISK_ONLY, REUSE_EXT, QUIESCE, ATOMIC = 4, 16, 32, 64, 128
COMMIT_ACTIVE = 4  # VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
UNKNOWN = "its guest ended while it went down into the volume, and it can't be told whether all of it did"
WRITTEN = "the volume below it was written after it was taken, and so is no longer what it was"
NOT_TAKEN = "another host was about to let a guest go on in it, and may not have come to that"
AGENT = "org.qemu.guest_agent.0"
LONGEST_NAME = 255  # bytes, of a file
LONGEST_MERGE = 7 * 24 * 3600.0  # seconds


def argument_spec() -> dict[str, Any]:
    rules = {name: {"type": "int"} for name in retention.RULES}
    return {
        **OPERATION_SPEC,
        "snapshot": {"type": "str"},
        "state": {"type": "str", "choices": list(STATES), "default": "present"},
        "kind": {"type": "str", "choices": ["auto", *KINDS], "default": "auto"},
        "size": {"type": "str"},
        "crash_consistent": {"type": "bool", "default": False},
        "destroy_newer": {"type": "bool", "default": False},
        "keep": {"type": "dict", "options": rules, "required_one_of": [list(retention.RULES)]},
        "prefix": {"type": "str"},
    }


RULES: dict[str, Any] = {
    "required_by": {"keep": ["prefix"], "prefix": ["keep"]},
    "required_if": [("state", "absent", ["snapshot"]), ("state", "reverted", ["snapshot"])],
    "required_one_of": [("snapshot", "keep")],
}


def wanted(label: str, params: dict[str, Any]) -> dict[str, Any]:
    """What is wanted of the snapshots of a volume, from options that the argument_spec has accepted."""
    keep, name = fields.given(params.get("keep") or {}), params.get("snapshot")
    if name is not None and (not NAME.fullmatch(name) or name.startswith(OWN)):
        raise StorageError(
            thing=label,
            code="bad_name",
            reason=f"the name {name!r} is not one that the collection gives to a snapshot",
            way_out=f"use up to 100 of A-Z a-z 0-9 _ . + = -, begin with a letter, a digit or _, and not with {OWN}",
        )
    if keep and params["state"] != "present":
        raise bad_value(label, "state", params["state"], "present, or leave keep out")
    for rule, number in keep.items():
        if number < 0:
            raise bad_value(label, f"keep.{rule}", number, "a number from 0 on")
    if params.get("keep") is not None and not any(keep.values()):
        raise bad_value(label, "keep", keep, "at least one rule above 0: to keep none would remove them all")
    if keep and not params["prefix"]:
        raise bad_value(label, "prefix", params["prefix"], "what the names of the snapshots under it begin with")
    if keep and (OWN.startswith(params["prefix"]) or params["prefix"].startswith(OWN)):
        raise bad_value(label, "prefix", params["prefix"], f"one under which no name that begins with {OWN} can be")
    size = params.get("size")
    return {
        **{
            key: params.get(key) for key in ("snapshot", "state", "kind", "crash_consistent", "destroy_newer", "prefix")
        },
        "keep": keep,
        "size": sizes.parse(size) if size is not None else None,
    }


def plan(before: dict[str, Any], want: dict[str, Any]) -> Plan:
    """The steps from the snapshots that are there to those that are wanted; pure.

    before has snapshots (names and times), unfinished, same (whether the content is that of the snapshot) and now.
    """
    there = {one.name: one.time for one in before["snapshots"]}
    name, steps = want["snapshot"], ["mend"] if before["unfinished"] else []
    if want["state"] == "reverted":
        content = {"content": f"that of snapshot {name}"}
        steps += [] if before["same"] else ["revert"]
        risk = "GIVES UP the present content, as state: reverted asks"
        return Plan(steps, {"content": "the present one"} if "revert" in steps else content, content, risk=risk)
    after, risk = dict(there), ""
    if want["state"] == "absent":
        if name in there:
            steps.append("remove_snapshot")
            del after[name]
            risk = "DESTROYS THE SNAPSHOT, as state: absent asks"
        return Plan(steps, shown(there), shown(after), risk=risk)
    if name is not None and name not in there:
        steps.append("snapshot")
        after[name] = before["now"]
    leaving = [one["name"] for one in judged(after, want)[1]]
    if leaving:
        steps.append("prune")
        risk = "DESTROYS SNAPSHOTS that keep does not keep"
    return Plan(steps, shown(there), shown({one: at for one, at in after.items() if one not in leaving}), risk=risk)


def shown(names: dict[str, float | None]) -> dict[str, Any]:
    return {"snapshots": ", ".join(sorted(names)) or "none"}


def judged(there: dict[str, float | None], want: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a retention keeps and what it removes, each with the reasons; names without the prefix are in neither."""
    if not want["keep"]:
        return [], []
    under = {name: at for name, at in there.items() if name.startswith(want["prefix"])}
    reasons = retention.kept(under.items(), want["keep"])
    kept = [{"name": name, "time": told_time(under[name]), "reasons": why} for name, why in reasons.items()]
    removed = [
        {"name": name, "time": told_time(at), "reasons": [retention.NO_RULE]}
        for name, at in sorted(under.items(), key=lambda one: (one[1] or 0, one[0]))
        if name not in reasons
    ]
    return kept, removed


def told_time(seconds: float | None) -> str | None:
    """A time for people and programs, in UTC."""
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class VolumeSnapshot(Operation):
    """The snapshots of one volume."""

    operation = "snapshot"

    def __init__(self, connection: Any, options: dict[str, Any], planned_pool: Any = None) -> None:
        super().__init__(connection, options, planned_pool)
        self.wish = wanted(self.label, options)
        self.form = ""
        self.guest: Attachment | None = None
        self.way = ""  # the kind of the snapshot that is named
        self.result: dict[str, Any] = {}

    # reading

    def read(self) -> dict[str, Any]:
        before = super().read()
        before.update(snapshots=[], unfinished=[], same=False, now=time.time())
        if before["exists"] and self.is_file(before["path"]):
            self.find_unfinished(before)
        if self.wish["state"] == "absent" and not before["exists"]:
            return before
        self.require_there(before)
        self.form = self.format(before)
        before["snapshots"] = self.look()
        if self.wish["state"] == "reverted":
            before["same"] = not before["unfinished"] and self.has_content_of(self.found())
        return before

    def find_unfinished(self, before: dict[str, Any]) -> None:
        """What a killed run has begun: a second name of the volume, or an overlay that its guest never took."""
        directory, name = os.path.split(before["path"])
        second = by_file.half_frozen(directory, name)
        if second and before["foreign"]:
            image = chain.images.probe(before["path"])
            before.update(foreign="", header=image.format if image else None)
            before["options"]["permissions"] = by_file.permissions.read(before["path"])
        unused = [one.path for one in by_file.beside(directory, name) if one.overlay and self.is_left(one.path)]
        before["unfinished"] = [*second, *unused]

    def is_left(self, path: str) -> bool:
        """Whether an overlay is one that its guest never took, or one that it has come back from.

        What another host has planned is its own to end: its guests can't be seen from here.
        """
        found = by_file.marked(path) or {}
        if not (found.get(by_file.PLANNED) or found.get(by_file.LEAVING)) or self.is_used(path):
            return False
        if found.get(by_file.PLANNED) == by_file.files.this_host() and by_file.empty(path):
            return True
        return bool(found.get(by_file.LEAVING)) and any(use.level == 0 for use in self.users(running_only=False))

    def is_used(self, path: str) -> bool:
        """Whether a domain of this host names a file of the pool, or a QEMU of any host has it open."""
        return bool(self.uses_of(path, running_only=False)) or chain.image_locked(path)

    def trouble_of(self, one: Snapshot) -> str:
        """Why a file beside the volume can't be reverted to."""
        found = (by_file.marked(one.path) or {}) if one.overlay else {}
        if found.get(by_file.LEAVING) and not self.uses_of(one.path, running_only=False):
            return UNKNOWN
        if found.get(by_file.PLANNED) and by_file.empty(one.path) and not self.is_used(one.path):
            return NOT_TAKEN
        if one.overlay and not one.trouble and by_file.written_since(one.path, self.before["path"]):
            return WRITTEN
        return one.trouble

    def look(self) -> list[Snapshot]:
        """Every snapshot of the volume, oldest first."""
        path, found = self.before["path"], []
        if self.backend.snapshots is not None:
            self.require_local(self.backend.snapshots.command)
            return self.backend.snapshots.look(self.connection, self.pool_options(), self.volume_name)
        self.require_local("snapshots of files")
        if not self.is_file(path):
            return []
        if self.form == "qcow2":
            found += [one for one, dummy in by_file.table(path).snapshots]
        directory, name = os.path.split(path)
        for one in by_file.beside(directory, name):
            if one.path not in self.before["unfinished"]:
                found.append(replace(one, trouble=self.trouble_of(one)))
        found += by_file.in_subvolumes(directory, name)
        return sorted(found, key=lambda one: one.time or 0)

    @property
    def native(self) -> Snapshots:
        """The backend's own way; asked only for what it showed."""
        if self.backend.snapshots is None:
            raise AssertionError(f"{self.label}: its backend has no snapshots")
        return self.backend.snapshots

    @property
    def size(self) -> int | None:
        """Bytes that a guest sees."""
        return self.before["options"].get("capacity")

    def found(self) -> Snapshot:
        """The snapshot that is named."""
        name = self.wish["snapshot"]
        same = [one for one in self.before["snapshots"] if one.name == name]
        if len(same) == 1:
            return same[0]
        raise StorageError(
            thing=self.label,
            code="ambiguous" if same else "no_snapshot",
            reason=f"it has {len(same)} snapshots {name!r}" if same else f"it has no snapshot {name!r}",
            way_out="remove all but one of them" if same else "volume_snapshot_info lists those that it has",
        )

    def has_content_of(self, one: Snapshot) -> bool:
        """Whether the volume surely has the content of a snapshot, where that is told without reading it."""
        if one.trouble:
            return False
        if one.size is not None and self.size is not None and one.size != self.size:
            return False
        path = self.before["path"]
        if one.kind == NATIVE:
            return self.native.same(self.connection, self.pool_options(), self.volume_name, one.name)
        if one.kind == INTERNAL:
            return by_file.untouched(path, one.name)
        if one.kind == EXTERNAL:
            upper, base = (one.path, path) if one.overlay else (path, one.path)
            return self.backing_name(upper) == base and by_file.empty(upper)
        return False

    def backing_name(self, path: str) -> str | None:
        """What a file says that it stands on."""
        image = chain.images.probe(path)
        return image.backing if image is not None else None

    # deciding

    def plan(self, before: dict[str, Any]) -> Plan:
        made = plan(before, self.wish)
        there: dict[str, float | None] = {one.name: one.time for one in before["snapshots"]}
        if "snapshot" in made.steps:
            there[self.wish["snapshot"]] = before["now"]
        kept, removed = judged(there, self.wish)
        self.result.update(kept=kept, removed=removed)
        return made

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        if "mend" in plan.steps:
            self.require_unprotected(before)
        if "snapshot" in plan.steps:
            self.check_take(before)
        elif self.wish["snapshot"] is not None and before["snapshots"]:
            self.check_kind()
        if "remove_snapshot" in plan.steps:
            self.check_remove(self.found())
        if "prune" in plan.steps:
            for one in self.leaving():
                self.check_remove(one)
        if "revert" in plan.steps:
            self.check_revert(before, plan)

    def check_kind(self) -> None:
        """A snapshot that is there is of the kind that is asked for."""
        name, kind = self.wish["snapshot"], self.wish["kind"]
        for one in self.before["snapshots"]:
            if one.name == name:
                self.way = one.kind
                if kind not in ("auto", one.kind):
                    raise StorageError(
                        thing=self.label,
                        code="cannot_change",
                        reason=f"its snapshot {name!r} is {one.kind}, not {kind}",
                        way_out="leave kind out, or take it under another name",
                    )

    def leaving(self) -> list[Snapshot]:
        """What a retention removes of what is there, the oldest first."""
        names = [one["name"] for one in self.result["removed"]]
        return [one for one in self.before["snapshots"] if one.name in names]

    # deciding: to take one

    def check_take(self, before: dict[str, Any]) -> None:
        self.guest = self.attachment()
        self.way = self.wish["kind"] if self.wish["kind"] != "auto" else self.best_kind()
        native = self.backend.snapshots
        if self.way == NATIVE or native is not None:
            self.check_native()
        elif self.way == INTERNAL and self.form != "qcow2":
            raise self.unsupported(f"a volume of format {self.form} has no room for them", "use another kind, or qcow2")
        elif self.way == EXTERNAL:
            self.check_external()
        elif self.way == REFLINK and not by_file.can_clone(before["path"]):
            raise by_file.no_reflink(self.label)
        elif self.way == SUBVOLUME and not by_file.is_subvolume(os.path.dirname(before["path"])):
            raise self.unsupported("the pool's directory is not a subvolume of btrfs", "use another kind")
        if self.way in (EXTERNAL, REFLINK, SUBVOLUME):
            self.check_file_name()
        if self.wish["size"] is not None and not (native is not None and native.sized):
            raise self.unsupported("no size is given to a snapshot here", "leave size out")
        if self.way in (INTERNAL, EXTERNAL):
            self.require_unprotected(before)
        if self.guest is not None and self.way not in (EXTERNAL, NATIVE):
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"domain {self.guest.domain.name()!r} is running with it, and a snapshot of kind {self.way} "
                "is taken of what lies still",
                way_out="shut it down first, or use kind: external",
            )
        if self.guest is not None:
            self.require_consistent()
        else:
            self.require_still(before)

    def best_kind(self) -> str:
        """The kind that its storage is best at."""
        if self.backend.snapshots is not None:
            return NATIVE
        if self.guest is not None:
            return EXTERNAL
        if self.form == "qcow2":
            return INTERNAL
        if by_file.can_clone(self.before["path"]):
            return REFLINK
        raise self.unsupported(
            f"a volume of format {self.form} has no room for snapshots, and its file system can't share blocks",
            "convert it to qcow2, or move it to xfs, btrfs, LVM, ZFS or Ceph",
        )

    def unsupported(self, reason: str, way_out: str) -> StorageError:
        return StorageError(thing=self.label, code="unsupported", reason=reason, way_out=way_out)

    def check_native(self) -> None:
        native = self.backend.snapshots
        if native is None or self.way != NATIVE:
            kind = "native" if native is not None else "one of files"
            raise self.unsupported(f"a snapshot of a {self.backend.type} pool is not {self.way}", f"it is {kind}")
        error = native.error(self.volume_name, self.wish["snapshot"])
        if error:
            raise StorageError(thing=self.label, code="bad_name", reason=error)

    def check_external(self) -> None:
        """An overlay is qcow2: who declares the volume raw would take the overlay's own bytes for the disk."""
        if self.guest is None and self.form != "qcow2":
            raise self.unsupported(
                f"it is {self.form}, and the overlay in its place would be qcow2, which its domains would misread",
                "convert it to qcow2, or use kind: reflink on xfs or btrfs",
            )
        if self.guest is None and by_file.table(self.before["path"]).snapshots:
            raise self.unsupported(
                "it has internal snapshots, which would go away with the frozen file", "remove them, or use internal"
            )

    def check_file_name(self) -> None:
        """Nobody else has the name of the snapshot's file."""
        directory, entry = os.path.split(by_file.file_of(self.before["path"], self.wish["snapshot"]))
        path = os.path.join(directory, by_file.FOLDER if self.way == SUBVOLUME else "", entry)
        if len(os.fsencode(entry)) > LONGEST_NAME:
            raise StorageError(thing=self.label, code="bad_name", reason=f"{entry!r} is too long for a file")
        if os.path.lexists(path) and path not in self.before["unfinished"]:
            raise StorageError(
                thing=self.label,
                code="name_taken",
                reason=f"{path} is there and is none of its snapshots",
                way_out="move it away, or choose another name",
            )

    def require_consistent(self) -> None:
        """A running guest is asked to write out what it has, or the user takes what a power cut would leave."""
        if self.guest is not None and not self.wish["crash_consistent"] and not agent_answers(self.guest.domain):
            raise StorageError(
                thing=self.label,
                code="not_frozen",
                reason=f"no guest agent answers in domain {self.guest.domain.name()!r}, so its file systems can't be "
                "frozen",
                way_out="start the agent, shut the domain down, or say crash_consistent: true",
            )

    def require_still(self, before: dict[str, Any]) -> None:
        """Nobody else has it open; a native snapshot may be taken all the same where that is said."""
        try:
            self.require_unused(before)
        except StorageError as error:
            if error.code != "in_use" or self.way != NATIVE:
                raise
            if not self.wish["crash_consistent"]:
                raise StorageError(
                    thing=self.label,
                    code="in_use",
                    reason=error.reason,
                    way_out="end that use first, or say crash_consistent: true",
                ) from None

    # deciding: to remove one

    def check_remove(self, one: Snapshot) -> None:
        if one.children or one.protected:
            why = f"{', '.join(one.children[:5])} stand on it" if one.children else "the backend protects it"
            raise StorageError(
                thing=self.of(one),
                code="has_overlays",
                reason=why,
                way_out="flatten or remove those first" if one.children else "unprotect it first",
            )
        if one.kind == INTERNAL:
            self.require_unprotected(self.before)
            self.require_unused(self.before, way_out="shut it down first: the guest has the file open")
        elif one.kind == REFLINK:
            self.require_free(one)
            self.require_nothing_on(one.path, self.of(one))
        elif one.kind == SUBVOLUME:
            self.require_nobody_inside(one)
        elif one.kind == EXTERNAL and one.overlay:
            self.check_remove_overlay(one)
        elif one.kind == EXTERNAL:
            self.check_remove_frozen(one)

    def uses_of(self, path: str, running_only: bool) -> list[chain.Use]:
        """Who uses a file of the pool."""
        found = chain.uses(self.connection, running_only)
        return chain.of_volume(found, self.pool_name, os.path.basename(path), path, self.connection.local)

    def require_free(self, one: Snapshot, running_only: bool = False) -> None:
        """No domain has the file of a snapshot, and no QEMU has it open."""
        users = self.uses_of(one.path, running_only)
        locked = not users and chain.image_locked(one.path)
        if users or locked:
            raise StorageError(
                thing=self.of(one),
                code="in_use",
                reason=f"{one.path} is used by {chain.names(users)}"
                if users
                else f"a QEMU process has {one.path} open",
                way_out="shut it down, or give it another disk, first",
            )

    def require_nothing_on(self, path: str, what: str, allowed: tuple[str, ...] = ()) -> list[str]:
        """Nothing but what is allowed, as pool/name, stands on a file; what does."""
        above = chain.overlays(self.connection, path)
        others = [name for name in above if name not in allowed]
        if others:
            raise StorageError(
                thing=what,
                code="has_overlays",
                reason=f"it is the base of {', '.join(others[:5])}",
                way_out="flatten or remove those first",
            )
        return above

    def require_nobody_inside(self, one: Snapshot) -> None:
        """A snapshot of a subvolume holds the files of all volumes: no disk is one of them or stands on one."""
        from .chainwork import pools_by_directory

        folder = os.path.realpath(os.path.dirname(one.path))
        inside = f"{folder}/"
        above = {name for name, base in chain.backed(self.connection) if base.startswith(inside)}
        pools = {name for target, name in pools_by_directory(self.connection) if f"{target}/".startswith(inside)}
        users = [use for use in chain.uses(self.connection) if use.path.startswith(inside) or use.pool in pools]
        locked = [path for path in (os.path.join(folder, entry) for entry in os.listdir(folder)) if is_locked(path)]
        if above:
            raise StorageError(
                thing=self.of(one),
                code="has_overlays",
                reason=f"{', '.join(sorted(above)[:5])} stand on files in {folder}, which would be gone",
                way_out="flatten or remove those first",
            )
        if users or locked:
            raise StorageError(
                thing=self.of(one),
                code="in_use",
                reason=f"files in {folder} are used by {chain.names(users)}"
                if users
                else f"a QEMU process has {locked[0]} open",
                way_out="shut it down, or give it another disk, first",
            )

    def of(self, one: Snapshot) -> str:
        """A snapshot for an error."""
        return f"{self.label}: snapshot {one.name!r}"

    def check_remove_frozen(self, one: Snapshot) -> None:
        """What stands on it takes its data in: at most one, of the volume's own family."""
        self.require_unprotected(self.before)
        family = [self.name, *(self.name_of_snapshot(other) for other in self.before["snapshots"] if other.path)]
        above = self.require_nothing_on(one.path, self.of(one), tuple(family))
        if len(above) > 1:
            raise StorageError(
                thing=self.of(one),
                code="has_overlays",
                reason=f"{', '.join(above)} stand on it, and one alone could take its data in",
                way_out="remove the others first",
            )
        self.require_unused(self.before)
        self.require_free(one, running_only=True)
        if above and by_file.table(self.path_of(above[0])).snapshots:
            raise self.unsupported(
                f"{above[0]} has internal snapshots, which would go away with its file", "remove those first"
            )

    def path_of(self, name: str) -> str:
        """The file of a volume of the own pool, as pool/name."""
        return os.path.join(os.path.dirname(self.before["path"]), name[len(self.pool_name) + 1 :])

    def check_remove_overlay(self, one: Snapshot) -> None:
        """What a guest wrote since goes down into the volume: by the guest itself, or by qemu-img where nobody runs."""
        if one.trouble == UNKNOWN:
            raise self.in_trouble(one, f"compare it with the volume, then remove or commit {one.path} by hand")
        self.require_nothing_on(one.path, self.of(one))
        self.require_nothing_on(self.before["path"], self.label, (self.name_of_snapshot(one),))
        self.require_unprotected(self.before)
        users = self.uses_of(one.path, running_only=True)
        if users:
            self.place_of(one, users)
        elif one.trouble == WRITTEN:  # the two halves no longer belong together
            was = (by_file.marked(one.path) or {})[by_file.BASE]
            harmless = f"'touch --date=@{was} {self.before['path']}' says that it was harmless"
            raise self.in_trouble(one, f"find out who wrote to it; {harmless}, or remove {one.path} to give it up")
        else:
            self.require_free(one)
            self.require_unused(self.before)

    def place_of(self, one: Snapshot, users: list[chain.Use]) -> blockjob.Place:
        """The disk of the running guest whose top a snapshot's file is."""
        disks = {(use.domain, use.target) for use in users if use.level == 0 and use.target}
        domains = [domain for domain in self.connection.domains() if domain.name() in {use.domain for use in users}]
        if len(disks) != 1 or len(domains) != 1:
            raise StorageError(
                thing=self.of(one),
                code="in_use",
                reason=f"{one.path} is used by {chain.names(users)}, and not as the one disk of one of them",
                way_out="shut them down first",
            )
        return blockjob.Place(self.label, domains[0], disks.pop()[1])

    # deciding: to revert

    def check_revert(self, before: dict[str, Any], plan: Plan) -> None:
        one = self.found()
        self.check_kind()
        if one.trouble:
            raise self.in_trouble(one, "remove it, and revert to another one")
        self.require_unprotected(before)
        self.require_unused(before, way_out="shut it down first: a guest can't have its disk changed under it")
        if one.overlay:
            self.require_free(one, running_only=True)
            self.require_nothing_on(one.path, self.of(one))
            self.require_nothing_on(before["path"], self.label, (self.name_of_snapshot(one),))
        else:  # libvirt takes the snapshots of a logical volume for overlays on it
            own = tuple(self.name_of_snapshot(other) for other in before["snapshots"] if other.kind == NATIVE)
            self.require_nothing_on(before["path"], self.label, own)
        if one.kind == EXTERNAL and not one.overlay and by_file.table(before["path"]).snapshots:
            raise self.unsupported("its internal snapshots would go away with its file", "remove those first")
        self.check_newer(before, one)
        self.result.update(capacity_before=self.size, capacity_after=one.size or self.size)
        if one.size is not None and self.size is not None and one.size != self.size:
            had, gets = (fields.At("capacity", "size").show(value) for value in (self.size, one.size))
            plan.warnings.append(
                f"{self.label}: snapshot {one.name!r} is of the time when it had {gets}, and so it has no longer {had}"
            )

    def in_trouble(self, one: Snapshot, way_out: str) -> StorageError:
        return StorageError(thing=self.of(one), code="bad_snapshot", reason=one.trouble, way_out=way_out)

    def check_newer(self, before: dict[str, Any], one: Snapshot) -> None:
        """Some storage reverts only to its newest snapshot: those after it must be given up."""
        if self.backend.snapshots is None or not self.backend.snapshots.drops_newer:
            return
        newer = before["snapshots"][before["snapshots"].index(one) + 1 :]
        if newer and not self.wish["destroy_newer"]:
            raise StorageError(
                thing=self.label,
                code="newer_snapshots",
                reason=f"the snapshots {', '.join(other.name for other in newer[:5])} are newer than {one.name!r}, "
                "and a revert to it destroys them",
                way_out="revert to the newest, or say destroy_newer: true",
            )
        for other in newer:
            self.check_remove(other)

    # steps

    def mend(self) -> None:
        """End what a killed run has begun: the volume stays as it is."""
        by_file.thaw_name(self)
        self.connection.forget(self.pool_name)  # who uses what is asked again
        for path in self.before["unfinished"]:
            # on a share another host may have gone on with it since
            if (by_file.marked(path) or {}).get("role") == by_file.OVERLAY and self.is_left(path):
                os.unlink(path)
        self.changed_files()

    def changed_files(self) -> None:
        """libvirt looks at the pool before anybody asks it of one, or when all is done."""
        self.connection.unseen(self.pool_name)
        self.connection.forget(self.pool_name)

    def changed_natively(self) -> None:
        """libvirt looks at the pool when all is done."""
        if self.native.listed:
            self.connection.unseen(self.pool_name)

    def snapshot(self) -> None:
        with progress.told("snapshot"):
            self.take(self.wish["snapshot"])

    def take(self, name: str) -> None:
        self.result["frozen"] = False if self.guest is not None else None
        if self.way == NATIVE:
            with self.frozen():
                self.native.create(
                    self.label, self.connection, self.pool_options(), self.volume_name, name, self.wish["size"]
                )
            self.changed_natively()
            return
        if self.way == EXTERNAL and self.guest is not None:
            self.take_from_guest(name)
        else:
            take = {INTERNAL: by_file.take_internal, EXTERNAL: by_file.freeze}
            take.update({REFLINK: by_file.take_copy, SUBVOLUME: by_file.take_subvolume})
            take[self.way](self, name)
        self.changed_files()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The file systems of a running guest are frozen meanwhile, where its agent answers."""
        if self.guest is None or not agent_answers(self.guest.domain):
            yield
            return
        domain = self.guest.domain
        with thaw.watched(self.connection.uri, domain.UUIDString()) as is_thawed:
            try:
                domain.fsFreeze(None, 0)
                self.result["frozen"] = True
            except libvirt.libvirtError as error:
                self.thaw(domain, is_thawed)  # some of them may be frozen
                if not self.wish["crash_consistent"]:
                    raise self.not_frozen(words(error)) from None
            try:
                yield
            finally:
                self.thaw(domain, is_thawed)

    def thaw(self, domain: Any, is_thawed: Callable[[], None]) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            domain.fsThaw(None, 0)
            is_thawed()

    def not_frozen(self, reason: str) -> StorageError:
        return StorageError(
            thing=self.label,
            code="not_frozen",
            reason=f"the guest agent did not freeze its file systems ({reason})",
            way_out="look at the agent, or say crash_consistent: true",
        )

    def take_from_guest(self, name: str) -> None:
        """The guest goes on in an overlay that is made here, of the volume's own mode from its first moment."""
        if self.guest is None:
            raise AssertionError("only of a running guest")
        path = self.before["path"]
        upper = by_file.file_of(path, name)
        entry = os.path.basename(upper)
        found = by_file.new_mark(by_file.OVERLAY, self.size)
        with by_file.files.hidden(os.path.dirname(path)) as temporary:
            by_file.overlay(self, temporary, path, self.form, self.size)
            by_file.mark(self.label, temporary, {entry: {**found, by_file.PLANNED: by_file.files.this_host()}})
            by_file.files.publish(temporary, upper)
        quiesce = agent_answers(self.guest.domain)
        try:
            self.ask_guest(upper, quiesce)
        except libvirt.libvirtError:
            if not self.uses_of_now(upper):
                os.unlink(upper)
            raise
        self.result["frozen"] = quiesce
        by_file.mark(self.label, upper, {entry: {**found, by_file.BASE: by_file.last_written(path)}})

    def uses_of_now(self, path: str) -> bool:
        """Whether the guest has a file by now."""
        if self.guest is None:
            return False
        tree = xmltree.parse(self.guest.domain.XMLDesc(0))
        return any(source.get("file") == path for source in tree.iterfind("devices/disk/source"))

    def ask_guest(self, upper: str, quiesce: bool) -> None:
        if self.guest is None:
            raise AssertionError("only of a running guest")
        domain = self.guest.domain
        flags = NO_METADATA | DISK_ONLY | REUSE_EXT | ATOMIC | (QUIESCE if quiesce else 0)
        domain.snapshotCreateXML(xmltree.text(self.one_disk(domain, upper)), flags)

    def one_disk(self, domain: Any, upper: str) -> Any:
        """The XML that takes a snapshot of one disk of a domain and leaves the others alone."""
        if self.guest is None:
            raise AssertionError("only of a running guest")
        tree = xmltree.new("domainsnapshot")
        disks = xmltree.append(tree, "disks")
        for disk in xmltree.parse(domain.XMLDesc(0)).iterfind("devices/disk"):
            target = disk.find("target").get("dev")
            one = xmltree.append(disks, "disk")
            one.set("name", target)
            one.set("snapshot", "external" if target == self.guest.target else "no")
            if target == self.guest.target:
                one.set("type", "file")
                xmltree.put(one, "driver/@type", "qcow2")
                xmltree.put(one, "source/@file", upper)
        return tree

    def remove_snapshot(self) -> None:
        with progress.told("remove") as tick:
            self.remove(self.found(), tick)

    def prune(self) -> None:
        for one in self.leaving():
            with progress.told("prune") as tick:
                self.remove(one, tick)
            self.before["snapshots"].remove(one)

    def remove(self, one: Snapshot, tick: Callable[[int], None]) -> None:
        if one.kind == NATIVE:
            self.native.delete(self.label, self.connection, self.pool_options(), self.volume_name, one.name)
            self.changed_natively()
            return
        if one.kind == INTERNAL:
            by_file.remove_internal(self, one.name)
        elif one.kind == SUBVOLUME:
            by_file.remove_subvolume(self, one.path)
        elif one.overlay:
            self.remove_overlay(one, tick)
        elif one.kind == EXTERNAL:
            above = chain.overlays(self.connection, one.path)
            if above:
                by_file.absorb(self, one.path, self.path_of(above[0]))
            else:
                os.unlink(one.path)
        else:
            os.unlink(one.path)
        self.changed_files()

    def remove_overlay(self, one: Snapshot, tick: Callable[[int], None]) -> None:
        users = self.uses_of(one.path, running_only=True)
        if users:
            place = self.place_of(one, users)
            base = self.before["path"]
            by_file.begin_merge(self.label, one.path)
            blockjob.begin(
                place,
                blockjob.ACTIVE_COMMIT,
                lambda: place.domain.blockCommit(place.target, base, None, 0, COMMIT_ACTIVE),
            )
            tell = blockjob.ticking(tick)
            blockjob.wait(place, "remove_snapshot", LONGEST_MERGE, tell, until_ready=True)
            entry = os.path.basename(one.path)
            by_file.mark(self.label, one.path, {entry: {**by_file.marks(one.path)[entry], by_file.LEAVING: True}})
            blockjob.pivot(place, "remove_snapshot")
            self.connection.forget()
        else:
            by_file.begin_merge(self.label, one.path)
            was = by_file.files.identity(one.path)
            by_file.merge_down(self, one.path, self.before["path"], self.form)
            by_file.remove_merged(self, one.path, was)
            return
        os.unlink(one.path)

    def revert(self) -> None:
        with progress.told("revert"):
            self.go_back()

    def go_back(self) -> None:
        one, path = self.found(), self.before["path"]
        if one.kind == NATIVE:
            newer = bool(self.wish["destroy_newer"])
            self.native.revert(self.label, self.connection, self.pool_options(), self.volume_name, one.name, newer)
            self.refresh()
            return
        if one.kind == INTERNAL:
            by_file.revert_internal(self, one.name)
        elif one.overlay:
            by_file.start_anew(self, one.path, path, self.form, one.size)
        elif one.kind == EXTERNAL:
            by_file.start_anew(self, path, one.path, "qcow2", one.size)
        else:
            by_file.revert_copy(self, one.path)
        self.changed_files()

    def facts(self) -> dict[str, Any]:
        found = {**super().facts(), "snapshot": self.wish["snapshot"], "kind": self.way or None, **self.result}
        return {"kept": [], "removed": [], "frozen": None, **found}


def is_locked(path: str) -> bool:
    """Whether a QEMU has a plain file open."""
    return not os.path.islink(path) and os.path.isfile(path) and chain.image_locked(path)


def agent_answers(domain: Any) -> bool:
    """Whether the guest agent of a running domain is connected, as its XML tells."""
    tree = xmltree.parse(domain.XMLDesc(0))
    return any(
        target.get("name") == AGENT and target.get("state") == "connected"
        for target in tree.iterfind("devices/channel/target")
    )


def of_volume(target: Any) -> VolumeSnapshot:
    """The retention of a volume's snapshots, as an item of a layout declares it."""
    given = target.want["snapshots"]
    spec = {name: option.get("default") for name, option in argument_spec().items()}
    form = target.want["options"].get("format")
    options = {**spec, "pool": target.pool_name, "name": target.volume_name, "format": form, **given}
    return VolumeSnapshot(target.connection, options, target.planned_pool)


def run() -> None:
    """The main function of the volume_snapshot module."""
    reconcile.run(argument_spec(), lambda connection, params: [VolumeSnapshot(connection, params)], **RULES)


# volume_snapshot_info


def info_spec() -> dict[str, Any]:
    return {**OPERATION_SPEC}


def gather(connection: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Every snapshot of a volume, oldest first."""
    asked = {**params, "snapshot": "any", "state": "present", "kind": "auto", "crash_consistent": False}
    found = VolumeSnapshot(connection, {**asked, "destroy_newer": False})
    before = found.read()
    return {"snapshots": [entry(found, one) for one in before["snapshots"]], "unfinished": before["unfinished"]}


def entry(volume: VolumeSnapshot, one: Snapshot) -> dict[str, Any]:
    """One snapshot for a result."""
    children = list(one.children)
    if one.path and one.kind != SUBVOLUME:
        children = chain.overlays(volume.connection, one.path)
    return {
        "name": one.name,
        "kind": one.kind,
        "time": told_time(one.time),
        "size": one.size,
        "size_readable": sizes.readable(one.size) if one.size is not None else None,
        "children": children,
        "path": one.path or None,
        "trouble": one.trouble or None,
    }


def run_info() -> None:
    """The main function of the volume_snapshot_info module."""
    reconcile.run_info(info_spec(), gather)
