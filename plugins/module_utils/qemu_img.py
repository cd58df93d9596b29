# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""qemu-img over nodes: each of its disks is described in full, so that it guesses no format and follows no header.

Source: qemu-img(1).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import commands
from .errors import StepFailed, StorageError
from .headers import SECTOR
from .nodes import Login, Node

# Where data may lie for a while without being written back: nothing is read again, so the host's cache stays as it is.
CACHE = "none"
IN_CACHE = "writeback"
# It has some 0.2 GiB, for rbd too; the tables that it may have to read are smaller (see intake.py).
MOST_DATA = 4 << 30
LEAST_CPU, SLOWEST = 600, 4 << 20  # seconds, and bytes a second
LONGEST = 1000  # characters of what it says that are told on
THREADS = 8  # of reads and writes under way at once


def run(
    thing: str, step: str, *argv: str, nodes: tuple[Node, ...] = (), accept: tuple[int, ...] = (0,)
) -> commands.Finished:
    """A qemu-img command; argv begins with its own name, and the objects of the nodes follow it."""
    objects = [part for node in nodes for part in node.objects]
    keep = [descriptor for node in nodes for descriptor in node.keep]
    try:
        finished = commands.run("qemu-img", argv[0], *objects, *argv[1:], keep=keep, limits=limits(nodes))
    except FileNotFoundError:
        raise StorageError(
            thing=thing,
            code="missing_command",
            reason="qemu-img does this, and it is not on this host",
            way_out="install qemu-utils (Debian, Ubuntu) or qemu-img (RHEL, Fedora)",
        ) from None
    if finished.returncode not in accept:
        raise StepFailed(thing=thing, step=step, code="backend_refused", reason=said(finished))
    return finished


def limits(nodes: tuple[Node, ...]) -> commands.Limits:
    """Far more than any image takes, so that one that makes qemu-img run on without end is an error as others are."""
    size = max((node.size or 0 for node in nodes), default=0)
    return commands.Limits(cpu=LEAST_CPU + size // SLOWEST if size else commands.NO_LIMIT, data=MOST_DATA)


def said(finished: commands.Finished) -> str:
    """Its words, or what ended it: a signal is a crash, and a crash is a refusal."""
    words = " ".join((finished.stderr or finished.stdout)[: 2 * LONGEST].split())
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]}..."  # check names every cluster that is damaged
    if finished.returncode < 0:
        return f"qemu-img was ended by signal {-finished.returncode}" + (f": {words}" if words else "")
    return words or f"qemu-img ended with {finished.returncode}"


def settings(options: dict[str, Any]) -> list[str]:
    """Options of a format as -o takes them; a comma in a value stands twice."""
    pairs = [f"{name}={str(value).replace(',', ',,')}" for name, value in options.items()]
    return ["-o", ",".join(pairs)] if pairs else []


def convert(
    thing: str,
    source: Node,
    target: Node,
    *,
    create: bool,
    options: dict[str, Any] | None = None,
    step: str = "copy",
    zeroed: bool = False,
    compress: bool = False,
    rate: int | None = None,
) -> None:
    """Copy what a guest would see of the source into the target.

    create   make the target's image (of its format, with options) in the file at its path; else it is there already.
    zeroed   a target that is there reads as zeroes all over, so that nothing is written for a hole.
    rate     bytes a second at most.
    """
    argv = ["convert", "-q", "-t", IN_CACHE, "-T", IN_CACHE, "-m", str(THREADS)]
    argv += ["-c"] if compress else ["-W"]  # what is compressed goes in order
    argv += ["-r", str(rate)] if rate else []
    argv += settings(options or {}) if create else ["-n"] + (["--target-is-zero"] if zeroed else [])
    argv += ["-O", target.format, source.name, target.path if create else target.name]
    run(thing, step, *argv, nodes=(source, target))


def compare(thing: str, one: Node, other: Node, step: str = "compare") -> bool:
    """Whether a guest would see the same in both; what one has more must be zeroes."""
    finished = run(thing, step, "compare", "-q", one.name, other.name, nodes=(one, other), accept=(0, 1))
    return finished.returncode == 0


def info(thing: str, node: Node, step: str = "read") -> dict[str, Any]:
    """What qemu-img knows of an image (its own names: virtual-size, actual-size, snapshots, ...)."""
    argv = ("info", "-U", "--output=json", replace(node, backing=None).name)  # which does not open what is below
    return json.loads(run(thing, step, *argv, nodes=(node,)).stdout)


def extents(thing: str, node: Node, start: int) -> list[tuple[int, int]]:
    """Where there is data from an offset on, the chain below included, as (offset, length)."""
    argv = ("map", "--output=json", f"--start-offset={start}", node.name)
    found = json.loads(run(thing, "read", *argv, nodes=(node,)).stdout)
    return [(one["start"], one["length"]) for one in found if one["data"]]


def measure(thing: str, node: Node, form: str, options: dict[str, Any] | None = None) -> tuple[int, int]:
    """Bytes that an image of a format would take of this source, and would when all of it is written."""
    argv = ("measure", "--output=json", "-O", form, *settings(options or {}), node.name)
    found = json.loads(run(thing, "measure", *argv, nodes=(node,)).stdout)
    return found["required"], found["fully-allocated"]


def create(
    thing: str,
    path: str,
    form: str,
    size: int | None,
    options: dict[str, Any],
    backing: Node | None = None,
    logins: Sequence[Login] = (),
) -> None:
    """An empty image in a file, or one that stands on another; the backing name is recorded as its path.

    logins are the passwords that the options name.
    """
    argv = ["create", "-q", "-f", form, *settings(options)]
    if backing is not None:
        argv += ["-u", "-b", backing.path, "-F", backing.format]
    holder = Node({}, logins=tuple(logins))
    run(thing, "create", *argv, path, *([str(size)] if size is not None else []), nodes=(holder,) if logins else ())


def resize(thing: str, node: Node, size: int, *, shrink: bool = False, preallocation: str = "off") -> None:
    """Give an image another size that a guest sees; one whose tables are damaged stays as it is."""
    size = -(-size // SECTOR) * SECTOR  # as libvirt rounds it
    if node.format == "qcow2":
        check(thing, node)
    argv = ["resize", "-q", *(["--shrink"] if shrink else [f"--preallocation={preallocation}"])]
    run(thing, "resize", *argv, node.name, str(size), nodes=(replace(node, size=max(node.size or 0, size)),))


def check(thing: str, node: Node) -> None:
    """The tables of an image agree with each other; leaked clusters are none of the damage."""
    run(thing, "check", "check", "-q", node.name, nodes=(node,), accept=(0, 3, 63))


def mend(thing: str, node: Node) -> None:
    """check(), and mend what a qemu-img that was killed over a snapshot leaves: a flag that the reference counts
    contradict (OFLAG_COPIED, see docs/interop/qcow2.txt). Any other damage is an error.
    """
    finished = run(thing, "check", "check", node.name, nodes=(node,), accept=(0, 2, 3, 63))
    if finished.returncode != 2:
        return
    errors = [line for line in f"{finished.stdout}\n{finished.stderr}".splitlines() if line.startswith("ERROR")]
    if not errors or not all(line.startswith("ERROR OFLAG_COPIED ") for line in errors):
        raise StepFailed(thing=thing, step="check", code="backend_refused", reason=said(finished))
    run(thing, "mend", "check", "-q", "-r", "all", node.name, nodes=(node,), accept=(0, 3))


def rebase(thing: str, node: Node, path: str, form: str, *, write: bool) -> None:
    """Let an image stand on another file, whose absolute path and format are recorded.

    write    first write into it what a guest would see otherwise then; else only its header changes.
    """
    unsafe = [] if write else ["-u"]
    run(thing, "rebase", "rebase", "-q", *unsafe, "-b", path, "-F", form, node.name, nodes=(node,))


def commit(thing: str, node: Node) -> None:
    """Write what an image has of its own into the one that it stands on, which grows where it is smaller.

    The image itself stays as it is (-d), so that a killed run can be done again.
    """
    run(thing, "commit", "commit", "-q", "-d", node.name, nodes=(node,))
