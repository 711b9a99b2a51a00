"""Bias, penalties, DRY, filters and draws against the oracle, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.run import sampler as samplers
from fewbit.run.sampler import sampler_of
from fewbit.run.sampling import Sampling
from reference import sampling as oracle
from tests.compare import same_bits

VOCAB = 12
TOKENIZER = fewbit.load("demo", "cpu").tokenizer


def by_the_oracle(
    logits: list[float], history: list[int], s: Sampling, breakers: oracle.Breakers
) -> list[float]:
    """Bias, then penalties, then DRY."""
    row = oracle.biased(logits, s.logit_bias)
    recent = oracle.last(history, s.repeat_last_n)
    row = oracle.repeated(row, recent, s.repeat_penalty, s.presence_penalty, s.frequency_penalty)
    recent = oracle.last(history, s.dry_penalty_last_n)
    return oracle.dry(row, recent, breakers, s.dry_multiplier, s.dry_base, s.dry_allowed_length)


def drawn(rng: np.random.Generator) -> Sampling:
    """Options of every kind, some of them off."""
    return Sampling(
        repeat_penalty=float(rng.choice([1, 1.1, 0.5, 2])),
        repeat_last_n=int(rng.choice([-1, 0, 3, 64])),
        presence_penalty=float(rng.choice([0, 0.3, -0.2])),
        frequency_penalty=float(rng.choice([0, 0.7, -0.1])),
        dry_multiplier=float(rng.choice([0, 0.8])),
        dry_base=float(rng.choice([1, 1.75, 1e30])),
        dry_allowed_length=int(rng.choice([1, 2, 4])),
        dry_penalty_last_n=int(rng.choice([-1, 0, 9])),
        logit_bias={3: -np.inf, 5: 1.25} if rng.random() < 0.3 else {},
    )


@pytest.mark.parametrize("seed", range(300))
def test_changed_logits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    letters = int(rng.choice([1, 2, 3, VOCAB]))  # few letters repeat much
    history = rng.integers(0, letters, int(rng.choice([0, 1, 2, 10, 40]))).tolist()
    logits = rng.normal(0, 3, VOCAB).astype(np.float32)
    sampling = drawn(rng)
    breakers: dict[int, list[tuple[int, ...]]] = {}
    if rng.random() < 0.7:
        tails: list[tuple[int, ...]] = [(), (1,), (1, 2), (0,), (2,)]
        count = int(rng.integers(1, 4))
        breakers = {int(rng.integers(0, letters)): tails[:count], 0: tails[1 : 1 + count]}
    monkeypatch.setattr(samplers, "breakers_of", lambda tokenizer, texts: breakers)
    changed = sampler_of(sampling, TOKENIZER, VOCAB, history).changed(logits)
    same_bits(changed, by_the_oracle(logits.tolist(), history, sampling, breakers))


def test_breakers_of_a_vocabulary() -> None:
    texts = ("\n", ":", '"', "*", ".\n", "the end" * 9)
    count = TOKENIZER.backend.get_vocab_size()
    words = [TOKENIZER.decode([id_], skip_special=False) for id_ in range(count)]
    expected = oracle.breakers_of(words, texts, lambda text: TOKENIZER.encode(text, special=False))
    found = samplers.breakers_of(TOKENIZER, texts)
    assert {id_: [list(tail) for tail in tails] for id_, tails in sorted(found.items())} == expected
    assert any(tails != [()] for tails in found.values()), "some breakers take several tokens"


def test_a_bias_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="logit bias of token 12, the vocabulary has 12 tokens"):
        sampler_of(Sampling(logit_bias={12: 1.0}), TOKENIZER, VOCAB)
