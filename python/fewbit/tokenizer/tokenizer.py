"""Convert text to token ids and back, with the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers

from fewbit.errors import FileFormatError, InputError
from fewbit.moved import Renamed

END_TOKENS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<end_of_turn>", "</s>", "<|return|>", "<|call|>",
)  # fmt: skip
"""Special tokens that end a text or a turn in any vocabulary that has them."""
_CHANNELS, _CHANNEL_END = {"<|channel|>", "<|return|>"}, "<|end|>"
"""Tokens of a vocabulary with channels: there `<|end|>` ends the text of a channel, not a turn."""
_REPLACEMENT = "\ufffd"
_CONTEXT = 8
"""Previous tokens that are decoded with the first new one: more than any character takes."""


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
        otherwise they are plain text.

        Raises:
            InputError: the text holds lone surrogates, as Python reads bytes that are not UTF-8.

        """
        if not text.isascii():
            _check_unicode(text)
        self.backend.encode_special_tokens = not parse_special
        return list(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become the replacement character."""
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
        found = self.backend.id_to_token(id_)
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
    tokens before, so each piece is the difference between two decodings of the last tokens.
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
        """Return the text that `token` completes, "" while a character is incomplete."""
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
        """Return the remaining text; incomplete characters become the replacement character."""
        text = self._pending()
        self._shown = len(self._ids)
        return text

    def _pending(self) -> str:
        before = self._tokenizer.decode(self._ids[self._first : self._shown])
        return self._tokenizer.decode(self._ids[self._first :])[len(before) :]


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
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise FileFormatError(
            f"{where} is not a valid tokenizer: {error}", hint="take the original tokenizer.json"
        ) from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def stop_ids(backend: tokenizers.Tokenizer, declared: Any, eos: int | None) -> frozenset[int]:
    """Return the ids that end a text: `declared` ones, EOS, and known special tokens."""
    listed = declared if isinstance(declared, list) else [declared]
    added = backend.get_added_tokens_decoder()
    ends = {token.content: id_ for id_, token in added.items() if token.special}
    if ends.keys() >= _CHANNELS:
        ends.pop(_CHANNEL_END, None)
    known = [id_ for text, id_ in ends.items() if text in END_TOKENS]
    return frozenset(id_ for id_ in (*listed, eos, *known) if isinstance(id_, int))
