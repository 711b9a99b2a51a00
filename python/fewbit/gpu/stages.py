"""A plan as a list of stages: which shader reads and writes what, with which constants.

A value is some columns of a slot, a buffer that later values take over once nobody reads the value
any more. Names stand for buffers until a cache is there to run on: ``tokens.WIDTH.N``, ``step``,
``keys.LAYER``, ``values.LAYER``, ``turns.N``; weights are buffers already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fewbit.errors import ShapeError, UnsupportedError
from fewbit.gpu.weights import Weights

Domain = Literal["tokens", "outputs"]
Ref = Any
"""A buffer, or the name of one."""

TILE = 64
"""Rows and columns of a tile of matmul.wgsl."""
FEW = 4
"""Up to so many rows `linear` takes a row at a time; more go through `matmul` in tiles."""


@dataclass(frozen=True)
class View:
    """A value: `width` columns from `offset` of rows that are `stride` apart in a slot."""

    slot: str
    stride: int
    offset: int
    width: int
    domain: Domain


@dataclass(frozen=True)
class Stage:
    """One dispatch of a shader: `groups` in x for each row of its domain, `writes` to bindings.

    `tiles` > 0: a shader for many rows at once, used in place of `instead` from FEW + 1 rows on.
    """

    op: str
    files: tuple[str, ...]
    bindings: Mapping[int, Ref]
    writes: tuple[int, ...]
    constants: Mapping[str, float]
    groups: int
    domain: Domain
    many: tuple[tuple[str, ...], Mapping[str, float], int] | None = None


@dataclass
class Program:
    """All stages of a plan, and what they need."""

    stages: list[Stage] = field(default_factory=list)
    slots: dict[str, tuple[int, Domain]] = field(default_factory=dict)
    layers: dict[int, int] = field(default_factory=dict)
    turns: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    logits: View | None = None
    vocab: int = 0
    takes: bool = False


class Compiler:
    """Walks a plan once; each method of an op's name adds its stages and returns its value."""

    OPS = ("embed", "rms_norm", "linear", "rope", "attend", "add", "swiglu", "take")

    def __init__(
        self, plan: Sequence[Mapping[str, Any]], weights: Weights, acts: str, lanes: int
    ) -> None:
        self.plan, self.weights, self.acts, self.lanes = plan, weights, acts, lanes
        self.program = Program(takes=any(op["op"] == "take" for op in plan))
        self.values: dict[int, View] = {}
        self.rounded: dict[int, View] = {}
        self.domain: Domain = "tokens"
        self._last = {i: at for at, op in enumerate(plan) for i in op["inputs"]}
        self._last[len(plan) - 1] = len(plan)
        self._free: dict[str, list[str]] = {}
        self._held: Counter[str] = Counter()
        self._made: Counter[str] = Counter()

    def run(self) -> Program:
        """The program.

        Raises:
            UnsupportedError: the plan has an op that this executor lacks.

        """
        check_ops(self.plan)
        adds = self._residuals()
        for at, op in enumerate(self.plan):
            if at not in self.values:
                self._step(at, op, adds.get(at))
            for value in set(op["inputs"]):
                if self._last[value] == at:
                    self._release(value)
        self.program.logits = self.values[len(self.plan) - 1]
        return self.program

    def _step(self, at: int, op: Mapping[str, Any], into: int | None) -> None:
        inputs = [self.values[i] for i in op["inputs"]]
        if op["op"] == "linear":
            other = None
            if into is not None:
                (other,) = (self.values[i] for i in self.plan[into]["inputs"] if i != at)
            view = self.linear(at, op, inputs[0], other)
            if into is not None:
                self.values[into] = view
                self._held[view.slot] += 1
        else:
            view = getattr(self, op["op"])(op, *inputs)
        self.values[at] = view

    def _residuals(self) -> dict[int, int]:
        """`linear` ops whose only reader is an `add` to an earlier value: one stage does both.

        The product is rounded before the sum either way, so the bits are the same.
        """
        readers = Counter(i for op in self.plan for i in op["inputs"])
        found = {}
        for at, op in enumerate(self.plan):
            if op["op"] == "add" and len(set(op["inputs"])) == 2:
                late = max(op["inputs"])
                if self.plan[late]["op"] == "linear" and readers[late] == 1:
                    found[late] = at
        return found

    # ---- slots

    def _new(self, width: int) -> View:
        kind = f"{self.domain}.{width}"
        free = self._free.setdefault(kind, [])
        if free:
            slot = free.pop()
        else:
            slot = f"{kind}.{self._made[kind]}"
            self._made[kind] += 1
            self.program.slots[slot] = (width, self.domain)
        self._held[slot] += 1
        return View(slot, width, 0, width, self.domain)

    def _release(self, value: int) -> None:
        for view in (self.values.get(value), self.rounded.pop(value, None)):
            if view is not None:
                self._held[view.slot] -= 1
                if not self._held[view.slot]:
                    width, domain = self.program.slots[view.slot]
                    self._free[f"{domain}.{width}"].append(view.slot)

    # ---- ops

    def embed(self, op: Mapping[str, Any]) -> View:
        """Rows of the table, slice by slice."""
        table = self.weights[op["weights"][0]]
        self.program.vocab = table.rows
        y = self._new(table.columns)
        for part in table.slices:
            self._stage(
                "embed", {4: y.slot, 7: "step"}, {"FIRST": part.first}, self._items(y.width // 4),
                part=part,
            )  # fmt: skip
        return y

    def rms_norm(self, op: Mapping[str, Any], x: View) -> View:
        """Over each of the row's parts."""
        y = self._new(x.width)
        weight = self.weights[op["weights"][0]].vector
        parts = op["heads"]
        constants = {"SIZE": x.width // parts, "PARTS": parts, "EPS": op["eps"], **_of(x)}
        self._stage("rms_norm", {3: x.slot, 4: y.slot, 5: weight}, constants, parts, reduces=True)
        return y

    def linear(self, at: int, op: Mapping[str, Any], x: View, other: View | None) -> View:
        """The product, with its bias and the sum that follows it."""
        weight = self.weights[op["weights"][0]]
        if (weight.rows, weight.columns) != (op["width"], x.width):
            raise ShapeError(
                f"op {at} (linear): `{weight.name}` is [{weight.rows}, {weight.columns}], "
                f"the plan has [{op['width']}, {x.width}]"
            )
        if self.acts == "int8" and weight.rounds_activations:
            x = self._round(op["inputs"][0], x)
        y = self._new(op["width"])
        bias = self.weights[op["weights"][1]].vector if len(op["weights"]) > 1 else None
        constants = {"WIDTH": y.width, "BIAS": bias is not None, **_of(x), **_other(other)}
        bindings = {
            3: x.slot, 4: y.slot, 5: "empty" if bias is None else bias,
            6: "empty" if other is None else other.slot, 7: "step",
        }  # fmt: skip
        for part in weight.slices:
            self._stage(
                "linear", bindings, constants | {"FIRST": part.first}, -(-part.rows // 4),
                part=part, reduces=True, tiled=True,
            )  # fmt: skip
        return y

    def _round(self, value: int, x: View) -> View:
        if value not in self.rounded:
            y = self._new(x.width)
            self._stage(
                "round_activations", {3: x.slot, 4: y.slot}, {"WIDTH": x.width, **_of(x)},
                self._items(-(-x.width // 32)),
            )  # fmt: skip
            self.rounded[value] = y
        return self.rounded[value]

    def rope(self, op: Mapping[str, Any], x: View) -> View:
        """By the angles that the cache holds for every position."""
        turns = (tuple(op["freqs"]), op["factor"])
        if turns not in self.program.turns:
            self.program.turns.append(turns)
        pairs, size = len(op["freqs"]), x.width // op["heads"]
        apart, following = {"neighbours": (1, 2), "halves": (pairs, 1)}[op["pairing"]]
        y = self._new(x.width)
        constants = {
            "WIDTH": x.width, "SIZE": size, "PAIRS": pairs, "APART": apart,
            "FOLLOWING": following, **_of(x),
        }  # fmt: skip
        name = f"turns.{self.program.turns.index(turns)}"
        bindings = {3: x.slot, 4: y.slot, 5: name, 7: "step"}
        self._stage("rope", bindings, constants, self._items(op["heads"] * (size - pairs)))
        return y

    def attend(self, op: Mapping[str, Any], q: View, k: View, v: View) -> View:
        """First keys and values go to the cache, then the queries meet all of it."""
        layer, size = op["layer"], q.width // op["heads"]
        if size % 4 or size > 4 * self.lanes:
            raise UnsupportedError(
                f"the GPU executor has no `attend` with heads of {size} columns",
                hint=f"a multiple of 4 up to {4 * self.lanes}; use `--device cpu`",
            )
        self.program.layers[layer] = k.width
        y = self._new(q.width)
        keys, values = f"keys.{layer}", f"values.{layer}"
        self._stage(
            "store", {3: k.slot, 4: keys, 5: values, 6: v.slot, 7: "step"},
            {"WIDTH": k.width, **_of(k), **_other(v, flag=False)}, self._items(k.width),
            writes=(4, 5),
        )  # fmt: skip
        constants = {
            "SIZE": size, "HEADS": op["heads"], "KV_HEADS": op["kv_heads"], "SCALE": op["scale"],
            "WINDOW": op["window"], **_of(q),
        }  # fmt: skip
        bindings = {3: q.slot, 4: y.slot, 5: keys, 6: values, 7: "step"}
        self._stage("attend", bindings, constants, op["heads"], reduces=True)
        return y

    def add(self, op: Mapping[str, Any], x: View, other: View) -> View:
        """The sum of two values."""
        return self._pair("add", x, other)

    def swiglu(self, op: Mapping[str, Any], gate: View, up: View) -> View:
        """The gated value."""
        return self._pair("swiglu", gate, up)

    def take(self, op: Mapping[str, Any], x: View) -> View:
        """From here on rows are outputs."""
        self.domain = "outputs"
        y = self._new(x.width)
        constants = {"WIDTH": x.width, **_of(x)}
        self._stage("take", {3: x.slot, 4: y.slot, 7: "step"}, constants, self._items(x.width))
        return y

    def _pair(self, name: str, x: View, other: View) -> View:
        y = self._new(x.width)
        constants = {"WIDTH": x.width, **_of(x), **_other(other, flag=False)}
        bindings = {3: x.slot, 4: y.slot, 6: other.slot}
        self._stage(name, bindings, constants, self._items(x.width))
        return y

    def _items(self, count: int) -> int:
        return -(-count // self.lanes)

    def _stage(
        self, op: str, bindings: Mapping[int, Ref], constants: Mapping[str, float], groups: int, *,
        part: Any = None, writes: tuple[int, ...] = (4,), reduces: bool = False,
        tiled: bool = False,
    ) -> None:  # fmt: skip
        before = ("common", *(("reduce",) if reduces else ()))
        files = part.files if part else ()
        if part:
            bindings = {**part.buffers, **bindings}
            constants = {**part.constants, **constants}
        many = None
        if tiled:
            late = {**constants, "AFTER_TAKE": self.domain == "outputs"}
            many = (("common", *files, "matmul"), late, -(-part.rows // TILE))
        self.program.stages.append(
            Stage(op, (*before, *files, op), bindings, writes, constants, groups, self.domain, many)
        )


def check_ops(plan: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a plan with an op that this executor lacks, by the op's name.

    Raises:
        UnsupportedError: it has one.

    """
    for at, op in enumerate(plan):
        if op["op"] not in Compiler.OPS:
            raise UnsupportedError(
                f"op {at}: the GPU executor has no `{op['op']}`",
                hint="use `--device cpu`",
                op=op["op"],
            )
        if op["op"] == "attend" and op["weights"]:
            raise UnsupportedError(
                f"op {at}: the GPU executor has no `attend` with sinks",
                hint="use `--device cpu`",
                op=op["op"],
            )


def _of(x: View) -> dict[str, float]:
    return {"STRIDE": x.stride, "OFFSET": x.offset}


def _other(other: View | None, flag: bool = True) -> dict[str, float]:
    """The constants of a second input; `flag` adds whether there is one."""
    found: dict[str, float] = {"OTHER": other is not None} if flag else {}
    if other is not None:
        found |= {"OTHER_STRIDE": other.stride, "OTHER_OFFSET": other.offset}
    return found
