"""Text to token ids and back, by the `tokenizers` library; what GGUF or a folder says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers

from fewbit.errors import FileFormatError

END_TOKENS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<end_of_turn>", "</s>", "<|return|>", "<|call|>",
)  # fmt: skip
"""Special tokens that end a text or a turn wherever a vocabulary has them."""
_CHANNELS, _PART_END = {"<|channel|>", "<|return|>"}, "<|end|>"
"""Where a vocabulary has channels, this ends what is said in one, and no turn."""
_REPLACEMENT = "\ufffd"
_CONTEXT = 8
"""Tokens before a stream that are decoded with its first: more than any character takes."""


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary with its rules.

    `stop_ids` end what a model writes. `adds_bos` says whether a text begins with `bos`.
    """

    backend: tokenizers.Tokenizer = field(repr=False)
    bos: int | None = None
    eos: int | None = None
    stop_ids: frozenset[int] = frozenset()
    adds_bos: bool = False
    chat_template: str | None = field(default=None, repr=False)

    def encode(self, text: str, special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of `text`.

        `special` adds BOS (and what else the tokenizer puts around a text); `parse_special` reads
        special tokens that are spelled out in the text, as chat templates do, where otherwise
        they are text like any other.
        """
        self.backend.encode_special_tokens = not parse_special
        return list(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 come out as the replacement character."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def stream(self, after: Sequence[int] = (), spelled: frozenset[int] = frozenset()) -> Stream:
        """A decoder for ids that come one by one, following `after`.

        Special tokens leave no text, but for those in `spelled`.
        """
        return Stream(self, after, spelled)

    def token(self, id_: int) -> str | None:
        """How the vocabulary spells a token; None for ids that it does not have."""
        found = self.backend.id_to_token(id_)
        return None if found is None else str(found)

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Every token with its id, the added ones included."""
        return dict(self.backend.get_vocab(with_added_tokens=True))


class Stream:
    """Text piece by piece: what is returned never changes afterwards.

    A character may take several tokens, and the first token's leading space depends on what went
    before, so each piece is the difference between two decodings of the last few tokens.
    """

    def __init__(
        self, tokenizer: Tokenizer, after: Sequence[int], spelled: frozenset[int] = frozenset()
    ) -> None:
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._ids = list(after[-_CONTEXT:])
        self._shown = len(self._ids)
        self._first = 0

    def push(self, token: int) -> str:
        """The text that `token` completes, "" while a character is incomplete."""
        if token in self._spelled:
            before = self.finish()
            self._ids.append(token)
            self._first = self._shown = len(self._ids)
            return before + (self._tokenizer.token(token) or "")
        self._ids.append(token)
        text = self._pending()
        if not text or text.endswith(_REPLACEMENT):
            return ""
        self._first, self._shown = self._shown, len(self._ids)
        return text

    def finish(self) -> str:
        """What is left, incomplete characters as the replacement character."""
        text = self._pending()
        self._shown = len(self._ids)
        return text

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._ids[self._first : self._shown])
        return self._tokenizer.decode(self._ids[self._first :])[len(before) :]


def backend_of_json(text: str, where: str) -> tokenizers.Tokenizer:
    """The library's tokenizer from its own JSON; `where` is named in errors.

    Raises:
        FileFormatError: the library does not take it.

    """
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise FileFormatError(
            f"{where} is no tokenizer: {error}", hint="take the original tokenizer.json"
        ) from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def stop_ids(backend: tokenizers.Tokenizer, declared: Any, eos: int | None) -> frozenset[int]:
    """The ids that end a text: those that are declared, and well-known special tokens."""
    listed = declared if isinstance(declared, list) else [declared]
    added = backend.get_added_tokens_decoder()
    ends = {token.content: id_ for id_, token in added.items() if token.special}
    if ends.keys() >= _CHANNELS:
        ends.pop(_PART_END, None)
    known = [id_ for text, id_ in ends.items() if text in END_TOKENS]
    return frozenset(id_ for id_ in (*listed, eos, *known) if isinstance(id_, int))
