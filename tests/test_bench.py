"""`fewbit.bench`: which cases run, how often, and how rates are computed; not how fast it is."""

from __future__ import annotations

import statistics

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.measure.limits import Bounds, limit, products_of
from fewbit.measure.speed import Bench, Case, Filled, Rate, bench, bench_page
from fewbit.plan.sizes import sizes_of
from fewbit.tables import page_text
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


@pytest.mark.parametrize(
    ("memory", "arithmetic", "all_cores", "expected"),
    [
        (0.6, 0.1, None, "memory"),
        (0.1, 0.6, None, "arithmetic"),
        (0.49, 0.49, None, "overhead"),
        (0.49, None, None, "not memory"),
        (0.6, None, None, "memory"),
        (0.6, 0.1, Bounds(12.0, 500.0), "memory"),
        (0.6, 0.1, Bounds(13.0, 100.0), "threads"),
        (0.1, 0.6, Bounds(20.0, 120.0), "arithmetic"),
        (0.1, 0.6, Bounds(10.0, 130.0), "threads"),
        (2.0, 0.1, None, "cache"),
        (2.0, 0.6, None, "arithmetic"),
        (2.0, None, None, "cache"),
    ],
)
def test_the_limit_is_the_nearer_bound(
    memory: float, arithmetic: float | None, all_cores: Bounds | None, expected: str
) -> None:
    assert limit(memory, arithmetic, Bounds(10.0, 100.0), all_cores) == expected


def test_multiply_adds_are_counted_weight_by_weight() -> None:
    """The demo: 4 layers of q, k, v, output, gate, up and down, then the vocabulary once a step."""
    model = fewbit.load("demo")
    layer = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 768
    found = products_of(model.plan, model.formats)
    assert (found.body, found.head, found.int8) == (4 * layer, 4096 * 256, 0.0)
    small = model.quantize("Q4_0")
    assert products_of(small.plan, small.formats).int8 == 1.0


def test_fractions_of_the_bounds() -> None:
    model = fewbit.load("demo").quantize("Q8_0")
    result = bench(model, prompt=20, generate=3, repetitions=2)
    prompt, generation = result.rates
    products = products_of(model.plan, model.formats)
    assert len(result.peak_rates) == 2
    assert result.peak_rate
    assert prompt.of_peak == pytest.approx(
        (products.body + products.head / 20) * prompt.mean / 1e9 / result.peak_rate
    )
    read = sizes_of(model.plan, model.formats).bytes_per_token
    assert prompt.of_read_rate == pytest.approx(read / 20 * prompt.mean / 1e9 / result.read_rate)
    assert generation.of_peak == pytest.approx(
        (products.body + products.head) * generation.mean / 1e9 / result.peak_rate
    )
    assert bench(model, prompt=4, generate=0, repetitions=1, acts="f32").rates[0].of_peak is None


def result_of(model: str, format_: str, threads: int) -> Bench:
    rate = Rate("tg8", 8, (2.0, 4.0), 1_000_000, 0.6, None, "memory")
    return Bench((rate,), "int8", (10.0,), "m", "scalar", "0", model, format_, threads, (100.0,))


def test_columns_that_do_not_vary_are_left_out() -> None:
    def heads(*results: Bench) -> list[str]:
        return page_text(bench_page(results)).splitlines()[1].split()[:4]

    assert heads(result_of("a", "Q4_0", 0))[:2] == ["test", "limit"]
    assert heads(result_of("a", "Q4_0", 0), result_of("a", "Q8_0", 0))[:2] == ["format", "test"]
    assert heads(result_of("a", "Q4_0", 1), result_of("b", "Q8_0", 2)) == [
        "model", "format", "threads", "test",
    ]  # fmt: skip


def test_models_of_one_name_are_told_apart() -> None:
    text = page_text(
        bench_page([result_of("x/m.gguf", "Q4_0", 0), result_of("y/m.gguf", "Q4_0", 0)])
    )
    assert "x/m.gguf" in text
    assert "y/m.gguf" in text
    text = page_text(
        bench_page([result_of("x/a.gguf", "Q4_0", 0), result_of("x/b.gguf", "Q4_0", 0)])
    )
    assert "x/" not in text


def test_the_notes_say_the_bounds_and_the_limits() -> None:
    lines = page_text(
        bench_page([result_of("a", "Q4_0", 1), result_of("a", "Q4_0", 2)])
    ).splitlines()
    assert lines[-4:] == [
        "acts int8; m, scalar",
        "bounds with 1 thread: 10.0 GB/s read, 100 billion int8 multiply-adds/s",
        "bounds with 2 threads: 10.0 GB/s read, 100 billion int8 multiply-adds/s",
        "memory: half of the read rate or more",
    ]
