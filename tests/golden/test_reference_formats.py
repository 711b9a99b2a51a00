"""The oracle's blocks against llama.cpp's: the same bytes, and the same values out of them."""

from pathlib import Path

import numpy as np
import pytest

from reference.formats import BLOCKS, FLOAT_ROWS, decode_row, encode_row
from tests.compare import same_bits

QUANT = Path(__file__).parent / "quant"
FORMATS = [*FLOAT_ROWS, *BLOCKS]


@pytest.fixture(scope="module")
def rows():
    return np.load(QUANT / "input.npy")


@pytest.fixture(scope="module")
def importance():
    return np.load(QUANT / "imatrix.npy").tolist()


def stored(name: str, weighted: bool, kind: str) -> np.ndarray:
    """llama.cpp's bytes or values; formats that ignore the importance matrix have one set."""
    path = QUANT / f"{name}.c_imatrix.{kind}.npy"
    return np.load(path if weighted and path.exists() else QUANT / f"{name}.c.{kind}.npy")


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("name", FORMATS)
def test_encode(name, weighted, rows, importance):
    for row, expected in zip(rows, stored(name, weighted, "bytes"), strict=True):
        got = encode_row(row.tolist(), name, importance if weighted else None)
        same_bits(got, expected.tobytes(), name)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize("name", FORMATS)
def test_decode(name, weighted):
    data, values = stored(name, weighted, "bytes"), stored(name, weighted, "dequant")
    for row, expected in zip(data, values, strict=True):
        same_bits(np.float32(decode_row(row.tobytes(), name, 256)), expected, name)


def test_importance_changes_the_bytes():
    """The golden sets differ, so that a test that ignored the weights would not pass."""
    weighted = [n for n in BLOCKS if (QUANT / f"{n}.c_imatrix.bytes.npy").exists()]
    assert sorted(weighted) == sorted(set(BLOCKS) - {"Q8_0"})
    for name in weighted:
        assert (stored(name, True, "bytes") != stored(name, False, "bytes")).any()
