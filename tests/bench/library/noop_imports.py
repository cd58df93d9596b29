# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does nothing, with the libraries that a module for libvirt needs."""

from __future__ import annotations

import libvirt
from ansible.module_utils.basic import AnsibleModule
from lxml import etree


def main() -> None:
    AnsibleModule(
        argument_spec={
            "uri": {"type": "str"},
            "name": {"type": "str"},
            "path": {"type": "path"},
            "autostart": {"type": "bool"},
        },
        supports_check_mode=True,
    ).exit_json(changed=False, loaded=[libvirt.__name__, etree.__name__])


if __name__ == "__main__":
    main()
