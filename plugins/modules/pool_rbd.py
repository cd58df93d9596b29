#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_rbd
short_description: Manages a libvirt storage pool of Ceph block device images
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(rbd), whose volumes are the RADOS block device images
    of a Ceph pool.
  - libvirt needs neither C(/etc/ceph) nor a keyring file on the host. It takes the monitors from O(hosts) and the key
    from the secret that O(auth) names.
  - The Ceph pool itself has to be there. It needs the application C(rbd), and the client the caps
    C(mon 'profile rbd' osd 'profile rbd pool=POOL').
requirements:
  - libvirt's storage driver for this type on the host, in Debian the package libvirt-daemon-driver-storage-rbd
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_never
  - kvm.storage.pool.hosts
  - kvm.storage.pool.auth_ceph
options:
  source_name:
    description:
      - Name of the Ceph pool. Needed to make the pool.
    type: str
  refresh_allocation:
    description:
      - What libvirt takes for the allocation of an image when it refreshes the pool.
      - V(default) asks Ceph, which takes long for large images without the feature C(fast-diff). V(capacity) takes
        the size of the image.
    type: str
    choices:
      - default
      - capacity
  config_options:
    description:
      - Options of the Ceph client for this pool, by name.
      - With V(client_mount_timeout) and V(rados_mon_op_timeout) of a few seconds each, libvirt itself gives up a dead
        cluster that soon, rather than after 30 seconds.
    type: dict
  delete_data:
    description:
      - Whether O(state=absent) also deletes every image of the Ceph pool. There is no way back.
      - Refused while any defined domain uses one of the images. The Ceph pool itself stays.
    type: bool
    default: false
notes:
  - After a restart of libvirt a pool of this type is inactive unless it has O(autostart=true).
seealso:
  - module: kvm.storage.secret
  - module: kvm.storage.volume
  - name: libvirt's documentation of RBD pools
    description: What libvirt itself does for this type.
    link: https://libvirt.org/storage.html#rbd-pool
"""

EXAMPLES = r"""
---
# The key of client.libvirt is a secret with usage ceph, made by kvm.storage.secret.
- name: Use a Ceph pool, with the key in the secret named ceph/vms
  kvm.storage.pool_rbd:
    name: vms
    source_name: vms
    hosts:
      - name: mon1.example.com
        port: 6789
    auth:
      username: libvirt
      secret_usage: ceph/vms
    autostart: true

- name: Give a dead cluster up after two seconds
  kvm.storage.pool_rbd:
    name: vms
    config_options:
      client_mount_timeout: 2
      rados_mon_op_timeout: 2
    restart: true

- name: Spare Ceph the question how much of each image is in use, from the next start on
  kvm.storage.pool_rbd:
    name: vms
    refresh_allocation: capacity

- name: Leave the pool stopped, also after a reboot
  kvm.storage.pool_rbd:
    name: vms
    state: inactive
    autostart: false

- name: Remove the pool and keep its images
  kvm.storage.pool_rbd:
    name: vms
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
  sample: rbd
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.rbd import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
