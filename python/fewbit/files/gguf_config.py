"""Convert between a model's configuration and the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError, UnsupportedError, shown
from fewbit.files.gguf import Metadata, readable
from fewbit.files.header_sizes import check_sizes
from fewbit.models import ARCHITECTURES, unknown_architecture
from fewbit.models.rope import frequencies, yarn_attention
from fewbit.plan.config import Config, Delta, Experts, Rope

ROPE_FREQS = "rope_freqs.weight"
"""Tensor with one divisor per rotary frequency: GGUF's form of Llama 3 scaling."""
LONG_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
"""Tensors with the divisors of LongRoPE, for short and for long contexts."""
_PATTERNS = {"gemma3": 6, "gpt-oss": 2}
"""Period of the layers with full attention, for files without a window pattern."""


@dataclass(frozen=True)
class _Keys:
    """Metadata under the prefix of an architecture; types are checked when a value is read."""

    metadata: Metadata
    prefix: str
    path: Path

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, list) and value and all(v == value[0] for v in value):  # each layer's
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise self.wrong(key, value, "an integer of 0 or more")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        if (value := self.integer(key, default)) == 0:
            raise self.wrong(key, value, "a number of 1 or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise self.wrong(key, value, "a number of 0 or more")
        return shortest(float(value))

    def value(self, key: str) -> Any:
        field = self.metadata.get(f"{self.prefix}.{key}")
        return None if field is None else field.value

    def _get(self, key: str, default: Any) -> Any:
        value = self.value(key)
        return default if value is None else value

    def wrong(self, key: str, value: Any, expected: str) -> FileFormatError:
        found = "nothing" if value is None else shown(value)
        return FileFormatError(
            f"`{self.path}`: `{self.prefix}.{key}` must be {expected}, found {found}",
            hint="convert the model to GGUF again with a current converter",
            path=str(self.path),
            key=f"{self.prefix}.{key}",
        )


def shortest(value: float) -> float:
    """Round to the shortest decimal number that is the same float32.

    >>> shortest(9.999999747378752e-06)
    1e-05
    """
    return float(f"{value:.7g}")


def config_from_gguf(
    metadata: Metadata,
    shapes: Mapping[str, tuple[int, ...]],
    divisors: Mapping[str, Sequence[float]],
    path: Path,
) -> Config:
    """Read the configuration from `metadata`; biases and tied weights follow from `shapes`.

    `shapes` maps tensor names to shapes. `divisors` are the values of `ROPE_FREQS` and
    `LONG_FACTORS`, if the file has them. Errors name `path`.

    Raises:
        UnsupportedError: the architecture or a variant of it is not supported.
        FileFormatError: a value is missing or has the wrong type.

    """
    field = metadata.get("general.architecture")
    architecture = "" if field is None else readable(str(field.value))
    if architecture not in ARCHITECTURES:
        raise unknown_architecture(architecture)
    k = _Keys(metadata, architecture, path)
    heads, width, layers = (
        k.size("attention.head_count"),
        k.size("embedding_length"),
        k.size("block_count"),
    )
    head_dim = k.size("attention.key_length", max(width // heads, 1))
    _refuse(k, head_dim)
    rotated = k.size("rope.dimension_count", head_dim)
    check_sizes(path, shapes.values(), layers, max(head_dim, rotated))
    if (layers := layers - k.integer("nextn_predict_layers", 0)) < 1:
        raise k.wrong("nextn_predict_layers", k.value("nextn_predict_layers"), "below block_count")
    gemma, eps = architecture == "gemma3", "attention.layer_norm_rms_epsilon"
    table = shapes.get("token_embd.weight", (0,))
    name = metadata.get("general.name")
    return Config(
        architecture=architecture,
        vocab=k.size("vocab_size", table[0] or None) if len(table) != 2 else table[0],
        layers=layers,
        width=width,
        ffn=k.size("feed_forward_length", k.integer("expert_feed_forward_length", 0) or None),
        heads=heads,
        kv_heads=k.size("attention.head_count_kv", heads),
        head_dim=head_dim,
        norm_eps=k.number("attention.layer_norm_epsilon" if architecture == "gpt2" else eps),
        context=k.size("context_length"),
        rope=_rope(k, divisors, rotated),
        windows=_windows(k, layers),
        qkv_bias="blk.0.attn_q.bias" in shapes or "blk.0.attn_qkv.bias" in shapes,
        output_bias="blk.0.attn_output.bias" in shapes,
        ffn_bias="blk.0.ffn_up.bias" in shapes,
        tied="output.weight" not in shapes,
        window_rope=Rope(k.number("rope.freq_base_swa", 10000.0)) if gemma else None,
        rotated=0 if rotated == head_dim else rotated,
        rope_sections=_sections(k),
        query_scale=(width / heads) ** -0.5 if gemma and layers == _GEMMA_27B else None,
        softcap=k.number("final_logit_softcapping", 0.0),
        experts=k.integer("expert_count", 0),
        routing=_routing(k, shapes),
        delta=_delta(k, layers) if architecture.startswith(("qwen35", "qwen3next")) else None,
        name=readable(str(name.value)) if name is not None else path.stem,
    )


_GEMMA_27B = 62
"""Layers of Gemma 3 27B: its queries are scaled by width / heads instead of the head size."""


def _refuse(k: _Keys, head_dim: int) -> None:
    if (found := k.size("attention.value_length", head_dim)) != head_dim:
        raise UnsupportedError(
            f"`{k.path}`: `{k.prefix}.attention.value_length` is {found}, "
            f"heads have {head_dim} elements",
            hint="supported: values of the size of keys",
        )


def _sections(k: _Keys) -> tuple[int, ...]:
    value = k.value("rope.dimension_sections")
    known = isinstance(value, list) and all(isinstance(n, int) for n in value)
    return tuple(value) if known else ()


def _routing(k: _Keys, shapes: Mapping[str, tuple[int, ...]]) -> Experts | None:
    if not k.integer("expert_count", 0):
        return None
    ffn = k.size("expert_feed_forward_length", k.integer("feed_forward_length", 0) or None)
    shared = shapes.get("blk.0.ffn_up_shexp.weight", (0,))[0]
    return Experts(k.size("expert_used_count"), ffn, shared=shared)


def _delta(k: _Keys, layers: int) -> Delta:
    recurrent, every = k.value("attention.recurrent_layers"), k.size("full_attention_interval", 4)
    if not isinstance(recurrent, list) or len(recurrent) < layers:
        recurrent = [(i + 1) % every != 0 for i in range(layers)]
    heads = k.size("ssm.time_step_rank")
    return Delta(
        key_heads=k.size("ssm.group_count"),
        heads=heads,
        key_size=k.size("ssm.state_size"),
        value_size=k.size("ssm.inner_size") // heads,
        kernel=k.size("ssm.conv_kernel"),
        layers=tuple(bool(flag) for flag in recurrent[:layers]),
    )


def _checked(k: _Keys, name: str, values: Sequence[float], dims: int) -> tuple[float, ...]:
    if len(values) != dims // 2 or not all(0 < d < 1e18 for d in values):
        raise FileFormatError(f"`{k.path}`: `{name}` must have {dims // 2} divisors above 0")
    return tuple(values)


def _rope(k: _Keys, divisors: Mapping[str, Sequence[float]], dims: int) -> Rope:
    rope = Rope(k.number("rope.freq_base", 10000.0))
    found = {name: _checked(k, name, values, dims) for name, values in divisors.items()}
    if all(name in found for name in LONG_FACTORS):
        return replace(
            rope,
            kind="longrope",
            original_context=k.size(
                "rope.scaling.original_context_length", k.size("context_length")
            ),
            attention_factor=k.number("rope.scaling.attn_factor", 1.0),
            factors=found[LONG_FACTORS[0]],
            long_factors=found[LONG_FACTORS[1]],
        )
    if ROPE_FREQS in found:
        rope = replace(rope, factors=found[ROPE_FREQS])
    linear = k.number("rope.scale_linear", 0.0)  # written by old converters
    factor = k.number("rope.scaling.factor", linear)
    kind = k.value("rope.scaling.type") or "linear"  # as in llama.cpp, where 0 is no factor
    if kind == "none" or (kind == "linear" and factor == 0):
        return rope
    factor = factor or 1.0
    if kind == "linear":
        return replace(rope, kind="linear", factor=factor)
    if kind != "yarn":
        raise UnsupportedError(
            f"`{k.path}`: unknown rope scaling `{kind}`", hint="known: none, linear, yarn"
        )
    attention = k.number("rope.scaling.yarn_attn_factor", k.number("rope.scaling.attn_factor", 1.0))
    return replace(
        rope,
        kind="yarn",
        factor=factor,
        original_context=k.size("rope.scaling.original_context_length", k.size("context_length")),
        beta_fast=k.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=k.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=None if attention == 1 else attention * yarn_attention(factor),
    )


def _windows(k: _Keys, layers: int) -> tuple[int, ...]:
    window = k.integer("attention.sliding_window", 0)
    if not window:
        return ()
    pattern = k.value("attention.sliding_window_pattern") or _PATTERNS.get(k.prefix)
    if pattern is None:
        return (window,) * layers
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        pattern = [(i + 1) % pattern != 0 for i in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise k.wrong("attention.sliding_window_pattern", pattern, f"a list of {layers} flags")
    return tuple(window if slides else 0 for slides in pattern)


def config_to_gguf(c: Config) -> dict[str, Any]:
    """Return the metadata that `config_from_gguf` and llama.cpp read, in its converter's order.

    Raises:
        UnsupportedError: GGUF cannot describe the configuration.

    """
    rope = c.rope
    values: dict[str, Any] = {
        "block_count": c.layers,
        "context_length": c.context,
        "embedding_length": c.width,
        "feed_forward_length": c.ffn,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        "rope.freq_base": float(rope.base),
        "attention.layer_norm_epsilon"
        if c.architecture == "gpt2"
        else "attention.layer_norm_rms_epsilon": c.norm_eps,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "vocab_size": c.vocab,
        "rope.dimension_count": c.rope_dims,
    }
    if rope.kind in ("linear", "yarn"):
        values["rope.scaling.type"] = rope.kind
        values["rope.scaling.factor"] = float(rope.factor)
    if rope.kind == "yarn":
        values |= _yarn_values(rope)
    if rope.kind == "longrope":
        values["rope.scaling.attn_factor"] = rope.attention_factor or 1.0
        values["rope.scaling.original_context_length"] = rope.original_context
    values |= _window_values(c) | _expert_values(c) | _delta_values(c)
    if c.softcap:
        values["final_logit_softcapping"] = c.softcap
    if c.query_scale is not None and not (
        c.layers == _GEMMA_27B and c.query_scale == (c.width / c.heads) ** -0.5
    ):
        raise UnsupportedError(
            "GGUF cannot describe attention with a query scale of its own",
            hint="use the original folder",
        )
    return {f"{c.architecture}.{key}": value for key, value in values.items()}


def _window_values(c: Config) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if c.window_rope is not None:
        values["rope.freq_base_swa"] = float(c.window_rope.base)
    if not any(c.windows):
        return values
    values["attention.sliding_window"] = max(c.windows)
    every = _PATTERNS.get(c.architecture)
    if every is not None:
        known = [(i + 1) % every != 0 for i in range(c.layers)]
        if [window > 0 for window in c.windows] != known:
            raise UnsupportedError(
                f"GGUF cannot describe {c.architecture} with sliding windows in these layers",
                hint="use the original folder",
            )
    elif not all(c.windows):
        values["attention.sliding_window_pattern"] = [window > 0 for window in c.windows]
    return values


def _expert_values(c: Config) -> dict[str, Any]:
    if c.routing is None:
        return {}
    if not c.routing.normalize or c.routing.dense:
        raise UnsupportedError(
            "GGUF cannot describe dense layers in a model with experts, or expert weights that are "
            "not normalised",
            hint="use the original folder",
        )
    values = {
        "expert_count": c.experts,
        "expert_used_count": c.routing.used,
        "expert_feed_forward_length": c.routing.ffn,
    }
    if c.routing.shared:
        values["expert_shared_feed_forward_length"] = c.routing.shared
    return values


def _delta_values(c: Config) -> dict[str, Any]:
    if c.delta is None:
        return {}
    every = next((i + 1 for i, linear in enumerate(c.delta.layers) if not linear), c.layers + 1)
    values: dict[str, Any] = {
        "ssm.conv_kernel": c.delta.kernel,
        "ssm.state_size": c.delta.key_size,
        "ssm.group_count": c.delta.key_heads,
        "ssm.time_step_rank": c.delta.heads,
        "ssm.inner_size": c.delta.heads * c.delta.value_size,
        "attention.recurrent_layers": list(c.delta.layers),
        "full_attention_interval": every,
    }
    if c.rope_sections:
        values["rope.dimension_sections"] = list(c.rope_sections)
    return values


def not_described(c: Config) -> list[str]:
    """List settings of `c` that GGUF cannot describe, though their loss changes results little.

    `config_to_gguf` refuses settings whose loss would change results much.
    """
    if c.rope.kind == "yarn" and not c.rope.truncate:
        return [
            "GGUF cannot describe a YaRN range that is not rounded: llama.cpp rounds it, so its "
            "results differ slightly from those of the folder"
        ]
    return []


def _yarn_values(rope: Rope) -> dict[str, Any]:
    values: dict[str, Any] = {"rope.scaling.original_context_length": rope.original_context}
    if rope.attention_factor is not None:
        values["rope.scaling.yarn_attn_factor"] = rope.attention_factor / yarn_attention(
            rope.factor
        )
    if (rope.beta_fast, rope.beta_slow) != (32.0, 1.0):
        values["rope.scaling.yarn_beta_fast"] = rope.beta_fast
        values["rope.scaling.yarn_beta_slow"] = rope.beta_slow
    return values


def rope_divisors(c: Config) -> dict[str, tuple[float, ...]]:
    """Return the tensors of frequency divisors that a GGUF file needs; empty if it needs none."""
    if c.rope.kind == "longrope":
        return dict(zip(LONG_FACTORS, (c.rope.factors or (), c.rope.long_factors), strict=True))
    if c.rope.factors is not None:
        return {ROPE_FREQS: c.rope.factors}
    if c.rope.kind != "llama3":
        return {}
    plain, _ = frequencies(Rope(c.rope.base), c.rope_dims)
    stretched, _ = frequencies(c.rope, c.rope_dims)
    return {ROPE_FREQS: tuple(a / b for a, b in zip(plain, stretched, strict=True))}
