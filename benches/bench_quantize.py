"""Measure seconds to quantize a file, in turn with llama.cpp's `llama_model_quantize`.

The input is a Llama of 1.1 billion bf16 weights (2.2 GB, in the page cache, so the disk is not
measured), the output another file. Both programs use all cores of the process, or
FEWBIT_BENCH_THREADS; the bytes of all tensors must be equal.

    pytest benches/bench_quantize.py --benchmark-enable --benchmark-only
    python benches/bench_quantize.py Q8_0 Q4_K_M      # without pytest, a line a recipe
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fewbit
from fewbit.files.gguf import read_gguf
from fewbit.recipes.mixtures import FILE_TYPES

sys.path.insert(0, str(Path(__file__).parents[1]))
from benches import random_llama, saved_runs

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

RECIPES = ("Q8_0", "Q4_0", "Q2_K", "Q4_K_M", "Q6_K", "IQ4_XS")
ROUNDS = int(os.environ.get("FEWBIT_BENCH_ROUNDS", "3"))
THREADS = int(os.environ.get("FEWBIT_BENCH_THREADS", "0")) or len(os.sched_getaffinity(0))


def ours(source: Path, target: Path, recipe: str) -> float:
    start = time.perf_counter()
    fewbit.load(source, threads=THREADS).quantize(recipe).save(target)
    return time.perf_counter() - start


def theirs(source: Path, target: Path, recipe: str) -> float:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = FILE_TYPES[recipe], THREADS
    start = time.perf_counter()
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    assert code == 0
    return time.perf_counter() - start


def quiet() -> object:
    """Silence llama.cpp's log; the caller must hold the returned callback."""
    import llama_cpp

    drop = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(drop, ctypes.c_void_p(0))
    return drop


def same_tensors(a: Path, b: Path) -> bool:
    found, expected = read_gguf(a).tensors, read_gguf(b).tensors
    return list(found) == list(expected) and all(
        found[name].format == entry.format and (found[name].data == entry.data).all()
        for name, entry in expected.items()
    )


def measure(recipe: str, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of fewbit and of llama.cpp, round by round, with the same bytes."""
    _ = quiet()
    source = random_llama.path("BF16")
    mine, other = folder / "fewbit.gguf", folder / "llama.gguf"
    own, peer = [], []
    ours(source, mine, "Q8_0")  # warm-up: the page cache and the threads
    mine.unlink()
    for _round in range(ROUNDS):
        own.append(ours(source, mine, recipe))
        peer.append(theirs(source, other, recipe))
        assert same_tensors(mine, other)
        mine.unlink()
        other.unlink()
    return own, peer


def line(recipe: str, own: list[float], peer: list[float]) -> str:
    a, b = statistics.median(own), statistics.median(peer)
    size = random_llama.path("BF16").stat().st_size / 1e9
    return (
        f"{recipe}: {a:.2f} s ({size / a:.2f} GB/s of bf16), llama.cpp {b:.2f} s, "
        f"{b / a:.2f} times its speed on {THREADS} threads"
    )


def append(recipe: str, own: list[float], peer: list[float], run: Path | None) -> None:
    """Append the result to a saved run, if there is one."""
    values = {"fewbit": own, "llama.cpp": peer}
    result = saved_runs.result("Llama 1.1B from bf16", recipe, "s", "file to file", values)
    if run is not None:
        saved_runs.append(run, THREADS, [result])


@pytest.mark.parametrize("recipe", RECIPES)
def test_quantize(
    recipe: str,
    benchmark: BenchmarkFixture,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("llama_cpp")
    own, peer = benchmark.pedantic(measure, args=(recipe, tmp_path), rounds=1)
    benchmark.extra_info.update(fewbit=own, llama_cpp=peer)
    append(recipe, own, peer, saved_runs.target(request.config.getoption("--save-run")))
    with capsys.disabled():
        print("\n" + line(recipe, own, peer))


if __name__ == "__main__":
    import tempfile

    for name in sys.argv[1:] or RECIPES:
        with tempfile.TemporaryDirectory() as scratch:
            times = measure(name, Path(scratch))
        append(name, *times, saved_runs.target(None))
        print(line(name, *times), flush=True)
