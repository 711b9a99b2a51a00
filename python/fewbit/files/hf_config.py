"""Read config.json of a Hugging Face folder, written by transformers 4 or 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewbit.errors import UnsupportedError
from fewbit.files.hf_defaults import ALIASES, CLASSES, DEFAULTS, NULLABLE
from fewbit.files.hf_rope import main_rope, rotated, sections, window_rope
from fewbit.files.hf_settings import Settings
from fewbit.files.hub import folder_name
from fewbit.models import unknown_architecture
from fewbit.models.gpt_oss import ALPHA, LIMIT
from fewbit.plan.config import Config, Delta, Experts

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "qwen3_next": "qwen3next",
    "qwen3_5": "qwen35",
    "qwen3_5_text": "qwen35",
    "qwen3_5_moe": "qwen35moe",
    "qwen3_5_moe_text": "qwen35moe",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gpt_oss": "gpt-oss",
}
"""`model_type` of transformers -> architecture of GGUF."""
_ACTIVATIONS = {
    "gemma3": ("gelu_pytorch_tanh",),
    "gpt2": ("gelu_new", "gelu_pytorch_tanh"),
}
_SILU = ("silu", "swish")
_TEXT = {
    "gemma3": "gemma3_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""`model_type` of a model with a vision encoder -> that of its text model."""
_GPT2 = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "activation_function": "hidden_act",
    "layer_norm_epsilon": "rms_norm_eps",
}
"""Key in the config.json of GPT-2 -> usual key."""


def config_from_hf(settings: Mapping[str, Any], path: Path) -> Config:
    """Read the configuration from config.json; errors name `path`.

    For a model with a vision encoder it is that of the text model (`text_config`).

    Raises:
        UnsupportedError: the architecture, activation or rope scaling is not supported.
        FileFormatError: a value is missing or has the wrong type.

    """
    kind, s = _text_settings(Settings(settings, path))
    architecture = ARCHITECTURES[kind]
    _refuse(s, architecture)
    heads, width = s.integer("num_attention_heads"), s.integer("hidden_size")
    layers = s.integer("num_hidden_layers")
    bias = s.flag("attention_bias", architecture == "gpt2")
    context = s.integer("max_position_embeddings")
    head_dim = s.integer("head_dim", max(width // heads, 1))
    count, routing = _experts(s, kind, layers)
    windows = _windows(s, kind, layers)
    query = s.positive("query_pre_attn_scalar") if architecture == "gemma3" else head_dim
    return Config(
        architecture=architecture,
        vocab=s.integer("vocab_size"),
        layers=layers,
        width=width,
        ffn=s.integer("intermediate_size", _ffn(s, architecture, width)),
        heads=heads,
        kv_heads=s.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        norm_eps=s.number("rms_norm_eps"),
        context=context,
        rope=main_rope(s, kind, context),
        windows=windows,
        qkv_bias=bias or kind == "qwen2",
        output_bias=bias and kind != "qwen2",
        ffn_bias=s.flag("mlp_bias", architecture == "gpt2"),
        tied=s.flag("tie_word_embeddings"),
        window_rope=window_rope(s, kind) if architecture == "gemma3" else None,
        rotated=rotated(s, architecture, head_dim),
        rope_sections=sections(s),
        query_scale=None if query == head_dim else query**-0.5,
        softcap=s.number("final_logit_softcapping", 0.0),
        experts=count,
        routing=routing,
        delta=_delta(s, layers) if architecture.startswith(("qwen35", "qwen3next")) else None,
        name=folder_name(path.parent),
    )


def _text_settings(s: Settings) -> tuple[str, Settings]:
    """`model_type` of the text model, and its settings under the keys that most models use.

    A key that is absent has the default of the model's class in transformers. So has one that is
    null, unless null has a meaning of its own, such as no sliding window.
    """
    whole = _model_type(s)
    kind = _TEXT.get(whole, whole)
    defaults, values = DEFAULTS[kind], s.values
    if (text := s.section("text_config")) is not None:
        tied = s.values.get("tie_word_embeddings")
        tied = DEFAULTS[whole]["tie_word_embeddings"] if tied is None else tied
        defaults, values = defaults | {"tie_word_embeddings": tied}, text.values
    own = {k: v for k, v in values.items() if v is not None or k in NULLABLE[kind]}
    return kind, Settings(_usual(defaults, kind) | _usual(own, kind), s.path)


def _model_type(s: Settings) -> str:
    """`model_type`, or that of the class in `architectures` if it is absent."""
    found = s.values.get("model_type")
    classes = s.values.get("architectures")
    if found is None and isinstance(classes, list) and classes:
        found = CLASSES.get(str(classes[0]), classes[0])
    if str(found) not in ARCHITECTURES:
        error = unknown_architecture(str(found))
        raise UnsupportedError(
            f"{error.message}: fewbit knows no GGUF names for its tensors",
            hint="make a GGUF file with llama.cpp's convert_hf_to_gguf.py; `fewbit quantize` takes "
            f"any of them. Folders: {error.hint}",
            architecture=str(found),
        )
    return str(found)


def _usual(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Values under the keys that most models use.

    Of two spellings of a key the one that is no field of the class counts, as in transformers.
    """
    if kind == "gpt2":
        renamed = {_GPT2[key]: value for key, value in values.items() if key in _GPT2}
        unread = {*_GPT2, *_GPT2.values()} - set(ALIASES[kind])
        return renamed | {key: value for key, value in values.items() if key not in unread}
    found = dict(values)
    if kind == "gpt_oss" and "experts_per_token" in found:
        found.setdefault("num_experts_per_tok", found["experts_per_token"])
    for alias, key in ALIASES.get(kind, {}).items():
        if alias in found and not (alias in DEFAULTS[kind] and key in found):
            found[key] = found[alias]
    return found


def _ffn(s: Settings, architecture: str, width: int) -> int | None:
    """Default width of the feed-forward layer."""
    if architecture == "gpt2":
        return 4 * width
    return s.integer("moe_intermediate_size") if "moe_intermediate_size" in s.values else None


def _refuse(s: Settings, architecture: str) -> None:
    default = _ACTIVATIONS.get(architecture, _SILU)
    key = "hidden_activation" if architecture == "gemma3" else "hidden_act"
    activation = s.values.get(key, default[0])
    if activation not in default:
        raise UnsupportedError(
            f"`{s.path}`: unknown activation `{activation}`", hint=f"known: {default[0]}"
        )
    fixed = {
        "attn_logit_softcapping": None,
        "use_bidirectional_attention": False,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "swiglu_alpha": ALPHA,
        "swiglu_limit": LIMIT,
    }
    for key, known in fixed.items():
        if s.values.get(key, known) not in (known, None):
            raise UnsupportedError(
                f"`{s.path}`: `{key}` is {s.values[key]}, which is not supported",
                hint=f"supported: {known}",
            )


def _experts(s: Settings, kind: str, layers: int) -> tuple[int, Experts | None]:
    """Number of experts, and the rules of their routing."""
    if kind not in ("mixtral", "gpt_oss") and "moe" not in kind and kind != "qwen3_next":
        return 0, None
    count = s.integer("num_local_experts", s.values.get("num_experts"))
    own = kind in ("mixtral", "gpt_oss")
    step, dense = s.integer("decoder_sparse_step", 1), s.layers("mlp_only_layers")
    used = s.integer("num_experts_per_tok")
    if used > count:
        raise s.wrong("num_experts_per_tok", used, f"at most {count}")
    return count, Experts(
        used=used,
        ffn=s.integer("intermediate_size" if own else "moe_intermediate_size"),
        normalize=s.flag("norm_topk_prob", kind != "qwen3_moe"),
        shared=s.integer("shared_expert_intermediate_size") if _has_shared_expert(kind) else 0,
        dense=frozenset(i for i in range(layers) if i in dense or (i + 1) % step),
    )


def _has_shared_expert(kind: str) -> bool:
    return kind == "qwen3_next" or kind.startswith("qwen3_5_moe")


def _delta(s: Settings, layers: int) -> Delta:
    kinds = s.kinds("layer_types", layers)
    every = s.integer("full_attention_interval", 4)
    return Delta(
        key_heads=s.integer("linear_num_key_heads"),
        heads=s.integer("linear_num_value_heads"),
        key_size=s.integer("linear_key_head_dim"),
        value_size=s.integer("linear_value_head_dim"),
        kernel=s.integer("linear_conv_kernel_dim", 4),
        layers=tuple(
            (i + 1) % every != 0 if kinds is None else kinds[i] == "linear_attention"
            for i in range(layers)
        ),
    )


_WINDOWED = (
    "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe", "gemma3_text", "gpt_oss",
)  # fmt: skip
"""Models of transformers that look at `sliding_window`."""


def _windows(s: Settings, kind: str, layers: int) -> tuple[int, ...]:
    """Sliding window of each layer, () if there is none; Qwen needs `use_sliding_window`."""
    if kind not in _WINDOWED or s.values.get("sliding_window") in (None, 0, -1):
        return ()
    window = s.integer("sliding_window")
    if kind.startswith("qwen") and not s.flag("use_sliding_window"):
        return ()
    if kind in ("mistral", "mixtral", "phi3", "qwen3_moe"):
        return (window,) * layers
    kinds = s.kinds("layer_types", layers)
    if kind.startswith("gemma3"):
        every = s.integer("sliding_window_pattern", s.integer("_sliding_window_pattern", 6))
        slides = [bool((i + 1) % every) for i in range(layers)]
    elif kind == "gpt_oss":
        slides = [i % 2 == 0 for i in range(layers)]
    else:
        full = s.integer("max_window_layers", least=0)
        slides = [i >= full for i in range(layers)]
    if kinds is not None:
        slides = [kind == "sliding_attention" for kind in kinds]
    windows = tuple(window if slide else 0 for slide in slides)
    return windows if any(windows) else ()
