"""Results on stdout, names of files that commands write, and inputs that they must not replace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fewbit.cli.progress import LateProgress, progress
from fewbit.demo import is_demo
from fewbit.errors import InputError
from fewbit.files.hub import folder_name
from fewbit.recipes.choose import canonical
from fewbit.reports import write
from fewbit.tables import Shown

_FLOAT_SUFFIX = re.compile(r"[-.](f32|f16|bf16)$", re.IGNORECASE)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def show_result(found: Shown, json: bool) -> None:
    """Write a result to stdout, as JSON or as its page."""
    if json:
        write.write_json(found)
    else:
        write.show(*found.page())


def show_each(found: Iterator[Shown], json: bool, bar: LateProgress) -> None:
    """Write one JSON list, or the page of each result as soon as it is computed."""
    results = []
    while True:
        with progress("reading") as update:  # ends before the page is written
            bar.update = update
            one = next(found, None)
        if one is None:
            break
        if json:
            results.append(one)
        else:
            write.show(*one.page())
    if json:
        write.write_json(results)


def output_paths(
    output: Path | None, model: str, recipes: Sequence[str], known: bool = True
) -> list[Path]:
    """The file of each of `recipes`: `output` with its `{format}`, or MODEL-FORMAT.gguf here.

    With `known` False they are words, not recipes.

    Raises:
        FormatError: a recipe is unknown.
        InputError: two recipes have the same file.

    """
    pattern = f"{_stem(model)}-{{format}}.gguf" if output is None else str(output)
    names = [canonical(recipe) if known else recipe for recipe in recipes]
    found = [Path(pattern.replace("{format}", name)) for name in names]
    if len(set(names)) < len(names):
        raise InputError(f"a format is named twice: {', '.join(names)}", hint="name each once")
    if len(set(found)) < len(found):
        raise InputError(
            f"{len(found)} formats, but one file to write: `{output}`",
            hint="write `{format}` in its name, as in `model-{format}.gguf`, or leave it out",
        )
    return found


def _stem(model: str) -> str:
    """The name of a model without `.gguf`, a float format at its end, and a hub name's owner."""
    if is_demo(model):
        return "demo"
    path = Path(model)
    if path.suffix == ".safetensors" or path.name == "config.json":
        path = path.parent
    name = folder_name(path) if path.exists() else path.name
    name = _SPLIT.sub("", name).removesuffix(".gguf").replace(":", "-")
    return _FLOAT_SUFFIX.sub("", name) or "model"


def refuse_replacing(output: Path, inputs: Iterable[Path | None], force: bool) -> None:
    """Refuse to write `output` if it is one of `inputs` or a file of a model's folder there.

    Raises:
        InputError: it is, and `force` is False.

    """
    if force or not output.is_file():
        return
    for path in inputs:
        if path is not None and any(output.samefile(file) for file in _files_of(path)):
            raise InputError(
                f"`{output}` is an input of this command and would be replaced",
                hint="name another file, or allow it with `--force`",
                path=str(output),
            )


def _files_of(path: Path) -> list[Path]:
    """The files that a model, matrix or text at `path` consists of, as far as they exist."""
    if path.is_dir():
        return [file for file in path.iterdir() if file.is_file() and file.suffix != ".gguf"]
    if match := _SPLIT.search(path.name):
        stem = path.name[: match.start()]
        return [f for f in path.parent.glob("*.gguf") if _SPLIT.sub("", f.name) == stem]
    return [path] if path.exists() else []
