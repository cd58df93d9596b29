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
  xml:
    description: Whether libvirt's XML is returned as well.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at all pools
  kvm.storage.pool_info:
  register: storage

- name: Refuse to go on with a full pool
  ansible.builtin.assert:
    that: storage.pools | selectattr('state', 'equalto', 'active') | selectattr('available', 'lt', 1) | length == 0
"""

RETURN = r"""
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
