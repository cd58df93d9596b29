# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the words of mount and of libvirt mean on a network share, and servers whose port libvirt fills in."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.storage.plugins.module_utils.backends import netfs, shared

NFS = {"hosts": [{"name": "nas"}], "source_path": "/export", "source_format": "nfs"}
CIFS = {"hosts": [{"name": "nas"}], "source_path": "images", "source_format": "cifs"}
PROTOCOL = "mount.nfs: requested NFS version or transport protocol is not supported for /mnt"
OPTION = "mount.nfs: an incorrect mount option was specified for /mnt"


@pytest.mark.parametrize(
    ("words", "options", "meaning"),
    [
        (PROTOCOL, {**NFS, "protocol_version": "3"}, "does not speak NFS 3"),
        (PROTOCOL, NFS, "NFS as asked for in mount_options"),
        (OPTION, {**NFS, "mount_options": ["wrong"]}, "as wrong:"),
        (OPTION, {**NFS, "protocol_version": "4.7"}, "as protocol_version 4.7:"),
        ("mount.nfs: access denied by server while mounting", NFS, "exports and permissions"),
        ("mount error(13): Permission denied", CIFS, "pool_dir"),
        ("mount.nfs: Permission denied", NFS, "exports and permissions"),
        ("failed, reason given by server: No such file or directory", NFS, "or not for this host"),
        ("something else", NFS, ""),
    ],
)
def test_why_a_share_is_not_mounted(words: str, options: dict[str, Any], meaning: str) -> None:
    hint = netfs.start_hint(words, options)
    assert meaning in hint
    assert bool(meaning) is bool(hint)


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("Failed to create file '/mnt/x': Permission denied", "root_squash"),
        ("Failed to create file '/mnt/x': Operation not permitted", "root_squash"),
        ("Failed to create file '/mnt/x': File exists", "root_squash"),
        ("Could not create '/mnt/x': Read-only file system", "for writing"),
        ("No space left on device", ""),
    ],
)
def test_what_to_do_about_a_volume(words: str, meaning: str) -> None:
    found = netfs.way_out(words, NFS)
    assert meaning in found
    assert bool(meaning) is bool(found)


@pytest.mark.parametrize(
    ("have", "usual_port", "same"),
    [
        ([{"name": "nas", "port": 3260}], 3260, True),
        ([{"name": "nas"}], 3260, True),
        ([{"name": "nas", "port": 3261}], 3260, False),
        ([{"name": "nas", "port": 3260}], None, False),
        ([{"name": "other", "port": 3260}], 3260, False),
    ],
)
def test_a_port_that_libvirt_fills_in_is_no_change(have: list[Any], usual_port: int | None, same: bool) -> None:
    assert shared.hosts(usual_port=usual_port).same(have, [{"name": "nas"}]) is same
