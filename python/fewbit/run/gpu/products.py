"""Products with matrices, dense ones and those of experts: what they read, and in which form.

Few rows of x are taken one by one, many in tiles. With `acts="int8"` what meets integer levels is
rounded, and multiplied as bytes where the card has products of bytes and a row is of whole groups;
what meets bfloat16 is rounded to bfloat16 as it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewbit.errors import ShapeError
from fewbit.run.gpu.stages import FEW, TILE, Builder, Ref, Stage, Tiles, View, of
from fewbit.run.gpu.weights import Slice, Tensor

Op = Mapping[str, Any]

FLOATS, BYTES = ("dots", "tile_f32"), ("dots_int8", "tile_int8")
"""The shaders that multiply few rows and many, in front of those of the ops."""


class Products(Builder):
    """The methods of `linear` and `expert_linear`."""

    def linear(self, at: int, op: Op, x: View, other: View | None) -> View:
        """The product, with its bias and the sum that follows it."""
        weight = self.weights[op["weights"][0]]
        check_shape(at, op, weight, op["width"], x.width)
        x, packed = self._activations(op["inputs"][0], x, weight)
        y = self.new(op["width"])
        bias = self.vector(op["weights"][1]) if len(op["weights"]) > 1 else "empty"
        constants = {"WIDTH": y.width, "BIAS": bias != "empty", "OTHER": other is not None, **of(x)}
        if other is not None:
            constants |= of(other, "OTHER_")
        bindings = {
            3: x.slot, 4: y.slot, 5: bias, 6: other.slot if other else "empty", 7: "step",
            8: packed.slot if packed else "empty",
        }  # fmt: skip
        few, many = BYTES if packed else FLOATS
        if not packed:
            constants["BF16"] = self.acts == "int8" and weight.takes_bf16
        for part in weight.slices:
            tiles = Tiles((part.file, many, "matmul"), -(-part.rows // TILE))
            self._product(
                (part.file, few, "linear"), part, bindings, constants, -(-part.rows // 4), tiles
            )
        return y

    def expert_linear(self, at: int, op: Op, x: View, route: View) -> View:
        """Products with the routed matrices, which many rows of x go through expert by expert."""
        weight, used = self.weights[op["weights"][0]], route.width // 2
        width, experts = op["width"] // used, op["experts"]
        shared = x.width == weight.columns
        columns = x.width if shared else x.width // used
        check_shape(at, op, weight, experts * width, columns)
        most = max(FEW, experts // used)  # more rows than that, and some expert has two
        grouped = self._grouped(op["inputs"][1], route, experts, most)
        x, packed = self._activations(op["inputs"][0], x, weight)
        y = self.new(op["width"])
        bias = self.vector(op["weights"][1]) if len(op["weights"]) > 1 else "empty"
        constants = {
            "WIDTH": width, "USED": used, "BIAS": bias != "empty", "SHARED": shared, **of(x),
            **of(route, "OTHER_"),
        }  # fmt: skip
        bindings = {
            3: x.slot, 4: y.slot, 5: bias, 6: route.slot, 8: packed.slot if packed else "empty",
            9: grouped.slot,
        }  # fmt: skip
        few, many = BYTES if packed else FLOATS
        if not packed:
            constants["BF16"] = self.acts == "int8" and weight.takes_bf16
        for part in weight.slices:
            files = (part.file, many, "expert_matmul")
            tiles = Tiles(files, -(-width // TILE), most, used, experts)
            self._product(
                (part.file, few, "expert_linear"), part, bindings, constants,
                used * -(-width // 4), tiles,
            )  # fmt: skip
        return y

    def _product(
        self, files: tuple[str, ...], part: Slice, bindings: Mapping[int, Ref],
        constants: Mapping[str, float], groups: int, tiles: Tiles,
    ) -> None:  # fmt: skip
        """Add the product with a slice of a matrix."""
        numbers = {**part.constants, **constants, "FIRST": part.first}
        stage = Stage(
            files[-1], files, {**part.buffers, **bindings}, (4,), numbers, groups, self.domain,
            tiles,
        )  # fmt: skip
        self.program.stages.append(stage)

    def _grouped(self, value: int, route: View, experts: int, most: int) -> View:
        """The places of a route, which is the value `value`, by expert: made once for all."""
        if (value, 0, "grouped") not in self.derived:
            used = route.width // 2
            y = self.derived[value, 0, "grouped"] = self.new(4 * used + 4)
            constants = {
                "EXPERTS": experts, "USED": used, "TILE": TILE,
                "AFTER_TAKE": self.domain == "outputs", **of(route),
            }  # fmt: skip
            bindings = {3: route.slot, 4: y.slot, 7: "step"}
            self.stage("group_experts", bindings, constants, 1, above=most)
        return self.derived[value, 0, "grouped"]

    # ---- rounded activations

    def _activations(self, value: int, x: View, weight: Tensor) -> tuple[View, View | None]:
        """What meets a matrix: the value `value` itself, or rounded, or as codes and scales."""
        if self.acts != "int8" or not weight.rounds_activations:
            return x, None
        span = weight.rounds_activations
        self._round(value, x, weight.columns, span)
        packed = self.derived.get((value, weight.columns, f"packed by {span}"))
        return self.derived.get((value, weight.columns, f"rounded by {span}"), x), packed

    def _round(self, value: int, x: View, size: int, span: int) -> None:
        """Have the value `value` rounded, in rows of `size` and by `span` columns, unless it is."""
        kinds = [(value, size, f"{kind} by {span}") for kind in ("packed", "rounded")]
        if any(kind in self.derived for kind in kinds):
            return
        packed = self.pack(value, x.width, size, span)
        if packed is None:
            self.derived[kinds[1]] = self.new(x.width)
        y = self.derived.get(kinds[1])
        constants = {
            "WIDTH": size, "PARTS": x.width // size, "PACKED": packed is not None, "SPAN": span,
            **of(x),
        }  # fmt: skip
        bindings = {
            3: x.slot, 4: y.slot if y else "waste", 8: packed.slot if packed else "waste",
        }  # fmt: skip
        groups = self.items(x.width // size * -(-size // 32))
        self.stage("round_activations", bindings, constants, groups, writes=(4, 8))

    def pack(self, value: int, width: int, size: int, span: int) -> View | None:
        """Room for codes and scales of a value rounded in rows of `size` and by `span`, if any.

        For products of bytes, where a card has them: not on Metal, whose shaders spell them out.
        """
        if size % 32 or self.weights.device.adapter.backend == "Metal":
            return None
        kind = (value, size, f"packed by {span}")
        packed = self.derived[kind] = self.new(width // 4 + width // 16)
        return packed

    def rounded_by(self, at: int) -> int:
        """By how many columns all that read a value round it whole, 0 if not all or not alike."""
        readers = [op for op in self.plan if at in op["inputs"]]
        if self.acts != "int8" or any(op["op"] != "linear" for op in readers):
            return 0
        spans = {self.weights[op["weights"][0]].rounds_activations for op in readers}
        return spans.pop() if len(spans) == 1 else 0


def check_shape(at: int, op: Op, weight: Tensor, rows: int, columns: int) -> None:
    """Refuse a matrix of another shape than the plan says.

    Raises:
        ShapeError: it has.

    """
    if (weight.rows, weight.columns) != (rows, columns):
        raise ShapeError(
            f"op {at} ({op['op']}): `{weight.name}` is [{weight.rows}, {weight.columns}], "
            f"the plan has [{rows}, {columns}]"
        )
