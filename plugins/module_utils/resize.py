# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The size of a volume that exists: it grows by the shortest way, and gets smaller only where that is allowed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import headroom, images, progress, reconcile, sizes
from .backend import Native, Refused
from .errors import StepFailed, StorageError
from .operation import OPERATION_SPEC, Attachment, Operation
from .plan import Plan
from .volume import GROWING, Volume

BLOCK_RESIZE_BYTES = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES
SHRINKING = ("raw", "qcow2")  # the formats that qemu-img makes smaller


def argument_spec() -> dict[str, Any]:
    return {
        **OPERATION_SPEC,
        "capacity": {"type": "str", "required": True},
        "shrink": {"type": "str", "choices": ["refuse", "if_unused", "discard"], "default": "refuse"},
        "encryption": {
            "type": "dict",
            "options": {
                # names of secrets, not their values
                "secret_usage": {"type": "str", "no_log": False},
                "secret_uuid": {"type": "str", "no_log": False},
            },
            "mutually_exclusive": [["secret_usage", "secret_uuid"]],
            "required_one_of": [["secret_usage", "secret_uuid"]],
        },
        **headroom.OVERCOMMIT_SPEC,
    }


@dataclass(frozen=True)
class Goal:
    """A capacity in bytes, or with delta how much it differs from what is there."""

    size: int
    delta: bool = False

    def of(self, have: int, granule: int = 1) -> int:
        """The capacity that is wanted of a volume that has another one, rounded up to a granule."""
        return -(-(have + self.size if self.delta else self.size) // granule) * granule


def goal_of(thing: str, text: str) -> Goal:
    """A capacity such as 40GiB, +10GiB or -10GiB."""
    text = str(text).strip()
    sign = text[:1] if text[:1] in ("+", "-") else ""
    try:
        size = sizes.parse(text[len(sign) :])
    except ValueError as error:
        raise wrong(thing, text, str(error)) from None
    if size == 0:
        raise wrong(thing, text, "more than 0")
    return Goal(-size if sign == "-" else size, bool(sign))


def wrong(thing: str, text: str, expected: str) -> StorageError:
    return StorageError(
        thing=thing,
        code="bad_value",
        reason=f"capacity can't be {text!r}",
        way_out=f"give {expected}, such as 40GiB, or +10GiB for a difference",
    )


def plan(before: dict[str, Any], goal: Goal, granule: int) -> Plan:
    """The steps to the wanted capacity; pure.

    before has options.capacity, guest ("" for none, "disk" for one whose QEMU can resize the volume itself, "device"
    for one that is only told of it) and seen, the capacity that this guest sees.
    """
    have = before["options"].get("capacity")
    if not before["exists"] or have is None:
        return Plan()
    need = goal.of(have, granule)
    steps: list[str] = []
    if have < need:
        steps = {"": ["grow"], "device": ["grow", "tell_guest"], "disk": ["grow_in_guest"]}[before["guest"]]
    elif have >= goal.of(have) + granule:
        steps = ["shrink"]
    elif before["guest"] and before["seen"] < need and not goal.delta:
        steps = ["tell_guest"]  # an earlier run was ended before it
    if not steps:
        return Plan([], {"capacity": have}, {"capacity": have})
    smaller = "shrink" in steps
    after = {"capacity": need if have != need else have}
    return Plan(steps, {"capacity": have}, after, risk="MAY DISCARD DATA, as shrink allows" if smaller else "in place")


class Resize(Operation):
    """One volume that shall have another size."""

    operation = "resize"
    concurrent = False

    def __init__(self, connection: Any, options: dict[str, Any], planned_pool: Any = None) -> None:
        super().__init__(connection, options, planned_pool)
        self.encryption = options.get("encryption")
        self.goal = goal_of(self.label, options["capacity"])
        self.policy = headroom.policy_of(self.label, options)
        self.guest: Attachment | None = None
        self.need = 0

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **({"capacity": self.need} if self.need else {})}

    def way_out(self, words: str) -> str:
        if "inconsistent bitmaps" in words or "bitmap" in words.lower():
            return "remove its bitmaps with 'qemu-img bitmap --remove' first"
        return super().way_out(words)

    # reading

    def read(self) -> dict[str, Any]:
        before = super().read()
        before.update(guest="", seen=0, busy=None)
        if not before["exists"] or before["foreign"]:
            return before
        try:
            self.guest = self.attachment()
            if self.guest is not None:
                before["seen"] = self.guest.domain.blockInfo(self.guest.target, 0)[0]
                before["guest"] = "device" if self.on_device(before) else "disk"
        except StorageError as error:
            before["busy"] = error  # of no matter where nothing is to be done
        return before

    def on_device(self, before: dict[str, Any]) -> bool:
        """Whether QEMU can't change the size of what the guest's disk stands on."""
        return before["path"].startswith("/") and not self.backend.makes_directory

    def plan(self, before: dict[str, Any]) -> Plan:
        known = before["exists"] and not before["foreign"]
        made = plan(before, self.goal, self.granule(before, self.declared(before)) if known else 1)
        self.need = (made.after or {}).get("capacity", 0)
        return made

    def declared(self, before: dict[str, Any]) -> str | None:
        """The format by which the capacity is rounded; check() is who insists on one."""
        return self.want["options"].get("format") or before["options"].get("format")

    # deciding

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        self.require_there(before)
        form = self.format(before)
        if "capacity" not in before["options"]:
            raise StorageError(
                thing=self.label,
                code="not_a_volume",
                reason="its size can't be read",
                way_out="look at it with 'qemu-img info' on its host",
            )
        if self.goal.of(before["options"]["capacity"]) <= 0:
            raise wrong(self.label, self.options["capacity"], "less than what it has")
        if not plan.steps:
            return
        self.require_unprotected(before)
        self.check_entry()
        if before["busy"] is not None:
            raise before["busy"]
        if "shrink" in plan.steps:
            self.check_shrink(before, form)
        else:
            self.check_grow(before, form)
            have = before["options"]["capacity"]
            plan.warnings += self.room(before, max(self.need - have, 0))
        if self.is_file(before["path"]) and self.guest is None:
            with self.opened(form, before):  # every header of its chain is inspected
                pass

    def check_entry(self) -> None:
        """What the backend's own command says against it."""
        entry = self.entry()
        if entry is not None and entry.fixed:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"its size can't change: {entry.fixed}",
                way_out="remove the snapshot first, or make a new volume and copy it there",
            )

    def check_grow(self, before: dict[str, Any], form: str) -> None:
        method = self.backend.operations["resize"]
        if isinstance(method, Native) and method.call is not None:
            self.require_local(method.command)
        if self.backend.makes_directory and form not in GROWING:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"qemu-img can't resize an image of format {form}",
                way_out="convert it to qcow2 or raw first (volume_convert), and back when it has grown",
            )
        self.check_old_snapshots(before, form)
        if self.guest is not None:
            self.require_one_client()
            return
        self.check_encryption(before)
        self.check_unlocked(before)
        self.require_no_watchers()

    def check_old_snapshots(self, before: dict[str, Any], form: str) -> None:
        """A qcow2 of the format of 2008 can't keep a size for each of its snapshots."""
        if form != "qcow2" or not self.is_file(before["path"]):
            return
        from .headers import inspect

        descriptor = images.open_image(before["path"], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = inspect(descriptor, form)
        finally:
            os.close(descriptor)
        if found.version == 2 and found.snapshots:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"it is a qcow2 of compat 0.10 and has {found.snapshots} internal snapshots, whose size it "
                "could not keep",
                way_out="raise it with 'qemu-img amend -f qcow2 -o compat=1.1', or remove the snapshots",
            )

    def require_one_client(self) -> None:
        """The guest itself is one client of its image; any other may be a guest of another host."""
        if self.backend.watchers is None or not self.connection.local:
            return
        found = self.backend.watchers(self.connection, self.pool_options(), self.volume_name)
        if len(found) > 1:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is open at {', '.join(found)}",
                way_out="end the other use first; it may be a guest of another host",
            )

    def room(self, before: dict[str, Any], more: int) -> list[str]:
        """Whether the pool has room for what it grows by."""
        if before["thin_pool"]:
            return headroom.room(self, more, 0, self.policy, before["thin_pool"])
        thick = self.connection.local and self.backend.thick(self.pool_options(), self.volume_name)
        return headroom.room(self, more, more if thick else 0, self.policy)

    # smaller

    def check_shrink(self, before: dict[str, Any], form: str) -> None:
        have, need = (sizes.readable(one) for one in (before["options"]["capacity"], self.need))
        if self.options["shrink"] == "refuse":
            raise self.would_shrink(
                f"it has {have}, more than the {need} asked for",
                "give shrink: if_unused for what is known to be unused, or shrink: discard to give up what lies beyond",
            )
        if self.guest is not None:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {self.guest.name!r} (running), and no disk gets smaller under its guest",
                way_out="shut the domain down first",
            )
        way = self.backend.shrink
        if isinstance(way, Refused):
            raise StorageError(thing=self.label, code="unsupported", reason=way.reason, way_out=way.instead)
        self.require_local(way.command if way is not None else "qemu-img")
        if way is None and form not in SHRINKING:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"an image of format {form} can't get smaller",
                way_out="convert it to qcow2 or raw first (volume_convert)",
            )
        self.check_old_snapshots(before, form)
        self.check_encryption(before)
        self.require_unused(before)
        self.require_no_overlays(before)
        self.require_no_saved_state()
        if self.options["shrink"] == "if_unused":
            self.require_unused_end(before, form)

    def would_shrink(self, reason: str, way_out: str) -> StorageError:
        return StorageError(thing=self.label, code="would_shrink", reason=reason, way_out=way_out)

    def require_no_saved_state(self) -> None:
        """A guest that was saved goes on where it was, with the disk that it had."""
        names = {use.domain for use in self.users(running_only=False)}
        for domain in self.connection.domains() if names else ():
            if domain.name() in names and domain.hasManagedSaveImage(0):
                raise StorageError(
                    thing=self.label,
                    code="in_use",
                    reason=f"domain {domain.name()!r} was saved while it ran, and would go on with the larger disk",
                    way_out="start it and shut it down, or give its state up with 'virsh managedsave-remove'",
                )

    def require_unused_end(self, before: dict[str, Any], form: str) -> None:
        """shrink: if_unused, as far as it can be seen from outside."""
        way_out = "make the file system and the partition smaller in the guest first, or give shrink: discard"
        if not self.is_file(before["path"]):
            raise self.would_shrink("of a volume that is no file it can't be told what is unused", way_out)
        if before["encrypted"]:
            raise self.would_shrink("of an encrypted volume it can't be told what is unused", way_out)
        from .unused import objection

        with self.opened(form, before) as node:
            why = objection(self.label, node, self.need)
        if why:
            raise self.would_shrink(f"its end is not known to be unused: {why}", way_out)

    # steps

    def grow(self) -> None:
        if self.is_file(self.before["path"]):
            with self.content_kept(), progress.told("resize"):
                self.change_file()
        else:
            self.want["options"]["capacity"] = self.need
            Volume.resize(self)
        self.verify()

    def shrink(self) -> None:
        form = self.format(self.before)
        if self.options["shrink"] == "if_unused":
            self.require_unused_end(self.before, form)
        with progress.told("resize"):
            self.make_smaller()
        self.verify()

    def make_smaller(self) -> None:
        if self.is_file(self.before["path"]):
            self.change_file(shrink=True)
        else:
            self.backend.shrink.call(self.label, self.connection, self.pool_options(), self.volume_name, self.need)
            self.refresh()

    def change_file(self, shrink: bool = False) -> None:
        """By the descriptor of the very file whose header was inspected, while no guest can take it."""
        from . import exclusive, qemu_img

        form, path = self.format(self.before), self.before["path"]
        if form == "raw" and not self.before["encrypted"]:
            with exclusive.opened(self.label, path) as descriptor:
                os.ftruncate(descriptor, self.need)
                os.fsync(descriptor)
            return
        with self.opened(form, self.before) as node:
            qemu_img.resize(self.label, node, self.need, shrink=shrink)

    def grow_in_guest(self) -> None:
        """QEMU itself makes the image grow, and tells the guest."""
        self.tell(self.need)
        self.verify()

    def tell_guest(self) -> None:
        """The device has grown; the guest hears of its size, to the byte."""
        self.tell(self.size_now())

    def tell(self, size: int) -> None:
        guest = self.guest
        if guest is None:
            raise AssertionError(f"{self.label}: no guest to tell")
        guest.domain.blockResize(guest.target, size, BLOCK_RESIZE_BYTES)
        seen = guest.domain.blockInfo(guest.target, 0)[0]
        if seen < self.need:
            raise self.not_reached(f"its guest {guest.name!r} sees {sizes.both(seen)}")

    def verify(self) -> None:
        have = self.size_now()
        if have < self.need:
            raise self.not_reached(f"it has {sizes.both(have)} afterwards")

    def not_reached(self, found: str) -> StorageError:
        return StepFailed(
            thing=self.label,
            step="resize",
            code="backend_refused",
            reason=f"{found}, not the {sizes.both(self.need)} asked for",
        )

    def size_now(self) -> int:
        """What it has, as whoever knows it first tells."""
        path = self.before["path"]
        if self.is_file(path) and self.format(self.before) == "raw" and not self.before["encrypted"]:
            return os.lstat(path).st_size
        image = images.probe(path) if self.is_file(path) else None
        if image is not None and image.format != "raw" and image.capacity is not None:
            return image.capacity
        if self.connection.local and path.startswith("/dev/") and os.path.exists(path):
            from .transfer import size_of

            return size_of(path)
        handle = self.handle
        return handle.info()[1] if handle is not None else self.need


def run() -> None:
    """The main function of the module."""
    reconcile.run(argument_spec(), lambda connection, params: [Resize(connection, params)])
