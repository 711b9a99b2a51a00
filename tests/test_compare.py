"""The two comparisons of tests/compare.py can fail."""

import numpy as np
import pytest

from tests.compare import same_bits, within_bound


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.float32([0.0]), np.float32([-0.0])),
        (np.float32([1.0]), np.float64([1.0])),
        (np.zeros(2), np.zeros(3)),
        (b"ab", b"ac"),
    ],
)
def test_same_bits_fails(got, expected):
    same_bits(got, got)
    with pytest.raises(AssertionError):
        same_bits(got, expected)


def test_same_bits_names_the_first_difference():
    with pytest.raises(AssertionError, match=r"rows: 1 of 4 differ, first at \[1, 0\].*0x3"):
        same_bits(np.uint8([[1, 2], [3, 4]]), np.uint8([[1, 2], [5, 4]]), "rows")


@pytest.mark.parametrize("got", [1.2, np.nan, np.inf])
def test_within_bound_fails(got):
    within_bound([1.05, 2.0], [1.0, 2.0], [0.1, 0.0])
    with pytest.raises(AssertionError, match=r"worst at \[0\]|differ"):
        within_bound([got, 2.0], [1.0, 2.0], 0.1)
