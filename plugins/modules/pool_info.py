#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_info
short_description: Tell what storage pools a host has
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Returns every pool with its options, its state, its space, and how much its volumes promise to guests.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
  - kvm.storage.connection
options:
  names:
    description: The pools to tell of. All of them unless given.
    type: list
    elements: str
  identity:
    description:
      - Whether RV(pools[].identity) is looked up, by which hosts that share a pool can be compared.
      - It takes a command of the backend for each pool of LVM, ZFS and Ceph.
    type: bool
    default: false
  xml:
    description: Whether libvirt's XML is returned as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at all pools
  kvm.storage.pool_info:
  register: storage

- name: See whether all hosts have the same storage under a name
  kvm.storage.pool_info:
    names: [images]
    identity: true
  register: shared

- name: Refuse to go on with a full pool
  ansible.builtin.assert:
    that: storage.pools | selectattr('state', 'equalto', 'active') | selectattr('available', 'lt', 1) | length == 0
"""

RETURN = r"""
lock_manager:
  description:
    - What keeps guests of two hosts from using one disk, as F(/etc/libvirt/qemu.conf) has it, such as C(lockd).
    - Null for nothing.
  returned: O(identity=true)
  type: str
pools:
  description:
    - One entry a pool, in order of name. Sizes are bytes, each with a readable form; of an inactive pool they are
      null.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    type:
      description: Its type as libvirt names it.
      type: str
      sample: dir
    uuid:
      description: Its UUID.
      type: str
    state:
      description: C(active) or C(inactive).
      type: str
    autostart:
      description: Whether it starts with libvirt.
      type: bool
    persistent:
      description: Whether it outlives its being stopped.
      type: bool
    options:
      description: The options of its own module, as they are.
      type: dict
    restart_needed:
      description: The options whose running value is not the persistent one.
      type: list
      elements: str
    capacity:
      description: The whole space.
      type: int
    allocation:
      description: The space that is taken.
      type: int
    available:
      description: The space that is left.
      type: int
    provisioned:
      description: The sum of what its volumes promise to guests.
      type: int
    overcommit:
      description: RV(pools[].provisioned) as a part of RV(pools[].capacity).
      type: float
    volumes:
      description: How many volumes it has, those in LVM thin pools included.
      type: int
    identity:
      description:
        - What storage it stands on. The words are the same on every host that has it, and on no other.
        - The UUID of a volume group, the GUID of a zpool, the fsid of a Ceph cluster, the WWIDs of LUNs, the name of a
          target that QEMU itself speaks to, the number that an NFS server gives its file system, the bricks of a
          Gluster volume. A file system of this host is no other's.
      returned: O(identity=true)
      type: str
      sample: Ceph cluster 5b1a7c1e-4f6f-4d3b-9b62-2f2d1c9b8a77, pool vms
    identity_unknown:
      description: Why RV(pools[].identity) is null. Null when it is not.
      returned: O(identity=true)
      type: str
    unreachable:
      description:
        - Where the server of its mounted share should answer and does not, such as C(nfs1.example.com:2049); its space
          and volumes are null then. Null when all is well.
      type: str
    thin_pools:
      description: The LVM thin pools of a C(logical) pool's volume group. Empty for any other.
      type: list
      elements: dict
      contains:
        name:
          description: Its name.
          type: str
        capacity:
          description: Its size, in bytes, with a readable form beside it.
          type: int
        allocation:
          description: What its volumes take of that.
          type: int
        provisioned:
          description: The sum of what its volumes promise to guests.
          type: int
        trouble:
          description: Why it takes no new volume, such as C(its data is full). Null when all is well.
          type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.info import pool_info, pool_info_spec, run


def main() -> None:
    run(pool_info_spec(), pool_info)


if __name__ == "__main__":
    main()
