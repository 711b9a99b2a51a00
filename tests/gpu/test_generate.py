"""Tokens chosen on the card equal the tokens that the CPU chooses from the same logits."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit.api import Model
from fewbit.errors import FewbitError, InputError
from fewbit.run.gpu import decode
from fewbit.run.gpu.device import Adapter
from fewbit.run.sampler import choose, sampler_of
from fewbit.run.sampling import GREEDY, Sampling
from tests.compare import within_bound
from tests.golden.loading import MODELS, NOISE, asset

PROMPT = [5, 9, 23]
SAMPLINGS = [
    GREEDY,
    Sampling(1.0, seed=1),
    Sampling(1.5, top_k=256, top_p=1.0, min_p=0.0, seed=2),
    Sampling(0.7, top_k=5, top_p=0.6, min_p=0.0, seed=3),
    Sampling(2.0, top_k=200, top_p=1.0, min_p=0.2, seed=4),
    Sampling(3.0, top_k=1, seed=5),
]


@pytest.fixture(scope="module")
def model(adapter: Adapter) -> Model:
    return fewbit.load(MODELS / "qwen3", f"gpu:{adapter.index}")


def by_hand(model: Model, sampling: Sampling, count: int) -> list[int]:
    """One token after the other, each chosen on the CPU."""
    cache, tokens, found = model.cache(1, 64), PROMPT, list[int]()
    sampler = sampler_of(sampling, model.tokenizer, model.config.vocab)
    for _ in range(count):
        row = model.forward(cache, tokens, outputs=[len(tokens) - 1], acts="f32")[0]
        sampler.accept(tokens)
        tokens = [choose(row, sampler)]
        found += tokens
    return found


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_choices(model: Model, sampling: Sampling) -> None:
    expected = by_hand(model, sampling, 25)
    made = model.generate(PROMPT, max_tokens=25, sampling=sampling, acts="f32")
    list(made)
    stop = [i for i, token in enumerate(expected) if token in model.tokenizer.stop_ids]
    assert made.tokens == expected[: stop[0] if stop else 25]


def test_other_samplings_choose_on_the_cpu(model: Model) -> None:
    everything = Sampling(1.0, top_k=0, seed=6)
    assert not decode.can_choose(everything)
    assert not decode.can_choose(Sampling(0, repeat_penalty=1.1))
    assert not decode.can_choose(Sampling(1.0, top_k=9, logit_bias={1: 2.0}))
    made = model.generate(PROMPT, max_tokens=12, sampling=everything, acts="f32")
    list(made)
    assert made.tokens == by_hand(model, everything, 12)


def test_steps_that_ran_ahead_are_dropped(model: Model) -> None:
    """After some tokens, the cache continues like one that never ran ahead."""
    cache, other = model.cache(1, 40), model.cache(1, 40)
    model.forward(cache, PROMPT, acts="f32")
    stream = model.decode(cache, 7, GREEDY, 0, "f32", 30)
    tokens = [next(stream) for _ in range(4)]
    stream.close()
    assert cache.length() == len(PROMPT) + 4
    model.forward(other, [*PROMPT, 7, *tokens[:-1]], acts="f32")
    a, b = (model.forward(c, tokens[-1:], acts="f32") for c in (cache, other))
    assert int(a.argmax()) == int(b.argmax())
    again = model.decode(cache, tokens[-1], GREEDY, 0, "f32", 5)
    assert len(list(again)) == 5


def test_a_state_that_ran_ahead_into_the_next_chunk_goes_back(adapter: Adapter) -> None:
    """The card has updated the state at position 32 while the text is at position 30."""
    model = fewbit.load(asset("qwen3_next").parent, f"gpu:{adapter.index}")
    cache, other = model.cache(1, 64), model.cache(1, 64)
    prompt = [PROMPT[i % 3] for i in range(28)]
    model.forward(cache, prompt, acts="f32")
    stream = model.decode(cache, 7, GREEDY, 0, "f32", 30)
    tokens = [next(stream) for _ in range(2)]
    stream.close()
    assert cache.length() == 30
    rest = [tokens[-1], *PROMPT]
    expected = model.forward(other, [*prompt, 7, tokens[0], *rest], acts="f32")
    within_bound(model.forward(cache, rest, acts="f32"), expected[-len(rest) :], NOISE)


def test_streams_side_by_side(model: Model) -> None:
    """Each cache has its own step buffer, so two generations do not disturb each other."""
    expected = [by_hand(model, GREEDY, 12), by_hand(model, Sampling(1.0, seed=1), 12)]
    streams = []
    for sampling in (GREEDY, Sampling(1.0, seed=1)):
        cache = model.cache(1, 64)
        sampler = sampler_of(sampling, model.tokenizer, model.config.vocab, PROMPT)
        row = model.forward(cache, PROMPT, outputs=[len(PROMPT) - 1], acts="f32")[0]
        first = choose(row, sampler)
        streams.append((first, model.decode(cache, first, sampling, sampler.seed, "f32", 11)))
    found = [[first] for first, _ in streams]
    for pair in zip(*(stream for _, stream in streams), strict=True):
        for tokens, token in zip(found, pair, strict=True):
            tokens.append(token)
        model.logits(PROMPT)
    assert found == expected


def test_another_call_on_the_sequence_stops_the_generation(model: Model) -> None:
    cache = model.cache(1, 64)
    stream = model.decode(cache, 7, GREEDY, 0, "f32", 30)
    next(stream)
    model.forward(cache, PROMPT, acts="f32")
    with pytest.raises(InputError, match="changed while text was generated"):
        next(stream)


def test_a_full_context_ends_the_text(model: Model) -> None:
    session = fewbit.generation.text.Session(model, 12, "f32")
    made = model.generate(PROMPT, max_tokens=99, sampling=GREEDY, session=session)
    list(made)
    assert made.finish in ("context", "stop")
    assert len(session.ids) <= 12


def test_damaged_logits_are_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in a norm's weight reaches every logit."""
    cache = model.cache(1, 8)
    weight = model.weights["output_norm.weight"].vector  # type: ignore[index]
    queue = model.executor.device.queue  # type: ignore[attr-defined]
    before = np.frombuffer(queue.read_buffer(weight), np.float32).copy()
    queue.write_buffer(weight, 0, np.full_like(before, np.nan))
    try:
        with pytest.raises(FewbitError, match="cannot choose a token"):
            next(model.decode(cache, 7, GREEDY, 0, "f32", 5))
    finally:
        queue.write_buffer(weight, 0, before)
