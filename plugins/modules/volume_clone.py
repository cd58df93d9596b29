#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_clone
short_description: Clone a volume, or make many clones of one
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Makes a volume, or several at once, with the content of another one, in the same pool or in a pool of any other
    type. The format and the capacity may be others.
  - A clone gets its name when it is whole. What an interrupted run leaves has a hidden name, and the next run of the
    same host removes it.
  - A volume that is there already is not cloned again. It grows to a larger O(capacity), as with the volume module.
  - The source is not cloned while something writes it, be it a guest of another host on shared storage. Guests whose
    disks stand on it may run.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.overcommit
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  pool:
    description: The pool of the clones, which must be active.
    type: str
    required: true
  name:
    description: The name of the clone.
    type: str
  clones:
    description: Several clones of the one source, with names and capacities of their own. All else is the same for all.
    type: list
    elements: dict
    suboptions:
      name:
        description: The name of the clone.
        type: str
        required: true
      capacity:
        description: The size that its guest sees, as O(capacity).
        type: str
  source:
    description:
      - The volume to clone. Nobody may write it meanwhile.
    type: dict
    required: true
    suboptions:
      pool:
        description: Its pool, of any type. The pool of the new volume unless given.
        type: str
      volume:
        description: Its name.
        type: str
        required: true
      format:
        description: Its format, which must be declared here, by a domain or by the item of the same layout.
        type: str
        choices: [raw, qcow2, qcow, qed, vdi, vmdk, vpc]
      mode:
        description:
          - V(full) copies what a guest sees, whatever the two pools and formats are.
          - V(reflink) shares the blocks of the source and stands by itself. xfs and btrfs can, and LVM thin pools.
          - V(linked) stands on its source, as an overlay in a pool of files, or by C(rbd clone) or C(zfs clone).
          - V(auto) shares blocks where that can be, and else copies.
        type: str
        choices: [auto, full, reflink, linked]
        default: auto
      verify:
        description: Whether a full copy is read again and compared with its source before it gets its name.
        type: bool
        default: false
  capacity:
    description:
      - The size that a guest sees, in bytes or with a unit. That of the source unless given, and never less.
    type: str
  preallocation:
    description:
      - How much of a new volume is written at creation.
      - V(off) nothing, V(metadata) the tables of a qcow2, V(falloc) all of it reserved, V(full) every block written
        by qemu-img.
    type: str
    choices: ["off", metadata, falloc, full]
  thin_pool:
    description:
      - The LVM thin pool of a C(logical) pool's volume group that a new volume is made in. It must be there.
      - Such a volume takes its space as it is written, and O(capacity) is all that can be chosen. libvirt does not list
        it. A domain uses it by its path, C(/dev/VG/NAME), which RV(volume_path) tells.
      - One that exists is known by its O(name), so that it can grow or be removed without this option. If it is in
        another thin pool or in none, that is an error.
      - Needs the commands of lvm2 on the host of the volume and a local O(uri).
    type: str
  format:
    description:
      - The format of the clone. It is that of the source unless given, where the pool can hold it, and V(qcow2) where
        it stands on its source.
      - Declare it for every volume that a guest can write to.
    type: str
    choices:
      - raw
      - qcow2
      - qcow
      - qed
      - vdi
      - vmdk
      - vpc
      - none
      - linux
      - fat16
      - fat32
      - linux-swap
      - linux-lvm
      - linux-raid
      - extended
  compat:
    description: The version of a new qcow2. V(1.1) unless given.
    type: str
    choices: ["0.10", "1.1"]
  cluster_size:
    description: The cluster size of a new qcow2, a power of 2 from 512 bytes to 2 MiB.
    type: str
  lazy_refcounts:
    description: Whether a new qcow2 postpones its reference counts.
    type: bool
  extended_l2:
    description: Whether a new qcow2 has subclusters.
    type: bool
  nocow:
    description: Whether a new file on btrfs is exempt from copy on write.
    type: bool
  permissions:
    description: Mode, owner, group and label of the file. Those of an existing one can be changed on the host itself.
    type: dict
    suboptions:
      mode:
        description: Octal digits in quotes, such as V('0600').
        type: raw
      owner:
        description: Name or number of a user. While a running guest uses the volume its owner is libvirt's affair.
        type: str
      group:
        description: Name or number of a group.
        type: str
      label:
        description: The SELinux label.
        type: str
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.layout
"""

EXAMPLES = r"""
- name: Make the base
  kvm.storage.volume:
    pool: images
    name: debian-13.qcow2
    capacity: 10GiB
    format: qcow2

- name: Clone it, with room of its own
  kvm.storage.volume_clone:
    pool: images
    name: db01.qcow2
    capacity: 20GiB
    source:
      volume: debian-13.qcow2
      format: qcow2

- name: Make the disks of a web farm, which stand on the base
  kvm.storage.volume_clone:
    pool: images
    source:
      volume: debian-13.qcow2
      format: qcow2
      mode: linked
    clones:
      - name: web01.qcow2
      - name: web02.qcow2
        capacity: 40GiB

- name: Copy the disk of a virtual machine into another pool, as a raw disk
  kvm.storage.volume_clone:
    pool: archive
    name: db01.raw
    format: raw
    source:
      pool: images
      volume: db01.qcow2
      format: qcow2
      mode: full
      verify: true
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order; with O(clones) each with its volume.
  returned: always
  type: list
  elements: str
  sample: [clone]
pool:
  description: The pool of the clone.
  returned: success, without O(clones)
  type: str
  sample: images
volume_path:
  description: The path of the clone on the host, or its name in a network pool.
  returned: when the volume is there, without O(clones)
  type: str
  sample: /srv/images/db01.qcow2
outcomes:
  description: What became of each clone that is not as it was.
  returned: with O(clones)
  type: list
  elements: dict
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(in_use) or C(would_shrink).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.clone import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
