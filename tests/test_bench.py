"""`fewbit.bench`: which cases run, how often, and how rates are computed; not how fast it is."""

from __future__ import annotations

import statistics

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.measure.speed import Case, Filled, bench
from fewbit.plan.sizes import sizes_of
from tests.bigram import Bigram


def test_a_prompt_goes_in_batches_and_generation_token_by_token() -> None:
    model = Bigram(context=2000)
    Filled(model, Case("pp", 1200), "int8").measure()
    assert model.calls == [(512, 1), (512, 1), (176, 1)]
    model.calls.clear()
    Filled(model, Case("tg", 5), "int8").measure()
    assert model.calls == [(1, 1)] * 5


def test_what_is_before_goes_in_once() -> None:
    model = Bigram(context=2000)
    filled = Filled(model, Case("tg", 2, depth=600), "int8")
    filled.measure()
    filled.measure()
    assert model.calls == [(512, 1), (88, 1), (1, 1), (1, 1), (1, 1), (1, 1)]
    assert len(filled.cache.tokens) == 602


def test_several_texts_at_once() -> None:
    model = fewbit.load(fewbit.DEMO)
    filled = Filled(model, Case("tg", 3, depth=5, sequences=4), "int8")
    assert filled.measure() > 0
    assert [filled.cache.length(sequence) for sequence in range(4)] == [8] * 4
    (rate,) = bench(model, prompt=0, generate=3, sequences=4, repetitions=1).rates
    assert rate.name == "tg3 x4"
    assert rate.bytes_per_token == sizes_of(model.plan, model.formats).bytes_per_token // 4


def test_names_are_those_of_llama_bench() -> None:
    names = [
        r.name for r in bench(Bigram(), prompt=8, generate=2, depths=(0, 16), repetitions=1).rates
    ]
    assert names == ["pp8", "tg2", "pp8 @ d16", "tg2 @ d16"]


def test_one_warm_up_comes_before_the_repetitions() -> None:
    model = Bigram()
    result = bench(model, prompt=20, generate=3, repetitions=2)
    assert model.calls == [(20, 1), (1, 1), (1, 1), (1, 1)] * 3
    assert [(rate.name, rate.tokens, len(rate.samples)) for rate in result.rates] == [
        ("pp20", 20, 2),
        ("tg3", 3, 2),
    ]
    assert len(result.read_rates) == 2
    assert result.read_rate > 0.1


def test_only_generation_reads_all_weights_per_token() -> None:
    model = Bigram()
    prompt, generation = bench(model, prompt=20, generate=3, repetitions=3).rates
    assert prompt.gb_per_second is None
    expected = (
        sizes_of(model.plan, model.formats).bytes_per_token
        * statistics.fmean(generation.samples)
        / 1e9
    )
    assert generation.gb_per_second == expected
    assert generation.deviation == statistics.stdev(generation.samples)


def test_one_of_the_two_can_be_left_out() -> None:
    assert [rate.name for rate in bench(Bigram(), prompt=0, generate=2, repetitions=1).rates] == [
        "tg2"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt": 65},
            "cannot measure pp65: the model's context is 64 tokens\n\nhint: use 0 to 64",
        ),
        (
            {"generate": -1},
            "cannot measure tg-1: the model's context is 64 tokens\n\nhint: use 0 to 64",
        ),
        (
            {"prompt": 0, "generate": 0},
            "nothing to measure\n\nhint: set `--prompt` or `--generate` above 0",
        ),
        (
            {"depths": (60,)},
            "cannot measure pp8 @ d60: the model's context is 64 tokens\n\nhint: use 0 to 64",
        ),
        ({"sequences": 0}, "cannot measure 0 sequences\n\nhint: use 1 or more"),
        ({"repetitions": 0}, "cannot measure 0 repetitions\n\nhint: use 1 or more"),
    ],
)
def test_refusals(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        bench(Bigram(), **{"prompt": 8, "generate": 8, **options})
    assert str(caught.value) == message
