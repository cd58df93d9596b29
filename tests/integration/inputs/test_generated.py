# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generated inputs are refused with one clear error, in check mode as in a run, and the host stays as it was."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from .conftest import Site
from .counts import SEED, SOAK, tell
from .generated import FAMILIES, Bad

FLOOR = 1500 if SOAK else 400


@pytest.mark.parametrize("family", FAMILIES)
def test_refused(family: str, site: Site, pytestconfig: pytest.Config) -> None:
    strategy, few, many = FAMILIES[family]
    wanted = many if SOAK else few
    seen: set[str] = set()

    @seed(SEED)
    @settings(
        max_examples=4 * wanted,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy(site.root))
    def try_one(bad: Bad) -> None:
        key = json.dumps([bad.module, bad.args], sort_keys=True)
        if len(seen) < wanted and key not in seen:
            site.refuses(bad)
            seen.add(key)

    try_one()
    tell(pytestconfig, f"inputs, {family}: {len(seen)}")
    assert len(seen) == wanted


def test_there_are_enough_of_them() -> None:
    assert sum(many if SOAK else few for _strategy, few, many in FAMILIES.values()) >= FLOOR
