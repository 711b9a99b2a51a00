"""Seconds to quantize a whole file, beside llama.cpp's own `llama_model_quantize`, in turns.

The input is a Llama of 1.1 billion bf16 weights (2.2 GB, mapped and read before, so no disk is
measured), the output a file beside it. Both use all cores that the process may, or
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

sys.path.insert(0, str(Path(__file__).parent))
import random_llama

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
    """Keeps llama.cpp from a line a tensor; what is returned must live on."""
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
    ours(source, mine, "Q8_0")  # the source is read, the threads are there
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


@pytest.mark.parametrize("recipe", RECIPES)
def test_quantize(
    recipe: str, benchmark: BenchmarkFixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llama_cpp")
    own, peer = benchmark.pedantic(measure, args=(recipe, tmp_path), rounds=1)
    benchmark.extra_info.update(fewbit=own, llama_cpp=peer)
    with capsys.disabled():
        print("\n" + line(recipe, own, peer))


if __name__ == "__main__":
    import tempfile

    for name in sys.argv[1:] or RECIPES:
        with tempfile.TemporaryDirectory() as scratch:
            print(line(name, *measure(name, Path(scratch))), flush=True)
