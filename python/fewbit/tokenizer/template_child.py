"""Render chat templates in a process of its own, which may fail without harm to its parent.

A template is a program from a model's file: it may run without end or fill the memory. The parent
writes one line of JSON for each conversation to stdin, and reads one from stdout. This file
imports nothing of fewbit, so that the process starts quickly.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag `{% generation %}`, by which transformers marks answers for training; no effect."""

    tags = {"generation"}  # noqa: RUF012 - the name and type are jinja2's

    def parse(self, parser: Parser) -> nodes.Node:
        """Read the tag with its body, up to `{% endgeneration %}`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @staticmethod
    def _body(caller: Callable[[], str]) -> str:
        return caller()


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """Compile a template with the filters, functions and tags of transformers' templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return environment.from_string(template)


def answer(request: dict[str, Any]) -> dict[str, str]:
    """Render `template` with `values`: {"text": ...}, or {"error": ...} if it fails."""
    most, pieces, length = int(request["most"]), [], 0
    try:
        for piece in compiled(request["template"]).generate(**request["values"]):
            pieces.append(piece)
            length += len(piece)
            if length > most:
                return {"error": f"it writes more than {most:,} characters"}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # a template can raise anything
        return {"error": " ".join(str(error).split())[:1000] or type(error).__name__}
    return {"text": "".join(pieces)}


def _json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _now(format_: str) -> str:
    return datetime.datetime.now().strftime(format_)


def _limit_memory(most: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _end_in(seconds: float) -> None:
    """End this process when it has computed for this many seconds, 0 for never."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer each line of stdin until it ends; arguments: bytes of memory, seconds for a line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    _limit_memory(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        _end_in(float(sys.argv[2]))  # also if the parent has ended meanwhile
        found = json.dumps(answer(json.loads(line)))
        _end_in(0)
        sys.stdout.buffer.write(found.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
