# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other hosts of the LAN as a scenario sees them: what the storage server serves, and commands over ssh."""

from __future__ import annotations

import functools
import json
import subprocess
from typing import Any

STORAGE = "storage"
SHARED_SESSION = (
    "-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPath=/run/lab-ssh-%h", "-o", "ControlPersist=120",
)  # fmt: skip


def on(host: str, command: str, text: str | None = None, timeout: float = 120) -> str:
    """What a command prints on another host."""
    # The master that ssh leaves behind must not keep our pipes open.
    argv = ["ssh", *SHARED_SESSION, host, f"{{ {command}\n}} 2>&1"]
    done = subprocess.run(argv, input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          timeout=timeout, check=False)  # fmt: skip
    assert done.returncode == 0, f"{host}: {command}: {done.stdout}"
    return done.stdout


@functools.cache
def facts() -> dict[str, Any]:
    """What the storage server's setup says of it."""
    found: dict[str, Any] = json.loads(on(STORAGE, "cat /etc/kvm-lab/facts.json"))
    return found


def login(name: str) -> dict[str, str]:
    """A user name and a password of the storage server: chap or cifs."""
    lines = on(STORAGE, f"cat /etc/kvm-lab/{name}").splitlines()
    return dict(line.split("=", 1) for line in lines)
