# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks of these runs lie beside their servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import connection


@pytest.fixture(autouse=True)
def lock_folder(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LOCK_FOLDER", str(run_root / "locks"))
