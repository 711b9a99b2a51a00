"""Order of tensors in ``llama-quantize``, which recipes and written files follow."""

from __future__ import annotations

import re

_NUMBER = re.compile("[0-9]{1,9}")


def sort_key(name: str) -> tuple[int, bytes]:
    """Sort key of a tensor: outside the blocks first, then by block, then by name."""
    first, *rest = name.split(".")
    inside = first == "blk" and bool(rest) and _NUMBER.fullmatch(rest[0]) is not None
    return (int(rest[0]) if inside else -1, name.encode(errors="surrogateescape"))
