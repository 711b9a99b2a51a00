"""Perplexity and KL divergence computed on a card, against the core and the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit import _core
from fewbit.errors import InputError, ShapeError
from fewbit.measure import evaluate
from fewbit.run.gpu.device import Adapter, Device
from fewbit.run.gpu.measure import Predictions, runs
from fewbit.run.predictions import OnHost
from reference import metrics
from tests.compare import same_bits, within_bound
from tests.gpu.running import DIVISION, U, values

ROWS = 9


def on_card(card: Device, rows: np.ndarray, capacity: int = ROWS) -> Predictions:
    """Predictions that hold these rows of logits."""
    found = Predictions(card, rows.shape[1], capacity)
    slot, encoder = card.upload(rows), card.encoder()
    found.append(encoder, slot, list(range(len(rows))))
    card.queue.submit([encoder.finish()])
    return found


def pairs(vocab: int, distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base rows, rows at about `distance` from them, and targets: five likely ones, four random."""
    rng = np.random.default_rng(vocab)
    base = values(1, ROWS, vocab) * 2
    base[3, 5] = base[3].max() + 30  # one token has almost all probability
    rows = base + np.float32(distance) * rng.normal(size=base.shape).astype(np.float32)
    targets = rng.integers(0, vocab, ROWS)
    targets[:5] = base[:5].argmax(axis=1)
    return base, rows, np.uint32(targets)


def softmax(rows):
    shifted = np.float64(rows) - rows.max(axis=1, keepdims=True).astype(np.float64)
    e = np.exp(shifted)
    return shifted, e, e.sum(axis=1, keepdims=True)


def exp_error(x):
    return 2 * (3 + 2 * np.minimum(np.abs(x), 87)) + np.abs(x)


def nll_bound(rows, targets):
    """Errors of the exponentials and their sum (a rounding per term, 12 between lanes), of the
    logarithm (12 roundings, or 2^-21 beside 3 units), and of the target's logit.
    """
    shifted, e, total = softmax(rows)
    rest = (e * (exp_error(shifted) + rows.shape[1] / 256 + 12)).sum(axis=1) / total[:, 0]
    own = np.abs(np.take_along_axis(shifted, np.int64(targets)[:, None], axis=1)[:, 0])
    logarithm = np.log(total[:, 0])
    return U * (rest + 12 * logarithm + 3 * own) + np.where(total[:, 0] > 2, 2.0**-21, 0)


def kld_bound(base, rows):
    """Errors of p (its exponential and the sum) and of t (its differences and the mean).

    An error of the mean shifts every t, which changes the sum little. The core's differences of f64
    logarithms are accurate to 2e-15.
    """
    a, e, total = softmax(base)
    b = softmax(rows)[0]
    p, d = e / total, a - b
    mean = (p * d).sum(axis=1, keepdims=True)
    t = d - mean
    lanes = base.shape[1] / 256 + 12
    fraction = (
        exp_error(a) + (e * (exp_error(a) + lanes)).sum(axis=1, keepdims=True) / total + DIVISION
    )
    off = 4 * (np.abs(a) + np.abs(b)) + np.abs(mean) + 2 * np.abs(t)
    off_mean = (p * (fraction + lanes) * np.abs(d)).sum(axis=1, keepdims=True)
    slope = np.abs(1 - np.exp(-t))
    terms = p * (np.exp(-t) - 1 + t)
    direct = np.abs(t) > 0.5
    large = np.where(direct, p * (np.exp(-t) * (exp_error(b + mean) + 20) + 1 + np.abs(t)), 0)
    summed = terms.sum(axis=1)
    first = (terms * (fraction + lanes + 12) + p * slope * off + 4 * large).sum(axis=1)
    second = U * (off_mean[:, 0] + (p * off).sum(axis=1)) ** 2
    mixed = off_mean[:, 0] * summed
    found = U * (first + second + mixed + 12 * np.log1p(summed)) + 2e-15
    return found + np.where(summed > 1, 2.0**-21, 0)


@pytest.mark.parametrize("vocab", [8, 360, 1001])
def test_nll(card: Device, vocab: int) -> None:
    base, _, targets = pairs(vocab, 0)
    found = on_card(card, base).nll(targets)
    expected = _core.nll(base, targets)
    bound = nll_bound(base, targets)
    within_bound(found, expected, bound)
    one = metrics.nll(base[0].tolist(), int(targets[0]))
    within_bound(found[0], one, bound[0])


@pytest.mark.parametrize("distance", [1e-4, 0.02, 0.4, 5])
@pytest.mark.parametrize("vocab", [8, 360, 1001])
def test_divergence(card: Device, vocab: int, distance: float) -> None:
    """From rows that differ in the fifth digit to unrelated rows."""
    base, rows, targets = pairs(vocab, distance)
    found = on_card(card, rows).divergence(on_card(card, base), targets)
    expected = _core.divergence(base, rows, targets)
    assert found.keys() == expected.keys()
    same_bits(found["same_top"], np.bool_(expected["same_top"]))
    bounds = nll_bound(base, targets), nll_bound(rows, targets)
    within_bound(found["nll_base"], expected["nll_base"], bounds[0])
    within_bound(found["nll"], expected["nll"], bounds[1])
    within_bound(found["dp"], expected["dp"], sum(bounds) + 4 * U)
    within_bound(found["kld"], expected["kld"], kld_bound(base, rows), f"{vocab} {distance}")
    oracle = metrics.kl_divergence(
        *(metrics.log_probabilities(x[0].tolist()) for x in (base, rows))
    )
    within_bound(found["kld"][0], oracle, kld_bound(base, rows)[0])


def test_a_small_divergence_is_not_noise(card: Device) -> None:
    """A mean of 5e-9 to within 1%; a difference of two f32 logarithms would have noise of 1e-7."""
    base, rows, targets = pairs(1001, 1e-4)
    expected = _core.divergence(base, rows, targets)["kld"]
    found = on_card(card, rows).divergence(on_card(card, base), targets)["kld"]
    assert 1e-10 < expected.mean() < 1e-8
    within_bound(found, expected, np.abs(expected) * 0.01 + 1e-12)


def test_rows_against_themselves_are_exactly_zero(card: Device) -> None:
    base, _, targets = pairs(360, 0)
    found = on_card(card, base).divergence(on_card(card, base), targets)
    assert not found["kld"].any()
    assert not found["dp"].any()
    assert found["same_top"].all()


def test_rows_that_are_not_finite_equal_the_cpu(card: Device) -> None:
    base, rows, targets = pairs(360, 0.1)
    rows[1, 7], rows[2, 8], rows[5], base[6, 0] = np.nan, np.inf, -np.inf, np.nan
    rows[7, int(targets[7])] = -np.inf
    found = on_card(card, rows).divergence(on_card(card, base), targets)
    expected = _core.divergence(base, rows, targets)
    for name in ("nll", "kld", "dp", "nll_base"):
        for row in (1, 2, 5, 6, 7):
            same_bits(found[name][row], expected[name][row], f"{name} of row {row}")
        assert np.isfinite(found[name][[0, 3, 4, 8]]).all()
    same_bits(found["same_top"], np.bool_(expected["same_top"]))
    same_bits(on_card(card, rows).nll(targets)[[1, 2, 5, 7]], expected["nll"][[1, 2, 5, 7]])


def test_rows_beyond_a_binding_are_split(adapter: Adapter) -> None:
    small = Device(adapter, max_binding=4 * 360 * 2 + 256)
    base, rows, targets = pairs(360, 0.1)
    p, q = (one_by_one(small, x) for x in (base, rows))
    assert [held.rows for held in p.row_buffers] == [2, 2, 2, 2, 1]
    same_bits(p.logits(), base)
    found = q.divergence(p, targets)
    within_bound(found["kld"], _core.divergence(base, rows, targets)["kld"], kld_bound(base, rows))


def one_by_one(card: Device, rows: np.ndarray) -> Predictions:
    """As `on_card`, one row at a time."""
    found = Predictions(card, rows.shape[1], ROWS)
    for row in rows:
        slot, encoder = card.upload(row), card.encoder()
        found.append(encoder, slot, [0])
        card.queue.submit([encoder.finish()])
    return found


def test_refusals(card: Device) -> None:
    base, rows, targets = pairs(8, 0.1)
    p, q = on_card(card, base), on_card(card, rows[:4])
    with pytest.raises(ShapeError, match="9 rows of logits but 4 targets"):
        p.nll(targets[:4])
    with pytest.raises(InputError, match="token 8 is not in the vocabulary of 8"):
        q.nll(np.uint32([0, 8, 1, 2]))
    with pytest.raises(ShapeError, match="4 rows of 8 logits cannot diverge from 9 of 8"):
        q.divergence(p, targets[:4])


def test_runs() -> None:
    assert runs([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 1), (7, 2)]


def test_a_base_on_the_cpu_is_compared_there(card: Device) -> None:
    base, rows, targets = pairs(360, 0.1)
    found = on_card(card, rows).divergence(OnHost(base), targets)
    same_bits(found["kld"], _core.divergence(base, rows, targets)["kld"])
    back = OnHost(rows).divergence(on_card(card, base), targets)
    same_bits(back["kld"], found["kld"])


@pytest.mark.parametrize("batch", [512, 12])
def test_texts(adapter: Adapter, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """The demo model and its Q4_0 version: the card gives the CPU's measures."""
    monkeypatch.setattr(evaluate, "BATCH", batch)
    text = fewbit.demo_text()[:400]
    found = {}
    for device in ("cpu", f"gpu:{adapter.index}"):
        model = fewbit.load(fewbit.DEMO, device)
        small = model.quantize("Q4_0")
        options = {"ctx": 24, "chunks": 2}
        ppl = model.perplexity(text, acts="f32", **options)
        kld = small.divergence(model, text, acts="f32", **options)
        found[device] = ppl, kld
    (ppl, kld), (ppl_gpu, kld_gpu) = found.values()
    within_bound(ppl_gpu.nll.value, ppl.nll.value, 1e-4)  # the models' NOISE in every logit
    within_bound(kld_gpu.kld.value, kld.kld.value, 1e-4)
    assert kld_gpu.kld.value > 100 * 1e-4
    assert kld_gpu.same_top == kld.same_top
