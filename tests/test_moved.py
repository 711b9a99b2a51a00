"""Old module paths still import and name their successors."""

from __future__ import annotations

import importlib
import sys
from importlib import resources

import pytest

import fewbit
from fewbit.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_an_old_path_is_its_successor(name: str) -> None:
    successor = importlib.import_module(f"fewbit.{MOVED[name]}")
    sys.modules.pop(f"fewbit.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"fewbit.{name} has moved to fewbit.{MOVED[name]}"):
        found = importlib.import_module(f"fewbit.{name}")
    assert found is successor
    assert successor.__spec__ is not None
    assert successor.__spec__.name == f"fewbit.{MOVED[name]}"
    assert name not in fewbit.__all__, "a module would shadow a public name"


def test_what_lies_in_an_old_package_is_found_too() -> None:
    with pytest.warns(DeprecationWarning, match="fewbit.io.gguf has moved to fewbit.files.gguf"):
        from fewbit.io.gguf import read_gguf  # type: ignore[import-not-found]
    from fewbit.files import gguf

    assert read_gguf is gguf.read_gguf
    assert (resources.files("fewbit.run.gpu") / "shaders").is_dir()


def test_other_names_are_missing_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"fewbit\.nothing"):
        importlib.import_module("fewbit.nothing")
