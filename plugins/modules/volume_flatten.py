#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_flatten
short_description: Let a volume stand on no other one
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Copies into a volume what it has from the volumes below it, so that it needs them no more. A volume that stands on
    nothing is left as it is.
  - A file that no guest uses is made anew under a hidden name, with the same size, options and permissions. It takes
    the place of the old one once C(qemu-img compare) has found that a guest sees the same in both. A run that is
    interrupted leaves the volume as it was.
  - The running guest whose disk it is does it itself, by a block job of libvirt. The next run waits for the job that an
    interrupted one has left behind.
  - A clone of a C(rbd) pool is flattened by C(rbd flatten), also while guests use it. The snapshot that it was made of
    stays, protected or not, and can be removed once C(rbd children) names no other clone.
  - A volume with internal snapshots, or with the bitmaps of checkpoints, is refused, since a new file would not have
    them.
  - Needs C(qemu-img) or C(rbd) on the host of the volume and a local O(uri).
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.volume
  - kvm.storage.volume.job
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  max_depth:
    description:
      - On how many others, one after the other, the volume may stand. It is flattened, with a warning, if it stands on
        more.
      - It is always flattened unless this is given.
    type: int
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_rebase
  - module: kvm.storage.volume_commit
  - module: kvm.storage.volume_info
"""

EXAMPLES = r"""
- name: Make a base
  kvm.storage.volume:
    pool: images
    name: debian-13.qcow2
    capacity: 10GiB
    format: qcow2

- name: Make a disk that stands on it
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    backing:
      volume: debian-13.qcow2
      format: qcow2

- name: Let it stand alone
  kvm.storage.volume_flatten:
    pool: images
    name: web01.qcow2
    format: qcow2

- name: Make a disk that stands on that one
  kvm.storage.volume:
    pool: images
    name: web02.qcow2
    format: qcow2
    backing:
      volume: web01.qcow2
      format: qcow2

- name: Make a disk at the end of a chain
  kvm.storage.volume:
    pool: images
    name: web03.qcow2
    format: qcow2
    backing:
      volume: web02.qcow2
      format: qcow2

- name: Flatten only what stands on more than one other
  kvm.storage.volume_flatten:
    pool: images
    name: web03.qcow2
    format: qcow2
    max_depth: 1
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [flatten]
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
  description: A word for the error that stays the same between releases, such as C(in_use) or C(immutable).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.chainwork import run_flatten


def main() -> None:
    run_flatten()


if __name__ == "__main__":
    main()
