# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the contract."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import os
import subprocess
from collections.abc import Callable, Iterator

import libvirt
import pytest

from tests.contract.hosts import Listeners, RealHost, TestHost
from tests.integration import conftest as integration
from tests.servers.libvirtd import Libvirtd

# The fixtures of the integration tests that serve here too.
run_root, hypervisor, fresh_hypervisor = integration.run_root, integration.hypervisor, integration.fresh_hypervisor


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    """Servers that take connections and nothing more."""
    found = Listeners()
    yield found
    found.close()


@pytest.fixture
def test_host(tmp_path: Path) -> Callable[..., TestHost]:
    """Makes a host of libvirt's test driver: test_host(names of its secrets)."""

    def make(secrets: set[str] = frozenset()) -> TestHost:
        scratch = tmp_path / "host"
        scratch.mkdir()
        return TestHost(scratch, set(secrets))

    return make


@pytest.fixture
def real_host(request: pytest.FixtureRequest) -> Iterator[RealHost]:
    """A private libvirtd with nothing on it."""
    if os.geteuid() != 0:
        pytest.skip("a private libvirtd with namespaces needs root")
    server: Libvirtd = request.getfixturevalue("fresh_hypervisor")
    scratch = server.shared / "contract"
    scratch.mkdir()
    raw = libvirt.open(server.uri)
    yield RealHost(raw, scratch)
    raw.close()
    subprocess.run(["chattr", "-R", "-i", str(scratch)], check=False, capture_output=True)
