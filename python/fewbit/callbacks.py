"""Progress callbacks: how long work reports its progress to its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and a few words on the present step.

What a step is depends on the work: bytes where tensors are loaded or written (the words are the
tensor's name), windows where a text is measured.
"""
