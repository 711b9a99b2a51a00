"""The golden llama, quantized and saved, and copies of it with changed bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fewbit
from fewbit.convert.findings import TensorFindings, Verification
from fewbit.files.gguf import TensorInfo, read_gguf
from tests.golden.loading import MODELS

LLAMA = MODELS / "llama"
IMATRIX = LLAMA / "imatrix.gguf"
TENSOR = "blk.1.ffn_down.weight"


def save_llama(path: Path, name: str) -> Path:
    """The golden llama with the matrices of its layers in a format, as a file."""
    source, importance = fewbit.load(LLAMA, device="cpu"), fewbit.read_imatrix(IMATRIX)
    formats = {
        tensor: name
        for tensor, info in source.checkpoint.tensors.items()
        if tensor.startswith("blk.") and len(info.shape) > 1
    }
    fewbit.Model(source.checkpoint, formats, importance=importance).save(path)
    return path


def changed(path: Path, target: Path, edits: dict[int, int]) -> Path:
    """A copy in which some bytes, by their place in the file, are others."""
    data = bytearray(path.read_bytes())
    for place, byte in edits.items():
        assert data[place] != byte
        data[place] = byte
    target.write_bytes(data)
    return target


def entry(path: Path, name: str = TENSOR) -> TensorInfo:
    return read_gguf(path).tensors[name]


def wrong(found: Verification) -> list[TensorFindings]:
    assert found.ok == all(tensor.ok for tensor in found.tensors)
    return [tensor for tensor in found.tensors if not tensor.ok]


def verified(path: Path, **options: Any) -> Verification:
    options = {"source": LLAMA, "imatrix": fewbit.read_imatrix(IMATRIX)} | options
    return fewbit.verify(path, **options)
