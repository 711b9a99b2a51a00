"""Measure many short texts at once next to a loop over them: texts/s of generation and scoring.

The demo continues 1,000 prompts of 2 to 9 words by 16 tokens, and scores four endings of each. The
loops are `fewbit.Model.generate` for each prompt, and `fewbit.Model.logits` for each ending. Both
must give the same texts and scores, to the bit.

    pytest benches/bench_many.py --benchmark-enable --benchmark-only --save-run auto

FEWBIT_BENCH_TEXTS is the number of prompts (1000).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import fewbit
from benches.conftest import THREADS
from fewbit import _core
from fewbit.measure.score import pair_ids

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

TEXTS = int(os.environ.get("FEWBIT_BENCH_TEXTS", "1000"))
WORDS = ("the", "old", "house", "a", "small", "dog", "river", "brother", "town", "letter", "came")
ENDINGS = (" home.", " was in the garden.", " A", " B")


def test_generate_many(benchmark: BenchmarkFixture, save: Save) -> None:
    model, prompts = fewbit.load("demo", "cpu", threads=THREADS), texts()
    options: dict[str, Any] = {"max_tokens": 16, "temperature": 0}

    def loop() -> list[str]:
        return [str(model.generate(prompt, **options)) for prompt in prompts]

    def many() -> list[str]:
        return [str(each) for each in model.generate_many(prompts, **options)]

    compare("generation", loop, many, benchmark, save)


def test_score(benchmark: BenchmarkFixture, save: Save) -> None:
    model = fewbit.load("demo", "cpu", threads=THREADS)
    pairs = [(prompt, ending) for prompt in texts() for ending in ENDINGS]

    def one(context: str, ending: str) -> tuple[float, ...]:
        first, second = pair_ids(model.tokenizer, context, ending)
        rows = model.logits([*first, *second[:-1]])[len(first) - 1 :]
        return tuple((-_core.nll(rows, np.array(second, np.uint32))).tolist())

    def loop() -> list[tuple[float, ...]]:
        return [one(*pair) for pair in pairs]

    def many() -> list[tuple[float, ...]]:
        return [each.token_logprobs for each in model.score(pairs)]

    compare("scoring", loop, many, benchmark, save)


def texts() -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(TEXTS)]


def compare(
    phase: str,
    loop: Callable[[], Any],
    many: Callable[[], Any],
    benchmark: BenchmarkFixture,
    save: Save,
) -> None:
    """Run both, check that they agree, and save texts/s of each."""
    start = time.perf_counter()
    alone = loop()
    between = time.perf_counter()
    together = benchmark.pedantic(many, rounds=1, warmup_rounds=0)
    end = time.perf_counter()
    assert together == alone
    values = {"fewbit": [TEXTS / (end - between)], "loop": [TEXTS / (between - start)]}
    benchmark.extra_info["ratio"] = values["fewbit"][0] / values["loop"][0]
    save(f"demo, {TEXTS} texts", "BF16", "texts/s", phase, values)
