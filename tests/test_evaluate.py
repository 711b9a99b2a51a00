"""Windows as llama.cpp cuts them, statistics as it prints them, checked on a bigram model."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from fewbit.errors import InputError
from fewbit.measure import evaluate
from fewbit.measure import statistics as measures
from fewbit.measure.evaluate import Variant
from fewbit.measure.results import Estimate
from reference import clusters, metrics
from reference.windows import strided
from tests.bigram import ALPHABET, BOS, Bigram
from tests.compare import within_bound

# Sums of a few hundred doubles, some of them differences of squares.
ROUNDING = 1e-10

TEXT = "".join(np.random.default_rng(5).choice(list(ALPHABET[:14]), 205))


def scored_pairs(text: str, ctx: int) -> list[tuple[int, int]]:
    """(token before, token scored) as the definition has them, one by one."""
    ids = [ALPHABET.index(c) for c in text]
    pairs = []
    for start in range(0, len(ids) - ctx + 1, ctx):
        for position in range(ctx // 2, ctx - 1):
            pairs.append((ids[start + position], ids[start + position + 1]))
    return pairs


def by_window(values: list[float], size: int) -> list[list[float]]:
    """The values of windows that score `size` tokens each."""
    return [values[at : at + size] for at in range(0, len(values), size)]


def estimate(found: Estimate) -> tuple[float, float]:
    return found.value, found.error


@pytest.mark.parametrize("ctx", [4, 10, 17, 64, 102])
def test_perplexity_is_the_oracle_s(ctx: int) -> None:
    model = Bigram(context=128)
    found = evaluate.perplexity(model, TEXT, ctx=ctx, acts="f32")
    nll = [metrics.nll(model.table[a].tolist(), b) for a, b in scored_pairs(TEXT, ctx)]
    assert found.sample.tokens == len(nll)
    assert found.sample.chunks == len(TEXT) // ctx
    expected = clusters.perplexity(by_window(nll, ctx - 1 - ctx // 2))
    within_bound(estimate(found.ppl), expected, ROUNDING * found.ppl.value)


def test_only_scored_rows_are_computed() -> None:
    model = Bigram(context=2048)
    evaluate.perplexity(model, TEXT, ctx=20)
    assert set(model.calls) == {(19, 9)}
    model.calls.clear()
    evaluate.perplexity(model, TEXT * 20, ctx=2000, acts="f32")
    assert model.calls[:4] == [(512, 0), (512, 24), (512, 512), (463, 463)]


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate.perplexity(Bigram(context=128), TEXT, ctx=100)
    monkeypatch.setattr(evaluate, "BATCH", 7)
    assert evaluate.perplexity(Bigram(context=128), TEXT, ctx=100).nll == whole.nll


def test_one_final_newline_is_dropped() -> None:
    model = Bigram()
    assert evaluate.windows(model, TEXT[:40] + "\n", 20).targets.shape == (2, 20)
    assert evaluate.windows(model, TEXT[:59] + "\n\n", 20).targets.shape == (3, 20)
    assert evaluate.windows(model, TEXT[:59] + "\n", 20).targets.shape == (2, 20)


def test_bos_replaces_the_first_token_of_each_window() -> None:
    parts = evaluate.windows(Bigram(adds_bos=True), TEXT, 20)
    assert parts.targets[0, 0] == BOS, "the tokenizer's own"
    assert parts.targets[1, 0] == ALPHABET.index(TEXT[19])
    assert (parts.inputs[:, 0] == BOS).all()
    assert (parts.inputs[:, 1:] == parts.targets[:, 1:]).all()
    model = Bigram()
    model.tokenizer.bos = BOS  # has one, but does not add it
    plain = evaluate.windows(model, TEXT, 20)
    assert (plain.inputs == plain.targets).all()


def test_chunks_limits_the_windows() -> None:
    assert evaluate.perplexity(Bigram(), TEXT, ctx=20, chunks=3).sample.chunks == 3
    assert evaluate.perplexity(Bigram(), TEXT, ctx=20, chunks=99).sample.chunks == 10


def oracle(base: Bigram, model: Bigram, ctx: int) -> dict[str, list[float]]:
    """One value per scored token, by the oracle."""
    found: dict[str, list[float]] = {name: [] for name in ("nll_base", "nll", "kld", "dp", "top")}
    for before, token in scored_pairs(TEXT, ctx):
        p, q = (metrics.log_probabilities(m.table[before].tolist()) for m in (base, model))
        found["nll_base"].append(-p[token])
        found["nll"].append(-q[token])
        found["kld"].append(metrics.kl_divergence(p, q))
        found["dp"].append(metrics.probability_change(p, q, token))
        found["top"].append(metrics.same_top(p, q))
    return found


def test_divergence_is_the_oracle_s() -> None:
    base, model = Bigram(1), Bigram(2)
    found = evaluate.divergence(model, base, TEXT, ctx=20, acts="f32")
    values = oracle(base, model, 20)
    parts = {name: by_window(found, 9) for name, found in values.items()}
    nll, nll_base, kld, dp = (parts[name] for name in ("nll", "nll_base", "kld", "dp"))
    scale = ROUNDING * found.ppl.value
    expected = {
        "ppl": clusters.perplexity(nll),
        "ppl_base": clusters.perplexity(nll_base),
        "ln_ratio": clusters.log_ratio(nll, nll_base),
        "difference": clusters.difference(nll, nll_base),
        "kld": clusters.mean_and_error(kld),
        "dp": clusters.mean_and_error(dp),
        "rms_dp": clusters.rms_and_error(dp),
        "same_top": clusters.mean_and_error(parts["top"]),
    }
    for name, value in expected.items():
        within_bound(estimate(getattr(found, name)), value, scale, name)
    correlation = metrics.correlation(values["nll"], values["nll_base"])
    within_bound(found.correlation, correlation, scale)
    for percentiles, source in (
        (found.kld_percentiles, values["kld"]),
        (found.dp_percentiles, values["dp"]),
    ):
        for percent, value in percentiles.items():
            within_bound(value, metrics.percentile(source, percent / 100), scale, f"{percent} %")


def test_a_model_does_not_diverge_from_itself() -> None:
    found = evaluate.divergence(Bigram(), Bigram(), TEXT, ctx=20, acts="f32")
    assert (found.kld, found.dp, found.rms_dp) == (Estimate(0, 0), Estimate(0, 0), Estimate(0, 0))
    assert found.same_top == Estimate(1, 0)
    within_bound(estimate(found.ln_ratio), (0, 0), 1e-8, "the root of a rounding error")
    within_bound(found.correlation, 1, ROUNDING)


def test_many_variants_run_beside_one_base() -> None:
    base, other = Bigram(1), Bigram(2)
    variants = [Variant(base, "f32"), Variant(base, "int8"), Variant(other, "int8")]
    found = evaluate.divergences(variants, Variant(base, "f32"), TEXT, 20)
    assert len(base.calls) == 2 * 10, "the base is not run again for itself"
    assert found[0].kld == Estimate(0, 0)
    for result, (model, acts) in zip(found[1:], [(base, "int8"), (other, "int8")], strict=True):
        alone = evaluate.divergence(model, base, TEXT, ctx=20, acts=acts)
        assert (result.kld, result.acts) == (alone.kld, acts)


def test_logits_without_a_softmax_are_counted_and_not_hidden() -> None:
    model = Bigram()
    model.table[3, 5] = np.nan
    found = evaluate.perplexity(model, TEXT, ctx=20, acts="f32")
    bad = sum(before == 3 for before, _ in scored_pairs(TEXT, 20))
    assert bad > 0
    assert found.sample.nonfinite == bad
    assert math.isnan(found.ppl.value)
    against = evaluate.divergence(model, Bigram(), TEXT, ctx=20, acts="f32")
    assert against.sample.nonfinite == bad
    assert math.isnan(against.kld.value)


def test_progress_counts_windows() -> None:
    seen: list[tuple[int, int]] = []
    evaluate.perplexity(
        Bigram(), TEXT, ctx=50, progress=lambda done, total, text: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ctx": 128},
            "the text has 205 tokens, windows of 128 need at least 256\n\n"
            "hint: use a longer text or a smaller window (`--ctx`), or `--stride` (`stride=`), "
            "which scores every token of any text",
        ),
        ({"ctx": 3}, "a window of 3 tokens is too short\n\nhint: use 4 or more"),
        ({"chunks": 0}, "cannot measure 0 chunks\n\nhint: use 1 or more"),
        ({"acts": "int4"}, "unknown activations `int4`\n\nhint: known: f32, int8"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate.perplexity(Bigram(), TEXT, **{"ctx": 20, **options})
    assert str(caught.value) == message


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("ctx", "stride"), [(4, 1), (4, 3), (16, 8), (204, 7), (512, 256)])
def test_strided_windows_are_the_oracle_s(ctx: int, stride: int, bos: bool) -> None:
    model = Bigram(context=128, adds_bos=bos)
    found = evaluate.perplexity(model, TEXT, ctx=ctx, acts="f32", stride=stride)
    ids, nll, processed = [ALPHABET.index(c) for c in TEXT], [], 0
    windows = strided(len(ids), ctx, stride, bos)
    parts: list[list[float]] = []
    for start, stop, first in windows:
        window = [*([BOS] if bos else []), *ids[start:stop]]
        behind = [*window, None][: -1 - (stop - first)][-1:] + ids[first : stop - 1]
        parts.append(
            [
                metrics.nll(model.table[a].tolist(), b)
                for a, b in zip(behind, ids[first:stop], strict=True)
            ]
        )
        nll += parts[-1]
        processed += len(window) - 1
    assert len(nll) == len(ids) - 1 + bos, "every token counts once"
    assert found.sample.tokens == len(nll)
    assert (found.sample.chunks, found.sample.processed) == (len(windows), processed)
    value, error = clusters.perplexity(parts)
    within_bound(found.ppl.value, value, ROUNDING * value)
    if len(windows) > 1:
        within_bound(found.ppl.error, error, ROUNDING * value)
    else:
        assert math.isnan(found.ppl.error)


def test_a_short_text_is_scored_as_a_whole() -> None:
    model = Bigram()
    found = evaluate.perplexity(model, "ab", stride=256, acts="f32")
    a, b = ALPHABET.index("a"), ALPHABET.index("b")
    assert found.nll.value == metrics.nll(model.table[a].tolist(), b)
    assert "1 window of up to 512 tokens, stride 256, 1 token scored" in str(found)
    assert evaluate.perplexity(Bigram(adds_bos=True), "a", stride=1).sample.tokens == 1
    with pytest.raises(InputError, match="the text has 1 tokens, too few to score one"):
        evaluate.perplexity(Bigram(), "a", stride=256)


def test_chunks_limit_strided_windows() -> None:
    found = evaluate.perplexity(Bigram(context=128), TEXT, ctx=20, stride=10, chunks=3)
    assert (found.sample.chunks, found.sample.tokens) == (3, 19 + 10 + 10)


@pytest.mark.parametrize("stride", [0, -1, 20])
def test_strides_out_of_range_are_refused(stride: int) -> None:
    with pytest.raises(InputError, match=f"a stride of {stride} tokens, expected 1 to 19"):
        evaluate.perplexity(Bigram(), TEXT, ctx=20, stride=stride)


def test_vocabularies_must_agree() -> None:
    other = Bigram()
    other.config = dataclasses.replace(other.config, vocab=99)
    with pytest.raises(InputError, match="the models have 99 and 15 tokens"):
        evaluate.divergence(other, Bigram(), TEXT, ctx=20)


def test_the_error_of_few_values() -> None:
    assert measures.mean(np.array([1.0, 3.0] * 5)) == Estimate(2.0, 0.0)
    assert measures.mean(np.array([1.0, 3.0]), fewest=2) == Estimate(2.0, 1.0)
