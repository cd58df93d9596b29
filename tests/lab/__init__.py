# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab of real hosts: guests with their own kernel, frozen once and restored in a second or two.

`python -m tests.lab` builds their image, brings hosts up on a LAN of their own, and runs the scenarios inside them.
"""
