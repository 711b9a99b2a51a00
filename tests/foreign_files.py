"""Small GGUF files that fewbit cannot run, written as other programs write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewbit.convert.gguf_header import header, placed
from fewbit.files.gguf import Field, fields_of, read_gguf
from fewbit.files.gguf_types import GGUFValueType
from fewbit.formats.table import find_format

STRING = GGUFValueType.STRING


def write(path: Path, metadata: Mapping[str, Field], tensors: Mapping[str, np.ndarray]) -> Path:
    """Write a file of F32 tensors."""
    places = placed((n, t.shape, find_format("F32")) for n, t in tensors.items())
    data = bytearray(header(metadata, places))
    for tensor in tensors.values():
        raw = np.ascontiguousarray(tensor, "<f4").tobytes()
        data += raw + bytes(-len(raw) % 32)
    path.write_bytes(bytes(data))
    return path


def renamed(source: Path, path: Path, architecture: str) -> Path:
    """Copy a file of a known architecture under the name of another one."""
    file = read_gguf(source)
    old = str(file.metadata["general.architecture"].value)
    metadata = {
        (architecture + key.removeprefix(old)) if key.startswith(f"{old}.") else key: field
        for key, field in file.metadata.items()
    }
    metadata["general.architecture"] = Field(architecture, STRING)
    tensors = {n: t.data.view("<f4").reshape(t.shape) for n, t in file.tensors.items()}
    return write(path, metadata, tensors)


def vocabulary(path: Path) -> Path:
    """A file that llama.cpp's tests have: metadata with tokens, no tensors."""
    values = {"general.architecture": "llama", "tokenizer.ggml.tokens": ["a", "b"]}
    return write(path, dict(fields_of(values)), {})


def adapter(path: Path) -> Path:
    """LoRA adapter: two matrices for each that it changes."""
    rng = np.random.default_rng(2)
    values = {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,
    }  # fmt: skip
    shapes = {"lora_a": (8, 64), "lora_b": (64, 8)}
    tensors = {f"blk.0.attn_q.weight.{n}": rng.normal(size=s) for n, s in shapes.items()}
    return write(path, dict(fields_of(values)), tensors)


def projector(path: Path) -> Path:
    """Vision encoder and projector, as ``--mmproj`` takes it."""
    rng = np.random.default_rng(3)
    values = {
        "general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True,
        "clip.vision.block_count": 2, "clip.projector_type": "mlp",
    }  # fmt: skip
    matrices = (
        *(f"v.blk.{i}.{n}.weight" for i in range(2) for n in ("attn_q", "attn_v", "ffn_down")),
        "mm.0.weight", "v.position_embd.weight",
    )  # fmt: skip
    tensors: dict[str, np.ndarray] = {name: rng.normal(size=(64, 256)) for name in matrices}
    tensors["v.patch_embd.weight"] = rng.normal(size=(64, 3, 14, 14))
    tensors["v.blk.0.ln1.weight"] = np.ones(256)
    return write(path, dict(fields_of(values)), tensors)


def importance(path: Path) -> Path:
    """An importance matrix of llama-imatrix."""
    values = {"general.type": "imatrix", "imatrix.chunk_count": 3, "imatrix.datasets": ["t.txt"]}
    stem = "blk.0.attn_q.weight"
    tensors = {f"{stem}.in_sum2": np.ones((1, 64)), f"{stem}.counts": np.ones((1, 1))}
    return write(path, dict(fields_of(values)), tensors)
