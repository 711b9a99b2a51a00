"""Recipes: which tensor gets which format, as ``llama-quantize`` decides it.

A recipe is a format ("Q4_0"), one of llama.cpp's mixtures ("Q4_K_M") or an affine format
("asym4-g32", the linear layers of the blocks alone). What the mixtures are is in `mixtures`; here
is the order in which their rules, wishes and shapes are heard. Names and shapes are enough for it,
so it decides on models that fewbit cannot run too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fewbit.errors import FileFormatError, FormatError, InputError
from fewbit.formats.table import Format, find_format
from fewbit.recipes import mixtures
from fewbit.recipes.mixtures import ALIASES, FILE_TYPES, Place
from fewbit.recipes.order import sort_key

_BLOCK_LINEAR = re.compile(r"blk\.\d+\.(attn|ffn)_\w+\.weight")
_BLOCK = re.compile(r"blk\.(\d+)\.")


class Shaped(Protocol):
    """A tensor as far as a recipe looks at it: rows first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), (experts, rows, columns) or (n,)."""
        ...

    @property
    def format(self) -> str:
        """The format that it has now."""
        ...


class Counts(Protocol):
    """A model as far as a recipe looks at it; a `Config` is one."""

    @property
    def architecture(self) -> str:
        """GGUF's name of it."""
        ...

    @property
    def layers(self) -> int:
        """All of them: those that predict further tokens count."""
        ...

    @property
    def heads(self) -> int:
        """Those of queries, in the first layer."""
        ...

    @property
    def kv_heads(self) -> int:
        """Those of keys and values, in the first layer; 0 where it has no attention."""
        ...

    @property
    def experts(self) -> int:
        """How many there are in a layer, 0 in a dense model."""
        ...


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
    return mixtures.MAIN_FORMATS.get(name, name)


def file_type(recipe: str) -> int | None:
    """GGUF's `general.file_type` of `recipe`, None for those that GGUF has no number for."""
    return (FILE_TYPES | mixtures.OTHER_FILE_TYPES).get(canonical(recipe))


def choose(
    recipe: str,
    tensors: Mapping[str, Shaped],
    model: Counts,
    *,
    importance: Collection[str] = (),
    options: Options | None = None,
) -> dict[str, str]:
    """The format of each of `tensors` under `recipe`; `importance` names those that have one.

    Raises:
        FormatError: a recipe or format is unknown, does not fit a tensor's rows, or needs an
            importance matrix.
        FileFormatError: the layer of an expert's tensor cannot be told from its name.

    """
    name, wanted = canonical(recipe), options or Options()
    if find_format(main_format(name)).family == "affine":
        return {
            key: name if _BLOCK_LINEAR.fullmatch(key) and len(t.shape) == 2 else kept_format(t)
            for key, t in tensors.items()
        }
    chooser = _Chooser(name, tensors, model, importance, wanted)
    found = {key: chooser.format(key) for key in sorted(tensors, key=sort_key)}
    return {key: found[key] for key in tensors}


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
            return kept_format(tensor)
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

    def _has_importance(self, name: str, tensor: Shaped, wanted: str) -> bool:
        """Whether `name` has the importance matrix that `wanted` demands, or none is needed."""
        here = mixtures.DEMANDING_HERE.get(self._recipe)
        if name in mixtures.TABLES or name == "output.weight" or name in self._importance:
            return True
        if self._importance and tensor.format == wanted:  # copied
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
        """The format that was asked for by the name of a table."""
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
        if model.architecture == "glm5-next" and _has(name, mixtures.Q8_BY_GLM5_NEXT):
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
        """The format of the table that tokens are predicted with."""
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
        """Whether `format_` is too few bits for the v of a model of 70 billion weights."""
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
                f"tensor `{name}` is in none of the model's {self._model.layers} layers",
                hint="experts' tensors must be named `blk.N.`",
                tensor=name,
            )
        return int(found[1])


def _fits(format_: Format, columns: int) -> bool:
    return format_.family == "affine" or columns % format_.block == 0


def _fitting(name: str, columns: int, wanted: str) -> str:
    """`wanted`, or the format in its place where its blocks do not divide the rows.

    Raises:
        FormatError: none is in its place.

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
        hint="give it another format (`--tensor-type`), or take another recipe",
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


def _has(name: str, parts: Collection[str]) -> bool:
    return any(part in name for part in parts)


def is_quantizable(name: str, shape: tuple[int, ...], architecture: str = "") -> bool:
    """Whether a tensor may be stored in few bits at all: a matrix, no norm, no router, not tiny."""
    if not any(n > 1 for n in shape[:-1]) or not name.endswith("weight"):
        return False
    if architecture == "glm5-next" and _has(name, mixtures.KEPT_BY_GLM5_NEXT):
        return False
    return name not in mixtures.KEPT_NAMES and not _has(name, mixtures.KEPT)
