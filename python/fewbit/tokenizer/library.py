"""Call the `tokenizers` library: its exceptions and panics as fewbit's, and no unbounded growth.

A tokenizer.json is a small program: steps that replace texts by longer ones multiply each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tokenizers

from fewbit.errors import FewbitError, FileFormatError

IDS = 1 << 32
"""The library counts tokens in 32 bits."""
MOST_STEPS = 256
"""Steps of a normalizer, pre-tokenizer, decoder or post-processor; known ones have up to 10."""
MOST_GROWTH = 1000
"""How many times longer the steps may make a text; known ones make it up to 4 times longer."""


@contextmanager
def guarded(kind: type[FewbitError], what: str, hint: str) -> Iterator[None]:
    """Raise errors of the library inside as `kind`, told as `what` failed.

    A panic of its Rust code, or of its regex engine where a pattern backtracks too long, comes as
    a `BaseException` of no class that can be imported; it is known by its name.
    """
    try:
        yield
    except (FewbitError, MemoryError):
        raise
    except BaseException as error:  # the library raises plain Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).encode(errors="backslashreplace").decode()
        raise kind(f"{what}: {reason[:500]}", hint=hint) from None


def id_of(backend: tokenizers.Tokenizer, token: str) -> int | None:
    """The id of a token, None if there is none; half of a surrogate pair is in no vocabulary."""
    try:
        return backend.token_to_id(token)
    except UnicodeEncodeError:
        return None


def is_id(value: Any) -> bool:
    """Whether a value from a file can be the id of a token: -1 and others stand for none."""
    return type(value) is int and 0 <= value < IDS


def check_growth(backend: tokenizers.Tokenizer, where: str) -> None:
    """Refuse steps that together make a text more than 1,000 times longer, or are too many.

    Raises:
        FileFormatError: they do; errors name `where`.

    """
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        part = getattr(backend, name)
        steps = [] if part is None else list(_steps(json.loads(part.__getstate__())))
        growth = 1
        for step in steps:
            growth = min(growth * _growth(step), 1 << 62)
        if len(steps) > MOST_STEPS or growth > MOST_GROWTH:
            raise FileFormatError(
                f"{where}: the {len(steps)} steps of the {name} may make a text {growth:,} times "
                f"longer, expected up to {MOST_STEPS} steps and {MOST_GROWTH:,} times",
                hint="take the original tokenizer.json",
            )


def _steps(step: Any) -> Iterator[dict[str, Any]]:
    """The steps of a sequence, one after the other."""
    if not isinstance(step, dict):
        return
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        if step.get("type") == "Sequence" and isinstance(step.get(key), list):
            for inner in step[key]:
                yield from _steps(inner)
            return
    yield step


def _growth(step: dict[str, Any]) -> int:
    """How many times longer a step can make a text that is not short already."""
    match step:
        case {"type": "Replace", "content": str(content), "pattern": {"String": str(pattern)}}:
            return max(-(-len(content) // len(pattern)), 1) if pattern else 1 + len(content)
        case {"type": "Replace", "content": str(content), "pattern": {"Regex": str(pattern)}}:
            return max(len(content), 1) if _takes_text(pattern) else 1 + len(content)
        case {"type": "TemplateProcessing", "single": list(pieces)}:
            return max(sum("Sequence" in piece for piece in pieces), 1)
        case {"type": "ByteLevel"}:
            return 2  # a byte above 127 becomes a letter of two bytes
    return 1


def _takes_text(pattern: str) -> bool:
    """Whether a pattern cannot match between two characters, as far as Python's engine can tell."""
    try:
        return re.compile(pattern).match("") is None and pattern.isascii() and "(?" not in pattern
    except (re.error, RecursionError, OverflowError):
        return False
