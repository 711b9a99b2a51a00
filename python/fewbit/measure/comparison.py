"""Compare models on one text: size, loss and speed of each, and which differences are certain.

Two losses are measured: that of the weights alone (``acts="f32"``) and that with int8 activations
(``acts="int8"``). The base of both is one model with f32 activations, which runs once per window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fewbit.callbacks import Progress
from fewbit.errors import InputError, did_you_mean
from fewbit.files.folder_lock import locked_folder
from fewbit.measure.candidates import candidates, fit_together
from fewbit.measure.comparing import Job, Measured, run_one_by_one, run_together, started
from fewbit.measure.comparison_pages import comparison_csv, comparison_html, comparison_page
from fewbit.measure.comparison_rows import Row
from fewbit.measure.evaluate import Variant, windows
from fewbit.measure.paired import Paired, all_pairs
from fewbit.measure.results import Divergence, Sample
from fewbit.measure.statistics import divergence
from fewbit.measure.token_values import NAMES, TokenValues
from fewbit.run.model import Importance, LoadedModel
from fewbit.tables import Page, Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_FORMATS = (
    "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K",
)  # fmt: skip

ORDERS = ("given", "size", "kld")


class Comparison(list[Row], Shown):
    """A row for the base, then one for each model or format; prints as a table.

    Each row but the base and the first after it has a `versus`: the paired comparison with the row
    before it, or with one row that was asked for.
    """

    __str__ = Shown.__str__

    def __init__(
        self,
        rows: Iterable[Row] = (),
        values: Mapping[str, TokenValues] | None = None,
        *,
        look: int = 0,
        against: str | None = None,
    ) -> None:
        super().__init__(rows)
        self.values = dict(values or {})
        """The values of each scored token that decide, by row; without the base's."""
        self.look = look
        self.against = against
        self._decide()

    def __reduce__(self) -> tuple[Any, ...]:
        return _compared, (type(self), list(self), self.values, self.look, self.against)

    def _decide(self) -> None:
        """Set `versus` of each row."""
        pairs = all_pairs(self.values, self.look, self.against)
        before = self.against
        for index, row in enumerate(self):
            versus = pairs.get((row.format, before)) if before is not None else None
            self[index] = replace(row, versus=versus)
            if self.against is None and row.format in self.values:
                before = row.format

    @property
    def pairs(self) -> int:
        """How many comparisons the p values are corrected for."""
        count = len(self.values)
        return count - 1 if self.against is not None else count * (count - 1) // 2

    def paired(self, name: str, against: str) -> Paired:
        """The comparison of two rows on the same tokens; `p` is corrected for all pairs of rows.

        Raises:
            InputError: there is no such row, or it is the base.

        """
        for each in (name, against):
            _check_row(each, self.values)
        if name == against:
            raise InputError(f"`{name}` is compared with itself", hint="name two rows")
        return all_pairs(self.values, self.look)[name, against]

    def ordered(self, order: str) -> Self:
        """The same rows by "size" or "kld" (with int8 activations), the base first.

        Raises:
            InputError: the order is unknown.

        """
        if order not in ORDERS:
            raise InputError(f"unknown order `{order}`", hint=f"known: {', '.join(ORDERS)}")
        base, rows = list(self[:1]), list(self[1:])
        if order == "size":
            rows.sort(key=lambda row: -row.sizes.bytes)
        elif order == "kld":
            rows.sort(key=lambda row: row.fast.kld.value)
        return type(self)(base + rows, self.values, look=self.look, against=self.against)

    def page(self, details: bool = False) -> Page:
        """As `fewbit compare` prints it; `details` shows all losses by kind of activations."""
        return comparison_page(self, self.pairs, self.look, details)

    def to_csv(self) -> str:
        """A line of numbers for each row, with their errors and 95 % intervals."""
        return comparison_csv(self)

    def to_html(self) -> str:
        """A page of HTML that needs no other file; all names are escaped."""
        return comparison_html(self.page())

    def plot(self) -> Figure:
        """KL divergence against bits per weight, with 95 % intervals: `savefig` writes it.

        Raises:
            UnsupportedError: matplotlib is not installed.

        """
        from fewbit.measure.comparison_plot import plot

        return plot(self)


def compare(
    base: LoadedModel,
    formats: Sequence[str],
    text: str,
    ctx: int = 512,
    chunks: int | None = None,
    progress: Progress | None = None,
    *,
    models: Mapping[str, LoadedModel] | None = None,
    imatrices: Sequence[Importance | None] = (None,),
    folder: Path | None = None,
    until_significant: bool = False,
    against: str | None = None,
    one_by_one: bool | None = None,
    on_row: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """A row for `base`, for each of `models`, and for `base` in each of `formats`.

    Formats are encoded once for each of `imatrices`; None encodes without importance. `folder`
    keeps what is measured, and a later call takes it from there. `until_significant` stops when the
    order by KL divergence is certain. `against` names the row that others are compared with.
    `one_by_one` loads one model at a time; the default is to do so if memory demands it. `on_row`
    gets the comparison so far whenever a model has been measured.

    Raises:
        FormatError: a format is unknown, or weights cannot be stored in it.
        InputError: the text is too short for two windows, vocabularies differ, or options exclude
            each other.

    """
    found = candidates(base, formats, models or {}, imatrices)
    if against is not None:
        _check_row(against, [c.name for c in found if c.model is not base])
    alone = one_by_one if one_by_one is not None else not fit_together(found)
    if alone and until_significant:
        raise InputError(
            "the models do not fit into memory together, which stopping early needs",
            hint="compare fewer models, or leave out `--until-significant`",
        )
    cut = windows(base, text, ctx, chunks)
    with _lock(folder):
        job = started(
            Variant(base, "f32"), cut, found, text, progress, folder,
            until_significant=until_significant,
        )  # fmt: skip
        finished: list[Measured] = []

        def on_measured(row: Measured) -> None:
            finished.append(row)
            if on_row:
                on_row(_comparison(job, finished, against))

        if alone:
            run_one_by_one(job, on_measured)
        else:
            _encode(job, progress)
            run_together(job)
    return _comparison(job, job.rows, against)


def _encode(job: Job, progress: Progress | None) -> None:
    """Encode the weights now, not in the first window; not of rows that are measured already."""
    wanted = [
        row for row in job.rows
        if row.candidate.model is not job.base.model and row.lacks(job.windows.count - 1)
    ]  # fmt: skip
    for done, row in enumerate(wanted):
        if progress:
            progress(done, len(wanted), f"encoding {row.candidate.name}")
        _ = row.candidate.model.executor


def _comparison(job: Job, rows: Sequence[Measured], against: str | None) -> Comparison:
    """The rows that are measured, as results."""
    names = {row.candidate.name for row in rows}
    values = {name: found.first(job.count) for name, found in job.compared.items() if name in names}
    chosen = against if against in names else None
    return Comparison([_row(job, row) for row in rows], values, look=job.look, against=chosen)


def _row(job: Job, row: Measured) -> Row:
    losses = {
        acts: _divergence(job, values.first(job.count), acts, row.seconds)
        for acts, values in row.values.items()
    }
    return Row(
        row.candidate.name, row.candidate.sizes, losses["f32"],
        losses.get("int8", losses["f32"]), row.tokens_per_second or 0.0,
    )  # fmt: skip


def _divergence(job: Job, values: TokenValues, acts: str, seconds: float) -> Divergence:
    tokens = {name: values.tokens(name) for name in NAMES}
    sample = Sample(
        job.windows.ctx, len(values), tokens["nll"].size, seconds, values.count_nonfinite()
    )
    return divergence(tokens, values.tokens("same_top"), acts, job.base.acts, sample)


@contextmanager
def _lock(folder: Path | None) -> Iterator[None]:
    """Keep other processes out of a folder of results."""
    if folder is None:
        yield
        return
    with locked_folder(folder):
        yield


def _check_row(name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise InputError(
            f"no row is called `{name}`, or it is the base",
            hint=f"{did_you_mean(name, names)}rows: {', '.join(names)}",
        )


def _compared(
    kind: type[Comparison], rows: list[Row], values: dict[str, TokenValues], look: int,
    against: str | None,
) -> Comparison:  # fmt: skip
    return kind(rows, values, look=look, against=against)
