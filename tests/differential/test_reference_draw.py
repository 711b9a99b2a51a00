"""Filters, draws and log-probabilities of the core against the oracle, bit by bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fewbit import _core
from fewbit.errors import InputError, ShapeError
from reference import draw as oracle
from tests.compare import same_bits

VOCAB = 300


def some_row(rng: np.random.Generator, vocab: int = VOCAB) -> np.ndarray[Any, Any]:
    """Logits of one of several shapes: peaked, flat, with ties, with impossible tokens."""
    kind = int(rng.integers(0, 5))
    row = rng.normal(0, [1, 3, 12, 0.01, 2][kind], vocab)
    if kind == 4:
        row = np.round(row)
    if rng.random() < 0.3:
        row[rng.random(vocab) < 0.5] = -np.inf
        row[int(rng.integers(0, vocab))] = 1.0
    return row.astype(np.float32)


def some_filters(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "temperature": float(rng.choice([0, 0.01, 0.7, 1, 1.5, 100])),
        "top_k": int(rng.choice([0, 0, 1, 5, 40, VOCAB, 1000])),
        "top_p": float(rng.choice([1, 1, 0.95, 0.5, 0.9999999, 1e-9])),
        "min_p": float(rng.choice([0, 0, 0.05, 0.5, 1])),
    }


@pytest.mark.parametrize("seed", range(20))
def test_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        row, filters, position = some_row(rng), some_filters(rng), int(rng.integers(0, 2**32))
        sampler = _core.Sampler(seed=seed, **filters)
        for place in range(4):
            random = oracle.random_bits(seed, place)
            expected = oracle.choose(row.astype(float).tolist(), **filters, random=random)
            ids, scores = _core.sample(row[np.newaxis], [sampler])
            assert (ids[0], scores) == (expected, None), (filters, position)
            sampler.accept([0])


def test_random_numbers_of_large_seeds_and_positions() -> None:
    for seed, position in [(0, 0), (2**64 - 1, 2**64 - 1), (2**63 + 5, 2**33 + 1)]:
        bits = oracle.random_bits(seed, position)
        assert _core.random_fraction(seed, position) == (bits >> 11) / 2**53


def test_a_row_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(3)
    rows = np.array([some_row(rng) for _ in range(40)])
    samplers = [
        _core.Sampler(seed=i, presence_penalty=0.5 * (i % 2), **some_filters(rng))
        for i in range(len(rows))
    ]
    for i, sampler in enumerate(samplers):
        sampler.accept(list(range(i)))
    together, _ = _core.sample(rows, samplers)
    alone = [_core.sample(rows[i : i + 1], samplers[i : i + 1])[0][0] for i in range(len(rows))]
    same_bits(together, np.array(alone, np.uint32))
    backwards, _ = _core.sample(rows[::-1].copy(), samplers[::-1])
    same_bits(backwards[::-1], together)


def test_masks() -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        row, filters = some_row(rng), some_filters(rng)
        allowed = rng.random(320) < rng.choice([0.02, 0.5, 1.0])
        allowed[:VOCAB] |= False
        mask = np.packbits(allowed, bitorder="little").view(np.uint32)
        sampler = _core.Sampler(seed=9, **filters)
        found = int(_core.sample(row[np.newaxis], [sampler], masks=[mask])[0][0])
        logits = oracle.allow(row.astype(float).tolist(), set(np.flatnonzero(allowed).tolist()))
        expected = oracle.choose(logits, **filters, random=oracle.random_bits(9, 0))
        assert found == (_core.NO_TOKEN if expected is None else expected)


def test_forced_tokens_are_taken_and_scored() -> None:
    rows = np.zeros((3, 4), np.float32)
    samplers = [_core.Sampler()] * 3
    ids, scores = _core.sample(rows, samplers, forced=[3, None, 1], top_n=0)
    assert ids.tolist() == [3, 0, 1]
    assert scores is not None
    assert scores[0].tolist() == [-math.log(4)] * 3


def test_scores_are_those_of_nll() -> None:
    rng = np.random.default_rng(5)
    rows = np.array([some_row(rng) for _ in range(50)])
    targets = rng.integers(0, VOCAB, len(rows)).astype(np.uint32)
    own, ids, top = _core.logprobs(rows, targets, 7)
    same_bits(own, 0 - _core.nll(rows, targets))
    for row, found, scores in zip(rows, ids, top, strict=True):
        best = sorted(range(VOCAB), key=lambda token, row=row: (-row[token], token))[:7]
        assert found.tolist() == best
        expected = _core.logprobs(np.repeat(row[np.newaxis], 7, 0), np.array(best, np.uint32))[0]
        same_bits(scores, expected)


def test_rows_without_a_softmax() -> None:
    rows = np.array([[np.nan, 0, 0], [0, 1, 0], [np.inf, 0, 0], [-np.inf] * 3], np.float32)
    ids, scores = _core.sample(rows, [_core.Sampler()] * 4, top_n=2)
    assert ids.tolist() == [_core.NO_TOKEN, 1, _core.NO_TOKEN, _core.NO_TOKEN]
    assert scores is not None
    assert np.isnan(scores[0]).tolist() == [True, False, True, True]
    assert np.isnan(scores[2]).all(1).tolist() == [True, False, True, True]
    assert scores[1][1].tolist() == [1, 0]


def test_wrong_arguments_are_named() -> None:
    row, one = np.zeros((1, 40), np.float32), [_core.Sampler()]
    with pytest.raises(ShapeError, match="expected 2 x 40 logits for 2 samplers, found 40"):
        _core.sample(row, one * 2)
    with pytest.raises(ShapeError, match="a mask has 1 words, expected 2"):
        _core.sample(row, one, masks=[np.zeros(1, np.uint32)])
    with pytest.raises(ShapeError, match="`forced` has 2 elements, expected one for each of 1"):
        _core.sample(row, one, forced=[None, None])
    with pytest.raises(InputError, match="token 40 is not in the vocabulary of 40"):
        _core.sample(row, one, forced=[40])
    with pytest.raises(InputError, match="logit bias of token 40, the vocabulary has 40 tokens"):
        _core.sample(row, [_core.Sampler(logit_bias=[(40, 1.0)])])
    with pytest.raises(InputError, match="`top_n` is 41, the vocabulary has 40 tokens"):
        _core.sample(row, one, top_n=41)
    with pytest.raises(InputError, match="token 40 is not in the vocabulary of 40"):
        _core.logprobs(row, np.array([40], np.uint32))
    with pytest.raises(InputError, match="an option of the sampler is out of its range"):
        _core.Sampler(temperature=-1.0)
