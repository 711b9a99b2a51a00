"""Recognize how a tokenizer.json splits text before byte-level BPE: GGUF's name for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fewbit.tokenizer.splittings import GPT2, PUNCTUATION, SPLITTINGS, Splitting

_SAME = (
    ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
    ("'(?i:[sdmt]|ll|ve|re)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"),
    ("'(?:[sdmt]|ll|ve|re)", "'s|'t|'re|'ve|'m|'ll|'d"),
    ("?+", "?"),  # what follows never matches what a possessive quantifier has taken
    ("++", "+"),
    ("{1}", ""),
    (r"\s*[\r\n]|", r"\s*[\r\n]+|"),  # `\s*` takes the line ends but the last
)
"""Spellings in tokenizers made from tiktoken or by llama.cpp, and those in the table."""


def splitting_of(facts: Mapping[str, Any]) -> tuple[Splitting | None, bool]:
    """The splitting of a tokenizer.json, None without a name; True if it describes all of it.

    `facts` is the parsed tokenizer.json. A splitting differs from the tokenizer in details if it
    has no exact name: in normalizing, in taking whole words, or in single digits.
    """
    found = tuple(_canonical(pattern) for pattern in _patterns(facts["pre_tokenizer"]))
    wanted = (normal_form(facts), bool(facts["model"].get("ignore_merges")))
    alike = [s for s in WRITTEN if found in (_patterns_of(s), *_spellings_of(s))]
    for splitting in alike:
        if (splitting.normal_form, splitting.ignores_merges) == wanted:
            return splitting, found == _patterns_of(splitting)
    return (alike[0], False) if alike else (None, False)


def normal_form(facts: Mapping[str, Any]) -> bool | None:
    """Whether characters are composed first (NFC); None if they are normalized in another way."""
    steps = list(_normalizers(facts.get("normalizer")))
    return None if any(step != {"type": "NFC"} for step in steps) else bool(steps)


def has_byte_level(step: Mapping[str, Any] | None) -> bool:
    """Whether a pre-tokenizer spells text as bytes."""
    inner = (step or {}).get("pretokenizers", [])
    return (step or {}).get("type") == "ByteLevel" or any(map(has_byte_level, inner))


def _normalizers(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    match step:
        case None:
            return
        case {"type": "Sequence", "normalizers": list(steps)}:
            for inner in steps:
                yield from _normalizers(inner)
        case _:
            yield step


def _patterns(step: Mapping[str, Any] | None) -> Iterator[str]:
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
        case {"type": "Digits", "individual_digits": single}:
            yield r"\p{N}" if single else r"\p{N}+"
        case {"type": "Punctuation", "behavior": "Contiguous"}:
            yield PUNCTUATION
        case {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}:
            yield GPT2
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return
        case _:
            yield "unknown"


def _canonical(pattern: str) -> str:
    for spelling, same in _SAME:
        pattern = pattern.replace(spelling, same)
    return f"{pattern}+" if pattern.endswith(r"(?!\S)|\s") else pattern


def _patterns_of(splitting: Splitting) -> tuple[str, ...]:
    return tuple(map(_canonical, splitting.patterns))


def _spellings_of(splitting: Splitting) -> Iterator[tuple[str, ...]]:
    return (tuple(map(_canonical, patterns)) for patterns in splitting.spellings)


WRITTEN = tuple(s for s in SPLITTINGS if s.names[0] not in ("stablelm2", "bailingmoe"))
"""Splittings that a file is given; the others are the same to llama.cpp as one of these."""
