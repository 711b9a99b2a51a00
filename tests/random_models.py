"""Tiny models of random weights as Hugging Face folders, for what no golden model covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.golden.loading import MODELS

Tensors = dict[str, NDArray[np.float32]]
VOCAB, LAYERS, HEADS, KV_HEADS, EXPERTS, USED = 320, 4, 4, 2, 6, 2
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_experts_per_tok": USED,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


class Random:
    """Tensors that keep the size of what they are multiplied with."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def matrix(self, *shape: int) -> NDArray[np.float32]:
        return self.rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)

    def vector(self, size: int, mean: float) -> NDArray[np.float32]:
        return self.rng.normal(mean, 0.1, size).astype(np.float32)


def write(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """The folder, with the tokenizer of the golden llama."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(COMMON | config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((MODELS / "llama" / file).read_bytes())
    save_file(tensors, folder / "model.safetensors")
    return folder


def mixtral(folder: Path, width: int = 64, ffn: int = 96) -> Path:
    """`MixtralForCausalLM`: Llama with experts, under the names of the hub."""
    r, head = Random(1), width // HEADS
    t: Tensors = {"model.embed_tokens.weight": r.matrix(VOCAB, width) * 4}
    for i in range(LAYERS):
        w = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            t[f"{w}{name}.weight"] = r.vector(width, 1)
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            t[f"{w}self_attn.{name}_proj.weight"] = r.matrix(heads * head, width)
        t[w + "self_attn.o_proj.weight"] = r.matrix(width, HEADS * head)
        moe = w + "block_sparse_moe."
        t[moe + "gate.weight"] = r.matrix(EXPERTS, width)
        for j in range(EXPERTS):
            shapes = {"w1": (ffn, width), "w2": (width, ffn), "w3": (ffn, width)}
            for name, shape in shapes.items():
                t[f"{moe}experts.{j}.{name}.weight"] = r.matrix(*shape)
    t |= {"model.norm.weight": r.vector(width, 1), "lm_head.weight": 2 * r.matrix(VOCAB, width)}
    config = {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": width,
        "intermediate_size": ffn, "num_local_experts": EXPERTS, "sliding_window": None,
    }  # fmt: skip
    return write(folder, config, t)


KEY_HEADS, VALUE_HEADS, KERNEL = 2, 4, 4


def qwen3_5_moe(folder: Path, width: int = 64, ffn: int = 32) -> Path:
    """`Qwen3_5MoeForConditionalGeneration`, the text part: Qwen3.5 with experts and a shared one.

    Gate and up of all experts lie in one tensor [experts, 2 ffn, width].
    """
    r, head = Random(2), width // HEADS
    pairs = head // 4  # half of a head rotates
    t: Tensors = {"model.language_model.embed_tokens.weight": r.matrix(VOCAB, width) * 4}
    for i in range(LAYERS):
        w = f"model.language_model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            t[f"{w}{name}.weight"] = r.vector(width, 0)
        t |= _full(r, w, width, head) if i % 4 == 3 else _linear(r, w, width, head)
        t |= _experts(r, w + "mlp.", width, ffn)
    t["model.language_model.norm.weight"] = r.vector(width, 0)
    t["lm_head.weight"] = 2 * r.matrix(VOCAB, width)
    text = COMMON | {
        "model_type": "qwen3_5_moe_text", "hidden_size": width, "head_dim": head,
        "num_experts": EXPERTS, "moe_intermediate_size": ffn,
        "shared_expert_intermediate_size": ffn, "attn_output_gate": True,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "linear_conv_kernel_dim": KERNEL, "linear_key_head_dim": head,
        "linear_num_key_heads": KEY_HEADS, "linear_num_value_heads": VALUE_HEADS,
        "linear_value_head_dim": head,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "mrope_interleaved": True, "mrope_section": [len(range(i, pairs, 3)) for i in range(3)],
        },
    }  # fmt: skip
    config = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": text,
    }
    return write(folder, config, t)


def _full(r: Random, w: str, width: int, head: int, gate: bool = True) -> Tensors:
    """Attention with norms of q and k, and a `gate` for each head beside its q."""
    w += "self_attn."
    return {
        w + "q_proj.weight": r.matrix((1 + gate) * HEADS * head, width),
        w + "k_proj.weight": r.matrix(KV_HEADS * head, width),
        w + "v_proj.weight": r.matrix(KV_HEADS * head, width),
        w + "o_proj.weight": r.matrix(width, HEADS * head),
        w + "q_norm.weight": r.vector(head, 1 - gate),
        w + "k_norm.weight": r.vector(head, 1 - gate),
    }


def _linear(r: Random, w: str, width: int, head: int) -> Tensors:
    """Gated DeltaNet."""
    w += "linear_attn."
    values, channels = VALUE_HEADS * head, (2 * KEY_HEADS + VALUE_HEADS) * head
    return {
        w + "in_proj_qkv.weight": r.matrix(channels, width),
        w + "in_proj_z.weight": r.matrix(values, width),
        w + "in_proj_a.weight": r.matrix(VALUE_HEADS, width),
        w + "in_proj_b.weight": r.matrix(VALUE_HEADS, width),
        w + "conv1d.weight": r.matrix(channels, 1, KERNEL),
        w + "A_log": r.vector(VALUE_HEADS, 0),
        w + "dt_bias": r.vector(VALUE_HEADS, 0),
        w + "norm.weight": r.vector(head, 1),
        w + "out_proj.weight": r.matrix(width, values),
    }


def _experts(r: Random, w: str, width: int, ffn: int) -> Tensors:
    return {
        w + "gate.weight": r.matrix(EXPERTS, width),
        w + "experts.gate_up_proj": r.matrix(EXPERTS, 2 * ffn, width),
        w + "experts.down_proj": r.matrix(EXPERTS, width, ffn),
        w + "shared_expert.gate_proj.weight": r.matrix(ffn, width),
        w + "shared_expert.up_proj.weight": r.matrix(ffn, width),
        w + "shared_expert.down_proj.weight": r.matrix(width, ffn),
        w + "shared_expert_gate.weight": r.matrix(1, width),
    }


def qwen3_moe(folder: Path, width: int = 64, ffn: int = 96) -> Path:
    """`Qwen3MoeForCausalLM` with experts in every second layer, and their weights as they come."""
    r, head = Random(3), width // HEADS
    t: Tensors = {"model.embed_tokens.weight": r.matrix(VOCAB, width) * 4}
    for i in range(LAYERS):
        w = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            t[f"{w}{name}.weight"] = r.vector(width, 1)
        t |= _full(r, w, width, head, gate=False)
        mlps = [f"{w}mlp.experts.{j}." for j in range(EXPERTS)] if i % 2 else [w + "mlp."]
        for mlp in mlps:
            t[mlp + "gate_proj.weight"] = r.matrix(ffn, width)
            t[mlp + "up_proj.weight"] = r.matrix(ffn, width)
            t[mlp + "down_proj.weight"] = r.matrix(width, ffn)
        if i % 2:
            t[w + "mlp.gate.weight"] = r.matrix(EXPERTS, width)
    t |= {"model.norm.weight": r.vector(width, 1), "lm_head.weight": 2 * r.matrix(VOCAB, width)}
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": width,
        "head_dim": head, "intermediate_size": ffn, "moe_intermediate_size": ffn,
        "num_experts": EXPERTS, "decoder_sparse_step": 2, "mlp_only_layers": [],
        "norm_topk_prob": False,
    }  # fmt: skip
    return write(folder, config, t)


MAKERS = {"mixtral": mixtral, "qwen3_5_moe": qwen3_5_moe, "qwen3_moe-between": qwen3_moe}
