"""Batch invariance on the CPU: a token's logits have the same bits whatever it is computed with.

Neither other sequences in the step, nor how a prompt is cut, nor the number of threads changes a
bit. It holds for every number format, every type of KV cache, every architecture and both kinds of
activations, and for values that are not finite as for others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit import _core
from fewbit.formats.table import FORMATS
from reference.weights import Weight
from tests.compare import same_bits
from tests.differential.plans import embed, op, stored, values
from tests.golden.loading import MODELS, NAMES, asset
from tests.random_models import MAKERS

Ids = NDArray[np.uint32]
Logits = NDArray[np.float32]

AFFINE = ("sym1-g8", "sym4-g32", "asym3-g7", "asym4-g32", "asym8-g64")
KV_TYPES = ("f32", "f16", "int8")
ACTS = ("f32", "int8")
SHORT = (45, 27, 14)
"""Tokens of three sequences: floats take another path with more than 24, codes with more than 1 to
16, by format and instruction set."""
LONG = (72, 40, 20)
"""Where state is kept: gated DeltaNet folds it after every 32."""
GROWING = (1, 2, 3, 4, 5, 6, 7, 8, 9, 27)


class Run:
    """A model's plan and weights for some numbers of threads, and three texts."""

    def __init__(
        self,
        model: fewbit.Model,
        lengths: Sequence[int],
        *,
        keep_file_size: bool = False,
        isa: str | None = None,
    ) -> None:
        weights = _core.Weights(keep_file_size)
        for name in model.plan.weights():
            shape, data = model.checkpoint.tensors[name].shape, model.data(name)
            matrices = shape[0] if len(shape) == 3 else 1
            weights.add(name, model.formats[name], len(data), shape[-1], data, matrices)
        plan = model.plan.to_json()
        self.executors = {n: _core.Executor(plan, weights, n, isa) for n in (1, 2, 3)}
        rng = np.random.default_rng(4)
        self.texts = [rng.integers(0, model.config.vocab, n).astype(np.uint32) for n in lengths]

    def check(self, kv: str, acts: str) -> None:
        """Each text comes out as it does alone, at once, on one thread."""
        lengths = [len(text) for text in self.texts]
        alone = []
        for text in self.texts:
            zeros = np.zeros_like(text)
            alone.append(feed(self.executors[1], [text], zeros, [len(text)], kv, acts))
        for sizes, threads in ((GROWING, 2), ((1,), 1)):
            order = np.zeros_like(self.texts[0])
            got = feed(self.executors[threads], self.texts[:1], order, sizes, kv, acts)
            same(got, alone[0], f"alone, pieces of {sizes}, {threads} threads")
        for order, sizes, threads in (*shuffled(lengths), beside_prompts(lengths)):
            rows = feed(self.executors[threads], self.texts, order, sizes, kv, acts)
            for sequence, expected in enumerate(alone):
                what = f"sequence {sequence} of three, steps of {sizes}, {threads} threads"
                same(rows[order == sequence], expected, what)


def feed(
    executor: _core.Executor,
    texts: Sequence[Ids],
    order: Ids,
    sizes: Sequence[int],
    kv: str,
    acts: str = "f32",
) -> Logits:
    """The logits of `texts` whose tokens come in `order`, the number of a text for each token.

    `sizes` are those of the steps, in turn.
    """
    ids = np.zeros_like(order)
    for sequence, text in enumerate(texts):
        ids[order == sequence] = text
    held, rows = executor.cache(len(texts), max(map(len, texts)), kv), []
    for tokens, sequences in zip(pieces(ids, sizes), pieces(order, sizes), strict=True):
        outputs = np.arange(len(tokens), dtype=np.uint32)
        rows.append(executor.forward(held, tokens, sequences, outputs, acts))
    return np.concatenate(rows)


def pieces(ids: Ids, sizes: Sequence[int]) -> Iterator[Ids]:
    start = 0
    for size in cycle(sizes):
        if start >= len(ids):
            return
        yield ids[start : start + size]
        start += size


def shuffled(lengths: Sequence[int]) -> Iterator[tuple[Ids, Sequence[int], int]]:
    """The tokens of all sequences mixed, in one step and in steps of a few and of many."""
    order = np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)
    order = np.random.default_rng(9).permutation(order)
    yield order, (len(order),), 3
    yield order, (3, 1, 40, 7), 2


def beside_prompts(lengths: Sequence[int]) -> tuple[Ids, Sequence[int], int]:
    """The last sequence decodes, token by token, while the others' prompts go through."""
    *others, last = (np.full(n, s, np.uint32) for s, n in enumerate(lengths))
    prompts = np.array_split(np.concatenate(others), len(last))
    steps = [np.append(prompt, token) for prompt, token in zip(prompts, last, strict=True)]
    return np.concatenate(steps).astype(np.uint32), [len(step) for step in steps], 1


def same(got: Logits, expected: Logits, what: str) -> None:
    """The same bits; of NaN there is one kind."""
    a, b = (np.where(np.isnan(x), np.float32(np.nan), x) for x in (got, expected))
    same_bits(a, b, what)


@cache
def source() -> fewbit.Model:
    return fewbit.load(MODELS / "llama", device="cpu")


@cache
def stored_as(name: str) -> fewbit.Model:
    """The golden llama with every matrix of its layers in a format, the tables in Q8_0."""
    checkpoint = source().checkpoint
    importance = fewbit.read_imatrix(MODELS / "llama" / "imatrix.gguf")
    formats = {
        tensor: name if tensor.startswith("blk.") else "Q8_0"
        for tensor, info in checkpoint.tensors.items()
        if len(info.shape) > 1
    }
    return fewbit.Model(checkpoint, formats, importance=importance)


@pytest.mark.parametrize("name", [*FORMATS, *AFFINE])
def test_formats(name: str) -> None:
    run = Run(stored_as(name), SHORT)
    for acts in ACTS:
        run.check("f32", acts)


@pytest.mark.parametrize("name", [f.name for f in FORMATS.values() if f.larger_than_file])
def test_formats_at_the_size_of_their_file(name: str) -> None:
    """Code books have a second layout, for models that need over half of the memory."""
    Run(stored_as(name), SHORT, keep_file_size=True).check("f32", "int8")


@pytest.mark.parametrize("isa", _core.isas()[1:])
@pytest.mark.parametrize("name", ["BF16", "Q4_0", "Q6_K", "IQ2_S"])
def test_instruction_sets(name: str, isa: str) -> None:
    """Those that this machine has besides the one that it takes."""
    run = Run(stored_as(name), SHORT, isa=isa)
    for acts in ACTS:
        run.check("int8", acts)


def check_architecture(folder: Path) -> None:
    model = fewbit.load(folder, device="cpu")
    if all(f in ("F32", "F16", "BF16") for f in model.formats.values()):
        model = model.quantize("Q5_1")
    run = Run(model, LONG)
    for kv in KV_TYPES:
        for acts in ACTS:
            run.check(kv, acts)


@pytest.mark.parametrize("name", NAMES)
def test_architectures(name: str) -> None:
    check_architecture(asset(name).parent)


@pytest.mark.parametrize("name", MAKERS)
def test_random_architectures(name: str, tmp_path: Path) -> None:
    check_architecture(MAKERS[name](tmp_path / name))


def bound(plan: list[dict[str, Any]], weights: dict[str, Weight]) -> _core.Executor:
    held = _core.Weights()
    for name, w in weights.items():
        data = np.frombuffer(w.data, np.uint8).reshape(w.rows, -1)
        held.add(name, w.format, w.rows, w.columns, data)
    return _core.Executor(json.dumps(plan), held, 1)


@pytest.mark.parametrize("window", [0, 2, 6])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("kv", KV_TYPES)
def test_a_value_that_overflows_reaches_no_other_token(
    kv: str, heads: int, kv_heads: int, window: int
) -> None:
    """In an f16 cache it is infinite: tokens before it and past the window stay finite."""
    size, count = 16, 24
    at = np.cumsum([0, heads * size, kv_heads * size, kv_heads * size]).tolist()
    table = values(5, count, at[3]) / 50
    table[13, at[2] :] = 1e6
    weights, plan = {"x": stored(table)}, [embed("x", table)]
    for i, name in enumerate("qkv"):
        width = at[i + 1] - at[i]
        weights[name] = stored(np.eye(width, at[3], at[i], dtype=np.float32))
        plan.append(op("linear", [0], [name], width))
    attributes = {"heads": heads, "kv_heads": kv_heads, "scale": 0.3, "window": window}
    plan.append(op("attend", [1, 2, 3], [], at[1], layer=0, **attributes))
    executor = bound(plan, weights)
    alone, together = (
        feed(executor, [np.arange(count, dtype=np.uint32)], np.zeros(count, np.uint32), sizes, kv)
        for sizes in ((1,), (count,))
    )
    touched = range(13, min(13 + window, count) if window else count)
    finite = np.isfinite(alone).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == (list(touched) if kv == "f16" else [])
    same(together, alone, f"{heads} heads, window {window}")
