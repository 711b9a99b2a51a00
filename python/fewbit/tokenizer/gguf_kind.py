"""The kind of a tokenizer.json in GGUF's terms: byte-level BPE, or pieces with scores."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fewbit.errors import UnsupportedError
from fewbit.tokenizer.pieces import SPACE
from fewbit.tokenizer.pre_tokenizer import has_byte_level, normal_form, splitting_of

_Facts = Mapping[str, Any]
_UNUSED_SCORE = -10000.0
"""The score of ids without a token."""


def kind_of(facts: _Facts) -> tuple[str, str, bool]:
    """GGUF's tokenizer model and pre-tokenizer; True if they describe the tokenizer exactly.

    `facts` is the parsed tokenizer.json. A warning tells what other programs do in another way.

    Raises:
        UnsupportedError: GGUF cannot describe a model of this type.

    """
    model = facts["model"]
    match model.get("type"):
        case "BPE" if model.get("byte_fallback") or _is_of_pieces(facts):
            if not model.get("byte_fallback"):
                warnings.warn(
                    "this tokenizer has no tokens of bytes: llama.cpp fails at text without tokens",
                    stacklevel=4,
                )
            steps = [step["type"] for step in _steps(facts["normalizer"], "normalizers")]
            _warn_of(set(steps) - {"Prepend", "Replace"})
            return "llama", "default", facts["pre_tokenizer"] is None and steps == _STEPS
        case "BPE":
            return _byte_level(facts)
        case "Unigram" if model.get("byte_fallback"):
            warnings.warn(
                "GGUF cannot describe a unigram tokenizer with bytes: the file has its scores and "
                "holds the whole tokenizer for fewbit, but llama.cpp joins tokens pair by pair",
                stacklevel=4,
            )
            return "llama", "default", False
        case "Unigram" if model.get("unk_id") is not None:
            steps = [step["type"] for step in _steps(facts["normalizer"], "normalizers")]
            _warn_of(set(steps) - {"Precompiled", "Prepend", "Replace", "Strip"})
            return "t5", "default", False
        case kind:
            raise UnsupportedError(
                f"GGUF files cannot hold a {kind} tokenizer yet",
                hint="known: BPE, and Unigram with a token for unknown text; run the folder as it "
                "is, or quantize to another file format",
                tokenizer=kind,
            )


_STEPS = ["Prepend", "Replace"]


def _is_of_pieces(facts: _Facts) -> bool:
    """Whether BPE takes characters, with `▁` for spaces, and not bytes."""
    bytes_ = has_byte_level(facts["pre_tokenizer"])
    spaces = [step.get("content") for step in _steps(facts["normalizer"], "normalizers")]
    split = [step["type"] for step in _steps(facts["pre_tokenizer"], "pretokenizers")]
    return not bytes_ and (SPACE in spaces or "Metaspace" in split)


def _byte_level(facts: _Facts) -> tuple[str, str, bool]:
    model = facts["model"]
    splitting, exact = splitting_of(facts)
    if normal_form(facts) is None:
        _warn_of({step["type"] for step in _steps(facts["normalizer"], "normalizers")} - {"NFC"})
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        splitting = None
    if splitting is not None:
        return "gpt2", splitting.names[0], exact
    warnings.warn(
        "GGUF has no name for how this tokenizer splits text: the file says `default` and holds "
        "the whole tokenizer for fewbit, but other programs split text in another way",
        stacklevel=4,
    )
    return "gpt2", "default", False


def _warn_of(steps: set[str]) -> None:
    if steps:
        warnings.warn(
            f"GGUF cannot describe how this tokenizer normalizes text ({', '.join(sorted(steps))}):"
            " the file holds the whole tokenizer for fewbit, but other programs do not normalize",
            stacklevel=5,
        )


def pieces_metadata(
    kind: str, facts: _Facts, tokens: Sequence[str], types: Sequence[int]
) -> dict[str, Any]:
    """The keys of scores, types and merges; for `t5` also those of normalizing text."""
    prefix = "tokenizer.ggml."
    if kind == "gpt2":
        return {f"{prefix}token_type": types, f"{prefix}merges": _merges(facts)}
    unigram = facts["model"]["type"] == "Unigram"
    scores = _own_scores(facts, len(tokens)) if unigram else _scores(tokens, _merges(facts))
    values: dict[str, Any] = {f"{prefix}scores": scores, f"{prefix}token_type": types}
    if kind == "t5":
        values[f"{prefix}remove_extra_whitespaces"] = _trims_spaces(facts)
        if charsmap := _charsmap(facts):
            values[f"{prefix}precompiled_charsmap"] = charsmap
    return values


def unknown_of(facts: _Facts) -> int | None:
    """The id of the token for text without tokens."""
    model = facts["model"]
    if model["type"] == "Unigram":
        found = model.get("unk_id")
    else:
        text = model.get("unk_token")
        added = {token["content"]: token["id"] for token in facts["added_tokens"]}
        found = None if text is None else model["vocab"].get(text, added.get(text))
    return found if isinstance(found, int) else None


def adds_space(facts: _Facts) -> bool:
    """True if a space is put before a text, by the normalizer or by `Metaspace`."""
    steps = [step["type"] for step in _steps(facts["normalizer"], "normalizers")]
    return "Prepend" in steps or any(
        step["type"] == "Metaspace" and step.get("prepend_scheme") != "never"
        for step in _steps(facts["pre_tokenizer"], "pretokenizers")
    )


def _trims_spaces(facts: _Facts) -> bool:
    """True if runs of spaces become one."""
    inner = _steps(facts["normalizer"], "normalizers")
    runs = [step for step in inner if step.get("pattern") == {"Regex": " {2,}"}]
    split = [step["type"] for step in _steps(facts["pre_tokenizer"], "pretokenizers")]
    return bool(runs) or "WhitespaceSplit" in split


def _charsmap(facts: _Facts) -> bytes:
    for step in _steps(facts["normalizer"], "normalizers"):
        if step["type"] == "Precompiled":
            try:
                return base64.b64decode(step["precompiled_charsmap"])
            except (binascii.Error, TypeError):
                return b""
    return b""


def _steps(step: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those of a sequence one by one."""
    if step is None:
        return
    if step.get("type") == "Sequence":
        for each in step[inner]:
            yield from _steps(each, inner)
    else:
        yield step


def _merges(facts: _Facts) -> list[str]:
    found = facts["model"].get("merges", [])
    return [" ".join(merge) if isinstance(merge, list) else merge for merge in found]


def _own_scores(facts: _Facts, count: int) -> list[float]:
    """The scores of a unigram vocabulary for `count` tokens; added tokens have none."""
    known = [float(score) for _, score in facts["model"]["vocab"][:count]]
    return known + [_UNUSED_SCORE] * (count - len(known))


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Scores in the order of the merges; tokens that no merge makes come last."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(merges):
        rank.setdefault("".join(merge.split(" ", 1)), i)
    return [-float(rank.get(token, len(merges))) for token in tokens]
