"""The text of tokens that follow a prompt, and where it ends, whoever chooses the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fewbit.errors import InputError
from fewbit.generation.budget import Budget
from fewbit.generation.reasoning import first_of, held_back
from fewbit.tokenizer.tokenizer import Tokenizer

Finish = Literal["stop", "length", "context"]
"""Why text ended: a stop token or string, the limit on new tokens, or a full context."""


class Continuation:
    """Takes tokens one by one, gives pieces of text that are final, and says when text ends.

    `tokens` are those of the text, without a stop token; `text` is the text so far, without what
    may become a stop string; `finish` is None until the end.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        context: int,
        stop: str | Sequence[str] = (),
        spelled: frozenset[int] = frozenset(),
        shows_end: bool = False,
        budget: Budget | None = None,
    ) -> None:
        """Begin after `prompt`, of whose `context` the prompt and all but the last token take part.

        Special tokens give no text, except those in `spelled`, and a stop token with `shows_end`.
        `budget` is told the text of each token.

        Raises:
            InputError: `max_tokens` is below 1, or a stop string is empty.

        """
        if max_tokens < 1:
            raise InputError(f"cannot make {max_tokens} tokens", hint="use 1 or more")
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stop:
            raise InputError("a stop string is empty", hint="leave it out")
        self.tokens: list[int] = []
        self.text = ""
        self.finish: Finish | None = None
        self._limit, self._room = max_tokens, context - len(prompt) + 1
        self._stop_ids, self._shows_end = tokenizer.stop_ids, shows_end
        self._decoder = tokenizer.decoder(prompt, spelled)
        self._budget = budget
        self._held = ""

    def push(self, token: int) -> str:
        """The text that `token` makes final, all that is left at the end; sets `finish` there."""
        if token in self._stop_ids:
            self.finish = "stop"
            self._held += self._decoder.push(token) if self._shows_end else ""
        else:
            self.tokens.append(token)
            piece = self._decoder.push(token)
            if self._budget is not None:
                self._budget.push(piece)
            self._held += piece
            if len(self.tokens) >= self._limit:
                self.finish = "length"
            elif len(self.tokens) >= self._room:
                self.finish = "context"
        if self._stopped():
            return self._take(len(self._held))
        if self.finish is not None:
            self._held += self._decoder.finish()
            self._stopped()
            return self._take(len(self._held))
        return self._take(len(self._held) - held_back(self._held, self._stop))

    def _stopped(self) -> bool:
        """Whether a stop string has come; what follows it is dropped."""
        found = first_of(self._held, self._stop)
        if found is not None:
            self.finish, self._held = "stop", self._held[: found[0]]
        return found is not None

    def _take(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        self.text += piece
        return piece
