"""The recipes of CONTRIBUTING.md name files, names and code that exist."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CODE = re.findall(r'^ *```\w+ title="([^"]+)"\n(.*?)^ *```$', TEXT, re.MULTILINE | re.DOTALL)
NAMED = re.findall(r"`(\w+)`\s+in\s+`([^`]+)`", TEXT)
TOPS = ("python", "rust", "reference", "tests", "docs", "benches", ".ci")
PATHS = sorted(
    name
    for name in set(re.findall(r"`([\w./-]+)`", TEXT))
    if name.split("/")[0] in TOPS or name.endswith((".md", ".toml"))
)


def stands_in(shown: str, text: str) -> bool:
    """Whether the lines of `shown` follow one another in `text`, whatever their indentation."""
    lines = [line.strip() for line in textwrap.dedent(shown).strip().splitlines()]
    found = [line.strip() for line in text.splitlines()]
    return any(found[at : at + len(lines)] == lines for at in range(len(found)))


@pytest.mark.parametrize(("path", "shown"), CODE, ids=[path for path, _ in CODE])
def test_code_shown_is_the_code(path: str, shown: str) -> None:
    assert stands_in(shown, (ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize(("name", "path"), NAMED, ids=[f"{name}-{path}" for name, path in NAMED])
def test_a_name_is_in_its_file(name: str, path: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_recipe_shows_code_and_ends_with_a_proof() -> None:
    recipes = re.findall(r"^## Add (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert [title for title, _ in recipes] == [
        "an architecture", "an op", "a format", "an instruction set", "a command",
    ]  # fmt: skip
    for title, text in recipes:
        assert "title=" in text, title
        assert "**The proof.**" in text, title


def test_a_changed_line_is_noticed() -> None:
    assert stands_in("a\nb", "x\n  a\n  b\ny")
    assert not stands_in("a\nc", "x\n  a\n  b\ny")
