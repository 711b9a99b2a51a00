"""Keep each answer on disk as soon as it is complete, so that a run that ends early can go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError

NAME = "answers.jsonl"


class Records:
    """The answers in a folder, one line of JSON each, by a key of everything that changes them.

    A line is on disk (fsync) before the next question counts as answered; a line that was cut
    while it was written is dropped.
    """

    def __init__(self, folder: Path) -> None:
        """Read the answers in `folder`, which is made if need be.

        Raises:
            FileFormatError: the file holds something else.
            OSError: the folder cannot be written.

        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        data = self._file.read()
        complete = data.rfind(b"\n") + 1
        self.found: dict[str, dict[str, Any]] = {}
        try:
            for line in data[:complete].split(b"\n")[:-1]:
                record = json.loads(line)
                self.found[record["key"]] = record
        except (ValueError, KeyError, TypeError):
            self._file.close()
            raise FileFormatError(
                f"`{self.path}` is not a file of answers", hint="name another folder"
            ) from None
        self._file.truncate(complete)
        self._file.seek(complete)
        _sync_folder(folder)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record, and return when it is on disk."""
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.found[record["key"]] = dict(record)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def key_of(facts: object) -> str:
    """A digest of everything that changes an answer."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
