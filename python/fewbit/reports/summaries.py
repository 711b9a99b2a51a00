"""What `fewbit inspect` finds in a file, as data and as tables: tensors, values, single blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fewbit.plan.config import Config
from fewbit.tables import Fitted, Page, Shown, Table, hanging


@dataclass(frozen=True)
class TensorSummary:
    """A tensor in a file: `shape` is (rows, columns), (n,) for a vector, or has experts first."""

    name: str
    shape: tuple[int, ...]
    format: str
    bytes: int

    @property
    def weights(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, scales included."""
        return 8 * self.bytes / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Total:
    """All tensors of one format."""

    format: str
    tensors: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class Contents(Shown):
    """A model's file, without the weights themselves.

    `config` is None and `tokenizer` empty where fewbit cannot read them; `problems` say why.
    """

    path: str
    config: Config | None
    tokenizer: dict[str, object]
    tensors: tuple[TensorSummary, ...]
    problems: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Numbers in all tensors together."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Mean bits per weight over all tensors."""
        return 8 * self.bytes / self.weights if self.weights else 0.0

    @property
    def formats(self) -> list[Total]:
        """One total per format, the largest first."""
        names = dict.fromkeys(tensor.format for tensor in self.tensors)
        totals = []
        for name in names:
            found = [tensor for tensor in self.tensors if tensor.format == name]
            weights, size = sum(t.weights for t in found), sum(t.bytes for t in found)
            totals.append(Total(name, len(found), weights, size))
        return sorted(totals, key=lambda total: -total.bytes)

    def page(self) -> Page:
        """As `fewbit inspect` prints it."""
        return contents_tables(self)


@dataclass(frozen=True)
class MetadataValues(Shown):
    """The metadata of a GGUF file: each key's type (for an array that of its items) and value."""

    path: str
    types: dict[str, str]
    values: dict[str, object]

    def page(self) -> Page:
        """As `fewbit inspect --metadata` prints it; long values are cut."""
        table = Table(("key", "type", "value"), text=3, folds=3)
        for key, value in self.values.items():
            table.add_row(key, self.types[key], _cut(value))
        return [table]


def _cut(value: object, items: int = 4) -> str:
    if isinstance(value, list) and len(value) > items:
        return f"{value[:items]!r:.100} and {len(value) - items:,} more"
    return f"{value!r:.100}"


@dataclass(frozen=True)
class Distribution(Shown):
    """The distribution of a tensor's values.

    `outliers` gives, for each number of standard deviations, the fraction of values further than
    that from the mean; `counts` are `BINS` equal bins from `low` to `high`, the range of 0.1 to
    99.9 percent, with what lies outside in the first and last.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    min: float
    max: float
    mean: float
    deviation: float
    percentiles: dict[float, float]
    outliers: dict[int, float]
    low: float
    high: float
    counts: tuple[int, ...]

    def page(self) -> Page:
        """As `fewbit inspect` prints it."""
        return [Fitted(lambda width: distribution_lines(self, width))]


@dataclass(frozen=True)
class Bytes:
    """A field of a block: the bytes `start` to `stop`, not included; `hex` as stored, if known."""

    name: str
    start: int
    stop: int
    text: str
    hex: str | None = None


@dataclass(frozen=True)
class Explanation(Shown):
    """How a format stores numbers: `block` elements in `bytes` bytes.

    `kinds` says which numbers are not unsigned integers, `table` what codes mean, if it is needed.
    """

    format: str
    family: str
    block: int
    bytes: int
    bits_per_weight: float
    formula: str
    kinds: dict[str, str]
    table: tuple[int, ...]
    fields: tuple[Bytes, ...]

    def page(self) -> Page:
        """As `fewbit inspect` prints it."""
        return explanation_tables(self)


@dataclass(frozen=True)
class Block(Shown):
    """Block `index` of a tensor's `blocks`, counted row after row, taken apart.

    `numbers` are as stored (d and its kin as floats), `scales` and `minima` what they make, one
    for each group of the block; `values` start at `column` of `row`.
    """

    name: str
    format: str
    index: int
    blocks: int
    row: int
    column: int
    fields: tuple[Bytes, ...]
    numbers: dict[str, list[float]]
    scales: list[float]
    minima: list[float]
    values: list[float]

    def page(self) -> Page:
        """As `fewbit inspect` prints it."""
        return block_tables(self)


def contents_tables(contents: Contents) -> Page:
    """Configuration, tokenizer, tensors and totals."""
    lines = [
        f"path           {contents.path}",
        *_config_lines(contents.config, contents.tokenizer),
        f"weights        {contents.weights:,} in {contents.bytes:,} bytes, "
        f"{contents.bits_per_weight:.3f} bits per weight",
        *(f"problem        {problem}" for problem in contents.problems),
    ]
    tensors = Table(("tensor", "shape", "format", "bits per weight"), text=3)
    for entry in contents.tensors:
        shape = " x ".join(str(size) for size in entry.shape)
        tensors.add_row(entry.name, shape, entry.format, f"{entry.bits_per_weight:.3f}")
    totals = Table(("format", "tensors", "weights", "bytes"))
    for total in contents.formats:
        sizes = (f"{total.weights:,}", f"{total.bytes:,}")
        totals.add_row(total.format, str(total.tensors), *sizes)
    return ["\n".join(lines), "", tensors, "", totals]


def _config_lines(config: Config | None, facts: dict[str, object]) -> list[str]:
    if config is None:
        return []
    tokenizer = (
        f", BOS {facts['bos']}, EOS {facts['eos']}, "
        f"BOS added: {_yes(facts['adds_bos'])}, chat template: {_yes(facts['chat_template'])}"
        if facts
        else ""
    )
    return [
        f"architecture   {config.architecture}",
        f"shape          {config.layers} layers, width {config.width}, ffn {config.ffn}, "
        f"{config.heads}/{config.kv_heads} heads of {config.head_dim}",
        f"vocabulary     {config.vocab} tokens{tokenizer}",
        f"context        {config.context} tokens, rope base {config.rope.base:g}, "
        f"scaling {config.rope.kind}",
    ]


def distribution_lines(d: Distribution, width: int) -> str:
    """Moments, percentiles, outliers and a histogram of one tensor, in `width` columns of text."""
    shape = " x ".join(str(size) for size in d.shape)
    moments = {"min": d.min, "max": d.max, "mean": d.mean, "deviation": d.deviation}
    head = [
        f"{d.name}  [{shape}]  {d.format}",
        *hanging("", [f"{name} {value:.5g} " for name, value in moments.items()], width),
        *hanging("  percentiles", [f"{p:g} %: {v:.4g} " for p, v in d.percentiles.items()], width),
        *hanging(
            "  outliers beyond",
            [f"{k}σ: {100 * share:.3g} % " for k, share in d.outliers.items()],
            width,
        ),
    ]
    most, step = max(d.counts), (d.high - d.low) / len(d.counts)
    longest = min(50, width - 14 - len(str(most)))
    bars = [
        f"  {d.low + step * (i + 0.5):>10.3g} {'#' * round(longest * count / most)} {count}"
        for i, count in enumerate(d.counts)
    ]
    return "\n".join([*head, *bars, ""])


def explanation_tables(e: Explanation) -> Page:
    """The layout of a format's block, and its formula."""
    bits = f"{e.block} elements in {e.bytes} bytes, {e.bits_per_weight:.6g} bits per weight"
    lines = [f"{e.format}: {bits}", f"  {e.formula}"]
    if e.kinds:
        kinds = ", ".join(f"{name} {kind}" for name, kind in e.kinds.items())
        lines.append(f"  stored as {kinds}; all others as unsigned integers")
    if e.table:
        lines.append(f"  T = {' '.join(map(str, e.table))}")
    return ["\n".join(lines), "", _fields_table(e.fields)]


def block_tables(b: Block) -> Page:
    """A block of a tensor: its bytes, the numbers in them, and what they stand for."""
    place = f"row {b.row}, columns {b.column} to {b.column + len(b.values) - 1}"
    head = f"{b.name}  {b.format}  block {b.index} of {b.blocks:,}: {place}"
    numbers = {**b.numbers, "= scales": b.scales, "= minima": b.minima, "= values": b.values}
    listed = {name: found for name, found in numbers.items() if found}

    def lines(width: int) -> str:
        return "\n".join(_numbers_lines(name, found, width) for name, found in listed.items())

    return [head, "", _fields_table(b.fields), "", Fitted(lines), ""]


def _fields_table(fields: Sequence[Bytes]) -> Table:
    stored = any(place.hex is not None for place in fields)
    table = Table(("bytes", "field", "bits", *(["stored"] if stored else [])), text=4, folds=3)
    for place in fields:
        span = f"{place.start}..{place.stop - 1}" if place.stop > place.start + 1 else place.start
        cells = [] if place.hex is None else [_shortened(place.hex)]
        table.add_row(str(span), place.name, place.text, *cells)
    return table


def _numbers_lines(name: str, numbers: Sequence[float], width: int) -> str:
    """A name and its numbers, 16 on a line, or 8 or 4 where there are fewer columns of text."""
    cells = [f"{v:>10.4g}" if isinstance(v, float) else f"{v:>4}" for v in numbers]
    room = (width - 10) // (len(cells[0]) + 1)
    many = next((count for count in (16, 8, 4) if count <= room), 1)
    rows = [" ".join(cells[at : at + many]) for at in range(0, len(cells), many)]
    return "\n".join(f"{name if at == 0 else '':<9} {row}" for at, row in enumerate(rows))


def _shortened(text: str, width: int = 48) -> str:
    return text if len(text) <= width else f"{text[:width]}..."


def _yes(value: object) -> str:
    return "yes" if value else "no"
