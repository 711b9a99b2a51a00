"""The examples in fewbit's own docstrings, run against what is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fewbit

MODULES = [m.name for m in pkgutil.walk_packages(fewbit.__path__, "fewbit.")]


@pytest.mark.parametrize("name", ["fewbit", *(m for m in MODULES if not m.endswith("__main__"))])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
