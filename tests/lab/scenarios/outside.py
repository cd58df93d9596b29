# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What scenarios that run outside share: commands on the hosts that the runner has brought up for them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path


def inventory() -> Path:
    """The inventory of this scenario's hosts."""
    return Path(os.environ["KVM_STORAGE_LAB_INVENTORY"])


def names() -> list[str]:
    groups = json.loads(inventory().read_text(encoding="utf-8"))["all"]["children"]
    return sorted(name for group in groups.values() for name in group["hosts"])


def on(host: str, command: str, status: int = 0, timeout: float = 180) -> str:
    """What a shell command prints on a host; it ends with the given status, within some seconds."""
    argv = ["ssh", "-F", str(inventory().with_name("ssh_config")), host, command]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == status, f"{host}: {command}: {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout.strip()
