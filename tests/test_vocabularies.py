"""Models whose tokens are not the same are refused for a divergence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import fewbit
from fewbit.errors import InputError
from fewbit.measure import evaluate
from fewbit.measure.vocabularies import different_tokens
from tests.bigram import ALPHABET, Bigram

TEXT = "abcdefgh" * 20


def renamed(texts: dict[int, str], special: frozenset[int] = frozenset()) -> Any:
    """A model whose tokenizer has other texts for some ids."""
    model: Any = Bigram(1)
    tokens = dict(enumerate(ALPHABET)) | texts

    class Tokenizer(type(model.tokenizer)):  # type: ignore[misc]
        special_ids = special

        @property
        def vocab(self) -> dict[str, int]:
            return {text: i for i, text in tokens.items()}

        def token(self, id_: int) -> str | None:
            return tokens.get(id_)

    model.tokenizer = Tokenizer()
    return model


def test_the_first_token_that_differs_is_named() -> None:
    with pytest.raises(InputError) as error:
        evaluate.divergence(renamed({3: "é", 7: "ü"}), Bigram(), TEXT, ctx=20)
    assert "token 3 is 'é' in" in error.value.message
    assert "and 1 more differ" in error.value.message
    assert error.value.tokens == (3, 7)


def test_reserved_tokens_and_padding_may_differ() -> None:
    base, model = renamed({14: "<a>"}, frozenset({14})), renamed({14: "<b>"}, frozenset({14}))
    assert evaluate.divergence(model, base, TEXT, ctx=20, acts="f32").kld.value == 0
    with pytest.raises(InputError, match="token 14"):
        evaluate.divergence(renamed({14: "<b>"}), base, TEXT, ctx=20)
    longer = renamed({99: "[PAD99]"})
    assert different_tokens(longer.tokenizer, Bigram().tokenizer, 200) == []


def test_a_saved_model_has_its_source_s_tokens(tmp_path: Path) -> None:
    model = fewbit.load("demo")
    model.quantize("Q4_0").save(tmp_path / "m.gguf")
    saved = fewbit.load(tmp_path / "m.gguf")
    assert saved.divergence(model, fewbit.demo_text(), ctx=64, chunks=1).kld.value > 0


def test_a_folder_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """Two tokens of a real vocabulary change places: as many tokens, other texts."""
    folder = tmp_path / "other"
    shutil.copytree(fewbit.DEMO, folder)
    path = folder / "tokenizer.json"
    text = path.read_text("utf-8")
    assert '"0":16,"1":17' in text
    path.write_text(text.replace('"0":16,"1":17', '"0":17,"1":16'), "utf-8")
    with pytest.raises(
        InputError, match="the models have different tokenizers: token 16 is '1' in"
    ):
        fewbit.load(folder).divergence(fewbit.load("demo"), fewbit.demo_text(), ctx=64, chunks=1)


def test_bits_per_byte() -> None:
    found = evaluate.perplexity(Bigram(), TEXT, ctx=20, acts="f32")
    assert found.sample.bytes == found.sample.tokens, "a token is a letter"
    assert found.bits_per_byte is not None
    assert abs(found.bits_per_byte * 0.6931471805599453 / found.nll.value - 1) < 1e-12
    model = fewbit.load("demo")
    text = "Es war einmal ein Mädchen. " * 20
    whole = model.perplexity(text, stride=256, acts="f32")
    tokens = len(model.tokenizer.encode(text.removesuffix("\n")))
    assert whole.sample.bytes is not None
    assert abs(whole.sample.bytes - len(text.encode())) <= 2 + (tokens - whole.sample.tokens) * 8
