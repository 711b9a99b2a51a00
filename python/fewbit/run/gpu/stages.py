"""A plan as a list of stages: which shader reads and writes what, with which constants.

A value is some columns of a slot, a buffer that later values take over once nobody reads the value
any more. Names stand for buffers until a cache is there to run on: ``tokens.WIDTH.N``, ``step``,
``keys.LAYER``, ``values.LAYER``, ``turns.N``, ``conv.LAYER``, ``delta.LAYER``; weights are buffers
already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewbit.run.gpu.weights import Slice, Weights
from fewbit.run.limits import KV_TYPES

Domain = Literal["tokens", "outputs"]
Kind = Literal["few", "apart", "tiled"]
"""What a step's tokens are to `attend`: up to FEW; more, one by one; more, enough to fill tiles."""
KINDS: tuple[Kind, ...] = ("few", "apart", "tiled")
Ref = Any
"""A buffer, or the name of one."""

LANES = 64
"""Invocations of a workgroup, a power of two."""
WIDEST = 1024
"""Columns of a head at most: `attend` takes four a lane, of up to 256."""
TILE = 64
"""Rows and columns of a tile of a product, as tile.wgsl has it."""
FEW = 4
"""Up to so many rows `linear` takes a row at a time; more go through `matmul` in tiles."""
HEAD = 4
"""Words of a step before its tokens, as common.wgsl has them."""
TILE_QUERIES = 32
"""Queries of a workgroup of attend_tile.wgsl."""
WIDEST_TILE = 512
"""Columns of a head that attend_tile.wgsl takes at most."""
SPLIT = 256
"""Positions of a part of `attend` at least, where a few tokens meet a long cache."""
MOST_SPLITS = 32
SPAN = 32
"""Positions after which a recurrent state is folded; tokens of the last two can be taken back."""


@dataclass(frozen=True)
class View:
    """A value: `width` columns from `offset` of rows that are `stride` apart in a slot.

    They lie together, or, for ops that take them element by element, in `pieces` that are `apart`.
    """

    slot: str
    stride: int
    offset: int
    width: int
    domain: Domain
    pieces: int = 1
    apart: int = 0


@dataclass(frozen=True)
class Tiles:
    """The shader of a product for more rows than `above`: `groups` in x for each tile of places.

    Each row has `used` places, of as many of `experts`, each of which has tiles of its own.
    """

    files: tuple[str, ...]
    groups: int
    above: int = FEW
    used: int = 1
    experts: int = 0

    def count(self, rows: int) -> int:
        """Tiles that so many rows take at most."""
        places = rows * self.used
        return -(-places // TILE) + min(self.experts, places)


@dataclass(frozen=True)
class Stage:
    """One dispatch of a shader: `groups` in x for each row of its domain, `writes` to bindings.

    `tiles`, where there are, take the place of this for many rows.
    """

    op: str
    files: tuple[str, ...]
    bindings: Mapping[int, Ref]
    writes: tuple[int, ...]
    constants: Mapping[str, float]
    groups: int
    domain: Domain
    tiles: Tiles | None = None
    kinds: tuple[Kind, ...] = KINDS
    """For which steps this dispatch is made, where a cache is long enough to be split."""
    kinds_short: tuple[Kind, ...] | None = None
    """And where it is not, if these are others."""
    queries: int = 0
    """Of each token, in tiles of TILE_QUERIES; 0 where a workgroup takes one token."""
    above: int = 0
    """It is not made for so many rows."""

    def for_cache(self, capacity: int, kv: str = "f32") -> Stage | None:
        """The stage for a cache of `capacity` tokens kept as `kv`, None if there is none."""
        constants = dict(self.constants)
        numbers = {"CAPACITY": capacity, "KV": KV_TYPES.index(kv)}
        constants |= {name: numbers[name] for name in numbers if name in constants}
        parts, groups, kinds = splits(capacity), self.groups, self.kinds
        if parts == 1 and self.kinds_short is not None:
            kinds = self.kinds_short
        elif "SPLITS" in constants:
            constants["SPLITS"] = parts
            groups *= parts if self.op == "attend" else 1
        files = tuple(f"kept_{kv}" if name == "kept" else name for name in self.files)
        found = replace(self, files=files, constants=constants, groups=groups, kinds=kinds)
        return found if kinds else None


def kept_bytes(kv: str, width: int, heads: int) -> int:
    """Of a row of keys or values: four columns to 4, 2 or 1 words, and of int8 a scale a head."""
    return (width * 4 >> KV_TYPES.index(kv)) + (4 * heads if kv == "int8" else 0)


def splits(capacity: int) -> int:
    """Parts in which a few tokens meet a cache of so many: a workgroup a head starves a card."""
    return min(max(capacity // SPLIT, 1), MOST_SPLITS)


def kind_of(sequences: NDArray[np.uint32], queries: int) -> Kind:
    """What a step is whose tokens, of `queries` each, belong to these sequences.

    A tile walks every sequence that it meets and does so for all of its queries; it is worth that
    if half of them belong there (benches/gpu_attend.py).
    """
    count = len(sequences)
    if count <= FEW:
        return "few"
    tiles = np.arange(count) // max(TILE_QUERIES // queries, 1)
    walks = len(set(zip(tiles.tolist(), sequences.tolist(), strict=True)))
    return "tiled" if 2 * count * queries >= TILE_QUERIES * walks else "apart"


@dataclass(frozen=True)
class Turns:
    """Frequencies of rotary angles: `long` ones where a cache holds more than `original` tokens."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    factor: float

    def freqs(self, capacity: int) -> tuple[float, ...]:
        """The frequencies for a cache of `capacity` tokens."""
        return self.long if capacity > self.original else self.short


@dataclass
class Program:
    """All stages of a plan, and what they need."""

    stages: list[Stage] = field(default_factory=list)
    slots: dict[str, tuple[int, Domain]] = field(default_factory=dict)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Buffers that keep so many numbers, of so many heads, for each position."""
    states: dict[str, int] = field(default_factory=dict)
    """Buffers that keep so many floats for each sequence."""
    parts: int = 0
    """Floats of what a part of `attend` leaves of a token, of all heads of a layer."""
    queries: int = TILE_QUERIES
    """Of a token, that share a key/value head: the fewest of any layer."""
    turns: list[Turns] = field(default_factory=list)
    positions: int | None = None
    """How many positions have an embedding, where the plan asks for one."""
    logits: View | None = None
    vocab: int = 0
    takes: bool = False


class Builder:
    """What the ops of a plan are built from: slots for values, and stages."""

    def __init__(self, plan: Sequence[Mapping[str, Any]], weights: Weights, acts: str) -> None:
        self.plan, self.weights, self.acts = plan, weights, acts
        self.program = Program(takes=any(op["op"] == "take" for op in plan))
        self.values: dict[int, View] = {}
        self.derived: dict[tuple[int, int, str], View] = {}
        """What is made of a value for all that read it, by the value, a size and what it is."""
        self.domain: Domain = "tokens"
        self._last = {i: at for at, op in enumerate(plan) for i in op["inputs"]}
        self._last[len(plan) - 1] = len(plan)
        self._free: dict[str, list[str]] = {}
        self._held: Counter[str] = Counter()
        self._made: Counter[str] = Counter()

    def new(self, width: int) -> View:
        """A value of `width` columns in a slot that nobody reads any more, or a new one."""
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

    def hold(self, view: View) -> View:
        """The value, which is one more in its slot."""
        self._held[view.slot] += 1
        return view

    def release_read(self, at: int) -> None:
        """Let go of what op `at` was the last to read."""
        for value in set(self.plan[at]["inputs"]):
            if self._last[value] == at:
                mine = [key for key in self.derived if key[0] == value]
                views = [self.values[value], *(self.derived.pop(key) for key in mine)]
                for view in views:
                    self._let_go(view)

    def _let_go(self, view: View) -> None:
        self._held[view.slot] -= 1
        if not self._held[view.slot]:
            width, domain = self.program.slots[view.slot]
            self._free[f"{domain}.{width}"].append(view.slot)

    def vector(self, name: str) -> Ref:
        """The tensor's values as f32."""
        return self.weights[name].vector

    def each(self, name: str, x: View, *others: View, **constants: float) -> View:
        """The value of an op that takes rows element by element; a second input is `OTHER`."""
        y = self.new(x.width)
        bindings = {3: x.slot, 4: y.slot}
        numbers: dict[str, float] = {"WIDTH": x.width, **of(x), **constants}
        for other in others:
            bindings[6] = other.slot
            numbers |= of(other, "OTHER_")
        self.stage(name, bindings, numbers, self.items(x.width))
        return y

    def items(self, count: int) -> int:
        """Workgroups for `count` invocations."""
        return -(-count // LANES)

    def stage(
        self, op: str, bindings: Mapping[int, Ref], constants: Mapping[str, float], groups: int, *,
        part: Slice | None = None, writes: tuple[int, ...] = (4,), needs: tuple[str, ...] = (),
        shader: str | None = None, kinds: tuple[Kind, ...] = KINDS,
        short: tuple[Kind, ...] | None = None, queries: int = 0, above: int = 0,
    ) -> None:  # fmt: skip
        """Add a dispatch of `shader`, or the op's own, behind files that it `needs`."""
        files = (part.file,) if part else ()
        if part:
            bindings = {**part.buffers, **bindings}
            constants = {**part.constants, **constants}
        self.program.stages.append(
            Stage(
                op, (*needs, *files, shader or op), bindings, writes, constants, groups,
                self.domain, None, kinds, short, queries, above,
            )
        )  # fmt: skip


def of(x: View, prefix: str = "") -> dict[str, float]:
    """Where a shader finds an input."""
    found: dict[str, float] = {f"{prefix}STRIDE": x.stride, f"{prefix}OFFSET": x.offset}
    if x.pieces > 1:
        found |= {f"{prefix}PIECE": x.width // x.pieces, f"{prefix}APART": x.apart}
    return found
