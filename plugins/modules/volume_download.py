#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_download
short_description: Copy a volume into a file
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Writes what a guest sees in a volume into a file of the host, in any format, compressed or not. Nothing that the
    volume stands on is needed to read the file.
  - The file gets its name when it is whole, and is of mode V(0600) from its first moment. Holes stay holes.
  - A file in which a guest would see the same is left alone.
  - The volume is not read while something writes it, be it a guest of another host on shared storage.
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
  format:
    description: The format of the volume. Needed where no domain declares it and the pool knows several.
  dest:
    description: The file on the host. Its directory must be there.
    type: path
    required: true
  dest_format:
    description: The format of the file. That of the volume unless given, or V(raw) where it is none of these.
    type: str
    choices: [raw, qcow2, vmdk, vdi, vpc, vhdx]
  compression:
    description: How the file is compressed. V(zst) takes the command C(zstd).
    type: str
    choices: [none, gz, xz, bz2, zst]
    default: none
  replace:
    description: Whether a file that is there is replaced if its content is another.
    type: bool
    default: false
  permissions:
    description: Mode, owner, group and label of the file, where it is written.
    type: dict
    suboptions:
      mode:
        description: Octal digits in quotes, such as V('0640').
        type: raw
      owner:
        description: Name or number of a user.
        type: str
      group:
        description: Name or number of a group.
        type: str
      label:
        description: The SELinux label.
        type: str
seealso:
  - module: kvm.storage.volume_upload
  - module: kvm.storage.volume_clone
"""

EXAMPLES = r"""
- name: Make a disk
  kvm.storage.volume:
    pool: images
    name: db01.qcow2
    capacity: 1GiB
    format: qcow2

- name: Keep a copy of it
  kvm.storage.volume_download:
    pool: images
    name: db01.qcow2
    format: qcow2
    dest: /srv/backup/db01.qcow2

- name: Give it to somebody as a compressed raw disk
  kvm.storage.volume_download:
    pool: images
    name: db01.qcow2
    format: qcow2
    dest: /srv/backup/db01.raw.xz
    dest_format: raw
    compression: xz
    replace: true
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [download]
pool:
  description: The pool of the volume.
  returned: success
  type: str
  sample: images
volume_path:
  description: The path of the volume on the host, or its name in a network pool.
  returned: success
  type: str
  sample: /srv/images/db01.qcow2
file:
  description: The path of the file.
  returned: success
  type: str
  sample: /srv/backup/db01.qcow2
checksum:
  description: The sha256 of the file.
  returned: when the file is there
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
transferred:
  description: C(bytes) of the file, C(seconds) that they took, and the C(rate) in bytes a second.
  returned: when the file was written
  type: dict
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a volume.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(in_use) or C(would_overwrite).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.download import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
