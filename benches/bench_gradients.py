"""Measure forward and backward passes in tokens/s: two windows of 512 tokens, f32 activations.

`forward` computes all logits, `backward` the gradients of every layer besides, `covariances` also
the covariances of the gradients of each product's output. The model is the demo in bfloat16.

    pytest benches/bench_gradients.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fewbit
from benches.conftest import THREADS
from fewbit import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

CTX, WINDOWS, ROUNDS = 512, 2, 5


@pytest.mark.timeout(600)
def test_gradients(
    benchmark: BenchmarkFixture, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fewbit.load("demo", "cpu", threads=THREADS)
    core = _core.Differentiator(model.plan.to_json(), model.weights, threads=THREADS)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab, CTX * WINDOWS, np.uint32)
    uniforms = np.random.default_rng(1).random(tokens.size)
    names = {name for layer in core.products[:-1] for name in layer}
    cache = model.cache(1, CTX)

    def forward() -> None:
        for start in range(0, tokens.size, CTX):
            cache.reset()
            model.forward(cache, tokens[start : start + CTX], acts="f32")

    def backward(observer: _core.OutputCovariances | None = None) -> None:
        made = core.forward(tokens, [CTX] * WINDOWS)
        core.sampled_loss(made, uniforms, observer)
        while core.back(made, observer) is not None:
            pass

    def covariances() -> None:
        backward(_core.OutputCovariances(names, set()))

    passes: dict[str, Callable[[], None]] = {
        "forward": forward, "backward": backward, "covariances": covariances,
    }  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in passes}

    def run() -> None:
        for name, work in passes.items():
            start = time.perf_counter()
            work()
            rates[name].append(tokens.size / (time.perf_counter() - start))

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(rates, threads=THREADS)
    middle = {name: statistics.median(found[1:]) for name, found in rates.items()}
    for name, found in rates.items():
        save("demo, gradients", "BF16", "tokens/s", name, {"fewbit": found[1:]})
    with capsys.disabled():
        line = ", ".join(f"{name} {rate:.0f}" for name, rate in middle.items())
        print(f"\ngradients of the demo: {line} tokens/s, {THREADS} threads")
