"""Seconds to the first token of a model whose file is in the page cache, beside llama.cpp.

A Llama of 1.1 billion random weights. Both open the file, make it ready for their kernels and
compute one token, round by round; from the shell it is `fewbit generate -n 1`, all of Python's
imports among it. GB/s are the file's bytes over the time of packing.

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

ROUNDS = 3
FORMATS = ("Q8_0", "Q6_K", "Q4_0", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS")
TOKEN = np.array([300], np.int32)


def first_token(file: Path) -> tuple[float, float]:
    """Seconds to one token's logits, and those of them in which weights are packed."""
    start = time.perf_counter()
    model = fewbit.load(file, "cpu", threads=THREADS)
    packing = time.perf_counter()
    assert model.weights.nbytes
    packed = time.perf_counter()
    model.forward(model.cache(1, 16), TOKEN.astype(np.uint32), acts="int8")
    return time.perf_counter() - start, packed - packing


def from_the_shell(file: Path) -> float:
    """Seconds until a command writes its first token."""
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
    format_: str, benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str]
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
    line = f"{format_}: fewbit {seconds:.2f} s, of which packing {packing:.2f} ({rate:.2f} GB/s"
    line += f", {rate / most:.0%} of {most:.1f}), from the shell {statistics.median(shell[1:]):.2f}"
    if theirs:
        line += f", llama.cpp {statistics.median(theirs[1:]):.2f}"
    benchmark.extra_info.update(
        seconds=ours, llama_cpp=theirs, shell=shell, read_rate=read, threads=THREADS
    )
    with capsys.disabled():
        print(f"\n{line}, {THREADS} threads")
