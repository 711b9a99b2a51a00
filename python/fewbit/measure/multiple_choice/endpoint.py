"""Ask a model behind a URL: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


class EndpointAnswerer:
    """Lets the model behind an endpoint write its answers."""

    def __init__(self, endpoint: Endpoint, writing: Writing, budget_given: bool) -> None:
        """`budget_given` sends `reasoning_budget`, which not every server knows."""
        self.name = endpoint.model
        self._endpoint, self._writing, self._budget_given = endpoint, writing, budget_given

    def identity(self) -> dict[str, Any]:
        """The server, the name of its model, and how it writes."""
        writing = self._writing
        return {
            "url": self._endpoint.url, "model": self._endpoint.model, "by": "text",
            "temperature": writing.temperature, "max_tokens": writing.max_tokens,
            "budget": writing.reasoning_budget if self._budget_given else None,
        }  # fmt: skip

    def answers(self, questions: Sequence[Prompted]) -> Iterator[tuple[int, Answer]]:
        """As `Answerer`, over several connections."""
        from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

        waiting = iter(enumerate(questions))
        running: dict[Future[Answer], int] = {}
        with ThreadPoolExecutor(self._writing.parallel or PARALLEL) as pool:
            try:
                while True:
                    for index, question in waiting:
                        running[pool.submit(self._answer, question)] = index
                        if len(running) >= 2 * (self._writing.parallel or PARALLEL):
                            break
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Do nothing: each request has its own connection."""

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
