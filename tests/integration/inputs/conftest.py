# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with something on it, and the proof that an input is refused there and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.integration.helpers import Host, connected, mutable, printed_by
from tests.servers.libvirtd import Libvirtd

from .generated import Bad

KEY = "AQBAAAAAAAAAABAAQUFBQUFBQUFBQUFBQUFBQQ=="


class Site:
    """Two pools, of which one is inactive, a disk, a base with its overlay, and a secret."""

    def __init__(self, hypervisor: Libvirtd, root: Path) -> None:
        self.hypervisor, self.root = hypervisor, root
        self.host = Host(hypervisor.uri, root)
        base = {"pool": "images", "name": "base.qcow2", "format": "qcow2", "capacity": "8MiB"}
        overlay = {"pool": "images", "name": "over.qcow2", "backing": {"volume": "base.qcow2", "format": "qcow2"}}
        self.host.ok(
            "layout",
            secrets=[{"usage": "ceph", "usage_name": "client.vms", "value": KEY}],
            pools=[
                {"type": "dir", "name": "images", "path": f"{root}/images"},
                {"type": "dir", "name": "stopped", "path": f"{root}/stopped", "state": "inactive"},
            ],
            volumes=[{"pool": "images", "name": "disk.raw", "format": "raw", "capacity": "8MiB"}, base, overlay],
        )

    def state(self) -> dict[str, Any]:
        with connected(self.hypervisor.uri) as conn:
            values = {one.UUIDString(): value_of(one) for one in conn.listAllSecrets()}
        return {**self.host.state(), "values": values}

    def refuses(self, bad: Bad) -> str:
        """One error, with its code, that names the item and the way out; no traceback, and nothing changed."""
        before = self.state()
        message = ""
        for check in (True, False):
            printed = printed_by(bad.module, {"uri": self.hypervisor.uri, **bad.args}, check=check)
            result = json.loads(printed)
            result.pop("invocation", None)
            assert result.get("failed"), f"{bad}: {result}"
            message = result["msg"]
            assert result.get("code") == bad.code, f"{bad}: {message}"
            assert not result.get("changed") and not result.get("actions"), f"{bad}: {result}"
            assert "Traceback" not in printed and "exception" not in result, f"{bad}: {result}"
            assert message.strip() and ("\n" not in message or message.startswith("layout: 2 items")), (
                f"{bad}: {message!r}"
            )
            for word in bad.words:
                assert word in message, f"{bad}: {word!r} is not in {message!r}"
            for word in bad.never:
                assert word not in printed, f"{bad}: {printed}"
            if not bad.by_spec:
                what, _colon, rest = message.partition(": ")
                reason, _semicolon, way_out = rest.rpartition("; ")
                assert what and reason and way_out, f"{bad}: no item, reason and way out in {message!r}"
        assert self.state() == before, f"{bad}: the host is not as it was"
        return message


def value_of(secret: libvirt.virSecret) -> bytes:
    try:
        return bytes(secret.value())
    except libvirt.libvirtError as error:
        return str(error.get_error_code()).encode()


@pytest.fixture
def site(fresh_hypervisor: Libvirtd, scratch: Path) -> Iterator[Site]:
    yield Site(fresh_hypervisor, scratch)
    mutable(scratch)
