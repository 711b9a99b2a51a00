"""What ops with a memory have seen of each sequence."""

from __future__ import annotations

from reference.recurrent import Matrix

Rows = list[list[float]]


class Cache:
    """What ops with a memory have seen, per sequence and layer; it has room for `capacity` tokens.

    `rows` holds keys and values of `attend` and the inputs of `short_conv`, `states` the matrices
    of `delta_rule`. A capacity of None grows with what is fed.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.lengths: dict[int, int] = {}
        self.rows: dict[tuple[str, int, int], tuple[Rows, Rows]] = {}
        self.states: dict[tuple[int, int], list[Matrix]] = {}

    def of(self, kind: str, layer: int, sequence: int) -> tuple[Rows, Rows]:
        """The keys and the values of one layer for one sequence, a row per position."""
        return self.rows.setdefault((kind, layer, sequence), ([], []))
