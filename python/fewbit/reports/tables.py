"""Results as tables for people and as JSON for programs; both go to stdout.

Numbers mean the same without colour; JSON has null where a number is not finite.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from fewbit.measure.comparison import Row
from fewbit.measure.speed import Bench
from fewbit.measure.statistics import Divergence, Estimate, Perplexity, Span
from fewbit.plan.plan import attribute_texts
from fewbit.reports.contents import Block, Bytes, Contents, Distribution, Explanation
from fewbit.reports.plan_listing import Listing

if TYPE_CHECKING:
    from fewbit.run.gpu.device import Adapter

PIPE_WIDTH = 200
"""Columns where stdout is no terminal: nothing may be cut."""


def show(*parts: object) -> None:
    """Tables and lines to stdout."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty())
    for part in parts:
        console.print(part, markup=False)


def write_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_json_line(value: object) -> None:
    """One JSON document on one line of stdout, at once."""
    sys.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def plain(value: object) -> Any:
    """Dataclasses (with their properties), mappings and sequences as JSON types.

    Numbers that are not finite become None.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def devices_table(isa: str, found: Sequence[Adapter]) -> list[object]:
    """One line per device."""
    table = _table("device", "name", "kind", "backend", "driver", "binding MB", "features")
    table.add_row("cpu", "", "CPU", isa, "", "", "")
    for a in found:
        table.add_row(
            f"gpu:{a.index}", a.name, "software" if a.is_software else a.kind, a.backend, a.driver,
            f"{a.max_binding / 1e6:,.0f}", " ".join(a.features),
        )  # fmt: skip
    return [table]


def perplexity_table(results: Sequence[Perplexity]) -> list[object]:
    """One line per kind of activations."""
    table = _table("acts", "PPL", "±", "ln PPL", "±", "tokens/s")
    for r in results:
        table.add_row(
            r.acts, f"{r.ppl.value:.4f}", f"{r.ppl.error:.4f}", f"{r.nll.value:.5f}",
            f"{r.nll.error:.5f}", f"{r.span.tokens_per_second:,.0f}",
        )  # fmt: skip
    return [table, "", *_span_lines([r.span for r in results])]


def divergence_table(results: Sequence[Divergence]) -> list[object]:
    """All statistics, one column per kind of activations."""
    table = _table("", *(f"acts {r.acts}" for r in results))
    for label, cells in _divergence_rows(results):
        table.add_row(label, *cells)
    return [table, "", *_span_lines([r.span for r in results])]


def _divergence_rows(results: Sequence[Divergence]) -> Iterable[tuple[str, list[str]]]:
    def row(label: str, cells: Iterable[str]) -> tuple[str, list[str]]:
        return label, list(cells)

    yield row("mean PPL(model)", (_pm(r.ppl, 4) for r in results))
    yield row("mean PPL(base)", (_pm(r.ppl_base, 4) for r in results))
    yield row("correlation of ln PPL", (f"{100 * r.correlation:.3f} %" for r in results))
    yield row("ln(PPL(model) / PPL(base))", (_pm(r.ln_ratio, 6) for r in results))
    yield row("PPL(model) / PPL(base)", (_pm(r.ratio, 6) for r in results))
    yield row("PPL(model) - PPL(base)", (_pm(r.difference, 6) for r in results))
    yield row("mean KLD", (_pm(r.kld, 6) for r in results))
    for percent in results[0].kld_percentiles:
        label = f"{_percentile(percent)} KLD"
        yield row(label, (f"{r.kld_percentiles[percent]:.6f}" for r in results))
    yield row("mean Δp", (_percent_pm(r.dp, 3) for r in results))
    for percent in results[0].dp_percentiles:
        label = f"{_percentile(percent)} Δp"
        yield row(label, (f"{100 * r.dp_percentiles[percent]:.3f} %" for r in results))
    yield row("RMS Δp", (_percent_pm(r.rms_dp, 3) for r in results))
    yield row("same top token", (_percent_pm(r.same_top, 3) for r in results))


def compare_table(rows: Sequence[Row], details: bool = False) -> list[object]:
    """What each format costs and loses; with `details` a table for each kind of activations."""
    span = _span_lines([row.weights.span for row in rows[:1]])
    if details:
        weights, fast = _loss_table(rows, "weights"), _loss_table(rows, "fast")
        head = "What the weights alone lose (f32 activations):"
        return [head, weights, "", "With the fast arithmetic (int8 activations):", fast, "", *span]
    table = _table(
        "format", "bits per\nweight", "size\nMB",
        "PPL\nweights", "KLD\nweights", "same top\nweights",
        "PPL\n+ int8", "KLD\n+ int8", "same top\n+ int8", "tokens/s\n+ int8", gap=0,
    )  # fmt: skip
    for row in rows:
        table.add_row(*_costs(row), *_losses(row.weights), *_losses(row.fast), _speed(row))
    note = (
        "weights: what the format alone loses (f32 activations); "
        "+ int8: with the fast arithmetic, which rounds activations too"
    )
    return [table, "", note, *span]


def _loss_table(rows: Sequence[Row], kind: str) -> Table:
    table = _table(
        "format", "bits per\nweight", "size\nMB", "PPL", "ln(PPL/base)", "mean KLD", "99 % KLD",
        "RMS Δp", "same top", *(["tokens/s"] if kind == "fast" else []),
    )  # fmt: skip
    for row in rows:
        d: Divergence = getattr(row, kind)
        table.add_row(
            *_costs(row), f"{d.ppl.value:.4f}", f"{d.ln_ratio.value:.5f}", _pm(d.kld, 6),
            f"{d.kld_percentiles[99.0]:.4f}", f"{100 * d.rms_dp.value:.3f} %",
            f"{100 * d.same_top.value:.3f} %", *([_speed(row)] if kind == "fast" else []),
        )  # fmt: skip
    return table


def _costs(row: Row) -> tuple[str, str, str]:
    return row.format, f"{row.sizes.bits_per_weight:.2f}", f"{row.sizes.bytes / 1e6:.2f}"


def _losses(d: Divergence) -> tuple[str, str, str]:
    return f"{d.ppl.value:.3f}", f"{d.kld.value:.5f}", f"{100 * d.same_top.value:.2f} %"


def _speed(row: Row) -> str:
    return f"{row.tokens_per_second:,.0f}"


def bench_table(result: Bench) -> list[object]:
    """Tokens per second, and GB/s of weights beside the machine's read rate."""
    table = _table("test", "tokens/s", "±", "GB/s", "of read rate")
    for rate in result.rates:
        gb = rate.gb_per_second
        cells = ("", "") if gb is None else (f"{gb:.1f}", f"{100 * gb / result.read_rate:.0f} %")
        table.add_row(rate.name, f"{rate.mean:,.1f}", f"{rate.deviation:,.1f}", *cells)
    machine = f"this machine ({result.machine}, {result.isa}) reads {result.read_rate:.1f} GB/s"
    return [table, "", f"acts {result.acts}; {machine}"]


def contents_tables(contents: Contents) -> list[object]:
    """Configuration, tokenizer, tensors and totals."""
    config, facts = contents.config, contents.tokenizer
    lines = [
        f"path           {contents.path}",
        f"architecture   {config.architecture}",
        f"shape          {config.layers} layers, width {config.width}, ffn {config.ffn}, "
        f"{config.heads}/{config.kv_heads} heads of {config.head_dim}",
        f"vocabulary     {config.vocab} tokens, BOS {facts['bos']}, EOS {facts['eos']}, "
        f"BOS added: {_yes(facts['adds_bos'])}, chat template: {_yes(facts['chat_template'])}",
        f"context        {config.context} tokens, rope base {config.rope.base:g}, "
        f"scaling {config.rope.kind}",
        f"weights        {contents.weights:,} in {contents.bytes:,} bytes, "
        f"{contents.bits_per_weight:.3f} bits per weight",
    ]
    tensors = _table("tensor", "shape", "format", "bits per weight", text=3)
    for entry in contents.tensors:
        shape = " x ".join(str(size) for size in entry.shape)
        tensors.add_row(entry.name, shape, entry.format, f"{entry.bits_per_weight:.3f}")
    totals = _table("format", "tensors", "weights", "bytes")
    for total in contents.formats:
        sizes = (f"{total.weights:,}", f"{total.bytes:,}")
        totals.add_row(total.format, str(total.tensors), *sizes)
    return ["\n".join(lines), "", tensors, "", totals]


def plan_tables(listing: Listing) -> list[object]:
    """A plan: one line per op, then what all its weights take."""
    table = _table("value", "op", "of", "shape", "bytes", "bytes/token", text=4, folds=3)
    for step in listing.steps:
        parts = [
            *(f"%{value}" for value in step.inputs),
            *(f"{w.name} ({' x '.join(map(str, w.shape))} {w.format})" for w in step.weights),
            *attribute_texts(step.attributes),
        ]
        sizes = (f"{size:,}" if size else "" for size in (step.bytes, step.bytes_per_token))
        table.add_row(
            f"%{step.value}", step.op, ", ".join(parts), f"[n, {step.width}]", *sizes
        )  # fmt: skip
    s = listing.sizes
    head = f"{listing.path}: {listing.architecture}, {len(listing.steps)} ops, for n new tokens"
    total = (
        f"{s.weights:,} weights in {s.bytes:,} bytes, of which a token reads "
        f"{s.bytes_per_token:,}; a tensor that several ops name counts once"
    )
    return [head, "", table, "", total]


def distribution_lines(d: Distribution) -> str:
    """Moments, percentiles, outliers and a histogram of one tensor."""
    shape = " x ".join(str(size) for size in d.shape)
    percentiles = "  ".join(
        f"{percent:g} %: {value:.4g}" for percent, value in d.percentiles.items()
    )
    outliers = "  ".join(f"{k}σ: {100 * share:.3g} %" for k, share in d.outliers.items())
    head = [
        f"{d.name}  [{shape}]  {d.format}",
        f"  min {d.min:.5g}  max {d.max:.5g}  mean {d.mean:.5g}  deviation {d.deviation:.5g}",
        f"  percentiles  {percentiles}",
        f"  outliers beyond  {outliers}",
    ]
    most, step = max(d.counts), (d.high - d.low) / len(d.counts)
    bars = [
        f"  {d.low + step * (i + 0.5):>10.3g} {'#' * round(50 * count / most)} {count}"
        for i, count in enumerate(d.counts)
    ]
    return "\n".join([*head, *bars, ""])


def explanation_tables(e: Explanation) -> list[object]:
    """The layout of a format's block, and its formula."""
    bits = f"{e.block} elements in {e.bytes} bytes, {e.bits_per_weight:.6g} bits per weight"
    lines = [f"{e.format}: {bits}", f"  {e.formula}"]
    if e.kinds:
        kinds = ", ".join(f"{name} {kind}" for name, kind in e.kinds.items())
        lines.append(f"  stored as {kinds}; all others as unsigned integers")
    if e.table:
        lines.append(f"  T = {' '.join(map(str, e.table))}")
    return ["\n".join(lines), "", _fields_table(e.fields)]


def block_tables(b: Block) -> list[object]:
    """A block of a tensor: its bytes, the numbers in them, and what they stand for."""
    place = f"row {b.row}, columns {b.column} to {b.column + len(b.values) - 1}"
    head = f"{b.name}  {b.format}  block {b.index} of {b.blocks:,}: {place}"
    numbers = {**b.numbers, "= scales": b.scales, "= minima": b.minima, "= values": b.values}
    lines = [_numbers_lines(name, found) for name, found in numbers.items() if found]
    return [head, "", _fields_table(b.fields), "", "\n".join(lines), ""]


def _fields_table(fields: Sequence[Bytes]) -> Table:
    stored = any(place.hex is not None for place in fields)
    table = _table("bytes", "field", "bits", *(["stored"] if stored else []), text=4)
    for place in fields:
        span = f"{place.start}..{place.stop - 1}" if place.stop > place.start + 1 else place.start
        cells = [] if place.hex is None else [_shortened(place.hex)]
        table.add_row(str(span), place.name, place.text, *cells)
    return table


def _numbers_lines(name: str, numbers: Sequence[float], width: int = 16) -> str:
    """A name and its numbers, so many a line."""
    cells = [f"{v:>10.4g}" if isinstance(v, float) else f"{v:>4}" for v in numbers]
    rows = [" ".join(cells[at : at + width]) for at in range(0, len(cells), width)]
    return "\n".join(f"{name if at == 0 else '':<9} {row}" for at, row in enumerate(rows))


def _shortened(text: str, width: int = 48) -> str:
    return text if len(text) <= width else f"{text[:width]}..."


def _table(*columns: str, text: int = 1, gap: int = 1, folds: int = 0) -> Table:
    """A plain table whose first `text` columns are words, the others numbers.

    Column `folds`, counted from 1, goes on below where a terminal is too narrow.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    for index, column in enumerate(columns):
        justify: Any = "left" if index < text else "right"
        table.add_column(column, justify=justify, no_wrap=index + 1 != folds)
    return table


def _span_lines(spans: Sequence[Span]) -> list[str]:
    first = spans[0]
    lines = [f"{first.chunks} windows of {first.ctx} tokens, {first.tokens:,} tokens scored"]
    bad = max(span.nonfinite for span in spans)
    if bad:
        lines.append(f"warning: the logits of {bad:,} tokens are not finite, nor are the means")
    return lines


def _pm(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} ± {estimate.error:.{digits}f}"


def _percent_pm(estimate: Estimate, digits: int) -> str:
    return f"{100 * estimate.value:.{digits}f} ± {100 * estimate.error:.{digits}f} %"


def _percentile(percent: float) -> str:
    names = {100.0: "maximum", 50.0: "median", 0.0: "minimum"}
    return names.get(percent, f"{percent:g} %")


def _key(key: object) -> str:
    return f"{key:g}" if isinstance(key, float) else str(key)


def _yes(value: object) -> str:
    return "yes" if value else "no"
