#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pool_netfs
short_description: Manages a libvirt storage pool on a network share
version_added: "1.0.0"
author:
  - kvm.storage contributors (@kvm-storage)
description:
  - Defines, starts, changes, stops and removes a pool of type C(netfs). libvirt mounts an NFS or CIFS share or a
    Gluster volume when the pool starts and unmounts it when the pool stops. Volumes are the files on it.
  - libvirt mounts CIFS as a guest. It has no login for this type. A share with one is mounted by the host, from a
    C(credentials) file, and M(kvm.storage.pool_dir) takes the mount point, with
    O(kvm.storage.pool_dir#module:require_mountpoint=true).
  - While the server of an active pool does not answer, whoever looks at the share waits for it, libvirt and all of its
    pools included. Over a local connection the pool and its volumes are refused as V(unreachable) then, at once.
  - A share that somebody has unmounted while its pool is active is mounted again.
  - The host needs the helper that mounts the share, such as C(mount.nfs), C(mount.cifs) or C(mount.glusterfs).
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.connection
  - kvm.storage.change
  - kvm.storage.pool
  - kvm.storage.pool.build_directory
  - kvm.storage.pool.directory
  - kvm.storage.pool.permissions
  - kvm.storage.pool.mount_options
  - kvm.storage.pool.vendor
options:
  path:
    description:
      - The mount point. Needed to make the pool.
    type: path
  hosts:
    description:
      - The server. libvirt uses no more than one.
      - Needed to make the pool. Over a local connection it has to take TCP connections before the pool is started, at
        its port or at the usual one of O(source_format), 2049, 445 or 24007.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Host name or IP address.
        type: str
        required: true
      port:
        description:
          - TCP port, where it is not the usual one. libvirt does not hand it on to C(mount), so give it as V(port=) in
            O(mount_options) too.
        type: int
  source_path:
    description:
      - The directory that the server exports, the name of the share, or the name of the Gluster volume. Needed to
        make the pool.
    type: str
  source_format:
    description:
      - The kind of share. libvirt takes V(auto) when it is not told otherwise, which is NFS.
    type: str
    choices:
      - auto
      - nfs
      - cifs
      - glusterfs
  protocol_version:
    description:
      - The version of NFS, such as V(4) or V(4.2). Left out, both sides agree on the newest that they have.
    type: str
  delete_data:
    description:
      - Whether O(state=absent) also deletes every volume on the share and then the mount point. There is no way back.
      - Refused while any domain defined on this host uses one of the volumes, or a QEMU process of any host has one
        open. Domains of other hosts that do not run are not seen.
    type: bool
    default: false
seealso:
  - module: kvm.storage.pool_dir
  - module: kvm.storage.pool_gluster
  - module: kvm.storage.volume
  - name: libvirt's documentation of this type of pool
    description: What libvirt itself does for it.
    link: https://libvirt.org/storage.html#network-filesystem-pool
"""

EXAMPLES = r"""
---
- name: Keep guest images on an NFS server
  kvm.storage.pool_netfs:
    name: nfs
    hosts:
      - name: nfs1.example.com
    source_path: /export/vms
    source_format: nfs
    path: /srv/nfs
    autostart: true

- name: Unmount it
  kvm.storage.pool_netfs:
    name: nfs
    state: inactive

- name: Mount it again, with NFS version 4
  kvm.storage.pool_netfs:
    name: nfs
    protocol_version: '4'

- name: Remove the pool and keep what is on the server
  kvm.storage.pool_netfs:
    name: nfs
    state: absent

- name: Keep guest images on a Gluster volume that the host mounts
  kvm.storage.pool_netfs:
    name: gluster-files
    hosts:
      - name: gluster1.example.com
    source_path: vms
    source_format: glusterfs
    path: /srv/gluster

- name: Remove the pool with all its volumes
  kvm.storage.pool_netfs:
    name: gluster-files
    state: absent
    delete_data: true
"""

RETURN = r"""
---
actions:
  description:
    - The steps that were carried out, in order. In check mode those that would be.
  returned: always
  type: list
  elements: str
  sample: [define, start, set_autostart]
code:
  description:
    - One word for what went wrong, which stays the same between releases, such as V(in_use) or V(source_conflict).
  returned: failure
  type: str
  sample: in_use
diff:
  description:
    - The options that differ, in the words of this documentation, and the plan as a last line. No XML.
  returned: when something differs and C(--diff) asks for it
  type: list
  elements: dict
plan:
  description:
    - How many things there are to C(create), to C(update), to C(delete), C(unchanged), C(failed) and C(skipped), and
      the same as one line in C(summary).
  returned: when the pool could be looked at
  type: dict
  sample:
    create: 1
    update: 0
    delete: 0
    unchanged: 0
    failed: 0
    skipped: 0
    summary: "plan: 1 to create, 0 to update, 0 to delete, 0 unchanged"
restart_needed:
  description:
    - Whether a change waits for the pool to restart.
  returned: when the pool could be looked at
  type: bool
  sample: false
type:
  description:
    - The type of the pool, as libvirt calls it.
  returned: when the pool could be looked at
  type: str
  sample: netfs
"""

from ansible_collections.kvm.storage.plugins.module_utils.backends.netfs import BACKEND
from ansible_collections.kvm.storage.plugins.module_utils.pool import run


def main() -> None:
    run(BACKEND)


if __name__ == "__main__":
    main()
