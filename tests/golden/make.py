"""Recreate the golden data from the stored inputs: ``python tests/golden/make.py quant``.

`quant` needs llama-cpp-python 0.3.36, an x86-64 build (its own compiler flags leave ggml-base
without fused multiply-add; the bytes of K and IQ formats depend on that).

Run on unchanged inputs it leaves the files as they are, so ``git diff`` shows what a new version
of a peer says differently.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FLOAT_POINTER = ctypes.POINTER(ctypes.c_float)


class Traits(ctypes.Structure):
    """The start of ggml's ``ggml_type_traits``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("block_interleave", ctypes.c_int64),
        ("bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, FLOAT_POINTER, ctypes.c_int64)),
    ]


def quant() -> None:
    """Bytes and values of each format in quant/info.json, from llama.cpp's own library."""
    import llama_cpp

    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    ggml = ctypes.CDLL(str(library))
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, FLOAT_POINTER, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_int64, FLOAT_POINTER,
    ]  # fmt: skip
    folder = HERE / "quant"
    x = np.load(folder / "input.npy")
    importance = np.load(folder / "imatrix.npy")
    for name, facts in json.loads((folder / "info.json").read_text())["types"].items():
        kind = facts["ggml_type"]
        weighted = encode(ggml, kind, x, importance)
        if not facts["requires_imatrix"]:
            plain = encode(ggml, kind, x, None)
            save(folder / f"{name}.c", decode(ggml, kind, plain, x.shape), plain)
            if (plain == weighted).all():
                continue
        save(folder / f"{name}.c_imatrix", decode(ggml, kind, weighted, x.shape), weighted)


def encode(ggml: ctypes.CDLL, kind: int, x: np.ndarray, importance: np.ndarray | None):
    """The bytes of each row, uint8 [rows, row_bytes]."""
    traits = ggml.ggml_get_type_traits(kind).contents
    rows, columns = x.shape
    out = np.zeros((rows, columns // traits.block * traits.bytes), np.uint8)
    weights = None if importance is None else importance.ctypes.data_as(FLOAT_POINTER)
    pointer = x.ctypes.data_as(FLOAT_POINTER)
    ggml.ggml_quantize_chunk(kind, pointer, out.ctypes.data, 0, rows, columns, weights)
    return out


def decode(ggml: ctypes.CDLL, kind: int, data: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The values of each row, float32 [rows, columns]."""
    out = np.zeros(shape, np.float32)
    to_float = ggml.ggml_get_type_traits(kind).contents.to_float
    for source, target in zip(data, out, strict=True):
        to_float(source.ctypes.data, target.ctypes.data_as(FLOAT_POINTER), shape[1])
    return out


def save(stem: Path, values: np.ndarray, data: np.ndarray) -> None:
    """Write ``STEM.bytes.npy`` and ``STEM.dequant.npy``."""
    np.save(f"{stem}.bytes.npy", data)
    np.save(f"{stem}.dequant.npy", values)


if __name__ == "__main__":
    {"quant": quant}[sys.argv[1]]()
