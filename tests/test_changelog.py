"""CHANGELOG.md names only import paths that exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

CHANGELOG = (Path(__file__).parent.parent / "CHANGELOG.md").read_text("utf-8")
CURRENT = {
    name
    for row in re.findall(r"^ *\| `fewbit.*\| (.*) \|$", CHANGELOG, re.MULTILINE)
    for name in re.findall(r"`(fewbit\.[\w.]+)`", row)
}


def test_there_are_names() -> None:
    assert "fewbit.Model.generate" in CURRENT


@pytest.mark.parametrize("name", sorted(CURRENT))
def test_each_current_path_can_be_imported(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None
