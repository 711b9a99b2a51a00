"""Keep finished tensors in memory, or in a folder from which an interrupted run goes on.

A folder holds `key.json`, the facts that decide the result; for each finished tensor its bytes in
`NAME.bin` and its gain in `NAME.json`; and the hidden states that the next segment begins with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewbit.errors import FileFormatError, InputError
from fewbit.files.replace import replacing
from fewbit.improve.passes import StateStore
from fewbit.improve.tensors import TensorGain

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Tokens = NDArray[np.uint32]
KEY, TOKENS = "key.json", "tokens.npy"


class Store(StateStore, Protocol):
    """Where finished tensors and hidden states are kept."""

    def get(self, name: str) -> tuple[Bytes, TensorGain] | None:
        """A finished tensor; None if it is not finished."""

    def put(self, name: str, data: Bytes, gain: TensorGain) -> None:
        """Keep a finished tensor."""

    def tokens(self) -> Tokens | None:
        """The windows that the model wrote, [windows, tokens]; None if there are none yet."""

    def put_tokens(self, tokens: Tokens) -> None:
        """Keep the windows that the model wrote."""


class MemoryStore:
    """Keeps tensors in memory; hidden states are not kept."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Bytes, TensorGain]] = {}

    def get(self, name: str) -> tuple[Bytes, TensorGain] | None:
        """As `Store.get`."""
        return self._found.get(name)

    def put(self, name: str, data: Bytes, gain: TensorGain) -> None:
        """As `Store.put`."""
        self._found[name] = data, gain

    def states(self) -> tuple[int, Floats] | None:
        """None: nothing is left of an earlier run."""
        return None

    def put_states(self, index: int, states: Floats) -> None:
        """Do nothing: this run has the states already."""

    def tokens(self) -> Tokens | None:
        """None: nothing is left of an earlier run."""
        return None

    def put_tokens(self, tokens: Tokens) -> None:
        """Do nothing: this run has the tokens already."""


class FolderStore:
    """Keeps tensors in `folder`, which is made or belongs to the same work.

    Raises:
        InputError: the folder is not empty and not of such work, or of other work.
        OSError: the folder cannot be written.

    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / KEY
        if file.exists():
            self._check(file, key)
        elif any(folder.iterdir()):
            raise InputError(
                f"`{folder}` holds files, but no work of `fewbit quantize`",
                hint="name a new or an empty folder",
                path=str(folder),
            )
        else:
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(key, indent=1), "utf-8")

    def _check(self, file: Path, key: Mapping[str, Any]) -> None:
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise FileFormatError(
                f"`{file}` is damaged", hint="name another folder", path=str(file)
            )
        for name in [*key, *found]:
            if found.get(name) != key.get(name):
                raise InputError(
                    f"`{self._folder}` belongs to other work: its {name} is {_short(found, name)}, "
                    f"here it is {_short(key, name)}",
                    hint="name another folder, or repeat the options of that work",
                    path=str(self._folder),
                )

    def get(self, name: str) -> tuple[Bytes, TensorGain] | None:
        """As `Store.get`; the bytes are mapped.

        Raises:
            FileFormatError: the file is damaged.

        """
        facts = self._folder / f"{name}.json"
        if not facts.exists():
            return None
        try:
            values = json.loads(facts.read_text("utf-8"))
            shape = tuple(values.pop("data"))
            for key in ("shape", "fitted", "held_out"):
                values[key] = tuple(values[key])
            gain = TensorGain(**values)
            data = np.memmap(self._folder / f"{name}.bin", np.uint8, "r", shape=shape)
            complete = data.size == (self._folder / f"{name}.bin").stat().st_size
        except (ValueError, KeyError, TypeError, OSError):
            complete = False
        if not complete:
            raise FileFormatError(
                f"`{facts}` or the data beside it is damaged",
                hint="delete both; the tensor is then made again",
                path=str(facts),
            )
        return data, gain

    def put(self, name: str, data: Bytes, gain: TensorGain) -> None:
        """As `Store.put`."""
        with replacing(self._folder / f"{name}.bin") as temporary:
            data.tofile(temporary)
        with replacing(self._folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(asdict(gain) | {"data": data.shape}), "utf-8")

    def states(self) -> tuple[int, Floats] | None:
        """As `StateStore.states`."""
        files = sorted(self._folder.glob("states-*.npy"))
        if not files:
            return None
        return int(files[-1].stem.partition("-")[2]), _load(files[-1])

    def put_states(self, index: int, states: Floats) -> None:
        """As `StateStore.put_states`; those of earlier segments are deleted."""
        file = self._folder / f"states-{index:04}.npy"
        _save(file, states)
        for older in self._folder.glob("states-*.npy"):
            if older.name < file.name:
                older.unlink()

    def tokens(self) -> Tokens | None:
        """As `Store.tokens`."""
        file = self._folder / TOKENS
        return _load(file) if file.exists() else None

    def put_tokens(self, tokens: Tokens) -> None:
        """As `Store.put_tokens`."""
        _save(self._folder / TOKENS, tokens)


def _save(file: Path, values: NDArray[Any]) -> None:
    with replacing(file) as temporary, temporary.open("wb") as opened:
        np.save(opened, values)


def _load(file: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(file)
        return found
    except (ValueError, OSError, EOFError):
        raise FileFormatError(f"`{file}` is damaged", hint="delete it", path=str(file)) from None


def _short(facts: Mapping[str, Any], name: str) -> str:
    value = str(facts.get(name, "not set"))
    return value if len(value) <= 60 else f"{value[:57]}..."
