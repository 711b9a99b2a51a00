"""Read the letter of an answer out of the text that a model wrote.

The last explicit statement decides ("Answer: C", "the correct answer is (B)", "(D) is correct",
``\\boxed{A}``, a line that is a letter). One that offers two letters, or a letter that was not
among the choices, is no answer; nor is a letter that only occurs.
"""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_STYLE = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf)\s*\{([^{}]*)\}")
_MARKUP = re.compile(r"[*_`$#]|\\[()\[\]]")
_QUOTED = re.compile(r"""["'“”‘’]\s*(\(?[A-Za-z]\)?)\s*["'“”‘’]""")
_WIDE = str.maketrans("：（）［］．，。", ":()[].,.")
_LETTER = r"(?:[(\[{]\s*([A-Za-z])\s*[)\]}]|([A-Za-z]))(?![A-Za-z0-9'’])"
_SURELY = (
    r"(?:(?:therefore|thus|hence|clearly|definitely|indeed|simply|probably|likely|most likely|"
    r"either|option|choice|letter)\b[\s,:]*)*"
)
_CUE = re.compile(
    r"(?:\banswer|答案|\b(?:correct|right|best|final)\s+(?:option|choice|letter))"
    r"(?:\s+(?:choice|option|letter))?(?:\s+to\s+(?:the|this|your)\s+question)?"
    r"\s*(?:\b(?:is|was|must be|should be|would be)\b|[:=–—-]|是|为)\s*:?\s*" + _SURELY + _LETTER,
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\bI(?:'ll|’ll| will| would|'d|’d)?\s+(?:choose|pick|select|go with|answer(?: with)?)\s+"
    + _SURELY
    + _LETTER,
    re.IGNORECASE,
)
_IS_RIGHT = re.compile(
    r"(?<![A-Za-z0-9'’])" + _LETTER + r"\s+is\s+(?:therefore\s+|thus\s+|clearly\s+)?"
    r"(?:the\s+)?(?:correct|right|best)\b"
)
_ALONE = re.compile(r"^[ \t]*" + _LETTER + r"[ \t]*[.):]?[ \t]*$", re.MULTILINE)
_FIRST = re.compile(
    r"(?:[(\[]([A-Z])[)\]]|([A-Z])[.):])(?=\s|$)"
    r"(?!\s+(?:is|was|are|isn['’]t|cannot|can|does|may|might|could|seems|or|and)\b)"
)
_ANOTHER = re.compile(
    r"\s*(?:,\s*)?(?:/|&|,|\bor\b|\band\b)\s*(?:or\s+|and\s+)?"
    r"[(\[]?([A-Z])(?![A-Za-z0-9'’])(?!\)?\s+(?:is|was|are|cannot|does)\b)"
)
_CLOSED = re.compile(r"\s*(?:[.,;:!?)\]}]|$)", re.MULTILINE)
_GOES_ON = re.compile(
    r"\s+(?:because|since|as|for|which|and|is|was|but|due|given|so|with|by|if)\b|\s*[^\sA-Za-z]|\s*$",
    re.MULTILINE,
)


def read_answer(text: str, letters: str = "ABCD") -> str | None:
    """The letter that `text` gives as its answer, None if it gives none of `letters`.

    >>> read_answer("I first thought (A). The correct answer is (C).")
    'C'
    >>> read_answer("It could be (A) or (B).")
    """
    plain = _plain(text)
    found = [
        (match.start(), _letter(match, plain))
        for pattern in (_CUE, _CHOSEN, _IS_RIGHT)
        for match in pattern.finditer(plain)
        if _is_letter(match, plain)
    ]
    alone = [match for match in _ALONE.finditer(plain) if _is_letter(match, plain)]
    if len({_named(match) for match in alone}) == 1:
        found.append((alone[-1].start(), _named(alone[-1])))
    answer = max(found)[1] if found else _first_line(plain)
    return answer if answer and answer in letters else None


def _plain(text: str) -> str:
    """The text without thoughts and markup; boxes and tags become statements."""
    text = _THOUGHT.sub("", text).translate(_WIDE)
    text = _TAG.sub(r"\nanswer: \1\n", text)
    text = _BOX.sub(lambda box: " answer: " + _STYLE.sub(r"\1", box[1]) + " ", text)
    text = _QUOTED.sub(r"\1", text)
    return _MARKUP.sub("", _STYLE.sub(r"\1", text)).strip()


def _named(match: re.Match[str]) -> str:
    return (match[1] or match[2]).upper()


def _letter(match: re.Match[str], text: str) -> str:
    """The letter of a statement, "" if it offers a further one."""
    return "" if _ANOTHER.match(text, match.end()) else _named(match)


def _is_letter(match: re.Match[str], text: str) -> bool:
    """Whether what matched is a choice: not an article, a pronoun or a word's beginning."""
    bare = match[2]
    if bare is None:
        return True
    if bare.islower():
        return _CLOSED.match(text, match.end()) is not None
    return bare not in "AI" or match.re is _IS_RIGHT or bool(_GOES_ON.match(text, match.end()))


def _first_line(text: str) -> str:
    """The letter with a mark that the text begins with, if no other line begins so."""
    starts = [found for line in text.splitlines() if (found := _FIRST.match(line.strip()))]
    named = {_named(match) for match in starts}
    begins = _FIRST.match(text)
    return _named(begins) if begins and len(named) == 1 else ""
