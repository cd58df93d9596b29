# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that name a volume. A module that says more of one of them has that description of its own."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  pool:
    description: The pool, which must be active.
    type: str
    required: true
  name:
    description: The name of the volume.
    type: str
    required: true
  format:
    description:
      - The format of the volume, which a guest must not be trusted with. It can be left out where all domains that have
        the volume as their disk agree about it, and in pools whose volumes are raw.
    type: str
    choices:
      - raw
      - qcow2
      - qcow
      - qed
      - vdi
      - vmdk
      - vpc
      - none
      - linux
      - fat16
      - fat32
      - linux-swap
      - linux-lvm
      - linux-raid
      - extended
"""

    JOB = r"""
options:
  timeout:
    description:
      - Seconds that the job of a running guest may take. A job that takes longer is ended, the guest goes on as before,
        and the task fails with the code C(timeout). It is of no meaning without a running guest.
      - A job that a run before has left behind is waited for.
    type: int
    default: 3600
"""
