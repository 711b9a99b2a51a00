"""The state of each sequence: its KV cache, convolution inputs and recurrent states."""

from __future__ import annotations

from reference.f32 import div, f32, nearest
from reference.floats import FLOAT16, round_to
from reference.recurrent import Matrix

Rows = list[list[float]]


class Cache:
    """The state of all sequences: keys and values, convolution inputs, delta-rule matrices.

    `rows` holds the keys and values of `attend` and the inputs of `short_conv`, `states` the
    matrices of `delta_rule`. `capacity` is the room in tokens per sequence, None for no limit.
    `kv_type` is the element type of keys and values: "f32", "f16" or "int8" (see `round_kv`).
    """

    def __init__(self, capacity: int | None = None, kv_type: str = "f32") -> None:
        self.capacity, self.kv_type = capacity, kv_type
        self.lengths: dict[int, int] = {}
        self.rows: dict[tuple[str, int, int], tuple[Rows, Rows]] = {}
        self.states: dict[tuple[int, int], list[Matrix]] = {}

    def of(self, kind: str, layer: int, sequence: int) -> tuple[Rows, Rows]:
        """Return the keys and the values of a layer and a sequence, one row per position."""
        return self.rows.setdefault((kind, layer, sequence), ([], []))


def round_kv(row: list[float], kv_type: str, heads: int) -> list[float]:
    """Return a row of keys or values as the KV cache stores it, rounded to `kv_type`.

    "f32" changes nothing, "f16" rounds each element, "int8" rounds each head to integers times a
    scale that maps the head's largest |x| to 127.

    >>> round_kv([0.1, 254.0, 3.0, 0.0], "int8", heads=2)
    [0.0, 254.0, 3.0, 0.0]
    >>> round_kv([0.1], "f16", heads=1)
    [0.0999755859375]
    """
    if kv_type == "f32":
        return row
    if kv_type == "f16":
        return [round_to(x, FLOAT16) for x in row]
    size, result = len(row) // heads, list[float]()
    for start in range(0, len(row), size):
        head = row[start : start + size]
        scale = div(max(map(abs, head)), 127.0)
        result += [f32(nearest(div(x, scale)) * scale) if scale else 0.0 for x in head]
    return result
