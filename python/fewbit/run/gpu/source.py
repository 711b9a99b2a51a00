"""Builds the WGSL text of a shader module from its files and those that they include."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

INCLUDE = re.compile(r"^// include (\w+)$", re.MULTILINE)


@cache
def shader(name: str) -> str:
    """The text of one .wgsl file."""
    return (resources.files("fewbit.run.gpu") / "shaders" / f"{name}.wgsl").read_text("utf-8")


def source(files: Sequence[str], stands_for: Mapping[str, str]) -> str:
    """These files and all that they include, each once, after the files that it includes.

    WGSL needs no order, but naga 29 aborts if an array comes before the override that gives its
    length. A line ``// include NAME`` includes NAME.wgsl, or the file that NAME `stands_for`.
    """
    begun: set[str] = set()
    texts: list[str] = []

    def add(name: str) -> None:
        name = stands_for.get(name, name)
        if name not in begun:
            begun.add(name)
            for included in INCLUDE.findall(shader(name)):
                add(included)
            texts.append(shader(name))

    for name in files:
        add(name)
    return "\n".join(texts)
