"""Old module paths still import and name their successors."""

from __future__ import annotations

import importlib
import sys
from importlib import resources

import pytest

import fewbit
from fewbit.measure.results import Sample
from fewbit.moved import FUNCTIONS, MOVED
from fewbit.reports.write import plain


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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_modules_that_are_functions_now_name_their_successor(name: str) -> None:
    said = f"fewbit.{name} is a function now; its module is fewbit.{FUNCTIONS[name]}"
    with pytest.raises(ModuleNotFoundError, match=said):
        importlib.import_module(f"fewbit.{name}")
    assert callable(getattr(fewbit, name))
    assert callable(getattr(importlib.import_module(f"fewbit.{FUNCTIONS[name]}"), name))


def test_a_renamed_attribute_gives_its_successor() -> None:
    result = fewbit.Perplexity(None, None, "f32", Sample(8, 2, 6, 1.0))  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="`span` of Perplexity is now called `sample`"):
        assert result.span is result.sample
    assert "span" not in plain(result)


def test_a_renamed_method_gives_its_successor() -> None:
    tokenizer = fewbit.load("demo", "cpu").tokenizer
    with pytest.warns(DeprecationWarning, match="`stream` of Tokenizer is now called `decoder`"):
        pieces = tokenizer.stream()
    assert pieces.push(tokenizer.encode("The")[0])


def test_names_of_modules_that_are_packages_now() -> None:
    from fewbit.cli import run
    from fewbit.formats import FORMATS, Format, find_format
    from fewbit.plan import OPS, Plan
    from fewbit.tokenizer import Tokenizer, from_folder, from_gguf

    assert find_format("Q4_0") is FORMATS["Q4_0"]
    assert isinstance(FORMATS["Q4_0"], Format)
    assert Plan is fewbit.Plan
    assert Tokenizer is fewbit.Tokenizer
    assert "embed" in OPS
    assert all(map(callable, (run, from_folder, from_gguf)))
