"""Recipes: choose the format of each tensor of a model, as ``llama-quantize`` does.

A recipe is a format ("Q4_0"), one of llama.cpp's mixtures ("Q4_K_M"), or an affine format
("asym4-g32"), which applies to the linear layers of the blocks only. `mixtures` has the rules of
the mixtures; this file applies them, then the user's options, then the limits of a tensor's shape.
It reads names and shapes only, so it also works for models that fewbit cannot run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fewbit.errors import FileFormatError, FormatError, InputError, did_you_mean
from fewbit.formats.table import AFFINE_NAMES, Format, find_format
from fewbit.recipes import mixtures
from fewbit.recipes.mixtures import ALIASES, FILE_TYPES, Place
from fewbit.recipes.order import sort_key

_BLOCK_LINEAR = re.compile(r"blk\.\d+\.(attn|ffn)_\w+\.weight")
_BLOCK = re.compile(r"blk\.([0-9]{1,9})\.")
_MATRICES = ("weight", ".lora_a", ".lora_b")
"""Ends of the names of matrices; adapters have two for each matrix that they change."""


class Shaped(Protocol):
    """The properties of a tensor that a recipe reads."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), (experts, rows, columns) or (n,)."""
        ...

    @property
    def format(self) -> str:
        """Current format of the tensor."""
        ...


class Counts(Protocol):
    """The properties of a model that a recipe reads; `Config` has them."""

    @property
    def architecture(self) -> str:
        """Name of the architecture in GGUF."""
        ...

    @property
    def layers(self) -> int:
        """Number of layers, those of multi-token prediction included."""
        ...

    @property
    def heads(self) -> int:
        """Number of query heads in the first layer."""
        ...

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads in the first layer, 0 without attention."""
        ...

    @property
    def experts(self) -> int:
        """Number of experts of a layer, 0 in a dense model."""
        ...


@dataclass(frozen=True)
class Options:
    """Exceptions from a recipe.

    `overrides` maps regular expressions over tensor names to formats; the first match wins.
    `embedding` and `output` are the formats of the token embedding and of the output matrix.
    `pure` gives every matrix the main format of the recipe.
    """

    overrides: Mapping[str, str] = field(default_factory=dict)
    embedding: str | None = None
    output: str | None = None
    pure: bool = False


def canonical(recipe: str) -> str:
    """Return the full name of a recipe, given in any letter case.

    Raises:
        FormatError: the recipe is unknown.

    """
    name = ALIASES.get(recipe.upper(), recipe.upper())
    if name in FILE_TYPES:
        return name
    try:
        found = find_format(recipe)
    except FormatError:
        raise FormatError(
            f"unknown recipe `{recipe}`",
            hint=f"{did_you_mean(recipe, FILE_TYPES)}known: {', '.join(FILE_TYPES)}, "
            f"{AFFINE_NAMES}",
            format=recipe,
        ) from None
    return found.name


def main_format(recipe: str) -> str:
    """Return the format of most tensors in `recipe`."""
    name = canonical(recipe)
    return mixtures.MAIN_FORMATS.get(name, name)


def file_type(recipe: str) -> int | None:
    """Return the number of `recipe` in GGUF (`general.file_type`), None if it has none."""
    return (FILE_TYPES | mixtures.OTHER_FILE_TYPES).get(canonical(recipe))


def choose(
    recipe: str,
    tensors: Mapping[str, Shaped],
    model: Counts,
    *,
    importance: Collection[str] = (),
    options: Options | None = None,
) -> dict[str, str]:
    """Choose the format of each of `tensors` in `recipe`, by name.

    `importance` has the names of the tensors that the importance matrix covers.

    Raises:
        FormatError: a recipe or format is unknown, does not fit the rows of a tensor, or needs an
            importance matrix.
        InputError: an override matches the name of no tensor.
        FileFormatError: the name of an expert tensor does not tell its layer.

    """
    name, wanted = canonical(recipe), options or Options()
    refuse_idle_overrides(wanted.overrides, tensors)
    if find_format(main_format(name)).family == "affine":
        return {
            key: name
            if _BLOCK_LINEAR.fullmatch(key) and len(t.shape) == 2
            else unquantized_format(t)
            for key, t in tensors.items()
        }
    chooser = _Chooser(name, tensors, model, importance, wanted)
    found = {key: chooser.format(key) for key in sorted(tensors, key=sort_key)}
    return {key: found[key] for key in tensors}


def deviations(
    recipe: str,
    formats: Mapping[str, str],
    tensors: Mapping[str, Shaped],
    model: Counts,
    importance: Collection[str] = (),
) -> dict[str, tuple[str, str]]:
    """Find the tensors that options, or the limits of their shape, took out of their recipe.

    `formats` is what `choose` gave. The result has the recipe's format and the tensor's own.
    """
    name = canonical(recipe)
    if find_format(main_format(name)).family == "affine" or find_format(main_format(name)).is_float:
        return {}
    chooser = _Chooser(name, tensors, model, importance, Options())
    planned = {key: chooser.planned(key) for key in sorted(tensors, key=sort_key)}
    return {key: (planned[key], formats[key]) for key in planned if planned[key] != formats[key]}


def unquantized_format(tensor: Shaped) -> str:
    """Return the format of a tensor that is not quantized: its own, F32 for vectors of floats."""
    if len(tensor.shape) == 1 and find_format(tensor.format).is_float:
        return "F32"
    return tensor.format


class _Chooser:
    """Chooses formats one by one; counts the tensors of each kind in llama.cpp's order."""

    def __init__(
        self,
        recipe: str,
        tensors: Mapping[str, Shaped],
        model: Counts,
        importance: Collection[str],
        options: Options,
    ) -> None:
        self._recipe = recipe
        self._main = main_format(recipe)
        self._tensors = tensors
        self._model = model
        self._importance = importance
        self._options = options
        self._overrides = [
            (_pattern(text), find_format(format_).name)
            for text, format_ in options.overrides.items()
        ]
        self._rules = mixtures.rules_of(recipe, model.architecture)
        self._tied = "output.weight" not in tensors
        self._values = sum(mixtures.kind_of(name) == "attn_v" for name in tensors)
        self._seen: Counter[str] = Counter()

    def format(self, name: str) -> str:
        tensor = self._tensors[name]
        if not is_quantizable(name, tensor.shape, self._model.architecture):
            return unquantized_format(tensor)
        wanted = self._wanted(name, tensor)
        if not self._has_importance(name, tensor, wanted):
            raise FormatError(
                f"cannot store `{name}` as {wanted} in {self._recipe} without an importance matrix",
                hint="make one with `llama-imatrix -m MODEL -f TEXT -o FILE.gguf` and pass it "
                "(`--imatrix FILE.gguf`), or take Q2_K or IQ3_S",
                tensor=name,
                format=wanted,
            )
        return wanted

    def planned(self, name: str) -> str:
        """The format that the recipe has for a tensor, whether its shape allows it or not."""
        tensor = self._tensors[name]
        if not is_quantizable(name, tensor.shape, self._model.architecture):
            return unquantized_format(tensor)
        return self._mixed(name, tensor)

    def _has_importance(self, name: str, tensor: Shaped, wanted: str) -> bool:
        """True if `name` has importance, or `wanted` does not need it."""
        here = mixtures.DEMANDING_IN_RECIPE.get(self._recipe)
        if name in mixtures.TABLES or name == "output.weight" or name in self._importance:
            return True
        if self._importance and tensor.format == wanted:  # the tensor is copied as it is
            return True
        return wanted not in mixtures.DEMANDING and wanted != here

    def _wanted(self, name: str, tensor: Shaped) -> str:
        columns = tensor.shape[-1]
        if asked := self._asked(name):
            if not _fits(find_format(asked), columns):
                raise _no_fit(name, columns, find_format(asked))
            return asked
        if find_format(self._main).is_float:
            return self._main
        found = self._override(name)
        if found is None:
            found = self._main if self._options.pure else self._mixed(name, tensor)
        return _fitting(name, columns, found)

    def _asked(self, name: str) -> str | None:
        """The format given by the options `embedding` and `output`."""
        kind, options = mixtures.kind_of(name), self._options
        if kind == "token_embd" and options.embedding:
            if name == mixtures.TABLES[0] or self._override(name) is None:
                return find_format(options.embedding).name
        elif kind == "output" and options.output:
            return find_format(options.output).name
        return None

    def _override(self, name: str) -> str | None:
        return next((f for pattern, f in self._overrides if pattern.search(name)), None)

    def _mixed(self, name: str, tensor: Shaped) -> str:
        kind, model = mixtures.kind_of(name), self._model
        if model.architecture == "glm5-next" and _has(name, mixtures.Q8_IN_GLM5_NEXT):
            return "Q8_0"
        if kind == "output" or (self._tied and kind == "token_embd"):
            return self._output(tensor.shape[-1])
        if self._recipe == "MXFP4_MOE":
            return "MXFP4" if self._is_of_experts(kind, tensor) else "Q8_0"
        place = self._place(kind, name)
        rule = self._rules.get(kind)
        found = (rule(place) if rule else None) or self._main
        if self._recipe in mixtures.TINY:
            return found
        if kind in ("attn_v", "attn_k") and model.experts == 8:
            return "Q8_0"
        return "Q5_K" if kind == "attn_v" and self._is_70b(found) else found

    def _output(self, columns: int) -> str:
        """The format of the output matrix, which gives the logits."""
        if self._options.output:
            return find_format(self._options.output).name
        if self._recipe == "MXFP4_MOE" or self._model.architecture == "falcon":
            return "Q8_0"
        if self._main == "Q8_0" or not _fits(find_format(self._main), columns):
            return "Q8_0"
        return "Q5_K" if self._recipe in mixtures.Q5_OUTPUT else "Q6_K"

    def _is_of_experts(self, kind: str, tensor: Shaped) -> bool:
        several = len(tensor.shape) > 2 and tensor.shape[-3] > 1
        return several and (self._model.architecture != "bailingmoe3" or kind.startswith("ffn_"))

    def _is_70b(self, format_: str) -> bool:
        """True if the V matrices of a "70B" model get Q5_K instead of `format_`."""
        m = self._model
        if format_ not in ("Q3_K", "Q4_K"):
            return False
        if m.architecture in ("llama", "llama-embed") and m.heads == m.kv_heads:
            return False
        return m.layers == mixtures.LAYERS_OF_70B.get(m.architecture)

    def _place(self, kind: str, name: str) -> Place:
        m, index = self._model, self._seen[kind]
        self._seen[kind] += 1
        if kind.startswith("ffn_") and m.experts > 1 and self._recipe not in mixtures.TINY:
            index = self._layer(name)
        count = self._values if kind == "attn_v" else m.layers
        gqa = m.heads // m.kv_heads if m.kv_heads else 0
        return Place(index, count, gqa, m.experts, bool(self._importance))

    def _layer(self, name: str) -> int:
        found = _BLOCK.match(name)
        if found is None or int(found[1]) >= self._model.layers:
            raise FileFormatError(
                f"the tensor name `{name}` is not in one of {self._model.layers} layers",
                hint="tensors of experts must be named `blk.N.`, with N the layer from 0",
                tensor=name,
            )
        return int(found[1])


def _fits(format_: Format, columns: int) -> bool:
    return format_.family == "affine" or columns % format_.block == 0


def _fitting(name: str, columns: int, wanted: str) -> str:
    """Return `wanted`, or its fallback if its blocks do not divide the rows.

    Raises:
        FormatError: the format has no fallback.

    """
    format_ = find_format(wanted)
    if _fits(format_, columns):
        return wanted
    if wanted not in mixtures.FALLBACKS and format_.block > 32:
        raise _no_fit(name, columns, format_)
    smaller = mixtures.FALLBACKS.get(wanted, wanted)
    return smaller if _fits(find_format(smaller), columns) else "F16"


def _no_fit(name: str, columns: int, format_: Format) -> FormatError:
    return FormatError(
        f"cannot store `{name}` as {format_.name}: "
        f"rows of {columns} elements are not a multiple of {format_.block}",
        hint="give the tensor another format (`--tensor-type`), or take another recipe",
        tensor=name,
        format=format_.name,
        columns=columns,
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text.lower())
    except re.error as error:
        raise InputError(
            f"`{text}` is not a regular expression: {error}", hint="as in `attn_v=Q6_K`"
        ) from None


def refuse_idle_overrides(overrides: Mapping[str, str], names: Collection[str]) -> None:
    """Refuse an override that matches none of the tensors' `names`: it is a typing error.

    Raises:
        InputError: an override matches nothing, or is not a regular expression.

    """
    for text in overrides:
        if not any(_pattern(text).search(name) for name in names):
            words = {word for name in names for word in (name, *name.split("."))}
            raise InputError(
                f"`--tensor-type {text}` matches no tensor",
                hint=f"{did_you_mean(text, sorted(words))}`fewbit inspect` lists the names",
                pattern=text,
            )


def _has(name: str, substrings: Collection[str]) -> bool:
    return any(substring in name for substring in substrings)


def is_quantizable(name: str, shape: tuple[int, ...], architecture: str = "") -> bool:
    """True if a recipe may quantize the tensor: a matrix that is not a norm, router or tiny."""
    if not any(n > 1 for n in shape[:-1]) or not name.endswith(_MATRICES):
        return False
    if architecture == "glm5-next" and _has(name, mixtures.UNQUANTIZED_IN_GLM5_NEXT):
        return False
    return name not in mixtures.UNQUANTIZED_NAMES and not _has(name, mixtures.UNQUANTIZED)
