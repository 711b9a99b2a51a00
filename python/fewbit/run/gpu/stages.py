"""A plan compiled into stages: the shader, buffers and constants of each GPU dispatch.

A value of the plan is some columns of a slot: a buffer that later values reuse once no op reads the
value any more. Weights are buffers already. Other buffers are named until there is a cache to run
on: ``tokens.WIDTH.N``, ``outputs.WIDTH.N``, ``step``, ``keys.LAYER``, ``values.LAYER``,
``rotary.N``, ``conv.LAYER``, ``delta.LAYER``.
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
StepKind = Literal["few_tokens", "by_query", "by_tile"]
"""How a step runs `attend`: up to FEW_TOKENS tokens; more, a workgroup per query or per tile."""
STEP_KINDS: tuple[StepKind, ...] = ("few_tokens", "by_query", "by_tile")
Ref = Any
"""A buffer, or the name of one."""

LANES = 64
"""Invocations of a workgroup: a power of two."""
MAX_HEAD_SIZE = 1024
"""Most columns of a head: `attend` takes four per lane, with up to 256 lanes."""
TILE = 64
"""Rows and columns of a tile of a product, as in tile.wgsl."""
FEW_TOKENS = 4
"""Most tokens of a step that `linear` takes one by one; more go through `matmul` in tiles."""
STEP_HEADER = 4
"""Words of the step buffer before its tokens, as in common.wgsl."""
TILE_QUERIES = 32
"""Queries per workgroup of attend_tile.wgsl."""
MAX_TILED_HEAD_SIZE = 512
"""Most columns of a head in attend_tile.wgsl."""
MIN_SPLIT_POSITIONS = 256
"""Fewest positions of a split of `attend`, for a few tokens and a long cache."""
MAX_SPLITS = 32
"""Most workgroups that share the positions of one head of one token."""
CHUNK_TOKENS = 32
"""Tokens between updates of a recurrent state; tokens of the last two chunks can be removed."""


@dataclass(frozen=True)
class View:
    """A value: `width` columns from `offset` on, of rows that are `stride` columns apart in a slot.

    The columns are contiguous or, for element-wise ops, in `pieces` that are `piece_stride` apart.
    """

    slot: str
    stride: int
    offset: int
    width: int
    domain: Domain
    pieces: int = 1
    piece_stride: int = 0


@dataclass(frozen=True)
class Tiles:
    """The shader of a product for more than `above` rows: `workgroups` in x for each tile of rows.

    With `experts`, each row of x gives `used` rows of y, and a tile has rows of one expert only.
    """

    files: tuple[str, ...]
    workgroups: int
    above: int = FEW_TOKENS
    used: int = 1
    experts: int = 0

    def count(self, rows: int) -> int:
        """The most tiles that `rows` rows of x can take."""
        pairs = rows * self.used
        return -(-pairs // TILE) + min(self.experts, pairs)


@dataclass(frozen=True)
class Stage:
    """One dispatch of a shader: `workgroups` in x for each row of its domain.

    The shader writes to the bindings `writes`. `tiles` replaces the dispatch for many rows.
    """

    op: str
    files: tuple[str, ...]
    bindings: Mapping[int, Ref]
    writes: tuple[int, ...]
    constants: Mapping[str, float]
    workgroups: int
    domain: Domain
    tiles: Tiles | None = None
    step_kinds: tuple[StepKind, ...] = STEP_KINDS
    """The steps that make this dispatch, if the cache is long enough to be split."""
    unsplit_kinds: tuple[StepKind, ...] | None = None
    """The steps that make it if the cache is not long enough; None: the same."""
    queries_per_token: int = 0
    """Queries of a token in tiles of TILE_QUERIES; 0 if a workgroup takes one token."""
    above: int = 0
    """Only steps with more rows than this make the dispatch."""

    def for_cache(self, capacity: int, kv: str = "f32") -> Stage | None:
        """The stage for a cache of `capacity` tokens in type `kv`; None if it has no dispatch."""
        constants = dict(self.constants)
        numbers = {"CAPACITY": capacity, "KV_TYPE": KV_TYPES.index(kv)}
        constants |= {name: numbers[name] for name in numbers if name in constants}
        count, workgroups, step_kinds = splits(capacity), self.workgroups, self.step_kinds
        if count == 1 and self.unsplit_kinds is not None:
            step_kinds = self.unsplit_kinds
        elif "SPLITS" in constants:
            constants["SPLITS"] = count
            workgroups *= count if self.op == "attend" else 1
        files = tuple(f"kv_{kv}" if name == "kv" else name for name in self.files)
        if not step_kinds:
            return None
        return replace(
            self, files=files, constants=constants, workgroups=workgroups, step_kinds=step_kinds
        )


def kv_row_bytes(kv: str, width: int, heads: int) -> int:
    """Bytes of a row of keys or values: 4, 2 or 1 per column, and for int8 a scale per head."""
    return (width * 4 >> KV_TYPES.index(kv)) + (4 * heads if kv == "int8" else 0)


def splits(capacity: int) -> int:
    """Splits of a head's positions for a few tokens: one workgroup per head leaves a card idle."""
    return min(max(capacity // MIN_SPLIT_POSITIONS, 1), MAX_SPLITS)


def step_kind(sequences: NDArray[np.uint32], queries: int) -> StepKind:
    """How a step whose tokens belong to these `sequences` runs `attend`.

    `queries` is the number of queries of a token that share a key/value head. A tile computes all
    of its queries for each sequence in it: worth it if half of them belong to that sequence
    (benches/gpu_attend.py).
    """
    count = len(sequences)
    if count <= FEW_TOKENS:
        return "few_tokens"
    tiles = np.arange(count) // max(TILE_QUERIES // queries, 1)
    tile_sequences = len(set(zip(tiles.tolist(), sequences.tolist(), strict=True)))
    return "by_tile" if 2 * count * queries >= TILE_QUERIES * tile_sequences else "by_query"


@dataclass(frozen=True)
class RotaryFrequencies:
    """Frequencies of rotary angles; `long` is for caches of more than `original` tokens."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    factor: float

    def freqs(self, capacity: int) -> tuple[float, ...]:
        """The frequencies for a cache of `capacity` tokens."""
        return self.long if capacity > self.original else self.short


@dataclass
class Program:
    """All stages of a plan, with the buffers and tables that they need."""

    stages: list[Stage] = field(default_factory=list)
    slots: dict[str, tuple[int, Domain]] = field(default_factory=dict)
    kv_rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Buffers of keys or values, with the columns and the heads of a position."""
    states: dict[str, int] = field(default_factory=dict)
    """Buffers of recurrent states, with the floats of a sequence."""
    split_floats: int = 0
    """Floats that a split of `attend` leaves for a token, for all heads of a layer."""
    queries_per_kv_head: int = TILE_QUERIES
    """Queries of a token that share a key/value head: the fewest of any layer."""
    rotations: list[RotaryFrequencies] = field(default_factory=list)
    max_positions: int | None = None
    """Positions in the table of position embeddings; None if the plan has no table."""
    logits: View | None = None
    vocab: int = 0
    has_take: bool = False


class Builder:
    """Allocates slots for the values of a plan, and adds stages."""

    def __init__(self, plan: Sequence[Mapping[str, Any]], weights: Weights, acts: str) -> None:
        self.plan, self.weights, self.acts = plan, weights, acts
        self.program = Program(has_take=any(op["op"] == "take" for op in plan))
        self.values: dict[int, View] = {}
        self.derived: dict[tuple[int, int, str], View] = {}
        """Other forms of a value, made once for all its readers: by value, a size and a label."""
        self.domain: Domain = "tokens"
        self._last = {i: at for at, op in enumerate(plan) for i in op["inputs"]}
        self._last[len(plan) - 1] = len(plan)
        self._free: dict[str, list[str]] = {}
        self._references: Counter[str] = Counter()
        self._slot_counts: Counter[str] = Counter()

    def new(self, width: int) -> View:
        """A value of `width` columns, in a slot that is free or a new one."""
        kind = f"{self.domain}.{width}"
        free = self._free.setdefault(kind, [])
        if free:
            slot = free.pop()
        else:
            slot = f"{kind}.{self._slot_counts[kind]}"
            self._slot_counts[kind] += 1
            self.program.slots[slot] = (width, self.domain)
        self._references[slot] += 1
        return View(slot, width, 0, width, self.domain)

    def retain(self, view: View) -> View:
        """The same value, with one more reference to its slot."""
        self._references[view.slot] += 1
        return view

    def release_read(self, at: int) -> None:
        """Free the slots of values that op `at` is the last to read."""
        for value in set(self.plan[at]["inputs"]):
            if self._last[value] == at:
                mine = [key for key in self.derived if key[0] == value]
                views = [self.values[value], *(self.derived.pop(key) for key in mine)]
                for view in views:
                    self._release(view)

    def _release(self, view: View) -> None:
        self._references[view.slot] -= 1
        if not self._references[view.slot]:
            width, domain = self.program.slots[view.slot]
            self._free[f"{domain}.{width}"].append(view.slot)

    def vector(self, name: str) -> Ref:
        """The tensor's values as f32."""
        return self.weights[name].vector

    def elementwise(self, name: str, x: View, *others: View, **constants: float) -> View:
        """The value of an element-wise op; shaders call a second input `other`."""
        y = self.new(x.width)
        bindings = {3: x.slot, 4: y.slot}
        numbers: dict[str, float] = {"WIDTH": x.width, **layout(x), **constants}
        for other in others:
            bindings[6] = other.slot
            numbers |= layout(other, "OTHER_")
        self.stage(name, bindings, numbers, self.workgroups(x.width))
        return y

    def workgroups(self, count: int) -> int:
        """Workgroups for `count` invocations."""
        return -(-count // LANES)

    def stage(
        self, op: str, bindings: Mapping[int, Ref], constants: Mapping[str, float],
        workgroups: int, *, slice_: Slice | None = None, writes: tuple[int, ...] = (4,),
        needs: tuple[str, ...] = (), shader: str | None = None,
        step_kinds: tuple[StepKind, ...] = STEP_KINDS,
        unsplit_kinds: tuple[StepKind, ...] | None = None, queries_per_token: int = 0,
        above: int = 0,
    ) -> None:  # fmt: skip
        """Add a dispatch of `shader`, or of the op's own; files that it `needs` come first."""
        files = (slice_.file,) if slice_ else ()
        if slice_:
            bindings = {**slice_.buffers, **bindings}
            constants = {**slice_.constants, **constants}
        self.program.stages.append(
            Stage(
                op, (*needs, *files, shader or op), bindings, writes, constants, workgroups,
                self.domain, None, step_kinds, unsplit_kinds, queries_per_token, above,
            )
        )  # fmt: skip


def layout(x: View, prefix: str = "") -> dict[str, float]:
    """The constants that tell a shader where an input is."""
    found: dict[str, float] = {f"{prefix}STRIDE": x.stride, f"{prefix}OFFSET": x.offset}
    if x.pieces > 1:
        found[f"{prefix}PIECE_WIDTH"] = x.width // x.pieces
        found[f"{prefix}PIECE_STRIDE"] = x.piece_stride
    return found
