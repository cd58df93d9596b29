# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of what may make a pool promise more than it has."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  overcommit:
    description:
      - What to do when the volumes of the pool, or of its thin pool, could then take more than there is.
      - What takes its space at once, such as a logical volume, is refused with the code C(no_space) where it has no
        room, whatever is given here.
    type: str
    choices: [warn, refuse, allow]
    default: warn
  overcommit_ratio:
    description: How many times its size a pool may promise to guests.
    type: float
    default: 1.0
"""
