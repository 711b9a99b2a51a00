"""GB/s of bf16 input that each format's encoder takes, beside memory reads and gguf-py.

pytest benches/bench_encode.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.quants import quantize
from numpy.typing import NDArray

from fewbit import _core
from fewbit.formats import FORMATS

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

ROWS, COLUMNS = 2048, 4096
ROUNDS = 5


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)


@pytest.fixture(scope="module")
def read_rate() -> float:
    return _core.read_rate()


@pytest.mark.parametrize("format_", [name for name in FORMATS if name not in ("F32", "BF16")])
def test_encode(
    format_: str,
    weights: NDArray[np.float32],
    read_rate: float,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = weights.astype(ml_dtypes.bfloat16).view(np.uint8)
    seconds: list[float] = []

    def encode() -> None:
        start = time.perf_counter()
        _core.encode(data, "BF16", COLUMNS, format_)
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(encode, rounds=ROUNDS, warmup_rounds=1)
    rate = data.nbytes / min(seconds) / 1e9
    line = f"{format_}: {rate:.2f} GB/s of bf16; memory reads {read_rate:.1f} GB/s"
    if (peer := _gguf_py(format_, weights)) is not None:
        line += f"; gguf-py {data.nbytes / peer / 1e9:.3f}, ratio {peer / min(seconds):.0f}"
    benchmark.extra_info.update(gb_per_second=rate, read_rate=read_rate)
    with capsys.disabled():
        print(f"\n{line}")


def _gguf_py(format_: str, weights: NDArray[np.float32]) -> float | None:
    """Seconds that gguf-py needs, None where it has no encoder. It starts from f32."""
    part = weights[: ROWS // 16]
    start = time.perf_counter()
    try:
        quantize(part, gguf.GGMLQuantizationType[format_])
    except NotImplementedError:
        return None
    return 16 * (time.perf_counter() - start)
