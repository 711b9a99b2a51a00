"""The order in which llama-quantize visits tensors: recipes and files follow it."""

from __future__ import annotations


def sort_key(name: str) -> tuple[int, bytes]:
    """Where ``llama-quantize`` puts a tensor: outside the blocks, then by block, then by name."""
    parts = name.split(".")
    inside = len(parts) > 1 and parts[0] == "blk" and parts[1].isdigit()
    return (int(parts[1]) if inside else -1, name.encode())
