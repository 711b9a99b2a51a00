"""Convert text to token ids and back, with the `tokenizers` library."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers
from tokenizers import models

from fewbit.errors import FileFormatError, InputError
from fewbit.moved import Renamed
from fewbit.tokenizer.library import IDS, check_growth, guarded, is_id
from fewbit.tokenizer.pieces import cut_special

END_TOKENS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<end_of_turn>", "</s>", "<|return|>", "<|call|>",
)  # fmt: skip
"""Special tokens that end a text or a turn in any vocabulary that has them."""
_CHANNELS, _CHANNEL_END = {"<|channel|>", "<|return|>"}, "<|end|>"
"""Tokens of a vocabulary with channels: there `<|end|>` ends the text of a channel, not a turn."""
_SHORTER = "break up words and runs of spaces that are millions of characters long"
_REPLACEMENT = "\ufffd"
_CONTEXT = 8
"""Previous tokens that are decoded with the first new one: more than any character takes."""
_CHARACTER = 4
"""The most tokens of one character, which are single bytes."""

_flags = threading.Lock()
"""Held while a text is encoded: the library keeps how in a flag, which all threads share."""


def _renew_lock() -> None:
    global _flags
    _flags = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may hold it at the fork
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary with its rules of splitting and merging.

    `bos` and `eos` are the ids of the begin and end tokens, None if there is none. Generation ends
    at any of `stop_ids`. `adds_bos` is True if `encode` puts `bos` before a text.
    """

    backend: tokenizers.Tokenizer = field(repr=False)
    bos: int | None = None
    eos: int | None = None
    stop_ids: frozenset[int] = frozenset()
    adds_bos: bool = False
    chat_template: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Give up the cache of merged words, which `tokenizers` never frees, not even with it."""
        resize = getattr(self.backend.model, "_resize_cache", None)
        if resize is not None:
            resize(0)

    def encode(self, text: str, special: bool = True, parse_special: bool = False) -> list[int]:
        """Return the token ids of `text`.

        `special` adds BOS and any other token that the tokenizer puts around a text.
        `parse_special` reads special tokens written in the text as tokens, as chat templates need;
        otherwise they are plain text. Threads may call it at once; they take turns.

        Raises:
            InputError: the text holds lone surrogates, as Python reads bytes that are not UTF-8, or
                the library cannot encode it, such as a word of 10 million letters.

        """
        with guarded(InputError, "the tokenizer cannot encode the text", _SHORTER):
            if not text.isascii():
                _check_unicode(text)
            with _flags:
                self.backend.encode_special_tokens = not parse_special
                return list(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become the replacement character.

        Raises:
            InputError: an id is below 0 or above the largest that the library knows.

        """
        with guarded(InputError, "the tokenizer cannot decode the ids", "give ids of tokens"):
            if (wrong := next((id_ for id_ in ids if not 0 <= id_ < IDS), None)) is not None:
                raise InputError(
                    f"token ids must be from 0 to {IDS - 1}, found {wrong}",
                    hint="give ids that this tokenizer made",
                )
            return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def decoder(
        self, after: Sequence[int] = (), spelled: frozenset[int] = frozenset()
    ) -> TextDecoder:
        """Return a decoder of ids that come one by one and follow the ids `after`.

        Special tokens give no text, except those in `spelled`.
        """
        return TextDecoder(self, after, spelled)

    stream = Renamed("decoder")

    def token(self, id_: int) -> str | None:
        """Return the text of a token in the vocabulary, None for unknown ids."""
        found = self.backend.id_to_token(id_) if is_id(id_) else None
        return None if found is None else str(found)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids of tokens that the vocabulary calls special, and of those that end a text."""
        added = self.backend.get_added_tokens_decoder()
        return frozenset(id_ for id_, token in added.items() if token.special) | self.stop_ids

    @cached_property
    def vocab(self) -> dict[str, int]:
        """All tokens and their ids, added tokens included."""
        return dict(self.backend.get_vocab(with_added_tokens=True))


class TextDecoder:
    """Decodes tokens one by one into pieces of text that are final.

    A character may take several tokens, and the leading space of the first token depends on the
    tokens before, so each piece is the difference between two decodings of the last tokens. Where
    the tokens before end inside a character, the first piece has all of it.
    """

    def __init__(
        self, tokenizer: Tokenizer, after: Sequence[int], spelled: frozenset[int] = frozenset()
    ) -> None:
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._ids = self._context(after)
        self._shown = len(self._ids)
        self._first = 0

    def push(self, token: int) -> str:
        """Return the text that `token` completes, "" while a character is incomplete."""
        if token in self._spelled:
            before = self.finish()
            self._ids.append(token)
            self._first = self._shown = len(self._ids)
            return before + (self._tokenizer.token(token) or "")
        self._ids.append(token)
        text, start = self._pending()
        if not text or text.endswith(_REPLACEMENT):
            return ""
        self._first, self._shown = start, len(self._ids)
        return text

    def finish(self) -> str:
        """Return the remaining text; incomplete characters become the replacement character."""
        text, _ = self._pending()
        self._shown = len(self._ids)
        return text

    def _pending(self) -> tuple[str, int]:
        """The text that is not shown yet, and the number of tokens before its first character."""
        text = self._tokenizer.decode(self._ids[self._first :])
        before = self._decoded(self._shown)
        if text.startswith(before):
            return text[len(before) :], self._shown
        for end in range(self._shown - 1, max(self._first, self._shown - _CHARACTER) - 1, -1):
            whole = self._decoded(end)  # without the bytes of a character that is complete now
            if not whole.endswith(_REPLACEMENT) and text.startswith(whole):
                return text[len(whole) :], end
        return text[len(before.rstrip(_REPLACEMENT)) :], self._shown

    def _decoded(self, end: int) -> str:
        return self._tokenizer.decode(self._ids[self._first : end])

    def _context(self, after: Sequence[int]) -> list[int]:
        """The last tokens of `after`, from the begin of a character on."""
        for size in range(_CONTEXT, _CONTEXT + _CHARACTER):
            found = list(after[-size:])
            for cut in range(_CHARACTER):  # a decoder may take no byte of a sequence that is cut
                text = self._tokenizer.decode(found[: len(found) - cut])
                if text and not text.startswith(_REPLACEMENT):
                    return found
        return list(after[-_CONTEXT:])


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text is not valid UTF-8: it has the character {text[error.start]!r}",
            hint="save or pipe the text as UTF-8",
        ) from None


def backend_of_json(text: str, where: str) -> tokenizers.Tokenizer:
    """Build the library's tokenizer from the text of tokenizer.json; errors name `where`.

    Raises:
        FileFormatError: the library refuses the text.

    """
    hint = "take the original tokenizer.json"
    with guarded(FileFormatError, f"{where} is not a valid tokenizer", hint):
        backend = tokenizers.Tokenizer.from_str(text)
        if isinstance(backend.model, models.Unigram):
            added = backend.get_added_tokens_decoder().values()
            cut_special(backend, sorted(t.content for t in added if t.special), known=text)
    backend.no_truncation()
    backend.no_padding()
    check_growth(backend, where)
    return backend


def stop_ids(backend: tokenizers.Tokenizer, declared: Any, eos: int | None) -> frozenset[int]:
    """Return the ids that end a text: `declared` ones, EOS, and known special tokens."""
    listed = declared if isinstance(declared, list) else [declared]
    added = backend.get_added_tokens_decoder()
    ends = {token.content: id_ for id_, token in added.items() if token.special}
    if ends.keys() >= _CHANNELS:
        ends.pop(_CHANNEL_END, None)
    known = [id_ for text, id_ in ends.items() if text in END_TOKENS]
    return frozenset(id_ for id_ in (*listed, eos, *known) if is_id(id_))
