"""Conversations with a model, by its own chat template or as plain turns if it has none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fewbit.errors import InputError
from fewbit.generation.budget import Budget
from fewbit.generation.reasoning import Harmony, Piece, Splitter, marker_ids, splitter
from fewbit.generation.text import Generation, Session, generate
from fewbit.generation.tools import Calls, Tool, ToolCall, parse, tool_marker_ids
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.sampling import Sampling

Message: TypeAlias = Mapping[str, Any]
"""OpenAI's message: `role` (system, user, assistant or tool) and `content`, a text or several.

An assistant's may have `tool_calls`; a tool's is the result of the call `tool_call_id`.
"""


class Reply(Iterator[Piece]):
    """An answer that is being generated: iterate over its pieces; `text` and `reasoning` grow.

    `text` is the answer, `reasoning` what the model writes before it; `made` is the generation of
    both, with its counts. `dropped` counts the turns that were forgotten to make room for it.
    `tool_calls` are the calls of `tools` that the model asks for, once the answer is complete:
    OpenAI's dicts, with arguments as a dict. Their text is no part of the answer.
    """

    def __init__(self, made: Generation, pieces: Splitter, tools: Sequence[Tool] = ()) -> None:
        self.made = made
        self.text = ""
        self.reasoning = ""
        self.tool_calls: list[ToolCall] = []
        self.dropped = 0
        self._tools = tools
        self._called = ""
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

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, with `tool_calls` if there are any; it is made now if need be.

        The reasoning before a call belongs to the message (`reasoning_content`), as templates
        show it to the model with the call's result.
        """
        message: dict[str, Any] = {"role": "assistant", "content": str(self)}
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
            harmony = isinstance(self._splitter, Harmony)
            if self.reasoning and not (harmony and self.text):  # its template refuses both
                message["reasoning_content"] = self.reasoning
        return message

    def _run(self) -> Iterator[Piece]:
        for written in self.made:
            yield from self._count(self._splitter.push(written))
        yield from self._count(self._splitter.finish())
        if self._called:
            self.tool_calls = parse(self._called, self._tools, len(self.made.prompt) * 1000)
            if not self.tool_calls:  # what looked like a call is an answer
                yield from self._count(iter([Piece("answer", self._called)]))

    def _count(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if piece.kind == "tool_call":
                self._called += piece.text
                continue
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
        tools: Sequence[Tool] | None = None,
        reasoning_budget: int | None = None,
    ) -> None:
        """Start an empty conversation, with the system message `system` if given.

        The chat template sees `tools` (JSON schemas of functions, as OpenAI has them) and each of
        `chat_template_kwargs` under its name. After `reasoning_budget` tokens a reasoning is ended.

        It may take `context` tokens, by default the model's context, at most 4,096: the KV cache
        of a long context can take more memory than the weights.

        Raises:
            InputError: `context` is not within the model's.

        """
        self.session = Session(model, context or min(model.config.context, 4096), acts)
        self._options = chat_template_kwargs
        self._tools, self._budget = tools, reasoning_budget
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[Message] = list(self._system)

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages = list(self._system)

    def undo(self) -> list[Message]:
        """Forget the last turn and return its messages, the user's first; none if there is none."""
        starts = self._starts()
        turn = self.messages[starts[-1] :] if starts else []
        del self.messages[len(self.messages) - len(turn) :]
        return turn

    def remember(
        self, said: str | Message | Sequence[Message], answer: str | Message | Reply
    ) -> None:
        """Add what `ask` was given, and its answer, to the conversation.

        Raises:
            InputError: one of them has another type.

        """
        turn = _said(said)
        if isinstance(answer, Reply):
            answer = answer.message
        if isinstance(answer, str):
            answer = {"role": "assistant", "content": answer}
        if not isinstance(answer, Mapping):
            raise InputError(f"the answer is {answer!r}, expected a text, a message or a `Reply`")
        self.messages += [*turn, answer]

    def ask(
        self,
        said: str | Message | Sequence[Message],
        *,
        max_tokens: int = 512,
        sampling: Sampling | None = None,
    ) -> Reply:
        """Answer a user's text, or messages such as the results of tools.

        `remember` adds both to the conversation when the answer is complete. Where the
        conversation leaves too little of the context for an answer (`max_tokens`, or a quarter of
        the context if that is less), its oldest turns are forgotten: `Reply.dropped`.

        >>> import fewbit
        >>> talk = fewbit.Conversation(fewbit.load("demo"))
        >>> reply = talk.ask("Who lives in the old house?", max_tokens=8)
        >>> talk.remember("Who lives in the old house?", reply)
        >>> [message["role"] for message in talk.messages]
        ['user', 'assistant']

        Raises:
            InputError: the template refuses the conversation; on the first piece, the system
                message and what is said do not fit in the context.

        """
        room = min(max_tokens, self.session.context // 4)
        new = _said(said)
        for dropped in itertools.count():
            reply = reply_to(
                self.session.model, [*self.messages, *new], max_tokens=max_tokens,
                sampling=sampling, session=self.session, tools=self._tools,
                chat_template_kwargs=self._options, reasoning_budget=self._budget,
            )  # fmt: skip
            reply.dropped = dropped
            fits = len(reply.made.prompt) + room <= self.session.context
            if fits or not self._drop_oldest(new):
                break
        return reply

    def _drop_oldest(self, new: Sequence[Message]) -> bool:
        """Forget the oldest turn; False if there is none, or `new` goes on with it."""
        starts = self._starts()
        goes_on = bool(new) and new[0].get("role") != "user"
        if len(starts) < 1 + goes_on:
            return False
        end = starts[1] if len(starts) > 1 else len(self.messages)
        del self.messages[starts[0] : end]
        return True

    def _starts(self) -> list[int]:
        """Where turns begin: at each message of the user, and at the first of any other."""
        first = len(self._system)
        return [
            at
            for at, message in enumerate(self.messages)
            if at >= first and (at == first or message.get("role") == "user")
        ]


def _said(said: str | Message | Sequence[Message]) -> list[Message]:
    if isinstance(said, str):
        return [{"role": "user", "content": said}]
    if isinstance(said, Mapping):
        return [said]
    given: Any = said
    if not isinstance(given, Sequence):
        raise InputError(f"what is said is {given!r}, expected a text, a message or several")
    return list(given)


def reply_to(
    model: LoadedModel,
    messages: str | Sequence[Message],
    *,
    max_tokens: int = 512,
    sampling: Sampling | None = None,
    stop: str | Sequence[str] = (),
    acts: Activations = "int8",
    session: Session | None = None,
    tools: Sequence[Tool] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    reasoning_budget: int | None = None,
) -> Reply:
    """The answer of `model` to `messages`, or to one user's text, piece by piece.

    The model's chat template sees `tools` and each of `chat_template_kwargs` under its name. With
    `tools`, the calls in the answer become `Reply.tool_calls`. After `reasoning_budget` tokens of
    reasoning (None: no limit) the model is given the marker that ends it.

    Raises:
        InputError: a message has another shape, the template refuses the conversation, it does not
            fit the context, or the budget is below 0.

    """
    tokenizer = model.tokenizer
    written, prompt, own = written_prompt(model, messages, tools, chat_template_kwargs)
    ends = (*own, *((stop,) if isinstance(stop, str) else stop))
    budget = None
    if reasoning_budget is not None:
        budget = Budget(tokenizer, written, reasoning_budget)
    made = generate(
        model,
        prompt,
        budget=budget,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=ends,
        acts=acts,
        session=session,
        spelled=marker_ids(tokenizer) | (tool_marker_ids(tokenizer) if tools else frozenset()),
    )
    pieces: Splitter = splitter(tokenizer, written, tools=bool(tools))
    if tools and not isinstance(pieces, Harmony):
        pieces = Calls(pieces)
    return Reply(made, pieces, tools or ())


def written_prompt(
    model: LoadedModel,
    messages: str | Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[str, list[int], tuple[str, ...]]:
    """The prompt that asks for an answer to `messages`: its text, its ids, its stop strings.

    The model's chat template writes it; without one it is turns of named speakers.

    Raises:
        InputError: a message has another shape, the template refuses the conversation, or there
            are `tools` but no template.

    """
    said = texts_of(messages)
    tokenizer = model.tokenizer
    if tokenizer.chat_template is None:
        if tools:
            raise InputError(
                "the model has no chat template that could describe tools",
                hint="take an instruction-tuned model",
            )
        written = plain(said)
        return written, tokenizer.encode(written, special=True), ("\nUser:",)
    from fewbit.tokenizer.template import render  # imports jinja2

    written = render(tokenizer, said, tools=tools, chat_template_kwargs=chat_template_kwargs)
    prompt = tokenizer.encode(written, special=False, parse_special=True)
    begins = model.checkpoint.metadata is not None and tokenizer.adds_bos
    if begins and tokenizer.bos is not None and prompt[:1] != [tokenizer.bos]:
        prompt.insert(0, tokenizer.bos)  # templates of GGUF files may leave it to the runtime
    return written, prompt, ()


def texts_of(messages: str | Sequence[Message]) -> list[dict[str, Any]]:
    """Messages with their content as one text each; a text alone is a user's message.

    Content may be OpenAI's list of parts, `{"type": "text", "text": ...}`, which are joined.

    Raises:
        InputError: there is no message, or one has no role, or content other than text.

    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    listed: Any = messages
    if not isinstance(listed, Sequence):
        raise InputError(f"the messages are {listed!r}, expected a text or a list of dicts")
    if not listed:
        raise InputError("there are no messages", hint="give at least one user's message")
    return [_message(index, message) for index, message in enumerate(listed)]


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
    found = {**message, "role": str(message["role"]), "content": content}
    if calls := message.get("tool_calls"):
        listed = calls if isinstance(calls, Sequence) else [calls]
        found["tool_calls"] = [_with_arguments(where, call) for call in listed]
    return found


def _with_arguments(where: str, call: object) -> dict[str, Any]:
    """A call whose arguments are a dict, which templates write as JSON; OpenAI has them as text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        raise InputError(
            f"{where} has a tool call without `function`: {call!r}",
            hint='such as {"type": "function", "function": {"name": "f", "arguments": {}}}',
        )
    given = function.get("arguments")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise InputError(
                f"the arguments of a tool call of {where} are not JSON: {given!r}"
            ) from None
    return {**call, "function": {**function, "arguments": given}}


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
