"""The sampling that a model's authors recommend, from its generation_config.json or GGUF keys."""

from __future__ import annotations

from typing import Any

from fewbit.errors import InputError
from fewbit.files.checkpoint import Checkpoint
from fewbit.files.json_file import read_json
from fewbit.run.sampling import Sampling, sampling_from

_FILE = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
"""Options of `Sampling`, and their names in generation_config.json."""
_GGUF = {name: f"general.sampling.{name}" for name in ("top_k", "top_p", "min_p")} | {
    "temperature": "general.sampling.temp",
    "repeat_penalty": "general.sampling.penalty_repeat",
    "repeat_last_n": "general.sampling.penalty_last_n",
}


def recommended(checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of `Sampling` that the model's files recommend; unusable ones are left out.

    The `repetition_penalty` of generation_config.json counts all tokens (`repeat_last_n` -1), as
    transformers does.
    """
    if checkpoint.metadata is not None:
        fields = {name: checkpoint.metadata.get(key) for name, key in _GGUF.items()}
        found = {name: field.value for name, field in fields.items() if field is not None}
    else:
        file = checkpoint.path / "generation_config.json"
        written = read_json(file) if file.exists() else {}
        found = {name: written.get(key) for name, key in _FILE.items()}
        if found["repeat_penalty"] not in (None, 1):
            found["repeat_last_n"] = -1
    return {name: found[name] for name in sorted(_FILE) if _usable(name, found.get(name))}


def default_sampling(checkpoint: Checkpoint) -> Sampling:
    """The recommended sampling, with fewbit's defaults for what the model's files do not say."""
    return Sampling(**recommended(checkpoint))


def sampling_for(checkpoint: Checkpoint, sampling: Sampling | None, **options: Any) -> Sampling:
    """`sampling`, or the model's default if None, with every option that is not None on top.

    `temperature` 0 asks for the likeliest token: then nothing that the files recommend applies. A
    `repeat_penalty` that is given has fewbit's own window.

    Raises:
        InputError: an option is out of its range.

    """
    if sampling is None and options.get("temperature") != 0:
        found = recommended(checkpoint)
        if options.get("repeat_penalty") is not None:
            found.pop("repeat_last_n", None)
        sampling = Sampling(**found)
    return sampling_from(sampling, **options)


def _usable(name: str, value: Any) -> bool:
    whole = name in ("top_k", "repeat_last_n")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    try:
        options: dict[str, Any] = {name: value}
        Sampling(**options)
    except InputError:
        return False
    return True
