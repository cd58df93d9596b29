#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_logical
short_description: Manages a libvirt storage pool of LVM logical volumes
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(logical), whose volumes are the logical volumes of an
    LVM volume group.
  - The volume group itself is made only when O(build) asks for it. Devices are not added to one that is there.
  - libvirt does not list thin volumes. M(kvm.storage.volume) manages them by its option C(thin_pool).
  - A volume is grown by C(lvextend), which the host needs for it.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.permissions
  - kvm.storage.pool.vendor
options:
  source_name:
    description:
      - Name of the volume group. Needed to make the pool.
    type: str
  devices:
    description:
      - The devices of the volume group, from which O(build) makes it.
      - Where they are given, libvirt compares them with those that the volume group has when the pool starts, and one
        at least must be among them. It is told LVM's own names, so give those that stay, such as
        C(/dev/disk/by-id/...).
    type: list
    elements: path
  source_format:
    description:
      - The kind of volume group. libvirt takes V(lvm2) or V(unknown) for the same.
    type: str
    choices:
      - unknown
      - lvm2
  build:
    description:
      - Whether a volume group is made of O(devices).
      - With V(never) the one that is there is used.
      - With V(if_blank) one is made where libblkid finds no signature on any of the devices. No signature does not
        mean no data.
      - With V(overwrite) one is made whatever is there, once, when the pool is not defined yet. What the devices hold
        is lost.
    type: str
    choices:
      - never
      - if_blank
      - overwrite
    default: never
  delete_data:
    description:
      - Whether O(state=absent) also destroys the volume group, and all volumes with it. There is no way back.
      - Refused while any defined domain or the host itself uses one of the volumes, and while the volume group holds a
        thin pool or other volumes that libvirt does not list.
    type: bool
    default: false
seealso:
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#logical-volume-pool
"""

EXAMPLES = r"""
---
- name: Use a volume group that is there
  kvm.storage.pool_logical:
    name: guests
    source_name: vg_guests
    autostart: true

- name: Stop the pool
  kvm.storage.pool_logical:
    name: guests
    state: inactive

- name: Start it again, and note what it is made of
  kvm.storage.pool_logical:
    name: guests
    vendor: Example
    product: SSD 4000

- name: Remove the pool and keep the volume group
  kvm.storage.pool_logical:
    name: guests
    state: absent

- name: Make a volume group of two blank disks
  kvm.storage.pool_logical:
    name: fast
    source_name: vg_fast
    devices:
      - /dev/vdb
      - /dev/vdc
    build: if_blank

- name: Remove the pool and destroy the volume group
  kvm.storage.pool_logical:
    name: fast
    state: absent
    delete_data: true
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
  sample: logical
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.logical import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
