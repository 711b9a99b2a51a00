"""Build a tokenizer from the metadata of a GGUF file.

Three of GGUF's kinds are supported: ``gpt2``, byte-level BPE after splitting by a pattern named in
`tokenizer.ggml.pre`; ``llama``, SentencePiece BPE with scores; and ``t5``, SentencePiece's unigram
model. A tokenizer that these keys cannot describe is stored as its tokenizer.json in the key
`tokenizer.huggingface.json`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.gguf import Metadata, readable
from fewbit.tokenizer.library import guarded
from fewbit.tokenizer.pieces import NORMAL, Pieces, add_special, ids_of, wrap
from fewbit.tokenizer.splittings import SPLITTINGS, Splitting
from fewbit.tokenizer.tokenizer import Tokenizer, backend_of_json, stop_ids

JSON_KEY = "tokenizer.huggingface.json"
ENDS_KEY = "tokenizer.fewbit.end_token_ids"
"""Ids that end a text besides EOS, where they are more than GGUF has keys for (EOT, EOM)."""


_Kinds = type | tuple[type, ...]


def build(metadata: Metadata, path: Path) -> Tokenizer:
    """Build the tokenizer that `metadata` describes; errors name `path`.

    Raises:
        FileFormatError: keys are missing or contradict each other.
        UnsupportedError: the kind of tokenizer is not supported.

    """
    hint = "convert the model to GGUF again, with its tokenizer"
    with guarded(FileFormatError, f"`{path}`: the tokenizer is damaged", hint):
        return _built(_Values(metadata, path), path)


def _built(values: _Values, path: Path) -> Tokenizer:
    if (json_text := values.text(JSON_KEY)) is not None:
        backend = backend_of_json(json_text, f"`{path}`: `{JSON_KEY}`")
        adds_bos = adds_eos = False
    else:
        backend, adds_bos, adds_eos = _backend(values)
    bos, eos = values.id("bos"), values.id("eos")
    listed = values.get(ENDS_KEY)
    ends: list[Any] = [
        values.id("eot"),
        values.id("eom"),
        *(listed if isinstance(listed, list) else []),
    ]
    adds_bos = values.flag("add_bos_token", adds_bos) and bos is not None
    if json_text is None:
        adds_eos = values.flag("add_eos_token", adds_eos)
        wrap(backend, bos if adds_bos else None, eos if adds_eos else None)
    return Tokenizer(
        backend, bos, eos, stop_ids(backend, ends, eos), adds_bos,
        values.text("tokenizer.chat_template"),
    )  # fmt: skip


class _Values:
    """Tokenizer keys of a GGUF file; the type of a value is checked when it is read."""

    def __init__(self, metadata: Metadata, path: Path) -> None:
        self._metadata = metadata
        self.path = path
        self.tokens: list[str] = self.array("tokens", str)

    def get(self, key: str) -> Any:
        field = self._metadata.get(key)
        return None if field is None else field.value

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a string")
        return None if value is None else readable(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(f"tokenizer.ggml.{key}")
        return default if value is None else bool(value)

    def id(self, kind: str) -> int | None:
        key = f"tokenizer.ggml.{kind}_token_id"
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, f"a token id below {len(self.tokens)}")
        if not 0 <= value < len(self.tokens):
            warnings.warn(
                f"`{self.path}`: `{key}` is {value}, passed over: "
                f"the vocabulary has {len(self.tokens)} tokens",
                stacklevel=2,
            )
            return None
        return value

    def array(self, key: str, item: _Kinds, default: list[Any] | None = None) -> list[Any]:
        found = self.get(f"tokenizer.ggml.{key}")
        value = default if found is None else found
        if not isinstance(value, list) or not all(isinstance(v, item) for v in value):
            raise self.wrong(f"tokenizer.ggml.{key}", f"a list of {_named(item)}")
        return [readable(v) for v in value] if item is str else value

    def per_token(self, key: str, item: _Kinds, default: list[Any] | None = None) -> list[Any]:
        values = self.array(key, item, default)
        if len(values) != len(self.tokens):
            raise self.wrong(
                f"tokenizer.ggml.{key}", f"{len(self.tokens)} values, one for each token"
            )
        return values

    def wrong(self, key: str, expected: str) -> FileFormatError:
        what = "is missing" if self.get(key) is None else f"must be {expected}"
        return FileFormatError(
            f"`{self.path}`: `{key}` {what}",
            hint="convert the model to GGUF again, with its tokenizer",
            path=str(self.path),
            key=key,
        )


def _named(kinds: _Kinds) -> str:
    return "numbers" if isinstance(kinds, tuple) else kinds.__name__


def _backend(values: _Values) -> tuple[tokenizers.Tokenizer, bool, bool]:
    """The library's tokenizer, and the defaults of adding BOS and EOS to a text."""
    kind = values.text("tokenizer.ggml.model")
    types = values.per_token("token_type", int, [NORMAL] * len(values.tokens))
    if kind == "llama":
        return _pieces(values, types).bpe(), True, False
    if kind == "t5":
        return _pieces(values, types).unigram(), False, True
    if kind == "gpt2":
        splitting = _splitting(values)
        backend = _byte_level(values, splitting)
        add_special(backend, values.tokens, types)
        return backend, splitting.adds_bos, False
    raise UnsupportedError(
        f"`{values.path}`: unknown tokenizer `{kind}`", hint="known: llama, gpt2, t5"
    )


def _pieces(values: _Values, types: Sequence[int]) -> Pieces:
    charsmap = values.array("precompiled_charsmap", int, [])
    return Pieces(
        values.tokens,
        [float(score) for score in values.per_token("scores", (float, int))],
        types,
        values.id("unknown"),
        byte_fallback=values.text("tokenizer.ggml.model") == "llama",
        adds_space=values.flag("add_space_prefix", True),
        trims_spaces=values.flag("remove_extra_whitespaces"),
        charsmap=bytes(code & 255 for code in charsmap),
    )


def _splitting(values: _Values) -> Splitting:
    name = values.text("tokenizer.ggml.pre") or "default"
    for splitting in SPLITTINGS:
        if name in splitting.names:
            return splitting
    known = ", ".join(splitting.names[0] for splitting in SPLITTINGS)
    raise UnsupportedError(
        f"`{values.path}`: unknown pre-tokenizer `{name}`",
        hint=f"known: {known}; or load the original Hugging Face folder",
    )


def _byte_level(values: _Values, splitting: Splitting) -> tokenizers.Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in values.array("merges", str)]
    vocab = ids_of(values.tokens)
    known = [
        merge
        for merge in merges
        if len(merge) == 2 and all(p in vocab for p in (*merge, "".join(merge)))
    ]
    if len(known) != len(merges):
        raise values.wrong("tokenizer.ggml.merges", "pairs of tokens that join to a token")
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=known, ignore_merges=splitting.ignores_merges)
    )
    if splitting.normal_form:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(p), "isolated") for p in splitting.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend
