# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From host to host: iSCSI on both portals of the storage server, Ceph with cephx, Gluster; one short life each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.integration.helpers import Host
from tests.lab.scenarios.served import STORAGE, facts, login, on

UP = {"wait_timeout": 90}  # the first start loads modules and starts services


def iscsi(portal: int, target: str) -> dict[str, Any]:
    served = facts()["iscsi"]
    hosts = [{"name": served["portals"][portal]}]
    return {"name": "luns", "hosts": hosts, "target_iqn": served[target], "path": "/dev/disk/by-path", **UP}


def sessions() -> list[str]:
    """The targets that this host is logged in to."""
    folder = Path("/sys/class/iscsi_session")
    return sorted((one / "targetname").read_text(encoding="ascii").strip() for one in folder.glob("session*"))


def test_iscsi(host: Host) -> None:
    pool = iscsi(0, "open")
    before = host.state()
    host.converge("pool_iscsi", ["define", "start"], **pool)
    volumes = host.volumes("luns")
    assert len(volumes) == 2, volumes
    assert sessions() == [pool["target_iqn"]]
    for wwn in facts()["iscsi"]["wwns"]:
        assert os.path.exists(f"/dev/disk/by-id/wwn-0x{wwn}"), "each LUN has a serial of its own"
    assert int(host.volume("luns", volumes[0]).findtext("capacity")) == 256 << 20
    host.converge("pool_iscsi", ["stop", "undefine"], name="luns", state="absent")
    assert sessions() == []
    assert host.state() == before


def test_iscsi_with_chap_on_the_other_portal(host: Host) -> None:
    chap = login("chap")
    pool = iscsi(1, "chap")
    pool["auth"] = {"username": chap["username"], "secret_usage": "lab-chap"}
    host.ok("secret", usage="iscsi", usage_name="lab-chap", value=chap["password"])
    host.converge("pool_iscsi", ["define", "start"], **pool)
    assert len(host.volumes("luns")) == 1
    host.converge("pool_iscsi", ["stop", "undefine"], name="luns", state="absent")
    assert sessions() == []


def test_ceph(host: Host, tmp_path: Path) -> None:
    served = facts()["ceph"]
    keyring = tmp_path / "keyring"
    keyring.touch(mode=0o600)
    keyring.write_text(on(STORAGE, "cat /etc/kvm-lab/ceph.keyring"), encoding="utf-8")
    entity = f"client.{served['user']}"
    before = host.state()
    host.ok("secret", usage="ceph", usage_name="lab-ceph", keyring_file=str(keyring), keyring_entity=entity)
    pool = {
        "name": "images",
        "source_name": served["pool"],
        "hosts": [{"name": name, "port": served["port"]} for name in served["monitors"]],
        "auth": {"username": served["user"], "secret_usage": "lab-ceph"},
        **UP,
    }
    host.converge("pool_rbd", ["define", "start"], **pool)
    assert host.ok("pool_info", names=["images"])["pools"][0]["capacity"] > 0
    disk = {"pool": "images", "name": "disk"}
    host.converge("volume", ["create"], capacity="8MiB", **disk)
    host.converge("volume", ["resize"], capacity="16MiB", **disk)
    host.converge("volume", ["protect"], immutable=True, **disk)
    host.refused("volume", "immutable", state="absent", **disk)
    host.converge("volume", ["release", "delete"], state="absent", immutable=False, **disk)
    host.converge("pool_rbd", ["stop", "undefine"], name="images", state="absent")
    host.ok("secret", usage="ceph", usage_name="lab-ceph", state="absent")
    assert host.state() == before


def test_gluster(host: Host) -> None:
    share = {"hosts": [{"name": facts()["address"]}], "source_path": facts()["gluster"]["volume"]}
    pool = {"name": "shared", "path": "/srv/lab/gluster", "source_format": "glusterfs", **share, **UP}
    done = host.ok("pool_netfs", **pool)
    assert done["actions"][-1] == "start"
    host.unchanged("pool_netfs", **pool)
    disk = {"pool": "shared", "name": "disk.qcow2", "format": "qcow2"}
    host.ok("volume", capacity="8MiB", **disk)
    host.converge("volume", ["resize"], capacity="16MiB", **disk)
    host.ok("volume", state="absent", **disk)
    host.converge("pool_netfs", ["stop", "undefine"], name="shared", state="absent")
    assert not os.path.ismount(pool["path"])
