"""Write a GGUF file of a mixture of experts with random weights: 3.2 billion, 0.32 per token.

A smaller Qwen3-30B-A3B: hidden size 1024, 20 layers, 16 heads of 128 over 2 key/value heads, 128
experts of FFN 384 with 8 used per token, vocabulary 32,000. Speed does not depend on the values of
matrices, so these repeat one block of encoded random rows. Router weights are all random, so that
tokens use different experts.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from benches.random_llama import add_vocabulary, cached, pattern

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, VOCAB, CONTEXT = 1024, 20, 16, 2, 128, 32_000, 2048
EXPERTS, USED, FFN = 128, 8, 384
SHAPES: dict[str, tuple[int, ...]] = {
    "attn_q": (HEADS * HEAD, WIDTH),
    "attn_k": (KV_HEADS * HEAD, WIDTH),
    "attn_v": (KV_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD),
    "ffn_gate_exps": (EXPERTS, FFN, WIDTH),
    "ffn_up_exps": (EXPERTS, FFN, WIDTH),
    "ffn_down_exps": (EXPERTS, WIDTH, FFN),
}
VECTORS = {"attn_norm": WIDTH, "ffn_norm": WIDTH, "attn_q_norm": HEAD, "attn_k_norm": HEAD}


def path(format_: str) -> Path:
    """The file in `format_`, written on first use to the user's cache folder."""
    return cached(f"random-moe-3b-{format_}.gguf", lambda file: _write(file, format_))


def _write(file: Path, format_: str) -> None:
    writer = gguf.GGUFWriter(file, "qwen3moe")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    writer.add_expert_feed_forward_length(FFN)
    writer.add_vocab_size(VOCAB)
    add_vocabulary(writer, VOCAB)
    kind = gguf.GGMLQuantizationType[format_]
    rows = {columns: pattern(columns, format_) for columns in (WIDTH, FFN, HEADS * HEAD)}

    def matrix(name: str, shape: tuple[int, ...]) -> None:
        block = rows[shape[-1]]
        data = np.resize(block, (*shape[:-1], block.shape[1]))
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    rng = np.random.default_rng(0)
    matrix("token_embd", (VOCAB, WIDTH))
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            matrix(f"blk.{layer}.{name}", shape)
        router = rng.normal(0, 0.02, (EXPERTS, WIDTH)).astype(np.float32)
        writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight", router)
        for name, size in VECTORS.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(size, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    matrix("output", (VOCAB, WIDTH))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
