# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module reaches libvirt."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  uri:
    description:
      - The libvirt connection, as C(virsh --connect) takes it.
      - A local URI, such as V(qemu:///system) or V(qemu:///session), gives everything.
      - Over a remote URI, such as V(qemu+ssh://root@kvm2.example.com/system), the module does what libvirt itself can
        do over the wire. What needs the files, devices or commands of the host is left out, or refused with
        C(code=remote_connection). A task that runs on the host itself has no such limits.
      - The URI must be that of a whole hypervisor. A connection such as V(storage:///system) shows no domains, so what
        needs to know who uses a volume is refused over it.
      - Set it once for a play with C(module_defaults) and the group C(group/kvm.storage.storage).
    type: str
    default: qemu:///system
requirements:
  - python3-libvirt, 5.2 or newer, on the host
  - python3-lxml on the host
notes:
  - The libraries are looked for under the interpreter of the task first, then under the system's own Python.
"""
