"""Measure encoding speed per format, next to llama.cpp's encoders and the memory's read rate.

GB/s count the bf16 input of all threads. If llama-cpp-python is installed, fewbit and then
llama.cpp encode the same f32 weights on one thread; the ratio compares these two, and their bytes
must be equal.

    pytest benches/bench_encode.py --benchmark-enable --benchmark-only
"""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from fewbit import _core
from fewbit.formats.table import FORMATS, find_format

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from benches.conftest import Save

ROWS, COLUMNS = 4096, 8192
ROUNDS = 5
PEER_ROWS = 64


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)


@pytest.fixture(scope="module")
def read_rate() -> float:
    return _core.read_rate()


@pytest.mark.parametrize(
    "format_", [*(n for n in FORMATS if n not in ("F32", "BF16")), "sym4-g32", "asym3-g64"]
)
def test_encode(
    format_: str,
    weights: NDArray[np.float32],
    read_rate: float,
    benchmark: BenchmarkFixture,
    save: Save,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = ROWS // 16 if format_.endswith("_K") else ROWS  # the searches are slow
    data = weights[:rows].astype(ml_dtypes.bfloat16).view(np.uint8)
    seconds: list[float] = []

    def encode() -> None:
        start = time.perf_counter()
        _core.encode(data, "BF16", COLUMNS, format_)
        seconds.append(time.perf_counter() - start)

    benchmark.pedantic(encode, rounds=ROUNDS, warmup_rounds=1)
    rate = data.nbytes / min(seconds) / 1e9
    line = f"{format_}: {rate:.2f} GB/s of bf16; memory reads {read_rate:.1f} GB/s"
    save("encoding", format_, "GB/s of bf16", "all threads", {"fewbit": [rate]})
    ratio = None
    if (seconds_of := _seconds(format_, weights[:PEER_ROWS])) is not None:
        ratio = seconds_of["llama.cpp"] / seconds_of["fewbit"]
        line += f"; {ratio:.2f} times llama.cpp's speed on one thread from f32"
        size = weights[:PEER_ROWS].nbytes / 1e9
        rates = {program: [size / each] for program, each in seconds_of.items()}
        save("encoding", format_, "GB/s of f32", "1 thread", rates)
    benchmark.extra_info.update(gb_per_second=rate, read_rate=read_rate, ratio=ratio)
    with capsys.disabled():
        print(f"\n{line}")


def _seconds(format_: str, x: NDArray[np.float32]) -> dict[str, float] | None:
    """Seconds of both encoders for the same bytes; None if llama.cpp's is not available."""
    spec, found = find_format(format_), importlib.util.find_spec("llama_cpp")
    if spec.gguf_id is None or spec.is_float or found is None or found.origin is None:
        return None
    ggml = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_init(spec.gguf_id)
    theirs = np.zeros((len(x), spec.row_bytes(COLUMNS)), np.uint8)

    def peer() -> None:
        ggml.ggml_quantize_chunk(
            ctypes.c_int(spec.gguf_id or 0),
            ctypes.c_void_p(x.ctypes.data),
            ctypes.c_void_p(theirs.ctypes.data),
            *(ctypes.c_int64(n) for n in (0, len(x), COLUMNS)),
            None,
        )

    ours = _core.encode(x.view(np.uint8), "F32", COLUMNS, format_, None, 1)
    own = _best(lambda: _core.encode(x.view(np.uint8), "F32", COLUMNS, format_, None, 1))
    other = _best(peer)
    assert (ours == theirs).all()
    return {"fewbit": own, "llama.cpp": other}


def _best(call: Callable[[], object]) -> float:
    """The shortest time of several calls, in seconds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
