#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_commit
short_description: Merge a volume into its base
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Writes what a qcow2 volume has of its own into the volume that it stands on. The volume stays and is empty then, or
    is removed with O(delete). A volume that has nothing of its own is left as it is.
  - The base is changed for everybody. It is refused while the base is immutable, is the disk of a domain, or has other
    overlays in any pool.
  - The base grows to the size of the volume. A volume that is smaller than its base is refused.
  - The volume is emptied, or removed, once C(qemu-img compare) has found that a guest sees the same in its base. Until
    then the volume has all that is its own. A run that is interrupted is completed by the next one.
  - A running guest merges its own disk by a block job of libvirt and goes on with the base. The volume is of no use
    then, so O(delete) must be given.
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
  delete:
    description:
      - Whether the volume is removed once it is merged. A volume that is not there is taken for one that was.
      - Refused while other volumes stand on it, and while a domain that does not run is defined with it.
    type: bool
    default: false
seealso:
  - module: kvm.storage.volume
  - module: kvm.storage.volume_flatten
  - module: kvm.storage.volume_rebase
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

- name: Merge it into its base and remove it
  kvm.storage.volume_commit:
    pool: images
    name: web01.qcow2
    format: qcow2
    delete: true
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [commit]
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
  description: A word for the error that stays the same between releases, such as C(in_use) or C(has_overlays).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.chainwork import run_commit


def main() -> None:
    run_commit()


if __name__ == "__main__":
    main()
