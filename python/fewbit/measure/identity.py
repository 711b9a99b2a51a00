"""Name a model by all that changes its predictions: files, formats, importance, device, version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewbit import _core
from fewbit.run.model import LoadedModel


def identity(model: LoadedModel) -> str:
    """A digest of a model; a file counts by its path, size and time of change.

    Threads are left out: they change no bit of a result.
    """
    _, (_, path, formats, device, options) = model.__reduce__()
    others = {name: v for name, v in options.items() if name not in ("threads", "importance")}
    facts = [
        _core.__version__, _core.isa(), device, _files(Path(path)), sorted(formats.items()),
        others, _importance(options["importance"]),
    ]  # fmt: skip
    return digest(facts)


def digest(facts: Any) -> str:
    """A digest of data as JSON has it, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _files(path: Path) -> list[tuple[str, int, int]]:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    states = [(file, file.stat()) for file in files]
    return [(str(file), state.st_size, state.st_mtime_ns) for file, state in states]


def _importance(entries: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name in sorted(entries):
        found.update(name.encode() + b"\0" + entries[name].tobytes())
    return found.hexdigest() if entries else ""
