"""Windows as llama.cpp cuts them, statistics as it prints them, checked on a bigram model."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from fewbit import evaluate, measures
from fewbit.errors import InputError
from fewbit.evaluate import Variant
from tests.bigram import ALPHABET, BOS, Bigram

TEXT = "".join(np.random.default_rng(5).choice(list(ALPHABET[:14]), 205))


def log_softmax(row: np.ndarray) -> list[float]:
    total = math.fsum(math.exp(float(x)) for x in row)
    return [float(x) - math.log(total) for x in row]


def scored_pairs(text: str, ctx: int) -> list[tuple[int, int]]:
    """(token before, token scored) as the definition has them, one by one."""
    ids = [ALPHABET.index(c) for c in text]
    pairs = []
    for start in range(0, len(ids) - ctx + 1, ctx):
        for position in range(ctx // 2, ctx - 1):
            pairs.append((ids[start + position], ids[start + position + 1]))
    return pairs


@pytest.mark.parametrize("ctx", [4, 10, 17, 64, 102])
def test_perplexity_is_the_definition(ctx: int) -> None:
    model = Bigram(context=128)
    found = evaluate.perplexity(model, TEXT, ctx=ctx, acts="f32")
    nll = [-log_softmax(model.table[a])[b] for a, b in scored_pairs(TEXT, ctx)]
    assert found.span.tokens == len(nll)
    assert found.span.chunks == len(TEXT) // ctx
    assert found.ppl.value == pytest.approx(math.exp(statistics.fmean(nll)), rel=1e-6)
    error = statistics.pstdev(nll) / math.sqrt(len(nll) - 1)
    assert found.nll.error == pytest.approx(error, rel=1e-5)
    assert found.ppl.error == pytest.approx(error * found.ppl.value, rel=1e-5)


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
    plain = evaluate.windows(Bigram(), TEXT, 20)
    assert (plain.inputs == plain.targets).all()


def test_chunks_limits_the_windows() -> None:
    assert evaluate.perplexity(Bigram(), TEXT, ctx=20, chunks=3).span.chunks == 3
    assert evaluate.perplexity(Bigram(), TEXT, ctx=20, chunks=99).span.chunks == 10


def test_divergence_is_the_definition() -> None:
    base, model = Bigram(1), Bigram(2)
    found = evaluate.divergence(model, base, TEXT, ctx=20, acts="f32")
    p, q, kld, dp, top = [], [], [], [], []
    for before, token in scored_pairs(TEXT, 20):
        ln_p, ln_q = log_softmax(base.table[before]), log_softmax(model.table[before])
        p.append(-ln_p[token])
        q.append(-ln_q[token])
        kld.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(ln_p, ln_q, strict=True)))
        dp.append(math.exp(ln_q[token]) - math.exp(ln_p[token]))
        top.append(int(np.argmax(ln_p) == np.argmax(ln_q)))
    n = len(p)
    assert found.ppl_base.value == pytest.approx(math.exp(statistics.fmean(p)), rel=1e-6)
    assert found.ppl.value == pytest.approx(math.exp(statistics.fmean(q)), rel=1e-6)
    assert found.kld.value == pytest.approx(statistics.fmean(kld), rel=1e-5)
    assert found.kld.error == pytest.approx(statistics.pstdev(kld) / math.sqrt(n - 1), rel=1e-5)
    assert found.dp.value == pytest.approx(statistics.fmean(dp), abs=1e-7)
    assert found.same_top.value == pytest.approx(statistics.fmean(top))
    share = statistics.fmean(top)
    assert found.same_top.error == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)))
    ratios = [b - a for a, b in zip(p, q, strict=True)]
    assert found.ln_ratio.value == pytest.approx(statistics.fmean(ratios), abs=1e-6)
    # the error of a paired difference, from variances and covariance as llama.cpp has it
    assert found.ln_ratio.error == pytest.approx(
        statistics.pstdev(ratios) / math.sqrt(n - 1), rel=1e-4
    )
    assert found.ratio.value == pytest.approx(found.ppl.value / found.ppl_base.value)
    assert found.difference.value == pytest.approx(found.ppl.value - found.ppl_base.value)
    assert found.correlation == pytest.approx(statistics.correlation(p, q), rel=1e-5)
    squares = [d * d for d in dp]
    assert found.rms_dp.value == pytest.approx(math.sqrt(statistics.fmean(squares)), rel=1e-5)
    error = statistics.pstdev(squares) / math.sqrt(n - 1)
    assert found.rms_dp.error == pytest.approx(0.5 / found.rms_dp.value * error, rel=1e-4)
    ordered = sorted(kld)
    position = 0.9 * (n - 1)
    low = int(position)
    expected = ordered[low] + (position - low) * (ordered[low + 1] - ordered[low])
    assert found.kld_percentiles[90.0] == pytest.approx(expected, rel=1e-5)
    assert found.kld_percentiles[100.0] == pytest.approx(ordered[-1], rel=1e-5)
    assert found.kld_percentiles[0.0] == pytest.approx(ordered[0], rel=1e-4)


def test_a_model_does_not_diverge_from_itself() -> None:
    found = evaluate.divergence(Bigram(), Bigram(), TEXT, ctx=20, acts="f32")
    assert found.kld.value == pytest.approx(0, abs=1e-15)
    assert (found.dp.value, found.rms_dp.value, found.same_top.value) == (0, 0, 1)
    assert (found.ln_ratio.value, found.ln_ratio.error) == (0, pytest.approx(0, abs=1e-9))
    assert found.correlation == pytest.approx(1)


def test_many_variants_run_beside_one_base() -> None:
    base, other = Bigram(1), Bigram(2)
    variants = [Variant(base, "f32"), Variant(base, "int8"), Variant(other, "int8")]
    found = evaluate.divergences(variants, Variant(base, "f32"), TEXT, 20)
    assert len(base.calls) == 2 * 10, "the base is not run again for itself"
    assert found[0].kld.value == pytest.approx(0, abs=1e-15)
    for result, (model, acts) in zip(found[1:], [(base, "int8"), (other, "int8")], strict=True):
        alone = evaluate.divergence(model, base, TEXT, ctx=20, acts=acts)
        assert (result.kld, result.acts) == (alone.kld, acts)


def test_logits_without_a_softmax_are_counted_and_not_hidden() -> None:
    model = Bigram()
    model.table[3, 5] = np.nan
    found = evaluate.perplexity(model, TEXT, ctx=20, acts="f32")
    bad = sum(before == 3 for before, _ in scored_pairs(TEXT, 20))
    assert bad > 0
    assert found.span.nonfinite == bad
    assert math.isnan(found.ppl.value)
    against = evaluate.divergence(model, Bigram(), TEXT, ctx=20, acts="f32")
    assert against.span.nonfinite == bad
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
            "hint: use a longer text or a smaller window (`--ctx`)",
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


def test_vocabularies_must_agree() -> None:
    other = Bigram()
    other.config = Bigram().config.__class__(**{**vars(other.config), "vocab": 99})
    with pytest.raises(InputError, match="the models have 99 and 15 tokens"):
        evaluate.divergence(other, Bigram(), TEXT, ctx=20)


def test_the_error_of_few_values() -> None:
    assert measures.mean(np.array([2.0])) == measures.Estimate(2.0, 0.0)
    assert measures.mean(np.array([1.0, 3.0])) == measures.Estimate(2.0, 1.0)
