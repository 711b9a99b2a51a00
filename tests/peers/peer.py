"""llama.cpp for the tests: its quantizer, a model loaded by it, and files to compare."""

from __future__ import annotations

import ctypes
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit.files.gguf import read_gguf
from tests.compare import within_bound

NEEDS = "needs the extra `peers`: llama-cpp-python"
llama_cpp: Any = importlib.import_module("llama_cpp") if find_spec("llama_cpp") else None
"""None where it is not installed: each test file then skips itself."""

Importance = dict[str, NDArray[np.float32]] | None


def llama_quantize(
    source: Path, target: Path, file_type: int, pure: bool = False, importance: Importance = None
) -> bool:
    """Whether llama.cpp did it."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.pure = file_type, 2, pure
    entry = llama_cpp.llama_cpp.llama_model_imatrix_data
    entries = (entry * (len(importance or {}) + 1))()
    for slot, (name, values) in zip(entries, (importance or {}).items(), strict=False):
        slot.name, slot.size = name.encode(), values.size
        slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if importance:
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(entry))
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    return bool(code == 0)


def same_tensors(ours: Path, theirs: Path, made_by_exp: tuple[str, ...] = ()) -> None:
    """Both have the same tensors in the same order with the same bytes; those whose names end in
    one of `made_by_exp` may differ in the last bits.
    """
    found, expected = read_gguf(ours).tensors, read_gguf(theirs).tensors
    assert list(found) == list(expected)
    formats = {name: (found[name].format, entry.format) for name, entry in expected.items()}
    assert not {name: pair for name, pair in formats.items() if pair[0] != pair[1]}
    for name, entry in expected.items():
        if name.endswith(made_by_exp):
            values = entry.data.view("<f4")
            within_bound(found[name].data.view("<f4"), values, 2e-7 * np.abs(values), name)
            continue
        assert found[name].data.tobytes() == entry.data.tobytes(), name


class Peer:
    """A GGUF file in llama.cpp: tokens of texts and logits after them."""

    def __init__(self, path: Path) -> None:
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=2,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
        )  # fmt: skip

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        self.llama.reset()
        self.llama.eval(ids)
        return np.array(self.llama.scores[: len(ids)], np.float32)
