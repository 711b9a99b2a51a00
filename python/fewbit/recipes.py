"""Recipes: which tensor gets which format, as ``llama-quantize`` decides it.

A recipe is a format ("Q4_0"), one of llama.cpp's mixtures ("Q4_K_M") or an affine format
("asym4-g32", the linear layers of the blocks alone). The rules are data: per mixture and kind of
tensor, which of its layers get more bits than the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fewbit.config import Config
from fewbit.errors import FormatError, InputError
from fewbit.formats import FORMATS, find_format

FILE_TYPES: dict[str, int] = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
    "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22,
    "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29,
    "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "Q1_0": 40,
    "Q2_0": 41,
}  # fmt: skip
"""GGUF's `general.file_type` of every recipe that llama.cpp has."""
MAIN = {"IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S",
        "MXFP4_MOE": "MXFP4"}  # fmt: skip
"""The main format of recipes that do not say it; the others' is their name without _S, _M, _L."""
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
FALLBACKS = {
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    **dict.fromkeys(
        ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"
    ),
}  # fmt: skip
"""What a row gets that a format's blocks do not divide; F16 where that does not either."""
DEMANDING = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
"""Formats that tables of tokens apart are not to be stored in without an importance matrix."""

_KEPT = re.compile(r"_norm\.weight$|ffn_gate_inp\.weight$")
_BLOCK_LINEAR = re.compile(r"blk\.\d+\.(attn|ffn)_\w+\.weight")


class Shaped(Protocol):
    """A tensor as far as a recipe looks at it: rows first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (n,)."""
        ...

    @property
    def format(self) -> str:
        """The format that it has now."""
        ...


@dataclass(frozen=True)
class _Layer:
    """Where a tensor stands among those of its kind: the `index`-th of `count`."""

    index: int
    count: int
    gqa: int
    importance: bool

    @property
    def early(self) -> bool:
        """In the first eighth."""
        return self.index < self.count // 8

    @property
    def middle(self) -> bool:
        """Neither in the first nor in the last eighth."""
        return not self.early and self.index < 7 * self.count // 8

    @property
    def spread(self) -> bool:
        """In the first or last eighth, or every third between: llama.cpp's `use_more_bits`."""
        third = (self.index - self.count // 8) % 3 == 2
        return self.early or self.index >= 7 * self.count // 8 or third


Rule = Callable[[_Layer], str | None]


def _always(format_: str) -> Rule:
    return lambda layer: format_


def _where(test: Callable[[_Layer], bool], format_: str, otherwise: str | None = None) -> Rule:
    return lambda layer: format_ if test(layer) else otherwise


def _low_bits(better: str, **more: Rule) -> dict[str, Rule]:
    """What files of one and two bits have in common."""
    return {
        "attn_v": _where(lambda at: at.gqa >= 4, "Q4_K", better),
        "ffn_down": _where(lambda at: at.early, better),
        **more,
    }


_MIXTURES: dict[str, dict[str, Rule]] = {
    "Q2_K": {
        "attn_v": _where(lambda at: at.gqa >= 4, "Q4_K", "Q3_K"),
        "ffn_down": _always("Q3_K"),
        "attn_output": _always("Q3_K"),
    },
    "Q2_K_S": {
        "attn_v": _where(lambda at: at.gqa >= 4, "Q4_K"),
        "ffn_down": _where(lambda at: at.early, "Q4_K"),
    },
    "Q3_K_M": {
        "attn_v": _where(lambda at: at.index < 2, "Q5_K", "Q4_K"),
        "ffn_down": _where(lambda at: at.index < at.count // 16, "Q5_K", "Q4_K"),
        "attn_output": _always("Q4_K"),
    },
    "Q3_K_L": {key: _always("Q5_K") for key in ("attn_v", "ffn_down", "attn_output")},
    "Q4_K_S": {
        "attn_v": _where(lambda at: at.index < 4, "Q5_K"),
        "ffn_down": _where(lambda at: at.early, "Q5_K"),
    },
    "Q4_K_M": {key: _where(lambda at: at.spread, "Q6_K") for key in ("attn_v", "ffn_down")},
    "Q5_K_M": {key: _where(lambda at: at.spread, "Q6_K") for key in ("attn_v", "ffn_down")},
    "Q4_0": {"ffn_down": _where(lambda at: at.early and at.importance, "Q4_1")},
    "Q5_0": {"ffn_down": _where(lambda at: at.early and at.importance, "Q5_1")},
    **dict.fromkeys(("IQ1_S", "IQ1_M"), _low_bits("Q2_K", attn_output=_always("IQ2_XXS"))),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS"), _low_bits("Q2_K")),
    **dict.fromkeys(("IQ2_S", "IQ2_M"), _low_bits("IQ3_S", attn_output=_always("IQ3_S"))),
    "IQ3_XXS": {
        "attn_v": lambda at: "Q4_K" if at.gqa >= 4 else "IQ3_XXS" if at.importance else "IQ3_S",
        "attn_k": _always("IQ2_S"),
        "attn_q": _always("IQ2_S"),
        "attn_output": _always("IQ3_S"),
        "ffn_down": lambda at: None if at.importance else "Q4_K" if at.early else "Q3_K",
    },
    "IQ3_XS": {
        "attn_v": _where(lambda at: at.gqa >= 4, "Q4_K"),
        **dict.fromkeys(("attn_k", "attn_q"), _always("IQ3_XXS")),
        **dict.fromkeys(("ffn_gate", "ffn_up"), _where(lambda at: at.middle, "IQ3_XXS")),
    },
    "IQ3_S": {"attn_v": _where(lambda at: at.gqa >= 4, "Q4_K")},
    "IQ3_M": {
        "attn_v": _always("Q4_K"),
        "attn_output": _always("Q4_K"),
        "ffn_down": _where(lambda at: at.early, "Q4_K"),
    },
    **{
        key: {
            "attn_v": _where(lambda at: at.gqa >= 4, "Q5_K"),
            "ffn_down": _where(lambda at: at.early and not at.importance, "Q5_K"),
        }
        for key in ("IQ4_NL", "IQ4_XS")
    },
}
"""llama.cpp's mixtures: per kind of tensor a format, None for the recipe's own."""
_EMBEDDING = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS"), "Q2_K"),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"),
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0"), "Q4_K"),
}
"""The embedding's format where the output has a table of its own, if not the recipe's main one."""
_OUTPUT = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS"), "Q5_K"),
    **dict.fromkeys(("Q8_0", "MXFP4_MOE"), "Q8_0"),
}
"""The output's format, if not Q6_K."""


@dataclass(frozen=True)
class Options:
    """What may be asked for besides a recipe.

    `overrides` maps regular expressions over tensor names to formats, the first match wins;
    `embedding` and `output` are the formats of those two tables; `pure` gives every matrix the
    recipe's own format.
    """

    overrides: Mapping[str, str] = field(default_factory=dict)
    embedding: str | None = None
    output: str | None = None
    pure: bool = False


def canonical(recipe: str) -> str:
    """The recipe called `recipe`, in any letter case, by its full name.

    Raises:
        FormatError: there is no such recipe.

    """
    name = ALIASES.get(recipe.upper(), recipe.upper())
    if name in FILE_TYPES:
        return name
    try:
        found = find_format(recipe)
    except FormatError:
        raise FormatError(
            f"unknown recipe `{recipe}`",
            hint=f"known: {', '.join(FILE_TYPES)}, and sym1..8-gN, asym1..8-gN as in asym4-g32",
            format=recipe,
        ) from None
    return found.name


def main_format(recipe: str) -> str:
    """The format that most tensors get under `recipe`."""
    name = canonical(recipe)
    if found := MAIN.get(name):
        return found
    return re.sub(r"_[SML]$", "", name) if name not in FORMATS else name


def choose(
    recipe: str,
    tensors: Mapping[str, Shaped],
    config: Config,
    *,
    importance: Collection[str] = (),
    options: Options | None = None,
) -> dict[str, str]:
    """The format of each of `tensors` under `recipe`; `importance` names those that have one.

    Raises:
        FormatError: a recipe or format is unknown, or needs an importance matrix.

    """
    name, wanted = canonical(recipe), options or Options()
    if find_format(main_format(name)).family == "affine":
        return {
            key: name if _BLOCK_LINEAR.fullmatch(key) and len(t.shape) == 2 else kept_format(t)
            for key, t in tensors.items()
        }
    chooser = _Chooser(name, tensors, config, importance, wanted)
    return {key: chooser.format(key) for key in tensors}


def kept_format(tensor: Shaped) -> str:
    """The format of a tensor that is not quantized: vectors of floats as F32, as GGUF has them."""
    if len(tensor.shape) == 1 and find_format(tensor.format).is_float:
        return "F32"
    return tensor.format


class _Chooser:
    """Counts tensors of each kind in llama.cpp's order, and decides on each."""

    def __init__(
        self,
        recipe: str,
        tensors: Mapping[str, Shaped],
        config: Config,
        importance: Collection[str],
        options: Options,
    ) -> None:
        self._recipe = recipe
        self._main = main_format(recipe)
        self._tensors = tensors
        self._config = config
        self._importance = importance
        self._overrides = [
            (_pattern(text), find_format(format_).name)
            for text, format_ in options.overrides.items()
        ]
        self._options = options
        self._tied = "output.weight" not in tensors

    def format(self, name: str) -> str:
        tensor = self._tensors[name]
        if not is_quantizable(name, tensor.shape):
            return kept_format(tensor)
        wanted = self._wanted(name, tensor)
        columns = tensor.shape[-1]
        if columns % find_format(wanted).block:
            wanted = FALLBACKS.get(wanted, "F16")
        if columns % find_format(wanted).block:
            wanted = "F16"
        demanding = (*DEMANDING, "Q2_K") if self._recipe == "Q2_K_S" else DEMANDING
        if wanted in demanding and not self._known(name):
            raise FormatError(
                f"{wanted} needs an importance matrix, `{name}` has none",
                hint="make one with llama-imatrix and pass it, or use Q2_K or IQ3_S",
                tensor=name,
            )
        return wanted

    def _known(self, name: str) -> bool:
        return name in self._importance or name in ("token_embd.weight", "output.weight")

    def _wanted(self, name: str, tensor: Shaped) -> str:
        options = self._options
        if name == "token_embd.weight" and options.embedding:
            return find_format(options.embedding).name
        if name == "output.weight" and options.output:
            return find_format(options.output).name
        if find_format(self._main).is_float:
            return self._main
        for pattern, format_ in self._overrides:
            if pattern.search(name):
                return format_
        return self._main if options.pure else self._mixed(name, tensor)

    def _mixed(self, name: str, tensor: Shaped) -> str:
        main = self._main
        if name == "output.weight" or (self._tied and name == "token_embd.weight"):
            if tensor.shape[-1] % find_format(main).block:
                return "Q8_0"
            return _OUTPUT.get(self._recipe, "Q6_K")
        if self._recipe == "MXFP4_MOE":
            return "MXFP4" if len(tensor.shape) > 2 else "Q8_0"
        if name == "token_embd.weight":
            return _EMBEDDING.get(self._recipe, main)
        parts = name.split(".")
        if parts[0] != "blk":
            return main
        rule = _MIXTURES.get(self._recipe, {}).get(parts[2])
        found = (rule(self._layer(int(parts[1]))) if rule else None) or main
        if parts[2] == "attn_v" and found in ("Q3_K", "Q4_K") and self._is_70b():
            return "Q5_K"
        return found

    def _is_70b(self) -> bool:
        """Llama 2 or 3 of 80 layers: eight queries share a value, so more bits cost little."""
        c = self._config
        return c.architecture == "llama" and c.layers == 80 and c.heads != c.kv_heads

    def _layer(self, index: int) -> _Layer:
        c = self._config
        return _Layer(index, c.layers, c.heads // c.kv_heads, bool(self._importance))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text.lower())
    except re.error as error:
        raise InputError(
            f"`{text}` is not a regular expression: {error}", hint="as in `attn_v=Q6_K`"
        ) from None


def is_quantizable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor may be stored in few bits at all: a matrix, no norm and no router."""
    return len(shape) > 1 and name.endswith("weight") and not _KEPT.search(name)
