"""Attention on a card against the oracle: by query, split by positions, and in tiles of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

import fewbit.run.gpu.executor
from fewbit.run.gpu.device import Device
from fewbit.run.gpu.executor import Executor
from fewbit.run.gpu.stages import TILE_QUERIES, StepKind, splits, step_kind
from reference import ops
from reference.cache import round_kv
from tests.compare import within_bound
from tests.gpu.running import U, both, embed, op, stored, upload, values

ROWS = 64
"""Rows of the table of `Case`: different queries, keys and values."""


@dataclass(frozen=True)
class Case:
    """Heads, the tokens of each sequence in the cache, and the sequence of each new token."""

    size: int
    heads: int
    kv_heads: int
    depths: tuple[int, ...]
    order: tuple[int, ...]
    window: int = 0
    sinks: bool = False
    kv: str = "f32"

    def __str__(self) -> str:
        heads = f"{self.size}x{self.heads}/{self.kv_heads}"
        seen = f"w{self.window}" + "s" * self.sinks
        return f"{heads}-{seen}-{len(self.order)}of{len(self.depths)}-{self.kv}"

    @property
    def attributes(self) -> dict[str, float]:
        """Attributes of the op; at this scale several positions have a probability that counts."""
        heads = {"heads": self.heads, "kv_heads": self.kv_heads}
        return {**heads, "scale": 1.5 / self.size**0.5, "window": self.window}

    @property
    def widths(self) -> tuple[int, int, int]:
        """Columns of queries, keys and values."""
        return tuple(self.size * n for n in (self.heads, self.kv_heads, self.kv_heads))

    def table(self) -> np.ndarray:
        """Queries, keys and values of ROWS tokens, side by side; none is on a tie of int8."""
        x = np.random.default_rng(self.size).normal(size=(ROWS, sum(self.widths)))
        heads = x.reshape(-1, self.size)
        steps = np.abs(heads).max(axis=1, keepdims=True) / 127
        doubt = np.abs(np.abs(heads / steps) % 1 - 0.5) < 1e-3
        return np.float32(np.where(doubt, heads - 0.01 * steps, heads).reshape(x.shape))

    def cached(self, x: np.ndarray) -> np.ndarray:
        """The table with keys and values rounded as the cache stores them."""
        q, k, v = np.split(x, np.cumsum(self.widths)[:2], axis=1)
        rows = [[round_kv(row, self.kv, self.kv_heads) for row in part.tolist()] for part in (k, v)]
        return np.concatenate([q, *np.float32(rows)], axis=1)


def one(tokens: int) -> tuple[int, ...]:
    return (0,) * tokens


CASES = [
    Case(32, 4, 4, (0,), one(5)),
    Case(32, 8, 2, (0,), one(33)),
    Case(64, 4, 1, (70,), one(40), window=50),
    Case(64, 6, 2, (0,), one(131), sinks=True),
    Case(80, 7, 1, (3,), one(50), window=9, sinks=True),
    Case(96, 40, 1, (20,), one(9)),
    Case(128, 4, 2, (130,), one(17)),
    Case(256, 2, 1, (1,), one(70), window=64),
    Case(260, 2, 1, (1,), one(41), sinks=True),
    Case(512, 2, 1, (70,), one(21), window=60),
    Case(516, 1, 1, (0,), one(9)),
    Case(1024, 1, 1, (64,), one(6), sinks=True),
    Case(64, 4, 2, (66,), one(19), window=70, sinks=True, kv="f16"),
    Case(64, 4, 2, (66,), one(19), window=70, sinks=True, kv="int8"),
    Case(300, 2, 1, (0, 5), (1,) * 5 + (0,) * 9, kv="f16"),
    Case(300, 2, 1, (0, 5), (1,) * 5 + (0,) * 9, kv="int8"),
    Case(12, 6, 6, (0,), one(70), window=3, kv="f16"),
    Case(12, 6, 6, (0,), one(70), window=3, kv="int8"),
    Case(64, 4, 2, (0, 90), (0,) * 21 + (1,) * 12),
    Case(64, 2, 2, (40, 0, 7), tuple(i * i % 3 for i in range(45)), window=30, sinks=True),
    Case(32, 4, 1, tuple(range(0, 60, 5)), tuple(range(12))),
]


@pytest.mark.parametrize("form", ["by_query", "by_tile"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms(card: Device, monkeypatch: pytest.MonkeyPatch, case: Case, form: StepKind) -> None:
    """Both forms for prompts, whichever a step would choose."""
    monkeypatch.setattr(fewbit.run.gpu.executor, "step_kind", lambda *_: form)
    check(card, case)


SPLIT_CASES = [
    Case(64, 4, 2, (500, 300), (0, 1, 1), window=400),
    Case(64, 4, 2, (500, 300), (0, 1, 1), kv="f16"),
    Case(64, 4, 2, (500, 300), (0, 1, 1), sinks=True, kv="int8"),
    Case(516, 1, 1, (510,), one(2), sinks=True),
]


@pytest.mark.parametrize("case", SPLIT_CASES, ids=str)
def test_splits(card: Device, case: Case) -> None:
    """A few tokens, with each head's positions in two splits."""
    assert splits(512) == 2
    check(card, case, capacity=512)


def check(card: Device, case: Case, capacity: int = 0) -> None:
    """Fill the sequences, attend from the new tokens, and compare some of them."""
    x, plan = case.table(), plan_of(case)
    weights = {"x": stored(x), "s": stored(values(13, case.heads))}
    executor = Executor(plan, upload(card, weights, plan))
    sequences = len(case.depths)
    most = max(d + case.order.count(s) for s, d in enumerate(case.depths))
    cache = executor.cache(sequences, max(most, capacity), case.kv)
    rng = np.random.default_rng(1)
    seen = [rng.integers(0, ROWS, depth).tolist() for depth in case.depths]
    for sequence, ids in enumerate(seen):
        where = np.full(len(ids), sequence, np.uint32)
        executor.forward(cache, np.uint32(ids), where, where[:0], "f32")
    ids, held = rng.integers(0, ROWS, len(case.order)).astype(np.uint32), case.cached(x)
    everything = np.arange(len(ids), dtype=np.uint32)
    got = executor.forward(cache, ids, np.uint32(case.order), everything, "f32")
    for i, (token, sequence) in enumerate(zip(ids.tolist(), case.order, strict=True)):
        seen[sequence].append(token)
        if i < 3 or i % 8 == 0 or len(ids) - i < 3:
            expected, bound = attended(case, held, seen[sequence], weights["s"].values[0])
            within_bound(got[i], expected, bound, f"token {i}")


def plan_of(case: Case) -> list[dict]:
    """A plan whose queries, keys and values are columns of an embedding."""
    plan = [embed("x", case.table())]
    for index, width in enumerate(case.widths):
        plan.append(op("part", [0], [], width, parts=1, start=sum(case.widths[:index])))
    names = ["s"] if case.sinks else []
    plan.append(op("attend", [1, 2, 3], names, case.widths[0], layer=0, **case.attributes))
    return plan


def attended(
    case: Case, x: np.ndarray, ids: Sequence[int], sinks: list[float]
) -> tuple[list[float], list[float]]:
    """The oracle's result for the last of these tokens, and the error bound."""
    q, k, v = np.split(x[ids], np.cumsum(case.widths)[:2], axis=1)
    sunk = sinks if case.sinks else None
    expected = ops.attend(q[-1].tolist(), k.tolist(), v.tolist(), sunk, **case.attributes)
    return expected, attend_bound(q[-1], k, v, case.attributes)


def test_step_kind() -> None:
    """Tiles of 32 queries if at least half of a tile belongs to one sequence."""

    def kind(sequences: Sequence[int], queries: int) -> StepKind:
        return step_kind(np.uint32(sequences), queries)

    assert TILE_QUERIES == 32
    kinds = [kind(one(n), 4) for n in (1, 4, 5, 300)]
    assert kinds == ["few_tokens", "few_tokens", "by_tile", "by_tile"]
    kinds = [kind(one(n), 1) for n in (5, 15, 16, 512)]
    assert kinds == ["by_query", "by_query", "by_tile", "by_tile"]
    assert kind(range(64), 4) == "by_query"
    assert kind(range(5), 64) == "by_tile"
    assert kind([i % 2 for i in range(64)], 4) == "by_tile"
    assert kind([i % 4 for i in range(64)], 4) == "by_query"
    assert kind([i // 16 for i in range(64)], 1) == "by_tile"


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize("tokens", [1, 20, 90])
@pytest.mark.parametrize("window", [0, 1, 5, 70])
def test_attend(card, window, tokens, sinks):
    """Heads of 12 columns leave lanes idle; 90 positions need two blocks; a sink adds a score."""
    heads, kv_heads, size, scale = 4, 2, 12, 0.3
    table = np.concatenate(
        [values(10, tokens, 48) / 5, values(11, tokens, 24) / 5, values(12, tokens, 24)], axis=1
    )
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": scale, "window": window}
    plan, weights = sliced(table, (48, 24, 24))
    names = ["s"] if sinks else []
    weights["s"] = stored(values(13, heads))
    plan.append(op("attend", [1, 2, 3], names, heads * size, layer=0, **attributes))
    got, expected = both(card, plan, weights, list(range(tokens)))
    q, k, v = table[:, :48], table[:, 48:72], table[:, 72:]
    bounds = [attend_bound(q[i], k[: i + 1], v[: i + 1], attributes) for i in range(tokens)]
    within_bound(got, expected, np.array(bounds))


def sliced(table, widths):
    """Columns of the embedding table as values, by products with rows of a single 1."""
    plan, weights, at = [embed("x", table)], {"x": stored(table)}, 0
    for index, width in enumerate(widths):
        pick = np.eye(width, table.shape[1], at, dtype=np.float32)
        weights[f"w{index}"] = stored(pick)
        plan.append(op("linear", [0], [f"w{index}"], width))
        at += width
    return plan, weights


def attend_bound(q, keys, vals, attributes) -> list[float]:
    """(2 score + exp + n + 12) U * sum p |v|, twice: for the numerator and the denominator.

    The error of a score is (size + 4) U sum |q k| scale: the sum, and up to two factors. exp of a
    difference of two scores has its own error. Numerator and denominator each sum n products, which
    may have a scale, and are rescaled once per block.
    """
    size = len(q) // attributes["heads"]
    by_head = (np.abs(np.float64(x)).reshape(-1, size) for x in (q, keys))
    most = attributes["scale"] * float(np.matmul(next(by_head), next(by_head).T).max())
    exp = 2 * (3 + 2 * 2 * most)
    near = ops.attend(q.tolist(), keys.tolist(), np.abs(vals).tolist(), **attributes)
    return [2 * (2 * (size + 4) * most + 2 * exp + len(keys) + 12) * U * y for y in near]


@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
@pytest.mark.parametrize(("window", "size"), [(0, 12), (0, 200), (70, 12), (300, 12)])
def test_attend_in_splits(card, window, size, sinks):
    """A few tokens at the start and at the end of a long cache, whose positions are split."""
    tokens, heads, kv_heads = 600, 4, 2
    wide, narrow = heads * size, kv_heads * size
    x = np.concatenate(
        [values(10, tokens, wide) / 5, values(11, tokens, narrow) / 5, values(12, tokens, narrow)],
        axis=1,
    )
    plan, weights, at = [embed("x", x)], {"x": stored(x), "s": stored(values(13, heads))}, 0
    for width in (wide, narrow, narrow):
        plan.append(op("part", [0], [], width, parts=1, start=at))
        at += width
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": 0.1, "window": window}
    names = ["s"] if sinks else []
    plan.append(op("attend", [1, 2, 3], names, wide, layer=0, **attributes))
    executor = Executor(plan, upload(card, weights, plan))
    cache = executor.cache(1, 2048)
    assert splits(2048) == 8
    q, k, v = x[:, :wide], x[:, wide : wide + narrow], x[:, wide + narrow :]
    for start, stop in ((0, 3), (3, 597), (597, 600)):
        ids = np.arange(start, stop, dtype=np.uint32)
        wanted = np.arange(min(3, stop - start), dtype=np.uint32)
        got = executor.forward(cache, ids, 0 * ids, wanted, "f32")
        for row, i in zip(got, ids, strict=False):
            sunk = weights["s"].values[0] if sinks else None
            seen = (k[: i + 1].tolist(), v[: i + 1].tolist())
            expected = ops.attend(q[i].tolist(), *seen, sunk, **attributes)
            bound = attend_bound(q[i], k[: i + 1], v[: i + 1], attributes)
            within_bound(row, expected, bound, f"token {i}")
