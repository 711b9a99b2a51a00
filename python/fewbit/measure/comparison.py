"""Compare one model in several formats: size, loss and speed of each.

Two losses are measured: that of the weights alone (``acts="f32"``) and that with int8 activations
(``acts="int8"``). The base of both is the unchanged model with f32 activations. It runs once per
window, and all formats after it, so no logits are stored; all encoded models are in memory at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewbit.callbacks import Progress
from fewbit.formats.table import find_format
from fewbit.measure.evaluate import Variant, divergences
from fewbit.measure.limits import main_format
from fewbit.measure.results import Divergence, estimate_text, sample_lines
from fewbit.measure.speed import Case, Filled
from fewbit.plan.sizes import Sizes, sizes_of
from fewbit.run.model import LoadedModel
from fewbit.tables import Page, Shown, Table

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


class Comparison(list[Row], Shown):
    """A row for the base as it is, then one for each format; prints as a table."""

    __str__ = Shown.__str__

    def page(self, details: bool = False) -> Page:
        """As `fewbit compare` prints it; `details` shows all losses by kind of activations."""
        return comparison_page(self, details)


def compare(
    base: LoadedModel,
    formats: Sequence[str],
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
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
    return Comparison(
        Row(
            name,
            sizes_of(model.plan, model.formats),
            results[name, "f32"],
            results.get((name, "int8"), results[name, "f32"]),
            speeds[name],
        )
        for name, model in models.items()
    )


def base_name(model: LoadedModel) -> str:
    """The format of most of a model's linear weights."""
    return main_format(model.plan, model.formats)


def _rounds_activations(model: LoadedModel) -> bool:
    """Whether int8 changes anything: among float weights only BF16 rounds its activations."""
    return any(name == "BF16" or not find_format(name).is_float for name in model.formats.values())


def _speed(model: LoadedModel) -> float:
    count = min(SPEED_TOKENS, model.config.context)
    Filled(model, Case("tg", min(4, count)), "int8").measure()
    return Filled(model, Case("tg", count), "int8").measure()


def _measuring(progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, _: progress(done, total, "measuring")


def comparison_page(rows: Sequence[Row], details: bool = False) -> Page:
    """What each format costs and loses; with `details` a table for each kind of activations."""
    sample = sample_lines([row.weights.sample for row in rows[:1]])
    if details:
        weights, fast = _loss_table(rows, "weights"), _loss_table(rows, "fast")
        head = "What the weights alone lose (f32 activations):"
        return [
            head,
            weights,
            "",
            "With the fast arithmetic (int8 activations):",
            fast,
            "",
            *sample,
        ]
    table = Table(
        (
            "format", "bits per\nweight", "size\nMB",
            "PPL\nweights", "KLD\nweights", "same top\nweights",
            "PPL\n+ int8", "KLD\n+ int8", "same top\n+ int8", "tokens/s\n+ int8",
        ),
        gap=0,
    )  # fmt: skip
    for row in rows:
        table.add_row(*_costs(row), *_losses(row.weights), *_losses(row.fast), _rate(row))
    note = (
        "weights: what the format alone loses (f32 activations); "
        "+ int8: with the fast arithmetic, which rounds activations too"
    )
    return [table, "", note, *sample]


def _loss_table(rows: Sequence[Row], kind: str) -> Table:
    speed = ["tokens/s"] if kind == "fast" else []
    table = Table(
        (
            "format", "bits per\nweight", "size\nMB", "PPL", "ln(PPL/base)", "mean KLD",
            "99 % KLD", "RMS Δp", "same top", *speed,
        )
    )  # fmt: skip
    for row in rows:
        d: Divergence = getattr(row, kind)
        table.add_row(
            *_costs(row), f"{d.ppl.value:.4f}", f"{d.ln_ratio.value:.5f}", estimate_text(d.kld, 6),
            f"{d.kld_percentiles[99.0]:.4f}", f"{100 * d.rms_dp.value:.3f} %",
            f"{100 * d.same_top.value:.3f} %", *([_rate(row)] if kind == "fast" else []),
        )  # fmt: skip
    return table


def _costs(row: Row) -> tuple[str, str, str]:
    return row.format, f"{row.sizes.bits_per_weight:.2f}", f"{row.sizes.bytes / 1e6:.2f}"


def _losses(d: Divergence) -> tuple[str, str, str]:
    return f"{d.ppl.value:.3f}", f"{d.kld.value:.5f}", f"{100 * d.same_top.value:.2f} %"


def _rate(row: Row) -> str:
    return f"{row.tokens_per_second:,.0f}"
