# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module of this name, with its progress."""

from __future__ import annotations

from ansible_collections.kvm.storage.plugins.plugin_utils.progress import TransferAction


class ActionModule(TransferAction):
    """Nothing of its own."""
