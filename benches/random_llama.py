"""Write GGUF files of dense models with random weights and realistic shapes.

`llama`: 1.1 billion weights; hidden size 2048, 16 layers, 32 heads over 8 key/value heads, FFN
8192, vocabulary 32,000. `qwen3`: the shape of Qwen3-0.6B; hidden size 1024, 28 layers, 16 heads of
128 over 8, FFN 3072, vocabulary 151,936, tied embeddings. Speed does not depend on the values, so
each tensor repeats one block of encoded random rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from fewbit import _core

PATTERN_ROWS = 256
CONTEXT = 16_384


@dataclass(frozen=True)
class Shape:
    """What a model is made of; `arch` is GGUF's word."""

    name: str
    arch: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    ffn: int
    vocab: int
    tied: bool

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of a layer's matrices."""
        return {
            "attn_q": (self.heads * self.head, self.width),
            "attn_k": (self.kv_heads * self.head, self.width),
            "attn_v": (self.kv_heads * self.head, self.width),
            "attn_output": (self.width, self.heads * self.head),
            "ffn_gate": (self.ffn, self.width),
            "ffn_up": (self.ffn, self.width),
            "ffn_down": (self.width, self.ffn),
        }

    @property
    def vectors(self) -> dict[str, int]:
        """Elements of a layer's norms."""
        norms = {"attn_norm": self.width, "ffn_norm": self.width}
        if self.arch == "qwen3":
            norms |= {"attn_q_norm": self.head, "attn_k_norm": self.head}
        return norms


LLAMA = Shape("llama-1b", "llama", 2048, 16, 32, 8, 64, 8192, 32_000, tied=False)
QWEN3 = Shape("qwen3-0.6b", "qwen3", 1024, 28, 16, 8, 128, 3072, 151_936, tied=True)


def path(format_: str, shape: Shape = LLAMA) -> Path:
    """The file in `format_`, written on first use to the user's cache folder."""
    return cached(f"random-{shape.name}-{format_}.gguf", lambda file: _write(file, format_, shape))


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """The file `name` in the user's cache folder; `write` makes it where it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    file = Path(base) / "fewbit" / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        write(part)
        part.rename(file)
    return file


def _write(file: Path, format_: str, shape: Shape) -> None:
    writer = gguf.GGUFWriter(file, shape.arch)
    add_sizes(writer, shape)
    add_vocabulary(writer, shape.vocab)
    kind = gguf.GGMLQuantizationType[format_]
    rows: dict[int, NDArray[np.uint8]] = {}

    def matrix(name: str, size: tuple[int, int]) -> None:
        if size[1] not in rows:
            rows[size[1]] = pattern(size[1], format_)
        block = rows[size[1]]
        writer.add_tensor(
            f"{name}.weight", np.resize(block, (size[0], block.shape[1])), raw_dtype=kind
        )

    def vector(name: str, elements: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(elements, np.float32))

    matrix("token_embd", (shape.vocab, shape.width))
    for layer in range(shape.layers):
        for name, size in shape.matrices.items():
            matrix(f"blk.{layer}.{name}", size)
        for name, elements in shape.vectors.items():
            vector(f"blk.{layer}.{name}", elements)
    vector("output_norm", shape.width)
    if not shape.tied:
        matrix("output", (shape.vocab, shape.width))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_sizes(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The hyperparameters of a dense model."""
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(shape.vocab)


def pattern(columns: int, format_: str) -> NDArray[np.uint8]:
    """Encoded random rows, uint8 [rows, row bytes]."""
    values = np.random.default_rng(columns).normal(0, 0.02, (PATTERN_ROWS, columns))
    rows = values.astype(np.float32).view(np.uint8)
    importance = np.ones(columns, np.float32) if format_ in NEEDY else None
    return _core.encode(rows, "F32", columns, format_, importance)


NEEDY = ("IQ1_S", "IQ2_XXS", "IQ2_XS")
"""Formats that are not encoded without importance."""


def add_vocabulary(writer: gguf.GGUFWriter, vocab: int) -> None:
    """Control tokens, the 256 bytes, and made-up words: what a SentencePiece vocabulary needs."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    words = [f"word{i}" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, *words])
    writer.add_token_scores([-float(i) for i in range(vocab)])
    writer.add_token_types([*types, *[kinds.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
