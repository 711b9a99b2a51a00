"""What a model's configuration says, in one vocabulary for Hugging Face folders and GGUF files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["none", "linear", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: its base and how its frequencies are stretched.

    `factors` holds one divisor per frequency where a file stores them (GGUF's
    ``rope_freqs.weight``); then `kind` is ``"none"``, as they are the stretching.
    `attention_factor` None means YaRN's own ``0.1 ln(factor) + 1``. With ``"longrope"`` the
    `factors` hold up to `original_context` tokens, `long_factors` beyond.
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
    long_factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: each token goes to `used` of them, `ffn` wide.

    Their weights are the softmax over all, or if `normalize` over the chosen ones. `shared` is the
    width of an expert that every token goes to as well, 0 for none; layers in `dense` have none.
    """

    used: int
    ffn: int
    normalize: bool = True
    shared: int = 0
    dense: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Delta:
    """Layers of the gated delta rule: heads of keys and of values and their sizes, and how long
    the convolution before it is. `layers` says for each layer whether it is one.
    """

    key_heads: int
    heads: int
    key_size: int
    value_size: int
    kernel: int
    layers: tuple[bool, ...]

    @property
    def channels(self) -> int:
        """Columns of q, k and v together."""
        return 2 * self.key_heads * self.key_size + self.heads * self.value_size


@dataclass(frozen=True)
class Config:
    """The numbers that a plan is built from; `architecture` is GGUF's name for it.

    `windows` has one entry per layer: 0 for full attention, else how many positions, the
    token's own included, it may look back on; layers with a window rotate by `window_rope` if
    there is one. `rotated` is how many elements of a head rotate, 0 for all. `query_scale` is the
    factor of q k, None for 1 / sqrt(head_dim). `experts` is 0 in a dense model, else how many
    there are, and `routing` says the rest; `delta` is None where all layers attend.
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
    window_rope: Rope | None = None
    rotated: int = 0
    rope_sections: tuple[int, ...] = ()
    query_scale: float | None = None
    softcap: float = 0.0
    experts: int = 0
    routing: Experts | None = None
    delta: Delta | None = None
    name: str = ""

    def window(self, layer: int) -> int:
        """The sliding window of `layer`, 0 for none."""
        return self.windows[layer] if self.windows else 0

    @property
    def rope_dims(self) -> int:
        """How many elements of a head rotate."""
        return self.rotated or self.head_dim

    @property
    def scale(self) -> float:
        """The factor of q k before the softmax."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale
