# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one form of error of the collection.

A refusal reads `<thing>: <reason>; <way out>`, a failed step reads
`Cannot <step> <thing>: <the backend's words>`. Both carry a code that programs can act on.
"""

from __future__ import annotations


class StorageError(Exception):
    """What went wrong with which thing, why, and what to do about it.

    code is a word that stays the same between releases, such as in_use or would_shrink.
    """

    def __init__(self, *, thing: str, reason: str, code: str, way_out: str = "") -> None:
        self.thing, self.reason, self.code, self.way_out = thing, reason, code, way_out
        super().__init__(f"{thing}: {reason}" + (f"; {way_out}" if way_out else ""))


class StepFailed(StorageError):
    """A step that the backend refused or could not finish."""

    def __init__(self, *, thing: str, step: str, reason: str, code: str, way_out: str = "") -> None:
        super().__init__(thing=thing, reason=reason, code=code, way_out=way_out)
        self.step = step
        self.args = (f"Cannot {step.replace('_', ' ')} {thing}: {reason}" + (f"; {way_out}" if way_out else ""),)


def bad_value(thing: str, option: str, value: object, expected: str) -> StorageError:
    """The error for an option whose value can't be meant."""
    return StorageError(
        thing=thing, code="bad_value", reason=f"{option} can't be {value!r}", way_out=f"give {expected}"
    )
