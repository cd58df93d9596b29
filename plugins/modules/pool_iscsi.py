#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_iscsi
short_description: Manages a libvirt storage pool of iSCSI LUNs attached to the host
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(iscsi), whose volumes are the LUNs of an iSCSI
    target. libvirt logs the host in when the pool starts and out when it stops.
  - LUNs are made, grown and deleted on the target. One that is new there is listed after a refresh of the pool, as by
    M(kvm.storage.volume_info) with O(kvm.storage.volume_info#module:refresh=true).
  - The host needs C(iscsiadm) and a running C(iscsid).
  - Over a local connection the portal is asked which targets it offers before the pool is started. A target that is not
    among them is refused; libvirt would try for two minutes.
  - A session that the host has with the target already is used by the pool, and ended when the pool stops. Stopping is
    refused while a LUN is mounted, swap, open in a process or below another device of the host.
  - When the pool has stopped, the record of C(iscsiadm) is removed in which libvirt has put the CHAP password in clear,
    and so is the interface that libvirt has made for O(initiator_iqn).
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_never
  - kvm.storage.pool.auth_chap
  - kvm.storage.pool.permissions
  - kvm.storage.pool.vendor
options:
  path:
    description:
      - The directory below which libvirt names the LUNs. A new pool has C(/dev/disk/by-path) when this is not given,
        where names stay the same.
    type: path
  hosts:
    description:
      - The portal of the target. libvirt uses no more than one.
      - Needed to make the pool. Over a local connection it has to take TCP connections before the pool is started.
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
          - TCP port, where it is not 3260.
        type: int
  target_iqn:
    description:
      - IQN of the target. Needed to make the pool.
    type: str
  initiator_iqn:
    description:
      - IQN by which this host makes itself known to the target, where it is not that of the host.
    type: str
  delete_data:
    description:
      - Refused with V(true), because LUNs are deleted on the target.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_iscsi_direct
  - module: kvm.storage.secret
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#iscsi-pool
"""

EXAMPLES = r"""
---
# The password is a secret with usage iscsi, made by kvm.storage.secret.
- name: Attach the LUNs of a target that asks for a password
  kvm.storage.pool_iscsi:
    name: san
    hosts:
      - name: san1.example.com
        port: 3260
    target_iqn: iqn.2026-01.com.example:private
    auth:
      username: kvm1
      secret_usage: iscsi/private
    autostart: true

- name: Log out
  kvm.storage.pool_iscsi:
    name: san
    state: inactive

- name: Log in by a name of its own
  kvm.storage.pool_iscsi:
    name: san
    initiator_iqn: iqn.2026-01.com.example:kvm1

- name: Remove the pool
  kvm.storage.pool_iscsi:
    name: san
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
  sample: iscsi
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.iscsi import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
