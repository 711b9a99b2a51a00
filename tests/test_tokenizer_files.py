"""Files of tokenizers as they are found: templates, end tokens, ways of splitting text."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from tokenizers import Regex, Tokenizer
from tokenizers import pre_tokenizers as steps

import fewbit
from fewbit.generation.conversation import reply_to
from tests.golden.loading import MODELS

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def folder(tmp: Path, name: str = "llama", **files: dict[str, Any]) -> Path:
    """A copy of a model's folder; `files` are merged into the JSON files of these names."""
    to = tmp / name
    shutil.copytree(MODELS / name, to, ignore=shutil.ignore_patterns("*.gguf", "*.npy"))
    for stem, values in files.items():
        file = to / f"{stem}.json"
        before = json.loads(file.read_text("utf-8")) if file.exists() else {}
        file.write_text(json.dumps(before | values), "utf-8")
    return to


@pytest.mark.parametrize("template", ["x", {"default": "x", "tool_use": "y"}])
def test_chat_template_json(template: object, tmp_path: Path) -> None:
    path = folder(tmp_path, chat_template={"chat_template": template})
    assert fewbit.load(path).tokenizer.chat_template == "x"


def test_templates_by_name(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "y"}, {"name": "default", "template": "x"}]
    path = folder(tmp_path, tokenizer_config={"chat_template": named})
    assert fewbit.load(path).tokenizer.chat_template == "x"


def test_every_declared_end_survives(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        config={"eos_token_id": [5, 6, 7]},
        generation_config={"eos_token_id": 8},
    )
    model = fewbit.load(path)
    assert model.tokenizer.stop_ids >= {5, 6, 7, 8, model.tokenizer.eos}
    model.save(tmp_path / "m.gguf")
    assert fewbit.load(tmp_path / "m.gguf").tokenizer.stop_ids == model.tokenizer.stop_ids


@pytest.mark.parametrize("begin", ["", "{{ bos_token }}"])
def test_a_chat_with_a_gguf_file_begins_once(begin: str, tmp_path: Path) -> None:
    template = begin + "{{ messages[0].content }}"
    path = folder(tmp_path, tokenizer_config={"chat_template": template})
    fewbit.load(path).save(tmp_path / "m.gguf")
    model = fewbit.load(tmp_path / "m.gguf")
    assert model.tokenizer.adds_bos
    prompt = reply_to(model, "Hi", max_tokens=1).made.prompt
    assert prompt[0] == model.tokenizer.bos
    assert prompt.count(prompt[0]) == 1


def test_a_prompt_has_no_end() -> None:
    model = fewbit.load(MODELS / "llama-spm")
    tokenizer, plain = model.tokenizer, model.generate("Hello", max_tokens=1).prompt
    assert tokenizer.eos is not None
    model.__dict__["tokenizer"] = Ended(**dict_of(tokenizer))
    assert model.tokenizer.encode("Hello")[-1] == tokenizer.eos
    assert model.generate("Hello", max_tokens=1).prompt == plain


class Ended(fewbit.Tokenizer):
    """A tokenizer that adds the end token, as those with `add_eos_token` do."""

    def encode(self, text: str, special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of the text, and the end."""
        assert self.eos is not None
        return [*super().encode(text, special, parse_special), self.eos]


def dict_of(tokenizer: fewbit.Tokenizer) -> dict[str, Any]:
    """The fields of a tokenizer, not copied."""
    return {field.name: getattr(tokenizer, field.name) for field in dataclasses.fields(tokenizer)}


def saved_splitting(tmp: Path, *splits: steps.PreTokenizer) -> str:
    """The name that a GGUF file has for a tokenizer that splits text by `splits`."""
    path = folder(tmp)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    byte_level = steps.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = steps.Sequence([*splits, byte_level])
    tokenizer.save(str(path / "tokenizer.json"))
    fewbit.load(path).save(tmp / "m.gguf")
    field = GGUFReader(tmp / "m.gguf").fields["tokenizer.ggml.pre"]
    return bytes(field.parts[-1]).decode()


def test_a_splitting_spelled_in_another_way(tmp_path: Path) -> None:
    split = steps.Split(Regex(LLAMA3), "removed", invert=True)
    assert saved_splitting(tmp_path, split) in ("llama-bpe", "dbrx")


def test_a_splitting_without_a_name_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="GGUF has no name for how this tokenizer splits"):
        name = saved_splitting(tmp_path, steps.Split(Regex(r"\d"), "isolated"))
    assert name == "default"


CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s"
)
LLAMA_CPP = LLAMA3.replace(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
)
SINGLE, ALL = steps.Digits(individual_digits=True), steps.Digits(individual_digits=False)
PUNCTUATION = steps.Punctuation("contiguous")
GPT2 = steps.ByteLevel(add_prefix_space=False, use_regex=True)


def split(pattern: str) -> steps.PreTokenizer:
    return steps.Split(Regex(pattern), "isolated")


@pytest.mark.parametrize(
    ("splits", "name"),
    [
        ([split(CL100K)], "llama-bpe"),
        ([split(LLAMA_CPP)], "llama-bpe"),
        ([split(CL100K.replace("{1,3}", "{1}"))], "qwen2"),
        ([SINGLE, GPT2], "smollm"),
        ([PUNCTUATION, GPT2, ALL, split("[0-9][0-9][0-9]")], "falcon"),
        ([split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
          SINGLE], "deepseek-coder"),
        ([split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))")], "superbpe"),
    ],
)  # fmt: skip
def test_splittings_as_they_are_spelled(
    splits: list[steps.PreTokenizer], name: str, tmp_path: Path
) -> None:
    """By tiktoken, by llama.cpp, and by steps of other kinds than a regular expression."""
    assert saved_splitting(tmp_path, *splits) == name


@pytest.mark.parametrize(
    ("normalizer", "told"),
    [
        ({"type": "Sequence", "normalizers": []}, False),
        ({"type": "NFKC"}, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, True),
    ],
)
def test_normalizing_that_gguf_cannot_describe(normalizer: Any, told: bool, tmp_path: Path) -> None:
    path = folder(tmp_path, tokenizer={"normalizer": normalizer})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fewbit.load(path).save(tmp_path / "m.gguf")
    assert any("how this tokenizer normalizes" in str(w.message) for w in caught) == told
    text = " Ein Ä e\u0301"
    saved = fewbit.load(tmp_path / "m.gguf").tokenizer
    assert saved.encode(text) == fewbit.load(path).tokenizer.encode(text)
    has_json = "tokenizer.huggingface.json" in GGUFReader(tmp_path / "m.gguf").fields
    assert has_json == told
