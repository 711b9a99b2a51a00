"""Token ids of a hard text: llama.cpp and fewbit agree for each kind of tokenizer of GGUF files."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType, GGUFWriter
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as steps

from fewbit import tokenizer as fewbit_tokenizer
from fewbit.files.gguf import fields_of, read_gguf
from fewbit.tokenizer.gguf_metadata import metadata_from_folder
from fewbit.tokenizer.pre_tokenizer import WRITTEN
from fewbit.tokenizer.sentencepiece import read_sentencepiece
from fewbit.tokenizer.splittings import SPLITTINGS, Splitting
from tests.golden.loading import SHARED, asset
from tests.peers.peer import NEEDS

llama_cpp = pytest.importorskip("llama_cpp", reason=NEEDS)

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizers"
TEXTS = {
    "spaces": "Hello  world,   and\r\n\r\n\n \n\t\ttab \t x \n  \n\n\n   end   ",
    "digits": "12345 and 1234567 or 12! ab12cd 3.14 1,000,000 $100 + 50% ~= ^|`",
    "case": "They'LL don't I'VE 'S camelCase HTTPServer XMLHttp2 McDonald",
    "letters": "naïve Ωmega ÀÉÎ Привет ελληνικά 你好世界123 こんにちはカタカナ 한국어 텍스트 שלום",
    "arabic": "العربية مرحبا ١٢٣ ۱۲۳۴",
    "marks": "ไทยภาษา हिन्दी नमस्ते বাংলা",
    "decomposed": "e\u0301a\u0308o\u0302 Z\u0351\u036b\u0343",
    "emoji": "🚀🚀 👨‍👩‍👧‍👦 🇩🇪 ☺️",
    "code": "def f(x):\n    return x**2 != 3 # //path/to.py?a=1&b=2\n\tif (a<=b) { c[0]++; }\r\n",
    "control": "\x01\x02\x7f \u200b zero ½ ² Ⅷ ① ’s “quoted” — dash… 。，！ ？。",
    "wide spaces": "\u00a0nbsp\u00a0\u3000wide\u2003em",
    "added": "a<tool>b <tool> </s> <s>x",
}
HARD = " ".join(TEXTS.values())
NFC, CASED, MARKS = "decomposed", ("case", "letters"), "marks"
UNLIKE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("qwen2", "qwen35"), (NFC,)),  # llama.cpp does not compose characters
    **dict.fromkeys(("tekken", "gpt-4o"), (NFC, MARKS)),  # its letters have no marks
    # std::regex, which it takes for these, does not tell upper case from lower
    **dict.fromkeys(("tiny_aya", "youtu"), (*CASED, NFC, MARKS, "digits", "code")),
    "superbpe": ("arabic",),  # its digits are those of ASCII
    # it sees spaces of other scripts as a control character, which is in no range of letters
    **dict.fromkeys(("deepseek-llm", "deepseek-coder"), ("wide spaces",)),
}
"""Texts that llama.cpp splits in another way than the tokenizer.json that a name stands for."""


@cache
def vocabulary() -> dict[str, Any]:
    """Byte-level BPE whose tokens cross every border that a splitting may have."""
    tokenizer = Tokenizer(models.BPE())
    anything = steps.Split(Regex(r"[\s\S]{1,24}"), "isolated")
    byte_level = steps.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = steps.Sequence([anything, byte_level])
    tokenizer.train_from_iterator(
        [HARD[start:] for start in range(24)],
        trainers.BpeTrainer(
            vocab_size=2000, initial_alphabet=steps.ByteLevel.alphabet(), show_progress=False,
            max_token_length=12,
        ),
    )  # fmt: skip
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def byte_level_folder(folder: Path, splitting: Splitting) -> Path:
    model = vocabulary()
    tokenizer = Tokenizer(
        models.BPE(model["vocab"], [tuple(m) for m in model["merges"]],
                   ignore_merges=splitting.ignores_merges)
    )  # fmt: skip
    byte_level = steps.ByteLevel(add_prefix_space=False, use_regex=False)
    splits = [steps.Split(Regex(pattern), "isolated") for pattern in splitting.patterns]
    tokenizer.pre_tokenizer = steps.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    facts = json.loads(tokenizer.to_str())
    facts["normalizer"] = {"type": "NFC"} if splitting.normal_form else None
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    return folder


def written(folder: Path, **changes: Any) -> Path:
    """A GGUF file of the folder's tokenizer alone."""
    tokens = fewbit_tokenizer.from_folder(folder).vocab
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = metadata_from_folder(folder, max(tokens.values()) + 3) | changes
    writer = GGUFWriter(path := folder / "m.gguf", "llama")
    for key, field in fields_of(values):
        item = None if field.item is None else GGUFValueType(field.item)
        writer.add_key_value(key, field.value, GGUFValueType(field.type), item)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def agree(path: Path, unlike: tuple[str, ...] = (), special: bool = True) -> None:
    """Both give each text the same ids, and so a text of all of them."""
    tokenizer = fewbit_tokenizer.from_gguf(read_gguf(path).metadata, path)
    peer = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    texts = {name: text for name, text in TEXTS.items() if name not in unlike}
    for name, text in {**texts, "all": " ".join(texts.values())}.items():
        for parse in (False, True):
            found = peer.tokenize(text.encode(), add_bos=special, special=parse)
            assert found == tokenizer.encode(text, special, parse), (name, parse)


@pytest.mark.parametrize("splitting", WRITTEN, ids=lambda s: s.names[0])
def test_byte_level(splitting: Splitting, tmp_path: Path) -> None:
    path = written(byte_level_folder(tmp_path, splitting))
    assert read_gguf(path).metadata["tokenizer.ggml.pre"].value == splitting.names[0]
    agree(path, UNLIKE.get(splitting.names[0], ()))


@pytest.mark.parametrize("splitting", SPLITTINGS, ids=lambda s: s.names[0])
def test_each_name(splitting: Splitting, tmp_path: Path) -> None:
    """The names of one splitting mean the same, with its default of adding BOS."""
    folder = byte_level_folder(tmp_path, splitting)
    for name in splitting.names:
        agree(written(folder, **{"tokenizer.ggml.pre": name}), UNLIKE.get(splitting.names[0], ()))


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_sentencepiece(name: str, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / f"{name}.model", tmp_path / "tokenizer.model")
    added = {"410": {"content": "<tool>", "special": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    agree(written(tmp_path))


def test_a_tokenizer_json_like_t5_s(tmp_path: Path) -> None:
    pieces = read_sentencepiece(GOLDEN / "unigram.model").pieces
    vocab = list(zip(pieces.tokens, pieces.scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(vocab, pieces.unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(pieces.charsmap),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "▁"),
        ]
    )
    tokenizer.pre_tokenizer = steps.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    agree(written(tmp_path))


@pytest.mark.parametrize("name", ["llama-spm", "gemma3", "phi3", "qwen2", "llama", "gpt2"])
def test_the_golden_tokenizers(name: str, tmp_path: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(asset(name, file), tmp_path / file)
    agree(written(tmp_path), UNLIKE.get(name, ()))


def test_a_vocabulary_of_llama_cpp() -> None:
    path = SHARED.parent / "assets" / "gguf-vocab" / "ggml-vocab-gpt-2.gguf"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    agree(path)
