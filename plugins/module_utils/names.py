# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The UUIDs that mark what the collection made."""

from __future__ import annotations

NAMESPACE = "6d5cbbd1-3f3c-5b0e-9c55-0a6f6b766d73"  # of everything that the collection names
MODULE_OWNER = "module"  # what a single module makes is nobody's to prune


def own_uuid(kind: str, name: str, owner: str) -> str:
    """The same kind, name and owner give the same UUID on every host."""
    import uuid  # a run that makes nothing does without

    return str(uuid.uuid5(uuid.UUID(NAMESPACE), f"{kind}\0{name}\0{owner}"))
