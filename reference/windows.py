"""Windows of a text for a strided perplexity: every token is scored once, with much before it.

The scheme is that of transformers' documentation, "Perplexity of fixed-length models".
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Tokens `start` to `stop` of a text; those from `first` on are scored."""

    start: int
    stop: int
    first: int


def strided(count: int, ctx: int, stride: int, bos: bool) -> list[Window]:
    """Return the windows of a text of `count` tokens, each `stride` behind the last, below `ctx`.

    A window has `ctx` tokens, with `bos` one of them is the begin token in front. The first scores
    every token that has one before it, later ones those that no window had yet.

    >>> [tuple(window) for window in strided(7, 4, 2, bos=False)]
    [(0, 4, 1), (2, 6, 4), (4, 7, 6)]
    >>> strided(3, 4, 2, bos=True)
    [Window(start=0, stop=3, first=0)]
    """
    width = ctx - 1 if bos else ctx
    found = [Window(0, min(width, count), 0 if bos else 1)]
    while found[-1].stop < count:
        start = found[-1].start + stride
        found.append(Window(start, min(start + width, count), found[-1].stop))
    return found
