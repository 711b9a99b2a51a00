"""Experts in one tensor, as transformers 5 has them in memory, are those of single files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import fewbit
from fewbit.errors import FileFormatError
from fewbit.files.checkpoint import Checkpoint, open_checkpoint

WIDTH, FFN, EXPERTS = 64, 48, 4
COMMON = {
    "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96, "num_experts_per_tok": 2,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "mixtral": {"intermediate_size": FFN, "num_local_experts": EXPERTS},
    "qwen3_moe": {"intermediate_size": 96, "moe_intermediate_size": FFN, "num_experts": EXPERTS},
    "qwen3_next": {
        "intermediate_size": 96, "moe_intermediate_size": FFN, "num_experts": EXPERTS,
        "shared_expert_intermediate_size": FFN, "layer_types": ["full_attention"],
    },
}  # fmt: skip
STEMS = {"mixtral": ("block_sparse_moe", "w1", "w3", "w2")}
PLAIN = ("mlp", "gate_proj", "up_proj", "down_proj")
RNG = np.random.default_rng(11)
GATE, UP = (RNG.normal(size=(EXPERTS, FFN, WIDTH)).astype(np.float32) for _ in range(2))
DOWN = RNG.normal(size=(EXPERTS, WIDTH, FFN)).astype(np.float32)


def others(kind: str) -> dict[str, np.ndarray]:
    """All tensors of a model but those of its experts."""
    rng = np.random.default_rng(1)
    attention, q = "model.layers.0.self_attn.", 128 if kind == "qwen3_next" else 64
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (96, WIDTH), "lm_head.weight": (96, WIDTH),
        "model.norm.weight": (WIDTH,), "model.layers.0.input_layernorm.weight": (WIDTH,),
        "model.layers.0.post_attention_layernorm.weight": (WIDTH,),
        attention + "q_proj.weight": (q, WIDTH), attention + "k_proj.weight": (32, WIDTH),
        attention + "v_proj.weight": (32, WIDTH), attention + "o_proj.weight": (WIDTH, 64),
    }  # fmt: skip
    if kind != "mixtral":
        shapes |= {attention + f"{name}_norm.weight": (16,) for name in "qk"}
    if kind == "qwen3_next":
        shared = "model.layers.0.mlp.shared_expert"
        shapes |= {f"{shared}.{name}_proj.weight": (FFN, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{shared}.down_proj.weight": (WIDTH, FFN), f"{shared}_gate.weight": (1, WIDTH)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def opened(folder: Path, kind: str, experts: dict[str, np.ndarray]) -> Checkpoint:
    folder.mkdir()
    config = {"model_type": kind} | COMMON | CONFIGS[kind]
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: np.ascontiguousarray(t) for name, t in (others(kind) | experts).items()}
    save_file(tensors, folder / "model.safetensors")
    return open_checkpoint(folder)


def apart(kind: str) -> dict[str, np.ndarray]:
    """A tensor for each expert, as transformers saves them."""
    block, *names = STEMS.get(kind, PLAIN)
    found = {f"model.layers.0.{block}.gate.weight": GATE[:, 0]}
    for i in range(EXPERTS):
        for name, values in zip(names, (GATE, UP, DOWN), strict=True):
            found[f"model.layers.0.{block}.experts.{i}.{name}.weight"] = values[i]
    return found


def fused(block: str = "mlp", *, transposed: bool = False) -> dict[str, np.ndarray]:
    both = np.concatenate([GATE, UP], axis=1)
    turn = (0, 2, 1) if transposed else (0, 1, 2)
    return {
        f"model.layers.0.{block}.gate.weight": GATE[:, 0],
        f"model.layers.0.{block}.experts.gate_up_proj": both.transpose(turn),
        f"model.layers.0.{block}.experts.down_proj": DOWN.transpose(turn),
    }


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_fused_experts_are_those_of_single_tensors(
    kind: str, transposed: bool, tmp_path: Path
) -> None:
    single = opened(tmp_path / "single", kind, apart(kind))
    joined = opened(tmp_path / "joined", kind, fused(transposed=transposed))
    assert joined.tensors.keys() == single.tensors.keys()
    for name in single.tensors:
        expected, found = single.read(name), joined.read(name)
        assert (found.format, found.shape) == (expected.format, expected.shape), name
        np.testing.assert_array_equal(found.data, expected.data, err_msg=name)
    models = (fewbit.Model(checkpoint, threads=1) for checkpoint in (joined, single))
    found_logits, expected_logits = (model.logits([1, 2, 3]) for model in models)
    np.testing.assert_array_equal(found_logits, expected_logits)


def test_mixtral_s_old_name_of_the_block(tmp_path: Path) -> None:
    joined = opened(tmp_path / "joined", "mixtral", fused("block_sparse_moe"))
    stored = joined.read("blk.0.ffn_up_exps.weight").data.view("<f4").reshape(UP.shape)
    np.testing.assert_array_equal(stored, UP)


def test_experts_of_another_configuration_are_refused(tmp_path: Path) -> None:
    experts = fused()
    name = "model.layers.0.mlp.experts.gate_up_proj"
    experts[name] = experts[name][:, :-2]
    with pytest.raises(FileFormatError, match=r"gate_up_proj` has shape \[4, 94, 64\], expected"):
        opened(tmp_path / "joined", "qwen3_moe", experts)
