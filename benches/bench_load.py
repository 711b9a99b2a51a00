"""Measure seconds to the first token of a model in the page cache, next to llama.cpp.

The model is a Llama of 1.1 billion random weights. In each round both programs open the file,
prepare the weights for their kernels and compute one token. The time "from the shell" is that of
`fewbit generate -n 1`, including Python's imports. GB/s are the file's bytes per second of packing.

    pytest benches/bench_load.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fewbit
from benches import random_llama
from benches.conftest import THREADS
from fewbit import _core

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

ROUNDS = 3
FORMATS = ("Q8_0", "Q6_K", "Q4_0", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS")
TOKEN = np.array([300], np.int32)


def first_token(file: Path) -> tuple[float, float]:
    """Seconds to one token's logits, and the seconds of these that pack the weights."""
    start = time.perf_counter()
    model = fewbit.load(file, "cpu", threads=THREADS)
    packing = time.perf_counter()
    assert model.weights.nbytes
    packed = time.perf_counter()
    model.forward(model.cache(1, 16), TOKEN.astype(np.uint32), acts="int8")
    return time.perf_counter() - start, packed - packing


def from_the_shell(file: Path) -> float:
    """Seconds until `fewbit generate` writes its first token."""
    command = [sys.executable, "-m", "fewbit", "generate", "-m", str(file), "-n", "1", "Hello"]
    command += ["--threads", str(THREADS)]
    start = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        # The prompt is written together with the first token.
        if process.stdout is None or not process.stdout.read(1):
            raise RuntimeError(f"no token: {' '.join(command)}")
        return time.perf_counter() - start


def llama_cpp_first_token(file: Path) -> float:
    """The same as `first_token` with llama.cpp."""
    from benches.llama_cpp_peer import Peer

    start = time.perf_counter()
    peer = Peer(file, THREADS)
    peer.measure(TOKEN, 1)
    seconds = time.perf_counter() - start
    peer.close()
    return seconds


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("format_", FORMATS)
def test_first_token(
    format_: str, benchmark: BenchmarkFixture, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    file = random_llama.path(format_)
    ours: list[tuple[float, float]] = []
    theirs: list[float] = []
    shell: list[float] = []
    read: list[float] = []

    def beside() -> None:
        read.append(_core.read_rate(THREADS))
        shell.append(from_the_shell(file))
        if importlib.util.find_spec("llama_cpp") is not None:
            theirs.append(llama_cpp_first_token(file))

    benchmark.pedantic(
        lambda: ours.append(first_token(file)), setup=beside, rounds=ROUNDS, warmup_rounds=1
    )
    seconds, packing = (statistics.median(times[1:]) for times in zip(*ours, strict=True))
    rate, most = file.stat().st_size / packing / 1e9, statistics.median(read[1:])
    line = f"{format_}: fewbit {seconds:.2f} s, packing {packing:.2f} ({rate:.2f} GB/s"
    line += f", {rate / most:.0%} of {most:.1f}), from the shell {statistics.median(shell[1:]):.2f}"
    if theirs:
        line += f", llama.cpp {statistics.median(theirs[1:]):.2f}"
    benchmark.extra_info.update(
        seconds=ours, llama_cpp=theirs, shell=shell, read_rate=read, threads=THREADS
    )
    in_process = {"fewbit": [total for total, _ in ours[1:]], "llama.cpp": theirs[1:]}
    save("Llama 1.1B", format_, "s", "first token", in_process)
    save("Llama 1.1B", format_, "s", "first token of the command", {"fewbit": shell[1:]})
    with capsys.disabled():
        print(f"\n{line}, {THREADS} threads")
