# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of block devices, from what the kernel, wipefs and libvirt say."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import block, chain, commands, device
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

NODE = "/dev/vdx"


def told(signatures: Any = (), status: int = 0) -> commands.Finished:
    said = json.dumps({"signatures": [{"device": NODE, "type": one} for one in signatures]}) if signatures else ""
    return commands.Finished(status, said, "wipefs: error: vdx: I/O error" if status else "")


@pytest.fixture
def there() -> Any:
    """A device with a partition that is there, holds nothing and is used by nobody, unless a test says so."""
    folders = [f"/sys/class/block/{name}" for name in ("vdx", "vdx1")]
    with (
        mock.patch.object(block, "number_of", lambda path: "252:80" if path == NODE else ""),
        mock.patch.object(block, "folders", lambda path: folders[:1]) as parts,
        mock.patch.object(block, "read", lambda path: "8" if path.endswith("/size") else ""),
        mock.patch.object(block, "staying_users", return_value=[]) as users,
        mock.patch.object(block, "openers", lambda nodes: {node: [] for node in nodes}),
        mock.patch.object(block, "claimed", return_value=False) as claimed,
        mock.patch.object(commands, "run", return_value=told()) as wipefs,
        mock.patch.object(device, "ids", lambda: {NODE: ["/dev/disk/by-id/a"]}),
    ):
        yield {"users": users, "claimed": claimed, "wipefs": wipefs, "parts": parts}


def one(**more: Any) -> dict[str, Any]:
    (found,) = device.device_info(None, {"devices": [NODE], **more})["devices"]
    return found


def test_a_blank_device(there: Any) -> None:
    found = one()
    assert (found["blank"], found["size"], found["ids"]) == (True, 4096, ["/dev/disk/by-id/a"])
    assert (found["holds"], found["users"], found["partitions"]) == ([], [], [])


def test_one_that_is_not_there(there: Any) -> None:
    (found,) = device.device_info(None, {"devices": ["/dev/nowhere"]})["devices"]
    assert (found["exists"], found["blank"], found["size"]) == (False, False, None)


def test_what_it_holds(there: Any) -> None:
    there["wipefs"].return_value = told(["gpt", "PMBR", "gpt"])
    assert (one()["holds"], one()["blank"]) == (["PMBR", "gpt"], False)


def test_who_has_it(there: Any) -> None:
    there["users"].return_value = ["mounted on /srv"]
    assert (one()["users"], one()["blank"]) == (["mounted on /srv"], False)


def test_who_does_not_show_himself(there: Any) -> None:
    there["claimed"].return_value = True
    assert "another namespace" in one()["users"][0]


def test_a_disk_of_a_guest(there: Any) -> None:
    uses = [chain.Use("web01", False, path=os.path.realpath(NODE))]
    with mock.patch.object(chain, "uses", return_value=uses):
        found = device.device_info(object(), {"devices": [NODE]})
    assert found["guests_seen"] is True
    assert found["devices"][0]["users"] == ["a disk of 'web01' (defined)"]
    assert found["devices"][0]["blank"] is False


class Pools:
    """A connection that has one pool with one volume that is listed, and no device behind any of its names."""

    def __init__(self) -> None:
        self.xml = "<pool type='logical'><target><path>/dev/gone</path></target></pool>"

    def pool(self, name: str) -> Any:
        return mock.Mock(XMLDesc=lambda flags: self.xml) if name == "vms" else None

    def volumes(self, pool: str) -> dict[str, Any]:
        return {"listed": mock.Mock(path=lambda: "/dev/gone/elsewhere")} if pool == "vms" else {}


@pytest.mark.parametrize(
    ("use", "asked"),
    [
        pytest.param({"path": "/dev/gone/web"}, "/dev/gone/web", id="by its path"),
        pytest.param({"path": "/dev/mapper/gone-web"}, "/dev/gone/web", id="by its name for device-mapper"),
        pytest.param({"path": "/dev/gone-1/a-b"}, "/dev/mapper/gone--1-a--b", id="with hyphens"),
        pytest.param({"pool": "vms", "volume": "web"}, "/dev/gone/web", id="by pool and volume"),
        pytest.param({"pool": "vms", "volume": "listed"}, "/dev/gone/elsewhere", id="by a volume that libvirt lists"),
    ],
)
def test_a_disk_of_a_guest_that_is_not_active(use: dict[str, str], asked: str) -> None:
    uses = [chain.Use("web01", False, **use)]
    with mock.patch.object(chain, "uses", return_value=uses), mock.patch.object(device, "ids", dict):
        (found,) = device.device_info(Pools(), {"devices": [asked]})["devices"]
    assert (found["exists"], found["users"]) == (False, ["a disk of 'web01' (defined)"])


@pytest.mark.parametrize(
    "use", [{"path": "/dev/gone/web2"}, {"pool": "other", "volume": "web"}, {"network": "rbd:gone/web"}]
)
def test_a_disk_of_a_guest_that_is_another_one(use: dict[str, str]) -> None:
    uses = [chain.Use("web01", False, **use)]
    with mock.patch.object(chain, "uses", return_value=uses), mock.patch.object(device, "ids", dict):
        (found,) = device.device_info(Pools(), {"devices": ["/dev/gone/web"]})["devices"]
    assert found["users"] == []


def test_what_can_not_be_read_is_not_blank(there: Any) -> None:
    there["wipefs"].return_value = told(status=1)
    with pytest.raises(StorageError, match="what it holds can't be read"):
        one()
    there["wipefs"].side_effect = FileNotFoundError
    with pytest.raises(StorageError, match="util-linux"):
        one()
