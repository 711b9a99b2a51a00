"""Conversations with a model, by its own chat template or as plain turns if it has none."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fewbit.errors import InputError
from fewbit.generation.reasoning import Piece, Splitter, marker_ids, splitter
from fewbit.generation.text import Generation, Session, generate
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampling import Sampling

Message: TypeAlias = Mapping[str, Any]
"""OpenAI's message: `role` (system, user or assistant) and `content`, a text or a list of them."""


class Reply(Iterator[Piece]):
    """An answer that is being generated: iterate over its pieces; `text` and `reasoning` grow.

    `text` is the answer, `reasoning` what the model writes before it; `made` is the generation of
    both, with its counts. `dropped` counts the turns that were forgotten to make room for it.
    """

    def __init__(self, made: Generation, pieces: Splitter) -> None:
        self.made = made
        self.text = ""
        self.reasoning = ""
        self.dropped = 0
        self._splitter = pieces
        self._pieces = self._run()

    def __next__(self) -> Piece:
        return next(self._pieces)

    def __str__(self) -> str:
        """The whole answer; what is not made yet is made now."""
        for _ in self:
            pass
        return self.text

    def __repr__(self) -> str:
        state = self.made.finish or "running"
        return f"<fewbit Reply: {len(self.made.tokens)} tokens, {state}: {self.text!r}>"

    def _run(self) -> Iterator[Piece]:
        for written in self.made:
            yield from self._count(self._splitter.push(written))
        yield from self._count(self._splitter.finish())

    def _count(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if piece.kind == "answer":
                self.text += piece.text
            else:
                self.reasoning += piece.text
            yield piece


class Conversation:
    """The messages so far, and the `Session` whose KV cache holds them."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        system: str | None = None,
        context: int | None = None,
        acts: Activations = "int8",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Start an empty conversation, with the system message `system` if given.

        The chat template sees each of `chat_template_kwargs` under its name.

        It may take `context` tokens, by default the model's context, at most 4,096: the KV cache
        of a long context can take more memory than the weights.

        Raises:
            InputError: `context` is not within the model's.

        """
        self.session = Session(model, context or min(model.config.context, 4096), acts)
        self._options = chat_template_kwargs
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[Message] = list(self._system)

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = list(self._system)

    def remember(self, text: str, answer: str) -> None:
        """Add a user's text and its answer to the conversation."""
        self.messages.append({"role": "user", "content": text})
        self.messages.append({"role": "assistant", "content": answer})

    def ask(self, text: str, *, max_tokens: int = 512, sampling: Sampling | None = None) -> Reply:
        """Answer `text`; `remember` adds both to the conversation when the answer is complete.

        Where the conversation leaves too little of the context for an answer (`max_tokens`, or a
        quarter of the context if that is less), its oldest turns are forgotten: `Reply.dropped`.

        Raises:
            InputError: the template refuses the conversation; on the first piece, the system
                message and `text` do not fit in the context.

        """
        room = min(max_tokens, self.session.context // 4)
        for dropped in itertools.count():
            messages = [*self.messages, {"role": "user", "content": text}]
            reply = reply_to(
                self.session.model, messages, max_tokens=max_tokens, sampling=sampling,
                session=self.session, chat_template_kwargs=self._options,
            )  # fmt: skip
            reply.dropped = dropped
            fits = len(reply.made.prompt) + room <= self.session.context
            if fits or not self._drop_oldest():
                break
        return reply

    def _drop_oldest(self) -> bool:
        """Forget the oldest turn; False if there is none."""
        first = len(self._system)
        if len(self.messages) < first + 2:
            return False
        del self.messages[first : first + 2]
        return True


def reply_to(
    model: LoadedModel,
    messages: str | Sequence[Message],
    *,
    max_tokens: int = 512,
    sampling: Sampling | None = None,
    stop: str | Sequence[str] = (),
    acts: Activations = "int8",
    session: Session | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Reply:
    """The answer of `model` to `messages`, or to one user's text, piece by piece.

    The model's chat template sees `tools` and each of `chat_template_kwargs` under its name.

    Raises:
        InputError: a message has another shape, the template refuses the conversation, or it does
            not fit the context.

    """
    said = texts_of(messages)
    tokenizer = model.tokenizer
    ends = (stop,) if isinstance(stop, str) else tuple(stop)
    if tokenizer.chat_template is None:
        if tools:
            raise InputError(
                "the model has no chat template that could describe tools",
                hint="take an instruction-tuned model",
            )
        written, ends = plain(said), ("\nUser:", *ends)
        prompt = tokenizer.encode(written, special=True)
    else:
        from fewbit.tokenizer.template import render  # imports jinja2

        written = render(tokenizer, said, tools=tools, chat_template_kwargs=chat_template_kwargs)
        prompt = tokenizer.encode(written, special=False, parse_special=True)
        begins = model.checkpoint.metadata is not None and tokenizer.adds_bos
        if begins and tokenizer.bos is not None and prompt[:1] != [tokenizer.bos]:
            prompt.insert(0, tokenizer.bos)  # templates of GGUF files may leave it to the runtime
    made = generate(
        model,
        prompt,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=ends,
        acts=acts,
        session=session,
        spelled=marker_ids(tokenizer),
    )
    return Reply(made, splitter(tokenizer, written))


def texts_of(messages: str | Sequence[Message]) -> list[dict[str, Any]]:
    """Messages with their content as one text each; a text alone is a user's message.

    Content may be OpenAI's list of parts, `{"type": "text", "text": ...}`, which are joined.

    Raises:
        InputError: there is no message, or one has no role, or content other than text.

    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not messages:
        raise InputError("there are no messages", hint="give at least one user's message")
    return [_message(index, message) for index, message in enumerate(messages)]


def _message(index: int, message: Message) -> dict[str, Any]:
    where = f"message {index + 1}"
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InputError(
            f"{where} is {message!r}, expected a dict with `role` and `content`",
            hint='such as {"role": "user", "content": "Hello"}',
        )
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_text(where, part) for part in content)
    if content is None and message.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise InputError(f"the content of {where} is {content!r}, expected text")
    return {**message, "role": str(message["role"]), "content": content}


def _text(where: str, part: object) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind != "text" or not isinstance(text, str):
        raise InputError(
            f"{where} has content of type `{kind}`, expected `text`",
            hint="fewbit runs the text part of models: images and audio are not read",
        )
    return text


def plain(messages: Sequence[Mapping[str, str]]) -> str:
    """Write messages as turns of named speakers, ending where the assistant speaks.

    >>> plain([{"role": "user", "content": "Hello"}])
    'User: Hello\\nAssistant:'
    """
    lines = [
        f"{message['role'].capitalize()}: {message['content'].strip()}" for message in messages
    ]
    return "\n".join([*lines, "Assistant:"])
