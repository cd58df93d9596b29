# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of this host, by argument lists and never by a shell.

They run through AnsibleModule.run_command, which reconcile hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

# The language of messages that are read, and no path of the user's.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

runner: Callable[..., tuple[int, str, str]] | None = None


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def use(run_command: Callable[..., tuple[int, str, str]]) -> None:
    """Run commands by AnsibleModule.run_command or something of its form."""
    global runner
    runner = run_command


def run(*argv: str, keep: Sequence[int] = ()) -> Finished:
    """Run a command to its end; FileNotFoundError where the host does not have it. keep names descriptors for it."""
    if runner is None:
        raise RuntimeError("commands.use() comes first")
    return Finished(*runner(list(argv), environ_update=ENVIRONMENT, handle_exceptions=False, pass_fds=list(keep)))
