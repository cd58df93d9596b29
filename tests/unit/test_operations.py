# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every backend says of every operation how it is done, and the documentation says the same."""

from __future__ import annotations

import pytest

from ansible_collections.kvm.storage.plugins.module_utils.backend import LIBVIRT, OPERATIONS, Native, Refused
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from tests.static import operations


def test_the_page_is_as_the_backends_are() -> None:
    assert operations.PAGE.read_text(encoding="utf-8") == operations.page(), (
        "write it anew: PYTHONPATH=.cache/collections .venv/bin/python -m tests.static.operations"
    )


@pytest.mark.parametrize("kind", registry.types())
def test_every_cell_is_filled(kind: str) -> None:
    backend = registry.backend(kind)
    assert backend is not None
    assert set(backend.operations) == set(OPERATIONS)
    for method in backend.operations.values():
        assert method == LIBVIRT or isinstance(method, (Native, Refused))
        if isinstance(method, Refused):
            assert method.reason, method
            assert method.instead, method
        if isinstance(method, Native):
            assert method.command
