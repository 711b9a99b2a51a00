"""A conversation: the model's own chat template, or plain turns where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fewbit.generation.reasoning import Piece, Splitter, marker_ids, splitter
from fewbit.generation.text import Generation, Session, generate
from fewbit.run.sampling import Sampling

if TYPE_CHECKING:
    from fewbit.api import Model

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""


class Reply(Iterator[Piece]):
    """An answer as it is made: iterate over its pieces; `text` and `reasoning` grow meanwhile.

    `made` is all that the model writes, with its counts; `text` is what it answers, `reasoning`
    what it thinks before.
    """

    def __init__(self, made: Generation, parts: Splitter) -> None:
        self.made = made
        self.text = ""
        self.reasoning = ""
        self._parts = parts
        self._pieces = self._run()

    def __next__(self) -> Piece:
        return next(self._pieces)

    def _run(self) -> Iterator[Piece]:
        for written in self.made:
            yield from self._count(self._parts.push(written))
        yield from self._count(self._parts.finish())

    def _count(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if piece.kind == "answer":
                self.text += piece.text
            else:
                self.reasoning += piece.text
            yield piece


class Conversation:
    """The messages so far and the `Session` whose cache has them."""

    def __init__(
        self,
        model: Model,
        *,
        system: str | None = None,
        context: int | None = None,
        acts: str = "int8",
    ) -> None:
        """An empty conversation, under the instruction `system` if there is one.

        It may take `context` tokens, by default 4,096 or what the model was made for if that is
        less: the cache of a long context can take more memory than the weights.

        Raises:
            InputError: `context` is not within the model's.

        """
        self.session = Session(model, context or min(model.config.context, 4096), acts)
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[Message] = list(self._system)

    def reset(self) -> None:
        """Forget everything but the instruction."""
        self.messages = list(self._system)

    def remember(self, text: str, answer: str) -> None:
        """Add what was said to the conversation."""
        self.messages.append({"role": "user", "content": text})
        self.messages.append({"role": "assistant", "content": answer})

    def ask(self, text: str, *, max_tokens: int = 512, sampling: Sampling | None = None) -> Reply:
        """The answer to `text`; once it is whole, `remember` keeps both.

        Raises:
            InputError: on the first piece, when the conversation no longer fits in the context.

        """
        messages = [*self.messages, {"role": "user", "content": text}]
        model = self.session.model
        tokenizer = model.tokenizer
        if tokenizer.chat_template is None:
            written, stop = plain(messages), ["\nUser:"]
            prompt = tokenizer.encode(written, special=True)
        else:
            from fewbit.tokenizer.template import render  # imports jinja2

            written, stop = render(tokenizer, messages), []
            prompt = tokenizer.encode(written, special=False, parse_special=True)
        made = generate(
            model,
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            session=self.session,
            spelled=marker_ids(tokenizer),
        )
        return Reply(made, splitter(tokenizer, written))


def plain(messages: Sequence[Message]) -> str:
    """The messages as a script with speakers, ending where the assistant speaks.

    >>> plain([{"role": "user", "content": "Hello"}])
    'User: Hello\\nAssistant:'
    """
    lines = [
        f"{message['role'].capitalize()}: {message['content'].strip()}" for message in messages
    ]
    return "\n".join([*lines, "Assistant:"])
