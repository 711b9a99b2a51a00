"""Configuration of a model: one dataclass for Hugging Face folders and GGUF files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["none", "linear", "llama3", "yarn", "longrope"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: its base, and the scaling of its frequencies.

    `factors` has one divisor per frequency if a file stores them (GGUF's ``rope_freqs.weight``);
    `kind` is then ``"none"``, because they are the scaling. `attention_factor` None stands for
    YaRN's default, ``0.1 ln(factor) + 1``. With ``"longrope"``, `factors` apply to contexts of up
    to `original_context` tokens and `long_factors` to longer ones.
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
    """Routing of a mixture of experts: a token uses `used` experts, each `ffn` wide.

    The weights of the experts are a softmax over all of them, or over the chosen ones if
    `normalize`. `shared` is the width of an expert that every token uses, 0 for none. Layers in
    `dense` have no experts.
    """

    used: int
    ffn: int
    normalize: bool = True
    shared: int = 0
    dense: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Delta:
    """Layers of the gated delta rule (DeltaNet).

    `key_heads` heads of `key_size` elements for q and k, `heads` of `value_size` for v; `kernel`
    is the length of the convolution before the rule. `layers` is True for each DeltaNet layer.
    """

    key_heads: int
    heads: int
    key_size: int
    value_size: int
    kernel: int
    layers: tuple[bool, ...]

    @property
    def channels(self) -> int:
        """Number of columns of q, k and v together."""
        return 2 * self.key_heads * self.key_size + self.heads * self.value_size


@dataclass(frozen=True)
class Config:
    """The numbers that a plan is built from; `architecture` is its name in GGUF.

    `windows` has the sliding window of each layer in positions, the token's own included, 0 for
    full attention; layers with a window use `window_rope` if it is not None. `rotated` is the
    number of elements of a head that rotate, 0 for all. `query_scale` is the factor of q k, None
    for 1 / sqrt(head_dim). `experts` is the number of experts of a layer, 0 in a dense model, and
    `routing` their rules. `delta` is None if all layers have attention.
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
        """Sliding window of `layer` in positions, 0 for full attention."""
        return self.windows[layer] if self.windows else 0

    @property
    def rope_dims(self) -> int:
        """Number of elements of a head that rotate."""
        return self.rotated or self.head_dim

    @property
    def scale(self) -> float:
        """Factor of q k before the softmax."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale
