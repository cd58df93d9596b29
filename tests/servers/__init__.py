# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real storage servers and private hypervisors, for tests and for trying things by hand.

Each server is a class with start() and stop(), and a context manager; its root directory belongs to it alone.
`python -m tests.servers up ROOT` starts them from a shell.
"""
