# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hidden volumes of killed runs, which go when the server has given up their client."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import transfer
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError

BUSY = StorageError(thing="image a", reason="it has watchers", code="backend_refused")


def discarding(ends: Sequence[StorageError | None], seen: Sequence[list[str]] | None) -> int:
    """How many times a removal is tried whose attempts end like that, with these watchers after each of them."""
    way = mock.Mock(side_effect=list(ends))
    watchers = None if seen is None else mock.Mock(side_effect=list(seen))
    target = mock.Mock(backend=mock.Mock(watchers=watchers))
    with (
        mock.patch.object(transfer, "landing_of", return_value=mock.Mock(discard=way)),
        mock.patch.object(transfer.time, "sleep"),
    ):
        try:
            transfer.discard(target, {}, "a")
        except StorageError:
            return -way.call_count
    return way.call_count


@pytest.mark.parametrize(
    ("ends", "seen", "attempts"),
    [
        pytest.param([None], [], 1, id="nobody has it open"),
        pytest.param([BUSY, BUSY, None], [["a"], ["a"]], 3, id="its client is given up"),
        pytest.param([BUSY, None], [[]], 2, id="its client is given up between the attempt and the look"),
        pytest.param([BUSY, BUSY], [[], []], -2, id="it fails for another reason"),
        pytest.param([BUSY], None, -1, id="the backend knows no clients"),
    ],
)
def test_discard(ends: Sequence[StorageError | None], seen: Sequence[list[str]] | None, attempts: int) -> None:
    assert discarding(ends, seen) == attempts


def test_a_client_that_stays_is_not_waited_for_without_end() -> None:
    with mock.patch.object(transfer.time, "monotonic", side_effect=[0, 10, transfer.GIVEN_UP + 1]):
        assert discarding([BUSY] * 3, [["a"]] * 3) == -2
