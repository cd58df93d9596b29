#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume
short_description: Manage a volume of a libvirt storage pool
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Makes a volume with every property that libvirt's volume format has, lets an existing one grow, sets its
    permissions, and removes it.
  - What is declared is never reached by making a volume anew. A smaller O(capacity) and a difference in what a volume
    keeps for life (its format, backing store, cluster size and the like) are errors.
  - The declared O(format) wins over what a header says. A guest can write a qcow2 header into its raw disk, and tools
    that follow it read files of the host. Such a volume is reported with the code C(format_mismatch) and left alone.
  - A volume is not removed while a domain uses it, defined or running, while it is the backing store of another one, or
    while it is O(immutable). An LVM volume is not removed either while its host uses it, or while it has snapshots that
    would go with it.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.overcommit
  - kvm.storage.volume
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description:
      - The name of the volume. A new one has up to 200 characters, all of them letters, digits or one of C(_.+@=-) or
        a colon, and begins with a letter, a digit or an underscore. What exists under another name can still be
        managed.
  state:
    description:
      - Whether the volume shall be there. V(absent) destroys what is in it.
      - A volume with snapshots beside it, or in its backend, is not removed; those inside a qcow2 go with it.
    type: str
    choices: [present, absent]
    default: present
  capacity:
    description:
      - The size that a guest sees, in bytes or with a unit as libvirt reads it. V(10G) and V(10GiB) are binary,
        V(10GB) is decimal.
      - An existing volume grows to it. Its O(format) must be given for that.
      - It can be left out for a new volume with a O(backing) store, and is then that one's.
    type: str
  allocation:
    description:
      - How much is reserved at creation. Files are sparse unless this or O(preallocation) is given.
      - In a C(logical) pool it can't be less than O(capacity), since LVM's old sparse volumes lose everything when they
        are full. O(thin_pool) is what to use there.
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
      - The format of the volume. A new one is V(raw), or V(qcow2) where it has a O(backing) store, unless the pool
        has formats of its own, as disk pools have.
      - Declare it for every volume that a guest can write to.
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
  backing:
    description:
      - The volume that a new qcow2 stands on. Its format is always recorded.
      - The format must be declared, here or by the item of the same layout that makes the backing volume.
    type: dict
    suboptions:
      pool:
        description: Its pool. The pool of the new volume unless given.
        type: str
      volume:
        description: Its name.
        type: str
      path:
        description: Its path, in place of O(backing.volume). It must lie in a pool of the host.
        type: path
      format:
        description: Its format.
        type: str
        choices: [raw, qcow2, qcow, qed]
  source:
    description:
      - What a new volume begins with. One of O(source.volume), O(source.path) and O(source.url) is given. A volume that
        is there already is not compared with it.
      - Nobody may write a volume while it is cloned. An image is looked at before any tool reads it, as
        M(kvm.storage.volume_upload) tells, which also has more options.
    type: dict
    suboptions:
      pool:
        description: The pool of O(source.volume), of any type. The pool of the new volume unless given.
        type: str
      volume:
        description: The name of a volume to clone.
        type: str
      path:
        description: The path of an image on the host.
        type: path
      url:
        description: The https address of an image, or http with a O(source.checksum).
        type: str
      format:
        description:
          - The format of the volume or image. Of a volume it may be declared by a domain or by the item of the same
            layout instead.
        type: str
        choices: [raw, qcow2, qcow, qed, vdi, vmdk, vpc, vhdx]
      checksum:
        description: What an image must have, such as V(sha256:) and its digits, or the address of a list of such.
        type: str
      compression:
        description: How an image is compressed. V(auto) tells by how it begins.
        type: str
        choices: [auto, none, gz, xz, bz2, zst]
        default: auto
      url_networks:
        description: Internal networks that O(source.url) may lead to.
        type: list
        elements: str
      mode:
        description:
          - How a volume is cloned.
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
  immutable:
    description:
      - Whether the file is protected from writing and removal, by its mode and, where the file system has it, the
        immutable attribute. Meant for the base of overlays.
      - Set it to V(false) to grow or to remove the volume.
    type: bool
  snapshots:
    description:
      - How many snapshots the volume keeps, as M(kvm.storage.volume_snapshot) tells. Those whose names begin with
        O(snapshots.prefix) and that no rule keeps are destroyed; others are left alone.
    type: dict
    suboptions:
      prefix:
        description: What the names of the snapshots under the rules begin with.
        type: str
        required: true
      keep:
        description:
          - Each rule keeps the newest snapshot of each of its periods, as many periods as it says, and a period without
            a snapshot does not count. Periods are those of UTC. One that any rule keeps stays.
        type: dict
        required: true
        suboptions:
          last:
            description: So many of the newest.
            type: int
          hourly:
            description: The newest of each of so many hours.
            type: int
          daily:
            description: The newest of each of so many days.
            type: int
          weekly:
            description: The newest of each of so many weeks of ISO 8601.
            type: int
          monthly:
            description: The newest of each of so many months.
            type: int
          yearly:
            description: The newest of each of so many years.
            type: int
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
  encryption:
    description: LUKS for a new raw or qcow2 volume. The passphrase is a secret of usage V(volume).
    type: dict
    suboptions:
      secret_usage:
        description: The usage name of the secret.
        type: str
      secret_uuid:
        description: The UUID of the secret.
        type: str
      cipher_name:
        description: The cipher, such as V(aes).
        type: str
      cipher_size:
        description: The length of its key in bits, such as V(256).
        type: int
      cipher_mode:
        description: Its mode, such as V(xts).
        type: str
      cipher_hash:
        description: The hash of the key derivation, such as V(sha256).
        type: str
      ivgen_name:
        description: The generator of initialisation vectors, such as V(plain64).
        type: str
      ivgen_hash:
        description: Its hash.
        type: str
seealso:
  - module: kvm.storage.layout
  - module: kvm.storage.volume_info
  - name: Storage volume XML format
    description: What libvirt knows of a volume.
    link: https://libvirt.org/formatstorage.html
"""

EXAMPLES = r"""
- name: Make the base of a family of virtual machines
  kvm.storage.volume:
    pool: images
    name: debian-13.qcow2
    capacity: 10GiB
    format: qcow2
    immutable: true

- name: Make a disk that stands on the base
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 20GiB
    backing:
      volume: debian-13.qcow2
      format: qcow2

- name: Let it grow
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 40GiB

- name: Make a raw data disk that owns all of its space
  kvm.storage.volume:
    pool: images
    name: db01-data.raw
    format: raw
    capacity: 1GiB
    preallocation: falloc
    permissions:
      mode: "0600"

- name: Remove the disk and all that is in it
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    state: absent

- name: Make a disk in the thin pool of a volume group
  kvm.storage.volume:
    pool: guests
    name: db01
    capacity: 20GiB
    thin_pool: thin
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [create, protect]
pool:
  description: The pool of the volume.
  returned: success
  type: str
  sample: images
volume_path:
  description: The path of the volume on the host, or its name in a network pool.
  returned: when the volume is there
  type: str
  sample: /srv/images/web01.qcow2
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(would_shrink) or C(format_mismatch).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.volume import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
