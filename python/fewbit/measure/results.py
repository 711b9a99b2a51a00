"""Results of measuring a model: perplexity and KL divergence with their errors, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from fewbit.measure.significance import t_quantile
from fewbit.moved import Renamed
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error over `windows` windows of text; nan if there is only one."""

    value: float
    error: float
    windows: int = field(default=0, compare=False)

    def exp(self) -> Estimate:
        """The exponential of the value, the error carried to first order."""
        value = _exp(self.value)
        return Estimate(value, value * self.error, self.windows)

    def scaled(self, factor: float) -> Estimate:
        """The value and its error times `factor`, which is above 0."""
        return Estimate(factor * self.value, factor * self.error, self.windows)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval: Student's t with windows - 1 degrees of freedom."""
        reach = t_quantile(0.975, self.windows - 1) * self.error if self.error else 0.0
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Sample:
    """What was measured: `chunks` windows of `ctx` tokens; `tokens` tokens in all were scored.

    `nonfinite` counts the scored tokens whose logits gave no finite measure; the means are then
    not finite either. `seconds` is the wall clock of the whole measurement. With a `stride` windows
    overlap and the last may be shorter: `processed` tokens went through the model. The scored
    tokens of a perplexity stand for `bytes` bytes of UTF-8 text.
    """

    ctx: int
    chunks: int
    tokens: int
    seconds: float
    nonfinite: int = 0
    stride: int | None = None
    processed: int | None = None
    bytes: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens that went through the model, scored or not, per second."""
        tokens = self.chunks * self.ctx if self.processed is None else self.processed
        return tokens / self.seconds if self.seconds > 0 else math.inf


@dataclass(frozen=True)
class Perplexity(Shown):
    """exp of the mean negative log-likelihood `nll` (nats per token) of a text."""

    SCHEMA: ClassVar = "fewbit.perplexity/1"

    ppl: Estimate
    nll: Estimate
    acts: str
    sample: Sample

    span = Renamed("sample")

    @property
    def bits_per_byte(self) -> float | None:
        """Bits of surprise for each byte of text: it compares models with different tokenizers."""
        if not self.sample.bytes:
            return None
        return self.nll.value * self.sample.tokens / math.log(2) / self.sample.bytes

    def page(self) -> Page:
        """As `fewbit perplexity` prints it."""
        return perplexity_page([self])


@dataclass(frozen=True)
class PositionRange:
    """Means over tokens that are predicted after `start` + 1 to `stop` tokens of a window."""

    start: int
    stop: int
    tokens: int
    kld: float
    ln_ratio: float
    same_top: float


@dataclass(frozen=True)
class BaseNote:
    """The file that a base's predictions came from, by which `formula`, and what it costs.

    Of llama.cpp's kind: `error` is the largest error of a stored ln p, half a step of its 16 bits;
    `cut` the mean probability of all tokens together that are stored as e^-16 of the likeliest's
    logit, and `sum` the mean sum of a row's probabilities; measured on the first row of each
    window. Of the compact kind: `top` tokens a row are kept, and the mean KLD with all of them lies
    between `kld_low` and `kld_high`.
    """

    path: str
    kind: str
    formula: str
    error: float | None = None
    cut: float | None = None
    sum: float | None = None
    top: int | None = None
    kld_low: float | None = None
    kld_high: float | None = None


@dataclass(frozen=True)
class Divergence(Shown):
    """How a model q differs from a base p on a text; errors are counted over windows of text.

    `ln_ratio` is ln(PPL(q) / PPL(p)); `kld` the Kullback-Leibler divergence in nats;
    `dp` q(token) - p(token) of the text's tokens, a probability; `same_top` the fraction of tokens
    where both hold the same token likeliest. Percentiles are keyed by percent, 50 is the median.
    """

    SCHEMA: ClassVar = "fewbit.divergence/1"

    ppl: Estimate
    ppl_base: Estimate
    correlation: float
    ln_ratio: Estimate
    ratio: Estimate
    difference: Estimate
    kld: Estimate
    kld_percentiles: dict[float, float]
    dp: Estimate
    dp_percentiles: dict[float, float]
    rms_dp: Estimate
    same_top: Estimate
    acts: str
    base_acts: str
    sample: Sample

    positions: tuple[PositionRange, ...] = ()
    base_file: BaseNote | None = None

    span = Renamed("sample")

    def page(self) -> Page:
        """As `fewbit divergence` prints it."""
        return divergence_page([self])


def perplexity_page(results: Sequence[Perplexity]) -> Page:
    """One line per kind of activations."""
    table = Table(("acts", "PPL", "±", "ln PPL", "±", "bits/byte", "tokens/s"))
    for r in results:
        table.add_row(
            r.acts, f"{r.ppl.value:.4f}", error_text(r.ppl.error, 4), f"{r.nll.value:.5f}",
            error_text(r.nll.error, 5), _bits_text(r.bits_per_byte),
            f"{r.sample.tokens_per_second:,.0f}",
        )  # fmt: skip
    return [table, "", *sample_lines([r.sample for r in results])]


def divergence_page(results: Sequence[Divergence]) -> Page:
    """All statistics, one column per kind of activations."""
    table = Table(("", *(f"acts {r.acts}" for r in results)))
    for label, cells in _divergence_rows(results):
        table.add_row(label, *cells)
    return [table, "", *sample_lines([r.sample for r in results]), *base_lines(results)]


def base_lines(results: Sequence[Divergence]) -> list[str]:
    """What a base file costs in precision; nothing if the base ran."""
    note = results[0].base_file
    if note is None:
        return []
    lines = [f"base: `{note.path}`, a {note.kind} file; formula: {note.formula}"]
    if note.top is not None:
        lines += [
            f"{note.top:,} tokens a row are kept; with all, the mean KLD (acts {r.acts}) is from "
            f"{r.base_file.kld_low:.6f} to {r.base_file.kld_high:.6f}"
            for r in results
            if r.base_file
        ]
    elif note.error is not None and note.cut is not None and note.sum is not None:
        lines += [
            f"16 bits: ln p is off by up to {note.error:.1e}, which alone gives a KLD of about "
            f"{note.error**2 / 6:.0e}; the rows' probabilities add up to {note.sum:.6f}",
            f"cut at e^-16 of the likeliest token's p: all tokens below it have at most "
            f"{note.cut:.1e} together",
        ]
    return lines


def position_page(results: Sequence[Divergence]) -> Page:
    """The mean KLD by the position in the window, with a bar of its size."""
    columns = [
        f"{name}\nacts {r.acts}" for r in results for name in ("KLD", "ln ratio", "same top")
    ]
    table = Table(("tokens before", "scored", *columns, ""))
    most = max((p.kld for r in results for p in r.positions if p.kld < math.inf), default=0.0)
    for ranges in zip(*(r.positions for r in results), strict=True):
        cells = [
            text
            for p in ranges
            for text in (f"{p.kld:.6f}", f"{p.ln_ratio:.5f}", f"{100 * p.same_top:.2f} %")
        ]
        last = ranges[-1].kld
        bar = "█" * round(20 * last / most) if 0 < last < math.inf else ""
        table.add_row(
            f"{ranges[0].start + 1:,} to {ranges[0].stop:,}", f"{ranges[0].tokens:,}", *cells,
            f"{bar:<20}",
        )  # fmt: skip
    return ["", table]


def _divergence_rows(results: Sequence[Divergence]) -> Iterable[tuple[str, list[str]]]:
    def row(label: str, cells: Iterable[str]) -> tuple[str, list[str]]:
        return label, list(cells)

    yield row("mean PPL(model)", (estimate_text(r.ppl, 4) for r in results))
    yield row("mean PPL(base)", (estimate_text(r.ppl_base, 4) for r in results))
    yield row("correlation of ln PPL", (f"{100 * r.correlation:.3f} %" for r in results))
    yield row("ln(PPL(model) / PPL(base))", (estimate_text(r.ln_ratio, 6) for r in results))
    yield row("PPL(model) / PPL(base)", (estimate_text(r.ratio, 6) for r in results))
    yield row("PPL(model) - PPL(base)", (estimate_text(r.difference, 6) for r in results))
    yield row("mean KLD", (estimate_text(r.kld, 6) for r in results))
    for percent in results[0].kld_percentiles:
        label = f"{_percentile(percent)} KLD"
        yield row(label, (f"{r.kld_percentiles[percent]:.6f}" for r in results))
    yield row("mean Δp", (_percent_text(r.dp, 3) for r in results))
    for percent in results[0].dp_percentiles:
        label = f"{_percentile(percent)} Δp"
        yield row(label, (f"{100 * r.dp_percentiles[percent]:.3f} %" for r in results))
    yield row("RMS Δp", (_percent_text(r.rms_dp, 3) for r in results))
    yield row("same top token", (_percent_text(r.same_top, 3) for r in results))


def sample_lines(samples: Sequence[Sample]) -> list[str]:
    """How much was measured, and a warning if some logits were not finite."""
    first = samples[0]
    lines = [f"{first.chunks} windows of {first.ctx} tokens, {first.tokens:,} tokens scored"]
    if first.stride is not None:
        windows = "1 window" if first.chunks == 1 else f"{first.chunks} windows"
        scored = "1 token" if first.tokens == 1 else f"{first.tokens:,} tokens"
        lines = [f"{windows} of up to {first.ctx} tokens, stride {first.stride}, {scored} scored"]
    if first.chunks == 1:
        lines.append("errors (±) are counted over windows: they need at least two")
    bad = max(sample.nonfinite for sample in samples)
    if bad:
        lines.append(f"warning: the logits of {bad:,} tokens are not finite, nor are the means")
    return lines


def estimate_text(estimate: Estimate, digits: int) -> str:
    """A value and its error with `digits` decimals."""
    return f"{estimate.value:.{digits}f} ± {error_text(estimate.error, digits)}"


def error_text(error: float, digits: int) -> str:
    """An error with `digits` decimals; one window has no error."""
    return "?" if math.isnan(error) else f"{error:.{digits}f}"


def _bits_text(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.4f}"


def _percent_text(estimate: Estimate, digits: int) -> str:
    return f"{estimate_text(estimate.scaled(100), digits)} %"


def _percentile(percent: float) -> str:
    names = {100.0: "maximum", 50.0: "median", 0.0: "minimum"}
    return names.get(percent, f"{percent:g} %")


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
