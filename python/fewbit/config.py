"""What a model's configuration says, in one vocabulary for Hugging Face folders and GGUF files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["none", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: its base and how its frequencies are stretched.

    `factors` holds one divisor per frequency where a file stores them (GGUF's
    ``rope_freqs.weight``); then `kind` is ``"none"``, as they are the stretching.
    `attention_factor` None means YaRN's own ``0.1 ln(factor) + 1``.
    """

    base: float = 10000.0
    kind: RopeKind = "none"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True
    factors: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Config:
    """The numbers that a plan is built from; `architecture` is GGUF's name for it.

    `windows` has one entry per layer: 0 for full attention, else how many positions, the
    token's own included, it may look back on. `experts` is 0 in a dense model.
    """

    architecture: str
    vocab: int
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    context: int
    rope: Rope = field(default_factory=Rope)
    windows: tuple[int, ...] = ()
    qkv_bias: bool = False
    output_bias: bool = False
    ffn_bias: bool = False
    tied: bool = False
    experts: int = 0
    name: str = ""

    def window(self, layer: int) -> int:
        """The sliding window of `layer`, 0 for none."""
        return self.windows[layer] if self.windows else 0
