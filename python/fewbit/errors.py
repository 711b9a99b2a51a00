"""The exceptions that fewbit raises: what was expected, what was found, and a hint.

Every exception is a :class:`FewbitError`, itself a :class:`ValueError`. Its facts are attributes,
so a program never parses the text; a person reads the message and, after a blank line, the hint.
"""

from __future__ import annotations

from typing import Any


class FewbitError(ValueError):
    """Base of all errors raised on purpose; `hint` says what to do next, `facts` are attributes."""

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message if hint is None else f"{message}\n\nhint: {hint}")
        self.message = message
        self.hint = hint
        for name, value in facts.items():
            setattr(self, name, value)


class FormatError(FewbitError):
    """A number format is unknown, or values cannot be stored in it."""


class ShapeError(FewbitError):
    """An array or tensor does not have the shape that was needed."""


class FileFormatError(FewbitError):
    """A file is truncated, inconsistent, or not what its name says."""


class UnsupportedError(FewbitError):
    """An architecture, op or backend that fewbit does not have; refused by name."""


class InputError(FewbitError):
    """An option, a text or an identifier that a call cannot work with."""


class DeviceError(FewbitError):
    """A graphics card that is not there, too small, or lost."""
