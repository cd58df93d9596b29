#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_wipe
short_description: Destroy what a volume of a libvirt storage pool holds
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Overwrites what a volume holds. The volume stays, with its name, capacity, format and permissions.
  - This is an action and not a state. No look at a volume tells whether what it held can still be found below it, so
    each run wipes, and RV(ignore:changed) is always V(true).
  - A wiped C(qcow2) is an empty qcow2 again, of the same capacity, compat, cluster size, subclusters, lazy reference
    counts and compression type; its bitmaps are gone. The new image takes the place of the old one at once, and then
    the file of the old one is overwritten, under the name C(.kvm.storage.wiping-NAME), and removed. A run that was
    interrupted leaves that file; the next wipe of the volume completes it.
  - Images of other formats, overlays and volumes with LUKS are refused, for they would not be what they were.
  - Nothing is wiped that a domain uses, running or only defined, that another volume stands on, that something on the
    host has open, or that is O(kvm.storage.volume#module:immutable). While it is wiped, no guest can start with it.
  - Nothing is wiped of which a snapshot or the origin of a clone would keep the data, be it one of RBD, LVM, ZFS or
    inside of a qcow2. What a copy on write file system (btrfs, ZFS, a reflink on XFS) keeps elsewhere is not reached
    and not seen, and neither is what an SSD or an array keeps.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.volume
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: The name of the volume, which must be there. That it is named here is the confirmation.
  format:
    description:
      - The format of the volume. It must be declared, here or by the one domain that has the volume as its disk, where
        the pool can hold several.
      - A header that says otherwise is an error with the code C(format_mismatch), since a guest may have written it.
  algorithm:
    description:
      - How it is overwritten. V(zero) writes zeroes over all that is not zero yet, so that what is sparse or thin stays
        so.
      - V(trim) gives the blocks back, so that a guest reads zeroes where the storage promises that. The data itself may
        stay on the medium.
      - All others are those of C(scrub), which must be on the host of the volume. They write all of a sparse file,
        several times over, and leave what their last pass writes, such as random bytes.
      - In a C(rbd) pool V(zero) and V(trim) can be used, in an C(iscsi-direct) pool V(zero).
    type: str
    choices: [zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random, trim]
    default: zero
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_resize
"""

EXAMPLES = r"""
- name: Make a disk
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 64MiB

- name: Destroy what it holds, and have it empty
  kvm.storage.volume_wipe:
    pool: images
    name: web01.qcow2
    format: qcow2

- name: Make a raw disk
  kvm.storage.volume:
    pool: images
    name: db01.raw
    format: raw
    capacity: 1MiB

- name: Destroy what it holds with three passes
  kvm.storage.volume_wipe:
    pool: images
    name: db01.raw
    format: raw
    algorithm: dod
"""

RETURN = r"""
actions:
  description: The step that was taken, or in check mode would be.
  returned: always
  type: list
  elements: str
  sample: [wipe]
pool:
  description: The pool of the volume.
  returned: success
  type: str
  sample: images
volume_path:
  description: The path of the volume on the host, or its name in a network pool.
  returned: success
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
  description: A word for the error that stays the same between releases, such as C(in_use) or C(has_snapshots).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.wipe import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
