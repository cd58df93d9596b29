# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an iSCSI portal offers, asked by a discovery session of RFC 7143.

libvirt and iscsiadm can ask too, but a portal that is silent keeps them for minutes, and to ask under another
initiator's name they write records that stay. This writes nothing, and ends in time.
"""

from __future__ import annotations

import os
import socket
import struct
import time

INITIATOR_FILE = "/etc/iscsi/initiatorname.iscsi"
LOGIN, TEXT, LOGOUT = 0x43, 0x44, 0x46  # opcodes of requests, each marked as immediate
LOGIN_ANSWER, TEXT_ANSWER, NOP = 0x23, 0x24, 0x20
TRANSIT, CONTINUES = 0x80, 0x40  # flags; the first also ends a text and marks a logout
SECURITY, OPERATIONAL, FULL = 0, 1, 3  # the stages of a login
HEADER, NO_TAG = 48, 0xFFFFFFFF
MOST_BYTES = 4 << 20


class NoList(Exception):
    """The portal speaks, but does not let itself be asked: it wants a login of its own, or it speaks otherwise."""


def initiator_of_host(path: str = INITIATOR_FILE) -> str | None:
    """The name by which this host makes itself known, or None where it can't be told."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file]
    except OSError:
        return None
    names = [line.partition("=")[2].strip() for line in lines if line.startswith("InitiatorName=")]
    return names[0] if names and names[0] else None


def offered(host: str, port: int, initiator: str, seconds: float) -> dict[str, list[str]] | None:
    """The targets that a portal names, each with its addresses.

    None where it gives no list, TimeoutError where it says nothing.
    """
    try:
        with socket.create_connection((host.strip("[]"), port), timeout=seconds) as connection:
            return targets_in(Discovery(connection, time.monotonic() + seconds).ask(initiator))
    except (socket.timeout, TimeoutError):  # one and the same from Python 3.10 on
        raise TimeoutError from None
    except (OSError, UnicodeError, NoList):
        return None


def targets_in(answer: bytes) -> dict[str, list[str]]:
    """The targets of a SendTargets answer by name, with their addresses such as 192.0.2.1:3260."""
    found: dict[str, list[str]] = {}
    name = ""
    for pair in answer.split(b"\0"):
        key, dummy, value = pair.decode("utf-8", "replace").partition("=")
        if key == "TargetName":
            name = value
            found.setdefault(name, [])
        elif key == "TargetAddress" and name:
            found[name].append(value.partition(",")[0])
    return found


def keys(pairs: dict[str, str]) -> bytes:
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs.items())


class Discovery:
    """One discovery session on an open connection, with one request on the way at a time until the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline
        self.session = struct.pack(">B3sH", 0x80, os.urandom(3), 0)  # an ISID at random, so that it is no one else's
        self.expected = 0

    def ask(self, initiator: str) -> bytes:
        self.log_in(initiator)
        found, tag, data = b"", NO_TAG, keys({"SendTargets": "All"})
        while len(found) <= MOST_BYTES:
            self.send(TEXT, TRANSIT, bytes(8), data, struct.pack(">I", tag))
            header, text = self.receive(TEXT_ANSWER)
            found, tag, data = found + text, struct.unpack(">I", header[20:24])[0], b""
            if header[1] & TRANSIT and not header[1] & CONTINUES:
                self.send(LOGOUT, TRANSIT, bytes(8), b"", bytes(4))
                return found
        raise NoList

    def log_in(self, initiator: str) -> None:
        """From the security stage without a login to the operational one and on."""
        who = {"InitiatorName": initiator, "SessionType": "Discovery", "AuthMethod": "None"}
        how = {"HeaderDigest": "None", "DataDigest": "None", "MaxRecvDataSegmentLength": "65536"}
        how.update(DefaultTime2Wait="0", DefaultTime2Retain="0", ErrorRecoveryLevel="0")
        stage, data = SECURITY, keys(who)
        while stage != FULL:
            following = OPERATIONAL if stage == SECURITY else FULL
            self.send(LOGIN, TRANSIT | stage << 2 | following, self.session + bytes(2), data, bytes(4))
            header, dummy = self.receive(LOGIN_ANSWER)
            if header[36] != 0:  # another class of status than success
                raise NoList
            data = b""
            if header[1] & TRANSIT:
                stage = header[1] & 3
                data = keys(how) if stage == OPERATIONAL else b""

    def send(self, opcode: int, flags: int, place: bytes, data: bytes, tag: bytes) -> None:
        lengths = struct.pack(">I", len(data))  # no additional header segments
        header = struct.pack(">BBH", opcode, flags, 0) + lengths + place + struct.pack(">I", 1) + tag
        header += struct.pack(">II", 1, self.expected)
        self.connection.sendall(header.ljust(HEADER, b"\0") + data + bytes(-len(data) % 4))

    def receive(self, wanted: int) -> tuple[bytes, bytes]:
        """The next answer, header and data; what a target says of its own accord is passed over."""
        while True:
            header = self.exactly(HEADER)
            opcode, extra, length = header[0] & 0x3F, header[4] * 4, int.from_bytes(header[5:8], "big")
            if opcode not in (wanted, NOP) or length > MOST_BYTES:
                raise NoList
            text = self.exactly(extra + length + -length % 4)[extra : extra + length]
            if opcode == wanted:
                self.expected = (struct.unpack(">I", header[24:28])[0] + 1) & 0xFFFFFFFF
                return header, text

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.connection.settimeout(left)
            some = self.connection.recv(size - len(found))
            if not some:
                raise NoList
            found += some
        return found
