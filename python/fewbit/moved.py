"""Old module paths and attributes: each still works, with a warning that names its successor."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "calibrate": "measure.collect",
    "chat": "generation.conversation",
    "chat_template": "tokenizer.template",
    "checkpoint": "files.checkpoint",
    "config": "plan.config",
    "evaluate": "measure.evaluate",
    "generate": "generation.text",
    "gpu": "run.gpu",
    "imatrix": "files.importance",
    "inspect_file": "reports.contents",
    "io": "files",
    "layouts": "formats.layouts",
    "measures": "measure.statistics",
    "mixtures": "recipes.mixtures",
    "plan_listing": "reports.plan_listing",
    "predictions": "run.predictions",
    "reasoning": "generation.reasoning",
    "report": "reports.write",
    "sampling": "run.sampling",
    "sizes": "plan.sizes",
    "stream": "convert.encode",
    "tensors": "formats.tensors",
    "tokenizer_gguf": "tokenizer.gguf_vocabulary",
    "tokenizer_metadata": "tokenizer.gguf_metadata",
}
"""Modules of version 0.1 under `fewbit`, and where they are now. `bench` and `compare` are
functions now, `formats`, `plan`, `recipes`, `tokenizer` packages; CHANGELOG.md has their parts."""


FUNCTIONS = {"bench": "measure.speed", "compare": "measure.comparison"}
"""Modules of version 0.1 whose names are functions now: one name cannot be both."""


class Renamed:
    """A former attribute, which gives the value of its successor with a warning."""

    def __init__(self, successor: str) -> None:
        self._successor = successor

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        text = f"`{self._name}` of {owner.__name__} is now called `{self._successor}`"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return getattr(instance, self._successor)


class _Alias(Loader):
    """Gives the successor itself, so that both names mean one module."""

    def __init__(self, successor: str) -> None:
        self._successor = successor

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The successor."""
        module = importlib.import_module(self._successor)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the successor its own spec back; its code has run before."""
        module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds the modules of `MOVED` and what lies in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old name, None for every other.

        Raises:
            ModuleNotFoundError: the old name is a function now.

        """
        package, _, rest = fullname.partition(".")
        first, _, inside = rest.partition(".")
        if package == "fewbit" and first in FUNCTIONS:
            raise ModuleNotFoundError(
                f"fewbit.{first} is a function now; its module is fewbit.{FUNCTIONS[first]}",
                name=fullname,
            )
        if package != "fewbit" or first not in MOVED:
            return None
        successor = f"fewbit.{MOVED[first]}" + (f".{inside}" if inside else "")
        warnings.warn(f"{fullname} has moved to {successor}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, _Alias(successor))


def install() -> None:
    """Let old names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # else the path of a successor gives a second copy
