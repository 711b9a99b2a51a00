"""Describe the tokenizer of a Hugging Face folder by GGUF metadata keys."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError
from fewbit.tokenizer.gguf_vocabulary import (
    BYTE,
    CONTROL,
    ENDS_KEY,
    GPT2,
    JSON_KEY,
    NORMAL,
    SPLITTINGS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from fewbit.tokenizer.load import from_folder
from fewbit.tokenizer.tokenizer import Tokenizer, stop_ids

_END_KEYS = ("eot", "eom")
"""GGUF's keys for ends of a text besides EOS; if there are more, fewbit's own key lists all."""


def metadata_from_folder(path: Path, vocab: int) -> dict[str, Any]:
    """Return GGUF's tokenizer keys for the tokenizer of a folder; the model has `vocab` tokens.

    Raises:
        FileFormatError: the tokenizer is missing, damaged, or larger than the model's vocabulary.

    """
    tokenizer = from_folder(path)
    facts = json.loads(tokenizer.backend.to_str())
    tokens, types = _typed_tokens(tokenizer, facts, vocab, path)
    kind, pre, exact = _kind(facts)
    values: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
    }
    merges = [" ".join(m) if isinstance(m, list) else m for m in facts["model"].get("merges", [])]
    if kind == "llama":
        values["tokenizer.ggml.scores"] = _scores(tokens, merges)
    values["tokenizer.ggml.token_type"] = types
    if kind != "llama":
        values["tokenizer.ggml.merges"] = merges
    unknown = facts["model"].get("unk_token")
    ids = {
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        **dict(zip(_END_KEYS, _further_ends(tokenizer, vocab), strict=False)),
    }
    ids["unknown"] = None if unknown is None else tokenizer.vocab.get(unknown)
    for name, id_ in ids.items():
        if id_ is not None and not 0 <= id_ < vocab:
            warnings.warn(
                f"`{path}`: left out the {name.upper()} token {id_}, "
                f"beyond the model's vocabulary of {vocab}",
                stacklevel=2,
            )
        elif id_ is not None:
            values[f"tokenizer.ggml.{name}_token_id"] = id_
    values["tokenizer.ggml.add_bos_token"] = tokenizer.adds_bos
    if kind == "llama":
        values["tokenizer.ggml.add_space_prefix"] = _adds_space(facts)
    if len(ends := _further_ends(tokenizer, vocab)) > len(_END_KEYS):
        values[ENDS_KEY] = ends
    if tokenizer.chat_template is not None:
        values["tokenizer.chat_template"] = tokenizer.chat_template
    greedy = any(a["lstrip"] or a["rstrip"] or a["single_word"] for a in facts["added_tokens"])
    if not exact or greedy:  # GGUF cannot describe tokens that strip spaces
        values[JSON_KEY] = tokenizer.backend.to_str()
    return values


def _further_ends(tokenizer: Tokenizer, vocab: int) -> list[int]:
    """Ids below `vocab` that end a text besides EOS; tokens known by their text need no key."""
    known = stop_ids(tokenizer.backend, None, tokenizer.eos)
    return sorted(id_ for id_ in tokenizer.stop_ids - known if id_ < vocab)


def _typed_tokens(
    tokenizer: Tokenizer, facts: dict[str, Any], vocab: int, path: Path
) -> tuple[list[str], list[int]]:
    """Token and type of each id; ids without a token get a placeholder of type UNUSED."""
    by_id = {id_: token for token, id_ in tokenizer.vocab.items()}
    beyond = [added for added in facts["added_tokens"] if added["id"] >= vocab]
    largest = max(by_id.keys() - {added["id"] for added in beyond}, default=0)
    if largest >= vocab:
        raise FileFormatError(
            f"`{path}`: the tokenizer has token {largest}, "
            f"but the vocabulary of the model has {vocab} tokens",
            hint="take the tokenizer that belongs to the weights",
        )
    if beyond:
        _warn_beyond(beyond, vocab, path)
    tokens = [by_id.get(id_, f"[PAD{id_}]") for id_ in range(vocab)]
    types = [NORMAL if id_ in by_id else UNUSED for id_ in range(vocab)]
    if facts["model"].get("byte_fallback"):
        for code in range(256):
            if (id_ := tokenizer.vocab.get(f"<0x{code:02X}>")) is not None:
                types[id_] = BYTE
    for added in facts["added_tokens"]:
        if added["id"] < vocab:
            types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    unknown = tokenizer.vocab.get(facts["model"].get("unk_token") or "")
    if unknown is not None and unknown < vocab:
        types[unknown] = UNKNOWN
    return tokens, types


def _warn_beyond(added: Sequence[dict[str, Any]], vocab: int, path: Path) -> None:
    """Warn of added tokens whose ids the model has no rows for; llama.cpp drops them too."""
    named = ", ".join(f"`{token['content']}` ({token['id']})" for token in added[:5])
    more = f" and {len(added) - 5} more" if len(added) > 5 else ""
    warnings.warn(
        f"`{path}`: left out added tokens beyond the model's vocabulary of {vocab}: {named}{more}",
        stacklevel=2,
    )


def _kind(facts: dict[str, Any]) -> tuple[str, str, bool]:
    """GGUF's tokenizer model and pre-tokenizer; True if they describe the tokenizer exactly."""
    model, normalizer = facts["model"], facts["normalizer"]
    if model.get("byte_fallback"):
        steps = [step["type"] for step in (normalizer or {}).get("normalizers", [])]
        return (
            "llama",
            "default",
            facts["pre_tokenizer"] is None and steps == ["Prepend", "Replace"],
        )
    found = tuple(_patterns(facts["pre_tokenizer"]))
    normal_form, whole = normalizer == {"type": "NFC"}, model.get("ignore_merges", False)
    alike = [splitting for splitting in SPLITTINGS if splitting.patterns == found]
    for splitting in alike:
        if (splitting.normal_form, splitting.ignores_merges) == (normal_form, whole):
            return "gpt2", splitting.names[0], True
    if alike:
        return "gpt2", alike[0].names[0], False
    warnings.warn(
        "GGUF has no name for how this tokenizer splits text: the file says `default` and holds "
        "the whole tokenizer for fewbit, but other programs split text in another way",
        stacklevel=2,
    )
    return "gpt2", "default", False


def _adds_space(facts: dict[str, Any]) -> bool:
    """True if a space is put before a text, by the normalizer or by `Metaspace`."""
    normalizer, pre = facts["normalizer"] or {}, facts["pre_tokenizer"] or {}
    steps = [
        step["type"] for step in normalizer.get("normalizers", [normalizer] if normalizer else [])
    ]
    metaspace = pre.get("type") == "Metaspace" and pre.get("prepend_scheme") != "never"
    return "Prepend" in steps or metaspace


def _patterns(step: dict[str, Any] | None) -> Iterable[str]:
    """Patterns by which a byte-level pre-tokenizer splits text, in order."""
    match step:
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            for inner in steps:
                yield from _patterns(inner)
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"}:
            yield pattern
        case {
            "type": "Split",
            "pattern": {"Regex": str(pattern)},
            "behavior": "Removed",
            "invert": True,
        }:  # what is between matches is removed: nothing, as they cover all
            yield pattern
        case {"type": "Digits", "individual_digits": True}:
            yield r"\p{N}"
        case {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}:
            yield GPT2
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return
        case _:
            yield "unknown"


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Scores in the order of the merges; tokens that no merge makes come last."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(merges):
        rank.setdefault("".join(merge.split(" ", 1)), i)
    return [-float(rank.get(token, len(merges))) for token in tokens]
