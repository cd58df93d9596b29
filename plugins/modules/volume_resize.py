#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_resize
short_description: Give a volume of a libvirt storage pool another size
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Lets a volume grow, to a size or by a difference, and makes it smaller where O(shrink) allows that.
  - Where one running guest has the volume as its disk, it grows through that guest's domain, which sees the new size at
    once. What libvirt can't do is done by the backend's own command on the host of the volume, see the guide to
    backends.
  - A file system in the guest does not grow with its disk; that is done in the guest.
  - A volume does not get smaller while a guest runs with it, while a domain that uses it is saved, while another volume
    stands on it, or while it is O(kvm.storage.volume#module:immutable).
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
    description: The name of the volume, which must be there.
  format:
    description:
      - The format of the volume. It must be declared, here or by the one domain that has the volume as its disk, where
        the pool can hold several.
      - A header that says otherwise is an error with the code C(format_mismatch), since a guest may have written it.
  capacity:
    description:
      - The size that a guest sees, in bytes or with a unit as libvirt reads it, such as V(40GiB).
      - With a sign it is a difference, V(+10GiB) more or V(-10GiB) less than what is there. Such a task changes
        something each time it runs. An interrupted one may have done all of it, or nothing.
      - Write a difference with a unit or in quotes, for YAML takes a bare V(+10) for the number 10.
      - It is rounded up to what the backend can hold, such as whole extents of LVM.
    type: str
    required: true
  shrink:
    description:
      - What to do when the volume would get smaller.
      - V(refuse) is an error with the code C(would_shrink).
      - V(if_unused) makes it smaller only when its end is known to be unused. There must be no data behind the new end,
        and what stands on the disk must not claim more. What can be told is a blank disk, an MBR, a GPT, a whole-disk
        ext, XFS, LVM or swap, in an unencrypted raw or qcow2 file. A GPT has its second header at the end of the disk,
        which the guest must move first. All else is refused.
      - V(discard) makes it smaller and discards what lies behind the new end.
    type: str
    choices: [refuse, if_unused, discard]
    default: refuse
  encryption:
    description:
      - The secret that opens a volume with LUKS, which libvirt forgets at each refresh of the pool. Without it such a
        volume grows only while libvirt still knows, or in a running guest.
    type: dict
    suboptions:
      secret_usage:
        description: The usage name of the secret.
        type: str
      secret_uuid:
        description: The UUID of the secret.
        type: str
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_wipe
  - module: kvm.storage.pool_info
"""

EXAMPLES = r"""
- name: Make a disk that shall grow
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 20GiB

- name: Let it grow, while its guest runs or not
  kvm.storage.volume_resize:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 40GiB

- name: Let it grow by 10 GiB each time this runs, unless its pool would promise too much
  kvm.storage.volume_resize:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: +10GiB
    overcommit: refuse
    overcommit_ratio: 10

- name: Take back what its guest does not use
  kvm.storage.volume_resize:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 30GiB
    shrink: if_unused
"""

RETURN = r"""
actions:
  description:
    - The steps that were taken, or in check mode would be, in order. C(grow), C(shrink), C(grow_in_guest) where QEMU
      itself does it, C(tell_guest) where a device has grown that a running guest has.
  returned: always
  type: list
  elements: str
  sample: [grow]
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
capacity:
  description: The size that a guest sees, in bytes.
  returned: success
  type: int
  sample: 42949672960
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(would_shrink) or C(no_space).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.resize import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
