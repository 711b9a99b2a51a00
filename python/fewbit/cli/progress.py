"""Progress bars on stderr during long work; stdout is for data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column

from fewbit.callbacks import Progress


def stderr() -> Console:
    """A console on stderr, for everything that is not a result."""
    return Console(stderr=True, highlight=False)


def tell(text: str) -> None:
    """Print a text on stderr: lines end between words on a terminal, and nowhere else."""
    console = stderr()
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


class LateProgress:
    """A `Progress` callback that moves the bar which is drawn at the time, if one is."""

    update: Progress | None = None

    def __call__(self, done: int, total: int, text: str) -> None:
        """Move the bar."""
        if self.update is not None:
            self.update(done, total, text)


@contextmanager
def progress(title: str, in_bytes: bool = False) -> Iterator[Progress]:
    """Draw a progress bar and yield the `Progress` callback that moves it.

    With `in_bytes` a step is a byte, and the bar shows bytes per second. Nothing is drawn if stderr
    is not a terminal.
    """
    console = stderr()
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", table_column=_words()),
        BarColumn(bar_width=min(30, console.width // 5)),
        TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
        *(
            [TransferSpeedColumn(table_column=Column(no_wrap=True, min_width=10))]
            if in_bytes
            else []
        ),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[text]}", table_column=_words()),
    ]
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, text="")

        def update(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield update


def _words() -> Column:
    """A column of words, which are cut where a terminal is narrow; the numbers are not."""
    return Column(no_wrap=True, overflow="ellipsis", ratio=1)
