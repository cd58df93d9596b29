#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_mpath
short_description: Manages the libvirt storage pool of multipath devices
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes the pool of type C(mpath), whose volumes are all multipath devices of
    the host. libvirt has no more than one such pool on a host.
  - Without C(multipathd) there is no such device and the pool is empty. Over a local connection there is a warning when
    it starts like that.
  - LUNs are made, grown and deleted on the array.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_never
  - kvm.storage.pool.permissions
options:
  delete_data:
    description:
      - Refused with V(true), because LUNs are deleted on the array.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_iscsi
  - module: kvm.storage.pool_scsi
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#multipath-pool
"""

EXAMPLES = r"""
---
- name: Give the multipath devices of the host to guests
  kvm.storage.pool_mpath:
    name: multipath
    autostart: true

- name: Leave the pool stopped, also after a reboot
  kvm.storage.pool_mpath:
    name: multipath
    state: inactive
    autostart: false

- name: Note that nobody but root is to use them
  kvm.storage.pool_mpath:
    name: multipath
    permissions:
      mode: '0700'

- name: Remove the pool
  kvm.storage.pool_mpath:
    name: multipath
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
  sample: mpath
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.mpath import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
