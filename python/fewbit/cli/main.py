"""The command line: ``fewbit COMMAND``, results on stdout, everything else on stderr.

Exit codes: 0 done, 1 failed with one message and a hint, 2 a wrong command line, 130 interrupted,
143 terminated.
``FEWBIT_DEBUG=1`` shows where a failure came from.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import typer.main

from fewbit import _core
from fewbit.cli import (
    benchmarks,
    calibrating,
    chat,
    comparing,
    devices,
    files,
    formats,
    measuring,
    numbers,
    outliers,
    plot,
    quantizing,
    reporting,
    sensitivity,
    speed,
    sweeping,
    writing,
)
from fewbit.cli.help import Command, ListsFormats
from fewbit.cli.man import write_pages
from fewbit.cli.progress import stderr, tell
from fewbit.errors import FewbitError

INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    name="fewbit",
    help="Store a language model's weights in fewer bits, prove what was lost, run the result.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
CLASSES = {
    quantizing.quantize: ListsFormats,
    numbers.float: numbers.Numbers,
    numbers.round: numbers.Numbers,
    plot.plot: numbers.Numbers,
}
for command in (
    files.inspect,
    formats.formats,
    formats.explain,
    numbers.float,
    numbers.round,
    quantizing.quantize,
    calibrating.calibrate,
    files.verify,
    measuring.perplexity,
    measuring.divergence,
    comparing.compare,
    sweeping.sweep,
    measuring.imatrix,
    outliers.outliers,
    sensitivity.sensitivity,
    benchmarks.benchmark,
    benchmarks.evaluate,
    benchmarks.next_,
    writing.generate,
    chat.chat,
    plot.plot,
    speed.bench,
    reporting.report,
    devices.devices,
):
    app.command(name=command.__name__.rstrip("_"), cls=CLASSES.get(command, Command))(command)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"fewbit {_core.__version__}\n")
        raise typer.Exit


def _man(folder: Path | None) -> None:
    if folder is not None:
        for path in write_pages(folder, typer.main.get_command(app)):
            sys.stdout.write(f"{path}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    man: Annotated[
        Path | None,
        typer.Option(
            "--man",
            metavar="DIR",
            callback=_man,
            is_eager=True,
            show_default=False,
            help="Write manual pages into this folder.",
        ),
    ] = None,
) -> None:
    """Store a language model's weights in fewer bits, prove what was lost, run the result."""


def main() -> None:
    """Run the command line of this process and end it with the exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without ± or é shows a ? instead
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a wrong byte fails its own text alone
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def _open_closed_streams() -> None:
    """Replace standard streams that the caller has closed, as some daemons do.

    There is no input then, messages are dropped, and writing a result is an error.
    """
    for name, flags, mode in (
        ("stdin", os.O_RDONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))


def _terminate(signum: int, _frame: object) -> None:
    """End as an interrupt does, so that no incomplete file stays."""
    raise SystemExit(128 + signum)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; a failure becomes one message on stderr and an exit code."""
    try:
        code = app(list(arguments), prog_name="fewbit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has closed it
        _drop_stdout()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            stderr().print("interrupted")
        raise
    except BaseException as error:  # a panic of the core is not an Exception
        if isinstance(error, OSError) and error.filename is None:
            _drop_stdout()  # perhaps full: nothing may be written again when Python ends
        if os.environ.get("FEWBIT_DEBUG"):
            raise
        return _fail(error)
    if code == INTERRUPTED:
        stderr().print("interrupted")
    return code if isinstance(code, int) else 0


def _drop_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):  # a test's stdout is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: BaseException) -> int:
    """Print what went wrong and what to do; an unforeseen error asks to be reported."""
    match error:
        case typer.TyperException():
            if error.format_message():  # empty if the help was shown
                _say(*_explain_usage(error))
            return error.exit_code
        case FewbitError():
            _say(error.message, error.hint)
        case OSError():
            _say(*_explain(error))
        case MemoryError():
            _say("out of memory", "use fewer formats, a shorter context or a smaller model")
        case _:
            _say(
                f"unexpected {type(error).__name__}: {error}",
                "this is a defect; FEWBIT_DEBUG=1 shows where it comes from",
            )
    return 1


def _explain_usage(error: typer.TyperException) -> tuple[str, str]:
    """The message of a wrong command line; the hint names the command that was typed."""
    message = error.format_message()
    near = list(getattr(error, "possibilities", None) or ())
    if near:
        message = message.partition(" (Possible options:")[0].partition(" Did you mean")[0]
    elif " Did you mean '" in message:  # an unknown command
        message, _, rest = message.partition(" Did you mean '")
        near = [rest.partition("'")[0]]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fewbit"
    what = "commands" if message.startswith(("No such command", "Missing command")) else "options"
    suggestion = f"did you mean `{near[0]}`? " if near else ""
    return _lower(message), f"{suggestion}`{command} --help` lists the {what}"


def _explain(error: OSError) -> tuple[str, str | None]:
    """The message of a failed read or write, naming the file where the system did."""
    where = f": `{error.filename}`" if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    hints = {
        errno.ENOSPC: "free some space or write elsewhere; nothing was left behind",
        errno.ENOENT: "check the path",
        errno.EACCES: "check the permissions",
        errno.EISDIR: "name a file in it",
        errno.EBADF: "stdout is closed: redirect it to a file or to the null device",
    }
    return f"{reason}{where}", hints.get(error.errno or 0)


def _say(message: str, hint: str | None) -> None:
    text = f"error: {message}" + (f"\n\nhint: {hint}" if hint else "")
    tell(text)


def _lower(message: str) -> str:
    """A message of the option parser in the form of all others: lower case, no final period."""
    return message[:1].lower() + message[1:].rstrip(".")
