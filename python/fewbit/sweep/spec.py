"""Read what a sweep measures from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbit.errors import InputError, did_you_mean, shown

LISTS = ("models", "formats", "texts", "acts", "kv")
NUMBERS = ("ctx", "chunks")


@dataclass(frozen=True)
class Spec:
    """What a sweep measures: every model in every format on every text, with all acts and kv.

    `models` are names with the importance matrix of each, None encodes without. A format
    "original" is the model as it is. `chunks` None measures all windows of `ctx` tokens.
    """

    models: tuple[tuple[str, str | None], ...] = ()
    formats: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    acts: tuple[str, ...] = ()
    kv: tuple[str, ...] = ()
    ctx: int = 512
    chunks: int | None = None


def read_spec(path: Path) -> Spec:
    """The sweep that a YAML file describes.

    It has `models`, `formats`, `texts`, `acts` and `kv`, each a name or a list of names, and the
    numbers `ctx` and `chunks`. A model may be a mapping of `model` and `imatrix`.

    Raises:
        InputError: the file is not YAML, or a key or a value is not one of these.
        OSError: the file cannot be read.

    """
    found = _mapping(path)
    return Spec(
        models=tuple(_model(path, each) for each in _list(path, found, "models")),
        formats=tuple(_names(path, found, "formats")),
        texts=tuple(_names(path, found, "texts")),
        acts=tuple(_names(path, found, "acts")),
        kv=tuple(_names(path, found, "kv")),
        ctx=_number(path, found, "ctx") or 512,
        chunks=_number(path, found, "chunks"),
    )


def _mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a file, the keys known."""
    import yaml

    try:
        found = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"`{path}` is not YAML: {reason}", hint="check the file") from error
    if not isinstance(found, dict):
        raise _wrong(path, "a mapping with `models` and `formats`", found)
    for key in found:
        if key not in LISTS + NUMBERS:
            known = LISTS + NUMBERS
            raise InputError(
                f"`{path}`: unknown key {shown(key)}",
                hint=f"{did_you_mean(str(key), known)}known: {', '.join(known)}",
            )
    return found


def _list(path: Path, found: Mapping[str, Any], key: str) -> list[Any]:
    value = found.get(key)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _names(path: Path, found: Mapping[str, Any], key: str) -> list[str]:
    names = _list(path, found, key)
    for name in names:
        if not isinstance(name, str):
            raise _wrong(path, f"names under `{key}`", name)
    return names


def _model(path: Path, value: Any) -> tuple[str, str | None]:
    if isinstance(value, str):
        return value, None
    fields = set(value) if isinstance(value, dict) else set()
    if "model" not in fields or fields - {"model", "imatrix"}:
        raise _wrong(path, "a model's name, or a mapping of `model` and `imatrix`", value)
    if not all(isinstance(name, str) for name in value.values()):
        raise _wrong(path, "names of a model and of a matrix", value)
    return value["model"], value.get("imatrix")


def _number(path: Path, found: Mapping[str, Any], key: str) -> int | None:
    value = found.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise _wrong(path, f"`{key}` to be a number of 1 or more", value)
    return value


def _wrong(path: Path, expected: str, found: Any) -> InputError:
    return InputError(
        f"`{path}`: expected {expected}, found {shown(found)}",
        hint="docs/sweep.md has an example",
    )
