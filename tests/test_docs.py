"""The pages of docs/ say what the program does: sessions run, tables and links are complete."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fewbit
from fewbit.cli import main as cli
from fewbit.formats.table import FORMATS, find_format
from fewbit.models import ARCHITECTURES
from fewbit.plan.plan import OPS
from fewbit.recipes import mixtures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)?(?:#([^)]+))?\)")


def module(name: str) -> ModuleType:
    """A program of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


generate, sessions = module("generate"), module("sessions")


@pytest.mark.parametrize("path", [p for p in PAGES if sessions.BLOCK.search(p.read_text("utf-8"))],
                         ids=lambda path: path.name)  # fmt: skip
def test_sessions_print_what_pages_show(path: Path) -> None:
    """`python docs/sessions.py PAGE` writes the outputs again."""
    page = path.read_text("utf-8")
    assert sessions.masked(sessions.rewritten(page)) == sessions.masked(page)


def test_only_speeds_are_masked() -> None:
    page = "```console\n$ fewbit x\nacts    PPL  tokens/s\nint8  36.96     4,107\n```"
    assert sessions.masked(page) == sessions.masked(page.replace("4,107", "12"))
    assert sessions.masked(page) != sessions.masked(page.replace("36.96", "36.97"))


def test_limits_of_a_bench_are_masked_too() -> None:
    page = (
        "```console\n$ fewbit bench\ntest  limit   tokens/s\npp8  memory   1.0\n\nmemory: near\n```"
    )
    other = page.replace("memory: near\n", "not memory: far\ncache: fits\n")
    assert sessions.masked(page) == sessions.masked(other.replace("pp8  memory", "pp8  overhead"))
    assert sessions.masked(page) != sessions.masked(page.replace("pp8", "tg8"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text("utf-8")):
        if target.startswith("http"):
            continue
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_files_that_pages_name_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:python|rust|reference|tests|docs|benches|\.ci)/[\w./*-]*)`",
                           path.read_text("utf-8")))  # fmt: skip
    assert [name for name in sorted(named) if not list(ROOT.glob(name.rstrip("/")))] == []


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert set(re.findall(r"(\w+\.md)$", menu, re.MULTILINE)) == {path.name for path in PAGES}


def test_every_passage_has_a_place() -> None:
    named = [name for path in PAGES for name in generate.MARKER.findall(path.read_text("utf-8"))]
    assert sorted(named) == sorted(generate.PASSAGES)


def test_an_unknown_passage_is_refused() -> None:
    with pytest.raises(KeyError):
        generate.fill("<!-- generated: nothing -->")


def test_links_out_of_the_pages_become_links_to_the_source() -> None:
    found = generate.on_page_markdown("[a](../CONTRIBUTING.md) [b](map.md)")
    assert found == f"[a]({generate.SOURCE}CONTRIBUTING.md) [b](map.md)"


def test_every_format_is_explained() -> None:
    text = generate.formats()
    assert [line[4:] for line in text.splitlines() if line.startswith("### ")] == [
        *FORMATS, *generate.AFFINE,
    ]  # fmt: skip
    assert "144 bytes, 4.5 bits per weight" in text
    assert "value = (d * scale) * code - (dmin * minimum)" in text


def test_the_table_of_formats_has_their_bits() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \|", (DOCS / "formats.md").read_text("utf-8"), re.M)
    assert {name: float(bits) for name, bits in rows} == {
        name: find_format(name).bits_per_weight for name in FORMATS
    }


def test_every_mixture_is_listed() -> None:
    text = (DOCS / "formats.md").read_text("utf-8")
    (listed,) = re.findall(r"^Mixtures: (.*?), tensor for tensor", text, re.MULTILINE | re.DOTALL)
    assert {*listed.split(), "F32"} == set(mixtures.FILE_TYPES)


def test_every_architecture_is_listed() -> None:
    text = (DOCS / "architectures.md").read_text("utf-8")
    assert set(re.findall(r"^\| .* \| `([\w-]+)` \| .* \|$", text, re.MULTILINE)) == set(
        ARCHITECTURES
    )


def test_every_op_is_listed() -> None:
    text = generate.ops()
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == list(OPS)
    assert "arXiv 2104.09864" in text


def test_every_command_and_option_is_listed() -> None:
    text = generate.commands()
    names = [c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback]
    assert re.findall(r"^## fewbit (\S+)$", text, re.MULTILINE) == names
    assert "| `--max-tokens` `-n` | N | `256` |" in text
    assert "fewbit quantize MODEL [OUTPUT] [OPTIONS]" in text


def test_every_public_name_is_documented() -> None:
    listed = re.findall(r"^::: fewbit\.(\w+)$", generate.api(), re.MULTILINE)
    assert sorted(listed) == sorted(n for n in fewbit.__all__ if not n.startswith("__"))


def test_the_map_has_every_file() -> None:
    text = generate.files()
    for top, pattern in (("rust", "*.rs"), ("python", "*.py"), ("reference", "*.py")):
        for path in (ROOT / top).rglob(pattern):
            assert path in generate.mapped()
            assert f"### {path.parent.relative_to(ROOT).as_posix()}/" in text


@pytest.mark.parametrize(
    "path", generate.mapped(), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_a_file_says_what_it_is(path: Path) -> None:
    assert len(generate.first_sentence(path)) >= 5


def test_examples_are_shown_whole() -> None:
    text = generate.examples()
    for path in (DOCS / "examples").glob("*.py"):
        assert path.read_text("utf-8") in text
