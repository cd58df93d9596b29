#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_snapshot
short_description: Take, remove and keep snapshots of a volume, and revert to them
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Takes a snapshot of a volume in the way that its storage has. Inside a qcow2, by C(lvcreate), C(zfs snapshot) or
    C(rbd snap), by a reflink on xfs and btrfs, or by an overlay.
  - Reverts a volume to a snapshot. What was written since is lost, which O(state=reverted) says. The snapshot stays.
  - Removes those that a retention rule does not keep, and tells of each why it stays or goes. Check mode is the dry
    run.
  - The disk of a running guest goes through its domain. Its file systems are frozen by the guest agent meanwhile. What
    can't be done under a running guest is refused.
  - A volume is not reverted while a domain runs with it, while it is open on any host that can be asked, or while it is
    the base of an overlay.
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
    description: The volume.
  format:
    description:
      - The format of the volume. It must be declared in a pool of files, here or by the domain that has it as its disk.
  snapshot:
    description:
      - The name of the snapshot. Up to 100 letters, digits or characters of C(_.+=-), beginning with a letter, a digit
        or an underscore.
      - It can be left out where O(keep) is given, and then none is taken.
    type: str
  state:
    description:
      - V(present) takes the snapshot where there is none of the name.
      - V(absent) destroys the snapshot. The volume keeps its content.
      - V(reverted) gives the volume the content that it had, and the size. That counts as a change unless the storage
        itself tells that the content is the same. It does for qcow2 and LVM outside of thin pools, and for a zvol or an
        rbd image that nobody wrote to or reverted since the snapshot was taken.
    type: str
    choices: [present, absent, reverted]
    default: present
  kind:
    description:
      - How a new snapshot is kept.
      - V(auto) is V(native) where the backend has snapshots, V(external) for the disk of a running guest, V(internal)
        for a qcow2, and V(reflink) for other files on a file system that can share blocks. Where there is no way, that
        is an error that names one.
      - V(internal) is a snapshot inside the qcow2.
      - V(external) freezes the volume's file as C(VOLUME@SNAPSHOT) and makes an overlay in its place, so that domains
        find their disk where it was. A running guest goes on in an overlay C(VOLUME@SNAPSHOT) instead, and the volume
        itself is the snapshot until that is removed, when the guest comes back to it.
      - V(native) is what LVM, ZFS and Ceph have.
      - V(reflink) is a file C(VOLUME@SNAPSHOT) that shares the volume's blocks.
      - V(subvolume) is a read-only snapshot of the btrfs subvolume that the pool's directory is. A revert takes the one
        volume out of it.
    type: str
    choices: [auto, internal, external, native, reflink, subvolume]
    default: auto
  size:
    description:
      - The room for what changes after an LVM snapshot outside of a thin pool, which is lost once it is full. As much
        as the volume has unless given.
    type: str
  crash_consistent:
    description:
      - Whether the disk of a running guest is taken as a power cut would leave it, where no guest agent answers.
    type: bool
    default: false
  destroy_newer:
    description:
      - Whether a revert may destroy the snapshots that came after, as ZFS does.
    type: bool
    default: false
  keep:
    description:
      - How many snapshots stay of those whose names begin with O(prefix). All others of them are removed. No other
        snapshot is touched.
      - Each rule keeps the newest snapshot of each of its periods, as many periods as it says, and a period without a
        snapshot does not count. Periods are those of UTC. One that any rule keeps stays.
    type: dict
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
  prefix:
    description:
      - What the names of the snapshots under O(keep) begin with.
      - On Ceph and ZFS, and inside a qcow2, nothing tells who took a snapshot. There every one whose name begins so is
        under the rules, whoever took it. Snapshots of LVM, and files, are only those that this module took.
      - It can't begin as C(kvm.storage) does, by which the collection names its own.
    type: str
seealso:
  - module: kvm.storage.volume_snapshot_info
  - module: kvm.storage.volume
"""

EXAMPLES = r"""
- name: Make a disk
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 20GiB

- name: Take a snapshot before an upgrade
  kvm.storage.volume_snapshot:
    pool: images
    name: web01.qcow2
    format: qcow2
    snapshot: before-upgrade

- name: Let the disk grow
  kvm.storage.volume:
    pool: images
    name: web01.qcow2
    format: qcow2
    capacity: 40GiB

- name: Give up all that came after, the size included
  kvm.storage.volume_snapshot:
    pool: images
    name: web01.qcow2
    format: qcow2
    snapshot: before-upgrade
    state: reverted

- name: Take one more, and keep a week, four weeks and a year of such
  kvm.storage.volume_snapshot:
    pool: images
    name: web01.qcow2
    format: qcow2
    snapshot: auto-2026-01-31
    prefix: auto-
    keep:
      daily: 7
      weekly: 4
      monthly: 12
"""

RETURN = r"""
actions:
  description:
    - The steps that were taken, or in check mode would be, in order. C(mend) ends what a killed run has begun.
  returned: always
  type: list
  elements: str
  sample: [snapshot, prune]
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
snapshot:
  description: The name of the snapshot. Null where only O(keep) was given.
  returned: success
  type: str
  sample: before-upgrade
kind:
  description: The kind of the snapshot, where one is or was taken, or reverted to.
  returned: success
  type: str
  sample: internal
frozen:
  description:
    - Whether the file systems of the running guest were frozen while the snapshot was taken. Null where none was taken
      of a running guest.
  returned: success
  type: bool
kept:
  description: The snapshots that O(keep) keeps, the newest first, with their times and the reasons.
  returned: success
  type: list
  elements: dict
  sample: [{name: auto-2026-01-31, reasons: [daily 2026-01-31, weekly 2026-W05], time: "2026-01-31T02:00:00Z"}]
removed:
  description: The snapshots that O(keep) does not keep, the oldest first, as in RV(kept).
  returned: success
  type: list
  elements: dict
capacity_before:
  description: The size that the guest saw before a revert, in bytes.
  returned: when a revert is due
  type: int
capacity_after:
  description: The size that the guest sees after it.
  returned: when a revert is due
  type: int
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a snapshot.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(in_use) or C(no_snapshot).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.volume_snapshot import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
