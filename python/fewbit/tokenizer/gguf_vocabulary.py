"""Build a tokenizer from the metadata of a GGUF file.

Two of GGUF's kinds are supported: ``gpt2``, byte-level BPE after splitting by a pattern named in
`tokenizer.ggml.pre`, and ``llama``, SentencePiece BPE with scores. A tokenizer that these keys
cannot describe is stored as its tokenizer.json in the key `tokenizer.huggingface.json`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from fewbit.errors import FileFormatError, UnsupportedError
from fewbit.files.gguf import Metadata, readable
from fewbit.tokenizer.library import library
from fewbit.tokenizer.tokenizer import Tokenizer, backend_of_json, stop_ids

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's token types."""
JSON_KEY = "tokenizer.huggingface.json"
ENDS_KEY = "tokenizer.fewbit.end_token_ids"
"""Ids that end a text besides EOS, where they are more than GGUF has keys for (EOT, EOM)."""
SPACE = "▁"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"


@dataclass(frozen=True)
class Splitting:
    """A rule of splitting text before byte-level BPE: GGUF's names for it, patterns in order.

    `ignores_merges` takes a word that is in the vocabulary as one token, without merging.
    `normal_form` composes characters first (NFC). `adds_bos` is the default of the file's own key.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    ignores_merges: bool = False
    normal_form: bool = False
    adds_bos: bool = False


SPLITTINGS = (
    Splitting(("gpt-2", "phi-2", "mpt", "olmo", "jais"), (GPT2,)),
    Splitting(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"),
        (_LLAMA3,),
        ignores_merges=True,
        adds_bos=True,
    ),
    Splitting(("dbrx", "smaug-bpe"), (_LLAMA3,)),
    Splitting(
        ("qwen2", "deepseek-r1-qwen", "megrez"),
        (_LLAMA3.replace("{1,3}", ""),),
        normal_form=True,
    ),
    Splitting(("smollm", "codeshell", "refact", "command-r", "starcoder"), (r"\p{N}", GPT2)),
    Splitting(("tekken",), (_TEKKEN,), ignores_merges=True, adds_bos=True),
    Splitting(("gpt-4o", "llama4"), (_GPT4O,)),
    Splitting(("qwen35",), (_QWEN35,), normal_form=True),
    Splitting(("default",), (_PUNCTUATION, GPT2.removesuffix(r"|\s+"), r"\p{N}+", "[0-9]{3}")),
)


def build(metadata: Metadata, path: Path) -> Tokenizer:
    """Build the tokenizer that `metadata` describes; errors name `path`.

    Raises:
        FileFormatError: keys are missing or contradict each other.
        UnsupportedError: the kind of tokenizer is not supported.

    """
    with library(f"`{path}` has no usable tokenizer", FileFormatError):
        return _built(_Values(metadata, path), path)


def _built(values: _Values, path: Path) -> Tokenizer:
    if (json_text := values.text(JSON_KEY)) is not None:
        backend, adds_bos = backend_of_json(json_text, f"`{path}`: `{JSON_KEY}`"), False
    else:
        backend, adds_bos = _backend(values)
    bos, eos = values.id("bos"), values.id("eos")
    listed = values.get(ENDS_KEY)
    ends = [values.id("eot"), values.id("eom"), *(listed if isinstance(listed, list) else [])]
    adds_bos = values.flag("add_bos_token", adds_bos) and bos is not None
    if json_text is None:
        _wrap(backend, bos if adds_bos else None, eos if values.flag("add_eos_token") else None)
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

    def array(self, key: str, item: type, default: list[Any] | None = None) -> list[Any]:
        found = self.get(f"tokenizer.ggml.{key}")
        value = default if found is None else found
        if not isinstance(value, list) or not all(isinstance(v, item) for v in value):
            raise self.wrong(f"tokenizer.ggml.{key}", f"a list of {item.__name__}")
        return [readable(v) for v in value] if item is str else value

    def per_token(self, key: str, item: type, default: list[Any] | None = None) -> list[Any]:
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


def _backend(values: _Values) -> tuple[tokenizers.Tokenizer, bool]:
    """The library's tokenizer, and the default of adding BOS to a text."""
    kind = values.text("tokenizer.ggml.model")
    types = values.per_token("token_type", int, [NORMAL] * len(values.tokens))
    if kind == "llama":
        backend, adds_bos = _sentencepiece(values, types), True
    elif kind == "gpt2":
        splitting = _splitting(values)
        backend, adds_bos = _byte_level(values, splitting), splitting.adds_bos
    else:
        raise UnsupportedError(
            f"`{values.path}`: unknown tokenizer `{kind}`", hint="known: llama, gpt2"
        )
    special = [
        AddedToken(token, special=type_ != USER_DEFINED, normalized=False)
        for token, type_ in zip(values.tokens, types, strict=True)
        if type_ in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    backend.add_tokens(special)
    return backend, adds_bos


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
    vocab = _vocab(values.tokens)
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


def _sentencepiece(values: _Values, types: Sequence[int]) -> tokenizers.Tokenizer:
    scores = values.per_token("scores", float)
    vocab = _vocab(values.tokens)
    unknown = values.id("unknown")
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges_of(values.tokens, scores, types),
            unk_token=None if unknown is None else values.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaced = values.flag("add_space_prefix", True)
    prepend = [normalizers.Prepend(SPACE)] if spaced else []
    backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if spaced else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def merges_of(
    tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]
) -> list[tuple[str, str]]:
    """Derive BPE merges from scores: any two tokens that join to a third, highest score first.

    >>> merges_of(["a", "b", "ab", "aba"], [0, 0, -1, -2], [1, 1, 1, 1])
    [('a', 'b'), ('ab', 'a')]
    """
    mergeable = {token: i for i, token in enumerate(tokens) if types[i] in (NORMAL, USER_DEFINED)}
    lengths = sorted({len(token) for token in mergeable})
    found = [
        (-scores[i], mergeable[token[:cut]], mergeable[token[cut:]])
        for token, i in mergeable.items()
        for cut in takewhile(len(token).__gt__, lengths)
        if cut and token[:cut] in mergeable and token[cut:] in mergeable
    ]
    return [(tokens[left], tokens[right]) for _, left, right in sorted(found)]


def _vocab(tokens: Iterable[str]) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for id_, token in enumerate(tokens):
        vocab.setdefault(token, id_)
    return vocab


def _wrap(backend: tokenizers.Tokenizer, bos: int | None, eos: int | None) -> None:
    """Put BOS before and EOS after each encoded text, where they are given."""
    around = {id_: str(backend.id_to_token(id_)) for id_ in (bos, eos) if id_ is not None}
    if not around:
        return
    text = ["$A"]
    if bos is not None:
        text.insert(0, around[bos])
    if eos is not None:
        text.append(around[eos])
    backend.post_processor = processors.TemplateProcessing(
        single=text, special_tokens=[(token, id_) for id_, token in around.items()]
    )
