"""Rules of the house: what the oracle and the core import, and complete ops and formats."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from fewbit.formats.table import FORMATS, find_format
from fewbit.plan.plan import OPS
from fewbit.run.gpu.ops import Compiler
from fewbit.run.gpu.source import INCLUDE
from fewbit.run.limits import KV_TYPES
from reference import ops, run
from reference.formats import BLOCKS, FLOAT_ROWS
from tests.rooms import Tree, python_tree, rust_tree

ROOT = Path(__file__).parent.parent
RUST = ROOT / "rust"
SHADERS = ROOT / "python" / "fewbit" / "run" / "gpu" / "shaders"
FORMATS_PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")


def imports(path: Path) -> set[str]:
    """The top-level modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


TREES = {"python": python_tree, "rust": rust_tree}


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest) -> Tree:
    return TREES[request.param]()


def test_no_file_imports_from_a_room_above_its_own(tree: Tree) -> None:
    assert tree.upward() == [], "imports run down: tests/rooms.py has the order of rooms"


def test_no_import_circle(tree: Tree) -> None:
    assert tree.circles() == []


def test_every_file_and_every_room_counts(tree: Tree) -> None:
    """A file in no room is an error, and so is a room without a file; the graph is not empty."""
    used = {tree.room(file) for file in tree.imports}
    assert used == set(range(len(tree.rooms)))
    assert sum(map(len, tree.imports.values())) > 200


@pytest.mark.parametrize("path", sorted((ROOT / "reference").glob("*.py")), ids=lambda p: p.name)
def test_the_oracle_needs_nothing(path: Path) -> None:
    assert imports(path) <= {*sys.stdlib_module_names, "reference"}
    assert len(path.read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", sorted(RUST.rglob("*.rs")), ids=lambda p: p.name)
def test_only_the_python_module_names_pyo3(path: Path) -> None:
    names_it = re.search(r"^(?!\s*//).*\bpyo3\b", path.read_text("utf-8"), re.MULTILINE)
    assert not names_it or path.parent == RUST / "py"


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_everywhere(name: str) -> None:
    word = re.compile(rf"\b{name}\b")
    assert hasattr(ops, name) or word.search(Path(run.__file__).read_text("utf-8"))
    variant = name.title().replace("_", "")
    assert re.search(
        rf"^    {variant}\b", (RUST / "exec" / "plan.rs").read_text("utf-8"), re.MULTILINE
    )
    assert name in Compiler.OPS
    shader = {"long_rope": "rope"}.get(name, name)  # the same rotation, by other angles
    assert f"fn {shader}(" in (SHADERS / f"{shader}.wgsl").read_text("utf-8")
    assert f"def test_{name}(" in "".join(
        path.read_text("utf-8") for path in (ROOT / "tests" / "differential").glob("*.py")
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_everywhere(name: str) -> None:
    assert name in {*BLOCKS, *FLOAT_ROWS, "F32"}  # F32 is what the oracle computes in
    assert f'"{name}"' in (RUST / "formats" / "table.rs").read_text("utf-8")
    row = rf"^\| {name} \|.*\| yes \| yes \| yes \| yes \|$"
    assert re.search(row, FORMATS_PAGE, re.MULTILINE)


def test_every_shader_is_of_use() -> None:
    """An op's or a family's by its name, named in Python, or included."""
    texts = {path.stem: path.read_text("utf-8") for path in SHADERS.glob("*.wgsl")}
    included = {name for text in texts.values() for name in INCLUDE.findall(text)}
    python = "".join(path.read_text("utf-8") for path in SHADERS.parent.glob("*.py"))
    families = {find_format(name).family for name in FORMATS} | {"affine"}
    named = {name for name in texts if re.search(rf'"{name}"', python)}
    named |= {f"kv_{type_}" for type_ in KV_TYPES}
    assert set(texts) <= {*OPS, *families, *included, *named}
    assert included - {"reduce"} <= set(texts)


def test_files_stay_short() -> None:
    long = [
        str(path)
        for folder in ("rust", "python", "tests", "benches", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".rs", ".wgsl")
        and len(path.read_text("utf-8").splitlines()) > 400
    ]
    assert long == []


ARCHITECTURES = [
    path
    for path in sorted((ROOT / "python" / "fewbit" / "models").glob("*.py"))
    if path.name not in ("__init__.py", "layers.py", "rope.py")  # the table, and what they share
]


@pytest.mark.parametrize("path", ARCHITECTURES, ids=lambda p: p.name)
def test_architectures_stay_short(path: Path) -> None:
    """A plan is read at a glance: no file above 80 lines, no function above 30."""
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 80
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert functions
    assert max((f.end_lineno or 0) - f.lineno + 1 for f in functions) <= 30
