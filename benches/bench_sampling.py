"""Measure how long the core takes to choose the tokens of a step, beside NumPy's sort of the rows.

The logits are random with the vocabulary of Qwen3.5 (248,320 tokens), for one sequence and for 32.

    pytest benches/bench_sampling.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fewbit import _core

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

VOCAB = 248_320
ROUNDS = 9
SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature 1": {"temperature": 1.0},
    "top-p 0.95": {"temperature": 1.0, "top_p": 0.95},
    "top-k 40, top-p 0.95, min-p 0.05": {
        "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05,
    },
    "repeat penalty 1.1": {"temperature": 1.0, "repeat_penalty": 1.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def logits() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 3, (32, VOCAB)).astype(np.float32)


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The shortest time of `work`, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_sample(
    name: str,
    rows: int,
    logits: NDArray[np.float32],
    benchmark: BenchmarkFixture,
    save: Save,
    capsys: pytest.CaptureFixture[str],
) -> None:
    samplers = [_core.Sampler(seed=seed, **SAMPLINGS[name]) for seed in range(rows)]
    for sampler in samplers:
        sampler.accept(list(range(1000)))
    chosen = np.ascontiguousarray(logits[:rows])
    benchmark.pedantic(lambda: _core.sample(chosen, samplers), rounds=ROUNDS, warmup_rounds=1)
    seconds = best(lambda: _core.sample(chosen, samplers))
    sorting = best(lambda: np.argsort(-chosen[0]), 3) * rows
    rates = {"fewbit": [1000 * seconds], "NumPy's sort of the rows": [1000 * sorting]}
    save("sampling", name, "ms", f"{rows} rows of {VOCAB:,} logits", rates)
    with capsys.disabled():
        print(f"\n{name}, {rows} rows: {1000 * seconds:.2f} ms; a sort {1000 * sorting:.0f} ms")
