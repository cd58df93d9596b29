#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_disk
short_description: Manages a libvirt storage pool of the partitions of a disk
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(disk), whose volumes are the partitions of one whole
    disk.
  - The partition table itself is made only when O(build) asks for it.
  - A new volume is the next partition and has its name, such as C(vdb1). A partition can't be grown.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.permissions
  - kvm.storage.pool.vendor
options:
  device:
    description:
      - The disk. Needed to make the pool.
      - Names that lead to the same node, such as those below C(/dev/disk/by-id), are the same device.
    type: path
  path:
    description:
      - The directory below which libvirt names the partitions. A new pool has C(/dev) when this is not given.
    type: path
  part_separator:
    description:
      - Whether the names of the partitions of a device mapper device have a C(p) before the number.
    type: bool
  source_format:
    description:
      - The kind of partition table. libvirt takes V(dos) for a new pool when it is not told otherwise.
      - Of a table of another kind than this a pool does not start.
    type: str
    choices:
      - unknown
      - dos
      - dvh
      - gpt
      - mac
      - bsd
      - pc98
      - sun
      - lvm2
  build:
    description:
      - Whether a partition table is made on O(device).
      - With V(never) the one that is there is used.
      - With V(if_blank) one is made where libblkid finds no signature on the disk. No signature does not mean no
        data.
      - With V(overwrite) one is made whatever is there, once, when the pool is not defined yet. What the disk holds
        is lost.
    type: str
    choices:
      - never
      - if_blank
      - overwrite
    default: never
  delete_data:
    description:
      - Whether O(state=absent) also destroys the partition table, and all volumes with it. There is no way back.
      - Refused while any defined domain uses one of the volumes, or this host has one mounted, open or below another
        device.
    type: bool
    default: false
seealso:
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#disk-pool
"""

EXAMPLES = r"""
---
- name: Make a partition table on a blank disk and give its partitions to guests
  kvm.storage.pool_disk:
    name: disk2
    device: /dev/vdb
    source_format: gpt
    build: if_blank
    autostart: true

- name: Note which drive it is
  kvm.storage.pool_disk:
    name: disk2
    vendor: Example
    product: SSD 4000
    restart: true

- name: Leave the pool stopped, also after a reboot
  kvm.storage.pool_disk:
    name: disk2
    state: inactive
    autostart: false

- name: Remove the pool and destroy the partition table
  kvm.storage.pool_disk:
    name: disk2
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
  sample: disk
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.disk import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
