#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret
short_description: Manage a secret that libvirt keeps for storage
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Makes, changes and removes a libvirt secret, known by its O(usage) and O(usage_name), CHAP passwords of iSCSI
    targets, cephx keys, LUKS passphrases of volumes, and keys of TLS and of virtual TPMs among them.
  - The UUID of a secret that the module makes follows from its usage and name, so it is the same on every host.
  - Values reach libvirt through its API alone. They are in no result, diff, log, file or process argument.
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
    details:
      - Of the value the diff shows only whether there is one and whether it changes.
options:
  usage:
    description: What the secret is for.
    type: str
    required: true
    choices: [ceph, iscsi, tls, volume, vtpm]
  usage_name:
    description:
      - The name by which pools, volumes and domains refer to it, such as V(client.libvirt secret) or a target's name.
      - For O(usage=volume) this is usually the path of the volume.
    type: str
    required: true
  state:
    description: Whether the secret shall be there. One that a pool, a volume or a domain names is not removed.
    type: str
    choices: [present, absent]
    default: present
  uuid:
    description: The UUID of a new secret, where it must be a certain one. That of an existing secret is never changed.
    type: str
  value:
    description:
      - The value as text. For O(usage=ceph) it is the key as C(ceph auth get-key) prints it.
      - A value of a private secret can't be read back, see O(set_value).
    type: str
  value_base64:
    description: The value in base64, for one that is not text.
    type: str
  keyring_file:
    description: A Ceph keyring file on the host that holds the key, so that the key never passes the controller.
    type: path
  keyring_entity:
    description: The entry of O(keyring_file), such as V(client.libvirt). It can be left out where there is only one.
    type: str
  set_value:
    description:
      - V(if_changed) compares the value with what libvirt has and sets it when it differs. Of a private secret the
        value can't be compared, so it is set when the secret is made and not again.
      - V(always) sets it in every run and reports a change every time, which is how the value of a private secret is
        changed.
      - V(never) sets it only when the secret is made.
    type: str
    choices: [if_changed, always, never]
    default: if_changed
  prove:
    description:
      - Whether a changed value is proven by a login of each running pool that uses the secret. Where one fails the old
        value comes back, and so do the pools, and the task fails with C(not_proven).
      - Pools of type C(rbd) and C(iscsi-direct) are refreshed. One of type C(iscsi) is restarted, for it keeps the old
        password for its next login; that is refused while a running domain uses it.
      - Guests that run keep the value that they were started with.
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
seealso:
  - module: kvm.storage.layout
  - name: Secret XML format
    description: What libvirt stores of a secret.
    link: https://libvirt.org/formatsecret.html
"""

EXAMPLES = r"""
- name: Keep the CHAP password of an iSCSI target
  kvm.storage.secret:
    usage: iscsi
    usage_name: iqn.2026-01.com.example:vms
    value: "{{ vault_chap_password | default('a password from the vault') }}"

- name: Keep the cephx key of client.libvirt, read from its keyring on the host
  kvm.storage.secret:
    usage: ceph
    usage_name: client.libvirt
    description: RBD images of this cluster
    keyring_file: /etc/ceph/ceph.client.libvirt.keyring

- name: Keep a LUKS passphrase that nobody can read back
  kvm.storage.secret:
    usage: volume
    usage_name: /srv/images/vault.qcow2
    value: "{{ vault_luks_passphrase | default('a long passphrase') }}"
    private: true

- name: Change the CHAP password to the one that the target has now, or keep the old one
  kvm.storage.secret:
    usage: iscsi
    usage_name: iqn.2026-01.com.example:vms
    value: "{{ vault_new_chap_password | default('another password from the vault') }}"
    prove: true

- name: Remove the CHAP password
  kvm.storage.secret:
    usage: iscsi
    usage_name: iqn.2026-01.com.example:vms
    state: absent
"""

RETURN = r"""
actions:
  description: The steps that were taken, or in check mode would be, in order.
  returned: always
  type: list
  elements: str
  sample: [define, set_value]
uuid:
  description: The UUID of the secret.
  returned: success
  type: str
  sample: 907b568d-de77-575e-b5f6-59b63a05e9ed
usage:
  description: What the secret is for.
  returned: success
  type: str
  sample: iscsi
plan:
  description: Counts of what is created, updated, deleted and unchanged, and the same as one line.
  returned: success
  type: dict
restart_needed:
  description: Always V(false) for a secret.
  returned: success
  type: bool
code:
  description: A word for the error that stays the same between releases, such as C(in_use) or C(bad_secret_value).
  returned: failure
  type: str
"""

from ansible_collections.kvm.storage.plugins.module_utils.secret import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
