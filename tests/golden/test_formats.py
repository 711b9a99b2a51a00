"""Blocks of the oracle and of Rust against llama.cpp's: the same bytes, the same values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewbit import _core
from fewbit.errors import FormatError
from fewbit.formats.table import FORMATS
from reference.formats import BLOCKS, FLOAT_ROWS, decode_row, encode_row
from tests.compare import same_bits

QUANT = Path(__file__).parent / "quant"
ORACLE = [*FLOAT_ROWS, *BLOCKS]
RUST = [name for name in FORMATS if name != "F32"]
DEMANDING = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
"""Formats that llama.cpp, too, does not encode without importance."""
UNWEIGHTED = {"Q8_0", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"}
Weights = np.ndarray | None


def core_encode(row: np.ndarray, name: str, weights: Weights) -> bytes:
    return _core.encode(row.view(np.uint8)[None], "F32", row.size, name, weights).tobytes()


def oracle_encode(row: np.ndarray, name: str, weights: Weights) -> bytes:
    return encode_row(row.tolist(), name, None if weights is None else weights.tolist())


def core_decode(data: np.ndarray, name: str) -> np.ndarray:
    return _core.decode(data[None], name, 256)[0]


def oracle_decode(data: np.ndarray, name: str) -> np.ndarray:
    return np.float32(decode_row(data.tobytes(), name, 256))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.load(QUANT / "input.npy")


@pytest.fixture(scope="module")
def importance() -> np.ndarray:
    return np.load(QUANT / "imatrix.npy")


def stored(name: str, weighted: bool, kind: str) -> np.ndarray:
    """llama.cpp's bytes or values; formats that ignore the importance matrix have one set."""
    path = QUANT / f"{name}.c_imatrix.{kind}.npy"
    return np.load(path if weighted and path.exists() else QUANT / f"{name}.c.{kind}.npy")


def cases(oracle: Callable[..., Any], core: Callable[..., Any]) -> list[Any]:
    """Each format in Rust, and in the oracle."""
    return [
        *(pytest.param(name, core, id=f"rust-{name}") for name in RUST),
        *(pytest.param(name, oracle, id=f"reference-{name}") for name in ORACLE),
    ]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
@pytest.mark.parametrize(("name", "encode"), cases(oracle_encode, core_encode))
def test_encode(
    name: str,
    weighted: bool,
    encode: Callable[[np.ndarray, str, Weights], bytes],
    rows: np.ndarray,
    importance: np.ndarray,
) -> None:
    if name in DEMANDING and not weighted:
        with pytest.raises((FormatError, ValueError), match=r"needs .*importance"):
            encode(rows[0], name, None)
        return
    for row, expected in zip(rows, stored(name, weighted, "bytes"), strict=True):
        got = encode(row, name, importance if weighted else None)
        same_bits(got, expected.tobytes(), name)


@pytest.mark.parametrize(("name", "decode"), cases(oracle_decode, core_decode))
def test_decode(name: str, decode: Callable[[np.ndarray, str], np.ndarray]) -> None:
    weighted = name in DEMANDING
    data, values = stored(name, weighted, "bytes"), stored(name, weighted, "dequant")
    for row, expected in zip(data, values, strict=True):
        same_bits(decode(row, name), expected, name)


def test_importance_changes_the_bytes() -> None:
    """The golden sets differ, so that a test that ignored the weights would not pass."""
    weighted = {n for n in RUST if (QUANT / f"{n}.c_imatrix.bytes.npy").exists()}
    assert weighted == set(RUST) - UNWEIGHTED - set(FLOAT_ROWS)
    for name in weighted - set(DEMANDING):
        assert (stored(name, True, "bytes") != stored(name, False, "bytes")).any()
