"""Every kind of picture by its name, with defaults for whatever is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from fewbit.api import Model, load
from fewbit.callbacks import Progress
from fewbit.demo import demo_text
from fewbit.errors import InputError, did_you_mean
from fewbit.floats.number_format import as_numbers
from fewbit.plots import losses, numbers, weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOATS = ("float32", "float16", "bfloat16", "float8", "e5m2", "float4")
SMALL = ("e2m1", "float4", "e3m2", "e2m3", "float8", "u3")
CURVES = ("bfloat16", "float8", "e5m2", "float4")
STORED = ("Q8_0", "Q6_K", "Q5_0", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
SPEEDS = ("Q8_0", "Q6_K", "Q5_K", "Q4_0", "Q4_K", "Q3_K", "Q2_K", "IQ2_S")
SIX = (-0.89, 0.16, 0.08, -0.13, 0.16, -0.54)
ROW = "blk.0.ffn_down.weight"
Inputs: TypeAlias = Sequence[str | float | PathLike[str]]


@dataclass(frozen=True)
class Wishes:
    """What a picture shows; each kind reads what it needs."""

    inputs: Inputs = ()
    formats: Sequence[str] = ()
    interval: tuple[float, float] | None = None
    log: bool = False
    factor: float = 1.0
    tensor: str = ""
    prompt: str = "The old house"
    text: str | None = None
    chunks: int | None = 4
    progress: Progress | None = None

    @property
    def models(self) -> list[str | PathLike[str]]:
        """The inputs as models; the demo if there are none."""
        return [i for i in self.inputs if not isinstance(i, float | int)] or ["demo"]

    @property
    def numbers(self) -> list[float]:
        """The inputs as numbers."""
        return [as_numbers(str(i)).item() for i in self.inputs]

    def model(self) -> Model:
        """The first model, loaded on the CPU."""
        return load(self.models[0], "cpu")


def _representable(w: Wishes) -> Figure:
    return numbers.representable(w.formats or FLOATS, w.interval, w.log)


def _lines(w: Wishes) -> Figure:
    return numbers.number_lines(w.formats or SMALL, w.interval)


def _sine(w: Wishes) -> Figure:
    return numbers.sine(w.formats or CURVES, w.factor)


def _mapping(w: Wishes) -> Figure:
    found = as_numbers(w.numbers or SIX).tolist()
    return numbers.mapping(found, w.formats or ("sym4", "asym4"))


def _blocks(w: Wishes) -> Figure:
    model = w.model()
    row = model.tensor(w.tensor or ROW)[:2].ravel()[:2048]
    return numbers.block_sizes([float(v) for v in row])


def _normals(w: Wishes) -> Figure:
    shift, width = as_numbers(w.numbers or (1.0, 1.5)).tolist()[:2]
    return numbers.normals(shift, width)


def _counts(w: Wishes) -> list[weights.Counted]:
    return [weights.count_weights(model, w.tensor, w.progress) for model in w.models]


def _weights(w: Wishes) -> Figure:
    return weights.distributions(_counts(w), w.interval, w.log)


def _outliers(w: Wishes) -> Figure:
    return weights.tails(_counts(w))


def _map(w: Wishes) -> Figure:
    return weights.heat_map(w.models[0], w.tensor or ROW, w.formats[0] if w.formats else "Q4_0")


def _tokens(w: Wishes) -> Figure:
    return losses.next_tokens(w.model(), w.prompt, w.formats or ("Q8_0", "Q4_0", "Q2_K"))


def _sizes(w: Wishes) -> Figure:
    text = demo_text() if w.text is None else w.text
    return losses.sizes(w.model(), text, w.formats or STORED, w.chunks, w.progress)


def _layers(w: Wishes) -> Figure:
    text = demo_text() if w.text is None else w.text
    recipe = w.formats[0] if w.formats else "Q4_0"
    return losses.layers(w.model(), text, recipe, w.chunks, w.progress)


def _speed(w: Wishes) -> Figure:
    return losses.speed(w.formats or SPEEDS)


KINDS: Mapping[str, tuple[Callable[[Wishes], Figure], str]] = {
    "floats": (_representable, "how many values of each float format lie where (--range, --log)"),
    "lines": (_lines, "each value of small formats as a tick on a line (--range)"),
    "sine": (_sine, "a sine curve in each format (--factor 30)"),
    "mapping": (_mapping, "numbers and the values of their codes, symmetric and asymmetric"),
    "blocks": (_blocks, "error against bits by size of block (MODEL, --tensor)"),
    "kl": (_normals, "two normal curves and their KL divergence (SHIFT WIDTH)"),
    "weights": (_weights, "distributions of models over each other (MODEL..., --range, --log)"),
    "outliers": (_outliers, "weights beyond 3 to 100 standard deviations, with counts (MODEL...)"),
    "map": (_map, "a tensor as a map, with blocks and error (MODEL, --tensor, --as Q4_0)"),
    "tokens": (_tokens, "probabilities of the next token (MODEL, --prompt, --as)"),
    "sizes": (_sizes, "bits per weight against KL divergence (MODEL, --text, --as)"),
    "layers": (_layers, "KL divergence of each tensor in a format alone (MODEL, --text, --as)"),
    "speed": (_speed, "each format against the roofline of this machine (--as)"),
}
"""Kinds of pictures: the function that draws it, and a few words."""


def plot(
    kind: str,
    inputs: Inputs = (),
    *,
    formats: Sequence[str] = (),
    interval: tuple[float, float] | None = None,
    log: bool = False,
    factor: float = 1.0,
    tensor: str = "",
    prompt: str = "The old house",
    text: str | None = None,
    chunks: int | None = 4,
    progress: Progress | None = None,
) -> Figure:
    """Draw a picture as a matplotlib figure; `figure.savefig("x.png")` writes it.

    Args:
        kind: floats, lines, sine, mapping, blocks, kl, weights, outliers, map, tokens, sizes,
            layers or speed.
        inputs: models for pictures of models (the built-in one if empty), numbers for mapping and
            kl.
        formats: formats to show; each kind has a default.
        interval: lowest and highest value shown by floats, lines and weights.
        log: draw floats and weights on logarithmic axes.
        factor: what multiplies the curve of sine.
        tensor: a regular expression for tensors of weights, outliers, map and blocks.
        prompt: the text whose next token tokens shows.
        text: what sizes and layers measure on; the demo's text if None.
        chunks: windows that sizes and layers measure, None for all.
        progress: called while a model is read or measured.

    Raises:
        InputError: there is no such kind or model, or an option does not fit it.
        FormatError: a format is unknown.
        UnsupportedError: matplotlib is not installed.

    """
    if kind not in KINDS:
        raise InputError(
            f"no picture is called `{kind}`",
            hint=f"{did_you_mean(kind, KINDS)}known: {', '.join(KINDS)}",
            kind=kind,
        )
    wishes = Wishes(
        inputs, formats, interval, log, factor, tensor, prompt, text, chunks, progress
    )  # fmt: skip
    return KINDS[kind][0](wishes)
