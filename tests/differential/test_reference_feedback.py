"""Error feedback and coordinate descent against the oracle: the same codes, the same scales."""

import re

import numpy as np
import pytest

from fewbit import _core
from reference import point_feedback
from reference import two_sided as both
from reference.affine_search import fit_group
from reference.descent import descend
from reference.error_feedback import damped, errors_of, feed_back, objective
from reference.formats import decode_row
from reference.quantized_row import LEVELS, read_row
from tests.compare import same_bits, within_bound

SMALL = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4", "sym1-g16",
         "sym3-g20", "asym2-g32", "asym4-g48", "asym8-g200"]  # fmt: skip
SUPER = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]


def case(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights with a group of zeros, and the covariance of correlated inputs, one of them dead."""
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = (1, 256) if name in SUPER + POINTS else (2, 64)
    weights = rng.standard_normal((rows, columns)).astype(np.float32) * np.float32(0.1)
    weights[-1, 16:48] = 0
    x = rng.standard_normal((3 * columns, columns)) * np.exp(0.5 * rng.standard_normal(columns))
    x += rng.standard_normal((3 * columns, 4)) @ rng.standard_normal((4, columns))
    x[:, 5] = 0
    return weights, x.T @ x / len(x)


def encoded(weights: np.ndarray, name: str, covariance: np.ndarray) -> list[bytes]:
    """The rows that `improve` starts with."""
    importance = np.diag(covariance).astype(np.float32)
    if match := re.fullmatch(r"(a?sym)(\d)-g(\d+)", name):
        kind, bits, group = match[1], int(match[2]), int(match[3])
        return [
            b"".join(
                fit_group(x[i : i + group], w[i : i + group], kind, bits, group)
                for i in range(0, len(x), group)
            )
            for x, w in ((row, importance.tolist()) for row in weights.tolist())
        ]
    data = _core.encode(weights.view(np.uint8), "F32", weights.shape[1], name, importance)
    return [row.tobytes() for row in data]


def improved(name: str, sweeps: int, rounds: int, damping: float = 0.01) -> None:
    """The core's rows have the oracle's values, and its report their cost."""
    weights, covariance = case(name)
    h, columns = covariance.tolist(), weights.shape[1]
    got, report = _core.improve(
        weights, name, covariance, damping=damping, sweeps=sweeps, rounds=rounds
    )
    before = after = 0.0
    for w, start, data in zip(weights, encoded(weights, name, covariance), got, strict=True):
        row = read_row(start, name, columns)
        before += objective(errors_of(row, w.tolist()), h)
        feed_back(row, w.tolist(), h, damping)
        descend(row, w.tolist(), damped(h, 0.1 * damping), sweeps, rounds)
        after += objective(errors_of(row, w.tolist()), h)
        values = np.float32([row.value(j) for j in range(columns)])
        zero = np.float32(0)  # -0.0 and 0.0 are the same value
        same_bits(np.float32(decode_row(data.tobytes(), name, columns)) + zero, values + zero, name)
    # Sums of about 256 * 256 products of positive sign, in f64.
    within_bound(report["before"], before, 1e-10 * before)
    within_bound(report["after"], after, 1e-10 * before)
    assert report["kept"] == 0
    assert report["after"] < report["before"]


@pytest.mark.parametrize("name", [*SMALL, *SUPER])
def test_feedback(name: str) -> None:
    improved(name, 0, 0)


@pytest.mark.parametrize("name", SMALL)
def test_descent_on_codes(name: str) -> None:
    improved(name, 8, 0)


@pytest.mark.parametrize("name", [*SMALL, *SUPER])
def test_descent_on_scales(name: str) -> None:
    improved(name, 2, 2)


@pytest.mark.parametrize("name", ["sym1-g7", "sym2-g32", "sym4-g40", "asym1-g9", "asym3-g32"])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_affine_start(name: str, size: float) -> None:
    """With a diagonal H and no descent only a tie could change what the search found."""
    rng = np.random.default_rng([1, *name.encode()])
    weights = (rng.standard_normal((3, 80)) * size).astype(np.float32)
    weights[2, :40] = 0
    h = np.diag(np.append(rng.random(79), 0))
    got, _ = _core.improve(weights, name, h, sweeps=0, rounds=0)
    for data, start in zip(got, encoded(weights, name, h), strict=True):
        same_bits(data.tobytes(), start, name)


def test_damping_is_raised_until_there_is_a_factor() -> None:
    """Fewer tokens than columns leave the covariance singular."""
    weights, _ = case("Q4_0")
    x = np.random.default_rng(3).standard_normal((1, 64))
    covariance = x.T @ x
    covariance[0, 1] = covariance[1, 0] = 40.0
    _, report = _core.improve(weights, "Q4_0", covariance, damping=1e-3, sweeps=0, rounds=0)
    assert report["damping"] > 1e-3


POINTS = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


@pytest.mark.parametrize("sweeps", [0, 1])
@pytest.mark.parametrize("name", POINTS)
def test_points(name: str, sweeps: int) -> None:
    weights, covariance = case(name)
    h = covariance.tolist()
    got, report = _core.improve(weights, name, covariance, sweeps=sweeps)
    before = after = 0.0
    for w, start, data in zip(weights, encoded(weights, name, covariance), got, strict=True):
        values = point_feedback.improve(start, name, w.tolist(), h, 0.01, sweeps)
        zero = np.float32(0)
        found = np.float32(decode_row(data.tobytes(), name, 256))
        same_bits(found + zero, np.float32(values) + zero, name)
        before += objective((w - np.float64(decode_row(start, name, 256))).tolist(), h)
        after += objective((w - np.float64(found)).tolist(), h)
    within_bound(report["before"], before, 1e-10 * before)
    within_bound(report["after"], after, 1e-10 * before)
    assert report["kept"] == 0
    assert report["after"] < report["before"]


def test_every_format_with_codes_of_its_own_is_known() -> None:
    assert set(LEVELS) == set(SUPER) | {name for name in SMALL if "-" not in name}


def two_sided(name: str, sweeps: int, rounds: int) -> None:
    """As `improved`, with correlated outputs."""
    columns = 256 if name in SUPER else 64
    rows = 2 if name in SUPER else 5
    weights, covariance = case(name)
    rng = np.random.default_rng(9)
    weights = np.concatenate([weights, rng.standard_normal((rows, columns)).astype(np.float32)])
    y = rng.standard_normal((20, len(weights))) + 0.7 * rng.standard_normal((20, 1))
    y[:, 1] = 0
    outputs = y.T @ y / 20
    h, g = covariance.tolist(), outputs.tolist()
    got, report = _core.improve(
        weights, name, covariance, output_covariance=outputs, sweeps=sweeps, rounds=rounds
    )
    found = [read_row(data, name, columns) for data in encoded(weights, name, covariance)]
    before = both.objective(list(map(errors_of, found, weights.tolist())), h, g)
    both.feed_back(found, weights.tolist(), h, g)
    both.descend(found, weights.tolist(), damped(h, 0.01), damped(g, 0.01), sweeps, rounds)
    after = both.objective(list(map(errors_of, found, weights.tolist())), h, g)
    for row, data in zip(found, got, strict=True):
        values, zero = np.float32([row.value(j) for j in range(columns)]), np.float32(0)
        same_bits(np.float32(decode_row(data.tobytes(), name, columns)) + zero, values + zero, name)
    within_bound(report["before"], before, 1e-10 * before)
    within_bound(report["after"], after, 1e-10 * before)
    assert report["kept"] == 0
    assert report["after"] < report["before"]


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "asym4-g48", "Q4_K"])
def test_two_sided_feedback(name: str) -> None:
    two_sided(name, 0, 0)


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "MXFP4", "sym3-g20", "asym2-g32", "Q2_K", "Q3_K"])
def test_two_sided_descent(name: str) -> None:
    two_sided(name, 2, 1)
