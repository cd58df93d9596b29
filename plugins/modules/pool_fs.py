#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_fs
short_description: Manages a libvirt storage pool on a device's file system
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(fs). libvirt mounts the file system of a device when
    the pool starts and unmounts it when the pool stops. Volumes are the files on it.
  - The file system itself is made only when O(build) asks for it.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.directory
  - kvm.storage.pool.permissions
  - kvm.storage.pool.cow
  - kvm.storage.pool.mount_options
  - kvm.storage.pool.vendor
options:
  path:
    description:
      - The mount point. Needed to make the pool. It is made where it is missing.
    type: path
  device:
    description:
      - The device with the file system. Needed to make the pool.
      - Names that lead to the same node, such as those below C(/dev/disk/by-id), are the same device.
    type: path
  source_format:
    description:
      - The kind of file system. libvirt takes V(auto) when it is not told otherwise.
      - btrfs is not among the choices. With V(auto) one that is there is mounted.
      - Needed when O(build) makes a file system.
    type: str
    choices:
      - auto
      - ext2
      - ext3
      - ext4
      - ufs
      - iso9660
      - udf
      - gfs
      - gfs2
      - vfat
      - hfs+
      - xfs
      - ocfs2
      - vmfs
  build:
    description:
      - Whether a file system is made on O(device).
      - With V(never) the one that is there is used.
      - With V(if_blank) one is made where libblkid finds no signature on the device. No signature does not mean no
        data.
      - With V(overwrite) one is made whatever is there, once, when the pool is not defined yet. What the device holds
        is lost.
    type: str
    choices:
      - never
      - if_blank
      - overwrite
    default: never
  delete_data:
    description:
      - Whether O(state=absent) also deletes every volume and then the mount point. There is no way back.
      - Refused while any defined domain uses one of the volumes. The file system on the device stays.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_dir
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#filesystem-pool
"""

EXAMPLES = r"""
---
- name: Make a file system on a blank disk and keep guest images on it
  kvm.storage.pool_fs:
    name: data
    device: /dev/vdb
    source_format: ext4
    path: /srv/data
    build: if_blank
    autostart: true

- name: Mount it with other options, now
  kvm.storage.pool_fs:
    name: data
    mount_options:
      - noatime
    restart: true

- name: Unmount it and leave it so
  kvm.storage.pool_fs:
    name: data
    state: inactive
    autostart: false

- name: Remove the pool with its volumes and its mount point
  kvm.storage.pool_fs:
    name: data
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
  sample: [define, make_directory, start]
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
  sample: fs
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.fs import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
