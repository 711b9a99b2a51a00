"""Runs the sessions that a page shows and writes down what they print.

A block of `console` holds `$ fewbit ...` commands, a block of `pycon` Python after `>>>`. All
blocks of a page run in order, in one empty folder and one Python session. At the top of the
repository, `python docs/sessions.py docs/article.md` rewrites the outputs in place.
tests/test_docs.py fails where a page differs from what its sessions print, speeds excepted.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from fewbit.cli import main as cli
from fewbit.demo import DEMO
from fewbit.measure.speed import MEANINGS

BLOCK = re.compile(r"^```(console|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMITS = f"({'|'.join(MEANINGS)})"
LIMIT, LIMIT_NOTE = re.compile(rf"{LIMITS}(?= +\d)"), re.compile(rf"^{LIMITS}: .*\n", re.MULTILINE)
NUMBER = re.compile(r"\d[\d,.]*")


def rewritten(page: str) -> str:
    """The page with the output of each session as it is printed here and now."""
    names: dict[str, Any] = {}

    def run(block: re.Match[str]) -> str:
        kind, text = block[1], block[2]
        output = _console(text) if kind == "console" else _python(text, names)
        return f"```{kind}\n{output}```"

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return BLOCK.sub(run, page)


def masked(page: str) -> str:
    """The page without speeds, which no two runs share: what a test compares."""
    return BLOCK.sub(lambda block: f"```{block[1]}\n{_mask(block[2])}```", page)


def _console(text: str) -> str:
    lines = []
    for command in (line for line in text.splitlines() if line.startswith("$ ")):
        program, *arguments = shlex.split(command[2:])
        if program != "fewbit":
            raise ValueError(f"a session runs fewbit, not `{program}`")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = cli.run(arguments)
        if code and not out.getvalue():  # a check that finds something writes it, and ends with 1
            raise RuntimeError(f"`{command[2:]}` ended with {code}")
        found = out.getvalue().replace(str(DEMO), "demo").rstrip("\n")
        lines += [command, *(line.rstrip() for line in found.splitlines())]
    return "\n".join(lines) + "\n"


def _python(text: str, names: dict[str, Any]) -> str:
    written = []
    for example in doctest.DocTestParser().get_examples(text):
        first, *others = example.source.splitlines()
        written += [f">>> {first}", *(f"... {line}".rstrip() for line in others)]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                exec(compile(example.source, "<session>", "single"), names)
            except Exception as error:
                last = traceback.format_exception_only(error)[-1].split("\n")[0]
                print("Traceback (most recent call last):\n    ...\n" + last)
        written += out.getvalue().rstrip("\n").splitlines()
    return "\n".join(written) + "\n"


def _mask(text: str) -> str:
    if "$ fewbit bench" in text:
        text = LIMIT.sub("limit", LIMIT_NOTE.sub("", text))
        return re.sub(r"[ ─]+", " ", NUMBER.sub("0", text))
    if "tokens/s" not in text:
        return text
    return re.sub(r" +\d[\d,.]*$", " 0", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        path.write_text(rewritten(path.read_text("utf-8")), "utf-8")
