#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: layout
short_description: Converge all storage of a host in one task
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Brings the secrets, pools and volumes of one host to what is declared, over one connection and in the order in
    which they need each other. A backing volume comes before its overlays, and what goes away goes in the reverse
    order.
  - Each item takes the options of its own module and is checked by the same rules. Everything is refused before
    anything is changed when one item is invalid.
  - An item that fails on the way stops what depends on it and no more. Each item's result says C(ok), C(changed),
    C(failed) or C(skipped).
  - Volumes that do not depend on each other are made at the same time.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  secrets:
    description: Secrets, each with the options of M(kvm.storage.secret).
    type: list
    elements: dict
    default: []
    suboptions:
      usage:
        description: What the secret is for.
        type: str
        required: true
        choices: [ceph, iscsi, tls, volume, vtpm]
      usage_name:
        description:
          - The name by which pools, volumes and domains refer to it, such as V(client.libvirt secret) or a target's
            name.
          - For O(secrets[].usage=volume) this is usually the path of the volume.
        type: str
        required: true
      state:
        description: Whether the secret shall be there. One that a pool, a volume or a domain names is not removed.
        type: str
        choices: [present, absent]
        default: present
      uuid:
        description:
          - The UUID of a new secret, where it must be a certain one. That of an existing secret is never changed.
        type: str
      value:
        description:
          - The value as text. For O(secrets[].usage=ceph) it is the key as C(ceph auth get-key) prints it.
          - A value of a private secret can't be read back, see O(secrets[].set_value).
        type: str
      value_base64:
        description: The value in base64, for one that is not text.
        type: str
      keyring_file:
        description: A Ceph keyring file on the host that holds the key, so that the key never passes the controller.
        type: path
      keyring_entity:
        description:
          - The entry of O(secrets[].keyring_file), such as V(client.libvirt). It can be left out where there is only
            one.
        type: str
      set_value:
        description:
          - V(if_changed) compares the value with what libvirt has and sets it when it differs. Of a private secret
            the value can't be compared, so it is set when the secret is made and not again.
          - V(always) sets it in every run and reports a change every time, which is how the value of a private secret
            is changed.
          - V(never) sets it only when the secret is made.
        type: str
        choices: [if_changed, always, never]
        default: if_changed
      prove:
        description:
          - Whether a changed value is proven by a login of each running pool that uses the secret, and the old one
            comes back where that fails, see O(kvm.storage.secret#module:prove).
        type: bool
        default: false
      description:
        description: A text for people.
        type: str
      ephemeral:
        description: Whether libvirt keeps the secret in memory only, so that it is gone when its daemon ends.
        type: bool
      private:
        description: Whether libvirt keeps the value to itself. A private secret can't become public again.
        type: bool
  pools:
    description:
      - Pools. Each has a C(type), which is the last part of the name of its module, such as V(dir) or
        V(iscsi_direct), and the options of that module, such as M(kvm.storage.pool_dir).
    type: list
    elements: dict
    default: []
  volumes:
    description:
      - Volumes, each with the options of M(kvm.storage.volume).
      - An item with C(count) stands for that many volumes. C(name) then holds V(%d) or V(%03d) where the number goes,
        which begins at C(first), V(1) unless given. It is much cheaper to pass than as many items.
    type: list
    elements: dict
    default: []
  owner:
    description:
      - Whose layout it is. What is made gets a UUID that follows from its name and owner, by which O(prune) knows it
        again.
      - Two layouts for one host need two owners.
    type: str
    default: layout
  prune:
    description:
      - Whether pools and secrets that earlier runs of this O(owner) made and that are no longer declared are undefined.
      - Volumes, data and LUKS secrets are never pruned, and neither is what was there before the layout.
    type: bool
    default: false
  expected_pools:
    description:
      - Pools whose storage an earlier task of the same run makes, such as a volume group or a mount.
      - In check mode that task has made nothing. Where what these pools stand on is not there, a warning says so, and
        the rest is predicted as if it were. Without check mode the option is of no effect.
    type: list
    elements: str
    default: []
  return_all:
    description: Whether RV(outcomes) has every item, rather than those alone that are not C(ok).
    type: bool
    default: false
seealso:
  - module: kvm.storage.layout_info
  - module: kvm.storage.volume
  - module: kvm.storage.secret
"""

EXAMPLES = r"""
- name: Converge the storage of a host
  kvm.storage.layout:
    secrets:
      - usage: iscsi
        usage_name: array1
        value: "{{ vault_array1_password | default('a password from the vault') }}"
    pools:
      - type: dir
        name: images
        path: /srv/images
        autostart: true
        permissions:
          mode: "0711"
      - type: dir
        name: iso
        path: /srv/iso
    volumes:
      - pool: images
        name: debian-13.qcow2
        format: qcow2
        capacity: 10GiB
      - pool: images
        name: web%02d.qcow2
        count: 3
        format: qcow2
        backing:
          volume: debian-13.qcow2

- name: Give up the overlays, and forget the pool of images without touching them
  kvm.storage.layout:
    prune: true
    pools:
      - type: dir
        name: images
        path: /srv/images
    volumes:
      - pool: images
        name: web%02d.qcow2
        count: 3
        state: absent

- name: Remove everything, with the data that is given up by name
  kvm.storage.layout:
    prune: true
    pools:
      - type: dir
        name: images
        state: absent
        delete_data: true
"""

RETURN = r"""
actions:
  description: Every step that was taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: ["pool 'images': define", "pool 'images': start", "volume 'images/web01.qcow2': create"]
outcomes:
  description: The items that are not C(ok) or whose pool needs a restart, or all of them with O(return_all=true).
  returned: success, and failure of an item
  type: list
  elements: dict
  contains:
    kind:
      description: C(secret), C(pool) or C(volume).
      type: str
    name:
      description: Its name. That of a volume begins with its pool.
      type: str
    status:
      description: C(ok), C(changed), C(failed) or C(skipped).
      type: str
    actions:
      description: Its steps.
      type: list
      elements: str
    change:
      description: C(create), C(update), C(delete) or C(none), with C(--diff). Null for what could not be compared.
      type: str
    risk:
      description: What its change means for data and guests, with C(--diff).
      type: str
    differences:
      description: The options that differ, each with its C(before) and C(after) as people read them, with C(--diff).
      type: dict
    msg:
      description: Why it failed.
      type: str
    code:
      description: A word for its error that stays the same between releases.
      type: str
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success, and failure of an item
  type: dict
  sample: {create: 5, delete: 0, failed: 0, skipped: 0, unchanged: 1, update: 0,
    summary: "plan: 5 to create, 0 to update, 0 to delete, 1 unchanged"}
restart_needed:
  description: Whether some pool takes up its change only when it restarts.
  returned: success
  type: bool
code:
  description: The code of the first error.
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.layout import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
