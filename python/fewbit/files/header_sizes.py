"""Hold the numbers of a header against the tensors of the file, before loops run to them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fewbit.errors import FileFormatError


def check_sizes(path: Path, shapes: Iterable[tuple[int, ...]], layers: int, head_dim: int) -> None:
    """Hold numbers that loops run to against the tensors: a layer has one at least.

    Raises:
        FileFormatError: the file has fewer tensors than layers, or no axis as long as a head.

    """
    axes = [max(shape, default=0) for shape in shapes]
    longest = max(axes, default=0)
    for what, value, most in (
        ("layers", layers, len(axes)),
        ("elements a head", head_dim, longest),
    ):
        if value > most:
            raise FileFormatError(
                f"`{path}` cannot have {value:,} {what}: its tensors allow {most:,} at most",
                hint="the file is damaged; download or convert it again",
                path=str(path),
            )
