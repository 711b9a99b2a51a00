"""The text of a module of WGSL: its files and those that they include."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

INCLUDE = re.compile(r"^// include (\w+)$", re.MULTILINE)


@cache
def shader(name: str) -> str:
    """The text of one .wgsl file."""
    return (resources.files("fewbit.gpu") / "shaders" / f"{name}.wgsl").read_text("utf-8")


def source(files: Sequence[str], stands_for: Mapping[str, str]) -> str:
    """These files and all that they include, none twice; their order says nothing in WGSL.

    A line ``// include NAME`` of a file asks for NAME.wgsl, or for what NAME `stands_for`.
    """
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        name = stands_for.get(name, name)
        if name not in texts:
            texts[name] = shader(name)
            for included in INCLUDE.findall(texts[name]):
                add(included)

    for name in files:
        add(name)
    return "\n".join(texts.values())
