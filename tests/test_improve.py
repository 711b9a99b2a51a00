"""Properties of error feedback and coordinate descent, and what they refuse."""

import itertools

import numpy as np
import pytest

from fewbit import _core
from fewbit.errors import FormatError, InputError, ShapeError
from tests.compare import same_bits, within_bound

NAMES = ["Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4",
         "NVFP4", "sym3-g32", "asym4-g64"]  # fmt: skip
POINTS = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
ROWS, COLUMNS = 50, 512


def covariance_of(columns: int, seed: int = 1) -> np.ndarray:
    """The covariance of correlated inputs of unequal size."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * columns, columns)) * np.exp(0.7 * rng.standard_normal(columns))
    x += rng.standard_normal((2 * columns, 8)) @ rng.standard_normal((8, columns))
    return x.T @ x / len(x)


def weights_of(rows: int, columns: int, seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.05 * rng.standard_normal((rows, columns))).astype(np.float32)


def cost(weights: np.ndarray, data: np.ndarray, name: str, h: np.ndarray) -> np.ndarray:
    """e H e^T of each row."""
    e = weights.astype(np.float64) - _core.decode(data, name, weights.shape[1])
    return np.einsum("ri,ij,rj->r", e, h, e)


@pytest.mark.parametrize("name", [*NAMES, *POINTS])
def test_each_step_lowers_the_objective(name: str) -> None:
    """Feedback, descent on codes, on scales: none raises what the one before it reached."""
    weights, h = weights_of(ROWS, COLUMNS), covariance_of(COLUMNS)
    start = _core.encode(
        weights.view(np.uint8), "F32", COLUMNS, name, np.diag(h).astype(np.float32)
    )
    known = cost(weights, start, name, h)
    for sweeps, rounds in [(0, 0), (1, 0), (8, 0), (8, 1), (8, 2)]:
        data, report = _core.improve(weights, name, h, sweeps=sweeps, rounds=rounds, damping=1e-4)
        found = cost(weights, data, name, h)
        # Damping is another metric by 1e-5 of the mean diagonal; e e^T is that small a part.
        assert (found <= known * (1 + 1e-3)).all()
        assert found.sum() < known.sum() or sweeps == 8
        within_bound(report["after"], found.sum(), 1e-9 * found.sum())
        known = found


@pytest.mark.parametrize("name", [*NAMES, *POINTS])
def test_bytes_do_not_depend_on_threads(name: str) -> None:
    weights, h = weights_of(ROWS, COLUMNS), covariance_of(COLUMNS)
    one, report = _core.improve(weights, name, h, threads=1)
    for threads in (2, 3):
        more, other = _core.improve(weights, name, h, threads=threads)
        same_bits(more, one, name)
        assert other == report


def outputs_of(rows: int, seed: int = 4) -> np.ndarray:
    """The covariance of correlated gradients."""
    return covariance_of(rows, seed) * 1e-3


@pytest.mark.parametrize("name", ["Q4_0", "Q3_K", "Q4_K", "MXFP4", "asym4-g64"])
def test_two_sided_bytes_do_not_depend_on_threads(name: str) -> None:
    weights, h, g = weights_of(150, COLUMNS), covariance_of(COLUMNS), outputs_of(150)
    one, report = _core.improve(weights, name, h, output_covariance=g, threads=1)
    for threads in (2, 3):
        more, other = _core.improve(weights, name, h, output_covariance=g, threads=threads)
        same_bits(more, one, name)
        assert other == report


@pytest.mark.parametrize("name", ["Q8_0", "Q3_K", "IQ4_NL", "asym4-g64"])
def test_outputs_without_correlation_are_fed_back_alone(name: str) -> None:
    """With a diagonal G the rows have nothing to do with each other."""
    weights, h = weights_of(ROWS, COLUMNS), covariance_of(COLUMNS)
    rows, _ = _core.improve(weights, name, h, sweeps=0, rounds=0)
    g = np.diag(np.random.default_rng(6).random(ROWS) + 0.5)
    both, report = _core.improve(weights, name, h, output_covariance=g, sweeps=0, rounds=0)
    same_bits(both, rows, name)
    e = weights.astype(np.float64) - _core.decode(both, name, COLUMNS)
    after = np.trace(g @ e @ h @ e.T)
    within_bound(report["after"], after, 1e-9 * after)


def test_two_sides_are_better_than_one() -> None:
    """In the metric of both, and as the two factors predict."""
    weights, h, g = weights_of(150, COLUMNS), covariance_of(COLUMNS), outputs_of(150)
    one, report = _core.improve(weights, "Q4_K", h)
    e = weights.astype(np.float64) - _core.decode(one, "Q4_K", COLUMNS)
    _, other = _core.improve(weights, "Q4_K", h, output_covariance=g, sweeps=3, rounds=2)
    assert other["after"] < 0.5 * np.trace(g @ e @ h @ e.T)
    assert other["predicted"] < report["predicted"]
    assert other["after"] < 1.5 * other["predicted"] * other["before"]


def test_blocks_of_rows_are_improved_alone() -> None:
    """Blocks of G, as an array of blocks, give what each half of the rows gives by itself."""
    weights, h, g = weights_of(40, 256), covariance_of(256), outputs_of(40)
    blocks = np.stack([g[:20, :20], g[20:, 20:]])
    found, report = _core.improve(weights, "Q4_K", h, output_covariance=blocks)
    halves = [
        _core.improve(weights[s], "Q4_K", h, output_covariance=block)
        for s, block in zip((slice(0, 20), slice(20, 40)), blocks, strict=True)
    ]
    same_bits(found, np.concatenate([data for data, _ in halves]))
    within_bound(report["after"], sum(r["after"] for _, r in halves), 1e-9 * report["after"])


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0", "Q3_K", "IQ4_NL"])
def test_inputs_without_correlation_round_each_weight_alone(name: str) -> None:
    """A diagonal H leaves nothing to feed back: each value is the one nearest to its weight."""
    weights = weights_of(5, COLUMNS)
    h = np.diag(np.random.default_rng(5).random(COLUMNS) + 0.1)
    start = _core.encode(
        weights.view(np.uint8), "F32", COLUMNS, name, np.diag(h).astype(np.float32)
    )
    data, _ = _core.improve(weights, name, h, sweeps=0, rounds=0)
    kept, found = _core.decode(start, name, COLUMNS), _core.decode(data, name, COLUMNS)
    assert (np.abs(weights - found) <= np.abs(weights - kept) * (1 + 1e-6)).all()
    again, report = _core.improve(weights, name, h, sweeps=8, rounds=0)
    same_bits(again, data, name)
    within_bound(report["predicted"], 1.0, 1e-12)


def test_blocks_of_columns_are_fed_back_alone() -> None:
    """Two diagonal blocks give what each half gives by itself."""
    weights, h = weights_of(7, 128), covariance_of(128)
    both, _ = _core.improve(weights, "Q8_0", h, sweeps=0, rounds=0, blocks=2, damping=0.0)
    halves = [
        _core.improve(
            np.ascontiguousarray(weights[:, s]), "Q8_0", np.ascontiguousarray(h[s, s]),
            sweeps=0, rounds=0, damping=0.0,
        )[0]
        for s in (slice(0, 64), slice(64, 128))
    ]  # fmt: skip
    same_bits(both, np.concatenate(halves, axis=1))


def test_no_codes_of_a_small_group_are_far_better() -> None:
    """Of all 4^6 codes of six columns with the same scale none costs a fifth less on average."""
    rng, found, best = np.random.default_rng(7), 0.0, 0.0
    for _ in range(20):
        weights = rng.standard_normal((1, 6)).astype(np.float32)
        x = rng.standard_normal((12, 6)) @ rng.standard_normal((6, 6))
        h = x.T @ x
        data, report = _core.improve(weights, "asym2-g6", h, sweeps=8, rounds=0)
        scale, zero = data[0, :4].copy().view(np.float32)[0], int(data[0, 4])
        codes = np.array(list(itertools.product(range(4), repeat=6)), np.float64)
        e = weights - scale * (codes - zero)
        least = np.einsum("ri,ij,rj->r", e, h, e).min()
        assert report["after"] >= least * (1 - 1e-6)
        found, best = found + report["after"], best + least
        assert report["after"] <= report["before"]
    assert found < 1.25 * best


def test_rows_that_lose_on_other_inputs_keep_their_codes() -> None:
    weights, h = weights_of(ROWS, 64), covariance_of(64, 1)
    other = np.diag(np.random.default_rng(8).random(64) ** 4)
    data, report = _core.improve(weights, "Q4_0", h, held_out=other)
    start = _core.encode(weights.view(np.uint8), "F32", 64, "Q4_0", np.diag(h).astype(np.float32))
    kept = (data == start).all(axis=1)
    assert kept.sum() == report["kept"] > 0
    assert (cost(weights, data, "Q4_0", other) <= cost(weights, start, "Q4_0", other)).all()
    before, after = report["held_out"]
    within_bound(before, cost(weights, start, "Q4_0", other).sum(), 1e-9 * before)
    within_bound(after, cost(weights, data, "Q4_0", other).sum(), 1e-9 * before)


def test_without_inputs_the_encoder_has_the_last_word() -> None:
    """Nothing is known of a layer whose inputs were all zero."""
    weights = weights_of(3, 64)
    data, report = _core.improve(weights, "Q4_0", np.zeros((64, 64)))
    zeros = np.zeros(64, np.float32)
    same_bits(data, _core.encode(weights.view(np.uint8), "F32", 64, "Q4_0", zeros))
    assert report["before"] == report["after"] == 0


@pytest.mark.parametrize("name", [*NAMES, *POINTS])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e-9, 1e4])
def test_weights_of_any_size(name: str, size: float) -> None:
    """Scales that underflow stay 0, and no value becomes infinite."""
    weights, h = weights_of(3, 256) * np.float32(size), covariance_of(256)
    data, report = _core.improve(weights, name, h)
    assert np.isfinite(_core.decode(data, name, 256)).all()
    assert report["after"] <= report["before"]


def test_a_covariance_that_fits_no_layer_is_refused() -> None:
    weights, h = weights_of(3, 64), covariance_of(64)
    with pytest.raises(ShapeError, match=r"covariance must be \[64, 64\]"):
        _core.improve(weights, "Q4_0", h[:32])
    unknown, negative = h.copy(), h.copy()
    unknown[3, 4], negative[2, 2] = np.nan, -1
    with pytest.raises(FormatError, match=r"covariance has NaN at \[3, 4\]"):
        _core.improve(weights, "Q4_0", unknown)
    with pytest.raises(FormatError, match=r"covariance has -1 at \[2, 2\]"):
        _core.improve(weights, "Q4_0", negative)
    with pytest.raises(FormatError, match="no Cholesky factor"):
        _core.improve(weights, "Q4_0", np.eye(64) - 1e20 * (1 - np.eye(64)))
    with pytest.raises(ShapeError, match="blocks of 2 rows, which must divide 3 rows"):
        _core.improve(weights, "Q4_0", h, output_covariance=np.eye(2))
    with pytest.raises(ShapeError, match=r"\[rows, rows\] or \[blocks, size, size\]"):
        _core.improve(weights, "Q4_0", h, output_covariance=np.ones((3, 1)))
    with pytest.raises(FormatError, match="F16 takes no error feedback"):
        _core.improve(weights, "F16", h)
    with pytest.raises(InputError, match="damping is -1"):
        _core.improve(weights, "Q4_0", h, damping=-1)
    with pytest.raises(InputError, match="65 blocks"):
        _core.improve(weights, "Q4_0", h, blocks=65)
