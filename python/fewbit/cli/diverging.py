"""Carry out `fewbit divergence`: against a model, against a base file, or while writing one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from fewbit.api import Model
from fewbit.cli.options import open_model, read_text
from fewbit.cli.outputs import refuse_replacing
from fewbit.cli.progress import progress, stderr
from fewbit.demo import is_demo
from fewbit.errors import InputError, did_you_mean
from fewbit.measure import base_files, evaluate
from fewbit.measure.base_files import FORMULAS, Formula
from fewbit.measure.evaluate import Variant
from fewbit.measure.results import Divergence
from fewbit.run.limits import Activations


@dataclass(frozen=True)
class Asked:
    """The options of `fewbit divergence`, as they were typed."""

    model: str | None
    base: str | None
    text: Path | None
    format: str | None
    ctx: int
    chunks: int | None
    kinds: tuple[Activations, ...]
    save_base: Path | None
    top: int | None
    like: str
    threads: int
    device: str
    kv: str


def measured(asked: Asked) -> list[Divergence]:
    """One result for each kind of activations.

    Raises:
        InputError: options contradict each other.

    """
    formula = _formula(asked.like)
    if asked.top is not None and asked.save_base is None:
        raise InputError("`--top` needs a file to write", hint="name it with `--save-base FILE`")
    from_file = asked.base and not is_demo(asked.base) and base_files.is_base_file(asked.base)
    if asked.base and Path(asked.base).suffix in (".kld", base_files.COMPACT) and not from_file:
        base_files.open_base(asked.base)  # says that it is missing, or no base file
    if from_file:
        return _from_file(asked, formula)
    if formula != "fewbit":
        raise InputError(
            f"`--like {asked.like}` needs a base file", hint="name one with `--base FILE`"
        )
    return _side_by_side(asked)


def _side_by_side(asked: Asked) -> list[Divergence]:
    if asked.base is None and asked.format is None and asked.kv == "f32" and not asked.save_base:
        raise InputError(
            "nothing to compare with", hint="name a `--base MODEL`, a `--format` or a `--kv`"
        )
    content = read_text(asked.text, asked.model)
    name = asked.model if asked.base is None else asked.base
    original = open_model(name, None, asked.threads, asked.device)
    loaded = open_model(asked.model, asked.format, asked.threads, asked.device, asked.kv)
    with ExitStack() as stack:
        on_base = None
        if asked.save_base is not None:
            paths = [original.checkpoint.path, loaded.checkpoint.path, asked.text]
            refuse_replacing(asked.save_base, paths, force=False)
            windows = evaluate.windows(original, content, asked.ctx, asked.chunks)
            on_base = stack.enter_context(
                base_files.saving(asked.save_base, original, windows, asked.top)
            )
        update = stack.enter_context(progress("divergence"))
        results = evaluate.divergences(
            [Variant(loaded, kind) for kind in asked.kinds], Variant(original, "f32"),
            content, asked.ctx, asked.chunks, update, on_base,
        )  # fmt: skip
    note_context(original, asked.ctx)
    return results


def _from_file(asked: Asked, formula: Formula) -> list[Divergence]:
    assert asked.base is not None
    if asked.save_base is not None:
        raise InputError(
            "`--save-base` writes the predictions of a model, `--base` is a file of them",
            hint="leave one of them out",
        )
    base = base_files.open_base(asked.base)
    loaded = open_model(asked.model, asked.format, asked.threads, asked.device, asked.kv)
    if asked.text is not None:
        content = read_text(asked.text, asked.model)
        ctx, chunks = base.shape.ctx, asked.chunks or base.shape.windows
        base_files.check_text(base, evaluate.windows(loaded, content, ctx, chunks))
    with progress("divergence") as update:
        results = base_files.divergences_from(
            [Variant(loaded, kind) for kind in asked.kinds], base,
            chunks=asked.chunks, formula=formula, progress=update,
        )  # fmt: skip
    note_context(loaded, base.shape.ctx)
    return results


def _formula(name: str) -> Formula:
    if name not in FORMULAS:
        raise InputError(
            f"unknown formula `{name}`",
            hint=f"{did_you_mean(name, FORMULAS)}known: {', '.join(FORMULAS)}", like=name,
        )  # fmt: skip
    return cast(Formula, name)


def note_context(model: Model, ctx: int) -> None:
    """Tell if windows are longer than what a model was made for."""
    if ctx > model.config.context:
        stderr().print(
            f"note: windows of {ctx} tokens, the model was made for {model.config.context}"
        )
