"""Turn errors of the library `tokenizers` into fewbit's: its exceptions, and its panics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fewbit.errors import FewbitError


@contextmanager
def guarded(kind: type[FewbitError], what: str, hint: str) -> Iterator[None]:
    """Raise errors of the library inside as `kind`, told as `what` failed.

    A panic of its Rust code, or of its regex engine, comes as a `BaseException` of no class that
    can be imported; it is known by its name.
    """
    try:
        yield
    except (FewbitError, MemoryError):
        raise
    except Exception as error:  # the library raises plain Exception
        raise kind(f"{what}: {error}", hint=hint) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {error}", hint=hint) from None
