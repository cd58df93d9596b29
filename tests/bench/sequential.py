# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The script that one would write without Ansible: sequential.py URI POOL DIRECTORY COUNT makes a pool and volumes."""

from __future__ import annotations

import sys

import libvirt

POOL = "<pool type='dir'><name>{}</name><target><path>{}</path></target></pool>"
VOLUME = """\
<volume>
  <name>{}</name>
  <capacity unit='GiB'>1</capacity>
  <allocation>0</allocation>
  <target><format type='qcow2'/><compat>1.1</compat></target>
</volume>"""


def main() -> None:
    uri, name, directory, count = sys.argv[1:]
    connection = libvirt.open(uri)
    pool = connection.storagePoolDefineXML(POOL.format(name, directory))
    pool.build()
    pool.create()
    for number in range(1, int(count) + 1):
        pool.createXML(VOLUME.format(f"v{number:05d}.qcow2"))
    connection.close()


if __name__ == "__main__":
    main()
