"""Measure single products: each format on each instruction set, with few tokens and with a prompt.

With few tokens (1, 4 and 16) the matrix is larger than any cache and memory is the limit: GB/s of
weights, compared with the memory's read rate. With a prompt of 512 the matrix is as large as in a
layer of a small model and arithmetic is the limit: GMAC/s (10^9 multiply-adds per second), compared
with the peak rate of the instruction set. Rounding the activations is included. Each round measures
the limit in turn with the product, so both meet the same load of the machine.

    pytest benches/bench_kernels.py --benchmark-enable --benchmark-json here.json
    pytest benches/bench_kernels.py --benchmark-enable -k "Q4_K and avx2"
"""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from benches.conftest import THREADS
from fewbit import _core
from fewbit.formats.table import find_format

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

FORMATS = [
    *("BF16", "F16", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_0", "Q4_1", "Q4_K", "Q3_K", "Q2_K"),
    *("Q1_0", "TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ3_S", "IQ2_S", "IQ1_M"),
    *("sym4-g32", "asym3-g64"),
]
SHAPES = {
    "one token": (16_384, 8192, 1),
    "4 tokens": (16_384, 8192, 4),
    "16 tokens": (16_384, 8192, 16),
    "prompt": (2048, 2048, 512),
}
"""Rows and columns of the matrix, and tokens."""
DISTINCT = 64
"""Rows that are encoded; the matrix repeats them."""
ROUNDS = 5


def matrix(format_: str, rows: int, columns: int) -> NDArray[np.uint8]:
    x = np.random.default_rng(0).normal(0, 0.02, (DISTINCT, columns)).astype(np.float32)
    encoded = _core.encode(x.view(np.uint8), "F32", columns, format_)
    return np.resize(encoded, (rows, encoded.shape[1]))


def product(format_: str, isa: str, rows: int, columns: int) -> _core.Executor:
    weights = _core.Weights()
    weights.add("x", "F32", 16, columns, np.ones((16, columns), np.float32).view(np.uint8))
    weights.add("w", format_, rows, columns, matrix(format_, rows, columns))
    plan = [
        {"op": "embed", "inputs": [], "weights": ["x"], "width": columns},
        {"op": "linear", "inputs": [0], "weights": ["w"], "width": rows},
    ]
    return _core.Executor(json.dumps(plan), weights, THREADS, isa)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("isa", [isa for isa in _core.isas() if isa != "scalar"])
@pytest.mark.parametrize("format_", FORMATS)
def test_product(
    format_: str,
    isa: str,
    shape: str,
    benchmark: BenchmarkFixture,
    save: Save,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows, columns, tokens = SHAPES[shape]
    executor = product(format_, isa, rows, columns)
    cache = executor.cache(1, 16 * tokens)
    ids = np.arange(tokens, dtype=np.uint32) % 16
    owners, outputs = np.zeros_like(ids), np.arange(tokens, dtype=np.uint32)
    few_tokens = shape != "prompt"
    seconds: list[float] = []
    ceilings: list[float] = []

    def beside() -> None:
        if few_tokens:
            ceilings.append(_core.read_rate(THREADS))
        else:
            ceilings.append(_core.peak_rate(THREADS, isa))

    def run() -> None:
        cache.reset()
        start = time.perf_counter()
        executor.forward(cache, ids, owners, outputs, "int8")
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(run, setup=beside, rounds=ROUNDS, warmup_rounds=2)
    weights = rows * columns
    work = weights * find_format(format_).bits_per_weight / 8 if few_tokens else weights * tokens
    rate = work / statistics.median(seconds[2:]) / 1e9
    ceiling = statistics.median(ceilings)
    unit = "GB/s" if few_tokens else "GMAC/s"
    benchmark.extra_info.update(
        format=format_, isa=isa, shape=shape, tokens=tokens, rate=rate, ceiling=ceiling, unit=unit,
        bits_per_weight=find_format(format_).bits_per_weight,
    )  # fmt: skip
    limit = {f"fraction of {'read rate' if few_tokens else 'peak'}": round(rate / ceiling, 3)}
    save("product", format_, unit, f"{shape}, {isa}", {"fewbit": [rate]}, **limit)
    with capsys.disabled():
        print(
            f"\n{format_} {isa} {shape}: {rate:.1f} {unit}, {rate / ceiling:.0%} of {ceiling:.1f}"
        )
