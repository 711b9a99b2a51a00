"""Compiles the ops of a plan into stages: one method for each op, with the op's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fewbit.errors import InputError, UnsupportedError
from fewbit.run.gpu.products import Products
from fewbit.run.gpu.stages import MAX_HEAD_SIZE, Program, View, layout
from fewbit.run.gpu.stateful import NEEDS_POSITION, Stateful
from fewbit.run.gpu.weights import Tensor

Op = Mapping[str, Any]

VECTORS = {
    "rms_norm": (0,), "layer_norm": (0, 1), "linear": (1,), "expert_linear": (1,), "attend": (0,),
    "short_conv": (0,), "log_decay": (0, 1),
}  # fmt: skip
"""Indices of the weights that an op reads as plain f32, whatever their number of rows."""

GATES = frozenset(("swiglu", "geglu", "clamped_swiglu"))
"""Element-wise ops of two values that may lie in separate pieces of a row."""


class Compiler(Stateful, Products):
    """Compiles a plan; the method named like an op adds its stages and returns its value."""

    OPS = (
        "embed", "embed_position", "rms_norm", "layer_norm", "l2_norm", "linear", "part", "rope",
        "long_rope", "attend", "add", "mul", "scale", "softcap", "gelu", "silu", "sigmoid",
        "swiglu", "geglu", "clamped_swiglu", "route", "expert_linear", "expert_sum", "short_conv",
        "log_decay", "delta_rule", "take",
    )  # fmt: skip

    def run(self) -> Program:
        """Compile the plan.

        Raises:
            UnsupportedError: the plan has an op that this executor lacks.
            ShapeError: a tensor does not have the shape that the plan expects.

        """
        check_ops(self.plan)
        adds = self._residuals()
        for at, op in enumerate(self.plan):
            if at not in self.values:
                self._step(at, op, adds.get(at))
            self.release_read(at)
        self.program.logits = self.values[len(self.plan) - 1]
        return self.program

    def _step(self, at: int, op: Op, into: int | None) -> None:
        inputs = [self.values[i] for i in op["inputs"]]
        if op["op"] in ("rms_norm", "linear", "expert_linear", "part"):
            other = None
            if into is not None:
                (other,) = (self.values[i] for i in self.plan[into]["inputs"] if i != at)
            further = [other] if op["op"] == "linear" else []
            view = getattr(self, op["op"])(at, op, *inputs, *further)
            if into is not None:
                self.values[into] = self.retain(view)
        else:
            view = getattr(self, op["op"])(op, *inputs)
        self.values[at] = view

    def _residuals(self) -> dict[int, int]:
        """`linear` ops whose only reader is an `add` to an earlier value, which one stage computes.

        The product is rounded before the sum either way, so the bits are the same.
        """
        readers = Counter(i for op in self.plan for i in op["inputs"])
        found = {}
        for at, op in enumerate(self.plan):
            if op["op"] == "add" and len(set(op["inputs"])) == 2:
                late = max(op["inputs"])
                if self.plan[late]["op"] == "linear" and readers[late] == 1:
                    found[late] = at
        return found

    # ---- tables and norms

    def embed(self, op: Op) -> View:
        """Rows of the table, slice by slice."""
        table = self.weights[op["weights"][0]]
        self.program.vocab = table.rows
        return self._rows_of(table, "embed")

    def embed_position(self, op: Op) -> View:
        """Rows of the table of positions, slice by slice."""
        table = self.weights[op["weights"][0]]
        self.program.max_positions = table.rows
        return self._rows_of(table, "embed_position")

    def _rows_of(self, table: Tensor, name: str) -> View:
        y = self.new(table.columns)
        for slice_ in table.slices:
            self.stage(
                name, {4: y.slot, 7: "step"}, {"FIRST_ROW": slice_.first},
                self.workgroups(y.width // 4), slice_=slice_,
            )  # fmt: skip
        return y

    def rms_norm(self, at: int, op: Op, x: View) -> View:
        """Over each head; the shader also rounds the result if all readers need it rounded."""
        weight = {5: self.vector(op["weights"][0])}
        group = self.common_activation_group(at) if op["heads"] == 1 else 0
        packed = self.pack(at, x.width, x.width, group) if group else None
        weight[8] = packed.slot if packed else "no_output"
        options = {
            "EPS": op["eps"], "ROUNDS": group > 0, "PACKED": packed is not None,
            "GROUP": group or 32,
        }  # fmt: skip
        y = self._norm("rms_norm", x, weight, op["heads"], **options)
        if group:
            self.derived[at, x.width, f"rounded by {group}"] = self.retain(y)
        return y

    def l2_norm(self, op: Op, x: View) -> View:
        """Over each head."""
        return self._norm("l2_norm", x, {}, op["heads"], EPS=op["eps"])

    def layer_norm(self, op: Op, x: View) -> View:
        """Over the row."""
        weights = {5: self.vector(op["weights"][0]), 6: self.vector(op["weights"][1])}
        return self._norm("layer_norm", x, weights, 1, EPS=op["eps"])

    def _norm(
        self, name: str, x: View, weights: Mapping[int, Any], heads: int, **constants: float
    ) -> View:
        y = self.new(x.width)
        numbers = {"SIZE": x.width // heads, "HEADS": heads, **layout(x), **constants}
        bindings = {3: x.slot, 4: y.slot, **weights}
        writes = (4, 8) if name == "rms_norm" else (4,)
        self.stage(name, bindings, numbers, heads, writes=writes)
        return y

    def part(self, at: int, op: Op, x: View) -> View:
        """A view of the columns if they are contiguous and aligned, or only gates read them."""
        pieces = op["parts"]
        x_piece, y_piece = x.width // pieces, op["width"] // pieces
        readers = {reader["op"] for reader in self.plan if at in reader["inputs"]}
        aligned = op["start"] % 4 == 0 and x.stride % 4 == 0
        if readers and readers <= GATES if pieces > 1 else aligned and at < len(self.plan) - 1:
            start = x.offset + op["start"]
            return self.retain(
                View(x.slot, x.stride, start, op["width"], x.domain, pieces, x_piece)
            )
        y = self.new(op["width"])
        constants = {
            "WIDTH": y.width, "X_PIECE": x_piece, "Y_PIECE": y_piece, "START": op["start"],
            **layout(x),
        }  # fmt: skip
        self.stage("part", {3: x.slot, 4: y.slot}, constants, self.workgroups(y.width))
        return y

    # ---- element-wise

    def add(self, op: Op, x: View, other: View) -> View:
        """The sum of two values."""
        return self.elementwise("add", x, other)

    def mul(self, op: Op, x: View, other: View) -> View:
        """The product of two values; the second may be shorter."""
        return self.elementwise("mul", x, other, REPEAT=x.width // other.width)

    def scale(self, op: Op, x: View) -> View:
        """The value times a constant."""
        return self.elementwise("scale", x, FACTOR=op["factor"])

    def softcap(self, op: Op, x: View) -> View:
        """The value with a soft limit `cap`."""
        return self.elementwise("softcap", x, CAP=op["cap"])

    def gelu(self, op: Op, x: View) -> View:
        """The activation function."""
        return self.elementwise("gelu", x)

    def silu(self, op: Op, x: View) -> View:
        """The activation function."""
        return self.elementwise("silu", x)

    def sigmoid(self, op: Op, x: View) -> View:
        """The activation function."""
        return self.elementwise("sigmoid", x)

    def swiglu(self, op: Op, gate: View, up: View) -> View:
        """The gated value."""
        return self.elementwise("swiglu", gate, up)

    def geglu(self, op: Op, gate: View, up: View) -> View:
        """The gated value."""
        return self.elementwise("geglu", gate, up)

    def clamped_swiglu(self, op: Op, gate: View, up: View) -> View:
        """The gated value, with both inputs clamped."""
        return self.elementwise("clamped_swiglu", gate, up, ALPHA=op["alpha"], LIMIT=op["limit"])

    def log_decay(self, op: Op, x: View) -> View:
        """The logarithm of how much a recurrent state decays."""
        y = self.new(x.width)
        rate, bias = map(self.vector, op["weights"])
        bindings = {3: x.slot, 4: y.slot, 5: rate, 6: bias}
        constants = {"WIDTH": x.width, **layout(x)}
        self.stage("log_decay", bindings, constants, self.workgroups(x.width))
        return y

    def take(self, op: Op, x: View) -> View:
        """Select the rows of outputs; later ops have those rows only."""
        self.domain = "outputs"
        y = self.new(x.width)
        constants = {"WIDTH": x.width, **layout(x)}
        self.stage("take", {3: x.slot, 4: y.slot, 7: "step"}, constants, self.workgroups(x.width))
        return y

    # ---- experts

    def route(self, op: Op, x: View) -> View:
        """Choose the experts of each token, and their weights."""
        y = self.new(op["width"])
        constants = {
            "COUNT": x.width, "K": op["used"], "NORMALIZE": op["normalize"], **layout(x),
        }  # fmt: skip
        self.stage("route", {3: x.slot, 4: y.slot}, constants, 1)
        return y

    def expert_sum(self, op: Op, x: View, route: View) -> View:
        """The weighted sum of the experts' outputs."""
        y = self.new(op["width"])
        constants = {
            "WIDTH": y.width, "USED": route.width // 2, **layout(x), **layout(route, "OTHER_"),
        }  # fmt: skip
        bindings = {3: x.slot, 4: y.slot, 6: route.slot}
        self.stage("expert_sum", bindings, constants, self.workgroups(y.width))
        return y


def vectors(plan: Sequence[Op]) -> frozenset[str]:
    """The tensors that the plan's ops read as plain f32: norms, biases and the like."""
    return frozenset(
        op["weights"][at]
        for op in plan
        for at in VECTORS.get(op["op"], ())
        if at < len(op["weights"])
    )


def check_ops(plan: Sequence[Op]) -> None:
    """Refuse a plan with an op that this executor lacks, before any upload.

    Raises:
        UnsupportedError: the plan has an op, or a shape of an op, that this executor lacks.
        InputError: an op needs all tokens after `take`, or experts of an op other than `route`.

    """
    taken = False
    for at, op in enumerate(plan):
        kind = op["op"]
        if kind not in Compiler.OPS:
            raise UnsupportedError(
                f"op {at}: the GPU executor has no `{kind}`", hint="use `--device cpu`", op=kind
            )
        size = op["width"] // op["heads"] if kind == "attend" else 4
        if size % 4 or size > MAX_HEAD_SIZE:
            raise UnsupportedError(
                f"op {at}: the GPU executor has no `attend` with heads of {size} columns",
                hint=f"a multiple of 4 up to {MAX_HEAD_SIZE}; use `--device cpu`",
                op=kind,
            )
        if taken and kind in NEEDS_POSITION:
            raise InputError(f"op {at} ({kind}) comes after `take`, but needs all tokens", op=kind)
        taken = taken or kind == "take"
        if kind in ("expert_linear", "expert_sum") and plan[op["inputs"][1]]["op"] != "route":
            raise InputError(f"op {at} ({kind}) takes its experts from an op other than `route`")
