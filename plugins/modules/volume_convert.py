#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_convert
short_description: Give a volume another image format
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Converts the file of a volume to another format, or to other properties of qcow2, and keeps its content, name, mode
    and owner.
  - The new image is made under a hidden name and compared with the old one, and takes its place at once. A run that is
    interrupted leaves the old one as it was.
  - A volume that has the wanted format already is not converted again.
  - Nobody may use the volume meanwhile, and nothing may stand on it.
  - VMDK rounds the size that a guest sees up to 64 KiB. What was not there before reads as zeroes.
  - Volumes of pools that are no files, such as logical or rbd, are raw. M(kvm.storage.volume_migrate) converts on the
    way to and from them.
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
    description: The pool of the volume, which must be active.
    type: str
    required: true
  name:
    description: The name of the volume.
    type: str
    required: true
  format:
    description:
      - The format that the volume has before. What its header says is not followed.
      - VHDX, which libvirt takes for raw, is only a source. As a target it would be a disk that libvirt reads wrongly.
    type: str
    required: true
    choices:
      - raw
      - qcow2
      - qcow
      - qed
      - vdi
      - vmdk
      - vpc
      - vhdx
  new_name:
    description:
      - The name that the volume has afterwards, in the same pool. The old one goes when the new one is whole.
    type: str
  to:
    description: What the volume shall be. What is not given of a qcow2 that was one before stays as it is.
    type: dict
    required: true
    suboptions:
      format:
        description:
          - The format that it shall have.
        type: str
        required: true
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
  update_domains:
    description:
      - Whether the definitions of domains that are off follow, whose disk would be read in the wrong format otherwise.
      - Without it a volume that such a domain has is not converted.
    type: bool
    default: false
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
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_migrate
"""

EXAMPLES = r"""
- name: Make a disk
  kvm.storage.volume:
    pool: images
    name: web01.img
    capacity: 10GiB
    format: raw

- name: Turn it into a qcow2, and let its virtual machine know
  kvm.storage.volume_convert:
    pool: images
    name: web01.img
    format: raw
    to:
      format: qcow2
      cluster_size: 128KiB
    update_domains: true

- name: Give it a name that tells its format, and compress it
  kvm.storage.volume_convert:
    pool: images
    name: web01.img
    new_name: web01.qcow2
    format: qcow2
    to:
      format: qcow2
      compress: true
      compression_type: zstd

- name: Hand it over to another hypervisor
  kvm.storage.volume_convert:
    pool: images
    name: web01.qcow2
    format: qcow2
    to:
      format: vmdk
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [convert]
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
  description: A word for the error that stays the same between releases, such as C(in_use) or C(format_mismatch).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.convert import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
