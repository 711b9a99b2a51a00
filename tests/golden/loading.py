"""The golden models: those of `OWN` read by the oracle's own reader, the others by fewbit's.

What transformers says about each model is stored beside it, so a mistake in a reader shows.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewbit
from fewbit.models import build_plan
from fewbit.plan.config import Config, Rope
from reference.containers import Stored, read_safetensors
from reference.weights import Weight

MODELS = Path(__file__).parent / "models"
ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FEWBIT_SHARED", ROOT.parent / "shared")) / "golden"
"""Where files lie that are too large for the repository."""
OWN = ["llama", "llama-spm", "mistral", "mistral-swa", "qwen2", "qwen3", "qwen3-alt"]
FURTHER = [
    *("gemma3", "gemma3-alt", "gpt2", "gpt_oss", "gpt_oss-mxfp4", "phi3", "phi3-longrope"),
    *("qwen3_moe", "qwen3_moe-alt", "qwen3_next", "qwen3_5", "qwen3_5-hub"),
]
NAMES = OWN + FURTHER
GGUFS = [
    *("llama-spm", "mistral", "qwen2", "qwen3", "gemma3", "gpt2", "gpt_oss", "gpt_oss-mxfp4"),
    *("phi3", "phi3-longrope", "qwen3_moe", "qwen3_next", "qwen3_5"),
]
"""Models of which llama.cpp's converter made a file."""
MADE = {
    "model-f32.gguf": "llama.cpp's `convert_hf_to_gguf.py {folder} --outtype f32 --outfile "
    "{folder}/model-f32.gguf`",
    "model-Q8_0.gguf": "llama.cpp's `llama-quantize F32.gguf {folder}/model-Q8_0.gguf Q8_0`, after "
    "`fewbit quantize {folder} F32.gguf -f F32`,",
}
"""Commands that make files which are too large for the repository."""
NOISE = 1e-4
"""What float32 arithmetic moves these logits by: at most 6e-5 against float64, measured by
transformers on each model when it was made, and 1e-4 between cached and whole runs."""

WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Golden:
    """A model with what transformers says about it: float32 logits [ids, vocab], 16 greedy ids."""

    config: Config
    plan: list[dict[str, Any]]
    weights: dict[str, Weight]
    ids: list[int]
    logits: np.ndarray
    greedy: list[int]


def asset(name: str, file: str = "config.json") -> Path:
    """A file of a golden model, here or in `SHARED`; the test is skipped if it is in neither."""
    for models in (MODELS, SHARED):
        if (path := models / name / file).exists():
            return path
    if file not in MADE:
        raise FileNotFoundError(f"no {name}/{file} in {MODELS}")
    folder = (MODELS / name).relative_to(ROOT).as_posix()
    pytest.skip(f"{MADE[file].format(folder=folder)} makes {file}, which is not in the repository")


@cache
def load(name: str) -> Golden:
    folder = asset(name).parent
    if name in FURTHER:
        return opened(folder)
    stored: dict[str, Stored] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        stored |= read_safetensors(path.read_bytes())
    tensors = {gguf_name(key): tensor for key, tensor in stored.items()}
    config = read_config(json.loads((folder / "config.json").read_text()), tensors)
    return Golden(
        config,
        build_plan(config).to_dicts(),
        {key: weight(key, tensor, config) for key, tensor in tensors.items()},
        np.load(folder / "ids.npy").tolist(),
        np.load(folder / "logits.npy"),
        np.load(folder / "greedy.npy").tolist(),
    )


def opened(folder: Path) -> Golden:
    model = fewbit.load(folder)
    return Golden(
        model.config,
        model.plan.to_dicts(),
        stored_weights(model),
        np.load(folder / "ids.npy").tolist(),
        np.load(folder / "logits.npy"),
        np.load(folder / "greedy.npy").tolist(),
    )


def stored_weights(model: fewbit.Model) -> dict[str, Weight]:
    """The tensors of `model`'s plan as the oracle takes them."""
    weights = {}
    for name in model.plan.weights():
        data, columns = model.data(name), model.checkpoint.tensors[name].shape[-1]
        weights[name] = Weight(model.formats[name], len(data), columns, data.tobytes())
    return weights


def gguf_name(name: str) -> str:
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, *middle, end = name.split(".")
    return f"blk.{layer}.{PARTS['.'.join(middle)]}.{end}"


def weight(name: str, tensor: Stored, config: Config) -> Weight:
    """The tensor; rows of q and k of a "llama" with the halves of each head interleaved."""
    rows, columns = (1, *tensor.shape)[-2:]
    data = tensor.data
    if config.architecture == "llama" and ("attn_q." in name or "attn_k." in name):
        heads, half = rows // config.head_dim, config.head_dim // 2
        size = 4 * columns
        order = [
            (head * 2 + part) * half + pair
            for head in range(heads)
            for pair in range(half)
            for part in range(2)
        ]
        data = b"".join(data[row * size : (row + 1) * size] for row in order)
    return Weight("F32", rows, columns, data)


def read_config(c: dict[str, Any], tensors: dict[str, Stored]) -> Config:
    window = c.get("sliding_window") or 0
    if c["model_type"].startswith("qwen"):
        slides = [kind == "sliding_attention" for kind in c.get("layer_types", [])]
        windows = tuple(window if slide else 0 for slide in slides)
    else:
        windows = (window,) * c["num_hidden_layers"]
    return Config(
        architecture="llama" if c["model_type"] == "mistral" else c["model_type"],
        vocab=c["vocab_size"],
        layers=c["num_hidden_layers"],
        width=c["hidden_size"],
        ffn=c["intermediate_size"],
        heads=c["num_attention_heads"],
        kv_heads=c["num_key_value_heads"],
        head_dim=c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"],
        norm_eps=c["rms_norm_eps"],
        context=c["max_position_embeddings"],
        rope=read_rope(c["rope_parameters"]),
        windows=windows,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        tied="output.weight" not in tensors,
    )


def read_rope(r: dict[str, Any]) -> Rope:
    renamed = {"rope_theta": "base", "original_max_position_embeddings": "original_context"}
    fields = {renamed.get(key, key): value for key, value in r.items() if key != "rope_type"}
    kind = r["rope_type"]
    return Rope(kind="none" if kind == "default" else kind, **fields)


def reversed_rows(w: Weight) -> Weight:
    """The same matrix from its last row to its first; a vector from its last element."""
    rows = w.values[::-1] if w.rows > 1 else [w.values[0][::-1]]
    data = b"".join(struct.pack(f"<{w.columns}f", *row) for row in rows)
    return Weight("F32", w.rows, w.columns, data)
