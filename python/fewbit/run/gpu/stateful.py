"""Ops that know a token's position, and what some of them keep of each sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewbit.errors import ShapeError
from fewbit.run.gpu.stages import LANES, SPAN, WIDEST_TILE, Builder, Kind, Turns, View, of

Op = Mapping[str, Any]

POSITIONED = ("embed_position", "rope", "long_rope", "attend", "short_conv", "delta_rule")
"""Ops that ask for a token's position; after `take` rows are not tokens."""


class Stateful(Builder):
    """The methods of ops with a position; each keeps its layer's memory under its own name."""

    def rope(self, op: Op, x: View) -> View:
        """By the angles that the cache holds for every position."""
        freqs = tuple(op["freqs"])
        return self._rotate(op, x, Turns(freqs, freqs, 0, op["factor"]))

    def long_rope(self, op: Op, x: View) -> View:
        """By the angles that the cache holds; it knows its capacity."""
        short, long = tuple(op["short"]), tuple(op["long"])
        return self._rotate(op, x, Turns(short, long, op["original"], op["factor"]))

    def _rotate(self, op: Op, x: View, turns: Turns) -> View:
        if turns not in self.program.turns:
            self.program.turns.append(turns)
        pairs, size = len(turns.short), x.width // op["heads"]
        apart, following = {"neighbours": (1, 2), "halves": (pairs, 1)}[op["pairing"]]
        y = self.new(x.width)
        constants = {
            "WIDTH": x.width, "SIZE": size, "PAIRS": pairs, "APART": apart,
            "FOLLOWING": following, **of(x),
        }  # fmt: skip
        name = f"turns.{self.program.turns.index(turns)}"
        bindings = {3: x.slot, 4: y.slot, 5: name, 7: "step"}
        self.stage("rope", bindings, constants, self.items(op["heads"] * (size - pairs)))
        return y

    def attend(self, op: Op, q: View, k: View, v: View) -> View:
        """First keys and values go to the cache, then the queries meet all of it."""
        layer, size, heads = op["layer"], q.width // op["heads"], op["heads"]
        keys, values = f"keys.{layer}", f"values.{layer}"
        self._store(op, k, v, keys, values)
        y = self.new(q.width)
        sinks = self.vector(op["weights"][0]) if op["weights"] else "empty"
        bindings = {3: q.slot, 4: y.slot, 5: keys, 6: values, 7: "step", 8: sinks}
        constants = {
            "SIZE": size, "HEADS": heads, "KV_HEADS": op["kv_heads"], "SCALE": op["scale"],
            "WINDOW": op["window"], "SINKS": bool(op["weights"]), "CAPACITY": 0, **of(q),
            "LANES": max(LANES, 1 << (size // 4 - 1).bit_length()),
        }  # fmt: skip
        self._attend_many(bindings, constants)
        self._attend_few(bindings, constants)
        return y

    def _store(self, op: Op, k: View, v: View, keys: str, values: str) -> None:
        """A workgroup for each head of a token."""
        heads = op["kv_heads"]
        self.program.rows |= {keys: (k.width, heads), values: (v.width, heads)}
        constants = {
            "SIZE": k.width // heads, "KV_HEADS": heads, "CAPACITY": 0, "KV": 0, **of(k),
            **of(v, "OTHER_"),
        }  # fmt: skip
        bindings = {3: k.slot, 4: keys, 5: values, 6: v.slot, 7: "step"}
        self.stage("store", bindings, constants, heads, needs=("reduce",), writes=(4, 5))

    def _attend_many(self, bindings: Mapping[int, Any], constants: Mapping[str, Any]) -> None:
        """In tiles of queries that share a key/value head; a token at a time where none fill."""
        heads, kv_heads = constants["HEADS"], constants["KV_HEADS"]
        apart: tuple[Kind, ...] = ("apart", "tiled")
        if constants["SIZE"] <= WIDEST_TILE and heads % kv_heads == 0:
            apart, queries = ("apart",), heads // kv_heads
            self.program.queries = min(self.program.queries, queries)
            self.stage(
                "attend", bindings, constants, kv_heads, needs=("kept",), shader="attend_tile",
                kinds=("tiled",), queries=queries,
            )  # fmt: skip
        self.stage(
            "attend", bindings, constants, heads, needs=("reduce", "kept"), kinds=apart,
            short=("few", *apart),
        )  # fmt: skip

    def _attend_few(self, bindings: Mapping[int, Any], constants: Mapping[str, Any]) -> None:
        """Each head's positions in several parts, where they may be many: one starves a card."""
        heads, size = constants["HEADS"], constants["SIZE"]
        self.program.parts = max(self.program.parts, heads * (size + 4))
        self.stage(
            "attend", {**bindings, 4: "parts"}, {**constants, "SPLITS": 1}, heads,
            needs=("reduce", "kept"), kinds=("few",), short=(),
        )  # fmt: skip
        merge = {name: constants[name] for name in ("SIZE", "HEADS", "SINKS", "LANES")}
        self.stage(
            "attend_merge", {3: "parts", 4: bindings[4], 8: bindings[8]}, merge | {"SPLITS": 1},
            heads, kinds=("few",), short=(),
        )  # fmt: skip

    def short_conv(self, op: Op, x: View) -> View:
        """Over inputs that are kept for as many positions as can be taken back, and a kernel."""
        weight = self.weights[op["weights"][0]]
        if weight.rows != x.width:
            raise ShapeError(
                f"`{weight.name}` has {weight.rows} channels, `short_conv` takes {x.width}"
            )
        kept, state = 2 * SPAN + weight.columns, f"conv.{op['layer']}"
        self.program.states[state] = kept * x.width
        y = self.new(x.width)
        constants = {"WIDTH": x.width, "KERNEL": weight.columns, "KEPT": kept, **of(x)}
        bindings = {3: x.slot, 4: y.slot, 5: weight.vector, 7: "step", 10: state}
        self.stage("short_conv", bindings, constants, self.items(x.width), writes=(4, 10))
        return y

    def delta_rule(self, op: Op, q: View, k: View, v: View, decay: View, beta: View) -> View:
        """A workgroup for some columns of a head; see the shader for what it keeps."""
        heads, state = op["heads"], f"delta.{op['layer']}"
        key_size, size = q.width // op["key_heads"], v.width // heads
        blocks = self.items(size)
        place = (key_size + SPAN) * LANES + (key_size + 1) * SPAN
        self.program.states[state] = heads * blocks * 2 * place
        y = self.new(v.width)
        constants = {
            "HEADS": heads, "KEY_HEADS": op["key_heads"], "KEY_SIZE": key_size,
            "VALUE_SIZE": size, "BLOCKS": blocks, "SPAN": SPAN, "SCALE": op["scale"],
            "TURNS": op["sharing"] == "turns", **of(q), **of(k, "K_"), **of(v, "V_"),
            **of(decay, "DECAY_"), **of(beta, "BETA_"),
        }  # fmt: skip
        bindings = {
            3: q.slot, 4: y.slot, 5: k.slot, 6: v.slot, 7: "step", 8: decay.slot, 9: beta.slot,
            10: state,
        }  # fmt: skip
        self.stage("delta_rule", bindings, constants, heads * blocks, writes=(4, 10))
        return y
