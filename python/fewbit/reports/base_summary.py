"""Show what a file of a base's predictions holds: windows, tokens, precision."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np

from fewbit.files.base_file import CODES, CUT, KldFile
from fewbit.files.top_k_base import TopKFile
from fewbit.measure.base_files import ROUNDING, open_base
from fewbit.tables import Page, Shown, Table

ROWS = 64
"""Rows that are looked at, spread evenly over the file."""


@dataclass(frozen=True)
class BaseSummary(Shown):
    """A base file: `windows` of `ctx` tokens, `rows` scored positions, `row_bytes` each.

    Of up to 64 rows: `error` is the largest error of a stored ln p by its 16 bits, `cut_rows` the
    fraction of rows cut at 16 nats below the likeliest token, `entropy` the mean in nats. Of a
    compact file: `top` tokens are kept, which leave `rest` of the probability on the mean.
    """

    path: str
    kind: str
    bytes: int
    ctx: int
    vocab: int
    windows: int
    rows: int
    row_bytes: int
    looked_at: int
    error: float
    entropy: float
    cut_rows: float | None = None
    top: int | None = None
    samples: int | None = None
    rest: float | None = None

    def page(self) -> Page:
        """As `fewbit inspect` prints it."""
        table = Table(("", "value"))
        table.add_row("kind", f"{self.kind} base file")
        table.add_row("windows", f"{self.windows:,} of {self.ctx:,} tokens")
        table.add_row("vocabulary", f"{self.vocab:,} tokens")
        table.add_row("rows", f"{self.rows:,} of {self.row_bytes:,} bytes")
        table.add_row("size", f"{self.bytes / 1e6:,.2f} MB")
        table.add_row("error of ln p, 16 bits", f"up to {self.error:.1e} nats")
        table.add_row("mean entropy", f"{self.entropy:.3f} nats")
        if self.cut_rows is not None:
            table.add_row("rows cut at 16 nats", f"{100 * self.cut_rows:.0f} %")
        if self.top is not None and self.rest is not None:
            table.add_row("kept of a row", f"{self.top:,} tokens, {self.samples} samples")
            table.add_row("probability of the rest", f"{100 * self.rest:.3f} %")
        return [self.path, "", table, "", f"looked at {self.looked_at} rows"]


def inspect_base(path: str | PathLike[str]) -> BaseSummary:
    """Read the header of a base file and a few of its rows.

    Raises:
        FileFormatError: it is no base file, or it is damaged.
        OSError: the file cannot be read.

    """
    base = open_base(path)
    shape = base.shape
    count = shape.windows * shape.scored
    chosen = np.unique(np.linspace(0, count - 1, min(ROWS, count)).astype(np.int64)).tolist()
    places = [divmod(row, shape.scored) for row in chosen]
    facts = [_of_full(base, *p) if isinstance(base, KldFile) else _of_top(base, *p) for p in places]
    step, entropy, other = (np.array(column) for column in zip(*facts, strict=True))
    full = isinstance(base, KldFile)
    row_bytes = 2 * base.width if isinstance(base, KldFile) else base.layout.bytes
    return BaseSummary(
        str(path), base.kind, base.bytes, shape.ctx, shape.vocab, shape.windows, count, row_bytes,
        len(chosen), float(step.max()) / 2, float(entropy.mean()),
        cut_rows=float(other.mean()) if full else None,
        top=None if isinstance(base, KldFile) else base.layout.top,
        samples=None if isinstance(base, KldFile) else base.layout.samples,
        rest=None if full else float(other.mean()),
    )  # fmt: skip


def _of_full(base: KldFile, window: int, row: int) -> tuple[float, float, float]:
    """Step, entropy and whether the row was cut (1.0) or not."""
    step, lowest, codes = base.stored(window, row, row + 1)
    ln_p = step.astype(np.float64) * codes + lowest
    cut = CODES * float(step[0, 0]) > CUT - ROUNDING and int((codes == 0).sum()) > 1
    return float(step[0, 0]), float(-(np.exp(ln_p) * ln_p).sum()), float(cut)


def _of_top(base: TopKFile, window: int, row: int) -> tuple[float, float, float]:
    """Step, entropy and the rest's probability."""
    found = base.rows(window, row, row + 1)
    entropy = -(np.exp(found.ln_top) * found.ln_top).sum() - found.negentropy[0]
    return float(found.step[0]), float(entropy), float(np.exp(found.ln_rest[0]))
