"""One model in many formats: what each costs in bits and bytes, and what it loses.

Two losses are told apart: what the weights alone lose (``acts="f32"``) and what remains when the
fast arithmetic also rounds the activations (``acts="int8"``). The model as it is, with f32
activations, is the base of both. It runs once per window, and all formats after it, so no logits
are ever stored; all the encoded models are in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewbit.callbacks import Progress
from fewbit.formats.table import find_format
from fewbit.measure.evaluate import Variant, divergences
from fewbit.measure.speed import Case, Filled
from fewbit.measure.statistics import Divergence
from fewbit.plan.sizes import Sizes, sizes_of
from fewbit.run.model import LoadedModel

SPEED_TOKENS = 64

DEFAULT_FORMATS = (
    "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One format: its sizes, its losses and its speed (generated tokens per second, int8)."""

    format: str
    sizes: Sizes
    weights: Divergence
    fast: Divergence
    tokens_per_second: float


def compare(
    base: LoadedModel,
    formats: Sequence[str],
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """A row for `base` as it is, then one for each of `formats`.

    Raises:
        FormatError: a format is unknown, or weights cannot be stored in it.
        InputError: the text is too short for two windows.

    """
    models: dict[str, LoadedModel] = {base_name(base): base}
    for done, name in enumerate(formats):
        if progress:
            progress(done, len(formats), f"encoding {name}")
        models[name] = base.quantize(name)
        _ = models[name].executor  # encodes the weights now, not in the first window
    variants = {
        (name, acts): Variant(model, acts)
        for name, model in models.items()
        for acts in (("f32", "int8") if _rounds_activations(model) else ("f32",))
    }
    found = divergences(
        list(variants.values()), Variant(base, "f32"), text, ctx, chunks, _measuring(progress)
    )
    results = dict(zip(variants, found, strict=True))
    speeds = {name: _speed(model) for name, model in models.items()}
    return [
        Row(
            name,
            sizes_of(model.plan, model.formats),
            results[name, "f32"],
            results.get((name, "int8"), results[name, "f32"]),
            speeds[name],
        )
        for name, model in models.items()
    ]


def base_name(model: LoadedModel) -> str:
    """The format that holds most of a model's weights."""
    counts: dict[str, int] = {}
    for op in model.plan.ops:
        for name in op.weights if op.kind == "linear" else ():
            format_ = model.formats[name]
            counts[format_] = counts.get(format_, 0) + op.width
    return max(counts, key=lambda name: counts[name])


def _rounds_activations(model: LoadedModel) -> bool:
    """Whether int8 changes anything: of weights stored as floats, only BF16 rounds activations."""
    return any(name == "BF16" or not find_format(name).is_float for name in model.formats.values())


def _speed(model: LoadedModel) -> float:
    count = min(SPEED_TOKENS, model.config.context)
    Filled(model, Case("tg", min(4, count)), "int8").measure()
    return Filled(model, Case("tg", count), "int8").measure()


def _measuring(progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, _: progress(done, total, "measuring")
