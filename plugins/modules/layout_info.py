#!/usr/bin/python
# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: layout_info
short_description: Read a host back as the variables of a layout
version_added: "1.0.0"
author: kvm.storage contributors (@kvm-storage)
description:
  - Returns the secrets, pools and volumes of a host in the form that M(kvm.storage.layout) takes. Replaying it
    changes nothing.
  - Values of secrets are not read.
  - A volume's format is declared only where the backend has no other, or a domain declares it. What nothing but a
    header tells is listed in RV(undeclared_formats) for a person to decide, since a guest can write a header.
extends_documentation_fragment:
  - kvm.storage.attributes
  - kvm.storage.attributes.actiongroup_storage
  - kvm.storage.attributes.info_module
  - kvm.storage.connection
options:
  volumes:
    description: Whether volumes are read too.
    type: bool
    default: true
seealso:
  - module: kvm.storage.layout
"""

EXAMPLES = r"""
- name: Read a host
  kvm.storage.layout_info:
  register: host

- name: Replay it, which changes nothing
  kvm.storage.layout:
    secrets: "{{ host.layout.secrets }}"
    pools: "{{ host.layout.pools }}"
    volumes: "{{ host.layout.volumes }}"
"""

RETURN = r"""
layout:
  description: The lists C(secrets), C(pools) and C(volumes), as M(kvm.storage.layout) takes them.
  returned: success
  type: dict
undeclared_formats:
  description: The volumes whose format only their header tells, as pool and name, with what it says.
  returned: success
  type: dict
  sample: {images/web01.qcow2: qcow2}
"""

from ansible_collections.kvm.storage.plugins.module_utils.info import layout_info, layout_info_spec, run


def main() -> None:
    run(layout_info_spec(), layout_info)


if __name__ == "__main__":
    main()
