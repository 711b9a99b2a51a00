"""Names of GGUF files: pieces of a split model, files beside a model, quantizations in names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

PIECE = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""The names of ``llama-gguf-split``, ``NAME-00001-of-00003.gguf``."""
_COMPANION = re.compile(r"(^|[-_.])mmproj([-_.]|$)|^imatrix|[-_.]imatrix$", re.IGNORECASE)
"""Files beside a model: projectors of vision encoders, importance matrices."""


def is_companion(name: str) -> bool:
    """Whether the GGUF file `name` is no model: a projector or an importance matrix.

    >>> is_companion("mmproj-model-f16.gguf"), is_companion("model-Q8_0.gguf")
    (True, False)
    """
    return _COMPANION.search(PurePosixPath(name).name.removesuffix(".gguf")) is not None


def pieces_of(name: str) -> list[str]:
    """The names of all pieces of the model that the GGUF file `name` belongs to.

    >>> pieces_of("a-00002-of-00002.gguf"), pieces_of("b.gguf")
    (['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf'], ['b.gguf'])
    """
    match = PIECE.fullmatch(name)
    if match is None:
        return [name]
    count = range(1, int(match["count"]) + 1)
    return [f"{match['stem']}-{number:05d}-of-{match['count']}.gguf" for number in count]


def models_among(names: Iterable[str]) -> list[list[str]]:
    """Group the GGUF files among `names` into models: a split one has several files, in order.

    >>> models_among(["a-00002-of-00002.gguf", "b.gguf", "a-00001-of-00002.gguf", "readme.md"])
    [['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf'], ['b.gguf']]
    """
    found: dict[str, list[str]] = {}
    for name in sorted(name for name in names if name.endswith(".gguf")):
        match = PIECE.fullmatch(name)
        found.setdefault(f"{match['stem']} of {match['count']}" if match else name, []).append(name)
    return list(found.values())


def is_quantization(name: str, quantization: str) -> bool:
    """Whether the GGUF file `name` says that it has this quantization.

    >>> [is_quantization(f"m-{n}.gguf", "q4_k") for n in ("Q4_K", "Q4_K_M", "Q4_K-00001-of-00002")]
    [True, False, True]
    """
    match = PIECE.fullmatch(name)
    stem = PurePosixPath(match["stem"] if match else name.removesuffix(".gguf")).name
    return re.search(rf"(^|[-_.]){re.escape(quantization)}$", stem, re.IGNORECASE) is not None
