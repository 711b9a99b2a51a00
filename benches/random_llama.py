"""A Llama of 1.1 billion random weights as a GGUF file: the shape is real, the text is not.

Hidden 2048, 16 layers, 32 heads over 8 key/value heads, ffn 8192, vocabulary 32,000. Speed does
not depend on the values, so every tensor repeats one block of encoded random rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from fewbit import _core

WIDTH, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 2048, 16, 32, 8, 8192, 32_000, 2048
KV_WIDTH = WIDTH // HEADS * KV_HEADS
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KV_WIDTH, WIDTH),
    "attn_v": (KV_WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (FFN, WIDTH),
    "ffn_up": (FFN, WIDTH),
    "ffn_down": (WIDTH, FFN),
}
PATTERN_ROWS = 256


def path(format_: str) -> Path:
    """The file in `format_`, written on first use to the user's cache folder."""
    return cached(f"random-llama-1b-{format_}.gguf", lambda file: _write(file, format_))


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


def _write(file: Path, format_: str) -> None:
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(VOCAB)
    add_vocabulary(writer)
    kind = gguf.GGMLQuantizationType[format_]
    rows = {columns: pattern(columns, format_) for columns in (WIDTH, FFN)}

    def matrix(name: str, shape: tuple[int, int]) -> None:
        data = np.resize(rows[shape[1]], (shape[0], rows[shape[1]].shape[1]))
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def vector(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))

    matrix("token_embd", (VOCAB, WIDTH))
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            matrix(f"blk.{layer}.{name}", shape)
        vector(f"blk.{layer}.attn_norm")
        vector(f"blk.{layer}.ffn_norm")
    vector("output_norm")
    matrix("output", (VOCAB, WIDTH))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pattern(columns: int, format_: str) -> NDArray[np.uint8]:
    """Encoded random rows, uint8 [rows, row bytes]."""
    values = np.random.default_rng(columns).normal(0, 0.02, (PATTERN_ROWS, columns))
    rows = values.astype(np.float32).view(np.uint8)
    return _core.encode(rows, "F32", columns, format_)


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Control tokens, the 256 bytes, and made-up words: what a SentencePiece vocabulary needs."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    words = [f"word{i}" for i in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, *words])
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types([*types, *[kinds.NORMAL] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
