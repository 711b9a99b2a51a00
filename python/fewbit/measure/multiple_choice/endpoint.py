"""Ask a model behind a URL: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import math
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from fewbit.errors import InputError
from fewbit.measure.multiple_choice.answers import Answer, Prompted, Writing

PARALLEL = 8


@dataclass(frozen=True)
class Endpoint:
    """A server's URL up to `/v1`, the name that it has for the model, and a key if it wants one.

    Each request may take `timeout` seconds.

    Raises:
        InputError: the URL is not one of http or https.

    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 3600.0

    def __post_init__(self) -> None:
        parsed = urllib.parse.urlsplit(self.url)
        if parsed.scheme not in ("http", "https") or not parsed.hostname:
            raise InputError(
                f"`{self.url}` is not a URL of a server",
                hint="for example http://127.0.0.1:8080/v1",
            )

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine, so that nothing leaves it."""
        import ipaddress

        host = urllib.parse.urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post a request and return the server's JSON; a busy server is asked again.

        Raises:
            InputError: the server refuses, cannot be reached, or answers something else.

        """
        from fewbit.measure.multiple_choice.post import post  # imports urllib and ssl

        return post(self.url, path, body, self.key, self.timeout, proxies=not self.local)


class _OverConnections(ABC):
    """Asks several questions at a time, each over a connection of its own."""

    def __init__(self, endpoint: Endpoint, writing: Writing) -> None:
        self.name = endpoint.model
        self._endpoint, self._writing = endpoint, writing

    def answers(self, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        """As `Answerer`; the first error ends it, and no further question is asked."""
        return concurrently(self._answer, questions, self._writing.parallel or PARALLEL)

    def close(self) -> None:  # noqa: B027
        """Do nothing: each request has its own connection."""

    @abstractmethod
    def _answer(self, question: Prompted) -> Answer:
        """The answer of the server to one question."""


def concurrently(
    function: Callable[[Prompted], Answer], questions: Sequence[Prompted], threads: int
) -> Iterator[tuple[int, Answer]]:
    """The answer to each question with its index, in the order in which they are complete.

    The threads are daemons: an interrupt does not wait for requests that are on their way.
    """
    waiting: SimpleQueue[tuple[int, Prompted]] = SimpleQueue()
    done: SimpleQueue[tuple[int, Answer | Exception]] = SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            try:
                index, question = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((index, function(question)))
            except Exception as error:  # raised again by the thread that waits
                done.put((index, error))

    for item in enumerate(questions):
        waiting.put(item)
    for _ in range(min(threads, len(questions))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in questions:
            index, found = done.get()
            if isinstance(found, Exception):
                raise found
            yield index, found
    finally:
        ended.set()


class EndpointAnswerer(_OverConnections):
    """Lets the model behind an endpoint write its answers."""

    def __init__(self, endpoint: Endpoint, writing: Writing, budget_given: bool) -> None:
        """`budget_given` sends `reasoning_budget`, which not every server knows."""
        super().__init__(endpoint, writing)
        self._budget_given = budget_given

    def identity(self) -> dict[str, Any]:
        """The server, the name of its model, and how it writes."""
        writing = self._writing
        return {
            "url": self._endpoint.url, "model": self._endpoint.model, "by": "text",
            "temperature": writing.temperature, "max_tokens": writing.max_tokens,
            "budget": writing.reasoning_budget if self._budget_given else None,
        }  # fmt: skip

    def _answer(self, question: Prompted) -> Answer:
        writing, start = self._writing, time.perf_counter()
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": question.prompt}],
            "temperature": writing.temperature,
            "max_tokens": writing.max_tokens,
        }
        if writing.temperature:
            body["seed"] = question.seed & 0x7FFFFFFF
        if self._budget_given and writing.reasoning_budget is not None:
            body["reasoning_budget"] = writing.reasoning_budget
        return _answer(self._endpoint.ask("/chat/completions", body), time.perf_counter() - start)


class EndpointLikelihoods(_OverConnections):
    """Takes the letter that the model behind an endpoint holds likeliest behind the prompt.

    The server must give log-probabilities of the prompt's tokens (`echo` of OpenAI's completions).
    """

    def identity(self) -> dict[str, Any]:
        """The server and the name of its model."""
        return {"url": self._endpoint.url, "model": self._endpoint.model, "by": "likelihood"}

    def _answer(self, question: Prompted) -> Answer:
        start, letters = time.perf_counter(), question.asked.letters
        body = {
            "model": self._endpoint.model,
            "prompt": [f"{question.prompt} {letter}" for letter in letters],
            "max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 1,
        }  # fmt: skip
        found = self._endpoint.ask("/completions", body)
        length = len(question.prompt)
        values = {
            letter: _ending_logprob(found, index, length, length + 2)
            for index, letter in enumerate(letters)
        }
        best = max(values, key=lambda letter: values[letter])
        return Answer(
            best, "likelihood", chosen=best, tokens=0, seconds=time.perf_counter() - start,
            prompt_tokens=(found.get("usage") or {}).get("prompt_tokens"), logprobs=values,
        )  # fmt: skip


def _ending_logprob(found: dict[str, Any], index: int, begin: int, end: int) -> float:
    """The log-probability of the characters `begin` to `end` of the text of choice `index`."""
    try:
        told = next(c for c in found["choices"] if int(c["index"]) == index)["logprobs"]
        starts, values = list(told["text_offset"]), list(told["token_logprobs"])
        stops = [*starts[1:], end]
        ending = [v for a, b, v in zip(starts, stops, values, strict=True) if b > begin and a < end]
        if not ending or any(value is None for value in ending):
            raise ValueError
        return math.fsum(map(float, ending))
    except (KeyError, StopIteration, TypeError, ValueError):
        raise InputError(
            "the server gives no log-probabilities of the prompt's tokens",
            hint="`--answer-by likelihood` needs `echo` of OpenAI's completions; else take text",
        ) from None


def _answer(found: dict[str, Any], seconds: float) -> Answer:
    try:
        choice = found["choices"][0]
        message = choice["message"]
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        content = message.get("content") or ""
        reason = str(choice.get("finish_reason") or "unknown")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InputError(f"the server's answer is no chat completion: {str(found)[:200]}") from None
    usage = found.get("usage") or {}
    details = usage.get("completion_tokens_details") or {}
    return Answer(
        str(content), reason, str(reasoning), None, usage.get("prompt_tokens"),
        usage.get("completion_tokens"), details.get("reasoning_tokens"), seconds,
    )  # fmt: skip
