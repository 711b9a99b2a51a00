"""Text that comes token by token after a prompt: the same as when it is decoded at once."""

from __future__ import annotations

import pytest

import fewbit
from fewbit.tokenizer import Tokenizer
from tests.golden.loading import MODELS

NAMES = ["gpt2", "llama-spm"]
"""Byte-level tokens, and tokens of bytes beside whole characters."""


def after(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> str:
    decoder = tokenizer.decoder(prompt)
    return "".join(decoder.push(id_) for id_ in ids) + decoder.finish()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["x🚀y", "né 家族👨‍👩‍👧", "🇩🇪🇩🇪🇩🇪", "a\ufffdb 🚀🚀"])
def test_a_prompt_may_end_inside_a_character(name: str, text: str) -> None:
    tokenizer = fewbit.load(MODELS / name).tokenizer
    ids = tokenizer.encode(text, special=False)
    lengths = [len(tokenizer.encode(text[:end], special=False)) for end in range(len(text) + 1)]
    for cut in range(1, len(ids)):
        whole = max(end for end, length in enumerate(lengths) if length <= cut)
        if "\ufffd" not in tokenizer.decode(ids[:cut])[-1:] or text[whole] != "\ufffd":
            assert after(tokenizer, ids[:cut], ids[cut:]) == text[whole:], cut


@pytest.mark.parametrize("name", NAMES)
def test_a_character_that_stays_incomplete(name: str) -> None:
    """The prompt had what is no character; what follows is told, nothing twice."""
    tokenizer = fewbit.load(MODELS / name).tokenizer
    began = tokenizer.encode("x🚀", special=False)[:-1]
    follows = tokenizer.encode("1", special=False)[-1:]
    assert after(tokenizer, began, follows) == "1"
    assert after(tokenizer, began, []) == ""
