"""Next tokens in several formats: probabilities, divergence, and what is left over."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fewbit
from fewbit.errors import InputError


@pytest.fixture(scope="module")
def demo() -> fewbit.Model:
    return fewbit.load("demo", "cpu")


def softmax(row: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()  # type: ignore[no-any-return]


def test_probabilities_are_those_of_the_logits(demo: fewbit.Model) -> None:
    found = demo.next_tokens("The old house", formats=["Q4_0", "Q2_K"], top=5)
    ids = demo.tokenizer.encode("The old house")
    columns = [softmax(demo.logits(ids, acts="f32")[-1])]
    columns += [softmax(demo.quantize(name).logits(ids)[-1]) for name in ("Q4_0", "Q2_K")]
    assert found.formats == ("BF16", "Q4_0", "Q2_K")
    assert found.prompt_tokens == len(ids)
    for token in found.tokens:
        assert token.probabilities == pytest.approx([column[token.id] for column in columns])
        assert token.text == demo.tokenizer.decode([token.id])
    assert [t.id for t in found.tokens[:5]] == np.argsort(-columns[0])[:5].tolist()
    p = columns[0]
    expected = [float((p * (np.log(p) - np.log(q))).sum()) for q in columns]
    assert found.kld == pytest.approx(expected, abs=1e-9)
    assert found.kld[0] == 0
    assert found.entropy == pytest.approx([float(-(q * np.log(q)).sum()) for q in columns])
    assert [sum(t.probabilities[i] for t in found.tokens) + found.rest[i] for i in range(3)] == (
        pytest.approx([1.0, 1.0, 1.0])
    )


def test_the_likeliest_token_of_each_format_is_listed(demo: fewbit.Model) -> None:
    found = demo.next_tokens("Her brother went", formats=["Q2_K", "IQ1_S"][:1], top=1)
    row = demo.quantize("Q2_K").logits(demo.tokenizer.encode("Her brother went"))[-1]
    assert int(row.argmax()) in [token.id for token in found.tokens]


def test_a_long_prompt_is_cut_as_any_other(demo: fewbit.Model) -> None:
    ids = (list(range(5, 105)) * 6)[:512]
    assert len(demo.next_tokens(ids).tokens) == 10
    with pytest.raises(InputError, match="has 513 tokens"):
        demo.next_tokens([*ids, 5])
    with pytest.raises(InputError, match="cannot list 0 tokens"):
        demo.next_tokens("a", top=0)


def test_without_formats_there_is_no_divergence(demo: fewbit.Model) -> None:
    page = str(demo.next_tokens("The old house", top=2))
    assert "KLD" not in page
    assert "entropy" in page
    assert not math.isnan(demo.next_tokens("a").entropy[0])
