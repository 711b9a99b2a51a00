"""config.json: an absent key means what the model's class in transformers 5 says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.files import hf_defaults
from fewbit.files.hf_config import ARCHITECTURES, config_from_hf
from fewbit.plan.config import Config, Rope
from tests.golden import make_hf_defaults

TRANSFORMERS = importlib.util.find_spec("transformers")
SMALL = {
    "vocab_size": 288, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128,
}  # fmt: skip


def read(model_type: str | None, **keys: Any) -> Config:
    kind = {} if model_type is None else {"model_type": model_type}
    return config_from_hf(kind | SMALL | keys, Path("m/config.json"))


@pytest.mark.skipif(TRANSFORMERS is None, reason="needs transformers 5: pip install transformers")
@pytest.mark.parametrize(
    "name", ["DEFAULTS", "NULLABLE", "ALIASES", "ROPE_BASES", "CLASSES", "TRANSFORMERS"]
)
def test_the_table_is_that_of_transformers(name: str) -> None:
    assert getattr(hf_defaults, name) == make_hf_defaults.read()[name]


def test_the_table_has_every_model_type() -> None:
    assert set(hf_defaults.DEFAULTS) == set(ARCHITECTURES) == set(make_hf_defaults.TYPES)
    assert set(hf_defaults.CLASSES.values()) == set(ARCHITECTURES)


# what `cls()` of transformers 5.24 has
ABSENT: list[tuple[str, str, object]] = [
    ("llama", "norm_eps", 1e-6), ("llama", "context", 2048), ("llama", "kv_heads", 4),
    ("llama", "head_dim", 16), ("llama", "windows", ()), ("llama", "rope", Rope(1e4)),
    ("mistral", "windows", (4096, 4096)), ("mistral", "context", 131072),
    ("mistral", "kv_heads", 8), ("mistral", "norm_eps", 1e-6), ("mistral", "head_dim", 16),
    ("mixtral", "norm_eps", 1e-5), ("mixtral", "rope", Rope(1e6)), ("mixtral", "windows", ()),
    ("mixtral", "experts", 8), ("mixtral", "kv_heads", 8), ("mixtral", "context", 131072),
    ("qwen2", "kv_heads", 32), ("qwen2", "context", 32768), ("qwen2", "windows", ()),
    ("qwen3", "head_dim", 128), ("qwen3", "context", 32768), ("qwen3", "kv_heads", 32),
    ("qwen3_moe", "kv_heads", 4), ("qwen3_moe", "experts", 128), ("qwen3_moe", "head_dim", 16),
    ("qwen3_next", "rotated", 64), ("qwen3_next", "experts", 512), ("qwen3_next", "kv_heads", 2),
    ("qwen3_5_text", "context", 32768), ("qwen3_5_text", "rotated", 64),
    ("qwen3_5_moe", "experts", 256), ("qwen3_5_moe", "head_dim", 256),
    ("gemma3_text", "windows", (4096, 4096)), ("gemma3_text", "context", 131072),
    ("gemma3_text", "rope", Rope(1e6)), ("gemma3_text", "window_rope", Rope(1e4)),
    ("gemma3_text", "kv_heads", 4), ("gemma3_text", "tied", True), ("gemma3_text", "softcap", 0),
    ("phi3", "norm_eps", 1e-5), ("phi3", "context", 4096), ("phi3", "kv_heads", 4),
    ("gpt_oss", "norm_eps", 1e-5), ("gpt_oss", "windows", (128, 0)), ("gpt_oss", "experts", 128),
    ("gpt_oss", "rope", Rope(150000.0, "yarn", 32.0, 4096, truncate=False)),
    ("gpt_oss", "output_bias", True),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "name", "expected"), ABSENT)
def test_absent_keys(model_type: str, name: str, expected: object) -> None:
    assert getattr(read(model_type), name) == expected


@pytest.mark.parametrize(("model_type", "name", "expected"), ABSENT)
def test_null_is_absent_unless_it_has_a_meaning(
    model_type: str, name: str, expected: object
) -> None:
    kind = f"{model_type}_text" if f"{model_type}_text" in hf_defaults.DEFAULTS else model_type
    own = set(hf_defaults.DEFAULTS[kind]) - set(hf_defaults.NULLABLE[kind]) - set(SMALL)
    assert getattr(read(model_type, **dict.fromkeys(own)), name) == expected


def test_null_with_a_meaning_of_its_own() -> None:
    assert read("mistral", sliding_window=None).windows == ()
    assert read("gpt_oss", sliding_window=None).windows == ()
    assert read("qwen3", num_key_value_heads=None).kv_heads == 4
    assert read("mistral", head_dim=None).head_dim == 16


def test_gpt2() -> None:
    config = config_from_hf({"model_type": "gpt2", "n_embd": 64, "n_head": 4}, Path("m"))
    assert (config.norm_eps, config.context, config.vocab) == (1e-5, 1024, 50257)
    assert (config.width, config.layers, config.ffn, config.tied) == (64, 12, 256, True)
    both = config_from_hf({"model_type": "gpt2", "hidden_size": 64, "n_head": 4}, Path("m"))
    assert both == config
    with pytest.raises(fewbit.UnsupportedError, match="scale_attn_weights"):
        config_from_hf({"model_type": "gpt2", "scale_attn_weights": False}, Path("m"))


def test_a_text_config_takes_the_text_model_s_defaults() -> None:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    found = config_from_hf(
        {
            "model_type": "gemma3",
            "text_config": text
            | {"sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        },
        Path("m"),
    )
    assert (found.vocab, found.heads, found.kv_heads, found.head_dim) == (262208, 8, 4, 256)
    assert (found.rope, found.window_rope) == (Rope(1e6, "linear", 8.0), Rope(1e4))
    assert (found.windows, found.tied) == ((1024, 1024), True)
    hybrid = config_from_hf({"model_type": "qwen3_5_moe", "text_config": text}, Path("m"))
    assert (hybrid.tied, hybrid.experts, hybrid.vocab) == (False, 256, 248320)


@pytest.mark.parametrize(("name", "model_type"), hf_defaults.CLASSES.items())
def test_a_class_says_the_model_type(name: str, model_type: str) -> None:
    size = {} if model_type == "gpt2" else SMALL
    assert config_from_hf({"architectures": [name]} | size, Path("m/config.json")) == (
        config_from_hf({"model_type": model_type} | size, Path("m/config.json"))
    )


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(fewbit.UnsupportedError, match="unknown architecture `MambaForCausalLM`"):
        read(None, architectures=["MambaForCausalLM"])


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        ({"max_position_embeddings": 4096.0}, {"max_position_embeddings": 4096}),
        ({"sliding_window": -1}, {"sliding_window": None}),
        ({"sliding_window": 0}, {"sliding_window": None}),
        ({"rope_scaling": {}}, {}),
        ({"rope_parameters": {}, "rope_theta": 5e5}, {"rope_theta": 500000}),
        ({"rope_scaling": {"rope_type": None}}, {}),
        (
            {"rope_parameters": {}, "rope_scaling": {"type": "linear", "factor": 2}},
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
    ],
)
def test_spellings(keys: dict[str, Any], same: dict[str, Any]) -> None:
    assert read("mistral", **keys) == read("mistral", **same)


def test_experts_have_two_names() -> None:
    for kind in ("mixtral", "qwen3_moe", "gpt_oss"):
        assert read(kind, num_experts=16) == read(kind, num_local_experts=16)
    assert read("gpt_oss", experts_per_token=2).routing == (
        read("gpt_oss", num_experts_per_tok=2).routing
    )


def test_two_spellings_of_one_key() -> None:
    """As in transformers: the one that is no field of the class counts."""
    assert read("mixtral", num_experts=16, num_local_experts=4).experts == 16
    assert read("qwen3_moe", num_experts=32, num_local_experts=16).experts == 16
    assert read("gpt_oss", experts_per_token=2, num_experts_per_tok=3).routing == (
        read("gpt_oss", num_experts_per_tok=3).routing
    )
    keys = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}
    plain = config_from_hf(keys, Path("m"))
    found = config_from_hf(
        keys | {"hidden_size": 32, "rms_norm_eps": 1.0, "intermediate_size": 9}, Path("m")
    )
    assert (found.width, found.ffn, found.norm_eps) == (32, 128, plain.norm_eps)


def test_windows_of_qwen() -> None:
    slides = {"use_sliding_window": True, "sliding_window": 16}
    assert read("qwen3", **slides, max_window_layers=0).windows == (16, 16)
    assert read("qwen3", **slides, max_window_layers=1).windows == (0, 16)
    assert read("qwen3", **slides).windows == ()  # the first 28 layers have full attention
    assert read("qwen3_moe", **slides).windows == (16, 16)  # all layers
    assert read("qwen3", use_sliding_window=True, max_window_layers=1).windows == (0, 4096)
    assert read("qwen3_next", **slides).windows == ()


def test_original_context() -> None:
    """Phi 3's stands beside the settings of the rope; for others the context is the default."""
    factors = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    inside = {"original_max_position_embeddings": 64}
    assert read("phi3", rope_scaling=factors | inside).rope.original_context == 4096
    assert read("phi3", rope_scaling=factors | {"type": "yarn"}) == (
        read("phi3", rope_scaling=factors)
    )
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }  # fmt: skip
    for rope in (llama3, {"type": "yarn", "factor": 4.0}, factors):
        assert read("llama", rope_scaling=rope, **inside).rope.original_context == 2048
        assert read("llama", rope_scaling=rope | inside).rope.original_context == 64


FLAT = {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5}


@pytest.mark.parametrize(
    ("keys", "rope", "window"),
    [
        ({"rope_parameters": FLAT}, Rope(1e6), 1e4),
        ({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 7.0}, Rope(7.0), 1e4),
        (
            {"rope_parameters": {"full_attention": FLAT, "sliding_attention": {"rope_theta": 2e4}}},
            Rope(5e5, "linear", 8.0), 2e4,
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}},
             "rope_theta": 5e5},
            Rope(5e5, "linear", 8.0), 1e4,
        ),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 5e5,
             "rope_local_base_freq": 2e4},
            Rope(5e5, "linear", 8.0), 2e4,
        ),
    ],
)  # fmt: skip
def test_rope_settings_of_gemma3_are_read_as_transformers_does(
    keys: dict[str, object], rope: Rope, window: float
) -> None:
    """Each pair is what Gemma3TextConfig of transformers 5.24 makes of the keys."""
    found = read("gemma3_text", **keys)
    assert (found.rope, found.window_rope) == (rope, Rope(window))
