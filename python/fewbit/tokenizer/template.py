"""Render chat templates with jinja2's sandbox and the functions that Hub templates use."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fewbit.errors import InputError

if TYPE_CHECKING:
    from fewbit.tokenizer.tokenizer import Tokenizer


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> str:
    """Render a conversation as the text that the model continues with the assistant's answer.

    Raises:
        InputError: the model has no template, or its template refuses the messages.

    """
    if tokenizer.chat_template is None:
        raise InputError(
            "the model has no chat template", hint="use `fewbit generate`, which needs none"
        )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    try:
        return environment.from_string(tokenizer.chat_template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            bos_token=_spelled(tokenizer, tokenizer.bos),
            eos_token=_spelled(tokenizer, tokenizer.eos),
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise InputError(
            f"the model's chat template fails: {error}",
            hint="some templates do not support system messages",
        ) from None


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _now(format_: str) -> str:
    return datetime.datetime.now().strftime(format_)


def _spelled(tokenizer: Tokenizer, id_: int | None) -> str:
    return "" if id_ is None else tokenizer.token(id_) or ""
