"""Windows to calibrate on: cut from a text, or written by the model itself."""

from __future__ import annotations

import numpy as np
import pytest

import fewbit
from fewbit.improve.calibration import Calibration, sampled_calibration, text_calibration
from fewbit.measure.evaluate import windows
from tests.compare import same_bits
from tests.golden.loading import MODELS, asset

DEMO = fewbit.load("demo", "cpu")


@pytest.fixture(scope="module")
def written() -> Calibration:
    return sampled_calibration(DEMO, 6, ctx=40)


def test_the_model_writes_from_its_begin_token(written: Calibration) -> None:
    assert written.tokens.shape == (6, 40)
    assert (written.tokens[:, 0] == DEMO.tokenizer.bos).all()
    assert len({row.tobytes() for row in written.tokens}) == 6
    assert "6 windows of 40 tokens that the model wrote" in written.source


def test_what_the_model_writes_is_likely_to_it(written: Calibration) -> None:
    """A token drawn from p has -log p near the entropy; tokens at random would be far above."""
    logits = [DEMO.logits(row, acts="int8") for row in written.tokens]
    surprise = np.mean(
        [
            fewbit._core.nll(x[:-1], row[1:]).mean()
            for x, row in zip(logits, written.tokens, strict=True)
        ]
    )
    assert surprise < 0.6 * np.log(DEMO.config.vocab)


def test_windows_do_not_depend_on_their_number_or_on_threads(written: Calibration) -> None:
    fewer = sampled_calibration(fewbit.load("demo", "cpu", threads=1), 3, ctx=40)
    same_bits(fewer.tokens, written.tokens[:3])
    other = sampled_calibration(DEMO, 3, seed=1, ctx=40)
    assert (other.tokens != fewer.tokens).any()
    assert other.digest != fewer.digest


def test_a_vocabulary_without_begin_token_begins_with_its_end_token() -> None:
    model = fewbit.load(asset("qwen2").parent, "cpu")
    if model.tokenizer.bos is not None or model.tokenizer.eos is None:
        pytest.skip("this vocabulary has other tokens")
    assert (sampled_calibration(model, 2, ctx=8).tokens[:, 0] == model.tokenizer.eos).all()


def test_windows_of_a_text_are_those_of_perplexity() -> None:
    model = fewbit.load(MODELS / "llama", "cpu")
    text = (MODELS / "llama" / "calibration.txt").read_text("utf-8")
    found = text_calibration(model, text, ctx=64)
    same_bits(found.tokens, windows(model, text, 64).inputs)
    some = text_calibration(model, text, 4, ctx=64)
    same_bits(some.tokens[[0, -1]], found.tokens[[0, -1]])
    assert len(some.tokens) == 4


def test_one_window_in_eight_is_held_out() -> None:
    tokens = np.arange(34, dtype=np.uint32)[:, None] * np.ones((1, 4), np.uint32)
    calibration = Calibration(tokens, "numbers")
    assert calibration.held_out[:, 0].tolist() == [7, 15, 23, 31]
    assert len(calibration.fitted) == 30
    two = Calibration(tokens[:2], "two")
    assert (len(two.fitted), len(two.held_out)) == (1, 1)
    assert two.warnings
    assert not calibration.warnings


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(fewbit.InputError, match="1 windows"):
        sampled_calibration(DEMO, 1)
    with pytest.raises(fewbit.InputError, match="a seed is 0 or more"):
        sampled_calibration(DEMO, 2, seed=-1)
