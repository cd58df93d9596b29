#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_migrate
short_description: Move a volume to another name or pool
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Moves a volume to another name, or to a pool of any other type on the same host, with the domains that have it as
    their disk.
  - A rename is one, by the backend's own way. Anything else is copied under a hidden name, compared, and gets its name;
    then the definitions of domains name it, and only then the old volume goes. A run that is interrupted is taken up by
    the next one.
  - The disk of a running guest is moved by the guest itself (a block copy), into a pool of files. The guest goes on
    with the new one. As long as it is not whole, the new file has a second, hidden name, and is a volume to no module.
  - Between two pools of files an image stays as it is, with its snapshots and what it stands on, unless something of it
    shall be another.
  - A volume that is at its new place, and at its old one no more, is not moved again.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.overcommit
  - kvm.storage.volume
  - kvm.storage.volume.job
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  pool:
    description: The pool that the volume is in, which must be active.
  name:
    description: The name that it has there.
  format:
    description:
      - The format of the volume. Unless given, what the one domain says that has it.
  to:
    description: Where it goes, and what of its image shall be another there.
    type: dict
    required: true
    suboptions:
      host:
        description:
          - Another host, as ssh on the host of the volume takes it, such as V(root@kvm02.example.com). The data go from
            host to host. They are read back there to be compared, also at no more than O(rate).
          - ssh must get there without a password, and find Python, libvirt's binding and qemu-nbd. Its own
            configuration says which hosts and keys are known.
          - The volume goes as it is, or as a raw disk, into a pool of files. It must be unused. A domain does not
            follow, so a volume that one has goes only with O(keep_source).
        type: str
      uri:
        description: The libvirt of the other host, as it is called there. V(qemu:///system) unless given.
        type: str
      pool:
        description: The pool, which must be active. Unless given, the one of the name that the volume is in.
        type: str
      name:
        description: The name. Unless given, the one that it has.
        type: str
      thin_pool:
        description: The thin pool that holds it, in a logical pool.
        type: str
      format:
        description:
          - The format that it has there. Unless given, the same where the pool has it, else raw.
        type: str
        choices:
          - raw
          - qcow2
          - vdi
          - vmdk
          - vpc
      compat:
        description: The version of a qcow2. V(1.1) for what was no qcow2 before.
        type: str
        choices: ["0.10", "1.1"]
      cluster_size:
        description: The cluster size of a qcow2, a power of 2 from 512 bytes to 2 MiB.
        type: str
      compression_type:
        description: How a qcow2 compresses its clusters.
        type: str
        choices: [zlib, zstd]
      compress:
        description:
          - Whether the clusters of a new qcow2 are compressed. What its guest writes later is not.
          - No header tells it, so it has a meaning for a new image only, and makes none by itself.
        type: bool
      lazy_refcounts:
        description: Whether a qcow2 postpones its reference counts.
        type: bool
      extended_l2:
        description: Whether a qcow2 has subclusters.
        type: bool
      preallocation:
        description:
          - What of its space a new raw or qcow2 image takes at once. It has a meaning for a new image only.
        type: str
        choices: ["off", metadata, falloc, full]
  keep_source:
    description: Whether the old volume stays. Domains that are switched have the new one nevertheless.
    type: bool
    default: false
  update_domains:
    description:
      - Whether the definitions of domains follow. Without it, a volume that a domain has is moved only with
        O(keep_source).
    type: bool
    default: true
  flatten:
    description:
      - Permits that a volume which stands on another one stands alone afterwards.
    type: bool
    default: false
  drop_snapshots:
    description:
      - Permits that the snapshots inside a qcow2 are lost.
    type: bool
    default: false
  rate:
    description: How much is copied in a second at most, such as V(100MiB).
    type: str
  timeout:
    description: Seconds that a running guest may take to copy its disk. It goes on with the old one if it takes longer.
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_clone
  - module: kvm.storage.volume_convert
"""

EXAMPLES = r"""
- name: Make a disk
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    capacity: 10GiB
    format: qcow2

- name: Rename it
  kvm.storage.volume_migrate:
    pool: images
    name: web01.qcow2
    format: qcow2
    to:
      name: shop.qcow2

- name: Move it to another pool, whether its virtual machine runs or not, and leave the disks some room to breathe
  kvm.storage.volume_migrate:
    pool: images
    name: shop.qcow2
    format: qcow2
    to:
      pool: fast
    rate: 200MiB

- name: Move it on as a raw disk
  kvm.storage.volume_migrate:
    pool: fast
    name: shop.qcow2
    format: qcow2
    to:
      pool: archive
      name: shop.img
      format: raw

- name: Give it to another hypervisor
  kvm.storage.volume_migrate:
    pool: archive
    name: shop.img
    format: raw
    to:
      host: root@kvm02.example.com
      pool: archive
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [copy, switch_domains, drop_source]
pool:
  description: The pool of the volume at its new place.
  returned: success
  type: str
  sample: fast
volume_path:
  description: The path of the volume on the host, or its name in a network pool.
  returned: when the volume is there
  type: str
  sample: /srv/fast/shop.qcow2
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(in_use) or C(exists).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.migrate import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
