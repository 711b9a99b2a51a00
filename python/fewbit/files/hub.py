"""Find a model by its name: a path on this machine, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import re
from glob import escape
from os import PathLike
from pathlib import Path

from fewbit.errors import InputError, did_you_mean
from fewbit.files.hf_weights import PATTERN, file_of_tensors

_REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(/(?P<file>.+\.gguf))?")
_FOLDER = ["*.json", PATTERN, "*.jinja", "tokenizer.model"]
_NESTED = ["*/*"]
"""Files in folders of a repository, such as `original/` and `onnx/`: other forms of the model."""


def resolve(name: str | PathLike[str]) -> Path:
    """Return the path of a model; download it if `name` is a repository of the Hub.

    A repository is named ``owner/repository``, one GGUF file in it ``owner/repository/file.gguf``.

    Raises:
        InputError: the path does not exist, and the model cannot be downloaded.

    """
    path = Path(name)
    if path.exists():
        return path
    match = _REPOSITORY.fullmatch(str(name))
    if match is None or _is_local(path, match["id"], match["file"]):
        raise InputError(
            f"no model at `{name}`",
            hint=f"{_similar(path)}give a GGUF file, a Hugging Face folder, or a Hub repository as "
            "owner/repository",
            path=str(name),
        )
    return _download(match["id"], match["file"])


def _is_local(path: Path, repository: str, file: str | None) -> bool:
    """Whether a name that could be a repository's is a path: of a file beside others, or with dots.

    >>> _is_local(Path("../x/y.gguf"), "../x", "y.gguf"), _is_local(Path("a/b"), "a/b", None)
    (True, False)
    """
    if file is None:
        return path.suffix in (".gguf", ".safetensors") or repository.startswith(".")
    return repository.startswith(".") or path.parent.is_dir()


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


def _download(repository: str, file: str | None) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        if file is not None:
            return Path(hf_hub_download(repository, file))
        folder = Path(
            snapshot_download(repository, allow_patterns=_FOLDER, ignore_patterns=_NESTED)
        )
        named = sorted(set(file_of_tensors(folder).values()))
        if others := [name for name in named if not (folder / name).exists()]:
            snapshot_download(repository, allow_patterns=[escape(name) for name in others])
        return folder
    except (HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot download `{repository}` from the Hugging Face Hub: {reason}",
            hint="check the name and the network; private models need `hf auth login`",
            path=repository,
        ) from None
