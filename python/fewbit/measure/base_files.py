"""Measure a divergence from a file of a base's predictions, and write such files.

A file holds the tokens of its windows, so no text is needed, and the base's model does not run.
`fewbit.files.base_file` is llama.cpp's kind, `fewbit.files.top_k_base` fewbit's compact one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbit import _core
from fewbit.callbacks import Progress
from fewbit.errors import InputError
from fewbit.files import base_file, top_k_base
from fewbit.files.base_file import KldFile, Shape
from fewbit.files.mapped import map_file
from fewbit.files.top_k_base import TopKFile, text_digest
from fewbit.measure import top_k
from fewbit.measure.evaluate import Tally, Variant, Windows, divergences, scored_rows
from fewbit.measure.evaluate import windows as windows_of_text
from fewbit.measure.results import BaseNote, Divergence
from fewbit.run.limits import Activations
from fewbit.run.model import LoadedModel
from fewbit.run.predictions import Ids, Logits, Measures, Predictions

BaseFile: TypeAlias = KldFile | TopKFile
Formula: TypeAlias = Literal["fewbit", "llama.cpp"]
FORMULAS = ("fewbit", "llama.cpp")
COMPACT = ".fbkld"
LEAST_LN = -16.0
"""llama.cpp leaves out the terms of tokens with ln p at or below this."""

ROUNDING = 1e-3
"""A row whose values reach within this of 16 nats below the largest has been cut there."""

Values: TypeAlias = NDArray[np.float64]
OnBase: TypeAlias = Callable[[Predictions, Ids], None]


def open_base(path: str | PathLike[str]) -> BaseFile:
    """Open a base file of either kind; its first bytes tell which.

    Raises:
        FileFormatError: it is neither, or it is damaged.
        OSError: the file cannot be read.

    """
    start = map_file(Path(path), base_file.KIND)[: len(top_k_base.MAGIC)].tobytes()
    return TopKFile(path) if start == top_k_base.MAGIC else KldFile(path)


def is_base_file(path: str | PathLike[str]) -> bool:
    """Whether a file begins as a base file does."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(8) in (base_file.MAGIC, top_k_base.MAGIC)


def divergences_from(
    variants: Sequence[Variant],
    base: BaseFile,
    *,
    chunks: int | None = None,
    formula: Formula = "fewbit",
    progress: Progress | None = None,
) -> list[Divergence]:
    """The divergence of each variant from the base that a file holds, over its first windows.

    Of a file of llama.cpp's kind, the formula "fewbit" is `kld_of_uncut`, "llama.cpp" is
    `kld_of_stored`; a compact file has one formula (`fewbit.measure.top_k`).

    Raises:
        InputError: the file has another vocabulary than a model, or other tokens; a compact file
            with llama.cpp's formula.
        FileFormatError: the file is damaged.

    """
    if formula not in FORMULAS:
        raise InputError(
            f"unknown formula `{formula}`", hint=f"known: {', '.join(FORMULAS)}", formula=formula
        )
    if formula == "llama.cpp" and isinstance(base, TopKFile):
        raise InputError(
            "llama.cpp's formula needs all log-probabilities, the base file has the likeliest",
            hint="leave `--like llama.cpp` out, or use a file without `--top`",
        )
    for variant in variants:
        check_tokens(variant.model, base)
    windows = windows_of(variants[0].model, base, chunks)
    tallies = [Tally(None, _names(base)) for _ in variants]
    caches = [variant.model.cache(1, windows.ctx) for variant in variants]
    note, start = _Note(base, formula), time.perf_counter()
    for window in range(windows.count):
        for variant, cache, tally in zip(variants, caches, tallies, strict=True):
            at = 0
            for rows, targets in scored_rows(
                variant, cache, windows.inputs[window], windows.targets[window], windows.first
            ):
                tally.add(_measures(base, formula, rows, targets, window, at))
                at += len(targets)
        note.add(window)
        if progress:
            progress(window + 1, windows.count, "")
    return [
        tally.result(variant.acts, f"{base.kind} file", windows, start, note.result(tally))
        for tally, variant in zip(tallies, variants, strict=True)
    ]


def windows_of(model: LoadedModel, base: BaseFile, chunks: int | None = None) -> Windows:
    """The first `chunks` windows of a base file, with BOS where the model's vocabulary adds it."""
    if chunks is not None and chunks < 1:
        raise InputError(f"cannot measure {chunks} chunks", hint="use 1 or more", chunks=chunks)
    targets = np.ascontiguousarray(base.tokens[:chunks])
    inputs = targets.copy()
    if model.tokenizer.adds_bos and model.tokenizer.bos is not None:
        inputs[:, 0] = model.tokenizer.bos
    return Windows(inputs, targets)


def check_tokens(model: LoadedModel, base: BaseFile) -> None:
    """Refuse a model whose vocabulary is not that of a base file.

    Raises:
        InputError: the vocabularies differ in size, or tokens of the file have other texts.

    """
    if model.config.vocab != base.shape.vocab:
        raise InputError(
            f"the model has {model.config.vocab} tokens, `{base.path}` has {base.shape.vocab}",
            hint="a divergence needs a base with the model's own vocabulary",
            vocab=model.config.vocab, base_vocab=base.shape.vocab,
        )  # fmt: skip
    if isinstance(base, TopKFile) and base.digest != digest_of(model, base.tokens):
        raise InputError(
            f"`{base.path}` was written by a model whose tokens have other texts",
            hint="a divergence needs two models with the same tokenizer", path=str(base.path),
        )  # fmt: skip


def check_text(base: BaseFile, windows: Windows) -> None:
    """Refuse a text whose windows are not those of a base file.

    Raises:
        InputError: a token differs, or the text has fewer windows.

    """
    found, expected = windows.targets, base.tokens[: windows.count]
    if (found != expected).any():
        where = "it is shorter"
        if found.shape == expected.shape and (found != expected).any():
            window, at = (int(i) for i in np.argwhere(found != expected)[0])
            where = (
                f"token {at} of window {window} is {found[window, at]}, "
                f"in the file {expected[window, at]}"
            )
        raise InputError(
            f"the text is not that of `{base.path}`: {where}",
            hint="leave `--text` out: the file holds its tokens", path=str(base.path),
        )  # fmt: skip


def digest_of(model: LoadedModel, tokens: Ids) -> bytes:
    """The digest of the texts that `tokens` have for a model's tokenizer."""
    texts = [model.tokenizer.token(token) for token in range(model.config.vocab)]
    return text_digest(texts, tokens)


@contextmanager
def saving(
    path: Path, base: LoadedModel, windows: Windows, top: int | None = None
) -> Iterator[OnBase]:
    """Write a base's rows into a file, which appears when all have come: give them to the result.

    The file is compact if `top` is given or its name ends in `.fbkld`.

    Raises:
        InputError: `top` is out of range.
        OSError: the file cannot be written.

    """
    shape = Shape(windows.ctx, base.config.vocab, windows.count)
    if top is None and path.suffix != COMPACT:
        made = base_file.writing(path, shape, windows.targets)
    else:
        digest = digest_of(base, windows.targets)
        made = top_k_base.writing(path, shape, windows.targets, top, digest)  # type: ignore[assignment]
    with made as writer:
        yield lambda rows, targets: writer.add(rows.logits(), targets)


def divergence_saving(
    model: LoadedModel,
    base: LoadedModel,
    text: str,
    ctx: int,
    chunks: int | None,
    acts: Activations,
    base_acts: Activations,
    path: str | PathLike[str] | None,
    top: int | None,
    progress: Progress | None = None,
) -> Divergence:
    """The divergence of `model` from `base`, whose predictions are written to `path`, if any.

    Raises:
        InputError: as `saving` and ``evaluate.divergence``, or `top` without a path.

    """
    if top is not None and path is None:
        raise InputError("`top` needs a file to write", hint="name it as `save_base`")
    variants, original = [Variant(model, acts)], Variant(base, base_acts)
    if path is None:
        return divergences(variants, original, text, ctx, chunks, progress)[0]
    with saving(Path(path), base, windows_of_text(base, text, ctx, chunks), top) as on_base:
        return divergences(variants, original, text, ctx, chunks, progress, on_base)[0]


def divergence_from_path(
    model: LoadedModel,
    path: str | PathLike[str],
    text: str | None,
    chunks: int | None,
    acts: Activations,
    save_base: str | PathLike[str] | None,
    top: int | None,
    formula: Formula,
    progress: Progress | None = None,
) -> Divergence:
    """The divergence of `model` from the base in a file; a `text` must be the file's.

    Raises:
        InputError: as `divergences_from`, the text is another, or a file is to be written.
        FileFormatError: the file is damaged.

    """
    if save_base is not None or top is not None:
        raise InputError(
            "only the predictions of a model can be saved, the base is a file of them",
            hint="leave `save_base` and `top` out",
        )
    base = open_base(path)
    if text is not None:
        count = base.shape.windows if chunks is None else chunks
        check_text(base, windows_of_text(model, text, base.shape.ctx, count))
    return divergences_from(
        [Variant(model, acts)], base, chunks=chunks, formula=formula, progress=progress
    )[0]


def _names(base: BaseFile) -> tuple[str, ...]:
    return Tally.NAMES + (("kld_low", "kld_high") if isinstance(base, TopKFile) else ())


def _measures(
    base: BaseFile, formula: Formula, rows: Predictions, targets: Ids, window: int, at: int
) -> Measures:
    """Measures of a batch of rows, whose first is row `at` of the window."""
    logits = rows.logits()
    if isinstance(base, TopKFile):
        return top_k.divergence(base.rows(window, at, at + len(targets)), logits, targets)
    kld_of = kld_of_uncut if formula == "fewbit" else kld_of_stored
    found = []
    for some, wanted in base_file.slices(logits, targets):
        stored = base.log_probabilities(window, at, at + len(some))
        found.append(_measures_of(stored, kld_of(stored, some), some, wanted))
        at += len(some)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _measures_of(ln_p: Logits, kld: Values, logits: Logits, targets: Ids) -> Measures:
    nll = _core.nll(logits, targets)
    nll_base = -ln_p[np.arange(len(ln_p)), targets].astype(np.float64)
    return {
        "nll_base": nll_base, "nll": nll, "kld": kld, "dp": np.exp(-nll) - np.exp(-nll_base),
        "same_top": (ln_p.argmax(1) == logits.argmax(1)) & ~np.isnan(kld),
    }  # fmt: skip


def kld_of_uncut(ln_p: Logits, logits: Logits) -> Values:
    """The divergence of a row of a base file, its cut tokens taken together, f64 [rows].

    Both distributions are normalised over the tokens that are not cut. The cut ones have a
    probability between 0 and what the file gives them: within that range, the one is taken that
    brings the divergence nearest to 0. So raised values add nothing, and a model that gives much
    probability to the cut tokens diverges by it. The result is too small by at most about that
    range, which is 1e-4 with thousands of tokens, and as large a fraction of itself.
    """
    least, largest = ln_p.min(1, keepdims=True), ln_p.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        cut = (ln_p == least) & (largest - least > base_file.CUT - ROUNDING)
    if not cut.any():
        return _divergence(ln_p, logits)["kld"]
    nothing = np.float32(-np.inf)
    uncut = _divergence(np.where(cut, nothing, ln_p), np.where(cut, nothing, logits), ln_p)
    with np.errstate(divide="ignore", invalid="ignore"):
        outside = -np.expm1(uncut["nll"] - _core.nll(logits, _top(ln_p)))
        most = cut.sum(1) * np.exp(least[:, 0].astype(np.float64))
        p = np.clip(outside, 0.0, np.minimum(most, 1.0))
        pair = np.where(p > 0, p * np.log(p / outside), 0.0) + (1 - p) * np.log(
            (1 - p) / (1 - outside)
        )
        found: Values = (1 - p) * uncut["kld"] + pair
    return found


def kld_of_stored(ln_p: Logits, logits: Logits) -> Values:
    """The divergence as ``llama-perplexity --kl-divergence`` computes it, in f64, [rows].

    The probabilities are taken as they are stored; terms of tokens with ln p <= -16 are left out.
    """
    top = logits.argmax(1)
    largest = logits[np.arange(len(top)), top].astype(np.float64)
    normalizer = largest + _core.nll(logits, top.astype(np.uint32))
    with np.errstate(invalid="ignore", over="ignore"):
        difference = ln_p.astype(np.float64) - logits + normalizer[:, None]
        terms = np.exp(ln_p.astype(np.float64)) * difference
        found: Values = np.where(ln_p <= LEAST_LN, 0.0, terms).sum(1)
    return found


def _divergence(base: Logits, logits: Logits, top_of: Logits | None = None) -> dict[str, Values]:
    """The core's measures; the target is the likeliest token of `top_of` (the base)."""
    found = _core.divergence(base, logits, _top(base if top_of is None else top_of))
    return {"kld": found["kld"], "nll": found["nll"]}


def _top(ln_p: Logits) -> Ids:
    found: Ids = ln_p.argmax(1).astype(np.uint32)
    return found


class _Note:
    """What a base file costs in precision, from the first row of each window measured."""

    def __init__(self, base: BaseFile, formula: Formula) -> None:
        self._base, self._formula = base, formula
        self._steps: list[float] = []
        self._cut: list[float] = []
        self._sums: list[float] = []

    def add(self, window: int) -> None:
        if isinstance(self._base, TopKFile):
            return
        step, lowest, codes = self._base.stored(window, 0, 1)
        ln_p = step.astype(np.float64) * codes + lowest
        self._steps.append(float(step[0, 0]))
        self._cut.append(float((codes == 0).sum() * np.exp(lowest[0, 0])))
        self._sums.append(float(np.exp(ln_p).sum()))

    def result(self, tally: Tally) -> BaseNote:
        base = self._base
        if isinstance(base, TopKFile):
            low, high = (tally.mean(name) for name in ("kld_low", "kld_high"))
            return BaseNote(str(base.path), base.kind, self._formula, top=base.layout.top,
                            kld_low=low, kld_high=high)  # fmt: skip
        step = max(self._steps)
        return BaseNote(
            str(base.path), base.kind, self._formula, error=step / 2,
            cut=float(np.mean(self._cut)), sum=float(np.mean(self._sums)),
        )  # fmt: skip
