"""Write a file under a temporary name and rename it only when all is written."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fewbit.errors import InputError

if sys.platform != "win32":
    import fcntl

_TEMPORARY = ".fewbit-{}.part"
_ABANDONED_SECONDS = 60
"""Age at which an unlocked temporary file is nobody's; a new one is locked within this time."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` at the end, delete it on errors.

    If `path` is a symbolic link, its target is replaced and the link stays. A file that stood there
    before hands on its permissions. The temporary file has a random name, exists already (empty)
    and was not there before, so nobody can have put a link in its place. Temporary files that a
    killed process left in the folder are deleted.

    Raises:
        InputError: `path` is a device, a pipe or a socket.
        OSError: `path` is a folder, its folder does not exist, or the disk is full.

    """
    target = target_of(path)
    _delete_abandoned(target.parent)
    temporary = target.with_name(_TEMPORARY.format(secrets.token_hex(8)))
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _lock(descriptor)
        yield temporary
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        if sys.platform == "win32":  # an open file cannot be renamed there
            os.close(descriptor)
            descriptor = -1
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def target_of(path: Path) -> Path:
    """The regular file that writing to `path` makes or replaces: links are followed.

    Raises:
        InputError: `path` is a device, a pipe or a socket.
        OSError: `path` is a folder, its folder does not exist, or links form a circle.

    """
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise InputError(
                f"`{path}` is a device or a pipe; tensors are not written in the order of the file",
                hint="name a regular file and copy it afterwards",
                path=str(path),
            )
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    return target


def _lock(descriptor: int) -> None:
    """Mark a temporary file as in use; where the file system has no locks, it is young enough."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _delete_abandoned(folder: Path) -> None:
    """Delete temporary files of `folder` that no process has locked and that are not new."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        for file in folder.glob(_TEMPORARY.format("*")):
            with suppress(OSError), _opened(file) as descriptor:
                found = os.fstat(descriptor)
                if stat.S_ISREG(found.st_mode) and _is_old(found.st_mtime):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    """A descriptor of `file`, which is not a link; opening a pipe does not wait."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(file, os.O_RDWR | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_old(written: float) -> bool:
    return time.time() - written > _ABANDONED_SECONDS
