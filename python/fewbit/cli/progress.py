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

from fewbit.callbacks import Progress


def stderr() -> Console:
    """A console on stderr, for everything that is not a result."""
    return Console(stderr=True, highlight=False)


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
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        *([TransferSpeedColumn()] if in_bytes else []),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    ]
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, text="")

        def update(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield update
