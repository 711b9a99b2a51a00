"""Importance matrices against llama.cpp's: the inputs of its products, from its own callback."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit.measure import evaluate
from tests.compare import within_bound
from tests.golden.loading import GGUFS, MODELS, asset

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the extra `peers`: llama-cpp-python")

TEXT = (MODELS / "llama" / "calibration.txt").read_text("utf-8")
CTX, CHUNKS = 64, 4
WITH_EXPERTS = ["qwen3_moe", "qwen3_next", "gpt_oss"]
NOISE = 2.0**-10
"""The part of a sum of squares that may differ: llama.cpp looks gelu up in a table of f16."""


class Tensor(ctypes.Structure):
    """``ggml_tensor`` of ggml.h."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


def values(tensor: Tensor, dtype: str) -> NDArray[Any]:
    """A view, outermost dimension first."""
    end = 4 + sum((n - 1) * b for n, b in zip(tensor.ne, tensor.nb, strict=True))
    raw = (ctypes.c_uint8 * end).from_address(tensor.data)
    return np.ndarray(tuple(tensor.ne)[::-1], dtype, raw, strides=tuple(tensor.nb)[::-1])


class Listener:
    """Sums and counts of the squared inputs of each weight of the blocks, by its name."""

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))

    def hear(self, tensor: Any, ask: bool, _: Any) -> bool:
        result = ctypes.cast(tensor, ctypes.POINTER(Tensor)).contents
        if not (result.src[0] and result.src[1]):
            return False
        weight, x = result.src[0].contents, result.src[1].contents
        name = weight.name.decode()
        if not name.startswith("blk.") or not name.endswith(".weight"):
            return False
        if weight.ne[0] != x.ne[0] or weight.ne[1] != result.ne[0]:
            return False  # no product
        if not ask:
            ids = values(result.src[2].contents, "<i4") if result.src[2] else None
            self._add(name, weight.ne[2], values(x, "<f4"), ids)
        return True

    def _add(self, name: str, matrices: int, x: NDArray[Any], ids: NDArray[Any] | None) -> None:
        sums = self.sums.setdefault(name, np.zeros((matrices, x.shape[-1])))
        if ids is None:
            sums[0] += (x.astype(np.float64) ** 2).sum((0, 1, 2))
            self.counts[name][0] += x.shape[0] * x.shape[1] * x.shape[2]
            return
        for token, chosen in enumerate(ids[0, 0]):
            for slot, expert in enumerate(chosen):
                row = x[0, token, slot % x.shape[2]].astype(np.float64)
                sums[expert] += row**2
                self.counts[name][expert] += 1


def whole(batch: Any, window: NDArray[np.uint32]) -> Any:
    """The batch with a window whose tokens all want logits: else the last block sees one."""
    batch.n_tokens = len(window)
    for place, token in enumerate(window.tolist()):
        batch.token[place], batch.pos[place], batch.logits[place] = token, place, True
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
    return batch


def listen(path: Path, windows: NDArray[np.uint32]) -> Listener:
    """Runs windows of tokens through llama.cpp."""
    listener = Listener()
    hear = llama_cpp.llama_cpp.ggml_backend_sched_eval_callback(listener.hear)
    settings = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = windows.shape[1]
    params.n_threads = params.n_threads_batch = 2
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = 0  # it would round to f16
    params.cb_eval = hear
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(windows.shape[1], 0, 1)
    for window in windows:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        assert llama_cpp.llama_decode(context, whole(batch, window)) == 0
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return listener


@pytest.mark.parametrize("name", [*WITH_EXPERTS, "qwen3_5", "llama", "gemma3"])
def test_the_sums_are_of_llama_cpp_s_inputs(name: str, tmp_path: Path) -> None:
    if name in GGUFS:
        file = asset(name, "model-f32.gguf")
    else:
        fewbit.load(asset(name).parent).save(file := tmp_path / "m.gguf")
    model = fewbit.load(file)
    theirs = listen(file, evaluate.windows(model, TEXT, CTX, CHUNKS).inputs)
    ours = model.imatrix(TEXT, ctx=CTX, chunks=CHUNKS)
    assert set(ours) == set(theirs.sums)
    for weight, sums in ours.sums.items():
        expected = theirs.sums[weight]
        counts = [theirs.counts[weight][matrix] for matrix in range(len(expected))]
        assert ours.counts[weight].tolist() == counts, weight
        floor = NOISE * expected.mean()
        within_bound(sums, expected, floor + NOISE * expected, f"inputs of {weight}")
