"""A plan in fewer dispatches: rewrites from plan to plan that change no bit of any value.

Every dispatch waits for the one before it, and a card is idle while it does. So linear layers that
read one value (q, k and v; gate and up, of experts too) become one, whose matrix has the rows of
all of them, and rotations of neighbouring columns by the same angles become one. What they made
apart are then parts of what they make together, and parts cost nothing. The oracle runs the new
plan as it runs any.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Op = Mapping[str, Any]
Fits = Callable[[tuple[str, ...], int], bool]
"""Whether tensors of these names, each of so many matrices, can be one, in this order."""

ROTATION = ("op", "freqs", "short", "long", "original", "factor", "pairing")


def fuse(plan: Sequence[Op], fits: Fits) -> list[Op]:
    """The plan with linear layers and rotations joined; a joined tensor is called ``A+B+C``."""
    return _without_unread(_join_ropes(_join_linears(plan, fits)))


def joined(names: Sequence[str]) -> str:
    """The name of the tensor with the rows of all these, one below the other, by matrices."""
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
            names = [joined(part) for part in zip(*(m["weights"] for m in members), strict=True)]
            width = sum(m["width"] for m in members)
            made[at] = out.add({**op, "weights": names, "width": width}, op["inputs"])
        parts = plan[op["inputs"][1]]["width"] // 2 if op["op"] == "expert_linear" else 1
        start = sum(plan[i]["width"] // parts for i in group if i < at)
        out.part(at, made[group[0]], start, op["width"], parts)
    return out.plan


def _linears_by_input(plan: Sequence[Op]) -> dict[tuple[Any, ...], list[int]]:
    """Linear layers that read the same on the same side of `take`, and no tensor twice."""
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
    """The readers, with those together that can be joined: all or none has a bias."""
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
    """Each rotation with the next, where the one begins in their row at the other's end."""
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
    """Whether both turn heads of one size by the same angles, in columns that follow."""
    a, b = plan[first], plan[second]
    if any(a.get(key) != b.get(key) for key in ROTATION):
        return False
    x, y = (plan[op["inputs"][0]] for op in (a, b))
    if x["op"] != "part" or y["op"] != "part" or x["inputs"] != y["inputs"]:
        return False
    whole = x["parts"] == y["parts"] == 1 and y["start"] == x["start"] + x["width"]
    return bool(whole and a["width"] * b["heads"] == b["width"] * a["heads"])


def _without_unread(plan: Sequence[Op]) -> list[Op]:
    """The plan less the parts that nobody reads."""
    read = {i for op in plan for i in op["inputs"]} | {len(plan) - 1}
    out = _Rewriter()
    for at, op in enumerate(plan):
        if at in read or op["op"] != "part":
            out.copy(at, op)
    return out.plan


class _Rewriter:
    """A new plan, and where in it the old one's values are."""

    def __init__(self) -> None:
        self.plan: list[Op] = []
        self._now: dict[int, int] = {}

    def add(self, op: Op, inputs: Sequence[int]) -> int:
        """The new index of an op that reads these old values."""
        self.plan.append({**op, "inputs": [self._now[i] for i in inputs]})
        return len(self.plan) - 1

    def copy(self, at: int, op: Op) -> None:
        """The old op `at` as it is."""
        self._now[at] = self.add(op, op["inputs"])

    def part(self, at: int, whole: int, start: int, width: int, parts: int = 1) -> None:
        """The old value `at` as columns of each of the `parts` of the new value `whole`."""
        kind = {"op": "part", "weights": [], "parts": parts, "start": start, "width": width}
        self.plan.append({**kind, "inputs": [whole]})
        self._now[at] = len(self.plan) - 1
