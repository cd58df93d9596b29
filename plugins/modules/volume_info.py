#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_info
short_description: Tell what volumes the pools of a host have
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Returns every volume of a pool, or of all active pools, in one call, with its backing chain, its overlays and the
    domains that use it.
  - Symbolic links, hard links, folders and special files in a pool are no volumes. They are listed in RV(not_volumes).
  - What libvirt does not list of an LVM volume group is told of as well, where LVM's C(lvs) can be run on the host.
    That is volumes in thin pools and those that are not active.
  - The backing chain is read from headers and never followed by a tool that opens what they name.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
  - kvm.storage.connection
options:
  pool:
    description: The pool. All active pools unless given.
    type: str
  names:
    description: The volumes to tell of. All of them unless given.
    type: list
    elements: str
  users:
    description: Whether the domains that use each volume are looked up.
    type: bool
    default: true
  refresh:
    description: Whether libvirt looks at the pool anew first, so that files made beside it are seen.
    type: bool
    default: false
  chain_info:
    description:
      - Whether the whole chain below each volume is told, member by member, with what is wrong with it.
      - Headers are read, and never followed to what lies outside of all pools. C(rbd info) tells it of RBD images.
    type: bool
    default: false
  max_depth:
    description: On how many others, one after the other, a volume may stand before O(chain_info) warns of it.
    type: int
    default: 16
"""

EXAMPLES = r"""
- name: Look at every volume of a pool
  kvm.storage.volume_info:
    pool: images
  register: images

- name: Name those that no domain uses and that nothing stands on
  ansible.builtin.debug:
    msg: >-
      {{ images.volumes | selectattr('users', 'equalto', []) | selectattr('overlays', 'equalto', [])
      | map(attribute='name') }}

- name: Look at the chains of a pool
  kvm.storage.volume_info:
    pool: images
    chain_info: true
    max_depth: 4
  register: chains

- name: Name what should be flattened or mended
  ansible.builtin.debug:
    msg: "{{ chains.volumes | selectattr('warnings') | map(attribute='name') }}"
"""

RETURN = r"""
volumes:
  description: One entry a volume, in order of pool and name.
  returned: success
  type: list
  elements: dict
  contains:
    pool:
      description: Its pool.
      type: str
    name:
      description: Its name.
      type: str
    path:
      description: Its path, or its name in a network pool.
      type: str
    key:
      description: The key that libvirt gives it.
      type: str
    type:
      description: C(file), C(block), C(network) or C(dir).
      type: str
    capacity:
      description: The size that a guest sees, in bytes, with a readable form beside it.
      type: int
    allocation:
      description:
        - The space that it takes, in bytes, with a readable form beside it.
        - Null for a volume in an LVM thin pool that is not active.
      type: int
    format:
      description: Its format.
      type: str
    format_source:
      description: Who says so. C(domain) or C(backend) are declarations, C(probed) is its header alone.
      type: str
    header_format:
      description: What its header says, read anew. Null where it can't be read.
      type: str
    backing_chain:
      description: The files below it with their formats, nearest first.
      type: list
      elements: dict
    chain:
      description: The volume and all that it stands on, from the top down.
      returned: with O(chain_info)
      type: list
      elements: dict
      contains:
        path:
          description: Its path, or of an RBD image what C(rbd) calls it, as C(pool/image@snapshot).
          type: str
        pool:
          description: The pool that it lies in. Null where it lies in none.
          type: str
        volume:
          description: Its name there.
          type: str
        format:
          description: Its format. For the volume itself that of the volume, below it as it is recorded.
          type: str
        recorded_format:
          description: The format that the member above records for it. Null where there is none.
          type: str
        capacity:
          description: The size that a guest would see, in bytes, with a readable form beside it. Null if unknown.
          type: int
        allocation:
          description: The space that it takes, in bytes, with a readable form beside it. Null if unknown.
          type: int
    depth:
      description: On how many others, one after the other, it stands.
      returned: with O(chain_info)
      type: int
    warnings:
      description:
        - What is wrong with its chain. It is deeper than O(max_depth), a format is not recorded or is not that of the
          header, or a member lies in no pool, can't be read or stands on itself.
      returned: with O(chain_info)
      type: list
      elements: str
    overlays:
      description: The volumes that stand directly on it, among those returned.
      type: list
      elements: str
    thin_pool:
      description: The LVM thin pool that it is in. Null for any other volume.
      type: str
    users:
      description: The domains that use it, and whether each is running.
      type: list
      elements: dict
    encrypted:
      description: Whether it is a LUKS volume.
      type: bool
    immutable:
      description: Whether it is protected from writing and removal.
      type: bool
    permissions:
      description: Mode, owner, group and label.
      type: dict
    options:
      description: The other options of M(kvm.storage.volume), as they are.
      type: dict
    unreadable:
      description: libvirt's words when it can't tell anything of the volume. Other keys are missing then.
      type: str
not_volumes:
  description: What stands in a pool and is no volume, as pool and name.
  returned: success
  type: list
  elements: dict
"""

from ansible_collections.kvm.storage.plugins.module_utils.info import run, volume_info, volume_info_spec


def main() -> None:
    run(volume_info_spec(), volume_info)


if __name__ == "__main__":
    main()
