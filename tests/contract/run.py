# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules run in this process, by their own main(), on a host that a test hands in."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from ansible.module_utils import basic

from ansible_collections.kvm.storage.plugins.module_utils import connection as connections
from ansible_collections.kvm.storage.plugins.module_utils.backend import Backend
from ansible_collections.kvm.storage.plugins.module_utils.backends import registry
from tests.contract import examples
from tests.contract.hosts import Host


def load(path: Path) -> Any:
    """The module of a file, under the name that it has in the collection."""
    name = f"ansible_collections.kvm.storage.plugins.modules.{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def backend_of(path: Path) -> Backend | None:
    """The backend of a pool module."""
    return next((one for one in map(registry.backend, registry.types()) if one.module == path.stem), None)


def run(host: Host, name: str, args: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
    """The result of a module; with check, a prediction that may change neither libvirt's state nor a file."""
    arguments = {**args, "_ansible_check_mode": check, "_ansible_diff": True}
    stdin = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    host.predicting, host.writes[:] = check, []
    before = host.files()
    output = io.StringIO()
    with (
        mock.patch.object(basic, "_ANSIBLE_ARGS", stdin),
        mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy", create=True),
        mock.patch.object(connections, "LOCK_FOLDER", str(host.scratch.parent)),
        mock.patch.object(connections.Connection, "open", lambda uri: connections.Connection(host.recorder, uri)),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        load(examples.MODULES / f"{name}.py").main()
    if check:
        assert host.files() == before, "a prediction changed files"
        assert host.writes == []
    return json.loads(output.getvalue())
