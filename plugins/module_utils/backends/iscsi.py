# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""iscsi: volumes are the LUNs of an iSCSI target, which libvirt attaches to the host."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
from dataclasses import dataclass
from typing import Any

from .. import block, sendtargets
from ..backend import Backend, rounded
from ..commands import run
from ..errors import StepFailed, StorageError
from ..fields import At
from ..identity import of_devices
from .scsi import twins_hint
from .shared import KEPT_BY_THE_ARRAY, LUN_OPERATIONS, PERMISSIONS, VENDOR, Iqn, auth, chap_hint, hosts, servers

ISCSI_PORT = 3260
MOST_NAMES = 5
IFACE = "libvirt-iface-"  # begins the names of the interfaces that libvirt makes, one for each initiator
NO_RECORD, IN_USE = 21, 15  # exit statuses of iscsiadm


@dataclass(frozen=True)
class Session:
    """One login of this host to a target, through whichever portal and by whomever."""

    portal: tuple[str, int]
    initiator: str
    devices: tuple[str, ...]

    @property
    def where(self) -> str:
        return "{}:{}".format(*self.portal)


def sessions(target: str | None = None) -> list[Session]:
    """The sessions of this host, of one target or of all."""
    found = []
    for place in sorted(glob.glob(f"{block.SYS}/class/iscsi_session/session*")):
        if target is not None and block.read(f"{place}/targetname") != target:
            continue
        number = os.path.basename(place).removeprefix("session")
        connection = f"{block.SYS}/class/iscsi_connection/connection{number}:0"
        port = block.read(f"{connection}/persistent_port")
        portal = (block.read(f"{connection}/persistent_address"), int(port) if port.isdigit() else 0)
        found.append(Session(portal, block.read(f"{place}/initiatorname"), tuple(block.luns_of_session(place))))
    return found


def portal_of(options: dict[str, Any]) -> tuple[str, int]:
    """The pool's portal: its name and its port."""
    host: dict[str, Any] = next(iter(options.get("hosts") or []), {})
    return str(host.get("name", "")).strip("[]"), host.get("port", ISCSI_PORT)


def addresses(portal: tuple[str, int]) -> set[tuple[str, int]]:
    """A portal's addresses; what can't be resolved has none."""
    try:
        found = socket.getaddrinfo(*portal, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {(str(one[4][0]), portal[1]) for one in found}


def preflight(thing: str, options: dict[str, Any], seconds: float) -> list[str]:
    """A target that a portal lacks, and a portal that takes connections and says nothing, keep libvirt for minutes."""
    target, (host, port) = str(options.get("target_iqn")), portal_of(options)
    there = sessions(target)
    if there:
        own = addresses((host, port))
        if own and not any(addresses(session.portal) & own for session in there):
            raise StorageError(
                thing=thing,
                code="source_conflict",
                reason=f"this host is logged in to {target} at {there[0].where} already; libvirt would use "
                "that session, and could not end it when the pool stops",
                way_out="give that portal in hosts, or log out there first",
            )
        return [f"this host is logged in to {target} already; the pool uses that session and ends it when it stops"]
    initiator = options.get("initiator_iqn") or sendtargets.initiator_of_host()
    if not initiator:
        return []
    try:
        found = sendtargets.offered(host, port, initiator, seconds)
    except TimeoutError:
        raise StorageError(
            thing=thing,
            code="unreachable",
            reason=f"something takes connections at {host}:{port}, but does not answer as an iSCSI portal",
            way_out="check the address, the port and that the target runs",
        ) from None
    if found is None:
        return []
    if target not in found:
        names = [*list(found)[:MOST_NAMES], *([f"{len(found) - MOST_NAMES} more"] if len(found) > MOST_NAMES else [])]
        raise StorageError(
            thing=thing,
            code="no_source",
            reason=f"{host}:{port} has no target {target} for {initiator}; it has {', '.join(names) or 'none at all'}",
            way_out="correct target_iqn, or let the target admit this initiator",
        )
    return elsewhere(target, (host, port), found[target])


def elsewhere(target: str, portal: tuple[str, int], there: list[str]) -> list[str]:
    """A portal tells of targets that are on other portals only; a login here is then tried for two minutes."""
    own = {f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in addresses(portal)}
    if not there or not own or own & set(there):
        return []
    return [f"{portal[0]}:{portal[1]} says that {target} is at {', '.join(there[:MOST_NAMES])} and not here"]


def detaches(options: dict[str, Any]) -> list[str]:
    """The LUNs that go when libvirt logs out of the target at the pool's portal."""
    found = sessions(str(options.get("target_iqn")))
    own = addresses(portal_of(options))
    ending = [session for session in found if addresses(session.portal) & own] or found
    return [device for session in ending for device in session.devices]


def leaves(thing: str, options: dict[str, Any]) -> None:
    """The record of the login, in which the password stands in clear, and the interface of an initiator's name.

    libvirt makes both anew at each start. What another session uses stays, and so does a record that the host
    logs in by when it boots, which libvirt's own never is.
    """
    host, port = portal_of(options)
    record = "-m", "node", "-T", options["target_iqn"], "-p", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    initiator = options.get("initiator_iqn")
    with contextlib.suppress(FileNotFoundError):  # without iscsiadm there are no records
        if options.get("auth") and "node.startup = manual" in run("iscsiadm", *record).stdout:
            remove(thing, *record)
        if initiator and initiator not in {session.initiator for session in sessions()}:
            for line in run("iscsiadm", "-m", "iface").stdout.splitlines():
                interface, dummy, settings = line.partition(" ")
                if interface.startswith(IFACE) and settings.rpartition(",")[2] == initiator:
                    remove(thing, "-m", "iface", "-I", interface)


def remove(thing: str, *record: str) -> None:
    """Delete a record of iscsiadm."""
    finished = run("iscsiadm", *record, "-o", "delete")
    if finished.returncode not in (0, NO_RECORD, IN_USE):
        words = " ".join((finished.stderr or finished.stdout).split())
        raise StepFailed(thing=thing, step="clean_up_after", code="system_refused", reason=words)


def start_hint(words: str, options: dict[str, Any]) -> str:
    """What iscsiadm means."""
    target = options.get("target_iqn")
    if "authorization failure" in words or "failed to authenticate" in words or "exit status 24" in words:
        initiator = options.get("initiator_iqn") or sendtargets.initiator_of_host() or "this host"
        return f"{chap_hint(options)}, unless it does not admit {initiator} at all"
    if "does not have a value" in words and options.get("auth"):
        login = options["auth"]
        return f"the secret {login.get('secret_usage') or login.get('secret_uuid')!r} holds no value: give it one"
    if "No records found" in words or "exit status 21" in words:
        return f"there is no target {target} at this address: compare with the target's own list"
    if words == "timeout" or "exit status 8" in words:
        return f"the portal answers, but the login to {target} does not end: is the target there and enabled?"
    return twins_hint(words, [])  # the session has ended, and its LUNs are gone


BACKEND = Backend(
    type="iscsi",
    fields={
        "path": At("target/path", "path"),
        "hosts": hosts(at_most=1, usual_port=ISCSI_PORT),
        "target_iqn": Iqn("source/device/@path", required=True),
        "initiator_iqn": Iqn("source/initiator/iqn/@name"),
        "auth": auth("chap"),
        **VENDOR,
        "permissions": PERMISSIONS,
    },
    operations=LUN_OPERATIONS,
    conflicts_by=("target_iqn", "initiator_iqn"),
    delete_data=KEPT_BY_THE_ARRAY,
    servers=servers(ISCSI_PORT),
    preflight=preflight,
    detaches=detaches,
    leaves=leaves,
    granule=rounded(1),
    start_hint=start_hint,
    constants={"target/path": "/dev/disk/by-path"},
    relogin="restart",
    identity=of_devices,
)
