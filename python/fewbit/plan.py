"""The plan: an architecture as one flat list of ops, the narrow waist between Python and executors.

A plan is data: printable (`dump`), hashable, comparable, JSON (`to_json`). Its only symbol is the
number of new tokens n; the key/value cache is named state of `attend`. The ops are the size that
a paper names; there is no reshape, no broadcasting and no control flow. What each op means, to the
order of its sums, is written in ``reference/ops.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NewType

from fewbit.config import Config
from fewbit.errors import InputError

Value = NewType("Value", int)
"""The result of an op: its index in the plan."""

Attribute = int | float | str | tuple[float, ...]

OPS: dict[str, str] = {
    "embed": "row `token` of the table [vocab, width]",
    "rms_norm": "x / sqrt(mean(x^2) + eps) * weight, over each of `heads` equal parts of a row",
    "linear": "x W^T (+ bias), W [width, columns of x]",
    "rope": "rotate each head's pairs by position * freqs, times `factor`",
    "attend": "softmax(q k^T * scale) v over the cache of `layer`, causal, `window` positions back",
    "add": "x + y",
    "swiglu": "silu(gate) * up",
    "take": "the rows whose logits are wanted: from here on n is their number",
}
"""Every op with its formula; an executor has each or is refused by name."""


@dataclass(frozen=True)
class Op:
    """One step: its inputs are results of earlier steps, its weights are tensor names."""

    kind: str
    inputs: tuple[int, ...]
    weights: tuple[str, ...]
    width: int
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The op as plain JSON types, the form in which executors and the oracle take it."""
        return {
            "op": self.kind,
            "inputs": list(self.inputs),
            "weights": list(self.weights),
            "width": self.width,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in self.attributes},
        }


class Plan:
    """Records ops; each method returns the value that later ops name."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ops: list[Op] = []

    def embed(self, weight: str) -> Value:
        """[n, width]: the rows of the embedding table that the tokens name."""
        return self._record("embed", (), (weight,), self.config.width)

    def rms_norm(self, x: Value, weight: str, heads: int = 1) -> Value:
        """Root-mean-square norm over each of `heads` equal parts of a row (arXiv 1910.07467)."""
        eps = self.config.norm_eps
        return self._record("rms_norm", (x,), (weight,), self._width(x), eps=eps, heads=heads)

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

    def attend(
        self, q: Value, k: Value, v: Value, *, layer: int, scale: float, window: int = 0
    ) -> Value:
        """Causal attention of q over the cache of `layer`, to which k and v are appended."""
        c = self.config
        return self._record(
            "attend", (q, k, v), (), c.heads * c.head_dim,
            layer=layer, heads=c.heads, kv_heads=c.kv_heads, scale=scale, window=window,
        )  # fmt: skip

    def add(self, x: Value, y: Value) -> Value:
        """The sum of two values of the same width."""
        return self._record("add", (x, y), (), self._width(x))

    def swiglu(self, gate: Value, up: Value) -> Value:
        """gate * sigmoid(gate) * up (arXiv 2002.05202)."""
        return self._record("swiglu", (gate, up), (), self._width(gate))

    def take(self, x: Value) -> Value:
        """Keep only the rows whose logits are wanted; all later ops see those alone."""
        return self._record("take", (x,), (), self._width(x))

    def to_dicts(self) -> list[dict[str, object]]:
        """The ops as plain dicts, in order; the last one's result are the logits."""
        return [op.to_dict() for op in self.ops]

    def to_json(self) -> str:
        """The ops as JSON: what an executor parses once."""
        return json.dumps(self.to_dicts())

    def weights(self) -> dict[str, None]:
        """The names of all tensors that the plan needs, in order of first use."""
        return dict.fromkeys(name for op in self.ops for name in op.weights)

    def dump(self) -> str:
        """A listing for people: one op a line, long lists of numbers cut short."""
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
                raise InputError(f"op {len(self.ops)} ({kind}) names value {value}, not made yet")
        self.ops.append(Op(kind, inputs, weights, width, tuple(attributes.items())))
        return Value(len(self.ops) - 1)


def _line(index: int, op: Op) -> str:
    parts = [f"%{i}" for i in op.inputs] + list(op.weights)
    for name, value in op.attributes:
        text = f"[{value[0]:g} .. {value[-1]:g}]" if isinstance(value, tuple) else f"{value}"
        parts.append(f"{name}={text}")
    return f"%{index:<4}{op.kind:10}{', '.join(parts)} -> [n, {op.width}]"
