"""Vocabularies in the manner of SentencePiece: pieces of text with scores, BPE or unigram."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens; GGUF and SentencePiece have the same numbers."""
SPACE = "▁"


@dataclass(frozen=True)
class Pieces:
    """Tokens with score and type; how text is normalized before it is cut into them.

    `unknown` is the id of the token for text without tokens, None if there is none. A space is put
    before a text if `adds_space`. Spaces around it are taken away and runs of spaces become one if
    `trims_spaces`. `charsmap` is SentencePiece's table of replaced characters, empty for none.
    Characters without a token become bytes if `byte_fallback`.
    """

    tokens: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    unknown: int | None
    byte_fallback: bool = True
    adds_space: bool = True
    trims_spaces: bool = False
    charsmap: bytes = b""

    def bpe(self) -> tokenizers.Tokenizer:
        """Tokens are merged from characters, those with the highest score first."""
        unknown = None if self.unknown is None else self.tokens[self.unknown]
        return self._around(
            models.BPE(
                vocab=ids_of(self.tokens), merges=merges_of(self.tokens, self.scores, self.types),
                unk_token=unknown, fuse_unk=True, byte_fallback=self.byte_fallback,
            )
        )  # fmt: skip

    def unigram(self) -> tokenizers.Tokenizer:
        """A text becomes the tokens whose scores have the highest sum."""
        found = [
            (token, 0.0 if type_ == USER_DEFINED else float(score))
            for token, score, type_ in zip(self.tokens, self.scores, self.types, strict=True)
        ]
        backend = self._around(models.Unigram(found, self.unknown, self.byte_fallback))
        special = [t for t, type_ in self._typed() if type_ in (UNKNOWN, CONTROL)]
        cut_special(backend, special, BYTE in self.types)
        return backend

    def _typed(self) -> Iterator[tuple[str, int]]:
        return zip(self.tokens, self.types, strict=True)

    def _around(self, model: models.Model) -> tokenizers.Tokenizer:
        """The model with normalizer, decoder and added tokens."""
        backend = tokenizers.Tokenizer(model)
        steps: list[normalizers.Normalizer] = []
        if self.charsmap:
            steps.append(normalizers.Precompiled(self.charsmap))
        if self.trims_spaces:
            steps += [
                normalizers.Replace(Regex(r"\A +| +\z"), ""),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        steps += [normalizers.Prepend(SPACE)] if self.adds_space else []
        backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
        strip = [decoders.Strip(" ", 1, 0)] if self.adds_space else []
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        add_special(backend, self.tokens, self.types)
        return backend


def cut_special(
    backend: tokenizers.Tokenizer, special: Iterable[str], has_bytes: bool = False, known: str = ""
) -> None:
    """Cut text that reads as a control token or a byte: a unigram model would take it for one.

    Special tokens that are meant are found before. `known` is the tokenizer.json, which may have
    the cuts already.
    """
    patterns = [f"(?<={re.escape(t[:-1])}){re.escape(t[-1])}" for t in special if len(t) > 1]
    patterns += ["(?<=<0x[0-9A-F]{2})>"] if has_bytes else []
    pattern = "|".join(patterns)
    if not pattern or json.dumps(pattern, ensure_ascii=False) in known:
        return
    steps = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    cut = pre_tokenizers.Split(Regex(pattern), "merged_with_next")
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, cut])


def add_special(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Mark the tokens of a vocabulary that text is searched for before anything else."""
    backend.add_tokens(
        [
            AddedToken(token, special=type_ != USER_DEFINED, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in (CONTROL, USER_DEFINED, UNKNOWN)
        ]
    )


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


def ids_of(tokens: Iterable[str]) -> dict[str, int]:
    """The id of each token, the first one of a token that comes twice."""
    vocab: dict[str, int] = {}
    for id_, token in enumerate(tokens):
        vocab.setdefault(token, id_)
    return vocab


def wrap(backend: tokenizers.Tokenizer, bos: int | None, eos: int | None) -> None:
    """Put BOS before and EOS after each encoded text, where they are given."""
    around = {
        name: id_ for name, id_ in (("bos", bos), ("eos", eos)) if id_ is not None
    }  # a template has names, as a token's text may be `$A` or hold a colon
    if not around:
        return
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(name for name in ("bos", "$A", "eos") if name == "$A" or name in around),
        special_tokens=[
            {"id": name, "ids": [id_], "tokens": [str(backend.id_to_token(id_))]}
            for name, id_ in around.items()
        ],
    )
