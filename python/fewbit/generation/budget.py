"""End a model's reasoning after a number of tokens: the closing marker is given, not chosen."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fewbit.errors import InputError
from fewbit.generation.reasoning import marker_ids, splitter
from fewbit.tokenizer.tokenizer import Tokenizer


class ReasoningBudget:
    """Counts the tokens of a reasoning, and gives those that close it once there are too many.

    Ask `forced` before each choice, and `accept` each token, chosen or given.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: str, ids: Sequence[int], tokens: int, message: str = ""
    ) -> None:
        """Allow `tokens` tokens of reasoning after `prompt`, whose ids are `ids`.

        `message` is put before the closing marker, as part of the reasoning.

        Raises:
            InputError: `tokens` is below 0.

        """
        if tokens < 0:
            raise InputError(
                f"a reasoning budget of {tokens} tokens, expected 0 or more",
                hint="leave it out for no limit",
            )
        self._splitter = splitter(tokenizer, prompt)
        self._decoder = tokenizer.decoder(ids, marker_ids(tokenizer))
        closing = message + self._splitter.closing
        self._closing = tokenizer.encode(closing, special=False, parse_special=True)
        self._left = tokens
        self._given: deque[int] | None = None
        self._check()

    def forced(self) -> int | None:
        """The next token if it is given, None if it is to be chosen."""
        return self._given[0] if self._given else None

    def accept(self, token: int) -> None:
        """Take the next token."""
        if self._given:
            self._given.popleft()
        for _ in self._splitter.push(self._decoder.push(token)):
            pass
        self._left -= self._splitter.reasons
        self._check()

    def _check(self) -> None:
        """Begin to close the reasoning if no token is left; once, whatever the text becomes."""
        if self._left <= 0 and self._splitter.reasons and self._given is None:
            self._given = deque(self._closing)
