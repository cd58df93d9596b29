#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_scsi
short_description: Manages a libvirt storage pool of LUNs behind a SCSI adapter
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(scsi), whose volumes are the LUNs that a SCSI host
    adapter of this host sees.
  - The adapter can be a virtual Fibre Channel one (NPIV), which libvirt makes when the pool starts and removes when
    it stops.
  - LUNs are made, grown and deleted on the array. One that is new there is listed after a refresh of the pool, as by
    M(kvm.storage.volume_info) with O(kvm.storage.volume_info#module:refresh=true).
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_never
  - kvm.storage.pool.permissions
  - kvm.storage.pool.vendor
options:
  path:
    description:
      - The directory below which libvirt names the LUNs. A new pool has C(/dev/disk/by-path) when this is not given,
        where names stay the same.
      - libvirt waits 10 seconds for each LUN that has no name there, and then leaves it out. The LUNs of some adapters
        have names in C(/dev/disk/by-id) only. Over a local connection there is a warning about such LUNs.
    type: path
  adapter:
    description:
      - The adapter. Needed to make the pool.
      - It is given in one of three forms, by O(adapter.name), by O(adapter.parent_address), or by O(adapter.wwnn) and
        O(adapter.wwpn).
    type: dict
    suboptions:
      type:
        description:
          - Whether it is a SCSI host that is there, or a virtual Fibre Channel host.
        type: str
        choices:
          - scsi_host
          - fc_host
        required: true
      name:
        description:
          - Name of the SCSI host, such as V(scsi_host3). It may be another one after a reboot.
        type: str
      parent_address:
        description:
          - PCI address of the SCSI host's device, which stays the same after a reboot.
        type: dict
        suboptions:
          domain:
            description:
              - Domain, in hexadecimal digits.
            type: str
          bus:
            description:
              - Bus, in hexadecimal digits.
            type: str
          slot:
            description:
              - Slot, in hexadecimal digits.
            type: str
          function:
            description:
              - Function, in hexadecimal digits.
            type: str
          unique_id:
            description:
              - Number of the port, as C(/sys/class/scsi_host/hostN/unique_id) has it.
            type: int
            required: true
      wwnn:
        description:
          - World wide node name of the virtual Fibre Channel host.
        type: str
      wwpn:
        description:
          - World wide port name of the virtual Fibre Channel host.
        type: str
      parent:
        description:
          - Name of the Fibre Channel host that carries the virtual one, such as V(scsi_host3).
        type: str
      parent_wwnn:
        description:
          - World wide node name of the one that carries it, with O(adapter.parent_wwpn).
        type: str
      parent_wwpn:
        description:
          - World wide port name of the one that carries it, with O(adapter.parent_wwnn).
        type: str
      parent_fabric_wwn:
        description:
          - World wide name of the fabric of the one that carries it.
        type: str
      managed:
        description:
          - Whether a virtual Fibre Channel host that was there before the pool started is removed when the pool
            stops.
        type: bool
  delete_data:
    description:
      - Refused with V(true), because LUNs are deleted on the array.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_mpath
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#scsi-pool
"""

EXAMPLES = r"""
---
- name: Use the LUNs behind an adapter, whichever number it has after a reboot
  kvm.storage.pool_scsi:
    name: hba
    adapter:
      type: scsi_host
      parent_address:
        bus: '0x00'
        slot: '0x1f'
        function: '0x2'
        unique_id: 1
    autostart: true

- name: Have a virtual Fibre Channel host with LUNs of its own until the pool stops
  kvm.storage.pool_scsi:
    name: vhba
    persistent: false
    adapter:
      type: fc_host
      wwnn: 20000000c9831b4b
      wwpn: 10000000c9831b4b
      parent_wwnn: 20000000c9831b40
      parent_wwpn: 10000000c9831b40

- name: Stop the pool
  kvm.storage.pool_scsi:
    name: hba
    state: inactive

- name: Start it with the adapter next to that one
  kvm.storage.pool_scsi:
    name: hba
    adapter:
      type: scsi_host
      name: scsi_host2

- name: Remove the pool
  kvm.storage.pool_scsi:
    name: hba
    state: absent

- name: Remove the other pool, and with it the virtual host
  kvm.storage.pool_scsi:
    name: vhba
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
  sample: scsi
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.scsi import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
