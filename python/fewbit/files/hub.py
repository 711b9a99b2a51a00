"""Find a model by its name: a path on this machine, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from os import PathLike
from pathlib import Path
from typing import Any

from fewbit.errors import FewbitError, InputError, did_you_mean
from fewbit.files.gguf_names import is_companion, is_quantization, models_among, pieces_of
from fewbit.files.hf_weights import PATTERN, file_of_tensors

_NAME = re.compile(
    r"(?P<scheme>hf://|(https://)?(hf\.co|huggingface\.co)/)?(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?"
    r"(:(?P<quantization>[\w.-]+)|/(?P<file>.+[^/]))?/?"
)
_FOLDER = ["*.json", PATTERN, "*.jinja", "tokenizer.model", "merges.txt"]
_NESTED = ["*/*"]
"""Files in folders of a repository, such as `original/` and `onnx/`: other forms of the model."""
_WEIGHTS = (".gguf", ".safetensors")


@dataclass(frozen=True)
class _Repository:
    """A repository of the Hub at a revision, None for the newest."""

    id: str
    revision: str | None

    def snapshot(self, **patterns: Any) -> Path:
        """Download the files that match; without a network those that were downloaded before."""
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.id, revision=self.revision, **patterns))

    def names(self) -> list[str]:
        """The names of all files; without a network those that were downloaded before."""
        from huggingface_hub import HfApi

        try:
            return list(HfApi().list_repo_files(self.id, revision=self.revision))
        except Exception as error:  # as in `_download`
            try:
                folder = self.snapshot(local_files_only=True)
            except OSError:
                raise error from None
            return [f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()]


def resolve(name: str | PathLike[str]) -> Path:
    """Return the path of a model; download it if `name` is a repository of the Hub.

    A repository is named ``owner/repository``, its GGUF file of a quantization
    ``owner/repository:Q4_K_M``, any file in it ``owner/repository/file.gguf``. The form
    ``hf://owner/repository`` means the same and is never a path. A branch, tag or commit may
    follow, as in ``owner/repository@main``.

    Raises:
        InputError: the path does not exist, and the model cannot be downloaded; or the repository
            has no or several GGUF models of the quantization.

    """
    text, path = str(name), Path(name)
    if not text.startswith("hf://") and path.exists():
        return path
    match = _NAME.fullmatch(text)
    if match is None or not (match["scheme"] or _is_of_hub(path, match["id"], match["file"])):
        raise InputError(
            f"no model at `{name}`",
            hint=f"{_similar(path)}give a GGUF file, a Hugging Face folder, or a Hub repository as "
            "owner/repository",
            path=text,
        )
    repository = _Repository(match["id"], match["revision"])
    return _download(repository, match["file"], match["quantization"])


def _is_of_hub(path: Path, repository: str, file: str | None) -> bool:
    """Whether a name without a scheme is one of the Hub: any other is a path with a mistake.

    >>> _is_of_hub(Path("../x/y.gguf"), "../x", "y.gguf"), _is_of_hub(Path("a/b"), "a/b", None)
    (False, True)
    """
    if repository.startswith("."):
        return False
    if file is None:
        return not path.name.endswith(_WEIGHTS)
    return file.endswith(".gguf") and not path.parent.is_dir()


def _similar(path: Path) -> str:
    """A hint at a file, a folder or the demo whose name is like that of `path`, or ""."""
    with contextlib.suppress(OSError, ValueError):
        beside = {str(other): other.name for other in path.parent.iterdir() if path.name}
        if str(path) == path.name:
            beside["demo"] = "demo"
        if found := did_you_mean(path.name, beside.values()):
            near = found.split("`")[1]
            return f"did you mean `{next(k for k, v in beside.items() if v == near)}`? "
    return ""


def folder_name(folder: Path) -> str:
    """The name of the model in a Hugging Face folder; in the Hub's cache, the repository's.

    >>> folder_name(Path("hub/models--acme--Tiny-Llama/snapshots/0a1b2c3d"))
    'Tiny-Llama'
    """
    whole = Path(os.path.abspath(folder))  # a symbolic link has the name that its user gave it
    if whole.parent.name == "snapshots" and whole.parents[1].name.startswith("models--"):
        return whole.parents[1].name.split("--")[-1]
    return whole.name


def _download(repository: _Repository, file: str | None, quantization: str | None) -> Path:
    try:
        if quantization is not None:
            return _gguf(repository, repository.names(), quantization)
        if file is not None and file.endswith(".gguf"):
            return _pieces(repository, pieces_of(file), file)
        folder = _folder(repository)
        if file is not None:
            return _existing(folder / file)
        if not any(folder.glob("*.safetensors*")) and any(
            models_among(names := repository.names())
        ):
            return _gguf(repository, names, None)
        return folder
    except FewbitError:
        raise
    except Exception as error:  # errors of the network have no class in common
        raise _failed(repository, error) from None


def _folder(repository: _Repository) -> Path:
    """Download the model's settings, its tokenizer and its weights."""
    folder = repository.snapshot(allow_patterns=_FOLDER, ignore_patterns=_NESTED)
    named = sorted(set(file_of_tensors(folder).values()))
    if others := [name for name in named if not (folder / name).exists()]:
        repository.snapshot(allow_patterns=[escape(name) for name in others])
    return folder


def _gguf(repository: _Repository, names: Sequence[str], quantization: str | None) -> Path:
    """Download the one GGUF model of a quantization, or of any if it is None."""
    models = [files for files in models_among(names) if not is_companion(files[0])]
    found = [
        files for files in models if quantization is None or is_quantization(files[0], quantization)
    ]
    if len(found) == 1:
        return _pieces(repository, found[0], found[0][0])
    listed = ", ".join(f"`{files[0]}`" for files in found or models) or "none"
    of = "" if quantization is None else f" of quantization `{quantization}`"
    raise InputError(
        f"`{repository.id}` has {len(found) or 'no'} GGUF models{of}; GGUF files there: {listed}",
        hint="name a quantization, as in `owner/repository:Q4_K_M`, or one file, as in "
        "`owner/repository/file.gguf`",
        path=repository.id,
    )


def _pieces(repository: _Repository, files: Sequence[str], first: str) -> Path:
    folder = repository.snapshot(allow_patterns=[escape(name) for name in files])
    return _existing(folder / first)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"`{path.name}` is not in it, or was not downloaded before")
    return path


def _failed(repository: _Repository, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"cannot download `{repository.id}` from the Hugging Face Hub: {reason}",
        hint="check the name and the network; private models need `hf auth login`",
        path=repository.id,
    )
