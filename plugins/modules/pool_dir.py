#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_dir
short_description: Manages a libvirt storage pool of files in a directory
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(dir), whose volumes are the files of one directory of
    the host.
  - The directory may lie on any file system, also on one that is mounted from elsewhere. For a file system that
    libvirt itself shall mount see M(kvm.storage.pool_fs) and M(kvm.storage.pool_netfs).
  - A directory of the system, such as C(/etc), and one that another pool has already are refused.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_directory
  - kvm.storage.pool.directory
  - kvm.storage.pool.permissions
  - kvm.storage.pool.cow
  - kvm.storage.pool.vendor
options:
  path:
    description:
      - The directory. Needed to make the pool.
      - A directory that lies inside the one of another pool, or around it, is taken with a warning.
    type: path
  delete_data:
    description:
      - Whether O(state=absent) also deletes every volume and then the directory. There is no way back. The directory
        of a transient pool stays.
      - Refused while any defined domain uses one of the volumes, and while the directory holds what is no volume.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_fs
  - module: kvm.storage.pool_netfs
  - module: kvm.storage.volume
  - name: libvirt's documentation of directory pools
    description: What libvirt itself does for this type.
    link: https://libvirt.org/storage.html#directory-pool
"""

EXAMPLES = r"""
---
- name: Keep guest images in a directory that comes up with the host
  kvm.storage.pool_dir:
    name: images
    path: /srv/images
    autostart: true

- name: Let only root and the group of QEMU look into it
  kvm.storage.pool_dir:
    name: images
    permissions:
      mode: '0750'
      group: kvm

- name: Have new files on btrfs copied on write, and restart the pool so that it takes effect
  kvm.storage.pool_dir:
    name: images
    cow: true
    restart: true

- name: Leave the pool stopped, also after a reboot
  kvm.storage.pool_dir:
    name: images
    state: inactive
    autostart: false

- name: Have a pool of which nothing remains once it is stopped
  kvm.storage.pool_dir:
    name: scratch
    path: /srv/scratch
    persistent: false

- name: Remove the pool and keep its files
  kvm.storage.pool_dir:
    name: scratch
    state: absent

- name: Remove the pool with all its volumes and its directory
  kvm.storage.pool_dir:
    name: images
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
  sample: [define, build, start, set_autostart]
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
  sample: dir
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.dir import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
