#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: device_info
short_description: What block devices hold, and who uses them
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Looks at block devices before something is put on them, and changes nothing.
  - A device is blank when it has neither signature nor partition, and nothing uses it. A device without a signature can
    have data nevertheless, such as the raw disk of a guest that was never started.
  - Works on hosts without libvirt too. There, no guest is looked for.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
options:
  devices:
    description: Paths of the devices, best those below C(/dev/disk/by-id). One that is not there is no error.
    type: list
    elements: path
    required: true
  uri:
    description:
      - The libvirt connection that tells the disks of guests, as C(virsh --connect) takes it.
      - It is not needed where the host has no libvirt, or none whose daemon can be started by its socket.
    type: str
    default: qemu:///system
"""

EXAMPLES = r"""
- name: Look at a disk
  kvm.storage.device_info:
    devices: [/dev/disk/by-id/nvme-SAMSUNG_MZQL2_S64]
  register: disks

- name: Refuse to go on unless it is blank
  ansible.builtin.assert:
    that: disks.devices[0].blank
"""

RETURN = r"""
devices:
  description: The devices in the order asked for.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: As it was asked for.
      returned: always
      type: str
    exists:
      description: Whether it is there, and a block device.
      returned: always
      type: bool
    node:
      description: The device itself, where links lead.
      returned: always
      type: str
      sample: /dev/vdb
    size:
      description: Its bytes, beside C(size_readable).
      returned: always
      type: int
    holds:
      description: The types of all signatures on it, as C(wipefs) names them.
      returned: always
      type: list
      elements: str
      sample: [LVM2_member]
    partitions:
      description: Its partitions.
      returned: always
      type: list
      elements: str
    users:
      description:
        - Who uses it or a partition of it, in words.
        - Mounts, swap, logical volumes and the like, processes, and guests.
      returned: always
      type: list
      elements: str
      sample: [mounted on /srv]
    ids:
      description: Its names below C(/dev/disk/by-id).
      returned: always
      type: list
      elements: str
    blank:
      description: Whether it is there, holds nothing and is used by nobody.
      returned: always
      type: bool
guests_seen:
  description: Whether libvirt was asked for guests that have one of the devices as a disk.
  returned: success
  type: bool
"""

from ansible_collections.kvm.storage.plugins.module_utils.device import device_info, device_info_spec
from ansible_collections.kvm.storage.plugins.module_utils.reconcile import run_info


def main() -> None:
    run_info(device_info_spec(), device_info, libvirt_needed=False)


if __name__ == "__main__":
    main()
