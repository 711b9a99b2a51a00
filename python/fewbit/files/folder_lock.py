"""Let only one process at a time write results into a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewbit.errors import InputError

if sys.platform != "win32":
    import fcntl

_NAME = ".lock"


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it is missing; the lock ends with the process.

    Where the file system has no locks, nothing is held.

    Raises:
        InputError: another process holds it.
        OSError: the folder cannot be made.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _NAME).open("ab") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process writes results into `{folder}`",
                    hint="wait for it, or name another `--out`",
                    path=str(folder),
                ) from None
            except OSError:
                pass
        yield
