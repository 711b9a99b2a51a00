"""Matrix products, dense and of experts: their shaders and the rounding of their activations.

A few tokens are multiplied one by one, many in tiles. With `acts="int8"` activations that meet
integer levels are rounded to int8; the products are integer products if the card has them and rows
are multiples of 32 columns. Activations that meet bfloat16 weights are rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewbit.errors import ShapeError
from fewbit.run.gpu.stages import FEW_TOKENS, TILE, Builder, Ref, Stage, Tiles, View, layout
from fewbit.run.gpu.weights import Slice, Tensor

Op = Mapping[str, Any]

F32_SHADERS, INT8_SHADERS = ("dots", "tile_f32"), ("dots_int8", "tile_int8")
"""The files that multiply, for few and for many tokens; the op's own file follows."""


class Products(Builder):
    """Compiles `linear` and `expert_linear`."""

    def linear(self, at: int, op: Op, x: View, other: View | None) -> View:
        """The product, plus its bias and the value that a following `add` adds."""
        weight = self.weights[op["weights"][0]]
        check_shape(at, op, weight, op["width"], x.width)
        x, packed = self._activations(op["inputs"][0], x, weight)
        y = self.new(op["width"])
        bias = self.vector(op["weights"][1]) if len(op["weights"]) > 1 else "no_input"
        constants = {
            "WIDTH": y.width, "HAS_BIAS": bias != "no_input", "ADDS_OTHER": other is not None,
            **layout(x),
        }  # fmt: skip
        if other is not None:
            constants |= layout(other, "OTHER_")
        bindings = {
            3: x.slot, 4: y.slot, 5: bias, 6: other.slot if other else "no_input", 7: "step",
            8: packed.slot if packed else "no_input",
        }  # fmt: skip
        few_tokens, many_tokens = INT8_SHADERS if packed else F32_SHADERS
        if not packed:
            constants["BF16"] = self.acts == "int8" and weight.takes_bf16
        for slice_ in weight.slices:
            tiles = Tiles((slice_.file, many_tokens, "matmul"), -(-slice_.rows // TILE))
            self._product(
                (slice_.file, few_tokens, "linear"), slice_, bindings, constants,
                -(-slice_.rows // 4), tiles,
            )  # fmt: skip
        return y

    def expert_linear(self, at: int, op: Op, x: View, route: View) -> View:
        """Products with the matrices of each token's experts; many tokens are sorted by expert."""
        weight, used = self.weights[op["weights"][0]], route.width // 2
        width, experts = op["width"] // used, op["experts"]
        shared = x.width == weight.columns
        columns = x.width if shared else x.width // used
        check_shape(at, op, weight, experts * width, columns)
        above = max(FEW_TOKENS, experts // used)  # with more tokens, some expert has two of them
        grouped = self._grouped(op["inputs"][1], route, experts, above)
        x, packed = self._activations(op["inputs"][0], x, weight)
        y = self.new(op["width"])
        bias = self.vector(op["weights"][1]) if len(op["weights"]) > 1 else "no_input"
        constants = {
            "WIDTH": width, "USED": used, "HAS_BIAS": bias != "no_input", "SHARED_X": shared,
            **layout(x), **layout(route, "OTHER_"),
        }  # fmt: skip
        bindings = {
            3: x.slot, 4: y.slot, 5: bias, 6: route.slot, 8: packed.slot if packed else "no_input",
            9: grouped.slot,
        }  # fmt: skip
        few_tokens, many_tokens = INT8_SHADERS if packed else F32_SHADERS
        if not packed:
            constants["BF16"] = self.acts == "int8" and weight.takes_bf16
        for slice_ in weight.slices:
            files = (slice_.file, many_tokens, "expert_matmul")
            tiles = Tiles(files, -(-width // TILE), above, used, experts)
            self._product(
                (slice_.file, few_tokens, "expert_linear"), slice_, bindings, constants,
                used * -(-width // 4), tiles,
            )  # fmt: skip
        return y

    def _product(
        self, files: tuple[str, ...], slice_: Slice, bindings: Mapping[int, Ref],
        constants: Mapping[str, float], workgroups: int, tiles: Tiles,
    ) -> None:  # fmt: skip
        """Add the product with a slice of a matrix."""
        numbers = {**slice_.constants, **constants, "FIRST_ROW": slice_.first}
        stage = Stage(
            files[-1], files, {**slice_.buffers, **bindings}, (4,), numbers, workgroups,
            self.domain, tiles,
        )  # fmt: skip
        self.program.stages.append(stage)

    def _grouped(self, value: int, route: View, experts: int, above: int) -> View:
        """The (token, expert) pairs of route `value` by expert; made once for all its readers."""
        if (value, 0, "grouped") not in self.derived:
            used = route.width // 2
            y = self.derived[value, 0, "grouped"] = self.new(4 * used + 4)
            constants = {
                "EXPERTS": experts, "USED": used, "TILE": TILE,
                "AFTER_TAKE": self.domain == "outputs", **layout(route),
            }  # fmt: skip
            bindings = {3: route.slot, 4: y.slot, 7: "step"}
            self.stage("group_experts", bindings, constants, 1, above=above)
        return self.derived[value, 0, "grouped"]

    # ---- rounded activations

    def _activations(self, value: int, x: View, weight: Tensor) -> tuple[View, View | None]:
        """Value `value` as a matrix needs it: itself or rounded to f32, and packed codes if any."""
        if self.acts != "int8" or not weight.activation_group:
            return x, None
        group = weight.activation_group
        self._round(value, x, weight.columns, group)
        packed = self.derived.get((value, weight.columns, f"packed by {group}"))
        return self.derived.get((value, weight.columns, f"rounded by {group}"), x), packed

    def _round(self, value: int, x: View, size: int, group: int) -> None:
        """Round value `value` in groups of `group` columns of rows of `size`, unless it is done."""
        kinds = [(value, size, f"{kind} by {group}") for kind in ("packed", "rounded")]
        if any(kind in self.derived for kind in kinds):
            return
        packed = self.pack(value, x.width, size, group)
        if packed is None:
            self.derived[kinds[1]] = self.new(x.width)
        y = self.derived.get(kinds[1])
        constants = {
            "WIDTH": size, "PIECES": x.width // size, "PACKED": packed is not None, "GROUP": group,
            **layout(x),
        }  # fmt: skip
        bindings = {
            3: x.slot, 4: y.slot if y else "no_output", 8: packed.slot if packed else "no_output",
        }  # fmt: skip
        workgroups = self.workgroups(x.width // size * -(-size // 32))
        self.stage("round_activations", bindings, constants, workgroups, writes=(4, 8))

    def pack(self, value: int, width: int, size: int, group: int) -> View | None:
        """A new value for the codes and scales of a rounded value; None without integer products.

        Metal has no instruction for products of four bytes, and its emulation is slow.
        """
        if size % 32 or self.weights.device.adapter.backend == "Metal":
            return None
        kind = (value, size, f"packed by {group}")
        packed = self.derived[kind] = self.new(width // 4 + width // 16)
        return packed

    def common_activation_group(self, at: int) -> int:
        """The activation group of all readers of a value; 0 if they differ or are not products."""
        readers = [op for op in self.plan if at in op["inputs"]]
        if self.acts != "int8" or any(op["op"] != "linear" for op in readers):
            return 0
        groups = {self.weights[op["weights"][0]].activation_group for op in readers}
        return groups.pop() if len(groups) == 1 else 0


def check_shape(at: int, op: Op, weight: Tensor, rows: int, columns: int) -> None:
    """Refuse a matrix that does not have the shape of the plan.

    Raises:
        ShapeError: the shapes differ.

    """
    if (weight.rows, weight.columns) != (rows, columns):
        raise ShapeError(
            f"op {at} ({op['op']}): `{weight.name}` is [{weight.rows}, {weight.columns}], "
            f"the plan has [{rows}, {columns}]"
        )
