"""Files that keep a session's KV cache: a prompt that was read once need not be read again.

Layout: `MAGIC`; the length of the header, uint64; the header, JSON; the token ids, uint32; keys,
values and recurrent state as the core's `Cache.export` writes them. All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.errors import FileFormatError, InputError, UnsupportedError
from fewbit.files.replace import replacing
from fewbit.plan.shapes import matrix_shape
from fewbit.run.executor import Cache
from fewbit.run.model import LoadedModel

MAGIC = b"fewbit prompt cache\n"
LAYOUT = 1
"""Raised whenever the bytes of a sequence change their order or meaning."""
_LARGEST_HEADER = 4096
_SAMPLED_ROWS = 3


def write(
    path: str | PathLike[str], model: LoadedModel, cache: Cache, ids: list[int], acts: str
) -> None:
    """Write sequence 0 of `cache`, whose tokens are `ids`; a failure leaves no file behind.

    Raises:
        UnsupportedError: the cache is on a card.
        OSError: the file cannot be written.

    """
    tokens, data = np.array(ids, "<u4"), on_host(cache).export(0)
    header = json.dumps(
        _described(model, acts)
        | {"tokens": len(ids), "bytes": data.size, "digest": _digest(tokens, data)}
    ).encode()
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + len(header).to_bytes(8, "little") + header)
        file.write(tokens.tobytes())
        file.write(data.data)


def on_host(cache: Cache) -> _core.Cache:
    """The cache, if it is one of the CPU.

    Raises:
        UnsupportedError: it is on a card.

    """
    if not isinstance(cache, _core.Cache):
        raise UnsupportedError(
            "a KV cache on a graphics card has no file", hint="use `--device cpu`"
        )
    return cache


def read(
    path: str | PathLike[str], model: LoadedModel, acts: str
) -> tuple[list[int], NDArray[np.uint8]]:
    """The token ids of a file, and the bytes of their keys, values and state.

    Raises:
        FileFormatError: the file is damaged, or no prompt cache.
        InputError: it was made with another model, format, type of KV cache or version.
        OSError: the file cannot be read.

    """
    path = Path(path)
    with path.open("rb") as file:
        header = _header(path, file.read(len(MAGIC) + 8), file.read)
        _check(path, header, _described(model, acts))
        tokens = np.frombuffer(file.read(4 * header["tokens"]), "<u4")
        data = np.frombuffer(file.read(header["bytes"] + 1), np.uint8)
    if (tokens.size, data.size) != (header["tokens"], header["bytes"]):
        raise _damaged(path, "it is truncated or has bytes behind its end")
    if _digest(tokens, data) != header["digest"]:
        raise _damaged(path, "its bytes are not those that were written")
    return tokens.tolist(), data


def _header(path: Path, start: bytes, more: Any) -> dict[str, Any]:
    if not start.startswith(MAGIC) or len(start) != len(MAGIC) + 8:
        raise FileFormatError(
            f"`{path}` is not a prompt cache of fewbit", hint="name another file", path=str(path)
        )
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if length > _LARGEST_HEADER:
        raise _damaged(path, f"its header has {length} bytes")
    try:
        header = json.loads(more(length))
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    for name, most in (("tokens", 2**31), ("bytes", 2**48)):
        value = header.get(name)
        if type(value) is not int or not 0 <= value <= min(most, path.stat().st_size):
            raise _damaged(path, f"its `{name}` is {value!r}")
    return header


def _check(path: Path, header: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    names = {"layout": "layout", "version": "version of fewbit", "model": "model or format",
             "kv": "type of KV cache", "acts": "type of activations"}  # fmt: skip
    for key, name in names.items():
        if header.get(key) != expected[key]:
            known = "" if key == "model" else f": {header.get(key)!r}, not {expected[key]!r}"
            raise InputError(
                f"the prompt cache `{path}` was made with another {name}{known}",
                hint="delete the file, or name another",
                path=str(path),
            )


def _described(model: LoadedModel, acts: str) -> dict[str, Any]:
    """What must agree between the writer of a file and its reader."""
    return {
        "layout": LAYOUT, "version": _core.__version__, "model": fingerprint(model),
        "kv": model.kv, "acts": acts,
    }  # fmt: skip


def fingerprint(model: LoadedModel) -> str:
    """A digest of a model's plan, formats and some rows of each tensor."""
    digest = hashlib.blake2b(model.plan.to_json().encode(), digest_size=16)
    for name in sorted(model.plan.weights()):
        tensor = model.checkpoint.tensors[name]
        rows, _ = matrix_shape(tensor.shape)
        digest.update(f"{name} {model.formats[name]} {tensor.shape}\n".encode())
        for row in sorted({rows * i // _SAMPLED_ROWS for i in range(_SAMPLED_ROWS)}):
            digest.update(tensor.slab(row, row + 1, rows).data)
        if (importance := model.importance.get(name)) is not None:
            digest.update(np.ascontiguousarray(importance).tobytes())
    return digest.hexdigest()


def _digest(tokens: NDArray[np.uint32], data: NDArray[np.uint8]) -> str:
    digest = hashlib.blake2b(tokens.tobytes(), digest_size=16)
    digest.update(data.data)
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"the prompt cache `{path}` is damaged: {reason}",
        hint="delete it: the next run makes a new one",
        path=str(path),
    )
