"""Rewrites a plan so that it needs fewer GPU dispatches, without changing any value.

Every dispatch waits for the one before it, and the card is idle in between. Linear layers that read
the same value (q, k and v; gate and up, also those of experts) become one layer, whose matrix has
the rows of all of them. Rotations of neighbouring columns by the same angles become one rotation.
The old values are then `part` ops of the joined one, which need no dispatch. The oracle can run
the new plan too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Op = Mapping[str, Any]
Fits = Callable[[tuple[str, ...], int], bool]
"""True if the tensors of these names, each with this many matrices, can be joined in this order."""

ROTATION = ("op", "freqs", "short", "long", "original", "factor", "pairing")


def fuse(plan: Sequence[Op], fits: Fits) -> list[Op]:
    """The plan with linear layers and rotations joined; a joined tensor is named ``A+B+C``."""
    return _without_unread(_join_ropes(_join_linears(plan, fits)))


def joined(names: Sequence[str]) -> str:
    """The name of the tensor that has the rows of these tensors, matrix by matrix."""
    return "+".join(names)


def _join_linears(plan: Sequence[Op], fits: Fits) -> list[Op]:
    groups: dict[int, list[int]] = {}
    for readers in _linears_by_input(plan).values():
        for group in _groups(plan, readers, fits):
            groups |= dict.fromkeys(group, group)
    out = _Rewriter()
    made: dict[int, int] = {}
    for at, op in enumerate(plan):
        group = groups.get(at, [at])
        if len(group) == 1:
            out.copy(at, op)
            continue
        members = [plan[i] for i in group]
        if at == group[0]:
            names = [joined(same) for same in zip(*(m["weights"] for m in members), strict=True)]
            width = sum(m["width"] for m in members)
            made[at] = out.add({**op, "weights": names, "width": width}, op["inputs"])
        parts = plan[op["inputs"][1]]["width"] // 2 if op["op"] == "expert_linear" else 1
        start = sum(plan[i]["width"] // parts for i in group if i < at)
        out.part(at, made[group[0]], start, op["width"], parts)
    return out.plan


def _linears_by_input(plan: Sequence[Op]) -> dict[tuple[Any, ...], list[int]]:
    """Linear layers by the value that they read, the side of `take` and the number of experts.

    Layers whose tensors other ops read too are left out.
    """
    uses = Counter(name for op in plan for name in op["weights"])
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    takes = 0
    for at, op in enumerate(plan):
        takes += op["op"] == "take"
        own = all(uses[name] == 1 for name in op["weights"])
        if op["op"] in ("linear", "expert_linear") and own and op["width"] % 4 == 0:
            found[op["op"], *op["inputs"], op.get("experts", 1), takes].append(at)
    return found


def _groups(plan: Sequence[Op], readers: Sequence[int], fits: Fits) -> list[list[int]]:
    """The readers in groups that can be joined; in a group all have a bias, or none has."""
    groups: list[list[int]] = []
    for at in readers:
        names = plan[at]["weights"]
        for group in groups:
            members = [plan[i]["weights"] for i in group]
            matrices = (*(m[0] for m in members), names[0])
            if len(members[0]) == len(names) and fits(matrices, plan[at].get("experts", 1)):
                group.append(at)
                break
        else:
            groups.append([at])
    return groups


def _join_ropes(plan: Sequence[Op]) -> list[Op]:
    """Join each rotation with the one whose columns follow its own in the row that both read."""
    pairs: dict[int, int] = {}
    for at, op in enumerate(plan):
        if op["op"] in ("rope", "long_rope"):
            for other in range(at + 1, len(plan)):
                if _follows(plan, at, other) and not {at, other} & {*pairs, *pairs.values()}:
                    pairs[at] = other
                    break
    firsts = {second: first for first, second in pairs.items()}
    out = _Rewriter()
    made: dict[int, int] = {}
    for at, op in enumerate(plan):
        first = firsts.get(at, at)
        if first not in pairs:
            out.copy(at, op)
            continue
        a, b = plan[first], plan[pairs[first]]
        if at == first:
            source = plan[a["inputs"][0]]
            width = a["width"] + b["width"]
            both = out.add({**source, "width": width}, source["inputs"])
            heads = a["heads"] + b["heads"]
            made[at] = len(out.plan)
            out.plan.append({**a, "inputs": [both], "width": width, "heads": heads})
        start = 0 if at == first else a["width"]
        out.part(at, made[first], start, op["width"])
    return out.plan


def _follows(plan: Sequence[Op], first: int, second: int) -> bool:
    """True if both rotate heads of one size by the same angles, in consecutive columns."""
    a, b = plan[first], plan[second]
    if any(a.get(key) != b.get(key) for key in ROTATION):
        return False
    x, y = (plan[op["inputs"][0]] for op in (a, b))
    if x["op"] != "part" or y["op"] != "part" or x["inputs"] != y["inputs"]:
        return False
    consecutive = x["parts"] == y["parts"] == 1 and y["start"] == x["start"] + x["width"]
    return bool(consecutive and a["width"] * b["heads"] == b["width"] * a["heads"])


def _without_unread(plan: Sequence[Op]) -> list[Op]:
    """The plan without `part` ops that no op reads."""
    read = {i for op in plan for i in op["inputs"]} | {len(plan) - 1}
    out = _Rewriter()
    for at, op in enumerate(plan):
        if at in read or op["op"] != "part":
            out.copy(at, op)
    return out.plan


class _Rewriter:
    """A new plan, and the indices that values of the old plan have in it."""

    def __init__(self) -> None:
        self.plan: list[Op] = []
        self._now: dict[int, int] = {}

    def add(self, op: Op, inputs: Sequence[int]) -> int:
        """Append an op that reads these old values; its index in the new plan."""
        self.plan.append({**op, "inputs": [self._now[i] for i in inputs]})
        return len(self.plan) - 1

    def copy(self, at: int, op: Op) -> None:
        """Append the old op `at` unchanged."""
        self._now[at] = self.add(op, op["inputs"])

    def part(self, at: int, source: int, start: int, width: int, parts: int = 1) -> None:
        """Append the old value `at`: columns of each of `parts` equal pieces of a new value."""
        kind = {"op": "part", "weights": [], "parts": parts, "start": start, "width": width}
        self.plan.append({**kind, "inputs": [source]})
        self._now[at] = len(self.plan) - 1
