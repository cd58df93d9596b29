# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the filters of several roles refuse, in one form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ansible.errors import AnsibleError, AnsibleFilterError


def need_keys(name: str, value: Any, keys: Iterable[str]) -> None:
    """A dictionary with these keys and no others."""
    if not isinstance(value, Mapping) or set(value) != set(keys):
        raise AnsibleFilterError(f"{name}: a dictionary is needed with {', '.join(keys)}")


def telling_nothing(name: str, work: Callable[[], Any]) -> Any:
    """The result of work, or an error that repeats nothing of the values, which may be passwords."""
    try:
        return work()
    except AnsibleError:
        raise  # a variable that is not defined, by its name
    except Exception as error:
        reason = type(error).__name__
    raise AnsibleFilterError(f"{name}: a value is not what the argument spec of the role says ({reason})")
