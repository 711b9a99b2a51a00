"""Write files under temporary names and rename them only when all is written."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fewbit.errors import InputError

if sys.platform != "win32":
    import fcntl

_TEMPORARY = ".fewbit-{}.part"
_ASIDE = ".fewbit-{}.old"
"""A piece of a model that is being replaced, until all its pieces are."""
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
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path for each of `paths`, as `replacing`; all are renamed, or none is.

    The first is taken away before the others are renamed and comes last: a process that is killed
    between two renames leaves pieces without a first one, which no reader takes for a model.

    Raises:
        InputError: a path is a device, a pipe or a socket.
        OSError: as `replacing`; the files that stood there are there again.

    """
    targets = [target_of(path) for path in paths]
    for folder in dict.fromkeys(target.parent for target in targets):
        _delete_abandoned(folder)
    with ExitStack() as stack:
        temporaries = [stack.enter_context(_Temporary(target)) for target in targets]
        yield [temporary.path for temporary in temporaries]
        for temporary in temporaries:
            temporary.finish()
        if len(targets) == 1:
            temporaries[0].path.replace(targets[0])
        else:
            _rename_all([temporary.path for temporary in temporaries], targets)


class _Temporary:
    """A locked temporary file beside `target`, deleted at the end if it was not renamed."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(_TEMPORARY.format(secrets.token_hex(8)))
        self._target = target
        self._descriptor = -1

    def __enter__(self) -> _Temporary:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(self._descriptor)
        return self

    def finish(self) -> None:
        """Take over the permissions of the file that will be replaced."""
        with suppress(FileNotFoundError):
            self.path.chmod(stat.S_IMODE(self._target.stat().st_mode))
        if sys.platform == "win32":  # an open file cannot be renamed there
            self._close()

    def __exit__(self, *_: object) -> None:
        if sys.platform == "win32":
            self._close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _rename_all(temporaries: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename files to `targets`, the first last; on an error the old files come back."""
    old: dict[Path, Path] = {}
    renamed: list[Path] = []
    try:
        for target in targets:
            if target.exists():
                aside = target.with_name(_ASIDE.format(secrets.token_hex(8)))
                target.replace(aside)
                old[target] = aside
        for temporary, target in zip(reversed(temporaries), reversed(targets), strict=True):
            temporary.replace(target)
            renamed.append(target)
    except BaseException:
        for target in renamed:
            with suppress(OSError):
                target.unlink()
        for target, aside in reversed(old.items()):
            with suppress(OSError):
                aside.replace(target)
        raise
    for aside in old.values():
        with suppress(OSError):
            aside.unlink()


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
