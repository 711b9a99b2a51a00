"""Manual pages from the help texts: `fewbit --man DIR` writes fewbit.1 and one per command."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewbit import _core

EXIT_CODES = (
    ("0", "success"),
    ("1", "failure with one message and a hint"),
    ("2", "a wrong command line"),
    ("130", "interrupted"),
    ("143", "terminated"),
)
VARIABLES = (
    ("FEWBIT_DEBUG=1", "an error shows the Python traceback"),
    ("FEWBIT_ISA=NAME", "forces an instruction set, for example scalar or avx2"),
    ("FEWBIT_GPU_TIMEOUT=SECONDS", "gives up a step on a graphics card that takes longer"),
)


def write_pages(folder: Path, program: Any) -> list[Path]:
    """Write the manual pages of a command line into `folder`, which is made if it is missing.

    `program` is the group of commands as typer has it. Returns the files.

    Raises:
        OSError: a file cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"fewbit": _program_page(program)}
    pages |= {f"fewbit-{name}": _command_page(name, c) for name, c in program.commands.items()}
    paths = []
    for name, lines in pages.items():
        paths.append(folder / f"{name}.1")
        paths[-1].write_text("\n".join(lines) + "\n", "utf-8")
    return paths


def _program_page(program: Any) -> Iterator[str]:
    yield from _head("fewbit", program.help)
    yield from (".SH SYNOPSIS", ".B fewbit", r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]...")
    yield from (".SH DESCRIPTION", *_paragraphs(program.help))
    yield ".SH COMMANDS"
    for name, command in program.commands.items():
        yield from _item(rf"\fBfewbit\-{_plain(name)}\fR(1)", _first_sentence(command.help))
    yield from _options(program)
    yield from _listed("EXIT STATUS", EXIT_CODES)
    yield from _listed("ENVIRONMENT", VARIABLES)


def _command_page(name: str, command: Any) -> Iterator[str]:
    yield from _head(f"fewbit-{name}", command.help)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(rf"\fI{_plain(_metavar(a))}\fR" for a in arguments)
    yield from (".SH SYNOPSIS", rf".B fewbit {_plain(name)}", rf"[\fIOPTIONS\fR] {usage}".rstrip())
    yield from (".SH DESCRIPTION", *_paragraphs(command.help))
    if arguments:
        yield ".SH ARGUMENTS"
        for argument in arguments:
            yield from _item(rf"\fI{_plain(_metavar(argument))}\fR", argument.help or "")
    yield from _options(command)
    yield from (".SH SEE ALSO", r".BR fewbit (1)")


def _head(name: str, text: str) -> Iterator[str]:
    yield rf'.TH "{_plain(name.upper())}" "1" "" "fewbit {_core.__version__}" "fewbit"'
    summary = _first_sentence(text).rstrip(".")
    yield from (".SH NAME", rf"{_plain(name)} \- {_plain(summary[:1].lower() + summary[1:])}")


def _options(command: Any) -> Iterator[str]:
    yield ".SH OPTIONS"
    for option in (p for p in command.params if p.param_type_name == "option"):
        names = ", ".join(rf"\fB{_plain(name)}\fR" for name in option.opts)
        value = "" if option.is_flag else rf" \fI{_plain(_metavar(option))}\fR"
        yield from _item(names + value, _with_default(option))
    yield from _item(r"\fB\-h\fR, \fB\-\-help\fR", "Show the help and exit.")


def _metavar(parameter: Any) -> str:
    """The word for a parameter's value, as in MODEL or NUMBER."""
    if parameter.metavar:
        return str(parameter.metavar)
    if parameter.param_type_name == "argument":
        name = parameter.name.rstrip("_").upper()
        return name if parameter.required else f"[{name}]"
    kind = parameter.type.name
    return "NUMBER" if kind.startswith(("int", "float")) else "TEXT"


def _with_default(option: Any) -> str:
    text = option.help or ""
    if option.is_flag or option.default in (None, (), []) or option.required:
        return text
    return f"{text} Default: {option.default}."


def _first_sentence(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _paragraphs(text: str) -> Iterator[str]:
    for index, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        yield from ([".PP"] if index else [])
        yield _plain(" ".join(paragraph.split()))


def _listed(title: str, items: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in items:
        yield from _item(rf"\fB{_plain(name)}\fR", text)


def _item(head: str, text: str) -> Iterator[str]:
    yield from (".TP", head, _plain(" ".join(text.split())))


def _plain(text: str) -> str:
    """Text that roff shows as it is: no escape, no request, hyphens that can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("'", r"\(aq")
    text = "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in text)
    return rf"\&{text}" if text.startswith(".") else text
