# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the pool modules: those of all, and those that several backends share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the pool.
      - A new one has up to 200 ASCII letters, digits and the characters C(_.+@:=-), and begins with a letter, a digit
        or C(_). A pool that exists under another name can be managed too.
    type: str
    required: true
  state:
    description:
      - With V(active) the pool is defined and running, with V(inactive) it is defined and stopped.
      - With V(absent) it is stopped and its definition removed. What it holds stays, unless O(delete_data=true).
      - A pool is not stopped while a running domain uses one of its volumes.
    type: str
    choices:
      - active
      - inactive
      - absent
    default: active
  autostart:
    description:
      - Whether libvirt starts the pool when the host boots.
      - A new pool has V(false) when this is not given.
    type: bool
  persistent:
    description:
      - With V(false) the pool is transient, so that nothing of its definition remains once it is stopped.
      - A transient pool becomes persistent with V(true). A persistent one can't become transient.
    type: bool
    default: true
  restart:
    description:
      - Whether an active pool is restarted when a change takes effect only then.
      - Without it the change is written to the persistent definition, and RV(restart_needed) says that it waits.
      - A pool is not restarted while a running domain uses one of its volumes.
    type: bool
    default: false
  delete_data:
    description:
      - Whether O(state=absent) also destroys what the pool holds. There is no way back.
      - Refused while any defined domain uses one of its volumes.
    type: bool
    default: false
  wait_timeout:
    description:
      - Seconds after which a pool that does not come up is given up.
      - Some backends keep libvirt busy for minutes when a server is gone. The error names the likely cause in time.
    type: int
    default: 20
notes:
  - An option that is not given is neither compared nor changed, and what libvirt's XML says beyond these options
    survives a change. A change keeps the UUID of the pool.
  - The wanted pool is compared with the persistent definition and with the running one.
  - Options without which a pool of this type can't be made are only needed where the pool is not there yet.
"""

    BUILD_NEVER = r"""
options:
  build:
    description:
      - There is nothing to build for a pool of this type. The option is here so that every pool takes it.
    type: str
    choices:
      - never
    default: never
"""

    BUILD_DIRECTORY = r"""
options:
  build:
    description:
      - With V(if_blank) the directory O(path) is made where it is missing. With V(never) it has to be there.
    type: str
    choices:
      - if_blank
      - never
    default: if_blank
"""

    DIRECTORY = r"""
options:
  require_mountpoint:
    description:
      - Whether a file system has to be mounted on O(path) itself before the pool is started.
      - Mount points that C(/etc/fstab) declares at or above O(path) have to be mounted in any case, because an
        unmounted one looks like an empty pool, and what is written there fills the root file system.
      - A pool that mounts a file system on O(path) itself has no use for it.
    type: bool
    default: false
"""

    PERMISSIONS = r"""
options:
  permissions:
    description:
      - Mode, owner, group and label of the target path.
      - For a directory of the host they are read from the file system and set there.
    type: dict
    suboptions:
      mode:
        description:
          - Octal digits in quotes, from V('0000') to V('0777').
        type: raw
      owner:
        description:
          - Name or number of the owner. Over a remote connection a number.
        type: str
      group:
        description:
          - Name or number of the group. Over a remote connection a number.
        type: str
      label:
        description:
          - SELinux label.
        type: str
"""

    COW = r"""
options:
  cow:
    description:
      - Whether files in the directory are copied on write, on a file system that can, such as btrfs.
      - libvirt turns it off for a directory on btrfs that it makes, unless this is V(true). On other file systems it
        refuses to make a directory with V(true).
    type: bool
"""

    HOSTS = r"""
options:
  hosts:
    description:
      - The servers of the storage.
      - Needed to make the pool. Over a local connection one of them has to take TCP connections before the pool is
        started.
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
          - TCP port, where it is not the usual one.
        type: int
"""

    AUTH_CEPH = r"""
options:
  auth:
    description:
      - The cephx login. Its key is a secret with usage V(ceph), which M(kvm.storage.secret) makes.
    type: dict
    suboptions:
      username:
        description:
          - Name of the Ceph client without C(client.), such as V(libvirt).
        type: str
        required: true
      secret_usage:
        description:
          - Usage name of the secret. Exclusive with O(auth.secret_uuid).
        type: str
      secret_uuid:
        description:
          - UUID of the secret. Exclusive with O(auth.secret_usage).
        type: str
"""

    AUTH_CHAP = r"""
options:
  auth:
    description:
      - The CHAP login to the target, in one direction. Its password is a secret with usage V(iscsi), which
        M(kvm.storage.secret) makes.
    type: dict
    suboptions:
      username:
        description:
          - Name that the target knows.
        type: str
        required: true
      secret_usage:
        description:
          - Usage name of the secret. Exclusive with O(auth.secret_uuid).
        type: str
      secret_uuid:
        description:
          - UUID of the secret. Exclusive with O(auth.secret_usage).
        type: str
"""

    MOUNT_OPTIONS = r"""
options:
  mount_options:
    description:
      - Options of mount(8), one an entry. libvirt adds C(nodev), C(nosuid) and C(noexec).
      - An empty list takes those away that are there.
    type: list
    elements: str
"""

    VENDOR = r"""
options:
  vendor:
    description:
      - Name of the vendor of the storage. libvirt keeps it and does nothing with it.
    type: str
  product:
    description:
      - Name of the product. libvirt keeps it and does nothing with it.
    type: str
"""
