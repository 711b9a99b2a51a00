"""Read the rotary embedding settings of config.json, written by transformers 4 or 5."""

from __future__ import annotations

import math

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.hf_defaults import DEFAULTS, ROPE_BASES
from fewbit.files.hf_settings import Settings
from fewbit.models.rope import yarn_attention
from fewbit.plan.config import Rope

PARTIAL = ("phi3", "qwen35", "qwen35moe", "qwen3next")
"""Architectures whose plan can rotate a fraction of each head."""


def main_rope(s: Settings, model_type: str, context: int) -> Rope:
    """Read the rotary embedding of all layers, or of those with full attention.

    Raises:
        UnsupportedError: the scaling is not supported.
        FileFormatError: a value is missing or has the wrong type.

    """
    by_layer = model_type.startswith("gemma3")
    r = _of_layers(s, "full_attention") if by_layer else _section(s, "full_attention")
    base = r.number("rope_theta", s.number("rope_theta", ROPE_BASES[model_type][0]))
    kind = r.values.get("rope_type") or r.values.get("type") or "default"
    if model_type == "phi3" and kind == "yarn":
        kind = "longrope"  # Phi 3's name of it in its first files
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
                _original(s, r, model_type),
                low_freq_factor=r.number("low_freq_factor"),
                high_freq_factor=r.number("high_freq_factor"),
            )
        case "yarn":
            return _yarn(r, base, context, _original(s, r, model_type))
        case "longrope" | "su":
            return _longrope(r, base, context, _original(s, r, model_type))
    raise UnsupportedError(
        f"`{s.path}`: unknown rope scaling `{kind}`",
        hint="known: default, linear, llama3, yarn, longrope",
    )


def window_rope(s: Settings, model_type: str) -> Rope:
    """Read the rotary embedding of Gemma 3's layers with a sliding window."""
    base = s.number("rope_local_base_freq", ROPE_BASES[model_type][1])
    return Rope(_of_layers(s, "sliding_attention").number("rope_theta", base))


def rotated(s: Settings, architecture: str, head_dim: int) -> int:
    """Number of elements of a head that are rotated, 0 for all.

    Raises:
        UnsupportedError: it is a fraction of the head, and the architecture rotates all of it.

    """
    r = _section(s, "full_attention")
    default = 0.25 if architecture.startswith(("qwen35", "qwen3next")) else 1.0
    fraction = r.number("partial_rotary_factor", s.number("partial_rotary_factor", default))
    if fraction == 1:
        return 0
    if architecture not in PARTIAL:
        raise UnsupportedError(
            f"`{s.path}`: `partial_rotary_factor` is {fraction:g}, which is not supported for "
            f"{architecture}",
            hint="supported: 1",
        )
    dims = int(head_dim * fraction)
    if dims < 2 or dims % 2 or dims > head_dim:
        raise s.wrong(
            "partial_rotary_factor",
            fraction,
            "a fraction of the head with an even number of elements",
        )
    return 0 if dims == head_dim else dims


def sections(s: Settings) -> tuple[int, ...]:
    """Rotary pairs for time, height and width in Qwen3.5; text has one position for all three."""
    r = _section(s, "full_attention")
    if r.values.get("mrope_section") is None:
        return ()
    return (*(int(n) for n in r.numbers("mrope_section")), 0)


def _section(s: Settings, kind: str) -> Settings:
    """Settings of the rope: `rope_scaling` (transformers 4) or else `rope_parameters` (5)."""
    for key in ("rope_scaling", "rope_parameters"):
        if (r := s.section(key)) is not None and r.values:
            return r.section(kind) or r
    return Settings({}, s.path)


def _of_layers(s: Settings, kind: str) -> Settings:
    """Settings of the rope of one kind of layers, as Gemma 3's class in transformers 5 reads them.

    `rope_scaling` changes those of full attention. Settings for all layers in `rope_parameters`,
    beside the kinds, have no effect there.
    """
    r = s.section("rope_parameters")
    own = None if r is None else r.section(kind)
    values = {} if own is None else dict(own.values)
    scaling = s.section("rope_scaling") if kind == "full_attention" else None
    return Settings(values | (dict(scaling.values) if scaling is not None else {}), s.path)


def _longrope(r: Settings, base: float, context: int, original: int) -> Rope:
    factor = r.number("factor", context / original)
    if original < 2:
        raise r.wrong("original_max_position_embeddings", original, "an integer of 2 or more")
    attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return Rope(
        base,
        "longrope",
        original_context=original,
        attention_factor=r.number("attention_factor", attention),
        factors=r.numbers("short_factor"),
        long_factors=r.numbers("long_factor"),
    )


def _yarn(r: Settings, base: float, context: int, original: int) -> Rope:
    factor = _factor(r, context / original)
    given = r.values.get("attention_factor") is not None
    attention = r.number("attention_factor") if given else None
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


def _original(s: Settings, r: Settings, model_type: str) -> int:
    """Context that the model was trained with; Phi 3's stands beside the rope's settings."""
    key = "original_max_position_embeddings"
    if key in DEFAULTS[model_type]:
        return s.integer(key)
    return r.integer(key, s.integer("max_position_embeddings"))


def _factor(r: Settings, default: float | None = None) -> float:
    value = r.number("factor", default)
    if value <= 0:
        raise FileFormatError(f"`{r.path}`: the rope factor must be above 0, found {value:g}")
    return value
