#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pool_source_info
short_description: Look for storage that a pool could be made of
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Asks a server for its exports or targets, or the host for its volume groups, and returns each as options of the
    pool module.
  - Pools of type V(iscsi_direct) can't be looked for. The call kills libvirtd 9.0, so the collection never makes it.
    The targets are the same ones that O(type=iscsi) finds.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
  - kvm.storage.connection
options:
  type:
    description: What to look for.
    type: str
    required: true
    choices: [iscsi, gluster, logical, netfs]
  host:
    description: The server. Not used for V(logical).
    type: str
  port:
    description: Its port, where it is not the usual one.
    type: int
  initiator_iqn:
    description: The initiator to ask as, for V(iscsi).
    type: str
  source_format:
    description: The format to look for, such as V(nfs) or V(glusterfs), for V(netfs).
    type: str
"""

EXAMPLES = r"""
- name: Find the volume groups of the host
  kvm.storage.pool_source_info:
    type: logical
  register: found
"""

RETURN = r"""
sources:
  description: What was found, each as the options of the pool module.
  returned: success
  type: list
  elements: dict
  sample: [{source_name: vg_guests, devices: [/dev/vdb]}]
"""

from ansible_collections.kvm.storage.plugins.module_utils.info import run, source_info, source_info_spec


def main() -> None:
    run(source_info_spec(), source_info)


if __name__ == "__main__":
    main()
