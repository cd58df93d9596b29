#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_gluster
short_description: Manages a libvirt storage pool of a Gluster volume that QEMU speaks to itself
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(gluster). Volumes are files of a Gluster volume, to
    which libvirt and QEMU speak by libgfapi. Nothing is mounted on the host.
  - libvirt only lists and deletes what is there. To make and grow volumes use M(kvm.storage.pool_netfs) with
    O(kvm.storage.pool_netfs#module:source_format=glusterfs) on the same Gluster volume.
  - Starting and refreshing such a pool takes about 10 seconds each.
requirements:
  - libvirt's storage driver for this type on the host, in Debian the package libvirt-daemon-driver-storage-gluster
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_never
options:
  hosts:
    description:
      - The servers of the Gluster volume. libvirt speaks to the first.
      - Needed to make the pool. Over a local connection one of them has to take TCP connections before the pool is
        started.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Host name or IP address.
        type: str
        required: true
      port:
        description:
          - TCP port, where it is not 24007.
        type: int
  source_name:
    description:
      - Name of the Gluster volume. Needed to make the pool.
    type: str
  source_path:
    description:
      - Directory inside of the Gluster volume whose files are the volumes. libvirt takes V(/) for a new pool.
    type: path
  delete_data:
    description:
      - Whether O(state=absent) also deletes every volume. There is no way back.
      - Refused while any domain defined on this host uses one of the volumes. Domains of other hosts are not seen.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_netfs
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#gluster-pool
"""

EXAMPLES = r"""
---
- name: List the files of a Gluster volume for guests
  kvm.storage.pool_gluster:
    name: shared
    source_name: vms
    hosts:
      - name: gluster1.example.com
    wait_timeout: 60

- name: Start the pool when the host boots
  kvm.storage.pool_gluster:
    name: shared
    autostart: true

- name: Stop the pool
  kvm.storage.pool_gluster:
    name: shared
    state: inactive

- name: Remove the pool and keep its files
  kvm.storage.pool_gluster:
    name: shared
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
  sample: gluster
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.gluster import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
