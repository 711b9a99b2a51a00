"""Fail in each way that a run of hostile inputs must notice; some inputs do well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random


def exercise(path: Path, work: Path, rng: Random) -> Iterator[str]:
    """Take the place of `tests.hostile.exercise.exercise`."""
    match rng.randrange(4):
        case 0:
            yield "ZeroDivisionError in x.py:1: none"
        case 1:
            os.abort()
        case 2:
            while path.exists():
                pass
