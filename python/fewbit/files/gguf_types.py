"""The types of GGUF metadata values (specification: docs/gguf.md in ggml's repository)."""

from __future__ import annotations

from enum import IntEnum


class GGUFValueType(IntEnum):
    """The number that a file stores for each type.

    The names are those of gguf-py, whose import takes longer than most commands.
    """

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12
