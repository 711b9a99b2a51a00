"""Runs a plan, given as plain dicts, with the functions of ops.py: the oracle for a whole model.

A plan is a list of ops. Op i makes value i, one row of f32 per token; `inputs` name earlier
values, `weights` name tensors, the other keys are the op's attributes. The last value is the
logits. Nothing is skipped: an op or an attribute that is not known is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reference import ops
from reference.weights import Weight

Plan = Sequence[Mapping[str, Any]]
Rows = list[list[float]]

ATTRIBUTES: dict[str, set[str]] = {
    "embed": set(),
    "rms_norm": {"eps", "heads"},
    "linear": set(),
    "rope": {"heads", "freqs", "factor", "pairing"},
    "attend": {"layer", "heads", "kv_heads", "scale", "window"},
    "add": set(),
    "swiglu": set(),
    "take": set(),
}
"""Every op with the attributes that it must have."""


class Cache:
    """The keys and values that `attend` has seen, per sequence and layer."""

    def __init__(self) -> None:
        self.lengths: dict[int, int] = {}
        self.rows: dict[tuple[int, int], tuple[Rows, Rows]] = {}

    def of(self, layer: int, sequence: int) -> tuple[Rows, Rows]:
        """The keys and the values of one layer for one sequence, a row per position."""
        return self.rows.setdefault((layer, sequence), ([], []))


class Runner:
    """One step: tokens that are appended to their sequences, in order."""

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
        self.owners: list[Sequence[int]] = []  # for each value, the token of each row

    def step(self, op: Mapping[str, Any]) -> None:
        """Run one op and keep its value."""
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
        match kind:
            case "embed":
                return [ops.embed(token, weights[0]) for token in self.tokens]
            case "rms_norm":
                return [ops.rms_norm(x, weights[0].values[0], **attributes) for x in inputs[0]]
            case "linear":
                bias = weights[1].values[0] if len(weights) > 1 else None
                return [ops.linear(x, weights[0], bias, self.acts) for x in inputs[0]]
            case "rope":
                positions = [self.positions[owner] for owner in owners]
                rows = zip(inputs[0], positions, strict=True)
                return [ops.rope(x, position, **attributes) for x, position in rows]
            case "attend":
                return self._attend(inputs, owners, **attributes)
            case "add":
                return [ops.add(x, y) for x, y in zip(*inputs, strict=True)]
            case "swiglu":
                return [ops.swiglu(gate, up) for gate, up in zip(*inputs, strict=True)]
        return ops.take(inputs[0], self.outputs)

    def _attend(
        self, inputs: list[Rows], owners: Sequence[int], layer: int, **attributes: Any
    ) -> Rows:
        result: Rows = []
        for query, key, value, owner in zip(*inputs, owners, strict=True):
            keys, values = self.cache.of(layer, self.sequences[owner])
            keys.append(key)
            values.append(value)
            result.append(ops.attend(query, keys, values, **attributes))
        return result


def forward(
    plan: Plan, weights: Mapping[str, Weight], tokens: Sequence[int], *,
    cache: Cache | None = None, sequences: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None, acts: str = "f64", trace: list[Rows] | None = None,
) -> Rows:  # fmt: skip
    """The logits [outputs, vocab] of `tokens`, appended to their sequences of `cache` in order.

    `sequences` (0 if not given) says which sequence each token belongs to, `outputs` (all if not
    given) which tokens' logits are wanted; a plan without `take` makes them all, and these are
    picked. `trace`, if given, receives the value of every op.

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
