"""What users call to compare models and formats: `compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from fewbit.api import Model, is_from_demo, load
from fewbit.callbacks import Progress
from fewbit.demo import demo_text
from fewbit.errors import InputError
from fewbit.measure import comparison
from fewbit.measure.comparison import DEFAULT_FORMATS, Comparison
from fewbit.run.model import Importance


def compare(
    model: Model | str | PathLike[str] = "demo",
    formats: Sequence[str] = DEFAULT_FORMATS,
    text: str | None = None,
    *,
    models: Mapping[str, Model | str | PathLike[str]] | None = None,
    imatrix: Importance | Sequence[Importance | None] | None = None,
    ctx: int = 512,
    chunks: int | None = None,
    against: str | None = None,
    until_significant: bool = False,
    one_by_one: bool | None = None,
    results: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    on_row: Callable[[Comparison], None] | None = None,
) -> Comparison:
    """Measure what models and formats cost and lose, and which differences are certain.

    `model`, a `Model` or what `load` takes, is the base: everything is measured against its
    predictions. It is stored in each of `formats`, once for each `imatrix` (None encodes without);
    `models` are further models of the same vocabulary, by the names of their rows. `text` is what
    they are measured on (default for the built-in model and those made from it: its own), in
    windows as `Model.perplexity` takes them. The result is a list of rows, the base first.

    Rows are compared pairwise on the same tokens, each with the row before it or with row
    `against`: `Row.versus` says better, worse or tie, with p values by Holm's correction.
    `until_significant` looks after 8, 12, 18, 27... windows and stops when the order of all rows by
    KL divergence is certain at a level of 5 %, the looks included.

    Models that do not fit into memory together run one after the other, with the base's logits in a
    temporary file; `one_by_one` decides otherwise. `on_row` then gets the comparison so far after
    each model, whose memory is freed. `results` is a folder where measured windows are kept: a
    later call that is interrupted, or asks for more formats or windows, takes them from there.

    >>> import fewbit
    >>> found = fewbit.compare("demo", ["Q8_0", "Q2_K"], ctx=32, chunks=4)
    >>> found.paired("Q2_K", "Q8_0").verdict
    'worse'

    Raises:
        FormatError: a format is unknown, or weights cannot be stored in it.
        InputError: there is no text, it is too short for two windows, vocabularies differ, or
            another process writes to `results`.
        OSError: `results` cannot be written.

    """
    base = _opened(model)
    if text is None and not is_from_demo(base.checkpoint):
        raise InputError("there is no text to measure on", hint="give one as `text`")
    content = demo_text() if text is None else text
    matrices = list(imatrix) if isinstance(imatrix, Sequence) else [imatrix]
    return comparison.compare(
        base, formats, content, ctx, chunks, progress,
        models={name: _opened(each) for name, each in (models or {}).items()},
        imatrices=matrices, folder=None if results is None else Path(results),
        until_significant=until_significant, against=against, one_by_one=one_by_one, on_row=on_row,
    )  # fmt: skip


def _opened(model: Model | str | PathLike[str]) -> Model:
    return model if isinstance(model, Model) else load(model)
