"""The configuration in a GGUF file's metadata, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewbit.config import Config, Rope
from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.io.gguf import Metadata
from fewbit.models import ARCHITECTURES, unknown_architecture
from fewbit.models.rope import frequencies, yarn_attention

ROPE_FREQS = "rope_freqs.weight"
"""One divisor per frequency: how GGUF stores the stretching of Llama 3."""


@dataclass(frozen=True)
class _Keys:
    """Metadata under the architecture's prefix, each value checked for its type."""

    metadata: Metadata
    prefix: str
    path: Path

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, list) and len(set(value)) == 1:  # one value per layer, all the same
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise self.wrong(key, value, "a whole number")
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
        found = "nothing" if value is None else repr(value)
        return FileFormatError(
            f"`{self.path}`: `{self.prefix}.{key}` must be {expected}, found {found}",
            hint="convert the model again with a current converter",
            path=str(self.path),
            key=f"{self.prefix}.{key}",
        )


def shortest(value: float) -> float:
    """The shortest decimal number that is the same f32: 1e-5 comes back as it was written.

    >>> shortest(9.999999747378752e-06)
    1e-05
    """
    return float(f"{value:.7g}")


def config_from_gguf(
    metadata: Metadata,
    shapes: Mapping[str, tuple[int, ...]],
    divisors: Sequence[float] | None,
    path: Path,
) -> Config:
    """The configuration in `metadata`; biases and ties show in the tensors' names and `shapes`.

    `divisors` are the values of `rope_freqs.weight` where the file has it.

    Raises:
        UnsupportedError: an architecture or variant that is not known here.
        FileFormatError: a value is missing or of the wrong kind.

    """
    field = metadata.get("general.architecture")
    architecture = "" if field is None else str(field.value)
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
    table = shapes.get("token_embd.weight", (0,))
    name = metadata.get("general.name")
    return Config(
        architecture=architecture,
        vocab=k.size("vocab_size", table[0] or None) if len(table) != 2 else table[0],
        layers=layers,
        width=width,
        ffn=k.size("feed_forward_length"),
        heads=heads,
        kv_heads=k.size("attention.head_count_kv", heads),
        head_dim=head_dim,
        norm_eps=k.number("attention.layer_norm_rms_epsilon"),
        context=k.size("context_length"),
        rope=_rope(k, divisors, head_dim),
        windows=_windows(k, layers),
        qkv_bias="blk.0.attn_q.bias" in shapes,
        output_bias="blk.0.attn_output.bias" in shapes,
        ffn_bias="blk.0.ffn_up.bias" in shapes,
        tied="output.weight" not in shapes,
        name=str(name.value) if name is not None else path.stem,
    )


def _refuse(k: _Keys, head_dim: int) -> None:
    if k.integer("expert_count", 0):
        raise UnsupportedError(
            f"`{k.path}`: {k.prefix} with experts", hint="known: dense models only"
        )
    for key in ("attention.value_length", "rope.dimension_count"):
        if (found := k.size(key, head_dim)) != head_dim:
            raise UnsupportedError(
                f"`{k.path}`: `{k.prefix}.{key}` is {found}, heads have {head_dim} elements",
                hint="known: whole heads rotated, values as long as keys",
            )


def _rope(k: _Keys, divisors: Sequence[float] | None, head_dim: int) -> Rope:
    rope = Rope(k.number("rope.freq_base", 10000.0))
    if divisors is not None:
        if len(divisors) != head_dim // 2 or not all(0 < d < 1e18 for d in divisors):
            raise FileFormatError(
                f"`{k.path}`: `{ROPE_FREQS}` must hold {head_dim // 2} divisors above 0"
            )
        rope = replace(rope, factors=tuple(divisors))
    linear = k.number("rope.scale_linear", 0.0)  # the key of old converters
    kind = k.value("rope.scaling.type") or ("linear" if linear else "none")
    if kind == "none":
        return rope
    factor = k.number("rope.scaling.factor", linear or None)
    if factor <= 0:
        raise k.wrong("rope.scaling.factor", factor, "above 0")
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
    pattern = k.value("attention.sliding_window_pattern")
    if not window:
        return ()
    if pattern is None:
        return (window,) * layers
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise k.wrong("attention.sliding_window_pattern", pattern, f"a flag for {layers} layers")
    return tuple(window if slides else 0 for slides in pattern)


def config_to_gguf(c: Config) -> dict[str, Any]:
    """The metadata that `config_from_gguf` and llama.cpp read, in the order of its converter."""
    rope = c.rope
    values: dict[str, Any] = {
        "block_count": c.layers,
        "context_length": c.context,
        "embedding_length": c.width,
        "feed_forward_length": c.ffn,
        "attention.head_count": c.heads,
        "attention.head_count_kv": c.kv_heads,
        "rope.freq_base": float(rope.base),
        "attention.layer_norm_rms_epsilon": c.norm_eps,
        "attention.key_length": c.head_dim,
        "attention.value_length": c.head_dim,
        "vocab_size": c.vocab,
        "rope.dimension_count": c.head_dim,
    }
    if rope.kind in ("linear", "yarn"):
        values["rope.scaling.type"] = rope.kind
        values["rope.scaling.factor"] = float(rope.factor)
    if rope.kind == "yarn":
        values |= _yarn_values(rope)
    if any(c.windows):
        values["attention.sliding_window"] = max(c.windows)
        if not all(c.windows):
            values["attention.sliding_window_pattern"] = [window > 0 for window in c.windows]
    return {f"{c.architecture}.{key}": value for key, value in values.items()}


def _yarn_values(rope: Rope) -> dict[str, Any]:
    if not rope.truncate:
        raise UnsupportedError(
            "GGUF cannot say that the YaRN range is not rounded", hint="keep the original folder"
        )
    values: dict[str, Any] = {"rope.scaling.original_context_length": rope.original_context}
    if rope.attention_factor is not None:
        values["rope.scaling.yarn_attn_factor"] = rope.attention_factor / yarn_attention(
            rope.factor
        )
    if (rope.beta_fast, rope.beta_slow) != (32.0, 1.0):
        values["rope.scaling.yarn_beta_fast"] = rope.beta_fast
        values["rope.scaling.yarn_beta_slow"] = rope.beta_slow
    return values


def rope_divisors(c: Config) -> tuple[float, ...] | None:
    """What `rope_freqs.weight` has to hold, None where the metadata says it all."""
    if c.rope.factors is not None:
        return c.rope.factors
    if c.rope.kind != "llama3":
        return None
    plain, _ = frequencies(Rope(c.rope.base), c.head_dim)
    stretched, _ = frequencies(c.rope, c.head_dim)
    return tuple(a / b for a, b in zip(plain, stretched, strict=True))
