"""Keep the results of a sweep: a line of JSON for each cell, appended by one process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fewbit.errors import FileFormatError

Line: TypeAlias = dict[str, Any]

NAME = "results.jsonl"


class Results:
    """The lines of a sweep's folder; the last line of a cell counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.lines: dict[str, Line] = {}
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._whole, self._torn = len(whole), len(whole) < len(data)
        for number, text in enumerate(whole.splitlines(), 1):
            line = _parsed(self.path, number, text)
            self.lines[line["key"]] = line

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line, on the disk when this returns.

        What a process that was killed has left of a line is cut off first.

        Raises:
            OSError: the file cannot be written.

        """
        if self._torn:
            os.truncate(self.path, self._whole)
            self._torn = False
        text = json.dumps(line, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self.lines[line["key"]] = dict(line)


def _parsed(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    if (
        not isinstance(line, dict)
        or not isinstance(line.get("key"), str)
        or not isinstance(line.get("ok"), bool)
        or not isinstance(line.get("attempts"), int)
    ):
        raise FileFormatError(
            f"`{path}`: line {number} is not the result of a cell",
            hint="delete the line: the cell is then measured again",
            path=str(path),
        )
    return line
