"""Explain a format, a mixture or a term: sentences, a formula, a decoded example."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fewbit.errors import FormatError, InputError, did_you_mean
from fewbit.floats import FLOAT_FORMATS, FloatFormat, NumberFormat, number_format
from fewbit.formats.layouts import layout_of
from fewbit.formats.table import FORMATS, Format, find_format
from fewbit.recipes.choose import main_format
from fewbit.recipes.mixtures import ALIASES, FILE_TYPES, MAIN_FORMATS
from fewbit.reports.examples import EXAMPLES, Example, decoded, mixture, weights
from fewbit.reports.format_list import FormatList, list_formats
from fewbit.reports.glossary import TERMS, find_term
from fewbit.reports.number_table import represent
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Explained(Shown):
    """A name with sentences about it, a formula ("" for none), and an example of lines and tables.

    `kind` is "term", "format", "mixture" or "number format".
    """

    name: str
    kind: str
    text: tuple[str, ...]
    formula: str
    example: Example
    see: tuple[str, ...] = ()

    def page(self) -> Page:
        """The name, the sentences, the formula, the example."""
        page: Page = [f"{self.name} ({self.kind})", ""]
        page += self.text
        if self.formula:
            page += ["", f"  {self.formula}"]
        page += ["", *self.example] if self.example else []
        if self.see:
            page += ["", "see also: " + ", ".join(self.see)]
        return page


@dataclass(frozen=True)
class Explainable(Shown):
    """All names that `explain` knows: terms with their first sentence, formats with their bits."""

    terms: dict[str, str]
    formats: FormatList
    number_formats: dict[str, int]

    def page(self) -> Page:
        """A table of terms, one of formats and mixtures, one line of float formats."""
        table = Table(("term", "meaning"), text=2, folds=2)
        for name, meaning in self.terms.items():
            table.add_row(name, meaning)
        floats = ", ".join(f"{name} ({bits})" for name, bits in self.number_formats.items())
        return [table, "", *self.formats.page(), f"number formats and their bits: {floats}"]


def explainable() -> Explainable:
    """List the terms, formats and mixtures that `explain` knows, formats with bits per weight."""
    terms = {term.name: _first_sentence(term.text[0]) for term in TERMS.values()}
    return Explainable(
        terms, list_formats(), {name: kind.bits for name, kind in FLOAT_FORMATS.items()}
    )


def explain(name: str) -> Explained:
    """Explain a term ("block", "KLD"), a format ("Q4_K"), a mixture ("Q4_K_M") or a float format.

    The example is decoded from, or measured on, the built-in model. "roofline" measures this
    machine for about a second.

    >>> explain("zero point").formula
    'value = scale * (code - zero point)'

    Raises:
        InputError: the name is unknown.

    """
    if term := find_term(name):
        return Explained(
            term.name, "term", term.text, term.formula, EXAMPLES[term.name](), term.see
        )
    upper = name.upper()
    if upper in MAIN_FORMATS or (upper in ALIASES and upper not in FORMATS):
        return _mixture(ALIASES.get(upper, upper))
    try:
        return _format(find_format(name))
    except FormatError:
        pass
    if re.fullmatch(r"a?sym[2-8]", name.lower()):
        return _article(name.lower())
    try:
        return _number_format(number_format(name))
    except FormatError:
        known = [*TERMS, *FORMATS, *FILE_TYPES, *FLOAT_FORMATS]
        raise InputError(
            f"nothing is called `{name}`",
            hint=f"{did_you_mean(name, known)}`fewbit explain` lists what is known",
            name=name,
        ) from None


def _format(kind: Format) -> Explained:
    if kind.is_float:
        return _number_format(number_format(kind.name))
    layout = layout_of(kind)
    bits = f"{kind.bits_per_weight:.4g} bits per weight"
    text = [f"{kind.bytes} bytes store {kind.block} weights: {bits}."]
    if kind.scale_group is not None:
        least = " and a minimum" if kind.has_minimum else ""
        text.append(f"{kind.scale_group} weights share a scale{least}.")
    if kind.larger_than_file:
        text.append("The CPU keeps it in a layout that is larger than the file, and faster.")
    return Explained(
        kind.name, "format", tuple(text), layout.formula, decoded(kind.name, max(kind.block, 32)),
        ("block", "scale", f"`fewbit formats {kind.name}` for each byte"),
    )  # fmt: skip


def _mixture(recipe: str) -> Explained:
    (listed,) = [r for r in list_formats().recipes if r.name == recipe]
    text = [
        f"Most tensors get {main_format(recipe)}, {listed.format_bits:.4g} bits per weight; "
        "tensors whose errors cost more get more bits.",
        f"Llama 3.1 8B takes {listed.model_bits:.2f} bits per weight.",
    ]
    if listed.needs_imatrix:
        text.append("It needs an importance matrix.")
    see = ("mixture", main_format(recipe))
    return Explained(recipe, "mixture", tuple(text), "", mixture(recipe), see)


def _article(name: str) -> Explained:
    what = "asymmetric" if name.startswith("a") else "symmetric"
    text = (
        f"Integers of {name[-1]} bits with one scale for any count of numbers: {what} "
        "quantization as articles introduce it.",
        f"Files store it in groups: `{name}-g32`.",
    )
    zero = " - zero point" if what == "asymmetric" else ""
    formula = f"value = scale * (code{zero})" if zero else "value = scale * code"
    return Explained(name, "format", text, formula, decoded(name, 32), ("scale", "zero point"))


def _number_format(kind: NumberFormat) -> Explained:
    formula = ""
    if isinstance(kind, FloatFormat):
        sizes = f"{kind.exponent_bits} exponent and {kind.significand_bits} significand bits"
        top = {
            "ieee": "with infinities and NaN",
            "fn": "with one NaN, without infinities",
            "finite": "without infinities and NaN",
        }[kind.top]
        text = (f"A float of a sign, {sizes}, {top}.",)
        formula = (
            f"value = (-1)^sign * 2^(exponent - {kind.bias}) * "
            f"(1 + significand / {1 << kind.significand_bits})"
        )
    else:
        text = (f"An unsigned integer of {kind.bits} bits, from 0 to {kind.largest:.0f}.",)
    unsigned = kind.smallest >= 0
    table = represent([0.5, 1.5, kind.largest / 3] if unsigned else weights(4), [kind.name])
    example: Example = [
        "some numbers:" if unsigned else "weights of the demo:",
        "",
        *table.tables()[:1],
        "",
        *table.tables()[1:],
    ]
    return Explained(kind.name, "number format", text, formula, example, ("scale",))


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].removesuffix(".").partition(": ")[0]
