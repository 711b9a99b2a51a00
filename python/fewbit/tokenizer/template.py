"""Render chat templates as transformers does, within bounds of time, memory and length."""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewbit.errors import InputError

if TYPE_CHECKING:
    from fewbit.tokenizer.tokenizer import Tokenizer

_SECONDS = 3.0
"""Seconds that a template may compute; known ones take milliseconds."""
_WAIT = 10.0
"""Seconds by the clock: for a busy machine, and for Windows, which has no other limit."""
_MEMORY = 1 << 30
_LENGTH = 4_000_000
"""Characters a template may write besides 4 times what it is given: the JSON of many tools fits."""


def render(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """Render a conversation as the text that the model continues with the assistant's answer.

    The template sees `tools` (JSON schemas of functions) and each of `chat_template_kwargs`,
    such as `enable_thinking`, under its name.

    Raises:
        InputError: the model has no template, its template refuses the messages, or it takes more
            than 3 seconds or 1 GiB; tools or options have another shape.

    """
    if tokenizer.chat_template is None:
        raise InputError(
            "the model has no chat template", hint="use `fewbit generate`, which needs none"
        )
    _check_shapes(tools, chat_template_kwargs)
    values = {
        "messages": [_with_reasoning(message) for message in messages],
        "tools": None if tools is None else [dict(tool) for tool in tools],
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": _spelled(tokenizer, tokenizer.bos),
        "eos_token": _spelled(tokenizer, tokenizer.eos),
        **(chat_template_kwargs or {}),
    }
    found = _ask(tokenizer.chat_template, values)
    if _LISTS.search(tokenizer.chat_template) and not _shows(found, messages):
        listed = [_with_list(message) for message in values["messages"]]
        again = _ask(tokenizer.chat_template, values | {"messages": listed})
        found = again if _shows(again, messages) else found
    if "text" not in found:
        raise InputError(
            f"the model's chat template fails: {found['error']}",
            hint="some templates do not support system messages",
        )
    return found["text"]


def _ask(template: str, values: dict[str, Any]) -> dict[str, str]:
    """What the renderer answers: `text` or `error`."""
    try:
        size = len(json.dumps(values))
        request = {"template": template, "values": values, "most": _LENGTH + 4 * size}
        line = json.dumps(request).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"messages, tools and options of the template must be JSON: {error}",
            hint="give texts, numbers, lists and dicts",
        ) from None
    return _RENDERER.ask(line)


_LISTS = re.compile(r"""\[['"]type['"]\]|\.type\b""")
"""A template that reads the type of a part of the content: some know no other content."""


def _shows(found: Mapping[str, str], messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last user's text stands in what was rendered."""
    users = [m.get("content") for m in messages if m.get("role") == "user"]
    asked = users[-1] if users and isinstance(users[-1], str) else ""
    return "text" in found and asked.strip() in found["text"]


def _with_list(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is a list of one part, as templates of models with images want it."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}] if content else []}


def _check_shapes(tools: object, options: object) -> None:
    listed = isinstance(tools, Sequence) and all(isinstance(tool, Mapping) for tool in tools)
    if tools is not None and not listed:
        raise InputError(
            f"tools are {tools!r}, expected a list of dicts",
            hint='such as [{"type": "function", "function": {"name": "f", "parameters": {}}}]',
        )
    if options is not None and not isinstance(options, Mapping):
        raise InputError(
            f"chat_template_kwargs is {options!r}, expected a dict",
            hint='such as {"enable_thinking": False}',
        )


_REASONING = ("reasoning_content", "thinking", "reasoning")


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose reasoning has the names that templates read, as transformers gives it.

    They are `reasoning_content`, and `thinking` for GPT-OSS.
    """
    found = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if found is None:
        return dict(message)
    return {"thinking": found, **message, "reasoning_content": found}


class _Renderer:
    """The process that renders; it is started when needed and ended when it takes too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """Take a lock of the child's own: a thread of the parent may have held this one."""
        self._lock = threading.Lock()

    def ask(self, line: bytes) -> dict[str, str]:
        with self._lock:
            late = threading.Event()
            process = self._running()
            timer = threading.Timer(_WAIT, _end_late, (process, late))
            timer.daemon = True
            timer.start()
            try:
                found = _exchange(process, line)
            except BaseException:  # an answer left in the pipe would be taken for the next one's
                self._stop()
                raise
            finally:
                timer.cancel()
            if found is None:
                timed_out = late.is_set() or _has_computed_too_long(process)
                self._stop()
                return {"error": f"no end in {_SECONDS:g} seconds" if timed_out else _DIED}
            answer: dict[str, str] = json.loads(found)
            return answer

    def close(self) -> None:
        """End the process, if this one started it."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():  # a fork has its own process
            file = Path(__file__).with_name("template_child.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(file), str(_MEMORY), str(_SECONDS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, "PYTHONPATH": _search_path()},
            )  # fmt: skip
            self._owner = os.getpid()
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.communicate()


_DIED = "its process ended"
_RENDERER = _Renderer()
atexit.register(_RENDERER.close)


def _exchange(process: subprocess.Popen[bytes], line: bytes) -> bytes | None:
    """Write a line and read one; None if the process ends before."""
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        found = process.stdout.readline()
    except OSError:
        return None
    return found if found.endswith(b"\n") else None


def _end_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _has_computed_too_long(process: subprocess.Popen[bytes]) -> bool:
    """Whether the system has ended the process because its time was over."""
    try:
        return process.wait(1) == -getattr(signal, "SIGPROF", 0) != 0
    except subprocess.TimeoutExpired:
        return False


def _search_path() -> str:
    """Where this process finds jinja2, for the other one."""
    return os.pathsep.join(each for each in sys.path if each)


def _spelled(tokenizer: Tokenizer, id_: int | None) -> str:
    return "" if id_ is None else tokenizer.token(id_) or ""
