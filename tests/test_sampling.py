"""Each filter alone, then the draw: frequencies, repeatability, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fewbit
from fewbit.errors import InputError
from fewbit.run.sampler import choose, sampler_of
from fewbit.run.sampling import GREEDY, Sampling

ROW = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32))
TOKENIZER = fewbit.load("demo", "cpu").tokenizer
OPEN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def drawn(sampling: Sampling, count: int, row: NDArray[np.float32] = ROW) -> list[int]:
    """The tokens that `count` positions draw from one row."""
    sampler = sampler_of(sampling, TOKENIZER, len(row))
    found = []
    for _ in range(count):
        found.append(choose(row, sampler))
        sampler.accept([0])
    return found


def options(**changed: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, "seed": 1, **OPEN, **changed})


@pytest.mark.parametrize(("k", "ids"), [(1, {1}), (3, {1, 3, 4}), (99, {0, 1, 2, 3, 4})])
def test_top_k_keeps_the_likeliest(k: int, ids: set[int]) -> None:
    assert set(drawn(options(top_k=k), 400)) == ids
    first_of_equals = set(drawn(options(top_k=2), 99, np.zeros(6, np.float32)))
    assert first_of_equals == {0, 1}


@pytest.mark.parametrize(("p", "kept"), [(0.3, 1), (0.41, 2), (0.64, 2), (0.66, 3), (1.0, 5)])
@pytest.mark.parametrize("top_k", [0, 5])
def test_top_p_keeps_the_fewest_that_reach_p(p: float, kept: int, top_k: int) -> None:
    found = drawn(options(top_p=p, top_k=top_k), 400)
    assert set(found) == set([1, 3, 4, 0, 2][:kept])


@pytest.mark.parametrize(("p", "kept"), [(0.0, 5), (0.2, 4), (0.3, 3), (0.6, 2), (1.0, 1)])
@pytest.mark.parametrize("top_k", [0, 5])
def test_min_p_is_a_fraction_of_the_likeliest(p: float, kept: int, top_k: int) -> None:
    assert len(set(drawn(options(min_p=p, top_k=top_k), 400))) == kept


def test_top_p_sees_only_what_top_k_kept() -> None:
    # of the two likeliest alone, 0.4 / 0.65 = 0.615 is enough
    assert set(drawn(options(top_k=2, top_p=0.6), 200)) == {1}
    assert set(drawn(options(top_p=0.6), 200)) == {1, 3}


@pytest.mark.parametrize("top_k", [0, 5])
def test_draws_have_the_frequencies_of_the_softmax(top_k: int) -> None:
    count = 20_000
    found = np.bincount(drawn(options(top_k=top_k), count), minlength=5) / count
    expected = np.exp(ROW.astype(np.float64))
    error = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(found - expected) < 4.5 * error).all()


def test_temperature_is_applied_after_the_filters() -> None:
    # at temperature 100 all that is left is nearly equally likely, but what is left does not change
    found = np.bincount(drawn(options(temperature=100, top_p=0.5), 4000), minlength=5)
    assert found[[0, 2, 4]].sum() == 0
    assert abs(found[1] / 4000 - 0.5) < 0.05


def test_min_p_comes_after_top_p() -> None:
    # top-p 0.6 keeps 0.4 and 0.25, min-p 0.6 both; the other way round 0.4 / 0.65 is enough
    assert set(drawn(options(top_p=0.6, min_p=0.6), 100)) == {1, 3}


def test_one_seed_gives_one_sequence() -> None:
    assert drawn(options(seed=7), 50) == drawn(options(seed=7), 50)
    assert drawn(options(seed=7), 50) != drawn(options(seed=8), 50)
    assert drawn(options(seed=None), 50) != drawn(options(seed=None), 50)


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    assert drawn(GREEDY, 1, np.array([1, 3, 3, 2], np.float32)) == [1]


def test_impossible_tokens_are_never_drawn() -> None:
    row = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    assert set(drawn(options(temperature=1e-300), 50, row)) == {1, 3}


@pytest.mark.parametrize("bad", [[np.nan, 0], [0, np.nan], [np.inf, 0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(logit_bias={0: -1.0})])
def test_rows_without_a_softmax_are_refused(bad: list[float], sampling: Sampling) -> None:
    with pytest.raises(InputError, match="cannot choose a token: the largest logit is"):
        drawn(sampling, 1, np.array(bad, np.float32))


def test_numbers_beyond_any_length_mean_all() -> None:
    huge = options(top_k=10**30, repeat_last_n=10**30, repeat_penalty=2.0)
    assert set(drawn(huge, 400)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, expected 0 or more"),
        ({"temperature": float("inf")}, "temperature is inf, expected 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan, expected 0 or more"),
        ({"top_k": -1}, "top_k is -1, expected 0 or more"),
        ({"top_p": 0.0}, "top_p is 0.0, expected above 0, at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5, expected above 0, at most 1"),
        ({"min_p": -0.5}, "min_p is -0.5, expected from 0 to 1"),
        ({"seed": -1}, "seed is -1, expected 0 to 2^64 - 1"),
        ({"seed": 2**64}, "seed is 18446744073709551616, expected 0 to 2^64 - 1"),
        ({"repeat_penalty": 0.0}, "repeat_penalty is 0.0, expected above 0"),
        ({"repeat_last_n": -2}, "repeat_last_n is -2, expected -1 or more"),
        ({"presence_penalty": np.inf}, "presence_penalty is inf, expected a finite number"),
        ({"frequency_penalty": np.nan}, "frequency_penalty is nan, expected a finite number"),
        ({"dry_multiplier": -1.0}, "dry_multiplier is -1.0, expected 0 or more"),
        ({"dry_base": 0.9}, "dry_base is 0.9, expected 1 or more"),
        ({"dry_allowed_length": 0}, "dry_allowed_length is 0, expected 1 or more"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n is -2, expected -1 or more"),
        ({"temperature": "1"}, "temperature is '1', expected a number"),
        ({"min_p": True}, "min_p is True, expected a number"),
        ({"repeat_last_n": 2.5}, "repeat_last_n is 2.5, expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5, expected a whole number"),
        ({"logit_bias": [1]}, "logit_bias is [1], expected a dict of ids to numbers"),
        ({"logit_bias": {"a": 1}}, "the id of a logit bias is 'a', expected a whole number"),
        ({"logit_bias": {1: "a"}}, "logit bias of token 1 is 'a', expected a number or -inf"),
        ({"logit_bias": {-1: 1.0}}, "the id of a logit bias is -1, expected 0 or more"),
        ({"logit_bias": {4: np.inf}}, "logit bias of token 4 is inf, expected a number or -inf"),
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**option)
    assert str(caught.value) == message


def test_breakers_are_texts() -> None:
    assert Sampling(dry_sequence_breakers=["\n"]).dry_sequence_breakers == ("\n",)  # type: ignore[arg-type]
    for wrong in ("\n", ("",), (3,), 3):
        with pytest.raises(InputError, match="expected texts that are not empty"):
            Sampling(dry_sequence_breakers=wrong)  # type: ignore[arg-type]


def test_what_changes_logits() -> None:
    assert not Sampling().changes_logits
    for option in (
        {"repeat_penalty": 1.1}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1},
        {"dry_multiplier": 0.8}, {"logit_bias": {0: 1.0}},
    ):  # fmt: skip
        assert Sampling(**option).changes_logits  # type: ignore[arg-type]
    assert not Sampling(repeat_penalty=1.1, repeat_last_n=0).changes_logits
    assert not Sampling(dry_multiplier=0.8, dry_penalty_last_n=0).changes_logits
