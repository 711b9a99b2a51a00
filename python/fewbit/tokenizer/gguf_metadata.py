"""Describe the tokenizer of a Hugging Face folder by GGUF metadata keys."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewbit.errors import FileFormatError
from fewbit.tokenizer.gguf_kind import adds_space, kind_of, pieces_metadata, unknown_of
from fewbit.tokenizer.gguf_vocabulary import ENDS_KEY, JSON_KEY
from fewbit.tokenizer.load import from_folder
from fewbit.tokenizer.pieces import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from fewbit.tokenizer.tokenizer import Tokenizer, stop_ids

_END_KEYS = ("eot", "eom")
"""GGUF's keys for ends of a text besides EOS; if there are more, fewbit's own key lists all."""


def metadata_from_folder(path: Path, vocab: int) -> dict[str, Any]:
    """Return GGUF's tokenizer keys for the tokenizer of a folder; the model has `vocab` tokens.

    Raises:
        FileFormatError: the tokenizer is missing, damaged, or larger than the model's vocabulary.
        UnsupportedError: GGUF cannot describe the kind of tokenizer, such as WordPiece.

    """
    tokenizer = from_folder(path)
    facts = json.loads(tokenizer.backend.to_str())
    kind, pre, exact = kind_of(facts)
    tokens, types = _typed_tokens(tokenizer, facts, vocab, path)
    values: dict[str, Any] = {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
    }
    values |= pieces_metadata(kind, facts, tokens, types)
    values |= _ids(tokenizer, unknown_of(facts), vocab, path)
    around = tokenizer.encode("")
    adds_eos = tokenizer.eos is not None and tokenizer.eos in around[tokenizer.adds_bos :]
    values["tokenizer.ggml.add_bos_token"] = tokenizer.adds_bos
    if adds_eos or kind == "t5":
        values["tokenizer.ggml.add_eos_token"] = adds_eos
    if kind != "gpt2":
        values["tokenizer.ggml.add_space_prefix"] = adds_space(facts)
    if len(ends := _further_ends(tokenizer, vocab)) > len(_END_KEYS):
        values[ENDS_KEY] = ends
    if tokenizer.chat_template is not None:
        values["tokenizer.chat_template"] = tokenizer.chat_template
    greedy = any(a["lstrip"] or a["rstrip"] or a["single_word"] for a in facts["added_tokens"])
    exact = exact and not greedy and len(around) == tokenizer.adds_bos + adds_eos
    if not exact:  # GGUF cannot describe tokens that strip spaces, nor further tokens around a text
        values[JSON_KEY] = tokenizer.backend.to_str()
    return values


def _ids(tokenizer: Tokenizer, unknown: int | None, vocab: int, path: Path) -> dict[str, int]:
    """The keys of special tokens that the model has rows for; a warning tells of others."""
    ends = dict(zip(_END_KEYS, _further_ends(tokenizer, vocab), strict=False))
    ids = {"bos": tokenizer.bos, "eos": tokenizer.eos, **ends, "unknown": unknown}
    values: dict[str, int] = {}
    for name, id_ in ids.items():
        if id_ is not None and not 0 <= id_ < vocab:
            warnings.warn(
                f"`{path}`: left out the {name.upper()} token {id_}, "
                f"beyond the model's vocabulary of {vocab}",
                stacklevel=2,
            )
        elif id_ is not None:
            values[f"tokenizer.ggml.{name}_token_id"] = id_
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
    unknown = unknown_of(facts)
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
