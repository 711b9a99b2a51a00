"""The plan: a model as a flat list of ops, which Python builds and an executor runs.

A plan is data: printable (`dump`), hashable, comparable, JSON (`to_json`). Its only unknown is n,
the number of new tokens; the KV cache is state of the op `attend`. An op is as large as a step in
a paper ("rms_norm", "attend"), without reshapes, broadcasting or control flow.
``reference/ops.py`` defines each op, down to the order of its sums.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from fewbit.errors import InputError
from fewbit.plan.config import Config

Value = NewType("Value", int)
"""Result of an op: the index of the op in the plan."""

Attribute = int | float | str | tuple[float, ...]

OPS: dict[str, str] = {
    "embed": "row `token` of the table [vocab, width]",
    "embed_position": "row `position` of the table [positions, width]",
    "rms_norm": "x / sqrt(mean(x^2) + eps) * weight, over each of `heads` equal parts of a row",
    "layer_norm": "(x - mean) / sqrt(variance + eps) * weight + bias",
    "l2_norm": "x / sqrt(sum(x^2) + eps), over each of `heads` equal parts of a row",
    "linear": "x W^T (+ bias), W [width, columns of x]",
    "part": "from each of `parts` equal parts of a row its elements from `start` on",
    "rope": "rotate each head's pairs by position * freqs, times `factor`",
    "long_rope": "rope by `long` where the cache holds more than `original` tokens, or by `short`",
    "attend": "softmax(q k^T * scale) v over the cache of `layer`, causal, `window` positions back",
    "add": "x + y",
    "mul": "x * y, each element of a shorter y for an equal part of x",
    "scale": "x * factor",
    "softcap": "cap * tanh(x / cap)",
    "gelu": "x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2",
    "silu": "x * sigmoid(x)",
    "sigmoid": "1 / (1 + exp(-x))",
    "swiglu": "silu(gate) * up",
    "geglu": "gelu(gate) * up",
    "clamped_swiglu": "g * sigmoid(alpha g) * (u + 1), g and u clamped to `limit`",
    "route": "the `used` largest logits: their indices, then their softmax",
    "expert_linear": "`linear` with the matrix of each of the route's experts, side by side",
    "expert_sum": "the rows of the route's experts, added up by its weights",
    "short_conv": "each channel's last inputs, state of `layer`, times its weights",
    "log_decay": "rate * ln(1 + exp(x + bias))",
    "delta_rule": "S = exp(decay) S, S += k (beta (v - S^T k))^T, state of `layer`: S^T q * scale",
    "take": "the rows whose logits are wanted: from here on n is their number",
}
"""Op -> its formula."""


@dataclass(frozen=True)
class Op:
    """One step of a plan: `inputs` are results of earlier ops, `weights` are tensor names.

    The result is [n, width].
    """

    kind: str
    inputs: tuple[int, ...]
    weights: tuple[str, ...]
    width: int
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the op as plain JSON types, as executors and the reference read it."""
        return {
            "op": self.kind,
            "inputs": list(self.inputs),
            "weights": list(self.weights),
            "width": self.width,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in self.attributes},
        }


class Plan:
    """A list of ops; each method appends one and returns its value for later ops."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ops: list[Op] = []

    def embed(self, weight: str) -> Value:
        """[n, width]: the row of the embedding table [vocab, width] of each token."""
        return self._record("embed", (), (weight,), self.config.width)

    def rms_norm(self, x: Value, weight: str, heads: int = 1) -> Value:
        """Root-mean-square norm over each of `heads` equal parts of a row (arXiv 1910.07467)."""
        eps = self.config.norm_eps
        return self._record("rms_norm", (x,), (weight,), self._width(x), eps=eps, heads=heads)

    def embed_position(self, weight: str) -> Value:
        """[n, width]: the row of the table [context, width] at the position of each token."""
        return self._record("embed_position", (), (weight,), self.config.width)

    def layer_norm(self, x: Value, weight: str, bias: str) -> Value:
        """Norm of mean 0 and variance 1 over a row (arXiv 1607.06450)."""
        eps = self.config.norm_eps
        return self._record("layer_norm", (x,), (weight, bias), self._width(x), eps=eps)

    def l2_norm(self, x: Value, heads: int, eps: float) -> Value:
        """Each of `heads` equal parts of a row divided by its length."""
        return self._record("l2_norm", (x,), (), self._width(x), eps=eps, heads=heads)

    def part(self, x: Value, start: int, width: int, parts: int = 1) -> Value:
        """[n, width]: from each of `parts` equal parts of a row the elements from `start` on."""
        return self._record("part", (x,), (), width, parts=parts, start=start)

    def linear(self, x: Value, weight: str, width: int, bias: str | None = None) -> Value:
        """[n, width]: x times the transposed weight [width, columns of x], plus the bias."""
        return self._record("linear", (x,), (weight,) if bias is None else (weight, bias), width)

    def rope(
        self, x: Value, heads: int, freqs: tuple[float, ...], factor: float, pairing: str
    ) -> Value:
        """Rotary position embedding (arXiv 2104.09864).

        `pairing` "neighbours" rotates elements (2i, 2i+1) of a head, "halves" (i, i + dims/2),
        with dims = 2 * len(freqs); elements past dims stay.
        """
        return self._record(
            "rope", (x,), (), self._width(x),
            heads=heads, freqs=freqs, factor=factor, pairing=pairing,
        )  # fmt: skip

    def long_rope(
        self, x: Value, heads: int, short: tuple[float, ...], long: tuple[float, ...],
        original: int, factor: float, pairing: str,
    ) -> Value:  # fmt: skip
        """`rope` with frequencies `long` if the KV cache holds more than `original` tokens."""
        return self._record(
            "long_rope", (x,), (), self._width(x), heads=heads, short=short, long=long,
            original=original, factor=factor, pairing=pairing,
        )  # fmt: skip

    def attend(
        self, q: Value, k: Value, v: Value, *, layer: int, scale: float, window: int = 0,
        sinks: str | None = None,
    ) -> Value:  # fmt: skip
        """Causal attention of q over the KV cache of `layer`, to which k and v are appended.

        `window` is the sliding window in positions, 0 for full attention. `sinks` names a vector
        with a score for each head, which is in the softmax but has no value.
        """
        c = self.config
        return self._record(
            "attend", (q, k, v), () if sinks is None else (sinks,), c.heads * c.head_dim,
            layer=layer, heads=c.heads, kv_heads=c.kv_heads, scale=scale, window=window,
        )  # fmt: skip

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two values of the same width."""
        return self._record("add", (x, y), (), self._width(x))

    def mul(self, x: Value, y: Value) -> Value:
        """x times y; each element of a shorter y multiplies an equal part of x."""
        return self._record("mul", (x, y), (), self._width(x))

    def scale(self, x: Value, factor: float) -> Value:
        """x times a factor, which is rounded to f32 first."""
        return self._record("scale", (x,), (), self._width(x), factor=_f32(factor))

    def softcap(self, x: Value, cap: float) -> Value:
        """cap tanh(x / cap) (arXiv 2408.00118)."""
        return self._record("softcap", (x,), (), self._width(x), cap=cap)

    def gelu(self, x: Value) -> Value:
        """GELU by its tanh approximation (arXiv 1606.08415)."""
        return self._record("gelu", (x,), (), self._width(x))

    def silu(self, x: Value) -> Value:
        """x sigmoid(x)."""
        return self._record("silu", (x,), (), self._width(x))

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x))."""
        return self._record("sigmoid", (x,), (), self._width(x))

    def geglu(self, gate: Value, up: Value) -> Value:
        """gelu(gate) * up (arXiv 2002.05202)."""
        return self._record("geglu", (gate, up), (), self._width(gate))

    def clamped_swiglu(self, gate: Value, up: Value, alpha: float, limit: float) -> Value:
        """GPT-OSS's gate: swiglu of clamped values, with 1 added to `up`."""
        width = self._width(gate)
        return self._record("clamped_swiglu", (gate, up), (), width, alpha=alpha, limit=limit)

    def route(self, logits: Value, used: int, normalize: bool) -> Value:
        """[n, 2 * used]: the indices of the experts with the largest logits, then their weights."""
        return self._record("route", (logits,), (), 2 * used, used=used, normalize=normalize)

    def expert_linear(
        self, x: Value, route: Value, weight: str, width: int, bias: str | None = None
    ) -> Value:
        """[n, used * width]: `linear` with the matrices [experts, width, columns] of the route.

        x has one row for all experts of a token, or is the result of an `expert_linear`.
        """
        names = (weight,) if bias is None else (weight, bias)
        used = self._width(route) // 2
        experts = self.config.experts
        return self._record("expert_linear", (x, route), names, used * width, experts=experts)

    def expert_sum(self, x: Value, route: Value) -> Value:
        """[n, width]: the sum of the rows of the experts, each times its weight."""
        return self._record(
            "expert_sum", (x, route), (), self._width(x) // (self._width(route) // 2)
        )

    def short_conv(self, x: Value, weight: str, layer: int) -> Value:
        """Causal convolution of each channel with its own weights [channels, kernel]."""
        return self._record("short_conv", (x,), (weight,), self._width(x), layer=layer)

    def log_decay(self, x: Value, rate: str, bias: str) -> Value:
        """rate * softplus(x + bias): the logarithm of the decay of a state."""
        return self._record("log_decay", (x,), (rate, bias), self._width(x))

    def delta_rule(
        self, q: Value, k: Value, v: Value, decay: Value, beta: Value, *, layer: int, sharing: str
    ) -> Value:
        """The gated delta rule over the state of `layer` (arXiv 2412.06464).

        `sharing` "runs" gives consecutive value heads the same key head; "turns" gives value head
        h the key head h modulo the number of key heads.
        """
        d = self.config.delta
        if d is None:
            raise InputError("`delta_rule` needs a configuration with `delta`")
        return self._record(
            "delta_rule", (q, k, v, decay, beta), (), self._width(v), layer=layer, heads=d.heads,
            key_heads=d.key_heads, scale=d.key_size**-0.5, sharing=sharing,
        )  # fmt: skip

    def swiglu(self, gate: Value, up: Value) -> Value:
        """gate * sigmoid(gate) * up (arXiv 2002.05202)."""
        return self._record("swiglu", (gate, up), (), self._width(gate))

    def take(self, x: Value) -> Value:
        """Select the rows whose logits are requested; later ops have only these."""
        return self._record("take", (x,), (), self._width(x))

    def to_dicts(self) -> list[dict[str, object]]:
        """Return the ops as plain dicts in order; the result of the last one are the logits."""
        return [op.to_dict() for op in self.ops]

    def to_json(self) -> str:
        """Return the ops as JSON, which an executor parses once."""
        return json.dumps(self.to_dicts())

    def weights(self) -> dict[str, None]:
        """Return the names of all tensors of the plan, in order of first use."""
        return dict.fromkeys(name for op in self.ops for name in op.weights)

    def dump(self) -> str:
        """Return a listing with one op per line; long lists of numbers are shortened."""
        return "\n".join(_line(index, op) for index, op in enumerate(self.ops))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.ops == other.ops

    def __hash__(self) -> int:
        return hash(tuple(self.ops))

    def _width(self, x: Value) -> int:
        return self.ops[x].width

    def _record(
        self, kind: str, inputs: tuple[Value, ...], weights: tuple[str, ...], width: int,
        **attributes: Attribute,
    ) -> Value:  # fmt: skip
        for value in inputs:
            if not 0 <= value < len(self.ops):
                raise InputError(
                    f"op {len(self.ops)} ({kind}) uses value {value}, which does not exist yet"
                )
        self.ops.append(Op(kind, inputs, weights, width, tuple(attributes.items())))
        return Value(len(self.ops) - 1)


def _f32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def attribute_texts(attributes: Mapping[str, Attribute]) -> list[str]:
    """Return attributes as text; of long lists of numbers the first and the last."""
    return [
        f"{name}=[{value[0]:g} .. {value[-1]:g}]"
        if isinstance(value, tuple) and value
        else f"{name}={value}"
        for name, value in attributes.items()
    ]


def _line(index: int, op: Op) -> str:
    operands = [f"%{i}" for i in op.inputs] + list(op.weights)
    operands += attribute_texts(dict(op.attributes))
    return f"%{index:<4}{op.kind:15}{', '.join(operands)} -> [n, {op.width}]"
