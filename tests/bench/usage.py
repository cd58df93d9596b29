#!/usr/bin/env python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for Python: runs it, and notes in the file BENCH_USAGE its most memory, in KiB, and its processor time."""

import os
import sys

pid = os.posix_spawn("/usr/bin/python3", ["/usr/bin/python3", *sys.argv[1:]], os.environ)
dummy, status, usage = os.wait4(pid, 0)
with open(os.environ["BENCH_USAGE"], "a", encoding="ascii") as out:
    out.write(f"{usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}\n")
sys.exit(os.waitstatus_to_exitcode(status))
