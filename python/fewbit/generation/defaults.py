"""The sampling that a model's authors recommend, from its generation_config.json or GGUF keys."""

from __future__ import annotations

from typing import Any

from fewbit.errors import InputError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.json_file import read_json
from fewbit.run.sampling import Sampling

_GGUF = {name: f"general.sampling.{name}" for name in ("top_k", "top_p", "min_p")}
_GGUF["temperature"] = "general.sampling.temp"


def recommended(checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of `Sampling` that the model's files recommend; unusable ones are left out."""
    if checkpoint.metadata is not None:
        fields = {name: checkpoint.metadata.get(key) for name, key in _GGUF.items()}
        found = {name: field.value for name, field in fields.items() if field is not None}
    else:
        file = checkpoint.path / "generation_config.json"
        found = read_json(file) if file.exists() else {}
    return {name: found[name] for name in sorted(_GGUF) if _usable(name, found.get(name))}


def _usable(name: str, value: Any) -> bool:
    whole = name == "top_k"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    try:
        options: dict[str, Any] = {name: value}
        Sampling(**options)
    except InputError:
        return False
    return True
