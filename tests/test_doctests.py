"""The examples in fewbit's own docstrings, run against what is installed."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fewbit

MODULES = [m.name for m in pkgutil.walk_packages(fewbit.__path__, "fewbit.")]
NEEDS = {"fewbit.measure.harness_model": "lm_eval"}
"""Modules that only load where another package is installed."""


@pytest.mark.parametrize("name", ["fewbit", *(m for m in MODULES if not m.endswith("__main__"))])
def test_examples(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="pip install 'fewbit[eval]'")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
