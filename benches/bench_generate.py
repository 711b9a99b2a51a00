"""Prompt and generation tokens/s of random models, beside llama.cpp in the same run.

A Llama of 1.1 billion weights, and a mixture of experts of 3.2 of which a token reads 0.32.

Every round first runs llama.cpp (where llama-cpp-python is installed) and then fewbit, so that a
change in the machine's load meets both; the ratio is that of the medians.

    pytest benches/bench_generate.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fewbit
from benches import random_llama, random_moe
from fewbit import _core, bench
from fewbit.sizes import sizes

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.llama_cpp_peer import Peer

THREADS = int(os.environ.get("FEWBIT_BENCH_THREADS", "0")) or len(os.sched_getaffinity(0))
ROUNDS = 3
TESTS = {"pp512": (512, 512), "tg32": (32, 1)}
"""Tokens, and how many of them go in at a time."""


FILES = {"llama": random_llama.path, "experts": random_moe.path}


@pytest.fixture(scope="module", params=[f"{kind}-{f}" for kind in FILES for f in ("Q8_0", "Q4_0")])
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[fewbit.Model, Peer | None]]:
    kind, _, format_ = request.param.partition("-")
    file = FILES[kind](format_)
    model = fewbit.load(str(file), threads=THREADS)
    if importlib.util.find_spec("llama_cpp") is None:
        yield model, None
        return
    from benches.llama_cpp_peer import Peer

    peer = Peer(file, THREADS)
    yield model, peer
    peer.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TESTS)
def test_tokens_per_second(
    loaded: tuple[fewbit.Model, Peer | None],
    name: str,
    benchmark: BenchmarkFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, peer = loaded
    count, batch = TESTS[name]
    tokens = np.random.default_rng(0).integers(300, model.config.vocab, count).astype(np.int32)
    ours: list[float] = []
    theirs: list[float] = []

    def beside() -> None:
        if peer is not None:
            theirs.append(peer.measure(tokens, batch))

    benchmark.pedantic(
        lambda: ours.append(bench.measure(model, count, batch, "int8")),
        setup=beside,
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    rate = statistics.median(ours[1:] or ours)
    line = f"{name}: fewbit {rate:.1f} tokens/s"
    if batch == 1:
        gb = rate * sizes(model).bytes_per_token / 1e9
        line += f" ({gb:.1f} GB/s of {_core.read_rate(THREADS):.1f})"
    if theirs:
        peer_rate = statistics.median(theirs[1:] or theirs)
        line += f", llama.cpp {peer_rate:.1f}, ratio {rate / peer_rate:.2f}"
    benchmark.extra_info.update(tokens_per_second=ours, llama_cpp=theirs, threads=THREADS)
    with capsys.disabled():
        print(f"\n{line}, {THREADS} threads")
