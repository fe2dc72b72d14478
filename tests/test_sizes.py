"""Sizes as people write them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofi_tune.sizes import as_text, size


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("off", 0),
        ("0", 0),
        ("4GiB", 4 * 2**30),
        ("4 GiB", 4 * 2**30),
        ("512mib", 512 * 2**20),
        ("4GB", 4 * 10**9),
        ("1.5KiB", 1536),
        ("7B", 7),
        ("2TiB", 2 * 2**40),
    ],
)
def test_reads(text: str, num_bytes: int) -> None:
    assert size(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "4", "-1GiB", "GiB", "4Gi", "4 gibibytes", "1e3MB", "nan", "none", "0x1B"]
)
def test_refuses_what_has_no_unit_or_is_no_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 4GiB, 512MB, or off"):
        size(text)


@given(st.integers(1, 2**50))
def test_what_is_written_is_read_again_to_three_digits(num_bytes: int) -> None:
    assert size(as_text(num_bytes)) == pytest.approx(num_bytes, rel=5.1e-3)
