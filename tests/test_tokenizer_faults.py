"""Tokenizers that are damaged or odd, and texts that are too long: errors of fewbit, in bounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

import fewbit
from fewbit.errors import FileFormatError, InputError
from fewbit.files.gguf import fields_of
from fewbit.tokenizer import Tokenizer, from_folder, from_gguf
from fewbit.tokenizer.splittings import SPLITTINGS, Splitting
from tests.golden.loading import MODELS

BEGIN = {"SpecialToken": {"id": "nothing", "type_id": 0}}
FIRST, SECOND = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")


def copied(tmp: Path, **tokenizer: Any) -> Path:
    """The folder of a golden model with other parts of tokenizer.json."""
    folder = tmp / "m"
    shutil.copytree(MODELS / "llama", folder, ignore=shutil.ignore_patterns("*.gguf", "*.npy"))
    facts = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(facts | tokenizer), "utf-8")
    return folder


def edited(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize("single", [[SECOND], [FIRST, SECOND], [BEGIN, FIRST]])
def test_a_template_that_the_library_fails_at(single: list[Any], tmp_path: Path) -> None:
    """Its Rust code panics at a second text that is not there, and at an unknown token."""
    template = {"type": "TemplateProcessing", "single": single, "pair": single}
    folder = copied(tmp_path, post_processor={**template, "special_tokens": {}})
    with pytest.raises(FileFormatError, match="cannot put tokens around a text"):
        from_folder(folder)


@pytest.mark.parametrize("begin", ["$A", "$B", "a:1", "two words", "bos"])
def test_a_begin_token_spelled_as_a_template(begin: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [begin, "<end>", "▁", "a", "▁a"],
        "tokenizer.ggml.scores": [0.0, 0.0, -2.0, -3.0, -1.0],
        "tokenizer.ggml.token_type": [3, 3, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_eos_token": True,
    }
    tokenizer = from_gguf(dict(fields_of(values)), tmp_path)
    assert tokenizer.encode("a") == [0, 4, 1]
    assert tokenizer.encode("") == [0, 1]


@pytest.mark.parametrize("id_", [-1, 1 << 32, 1 << 70, True, 2.0])
def test_ids_that_are_none(id_: object, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    plain = from_folder(folder)
    edited(folder, "config.json", bos_token_id=id_, eos_token_id=[id_, 5])
    edited(folder, "tokenizer_config.json", bos_token=None, eos_token=None)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [id_, 6]}))
    tokenizer = from_folder(folder)
    assert tokenizer.bos is None
    assert tokenizer.stop_ids - plain.stop_ids == {5, 6}
    fewbit.load(folder).save(tmp_path / "m.gguf")


@pytest.mark.parametrize("id_", [-1, 1 << 32])
def test_ids_without_a_token(id_: int) -> None:
    tokenizer = from_folder(MODELS / "llama")
    assert tokenizer.token(id_) is None
    with pytest.raises(InputError, match="token ids must be from 0 to 4294967295"):
        tokenizer.decode([id_])


def split_by(*patterns: str) -> Tokenizer:
    tokenizer = from_folder(MODELS / "llama")
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    tokenizer.backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def test_a_text_that_the_regex_engine_fails_at() -> None:
    tokenizer = split_by("(?:A|AA)+$B")
    with pytest.raises(InputError, match=r"cannot encode the text: .*retry-limit"):
        tokenizer.encode("A" * 60 + "B")
    assert tokenizer.encode("AAC")


LONG = [s for s in SPLITTINGS if {"llama-bpe", "gpt-4o", "deepseek-llm", "superbpe"} & {*s.names}]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("splitting", LONG, ids=lambda s: s.names[0])
def test_a_long_word_takes_time_in_proportion(splitting: Splitting) -> None:
    """With the square of the length, any of these would take minutes."""
    tokenizer = split_by(*splitting.patterns)
    for unit in ("1", "a", "A", " ", "\n", "中", "e\u0301"):
        text = unit * 60_000 + "x"
        assert tokenizer.decode(tokenizer.encode(text)) == text
