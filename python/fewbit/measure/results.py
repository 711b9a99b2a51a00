"""Results of measuring a model: perplexity and KL divergence with their errors, and as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewbit.moved import Renamed
from fewbit.tables import Page, Shown, Table


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error."""

    value: float
    error: float

    def exp(self) -> Estimate:
        """The exponential of the value, the error carried to first order."""
        value = _exp(self.value)
        return Estimate(value, value * self.error)


@dataclass(frozen=True)
class Sample:
    """What was measured: `chunks` windows of `ctx` tokens; `tokens` tokens in all were scored.

    `nonfinite` counts the scored tokens whose logits gave no finite measure; the means are then
    not finite either. `seconds` is the wall clock of the whole measurement. With a `stride` windows
    overlap and the last may be shorter: `processed` tokens went through the model.
    """

    ctx: int
    chunks: int
    tokens: int
    seconds: float
    nonfinite: int = 0
    stride: int | None = None
    processed: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens that went through the model, scored or not, per second."""
        tokens = self.chunks * self.ctx if self.processed is None else self.processed
        return tokens / self.seconds if self.seconds > 0 else math.inf


@dataclass(frozen=True)
class Perplexity(Shown):
    """exp of the mean negative log-likelihood `nll` (nats per token) of a text."""

    ppl: Estimate
    nll: Estimate
    acts: str
    sample: Sample

    span = Renamed("sample")

    def page(self) -> Page:
        """As `fewbit perplexity` prints it."""
        return perplexity_page([self])


@dataclass(frozen=True)
class Divergence(Shown):
    """How a model q differs from a base p on a text; see the module for how errors are made.

    `ln_ratio` is ln(PPL(q) / PPL(p)); `kld` the Kullback-Leibler divergence in nats;
    `dp` q(token) - p(token) of the text's tokens, a probability; `same_top` the fraction of tokens
    where both hold the same token likeliest. Percentiles are keyed by percent, 50 is the median.
    """

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

    span = Renamed("sample")

    def page(self) -> Page:
        """As `fewbit divergence` prints it."""
        return divergence_page([self])


def perplexity_page(results: Sequence[Perplexity]) -> Page:
    """One line per kind of activations."""
    table = Table(("acts", "PPL", "±", "ln PPL", "±", "tokens/s"))
    for r in results:
        table.add_row(
            r.acts, f"{r.ppl.value:.4f}", f"{r.ppl.error:.4f}", f"{r.nll.value:.5f}",
            f"{r.nll.error:.5f}", f"{r.sample.tokens_per_second:,.0f}",
        )  # fmt: skip
    return [table, "", *sample_lines([r.sample for r in results])]


def divergence_page(results: Sequence[Divergence]) -> Page:
    """All statistics, one column per kind of activations."""
    table = Table(("", *(f"acts {r.acts}" for r in results)))
    for label, cells in _divergence_rows(results):
        table.add_row(label, *cells)
    return [table, "", *sample_lines([r.sample for r in results])]


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
    bad = max(sample.nonfinite for sample in samples)
    if bad:
        lines.append(f"warning: the logits of {bad:,} tokens are not finite, nor are the means")
    return lines


def estimate_text(estimate: Estimate, digits: int) -> str:
    """A value and its error with `digits` decimals."""
    return f"{estimate.value:.{digits}f} ± {estimate.error:.{digits}f}"


def _percent_text(estimate: Estimate, digits: int) -> str:
    return f"{100 * estimate.value:.{digits}f} ± {100 * estimate.error:.{digits}f} %"


def _percentile(percent: float) -> str:
    names = {100.0: "maximum", 50.0: "median", 0.0: "minimum"}
    return names.get(percent, f"{percent:g} %")


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
