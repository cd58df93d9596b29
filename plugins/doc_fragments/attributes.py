# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes of modules. One that changes something extends attributes, one that only reads attributes.info_module."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Predicts what a run would do and changes nothing.
    support: full
    details:
      - The prediction has the same C(changed), the same C(actions) in the same order and the same declared options as
        the run.
  diff_mode:
    description: Shows what differs between what is there and what is wanted.
    support: full
    details:
      - Only options that differ are shown, one diff for each thing, with what the change means for it in the header.
  platform:
    description: Operating systems of the hosts that the module works on.
    platforms: linux
    support: full
"""

    INFO_MODULE = r"""
attributes:
  check_mode:
    description: Predicts what a run would do and changes nothing.
    support: full
    details:
      - This module only reads.
  diff_mode:
    description: Shows what differs between what is there and what is wanted.
    support: N/A
    details:
      - This module only reads.
  platform:
    description: Operating systems of the hosts that the module works on.
    platforms: linux
    support: full
"""

    ACTIONGROUP_STORAGE = r"""
attributes:
  action_group:
    description: The group by which C(module_defaults) gives options to every module of the collection at once.
    support: full
    membership:
      - kvm.storage.storage
"""
