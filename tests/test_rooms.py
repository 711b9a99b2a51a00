"""tests/rooms.py finds every import, names each one that runs upwards, and every circle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import rooms
from tests.rooms import python_tree, rust_tree


def test_an_upward_import_is_named_with_both_files_and_the_order() -> None:
    tree = python_tree()
    broken = {**tree.imports, "formats/table.py": {"api.py": 7}}
    (text,) = replace(tree, imports=broken).upward()
    assert text.startswith("fewbit/formats/table.py:7 imports fewbit/api.py")
    assert (
        "the order is __main__.py __init__.py > cli/ > plots/ > sweep/ > reports/ > api.py" in text
    )
    (circle,) = (c for c in replace(tree, imports=broken).circles() if "api.py" in c)
    assert "formats/table.py" in circle


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_python_imports_are_found_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    files = {
        "a.py": "def f():\n    from fewbit.b import x\n",
        "b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fewbit.c.d\n",
        "c/d.py": "from fewbit import a, _core\n",
        "__init__.py": "",
    }
    write(tmp_path / "python" / "fewbit", files)
    graph = python_tree().imports
    assert graph["a.py"] == {"b.py": 2}
    assert graph["b.py"] == {"c/d.py": 3}
    assert graph["c/d.py"] == {"a.py": 1}
    assert [sorted(c) for c in python_tree().circles()] == [["a.py", "b.py", "c/d.py"]]


def test_rust_paths_are_found_in_declarations_and_in_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    files = {
        "lib.rs": "mod a; mod b;",
        "a/mod.rs": "mod c;\npub use c::Deep;\n// use crate::b::Nothing;\n",
        "a/c.rs": "pub struct Deep;\nfn f() { crate::b::g::<u8>() }\n",
        "b.rs": "use crate::{a::{Deep as D, other}, b::self};\n"
        "#[cfg(test)]\nmod tests { use crate::a::c; }\n",
    }
    write(tmp_path / "rust", files)
    graph = rust_tree().imports
    assert graph["a/c.rs"] == {"b.rs": 2}
    assert graph["a/mod.rs"] == {"a/c.rs": 2}
    assert graph["b.rs"] == {"a/c.rs": 1, "a/mod.rs": 1}, "a re-export means where it comes from"
    assert graph["lib.rs"] == {}
