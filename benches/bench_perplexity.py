"""Measure perplexity in tokens/s, in windows of 512 with the second half scored.

The model is a Llama of 1.1 billion random weights, the text random letters. fewbit's time goes from
the text to the perplexity; llama.cpp's includes only computing the same logits.

    pytest benches/bench_perplexity.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import importlib.util
import statistics
import string
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fewbit
from benches import random_llama
from benches.conftest import THREADS

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

CTX, WINDOWS, ROUNDS = 512, 2, 3


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("format_", ["Q8_0", "Q4_K"])
def test_perplexity(
    format_: str, benchmark: BenchmarkFixture, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    file = random_llama.path(format_)
    model = fewbit.load(file, "cpu", threads=THREADS)
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list(string.ascii_letters), CTX * WINDOWS + 1))
    tokens = rng.integers(300, model.config.vocab, CTX).astype(np.int32)
    peer = None
    if importlib.util.find_spec("llama_cpp") is not None:
        from benches.llama_cpp_peer import Peer

        peer = Peer(file, THREADS)
    ours: list[float] = []
    theirs: list[float] = []

    def beside() -> None:
        if peer is not None:
            theirs.append(peer.measure_scored(tokens, CTX // 2))

    def run() -> None:
        start = time.perf_counter()
        model.perplexity(text, ctx=CTX, chunks=WINDOWS, acts="int8")
        ours.append(CTX * WINDOWS / (time.perf_counter() - start))

    benchmark.pedantic(run, setup=beside, rounds=ROUNDS, warmup_rounds=1)
    rate = statistics.median(ours[1:])
    line = f"perplexity at {format_}: fewbit {rate:.1f} tokens/s"
    if peer is not None:
        other = statistics.median(theirs[1:])
        line += f", llama.cpp {other:.1f}, ratio {rate / other:.2f}"
        peer.close()
    benchmark.extra_info.update(tokens_per_second=ours, llama_cpp=theirs, threads=THREADS)
    values = {"fewbit": ours[1:], "llama.cpp": theirs[1:]}
    save("Llama 1.1B, perplexity", format_, "tokens/s", f"windows of {CTX}", values)
    with capsys.disabled():
        print(f"\n{line}, {THREADS} threads")
