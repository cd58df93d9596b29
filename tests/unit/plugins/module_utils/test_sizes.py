# Copyright: (c) 2026, kvm.storage contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes mean what libvirt says they mean. tests/contract/test_libvirt.py asks libvirt itself about the same units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.storage.plugins.module_utils import sizes

KIB, KB = 1024, 1000
UNITS = {
    "": 1, "B": 1, "b": 1, "byte": 1, "bytes": 1, "Bytes": 1,
    "K": KIB, "k": KIB, "KiB": KIB, "kib": KIB, "KIB": KIB, "KB": KB, "kb": KB, "kB": KB,
    "M": KIB**2, "MiB": KIB**2, "mib": KIB**2, "MB": KB**2,
    "G": KIB**3, "GiB": KIB**3, "GB": KB**3, "gb": KB**3,
    "T": KIB**4, "TiB": KIB**4, "TB": KB**4,
    "P": KIB**5, "PiB": KIB**5, "PB": KB**5,
    "E": KIB**6, "EiB": KIB**6, "EB": KB**6,
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("form", ["3{}", "3 {}", " 3  {} ", "3.0{}", "003{}"])
def test_unit(unit, form):
    assert sizes.parse(form.format(unit)) == 3 * UNITS[unit]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        ("0", 0),
        (10737418240, 10737418240),
        ("1.5GiB", 1610612736),
        ("0.5K", 512),
        ("0.1KB", 100),
        ("2.5 TiB", 2748779069440),
        ("9223372036854775807", 2**63 - 1),
        ("8191PiB", 8191 * 2**50),
        ("7EiB", 7 * 2**60),
        ("7.5EiB", 15 * 2**59),
        ("9.223372036854775807EB", 2**63 - 1),
    ],
)
def test_value(text, size):
    assert sizes.parse(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "number with a unit"),
        (" ", "number with a unit"),
        ("GiB", "number with a unit"),
        ("-1", "number with a unit"),
        ("+1", "number with a unit"),
        ("1,5GiB", "number with a unit"),
        ("1e3", "number with a unit"),
        (".5G", "number with a unit"),
        ("5.G", "number with a unit"),
        ("0x10", "number with a unit"),
        ("1_000", "number with a unit"),
        ("١٠G", "number with a unit"),
        ("10 GiB 5", "number with a unit"),
        ("10GiB\n-rf", "number with a unit"),
        ("9" * 41, "number with a unit"),
        (True, "number with a unit"),
        (None, "number with a unit"),
        ("10X", "libvirt's units"),
        ("10Gi", "libvirt's units"),
        ("10Gb/s", "number with a unit"),
        ("10BB", "libvirt's units"),
        ("10GiBs", "libvirt's units"),
        ("10Z", "libvirt's units"),
        ("0.5", "whole number of bytes"),
        ("0.0001KiB", "whole number of bytes"),
        ("1.00000000000000000001GB", "whole number of bytes"),
        (2**63, "at most 9223372036854775807"),
        ("8EiB", "at most 9223372036854775807"),
        ("9.3EB", "at most 9223372036854775807"),
        ("99999999999999999999999", "at most 9223372036854775807"),
    ],
)
def test_refused(text, words):
    with pytest.raises(ValueError, match=words):
        sizes.parse(text)


@given(st.integers(0, 2**63 - 1))
def test_bytes_are_exact(size):
    assert sizes.parse(size) == sizes.parse(str(size)) == sizes.parse(f"{size} bytes") == size


@given(st.integers(0, 10**6), st.sampled_from("KMGT"), st.sampled_from(["", "iB"]))
def test_case_means_nothing(count, letter, rest):
    text = f"{count}{letter}{rest}"
    assert sizes.parse(text) == sizes.parse(text.lower()) == sizes.parse(text.upper())


@given(st.integers(0, 10**6), st.sampled_from([unit for unit in UNITS if unit[:1].upper() not in "PE"]))
def test_tenths_are_exact_or_refused(tenths, unit):
    text = f"{tenths // 10}.{tenths % 10}{unit}"
    if tenths * UNITS[unit] % 10:
        with pytest.raises(ValueError, match="whole number of bytes"):
            sizes.parse(text)
    else:
        assert sizes.parse(text) == tenths * UNITS[unit] // 10


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_value_error(text):
    try:
        assert 0 <= sizes.parse(text) <= sizes.LARGEST
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (20 * 2**30, "20.0 GiB"),
        (1536 * 2**20, "1.5 GiB"),
        (2**40, "1.0 TiB"),
        (2**50, "1.0 PiB"),
        (2**60, "1.0 EiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_readable(size, text):
    assert sizes.readable(size) == text
    assert sizes.both(size) == f"{text} ({size})"
