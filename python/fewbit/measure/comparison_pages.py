"""Show a comparison: tables for terminals, CSV with all numbers, a page of HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from fewbit.measure.comparison_rows import Row
from fewbit.measure.paired import Paired
from fewbit.measure.results import Divergence, Estimate, estimate_text, sample_lines
from fewbit.tables import Page, Table

NOTE = (
    "weights: what the format alone loses (f32 activations); "
    "+ int8: with the fast arithmetic, which rounds activations too"
)
FLOOR = (
    "The noise of the measurement is 0: a model compared with itself has a KLD of exactly 0, "
    "whatever ran beside it."
)
CSV = (
    "format", "bits_per_weight", "bytes", "tokens_per_second", "acts", "ppl", "ppl_error",
    "ppl_ratio", "ppl_ratio_error", "kld", "kld_error", "kld_low", "kld_high", "kld_99_percent",
    "same_top", "same_top_error", "mean_dp", "rms_dp", "rms_dp_error", "tokens", "windows",
    "versus", "kld_difference", "kld_difference_error", "p", "verdict",
)  # fmt: skip


def comparison_page(rows: Sequence[Row], pairs: int, look: int = 0, details: bool = False) -> Page:
    """What each row costs and loses; with `details` a table for each kind of activations.

    Paired comparisons follow, whose p values are corrected for `pairs` of them and for `look`
    looks.
    """
    verdicts = _verdict_page(rows, pairs, look)
    sample = sample_lines([row.weights.sample for row in rows[:1]])
    if details:
        head = "What the weights alone lose (f32 activations):"
        fast: Page = ["With the fast arithmetic (int8 activations):", _loss_table(rows, "fast"), ""]
        return [head, _loss_table(rows, "weights"), "", *fast, *verdicts, FLOOR, *sample]
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
    return [table, "", *verdicts, NOTE, *sample]


def _verdict_page(rows: Sequence[Row], pairs: int, look: int) -> Page:
    """Which row is better than which, as far as the text can tell."""
    known = [row.versus for row in rows if row.versus is not None]
    if not known:
        return []
    table = Table(("format", "KLD is", "than", "KLD difference", "p", "same top only"), text=3)
    for v in known:
        difference = f"{v.kld.value:+.6f} ± {v.kld.error:.6f}"
        only = f"{v.only_this:,} : {v.only_other:,}"
        table.add_row(v.name, v.verdict, v.against, difference, p_text(v.p), only)
    looked = f" and look {look}" if look else ""
    compared = "1 pair" if pairs == 1 else f"{pairs} pairs"
    return [
        table, "",
        f"KLD is: better or worse where p, corrected for {compared}{looked}, is at most 0.05 "
        f"(paired by window, + int8)",
    ]  # fmt: skip


def p_text(p: float) -> str:
    """A p value with four decimals."""
    return "?" if p != p else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _loss_table(rows: Sequence[Row], kind: str) -> Table:
    speed = ["tokens/s"] if kind == "fast" else []
    table = Table(
        (
            "format", "bits per\nweight", "size\nMB", "PPL", "ln(PPL/base)", "PPL/base", "mean KLD",
            "95 % interval\nof mean KLD", "99 % KLD", "RMS Δp", "same top", *speed,
        )
    )  # fmt: skip
    for row in rows:
        d: Divergence = getattr(row, kind)
        table.add_row(
            *_costs(row), f"{d.ppl.value:.4f}", f"{d.ln_ratio.value:.5f}", f"{d.ratio.value:.5f}",
            estimate_text(d.kld, 6), interval_text(d.kld, 6),
            f"{d.kld_percentiles[99.0]:.4f}", f"{100 * d.rms_dp.value:.3f} %",
            f"{100 * d.same_top.value:.3f} %", *([_rate(row)] if kind == "fast" else []),
        )  # fmt: skip
    return table


def interval_text(estimate: Estimate, digits: int) -> str:
    """The 95 % interval with `digits` decimals."""
    low, high = estimate.interval
    return "?" if low != low else f"{low:.{digits}f} to {high:.{digits}f}"


def comparison_csv(rows: Sequence[Row]) -> str:
    """A line for each row and kind of activations, with all numbers as they are."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV)
    for row in rows:
        kinds = [row.weights] if row.fast is row.weights else [row.weights, row.fast]
        for d in kinds:
            size = (row.sizes.bits_per_weight, row.sizes.bytes, row.tokens_per_second)
            versus = row.versus if d is row.fast else None
            writer.writerow([row.format, *size, *_numbers(d), *_versus(versus)])
    return out.getvalue()


def _numbers(d: Divergence) -> list[object]:
    return [
        d.acts, d.ppl.value, d.ppl.error, d.ratio.value, d.ratio.error, d.kld.value, d.kld.error,
        *d.kld.interval, d.kld_percentiles[99.0], d.same_top.value, d.same_top.error, d.dp.value,
        d.rms_dp.value, d.rms_dp.error, d.sample.tokens, d.sample.chunks,
    ]  # fmt: skip


def _versus(v: Paired | None) -> list[object]:
    return [""] * 5 if v is None else [v.against, v.kld.value, v.kld.error, v.p, v.verdict]


def comparison_html(page: Page) -> str:
    """A page that needs no other file and allows no script."""
    body = "".join(
        item.to_html() if isinstance(item, Table) else f"<p>{html.escape(str(item))}</p>"
        for item in page
        if item
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    style = (
        "body{font:14px system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>fewbit compare</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def _costs(row: Row) -> tuple[str, str, str]:
    return row.format, f"{row.sizes.bits_per_weight:.2f}", f"{row.sizes.bytes / 1e6:.2f}"


def _losses(d: Divergence) -> tuple[str, str, str]:
    return f"{d.ppl.value:.3f}", f"{d.kld.value:.5f}", f"{100 * d.same_top.value:.2f} %"


def _rate(row: Row) -> str:
    return f"{row.tokens_per_second:,.0f}"
