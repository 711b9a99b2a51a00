"""The state of a cache: however tokens reach it, a sequence's logits have the same bits.

In f32 and with quantized weights and int8 activations; 90 tokens go through more than two of the
spans that a recurrent state is folded in.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from tests.compare import same_bits
from tests.golden.loading import NAMES, asset

TOKENS, CAPACITY, SPAN = 90, 100, 32
RECURRENT = ["qwen3_next", "qwen3_5", "qwen3_5-hub"]
KINDS = [(None, "f32"), ("Q8_0", "int8"), ("Q4_0", "int8")]
EACH = pytest.mark.parametrize(("recipe", "acts"), KINDS, ids=["f32", "Q8_0", "Q4_0"])
ALL = pytest.mark.parametrize("name", NAMES)

Logits = NDArray[np.float32]


@cache
def model(name: str, recipe: str | None) -> fewbit.Model:
    found = fewbit.load(asset(name).parent)
    if recipe is None or "mxfp4" in name:  # which is quantized already
        return found
    return found.quantize(recipe)


def text(name: str, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, model(name, None).config.vocab, TOKENS)


class Fed:
    """A model's cache of some sequences, and all that comes out."""

    def __init__(self, name: str, recipe: str | None, acts: str, sequences: int = 1) -> None:
        self.model, self.acts = model(name, recipe), acts
        self.cache: Any = self.model.cache(sequences, CAPACITY)

    def feed(self, ids: NDArray[np.int64], sequence: int = 0) -> Logits:
        where = np.full(len(ids), sequence)
        return self.model.forward(self.cache, ids, sequences=where, acts=self.acts)


@cache
def whole(name: str, recipe: str | None, acts: str, seed: int = 0) -> Logits:
    """The logits of a text that is fed at once to an empty cache."""
    return Fed(name, recipe, acts).feed(text(name, seed))


@EACH
@ALL
@pytest.mark.parametrize("sizes", [[1], [7, 1, 32], [31, 33], [64, 3]], ids=str)
def test_chunks(name: str, recipe: str | None, acts: str, sizes: list[int]) -> None:
    ids, fed, found = text(name), Fed(name, recipe, acts), []
    start = 0
    while start < TOKENS:
        size = sizes[len(found) % len(sizes)]
        found.append(fed.feed(ids[start : start + size]))
        start += size
    same_bits(np.concatenate(found), whole(name, recipe, acts), name)


@EACH
@ALL
def test_sequences_side_by_side(name: str, recipe: str | None, acts: str) -> None:
    """Three texts, their tokens mixed: each comes out as it does alone."""
    fed, rng = Fed(name, recipe, acts, sequences=3), np.random.default_rng(9)
    texts = [text(name, seed) for seed in range(3)]
    order = rng.permutation(np.repeat(np.arange(3), TOKENS))
    place = np.array([np.sum(order[:i] == s) for i, s in enumerate(order)])
    ids = np.array([texts[s][p] for s, p in zip(order, place, strict=True)])
    found, start = [], 0
    for size in (1, 100, 3, 166):
        part = slice(start, start + size)
        rows = fed.model.forward(fed.cache, ids[part], sequences=order[part], acts=acts)
        found.append(rows)
        start += size
    logits = np.concatenate(found)
    for sequence in range(3):
        same_bits(logits[order == sequence], whole(name, recipe, acts, sequence), name)


@EACH
@ALL
def test_reset(name: str, recipe: str | None, acts: str) -> None:
    fed = Fed(name, recipe, acts)
    fed.feed(text(name, 1))
    fed.cache.reset()
    assert fed.cache.length() == 0
    same_bits(fed.feed(text(name)), whole(name, recipe, acts), name)


@EACH
@ALL
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 89, 90])
def test_truncate(name: str, recipe: str | None, acts: str, length: int) -> None:
    """What cannot be taken back is refused, and what is kept goes on as if nothing had followed."""
    ids, fed = text(name), Fed(name, recipe, acts)
    fed.feed(np.concatenate([ids[:length], text(name, 1)[length:]]))
    kept = fed.cache.reachable(0, length)
    if name not in RECURRENT:
        assert kept == length
    else:
        assert kept == (length if length >= 2 * SPAN else 0)  # 90 tokens: folded up to 64
    if kept != length:
        with pytest.raises(fewbit.FewbitError, match="can take back only the last 26"):
            fed.cache.truncate(0, length)
        assert fed.cache.length() == TOKENS
    fed.cache.truncate(0, kept)
    same_bits(fed.feed(ids[kept:]), whole(name, recipe, acts)[kept:], name)


@EACH
@ALL
def test_copy(name: str, recipe: str | None, acts: str) -> None:
    """Two ways on from one beginning."""
    fed, expected = Fed(name, recipe, acts, sequences=2), whole(name, recipe, acts)
    fed.feed(text(name, 1)[:40], sequence=1)  # what was there before is gone
    fed.feed(text(name)[:50])
    fed.cache.copy(0, 1)
    other = np.concatenate([text(name)[:50], text(name, 2)[50:]])
    alone = Fed(name, recipe, acts).feed(other)
    same_bits(fed.feed(other[50:], sequence=1), alone[50:], name)
    same_bits(fed.feed(text(name)[50:]), expected[50:], name)


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_moe", "gpt_oss"])
def test_more_than_goes_through_at_once(name: str) -> None:
    """Prompts are cut at 512 tokens inside; here a call ends elsewhere."""
    loaded = model(name, "Q8_0")
    ids = np.random.default_rng(3).integers(0, loaded.config.vocab, 600)
    found = []
    for sizes in ([600], [500, 100]):
        held, start, rows = loaded.cache(1, 600), 0, []
        for size in sizes:
            rows.append(loaded.forward(held, ids[start : start + size], acts="int8"))
            start += size
        found.append(np.concatenate(rows))
    same_bits(found[1], found[0], name)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_full_cache_takes_nothing_and_stays_as_it_was(name: str) -> None:
    fed = Fed(name, "Q8_0", "int8")
    fed.feed(text(name))
    with pytest.raises(fewbit.InputError, match="the cache is full"):
        fed.feed(text(name)[:40])
    assert fed.cache.length() == TOKENS
    again = Fed(name, "Q8_0", "int8")
    again.feed(text(name))
    same_bits(fed.feed(text(name)[:10]), again.feed(text(name)[:10]), name)
