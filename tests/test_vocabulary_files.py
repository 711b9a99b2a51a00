"""Folders without tokenizer.json: SentencePiece models, and vocab.json with merges.txt."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.gguf import fields_of
from fewbit.tokenizer import Tokenizer, from_folder, from_gguf
from fewbit.tokenizer.gguf_metadata import metadata_from_folder
from tests.golden.loading import MODELS

GOLDEN = Path(__file__).parent / "golden" / "tokenizers"
IDS: dict[str, list[tuple[str, list[int]]]] = json.loads((GOLDEN / "ids.json").read_text("utf-8"))
KINDS = {"bpe": "llama", "bpe-no-bytes": "llama", "unigram": "t5", "unigram-bytes": "llama"}
"""What GGUF calls each."""


def model_folder(tmp: Path, name: str, **settings: Any) -> Path:
    shutil.copy(GOLDEN / f"{name}.model", tmp / "tokenizer.model")
    (tmp / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp


def through_gguf(folder: Path, vocab: int, *without: str) -> tuple[dict[str, Any], Tokenizer]:
    """The keys of a GGUF file for a folder, and the tokenizer that they describe."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = metadata_from_folder(folder, vocab)
    kept = {key: value for key, value in values.items() if key not in without}
    return values, from_gguf(dict(fields_of(kept)), folder / "m.gguf")


@pytest.mark.parametrize("name", KINDS)
def test_the_ids_are_sentencepiece_s(name: str, tmp_path: Path) -> None:
    tokenizer = from_folder(model_folder(tmp_path, name))
    for text, ids in IDS[name]:
        assert tokenizer.encode(text, special=False) == ids, text
    assert (tokenizer.bos, tokenizer.eos, tokenizer.adds_bos) == (1, 2, True)


@pytest.mark.parametrize("name", KINDS)
def test_a_gguf_file_says_the_same(name: str, tmp_path: Path) -> None:
    values, tokenizer = through_gguf(model_folder(tmp_path, name), 450)
    assert values["tokenizer.ggml.model"] == KINDS[name]
    for text, ids in IDS[name]:
        assert tokenizer.encode(text) == [1, *ids], text
    assert len(values["tokenizer.ggml.scores"]) == len(values["tokenizer.ggml.tokens"]) == 450


def test_a_unigram_vocabulary_by_its_keys_alone(tmp_path: Path) -> None:
    """Files of others have no tokenizer.json inside: scores, characters and spaces suffice."""
    json_key = "tokenizer.huggingface.json"
    values, tokenizer = through_gguf(model_folder(tmp_path, "unigram"), 200, json_key)
    assert json_key in values
    for text, ids in IDS["unigram"]:
        assert tokenizer.encode(text) == [1, *ids], text
    scores = values["tokenizer.ggml.scores"]
    assert scores[:3] == [0.0, 0.0, 0.0]
    assert len(set(scores[3:50])) > 20
    assert values["tokenizer.ggml.remove_extra_whitespaces"]
    assert values["tokenizer.ggml.precompiled_charsmap"][:4] != b""


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("unigram-bytes", "cannot describe a unigram tokenizer with bytes"),
        ("bpe-no-bytes", "has no tokens of bytes"),
    ],
)
def test_what_llama_cpp_does_otherwise_is_told(name: str, what: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=what):
        metadata_from_folder(model_folder(tmp_path, name), 450)


def test_text_is_no_control_token(tmp_path: Path) -> None:
    """A unigram model would take `</s>` for the token, also that of a tokenizer.json."""
    first = from_folder(model_folder(tmp_path, "unigram"))
    plain = json.loads(first.backend.to_str()) | {"pre_tokenizer": None}
    for facts in (plain, json.loads(first.backend.to_str())):
        (tmp_path / "tokenizer.json").write_text(json.dumps(facts), "utf-8")
        tokenizer = from_folder(tmp_path)
        assert 2 not in tokenizer.encode("a </s> b", special=False)
        assert 2 in tokenizer.encode("a </s> b", special=False, parse_special=True)
        for text, ids in IDS["unigram"]:
            if "<0x" not in text:
                assert tokenizer.encode(text, special=False) == ids, text


def test_begin_and_end_as_the_settings_say(tmp_path: Path) -> None:
    plain = [1, *IDS["bpe"][0][1]]
    folder = model_folder(tmp_path, "bpe", add_eos_token=True)
    assert from_folder(folder).encode("Hello world") == [*plain, 2]
    values, tokenizer = through_gguf(folder, 400)
    assert values["tokenizer.ggml.add_eos_token"]
    assert tokenizer.encode("Hello world") == [*plain, 2]
    folder = model_folder(tmp_path, "bpe", add_bos_token=False)
    assert from_folder(folder).encode("Hello world") == plain[1:]
    folder = model_folder(tmp_path, "bpe", tokenizer_class="T5Tokenizer")
    assert from_folder(folder).encode("Hello world") == [*plain[1:], 2]


def test_added_tokens_keep_their_ids(tmp_path: Path) -> None:
    decoder = {"450": {"content": "<far>", "special": True}, "2": {"content": "</s>"}}
    folder = model_folder(tmp_path, "bpe", added_tokens_decoder=decoder, eos_token="<far>")
    (folder / "added_tokens.json").write_text(json.dumps({"<near>": 430, "<bad>": -1, "<0>": 1e3}))
    tokenizer = from_folder(folder)
    assert tokenizer.encode("<far>", special=False, parse_special=True) == [450]
    assert tokenizer.encode("<near>", special=False) == [430]
    assert tokenizer.eos == 450
    assert "<bad>" not in tokenizer.vocab
    decoder["3"] = {"content": "<clash>"}
    folder = model_folder(tmp_path, "bpe", added_tokens_decoder=decoder)
    with pytest.raises(FileFormatError, match="`<clash>` has the id 3 of"):
        from_folder(folder)


@pytest.mark.parametrize(
    "data", [b"", b"version https://git-lfs", b"\x0a\xff\x01", b"\x0a\x03\x0a\x05a", b"\x0b\x01"]
)
def test_a_damaged_model_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(FileFormatError, match="is not a SentencePiece model"):
        from_folder(tmp_path)


def test_a_vocabulary_of_tiktoken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(UnsupportedError, match="is a vocabulary of tiktoken"):
        from_folder(tmp_path)


def test_every_cut_of_a_model_is_read_or_refused(tmp_path: Path) -> None:
    whole = (GOLDEN / "unigram.model").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "tokenizer.model").write_bytes(whole[:size])
        try:
            from_folder(tmp_path).encode("Hello")
        except (FileFormatError, UnsupportedError):
            continue


def byte_level_folder(tmp: Path, name: str, **settings: Any) -> Path:
    """The folder of a golden model whose tokenizer.json is cut up into the older files."""
    folder = tmp / name
    shutil.copytree(MODELS / name, folder, ignore=shutil.ignore_patterns("*.gguf", "*.npy"))
    facts = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(facts["model"]["vocab"]))
    pairs = [" ".join(m) if isinstance(m, list) else m for m in facts["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", "utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    added = {str(token.pop("id")): token for token in facts["added_tokens"]}
    config |= {"added_tokens_decoder": added, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
@pytest.mark.parametrize("named", [True, False], ids=["class", "model_type"])
def test_vocab_and_merges(name: str, named: bool, tmp_path: Path) -> None:
    """Transformers 5.24 gives the same ids from these files as from tokenizer.json."""
    own = f"{name.upper() if name == 'gpt2' else 'Qwen2'}TokenizerFast"
    folder = byte_level_folder(tmp_path, name, tokenizer_class=own if named else None)
    found, expected = from_folder(folder), from_folder(MODELS / name)
    for text, _ in IDS["bpe"]:
        for special in (True, False):
            marked = text + "<|endoftext|> <think>\n 12 don't"
            ids = expected.encode(marked, parse_special=special)
            assert found.encode(marked, parse_special=special) == ids, text
    assert (found.bos, found.eos, found.stop_ids) == (expected.bos, expected.eos, expected.stop_ids)
    pre, _ = through_gguf(folder, 400)
    assert pre["tokenizer.ggml.pre"] == {"gpt2": "gpt-2", "qwen2": "qwen2"}[name]


@pytest.mark.parametrize(
    ("file", "text", "error", "what"),
    [
        ("merges.txt", "#version: 0.2\na b c\n", FileFormatError, "is not two tokens"),
        ("merges.txt", "a nothing\n", FileFormatError, "merges `a` and `nothing`"),
        ("vocab.json", '{"a": 0, "b": 0}', FileFormatError, "an id of its own"),
        ("vocab.json", '{"a": -1}', FileFormatError, "an id of its own"),
        ("vocab.json", '{"a": 0}', UnsupportedError, "has no tokens of bytes"),
        ("tokenizer_config.json", '{"tokenizer_class": "CLIPTokenizer"}', UnsupportedError, "CLIP"),
    ],
)
def test_damaged_files_are_refused(
    file: str, text: str, error: type[Exception], what: str, tmp_path: Path
) -> None:
    folder = byte_level_folder(tmp_path, "gpt2")
    (folder / file).write_text(text)
    with pytest.raises(error, match=what):
        from_folder(folder)


def test_wordpiece_is_refused(tmp_path: Path) -> None:
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "the": 1}}  # fmt: skip
    facts = json.loads((MODELS / "llama" / "tokenizer.json").read_text("utf-8"))
    changed = {"model": model, "added_tokens": [], "post_processor": None, "pre_tokenizer": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts | changed))
    with pytest.raises(UnsupportedError, match="cannot hold a WordPiece tokenizer"):
        metadata_from_folder(tmp_path, 10)
