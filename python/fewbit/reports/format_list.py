"""The formats and mixtures that a model can be quantized to, with bits per weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewbit.errors import FormatError
from fewbit.formats.table import AFFINE_NAMES, find_format
from fewbit.plan.shapes import tensor_bytes
from fewbit.recipes.choose import choose, main_format
from fewbit.recipes.mixtures import FILE_TYPES, OTHER_FILE_TYPES
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    format: str = "BF16"


@dataclass(frozen=True)
class _Llama8B:
    """The numbers of Llama 3.1 8B that recipes read."""

    architecture: str = "llama"
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    experts: int = 0

    def tensors(self) -> dict[str, _Tensor]:
        """Its tensors by name, with their shapes."""
        width, hidden, keys, vocab = 4096, 14_336, 1024, 128_256
        shapes = {
            "attn_norm": (width,), "attn_q": (width, width), "attn_k": (keys, width),
            "attn_v": (keys, width), "attn_output": (width, width), "ffn_norm": (width,),
            "ffn_gate": (hidden, width), "ffn_up": (hidden, width), "ffn_down": (width, hidden),
        }  # fmt: skip
        found = {
            f"blk.{layer}.{name}.weight": _Tensor(shape)
            for layer in range(self.layers)
            for name, shape in shapes.items()
        }
        return found | {
            "token_embd.weight": _Tensor((vocab, width)),
            "output_norm.weight": _Tensor((width,)),
            "output.weight": _Tensor((vocab, width)),
        }


@dataclass(frozen=True)
class ListedRecipe:
    """A format or mixture: most tensors get `main_format`, of `format_bits` bits per weight.

    Llama 3.1 8B takes `model_bits` bits per weight in it, tables and vectors included.
    """

    name: str
    main_format: str
    format_bits: float
    model_bits: float
    needs_imatrix: bool


@dataclass(frozen=True)
class FormatList(Shown):
    """All formats and mixtures, from the fewest bits per weight to the most."""

    recipes: tuple[ListedRecipe, ...]

    def page(self) -> Page:
        """One line per format or mixture."""
        table = Table(
            ("name", "main\nformat", "needs\nimatrix", "bits of\nformat", "bits of\nLlama 3.1 8B"),
            text=3,
        )
        for r in self.recipes:
            table.add_row(
                r.name, r.main_format, "yes" if r.needs_imatrix else "",
                f"{r.format_bits:.2f}", f"{r.model_bits:.2f}",
            )  # fmt: skip
        affine = AFFINE_NAMES.removeprefix("and ")
        return [table, "", f"bits per weight, scales included; affine formats: {affine}"]


def list_formats() -> FormatList:
    """List the formats and mixtures with their bits per weight; Llama 3.1 8B is the example."""
    model = _Llama8B()
    tensors = model.tensors()
    weights = sum(math.prod(tensor.shape) for tensor in tensors.values())
    found = []
    for name in [*FILE_TYPES, *OTHER_FILE_TYPES]:
        needs_imatrix = False
        try:
            formats = choose(name, tensors, model)
        except FormatError:
            needs_imatrix, formats = True, choose(name, tensors, model, importance=tensors.keys())
        size = sum(tensor_bytes(tensors[key].shape, format_) for key, format_ in formats.items())
        main = find_format(main_format(name))
        found.append(
            ListedRecipe(name, main.name, main.bits_per_weight, 8 * size / weights, needs_imatrix)
        )
    return FormatList(tuple(sorted(found, key=lambda recipe: (recipe.model_bits, recipe.name))))
