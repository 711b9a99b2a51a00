"""Compiles ops that need a token's position: RoPE, attention, and ops with a recurrent state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewbit.errors import ShapeError
from fewbit.run.gpu.stages import (
    CHUNK_TOKENS,
    LANES,
    MAX_TILED_HEAD_SIZE,
    Builder,
    RotaryFrequencies,
    StepKind,
    View,
    layout,
)

Op = Mapping[str, Any]

NEEDS_POSITION = ("embed_position", "rope", "long_rope", "attend", "short_conv", "delta_rule")
"""Ops that need a token's position; after `take` rows are not tokens."""


class Stateful(Builder):
    """Compiles ops with a position; the buffers of a layer carry its number in their name."""

    def rope(self, op: Op, x: View) -> View:
        """Rotate by the angles that the cache holds for each position."""
        freqs = tuple(op["freqs"])
        return self._rotate(op, x, RotaryFrequencies(freqs, freqs, 0, op["factor"]))

    def long_rope(self, op: Op, x: View) -> View:
        """Rotate by the angles that the cache holds; they depend on its capacity."""
        short, long = tuple(op["short"]), tuple(op["long"])
        return self._rotate(op, x, RotaryFrequencies(short, long, op["original"], op["factor"]))

    def _rotate(self, op: Op, x: View, frequencies: RotaryFrequencies) -> View:
        if frequencies not in self.program.rotations:
            self.program.rotations.append(frequencies)
        pairs, size = len(frequencies.short), x.width // op["heads"]
        partner, pair_stride = {"neighbours": (1, 2), "halves": (pairs, 1)}[op["pairing"]]
        y = self.new(x.width)
        constants = {
            "WIDTH": x.width, "SIZE": size, "PAIRS": pairs, "PARTNER": partner,
            "PAIR_STRIDE": pair_stride, **layout(x),
        }  # fmt: skip
        name = f"rotary.{self.program.rotations.index(frequencies)}"
        bindings = {3: x.slot, 4: y.slot, 5: name, 7: "step"}
        self.stage("rope", bindings, constants, self.workgroups(op["heads"] * (size - pairs)))
        return y

    def attend(self, op: Op, q: View, k: View, v: View) -> View:
        """Write keys and values to the cache, then attend from the queries to the cache."""
        layer, size, heads = op["layer"], q.width // op["heads"], op["heads"]
        keys, values = f"keys.{layer}", f"values.{layer}"
        self._store(op, k, v, keys, values)
        y = self.new(q.width)
        sinks = self.vector(op["weights"][0]) if op["weights"] else "no_input"
        bindings = {3: q.slot, 4: y.slot, 5: keys, 6: values, 7: "step", 8: sinks}
        constants = {
            "SIZE": size, "HEADS": heads, "KV_HEADS": op["kv_heads"], "SCALE": op["scale"],
            "WINDOW": op["window"], "HAS_SINKS": bool(op["weights"]), "CAPACITY": 0, **layout(q),
            "LANES": max(LANES, 1 << (size // 4 - 1).bit_length()),
        }  # fmt: skip
        self._attend_prompt(bindings, constants)
        self._attend_split(bindings, constants)
        return y

    def _store(self, op: Op, k: View, v: View, keys: str, values: str) -> None:
        """Write keys and values to the cache, with a workgroup for each head of a token."""
        heads = op["kv_heads"]
        self.program.kv_rows |= {keys: (k.width, heads), values: (v.width, heads)}
        constants = {
            "SIZE": k.width // heads, "KV_HEADS": heads, "CAPACITY": 0, "KV_TYPE": 0, **layout(k),
            **layout(v, "OTHER_"),
        }  # fmt: skip
        bindings = {3: k.slot, 4: keys, 5: values, 6: v.slot, 7: "step"}
        self.stage("store", bindings, constants, heads, needs=("reduce",), writes=(4, 5))

    def _attend_prompt(self, bindings: Mapping[int, Any], constants: Mapping[str, Any]) -> None:
        """In tiles of queries that share a key/value head; by query if tiles would not fill."""
        heads, kv_heads = constants["HEADS"], constants["KV_HEADS"]
        by_query: tuple[StepKind, ...] = ("by_query", "by_tile")
        if constants["SIZE"] <= MAX_TILED_HEAD_SIZE and heads % kv_heads == 0:
            by_query, queries = ("by_query",), heads // kv_heads
            self.program.queries_per_kv_head = min(self.program.queries_per_kv_head, queries)
            self.stage(
                "attend", bindings, constants, kv_heads, needs=("kv",), shader="attend_tile",
                step_kinds=("by_tile",), queries_per_token=queries,
            )  # fmt: skip
        self.stage(
            "attend", bindings, constants, heads, needs=("reduce", "kv"),
            step_kinds=by_query, unsplit_kinds=("few_tokens", *by_query),
        )  # fmt: skip

    def _attend_split(self, bindings: Mapping[int, Any], constants: Mapping[str, Any]) -> None:
        """Split each head's positions over several workgroups, if the cache is long."""
        heads, size = constants["HEADS"], constants["SIZE"]
        self.program.split_floats = max(self.program.split_floats, heads * (size + 4))
        self.stage(
            "attend", {**bindings, 4: "splits"}, {**constants, "SPLITS": 1}, heads,
            needs=("reduce", "kv"), step_kinds=("few_tokens",), unsplit_kinds=(),
        )  # fmt: skip
        merge = {name: constants[name] for name in ("SIZE", "HEADS", "HAS_SINKS", "LANES")}
        self.stage(
            "attend_merge", {3: "splits", 4: bindings[4], 8: bindings[8]}, merge | {"SPLITS": 1},
            heads, step_kinds=("few_tokens",), unsplit_kinds=(),
        )  # fmt: skip

    def short_conv(self, op: Op, x: View) -> View:
        """Over the last inputs; the state also holds those of tokens that can be removed."""
        weight = self.weights[op["weights"][0]]
        if weight.rows != x.width:
            raise ShapeError(
                f"`{weight.name}` has {weight.rows} channels, `short_conv` takes {x.width}"
            )
        history, state = 2 * CHUNK_TOKENS + weight.columns, f"conv.{op['layer']}"
        self.program.states[state] = history * x.width
        y = self.new(x.width)
        constants = {"WIDTH": x.width, "KERNEL": weight.columns, "HISTORY": history, **layout(x)}
        bindings = {3: x.slot, 4: y.slot, 5: weight.vector, 7: "step", 10: state}
        self.stage("short_conv", bindings, constants, self.workgroups(x.width), writes=(4, 10))
        return y

    def delta_rule(self, op: Op, q: View, k: View, v: View, decay: View, beta: View) -> View:
        """One workgroup for LANES columns of a head; delta_rule.wgsl documents the state."""
        heads, state = op["heads"], f"delta.{op['layer']}"
        key_size, size = q.width // op["key_heads"], v.width // heads
        blocks = self.workgroups(size)
        chunk_floats = (key_size + CHUNK_TOKENS) * LANES + (key_size + 1) * CHUNK_TOKENS
        self.program.states[state] = heads * blocks * 2 * chunk_floats
        y = self.new(v.width)
        constants = {
            "HEADS": heads, "KEY_HEADS": op["key_heads"], "KEY_SIZE": key_size,
            "VALUE_SIZE": size, "COLUMN_BLOCKS": blocks, "CHUNK_TOKENS": CHUNK_TOKENS,
            "SCALE": op["scale"], "INTERLEAVED": op["sharing"] == "turns", **layout(q),
            **layout(k, "K_"), **layout(v, "V_"), **layout(decay, "DECAY_"),
            **layout(beta, "BETA_"),
        }  # fmt: skip
        bindings = {
            3: q.slot, 4: y.slot, 5: k.slot, 6: v.slot, 7: "step", 8: decay.slot, 9: beta.slot,
            10: state,
        }  # fmt: skip
        self.stage("delta_rule", bindings, constants, heads * blocks, writes=(4, 10))
        return y
