"""Measure prompt and generation speed of random models in tokens/s, next to llama.cpp.

The models are a Llama of 1.1 billion weights, Qwen3-0.6B's shape, and a mixture of experts of 3.2
billion weights that reads 0.32 billion per token. Each round runs llama.cpp (if llama-cpp-python is
installed) and then fewbit, so a change of the machine's load affects both. Ratios are of medians.

    pytest benches/bench_generate.py --benchmark-enable --benchmark-only
    FEWBIT_BENCH_NEIGHBOURS=1 pytest benches/bench_generate.py --benchmark-enable -k "llama-Q8_0"

Environment variables:

FEWBIT_BENCH_NEIGHBOURS   number of busy processes that run next to the programs (0)
FEWBIT_BENCH_DEPTH        tokens in both KV caches before the measurement (0); llama.cpp's is f16
FEWBIT_BENCH_KV           element type of fewbit's KV cache: f32, f16 or int8 (f32)
FEWBIT_BENCH_ROUNDS       measured rounds (3)
FEWBIT_BENCH_IK           path of ik_llama.cpp's ``llama-bench`` (ik_peer.py), to run it in turn too
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fewbit
from benches import ik_peer, random_llama, random_moe
from benches.conftest import THREADS
from fewbit import _core
from fewbit.measure.speed import Case, Filled
from fewbit.plan.sizes import sizes_of

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save
    from benches.llama_cpp_peer import Peer

ROUNDS = int(os.environ.get("FEWBIT_BENCH_ROUNDS", "3"))
NEIGHBOURS = int(os.environ.get("FEWBIT_BENCH_NEIGHBOURS", "0"))
DEPTH = int(os.environ.get("FEWBIT_BENCH_DEPTH", "0"))
KV = os.environ.get("FEWBIT_BENCH_KV", "f32")
CASES = {"pp512": Case("pp", 512, DEPTH), "tg32": Case("tg", 32, DEPTH)}
NAMES = {
    "llama": "Llama 1.1B",
    "qwen3": "Qwen3 0.6B shape",
    "experts": "MoE 3.2B (0.32B active)",
}
CONDITIONS = (f", {DEPTH} tokens in the KV cache" if DEPTH else "") + (
    f", {NEIGHBOURS} busy processes" if NEIGHBOURS else ""
)
"""What a saved result adds to the model's name."""
FILES = {
    "llama": random_llama.path,
    "qwen3": partial(random_llama.path, shape=random_llama.QWEN3),
    "experts": random_moe.path,
}
FORMATS = {
    "llama": (
        *("BF16", "F16", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_0", "Q4_1", "Q4_K", "Q3_K", "Q2_K"),
        *("TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS", "MXFP4", "IQ3_S", "IQ2_S", "IQ1_M"),
    ),
    "qwen3": ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q2_K"),
    "experts": ("Q8_0", "Q4_0"),
}


@pytest.fixture(scope="module", params=[f"{kind}-{f}" for kind in FILES for f in FORMATS[kind]])
def loaded(request: pytest.FixtureRequest) -> Iterator[tuple[fewbit.Model, Peer | None, Path]]:
    kind, _, format_ = request.param.partition("-")
    file = FILES[kind](format_)
    model = fewbit.load(str(file), "cpu", threads=THREADS, kv=KV)
    if importlib.util.find_spec("llama_cpp") is None:
        yield model, None, file
        return
    from benches.llama_cpp_peer import Peer

    peer = Peer(file, THREADS, DEPTH + 1024)
    if DEPTH:
        peer.fill(np.arange(300, 300 + DEPTH, dtype=np.int32) % model.config.vocab)
    yield model, peer, file
    peer.close()


@pytest.fixture(scope="module", autouse=True)
def neighbours() -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NEIGHBOURS)]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", CASES)
def test_tokens_per_second(
    loaded: tuple[fewbit.Model, Peer | None, Path],
    name: str,
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    save: Save,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, peer, file = loaded
    case = CASES[name]
    filled = Filled(model, case, "int8")
    rng = np.random.default_rng(0)
    tokens = rng.integers(300, model.config.vocab, case.tokens).astype(np.int32)
    ours: list[float] = []
    theirs: list[float] = []
    iks: list[float] = []
    read: list[float] = []

    def beside() -> None:
        read.append(_core.read_rate(THREADS))
        if peer is not None:
            theirs.append(peer.measure(tokens, 512 if case.kind == "pp" else 1))
        if ik_peer.PROGRAM and not DEPTH:
            sizes_of = (case.tokens, 0) if case.kind == "pp" else (0, case.tokens)
            iks.append(ik_peer.measure(file, THREADS, *sizes_of))

    benchmark.pedantic(
        lambda: ours.append(filled.measure()), setup=beside, rounds=ROUNDS, warmup_rounds=1
    )
    rate, most = statistics.median(ours[1:]), statistics.median(read[1:])
    line = f"{case.name}: fewbit {rate:.1f} tokens/s"
    extra = {}
    if case.kind == "tg":
        gb = rate * sizes_of(model.plan, model.formats).bytes_per_token / 1e9
        extra = {"read GB/s": round(gb, 1), "fraction of read rate": round(gb / most, 2)}
        line += f" ({gb:.1f} GB/s, {gb / most:.0%} of {most:.1f})"
    if theirs:
        peer_rate = statistics.median(theirs[1:])
        line += f", llama.cpp {peer_rate:.1f}, ratio {rate / peer_rate:.2f}"
    if iks and (ik_rate := statistics.median(iks[1:])):
        line += f", ik_llama.cpp {ik_rate:.1f}, ratio {rate / ik_rate:.2f}"
    benchmark.extra_info.update(
        tokens_per_second=ours, llama_cpp=theirs, ik_llama_cpp=iks, read_rate=read, threads=THREADS,
        neighbours=NEIGHBOURS, depth=DEPTH, kv=KV,
    )  # fmt: skip
    values = {
        "fewbit": ours[1:],
        "llama.cpp": theirs[1:],
        "ik_llama.cpp": [x for x in iks[1:] if x],
    }
    kind, _, format_ = request.node.callspec.params["loaded"].partition("-")
    phase = "prompt 512" if case.kind == "pp" else "generation"
    save(NAMES[kind] + CONDITIONS, format_, "tokens/s", phase, values, **extra)
    with capsys.disabled():
        print(f"\n{line}, {THREADS} threads")
