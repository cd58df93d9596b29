#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_rebase
short_description: Let a volume stand on another base
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Gives a qcow2 volume of a pool of files another backing store, whose path and format are recorded. Its guest sees
    what it saw before, unless O(content=trust).
  - The new backing store must lie in a pool of the host, and its format must be declared and be that of its header. The
    same holds for all that it stands on.
  - The disk of a running guest can only be put on a base that it stands on already, so that what lies between is read
    in. The guest does it itself, by a block job of libvirt.
  - Needs C(qemu-img) on the host of the volume and a local O(uri).
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
  backing:
    description: The volume to stand on.
    type: dict
    required: true
    suboptions:
      pool:
        description: Its pool. The pool of the volume unless given.
        type: str
      volume:
        description: Its name.
        type: str
      path:
        description: Its path, in place of O(backing.volume). It must lie in a pool of the host.
        type: path
      format:
        description: Its format, which is recorded.
        type: str
        choices: [raw, qcow2, qcow, qed]
  content:
    description:
      - What is done about a difference between the old backing store and the new one.
      - V(keep) writes it into the volume. That is done in a copy under a hidden name, which takes the place of the
        volume once C(qemu-img compare) has found that a guest sees the same in both.
      - V(same) writes nothing but the name and refuses, with the code C(not_equal), if a guest would see a difference.
      - V(trust) writes nothing but the name and compares nothing. It is for a base that has been moved, or whose format
        was never recorded. If the content is another one, the volume is destroyed.
    type: str
    choices: [keep, same, trust]
    default: keep
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_flatten
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

- name: Make the next release of the base
  kvm.storage.volume:
    pool: images
    name: debian-14.qcow2
    capacity: 10GiB
    format: qcow2

- name: Put the disk on it, with the content that it has
  kvm.storage.volume_rebase:
    pool: images
    name: web01.qcow2
    format: qcow2
    backing:
      volume: debian-14.qcow2
      format: qcow2

- name: Put it back on a base of equal content
  kvm.storage.volume_rebase:
    pool: images
    name: web01.qcow2
    format: qcow2
    backing:
      volume: debian-13.qcow2
      format: qcow2
    content: same
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [rebase]
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
  description: A word for the error that stays the same between releases, such as C(in_use) or C(not_equal).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.chainwork import run_rebase


def main() -> None:
    run_rebase()


if __name__ == "__main__":
    main()
