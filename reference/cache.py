"""What ops with a memory have seen of each sequence."""

from __future__ import annotations

from reference.f32 import div, f32, nearest
from reference.floats import FLOAT16, round_to
from reference.recurrent import Matrix

Rows = list[list[float]]


class Cache:
    """What ops with a memory have seen, per sequence and layer; it has room for `capacity` tokens.

    `rows` holds keys and values of `attend` and the inputs of `short_conv`, `states` the matrices
    of `delta_rule`. A capacity of None grows with what is fed. Keys and values are kept as `kv`
    says, see `kept`.
    """

    def __init__(self, capacity: int | None = None, kv: str = "f32") -> None:
        self.capacity, self.kv = capacity, kv
        self.lengths: dict[int, int] = {}
        self.rows: dict[tuple[str, int, int], tuple[Rows, Rows]] = {}
        self.states: dict[tuple[int, int], list[Matrix]] = {}

    def of(self, kind: str, layer: int, sequence: int) -> tuple[Rows, Rows]:
        """The keys and the values of one layer for one sequence, a row per position."""
        return self.rows.setdefault((kind, layer, sequence), ([], []))


def kept(row: list[float], kv: str, heads: int) -> list[float]:
    """A row of keys or values as a cache has it: f32, rounded to f16, or codes of int8.

    Each head's codes share a scale that takes its largest element to 127.

    >>> kept([0.1, 254.0, 3.0, 0.0], "int8", heads=2)
    [0.0, 254.0, 3.0, 0.0]
    >>> kept([0.1], "f16", heads=1)
    [0.0999755859375]
    """
    if kv == "f32":
        return row
    if kv == "f16":
        return [round_to(x, FLOAT16) for x in row]
    size, result = len(row) // heads, list[float]()
    for start in range(0, len(row), size):
        part = row[start : start + size]
        scale = div(max(map(abs, part)), 127.0)
        result += [f32(nearest(div(x, scale)) * scale) if scale else 0.0 for x in part]
    return result
