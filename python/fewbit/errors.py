"""Exceptions that fewbit raises: each has a message, a hint, and its facts as attributes.

Every exception is a :class:`FewbitError`, which is a :class:`ValueError`. The message tells what
was given and what is expected; the hint, after a blank line, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class FewbitError(ValueError):
    """Base of all errors that fewbit raises on purpose.

    `hint` is the next thing to do, None if there is none; each of `facts` becomes an attribute.
    """

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message if hint is None else f"{message}\n\nhint: {hint}")
        self.message = message
        self.hint = hint
        for name, value in facts.items():
            setattr(self, name, value)


class FormatError(FewbitError):
    """A number format is unknown, or values cannot be stored in it."""


class ShapeError(FewbitError):
    """An array or tensor does not have the shape that is expected."""


class FileFormatError(FewbitError):
    """A file is truncated or damaged, or its contents contradict each other."""


class UnsupportedError(FewbitError):
    """An architecture, format, op or backend is not supported; the message names it."""


class InputError(FewbitError):
    """An option, a text or an identifier is not valid for the call."""


class DeviceError(FewbitError):
    """A graphics card is not available, too small for the model, or lost."""


def shown(value: object, most: int = 200) -> str:
    """Spell a value of a file for a message, cut where it is long.

    >>> shown([1, 2]), shown("abcdefgh", 6)
    ('[1, 2]', "'abcde...")
    """
    if isinstance(value, int) and value.bit_length() > 10_000:  # Python refuses to spell it
        return f"an integer of {value.bit_length():,} bits"
    try:
        text = repr(value[:most] if isinstance(value, list | str | bytes) else value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= most else text[:most] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the nearest of the `known` names, "" if none is near: the first part of a hint.

    >>> did_you_mean("q4_km", ["Q4_0", "Q4_K_M"])
    'did you mean `Q4_K_M`? '
    """
    by_spelling = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_spelling, n=1, cutoff=0.65)
    return f"did you mean `{by_spelling[near[0]]}`? " if near else ""
