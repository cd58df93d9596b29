# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Discovery against portals that answer, refuse, talk nonsense or keep silent; the lab asks a real one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import sendtargets

LOGIN, TEXT, NOP = 0x23, 0x24, 0x20
ONE = b"TargetName=iqn.2026-01.a:one\0TargetAddress=192.0.2.1:3260,1\0TargetAddress=[2001:db8::1]:3260,1\0"
TWO = b"TargetName=iqn.2026-01.a:two\0TargetAddress=192.0.2.1:3260,1\0TargetName=iqn.2026-01.a:one\0"
ADDRESSES = ["192.0.2.1:3260", "[2001:db8::1]:3260"]


def answer(opcode, flags, data=b"", status=0, tag=0xFFFFFFFF, extra=b""):
    """One PDU of a target, padded as it must be."""
    head = struct.pack(">BBHB3s", opcode, flags, 0, len(extra) // 4, len(data).to_bytes(3, "big"))
    header = head + bytes(12) + struct.pack(">II", tag, 7) + bytes(8) + struct.pack(">BB", status, 0)
    return header.ljust(48, b"\0") + extra + data + bytes(-len(data) % 4)


IN = [answer(LOGIN, 0x81, b"AuthMethod=None\0"), answer(LOGIN, 0x87, b"DataDigest=None\0")]


@contextlib.contextmanager
def portal(*answers, silent=False):
    """Says one answer for each request; what it heard is in the list."""
    heard = []

    def serve(server):
        with contextlib.suppress(OSError):
            connection, dummy = server.accept()
            with connection:
                for one in answers:
                    heard.append(connection.recv(65536))
                    connection.sendall(one)
                while silent and connection.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        worker = threading.Thread(target=serve, args=(server,), daemon=True)
        worker.start()
        yield server.getsockname()[1], heard


def ask(port, seconds=30.0):
    return sendtargets.offered("127.0.0.1", port, "iqn.2026-01.a:me", seconds)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([*IN, answer(TEXT, 0x80, ONE)], {"iqn.2026-01.a:one": ADDRESSES}),
        ([*IN, answer(TEXT, 0x80)], {}),
        (
            [*IN, answer(TEXT, 0x40, ONE, tag=5), answer(TEXT, 0x80, TWO)],
            {"iqn.2026-01.a:one": ADDRESSES, "iqn.2026-01.a:two": ["192.0.2.1:3260"]},
        ),
        ([IN[0], IN[1], answer(NOP, 0x80, b"x") + answer(TEXT, 0x80, ONE)], {"iqn.2026-01.a:one": ADDRESSES}),
        ([*IN, answer(TEXT, 0x80, ONE, extra=b"abcd")], {"iqn.2026-01.a:one": ADDRESSES}),
        ([answer(LOGIN, 0x87), answer(TEXT, 0x80, ONE)], {"iqn.2026-01.a:one": ADDRESSES}),
        ([answer(LOGIN, 0x00, status=2)], None),
        ([IN[0], answer(LOGIN, 0x00, status=1)], None),
        ([b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and more of it than a header has\r\n"], None),
        ([answer(LOGIN, 0x87)[:20]], None),
        ([], None),
        ([*IN, answer(0x3F, 0x80)], None),
        ([struct.pack(">BBHI", LOGIN, 0x87, 0, 0xFFFFFF).ljust(48, b"\0")], None),
    ],
)
def test_what_a_portal_says(answers, found):
    with portal(*answers) as (port, dummy):
        assert ask(port) == found


def test_what_is_said_to_it():
    with portal(*IN, answer(TEXT, 0x40, ONE, tag=5), answer(TEXT, 0x80, TWO)) as (port, heard):
        ask(port)
    first, second, text, more = heard
    assert b"InitiatorName=iqn.2026-01.a:me\0" in first
    assert b"SessionType=Discovery\0" in first
    assert [pdu[1] for pdu in (first, second)] == [0x81, 0x87]
    assert first[8:14] == second[8:14], "one session"
    assert second[28:32] == struct.pack(">I", 8), "it has seen answer 7"
    assert b"SendTargets=All\0" in text
    assert more[20:24] == struct.pack(">I", 5), "it goes on where the target stopped"
    assert all(len(pdu) % 4 == 0 for pdu in heard)


@pytest.mark.parametrize("answers", [[], IN[:1], IN, [IN[0], IN[1][:30]]])
def test_a_portal_that_falls_silent(answers):
    with portal(*answers, silent=True) as (port, dummy):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(port, 0.3)
        assert time.monotonic() - began < 30


def test_a_closed_port_has_no_list():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ask(port) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("## a comment\nInitiatorName=iqn.1993-08.org.debian:01:abc\n", "iqn.1993-08.org.debian:01:abc"),
        ("#InitiatorName=iqn.2026-01.a:no\n", None),
        ("InitiatorName=\n", None),
        ("", None),
    ],
)
def test_the_name_of_the_host(tmp_path, text, name):
    file = tmp_path / "initiatorname.iscsi"
    file.write_text(text)
    assert sendtargets.initiator_of_host(str(file)) == name
    assert sendtargets.initiator_of_host(str(tmp_path / "nothing")) is None
