#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_snapshot_info
short_description: Tell what snapshots a volume has
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Returns the snapshots of a volume that M(kvm.storage.volume_snapshot) knows, the oldest first.
  - Files beside a volume are told of only where they carry the mark of a snapshot, and LVM snapshots only where they
    were taken by that module.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
  - kvm.storage.connection
  - kvm.storage.volume
options:
  name:
    description: The volume.
  format:
    description:
      - The format of the volume. It must be declared in a pool of files, here or by the domain that has it as its disk.
seealso:
  - module: kvm.storage.volume_snapshot
"""

EXAMPLES = r"""
- name: Look at the snapshots of a disk
  kvm.storage.volume_snapshot_info:
    pool: images
    name: debian-13.qcow2
    format: qcow2
  register: disk

- name: Name those that nothing stands on
  ansible.builtin.debug:
    msg: "{{ disk.snapshots | selectattr('children', 'equalto', []) | map(attribute='name') }}"
"""

RETURN = r"""
snapshots:
  description: One entry a snapshot, the oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    kind:
      description: C(internal), C(external), C(native), C(reflink) or C(subvolume).
      type: str
    time:
      description: When it was taken, in UTC. Null where that was not written down.
      type: str
    size:
      description: The size that a guest saw, in bytes, with a readable form beside it. Null where it is not known.
      type: int
    children:
      description: What stands on it, such as clones and overlays.
      type: list
      elements: str
    path:
      description: The file that holds it. Null where it is none.
      type: str
    trouble:
      description: Why it can't be reverted to. Null when all is well.
      type: str
unfinished:
  description: Files that a killed run has left, which the next run of M(kvm.storage.volume_snapshot) ends.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.volume_snapshot import run_info


def main() -> None:
    run_info()


if __name__ == "__main__":
    main()
