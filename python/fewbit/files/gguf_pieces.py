"""Find the files of a GGUF model: the one of a folder, the pieces of a model that is split."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from fewbit.errors import FileFormatError, InputError
from fewbit.files import hub
from fewbit.files.gguf import GgufFile, TensorInfo, read_gguf
from fewbit.files.gguf_names import is_companion, models_among, pieces_of


def read_pieces(path: Path) -> GgufFile:
    """Read a GGUF model: all pieces if `path` is one of a model that is split.

    The pieces have the names of ``llama-gguf-split``, ``NAME-00001-of-00003.gguf``; the metadata
    are those of the first.

    Raises:
        FileFormatError: a piece is missing or damaged, or the pieces do not belong together.
        UnsupportedError: as `read_gguf`.

    """
    paths = piece_files(path)
    if len(paths) < 2:
        return _whole(path)
    found: list[GgufFile] = []
    tensors: dict[str, TensorInfo] = {}
    for number, piece in enumerate(paths):
        if not piece.exists():
            raise _apart(path, f"`{piece.name}` is missing")
        found.append(read_gguf(piece))
        if _number(found[-1], "split.no") not in (None, number):
            raise _apart(path, f"`{piece.name}` is another piece than its name says")
        if twice := tensors.keys() & found[-1].tensors.keys():
            raise _apart(path, f"`{min(twice)}` is in two pieces")
        tensors |= found[-1].tensors
    expected = _number(found[0], "split.tensors.count")
    if expected not in (None, len(tensors)):
        raise _apart(path, f"the pieces have {len(tensors)} tensors, expected {expected}")
    return GgufFile(found[0].metadata, tensors)


def piece_files(path: Path) -> list[Path]:
    """Return the paths of all pieces of the model that `path` is a piece of; else `path` itself."""
    return [path.with_name(name) for name in pieces_of(path.name)] or [path]


def _whole(path: Path) -> GgufFile:
    file = read_gguf(path)
    count = _number(file, "split.count") or 1
    if count > 1:
        number = (_number(file, "split.no") or 0) + 1
        raise FileFormatError(
            f"`{path}` is piece {number} of {count} of a model, and its name does not say so",
            hint=f"name the pieces as they were: NAME-{number:05d}-of-{count:05d}.gguf",
            path=str(path),
        )
    return file


def _number(file: GgufFile, key: str) -> int | None:
    field = file.metadata.get(key)
    return field.value if field is not None and isinstance(field.value, int) else None


def _apart(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"the model of `{path}` is incomplete: {reason}",
        hint="download all pieces of one version into one folder",
        path=str(path),
    )


def gguf_in(folder: Path) -> Path | None:
    """Return the GGUF model in `folder`, None if the folder is for `config.json` and safetensors.

    Projectors, importance matrices and further pieces of a split model are not models.

    Raises:
        InputError: there are several models.

    """
    if (folder / "config.json").exists() and any(folder.glob("*.safetensors*")):
        return None
    found = [folder / names[0] for names in models_among(f.name for f in folder.glob("*.gguf"))]
    models = [file for file in found if not is_companion(file.name)]
    if not models and not (folder / "config.json").exists():
        models = found
    if len(models) > 1:
        names = ", ".join(f"`{file.name}`" for file in sorted(models))
        raise InputError(
            f"`{folder}` holds {len(models)} models: {names}",
            hint=f"name one, for example `{sorted(models)[0]}`",
            path=str(folder),
        )
    return models[0] if models else None


def gguf_file(path: str | PathLike[str]) -> Path | None:
    """Return the GGUF file that `path` names or, as a folder, holds; None if there is none."""
    found = hub.resolve(path)
    if found.is_dir():
        return gguf_in(found)
    return None if found.suffix in (".safetensors", ".json") else found
