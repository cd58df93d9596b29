#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_zfs
short_description: Manages a libvirt storage pool of ZFS volumes
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(zfs), whose volumes are the zvols of a ZFS pool or of
    a dataset in one.
  - The ZFS pool or dataset itself is made only when O(build) asks for it. libvirt makes it without redundancy or
    properties. For those make it beforehand.
  - A zpool or dataset that is not there is refused when the pool is to start. libvirt would show it as running, with a
    capacity of 0 bytes or that of the whole zpool.
requirements:
  - libvirt's storage driver for this type on the host, in Debian the package libvirt-daemon-driver-storage-zfs
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.permissions
options:
  source_name:
    description:
      - Name of the ZFS pool, or of a dataset such as V(tank/vms). Needed to make the pool.
    type: str
  devices:
    description:
      - The devices from which O(build) makes the ZFS pool.
    type: list
    elements: path
  build:
    description:
      - Whether the ZFS pool or the dataset is made.
      - With V(never) the one that is there is used.
      - With V(if_blank) it is made where none has the name and nothing known stands on O(devices), of which a zpool
        needs at least one. A dataset needs none.
    type: str
    choices:
      - never
      - if_blank
    default: never
  delete_data:
    description:
      - Whether O(state=absent) also destroys the ZFS pool or dataset, and all volumes with it. There is no way back.
      - Refused while any defined domain uses one of the volumes, or this host has one mounted, open or below another
        device.
      - Refused while there is anything else in the ZFS pool or dataset, such as file systems, snapshots, zvols of
        datasets below it, and files in its own file system.
    type: bool
    default: false
seealso:
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#zfs-pool
"""

EXAMPLES = r"""
---
- name: Make a ZFS pool of two disks and give its volumes to guests
  kvm.storage.pool_zfs:
    name: tank
    source_name: tank
    devices:
      - /dev/vdb
      - /dev/vdc
    build: if_blank
    autostart: true

- name: Use a dataset of it for the guests of one project
  kvm.storage.pool_zfs:
    name: project
    source_name: tank/project
    build: if_blank

- name: Leave the pool stopped, also after a reboot
  kvm.storage.pool_zfs:
    name: tank
    state: inactive
    autostart: false

- name: Remove the pool of the project and destroy its dataset
  kvm.storage.pool_zfs:
    name: project
    state: absent
    delete_data: true

- name: Remove the pool and keep the ZFS pool
  kvm.storage.pool_zfs:
    name: tank
    state: absent
"""

RETURN = r"""
---
actions:
  description:
    - The steps that were carried out, in order. In check mode those that would be.
  returned: always
  type: list
  elements: str
  sample: [define, start, set_autostart]
code:
  description:
    - One word for what went wrong, which stays the same between releases, such as V(in_use) or V(source_conflict).
  returned: failure
  type: str
  sample: in_use
diff:
  description:
    - The options that differ, in the words of this documentation, and the plan as a last line. No XML.
  returned: when something differs and C(--diff) asks for it
  type: list
  elements: dict
plan:
  description:
    - How many things there are to C(create), to C(update), to C(delete), C(unchanged), C(failed) and C(skipped), and
      the same as one line in C(summary).
  returned: when the pool could be looked at
  type: dict
  sample:
    create: 1
    update: 0
    delete: 0
    unchanged: 0
    failed: 0
    skipped: 0
    summary: "plan: 1 to create, 0 to update, 0 to delete, 0 unchanged"
restart_needed:
  description:
    - Whether a change waits for the pool to restart.
  returned: when the pool could be looked at
  type: bool
  sample: false
type:
  description:
    - The type of the pool, as libvirt calls it.
  returned: when the pool could be looked at
  type: str
  sample: zfs
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.zfs import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
