# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that get another image format, or other properties of theirs, and keep their content.

What a conversion was from is written down nowhere. A volume that has the wanted format already counts as converted;
that a guest did not write that header itself is told by its domain, whose definition says what it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import fields, headroom, images, nodes, permissions, reconcile, volume
from . import operation as operations
from .errors import StepFailed, StorageError
from .operation import Operation
from .plan import Plan

SOURCES = ("raw", "qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx")
TARGETS = ("raw", "qcow2", "vdi", "vmdk", "vpc")
LASTING = ("compat", "cluster_size", "compression_type", "lazy_refcounts", "extended_l2")  # told by a qcow2 header
IMAGE_SPEC: dict[str, Any] = {
    "format": {"type": "str", "choices": list(TARGETS)},
    "compat": {"type": "str", "choices": ["0.10", "1.1"]},
    "cluster_size": {"type": "str"},
    "compression_type": {"type": "str", "choices": ["zlib", "zstd"]},
    "compress": {"type": "bool"},
    "lazy_refcounts": {"type": "bool"},
    "extended_l2": {"type": "bool"},
    "preallocation": {"type": "str", "choices": ["off", "metadata", "falloc", "full"]},
}
GIVEN_UP: dict[str, Any] = {
    "flatten": {"type": "bool", "default": False},
    "drop_snapshots": {"type": "bool", "default": False},
}


# what is wanted


def clean_image(thing: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """What is given of an image that shall be, with sizes in bytes; raises bad_value."""
    image = fields.given({name: (given or {}).get(name) for name in IMAGE_SPEC})
    if "cluster_size" in image:
        image["cluster_size"] = volume.FIELDS["cluster_size"].clean(thing, "to.cluster_size", image["cluster_size"])
    form = image.get("format")
    for_qcow2 = [name for name in (*LASTING, "compress") if image.get(name)]
    problems = [
        (for_qcow2 and form not in ("qcow2", None), f"{', '.join(for_qcow2)}: that is for qcow2", "leave it out"),
        (
            image.get("compat") == "0.10"
            and (
                image.get("lazy_refcounts")
                or image.get("extended_l2")
                or image.get("compression_type", "zlib") != "zlib"
            ),
            "lazy_refcounts, extended_l2 and zstd need compat: '1.1'",
            "leave compat out, or leave them out",
        ),
        (
            not volume.power_of_2(image.get("cluster_size", 512)),
            "cluster_size must be a power of 2 from 512 to 2 MiB",
            "give one such as 64KiB",
        ),
        (
            image.get("extended_l2") and image.get("cluster_size", 65536) < 16384,
            "extended_l2 takes clusters of 16 KiB or more",
            "give a larger cluster_size",
        ),
        (
            image.get("compress") and image.get("preallocation", "off") != "off",
            "compress and preallocation exclude each other",
            "give one of them",
        ),
        (
            image.get("preallocation", "off") != "off" and form not in ("raw", "qcow2", None),
            f"preallocation is not for {form}",
            "leave it out, or use raw or qcow2",
        ),
        (
            image.get("preallocation") == "metadata" and form == "raw",
            "preallocation: metadata is for qcow2",
            "use falloc",
        ),
    ]
    for found, reason, way_out in problems:
        if found:
            raise StorageError(thing=thing, code="bad_value", reason=reason, way_out=way_out)
    return image


def present_image(found: Any) -> dict[str, Any]:
    """What a header tells of the same, for life; a false property is left out."""
    image = {"format": found.format}
    if found.format == "qcow2":
        image.update(compat="1.1" if found.version == 3 else "0.10", cluster_size=1 << (found.cluster_bits or 0))
        image["compression_type"] = "zstd" if "compression_type" in found.features else "zlib"
        image.update({name: True for name in ("lazy_refcounts", "extended_l2") if name in found.features})
    return image


def is_done(present: dict[str, Any], image: dict[str, Any]) -> bool:
    """Whether a volume has the wanted format and what is given of its lasting properties."""
    if present["format"] != image["format"]:
        return False
    return all((present.get(name) or False) == image[name] for name in LASTING if name in image)


def plan(before: dict[str, Any], image: dict[str, Any]) -> Plan:
    """Pure. before has present (what the header tells) and outdated (domains whose definition says another format).

    A definition is changed at a moment when a guest that starts in between can't read, or write, its disk in the wrong
    format: raw fits any file, so while the definition says raw the file is raw.
    """
    shown = {name: before["present"].get(name) for name in ("format", *LASTING)}
    converts = not is_done(before["present"], image)
    after = {**shown, **{name: image[name] or None for name in ("format", *LASTING) if name in image}}
    if after["format"] != "qcow2":
        after.update(dict.fromkeys(LASTING))
    elif shown["format"] != "qcow2":
        after["compat"] = after["compat"] or "1.1"
    steps = ["convert"] if converts else []
    if before["outdated"]:
        steps = ["switch_domains", *steps] if shown["format"] == "raw" and converts else [*steps, "switch_domains"]
        shown["domains"], after["domains"] = "as before", f"{', '.join(before['outdated'])}: {image['format']}"
    return Plan(steps, shown, after, risk="in place, compared before the old image goes")


# the data path


def settings(label: str, node: Any, image: dict[str, Any]) -> dict[str, Any]:
    """What a new image has, in the words of qemu-img; a qcow2 made of another one keeps what is not given."""
    from . import qemu_img

    form = image["format"]
    file = node.path.startswith("/") and not node.path.startswith("/dev/")
    found: dict[str, Any] = {"nocow": "on"} if file and permissions.is_nocow(node.path) else {}
    if image.get("preallocation", "off") != "off":
        found["preallocation"] = image["preallocation"]
    if form == "vpc":
        found["force_size"] = "on"
    if form != "qcow2":
        return found
    kept: dict[str, Any] = {"compat": "1.1"}
    if node.format == "qcow2":
        told = qemu_img.info(label, node)
        data = told.get("format-specific", {}).get("data", {})
        kept = {"compat": data["compat"], "cluster_size": told["cluster-size"]}
        kept.update({name: bool(data.get(name.replace("_", "-"))) for name in ("lazy_refcounts", "extended_l2")})
        kept.update(compression_type=data.get("compression-type", "zlib"), refcount_bits=data.get("refcount-bits", 16))
    kept.update({name: image[name] for name in LASTING if name in image})
    if kept["compat"] == "0.10":
        kept = {name: kept[name] for name in ("compat", "cluster_size") if name in kept}
    if kept.get("extended_l2") and kept.get("cluster_size", 65536) < 16384:
        kept["extended_l2"] = image.get("extended_l2", False)
    words = {True: "on", False: "off"}
    found.update({name: words[value] if isinstance(value, bool) else value for name, value in kept.items()})
    return found


def require_kept(label: str, before: dict[str, Any], options: dict[str, Any], wanted: str) -> None:
    """Nothing is in the image that a copy of what its guest sees would lose, unless it was given up by name."""
    found = before["found"]
    if found is None:
        return
    bitmaps = "bitmaps" in found.features
    problems = [
        (
            found.encrypted and found.format != "raw",
            "encryption",
            "it is encrypted, and its passphrase is libvirt's",
            "decrypt it in the guest, or keep its format",
        ),
        (
            bitmaps,
            "has_snapshots",
            "it has bitmaps (checkpoints), which a new image has not",
            "delete the checkpoints first",
        ),
        (
            found.snapshots and not options["drop_snapshots"],
            "has_snapshots",
            f"its {found.snapshots} internal snapshots would be lost",
            "use drop_snapshots: true, or delete them first",
        ),
        (
            found.backing is not None and not options["flatten"],
            "has_backing",
            f"it stands on {before['backing'] or 'another image'}, and {wanted} would stand alone",
            "use flatten: true",
        ),
    ]
    for there, code, reason, way_out in problems:
        if there:
            raise StorageError(thing=label, code=code, reason=reason, way_out=way_out)


def inspected(path: str, forms: tuple[str, ...]) -> Any:
    """All that the headers of a file or device of this host say, as one of the formats where it can be meant."""
    from . import headers

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if path.startswith("/dev/") else os.O_NOFOLLOW)
    descriptor = images.open_image(path, flags)
    try:
        found = [headers.inspect(descriptor, form) for form in forms]
    finally:
        os.close(descriptor)
    return next((one for form, one in zip(forms, found) if one.format == form), found[0])


def not_equal(label: str, step: str) -> StepFailed:
    return StepFailed(
        thing=label,
        step=step,
        code="not_equal",
        reason="what was written reads back as something else than its source; nothing was changed",
        way_out="look at the storage below (dmesg, smartctl), then run this again",
    )


def required(label: str, node: Any, image: dict[str, Any]) -> int:
    """The bytes that a copy takes at once; of formats that qemu-img can't measure as many as a sparse raw file."""
    from . import qemu_img

    form = image["format"] if image["format"] in ("raw", "qcow2") else "raw"
    options = {"preallocation": image["preallocation"]} if image.get("preallocation", "off") != "off" else None
    return qemu_img.measure(label, node, form, options)[0]


class Convert(Operation):
    """A file that gets another format under its name."""

    operation = "convert"

    def __init__(self, connection: Any, options: dict[str, Any]) -> None:
        declared = options["format"]
        super().__init__(connection, {**options, "format": None if declared == "vhdx" else declared})
        self.want["options"]["format"] = declared  # vhdx is no format of libvirt's, and still one that a file can have
        self.image = clean_image(self.label, options["to"])
        self.policy = headroom.policy_of(self.label, options)

    # reading

    def read(self) -> dict[str, Any]:
        """Besides what every volume has: found (the header), present, definitions, outdated (names of domains)."""
        from . import domains

        before = super().read()
        self.require_there(before)
        self.require_local("qemu-img")
        before["found"] = inspected(before["path"], (self.want["options"]["format"], self.image["format"]))
        before["present"] = present_image(before["found"])
        found = domains.defined(self.connection, self.pool_name, self.volume_name, before["path"])
        before["definitions"] = found
        before["outdated"] = sorted(one.name for one in found if one.formats - {self.image["format"]})
        return before

    # deciding

    def plan(self, before: dict[str, Any]) -> Plan:
        return plan(before, self.image)

    def check(self, before: dict[str, Any], made: Plan) -> None:
        self.require_format(before)
        if not made.steps:
            return
        from . import domains

        self.require_definitions(before)
        made.warnings += domains.warnings(self.label, before["definitions"])
        self.require_unused(before, running_only=True)
        if "convert" not in made.steps:
            return
        self.require_unprotected(before)
        self.require_no_overlays(before)
        require_kept(self.label, before, self.options, "the new image")
        self.require_no_snapshots()
        with self.node() as node:
            made.warnings += headroom.room(self, 0, required(self.label, node, self.image), self.policy)

    def require_format(self, before: dict[str, Any]) -> None:
        """The header is that of the declared format, or what this task itself would have made of it."""
        declared, wanted, there = self.want["options"]["format"], self.image["format"], before["present"]["format"]
        if there not in (declared, wanted):
            raise volume.mismatch(self.label, declared, there)
        if there == declared:
            return
        from . import intake

        if declared == "raw" and any("raw" in one.formats for one in before["definitions"]):
            raise volume.mismatch(self.label, declared, there)  # its guest has written that header
        limits = replace(intake.LIMITS, virtual_size=1 << 63)
        for refusal in intake.refusals(before["found"], wanted, limits)[:1]:
            raise nodes.refused(self.label, refusal)  # no conversion makes such an image

    def require_definitions(self, before: dict[str, Any]) -> None:
        from . import domains

        domains.refuse_unchangeable(self.label, before["definitions"])
        if before["outdated"] and not self.options["update_domains"]:
            raise StorageError(
                thing=self.label,
                code="in_use",
                reason=f"the definition of {', '.join(map(repr, before['outdated']))} says another format than "
                f"{self.image['format']}",
                way_out="use update_domains: true",
            )

    @contextlib.contextmanager
    def node(self) -> Iterator[Any]:
        """The volume with all that it stands on, every header inspected."""
        with nodes.readable(self, self.want["options"]["format"]) as node:
            yield node

    # steps

    def convert(self) -> None:
        """A whole and compared image takes the old one's place at once; nobody has written the old one meanwhile."""
        from . import exclusive, files, progress, qemu_img

        path, form = self.before["path"], self.image["format"]
        was = self.identity()
        with self.node() as node, files.hidden(os.path.dirname(path)) as temporary:
            target = nodes.file_node(temporary, form)
            made, pressed = settings(self.label, node, self.image), bool(self.image.get("compress"))
            with progress.told("convert"):
                qemu_img.convert(self.label, node, target, create=True, options=made, step="convert", compress=pressed)
            with progress.told("compare"):
                if not qemu_img.compare(self.label, node, target, step="convert"):
                    raise not_equal(self.label, "convert")
            with exclusive.opened(self.label, path):
                self.require_same(was)
                permissions.apply(temporary, permissions.read(path) or {"mode": "0600"})
                files.replace(temporary, path)
        self.connection.unseen(self.pool_name)

    def switch_domains(self) -> None:
        """The persistent definitions say the new format."""
        from . import domains

        local, form = self.connection.local, self.image["format"]

        def change(tree: Any) -> None:
            for disk in domains.disks(tree, self.pool_name, self.volume_name, self.before["path"], local)[0]:
                domains.put_format(disk, form)
                if form == "raw" or self.before["found"].backing is not None:
                    disk_alone(disk)

        for one in self.before["definitions"]:
            if one.formats - {form}:
                domains.redefine(self.connection, one, change)


def disk_alone(disk: Any) -> None:
    """It stands on nothing any more."""
    for element in disk.findall("backingStore"):
        disk.remove(element)


# the module


def argument_spec() -> dict[str, Any]:
    image = {**IMAGE_SPEC, "format": {**IMAGE_SPEC["format"], "required": True}}
    return {
        **operations.OPERATION_SPEC,
        "format": {"type": "str", "choices": list(SOURCES), "required": True},
        "new_name": {"type": "str"},
        "to": {"type": "dict", "required": True, "options": image},
        "update_domains": {"type": "bool", "default": False},
        **GIVEN_UP,
        **headroom.OVERCOMMIT_SPEC,
    }


def things(connection: Any, params: dict[str, Any]) -> list[Any]:
    """The conversion, or with another name the move within the pool that converts on its way."""
    if params["new_name"] in (None, params["name"]):
        return [Convert(connection, params)]
    from .migrate import Migrate

    class Renamed(Migrate):
        operation = "convert"
        left_behind = ""  # it never keeps its source

    place = {**params["to"], "name": params["new_name"]}
    return [Renamed(connection, {**params, "to": place, "keep_source": False, "rate": None, "timeout": 3600})]


def run() -> None:
    """The main function of the volume_convert module."""
    reconcile.run(argument_spec(), things)
