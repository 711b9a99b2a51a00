"""Run a plan, the list of ops that describes a model, and return its logits.

A plan is a list of dicts. Op i makes value i, one f32 row per token; `inputs` are the indices of
earlier values, `weights` the names of tensors, `width` the columns of the result, and all other
keys are attributes of the op. The last value is the logits. An unknown op or attribute is an error.
The ops are the functions of ops.py, gates.py, experts.py and recurrent.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reference import experts, gates, ops, recurrent
from reference.cache import Cache, Rows, round_kv
from reference.weights import Weight

Plan = Sequence[Mapping[str, Any]]

ATTRIBUTES: dict[str, set[str]] = {
    "embed": set(),
    "embed_position": set(),
    "linear": set(),
    "rope": {"heads", "freqs", "factor", "pairing"},
    "long_rope": {"heads", "short", "long", "original", "factor", "pairing"},
    "attend": {"layer", "heads", "kv_heads", "scale", "window"},
    "expert_linear": {"experts"},
    "short_conv": {"layer"},
    "delta_rule": {"layer", "heads", "key_heads", "scale", "sharing"},
    "part": {"parts", "start"},
    "take": set(),
    "rms_norm": {"eps", "heads"},
    "layer_norm": {"eps"},
    "l2_norm": {"eps", "heads"},
    "add": set(),
    "mul": set(),
    "scale": {"factor"},
    "softcap": {"cap"},
    "gelu": set(),
    "silu": set(),
    "sigmoid": set(),
    "swiglu": set(),
    "geglu": set(),
    "clamped_swiglu": {"alpha", "limit"},
    "route": {"used", "normalize"},
    "expert_sum": set(),
    "log_decay": set(),
}
"""All ops, with the attributes that each must have."""

PER_ROW: dict[str, Any] = {
    **{name: getattr(ops, name) for name in ("rms_norm", "add", "swiglu")},
    **{name: getattr(experts, name) for name in ("route", "expert_sum")},
    "log_decay": recurrent.log_decay,
    **{name: getattr(gates, name) for name in (
        "layer_norm", "l2_norm", "mul", "scale", "softcap", "gelu", "silu", "sigmoid", "geglu",
        "clamped_swiglu",
    )},
}  # fmt: skip
"""Ops that need only one row of each input, weight vectors and the attributes."""


class Runner:
    """Runs one step: new tokens, appended to their sequences in order."""

    def __init__(
        self, weights: Mapping[str, Weight], cache: Cache, tokens: Sequence[int],
        sequences: Sequence[int], outputs: Sequence[int], acts: str,
    ) -> None:  # fmt: skip
        self.weights, self.cache, self.acts = weights, cache, acts
        self.tokens, self.sequences, self.outputs = tokens, sequences, outputs
        self.positions: list[int] = []
        for sequence in sequences:
            self.positions.append(cache.lengths.get(sequence, 0))
            cache.lengths[sequence] = self.positions[-1] + 1
        self.values: list[Rows] = []
        self.owners: list[Sequence[int]] = []  # for each value: the token of each row

    def step(self, op: Mapping[str, Any]) -> None:
        """Run an op and append its value."""
        kind, inputs = op["op"], [self.values[i] for i in op["inputs"]]
        extra = op.keys() - {"op", "inputs", "weights", "width"}
        if kind not in ATTRIBUTES or extra != ATTRIBUTES[kind]:
            raise ValueError(f"op {len(self.values)}: `{kind}` with {sorted(extra)} is unknown")
        owners: Sequence[int] = range(len(self.tokens))
        if inputs:
            owners = self.owners[op["inputs"][0]]
        if kind == "take":
            owners = self.outputs
        attributes = {name: op[name] for name in extra}
        if kind == "part":
            attributes["width"] = op["width"]
        rows = self._rows(
            kind, inputs, [self.weights[n] for n in op["weights"]], owners, attributes
        )
        if any(len(row) != op["width"] for row in rows):
            raise ValueError(f"op {len(self.values)}: `{kind}` is not {op['width']} wide")
        self.values.append(rows)
        self.owners.append(owners)

    def _rows(
        self, kind: str, inputs: list[Rows], weights: list[Weight], owners: Sequence[int],
        attributes: dict[str, Any],
    ) -> Rows:  # fmt: skip
        if kind in PER_ROW:
            vectors = [weight.values[0] for weight in weights]
            return [
                PER_ROW[kind](*row, *vectors, **attributes) for row in zip(*inputs, strict=True)
            ]
        positions = [self.positions[owner] for owner in owners]
        bias = weights[1] if len(weights) > 1 else None
        match kind:
            case "embed":
                return [ops.embed(token, weights[0]) for token in self.tokens]
            case "embed_position":
                return [ops.embed_position(position, weights[0]) for position in self.positions]
            case "linear":
                own = None if bias is None else bias.values[0]
                return [ops.linear(x, weights[0], own, self.acts) for x in inputs[0]]
            case "rope":
                rows = zip(inputs[0], positions, strict=True)
                return [ops.rope(x, position, **attributes) for x, position in rows]
            case "long_rope":
                room = self.cache.capacity or max(self.cache.lengths.values())
                rows = zip(inputs[0], positions, strict=True)
                return [ops.long_rope(x, position, room, **attributes) for x, position in rows]
            case "part":
                return [gates.part(x, **attributes) for x in inputs[0]]
            case "expert_linear":
                pairs = zip(*inputs, strict=True)
                extra = {**attributes, "acts": self.acts}
                return [experts.expert_linear(x, r, weights[0], bias, **extra) for x, r in pairs]
            case "attend" | "short_conv" | "delta_rule":
                sequences = [self.sequences[owner] for owner in owners]
                remember = getattr(self, f"_{kind}")
                return [
                    remember(row, sequence, *(w.values for w in weights), **attributes)
                    for row, sequence in zip(zip(*inputs, strict=True), sequences, strict=True)
                ]
        return ops.take(inputs[0], self.outputs)

    def _attend(
        self, row: Any, sequence: int, sinks: Any = None, *, layer: int, **attributes: Any
    ) -> list[float]:
        query, key, value = row
        keys, values = self.cache.of("attend", layer, sequence)
        heads = attributes["kv_heads"]
        keys.append(round_kv(key, self.cache.kv_type, heads))
        values.append(round_kv(value, self.cache.kv_type, heads))
        return ops.attend(query, keys, values, sinks and sinks[0], **attributes)

    def _short_conv(self, row: Any, sequence: int, weight: Rows, *, layer: int) -> list[float]:
        rows, _ = self.cache.of("short_conv", layer, sequence)
        rows.append(row[0])
        return recurrent.short_conv(rows, weight)

    def _delta_rule(
        self, row: Any, sequence: int, *, layer: int, heads: int, key_heads: int, **attributes: Any
    ) -> list[float]:
        sizes = len(row[0]) // key_heads, len(row[2]) // heads
        state = self.cache.states.setdefault((layer, sequence), recurrent.zeros(heads, *sizes))
        attributes |= {"heads": heads, "key_heads": key_heads}
        q, k, v, decay, beta = row
        return recurrent.delta_rule(q, k, v, decay, beta, state, **attributes)


def forward(
    plan: Plan, weights: Mapping[str, Weight], tokens: Sequence[int], *,
    cache: Cache | None = None, sequences: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None, acts: str = "f64", trace: list[Rows] | None = None,
) -> Rows:  # fmt: skip
    """Return the logits [outputs, vocab] of `tokens`, appended in order to their sequences.

    `sequences` gives the sequence of each token (default: all 0), `outputs` the tokens whose logits
    are returned (default: all). A plan without `take` computes all logits, and `outputs` are picked
    at the end. `trace`, if given, receives the value of every op. `acts` names the product of
    `linear`. Raises ValueError for an unknown op or attribute.

    >>> head = {"inputs": [], "weights": ["table"], "width": 2}
    >>> plan = [{"op": "embed", **head},
    ...         {"op": "take", "inputs": [0], "weights": [], "width": 2},
    ...         {"op": "linear", "inputs": [1], "weights": ["table"], "width": 3}]
    >>> table = Weight.of([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> forward(plan, {"table": table}, [0, 2], outputs=[1])
    [[1.0, 1.0, 2.0]]
    """
    cache = Cache() if cache is None else cache
    sequences = [0] * len(tokens) if sequences is None else sequences
    outputs = range(len(tokens)) if outputs is None else outputs
    runner = Runner(weights, cache, tokens, sequences, outputs, acts)
    for op in plan:
        runner.step(op)
    if trace is not None:
        trace.extend(runner.values)
    logits = runner.values[-1]
    return logits if any(op["op"] == "take" for op in plan) else ops.take(logits, outputs)
