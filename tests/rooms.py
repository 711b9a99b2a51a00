"""Rooms: which file imports which, in Python and in Rust, and the order that imports follow.

``python tests/rooms.py`` prints the rooms, upward imports and import circles of both languages.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
Graph = Mapping[str, Mapping[str, int]]
"""For each file the files that it imports, with the line of one import; paths from the root."""

PYTHON_ROOMS = (
    ("__main__.py", "__init__.py"), ("cli/",), ("plots/",), ("sweep/",), ("reports/",),
    ("api.py", "api_compare.py"), ("improve/",), ("measure/",), ("generation/",),
    ("run/",), ("convert/",), ("tokenizer/",), ("files/",), ("models/",),
    ("recipes/",), ("plan/",), ("formats/",), ("floats/",),
    ("errors.py", "callbacks.py", "demo.py", "tables.py", "moved.py"),
)  # fmt: skip
"""From top to bottom: a file imports from its own room and those below."""

RUST_ROOMS = (
    ("lib.rs",), ("py/",), ("backward/",), ("exec/",), ("quantize/",), ("kernels/peak.rs",),
    ("kernels/mod.rs",), ("kernels/entry/",), ("kernels/table.rs",), ("kernels/product/",),
    ("kernels/unpack/",), ("kernels/outlined.rs",), ("kernels/ops/",), ("kernels/data.rs",),
    ("kernels/isa/",), ("kernels/layout/",), ("kernels/shape.rs",), ("formats/",),
    ("sample/",), ("measure.rs", "read_rate.rs"), ("threads.rs",),
    ("floats.rs", "error.rs", "memory.rs"),
)  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """The files of one language below `folder`, their rooms from top to bottom, their imports."""

    folder: Path
    rooms: Sequence[Sequence[str]]
    imports: Graph

    def room(self, file: str) -> int:
        """The index of a file's room.

        Raises:
            ValueError: the file is in no room.

        """
        found = [i for i, names in enumerate(self.rooms) if file.startswith(tuple(names))]
        if not found:
            raise ValueError(f"{self.folder.name}/{file} is in no room: name it in tests/rooms.py")
        return found[0]

    def upward(self) -> list[str]:
        """Each import from a room above the importing file's own."""
        order = " > ".join(" ".join(names) for names in self.rooms)
        return [
            f"{self.folder.name}/{file}:{line} imports {self.folder.name}/{other}, which is in a "
            f"room above it; the order is {order}"
            for file, others in self.imports.items()
            for other, line in others.items()
            if self.room(other) < self.room(file)
        ]

    def circles(self) -> list[list[str]]:
        """Groups of files that import each other in a circle (Tarjan's strong components)."""
        return [sorted(group) for group in _components(self.imports) if len(group) > 1]


def _components(graph: Graph) -> Iterator[list[str]]:
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph.get(node, {}):
            if other not in order:
                yield from visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            at = stack.index(node)
            yield stack[at:]
            del stack[at:]

    for node in graph:
        if node not in order:
            yield from visit(node)


def python_tree() -> Tree:
    """The Python package; imports count wherever they stand, also under `TYPE_CHECKING`."""
    folder = ROOT / "python" / "fewbit"
    files = {
        ".".join(("fewbit", *path.relative_to(folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*.py"))
    }
    graph = {
        file: dict(_python_imports(folder / file, files) - {(file, 0)}) for file in files.values()
    }
    return Tree(folder, PYTHON_ROOMS, {f: {o: n for o, n in g.items() if o != f}
                                       for f, g in graph.items()})  # fmt: skip


def _python_imports(path: Path, files: Mapping[str, str]) -> set[tuple[str, int]]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports by a relative name"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if n in files else str(node.module) for n in whole if n != "fewbit._core"]
        found |= {(files[n], node.lineno) for n in names if n in files}  # type: ignore[attr-defined]
    return found


def rust_tree() -> Tree:
    """The crate: `use` declarations and paths in code; a file's own tests do not count."""
    folder = ROOT / "rust"
    crate = _Crate(folder)
    return Tree(folder, RUST_ROOMS, {file: crate.imports(file) for file in crate.files.values()})


class _Crate:
    """Module paths and files of a crate, and what each file names."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[tuple[str, ...], str] = {}
        self.texts: dict[str, str] = {}
        for path in sorted(folder.rglob("*.rs")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = parts[:-1] if parts[-1] in ("mod", "lib") else parts
            file = path.relative_to(folder).as_posix()
            self.files[module] = file
            self.texts[file] = _code(path.read_text("utf-8"))
        self.modules = {file: module for module, file in self.files.items()}

    def imports(self, file: str) -> dict[str, int]:
        """The files that `file` names, with a line."""
        found: dict[str, int] = {}
        for path, line in self._paths(file):
            other = self._file_of(path)
            if other is not None and other != file:
                found.setdefault(other, line)
        return found

    def _paths(self, file: str) -> Iterator[tuple[tuple[str, ...], int]]:
        """Absolute paths in a file: its `use` trees taken apart, and paths in expressions."""
        text, module = self.texts[file], self.modules[file]
        for match in re.finditer(r"\buse\s+([^;]+);", text):
            line = text.count("\n", 0, match.start()) + 1
            for path in _leaves(match[1]):
                yield from ((p, line) for p in self._absolute(path, module))
        bare = re.sub(r"\buse\s+[^;]+;", lambda m: "\n" * m[0].count("\n"), text)
        for match in re.finditer(r"(?<![\w:])[a-z_]\w*(?:::\w+)+", bare):
            line = bare.count("\n", 0, match.start()) + 1
            yield from ((p, line) for p in self._absolute(match[0].split("::"), module))

    def _absolute(self, path: Sequence[str], module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        first, rest = path[0], tuple(path[1:])
        if first == "crate":
            yield rest
        elif first == "super":
            yield from self._absolute(("self", *rest), module[:-1])
        elif first == "self" and rest[:1] == ("super",):
            yield from self._absolute(rest, module)
        elif first == "self":
            yield (*module, *rest)
        elif (*module, first) in self.files:
            yield (*module, *path)

    def _file_of(self, path: tuple[str, ...]) -> str | None:
        """The file that defines the last name of a path, re-exports followed."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.files:
                break
        module, rest = path[:length], path[length:]
        if rest:
            for match in re.finditer(r"\bpub(?:\([^)]*\))?\s+use\s+([^;]+);",
                                     self.texts[self.files[module]]):  # fmt: skip
                for leaf in _leaves(match[1]):
                    if leaf[-1] == rest[0]:
                        for found in self._absolute(leaf, module):
                            if found != path:
                                return self._file_of(found)
        return self.files[module] if module or not rest else None


def _leaves(tree: str) -> Iterator[list[str]]:
    """The paths of a `use` tree: `a::{b, c::d as e}` is a::b and a::c::d."""
    tree = re.sub(r"\s+as\s+\w+", "", tree).strip()
    head, brace, inside = tree.partition("{")
    if not brace:
        yield [part for part in head.strip().split("::") if part not in ("", "*")]
        return
    prefix = [part for part in head.strip().split("::") if part]
    depth, item = 0, ""
    for char in inside.rstrip()[:-1] + ",":
        depth += (char == "{") - (char == "}")
        if char == "," and not depth:
            if item.strip():
                yield from (prefix + ([] if leaf == ["self"] else leaf) for leaf in _leaves(item))
            item = ""
        else:
            item += char


def _code(text: str) -> str:
    """Rust without comments, strings and the tests at its end, line for line."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: '"' + "\n" * m[0].count("\n") + '"', text)
    return re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", text)[0].replace("$crate", "crate")


def main() -> int:
    """Print the rooms, upward imports and circles of both languages."""
    wrong = 0
    for tree in (python_tree(), rust_tree()):
        count = sum(map(len, tree.imports.values()))
        print(f"{tree.folder.name}: {len(tree.imports)} files, {count} imports")
        for names in tree.rooms:
            print(f"  {' '.join(names)}")
        upward, circles = tree.upward(), tree.circles()
        print(f"  upward imports: {len(upward)}, circles: {len(circles)}")
        for text in [*upward, *(" <-> ".join(circle) for circle in circles)]:
            print(f"  {text}")
        wrong += len(upward) + len(circles)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
