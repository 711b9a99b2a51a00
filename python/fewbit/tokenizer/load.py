"""Load the tokenizer of a model from its Hugging Face folder or its GGUF metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from fewbit.errors import FileFormatError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.gguf import Metadata
from fewbit.files.json_file import read_json
from fewbit.tokenizer.gguf_vocabulary import build
from fewbit.tokenizer.library import id_of, is_id, library
from fewbit.tokenizer.tokenizer import Tokenizer, backend_of_json, stop_ids


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Raises:
        FileFormatError: the tokenizer is missing or damaged.
        UnsupportedError: the kind of tokenizer is not supported.

    """
    if checkpoint.metadata is not None:
        return from_gguf(checkpoint.metadata, checkpoint.path)
    return from_folder(checkpoint.path)


def from_folder(path: Path) -> Tokenizer:
    """Load the tokenizer of a Hugging Face folder: tokenizer.json, special tokens, chat template.

    Raises:
        FileFormatError: tokenizer.json is missing or damaged.

    """
    backend = _read_backend(path / "tokenizer.json")
    settings = _optional(path / "tokenizer_config.json")
    model, generation = (_optional(path / f"{n}.json") for n in ("config", "generation_config"))
    text = model.get("text_config")
    parts = (generation, model, text if isinstance(text, dict) else {})
    config = model | generation
    bos = _special(backend, settings.get("bos_token"), config.get("bos_token_id"))
    eos = _special(backend, settings.get("eos_token"), config.get("eos_token_id"))
    return Tokenizer(
        backend,
        bos,
        eos,
        stop_ids(backend, [id_ for part in parts for id_ in _listed(part)], eos),
        _adds(backend, bos),
        _template(path, settings),
    )


def from_gguf(metadata: Metadata, path: Path) -> Tokenizer:
    """Build the tokenizer of a GGUF file from its metadata; errors name `path`.

    Raises:
        FileFormatError: keys are missing or contradict each other.
        UnsupportedError: the kind of tokenizer is not supported.

    """
    return build(metadata, path)


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.exists():
        raise FileFormatError(
            f"`{path.parent}` has no tokenizer.json",
            hint="download the folder again; fewbit reads no other tokenizer file",
            path=str(path),
        )
    return backend_of_json(path.read_text("utf-8", errors="replace"), f"`{path}`")


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _special(backend: tokenizers.Tokenizer, spelled: Any, id_: Any) -> int | None:
    """Find a special token by its text (a string, or an object with `content`), else by its id."""
    content = spelled.get("content") if isinstance(spelled, dict) else spelled
    if isinstance(content, str) and (found := id_of(backend, content)) is not None:
        return found
    first = id_[0] if isinstance(id_, list) and id_ else id_
    return first if is_id(first) else None


def _listed(config: dict[str, Any]) -> list[Any]:
    """The ids that a configuration declares as ends of a text."""
    found = config.get("eos_token_id")
    return found if isinstance(found, list) else [found]


def _adds(backend: tokenizers.Tokenizer, bos: int | None) -> bool:
    with library("the tokenizer cannot encode an empty text", FileFormatError):
        return bos is not None and bos in backend.encode("", add_special_tokens=True).ids[:1]


def _template(path: Path, settings: dict[str, Any]) -> str | None:
    """The template in chat_template.jinja, chat_template.json or tokenizer_config.json."""
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8", errors="replace")
    found = _optional(path / "chat_template.json").get("chat_template")
    found = settings.get("chat_template") if found is None else found
    if isinstance(found, list):  # several templates by name
        named = [t for t in found if isinstance(t, dict) and t.get("name") == "default"]
        found = named[-1] if named else None
        found = found and found.get("template")
    elif isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None
