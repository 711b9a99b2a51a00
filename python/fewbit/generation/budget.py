"""End a model's reasoning after a number of tokens by forcing the marker that closes it."""

from __future__ import annotations

from collections import deque

from fewbit.errors import InputError
from fewbit.generation.reasoning import CHANNEL, CLOSING, MESSAGE, START, Harmony, splitter
from fewbit.tokenizer.tokenizer import Tokenizer


class Budget:
    """Counts the tokens of one answer's reasoning; beyond `limit` its closing marker is forced.

    `limit` None only counts. `answer` and `reasoning` are the text so far.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: str, limit: int | None = None) -> None:
        """Watch the answer after `prompt`, the text that the chat template wrote.

        Raises:
            InputError: `limit` is below 0.

        """
        if limit is not None and limit < 0:
            raise InputError(
                f"a reasoning budget of {limit} tokens, expected 0 or more",
                hint="leave it out for no limit",
            )
        self.tokens = 0
        self.forced = False
        self.answer = self.reasoning = ""
        self._splitter = splitter(tokenizer, prompt)
        self._limit = limit
        self._tokenizer = tokenizer
        self._pending: deque[int] = deque()

    def next(self, chosen: int) -> int:
        """The id to take in place of `chosen`: itself, or the next of the closing marker."""
        if self._pending:
            return self._pending.popleft()
        if not self._splitter.reasons:
            return chosen
        if self._limit is None or self.tokens < self._limit or self.forced:
            self.tokens += 1
            return chosen
        self.forced = True
        self._pending.extend(self._closing())
        return self._pending.popleft()

    def push(self, text: str) -> None:
        """Take the text that the id completed."""
        self._sort(self._splitter.push(text))

    def finish(self) -> None:
        """Take the text that waited; the answer is complete."""
        self._sort(self._splitter.finish())

    def _sort(self, pieces: object) -> None:
        for piece in pieces:  # type: ignore[attr-defined]
            if piece.kind == "answer":
                self.answer += piece.text
            elif piece.kind == "reasoning":
                self.reasoning += piece.text

    def _closing(self) -> list[int]:
        text = f"\n{CLOSING}\n\n"
        if isinstance(self._splitter, Harmony):
            text = f"<|end|>{START}assistant{CHANNEL}final{MESSAGE}"
        return self._tokenizer.encode(text, special=False, parse_special=True)
