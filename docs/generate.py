"""Fills the generated passages of these pages, from the code that they describe.

A line `<!-- generated: NAME -->` in a page stands for what the function NAME of `PASSAGES` returns.
MkDocs calls `on_page_markdown` for each page while it builds the site, so no passage can be stale;
`python docs/generate.py NAME` prints one passage without MkDocs. Needs fewbit installed.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main

import fewbit
from fewbit.cli import main as cli
from fewbit.plan.plan import OPS, Plan

ROOT = Path(__file__).parents[1]
SOURCE = "https://github.com/fewbit/fewbit/blob/main/"
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
OUTSIDE = re.compile(r"\]\(\.\./([^)]+)\)")
"""A link from a page to a file of the repository that is not in docs/."""
PEERS = {"llama.cpp", "ik_llama.cpp"}
AFFINE = ("sym4-g32", "asym4-g32")
NAMES = {"str": "text", "int": "number", "int range": "number", "float": "number"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' hook: the page with its passages filled and its links out of docs/ made absolute."""
    return OUTSIDE.sub(rf"]({SOURCE}\1)", fill(markdown))


def fill(markdown: str) -> str:
    """The page with each marker replaced; raises KeyError for a passage that nobody generates."""
    return MARKER.sub(lambda marker: PASSAGES[marker[1]](), markdown)


def formats() -> str:
    """One section per format: size, formula, and where each number of a block lies."""
    return "\n".join(_format(name) for name in (*fewbit.FORMATS, *AFFINE))


def _format(name: str) -> str:
    e = _json("formats", name)
    lines = [
        f"### {name}\n",
        f"{e['block']} {'elements' if e['block'] > 1 else 'element'} in {e['bytes']} bytes, "
        f"{e['bits_per_weight']:.6g} bits per weight.\n",
        f"`{e['formula']}`\n",
    ]
    if e["table"]:
        lines.append(f"T = {', '.join(map(str, e['table']))}\n")
    rows = [
        [f"{f['start']} to {f['stop'] - 1}" if f["stop"] - f["start"] > 1 else str(f["start"]),
         f["name"], f["text"]]
        for f in e["fields"]
    ]  # fmt: skip
    return "\n".join([*lines, table(["bytes", "field", "bits"], rows)])


def ops() -> str:
    """Every op of a plan, its formula, and the paper that names it."""
    rows = []
    for name, formula in OPS.items():
        paper = re.search(r"arXiv \d+\.\d+", inspect.getdoc(getattr(Plan, name)) or "")
        number = paper[0].removeprefix("arXiv ") if paper else ""
        source = f"[arXiv {number}](https://arxiv.org/abs/{number})" if number else ""
        rows.append([f"`{name}`", f"`` {formula} ``", source])
    return table(["op", "result", "source"], rows)


def commands() -> str:
    """One section per subcommand: its help, arguments and options, as typer has them."""
    app = typer.main.get_command(cli.app)
    return "\n".join(_command(name, found) for name, found in app.commands.items())  # type: ignore[attr-defined]


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join(["fewbit", name, *map(_usage, arguments), "[OPTIONS]"])
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or ""))
    lines = [f"## fewbit {name}\n", f"{text}\n", f"    {usage}\n"]
    if arguments:
        rows = [[f"`{_usage(a)}`", a.help or ""] for a in arguments]
        lines.append(table(["argument", "meaning"], rows))
    rows = [[_flags(o), _kind(o), _default(o), o.help or ""] for o in options]
    lines.append(table(["option", "value", "default", "meaning"], rows))
    return "\n".join(lines)


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.rstrip("_").upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _flags(option: Any) -> str:
    return " ".join(f"`{flag}`" for flag in option.opts)


def _kind(option: Any) -> str:
    if option.is_flag:
        return ""
    found = NAMES.get(option.type.name, option.type.name)
    return f"{option.metavar or found}{', repeatable' if option.multiple else ''}"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.default is None or option.default in ((), []):
        return ""
    return f"`{option.default}`"


def api() -> str:
    """A directive of mkdocstrings for each public name, classes last."""
    public = [name for name in fewbit.__all__ if not name.startswith("__")]
    kinds: list[tuple[str, Callable[[object], bool]]] = [
        ("Functions", inspect.isfunction),
        ("Classes", lambda x: inspect.isclass(x) and not issubclass(x, Exception)),
        ("Exceptions", lambda x: inspect.isclass(x) and issubclass(x, Exception)),
    ]
    lines, listed = [], set[str]()
    for title, is_kind in kinds:
        names = [name for name in public if is_kind(getattr(fewbit, name))]
        listed |= set(names)
        lines += [f"## {title}\n", *(f"::: fewbit.{name}\n" for name in names)]
    lines += ["## Data\n", *(f"::: fewbit.{n}\n" for n in public if n not in listed)]
    return "\n".join(lines)


def files() -> str:
    """The first sentence of each file of rust/, python/ and reference/, folder by folder."""
    lines = []
    for folder, paths in _folders():
        rows = [[f"`{path.name}`", first_sentence(path)] for path in paths]
        lines += [f"### {folder}/\n", table(["file", "purpose"], rows)]
    return "\n".join(lines)


def mapped() -> list[Path]:
    """The files of the map."""
    return [path for _, paths in _folders() for path in paths]


def _folders() -> Iterator[tuple[str, list[Path]]]:
    suffixes = (".py", ".pyi", ".rs", ".wgsl")
    for top in ("rust", "python", "reference"):
        found = [p for p in sorted((ROOT / top).rglob("*")) if p.suffix in suffixes]
        for folder in sorted({path.parent for path in found}):
            here = [path for path in found if path.parent == folder]
            yield folder.relative_to(ROOT).as_posix(), here


def first_sentence(path: Path) -> str:
    """The first sentence of a file's own description: docstring, `//!` or leading `//` comment."""
    text = path.read_text("utf-8")
    if path.suffix in (".py", ".pyi"):
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        prefix = "//!" if path.suffix == ".rs" else "//"
        lines = text.splitlines()
        count = next((i for i, line in enumerate(lines) if not line.startswith(prefix)), 0)
        text = "\n".join(line.removeprefix(prefix).strip() for line in lines[:count])
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])", paragraph)[0].rstrip(".:")


def rooms() -> str:
    """The order of rooms of both languages, one room a line, from top to bottom."""
    orders = runpy.run_path(str(ROOT / "tests" / "rooms.py"))
    lines = []
    for folder, order in (("python/fewbit", "PYTHON_ROOMS"), ("rust", "RUST_ROOMS")):
        listed = "\n".join(" ".join(room) for room in orders[order])
        lines += [f"`{folder}/`, from top to bottom:\n", f"```text\n{listed}\n```\n"]
    return "\n".join(lines)


def examples() -> str:
    """The programs of docs/examples, whole."""
    lines = []
    for path in sorted((ROOT / "docs" / "examples").glob("*.py")):
        code = path.read_text("utf-8")
        lines += [f"## {path.name}\n", f"```python\n{code}```\n"]
    return "\n".join(lines)


def performance() -> str:
    """The saved runs beside other programs, machine by machine, the newest first."""
    printer = runpy.run_path(str(ROOT / "benches" / "table.py"))
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "benches" / "runs").glob("*.json"), reverse=True):
        run = printer["load"](path)
        run["results"] = [result for result in run["results"] if _is_shown(result)]
        if run["results"] and not path.stem.endswith("-first"):  # measured again later
            title = f"## {run['machine']['cpu']}\n"
            text = printer["tables"](run).replace("\n\n", f"\n\nSaved as `{path.name}`.\n\n", 1)
            found.setdefault(title, []).append(text)
    return "\n".join("\n".join([title, *runs]) for title, runs in found.items())


def activation_groups() -> str:
    """The saved runs of activation groups of 256 columns against groups of 32."""
    printer = runpy.run_path(str(ROOT / "benches" / "table.py"))
    paths = sorted((ROOT / "benches" / "runs").glob("*-activation-group[s-]*.json"))
    runs = [path for path in paths if not path.stem.endswith("-models")]
    if not runs:
        raise FileNotFoundError("no saved run of activation groups in benches/runs")
    return "\n".join(str(printer["tables"](printer["load"](path))) for path in runs)


def _is_shown(result: dict[str, Any]) -> bool:
    """Whether another program was measured too, or the time to the first token."""
    first_token = "first token" in result["phase"] and "fewbit before" not in result
    return bool(PEERS & result.keys()) or first_token


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; bars and line breaks in cells do not end them."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _json(*arguments: str) -> Any:
    """What a command writes with `--json`."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = cli.run([*arguments, "--json"])
    if code:
        raise RuntimeError(f"fewbit {' '.join(arguments)} ended with {code}")
    return json.loads(out.getvalue())


PASSAGES: dict[str, Callable[[], str]] = {
    "formats": formats,
    "ops": ops,
    "commands": commands,
    "api": api,
    "files": files,
    "rooms": rooms,
    "examples": examples,
    "performance": performance,
    "activation_groups": activation_groups,
}

if __name__ == "__main__":
    sys.stdout.write(PASSAGES[sys.argv[1]]())
