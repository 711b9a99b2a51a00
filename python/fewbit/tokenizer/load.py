"""Load the tokenizer of a model from its Hugging Face folder or its GGUF metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from fewbit.errors import FileFormatError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.gguf import Metadata
from fewbit.files.json_file import read_json
from fewbit.tokenizer.folder_files import backend_of_files
from fewbit.tokenizer.gguf_vocabulary import build
from fewbit.tokenizer.library import guarded, id_of, is_id
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
    """Load the tokenizer of a Hugging Face folder: vocabulary, special tokens, chat template.

    The vocabulary is that of tokenizer.json, or else of tokenizer.model, or else of vocab.json with
    merges.txt.

    Raises:
        FileFormatError: the tokenizer is missing or damaged.
        UnsupportedError: the folder has no tokenizer.json, and a tokenizer of an unknown class.

    """
    settings = _optional(path / "tokenizer_config.json")
    model, generation = (_optional(path / f"{n}.json") for n in ("config", "generation_config"))
    backend, named = _backend(path, settings, str(model.get("model_type")))
    settings = named | settings
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


def _backend(
    path: Path, settings: dict[str, Any], kind: str
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    file = path / "tokenizer.json"
    if not file.exists():
        with guarded(FileFormatError, f"`{path}`: the tokenizer is damaged", "download it again"):
            return backend_of_files(path, settings, kind)
    return backend_of_json(file.read_text("utf-8", errors="replace"), f"`{file}`"), {}


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
    what = "the tokenizer cannot put tokens around a text"
    with guarded(FileFormatError, what, "take the original tokenizer.json"):
        around = backend.encode("", add_special_tokens=True).ids
    return bos is not None and bos in around[:1]


def _template(path: Path, settings: dict[str, Any]) -> str | None:
    """The template in chat_template.jinja, chat_template.json or tokenizer_config.json."""
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text("utf-8", errors="replace")
    found = _optional(path / "chat_template.json").get("chat_template")
    found = settings.get("chat_template") if found is None else found
    if isinstance(found, list):  # several templates by name
        named = [t for t in found if isinstance(t, dict) and t.get("name") == "default"]
        found = named[-1].get("template") if named else None
    elif isinstance(found, dict):
        found = found.get("default")
    return found if isinstance(found, str) else None
