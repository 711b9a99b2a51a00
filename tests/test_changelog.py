"""CHANGELOG.md gives every moved module, under an import path that exists."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from fewbit.moved import MOVED

CHANGELOG = (Path(__file__).parent.parent / "CHANGELOG.md").read_text("utf-8")
ROWS = re.findall(r"^ *\| (`fewbit.*?) \| (.*) \|$", CHANGELOG, re.MULTILINE)


def names(cell: str) -> list[str]:
    return re.findall(r"`(fewbit\.[\w.]+)`", cell)


def test_every_moved_module_is_listed() -> None:
    listed = {names(before)[0]: names(now)[0] for before, now in ROWS}
    for before, now in MOVED.items():
        assert listed[f"fewbit.{before}"] == f"fewbit.{now}"


@pytest.mark.parametrize("name", sorted({name for _, now in ROWS for name in names(now)}))
def test_each_current_path_can_be_imported(name: str) -> None:
    assert pkgutil.resolve_name(name) is not None
