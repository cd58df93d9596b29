# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much the inputs, the layouts and the faults try, from which seed, and how they tell of it.

KVM_STORAGE_SOAK=1 tries more, KVM_STORAGE_SEED=N repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys

import pytest

SOAK = os.environ.get("KVM_STORAGE_SOAK") == "1"
# xdist's workers take it from the number of their run, so that they have the same one.
SEED = int(
    os.environ.get("KVM_STORAGE_SEED") or random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).getrandbits(32)
)


def tell(config: pytest.Config, text: str) -> None:
    """A line that is seen although the test passes, also from a worker of xdist."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n{text} (KVM_STORAGE_SEED={SEED})", file=sys.stderr, flush=True)
