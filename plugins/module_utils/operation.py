# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An operation on a volume that exists: what every one of them must know first, and who must not be using it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import chain, volume
from .errors import StorageError
from .volume import FORMATS, Volume

OPERATION_SPEC: dict[str, Any] = {
    "pool": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "format": {"type": "str", "choices": list(FORMATS)},
}


@dataclass(frozen=True)
class Attachment:
    """The one running guest that has a volume as its disk, and the disk's name in it, such as vda."""

    domain: Any
    name: str
    target: str


class Operation(Volume):
    """An operation on one volume. Subclasses name it as OPERATIONS does, plan and check it, and have its steps."""

    operation = ""

    def __init__(self, connection: Any, options: dict[str, Any], planned_pool: Any = None) -> None:
        given = {name: options.get(name) for name in OPERATION_SPEC}
        super().__init__(connection, volume.wanted({**given, "state": "present"}), None, planned_pool)
        self.options = options

    # what must be known

    def require_there(self, before: dict[str, Any]) -> None:
        """The volume is there, is a volume, and its backend can do this."""
        if before["foreign"]:
            raise StorageError(
                thing=self.label,
                code="not_a_volume",
                reason=f"what stands at {before['path']} is {before['foreign']}",
                way_out="move it away, or choose another name",
            )
        if not before["exists"]:
            raise StorageError(
                thing=self.label,
                code="no_volume",
                reason="it is not there",
                way_out="make it first; volume_info lists what is there (refresh: true looks anew)",
            )
        volume.refuse_operation(self.label, self.backend, self.operation)

    def format(self, before: dict[str, Any]) -> str:
        """The format that somebody declared: the task, the one domain that has it, or a backend that knows but one.

        A header that says otherwise is an error, since a guest may have written it.
        """
        declared = self.want["options"].get("format") or self.format_of_domains()
        if declared is None:
            if len(self.backend.volume_formats) > 1 and self.backend.keeps_format:
                raise StorageError(
                    thing=self.label,
                    code="format_undeclared",
                    reason="its format is nowhere declared, and to trust its header would be to trust its guest",
                    way_out="give format",
                )
            declared = "raw"
        header = before["header"]
        if header is not None and header != declared and self.backend.keeps_format:
            raise volume.mismatch(self.label, declared, header)
        return declared

    def format_of_domains(self) -> str | None:
        """The format that domains have for it as their disk, where they agree."""
        declared = {use.format for use in self.users(running_only=False) if use.format and use.level == 0}
        return declared.pop() if len(declared) == 1 else None

    # who must not use it

    def require_unprotected(self, before: dict[str, Any]) -> None:
        """Asked where the backend protects volumes by its own command, too."""
        protected = before["protected"]
        if self.protection is not None and not protected:
            protected = self.protection.read(self.connection, self.pool_options(), self.volume_name)
        if protected:
            raise self.immutable()

    def require_unused(self, before: dict[str, Any], running_only: bool = True, way_out: str = "") -> None:
        """No guest, no QEMU of any host and nothing else on this host has it open."""
        users = self.users(running_only)
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {chain.names(users)}",
                way_out=way_out or "shut the domain down first",
            )
        self.check_unlocked(before)
        self.require_no_watchers()
        if self.connection.local and not self.connection.uri.startswith("test:"):
            self.check_device_closed(before["path"])

    def identity(self) -> tuple[int, ...]:
        """What changes when somebody writes the volume, as far as this host can tell; () where it can't."""
        from . import block, files

        path = self.before["path"]
        if path.startswith("/dev/") and self.connection.local:
            return block.written_at(path)
        return files.identity(path) if self.directory() else ()

    def require_same(self, was: tuple[int, ...], kept: str = "nothing was changed", way_out: str = "") -> None:
        """Nobody has used it since identity() was asked; kept says for an error what has become of it."""
        self.connection.forget()
        users = self.users(running_only=True)
        if users or (was and self.identity() != was):
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"{chain.names(users) if users else 'somebody'} wrote to it meanwhile; {kept}",
                way_out=way_out or "shut its guest down, then run this again",
            )
        if not self.directory():
            self.require_no_watchers()
            self.check_device_closed(self.before["path"])

    def require_no_overlays(self, before: dict[str, Any], way_out: str = "") -> None:
        """Nothing stands on it: its content may change or go."""
        above = chain.overlays(self.connection, before["path"])
        if above:
            raise StorageError(
                thing=self.label,
                code="has_overlays",
                reason=f"it is the base of {', '.join(above[:5])}",
                way_out=way_out or "flatten or remove those first",
            )

    def attachment(self) -> Attachment | None:
        """The running guest whose disk it is, or None where no running guest has it; any other use is refused."""
        users = self.users(running_only=True)
        if not users:
            return None
        disks = {(use.domain, use.target) for use in users if use.level == 0 and use.target}
        if len(disks) != 1 or any(use.domain != users[0].domain for use in users):
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {chain.names(users)}, and not as the one disk of one of them",
                way_out="shut them down first",
            )
        name, target = disks.pop()
        found = next((one for one in self.connection.domains() if one.name() == name), None)
        if found is None:
            raise StorageError(
                thing=self.label, code="in_use", reason=f"domain {name!r} has just gone", way_out="run this again"
            )
        return Attachment(found, name, target)
