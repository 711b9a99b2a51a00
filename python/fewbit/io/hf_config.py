"""config.json of a Hugging Face folder, in the spelling of transformers 4 or 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbit.config import Config, Rope
from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.models import unknown_architecture
from fewbit.models.rope import yarn_attention

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' `model_type` -> GGUF's architecture."""
_ACTIVATIONS = ("silu", "swish")


@dataclass(frozen=True)
class _Settings:
    """The file's values, each checked for its type when it is asked for."""

    values: Mapping[str, Any]
    path: Path

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise self._wrong(key, value, "a whole number of 1 or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise self._wrong(key, value, "a number of 0 or more")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def section(self, key: str) -> _Settings | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return _Settings(value, self.path)

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self._wrong(key, None, "a value")
        return value

    def _wrong(self, key: str, value: Any, expected: str) -> FileFormatError:
        found = "nothing" if value is None else repr(value)
        return FileFormatError(
            f"`{self.path}`: `{key}` must be {expected}, found {found}",
            hint="take the config.json that belongs to the weights",
            path=str(self.path),
            key=key,
        )


def config_from_hf(settings: Mapping[str, Any], path: Path) -> Config:
    """The configuration in config.json; `path` is named in errors.

    Raises:
        UnsupportedError: an architecture, activation, rope scaling or quantization that is not
            known here.
        FileFormatError: a value is missing or of the wrong kind.

    """
    s = _Settings(settings, path)
    kind = str(settings.get("model_type"))
    if kind not in ARCHITECTURES:
        raise unknown_architecture(kind)
    _refuse(s, path)
    heads, width = s.integer("num_attention_heads"), s.integer("hidden_size")
    layers, bias = s.integer("num_hidden_layers"), s.flag("attention_bias")
    context = s.integer("max_position_embeddings", 2048)
    return Config(
        architecture=ARCHITECTURES[kind],
        vocab=s.integer("vocab_size"),
        layers=layers,
        width=width,
        ffn=s.integer("intermediate_size"),
        heads=heads,
        kv_heads=s.integer("num_key_value_heads", heads),
        head_dim=s.integer("head_dim", 128 if kind == "qwen3" else max(width // heads, 1)),
        norm_eps=s.number("rms_norm_eps", 1e-6),
        context=context,
        rope=_rope(s, context),
        windows=_windows(s, kind, layers),
        qkv_bias=bias or kind == "qwen2",
        output_bias=bias and kind != "qwen2",
        ffn_bias=s.flag("mlp_bias"),
        tied=s.flag("tie_word_embeddings"),
        name=path.parent.name,
    )


def _refuse(s: _Settings, path: Path) -> None:
    activation = s.values.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise UnsupportedError(f"`{path}`: unknown activation `{activation}`", hint="known: silu")
    if s.values.get("quantization_config"):
        raise UnsupportedError(
            f"`{path}`: the weights are quantized already, in a form that fewbit does not read",
            hint="take the original checkpoint",
        )


def _rope(s: _Settings, context: int) -> Rope:
    """Both spellings: `rope_parameters` (5), or `rope_theta` beside `rope_scaling` (4)."""
    r = s.section("rope_parameters") or s.section("rope_scaling") or _Settings({}, s.path)
    kind = r.values.get("rope_type", r.values.get("type", "default"))
    base = r.number("rope_theta", s.number("rope_theta", 10000.0))
    if s.number("partial_rotary_factor", r.number("partial_rotary_factor", 1.0)) != 1:
        raise UnsupportedError(
            f"`{s.path}`: only a part of each head is rotated",
            hint="known: partial_rotary_factor 1",
        )
    match kind:
        case "default":
            return Rope(base)
        case "linear":
            return Rope(base, "linear", _factor(r))
        case "llama3":
            return Rope(
                base,
                "llama3",
                _factor(r),
                r.integer("original_max_position_embeddings"),
                low_freq_factor=r.number("low_freq_factor"),
                high_freq_factor=r.number("high_freq_factor"),
            )
        case "yarn":
            return _yarn(r, base, context)
    raise UnsupportedError(
        f"`{s.path}`: unknown rope scaling `{kind}`", hint="known: default, linear, llama3, yarn"
    )


def _yarn(r: _Settings, base: float, context: int) -> Rope:
    original = r.integer("original_max_position_embeddings", context)
    factor = _factor(r, context / original)
    attention = r.number("attention_factor") if "attention_factor" in r.values else None
    if attention is None and r.values.get("mscale") and r.values.get("mscale_all_dim"):
        attention = yarn_attention(factor, r.number("mscale")) / yarn_attention(
            factor, r.number("mscale_all_dim")
        )
    return Rope(
        base,
        "yarn",
        factor,
        original,
        beta_fast=r.number("beta_fast", 32.0),
        beta_slow=r.number("beta_slow", 1.0),
        attention_factor=attention,
        truncate=r.flag("truncate", True),
    )


def _factor(r: _Settings, default: float | None = None) -> float:
    value = r.number("factor", default)
    if value <= 0:
        raise FileFormatError(f"`{r.path}`: the rope factor must be above 0, found {value:g}")
    return value


def _windows(s: _Settings, kind: str, layers: int) -> tuple[int, ...]:
    """One window per layer, or none at all; Qwen slides only where it is told to."""
    if s.values.get("sliding_window") is None or kind == "llama":
        return ()
    window = s.integer("sliding_window")
    if kind == "mistral":
        return (window,) * layers
    if not s.flag("use_sliding_window"):
        return ()
    kinds = s.values.get("layer_types")
    if kinds is None:
        full = s.integer("max_window_layers", 28)
        kinds = ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise FileFormatError(f"`{s.path}`: `layer_types` must name the kind of {layers} layers")
    windows = tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    return windows if any(windows) else ()
