# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of this host, by argument lists and never by a shell.

They run through AnsibleModule.run_command, which reconcile hands in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

# The language of messages that are read, and no path of the user's.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

NO_LIMIT = -1  # RLIM_INFINITY

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


@dataclass(frozen=True)
class Limits:
    """What a command may take before the kernel ends it: seconds of CPU, and bytes of data (see setrlimit(2))."""

    cpu: int
    data: int

    def put_on(self, process: Any) -> None:
        """Limit a process that has just been started."""
        import resource  # of no use to other commands

        wanted = {resource.RLIMIT_CPU: self.cpu, resource.RLIMIT_DATA: self.data, resource.RLIMIT_CORE: 0}
        for kind, most in wanted.items():
            with contextlib.suppress(OSError, ValueError):  # it has ended, or has less already
                resource.prlimit(process.pid, kind, (most, most))


def run(*argv: str, keep: Sequence[int] = (), limits: Limits | None = None) -> Finished:
    """Run a command to its end; FileNotFoundError where the host does not have it. keep names descriptors for it."""
    if runner is None:
        raise RuntimeError("commands.use() comes first")
    options: dict[str, Any] = {"before_communicate_callback": limits.put_on} if limits is not None else {}
    kept = list(keep)
    return Finished(*runner(list(argv), environ_update=ENVIRONMENT, handle_exceptions=False, pass_fds=kept, **options))
