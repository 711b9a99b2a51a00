"""The rules of reference/README.md: standard library only, short files, an example per function."""

import ast
import sys
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "reference"
FILES = sorted(REFERENCE.glob("*.py"))


def imported(tree: ast.Module) -> set[str]:
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {n.module or "." for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_the_standard_library(path):
    assert imported(ast.parse(path.read_text())) <= sys.stdlib_module_names | {"reference"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 200


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_public_functions_have_an_example(path):
    """Each has a doctest; the example of a function may also show its inverse."""
    without = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if ">>>" not in (doc := ast.get_docstring(node) or "") and "inverse of" not in doc
    ]
    assert without == []


def test_the_reading_order_names_every_file():
    text = (REFERENCE / "README.md").read_text()
    missing = [path.name for path in FILES if path.stem != "__init__" and path.name not in text]
    assert missing == []
