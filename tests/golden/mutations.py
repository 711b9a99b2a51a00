"""Plans that are wrong in one place: every op, input, weight and attribute, each by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reference.weights import Weight
from tests.golden.loading import reversed_rows

Plan = list[dict[str, Any]]
MATRICES = {"linear": 1, "expert_linear": 1, "attend": 0}
"""How many weights an op has without its bias, or its sinks."""
REVERSED = " reversed"


def with_reversed(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights, and each once more with its rows reversed, for plans that name that one."""
    return {**weights, **{name + REVERSED: reversed_rows(w) for name, w in weights.items()}}


def mutations(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """A label and a plan for each thing that can be wrong.

    Only `take` may be dropped: without it all rows are computed and the wanted ones picked. And
    a `route` holds indices of experts: it is replaced by other routes alone, not by any floats.
    """
    for index, op in enumerate(plan):
        label = f"%{index} {op['op']}"
        for slot, value in enumerate(op["inputs"]):
            if op["op"] not in ("take", "route") and plan[value]["width"] == op["width"]:
                yield f"{label} dropped for input {slot}", without(plan, index, value)
            other = another(plan, index, value)
            if other is not None and not only_scaled(op, plan[value], other):
                inputs = [*op["inputs"][:slot], other, *op["inputs"][slot + 1 :]]
                yield f"{label} input {slot}", changed(plan, index, inputs=inputs)
        for slot, name in enumerate(op["weights"]):
            weights = [*op["weights"][:slot], name + REVERSED, *op["weights"][slot + 1 :]]
            yield f"{label} {name} reversed", changed(plan, index, weights=weights)
        if len(op["weights"]) > MATRICES.get(op["op"], len(op["weights"])):
            weights = op["weights"][: MATRICES[op["op"]]]
            yield f"{label} without {op['weights'][-1]}", changed(plan, index, weights=weights)
        for key in op.keys() - {"op", "inputs", "weights"}:
            for number, value in enumerate(altered(key, op, plan)):
                yield f"{label} {key} {number}", changed(plan, index, **{key: value})
    yield from swapped(plan)


def altered(key: str, op: dict[str, Any], plan: Plan) -> list[Any]:
    """Other values for an attribute."""
    value = op[key]
    match key:
        case "width":
            return [value + 1]
        case "eps":
            return [value + 0.2, 0.1 * value + 0.3]
        case "heads" | "kv_heads" | "key_heads" | "experts" | "used" | "parts":
            return [value // 2 if value > 1 else 2]
        case "start":
            return [value + 1, value - 1] if value else [1]
        case "normalize":
            return [not value]
        case "original":
            return [1, 1 << 20]
        case "cap" | "alpha" | "limit":
            return [value * 1.1, value / 2]
        case "sharing":
            return ["turns" if value == "runs" else "runs"]
        case "freqs" | "short" | "long":
            return [[f * 1.01 for f in value], value[::-1], value[: len(value) // 2]]
        case "factor" | "scale":
            return [value * 1.01, -value]
        case "pairing":
            return ["halves" if value == "neighbours" else "neighbours"]
        case "layer":
            others = {other["layer"] for other in plan if other["op"] == op["op"]} - {value}
            return sorted(others)
        case "window":
            return [value + 1, value - 1] if value else [5]
    raise AssertionError(f"no mutation for the attribute `{key}`")


def swapped(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Ops of two inputs that are not alike, the wrong way round."""
    for index, op in enumerate(plan):
        if op["op"] in ("swiglu", "geglu", "clamped_swiglu", "attend", "delta_rule"):
            yield (
                f"%{index} {op['op']} swapped",
                changed(plan, index, inputs=[*op["inputs"][:-2], *op["inputs"][:-3:-1]]),
            )


def changed(plan: Plan, index: int, **fields: Any) -> Plan:
    return [*plan[:index], {**plan[index], **fields}, *plan[index + 1 :]]


def another(plan: Plan, index: int, value: int) -> int | None:
    """The nearest earlier value of the same width, if there is one."""
    width = plan[value]["width"]
    others = (i for i in range(index - 1, -1, -1) if i != value and plan[i]["width"] == width)
    if plan[value]["op"] == "route":
        others = (i for i in others if plan[i]["op"] == "route")
    return next(others, None)


def only_scaled(op: dict[str, Any], value: dict[str, Any], other: int) -> bool:
    """Whether `op` is a norm and `value` is `other` times a number, which a norm takes out."""
    return op["op"] == "rms_norm" and value["op"] == "scale" and value["inputs"] == [other]


def without(plan: Plan, index: int, value: int) -> Plan:
    """The plan with `value` in place of op `index`."""

    def moved(i: int) -> int:
        return value if i == index else i - (i > index)

    return [
        {**op, "inputs": [moved(i) for i in op["inputs"]]}
        for position, op in enumerate(plan)
        if position != index
    ]
