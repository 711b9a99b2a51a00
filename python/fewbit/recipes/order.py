"""Order of tensors in ``llama-quantize``, which recipes and written files follow."""

from __future__ import annotations


def sort_key(name: str) -> tuple[int, bytes]:
    """Sort key of a tensor: outside the blocks first, then by block, then by name."""
    first, *rest = name.split(".")
    inside = first == "blk" and bool(rest) and rest[0].isdigit()
    return (int(rest[0]) if inside else -1, name.encode(errors="surrogateescape"))
