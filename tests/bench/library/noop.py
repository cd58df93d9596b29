# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does nothing: what any task costs, whatever its arguments."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    AnsibleModule(
        argument_spec={
            "uri": {"type": "str"},
            "secrets": {"type": "list", "elements": "dict", "no_log": False},
            "pools": {"type": "list", "elements": "dict"},
            "volumes": {"type": "list", "elements": "dict"},
        },
        supports_check_mode=True,
    ).exit_json(changed=False)


if __name__ == "__main__":
    main()
