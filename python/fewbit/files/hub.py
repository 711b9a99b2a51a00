"""Models by name: a path on this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from fewbit.errors import InputError

_REPOSITORY = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(/(?P<file>.+\.gguf))?")
_FOLDER = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


def resolve(name: str | PathLike[str]) -> Path:
    """Where the model called `name` lies, downloaded if it is one of the hub's.

    A hub name is ``owner/repository``, or ``owner/repository/file.gguf`` for one GGUF file.

    Raises:
        InputError: there is no such path, and the hub has no such model or cannot be reached.

    """
    path = Path(name)
    if path.exists():
        return path
    match = _REPOSITORY.fullmatch(str(name))
    if match is None or (match["file"] is None and path.suffix in (".gguf", ".safetensors")):
        raise InputError(
            f"no model at `{name}`",
            hint="a GGUF file, a Hugging Face folder, or a hub name as owner/repository",
            path=str(name),
        )
    return _download(match["id"], match["file"])


def _download(repository: str, file: str | None) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        if file is not None:
            return Path(hf_hub_download(repository, file))
        return Path(snapshot_download(repository, allow_patterns=_FOLDER))
    except (HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"no path `{repository}`, and the hub does not give it: {reason}",
            hint="check the name and the network; private models need `hf auth login`",
            path=repository,
        ) from None
