# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room in a pool: a table of what is asked, what there is and what is said of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.kvm.storage.plugins.module_utils import headroom
from ansible_collections.kvm.storage.plugins.module_utils.contents import THIN_POOL, Contents, Entry
from ansible_collections.kvm.storage.plugins.module_utils.errors import StorageError
from ansible_collections.kvm.storage.plugins.module_utils.headroom import Policy

GIB = 2**30
WARN, REFUSE, ALLOW = Policy(), Policy("refuse"), Policy("allow")
DOUBLE = Policy("refuse", 2.0)


@pytest.mark.parametrize(
    ("now", "promised", "capacity", "available", "policy", "said"),
    [
        (0, 0, 10 * GIB, 5 * GIB, WARN, ""),
        (0, 10 * GIB, 10 * GIB, 0, WARN, ""),  # all that there is, and no byte more
        (0, 10 * GIB + 1, 10 * GIB, 0, WARN, "warning"),
        (0, 10 * GIB + 1, 10 * GIB, 0, REFUSE, "no_space"),
        (0, 99 * GIB, 10 * GIB, 0, ALLOW, ""),
        (5 * GIB, 5 * GIB, 10 * GIB, 5 * GIB, WARN, ""),
        (5 * GIB + 1, 5 * GIB, 10 * GIB, 5 * GIB, WARN, "no_space"),
        (5 * GIB + 1, 5 * GIB, 10 * GIB, 5 * GIB, ALLOW, "no_space"),  # no policy makes room
        (1, 0, 10 * GIB, -4096, ALLOW, "no_space"),  # a file system below its reserve
        (0, 20 * GIB, 10 * GIB, 5 * GIB, DOUBLE, ""),
        (0, 20 * GIB + 1, 10 * GIB, 5 * GIB, DOUBLE, "no_space"),
        (0, 6 * GIB, 10 * GIB, 5 * GIB, Policy("warn", 0.5), "warning"),
        (99 * GIB, 99 * GIB, None, None, REFUSE, ""),  # what is not known is not compared
        (0, 99 * GIB, 0, None, REFUSE, ""),
    ],
)
def test_check(now, promised, capacity, available, policy, said):
    try:
        warnings = headroom.check("volume 'p/v'", now, promised, capacity, available, policy, "pool 'p'")
        found = "warning" if warnings else ""
        assert all("volume 'p/v'" in one and "pool 'p'" in one for one in warnings)
    except StorageError as error:
        found = error.code
        assert error.way_out
        assert "pool 'p'" in error.reason
    assert found == said


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("inf"), float("nan")])
def test_ratio_that_is_none(ratio):
    with pytest.raises(StorageError) as error:
        headroom.policy_of("volume 'p/v'", {"overcommit_ratio": ratio})
    assert error.value.code == "bad_value"


def test_policy_of_nothing_given():
    assert headroom.policy_of("volume 'p/v'", {}) == WARN


class Connection:
    """A pool of 10 GiB, of which 4 are left, with one volume of 6 GiB."""

    local = True

    def __init__(self):
        self.looks, self.asked = {}, 0

    def once(self, look, make):
        if look not in self.looks:
            self.looks[look] = make()
        return self.looks[look]

    def active(self, pool):
        return True

    def pool(self, name):
        return SimpleNamespace(info=self.info)

    def info(self):
        self.asked += 1
        return [2, 10 * GIB, 6 * GIB, 4 * GIB]

    def volumes(self, pool):
        return {"there": SimpleNamespace(info=lambda: [0, 6 * GIB, 0])}


def volume(connection, name, contents=None, space=None):
    return SimpleNamespace(
        connection=connection,
        pool_name="p",
        volume_name=name,
        label=f"volume 'p/{name}'",
        directory=lambda: "",
        backend=SimpleNamespace(space=lambda options: space),
        pool_options=dict,
        contents=lambda: contents,
    )


def test_what_one_run_asks_for_counts_together():
    """Each of them alone would have room."""
    connection = Connection()
    assert headroom.room(volume(connection, "a"), 3 * GIB, 3 * GIB, REFUSE) == []
    assert headroom.room(volume(connection, "a"), 3 * GIB, 3 * GIB, REFUSE) == []  # the same one, looked at again
    with pytest.raises(StorageError) as error:
        headroom.room(volume(connection, "b"), 3 * GIB, 3 * GIB, WARN)
    assert error.value.code == "no_space"
    assert connection.asked == 1


def test_warned_of_once_a_run():
    connection = Connection()
    assert [len(headroom.room(volume(connection, name), 9 * GIB, 0, WARN)) for name in "abc"] == [1, 0, 0]


def test_backends_own_command_is_believed_first():
    """libvirt knows what it saw at the last refresh."""
    assert headroom.room(volume(Connection(), "a", space=(99 * GIB, 90 * GIB)), 9 * GIB, 9 * GIB, REFUSE) == []


def test_thin_pool():
    contents = Contents(
        {
            "thin": Entry("thin", kind=THIN_POOL, capacity=10 * GIB),
            "one": Entry("one", thin_pool="thin", capacity=8 * GIB),
        }
    )
    thin = volume(Connection(), "a", contents)
    assert headroom.room(thin, 2 * GIB, 2 * GIB, REFUSE, "thin") == []
    with pytest.raises(StorageError, match="thin pool 'thin'"):
        headroom.room(thin, 3 * GIB, 3 * GIB, REFUSE, "thin")


@pytest.mark.parametrize(("now", "refused"), [(GIB, False), (2 * GIB, True)])
def test_what_a_thin_pool_has_left(now, refused):
    """Whatever it may promise: once it is full, the guests of all its volumes can't write."""
    contents = Contents({"thin": Entry("thin", kind=THIN_POOL, capacity=10 * GIB, allocation=9 * GIB)})
    thin, allow = volume(Connection(), "a", contents), headroom.Policy("allow")
    if refused:
        with pytest.raises(StorageError, match="thin pool 'thin' has 1.0 GiB left"):
            headroom.room(thin, now, now, allow, "thin")
    else:
        assert headroom.room(thin, now, now, allow, "thin") == []
