"""Tokens and ids that lie beyond the vocabulary of a model: a warning, and they are left out."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType

import fewbit
from fewbit.errors import FileFormatError
from fewbit.files.checkpoint import open_checkpoint
from fewbit.files.gguf import Field, read_gguf
from fewbit.tokenizer.gguf_metadata import metadata_from_folder
from fewbit.tokenizer.gguf_vocabulary import build
from fewbit.tokenizer.load import tokenizer_of
from tests.golden.loading import MODELS

VOCAB = open_checkpoint(MODELS / "llama").config.vocab


def edited(folder: Path, file: str, change: dict[str, Any]) -> Path:
    copy = shutil.copytree(MODELS / "llama", folder / "llama")
    facts = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(facts | change))
    return copy


def test_an_added_token_beyond_the_vocabulary_is_left_out(tmp_path: Path) -> None:
    facts = json.loads((MODELS / "llama" / "tokenizer.json").read_text())
    image = facts["added_tokens"][0] | {"id": VOCAB, "content": "<image>"}
    path = edited(tmp_path, "tokenizer.json", {"added_tokens": [*facts["added_tokens"], image]})
    target = tmp_path / "out.gguf"
    with pytest.warns(UserWarning, match=rf"left out added tokens .* `<image>` \({VOCAB}\)"):
        fewbit.load(path, device="cpu", threads=1).save(target)
    plain = tmp_path / "plain.gguf"
    fewbit.load(MODELS / "llama", device="cpu", threads=1).save(plain)
    assert target.read_bytes() == plain.read_bytes()


def test_a_smaller_vocabulary_is_refused() -> None:
    with pytest.raises(FileFormatError, match="but the vocabulary of the model has 100 tokens"):
        metadata_from_folder(MODELS / "llama", 100)


@pytest.mark.parametrize("id_", [VOCAB, 1 << 32, -1])
def test_a_special_id_beyond_the_vocabulary_is_passed_over(id_: int, tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    fewbit.load(MODELS / "llama", device="cpu", threads=1).save(path)
    metadata = read_gguf(path).metadata
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = build(metadata, path)
    key = "tokenizer.ggml.bos_token_id"
    metadata[key] = Field(id_, GGUFValueType.INT64)
    with pytest.warns(UserWarning, match=f"`{key}` is {id_}, passed over"):
        found = build(metadata, path)
    assert plain.bos is not None
    assert (found.bos, found.eos, found.adds_bos) == (None, plain.eos, False)
    assert found.encode("some text", special=False) == plain.encode("some text", special=False)


def test_the_golden_tokenizer_is_within_its_vocabulary() -> None:
    assert max(tokenizer_of(open_checkpoint(MODELS / "llama")).vocab.values()) < VOCAB
