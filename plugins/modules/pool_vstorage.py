#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_vstorage
short_description: Manages a libvirt storage pool of a Virtuozzo Storage cluster
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(vstorage). libvirt mounts the cluster with
    C(vstorage-mount) when the pool starts and unmounts it when the pool stops. Volumes are the files on it.
  - The host has to be authenticated in the cluster. Debian's libvirt is built without this type.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_directory
  - kvm.storage.pool.directory
  - kvm.storage.pool.permissions
options:
  path:
    description:
      - The mount point. Needed to make the pool.
    type: path
  source_name:
    description:
      - Name of the cluster. Needed to make the pool.
    type: str
  delete_data:
    description:
      - Whether O(state=absent) also deletes every volume and then the mount point. There is no way back.
      - Refused while any domain defined on this host uses one of the volumes. Domains of other hosts are not seen.
    type: bool
    default: false
seealso:
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#vstorage-pools
"""

EXAMPLES = r"""
---
- name: Keep guest images in a cluster
  kvm.storage.pool_vstorage:
    name: cluster
    source_name: vz7
    path: /srv/vstorage
    autostart: true

- name: Unmount it
  kvm.storage.pool_vstorage:
    name: cluster
    state: inactive

- name: Mount it again, elsewhere
  kvm.storage.pool_vstorage:
    name: cluster
    path: /srv/cluster

- name: Remove the pool and keep its files
  kvm.storage.pool_vstorage:
    name: cluster
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
  sample: vstorage
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.vstorage import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
