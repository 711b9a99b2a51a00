"""Writing results to stdout: pages for people, JSON for programs.

Numbers mean the same without colour; JSON has null where a number is not finite.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from typing import Any

from rich.console import Console

from fewbit.tables import PIPE_WIDTH, Fitted, Table


def show(*items: str | Table | Fitted) -> None:
    """Write tables and lines to stdout."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty())
    for item in items:
        console.print(item, markup=False)


def write_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json_text(value))


def json_text(value: object) -> str:
    """A JSON document of several lines."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def write_json_line(value: object) -> None:
    """One JSON document on one line of stdout, at once."""
    sys.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def plain(value: object) -> Any:
    """Dataclasses (with their properties), mappings and sequences as JSON types.

    Numbers that are not finite become None. A class with a `SCHEMA` has it first, as `schema`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
        schema = getattr(type(value), "SCHEMA", None)
        found = {} if schema is None else {"schema": schema}
        return found | {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _key(key: object) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)
