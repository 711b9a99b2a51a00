"""Write python/fewbit/files/hf_defaults.py: what transformers' classes say of absent keys.

    python tests/golden/make_hf_defaults.py        # needs transformers 5, without torch

`read` is what the test compares with the table that is checked in.
"""

from __future__ import annotations

import dataclasses
import subprocess
import typing
from pathlib import Path
from types import NoneType
from typing import Any

TABLE = Path(__file__).parents[2] / "python" / "fewbit" / "files" / "hf_defaults.py"
TYPES = (
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5",
    "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "gemma3", "gemma3_text", "phi3", "gpt2",
    "gpt_oss",
)  # fmt: skip
NOT_READ = {
    "architectures", "attention_dropout", "attn_pdrop", "bos_token_id", "chunk_size_feed_forward",
    "dtype", "embd_pdrop", "eos_token_id", "id2label", "image_token_id", "image_token_index",
    "initializer_range", "is_encoder_decoder", "label2id", "mm_tokens_per_image", "boi_token_index",
    "eoi_token_index", "output_attentions", "output_hidden_states", "output_router_logits",
    "pad_token_id", "pretraining_tp", "problem_type", "reorder_and_upcast_attn", "resid_pdrop",
    "return_dict", "router_aux_loss_coef", "router_jitter_noise", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "text_config", "transformers_version", "use_cache", "video_token_id", "vision_config",
    "vision_end_token_id", "vision_start_token_id", "add_cross_attention",
}  # fmt: skip
"""Keys that say nothing about what a model computes, or are read elsewhere."""


def read() -> dict[str, Any]:
    """Constants of the table by name, from the installed transformers."""
    import transformers
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    classes: dict[str, Any] = {kind: CONFIG_MAPPING[kind] for kind in TYPES}
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    both = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    # a class that also serves the composite type is named after the text model alone
    names = {both[kind]: kind for kind in TYPES if kind in both}
    names |= {causal[k]: k for k in TYPES if k in causal and causal[k] not in names}
    names |= {causal[k]: k for k in TYPES if k in causal and k.endswith("_text")}
    return {
        "TRANSFORMERS": transformers.__version__.split(".")[0],
        "DEFAULTS": {kind: _defaults(cls) for kind, cls in classes.items()},
        "NULLABLE": {kind: _nullable(cls) for kind, cls in classes.items()},
        "ALIASES": {k: dict(c.attribute_map) for k, c in classes.items() if c.attribute_map},
        "ROPE_BASES": {kind: _bases(cls) for kind, cls in classes.items()},
        "CLASSES": names,
    }


def _fields(cls: Any) -> list[Any]:
    return [f for f in dataclasses.fields(cls) if f.name not in NOT_READ and f.name[0] != "_"]


def _defaults(cls: Any) -> dict[str, Any]:
    """Values of the keys that a file leaves out; None is left out."""
    found = {}
    for field in _fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING and field.default is not None:
            found[field.name] = field.default
    rope = getattr(cls(), "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        found["rope_parameters"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    return found


def _nullable(cls: Any) -> tuple[str, ...]:
    """Keys that may be null and then mean something else than the default."""
    return tuple(
        f.name
        for f in _fields(cls)
        if NoneType in typing.get_args(f.type)
        and f.name in _defaults(cls)
        and f.name != "rope_parameters"
    )


def _bases(cls: Any) -> tuple[float, float]:
    """Rope bases of full attention and of sliding windows."""
    theta = cls.default_theta
    return (theta["global"], theta["local"]) if isinstance(theta, dict) else (theta, theta)


DOCS = {
    "TRANSFORMERS": "Major version of transformers that the table is of.",
    "DEFAULTS": "`model_type` -> key of config.json -> value if the key is absent.",
    "NULLABLE": "`model_type` -> keys whose null is a value of its own, not the default.",
    "ALIASES": "`model_type` -> other spelling of a key -> the key.",
    "ROPE_BASES": "`model_type` -> `rope_theta` of full attention and of sliding windows.",
    "CLASSES": "Class of a model (`architectures`) -> `model_type`.",
}
KINDS = {
    "TRANSFORMERS": "str",
    "DEFAULTS": "dict[str, dict[str, Any]]",
    "NULLABLE": "dict[str, tuple[str, ...]]",
    "ALIASES": "dict[str, dict[str, str]]",
    "ROPE_BASES": "dict[str, tuple[float, float]]",
    "CLASSES": "dict[str, str]",
}


def main() -> None:
    """Write the table."""
    head = (
        '"""Defaults of config.json by `model_type`: those of transformers 5\'s classes.\n\n'
        "tests/golden/make_hf_defaults.py writes this file from transformers; do not edit it.\n"
        '"""\n\nfrom __future__ import annotations\n\nfrom typing import Any\n\n'
    )
    body = "".join(
        f'{name}: {KINDS[name]} = {value!r}\n"""{DOCS[name]}"""\n' for name, value in read().items()
    )
    TABLE.write_text(head + body, "utf-8")
    subprocess.run(["ruff", "format", "--quiet", str(TABLE)], check=True)


if __name__ == "__main__":
    main()
