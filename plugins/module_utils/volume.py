# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes: what is wanted of one, the plan that leads there, and its steps."""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from . import chain, fields, guards, headroom, images, permissions, reconcile, xmltree
from . import connection as connections
from .backend import Backend, Native, Protection, Refused
from .backends.shared import PERMISSIONS
from .errors import StepFailed, StorageError
from .fields import At, Group
from .plan import Plan, Thing
from .retention import RULES

if TYPE_CHECKING:
    from .contents import Contents, Entry, Unlisted
    from .nodes import Login, Node
    from .snapshots import Snapshot

PREALLOCATE = 1  # VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA
RESIZE_ALLOCATE = 1  # VIR_STORAGE_VOL_RESIZE_ALLOCATE
FORMATS: tuple[str, ...] = (
    *("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc"),
    *("none", "linux", "fat16", "fat32", "linux-swap", "linux-lvm", "linux-raid", "extended"),  # partitions
)
GROWING = ("raw", "qcow2", "qed")  # the formats of files that libvirt can resize

SECRET_USAGE, SECRET_UUID = "target/encryption/secret/@usage", "target/encryption/secret/@uuid"
ENCRYPTION = Group(
    {
        "secret_usage": At(SECRET_USAGE, instead_of=(SECRET_UUID,)),
        "secret_uuid": At(SECRET_UUID, instead_of=(SECRET_USAGE,)),
        "cipher_name": At("target/encryption/cipher/@name"),
        "cipher_size": At("target/encryption/cipher/@size", "int"),
        "cipher_mode": At("target/encryption/cipher/@mode"),
        "cipher_hash": At("target/encryption/cipher/@hash"),
        "ivgen_name": At("target/encryption/ivgen/@name"),
        "ivgen_hash": At("target/encryption/ivgen/@hash"),
    },
    constants={"target/encryption/@format": "luks", "target/encryption/secret/@type": "passphrase"},
    mutually_exclusive=(("secret_usage", "secret_uuid"),),
    required_one_of=(("secret_usage", "secret_uuid"),),
    required_together=(("cipher_name", "ivgen_name"),),
)

FIELDS: dict[str, Any] = {
    "capacity": At("capacity", "size"),
    "allocation": At("allocation", "size"),
    "format": At("target/format/@type", choices=FORMATS),
    "compat": At("target/compat", choices=("0.10", "1.1")),
    "cluster_size": At("target/clusterSize", "size"),
    "lazy_refcounts": At("target/features/lazy_refcounts", "present"),
    "extended_l2": At("target/features/extended_l2", "present"),
    "nocow": At("target/nocow", "present"),
    "permissions": PERMISSIONS,
    "encryption": ENCRYPTION,
}
WIPING = ".kvm.storage.wiping-"  # begins the name of an old image; never swept as what is half made is
IN_THIN_POOL = {"capacity", "format"}  # the options that a volume of a thin pool can have
# What a volume keeps for life. nocow and allocation are taken at creation and can't be read back as given.
FIXED = ("compat", "cluster_size", "lazy_refcounts", "extended_l2")

BACKING_SPEC = {
    "type": "dict",
    "options": {
        "pool": {"type": "str"},
        "volume": {"type": "str"},
        "path": {"type": "path"},
        "format": {"type": "str", "choices": ["raw", "qcow2", "qcow", "qed"]},
    },
    "mutually_exclusive": [["path", "volume"], ["path", "pool"]],
    "required_one_of": [["path", "volume"]],
}


IMAGE_FORMATS = ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx")
CLONE_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        "pool": {"type": "str"},
        "volume": {"type": "str", "required": True},
        "format": {"type": "str", "choices": ["raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc"]},
        "mode": {"type": "str", "choices": ["auto", "full", "reflink", "linked"], "default": "auto"},
        "verify": {"type": "bool", "default": False},
    },
}


SOURCE_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        **CLONE_SPEC["options"],
        "volume": {"type": "str"},
        "path": {"type": "path"},
        "url": {"type": "str"},
        "checksum": {"type": "str"},
        "compression": {"type": "str", "choices": ["auto", "none", "gz", "xz", "bz2", "zst"], "default": "auto"},
        "url_networks": {"type": "list", "elements": "str"},
        "format": {"type": "str", "choices": list(IMAGE_FORMATS)},
    },
    "mutually_exclusive": [["volume", "path", "url"]],
    "required_one_of": [["volume", "path", "url"]],
}


SNAPSHOTS_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        "prefix": {"type": "str", "required": True},
        "keep": {"type": "dict", "required": True, "options": {name: {"type": "int"} for name in RULES}},
    },
}


def argument_spec() -> dict[str, Any]:
    """The options of one volume, without those of the connection."""
    return {
        "pool": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "preallocation": {"type": "str", "choices": ["off", "metadata", "falloc", "full"]},
        "thin_pool": {"type": "str"},
        "immutable": {"type": "bool"},
        "backing": BACKING_SPEC,
        "source": SOURCE_SPEC,
        "snapshots": SNAPSHOTS_SPEC,
        **headroom.OVERCOMMIT_SPEC,
        **fields.spec(FIELDS),
    }


def wanted(options: dict[str, Any]) -> dict[str, Any]:
    """What is wanted of a volume, from options that its argument_spec has accepted."""
    name, pool = str(options["name"]), str(options["pool"])
    label = f"volume {pool + '/' + name!r}"
    guards.possible_name(label, name)
    guards.possible_name(label, pool)
    if options.get("thin_pool") is not None:
        guards.possible_name(label, options["thin_pool"])
    want: dict[str, Any] = {
        "pool": pool,
        "name": name,
        "state": options.get("state") or "present",
        "preallocation": options.get("preallocation"),
        "thin_pool": options.get("thin_pool"),
        "immutable": options.get("immutable"),
        "backing": clean_backing(label, pool, options.get("backing")),
        "source": clean_source(label, pool, options.get("source")),
        "snapshots": options.get("snapshots"),
        "policy": headroom.policy_of(label, options),
        "options": fields.clean(label, FIELDS, fields.given(options)),
    }
    check_together(label, want)
    return want


def clean_backing(thing: str, pool: str, backing: dict[str, Any] | None) -> dict[str, Any] | None:
    """A backing store by pool and volume, or by path; the pool is the volume's own unless given."""
    if backing is None:
        return None
    found = fields.given(backing)
    if "path" in found:
        found["path"] = fields.clean_path(thing, "backing.path", found["path"])
    else:
        guards.possible_name(thing, found["volume"])
        found.setdefault("pool", pool)
    return found


def clean_source(thing: str, pool: str, source: dict[str, Any] | None) -> dict[str, Any] | None:
    """The volume that a new one begins as a clone of; its pool is the new one's own unless given."""
    if source is None:
        return None
    found = fields.given(source)
    if "volume" not in found:
        if "format" not in found:
            raise StorageError(
                thing=thing,
                code="format_undeclared",
                reason="the format of the image is nowhere declared, and a header may lie",
                way_out="give source.format",
            )
        return {"mode": "full", **found}
    found.setdefault("pool", pool)
    for name in (found["pool"], found["volume"]):
        guards.possible_name(thing, name)
    return {"mode": "auto", "verify": False, **found}


def check_together(thing: str, want: dict[str, Any]) -> None:
    """Options that can't be meant together, refused before libvirt is asked."""
    options, form = want["options"], want["options"].get("format")
    mode = int((options.get("permissions") or {}).get("mode", "0"), 8)
    problems = [
        (options.get("capacity") == 0, "capacity must be more than 0", "give a size such as 20GiB"),
        (
            options.get("allocation", 0) > options.get("capacity", 2**63),
            "allocation must not exceed capacity",
            "give less, or leave it out",
        ),
        (
            "allocation" in options and want["preallocation"] is not None,
            "allocation and preallocation say the same thing twice",
            "give one of them",
        ),
        (
            want["preallocation"] == "metadata" and form not in ("qcow2", None),
            "preallocation: metadata is for qcow2",
            "use falloc, or format: qcow2",
        ),
        (
            want["backing"] is not None and form not in ("qcow2", None),  # an overlay of QED libvirt can't read again
            "a volume with a backing store is qcow2",
            "use format: qcow2",
        ),
        (
            want["backing"] is not None and want["preallocation"] not in (None, "off"),
            "preallocation and backing exclude each other",
            "give one of them",
        ),
        (
            form not in ("qcow2", None) and any(option in options for option in FIXED),
            "compat, cluster_size, lazy_refcounts and extended_l2 are for qcow2",
            "leave them out, or use format: qcow2",
        ),
        (
            options.get("compat") == "0.10" and bool(options.get("lazy_refcounts") or options.get("extended_l2")),
            "lazy_refcounts and extended_l2 need compat: '1.1'",
            "leave compat out, or leave them out",
        ),
        (
            not power_of_2(options.get("cluster_size", 512)),
            "cluster_size must be a power of 2 from 512 to 2 MiB",
            "give one such as 64KiB",
        ),
        (
            "encryption" in options and want["preallocation"] == "full",
            "preallocation: full can't be encrypted",
            "use falloc",
        ),
        (
            "encryption" in options and form not in ("raw", "qcow2", None),
            "encryption is for raw and qcow2",
            "use one of these formats",
        ),
        (
            want["thin_pool"] is not None and (want["backing"] is not None or bool(set(options) - IN_THIN_POOL)),
            "a volume of a thin pool has a capacity and nothing else to be chosen",
            "leave the other options out",
        ),
        (
            want["thin_pool"] is not None and want["preallocation"] not in (None, "off"),
            "a volume of a thin pool takes its space as it is written",
            "leave preallocation out",
        ),
        (
            bool(want["immutable"]) and mode & 0o222 != 0,
            "an immutable volume can't have a mode with write permission",
            "give a mode such as '0444'",
        ),
    ]
    if want["source"] is not None:
        problems += check_source(want)
    for found, reason, way_out in problems:
        if found and want["state"] == "present":
            raise StorageError(thing=thing, code="bad_value", reason=reason, way_out=way_out)


def check_source(want: dict[str, Any]) -> list[tuple[bool, str, str]]:
    """Options that a clone can't have."""
    options, source = want["options"], want["source"]
    own = (source.get("pool"), source.get("volume")) == (want["pool"], want["name"])
    return [
        (own, "it can't be a clone of itself", "give it another name than its source"),
        (
            want["backing"] is not None,
            "source and backing exclude each other",
            "use mode: linked to stand on the source",
        ),
        ("allocation" in options, "a clone takes what its source takes", "leave allocation out, or give preallocation"),
        ("encryption" in options, "a clone can't be encrypted on the way", "clone an encrypted volume as it is"),
        (
            source["mode"] == "linked" and options.get("format") not in ("qcow2", "raw", None),
            "a clone that stands on its source is qcow2",
            "leave format out",
        ),
        (
            source["mode"] == "linked" and want["preallocation"] not in (None, "off"),
            "a clone that stands on its source takes no space of its own first",
            "leave preallocation out",
        ),
    ]


def power_of_2(size: int) -> bool:
    return 512 <= size <= 2 * 1024 * 1024 and size & (size - 1) == 0


def plan(before: dict[str, Any], want: dict[str, Any], backend: Backend | None) -> Plan:
    """The steps from what was read to what is wanted; pure.

    before has exists, listed (by libvirt, or by the backend what libvirt never lists), leftover (an empty file under
    its name), unfinished (written in place by a run that was killed), options, header (the format that the file itself
    tells, None where it can't be read), backing, thin_pool, protected and in_use.
    """
    if want["state"] == "absent":
        steps = ["release"] if before["protected"] and want["immutable"] is False else []
        steps = [*unseen(before), *steps, "delete"] if before["exists"] else []
        return Plan(
            steps, shown(before) if before["exists"] else None, None, risk="DESTROYS DATA, as state: absent asks"
        )
    if not before["exists"]:
        steps = (["remove_leftover"] if before["leftover"] else []) + (["refresh"] if before["listed"] else [])
        steps += [filled_by(want) or "create"] + (["protect"] if want["immutable"] else [])
        return Plan(steps, None, wanted_state(want, backend))
    steps = [*unseen(before), *([filled_by(want)] if before["unfinished"] else [])]
    if before["protected"] and want["immutable"] is False:
        steps.append("release")
    if grows(before, want):
        steps.append("resize")
    if permissions_differ(before, want):
        steps.append("set_permissions")
    if want["immutable"] and not before["protected"]:
        steps.append("protect")
    if before["snapshots"]:
        steps.append("keep_snapshots")
    present = shown(before)
    after = {**present, **{name: want["options"][name] for name in CHANGEABLE if name in want["options"]}}
    if "resize" not in steps and "capacity" in present:
        after["capacity"] = present["capacity"]
    if "permissions" in after:
        after["permissions"] = {**present.get("permissions", {}), **want["options"].get("permissions", {})}
    if want["immutable"] is not None:
        after["immutable"] = want["immutable"]
    if "set_permissions" not in steps:
        after["permissions"] = present.get("permissions")
    if before["snapshots"]:
        present["snapshots"], after["snapshots"] = (state["snapshots"] for state in before["snapshots"])
    return Plan(steps, present, after, risk="in place")


CHANGEABLE = ("capacity", "permissions")


def unseen(before: dict[str, Any]) -> list[str]:
    """A file that libvirt has not seen yet is shown to it first."""
    return [] if before["listed"] else ["refresh"]


def grows(before: dict[str, Any], want: dict[str, Any]) -> bool:
    """Whether the capacity that is there is less than what is wanted."""
    have, need = before["options"].get("capacity"), want["options"].get("capacity")
    return have is not None and need is not None and have < need


def shrinks(before: dict[str, Any], want: dict[str, Any], granule: int) -> bool:
    """Whether more is there than what is wanted, rounded up to a granule."""
    have, need = before["options"].get("capacity"), want["options"].get("capacity")
    return have is not None and need is not None and have >= need + granule


def permissions_differ(before: dict[str, Any], want: dict[str, Any]) -> bool:
    """Owner, group and label of a running guest's disk are libvirt's own for that time."""
    there, need = before["options"].get("permissions") or {}, want["options"].get("permissions") or {}
    compared = ("mode",) if before["in_use"] else ("mode", "owner", "group", "label")
    return any(name in need and there.get(name) != need[name] for name in compared)


def shown(before: dict[str, Any]) -> dict[str, Any]:
    """A volume as it is, in the words of its options."""
    found = {name: value for name, value in before["options"].items() if name not in ("allocation", "encryption")}
    found.update(state="present", immutable=before["protected"] or None, backing=before["backing"])
    found["thin_pool"] = before["thin_pool"]
    return found


def wanted_state(want: dict[str, Any], backend: Backend | None) -> dict[str, Any]:
    """A new volume in the words of its options."""
    found = {name: value for name, value in want["options"].items() if name != "encryption"}
    backing = want["backing"]
    if backing:
        backing = backing.get("path") or f"{backing['pool']}/{backing['volume']}"
    found.update(
        state="present",
        format=format_of(want, backend),
        source=source_shown(want["source"]),
        preallocation=want["preallocation"],
        thin_pool=want["thin_pool"],
        immutable=want["immutable"] or None,
        backing=backing,
        encryption="luks" if "encryption" in want["options"] else None,
    )
    return found


def filled_by(want: dict[str, Any]) -> str:
    """The step that makes a new volume with a content; empty for one that is made empty."""
    if not want["source"]:
        return ""
    return "clone" if "volume" in want["source"] else "upload"


def source_shown(source: dict[str, Any] | None) -> str | None:
    if source is None:
        return None
    return f"{source['pool']}/{source['volume']}" if "volume" in source else source.get("path") or source["url"]


def format_of(want: dict[str, Any], backend: Backend | None, source_format: str | None = None) -> str | None:
    """The format of a volume that is not there yet: declared, or what its backing store, source or pool makes of it."""
    source, formats = want["source"], backend.volume_formats if backend else ()
    usual = backend.default_format if backend else None
    if want["options"].get("format"):
        return want["options"]["format"]
    if want["backing"] or (source and source["mode"] == "linked" and "qcow2" in formats):
        return "qcow2"
    form = (source.get("format") or source_format) if source else None
    return form if form in formats else usual


class Volume(Thing):
    """One volume on one connection.

    planned_pool is the pool's Pool in a layout: it may be made or started before this volume's turn.
    """

    kind = "volume"
    concurrent = True

    def __init__(
        self, connection: Any, want: dict[str, Any], backend: Backend | None, planned_pool: Any = None
    ) -> None:
        super().__init__()
        self.connection, self.want, self.planned_pool = connection, want, planned_pool
        self.pool_name, self.volume_name = want["pool"], want["name"]
        self.name = f"{self.pool_name}/{self.volume_name}"
        self.given_backend = backend
        self.before: dict[str, Any] = {}
        self.encryption = want["options"].get("encryption")
        self.planned_backing: Volume | None = None
        self.planned_source: Volume | None = None
        self.keeping: Any = None  # the retention of its snapshots
        self.taking = (0, 0)  # what a clone may come to take of its pool, and takes at once
        self.earlier: list[str] = []  # of the same pool, which are made before this one
        if "permissions" in want["options"]:
            want["options"]["permissions"] = permissions.resolved(
                self.label, want["options"]["permissions"], connection.local
            )

    @property
    def backend(self) -> Backend:
        """The backend of the volume's pool."""
        if self.given_backend is None:
            self.given_backend = backend_of(self.connection, self.pool_name, self.label)
        return self.given_backend

    @property
    def handle(self) -> Any:
        return self.connection.volumes(self.pool_name).get(self.volume_name)

    def locks(self) -> list[str]:
        """Its pool, and that of its base: nobody removes the base while an overlay is put on it."""
        pools = [self.pool_name, (self.want["backing"] or {}).get("pool"), (self.want["source"] or {}).get("pool")]
        return [f"pool {name!r}" for name in pools if name]

    def show(self, option: str, value: Any) -> str:
        return FIELDS[option].show(value) if option in FIELDS and not isinstance(value, str) else str(value)

    def require_local(self, command: str) -> None:
        """What a command does runs on the host of the volume."""
        if not self.connection.local:
            raise StorageError(
                thing=self.label,
                code="remote_connection",
                reason=f"{command} does this, and it has to run on the host of the volume",
                way_out="run the task there, with a local uri",
            )

    def way_out(self, words: str) -> str:
        return self.backend.way_out(words, self.pool_options())

    def facts(self) -> dict[str, Any]:
        found = {"pool": self.pool_name}
        path = self.before.get("path")
        return {**found, "volume_path": path} if path else found

    # reading

    def read(self) -> dict[str, Any]:
        before = self.read_volume()
        if self.want["snapshots"] and self.want["state"] == "present" and before["exists"] and not before["foreign"]:
            from . import volume_snapshot  # of no use to other volumes

            self.keeping = volume_snapshot.of_volume(self)
            kept = self.keeping.plan(self.keeping.read())
            before["snapshots"] = (kept.before, kept.after) if kept.steps else None
        return before

    def read_volume(self) -> dict[str, Any]:
        before: dict[str, Any] = {
            "exists": False,
            "listed": False,
            "leftover": False,
            "options": {},
            "header": None,
            "backing": None,
            "thin_pool": None,
            "unlisted": False,
            "unseen": "",
            "foreign": "",
            "protected": False,
            "in_use": False,
            "unfinished": False,
            "snapshots": None,
            "encrypted": False,
            "secret_known": False,
            "path": "",
        }
        self.before = before
        if not self.pool_is_up():
            if self.want["state"] == "absent" and self.connection.pool(self.pool_name) is None:
                return before  # without its pool there is no volume
            self.need_planned_pool(self.connection.pool(self.pool_name))
            if not self.backend.mounts:  # what is there now is not what the pool will have
                self.read_file(before)
            entry = self.entry() if self.want["thin_pool"] is not None else None
            if entry is not None:
                self.read_entry(before, entry)
            before["listed"] = before["exists"]  # by the time of its turn, once the pool is up
            return before
        handle = self.handle
        if handle is None:
            entry = self.entry()
            if entry is None:
                self.read_file(before)
            else:
                self.read_entry(before, entry)
            return before
        before["listed"] = True
        try:
            tree = xmltree.parse(self.connection.volume_xml(self.pool_name, self.volume_name))
        except connections.libvirt.libvirtError as error:
            before["path"] = handle.path()
            if self.is_file(before["path"]) and not os.path.lexists(before["path"]):
                return before  # still listed, but gone
            raise error
        before["path"] = path = xmltree.get(tree, "target/path") or ""
        if self.is_file(path) and not os.path.lexists(path):
            return before
        before["exists"] = True
        before["options"] = fields.read(FIELDS, tree)
        if not self.backend.keeps_format:
            before["options"].pop("format", None)
        before["encrypted"] = bool(xmltree.find_all(tree, "target/encryption"))
        before["secret_known"] = bool(xmltree.find_all(tree, "target/encryption/secret"))
        before["backing"] = xmltree.get(tree, "backingStore/path")
        self.look_at(before, path)
        if self.protection is not None:
            before["protected"] = self.read_protection(self.protection)
        return before

    def contents(self) -> Contents | None:
        """What the backend's own command shows; None where it can't be seen and nothing asks for it."""
        absent, up = self.want["state"] == "absent", self.connection.active(self.pool_name)
        try:
            return guards.contents(self.connection, self.backend, self.pool_name, self.pool_options)
        except StorageError as error:
            if error.code == "no_source":  # it may come with its pool
                if up and not absent:
                    raise
            elif self.want["thin_pool"] is not None:
                raise
            else:
                self.before["unseen"] = error.reason
            return None

    def entry(self) -> Entry | None:
        """The volume as the backend's own command shows it."""
        contents = self.contents()
        return contents.entries.get(self.volume_name) if contents is not None else None

    def read_entry(self, before: dict[str, Any], entry: Entry) -> None:
        """What libvirt does not list: never, or not before its next refresh."""
        before.update(path=entry.path, exists=True, listed=entry.unlisted, unlisted=entry.unlisted, foreign=entry.kind)
        before.update(options={"capacity": entry.capacity}, thin_pool=entry.thin_pool or None)

    def read_protection(self, protection: Protection) -> bool:
        """Looked up only where it matters: it takes a command of the backend's."""
        if self.want["immutable"] is None and self.want["state"] == "present":
            return False
        try:
            return protection.read(self.connection, self.pool_options(), self.volume_name)
        except (StorageError, FileNotFoundError):
            if self.want["immutable"] is not None:
                raise
            return False  # the backend itself refuses to remove what is protected

    @property
    def protection(self) -> Protection | None:
        """The backend's own way to protect volumes, by a command of this host."""
        return self.backend.protection if self.connection.local else None

    def pool_is_up(self) -> bool:
        """Whether the pool is active, its server there and its share or file system mounted."""
        if not self.connection.active(self.pool_name):
            return False
        guards.require_server(self.label, self.connection, self.pool_name)
        return not guards.lost_mount(self.connection, self.pool_name)

    def need_planned_pool(self, pool: Any) -> None:
        """Outside of a layout that brings it up, an inactive pool's volumes are unknown."""
        if self.planned_pool is not None and self.planned_pool.want["state"] == "active":
            return
        state = "inactive" if pool is not None else "not there"
        lost = guards.lost_mount(self.connection, self.pool_name)
        if lost:
            raise StorageError(
                thing=self.label,
                code="not_mounted",
                reason=f"pool {self.pool_name!r} is active, but nothing is mounted on {lost}",
                way_out="mount it again with a pool module (state: active)",
            )
        raise StorageError(
            thing=self.label,
            code="pool_inactive" if pool is not None else "no_pool",
            reason=f"pool {self.pool_name!r} is {state}",
            way_out="bring it up with a pool module (state: active), or list it in the pools of a layout",
        )

    def is_file(self, path: str) -> bool:
        return self.connection.local and self.backend.makes_directory and path.startswith("/")

    def directory(self) -> str:
        """The directory of the pool where its volumes are files of this host; else empty."""
        if not self.connection.local or not self.backend.makes_directory:
            return ""
        if self.planned_pool is not None and self.planned_pool.path:
            return self.planned_pool.path
        pool = self.connection.pool(self.pool_name)
        if pool is None:
            return ""
        return self.connection.once(
            f"directory of {self.pool_name}",
            lambda: xmltree.get(xmltree.parse(pool.XMLDesc(0)), "target/path") or "",
        )

    def read_file(self, before: dict[str, Any]) -> None:
        """A file that libvirt does not list (yet) is read by its header alone."""
        directory = self.directory()
        path = os.path.join(directory, self.volume_name) if directory else ""
        if not path or not os.path.lexists(path):
            return
        before["path"] = path
        before["exists"] = True
        self.look_at(before, path)
        image = images.probe(path)
        if image is not None:
            before["options"].update(format=image.format)
            before["backing"] = image.backing
            if image.capacity is not None:
                before["options"]["capacity"] = image.capacity

    def look_at(self, before: dict[str, Any], path: str) -> None:
        """What the file itself tells: whether it is one of ours, its true format, its mode and owner."""
        if not self.connection.local or not path.startswith("/"):
            return
        before["foreign"] = images.foreign(path) if self.backend.makes_directory else ""
        if before["foreign"]:
            return
        if self.want["source"] and path.startswith("/dev/"):
            from . import transfer

            before["unfinished"] = transfer.is_unfinished(self, path)
        image = images.probe(path)
        before["header"] = image.format if image else None
        if not self.is_file(path):
            return
        if image is not None:  # libvirt leaves compat 0.10 out, and what it has not read anew
            before["options"].update(image.options)
        before["options"]["permissions"] = permissions.read(path)
        before["protected"] = permissions.is_protected(path)
        empty = os.lstat(path).st_size == 0 and self.want["state"] == "present"
        if empty and self.want["options"].get("format") not in (None, "raw"):
            before.update(exists=False, leftover=True)
        if permissions_differ(before, self.want):
            # on a share another host's guest may have it open, and the server asks for its owner at each access
            before["in_use"] = bool(self.users(running_only=True)) or chain.image_locked(path)

    # deciding

    def plan(self, before: dict[str, Any]) -> Plan:
        made = plan(before, self.want, None if self.want["state"] == "absent" else self.backend)
        seen = (self.directory() and not self.backend.mounts) or self.want["thin_pool"] is not None
        if self.connection.pool(self.pool_name) and not seen and not self.pool_is_up():
            made = Plan(unknown="until its pool is active")
        return made

    def check(self, before: dict[str, Any], plan: Plan) -> None:
        self.check_thin_pool(before)
        if before["foreign"]:
            raise StorageError(
                thing=self.label,
                code="not_a_volume",
                reason=f"what stands at {before['path']} is {before['foreign']}",
                way_out="move it away, or choose another name",
            )
        if self.want["state"] == "absent":
            if before["exists"]:
                self.check_delete(before)
            elif before["unseen"]:
                plan.warnings.append(f"{self.label}: a thin volume of this name could not be seen: {before['unseen']}")
            return
        if not before["exists"]:
            if not plan.unknown:
                self.check_new(before)
                if self.want["source"]:
                    self.check_filled(before, plan)
                plan.warnings += self.room_for_new()
            return
        self.check_same(before)
        if before["unfinished"]:
            self.check_filled(before, plan)
        if "resize" in plan.steps:
            self.check_resize(before, released="release" in plan.steps)
            plan.warnings += self.room_to_grow(before)
        if "set_permissions" in plan.steps and before["protected"] and "release" not in plan.steps and self.writable():
            raise self.immutable()
        if "set_permissions" in plan.steps and not self.is_file(before["path"]):
            raise StorageError(
                thing=self.label,
                code="cannot_change",
                reason="permissions of a volume that exists can only be set on a file of this host",
                way_out="leave permissions out",
            )
        if "keep_snapshots" in plan.steps:
            self.keeping.check(self.keeping.before, self.keeping.plan(self.keeping.before))
        if {"protect", "release"} & set(plan.steps):
            self.check_protect(before)

    def check_new(self, before: dict[str, Any]) -> None:
        options, backend = self.want["options"], self.backend
        guards.new_name(self.label, self.volume_name)
        refuse_operation(self.label, backend, "create")
        there: list[str] = []
        if backend.numbered:
            there = list(dict.fromkeys([*self.connection.volumes(self.pool_name), *self.earlier]))
        error = backend.name_error(self.volume_name, there, self.pool_options() if backend.numbered else {})
        if error:
            raise StorageError(thing=self.label, code="bad_name", reason=error)
        optional = self.want["source"] or (self.want["backing"] and backend.capacity_optional)
        if "capacity" not in options and not optional:
            raise StorageError(
                thing=self.label,
                code="missing_option",
                reason="it is not there yet, and to make it its capacity must be known",
                way_out="give capacity, such as 20GiB",
            )
        form = options.get("format")
        if form is not None and backend.volume_formats and form not in backend.volume_formats:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"a {backend.type} pool makes no volume of format {form}",
                way_out=f"use {', '.join(backend.volume_formats)}",
            )
        if self.want["backing"]:
            self.check_backing()
        if backend.sparse is not None and not self.want["source"] and self.want["thin_pool"] is None:
            self.check_whole(backend.sparse)
        if self.want["preallocation"] == "full" and not self.directory():
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="preallocation: full writes every block by qemu-img, into a file of this host",
                way_out="use falloc",
            )
        planned = self.want.get("secrets_planned", frozenset())
        guards.require_secret(self.label, self.connection, options.get("encryption"), planned)
        if self.want["immutable"]:
            self.check_protect(before)

    def check_filled(self, before: dict[str, Any], plan: Plan) -> None:
        """What stands against the content that it shall begin with."""
        if filled_by(self.want) == "clone":
            from . import clone  # of no use to other volumes

            self.taking = clone.check(self)
            return
        from . import upload

        coming = upload.for_volume(self)
        coming.check_content(before, plan)

    def check_whole(self, sparse: Refused) -> None:
        """All of a volume is reserved where less would be a danger to it."""
        options = self.want["options"]
        reserved = options.get("allocation", 0 if self.want["preallocation"] in ("off", "metadata") else None)
        if reserved is not None and reserved < options["capacity"]:
            raise StorageError(thing=self.label, code="unsupported", reason=sparse.reason, way_out=sparse.instead)

    def check_thin_pool(self, before: dict[str, Any]) -> None:
        """The thin pool that is declared is that of the volume, or is there to hold a new one."""
        thin_pool = self.want["thin_pool"]
        if thin_pool is None or before["foreign"]:
            return
        if self.backend.unlisted is None:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"a {self.backend.type} pool has no thin pools",
                way_out="leave thin_pool out",
            )
        if before["exists"]:
            if before["thin_pool"] != thin_pool:
                raise self.cannot_change("thin_pool", before["thin_pool"] or "none", thin_pool)
            return
        contents = self.contents()
        if contents is None or self.want["state"] == "absent":
            return
        there = contents.thin_pools()
        found = there.get(thin_pool)
        if found is None and self.planned_pool is not None and self.planned_pool.expected:
            return
        if found is None:
            names = ", ".join(repr(name) for name in sorted(there))
            raise StorageError(
                thing=self.label,
                code="no_source",
                reason=f"there is no thin pool {thin_pool!r}",
                way_out=f"make it first; there {f'are {names}' if names else 'is none'}",
            )
        if found.trouble:
            raise StorageError(
                thing=self.label,
                code="backend_refused",
                reason=f"thin pool {thin_pool!r} takes no new volume ({found.trouble})",
                way_out="let it grow with lvextend, or mend it",
            )

    def room_for_new(self) -> list[str]:
        """Whether its pool has room for a volume that is not there yet."""
        options, thin_pool = self.want["options"], self.want["thin_pool"]
        capacity, now = options.get("capacity", 0), options.get("allocation", 0)
        if filled_by(self.want) == "upload":
            return []  # told with its image
        if self.want["source"]:
            capacity, now = self.taking
        if self.want["preallocation"] in ("falloc", "full") or self.thick():
            now = capacity
        return headroom.room(self, capacity, now, self.want["policy"], thin_pool)

    def room_to_grow(self, before: dict[str, Any]) -> list[str]:
        """The same of one that grows."""
        more = self.want["options"]["capacity"] - before["options"]["capacity"]
        now = more if self.thick() and not before["thin_pool"] else 0
        return headroom.room(self, more, now, self.want["policy"], before["thin_pool"])

    def thick(self) -> bool:
        """Whether its pool takes all of a volume's capacity at once."""
        local = self.connection.local and not self.connection.uri.startswith("test:")
        return local and self.want["thin_pool"] is None and self.backend.thick(self.pool_options(), self.volume_name)

    def pool_options(self) -> dict[str, Any]:
        """The options of the volume's pool, wanted or present."""
        if self.planned_pool is not None:
            return {**self.planned_pool.before.get("options", {}), **self.planned_pool.want["options"]}
        pool = self.connection.pool(self.pool_name)
        return fields.read(self.backend.fields, xmltree.parse(pool.XMLDesc(0))) if pool is not None else {}

    def check_backing(self) -> None:
        """A backing store is a volume of a pool, of a format that somebody declared and that its header confirms."""
        backing, path = self.want["backing"], self.backing_path()
        form = self.backing_format()
        if not self.backend.makes_directory:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"a {self.backend.type} pool makes no overlays",
                way_out="use a pool of files, such as dir or fs",
            )
        if form is None:
            raise StorageError(
                thing=self.label,
                code="format_undeclared",
                reason=f"the format of its backing store {path} is nowhere declared, and a header may lie",
                way_out="give backing.format",
            )
        if self.planned_backing is not None and not self.planned_backing.before.get("exists"):
            return
        if path is None:
            raise StorageError(
                thing=self.label,
                code="no_backing",
                reason=f"there is no volume {backing['pool']}/{backing['volume']} to stand on",
                way_out="make it first, or list it in the volumes of the layout",
            )
        if not self.connection.local or not path.startswith("/"):
            return
        if "path" in backing and not self.in_a_pool(path):
            raise StorageError(
                thing=self.label,
                code="backing_outside",
                reason=f"its backing store {path} lies in no pool of this host",
                way_out="make a pool of its directory, or move it into one",
            )
        self.check_chain(path, form)

    def check_chain(self, path: str, form: str) -> None:
        """Each member of the chain is a plain file of its declared format; a header's further names stay in pools."""
        from . import intake  # of no use to volumes that stand alone

        seen = [os.path.join(self.directory(), self.volume_name)]
        member: str | None = path
        while member is not None:
            if f"{member}/".startswith(guards.silent_shares(self.connection)):
                raise StorageError(
                    thing=self.label,
                    code="unreachable",
                    reason=f"its backing store {member} lies on a share whose server does not answer",
                    way_out="bring the server back",
                )
            why = images.foreign(member) or ("" if os.path.lexists(member) else "not there")
            image = images.probe(member)
            if member in seen:
                why = "its own ancestor"
            elif not why and image is not None and image.format != form:
                raise mismatch(f"{self.label}: its backing store {member}", form, image.format)
            elif len(seen) > guards.DEEPEST_CHAIN:
                why = f"deeper than {guards.DEEPEST_CHAIN} overlays"
            if why:
                raise StorageError(
                    thing=self.label,
                    code="bad_backing",
                    reason=f"its backing store {member} is {why}",
                    way_out="choose another one",
                )
            for refusal in intake.of_member(member, form) if os.path.isfile(member) else ():
                raise StorageError(
                    thing=f"{self.label}: its backing store {member}",
                    code=refusal.code,
                    reason=refusal.reason,
                    way_out=refusal.way_out,
                )
            seen.append(member)
            following = image.backing if image else None
            if following is None:
                return
            if not following.startswith("/") or not self.in_a_pool(following):
                raise StorageError(
                    thing=self.label,
                    code="backing_outside",
                    reason=f"the chain below it leads from {member} to {following!r}, which is in no pool here",
                    way_out="use a base that stands alone, or make a pool of that directory",
                )
            member, found = following, images.probe(following)
            form = found.format if found else form

    def in_a_pool(self, path: str) -> bool:
        """Whether the file lies directly in the directory of some pool."""
        real = os.path.dirname(guards.resolved(self.connection, path))
        if real in chain.directories(self.connection):
            return True
        planned = self.planned_backing.directory() if self.planned_backing is not None else ""
        return planned != "" and os.path.realpath(planned) == real

    def backing_path(self) -> str | None:
        """Where the backing store is; None while it is not there."""
        backing = self.want["backing"]
        if "path" in backing:
            return backing["path"]
        handle = self.connection.volumes(backing["pool"]).get(backing["volume"])
        if handle is not None:
            return handle.path()
        if self.planned_backing is not None and self.planned_backing.directory():
            return os.path.join(self.planned_backing.directory(), backing["volume"])
        return None

    def backing_format(self) -> str | None:
        """As declared: with the backing store itself, or by the volume of the same layout."""
        declared = self.want["backing"].get("format")
        if declared is None and self.planned_backing is not None:
            want = self.planned_backing.want
            declared = want["options"].get("format") or ("qcow2" if want["backing"] else None)
        return declared

    def check_same(self, before: dict[str, Any]) -> None:
        """What is there must be what is declared; nothing is rebuilt."""
        options, declared = self.want["options"], self.want["options"].get("format")
        header = before["header"]
        if declared is not None and header is not None and self.backend.makes_directory and header != declared:
            raise mismatch(self.label, declared, header)
        there = before["options"].get("format")
        if declared is not None and there is not None and there != declared and header != declared:
            raise mismatch(self.label, declared, there)
        if before["listed"]:
            for name in FIXED:
                if name in options and not fields.met(FIELDS[name], before["options"].get(name), options[name]):
                    raise self.cannot_change(name, before["options"].get(name), options[name])
            if "encryption" in options and not before["encrypted"]:
                raise self.cannot_change("encryption", "none", "luks")
        if self.want["backing"]:
            path = self.backing_path()
            if path is not None and not (before["backing"] and fields.same_device(before["backing"], path)):
                raise self.cannot_change("backing", before["backing"] or "none", path)
        granule = self.granule(before, declared or there) if shrinks(before, self.want, 1) else 1
        if shrinks(before, self.want, granule):
            have, need = (FIELDS["capacity"].show(one["capacity"]) for one in (before["options"], options))
            raise StorageError(
                thing=self.label,
                code="would_shrink",
                reason=f"it has {have}, more than the {need} asked for",
                way_out="ask for at least what it has; nothing was changed",
            )

    def granule(self, before: dict[str, Any], form: str | None) -> int:
        """What the backend rounds the volume's capacity up to."""
        contents = self.contents() if before["unlisted"] else None
        return contents.granule if contents is not None else self.backend.granule(self.pool_options(), form)

    def cannot_change(self, option: str, have: Any, want: Any) -> StorageError:
        return StorageError(
            thing=self.label,
            code="cannot_change",
            reason=f"its {option} is {have}, not {want}, and is decided when a volume is made",
            way_out="declare it as it is, or make a new volume",
        )

    def writable(self) -> bool:
        """Whether the wanted mode lets somebody write."""
        return int(self.want["options"].get("permissions", {}).get("mode", "0"), 8) & 0o222 != 0

    def check_resize(self, before: dict[str, Any], released: bool) -> None:
        refuse_operation(self.label, self.backend, "resize")
        method = self.backend.operations["resize"]
        if isinstance(method, Native) and method.call is not None and not self.connection.local:
            raise StorageError(
                thing=self.label,
                code="remote_connection",
                reason=f"{method.command} makes it grow, and that runs on the host of the volume",
                way_out="run the task there, with a local uri",
            )
        if before["protected"] and not released:
            raise self.immutable()
        entry = self.entry()
        if entry is not None and entry.fixed:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"it can't grow: {entry.fixed}",
                way_out="remove the snapshot first, or make a new volume and copy it there",
            )
        form = self.want["options"].get("format") or before["options"].get("format")
        if self.is_file(before["path"]) and form not in GROWING:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"qemu-img can't resize a file of format {form}",
                way_out="make a new volume of the wanted capacity and copy it there",
            )
        self.check_encryption(before)
        if "format" not in self.want["options"] and len(self.backend.volume_formats) > 1:
            raise StorageError(
                thing=self.label,
                code="format_undeclared",
                reason="its format is nowhere declared, and growing it would trust its header",
                way_out="give format",
            )
        users = self.users(running_only=True)
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {chain.names(users)}",
                way_out="shut the domain down first",
            )
        self.check_unlocked(before)
        if self.is_file(before["path"]) and form is not None:
            from . import nodes  # of no use to volumes that keep their size

            with nodes.readable(self, form):  # every header of its chain is inspected
                pass

    def check_encryption(self, before: dict[str, Any]) -> None:
        """libvirt forgets the secret of a volume at each refresh of its pool."""
        if before["encrypted"] and not before["secret_known"] and not self.has_passphrase(before):
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason="libvirt no longer knows the secret that opens it, as after every refresh of its pool",
                way_out="give encryption with the secret, which can't be a private one",
            )

    def check_delete(self, before: dict[str, Any]) -> None:
        refuse_operation(self.label, self.backend, "delete")
        if before["protected"] and self.want["immutable"] is not False:
            raise self.immutable()
        users = self.users(running_only=False)
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used by {chain.names(users)}",
                way_out="remove the disk from the domain first",
            )
        if self.backend.snapshots is None:
            self.require_no_snapshots()
        self.require_no_old_image()
        leaving = self.want.get("leaving", frozenset())
        above = [name for name in chain.overlays(self.connection, before["path"]) if name not in leaving]
        if above:
            raise StorageError(
                thing=self.label,
                code="has_overlays",
                reason=f"it is the base of {', '.join(above[:5])}",
                way_out="delete those first, or flatten them",
            )
        self.check_unlocked(before)
        entry = self.entry()
        if entry is not None:
            self.check_delete_entry(entry)
        elif before["unseen"]:
            raise StorageError(
                thing=self.label,
                code="guard_unavailable",
                reason=f"it can't be told what would be destroyed with it: {before['unseen']}",
                way_out="run the task on the host of the volume, with a local uri and the backend's commands",
            )
        elif self.connection.local and not self.connection.uri.startswith("test:"):
            self.backend.deletes(self.label, self.pool_options(), self.volume_name)
            self.require_no_watchers()
            self.check_device_closed(before["path"])
        if self.backend.snapshots is not None:  # the backend may have said more of them by now
            self.require_no_snapshots()

    def require_no_watchers(self) -> None:
        """On shared storage guests of other hosts count, where the backend can tell of them."""
        if self.backend.watchers is None or not self.connection.local:
            return
        found = self.backend.watchers(self.connection, self.pool_options(), self.volume_name)
        if found:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is open at {', '.join(found)}",
                way_out="end that use first; it may be a guest of another host",
            )

    def require_no_snapshots(self, way_out: str = "") -> None:
        """No snapshot stays behind that whoever has the name next would take for one of theirs, or that would be lost.

        Those inside an image go where it goes, and those of a subvolume hold a copy of their own. A volume of the same
        layout that is a snapshot may leave with it.
        """
        leaving = self.want.get("leaving", frozenset())
        found = [one.name for one in self.own_snapshots() if self.name_of_snapshot(one) not in leaving]
        if found:
            raise StorageError(
                thing=self.label,
                code="has_snapshots",
                reason=f"its snapshots would be left without it, or be lost: {', '.join(map(repr, found[:5]))}",
                way_out=way_out or "remove them first (volume_snapshot, state: absent)",
            )

    def require_no_old_image(self) -> None:
        """What a killed wipe has not overwritten yet has a name of its own, and nobody would look for it any more."""
        directory = self.directory()
        path = os.path.join(directory, f"{WIPING}{self.volume_name}")
        if directory and os.path.lexists(path):
            raise StorageError(
                thing=self.label,
                code="unfinished",
                reason=f"a wipe of it was ended, and what it held is still in {path}",
                way_out="run volume_wipe again, or remove that file",
            )

    def own_snapshots(self) -> list[Snapshot]:
        """The snapshots of the volume that are files beside it or the backend's own."""
        native, directory = self.backend.snapshots, self.directory()
        if native is not None and guards.mounts_here(self.connection):
            try:
                return native.look(self.connection, self.pool_options(), self.volume_name)
            except FileNotFoundError:
                return []  # what none of its other commands has missed: the backend itself keeps what has some
        if not directory or not self.has_files_beside(directory):
            return []
        from . import snapshot_files  # of no use to volumes without any

        return snapshot_files.beside(directory, self.volume_name)

    def has_files_beside(self, directory: str) -> bool:
        """Whether any file has the name of a snapshot of the volume; of many volumes the directory is listed once."""
        there, prefix = chain.plain_files(self.connection, directory), f"{self.volume_name}@"
        first = bisect.bisect_left(there, prefix)
        return first < len(there) and there[first].startswith(prefix)

    @contextlib.contextmanager
    def content_kept(self) -> Iterator[None]:
        """Around what writes its file in a way that no guest sees: snapshots that stand on it still fit."""
        directory = self.directory()
        if not directory or not self.has_files_beside(directory):
            yield
            return
        from . import snapshot_files

        with snapshot_files.content_kept(self.label, self.before["path"]):
            yield

    def name_of_snapshot(self, one: Snapshot) -> str:
        """A snapshot as its pool would list it, as pool/name."""
        return f"{self.pool_name}/{os.path.basename(one.path)}" if one.path else f"{self.name}.{one.name}"

    def check_unlocked(self, before: dict[str, Any]) -> None:
        """QEMU's own locks tell of guests that this libvirt does not know, on a share those of other hosts too."""
        if self.is_file(before["path"]) and chain.image_locked(before["path"]):
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason="a QEMU process has it open",
                way_out="end it first; it may run under another libvirt or on another host",
            )

    def check_device_closed(self, path: str) -> None:
        """A device that is mounted, held or open on this host, which libvirt knows nothing of."""
        if not path.startswith("/dev/") or self.backend.makes_directory:
            return
        users = guards.device_users(self.label, [path]).get(path)
        if users:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"it is used on this host: {', '.join(users)}",
                way_out="end that use first",
            )

    def check_delete_entry(self, entry: Entry) -> None:
        """What only the backend's own command tells: snapshots that libvirt does not list, and users of this host."""
        leaving = self.want.get("leaving", frozenset())
        contents = self.contents()
        there = contents.entries if contents is not None else {}
        falls = [name for name in entry.falls if name in there]
        falls = [name for name in falls if there[name].unlisted or f"{self.pool_name}/{name}" not in leaving]
        if falls:
            raise StorageError(
                thing=self.label,
                code="has_overlays",
                reason=f"its snapshots would be destroyed with it: {', '.join(repr(name) for name in falls[:5])}",
                way_out="remove those first",
            )
        if entry.is_open:
            self.check_device_closed(entry.path)

    def immutable(self) -> StorageError:
        return StorageError(
            thing=self.label, code="immutable", reason="it is immutable", way_out="set immutable: false first"
        )

    def check_protect(self, before: dict[str, Any]) -> None:
        if not self.directory() and self.protection is None:
            raise StorageError(
                thing=self.label,
                code="unsupported",
                reason=f"immutable is for files of this host and rbd images, and not for a {self.backend.type} pool",
                way_out="leave immutable out",
            )

    def users(self, running_only: bool) -> list[chain.Use]:
        found = chain.uses(self.connection, running_only)
        entry = self.entry() if found else None
        paths = {self.before["path"], *(entry.paths if entry is not None else ())}
        local, uses = self.connection.local, []
        for path in sorted(paths):
            mine = chain.of_volume(found, self.pool_name, self.volume_name, path, local)
            uses += [use for use in mine if use not in uses]
        return uses

    def pool_directories(self) -> set[str]:
        """The directories of all pools, as they are declared and where they lead."""
        targets = chain.directories(self.connection) | chain.declared_directories(self.connection)
        planned = self.directory()
        return targets | ({planned, os.path.realpath(planned)} if planned else set())

    # steps

    def settle(self) -> None:
        self.connection.show(self.pool_name)

    def refresh(self) -> None:
        pool = self.connection.pool(self.pool_name)
        connections.retrying(lambda: pool.refresh(0))
        self.connection.forget(self.pool_name)

    def remove_leftover(self) -> None:
        """An empty file under the name of a qcow2 is what a killed creation left, unless libvirt is still at it."""
        self.refresh()
        if os.lstat(self.before["path"]).st_size == 0:
            os.unlink(self.before["path"])
            self.refresh()

    def create(self) -> None:
        if self.before["leftover"] and self.handle is not None:
            return  # libvirt was still making it
        if self.want["thin_pool"] is not None:
            self.create_unlisted(self.want["thin_pool"])
            return
        if self.makes_file():
            try:
                self.make_file()
                return
            except PermissionError:  # of a server that takes root for nobody; libvirt acts as the file's owner
                if self.want["preallocation"] == "full":
                    raise
        self.create_by_libvirt()
        path = self.before["path"]
        label = self.want["options"].get("permissions", {}).get("label")
        if label is not None and self.is_file(path):
            permissions.apply(path, {"label": label})  # which libvirt takes and does not set

    def create_by_libvirt(self) -> None:
        tree, flags = self.new_tree()
        pool = self.connection.pool(self.pool_name)
        made = again_for_luks(lambda: pool.createXML(xmltree.text(tree), flags))
        self.connection.add(self.pool_name, self.volume_name, made)
        self.before["path"] = made.path()

    @property
    def unlisted(self) -> Unlisted:
        """The backend's own way; only what it showed is ever brought here."""
        if self.backend.unlisted is None:
            raise AssertionError(f"{self.label}: nothing here is unlisted")
        return self.backend.unlisted

    def create_unlisted(self, thin_pool: str) -> None:
        capacity, contents = self.want["options"]["capacity"], self.contents()
        made = self.unlisted.create(self.label, self.pool_options(), self.volume_name, thin_pool, capacity)
        self.before["path"] = made.path
        if contents is not None:
            contents.entries[made.name] = made

    def new_tree(self) -> tuple[Any, int]:
        """The XML of a new volume, and the flags that make its preallocation."""
        options, backing = dict(self.want["options"]), self.want["backing"]
        form = self.new_format()
        if form is not None:
            options["format"] = form
        if form == "qcow2":
            options.setdefault("compat", "1.1")  # libvirt's own default is 0.10
        preallocation = self.want["preallocation"]
        if preallocation == "falloc":
            options["allocation"] = options["capacity"]
        elif "allocation" not in options and (preallocation or self.backend.makes_directory):
            options["allocation"] = 0
        flags = PREALLOCATE if form == "qcow2" and preallocation in ("metadata", "falloc") else 0
        tree = xmltree.new("volume")
        xmltree.put(tree, "name", self.volume_name)
        xmltree.make(tree, "target")
        fields.write(FIELDS, tree, options)
        if backing:
            xmltree.put(tree, "backingStore/path", self.backing_path() or "")
            xmltree.put(tree, "backingStore/format/@type", self.backing_format() or "")
        return tree, flags

    def keep_snapshots(self) -> None:
        """Remove the snapshots that no rule keeps."""
        for step in self.keeping.plan(self.keeping.before).steps:
            getattr(self.keeping, step)()

    def upload(self) -> None:
        from . import upload  # of no use to other volumes

        coming = upload.for_volume(self)
        coming.upload()
        self.before["path"] = coming.before["path"]

    def clone(self) -> None:
        from . import clone  # of no use to other volumes

        clone.carry_out(self)

    def secret(self, before: dict[str, Any]) -> dict[str, Any]:
        """The name of the secret that opens an encrypted volume: as given, or as libvirt still knows it."""
        found = self.encryption or before["options"].get("encryption") or {}
        return {name: found[name] for name in ("secret_usage", "secret_uuid") if found.get(name)}

    @contextlib.contextmanager
    def passphrase(self, before: dict[str, Any]) -> Iterator[Login]:
        """The value of that secret, as a tool takes it."""
        from . import nodes
        from .backends.shared import secret_value

        value = secret_value(self.label, self.connection, self.secret(before))
        with nodes.password("volume", value) as login:
            yield login

    def has_passphrase(self, before: dict[str, Any]) -> bool:
        """Whether a tool can be given it here: libvirt keeps the value of a private secret to itself."""
        from .backends.shared import secret_value

        name = self.secret(before)
        try:
            return bool(self.directory() and name and secret_value(self.label, self.connection, name))
        except StorageError:
            return False

    @contextlib.contextmanager
    def opened(self, form: str, before: dict[str, Any]) -> Iterator[Node]:
        """The volume as qemu-img opens it, with the secret where it has one."""
        from . import nodes

        with nodes.readable(self, form) as plain, contextlib.ExitStack() as stack:
            if before["encrypted"]:
                login = stack.enter_context(self.passphrase(before))
                yield nodes.Encrypted(**{**vars(plain), "logins": (login,)})
            else:
                yield plain

    def makes_file(self) -> bool:
        """Whether qemu-img makes the file here: libvirt's own qemu-img leaves it readable by others for a moment."""
        form = self.new_format()
        if not self.directory() or self.connection.uri.startswith("test:"):
            return False
        if "encryption" in self.want["options"]:
            return self.has_passphrase(self.before)
        return self.want["preallocation"] == "full" or form not in ("raw", None)

    def new_format(self) -> str | None:
        """The format of a volume that is not there yet."""
        source = self.planned_source.new_format() if self.planned_source is not None else None
        return format_of(self.want, self.backend, source)

    def image_options(self, form: str) -> dict[str, Any]:
        """What a new image has, in the words of qemu-img."""
        options = self.want["options"]
        found = {"nocow": "on"} if options.get("nocow") else {}
        if form == "qcow2":
            found["compat"] = options.get("compat", "1.1")
            found.update({name: options[name] for name in ("cluster_size",) if name in options})
            found.update({name: "on" for name in ("lazy_refcounts", "extended_l2") if options.get(name)})
        return found

    def make_file(self) -> None:
        """A file made by qemu-img under a hidden name, which becomes the volume's only when it is whole."""
        from . import files, qemu_img  # of no use to other volumes

        options, directory, form = self.want["options"], self.directory(), self.new_format() or "raw"
        settings = self.image_options(form)
        if self.want["preallocation"] not in (None, "off"):
            settings["preallocation"] = self.want["preallocation"]
        backing = self.backing_node()
        capacity = options.get("capacity", backing.size if backing is not None else None)
        with contextlib.ExitStack() as stack:
            logins, made_as = [], form
            if "encryption" in options:
                logins = [stack.enter_context(self.passphrase(self.before))]
                settings.update(luks_options(form, options["encryption"], logins[0].name))
                made_as = "luks" if form == "raw" else form
            temporary = stack.enter_context(files.hidden(directory))
            again_for_luks(
                lambda: qemu_img.create(self.label, temporary, made_as, capacity, settings, backing, logins=logins)
            )
            if made_as == "raw":
                os.truncate(temporary, options["capacity"])  # qemu-img rounds up to whole sectors, libvirt does not
            self.give_name(temporary)

    def give_name(self, temporary: str) -> None:
        """A whole file becomes the volume, with the permissions that it shall have from its first moment."""
        from . import files

        path = os.path.join(self.directory(), self.volume_name)
        wanted = {"mode": "0600", **self.want["options"].get("permissions", {})}
        permissions.apply(temporary, {**permissions.inherited(temporary, self.directory()), **wanted})
        files.publish(temporary, path)
        self.before["path"] = path
        self.connection.unseen(self.pool_name)

    def backing_node(self) -> Any:
        """What a new overlay stands on."""
        from .nodes import file_node

        if not self.want["backing"]:
            return None
        path, form = self.backing_path() or "", self.backing_format() or ""
        image = images.probe(path)
        size = image.capacity if image is not None and image.format == form else None
        return file_node(path, form, size=size)

    def resize(self) -> None:
        want, form = self.want["options"]["capacity"], self.want["options"].get("format")
        if self.before["unlisted"]:
            self.unlisted.resize(self.label, self.pool_options(), self.volume_name, want)
            return
        method = self.backend.operations["resize"]
        if isinstance(method, Native) and method.call is not None:
            method.call(self.connection, self.handle, want)
            self.refresh()
            return
        by_tool = self.has_passphrase(self.before) if self.before["encrypted"] else form != "raw"
        if self.is_file(self.before["path"]) and by_tool:
            from . import qemu_img  # libvirt's own qemu-img would go where the header leads

            with self.opened(str(form), self.before) as node, self.content_kept():
                qemu_img.resize(self.label, node, want)
            self.connection.unseen(self.pool_name)
            return
        allocate = form == "raw" and self.want["preallocation"] in ("falloc", "full")
        with self.content_kept():
            connections.retrying(lambda: self.handle.resize(want, RESIZE_ALLOCATE if allocate else 0))

    def set_permissions(self) -> None:
        want = dict(self.want["options"]["permissions"])
        if self.before["in_use"]:
            want = {"mode": want["mode"]}
        path = self.before["path"]
        locked = permissions.is_protected(path)
        if locked:
            permissions.set_immutable(path, False)
        permissions.apply(path, want)
        if locked:
            permissions.set_immutable(path, True)

    def protect(self) -> None:
        """Mode without write permission and, where the file system has it, the immutable attribute."""
        if self.protection is not None:
            self.protection.set(self.connection, self.pool_options(), self.volume_name, True)
            return
        path = self.before["path"]
        mode = self.want["options"].get("permissions", {}).get("mode")
        permissions.apply(path, {"mode": mode or f"{os.lstat(path).st_mode & 0o555:04o}"})
        permissions.set_immutable(path, True)

    def release(self) -> None:
        if self.protection is not None:
            self.protection.set(self.connection, self.pool_options(), self.volume_name, False)
            return
        path = self.before["path"]
        permissions.set_immutable(path, False)
        permissions.apply(path, {"mode": f"{(os.lstat(path).st_mode & 0o777) | 0o200:04o}"})

    def delete(self) -> None:
        if self.before["unlisted"]:
            self.unlisted.delete(self.label, self.pool_options(), self.volume_name)
        else:
            method = self.backend.operations["delete"]
            native = method.call if isinstance(method, Native) else None
            connections.retrying(lambda: native(self.connection, self.handle) if native else self.handle.delete(0))
        contents = self.contents()
        if contents is not None:
            contents.entries.pop(self.volume_name, None)
        if self.before["path"].startswith("/dev/") and self.connection.local:
            from . import transfer

            transfer.forget_note(self)
        self.connection.volumes(self.pool_name).pop(self.volume_name, None)


def luks_options(form: str, encryption: dict[str, Any], secret: str) -> dict[str, Any]:
    """The encryption of a new image in the words of qemu-img, as libvirt would say them."""
    cipher, size, ivgen = (encryption.get(name) for name in ("cipher_name", "cipher_size", "ivgen_name"))
    found = {
        "key-secret": secret,
        "cipher-alg": f"{cipher}-{size}" if cipher and size else cipher,
        "cipher-mode": encryption.get("cipher_mode"),
        "hash-alg": encryption.get("cipher_hash"),
        "ivgen-alg": ivgen,
        "ivgen-hash-alg": encryption.get("ivgen_hash"),
    }
    before = "" if form == "raw" else "encrypt."
    named = {f"{before}{name}": value for name, value in found.items() if value}
    return named if form == "raw" else {"encrypt.format": "luks", **named}


def again_for_luks(make: Callable[[], Any]) -> Any:
    """A creation that is tried again: qemu-img measures how fast it derives a LUKS key, and fails on a busy host."""
    for last in (False, False, True):
        try:
            return make()
        except (StepFailed, connections.libvirt.libvirtError) as error:
            if last or "accurate CPU usage" not in str(error):
                raise
    return None


def mismatch(thing: str, declared: str, found: str) -> StorageError:
    return StorageError(
        thing=thing,
        code="format_mismatch",
        reason=f"it is declared {declared}, but its header says {found}, which a guest can write and nobody follows",
        way_out="look at it with 'qemu-img info -f raw', then declare what it is or restore it",
    )


def refuse_operation(thing: str, backend: Backend, operation: str) -> None:
    """An operation that the backend can't do is refused before anything changes."""
    method = backend.operations[operation]
    if isinstance(method, Refused):
        raise StorageError(
            thing=thing,
            code="unsupported",
            reason=f"a {backend.type} pool can't {operation} volumes: {method.reason}",
            way_out=method.instead,
        )


def backend_of(connection: Any, pool: str, thing: str) -> Backend:
    """The backend of a pool that exists."""
    from .backends import registry

    handle = connection.pool(pool)
    if handle is None:
        raise StorageError(
            thing=thing,
            code="no_pool",
            reason=f"there is no pool {pool!r}",
            way_out="make it first with a pool module, or list it in the pools of a layout",
        )
    type_name = connection.once(f"type of {pool}", lambda: xmltree.parse(handle.XMLDesc(0)).get("type"))
    found = registry.backend(type_name)
    if found is None:
        raise StorageError(
            thing=thing,
            code="unsupported",
            reason=f"pools of type {type_name} are not managed here",
            way_out=f"use a pool of type {', '.join(registry.types())}",
        )
    return found


def run() -> None:
    """The main function of the volume module."""
    reconcile.run(argument_spec(), lambda connection, params: [Volume(connection, wanted(params), None)])
